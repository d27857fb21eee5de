/* Kills a process at the n-th system call with which it changes something outside itself.
 *
 *   killat PID N before|after alone|family
 *
 * Attaches to a running process, all its threads and those that it starts, and prints "ready". From then on it counts the
 * calls that change something (files, mounts, devices, programs started) or that others hear (writes to sockets and
 * pipes) and prints one line for each: `17 pwrite64 /var/lib/flocker/store.sqlite`. With SIGKILL it keeps the n-th from
 * happening, or ends the process right after it, and prints "killed" as the last line. N = 0 only counts. Programs that
 * the process started run on, as when it dies by itself, or die with it (family), as when its service is killed. The end of
 * standard input is the end of the tracing: the process goes on, and "not reached" is the last line.
 *
 * Not counted: what only this process sees (memory, its own descriptors, event descriptors), questions (ioctls that read),
 * and lines of its log. */
#include "base/mem.h"
#include "base/str.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/loop.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/ptrace.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define MAX_TID (1 << 22) /* the kernel's own limit */
#define OPTIONS (PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE)
#define SYSCALL_STOP (SIGTRAP | 0x80)
#define TEXT_MAX 256

/* What a call's first argument says about its object. */
enum object {
    OBJECT_NONE,
    OBJECT_FD,        /* a descriptor */
    OBJECT_PATH,      /* a path */
    OBJECT_PATH_AT,   /* a path, after the descriptor of a folder */
    OBJECT_PATH_THIRD /* a path as the third argument */
};

struct call {
    long number;
    const char *name;
    enum object object;
};

#define CALL(name, object)                                                                         \
    {                                                                                              \
        SYS_##name, #name, OBJECT_##object                                                         \
    }
static const struct call calls[] = {
    CALL(openat, PATH_AT),
    CALL(openat2, PATH_AT),
    CALL(write, FD),
    CALL(pwrite64, FD),
    CALL(writev, FD),
    CALL(pwritev, FD),
    CALL(pwritev2, FD),
    CALL(sendto, FD),
    CALL(sendmsg, FD),
    CALL(sendmmsg, FD),
    CALL(sendfile, FD),
    CALL(copy_file_range, FD),
    CALL(splice, FD),
    CALL(connect, FD),
    CALL(shutdown, FD),
    CALL(fsync, FD),
    CALL(fdatasync, FD),
    CALL(syncfs, FD),
    CALL(sync, NONE),
    CALL(ftruncate, FD),
    CALL(truncate, PATH),
    CALL(fallocate, FD),
    CALL(mkdirat, PATH_AT),
    CALL(mknodat, PATH_AT),
    CALL(unlinkat, PATH_AT),
    CALL(renameat2, PATH_AT),
    CALL(linkat, PATH_AT),
    CALL(symlinkat, PATH_THIRD),
    CALL(fchmod, FD),
    CALL(fchmodat, PATH_AT),
    CALL(fchown, FD),
    CALL(fchownat, PATH_AT),
    CALL(utimensat, PATH_AT),
    CALL(fsetxattr, FD),
    CALL(lsetxattr, PATH),
    CALL(fremovexattr, FD),
    CALL(lremovexattr, PATH),
    CALL(mount, PATH),
    CALL(umount2, PATH),
    CALL(open_tree, PATH_AT),
    CALL(move_mount, NONE),
    CALL(fsconfig, FD),
    CALL(fsmount, FD),
    CALL(mount_setattr, PATH_AT),
    CALL(ioctl, FD),
    CALL(clone, NONE),
    CALL(clone3, NONE),
    CALL(kill, NONE),
/* Only where they came before their ...at forms. */
#ifdef SYS_open
    CALL(open, PATH),
    CALL(creat, PATH),
    CALL(mkdir, PATH),
    CALL(mknod, PATH),
    CALL(rmdir, PATH),
    CALL(unlink, PATH),
    CALL(rename, PATH),
    CALL(link, PATH),
    CALL(symlink, PATH),
    CALL(chmod, PATH),
    CALL(chown, PATH),
    CALL(fork, NONE),
    CALL(vfork, NONE),
#endif
#ifdef SYS_renameat
    CALL(renameat, PATH_AT),
#endif
};

/* Questions; every other ioctl counts. */
static const unsigned long questions[] = {
    BTRFS_IOC_FS_INFO,
    BTRFS_IOC_INO_LOOKUP,
    BTRFS_IOC_INO_LOOKUP_USER,
    BTRFS_IOC_TREE_SEARCH,
    BTRFS_IOC_TREE_SEARCH_V2,
    BTRFS_IOC_GET_SUBVOL_INFO,
    BTRFS_IOC_SUBVOL_GETFLAGS,
    BTRFS_IOC_WAIT_SYNC,
    LOOP_GET_STATUS64,
    FIONREAD,
    FIONBIO,
    TCGETS,
};

