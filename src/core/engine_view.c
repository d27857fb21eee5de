/* Reading: committed configuration and what nodes report. */
#include "core/engine_internal.h"

uint64_t engine_revision(const struct engine *e)
{
    return e->revision;
}

struct uuid engine_store(const struct engine *e)
{
    return e->history.store;
}

struct engine_counts engine_counts(const struct engine *e)
{
    return (struct engine_counts){HASH_COUNT(e->datasets), HASH_COUNT(e->containers), HASH_COUNT(e->leases),
                                  replica_count(e)};
}

const struct dataset *engine_dataset(const struct engine *e, const struct uuid *id)
{
    const struct dataset_entry *entry = dataset_entry_find(e, id);

    return entry && is_configured(entry->committed) ? entry->committed : NULL;
}

bool engine_dataset_home(const struct engine *e, const struct uuid *id, struct uuid *ret_node)
{
    const struct dataset_entry *entry = dataset_entry_find(e, id);
    const struct dataset *d = entry ? entry->committed : NULL;

    if (!d || d->deleted)
        return false;
    *ret_node = d->dropped && !uuid_is_nil(&d->owner) ? d->owner : d->primary;
    return true;
}

const struct container *engine_container(const struct engine *e, const char *name)
{
    const struct container_entry *entry = container_entry_find(e, name);

    return entry ? entry->committed : NULL;
}

const struct container *engine_container_of_dataset(const struct engine *e,
                                                    const struct uuid *dataset)
{
    const struct container_entry *entry = container_using(e, dataset, /* committed= */ true);

    return entry ? entry->committed : NULL;
}

size_t engine_dataset_count(const struct engine *e)
{
    return HASH_COUNT(e->datasets);
}

/* ---- lists ---- */

struct walk {
    const struct sorted *set;
    struct sorted_place place;
    struct sorted own; /* of one node */
};

static void walk_done(struct walk *w)
{
    sorted_done(&w->own);
}

static size_t count_of(const struct engine *e, enum near_kind kind)
{
    return kind == NEAR_DATASETS     ? HASH_COUNT(e->datasets)
           : kind == NEAR_CONTAINERS ? HASH_COUNT(e->containers)
                                     : HASH_COUNT(e->leases);
}

/* Putting a node's own in order, or walking past others' until enough of its own were met: whichever is less work. */
static bool own_is_quick(const struct engine *e, enum near_kind kind, const struct list_query *q)
{
    const size_t sorting = 16; /* steps of a walk */
    size_t all = count_of(e, kind), own;

    if (!q->node || uuid_is_nil(q->node))
        return false;
    own = near_count(e, q->node, kind);
    return !own || own * sorting < (q->about && q->about < own ? all / own * q->about : all);
}

static const void *key_of(enum near_kind kind, const void *entry)
{
    if (kind == NEAR_DATASETS)
        return &((const struct dataset_entry *)entry)->id;
    if (kind == NEAR_CONTAINERS)
        return ((const struct container_entry *)entry)->name;
    return &((const struct lease_entry *)entry)->dataset;
}

static void walk_begin(const struct engine *e, enum near_kind kind, const struct list_query *q,
                       struct walk *w)
{
    static sorted_compare_fn *const compares[NEAR_KINDS] = {
        [NEAR_DATASETS] = compare_dataset,
        [NEAR_CONTAINERS] = compare_container,
        [NEAR_LEASES] = compare_lease,
    };
    const struct sorted *const sets[NEAR_KINDS] = {
        [NEAR_DATASETS] = &e->dataset_ids,
        [NEAR_CONTAINERS] = &e->container_names,
        [NEAR_LEASES] = &e->lease_ids,
    };
    sorted_compare_fn *compare = compares[kind];
    const void *after = kind == NEAR_CONTAINERS ? (const void *)q->after_name : q->after;

    *w = (struct walk){.set = sets[kind]};
    if (!own_is_quick(e, kind, q)) {
        w->place = sorted_after(w->set, compare, after);
        return;
    }
    for (size_t k = near_count(e, q->node, kind); k-- > 0;) {
        void *entry = near_entry(e, q->node, kind, k);
        if (!after || compare(after, entry) < 0)
            sorted_add(&w->own, compare, key_of(kind, entry), entry);
    }
    w->set = &w->own;
}

