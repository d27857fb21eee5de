/* Between nghttp2 and the streams: headers, frames, and what to send next. */
#include "net/grpc_conn.h"

#define WINDOW_STREAM (256 * 1024)
#define WINDOW_CONNECTION (1024 * 1024)
#define HEADER_LIST_MAX (16u * 1024)
#define HPACK_TABLE 4096u

#define NV(name_, value_, length_)                                                                 \
    {                                                                                              \
        (uint8_t *)(name_), (uint8_t *)(value_), sizeof(name_) - 1, (length_),                     \
            NGHTTP2_NV_FLAG_NONE                                                                   \
    }
#define NV_CONST(name_, value_) NV(name_, value_, sizeof(value_) - 1)

static bool name_is(const uint8_t *name, size_t n, const char *expected)
{
    return n == strlen(expected) && memcmp(name, expected, n) == 0;
}

static bool value_is(const uint8_t *value, size_t n, const char *expected)
{
    return name_is(value, n, expected);
}

static void request_header(struct grpc_stream *s, const uint8_t *name, size_t name_n,
                           const uint8_t *value, size_t n)
{
    if (name_is(name, name_n, ":path")) {
        if (s->path)
            s->bad_headers = true;
        else
            s->path = xstrndup((const char *)value, n < PATH_MAX_BYTES ? n : PATH_MAX_BYTES);
    } else if (name_is(name, name_n, ":method")) {
        s->method_ok = value_is(value, n, "POST");
    } else if (name_is(name, name_n, "content-type")) {
        s->type_ok = grpc_content_type_ok((const char *)value, n);
    } else if (name_is(name, name_n, "te")) {
        s->te_ok = value_is(value, n, "trailers");
    } else if (name_is(name, name_n, "grpc-timeout")) {
        if (!grpc_timeout_parse((const char *)value, n, &s->timeout_us))
            s->bad_headers = true;
        else if (!s->timeout_us)
            s->timeout_us = 1;
    }
}

static void response_header(struct grpc_stream *s, const uint8_t *name, size_t name_n,
                            const uint8_t *value, size_t n)
{
    if (name_is(name, name_n, ":status")) {
        s->http_status = 0;
        for (size_t i = 0; i < n && i < 3 && value[i] >= '0' && value[i] <= '9'; i++)
            s->http_status = s->http_status * 10 + (value[i] - '0');
    } else if (name_is(name, name_n, "content-type")) {
        s->type_ok = grpc_content_type_ok((const char *)value, n);
    } else if (name_is(name, name_n, "grpc-status")) {
        s->status = grpc_status_parse((const char *)value, n);
        s->has_status = true;
    } else if (name_is(name, name_n, "grpc-message")) {
        free(s->text);
        s->text = grpc_text_decode((const char *)value, n);
    }
}

static int on_begin_headers(nghttp2_session *session, const nghttp2_frame *frame, void *cookie)
{
    struct grpc_conn *c = cookie;

    if (c->doomed || c->failure)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (!c->role->is_server || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    struct grpc_stream *s = stream_new(c, frame->hd.stream_id);
    nghttp2_session_set_stream_user_data(session, frame->hd.stream_id, s);
    if (c->ready)
        conn_timer(c, 0); /* not idle any more */
    return 0;
}

static int on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                     size_t name_n, const uint8_t *value, size_t n, uint8_t flags, void *cookie)
{
    struct grpc_conn *c = cookie;
    struct grpc_stream *s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);

    if (c->doomed || c->failure)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    if (!s)
        return 0;
    if (!c->role->is_server)
        response_header(s, name, name_n, value, n);
    else if (frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        request_header(s, name, name_n, value, n);
    return 0;
}

/* An answer that is not gRPC, for a request that is not gRPC. */
static void answer_http(struct grpc_stream *s, const char *status)
{
    nghttp2_nv nv[] = {NV(":status", status, 3)};

    s->replied = true;
    s->ending = true;
    nghttp2_submit_response(s->conn->session, s->id, nv, ARRAY_SIZE(nv), NULL);
}