struct tracer {
    pid_t pid;
    unsigned long at;
    bool after, family;
    bool ready;      /* all threads are traced: from here on it counts */
    unsigned long n; /* calls counted */
    pid_t last;      /* the thread in the call to be killed after */
    bool killed, gone;
    unsigned char *threads; /* by number: one of the THREAD_s */
    unsigned asked;         /* threads that were asked to stop for the first time and have not */
};

enum { THREAD_UNKNOWN, THREAD_ASKED, THREAD_TRACED };

static void fail(const char *fmt, ...) PRINTF_LIKE(1, 2) __attribute__((noreturn));
static void fail(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    fputs("killat: ", stderr);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

/* ---- what a call is ---- */

static bool read_memory(pid_t tid, uint64_t from, void *to, size_t n)
{
    struct iovec local = {to, n}, remote = {(void *)(uintptr_t)from, n};

    return process_vm_readv(tid, &local, 1, &remote, 1, 0) == (ssize_t)n;
}

static void read_text(pid_t tid, uint64_t from, char ret[TEXT_MAX])
{
    size_t n = 0;

    while (n < TEXT_MAX - 1 && read_memory(tid, from + n, ret + n, 1) && ret[n])
        n++;
    ret[n] = '\0';
}

static void name_of_fd(pid_t tid, uint64_t fd, char ret[TEXT_MAX])
{
    char path[64];

    (void)snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)tid, (int)fd);
    ssize_t n = readlink(path, ret, TEXT_MAX - 1);

    ret[n < 0 ? 0 : n] = '\0';
}

static void describe(pid_t tid, const struct call *c, const uint64_t args[6], char ret[TEXT_MAX])
{
    ret[0] = '\0';
    if (c->object == OBJECT_FD)
        name_of_fd(tid, args[0], ret);
    else if (c->object != OBJECT_NONE)
        read_text(tid, args[c->object - OBJECT_PATH], ret);
    if (c->number == SYS_ioctl)
        (void)snprintf(ret + strlen(ret), TEXT_MAX - strlen(ret), " %#llx",
                       (unsigned long long)args[1]);
}

/* Descriptors of the process's own, and its log. */
static bool is_own(uint64_t fd, const char *name)
{
    return fd == STDOUT_FILENO || fd == STDERR_FILENO || str_has_prefix(name, "anon_inode:[event");
}

static bool is_question(uint64_t request)
{
    for (size_t i = 0; i < ARRAY_SIZE(questions); i++) {
        if (questions[i] == request)
            return true;
    }
    return false;
}

static bool starts_thread(pid_t tid, long number, const uint64_t args[6])
{
    uint64_t flags = args[0];

    if (number == SYS_clone3 && !read_memory(tid, args[0], &flags, sizeof(flags)))
        return false;
    return flags & CLONE_THREAD;
}

static bool counts(pid_t tid, const struct call *c, const uint64_t args[6], const char *what)
{
    uint64_t flags = 0;

    switch (c->number) {
    case SYS_openat2: /* the first number of its third argument */
        return read_memory(tid, args[2], &flags, sizeof(flags)) && flags & (O_CREAT | O_TRUNC);
    case SYS_openat:
        return args[2] & (O_CREAT | O_TRUNC);
#ifdef SYS_open
    case SYS_open:
        return args[1] & (O_CREAT | O_TRUNC);
#endif
    case SYS_ioctl:
        return !is_question(args[1]);
    case SYS_clone:
    case SYS_clone3:
        return !starts_thread(tid, c->number, args);
    case SYS_write:
    case SYS_writev:
        return !is_own(args[0], what);
    default:
        return true;
    }
}

static const struct call *find_call(uint64_t number)
{
    for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
        if ((uint64_t)calls[i].number == number)
            return &calls[i];
    }
    return NULL;
}

/* ---- following ---- */

struct family {
    pid_t *pids;
    size_t n, cap;
};

static void add_children(struct family *f, pid_t pid)
{
    CLEANUP_FREE char *tasks = xasprintf("/proc/%d/task", (int)pid);
    DIR *d = opendir(tasks);

    for (const struct dirent *e; d && (e = readdir(d));) {
        CLEANUP_FREE char *path = xasprintf("%s/%s/children", tasks, e->d_name);
        FILE *list = fopen(path, "re");
        int child;

        while (list && fscanf(list, "%d", &child) == 1) {
            f->pids = mem_grow(f->pids, f->n, &f->cap, sizeof(*f->pids));
            f->pids[f->n++] = child;
            add_children(f, child);
        }
        if (list)
            fclose(list);
    }
    if (d)
        closedir(d);
}

static void kill_it(struct tracer *t)
{
    struct family f = {0};

    if (t->family)
        add_children(&f, t->pid);
    /* A thread that stands before its call never makes it: the kernel looks for a fatal signal
     * first. */
    (void)kill(t->pid, SIGKILL);
    t->killed = true;
    for (size_t i = 0; i < f.n; i++)
        (void)kill(f.pids[i], SIGKILL);
    free(f.pids);
}

