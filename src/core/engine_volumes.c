/* Docker volumes: datasets by name, and leases by mounts. A node tells which mounts it has (its uses), with calls and, as a whole, at
 * the beginning of each session; what the leases say of that node follows. README.md, "Leases by mounts". */
#include "core/engine_internal.h"
#include "core/fault.h"

/* A dataset of users that is called so by its newest value. */
static bool is_called(const struct dataset_entry *entry, const char *name)
{
    const struct dataset *d = entry->head;

    return is_configured(d) && !d->deleted && str_equal_null(metadata_get(&d->metadata, "name"), name);
}

static struct dataset_entry *lower_id(struct dataset_entry *a, struct dataset_entry *b)
{
    return !a || uuid_cmp(&b->id, &a->id) < 0 ? b : a;
}

/* Among the names that are on their way into the store. */
static struct dataset_entry *named_in_batch(const struct engine *e, const struct engine_batch *b, const char *name,
                                            struct dataset_entry *found)
{
    for (size_t i = 0; b && i < b->batch.n; i++) {
        const struct change *c = &b->batch.changes[i];
        struct uuid id;
        if (c->kind != OBJECT_DATASET || !c->dataset || !uuid_parse(c->key, &id))
            continue;
        struct dataset_entry *entry = dataset_entry_find(e, &id);
        if (entry && is_called(entry, name))
            found = lower_id(found, entry);
    }
    return found;
}

/* The volume of that name by the newest values; NULL: there is none. */
static struct dataset_entry *volume_named(const struct engine *e, const char *name)
{
    struct sorted_place place = datasets_named(e, name, /* after= */ NULL);
    struct dataset_entry *found = NULL;

    for (struct dataset_entry *entry; !found && (entry = next_named(e, name, &place));)
        found = is_called(entry, name) ? entry : NULL;
    return named_in_batch(e, e->next, name, named_in_batch(e, e->in_flight, name, found));
}

static struct dataset_entry *volume_of_call(const struct engine *e, const struct uuid *dataset, const char *name)
{
    struct dataset_entry *entry;

    if (uuid_is_nil(dataset))
        return name ? volume_named(e, name) : NULL;
    entry = dataset_entry_find(e, dataset);
    return entry && is_configured(entry->head) && !entry->head->deleted ? entry : NULL;
}

/* ---- who holds it ---- */

static char *node_text(const struct engine *e, const struct uuid *node)
{
    const struct node_entry *n = node_entry_find(e, node);

    return xasprintf("%.8s (%s)", UUID_STR(node), n && n->hello.host ? n->hello.host : "address not known");
}

char *lease_text(const struct engine *e, const struct lease *l)
{
    CLEANUP_FREE char *node = node_text(e, &l->node);

    if (l->n_mounts)
        return xasprintf("Docker on node %s has it mounted (%zu mount%s)", node, l->n_mounts, l->n_mounts == 1 ? "" : "s");
    return xasprintf("node %s holds a lease of it%s", node, l->expires ? "" : " that does not expire");
}

static char *user_text(const struct engine *e, const struct container *c)
{
    CLEANUP_FREE char *node = node_text(e, &c->node);

    return xasprintf("container %s uses it on node %s", c->name, node);
}

/* Another node than `node` (nil = any) that uses the dataset; sets the text of the result. */
static bool is_held_for(const struct engine *e, const struct uuid *dataset, const struct uuid *node, struct command_result *r)
{
    const struct lease_entry *l = lease_entry_find(e, dataset);
    const struct container_entry *user = container_using(e, dataset, /* committed= */ false);

    if (l && l->head && !uuid_eq(&l->head->node, node) && !FAULT(SHARE_LEASE)) {
        lease_copy(&r->lease, l->head);
        r->text = lease_text(e, l->head);
        return true;
    }
    if (user && !uuid_eq(&user->head->node, node)) {
        r->text = user_text(e, user->head);
        return true;
    }
    return false;
}

/* ---- what nodes have, and wait for ---- */

static bool is_use(const struct use *u, const struct uuid *dataset, const char *mount)
{
    return uuid_eq(&u->dataset, dataset) && streq(u->mount, mount);
}

static size_t use_find(const struct uses *list, const struct uuid *dataset, const char *mount)
{
    for (size_t i = 0; i < list->n; i++) {
        if (is_use(&list->all[i], dataset, mount))
            return i;
    }
    return list->n;
}

