/* Where each dataset stands on its way to where the user wants it, and what is committed next (README.md). */
#include "core/engine_internal.h"
#include "core/fault.h"

#include <stdarg.h>
#include <stdio.h>

void queue_dataset(struct engine *e, struct dataset_entry *entry)
{
    if (entry->queued)
        return;
    entry->queued = true;
    entry->next_queued = NULL;
    *e->queue_last = entry;
    e->queue_last = &entry->next_queued;
}

void queue_volumes(struct engine *e, const struct container *c)
{
    for (size_t i = 0; c && i < c->n_volumes; i++) {
        struct dataset_entry *d = dataset_entry_find(e, &c->volumes[i].dataset);
        if (d)
            queue_dataset(e, d);
    }
}

void queue_all_datasets(struct engine *e)
{
    for (struct dataset_entry *d = e->datasets; d; d = d->hh.next) {
        if (d->committed)
            queue_dataset(e, d);
    }
}

bool node_ready(const struct engine *e, const struct uuid *node)
{
    const struct node_entry *n = node_entry_find(e, node);

    return n && n->session && n->complete && !n->refuses && !node_is_fenced(e, node);
}

const struct report *report_of(const struct dataset_entry *entry, const struct uuid *node)
{
    for (size_t i = 0; i < entry->n_reports; i++) {
        if (uuid_eq(&entry->reports[i].node, node))
            return &entry->reports[i].report;
    }
    return NULL;
}

const struct container_report *container_report_of(const struct container_entry *entry,
                                                   const struct uuid *node)
{
    for (size_t i = 0; i < entry->n_reports; i++) {
        if (uuid_eq(&entry->reports[i].node, node))
            return &entry->reports[i].report;
    }
    return NULL;
}

static bool report_is_owned_at(const struct report *r, uint64_t epoch)
{
    return r && r->volume.present && r->volume.mark.state == MARK_OWNED &&
           r->volume.mark.epoch == epoch;
}

bool report_is_mounted_at(const struct report *r, uint64_t epoch)
{
    return report_is_owned_at(r, epoch) && r->volume.mounted;
}

void because(struct dataset_entry *entry, struct now now, enum reason_code code, const char *text)
{
    reason_set(&entry->reason, code, now.wall_us, 0, text);
}

void becausef(struct dataset_entry *entry, struct now now, enum reason_code code, const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    (void)vsnprintf(text, sizeof(text), format, args);
    va_end(args);
    because(entry, now, code, text);
}

const char *node_absence(const struct engine *e, const struct uuid *node)
{
    const struct node_entry *n = node_entry_find(e, node);

    const struct fence *f = fence_of(e, node);

    if (f && n && n->session && uuid_eq(&f->era, &n->hello.era))
        return "is fenced; it is here, and nobody knows that it was started anew since: it gets nothing until it is, or until "
               "'flockerctl unfence'";
    if (node_is_fenced(e, node))
        return n && n->session ? "is fenced; it is here, and gets nothing until that ends" : "is fenced";
    if (!n || !n->session)
        return "is not connected";
    return n->complete ? "obeys another store, or a later state of this one"
                       : "has just connected and is still looking around";
}

void because_absent(const struct engine *e, struct dataset_entry *entry, struct now now, enum reason_code code, const char *what,
                    const struct uuid *node)
{
    const struct node_entry *n = node_entry_find(e, node);
    CLEANUP_FREE char *text = xasprintf("%s %s %s", what, UUID_STR(node), node_absence(e, node));

    if (node_is_fenced(e, node))
        code = REASON_NODE_FENCED;
    else if (n && n->session && n->complete)
        code = REASON_STORE_UNKNOWN;
    because(entry, now, code, text);
}

/* The record says what it said in the copy that the store was put back from: `what`. The nodes that are not here are named
 * when somebody asks. */
static void because_restored(const struct engine *e, struct dataset_entry *entry, struct now now, const char *what)
{
    becausef(entry, now, REASON_STORE_RESTORED,
             "the store was put back from a copy of revision %llu, which says that %s; a node that is not here may know better",
             (unsigned long long)e->history.restored, what);
}

/* The lease that keeps the dataset on `node`, if any. */
static const struct lease *lease_on(const struct engine *e, const struct uuid *dataset,
                                    const struct uuid *node)
{
    const struct lease_entry *l = lease_entry_find(e, dataset);

    /* Both values count: one that is being acquired, and one whose release is not durable yet. */
    if (l && l->head && uuid_eq(&l->head->node, node))
        return l->head;
    if (l && l->committed && uuid_eq(&l->committed->node, node))
        return l->committed;
    return NULL;
}

