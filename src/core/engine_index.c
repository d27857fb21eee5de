/* What concerns a node, what uses a dataset, which lease ends next: kept up to date, so that nothing has to be searched
 * for. Everything here can be computed from the entries; it decides nothing. */
#include "core/engine_internal.h"
#include "core/fault.h"

/* ---- in the order of lists ---- */

int compare_dataset(const void *key, const void *item)
{
    return uuid_cmp(key, &((const struct dataset_entry *)item)->id);
}

int compare_container(const void *key, const void *item)
{
    return strcmp(key, ((const struct container_entry *)item)->name);
}

int compare_lease(const void *key, const void *item)
{
    return uuid_cmp(key, &((const struct lease_entry *)item)->dataset);
}

int compare_node(const void *key, const void *item)
{
    return uuid_cmp(key, &((const struct node_entry *)item)->id);
}

/* Only asked for by equality, so the order may be that of a hash: it lies in the entry, where comparing the names
 * themselves would follow four pointers. */
struct name_key {
    uint32_t hash;
    struct uuid id;
};

static int compare_name(const void *key, const void *item)
{
    const struct name_key *k = key;
    const struct dataset_entry *entry = item;

    if (k->hash != entry->name_hash)
        return k->hash < entry->name_hash ? -1 : 1;
    return uuid_cmp(&k->id, &entry->id);
}

static uint32_t hash_of(const char *name)
{
    unsigned hash;

    HASH_VALUE(name, strlen(name), hash);
    return hash;
}

static const char *name_of(const struct dataset_entry *entry)
{
    return is_configured(entry->committed) ? metadata_get(&entry->committed->metadata, "name")
                                           : NULL;
}

static void index_name(struct engine *e, struct dataset_entry *entry)
{
    const char *name = name_of(entry);
    uint32_t hash = name ? hash_of(name) : 0;

    if (e->restoring || (entry->named == (name != NULL) && entry->name_hash == hash))
        return;
    entry->was_named |= entry->named;
    if (entry->named)
        sorted_remove(&e->dataset_names, compare_name, &(struct name_key){entry->name_hash, entry->id});
    entry->named = name != NULL;
    entry->name_hash = hash;
    if (name)
        sorted_add(&e->dataset_names, compare_name, &(struct name_key){hash, entry->id}, entry);
}

/* What an entry is ordered by, or the beginning of it: a million of them one by one would mean twenty million looks at entries all
 * over the memory. */
struct order_key {
    uint64_t begin;
    struct dataset_entry *entry;
};

static int compare_order(const void *a, const void *b)
{
    const struct order_key *p = a, *q = b;

    if (p->begin != q->begin)
        return p->begin < q->begin ? -1 : 1;
    return uuid_cmp(&p->entry->id, &q->entry->id);
}

static void fill_in_order(struct sorted *set, struct order_key *keys, size_t n)
{
    void **items = xcalloc(n + 1, sizeof(void *));

    if (n)
        qsort(keys, n, sizeof(*keys), compare_order);
    for (size_t i = 0; i < n; i++)
        items[i] = keys[i].entry;
    sorted_done(set);
    sorted_fill(set, items, n);
    free(items);
}

static uint64_t beginning(const struct uuid *id)
{
    uint64_t v = 0;

    for (int i = 0; i < 8; i++)
        v = v << 8 | id->b[i];
    return v;
}

void index_restored(struct engine *e)
{
    struct order_key *keys = xcalloc(HASH_COUNT(e->datasets) + 1u, sizeof(*keys));
    size_t n = 0;

    e->restoring = false;
    for (struct dataset_entry *d = e->datasets; d; d = d->hh.next)
        keys[n++] = (struct order_key){beginning(&d->id), d};
    fill_in_order(&e->dataset_ids, keys, n);
    n = 0;
    for (struct dataset_entry *d = e->datasets; d; d = d->hh.next) {
        const char *name = name_of(d);
        d->named = name != NULL;
        d->name_hash = name ? hash_of(name) : 0;
        if (name)
            keys[n++] = (struct order_key){d->name_hash, d};
    }
    fill_in_order(&e->dataset_names, keys, n);
    free(keys);
}

