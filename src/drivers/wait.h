/* Waiting for what others do: for a state (struct wait), and between tries of a call that failed (struct retry). Both end at
 * a deadline; nothing here waits without end. Block; a struct belongs to one thread. */
#pragma once

#include "base/backoff.h"

#include <stdbool.h>
#include <stdint.h>

/* A state that is waited for; the first look is at once:
 *     struct wait w = wait_for(90);
 *     do { look; if (it is so) return NULL; } while (wait_more(&w));
 *     return err_new(ERR_TIMEOUT, ...); */
struct wait {
    uint64_t deadline_us; /* monotonic */
    uint64_t pause_us; /* the next one: 0.2 s at first, half as much again each time, at most 3 s */
    uint64_t least_us; /* no pause is shorter, but the one after wait_soon() */
};
struct wait wait_for(unsigned seconds);
/* For what costs nothing to look at, as in this machine's /sys: the first pause is 5 ms. */
struct wait wait_for_local(unsigned seconds);
/* Sleeps for the next pause; false, at once, when the deadline would pass meanwhile. */
bool wait_more(struct wait *w);
/* Something was changed a moment ago, and that may be done at once: the next look comes after 10 ms. */
void wait_soon(struct wait *w);

/* Tries of one call, `{.deadline_us = ...}`; the pauses are those of base/backoff.h. */
struct retry {
    uint64_t deadline_us; /* monotonic */
    struct backoff backoff;
};
/* Sleeps before the next try, at least the seconds that the other side asked for; false, at once, when there would be no time left
 * for one: then the last error is the result. */
bool retry_pause(struct retry *r, unsigned asked_s);
/* Time that a try may take: what is left until the deadline, at most `most_us`, at least a millisecond. */
uint64_t retry_time_us(const struct retry *r, uint64_t most_us);
