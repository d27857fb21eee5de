/* Sending: the kernel writes the stream by itself. */
#include "drivers/btrfs/btrfs.h"

#include "base/str.h"

#include <btrfsutil.h>
#include <errno.h>
#include <linux/btrfs.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#define POLL_MS 50

struct sender {
    int snapshot;
    struct btrfs_ioctl_send_args args;
    int done; /* eventfd */
    int errnum;
};

/* The kernel writes the whole stream within one ioctl. It ends early when the reader goes away, or when a signal comes while
 * it waits for the reader: cancelling the thread at once, wherever it is, is such a signal. It holds nothing then. */
static void *send_thread(void *cookie)
{
    struct sender *s = cookie;

    (void)pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    s->errnum = ioctl(s->snapshot, BTRFS_IOC_SEND, &s->args) < 0 ? errno : 0;
    (void)pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, NULL);
    (void)eventfd_write(s->done, 1);
    return NULL;
}

static int start_thread(struct sender *s, pthread_t *t)
{
    sigset_t all, old;

    /* A broken pipe must be an error code here, not a signal. (That of cancelling cannot be blocked.) */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(t, NULL, send_thread, s);

    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

/* true: it was cancelled. */
static bool wait_for(pthread_t t, int done, const atomic_bool *cancel)
{
    struct pollfd p = {.fd = done, .events = POLLIN};
    void *how = NULL;

    while (poll(&p, 1, cancel ? POLL_MS : -1) <= 0) {
        if (!cancel || !*cancel)
            continue;
        (void)pthread_cancel(t);
        break;
    }
    (void)pthread_join(t, &how);
    return how == PTHREAD_CANCELED;
}

static struct err *subvolume_id(int fd, uint64_t *ret_id)
{
    if (btrfs_util_subvolume_id_fd(fd, ret_id) != BTRFS_UTIL_OK)
        return btrfs_error(errno, "cannot get the number of a subvolume");
    return NULL;
}

struct err *stream_send(const struct pool *p, int base, int snapshot, int fd,
                        const atomic_bool *cancel)
{
    uint64_t id;
    __u64 parent = 0;
    pthread_t t;
    struct sender s = {.snapshot = snapshot, .args = {.send_fd = fd}};

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
    if (cancel && *cancel)
        return err_new(ERR_CANCELLED, "stopped as asked");
    CLEANUP_CLOSE int done = s.done = eventfd(0, EFD_CLOEXEC);

    if (done < 0)
        return err_errno(errno, "cannot make an eventfd");
    int rc = start_thread(&s, &t);

    if (rc)
        return err_errno(rc, "cannot start a thread");
    if (wait_for(t, done, cancel))
        return err_new(ERR_CANCELLED, "stopped as asked");
    if (s.errnum == EPIPE || s.errnum == ECONNRESET)
        return err_errno(s.errnum, "the receiving side went away");
    return s.errnum ? btrfs_error(s.errnum, "btrfs could not send the snapshot") : NULL;
}
