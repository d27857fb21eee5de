#include "net/loop.h"

#include "base/now.h"

#include <errno.h>
#include <event2/event.h>
#include <event2/event_struct.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/queue.h>
#include <sys/timerfd.h>
#include <unistd.h>

struct post {
    TAILQ_ENTRY(post) link;
    loop_fn *fn;
    void *cookie;
    uint64_t number;
};

struct hook {
    loop_fn *fn; /* NULL: removed while the hooks were running */
    void *cookie;
};

struct signal_hook {
    LIST_ENTRY(signal_hook) link;
    struct event *event;
    loop_fn *fn;
    void *cookie;
};

struct loop {
    struct event_base *base;
    bool stop;

    int timer_fd;
    struct event *timer_event;
    uint64_t armed_us; /* what timer_fd is set to */
    struct timer **heap;
    size_t heap_used, heap_cap;
    uint64_t seq;

    int post_fd;
    struct event *post_event;
    pthread_mutex_t post_lock; /* guards `posts` alone */
    TAILQ_HEAD(, post) posts;
    uint64_t last_post; /* number */

    struct hook *hooks;
    size_t hooks_used, hooks_cap;
    LIST_HEAD(, signal_hook) signals;
};

struct watch {
    struct event event;
    struct event_base *base;
    watch_fn *fn;
    void *cookie;
    int fd;
};

/* ---- timers: a binary heap ordered by (moment, order of setting), and one timerfd for its top
 * ---- */

static bool timer_before(const struct timer *a, const struct timer *b)
{
    return a->due_us != b->due_us ? a->due_us < b->due_us : a->seq < b->seq;
}

static void heap_put(struct loop *l, size_t pos, struct timer *t)
{
    l->heap[pos - 1] = t;
    t->pos = pos;
}

static void heap_sift_up(struct loop *l, struct timer *t, size_t pos)
{
    while (pos > 1 && timer_before(t, l->heap[pos / 2 - 1])) {
        heap_put(l, pos, l->heap[pos / 2 - 1]);
        pos /= 2;
    }
    heap_put(l, pos, t);
}

static void heap_sift_down(struct loop *l, struct timer *t, size_t pos)
{
    for (;;) {
        size_t child = pos * 2;

        if (child > l->heap_used)
            break;
        if (child < l->heap_used && timer_before(l->heap[child], l->heap[child - 1]))
            child++;
        if (!timer_before(l->heap[child - 1], t))
            break;
        heap_put(l, pos, l->heap[child - 1]);
        pos = child;
    }
    heap_put(l, pos, t);
}

void timer_init(struct timer *t, struct loop *l, loop_fn *fn, void *cookie)
{
    *t = (struct timer){.loop = l, .fn = fn, .cookie = cookie};
}

void timer_set(struct timer *t, uint64_t due_us)
{
    struct loop *l = t->loop;

    timer_cancel(t);
    if (due_us == USEC_NEVER)
        return;
    t->due_us = due_us;
    t->seq = l->seq++;
    l->heap = mem_grow(l->heap, l->heap_used, &l->heap_cap, sizeof(*l->heap));
    l->heap_used++;
    heap_sift_up(l, t, l->heap_used);
}

void timer_cancel(struct timer *t)
{
    struct loop *l = t->loop;
    size_t pos = t->pos;

    if (pos == 0)
        return;
    struct timer *last = l->heap[l->heap_used - 1];

    l->heap_used--;
    t->pos = 0;
    if (last == t)
        return;
    if (pos > 1 && timer_before(last, l->heap[pos / 2 - 1]))
        heap_sift_up(l, last, pos);
    else
        heap_sift_down(l, last, pos);
}

/* Sets the timerfd to the earliest timer. Done once before each sleep, so that timers set and
 * cancelled within one batch of callbacks cost no system call. */
static void timers_arm(struct loop *l)
{
    uint64_t due = l->heap_used > 0 ? l->heap[0]->due_us : USEC_NEVER;
    struct itimerspec spec = {0};

    if (due == 0)
        due = 1; /* zero would disarm */
    if (due == l->armed_us)
        return;
    if (due != USEC_NEVER) {
        spec.it_value.tv_sec = (time_t)(due / USEC_PER_SEC);
        spec.it_value.tv_nsec = (long)(due % USEC_PER_SEC) * 1000;
    }
    if (timerfd_settime(l->timer_fd, TFD_TIMER_ABSTIME, &spec, NULL) < 0)
        abort(); /* only a defect of ours can make it fail */
    l->armed_us = due;
}

static void timers_fire(evutil_socket_t fd, short what, void *cookie)
{
    struct loop *l = cookie;
    uint64_t count, now_us = now_os().mono_us;
    uint64_t limit = l->seq; /* timers set from here on wait for the next turn */

    if (read(fd, &count, sizeof(count)) == (ssize_t)sizeof(count))
        l->armed_us = USEC_NEVER;
    while (l->heap_used > 0 && l->heap[0]->due_us <= now_us && l->heap[0]->seq < limit) {
        struct timer *t = l->heap[0];

        timer_cancel(t);
        t->fn(t->cookie);
    }
}

