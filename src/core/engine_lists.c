/* Lists of shared storage: one node lists for all that see the same, and what it saw is told to those whom it concerns. Nothing is
 * decided by it; README.md, "Lists of shared storage". */
#include "core/engine_internal.h"
#include "core/fault.h"

#define SIGHTINGS_MAX 1000000u /* of one storage; what is beyond is told to nobody */
#define LISTS_MISSED 3         /* so many, and another node is to list */

struct sighted {
    struct sighting s;
    uint64_t pass; /* the appointment in which it was told last */
    bool stray;    /* among the listing's strays */
    UT_hash_handle hh;
};

struct listing {
    struct uuid shared; /* the nodes that tell this id in their hello */
    struct uuid lister; /* nil: none can */
    uint64_t session;   /* its session at the appointment */
    uint64_t pass;      /* number of the appointment */
    bool whole;         /* in which a list has been told to its end */
    uint64_t due_us;    /* mono: the next one must have been told by then */
    struct sighted *volumes;
    struct sighted **strays; /* of these: told to every node, see is_in_the_way() */
    size_t n_strays, cap_strays;
    UT_hash_handle hh;
};

void engine_list_every(struct engine *e, uint64_t every_us)
{
    e->list_every_us = every_us;
}

static void listing_free(struct engine *e, struct listing *l)
{
    struct sighted *v, *next;

    HASH_ITER (hh, l->volumes, v, next) {
        HASH_DEL(l->volumes, v);
        sighting_done(&v->s);
        free(v);
    }
    HASH_DEL(e->listings, l);
    free(l->strays);
    free(l);
}

void lists_free(struct engine *e)
{
    struct listing *l, *next;

    HASH_ITER (hh, e->listings, l, next)
        listing_free(e, l);
}

static struct listing *listing_of(const struct engine *e, const struct uuid *shared)
{
    struct listing *l;

    HASH_FIND(hh, e->listings, shared, sizeof(*shared), l);
    return l;
}

/* ---- telling nodes ---- */

static bool hears(const struct node_entry *n, const struct uuid *shared)
{
    return n->session && n->complete && n->hello.lists && !n->refuses && uuid_eq(&n->hello.shared_by, shared);
}

static void send_duty(struct engine *e, const struct node_entry *n, enum list_duty duty)
{
    struct effect *f = effect_push(e, EFFECT_LIST_ORDER);

    f->session = n->session;
    f->list_order =
        (struct list_order){.duty = FAULT(MANY_LISTERS) ? LIST_FOR_ALL : duty, .interval_s = (uint32_t)(e->list_every_us / USEC_PER_SEC)};
}

static void send_sighting(struct engine *e, const struct node_entry *n, const struct sighting *s)
{
    if (FAULT(FORGET_SIGHTINGS))
        return;
    struct effect *f = effect_push(e, EFFECT_SIGHTING);

    f->session = n->session;
    sighting_copy(&f->sighting, s);
}

/* A volume that is attached twice, or that its owner (without one: who still has something of it) says is attached elsewhere, may be so to a node
 * that has nothing to do with it any more (an order to attach of an agent that was killed, which came through late): only that node can
 * tell. */
static bool is_in_the_way(const struct dataset_entry *d, const struct sighting *s)
{
    if (!s->hosts)
        return false;
    if (strchr(s->hosts, ' '))
        return true;
    for (uint32_t i = 0; d && d->committed && i < d->n_reports; i++) {
        const struct dataset_report *r = &d->reports[i];
        bool asked = uuid_is_nil(&d->committed->owner) || uuid_eq(&d->committed->owner, &r->node);

        if (asked && r->report.volume.attached_elsewhere)
            return true;
    }
    return false;
}

static void tell(struct engine *e, const struct listing *l, const struct node_entry *n, const struct sighting *s)
{
    if (n && hears(n, &l->shared) && !uuid_eq(&n->id, &l->lister))
        send_sighting(e, n, s);
}

static void tell_near(struct engine *e, const struct listing *l, const struct sighting *s)
{
    const struct dataset_entry *d = dataset_entry_find(e, &s->dataset);

    for (uint32_t i = 0; d && i < d->near.n; i++)
        tell(e, l, node_entry_find(e, &d->near.links[i].node->node), s);
}