struct sorted_place datasets_named(const struct engine *e, const char *name,
                                   const struct uuid *after)
{
    struct name_key key = {hash_of(name), after ? *after : UUID_NIL};

    return sorted_after(&e->dataset_names, compare_name, &key);
}

struct dataset_entry *next_named(const struct engine *e, const char *name,
                                 struct sorted_place *place)
{
    uint32_t hash = hash_of(name);
    struct dataset_entry *entry;

    while ((entry = sorted_next(&e->dataset_names, place)) && entry->name_hash == hash) {
        if (streq(name_of(entry), name)) /* else another name with the same hash */
            return entry;
    }
    return NULL;
}

/* ---- by node ---- */

static struct node_near *node_near_find(const struct engine *e, const struct uuid *node)
{
    struct node_near *n;

    HASH_FIND(hh, e->near, node, sizeof(*node), n);
    return n;
}

static struct node_near *node_near_get(struct engine *e, const struct uuid *node)
{
    struct node_near *n = node_near_find(e, node);

    if (n)
        return n;
    n = xcalloc(1, sizeof(*n));
    n->node = *node;
    HASH_ADD(hh, e->near, node, sizeof(n->node), n);
    return n;
}

static void leave(struct engine *e, struct near_set *set, size_t number, enum near_kind kind)
{
    struct near_link gone = set->links[number];
    struct near_list *list = &gone.node->lists[kind];
    struct near_set *last = list->sets[--list->n];

    set->links[number] = set->links[--set->n];
    if (last != set) {
        list->sets[gone.place] = last;
        for (size_t i = 0; i < last->n; i++) {
            if (last->links[i].node == gone.node)
                last->links[i].place = gone.place;
        }
    }
    for (int k = 0; k < NEAR_KINDS; k++) {
        if (gone.node->lists[k].n)
            return;
    }
    HASH_DEL(e->near, gone.node);
    for (int k = 0; k < NEAR_KINDS; k++)
        free(gone.node->lists[k].sets);
    free(gone.node);
}

static void join(struct engine *e, struct near_set *set, const struct uuid *node,
                 enum near_kind kind)
{
    if (uuid_is_nil(node))
        return;
    for (size_t i = 0; i < set->n; i++) {
        if (!uuid_eq(&set->links[i].node->node, node))
            continue;
        set->links[i].seen = true;
        return;
    }
    struct node_near *n = node_near_get(e, node);
    struct near_list *list = &n->lists[kind];
    list->sets = mem_grow(list->sets, list->n, &list->cap, sizeof(struct near_set *));
    list->sets[list->n] = set;
    if (set->n == set->cap)
        set->links = xrealloc(set->links, ++set->cap, sizeof(*set->links));
    set->links[set->n++] = (struct near_link){.node = n, .place = list->n++, .seen = true};
}

static void leave_unseen(struct engine *e, struct near_set *set, enum near_kind kind)
{
    for (size_t i = set->n; i-- > 0;) {
        if (!set->links[i].seen)
            leave(e, set, i, kind);
        else
            set->links[i].seen = false;
    }
}

void index_dataset(struct engine *e, struct dataset_entry *entry)
{
    const struct dataset *d = entry->committed;

    index_name(e, entry);
    index_replica(e, entry);
    if (d) {
        join(e, &entry->near, &d->primary, NEAR_DATASETS);
        join(e, &entry->near, &d->owner, NEAR_DATASETS);
        for (size_t i = 0; i < d->n_holders; i++)
            join(e, &entry->near, &d->holders[i], NEAR_DATASETS);
    }
    for (size_t i = 0; i < entry->n_reports; i++)
        join(e, &entry->near, &entry->reports[i].node, NEAR_DATASETS);
    leave_unseen(e, &entry->near, NEAR_DATASETS);
}

