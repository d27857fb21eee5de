/* The HTTP client against a server that says exactly what each test wants. */
#include "net/http_client.h"

#include "base/now.h"
#include "certs.h"

#include <arpa/inet.h>
#include <errno.h>
#include <openssl/ssl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define WAIT_US (5 * (uint64_t)USEC_PER_SEC)
#define OK_ANSWER "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

/* ---- the server ---- */

struct server {
    int listener;
    unsigned port;
    const char *answer; /* to each request; NULL: none, ever */
    size_t answer_size;
    bool close_after; /* the first answer of a connection */
    SSL_CTX *tls;
    struct str request; /* the last one */
    unsigned connections, requests;
    pthread_t thread;
};

static ssize_t get(SSL *tls, int fd, void *buf, size_t n)
{
    return tls ? SSL_read(tls, buf, (int)n) : read(fd, buf, n);
}

/* One request, by its Content-Length, to s->request; false when the client has gone. */
static bool take_request(struct server *s, SSL *tls, int fd)
{
    CLEANUP_STR struct str r = {0};
    char buf[4096];

    for (;;) {
        const char *end = r.data ? strstr(r.data, "\r\n\r\n") : NULL;
        const char *length = end ? strcasestr(r.data, "content-length: ") : NULL;
        size_t body = length && length < end ? strtoul(length + 16, NULL, 10) : 0;

        if (end && r.len >= (size_t)(end + 4 - r.data) + body) {
            str_done(&s->request);
            s->request = r;
            r = (struct str){0};
            return true;
        }
        ssize_t n = get(tls, fd, buf, sizeof(buf));

        if (n <= 0)
            return false;
        str_append_bytes(&r, buf, (size_t)n);
    }
}

static void serve_connection(struct server *s, int fd)
{
    SSL *tls = s->tls ? SSL_new(s->tls) : NULL;

    if (!tls || (SSL_set_fd(tls, fd) == 1 && SSL_accept(tls) == 1)) {
        while (take_request(s, tls, fd)) {
            s->requests++;
            if (s->answer && tls)
                (void)SSL_write(tls, s->answer, (int)s->answer_size);
            else if (s->answer)
                (void)send(fd, s->answer, s->answer_size, MSG_NOSIGNAL);
            if (s->close_after)
                break;
        }
    }
    SSL_free(tls);
    close(fd);
}

static void *serve(void *cookie)
{
    struct server *s = cookie;

    for (;;) {
        int fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC);

        if (fd < 0)
            return NULL;
        s->connections++;
        serve_connection(s, fd);
    }
}

static void server_start(struct server *s, const char *answer)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);

    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&a, n), 0);
    assert_int_equal(listen(s->listener, 8), 0);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&a, &n), 0);
    s->port = ntohs(a.sin_port);
    if (!s->answer) {
        s->answer = answer;
        s->answer_size = answer ? strlen(answer) : 0;
    }
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void server_stop(struct server *s)
{
    (void)shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->listener);
    str_done(&s->request);
}

/* ---- the client ---- */

static struct http_client *client(const char *ca_file)
{
    struct http_client *c;

    assert_null(
        http_client_new(&(struct http_client_options){.ca_file = ca_file, .direct = true}, &c));
    return c;
}

static struct err *call_with(struct http_client *c, const struct server *s, struct http_call *call,
                             struct http_answer *ret)
{
    CLEANUP_FREE char *url =
        xasprintf("%s://127.0.0.1:%u/x?y=z", s->tls ? "https" : "http", s->port);

    call->url = url;
    call->method = call->method ? call->method : "GET";
    call->timeout_us = call->timeout_us ? call->timeout_us : WAIT_US;
    return http_client_call_sync(c, call, ret);
}

/* One call of a new client to a new server; asserts how it fails. */
static void fails(const char *answer, struct http_call call, enum err_code code, const char *part)
{
    struct server s = {0};
    struct http_client *c = client(NULL);
    struct http_answer a = {0};

    server_start(&s, answer);
    CLEANUP_ERR struct err *e = call_with(c, &s, &call, &a);

    if (!e || e->code != code || !strstr(e->text, part))
        fail_msg("wanted %s (%s), got %s: %s", err_code_name(code), part,
                 e ? err_code_name(e->code) : "success", e ? e->text : "");
    assert_null(a.body.data);
    http_client_free(c);
    server_stop(&s);
}

