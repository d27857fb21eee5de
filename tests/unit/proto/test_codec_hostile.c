/* Bytes that no honest peer sends. Anything may be the answer but a crash, a leak or a value
 * outside its limits; run it with the sanitizers on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sample.h"

#include "base/random.h"

/* Decodes and, when that works, checks that the result survives a second way over the wire
 * unchanged. */
static bool agent_takes(const void *bytes, size_t n)
{
    CLEANUP_AGENT_MESSAGE struct agent_message m = {0};
    CLEANUP_AGENT_MESSAGE struct agent_message again = {0};
    CLEANUP_STR struct str first = {0};
    CLEANUP_STR struct str second = {0};
    CLEANUP_ERR struct err *e = codec_agent_decode(bytes, n, &m);

    if (e) {
        assert_true(err_is(e, ERR_CORRUPT));
        return false;
    }
    codec_agent_encode(&m, &first);
    assert_null(codec_agent_decode(first.data, first.len, &again));
    codec_agent_encode(&again, &second);
    assert_int_equal(first.len, second.len);
    if (first.len)
        assert_memory_equal(first.data, second.data, first.len);
    return true;
}

static bool control_takes(const void *bytes, size_t n)
{
    CLEANUP_CONTROL_MESSAGE struct control_message m = {0};
    CLEANUP_CONTROL_MESSAGE struct control_message again = {0};
    CLEANUP_STR struct str first = {0};
    CLEANUP_STR struct str second = {0};
    CLEANUP_ERR struct err *e = codec_control_decode(bytes, n, &m);

    if (e) {
        assert_true(err_is(e, ERR_CORRUPT));
        return false;
    }
    codec_control_encode(&m, &first);
    assert_null(codec_control_decode(first.data, first.len, &again));
    codec_control_encode(&again, &second);
    assert_int_equal(first.len, second.len);
    if (first.len)
        assert_memory_equal(first.data, second.data, first.len);
    return true;
}

/* A heap copy of exactly n bytes, so that a read past the end is seen. */
static bool takes(bool control, const void *bytes, size_t n)
{
    CLEANUP_FREE void *copy = xmalloc(n);

    if (n)
        memcpy(copy, bytes, n);
    return control ? control_takes(copy, n) : agent_takes(copy, n);
}

static void sample_bytes(bool control, int kind, struct str *out)
{
    if (control) {
        CLEANUP_CONTROL_MESSAGE struct control_message m =
            sample_control_message((enum control_message_kind)kind);
        codec_control_encode(&m, out);
    } else {
        CLEANUP_AGENT_MESSAGE struct agent_message m =
            sample_agent_message((enum agent_message_kind)kind);
        codec_agent_encode(&m, out);
    }
}

static int kinds(bool control)
{
    return control ? (int)CONTROL_MESSAGE_KIND_MAX : (int)AGENT_MESSAGE_KIND_MAX;
}

static void test_nothing(void **state)
{
    assert_false(takes(false, "", 0));
    assert_false(takes(true, "", 0));
}

static void test_truncated(void **state)
{
    for (int side = 0; side < 2; side++) {
        for (int kind = 0; kind < kinds(side); kind++) {
            CLEANUP_STR struct str wire = {0};
            sample_bytes(side, kind, &wire);
            for (size_t n = 0; n < wire.len; n++)
                assert_false(takes(side, wire.data, n)); /* one field: its length no longer fits */
            assert_true(takes(side, wire.data, wire.len));
        }
    }
}

static void test_mutated(void **state)
{
    uint64_t seed = 42;
    struct random r = random_seeded(&seed);
    size_t taken = 0, refused = 0;

    for (int round = 0; round < 40000; round++) {
        bool control = round % 2;
        CLEANUP_STR struct str wire = {0};
        sample_bytes(control, (int)random_below(&r, (uint64_t)kinds(control)), &wire);
        size_t changes = 1 + random_below(&r, 4);
        for (size_t i = 0; i < changes; i++) {
            size_t at = random_below(&r, wire.len);
            if (random_below(&r, 2))
                wire.data[at] = (char)random_next(&r);
            else
                wire.data[at] = (char)(wire.data[at] ^ (1 << random_below(&r, 8)));
        }
        if (takes(control, wire.data, wire.len))
            taken++;
        else
            refused++;
    }
    assert_true(taken > 100); /* both ways are really walked */
    assert_true(refused > 1000);
}

static void test_random_bytes(void **state)
{
    uint64_t seed = 7;
    struct random r = random_seeded(&seed);

    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[64];
        size_t n = random_below(&r, sizeof(bytes) + 1);
        for (size_t i = 0; i < n; i++)
            bytes[i] = (uint8_t)random_next(&r);
        takes(round % 2, bytes, n);
    }
}

