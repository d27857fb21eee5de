/* The mover's frames and messages, friendly and hostile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/random.h"
#include "mover/mover_wire.h"

#include <stdio.h>

static void check_corrupt(struct err *e, int line)
{
    if (!err_is(e, ERR_CORRUPT))
        fail_msg("line %d: not refused", line);
    (void)err_free(e);
}
#define SET(field, text) (void)snprintf((field), sizeof(field), "%s", (text))
#define assert_corrupt(expr) check_corrupt((expr), __LINE__)

static void test_header(void **state)
{
    static const char payload[] = "payload";
    uint8_t bytes[MOVER_HEADER_SIZE], bad[MOVER_HEADER_SIZE];
    struct mover_header h;

    mover_header_encode(bytes, MOVER_DATA, payload, 7);
    assert_null(mover_header_decode(bytes, &h));
    assert_int_equal(h.type, MOVER_DATA);
    assert_int_equal(h.length, 7);
    assert_null(mover_payload_check(&h, payload));
    assert_corrupt(mover_payload_check(&h, "Payload"));
    h.type = MOVER_END; /* the checksum covers the type */
    assert_corrupt(mover_payload_check(&h, payload));

    static const struct {
        size_t at;
        uint8_t value;
    } damage[] = {{0, 0}, {0, MOVER_FRAME_MAX}, {0, 255}, {1, 1}, {2, 1}, {3, 1}, {4, 1}, {5, 5}};
    for (size_t i = 0; i < ARRAY_SIZE(damage); i++) {
        memcpy(bad, bytes, sizeof(bad));
        bad[damage[i].at] = damage[i].value;
        assert_corrupt(mover_header_decode(bad, &h));
    }
    memcpy(bad, bytes, sizeof(bad));
    memcpy(bad + 4, "\x00\x04\x00\x00", 4); /* exactly the limit */
    assert_null(mover_header_decode(bad, &h));
    assert_int_equal(h.length, MOVER_PAYLOAD_MAX);
    bad[7] = 1;
    assert_corrupt(mover_header_decode(bad, &h));
}

static void test_hello(void **state)
{
    struct mover_hello in = {.version_min = 1, .version_max = 3, .transfer = UINT64_MAX - 1}, out;
    struct str s = {0};

    memset(in.dataset.b, 0xa5, 16);
    SET(in.snapshot, "t7-1");
    mover_hello_encode(&in, &s);
    assert_null(mover_hello_decode(s.data, s.len, &out));
    assert_int_equal(out.version_min, 1);
    assert_int_equal(out.version_max, 3);
    assert_true(out.transfer == in.transfer && uuid_eq(&out.dataset, &in.dataset));
    assert_string_equal(out.snapshot, "t7-1");
    for (size_t n = 0; n < s.len; n++)
        assert_corrupt(mover_hello_decode(s.data, n, &out));
    str_append(&s, "what a later version adds");
    assert_null(mover_hello_decode(s.data, s.len, &out));
    s.data[0] ^= 1;
    assert_corrupt(mover_hello_decode(s.data, s.len, &out));
    str_done(&s);

    static const char *const names[] = {"", "../x", "a/b", "A", "a b", "a.b", "snap\n"};
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        SET(in.snapshot, names[i]);
        mover_hello_encode(&in, &s);
        assert_corrupt(mover_hello_decode(s.data, s.len, &out));
        str_done(&s);
    }
    in.version_min = 4; /* above the maximum */
    SET(in.snapshot, "a");
    mover_hello_encode(&in, &s);
    assert_corrupt(mover_hello_decode(s.data, s.len, &out));
    str_done(&s);
}

static void test_offer(void **state)
{
    struct mover_snapshot many[MOVER_SNAPSHOTS_MAX + 3];
    struct mover_offer in = {.version = 1, .snapshots = many, .n_snapshots = ARRAY_SIZE(many)}, out;
    struct str s = {0};

    for (size_t i = 0; i < ARRAY_SIZE(many); i++) {
        (void)snprintf(many[i].identity, sizeof(many[i].identity), "%0255zu", i);
        (void)snprintf(many[i].name, sizeof(many[i].name), "s%062zu", i);
    }
    mover_offer_encode(&in, &s); /* the longest that there can be fits into a frame, also with a point */
    assert_true(s.len + sizeof(struct mover_point) + 100 <= MOVER_PAYLOAD_MAX);
    assert_null(mover_offer_decode(s.data, s.len, &out));
    assert_int_equal(out.n_snapshots, MOVER_SNAPSHOTS_MAX);
    assert_string_equal(out.snapshots[0].name, many[3].name); /* the newest are kept */
    assert_string_equal(out.snapshots[MOVER_SNAPSHOTS_MAX - 1].identity,
                        many[ARRAY_SIZE(many) - 1].identity);
    mover_offer_done(&out);
    for (size_t n = 0; n < s.len; n += 97)
        assert_corrupt(mover_offer_decode(s.data, n, &out));
    str_append(&s, "x");
    assert_corrupt(mover_offer_decode(s.data, s.len, &out));
    s.data[2] = '\x7f'; /* more than allowed */
    assert_corrupt(mover_offer_decode(s.data, s.len, &out));
    str_done(&s);

    in.n_snapshots = 0;
    mover_offer_encode(&in, &s);
    assert_null(mover_offer_decode(s.data, s.len, &out));
    assert_int_equal(out.n_snapshots, 0);
    mover_offer_done(&out);
    str_done(&s);
    in.n_snapshots = 1;
    many[0].identity[0] = '\0'; /* no identity: would be equal to another without one */
    mover_offer_encode(&in, &s);
    assert_corrupt(mover_offer_decode(s.data, s.len, &out));
    str_done(&s);
}

