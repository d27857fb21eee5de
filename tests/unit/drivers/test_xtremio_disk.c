/* Finding an XtremIO volume among the block devices, and the ways to the array, in trees as hosts have them. */
#include "device_tree.h"

#include "drivers/xtremio/disk.h"
#include "drivers/xtremio/host.h"

#include "base/str.h"

#include <stdio.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define GIB (1ull << 30)
#define NAA "514f0c5447600351"
#define OTHER "514f0c5447600352"
#define ARRAY_A "iqn.2008-05.com.xtremio:a"
#define ARRAY_B "iqn.2008-05.com.xtremio:b"

static void add_path(const char *name, const char *vendor, const char *wwid, uint64_t bytes)
{
    tree_run("cd %s/sys/block && mkdir -p %s/device && echo '%s' >%s/device/wwid && echo '%s' "
        ">%s/device/vendor && "
        ": >%s/device/rescan && echo %llu >%s/size",
        tree_root, name, wwid, name, vendor, name, name, (unsigned long long)bytes / 512, name);
}

static void add_map(const char *name, const char *uuid, uint64_t bytes, const char *slaves)
{
    tree_run("cd %s/sys/block && mkdir -p %s/dm %s/slaves && echo '%s' >%s/dm/uuid && echo mpatha "
        ">%s/dm/name && echo %llu >%s/size && "
        "for s in %s; do ln -s ../../$s %s/slaves/$s; done",
        tree_root, name, name, uuid, name, name, (unsigned long long)bytes / 512, name, slaves, name);
}

static struct err *choose(bool multipath, char **ret_path)
{
    CLEANUP_XTREMIO_DISK struct xtremio_disk d = {0};

    TRY(xtremio_disk_look(tree_root, NAA, 4 * GIB, &d));
    return xtremio_disk_choose(tree_root, &d, multipath, ret_path);
}