void engine_list_datasets(const struct engine *e, const struct list_query *q,
                          bool (*fn)(void *, const struct uuid *id), void *cookie)
{
    CLEANUP(walk_done) struct walk w = {0};
    const struct dataset_entry *d;

    if (q->name) {
        w.place = datasets_named(e, q->name, q->after);
        while ((d = next_named(e, q->name, &w.place)) && fn(cookie, &d->id))
            ;
        return;
    }
    walk_begin(e, NEAR_DATASETS, q, &w);
    while ((d = sorted_next(w.set, &w.place)) && fn(cookie, &d->id))
        ;
}

void engine_list_containers(const struct engine *e, const struct list_query *q,
                            bool (*fn)(void *, const char *name), void *cookie)
{
    CLEANUP(walk_done) struct walk w = {0};
    const struct container_entry *c;

    if (q->name) {
        c = container_entry_find(e, q->name);
        if (c && (!q->after_name || strcmp(q->after_name, c->name) < 0))
            (void)fn(cookie, c->name);
        return;
    }
    walk_begin(e, NEAR_CONTAINERS, q, &w);
    while ((c = sorted_next(w.set, &w.place)) && fn(cookie, c->name))
        ;
}

static uint64_t time_left(const struct lease_entry *l, struct now now)
{
    if (l->committed->expires && l->committed_expires_mono_us != USEC_NEVER &&
        l->committed_expires_mono_us > now.mono_us)
        return l->committed_expires_mono_us - now.mono_us;
    return 0;
}

void engine_list_leases(const struct engine *e, struct now now, const struct list_query *q,
                        bool (*fn)(void *, const struct lease *, uint64_t left_us), void *cookie)
{
    CLEANUP(walk_done) struct walk w = {0};
    const struct lease_entry *l;

    walk_begin(e, NEAR_LEASES, q, &w);
    while ((l = sorted_next(w.set, &w.place)) &&
           (!l->committed || fn(cookie, l->committed, time_left(l, now))))
        ;
}

const struct lease *engine_lease(const struct engine *e, struct now now, const struct uuid *dataset, uint64_t *ret_left_us)
{
    const struct lease_entry *l = lease_entry_find(e, dataset);

    if (!l || !l->committed)
        return NULL;
    *ret_left_us = time_left(l, now);
    return l->committed;
}

static bool node_is_listed(const struct node_entry *n, struct now now)
{
    if (n->session)
        return true;
    return n->closed_mono_us && now.mono_us < n->closed_mono_us + NODE_GRACE_US;
}

void engine_list_nodes(const struct engine *e, struct now now, const struct list_query *q,
                       bool (*fn)(void *, const struct node_view *), void *cookie)
{
    struct sorted_place place = sorted_after(&e->node_ids, compare_node, q->after);
    const struct node_entry *n;
    bool more = true;

    while (more && (n = sorted_next(&e->node_ids, &place))) {
        struct node_view v = {.node = n->id,
                              .era = n->hello.era,
                              .host = n->hello.host,
                              .backend = n->hello.backend,
                              .connected = n->session != 0,
                              .obeys = node_has_told(e, &n->id),
                              .routes = n->session && n->has_routes ? &n->routes : NULL,
                              .space = n->session ? n->space : (struct space){0},
                              .cordoned = node_is_cordoned(e, &n->id),
                              .fenced = fence_of(e, &n->id) != NULL,
                              .listed = node_is_listed(n, now)};
        more = fn(cookie, &v);
    }
}

bool engine_node_by_era(const struct engine *e, const struct uuid *era, struct uuid *ret_node)
{
    struct era_entry *entry;

    HASH_FIND(hh, e->eras, era, sizeof(*era), entry);
    if (!entry)
        return false;
    *ret_node = entry->node;
    return true;
}

static bool is_listed_id(const struct engine *e, struct now now, const struct uuid *node)
{
    const struct node_entry *n = node_entry_find(e, node);

    return n && node_is_listed(n, now);
}

void engine_each_report(const struct engine *e, struct now now, const struct uuid *dataset,
                        void (*fn)(void *, const struct uuid *node, const struct report *),
                        void *cookie)
{
    const struct dataset_entry *d = dataset_entry_find(e, dataset);

    for (size_t i = 0; d && i < d->n_reports; i++) {
        if (is_listed_id(e, now, &d->reports[i].node))
            fn(cookie, &d->reports[i].node, &d->reports[i].report);
    }
}

