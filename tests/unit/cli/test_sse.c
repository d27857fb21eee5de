/* Server-sent events: whole, in pieces, with the line ends that the standard allows. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "cli/sse.h"

static void take(void *cookie, const struct sse_event *e)
{
    str_appendf(cookie, "[%s|%s]", e->event, e->data);
}

static const struct {
    const char *stream, *events, *id;
} cases[] = {
    {"event: dataset\nid: a:1\ndata: {}\n\n", "[dataset|{}]", "a:1"},
    {"data: x\ndata: y\n\ndata\n\n", "[message|x\ny][message|]", ""},
    {": heartbeat\n\n\n", "", ""},
    {"event:node\r\ndata:  two\r\n\r\nid: 7\r\rdata: z\r\r", "[node| two][message|z]", "7"},
    {"odd: 1\nretry: 5\ndata: half", "", ""},
    {"id: 3\nevent: a\n\nevent: b\ndata: 1\n\nid:\n\n", "[a|][b|1]", ""},
};

static void test_streams(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        size_t n = strlen(cases[i].stream);
        for (size_t piece = 1; piece <= n; piece++) {
            CLEANUP_STR struct str got = {0};
            struct sse s = {.fn = take, .cookie = &got};
            for (size_t at = 0; at < n; at += piece)
                assert_true(sse_feed(&s, cases[i].stream + at, at + piece < n ? piece : n - at));
            assert_string_equal(got.data ? got.data : "", cases[i].events);
            assert_string_equal(s.id.len ? s.id.data : "", cases[i].id);
            sse_done(&s);
        }
    }
}

static void test_break(void **state)
{
    CLEANUP_STR struct str got = {0};
    struct sse s = {.fn = take, .cookie = &got};

    (void)state;
    assert_true(sse_feed(&s, "id: 9\ndata: 1\n\nevent: lost\ndata: ha", 35));
    sse_restart(&s);
    assert_true(sse_feed(&s, "data: 2\n\n", 9));
    assert_string_equal(got.data, "[message|1][message|2]");
    assert_string_equal(s.id.data, "9");
    sse_done(&s);
}

static void test_limits(void **state)
{
    CLEANUP_STR struct str got = {0};
    struct sse s = {.fn = take, .cookie = &got};
    CLEANUP_FREE char *line = xcalloc(1, SSE_LINE_MAX + 2);

    (void)state;
    memset(line, 'x', SSE_LINE_MAX + 1);
    assert_true(sse_feed(&s, line, SSE_LINE_MAX));
    assert_false(sse_feed(&s, line, 1));
    sse_done(&s);
    s = (struct sse){.fn = take, .cookie = &got};
    memcpy(line, "data: ", 6);
    line[SSE_LINE_MAX / 2] = '\n'; /* many lines of one event count too */
    bool ok = true;
    for (int i = 0; i < 4 && ok; i++)
        ok = sse_feed(&s, line, SSE_LINE_MAX / 2 + 1);
    assert_false(ok);
    sse_done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_streams),
        cmocka_unit_test(test_break),
        cmocka_unit_test(test_limits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
