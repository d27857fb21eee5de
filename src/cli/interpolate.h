/* Variables in the values of Compose files: $NAME, ${NAME}, ${NAME:-default}, ${NAME-default}, ${NAME:?error}, ${NAME?error},
 * ${NAME:+other}, ${NAME+other}; $$ is a $. And files of variables (.env, env_file). Pure functions. */
#pragma once

#include "base/err.h"
#include "base/str.h"

#include <jansson.h>

struct variables {
    void *cookie;
    /* NULL = not set; borrowed. */
    const char *(*find)(void *cookie, const char *name);
    json_t *unset; /* object; gets the names that were used, are not set and have no default; borrowed; may be NULL */
};

/* The caller frees *ret_text. The error says what is wrong in `text`. */
struct err *interpolate(const char *text, const struct variables *v, char **ret_text) MUST_USE;
/* All texts in `value` (not the keys), in place. The error begins with the path of the text. */
struct err *interpolate_all(json_t *value, const struct variables *v) MUST_USE;

/* Adds the variables in the text of a file, "NAME=VALUE" a line, to the object `to`; null is a name without "=". Values may
 * stand in quotes, and have variables in them unless these are single quotes. The error begins with the line's number. */
struct err *env_file_read(const char *text, const struct variables *v, json_t *to) MUST_USE;
