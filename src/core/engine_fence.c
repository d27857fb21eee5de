/* Nodes of which an operator has signed that they are off, and what becomes of what they owned (README.md, "Fences"). */
#include "core/engine_internal.h"
#include "core/fault.h"
#include "core/plan.h"

static struct fence_entry *fence_find(const struct engine *e, const struct uuid *node)
{
    struct fence_entry *f;

    HASH_FIND(hh, e->fences, node, sizeof(*node), f);
    return f;
}

static struct fence_entry *fence_get(struct engine *e, const struct uuid *node)
{
    struct fence_entry *f = fence_find(e, node);

    if (f)
        return f;
    f = xcalloc(1, sizeof(*f));
    f->node = *node;
    HASH_ADD(hh, e->fences, node, sizeof(f->node), f);
    return f;
}

static void fence_entry_free(struct fence_entry *f)
{
    if (f->head != f->committed)
        fence_free(f->head);
    fence_free(f->committed);
    free(f);
}

static void fence_gc(struct engine *e, struct fence_entry *f)
{
    if (f->committed || f->head || f->pending)
        return;
    HASH_DEL(e->fences, f);
    fence_entry_free(f);
}

bool node_is_fenced(const struct engine *e, const struct uuid *node)
{
    const struct fence_entry *f = fence_find(e, node);

    return f && (f->committed || f->head);
}

const struct fence *fence_of(const struct engine *e, const struct uuid *node)
{
    const struct fence_entry *f = fence_find(e, node);

    return f ? f->committed : NULL;
}

/* Does the operator's word count? One that the store has from a copy says nothing of what came after the copy was made. */
static bool is_signed_off(const struct engine *e, const struct uuid *node)
{
    const struct fence *f = fence_of(e, node);
    const struct node_entry *n = FAULT(FENCE_SILENT) ? node_entry_find(e, node) : NULL;

    return (f && f->revision > e->history.restored) || (n && !n->session);
}

/* ---- the operator's word ---- */

/* Takes `value` over; NULL = the fence ends. */
static void change_fence(struct engine *e, const struct uuid *node, struct fence *value)
{
    struct fence_entry *f = fence_get(e, node);

    propose_fence(e, node, value);
    if (f->head != f->committed)
        fence_free(f->head);
    f->head = value;
    f->pending++;
}

static bool is_known(const struct engine *e, const struct uuid *node)
{
    return node_entry_find(e, node) || fence_find(e, node) || near_count(e, node, NEAR_DATASETS) ||
           near_count(e, node, NEAR_CONTAINERS) || near_count(e, node, NEAR_LEASES);
}

static void end_leases(struct engine *e, const struct uuid *node)
{
    for (size_t k = near_count(e, node, NEAR_LEASES); k-- > 0;) {
        struct lease_entry *l = near_entry(e, node, NEAR_LEASES, k);
        if (l->head && uuid_eq(&l->head->node, node))
            propose_lease(e, l, NULL);
    }
}

enum result_code node_fence(struct engine *e, struct now now, const struct command *c, struct command_result *r)
{
    const struct node_entry *n = node_entry_find(e, &c->node);
    const struct fence_entry *known = fence_find(e, &c->node);

    if (!is_known(e, &c->node))
        return RESULT_NODE_NOT_FOUND;
    if (n && n->session) {
        r->text = xasprintf("its agent has a session, from %s", n->hello.host ? n->hello.host : "an unknown address");
        return RESULT_NODE_CONNECTED;
    }
    if (known && known->head && (known->head->revision > e->history.restored || known->pending))
        return RESULT_OK; /* it is so, and who signed first has signed */
    struct fence f = {.node = c->node,
                      .revision = next_number(e),
                      .era = n ? n->hello.era : UUID_NIL,
                      .at_us = now.wall_us,
                      .who = (char *)(uintptr_t)(c->who ? c->who : ""),
                      .why = (char *)(uintptr_t)(c->why ? c->why : "")};
    change_fence(e, &c->node, fence_copy(&f));
    end_leases(e, &c->node);
    return RESULT_OK;
}

