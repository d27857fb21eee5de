#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "drivers/aws/aws.h"

#include <inttypes.h>
#include <openssl/sha.h>
#include <stdio.h>

#define GIB (1ull << 30)
#define CREATE_S 300
#define DESTROY_S 300
#define GENERATIONS 64u
#define GOLD_IOPS_PER_GIB 30u /* as in Flocker 1 */
#define GOLD_IOPS_MIN 100u
#define GOLD_IOPS_MAX 20000u
#define MAGNETIC_MAX_GIB 1024u

/* ---- profiles ---- */

bool aws_profile_find(const char *name, uint64_t size, struct aws_profile *ret_profile)
{
    uint64_t gib = size / GIB, iops = gib * GOLD_IOPS_PER_GIB;

    if (streq(name, "gold")) {
        iops = iops < GOLD_IOPS_MIN ? GOLD_IOPS_MIN : iops;
        iops = iops > GOLD_IOPS_MAX ? GOLD_IOPS_MAX : iops;
        *ret_profile = (struct aws_profile){.type = "io2", .iops = (unsigned)iops};
        return true;
    }
    if (streq(name, "silver")) {
        *ret_profile = (struct aws_profile){.type = "gp3"};
        return true;
    }
    if (streq(name, "bronze")) {
        *ret_profile = (struct aws_profile){.type = gib <= MAGNETIC_MAX_GIB ? "standard" : "st1"};
        return true;
    }
    return false;
}

/* ---- creating ---- */

/* The same for the same volume, whoever asks and however often; another one for anything else. */
static void client_token(const struct aws *a, const struct uuid *dataset,
                         const struct ec2_new_volume *how, unsigned generation,
                         char ret[SHA256_DIGEST_LENGTH * 2 + 1])
{
    unsigned char sum[SHA256_DIGEST_LENGTH];
    CLEANUP_FREE char *text =
        xasprintf("flocker %s %s %s %" PRIu64 " %s %u %u %d %s %u", UUID_STR(&a->cluster),
                  UUID_STR(dataset), how->zone, how->size, how->type, how->iops, how->throughput,
                  how->encrypted, how->kms_key_id ? how->kms_key_id : "", generation);

    (void)SHA256((const unsigned char *)text, strlen(text), sum);
    for (size_t i = 0; i < sizeof(sum); i++)
        (void)snprintf(ret + 2 * i, 3, "%02x", sum[i]);
}

/* Until EC2 says that it can be used. A new volume may be unknown for some seconds. */
static struct err *wait_usable(struct aws *a, const char *id, struct wait *w)
{
    struct aws_volume v;
    bool found;

    do {
        struct ec2_try t = aws_try(w);

        TRY(aws_look_again(a, &t, id, &v, &found));
        if (found && v.status == AWS_VOLUME_ERROR)
            return err_new(
                ERR_IO,
                "EC2 could not make volume %s (its state is error); with kms_key_id, check that "
                "the key may be used. Delete that volume and it is made anew",
                id);
        if (found && (v.status == AWS_VOLUME_AVAILABLE || v.status == AWS_VOLUME_IN_USE))
            return NULL;
    } while (wait_more(w));
    return err_new(ERR_TIMEOUT, "volume %s is still %s after %d seconds", id,
                   found ? aws_volume_status_name(v.status) : "not visible", CREATE_S);
}

/* Volumes that were made with the token and deleted since are told as such: then the next token. */
static struct err *make(struct aws *a, const struct uuid *dataset, struct ec2_new_volume *how,
                        struct ec2_try *t, struct aws_volume *ret)
{
    char token[SHA256_DIGEST_LENGTH * 2 + 1];

    how->client_token = token;
    for (unsigned g = 0; g < GENERATIONS; g++) {
        client_token(a, dataset, how, g, token);
        TRY(ec2_create_sync(a->ec2, t, how, ret));
        if (ret->status != AWS_VOLUME_DELETED && ret->status != AWS_VOLUME_DELETING)
            return NULL;
    }
    return err_new(ERR_CONFLICT,
                   "%u volumes of this dataset were made and deleted; EC2 forgets them within a "
                   "day, try again then",
                   GENERATIONS);
}

