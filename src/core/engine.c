#include "core/engine_internal.h"
#include "core/fault.h"

/* ---- effects ---- */

struct effect *effect_push(struct engine *e, enum effect_kind kind)
{
    struct effect *f = xcalloc(1, sizeof(*f));

    f->kind = kind;
    *e->effects_last = f;
    e->effects_last = &f->next;
    return f;
}

void effect_push_changed(struct engine *e, enum object_kind kind, const char *key)
{
    struct effect *f = effect_push(e, EFFECT_CHANGED);

    f->object = kind;
    f->name = xstrdup(key);
}

struct effect *engine_next(struct engine *e)
{
    struct effect *f = e->effects_first;

    if (!f)
        return NULL;
    e->effects_first = f->next;
    if (!e->effects_first)
        e->effects_last = &e->effects_first;
    f->next = NULL;
    return f;
}

void command_result_done(struct command_result *r)
{
    dataset_free(r->dataset);
    container_free(r->container);
    lease_done(&r->lease);
    free(r->text);
    *r = (struct command_result){0};
}

struct effect *effect_free(struct effect *f)
{
    if (!f)
        return NULL;
    command_result_done(&f->result);
    order_done(&f->order);
    container_order_done(&f->container_order);
    route_done(&f->route);
    sighting_done(&f->sighting);
    free(f->name);
    free(f->text);
    free(f);
    return NULL;
}

/* ---- entries ---- */

struct dataset_entry *dataset_entry_find(const struct engine *e, const struct uuid *id)
{
    struct dataset_entry *entry;

    HASH_FIND(hh, e->datasets, id, sizeof(*id), entry);
    return entry;
}

struct dataset_entry *dataset_entry_get(struct engine *e, const struct uuid *id)
{
    struct dataset_entry *entry = dataset_entry_find(e, id);

    if (entry)
        return entry;
    entry = xcalloc(1, sizeof(*entry));
    entry->id = *id;
    HASH_ADD(hh, e->datasets, id, sizeof(entry->id), entry);
    if (!e->restoring)
        sorted_add(&e->dataset_ids, compare_dataset, &entry->id, entry);
    return entry;
}

static void dataset_entry_free(struct dataset_entry *entry)
{
    if (entry->head != entry->committed)
        dataset_free(entry->head);
    dataset_free(entry->committed);
    for (size_t i = 0; i < entry->n_reports; i++)
        report_done(&entry->reports[i].report);
    reason_done(&entry->reason);
    free(entry->near.links);
    free(entry->users);
    free(entry->sent);
    free(entry->reports);
    free(entry->flow);
    comparison_free(entry->comparison);
    free(entry);
}

void dataset_entry_gc(struct engine *e, struct dataset_entry *entry)
{
    if (entry->committed || entry->head || entry->pending || entry->n_reports || entry->queued ||
        entry->n_users)
        return;
    index_dataset(e, entry);
    sorted_remove(&e->dataset_ids, compare_dataset, &entry->id);
    HASH_DEL(e->datasets, entry);
    dataset_entry_free(entry);
}

struct container_entry *container_entry_find(const struct engine *e, const char *name)
{
    struct container_entry *entry;

    HASH_FIND_STR(e->containers, name, entry);
    return entry;
}

struct container_entry *container_entry_get(struct engine *e, const char *name)
{
    struct container_entry *entry = container_entry_find(e, name);

    if (entry)
        return entry;
    entry = xcalloc(1, sizeof(*entry));
    entry->name = xstrdup(name);
    HASH_ADD_KEYPTR(hh, e->containers, entry->name, strlen(entry->name), entry);
    sorted_add(&e->container_names, compare_container, entry->name, entry);
    return entry;
}

static void container_entry_free(struct container_entry *entry)
{
    for (size_t i = 0; i < entry->n_depends; i++)
        free(entry->depends[i]);
    free(entry->depends);
    free(entry->uses);
    if (entry->head != entry->committed)
        container_free(entry->head);
    container_free(entry->committed);
    for (size_t i = 0; i < entry->n_reports; i++)
        container_report_done(&entry->reports[i].report);
    free(entry->near.links);
    free(entry->sent);
    free(entry->reports);
    free(entry->routed);
    free(entry->name);
    free(entry);
}