enum result_code node_unfence(struct engine *e, const struct uuid *node)
{
    const struct fence_entry *f = fence_find(e, node);

    if (!is_known(e, node))
        return RESULT_NODE_NOT_FOUND;
    if (f && f->head)
        change_fence(e, node, NULL);
    return RESULT_OK;
}

/* What it is told, and what waits for it, depends on the fence. */
static void look_at_all_of(struct engine *e, const struct uuid *node)
{
    for (size_t k = near_count(e, node, NEAR_DATASETS); k-- > 0;) {
        struct dataset_entry *d = near_dataset(e, node, k);
        if (d->committed)
            queue_dataset(e, d);
        for (size_t i = 0; i < d->n_users; i++)
            update_container_orders(e, d->users[i]);
    }
    for (size_t k = near_count(e, node, NEAR_CONTAINERS); k-- > 0;)
        update_container_orders(e, near_container(e, node, k));
}

void committed_fence(struct engine *e, struct change *c)
{
    struct uuid node;

    (void)uuid_parse(c->key, &node);
    struct fence_entry *f = fence_find(e, &node);
    fence_free(f->committed);
    if (--f->pending == 0)
        f->committed = f->head;
    else
        f->committed = steal(&c->fence);
    fence_gc(e, f);
    look_at_all_of(e, &node);
}

void roll_back_fence(struct engine *e, const struct uuid *node)
{
    struct fence_entry *f = fence_find(e, node);

    if (!f)
        return;
    if (f->head != f->committed)
        fence_free(f->head);
    f->head = f->committed;
    f->pending = 0;
    fence_gc(e, f);
    look_at_all_of(e, node);
}

void engine_restore_fence(struct engine *e, const struct fence *fence)
{
    struct fence_entry *f = fence_get(e, &fence->node);

    f->committed = f->head = fence_copy(fence);
}

void fences_free(struct engine *e)
{
    struct fence_entry *f, *next;

    HASH_ITER (hh, e->fences, f, next) {
        HASH_DEL(e->fences, f);
        fence_entry_free(f);
    }
}

struct fenceables {
    const struct engine *engine;
    void (*fn)(void *, const struct fenceable *);
    void *cookie;
};

static void pass_fenceable(const struct fenceables *all, const struct uuid *node)
{
    const struct node_entry *n = node_entry_find(all->engine, node);
    struct fenceable item = {*node, n ? n->hello.host : NULL, n && n->session, fence_of(all->engine, node)};

    if (!item.connected || item.fence)
        all->fn(all->cookie, &item);
}

static void pass_stranger(void *cookie, const struct uuid *node)
{
    const struct fenceables *all = cookie;

    if (!uuid_is_nil(node) && !node_entry_find(all->engine, node))
        pass_fenceable(all, node);
}

void engine_each_fenceable(const struct engine *e, void (*fn)(void *, const struct fenceable *), void *cookie)
{
    struct fenceables all = {e, fn, cookie};

    for (const struct node_entry *n = e->nodes; n; n = n->hh.next)
        pass_fenceable(&all, &n->id);
    each_near_node(e, pass_stranger, &all);
    for (const struct fence_entry *f = e->fences; f; f = f->hh.next) {
        bool near = near_count(e, &f->node, NEAR_DATASETS) || near_count(e, &f->node, NEAR_CONTAINERS) ||
                    near_count(e, &f->node, NEAR_LEASES);
        if (f->committed && !near)
            pass_stranger(&all, &f->node);
    }
}

bool engine_node_is_connected(const struct engine *e, const struct uuid *node)
{
    const struct node_entry *n = node_entry_find(e, node);

    return n && n->session;
}

/* ---- its end, when the node is back ---- */