/* ---- tests ---- */

static void test_get(void **state)
{
    struct server s = {0};
    struct http_client *c = client(NULL);
    CLEANUP_HTTP_ANSWER struct http_answer a = {0};
    const char *const headers[] = {"X-Thing: one", NULL};

    server_start(&s, "HTTP/1.1 503 Slow Down\r\nretry-after: 17\r\nContent-Length: 4\r\n\r\nbusy");
    assert_null(call_with(c, &s, &(struct http_call){.headers = headers}, &a));
    assert_int_equal(a.status, 503);
    assert_int_equal(a.retry_after_s, 17);
    assert_string_equal(a.body.data, "busy");
    http_client_free(c);
    server_stop(&s);
}

static void test_request_is_as_told(void **state)
{
    struct server s = {0};
    struct http_client *c = client(NULL);
    CLEANUP_HTTP_ANSWER struct http_answer a = {0};
    const char *const headers[] = {"Content-Type: text/plain", "X-Thing: one", NULL};

    server_start(&s, OK_ANSWER);
    assert_null(call_with(
        c, &s,
        &(struct http_call){.method = "PUT", .headers = headers, .body = "a\0b", .body_size = 3},
        &a));
    assert_true(str_has_prefix(s.request.data, "PUT /x?y=z HTTP/1.1\r\n"));
    assert_non_null(strstr(s.request.data, "\r\nX-Thing: one\r\n"));
    assert_non_null(strstr(s.request.data, "\r\nContent-Length: 3\r\n"));
    assert_null(strstr(s.request.data, "Expect"));
    assert_null(strstr(s.request.data, "Authorization"));
    assert_memory_equal(s.request.data + s.request.len - 3, "a\0b", 3);
    http_client_free(c);
    server_stop(&s);
}

/* What the signature is worth is checked by the tests of the EC2 client; here, that nothing of it stays for the next call. */
static void test_signed(void **state)
{
    struct server s = {0};
    struct http_client *c = client(NULL);
    const char *const headers[] = {"X-Amz-Security-Token: tok", NULL};
    const struct http_sign sign = {
        .region = "eu-west-1", .service = "ec2", .key_id = "AKID:x", .secret = "hidden"};

    server_start(&s, OK_ANSWER);
    for (int i = 0; i < 2; i++) {
        CLEANUP_HTTP_ANSWER struct http_answer a = {0};

        assert_null(call_with(c, &s,
                              &(struct http_call){.method = "POST",
                                                  .headers = headers,
                                                  .body = "a=b",
                                                  .body_size = 3,
                                                  .sign = i ? NULL : &sign},
                              &a));
        if (!i) {
            assert_non_null(
                strstr(s.request.data, "Authorization: AWS4-HMAC-SHA256 Credential=AKID:x/"));
            assert_non_null(strstr(s.request.data, "/eu-west-1/ec2/aws4_request"));
            assert_non_null(
                strstr(s.request.data, "SignedHeaders=host;x-amz-date;x-amz-security-token,"));
        }
        assert_null(strstr(s.request.data, "hidden"));
    }
    assert_null(strstr(s.request.data, "Authorization"));
    assert_int_equal(s.connections, 1);
    http_client_free(c);
    server_stop(&s);
}

static void test_connections_are_kept(void **state)
{
    struct server s = {0};
    struct http_client *c = client(NULL);

    server_start(&s, OK_ANSWER);
    for (int i = 0; i < 5; i++) {
        CLEANUP_HTTP_ANSWER struct http_answer a = {0};

        assert_null(call_with(c, &s, &(struct http_call){0}, &a));
        assert_string_equal(a.body.data, "ok");
    }
    assert_int_equal(s.connections, 1);
    http_client_free(c);
    server_stop(&s);
}