void container_entry_gc(struct engine *e, struct container_entry *entry)
{
    if (entry->committed || entry->head || entry->pending || entry->n_reports)
        return;
    index_container(e, entry);
    sorted_remove(&e->container_names, compare_container, entry->name);
    HASH_DEL(e->containers, entry);
    container_entry_free(entry);
}

struct lease_entry *lease_entry_find(const struct engine *e, const struct uuid *dataset)
{
    struct lease_entry *entry;

    HASH_FIND(hh, e->leases, dataset, sizeof(*dataset), entry);
    return entry;
}

struct lease_entry *lease_entry_get(struct engine *e, const struct uuid *dataset)
{
    struct lease_entry *entry = lease_entry_find(e, dataset);

    if (entry)
        return entry;
    entry = xcalloc(1, sizeof(*entry));
    entry->dataset = *dataset;
    HASH_ADD(hh, e->leases, dataset, sizeof(entry->dataset), entry);
    sorted_add(&e->lease_ids, compare_lease, &entry->dataset, entry);
    return entry;
}

static void lease_entry_free(struct lease_entry *entry)
{
    if (entry->head != entry->committed)
        lease_free(entry->head);
    lease_free(entry->committed);
    free(entry->near.links);
    free(entry);
}

static void lease_entry_gc(struct engine *e, struct lease_entry *entry)
{
    if (entry->committed || entry->head || entry->pending)
        return;
    index_lease(e, entry);
    sorted_remove(&e->lease_ids, compare_lease, &entry->dataset);
    HASH_DEL(e->leases, entry);
    lease_entry_free(entry);
}

struct node_entry *node_entry_find(const struct engine *e, const struct uuid *id)
{
    struct node_entry *entry;

    HASH_FIND(hh, e->nodes, id, sizeof(*id), entry);
    return entry;
}

/* ---- collecting changes ---- */

static struct engine_batch *next_batch(struct engine *e)
{
    if (!e->next) {
        e->next = xcalloc(1, sizeof(*e->next));
        e->next->batch.id = ++e->next_batch;
    }
    return e->next;
}

static struct change *add_change(struct engine *e, enum object_kind kind, char *key)
{
    struct engine_batch *b = next_batch(e);

    b->batch.changes = mem_grow(b->batch.changes, b->batch.n, &b->cap, sizeof(*b->batch.changes));
    struct change *c = &b->batch.changes[b->batch.n++];
    *c = (struct change){.revision = ++e->head_revision, .kind = kind, .key = key};
    return c;
}

void propose_dataset(struct engine *e, struct dataset_entry *entry, struct dataset *value)
{
    struct change *c = add_change(e, OBJECT_DATASET, xstrdup(UUID_STR(&entry->id)));

    if (value) {
        value->revision = c->revision;
        c->dataset = dataset_copy(value);
        e->uses_unmet |= !entry->head;
    }
    if (entry->head != entry->committed)
        dataset_free(entry->head);
    entry->head = value;
    entry->pending++;
}

void propose_container(struct engine *e, struct container_entry *entry, struct container *value)
{
    struct change *c = add_change(e, OBJECT_CONTAINER, xstrdup(entry->name));

    if (value) {
        value->revision = c->revision;
        c->container = container_copy(value);
    }
    if (entry->head != entry->committed)
        container_free(entry->head);
    entry->head = value;
    entry->pending++;
    index_container(e, entry);
}

void propose_lease(struct engine *e, struct lease_entry *entry, struct lease *value)
{
    struct change *c = add_change(e, OBJECT_LEASE, xstrdup(UUID_STR(&entry->dataset)));

    if (value) {
        value->revision = c->revision;
        c->lease = lease_dup(value);
    }
    c->expires_mono_us = entry->expires_mono_us;
    if (entry->head != entry->committed)
        lease_free(entry->head);
    entry->head = value;
    entry->pending++;
    index_lease(e, entry);
}

