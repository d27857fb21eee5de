#include "net/workers.h"

#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/queue.h>
#include <time.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define STACK_BYTES (4u * WORKERS_STACK_BYTES) /* instrumented frames are larger */
#else
#define STACK_BYTES WORKERS_STACK_BYTES
#endif

struct job {
    STAILQ_ENTRY(job) link;
    workers_fn *work, *done;
    void *cookie;
};
STAILQ_HEAD(job_list, job);

struct worker {
    STAILQ_ENTRY(worker) link;
    pthread_t thread;
    struct workers *pool;
};

struct workers {
    struct loop *loop;
    unsigned max_threads;
    char name[16];
    size_t pending; /* loop thread only */

    pthread_mutex_t lock; /* guards everything below */
    pthread_cond_t wake;  /* there is a job, or `stopping` */
    pthread_cond_t quiet; /* no job waits and none runs; while stopping: a thread ended */
    struct job_list waiting, finished;
    unsigned threads, idle, running;
    bool stopping;
    bool posted;                 /* workers_collect() is on its way */
    STAILQ_HEAD(, worker) ended; /* threads to be joined */
};

static void workers_collect(void *cookie);

/* With the lock held. */
static void collect_soon(struct workers *w)
{
    if (!w->posted)
        loop_post(w->loop, workers_collect, w);
    w->posted = true;
}

/* Waits for a job, with the lock held. NULL: the thread shall end. */
static struct job *next_job(struct workers *w)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += WORKERS_IDLE_US / 1000000u;
    w->idle++;
    while (STAILQ_EMPTY(&w->waiting) && !w->stopping) {
        if (pthread_cond_timedwait(&w->wake, &w->lock, &until) == ETIMEDOUT)
            break;
    }
    w->idle--;
    struct job *job = STAILQ_FIRST(&w->waiting);
    if (job)
        STAILQ_REMOVE_HEAD(&w->waiting, link);
    return job;
}

static void *worker_run(void *arg)
{
    struct worker *self = arg;
    struct workers *w = self->pool;
    struct job *job;

    pthread_setname_np(pthread_self(), w->name);
    pthread_mutex_lock(&w->lock);
    while ((job = next_job(w))) {
        w->running++;
        pthread_mutex_unlock(&w->lock);
        job->work(job->cookie);
        pthread_mutex_lock(&w->lock);
        w->running--;
        STAILQ_INSERT_TAIL(&w->finished, job, link);
        collect_soon(w);
        if (w->running == 0 && STAILQ_EMPTY(&w->waiting))
            pthread_cond_signal(&w->quiet);
    }
    w->threads--;
    STAILQ_INSERT_TAIL(&w->ended, self, link);
    if (w->stopping)
        pthread_cond_signal(&w->quiet);
    else
        collect_soon(w);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

struct workers *workers_new(struct loop *l, unsigned max_threads, const char *name)
{
    struct workers *w = xcalloc(1, sizeof(*w));
    pthread_condattr_t attr;

    w->loop = l;
    w->max_threads = max_threads;
    memcpy(w->name, name, strnlen(name, sizeof(w->name) - 1));
    pthread_mutex_init(&w->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&w->wake, &attr);
    pthread_cond_init(&w->quiet, &attr);
    pthread_condattr_destroy(&attr);
    STAILQ_INIT(&w->waiting);
    STAILQ_INIT(&w->finished);
    STAILQ_INIT(&w->ended);
    return w;
}

/* Starts one more thread, with the lock held. */
static void worker_start(struct workers *w)
{
    struct worker *self = xcalloc(1, sizeof(*self));
    pthread_attr_t attr;
    sigset_t all;

    self->pool = w;
    sigfillset(&all);
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, STACK_BYTES);
    pthread_attr_setsigmask_np(&attr, &all);
    int r = pthread_create(&self->thread, &attr, worker_run, self);
    pthread_attr_destroy(&attr);
    if (r == 0) {
        w->threads++;
        return;
    }
    free(self);
    log_error("cannot start a worker thread beside %u others: %s", w->threads, strerrordesc_np(r));
    if (w->threads == 0)
        abort(); /* nothing could ever be done again; a restart continues where we are */
}

void workers_submit(struct workers *w, workers_fn *work, workers_fn *done, void *cookie)
{
    struct job *job = xcalloc(1, sizeof(*job));
    struct job *j;
    unsigned waiting = 0;

    job->work = work;
    job->done = done;
    job->cookie = cookie;
    w->pending++;
    pthread_mutex_lock(&w->lock);
    STAILQ_INSERT_TAIL(&w->waiting, job, link);
    STAILQ_FOREACH(j, &w->waiting, link)
    {
        if (++waiting > w->idle)
            break;
    }
    /* A thread that was woken still counts as idle until it runs: compare with all that wait. */
    if (waiting > w->idle && w->threads < w->max_threads)
        worker_start(w);
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
}

size_t workers_pending(const struct workers *w)
{
    return w->pending;
}

static void workers_collect(void *cookie)
{
    struct workers *w = cookie;
    struct job_list finished = STAILQ_HEAD_INITIALIZER(finished);
    struct worker *t;
    struct job *job;
    bool calm = false;

    pthread_mutex_lock(&w->lock);
    w->posted = false;
    STAILQ_CONCAT(&finished, &w->finished);
    while ((t = STAILQ_FIRST(&w->ended))) {
        STAILQ_REMOVE_HEAD(&w->ended, link);
        pthread_mutex_unlock(&w->lock);
        pthread_join(t->thread, NULL);
        free(t);
        calm = true;
        pthread_mutex_lock(&w->lock);
    }
    calm = calm && w->threads == 0;
    pthread_mutex_unlock(&w->lock);
    if (calm) /* the last thread ended after its idle time: a burst is over */
        mem_give_back();
    while ((job = STAILQ_FIRST(&finished))) {
        STAILQ_REMOVE_HEAD(&finished, link);
        w->pending--;
        if (job->done)
            job->done(job->cookie);
        free(job);
    }
}

struct workers *workers_stop(struct workers *w)
{
    if (!w)
        return NULL;
    while (w->pending > 0) {
        pthread_mutex_lock(&w->lock);
        while (w->running > 0 || !STAILQ_EMPTY(&w->waiting))
            pthread_cond_wait(&w->quiet, &w->lock);
        pthread_mutex_unlock(&w->lock);
        workers_collect(w);
    }
    pthread_mutex_lock(&w->lock);
    w->stopping = true;
    pthread_cond_broadcast(&w->wake);
    while (w->threads > 0)
        pthread_cond_wait(&w->quiet, &w->lock);
    pthread_mutex_unlock(&w->lock);
    workers_collect(w);
    loop_unpost(w->loop, workers_collect, w);
    pthread_cond_destroy(&w->wake);
    pthread_cond_destroy(&w->quiet);
    pthread_mutex_destroy(&w->lock);
    free(w);
    return NULL;
}
