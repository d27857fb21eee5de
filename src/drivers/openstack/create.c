#include "base/log.h"
#include "base/now.h"
#include "drivers/openstack/openstack.h"

#include <inttypes.h>
#include <stdio.h>

#define CREATE_S 600 /* as in Flocker 1 */
#define DESTROY_S 300
#define MINOR_GROW_IN_USE 42u

/* ---- creating ---- */

/* API 1, and Rackspace, have other names. */
static json_t *request(const struct openstack *o, const struct uuid *dataset, uint64_t size,
                       const char *type, unsigned api)
{
    CLEANUP_FREE char *name = xasprintf("flocker-%s", UUID_STR(dataset));
    char cluster[UUID_TEXT_SIZE], id[UUID_TEXT_SIZE];
    json_t *v =
        json_pack("{s:I, s:s, s:{s:s, s:s}}", "size", (json_int_t)(size / OS_GIB),
                  api == 1 ? "display_name" : "name", name, "metadata", OS_KEY_CLUSTER,
                  uuid_format(&o->cluster, cluster), OS_KEY_DATASET, uuid_format(dataset, id));

    if (type)
        (void)json_object_set_new(v, "volume_type", json_string(type));
    if (o->zone)
        (void)json_object_set_new(v, "availability_zone", json_string(o->zone));
    return json_pack("{s:o}", "volume", v);
}

/* Once: a repetition would make a second volume. When no answer came, what is there is looked at. */
static struct err *order(struct openstack *o, const struct uuid *dataset, uint64_t size,
                         const char *type, uint64_t deadline_us, enum os_kind *ret_kind)
{
    unsigned api;

    *ret_kind = OS_FAILED;
    TRY(os_cloud_volume_api(o->cloud, deadline_us, &api));
    json_t *body = request(o, dataset, size, type, api);
    struct err *e = os_call_sync(o->cloud,
                                 &(struct os_call){.what = "cannot create a volume",
                                                   .service = OS_VOLUME,
                                                   .method = "POST",
                                                   .path = "/volumes",
                                                   .body = body,
                                                   .once = true,
                                                   .deadline_us = deadline_us},
                                 ret_kind, NULL);

    json_decref(body);
    return e;
}

static struct err *order_deletion(struct openstack *o, const char *id, uint64_t deadline_us,
                                  enum os_kind *ret_kind)
{
    CLEANUP_FREE char *path = xasprintf("/volumes/%s", id);
    CLEANUP_FREE char *what = xasprintf("cannot delete volume %s", id);

    return os_call_sync(o->cloud,
                        &(struct os_call){.what = what,
                                          .service = OS_VOLUME,
                                          .method = "DELETE",
                                          .path = path,
                                          .deadline_us = deadline_us},
                        ret_kind, NULL);
}

/* What was ordered just now and used by nobody has no data: it goes, and the next try makes another. */
static struct err *creation_failed(struct openstack *o, const struct os_volume *v, bool ordered,
                                   uint64_t deadline_us)
{
    enum os_kind kind;

    if (ordered && !v->n_attachments && uuid_is_nil(&v->node)) {
        TRY(order_deletion(o, v->id, deadline_us, &kind));
        TRY(notes_remove(&o->notes, &v->dataset));
    }
    return err_new(ERR_IO,
                   "Cinder could not make volume %s (its state is error): often no back end has "
                   "room, or there is none for its type",
                   v->id);
}

/* Until Cinder says that it can be used. */
static struct err *wait_usable(struct openstack *o, struct os_volume *v, bool ordered,
                               struct wait *w)
{
    bool found;

    do {
        TRY(os_look_again(o, v->id, w->deadline_us, v, &found));
        if (!found)
            return err_new(ERR_NOT_FOUND, "volume %s was deleted while it was made", v->id);
        if (v->status == OS_ERROR)
            return creation_failed(o, v, ordered, w->deadline_us);
        if (v->status == OS_AVAILABLE || v->status == OS_IN_USE || os_is_moving(v))
            return NULL;
    } while (wait_more(w));
    return err_new(ERR_TIMEOUT, "volume %s is still %s after %d seconds", v->id, v->status_name,
                   CREATE_S);
}

