/* The conformance suite: the same cases against every backend, through storage.h, on real mounts.
 */
#include "drivers/driver.h"
#include "node.h"

#include "base/now.h"
#include "base/str.h"
#include "drivers/storage_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define A (&nodes[0])
#define B (&nodes[1])
#define MIB (1024u * 1024u)
#define SIZE (128u * MIB)

static bool local(void)
{
    return storage_kind(A->storage) == STORAGE_LOCAL;
}

static bool has_limits(void)
{
    return !streq(node_backend, "fake");
}

/* Where each step is one of real services on this machine, which take their time. */
static bool real_cloud(void)
{
    return streq(node_backend, "openstack");
}

static uint64_t size_wanted(void)
{
    return has_limits() ? SIZE : 0;
}

static struct volume_state look(struct node *n, const struct uuid *id)
{
    struct volume_state v;

    ok(storage_observe(n->storage, id, &v));
    return v;
}

static void check(struct node *n, const struct uuid *id, enum mark_state mark, uint64_t epoch,
                  bool present, bool mounted)
{
    struct volume_state v = look(n, id);

    assert_int_equal(v.mark.state, mark);
    assert_int_equal(v.mark.epoch, epoch);
    assert_int_equal(v.present, present);
    assert_int_equal(v.mounted, mounted);
    if (mounted && storage_kind(n->storage) == STORAGE_ATTACHABLE)
        assert_true(v.device && strstr(v.device, "/dev/"));
    else
        assert_null(v.device);
    volume_state_done(&v);
}

static struct uuid new_mounted(struct node *n, uint64_t epoch)
{
    struct uuid id = node_new_dataset();

    ok(storage_create(n->storage, &id, size_wanted(), NULL, epoch));
    ok(storage_mount(n->storage, &id, epoch));
    return id;
}

static void put(struct node *n, const struct uuid *id, const char *name, const char *text)
{
    CLEANUP_FREE char *place = node_place(n, id);

    write_file(place, name, text, strlen(text));
}

static void assert_content(struct node *n, const struct uuid *id, const char *name,
                           const char *want)
{
    CLEANUP_FREE char *place = node_place(n, id);
    CLEANUP_FREE char *got = read_text(place, name);

    assert_non_null(got);
    assert_string_equal(got, want);
}

static void destroy_everywhere(const struct uuid *id)
{
    for (int i = 0; i < NODES; i++) {
        if (local())
            ok(storage_destroy(nodes[i].storage, id));
        else
            ok(storage_drop(nodes[i].storage, id));
    }
    if (!local())
        ok(storage_destroy(A->storage, id));
    for (int i = 0; i < NODES; i++) {
        struct volume_state v = look(&nodes[i], id);
        CLEANUP_FREE char *place = node_place(&nodes[i], id);

        assert_true(volume_state_is_empty(&v));
        assert_int_equal(v.mark.state, MARK_NONE);
        assert_int_equal(access(place, F_OK), -1);
        volume_state_done(&v);
    }
}

/* ---- the plain life ---- */

static void test_life(void **state)
{
    struct uuid id = node_new_dataset();
    struct stat st;
    CLEANUP_FREE char *place = node_place(A, &id);

    check(A, &id, MARK_NONE, 0, false, false);
    ok(storage_create(A->storage, &id, size_wanted(), NULL, 5));
    ok(storage_create(A->storage, &id, size_wanted(), NULL, 5));
    check(A, &id, MARK_OWNED, 5, true, false);
    fails(storage_mount(A->storage, &id, 4), ERR_CONFLICT, "epoch 5");
    fails(storage_mount(A->storage, &id, 6), ERR_CONFLICT, "epoch 5");
    ok(storage_mount(A->storage, &id, 5));
    ok(storage_mount(A->storage, &id, 5));
    check(A, &id, MARK_OWNED, 5, true, true);

    assert_int_equal(stat(A->mount_root, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(stat(place, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0777);
    CLEANUP_FREE char *list = shell_out("ls -A %s", place);
    assert_string_equal(list, ""); /* also no lost+found */
    put(A, &id, "hello", "world");
    shell("chmod 750 %s", place);

    ok(storage_unmount(A->storage, &id));
    ok(storage_unmount(A->storage, &id));
    check(A, &id, MARK_OWNED, 5, true, false);
    assert_int_equal(access(place, F_OK), -1);
    /* created again: data and mode stay */
    ok(storage_create(A->storage, &id, size_wanted(), NULL, 7));
    ok(storage_mount(A->storage, &id, 7));
    assert_content(A, &id, "hello", "world");
    assert_int_equal(stat(place, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0750);
    fails(storage_create(A->storage, &id, size_wanted(), NULL, 6), ERR_CONFLICT, "epoch 7");

    destroy_everywhere(&id);
    ok(storage_destroy(A->storage, &id));
}

static void test_size(void **state)
{
    struct uuid id = node_new_dataset();
    struct volume_state v;

    if (!has_limits()) {
        fails(storage_create(A->storage, &id, SIZE, NULL, 1), ERR_UNSUPPORTED, "limit");
        return;
    }
    ok(storage_create(A->storage, &id, SIZE, NULL, 1));
    v = look(A, &id);
    uint64_t unit = node_unit(), real = (SIZE + unit - 1) / unit * unit;

    assert_int_equal(v.size, real);
    volume_state_done(&v);
    ok(storage_mount(A->storage, &id, 1));
    CLEANUP_FREE char *place = node_place(A, &id);

    /* Where it is larger, most of it is filled. */
    if (real > SIZE)
        shell("fallocate -l $(($(stat -f -c '%%f*%%S' %s) - %u)) %s/c", place, SIZE, place);
    shell("dd if=/dev/urandom of=%s/a bs=1M count=64 conv=fsync status=none", place);
    CLEANUP_FREE char *out =
        shell_out("dd if=/dev/urandom of=%s/b bs=1M count=96 conv=fsync 2>&1; stat -c %%s %s/b",
                  place, place);
    assert_true(strstr(out, "quota exceeded") || strstr(out, "No space left"));
    destroy_everywhere(&id);
}

static void test_profile(void **state)
{
    struct uuid id = node_new_dataset();
    char key[] = "clusterhq:flocker:profile", bad[] = "golden", good[] = "gold";
    struct metadata_entry entry = {key, bad};
    struct metadata md = {&entry, 1};

    fails(storage_create(A->storage, &id, size_wanted(), &md, 1), ERR_INVALID, "golden");
    check(A, &id, MARK_NONE, 0, false, false);
    entry.value = good;
    ok(storage_create(A->storage, &id, size_wanted(), &md,
                      1)); /* dropped, with a line in the log */
    destroy_everywhere(&id);
}

static void test_claim(void **state)
{
    struct uuid id = node_new_dataset();

    fails(storage_claim(A->storage, &id, 3), ERR_NOT_FOUND, NULL);
    ok(storage_create(A->storage, &id, size_wanted(), NULL, 3));
    ok(storage_claim(A->storage, &id, 3));
    ok(storage_claim(A->storage, &id, 9));
    check(A, &id, MARK_OWNED, 9, true, false);
    fails(storage_claim(A->storage, &id, 8), ERR_CONFLICT, NULL);
    fails(storage_mount(A->storage, &id, 3), ERR_CONFLICT, NULL);
    ok(storage_mount(A->storage, &id, 9));
    destroy_everywhere(&id);
}

static void test_drop(void **state)
{
    struct uuid id = new_mounted(A, 4);

    put(A, &id, "f", "x");
    ok(storage_drop(A->storage, &id));
    ok(storage_drop(A->storage, &id));
    check(A, &id, MARK_NONE, 0, !local(), false);
    destroy_everywhere(&id);
}

static void test_list(void **state)
{
    struct uuid ids[5];
    struct volume_state *states;
    size_t n, found = 0;

    for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
        ids[i] = node_new_dataset();
        ok(storage_create(A->storage, &ids[i], size_wanted(), NULL, 10 + i));
    }
    ok(storage_mount(A->storage, &ids[2], 12));
    ok(storage_list(A->storage, &states, &n));
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < ARRAY_SIZE(ids); k++) {
            if (!uuid_eq(&states[i].dataset, &ids[k]))
                continue;
            found++;
            assert_true(states[i].present);
            assert_int_equal(states[i].mounted, k == 2);
            assert_int_equal(states[i].mark.state, MARK_OWNED);
            assert_int_equal(states[i].mark.epoch, 10 + k);
        }
        volume_state_done(&states[i]);
    }
    free(states);
    assert_int_equal(found, ARRAY_SIZE(ids));
    for (size_t k = 0; k < ARRAY_SIZE(ids); k++)
        destroy_everywhere(&ids[k]);
}

static void test_reboot(void **state)
{
    struct uuid id = new_mounted(A, 2);
    CLEANUP_FREE char *place = node_place(A, &id);

    put(A, &id, "kept", "yes");
    node_reboot(A);
    assert_int_equal(access(place, F_OK), -1); /* the bare mount point of before is gone */
    check(A, &id, MARK_OWNED, 2, true, false);
    ok(storage_mount(A->storage, &id, 2));
    assert_content(A, &id, "kept", "yes");
    destroy_everywhere(&id);
}

static void test_foreign_mount_in_the_way(void **state)
{
    struct uuid id = node_new_dataset();
    CLEANUP_FREE char *place = node_place(A, &id);

    ok(storage_create(A->storage, &id, size_wanted(), NULL, 1));
    shell("mkdir %s && mount -t tmpfs none %s", place, place);
    check(A, &id, MARK_OWNED, 1, true, false);
    fails(storage_mount(A->storage, &id, 1), ERR_CONFLICT, "something else");
    shell("umount %s", place);
    ok(storage_mount(A->storage, &id, 1));
    destroy_everywhere(&id);
}

/* Killed before the first mark or after the last: the empty folder still shows, and goes with the next drop. */
static void test_folder_without_anything(void **state)
{
    struct uuid id = node_new_dataset();
    struct volume_state v = {0};

    ok(storage_create(A->storage, &id, 0, NULL, 5));
    CLEANUP_FREE char *mark =
        shell_out("find %s -path '*%s*/mark' -print -quit", node_dir, UUID_STR(&id));

    mark[strcspn(mark, "\n")] = '\0';
    ok(storage_destroy(A->storage, &id));
    *strrchr(mark, '/') = '\0';
    shell("mkdir %s && touch %s/.mark.new", mark, mark);
    for (int i = 0; i < 2; i++) {
        ok(storage_observe(A->storage, &id, &v));
        assert_int_equal(v.partial, i == 0);
        assert_int_equal(volume_state_is_empty(&v), i != 0);
        volume_state_done(&v);
        ok(storage_drop(A->storage, &id));
    }
    shell("test ! -e %s", mark);
}

static void test_damaged_mark(void **state)
{
    struct uuid id = node_new_dataset(), other = node_new_dataset();
    struct volume_state v;

    ok(storage_create(A->storage, &id, size_wanted(), NULL, 1));
    ok(storage_create(A->storage, &other, size_wanted(), NULL, 1));
    shell("f=$(find %s -path '*%s*/mark' -print -quit); test -f $f && echo garbage >$f", node_dir,
          UUID_STR(&id));
    fails(storage_observe(A->storage, &id, &v), ERR_CORRUPT, "mark");
    fails(storage_mount(A->storage, &id, 1), ERR_CORRUPT, NULL);
    fails(storage_claim(A->storage, &id, 2), ERR_CORRUPT, NULL);
    test_list(state); /* the others are still seen */
    ok(storage_mount(A->storage, &other, 1));
    destroy_everywhere(&other);
    destroy_everywhere(&id);
}

/* ---- unwritable ---- */

static void use_open(const char *place)
{
    CLEANUP_FREE char *path = xasprintf("%s/held", place);

    if (open(path, O_RDWR | O_CREAT, 0600) < 0)
        _exit(1);
}

static void use_cwd(const char *place)
{
    if (chdir(place) < 0)
        _exit(1);
}

static void use_map(const char *place)
{
    CLEANUP_FREE char *path = xasprintf("%s/mapped", place);
    int fd = open(path, O_RDWR | O_CREAT, 0600);

    if (fd < 0 || ftruncate(fd, 4096) < 0 ||
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED)
        _exit(1);
    close(fd);
}

static char bind_top[PATH_MAX],
    bind_place[PATH_MAX + 2]; /* of a helper process, seen by it alone */

static void into_private_bind(const char *place)
{
    (void)snprintf(bind_top, sizeof(bind_top), "%s/bind", node_dir);
    (void)snprintf(bind_place, sizeof(bind_place), "%s/b", bind_top);
    if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
        (mkdir(bind_top, 0700) < 0 && errno != EEXIST) ||
        mount("none", bind_top, "tmpfs", 0, NULL) < 0 || mkdir(bind_place, 0700) < 0 ||
        mount(place, bind_place, NULL, MS_BIND, NULL) < 0 || umount2(place, MNT_DETACH) < 0)
        _exit(1);
}

