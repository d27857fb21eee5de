/* Connections that cannot be made, and peers that are not our own. */
#include "grpc_world.h"

#include "base/str.h"

#include <arpa/inet.h>
#include <nghttp2/nghttp2.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* ---- connections that cannot be made ---- */

static void fails_with(struct grpc_client_options *o, const char *text)
{
    struct call c = {0};

    must(grpc_client_new(o, &w->client));
    c.stream = grpc_client_call(w->client, "/t/Echo", &call_handlers, &c, 0);
    bool called = c.stream != NULL; /* not when it was clear at once that nothing is there */
    RUN_UNTIL(w->failed);
    assert_int_equal(c.closed, called);
    assert_int_equal(c.status, called ? GRPC_UNAVAILABLE : GRPC_OK);
    assert_int_equal(w->ready, 0);
    if (!strstr(w->failure, text))
        fail_msg("\"%s\" does not say \"%s\"", w->failure, text);
    w->client = grpc_client_free(w->client);
    w->failed = 0;
}

static void test_nobody_listens(void **state)
{
    serve_with(PLAIN_TCP, (struct grpc_server_options){0});
    struct grpc_client_options o = client_options(PLAIN_TCP);
    w->server = grpc_server_free(w->server);
    fails_with(&o, "cannot connect to 127.0.0.1:");
    o = client_options(UNIX);
    fails_with(&o, "socket: No such file or directory");
}

static void test_wrong_certificates(void **state)
{
    struct certs_ca foreign;
    struct grpc_client_options o;

    serve_with(MTLS, (struct grpc_server_options){0});
    o = client_options(PLAIN_TCP);
    o.ssl = client_ssl("user"); /* the server wants a node */
    fails_with(&o, "");
    assert_int_equal(w->opened, 0);

    /* another cluster's CA with the same names */
    certs_ca_new(&foreign, CLUSTER_A);
    certs_ca_write(&foreign, w->dir, "ca");
    certs_make(&foreign, w->dir, "node", "node-" NODE_1, NULL, 0);
    certs_ca_free(&foreign);
    o.ssl = client_ssl("node");
    fails_with(&o, "TLS fails: the peer's certificate is refused: ");
    assert_int_equal(w->opened, 0);
}

static void test_plain_client_to_tls_server(void **state)
{
    serve_with(MTLS, (struct grpc_server_options){0});
    struct grpc_client_options o = client_options(PLAIN_TCP);
    fails_with(&o, "");
}

static void test_tls_client_to_plain_server(void **state)
{
    serve_with(PLAIN_TCP, (struct grpc_server_options){0});
    make_certs();
    struct grpc_client_options o = client_options(PLAIN_TCP);
    o.ssl = client_ssl("node");
    fails_with(&o, "");
}

/* A listener that accepts in the kernel and never says a word. */
static int silent_listener(uint16_t *ret_port)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(a);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_true(fd >= 0);
    assert_return_code(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_return_code(listen(fd, 4), 0);
    assert_return_code(getsockname(fd, (struct sockaddr *)&a, &len), 0);
    *ret_port = ntohs(a.sin_port);
    return fd;
}

static void test_connect_timeout(void **state)
{
    struct grpc_client_options o = client_options(UNIX);

    o.unix_path = NULL;
    o.host = "127.0.0.1";
    o.connect_ms = 80;
    CLEANUP_CLOSE int fd = silent_listener(&o.port);
    fails_with(&o, "no answer within the time allowed");
    make_certs();
    o.ssl = client_ssl("node");
    fails_with(&o, "no answer within the time allowed");
}

static void test_name_in_hosts_file(void **state)
{
    struct call c = {0};

    serve_with(PLAIN_TCP, (struct grpc_server_options){0});
    struct grpc_client_options o = client_options(PLAIN_TCP);
    o.host = "localhost"; /* maybe ::1 first, where nobody listens */
    must(grpc_client_new(&o, &w->client));
    open_call(&c, "/t/Refuse", 0);
    RUN_UNTIL(c.closed);
    assert_int_equal(c.status, GRPC_FAILED_PRECONDITION);
}

