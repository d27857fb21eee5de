/* A node of which an operator has signed that it is off (flockerctl fence): it is given nothing, and what it owned may get another
 * owner (src/core/README.md, "Fences"). Plain values; not thread-safe. */
#pragma once

#include "base/uuid.h"

#include <stdint.h>

#define FENCE_MAX_TEXT 256 /* characters (code points) of `who` and of `why` */

struct fence {
    struct uuid node;
    uint64_t revision;
    struct uuid era; /* boot id of its last session before it was signed, or else of the first one after that; nil = not known yet */
    uint64_t at_us;  /* wall clock */
    char *who;       /* the name in the certificate of whoever signed */
    char *why;       /* in his words; "" = none */
};

struct fence *fence_copy(const struct fence *f);
struct fence *fence_free(struct fence *f); /* accepts NULL; returns NULL */
