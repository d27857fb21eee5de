/* The ordered set against a plain table of what is in it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/mem.h"
#include "base/random.h"
#include "base/sorted.h"

#include <stdbool.h>

#define KEYS 20000u

/* Item k points to element k; so its key is its address. */
static char places[KEYS];

struct model {
    struct sorted set;
    bool in[KEYS];
    size_t n;
};

static int compare(const void *key, const void *item)
{
    const char *a = key, *b = item;

    return a < b ? -1 : a > b;
}

static void put(struct model *m, size_t key)
{
    if (m->in[key])
        return;
    sorted_add(&m->set, compare, &places[key], &places[key]);
    m->in[key] = true;
    m->n++;
}

static void drop(struct model *m, size_t key)
{
    sorted_remove(&m->set, compare, &places[key]); /* also when it is not there */
    m->n -= m->in[key];
    m->in[key] = false;
}

static void check_walk(const struct model *m, const void *after, size_t first)
{
    struct sorted_place place = sorted_after(&m->set, compare, after);

    for (size_t k = first; k < KEYS; k++) {
        if (m->in[k])
            assert_ptr_equal(sorted_next(&m->set, &place), &places[k]);
    }
    assert_null(sorted_next(&m->set, &place));
    assert_null(sorted_next(&m->set, &place));
}

static void check(const struct model *m)
{
    size_t n = 0;

    check_walk(m, NULL, 0);
    for (size_t k = 0; k < KEYS; k += 997) /* there or not */
        check_walk(m, &places[k], k + 1);
    check_walk(m, &places[KEYS - 1], KEYS);
    for (size_t i = 0; i < m->set.n_chunks; i++) {
        assert_in_range(m->set.chunks[i]->n, 1, SORTED_CHUNK);
        n += m->set.chunks[i]->n;
    }
    assert_int_equal(n, m->n);
    /* Never more chunks than two of which one is half full need. */
    assert_true(m->set.n_chunks <= 4 * (m->n / SORTED_CHUNK + 1));
}

static void test_nothing(void **state)
{
    struct model *m = xcalloc(1, sizeof(*m));

    (void)state;
    check(m);
    drop(m, 5);
    put(m, 5);
    check(m);
    drop(m, 4);
    drop(m, 6);
    check(m);
    drop(m, 5);
    check(m);
    assert_int_equal(m->set.n_chunks, 0);
    sorted_done(&m->set);
    free(m);
}

/* What comes in order leaves no gaps; from behind it may. */
static void test_in_order(void **state)
{
    struct model *m = xcalloc(1, sizeof(*m));

    (void)state;
    for (size_t k = 0; k < KEYS; k++)
        put(m, k);
    check(m);
    assert_int_equal(m->set.n_chunks, (KEYS + SORTED_CHUNK - 1) / SORTED_CHUNK);
    for (size_t k = 0; k < KEYS; k++)
        drop(m, k);
    check(m);
    for (size_t k = KEYS; k-- > 0;)
        put(m, k);
    check(m);
    for (size_t k = KEYS; k-- > 0;)
        drop(m, k);
    check(m);
    assert_int_equal(m->set.n_chunks, 0);
    sorted_done(&m->set);
    free(m);
}

static void test_all_at_once(void **state)
{
    static const size_t sizes[] = {0, 1, SORTED_CHUNK, SORTED_CHUNK + 1, 3000};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct model *m = xcalloc(1, sizeof(*m));
        void **items = xcalloc(3000, sizeof(void *));
        for (m->n = 0; m->n < sizes[i]; m->n++) {
            items[m->n] = &places[3 * m->n];
            m->in[3 * m->n] = true;
        }
        sorted_fill(&m->set, items, m->n);
        free(items);
        check(m);
        put(m, 4);
        put(m, 9001);
        drop(m, 3);
        check(m);
        sorted_done(&m->set);
        free(m);
    }
}

static void test_in_any_order(void **state)
{
    struct model *m = xcalloc(1, sizeof(*m));
    uint64_t seed = 4711;
    struct random r = random_seeded(&seed);

    (void)state;
    for (unsigned round = 0; round < 12; round++) {
        /* Growing, then shrinking, some parts more than others. */
        uint64_t adds = round % 4 < 2 ? 80 : 15;
        for (unsigned i = 0; i < 10000; i++) {
            size_t key = (size_t)random_below(&r, round % 3 ? KEYS : KEYS / 8);
            if (random_below(&r, 100) < adds)
                put(m, key);
            else
                drop(m, key);
        }
        check(m);
    }
    sorted_done(&m->set);
    check(&(struct model){0});
    free(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_in_order),
        cmocka_unit_test(test_all_at_once),
        cmocka_unit_test(test_in_any_order),
    };

    return cmocka_run_group_tests_name("sorted", tests, NULL, NULL);
}
