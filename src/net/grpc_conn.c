/* One HTTP/2 connection over a bufferevent: bytes in, bytes out, and its end. */
#include "net/grpc_conn.h"

#include "net/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/bufferevent_ssl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <openssl/sslerr.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

/* Back-pressure below the streams: nghttp2 is asked for frames only while less than HIGH waits for
 * the socket, and asked again when it is down to LOW. */
#define OUTPUT_HIGH (128u * 1024)
#define OUTPUT_LOW (32u * 1024)
#define BROKEN_MS 1000 /* from a write that failed to the end of the input */
#define READ_AT_ONCE (64u * 1024)

static void on_kick(evutil_socket_t fd, short what, void *cookie)
{
    struct grpc_conn *c = cookie;

    conn_enter(c);
    conn_leave(c);
}

static void on_timeout(evutil_socket_t fd, short what, void *cookie)
{
    struct grpc_conn *c = cookie;

    conn_enter(c);
    if (c->broken)
        conn_fail(c, err_new(ERR_UNAVAILABLE, "%s: the peer closed the connection", c->peer));
    else if (c->ready)
        conn_fail(c, err_new(ERR_TIMEOUT, "%s: idle for too long", c->peer));
    else if (c->role->is_server)
        conn_fail(c, err_new(ERR_TIMEOUT, "%s: no HTTP/2 within the time allowed", c->peer));
    else
        conn_fail(c, err_new(ERR_TIMEOUT, "cannot connect to %s: no answer within the time allowed",
                             c->peer));
    conn_leave(c);
}

struct grpc_conn *conn_new(struct event_base *base, const struct conn_role *role, void *owner)
{
    struct grpc_conn *c = xcalloc(1, sizeof(*c));

    c->base = base;
    c->role = role;
    c->owner = owner;
    TAILQ_INIT(&c->streams);
    TAILQ_INIT(&c->closed);
    c->kick = event_new(base, -1, 0, on_kick, c);
    c->timer = event_new(base, -1, 0, on_timeout, c);
    if (!c->kick || !c->timer)
        mem_exhausted();
    return c;
}

void conn_start(struct grpc_conn *c)
{
    c->session = session_new(c);
}

void conn_timer(struct grpc_conn *c, uint32_t ms)
{
    struct timeval tv = {.tv_sec = ms / 1000, .tv_usec = (ms % 1000) * 1000};

    if (ms)
        event_add(c->timer, &tv);
    else
        event_del(c->timer);
}

void conn_kick(struct grpc_conn *c)
{
    if (!c->depth)
        event_active(c->kick, EV_TIMEOUT, 1);
}

void conn_fail(struct grpc_conn *c, struct err *e)
{
    if (c->failure) {
        err_free(e);
        return;
    }
    c->failure = e;
    conn_kick(c);
}

/* Moves frames from nghttp2 to the socket's buffer, as many as there is room for. */
static void pump(struct grpc_conn *c)
{
    struct grpc_stream *s;

    if (!c->session || !c->up || c->broken)
        return;
    TAILQ_FOREACH (s, &c->streams, link)
        session_reply(s);
    struct evbuffer *output = bufferevent_get_output(c->bev);
    while (evbuffer_get_length(output) < OUTPUT_HIGH) {
        const uint8_t *data;
        ssize_t n = nghttp2_session_mem_send(c->session, &data);
        if (n < 0) {
            conn_fail(c, err_new(ERR_UNAVAILABLE, "%s: HTTP/2 fails: %s", c->peer,
                                 nghttp2_strerror((int)n)));
            return;
        }
        if (n == 0)
            break;
        if (evbuffer_add(output, data, (size_t)n) != 0) {
            conn_fail(c, err_new(ERR_UNAVAILABLE, "%s: out of memory", c->peer));
            return;
        }
    }
    if (evbuffer_get_length(output))
        return;
    bool finished =
        !nghttp2_session_want_read(c->session) && !nghttp2_session_want_write(c->session);
    if (finished || (c->draining && !c->n_streams))
        conn_fail(c, err_new(ERR_UNAVAILABLE, "%s: %s", c->peer,
                             c->trouble ? c->trouble : "the connection has ended"));
}

/* True when a callback ran; then the list may have changed, and there may be more to send. */
static bool settle_streams(struct grpc_conn *c)
{
    struct grpc_stream *s;
    bool any = false;

    TAILQ_FOREACH (s, &c->streams, link) {
        if (stream_settle(s)) {
            any = true;
            break;
        }
    }
    return any;
}

