/* What EC2 answers, as structures; pure. Everything in an answer comes from outside: lengths and counts
 * are limited, ids have the form of ids, sizes fit. */
#pragma once

#include "base/err.h"
#include "base/uuid.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define AWS_ID_SIZE 64 /* with the NUL: "vol-" and 17 hexadecimal digits, "i-" and so on */
#define AWS_NAME_SIZE 64
#define AWS_PAGE_TOKEN_MAX 4096u
#define AWS_ATTACHMENTS_MAX 32u

/* Tags of Flocker 1; its volumes are found by them. */
#define AWS_TAG_VERSION "flocker-metadata-version"
#define AWS_TAG_CLUSTER "flocker-cluster-id"
#define AWS_TAG_DATASET "flocker-dataset-id"

enum aws_volume_status {
    AWS_VOLUME_CREATING,
    AWS_VOLUME_AVAILABLE,
    AWS_VOLUME_IN_USE,
    AWS_VOLUME_DELETING,
    AWS_VOLUME_DELETED,
    AWS_VOLUME_ERROR,
    AWS_VOLUME_UNKNOWN, /* a state that this version does not know */
};
const char *aws_volume_status_name(enum aws_volume_status s);

enum aws_attachment_status {
    AWS_ATTACHING,
    AWS_ATTACHED,
    AWS_DETACHING,
    AWS_DETACHED,
    AWS_ATTACHMENT_BUSY, /* being detached, and the instance's kernel does not let go */
    AWS_ATTACHMENT_UNKNOWN,
};
const char *aws_attachment_status_name(enum aws_attachment_status s);

struct aws_attachment {
    char instance[AWS_ID_SIZE];
    char device[AWS_NAME_SIZE]; /* as asked for at attaching: "/dev/xvdaa" */
    enum aws_attachment_status status;
};

struct aws_volume {
    char id[AWS_ID_SIZE];
    uint64_t size; /* bytes */
    enum aws_volume_status status;
    char zone[AWS_NAME_SIZE], type[AWS_NAME_SIZE];
    char created[AWS_NAME_SIZE];  /* ISO 8601, sorts by time */
    struct uuid cluster, dataset; /* of the tags; nil: no such tag, or not an id of Flocker's */
    struct aws_attachment attachments[AWS_ATTACHMENTS_MAX];
    size_t n_attachments;
};

struct aws_volumes {
    struct aws_volume *all;
    size_t n, cap;
    char *next; /* token of the next page; NULL: there is none */
};
void aws_volumes_done(struct aws_volumes *v);
#define CLEANUP_AWS_VOLUMES CLEANUP(aws_volumes_done)

/* One page of DescribeVolumes; its volumes are added to `v`. On an error `v` holds what it held. */
struct err *aws_volumes_parse(const char *bytes, size_t n, struct aws_volumes *v) MUST_USE;
/* The answer of CreateVolume. */
struct err *aws_volume_parse(const char *bytes, size_t n, struct aws_volume *ret_volume) MUST_USE;

/* One page of DescribeInstances. */
struct aws_instance {
    char id[AWS_ID_SIZE];
    char state[AWS_NAME_SIZE];
    bool off; /* stopped or terminated: nothing runs there. In any other state something may */
};
struct aws_instances {
    struct aws_instance *all;
    size_t n, cap;
    char *next;
};
void aws_instances_done(struct aws_instances *i);
#define CLEANUP_AWS_INSTANCES CLEANUP(aws_instances_done)
struct err *aws_instances_parse(const char *bytes, size_t n, struct aws_instances *i) MUST_USE;

/* DescribeVolumesModifications of one volume: how the last change of it goes. */
struct aws_modification {
    bool failed,
        ended; /* ended: completed or failed; otherwise it goes on, and no other can begin */
    uint64_t target_size; /* bytes */
    char state
        [AWS_NAME_SIZE]; /* "modifying", "optimizing", "completed", "failed"; "" : it was never changed */
    char message[AWS_ID_SIZE * 4]; /* of a failure */
};
struct err *aws_modification_parse(const char *bytes, size_t n,
                                   struct aws_modification *ret_modification) MUST_USE;

/* DescribeAvailabilityZones: the names, each with a space behind it. The caller frees it. */
struct err *aws_zones_parse(const char *bytes, size_t n, char **ret_names) MUST_USE;

/* ---- errors ---- */

enum aws_failure_kind {
    AWS_FAILED,         /* anything else */
    AWS_THROTTLED,      /* too many calls of this account: later */
    AWS_TROUBLE,        /* theirs: later */
    AWS_NOT_FOUND,      /* gone, or, when it was made just now, not yet visible */
    AWS_WRONG_STATE,    /* look again: it may be done already */
    AWS_IN_USE,         /* the volume is attached */
    AWS_DEVICE_TAKEN,   /* this name of a device is used: another one */
    AWS_LIMIT,          /* of the account or the instance */
    AWS_TOO_SOON,       /* the volume was changed a short time ago, or is being changed */
    AWS_NO_CAPACITY,    /* of the zone */
    AWS_CREDENTIALS,    /* unknown, expired or wrong keys, or a wrong clock */
    AWS_FORBIDDEN,      /* the keys are right, but may not do this */
    AWS_TOKEN_MISMATCH, /* the client token was used with other parameters */
    AWS_REFUSED,        /* a parameter is not accepted */
    AWS_FAILURE_KIND_MAX,
};

struct aws_failure {
    enum aws_failure_kind kind;
    char code[128];
    char message[512];
    char request_id[AWS_NAME_SIZE];
};

/* Of an answer whose status is not 200; also of one that is no XML (a proxy's page). Never fails. */
struct aws_failure aws_failure_parse(int status, const char *bytes, size_t n);
/* As an error: `what` is what was tried ("cannot attach volume vol-1"). */
struct err *aws_failure_err(const struct aws_failure *f, const char *what) MUST_USE;