/* Has it nothing mounted and nothing running, and is nothing of it still to be freed? */
static bool is_clean(const struct engine *e, const struct uuid *node)
{
    for (size_t k = near_count(e, node, NEAR_DATASETS); k-- > 0;) {
        const struct dataset_entry *d = near_dataset(e, node, k);
        const struct report *r = report_of(d, node);
        if (d->committed && !d->committed->deleted && uuid_eq(&d->committed->owner, node))
            return false;
        if (r && r->volume.mounted)
            return false;
    }
    for (size_t k = near_count(e, node, NEAR_CONTAINERS); k-- > 0;) {
        const struct container_report *r = container_report_of(near_container(e, node, k), node);
        if (r && r->run == CONTAINER_RUNNING)
            return false;
    }
    return true;
}

/* It has a session and has told all that it has. */
static const struct node_entry *node_that_told(const struct engine *e, const struct uuid *node)
{
    const struct node_entry *n = node_entry_find(e, node);

    return n && n->session && n->complete && !n->refuses && !n->storage_unknown ? n : NULL;
}

/* Nobody knows whether it was started anew before it came. The next start shows. */
static void note_era(struct engine *e, const struct fence *f, const struct uuid *era)
{
    struct fence *changed = fence_copy(f);

    changed->era = *era;
    changed->revision = next_number(e);
    change_fence(e, &f->node, changed);
}

void look_at_fences(struct engine *e, struct now now)
{
    struct fence_entry *f, *next;

    if (e->commit_retry_us > now.mono_us)
        return;
    HASH_ITER (hh, e->fences, f, next) {
        const struct node_entry *n = f->pending || !f->committed ? NULL : node_that_told(e, &f->node);
        if (!n)
            continue;
        bool booted = !uuid_is_nil(&f->committed->era) && !uuid_eq(&f->committed->era, &n->hello.era);
        if (!is_signed_off(e, &f->node) || (booted && is_clean(e, &f->node)))
            change_fence(e, &f->node, NULL);
        else if (uuid_is_nil(&f->committed->era))
            note_era(e, f->committed, &n->hello.era);
    }
}

/* ---- what it owned ---- */

bool take_from_fenced(struct engine *e, struct dataset_entry *entry, struct now now)
{
    const struct dataset *d = entry->committed;

    if (d->deleted || uuid_is_nil(&d->owner) || !is_signed_off(e, &d->owner) || is_doubted(e, d))
        return false;
    if (!d->born && is_of_copy(e, d))
        return false; /* it may be all that was written */
    struct dataset *changed = dataset_copy(d);
    if (d->born) {
        dataset_add_fenced(changed, &d->owner);
        changed->fenced->freed = d->epoch;
        changed->fenced->freed_us = now.wall_us;
        changed->fenced->transfer = d->transfer.id;
        changed->fenced->destination = d->transfer.destination;
    }
    changed->owner = UUID_NIL;
    if (!FAULT(FENCE_SAME_EPOCH))
        changed->epoch = changed->number = next_number(e);
    changed->recalled = false;
    changed->transfer = (struct transfer){0};
    propose_dataset(e, entry, changed);
    return true;
}

/* The copy that another node has, and what it is. */
struct rescue {
    const struct uuid *node; /* NULL = there is none */
    const char *snapshot;
    uint64_t made_us; /* wall clock; 0 = not known */
    bool arrived;     /* by a move that was on its way; else it was kept since an earlier move */
    bool whole;       /* the source had stopped writing before */
    const struct uuid *away; /* a node that may have a better one does not tell */
};

/* By a snapshot of the transfer that came to its destination. */
static void look_at_arrived(const struct engine *e, const struct dataset_entry *entry, const struct uuid *to, uint64_t transfer,
                            struct rescue *ret)
{
    const struct dataset *d = entry->committed;
    const struct report *r = report_of(entry, to);

    if (!transfer || node_is_fenced(e, to) || dataset_is_fenced(d, to))
        return;
    if (!node_has_told(e, to)) {
        ret->away = to;
        return;
    }
    const char *newest = r ? plan_received(&r->volume, transfer) : NULL;
    if (!newest)
        return;
    ret->node = to;
    ret->snapshot = newest;
    ret->arrived = true;
    ret->whole = plan_is_final(newest);
}

