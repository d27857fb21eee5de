/* Shared by http_server.c, http_conn.c and http_reply.c only. */
#pragma once

#include "net/http_parse.h"
#include "net/http_server.h"

#include <sys/queue.h>

struct evbuffer;
struct bufferevent;

/* One listening socket. */
struct http_listener {
    LIST_ENTRY(http_listener) link;
    struct http_server *server;
    int fd;
    struct watch *watch;
    char *path; /* of a unix socket, else NULL */
    dev_t dev;  /* which file at `path` is ours */
    ino_t ino;
};

struct http_server {
    struct loop *loop;
    struct http_server_config config;
    http_handler_fn *handler;
    void *cookie;
    LIST_HEAD(, http_listener) listeners;
    TAILQ_HEAD(, http_conn) conns;
    unsigned conn_count, held;
    uint64_t refused;
    bool paused; /* not accepting: too many connections, or no file descriptors */
    struct timer resume; /* set: not accepting until then */
    bool stopping;
    struct timer stop_timer;
    loop_fn *stop_done; /* NULL once called */
    void *stop_cookie;
    uint64_t refusal_logged_us; /* when the last refused handshake was logged */
    unsigned refusals_unlogged;
};

/* What the connection waits for. */
enum http_state {
    HTTP_STATE_HANDSHAKE,
    HTTP_STATE_IDLE,    /* the first byte of a request */
    HTTP_STATE_HEAD,    /* the rest of the head */
    HTTP_STATE_BODY,    /* the rest of the body */
    HTTP_STATE_HELD,    /* the handler's answer */
    HTTP_STATE_STREAM,  /* the end of the handler's stream */
    HTTP_STATE_WRITING, /* the answer to leave; then the next request */
    HTTP_STATE_CLOSING, /* the answer to leave; then nothing more */
    HTTP_STATE_LINGER,  /* the client to read our last bytes: closing earlier would reset them */
};

struct http_conn {
    TAILQ_ENTRY(http_conn) link;
    struct http_server *server;
    struct bufferevent *bev;
    struct ssl_st *ssl; /* NULL without TLS; belongs to bev */
    int fd;             /* belongs to bev */
    enum http_state state;
    bool busy;     /* conn_process() runs */
    bool dead;     /* to be destroyed by the timer, soon */
    bool peer_eof; /* the client sends no more */
    bool input_full; /* enough waits: nothing more is read */
    bool keep_alive;
    struct timer timer;
    uint64_t state_us;    /* when the state was entered; of HEAD and BODY: the first byte */
    uint64_t progress_us; /* when bytes last moved (reading), or the last check (writing) */
    uint64_t sent, sent_mark;
    size_t scanned; /* of the head that is arriving */
    struct http_head *head;
    struct http_chunked chunked;
    struct str body;
    struct http_request *request; /* in states HELD and STREAM */
    struct http_peer peer;
};

struct http_request {
    struct loop *loop;
    struct http_conn *conn; /* NULL: the client is gone */
    struct http_head *head;
    struct str body;
    struct http_peer peer;
    loop_fn *on_close;
    void *on_close_cookie;
    bool close_posted;
    loop_fn *on_drained;
    void *on_drained_cookie;
    bool drained_posted;
    void *data;
    http_done_fn *on_done;
    void *on_done_cookie;
    unsigned status; /* of the answer; 0 = none yet */
    bool streaming;
    bool body_wanted; /* of a stream: not for HEAD */
    bool chunked;     /* of a stream: not for HTTP/1.0 */
};

/* http_conn.c */
void http_conn_accept(struct http_server *s, int fd, const struct http_peer *peer); /* takes fd */
void http_conn_destroy(struct http_conn *c);
void http_conn_kill(struct http_conn *c); /* soon */
/* Is it the client's turn to do something? */
bool http_conn_waits_for_client(const struct http_conn *c);
/* The server stops: finish what is in flight, close the rest. */
void http_conn_wind_down(struct http_conn *c);
/* The answer is in the output buffer: go on. Frees the request `r` of this connection. */
void http_conn_answered(struct http_conn *c, bool keep_alive);
void http_conn_output_grew(struct http_conn *c);
struct evbuffer *http_conn_output(struct http_conn *c);
void http_stream_drained(struct http_request *r); /* its output buffer is empty */
void http_stream_forget_drained(struct http_request *r);
void http_request_free(struct http_request *r);

/* http_server.c */
void http_server_conn_gone(struct http_server *s);
void http_server_log_refusal(struct http_server *s, const char *address, const char *why);

/* http_reply.c */
/* Puts status line and headers into `out`; length HTTP_LENGTH_NONE: no Content-Length. */
void http_head_write(struct evbuffer *out, unsigned status, const struct http_header *headers,
                     size_t header_count, uint64_t length, bool chunked, bool keep_alive);
/* {"description": "<text>"}; the caller frees it. */
char *http_error_body(const char *text);
