#include "base/bucket.h"

#include "base/now.h"

static uint64_t capacity(const struct bucket *b)
{
    return b->limits.burst * BUCKET_CALL;
}

/* Lets in what has come since. */
static void fill(struct bucket *b, uint64_t now_us)
{
    uint64_t room = capacity(b) > b->level ? capacity(b) - b->level : 0;
    uint64_t elapsed = now_us > b->at_us ? now_us - b->at_us : 0;

    if (now_us > b->at_us)
        b->at_us = now_us;
    if (!b->limits.per_hour)
        return;
    b->level += elapsed > room / b->limits.per_hour ? room : elapsed * b->limits.per_hour;
}

static void ease(struct bucket *b, uint64_t now_us)
{
    while (b->gap_us && now_us >= b->eased_us + BUCKET_EASE_US) {
        b->eased_us += BUCKET_EASE_US;
        b->gap_us /= 2;
        if (b->gap_us < BUCKET_GAP_MIN_US)
            b->gap_us = 0;
    }
}

struct bucket bucket_full(struct bucket_limits limits, uint64_t now_us)
{
    struct bucket b = {.limits = limits, .at_us = now_us};

    b.level = capacity(&b);
    return b;
}

void bucket_set(struct bucket *b, struct bucket_limits limits, uint64_t now_us)
{
    fill(b, now_us);
    b->limits = limits;
    if (b->level > capacity(b))
        b->level = capacity(b);
}

void bucket_note(struct bucket *b, uint64_t now_us)
{
    ease(b, now_us);
    if (b->gap_us)
        b->next_us = now_us + b->gap_us;
}

unsigned bucket_take(struct bucket *b, unsigned n, uint64_t now_us)
{
    fill(b, now_us);
    if (bucket_gap_end(b, now_us) > now_us)
        return 0;
    uint64_t there = b->level / BUCKET_CALL;

    if (n > there)
        n = (unsigned)there;
    if (b->gap_us && n)
        n = 1;
    b->level -= n * BUCKET_CALL;
    if (n)
        bucket_note(b, now_us);
    return n;
}

void bucket_put(struct bucket *b, unsigned n, uint64_t now_us)
{
    fill(b, now_us);
    uint64_t room = capacity(b) > b->level ? capacity(b) - b->level : 0, back = n * BUCKET_CALL;

    b->level += back < room ? back : room;
}

uint64_t bucket_gap_end(struct bucket *b, uint64_t now_us)
{
    ease(b, now_us);
    return b->next_us;
}

uint64_t bucket_next_us(struct bucket *b, uint64_t now_us)
{
    uint64_t gap_end = bucket_gap_end(b, now_us), next = now_us;

    fill(b, now_us);
    if (b->level < BUCKET_CALL) {
        if (!b->limits.per_hour || !b->limits.burst)
            return USEC_NEVER;
        next += (BUCKET_CALL - b->level + b->limits.per_hour - 1) / b->limits.per_hour;
    }
    return next > gap_end ? next : gap_end;
}

void bucket_throttled(struct bucket *b, uint64_t asked_us, uint64_t now_us)
{
    ease(b, now_us);
    /* Several that were under way together are told together: that is once. */
    bool again = b->gap_us && now_us < b->eased_us + BUCKET_GAP_MIN_US;

    if (!again) {
        b->gap_us = b->gap_us ? b->gap_us * 2 : BUCKET_GAP_MIN_US * 2;
        if (b->gap_us > BUCKET_GAP_MAX_US)
            b->gap_us = BUCKET_GAP_MAX_US;
        b->eased_us = now_us;
    }
    uint64_t pause = asked_us > b->gap_us ? asked_us : b->gap_us;

    if (now_us + pause > b->next_us)
        b->next_us = now_us + pause;
}
