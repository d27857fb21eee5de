/* JSON over HTTP against a server that answers with one canned answer after the other, each on a connection of its own. */
#include "drivers/json_http.h"

#include "base/now.h"
#include "drivers/wait.h"

#include <arpa/inet.h>
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

#define DROP "" /* the connection ends instead */

struct server {
    int listener;
    unsigned requests;
    const char *const *answers; /* ends with NULL: from there on the last one */
    struct str request;         /* the last one */
    pthread_t thread;
    char url[64];
};

static void serve_one(struct server *s, int fd)
{
    const char *answer = s->answers[s->requests];
    char buf[4096];
    size_t have = 0;

    for (;;) {
        ssize_t n = read(fd, buf + have, sizeof(buf) - 1 - have);

        if (n <= 0)
            return;
        have += (size_t)n;
        buf[have] = '\0';
        const char *end = strstr(buf, "\r\n\r\n"), *length = strcasestr(buf, "content-length: ");

        if (end && have >= (size_t)(end + 4 - buf) + (length ? strtoul(length + 16, NULL, 10) : 0))
            break;
    }
    str_done(&s->request);
    str_append(&s->request, buf);
    if (s->answers[s->requests + 1])
        s->requests++;
    (void)send(fd, answer, strlen(answer), MSG_NOSIGNAL);
}

static void *serve(void *cookie)
{
    struct server *s = cookie;

    for (int fd; (fd = accept4(s->listener, NULL, NULL, SOCK_CLOEXEC)) >= 0; close(fd))
        serve_one(s, fd);
    return NULL;
}

static void server_start(struct server *s, const char *const *answers)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof(a);

    *s = (struct server){.answers = answers};
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&a, n), 0);
    assert_int_equal(listen(s->listener, 8), 0);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&a, &n), 0);
    (void)snprintf(s->url, sizeof(s->url), "http://127.0.0.1:%u/v1", ntohs(a.sin_port));
    assert_int_equal(pthread_create(&s->thread, NULL, serve, s), 0);
}

static void server_stop(struct server *s)
{
    (void)shutdown(s->listener, SHUT_RDWR);
    pthread_join(s->thread, NULL);
    close(s->listener);
    str_done(&s->request);
}

static struct http_client *http;

static struct err *call(const struct server *s, struct json_http_call c,
                        struct json_http_answer *ret)
{
    c.what = "cannot do it";
    c.method = c.method ? c.method : "POST";
    c.url = s->url;
    if (!c.deadline_us)
        c.deadline_us = now_os().mono_us + 20 * (uint64_t)USEC_PER_SEC;
    return json_http_sync(http, &c, ret);
}

#define JSON(status, body)                                                                         \
    "HTTP/1.1 " status "\r\nConnection: close\r\nX-Subject-Token: t0k \r\n\r\n" body

static void test_round(void **state)
{
    static const char *const answers[] = {JSON("201 Created", "{\"id\": 7}"), NULL};
    CLEANUP_JSON_HTTP_ANSWER struct json_http_answer a = {0};
    const char *const headers[] = {"X-Auth-Token: abc", NULL};
    json_t *body = json_pack("{s:s}", "name", "x");
    struct server s;

    server_start(&s, answers);
    assert_null(call(
        &s,
        (struct json_http_call){.body = body, .headers = headers, .keep_header = "x-subject-token"},
        &a));
    assert_int_equal(a.status, 201);
    assert_int_equal(json_integer_value(json_object_get(a.body, "id")), 7);
    assert_string_equal(a.header, "t0k");
    assert_non_null(strstr(s.request.data, "POST /v1 HTTP/1.1\r\n"));
    assert_non_null(strstr(
        s.request.data,
        "\r\nAccept: application/json\r\nContent-Type: application/json\r\nX-Auth-Token: abc\r\n"));
    assert_non_null(strstr(s.request.data, "\r\n\r\n{\"name\":\"x\"}"));
    json_decref(body);
    server_stop(&s);
}

/* What is tried again, and of that what also when it may be done only once. */
static void test_tries(void **state)
{
    static const struct {
        const char *first;
        bool even_once;
    } cases[] = {
        {JSON("503 Slow Down", "busy"), true},
        {"HTTP/1.1 429 Too Many\r\nRetry-After: 1\r\nConnection: close\r\n\r\n", true},
        {JSON("500 Oops", ""), false},
        {JSON("502 Bad Gateway", "<html>"), false},
        {DROP, false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases) * 2; i++) {
        const char *const answers[] = {cases[i / 2].first, JSON("200 OK", "[]"),
                                       JSON("200 OK", "[]"), NULL};
        CLEANUP_JSON_HTTP_ANSWER struct json_http_answer a = {0};
        uint64_t began = now_os().mono_us;
        bool once = i % 2;
        struct server s;

        server_start(&s, answers);
        CLEANUP_ERR struct err *e = call(&s, (struct json_http_call){.once = once}, &a);
        bool again = !e && a.status == 200;

        if (again != (!once || cases[i / 2].even_once))
            fail_msg("case %zu%s: status %d, %s", i / 2, once ? ", once" : "", a.status,
                     e ? e->text : "");
        if (strstr(cases[i / 2].first, "Retry-After"))
            assert_true(now_os().mono_us - began >= USEC_PER_SEC);
        if (e)
            assert_true(str_has_prefix(e->text, "cannot do it: "));
        server_stop(&s);
    }
}

