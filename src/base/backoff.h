/* Back-off of one retried thing: 0.1 s, doubling, at most 30 s, each with ±20 % jitter (design rule 3). */
#pragma once

#include "base/random.h"

#include <stdint.h>

#define BACKOFF_FIRST_US 100000u
#define BACKOFF_MAX_US 30000000u

struct backoff {
    unsigned failures; /* in a row */
    uint64_t next_us;  /* not before this moment (same clock as `now_us`); 0 = at once */
};

void backoff_fail(struct backoff *b, uint64_t now_us, const struct random *r);
static inline void backoff_reset(struct backoff *b)
{
    *b = (struct backoff){0};
}