static void use_private_bind(const char *place)
{
    into_private_bind(place);
}

/* The mount table shows nothing any more, but the descriptor still writes. */
static void use_old_descriptor(const char *place)
{
    into_private_bind(place);
    use_open(bind_place);
    if (umount2(bind_place, MNT_DETACH) < 0)
        _exit(1);
}

static void use_old_map(const char *place)
{
    into_private_bind(place);
    use_map(bind_place);
    if (umount2(bind_place, MNT_DETACH) < 0)
        _exit(1);
}

static void *hold_in_thread(void *arg)
{
    if (unshare(CLONE_FILES) < 0)
        _exit(1);
    use_open(bind_place);
    sem_post(arg);
    for (;;)
        pause();
    return NULL;
}

/* Only a thread's own table of descriptors has it. */
static void use_thread_files(const char *place)
{
    static sem_t held;
    pthread_t t;

    into_private_bind(place);
    if (sem_init(&held, /* pshared= */ 0, 0) < 0 || pthread_create(&t, NULL, hold_in_thread, &held))
        _exit(1);
    while (sem_wait(&held) < 0)
        ;
    if (umount2(bind_place, MNT_DETACH) < 0)
        _exit(1);
}

static void expect_user(const struct uuid *id, const char *who)
{
    CLEANUP_FREE char *user = NULL;

    ok(storage_find_user(A->storage, id, &user));
    if (!who != !user || (who && !strstr(user, who)))
        fail_msg("used by %s, not by %s", user ? user : "nobody", who ? who : "nobody");
}

static void busy_with(void (*use)(const char *))
{
    struct uuid id = new_mounted(A, 3);
    CLEANUP_FREE char *place = node_place(A, &id);

    put(A, &id, "data", "before");
    expect_user(&id, NULL); /* its own mount is no use */
    pid_t pid = helper_start(use, place);
    CLEANUP_FREE char *who = xasprintf("pid %d (test-storage)", (int)pid);

    expect_user(&id, who);
    fails(storage_unmount(A->storage, &id), ERR_BUSY, who);
    check(A, &id, MARK_OWNED, 3, true, true);
    fails(storage_release(A->storage, &id, 3, 8, "final"), ERR_BUSY, who);
    check(A, &id, MARK_OWNED, 3, true, true);
    assert_content(A, &id, "data", "before");
    helper_stop(pid);
    ok(storage_unmount(A->storage, &id));
    destroy_everywhere(&id);
}

static void test_busy_open(void **state)
{
    busy_with(use_open);
}

static void test_busy_cwd(void **state)
{
    busy_with(use_cwd);
}

static void test_busy_map(void **state)
{
    busy_with(use_map);
}

static void test_busy_private_bind(void **state)
{
    busy_with(use_private_bind);
}

/* The example driver's folders share a device with other data, and a detached mount's files have no
 * path to tell. */
static bool only_paths(void)
{
    if (streq(node_backend, "fake")) {
        print_message("skipped: files of detached mounts cannot be told apart here\n");
        return true;
    }
    return false;
}

static void test_busy_old_descriptor(void **state)
{
    if (!only_paths())
        busy_with(use_old_descriptor);
}

static void test_busy_old_map(void **state)
{
    if (!only_paths())
        busy_with(use_old_map);
}

static void test_busy_thread_files(void **state)
{
    if (!only_paths())
        busy_with(use_thread_files);
}

static void test_busy_nested_mount(void **state)
{
    struct uuid id = new_mounted(A, 3);
    CLEANUP_FREE char *place = node_place(A, &id);

    shell("mkdir %s/sub && mount -t tmpfs none %s/sub", place, place);
    fails(storage_unmount(A->storage, &id), ERR_BUSY, "/sub is mounted below");
    check(A, &id, MARK_OWNED, 3, true, true);
    shell("umount %s/sub", place);
    destroy_everywhere(&id);
}

