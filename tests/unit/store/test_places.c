/* The table of places against a plain list. */
#include "base/random.h"
#include "store/sqlite/places.h"
#include "store_test.h"

#define KEYS 3000

static char *key(uint64_t n)
{
    return xasprintf("key %llu", (unsigned long long)n);
}

/* How often the row is among those that may have the key. */
static size_t times_found(const struct places *p, const char *key, int64_t row)
{
    size_t at = 0, n = 0;

    for (int64_t r; (r = places_next(p, key, &at));)
        n += r == row;
    return n;
}

static void check(const struct places *p, const int64_t *rows)
{
    size_t n = 0;

    for (uint64_t k = 0; k < KEYS; k++) {
        CLEANUP_FREE char *name = key(k);

        n += rows[k] != 0;
        assert_int_equal(times_found(p, name, rows[k] ? rows[k] : (int64_t)k + 1), rows[k] != 0);
    }
    assert_int_equal(p->n, n);
    assert_true(p->n <= p->cap - p->cap / 4);
}

static void test_like_a_list(void **state)
{
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t own = seed;
        struct random r = random_seeded(&own);
        struct places p = {0};
        int64_t rows[KEYS] = {0};

        check(&p, rows);
        for (int i = 0; i < 20000; i++) {
            uint64_t k = random_below(&r, i % 5000 < 2500 ? KEYS : KEYS / 50);
            CLEANUP_FREE char *name = key(k);

            if (rows[k]) {
                places_remove(&p, name, rows[k]);
                rows[k] = 0;
            } else {
                rows[k] = i % 7 ? (int64_t)k + 1 : PLACE_ROW_MAX - 1 - (int64_t)k;
                places_add(&p, name, rows[k]);
            }
            if (i % 2000 == 0)
                check(&p, rows);
        }
        check(&p, rows);
        places_done(&p);
    }
}

/* Keys whose bits in the table are the same (here: one key with several rows) are all found, and go one by one. */
static void test_same_tag(void **state)
{
    struct places p = {0};

    for (int64_t row = 1; row <= 100; row++)
        places_add(&p, "same", row);
    for (int64_t row = 1; row <= 100; row += 2)
        places_remove(&p, "same", row);
    for (int64_t row = 1; row <= 100; row++)
        assert_int_equal(times_found(&p, "same", row), row % 2 == 0);
    assert_int_equal(p.n, 50);
    places_done(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_like_a_list),
        cmocka_unit_test(test_same_tag),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