static void request_complete(struct grpc_stream *s)
{
    struct grpc_conn *c = s->conn;
    const struct grpc_handlers *h;
    void *cookie;

    if (s->bad_headers || !s->path) {
        stream_abort(s, NGHTTP2_PROTOCOL_ERROR, GRPC_INTERNAL, NULL);
    } else if (!s->method_ok) {
        answer_http(s, "405");
    } else if (!s->type_ok) {
        answer_http(s, "415");
    } else if (!s->te_ok) {
        grpc_stream_finish(s, GRPC_INTERNAL, "the header \"te: trailers\" is missing");
    } else if (!c->role->method(c, s->path, &h, &cookie)) {
        CLEANUP_FREE char *text = xasprintf("there is no method %s here", s->path);
        grpc_stream_finish(s, GRPC_UNIMPLEMENTED, text);
    } else {
        if (s->timeout_us)
            stream_timer(s, s->timeout_us);
        s->h = h;
        s->cookie = cookie;
        if (h->on_open)
            h->on_open(s);
    }
}

/* A response's first headers; interim (1xx) ones do not count. */
static void response_begun(struct grpc_stream *s)
{
    if (s->http_status >= 100 && s->http_status < 200)
        return;
    if (s->http_status == 200 && !s->type_ok)
        stream_abort(s, NGHTTP2_CANCEL, GRPC_UNKNOWN,
                     "the server's answer is not of type application/grpc");
}

static void goaway_received(struct grpc_conn *c, const nghttp2_goaway *g)
{
    size_t n = g->opaque_data_len < 256 ? g->opaque_data_len : 256;
    CLEANUP_FREE char *said = grpc_text_decode((const char *)g->opaque_data, n);

    c->draining = true;
    free(c->trouble);
    c->trouble = xasprintf("the peer ends the connection (%s)%s%s",
                           nghttp2_http2_strerror(g->error_code), *said ? ": " : "", said);
}