/* Keeps a folder of a file system open whose server has died. */
static void use_dead_fuse(const char *place)
{
    char options[64];
    int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC);

    (void)snprintf(options, sizeof(options), "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
    if (fuse < 0 || unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_SLAVE, NULL) < 0 ||
        mount("dead", place, "fuse", 0, options) < 0 || open(place, O_PATH | O_DIRECTORY) < 0)
        _exit(1);
    close(fuse);
}

/* Other peoples' use of other volumes does not count, and what is dead least of all. */
static void test_others_are_no_reason(void **state)
{
    struct uuid id = new_mounted(A, 3), other = new_mounted(A, 3);
    CLEANUP_FREE char *place = node_place(A, &other);
    pid_t pid = helper_start(use_open, place), pid2 = helper_start(use_map, place);
    bool fuse = access("/dev/fuse", W_OK) == 0;
    pid_t pid3 = fuse ? helper_start(use_dead_fuse, node_dir) : 0;

    ok(storage_unmount(A->storage, &id));
    helper_stop(pid);
    helper_stop(pid2);
    if (fuse)
        helper_stop(pid3);
    destroy_everywhere(&id);
    destroy_everywhere(&other);
}

/* ---- release ---- */

static void test_release_is_final(void **state)
{
    struct uuid id = new_mounted(A, 6);
    struct volume_state v;

    put(A, &id, "f", "1");
    fails(storage_release(A->storage, &id, 5, 40, "s-1"), ERR_CONFLICT, NULL);
    ok(storage_release(A->storage, &id, 6, 40, "s-1"));
    ok(storage_release(A->storage, &id, 6, 40, "s-1"));
    v = look(A, &id);
    assert_int_equal(v.mark.state, MARK_RELEASED);
    assert_int_equal(v.mark.epoch, 6);
    assert_int_equal(v.mark.transfer, 40);
    assert_string_equal(v.mark.snapshot, "s-1");
    assert_false(v.mounted);
    assert_false(v.attached && !local());
    assert_int_equal(volume_state_has_snapshot(&v, "s-1"), local());
    volume_state_done(&v);
    fails(storage_mount(A->storage, &id, 6), ERR_CONFLICT, "released");
    fails(storage_claim(A->storage, &id, 6), ERR_CONFLICT, "released");
    fails(storage_claim(A->storage, &id, 5), ERR_CONFLICT, "released");
    fails(storage_create(A->storage, &id, size_wanted(), NULL, 6), ERR_CONFLICT, "released");
    fails(storage_release(A->storage, &id, 6, 41, "s-2"), ERR_CONFLICT, "released");
    /* the transfer is cancelled: the source owns again, at a new epoch */
    ok(storage_claim(A->storage, &id, 7));
    ok(storage_mount(A->storage, &id, 7));
    assert_content(A, &id, "f", "1");
    destroy_everywhere(&id);
}

static void test_release_survives_reboot(void **state)
{
    struct uuid id = new_mounted(A, 6);

    ok(storage_release(A->storage, &id, 6, 40, "s-1"));
    node_reboot(A);
    check(A, &id, MARK_RELEASED, 6, true, false);
    fails(storage_mount(A->storage, &id, 6), ERR_CONFLICT, "released");
    destroy_everywhere(&id);
}

/* ---- local: snapshots and streams ---- */

static void make_content(const char *place)
{
    shell(
        "cd %s && mkdir -p d/e && seq 1 200000 >d/seq && ln -s d/seq link && ln d/seq d/hard && "
        "head -c 3000000 /dev/urandom >random && truncate -s 5M sparse && chown 12:34 random && "
        "chmod 2751 d/e && for i in $(seq 300); do echo $i >d/e/$i; done && "
        "mkfifo fifo && { setfattr -n user.k -v v random 2>/dev/null || true; }", /* tmpfs has none */
        place);
}

static void test_snapshots(void **state)
{
    if (!local())
        return;
    struct uuid id = new_mounted(A, 1);
    struct volume_state v;
    CLEANUP_FREE char *one = NULL, *two = NULL, *again = NULL;

    put(A, &id, "f", "1");
    ok(storage_snapshot(A->storage, &id, "z-first"));
    ok(storage_snapshot(A->storage, &id, "z-first"));
    usleep(20000); /* the example driver's order is by time */
    ok(storage_snapshot(A->storage, &id, "m-second"));
    usleep(20000);
    put(A, &id, "f", "22");
    ok(storage_snapshot(A->storage, &id, "a-third"));
    fails(storage_snapshot(A->storage, &id, "../x"), ERR_INVALID, NULL);
    fails(storage_snapshot(A->storage, &id, "-x"), ERR_INVALID, NULL);
    v = look(A, &id);
    assert_int_equal(v.n_snapshots, 3);
    assert_string_equal(v.snapshots[0], "z-first");
    assert_string_equal(v.snapshots[1], "m-second");
    assert_string_equal(v.snapshots[2], "a-third");
    volume_state_done(&v);
    ok(storage_snapshot_identity(A->storage, &id, "z-first", &one));
    ok(storage_snapshot_identity(A->storage, &id, "a-third", &two));
    ok(storage_snapshot_identity(A->storage, &id, "z-first", &again));
    assert_string_equal(one, again);
    assert_string_not_equal(one, two);
    fails(storage_snapshot_identity(A->storage, &id, "none", &again), ERR_NOT_FOUND, NULL);
    ok(storage_prune(A->storage, &id, "m-second", NULL));
    v = look(A, &id);
    assert_int_equal(v.n_snapshots, 1);
    assert_string_equal(v.snapshots[0], "m-second");
    assert_true(v.mounted);
    volume_state_done(&v);
    ok(storage_prune(A->storage, &id, NULL, NULL));
    v = look(A, &id);
    assert_int_equal(v.n_snapshots, 0);
    volume_state_done(&v);
    assert_content(A, &id, "f", "22");
    destroy_everywhere(&id);
}

/* There and back three times, each time only the difference; content equal at each arrival. */
static void test_move_there_and_back(void **state)
{
    if (!local())
        return;
    struct uuid id = new_mounted(A, 1);
    uint64_t epoch = 1;
    CLEANUP_FREE char *base = NULL;

    CLEANUP_FREE char *first = node_place(A, &id);
    make_content(first);
    for (int lap = 0; lap < 6; lap++) {
        struct node *from = lap % 2 ? B : A, *to = lap % 2 ? A : B;
        CLEANUP_FREE char *src = node_place(from, &id), *dst = node_place(to, &id);
        CLEANUP_FREE char *name = xasprintf("s%d", lap), *final = xasprintf("f%d", lap);

        shell("echo %d >%s/lap && rm -f %s/d/e/%d", lap, src, src, lap + 1);
        ok(storage_snapshot(from->storage, &id, name));
        ok(copy(from, to, &id, base, name));
        fails(copy(from, to, &id, base, name), ERR_EXISTS, NULL);
        shell("echo more >>%s/random; touch %s/new%d", src, src, lap);
        CLEANUP_FREE char *want = digest(src);

        ok(storage_release(from->storage, &id, epoch, 100 + (uint64_t)lap, final));
        ok(copy(from, to, &id, name, final));
        ok(storage_promote(to->storage, &id, final, size_wanted(), ++epoch));
        ok(storage_promote(to->storage, &id, final, size_wanted(), epoch));
        ok(storage_mount(to->storage, &id, epoch));
        CLEANUP_FREE char *got = digest(dst);

        assert_string_equal(got, want);
        CLEANUP_FREE char *ia = NULL, *ib = NULL;

        ok(storage_snapshot_identity(from->storage, &id, final, &ia));
        ok(storage_snapshot_identity(to->storage, &id, final, &ib));
        assert_string_equal(ia, ib);
        ok(storage_prune(from->storage, &id, final, NULL));
        ok(storage_prune(to->storage, &id, final, NULL));
        free(base);
        base = steal(&final);
    }
    destroy_everywhere(&id);
}

static bool can_compare(void)
{
    return local() && !streq(node_backend, "fake");
}

