/* What each node is told: computed from committed records only, sent when it differs from what was sent. */
#include "core/engine_internal.h"
#include "core/fault.h"

static struct node_entry *open_node(const struct engine *e, const struct uuid *id)
{
    struct node_entry *n = node_entry_find(e, id);

    return n && n->session && (n->complete || n->sending) ? n : NULL;
}

static void set_peer(const struct engine *e, struct order *o, const struct uuid *peer)
{
    const struct node_entry *n = node_entry_find(e, peer);

    o->peer = *peer;
    if (n && n->hello.host) {
        o->peer_host = xstrdup(n->hello.host);
        o->peer_port = n->hello.mover_port;
    }
}

/* The nodes of which one compares what it has with what the other has. */
static void set_comparison(const struct engine *e, const struct dataset_entry *entry, struct order *o, const struct uuid *peer)
{
    const struct node_entry *owner = node_entry_find(e, &entry->committed->owner), *n = node_entry_find(e, peer);
    uint64_t number = comparison_ordered(entry);

    if (!number || !owner || !owner->hello.compares || !n || !n->hello.compares)
        return;
    o->compare = number;
    set_peer(e, o, peer);
}

/* From whom the owner may take the volume away, where a volume is attached to one node at a time. */
static void set_fenced(const struct engine *e, const struct dataset *d, struct order *o)
{
    const struct node_entry *owner = node_entry_find(e, &d->owner);

    if (!d->fenced || !owner || owner->hello.storage != STORAGE_ATTACHABLE)
        return;
    for (size_t i = 0; i < d->fenced->n_nodes; i++)
        order_add_fenced(o, &d->fenced->nodes[i]);
}

static void order_of_owner(const struct engine *e, const struct dataset_entry *entry, struct order *o)
{
    const struct dataset *d = entry->committed;

    if (d->dropped && d->born && !d->recalled && !d->transfer.id && !may_be_used_by_docker(e, entry, &d->owner)) {
        o->role = ROLE_KEEP;
        return;
    }
    o->role = ROLE_OWNER;
    o->epoch = d->epoch;
    o->base = xstrdup_null(d->base);
    o->keep = d->replica ? xstrdup(d->replica->base) : NULL;
    set_fenced(e, d, o);
    if (!d->transfer.id) {
        if (d->replica)
            set_comparison(e, entry, o, &d->replica->node);
        return;
    }
    o->role = d->transfer.phase == TRANSFER_COPY ? ROLE_SOURCE : ROLE_RELEASE;
    o->transfer = d->transfer.id;
    set_peer(e, o, &d->transfer.destination);
}

/* A copy that is not needed any more goes, or is made less, only when the data are known to be safe where they belong. */
static enum role role_of_other(const struct engine *e, const struct dataset_entry *entry, const struct uuid *node)
{
    const struct dataset *d = entry->committed;

    if (!d->born)
        return ROLE_DROP;
    if (keeps_copy(e, d, node))
        return ROLE_KEEP;
    if (!node_ready(e, &d->owner) || !report_is_mounted_at(report_of(entry, &d->owner), d->epoch))
        return ROLE_KEEP;
    if (!dataset_is_replica(d, node))
        return ROLE_DROP;
    return node_entry_find(e, node)->hello.replicas == REPLICAS_NONE ? ROLE_KEEP : ROLE_REPLICA;
}

/* Is a node to take something away by an order of that role? Not what came to it later than the record says. */
static bool takes_away(enum role role)
{
    return role != ROLE_NONE && role != ROLE_OWNER && role != ROLE_SOURCE && role != ROLE_RELEASE;
}