/* The last answer is the result, and comes before the deadline. */
static void test_deadline(void **state)
{
    static const char *const answers[] = {
        JSON("503 Slow Down", "{\"message\": \"busy\\nat\\u0007 it\"}"), NULL};
    CLEANUP_JSON_HTTP_ANSWER struct json_http_answer a = {0};
    uint64_t began = now_os().mono_us;
    struct server s;

    server_start(&s, answers);
    assert_null(
        call(&s, (struct json_http_call){.deadline_us = began + 2 * (uint64_t)USEC_PER_SEC}, &a));
    assert_true(now_os().mono_us - began < 3 * (uint64_t)USEC_PER_SEC);
    assert_int_equal(a.status, 503);
    CLEANUP_ERR struct err *e = json_http_failure(&a, "cannot do it");

    assert_true(err_is(e, ERR_UNAVAILABLE));
    assert_string_equal(e->text, "cannot do it: busy at  it (status 503)");
    server_stop(&s);
}

static void test_what_is_no_json(void **state)
{
    static const struct {
        const char *answer;
        bool refused;
    } cases[] = {
        {JSON("200 OK", "<html>"), true},         {JSON("200 OK", "{\"a\":1,\"a\":2}"), true},
        {JSON("204 No Content", ""), false},      {JSON("200 OK", "\"3.6\""), false},
        {JSON("404 Not Found", "<html>"), false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const char *const answers[] = {cases[i].answer, NULL};
        CLEANUP_JSON_HTTP_ANSWER struct json_http_answer a = {0};
        struct server s;

        server_start(&s, answers);
        CLEANUP_ERR struct err *e = call(&s, (struct json_http_call){.method = "GET"}, &a);

        if (err_is(e, ERR_CORRUPT) != cases[i].refused)
            fail_msg("case %zu: %s", i, e ? e->text : "taken");
        server_stop(&s);
    }
    CLEANUP_FREE char *many = xmalloc(JSON_HTTP_VALUES_MAX * 2 + 8);
    json_t *none = NULL;
    size_t n = 0;

    many[n++] = '[';
    for (size_t i = 0; i < JSON_HTTP_VALUES_MAX; i++, n += 2)
        memcpy(many + n, "0,", 2);
    memcpy(many + n, "0]", 2);
    CLEANUP_ERR struct err *e = json_http_parse(many, n + 2, &none);
    assert_true(err_is(e, ERR_CORRUPT) && strstr(e->text, "more than 500000 values"));
}

static void test_messages(void **state)
{
    static const struct {
        int status;
        const char *body, *text;
        enum err_code code;
    } cases[] = {
        {404, "{\"itemNotFound\": {\"code\": 404, \"message\": \"no volume\"}}",
         "x: no volume (status 404)", ERR_NOT_FOUND},
        {401, "{\"error\": {\"message\": \"who are you\"}}", "x: who are you (status 401)",
         ERR_DENIED},
        {409, "{\"message\": \"in use\", \"errorCode\": 3}", "x: in use (status 409)",
         ERR_CONFLICT},
        {413, "{\"overLimit\": {\"message\": \"quota\"}}", "x: quota (status 413)", ERR_NO_SPACE},
        {422, "[1]", "x: refused with status 422", ERR_INVALID},
        {500, "{\"a\": 1, \"b\": 2}", "x: refused with status 500", ERR_UNAVAILABLE},
        {400, "\"just words\"", "x: just words (status 400)", ERR_INVALID},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_JSON_HTTP_ANSWER struct json_http_answer a = {.status = cases[i].status};

        assert_null(json_http_parse(cases[i].body, strlen(cases[i].body), &a.body));
        CLEANUP_ERR struct err *e = json_http_failure(&a, "x");
        assert_string_equal(e->text, cases[i].text);
        assert_int_equal(e->code, cases[i].code);
    }
    CLEANUP_FREE char *basic = json_http_basic("Aladdin", "open sesame");
    assert_string_equal(basic, "Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
}

static void test_waits_end(void **state)
{
    struct wait w = wait_for(1);
    struct retry r = {.deadline_us = now_os().mono_us + 300000};
    uint64_t began = now_os().mono_us;
    unsigned n = 0;

    while (wait_more(&w))
        n++;
    assert_in_range(n, 2, 5);
    assert_true(now_os().mono_us - began <= USEC_PER_SEC);
    assert_false(retry_pause(&r, 0)); /* no time for another try */
    r.deadline_us = now_os().mono_us + 5 * (uint64_t)USEC_PER_SEC;
    assert_true(retry_pause(&r, 0));
    assert_false(retry_pause(&r, 60));
    assert_int_equal(retry_time_us(&r, 1000), 1000);
    r.deadline_us = 1;
    assert_int_equal(retry_time_us(&r, 5 * (uint64_t)USEC_PER_SEC), USEC_PER_MSEC);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_round),    cmocka_unit_test(test_tries),
        cmocka_unit_test(test_deadline), cmocka_unit_test(test_what_is_no_json),
        cmocka_unit_test(test_messages), cmocka_unit_test(test_waits_end),
    };

    signal(SIGPIPE, SIG_IGN);
    assert_null(http_client_new(&(struct http_client_options){.direct = true}, &http));
    int rc = cmocka_run_group_tests(tests, NULL, NULL);

    http_client_free(http);
    return rc;
}
