/* What users ask for: checked against the newest values, collected for the next commit, answered after it. */
#include "core/engine_internal.h"
#include "core/fault.h"

static char *tag_text(const struct engine *e, uint64_t revision)
{
    return xasprintf("%s-%llu", UUID_STR(&e->history.store), (unsigned long long)revision);
}

char *engine_tag(const struct engine *e)
{
    return tag_text(e, e->config);
}

static bool tag_matches(const struct engine *e, const struct command *c)
{
    CLEANUP_FREE char *tag = tag_text(e, e->head_config);

    for (size_t i = 0; i < c->n_tags; i++) {
        if (streq(c->tags[i], tag))
            return true;
    }
    return false;
}

/* A new dataset whose node is there gets its owner in the same commit. */
void grant_at_birth(struct engine *e, const struct dataset_entry *entry, struct dataset *d)
{
    if (!node_ready(e, &d->primary) || stranger_with_data(entry, d))
        return;
    if (untold_node(e, d) || (is_doubted(e, d) && !is_mounted_on(entry, &d->primary)))
        return;
    d->owner = d->primary;
    d->epoch = d->number = FAULT(REUSE_EPOCH) ? 1 : next_number(e);
    d->born = has_unknown_data(entry, d);
    dataset_add_holder(d, &d->owner);
}

/* A dropped dataset comes back: what is wanted is new, what is known of its data stays, and so does its size when nothing is
 * said about that. */
struct dataset *configured_again(const struct dataset *dropped, const struct dataset *wanted)
{
    struct dataset *d = dataset_copy(dropped);

    d->dropped = false;
    d->primary = wanted->primary;
    if (wanted->maximum_size)
        d->maximum_size = wanted->maximum_size;
    metadata_done(&d->metadata);
    metadata_copy(&d->metadata, &wanted->metadata);
    return d;
}

static enum result_code dataset_create(struct engine *e, struct command *c, struct command_result *r)
{
    struct dataset_entry *entry = dataset_entry_get(e, &c->dataset->id);

    if (is_configured(entry->head))
        return RESULT_DATASET_EXISTS;
    if (entry->head) {
        enum result_code code = check_size(e, entry->head, c->dataset->maximum_size);
        if (code != RESULT_OK)
            return code;
        propose_dataset(e, entry, configured_again(entry->head, c->dataset));
    } else {
        if (c->fresh)
            c->dataset->number = next_number(e); /* not of any copy that the store was put back from */
        grant_at_birth(e, entry, c->dataset);
        propose_dataset(e, entry, steal(&c->dataset));
    }
    r->dataset = dataset_copy(entry->head);
    return RESULT_CREATED;
}

/* A size only grows: what was promised is not taken back. */
enum result_code check_size(const struct engine *e, const struct dataset *d, uint64_t size)
{
    const struct node_entry *owner = node_entry_find(e, &d->owner);

    if (!size || size == d->maximum_size)
        return RESULT_OK;
    if (!d->maximum_size || size < d->maximum_size)
        return RESULT_DATASET_SHRINKS;
    bool fixed = owner && owner->hello.storage == STORAGE_ATTACHABLE && !owner->hello.grows;

    return fixed ? RESULT_DATASET_FIXED : RESULT_OK;
}

static bool is_news(const struct dataset *d, const struct command *c)
{
    return (!c->keep_primary && !uuid_eq(&c->node, &d->primary)) ||
           (c->metadata && !metadata_same(c->metadata, &d->metadata)) ||
           (c->maximum_size && c->maximum_size != d->maximum_size);
}

static struct dataset *updated(const struct dataset *from, const struct command *c)
{
    struct dataset *d = dataset_copy(from);

    if (!c->keep_primary)
        d->primary = c->node;
    if (c->maximum_size)
        d->maximum_size = c->maximum_size;
    if (c->metadata) {
        metadata_done(&d->metadata);
        metadata_copy(&d->metadata, c->metadata);
    }
    return d;
}

static enum result_code dataset_update(struct engine *e, struct command *c, struct command_result *r)
{
    struct dataset_entry *entry = dataset_entry_find(e, &c->dataset_id);