/* By the snapshot from which the last owner began. */
static void look_at_kept(const struct engine *e, const struct dataset_entry *entry, struct rescue *ret)
{
    const struct dataset *d = entry->committed;
    const char *base = d->replica ? d->replica->base : d->base;

    for (size_t i = 0; base && i < d->n_holders; i++) {
        const struct uuid *node = &d->holders[i];
        const struct report *r = report_of(entry, node);
        if (node_is_fenced(e, node) || dataset_is_fenced(d, node) || uuid_eq(node, &d->owner))
            continue;
        if (!node_has_told(e, node)) {
            ret->away = node;
        } else if (r && volume_state_has_snapshot(&r->volume, base)) {
            ret->node = node;
            ret->away = NULL; /* who has the same is not needed */
            ret->snapshot = base;
            ret->made_us = dataset_is_replica(d, node) ? d->replica->made_us : 0;
            return;
        }
    }
}

static struct rescue find_rescue(const struct engine *e, const struct dataset_entry *entry, const struct uuid *destination,
                                 uint64_t transfer)
{
    struct rescue found = {0};

    look_at_arrived(e, entry, destination, transfer, &found);
    if (!found.node && !found.away)
        look_at_kept(e, entry, &found);
    return found;
}

/* It has an owner again. */
static void grant(struct engine *e, struct dataset_entry *entry, const struct uuid *node, const char *base)
{
    const struct dataset *d = entry->committed;
    struct dataset *changed = dataset_copy(d);
    bool back = uuid_eq(node, dataset_freed_from(d));

    dataset_end_freed(changed);
    dataset_remove_fenced(changed, node);
    changed->owner = *node;
    changed->epoch = changed->number = next_number(e);
    changed->recalled = back; /* until it has taken the new epoch */
    free(changed->base);
    changed->base = xstrdup_null(base);
    if (!back)
        replica_end(changed);
    dataset_add_holder(changed, node);
    propose_dataset(e, entry, changed);
}

/* The fence is over before another node got the dataset: it is that node's again, with all that was written there. */
static void give_back(struct engine *e, struct dataset_entry *entry, struct now now, const struct uuid *from)
{
    const struct dataset *d = entry->committed;
    const struct report *r = report_of(entry, from);

    if (!node_has_told(e, from)) {
        because_absent(e, entry, now, REASON_OWNER_DISCONNECTED, "owner", from);
        return;
    }
    const struct volume_mark *mark = r ? &r->volume.mark : NULL;
    bool begun = mark && mark->epoch == d->fenced->freed && mark->state != MARK_PROMOTING;
    if (begun && r->volume.present)
        grant(e, entry, from, NULL);
    else if (!begun && d->base && r && volume_state_has_snapshot(&r->volume, d->base))
        grant(e, entry, from, d->base);
    else if (r && r->volume.present && !d->base)
        grant(e, entry, from, NULL); /* granted on shared storage, and not mounted yet */
    else
        becausef(entry, now, REASON_DATA_MISSING,
                 "node %s is back without the data; 'flockerctl adopt DATASET --node NODE' takes what another node has",
                 UUID_STR(from));
}

static void because_fenced(const struct engine *e, struct dataset_entry *entry, struct now now, const char *then)
{
    const struct uuid *node = &entry->committed->primary;
    const struct fence *f = fence_of(e, node);

    becausef(entry, now, REASON_NODE_FENCED, "it is wanted on node %s, which %s%s%s; %s", UUID_STR(node),
             node_absence(e, node), f && *f->who ? ", as signed by " : "", f ? f->who : "", then);
}