static void order_for(const struct engine *e, const struct dataset_entry *entry,
                      const struct uuid *node, struct order *ret)
{
    const struct dataset *d = entry->committed;
    struct order o = {.dataset = d->id, .revision = d->revision, .born = d->born,
                      .maximum_size = d->maximum_size};

    bool doubted = is_doubted(e, d) && (d->deleted || (!d->born && uuid_eq(node, &d->owner)));
    doubted |= uuid_eq(node, &d->owner) && may_have_been_fenced(e, entry);
    bool orphan = d->born && !d->deleted && uuid_is_nil(&d->owner) && !dataset_freed_from(d);

    const struct report *r = FAULT(KEEP_FENCED_MOUNT) && dataset_is_fenced(d, node) ? report_of(entry, node) : NULL;
    if (r && r->volume.mark.state == MARK_OWNED) {
        o.role = ROLE_OWNER;
        o.epoch = r->volume.mark.epoch;
    } else if (doubted || orphan) {
        o.role = ROLE_NONE; /* neither make it nor destroy it before it is settled who has it */
    } else if (d->deleted && d->tombstone) {
        o.role = ROLE_DESTROY;
    } else if (node_is_fenced(e, node)) {
        o.role = ROLE_KEEP; /* whatever it had: it is nobody's, or another's */
    } else if (!uuid_is_nil(&d->owner) && uuid_eq(node, &d->owner)) {
        order_of_owner(e, entry, &o);
    } else if (d->transfer.id && uuid_eq(node, &d->transfer.destination)) {
        o.role = ROLE_RECEIVE;
        o.transfer = d->transfer.id;
        set_peer(e, &o, &d->transfer.source);
    } else {
        o.role = role_of_other(e, entry, node);
        if (o.role == ROLE_REPLICA) {
            o.keep = xstrdup(d->replica->base);
            set_comparison(e, entry, &o, &d->owner);
        }
    }
    if (takes_away(o.role))
        o.number = o.role == ROLE_DESTROY ? d->tombstone : d->number;
    metadata_copy(&o.metadata, &d->metadata);
    *ret = o;
}

static struct dataset_sent *sent_to(struct dataset_entry *entry, const struct uuid *node)
{
    for (size_t i = 0; i < entry->n_sent; i++) {
        if (uuid_eq(&entry->sent[i].node, node))
            return &entry->sent[i];
    }
    entry->sent = xrealloc(entry->sent, entry->n_sent + 1u, sizeof(*entry->sent));
    struct dataset_sent *s = &entry->sent[entry->n_sent++];
    *s = (struct dataset_sent){.node = *node};
    return s;
}

static void send_order(struct engine *e, struct dataset_entry *entry, const struct node_entry *n)
{
    struct dataset_sent *s = sent_to(entry, &n->id);
    struct order o;

    order_for(e, entry, &n->id, &o);
    struct digest digest = order_digest(&o);
    if (s->session == n->session && s->order.low == digest.low && s->order.high == digest.high) {
        order_done(&o);
        return;
    }
    s->session = n->session;
    s->order = digest;
    struct effect *f = effect_push(e, EFFECT_ORDER);
    f->session = n->session;
    f->order = o;
}

/* Its removal is confirmed, and that is being written down: what would be ordered in a new session meanwhile could be carried
 * out after the dataset was forgotten and made again elsewhere (seed 12341). */
static bool is_being_struck(const struct dataset_entry *entry, const struct uuid *node)
{
    return entry->pending && (!entry->head || !dataset_has_holder(entry->head, node));
}

void update_dataset_orders(struct engine *e, struct dataset_entry *entry)
{
    const struct dataset *d = entry->committed;

    for (size_t i = 0; i < entry->n_sent;) {
        struct dataset_sent *s = &entry->sent[i];
        if (dataset_has_holder(d, &s->node)) {
            i++;
            continue;
        }
        const struct node_entry *n = open_node(e, &s->node);
        if (n && s->session == n->session) {
            struct effect *f = effect_push(e, EFFECT_ORDER_NONE);
            f->session = n->session;
            f->dataset = entry->id;
        }
        *s = entry->sent[--entry->n_sent];
    }
    for (size_t i = 0; i < d->n_holders; i++) {
        const struct node_entry *n = open_node(e, &d->holders[i]);
        if (n && !is_being_struck(entry, &n->id))
            send_order(e, entry, n);
    }
}

/* Where containers may use the dataset; nil = nowhere. */
static const struct uuid *mounted_on(const struct engine *e, const struct uuid *dataset)
{
    static const struct uuid nowhere;
    const struct dataset_entry *entry = dataset_entry_find(e, dataset);
    const struct dataset *d = entry ? entry->committed : NULL;
    bool leaving = d && ((d->transfer.id && d->transfer.phase == TRANSFER_RELEASE) || d->tombstone);

    return d && d->born && !leaving ? &d->owner : &nowhere;
}

void container_places(const struct engine *e, const struct container *c, struct uuid *ret_run,
                      struct uuid *ret_prepare)
{
    *ret_prepare = UUID_NIL;
    *ret_run = c->n_volumes ? *mounted_on(e, &c->volumes[0].dataset) : c->node;
    for (size_t i = 1; i < c->n_volumes; i++) {
        if (!uuid_eq(mounted_on(e, &c->volumes[i].dataset), ret_run))
            *ret_run = UUID_NIL;
    }
    if (node_is_fenced(e, ret_run))
        *ret_run = UUID_NIL;
    if (!uuid_eq(ret_run, &c->node) && !node_is_fenced(e, &c->node))
        *ret_prepare = c->node;
}

