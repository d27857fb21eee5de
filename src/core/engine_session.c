/* Agents: one session a node, what they report, and time passing. */
#include "core/engine_internal.h"
#include "core/fault.h"
#include "core/plan.h"

static void refuse(struct engine *e, uint64_t session, char *text)
{
    struct effect *f = effect_push(e, EFFECT_REFUSE);

    f->session = session;
    f->text = text;
}

static void remember_era(struct engine *e, const struct hello *h)
{
    struct era_entry *entry;

    HASH_FIND(hh, e->eras, &h->era, sizeof(h->era), entry);
    if (!entry) {
        entry = xcalloc(1, sizeof(*entry));
        entry->era = h->era;
        HASH_ADD(hh, e->eras, era, sizeof(entry->era), entry);
    }
    entry->node = h->node;
}

static void hello_copy(struct hello *to, const struct hello *from)
{
    hello_done(to);
    *to = *from;
    to->version = xstrdup_null(from->version);
    to->host = xstrdup_null(from->host);
    to->backend = xstrdup_null(from->backend);
}

static void drop_dataset_reports(struct engine *e, const struct uuid *node, bool only_stale)
{
    for (size_t k = near_count(e, node, NEAR_DATASETS); k-- > 0;) {
        struct dataset_entry *entry = near_dataset(e, node, k);
        for (size_t i = 0; i < entry->n_reports; i++) {
            struct dataset_report *r = &entry->reports[i];
            if (!uuid_eq(&r->node, node) || (only_stale && !r->stale))
                continue;
            report_done(&r->report);
            *r = entry->reports[--entry->n_reports];
            effect_push_changed(e, OBJECT_DATASET, UUID_STR(&entry->id));
            if (entry->committed)
                queue_dataset(e, entry); /* it may not concern the node any more */
            index_dataset(e, entry);
            break; /* a node has one report a dataset */
        }
        dataset_entry_gc(e, entry);
    }
}

static void drop_container_reports(struct engine *e, const struct uuid *node, bool only_stale)
{
    for (size_t k = near_count(e, node, NEAR_CONTAINERS); k-- > 0;) {
        struct container_entry *entry = near_container(e, node, k);
        for (size_t i = 0; i < entry->n_reports; i++) {
            struct container_report_entry *r = &entry->reports[i];
            if (!uuid_eq(&r->node, node) || (only_stale && !r->stale))
                continue;
            container_report_done(&r->report);
            *r = entry->reports[--entry->n_reports];
            effect_push_changed(e, OBJECT_CONTAINER, entry->name);
            index_container(e, entry);
            update_dependents(e, entry->name);
            break;
        }
        container_entry_gc(e, entry);
    }
}

static void mark_reports_stale(struct engine *e, const struct uuid *node)
{
    for (size_t k = near_count(e, node, NEAR_DATASETS); k-- > 0;) {
        struct dataset_entry *d = near_dataset(e, node, k);
        for (size_t i = 0; i < d->n_reports; i++) {
            if (uuid_eq(&d->reports[i].node, node))
                d->reports[i].stale = true;
        }
    }
    for (size_t k = near_count(e, node, NEAR_CONTAINERS); k-- > 0;) {
        struct container_entry *c = near_container(e, node, k);
        for (size_t i = 0; i < c->n_reports; i++) {
            if (uuid_eq(&c->reports[i].node, node))
                c->reports[i].stale = true;
        }
    }
}

