#include "net/http_parse.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

/* Feeds `text` byte by byte, as a network may; the head, or NULL with the refusal's status. */
static struct http_head *parse(const char *text, size_t n, unsigned *ret_status)
{
    struct http_refusal refusal = {0};
    struct http_head *head = NULL;
    size_t scanned = 0, found = 0;

    for (size_t i = 1; i <= n && found == 0 && refusal.status == 0; i++) {
        CLEANUP_FREE char *copy = xmemdup(text, i); /* exact size: the sanitizer sees over-reads */

        found = http_head_find(copy, i, &scanned, &refusal);
        if (found > 0)
            refusal = http_head_parse(copy, found, &head);
    }
    assert_true(found > 0 || refusal.status > 0); /* else the test's text has no end */
    *ret_status = refusal.status;
    return head;
}

static void test_good_request(void **state)
{
    static const char text[] = "POST /v1/a%20b%2Fc/%C3%BC?x=1%262&y HTTP/1.1\r\n"
                               "Host:\r\n"
                               "X-Tag: one\r\n"
                               "x-TAG:  two words \t\r\n"
                               "Empty:\r\n"
                               "Content-Length: 12\r\n"
                               "Expect: 100-continue\r\n"
                               "\r\n"
                               "body";
    unsigned status;
    struct http_head *h = parse(text, sizeof(text) - 1, &status);

    assert_int_equal(status, 0);
    assert_int_equal(h->method, HTTP_POST);
    assert_string_equal(h->path, "/v1/a b/c/\xc3\xbc");
    assert_string_equal(h->raw_path, "/v1/a%20b%2Fc/%C3%BC");
    assert_string_equal(h->query, "x=1%262&y");
    assert_string_equal(http_head_get(h, "host", 0), "");
    assert_string_equal(http_head_get(h, "X-Tag", 0), "one");
    assert_string_equal(http_head_get(h, "X-Tag", 1), "two words");
    assert_null(http_head_get(h, "X-Tag", 2));
    assert_string_equal(http_head_get(h, "EMPTY", 0), "");
    assert_true(h->content_length == 12);
    assert_true(h->expect_continue);
    assert_true(h->keep_alive);
    assert_false(h->chunked);
    assert_int_equal(h->header_count, 6);
    http_head_free(h);
    http_head_free(NULL);
}

