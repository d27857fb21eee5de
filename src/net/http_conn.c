/* One connection: reading requests, holding them for their answers, closing well. */
#include "net/http_private.h"

#include "base/log.h"
#include "base/now.h"

#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/event.h>
#include <openssl/err.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define READ_AHEAD_BYTES (64u << 10) /* what may wait behind a held request */
#define MIN_PROGRESS_BYTES 4096u     /* of an answer, in each stall_us */
#define LINGER_US (2 * USEC_PER_SEC)

struct evbuffer *http_conn_output(struct http_conn *c)
{
    return bufferevent_get_output(c->bev);
}

static size_t output_length(const struct http_conn *c)
{
    return evbuffer_get_length(bufferevent_get_output(c->bev));
}

static void state_set(struct http_conn *c, enum http_state state, uint64_t now_us)
{
    c->state = state;
    c->state_us = c->progress_us = now_us;
    c->sent_mark = c->sent;
}

/* ---- deadlines ---- */

static uint64_t deadline(const struct http_conn *c)
{
    const struct http_server_config *config = &c->server->config;

    switch (c->state) {
    case HTTP_STATE_HANDSHAKE:
        return c->state_us + config->handshake_us;
    case HTTP_STATE_IDLE:
        return c->state_us + config->idle_us;
    case HTTP_STATE_HEAD:
    case HTTP_STATE_BODY: {
        /* Absolute: a byte a second must not hold a connection for ever. */
        uint64_t whole = c->state_us + config->request_us;
        uint64_t next = c->progress_us + config->stall_us;

        return whole < next ? whole : next;
    }
    case HTTP_STATE_LINGER:
        return c->state_us + LINGER_US;
    case HTTP_STATE_HELD:
        return USEC_NEVER;
    case HTTP_STATE_STREAM:
    case HTTP_STATE_WRITING:
    case HTTP_STATE_CLOSING:
        break;
    }
    return output_length(c) > 0 ? c->progress_us + config->stall_us : USEC_NEVER;
}

static void timer_update(struct http_conn *c)
{
    uint64_t due = c->dead ? 0 : deadline(c);

    if (due == USEC_NEVER)
        timer_cancel(&c->timer);
    else if (!timer_is_set(&c->timer) || c->timer.due_us != due)
        timer_set(&c->timer, due);
}

/* ---- the end of a connection ---- */

static void on_sent(struct evbuffer *out, const struct evbuffer_cb_info *info, void *cookie)
{
    ((struct http_conn *)cookie)->sent += info->n_deleted;
}

static void request_gone(struct http_request *r)
{
    loop_fn *fn = r->on_close;

    r->conn = NULL;
    r->on_close = NULL;
    if (fn)
        fn(r->on_close_cookie);
}

void http_conn_destroy(struct http_conn *c)
{
    struct http_server *s = c->server;
    struct http_request *r = steal(&c->request);
    struct evbuffer *out = bufferevent_get_output(c->bev);

    timer_cancel(&c->timer);
    TAILQ_REMOVE(&s->conns, c, link);
    s->conn_count--;
    s->held -= r != NULL;
    if (c->ssl && c->state != HTTP_STATE_HANDSHAKE)
        (void)SSL_shutdown(c->ssl); /* says good-bye if the socket takes it at once */
    ERR_clear_error();
    /* libevent destroys the stream only in the next turn of the loop; what the answers refer to is
     * released now. */
    evbuffer_remove_cb(out, on_sent, c);
    evbuffer_unfreeze(out, /* at_front= */ 1);
    evbuffer_drain(out, evbuffer_get_length(out));
    bufferevent_disable(c->bev, EV_READ | EV_WRITE);
    bufferevent_setcb(c->bev, NULL, NULL, NULL, NULL);
    bufferevent_free(c->bev);
    http_head_free(c->head);
    str_done(&c->body);
    free(c);
    if (r)
        request_gone(r);
    http_server_conn_gone(s);
}

