/* Shared by the parsers of compositions; not for others. */
#pragma once

#include "base/str.h"
#include "model/compose.h"

/* One application as both formats give it: the body of a container for validate.c, without its node. */
struct application {
    const char *name;     /* of the posted value */
    const json_t *config; /* likewise */
    json_t *body;
    struct dataset **volumes; /* owned; those of the body */
    size_t n_volumes;
    const char *place; /* what the file says about its node (Compose); NULL = nothing */
    bool placed;
    struct uuid node; /* when it is placed */
};

#define COMPOSE_MAX_LINKS                                                                          \
    100000u /* of all applications: a short text of links to many ports makes many */

struct applications {
    struct application *all;
    size_t n;
    json_t *index; /* name: number in `all` */
    size_t n_links;
    bool is_compose;
    /* Compose files only: */
    size_t n_ports;         /* of all services */
    json_t *volumes;        /* by the name in the file: "id", "size", "name", and "user", the service that has it */
    struct str unsupported; /* keys with their paths */
    size_t n_unsupported;
};

/* Each returns NULL, or the sentence to answer with, which the caller frees. */
typedef char *application_fn(struct applications *all, struct application *a);

/* Is it Fig's format? A sentence also when an entry has both of its keys. */
char *fig_detect(const json_t *value, bool *ret_is);
char *fig_parse(struct applications *all, struct application *a);
/* After fig_parse of all. */
char *fig_link(struct applications *all, struct application *a);
char *flocker_parse(struct applications *all, struct application *a);
/* Compose: before services_parse of all; after it; then the sentence about all that is not supported, or NULL. */
char *services_begin(struct applications *all, const json_t *file);
char *services_parse(struct applications *all, struct application *a);
char *services_link(struct applications *all, struct application *a);
char *services_check_order(struct applications *all);
char *services_unsupported(struct applications *all);

/* Places what is placed nowhere yet. */
char *compose_spread(struct applications *all, const struct compose_world *world);

/* "Application 'NAME' has a config error. ..." */
char *config_error(const struct application *a, const char *format, ...) PRINTF_LIKE(2, 3);
/* The same with "; got type 'TYPE'." at its end, where the text has no format. */
char *type_error(const struct application *a, const json_t *got, const char *text);
/* "list", "unicode", ...: what Python calls it. */
const char *python_type(const json_t *v);
/* Like Python, which takes true and false for numbers. */
bool is_int(const json_t *v);
/* A text as it is, anything else as JSON, "" for NULL; the caller frees it. */
char *shown(const json_t *v);
/* The keys that are not in the list (which ends with NULL), sorted, with ", " between; NULL when there are none. */
char *other_keys(const json_t *object, const char *const *known);
/* The same of those that are. */
char *keys_among(const json_t *object, const char *const *known);
/* Checks the image's name and puts it into the body. */
char *take_image(struct application *a, const char *name);
struct volume_wish {
    struct uuid dataset;
    const char *name; /* its metadata; NULL = the application's */
    const char *mountpoint;
    uint64_t maximum_size; /* 0 = none */
    bool read_only;
};

/* Gives the application the dataset, mounted there. */
void take_volume(struct application *a, const struct volume_wish *wish);
/* Appends a link to each of these ports of another application. */
char *compose_link(struct applications *all, const struct application *a, const char *alias, const json_t *ports,
                   json_t *links);
/* At least one letter or digit, and nothing else. */
bool compose_is_alphanumeric(const char *s);
/* Digits, maybe a fraction, maybe one of K, M, G, T; *ret_end is what follows. */
bool compose_quantity(const char *text, const char **ret_end, long double *ret_size);