/* Copies have the digest of their source, whatever is written to that since. */
static void test_comparing(void **state)
{
    if (!local())
        return;
    struct uuid id = new_mounted(A, 1);
    const atomic_bool cancel = true;
    char one[STORAGE_DIGEST_SIZE], two[STORAGE_DIGEST_SIZE], got[STORAGE_DIGEST_SIZE];

    put(A, &id, "f", "1");
    ok(storage_snapshot(A->storage, &id, "one"));
    if (!can_compare()) {
        fails(storage_snapshot_digest(A->storage, &id, "one", NULL, one), ERR_UNSUPPORTED,
              "look into");
        destroy_everywhere(&id);
        return;
    }
    put(A, &id, "f", "2");
    ok(storage_snapshot(A->storage, &id, "two"));
    put(A, &id, "f", "3");
    ok(storage_snapshot_digest(A->storage, &id, "one", NULL, one));
    ok(storage_snapshot_digest(A->storage, &id, "two", NULL, two));
    assert_string_not_equal(one, two);
    ok(copy(A, B, &id, NULL, "one"));
    ok(storage_snapshot_digest(B->storage, &id, "one", NULL, got));
    assert_string_equal(got, one);
    ok(copy(A, B, &id, "one", "two"));
    ok(storage_snapshot_digest(B->storage, &id, "two", NULL, got));
    assert_string_equal(got, two);
    ok(storage_snapshot_digest(B->storage, &id, "one", NULL, got));
    assert_string_equal(got, one);
    fails(storage_snapshot_digest(B->storage, &id, "two", &cancel, got), ERR_CANCELLED, NULL);
    fails(storage_snapshot_digest(B->storage, &id, "three", NULL, got), ERR_NOT_FOUND, NULL);
    ok(storage_promote(B->storage, &id, "one", size_wanted(), 2));
    destroy_everywhere(&id);
}

/* Promotion happens once: a repetition must not throw away what was written since. */
static void test_promote_once(void **state)
{
    if (!local())
        return;
    struct uuid id = new_mounted(A, 1);

    put(A, &id, "f", "1");
    ok(storage_release(A->storage, &id, 1, 9, "s"));
    ok(copy(A, B, &id, NULL, "s"));
    fails(storage_promote(B->storage, &id, "none", size_wanted(), 2), ERR_NOT_FOUND, NULL);
    check(B, &id, MARK_NONE, 0, false, false);
    ok(storage_promote(B->storage, &id, "s", size_wanted(), 2));
    ok(storage_mount(B->storage, &id, 2));
    put(B, &id, "f", "written by the new owner");
    ok(storage_promote(B->storage, &id, "s", size_wanted(), 2));
    fails(storage_promote(B->storage, &id, "s", size_wanted(), 1), ERR_CONFLICT, NULL);
    fails(storage_promote(B->storage, &id, "s", size_wanted(), 3), ERR_CONFLICT, "mounted");
    assert_content(B, &id, "f", "written by the new owner");
    ok(storage_release(B->storage, &id, 2, 10, "t"));
    fails(storage_promote(B->storage, &id, "s", size_wanted(), 2), ERR_CONFLICT, "released");
    destroy_everywhere(&id);
}

/* What a release leaves behind becomes a replica: nothing but the snapshot, which nobody can mount, and from which only the
 * difference is shipped when the data come back. */
static void test_replica(void **state)
{
    if (!local())
        return;
    struct uuid id = new_mounted(A, 1);
    CLEANUP_FREE char *there = node_place(A, &id), *here = node_place(B, &id);

    make_content(there);
    ok(storage_snapshot(A->storage, &id, "early"));
    fails(storage_demote(A->storage, &id, "early"), ERR_CONFLICT, "did not release");
    ok(storage_release(A->storage, &id, 1, 9, "s"));
    ok(copy(A, B, &id, NULL, "s"));
    ok(storage_promote(B->storage, &id, "s", size_wanted(), 2));
    ok(storage_mount(B->storage, &id, 2));
    fails(storage_demote(B->storage, &id, "s"), ERR_CONFLICT, "did not release");
    fails(storage_demote(A->storage, &id, "none"), ERR_NOT_FOUND, NULL);
    check(A, &id, MARK_RELEASED, 1, true, false);
    ok(storage_demote(A->storage, &id, "s"));
    ok(storage_demote(A->storage, &id, "s"));
    ok(storage_prune(A->storage, &id, "s", NULL));
    node_reboot(A);
    check(A, &id, MARK_RELEASED, 1, false, false);
    struct volume_state v = look(A, &id);
    assert_int_equal(v.n_snapshots, 1);
    assert_string_equal(v.snapshots[0], "s");
    assert_false(v.partial);
    volume_state_done(&v);
    fails(storage_mount(A->storage, &id, 1), ERR_CONFLICT, "released");
    fails(storage_claim(A->storage, &id, 3), ERR_NOT_FOUND, NULL);
    put(B, &id, "f", "written since");
    CLEANUP_FREE char *want = digest(here);
    ok(storage_prune(B->storage, &id, "s", NULL));
    ok(storage_release(B->storage, &id, 2, 10, "t"));
    ok(copy(B, A, &id, "s", "t"));
    ok(storage_promote(A->storage, &id, "t", size_wanted(), 3));
    ok(storage_mount(A->storage, &id, 3));
    CLEANUP_FREE char *got = digest(there);
    assert_string_equal(got, want);
    ok(storage_demote(B->storage, &id, "t"));
    ok(storage_drop(B->storage, &id)); /* a replica goes as anything does */
    v = look(B, &id);
    assert_true(volume_state_is_empty(&v));
    assert_int_equal(v.mark.state, MARK_NONE);
    volume_state_done(&v);
    destroy_everywhere(&id);
}

static void test_space(void **state)
{
    uint64_t total = 1, unused = 2;

    ok(storage_space(A->storage, &total, &unused));
    assert_int_equal(total > 0, local()); /* shared storage is not one node's to care for */
    assert_true(unused <= total);
}

struct feed {
    char *bytes;
    size_t n;
    int fd;
};

static void *feed_it(void *cookie)
{
    struct feed *f = cookie;
    size_t at = 0;

    while (at < f->n) {
        ssize_t w = write(f->fd, f->bytes + at, f->n - at);

        if (w <= 0)
            break;
        at += (size_t)w;
    }
    close(f->fd);
    return NULL;
}

static struct err *receive_bytes(struct node *to, const struct uuid *id, const char *identity,
                                 char *bytes, size_t n)
{
    int p[2];
    pthread_t t;

    assert_int_equal(pipe2(p, O_CLOEXEC), 0);
    struct feed f = {bytes, n, p[1]};

    assert_int_equal(pthread_create(&t, NULL, feed_it, &f), 0);
    struct err *e = storage_receive(
        to->storage, id, &(struct stream_spec){.snapshot = "s", .identity = identity}, p[0]);

    close(p[0]);
    pthread_join(t, NULL);
    return e;
}

static void assert_nothing_received(struct node *n, const struct uuid *id)
{
    struct volume_state v = look(n, id);

    assert_int_equal(v.n_snapshots, 0);
    volume_state_done(&v);
    shell("test -z \"$(find %s/%d -path '*%s/incoming/*' -o -path '*%s/work/*')\"", node_dir,
          (int)(n - nodes), UUID_STR(id), UUID_STR(id));
}

static void test_bad_streams(void **state)
{
    if (!local())
        return;
    struct uuid id = new_mounted(A, 1), other = node_new_dataset();
    CLEANUP_FREE char *place = node_place(A, &id), *identity = NULL,
                      *file = xasprintf("%s/stream", node_dir);
    struct stat st;

    make_content(place);
    ok(storage_snapshot(A->storage, &id, "s"));
    ok(storage_snapshot_identity(A->storage, &id, "s", &identity));
    CLEANUP_CLOSE int out = open(file, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    ok(storage_send(A->storage, &id, &(struct stream_spec){.snapshot = "s"}, out, NULL));
    assert_int_equal(fstat(out, &st), 0);
    size_t n = (size_t)st.st_size;
    CLEANUP_FREE char *bytes = xmalloc(n);

    assert_int_equal(pread(out, bytes, n, 0), n);
    const size_t cuts[] = {0, 1, 20, n / 3, n / 2, n - 100, n - 1};

    for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
        struct err *e = receive_bytes(B, &other, identity, bytes, cuts[i]);

        if (!e)
            fail_msg("a stream of %zu of %zu bytes was taken", cuts[i], n);
        err_free(e);
        assert_nothing_received(B, &other);
    }
    bytes[n / 2] ^= 0x40; /* damaged on the way */
    struct err *e = receive_bytes(B, &other, identity, bytes, n);

    assert_non_null(e);
    err_free(e);
    assert_nothing_received(B, &other);
    bytes[n / 2] ^= 0x40;
    /* whole, but not what the sender named */
    fails(receive_bytes(B, &other, "00112233-4455-6677-8899-aabbccddeeff", bytes, n), ERR_CORRUPT,
          NULL);
    assert_nothing_received(B, &other);
    ok(receive_bytes(B, &other, identity, bytes, n));
    struct volume_state v = look(B, &other);

    assert_true(volume_state_has_snapshot(&v, "s"));
    volume_state_done(&v);
    destroy_everywhere(&id);
    destroy_everywhere(&other);
}

