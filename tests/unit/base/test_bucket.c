#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/bucket.h"
#include "base/now.h"
#include "base/random.h"

#define S USEC_PER_SEC

static void test_burst_then_rate(void **state)
{
    struct bucket b = bucket_full((struct bucket_limits){.per_hour = 3600, .burst = 10}, 5 * S);

    assert_int_equal(bucket_take(&b, 100, 5 * S), 10);
    assert_int_equal(bucket_take(&b, 1, 5 * S), 0);
    assert_int_equal(bucket_next_us(&b, 5 * S), 6 * S);
    assert_int_equal(bucket_take(&b, 1, 6 * S - 1), 0);
    assert_int_equal(bucket_take(&b, 1, 6 * S), 1);
    assert_int_equal(bucket_take(&b, 100, 1000 * S), 10); /* it holds no more */
}

/* However it is asked: never more than burst and rate give. */
static void test_never_more(void **state)
{
    uint64_t seed = 3, now = 0, taken = 0;
    struct random r = random_seeded(&seed);
    struct bucket b = bucket_full((struct bucket_limits){.per_hour = 7200, .burst = 5}, now);

    for (int i = 0; i < 20000; i++) {
        now += random_below(&r, 700000);
        taken += bucket_take(&b, 1 + (unsigned)random_below(&r, 4), now);
        assert_true(taken <= 5 + now * 2 / S);
    }
    assert_true(taken + 1 >= now * 2 / S); /* and nothing is lost */
}

static void test_limits_change(void **state)
{
    struct bucket b = bucket_full((struct bucket_limits){.per_hour = 3600, .burst = 10}, 0);

    bucket_set(&b, (struct bucket_limits){.per_hour = 3600, .burst = 4}, 0);
    assert_int_equal(bucket_take(&b, 100, 0), 4);
    bucket_set(&b, (struct bucket_limits){.per_hour = 3600, .burst = 10}, 0);
    assert_int_equal(bucket_take(&b, 100, 0), 0); /* a larger one is not full for that */
    bucket_put(&b, 3, 0);
    assert_int_equal(bucket_take(&b, 100, 0), 3);
    bucket_put(&b, 30, 0);
    assert_int_equal(bucket_take(&b, 100, 0), 10);
    bucket_set(&b, (struct bucket_limits){.per_hour = 0, .burst = 10}, 0);
    assert_true(bucket_next_us(&b, 1000 * S) == USEC_NEVER);
    assert_int_equal(bucket_take(&b, 1, 1000 * S), 0);
}

/* Limits as large as can be, and a clock that stood still for years. */
static void test_no_overflow(void **state)
{
    struct bucket_limits most = {.per_hour = BUCKET_PER_HOUR_MAX, .burst = BUCKET_BURST_MAX};
    struct bucket b = bucket_full(most, 0);

    assert_int_equal(bucket_take(&b, UINT32_MAX, 0), BUCKET_BURST_MAX);
    assert_int_equal(bucket_take(&b, UINT32_MAX, UINT64_MAX / 2), BUCKET_BURST_MAX);
    assert_int_equal(bucket_take(&b, 1, 5), 0); /* a clock that goes back gives nothing */
}

static void test_throttled(void **state)
{
    struct bucket b = bucket_full((struct bucket_limits){.per_hour = 360000, .burst = 1000}, 0);
    uint64_t now = 100 * S;

    bucket_throttled(&b, 0, now);
    assert_int_equal(bucket_take(&b, 1, now), 0);
    assert_int_equal(bucket_next_us(&b, now), now + 500000);
    now += 500000;
    assert_int_equal(bucket_take(&b, 5, now), 1); /* one at a time */
    assert_int_equal(bucket_take(&b, 1, now), 0);
    bucket_throttled(&b, 7 * S, now); /* what they ask for counts, when it is longer */
    assert_int_equal(bucket_next_us(&b, now), now + 7 * S);
    bucket_throttled(&b, 0, now); /* told twice at once: once */
    assert_int_equal(b.gap_us, 1 * S);
    for (int i = 0; i < 10; i++)
        bucket_throttled(&b, 0, now += S);
    assert_int_equal(b.gap_us, BUCKET_GAP_MAX_US);
    now += 30 * S;
    assert_int_equal(bucket_take(&b, 5, now), 1);
    now += 80 * S; /* it passes */
    assert_int_equal(bucket_take(&b, 5, now), 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_burst_then_rate), cmocka_unit_test(test_never_more),
        cmocka_unit_test(test_limits_change),   cmocka_unit_test(test_no_overflow),
        cmocka_unit_test(test_throttled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