void propose_cordon(struct engine *e, const struct uuid *node, bool cordoned)
{
    struct change *c = add_change(e, OBJECT_NODE, xstrdup(UUID_STR(node)));

    if (cordoned)
        c->cordon = xmemdup(&(struct cordon){.node = *node, .revision = c->revision}, sizeof(struct cordon));
}

void propose_fence(struct engine *e, const struct uuid *node, struct fence *value)
{
    struct change *c = add_change(e, OBJECT_FENCE, xstrdup(UUID_STR(node)));

    if (!value)
        return;
    value->revision = c->revision;
    c->fence = fence_copy(value);
}

void propose_settled(struct engine *e)
{
    (void)add_change(e, OBJECT_STORE, xstrdup("restored"));
}

void reply_later(struct engine *e, uint64_t command, struct command_result *result)
{
    struct engine_batch *b = e->next ? e->next : e->in_flight;

    if (!b || FAULT(EARLY_REPLY)) {
        struct effect *f = effect_push(e, EFFECT_REPLY);
        f->command = command;
        f->result = *result;
    } else {
        b->replies = mem_grow(b->replies, b->n_replies, &b->cap_replies, sizeof(*b->replies));
        b->replies[b->n_replies++] = (struct waiting_reply){command, *result};
    }
    *result = (struct command_result){0};
}

static void batch_free(struct engine_batch *b)
{
    if (!b)
        return;
    for (size_t i = 0; i < b->batch.n; i++) {
        free(b->batch.changes[i].key);
        dataset_free(b->batch.changes[i].dataset);
        container_free(b->batch.changes[i].container);
        lease_free(b->batch.changes[i].lease);
        free(b->batch.changes[i].cordon);
        fence_free(b->batch.changes[i].fence);
    }
    for (size_t i = 0; i < b->n_replies; i++)
        command_result_done(&b->replies[i].result);
    free(b->batch.changes);
    free(b->replies);
    free(b);
}

void engine_flush(struct engine *e, struct now now)
{
    (void)now;
    if (e->in_flight || !e->next)
        return;
    e->in_flight = e->next;
    e->next = NULL;
    effect_push(e, EFFECT_COMMIT)->batch = &e->in_flight->batch;
}

/* ---- commits ---- */

static void committed_dataset(struct engine *e, struct change *c)
{
    struct uuid id;

    (void)uuid_parse(c->key, &id); /* we made this key */
    struct dataset_entry *entry = dataset_entry_find(e, &id);
    bool was_deleted = entry->committed && entry->committed->deleted;
    dataset_free(entry->committed);
    if (--entry->pending == 0)
        entry->committed = entry->head;
    else
        entry->committed = steal(&c->dataset);
    if (!was_deleted && entry->committed && entry->committed->deleted)
        purge_note(e, entry->committed);
    index_dataset(e, entry);
    queue_dataset(e, entry);
    const struct container_entry *user = container_using(e, &id, /* committed= */ true);
    if (!user)
        return;
    update_container_orders(e, container_entry_get(e, user->name));
    queue_volumes(e, user->committed); /* they may have waited for this one */
}

static void committed_container(struct engine *e, struct now now, struct change *c)
{
    struct container_entry *entry = container_entry_find(e, c->key);

    queue_volumes(e, entry->committed);
    container_free(entry->committed);
    if (--entry->pending == 0)
        entry->committed = entry->head;
    else
        entry->committed = steal(&c->container);
    index_container(e, entry);
    entry->since_us = now.wall_us;
    update_container_orders(e, entry);
    update_dependents(e, entry->name);
    queue_volumes(e, entry->committed);
    note_end(e, entry);
    container_entry_gc(e, entry);
}

static void committed_lease(struct engine *e, struct change *c)
{
    struct uuid id;

    (void)uuid_parse(c->key, &id);
    struct lease_entry *entry = lease_entry_find(e, &id);
    lease_free(entry->committed);
    if (--entry->pending == 0)
        entry->committed = entry->head;
    else
        entry->committed = steal(&c->lease);
    entry->committed_expires_mono_us = c->expires_mono_us;
    index_lease(e, entry);
    struct dataset_entry *d = dataset_entry_find(e, &id);
    if (d)
        queue_dataset(e, d);
    lease_entry_gc(e, entry);
}

