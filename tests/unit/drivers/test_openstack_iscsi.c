/* Attachments that this host makes itself over iSCSI. On a machine's own kernel the programs and the kernel are stood in for: what is said to
 * iscsiadm, what is in its records, what of the kernel's devices is taken for the volume. With FLOCKER_TEST_ISCSI=kernel (lab/uml-zfs run --iscsi) it
 * is the real ones, with a target as Cinder's LIO driver makes it: one for each volume, CHAP, LUN 0 or 1. */
#include "device_tree.h"

#include "drivers/iscsi.h"
#include "drivers/openstack/openstack.h"
#include "drivers/wait.h"

#include "base/str.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define VOLUME "26a7aa09-5e48-4ddb-a5e8-4f0c8e9f4c0d"
#define IQN "iqn.2010-10.org.openstack:volume-" VOLUME
#define OTHER "iqn.2010-10.org.openstack:volume-61d3c9b4-4cbb-4c08-bd4c-5f9d1a6e2f11"
#define MIB (1ull << 20)
#define SIZE (64 * MIB)
#define SECRET "d/4Kq+secret=" /* what Cinder makes has no spaces */

static struct openstack host = {.host_root = tree_root};
static const struct os_volume volume = {.id = VOLUME, .size = SIZE};

static struct os_connection connection(const char *portal, unsigned lun)
{
    struct os_connection c = {.kind = OS_CONNECT_ISCSI, .n_portals = 1, .chap_user = "flocker", .chap_password = SECRET};

    (void)snprintf(c.portals[0].address, sizeof(c.portals[0].address), "%s", portal);
    (void)snprintf(c.portals[0].iqn, sizeof(c.portals[0].iqn), IQN);
    c.portals[0].lun = lun;
    return c;
}

static void ok(struct err *e)
{
    if (e)
        fail_msg("%s", e->text);
}

static void fails(struct err *e, enum err_code code, const char *part)
{
    if (!err_is(e, code) || !strstr(e->text, part))
        fail_msg("%s", e ? e->text : "no error");
    err_free(e);
}

/* `name` NULL: it is not there yet. */
static void connects(const struct os_connection *c, const char *name)
{
    CLEANUP_FREE char *path = NULL;

    ok(os_host_connect(&host, &volume, c, &path));
    if (!name) {
        assert_null(path);
        return;
    }
    CLEANUP_FREE char *wanted = xasprintf("%s/dev/%s", host.host_root, name);

    assert_non_null(path);
    assert_string_equal(path, wanted);
}

/* ---- stood in for ---- */

static int tree(void **state)
{
    (void)tree_empty(state);
    /* As the real one: a record has the portal group at its end, or has not; sessions are the kernel's to tell. */
    tree_run("mkdir -p %s/bin %s/sys/class/iscsi_session %s/sys/class/scsi_host/host2 && : >%s/sys/class/scsi_host/host2/scan && : >%s/log && "
             "cat >%s/bin/iscsiadm <<'EOF'\n"
             "#!/bin/sh\n"
             "cd %s && echo \"$*\" >>log && umask 077\n"
             "record=etc/iscsi/nodes/$4/${6%%:*},3260$(cat group 2>/dev/null)\n"
             "case \"$7 $8\" in\n"
             "'-o new') mkdir -p \"${record%%/*}\" && if [ -e group ]; then mkdir -p $record && : >$record/default; else : >$record; fi ;;\n"
             "'-o update') [ -e \"$record\" ] || exit 21 ;;\n"
             "'-o delete') [ -e \"$record\" ] && rm -r \"$record\" || exit 21 ;;\n"
             "'--login ') [ \"$6\" != 10.0.0.9:3260 ] || exit 8\n"
             "  [ ! -e refuse ] || { echo 'iscsiadm: authorization failure' >&2; exit 24; }\n"
             "  s=session$(ls sys/class/iscsi_session | wc -l); d=sys/devices/platform/host2/$s/iscsi_session/$s; mkdir -p $d\n"
             "  echo $4 >$d/targetname; ln -s ../../${d#sys/} sys/class/iscsi_session/$s ;;\n"
             "'--logout ') rm $(grep -lx $4 sys/class/iscsi_session/*/targetname | sed s,/targetname,,) || exit 21 ;;\n"
             "*) exit 7 ;;\n"
             "esac\nEOF\nchmod +x %s/bin/iscsiadm",
             tree_root, tree_root, tree_root, tree_root, tree_root, tree_root, tree_root, tree_root);
    return 0;
}