/* ---- posts ---- */

void loop_post(struct loop *l, loop_fn *fn, void *cookie)
{
    struct post *p = xmalloc(sizeof(*p));
    uint64_t one = 1;

    p->fn = fn;
    p->cookie = cookie;
    pthread_mutex_lock(&l->post_lock);
    bool first = TAILQ_EMPTY(&l->posts);
    p->number = ++l->last_post;
    TAILQ_INSERT_TAIL(&l->posts, p, link);
    /* Inside the lock: once it is released the loop may run the call and be freed. The counter
     * cannot overflow: it is written only when the queue was empty. */
    if (first && write(l->post_fd, &one, sizeof(one)) != (ssize_t)sizeof(one))
        abort();
    pthread_mutex_unlock(&l->post_lock);
}

void loop_unpost(struct loop *l, loop_fn *fn, void *cookie)
{
    struct post *p, *next;

    pthread_mutex_lock(&l->post_lock);
    for (p = TAILQ_FIRST(&l->posts); p; p = next) {
        next = TAILQ_NEXT(p, link);
        if (p->fn != fn || p->cookie != cookie)
            continue;
        TAILQ_REMOVE(&l->posts, p, link);
        free(p);
    }
    pthread_mutex_unlock(&l->post_lock);
}

/* The first one, if its number is at most this. */
static struct post *post_take(struct loop *l, uint64_t up_to)
{
    pthread_mutex_lock(&l->post_lock);
    struct post *p = TAILQ_FIRST(&l->posts);
    if (p && p->number > up_to)
        p = NULL;
    if (p)
        TAILQ_REMOVE(&l->posts, p, link);
    pthread_mutex_unlock(&l->post_lock);
    return p;
}

static uint64_t last_post(struct loop *l)
{
    pthread_mutex_lock(&l->post_lock);
    uint64_t number = l->last_post;
    pthread_mutex_unlock(&l->post_lock);
    return number;
}