static void close_streams(struct grpc_conn *c, enum grpc_status status, const char *text)
{
    struct grpc_stream *s;

    while ((s = TAILQ_FIRST(&c->streams)) != NULL)
        stream_over(s, status, text);
}

static void bury(struct grpc_conn *c)
{
    struct grpc_stream *s;

    while ((s = TAILQ_FIRST(&c->closed)) != NULL) {
        TAILQ_REMOVE(&c->closed, s, link);
        stream_free(s);
    }
}

/* The transport is let go; the connection stays for its owner. */
static void transport_drop(struct grpc_conn *c)
{
    nghttp2_session *session = c->session;

    c->up = false;
    c->session = NULL;
    if (session)
        nghttp2_session_del(session);
    if (c->bev)
        bufferevent_free(c->bev);
    c->bev = NULL;
    c->ssl = NULL;
    event_del(c->timer);
}

static void conn_destroy(struct grpc_conn *c)
{
    transport_drop(c);
    bury(c);
    event_free(c->kick);
    event_free(c->timer);
    err_free(c->failure);
    free(c->trouble);
    free(c);
}

void conn_enter(struct grpc_conn *c)
{
    c->depth++;
}

/* Tells everybody that the connection is over; once. */
static void tell_failure(struct grpc_conn *c)
{
    c->told = true;
    close_streams(c, GRPC_UNAVAILABLE, c->failure->text);
    if (c->doomed)
        return;
    transport_drop(c);
    c->role->gone(c, c->failure);
}

void conn_leave(struct grpc_conn *c)
{
    if (c->depth > 1) {
        c->depth--;
        return;
    }
    while (!c->doomed && !c->told) {
        if (!c->failure)
            pump(c);
        if (c->failure)
            tell_failure(c);
        else if (!settle_streams(c))
            break;
    }
    c->depth = 0;
    bury(c);
    if (c->doomed)
        conn_destroy(c);
}

void conn_close(struct grpc_conn *c)
{
    conn_enter(c);
    c->doomed = true; /* before the callbacks: nothing new may begin in them */
    close_streams(c, GRPC_CANCELLED, "the connection was closed on this side");
    c->depth--;
    if (!c->depth)
        conn_destroy(c);
}

void conn_drain(struct grpc_conn *c)
{
    if (c->draining)
        return;
    c->draining = true;
    if (c->session)
        nghttp2_submit_goaway(c->session, NGHTTP2_FLAG_NONE,
                              nghttp2_session_get_last_proc_stream_id(c->session), NGHTTP2_NO_ERROR,
                              NULL, 0);
    conn_kick(c);
}

static void on_readable(struct bufferevent *bev, void *cookie)
{
    struct grpc_conn *c = cookie;
    struct evbuffer *input = bufferevent_get_input(bev);

    conn_enter(c);
    while (!c->doomed && !c->failure && c->session && evbuffer_get_length(input)) {
        size_t n = evbuffer_get_contiguous_space(input);
        ssize_t taken =
            nghttp2_session_mem_recv(c->session, evbuffer_pullup(input, (ev_ssize_t)n), n);
        if (c->doomed)
            break;
        if (taken < 0) {
            conn_fail(c, err_new(ERR_UNAVAILABLE, "%s: does not speak HTTP/2 properly: %s", c->peer,
                                 nghttp2_strerror((int)taken)));
            break;
        }
        evbuffer_drain(input, (size_t)taken);
    }
    conn_leave(c);
}

static void on_writable(struct bufferevent *bev, void *cookie)
{
    struct grpc_conn *c = cookie;

    conn_enter(c);
    conn_leave(c);
}

static bool agreed_on_h2(const SSL *ssl)
{
    const unsigned char *protocol;
    unsigned n;

    SSL_get0_alpn_selected(ssl, &protocol, &n);
    return n == 2 && memcmp(protocol, "h2", 2) == 0;
}

static void transport_up(struct grpc_conn *c)
{
    if (c->ssl && !agreed_on_h2(c->ssl)) {
        conn_fail(c, err_new(ERR_UNAVAILABLE,
                             "%s: no HTTP/2 there (the TLS handshake did not agree on \"h2\")",
                             c->peer));
        return;
    }
    c->up = true;
    if (!c->session)
        conn_start(c);
}

