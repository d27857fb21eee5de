#include "base/log.h"
#include "base/str.h"
#include "drivers/powerflex/powerflex.h"

#define LOOK_S 30

struct pfx_try pfx_try_until(const struct wait *w)
{
    return (struct pfx_try){.deadline_us = w->deadline_us};
}

/* ---- this host ---- */

void pfx_self(struct powerflex *p, char ret_sdc[PFX_ID_SIZE])
{
    (void)pthread_mutex_lock(&p->lock);
    memcpy(ret_sdc, p->sdc, PFX_ID_SIZE);
    (void)pthread_mutex_unlock(&p->lock);
}

struct err *pfx_self_check(struct powerflex *p, struct pfx_try *t)
{
    CLEANUP_PFX_SDCS struct pfx_sdcs all = {0};
    struct pfx_sdc found;
    char sdc[PFX_ID_SIZE];

    pfx_self(p, sdc);
    if (*sdc) {
        struct err *e = pfx_sdc_sync(p->gateway, t, sdc, &found);

        if (!e && streq(found.guid, p->guid))
            return NULL;
        if (e && t->kind != PFX_NOT_FOUND && t->kind != PFX_REFUSED)
            return e;
        err_free(e);
    }
    TRY(pfx_sdcs_sync(p->gateway, t, &all));
    TRY(pfx_sdcs_find(&all, p->guid, &found));
    (void)pthread_mutex_lock(&p->lock);
    memcpy(p->sdc, found.id, sizeof(p->sdc));
    (void)pthread_mutex_unlock(&p->lock);
    return NULL;
}

struct err *pfx_elsewhere(struct powerflex *p, struct pfx_try *t, const struct pfx_volume *v)
{
    struct pfx_sdc who;

    if (!v->n_others)
        return err_new(ERR_BUSY,
                       "the volume %s is mapped to all SDCs: unmap it from them, Flocker needs it "
                       "for one host",
                       v->id);
    struct err *e = pfx_sdc_sync(p->gateway, t, v->others[0], &who);

    if (e) {
        err_free(e);
        return err_new(ERR_BUSY, "the volume %s is mapped to SDC %s", v->id, v->others[0]);
    }
    return err_new(ERR_BUSY, "the volume %s is mapped to SDC %s (%s)", v->id, who.guid,
                   *who.ip ? who.ip : who.id);
}

/* ---- one volume ---- */

/* By a list: what is not in it, is not there. */
static struct err *in_list(struct powerflex *p, struct pfx_try *t, const char *id, const char *name,
                           struct pfx_volume *ret, bool *ret_found)
{
    CLEANUP_PFX_VOLUMES struct pfx_volumes l = {0};
    char sdc[PFX_ID_SIZE];

    pfx_self(p, sdc);
    TRY(pfx_volumes_sync(p->gateway, t, sdc, &l));
    *ret_found = false;
    for (size_t i = 0; i < l.n && !*ret_found; i++) {
        *ret_found = id ? streq(l.all[i].id, id) : streq(l.all[i].name, name);
        if (*ret_found)
            *ret = l.all[i];
    }
    return NULL;
}

/* Versions say "no such volume" by different numbers, and not all are known: a refusal is held against the list. */
struct err *pfx_look(struct powerflex *p, struct pfx_try *t, const char *id, struct pfx_volume *ret,
                     bool *ret_found)
{
    struct pfx_volume listed;
    char sdc[PFX_ID_SIZE];

    pfx_self(p, sdc);
    struct err *e = pfx_volume_sync(p->gateway, t, id, sdc, ret);

    *ret_found = !e;
    if (!e || (t->kind != PFX_NOT_FOUND && t->kind != PFX_REFUSED))
        return e;
    if (t->kind == PFX_NOT_FOUND) {
        err_free(e);
        return NULL;
    }
    struct err *other = in_list(p, t, id, NULL, &listed, ret_found);

    if (!other && *ret_found)
        return e;
    err_free(e);
    return other;
}

static struct err *by_name(struct powerflex *p, struct pfx_try *t, const char *name,
                           struct pfx_volume *ret, bool *ret_found)
{
    char id[PFX_ID_SIZE];
    struct err *e = pfx_id_of_name_sync(p->gateway, t, name, id);

