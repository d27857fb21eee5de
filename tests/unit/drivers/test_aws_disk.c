/* Finding an EBS volume among the block devices, in trees as instances have them. */
#include "device_tree.h"

#include "drivers/aws/disk.h"

#include "base/str.h"

#include <stdio.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define GIB (1ull << 30)
#define VOLUME "vol-0123456789abcdef0"
#define SERIAL "vol0123456789abcdef0"
#define EBS "Amazon Elastic Block Store              "

/* As the kernel shows it: device is a link to the controller, whose texts are padded. */
static void add_nvme(const char *name, const char *model, const char *serial, uint64_t gib)
{
    tree_run("cd %s/sys/block && mkdir -p %s ../class/nvme/%s && ln -s ../../class/nvme/%s %s/device && "
        "echo '%s' >%s/device/model && echo '%s ' >%s/device/serial && echo %llu >%s/size",
        tree_root, name, name, name, name, model, name, serial, name,
        (unsigned long long)(gib * GIB / 512), name);
}

static void add_xen(const char *name, uint64_t gib)
{
    tree_run("cd %s/sys/block && mkdir -p %s && echo %llu >%s/size", tree_root, name,
        (unsigned long long)(gib * GIB / 512), name);
}

static uint64_t least = 4 * GIB;

/* `name` NULL: not there. */
static void finds(const char *attached_as, const char *name)
{
    CLEANUP_FREE char *path = NULL;
    CLEANUP_ERR struct err *e = aws_disk_find(tree_root, VOLUME, 4 * GIB, least, attached_as, &path);

    if (e)
        fail_msg("%s", e->text);
    if (!name) {
        assert_null(path);
        return;
    }
    CLEANUP_FREE char *wanted = xasprintf("%s/dev/%s", tree_root, name);
    assert_non_null(path);
    assert_string_equal(path, wanted);
}

static void refuses(const char *attached_as, const char *part)
{
    char *path = NULL;
    CLEANUP_ERR struct err *e = aws_disk_find(tree_root, VOLUME, 4 * GIB, least, attached_as, &path);

    assert_true(err_is(e, ERR_CORRUPT));
    assert_non_null(strstr(e->text, part));
    assert_null(path);
}

static void test_nvme(void **state)
{
    add_nvme("nvme0n1", EBS, "vol0000000000000000f", 8);
    finds("/dev/xvdaa", NULL);
    add_nvme("nvme26n1", EBS, SERIAL, 4);
    add_nvme("nvme2n1", EBS, "vol0123456789abcdef1", 4);
    finds("/dev/xvdaa", "nvme26n1");
}

/* The volume has grown, and the kernel does not know yet. */
static void test_while_it_grows(void **state)
{
    add_nvme("nvme26n1", EBS, SERIAL, 3);
    refuses("/dev/xvdaa", "instead of 4294967296");
    least = 2 * GIB;
    finds("/dev/xvdaa", "nvme26n1");
    least = 4 * GIB;
}

/* A drive of the instance itself says another model; its serial number means nothing to us. */
static void test_instance_store_is_none(void **state)
{
    add_nvme("nvme1n1", "Amazon EC2 NVMe Instance Storage", SERIAL, 4);
    finds("/dev/xvdaa", NULL);
}

static void test_serial_with_dash(void **state)
{
    add_nvme("nvme1n1", EBS, VOLUME, 4);
    finds("/dev/sdf", "nvme1n1");
}

static void test_serial_must_be_whole(void **state)
{
    add_nvme("nvme1n1", EBS, "vol0123456789abcdef", 4);
    add_nvme("nvme2n1", EBS, SERIAL "0", 4);
    add_nvme("nvme3n1", EBS, "", 4);
    finds("/dev/sdf", NULL);
}

static void test_size_must_be_right(void **state)
{
    add_nvme("nvme1n1", EBS, SERIAL, 5);
    refuses("/dev/sdf", "instead of 4294967296");
}

static void test_two_of_them(void **state)
{
    add_nvme("nvme1n1", EBS, SERIAL, 4);
    add_nvme("nvme2n1", EBS, SERIAL, 4);
    refuses("/dev/sdf", "neither is used");
}

static void test_xen(void **state)
{
    add_xen("xvda", 8);
    add_xen("xvdf", 4);
    add_xen("xvdaa", 4);
    finds("/dev/sdf", "xvdf");
    finds("/dev/xvdf", "xvdf");
    finds("/dev/xvdaa", "xvdaa");
    finds("/dev/sdg", NULL);
    finds("", NULL);
    finds("/dev/sd", NULL);
    finds("/dev/../x", NULL);
    finds("/dev/sdf1", NULL);
}

static void test_xen_size_must_be_right(void **state)
{
    add_xen("xvdf", 3);
    refuses("/dev/sdf", "instead of 4294967296");
}

/* On Nitro the name that was asked for may be another volume's. */
static void test_no_names_beside_nvme(void **state)
{
    add_nvme("nvme0n1", EBS, "vol0000000000000000f", 8);
    add_xen("xvdf", 4);
    finds("/dev/sdf", NULL);
}

static void test_no_sysfs(void **state)
{
    char *path = NULL;
    CLEANUP_ERR struct err *e = aws_disk_find("/no/such", VOLUME, 4 * GIB, 4 * GIB, "/dev/sdf", &path);

    assert_non_null(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_nvme, tree_empty),
        cmocka_unit_test_setup(test_while_it_grows, tree_empty),
        cmocka_unit_test_setup(test_instance_store_is_none, tree_empty),
        cmocka_unit_test_setup(test_serial_with_dash, tree_empty),
        cmocka_unit_test_setup(test_serial_must_be_whole, tree_empty),
        cmocka_unit_test_setup(test_size_must_be_right, tree_empty),
        cmocka_unit_test_setup(test_two_of_them, tree_empty),
        cmocka_unit_test_setup(test_xen, tree_empty),
        cmocka_unit_test_setup(test_xen_size_must_be_right, tree_empty),
        cmocka_unit_test_setup(test_no_names_beside_nvme, tree_empty),
        cmocka_unit_test_setup(test_no_sysfs, tree_empty),
    };

    return tree_make() ? 2 : cmocka_run_group_tests(tests, NULL, tree_gone);
}
