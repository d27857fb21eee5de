/* Finding a Cinder volume among the block devices of a server, in trees as hypervisors make them. */
#include "device_tree.h"

#include "drivers/openstack/openstack.h"

#include "base/str.h"

#include <stdio.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define GIB (1ull << 30)
#define VOLUME "6f1c2a34-5b6d-4e7f-8a90-b1c2d3e4f506"
#define SHORT "6f1c2a34-5b6d-4e7f-8" /* as much as virtio-blk shows */
#define OTHER "7f1c2a34-5b6d-4e7f-8a90-b1c2d3e4f506"

/* `attribute` NULL: it says nothing of itself. */
static void add(const char *name, const char *attribute, const char *value, uint64_t bytes)
{
    tree_run("cd %s/sys/block && mkdir -p %s/device && echo %llu >%s/size", tree_root, name, (unsigned long long)(bytes / 512), name);
    if (attribute)
        tree_run("printf '%s' >%s/sys/block/%s/%s", value, tree_root, name, attribute);
}

static void expect(const char *attached_as, const char *name)
{
    CLEANUP_FREE char *path = NULL, *expected = name ? xasprintf("%s/dev/%s", tree_root, name) : NULL;

    assert_null(os_disk_find(tree_root, VOLUME, GIB, attached_as, &path));
    if (expected)
        assert_string_equal(path, expected);
    else
        assert_null(path);
}

static void expect_error(const char *attached_as, const char *words)
{
    CLEANUP_FREE char *path = NULL;
    struct err *e = os_disk_find(tree_root, VOLUME, GIB, attached_as, &path);

    assert_non_null(e);
    assert_int_equal(e->code, ERR_CORRUPT);
    assert_non_null(strstr(e->text, words));
    err_free(e);
}

/* Nova's name for it is a guess there. */
static void test_virtio(void **state)
{
    (void)state;
    add("vda", NULL, NULL, 20 * GIB);
    add("vdb", "serial", OTHER, GIB);
    expect("/dev/vdb", NULL);
    add("vdc", "serial", SHORT, GIB);
    expect("/dev/vdb", "vdc");
}

static void test_scsi(void **state)
{
    (void)state;
    add("sda", "device/vpd_pg80", "\\000\\200\\000\\044" OTHER, GIB);
    add("sdb", "device/vpd_pg80", "\\000\\200\\000\\044" VOLUME, GIB);
    add("sdc", "device/vpd_pg80", "\\000\\200", GIB); /* a page that is cut off */
    expect("/dev/sda", "sdb");
}

static void test_serial_must_be_whole(void **state)
{
    (void)state;
    add("vdb", "serial", "6f1c2a34", GIB);
    add("vdc", "serial", "", GIB);
    add("vdd", "serial", VOLUME "7", GIB);
    expect("/dev/vdb", NULL);
}

static void test_size_must_be_right(void **state)
{
    (void)state;
    add("vdb", "serial", SHORT, 2 * GIB);
    expect_error("/dev/vdb", "instead of 1073741824: not used");
}

static void test_two_of_them(void **state)
{
    (void)state;
    add("vdb", "serial", SHORT, GIB);
    add("vdc", "serial", SHORT, GIB);
    expect_error("/dev/vdb", "neither is used");
}

static void test_xen(void **state)
{
    (void)state;
    add("xvda", NULL, NULL, 20 * GIB);
    expect("/dev/xvdb", NULL);
    add("xvdb", NULL, NULL, GIB);
    expect("/dev/xvdb", "xvdb");
    expect("/dev/vdb", NULL); /* that name says nothing on Xen */
    expect("/dev/xvd", NULL);
    expect("/dev/xvdb1", NULL);
    expect("/dev/../xvdb", NULL);
    expect_error("/dev/xvda", "should be volume " VOLUME);
}

static void test_no_sysfs(void **state)
{
    CLEANUP_FREE char *path = NULL;

    (void)state;
    tree_run("rm -rf %s/sys", tree_root);
    struct err *e = os_disk_find(tree_root, VOLUME, GIB, "/dev/vdb", &path);
    assert_non_null(e);
    assert_null(path);
    err_free(e);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, tree_empty, tree_gone)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_virtio), TEST(test_scsi), TEST(test_serial_must_be_whole), TEST(test_size_must_be_right),
        TEST(test_two_of_them), TEST(test_xen), TEST(test_no_sysfs),
    };

    if (tree_make())
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