static void add_disk(const char *name, const char *address, uint64_t bytes)
{
    tree_run("cd %s/sys && d=devices/platform/host2/session0/target2:0:0/%s/block/%s && mkdir -p $d/device && : >$d/device/rescan && "
             "echo %llu >$d/size && ln -s ../$d block/%s",
             tree_root, address, name, (unsigned long long)bytes / 512, name);
}

static void log_is(const char *wanted)
{
    tree_run("cd %s && sed 's/^-m node -T [^ ]* -p [^ ]* //' log >said && echo '%s' | cmp - said", tree_root, wanted);
}

static void test_log_in(void **state)
{
    struct os_connection c = connection("10.0.0.5:3260", 1);

    (void)state;
    tree_run("echo ,1 >%s/group", tree_root);
    connects(&c, NULL); /* the LUN was looked for, and has not come yet */
    log_is("-o new\n-o update -n node.startup -v manual\n-o update -n node.session.scan -v manual\n--login");
    tree_run("cd %s && grep -q '^-m node -T " IQN " -p 10.0.0.5:3260 ' log && ! grep -rq 'secret' log && "
             "grep -qx 'node.session.auth.password = " SECRET "' etc/iscsi/nodes/" IQN "/10.0.0.5,3260,1/default && "
             "grep -qx 'node.session.auth.authmethod = CHAP' etc/iscsi/nodes/" IQN "/10.0.0.5,3260,1/default && "
             "[ \"$(cat sys/class/scsi_host/host2/scan)\" = '0 - 1' ]",
             tree_root);
    connects(&c, NULL);
    tree_run("cd %s && [ $(grep -c login log) = 1 ]", tree_root); /* there is a session */
}

static void test_log_in_without_a_group(void **state)
{
    struct os_connection c = connection("10.0.0.5:3260", 1);

    (void)state;
    connects(&c, NULL);
    tree_run("grep -qx 'node.session.auth.username = flocker' %s/etc/iscsi/nodes/" IQN "/10.0.0.5,3260", tree_root);
}

static void test_refused(void **state)
{
    struct os_connection c = connection("10.0.0.5:3260", 1);
    char *path;

    (void)state;
    tree_run(": >%s/refuse", tree_root);
    fails(os_host_connect(&host, &volume, &c, &path), ERR_IO, "authorization failure");
    assert_null(path);
    tree_run("cd %s && ! grep -rq secret etc", tree_root); /* no record stays */
}

static void test_disk(void **state)
{
    struct os_connection c = connection("10.0.0.5:3260", 1);
    char *path;

    (void)state;
    connects(&c, NULL);
    add_disk("sdb", "2:0:0:0", SIZE); /* another LUN */
    add_disk("sdd", "2:0:0:11", SIZE);
    connects(&c, NULL);
    add_disk("sdc", "2:0:0:1", SIZE);
    connects(&c, "sdc");
    tree_run("test -s %s/sys/block/sdc/device/rescan && test ! -s %s/sys/block/sdb/device/rescan", tree_root, tree_root);
    tree_run("echo %llu >%s/sys/block/sdc/size", SIZE / 512 + 1, tree_root);
    fails(os_host_connect(&host, &volume, &c, &path), ERR_CORRUPT, "instead of 67108864");
    assert_null(path);
    struct os_volume growing = volume;

    growing.status = OS_EXTENDING;
    ok(os_host_connect(&host, &growing, &c, &path));
    assert_non_null(path);
    free(path);
    tree_run("echo 0 >%s/sys/block/sdc/size", tree_root); /* it is going away */
    connects(&c, NULL);
}