    if (!entry || !is_configured(entry->head))
        return RESULT_DATASET_NOT_FOUND;
    if (entry->head->deleted)
        return RESULT_DATASET_DELETED;
    enum result_code code = check_size(e, entry->head, c->maximum_size);
    if (code != RESULT_OK)
        return code;
    if (!c->keep_primary && !uuid_eq(&c->node, &entry->head->primary)) {
        const struct container_entry *user = container_using(e, &c->dataset_id, /* committed= */ false);
        if (user) {
            r->text = xstrdup(user->name);
            return RESULT_DATASET_OF_CONTAINER;
        }
    }
    if (is_news(entry->head, c))
        propose_dataset(e, entry, updated(entry->head, c));
    r->dataset = dataset_copy(entry->head);
    return RESULT_OK;
}

static enum result_code dataset_delete(struct engine *e, struct now now, struct command *c,
                                       struct command_result *r)
{
    struct dataset_entry *entry = dataset_entry_find(e, &c->dataset_id);

    if (!entry || !is_configured(entry->head))
        return RESULT_DATASET_NOT_FOUND;
    if (!entry->head->deleted || (c->purge && !entry->head->purge)) {
        struct dataset *d = dataset_copy(entry->head);
        d->deleted_us = d->deleted ? d->deleted_us : now.wall_us;
        d->deleted = true;
        d->purge = c->purge;
        propose_dataset(e, entry, d);
    }
    r->dataset = dataset_copy(entry->head);
    return RESULT_OK;
}

/* A set of port numbers: a request may name as many as there are. */
struct port_set {
    uint64_t bits[(UINT16_MAX + 1) / 64];
};

static bool port_set_has(const struct port_set *s, uint16_t port)
{
    return s->bits[port / 64] >> (port % 64) & 1;
}

static void port_set_add(struct port_set *s, uint16_t port)
{
    s->bits[port / 64] |= UINT64_C(1) << (port % 64);
}

/* Is one of its external ports used by another container? 0 is "any", and nobody's. */
static bool external_port_used(const struct engine *e, const struct container *wanted)
{
    struct port_set ports = {0};

    if (!wanted->n_ports)
        return false;
    for (size_t i = 0; i < wanted->n_ports; i++)
        port_set_add(&ports, wanted->ports[i].external);
    for (struct container_entry *c = e->containers; c; c = c->hh.next) {
        for (size_t i = 0; c->head && i < c->head->n_ports; i++) {
            uint16_t port = c->head->ports[i].external;
            if (port && port_set_has(&ports, port))
                return true;
        }
    }
    return false;
}

static enum result_code check_volume(const struct engine *e, const struct uuid *dataset,
                                     const struct uuid *node)
{
    const struct dataset_entry *entry = dataset_entry_find(e, dataset);

    if (!entry || !is_configured(entry->head) || entry->head->deleted)
        return RESULT_DATASET_NOT_FOUND;
    if (!uuid_eq(&entry->head->primary, node))
        return RESULT_DATASET_ELSEWHERE;
    if (container_using(e, dataset, /* committed= */ false))
        return RESULT_DATASET_IN_USE;
    return RESULT_OK;
}

static enum result_code check_volumes(const struct engine *e, const struct container *c)
{
    enum result_code code = RESULT_OK;

    for (size_t i = 0; i < c->n_volumes && code == RESULT_OK; i++)
        code = check_volume(e, &c->volumes[i].dataset, &c->node);
    return code;
}

struct alias {
    const char *text;
    UT_hash_handle hh;
};

/* In the order given: each link's alias, as it was written, then its port. */
static enum result_code check_links(const struct container *c)
{
    CLEANUP_FREE struct alias *aliases = xcalloc(c->n_links, sizeof(*aliases));
    struct alias *seen = NULL, *same;
    struct port_set ports = {0};
    enum result_code code = RESULT_OK;

    for (size_t i = 0; i < c->n_links && code == RESULT_OK; i++) {
        const struct link *l = &c->links[i];
        HASH_FIND_STR(seen, l->alias, same);
        if (same)
            code = RESULT_LINK_ALIAS;
        else if (port_set_has(&ports, l->local_port))
            code = RESULT_LINK_PORT;
        port_set_add(&ports, l->local_port);
        if (same)
            continue;
        aliases[i].text = l->alias;
        HASH_ADD_KEYPTR(hh, seen, l->alias, strlen(l->alias), &aliases[i]);
    }
    HASH_CLEAR(hh, seen);
    return code;
}

/* Contract section 1.4: the first failing check wins. */
static enum result_code check_container(struct engine *e, const struct container *c, struct command_result *r)
{
    const struct container_entry *entry = container_entry_find(e, c->name);