uint64_t engine_transfer_rate(const struct engine *e, struct now now, const struct uuid *dataset)
{
    const struct dataset_entry *d = dataset_entry_find(e, dataset);
    const struct flow *f = d ? d->flow : NULL;

    if (!f || !d->committed || f->transfer != d->committed->transfer.id)
        return 0;
    return now.mono_us < f->at_us + FLOW_OLD_US ? f->rate : 0;
}

void engine_each_container_report(const struct engine *e, struct now now, const char *name,
                                  void (*fn)(void *, const struct uuid *node,
                                             const struct container_report *),
                                  void *cookie)
{
    const struct container_entry *c = container_entry_find(e, name);

    for (size_t i = 0; c && i < c->n_reports; i++) {
        if (is_listed_id(e, now, &c->reports[i].node))
            fn(cookie, &c->reports[i].node, &c->reports[i].report);
    }
}

/* ---- reasons ---- */

/* Codes by which the engine only says which node's turn it is; that node knows more. */
static bool is_waiting_for_node(enum reason_code code)
{
    return code == REASON_CREATING || code == REASON_MOUNTING || code == REASON_COPYING ||
           code == REASON_RELEASING || code == REASON_PROMOTING || code == REASON_DELETING;
}

/* How much a node's reason tells: nothing more than "I am at it", what failed between two nodes, or what is wrong on
 * this one (which may be why the other could not send). */
static int telling(const struct reason *r)
{
    if (r->code == REASON_NONE || is_waiting_for_node(r->code))
        return 0;
    return r->code == REASON_TRANSFER_FAILED || r->code == REASON_PEER_UNREACHABLE ? 1 : 2;
}

/* Is it this node's turn? What a bystander, or one that went away, said last is no news. */
static bool is_involved(const struct engine *e, const struct dataset *d, const struct uuid *node)
{
    if (!node_ready(e, node))
        return false;
    if (d->tombstone)
        return dataset_has_holder(d, node);
    return uuid_eq(&d->owner, node) || (d->transfer.id && uuid_eq(&d->transfer.destination, node));
}

/* Mounted where it is wanted, but smaller: then its owner knows what is in the way. */
static bool is_too_small(const struct dataset_entry *entry)
{
    const struct report *r = report_of(entry, &entry->committed->owner);

    return r && r->volume.size && r->volume.size < entry->committed->maximum_size;
}

/* They come and go without the dataset being looked at again. */
static void name_nodes_away(const struct engine *e, struct reason *r)
{
    CLEANUP_STR struct str away = {0};

    append_nodes_away(e, &away);
    CLEANUP_FREE char *text =
        away.len ? xasprintf("%s; not here: %s", r->text, away.data)
                 : xasprintf("%s; all nodes that the store knows are here", r->text);
    reason_set(r, r->code, r->since_us, r->retry_us, text);
}

void engine_dataset_reason(const struct engine *e, struct now now, const struct uuid *id,
                           struct reason *ret_reason)
{
    const struct dataset_entry *entry = dataset_entry_find(e, id);
    const struct dataset_report *best = NULL;

    (void)now;
    *ret_reason = (struct reason){0};
    if (!entry || !entry->committed)
        return;
    if (is_waiting_for_node(entry->reason.code) ||
        (entry->reason.code == REASON_NONE && is_too_small(entry))) {
        for (size_t i = 0; i < entry->n_reports; i++) {
            const struct dataset_report *r = &entry->reports[i];
            if (is_involved(e, entry->committed, &r->node) &&
                telling(&r->report.reason) > (best ? telling(&best->report.reason) : 0))
                best = r;
        }
    }
    if (!best) {
        reason_copy(ret_reason, &entry->reason);
        if (ret_reason->code == REASON_STORE_RESTORED)
            name_nodes_away(e, ret_reason);
        return;
    }
    const struct reason *r = &best->report.reason;
    CLEANUP_FREE char *text = xasprintf("node %s: %s", UUID_STR(&best->node),
                                        r->text ? r->text : reason_code_name(r->code));
    reason_copy(ret_reason, r);
    reason_set(ret_reason, r->code, r->since_us, r->retry_us, text);
}

/* Is it there, as far as its owner has told? */
static bool is_mounted_there(const struct engine *e, const struct uuid *dataset,
                             const struct uuid *node)
{
    const struct dataset_entry *entry = dataset_entry_find(e, dataset);

    return entry && entry->committed && uuid_eq(&entry->committed->owner, node) &&
           report_is_mounted_at(report_of(entry, node), entry->committed->epoch);
}