static struct err *create(struct aws *a, const struct uuid *dataset, uint64_t size,
                          const struct aws_profile *profile)
{
    CLEANUP_FREE char *name = xasprintf("flocker-%s", UUID_STR(dataset));
    char cluster[UUID_TEXT_SIZE], id[UUID_TEXT_SIZE];
    const struct ec2_filter tags[] = {{AWS_TAG_VERSION, "1"},
                                      {AWS_TAG_CLUSTER, uuid_format(&a->cluster, cluster)},
                                      {AWS_TAG_DATASET, uuid_format(dataset, id)},
                                      {"Name", name},
                                      {NULL, NULL}};
    struct ec2_new_volume how = {.zone = a->zone,
                                 .type = profile ? profile->type : a->shape.type,
                                 .size = size ? size : DRIVER_DEFAULT_SIZE,
                                 .iops = profile ? profile->iops : a->shape.iops,
                                 .throughput = profile ? 0 : a->shape.throughput,
                                 .encrypted = a->shape.encrypted,
                                 .kms_key_id = a->shape.kms_key_id,
                                 .tags = tags};
    struct wait w = wait_for(CREATE_S);
    struct ec2_try t = aws_try(&w);
    struct aws_volume v;
    bool found;

    TRY(aws_find(a, dataset, &v, &found));
    if (!found) {
        struct err *e = make(a, dataset, &how, &t, &v);

        if (e && profile && t.kind == AWS_REFUSED) {
            log_warning(
                "dataset %s: a volume of its profile (%s) is not possible, made without: %s", id,
                profile->type, e->text);
            err_free(e);
            return create(a, dataset, size, NULL);
        }
        if (e)
            return e;
    }
    TRY(notes_write(&a->notes, dataset, v.id));
    return wait_usable(a, v.id, &w);
}

struct err *aws_create(void *cookie, const struct uuid *dataset, uint64_t size)
{
    return create(cookie, dataset, size, NULL);
}

struct err *aws_create_profiled(void *cookie, const struct uuid *dataset, uint64_t size,
                                const char *profile)
{
    struct aws_profile p;

    if (!aws_profile_find(profile, size ? size : DRIVER_DEFAULT_SIZE, &p))
        return err_new(ERR_INVALID, "there is no profile '%s': gold, silver, bronze", profile);
    return create(cookie, dataset, size, &p);
}

/* ---- destroying ---- */

static struct err *wait_gone(struct aws *a, const char *id, struct wait *w)
{
    struct aws_volume v;
    bool found;

    do {
        struct ec2_try t = aws_try(w);

        TRY(aws_look_again(a, &t, id, &v, &found)); /* one that is being deleted counts as gone */
        if (!found)
            return NULL;
    } while (wait_more(w));
    return err_new(ERR_TIMEOUT, "volume %s is still %s after it was deleted", id,
                   aws_volume_status_name(v.status));
}

/* A list may be behind: what is asked for by id counts. */
static struct err *destroy_one(struct aws *a, const char *id, struct wait *w)
{
    struct ec2_try t = aws_try(w);
    struct aws_volume v;
    bool found;

    TRY(aws_look_again(a, &t, id, &v, &found));
    if (!found)
        return NULL;
    if (v.n_attachments)
        return err_new(ERR_BUSY, "volume %s is attached to %s", v.id, v.attachments[0].instance);
    struct err *e = ec2_delete_sync(a->ec2, &t, v.id);

    if (e && t.kind == AWS_NOT_FOUND)
        e = err_free(e);
    TRY(e);
    return wait_gone(a, v.id, w);
}

/* All that the tags say: what is left would come back as the dataset's volume. Done when the list agrees. */
struct err *aws_destroy(void *cookie, const struct uuid *dataset)
{
    struct aws *a = cookie;
    struct wait w = wait_for(DESTROY_S);
    struct aws_volume v;
    bool found;

    do {
        TRY(aws_find(a, dataset, &v, &found));
        if (!found)
            return notes_remove(&a->notes, dataset);
        TRY(destroy_one(a, v.id, &w));
    } while (wait_more(&w));
    return err_new(ERR_TIMEOUT, "volumes of the dataset are still there after they were deleted");
}
