/* A token bucket: how many calls of somebody else's API may be made, and when. Pure: the caller passes the time, always of
 * the same monotonic clock. One thread at a time. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define BUCKET_BURST_MAX 1000000u
#define BUCKET_PER_HOUR_MAX 1000000000u

struct bucket_limits {
    uint32_t per_hour; /* calls that come into it; 0 = none ever */
    uint32_t burst;    /* that it holds */
};

struct bucket {
    struct bucket_limits limits;
    uint64_t level; /* BUCKET_CALL a call ... */
    uint64_t at_us; /* ... as of then */
    /* They said "too many" a while ago: */
    uint64_t gap_us;   /* so long from one call to the next; 0 = no more */
    uint64_t next_us;  /* no call before this */
    uint64_t eased_us; /* when the gap became what it is */
};

/* Calls an hour, for so many microseconds: */
#define BUCKET_CALL 3600000000ull

struct bucket bucket_full(struct bucket_limits limits, uint64_t now_us);
/* Other limits from now on; what is in it stays, as far as it finds room. */
void bucket_set(struct bucket *b, struct bucket_limits limits, uint64_t now_us);
/* Takes up to `n`; how many it could. While there is a gap, one. */
unsigned bucket_take(struct bucket *b, unsigned n, uint64_t now_us);
/* These were not used. What finds no room is lost. */
void bucket_put(struct bucket *b, unsigned n, uint64_t now_us);
/* One was made that did not come out of this bucket: counts for the gap. */
void bucket_note(struct bucket *b, uint64_t now_us);
/* No call may be made before (the past: none is in the way); ... */
uint64_t bucket_gap_end(struct bucket *b, uint64_t now_us);
/* ... and when one can be taken; USEC_NEVER: not with these limits. */
uint64_t bucket_next_us(struct bucket *b, uint64_t now_us);
/* Whoever is called says that there were too many: none for `asked_us`, and then with gaps, twice as long each time. They
 * are halved every BUCKET_EASE_US without that. */
#define BUCKET_EASE_US (10 * 1000000u)
#define BUCKET_GAP_MIN_US 250000u
#define BUCKET_GAP_MAX_US 30000000u
void bucket_throttled(struct bucket *b, uint64_t asked_us, uint64_t now_us);
