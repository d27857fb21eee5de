/* The digest of a tree: the same for equal trees however they came to be, another for each difference. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"
#include "drivers/digest.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

static char top[] = "/tmp/flocker-digest-XXXXXX";

static void must(int rc, const char *what)
{
    if (rc < 0)
        fail_msg("%s: %s", what, strerror(errno));
}
#define MUST(expr) must((int)(expr), #expr)

static const struct timespec times[2] = {{1000000000, 5}, {1000000000, 7}};

static void set_time(int dir, const char *name)
{
    MUST(utimensat(dir, name, times, AT_SYMLINK_NOFOLLOW));
}

static void put_file(int dir, const char *name, const char *text, off_t at)
{
    CLEANUP_CLOSE int fd = openat(dir, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0640);

    MUST(fd);
    MUST(pwrite(fd, text, strlen(text), at));
    set_time(dir, name);
}

/* The same tree each time. `name` is the folder. */
static int make(const char *name)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", top, name);

    MUST(mkdir(path, 0750));
    int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    MUST(dir);
    put_file(dir, "a", "some text", 0);
    put_file(dir, "holes", "far away", 3000000);
    put_file(dir, "zz", "", 0);
    MUST(linkat(dir, "a", dir, "b", 0));
    MUST(symlinkat("../../etc/passwd", dir, "link"));
    MUST(mknodat(dir, "device", S_IFCHR | 0600, makedev(1, 3)));
    MUST(mknodat(dir, "pipe", S_IFIFO | 0600, 0));
    MUST(mkdirat(dir, "sub", 0700));
    MUST(mkdirat(dir, "sub/deep", 0700));
    put_file(dir, "sub/deep/x", "x", 0);
    put_file(dir, "sub/y", "y", 0);
    static const char *const others[] = {"link", "device", "pipe", "sub/deep", "sub", "."};
    for (size_t i = 0; i < ARRAY_SIZE(others); i++)
        set_time(dir, others[i]);
    return dir;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
    return remove(path);
}

static void drop(const char *name)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", top, name);

    MUST(nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS));
}

static char *digest(int dir)
{
    char d[STORAGE_DIGEST_SIZE];
    struct err *e = digest_tree(dir, NULL, d);

    if (e)
        fail_msg("%s", e->text);
    assert_int_equal(strspn(d, "0123456789abcdef"), STORAGE_DIGEST_SIZE - 1);
    return xstrdup(d);
}

/* ---- what makes a difference ---- */

static void change_text(int d)
{
    put_file(d, "a", "same text", 0);
}

static void change_last_byte(int d)
{
    put_file(d, "holes", "!", 3000007);
}

static void longer(int d)
{
    CLEANUP_CLOSE int fd = openat(d, "holes", O_WRONLY | O_CLOEXEC);
    MUST(ftruncate(fd, 4000000));
    set_time(d, "holes");
}

static void data_elsewhere(int d)
{
    MUST(unlinkat(d, "holes", 0));
    CLEANUP_CLOSE int fd = openat(d, "holes", O_WRONLY | O_CREAT | O_CLOEXEC, 0640);
    MUST(pwrite(fd, "far away", 8, 2900000));
    MUST(ftruncate(fd, 3000008));
    set_time(d, "holes");
}

static void rename_one(int d)
{
    MUST(renameat(d, "zz", d, "zy"));
}

static void move_up(int d)
{
    MUST(renameat(d, "sub/deep/x", d, "sub/x"));
    set_time(d, "sub/deep");
    set_time(d, "sub");
}

static void mode(int d)
{
    MUST(fchmodat(d, "zz", 0644, 0));
}

static void root_mode(int d)
{
    MUST(fchmod(d, 0755));
}

static void owner(int d)
{
    MUST(fchownat(d, "zz", 7, (gid_t)-1, 0));
}

static void link_owner(int d)
{
    MUST(fchownat(d, "link", (uid_t)-1, 7, AT_SYMLINK_NOFOLLOW));
}

static void later(int d)
{
    struct timespec t[2] = {times[0], {1000000000, 8}};
    MUST(utimensat(d, "zz", t, 0));
}

static void attribute(int d)
{
    CLEANUP_CLOSE int fd = openat(d, "zz", O_RDONLY | O_CLOEXEC);
    MUST(fsetxattr(fd, "trusted.flocker-test", "1", 1, 0));
}

