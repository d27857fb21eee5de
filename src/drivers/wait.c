#include "drivers/wait.h"

#include "base/now.h"

#include <unistd.h>

#define PAUSE_FIRST_US 200000u
#define PAUSE_SOON_US 10000u
#define PAUSE_LOCAL_US 5000u
#define PAUSE_MAX_US 3000000u
#define TRY_MIN_US                                                                                 \
    (USEC_PER_SEC /                                                                                \
     2) /* with less time left, no new try: its answer would only hide the last one */

struct wait wait_for(unsigned seconds)
{
    return (struct wait){.deadline_us = now_os().mono_us + seconds * (uint64_t)USEC_PER_SEC,
                         .pause_us = PAUSE_FIRST_US,
                         .least_us = PAUSE_FIRST_US};
}

struct wait wait_for_local(unsigned seconds)
{
    struct wait w = wait_for(seconds);

    w.pause_us = w.least_us = PAUSE_LOCAL_US;
    return w;
}

bool wait_more(struct wait *w)
{
    if (now_os().mono_us + w->pause_us >= w->deadline_us)
        return false;
    (void)usleep((useconds_t)w->pause_us);
    w->pause_us = w->pause_us * 3 / 2 < PAUSE_MAX_US ? w->pause_us * 3 / 2 : PAUSE_MAX_US;
    w->pause_us = w->pause_us > w->least_us ? w->pause_us : w->least_us;
    return true;
}

void wait_soon(struct wait *w)
{
    w->pause_us = PAUSE_SOON_US;
}

bool retry_pause(struct retry *r, unsigned asked_s)
{
    uint64_t now = now_os().mono_us, asked = asked_s * (uint64_t)USEC_PER_SEC;
    struct random random = random_os();

    backoff_fail(&r->backoff, now, &random);
    uint64_t pause = r->backoff.next_us - now;

    if (asked > pause)
        pause = asked;
    if (now + pause + TRY_MIN_US >= r->deadline_us)
        return false;
    for (uint64_t left = pause; left; left -= left < USEC_PER_SEC ? left : USEC_PER_SEC)
        (void)usleep((useconds_t)(left < USEC_PER_SEC ? left : USEC_PER_SEC));
    return true;
}

uint64_t retry_time_us(const struct retry *r, uint64_t most_us)
{
    uint64_t now = now_os().mono_us,
             left = r->deadline_us > now ? r->deadline_us - now : USEC_PER_MSEC;

    return left < most_us ? left : most_us;
}
