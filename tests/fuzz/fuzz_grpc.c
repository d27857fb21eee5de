/* The gRPC transport, from the bytes of the socket up. The first byte of the input chooses: bit 0
 * our side (0 server, 1 client), bit 1 what the user does with a message (0 answers, 1 pauses and
 * resumes), bit 2 whether the user closes the connection inside a callback, bit 3 whether the bytes
 * come in small pieces. The rule: on_closed comes exactly once for each stream. With bit 4 the rest
 * is instead what the parsers of the protocol's texts and messages are fed. */
#include "fuzz.h"

#include "net/grpc_conn.h"
#include "net/grpc_wire.h"

#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAX_MESSAGE 4096
#define MAX_QUEUE 8192
#define CALLS 3

static struct event_base *base;
static struct grpc_conn *conn; /* NULL once closed */
static uint8_t choice;
static size_t opened, closed;

static void close_now(void)
{
    struct grpc_conn *c = steal(&conn);

    if (c)
        conn_close(c);
}

static void on_open(struct grpc_stream *s)
{
    opened++;
}

static void on_message(struct grpc_stream *s, const uint8_t *bytes, size_t n)
{
    RULE(n <= MAX_MESSAGE);
    if (choice & 4)
        close_now();
    else if (choice & 2)
        grpc_stream_pause(s);
    else if (!grpc_stream_send(s, bytes, n))
        grpc_stream_finish(s, GRPC_RESOURCE_EXHAUSTED, "queue\nfull");
}

static void on_half_close(struct grpc_stream *s)
{
    grpc_stream_finish(s, GRPC_OK, NULL);
}

static void on_closed(struct grpc_stream *s, enum grpc_status status, const char *text)
{
    RULE(text && status < GRPC_STATUS_MAX && str_is_utf8(text, strlen(text)));
    closed++;
}

static const struct grpc_handlers handlers = {.on_open = on_open,
                                              .on_message = on_message,
                                              .on_half_close = on_half_close,
                                              .on_closed = on_closed};

static bool method(struct grpc_conn *c, const char *path, const struct grpc_handlers **ret_h,
                   void **ret_cookie)
{
    *ret_h = &handlers;
    *ret_cookie = NULL;
    return streq(path, "/t/Echo");
}

static void ready(struct grpc_conn *c)
{
}

static void gone(struct grpc_conn *c, const struct err *e)
{
    RULE(e->text);
    close_now();
}

static const struct conn_role server = {
    .is_server = true, .method = method, .ready = ready, .gone = gone};
static const struct conn_role client = {.ready = ready, .gone = gone};

static void start_calls(void)
{
    for (int i = 0; i < CALLS; i++) {
        struct grpc_stream *s = stream_new(conn, 0);
        s->id = session_request(conn, s, "/t/Echo", "http", "localhost", 0);
        s->h = &handlers;
        opened++;
        RULE(grpc_stream_send(s, "hello", 5));
        if (i)
            grpc_stream_half_close(s);
    }
}

static void resume_all(void)
{
    struct grpc_stream *s;

    if (!conn)
        return;
    TAILQ_FOREACH (s, &conn->streams, link)
        grpc_stream_resume(s);
}

/* Throws away what we send; the peer of a fuzzer does not listen. */
static void run(int fd)
{
    char sink[4096];

    for (int i = 0; i < 4; i++) {
        event_base_loop(base, EVLOOP_NONBLOCK);
        while (read(fd, sink, sizeof(sink)) > 0)
            ;
        resume_all();
    }
}

static void texts(const char *text, size_t n)
{
    CLEANUP_FREE char *decoded = grpc_text_decode(text, n);
    CLEANUP_STR struct str encoded = {0};
    uint64_t us, again;
    char buf[16];

    RULE(strlen(decoded) <= GRPC_MAX_TEXT && str_is_utf8(decoded, strlen(decoded)));
    grpc_text_encode(decoded, &encoded);
    if (encoded.len <= GRPC_MAX_TEXT) {
        CLEANUP_FREE char *twice = grpc_text_decode(encoded.data ? encoded.data : "", encoded.len);
        RULE(streq(decoded, twice));
    }
    RULE(grpc_status_parse(text, n) < GRPC_STATUS_MAX);
    (void)grpc_content_type_ok(text, n);
    if (grpc_timeout_parse(text, n, &us)) {
        grpc_timeout_format(us, buf);
        RULE(grpc_timeout_parse(buf, strlen(buf), &again) && again <= us);
    }
}

/* Messages put together from pieces: their lengths and a hash of all they held. */
static uint64_t assemble(const uint8_t *data, size_t size, const struct random *r, uint64_t *ret_hash)
{
    struct grpc_assembler a = {0};
    uint64_t messages = 0, hash = 0;

    for (size_t left = size; left;) {
        size_t n = r ? fuzz_piece(r, left) : left;
        const uint8_t *p = data + (size - left);
        left -= n;
        while (n) {
            enum grpc_assembled got = grpc_assembler_feed(&a, MAX_MESSAGE, &p, &n);
            if (got == GRPC_ASSEMBLED_PART)
                break;
            if (got != GRPC_ASSEMBLED_MESSAGE) {
                grpc_assembler_done(&a);
                *ret_hash = hash + (uint64_t)got;
                return messages;
            }
            RULE(a.length <= MAX_MESSAGE);
            hash = hash * 31 + fuzz_hash(a.body, a.length) + a.length;
            messages++;
            grpc_assembler_next(&a);
        }
    }
    grpc_assembler_done(&a);
    *ret_hash = hash;
    return messages;
}