void engine_session_open(struct engine *e, struct now now, uint64_t session,
                         const struct hello *hello)
{
    struct node_entry *n = node_entry_find(e, &hello->node);

    if (hello->protocol != AGENT_PROTOCOL_VERSION) {
        refuse(e, session,
               xasprintf("the agent speaks protocol version %u, the control service %u; install "
                         "versions that fit on both",
                         hello->protocol, AGENT_PROTOCOL_VERSION));
        return;
    }
    if (n && n->session && !uuid_eq(&n->hello.era, &hello->era) && !FAULT(FORGET_ERA)) {
        refuse(e, session,
               xasprintf("two machines use the certificate of node %s: the one at %s with boot id %s "
                         "is connected, this one has boot id %s; give each machine its own",
                         UUID_STR(&hello->node), n->hello.host ? n->hello.host : "?",
                         UUID_STR(&n->hello.era), UUID_STR(&hello->era)));
        return;
    }
    if (!n) {
        n = xcalloc(1, sizeof(*n));
        n->id = hello->node;
        HASH_ADD(hh, e->nodes, id, sizeof(n->id), n);
        sorted_add(&e->node_ids, compare_node, &n->id, n);
    } else if (!uuid_eq(&n->hello.era, &hello->era)) {
        drop_dataset_reports(e, &n->id, /* only_stale= */ false); /* mounts of before the boot are gone */
        drop_container_reports(e, &n->id, /* only_stale= */ false);
    } else {
        mark_reports_stale(e, &n->id);
    }
    if (n->session)
        refuse(e, n->session, xstrdup("a newer session of the same node took over"));
    hello_copy(&n->hello, hello);
    n->has_routes = false;
    uses_forget(n);
    e->has_catalogue |= hello->volumes;
    n->space = (struct space){0};
    index_session(e, n, session);
    n->complete = false;
    n->untold |= uuid_is_nil(&hello->store);
    lists_node_left(e, now, &n->id);
    uint64_t known_until = history_end(&e->history, &hello->generation, e->revision);
    n->refuses = !uuid_is_nil(&hello->store) &&
                 (!uuid_eq(&hello->store, &e->history.store) || hello->seen_revision > known_until);
    remember_era(e, hello);
    struct effect *f = effect_push(e, EFFECT_WELCOME);
    f->session = session;
    f->welcome = (struct welcome){.protocol = AGENT_PROTOCOL_VERSION,
                                  .store = e->history.store,
                                  .revision = e->revision,
                                  .generation = history_generation(&e->history),
                                  .known = hello->generation,
                                  .known_until = known_until,
                                  .routes = true,
                                  .volumes = true,
                                  .space = true,
                                  .calls = true};
    calls_node_came(e, now, n);
    effect_push_changed(e, OBJECT_NODE, UUID_STR(&n->id));
    run_queue(e, now);
}

void queue_datasets_of(struct engine *e, const struct uuid *node)
{
    for (size_t k = near_count(e, node, NEAR_DATASETS); k-- > 0;) {
        struct dataset_entry *d = near_dataset(e, node, k);
        if (d->committed)
            queue_dataset(e, d);
    }
}

void engine_session_closed(struct engine *e, struct now now, uint64_t session)
{
    struct node_entry *n = node_of_session(e, session);

    if (!n)
        return;
    index_session(e, n, 0);
    uses_forget(n);
    n->complete = false;
    lists_node_left(e, now, &n->id);
    calls_node_left(e, n);
    n->closed_mono_us = now.mono_us;
    n->closed_wall_us = now.wall_us;
    if (now.mono_us + NODE_GRACE_US < e->grace_us)
        e->grace_us = now.mono_us + NODE_GRACE_US;
    queue_datasets_of(e, &n->id);
    queue_waiting_for_untold(e);
    effect_push_changed(e, OBJECT_NODE, UUID_STR(&n->id));
    run_queue(e, now);
}

/* A store that was restored from an older copy does not know which numbers it gave out since. No number that a node
 * has seen may be given out again. */
static void learn_numbers(struct engine *e, const struct volume_state *v)
{
    const uint64_t seen[] = {v->mark.epoch, v->mark.transfer, plan_newest_transfer(v)};
    /* No store gives out more than that after a backup: what says so is damaged, and must not use up the numbers. */
    const uint64_t top = e->head_revision + (1ull << 32);

    for (size_t i = 0; i < ARRAY_SIZE(seen); i++) {
        if (seen[i] > top)
            return;
    }
    for (size_t i = 0; i < ARRAY_SIZE(seen); i++) {
        if (seen[i] > e->head_revision)
            e->head_revision = seen[i];
    }
}

/* Another stream of the transfer begins at a lower number. */
static void note_flow(struct dataset_entry *entry, const struct uuid *node, uint64_t bytes, uint64_t now_us)
{
    const struct transfer *t = entry->committed ? &entry->committed->transfer : NULL;

    if (!t || !t->id) {
        free(steal(&entry->flow));
        return;
    }
    if (!uuid_eq(node, &t->source))
        return;
    if (!entry->flow)
        entry->flow = xcalloc(1, sizeof(*entry->flow));
    struct flow *f = entry->flow;
    if (f->transfer != t->id || bytes < f->bytes) {
        *f = (struct flow){.transfer = t->id, .bytes = bytes, .at_us = now_us};
        return;
    }
    if (bytes == f->bytes || now_us < f->at_us + FLOW_MIN_US)
        return; /* the report was about something else */
    uint64_t rate = (uint64_t)((double)(bytes - f->bytes) * USEC_PER_SEC / (double)(now_us - f->at_us));
    f->rate = f->rate ? (f->rate * 3 + rate) / 4 : rate;
    f->bytes = bytes;
    f->at_us = now_us;
}