static void copy_of_link(int d)
{
    MUST(unlinkat(d, "b", 0));
    put_file(d, "b", "some text", 0);
}

static void third_link(int d)
{
    MUST(linkat(d, "a", d, "c", 0));
}

static void other_target(int d)
{
    MUST(unlinkat(d, "link", 0));
    MUST(symlinkat("../../etc/passwt", d, "link"));
    set_time(d, "link");
}

static void other_device(int d)
{
    MUST(unlinkat(d, "device", 0));
    MUST(mknodat(d, "device", S_IFCHR | 0600, makedev(1, 5)));
    set_time(d, "device");
}

static void other_type(int d)
{
    MUST(unlinkat(d, "pipe", 0));
    MUST(mknodat(d, "pipe", S_IFSOCK | 0600, 0));
    set_time(d, "pipe");
}

static void empty_folder(int d)
{
    MUST(mkdirat(d, "new", 0700));
    set_time(d, "new");
}

static void test_differences(void **state)
{
    static void (*const changes[])(int) = {
        change_text, change_last_byte, longer,     data_elsewhere, rename_one, move_up,      mode,
        root_mode,   owner,            link_owner, later,          attribute,  copy_of_link, third_link,
        other_target, other_device,    other_type, empty_folder};
    CLEANUP_CLOSE int first = make("first");
    CLEANUP_FREE char *wanted = digest(first);

    for (size_t i = 0; i < ARRAY_SIZE(changes); i++) {
        CLEANUP_CLOSE int dir = make("second");
        CLEANUP_FREE char *before = digest(dir);

        assert_string_equal(before, wanted);
        changes[i](dir);
        set_time(dir, "."); /* so that it is not the folder's time that shows it */
        CLEANUP_FREE char *after = digest(dir);
        if (streq(after, wanted))
            fail_msg("change %zu is not seen", i);
        drop("second");
    }
    drop("first");
}

/* What is no difference: the order of making, holes, other times. */
static void test_same(void **state)
{
    CLEANUP_CLOSE int first = make("first"), second = make("second");
    CLEANUP_FREE char *wanted = digest(first);
    CLEANUP_FREE char *zeros = xcalloc(1, 3000000);

    CLEANUP_CLOSE int fd = openat(second, "holes", O_WRONLY | O_CLOEXEC); /* the hole is written */
    assert_int_equal(pwrite(fd, zeros, 3000000, 0), 3000000);
    set_time(second, "holes");
    MUST(unlinkat(second, "a", 0)); /* the other name came first */
    MUST(linkat(second, "b", second, "a", 0));
    MUST(unlinkat(second, "zz", 0));
    put_file(second, "zz", "", 0);
    struct timespec access[2] = {{5, 5}, times[1]};
    MUST(utimensat(second, "zz", access, 0));
    set_time(second, ".");
    CLEANUP_FREE char *same = digest(second);
    assert_string_equal(same, wanted);
    drop("first");
    drop("second");
}

/* Deeper than descriptors or paths reach; and the walk stays inside. */
static void test_deep(void **state)
{
    CLEANUP_CLOSE int first = make("first");
    int at = dup(first);

    for (int i = 0; i < 3000; i++) {
        MUST(mkdirat(at, "another-folder", 0700));
        int next = openat(at, "another-folder", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        MUST(next);
        (void)close(at);
        at = next;
    }
    CLEANUP_FREE char *before = digest(first);
    put_file(at, "x", "x", 0);
    CLEANUP_FREE char *after = digest(first);
    assert_string_not_equal(before, after);
    (void)close(at);
    atomic_bool cancel = true;
    char d[STORAGE_DIGEST_SIZE];
    CLEANUP_ERR struct err *e = digest_tree(first, &cancel, d);
    assert_true(err_is(e, ERR_CANCELLED));
    CLEANUP_FREE char *command = xasprintf("rm -rf %s/first", top);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_differences),
        cmocka_unit_test(test_same),
        cmocka_unit_test(test_deep),
    };

    if (geteuid() != 0) {
        (void)fprintf(stderr, "skipped: needs root (devices, owners)\n");
        return 77;
    }
    if (!mkdtemp(top)) {
        perror(top);
        return 1;
    }
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    (void)rmdir(top);
    return rc;
}
