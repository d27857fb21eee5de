/* Comparisons of a replica with what its owner has, as somebody asked for: `flockerctl verify`. The wish is kept in memory only.
 * It changes nothing that has to last: one that is lost with the process is ordered no more, so both nodes let it be, and whoever
 * asked sees that it is not known any more and asks again. What a comparison found must not be lost: the node of a replica that
 * differs deletes its snapshot before the owner reports, and a replica without its snapshot ends (engine_replica.c). */
#include "core/engine_internal.h"
#include "core/fault.h"

#include <stdio.h>

/* Beyond all revisions, so that no transfer has it, and exact as a number of JSON everywhere. */
#define NUMBER_BITS 52

struct comparison *comparison_free(struct comparison *c)
{
    if (c)
        free(c->text);
    free(c);
    return NULL;
}

const struct comparison *engine_comparison(const struct engine *e, const struct uuid *dataset)
{
    const struct dataset_entry *entry = dataset_entry_find(e, dataset);

    return entry ? entry->comparison : NULL;
}

static bool runs(const struct dataset_entry *entry)
{
    return entry->comparison && entry->comparison->end == COMPARISON_RUNS;
}

/* Is that what the record says to be the replica, and who owns the dataset? */
static bool is_of_record(const struct comparison *c, const struct dataset *d)
{
    return d->replica && uuid_eq(&d->replica->node, &c->node) && streq(d->replica->base, c->snapshot) &&
           uuid_eq(&d->owner, &c->owner);
}

/* Why the node cannot take part; NULL: it can. */
static char *why_not_with(const struct engine *e, const char *what, const struct uuid *node)
{
    const struct node_entry *n = node_entry_find(e, node);

    if (!node_ready(e, node))
        return xasprintf("%s %s %s", what, UUID_STR(node), node_absence(e, node));
    if (!n->hello.compares)
        return xasprintf("the agent of %s %s is of an older release that cannot compare when asked: update it", what,
                         UUID_STR(node));
    return NULL;
}

/* What is unfinished may be left of an earlier comparison (a clone on ZFS); the node removes it before it listens. */
static bool is_made(const struct report *r, const char *snapshot)
{
    return r && !r->volume.present && r->volume.n_snapshots == 1 &&
           r->volume.mark.state == MARK_RELEASED && volume_state_has_snapshot(&r->volume, snapshot);
}

/* Why the replica of the record cannot be compared now; NULL: it can. *ret_soon: that passes by
 * itself. */
static char *why_not(const struct engine *e, const struct dataset_entry *entry, bool *ret_soon)
{
    const struct dataset *d = entry->committed;

    *ret_soon = false;
    if (d->deleted || d->dropped)
        return xstrdup("the dataset is deleted, or not configured any more");
    if (d->transfer.id)
        return xasprintf("a move to node %s is under way: its copy is compared by itself where agent.yml says 'verify: "
                         "always', and what the move leaves behind can be compared when it has ended",
                         UUID_STR(&d->transfer.destination));
    if (!d->replica)
        return xstrdup("the replica is gone");
    char *text = why_not_with(e, "the owner, node", &d->owner);
    if (!text)
        text = why_not_with(e, "the replica's node", &d->replica->node);
    if (text)
        return text;
    *ret_soon = true;
    const struct report *owner = report_of(entry, &d->owner);
    if (!report_is_mounted_at(owner, d->epoch) || !volume_state_has_snapshot(&owner->volume, d->replica->base))
        return xasprintf("node %s has not mounted the dataset yet", UUID_STR(&d->owner));
    if (!is_made(report_of(entry, &d->replica->node), d->replica->base))
        return xasprintf("node %s is still making its copy the replica", UUID_STR(&d->replica->node));
    return NULL;
}

enum result_code comparison_begin(struct engine *e, struct now now, const struct command *c, struct command_result *r)
{
    struct dataset_entry *entry = dataset_entry_find(e, &c->dataset_id);

    if (!entry || !is_configured(entry->head))
        return RESULT_DATASET_NOT_FOUND;
    if (entry->head->deleted)
        return RESULT_DATASET_DELETED;
    if (entry->pending) {
        r->text = xstrdup("a change of the dataset is just being recorded");
        return RESULT_COMPARISON_SOON;
    }
    const struct dataset *d = entry->committed;
    if (!d->replica && !d->transfer.id)
        return RESULT_REPLICA_NOT_FOUND;
    if (runs(entry)) {
        r->dataset = dataset_copy(d);
        return RESULT_OK;
    }
    bool soon;
    r->text = why_not(e, entry, &soon);
    if (r->text)
        return soon ? RESULT_COMPARISON_SOON : RESULT_COMPARISON_NOT_NOW;
    comparison_free(entry->comparison);
    struct comparison *own = entry->comparison = xcalloc(1, sizeof(*own));
    own->number = random_next(&e->random) >> (64 - NUMBER_BITS) | UINT64_C(1) << (NUMBER_BITS - 1);
    own->owner = d->owner;
    own->node = d->replica->node;
    own->asked_us = now.wall_us;
    (void)snprintf(own->snapshot, sizeof(own->snapshot), "%s", d->replica->base);
    r->dataset = dataset_copy(d);
    queue_dataset(e, entry); /* for the orders */
    effect_push_changed(e, OBJECT_DATASET, UUID_STR(&entry->id));
    return RESULT_CREATED;
}

uint64_t comparison_ordered(const struct dataset_entry *entry)
{
    const struct dataset *d = entry->committed;

    return runs(entry) && d && !d->deleted && !d->dropped && !d->transfer.id && is_of_record(entry->comparison, d)
               ? entry->comparison->number
               : 0;
}

bool is_found_different(const struct dataset_entry *entry)
{
    const struct comparison *c = entry->comparison;

    return c && c->end == COMPARISON_DIFFERS && is_of_record(c, entry->committed);
}

/* Takes `text` over. */
static void end(struct engine *e, struct dataset_entry *entry, struct now now, enum comparison_end how, char *text)
{
    struct comparison *c = entry->comparison;

    c->end = how;
    c->text = text;
    c->ended_us = now.wall_us;
    effect_push_changed(e, OBJECT_DATASET, UUID_STR(&entry->id));
}

static bool take_result(struct engine *e, struct dataset_entry *entry, struct now now)
{
    const struct report *r = report_of(entry, &entry->comparison->owner);
    const struct compared *found = r ? r->compared : NULL;

    if (!found || (found->number != entry->comparison->number && !FAULT(STALE_COMPARISON)))
        return false;
    end(e, entry, now, found->end, xstrdup_null(found->text));
    return true;
}

void look_at_comparison(struct engine *e, struct dataset_entry *entry, struct now now)
{
    bool soon = false;

    if (!runs(entry) || take_result(e, entry, now))
        return;
    char *text = is_of_record(entry->comparison, entry->committed) ||
                         entry->committed->transfer.id || entry->committed->deleted
                     ? why_not(e, entry, &soon)
                     : xstrdup("the replica was removed, or another took its place, meanwhile");
    if (text && !soon) {
        end(e, entry, now, COMPARISON_FAILED, text);
        return;
    }
    /* Of a copy that differs the node tells that it is gone, maybe before the owner tells why: the owner's result is waited for. */
    free(text);
}