static void on_entry(struct tracer *t, pid_t tid, const struct __ptrace_syscall_info *info)
{
    uint64_t args[6];
    const struct call *c = find_call(info->entry.nr);
    char what[TEXT_MAX];

    if (!c || !t->ready || t->killed)
        return;
    for (int i = 0; i < 6; i++)
        args[i] = info->entry.args[i];
    describe(tid, c, args, what);
    if (!counts(tid, c, args, what))
        return;
    t->n++;
    printf("%lu %s %s\n", t->n, c->name, what);
    if (t->n != t->at)
        return;
    if (t->after)
        t->last = tid;
    else
        kill_it(t);
}

static void on_syscall(struct tracer *t, pid_t tid)
{
    struct __ptrace_syscall_info info;

    if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof(info), &info) <= 0)
        return;
    if (info.op == PTRACE_SYSCALL_INFO_ENTRY)
        on_entry(t, tid, &info);
    else if (info.op == PTRACE_SYSCALL_INFO_EXIT && tid == t->last && !t->killed)
        kill_it(t);
}

static void on_status(struct tracer *t, pid_t tid, int status)
{
    int signal = 0;

    if (t->threads[tid] == THREAD_ASKED)
        t->asked--;
    t->threads[tid] = WIFSTOPPED(status) ? THREAD_TRACED : THREAD_UNKNOWN;
    if (!WIFSTOPPED(status)) {
        t->gone |= tid == t->pid;
        return;
    }
    if (WSTOPSIG(status) == SYSCALL_STOP)
        on_syscall(t, tid);
    else if (status >> 16 == 0) /* a signal on its way to the process */
        signal = WSTOPSIG(status);
    /* It may have been killed meanwhile. */
    (void)ptrace(PTRACE_SYSCALL, tid, 0, signal);
}

static void reap(struct tracer *t)
{
    int status;
    pid_t tid;

    while (!t->gone && (tid = waitpid(-1, &status, __WALL | WNOHANG)) > 0)
        on_status(t, tid, status);
}

/* ---- attaching ---- */

static void seize(struct tracer *t, int tid)
{
    if (ptrace(PTRACE_SEIZE, tid, 0, OPTIONS) < 0) {
        /* Another one than the first is gone, or ours because the one that started it is. */
        if (tid == t->pid)
            fail("cannot trace process %d: %s", tid, strerrordesc_np(errno));
        return;
    }
    (void)ptrace(PTRACE_INTERRUPT, tid, 0, 0);
    t->threads[tid] = THREAD_ASKED;
    t->asked++;
}

/* Asks every thread that is not known yet. */
static void seize_threads(struct tracer *t)
{
    CLEANUP_FREE char *path = xasprintf("/proc/%d/task", (int)t->pid);
    DIR *d = opendir(path);

    if (!d)
        fail("there is no process %d", (int)t->pid);
    for (const struct dirent *e; (e = readdir(d));) {
        int tid = atoi(e->d_name);

        if (tid > 0 && tid < MAX_TID && t->threads[tid] == THREAD_UNKNOWN)
            seize(t, tid);
    }
    closedir(d);
}

/* Two rounds: a thread that was asked but did not stop yet may have started another meanwhile. */
static void attach(struct tracer *t)
{
    for (int round = 0; round < 2; round++) {
        seize_threads(t);
        while (t->asked && !t->gone) {
            reap(t);
            (void)usleep(200);
        }
    }
}

static void parse(int argc, char **argv, struct tracer *t)
{
    static const char usage[] = "usage: killat PID N before|after alone|family";
    char *end1, *end2;

    if (argc != 5 || (!streq(argv[3], "before") && !streq(argv[3], "after")) ||
        (!streq(argv[4], "alone") && !streq(argv[4], "family")))
        fail(usage);
    t->pid = (pid_t)strtol(argv[1], &end1, 10);
    t->at = strtoul(argv[2], &end2, 10);
    t->after = streq(argv[3], "after");
    t->family = streq(argv[4], "family");
    if (*end1 || *end2 || t->pid <= 1)
        fail(usage);
}

static int wake_on_children(void)
{
    sigset_t set;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    (void)sigprocmask(SIG_BLOCK, &set, NULL);
    int fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);

    if (fd < 0)
        fail("cannot wait for signals: %s", strerrordesc_np(errno));
    return fd;
}

int main(int argc, char **argv)
{
    struct tracer t = {0};
    struct signalfd_siginfo ignored[8];

    setvbuf(stdout, NULL, _IOLBF, 0);
    parse(argc, argv, &t);
    struct pollfd p[2] = {{wake_on_children(), POLLIN, 0}, {STDIN_FILENO, POLLIN, 0}};

    t.threads = xcalloc(MAX_TID, sizeof(*t.threads));
    attach(&t);
    t.ready = true;
    puts("ready");
    while (!t.gone && !(p[1].revents && !t.killed)) {
        reap(&t);
        if (!t.gone && poll(p, 2, -1) > 0 && p[0].revents)
            (void)!read(p[0].fd, ignored, sizeof(ignored));
    }
    puts(t.killed ? "killed" : "not reached");
    free(t.threads);
    return 0; /* the kernel lets go of what is still traced */
}