static void because_lease(struct dataset_entry *entry, struct now now, const struct lease *l)
{
    CLEANUP_FREE char *text =
        l->n_mounts ? xasprintf("Docker has the dataset mounted on node %s (%zu mount%s)", UUID_STR(&l->node), l->n_mounts,
                                l->n_mounts == 1 ? "" : "s")
                    : xasprintf("a lease holds the dataset on node %s%s", UUID_STR(&l->node),
                                l->expires ? "" : " and does not expire");

    because(entry, now, REASON_LEASE_HELD, text);
}

/* Mounts on a node that the lease of a store that was put back leaves out: since that copy was made they were given out, and the lease
 * of somebody else had ended. Nobody's volume is pulled away. */
static bool waits_for_mounts(const struct engine *e, struct dataset_entry *entry, struct now now, const struct uuid *node)
{
    if (!e->history.restored || !may_be_used_by_docker(e, entry, node))
        return false;
    becausef(entry, now, REASON_LEASE_HELD,
             "Docker has the dataset mounted on node %s, though the lease, which the store that was put back says, is another's",
             UUID_STR(node));
    return true;
}

/* Holders that confirmed that nothing is left there; true when one was taken off the list. */
static bool strike_confirmed(struct engine *e, struct dataset_entry *entry, const struct uuid *keep,
                             uint64_t number)
{
    const struct dataset *d = entry->committed;
    struct dataset *changed = NULL;

    for (size_t i = 0; i < d->n_holders; i++) {
        const struct report *r = report_of(entry, &d->holders[i]);
        if ((keep && uuid_eq(keep, &d->holders[i])) || dataset_is_replica(d, &d->holders[i]) || !r || r->gone < number)
            continue;
        if (!changed)
            changed = dataset_copy(d);
        dataset_remove_holder(changed, &d->holders[i]);
    }
    if (changed)
        propose_dataset(e, entry, changed);
    return changed != NULL;
}

/* What keeps a deleted dataset: a lease of its owner; or mounts on any node, as one that was told that the data come gets these and no
 * others that somebody makes under the id (seed 547). */
static const struct lease *lease_against_deletion(const struct engine *e, const struct dataset *d)
{
    const struct lease_entry *l = lease_entry_find(e, &d->id);

    if (l && l->head && l->head->n_mounts && !FAULT(DELETE_MOUNTED))
        return l->head;
    if (l && l->committed && l->committed->n_mounts && !FAULT(DELETE_MOUNTED))
        return l->committed;
    return lease_on(e, &d->id, &d->owner);
}

/* Nothing of the dataset is left anywhere. */
static void forget(struct engine *e, struct dataset_entry *entry)
{
    struct lease_entry *l = lease_entry_find(e, &entry->id);

    propose_dataset(e, entry, NULL);
    if (l && l->head)
        propose_lease(e, l, NULL); /* of the API, for a node that never had it */
    e->head_config = e->head_revision;
}

static void reconcile_deleted(struct engine *e, struct dataset_entry *entry, struct now now)
{
    const struct dataset *d = entry->committed;

    if (is_doubted(e, d) && d->n_holders) {
        because_restored(e, entry, now, "the dataset is deleted");
        return;
    }
    if (!d->tombstone) {
        const struct lease *l = lease_against_deletion(e, d);
        const struct container_entry *user = container_using(e, &d->id, /* committed= */ true);
        if (l) {
            because_lease(entry, now, l);
            return;
        }
        if (waits_for_mounts(e, entry, now, &d->owner))
            return;
        if (user) {
            CLEANUP_FREE char *text = xasprintf("container %s uses the dataset", user->name);
            because(entry, now, REASON_IN_USE_BY_CONTAINER, text);
            return;
        }
        struct dataset *changed = dataset_copy(d);
        changed->owner = UUID_NIL;
        changed->recalled = false;
        changed->transfer = (struct transfer){0};
        replica_end(changed);
        dataset_end_freed(changed);
        changed->tombstone = changed->number = changed->epoch = next_number(e);
        propose_dataset(e, entry, changed);
        because(entry, now, REASON_DELETING, "the nodes are told to destroy the data");
        return;
    }
    if (!d->n_holders) {
        because(entry, now, REASON_NONE, NULL);
        if (d->purge)
            forget(e, entry);
        return;
    }
    if (strike_confirmed(e, entry, /* keep= */ NULL, d->tombstone))
        return;
    CLEANUP_STR struct str text = {0};
    for (size_t i = 0; i < d->n_holders; i++) {
        if (!node_ready(e, &d->holders[i]))
            str_appendf(&text, "%snode %s %s",
                        text.len ? "; " : "holds data: ", UUID_STR(&d->holders[i]),
                        node_absence(e, &d->holders[i]));
    }
    if (text.len)
        because(entry, now, REASON_WAITING_FOR_HOLDERS, text.data);
    else
        because(entry, now, REASON_DELETING, "the nodes are destroying the data");
}

