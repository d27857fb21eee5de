/* Where the record of each key lies: its row. A table in memory, filled when the store is opened, instead of an index in the
 * file: the keys are random, so that each new one would dirty a page somewhere in the index, where the rows of new records
 * lie side by side. 8 bytes a slot; of a key it has only 26 bits, so that the key of a row must be compared. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A row's number has to be below this: six thousand new records a second use it up in a year and a half. */
#define PLACE_ROW_MAX (INT64_C(1) << 38)

struct places {
    uint64_t *slots; /* tag and row; 0 = free */
    size_t n, cap;
};

/* `row`: above 0 and below PLACE_ROW_MAX. */
void places_add(struct places *p, const char *key, int64_t row);
void places_remove(struct places *p, const char *key, int64_t row); /* it must be there */
/* The rows one of which has the key, if any has: *at is 0 for the first, and then left as it is. 0: no more. Nothing may
 * be added or removed in between. */
int64_t places_next(const struct places *p, const char *key, size_t *at);
void places_done(struct places *p);
