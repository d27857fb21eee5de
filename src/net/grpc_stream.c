/* One call: messages in and out, and its end. */
#include "net/grpc_conn.h"

struct grpc_stream *stream_new(struct grpc_conn *c, int32_t id)
{
    struct grpc_stream *s = xcalloc(1, sizeof(*s));

    s->conn = c;
    s->id = id;
    TAILQ_INSERT_TAIL(&c->streams, s, link);
    c->n_streams++;
    return s;
}

void stream_free(struct grpc_stream *s)
{
    grpc_assembler_done(&s->in);
    if (s->held)
        evbuffer_free(s->held);
    if (s->out)
        evbuffer_free(s->out);
    if (s->timer)
        event_free(s->timer);
    free(s->text);
    free(s->path);
    free(s);
}

void stream_over(struct grpc_stream *s, enum grpc_status status, const char *text)
{
    struct grpc_conn *c = s->conn;

    if (s->over)
        return;
    s->over = true;
    TAILQ_REMOVE(&c->streams, s, link);
    TAILQ_INSERT_TAIL(&c->closed, s, link);
    c->n_streams--;
    if (s->id && c->session)
        nghttp2_session_set_stream_user_data(c->session, s->id, NULL);
    if (s->timer)
        event_del(s->timer);
    if (s->h && s->h->on_closed)
        s->h->on_closed(s, status, text ? text : "");
    if (!c->n_streams && c->idle_ms && c->up)
        conn_timer(c, c->idle_ms);
}

void stream_abort(struct grpc_stream *s, uint32_t http2_error, enum grpc_status status,
                  const char *text)
{
    if (s->over)
        return;
    if (s->id && s->conn->session)
        nghttp2_submit_rst_stream(s->conn->session, NGHTTP2_FLAG_NONE, s->id, http2_error);
    stream_over(s, status, text);
}

/* The peer broke a rule of gRPC: a server says so in the status, a client gives up. */
static void stream_refuse(struct grpc_stream *s, enum grpc_status status, const char *text)
{
    if (s->conn->role->is_server)
        grpc_stream_finish(s, status, text);
    else
        stream_abort(s, NGHTTP2_CANCEL, status, text);
}

static void on_timer(evutil_socket_t fd, short what, void *cookie)
{
    struct grpc_stream *s = cookie;
    struct grpc_conn *c = s->conn;

    conn_enter(c);
    if (c->role->is_server && !s->ending)
        grpc_stream_finish(s, GRPC_DEADLINE_EXCEEDED, "the deadline of the call has passed");
    else if (c->role->is_server)
        stream_abort(s, NGHTTP2_CANCEL, GRPC_UNAVAILABLE, "the client did not take the answer");
    else
        stream_abort(s, NGHTTP2_CANCEL, GRPC_DEADLINE_EXCEEDED,
                     "no answer within the time allowed");
    conn_leave(c);
}

void stream_timer(struct grpc_stream *s, uint64_t us)
{
    struct timeval tv = {.tv_sec = (time_t)(us / 1000000), .tv_usec = (suseconds_t)(us % 1000000)};

    if (!s->timer)
        s->timer = event_new(s->conn->base, -1, 0, on_timer, s);
    if (s->timer)
        event_add(s->timer, &tv);
}

/* Delivers the message that the assembler holds; drops it once this side has ended the stream. */
static void deliver(struct grpc_stream *s)
{
    const uint8_t *body = s->in.length ? s->in.body : (const uint8_t *)"";

    if (s->h && s->h->on_message && !s->cancelled && !(s->conn->role->is_server && s->ending))
        s->h->on_message(s, body, s->in.length);
    grpc_assembler_next(&s->in);
}

/* Takes bytes until a message makes the user pause; returns how many. */
static size_t stream_parse(struct grpc_stream *s, const uint8_t *bytes, size_t n)
{
    size_t left = n;

    while (left && !s->paused && !s->over) {
        if (!s->h || (s->conn->role->is_server && s->ending))
            return n; /* nobody listens any more */
        switch (grpc_assembler_feed(&s->in, s->conn->max_message, &bytes, &left)) {
        case GRPC_ASSEMBLED_PART:
            break;
        case GRPC_ASSEMBLED_MESSAGE:
            deliver(s);
            break;
        case GRPC_ASSEMBLED_COMPRESSED:
            stream_refuse(s, GRPC_UNIMPLEMENTED, "compressed messages are not supported");
            return n;
        case GRPC_ASSEMBLED_TOO_LONG: {
            CLEANUP_FREE char *text = xasprintf("a message of %zu bytes is over the limit of %zu",
                                                s->in.length, s->conn->max_message);
            stream_refuse(s, GRPC_RESOURCE_EXHAUSTED, text);
            return n;
        }
        }
    }
    return s->over ? n : n - left;
}

/* Gives the peer window for bytes that were dealt with. The connection's window was given when they
 * came, so that a paused stream stops nobody else. */
static void stream_consumed(struct grpc_stream *s, size_t n)
{
    if (n && s->id && s->conn->session)
        nghttp2_session_consume_stream(s->conn->session, s->id, n);
}

void stream_take(struct grpc_stream *s, const uint8_t *bytes, size_t n)
{
    size_t taken = s->held ? 0 : stream_parse(s, bytes, n);

    stream_consumed(s, taken);
    if (taken == n)
        return;
    if (!s->held)
        s->held = evbuffer_new();
    if (!s->held || evbuffer_add(s->held, bytes + taken, n - taken) != 0)
        stream_refuse(s, GRPC_RESOURCE_EXHAUSTED, "out of memory");
}