    *ret_found = false;
    if (!e)
        return pfx_look(p, t, id, ret, ret_found);
    if (t->kind != PFX_NOT_FOUND && t->kind != PFX_REFUSED)
        return e;
    bool gone = t->kind == PFX_NOT_FOUND;

    err_free(e);
    return gone ? NULL : in_list(p, t, NULL, name, ret, ret_found);
}

struct err *pfx_find(struct powerflex *p, const struct uuid *dataset, struct pfx_volume *ret,
                     bool *ret_found)
{
    CLEANUP_FREE char *hint = NULL;
    char name[PFX_NAME_SIZE];
    struct wait w = wait_for(LOOK_S);
    struct pfx_try t = pfx_try_until(&w);

    pfx_name_make(&p->cluster, dataset, name);
    TRY(notes_read(&p->notes, dataset, PFX_ID_SIZE - 1, &hint));
    if (hint && pfx_id_is_sane(hint)) {
        TRY(pfx_look(p, &t, hint, ret, ret_found));
        if (*ret_found && streq(ret->name, name))
            return NULL;
    }
    TRY(by_name(p, &t, name, ret, ret_found));
    if (*ret_found && !streq(ret->name, name)) /* renamed meanwhile */
        *ret_found = false;
    return NULL;
}

static void fill(const struct pfx_volume *from, struct volume_state *v)
{
    v->present = true;
    v->size = from->size;
    v->attached = from->here;
    v->attached_elsewhere = from->elsewhere;
}

struct err *pfx_inspect(void *cookie, const struct uuid *dataset, struct volume_state *v)
{
    struct powerflex *p = cookie;
    struct pfx_volume volume;
    bool found;

    TRY(pfx_find(p, dataset, &volume, &found));
    *v = (struct volume_state){.dataset = *dataset};
    if (found)
        fill(&volume, v);
    return NULL;
}

/* ---- all ---- */

/* In the names that instance_id() has. Where it is mapped to all, or to more than are told, no machine has that name. */
static char *hosts_of(const struct powerflex *p, const struct pfx_volume *v,
                      const struct pfx_sdcs *sdcs)
{
    CLEANUP_STR struct str s = {0};

    if (v->here)
        str_append(&s, p->guid);
    for (size_t i = 0; i < v->n_others; i++) {
        const char *guid = pfx_sdcs_guid(sdcs, v->others[i]);

        str_appendf(&s, "%s%s", s.len ? " " : "", guid ? guid : v->others[i]);
    }
    if (v->elsewhere && !v->n_others)
        str_appendf(&s, "%sall", s.len ? " " : "");
    return s.len ? str_steal(&s) : NULL;
}

/* The names of the machines cost a call, when a volume is anywhere else. */
static struct err *add_volumes(struct powerflex *p, struct pfx_try *t,
                               const struct pfx_volumes *all, struct volume_list *l)
{
    CLEANUP_PFX_SDCS struct pfx_sdcs sdcs = {0};
    struct uuid dataset;

    for (size_t i = 0; i < all->n; i++) {
        const struct pfx_volume *from = &all->all[i];

        if (!pfx_name_parse(from->name, &p->cluster, &dataset))
            continue;
        if (from->n_others && !sdcs.n)
            TRY(pfx_sdcs_sync(p->gateway, t, &sdcs));
        struct volume_state *v = volume_list_get(l, &dataset);

        fill(from, v);
        free(v->hosts);
        v->hosts = hosts_of(p, from, &sdcs);
    }
    return NULL;
}

struct err *pfx_list(void *cookie, struct volume_state **ret_states, size_t *ret_n)
{
    struct powerflex *p = cookie;
    CLEANUP_PFX_VOLUMES struct pfx_volumes all = {0};
    struct volume_list l = {0};
    struct wait w = wait_for(LOOK_S);
    struct pfx_try t = pfx_try_until(&w);
    char sdc[PFX_ID_SIZE];

    pfx_self(p, sdc);
    TRY(pfx_volumes_sync(p->gateway, &t, sdc, &all));
    struct err *e = add_volumes(p, &t, &all, &l);

    if (!e)
        e = notes_list(&p->notes, &l, p, pfx_inspect);
    if (e) {
        volume_list_done(&l);
        return e;
    }
    *ret_states = l.states;
    *ret_n = l.n;
    return NULL;
}