void http_conn_kill(struct http_conn *c)
{
    c->dead = true;
    if (c->request) {
        c->request->conn = NULL;
        c->request = NULL;
        c->server->held--;
    }
    timer_update(c);
}

/* Everything is sent: tell the client so, and wait until it has read it. Closing a socket that
 * holds unread bytes would send a reset, which may overtake our answer. */
static void linger(struct http_conn *c)
{
    if (c->peer_eof) {
        c->dead = true;
        return;
    }
    if (c->ssl)
        (void)SSL_shutdown(c->ssl);
    ERR_clear_error();
    shutdown(c->fd, SHUT_WR);
    state_set(c, HTTP_STATE_LINGER, now_os().mono_us);
}

/* ---- answers ---- */

static void answered(struct http_conn *c, bool keep_alive)
{
    state_set(c, keep_alive ? HTTP_STATE_WRITING : HTTP_STATE_CLOSING, now_os().mono_us);
    if (output_length(c) == 0) /* the end of a stream whose bytes have all left */
        bufferevent_trigger(c->bev, EV_WRITE,
                            BEV_TRIG_IGNORE_WATERMARKS | BEV_TRIG_DEFER_CALLBACKS);
    if (!c->busy)
        timer_update(c);
}

bool http_conn_waits_for_client(const struct http_conn *c)
{
    return !c->dead && c->state != HTTP_STATE_HELD && c->state != HTTP_STATE_STREAM;
}

void http_conn_wind_down(struct http_conn *c)
{
    struct http_request *r = c->request;

    c->keep_alive = false;
    if (c->state == HTTP_STATE_HANDSHAKE || c->state == HTTP_STATE_IDLE) {
        http_conn_kill(c);
    } else if (c->state == HTTP_STATE_STREAM) {
        if (r->chunked && r->body_wanted && evbuffer_add(http_conn_output(c), "0\r\n\r\n", 5) < 0)
            mem_exhausted();
        c->request = NULL;
        c->server->held--;
        answered(c, /* keep_alive= */ false);
        request_gone(r);
    }
}

void http_conn_answered(struct http_conn *c, bool keep_alive)
{
    struct http_request *r = steal(&c->request);

    c->server->held--;
    answered(c, keep_alive);
    r->conn = NULL;
    http_request_free(r);
}

void http_conn_output_grew(struct http_conn *c)
{
    if (!timer_is_set(&c->timer)) { /* nothing waited: the time to take it begins now */
        c->progress_us = now_os().mono_us;
        c->sent_mark = c->sent;
    }
    if (!c->busy)
        timer_update(c);
}

/* An answer of the server itself. */
static void refuse(struct http_conn *c, unsigned status, const char *text, bool keep_alive)
{
    static const struct http_header retry = {"Retry-After", "1"};
    CLEANUP_FREE char *body = http_error_body(text);
    struct evbuffer *out = http_conn_output(c);
    bool head_only = c->head && c->head->method == HTTP_HEAD;

    c->server->refused++;
    http_head_write(out, status, &retry, status == 503, strlen(body), /* chunked= */ false,
                    keep_alive);
    if (!head_only && evbuffer_add(out, body, strlen(body)) < 0)
        mem_exhausted();
    c->head = http_head_free(c->head);
    str_done(&c->body);
    answered(c, keep_alive);
}

/* ---- requests ---- */

static void dispatch(struct http_conn *c)
{
    struct http_server *s = c->server;

    if (s->held >= s->config.max_held) {
        refuse(c, 503, "Too many requests wait for their answers. Try again later.",
               c->keep_alive && c->head->keep_alive);
        return;
    }
    struct http_request *r = xcalloc(1, sizeof(*r));

    r->loop = s->loop;
    r->conn = c;
    r->head = steal(&c->head);
    r->body = c->body;
    c->body = (struct str){0};
    r->peer = c->peer;
    c->request = r;
    s->held++;
    state_set(c, HTTP_STATE_HELD, now_os().mono_us);
    s->handler(r, s->cookie);
}

