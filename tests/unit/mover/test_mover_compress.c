/* When the mover compresses, what it takes back, and how streams share a limit of bandwidth. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/now.h"
#include "base/random.h"
#include "mover/mover_compress.h"
#include "mover/mover_limit.h"
#include "mover/mover_wire.h"

#include <stdio.h>
#include <unistd.h>
#include <zstd.h>

#define MB 1000000ull

/* Programs and headers, text, and noise, as measured on one core. */
static const struct mover_sample programs[MOVER_LEVEL_MAX] = {
    [MOVER_FASTEST] = {488, 810 * MB}, [MOVER_FAST] = {386, 649 * MB}, [MOVER_NORMAL] = {345, 561 * MB}};
static const struct mover_sample text[MOVER_LEVEL_MAX] = {
    [MOVER_FASTEST] = {840, 801 * MB}, [MOVER_FAST] = {560, 400 * MB}, [MOVER_NORMAL] = {450, 284 * MB}};
static const struct mover_sample noise[MOVER_LEVEL_MAX] = {
    [MOVER_FASTEST] = {1001, 3000 * MB}, [MOVER_FAST] = {1001, 3000 * MB}, [MOVER_NORMAL] = {1001, 2950 * MB}};
static const struct mover_sample nothing[MOVER_LEVEL_MAX];

static void test_choose(void **state)
{
    static const struct {
        const char *what;
        uint64_t link;
        const struct mover_sample *samples;
        enum mover_level level;
    } cases[] = {
        {"the network is not the bottleneck", 0, programs, MOVER_PLAIN},
        {"nothing is known of the data", 100 * MB, nothing, MOVER_PLAIN},
        {"1 Gbit/s", 118 * MB, programs, MOVER_NORMAL},
        {"a line", 2 * MB, text, MOVER_NORMAL},
        {"2.5 Gbit/s", 300 * MB, programs, MOVER_FAST},
        {"4 Gbit/s", 480 * MB, programs, MOVER_FASTEST},
        {"10 Gbit/s", 1180 * MB, programs, MOVER_PLAIN},
        {"text, 1 Gbit/s", 118 * MB, text, MOVER_NORMAL},
        {"text, 4 Gbit/s: what it gains is not worth it", 480 * MB, text, MOVER_FASTEST},
        {"text, 6 Gbit/s", 750 * MB, text, MOVER_PLAIN},
        {"noise", 10 * MB, noise, MOVER_PLAIN},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        enum mover_level l = mover_level_choose(cases[i].link, cases[i].samples);

        if (l != cases[i].level)
            fail_msg("%s: %d, not %d", cases[i].what, l, cases[i].level);
    }
}

static void test_link_rate(void **state)
{
    const uint64_t s = USEC_PER_SEC;
    static const uint64_t mib = 1u << 20;
    struct mover_window w = {.level = MOVER_PLAIN, .plain = mib, .wire = mib, .wall_us = s / 10};

    assert_int_equal(mover_link_rate(77, &w), 0); /* never waited: unknown */
    w.blocked_us = s / 100; /* hardly */
    assert_int_equal(mover_link_rate(0, &w), 0);
    w.blocked_us = s / 20; /* half of the time */
    assert_int_equal(mover_link_rate(0, &w), 10 * mib);
    w.idle_us = s / 20; /* and the other half there was nothing to send */
    assert_int_equal(mover_link_rate(0, &w), 20 * mib);
    w = (struct mover_window){.level = MOVER_NORMAL, .plain = 4 * mib, .wire = mib, .wall_us = s / 10};
    assert_int_equal(mover_link_rate(50 * mib, &w), 50 * mib); /* the storage is slow: as it was */
    w.packing_us = s / 11; /* the compressor is: the network can do more */
    assert_int_equal(mover_link_rate(10 * mib, &w), 12 * mib + mib / 2);
    assert_int_equal(mover_link_rate(100 * mib, &w), 125 * mib);
    w.blocked_us = s / 40; /* the network is */
    assert_int_equal(mover_link_rate(100 * mib, &w), 10 * mib);
    w = (struct mover_window){0};
    assert_int_equal(mover_link_rate(5, &w), 0);
}

/* A network of that speed and this data: the level in the end. It is told, not slept. */
static size_t send_all(uint64_t link, const uint8_t *data, size_t n, size_t *ret_first_packed)
{
    struct mover_packer *p = mover_packer_new();
    size_t wire = 0, at;
    bool any = false;

    for (at = 0; at < n; at += MOVER_PAYLOAD_MAX) {
        const uint8_t *bytes = data + at;
        size_t size = MOVER_PAYLOAD_MAX;

        if (mover_pack(p, data + at, MOVER_PAYLOAD_MAX, &bytes, &size) && !any) {
            any = true;
            *ret_first_packed = at;
        }
        uint64_t us = link ? size * USEC_PER_SEC / link : 0;
        (void)usleep((useconds_t)us);
        mover_pack_sent(p, MOVER_PAYLOAD_MAX, size, us);
        wire += size;
    }
    (void)mover_packer_free(p);
    return wire;
}