static void test_free_while_looking_up(void **state)
{
    serve_with(PLAIN_TCP, (struct grpc_server_options){0});
    struct grpc_client_options o = client_options(PLAIN_TCP);
    o.host = "localhost";
    must(grpc_client_new(&o, &w->client));
    w->client = grpc_client_free(w->client);
    run_for(50);
    assert_int_equal(w->ready + w->failed, 0);
}

static void test_listen_errors(void **state)
{
    struct grpc_server_options o = {.base = w->base, .host = "127.0.0.1"};
    struct grpc_server *other = NULL;
    struct err *e;

    serve_with(PLAIN_TCP, (struct grpc_server_options){0});
    o.port = grpc_server_port(w->server);
    e = grpc_server_new(&o, &other);
    assert_non_null(e);
    assert_non_null(strstr(e->text, "cannot listen on 127.0.0.1 port"));
    err_free(e);
    o.host = "not-an-address";
    e = grpc_server_new(&o, &other);
    assert_true(err_is(e, ERR_INVALID));
    err_free(e);
}

static void test_old_unix_socket_is_replaced(void **state)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct grpc_server_options o = {.base = w->base, .unix_path = w->path};
    struct grpc_server *other = NULL;
    struct call c = {0};

    memcpy(a.sun_path, w->path, sizeof(a.sun_path));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_return_code(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    close(fd); /* its owner died */
    serve(UNIX);
    open_call(&c, "/t/Refuse", 0);
    RUN_UNTIL(c.closed);
    assert_int_equal(c.status, GRPC_FAILED_PRECONDITION);

    struct err *e = grpc_server_new(&o, &other); /* but not one in use */
    assert_true(err_is(e, ERR_EXISTS));
    err_free(e);
    w->server = grpc_server_free(w->server);
    FILE *f = fopen(w->path, "w");
    fclose(f);
    e = grpc_server_new(&o, &other); /* and no file */
    assert_true(err_is(e, ERR_EXISTS));
    err_free(e);
}

/* ---- a foreign peer, byte by byte ---- */

struct raw {
    int fd;
    nghttp2_session *session;
    int32_t stream;
    char http_status[8];
    char grpc_status[8];
    char message[256];
    uint32_t reset; /* UINT32_MAX = none */
    bool closed;
    struct str body;
};

static int raw_on_header(nghttp2_session *session, const nghttp2_frame *frame, const uint8_t *name,
                         size_t name_n, const uint8_t *value, size_t n, uint8_t flags, void *cookie)
{
    struct raw *r = cookie;

    if (name_n == 7 && !memcmp(name, ":status", 7))
        snprintf(r->http_status, sizeof(r->http_status), "%s", (const char *)value);
    if (name_n == 11 && !memcmp(name, "grpc-status", 11))
        snprintf(r->grpc_status, sizeof(r->grpc_status), "%s", (const char *)value);
    if (name_n == 12 && !memcmp(name, "grpc-message", 12))
        snprintf(r->message, sizeof(r->message), "%s", (const char *)value);
    return 0;
}