/* true: took something, go on. */
static bool step_idle(struct http_conn *c, struct evbuffer *in)
{
    size_t n = evbuffer_get_length(in);

    if (n == 0) {
        c->dead = c->peer_eof || c->server->stopping;
        return false;
    }
    const unsigned char *p = evbuffer_pullup(in, n < 2 ? 1 : 2);

    /* An empty line before a request is old clients' habit (RFC 9112 section 2.2). */
    if (n >= 2 && p[0] == '\r' && p[1] == '\n') {
        evbuffer_drain(in, 2);
        return true;
    }
    if (n == 1 && p[0] == '\r') /* the first half of one? */
        return false;
    if (p[0] != '\r' && (p[0] < 'A' || p[0] > 'Z')) {
        refuse(c, 400, "This is not an HTTP request.", /* keep_alive= */ false);
        return true;
    }
    c->scanned = 0;
    c->chunked = (struct http_chunked){0};
    state_set(c, HTTP_STATE_HEAD, now_os().mono_us);
    return true;
}

/* The head is parsed: is its body welcome? */
static void head_done(struct http_conn *c, struct evbuffer *in)
{
    struct http_head *h = c->head;
    bool sized = h->content_length != HTTP_LENGTH_NONE;

    if (sized && h->content_length > c->server->config.max_body_bytes) {
        refuse(c, 413, "The body of the request is too large.", /* keep_alive= */ false);
        return;
    }
    c->state = HTTP_STATE_BODY; /* its time began with the head */
    if (h->expect_continue && (h->chunked || (sized && h->content_length > 0)) &&
        evbuffer_get_length(in) == 0 &&
        evbuffer_add(http_conn_output(c), "HTTP/1.1 100 Continue\r\n\r\n", 25) < 0)
        mem_exhausted();
}

static bool step_head(struct http_conn *c, struct evbuffer *in)
{
    struct http_refusal refusal = {0};
    size_t max = c->server->config.max_header_bytes;
    size_t n = evbuffer_get_length(in);

    n = n < max ? n : max;
    const char *bytes = (const char *)evbuffer_pullup(in, (ev_ssize_t)n);
    size_t found = http_head_find(bytes, n, &c->scanned, &refusal);

    if (found == 0 && refusal.status == 0) {
        if (n < max) {
            c->dead = c->peer_eof;
            return false;
        }
        refusal = (struct http_refusal){431, "The head of the request is too large."};
    }
    if (refusal.status == 0)
        refusal = http_head_parse(bytes, found, &c->head);
    if (refusal.status != 0) {
        refuse(c, refusal.status, refusal.text, /* keep_alive= */ false);
        return true;
    }
    evbuffer_drain(in, found);
    head_done(c, in);
    return true;
}

/* Takes a piece of the body that lies in one block. */
static bool step_body_chunked(struct http_conn *c, struct evbuffer *in)
{
    size_t n = evbuffer_get_contiguous_space(in);
    size_t taken = 0, len = 0;
    const char *data = NULL;

    if (n == 0)
        return false;
    switch (http_chunked_feed(&c->chunked, (const char *)evbuffer_pullup(in, (ev_ssize_t)n), n,
                              &taken, &data, &len)) {
    case HTTP_CHUNKED_BAD:
        refuse(c, 400, "The chunked body of the request is malformed.", /* keep_alive= */ false);
        return true;
    case HTTP_CHUNKED_DATA:
        if (len + c->chunked.left > c->server->config.max_body_bytes - c->body.len) {
            refuse(c, 413, "The body of the request is too large.", /* keep_alive= */ false);
            return true;
        }
        str_append_bytes(&c->body, data, len);
        break;
    case HTTP_CHUNKED_END:
        evbuffer_drain(in, taken);
        dispatch(c);
        return true;
    case HTTP_CHUNKED_MORE:
        break;
    }
    evbuffer_drain(in, taken);
    return true;
}

