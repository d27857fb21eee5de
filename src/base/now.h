/* The moment at which an event happened, read once at the edge and handed to the core. */
#pragma once

#include <stdint.h>

#define USEC_PER_MSEC 1000u
#define USEC_PER_SEC 1000000u
#define MSEC_PER_SEC 1000u
#define USEC_NEVER UINT64_MAX

struct now {
    uint64_t mono_us; /* monotonic; includes time asleep (CLOCK_BOOTTIME) */
    uint64_t wall_us; /* microseconds since 1970-01-01 UTC; may jump */
};

/* Reads the system's clocks; not for the core. Thread-safe. */
struct now now_os(void);