static void test_unknown_fields_are_ignored(void **state)
{
    /* field 1 (hello-like length-delimited messages) with an inner field 99, and an outer field 100
     */
    for (int side = 0; side < 2; side++) {
        for (int kind = 0; kind < kinds(side); kind++) {
            CLEANUP_STR struct str wire = {0};
            CLEANUP_STR struct str grown = {0};
            static const char inner[] = {(char)0x9a, 0x06, 0x03, 'n', 'e', 'w'};
            static const char outer[] = {(char)0xa0, 0x06, 0x2a};
            sample_bytes(side, kind, &wire);
            /* tag and length, varints of one or two bytes each; body */
            size_t tag = (uint8_t)wire.data[0] & 0x80 ? 2 : 1, head = tag + ((uint8_t)wire.data[tag] & 0x80 ? 2 : 1);
            size_t body = wire.len - head + sizeof(inner);
            const char varint[] = {(char)((body & 0x7f) | 0x80), (char)(body >> 7)};
            str_append_bytes(&grown, wire.data, tag);
            str_append_bytes(&grown, varint, sizeof(varint));
            str_append_bytes(&grown, wire.data + head, wire.len - head);
            str_append_bytes(&grown, inner, sizeof(inner));
            str_append_bytes(&grown, outer, sizeof(outer));
            assert_true(takes(side, grown.data, grown.len));
        }
    }
}

static void test_unknown_message_is_refused(void **state)
{
    static const char unknown[] = {(char)0x9a, 0x06, 0x00}; /* field 99, empty */

    assert_false(takes(false, unknown, sizeof(unknown)));
    assert_false(takes(true, unknown, sizeof(unknown)));
}

static void test_strings_with_nul_are_refused(void **state)
{
    assert_true(takes(false,
                      "\x2a\x05\x0a\x03"
                      "abc",
                      7)); /* container_gone */
    assert_false(takes(false,
                       "\x2a\x05\x0a\x03"
                       "a\0c",
                       7));
    assert_true(takes(true,
                      "\x3a\x05\x0a\x03"
                      "abc",
                      7)); /* refused */
    assert_false(takes(true,
                       "\x3a\x05\x0a\x03"
                       "a\0c",
                       7));
}

static void test_wrong_uuid_length_is_refused(void **state)
{
    assert_true(takes(true,
                      "\x1a\x12\x0a\x10"
                      "0123456789abcdef",
                      20)); /* order_none */
    assert_false(takes(true,
                       "\x1a\x11\x0a\x0f"
                       "0123456789abcde",
                       19));
    assert_false(takes(true,
                       "\x1a\x13\x0a\x11"
                       "0123456789abcdefg",
                       21));
}

static void append_varint(struct str *s, uint64_t v)
{
    do {
        char byte = (char)((v & 0x7f) | (v > 0x7f ? 0x80 : 0));
        str_append_bytes(s, &byte, 1);
        v >>= 7;
    } while (v);
}

/* 4 million empty strings in 8 MB would take 30 times that in memory. */
static void test_many_tiny_parts_are_refused(void **state)
{
    size_t pairs = 4u << 20;
    CLEANUP_STR struct str arguments = {0};
    CLEANUP_STR struct str wire = {0};

    for (size_t i = 0; i < pairs; i++)
        str_append_bytes(&arguments, "\x0a\x00", 2);
    struct str heads[3] = {{0}, {0}, {0}};
    str_append_bytes(&heads[0], "\x42", 1); /* Container.command_line */
    append_varint(&heads[0], arguments.len);
    str_append_bytes(&heads[1], "\x12", 1); /* ContainerOrder.config */
    append_varint(&heads[1], arguments.len + heads[0].len);
    str_append_bytes(&heads[2], "\x22", 1); /* ControlMessage.container_order */
    append_varint(&heads[2], arguments.len + heads[0].len + heads[1].len);
    for (int i = 2; i >= 0; i--) {
        str_append_bytes(&wire, heads[i].data, heads[i].len);
        str_done(&heads[i]);
    }
    str_append_bytes(&wire, arguments.data, arguments.len);

    struct control_message m;
    CLEANUP_ERR struct err *e = codec_control_decode(wire.data, wire.len, &m);
    assert_true(err_is(e, ERR_CORRUPT));
    assert_non_null(strstr(e->text, "too complex"));
}

static void test_too_long_is_refused_unread(void **state)
{
    struct agent_message m;
    CLEANUP_ERR struct err *e = codec_agent_decode("", CODEC_MAX_MESSAGE + 1, &m);

    assert_true(err_is(e, ERR_CORRUPT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nothing),
        cmocka_unit_test(test_truncated),
        cmocka_unit_test(test_mutated),
        cmocka_unit_test(test_random_bytes),
        cmocka_unit_test(test_unknown_fields_are_ignored),
        cmocka_unit_test(test_unknown_message_is_refused),
        cmocka_unit_test(test_strings_with_nul_are_refused),
        cmocka_unit_test(test_wrong_uuid_length_is_refused),
        cmocka_unit_test(test_many_tiny_parts_are_refused),
        cmocka_unit_test(test_too_long_is_refused_unread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
