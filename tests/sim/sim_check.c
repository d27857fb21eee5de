/* What must hold after every event, and what must be true in the end. */
#include "sim.h"

#include "base/str.h"

#define NEXT_TRY_MOST_US (37 * USEC_PER_SEC) /* back-off's cap with its jitter */

/* A store that was made anew knows of no id that it was used: under one that a user names again there are two volumes, then,
 * made in two lives, which are not the same data. */
bool sim_same_data(const struct sim *s, unsigned d, unsigned i, unsigned k)
{
    return sim_is_shared(s) || !s->emptied || s->hosts[i].volumes[d].life == s->hosts[k].volumes[d].life;
}

static void check_writers(struct sim *s, unsigned d)
{
    unsigned first = MAX_HOSTS;

    for (unsigned i = s->cloned ? 1 : 0; i < s->n_nodes; i++) {
        if (!s->hosts[i].volumes[d].mounted)
            continue;
        if (first < MAX_HOSTS && sim_same_data(s, d, first, i))
            sim_violation(s, V_TWO_WRITERS, "h%u and h%u have d%u mounted", first, i, d);
        first = i;
    }
}

static void check_store(struct sim *s, unsigned d)
{
    const struct dataset *st = s->store.datasets[d];
    const struct sim_dataset *ds = &s->datasets[d];

    if (ds->exists && !st)
        sim_violation(s, V_STORE, "the acknowledged create of d%u is not in the store", d);
    if (ds->deleted && st && !st->deleted)
        sim_violation(s, V_STORE, "the acknowledged delete of d%u is not in the store", d);
    if (ds->container_exists && !ds->busy && !s->store.containers[d])
        sim_violation(s, V_STORE, "the acknowledged create of c%u is not in the store", d);
}

/* What an agent said about its next try must not be far away. */
static void check_reason(struct sim *s, const struct reason *r, char what, unsigned index)
{
    if (r->code == REASON_NONE)
        sim_violation(s, V_NO_REASON, "%c%u is not as it is wanted, without a reason", what, index);
    if (r->retry_us > sim_now(s).wall_us + NEXT_TRY_MOST_US)
        sim_violation(s, V_BACKOFF, "%c%u is tried again only in %llu s", what, index,
                      (unsigned long long)((r->retry_us - sim_now(s).wall_us) / USEC_PER_SEC));
}

struct wanted {
    struct uuid node;
    uint64_t epoch;
    bool there;
};

static void find_mount(void *cookie, const struct uuid *node, const struct report *r)
{
    struct wanted *w = cookie;

    if (uuid_eq(node, &w->node) && r->volume.mounted && r->volume.mark.epoch == w->epoch)
        w->there = true;
}

static void check_dataset_reason(struct sim *s, unsigned d)
{
    const struct dataset *now = engine_dataset(s->engine, &s->datasets[d].id);
    struct reason r;

    if (!now || (now->deleted && now->tombstone && !now->n_holders))
        return;
    struct wanted w = {.node = now->primary, .epoch = now->epoch};
    if (!now->deleted && !now->transfer.id && uuid_eq(&now->owner, &now->primary))
        engine_each_report(s->engine, sim_control_now(s), &now->id, find_mount, &w);
    if (w.there)
        return;
    engine_dataset_reason(s->engine, sim_control_now(s), &now->id, &r);
    check_reason(s, &r, 'd', d);
    reason_done(&r);
}

static void find_running(void *cookie, const struct uuid *node, const struct container_report *r)
{
    struct wanted *w = cookie;

    if (uuid_eq(node, &w->node) && r->run == CONTAINER_RUNNING)
        w->there = true;
}

static void check_container_reason(struct sim *s, unsigned c)
{
    char name[] = {'c', (char)('0' + c), '\0'};
    const struct container *now = engine_container(s->engine, name);
    struct reason r;

    if (!now)
        return;
    struct wanted w = {.node = now->node};
    engine_each_container_report(s->engine, sim_control_now(s), name, find_running, &w);
    if (w.there)
        return;
    engine_container_reason(s->engine, sim_control_now(s), name, &r);
    check_reason(s, &r, 'c', c);
    reason_done(&r);
}

/* What is told of a comparison is what one of that number found. */
static void check_comparison(struct sim *s, unsigned d)
{
    const struct sim_dataset *ds = &s->datasets[d];
    const struct comparison *c = engine_comparison(s->engine, &ds->id);
    bool made = c && c->number == ds->compared;

    if (c && c->end == COMPARISON_EQUAL && !(made && ds->compared_equal))
        sim_violation(s, V_COMPARISON, "the replica of d%u is said to be the same, and nobody found that", d);
    if (c && c->end == COMPARISON_DIFFERS && !(made && ds->compared_different))
        sim_violation(s, V_COMPARISON, "the replica of d%u is said to differ, and nobody found that", d);
}

