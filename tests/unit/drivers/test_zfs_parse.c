/* What zfs and zpool print, as OpenZFS 2 and zfs-fuse 0.7 do. No root needed. */
#include "base/str.h"
#include "drivers/zfs/zfs.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define ID "0a1b2c3d-0000-4000-8000-000000000001"
#define FS "tank/flocker/" ID

static const char listing[] = "tank/flocker\tguid\t14314037384845891344\n"
                              "tank/flocker\trefquota\t0\n"
                              "tank/flocker\tuserrefs\t-\n"
                              "tank/flocker\tflocker:role\t-\n"
                              "tank/flocker@all\tguid\t7\n"
                              "tank/flocker/" ID "\tguid\t637590335251077438\n"
                              "tank/flocker/" ID "\trefquota\t134217728\n"
                              "tank/flocker/" ID "\tflocker:role\tvolume\n"
                              "tank/flocker/" ID "\treceive_resume_token\t-\n"
                              "tank/flocker/" ID "@z\tguid\t1407069951065087482\n"
                              "tank/flocker/" ID "@z\tuserrefs\t1\n"
                              "tank/flocker/" ID "@z\tflocker:role\tvolume\n"
                              "tank/flocker/" ID "@z\tflocker:snapshot\t1\n"
                              "tank/flocker/" ID "@a\tguid\t18446744073709551615\n"
                              "tank/flocker/" ID "@a\tuserrefs\t0\n"
                              "tank/flocker/" ID "@a\tflocker:snapshot\t-\n"
                              "tank/flocker/" ID ".incoming\tflocker:role\t-\n"
                              "tank/flocker/" ID ".incoming\treceive_resume_token\t1-c740b4779-c0-789c63\n";

static void test_listing(void **state)
{
    CLEANUP_LISTING struct zfs_listing l = {0};

    zfs_listing_parse(listing, &l);
    assert_int_equal(l.n, 3);
    const struct zfs_fs *f = zfs_listing_find(&l, FS), *in = zfs_listing_find(&l, FS ".incoming");

    assert_non_null(f);
    assert_int_equal(f->role, ZFS_ROLE_VOLUME);
    assert_int_equal(f->limit, 134217728);
    assert_null(f->token);
    assert_int_equal(f->n_snapshots, 2);
    assert_string_equal(f->snapshots[0].name, "z"); /* in the order of the text */
    assert_true(f->snapshots[0].held && f->snapshots[0].ours);
    assert_true(f->snapshots[0].guid == 1407069951065087482u);
    assert_string_equal(f->snapshots[1].name, "a");
    assert_false(f->snapshots[1].held || f->snapshots[1].ours);
    assert_true(f->snapshots[1].guid == UINT64_MAX);
    assert_ptr_equal(zfs_fs_snapshot(f, "a"), &f->snapshots[1]);
    assert_null(zfs_fs_snapshot(f, "none"));
    assert_null(zfs_fs_snapshot(NULL, "a"));
    assert_non_null(in);
    assert_int_equal(in->role, ZFS_ROLE_NONE);
    assert_string_equal(in->token, "1-c740b4779-c0-789c63");
    assert_null(zfs_listing_find(&l, "tank"));
}

static void test_listing_hostile(void **state)
{
    static const char *const bad[] = {
        "",     "\n\n",   "x",        "x\ty",           "x\t\tz",          "\ty\tz",
        "x\ty\t", "x\ty\tz\tw", "@s\tguid\t1", "x@\tguid\t1", "second line of a value\n",
    };

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        CLEANUP_LISTING struct zfs_listing l = {0};

        zfs_listing_parse(bad[i], &l);
        for (size_t k = 0; k < l.n; k++)
            assert_int_equal(l.all[k].n_snapshots, 0);
    }
    CLEANUP_LISTING struct zfs_listing l = {0};

    zfs_listing_parse("a\trefquota\t99999999999999999999\na\tflocker:role\tking\na\treceive_resume_token\t--help\n"
                      "a@s\tguid\t-1\na@s\tuserrefs\tmany\n",
                      &l);
    assert_int_equal(l.n, 1);
    assert_int_equal(l.all[0].limit, 0);
    assert_int_equal(l.all[0].role, ZFS_ROLE_NONE);
    assert_null(l.all[0].token);
    assert_int_equal(l.all[0].snapshots[0].guid, 0);
    assert_false(l.all[0].snapshots[0].held);
}

