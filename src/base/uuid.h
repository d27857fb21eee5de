/* UUIDs (RFC 4122) as values. */
#pragma once

#include "base/random.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct uuid {
    uint8_t b[16];
};

#define UUID_TEXT_SIZE 37 /* 36 characters and the NUL */
#define UUID_NIL ((struct uuid){{0}})

/* Reads exactly 36 characters 8-4-4-4-12, either case; false and *ret_id untouched otherwise. */
bool uuid_parse(const char *text, struct uuid *ret_id);
/* The same, and only version 4, variant 8/9/a/b (contract section 1.2). */
bool uuid_parse_v4(const char *text, struct uuid *ret_id);
/* Lower-case text into `buf`; returns buf. */
char *uuid_format(const struct uuid *id, char buf[UUID_TEXT_SIZE]);
struct uuid uuid_random_v4(const struct random *r);

static inline bool uuid_eq(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a->b, b->b, sizeof(a->b)) == 0;
}
static inline int uuid_cmp(const struct uuid *a, const struct uuid *b)
{
    return memcmp(a->b, b->b, sizeof(a->b));
}
static inline bool uuid_is_nil(const struct uuid *a)
{
    return uuid_eq(a, &UUID_NIL);
}
/* Text of an id for the length of one expression: `UUID_STR(id)`. */
#define UUID_STR(id) uuid_format((id), (char[UUID_TEXT_SIZE]){0})
