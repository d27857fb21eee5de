#include "base/log.h"
#include "base/str.h"
#include "drivers/xtremio/xtremio.h"

#include <stdio.h>
#include <unistd.h>

#define ATTACH_S 120
#define DEVICE_S 60
#define AGAIN_S 20 /* one that was here before */
#define LOOK_S 30
#define DETACH_S 120
#define LUN_TRIES 4u
#define LUNS_LOW 255u /* what every Linux scans: some adapters know no more */

/* ---- LUNs ---- */

/* A free one of from..to, beginning at `next`; 0: none. */
static unsigned free_lun(const bool *used, unsigned from, unsigned to, unsigned next)
{
    unsigned n = to - from + 1;

    for (unsigned i = 0; i < n; i++) {
        unsigned lun = from + (next + i) % n;

        if (!used[lun])
            return lun;
    }
    return 0;
}

/* Neither mapped to our group nor in use by a device here: where the array took a volume away under a host, the old disk would
 * become the new volume. And each is given out once until all were. */
static struct err *choose_lun(struct xtremio *x, struct xms_try *t, unsigned *ret_lun)
{
    bool used[XTREMIO_LUN_MAX + 1] = {0};

    TRY(xms_luns_sync(x->xms, t, x->group, used));
    TRY(xtremio_disk_luns(x->host_root, used, ARRAY_SIZE(used)));
    (void)pthread_mutex_lock(&x->lock);
    unsigned next = x->next_lun++;
    (void)pthread_mutex_unlock(&x->lock);

    *ret_lun = free_lun(used, 1, LUNS_LOW, next);
    if (!*ret_lun)
        *ret_lun = free_lun(used, LUNS_LOW + 1, XTREMIO_LUN_MAX, next);
    return *ret_lun ? NULL
                    : err_new(ERR_NO_SPACE,
                              "all LUNs of initiator group %s are used: detach volumes", x->group);
}

/* ---- mapping ---- */

static struct err *elsewhere(const struct xtremio_volume *v, const struct xtremio_map *other)
{
    return err_new(ERR_BUSY, "the volume %s is attached to %s", v->name, other->group);
}

static struct err *look_again(struct xtremio *x, struct xms_try *t, struct xtremio_volume *v)
{
    struct xtremio_volume now = {0};
    bool found;

    TRY(xms_volume_sync(x->xms, t, v->name, &now, &found));
    if (!found)
        return err_new(ERR_NOT_FOUND, "the volume %s is gone", v->name);
    xtremio_volume_done(v);
    *v = now;
    return NULL;
}

/* Refusals mean "look again": the LUN may have been taken meanwhile, or an earlier try came through. */
static struct err *map_here(struct xtremio *x, struct xms_try *t, struct xtremio_volume *v)
{
    struct err *e = NULL;

    for (unsigned i = 0; i < LUN_TRIES && !xtremio_mine(x, v); i++) {
        unsigned lun;

        err_free(e);
        if (xtremio_others(x, v))
            return elsewhere(v, xtremio_others(x, v));
        TRY(choose_lun(x, t, &lun));
        e = xms_map_sync(x->xms, t, v->name, x->group, lun);
        if (e && (t->kind == XTREMIO_DENIED || t->kind == XTREMIO_LIMIT))
            return e;
        struct err *looking = look_again(x, t, v);

        if (looking) {
            err_free(e);
            return looking;
        }
    }
    if (xtremio_mine(x, v))
        e = err_free(e);
    return e;
}

/* The array maps a volume to as many groups as it is told. Two nodes that did it at the same time both see it here, and both
 * step back; nobody has looked for the device yet. One that this node had before is left alone. */
static struct err *check_alone(struct xtremio *x, struct xms_try *t, struct xtremio_volume *v)
{
    const struct xtremio_map *mine = xtremio_mine(x, v), *other = xtremio_others(x, v);
    CLEANUP_XTREMIO_DISK struct xtremio_disk disk = {0};

    if (!other)
        return NULL;
    TRY(xtremio_disk_look(x->host_root, v->naa, v->size, &disk));
    if (mine && !disk.n_paths && !disk.map)
        TRY(xms_unmap_sync(x->xms, t, v, mine));
    return elsewhere(v, other);
}

/* ---- the device ---- */

static bool wants_map(const struct xtremio *x)
{
    CLEANUP_FREE char *pid = xasprintf("%s/run/multipathd.pid", x->host_root);

    return x->multipath_told ? x->multipath : access(pid, F_OK) == 0;
}

/* *ret_path NULL: it is not there. */
static struct err *find_device(const struct xtremio *x, const struct xtremio_volume *v,
                               char **ret_path)
{
    CLEANUP_XTREMIO_DISK struct xtremio_disk disk = {0};

    TRY(xtremio_disk_look(x->host_root, v->naa, v->size, &disk));
    if (disk.map_is_small)
        TRY(xtremio_disk_widen(&disk));
    return xtremio_disk_choose(x->host_root, &disk, wants_map(x), ret_path);
}

static struct err *no_device(const struct xtremio *x, const struct xtremio_volume *v)
{
    CLEANUP_XTREMIO_DISK struct xtremio_disk disk = {0};