/* A kept connection was closed by the other side. */
static void test_closed_connection_is_replaced(void **state)
{
    struct server s = {.close_after = true};
    struct http_client *c = client(NULL);

    server_start(&s, OK_ANSWER);
    for (int i = 0; i < 3; i++) {
        CLEANUP_HTTP_ANSWER struct http_answer a = {0};

        assert_null(call_with(c, &s, &(struct http_call){0}, &a));
    }
    assert_int_equal(s.requests, 3);
    http_client_free(c);
    server_stop(&s);
}

static void test_redirects_are_answers(void **state)
{
    struct server s = {0};
    struct http_client *c = client(NULL);
    CLEANUP_HTTP_ANSWER struct http_answer a = {0};

    server_start(
        &s, "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n");
    assert_null(call_with(c, &s, &(struct http_call){0}, &a));
    assert_int_equal(a.status, 302);
    assert_int_equal(s.requests, 1);
    http_client_free(c);
    server_stop(&s);
}

static void test_limits(void **state)
{
    CLEANUP_FREE char *long_header =
        xasprintf("HTTP/1.1 200 OK\r\nX: %0*d\r\nContent-Length: 0\r\n\r\n", 70000, 0);

    fails("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n12345", (struct http_call){.answer_max = 4},
          ERR_CORRUPT, "longer than 4 bytes");
    fails("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n123\r\n3\r\n456\r\n0\r\n\r\n",
          (struct http_call){.answer_max = 5}, ERR_CORRUPT, "longer than 5 bytes");
    fails(long_header, (struct http_call){0}, ERR_CORRUPT, "headers");
}

static void test_not_http(void **state)
{
    fails("220 mail.example.net ESMTP\r\n", (struct http_call){0}, ERR_CORRUPT, "no HTTP service");
    fails(OK_ANSWER, (struct http_call){.headers = (const char *const[]){"A: b\r\nC: d", NULL}},
          ERR_INVALID, "line break");
}

static void test_cut_short(void **state)
{
    struct server s = {.close_after = true};
    struct http_client *c = client(NULL);
    struct http_answer a = {0};

    server_start(&s, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n12345");
    CLEANUP_ERR struct err *e = call_with(c, &s, &(struct http_call){0}, &a);

    assert_true(err_is(e, ERR_UNAVAILABLE));
    assert_null(a.body.data);
    http_client_free(c);
    server_stop(&s);
}

static void test_nobody_there(void **state)
{
    struct server s = {0};
    struct http_client *c = client(NULL);
    struct http_answer a = {0};

    server_start(&s, OK_ANSWER);
    server_stop(&s);
    CLEANUP_ERR struct err *e = call_with(c, &s, &(struct http_call){0}, &a);

    assert_true(err_is(e, ERR_UNAVAILABLE));
    assert_non_null(strstr(e->text, "cannot be reached"));
    http_client_free(c);
}

static void test_deadline(void **state)
{
    uint64_t start = now_os().mono_us;

    fails(NULL, (struct http_call){.timeout_us = 200000}, ERR_TIMEOUT, "did not answer in time");
    fails("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n12345",
          (struct http_call){.timeout_us = 200000}, ERR_TIMEOUT, "did not answer in time");
    assert_in_range(now_os().mono_us - start, 400000, 4000000);
}

static void *cancel_soon(void *cookie)
{
    (void)usleep(100000);
    atomic_store((atomic_bool *)cookie, true);
    return NULL;
}

static void test_cancel(void **state)
{
    atomic_bool cancel = false;
    uint64_t start = now_os().mono_us;
    pthread_t t;

    assert_int_equal(pthread_create(&t, NULL, cancel_soon, &cancel), 0);
    fails(NULL, (struct http_call){.timeout_us = 60 * (uint64_t)USEC_PER_SEC, .cancel = &cancel},
          ERR_CANCELLED, "was cancelled");
    assert_true(now_os().mono_us - start < 5 * (uint64_t)USEC_PER_SEC);
    pthread_join(t, NULL);
}

static SSL_CTX *server_tls(const char *dir, const char *name)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    CLEANUP_FREE char *crt = xasprintf("%s/%s.crt", dir, name);
    CLEANUP_FREE char *key = xasprintf("%s/%s.key", dir, name);

    assert_int_equal(SSL_CTX_use_certificate_chain_file(ctx, crt), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM), 1);
    return ctx;
}

