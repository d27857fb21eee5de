/* A source of random numbers, passed to whoever needs one: the operating system's in programs,
 * a seeded one in simulation. */
#pragma once

#include <stdint.h>

struct random {
    uint64_t (*next)(void *cookie); /* 64 uniformly distributed bits */
    void *cookie;
};

/* The kernel's generator; thread-safe. */
struct random random_os(void);
/* Reproducible (splitmix64); `state` belongs to the caller and must outlive the source. */
struct random random_seeded(uint64_t *state);

static inline uint64_t random_next(const struct random *r)
{
    return r->next(r->cookie);
}
/* Uniform in [0, bound); bound > 0. */
uint64_t random_below(const struct random *r, uint64_t bound);