    if (entry && entry->head)
        return RESULT_CONTAINER_EXISTS;
    enum result_code code = check_volumes(e, c);
    if (code == RESULT_OK && external_port_used(e, c))
        code = RESULT_PORT_IN_USE;
    if (code == RESULT_OK)
        code = check_links(c);
    return code == RESULT_OK ? check_dependencies(e, c, r) : code;
}

static enum result_code container_create(struct engine *e, struct command *c,
                                         struct command_result *r)
{
    enum result_code code = check_container(e, c->container, r);

    if (code != RESULT_OK)
        return code;
    struct container_entry *entry = container_entry_get(e, c->container->name);
    container_settle_links(c->container);
    container_settle_volumes(c->container);
    c->container->created = next_number(e);
    propose_container(e, entry, steal(&c->container));
    r->container = container_copy(entry->head);
    return RESULT_CREATED;
}

/* A dataset that is deleted stays where it is. */
static void move_volume(struct engine *e, const struct uuid *dataset, const struct uuid *node)
{
    struct dataset_entry *volume = dataset_entry_find(e, dataset);

    if (!volume || !volume->head || volume->head->deleted || uuid_eq(&volume->head->primary, node))
        return;
    struct dataset *d = dataset_copy(volume->head);
    d->primary = *node;
    propose_dataset(e, volume, d);
}

static enum result_code container_move(struct engine *e, struct command *c,
                                       struct command_result *r)
{
    struct container_entry *entry = container_entry_find(e, c->name);

    if (!entry || !entry->head)
        return RESULT_CONTAINER_NOT_FOUND;
    if (!uuid_eq(&entry->head->node, &c->node)) {
        struct container *moved = container_copy(entry->head);
        moved->node = c->node;
        propose_container(e, entry, moved);
    }
    for (size_t i = 0; i < entry->head->n_volumes; i++)
        move_volume(e, &entry->head->volumes[i].dataset, &c->node);
    r->container = container_copy(entry->head);
    return RESULT_OK;
}

static enum result_code container_delete(struct engine *e, struct command *c)
{
    struct container_entry *entry = container_entry_find(e, c->name);

    if (!entry || !entry->head)
        return RESULT_CONTAINER_NOT_FOUND;
    propose_container(e, entry, NULL);
    return RESULT_OK;
}

bool is_leaving(const struct engine *e, const struct uuid *dataset, const struct uuid *node)
{
    const struct dataset_entry *entry = dataset_entry_find(e, dataset);

    if (!entry || !entry->head)
        return false;
    const struct dataset *d = entry->head;
    if (d->tombstone || (d->recalled && uuid_eq(&d->owner, node)))
        return true;
    return d->transfer.id && d->transfer.phase == TRANSFER_RELEASE &&
           uuid_eq(&d->transfer.source, node);
}

/* May a node have been told to release it by what came after the copy from which the store was put back? It does that, unheard, until
 * it obeys this store. `d` is NULL when the store does not know the dataset. */
static bool may_release_unheard(const struct engine *e, const struct dataset *d, const struct uuid *node)
{
    bool doubted = d ? is_doubted(e, d) : e->history.unsettled;

    return doubted && !node_has_told(e, node);
}

static enum result_code lease_acquire(struct engine *e, struct now now, struct command *c,
                                      struct command_result *r)
{
    struct lease_entry *entry = lease_entry_find(e, &c->dataset_id);
    bool held = entry && entry->head;

    if (held && !uuid_eq(&entry->head->node, &c->node))
        return RESULT_LEASE_HELD;
    if (node_is_fenced(e, &c->node))
        return RESULT_NODE_FENCED;
    const struct dataset_entry *d = dataset_entry_find(e, &c->dataset_id);
    bool leaving = is_leaving(e, &c->dataset_id, &c->node) || (d && d->head && d->head->dropped);
    if (leaving && !FAULT(LEASE_IN_RELEASE))
        return RESULT_LEASE_RELEASING;
    if (may_release_unheard(e, d ? d->head : NULL, &c->node)) {
        r->text = xasprintf("node %s is not here; when all nodes are back: flockerctl adopt", UUID_STR(&c->node));
        return RESULT_RELEASES_UNKNOWN;
    }
    entry = lease_entry_get(e, &c->dataset_id);
    struct lease *l = held ? lease_dup(entry->head) : xcalloc(1, sizeof(*l));
    l->dataset = c->dataset_id;
    l->node = c->node;
    l->acquired = true;
    l->expires = c->expires;
    l->expires_wall_us = 0;
    l->since_us = held ? l->since_us : now.wall_us;
    entry->expires_mono_us = USEC_NEVER;
    if (c->expires) {
        uint64_t left = c->expires_in_us > 0 ? (uint64_t)c->expires_in_us : 0;
        l->expires_wall_us = now.wall_us + left;
        entry->expires_mono_us = now.mono_us + left;
        r->lease_left_us = left;
    }
    propose_lease(e, entry, l);
    lease_copy(&r->lease, l);
    return held ? RESULT_OK : RESULT_CREATED;
}