static void test_forms_of_requests(void **state)
{
    static const struct {
        const char *text, *path, *query;
        bool keep_alive;
    } cases[] = {
        {"GET / HTTP/1.1\r\n\r\n", "/", "", true},
        {"GET / HTTP/1.0\r\n\r\n", "/", "", false},
        {"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "/", "", true},
        {"GET / HTTP/1.1\r\nConnection: foo, Close\r\n\r\n", "/", "", false},
        {"GET / HTTP/1.1\r\nConnection: foo\r\nConnection: close\r\n\r\n", "/", "", false},
        {"GET / HTTP/1.1\r\nConnection: closed\r\n\r\n", "/", "", true},
        {"GET http://h:1/p?q HTTP/1.1\r\n\r\n", "/p", "q", true},
        {"GET HTTPS://h HTTP/1.1\r\n\r\n", "/", "", true},
        {"OPTIONS * HTTP/1.1\r\n\r\n", "*", "", true},
        {"GET //x/../y? HTTP/1.1\r\n\r\n", "//x/../y", "", true},
        {"GET /a?b?c HTTP/1.1\r\n\r\n", "/a", "b?c", true},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        unsigned status;
        struct http_head *h = parse(cases[i].text, strlen(cases[i].text), &status);

        if (status != 0)
            fail_msg("%s: refused with %u", cases[i].text, status);
        assert_string_equal(h->path, cases[i].path);
        assert_string_equal(h->query, cases[i].query);
        assert_int_equal(h->keep_alive, cases[i].keep_alive);
        assert_true(h->content_length == HTTP_LENGTH_NONE);
        http_head_free(h);
    }
}

#define BAD(status, text)                                                                          \
    {                                                                                              \
        status, text, sizeof(text) - 1                                                             \
    }

static void test_refusals(void **state)
{
    static const struct {
        unsigned status;
        const char *text;
        size_t n;
    } cases[] = {
        BAD(400, "GET / HTTP/1.1\n"),
        BAD(400, "GET / HTTP/1.1\r\nA: b\n\r\n"),
        BAD(400, "\n"),
        BAD(400, "GET\r\n\r\n"),
        BAD(400, "GET /\r\n\r\n"),
        BAD(400, "GET  / HTTP/1.1\r\n\r\n"),
        BAD(400, " GET / HTTP/1.1\r\n\r\n"),
        BAD(505, "GET / HTTP/1.1 \r\n\r\n"),
        BAD(400, "GET / FTP/1.1\r\n\r\n"),
        BAD(505, "GET / HTTP/2.0\r\n\r\n"),
        BAD(505, "GET / HTTP/1.2\r\n\r\n"),
        BAD(501, "BREW / HTTP/1.1\r\n\r\n"),
        BAD(501, "get / HTTP/1.1\r\n\r\n"),
        BAD(400, "GE(T / HTTP/1.1\r\n\r\n"),
        BAD(400, "GET x HTTP/1.1\r\n\r\n"),
        BAD(400, "GET * HTTP/1.1\r\n\r\n"),
        BAD(400, "GET http://h?q HTTP/1.1\r\n\r\n"),
        BAD(400, "GET /%0 HTTP/1.1\r\n\r\n"),
        BAD(400, "GET /%zz HTTP/1.1\r\n\r\n"),
        BAD(400, "GET /% HTTP/1.1\r\n\r\n"),
        BAD(400, "GET /%00 HTTP/1.1\r\n\r\n"),
        BAD(400, "GET /?a=%zz HTTP/1.1\r\n\r\n"),
        BAD(400, "GET /?a=%00 HTTP/1.1\r\n\r\n"),
        BAD(400, "GET /a\tb HTTP/1.1\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nA: b\0c\r\n\r\n"),
        BAD(400, "GET /\0 HTTP/1.1\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nA: b\001c\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nA: b\rc\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nA: b\r\n c\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nA : b\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\n: b\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nnonsense\r\n\r\n"),
        BAD(400, "POST / HTTP/1.1\r\nContent-Length : 4\r\n\r\n"),
        BAD(400, "POST / HTTP/1.1\r\nContent-Length: 4\r\nContent-Length: 4\r\n\r\n"),
        BAD(400, "POST / HTTP/1.1\r\nContent-Length: 4, 4\r\n\r\n"),
        BAD(400, "POST / HTTP/1.1\r\nContent-Length: +4\r\n\r\n"),
        BAD(400, "POST / HTTP/1.1\r\nContent-Length: -4\r\n\r\n"),
        BAD(400, "POST / HTTP/1.1\r\nContent-Length: 0x4\r\n\r\n"),
        BAD(400, "POST / HTTP/1.1\r\nContent-Length:\r\n\r\n"),
        BAD(400, "POST / HTTP/1.1\r\nContent-Length: 1844674407370955161600\r\n\r\n"),
        BAD(400, "POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n"),
        BAD(400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
        BAD(501, "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n"),
        BAD(501, "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n"),
        BAD(400, "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
        BAD(417, "POST / HTTP/1.1\r\nExpect: a-miracle\r\n\r\n"),
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        unsigned status;
        struct http_head *h = parse(cases[i].text, cases[i].n, &status);

        if (h || status != cases[i].status)
            fail_msg("case %zu (%s): got %u, wanted %u", i, cases[i].text, status, cases[i].status);
    }
}

static void test_too_many_headers(void **state)
{
    for (unsigned count = HTTP_MAX_HEADERS; count <= HTTP_MAX_HEADERS + 1; count++) {
        CLEANUP_STR struct str s = {0};
        unsigned status;

        str_append(&s, "GET / HTTP/1.1\r\n");
        for (unsigned i = 0; i < count; i++)
            str_append(&s, "a:b\r\n");
        str_append(&s, "\r\n");
        struct http_head *h = parse(s.data, s.len, &status);
        assert_int_equal(status, count > HTTP_MAX_HEADERS ? 431 : 0);
        http_head_free(h);
    }
}

static void test_percent_decode(void **state)
{
    CLEANUP_FREE char *plain = http_percent_decode("a+b%2bc%41", 10, false);
    CLEANUP_FREE char *plus = http_percent_decode("a+b%2bc%41", 10, true);
    CLEANUP_FREE char *part = http_percent_decode("%41%42", 3, true);

    assert_string_equal(plain, "a+b+cA");
    assert_string_equal(plus, "a b+cA");
    assert_string_equal(part, "A");
    assert_null(http_percent_decode("%41%42", 5, true));
    assert_null(http_percent_decode("%00", 3, true));
}

/* Feeds in pieces of `piece` bytes; the decoded body in `out`. */
static enum http_chunked_result dechunk(const char *text, size_t n, size_t piece, struct str *out,
                                        size_t *ret_taken)
{
    struct http_chunked c = {0};
    enum http_chunked_result result = HTTP_CHUNKED_MORE;
    size_t at = 0;

    while (at < n && (result == HTTP_CHUNKED_MORE || result == HTTP_CHUNKED_DATA)) {
        size_t part = n - at < piece ? n - at : piece, taken = 0, len = 0;
        CLEANUP_FREE char *copy = xmemdup(text + at, part);
        const char *data = NULL;

        result = http_chunked_feed(&c, copy, part, &taken, &data, &len);
        if (result == HTTP_CHUNKED_DATA)
            str_append_bytes(out, data, len);
        at += taken;
    }
    *ret_taken = at;
    return result;
}

static void test_chunked(void **state)
{
    static const struct {
        const char *text;
        enum http_chunked_result result;
        const char *body;
    } cases[] = {
        {"0\r\n\r\n", HTTP_CHUNKED_END, ""},
        {"3\r\nabc\r\nA\r\n0123456789\r\n0\r\n\r\n", HTTP_CHUNKED_END, "abc0123456789"},
        {"0003;x=\"y\"\r\nabc\r\n000\r\nTrailer: x\r\nMore: y\r\n\r\n", HTTP_CHUNKED_END, "abc"},
        {"3\r\nab", HTTP_CHUNKED_MORE, "ab"},
        {"\r\n", HTTP_CHUNKED_BAD, ""},
        {"x\r\n", HTTP_CHUNKED_BAD, ""},
        {"-1\r\n", HTTP_CHUNKED_BAD, ""},
        {"0x3\r\n", HTTP_CHUNKED_BAD, ""},
        {" 3\r\n", HTTP_CHUNKED_BAD, ""},
        {"3\nabc\r\n", HTTP_CHUNKED_BAD, ""},
        {"3\r\nabcd\r\n", HTTP_CHUNKED_BAD, "abc"},
        {"3\r\nabc\n0\r\n\r\n", HTTP_CHUNKED_BAD, "abc"},
        {"0\r\n\n", HTTP_CHUNKED_BAD, ""},
        {"0\r\nT: x\n\r\n", HTTP_CHUNKED_BAD, ""},
        {"1000000000000000\r\n", HTTP_CHUNKED_BAD, ""},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        for (size_t piece = 1; piece < 40; piece += 6) {
            CLEANUP_STR struct str body = {0};
            size_t taken;
            enum http_chunked_result r =
                dechunk(cases[i].text, strlen(cases[i].text), piece, &body, &taken);

            if (r == HTTP_CHUNKED_DATA)
                r = HTTP_CHUNKED_MORE;
            if (r != cases[i].result)
                fail_msg("case %zu, pieces of %zu: got %d", i, piece, (int)r);
            assert_string_equal(body.data ? body.data : "", cases[i].body);
            if (r == HTTP_CHUNKED_END)
                assert_int_equal(taken, strlen(cases[i].text));
        }
    }
}

static void test_chunked_limits(void **state)
{
    CLEANUP_STR struct str extension = {0}, trailer = {0}, body = {0};
    size_t taken;

    str_append(&extension, "3;");
    for (int i = 0; i < 300; i++)
        str_append(&extension, "x");
    assert_int_equal(dechunk(extension.data, extension.len, 1000, &body, &taken), HTTP_CHUNKED_BAD);
    str_append(&trailer, "0\r\n");
    for (int i = 0; i < 1000; i++)
        str_append(&trailer, "a: bc\r\n");
    assert_int_equal(dechunk(trailer.data, trailer.len, 1000, &body, &taken), HTTP_CHUNKED_BAD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good_request),   cmocka_unit_test(test_forms_of_requests),
        cmocka_unit_test(test_refusals),       cmocka_unit_test(test_too_many_headers),
        cmocka_unit_test(test_percent_decode), cmocka_unit_test(test_chunked),
        cmocka_unit_test(test_chunked_limits),
    };

    return cmocka_run_group_tests_name("http_parse", tests, NULL, NULL);
}
