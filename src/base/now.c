#include "base/now.h"

#include <time.h>

static uint64_t read_clock(clockid_t id)
{
    struct timespec ts;

    (void)clock_gettime(id, &ts); /* cannot fail for these clocks */
    return (uint64_t)ts.tv_sec * USEC_PER_SEC + (uint64_t)ts.tv_nsec / 1000;
}

struct now now_os(void)
{
    return (struct now){read_clock(CLOCK_BOOTTIME), read_clock(CLOCK_REALTIME)};
}
