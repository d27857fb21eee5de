/* gRPC over HTTP/2, server and client, on the event loop: unary and streaming calls look the same
 * here (a unary call is a stream with one message each way). Clear text on unix sockets and
 * loopback, TLS everywhere else.
 *
 * Threads: everything belongs to the loop thread of the `base` it was made with.
 *
 * Callbacks: never run from inside a call into this module, with one exception: grpc_client_free()
 * and grpc_server_free() call `on_closed` of every stream that is still open. Inside a callback
 * everything may be called, also these two. A stream lives until its `on_closed` returns;
 * `on_closed` comes exactly once for each stream, whatever happens.
 *
 * Sending never blocks. What a slow peer does not take stays in the stream's queue, which is
 * bounded: look at grpc_stream_queued() and wait for `on_drained`, and send the latest value then.
 * Receiving is bounded by the message limit and, while paused, by the HTTP/2 window.
 *
 * HTTP/2 pings are not used: foreign servers punish them. A dead peer is found by TCP keep-alive
 * after about twenty seconds; who needs to know sooner sends messages of its own. */
#pragma once

#include "base/err.h"

#include <openssl/ssl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct event_base;

/* The status codes of gRPC. */
enum grpc_status {
    GRPC_OK = 0,
    GRPC_CANCELLED = 1,
    GRPC_UNKNOWN = 2,
    GRPC_INVALID_ARGUMENT = 3,
    GRPC_DEADLINE_EXCEEDED = 4,
    GRPC_NOT_FOUND = 5,
    GRPC_ALREADY_EXISTS = 6,
    GRPC_PERMISSION_DENIED = 7,
    GRPC_RESOURCE_EXHAUSTED = 8,
    GRPC_FAILED_PRECONDITION = 9,
    GRPC_ABORTED = 10,
    GRPC_OUT_OF_RANGE = 11,
    GRPC_UNIMPLEMENTED = 12,
    GRPC_INTERNAL = 13,
    GRPC_UNAVAILABLE = 14,
    GRPC_DATA_LOSS = 15,
    GRPC_UNAUTHENTICATED = 16,
    GRPC_STATUS_MAX,
};

const char *grpc_status_name(enum grpc_status status); /* "NOT_FOUND", ...; "UNKNOWN" for others */

#define GRPC_DEFAULT_MAX_MESSAGE (16u << 20) /* bytes of one received message */
#define GRPC_DEFAULT_MAX_QUEUE (1u << 20)    /* bytes waiting in one stream */
#define GRPC_DEFAULT_CONNECT_MS 10000u
#define GRPC_HANDSHAKE_MS                                                                          \
    10000u /* a client must have finished TLS and its HTTP/2 preface by then */
#define GRPC_LINGER_MS                                                                             \
    30000u /* after grpc_stream_finish() the peer has this long to take what is queued */
#define GRPC_MAX_STREAMS 128u /* open at once on one connection to our server */
#define GRPC_MAX_TEXT 4096u   /* bytes of a status text; longer ones are cut */

struct grpc_stream;

/* Every member may be NULL. */
struct grpc_handlers {
    /* Server: a peer has opened this stream; the cookie is the method's until
     * grpc_stream_set_cookie(). */
    void (*on_open)(struct grpc_stream *s);
    /* One whole message; the bytes are valid until the callback returns. */
    void (*on_message)(struct grpc_stream *s, const uint8_t *bytes, size_t n);
    /* The peer sends no more messages. Server: time to finish, at the latest. */
    void (*on_half_close)(struct grpc_stream *s);
    /* The queue has become empty. */
    void (*on_drained)(struct grpc_stream *s);
    /* The stream is over; `text` is valid UTF-8, maybe empty. Client: the server's status, or what
     * went wrong. Server: the status it finished with, if the peer got it, else CANCELLED,
     * DEADLINE_EXCEEDED, UNAVAILABLE (connection lost), ... */
    void (*on_closed)(struct grpc_stream *s, enum grpc_status status, const char *text);
};

void grpc_stream_set_cookie(struct grpc_stream *s, void *cookie);
void *grpc_stream_cookie(const struct grpc_stream *s);
/* The connection's TLS state, for tls_peer_identity(); NULL on connections without TLS. */
SSL *grpc_stream_ssl(const struct grpc_stream *s);
/* Where the peer is, for logs: "192.0.2.1:4711", "unix". Lives as long as the stream. */
const char *grpc_stream_peer(const struct grpc_stream *s);
/* Queues one message (copied). False and nothing queued when the stream is ending, or when the
 * queue is not empty and the message would take it over the limit. */
