/* The store on disks that fill up, turn read-only, fail, or lose power. Real file systems, in a
 * mount namespace of this process: whatever is mounted goes with it, however it ends (loop devices
 * clear themselves). */
#include "store_test.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <sched.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>

extern char **environ;

#define IMAGE_SIZE (24 << 20)
#define EXT4_IOC_SHUTDOWN _IOR('X', 125, uint32_t)
#define SHUTDOWN_NO_LOG_FLUSH 2u

struct place {
    char *temp;
    char *image; /* file of the file system */
    char *mount;
    char *dir; /* of the store, inside */
};

static int setup(void **state)
{
    struct place *p = xcalloc(1, sizeof(*p));

    p->temp = make_temp();
    p->image = xasprintf("%s/image", p->temp);
    p->mount = xasprintf("%s/mount", p->temp);
    p->dir = xasprintf("%s/store", p->mount);
    *state = p;
    return mkdir(p->mount, 0700);
}

static int teardown(void **state)
{
    struct place *p = *state;

    (void)umount2(p->mount, MNT_DETACH);
    remove_temp(p->temp);
    free(p->image);
    free(p->mount);
    free(p->dir);
    free(p);
    return 0;
}

static void run_program(char *const argv[])
{
    posix_spawn_file_actions_t fa;
    int status;
    pid_t pid;

    (void)posix_spawn_file_actions_init(&fa);
    (void)posix_spawn_file_actions_addopen(&fa, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    assert_int_equal(posix_spawnp(&pid, argv[0], &fa, NULL, argv, environ), 0);
    (void)posix_spawn_file_actions_destroy(&fa);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
        fail_msg("%s failed: status %d", argv[0], status);
}

static void make_image(struct place *p)
{
    char *argv[] = {(char *)"mkfs.ext4", (char *)"-q", (char *)"-F", p->image, NULL};
    CLEANUP_CLOSE int fd = open(p->image, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, IMAGE_SIZE), 0);
    run_program(argv);
}

/* An open loop device on the file; it is gone when the last user is. */
static int attach(const char *image, char *name, size_t size)
{
    CLEANUP_CLOSE int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
    CLEANUP_CLOSE int file = open(image, O_RDWR | O_CLOEXEC);

    assert_true(control >= 0 && file >= 0);
    for (int attempt = 0; attempt < 50; attempt++) {
        int number = ioctl(control, LOOP_CTL_GET_FREE);
        struct loop_config c = {.fd = (uint32_t)file, .info.lo_flags = LO_FLAGS_AUTOCLEAR};

        assert_true(number >= 0);
        (void)snprintf(name, size, "/dev/loop%d", number);
        CLEANUP_CLOSE int fd = open(name, O_RDWR | O_CLOEXEC);
        if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &c) == 0)
            return steal_fd(&fd);
        (void)usleep(10000); /* somebody else took that number */
    }
    fail_msg("no free loop device");
    return -1;
}

static void mount_image(const char *image, const char *where)
{
    char name[32];
    CLEANUP_CLOSE int loop = attach(image, name, sizeof(name));

    if (mount(name, where, "ext4", MS_NOSUID | MS_NODEV, NULL) < 0)
        fail_msg("mount %s: %s", name, strerrordesc_np(errno));
}

static struct store *open_store(const char *dir)
{
    struct store *s = NULL;

    ok(store_open(dir, &s));
    return s;
}

/* Writes a file until the disk is full. */
static void fill(const struct place *p, char **ret_path)
{
    static const char zeros[65536];
    char *path = xasprintf("%s/filler", p->mount);
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    for (size_t size = sizeof(zeros); size >= 512; size /= 2) {
        while (write(fd, zeros, size) == (ssize_t)size)
            ;
    }
    assert_int_equal(errno, ENOSPC);
    *ret_path = path;
}

static void full_disk(struct place *p)
{
    struct store *s = open_store(p->dir);
    CLEANUP_FREE char *filler = NULL;
    uint64_t n = 1;
    bool uncertain;
    struct err *e = NULL;

    for (; n <= 20; n++)
        ok(commit_numbered(s, n, 100, &uncertain));
    fill(p, &filler);
    /* What the log has room for still goes in; then it is full, and stays so. */
    while (n < 5000 && !(e = commit_numbered(s, n, 2000, &uncertain)))
        n++;
    refused(e, ERR_NO_SPACE, "free space on that file system");
    assert_false(uncertain);
    for (int i = 0; i < 3; i++) {
        refused(commit_numbered(s, n, 9000, &uncertain), ERR_NO_SPACE, "store");
        assert_false(uncertain);
    }
    assert_numbered(s, n - 1);
    assert_true(store_revision(s) == n - 1);

    assert_int_equal(unlink(filler), 0);
    for (uint64_t last = n + 50; n <= last; n++)
        ok(commit_numbered(s, n, 2000, &uncertain));
    assert_numbered(s, n - 1);
    store_close(s);
    s = open_store(p->dir);
    assert_numbered(s, n - 1);
    assert_true(store_revision(s) == n - 1);
    store_close(s);
}

