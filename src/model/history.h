/* The lives of a store. Each start of the control service begins a new generation: a random id, and the revision at
 * which it began. A store that was put back from an older copy has other generations than the one it replaces, so two
 * histories that share a store id and reach the same revisions can still be told apart (design section 6, rule 0).
 * Plain values; not thread-safe. */
#pragma once

#include "base/uuid.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* How many are remembered. Who was last there before that must be told by an operator to obey (--adopt). */
#define HISTORY_MAX 4096u

struct generation {
    struct uuid id;
    uint64_t begin; /* revision of the store at its start; its own changes come after that */
};

struct history {
    struct uuid store;
    struct generation
        *generations; /* oldest first; the last one is the present life; never empty once opened */
    size_t n;
    uint64_t restored; /* a copy of this revision was put in the place of the store; 0 = never */
    bool unsettled;    /* ... and no operator has said since that the copy may be believed */
};

void history_copy(struct history *to,
                  const struct history *from); /* `to` is overwritten, not freed */
void history_done(struct history *h);

/* The present generation; nil when there is none. */
struct uuid history_generation(const struct history *h);
/* Up to which revision that generation's changes belong to this history: where the next one began, or `revision` (the
 * store's) for the last one. 0: nothing is known of it. */
uint64_t history_end(const struct history *h, const struct uuid *generation, uint64_t revision);