/* Nobody owns it and nothing was ever in it: the wanted node is granted it as soon as it is there. */
static void reconcile_unowned(struct engine *e, struct dataset_entry *entry, struct now now)
{
    const struct dataset *d = entry->committed;

    if (d->born) {
        because(entry, now, REASON_DATA_MISSING, "the dataset has data, but no owner");
        return;
    }
    if (is_doubted(e, d) && !is_mounted_on(entry, &d->primary)) {
        because_restored(e, entry, now, "nothing was ever written to the dataset");
        return;
    }
    if (d->dropped) {
        struct dataset *changed = dataset_copy(d); /* nothing was ever in it: there is nothing to keep */
        changed->dropped = false;
        changed->deleted = changed->purge = true;
        propose_dataset(e, entry, changed);
        return;
    }
    /* Nobody is struck off the list yet: on shared storage what an earlier owner made lies there still, and one of them
     * must be left to destroy it if the dataset is deleted now (seed 874). */
    if (!node_ready(e, &d->primary)) {
        because_absent(e, entry, now, REASON_NODE_DISCONNECTED, "node", &d->primary);
        return;
    }
    const struct uuid *stranger = stranger_with_data(entry, d);
    if (stranger) {
        becausef(entry, now, REASON_STORE_UNKNOWN,
                 "node %s holds data under this id that the store does not know of",
                 UUID_STR(stranger));
        return;
    }
    const struct uuid *untold = untold_node(e, d);
    if (untold) {
        e->waits_for_untold = true;
        becausef(entry, now, REASON_NODE_UNHEARD,
                 "node %s has just come to this cluster's store, its storage does not answer yet, and it may hold data under this id",
                 UUID_STR(untold));
        return;
    }
    struct dataset *changed = dataset_copy(d);
    changed->owner = d->primary;
    changed->epoch = changed->number = FAULT(REUSE_EPOCH) ? 1 : next_number(e);
    changed->born = has_unknown_data(entry, changed);
    free(changed->base);
    changed->base = NULL;
    dataset_add_holder(changed, &changed->owner);
    propose_dataset(e, entry, changed);
    becausef(entry, now, REASON_CREATING, "node %s makes the volume",
             UUID_STR(&entry->head->primary));
}

bool has_unknown_data(const struct dataset_entry *entry, const struct dataset *d)
{
    const struct report *r = report_of(entry, &d->primary);

    return r && r->volume.present && r->volume.mark.state == MARK_OWNED && !dataset_has_holder(d, &d->primary);
}

const struct uuid *stranger_with_data(const struct dataset_entry *entry, const struct dataset *d)
{
    for (size_t i = 0; i < entry->n_reports; i++) {
        const struct volume_state *v = &entry->reports[i].report.volume;
        if ((v->mounted || v->mark.state == MARK_OWNED) &&
            !uuid_eq(&entry->reports[i].node, &d->primary) &&
            !dataset_has_holder(d, &entry->reports[i].node))
            return &entry->reports[i].node;
    }
    return NULL;
}

static void record_birth(struct engine *e, struct dataset_entry *entry)
{
    struct dataset *changed = dataset_copy(entry->committed);

    changed->born = true;
    propose_dataset(e, entry, changed);
}

/* Granted, but nothing was ever written: nobody mounts it before `born` is committed. So it can be taken back
 * without asking, unless a lease keeps it there. */
