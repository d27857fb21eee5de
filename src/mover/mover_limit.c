#include "mover/mover_limit.h"

#include "base/now.h"

#define SAVED_US (100 * USEC_PER_MSEC)
#define PIECE_MIN 32768u

uint64_t mover_limit_take(struct mover_limit *l, uint64_t now_us, uint64_t n)
{
    if (!l->rate)
        return now_us;
    if (l->free_us + SAVED_US < now_us)
        l->free_us = now_us - SAVED_US;
    uint64_t from = l->free_us;
    l->free_us += (uint64_t)((double)n * USEC_PER_SEC / (double)l->rate);
    return from > now_us ? from : now_us;
}

uint64_t mover_limit_piece(const struct mover_limit *l, uint64_t max)
{
    uint64_t piece = l->rate / 8;

    if (!l->rate || piece > max)
        return max;
    return piece < PIECE_MIN ? PIECE_MIN : piece;
}