static void check_can(const char *text, bool resume, bool compressed, bool set_many, bool estimate)
{
    struct zfs_can can;

    zfs_usage_parse(text, &can);
    assert_int_equal(can.resume, resume);
    assert_int_equal(can.parallel, resume); /* of the same age */
    assert_int_equal(can.compressed, compressed);
    assert_int_equal(can.set_many, set_many);
    assert_int_equal(can.estimate, estimate);
}

static void test_usage(void **state)
{
    check_can("\tset <property=value> <filesystem|volume|snapshot> ...\n"
              "\tsend [-RDp] [-[iI] snapshot] <snapshot>\n"
              "\treceive [-vnF] <filesystem|volume|snapshot>\n",
              false, false, false, false);
    check_can("\tset <property=value> ... <filesystem|volume|snapshot> ...\n"
              "\tsend [-DnPpRVvLecwhb] [-[i|I] snapshot] <snapshot>\n"
              "\treceive [-vMnsFhu] [-o <property>=<value>] ... [-x <property>] ...\n",
              true, true, true, true);
    check_can("\tset [-u] <property=value> ... <filesystem|volume|snapshot> ...\n"
              "\tsend [-DLPbcehnpsVvw] [-i|-I snapshot]\n"
              "\treceive [-vMnsFhu] [-o <property>=<value>] ... [-x <property>] ...\n",
              true, true, true, true);
    check_can("", false, false, false, false);
    check_can("\tsend [-RnpvD] [-[iI] snapshot] <snapshot>\n", false, false, false, false);
    check_can("\tset <property=value>\n <property=value> ...\n\tsend c\n\treceive [-v\ns]", false, false, false, false);
}

static void test_pool_line(void **state)
{
    char health[32] = "x";
    uint64_t guid = 1;

    assert_true(zfs_pool_line_parse("11351235642254037411\tONLINE\n", &guid, health));
    assert_true(guid == 11351235642254037411u);
    assert_string_equal(health, "ONLINE");
    assert_false(zfs_pool_line_parse("", &guid, health));
    assert_false(zfs_pool_line_parse("12\n", &guid, health));
    assert_false(zfs_pool_line_parse("12\t\n", &guid, health));
    assert_false(zfs_pool_line_parse("12\tONLINE\tmore", &guid, health));
    assert_false(zfs_pool_line_parse("-12\tONLINE", &guid, health));
    assert_false(zfs_pool_line_parse("12\tONLINEONLINEONLINEONLINEONLINEONL", &guid, health));
    assert_string_equal(health, "ONLINE");
}

static void test_words(void **state)
{
    struct uuid owner, dataset;
    uint64_t n = 5;

    assert_true(zfs_record_parse("42 tank", "tank", &n) && n == 42);
    assert_false(zfs_record_parse("42 tank", "tan", &n));
    assert_false(zfs_record_parse("42", "", &n));
    assert_false(zfs_record_parse("x tank", "tank", &n));
    assert_true(zfs_pool_name_is_valid("flocker"));
    assert_true(zfs_pool_name_is_valid("a-b_c.d:2"));
    assert_false(zfs_pool_name_is_valid(""));
    assert_false(zfs_pool_name_is_valid("-f"));
    assert_false(zfs_pool_name_is_valid("a/b"));
    assert_false(zfs_pool_name_is_valid("a b"));
    assert_true(zfs_token_is_valid("1-c740b4779-c0-789c63"));
    assert_false(zfs_token_is_valid(""));
    assert_false(zfs_token_is_valid("-t"));
    assert_false(zfs_token_is_valid("1-zz"));
    assert_false(zfs_token_is_valid("1-ab cd"));
    assert_true(zfs_old_name_parse("f1b2c3d4-0000-4000-8000-000000000002.default." ID, &owner, &dataset));
    assert_string_equal(UUID_STR(&dataset), ID);
    assert_string_equal(UUID_STR(&owner), "f1b2c3d4-0000-4000-8000-000000000002");
    assert_false(zfs_old_name_parse(ID, &owner, &dataset));
    assert_false(zfs_old_name_parse("x.default." ID, &owner, &dataset));
    assert_false(zfs_old_name_parse("f1b2c3d4-0000-4000-8000-000000000002.other." ID, &owner, &dataset));
}