static int on_frame_recv(nghttp2_session *session, const nghttp2_frame *frame, void *cookie)
{
    struct grpc_conn *c = cookie;
    struct grpc_stream *s;

    if (c->doomed || c->failure)
        return NGHTTP2_ERR_CALLBACK_FAILURE;
    switch (frame->hd.type) {
    case NGHTTP2_SETTINGS:
        if (!(frame->hd.flags & NGHTTP2_FLAG_ACK) && !c->ready) {
            c->ready = true;
            conn_timer(c, c->n_streams ? 0 : c->idle_ms);
            c->role->ready(c);
        }
        return 0;
    case NGHTTP2_GOAWAY:
        if (!c->role->is_server)
            goaway_received(c, &frame->goaway);
        return 0;
    case NGHTTP2_HEADERS:
    case NGHTTP2_DATA:
        break;
    default:
        return 0;
    }
    s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (s && frame->hd.type == NGHTTP2_HEADERS) {
        if (c->role->is_server && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
            request_complete(s);
        else if (!c->role->is_server)
            response_begun(s);
    }
    if (s && !s->over && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        stream_remote_end(s);
    return 0;
}

static int on_data_chunk(nghttp2_session *session, uint8_t flags, int32_t id, const uint8_t *data,
                         size_t n, void *cookie)
{
    struct grpc_conn *c = cookie;
    struct grpc_stream *s = nghttp2_session_get_stream_user_data(session, id);

    if (c->doomed || c->failure)
        return NGHTTP2_ERR_CALLBACK_FAILURE; /* nobody listens; stop reading */
    nghttp2_session_consume_connection(session, n);
    if (s)
        stream_take(s, data, n);
    else
        nghttp2_session_consume_stream(session, id, n);
    return 0;
}

static int on_frame_send(nghttp2_session *session, const nghttp2_frame *frame, void *cookie)
{
    struct grpc_conn *c = cookie;
    struct grpc_stream *s;

    if (!(frame->hd.flags & NGHTTP2_FLAG_END_STREAM) ||
        (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA))
        return 0;
    s = nghttp2_session_get_stream_user_data(session, frame->hd.stream_id);
    if (!s)
        return 0;
    s->ended = true;
    /* The status is out; a client that goes on sending is told that nobody listens. */
    if (c->role->is_server && !s->remote_ended)
        nghttp2_submit_rst_stream(session, NGHTTP2_FLAG_NONE, s->id, NGHTTP2_NO_ERROR);
    return 0;
}

static int on_stream_close(nghttp2_session *session, int32_t id, uint32_t error, void *cookie)
{
    struct grpc_conn *c = cookie;
    struct grpc_stream *s = nghttp2_session_get_stream_user_data(session, id);

    if (!s)
        return 0;
    s->id = 0;
    if (c->role->is_server) {
        if (s->ended)
            stream_over(s, s->status, s->text);
        else
            stream_over(s, GRPC_CANCELLED, "the client cancelled the call");
    } else if (!s->remote_ended) { /* else the end waits for a resume */
        CLEANUP_FREE char *text =
            xasprintf("the server reset the call (%s)", nghttp2_http2_strerror(error));
        stream_over(s, grpc_status_of_reset(error), text);
    }
    return 0;
}

static int on_error(nghttp2_session *session, int code, const char *text, size_t n, void *cookie)
{
    struct grpc_conn *c = cookie;

    free(c->trouble);
    c->trouble = grpc_text_decode(text, n < 256 ? n : 256);
    return 0;
}

static void submit_trailers(struct grpc_stream *s)
{
    CLEANUP_STR struct str message = {0};
    char status[16];
    int n = snprintf(status, sizeof(status), "%d", (int)s->status);

    grpc_text_encode(s->text, &message);
    nghttp2_nv nv[] = {NV("grpc-status", status, (size_t)n),
                       NV("grpc-message", message.data, message.len)};
    nghttp2_submit_trailer(s->conn->session, s->id, nv, message.len ? 2 : 1);
}

/* What the stream sends next; nghttp2 asks when the windows and the socket allow it. */
static ssize_t on_read(nghttp2_session *session, int32_t id, uint8_t *buf, size_t size,
                       uint32_t *flags, nghttp2_data_source *source, void *cookie)
{
    struct grpc_conn *c = cookie;
    struct grpc_stream *s = nghttp2_session_get_stream_user_data(session, id);

    if (!s)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE; /* it is over; nobody wants the rest */
    size_t queued = grpc_stream_queued(s);
    if (!queued && !s->ending) {
        s->stalled = true;
        return NGHTTP2_ERR_DEFERRED;
    }
    int n = queued ? evbuffer_remove(s->out, buf, size) : 0;
    if (n < 0)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if ((size_t)n == queued) {
        s->drained = queued > 0;
        if (s->ending) {
            *flags |= NGHTTP2_DATA_FLAG_EOF;
            if (c->role->is_server) {
                *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
                submit_trailers(s);
            }
        }
    }
    return n;
}

/* Server: the first headers, when there is something to say. A status without messages is one
 * block. */
static void reply(struct grpc_stream *s)
{
    nghttp2_data_provider provider = {.read_callback = on_read};
    CLEANUP_STR struct str message = {0};
    char status[16];
    bool only_status = s->ending && !grpc_stream_queued(s);
    int n = snprintf(status, sizeof(status), "%d", (int)s->status);

    if (only_status)
        grpc_text_encode(s->text, &message);
    nghttp2_nv nv[] = {
        NV_CONST(":status", "200"),
        NV_CONST("content-type", "application/grpc"),
        NV("grpc-status", status, (size_t)n),
        NV("grpc-message", message.data, message.len),
    };
    size_t count = !only_status ? 2 : message.len ? 4 : 3;
    s->replied = true;
    nghttp2_submit_response(s->conn->session, s->id, nv, count, only_status ? NULL : &provider);
}

void session_reply(struct grpc_stream *s)
{
    if (s->conn->role->is_server && !s->replied && s->id && (s->ending || grpc_stream_queued(s)))
        reply(s);
}

int session_request(struct grpc_conn *c, struct grpc_stream *s, const char *path,
                    const char *scheme, const char *authority, uint64_t timeout_us)
{
    nghttp2_data_provider provider = {.read_callback = on_read};
    char timeout[16];

    grpc_timeout_format(timeout_us, timeout);
    nghttp2_nv nv[] = {
        NV_CONST(":method", "POST"),
        NV(":scheme", scheme, strlen(scheme)),
        NV(":path", path, strlen(path)),
        NV(":authority", authority, strlen(authority)),
        NV_CONST("te", "trailers"),
        NV_CONST("content-type", "application/grpc"),
        NV_CONST("user-agent", "flocker/" FLOCKER_VERSION),
        NV("grpc-timeout", timeout, strlen(timeout)),
    };
    size_t n = timeout_us ? ARRAY_SIZE(nv) : ARRAY_SIZE(nv) - 1;
    return nghttp2_submit_request(c->session, NULL, nv, n, &provider, s);
}

/* What nghttp2 could not queue would never be sent; so its memory ends like ours. */

static void *h2_malloc(size_t n, void *unused)
{
    return xmalloc(n);
}

static void *h2_calloc(size_t count, size_t n, void *unused)
{
    return xcalloc(count, n);
}

static void *h2_realloc(void *p, size_t n, void *unused)
{
    return xrealloc(p, n ? n : 1, 1);
}

static void h2_free(void *p, void *unused)
{
    free(p);
}

static nghttp2_session_callbacks *callbacks_new(void)
{
    nghttp2_session_callbacks *cb;

    if (nghttp2_session_callbacks_new(&cb) != 0)
        mem_exhausted();
    nghttp2_session_callbacks_set_on_begin_headers_callback(cb, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame_recv);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data_chunk);
    nghttp2_session_callbacks_set_on_frame_send_callback(cb, on_frame_send);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_stream_close);
    nghttp2_session_callbacks_set_error_callback2(cb, on_error);
    return cb;
}

