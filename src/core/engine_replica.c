/* Replicas: who keeps one, for how long, and what ends it (README.md). */
#include "core/engine_internal.h"
#include "core/fault.h"

#include <stdio.h>

#define LOOK_US (3600 * (uint64_t)USEC_PER_SEC) /* by the wall clock, which may be set: it is looked at that often */

struct replica_due {
    struct uuid dataset;
    uint64_t until_us; /* wall clock */
    UT_hash_handle hh;
};

void engine_keep_replicas(struct engine *e, uint64_t age_us)
{
    e->keep_replicas_us = age_us;
}

/* ---- those that there are, by the time at which they end ---- */

static int compare_due(const void *key, const void *item)
{
    const struct replica_due *k = key, *r = item;

    if (k->until_us != r->until_us)
        return k->until_us < r->until_us ? -1 : 1;
    return uuid_cmp(&k->dataset, &r->dataset);
}

void index_replica(struct engine *e, const struct dataset_entry *entry)
{
    const struct replica *p = entry->committed ? entry->committed->replica : NULL;
    struct replica_due *due;

    HASH_FIND(hh, e->replicas, &entry->id, sizeof(entry->id), due);
    if (due && p && due->until_us == p->until_us)
        return;
    if (due) {
        sorted_remove(&e->replica_ends, compare_due, due);
        HASH_DEL(e->replicas, due);
        free(due);
    }
    if (!p)
        return;
    due = xcalloc(1, sizeof(*due));
    due->dataset = entry->id;
    due->until_us = p->until_us;
    HASH_ADD(hh, e->replicas, dataset, sizeof(due->dataset), due);
    sorted_add(&e->replica_ends, compare_due, due, due);
    e->replicas_us = 0; /* look at the next tick */
}

/* What cannot end now is looked at again when that changes, as everything is. */
void look_at_replicas(struct engine *e, struct now now)
{
    struct sorted_place place = sorted_after(&e->replica_ends, compare_due, NULL);
    uint64_t wait = LOOK_US;

    for (const struct replica_due *r; (r = sorted_next(&e->replica_ends, &place));) {
        if (r->until_us > now.wall_us) {
            wait = r->until_us - now.wall_us < wait ? r->until_us - now.wall_us : wait;
            break;
        }
        queue_dataset(e, dataset_entry_find(e, &r->dataset));
    }
    e->replicas_us = now.mono_us + wait;
}

uint64_t replicas_deadline(const struct engine *e)
{
    return e->replicas ? e->replicas_us : USEC_NEVER;
}

size_t replica_count(const struct engine *e)
{
    return HASH_COUNT(e->replicas);
}

void replicas_free(struct engine *e)
{
    struct replica_due *due, *next;

    sorted_done(&e->replica_ends);
    HASH_ITER(hh, e->replicas, due, next)
    {
        HASH_DEL(e->replicas, due);
        free(due);
    }
}

/* ---- beginning ---- */

/* Can the node have one side of a replica of the dataset? */
static bool can_keep(const struct node_entry *n, const struct dataset *d)
{
    return n && n->hello.storage == STORAGE_LOCAL &&
           (n->hello.replicas == REPLICAS_ALL || (n->hello.replicas == REPLICAS_NO_LIMIT && !d->maximum_size));
}

void replica_begin(const struct engine *e, struct now now, struct dataset *d, const struct uuid *node, const char *base)
{
    replica_end(d);
    if (!e->keep_replicas_us || !*base || !can_keep(node_entry_find(e, node), d) ||
        !can_keep(node_entry_find(e, &d->owner), d))
        return;
    d->replica = xcalloc(1, sizeof(*d->replica));
    d->replica->node = *node;
    d->replica->made_us = now.wall_us;
    d->replica->until_us = now.wall_us + e->keep_replicas_us;
    if (d->replica->until_us < now.wall_us)
        d->replica->until_us = UINT64_MAX;
    (void)snprintf(d->replica->base, sizeof(d->replica->base), "%s", base);
}

/* ---- the end ---- */

void replica_end(struct dataset *d)
{
    free(d->replica);
    d->replica = NULL;
}

/* A node that is there and can keep none (any more), or does not have the snapshot. What is not there is not judged. */
static bool is_lost_at(const struct engine *e, const struct dataset_entry *entry, const struct uuid *node)
{
    const struct dataset *d = entry->committed;
    const struct report *r = report_of(entry, node);

    if (!node_has_told(e, node))
        return false;
    if (!can_keep(node_entry_find(e, node), d))
        return true;
    if (uuid_eq(node, &d->owner) && !report_is_mounted_at(r, d->epoch))
        return false; /* it has not begun from the snapshot yet */
    return !r || !volume_state_has_snapshot(&r->volume, d->replica->base);
}

static bool is_wanted_back(const struct engine *e, const struct dataset_entry *entry, const struct uuid *node)
{
    const struct report *r = report_of(entry, node);

    return node_ready(e, node) && r && (r->space_wanted || r->volume.mark.state != MARK_RELEASED);
}

static bool is_over(const struct engine *e, const struct dataset_entry *entry, struct now now)
{
    const struct dataset *d = entry->committed;
    const struct replica *p = d->replica;

    if (d->transfer.id && uuid_eq(&d->transfer.destination, &p->node))
        return false; /* it is being made the newest copy, if nobody takes the move back */
    return !e->keep_replicas_us || is_found_different(entry) || p->until_us <= now.wall_us || is_wanted_back(e, entry, &p->node) ||
           is_lost_at(e, entry, &p->node) || is_lost_at(e, entry, &d->owner);
}

bool end_replica(struct engine *e, struct dataset_entry *entry, struct now now)
{
    if (!entry->committed->replica || !is_over(e, entry, now))
        return false;
    struct dataset *changed = dataset_copy(entry->committed);
    if (FAULT(LEAK_REPLICA))
        dataset_remove_holder(changed, &changed->replica->node);
    replica_end(changed);
    propose_dataset(e, entry, changed);
    return true;
}