void sim_check(struct sim *s)
{
    for (unsigned d = 0; d < s->n_datasets; d++) {
        check_writers(s, d);
        check_store(s, d);
        if (s->engine_touched && s->engine)
            check_dataset_reason(s, d);
        if (s->engine_touched && s->engine)
            check_comparison(s, d);
    }
    for (unsigned c = 0; s->engine_touched && s->engine && c < s->n_containers; c++)
        check_container_reason(s, c);
}

/* ---- in the end ---- */

static bool is_gone(const struct sim *s, const struct uuid *node)
{
    int i = sim_node_index(s, node);

    return i >= 0 && s->hosts[i].dead;
}

static bool is_gone_and_fenced(const struct sim *s, const struct uuid *node)
{
    int i = sim_node_index(s, node);

    return i >= 0 && s->hosts[i].dead && s->store.fences[i] && s->store.fences[i]->revision > s->store.history.restored;
}

/* Nobody who is left has anything of it, as is said. */
static bool is_only_on_fenced(const struct sim *s, const struct dataset *st, unsigned d)
{
    struct reason why;

    if (!dataset_freed_from(st) || !s->engine || sim_is_shared(s))
        return false;
    engine_dataset_reason(s->engine, sim_control_now(s), &s->datasets[d].id, &why);
    bool only = why.code == REASON_DATA_ON_FENCED_NODE;
    reason_done(&why);
    return only || st->dropped;
}

/* May stay as it is: a machine or a disk that it needs is gone for ever, or a copied certificate confused the owner. When an operator
 * has signed that the machine is off, only what nobody else has may stay. */
static bool cannot_settle(const struct sim *s, const struct dataset *st, unsigned d)
{
    const struct uuid *needed[] = {&st->owner, &st->primary};

    if (s->datasets[d].lost || is_only_on_fenced(s, st, d))
        return true;
    for (size_t i = 0; i < ARRAY_SIZE(needed); i++) {
        if (is_gone(s, needed[i]) && !is_gone_and_fenced(s, needed[i]))
            return true;
    }
    for (size_t i = 0; i < st->n_holders; i++) {
        if (is_gone(s, &st->holders[i]) && (st->deleted || !dataset_is_fenced(st, &st->holders[i])))
            return true;
    }
    return false;
}

/* Waits until the user lets go of it: where it is, or on a machine that is gone for ever, which nobody has signed to be off. */
static bool is_held(const struct sim *s, const struct dataset *st, unsigned d)
{
    const struct lease *l = s->store.leases[d];

    return l && (uuid_eq(&l->node, &st->owner) || (is_gone(s, &l->node) && !is_gone_and_fenced(s, &l->node))) &&
           (st->deleted || st->dropped || !uuid_eq(&st->owner, &st->primary) || st->transfer.id);
}

static bool is_over(const struct sim *s, const struct replica *p)
{
    return p->until_us + 5 * USEC_PER_SEC < sim_control_now(s).wall_us || !s->keep_replicas_us;
}

/* Exactly the snapshot that it is to be, and not beyond its time. */
static const char *replica_unsettled(const struct sim *s, const struct replica *p, const struct sim_volume *v)
{
    if (v->present || v->mounted || v->partial)
        return "more than a replica is left";
    if (v->n_snapshots != 1 || !streq(v->snapshots[0].name, p->base))
        return "the replica has other snapshots than its base";
    return is_over(s, p) && !s->wall_jumped ? "the replica is there beyond its time" : NULL;
}

/* The configured container that uses it; NULL = none. */
static const struct container *user_of(const struct sim *s, unsigned d)
{
    const struct container *k = s->store.containers[s->group[d]];

    return k && container_uses(k, &s->datasets[d].id) ? k : NULL;
}

/* A job that ended well is done: that has been written down by now, and it was not started again. */
static bool has_run(const struct container *c, const struct sim_container *k)
{
    return c->ended ? !k->running : k->running;
}

static const char *host_unsettled(const struct sim *s, const struct dataset *st, unsigned d,
                                  unsigned i)
{
    const struct sim_volume *v = &s->hosts[i].volumes[d];
    const struct sim_container *k = &s->hosts[i].containers[s->group[d]];
    const struct container *c = user_of(s, d);
    bool here = k->here && k->uses[d];
    bool owner = uuid_eq(&st->owner, &s->hosts[i].id) && !st->tombstone;

    if (v->announced || (v->partial && !st->dropped))
        return "a stream is expected, or half of one is left";
    if (owner && st->dropped)
        return v->mounted ? "still mounted" : here ? "a container is left" : NULL;
    if (owner != v->mounted)
        return owner ? "not mounted" : "still mounted";
    if (st->dropped)
        return here ? "a container is left"
                    : NULL; /* copies stay until a node has mounted it again */
    if (dataset_is_replica(st, &s->hosts[i].id))
        return here ? "a container is left" : replica_unsettled(s, st->replica, v);
    if (!owner)
        return !sim_volume_is_blank(s, i, d) ? "bytes or a mark are left"
               : here                        ? "a container is left"
                                             : NULL;
    if (v->n_snapshots > (st->replica ? 1 : 0))
        return "snapshots are left";
    if (v->size && v->size < st->maximum_size)
        return "the volume has not grown";
    if (c)
        return has_run(c, k) ? NULL
               : c->ended    ? "the container runs again"
                             : "the container does not run";
    return here && k->running ? "a container is left" : NULL;
}