static void reconcile_unborn(struct engine *e, struct dataset_entry *entry, struct now now)
{
    const struct dataset *d = entry->committed;
    const struct report *r = report_of(entry, &d->owner);

    const struct lease *l = lease_on(e, &d->id, &d->owner);

    if (is_of_copy(e, d)) {
        /* What is mounted was recorded as born, and nobody gets it before it is released. What is only there may be left of
         * a grant that was taken back, or be all that was written: not to be dropped. */
        bool born = is_doubted(e, d) ? report_is_mounted_at(r, d->epoch) : report_is_owned_at(r, d->epoch);
        if (born) {
            record_birth(e, entry);
            return;
        }
        if (is_doubted(e, d)) {
            because_restored(e, entry, now, "nothing was ever written to the dataset");
            return;
        }
    }
    if ((d->dropped || !uuid_eq(&d->primary, &d->owner)) && !l) {
        struct dataset *changed = dataset_copy(d);
        changed->owner = UUID_NIL;
        changed->epoch = changed->number = next_number(e);
        propose_dataset(e, entry, changed);
        return;
    }
    if (report_is_owned_at(r, d->epoch)) {
        record_birth(e, entry);
        return;
    }
    if (!uuid_eq(&d->primary, &d->owner))
        because_lease(entry, now, l);
    else if (!node_ready(e, &d->owner))
        because_absent(e, entry, now, REASON_NODE_DISCONNECTED, "node", &d->owner);
    else
        becausef(entry, now, REASON_CREATING, "node %s makes the volume", UUID_STR(&d->owner));
}

/* Can data go from `source` to `destination` at all? Sets the reason when not. */
static bool can_move(const struct engine *e, struct dataset_entry *entry, struct now now,
                     const struct uuid *source, const struct uuid *destination)
{
    const struct node_entry *from = node_entry_find(e, source);
    const struct node_entry *to = node_entry_find(e, destination);

    if (!node_ready(e, source)) {
        because_absent(e, entry, now, REASON_OWNER_DISCONNECTED, "owner", source);
        return false;
    }
    if (!node_ready(e, destination)) {
        because_absent(e, entry, now, REASON_DESTINATION_DISCONNECTED, "destination", destination);
        return false;
    }
    if (from->hello.storage != to->hello.storage ||
        !str_equal_null(from->hello.backend, to->hello.backend)) {
        CLEANUP_FREE char *text =
            xasprintf("node %s has the backend %s, node %s has %s", UUID_STR(source),
                      from->hello.backend, UUID_STR(destination), to->hello.backend);
        because(entry, now, REASON_BACKEND_MISMATCH, text);
        return false;
    }
    if (keeps_copy(e, entry->committed, destination)) {
        becausef(entry, now, REASON_COPY_KEPT,
                 "node %s keeps what it had of the dataset when it was fenced, and can get it again only when that is dropped",
                 UUID_STR(destination));
        return false;
    }
    bool attachable = from->hello.storage == STORAGE_ATTACHABLE;
    if (attachable && (uuid_is_nil(&from->hello.shared_by) || uuid_is_nil(&to->hello.shared_by))) {
        becausef(entry, now, REASON_STORAGE_MISSING, "node %s has not found its storage yet",
                 UUID_STR(uuid_is_nil(&from->hello.shared_by) ? source : destination));
        return false;
    }
    if (attachable && !uuid_eq(&from->hello.shared_by, &to->hello.shared_by)) {
        becausef(entry, now, REASON_CANNOT_MOVE, "node %s does not share the owner's storage",
                 UUID_STR(destination));
        return false;
    }
    return true;
}

/* By a record that is doubted it is where it is not mounted. */
static bool waits_unmounted(const struct engine *e, struct dataset_entry *entry, struct now now)
{
    if (!may_have_been_fenced(e, entry) || !node_ready(e, &entry->committed->owner))
        return false;
    because_restored(e, entry, now, "a node owns it that does not have it mounted");
    return true;
}

static void reconcile_settled(struct engine *e, struct dataset_entry *entry, struct now now)
{
    const struct dataset *d = entry->committed;

    if (end_replica(e, entry, now) || waits_unmounted(e, entry, now))
        return;
    if (d->recalled && report_is_owned_at(report_of(entry, &d->owner), d->epoch)) {
        struct dataset *changed = dataset_copy(d);
        changed->recalled = false;
        propose_dataset(e, entry, changed);
        return;
    }
    if (d->recalled && !FAULT(STALE_TRANSFER)) {
        if (node_ready(e, &d->owner))
            becausef(entry, now, REASON_MOUNTING, "node %s mounts the volume", UUID_STR(&d->owner));
        else
            because_absent(e, entry, now, REASON_OWNER_DISCONNECTED, "owner", &d->owner);
        return;
    }
    if (d->dropped) {
        because(entry, now, REASON_NONE, NULL);
        return;
    }
    if (!uuid_eq(&d->primary, &d->owner)) {
        if (!can_move(e, entry, now, &d->owner, &d->primary))
            return;
        struct dataset *changed = dataset_copy(d);
        changed->transfer = (struct transfer){.id = next_number(e),
                                              .epoch = d->epoch,
                                              .source = d->owner,
                                              .destination = d->primary,
                                              .phase = TRANSFER_COPY};
        changed->number = changed->transfer.id;
        dataset_add_holder(changed, &d->primary); /* before the first byte goes there */
        propose_dataset(e, entry, changed);
        becausef(entry, now, REASON_COPYING, "the data are being copied to node %s",
                 UUID_STR(&d->primary));
        return;
    }
    if (report_is_mounted_at(report_of(entry, &d->owner), d->epoch) &&
        strike_confirmed(e, entry, /* keep= */ &d->owner, d->number))
        return;
    if (!node_ready(e, &d->owner))
        because_absent(e, entry, now, REASON_NODE_DISCONNECTED, "node", &d->owner);
    else if (!report_is_mounted_at(report_of(entry, &d->owner), d->epoch))
        becausef(entry, now, REASON_MOUNTING, "node %s mounts the volume", UUID_STR(&d->owner));
    else {
        because(entry, now, REASON_NONE, NULL);
        note_kept_copies(e, entry, now);
    }
}

