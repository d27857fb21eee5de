#include "drivers/usage.h"

#include "base/log.h"
#include "base/str.h"
#include "drivers/durable.h"
#include "drivers/proc_text.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/kcmp.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* A mount table is read once for each pair of mount namespace and root folder: a process in a
 * chroot does not see the mounts outside of it. */
struct seen_view {
    ino_t ns;
    dev_t root_dev;
    ino_t root_ino;
};

struct scan {
    const struct usage_target *t;
    struct seen_view *views;
    size_t n_views, cap_views;
    pid_t self;
    char *hit;
};

/* Processes and descriptors vanish while we look: that is no failure. */
static bool gone(int errnum)
{
    return errnum == ENOENT || errnum == ESRCH;
}

static char *process_name(int task)
{
    CLEANUP_CLOSE int fd = openat(task, "comm", O_RDONLY | O_CLOEXEC);
    char buf[64];
    ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof(buf) - 1);

    if (n <= 0)
        return xstrdup("?");
    buf[n] = '\0';
    buf[strcspn(buf, "\n")] = '\0';
    return xstrdup(buf);
}

static void set_hit(struct scan *s, int task, pid_t pid, const char *path, const char *how)
{
    CLEANUP_FREE char *name = process_name(task);

    if (!s->hit)
        s->hit = xasprintf("pid %d (%s) has %s %s", (int)pid, name, path, how);
}

static bool below(const char *path, const char *top)
{
    size_t n = top ? strlen(top) : 0;

    return n && strncmp(path, top, n) == 0 && (!path[n] || path[n] == '/');
}

/* true when the file behind the link is one of the volume's. */
static bool is_ours(const struct scan *s, const struct stat *st, const char *path)
{
    const struct usage_target *t = s->t;

    if (t->device && S_ISBLK(st->st_mode) && st->st_rdev == t->device)
        return true;
    if (!t->files || st->st_dev != t->files)
        return false;
    return !t->path || below(path, t->path) || below(path, t->path2);
}

static bool is_path_only(int task, const char *fd)
{
    CLEANUP_FREE char *name = xasprintf("fdinfo/%s", fd);
    CLEANUP_FREE char *text = NULL;
    struct err *e = file_read(task, name, 65536, &text);

    err_free(e);
    return text && (proc_fdinfo_flags(text) & O_PATH);
}

/* A file of a file system that has died (the server of a FUSE or network one): nobody writes through it. */
static bool dead(int errnum)
{
    return errnum == ENOTCONN || errnum == ECONNABORTED || errnum == ESTALE;
}

static int check_link(struct scan *s, int task, int dir, const char *name, pid_t pid,
                      const char *how)
{
    struct stat st;
    char path[PATH_MAX];

    if (fstatat(dir, name, &st, 0) < 0)
        return gone(errno) || dead(errno) || errno == ENXIO || errno == ELOOP ? 0 : -errno;
    if (st.st_dev != s->t->files && !S_ISBLK(st.st_mode))
        return 0;
    ssize_t n = readlinkat(dir, name, path, sizeof(path) - 1);

    path[n > 0 ? n : 0] = '\0';
    if (is_ours(s, &st, path))
        set_hit(s, task, pid, path, how);
    return 0;
}

