/* Request bodies of the REST API checked against the contract's schemas (section 1.2), and made
 * into model objects in canonical form. Pure functions, thread-safe.
 *
 * Each returns NULL when the body is fine, and writes its results; otherwise a JSON list of
 * sentences, one for each violation, that name the key (at most VALIDATE_MAX_ERRORS); the caller
 * calls json_decref. */
#pragma once

#include "model/container.h"
#include "model/dataset.h"

#include <jansson.h>

#define VALIDATE_MAX_ERRORS 20
/* No text that passes may be too much for the agents (proto/codec.h): a node would get orders that it cannot read. */
#define VALIDATE_MAX_NAME 255          /* bytes of a container's name, or of a link's alias */
#define VALIDATE_MAX_IMAGE 1000        /* bytes; ":latest" may be added */
#define VALIDATE_MAX_PATH 4095         /* bytes of a mountpoint; Linux' own limit */
#define VALIDATE_MAX_VARIABLES 4096    /* of an environment */
#define VALIDATE_MAX_VARIABLE 131000   /* bytes of one's name and value; Linux takes 131,071 with "=" */
#define VALIDATE_MAX_COMMAND_LINE 4096 /* strings, and characters of each; of an entrypoint and a health check's test, too */
#define VALIDATE_MAX_USER 255          /* bytes */
#define VALIDATE_MAX_LABELS 4096
#define VALIDATE_MAX_LABEL 65536       /* bytes of one's name and value */
#define VALIDATE_MAX_DEPENDENCIES 256
#define VALIDATE_MAX_VOLUMES 256
#define VALIDATE_MAX_DURATION 86400 /* seconds: a stop's grace, and a health check's times */
#define VALIDATE_MAX_CPUS 65536

/* The id is nil when the body names none. */
json_t *validate_dataset_create(const json_t *body, struct dataset **ret)
    __attribute__((warn_unused_result));
/* What the body names none of is nil, 0, or (metadata) told by *ret_has_metadata. */
json_t *validate_dataset_update(const json_t *body, struct dataset **ret, bool *ret_has_metadata)
    __attribute__((warn_unused_result));
json_t *validate_container_create(const json_t *body, struct container **ret)
    __attribute__((warn_unused_result));
json_t *validate_container_update(const json_t *body, struct uuid *ret_node)
    __attribute__((warn_unused_result));

/* Only that both parts are there and objects; what is in them is compose.h's. */
json_t *validate_compose(const json_t *body) __attribute__((warn_unused_result));

json_t *validate_adoption(const json_t *body, bool *ret_anyway) __attribute__((warn_unused_result));
/* *ret_why points into the body. */
json_t *validate_fence(const json_t *body, const char **ret_why) __attribute__((warn_unused_result));
json_t *validate_dataset_adoption(const json_t *body, struct uuid *ret_node, bool *ret_anyway)
    __attribute__((warn_unused_result));

struct lease_request {
    struct uuid dataset;
    struct uuid node;
    bool expires;
    int64_t expires_in_us; /* may be <= 0; beyond VALIDATE_MAX_LEASE_US it is that */
};
#define VALIDATE_MAX_LEASE_US INT64_C(4000000000000000000)

json_t *validate_lease(const json_t *body, struct lease_request *ret)
    __attribute__((warn_unused_result));

/* The canonical form of an image's name: `:latest` is added when neither tag nor digest is given.
 * The colon of a registry's port is no tag. NULL when the repository or the tag is empty; the
 * caller frees it. */
char *image_canonical(const char *image);