static void posts_run(evutil_socket_t fd, short what, void *cookie)
{
    struct loop *l = cookie;
    uint64_t count, one = 1;
    struct post *p;
    /* Then sockets and timers get their turn: long work is done in pieces that each post the next. */
    unsigned left = 1000;
    uint64_t up_to = last_post(l);

    if (read(fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        abort();
    while (left-- > 0 && (p = post_take(l, up_to))) {
        loop_fn *fn = p->fn;
        void *arg = p->cookie;

        free(p);
        fn(arg);
    }
    pthread_mutex_lock(&l->post_lock);
    if (!TAILQ_EMPTY(&l->posts) && write(fd, &one, sizeof(one)) != (ssize_t)sizeof(one))
        abort();
    pthread_mutex_unlock(&l->post_lock);
}

/* ---- idle hooks, signals ---- */

void loop_on_idle(struct loop *l, loop_fn *fn, void *cookie)
{
    l->hooks = mem_grow(l->hooks, l->hooks_used, &l->hooks_cap, sizeof(*l->hooks));
    l->hooks[l->hooks_used++] = (struct hook){fn, cookie};
}

void loop_off_idle(struct loop *l, loop_fn *fn, void *cookie)
{
    for (size_t i = 0; i < l->hooks_used; i++) {
        if (l->hooks[i].fn == fn && l->hooks[i].cookie == cookie)
            l->hooks[i].fn = NULL;
    }
}

static void hooks_run(struct loop *l)
{
    size_t kept = 0;

    for (size_t i = 0; i < l->hooks_used; i++) {
        if (l->hooks[i].fn)
            l->hooks[i].fn(l->hooks[i].cookie);
    }
    for (size_t i = 0; i < l->hooks_used; i++) {
        if (l->hooks[i].fn)
            l->hooks[kept++] = l->hooks[i];
    }
    l->hooks_used = kept;
}

static void signal_run(evutil_socket_t signo, short what, void *cookie)
{
    struct signal_hook *h = cookie;

    h->fn(h->cookie);
}

struct err *loop_on_signal(struct loop *l, int signo, loop_fn *fn, void *cookie)
{
    struct signal_hook *h = xcalloc(1, sizeof(*h));

    h->fn = fn;
    h->cookie = cookie;
    h->event = evsignal_new(l->base, signo, signal_run, h);
    if (!h->event || event_add(h->event, NULL) < 0) {
        if (h->event)
            event_free(h->event);
        free(h);
        return err_new(ERR_INTERNAL, "cannot catch signal %d", signo);
    }
    LIST_INSERT_HEAD(&l->signals, h, link);
    return NULL;
}

/* ---- the loop ---- */

static void *event_realloc(void *p, size_t n)
{
    return xrealloc(p, n ? n : 1, 1);
}

/* libevent does not look at all that it allocates: a connection that could not have a callback crashes, or sends nothing
 * for ever. So its memory ends like ours. */
static void memory_setup(void)
{
    event_set_mem_functions(xmalloc, event_realloc, free);
}

static struct err *loop_open(struct loop *l)
{
    struct event_config *config = event_config_new();

    if (!config)
        return err_new(ERR_INTERNAL, "cannot configure the event loop");
    event_config_set_flag(config, EVENT_BASE_FLAG_NOLOCK);
    l->base = event_base_new_with_config(config);
    event_config_free(config);
    if (!l->base)
        return err_errno(errno, "cannot make an event loop");
    l->timer_fd = timerfd_create(CLOCK_BOOTTIME, TFD_CLOEXEC | TFD_NONBLOCK);
    if (l->timer_fd < 0)
        return err_errno(errno, "cannot make the loop's timerfd");
    l->post_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (l->post_fd < 0)
        return err_errno(errno, "cannot make the loop's eventfd");
    l->timer_event = event_new(l->base, l->timer_fd, EV_READ | EV_PERSIST, timers_fire, l);
    l->post_event = event_new(l->base, l->post_fd, EV_READ | EV_PERSIST, posts_run, l);
    if (!l->timer_event || !l->post_event || event_add(l->timer_event, NULL) < 0 ||
        event_add(l->post_event, NULL) < 0)
        return err_new(ERR_INTERNAL, "cannot watch the loop's own descriptors");
    return NULL;
}

struct err *loop_new(struct loop **ret_loop)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct loop *l = xcalloc(1, sizeof(*l));

    pthread_once(&once, memory_setup);
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        abort();
    l->timer_fd = l->post_fd = -1;
    l->armed_us = USEC_NEVER;
    TAILQ_INIT(&l->posts);
    pthread_mutex_init(&l->post_lock, NULL);
    struct err *e = loop_open(l);
    if (e) {
        loop_free(l);
        return e;
    }
    *ret_loop = l;
    return NULL;
}

struct loop *loop_free(struct loop *l)
{
    struct post *p;
    struct signal_hook *h;

    if (!l)
        return NULL;
    while ((h = LIST_FIRST(&l->signals))) {
        LIST_REMOVE(h, link);
        event_free(h->event);
        free(h);
    }
    if (l->timer_event)
        event_free(l->timer_event);
    if (l->post_event)
        event_free(l->post_event);
    while ((p = post_take(l, UINT64_MAX)))
        free(p);
    if (l->base)
        event_base_free(l->base);
    mem_closep(&l->timer_fd);
    mem_closep(&l->post_fd);
    pthread_mutex_destroy(&l->post_lock);
    free(l->heap);
    free(l->hooks);
    free(l);
    return NULL;
}

struct err *loop_run(struct loop *l)
{
    l->stop = false;
    for (;;) {
        hooks_run(l);
        if (l->stop)
            return NULL;
        timers_arm(l);
        if (event_base_loop(l->base, EVLOOP_ONCE) < 0)
            return err_errno(errno, "the event loop failed");
    }
}

void loop_stop(struct loop *l)
{
    l->stop = true;
}

struct event_base *loop_base(struct loop *l)
{
    return l->base;
}

/* ---- watches ---- */

static void watch_ready(evutil_socket_t fd, short what, void *cookie)
{
    struct watch *w = cookie;

    w->fn(w->cookie, (what & EV_READ ? WATCH_READ : 0) | (what & EV_WRITE ? WATCH_WRITE : 0));
}

struct err *watch_set(struct watch *w, unsigned events)
{
    short what =
        (short)((events & WATCH_READ ? EV_READ : 0) | (events & WATCH_WRITE ? EV_WRITE : 0));

    if (what == event_get_events(&w->event) && event_pending(&w->event, what, NULL) == what)
        return NULL;
    event_del(&w->event);
    if (what == 0)
        return NULL;
    if (event_assign(&w->event, w->base, w->fd, (short)(what | EV_PERSIST), watch_ready, w) < 0 ||
        event_add(&w->event, NULL) < 0)
        return err_errno(errno, "cannot watch file descriptor %d", w->fd);
    return NULL;
}

struct err *watch_new(struct loop *l, int fd, unsigned events, watch_fn *fn, void *cookie,
                      struct watch **ret_watch)
{
    struct watch *w = xcalloc(1, sizeof(*w));

    w->base = l->base;
    w->fn = fn;
    w->cookie = cookie;
    w->fd = fd;
    if (event_assign(&w->event, w->base, fd, EV_READ | EV_PERSIST, watch_ready, w) < 0) {
        free(w);
        return err_new(ERR_INTERNAL, "cannot watch file descriptor %d", fd);
    }
    struct err *e = watch_set(w, events);
    if (e) {
        free(w);
        return e;
    }
    *ret_watch = w;
    return NULL;
}

struct watch *watch_free(struct watch *w)
{
    if (w)
        event_del(&w->event);
    free(w);
    return NULL;
}