static void test_pack(void **state)
{
    size_t n = 32u << 20, first = 0;
    CLEANUP_FREE uint8_t *words = xmalloc(n), *random = xmalloc(n);
    uint64_t seed = 3;
    struct random r = random_seeded(&seed);

    for (size_t i = 0; i < n; i += 8) {
        uint64_t v = random_next(&r);
        char word[9];

        memcpy(random + i, &v, 8);
        (void)snprintf(word, sizeof(word), "%06llu%c ", (unsigned long long)(v % 1000), 'a' + (char)(v % 7));
        memcpy(words + i, word, 8);
    }
    size_t part = n / 2, wire = send_all(10 * MB, words, part, &first); /* so slow that it pays on a machine that is busy, too */
    assert_true(wire < part * 6 / 10);
    assert_true(first >= 1u << 20); /* not before something is known */
    assert_int_equal(send_all(0, words, n, &first), n); /* nobody waits: nothing to gain */
    assert_int_equal(send_all(100 * MB, random, n, &first), n);
}

static void check_refused(const uint8_t *bytes, size_t n, size_t size, int line)
{
    CLEANUP_FREE uint8_t *to = xmalloc(size);
    struct mover_unpacker *u = NULL;
    size_t got;
    CLEANUP_ERR struct err *e = mover_unpack(&u, bytes, n, to, size, &got);

    if (!err_is(e, ERR_CORRUPT))
        fail_msg("line %d: taken", line);
    (void)mover_unpacker_free(u);
}
#define assert_refused(bytes, n, size) check_refused((bytes), (n), (size), __LINE__)

static void test_unpack(void **state)
{
    static uint8_t plain[2 * MOVER_PAYLOAD_MAX], packed[ZSTD_COMPRESSBOUND(sizeof(plain))], back[MOVER_PAYLOAD_MAX];
    struct mover_unpacker *u = NULL;
    size_t got;

    size_t n = ZSTD_compress(packed, sizeof(packed), plain, MOVER_PAYLOAD_MAX, 1);
    assert_null(mover_unpack(&u, packed, n, back, sizeof(back), &got)); /* exactly as much as there may be */
    assert_int_equal(got, MOVER_PAYLOAD_MAX);
    assert_memory_equal(back, plain, got);
    for (size_t k = 0; k < n; k++)
        assert_refused(packed, k, sizeof(back));
    assert_refused(packed, n, sizeof(back) - 1);
    memcpy(packed + n, packed, n); /* two frames */
    assert_refused(packed, 2 * n, sizeof(back) * 2);
    assert_refused(packed, n + 1, sizeof(back));
    assert_refused((const uint8_t *)"\x26\xb5\x2f\xfd............", 16, sizeof(back)); /* zstd 0.6 */
    assert_refused((const uint8_t *)"\x50\x2a\x4d\x18\x00\x00\x00\x00", 8, sizeof(back)); /* skippable */
    n = ZSTD_compress(packed, sizeof(packed), plain, 0, 1);
    assert_refused(packed, n, sizeof(back)); /* empty */
    n = ZSTD_compress(packed, sizeof(packed), plain, sizeof(plain), 1);
    assert_true(n < 1000);
    assert_refused(packed, n, sizeof(back)); /* a bomb */
    for (size_t k = 4; k < n; k++) { /* damaged: refused, or something of a bounded size */
        packed[k] ^= 0x55;
        (void)err_free(mover_unpack(&u, packed, n, back, sizeof(back), &got));
        packed[k] ^= 0x55;
    }
    (void)mover_unpacker_free(u);
}

static void test_limit(void **state)
{
    struct mover_limit l = {.rate = 1000000}, none = {0};
    uint64_t now = 50 * USEC_PER_SEC, last = 0;

    assert_int_equal(mover_limit_take(&none, now, 1u << 30), now);
    assert_int_equal(mover_limit_piece(&none, 4096), 4096);
    /* What was not used counts for a tenth of a second, however long ago the last one was. */
    assert_int_equal(mover_limit_take(&l, now, 100000), now);
    assert_int_equal(mover_limit_take(&l, now, 100000), now);
    assert_int_equal(mover_limit_take(&l, now, 100000), now + 100000);
    for (int i = 0; i < 100; i++) { /* in any second no more than a second's worth, and in order */
        uint64_t at = mover_limit_take(&l, now, 50000);

        assert_true(at >= last + (last ? 50000 : 0));
        last = at;
    }
    assert_int_equal(last, now + 200000 + 99 * 50000);
    l = (struct mover_limit){.rate = 8u << 20};
    assert_int_equal(mover_limit_piece(&l, 256 << 10), 256 << 10);
    l.rate = 1u << 20;
    assert_int_equal(mover_limit_piece(&l, 256 << 10), 128 << 10);
    l.rate = 1;
    assert_int_equal(mover_limit_piece(&l, 256 << 10), 32 << 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_choose), cmocka_unit_test(test_link_rate), cmocka_unit_test(test_pack),
        cmocka_unit_test(test_unpack), cmocka_unit_test(test_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