static void use_add(struct uses *list, const struct uuid *dataset, const char *mount, uint64_t since_us)
{
    if (use_find(list, dataset, mount) < list->n)
        return;
    list->all = mem_grow(list->all, list->n, &list->cap, sizeof(*list->all));
    list->all[list->n++] = (struct use){*dataset, xstrdup(mount), since_us};
}

static bool uses_any(const struct node_entry *n, const struct uuid *dataset)
{
    for (size_t i = 0; i < n->uses.n; i++) {
        if (uuid_eq(&n->uses.all[i].dataset, dataset))
            return true;
    }
    return false;
}

static void use_remove_at(struct uses *list, size_t i)
{
    free(list->all[i].mount);
    list->all[i] = list->all[--list->n];
}

/* False: it was not there. */
static bool use_remove(struct uses *list, const struct uuid *dataset, const char *mount)
{
    size_t i = use_find(list, dataset, mount);

    if (i == list->n)
        return false;
    use_remove_at(list, i);
    return true;
}

static void uses_clear(struct uses *list)
{
    while (list->n)
        use_remove_at(list, list->n - 1);
    free(list->all);
    *list = (struct uses){0};
}

void uses_forget(struct node_entry *n)
{
    uses_clear(&n->uses);
    uses_clear(&n->waits);
    n->uses_complete = false;
    n->uses_unmet = false;
}

void uses_of_lease_forget(struct engine *e, const struct lease *l)
{
    struct node_entry *n = node_entry_find(e, &l->node);

    for (size_t i = n ? n->uses.n : 0; i-- > 0;) {
        if (uuid_eq(&n->uses.all[i].dataset, &l->dataset))
            use_remove_at(&n->uses, i);
    }
}

/* ---- leases ---- */

/* A lease of the node with this mount, from what there is. */
static struct lease *with_mount(const struct lease *now_there, const struct uuid *dataset, const struct uuid *node,
                                const char *mount, struct now now)
{
    struct lease *l = now_there ? lease_dup(now_there) : xcalloc(1, sizeof(*l));

    if (!now_there) {
        l->dataset = *dataset;
        l->node = *node;
        l->since_us = now.wall_us;
    }
    lease_add_mount(l, mount);
    return l;
}

static void take_mount(struct engine *e, struct now now, const struct uuid *dataset, const struct uuid *node, const char *mount)
{
    struct lease_entry *entry = lease_entry_get(e, dataset);

    if (!entry->head)
        entry->expires_mono_us = USEC_NEVER;
    propose_lease(e, entry, with_mount(entry->head, dataset, node, mount, now));
}

/* Takes over the lease; NULL when nothing keeps it any more. */
static struct lease *unless_empty(struct lease *l)
{
    return l->n_mounts || l->acquired ? l : lease_free(l);
}

struct lease *without_acquisition(struct lease_entry *entry)
{
    struct lease *l = lease_dup(entry->head);

    l->acquired = l->expires = false;
    l->expires_wall_us = 0;
    entry->expires_mono_us = USEC_NEVER;
    return unless_empty(l);
}

bool may_be_used_by_docker(const struct engine *e, const struct dataset_entry *entry, const struct uuid *node)
{
    const struct lease_entry *l = lease_entry_find(e, &entry->id);
    const struct node_entry *n = node_entry_find(e, node);

    if (l && l->committed && l->committed->n_mounts && uuid_eq(&l->committed->node, node))
        return true;
    return n && n->session && is_mounted_on(entry, node) &&
           (uses_any(n, &entry->id) || (n->hello.volumes && !n->uses_complete));
}

static void drop_mount(struct engine *e, struct lease_entry *entry, const char *mount)
{
    struct lease *l = lease_dup(entry->head);

    (void)lease_remove_mount(l, mount);
    propose_lease(e, entry, unless_empty(l));
}

/* Mounts that the lease names, and the node does not. */
static void drop_unused(struct engine *e, const struct node_entry *n, struct lease_entry *entry)
{
    struct lease *l = lease_dup(entry->head);
    size_t before = l->n_mounts;

    for (size_t i = l->n_mounts; i-- > 0;) {
        CLEANUP_FREE char *mount = xstrdup(l->mounts[i]);
        if (use_find(&n->uses, &l->dataset, mount) == n->uses.n)
            (void)lease_remove_mount(l, mount);
    }
    if (l->n_mounts == before)
        lease_free(l);
    else
        propose_lease(e, entry, unless_empty(l));
}

