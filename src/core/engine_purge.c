/* Deleted datasets are forgotten after some time. As the time is the same for all, they wait in the order of their deletion. */
#include "core/engine_internal.h"

#define LOOK_US (3600 * USEC_PER_SEC) /* by the wall clock, which may be set: it is looked at that often */
#define BUSY_US (1 * USEC_PER_SEC)
#define MOST 1000 /* in one commit */

static int compare_deletions(const void *a, const void *b)
{
    const struct deletion *p = a, *q = b;

    return p->at_us < q->at_us ? -1 : p->at_us > q->at_us;
}

void purge_note(struct engine *e, const struct dataset *d)
{
    if (!e->purge_after_us)
        return;
    e->unsorted = e->unsorted || (e->n_deletions && d->deleted_us < e->deletions[e->n_deletions - 1].at_us);
    e->deletions = mem_grow(e->deletions, e->n_deletions, &e->cap_deletions, sizeof(*e->deletions));
    e->deletions[e->n_deletions++] = (struct deletion){d->id, d->deleted_us};
    e->purge_us = 0; /* look at the next tick */
}

void engine_purge_after(struct engine *e, uint64_t age_us)
{
    e->purge_after_us = age_us;
}

/* false: a change of it is under way. */
static bool purge(struct engine *e, const struct uuid *id)
{
    struct dataset_entry *entry = dataset_entry_find(e, id);

    if (!entry || !entry->head || !entry->head->deleted || entry->head->purge)
        return true; /* gone already, or made anew */
    if (entry->pending)
        return false;
    struct dataset *d = dataset_copy(entry->head);
    d->purge = true;
    propose_dataset(e, entry, d);
    return true;
}

void purge_aged(struct engine *e, struct now now)
{
    size_t done = 0;
    uint64_t wait = USEC_NEVER;

    if (e->unsorted) /* those of the store come by their ids */
        qsort(e->deletions, e->n_deletions, sizeof(*e->deletions), compare_deletions);
    e->unsorted = false;
    for (; done < e->n_deletions; done++) {
        uint64_t due = e->deletions[done].at_us + e->purge_after_us;
        if (due > now.wall_us)
            wait = due - now.wall_us < LOOK_US ? due - now.wall_us : LOOK_US;
        else if (done == MOST || !purge(e, &e->deletions[done].dataset))
            wait = BUSY_US;
        if (wait != USEC_NEVER)
            break;
    }
    e->n_deletions -= done;
    if (done)
        memmove(e->deletions, e->deletions + done, e->n_deletions * sizeof(*e->deletions));
    e->purge_us = wait == USEC_NEVER ? USEC_NEVER : now.mono_us + wait;
}

uint64_t purge_deadline(const struct engine *e)
{
    return e->purge_after_us && e->n_deletions ? e->purge_us : USEC_NEVER;
}
