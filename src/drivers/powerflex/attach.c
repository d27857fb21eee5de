#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "drivers/blockdev.h"
#include "drivers/growth.h"
#include "drivers/powerflex/powerflex.h"
#include "drivers/powerflex/sdc.h"

#define ATTACH_S 60
#define DEVICE_S 60 /* as Flocker 1 waited */
#define RESCAN_AFTER_S 5
#define DETACH_S 60
#define GROW_S 60
#define VANISH_S 15

/* ---- devices ---- */

/* *ret_path NULL: it is not there. */
static struct err *find_device(const struct powerflex *p, const struct pfx_volume *v,
                               char **ret_path)
{
    CLEANUP_CLOSE int dir = -1;
    uint64_t grows_from = 0;
    struct uuid dataset;

    if (pfx_name_parse(v->name, &p->cluster, &dataset))
        TRY(notes_mark_dir(&p->notes, &dataset, /* create= */ false, &dir));
    if (dir >= 0)
        TRY(growth_read(dir, &grows_from));
    uint64_t least = grows_from && grows_from < v->size ? grows_from : v->size;

    return pfx_sdc_device(p->host_root, p->system, v->id, v->size, least, ret_path);
}

static struct err *no_device(const struct powerflex *p, const struct pfx_volume *v)
{
    return err_new(ERR_UNAVAILABLE,
                   "PowerFlex says that volume %s is mapped to this host (SDC %s), but "
                   "%s/dev/disk/by-id has no emc-vol-%s-%s: is the SDC "
                   "connected (drv_cfg --query_mdms), and is sdc_guid, if set, this host's?",
                   v->id, p->guid, p->host_root, p->system, v->id);
}

static struct err *wait_device(const struct powerflex *p, const struct pfx_volume *v)
{
    struct wait w = wait_for_local(DEVICE_S), quiet = wait_for(RESCAN_AFTER_S);

    do {
        CLEANUP_FREE char *path = NULL;

        TRY(find_device(p, v, &path));
        if (path)
            return NULL;
        if (now_os().mono_us > quiet.deadline_us)
            pfx_sdc_rescan(p->host_root);
    } while (wait_more(&w));
    return no_device(p, v);
}

/* The module takes the device away on its own; the mapping alone decides who may write. */
static void wait_vanished(const struct powerflex *p, const struct pfx_volume *v)
{
    struct wait w = wait_for_local(VANISH_S);

    do {
        CLEANUP_FREE char *path = NULL;
        struct err *e = find_device(p, v, &path);

        if (!e && !path)
            return;
        err_free(e);
    } while (wait_more(&w));
    log_warning("volume %s is unmapped, but its device is still in %s/dev/disk/by-id", v->id,
                p->host_root);
}

/* ---- attaching ---- */

/* An order, and what came of it. */
struct mapping {
    struct wait wait;
    bool refused; /* once: what it says now decides */
    bool done;
};

/* Was that refusal the last word? An order that came to nothing since it was so already, or was lost, is looked at. */
static struct err *weigh(struct mapping *m, const struct pfx_try *t, struct err *e)
{
    if (!e)
        wait_soon(&m->wait);
    if (!e || t->kind == PFX_LOGIN || t->kind == PFX_FORBIDDEN ||
        (t->kind == PFX_REFUSED && m->refused))
        return e;
    m->refused = t->kind == PFX_REFUSED;
    log_debug("%s", e->text);
    return err_free(e);
}

static struct err *attach_step(struct powerflex *p, struct mapping *m, const char *id,
                               struct pfx_volume *v)
{
    struct pfx_try t = pfx_try_until(&m->wait);
    char sdc[PFX_ID_SIZE];
    bool found;

    TRY(pfx_look(p, &t, id, v, &found));
    if (!found)
        return err_new(ERR_NOT_FOUND, "the volume %s is gone", id);
    if (v->elsewhere)
        return pfx_elsewhere(p, &t, v);
    m->done = v->here;
    if (v->here)
        return NULL;
    pfx_self(p, sdc);
    return weigh(m, &t, pfx_map_sync(p->gateway, &t, id, sdc));
}

struct err *pfx_attach(void *cookie, const struct uuid *dataset)
{
    struct powerflex *p = cookie;
    struct mapping m = {.wait = wait_for(ATTACH_S)};
    struct pfx_try t = pfx_try_until(&m.wait);
    struct pfx_volume first, v;
    bool found;

    TRY(pfx_self_check(p, &t));
    TRY(pfx_find(p, dataset, &first, &found));
    if (!found)
        return err_new(ERR_NOT_FOUND, "there is no volume of it in the PowerFlex system %s",
                       p->system);
    TRY(notes_write(&p->notes, dataset, first.id));
    for (;;) {
        TRY(attach_step(p, &m, first.id, &v));
        if (m.done)
            return wait_device(p, &v);
        if (!wait_more(&m.wait))
            return err_new(ERR_TIMEOUT,
                           "volume %s is still not mapped to this host after %d seconds", first.id,
                           ATTACH_S);
    }
}

/* ---- using ---- */