static void test_send_cancel(void **state)
{
    if (!local())
        return;
    struct uuid id = new_mounted(A, 1);
    CLEANUP_FREE char *place = node_place(A, &id);
    const atomic_bool cancel = true;
    int p[2];

    make_content(place);
    ok(storage_snapshot(A->storage, &id, "s"));
    assert_int_equal(pipe2(p, O_CLOEXEC), 0); /* nobody reads */
    fails(storage_send(A->storage, &id, &(struct stream_spec){.snapshot = "s"}, p[1], &cancel),
          ERR_CANCELLED, NULL);
    close(p[0]);
    struct err *e =
        storage_send(A->storage, &id, &(struct stream_spec){.snapshot = "s"}, p[1], NULL);

    assert_non_null(e); /* the reader is gone: no signal, an error */
    err_free(e);
    close(p[1]);
    destroy_everywhere(&id);
}

/* The count of a promoted volume goes on where the sender's was. */
static void test_promoted_limit(void **state)
{
    if (!local() || !has_limits())
        return;
    struct uuid id = new_mounted(A, 1);
    CLEANUP_FREE char *a = node_place(A, &id), *b = node_place(B, &id);

    shell("dd if=/dev/urandom of=%s/a bs=1M count=80 conv=fsync status=none", a);
    ok(storage_release(A->storage, &id, 1, 9, "s"));
    ok(copy(A, B, &id, NULL, "s"));
    ok(storage_promote(B->storage, &id, "s", SIZE, 2));
    ok(storage_mount(B->storage, &id, 2));
    shell("dd if=/dev/urandom of=%s/b bs=1M count=30 conv=fsync status=none", b);
    CLEANUP_FREE char *out =
        shell_out("dd if=/dev/urandom of=%s/c bs=1M count=40 conv=fsync 2>&1 || true", b);
    assert_non_null(strstr(out, "quota exceeded"));
    destroy_everywhere(&id);
}

static void test_final_snapshot_is_retaken(void **state)
{
    if (!local())
        return;
    struct uuid id = new_mounted(A, 1);

    put(A, &id, "f", "old");
    ok(storage_snapshot(A->storage, &id, "s")); /* a release that crashed before its mark */
    put(A, &id, "f", "new");
    ok(storage_release(A->storage, &id, 1, 9, "s"));
    ok(copy(A, B, &id, NULL, "s"));
    ok(storage_promote(B->storage, &id, "s", size_wanted(), 2));
    ok(storage_mount(B->storage, &id, 2));
    assert_content(B, &id, "f", "new");
    destroy_everywhere(&id);
}

/* ---- attachable ---- */

static void test_attachable_move(void **state)
{
    if (local())
        return;
    struct uuid sa = storage_shared_id(A->storage), sb = storage_shared_id(B->storage);
    struct uuid id = new_mounted(A, 1);
    struct volume_state v;

    assert_false(uuid_is_nil(&sa));
    assert_true(uuid_eq(&sa, &sb));
    put(A, &id, "f", "moved");
    v = look(B, &id);
    assert_true(v.present && v.attached_elsewhere && !v.attached && !v.mounted);
    assert_int_equal(v.mark.state, MARK_NONE);
    volume_state_done(&v);
    ok(storage_claim(B->storage, &id, 2));
    fails(storage_mount(B->storage, &id, 2), ERR_BUSY, node_instance(A));
    fails(storage_destroy(B->storage, &id), ERR_BUSY, node_instance(A));
    ok(storage_release(A->storage, &id, 1, 5, ""));
    v = look(A, &id);
    assert_true(v.present && !v.attached && !v.attached_elsewhere);
    volume_state_done(&v);
    ok(storage_claim(B->storage, &id, 2));
    ok(storage_mount(B->storage, &id, 2));
    assert_content(B, &id, "f", "moved");
    destroy_everywhere(&id);
}

static const struct volume_state *find_state(const struct volume_state *states, size_t n, const struct uuid *id)
{
    for (size_t i = 0; i < n; i++) {
        if (uuid_eq(&states[i].dataset, id))
            return &states[i];
    }
    return NULL;
}

static void free_states(struct volume_state *states, size_t n)
{
    for (size_t i = 0; i < n; i++)
        volume_state_done(&states[i]);
    free(states);
}

/* What one node's list says is enough for another one to know where a volume is. */
static void test_list_serves_all(void **state)
{
    const struct driver *d;
    struct volume_state *states;
    size_t n;

    ok(driver_find(node_backend, &d));
    if (!d->tells_hosts)
        return;
    struct uuid id = new_mounted(A, 1), other = node_new_dataset();

    ok(storage_create(A->storage, &other, size_wanted(), NULL, 2));
    for (unsigned i = 0; i < NODES; i++) {
        ok(storage_list(nodes[i].storage, &states, &n));
        const struct volume_state *v = find_state(states, n, &id);
        assert_non_null(v);
        struct sighting s = {.dataset = id, .present = true, .hosts = v ? v->hosts : NULL};
        struct where_attached a = storage_where(A->storage, &s), b = storage_where(B->storage, &s);
        assert_true(a.here && !a.elsewhere);
        assert_true(!b.here && b.elsewhere);
        v = find_state(states, n, &other);
        assert_true(v && !v->hosts);
        free_states(states, n);
    }
    destroy_everywhere(&id);
    destroy_everywhere(&other);
}

static unsigned ec2_calls(void)
{
    return streq(node_backend, "aws") ? fake_ec2_calls(&node_ec2, "DescribeVolumes") : 0;
}

/* Looking again at what is known costs as little as it can, and still sees what is another. */
static void test_list_again(void **state)
{
    struct volume_state *states;
    size_t n;

    if (local())
        return;
    struct uuid id = new_mounted(A, 1);
    struct volume_state known = look(A, &id);

    assert_true(known.mounted);
    unsigned before = ec2_calls();
    ok(storage_list_again(A->storage, &known, 1, LIST_HERE_ONLY, &states, &n));
    assert_int_equal(ec2_calls(), before);
    assert_int_equal(n, 1);
    assert_true(states[0].mounted && states[0].attached && states[0].present && states[0].size == known.size);
    assert_string_equal(states[0].device, known.device);
    assert_int_equal(states[0].mark.state, MARK_OWNED);
    free_states(states, n);

    ok(storage_list_again(A->storage, &known, 1, /* flags= */ 0, &states, &n));
    if (streq(node_backend, "aws"))
        assert_int_equal(ec2_calls(), before + 1); /* one page; not one call more for what is mounted */
    const struct volume_state *v = find_state(states, n, &id);
    assert_true(v && v->mounted && v->attached);
    free_states(states, n);

    char *place = node_place(A, &id);
    shell("umount '%s'", place); /* by hand */
    ok(storage_list_again(A->storage, &known, 1, LIST_HERE_ONLY, &states, &n));
    assert_false(states[0].mounted);
    free_states(states, n);
    shell("mount -t tmpfs none '%s'", place); /* something else in its place */
    ok(storage_list_again(A->storage, &known, 1, LIST_HERE_ONLY, &states, &n));
    assert_false(states[0].mounted);
    free_states(states, n);
    shell("umount '%s'", place);
    free(place);
    volume_state_done(&known);
    known = (struct volume_state){.dataset = id, .present = true, .attached = true};
    ok(storage_mount(A->storage, &id, 1));
    ok(storage_list_again(A->storage, &known, 1, LIST_HERE_ONLY, &states, &n));
    assert_true(states[0].mounted); /* is not as known: to be looked at */
    free_states(states, n);
    destroy_everywhere(&id);
}