/* The container that moves along must be able to start at once. */
static bool image_is_ready(const struct engine *e, struct dataset_entry *entry, struct now now)
{
    const struct dataset *d = entry->committed;
    const struct container_entry *user = container_using(e, &d->id, /* committed= */ true);

    if (!user || user->committed->ended || !uuid_eq(&user->committed->node, &d->transfer.destination))
        return true;
    const struct container_report *r = container_report_of(user, &d->transfer.destination);
    if (r && (r->image_ready || r->run == CONTAINER_RUNNING))
        return true;
    if (!knows_settings(e, user->committed, &d->transfer.destination)) {
        CLEANUP_FREE char *why =
            unknown_settings_text(e, user->committed, &d->transfer.destination);
        because(entry, now, REASON_START_FAILED, why);
        return false;
    }
    bool known = r && r->reason.code != REASON_NONE && r->reason.code != REASON_WAITING_FOR_IMAGE;
    CLEANUP_FREE char *text =
        xasprintf("container %s is not ready on node %s: %s%s", user->name,
                  UUID_STR(&d->transfer.destination), known ? "" : "the image is fetched: ",
                  known && r->reason.text ? r->reason.text : user->committed->image);
    because(entry, now, known ? r->reason.code : REASON_WAITING_FOR_IMAGE, text);
    return false;
}

/* As far as this dataset goes; sets the reason when not. */
static bool may_release(const struct engine *e, struct dataset_entry *entry, struct now now)
{
    const struct dataset *d = entry->committed;
    const struct report *source = report_of(entry, &d->transfer.source);

    if (!can_move(e, entry, now, &d->transfer.source, &d->transfer.destination))
        return false;
    if (!source || (source->copied != d->transfer.id && !FAULT(STALE_TRANSFER))) {
        becausef(entry, now, REASON_COPYING, "the data are being copied to node %s",
                 UUID_STR(&d->primary));
        return false;
    }
    const struct lease *l = lease_on(e, &d->id, &d->transfer.source);
    if (l && !FAULT(IGNORE_LEASE)) {
        because_lease(entry, now, l);
        return false;
    }
    return !waits_for_mounts(e, entry, now, &d->transfer.source) && image_is_ready(e, entry, now);
}

/* The container for which this dataset must not leave alone: it has others, and may be running on them all at the source. */
static const struct container *companion_user(const struct engine *e,
                                              const struct dataset_entry *entry)
{
    const struct container_entry *user = container_using(e, &entry->id, /* committed= */ true);
    struct uuid run, prepare;

    if (!user || user->committed->n_volumes < 2)
        return NULL;
    container_places(e, user->committed, &run, &prepare);
    return uuid_eq(&run, &entry->committed->transfer.source) ? user->committed : NULL;
}

static bool is_outdated(struct engine *e, struct dataset_entry *entry, struct now now);

/* Can it be released in the same commit as another one that goes to `destination`? */
static bool goes_along(struct engine *e, struct dataset_entry *entry, struct now now,
                       const struct uuid *destination)
{
    const struct dataset *d = entry->committed;

    return d && !entry->pending && !d->deleted && d->transfer.id &&
           d->transfer.phase == TRANSFER_COPY && uuid_eq(&d->transfer.destination, destination) &&
           uuid_eq(&d->primary, destination) && !is_outdated(e, entry, now) &&
           may_release(e, entry, now);
}

#define RELEASING "node %s stops writing and ships the last changes"

static void order_release(struct engine *e, struct dataset_entry *entry, struct now now)
{
    struct dataset *changed = dataset_copy(entry->committed);

    becausef(entry, now, REASON_RELEASING, RELEASING, UUID_STR(&changed->transfer.source));
    changed->transfer.phase = TRANSFER_RELEASE;
    propose_dataset(e, entry, changed);
}