static struct err *check_size(const struct openstack *o, uint64_t size)
{
    if (o->size_max && size > o->size_max)
        return err_new(ERR_INVALID,
                       "a volume here has at most %" PRIu64 " GiB (maximum_size), not %" PRIu64,
                       o->size_max / OS_GIB, size / OS_GIB);
    return NULL;
}

/* What counts of all that is there is the volume, also when a lost answer was repeated by somebody on the way. */
static struct err *create(struct openstack *o, const struct uuid *dataset, uint64_t size,
                          const char *type)
{
    struct wait w = wait_for(CREATE_S);
    struct err *refused = NULL;
    enum os_kind kind = OS_DONE;
    struct os_volume v;
    bool found;

    size = size ? size : o->size_default;
    size = size < o->size_min ? o->size_min : size;
    TRY(os_find(o, dataset, &v, &found));
    bool ordered = !found;

    if (!found) {
        TRY(check_size(o, size));
        refused = order(o, dataset, size, type, w.deadline_us, &kind);
        if (refused && kind != OS_TROUBLE)
            return refused;
        struct err *e = os_find(o, dataset, &v, &found);

        if (e || (!found && refused)) { /* the next try looks again before it makes one */
            err_free(e);
            return refused ? refused : e;
        }
        err_free(refused);
    }
    if (!found)
        return err_new(ERR_UNAVAILABLE, "Cinder made a volume that it does not list yet");
    TRY(notes_write(&o->notes, dataset, v.id));
    return wait_usable(o, &v, ordered, &w);
}

struct err *os_create(void *cookie, const struct uuid *dataset, uint64_t size)
{
    struct openstack *o = cookie;

    return create(o, dataset, size, o->volume_type);
}

struct err *os_create_profiled(void *cookie, const struct uuid *dataset, uint64_t size,
                               const char *profile)
{
    static const char *const names[OS_PROFILES] = {"gold", "silver", "bronze"};
    struct openstack *o = cookie;

    for (size_t i = 0; i < OS_PROFILES; i++) {
        if (!streq(profile, names[i]))
            continue;
        if (o->profiles[i])
            return create(o, dataset, size, o->profiles[i]);
        log_warning("dataset %s: agent.yml says no volume type for its profile (profile_%s), made "
                    "without it",
                    UUID_STR(dataset), profile);
        return create(o, dataset, size, o->volume_type);
    }
    return err_new(ERR_INVALID, "there is no profile '%s': gold, silver, bronze", profile);
}

/* ---- growing ---- */

/* One that is in use grows from API 3.42 on. */
static struct err *order_growth(struct openstack *o, const struct os_volume *v, uint64_t size,
                                uint64_t deadline_us, enum os_kind *ret_kind)
{
    CLEANUP_FREE char *path = xasprintf("/volumes/%s/action", v->id);
    CLEANUP_FREE char *what = xasprintf("cannot make volume %s larger", v->id);
    unsigned minor = 0;
    json_t *body;

    *ret_kind = OS_FAILED;
    if (v->status == OS_IN_USE) {
        TRY(os_cloud_volume_minor(o->cloud, deadline_us, &minor));
        if (minor < MINOR_GROW_IN_USE)
            return err_new(ERR_UNSUPPORTED,
                           "%s: this Cinder (API 3.%u) cannot do it while the volume is attached",
                           what, minor);
        minor = MINOR_GROW_IN_USE;
    }
    body = json_pack("{s:{s:I}}", "os-extend", "new_size", (json_int_t)(size / OS_GIB));
    struct err *e = os_call_sync(o->cloud,
                                 &(struct os_call){.what = what,
                                                   .service = OS_VOLUME,
                                                   .method = "POST",
                                                   .path = path,
                                                   .body = body,
                                                   .minor = minor,
                                                   .once = true,
                                                   .deadline_us = deadline_us},
                                 ret_kind, NULL);

    json_decref(body);
    return e;
}