static bool stays(const struct sim *s, const struct dataset *st, unsigned d)
{
    return cannot_settle(s, st, d) || is_held(s, st, d) || sim_mount_clings(s, d);
}

/* Another dataset of its container stays where it is, and it goes nowhere without that. */
static bool is_bound(const struct sim *s, unsigned d)
{
    const struct container *c = user_of(s, d);
    bool bound = false;

    for (unsigned k = 0; c && k < s->n_datasets; k++) {
        const struct dataset *st = s->store.datasets[k];
        if (k != d && container_uses(c, &s->datasets[k].id))
            bound = bound || !st || st->deleted || stays(s, st, k);
    }
    return bound;
}

static const char *dataset_unsettled(const struct sim *s, unsigned d, char *buf, size_t size)
{
    const struct dataset *st = s->store.datasets[d];

    if (!st || stays(s, st, d) || is_bound(s, d))
        return NULL;
    if (st->deleted && user_of(s, d))
        return NULL; /* waits until the user deletes the container */
    for (unsigned i = 0; i < s->n_nodes; i++) {
        const char *what = s->hosts[i].dead ? NULL : host_unsettled(s, st, d, i);
        (void)snprintf(buf, size, "d%u on h%u: %s", d, i, what ? what : "");
        if (what)
            return buf;
    }
    (void)snprintf(buf, size, "record of d%u", d);
    if (st->deleted)
        return st->n_holders || !st->tombstone || s->shared[d].present ? buf : NULL;
    if (st->dropped)
        return st->transfer.id || !st->born || st->recalled ? buf : NULL;
    size_t holders = st->replica ? 2 : 1;
    for (size_t i = 0; i < st->n_holders; i++)
        holders += is_gone(s, &st->holders[i]); /* fenced, see above */
    return !uuid_eq(&st->owner, &st->primary) || st->transfer.id || st->n_holders != holders || !st->born
               ? buf
               : NULL;
}

/* The user has deleted what it depends on, or that can run nowhere. */
static bool waits_for_ever(const struct sim *s, const struct container *k)
{
    for (size_t i = 0; i < k->n_depends_on; i++) {
        const struct container *on = s->store.containers[sim_container_index(k->depends_on[i].name)];
        if (!on || is_gone(s, &on->node))
            return true;
    }
    return false;
}

static const char *container_unsettled(const struct sim *s, unsigned c, char *buf, size_t size)
{
    const struct container *k = s->store.containers[c];

    for (unsigned i = 0; i < s->n_nodes; i++) {
        bool wanted = k && uuid_eq(&k->node, &s->hosts[i].id);
        if (wanted && waits_for_ever(s, k))
            continue;
        (void)snprintf(buf, size, "c%u on h%u", c, i);
        if (!s->hosts[i].dead &&
            (wanted ? !has_run(k, &s->hosts[i].containers[c]) : s->hosts[i].containers[c].running))
            return buf;
        if (!s->hosts[i].dead && !wanted && s->hosts[i].containers[c].here)
            return buf;
    }
    return NULL;
}

/* The node that has all its datasets, else where it is wanted. */
static int place_of(const struct sim *s, const struct container *k)
{
    const struct uuid *place = &k->node;
    size_t n = 0;

    for (unsigned d = 0; d < s->n_datasets; d++) {
        const struct dataset *st = s->store.datasets[d];
        if (!container_uses(k, &s->datasets[d].id))
            continue;
        const struct uuid *owner =
            st && st->born && !uuid_is_nil(&st->owner) ? &st->owner : &k->node;
        if (n++ && !uuid_eq(owner, place))
            return sim_node_index(s, &k->node);
        place = owner;
    }
    return sim_node_index(s, place);
}

/* On every node each port leads to the node that has its container, and nowhere when it is that node or there is none. */
static bool route_unsettled(const struct sim *s, unsigned c, unsigned host, char *buf, size_t size)
{
    const struct container *k = s->store.containers[c];
    int is = s->hosts[host].routes[c] - 1, wanted = -1;

    if (s->hosts[host].dead || s->cloned || !sim_knows_routes(s, host))
        return false;
    if (k)
        wanted = place_of(s, k);
    if (wanted >= 0 && s->hosts[wanted].dead)
        return false; /* its address may be forgotten */
    if (wanted == (int)host)
        wanted = -1;
    (void)snprintf(buf, size, "the port of c%u leads on h%u to h%d and not to h%d", c, host, is, wanted);
    return is != wanted;
}