nghttp2_session *session_new(struct grpc_conn *c)
{
    nghttp2_session_callbacks *cb = callbacks_new();
    nghttp2_session *session = NULL;
    nghttp2_option *option;
    nghttp2_mem mem = {NULL, h2_malloc, h2_free, h2_calloc, h2_realloc};
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW_STREAM},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, HEADER_LIST_MAX},
        {c->role->is_server ? NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS
                            : NGHTTP2_SETTINGS_ENABLE_PUSH,
         c->role->is_server ? GRPC_MAX_STREAMS : 0},
    };

    if (nghttp2_option_new(&option) != 0)
        mem_exhausted();
    nghttp2_option_set_no_auto_window_update(option, 1);
    nghttp2_option_set_max_deflate_dynamic_table_size(option, HPACK_TABLE);
    nghttp2_option_set_no_closed_streams(option, 1); /* memory: no tree of past streams */
    if (c->role->is_server) {
        /* Clients on unix sockets send ":authority: /run/x.sock", which nghttp2's own checks
         * refuse. What matters for gRPC is checked in request_complete(). */
        nghttp2_option_set_no_http_messaging(option, 1);
        nghttp2_session_server_new3(&session, cb, c, option, &mem);
    } else {
        nghttp2_session_client_new3(&session, cb, c, option, &mem);
    }
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(cb);
    if (!session)
        mem_exhausted();
    nghttp2_submit_settings(session, NGHTTP2_FLAG_NONE, settings, ARRAY_SIZE(settings));
    nghttp2_session_set_local_window_size(session, NGHTTP2_FLAG_NONE, 0, WINDOW_CONNECTION);
    return session;
}
