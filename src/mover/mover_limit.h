/* A limit of bytes a second that all streams of a node share. Pure: the caller keeps the time, and
 * locks. */
#pragma once

#include <stdint.h>

struct mover_limit {
    uint64_t rate;    /* bytes a second; 0 = no limit */
    uint64_t free_us; /* everything that was granted is through then (now_os().mono_us) */
};

/* Grants `n` bytes in the order of the calls; they may be sent from the time on that it returns.
 * What was not used up to now counts for a tenth of a second at most. */
uint64_t mover_limit_take(struct mover_limit *l, uint64_t now_us, uint64_t n);
/* The largest piece that should be taken at once, so that one does not keep the others waiting. */
uint64_t mover_limit_piece(const struct mover_limit *l, uint64_t max);
