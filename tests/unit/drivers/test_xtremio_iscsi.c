/* The backend xtremio on the kernel's iSCSI (tests/arrays/xtremio_iscsi.py), where it is not as on the simulated disks: a LUN that
 * becomes another volume, and sessions that end. Only in a guest (lab/uml-zfs run --iscsi). */
#include "base/now.h"
#include "base/str.h"
#include "drivers/storage.h"
#include "xtremio_nodes.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#define TARGET "iqn.2008-05.com.xtremio:test-1"

static void tell_array(const char *what)
{
    simulator_tell(&node_array, "{s:[s]}", what, TARGET);
}

/* The LUN that the only map of it has. */
static int lun_of(const struct uuid *id)
{
    json_t *state = simulator_state(&node_array), *v;
    char name[XTREMIO_VOLUME_NAME_SIZE];
    int lun = 0;
    size_t i;

    name_of(id, name);
    json_array_foreach (json_object_get(state, "volumes"), i, v) {
        json_t *map = json_array_get(json_object_get(v, "lun-mapping-list"), 0);

        if (streq(json_string_value(json_object_get(v, "name")), name))
            lun = (int)json_integer_value(json_array_get(map, 2));
    }
    json_decref(state);
    assert_true(lun);
    return lun;
}

/* A released dataset with a file. */
static struct uuid with_data(struct node *n)
{
    struct uuid id = node_mounted(n, SIZE);
    CLEANUP_FREE char *place = node_place(n, &id);

    write_file(place, "file", "precious", 8);
    ok(storage_release(n->storage, &id, 1, 1, ""));
    return id;
}

static void has_data(struct node *n, const struct uuid *id)
{
    CLEANUP_FREE char *place = node_place(n, id), *text = read_text(place, "file");

    assert_non_null(text);
    assert_string_equal(text, "precious");
}

/* Written and on the disk. */
static bool writes(struct node *n, const struct uuid *id)
{
    CLEANUP_FREE char *place = node_place(n, id), *path = xasprintf("%s/more", place);
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    return fd >= 0 && write(fd, "x", 1) == 1 && fsync(fd) == 0;
}

static void take_away_from_a(const struct uuid *id)
{
    setting("cut", 1);
    ok(storage_claim(B->storage, id, 2));
    ok(storage_take_away(B->storage, id, 2, &A->config.node, 1));
    setting("cut", 0);
}

/* ---- a LUN that becomes another volume ---- */

/* The disk of what is mounted there: "sda". The caller frees it. */
static char *disk_of(struct node *n, const struct uuid *id)
{
    CLEANUP_FREE char *place = node_place(n, id);

    return shell_out("basename -z $(findmnt -n -o SOURCE %s)", place);
}

static void ask_kernel(const char *disk, const char *attribute)
{
    shell("echo 1 >/sys/block/%s/device/%s", disk, attribute);
}

static bool is_there(const char *disk)
{
    CLEANUP_FREE char *path = xasprintf("/sys/block/%s", disk);

    return access(path, F_OK) == 0;
}

/* `id` was taken from node A by the array, which now shows `data`, of node B until now, at its LUN: somebody mapped it by hand. */
static void take_lun(const struct uuid *id, const struct uuid *data)
{
    char name[XTREMIO_VOLUME_NAME_SIZE];
    int lun = lun_of(id);

    name_of(data, name);
    take_away_from_a(id);
    simulator_tell(&node_array, "{s:{s:[s,i]}}", "map", name, "node-a", lun);
    ok(storage_claim(A->storage, data, 2));
}

/* Both go, from both. */
static void end_both(const struct uuid *id, const struct uuid *data)
{
    ok(storage_release(A->storage, data, 2, 1, ""));
    ok(storage_claim(B->storage, data, 3));
    ok(storage_mount(B->storage, data, 3));
    has_data(B, data);
    ok(storage_release(B->storage, data, 3, 1, ""));
    ok(storage_destroy(B->storage, data));
    ok(storage_drop(A->storage, data));
    ok(storage_drop(A->storage, id));
    ok(storage_destroy(B->storage, id));
}