/* A disk of another target's is not it, whatever its LUN. */
static void test_another_target(void **state)
{
    struct os_connection c = connection("10.0.0.5:3260", 1);

    (void)state;
    tree_run("cd %s && bin/iscsiadm -m node -T " OTHER " -p 10.0.0.5:3260 --login", tree_root);
    add_disk("sdc", "2:0:0:1", SIZE);
    connects(&c, NULL);
    connects(&c, NULL);
    tree_run("rm %s/sys/class/iscsi_session/session1", tree_root);
    ok(os_host_disconnect(&host, &volume, &c));
    tree_run("cd %s/sys && [ -e class/iscsi_session/session0 ] && [ ! -e block/sdc/device/delete ]", tree_root);
}

static void test_log_out(void **state)
{
    struct os_connection c = connection("10.0.0.5:3260", 1);

    (void)state;
    ok(os_host_disconnect(&host, &volume, &c)); /* never connected */
    connects(&c, NULL);
    ok(os_host_disconnect(&host, &volume, &c));
    tree_run("cd %s && ! grep -rq secret etc && [ ! -e sys/class/iscsi_session/session0 ]", tree_root);
}

/* A host without iscsiadm could not connect, and must not keep the volume because it cannot log out. */
static void test_no_programs(void **state)
{
    struct os_connection c = connection("10.0.0.5:3260", 1);
    CLEANUP_FREE char *path = xstrdup(getenv("PATH")), *found = NULL;

    (void)state;
    assert_int_equal(setenv("PATH", "/nowhere", 1), 0);
    struct err *refused = os_host_connect(&host, &volume, &c, &found), *e = os_host_disconnect(&host, &volume, &c);

    assert_int_equal(setenv("PATH", path, 1), 0);
    fails(refused, ERR_UNAVAILABLE, "iscsiadm");
    ok(e);
}

/* The second of two portals answers. */
static void test_two_portals(void **state)
{
    struct os_connection c = connection("10.0.0.9:3260", 1);

    (void)state;
    c.portals[1] = c.portals[0];
    (void)snprintf(c.portals[1].address, sizeof(c.portals[1].address), "10.0.0.5:3260");
    c.n_portals = 2;
    connects(&c, NULL);
    tree_run("cd %s && [ -e sys/class/iscsi_session/session0 ] && [ $(grep -c -- --login log) = 2 ] && [ -e etc/iscsi/nodes/" IQN "/10.0.0.5,3260 ] && "
             "[ ! -e etc/iscsi/nodes/" IQN "/10.0.0.9,3260 ]",
             tree_root);
}

/* ---- the real ones ---- */

#define LIO "/sys/kernel/config/target"
#define DISK LIO "/core/iblock_0/vol"
#define GROUP LIO "/iscsi/" IQN "/tpgt_1"

static char *place;

static int lio_up(void **state)
{
    (void)state;
    host.host_root = (char *)"";
    place = xasprintf("/tmp/flocker-lun");
    tree_run("truncate -s %llu %s && d=$(losetup -f --show %s) && mkdir -p " DISK " && cd " DISK " && echo -n udev_path=$d >control && "
             "echo $d >udev_path && echo 1 >enable", SIZE, place, place);
    tree_run("mkdir -p " GROUP "/lun/lun_0 && ln -s " DISK " " GROUP "/lun/lun_0/vol && "
             "mkdir " GROUP "/np/127.0.0.1:3260 && echo 1 >" GROUP "/attrib/authentication && "
             "i=$(sed -n s/InitiatorName=//p /etc/iscsi/initiatorname.iscsi) && mkdir " GROUP "/acls/$i && cd " GROUP "/acls/$i && "
             "echo -n flocker >auth/userid && echo -n '" SECRET "' >auth/password && mkdir lun_1 && "
             "ln -s " GROUP "/lun/lun_0 lun_1/x && echo 1 >" GROUP "/enable");
    return 0;
}

