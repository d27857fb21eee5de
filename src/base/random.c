#include "base/random.h"

#include <stdlib.h>
#include <sys/random.h>

static uint64_t os_next(void *cookie)
{
    uint64_t v;

    (void)cookie;
    if (getrandom(&v, sizeof(v), 0) != (ssize_t)sizeof(v))
        abort(); /* cannot happen: 8 bytes are never short once the pool is initialised */
    return v;
}

struct random random_os(void)
{
    return (struct random){os_next, NULL};
}

static uint64_t seeded_next(void *cookie)
{
    uint64_t *state = cookie;
    uint64_t z = (*state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

struct random random_seeded(uint64_t *state)
{
    return (struct random){seeded_next, state};
}

uint64_t random_below(const struct random *r, uint64_t bound)
{
    uint64_t limit = UINT64_MAX - UINT64_MAX % bound;
    uint64_t v;

    do {
        v = random_next(r);
    } while (v >= limit);
    return v % bound;
}