void engine_report(struct engine *e, struct now now, uint64_t session, const struct report *report)
{
    struct node_entry *n = node_of_session(e, session);

    if (!n)
        return;
    struct dataset_entry *entry = dataset_entry_get(e, &report->volume.dataset);
    struct dataset_report *mine = NULL;
    for (size_t i = 0; i < entry->n_reports && !mine; i++) {
        if (uuid_eq(&entry->reports[i].node, &n->id))
            mine = &entry->reports[i];
    }
    if (!mine) {
        entry->reports = xrealloc(entry->reports, entry->n_reports + 1u, sizeof(*entry->reports));
        mine = &entry->reports[entry->n_reports++];
        *mine = (struct dataset_report){.node = n->id};
        index_dataset(e, entry);
    }
    note_flow(entry, &n->id, report->bytes_sent, now.mono_us);
    if (report->received && !str_equal_null(report->received_snapshot, mine->report.received_snapshot))
        entry->received_us = now.wall_us;
    report_done(&mine->report);
    report_copy(&mine->report, report);
    mine->stale = false;
    learn_numbers(e, &report->volume);
    lists_reported(e, n, entry);
    queue_dataset(e, entry);
    effect_push_changed(e, OBJECT_DATASET, UUID_STR(&entry->id));
    run_queue(e, now);
}

void engine_report_gone(struct engine *e, struct now now, uint64_t session,
                        const struct uuid *dataset)
{
    struct node_entry *n = node_of_session(e, session);
    struct dataset_entry *entry = n ? dataset_entry_find(e, dataset) : NULL;

    if (!entry)
        return;
    for (size_t i = 0; i < entry->n_reports; i++) {
        if (!uuid_eq(&entry->reports[i].node, &n->id))
            continue;
        report_done(&entry->reports[i].report);
        entry->reports[i] = entry->reports[--entry->n_reports];
        index_dataset(e, entry);
        queue_dataset(e, entry);
        effect_push_changed(e, OBJECT_DATASET, UUID_STR(dataset));
        break;
    }
    run_queue(e, now);
}

/* From then on a move, or whatever becomes of what it depends on, does not hold it back. */
static void note_start(struct engine *e, struct container_entry *entry, const struct container_report *report)
{
    bool started = report->run == CONTAINER_RUNNING || report->run == CONTAINER_EXITED;

    if (!started || report->created <= entry->started)
        return;
    entry->started = report->created;
    if (entry->committed && entry->committed->n_depends_on)
        update_container_orders(e, entry);
}

void engine_container_report(struct engine *e, struct now now, uint64_t session,
                             const struct container_report *report)
{
    struct node_entry *n = node_of_session(e, session);

    if (!n)
        return;
    struct container_entry *entry = container_entry_get(e, report->name);
    struct container_report_entry *mine = NULL;
    for (size_t i = 0; i < entry->n_reports && !mine; i++) {
        if (uuid_eq(&entry->reports[i].node, &n->id))
            mine = &entry->reports[i];
    }
    if (!mine) {
        entry->reports =
            mem_grow(entry->reports, entry->n_reports, &entry->cap_reports, sizeof(*entry->reports));
        mine = &entry->reports[entry->n_reports++];
        *mine = (struct container_report_entry){.node = n->id};
        index_container(e, entry);
    }
    container_report_done(&mine->report);
    mine->report = *report;
    mine->report.name = xstrdup(report->name);
    reason_copy(&mine->report.reason, &report->reason);
    mine->stale = false;
    effect_push_changed(e, OBJECT_CONTAINER, entry->name);
    note_start(e, entry, report);
    note_end(e, entry);
    update_dependents(e, entry->name);
    queue_volumes(e, entry->committed); /* a move may wait for the image */
    run_queue(e, now);
}

void engine_container_gone(struct engine *e, struct now now, uint64_t session, const char *name)
{
    struct node_entry *n = node_of_session(e, session);
    struct container_entry *entry = n ? container_entry_find(e, name) : NULL;

    if (!entry)
        return;
    for (size_t i = 0; i < entry->n_reports; i++) {
        if (!uuid_eq(&entry->reports[i].node, &n->id))
            continue;
        container_report_done(&entry->reports[i].report);
        entry->reports[i] = entry->reports[--entry->n_reports];
        index_container(e, entry);
        effect_push_changed(e, OBJECT_CONTAINER, name);
        update_dependents(e, name);
        break;
    }
    container_entry_gc(e, entry);
    run_queue(e, now);
}