static void test_point(void **state)
{
    struct mover_offer in = {.version = 2}, out;
    struct mover_point *p = &in.point;
    struct str s = {0};

    mover_offer_encode(&in, &s); /* none */
    assert_null(mover_offer_decode(s.data, s.len, &out));
    assert_string_equal(out.point.snapshot, "");
    mover_offer_done(&out);
    str_done(&s);
    SET(p->snapshot, "t7-2");
    SET(p->identity, "id-2");
    SET(p->base, "t7-1");
    p->offset = 1ull << 50;
    p->hash_low = 5;
    p->hash_high = UINT64_MAX;
    mover_offer_encode(&in, &s);
    assert_null(mover_offer_decode(s.data, s.len, &out));
    assert_string_equal(out.point.snapshot, "t7-2");
    assert_string_equal(out.point.identity, "id-2");
    assert_string_equal(out.point.base, "t7-1");
    assert_true(out.point.offset == p->offset && out.point.hash_low == 5 && out.point.hash_high == UINT64_MAX);
    assert_int_equal(mover_point_number(p), mover_point_number(&out.point));
    mover_offer_done(&out);
    for (size_t n = 0; n < s.len; n++)
        assert_corrupt(mover_offer_decode(s.data, n, &out));
    s.data[1] = 1; /* version 1 has no point */
    assert_corrupt(mover_offer_decode(s.data, s.len, &out));
    str_done(&s);

    struct mover_point other = *p;
    other.hash_low++;
    assert_int_not_equal(mover_point_number(p), mover_point_number(&other));
    other = *p;
    SET(other.token, "x");
    assert_int_not_equal(mover_point_number(p), mover_point_number(&other));

    p->offset = 0; /* neither a place nor a token */
    mover_offer_encode(&in, &s);
    assert_corrupt(mover_offer_decode(s.data, s.len, &out));
    str_done(&s);
    memset(p->token, 't', MOVER_TOKEN_MAX);
    mover_offer_encode(&in, &s);
    assert_null(mover_offer_decode(s.data, s.len, &out));
    assert_int_equal(strlen(out.point.token), MOVER_TOKEN_MAX);
    mover_offer_done(&out);
    str_done(&s);
    SET(p->base, "../x");
    mover_offer_encode(&in, &s);
    assert_corrupt(mover_offer_decode(s.data, s.len, &out));
    str_done(&s);
    SET(p->base, "");
    p->identity[0] = '\0';
    mover_offer_encode(&in, &s);
    assert_corrupt(mover_offer_decode(s.data, s.len, &out));
    str_done(&s);
}

static void test_begin_2(void **state)
{
    struct mover_begin in = {.base = "s1", .identity = "id-1", .from = MOVER_FROM_OFFSET, .offset = 77}, out;
    struct str s = {0};

    mover_begin_encode(&in, 2, &s);
    assert_null(mover_begin_decode(s.data, s.len, 2, &out));
    assert_true(out.from == MOVER_FROM_OFFSET && out.offset == 77);
    assert_corrupt(mover_begin_decode(s.data, s.len, 1, &out));
    for (size_t n = 0; n < s.len; n++)
        assert_corrupt(mover_begin_decode(s.data, n, 2, &out));
    s.data[s.len - 9] = MOVER_FROM_MAX;
    assert_corrupt(mover_begin_decode(s.data, s.len, 2, &out));
    s.data[s.len - 9] = MOVER_FROM_TOKEN; /* has no offset */
    assert_corrupt(mover_begin_decode(s.data, s.len, 2, &out));
    str_done(&s);
    in.offset = 0; /* that is the start */
    mover_begin_encode(&in, 2, &s);
    assert_corrupt(mover_begin_decode(s.data, s.len, 2, &out));
    str_done(&s);
}

static void test_digest(void **state)
{
    static const char *const bad[] = {"", "0123456789abcdef0123456789abcde", "0123456789abcdef0123456789abcdefa",
                                      "0123456789abcdef0123456789abcdeF", "0123456789abcdef0123456789abcde "};
    char out[STORAGE_DIGEST_SIZE];
    struct str s = {0};

    mover_digest_encode("0123456789abcdef0123456789abcdef", &s);
    assert_null(mover_digest_decode(s.data, s.len, out));
    assert_string_equal(out, "0123456789abcdef0123456789abcdef");
    for (size_t n = 0; n < s.len; n++)
        assert_corrupt(mover_digest_decode(s.data, n, out));
    str_append(&s, "x");
    assert_corrupt(mover_digest_decode(s.data, s.len, out));
    str_done(&s);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        mover_digest_encode(bad[i], &s);
        assert_corrupt(mover_digest_decode(s.data, s.len, out));
        str_done(&s);
    }
}