/* Where it is wanted, on storage that node shares with the one that is off. */
static void attach_elsewhere(struct engine *e, struct dataset_entry *entry, struct now now)
{
    const struct dataset *d = entry->committed;
    const struct report *r = report_of(entry, &d->primary);

    if (node_is_fenced(e, &d->primary)) {
        because_fenced(e, entry, now, "its volume can be attached to another node");
    } else if (!node_ready(e, &d->primary)) {
        because_absent(e, entry, now, REASON_NODE_DISCONNECTED, "node", &d->primary);
    } else if (!dataset_has_holder(d, &d->primary)) {
        struct dataset *changed = dataset_copy(d); /* so that it says whether it sees the volume */
        dataset_add_holder(changed, &d->primary);
        propose_dataset(e, entry, changed);
    } else if (!r) {
        becausef(entry, now, REASON_MOUNTING, "node %s looks for the volume", UUID_STR(&d->primary));
    } else if (!r->volume.present) {
        becausef(entry, now, REASON_CANNOT_MOVE, "node %s does not share the storage of node %s, which is fenced",
                 UUID_STR(&d->primary), UUID_STR(dataset_freed_from(d)));
    } else {
        grant(e, entry, &d->primary, NULL);
    }
}

/* From what another node has of it. */
static void promote_elsewhere(struct engine *e, struct dataset_entry *entry, struct now now)
{
    const struct dataset *d = entry->committed;
    struct rescue found = find_rescue(e, entry, &d->fenced->destination, d->fenced->transfer);

    if (!found.node && !found.away)
        becausef(entry, now, REASON_DATA_ON_FENCED_NODE, "the data are only on node %s, which %s",
                 UUID_STR(dataset_freed_from(d)), node_absence(e, dataset_freed_from(d)));
    else if (found.away)
        because_absent(e, entry, now, REASON_NODE_DISCONNECTED, "what may be the newest copy is on a node that does not answer:",
                       found.away);
    else if (node_is_fenced(e, &d->primary))
        because_fenced(e, entry, now, "moved to another node it begins there from the newest copy that a node has");
    else if (!node_ready(e, &d->primary))
        because_absent(e, entry, now, REASON_NODE_DISCONNECTED, "node", &d->primary);
    else
        grant(e, entry, found.node, found.snapshot);
}

/* Of what kind its storage is: the node that is off may not have been here since the control service started. */
static bool is_attachable(const struct engine *e, const struct dataset *d, const struct uuid *from)
{
    const struct node_entry *n = node_entry_find(e, from);

    if (!n)
        n = node_entry_find(e, &d->primary);
    if (n)
        return n->hello.storage == STORAGE_ATTACHABLE;
    for (n = e->nodes; n; n = n->hh.next) {
        if (n->hello.storage == STORAGE_ATTACHABLE)
            return true;
    }
    return false;
}

/* An operator says who has it, if anybody does. */
static void because_freed_in_copy(const struct engine *e, struct dataset_entry *entry, struct now now)
{
    if (e->history.unsettled || is_anywhere(entry))
        because(entry, now, REASON_STORE_UNKNOWN,
                "the store was put back from a copy that was made while nobody owned the dataset");
    else
        because(entry, now, REASON_DATA_MISSING,
                "the store was put back from a copy that was made while nobody owned the dataset, and no node that is here has "
                "anything of it");
}

void reconcile_freed(struct engine *e, struct dataset_entry *entry, struct now now)
{
    const struct dataset *d = entry->committed;
    const struct uuid *from = dataset_freed_from(d);
    const struct node_entry *n = node_entry_find(e, from);
    const struct report *r = report_of(entry, from);

    if (is_of_copy(e, d)) {
        because_freed_in_copy(e, entry, now);
    } else if (d->dropped) {
        because(entry, now, REASON_NONE, NULL);
    } else if (!is_signed_off(e, from)) {
        give_back(e, entry, now, from);
    } else if (n && n->session && (!n->complete || (r && r->volume.mounted)) && !FAULT(KEEP_FENCED_MOUNT)) {
        becausef(entry, now, REASON_NODE_FENCED, "node %s is fenced, but here, and %s", UUID_STR(from),
                 n->complete ? "still has it mounted: that ends first" : "has not told yet what it has");
    } else if (is_attachable(e, d, from)) {
        attach_elsewhere(e, entry, now);
    } else {
        promote_elsewhere(e, entry, now);
    }
}