size_t near_count(const struct engine *e, const struct uuid *node, enum near_kind kind)
{
    const struct node_near *n = node_near_find(e, node);

    return n ? n->lists[kind].n : 0;
}

void *near_entry(const struct engine *e, const struct uuid *node, enum near_kind kind, size_t number)
{
    const struct node_near *n = node_near_find(e, node);

    return n && number < n->lists[kind].n ? n->lists[kind].sets[number] : NULL;
}

struct dataset_entry *near_dataset(const struct engine *e, const struct uuid *node, size_t number)
{
    return near_entry(e, node, NEAR_DATASETS, number);
}

struct container_entry *near_container(const struct engine *e, const struct uuid *node,
                                       size_t number)
{
    return near_entry(e, node, NEAR_CONTAINERS, number);
}

/* ---- containers: by node, and by the dataset they use ---- */

static void stop_using(struct engine *e, struct container_entry *entry, const struct uuid *dataset)
{
    struct dataset_entry *d = dataset_entry_find(e, dataset);

    for (size_t i = 0; i < d->n_users; i++) {
        if (d->users[i] != entry)
            continue;
        d->users[i] = d->users[--d->n_users];
        break;
    }
    dataset_entry_gc(e, d);
}

static void begin_using(struct engine *e, struct container_entry *entry, const struct uuid *dataset)
{
    struct dataset_entry *d = dataset_entry_get(e, dataset);

    d->users = xrealloc(d->users, d->n_users + 1u, sizeof(struct container_entry *));
    d->users[d->n_users++] = entry;
}

/* Those of the committed value, and of the newest. */
static void index_volumes(struct engine *e, struct container_entry *entry)
{
    const struct container *now[2] = {entry->committed,
                                      entry->head == entry->committed ? NULL : entry->head};
    size_t n_before = entry->n_uses, most = 0;
    struct uuid *before = entry->uses;

    for (size_t i = 0; i < 2; i++)
        most += now[i] ? now[i]->n_volumes : 0;
    if (!most && !n_before)
        return;
    entry->uses = xcalloc(most, sizeof(*entry->uses));
    entry->n_uses = 0;
    for (size_t i = 0; i < 2; i++) {
        for (size_t k = 0; now[i] && k < now[i]->n_volumes; k++) {
            const struct uuid *dataset = &now[i]->volumes[k].dataset;
            if (i && now[0] && container_uses(now[0], dataset))
                continue;
            entry->uses[entry->n_uses++] = *dataset;
            begin_using(e, entry, dataset);
        }
    }
    for (size_t i = 0; i < n_before; i++)
        stop_using(e, entry, &before[i]);
    free(before);
}

void index_container(struct engine *e, struct container_entry *entry)
{
    if (entry->committed)
        join(e, &entry->near, &entry->committed->node, NEAR_CONTAINERS);
    for (size_t i = 0; i < entry->n_reports; i++)
        join(e, &entry->near, &entry->reports[i].node, NEAR_CONTAINERS);
    leave_unseen(e, &entry->near, NEAR_CONTAINERS);
    index_volumes(e, entry);
    index_dependencies(e, entry);
}

const struct container_entry *container_using(const struct engine *e, const struct uuid *dataset,
                                              bool committed)
{
    const struct dataset_entry *d = dataset_entry_find(e, dataset);

    for (size_t i = 0; d && i < d->n_users; i++) {
        const struct container *c = committed ? d->users[i]->committed : d->users[i]->head;
        if (c && container_uses(c, dataset))
            return d->users[i];
    }
    return NULL;
}

/* ---- sessions ---- */

void index_session(struct engine *e, struct node_entry *n, uint64_t session)
{
#ifdef FLOCKER_FAULTS
    n->old_session = n->session ? n->session : n->old_session;
#endif
    if (n->session)
        HASH_DELETE(by_session, e->sessions, n);
    n->session = session;
    if (session)
        HASH_ADD(by_session, e->sessions, session, sizeof(n->session), n);
}