static void committed_settled(struct engine *e)
{
    e->history.unsettled = false;
    queue_all_datasets(e);
}

void engine_committed(struct engine *e, struct now now, uint64_t batch)
{
    struct engine_batch *b = e->in_flight;

    if (!b || b->batch.id != batch)
        return;
    bool works_again = e->commit_retry_us != 0;
    e->in_flight = NULL;
    e->commit_failures = 0;
    free(e->commit_error);
    e->commit_error = NULL;
    if (works_again)
        queue_all_datasets(e);
    e->commit_retry_us = 0;
    for (size_t i = 0; i < b->batch.n; i++) {
        struct change *c = &b->batch.changes[i];
        e->revision = c->revision;
        if (c->kind != OBJECT_STORE)
            effect_push_changed(e, c->kind == OBJECT_FENCE ? OBJECT_NODE : c->kind, c->key);
        if (c->kind == OBJECT_DATASET)
            committed_dataset(e, c);
        else if (c->kind == OBJECT_CONTAINER)
            committed_container(e, now, c);
        else if (c->kind == OBJECT_LEASE)
            committed_lease(e, c);
        else if (c->kind == OBJECT_NODE)
            committed_cordon(e, c);
        else if (c->kind == OBJECT_FENCE)
            committed_fence(e, c);
        else
            committed_settled(e);
    }
    e->config = e->head_config < e->revision ? e->head_config : e->revision;
    for (size_t i = 0; i < b->n_replies; i++) {
        struct effect *f = effect_push(e, EFFECT_REPLY);
        f->command = b->replies[i].command;
        f->result = b->replies[i].result;
        b->replies[i].result = (struct command_result){0};
    }
    batch_free(b);
    settle_all_uses(e, now, works_again ? 0 : USES_UNMET_ONLY);
    if (works_again)
        note_ends(e);
    run_queue(e, now);
}

static void roll_back(struct engine *e, struct engine_batch *b, const char *text)
{
    for (size_t i = 0; i < b->n_replies; i++) {
        struct effect *f = effect_push(e, EFFECT_REPLY);
        f->command = b->replies[i].command;
        f->result.code = RESULT_STORE_FAILED;
        f->result.text = xstrdup(text);
    }
    for (size_t i = 0; i < b->batch.n; i++) {
        struct change *c = &b->batch.changes[i];
        struct uuid id = UUID_NIL;
        if (c->kind != OBJECT_CONTAINER)
            (void)uuid_parse(c->key, &id);
        if (c->kind == OBJECT_STORE)
            continue; /* it is what it was */
        if (c->kind == OBJECT_DATASET) {
            struct dataset_entry *entry = dataset_entry_find(e, &id);
            if (!entry)
                continue;
            if (entry->head != entry->committed)
                dataset_free(entry->head);
            entry->head = entry->committed;
            entry->pending = 0;
            if (entry->committed)
                queue_dataset(e, entry);
            dataset_entry_gc(e, entry);
        } else if (c->kind == OBJECT_CONTAINER) {
            struct container_entry *entry = container_entry_find(e, c->key);
            if (!entry)
                continue;
            if (entry->head != entry->committed)
                container_free(entry->head);
            entry->head = entry->committed;
            entry->pending = 0;
            index_container(e, entry);
            container_entry_gc(e, entry);
        } else if (c->kind == OBJECT_NODE) {
            roll_back_cordon(e, &id);
        } else if (c->kind == OBJECT_FENCE) {
            roll_back_fence(e, &id);
        } else {
            struct lease_entry *entry = lease_entry_find(e, &id);
            if (!entry)
                continue;
            if (entry->head != entry->committed)
                lease_free(entry->head);
            entry->head = entry->committed;
            entry->expires_mono_us = entry->committed_expires_mono_us;
            entry->pending = 0;
            index_lease(e, entry);
            lease_entry_gc(e, entry);
        }
    }
}

