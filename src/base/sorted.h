/* An ordered set of pointers: what follows a key is found without looking at the rest. The caller owns what they point to, and
 * what an item is ordered by must not change while it is in. Costs 8 to 16 bytes an item; adding and removing take a binary
 * search and moving at most SORTED_CHUNK pointers (and, once in many times, one pointer for each full chunk). Begins as {0}. Not
 * thread-safe. */
#pragma once

#include <stddef.h>

/* Where the key stands to the item: < 0 before it, 0 it is the item's, > 0 after it. */
typedef int sorted_compare_fn(const void *key, const void *item);

#define SORTED_CHUNK 255u

struct sorted_chunk {
    size_t n; /* never 0 */
    void *items[SORTED_CHUNK];
};

struct sorted {
    struct sorted_chunk **chunks;
    size_t n_chunks, cap;
};

/* Where a walk is. Only good until something is added or removed. */
struct sorted_place {
    size_t chunk, number; /* of the next item */
};

/* `key` is the item's own, and no other item in the set has it. */
void sorted_add(struct sorted *s, sorted_compare_fn *compare, const void *key, void *item);
/* No effect when nothing in the set has the key. */
void sorted_remove(struct sorted *s, sorted_compare_fn *compare, const void *key);
/* The place of the first item after the key, which need not be in the set; NULL: of the first one. */
struct sorted_place sorted_after(const struct sorted *s, sorted_compare_fn *compare, const void *key);
/* The item at the place, which moves on; NULL at the end. */
void *sorted_next(const struct sorted *s, struct sorted_place *place);
/* Makes an empty set of all these at once, which are in order: much quicker than one by one. */
void sorted_fill(struct sorted *s, void *const *items, size_t n);
/* Forgets all items; they are the caller's. */
void sorted_done(struct sorted *s);