struct err *pfx_device(void *cookie, const struct uuid *dataset, char **ret_path)
{
    struct powerflex *p = cookie;
    struct pfx_volume v;
    bool found;

    TRY(pfx_find(p, dataset, &v, &found));
    if (!found || !v.here)
        return err_new(ERR_NOT_FOUND, "the volume is not attached to this node");
    TRY(find_device(p, &v, ret_path));
    return *ret_path ? NULL : no_device(p, &v);
}

/* ---- growing ---- */

/* It never shrinks: what is large enough stays. */
struct err *pfx_grow(void *cookie, const struct uuid *dataset, uint64_t size)
{
    struct powerflex *p = cookie;
    struct mapping m = {.wait = wait_for(GROW_S)};
    struct pfx_volume v;
    bool found;

    do {
        struct pfx_try t = pfx_try_until(&m.wait);

        TRY(pfx_find(p, dataset, &v, &found));
        if (!found)
            return err_new(ERR_NOT_FOUND, "there is no volume of it in the PowerFlex system %s",
                           p->system);
        if (v.size >= size)
            return NULL;
        TRY(weigh(&m, &t, pfx_resize_sync(p->gateway, &t, v.id, size)));
    } while (wait_more(&m.wait));
    return err_new(ERR_TIMEOUT, "volume %s has not grown after %d seconds", v.id, GROW_S);
}

/* ---- detaching ---- */

static struct err *detach_step(struct powerflex *p, struct mapping *m, const char *id)
{
    struct pfx_try t = pfx_try_until(&m->wait);
    struct pfx_volume v;
    char sdc[PFX_ID_SIZE];
    bool found;

    TRY(pfx_look(p, &t, id, &v, &found));
    m->done = !found || !v.here;
    if (m->done)
        return NULL;
    pfx_self(p, sdc);
    return weigh(m, &t, pfx_unmap_sync(p->gateway, &t, id, sdc));
}

/* The system cuts whoever uses the device: so nobody may. */
struct err *pfx_detach(void *cookie, const struct uuid *dataset)
{
    struct powerflex *p = cookie;
    struct mapping m = {.wait = wait_for(DETACH_S)};
    CLEANUP_FREE char *path = NULL;
    struct pfx_volume v;
    bool found;

    TRY(pfx_find(p, dataset, &v, &found));
    if (!found || !v.here)
        return NULL;
    TRY(find_device(p, &v, &path));
    if (path)
        TRY(blockdev_settle(path));
    for (;;) {
        TRY(detach_step(p, &m, v.id));
        if (m.done)
            break;
        if (!wait_more(&m.wait))
            return err_new(ERR_TIMEOUT, "volume %s is still mapped to this host after %d seconds",
                           v.id, DETACH_S);
    }
    wait_vanished(p, &v);
    return NULL;
}

/* An operator signed that the other node is off. Which SDC is that node's nothing tells here: SDCs have no names of Flocker's, and the node's agent cannot
 * be asked. It is the one that has the volume, since nodes had the dataset one after the other, each after the one before it had unmapped the volume
 * (or was fenced, too, and is in the same order), so only the last one, that which was fenced, can have kept it. A third node has it only by an order that came
 * through late; it never mounted it, so to cut that off costs nothing. What is left is a machine of somebody else, to which a person has mapped the volume
 * by hand. So the system has to say of the SDC that it is gone, too; and where there are several, none is picked. */
static struct err *check_gone(struct powerflex *p, struct pfx_try *t, const struct pfx_volume *v)
{
    struct pfx_sdc who;

    if (!v->n_others)
        return pfx_elsewhere(p, t, v);
    if (v->n_others > 1)
        return err_new(ERR_BUSY,
                       "the volume %s is mapped to several other SDCs, and which of them is the machine that is off is not known: "
                       "unmap it by hand from all but that one",
                       v->id);
    TRY(pfx_sdc_sync(p->gateway, t, v->others[0], &who));
    if (who.disconnected)
        return NULL;
    return err_new(ERR_BUSY,
                   "the volume %s is mapped to SDC %s (%s), which PowerFlex does not call "
                   "disconnected: end that host, or unmap the volume "
                   "from it by hand",
                   v->id, who.guid, *who.ip ? who.ip : who.id);
}

/* What the system unmaps, it serves no longer, also to a host that comes back. */
struct err *pfx_detach_from(void *cookie, const struct uuid *dataset, const struct uuid *node)
{
    struct powerflex *p = cookie;
    struct mapping m = {.wait = wait_for(DETACH_S)};
    struct pfx_volume v;
    bool found;

    do {
        struct pfx_try t = pfx_try_until(&m.wait);

        TRY(pfx_find(p, dataset, &v, &found));
        if (!found || !v.elsewhere)
            return NULL;
        TRY(check_gone(p, &t, &v));
        TRY(weigh(&m, &t, pfx_unmap_sync(p->gateway, &t, v.id, v.others[0])));
    } while (wait_more(&m.wait));
    return err_new(ERR_TIMEOUT, "volume %s is still mapped to SDC %s after %d seconds", v.id,
                   v.others[0], DETACH_S);
}