/* What was collected meanwhile was computed on top of the batch that failed: it fails with it. Numbers that were
 * given out are not used again. */
void engine_commit_failed(struct engine *e, struct now now, uint64_t batch, const char *text)
{
    struct engine_batch *b = e->in_flight, *n = e->next;
    struct backoff wait = {.failures = e->commit_failures};

    if (!b || b->batch.id != batch)
        return;
    e->in_flight = NULL;
    e->next = NULL;
    backoff_fail(&wait, now.mono_us, &e->random);
    e->commit_failures = wait.failures;
    e->commit_retry_us = wait.next_us;
    free(e->commit_error);
    e->commit_error = xstrdup_null(text);
    roll_back(e, b, text);
    if (n)
        roll_back(e, n, text);
    e->head_config = e->config;
    batch_free(b);
    batch_free(n);
    run_queue(e, now);
}

/* ---- life ---- */

struct engine *engine_new(const struct history *history, uint64_t revision, struct random random)
{
    struct engine *e = xcalloc(1, sizeof(*e));

    history_copy(&e->history, history);
    e->random = random;
    e->revision = e->head_revision = revision;
    e->config = e->head_config = revision;
    e->grace_us = USEC_NEVER;
    e->lists_us = e->calls_us = USEC_NEVER;
    e->call_limits = CALL_BUDGET;
    e->list_every_us = LIST_EVERY_US;
    e->queue_last = &e->queue_first;
    e->effects_last = &e->effects_first;
    return e;
}

struct engine *engine_free(struct engine *e)
{
    struct dataset_entry *d, *d2;
    struct container_entry *c, *c2;
    struct lease_entry *l, *l2;
    struct node_entry *n, *n2;
    struct era_entry *a, *a2;

    if (!e)
        return NULL;
    for (struct effect *f = engine_next(e); f; f = engine_next(e))
        effect_free(f);
    batch_free(e->in_flight);
    batch_free(e->next);
    free(e->commit_error);
    history_done(&e->history);
    routes_free(e);
    lists_free(e);
    calls_free(e);
    cordons_free(e);
    fences_free(e);
    index_free(e);
    replicas_free(e);
    dependencies_free(e);
    free(e->deletions);
    HASH_ITER(hh, e->datasets, d, d2)
    {
        HASH_DEL(e->datasets, d);
        dataset_entry_free(d);
    }
    HASH_ITER(hh, e->containers, c, c2)
    {
        HASH_DEL(e->containers, c);
        container_entry_free(c);
    }
    HASH_ITER(hh, e->leases, l, l2)
    {
        HASH_DEL(e->leases, l);
        lease_entry_free(l);
    }
    HASH_ITER(hh, e->nodes, n, n2)
    {
        HASH_DEL(e->nodes, n);
        hello_done(&n->hello);
        uses_forget(n);
        reason_done(&n->routes.reason);
        free(n);
    }
    HASH_ITER(hh, e->eras, a, a2)
    {
        HASH_DEL(e->eras, a);
        free(a);
    }
    free(e);
    return NULL;
}

void engine_restore_dataset(struct engine *e, struct dataset *d)
{
    e->restoring = true;
    struct dataset_entry *entry = dataset_entry_get(e, &d->id);
    entry->committed = entry->head = d;
    if (d->deleted)
        purge_note(e, d);
    index_dataset(e, entry);
    queue_dataset(e, entry);
}

void engine_restore_container(struct engine *e, struct container *c)
{
    struct container_entry *entry = container_entry_get(e, c->name);

    entry->committed = entry->head = c;
    index_container(e, entry);
}

void engine_restore_lease(struct engine *e, struct now now, const struct lease *l)
{
    struct lease_entry *entry = lease_entry_get(e, &l->dataset);
    uint64_t left = 0;

    entry->committed = entry->head = lease_dup(l);
    if (l->expires && l->expires_wall_us > now.wall_us)
        left = l->expires_wall_us - now.wall_us;
    entry->expires_mono_us = l->expires ? now.mono_us + left : USEC_NEVER;
    entry->committed_expires_mono_us = entry->expires_mono_us;
    index_lease(e, entry);
}