bool grpc_stream_send(struct grpc_stream *s, const void *bytes, size_t n) MUST_USE;
/* Bytes in the queue, with 5 for each message. */
size_t grpc_stream_queued(const struct grpc_stream *s);
/* Stops and restarts `on_message` and `on_half_close`; the peer may fill the window meanwhile, not
 * more. */
void grpc_stream_pause(struct grpc_stream *s);
void grpc_stream_resume(struct grpc_stream *s);
/* Client: no more messages will be sent; what is queued still is. */
void grpc_stream_half_close(struct grpc_stream *s);
/* Server: sends what is queued, then the status. `text` may be NULL. Messages that still come in
 * are dropped. Only the first call counts. */
void grpc_stream_finish(struct grpc_stream *s, enum grpc_status status, const char *text);
/* Either side: ends the stream at once with CANCELLED; what is queued is lost. */
void grpc_stream_cancel(struct grpc_stream *s);

struct grpc_server;

struct grpc_server_options {
    struct event_base *base; /* must outlive the server */
    const char *host;        /* numeric address ("0.0.0.0", "::"), or NULL for a unix socket */
    uint16_t port;           /* 0 = the system picks one */
    const char
        *unix_path;     /* when host is NULL. A socket left there by a dead process is replaced */
    SSL_CTX *ctx;       /* NULL = without TLS; the server takes a reference */
    size_t max_message; /* 0 = GRPC_DEFAULT_MAX_MESSAGE */
    size_t max_queue;   /* 0 = GRPC_DEFAULT_MAX_QUEUE */
    uint32_t idle_ms;   /* connections without a stream are closed after this; 0 = never */
};

/* Listens at once; add the methods before the loop runs on. Errors name the address. */
struct err *grpc_server_new(const struct grpc_server_options *o, struct grpc_server **ret) MUST_USE;
/* `path` ("/package.Service/Method") and `h` must outlive the server. */
void grpc_server_add(struct grpc_server *s, const char *path, const struct grpc_handlers *h,
                     void *cookie);
uint16_t grpc_server_port(const struct grpc_server *s); /* 0 on a unix socket */
size_t grpc_server_connections(const struct grpc_server *s);
/* Takes no new connections and no new streams; connections end when their streams have. */
void grpc_server_drain(struct grpc_server *s);
/* Cuts all connections, calls `on_closed` of open streams (CANCELLED). Accepts NULL; returns NULL.
 */
struct grpc_server *grpc_server_free(struct grpc_server *s);

/* One connection to a server. It connects at once, reports its end once, and does not reconnect by
 * itself. */
struct grpc_client;

struct grpc_client_options {
    struct event_base *base; /* must outlive the client */
    const char *host; /* address or name; NULL for a unix socket. Looking a name up blocks nobody,
                       * but asks only /etc/hosts and DNS. All its addresses are tried in turn */
    uint16_t port;
    const char *unix_path;
    SSL *ssl; /* from tls_client_ssl() or SSL_new(), with verification set up; NULL = without TLS.
               * grpc_client_new() takes it over, also when it fails */
    const char *authority; /* NULL: "host:port", or "localhost" on a unix socket */
    uint32_t
        connect_ms; /* for name, connection, TLS and HTTP/2 together; 0 = GRPC_DEFAULT_CONNECT_MS */
    size_t max_message; /* 0 = GRPC_DEFAULT_MAX_MESSAGE */
    size_t max_queue;   /* 0 = GRPC_DEFAULT_MAX_QUEUE */
    /* The connection stands, the peer is verified and speaks HTTP/2. May be NULL. */
    void (*on_ready)(struct grpc_client *c, void *cookie);
    /* The connection could not be made or is over; comes once, after `on_closed` of all streams
     * (UNAVAILABLE). `e` stays the module's. Free the client here or later. */
    void (*on_failed)(struct grpc_client *c, const struct err *e, void *cookie);
    void *cookie;
};

struct err *grpc_client_new(const struct grpc_client_options *o, struct grpc_client **ret) MUST_USE;
/* Opens a call; fine before `on_ready`. `timeout_ms` 0 = no deadline. NULL when the connection has
 * failed or the server is going away. `h` must outlive the stream. */
struct grpc_stream *grpc_client_call(struct grpc_client *c, const char *path,
                                     const struct grpc_handlers *h, void *cookie,
                                     uint32_t timeout_ms);
/* Closes the connection; `on_closed` of open streams is called (CANCELLED), `on_failed` is not.
 * Accepts NULL; returns NULL. */
struct grpc_client *grpc_client_free(struct grpc_client *c);