bool keeps_copy(const struct engine *e, const struct dataset *d, const struct uuid *node)
{
    const struct node_entry *n = node_entry_find(e, node);

    return dataset_is_fenced(d, node) && n && n->hello.storage == STORAGE_LOCAL && !FAULT(DROP_FENCED);
}

void note_kept_copies(const struct engine *e, struct dataset_entry *entry, struct now now)
{
    const struct dataset *d = entry->committed;

    for (size_t i = 0; d->fenced && i < d->fenced->n_nodes; i++) {
        const struct uuid *node = &d->fenced->nodes[i];
        const struct report *r = report_of(entry, node);
        if (!keeps_copy(e, d, node) || !node_that_told(e, node) || !r || volume_state_is_empty(&r->volume))
            continue;
        becausef(entry, now, REASON_COPY_KEPT,
                 "node %s keeps, unused, what it had of the dataset when it was fenced; what was written there last is only in it",
                 UUID_STR(node));
        return;
    }
}

enum result_code copy_drop(struct engine *e, const struct command *c, struct command_result *r)
{
    struct dataset_entry *entry = dataset_entry_find(e, &c->dataset_id);

    if (!entry || !is_configured(entry->head))
        return RESULT_DATASET_NOT_FOUND;
    if (!dataset_is_fenced(entry->head, &c->node) || is_attachable(e, entry->head, &c->node))
        return RESULT_COPY_NOT_FOUND;
    if (uuid_is_nil(&entry->head->owner))
        return RESULT_COPY_NEEDED;
    struct dataset *d = dataset_copy(entry->head);
    dataset_remove_fenced(d, &c->node);
    propose_dataset(e, entry, d);
    r->dataset = dataset_copy(entry->head);
    return RESULT_OK;
}

/* ---- what a fence would do ---- */

static void preview_local(const struct engine *e, const struct dataset_entry *entry, struct fence_item *item)
{
    const struct dataset *d = entry->committed;
    bool freed = dataset_freed_from(d) != NULL;
    struct rescue found = find_rescue(e, entry, freed ? &d->fenced->destination : &d->transfer.destination,
                                      freed ? d->fenced->transfer : d->transfer.id);

    if (!found.node) {
        item->fate = found.away ? FATE_ASKS_NODE : FATE_ONLY_THERE;
        item->from = found.away ? *found.away : UUID_NIL;
        return;
    }
    item->fate = found.arrived ? found.whole ? FATE_WHOLE_COPY : FATE_HALF_MOVE : FATE_REPLICA;
    item->from = *found.node;
    item->snapshot = found.snapshot;
    item->made_us = found.arrived ? entry->received_us : found.made_us;
}

void engine_preview_fence(const struct engine *e, const struct uuid *node, void (*fn)(void *, const struct fence_item *),
                          void *cookie)
{
    for (size_t k = near_count(e, node, NEAR_DATASETS); k-- > 0;) {
        const struct dataset_entry *entry = near_dataset(e, node, k);
        const struct dataset *d = entry->committed;
        const struct uuid *freed = d ? dataset_freed_from(d) : NULL;
        if (!is_configured(d) || d->deleted || !(uuid_eq(&d->owner, node) || (freed && uuid_eq(freed, node))))
            continue;
        struct fence_item item = {.dataset = d};
        if (!d->born)
            item.fate = FATE_UNWRITTEN;
        else if (is_of_copy(e, d) && (freed || is_doubted(e, d)))
            item.fate = FATE_UNKNOWN;
        else if (is_attachable(e, d, node))
            item.fate = FATE_ATTACH;
        else
            preview_local(e, entry, &item);
        fn(cookie, &item);
    }
}

bool engine_node_is_known(const struct engine *e, const struct uuid *node)
{
    return is_known(e, node);
}

const struct fence *engine_fence(const struct engine *e, const struct uuid *node)
{
    return fence_of(e, node);
}
