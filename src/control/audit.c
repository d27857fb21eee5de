#include "control/audit.h"

#include "base/log.h"
#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#define QUEUED_MAX (4u << 20) /* bytes */

struct audit {
    char *path;
    int fd; /* the thread's */
    pthread_t thread;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t wake;
    struct str queue;
    uint64_t queued, written, lost;
    bool reopen, stop;
};

static struct err *open_file(struct audit *a)
{
    int fd = open(a->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0640);

    if (fd < 0)
        return err_errno(errno, "cannot open the audit log %s", a->path);
    mem_closep(&a->fd);
    a->fd = fd;
    return NULL;
}

/* 0, or an errno. A line that is cut off by a full disk ends with the next line's beginning. */
static int write_all(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, bytes, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return errno;
        bytes += done;
        n -= (size_t)done;
    }
    return 0;
}

/* Says once that lines are lost, and once that they are not any more. */
static void report(struct audit *a, const char *why, bool *failing)
{
    if (why && !*failing)
        log_error("lines of the audit log %s are lost: %s", a->path, why);
    else if (!why && *failing)
        log_info("the audit log %s is written again", a->path);
    *failing = why != NULL;
}

static void *run(void *cookie)
{
    struct audit *a = cookie;
    bool failing = false;

    pthread_mutex_lock(&a->lock);
    for (;;) {
        while (!a->queue.len && !a->stop)
            pthread_cond_wait(&a->wake, &a->lock);
        if (!a->queue.len)
            break;
        struct str lines = a->queue;
        uint64_t n = a->queued;
        bool reopen = a->reopen;
        a->queue = (struct str){0};
        a->queued = 0;
        a->reopen = false;
        pthread_mutex_unlock(&a->lock);

        CLEANUP_ERR struct err *e = reopen ? open_file(a) : NULL;
        int error = write_all(a->fd, lines.data, lines.len);
        report(a, error ? strerrordesc_np(error) : e ? e->text : NULL, &failing);
        str_done(&lines);

        pthread_mutex_lock(&a->lock);
        if (error)
            a->lost += n;
        else
            a->written += n;
    }
    pthread_mutex_unlock(&a->lock);
    return NULL;
}

struct err *audit_start(const char *path, struct audit **ret_audit)
{
    struct audit *a = xcalloc(1, sizeof(*a));
    sigset_t all, before;

    a->path = xstrdup(path);
    a->fd = -1;
    struct err *e = open_file(a);
    if (e) {
        free(a->path);
        free(a);
        return e;
    }
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->wake, NULL);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&a->thread, NULL, run, a);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error)
        mem_exhausted();
    (void)pthread_setname_np(a->thread, "audit");
    *ret_audit = a;
    return NULL;
}

struct audit *audit_stop(struct audit *a)
{
    if (!a)
        return NULL;
    pthread_mutex_lock(&a->lock);
    a->stop = true;
    pthread_cond_signal(&a->wake);
    pthread_mutex_unlock(&a->lock);
    pthread_join(a->thread, NULL);
    pthread_cond_destroy(&a->wake);
    pthread_mutex_destroy(&a->lock);
    mem_closep(&a->fd);
    str_done(&a->queue);
    free(a->path);
    free(a);
    return NULL;
}

void audit_write(struct audit *a, char *line)
{
    size_t n = strlen(line);

    pthread_mutex_lock(&a->lock);
    if (a->queue.len + n > QUEUED_MAX) {
        a->lost++;
    } else {
        str_append_bytes(&a->queue, line, n);
        a->queued++;
        pthread_cond_signal(&a->wake);
    }
    pthread_mutex_unlock(&a->lock);
    free(line);
}

void audit_reopen(struct audit *a)
{
    pthread_mutex_lock(&a->lock);
    a->reopen = true;
    pthread_mutex_unlock(&a->lock);
}

void audit_counts(struct audit *a, uint64_t *ret_written, uint64_t *ret_lost)
{
    pthread_mutex_lock(&a->lock);
    *ret_written = a->written;
    *ret_lost = a->lost;
    pthread_mutex_unlock(&a->lock);
}
