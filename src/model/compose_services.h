/* Shared by the parsers of Compose files; not for others. What they return as text is the sentence to answer with, NULL when all
 * is well; the caller frees it. */
#pragma once

#include "model/compose_private.h"

/* "services.web.ports: ..." */
char *service_error(const struct application *a, const char *key, const char *format, ...)
    PRINTF_LIKE(3, 4);
/* Notes the keys that are none of these, and no extensions, for services_unsupported(). */
void note_others(struct applications *all, const char *where, const json_t *object,
                 const char *const *known);

/* ---- compose_values.c ---- */

/* A text, number or boolean as text; NULL for anything else. */
char *scalar_text(const json_t *v);
/* Interpolation makes texts of numbers. */
bool take_integer(const json_t *v, json_int_t *ret);
bool take_boolean(const json_t *v, bool *ret);
/* "512m", "1.5gb", 1073741824. */
bool take_bytes(const json_t *v, json_int_t *ret);
/* "1m30s", "1.5s", "500ms": seconds. */
bool take_duration(const json_t *v, double *ret);
/* A list of texts, or one text that is split as a shell would; NULL when it is neither. */
json_t *take_command(const json_t *v);

/* ---- keys of a service ---- */

/* Takes the value of the key into the application's body. */
typedef char *service_key_fn(struct applications *all, struct application *a, const char *key,
                             const json_t *v);

service_key_fn service_ports;        /* compose_ports.c */
service_key_fn service_volumes;      /* compose_volumes.c */
service_key_fn service_dependencies; /* compose_links.c */
char *declare_volumes(struct applications *all,
                      const json_t *file); /* those at the top level, before all services */