/* How much a dataset has to do with its container's waiting: one that is on its way more than one that waits for it. */
static int blame(const struct engine *e, struct now now, const struct container *c,
                 const struct uuid *dataset)
{
    struct reason why;

    engine_dataset_reason(e, now, dataset, &why);
    int much = why.code == REASON_NONE                  ? !is_mounted_there(e, dataset, &c->node)
               : why.code == REASON_WAITING_FOR_DATASET ? 2
                                                        : 3;
    reason_done(&why);
    return much;
}

/* What a container waits for whose datasets are not all there: the own reason of one that is not. */
static void wait_for_dataset(const struct engine *e, struct now now, const struct container *c,
                             uint64_t since_us, struct reason *ret_reason)
{
    const struct uuid *dataset = &c->volumes[0].dataset;
    struct reason why;
    CLEANUP_FREE char *text = NULL;

    for (size_t i = 1; i < c->n_volumes; i++) {
        const struct uuid *other = &c->volumes[i].dataset;
        dataset = blame(e, now, c, other) > blame(e, now, c, dataset) ? other : dataset;
    }
    engine_dataset_reason(e, now, dataset, &why);
    if (why.code == REASON_NONE)
        text = xasprintf("dataset %s is not mounted on node %s yet", UUID_STR(dataset),
                         UUID_STR(&c->node));
    else
        text = xasprintf("dataset %s: %s: %s", UUID_STR(dataset), reason_code_name(why.code),
                         why.text ? why.text : "");
    reason_set(ret_reason, REASON_WAITING_FOR_DATASET, since_us, why.retry_us, text);
    reason_done(&why);
}

void engine_container_reason(const struct engine *e, struct now now, const char *name,
                             struct reason *ret_reason)
{
    const struct container_entry *entry = container_entry_find(e, name);

    *ret_reason = (struct reason){0};
    if (!entry || !entry->committed)
        return;
    const struct container *c = entry->committed;
    const struct container_report *r = container_report_of(entry, &c->node);
    const struct node_entry *n = node_entry_find(e, &c->node);
    if (node_is_fenced(e, &c->node)) {
        const struct fence *f = fence_of(e, &c->node);
        CLEANUP_FREE char *text = xasprintf("node %s is fenced", UUID_STR(&c->node));
        reason_set(ret_reason, REASON_NODE_FENCED, f ? f->at_us : entry->since_us, 0, text);
        return;
    }
    if (!n || !n->session) {
        CLEANUP_FREE char *text = xasprintf("node %s is not connected", UUID_STR(&c->node));
        uint64_t since = n && n->closed_wall_us ? n->closed_wall_us : entry->since_us;
        reason_set(ret_reason, REASON_NODE_DISCONNECTED, since, 0, text);
        return;
    }
    if (!knows_settings(e, c, &c->node)) {
        CLEANUP_FREE char *text = unknown_settings_text(e, c, &c->node);
        reason_set(ret_reason, REASON_START_FAILED, entry->since_us, 0, text);
        return;
    }
    if (r && r->run == CONTAINER_RUNNING && r->reason.code == REASON_NONE)
        return;
    if (r && r->reason.code == REASON_WAITING_FOR_DATASET && c->n_volumes) {
        wait_for_dataset(e, now, c, r->reason.since_us, ret_reason);
    } else if (r && r->reason.code == REASON_WAITING_FOR_DEPENDENCY) {
        CLEANUP_FREE char *text = held_text(e, c);
        reason_set(ret_reason, r->reason.code, r->reason.since_us, 0, text);
    } else if (r && r->reason.code != REASON_NONE) {
        reason_copy(ret_reason, &r->reason);
    } else if (!node_ready(e, &c->node) && n->complete) {
        CLEANUP_FREE char *text = xasprintf(
            "node %s obeys another store, or a later state of this one", UUID_STR(&c->node));
        reason_set(ret_reason, REASON_STORE_UNKNOWN, entry->since_us, 0, text);
    } else if (c->n_volumes) {
        wait_for_dataset(e, now, c, entry->since_us, ret_reason);
    } else { /* ordered, but the node has not answered yet */
        CLEANUP_FREE char *text =
            xasprintf("node %s has not said yet whether it has %s", UUID_STR(&c->node), c->image);
        reason_set(ret_reason, REASON_WAITING_FOR_IMAGE, entry->since_us, 0, text);
    }
}
