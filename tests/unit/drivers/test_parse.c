/* Pure parsers: mount tables, marks, sizes, keys. No root needed. */
#include "base/str.h"
#include "drivers/driver.h"
#include "drivers/mark.h"
#include "drivers/mounts.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdio.h>

static void test_mount_line(void **state)
{
    static const char line[] =
        "36 35 98:1 /mnt\\0401/\\134x /a\\040b\\011c\\012d rw,noatime master:1 shared:2 - ext4 "
        "/dev/root\\040x rw,errors=continue";
    struct mount_table t = {0};

    assert_null(mount_text_parse(line, strlen(line), &t));
    assert_int_equal(t.n, 1);
    assert_int_equal(t.entries[0].id, 36);
    assert_int_equal(t.entries[0].major, 98);
    assert_int_equal(t.entries[0].minor, 1);
    assert_string_equal(t.entries[0].root, "/mnt 1/\\x");
    assert_string_equal(t.entries[0].target, "/a b\tc\nd");
    assert_string_equal(t.entries[0].fstype, "ext4");
    assert_string_equal(t.entries[0].source, "/dev/root x");
    assert_ptr_equal(mount_table_at(&t, "/a b\tc\nd"), &t.entries[0]);
    assert_null(mount_table_at(&t, "/a"));
    mount_table_done(&t);
}

static void test_mount_line_hostile(void **state)
{
    static const char *const bad[] = {
        "",
        " ",
        "36",
        "x 35 98:1 / / rw - ext4 a rw",
        "36 35 98 / / rw - ext4 a rw",
        "36 35 98:1x / / rw - ext4 a rw",
        "36 35 :1 / / rw - ext4 a rw",
        "99999999999999 35 98:1 / / rw - ext4 a rw",
        "36 35 98:99999999999 / / rw - ext4 a rw",
        "36 35 98:1 / relative rw - ext4 a rw",
        "36 35 98:1 / / rw",
        "36 35 98:1 / / rw shared:1",
        "36 35 98:1 / / rw shared:1 -",
        "36 35 98:1 / / rw - ",
        "-36 35 98:1 / / rw - ext4 a rw",
    };
    struct mount_table t = {0};

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct mount_entry m;

        if (mount_line_parse(bad[i], strlen(bad[i]), &m))
            fail_msg("taken: %s", bad[i]);
    }
    struct mount_entry m;
    assert_false(mount_line_parse("36 35 98:1 / /a\0b rw - ext4 a rw", 33, &m));
    /* An unreadable line must not look like "nothing is mounted". */
    CLEANUP_ERR struct err *e =
        mount_text_parse("36 35 98:1 / / rw - ext4 a rw\ngarbage\n", 38, &t);

    assert_true(err_is(e, ERR_CORRUPT));
    mount_table_done(&t);
}

/* Incomplete escapes stay as they are; every prefix of a good line is survived. */
static void test_mount_line_prefixes(void **state)
{
    static const char line[] = "36 35 98:1 /a\\04 /b\\999\\ rw - t\\0401 \\";
    struct mount_entry m;
    CLEANUP_FREE char *exact = NULL;

    for (size_t n = 0; n <= strlen(line); n++) {
        free(exact);
        exact = xmalloc(n + 1);
        memcpy(exact, line, n); /* so that a sanitizer sees a read beyond */
        if (mount_line_parse(exact, n, &m)) {
            struct mount_table t = {&m, 1, 1};

            assert_string_equal(m.root, "/a\\04");
            assert_string_equal(m.target, "/b\\999\\");
            t.entries = xmemdup(&m, sizeof(m));
            mount_table_done(&t);
        }
    }
}

static void test_mount_matching(void **state)
{
    static const char text[] = "1 0 0:39 /flocker/a/vol /x rw - btrfs d rw\n"
                               "2 0 0:39 /flocker/a/vol/sub /y rw - btrfs d rw\n"
                               "3 0 0:39 /flocker/a/vol//deleted /z rw - btrfs d rw\n"
                               "4 0 0:39 /flocker/a/vol2 /v rw - btrfs d rw\n"
                               "5 0 0:39 / /w rw - btrfs d rw\n"
                               "6 0 0:40 /flocker/a/vol /u rw - btrfs d rw\n"
                               "7 0 0:41 / /x rw - tmpfs d rw\n"
                               "8 0 0:41 / /x/y/z rw - tmpfs d rw\n";
    char root[] = "/flocker/a/vol", top[] = "/";
    const struct mount_spot spot = {0, 39, root}, whole = {0, 39, top};
    static const bool of[] = {true, true, true, false, false, false, false, false};
    struct mount_table t = {0};

    assert_null(mount_text_parse(text, strlen(text), &t));
    assert_int_equal(t.n, 8);
    for (size_t i = 0; i < t.n; i++) {
        assert_int_equal(mount_entry_is_of(&t.entries[i], &spot), of[i]);
        assert_int_equal(mount_entry_is_exactly(&t.entries[i], &spot), i == 0);
        assert_int_equal(mount_entry_is_of(&t.entries[i], &whole), i < 5);
    }
    assert_int_equal(mount_table_at(&t, "/x")->id, 7); /* the uppermost */
    assert_int_equal(mount_table_below(&t, "/x")->id, 8);
    assert_null(mount_table_below(&t, "/y"));
    mount_table_done(&t);
}