/* Client: the server has said its last word. */
static void client_end(struct grpc_stream *s)
{
    enum grpc_status status = s->status;
    CLEANUP_FREE char *text = xstrdup_null(s->text);

    if (!s->has_status && s->http_status != 200) {
        status = grpc_status_of_http(s->http_status);
        free(text);
        text = xasprintf("the server answered with HTTP status %d", s->http_status);
    } else if (!s->has_status) {
        status = GRPC_UNKNOWN;
        free(text);
        text = xstrdup("the server ended the call without a status");
    } else if (status == GRPC_OK && !grpc_assembler_is_empty(&s->in)) {
        status = GRPC_INTERNAL;
        free(text);
        text = xstrdup("the last message was cut short");
    }
    if (!s->ended)
        stream_abort(s, NGHTTP2_NO_ERROR, status, text);
    else
        stream_over(s, status, text);
}

/* Acts on END_STREAM once all messages before it are delivered. */
static void stream_end_arrived(struct grpc_stream *s)
{
    if (!s->remote_ended || s->paused || s->held || s->over || s->half_close_told)
        return;
    s->half_close_told = true;
    if (!s->conn->role->is_server) {
        client_end(s);
        return;
    }
    if (s->ending)
        return;
    if (!grpc_assembler_is_empty(&s->in))
        stream_refuse(s, GRPC_INTERNAL, "the last message was cut short");
    else if (s->h && s->h->on_half_close)
        s->h->on_half_close(s);
}

void stream_remote_end(struct grpc_stream *s)
{
    s->remote_ended = true;
    stream_end_arrived(s);
}

/* After a resume: what was held, as far as the user lets it. */
static void stream_release_held(struct grpc_stream *s)
{
    struct evbuffer *held = s->held;

    while (!s->paused && !s->over && evbuffer_get_length(held)) {
        size_t n = evbuffer_get_contiguous_space(held);
        size_t taken = stream_parse(s, evbuffer_pullup(held, (ev_ssize_t)n), n);
        evbuffer_drain(held, taken);
        if (!s->over)
            stream_consumed(s, taken);
    }
    if (!s->over && !evbuffer_get_length(held)) {
        evbuffer_free(held);
        s->held = NULL;
    }
}

bool stream_settle(struct grpc_stream *s)
{
    if (s->cancelled) {
        stream_abort(s, NGHTTP2_CANCEL, GRPC_CANCELLED, "cancelled on this side");
        return true;
    }
    if (s->held && !s->paused) {
        stream_release_held(s);
        return true;
    }
    if (s->remote_ended && !s->paused && !s->half_close_told) {
        stream_end_arrived(s);
        return true;
    }
    if (s->drained) {
        s->drained = false;
        if (s->h && s->h->on_drained && !s->ending)
            s->h->on_drained(s);
        return true;
    }
    return false;
}

void grpc_stream_set_cookie(struct grpc_stream *s, void *cookie)
{
    s->cookie = cookie;
}

void *grpc_stream_cookie(const struct grpc_stream *s)
{
    return s->cookie;
}

SSL *grpc_stream_ssl(const struct grpc_stream *s)
{
    return s->conn->ssl;
}

const char *grpc_stream_peer(const struct grpc_stream *s)
{
    return s->conn->peer;
}

size_t grpc_stream_queued(const struct grpc_stream *s)
{
    return s->out ? evbuffer_get_length(s->out) : 0;
}

/* Lets nghttp2 ask for data again. */
static void stream_wake(struct grpc_stream *s)
{
    if (s->stalled && s->id && s->conn->session) {
        s->stalled = false;
        nghttp2_session_resume_data(s->conn->session, s->id);
    }
    conn_kick(s->conn);
}

bool grpc_stream_send(struct grpc_stream *s, const void *bytes, size_t n)
{
    uint8_t head[5] = {0, (uint8_t)(n >> 24), (uint8_t)(n >> 16), (uint8_t)(n >> 8), (uint8_t)n};
    size_t queued = grpc_stream_queued(s);

    if (s->over || s->ending || s->cancelled || n > UINT32_MAX)
        return false;
    if (queued && (queued > s->conn->max_queue || s->conn->max_queue - queued < n + sizeof(head)))
        return false;
    if (!s->out)
        s->out = evbuffer_new();
    if (!s->out || evbuffer_expand(s->out, n + sizeof(head)) != 0)
        return false;
    evbuffer_add(s->out, head, sizeof(head));
    if (n)
        evbuffer_add(s->out, bytes, n);
    s->drained = false;
    stream_wake(s);
    return true;
}

void grpc_stream_pause(struct grpc_stream *s)
{
    s->paused = true;
}

void grpc_stream_resume(struct grpc_stream *s)
{
    s->paused = false;
    conn_kick(s->conn);
}

void grpc_stream_half_close(struct grpc_stream *s)
{
    if (s->over || s->ending || s->conn->role->is_server)
        return;
    s->ending = true;
    stream_wake(s);
}

void grpc_stream_finish(struct grpc_stream *s, enum grpc_status status, const char *text)
{
    if (s->over || s->ending || !s->conn->role->is_server)
        return;
    s->ending = true;
    s->status = status;
    s->text = xstrdup(text ? text : "");
    s->has_status = true;
    stream_timer(s, GRPC_LINGER_MS * 1000ull);
    stream_wake(s);
}

void grpc_stream_cancel(struct grpc_stream *s)
{
    if (s->over)
        return;
    s->cancelled = true;
    conn_kick(s->conn);
}
