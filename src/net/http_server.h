/* HTTP/1.1 server on the event loop: TCP with mutual TLS, plain TCP, or a unix socket.
 *
 * All functions belong to the loop thread. The handler is called once a request, when it has
 * arrived whole. It answers with exactly one of http_reply(), http_reply_shared(),
 * http_reply_error(), http_stream_start() ... http_stream_end(), or http_drop(): inside the call or
 * later, from any other callback of the loop. Until then the handle is valid, even when the client
 * goes away or the server is freed: answering it is then harmless and still required, for it frees
 * the handle.
 *
 * One connection's requests are handled one after the other. A client that half-closes its side
 * while a request waits for its answer counts as gone. Requests the server refuses by itself
 * (limits, syntax) never reach the handler; they are answered with a JSON object {"description":
 * "..."}. */
#pragma once

#include "net/loop.h"
#include "net/tls.h"

#include <stddef.h>
#include <sys/types.h>

enum http_method {
    HTTP_GET,
    HTTP_HEAD, /* answer as for GET: the server leaves the body out */
    HTTP_POST,
    HTTP_PUT,
    HTTP_DELETE,
    HTTP_OPTIONS,
    HTTP_PATCH,
    HTTP_TRACE,
    HTTP_QUERY,
};

struct http_server;
struct http_request;
typedef void http_handler_fn(struct http_request *r, void *cookie);

/* Zero in a field means its default. */
struct http_server_config {
    SSL_CTX *tls;             /* a tls_server_context(), taken by reference; NULL: no TLS */
    const char *name;         /* for log lines; static storage; default "http" */
    size_t max_header_bytes;  /* request line and headers; 16 KiB; more: 431 */
    size_t max_body_bytes;    /* 4 MiB; more: 413 */
    unsigned max_connections; /* 1024; beyond: see below */
    unsigned max_held;        /* requests and streams not finished, 512; more: 503 */
    uint64_t handshake_us;    /* TLS must be up by then; 10 s */
    uint64_t idle_us;         /* between requests; 75 s */
    uint64_t stall_us;        /* within a request or reply: without progress; 10 s */
    uint64_t request_us;      /* first to last byte of a request; 60 s */
};

/* The limits above are those of all listeners of one server together. When all connections are in use
 * and another client comes, a connection that waits for its client (silent, in the middle of a
 * request, not reading) is closed for it: the one that has waited longest of the address that has
 * most of them. When all wait for us, the new client waits in the kernel's queue. */
struct err *http_server_new(struct loop *l, const struct http_server_config *config,
                            http_handler_fn *handler, void *cookie,
                            struct http_server **ret_server) MUST_USE;
/* Listens on host (name or address, IPv4 or IPv6; NULL or "": all addresses) and port; port 0 lets
 * the system pick. Resolves names, so may block: at start-up only. ERR_BUSY, ERR_DENIED,
 * ERR_NOT_FOUND. */
struct err *http_server_listen_tcp(struct http_server *s, const char *host, uint16_t port,
                                   uint16_t *ret_port) MUST_USE;
/* Listens on a unix socket with these permission bits; never with TLS. Replaces the socket of a
 * dead process; ERR_BUSY when a living one serves it. The path is removed when the server stops. */
struct err *http_server_listen_unix(struct http_server *s, const char *path, mode_t mode) MUST_USE;
/* Serves a listening stream socket that somebody else made (net/handed.h), and takes it, also when it fails. What it is bound to stays
 * when the server stops. ERR_INVALID: it is no such socket, or a unix socket of a server with TLS. */
struct err *http_server_listen_fd(struct http_server *s, int fd) MUST_USE;
/* Stops listening, ends streams (their on-close is called), closes idle connections, lets requests
 * in flight finish until `deadline_us` (struct now.mono_us), then closes what is left. Then calls
 * done(cookie) once, from the loop. The server must still be freed. */
void http_server_stop(struct http_server *s, uint64_t deadline_us, loop_fn *done, void *cookie);
/* Closes everything at once (on-close callbacks are called). Not from a handler or an on-close
 * callback. Accepts NULL; returns NULL. */
struct http_server *http_server_free(struct http_server *s);
unsigned http_server_connections(const struct http_server *s);
/* How many requests the server refused by itself, and handshakes that failed, since it was made. */
uint64_t http_server_refused(const struct http_server *s);