/* All datasets of the container are released by one commit, or none: it stops once, when all that is left to ship is little. */
static void release_together(struct engine *e, struct dataset_entry *entry, struct now now,
                             const struct container *user)
{
    const struct uuid destination = entry->committed->transfer.destination;

    for (size_t i = 0; i < user->n_volumes; i++) {
        struct dataset_entry *other = dataset_entry_find(e, &user->volumes[i].dataset);
        if (other == entry || FAULT(LONE_RELEASE) || goes_along(e, other, now, &destination))
            continue;
        becausef(entry, now, REASON_WAITING_FOR_DATASET,
                 "container %s moves with all its datasets at once, and dataset %s is not ready to "
                 "go yet",
                 user->name, UUID_STR(&other->id));
        return;
    }
    for (size_t i = 0; i < user->n_volumes && !FAULT(LONE_RELEASE); i++) {
        struct dataset_entry *other = dataset_entry_find(e, &user->volumes[i].dataset);
        if (other != entry)
            order_release(e, other, now);
    }
    order_release(e, entry, now);
}

static void reconcile_copy(struct engine *e, struct dataset_entry *entry, struct now now)
{
    const struct dataset *d = entry->committed;

    if (!uuid_eq(&d->primary, &d->transfer.destination) || node_is_fenced(e, &d->transfer.destination)) {
        struct dataset *changed =
            dataset_copy(d); /* cancelled or retargeted: nobody was told to stop */
        changed->transfer = (struct transfer){0};
        propose_dataset(e, entry, changed);
        return;
    }
    if (end_replica(e, entry, now) || waits_unmounted(e, entry, now) || !may_release(e, entry, now))
        return;
    const struct container *user = companion_user(e, entry);
    if (user)
        release_together(e, entry, now, user);
    else
        order_release(e, entry, now);
}

/* Cancelled: the source owns again, at a new epoch. */
static void recall(struct engine *e, struct dataset_entry *entry)
{
    struct dataset *changed = dataset_copy(entry->committed);

    changed->owner = changed->transfer.source;
    changed->recalled = true;
    if (!FAULT(SAME_EPOCH))
        changed->epoch = changed->number = next_number(e);
    free(changed->base);
    changed->base = NULL;
    changed->transfer = (struct transfer){0};
    propose_dataset(e, entry, changed);
}

/* Has the source released it by this transfer? */
static bool is_released(const struct dataset_entry *entry)
{
    const struct transfer *t = &entry->committed->transfer;
    const struct report *source = report_of(entry, &t->source);

    if (!source)
        return false;
    const struct volume_mark *mark = &source->volume.mark;
    bool released = mark->state == MARK_RELEASED && mark->epoch == t->epoch && mark->transfer == t->id;
    return released || FAULT(SKIP_RELEASED) || (FAULT(STALE_TRANSFER) && mark->state == MARK_RELEASED);
}

/* ... and is all of it where it is to be? On attachable storage nothing is shipped: released means detached, as the backend
 * says. */
static bool is_handed_over(const struct engine *e, const struct dataset_entry *entry)
{
    const struct transfer *t = &entry->committed->transfer;
    const struct report *source = report_of(entry, &t->source), *destination = report_of(entry, &t->destination);
    const struct node_entry *from = node_entry_find(e, &t->source);

    if (!is_released(entry))
        return false;
    bool shipped = destination && destination->received == t->id && destination->received_snapshot &&
                   streq(destination->received_snapshot, source->volume.mark.snapshot);
    return shipped || FAULT(SKIP_RECEIVED) || FAULT(SKIP_RELEASED) || (from && from->hello.storage == STORAGE_ATTACHABLE);
}

