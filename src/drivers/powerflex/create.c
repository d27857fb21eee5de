#include "base/str.h"
#include "drivers/powerflex/powerflex.h"

#define CREATE_S 120
#define DESTROY_S 120

/* ---- creating ---- */

/* What was deleted in a pool without zero padding may be read in a new volume: never blank, so it would not be formatted. */
static struct err *choose_pool(struct powerflex *p, struct pfx_try *t, struct pfx_pool *ret)
{
    TRY(pfx_pool_sync(p->gateway, t, p->domain, p->pool, ret));
    if (ret->zeros)
        return NULL;
    return err_new(ERR_UNSUPPORTED,
                   "the storage pool '%s' has no zero padding: new volumes could show what others "
                   "deleted. Switch it on (that is possible "
                   "only before the pool has devices), or choose another storage_pool",
                   p->pool);
}

/* An answer that was lost, or another node: the name is taken then, and the volume is the dataset's. */
static struct err *make(struct powerflex *p, struct pfx_try *t, const struct uuid *dataset,
                        uint64_t size, struct pfx_volume *ret)
{
    char name[PFX_NAME_SIZE];
    struct pfx_pool pool;
    bool found = false;

    TRY(choose_pool(p, t, &pool));
    pfx_name_make(&p->cluster, dataset, name);
    struct err *e = pfx_create_sync(
        p->gateway, t, &pool, name, p->thick,
        size ? size : DRIVER_DEFAULT_SIZE / PFX_UNIT * PFX_UNIT + PFX_UNIT, ret->id);

    if (!e)
        return NULL;
    struct err *other = pfx_find(p, dataset, ret, &found);

    if (!other && !found)
        return e;
    err_free(e);
    return other;
}

struct err *pfx_create(void *cookie, const struct uuid *dataset, uint64_t size)
{
    struct powerflex *p = cookie;
    struct wait w = wait_for(CREATE_S);
    struct pfx_try t = pfx_try_until(&w);
    struct pfx_volume v;
    bool found;

    TRY(pfx_find(p, dataset, &v, &found));
    if (!found)
        TRY(make(p, &t, dataset, size, &v));
    return notes_write(&p->notes, dataset, v.id);
}

/* ---- destroying ---- */

static struct err *check_unmapped(struct powerflex *p, struct pfx_try *t,
                                  const struct pfx_volume *v)
{
    if (v->elsewhere)
        return pfx_elsewhere(p, t, v);
    if (v->here)
        return err_new(ERR_BUSY, "the volume %s is mapped to this host", v->id);
    return NULL;
}

/* The system refuses to remove what is mapped; whatever else it says, what is counts. */
struct err *pfx_destroy(void *cookie, const struct uuid *dataset)
{
    struct powerflex *p = cookie;
    struct wait w = wait_for(DESTROY_S);
    struct pfx_volume v;
    struct err *e = NULL;
    bool found;

    do {
        struct pfx_try t = pfx_try_until(&w);

        err_free(e);
        TRY(pfx_find(p, dataset, &v, &found));
        if (!found)
            return notes_remove(&p->notes, dataset);
        TRY(check_unmapped(p, &t, &v));
        e = pfx_remove_sync(p->gateway, &t, v.id);
        if (e && t.kind == PFX_FORBIDDEN)
            return e;
    } while (wait_more(&w));
    return e ? e : err_new(ERR_TIMEOUT, "volume %s is still there after it was removed", v.id);
}
