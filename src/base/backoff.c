#include "base/backoff.h"

void backoff_fail(struct backoff *b, uint64_t now_us, const struct random *r)
{
    uint64_t delay = BACKOFF_MAX_US;

    if (b->failures < 9) /* 0.1 s * 2^9 is past the cap */
        delay = (uint64_t)BACKOFF_FIRST_US << b->failures;
    if (delay > BACKOFF_MAX_US)
        delay = BACKOFF_MAX_US;
    b->failures++;
    delay = delay * 4 / 5 + random_below(r, delay * 2 / 5 + 1);
    b->next_us = now_us + (delay < BACKOFF_MAX_US ? delay : BACKOFF_MAX_US);
}
