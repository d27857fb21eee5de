/* Reading: committed configuration and what nodes report. */
#include "core/engine_internal.h"

uint64_t engine_revision(const struct engine *e)
{
    return e->revision;
}

struct uuid engine_store(const struct engine *e)
{
    return e->store;
}

const struct dataset *engine_dataset(const struct engine *e, const struct uuid *id)
{
    const struct dataset_entry *entry = dataset_entry_find(e, id);

    return entry ? entry->committed : NULL;
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

void engine_each_dataset(const struct engine *e, void (*fn)(void *, const struct dataset *),
                         void *cookie)
{
    for (struct dataset_entry *d = e->datasets; d; d = d->hh.next) {
        if (d->committed)
            fn(cookie, d->committed);
    }
}

void engine_each_container(const struct engine *e, void (*fn)(void *, const struct container *),
                           void *cookie)
{
    for (struct container_entry *c = e->containers; c; c = c->hh.next) {
        if (c->committed)
            fn(cookie, c->committed);
    }
}

void engine_each_lease(const struct engine *e, struct now now,
                       void (*fn)(void *, const struct lease *, uint64_t left_us), void *cookie)
{
    for (struct lease_entry *l = e->leases; l; l = l->hh.next) {
        uint64_t left = 0;
        if (!l->committed)
            continue;
        if (l->committed->expires && l->expires_mono_us != USEC_NEVER &&
            l->expires_mono_us > now.mono_us)
            left = l->expires_mono_us - now.mono_us;
        fn(cookie, l->committed, left);
    }
}

static bool node_is_listed(const struct node_entry *n, struct now now)
{
    if (n->session)
        return true;
    return n->closed_mono_us && now.mono_us < n->closed_mono_us + NODE_GRACE_US;
}

void engine_each_node(const struct engine *e, struct now now,
                      void (*fn)(void *, const struct node_view *), void *cookie)
{
    for (struct node_entry *n = e->nodes; n; n = n->hh.next) {
        struct node_view v = {.node = n->id,
                              .era = n->hello.era,
                              .host = n->hello.host,
                              .backend = n->hello.backend,
                              .connected = n->session != 0,
                              .listed = node_is_listed(n, now)};
        fn(cookie, &v);
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

static void each_report(const struct engine *e, struct now now, const struct dataset_entry *d,
                        void (*fn)(void *, const struct uuid *, const struct report *), void *cookie)
{
    for (size_t i = 0; i < d->n_reports; i++) {
        if (is_listed_id(e, now, &d->reports[i].node))
            fn(cookie, &d->reports[i].node, &d->reports[i].report);
    }
}

void engine_each_report(const struct engine *e, struct now now, const struct uuid *dataset,
                        void (*fn)(void *, const struct uuid *node, const struct report *),
                        void *cookie)
{
    const struct dataset_entry *d = dataset_entry_find(e, dataset);

    if (d)
        each_report(e, now, d, fn, cookie);
}

void engine_each_report_all(const struct engine *e, struct now now,
                            void (*fn)(void *, const struct uuid *node, const struct report *),
                            void *cookie)
{
    for (struct dataset_entry *d = e->datasets; d; d = d->hh.next)
        each_report(e, now, d, fn, cookie);
}

static void each_container_report(const struct engine *e, struct now now,
                                  const struct container_entry *c,
                                  void (*fn)(void *, const struct uuid *,
                                             const struct container_report *),
                                  void *cookie)
{
    for (size_t i = 0; i < c->n_reports; i++) {
        if (is_listed_id(e, now, &c->reports[i].node))
            fn(cookie, &c->reports[i].node, &c->reports[i].report);
    }
}

void engine_each_container_report(const struct engine *e, struct now now, const char *name,
                                  void (*fn)(void *, const struct uuid *node,
                                             const struct container_report *),
                                  void *cookie)
{
    const struct container_entry *c = container_entry_find(e, name);

    if (c)
        each_container_report(e, now, c, fn, cookie);
}

void engine_each_container_report_all(const struct engine *e, struct now now,
                                      void (*fn)(void *, const struct uuid *node,
                                                 const struct container_report *),
                                      void *cookie)
{
    for (struct container_entry *c = e->containers; c; c = c->hh.next)
        each_container_report(e, now, c, fn, cookie);
}

/* ---- reasons ---- */

/* Codes by which the engine only says which node's turn it is; that node knows more. */
static bool is_waiting_for_node(enum reason_code code)
{
    return code == REASON_CREATING || code == REASON_MOUNTING || code == REASON_COPYING ||
           code == REASON_RELEASING || code == REASON_PROMOTING || code == REASON_DELETING;
}

/* A reason that says more than "I am at it". */
static bool is_telling(const struct reason *r)
{
    return r->code != REASON_NONE && !is_waiting_for_node(r->code);
}

void engine_dataset_reason(const struct engine *e, struct now now, const struct uuid *id,
                           struct reason *ret_reason)
{
    const struct dataset_entry *entry = dataset_entry_find(e, id);
    const struct reason *best = NULL;

    (void)now;
    *ret_reason = (struct reason){0};
    if (!entry || !entry->committed)
        return;
    if (is_waiting_for_node(entry->reason.code)) {
        for (size_t i = 0; i < entry->n_reports; i++) {
            const struct reason *r = &entry->reports[i].report.reason;
            if (!dataset_has_holder(entry->committed, &entry->reports[i].node) ||
                r->code == REASON_NONE)
                continue;
            if (!best || (is_telling(r) && !is_telling(best)))
                best = r;
        }
    }
    /* "Copying" by the source is no news; an error from either side is. */
    reason_copy(ret_reason, best && is_telling(best) ? best : &entry->reason);
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
    if (!n || !node_is_listed(n, now)) {
        CLEANUP_FREE char *text = xasprintf("node %s is not connected", UUID_STR(&c->node));
        reason_set(ret_reason, REASON_NODE_DISCONNECTED, entry->since_us, 0, text);
        return;
    }
    if (r && r->run == CONTAINER_RUNNING && r->reason.code == REASON_NONE)
        return;
    if (r && r->reason.code != REASON_NONE) {
        reason_copy(ret_reason, &r->reason);
        return;
    }
    if (c->has_volume)
        reason_set(ret_reason, REASON_WAITING_FOR_DATASET, entry->since_us, 0,
                   UUID_STR(&c->dataset));
    else /* ordered, but the node has not answered yet */
        reason_set(ret_reason, REASON_WAITING_FOR_IMAGE, entry->since_us, 0, c->image);
}