static void test_mark(void **state)
{
    static const char *const good[] = {
        "flocker-mark 1 owned 17 0 -\n",
        "flocker-mark 1 promoting 18446744073709551615 0 s-1\n",
        "flocker-mark 1 released 3 44 final-0\n",
    };
    static const char *const bad[] = {
        "",
        "flocker-mark 1 owned 17 0 -",
        "flocker-mark 1 owned 17 0 -\n\n",
        "flocker-mark 2 owned 17 0 -\n",
        "flocker-mark 1 none 17 0 -\n",
        "flocker-mark 1 owned 0 0 -\n",
        "flocker-mark 1 owned -1 0 -\n",
        "flocker-mark 1 owned 017 0 -\n",
        "flocker-mark 1 owned 18446744073709551616 0 -\n",
        "flocker-mark 1  owned 17 0 -\n",
        "flocker-mark 1 released 3 44 ../x\n",
        "flocker-mark 1 released 3 44 -x\n",
        "flocker-mark 1 released 3 44 a b\n",
        ("flocker-mark 1 released 3 44 "
         "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n"),
        "garbage\n",
    };
    struct volume_mark m;
    char text[MARK_TEXT_MAX];

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_true(mark_parse(good[i], &m));
        mark_format(&m, text);
        assert_string_equal(text, good[i]);
    }
    assert_int_equal(m.state, MARK_RELEASED);
    assert_int_equal(m.epoch, 3);
    assert_int_equal(m.transfer, 44);
    assert_string_equal(m.snapshot, "final-0");
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        if (mark_parse(bad[i], &m))
            fail_msg("taken: %s", bad[i]);
    }
}

static void test_size(void **state)
{
    static const struct {
        const char *text;
        uint64_t size;
    } good[] = {{"0", 0},          {"1000", 1000},      {"20GiB", 20ull << 30},
                {"64m", 64 << 20}, {"1TB", 1ull << 40}, {"7 K", 7 << 10},
                {"9b", 9},         {"3 kib", 3 << 10},  {"9223372036854775807", INT64_MAX}};
    static const char *const bad[] = {"",
                                      "x",
                                      "-1",
                                      "1.5G",
                                      "10X",
                                      "1 G B",
                                      "1ib",
                                      "G",
                                      " 1",
                                      "1Gi",
                                      "8388608T",
                                      "9223372036854775808",
                                      "99999999999999999999999"};
    uint64_t size;

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_true(driver_size_parse(good[i].text, &size));
        assert_int_equal(size, good[i].size);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        if (driver_size_parse(bad[i], &size))
            fail_msg("taken: %s", bad[i]);
    }
}

static void test_names(void **state)
{
    assert_true(snapshot_name_is_valid("s-1"));
    assert_true(snapshot_name_is_valid("0"));
    assert_false(snapshot_name_is_valid(""));
    assert_false(snapshot_name_is_valid("-a"));
    assert_false(snapshot_name_is_valid("."));
    assert_false(snapshot_name_is_valid("a/b"));
    assert_false(snapshot_name_is_valid("A"));
    assert_false(
        snapshot_name_is_valid("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
}

static struct err *try_options(const char *json)
{
    json_t *o = json_loads(json, 0, NULL);
    const struct storage_config c = {
        .dataset = o, .mount_root = "/nonexistent/x", .state_dir = "/"};
    const struct driver *d;

    assert_non_null(o);
    struct err *e = NULL;
    const char *backend = json_string_value(json_object_get(o, "backend"));

    if (backend && !(e = driver_find(backend, &d)))
        e = driver_check_options(d, o);
    if (!backend) {
        struct storage *s;

        e = storage_open(&c, &s);
    }
    json_decref(o);
    return e;
}

static void test_options(void **state)
{
    static const struct {
        const char *json, *text;
    } bad[] = {
        {"{\"backend\":\"zfz\"}", "'zfz' is neither a built-in backend nor a 3rd party module."},
        {"{}", "Configuration error: Required key backend is missing."},
        {"{\"backend\":1}", "Configuration error: Required key backend is missing."},
        {"{\"backend\":\"btrfs\",\"pol\":\"/x\"}",
         "Configuration error: backend btrfs has no key pol (it knows: backend, pool, pool_size)."},
        {"{\"backend\":\"btrfs\",\"pool\":7}",
         "Configuration error: key pool of backend btrfs must be a non-empty string."},
        {"{\"backend\":\"btrfs\",\"pool_size\":\"big\"}",
         "Configuration error: key pool_size of backend btrfs must be a size: a number of bytes, "
         "or text like 20GiB."},
        {"{\"backend\":\"loopback\",\"compute_instance_id\":\"\"}",
         "Configuration error: key compute_instance_id of backend loopback must be a non-empty "
         "string."},
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        CLEANUP_ERR struct err *e = try_options(bad[i].json);

        assert_true(err_is(e, ERR_INVALID));
        assert_string_equal(e->text, bad[i].text);
    }
    assert_null(try_options("{\"backend\":\"btrfs\",\"pool\":\"/p\",\"pool_size\":\"1GiB\"}"));
    assert_null(try_options("{\"backend\":\"loopback\",\"allocation_unit\":1024}"));
}

static void test_required_key(void **state)
{
    static const struct driver_key keys[] = {{"region", DRIVER_KEY_STRING, true}, {NULL}};
    const struct driver d = {.name = "cloud", .keys = keys};
    json_t *o = json_pack("{s:s}", "backend", "cloud");
    CLEANUP_ERR struct err *e = driver_check_options(&d, o);

    assert_true(err_is(e, ERR_INVALID));
    assert_string_equal(e->text, "Configuration error: Required key region is missing.");
    json_decref(o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_mount_line),
        cmocka_unit_test(test_mount_line_hostile),
        cmocka_unit_test(test_mount_line_prefixes),
        cmocka_unit_test(test_mount_matching),
        cmocka_unit_test(test_mark),
        cmocka_unit_test(test_size),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_options),
        cmocka_unit_test(test_required_key),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