static int check_fds(struct scan *s, int task, pid_t pid)
{
    CLEANUP_CLOSE int fd = openat(task, "fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_DIR DIR *d = fd < 0 ? NULL : dir_stream(fd);
    const char *name;

    if (!d)
        return gone(errno) ? 0 : -errno;
    while (!s->hit && (name = dir_next(d))) {
        if (pid == s->self && is_path_only(task, name))
            continue; /* another thread of ours is just looking */
        int rc = check_link(s, task, fd, name, pid, "open");

        if (rc < 0)
            return rc;
    }
    return 0;
}

/* The device in a line of maps is the superblock's, which btrfs subvolumes share, so the mapped file
 * itself is asked. */
static int check_map(struct scan *s, int task, const char *line, pid_t pid)
{
    unsigned major, minor;
    char range[PROC_RANGE_SIZE], name[96];

    if (!proc_map_parse(line, range, &major, &minor))
        return 0;
    if (s->t->spot && s->t->spot->root ? major != s->t->spot->major || minor != s->t->spot->minor
                                       : makedev(major, minor) != s->t->files)
        return 0;
    (void)snprintf(name, sizeof(name), "../../map_files/%s", range);
    return check_link(s, task, task, name, pid, "mapped");
}

static int check_maps(struct scan *s, int task, pid_t pid)
{
    int fd = openat(task, "maps", O_RDONLY | O_CLOEXEC);
    FILE *f = fd < 0 ? NULL : fdopen(fd, "re");
    char *line = NULL;
    size_t cap = 0;
    int rc = 0;

    if (!f) {
        rc = -errno;
        if (fd >= 0)
            close(fd);
        return gone(-rc) ? 0 : rc;
    }
    while (!rc && !s->hit && getline(&line, &cap, f) > 0)
        rc = check_map(s, task, line, pid);
    if (!rc && ferror(f) && !gone(errno))
        rc = -errno;
    free(line);
    fclose(f);
    return rc;
}

static bool view_seen(struct scan *s, const struct seen_view *v)
{
    for (size_t i = 0; i < s->n_views; i++) {
        const struct seen_view *o = &s->views[i];

        if (o->ns == v->ns && o->root_dev == v->root_dev && o->root_ino == v->root_ino)
            return true;
    }
    s->views = mem_grow(s->views, s->n_views, &s->cap_views, sizeof(*s->views));
    s->views[s->n_views++] = *v;
    return false;
}

static void find_mount(struct scan *s, int task, pid_t pid, const struct mount_table *table)
{
    for (size_t i = 0; i < table->n && !s->hit; i++) {
        const struct mount_entry *m = &table->entries[i];

        if (!mount_entry_is_of(m, s->t->spot))
            continue;
        if (s->t->except && streq(m->target, s->t->except))
            continue;
        set_hit(s, task, pid, m->target, "mounted in its mount namespace");
    }
}

static int check_mounts(struct scan *s, int task, pid_t pid)
{
    struct stat ns, root;
    CLEANUP_MOUNTS struct mount_table table = {0};
    bool known = fstatat(task, "ns/mnt", &ns, 0) == 0 && fstatat(task, "root", &root, 0) == 0;

    if (!known && gone(errno))
        return 0;
    if (known && view_seen(s, &(struct seen_view){ns.st_ino, root.st_dev, root.st_ino}))
        return 0;
    CLEANUP_CLOSE int fd = openat(task, "mountinfo", O_RDONLY | O_CLOEXEC);
    int rc = fd < 0 ? -errno : mount_table_read_fd(fd, &table);

    if (rc < 0) {
        s->n_views -= known; /* not seen after all: the next process of this view is asked */
        return gone(-rc) || rc == -EINVAL ? 0 : rc;
    }
    find_mount(s, task, pid, &table);
    return 0;
}

/* true when the thread shares this resource with its process, so that it need not be looked at
 * again. */
static bool shares(pid_t pid, pid_t tid, int what)
{
    return syscall(SYS_kcmp, pid, tid, what, 0, 0) == 0;
}

static int check_task(struct scan *s, int task, pid_t pid, pid_t tid)
{
    bool leader = pid == tid;
    int rc = 0;

    if (s->t->spot && s->t->spot->root)
        rc = check_mounts(s, task, pid);
    if (!s->t->files && !s->t->device)
        return rc;
    if (!rc && !s->hit && (leader || !shares(pid, tid, KCMP_FS))) {
        rc = check_link(s, task, task, "cwd", pid, "as working directory");
        if (!rc && !s->hit)
            rc = check_link(s, task, task, "root", pid, "as root folder");
    }
    if (!rc && !s->hit && (leader || !shares(pid, tid, KCMP_FILES)))
        rc = check_fds(s, task, pid);
    if (!rc && !s->hit && (leader || !shares(pid, tid, KCMP_VM))) {
        rc = check_link(s, task, task, "exe", pid, "running");
        if (!rc && !s->hit && s->t->files)
            rc = check_maps(s, task, pid);
    }
    return rc;
}

static bool is_kernel_thread(int proc)
{
    CLEANUP_FREE char *text = NULL;
    struct err *e = file_read(proc, "stat", 4096, &text);

    err_free(e);
    return text && (proc_stat_flags(text) & 0x00200000); /* PF_KTHREAD */
}

static uint64_t capabilities(int proc)
{
    CLEANUP_FREE char *text = NULL;
    struct err *e = file_read(proc, "status", 65536, &text);

    err_free(e);
    return text ? proc_status_permitted(text) : 0;
}

/* true when the kernel hides the process because it may do things that we may not: so it is where
 * the agent itself runs restricted, in a container or a lab. Its mount table was readable and was
 * looked at. */
static bool is_above_us(int procs, int proc)
{
    CLEANUP_CLOSE int self = openat(procs, "self", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return self >= 0 && (capabilities(proc) & ~capabilities(self));
}

static void warn_once(pid_t pid)
{
    static atomic_int last;

    if (atomic_exchange(&last, pid) != pid)
        log_warning("process %d has privileges that this one lacks: its mounts are seen, its open "
                    "files are not",
                    (int)pid);
}

static int check_tasks(struct scan *s, int proc, pid_t pid)
{
    CLEANUP_CLOSE int tasks = openat(proc, "task", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_DIR DIR *d = tasks < 0 ? NULL : dir_stream(tasks);
    const char *tid;
    int rc = 0;

    if (!d)
        return gone(errno) ? 0 : -errno;
    while (!rc && !s->hit && (tid = dir_next(d))) {
        CLEANUP_CLOSE int task = openat(tasks, tid, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

        if (task < 0)
            rc = gone(errno) ? 0 : -errno;
        else
            rc = check_task(s, task, pid, (pid_t)strtol(tid, NULL, 10));
        if (gone(-rc))
            rc = 0;
    }
    return rc;
}

static int check_process(struct scan *s, int procs, const char *name)
{
    pid_t pid = (pid_t)strtol(name, NULL, 10);
    CLEANUP_CLOSE int proc = openat(procs, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (proc < 0)
        return gone(errno) ? 0 : -errno;
    if (is_kernel_thread(proc))
        return 0;
    int rc = check_tasks(s, proc, pid);

    if ((rc == -EACCES || rc == -EPERM) && is_above_us(procs, proc)) {
        warn_once(pid);
        rc = 0;
    }
    return rc;
}

struct err *usage_find(const struct usage_target *target, char **ret_text)
{
    struct scan s = {.t = target, .self = getpid()};
    CLEANUP_CLOSE int procs = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_DIR DIR *d = procs < 0 ? NULL : dir_stream(procs);
    const char *name;
    struct err *e = NULL;

    if (!d)
        return err_errno(errno, "cannot look at the processes in /proc");
    while (!e && !s.hit && (name = dir_next(d))) {
        if (!isdigit((unsigned char)*name))
            continue;
        int rc = check_process(&s, procs, name);

        if (rc < 0)
            e = err_errno(-rc, "cannot see what process %s uses (root with CAP_SYS_PTRACE can)",
                          name);
    }
    free(s.views);
    if (e) {
        free(s.hit);
        return e;
    }
    *ret_text = s.hit;
    return NULL;
}