static void parts(const uint8_t *data, size_t size)
{
    uint64_t state = fuzz_hash(data, size), whole, pieces;
    struct random r = random_seeded(&state);

    texts((const char *)data, size);
    RULE(assemble(data, size, NULL, &whole) == assemble(data, size, &r, &pieces));
    RULE(whole == pieces);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t state = fuzz_hash(data, size);
    struct random r = random_seeded(&state);
    int pair[2];

    if (!size)
        return 0;
    if (data[0] & 16) {
        parts(data + 1, size - 1);
        return 0;
    }
    if (!base) {
        base = event_base_new();
        (void)signal(SIGPIPE, SIG_IGN); /* as in every program of ours */
    }
    choice = data[0];
    opened = closed = 0;
    RULE(base && socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    conn = conn_new(base, choice & 1 ? &client : &server, NULL);
    conn->max_message = MAX_MESSAGE;
    conn->max_queue = MAX_QUEUE;
    if (choice & 1) {
        conn_start(conn);
        start_calls();
    }
    RULE(!conn_attach(conn, pair[0], NULL));
    run(pair[1]);
    for (size_t at = 1; at < size;) {
        size_t piece = size - at < 16384 ? size - at : 16384;
        if (choice & 8)
            piece = fuzz_piece(&r, piece);
        ssize_t n = write(pair[1], data + at, piece);
        if (n <= 0)
            break;
        at += (size_t)n;
        run(pair[1]);
    }
    close(pair[1]);
    event_base_loop(base, EVLOOP_NONBLOCK);
    close_now();
    event_base_loop(base, EVLOOP_NONBLOCK);
    RULE(opened == closed);
    return 0;
}

/* ---- seeds: what honest peers send ---- */

#define NV(name, value)                                                                            \
    {                                                                                              \
        (uint8_t *)(name), (uint8_t *)(value), sizeof(name) - 1, sizeof(value) - 1, 0              \
    }

static ssize_t body_read(nghttp2_session *session, int32_t id, uint8_t *buf, size_t size,
                         uint32_t *flags, nghttp2_data_source *source, void *cookie)
{
    static const char body[] = "\0\0\0\0\3abc\0\0\0\0\0\0\0\0\1\0";

    memcpy(buf, body, sizeof(body) - 1);
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    if (cookie) { /* server: a status follows */
        nghttp2_nv trailers[] = {NV("grpc-status", "5"), NV("grpc-message", "not%20%C3%A9 there")};
        *flags |= NGHTTP2_DATA_FLAG_NO_END_STREAM;
        nghttp2_submit_trailer(session, id, trailers, 2);
    }
    return sizeof(body) - 1;
}

static void drain(nghttp2_session *session, struct str *out)
{
    const uint8_t *bytes;
    ssize_t n;

    while ((n = nghttp2_session_mem_send(session, &bytes)) > 0)
        str_append_bytes(out, bytes, (size_t)n);
}

static void client_bytes(bool stream_body, struct str *out)
{
    nghttp2_nv nv[] = {NV(":method", "POST"),    NV(":scheme", "http"),
                       NV(":path", "/t/Echo"),   NV(":authority", "/x"),
                       NV("te", "trailers"),     NV("content-type", "application/grpc"),
                       NV("grpc-timeout", "10S")};
    nghttp2_data_provider provider = {.read_callback = body_read};
    nghttp2_session_callbacks *cb;
    nghttp2_session *session;

    nghttp2_session_callbacks_new(&cb);
    nghttp2_session_client_new(&session, cb, NULL);
    nghttp2_session_callbacks_del(cb);
    nghttp2_submit_settings(session, 0, NULL, 0);
    for (int i = 0; i < CALLS; i++)
        nghttp2_submit_request(session, NULL, nv, ARRAY_SIZE(nv), stream_body ? &provider : NULL,
                               NULL);
    drain(session, out);
    nghttp2_submit_ping(session, 0, NULL);
    nghttp2_submit_rst_stream(session, 0, 3, NGHTTP2_CANCEL);
    nghttp2_submit_goaway(session, 0, 0, NGHTTP2_NO_ERROR, (const uint8_t *)"bye", 3);
    drain(session, out);
    nghttp2_session_del(session);
}

/* A server's side needs requests to answer: ours are made by a client of the same kind. */
static void server_bytes(bool stream_body, struct str *out)
{
    nghttp2_nv nv[] = {NV(":status", "200"), NV("content-type", "application/grpc"),
                       NV("grpc-status", "0")};
    nghttp2_data_provider provider = {.read_callback = body_read};
    nghttp2_session_callbacks *cb;
    nghttp2_session *session;
    nghttp2_option *option;
    CLEANUP_STR struct str requests = {0};

    client_bytes(true, &requests);
    nghttp2_session_callbacks_new(&cb);
    nghttp2_option_new(&option);
    nghttp2_option_set_no_http_messaging(option, 1);
    nghttp2_session_server_new2(&session, cb, &provider, option);
    nghttp2_session_callbacks_del(cb);
    nghttp2_option_del(option);
    nghttp2_submit_settings(session, 0, NULL, 0);
    nghttp2_session_mem_recv(session, (const uint8_t *)requests.data, requests.len);
    for (int32_t id = 1; id < 2 * CALLS; id += 2)
        nghttp2_submit_response(session, id, nv, stream_body ? 2 : 3,
                                stream_body ? &provider : NULL);
    drain(session, out);
    nghttp2_submit_goaway(session, 0, 5, NGHTTP2_NO_ERROR, (const uint8_t *)"bye", 3);
    drain(session, out);
    nghttp2_session_del(session);
}

bool fuzz_seed(unsigned i, struct str *out)
{
    char first = (char)(i % 8);

    if (i >= 16)
        return false;
    str_append_bytes(out, &first, 1);
    if (first & 1)
        server_bytes(i >= 8, out);
    else
        client_bytes(i >= 8, out);
    return true;
}