static struct err *wait_grown(struct openstack *o, struct os_volume *v, uint64_t size,
                              struct wait *w)
{
    bool found;

    do {
        TRY(os_look_again(o, v->id, w->deadline_us, v, &found));
        if (!found)
            return err_new(ERR_NOT_FOUND, "volume %s is gone", v->id);
        if (v->status == OS_ERROR_EXTENDING)
            return err_new(ERR_IO,
                           "Cinder could not make volume %s larger (its state is error_extending): "
                           "it can be used as it is, and grows after the operator of the cloud has "
                           "reset its state, or after it was detached",
                           v->id);
        if (v->size >= size && v->status != OS_EXTENDING)
            return NULL;
    } while (wait_more(w));
    return err_new(ERR_TIMEOUT, "volume %s has still not grown (%s) after %d seconds", v->id,
                   v->status_name, CREATE_S);
}

struct err *os_grow(void *cookie, const struct uuid *dataset, uint64_t size)
{
    struct openstack *o = cookie;
    struct wait w = wait_for(CREATE_S);
    CLEANUP_FREE char *device = NULL;
    enum os_kind kind;
    struct os_volume v;
    bool found;

    TRY(os_find(o, dataset, &v, &found));
    if (!found)
        return err_new(ERR_NOT_FOUND, "Cinder has no volume of it");
    if (os_others(o, &v))
        return err_new(ERR_BUSY, "the volume %s is attached to %s", v.id,
                       os_holder(os_others(o, &v)));
    if (v.size < size && v.status != OS_EXTENDING && v.status != OS_ERROR_EXTENDING) {
        TRY(check_size(o, size));
        struct err *e = order_growth(o, &v, size, w.deadline_us, &kind);

        if (e && kind != OS_TROUBLE)
            return e;
        err_free(e);
    }
    TRY(wait_grown(o, &v, size, &w));
    /* A device that this host made itself becomes larger when it is looked for. */
    return o->by_cinder && os_mine(o, &v) ? os_device(o, dataset, &device) : NULL;
}

/* ---- destroying ---- */

static struct err *destroy_one(struct openstack *o, struct os_volume *v, struct wait *w)
{
    enum os_kind kind;
    bool found;

    if (v->n_attachments)
        return err_new(ERR_BUSY, "volume %s is attached to %s", v->id,
                       os_holder(&v->attachments[0]));
    if (os_is_moving(v) && !o->by_cinder)
        return err_new(ERR_BUSY, "volume %s is %s", v->id, v->status_name);
    if (os_is_moving(v))
        TRY(os_clear_unfinished(o, v->id, w->deadline_us));
    struct err *e = order_deletion(o, v->id, w->deadline_us, &kind);

    /* Gone, or it was ordered before and the answer was lost: what is there tells. */
    if (e && kind != OS_NOT_FOUND && kind != OS_WRONG_STATE)
        return e;
    CLEANUP_ERR struct err *refused = e;

    do {
        TRY(os_look_again(o, v->id, w->deadline_us, v, &found)); /* deleting is as good as gone */
        if (!found)
            return NULL;
        if (refused)
            return steal(&refused);
        if (v->status == OS_ERROR_DELETING)
            return err_new(ERR_IO,
                           "Cinder could not delete volume %s (its state is error_deleting): ask "
                           "the operator of the cloud",
                           v->id);
    } while (wait_more(w));
    return err_new(ERR_TIMEOUT, "volume %s is still %s after it was deleted", v->id,
                   v->status_name);
}

/* All that the metadata say: what is left would come back as the dataset's volume. */
struct err *os_destroy(void *cookie, const struct uuid *dataset)
{
    struct openstack *o = cookie;
    struct wait w = wait_for(DESTROY_S);
    struct os_volume v;
    bool found;

    do {
        TRY(os_find(o, dataset, &v, &found));
        if (!found)
            return notes_remove(&o->notes, dataset);
        TRY(destroy_one(o, &v, &w));
    } while (wait_more(&w));
    return err_new(ERR_TIMEOUT, "volumes of the dataset are still there after they were deleted");
}
