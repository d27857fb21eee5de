/* Lists of storage that several nodes share: who makes them, what is told of them, what becomes of another's. */
#include "core/node_internal.h"

struct told_sighting {
    struct sighting s;
    bool listed; /* by the list that is being told */
    UT_hash_handle hh;
};

static void forget_told(struct node_lists *l)
{
    struct told_sighting *t, *next;

    HASH_ITER (hh, l->told, t, next) {
        HASH_DEL(l->told, t);
        sighting_done(&t->s);
        free(t);
    }
}

void node_lists_free(struct node *n)
{
    forget_told(&n->lists);
}

/* ---- when ---- */

static bool asks_backend(const struct node *n, struct now now)
{
    return !n->lists.shared || !n->volumes_known || (n->lists.full_us && now.mono_us >= n->lists.full_us);
}

bool node_list_is_due(const struct node *n, struct now now)
{
    return n->lists.full_us && now.mono_us >= n->lists.full_us;
}

uint64_t node_lists_deadline(const struct node *n)
{
    uint64_t full_us = n->lists.full_us;

    return full_us && full_us < n->volumes_backoff.next_us ? n->volumes_backoff.next_us : full_us;
}

/* All nodes are alone together when the control service is away: not at the same time, and seldom. */
static uint64_t alone_us(const struct node *n)
{
    uint64_t us = LIST_ALONE_TIMES * n->resync_every_us;

    return us * 4 / 5 + random_below(&n->random, us * 2 / 5 + 1);
}

static uint64_t least_us(const struct node *n)
{
    return n->lists.duty == LIST_FOR_ALL && n->lists.every_us < LIST_LEAST_US ? n->lists.every_us : LIST_LEAST_US;
}

static void schedule(struct node *n)
{
    struct node_lists *l = &n->lists;

    l->full_us = 0;
    if (!l->shared || !l->listed_us || l->duty == LIST_BY_OTHER)
        return;
    l->full_us = l->listed_us + (l->duty == LIST_FOR_ALL ? l->every_us : alone_us(n));
}

void node_list_begin(struct node *n, struct now now, struct step *s)
{
    struct node_lists *l = &n->lists;
    size_t count = HASH_COUNT(n->datasets);

    l->here_only = s->here_only = !asks_backend(n, now);
    if (!s->here_only) {
        l->listed_us = now.mono_us;
        schedule(n);
    }
    s->again = n->volumes_known;
    if (n->storage == STORAGE_LOCAL || !s->again || !count)
        return;
    s->known = xcalloc(count, sizeof(*s->known));
    for (struct node_dataset *d = n->datasets; d; d = d->hh.next) {
        if (d->observed)
            volume_state_copy(&s->known[s->n_known++], &d->volume);
    }
}

void node_list_failed(struct node *n, struct now now)
{
    uint64_t next = now.mono_us + least_us(n);

    if (n->lists.full_us && !n->lists.here_only && n->volumes_known)
        n->lists.full_us = next > n->volumes_backoff.next_us ? next : n->volumes_backoff.next_us;
}

void node_lists_session(struct node *n, struct now now)
{
    (void)now;
    n->lists.duty = LIST_ALONE;
    forget_told(&n->lists);
    schedule(n);
}

void node_list_order(struct node *n, struct now now, const struct list_order *order)
{
    struct node_lists *l = &n->lists;

    if (!n->connected || !l->shared || (l->duty == order->duty && order->duty != LIST_ALONE))
        return;
    l->duty = order->duty;
    l->every_us = order->interval_s * (uint64_t)USEC_PER_SEC;
    forget_told(l);
    schedule(n);
    if (l->duty == LIST_FOR_ALL) /* nobody knows what the others have missed */
        l->full_us = l->listed_us + least_us(n);
    node_touch(n, now);
}

enum list_duty node_list_duty(const struct node *n)
{
    return n->lists.duty;
}

/* ---- telling ---- */

static void tell(struct node *n, const struct sighting *s)
{
    sighting_copy(&node_effect_push(n, NODE_SIGHTING)->sighting, s);
}

static void tell_if_new(struct node *n, const struct volume_state *v)
{
    struct sighting s = {.dataset = v->dataset, .present = true, .size = v->size, .hosts = v->hosts};
    struct told_sighting *t;

    HASH_FIND(hh, n->lists.told, &v->dataset, sizeof(v->dataset), t);
    if (!t) {
        t = xcalloc(1, sizeof(*t));
        t->s.dataset = v->dataset;
        HASH_ADD(hh, n->lists.told, s.dataset, sizeof(t->s.dataset), t);
    }
    t->listed = true;
    if (sighting_same(&t->s, &s))
        return;
    free(t->s.hosts);
    sighting_copy(&t->s, &s);
    tell(n, &s);
}

void node_list_tell(struct node *n, const struct outcome *o)
{
    struct told_sighting *t, *next;

    if (n->lists.duty != LIST_FOR_ALL || n->lists.here_only)
        return;
    for (size_t i = 0; i < o->n_volumes; i++) {
        if (o->volumes[i].present)
            tell_if_new(n, &o->volumes[i]);
    }
    HASH_ITER (hh, n->lists.told, t, next) {
        struct sighting gone = {.dataset = t->s.dataset};

        if (t->listed) {
            t->listed = false;
            continue;
        }
        HASH_DEL(n->lists.told, t);
        sighting_done(&t->s);
        free(t);
        tell(n, &gone);
    }
    (void)node_effect_push(n, NODE_SIGHTINGS_COMPLETE);
}

/* ---- being told ---- */

static bool is_as_known(const struct volume_state *v, const struct node_sighting *s)
{
    return v->present == s->present && v->attached == s->attached.here &&
           v->attached_elsewhere == s->attached.elsewhere && (!s->present || v->size == s->size);
}

/* What differs is looked at, by itself: only that tells what is. While a step runs, its own look comes later than the list. */
void node_seen(struct node *n, struct now now, const struct node_sighting *s)
{
    struct node_dataset *d = node_dataset_find(n, &s->dataset);

    if (!n->connected || n->refused || !n->volumes_known || n->lists.duty != LIST_BY_OTHER)
        return;
    if (!d && !s->attached.here)
        return;
    d = node_dataset_get(n, &s->dataset);
    if (d->step || is_as_known(&d->volume, s))
        return;
    d->look_again = true;
    node_touch(n, now);
}