static void tell_everybody(struct engine *e, const struct listing *l, const struct sighting *s)
{
    for (const struct node_entry *n = e->nodes; n; n = n->hh.next)
        tell(e, l, n, s);
}

static void stray_end(struct listing *l, struct sighted *v)
{
    for (size_t i = 0; v->stray && i < l->n_strays; i++) {
        if (l->strays[i] != v)
            continue;
        l->strays[i] = l->strays[--l->n_strays];
        v->stray = false;
    }
}

/* Is it one now? True when it has just become one, and everybody was told. */
static bool stray_look(struct engine *e, struct listing *l, struct sighted *v)
{
    if (!is_in_the_way(dataset_entry_find(e, &v->s.dataset), &v->s)) {
        stray_end(l, v);
        return false;
    }
    if (v->stray)
        return false;
    l->strays = mem_grow(l->strays, l->n_strays, &l->cap_strays, sizeof(*l->strays));
    l->strays[l->n_strays++] = v;
    v->stray = true;
    tell_everybody(e, l, &v->s);
    return true;
}

#define ONLY_MISSING 1u
/* What was seen of all that concerns the node; a volume that it reports and no list has is gone, as far as the list knows. */
static void tell_all(struct engine *e, const struct listing *l, const struct node_entry *n, unsigned flags)
{
    for (size_t k = near_count(e, &n->id, NEAR_DATASETS); k-- > 0;) {
        const struct dataset_entry *d = near_dataset(e, &n->id, k);
        const struct report *r = report_of(d, &n->id);
        struct sighting gone = {.dataset = d->id};
        struct sighted *v;

        HASH_FIND(hh, l->volumes, &d->id, sizeof(d->id), v);
        if (v && !(flags & ONLY_MISSING))
            send_sighting(e, n, &v->s);
        else if (!v && l->whole && r && r->volume.present)
            send_sighting(e, n, &gone);
    }
}

/* ---- who lists ---- */

static bool can_list(const struct node_entry *n, const struct uuid *shared)
{
    return hears(n, shared) && !n->storage_unknown;
}

/* The next after the present one, in the order of ids, and around; the present one only if there is no other. */
static struct node_entry *next_lister(const struct engine *e, const struct listing *l)
{
    struct node_entry *best = NULL;

    for (struct node_entry *n = e->nodes; n; n = n->hh.next) {
        if (!can_list(n, &l->shared))
            continue;
        bool after = uuid_cmp(&n->id, &l->lister) > 0, best_after = best && uuid_cmp(&best->id, &l->lister) > 0;
        if (!best || (after != best_after ? after : uuid_cmp(&n->id, &best->id) < 0))
            best = n;
    }
    return best;
}

static void note_due(struct engine *e, struct listing *l, struct now now)
{
    l->due_us = now.mono_us + LISTS_MISSED * e->list_every_us;
    if (l->due_us < e->lists_us)
        e->lists_us = l->due_us;
}

static void appoint(struct engine *e, struct listing *l, struct now now)
{
    struct node_entry *old = node_entry_find(e, &l->lister), *n = next_lister(e, l);
    bool same = n && n == old && n->session == l->session;

    if (!n) {
        listing_free(e, l);
        return;
    }
    note_due(e, l, now);
    if (same)
        return;
    if (old && old != n && hears(old, &l->shared))
        send_duty(e, old, LIST_BY_OTHER);
    l->lister = n->id;
    l->session = n->session;
    l->pass++;
    l->whole = false;
    send_duty(e, n, LIST_FOR_ALL);
}

void lists_node_told(struct engine *e, struct now now, struct node_entry *n)
{
    struct listing *l = listing_of(e, &n->hello.shared_by);

    if (!can_list(n, &n->hello.shared_by) || uuid_is_nil(&n->hello.shared_by))
        return;
    if (!l) {
        l = xcalloc(1, sizeof(*l));
        l->shared = n->hello.shared_by;
        HASH_ADD(hh, e->listings, shared, sizeof(l->shared), l);
        appoint(e, l, now);
        return;
    }
    if (uuid_eq(&l->lister, &n->id) && l->session == n->session)
        return; /* it told once more */
    send_duty(e, n, LIST_BY_OTHER);
    tell_all(e, l, n, /* flags= */ 0);
    for (size_t i = 0; i < l->n_strays; i++)
        tell(e, l, n, &l->strays[i]->s);
}