void engine_reports_complete(struct engine *e, struct now now, uint64_t session, unsigned flags)
{
    struct node_entry *n = node_of_session(e, session);

    if (!n)
        return;
    n->storage_unknown = flags & REPORTS_STORAGE_UNKNOWN;
    n->untold &= n->storage_unknown;
    if (!n->untold)
        queue_waiting_for_untold(e);
    if (n->complete) {
        settle_all_uses(e, now, USES_UNMET_ONLY);
        queue_datasets_of(e, &n->id); /* some wait until it has told */
        lists_node_told(e, now, n);
        run_queue(e, now);
        return;
    }
    drop_dataset_reports(e, &n->id, /* only_stale= */ true);
    drop_container_reports(e, &n->id, /* only_stale= */ true);
    send_all_orders(e, n);
    n->complete = true;
    settle_all_uses(e, now, USES_UNMET_ONLY);
    lists_node_told(e, now, n);
    queue_datasets_of(e, &n->id);
    run_queue(e, now);
}

void engine_routes_report(struct engine *e, struct now now, uint64_t session, const struct routes_report *report)
{
    struct node_entry *n = node_of_session(e, session);

    (void)now;
    if (!n)
        return;
    reason_done(&n->routes.reason);
    n->routes.ports = report->ports;
    reason_copy(&n->routes.reason, &report->reason);
    n->has_routes = true;
    effect_push_changed(e, OBJECT_NODE, UUID_STR(&n->id));
}

void engine_space_report(struct engine *e, struct now now, uint64_t session,
                         const struct space *space)
{
    struct node_entry *n = node_of_session(e, session);

    (void)now;
    if (!n)
        return;
    n->space = *space;
    effect_push_changed(e, OBJECT_NODE, UUID_STR(&n->id));
}

/* ---- time ---- */

static void expire_leases(struct engine *e, struct now now)
{
    for (struct lease_entry *l; (l = next_expiring(e)) && l->expires_mono_us <= now.mono_us;) {
        propose_lease(e, l, without_acquisition(l));
        e->head_config = e->head_revision;
    }
}

static void end_graces(struct engine *e, struct now now)
{
    uint64_t next = USEC_NEVER;

    for (struct node_entry *n = e->nodes; n; n = n->hh.next) {
        uint64_t end = n->closed_mono_us + NODE_GRACE_US;
        if (n->session || !n->closed_mono_us)
            continue;
        if (now.mono_us < end) {
            next = end < next ? end : next;
            continue;
        }
        n->closed_mono_us = 0;
        effect_push_changed(e, OBJECT_NODE, UUID_STR(&n->id));
        for (size_t k = near_count(e, &n->id, NEAR_DATASETS); k-- > 0;)
            effect_push_changed(e, OBJECT_DATASET, UUID_STR(&near_dataset(e, &n->id, k)->id));
        for (size_t k = near_count(e, &n->id, NEAR_CONTAINERS); k-- > 0;)
            effect_push_changed(e, OBJECT_CONTAINER, near_container(e, &n->id, k)->name);
    }
    e->grace_us = next;
}

void engine_tick(struct engine *e, struct now now)
{
    if (e->restoring)
        index_restored(e);
    if (e->commit_retry_us > now.mono_us)
        return;
    if (e->commit_retry_us) {
        e->commit_retry_us = 0;
        queue_all_datasets(e);
        note_ends(e);
        settle_all_uses(e, now, /* flags= */ 0);
    }
    expire_leases(e, now);
    if (now.mono_us >= e->grace_us)
        end_graces(e, now);
    if (now.mono_us >= purge_deadline(e))
        purge_aged(e, now);
    if (now.mono_us >= replicas_deadline(e))
        look_at_replicas(e, now);
    if (now.mono_us >= lists_deadline(e))
        look_at_lists(e, now);
    if (now.mono_us >= calls_deadline(e))
        look_at_calls(e, now);
    run_queue(e, now);
}

uint64_t engine_deadline(const struct engine *e)
{
    const struct lease_entry *l = next_expiring(e);

    if (e->commit_retry_us)
        return e->commit_retry_us;
    uint64_t first = purge_deadline(e), replicas = replicas_deadline(e);
    if (replicas < first)
        first = replicas;
    if (lists_deadline(e) < first)
        first = lists_deadline(e);
    if (calls_deadline(e) < first)
        first = calls_deadline(e);
    if (l && l->expires_mono_us < first)
        first = l->expires_mono_us;
    return first < e->grace_us ? first : e->grace_us;
}