/* What the store cannot know the operator has said. Who has it may be a machine that is gone, or one that was two. */
static bool unknown_to_store(struct sim *s, char *buf, size_t size)
{
    bool unknown = false;

    for (unsigned i = 0; i < s->n_nodes; i++) {
        if (s->hosts[i].dead)
            return false;
    }
    for (unsigned d = 0; s->restored && !s->cloned && s->engine && !unknown && d < s->n_datasets; d++) {
        struct reason r;
        if (!engine_dataset(s->engine, &s->datasets[d].id))
            continue; /* nobody wants it */
        engine_dataset_reason(s->engine, sim_control_now(s), &s->datasets[d].id, &r);
        unknown = r.code == REASON_STORE_UNKNOWN || r.code == REASON_STORE_RESTORED;
        (void)snprintf(buf, size, "d%u: %s", d, r.text ? r.text : "");
        reason_done(&r);
    }
    return unknown;
}

/* A comparison ends, well or not; and a replica that is known to differ goes. */
static const char *comparison_unsettled(const struct sim *s, unsigned d, char *buf, size_t size)
{
    const struct comparison *c = s->engine ? engine_comparison(s->engine, &s->datasets[d].id) : NULL;
    const struct dataset *st = s->store.datasets[d];

    if (!c)
        return NULL;
    bool kept = c->end == COMPARISON_DIFFERS && st && st->replica && streq(st->replica->base, c->snapshot) && uuid_eq(&st->replica->node, &c->node);
    (void)snprintf(buf, size, "d%u: %s", d, kept ? "a replica that differs is kept" : "a comparison runs for ever");
    return kept || c->end == COMPARISON_RUNS ? buf : NULL;
}

/* Of those that can, exactly one node lists the storage for all. */
static const char *lists_unsettled(const struct sim *s, char *buf, size_t size)
{
    unsigned can = 0, list = 0;

    for (unsigned i = 0; s->engine && i < s->n_nodes; i++) {
        const struct sim_host *h = &s->hosts[i];
        if (!h->brain || !h->session || !sim_shares_lists(s, i) || node_store_refused(h->brain))
            continue;
        can++;
        list += node_list_duty(h->brain) == LIST_FOR_ALL;
    }
    (void)snprintf(buf, size, "%u of %u nodes list the storage for all", list, can);
    return can && list != 1 && !s->cloned ? buf : NULL;
}

struct told_size {
    uint64_t is;
    bool wrong;
};

static void check_size_told(void *cookie, const struct uuid *node, const struct report *r)
{
    struct told_size *t = cookie;

    (void)node;
    t->wrong = t->wrong || (r->volume.present && r->volume.size != t->is);
}

/* What was done to volumes behind everybody's back is known where it matters. */
static const char *size_unsettled(const struct sim *s, unsigned d, char *buf, size_t size)
{
    struct told_size told = {.is = s->shared[d].size};

    if (!s->engine || !sim_is_shared(s) || !s->shared[d].present || !sim_looks_often(s))
        return NULL;
    engine_each_report(s->engine, sim_control_now(s), &s->datasets[d].id, check_size_told, &told);
    (void)snprintf(buf, size, "d%u has another size than a node says", d);
    return told.wrong ? buf : NULL;
}

const char *sim_unsettled(struct sim *s, char *buf, size_t size)
{
    if (s->store.history.unsettled)
        return "the store that was put back is not settled";
    if (lists_unsettled(s, buf, size))
        return buf;
    if (unknown_to_store(s, buf, size))
        return buf;
    for (unsigned d = 0; d < s->n_datasets; d++) {
        const struct lease *l = s->store.leases[d];
        if (size_unsettled(s, d, buf, size) || dataset_unsettled(s, d, buf, size) || comparison_unsettled(s, d, buf, size) || sim_mounts_unsettled(s, d, buf, size))
            return buf;
        (void)snprintf(buf, size, "lease of d%u", d);
        if (l && l->expires && !s->wall_jumped &&
            l->expires_wall_us + 5 * USEC_PER_SEC < sim_control_now(s).wall_us)
            return buf;
    }
    for (unsigned c = s->n_datasets; c < s->n_containers; c++) {
        if (container_unsettled(s, c, buf, size))
            return buf;
    }
    for (unsigned c = 0; c < s->n_containers; c++) {
        for (unsigned i = 0; i < s->n_nodes; i++) {
            if (route_unsettled(s, c, i, buf, size))
                return buf;
        }
    }
    return NULL;
}
