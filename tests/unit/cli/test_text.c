/* Sizes, metadata, times, widths, tables. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/api_answer.h"
#include "cli/ctl.h"
#include "cli/table.h"
#include "cli/text.h"

static void test_sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},
        {"1000", 1000},
        {"67108864", 67108864},
        {"1k", 1024},
        {"1K", 1024},
        {"1kb", 1024},
        {"1KiB", 1024},
        {"64M", 67108864},
        {"64 MiB", 67108864},
        {"1.5G", 1610612736},
        {"0.1g", 107374592}, /* 107374182.4, up to the next multiple of 1024 */
        {"2T", 2199023255552},
        {"1.000001T", 1099512727552},
        {"8388607T", 9223370937343148032u},
    };
    static const char *const bad[] = {
        "",
        " ",
        "G",
        "-1",
        "+1",
        "1.5",
        "1.",
        ".5G",
        "1X",
        "1GG",
        "1GBB",
        "1Gib ",
        "0x10",
        "1e3",
        "1,5G",
        "1 2",
        "inf",
        "1.0000001G",
        "1234567890123456789",
        "99999999T",
        "8388608T",
        "1b",
    };

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        uint64_t bytes = 12345;
        assert_null(text_parse_size(good[i].text, &bytes));
        assert_int_equal(bytes, good[i].bytes);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        uint64_t bytes = 12345;
        struct err *e = text_parse_size(bad[i], &bytes);
        if (!e)
            fail_msg("'%s' was accepted", bad[i]);
        assert_true(err_is(e, ERR_INVALID));
        assert_non_null(strstr(e->text, bad[i]));
        assert_int_equal(bytes, 12345);
        err_free(e);
    }
}

static void assert_owned(char *text, const char *expected)
{
    assert_string_equal(text, expected);
    free(text);
}

static void test_progress(void **state)
{
    const uint64_t mib = 1u << 20;
    struct text_progress p = {.sent = 768 * mib, .total = 1024 * mib, .rate = 35 * mib, .left = 7}, unknown = {.sent = 5, .left = -1},
                         over = {.sent = 3 * mib, .total = 2 * mib, .left = -1};
    const char *numbers = "768.0M of about 1.0G (75 %) sent, 35.0M/s, 7s left"; /* 50 columns */

    assert_owned(text_format_progress(&p, 0), numbers);
    assert_owned(text_format_progress(&p, 59), numbers);
    assert_owned(text_format_progress(&p, 61), "[======> ] 768.0M of about 1.0G (75 %) sent, 35.0M/s, 7s left");
    assert_owned(text_format_progress(&p, 20), "768.0M of about 1.0G");
    assert_owned(text_format_progress(&unknown, 200), "5 sent");
    assert_owned(text_format_progress(&over, 0), "3.0M of about 2.0M (100 %) sent");
    for (size_t columns = 1; columns < 300; columns++) {
        CLEANUP_FREE char *text = text_format_progress(&p, columns);
        assert_true(strlen(text) <= columns);
        assert_true(strlen(text) <= 100); /* a bar has an end */
    }
}

static void test_format_sizes(void **state)
{
    assert_owned(text_format_quota(0), "<no quota>");
    assert_owned(text_format_quota(1610612736), "1.50G");
    assert_owned(text_format_quota(67108864), "0.06G");
    assert_owned(text_format_bytes(0), "0");
    assert_owned(text_format_bytes(1023), "1023");
    assert_owned(text_format_bytes(1536), "1.5K");
    assert_owned(text_format_bytes(UINT64_MAX), "16.0E");
}

static void test_metadata(void **state)
{
    static const char *const bad[] = {"",         "a",     "=b",      "a=b,",  ",a=b",
                                      "a=b,,c=d", "a=b,c", "a=b,a=c", "a=\xff"};
    json_t *o = json_object();

    assert_null(text_parse_metadata("b=2,a=1", o));
    assert_null(text_parse_metadata("c=,d=x=y", o));
    assert_owned(text_format_metadata(o), "a=1,b=2,c=,d=x=y");
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct err *e = text_parse_metadata(bad[i], o);
        if (!e)
            fail_msg("'%s' was accepted", bad[i]);
        assert_non_null(strstr(e->text, "malformed metadata specification '"));
        err_free(e);
        assert_int_equal(json_object_size(o), 4); /* unchanged, also by the good part */
    }
    struct err *e = text_parse_metadata("e=1,a=2", o); /* known from the first call */
    assert_non_null(e);
    err_free(e);
    json_decref(o);
    assert_owned(text_format_metadata(NULL), "");
    o = json_pack("{s:i}", "n", 3); /* not what a server may send */
    assert_owned(text_format_metadata(o), "n=?");
    json_decref(o);
}