struct node_entry *node_of_session(const struct engine *e, uint64_t session)
{
    struct node_entry *n = NULL;

    if (session)
        HASH_FIND(by_session, e->sessions, &session, sizeof(session), n);
#ifdef FLOCKER_FAULTS
    for (struct node_entry *k = e->nodes; k && session && !n && FAULT(OLD_SESSION); k = k->hh.next)
        n = k->old_session == session ? k : NULL;
#endif
    return n;
}

/* ---- leases that expire: a heap by the time of the newest value ---- */

static uint64_t expiry_at(const struct engine *e, size_t place)
{
    return e->expiring[place]->expires_mono_us;
}

static void put_lease(struct engine *e, size_t place, struct lease_entry *l)
{
    e->expiring[place] = l;
    l->place = place + 1;
}

static void sift_up(struct engine *e, size_t place)
{
    struct lease_entry *l = e->expiring[place];

    for (; place && expiry_at(e, (place - 1) / 2) > l->expires_mono_us; place = (place - 1) / 2)
        put_lease(e, place, e->expiring[(place - 1) / 2]);
    put_lease(e, place, l);
}

static void sift_down(struct engine *e, size_t place)
{
    struct lease_entry *l = e->expiring[place];

    for (size_t child; (child = 2 * place + 1) < e->n_expiring; place = child) {
        if (child + 1 < e->n_expiring && expiry_at(e, child + 1) < expiry_at(e, child))
            child++;
        if (expiry_at(e, child) >= l->expires_mono_us)
            break;
        put_lease(e, place, e->expiring[child]);
    }
    put_lease(e, place, l);
}

static void index_expiry(struct engine *e, struct lease_entry *l)
{
    bool waits = l->head && !l->pending && l->expires_mono_us != USEC_NEVER;

    if (waits && !l->place) {
        e->expiring =
            mem_grow(e->expiring, e->n_expiring, &e->cap_expiring, sizeof(struct lease_entry *));
        put_lease(e, e->n_expiring++, l);
        sift_up(e, l->place - 1);
    } else if (waits) {
        sift_up(e, l->place - 1);
        sift_down(e, l->place - 1);
    } else if (l->place) {
        size_t place = l->place - 1;
        struct lease_entry *last = e->expiring[--e->n_expiring];
        l->place = 0;
        if (last == l)
            return;
        put_lease(e, place, last);
        sift_up(e, place);
        sift_down(e, last->place - 1);
    }
}

void index_lease(struct engine *e, struct lease_entry *l)
{
    if (l->committed)
        join(e, &l->near, &l->committed->node, NEAR_LEASES);
    if (l->head)
        join(e, &l->near, &l->head->node, NEAR_LEASES);
    leave_unseen(e, &l->near, NEAR_LEASES);
    index_expiry(e, l);
}

struct lease_entry *next_expiring(const struct engine *e)
{
    return e->n_expiring ? e->expiring[0] : NULL;
}

/* ---- the end ---- */

void each_near_node(const struct engine *e, void (*fn)(void *, const struct uuid *node), void *cookie)
{
    for (const struct node_near *n = e->near; n; n = n->hh.next)
        fn(cookie, &n->node);
}

void index_free(struct engine *e)
{
    struct node_near *n, *next;

    HASH_ITER (hh, e->near, n, next) {
        HASH_DEL(e->near, n);
        for (int k = 0; k < NEAR_KINDS; k++)
            free(n->lists[k].sets);
        free(n);
    }
    HASH_CLEAR(by_session, e->sessions);
    sorted_done(&e->dataset_ids);
    sorted_done(&e->lease_ids);
    sorted_done(&e->node_ids);
    sorted_done(&e->container_names);
    sorted_done(&e->dataset_names);
    free(e->expiring);
}
