/* A store that was put back from a copy: what it must not believe, and the operator's word that ends it (README.md). */
#include "core/engine_internal.h"
#include "core/fault.h"

bool is_of_copy(const struct engine *e, const struct dataset *d)
{
    return e->history.restored && d->number <= e->history.restored;
}

bool is_doubted(const struct engine *e, const struct dataset *d)
{
    return e->history.unsettled && is_of_copy(e, d) && !FAULT(BELIEVE_RESTORED);
}

bool may_have_been_fenced(const struct engine *e, const struct dataset_entry *entry)
{
    const struct dataset *d = entry->committed;

    return is_doubted(e, d) && d->born && !d->deleted && !uuid_is_nil(&d->owner) &&
           !is_mounted_on(entry, &d->owner);
}

bool is_mounted_on(const struct dataset_entry *entry, const struct uuid *node)
{
    const struct report *r = report_of(entry, node);

    return r && r->volume.mounted && r->volume.mark.state == MARK_OWNED;
}

bool node_has_told(const struct engine *e, const struct uuid *node)
{
    return node_ready(e, node) && !node_entry_find(e, node)->storage_unknown;
}

const struct uuid *untold_node(const struct engine *e, const struct dataset *d)
{
    if (d->number)
        return NULL; /* the control service made its id, or gave it a number already */
    for (const struct node_entry *n = e->nodes; n; n = n->hh.next) {
        if (n->session && n->untold && !uuid_eq(&n->id, &d->primary))
            return &n->id;
    }
    return NULL;
}

void queue_waiting_for_untold(struct engine *e)
{
    if (!e->waits_for_untold)
        return;
    e->waits_for_untold = false;
    for (struct dataset_entry *d = e->datasets; d; d = d->hh.next) {
        if (d->committed && !d->committed->number)
            queue_dataset(e, d);
    }
}

/* ---- the whole store ---- */

uint64_t engine_restored(const struct engine *e)
{
    return e->history.restored;
}

bool engine_is_unsettled(const struct engine *e)
{
    return e->history.unsettled;
}

struct away {
    const struct engine *engine;
    void (*fn)(void *, const struct uuid *node);
    void *cookie;
};

static void pass_if_away(void *cookie, const struct uuid *node)
{
    const struct away *a = cookie;

    if (!uuid_is_nil(node) && !node_has_told(a->engine, node))
        a->fn(a->cookie, node);
}

void engine_each_node_away(const struct engine *e, void (*fn)(void *, const struct uuid *node), void *cookie)
{
    struct away a = {e, fn, cookie};

    each_near_node(e, pass_if_away, &a);
    for (const struct node_entry *n = e->nodes; n; n = n->hh.next) {
        if (!near_count(e, &n->id, NEAR_DATASETS) && !near_count(e, &n->id, NEAR_CONTAINERS))
            pass_if_away(&a, &n->id);
    }
}

static void append_node(void *cookie, const struct uuid *node)
{
    struct str *s = cookie;

    str_appendf(s, "%snode %s", s->len ? "; " : "", UUID_STR(node));
}

void append_nodes_away(const struct engine *e, struct str *s)
{
    engine_each_node_away(e, append_node, s);
}

/* Does the node say that it owns what the record knows nothing of? */
static bool contradicts(const struct dataset *d, const struct uuid *node, const struct report *r)
{
    const struct volume_mark *mark = &r->volume.mark;

    return (r->volume.mounted || mark->state == MARK_OWNED || mark->state == MARK_PROMOTING) &&
           (mark->epoch > d->number || !dataset_has_holder(d, node));
}

/* What a node has said against the copy must not be forgotten when it goes away after the operator's word: the record says
 * from now on that there are data, that nobody is known to own them, and where they may be. One that was
 * deleted just now is not gone before they are. */