static enum result_code lease_release(struct engine *e, struct now now, struct command *c,
                                      struct command_result *r)
{
    struct lease_entry *entry = lease_entry_find(e, &c->dataset_id);

    if (!entry || !entry->head)
        return RESULT_LEASE_NOT_FOUND;
    lease_copy(&r->lease, entry->head);
    if (entry->head->expires && entry->expires_mono_us > now.mono_us)
        r->lease_left_us = entry->expires_mono_us - now.mono_us;
    uses_of_lease_forget(e, entry->head);
    propose_lease(e, entry, NULL);
    return RESULT_OK;
}

static enum result_code replica_drop(struct engine *e, const struct command *c, struct command_result *r)
{
    struct dataset_entry *entry = dataset_entry_find(e, &c->dataset_id);

    if (!entry || !is_configured(entry->head))
        return RESULT_DATASET_NOT_FOUND;
    if (!entry->head->replica)
        return RESULT_REPLICA_NOT_FOUND;
    struct dataset *d = dataset_copy(entry->head);
    replica_end(d);
    propose_dataset(e, entry, d);
    r->dataset = dataset_copy(entry->head);
    return RESULT_OK;
}

static enum result_code apply(struct engine *e, struct now now, struct command *c,
                              struct command_result *r)
{
    switch (c->kind) {
    case COMMAND_DATASET_CREATE:
        return dataset_create(e, c, r);
    case COMMAND_DATASET_UPDATE:
        return dataset_update(e, c, r);
    case COMMAND_DATASET_DELETE:
        return dataset_delete(e, now, c, r);
    case COMMAND_CONTAINER_CREATE:
        return container_create(e, c, r);
    case COMMAND_CONTAINER_MOVE:
        return container_move(e, c, r);
    case COMMAND_CONTAINER_DELETE:
        return container_delete(e, c);
    case COMMAND_LEASE_ACQUIRE:
        return lease_acquire(e, now, c, r);
    case COMMAND_LEASE_RELEASE:
        return lease_release(e, now, c, r);
    case COMMAND_COMPOSE:
        return compose(e, c, r);
    case COMMAND_STORE_ADOPT:
        return store_adopt(e, c, r);
    case COMMAND_DATASET_ADOPT:
        return dataset_adopt(e, c, r);
    case COMMAND_REPLICA_DROP:
        return replica_drop(e, c, r);
    case COMMAND_REPLICA_VERIFY:
        return comparison_begin(e, now, c, r);
    case COMMAND_NODE_CORDON:
    case COMMAND_NODE_UNCORDON:
        return node_cordon(e, &c->node, c->kind == COMMAND_NODE_CORDON);
    case COMMAND_VOLUME_CREATE:
    case COMMAND_VOLUME_REMOVE:
    case COMMAND_VOLUME_USE:
    case COMMAND_VOLUME_UNUSE:
        return volume_command(e, now, c, r);
    case COMMAND_NODE_FENCE:
        return node_fence(e, now, c, r);
    case COMMAND_NODE_UNFENCE:
        return node_unfence(e, &c->node);
    case COMMAND_COPY_DROP:
        return copy_drop(e, c, r);
    case COMMAND_MAX:
        break;
    }
    return RESULT_STORE_FAILED;
}

void engine_command(struct engine *e, struct now now, struct command *c)
{
    struct command_result r = {0};
    uint64_t before = e->head_revision;

    if (c->n_tags && !tag_matches(e, c)) {
        r.code = RESULT_TAG_MISMATCH;
        r.text = tag_text(e, e->head_config);
    } else {
        r.code = apply(e, now, c, &r);
        if (e->head_revision != before)
            e->head_config = e->head_revision;
    }
    c->dataset = dataset_free(c->dataset);
    c->container = container_free(c->container);
    if (c->composition)
        composition_done(c->composition);
    reply_later(e, c->id, &r);
    run_queue(e, now);
}