void lists_node_left(struct engine *e, struct now now, const struct uuid *node)
{
    struct listing *l, *next;

    if (FAULT(LOST_LISTER))
        return;
    HASH_ITER (hh, e->listings, l, next) {
        if (uuid_eq(&l->lister, node))
            appoint(e, l, now);
    }
}

/* ---- what was seen ---- */

/* The listing that this session is to tell of; NULL: none, it is somebody else's now. */
static struct listing *told_by(const struct engine *e, uint64_t session)
{
    const struct node_entry *n = node_of_session(e, session);
    struct listing *l = n ? listing_of(e, &n->hello.shared_by) : NULL;

    return l && uuid_eq(&l->lister, &n->id) && l->session == session ? l : NULL;
}

static void forget(struct listing *l, struct sighted *v)
{
    stray_end(l, v);
    HASH_DEL(l->volumes, v);
    sighting_done(&v->s);
    free(v);
}

void engine_sighting(struct engine *e, struct now now, uint64_t session, const struct sighting *s)
{
    struct listing *l = told_by(e, session);
    struct sighted *v;

    (void)now;
    if (!l)
        return;
    HASH_FIND(hh, l->volumes, &s->dataset, sizeof(s->dataset), v);
    bool news = v ? !sighting_same(&v->s, s) : s->present;
    if (!v && s->present && HASH_COUNT(l->volumes) < SIGHTINGS_MAX) {
        v = xcalloc(1, sizeof(*v));
        v->s.dataset = s->dataset;
        HASH_ADD(hh, l->volumes, s.dataset, sizeof(v->s.dataset), v);
    }
    if (v && !s->present) {
        forget(l, v);
        v = NULL;
    } else if (v) {
        v->pass = l->pass;
        free(v->s.hosts);
        sighting_copy(&v->s, s);
    }
    bool told = v && stray_look(e, l, v);

    if (news && !told && v && v->stray)
        tell_everybody(e, l, s);
    else if (news && !told)
        tell_near(e, l, s);
}

void lists_reported(struct engine *e, const struct node_entry *n, const struct dataset_entry *d)
{
    struct listing *l = uuid_is_nil(&n->hello.shared_by) ? NULL : listing_of(e, &n->hello.shared_by);
    struct sighted *v = NULL;

    if (l)
        HASH_FIND(hh, l->volumes, &d->id, sizeof(d->id), v);
    if (v)
        (void)stray_look(e, l, v);
}

/* What an earlier lister told and this one did not is not there any more. */
static void end_first_list(struct engine *e, struct listing *l)
{
    struct sighted *v, *next;

    HASH_ITER (hh, l->volumes, v, next) {
        if (v->pass != l->pass)
            forget(l, v);
    }
    l->whole = true;
    for (const struct node_entry *n = e->nodes; n; n = n->hh.next) {
        if (hears(n, &l->shared) && !uuid_eq(&n->id, &l->lister))
            tell_all(e, l, n, ONLY_MISSING);
    }
}

void engine_sightings_complete(struct engine *e, struct now now, uint64_t session)
{
    struct listing *l = told_by(e, session);

    if (!l)
        return;
    note_due(e, l, now);
    if (!l->whole)
        end_first_list(e, l);
}

/* ---- time ---- */

uint64_t lists_deadline(const struct engine *e)
{
    return e->lists_us;
}

void look_at_lists(struct engine *e, struct now now)
{
    struct listing *l, *next;

    e->lists_us = USEC_NEVER;
    HASH_ITER (hh, e->listings, l, next) {
        if (now.mono_us >= l->due_us)
            appoint(e, l, now);
        else if (l->due_us < e->lists_us)
            e->lists_us = l->due_us;
    }
}
