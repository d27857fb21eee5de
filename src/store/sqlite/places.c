/* Open addressing with linear probing. A slot's home follows from its tag alone, so that the table grows, and closes the gap
 * of what is removed, without the keys. */
#include "store/sqlite/places.h"

#include "base/mem.h"

#include <string.h>
#include <xxhash.h>

#define TAG_BITS 26
#define ROW_BITS 38

_Static_assert(PLACE_ROW_MAX == INT64_C(1) << ROW_BITS && TAG_BITS + ROW_BITS == 64, "a slot has 64 bits");

static uint64_t tag_of(const char *key)
{
    return XXH3_64bits(key, strlen(key)) >> ROW_BITS;
}

static size_t home_of(const struct places *p, uint64_t slot)
{
    return (size_t)(((slot >> ROW_BITS) * p->cap) >> TAG_BITS);
}

static size_t after(const struct places *p, size_t i)
{
    return i + 1 < p->cap ? i + 1 : 0;
}

static void put(struct places *p, uint64_t slot)
{
    size_t i = home_of(p, slot);

    while (p->slots[i])
        i = after(p, i);
    p->slots[i] = slot;
}

static void grow(struct places *p)
{
    struct places larger = {.n = p->n, .cap = p->cap ? p->cap + p->cap / 2 : 16};

    larger.slots = xcalloc(larger.cap, sizeof(*larger.slots));
    for (size_t i = 0; i < p->cap; i++) {
        if (p->slots[i])
            put(&larger, p->slots[i]);
    }
    free(p->slots);
    *p = larger;
}

void places_add(struct places *p, const char *key, int64_t row)
{
    if (p->n >= p->cap - p->cap / 4)
        grow(p);
    put(p, tag_of(key) << ROW_BITS | (uint64_t)row);
    p->n++;
}

/* Moves what lies behind the gap into it, unless its home is behind the gap too. */
static void close_gap(struct places *p, size_t gap)
{
    for (size_t i = after(p, gap); p->slots[i]; i = after(p, i)) {
        size_t home = home_of(p, p->slots[i]);
        bool stays = gap < i ? gap < home && home <= i : gap < home || home <= i;

        if (stays)
            continue;
        p->slots[gap] = p->slots[i];
        gap = i;
    }
    p->slots[gap] = 0;
}

void places_remove(struct places *p, const char *key, int64_t row)
{
    uint64_t slot = tag_of(key) << ROW_BITS | (uint64_t)row;
    size_t i = home_of(p, slot);

    while (p->slots[i] != slot)
        i = after(p, i);
    close_gap(p, i);
    p->n--;
}

int64_t places_next(const struct places *p, const char *key, size_t *at)
{
    uint64_t tag = tag_of(key);

    if (!p->cap)
        return 0;
    size_t i = *at ? *at - 1 : home_of(p, tag << ROW_BITS);
    for (; p->slots[i]; i = after(p, i)) {
        if (p->slots[i] >> ROW_BITS != tag)
            continue;
        *at = after(p, i) + 1;
        return (int64_t)(p->slots[i] & (uint64_t)(PLACE_ROW_MAX - 1));
    }
    return 0;
}

void places_done(struct places *p)
{
    free(p->slots);
    *p = (struct places){0};
}
