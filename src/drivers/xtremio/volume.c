#include "base/log.h"
#include "base/str.h"
#include "drivers/xtremio/xtremio.h"

#include <stdio.h>

#define LOOK_S 30
#define PAUSE_FIRST_US 4000u
#define CREATE_S 60
#define DESTROY_S 120
#define CLUSTER_DIGITS 12

struct wait xtremio_wait_for(unsigned seconds)
{
    struct wait w = wait_for(seconds);

    w.pause_us = PAUSE_FIRST_US;
    return w;
}

/* ---- names ---- */

static const char prefix[] = "block-";

static void cluster_digits(const struct uuid *cluster, char ret[CLUSTER_DIGITS + 1])
{
    for (size_t i = 0; i < CLUSTER_DIGITS / 2; i++)
        (void)snprintf(ret + 2 * i, 3, "%02x", cluster->b[i]);
}

void xtremio_volume_name(const struct uuid *dataset, const struct uuid *cluster,
                         char ret[XTREMIO_VOLUME_NAME_SIZE])
{
    char digits[CLUSTER_DIGITS + 1];

    cluster_digits(cluster, digits);
    (void)snprintf(ret, XTREMIO_VOLUME_NAME_SIZE, "%s%s-%s", prefix, UUID_STR(dataset), digits);
}

/* As Flocker 1 named them. */
static void old_name(const struct uuid *dataset, char ret[XTREMIO_VOLUME_NAME_SIZE])
{
    (void)snprintf(ret, XTREMIO_VOLUME_NAME_SIZE, "%s%s", prefix, UUID_STR(dataset));
}

bool xtremio_volume_dataset(const struct xtremio_volume *v, const struct uuid *cluster,
                            struct uuid *ret_dataset)
{
    char id[UUID_TEXT_SIZE], name[XTREMIO_VOLUME_NAME_SIZE];

    if (!str_has_prefix(v->name, prefix))
        return false;
    (void)snprintf(id, sizeof(id), "%.*s", UUID_TEXT_SIZE - 1, v->name + strlen(prefix));
    if (!uuid_parse(id, ret_dataset))
        return false;
    xtremio_volume_name(ret_dataset, cluster, name);
    if (streq(v->name, name))
        return true;
    old_name(ret_dataset, name);
    return streq(v->name, name) && uuid_eq(&v->folder, cluster);
}

/* ---- one dataset ---- */

const struct xtremio_map *xtremio_mine(const struct xtremio *x, const struct xtremio_volume *v)
{
    for (size_t i = 0; i < v->n_maps; i++) {
        if (streq(v->maps[i].group, x->group))
            return &v->maps[i];
    }
    return NULL;
}

const struct xtremio_map *xtremio_others(const struct xtremio *x, const struct xtremio_volume *v)
{
    for (size_t i = 0; i < v->n_maps; i++) {
        if (!streq(v->maps[i].group, x->group))
            return &v->maps[i];
    }
    return NULL;
}

static void fill(const struct xtremio *x, const struct xtremio_volume *from, struct volume_state *v)
{
    v->present = true;
    v->size = from->size;
    v->attached = xtremio_mine(x, from) != NULL;
    v->attached_elsewhere = xtremio_others(x, from) != NULL;
}

static struct err *find_old(struct xtremio *x, struct xms_try *t, const struct uuid *dataset,
                            struct xtremio_volume *ret, bool *ret_found)
{
    CLEANUP_XTREMIO_VOLUME struct xtremio_volume v = {0};
    char name[XTREMIO_VOLUME_NAME_SIZE];

    old_name(dataset, name);
    TRY(xms_volume_sync(x->xms, t, name, &v, ret_found));
    *ret_found = *ret_found && uuid_eq(&v.folder, &x->cluster);
    if (*ret_found) {
        *ret = v;
        v = (struct xtremio_volume){0};
    }
    return NULL;
}

struct err *xtremio_find(struct xtremio *x, struct xms_try *t, const struct uuid *dataset,
                         struct xtremio_volume *ret, bool *ret_found)
{
    char name[XTREMIO_VOLUME_NAME_SIZE];

    xtremio_volume_name(dataset, &x->cluster, name);
    TRY(xms_volume_sync(x->xms, t, name, ret, ret_found));
    return *ret_found ? NULL : find_old(x, t, dataset, ret, ret_found);
}

struct err *xtremio_inspect(void *cookie, const struct uuid *dataset, struct volume_state *v)
{
    CLEANUP_XTREMIO_VOLUME struct xtremio_volume volume = {0};
    struct xtremio *x = cookie;
    struct xms_try t = xms_try_for(LOOK_S);
    bool found;

