#include "drivers/budget.h"

#include "base/now.h"

#include <inttypes.h>
#include <pthread.h>
#include <sys/queue.h>
#include <time.h>

#define POLL_US (100 * USEC_PER_MSEC) /* `cancel` is looked at so often */

struct waiter {
    TAILQ_ENTRY(waiter) link;
};

struct budget {
    pthread_mutex_t lock; /* guards everything below */
    pthread_cond_t moved; /* the first of the queue may be another, or has more to take from */
    TAILQ_HEAD(, waiter) queue;
    unsigned waiting;
    struct bucket share;
    unsigned extra;
    uint64_t taken, throttled;
    void (*news)(void *cookie);
    void *news_cookie;
};

struct budget *budget_new(struct bucket_limits share)
{
    struct budget *b = xcalloc(1, sizeof(*b));
    pthread_condattr_t attr;

    (void)pthread_mutex_init(&b->lock, NULL);
    (void)pthread_condattr_init(&attr);
    (void)pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&b->moved, &attr);
    (void)pthread_condattr_destroy(&attr);
    TAILQ_INIT(&b->queue);
    b->share = bucket_full(share, now_os().mono_us);
    return b;
}

struct budget *budget_free(struct budget *b)
{
    if (!b)
        return NULL;
    (void)pthread_cond_destroy(&b->moved);
    (void)pthread_mutex_destroy(&b->lock);
    free(b);
    return NULL;
}

/* ---- taking ---- */

static bool take_now(struct budget *b, uint64_t now_us)
{
    bool extra = b->extra && bucket_gap_end(&b->share, now_us) <= now_us;

    if (!extra && !bucket_take(&b->share, 1, now_us))
        return false;
    if (extra) {
        b->extra--;
        bucket_note(&b->share, now_us);
    }
    b->taken++;
    return true;
}

/* When it is worth to look again, if nothing is handed out before. */
static uint64_t next_us(struct budget *b, uint64_t now_us)
{
    return b->extra ? bucket_gap_end(&b->share, now_us) : bucket_next_us(&b->share, now_us);
}

static void sleep_until(struct budget *b, uint64_t until_us, uint64_t now_us)
{
    uint64_t us = until_us > now_us ? until_us - now_us : 0;
    struct timespec ts;

    /* The condition's clock stands still while the machine sleeps, and now_os() does not: so times to go, not moments. */
    (void)clock_gettime(CLOCK_MONOTONIC, &ts);
    us = us < USEC_PER_SEC ? us : USEC_PER_SEC;
    ts.tv_nsec += (long)us * 1000;
    ts.tv_sec += ts.tv_nsec / 1000000000;
    ts.tv_nsec %= 1000000000;
    (void)pthread_cond_timedwait(&b->moved, &b->lock, &ts);
}

static struct err *too_late(const struct budget *b)
{
    return err_new(ERR_TIMEOUT,
                   "the calls that this node may make of the storage's API are used up (its share "
                   "is %u an hour, and "
                   "%u others wait): tried again later; flocker-control --call-budget says how many "
                   "there are for all",
                   b->share.limits.per_hour, b->waiting - 1);
}

/* Waits in the queue; the lock is held. */
static struct err *wait_turn(struct budget *b, struct waiter *w, uint64_t deadline_us,
                             const atomic_bool *cancel)
{
    for (;;) {
        uint64_t now = now_os().mono_us, until = now + USEC_PER_SEC;

        if (cancel && atomic_load(cancel))
            return err_new(ERR_CANCELLED, "cancelled while waiting for the budget of calls");
        if (TAILQ_FIRST(&b->queue) == w) {
            if (take_now(b, now))
                return NULL;
            until = next_us(b, now);
        }
        if (now >= deadline_us)
            return too_late(b);
        if (cancel && until > now + POLL_US)
            until = now + POLL_US;
        sleep_until(b, until < deadline_us ? until : deadline_us, now);
    }
}

static void tell(struct budget *b)
{
    (void)pthread_mutex_lock(&b->lock);
    void (*news)(void *) = b->news;
    void *cookie = b->news_cookie;
    (void)pthread_mutex_unlock(&b->lock);
    if (news)
        news(cookie);
}

struct err *budget_take_sync(struct budget *b, uint64_t deadline_us, const atomic_bool *cancel)
{
    struct waiter me;

    if (!b)
        return NULL;
    (void)pthread_mutex_lock(&b->lock);
    if (TAILQ_EMPTY(&b->queue) && take_now(b, now_os().mono_us)) {
        (void)pthread_mutex_unlock(&b->lock);
        return NULL;
    }
    TAILQ_INSERT_TAIL(&b->queue, &me, link);
    b->waiting++;
    (void)pthread_mutex_unlock(&b->lock);
    tell(b);
    (void)pthread_mutex_lock(&b->lock);
    struct err *e = wait_turn(b, &me, deadline_us, cancel);

    TAILQ_REMOVE(&b->queue, &me, link);
    b->waiting--;
    (void)pthread_cond_broadcast(&b->moved);
    (void)pthread_mutex_unlock(&b->lock);
    return e;
}

void budget_throttled(struct budget *b, uint64_t retry_after_us)
{
    if (!b)
        return;
    (void)pthread_mutex_lock(&b->lock);
    bucket_throttled(&b->share, retry_after_us, now_os().mono_us);
    b->throttled++;
    (void)pthread_mutex_unlock(&b->lock);
    tell(b);
}

/* ---- shares ---- */

struct budget_state budget_state(struct budget *b)
{
    (void)pthread_mutex_lock(&b->lock);
    struct budget_state s = {b->waiting, b->extra, b->taken, b->throttled};
    (void)pthread_mutex_unlock(&b->lock);
    return s;
}

void budget_on_news(struct budget *b, void (*fn)(void *cookie), void *cookie)
{
    (void)pthread_mutex_lock(&b->lock);
    b->news = fn;
    b->news_cookie = cookie;
    (void)pthread_mutex_unlock(&b->lock);
}

void budget_set(struct budget *b, struct bucket_limits share)
{
    (void)pthread_mutex_lock(&b->lock);
    bucket_set(&b->share, share, now_os().mono_us);
    (void)pthread_cond_broadcast(&b->moved);
    (void)pthread_mutex_unlock(&b->lock);
}

void budget_add(struct budget *b, unsigned calls)
{
    (void)pthread_mutex_lock(&b->lock);
    b->extra = calls < BUCKET_BURST_MAX - b->extra ? b->extra + calls : BUCKET_BURST_MAX;
    (void)pthread_cond_broadcast(&b->moved);
    (void)pthread_mutex_unlock(&b->lock);
}

unsigned budget_take_back(struct budget *b)
{
    (void)pthread_mutex_lock(&b->lock);
    unsigned n = b->extra;

    b->extra = 0;
    (void)pthread_mutex_unlock(&b->lock);
    return n;
}