/* ---- the request; everything returned lives as long as the handle ---- */

struct http_peer {
    bool has_identity; /* true with TLS */
    struct tls_identity identity;
    bool has_uid; /* true on a unix socket */
    uid_t uid;
    pid_t pid;
    char address[64]; /* "192.0.2.1:5000", "[2001:db8::1]:5000" or "unix", for logs */
};

enum http_method http_request_method(const struct http_request *r);
const char *http_method_name(enum http_method m);
/* Percent-decoded path, without the query; UTF-8 is not checked; no NUL inside. Begins with '/', or
 * is
 * "*". "%2F" is a '/' here: whoever must tell the two apart looks at the raw path. */
const char *http_request_path(const struct http_request *r);
const char *http_request_raw_path(const struct http_request *r);
/* What follows '?', raw; "" when there is none. */
const char *http_request_query(const struct http_request *r);
/* The decoded value of a query parameter, first one of that name; NULL when absent (or badly
 * encoded). The caller frees it. */
char *http_request_query_value(const struct http_request *r, const char *name);
/* The value of the index-th header of that name (any case), from 0; NULL when there are no more. */
const char *http_request_header(const struct http_request *r, const char *name, unsigned index);
/* NULL-terminated bytes (NUL after the last); never NULL. */
const char *http_request_body(const struct http_request *r, size_t *ret_len);
const struct http_peer *http_request_peer(const struct http_request *r);
/* A place for the handler's own pointer. */
void http_request_set_data(struct http_request *r, void *data);
void *http_request_data(const struct http_request *r);

/* Calls fn(cookie) once when the client is gone before the answer (or before the end of the
 * stream): the handle must still be answered or dropped, there or later. Never called after the
 * answer. When the client is gone already it is called from the loop soon. fn NULL: no call any
 * more. */
void http_request_on_close(struct http_request *r, loop_fn *fn, void *cookie);
bool http_request_is_gone(const struct http_request *r);
/* Calls fn(cookie, r, status) once, just before the handle is freed: `status` is that of the answer,
 * also of one that the client did not wait for; 0 when the request was dropped without one. The
 * request can still be read then, but not answered. */
typedef void http_done_fn(void *cookie, const struct http_request *r, unsigned status);
void http_request_on_done(struct http_request *r, http_done_fn *fn, void *cookie);

/* ---- the answer ---- */

struct http_header {
    const char *name, *value;
};

/* Content-Length, Date, Connection and, when missing, `Content-Type: application/json` are added.
 * The body is copied. Frees the handle. */
void http_reply(struct http_request *r, unsigned status, const struct http_header *headers,
                size_t header_count, const void *body, size_t len);
/* The same without copying: release(cookie) is called when the bytes are no longer needed, maybe
 * before this returns. Give each call its own reference. */
void http_reply_shared(struct http_request *r, unsigned status, const struct http_header *headers,
                       size_t header_count, const void *body, size_t len,
                       void (*release)(void *cookie), void *cookie);
/* {"description": "<text>"} */
void http_reply_error(struct http_request *r, unsigned status, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
/* Closes the connection without an answer. Frees the handle. */
void http_drop(struct http_request *r);

/* A reply of unknown length, e.g. server-sent events; nothing is buffered beyond the socket's
 * queue. */
void http_stream_start(struct http_request *r, unsigned status, const struct http_header *headers,
                       size_t header_count);
void http_stream_write(struct http_request *r, const void *bytes, size_t len);
/* Bytes that wait to be sent: drop (http_drop) a reader that is too far behind. A reader that takes
 * nothing for stall_us is dropped by the server. */
size_t http_stream_queued(const struct http_request *r);
/* Calls fn(cookie) once, from the loop, when all that was written has been handed to the socket: for long answers, written
 * piece by piece. Never after http_drop or http_stream_end; nor when the client is gone (on-close tells). */
void http_stream_on_drained(struct http_request *r, loop_fn *fn, void *cookie);
/* Ends the stream; frees the handle. */
void http_stream_end(struct http_request *r);

/* The usual words for a status: "Not Found". */
const char *http_status_text(unsigned status);