static bool step_body(struct http_conn *c, struct evbuffer *in)
{
    if (c->head->chunked)
        return step_body_chunked(c, in);
    size_t want = c->head->content_length == HTTP_LENGTH_NONE
                      ? 0
                      : (size_t)c->head->content_length - c->body.len;
    size_t n = evbuffer_get_contiguous_space(in);

    if (want == 0) {
        dispatch(c);
        return true;
    }
    if (n == 0)
        return false;
    n = n < want ? n : want;
    str_append_bytes(&c->body, evbuffer_pullup(in, (ev_ssize_t)n), n);
    evbuffer_drain(in, n);
    return true;
}

static bool step(struct http_conn *c)
{
    struct evbuffer *in = bufferevent_get_input(c->bev);

    switch (c->state) {
    case HTTP_STATE_IDLE:
        return step_idle(c, in);
    case HTTP_STATE_HEAD:
        return step_head(c, in);
    case HTTP_STATE_BODY:
        return step_body(c, in);
    case HTTP_STATE_CLOSING:
    case HTTP_STATE_LINGER:
        evbuffer_drain(in, evbuffer_get_length(in));
        return false;
    case HTTP_STATE_HANDSHAKE:
    case HTTP_STATE_HELD:
    case HTTP_STATE_STREAM:
    case HTTP_STATE_WRITING:
        break;
    }
    return false;
}

/* No more is read while so much waits. Not by libevent's read watermark: with TLS it may stop between two pieces of
 * a record, and then nothing tells that OpenSSL holds the rest. */
static void reading_update(struct http_conn *c)
{
    bool full = evbuffer_get_length(bufferevent_get_input(c->bev)) >= READ_AHEAD_BYTES;

    if (full == c->input_full)
        return;
    c->input_full = full;
    if (full)
        bufferevent_disable(c->bev, EV_READ);
    else
        bufferevent_enable(c->bev, EV_READ);
}

static void conn_process(struct http_conn *c)
{
    c->busy = true;
    while (!c->dead && step(c))
        ;
    c->busy = false;
    if (c->dead) {
        http_conn_destroy(c);
        return;
    }
    reading_update(c);
    timer_update(c);
}

/* ---- events ---- */

static void on_read(struct bufferevent *bev, void *cookie)
{
    struct http_conn *c = cookie;

    if (c->state == HTTP_STATE_HEAD || c->state == HTTP_STATE_BODY)
        c->progress_us = now_os().mono_us;
    conn_process(c);
}

/* The output buffer has run empty. */
static void on_written(struct bufferevent *bev, void *cookie)
{
    struct http_conn *c = cookie;

    if (output_length(c) > 0)
        return;
    if (c->request && c->request->streaming)
        http_stream_drained(c->request);
    if (c->state == HTTP_STATE_WRITING)
        state_set(c, HTTP_STATE_IDLE, now_os().mono_us);
    else if (c->state == HTTP_STATE_CLOSING)
        linger(c);
    conn_process(c);
}

static void on_connected(struct http_conn *c)
{
    CLEANUP_ERR struct err *e = tls_peer_identity(c->ssl, &c->peer.identity);

    if (e) { /* cannot be: the handshake demands it */
        http_server_log_refusal(c->server, c->peer.address, e->text);
        c->dead = true;
    }
    c->peer.has_identity = true;
    state_set(c, HTTP_STATE_IDLE, now_os().mono_us);
    conn_process(c);
}