static void reconcile_release(struct engine *e, struct dataset_entry *entry, struct now now)
{
    const struct dataset *d = entry->committed;
    const struct transfer *t = &d->transfer;
    const struct report *source = report_of(entry, &t->source);

    if (is_doubted(e, d)) {
        if (report_is_mounted_at(source, t->epoch))
            recall(e, entry); /* it has not released: nobody can have got it from there */
        else
            because_restored(e, entry, now, "the data are being handed over");
        return;
    }
    if (!uuid_eq(&d->primary, &t->destination) || node_is_fenced(e, &t->destination)) {
        recall(e, entry);
        return;
    }
    bool received = is_handed_over(e, entry), released = is_released(entry);
    if (!received && take_from_fenced(e, entry, now))
        return;
    if (received) {
        struct dataset *changed = dataset_copy(d);
        changed->owner = t->destination;
        changed->epoch = changed->number = next_number(e);
        free(changed->base);
        bool stale = FAULT(STALE_REPLICA) && dataset_is_replica(d, &t->destination);
        const char *base = stale ? d->replica->base : source->volume.mark.snapshot;
        changed->base = base[0] ? xstrdup(base) : NULL;
        changed->transfer = (struct transfer){0};
        replica_begin(e, now, changed, &t->source, source->volume.mark.snapshot);
        propose_dataset(e, entry, changed);
        becausef(entry, now, REASON_PROMOTING, "node %s makes the received data its volume",
                 UUID_STR(&d->primary));
        return;
    }
    if (!released && !node_ready(e, &t->source))
        because_absent(e, entry, now, REASON_OWNER_DISCONNECTED, "source", &t->source);
    else if (released && !node_ready(e, &t->destination))
        because_absent(e, entry, now, REASON_DESTINATION_DISCONNECTED, "destination",
                       &t->destination);
    else
        becausef(entry, now, REASON_RELEASING, RELEASING, UUID_STR(&d->transfer.source));
}

/* Can that node not write, as far as its own last word goes, or as `later` has it attached? */
static bool is_surely_idle(const struct engine *e, const struct dataset_entry *entry, const struct uuid *node,
                           const struct uuid *later)
{
    const struct report *r = report_of(entry, node);

    if (!node_ready(e, node))
        return false;
    return !r || is_shut_out(e, entry, later, node) ||
           (!r->volume.mounted && r->volume.mark.state != MARK_OWNED && r->volume.mark.state != MARK_PROMOTING);
}

/* The node that owns the dataset at an epoch beyond the record's, or NULL. Of two, the one with the latest. When the record
 * says that nothing was ever written, such a mark may be that of a grant that was taken back (seed 82522), or of an earlier life
 * of the id (seed 99031): then only a mounted volume counts, where the user wants the dataset. */
static const struct dataset_report *later_owner(const struct engine *e, const struct dataset_entry *entry)
{
    const struct dataset *d = entry->committed;
    const struct dataset_report *found = NULL;

    for (size_t i = 0; i < entry->n_reports; i++) {
        const struct dataset_report *r = &entry->reports[i];
        const struct volume_mark *mark = &r->report.volume.mark;
        if (!r->report.volume.mounted && (!d->born || is_doubted(e, d)))
            continue;
        if (!d->born && !is_of_copy(e, d) && !uuid_eq(&d->primary, &r->node))
            continue;
        if (mark->state == MARK_OWNED && r->report.volume.present && mark->epoch > d->number &&
            mark->epoch <= e->head_revision && node_ready(e, &r->node) &&
            (!found || mark->epoch > found->report.volume.mark.epoch))
            found = r;
    }
    return found;
}

/* Are the data where the record says? As long as its owner can still take them at the record's epoch, or they are on their
 * way from it, nobody can have got a later epoch from there: what `later` owns is of another history, of before the store
 * was put back. */
static bool is_accounted_for(const struct dataset_entry *entry, const struct uuid *later)
{
    const struct dataset *d = entry->committed;
    const struct report *r = report_of(entry, &d->owner);
    const struct volume_mark *mark = r ? &r->volume.mark : NULL;

    if (!d->born || !r)
        return false;
    if (mark->epoch < d->epoch)
        return mark->state == MARK_RELEASED || (d->base && volume_state_has_snapshot(&r->volume, d->base));
    return d->transfer.id && mark->state == MARK_RELEASED && mark->transfer == d->transfer.id &&
           mark->snapshot[0] && !uuid_eq(&d->transfer.destination, later);
}

/* The store was put back from an older copy, and the operator has told the nodes to obey it. A node that owns the dataset
 * at a later epoch than the record has the data: to get there, everyone before it had to release them. So the record
 * follows, unless its own owner still may write, or the data are where the record says. */
