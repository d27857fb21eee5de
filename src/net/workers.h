/* A pool of threads for work that may block. Threads are made when needed, up to a limit, and end
 * after WORKERS_IDLE_US without work; an idle pool costs no thread and no wake-up. */
#pragma once

#include "net/loop.h"

#define WORKERS_IDLE_US 5000000u
#define WORKERS_STACK_BYTES (256u << 10)

struct workers;
typedef void workers_fn(void *cookie);

/* `name` (at most 15 characters) is what `ps -T` shows. max_threads > 0. */
struct workers *workers_new(struct loop *l, unsigned max_threads, const char *name);
/* Runs work(cookie) on a thread of the pool, then done(cookie) on the loop; done may be NULL. Jobs
 * start in the order of submission. Loop thread only. Work runs with all signals blocked (a program
 * spawned there must have its mask reset) and on a stack of WORKERS_STACK_BYTES. */
void workers_submit(struct workers *w, workers_fn *work, workers_fn *done, void *cookie);
/* Jobs whose `done` has not been called yet. Loop thread. */
size_t workers_pending(const struct workers *w);
/* Blocks until all jobs are done, also those that wait and those that `done` functions add; calls
 * their `done`; frees the pool. Loop thread, not from a `done`. Accepts NULL; returns NULL. */
struct workers *workers_stop(struct workers *w);
