/* How many calls of an account's API this agent may make. Drivers of backends whose API is called over a network take from
 * it before each call, and say when they were told that there were too many:
 *
 *     TRY(budget_take_sync(config->budget, deadline_us, NULL));
 *     ... the call ...
 *     if (throttled)
 *         budget_throttled(config->budget, retry_after_us);
 *
 * An account is used by all nodes of a cluster. Each agent has a small share that nobody takes away from it; what it needs
 * above that the control service hands out, and takes back when it is not used (core/engine_calls.c). An agent that has no
 * control service, or an older one, has the share BUDGET_ALONE.
 *
 * Thread-safe. Who waits is served in the order of coming. NULL is a budget without limits. */
#pragma once

#include "base/bucket.h"
#include "base/err.h"

#include <stdatomic.h>

struct budget;

#define BUDGET_ALONE ((struct bucket_limits){.per_hour = 3600, .burst = 50})

struct budget *budget_new(struct bucket_limits share);
struct budget *
budget_free(struct budget *b); /* accepts NULL; returns NULL. Nobody waits any more */

/* Waits until one more call may be made; counts it. Blocks until `deadline_us` (monotonic, as now_os()) at the latest:
 * ERR_TIMEOUT. `cancel` (may be NULL) is polled: ERR_CANCELLED. */
struct err *budget_take_sync(struct budget *b, uint64_t deadline_us,
                             const atomic_bool *cancel) MUST_USE;
/* The API said "too many". No call is made for `retry_after_us` (what it asked for, or 0), and later ones are further apart
 * for a while. */
void budget_throttled(struct budget *b, uint64_t retry_after_us);

/* ---- for whoever holds the link to the control service ---- */

struct budget_state {
    unsigned waiting;   /* threads */
    unsigned extra;     /* of what was handed out, not used yet */
    uint64_t taken;     /* calls, since the beginning */
    uint64_t throttled; /* how often the API said "too many" */
};
struct budget_state budget_state(struct budget *b);
/* Called, on a driver's thread and without locks, when one more waits or the API said "too many". Must return soon. */
void budget_on_news(struct budget *b, void (*fn)(void *cookie), void *cookie);
/* The own share from now on; what is in it stays as far as it finds room. */
void budget_set(struct budget *b, struct bucket_limits share);
void budget_add(struct budget *b, unsigned calls); /* handed out on top of the share */
/* Gives all of that back that was not used. */
unsigned budget_take_back(struct budget *b);