/* A node that has it mounted proves that no other got it since the store's copy was made, and has told for whom. */
static bool is_known_at(const struct engine *e, const struct dataset_entry *entry,
                        const struct uuid *node)
{
    const struct node_entry *n = node_entry_find(e, node);

    return is_mounted_on(entry, node) && node_has_told(e, node) &&
           (n->uses_complete || !n->hello.volumes);
}

static bool is_known_somewhere(const struct engine *e, const struct dataset_entry *entry)
{
    for (size_t i = 0; i < entry->n_reports; i++) {
        if (is_known_at(e, entry, &entry->reports[i].node))
            return true;
    }
    return false;
}

/* A node that has it mounted, and either has mounts without the lease, or has not told yet. */
static bool has_first(const struct engine *e, const struct dataset_entry *entry,
                      const struct uuid *node)
{
    const struct node_entry *n = node_entry_find(e, node);
    bool tells = n && n->session && n->hello.volumes;

    return tells && is_mounted_on(entry, node) && (!n->uses_complete || uses_any(n, &entry->id));
}

/* May somebody else have it mounted, of whom a store that was put back does not know? `ret_why` (may be NULL) says so. */
static bool may_be_mounted(const struct engine *e, const struct dataset_entry *entry,
                           const struct uuid *node, char **ret_why)
{
    CLEANUP_STR struct str away = {0};

    if (!e->history.restored || is_mounted_on(entry, node))
        return false;
    for (size_t i = 0; i < entry->n_reports; i++) {
        const struct uuid *other = &entry->reports[i].node;
        if (!has_first(e, entry, other))
            continue;
        if (ret_why)
            *ret_why = xasprintf("node %s has the volume mounted", UUID_STR(other));
        return true;
    }
    if (!is_doubted(e, entry->head) || is_known_somewhere(e, entry))
        return false;
    append_nodes_away(e, &away);
    if (ret_why)
        *ret_why = xasprintf("the store was put back from a copy of revision %llu, and a node that "
                             "is not here may have the volume mounted since%s%s; "
                             "when all nodes are back: flockerctl adopt",
                             (unsigned long long)e->history.restored, away.len ? ": " : "",
                             away.len ? away.data : "");
    return true;
}

/* What was dropped is given to nobody; it stays with those who have it. */
static bool is_dropped_elsewhere(const struct dataset_entry *entry, const struct uuid *node)
{
    return entry->head->dropped && !(uuid_eq(&entry->head->owner, node) && is_mounted_on(entry, node));
}

/* Takes the lease for a mount that the node has, if it can be had: else false. Where the data are wanted stays as it is. */
static bool take_use(struct engine *e, struct now now, const struct node_entry *n, const struct use *u)
{
    const struct lease_entry *l = lease_entry_find(e, &u->dataset);
    const struct dataset_entry *d = dataset_entry_find(e, &u->dataset);
    bool others = l && l->head && !uuid_eq(&l->head->node, &n->id);

    if (l && l->head && !others && lease_has_mount(l->head, u->mount))
        return true;
    if (others || !d || !d->head || node_is_fenced(e, &n->id) ||
        is_leaving(e, &u->dataset, &n->id) || is_dropped_elsewhere(d, &n->id) ||
        (l && l->head && l->head->n_mounts >= LEASE_MOUNTS_MAX) ||
        may_be_mounted(e, d, &n->id, NULL))
        return false;
    take_mount(e, now, &u->dataset, &n->id, u->mount);
    return true;
}

/* The node has told all its uses: its leases follow. */
static void settle_uses(struct engine *e, struct now now, struct node_entry *n)
{
    uint64_t before = e->head_revision;

    n->uses_unmet = false;
    for (size_t i = 0; i < n->uses.n; i++) {
        if (take_use(e, now, n, &n->uses.all[i]))
            continue;
        n->uses_unmet = true;
        if (dataset_entry_find(e, &n->uses.all[i].dataset)) /* else when it is made: propose_dataset() */
            e->uses_unmet = true;
    }
    for (size_t k = FAULT(LEAK_MOUNTS) ? 0 : near_count(e, &n->id, NEAR_LEASES); k-- > 0;) {
        struct lease_entry *l = near_entry(e, &n->id, NEAR_LEASES, k);
        if (l->head && uuid_eq(&l->head->node, &n->id))
            drop_unused(e, n, l);
    }
    if (e->head_revision != before)
        e->head_config = e->head_revision;
}

