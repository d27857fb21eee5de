/* Calls of EC2's Query API, signed. Each blocks until its deadline at the latest, so it runs on a worker; all are
 * thread-safe. What EC2 asks to be tried again (throttling, trouble of its own, no connection) is, with growing pauses, until the
 * deadline: every call here may be repeated (creation has a client token, the others change nothing the second time). */
#pragma once

#include "drivers/aws/credentials.h"
#include "drivers/aws/reply.h"
#include "drivers/budget.h"

struct ec2;

struct ec2_config {
    const char *endpoint; /* NULL: https://ec2.REGION.amazonaws.com/ */
    const char *region;
    struct http_client *http; /* these two outlive the ec2 */
    struct aws_credentials *credentials;
    struct budget *budget; /* of calls; NULL: no limit. Outlives the ec2, too */
};

/* ERR_INVALID: the region cannot be the name of one, or the endpoint is no address. */
struct err *ec2_new(const struct ec2_config *config, struct ec2 **ret_ec2) MUST_USE;
struct ec2 *ec2_free(struct ec2 *e); /* accepts NULL; returns NULL */
/* Calls made since the start, those that were refused and repeated included. */
uint64_t ec2_calls(const struct ec2 *e);

/* How a call went. On an error, `kind` says what EC2 answered; AWS_TROUBLE also when it did not. */
struct ec2_try {
    uint64_t deadline_us; /* monotonic */
    enum aws_failure_kind kind;
};

struct ec2_filter {
    const char *name, *value;
};

/* All pages of those that match all filters (`filters` ends with a NULL name), or only those whose id is one (id not NULL;
 * AWS_NOT_FOUND when there is none). Adds to `v`. */
struct err *ec2_volumes_sync(struct ec2 *e, struct ec2_try *t, const char *id,
                             const struct ec2_filter *filters, struct aws_volumes *v) MUST_USE;

struct ec2_new_volume {
    const char *zone, *type, *client_token;
    uint64_t size;             /* bytes, a multiple of a GiB */
    unsigned iops, throughput; /* 0: what EC2 gives */
    bool encrypted;
    const char *kms_key_id;        /* NULL: none */
    const struct ec2_filter *tags; /* ends with a NULL name */
};
/* The same client token with the same parameters gives the same volume, however often it is sent. */
struct err *ec2_create_sync(struct ec2 *e, struct ec2_try *t, const struct ec2_new_volume *how,
                            struct aws_volume *ret_volume) MUST_USE;
struct err *ec2_delete_sync(struct ec2 *e, struct ec2_try *t, const char *volume) MUST_USE;
struct err *ec2_attach_sync(struct ec2 *e, struct ec2_try *t, const char *volume,
                            const char *instance, const char *device) MUST_USE;
/* Never forced. */
struct err *ec2_detach_sync(struct ec2 *e, struct ec2_try *t, const char *volume,
                            const char *instance) MUST_USE;
/* Makes it larger; the size counts from when EC2 shows it. AWS_TOO_SOON: also when this was ordered before. */
struct err *ec2_grow_sync(struct ec2 *e, struct ec2_try *t, const char *volume,
                          uint64_t size) MUST_USE;
struct err *ec2_modification_sync(struct ec2 *e, struct ec2_try *t, const char *volume,
                                  struct aws_modification *ret_modification) MUST_USE;
/* That instance, if EC2 knows it. */
struct err *ec2_instance_sync(struct ec2 *e, struct ec2_try *t, const char *instance,
                              struct aws_instances *i) MUST_USE;
/* Names of the zones of the region, each with a space behind it. The caller frees it. */
struct err *ec2_zones_sync(struct ec2 *e, struct ec2_try *t, char **ret_names) MUST_USE;
