#include "store/writer.h"

#include "base/mem.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>

struct store_batch {
    struct store_batch *next; /* in the queue */
    struct store_change *changes;
    size_t n;
    size_t cap;
    void *cookie;
};

/* A copy that is being made, a piece whenever no batch waits. */
struct backup_job {
    char *path;
    store_backup_done_fn *done;
    void *cookie;
    struct store_backup *backup; /* NULL = not begun; the writer thread's alone */
};

struct store_writer {
    struct store *store;
    store_done_fn *done;
    void *cookie;
    pthread_t thread;

    pthread_mutex_t lock; /* protects what follows */
    pthread_cond_t wake;
    struct store_batch *first;
    struct store_batch **last;
    struct backup_job *job; /* set by anyone, taken off by the writer thread */
    bool stopping;
};

struct store_batch *store_batch_new(void)
{
    return xcalloc(1, sizeof(struct store_batch));
}

void store_batch_add(struct store_batch *b, uint64_t revision, enum store_kind kind,
                     const char *key, char *value)
{
    b->changes = mem_grow(b->changes, b->n, &b->cap, sizeof(*b->changes));
    b->changes[b->n++] = (struct store_change){
        .revision = revision, .kind = kind, .key = xstrdup(key), .value = value};
}

size_t store_batch_size(const struct store_batch *b)
{
    return b->n;
}

struct store_batch *store_batch_free(struct store_batch *b)
{
    if (!b)
        return NULL;
    for (size_t i = 0; i < b->n; i++) {
        free((char *)b->changes[i].key);
        free((char *)b->changes[i].value);
    }
    free(b->changes);
    free(b);
    return NULL;
}

void store_writer_submit(struct store_writer *w, struct store_batch *b, void *batch_cookie)
{
    b->cookie = batch_cookie;
    b->next = NULL;
    (void)pthread_mutex_lock(&w->lock);
    *w->last = b;
    w->last = &b->next;
    (void)pthread_cond_signal(&w->wake);
    (void)pthread_mutex_unlock(&w->lock);
}

struct err *store_writer_backup(struct store_writer *w, const char *path, store_backup_done_fn *done, void *cookie)
{
    struct backup_job *j = NULL;

    (void)pthread_mutex_lock(&w->lock);
    if (!w->job) {
        j = w->job = xcalloc(1, sizeof(*j));
        *j = (struct backup_job){.path = xstrdup(path), .done = done, .cookie = cookie};
        (void)pthread_cond_signal(&w->wake);
    }
    (void)pthread_mutex_unlock(&w->lock);
    return j ? NULL : err_new(ERR_BUSY, "another copy of the store is being made; wait for it");
}

/* Takes the first batch; waits for one, or returns NULL when there is none but a copy to go on with, or the writer is to
 * stop. */
static struct store_batch *take_first(struct store_writer *w, bool *ret_stop)
{
    (void)pthread_mutex_lock(&w->lock);
    while (!w->first && !w->stopping && !w->job)
        (void)pthread_cond_wait(&w->wake, &w->lock);
    *ret_stop = w->stopping;
    struct store_batch *b = w->first;
    if (b) {
        w->first = b->next;
        if (!w->first)
            w->last = &w->first;
    }
    (void)pthread_mutex_unlock(&w->lock);
    return b;
}

static struct store_batch *take_all(struct store_writer *w)
{
    (void)pthread_mutex_lock(&w->lock);
    struct store_batch *b = w->first;
    w->first = NULL;
    w->last = &w->first;
    (void)pthread_mutex_unlock(&w->lock);
    return b;
}

static void answer(struct store_writer *w, struct store_batch *b, struct err *e, bool uncertain)
{
    void *batch_cookie = b->cookie;

    store_batch_free(b);
    w->done(w->cookie, batch_cookie,
            (struct store_result){
                .err = e, .uncertain = uncertain, .revision = store_revision(w->store)});
}

static void commit(struct store_writer *w, struct store_batch *b)
{
    bool uncertain = false;
    struct err *e = store_commit_sync(w->store, b->changes, b->n, &uncertain);
    /* What waits now was submitted before anyone could know of the failure. */
    struct store_batch *behind = e ? take_all(w) : NULL;

    answer(w, b, e, uncertain);
    while (behind) {
        struct store_batch *next = behind->next;
        answer(w, behind, err_new(ERR_CANCELLED, "not committed: a change before it failed"),
               uncertain);
        behind = next;
    }
}

/* Between two commits, when the next is not there yet. */
static void tidy(struct store_writer *w)
{
    (void)pthread_mutex_lock(&w->lock);
    bool waits = w->first != NULL;
    (void)pthread_mutex_unlock(&w->lock);

    if (!waits)
        store_tidy_sync(w->store);
}

static void end_backup(struct store_writer *w, struct err *e)
{
    (void)pthread_mutex_lock(&w->lock);
    struct backup_job *j = steal(&w->job);
    (void)pthread_mutex_unlock(&w->lock);

    if (j) {
        store_backup_end_sync(j->backup);
        j->done(j->cookie, e);
        free(j->path);
        free(j);
    }
}

static void go_on_with_backup(struct store_writer *w)
{
    struct backup_job *j = w->job; /* once set, only this thread takes it away */
    bool done = false;
    struct err *e = NULL;

    if (!j->backup)
        e = store_backup_begin_sync(w->store, j->path, &j->backup);
    if (!e)
        e = store_backup_step_sync(j->backup, &done);
    if (e || done)
        end_backup(w, e);
}

static void *writer_main(void *arg)
{
    struct store_writer *w = arg;
    bool stop;

    for (;;) {
        struct store_batch *b = take_first(w, &stop);
        if (b) {
            commit(w, b);
            tidy(w);
        } else if (stop) {
            break;
        } else {
            go_on_with_backup(w);
        }
    }
    if (w->job)
        end_backup(w, err_new(ERR_CANCELLED, "the copy of the store was given up: the control service is ending"));
    return NULL;
}

static void writer_free(struct store_writer *w)
{
    (void)pthread_cond_destroy(&w->wake);
    (void)pthread_mutex_destroy(&w->lock);
    free(w);
}

struct err *store_writer_start(struct store *s, store_done_fn *done, void *cookie,
                               struct store_writer **ret)
{
    struct store_writer *w = xcalloc(1, sizeof(*w));
    sigset_t all, before;

    w->store = s;
    w->done = done;
    w->cookie = cookie;
    w->last = &w->first;
    (void)pthread_mutex_init(&w->lock, NULL);
    (void)pthread_cond_init(&w->wake, NULL);
    /* Signals are the main loop's. */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&w->thread, NULL, writer_main, w);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (rc) {
        writer_free(w);
        return err_errno(rc, "cannot start the store's writer thread");
    }
    (void)pthread_setname_np(w->thread, "store-writer");
    *ret = w;
    return NULL;
}

struct store_writer *store_writer_stop(struct store_writer *w)
{
    if (!w)
        return NULL;
    (void)pthread_mutex_lock(&w->lock);
    w->stopping = true;
    (void)pthread_cond_signal(&w->wake);
    (void)pthread_mutex_unlock(&w->lock);
    (void)pthread_join(w->thread, NULL);
    writer_free(w);
    return NULL;
}