static bool follow_data(struct engine *e, struct dataset_entry *entry, struct now now)
{
    const struct dataset *d = entry->committed;
    const struct dataset_report *r = later_owner(e, entry);

    if (!r || d->deleted || e->commit_retry_us > now.mono_us || is_accounted_for(entry, &r->node))
        return false;
    for (size_t i = 0; i < d->n_holders; i++) {
        if (!uuid_eq(&d->holders[i], &r->node) && !is_surely_idle(e, entry, &d->holders[i], &r->node))
            return false;
    }
    for (size_t i = 0; i < entry->n_reports; i++) {
        if (&entry->reports[i] != r && !is_surely_idle(e, entry, &entry->reports[i].node, &r->node))
            return false;
    }
    struct dataset *changed = dataset_copy(d);
    changed->owner = r->node;
    changed->epoch = changed->number = next_number(e);
    changed->born = true;
    changed->recalled = true; /* until the node has taken the new epoch */
    free(changed->base);
    changed->base = NULL;
    changed->transfer = (struct transfer){0};
    replica_end(changed);
    dataset_end_freed(changed);
    dataset_remove_fenced(changed, &r->node);
    dataset_add_holder(changed, &r->node);
    propose_dataset(e, entry, changed);
    becausef(entry, now, REASON_STORE_UNKNOWN, "node %s has later data than the store knew of; the store follows",
             UUID_STR(&r->node));
    return true;
}

/* A node holds it at an epoch that this store never gave out: the store is older than what happened. Whatever would be
 * decided from the old record could make a second writer or lose data, so nothing is. */
static bool is_outdated(struct engine *e, struct dataset_entry *entry, struct now now)
{
    if (follow_data(e, entry, now))
        return true;
    for (size_t i = 0; i < entry->n_reports; i++) {
        const struct volume_mark *mark = &entry->reports[i].report.volume.mark;
        if (mark->state == MARK_NONE || mark->epoch <= entry->committed->number)
            continue;
        CLEANUP_FREE char *text =
            xasprintf("node %s holds it at epoch %llu, but the store knows only %llu: the store is older "
                      "than what happened to the dataset",
                      UUID_STR(&entry->reports[i].node), (unsigned long long)mark->epoch,
                      (unsigned long long)entry->committed->number);
        because(entry, now, REASON_STORE_UNKNOWN, text);
        return true;
    }
    return false;
}

static void reconcile(struct engine *e, struct dataset_entry *entry, struct now now)
{
    const struct dataset *d = entry->committed;

    if (is_outdated(e, entry, now))
        return;
    if (e->commit_retry_us > now.mono_us) {
        because(entry, now, REASON_STORE_FAILED,
                e->commit_error); /* engine_tick() comes back to it */
        return;
    }
    bool released = d->transfer.id && d->transfer.phase == TRANSFER_RELEASE; /* it may be handed over */
    if (!released && take_from_fenced(e, entry, now))
        return;
    if (d->deleted)
        reconcile_deleted(e, entry, now);
    else if (dataset_freed_from(d))
        reconcile_freed(e, entry, now);
    else if (uuid_is_nil(&d->owner))
        reconcile_unowned(e, entry, now);
    else if (!d->born)
        reconcile_unborn(e, entry, now);
    else if (!d->transfer.id)
        reconcile_settled(e, entry, now);
    else if (d->transfer.phase == TRANSFER_COPY)
        reconcile_copy(e, entry, now);
    else
        reconcile_release(e, entry, now);
}

/* While writing is tried again after a failure, the failure is still the news. */
static void reconcile_or_blame_store(struct engine *e, struct dataset_entry *entry, struct now now)
{
    uint64_t since =
        entry->reason.code == REASON_STORE_FAILED ? entry->reason.since_us : now.wall_us;

    reconcile(e, entry, now);
    if (!e->commit_failures || !entry->pending)
        return;
    because(entry, now, REASON_STORE_FAILED, e->commit_error);
    entry->reason.since_us = since;
}

/* Whatever the catalogue says of a dataset, it is queued when that changes. */
static void tell_catalogue(struct engine *e, struct dataset_entry *entry)
{
    if (!e->has_catalogue || (!entry->named && !entry->was_named))
        return;
    entry->was_named = false;
    effect_push(e, EFFECT_VOLUME)->dataset = entry->id;
}

void run_queue(struct engine *e, struct now now)
{
    while (e->queue_first) {
        struct dataset_entry *entry = e->queue_first;
        e->queue_first = entry->next_queued;
        if (!e->queue_first)
            e->queue_last = &e->queue_first;
        entry->queued = false;
        if (entry->committed && !entry->pending)
            look_at_comparison(e, entry, now);
        if (entry->committed && !entry->pending)
            reconcile_or_blame_store(e, entry, now);
        if (entry->committed && entry->pending && entry->reason.code == REASON_NONE)
            because(entry, now, REASON_RECORDING, "a change is being written to the store");
        if (entry->committed)
            update_dataset_orders(e, entry);
        tell_catalogue(e, entry);
        dataset_entry_gc(e, entry);
    }
    if (e->fences)
        look_at_fences(e, now);
}