/* `name` NULL: not there. */
static void finds(bool multipath, const char *name)
{
    CLEANUP_FREE char *path = NULL;
    CLEANUP_ERR struct err *e = choose(multipath, &path);

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

static void refuses(bool multipath, enum err_code code, const char *part)
{
    char *path = NULL;
    CLEANUP_ERR struct err *e = choose(multipath, &path);

    assert_null(path);
    if (!err_is(e, code) || !strstr(e->text, part))
        fail_msg("%s", e ? e->text : "found");
}

static void test_one_path(void **state)
{
    finds(false, NULL);
    add_path("sda", "ATA", "naa.5000c5007141fccf", 4 * GIB);
    add_path("sdb", "XtremIO ", "naa." OTHER, 4 * GIB);
    finds(false, NULL);
    add_path("sdc", "XtremIO ", "naa." NAA, 4 * GIB);
    finds(false, "sdc");
    finds(true, NULL); /* a map is to come */
}

static void test_wwid_must_be_whole(void **state)
{
    add_path("sda", "XtremIO ", "naa." NAA "0", 4 * GIB);
    add_path("sdb", "XtremIO ", "naa.514f0c544760035", 4 * GIB);
    add_path("sdc", "XtremIO ", "eui." NAA, 4 * GIB);
    add_path("sdd", "XtremIO ", "", 4 * GIB);
    finds(false, NULL);
}

static void test_paths_are_asked_anew(void **state)
{
    add_path("sda", "ATA", "naa.5000c5007141fccf", 4 * GIB);
    add_path("sdb", "XtremIO ", "naa." OTHER, 4 * GIB);
    add_path("sdc", "LIO-ORG", "naa." NAA, 4 * GIB);
    finds(false, "sdc");
    tree_run("cd %s/sys/block && test ! -s sda/device/rescan && test -s sdb/device/rescan && test -s "
        "sdc/device/rescan",
        tree_root);
}

static void test_size_must_be_right(void **state)
{
    add_path("sdb", "XtremIO ", "naa." NAA, 5 * GIB);
    refuses(false, ERR_CORRUPT, "instead of 4294967296");
}

/* The array took the volume away, and the disk says so. */
static void test_gone_path(void **state)
{
    CLEANUP_XTREMIO_DISK struct xtremio_disk d = {0};

    add_path("sdb", "XtremIO ", "naa." NAA, 0);
    finds(false, NULL);
    add_path("sdc", "XtremIO ", "naa." NAA, 4 * GIB);
    finds(false, "sdc");
    assert_null(xtremio_disk_look(tree_root, NAA, 4 * GIB, &d));
    assert_true(d.n_paths == 1 && d.n_gone == 1);
    assert_string_equal(d.gone[0], "sdb");
}

static void path_is(const char *name, const char *state)
{
    tree_run("echo %s >%s/sys/block/%s/device/state", state, tree_root, name);
}

/* `part` NULL: it is reached. */
static void reached(const char *name, const char *part)
{
    CLEANUP_FREE char *path = xasprintf("%s/dev/%s", tree_root, name);
    CLEANUP_ERR struct err *e = xtremio_disk_reached(tree_root, path);

    if (part ? !err_is(e, ERR_UNAVAILABLE) || !strstr(e->text, part) : e != NULL)
        fail_msg("%s: %s", name, e ? e->text : "reached");
}

static void test_ways_that_are_down(void **state)
{
    add_path("sdb", "XtremIO ", "naa." NAA, 4 * GIB);
    reached("sdb", NULL); /* a kernel that says nothing */
    path_is("sdb", "running");
    reached("sdb", NULL);
    path_is("sdb", "blocked");
    reached("sdb", "(blocked)");
    add_path("sdc", "XtremIO ", "naa." NAA, 4 * GIB);
    path_is("sdc", "running");
    add_map("dm-2", "mpath-3" NAA, 4 * GIB, "sdb sdc");
    reached("dm-2", NULL); /* one is enough */
    path_is("sdc", "transport-offline");
    reached("dm-2", "no way to the array is up");
    add_map("dm-3", "mpath-3" NAA, 4 * GIB, "");
    reached("dm-3", "(no path)");
}

static void test_map_before_path(void **state)
{
    add_path("sdb", "XtremIO ", "naa." NAA, 4 * GIB);
    add_path("sdc", "XtremIO ", "naa." NAA, 4 * GIB);
    refuses(false, ERR_CONFLICT, "no multipath map");
    finds(true, NULL);
    add_map("dm-0", "LVM-" NAA, 4 * GIB, "");
    add_map("dm-1", "mpath-3" OTHER, 4 * GIB, "");
    finds(true, NULL);
    add_map("dm-2", "mpath-3" NAA, 4 * GIB, "sdb sdc");
    finds(true, "dm-2");
    finds(false, "dm-2");
}

static void test_map_of_another(void **state)
{
    add_path("sdb", "XtremIO ", "naa." NAA, 4 * GIB);
    add_path("sdc", "XtremIO ", "naa." OTHER, 4 * GIB);
    add_map("dm-2", "mpath-3" NAA, 4 * GIB, "sdb sdc");
    refuses(true, ERR_CORRUPT, "its path sdc is not");
}

static void test_two_maps(void **state)
{
    add_map("dm-2", "mpath-3" NAA, 4 * GIB, "");
    add_map("dm-3", "mpath-3" NAA, 4 * GIB, "");
    refuses(true, ERR_CORRUPT, "neither is used");
}

static void test_map_size_must_be_right(void **state)
{
    add_map("dm-2", "mpath-3" NAA, 3 * GIB, "");
    refuses(true, ERR_CORRUPT, "instead of 4294967296");
}

/* A volume that was never mapped has no NAA: nothing is it. */
static void test_no_naa(void **state)
{
    CLEANUP_XTREMIO_DISK struct xtremio_disk d = {0};

    add_path("sdb", "XtremIO ", "naa.", 4 * GIB);
    add_map("dm-2", "mpath-3", 4 * GIB, "");
    assert_null(xtremio_disk_look(tree_root, "", 4 * GIB, &d));
    assert_int_equal(d.n_paths, 0);
    assert_null(d.map);
}

static void test_no_sysfs(void **state)
{
    struct xtremio_disk d = {0};
    CLEANUP_ERR struct err *e = xtremio_disk_look("/no/such", NAA, GIB, &d);

    assert_non_null(e);
}

static void test_luns_in_use(void **state)
{
    bool used[300] = {0};

    assert_null(xtremio_disk_luns(tree_root, used, ARRAY_SIZE(used)));
    tree_run("mkdir -p %s/sys/class/scsi_device/2:0:0:17 %s/sys/class/scsi_device/3:0:1:299 "
        "%s/sys/class/scsi_device/3:0:1:300 "
        "%s/sys/class/scsi_device/odd",
        tree_root, tree_root, tree_root, tree_root);
    assert_null(xtremio_disk_luns(tree_root, used, ARRAY_SIZE(used)));
    for (size_t i = 0; i < ARRAY_SIZE(used); i++)
        assert_int_equal(used[i], i == 17 || i == 299);
}

/* ---- the host ---- */

static void add_session(unsigned host, unsigned session, const char *target)
{
    tree_run("cd %s/sys && d=devices/platform/host%u/session%u/iscsi_session/session%u && mkdir -p $d "
        "class/iscsi_session "
        "class/scsi_host/host%u && echo %s >$d/targetname && : >class/scsi_host/host%u/scan && ln "
        "-s ../../$d class/iscsi_session/session%u",
        tree_root, host, session, session, host, target, host, session);
}

static void add_remote_port(unsigned host, unsigned number, const char *port, const char *target)
{
    tree_run("cd %s/sys && d=class/fc_remote_ports/rport-%u:0-%u && mkdir -p $d class/scsi_host/host%u "
        "&& echo %s >$d/port_name && "
        "echo %s >$d/scsi_target_id && : >class/scsi_host/host%u/scan",
        tree_root, host, number, host, port, target, host);
}

static void scanned(unsigned host, const char *wanted)
{
    tree_run("test \"$(cat %s/sys/class/scsi_host/host%u/scan)\" = '%s'", tree_root, host, wanted);
}

static struct err *scan(enum xtremio_protocol protocol, unsigned lun)
{
    struct xtremio_target all[] = {{.port = ARRAY_A, .portal = "10.0.0.1:3260"},
                                   {.port = ARRAY_B, .portal = "10.0.0.2:3260"},
                                   {.port = "21:00:00:24:ff:57:b2:36"}};

    return xtremio_host_scan(tree_root, protocol,
                             &(struct xtremio_targets){.all = all, .n = ARRAY_SIZE(all)}, lun);
}

static void test_scan_iscsi(void **state)
{
    CLEANUP_ERR struct err *e = scan(XTREMIO_ISCSI, 7);

    assert_true(err_is(e, ERR_UNAVAILABLE));
    assert_non_null(strstr(e->text, "iscsi_login"));
    add_session(2, 1, ARRAY_A);
    add_session(13, 2, ARRAY_B);
    add_session(4, 3, "iqn.2003-01.org.linux-iscsi:other");
    assert_null(scan(XTREMIO_ISCSI, 7));
    scanned(2, "0 - 7");
    scanned(13, "0 - 7");
    scanned(4, "");
}

static void session_is(unsigned session, const char *state)
{
    tree_run("echo %s >%s/sys/class/iscsi_session/session%u/state", state, tree_root, session);
}

static void test_sessions_that_are_down(void **state)
{
    add_session(2, 1, ARRAY_A);
    add_session(13, 2, ARRAY_B);
    session_is(1, "FAILED");
    session_is(2, "LOGGED_IN");
    assert_null(scan(XTREMIO_ISCSI, 7));
    scanned(2, "");
    scanned(13, "0 - 7");
    session_is(2, "FREE");
    CLEANUP_ERR struct err *e = scan(XTREMIO_ISCSI, 8);

    assert_true(err_is(e, ERR_UNAVAILABLE));
    assert_non_null(strstr(e->text, "is down (F"));
    scanned(13, "0 - 7");
}

static void test_scan_fc(void **state)
{
    CLEANUP_ERR struct err *e = scan(XTREMIO_FC, 7);

    assert_true(err_is(e, ERR_UNAVAILABLE));
    assert_non_null(strstr(e->text, "zones"));
    add_remote_port(8, 1, "0x21000024ff57b236", "3");
    add_remote_port(9, 2, "0x21000024ff57b236", "-1");
    add_remote_port(10, 0, "0x5006016841e0abcd", "0");
    assert_null(scan(XTREMIO_FC, 7));
    scanned(8, "0 3 7");
    scanned(9, "");
    scanned(10, "");
}

static void test_ports(void **state)
{
    CLEANUP_XTREMIO_PORTS struct xtremio_ports p = {0}, fc = {0};

    assert_null(xtremio_host_ports(tree_root, XTREMIO_ISCSI, &p));
    assert_int_equal(p.n, 0);
    tree_run("echo 'InitiatorName=iqn.1993-08.org.debian:01:abc' >%s/etc/iscsi/initiatorname.iscsi",
        tree_root);
    assert_null(xtremio_host_ports(tree_root, XTREMIO_ISCSI, &p));
    assert_true(p.n == 1 && xtremio_ports_has(&p, "iqn.1993-08.org.debian:01:abc"));
    assert_null(xtremio_host_ports(tree_root, XTREMIO_FC, &fc));
    assert_int_equal(fc.n, 0);
    tree_run("cd %s/sys && mkdir -p class/fc_host/host8 class/fc_host/host9 && echo 0x100000109b579ef6 "
        ">class/fc_host/host8/port_name && "
        "echo 0x100000109b579ef7 >class/fc_host/host9/port_name",
        tree_root);
    assert_null(xtremio_host_ports(tree_root, XTREMIO_FC, &fc));
    assert_true(fc.n == 2 && xtremio_ports_has(&fc, "10:00:00:10:9b:57:9e:f7"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_one_path, tree_empty),
        cmocka_unit_test_setup(test_wwid_must_be_whole, tree_empty),
        cmocka_unit_test_setup(test_paths_are_asked_anew, tree_empty),
        cmocka_unit_test_setup(test_size_must_be_right, tree_empty),
        cmocka_unit_test_setup(test_gone_path, tree_empty),
        cmocka_unit_test_setup(test_ways_that_are_down, tree_empty),
        cmocka_unit_test_setup(test_map_before_path, tree_empty),
        cmocka_unit_test_setup(test_map_of_another, tree_empty),
        cmocka_unit_test_setup(test_two_maps, tree_empty),
        cmocka_unit_test_setup(test_map_size_must_be_right, tree_empty),
        cmocka_unit_test_setup(test_no_naa, tree_empty),
        cmocka_unit_test_setup(test_no_sysfs, tree_empty),
        cmocka_unit_test_setup(test_luns_in_use, tree_empty),
        cmocka_unit_test_setup(test_scan_iscsi, tree_empty),
        cmocka_unit_test_setup(test_sessions_that_are_down, tree_empty),
        cmocka_unit_test_setup(test_scan_fc, tree_empty),
        cmocka_unit_test_setup(test_ports, tree_empty),
    };

    return tree_make() ? 2 : cmocka_run_group_tests(tests, NULL, tree_gone);
}