static void test_times(void **state)
{
    assert_owned(text_format_time(0), "1970-01-01T00:00:00Z");
    assert_owned(text_format_time(1700000000.9), "2023-11-14T22:13:20Z");
    assert_owned(text_format_time(1e300), "?");
    assert_owned(text_format_time(-1e300), "?");
    assert_owned(text_format_duration(-5), "0s");
    assert_owned(text_format_duration(0.9), "0s");
    assert_owned(text_format_duration(119.9), "119s");
    assert_owned(text_format_duration(120), "2m");
    assert_owned(text_format_duration(7200), "2h");
    assert_owned(text_format_duration(48 * 3600), "2d");
    assert_owned(text_format_duration(1e300), "0s");
}

static void test_widths(void **state)
{
    assert_int_equal(text_width(""), 0);
    assert_int_equal(text_width("abc"), 3);
    assert_int_equal(text_width("größe"), 5);
    assert_int_equal(text_width("attached ✅"), 11);
    assert_int_equal(text_width("pending ⌛"), 10);
    assert_int_equal(text_width("日本"), 4);
    assert_int_equal(text_width("e\u0301"), 1); /* e and a combining accent */
    assert_int_equal(text_width("\xff\xc3"), 2);
}

static void test_safe(void **state)
{
    static const struct {
        const char *from, *to;
    } cases[] = {
        {"plain ü 日", "plain ü 日"},
        {"\x1b[31mred", "?[31mred"},
        {"a\nb\tc\x7f", "a?b?c?"},
        {"\xc2\x9b"
         "1m",
         "?1m"},
        {"\xe2\x80\xae", "?"},
        {"\xff\xfe", "??"},
        {"\xe2\x80", "??"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct str s = {0};
        text_append_safe(&s, cases[i].from);
        assert_string_equal(s.data, cases[i].to);
        str_done(&s);
    }
}

/* What a server says is shown, but cannot command the terminal; lines stay lines. */
static void test_harmless(void **state)
{
    CLEANUP_FREE char *text = ctl_harmless("a\x1b[2J\nb\rc\n\n\xc2\x9b");
    json_t *d = json_loads("{\"maximum_size\": 1e300}", 0, NULL);
    CLEANUP_FREE char *quota = ctl_quota(d);

    assert_string_equal(text, "a?[2J\nb?c\n\n?");
    assert_string_equal(quota, "<no quota>");
    json_decref(d);
}

static void test_answers(void **state)
{
    static const struct {
        long status;
        const char *text;
        enum err_code code;
        const char *says;
    } cases[] = {
        {200, "[", ERR_CORRUPT, "the answer of c:1 to GET /v1/x is not JSON"},
        {400, "{\"description\":\"bad\",\"errors\":[\"a\",7,\"b\"]}", ERR_INVALID, "bad a; b"},
        {400, "{\"description\":\"\"}", ERR_INVALID, "c:1 answered GET /v1/x with status 400"},
        {404, "<html>", ERR_UNSUPPORTED, "does not offer GET /v1/x"},
        {409, "{\"description\":\"no\"}", ERR_CONFLICT, "no"},
        {500, "\"17\"", ERR_INTERNAL, "incident 17"},
        {503, "", ERR_UNAVAILABLE, "status 503"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct api_answer a = {.peer = "c:1",
                               .method = "GET",
                               .path = "/v1/x",
                               .status = cases[i].status,
                               .text = cases[i].text,
                               .n = strlen(cases[i].text)};
        struct err *e = api_answer_read(&a, NULL);
        if (!err_is(e, cases[i].code) || !strstr(e->text, cases[i].says))
            fail_msg("%s: %s", cases[i].text, e ? e->text : "no error");
        err_free(e);
        a.passes = true; /* only a conflict is one that passes */
        e = api_answer_read(&a, NULL);
        assert_true(err_is(e, cases[i].status == 409 ? ERR_BUSY : cases[i].code));
        err_free(e);
    }
}

static void assert_printed(const struct table *t, const char *expected)
{
    char *text = NULL;
    size_t n = 0;
    FILE *f = open_memstream(&text, &n);

    assert_non_null(f);
    table_print(t, f);
    (void)fclose(f);
    assert_string_equal(text, expected);
    free(text);
}

static void test_table(void **state)
{
    struct table t;

    table_init(&t, 3, (const char *const[]){"ONE", "TWO", "THREE"});
    assert_printed(&t, "ONE  TWO  THREE\n");
    table_cell(&t, "日本");
    table_cell(&t, "x");
    table_cell(&t, "y");
    table_cell(&t, "a");
    table_cell(&t, NULL);
    table_cell(&t, "evil\ncell");
    table_cell(&t, "last");
    table_cell(&t, "");
    table_cell(&t, "");
    assert_printed(&t, "ONE   TWO  THREE\n"
                       "日本  x    y\n"
                       "a          evil?cell\n"
                       "last\n");
    table_done(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_sizes),    cmocka_unit_test(test_format_sizes),
        cmocka_unit_test(test_metadata), cmocka_unit_test(test_times),
        cmocka_unit_test(test_widths),   cmocka_unit_test(test_safe),
        cmocka_unit_test(test_harmless),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_table),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