static void test_token_contents(void **state)
{
    static const char text[] = "resume token contents:\nnvlist version: 0\n\tobject = 0x7\n\tbytes = 0x1323b58\n"
                               "\ttoguid = 0xb6a7cdcd4b\n\ttoname = tank/flocker/x@s1\n";

    assert_true(zfs_token_is_for(text, "tank/flocker/x@s1"));
    assert_false(zfs_token_is_for(text, "tank/flocker/x@s"));
    assert_false(zfs_token_is_for(text, "tank/flocker/x@s12"));
    assert_false(zfs_token_is_for("", ""));
    assert_false(zfs_token_is_for("toname = a@b\ntoname = c@d\n", "a@b"));
}

static void test_stream_size(void **state)
{
    uint64_t n = 5;

    assert_true(zfs_stream_size_parse("full\ttank/flocker/x@s1\t21022560\nsize\t21022560\n", &n) && n == 21022560);
    assert_true(zfs_stream_size_parse("incremental\ts1\ttank/x@s2\t624\nsize\t624", &n) && n == 624);
    assert_true(zfs_stream_size_parse("size\t0\n", &n) && n == 0);
    n = 5;
    assert_false(zfs_stream_size_parse("", &n));
    assert_false(zfs_stream_size_parse("full\ttank/x@s1\t21022560\n", &n));
    assert_false(zfs_stream_size_parse("total estimated size is 20.1M\n", &n));
    assert_false(zfs_stream_size_parse("size\t20.1M\n", &n));
    assert_false(zfs_stream_size_parse("size\t-1\n", &n));
    assert_false(zfs_stream_size_parse("size\t99999999999999999999\n", &n));
    assert_false(zfs_stream_size_parse("size\t1\nsize\t2\n", &n));
    assert_int_equal(n, 5);
}

static void test_error_codes(void **state)
{
    assert_int_equal(zfs_error_code("cannot create 'a': out of space\n"), ERR_NO_SPACE);
    assert_int_equal(zfs_error_code("cannot destroy 'a@b': dataset is busy\n"), ERR_BUSY);
    assert_int_equal(zfs_error_code("cannot open 'a/b': dataset does not exist\n"), ERR_NOT_FOUND);
    assert_int_equal(zfs_error_code("cannot open 'nope': no such pool\n"), ERR_NOT_FOUND);
    assert_int_equal(zfs_error_code("could not find any snapshots to destroy; check snapshot names.\n"), ERR_NOT_FOUND);
    assert_int_equal(zfs_error_code("The ZFS modules are not loaded.\nTry running ..."), ERR_UNAVAILABLE);
    assert_int_equal(
        zfs_error_code("connect: No such file or directory\nPlease make sure that the zfs-fuse daemon is running.\n"),
        ERR_UNAVAILABLE);
    assert_int_equal(zfs_error_code("cannot set property for 'a': size is less than current used or reserved space"),
                     ERR_LIMIT);
    assert_int_equal(
        zfs_error_code(
            "cannot receive new filesystem stream: destination a/b space quota exceeded."),
        ERR_NO_SPACE);
    assert_int_equal(zfs_error_code("cannot receive: invalid backup stream"), ERR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_listing),        cmocka_unit_test(test_listing_hostile),
        cmocka_unit_test(test_usage),          cmocka_unit_test(test_pool_line),
        cmocka_unit_test(test_words),          cmocka_unit_test(test_token_contents),
        cmocka_unit_test(test_error_codes),    cmocka_unit_test(test_stream_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