/* What the kernel has of the file system that was there, and would write when it is unmounted, does not get to the other volume. */
static void test_lun_of_a_mounted_volume(void **state)
{
    struct uuid data = with_data(B), id = node_mounted(A, SIZE);
    CLEANUP_FREE char *old = disk_of(A, &id);

    take_lun(&id, &data);
    ok(storage_mount(A->storage, &data, 2));
    CLEANUP_FREE char *now = disk_of(A, &data);

    assert_string_not_equal(old, now);
    assert_false(is_there(old));
    has_data(A, &data);
    assert_false(writes(A, &id));
    assert_true(writes(A, &data));
    end_both(&id, &data);
}

/* The kernel was told by somebody else, so that the disk says of itself that it is the other volume. */
static void test_lun_of_a_mounted_volume_asked_before(void **state)
{
    struct uuid data = with_data(B), id = node_mounted(A, SIZE);
    CLEANUP_FREE char *old = disk_of(A, &id);

    take_lun(&id, &data);
    ask_kernel(old, "rescan");
    fails(storage_mount(A->storage, &data, 2), ERR_BUSY, "not mounted: in use elsewhere");
    ask_kernel(old, "delete");
    ok(storage_mount(A->storage, &data, 2));
    has_data(A, &data);
    end_both(&id, &data);
}

/* A disk that nobody uses has nothing of the old volume. */
static void test_lun_of_an_unmounted_volume(void **state)
{
    struct uuid data = with_data(B), id = node_mounted(A, SIZE);
    CLEANUP_FREE char *old = disk_of(A, &id);

    ok(storage_unmount(A->storage, &id));
    take_lun(&id, &data);
    ok(storage_mount(A->storage, &data, 2));
    CLEANUP_FREE char *now = disk_of(A, &data);

    assert_string_equal(old, now);
    has_data(A, &data);
    end_both(&id, &data);
}

/* The disk of a volume that the array took away stays, with nothing in it, until it is removed. */
static void test_taken_away(void **state)
{
    struct uuid id = node_mounted(A, SIZE);
    CLEANUP_FREE char *old = disk_of(A, &id);
    CLEANUP_FREE char *device = xasprintf("/dev/%s", old);

    take_away_from_a(&id);
    node_shows(A, &id, true, false, false);
    ask_kernel(old, "rescan");
    assert_true(is_there(old));
    ok(storage_unmount(A->storage, &id));
    CLEANUP_CLOSE int fd = open(device, O_RDONLY | O_EXCL | O_CLOEXEC);

    assert_true(fd >= 0);
    fails(storage_drop(A->storage, &id), ERR_BUSY, "in use");
    mem_closep(&fd);
    ok(storage_drop(A->storage, &id));
    assert_false(is_there(old));
    ok(storage_destroy(B->storage, &id));
}

/* ---- sessions that end ---- */

/* For so long the kernel keeps what is asked of a disk whose session is down; then it says that it failed. */
static void kernel_waits(int seconds)
{
    shell("for f in /sys/class/iscsi_session/*/recovery_tmo; do echo %d >$f; done", seconds);
}

static void wait_for_disk(const char *disk, const char *wanted)
{
    shell("for i in $(seq 600); do test $(cat /sys/block/%s/device/state) = %s && exit; sleep 0.1; "
          "done; exit 1",
          disk, wanted);
}

static void wait_for_sessions(const char *pattern)
{
    shell("for i in $(seq 600); do grep -L '%s' /sys/class/iscsi_session/*/state | grep -q . || "
          "exit 0; sleep 0.1; done; exit 1",
          pattern);
}

static void test_down_while_attaching(void **state)
{
    struct uuid id = node_new_dataset();

    ok(storage_create(A->storage, &id, SIZE, NULL, 1));
    tell_array("cut");
    wait_for_sessions("FAILED\\|FREE");
    uint64_t from = now_os().mono_us;

    fails(storage_mount(A->storage, &id, 1), ERR_UNAVAILABLE,
          "the iSCSI session with " TARGET " is down");
    assert_true(now_os().mono_us - from < 20 * (uint64_t)USEC_PER_SEC);
    node_shows(A, &id, true, true, false);
    tell_array("heal");
    wait_for_sessions("LOGGED_IN");
    ok(storage_mount(A->storage, &id, 1));
    node_end(A, &id);
}