static char *wait_connected(const struct os_connection *c)
{
    struct wait w = wait_for(30);
    char *path = NULL;

    do {
        ok(os_host_connect(&host, &volume, c, &path));
    } while (!path && wait_more(&w));
    assert_non_null(path);
    return path;
}

static void assert_nothing_left(void)
{
    bool there;

    ok(iscsi_has_session("", IQN, &there));
    assert_false(there);
    tree_run("! grep -rq '" SECRET "' /etc/iscsi/nodes");
}

static void test_real(void **state)
{
    struct os_connection c = connection("127.0.0.1:3260", 1);
    CLEANUP_FREE char *path = wait_connected(&c);

    (void)state;
    CLEANUP_FREE char *again = wait_connected(&c); /* as each use asks */
    assert_string_equal(again, path);
    tree_run("echo kept >/tmp/kept && dd if=/tmp/kept of=%s bs=5 count=1 conv=notrunc 2>/dev/null", path);
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_EXCL | O_CLOEXEC); /* as a mount has it */
    assert_true(fd >= 0);
    fails(os_host_disconnect(&host, &volume, &c), ERR_BUSY, "");
    assert_int_equal(close(steal_fd(&fd)), 0);
    ok(os_host_disconnect(&host, &volume, &c));
    tree_run("cmp -n 5 /tmp/kept %s && [ ! -e %s ]", place, path); /* what was written is on the volume, and the disk is gone */
    assert_nothing_left();
    ok(os_host_disconnect(&host, &volume, &c));
}

static void test_real_wrong_password(void **state)
{
    struct os_connection c = connection("127.0.0.1:3260", 1);
    char *path;

    (void)state;
    (void)snprintf(c.chap_password, sizeof(c.chap_password), "wrong");
    fails(os_host_connect(&host, &volume, &c, &path), ERR_IO, "authorization failure");
    tree_run("! grep -rq 'password = wrong' /etc/iscsi/nodes");
}

static void test_real_grows(void **state)
{
    struct os_connection c = connection("127.0.0.1:3260", 1);
    struct os_volume larger = volume;
    CLEANUP_FREE char *path = wait_connected(&c);
    char *found = NULL;

    (void)state;
    larger.size = 2 * SIZE;
    fails(os_host_connect(&host, &larger, &c, &found), ERR_CORRUPT, "instead of");
    tree_run("truncate -s %llu %s && losetup -c $(losetup -j %s | cut -d: -f1)", 2 * SIZE, place, place);
    ok(os_host_connect(&host, &larger, &c, &found));
    assert_non_null(found);
    assert_string_equal(found, path);
    free(found);
    ok(os_host_disconnect(&host, &larger, &c));
    assert_nothing_left();
}

static int run_real(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_real_wrong_password),
        cmocka_unit_test(test_real),
        cmocka_unit_test(test_real_grows),
    };
    int failed = cmocka_run_group_tests(tests, lio_up, NULL);

    free(place);
    return failed;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_log_in, tree),
        cmocka_unit_test_setup(test_log_in_without_a_group, tree),
        cmocka_unit_test_setup(test_refused, tree),
        cmocka_unit_test_setup(test_disk, tree),
        cmocka_unit_test_setup(test_another_target, tree),
        cmocka_unit_test_setup(test_log_out, tree),
        cmocka_unit_test_setup(test_no_programs, tree),
        cmocka_unit_test_setup(test_two_portals, tree),
    };
    const char *kernel = getenv("FLOCKER_TEST_ISCSI");

    if (kernel && streq(kernel, "kernel"))
        return run_real();
    if (tree_make())
        return 1;
    CLEANUP_FREE char *path = xasprintf("%s/bin:%s", tree_root, getenv("PATH"));

    if (setenv("PATH", path, 1) != 0)
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, tree_gone);

    return failed;
}