static void note_contradictions(struct engine *e, struct dataset_entry *entry)
{
    const struct dataset *d = entry->head;
    struct dataset *changed = NULL;
    bool releasing = d && d->transfer.id && d->transfer.phase == TRANSFER_RELEASE;

    bool sure =
        d && d->born && !releasing && (uuid_is_nil(&d->owner) || is_mounted_on(entry, &d->owner));

    if (!d || !is_of_copy(e, d) || (d->deleted ? d->tombstone != 0 : sure))
        return;
    for (size_t i = 0; i < entry->n_reports; i++) {
        const struct dataset_report *r = &entry->reports[i];
        if (!contradicts(d, &r->node, &r->report) ||
            (d->deleted && dataset_has_holder(d, &r->node)))
            continue;
        changed = changed ? changed : dataset_copy(d);
        dataset_add_holder(changed, &r->node);
    }
    if (!changed)
        return;
    if (!changed->deleted) {
        replica_end(changed);
        changed->born = true;
        changed->owner = UUID_NIL;
        changed->transfer = (struct transfer){0};
    }
    propose_dataset(e, entry, changed);
}

enum result_code store_adopt(struct engine *e, const struct command *c, struct command_result *r)
{
    CLEANUP_STR struct str away = {0};

    if (!e->history.unsettled)
        return RESULT_OK;
    append_nodes_away(e, &away);
    if (away.len && !c->anyway) {
        r->text = str_steal(&away);
        return RESULT_NODES_AWAY;
    }
    for (struct dataset_entry *d = e->datasets; d; d = d->hh.next)
        note_contradictions(e, d);
    propose_settled(e);
    return RESULT_OK;
}

/* ---- one dataset ---- */

static bool has_anything(const struct report *r)
{
    return r && (!volume_state_is_empty(&r->volume) || r->volume.mark.state != MARK_NONE);
}

bool is_anywhere(const struct dataset_entry *entry)
{
    for (size_t i = 0; i < entry->n_reports; i++) {
        if (has_anything(&entry->reports[i].report))
            return true;
    }
    return false;
}

/* May the operator say where its data are, or is the store's own word good? */
static bool is_in_doubt(const struct engine *e, const struct dataset_entry *entry)
{
    const struct dataset *d = entry->committed;

    if (is_of_copy(e, d) || (d->born && !d->deleted && uuid_is_nil(&d->owner)) ||
        entry->reason.code == REASON_STORE_UNKNOWN)
        return true;
    for (size_t i = 0; i < entry->n_reports; i++) {
        if (entry->reports[i].report.reason.code == REASON_STORE_UNKNOWN)
            return true;
    }
    return false;
}

/* Does the node, which is ready, neither use the data nor take them by itself, whatever it has been told? Only the owner has
 * been told to take them; it does not when its mark is beyond the order's epoch, or when it has nothing. */
static bool stays_idle(const struct engine *e, const struct dataset_entry *entry, const struct uuid *node)
{
    const struct dataset *d = entry->committed;
    const struct report *r = report_of(entry, node);

    if (r && r->volume.mounted)
        return false;
    if (!uuid_eq(node, &d->owner) || (d->transfer.id && d->transfer.phase == TRANSFER_RELEASE))
        return true;
    if (!d->born)
        return true; /* nobody mounts it before its birth is committed */
    if (r && r->volume.mark.state == MARK_RELEASED)
        return r->volume.mark.epoch >= d->epoch;
    if (r && r->volume.mark.state != MARK_NONE)
        return r->volume.mark.epoch > d->epoch;
    if (r && (r->volume.present || (d->base && volume_state_has_snapshot(&r->volume, d->base))))
        return false; /* it claims or promotes that */
    return d->born;   /* there is nothing, and it makes nothing */
}

bool is_shut_out(const struct engine *e, const struct dataset_entry *entry, const struct uuid *node,
                 const struct uuid *other)
{
    const struct node_entry *n = node_entry_find(e, node);
    const struct report *here = report_of(entry, node), *there = report_of(entry, other);

    return n && n->hello.storage == STORAGE_ATTACHABLE && here && here->volume.attached &&
           !(there && (there->volume.mounted || there->volume.attached));
}

/* Who else is in the way of the node's data: one that is not there, or one that may use them. Writes the answer into
 * the result when somebody is. */
static enum result_code check_others(const struct engine *e, const struct dataset_entry *entry, const struct command *c,
                                     struct command_result *r)
{
    const struct dataset *d = entry->committed;
    CLEANUP_STR struct str away = {0};