void settle_all_uses(struct engine *e, struct now now, unsigned flags)
{
    if ((flags & USES_UNMET_ONLY) && !e->uses_unmet)
        return;
    e->uses_unmet = false;
    for (struct node_entry *n = e->nodes; n; n = n->hh.next) {
        if (n->session && n->uses_complete && (n->uses_unmet || !(flags & USES_UNMET_ONLY)))
            settle_uses(e, now, n);
    }
}

static bool tells_uses(const struct node_entry *n)
{
    return n && n->hello.volumes && !n->refuses;
}

void engine_volume_use(struct engine *e, struct now now, uint64_t session, const struct volume_use *use)
{
    struct node_entry *n = node_of_session(e, session);

    if (!tells_uses(n) || n->uses_complete || n->uses.n >= USES_MAX)
        return;
    const struct dataset_entry *entry = uuid_is_nil(&use->dataset) ? volume_of_call(e, &use->dataset, use->name) : NULL;
    if (entry || !uuid_is_nil(&use->dataset))
        use_add(&n->uses, entry ? &entry->id : &use->dataset, use->mount, now.wall_us);
}

void engine_volume_uses_complete(struct engine *e, struct now now, uint64_t session)
{
    struct node_entry *n = node_of_session(e, session);

    if (!tells_uses(n) || n->uses_complete)
        return;
    n->uses_complete = true;
    settle_uses(e, now, n);
    if (n->complete)
        queue_datasets_of(e, &n->id); /* what was dropped, and nobody uses, goes now */
    run_queue(e, now);
}

/* ---- calls ---- */

static enum result_code create(struct engine *e, const struct node_entry *n, struct command *c, struct command_result *r)
{
    const char *name = metadata_get(&c->dataset->metadata, "name");
    struct dataset_entry *entry = name ? volume_named(e, name) : NULL;

    if (!entry) {
        c->dataset->id = uuid_random_v4(&e->random);
        entry = dataset_entry_get(e, &c->dataset->id);
        c->dataset->primary = n->id;
        c->dataset->number = next_number(e); /* not of any copy that the store was put back from */
        grant_at_birth(e, entry, c->dataset);
        propose_dataset(e, entry, steal(&c->dataset));
        r->dataset = dataset_copy(entry->head);
        return RESULT_CREATED;
    }
    r->dataset = dataset_copy(entry->head);
    return RESULT_OK;
}

static enum result_code remove_volume(struct engine *e, struct now now, struct command *c, struct command_result *r)
{
    struct dataset_entry *entry = volume_of_call(e, &c->dataset_id, c->name);

    if (!entry)
        return RESULT_OK;
    if (is_held_for(e, &entry->id, &UUID_NIL, r))
        return RESULT_LEASE_HELD;
    struct dataset *d = dataset_copy(entry->head);
    d->deleted = d->purge = true; /* nobody asks for its id any more */
    d->deleted_us = now.wall_us;
    propose_dataset(e, entry, d);
    r->dataset = dataset_copy(entry->head);
    return RESULT_OK;
}

static enum result_code use_of(struct engine *e, struct now now, const struct uuid *node, const char *mount,
                               struct dataset_entry *entry, struct command_result *r)
{
    const struct lease_entry *l = lease_entry_find(e, &entry->id);

    if (is_held_for(e, &entry->id, node, r))
        return RESULT_LEASE_HELD;
    if (may_be_mounted(e, entry, node, &r->text))
        return RESULT_MOUNTS_UNKNOWN;
    if (is_leaving(e, &entry->id, node) && !FAULT(LEASE_IN_RELEASE))
        return RESULT_LEASE_RELEASING;
    if (!l || !l->head || !lease_has_mount(l->head, mount)) {
        if (l && l->head && l->head->n_mounts >= LEASE_MOUNTS_MAX)
            return RESULT_LEASE_FULL;
        take_mount(e, now, &entry->id, node, mount);
    }
    if (!uuid_eq(&entry->head->primary, node)) {
        struct dataset *d = dataset_copy(entry->head);
        d->primary = *node;
        propose_dataset(e, entry, d);
    }
    lease_copy(&r->lease, lease_entry_find(e, &entry->id)->head);
    r->dataset = dataset_copy(entry->head);
    return RESULT_OK;
}