static int raw_on_frame(nghttp2_session *session, const nghttp2_frame *frame, void *cookie)
{
    struct raw *r = cookie;

    if (frame->hd.type == NGHTTP2_RST_STREAM)
        r->reset = frame->rst_stream.error_code;
    if (frame->hd.stream_id && (frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        r->closed = true;
    return 0;
}

static int raw_on_close(nghttp2_session *session, int32_t id, uint32_t code, void *cookie)
{
    struct raw *r = cookie;

    r->closed = true;
    return 0;
}

static ssize_t raw_read(nghttp2_session *session, int32_t id, uint8_t *buf, size_t size,
                        uint32_t *flags, nghttp2_data_source *source, void *cookie)
{
    struct raw *r = cookie;
    size_t n = r->body.len < size ? r->body.len : size;

    if (n)
        memcpy(buf, r->body.data, n);
    *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

static void raw_open(struct raw *r)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    nghttp2_session_callbacks *cb;

    *r = (struct raw){.reset = UINT32_MAX};
    memcpy(a.sun_path, w->path, sizeof(a.sun_path));
    r->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_return_code(connect(r->fd, (struct sockaddr *)&a, sizeof(a)), 0);
    evutil_make_socket_nonblocking(r->fd);
    nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_on_header_callback(cb, raw_on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, raw_on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, raw_on_close);
    nghttp2_session_client_new(&r->session, cb, r);
    nghttp2_session_callbacks_del(cb);
    nghttp2_submit_settings(r->session, 0, NULL, 0);
}

static void raw_close(struct raw *r)
{
    nghttp2_session_del(r->session);
    close(r->fd);
    str_done(&r->body);
}

/* One turn: out, the server's loop, in. */
static void raw_turn(struct raw *r)
{
    const uint8_t *out;
    uint8_t in[4096];
    ssize_t n;

    while ((n = nghttp2_session_mem_send(r->session, &out)) > 0)
        assert_int_equal(write(r->fd, out, (size_t)n), n);
    event_base_loop(w->base, EVLOOP_NONBLOCK);
    while ((n = read(r->fd, in, sizeof(in))) > 0)
        nghttp2_session_mem_recv(r->session, in, (size_t)n);
    if (n == 0)
        r->closed = true;
}

/* A POST to /t/Echo with the header at `change` set to `value` (NULL: left out), then `body` and
 * its end. */
static void raw_request(struct raw *r, int change, const char *value, const void *body, size_t n)
{
    static const char *const names[] = {":method",    ":scheme", ":path",
                                        ":authority", "te",      "content-type"};
    const char *values[] = {"POST", "http", "/t/Echo", "localhost", "trailers", "application/grpc"};
    nghttp2_nv nv[6];
    size_t count = 0;
    nghttp2_data_provider provider = {.read_callback = raw_read};

    if (change >= 0)
        values[change] = value;
    for (size_t i = 0; i < 6; i++) {
        if (values[i])
            nv[count++] = (nghttp2_nv){(uint8_t *)names[i], (uint8_t *)values[i], strlen(names[i]),
                                       strlen(values[i]), 0};
    }
    raw_open(r);
    str_append_bytes(&r->body, body, n);
    r->stream = nghttp2_submit_request(r->session, NULL, nv, count, n ? &provider : NULL, NULL);
    assert_true(r->stream > 0);
    for (int i = 0; i < 200 && !r->closed; i++)
        raw_turn(r);
    assert_true(r->closed);
}

#define METHOD 0
#define AUTHORITY 3
#define TE 4
#define CONTENT_TYPE 5

static void test_foreign_headers(void **state)
{
    struct raw r;

    serve_with(UNIX, (struct grpc_server_options){0});
    raw_request(&r, AUTHORITY, "/run/csi/csi.sock", NULL, 0); /* real clients do that */
    assert_string_equal(r.grpc_status, "0");
    raw_close(&r);
    raw_request(&r, AUTHORITY, NULL, NULL, 0);
    assert_string_equal(r.grpc_status, "0");
    raw_close(&r);
    raw_request(&r, CONTENT_TYPE, "application/grpc+proto", NULL, 0);
    assert_string_equal(r.grpc_status, "0");
    raw_close(&r);
    raw_request(&r, CONTENT_TYPE, "application/grpcweb", NULL, 0);
    assert_string_equal(r.http_status, "415");
    raw_close(&r);
    raw_request(&r, METHOD, "GET", NULL, 0);
    assert_string_equal(r.http_status, "405");
    raw_close(&r);
    raw_request(&r, TE, NULL, NULL, 0);
    assert_string_equal(r.grpc_status, "13");
    raw_close(&r);
    raw_request(&r, 2, NULL, NULL, 0); /* no :path */
    assert_int_equal(r.reset, NGHTTP2_PROTOCOL_ERROR);
    raw_close(&r);
}

static void test_foreign_bodies(void **state)
{
    struct raw r;

    serve_with(UNIX, (struct grpc_server_options){0});
    raw_request(&r, -1, NULL, "\0\0\0\0\3abc", 8);
    assert_string_equal(r.grpc_status, "0");
    assert_int_equal(w->server_messages, 1);
    raw_close(&r);
    raw_request(&r, -1, NULL, "\1\0\0\0\3abc", 8);
    assert_string_equal(r.grpc_status, "12");
    assert_string_equal(r.message, "compressed messages are not supported");
    raw_close(&r);
    raw_request(&r, -1, NULL, "\0\0\0\0\4abc", 8);
    assert_string_equal(r.grpc_status, "13");
    assert_string_equal(r.message, "the last message was cut short");
    raw_close(&r);
    raw_request(&r, -1, NULL,
                "\0\xff\xff\xff\xff"
                "abc",
                8);
    assert_string_equal(r.grpc_status, "8");
    raw_close(&r);
    assert_int_equal(w->server_messages, 1);
    RUN_UNTIL(grpc_server_connections(w->server) == 0);
}

static int raw_serve_frame(nghttp2_session *session, const nghttp2_frame *frame, void *cookie)
{
    if (frame->hd.type == NGHTTP2_HEADERS)
        ((struct raw *)cookie)->stream = frame->hd.stream_id;
    return 0;
}

/* A server that answers a status and goes, while the client is still writing: the status must
 * arrive, not a broken pipe. */
static void test_status_arrives_before_the_end(void **state)
{
    nghttp2_nv nv[] = {{(uint8_t *)":status", (uint8_t *)"200", 7, 3, 0},
                       {(uint8_t *)"content-type", (uint8_t *)"application/grpc", 12, 16, 0},
                       {(uint8_t *)"grpc-status", (uint8_t *)"9", 11, 1, 0}};
    CLEANUP_FREE char *big = xcalloc(1, 1u << 20);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    struct raw r = {.fd = -1};
    struct call c = {0};
    nghttp2_session_callbacks *cb;
    const uint8_t *out;
    uint8_t in[512];
    ssize_t n;

    memcpy(a.sun_path, w->path, sizeof(a.sun_path));
    CLEANUP_CLOSE int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_return_code(bind(listener, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_return_code(listen(listener, 1), 0);
    connect_client(UNIX);
    open_call(&c, "/t/Any", 0);
    assert_true(grpc_stream_send(c.stream, big, 1u << 20));
    r.fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    evutil_make_socket_nonblocking(r.fd);
    nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, raw_serve_frame);
    nghttp2_session_server_new(&r.session, cb, &r);
    nghttp2_session_callbacks_del(cb);
    nghttp2_submit_settings(r.session, 0, NULL, 0);
    for (int i = 0; i < 100 && !r.stream; i++) {
        event_base_loop(w->base, EVLOOP_NONBLOCK);
        if ((n = read(r.fd, in, sizeof(in))) > 0)
            nghttp2_session_mem_recv(r.session, in, (size_t)n);
    }
    assert_true(r.stream > 0);
    nghttp2_submit_response(r.session, r.stream, nv, ARRAY_SIZE(nv), NULL);
    while ((n = nghttp2_session_mem_send(r.session, &out)) > 0)
        assert_int_equal(write(r.fd, out, (size_t)n), n);
    raw_close(&r);
    RUN_UNTIL(c.closed && w->failed);
    assert_int_equal(c.status, GRPC_FAILED_PRECONDITION);
}

static void test_not_http2(void **state)
{
    static const char request[] = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    struct raw r;

    serve_with(UNIX, (struct grpc_server_options){0});
    raw_open(&r);
    assert_int_equal(write(r.fd, request, sizeof(request) - 1), sizeof(request) - 1);
    RUN_UNTIL(grpc_server_connections(w->server) == 1);
    RUN_UNTIL(grpc_server_connections(w->server) == 0);
    raw_close(&r);
}

#define T(f) cmocka_unit_test_setup_teardown(f, world_setup, world_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(test_nobody_listens),
        T(test_wrong_certificates),
        T(test_plain_client_to_tls_server),
        T(test_tls_client_to_plain_server),
        T(test_connect_timeout),
        T(test_name_in_hosts_file),
        T(test_free_while_looking_up),
        T(test_listen_errors),
        T(test_old_unix_socket_is_replaced),
        T(test_foreign_headers),
        T(test_foreign_bodies),
        T(test_status_arrives_before_the_end),
        T(test_not_http2),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
