/* Private to the gRPC transport: one HTTP/2 connection and its streams, the same for server and
 * client.
 *
 * The rules that keep it safe: every way in (bufferevent callback, timer, kick) is bracketed by
 * conn_enter() and conn_leave(). Only the outermost conn_leave() sends, delivers what was deferred,
 * and frees; so nothing is freed and nghttp2 is never re-entered while one of its callbacks, or one
 * of the user's, is on the stack. Calls of the user only change state and ask for a turn with
 * conn_kick(). */
#pragma once

#include "net/grpc.h"
#include "net/grpc_wire.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/event.h>
#include <nghttp2/nghttp2.h>
#include <sys/queue.h>

#define PEER_TEXT_SIZE 64
#define PATH_MAX_BYTES 256 /* of a method; longer ones name no method of ours */

struct grpc_conn;

/* What server and client add to a connection. */
struct conn_role {
    bool is_server;
    /* Server: finds the method; false = there is none. */
    bool (*method)(struct grpc_conn *c, const char *path, const struct grpc_handlers **ret_h,
                   void **ret_cookie);
    void (*ready)(struct grpc_conn *c); /* the peer's SETTINGS have come */
    /* The connection is over, its streams are closed; `e` stays the connection's. May call
     * conn_close(). */
    void (*gone)(struct grpc_conn *c, const struct err *e);
};

struct grpc_stream {
    TAILQ_ENTRY(grpc_stream) link;
    struct grpc_conn *conn;
    const struct grpc_handlers *h; /* NULL: rejected, nobody is told anything */
    void *cookie;
    int32_t id;          /* 0: nghttp2 does not know it any more */
    struct event *timer; /* deadline or linger; NULL = none */

    /* receiving */
    struct grpc_assembler in;
    struct evbuffer *held; /* came in while paused; NULL = nothing */
    bool paused;
    bool remote_ended;
    bool half_close_told;

    /* sending */
    struct evbuffer *out; /* NULL = nothing was sent yet */
    bool replied;         /* server: response headers are submitted */
    bool stalled;         /* nghttp2 waits for resume_data */
    bool drained;         /* on_drained is due */
    bool ending;          /* no more messages after those in `out` */
    bool cancelled;       /* by us; to be carried out */
    bool ended;           /* our END_STREAM is on its way */
    bool over;            /* on_closed was called */

    /* the end: ours (server) or the peer's (client) */
    enum grpc_status status;
    char *text;
    bool has_status;

    /* headers as they come in */
    char *path;
    bool method_ok;
    bool type_ok;
    bool te_ok;
    bool bad_headers;
    int http_status;
    uint64_t timeout_us; /* 0 = none */
};
TAILQ_HEAD(stream_list, grpc_stream);

struct grpc_conn {
    TAILQ_ENTRY(grpc_conn) link; /* the server's list */
    const struct conn_role *role;
    void *owner; /* struct grpc_server or grpc_client */
    struct event_base *base;
    struct bufferevent *bev; /* NULL until the transport is there, and after its end */
    SSL *ssl;                /* belongs to bev */
    nghttp2_session *session;
    struct event *kick;
    struct event *timer; /* time for the handshake, then idle time */
    struct stream_list streams;
    struct stream_list closed; /* freed by the outermost conn_leave() */
    size_t n_streams;
    size_t max_message;
    size_t max_queue;
    uint32_t idle_ms;
    unsigned depth;
    bool up;       /* transport and TLS stand */
    bool ready;    /* the peer's SETTINGS have come */
    bool draining; /* GOAWAY sent or received */
    bool doomed;   /* the owner has let go */
    bool broken;   /* writing failed; reading goes on to the end */
    bool told;     /* the failure was reported */
    struct err *failure;
    char *trouble; /* what nghttp2 or the peer's GOAWAY said last, or NULL */
    char peer[PEER_TEXT_SIZE];
};

struct grpc_conn *conn_new(struct event_base *base, const struct conn_role *role, void *owner);
/* Makes the HTTP/2 session; streams may be opened from now on. */
void conn_start(struct grpc_conn *c);
/* Takes a connected socket and, if not NULL, the SSL for it. */
struct err *conn_attach(struct grpc_conn *c, int fd, SSL *ssl);
void conn_timer(struct grpc_conn *c, uint32_t ms); /* 0 = off */
void conn_enter(struct grpc_conn *c);
void conn_leave(struct grpc_conn *c);
void conn_kick(struct grpc_conn *c);
/* The connection is over because of `e` (taken); the first reason counts. */
void conn_fail(struct grpc_conn *c, struct err *e);
void conn_drain(struct grpc_conn *c);
/* The owner lets go: closes open streams with CANCELLED, frees now or at the outermost
 * conn_leave(). */
void conn_close(struct grpc_conn *c);

/* grpc_session.c */
nghttp2_session *session_new(struct grpc_conn *c);
int session_request(struct grpc_conn *c, struct grpc_stream *s, const char *path,
                    const char *scheme, const char *authority, uint64_t timeout_us);

/* Server: submits the response headers once there is a message or a status. */
void session_reply(struct grpc_stream *s);

/* grpc_stream.c */
struct grpc_stream *stream_new(struct grpc_conn *c, int32_t id);
void stream_free(struct grpc_stream *s);
void stream_timer(struct grpc_stream *s, uint64_t us);
/* Calls on_closed, once, and forgets the stream. Only between conn_enter() and conn_leave(). */
void stream_over(struct grpc_stream *s, enum grpc_status status, const char *text);
/* The same, and tells the peer by RST_STREAM. */
void stream_abort(struct grpc_stream *s, uint32_t http2_error, enum grpc_status status,
                  const char *text);
void stream_take(struct grpc_stream *s, const uint8_t *bytes, size_t n); /* DATA has come */
void stream_remote_end(struct grpc_stream *s);                           /* END_STREAM has come */
/* Does what was asked for in between: resume, cancel, on_drained. True when a callback ran. */
bool stream_settle(struct grpc_stream *s);