/* Somebody typed http:// instead of https://. Said in the clear, on the bare socket. */
static void say_https_only(int fd)
{
    static const char body[] =
        "{\"description\": \"This port speaks HTTPS only, with client certificates.\"}";
    char text[512];
    int n = snprintf(text, sizeof(text),
                     "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\n"
                     "Content-Length: %zu\r\nConnection: close\r\n\r\n%s",
                     sizeof(body) - 1, body);

    (void)send(fd, text, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void handshake_failed(struct http_conn *c, short what)
{
    unsigned long code = bufferevent_get_openssl_error(c->bev);
    CLEANUP_FREE char *why = tls_failure_text(c->ssl, code);
    char unread[4096];

    if (what & BEV_EVENT_ERROR && code != 0)
        http_server_log_refusal(c->server, c->peer.address, why);
    if (ERR_GET_LIB(code) == ERR_LIB_SSL && ERR_GET_REASON(code) == SSL_R_HTTP_REQUEST)
        say_https_only(c->fd);
    /* Unread bytes would turn the close into a reset, and the client would not see the alert. */
    for (int i = 0; i < 16 && recv(c->fd, unread, sizeof(unread), MSG_DONTWAIT) > 0; i++)
        ;
    shutdown(c->fd, SHUT_WR);
    http_conn_destroy(c);
}

/* A client may break its connection at any time; TLS that fails is worth a line. */
static void log_tls_failure(struct http_conn *c)
{
    unsigned long code = c->ssl ? bufferevent_get_openssl_error(c->bev) : 0;
    CLEANUP_FREE char *why = code ? tls_failure_text(c->ssl, code) : NULL;

    if (why)
        log_warning("%s: TLS with %s failed: %s", c->server->config.name, c->peer.address, why);
}

static void on_event(struct bufferevent *bev, short what, void *cookie)
{
    struct http_conn *c = cookie;

    if (what & BEV_EVENT_CONNECTED) {
        on_connected(c);
        return;
    }
    if (c->state == HTTP_STATE_HANDSHAKE) {
        handshake_failed(c, what);
        return;
    }
    if (what & BEV_EVENT_ERROR)
        log_tls_failure(c);
    ERR_clear_error();
    c->peer_eof = true;
    /* A client that has sent all it wants still gets the answers; but libevent's TLS stream does
     * not write any more after an end. */
    if (what & BEV_EVENT_EOF && !c->ssl &&
        (c->state == HTTP_STATE_WRITING || c->state == HTTP_STATE_CLOSING) && output_length(c) > 0)
        return;
    http_conn_destroy(c);
}

static void on_timer(void *cookie)
{
    struct http_conn *c = cookie;
    uint64_t now_us = now_os().mono_us;

    switch (c->dead ? HTTP_STATE_LINGER : c->state) {
    case HTTP_STATE_HEAD:
    case HTTP_STATE_BODY:
        refuse(c, 408, "The request did not arrive in time.", /* keep_alive= */ false);
        timer_update(c);
        return;
    case HTTP_STATE_STREAM:
    case HTTP_STATE_WRITING:
    case HTTP_STATE_CLOSING:
        if (c->sent - c->sent_mark < MIN_PROGRESS_BYTES && output_length(c) > 0)
            break;
        c->sent_mark = c->sent;
        c->progress_us = now_us;
        timer_update(c);
        return;
    case HTTP_STATE_HANDSHAKE:
    case HTTP_STATE_IDLE:
    case HTTP_STATE_HELD:
    case HTTP_STATE_LINGER:
        break;
    }
    http_conn_destroy(c);
}

/* ---- the beginning ---- */

static struct bufferevent *stream_new(struct http_server *s, int fd, SSL **ret_ssl)
{
    struct event_base *base = loop_base(s->loop);
    int options = BEV_OPT_CLOSE_ON_FREE | BEV_OPT_DEFER_CALLBACKS;

    if (!s->config.tls)
        return bufferevent_socket_new(base, fd, options);
    SSL *ssl = NULL;
    CLEANUP_ERR struct err *e = tls_server_ssl(s->config.tls, &ssl);

    if (e)
        return NULL;
    SSL_set_options(ssl, SSL_OP_IGNORE_UNEXPECTED_EOF);
    struct bufferevent *bev =
        bufferevent_openssl_socket_new(base, fd, ssl, BUFFEREVENT_SSL_ACCEPTING, options);
    if (!bev) {
        SSL_free(ssl);
        return NULL;
    }
    bufferevent_openssl_set_allow_dirty_shutdown(bev, 1);
    *ret_ssl = ssl;
    return bev;
}

void http_conn_accept(struct http_server *s, int fd, const struct http_peer *peer)
{
    SSL *ssl = NULL;
    struct bufferevent *bev = stream_new(s, fd, &ssl);

    if (!bev) {
        log_error("%s: cannot serve %s: no memory for the connection", s->config.name,
                  peer->address);
        close(fd);
        return;
    }
    struct http_conn *c = xcalloc(1, sizeof(*c));

    c->server = s;
    c->bev = bev;
    c->ssl = ssl;
    c->fd = fd;
    c->peer = *peer;
    c->keep_alive = true;
    timer_init(&c->timer, s->loop, on_timer, c);
    TAILQ_INSERT_TAIL(&s->conns, c, link);
    s->conn_count++;
    state_set(c, ssl ? HTTP_STATE_HANDSHAKE : HTTP_STATE_IDLE, now_os().mono_us);
    if (!evbuffer_add_cb(bufferevent_get_output(bev), on_sent, c))
        mem_exhausted();
    bufferevent_setcb(bev, on_read, on_written, on_event, c);
    bufferevent_enable(bev, EV_READ | EV_WRITE);
    timer_update(c);
}

/* ---- what handlers see of a request ---- */

/* The client had gone before somebody asked to be told. */
static void close_late(void *cookie)
{
    struct http_request *r = cookie;

    r->close_posted = false;
    request_gone(r);
}

void http_request_free(struct http_request *r)
{
    if (r->on_done)
        r->on_done(r->on_done_cookie, r, r->status);
    if (r->close_posted)
        loop_unpost(r->loop, close_late, r);
    http_stream_forget_drained(r);
    http_head_free(r->head);
    str_done(&r->body);
    free(r);
}

enum http_method http_request_method(const struct http_request *r)
{
    return r->head->method;
}

const char *http_request_path(const struct http_request *r)
{
    return r->head->path;
}

const char *http_request_raw_path(const struct http_request *r)
{
    return r->head->raw_path;
}

const char *http_request_query(const struct http_request *r)
{
    return r->head->query;
}

char *http_request_query_value(const struct http_request *r, const char *name)
{
    const char *p = r->head->query;

    while (*p) {
        size_t pair = strcspn(p, "&");
        size_t key = strcspn(p, "=&");
        CLEANUP_FREE char *found = http_percent_decode(p, key, /* plus= */ true);

        if (found && streq(found, name))
            return key == pair ? xstrdup("")
                               : http_percent_decode(p + key + 1, pair - key - 1, true);
        p += pair + (p[pair] == '&');
    }
    return NULL;
}

const char *http_request_header(const struct http_request *r, const char *name, unsigned index)
{
    return http_head_get(r->head, name, index);
}

const char *http_request_body(const struct http_request *r, size_t *ret_len)
{
    *ret_len = r->body.len;
    return r->body.data ? r->body.data : "";
}

const struct http_peer *http_request_peer(const struct http_request *r)
{
    return &r->peer;
}

void http_request_set_data(struct http_request *r, void *data)
{
    r->data = data;
}

void *http_request_data(const struct http_request *r)
{
    return r->data;
}

void http_request_on_close(struct http_request *r, loop_fn *fn, void *cookie)
{
    r->on_close = fn;
    r->on_close_cookie = cookie;
    if (r->conn || !fn || r->close_posted)
        return;
    r->close_posted = true;
    loop_post(r->loop, close_late, r);
}

void http_request_on_done(struct http_request *r, http_done_fn *fn, void *cookie)
{
    r->on_done = fn;
    r->on_done_cookie = cookie;
}

bool http_request_is_gone(const struct http_request *r)
{
    return r->conn == NULL;
}