    TRY(xtremio_find(x, &t, dataset, &volume, &found));
    *v = (struct volume_state){.dataset = *dataset};
    if (found)
        fill(x, &volume, v);
    return NULL;
}

/* ---- all ---- */

/* The groups it is mapped to; names of groups that nodes have are without spaces. */
static char *hosts_of(const struct xtremio_volume *v)
{
    CLEANUP_STR struct str s = {0};

    for (size_t i = 0; i < v->n_maps; i++)
        str_appendf(&s, "%s%s", i ? " " : "", v->maps[i].group);
    return v->n_maps ? str_steal(&s) : NULL;
}

struct err *xtremio_list(void *cookie, struct volume_state **ret_states, size_t *ret_n)
{
    CLEANUP_XTREMIO_VOLUMES struct xtremio_volumes all = {0};
    struct xtremio *x = cookie;
    struct volume_list l = {0};
    struct xms_try t = xms_try_for(LOOK_S);
    struct uuid dataset;

    TRY(xms_volumes_sync(x->xms, &t, &all));
    for (size_t i = 0; i < all.n; i++) {
        char name[XTREMIO_VOLUME_NAME_SIZE];

        if (!xtremio_volume_dataset(&all.all[i], &x->cluster, &dataset))
            continue;
        struct volume_state *v = volume_list_get(&l, &dataset);

        xtremio_volume_name(&dataset, &x->cluster, name);
        if (v->present && !streq(all.all[i].name, name)) /* one of Flocker 1's counts only alone */
            continue;
        fill(x, &all.all[i], v);
        free(v->hosts);
        v->hosts = hosts_of(&all.all[i]);
    }
    struct err *e = notes_list(&x->notes, &l, x, xtremio_inspect);

    if (e) {
        volume_list_done(&l);
        return e;
    }
    *ret_states = l.states;
    *ret_n = l.n;
    return NULL;
}

/* ---- making, growing and removing ---- */

struct err *xtremio_create(void *cookie, const struct uuid *dataset, uint64_t size)
{
    CLEANUP_XTREMIO_VOLUME struct xtremio_volume v = {0}, made = {0};
    struct xtremio *x = cookie;
    struct xms_try t = xms_try_for(CREATE_S);
    char name[XTREMIO_VOLUME_NAME_SIZE];
    bool found;

    TRY(xtremio_find(x, &t, dataset, &v, &found));
    if (found)
        return NULL;
    xtremio_volume_name(dataset, &x->cluster, name);
    struct err *e = xms_volume_create_sync(x->xms, &t, name, size ? size : DRIVER_DEFAULT_SIZE);

    if (e &&
        t.kind != XTREMIO_NOT_UNIQUE) /* else an earlier try, or another node, was there first */
        return e;
    err_free(e);
    TRY(xms_volume_sync(x->xms, &t, name, &made, &found));
    return found ? NULL
                 : err_new(ERR_UNAVAILABLE, "volume %s was created, but the array does not show it",
                           name);
}

struct err *xtremio_grow(void *cookie, const struct uuid *dataset, uint64_t size)
{
    CLEANUP_XTREMIO_VOLUME struct xtremio_volume v = {0};
    struct xtremio *x = cookie;
    struct xms_try t = xms_try_for(CREATE_S);
    bool found;

    TRY(xtremio_find(x, &t, dataset, &v, &found));
    if (!found)
        return err_new(ERR_NOT_FOUND, "there is no volume of it on the array");
    return v.size >= size ? NULL : xms_volume_grow_sync(x->xms, &t, v.name, size);
}

static struct err *destroy_one(struct xtremio *x, struct xms_try *t, const struct xtremio_volume *v)
{
    if (v->n_maps)
        return err_new(ERR_BUSY, "volume %s is attached to %s", v->name, v->maps[0].group);
    struct err *e = xms_volume_delete_sync(x->xms, t, v->name);

    if (e && t->kind == XTREMIO_NOT_FOUND)
        e = err_free(e);
    return e;
}

/* Done when none is left: what is left would come back as the dataset's volume. */
struct err *xtremio_destroy(void *cookie, const struct uuid *dataset)
{
    struct xtremio *x = cookie;
    struct wait w = xtremio_wait_for(DESTROY_S);
    struct xms_try t = {.deadline_us = w.deadline_us};

    do {
        CLEANUP_XTREMIO_VOLUME struct xtremio_volume v = {0};
        bool found;

        TRY(xtremio_find(x, &t, dataset, &v, &found));
        if (!found)
            return NULL;
        TRY(destroy_one(x, &t, &v));
    } while (wait_more(&w));
    return err_new(ERR_TIMEOUT, "volumes of the dataset are still there after they were deleted");
}
