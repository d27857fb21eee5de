/* The aws backend's own shape. What is where:
 *
 *   EC2                                        volumes, told by the tags of Flocker 1
 *   <state_dir>/aws/                           marks, and ids of volumes as hints (drivers/notes.h)
 *
 * A list of EC2's may lag behind, and who asks by id is told the truth sooner. A volume counts only when its tags
 * say cluster and dataset. Nothing else is remembered. */
#pragma once

#include "drivers/aws/ec2.h"
#include "drivers/driver.h"
#include "drivers/notes.h"
#include "drivers/wait.h"

#include <pthread.h>

/* Volumes that EC2 does not change now, so that it is not asked again and again for hours. */
struct aws_patience {
    struct aws_refusal {
        struct uuid dataset;
        uint64_t until_us; /* monotonic */
        char *text;
    } * all;
    size_t n, cap;
};

struct aws {
    char *region, *zone, *instance, *host_root;
    struct aws_shape {
        char *type, *kms_key_id; /* kms_key_id: may be NULL */
        unsigned iops, throughput;
        bool encrypted;
    } shape; /* of volumes without a profile */
    struct uuid cluster, shared;
    struct http_client *http, *near;
    struct aws_metadata *metadata;
    struct aws_credentials *credentials;
    struct ec2 *ec2;
    struct notes notes;
    pthread_mutex_t lock;
    struct aws_patience patience;
    unsigned next_device; /* the name to try next: one that was freed just now is not taken again */
};

/* A call for what `w` waits for. */
struct ec2_try aws_try(const struct wait *w);

/* ---- looking (volume.c) ---- */

/* The dataset's volume; *ret_found false: there is none. Of several (which a lost hint, or people, may make) the one of the
 * hint, else the oldest counts. */
struct err *aws_find(struct aws *a, const struct uuid *dataset, struct aws_volume *ret,
                     bool *ret_found) MUST_USE;
/* This one as it is now, asked for by id; *ret_found false: gone, or not yet visible. */
struct err *aws_look_again(struct aws *a, struct ec2_try *t, const char *id, struct aws_volume *ret,
                           bool *ret_found) MUST_USE;
/* The attachment to this machine, in whatever state, or NULL. */
const struct aws_attachment *aws_mine(const struct aws *a, const struct aws_volume *v);
/* One to another machine, or NULL. */
const struct aws_attachment *aws_others(const struct aws *a, const struct aws_volume *v);
void aws_fill(const struct aws *a, const struct aws_volume *from, struct volume_state *v);
struct err *aws_inspect(void *cookie, const struct uuid *dataset, struct volume_state *v) MUST_USE;
struct err *aws_list(void *cookie, struct volume_state **ret_states, size_t *ret_n) MUST_USE;

/* ---- making and removing (create.c) ---- */

/* What a profile means for a volume of this size; false: no such profile. Pure; `type` is static. */
struct aws_profile {
    const char *type;
    unsigned iops;
};
bool aws_profile_find(const char *name, uint64_t size, struct aws_profile *ret_profile);
struct err *aws_create(void *cookie, const struct uuid *dataset, uint64_t size) MUST_USE;
struct err *aws_create_profiled(void *cookie, const struct uuid *dataset, uint64_t size,
                                const char *profile) MUST_USE;
struct err *aws_destroy(void *cookie, const struct uuid *dataset) MUST_USE;

/* ---- attaching (attach.c) ---- */

/* The n-th of the AWS_DEVICE_NAMES names. */
#define AWS_DEVICE_NAMES 100u
void aws_device_name(unsigned n, char ret[AWS_NAME_SIZE]);
struct err *aws_attach(void *cookie, const struct uuid *dataset) MUST_USE;
struct err *aws_detach(void *cookie, const struct uuid *dataset) MUST_USE;
struct err *aws_device(void *cookie, const struct uuid *dataset, char **ret_path) MUST_USE;
/* From whatever instance has it, once EC2 says that it is stopped or terminated: that is a better proof than the node's name. */
struct err *aws_detach_from(void *cookie, const struct uuid *dataset,
                            const struct uuid *node) MUST_USE;

/* ---- growing (grow.c) ---- */

struct err *aws_grow(void *cookie, const struct uuid *dataset, uint64_t size) MUST_USE;
void aws_patience_done(struct aws_patience *p);