/* Unmounted, it is detached without being given away: it comes back with the next mount. */
static void test_detach(void **state)
{
    struct uuid id = new_mounted(A, 3);

    put(A, &id, "f", "kept");
    if (!local())
        fails(storage_detach(A->storage, &id), ERR_BUSY, NULL);
    check(A, &id, MARK_OWNED, 3, true, true);
    ok(storage_unmount(A->storage, &id));
    ok(storage_detach(A->storage, &id));
    ok(storage_detach(A->storage, &id));
    struct volume_state v = look(A, &id);

    assert_int_equal(v.mark.state, MARK_OWNED);
    assert_int_equal(v.attached, local());
    volume_state_done(&v);
    ok(storage_mount(A->storage, &id, 3));
    assert_content(A, &id, "f", "kept");
    destroy_everywhere(&id);
}

/* A's machine is off: its volume is taken away from it, and from no other. */
static void test_take_away(void **state)
{
    if (local() || streq(node_backend, "aws") ||
        streq(node_backend, "powerflex")) /* there the proof is the backend's: test_aws.c, test_powerflex.c */
        return;
    struct uuid id = new_mounted(A, 1), a = A->config.node, stranger = node_new_dataset();
    /* The array serves a host no longer, whether that is off or not. */
    bool cuts = streq(node_backend, "xtremio");

    if (streq(node_backend, "openstack")) { /* it cannot see whether it is off */
        put(A, &id, "f", "moved");
        ok(storage_claim(B->storage, &id, 2));
        ok(storage_take_away(B->storage, &id, 2, &stranger, 1));
        fails(storage_mount(B->storage, &id, 2), ERR_BUSY, node_instance(A));
        node_reboot(A);
        ok(storage_take_away(B->storage, &id, 2, &a, 1));
        ok(storage_take_away(B->storage, &id, 2, &a, 1));
        ok(storage_mount(B->storage, &id, 2));
        assert_content(B, &id, "f", "moved");
        fails(storage_mount(A->storage, &id, 1), ERR_BUSY, NULL);
        ok(storage_drop(A->storage, &id));
        destroy_everywhere(&id);
        return;
    }
    if (!A->storage->driver->detach_from) { /* who has it keeps it */
        ok(storage_claim(B->storage, &id, 2));
        ok(storage_take_away(B->storage, &id, 2, &a, 1));
        fails(storage_mount(B->storage, &id, 2), ERR_BUSY, node_instance(A));
        ok(storage_release(A->storage, &id, 1, 5, ""));
        destroy_everywhere(&id);
        return;
    }

    put(A, &id, "f", "moved");
    fails(storage_take_away(B->storage, &id, 2, &a, 1), ERR_CONFLICT, "does not own");
    ok(storage_claim(B->storage, &id, 2));
    ok(storage_take_away(B->storage, &id, 2, &stranger, 1));
    if (!cuts)
        fails(storage_take_away(B->storage, &id, 2, &a, 1), ERR_BUSY, "still uses the volume"); /* it is not off at all */
    fails(storage_mount(B->storage, &id, 2), ERR_BUSY, node_instance(A));
    node_reboot(A);
    ok(storage_take_away(B->storage, &id, 2, &a, 1));
    ok(storage_take_away(B->storage, &id, 2, &a, 1));
    ok(storage_mount(B->storage, &id, 2));
    assert_content(B, &id, "f", "moved");
    struct volume_state v = look(A, &id);
    assert_true(v.attached_elsewhere && !v.attached);
    assert_int_equal(v.mark.state, MARK_OWNED); /* of an epoch that is over */
    volume_state_done(&v);
    fails(storage_mount(A->storage, &id, 1), ERR_BUSY, NULL);
    ok(storage_take_away(B->storage, &id, 2, &a, 1)); /* nothing is there to take */
    assert_content(B, &id, "f", "moved");
    ok(storage_drop(A->storage, &id));
    destroy_everywhere(&id);
}

/* mkfs outlived its agent, ended well, and its note is still there. */
static void test_note_of_mkfs_goes(void **state)
{
    struct uuid id = node_new_dataset();

    if (local())
        return;
    ok(storage_create(A->storage, &id, 128 * MIB, NULL, 1));
    CLEANUP_FREE char *file = node_volume_file(&id);
    CLEANUP_FREE char *marks = node_mark_folder(A, &id);
    CLEANUP_FREE char *note = xasprintf("%s/mkfs", marks);

    shell("mkfs.ext4 -q -F %s && : >%s", file, note);
    int held = open(note, O_RDWR | O_CLOEXEC);

    assert_int_equal(flock(held, LOCK_EX), 0);
    fails(storage_mount(A->storage, &id, 1), ERR_BUSY, "still being formatted");
    close(held);
    ok(storage_mount(A->storage, &id, 1));
    assert_int_equal(access(note, F_OK), -1);
    destroy_everywhere(&id);
}

/* A mounted file system that is mounted once more is the same one: of the volume that the device was, if it is another now. */
static void test_used_device_is_not_mounted(void **state)
{
    struct uuid id = node_new_dataset();

    if (local())
        return;
    ok(storage_create(A->storage, &id, 128 * MIB, NULL, 1));
    ok(storage_mount(A->storage, &id, 1));
    struct volume_state v = look(A, &id);

    ok(storage_unmount(A->storage, &id));
    int held = open(v.device, O_RDONLY | O_EXCL | O_CLOEXEC);

    assert_true(held >= 0);
    fails(storage_mount(A->storage, &id, 1), ERR_BUSY, "not mounted: in use elsewhere");
    close(held);
    ok(storage_mount(A->storage, &id, 1));
    volume_state_done(&v);
    destroy_everywhere(&id);
}

static void test_never_formats(void **state)
{
    static const char *const kinds[] = {"mkfs.minix", "mkfs.btrfs -q -f", "mkswap -q",
                                        "mkfs.ext2 -q -F"};

    if (local())
        return;
    for (int i = 0; i < 6; i++) {
        struct uuid id = node_new_dataset();

        ok(storage_create(A->storage, &id, 128 * MIB, NULL, 1));
        CLEANUP_FREE char *file = node_volume_file(&id);

        if (i < 4)
            shell("%s %s", kinds[i], file);
        else /* an ext4 that lost its signature, and a stray byte */
            shell(
                "mkfs.ext4 -q -F %s && dd if=/dev/zero of=%s bs=1 seek=1024 count=%d conv=notrunc "
                "status=none",
                file, file, i == 4 ? 1024 : 128);
        shell("cp --sparse=always %s %s/before", file, node_dir);
        struct err *e = storage_mount(A->storage, &id, 1);

        if (!e)
            fail_msg("case %d was formatted", i);
        if (e->code != ERR_EXISTS)
            fail_msg("case %d: %s", i, e->text);
        err_free(e);
        ok(storage_unmount(A->storage, &id));
        ok(storage_release(A->storage, &id, 1, 1, ""));
        CLEANUP_FREE char *now = node_volume_file(&id);
        shell("cmp -n %u %s %s/before", SIZE, now,
              node_dir); /* a volume may be larger; mkfs begins here */
        destroy_everywhere(&id);
    }
}

/* ---- growing ---- */

static struct err *reopen(struct node *n, const char *filesystem, const char *options)
{
    json_t *o = json_deep_copy(n->config.dataset);

    (void)json_object_set_new(o, "filesystem", json_string(filesystem));
    (void)json_object_del(o, "mount_options");
    if (options)
        (void)json_object_set_new(o, "mount_options", json_string(options));
    json_decref((json_t *)n->config.dataset);
    n->config.dataset = o;
    n->storage = storage_close(n->storage);
    return storage_open(&n->config, &n->storage);
}

static bool has_xfs(void)
{
    return !system("command -v mkfs.xfs xfs_growfs >/dev/null && grep -qw xfs /proc/filesystems");
}

static bool may_grow_ext4(void)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2] = {0};

    return syscall(SYS_capget, &header, data) == 0 && data[0].effective & 1u << CAP_SYS_RESOURCE;
}

/* A mounted volume that can grow, on ext4 where the kernel lets us make one larger that is mounted; false: there is none. */
static bool growable(struct uuid *ret_id)
{
    if (real_cloud()) {
        print_message("Cinder's NFS driver does not grow a volume that is attached\n");
        return false;
    }
    if (local() || !A->storage->driver->grow)
        return false;
    if (!may_grow_ext4()) {
        print_message("ext4 is not grown: that needs CAP_SYS_RESOURCE\n");
        if (!has_xfs())
            return false;
        for (int i = 0; i < NODES; i++)
            ok(reopen(&nodes[i], "xfs", NULL));
    }
    *ret_id = node_new_dataset();
    ok(storage_create(A->storage, ret_id, 512ull * MIB, NULL, 1)); /* an xfs is no smaller */
    ok(storage_mount(A->storage, ret_id, 1));
    return true;
}