/* Why the bufferevent reports an error. */
static char *failure_text(struct grpc_conn *c, int errnum)
{
    unsigned long code = c->ssl ? bufferevent_get_openssl_error(c->bev) : 0;
    bool refused = c->ssl && SSL_get_verify_result(c->ssl) != X509_V_OK;

    if (ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING || errnum == EPIPE ||
        errnum == ECONNRESET)
        return xstrdup("the peer closed the connection");
    if (code || refused)
        return tls_failure_text(c->ssl, code);
    return xstrdup(errnum ? strerror(errnum) : "the connection broke");
}

static void fail_closed(struct grpc_conn *c)
{
    if (c->ready && c->trouble)
        conn_fail(c, err_new(ERR_UNAVAILABLE, "%s: %s", c->peer, c->trouble));
    else
        conn_fail(c, err_new(ERR_UNAVAILABLE, "%s: the peer closed the connection%s", c->peer,
                             c->ready ? "" : " before HTTP/2 began"));
}

static void fail_broken(struct grpc_conn *c, int errnum)
{
    CLEANUP_FREE char *why = failure_text(c, errnum);
    bool tls = c->ssl && !c->up;

    conn_fail(c, err_new(ERR_UNAVAILABLE, "%s: %s%s", c->peer, tls ? "TLS fails: " : "", why));
}

static void on_event(struct bufferevent *bev, short what, void *cookie)
{
    int errnum = EVUTIL_SOCKET_ERROR();
    struct grpc_conn *c = cookie;

    conn_enter(c);
    if (what & BEV_EVENT_CONNECTED) {
        transport_up(c);
    } else if (what & BEV_EVENT_EOF) {
        fail_closed(c);
    } else if ((what & BEV_EVENT_ERROR) && (what & BEV_EVENT_WRITING) && !c->ssl) {
        /* What the peer said before it closed may still be there to read, the reason of the close
         * above all. The end of the input tells the rest; should it not come, the timer does. */
        c->broken = true;
        conn_timer(c, BROKEN_MS);
    } else if (what & BEV_EVENT_ERROR) {
        fail_broken(c, errnum);
    }
    conn_leave(c);
}

/* Tells the peer's address, and sets what each socket of ours has. */
static void describe(struct grpc_conn *c, int fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
        struct sockaddr_storage room;
    } a;
    socklen_t len = sizeof(a);
    char text[INET6_ADDRSTRLEN] = "";
    int on = 1, idle = 10, interval = 3, count = 3, unacked_ms = 20000;

    if (getpeername(fd, &a.any, &len) != 0)
        return;
    if (a.any.sa_family == AF_INET) {
        inet_ntop(AF_INET, &a.v4.sin_addr, text, sizeof(text));
        snprintf(c->peer, sizeof(c->peer), "%s:%u", text, ntohs(a.v4.sin_port));
    } else if (a.any.sa_family == AF_INET6) {
        inet_ntop(AF_INET6, &a.v6.sin6_addr, text, sizeof(text));
        snprintf(c->peer, sizeof(c->peer), "[%s]:%u", text, ntohs(a.v6.sin6_port));
    } else {
        if (!c->peer[0])
            snprintf(c->peer, sizeof(c->peer), "unix");
        return;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unacked_ms, sizeof(unacked_ms));
}

struct err *conn_attach(struct grpc_conn *c, int fd, SSL *ssl)
{
    int options = BEV_OPT_CLOSE_ON_FREE;
    enum bufferevent_ssl_state state =
        c->role->is_server ? BUFFEREVENT_SSL_ACCEPTING : BUFFEREVENT_SSL_CONNECTING;

    describe(c, fd);
    c->bev = ssl ? bufferevent_openssl_socket_new(c->base, fd, ssl, state, options)
                 : bufferevent_socket_new(c->base, fd, options);
    if (!c->bev) {
        if (ssl)
            SSL_free(ssl);
        close(fd);
        return err_new(ERR_INTERNAL, "%s: cannot set up the connection", c->peer);
    }
    c->ssl = ssl;
    if (ssl)
        bufferevent_openssl_set_allow_dirty_shutdown(c->bev, 1);
    bufferevent_setcb(c->bev, on_readable, on_writable, on_event, c);
    bufferevent_setwatermark(c->bev, EV_WRITE, OUTPUT_LOW, 0);
    bufferevent_set_max_single_read(c->bev, READ_AT_ONCE);
    bufferevent_enable(c->bev, EV_READ | EV_WRITE);
    if (!ssl) {
        transport_up(c);
        conn_kick(c);
    }
    return NULL;
}