static void test_full_tmpfs(void **state)
{
    struct place *p = *state;

    assert_int_equal(mount("tmpfs", p->mount, "tmpfs", 0, "size=2m"), 0);
    full_disk(p);
}

static void test_full_ext4(void **state)
{
    struct place *p = *state;

    make_image(p);
    mount_image(p->image, p->mount);
    full_disk(p);
}

/* Opening on a full disk works when the store exists, and says so when it does not. */
static void test_open_full(void **state)
{
    struct place *p = *state;
    CLEANUP_FREE char *other = xasprintf("%s/other", p->mount);
    CLEANUP_FREE char *filler = NULL;
    struct store *s = NULL;
    bool uncertain;

    assert_int_equal(mount("tmpfs", p->mount, "tmpfs", 0, "size=1m"), 0);
    s = open_store(p->dir);
    ok(commit_numbered(s, 1, 10, &uncertain));
    store_close(s);
    fill(p, &filler);
    refused(store_open(other, &s), ERR_NO_SPACE, "");
    s = open_store(p->dir);
    assert_numbered(s, 1);
    refused(commit_numbered(s, 2, 10, &uncertain), ERR_NO_SPACE, "");
    assert_false(uncertain);
    assert_int_equal(unlink(filler), 0);
    /* This life could not be named: the next one may write. */
    refused(commit_numbered(s, 2, 10, &uncertain), ERR_NO_SPACE, "must start again");
    assert_true(uncertain);
    store_close(s);
    s = open_store(p->dir);
    assert_numbered(s, 1);
    ok(commit_numbered(s, 2, 10, &uncertain));
    store_close(s);
    store_close(open_store(other)); /* the half-made one is finished */
}

static void assert_waits(struct store *s)
{
    struct store_content c;

    ok(store_load_sync(s, &c));
    assert_true(c.history.unsettled);
    store_content_done(&c);
}

/* That a store was put back cannot be noted on a full disk; it is not forgotten by that. */
static void test_put_back_full(void **state)
{
    struct place *p = *state;
    CLEANUP_FREE char *filler = NULL, *mark = xasprintf("%s/acknowledged", p->dir);
    struct store *s = NULL;
    bool uncertain;

    assert_int_equal(mount("tmpfs", p->mount, "tmpfs", 0, "size=1m"), 0);
    s = open_store(p->dir);
    ok(commit_numbered(s, 1, 10, &uncertain));
    store_close(s);
    assert_int_equal(unlink(mark), 0);
    fill(p, &filler);
    for (int i = 0; i < 2; i++) {
        s = open_store(p->dir);
        assert_waits(s);
        assert_true(access(mark, F_OK) < 0);
        store_close(s);
    }
    assert_int_equal(unlink(filler), 0);
    for (int i = 0; i < 2; i++) {
        s = open_store(p->dir);
        assert_waits(s);
        assert_int_equal(access(mark, F_OK), 0);
        store_close(s);
    }
}

static void test_read_only(void **state)
{
    struct place *p = *state;
    struct store *s;
    bool uncertain;

    make_image(p);
    mount_image(p->image, p->mount);
    s = open_store(p->dir);
    ok(commit_numbered(s, 1, 10, &uncertain));
    store_close(s);
    assert_int_equal(mount(NULL, p->mount, NULL, MS_REMOUNT | MS_RDONLY, NULL), 0);
    refused(store_open(p->dir, &s), ERR_DENIED, "read-only");
    assert_int_equal(mount(NULL, p->mount, NULL, MS_REMOUNT, NULL), 0);
    s = open_store(p->dir);
    assert_numbered(s, 1);
    ok(commit_numbered(s, 2, 10, &uncertain));
    store_close(s);
}

/* Everything up to `acknowledged` is in the file system of `image` after a power cut. */
static void check_image(struct place *p, const char *image, uint64_t acknowledged)
{
    struct store *s;
    bool uncertain;

    mount_image(image, p->mount);
    s = open_store(p->dir);
    assert_numbered(s, acknowledged);
    ok(commit_numbered(s, store_revision(s) + 1, 10, &uncertain));
    store_close(s);
    assert_int_equal(umount2(p->mount, 0), 0);
}

static char *copy_image(const struct place *p, unsigned number)
{
    char *path = xasprintf("%s/copy%u", p->temp, number);
    CLEANUP_CLOSE int from = open(p->image, O_RDONLY | O_CLOEXEC);
    CLEANUP_CLOSE int to = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    assert_true(from >= 0 && to >= 0);
    while (sendfile(to, from, NULL, 1 << 24) > 0)
        ;
    assert_int_equal(lseek(to, 0, SEEK_CUR), IMAGE_SIZE);
    return path;
}