static void test_begin_end(void **state)
{
    struct mover_begin in = {.base = "s1", .identity = "id-1"}, out;
    struct mover_end end = {.length = 1ull << 60, .hash = 77}, end_out;
    struct str s = {0};

    mover_begin_encode(&in, 1, &s);
    assert_null(mover_begin_decode(s.data, s.len, 1, &out));
    assert_string_equal(out.base, "s1");
    assert_string_equal(out.identity, "id-1");
    for (size_t n = 0; n < s.len; n++)
        assert_corrupt(mover_begin_decode(s.data, n, 1, &out));
    str_done(&s);
    in.base[0] = '\0';
    mover_begin_encode(&in, 1, &s);
    assert_null(mover_begin_decode(s.data, s.len, 1, &out));
    assert_string_equal(out.base, "");
    str_done(&s);
    SET(in.base, "../s1");
    mover_begin_encode(&in, 1, &s);
    assert_corrupt(mover_begin_decode(s.data, s.len, 1, &out));
    str_done(&s);

    mover_end_encode(&end, &s);
    assert_null(mover_end_decode(s.data, s.len, &end_out));
    assert_true(end_out.length == end.length && end_out.hash == 77);
    assert_corrupt(mover_end_decode(s.data, s.len - 1, &end_out));
    str_append(&s, "x");
    assert_corrupt(mover_end_decode(s.data, s.len, &end_out));
    str_done(&s);
}

static struct err *round_trip(const struct err *e)
{
    struct str s = {0};

    mover_error_encode(e, &s);
    struct err *out = mover_error_decode(s.data, s.len);
    str_done(&s);
    return out;
}

static void test_error(void **state)
{
    struct err *in = err_new(ERR_NO_SPACE, "the pool is full"), *out = round_trip(in);

    assert_true(err_is(out, ERR_NO_SPACE));
    assert_string_equal(out->text, "the pool is full");
    (void)err_free(in);
    (void)err_free(out);

    struct str big = {0};
    for (int i = 0; i < 1500; i++)
        str_append(&big, "ü");
    in = err_new(ERR_IO, "x%s", big.data);
    out = round_trip(in);
    assert_true(err_is(out, ERR_IO) && strlen(out->text) <= MOVER_TEXT_MAX &&
                strlen(out->text) >= MOVER_TEXT_MAX - 1);
    assert_true(str_is_utf8(out->text, strlen(out->text)));
    (void)err_free(in);
    (void)err_free(out);
    str_done(&big);

    in = err_new(ERR_BUSY, "\xff\xfe"); /* cannot be told; the code can */
    out = round_trip(in);
    assert_true(err_is(out, ERR_BUSY));
    assert_true(str_is_utf8(out->text, strlen(out->text)));
    (void)err_free(in);
    (void)err_free(out);
    assert_corrupt(mover_error_decode("", 0));
    assert_corrupt(mover_error_decode("\0\2io\0\0", 6)); /* no text */
    out = mover_error_decode("\0\3odd\0\1x", 8);         /* a code of a later version */
    assert_true(err_is(out, ERR_IO));
    (void)err_free(out);
}

/* Random bytes into all decoders: refused or understood, never more memory than bounded. */
static void test_random(void **state)
{
    uint64_t seed = 5;
    struct random r = random_seeded(&seed);

    for (int i = 0; i < 50000; i++) {
        uint8_t bytes[64];
        size_t n = random_below(&r, sizeof(bytes) + 1);
        struct mover_header h;
        struct mover_hello hello;
        struct mover_offer offer = {0};
        struct mover_begin begin;
        struct mover_end end;
        char digest[STORAGE_DIGEST_SIZE];

        for (size_t k = 0; k < n; k++)
            bytes[k] = (uint8_t)(random_below(&r, 3) ? random_below(&r, 4) : random_next(&r));
        if (n >= MOVER_HEADER_SIZE)
            (void)err_free(mover_header_decode(bytes, &h));
        (void)err_free(mover_hello_decode(bytes, n, &hello));
        (void)err_free(mover_offer_decode(bytes, n, &offer));
        mover_offer_done(&offer);
        (void)err_free(mover_begin_decode(bytes, n, 1 + n % 2, &begin));
        (void)err_free(mover_end_decode(bytes, n, &end));
        (void)err_free(mover_digest_decode(bytes, n, digest));
        (void)err_free(mover_error_decode(bytes, n));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_header), cmocka_unit_test(test_hello),
        cmocka_unit_test(test_offer),  cmocka_unit_test(test_begin_end),
        cmocka_unit_test(test_point),  cmocka_unit_test(test_begin_2),
        cmocka_unit_test(test_digest), cmocka_unit_test(test_error),
        cmocka_unit_test(test_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
