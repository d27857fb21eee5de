/* What the records of record.h are written and read with. Pure functions, thread-safe. */
#pragma once

#include "base/err.h"
#include "base/uuid.h"

#include <jansson.h>

/* ---- writing ---- */

struct record_writer {
    json_t *object;
    bool failed;
};

struct record_writer record_begin(int format);
/* Takes the value; a NULL value (not UTF-8) makes the whole record NULL in record_finish(). */
void record_set(struct record_writer *w, const char *key, json_t *value);
void record_append(struct record_writer *w, json_t *array, json_t *value); /* likewise */
char *record_finish(struct record_writer *w); /* the caller frees it; NULL when the writer failed */

json_t *record_number(uint64_t v);
json_t *record_id(const struct uuid *u);     /* null when nil */
json_t *record_own_id(const struct uuid *u); /* of an id that must be there; NULL when it is not */
json_t *record_text(const char *s);          /* null when NULL */

/* ---- reading ---- */

/* The first thing found wrong sticks in `err`, later reads return zeros. A key that was read is taken out of the object, so
 * what is left at the end is unknown. */
struct record_reader {
    json_t *object; /* borrowed; changed */
    const char *what;
    uint64_t format;
    struct err *err;
};

/* `newest`: the format of such records that this version knows. What it returns in `ret` must be given to record_parse_end(). */
struct err *record_parse(const char *what, uint64_t newest, const char *text, size_t n,
                         struct record_reader *ret) MUST_USE;
struct err *record_parse_end(struct record_reader *r) MUST_USE;
void record_wrong(struct record_reader *r, const char *key, const char *must);

/* A new reference, or NULL (and an error) when the key is absent. */
json_t *record_take(struct record_reader *r, const char *key);
json_t *record_get_typed(struct record_reader *r, const char *key, json_type type,
                         const char *must); /* NULL, too, when of another type */
uint64_t record_get_number(struct record_reader *r, const char *key, uint64_t max);
bool record_get_bool(struct record_reader *r, const char *key);
/* The caller frees it; NULL when wrong, or when null and `nullable`. */
char *record_get_text(struct record_reader *r, const char *key, bool nullable);
struct uuid record_get_id(struct record_reader *r, const char *key, bool nullable);
/* Reads one element of a list as an object of its own, whose fields are read with `fields`. */
void record_get_part(struct record_reader *r, const char *what, json_t *v,
                     void (*fields)(struct record_reader *part, void *to), void *to);
/* A value that was taken already. */
uint64_t record_value_number(struct record_reader *r, const char *key, const json_t *v,
                             uint64_t max);
struct uuid record_value_id(struct record_reader *r, const char *key, const json_t *v);
