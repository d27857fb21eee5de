/* Shared by the files that check the bodies of requests; not for others. */
#pragma once

#include "base/mem.h"
#include "base/str.h"
#include "model/validate.h"

/* What the checks of one body share. */
struct check {
    json_t *errors; /* NULL = none yet */
};

/* Adds a sentence, up to VALIDATE_MAX_ERRORS. */
void complain(struct check *c, const char *fmt, ...) PRINTF_LIKE(2, 3);

/* One key of an object: `check` looks at the value, complains about it under the name `where`, and
 * puts it into `to`. */
typedef void check_fn(struct check *c, const char *where, const json_t *v, void *to);
struct field {
    const char *key;
    bool required;
    check_fn *check;
};

#define KEY_FMT "\"%s%.100s\"" /* keys come from the client: a long one is cut in messages */

/* `prefix` stands before the keys in messages: "" or "ports[0].". */
void check_object(struct check *c, const char *prefix, const json_t *v, const struct field *fields,
                  size_t n, void *to);

/* ---- values: true = it is well; what is wrong is complained about ---- */

size_t characters(const char *s);
bool alphanumeric(char ch);
bool good_name(const char *s); /* of a container */
/* Texts that agents take (proto/codec.h) only on one line and no longer than `max` bytes. */
bool check_line(struct check *c, const char *where, const char *s, size_t max);
bool check_integer(struct check *c, const char *where, const json_t *v, json_int_t min,
                   json_int_t max, json_int_t *ret);
/* A list with at least `min` and at most `max` different items. */
bool check_list(struct check *c, const char *where, const json_t *v, size_t min, size_t max);
void check_uuid_v4(struct check *c, const char *where, const json_t *v, struct uuid *ret);

/* ---- of fields ---- */

check_fn check_node; /* into a uuid */

/* validate_process.c: how the container's process runs, into a container */
check_fn check_command_line, check_entrypoint, check_user, check_working_dir, check_stop_signal,
    check_stop_grace, check_cpus, check_health, check_depends_on;