static void end_growable(const struct uuid *id)
{
    destroy_everywhere(id);
    for (int i = 0; i < NODES; i++)
        ok(reopen(&nodes[i], "ext4", NULL));
}

static uint64_t bytes_at(struct node *n, const struct uuid *id)
{
    CLEANUP_FREE char *place = node_place(n, id);
    struct statvfs st;

    assert_int_equal(statvfs(place, &st), 0);
    return (uint64_t)st.f_blocks * st.f_frsize;
}

static void is_as_large(struct node *n, const struct uuid *id, uint64_t size)
{
    struct volume_state v = look(n, id);

    assert_int_equal(v.size, size);
    volume_state_done(&v);
    assert_in_range(bytes_at(n, id), size / 10 * 8, size); /* the file system needs some itself */
}

static void test_grow(void **state)
{
    struct uuid id;

    if (!growable(&id))
        return;
    CLEANUP_FREE char *marks = node_mark_folder(A, &id);
    CLEANUP_FREE char *note = xasprintf("%s/grow", marks);
    struct volume_state v = look(A, &id);
    uint64_t size = v.size;
    char text[24];

    volume_state_done(&v);
    put(A, &id, "f", "kept");
    is_as_large(A, &id, size);
    fails(storage_grow(A->storage, &id, 2 * size, 2), ERR_CONFLICT, "does not own");
    fails(storage_grow(B->storage, &id, 2 * size, 1), ERR_CONFLICT, "does not own");
    ok(storage_grow(A->storage, &id, 2 * size, 1));
    is_as_large(A, &id, 2 * size);
    ok(storage_grow(A->storage, &id, 2 * size, 1));
    ok(storage_grow(A->storage, &id, size, 1)); /* never smaller */
    is_as_large(A, &id, 2 * size);
    assert_int_equal(access(note, F_OK), -1);
    /* Killed before the file system had grown: the state says so, and the next try goes through. */
    write_file(marks, "grow", text, (size_t)snprintf(text, sizeof(text), "%llu", (unsigned long long)size));
    v = look(A, &id);
    assert_int_equal(v.size, size);
    volume_state_done(&v);
    ok(storage_grow(A->storage, &id, 2 * size, 1));
    is_as_large(A, &id, 2 * size);
    assert_int_equal(access(note, F_OK), -1);
    assert_content(A, &id, "f", "kept");
    end_growable(&id);
}

/* The volume has grown and its node died before the file system had: whoever mounts it next finishes that. */
static void test_grown_elsewhere(void **state)
{
    struct uuid id;

    if (!growable(&id))
        return;
    CLEANUP_FREE char *marks = node_mark_folder(A, &id);
    struct volume_state v = look(A, &id);
    uint64_t size = v.size;

    volume_state_done(&v);
    put(A, &id, "f", "kept");
    write_file(marks, "grow", "1", 1);
    ok(storage_release(A->storage, &id, 1, 9, ""));
    ok(A->storage->driver->grow(A->storage->cookie, &id, 2 * size));
    ok(storage_claim(B->storage, &id, 2));
    ok(storage_mount(B->storage, &id, 2));
    is_as_large(B, &id, 2 * size);
    assert_content(B, &id, "f", "kept");
    /* Back, where the note of old still lies. */
    ok(storage_release(B->storage, &id, 2, 10, ""));
    ok(storage_claim(A->storage, &id, 3));
    ok(storage_mount(A->storage, &id, 3));
    is_as_large(A, &id, 2 * size);
    end_growable(&id);
}

/* ---- other file systems, and how they are mounted ---- */

static void is_mounted_as(const struct uuid *id, const char *what)
{
    CLEANUP_FREE char *place = node_place(A, id);
    CLEANUP_FREE char *got = shell_out("findmnt -n -o FSTYPE,OPTIONS %s | tr -s ' '", place);
    CLEANUP_FREE char *copy = xstrdup(what);

    for (char *save = copy, *one; (one = strsep(&save, " "));) {
        if (!strstr(got, one))
            fail_msg("mounted as %s, without %s", got, one);
    }
}

static void test_xfs(void **state)
{
    if (local() || streq(node_backend, "aws"))
        return;
    if (!has_xfs()) {
        print_message("without xfs: it needs xfsprogs and a kernel that knows it\n");
        return;
    }
    struct uuid id = node_new_dataset();
    uint64_t unit = node_unit(), size = (512ull * MIB + unit - 1) / unit * unit;

    ok(reopen(A, "xfs", "noatime,largeio"));
    ok(storage_create(A->storage, &id, size, NULL, 1));
    ok(storage_mount(A->storage, &id, 1));
    is_mounted_as(&id, "xfs noatime largeio");
    put(A, &id, "f", "kept");
    if (!real_cloud()) { /* Cinder's NFS driver does not grow a volume that is attached */
        ok(storage_grow(A->storage, &id, 2 * size, 1));
        is_as_large(A, &id, 2 * size);
    }
    /* What is there counts, not what new volumes get. */
    ok(storage_unmount(A->storage, &id));
    ok(reopen(A, "ext4", NULL));
    ok(storage_mount(A->storage, &id, 1));
    is_mounted_as(&id, "xfs relatime");
    assert_content(A, &id, "f", "kept");
    ok(storage_release(A->storage, &id, 1, 9, ""));
    /* mkfs.xfs was killed: its superblock says so, but only with our note it is ours to make again. */
    CLEANUP_FREE char *file = node_volume_file(&id);

    shell("printf '\\001' | dd of=%s bs=1 seek=126 conv=notrunc status=none", file);
    ok(storage_claim(A->storage, &id, 2));
    fails(storage_mount(A->storage, &id, 2), ERR_IO, "cannot mount the xfs file system");
    CLEANUP_FREE char *marks = node_mark_folder(A, &id);
    write_file(marks, "mkfs", "", 0);
    ok(storage_mount(A->storage, &id, 2));
    is_mounted_as(&id, "ext4");
    destroy_everywhere(&id);
}

static void test_mount_options(void **state)
{
    static const char *const bad[] = {"noatime,ro", "remount", "no atime", ",", "bind", "noload"};

    if (local())
        return;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        fails(reopen(A, "ext4", bad[i]), ERR_INVALID, "mount_options");
    fails(reopen(A, "btrfs", NULL), ERR_INVALID, "filesystem must be ext4 or xfs, not btrfs");
    struct uuid id = node_new_dataset();

    ok(reopen(A, "ext4", "nosuch=1"));
    ok(storage_create(A->storage, &id, size_wanted(), NULL, 1));
    fails(storage_mount(A->storage, &id, 1), ERR_INVALID, "nosuch");
    (void)json_object_set_new((json_t *)A->config.dataset, "discard", json_true());
    ok(reopen(A, "ext4", "nodev,noexec,nodiratime,commit=7"));
    ok(storage_mount(A->storage, &id, 1));
    is_mounted_as(&id, "ext4 nodev noexec nodiratime commit=7 discard");
    destroy_everywhere(&id);
    (void)json_object_del((json_t *)A->config.dataset, "discard");
    ok(reopen(A, "ext4", NULL));
}

/* ---- crashes ---- */

static void one_life(const struct uuid *id)
{
    char sum[STORAGE_DIGEST_SIZE];
    struct err *e = NULL;

    /* From whatever a crash left, the same orders go through. */
    if (!e)
        e = storage_create(A->storage, id, size_wanted(), NULL, 1);
    if (!e)
        e = storage_mount(A->storage, id, 1);
    if (!e && local())
        e = storage_snapshot(A->storage, id, "one");
    if (!e && can_compare())
        e = storage_snapshot_digest(A->storage, id, "one", NULL, sum);
    if (!e)
        e = storage_release(A->storage, id, 1, 3, local() ? "two" : "");
    if (!e && local())
        e = storage_promote(A->storage, id, "two", size_wanted(), 2);
    if (!e && !local())
        e = storage_claim(A->storage, id, 2);
    if (!e)
        e = storage_mount(A->storage, id, 2);
    if (e && e->code == ERR_CONFLICT) /* beyond this order already */
        e = err_free(e);
    if (!e)
        e = storage_destroy(A->storage, id);
    /* A program of the killed process (mkfs, tar) still runs: that passes. */
    static int patience = 250;

    if (e && e->code == ERR_BUSY && patience-- > 0) {
        e = err_free(e);
        usleep(20000);
    }
    if (e) {
        (void)fprintf(stderr, "%s\n", e->text);
        _exit(1);
    }
}

