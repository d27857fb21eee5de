#include "drivers/btrfs/btrfs.h"

#include "base/str.h"
#include "exec/exec.h"

#include <btrfsutil.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define PIPE_BYTES (1 << 20) /* a larger pipe: 1.5 times the rate */
#define POLL_MS 50

struct sender {
    int snapshot;
    int pipe;
    struct btrfs_ioctl_send_args args;
    int errnum; /* valid after the thread has ended */
};

/* The kernel writes the whole stream within one ioctl, which nothing but the reader's going away
 * ends. */
static void *send_thread(void *cookie)
{
    struct sender *s = cookie;

    s->errnum = ioctl(s->snapshot, BTRFS_IOC_SEND, &s->args) < 0 ? errno : 0;
    close(s->pipe);
    return NULL;
}

static int start_thread(struct sender *s, pthread_t *t)
{
    sigset_t all, old;

    /* A broken pipe must be an error code here, not a signal. */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(t, NULL, send_thread, s);

    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

static struct err *write_some(int to, const char *p, size_t n)
{
    while (n) {
        ssize_t w = write(to, p, n);

        if (w < 0 && errno == EAGAIN) {
            struct pollfd pf = {to, POLLOUT, 0};

            (void)poll(&pf, 1, POLL_MS);
            continue;
        }
        if (w < 0 && errno != EINTR)
            return err_errno(errno, "the receiving side went away");
        if (w > 0) {
            p += w;
            n -= (size_t)w;
        }
    }
    return NULL;
}

/* Moves the stream on; without copying where the kernel can. */
static struct err *pump(int from, int to, const atomic_bool *cancel)
{
    CLEANUP_FREE char *buf = NULL;

    for (;;) {
        struct pollfd p = {from, POLLIN, 0};
        ssize_t n;

        if (cancel && *cancel)
            return err_new(ERR_CANCELLED, "stopped as asked");
        if (poll(&p, 1, POLL_MS) <= 0)
            continue;
        struct pollfd out = {to, POLLOUT, 0};

        if (poll(&out, 1, POLL_MS) <= 0)
            continue;
        if (!buf) {
            n = splice(from, NULL, to, NULL, PIPE_BYTES, SPLICE_F_MOVE | SPLICE_F_MORE);
            if (n < 0 && errno == EINVAL)
                buf = xmalloc(PIPE_BYTES);
        }
        if (buf) {
            n = read(from, buf, PIPE_BYTES);
            if (n > 0)
                TRY(write_some(to, buf, (size_t)n));
        }
        if (n == 0)
            return NULL;
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            return err_errno(errno, "the receiving side went away");
    }
}

static struct err *subvolume_id(int fd, uint64_t *ret_id)
{
    if (btrfs_util_subvolume_id_fd(fd, ret_id) != BTRFS_UTIL_OK)
        return btrfs_error(errno, "cannot get the number of a subvolume");
    return NULL;
}

static struct err *run_sender(struct sender *s, int from, int to, const atomic_bool *cancel)
{
    sigset_t pipe_only, old;
    pthread_t t;
    int rc = start_thread(s, &t);

    if (rc) {
        close(s->pipe);
        close(from);
        return err_errno(rc, "cannot start a thread");
    }
    sigemptyset(&pipe_only);
    sigaddset(&pipe_only, SIGPIPE);
    pthread_sigmask(SIG_BLOCK, &pipe_only, &old);
    struct err *e = pump(from, to, cancel);

    close(from); /* ends the ioctl if it still writes */
    pthread_join(t, NULL);
    (void)sigtimedwait(&pipe_only, NULL, &(struct timespec){0}); /* ours, from a gone receiver */
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (!e && s->errnum)
        e = btrfs_error(s->errnum, "btrfs could not send the snapshot");
    return e;
}

struct err *stream_send(const struct pool *p, int base, int snapshot, int fd,
                        const atomic_bool *cancel)
{
    uint64_t id;
    __u64 parent = 0;
    int ends[2];
    struct sender s = {.snapshot = snapshot};

    if (base >= 0) {
        TRY(subvolume_id(base, &id));
        parent = id;
        s.args.parent_root = parent;
        s.args.clone_sources = &parent;
        s.args.clone_sources_count = 1;
    }
    if (p->proto >= 2) {
        s.args.flags = BTRFS_SEND_FLAG_VERSION | BTRFS_SEND_FLAG_COMPRESSED;
        s.args.version = 2;
    }
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_errno(errno, "cannot make a pipe");
    (void)fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES);
    s.pipe = ends[1];
    s.args.send_fd = ends[1];
    return run_sender(&s, ends[0], fd, cancel);
}

struct err *stream_receive(const char *path, int fd)
{
    const char *const argv[] = {"btrfs", "-q", "receive", "-e", path, NULL};

    return exec_run(&(struct exec_request){.argv = argv, .stdin_fd = fd}, NULL);
}