/* With `ca_file`, a server that shows the certificate `name`. */
static struct err *call_tls(const char *dir, const char *name, const char *ca_file)
{
    struct server s = {.tls = server_tls(dir, name)};
    struct http_client *c = client(ca_file);
    CLEANUP_HTTP_ANSWER struct http_answer a = {0};

    server_start(&s, OK_ANSWER);
    struct err *e = call_with(c, &s, &(struct http_call){0}, &a);

    http_client_free(c);
    server_stop(&s);
    SSL_CTX_free(s.tls);
    return e;
}

static void test_tls(void **state)
{
    char dir[64];
    struct certs_ca ca, other;

    certs_dir_make(dir, sizeof(dir));
    certs_ca_new(&ca, CLUSTER_A);
    certs_ca_new(&other, CLUSTER_B);
    certs_ca_write(&ca, dir, "ca");
    certs_ca_write(&other, dir, "other");
    certs_make(&ca, dir, "good", "api", NULL, CERTS_SAN_CONTROL);
    certs_make(&ca, dir, "nameless", "api", NULL, 0);
    certs_make(&ca, dir, "old", "api", NULL, CERTS_SAN_CONTROL | CERTS_EXPIRED);
    CLEANUP_FREE char *ca_file = xasprintf("%s/ca.crt", dir);
    CLEANUP_FREE char *other_file = xasprintf("%s/other.crt", dir);
    const struct {
        const char *name, *ca_file;
    } bad[] = {{"good", other_file}, {"good", NULL}, {"nameless", ca_file}, {"old", ca_file}};

    assert_null(call_tls(dir, "good", ca_file));
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        CLEANUP_ERR struct err *e = call_tls(dir, bad[i].name, bad[i].ca_file);

        if (!err_is(e, ERR_DENIED))
            fail_msg("case %zu: %s", i, e ? e->text : "was trusted");
    }
    struct http_client *c = NULL;
    CLEANUP_ERR struct err *e =
        http_client_new(&(struct http_client_options){.ca_file = "/no/such.crt"}, &c);

    assert_true(err_is(e, ERR_INVALID));
    certs_ca_free(&ca);
    certs_ca_free(&other);
    certs_dir_remove(dir);
}

static void *call_often(void *cookie)
{
    void **args = cookie;

    for (int i = 0; i < 20; i++) {
        CLEANUP_HTTP_ANSWER struct http_answer a = {0};
        CLEANUP_ERR struct err *e = call_with(args[0], args[1], &(struct http_call){0}, &a);

        if (e)
            return args; /* anything but NULL */
    }
    return NULL;
}

/* The server takes one connection after the other: more threads than connections must not wait for each other for ever. */
static void test_threads(void **state)
{
    struct server s = {.close_after = true};
    struct http_client *c = client(NULL);
    void *args[] = {c, &s};
    pthread_t t[12];

    server_start(&s, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok");
    for (size_t i = 0; i < ARRAY_SIZE(t); i++)
        assert_int_equal(pthread_create(&t[i], NULL, call_often, args), 0);
    for (size_t i = 0; i < ARRAY_SIZE(t); i++) {
        void *result = NULL;

        pthread_join(t[i], &result);
        assert_null(result);
    }
    assert_int_equal(s.requests, 20 * ARRAY_SIZE(t));
    http_client_free(c);
    server_stop(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_get),
        cmocka_unit_test(test_request_is_as_told),
        cmocka_unit_test(test_signed),
        cmocka_unit_test(test_connections_are_kept),
        cmocka_unit_test(test_closed_connection_is_replaced),
        cmocka_unit_test(test_redirects_are_answers),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_not_http),
        cmocka_unit_test(test_cut_short),
        cmocka_unit_test(test_nobody_there),
        cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_tls),
        cmocka_unit_test(test_threads),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
