#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/grpc_wire.h"

#include <nghttp2/nghttp2.h>
#include <stdio.h>

static void test_assembler(void **state)
{
    static const uint8_t wire[] = {0, 0, 0, 0, 3, 'a', 'b', 'c', 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 'z'};

    for (size_t step = 1; step <= sizeof(wire); step++) {
        struct grpc_assembler a = {0};
        size_t lengths[4], count = 0;
        for (size_t at = 0; at < sizeof(wire); at += step) {
            const uint8_t *p = wire + at;
            size_t n = step < sizeof(wire) - at ? step : sizeof(wire) - at;
            while (n) {
                enum grpc_assembled r = grpc_assembler_feed(&a, 3, &p, &n);
                if (r == GRPC_ASSEMBLED_MESSAGE) {
                    lengths[count++] = a.length;
                    grpc_assembler_next(&a);
                } else {
                    assert_int_equal(r, GRPC_ASSEMBLED_PART);
                }
            }
        }
        assert_int_equal(count, 3);
        assert_int_equal(lengths[0] * 100 + lengths[1] * 10 + lengths[2], 301);
        assert_true(grpc_assembler_is_empty(&a));
        grpc_assembler_done(&a);
    }
}

static void test_assembler_memory_follows_bytes(void **state)
{
    struct grpc_assembler a = {0};
    const uint8_t wire[] = {0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3};
    const uint8_t *p = wire;
    size_t n = sizeof(wire);

    assert_int_equal(grpc_assembler_feed(&a, UINT32_MAX, &p, &n), GRPC_ASSEMBLED_PART);
    assert_true(a.capacity <= 4096); /* announced 4 GB, sent 3 bytes */
    grpc_assembler_done(&a);
}

static void text_round(const char *text, const char *wire)
{
    CLEANUP_STR struct str out = {0};

    grpc_text_encode(text, &out);
    assert_string_equal(out.data, wire);
    CLEANUP_FREE char *back = grpc_text_decode(out.data, out.len);
    assert_string_equal(back, text);
}

static void test_text(void **state)
{
    text_round("plain", "plain");
    text_round("100%", "100%25");
    text_round("a\nb", "a%0Ab");
    text_round("\xc3\xa9", "%C3%A9");
    CLEANUP_FREE char *odd = grpc_text_decode("%", 1);
    assert_string_equal(odd, "%");
    CLEANUP_FREE char *half = grpc_text_decode("%4", 2);
    assert_string_equal(half, "%4");
    CLEANUP_FREE char *bad = grpc_text_decode("%zz%FF%00x", 10);
    assert_string_equal(bad, "%zz??x");
    CLEANUP_STR struct str out = {0};
    CLEANUP_FREE char *much = xcalloc(1, 2 * GRPC_MAX_TEXT + 1);
    memset(much, 'm', 2 * GRPC_MAX_TEXT);
    grpc_text_encode(much, &out);
    assert_int_equal(out.len, GRPC_MAX_TEXT);
}

static void test_timeout(void **state)
{
    uint64_t us;
    char buf[16];

    assert_true(grpc_timeout_parse("5S", 2, &us) && us == 5000000);
    assert_true(grpc_timeout_parse("99999999H", 9, &us) && us == 99999999ull * 3600000000ull);
    assert_true(grpc_timeout_parse("10n", 3, &us) && us == 0);
    assert_false(grpc_timeout_parse("123456789S", 10, &us));
    assert_false(grpc_timeout_parse("S", 1, &us));
    assert_false(grpc_timeout_parse("1", 1, &us));
    assert_false(grpc_timeout_parse("-1S", 3, &us));
    assert_false(grpc_timeout_parse("1s", 2, &us));
    for (uint64_t t = 1; t < 1ull << 50; t = t * 3 + 1) {
        grpc_timeout_format(t, buf);
        assert_true(grpc_timeout_parse(buf, strlen(buf), &us));
        assert_true(us <= t && us >= t - t / 1000);
    }
}

static void test_codes(void **state)
{
    for (int i = 0; i < GRPC_STATUS_MAX; i++) {
        char text[4];
        snprintf(text, sizeof(text), "%d", i);
        assert_int_equal(grpc_status_parse(text, strlen(text)), i);
        assert_non_null(grpc_status_name((enum grpc_status)i));
    }
    assert_int_equal(grpc_status_parse("17", 2), GRPC_UNKNOWN);
    assert_int_equal(grpc_status_parse("", 0), GRPC_UNKNOWN);
    assert_int_equal(grpc_status_parse("0x", 2), GRPC_UNKNOWN);
    assert_int_equal(grpc_status_of_reset(NGHTTP2_REFUSED_STREAM), GRPC_UNAVAILABLE);
    assert_int_equal(grpc_status_of_reset(NGHTTP2_ENHANCE_YOUR_CALM), GRPC_RESOURCE_EXHAUSTED);
    assert_int_equal(grpc_status_of_http(503), GRPC_UNAVAILABLE);
    assert_int_equal(grpc_status_of_http(404), GRPC_UNIMPLEMENTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_assembler), cmocka_unit_test(test_assembler_memory_follows_bytes),
        cmocka_unit_test(test_text),      cmocka_unit_test(test_timeout),
        cmocka_unit_test(test_codes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
