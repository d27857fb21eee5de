/* The event loop: one a process (or one a test), run by one thread. Everything here belongs to that
 * thread, except loop_post(), which any thread may call. Callbacks must not block. An idle loop
 * makes no wake-ups: nothing ticks.
 *
 * loop_new() sets SIGPIPE to be ignored in the whole process (a vanished peer must be an error, not
 * a death); whoever spawns programs resets it for them. */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct loop;
struct event_base;
typedef void loop_fn(void *cookie);

struct err *loop_new(struct loop **ret_loop) MUST_USE;
/* Accepts NULL; returns NULL. Timers still set and calls still posted never run; their cookies are
 * the caller's. Watches must be gone. Not from inside loop_run(). */
struct loop *loop_free(struct loop *l);
/* Runs callbacks until loop_stop(). May be called again afterwards. */
struct err *loop_run(struct loop *l) MUST_USE;
/* Makes loop_run() return after the callbacks that are ready now. From another thread: post it. */
void loop_stop(struct loop *l);
/* For the transports, which build on libevent. Use only on the loop thread: the base has no locks.
 */
struct event_base *loop_base(struct loop *l);

/* Calls fn(cookie) on the loop thread, soon, in the order of the posts (never from inside this
 * call). What is posted by a posted call waits until sockets and timers have had their turn. Any thread. */
void loop_post(struct loop *l, loop_fn *fn, void *cookie);
/* Forgets all calls posted with this fn and cookie that have not run. Loop thread. */
void loop_unpost(struct loop *l, loop_fn *fn, void *cookie);

/* Calls fn(cookie) after each batch of callbacks, before the loop sleeps (and once before the first
 * sleep): the place to flush what the batch has gathered. Hooks run in the order of registration;
 * what a hook posts or makes ready is served before the loop sleeps, and then the hooks run again.
 */
void loop_on_idle(struct loop *l, loop_fn *fn, void *cookie);
void loop_off_idle(struct loop *l, loop_fn *fn, void *cookie);

/* Calls fn(cookie) on the loop after the process got the signal; one registration a signal and
 * process. Lasts until loop_free(). */
struct err *loop_on_signal(struct loop *l, int signo, loop_fn *fn, void *cookie) MUST_USE;

/* A one-shot timer, embedded in the structure it serves. The fields are private. */
struct timer {
    struct loop *loop;
    loop_fn *fn;
    void *cookie;
    uint64_t due_us;
    uint64_t seq;
    size_t pos; /* place in the loop's heap, from 1; 0 = not set */
};

void timer_init(struct timer *t, struct loop *l, loop_fn *fn, void *cookie);
/* Calls fn once, not before `due_us` (CLOCK_BOOTTIME microseconds: struct now.mono_us); a moment in
 * the past means at the next turn of the loop. Replaces the moment set before; USEC_NEVER cancels.
 * Timers of the same moment fire in the order they were set. The timer is unset when fn runs: fn
 * may set it again or free what holds it. */
void timer_set(struct timer *t, uint64_t due_us);
void timer_cancel(struct timer *t); /* harmless when not set, or all zero */
static inline bool timer_is_set(const struct timer *t)
{
    return t->pos != 0;
}

/* Readiness of a file descriptor, level-triggered: called again as long as it stays ready. */
#define WATCH_READ 1u
#define WATCH_WRITE 2u
struct watch;
typedef void watch_fn(void *cookie, unsigned ready);

/* `fd` stays the caller's and must stay open until watch_free(). events = 0: watches nothing yet.
 */
struct err *watch_new(struct loop *l, int fd, unsigned events, watch_fn *fn, void *cookie,
                      struct watch **ret_watch) MUST_USE;
struct err *watch_set(struct watch *w, unsigned events) MUST_USE; /* replaces the set of events */
struct watch *
watch_free(struct watch *w); /* accepts NULL; returns NULL; fine inside its callback */
