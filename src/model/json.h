/* JSON as the REST API speaks it (contract section 1): bodies in, objects out. Pure functions,
 * thread-safe. */
#pragma once

#include "base/err.h"
#include "base/str.h"
#include "model/container.h"
#include "model/dataset.h"
#include "model/lease.h"
#include "model/reason.h"

#include <jansson.h>

/* Once, when a program starts: jansson ends the process when memory is exhausted, as our own functions do (base/mem.h).
 * Else it would call a body or a record damaged for want of memory, or leave something out. */
void json_setup(void);

#define JSON_MAX_DEPTH 32 /* the API needs 5 */

/* Parses one JSON value of any kind; nothing but white space may surround it. ERR_INVALID: not
 * JSON, not UTF-8, a key twice in one object, nested deeper than JSON_MAX_DEPTH, a NUL in a text,
 * an integer outside 64 bits, a number outside what a double can hold. The caller calls
 * json_decref. */
struct err *json_parse(const char *text, size_t n, json_t **ret) MUST_USE;

/* Appends the compact text of `v`. */
void json_append(struct str *s, const json_t *v);

/* Appends `text` as a JSON string, with its quotes; valid UTF-8. */
void json_append_string(struct str *s, const char *text);
/* Appends the configuration of a dataset as the API shows it. There may be a hundred thousand in
 * one answer, so they are written out without a tree of values in between. */
void json_append_dataset(struct str *s, const struct dataset *d);

/* The API's other objects, with the keys in the order of the contract's examples; the caller calls
 * json_decref. Texts in the model are valid UTF-8 (validation saw to it). */
json_t *json_container_configuration(const struct container *c);
json_t *
json_container_volumes(const struct container *c); /* its "volumes", [] when there are none */
/* `left_us`: until it expires; used only when the lease expires. */
json_t *json_lease(const struct lease *l, int64_t left_us);
json_t *json_lease_state(const struct lease *l, int64_t left_us); /* and since when, and why */
/* A text from outside: null for NULL; when it is not UTF-8 its odd bytes become "?". Never NULL. */
json_t *json_text(const char *s);
json_t *json_uuid(const struct uuid *u);         /* text */
json_t *json_uuid_or_null(const struct uuid *u); /* null when nil */
json_t *json_metadata(const struct metadata *m);
/* {"node", "snapshot", "until"}, the time in seconds since 1970; null for NULL. */
json_t *json_replica(const struct replica *p);
/* {"code", "text", "since", "next_try", "advice"}, times in seconds since 1970; null for
 * REASON_NONE. */
json_t *json_reason(const struct reason *r);