static void life_process(struct uuid id)
{
    node_close(A);
    struct err *e = storage_open(&A->config, &A->storage);

    if (e) {
        (void)fprintf(stderr, "%s\n", e->text);
        _exit(1);
    }
    for (;;)
        one_life(&id);
}

/* Kills a process at a random instruction of the whole life, again and again; the next one must get
 * through. */
static void test_kill_anywhere(void **state)
{
    struct uuid id = node_new_dataset();
    uint64_t seed = 42;
    struct random r = random_seeded(&seed);

    for (int i = 0; i < (real_cloud() ? 12 : 25); i++) {
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (!pid) {
            alarm(60);
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            life_process(id);
        }
        usleep((useconds_t)random_below(&r, real_cloud()                     ? 3000000
                                            : streq(node_backend, "btrfs") ? 60000
                                                                           : 200000));
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL)
            fail_msg("round %d: the process failed by itself (status %x)", i, (unsigned)status);
    }
    sleep(1); /* programs of the killed process may still end */
    node_close(A);
    node_open(A);
    destroy_everywhere(&id);
    CLEANUP_FREE char *left =
        shell_out("find %s -xdev -name '*%s*' | grep -v /proc || true", node_dir, UUID_STR(&id));
    assert_string_equal(left, "");
}

/* The same of a volume that grows and grows, while it is mounted. */
static void test_kill_while_growing(void **state)
{
    struct uuid id;
    uint64_t seed = 43, step = node_unit() > 16 * MIB ? node_unit() : 16 * MIB;
    struct random r = random_seeded(&seed);

    if (streq(node_backend, "aws") || !growable(&id)) /* EC2 lets a volume grow four times a day */
        return;
    put(A, &id, "f", "kept");
    for (int i = 0; i < 12; i++) {
        struct volume_state v;
        int status;
        pid_t pid = fork();

        assert_true(pid >= 0);
        if (!pid) {
            alarm(60);
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            v = look(A, &id);
            for (uint64_t size = v.size;; size += step)
                ok(storage_grow(A->storage, &id, size, 1));
        }
        usleep((useconds_t)random_below(&r, 250000));
        kill(pid, SIGKILL);
        assert_int_equal(waitpid(pid, &status, 0), pid);
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
        v = look(A, &id);
        assert_true(v.mounted);
        ok(storage_grow(A->storage, &id, v.size + step, 1));
        is_as_large(A, &id, v.size + step);
        volume_state_done(&v);
    }
    assert_content(A, &id, "f", "kept");
    end_growable(&id);
}

static void *live(void *cookie)
{
    struct uuid id = node_new_dataset();
    struct err *e = NULL;

    for (uint64_t i = 0; i < (real_cloud() ? 1 : 5) && !e; i++) {
        struct volume_state v = {0};

        e = storage_create(A->storage, &id, size_wanted(), NULL, 1);
        if (!e)
            e = storage_mount(A->storage, &id, 1);
        if (!e)
            e = storage_observe(A->storage, &id, &v);
        if (!e && (!v.mounted || v.mark.epoch != 1))
            e = err_new(ERR_INTERNAL, "not mounted after mount");
        volume_state_done(&v);
        if (!e)
            e = storage_release(A->storage, &id, 1, 3, local() ? "s" : "");
        if (!e)
            e = storage_destroy(A->storage, &id);
    }
    *(struct err **)cookie = e;
    return NULL;
}

/* Different datasets at the same time, beside lists of everything. */
static void test_parallel(void **state)
{
    enum { N = 6 };
    pthread_t t[N];
    struct err *e[N];
    struct volume_state *states;
    size_t n;

    for (int i = 0; i < N; i++)
        assert_int_equal(pthread_create(&t[i], NULL, live, &e[i]), 0);
    for (int i = 0; i < 20; i++) {
        ok(storage_list(A->storage, &states, &n));
        for (size_t k = 0; k < n; k++)
            volume_state_done(&states[k]);
        free(states);
    }
    for (int i = 0; i < N; i++)
        pthread_join(t[i], NULL);
    for (int i = 0; i < N; i++)
        ok(e[i]);
}

/* Not a pass/fail by time: prints what the steps of a move cost. */
static void test_speed(void **state)
{
    enum { N = 20 };
    struct uuid ids[N];
    const int rounds = real_cloud() ? 4 : N;
    struct volume_state *states;
    size_t n;
    uint64_t t0 = now_os().mono_us, t1, t2, t3, t4;

    for (int i = 0; i < rounds; i++) {
        ids[i] = node_new_dataset();
        ok(storage_create(A->storage, &ids[i], size_wanted(), NULL, 1));
        ok(storage_mount(A->storage, &ids[i], 1));
    }
    t1 = now_os().mono_us;
    ok(storage_list(A->storage, &states, &n));
    t2 = now_os().mono_us;
    for (size_t i = 0; i < n; i++)
        volume_state_done(&states[i]);
    free(states);
    for (int i = 0; i < rounds; i++)
        ok(storage_release(A->storage, &ids[i], 1, 3, local() ? "s" : ""));
    t3 = now_os().mono_us;
    for (int i = 0; i < rounds; i++) {
        if (local())
            ok(storage_promote(A->storage, &ids[i], "s", size_wanted(), 2));
        else
            ok(storage_claim(A->storage, &ids[i], 2));
        ok(storage_mount(A->storage, &ids[i], 2));
    }
    t4 = now_os().mono_us;
    print_message("%s, ms each: create+mount %.1f, list %.2f a dataset, release %.1f, "
                  "promote+mount %.1f\n",
                  node_backend, (double)(t1 - t0) / rounds / 1000, (double)(t2 - t1) / rounds / 1000,
                  (double)(t3 - t2) / rounds / 1000, (double)(t4 - t3) / rounds / 1000);
    for (int i = 0; i < rounds; i++)
        destroy_everywhere(&ids[i]);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life),
        cmocka_unit_test(test_size),
        cmocka_unit_test(test_profile),
        cmocka_unit_test(test_claim),
        cmocka_unit_test(test_drop),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_reboot),
        cmocka_unit_test(test_foreign_mount_in_the_way),
        cmocka_unit_test(test_folder_without_anything),
        cmocka_unit_test(test_damaged_mark),
        cmocka_unit_test(test_busy_open),
        cmocka_unit_test(test_busy_cwd),
        cmocka_unit_test(test_busy_map),
        cmocka_unit_test(test_busy_private_bind),
        cmocka_unit_test(test_busy_old_descriptor),
        cmocka_unit_test(test_busy_old_map),
        cmocka_unit_test(test_busy_thread_files),
        cmocka_unit_test(test_busy_nested_mount),
        cmocka_unit_test(test_others_are_no_reason),
        cmocka_unit_test(test_release_is_final),
        cmocka_unit_test(test_release_survives_reboot),
        cmocka_unit_test(test_snapshots),
        cmocka_unit_test(test_move_there_and_back),
        cmocka_unit_test(test_comparing),
        cmocka_unit_test(test_promote_once),
        cmocka_unit_test(test_replica),
        cmocka_unit_test(test_space),
        cmocka_unit_test(test_bad_streams),
        cmocka_unit_test(test_send_cancel),
        cmocka_unit_test(test_promoted_limit),
        cmocka_unit_test(test_final_snapshot_is_retaken),
        cmocka_unit_test(test_attachable_move),
        cmocka_unit_test(test_list_serves_all),
        cmocka_unit_test(test_list_again),
        cmocka_unit_test(test_detach),
        cmocka_unit_test(test_take_away),
        cmocka_unit_test(test_grow),
        cmocka_unit_test(test_grown_elsewhere),
        cmocka_unit_test(test_xfs),
        cmocka_unit_test(test_mount_options),
        cmocka_unit_test(test_kill_while_growing),
        cmocka_unit_test(test_note_of_mkfs_goes),
        cmocka_unit_test(test_used_device_is_not_mounted),
        cmocka_unit_test(test_never_formats),
        cmocka_unit_test(test_parallel),
        cmocka_unit_test(test_kill_anywhere),
        cmocka_unit_test(test_speed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    return node_main(argc, argv, run);
}