struct writing {
    struct node *n;
    const struct uuid *id;
    bool done;
};

static void *write_there(void *cookie)
{
    struct writing *w = cookie;

    w->done = writes(w->n, w->id);
    return NULL;
}

/* Shorter than the kernel waits: nobody sees more than a pause. */
static void test_down_for_a_moment(void **state)
{
    struct uuid id = node_mounted(A, SIZE);
    CLEANUP_FREE char *disk = disk_of(A, &id);
    struct writing w = {A, &id, false};
    pthread_t t;

    tell_array("cut");
    wait_for_disk(disk, "blocked");
    assert_int_equal(pthread_create(&t, NULL, write_there, &w), 0);
    struct volume_state v = node_look(A, &id);

    assert_true(v.mounted);
    volume_state_done(&v);
    sleep(1);
    assert_false(w.done);
    tell_array("heal");
    pthread_join(t, NULL);
    assert_true(w.done);
    node_end(A, &id);
}

/* Longer: nothing is unmounted or moved until it is back, each says why, and what was safe on the volume is there. */
static void test_down_while_mounted(void **state)
{
    struct uuid id = with_data(A), other = node_mounted(A, SIZE);
    struct volume_state v;

    ok(storage_claim(A->storage, &id, 2));
    ok(storage_mount(A->storage, &id, 2));
    CLEANUP_FREE char *disk = disk_of(A, &id);

    ok(storage_unmount(A->storage, &other));
    kernel_waits(2);
    tell_array("cut");
    wait_for_disk(disk, "transport-offline");
    fails(storage_mount(A->storage, &other, 1), ERR_UNAVAILABLE,
          "no way to the array is up (transport-offline)");
    v = node_look(A, &id);
    assert_true(v.mounted);
    volume_state_done(&v);
    fails(storage_release(A->storage, &id, 2, 1, ""), ERR_UNAVAILABLE, "does not answer");
    node_shows(A, &id, true, true, false);
    tell_array("heal");
    wait_for_disk(disk, "running");
    ok(storage_release(A->storage, &id, 2, 1, ""));
    ok(storage_claim(B->storage, &id, 3));
    ok(storage_mount(B->storage, &id, 3));
    has_data(B, &id);
    ok(storage_release(B->storage, &id, 3, 1, ""));
    ok(storage_destroy(B->storage, &id));
    ok(storage_drop(A->storage, &id));
    ok(storage_mount(A->storage, &other, 1));
    node_end(A, &other);
}

/* The kernel has taken the disks away with the session. The driver logs in again by itself, and what is mounted of the old disk goes
 * with the next unmount. */
static void test_logged_out(void **state)
{
    struct uuid id = with_data(A);

    ok(storage_claim(A->storage, &id, 2));
    ok(storage_mount(A->storage, &id, 2));
    simulator_tell(&node_array, "{s:[s]}", "logout", "node-a");
    assert_false(writes(A, &id));
    fails(storage_mount(A->storage, &id, 2), ERR_CONFLICT, "unmount it");
    ok(storage_unmount(A->storage, &id));
    ok(storage_mount(A->storage, &id, 2));
    has_data(A, &id);
    assert_true(writes(A, &id));
    ok(storage_release(A->storage, &id, 2, 1, ""));
    ok(storage_destroy(A->storage, &id));
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ARRAY(test_lun_of_a_mounted_volume),
        WITH_ARRAY(test_lun_of_a_mounted_volume_asked_before),
        WITH_ARRAY(test_lun_of_an_unmounted_volume),
        WITH_ARRAY(test_taken_away),
        WITH_ARRAY(test_down_while_attaching),
        WITH_ARRAY(test_down_for_a_moment),
        WITH_ARRAY(test_down_while_mounted),
        WITH_ARRAY(test_logged_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    if (!node_has_real_iscsi()) {
        (void)puts("skipped: only in a guest of lab/uml-zfs run --iscsi");
        return 77;
    }
    return node_main(argc, argv, run);
}