    TRY(xtremio_disk_look(x->host_root, v->naa, v->size, &disk));
    if (disk.n_paths)
        return err_new(ERR_UNAVAILABLE,
                       "multipathd makes no map of the volume %s (NAA %s, path %s): is it "
                       "blacklisted in multipath.conf?",
                       v->name, v->naa, disk.paths[0]);
    return err_new(ERR_UNAVAILABLE,
                   "the array says that volume %s is mapped to %s, but no block device here has "
                   "its NAA %s: is %s the group of this "
                   "node's ports, and is the array reached (iSCSI sessions, zones)?",
                   v->name, x->group, v->naa, x->group);
}

/* A session may have been ended since this driver was opened, by a person or because the array refused it for a while. */
static struct err *scan(const struct xtremio *x, const struct xtremio_targets *targets,
                        unsigned lun)
{
    struct err *e = xtremio_host_scan(x->host_root, x->protocol, targets, lun);

    if (!err_is(e, ERR_UNAVAILABLE) || !x->login)
        return e;
    err_free(e);
    TRY(xtremio_host_login(x->host_root, targets));
    return xtremio_host_scan(x->host_root, x->protocol, targets, lun);
}

/* Looks, and scans for it, until it is there. */
static struct err *bring_device(struct xtremio *x, struct xms_try *t,
                                const struct xtremio_volume *v, unsigned seconds, char **ret_path)
{
    CLEANUP_XTREMIO_TARGETS struct xtremio_targets targets = {0};
    struct wait w = xtremio_wait_for(seconds);

    TRY(find_device(x, v, ret_path));
    if (*ret_path)
        return NULL;
    TRY(xms_targets_sync(x->xms, t, x->protocol, &targets));
    do {
        TRY(scan(x, &targets, xtremio_mine(x, v)->lun));
        TRY(find_device(x, v, ret_path));
        if (*ret_path)
            return NULL;
    } while (wait_more(&w));
    return no_device(x, v);
}

struct err *xtremio_attach(void *cookie, const struct uuid *dataset)
{
    CLEANUP_XTREMIO_VOLUME struct xtremio_volume v = {0};
    CLEANUP_FREE char *path = NULL;
    struct xtremio *x = cookie;
    struct xms_try t = xms_try_for(ATTACH_S);
    bool found;

    TRY(xtremio_find(x, &t, dataset, &v, &found));
    if (!found)
        return err_new(ERR_NOT_FOUND, "there is no volume of it on the array");
    TRY(map_here(x, &t, &v));
    TRY(check_alone(x, &t, &v));
    TRY(bring_device(x, &t, &v, DEVICE_S, &path));
    return xtremio_disk_reached(x->host_root, path);
}

struct err *xtremio_device(void *cookie, const struct uuid *dataset, char **ret_path)
{
    CLEANUP_XTREMIO_VOLUME struct xtremio_volume v = {0};
    struct xtremio *x = cookie;
    struct xms_try t = xms_try_for(LOOK_S);
    bool found;

    TRY(xtremio_find(x, &t, dataset, &v, &found));
    if (!found || !xtremio_mine(x, &v))
        return err_new(ERR_NOT_FOUND, "the volume is not attached to this node");
    return bring_device(x, &t, &v, AGAIN_S, ret_path);
}

/* ---- detaching ---- */

static struct err *unmap(struct xtremio *x, struct xms_try *t, struct xtremio_volume *v,
                         const char *group)
{
    struct wait w = xtremio_wait_for(DETACH_S);

    do {
        const struct xtremio_map *m = NULL;

        for (size_t i = 0; i < v->n_maps; i++)
            m = streq(v->maps[i].group, group) ? &v->maps[i] : m;
        if (!m)
            return NULL;
        struct err *e = xms_unmap_sync(x->xms, t, v, m);

        if (e && t->kind != XTREMIO_NOT_FOUND)
            return e;
        err_free(e);
        TRY(look_again(x, t, v));
    } while (wait_more(&w));
    return err_new(ERR_TIMEOUT, "volume %s is still mapped to %s", v->name, group);
}

/* First the machine lets go of it, then the array: a disk whose volume is gone would stay, and be another volume's one day. */
struct err *xtremio_detach(void *cookie, const struct uuid *dataset)
{
    CLEANUP_XTREMIO_VOLUME struct xtremio_volume v = {0};
    struct xtremio *x = cookie;
    struct xms_try t = xms_try_for(DETACH_S);
    bool found;

    TRY(xtremio_find(x, &t, dataset, &v, &found));
    if (!found)
        return NULL;
    TRY(xtremio_disk_remove(x->host_root, v.naa, v.size));
    return unmap(x, &t, &v, x->group);
}

/* The array stops serving that host at once: what it still has in memory never arrives. */
struct err *xtremio_detach_from(void *cookie, const struct uuid *dataset, const struct uuid *node)
{
    CLEANUP_XTREMIO_VOLUME struct xtremio_volume v = {0};
    CLEANUP_FREE char *group = NULL;
    struct xtremio *x = cookie;
    struct xms_try t = xms_try_for(DETACH_S);
    bool found;

    TRY(xtremio_find(x, &t, dataset, &v, &found));
    if (!found || !xtremio_others(x, &v))
        return NULL;
    TRY(xtremio_group_of(x, node, &group));
    if (!group) { /* it never had anything here, unless people made its initiators */
        log_warning("volume %s is mapped to %s; no initiator on the array has a name that begins "
                    "with flocker-%s-, so it is not known "
                    "to be that node's, and stays",
                    v.name, xtremio_others(x, &v)->group, UUID_STR(node));
        return NULL;
    }
    return streq(group, x->group) ? NULL : unmap(x, &t, &v, group);
}