static enum result_code use(struct engine *e, struct now now, struct node_entry *n, const struct command *c,
                            struct command_result *r)
{
    struct dataset_entry *entry = volume_of_call(e, &c->dataset_id, c->name);

    if (!entry)
        return RESULT_DATASET_NOT_FOUND;
    if (node_is_fenced(e, &n->id))
        return RESULT_NODE_FENCED;
    if (n->uses.n >= USES_MAX)
        return RESULT_LEASE_FULL;
    enum result_code code = use_of(e, now, &n->id, c->mount, entry, r);
    if (code == RESULT_OK) {
        use_add(&n->uses, &entry->id, c->mount, now.wall_us);
        (void)use_remove(&n->waits, &entry->id, c->mount);
    } else if (n->waits.n < WAITS_MAX) {
        use_add(&n->waits, &entry->id, c->mount, now.wall_us);
    }
    return code;
}

static enum result_code unuse(struct engine *e, struct node_entry *n, const struct command *c)
{
    const struct dataset_entry *d = uuid_is_nil(&c->dataset_id) ? volume_of_call(e, &c->dataset_id, c->name) : NULL;
    const struct uuid *id = d ? &d->id : &c->dataset_id;
    struct lease_entry *l = lease_entry_find(e, id);
    struct dataset_entry *used = dataset_entry_find(e, id);

    if (use_remove(&n->uses, id, c->mount) && used)
        queue_dataset(e, used); /* one that was dropped goes with the last of them */
    (void)use_remove(&n->waits, id, c->mount);
    if (l && l->head && uuid_eq(&l->head->node, &n->id) && lease_has_mount(l->head, c->mount))
        drop_mount(e, l, c->mount);
    return RESULT_OK;
}

enum result_code volume_command(struct engine *e, struct now now, struct command *c, struct command_result *r)
{
    struct node_entry *n = node_of_session(e, c->session);

    if (!tells_uses(n))
        return RESULT_NODE_REFUSES;
    if (c->kind == COMMAND_VOLUME_CREATE)
        return create(e, n, c, r);
    if (c->kind == COMMAND_VOLUME_REMOVE)
        return remove_volume(e, now, c, r);
    return c->kind == COMMAND_VOLUME_USE ? use(e, now, n, c, r) : unuse(e, n, c);
}

/* ---- reading ---- */

static void holder_of(const struct engine *e, const struct uuid *dataset, struct volume_entry *v)
{
    const struct lease_entry *l = lease_entry_find(e, dataset);
    const struct container_entry *user = container_using(e, dataset, /* committed= */ true);

    if (l && l->committed) {
        v->holder = l->committed->n_mounts ? HOLDER_MOUNTS : HOLDER_LEASE;
        v->holder_node = l->committed->node;
        v->holder_since_us = l->committed->since_us;
        v->holder_text = lease_text(e, l->committed);
    } else if (user) {
        v->holder = HOLDER_CONTAINER;
        v->holder_node = user->committed->node;
        v->holder_text = user_text(e, user->committed);
    }
}

bool engine_volume(const struct engine *e, struct now now, const struct uuid *id, struct volume_entry *ret)
{
    const struct dataset *d = engine_dataset(e, id);
    const char *name = d && !d->deleted ? metadata_get(&d->metadata, "name") : NULL;

    if (!name)
        return false;
    const struct node_entry *home = node_entry_find(e, &d->primary);
    *ret = (struct volume_entry){.dataset = *id,
                                 .name = xstrdup(name),
                                 .home = d->primary,
                                 .home_host = xstrdup_null(home ? home->hello.host : NULL),
                                 .owner = d->owner,
                                 .maximum_size = d->maximum_size,
                                 .profile = xstrdup_null(metadata_get(&d->metadata, METADATA_PROFILE)),
                                 .born = d->born};
    holder_of(e, id, ret);
    engine_dataset_reason(e, now, id, &ret->reason);
    return true;
}

void engine_each_wait(const struct engine *e, const struct uuid *dataset,
                      void (*fn)(void *, const struct uuid *node, uint64_t since_us), void *cookie)
{
    for (const struct node_entry *n = e->nodes; n; n = n->hh.next) {
        const struct use *first = NULL;
        for (size_t i = 0; i < n->waits.n; i++) {
            const struct use *u = &n->waits.all[i];
            if (uuid_eq(&u->dataset, dataset) && (!first || u->since_us < first->since_us))
                first = u;
        }
        if (first)
            fn(cookie, &n->id, first->since_us);
    }
}