/* The backing file at the moment of the acknowledgement is what a power cut would leave behind:
 * pages that nobody flushed are only in the memory of the file system above it. */
static void test_power_cut(void **state)
{
    struct place *p = *state;
    /* The first commit of a new store; others in the log; one just after the log was written back.
     */
    static const uint64_t cuts[] = {1, 2, 30, 700};
    char *copies[ARRAY_SIZE(cuts)];
    struct store *s;
    bool uncertain;

    make_image(p);
    mount_image(p->image, p->mount);
    s = open_store(p->dir);
    for (uint64_t n = 1, next = 0; next < ARRAY_SIZE(cuts); n++) {
        ok(commit_numbered(s, n, n == 700 ? 200000 : 300, &uncertain));
        if (n == cuts[next]) {
            copies[next] = copy_image(p, (unsigned)next);
            next++;
        }
    }
    store_close(s);
    assert_int_equal(umount2(p->mount, 0), 0);
    for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
        check_image(p, copies[i], cuts[i]);
        free(copies[i]);
    }
}

/* The disk fails under the running store: the outcome of that commit is unknown, and the store
 * takes no more; after the restart all that was acknowledged is there. */
static void test_disk_fails(void **state)
{
    struct place *p = *state;
    uint32_t how = SHUTDOWN_NO_LOG_FLUSH;
    struct store *s;
    bool uncertain;

    make_image(p);
    mount_image(p->image, p->mount);
    s = open_store(p->dir);
    for (uint64_t n = 1; n <= 40; n++)
        ok(commit_numbered(s, n, 300, &uncertain));
    CLEANUP_CLOSE int fd = open(p->mount, O_RDONLY | O_CLOEXEC);
    assert_int_equal(ioctl(fd, EXT4_IOC_SHUTDOWN, &how), 0);
    (void)close(steal_fd(&fd));
    refused(commit_numbered(s, 41, 300, &uncertain), ERR_IO, "check the disk");
    assert_true(uncertain);
    refused(commit_numbered(s, 42, 300, &uncertain), ERR_IO, "restart the control service");
    assert_true(uncertain);
    assert_true(store_revision(s) == 40);
    store_close(s);
    assert_int_equal(umount2(p->mount, 0), 0);
    check_image(p, p->image, 40);
}

/* An error of ext4 itself turns it read-only under the running store, between two commits. */
static void read_only_after(struct place *p, uint64_t commits)
{
    char loop[32];
    bool uncertain = false;
    CLEANUP_CLOSE int device = attach(p->image, loop, sizeof(loop));
    CLEANUP_FREE char *trigger = xasprintf("/sys/fs/ext4/%s/trigger_fs_error", loop + strlen("/dev/"));

    assert_int_equal(mount(loop, p->mount, "ext4", MS_NOSUID | MS_NODEV, "errors=remount-ro"), 0);
    struct store *s = open_store(p->dir);
    uint64_t n = store_revision(s) + 1, last = n + commits;
    for (; n < last; n++)
        ok(commit_numbered(s, n, 900, &uncertain));
    CLEANUP_CLOSE int fd = open(trigger, O_WRONLY | O_CLOEXEC);
    assert_int_equal(write(fd, "test", 4), 4);
    for (int i = 0; i < 3 && !uncertain; i++) {
        struct err *e = commit_numbered(s, n, 900, &uncertain);

        assert_non_null(e);
        assert_non_null(strstr(e->text, p->dir));
        err_free(e);
    }
    assert_true(store_revision(s) == n - 1);
    store_close(s);
    refused(store_open(p->dir, &s), ERR_DENIED, "read-only");
    assert_int_equal(umount2(p->mount, 0), 0);
    (void)close(steal_fd(&device));
    check_image(p, p->image, n - 1);
}

static void test_turns_read_only(void **state)
{
    make_image(*state);
    for (uint64_t commits = 0; commits < 60; commits += 9)
        read_only_after(*state, commits);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_full_tmpfs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_full_ext4, setup, teardown),
        cmocka_unit_test_setup_teardown(test_open_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_put_back_full, setup, teardown),
        cmocka_unit_test_setup_teardown(test_read_only, setup, teardown),
        cmocka_unit_test_setup_teardown(test_power_cut, setup, teardown),
        cmocka_unit_test_setup_teardown(test_disk_fails, setup, teardown),
        cmocka_unit_test_setup_teardown(test_turns_read_only, setup, teardown),
    };

    if (geteuid() != 0 || unshare(CLONE_NEWNS) < 0 ||
        mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0) {
        (void)fprintf(stderr, "skipped: needs root for a private mount namespace\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