bool knows_settings(const struct engine *e, const struct container *c, const struct uuid *node)
{
    const struct node_entry *n = node_entry_find(e, node);

    return !n || ((n->hello.extended || !container_is_extended(c)) &&
                  (n->hello.more_volumes || !container_has_more_volumes(c)));
}

char *unknown_settings_text(const struct engine *e, const struct container *c,
                            const struct uuid *node)
{
    const struct node_entry *n = node_entry_find(e, node);

    return xasprintf("flocker-agent %s of node %s does not know all settings of container %s; "
                     "install the version of the control "
                     "service there",
                     n && n->hello.version ? n->hello.version : "?", UUID_STR(node), c->name);
}

static struct container_sent *container_sent_to(struct container_entry *entry,
                                                const struct uuid *node)
{
    for (size_t i = 0; i < entry->n_sent; i++) {
        if (uuid_eq(&entry->sent[i].node, node))
            return &entry->sent[i];
    }
    entry->sent = mem_grow(entry->sent, entry->n_sent, &entry->cap_sent, sizeof(*entry->sent));
    struct container_sent *s = &entry->sent[entry->n_sent++];
    *s = (struct container_sent){.node = *node};
    return s;
}

static void send_container_order(struct engine *e, struct container_entry *entry,
                                 const struct node_entry *n, enum container_action action)
{
    struct container_sent *s = container_sent_to(entry, &n->id);
    uint64_t revision = entry->committed->revision;
    bool hold = is_held(e, entry);

    if (s->session == n->session && s->action == action && s->revision == revision && s->hold == hold)
        return;
    *s = (struct container_sent){n->id, n->session, action, revision, hold};
    struct effect *f = effect_push(e, EFFECT_CONTAINER_ORDER);
    f->session = n->session;
    f->container_order.action = action;
    f->container_order.hold = hold;
    f->container_order.config = container_copy(entry->committed);
}

void update_container_orders(struct engine *e, struct container_entry *entry)
{
    struct uuid run = UUID_NIL, prepare = UUID_NIL;

    update_routes(e, entry);
    if (entry->committed)
        container_places(e, entry->committed, &run, &prepare);
    if (entry->committed && !knows_settings(e, entry->committed, &run))
        run = UUID_NIL;
    if (entry->committed && !knows_settings(e, entry->committed, &prepare))
        prepare = UUID_NIL;
    if (entry->committed && entry->committed->ended)
        prepare = UUID_NIL; /* it needs its image no more */
    for (size_t i = 0; i < entry->n_sent;) {
        struct container_sent *s = &entry->sent[i];
        if (uuid_eq(&s->node, &run) || uuid_eq(&s->node, &prepare)) {
            i++;
            continue;
        }
        const struct node_entry *n = open_node(e, &s->node);
        if (n && s->session == n->session) {
            struct effect *f = effect_push(e, EFFECT_CONTAINER_NONE);
            f->session = n->session;
            f->name = xstrdup(entry->name);
        }
        *s = entry->sent[--entry->n_sent];
    }
    const struct node_entry *n = uuid_is_nil(&run) ? NULL : open_node(e, &run);
    if (n)
        send_container_order(e, entry, n, CONTAINER_RUN);
    n = uuid_is_nil(&prepare) ? NULL : open_node(e, &prepare);
    if (n)
        send_container_order(e, entry, n, CONTAINER_PREPARE);
}

void send_all_orders(struct engine *e, struct node_entry *node)
{
    node->sending = true;
    for (size_t k = near_count(e, &node->id, NEAR_DATASETS); k-- > 0;) {
        struct dataset_entry *d = near_dataset(e, &node->id, k);
        if (d->committed && dataset_has_holder(d->committed, &node->id) &&
            !is_being_struck(d, &node->id))
            send_order(e, d, node);
        for (size_t i = 0; i < d->n_users; i++) { /* where their dataset is they run, whatever their own node */
            if (d->users[i]->committed)
                update_container_orders(e, d->users[i]);
        }
    }
    for (size_t k = near_count(e, &node->id, NEAR_CONTAINERS); k-- > 0;) {
        struct container_entry *c = near_container(e, &node->id, k);
        if (c->committed)
            update_container_orders(e, c);
    }
    send_all_routes(e, node);
    node->sending = false;
    effect_push(e, EFFECT_ORDERS_COMPLETE)->session = node->session;
}
