#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/backoff.h"
#include "base/crc32c.h"
#include "base/err.h"
#include "base/str.h"
#include "base/uuid.h"

#include <errno.h>

static void test_uuid_parse(void **state)
{
    struct uuid id;

    assert_true(uuid_parse("c2b7e0d4-5a61-4f3b-9c88-13579BDF2468", &id));
    assert_string_equal(UUID_STR(&id), "c2b7e0d4-5a61-4f3b-9c88-13579bdf2468");
    assert_true(uuid_parse_v4("c2b7e0d4-5a61-4f3b-9c88-13579bdf2468", &id));
    assert_false(uuid_parse_v4("c2b7e0d4-5a61-1f3b-9c88-13579bdf2468", &id)); /* version 1 */
    assert_false(uuid_parse_v4("c2b7e0d4-5a61-4f3b-7c88-13579bdf2468", &id)); /* other variant */
    assert_false(uuid_parse("c2b7e0d4-5a61-4f3b-9c88-13579bdf246", &id));
    assert_false(uuid_parse("c2b7e0d4-5a61-4f3b-9c88-13579bdf246g", &id));
    assert_false(uuid_parse("c2b7e0d405a61-4f3b-9c88-13579bdf2468", &id));
}

static void test_uuid_random(void **state)
{
    uint64_t seed = 1;
    struct random r = random_seeded(&seed);
    struct uuid a = uuid_random_v4(&r), b = uuid_random_v4(&r), parsed;

    assert_false(uuid_eq(&a, &b));
    assert_true(uuid_parse_v4(UUID_STR(&a), &parsed));
    assert_true(uuid_eq(&a, &parsed));
}

static void test_err(void **state)
{
    struct err *e = err_errno(ENOSPC, "write %s", "x");

    assert_true(err_is(e, ERR_NO_SPACE));
    e = err_wrap(e, "create dataset %d", 1);
    assert_string_equal(e->text, "create dataset 1: write x: No space left on device");
    assert_null(err_free(e));
    assert_null(err_wrap(NULL, "nothing"));
    for (int i = 0; i < ERR_CODE_MAX; i++)
        assert_int_equal(err_code_parse(err_code_name((enum err_code)i)), i);
    assert_int_equal(err_code_parse("bogus"), ERR_CODE_INVALID);
}

static void test_backoff(void **state)
{
    uint64_t seed = 7;
    struct random r = random_seeded(&seed);
    struct backoff b = {0};
    uint64_t expected = BACKOFF_FIRST_US;

    for (int i = 0; i < 12; i++) {
        backoff_fail(&b, 1000, &r);
        uint64_t delay = b.next_us - 1000;
        assert_in_range(delay, expected * 4 / 5, expected * 6 / 5);
        assert_true(delay <= BACKOFF_MAX_US);
        expected = expected * 2 < BACKOFF_MAX_US ? expected * 2 : BACKOFF_MAX_US;
    }
    backoff_reset(&b);
    assert_int_equal(b.next_us, 0);
}

static bool utf8(const char *s)
{
    return str_is_utf8(s, strlen(s));
}

static void test_utf8(void **state)
{
    assert_true(utf8("abc"));
    assert_true(utf8("\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\xb3"));
    assert_false(utf8("\xc0\xaf"));         /* overlong */
    assert_false(utf8("\xed\xa0\x80"));     /* surrogate */
    assert_false(utf8("\xf4\x90\x80\x80")); /* past U+10FFFF */
    assert_false(utf8("\xe2\x82"));         /* cut */
    assert_false(str_is_utf8("a\0b", 3));
}

/* Texts of all lengths around those at which the memory grows. */
static void test_str_appendf(void **state)
{
    struct str s = {0};
    size_t expected = 0;

    for (int n = 0; n < 300; n++) {
        str_appendf(&s, "%*s|", n, "x");
        expected += (size_t)(n ? n : 1) + 1;
        assert_int_equal(s.len, expected);
        assert_int_equal(strlen(s.data), expected);
        assert_string_equal(s.data + expected - 2, "x|");
    }
    str_done(&s);
}

static void test_crc32c(void **state)
{
    uint8_t bytes[20000];

    /* the published check value inverts before and after */
    assert_int_equal(~crc32c(~0u, "123456789", 9), 0xe3069283u);
    for (size_t i = 0; i < sizeof(bytes); i++)
        bytes[i] = (uint8_t)(i * i + 1);
    for (size_t i = 0; i < 20; i++) {
        for (size_t n = 0; n + i <= sizeof(bytes); n += n < 200 ? 1 : 977) {
            uint32_t whole = crc32c(7, bytes + i, n);

            assert_int_equal(whole, crc32c_tables(7, bytes + i, n));
            assert_int_equal(whole, crc32c(crc32c(7, bytes + i, n / 3), bytes + i + n / 3, n - n / 3));
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_str_appendf),
        cmocka_unit_test(test_uuid_parse), cmocka_unit_test(test_uuid_random),
        cmocka_unit_test(test_err),        cmocka_unit_test(test_backoff),
        cmocka_unit_test(test_utf8),       cmocka_unit_test(test_crc32c),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