    for (size_t i = 0; i < d->n_holders + entry->n_reports; i++) {
        const struct uuid *other = i < d->n_holders ? &d->holders[i] : &entry->reports[i - d->n_holders].node;
        if (uuid_eq(other, &c->node))
            continue;
        /* When both have it mounted, nobody mounts it anew by choosing one. */
        bool both = is_mounted_on(entry, other) && is_mounted_on(entry, &c->node);
        if (node_ready(e, other) && !both && !stays_idle(e, entry, other) &&
            !is_shut_out(e, entry, &c->node, other)) {
            r->text = xstrdup(UUID_STR(other));
            return RESULT_DATASET_MOUNTED;
        }
        if (!node_has_told(e, other) && (i < d->n_holders || !dataset_has_holder(d, other)))
            str_appendf(&away, "%snode %s", away.len ? "; " : "", UUID_STR(other));
    }
    if (!away.len || c->anyway)
        return RESULT_OK;
    r->text = str_steal(&away);
    return RESULT_NODES_AWAY;
}

/* What the others have of it is not wanted any more: they are told to remove it once the node has it mounted. */
static void list_reporters(const struct dataset_entry *entry, struct dataset *d)
{
    for (size_t i = 0; i < entry->n_reports; i++) {
        if (has_anything(&entry->reports[i].report))
            dataset_add_holder(d, &entry->reports[i].node);
    }
}

/* There is only a mark: nothing to keep. What the node is told to forget is of before this number, and so is its mark; when
 * it is the owner, it says at the new epoch that the data are missing. */
static struct dataset *forgotten_there(struct engine *e, const struct dataset_entry *entry, const struct uuid *node)
{
    struct dataset *d = dataset_copy(entry->committed);

    d->number = next_number(e);
    if (uuid_eq(node, &d->owner))
        d->epoch = d->number;
    dataset_add_holder(d, node);
    return d;
}

static bool has_data(const struct report *r)
{
    return r->volume.present || r->volume.n_snapshots;
}

/* Does a deleted dataset go with the operator's word? While a lease or a container is there, its data get an owner instead, and its
 * deletion waits as any does (seed 20404). */
static bool goes_at_once(const struct engine *e, const struct dataset *d)
{
    const struct lease_entry *l = lease_entry_find(e, &d->id);

    return d->deleted && (d->tombstone || (!(l && (l->head || l->committed)) &&
                                           !container_using(e, &d->id, /* committed= */ true)));
}

static struct dataset *adopted(struct engine *e, const struct dataset_entry *entry, const struct command *c,
                               const struct report *there)
{
    struct dataset *d = dataset_copy(entry->committed);

    d->epoch = d->number = next_number(e);
    d->transfer = (struct transfer){0};
    replica_end(d);
    free(d->base);
    d->base = NULL;
    dataset_end_freed(d);
    dataset_remove_fenced(d, &c->node);
    dataset_add_holder(d, &c->node);
    if (goes_at_once(e, d)) {
        d->owner = UUID_NIL;
        d->tombstone = d->number;
        return d;
    }
    d->owner = c->node;
    d->born = d->recalled = true; /* until the node has taken the new epoch */
    if (!there->volume.present)
        d->base = xstrdup(there->volume.snapshots[there->volume.n_snapshots - 1]);
    list_reporters(entry, d);
    return d;
}

enum result_code dataset_adopt(struct engine *e, const struct command *c, struct command_result *r)
{
    struct dataset_entry *entry = dataset_entry_find(e, &c->dataset_id);

    if (!entry || !is_configured(entry->head))
        return RESULT_DATASET_NOT_FOUND;
    if (entry->pending)
        return RESULT_DATASET_CHANGING; /* the nodes may be told something before this is recorded */
    if (!node_ready(e, &c->node)) {
        r->text = xasprintf("node %s", UUID_STR(&c->node));
        return RESULT_NODES_AWAY;
    }
    const struct report *there = report_of(entry, &c->node);
    bool goes = goes_at_once(e, entry->head);
    bool data = there && (has_data(there) || (goes && has_anything(there)));
    if (!data && (!there || there->volume.mark.state == MARK_NONE || is_doubted(e, entry->head)))
        return RESULT_DATASET_NOT_THERE;
    if (!is_in_doubt(e, entry))
        return RESULT_DATASET_NOT_IN_DOUBT;
    enum result_code code = goes || !data ? RESULT_OK : check_others(e, entry, c, r);
    if (code != RESULT_OK)
        return code;
    propose_dataset(e, entry, data ? adopted(e, entry, c, there) : forgotten_there(e, entry, &c->node));
    r->dataset = dataset_copy(entry->head);
    return RESULT_OK;
}
