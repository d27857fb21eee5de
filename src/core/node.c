#include "core/fault.h"
#include "core/node_internal.h"

static const char *const step_names[STEP_MAX] = {
    [STEP_LIST_VOLUMES] = "list-volumes",
    [STEP_OBSERVE] = "observe",
    [STEP_CREATE] = "create",
    [STEP_CLAIM] = "claim",
    [STEP_PROMOTE] = "promote",
    [STEP_MOUNT] = "mount",
    [STEP_UNMOUNT] = "unmount",
    [STEP_SNAPSHOT] = "snapshot",
    [STEP_SEND] = "send",
    [STEP_VERIFY] = "verify",
    [STEP_RELEASE] = "release",
    [STEP_PRUNE] = "prune",
    [STEP_DEMOTE] = "demote",
    [STEP_GROW] = "grow",
    [STEP_DROP] = "drop",
    [STEP_DESTROY] = "destroy",
    [STEP_FORBID] = "forbid",
    [STEP_LIST_CONTAINERS] = "list-containers",
    [STEP_IMAGE] = "image",
    [STEP_START] = "start",
    [STEP_STOP] = "stop",
    [STEP_SPACE] = "space",
    [STEP_ROUTES] = "routes",
};

const char *step_name(enum step_kind k)
{
    return step_names[k];
}

void step_done(struct step *s)
{
    metadata_done(&s->metadata);
    free(s->peer_host);
    free(s->fenced);
    container_free(s->container);
    free(s->name);
    for (size_t i = 0; i < s->n_routes; i++)
        route_done(&s->routes[i]);
    free(s->routes);
    for (size_t i = 0; i < s->n_names; i++)
        free(s->names[i]);
    free(s->names);
    for (size_t i = 0; i < s->n_known; i++)
        volume_state_done(&s->known[i]);
    free(s->known);
    *s = (struct step){0};
}

struct node_effect *node_effect_push(struct node *n, enum node_effect_kind kind)
{
    struct node_effect *f = xcalloc(1, sizeof(*f));

    f->kind = kind;
    *n->effects_last = f;
    n->effects_last = &f->next;
    return f;
}

struct node_effect *node_effect_free(struct node_effect *f)
{
    if (!f)
        return NULL;
    step_done(&f->step);
    report_done(&f->report);
    container_report_done(&f->container_report);
    reason_done(&f->routes_report.reason);
    sighting_done(&f->sighting);
    free(f->name);
    free(f);
    return NULL;
}

struct step *node_push_step(struct node *n, enum step_kind kind)
{
    struct node_effect *f = node_effect_push(n, NODE_STEP);

    f->step.id = ++n->next_step;
    f->step.kind = kind;
    return &f->step;
}

struct node_dataset *node_dataset_find(struct node *n, const struct uuid *id)
{
    struct node_dataset *d;

    HASH_FIND(hh, n->datasets, id, sizeof(*id), d);
    return d;
}

struct node_dataset *node_dataset_get(struct node *n, const struct uuid *id)
{
    struct node_dataset *d = node_dataset_find(n, id);

    if (d)
        return d;
    d = xcalloc(1, sizeof(*d));
    d->id = *id;
    d->volume.dataset = *id;
    HASH_ADD(hh, n->datasets, id, sizeof(d->id), d);
    return d;
}

struct node_container *node_container_get(struct node *n, const char *name)
{
    struct node_container *c;

    HASH_FIND_STR(n->containers, name, c);
    if (c)
        return c;
    c = xcalloc(1, sizeof(*c));
    c->name = xstrdup(name);
    HASH_ADD_KEYPTR(hh, n->containers, c->name, strlen(c->name), c);
    return c;
}

const struct container *node_container_config(const struct node_container *c)
{
    return c->has_order ? c->order.config : c->running_config;
}

static void dataset_delete(struct node *n, struct node_dataset *d)
{
    HASH_DEL(n->datasets, d);
    order_done(&d->order);
    volume_state_done(&d->volume);
    reason_done(&d->reason);
    report_done(&d->last);
    compared_done(&d->compared);
    free(d);
}

static void container_delete(struct node *n, struct node_container *c)
{
    HASH_DEL(n->containers, c);
    container_order_done(&c->order);
    container_free(c->running_config);
    container_state_done(&c->state);
    reason_done(&c->reason);
    container_report_done(&c->last);
    free(c->last_words);
    free(c->name);
    free(c);
}

struct node *node_new(const struct node_config *config)
{
    struct node *n = xcalloc(1, sizeof(*n));

    n->era = config->era;
    n->storage = config->storage;
    n->random = config->random;
    n->memory = config->memory;
    n->copy_limits = config->copy.rounds ? config->copy : COPY_LIMITS_DEFAULT;
    n->resync_every_us = config->resync_us ? config->resync_us : NODE_RESYNC_US;
    n->lists.shared = config->shares_lists && n->storage == STORAGE_ATTACHABLE;
    n->effects_last = &n->effects_first;
    return n;
}

struct node *node_free(struct node *n)
{
    struct node_dataset *d, *d2;
    struct node_container *c, *c2;

    if (!n)
        return NULL;
    n->touched = false;
    for (struct node_effect *f = node_next(n); f; f = node_next(n))
        node_effect_free(f);
    HASH_ITER(hh, n->datasets, d, d2)
    dataset_delete(n, d);
    HASH_ITER(hh, n->containers, c, c2)
    container_delete(n, c);
    node_routes_free(n);
    node_lists_free(n);
    reason_done(&n->storage_reason);
    reason_done(&n->engine_reason);
    free(n);
    return NULL;
}

/* ---- deciding ---- */

/* May an order of this revision be acted on with something new? Only while its sender is there, is the store
 * that this node obeys, and that it was seen is on disk. */
bool node_is_live(const struct node *n, uint64_t revision)
{
    return n->connected && n->synced && !n->refused && revision <= n->memory.seen_revision &&
           uuid_eq(&n->memory.store, &n->welcome.store) &&
           uuid_eq(&n->memory.generation, &n->welcome.generation);
}

static void persist(struct node *n)
{
    if (!n->connected || n->refused || n->is_persisting)
        return;
    if (uuid_eq(&n->memory.store, &n->welcome.store) &&
        uuid_eq(&n->memory.generation, &n->welcome.generation) &&
        n->memory.seen_revision >= n->want_revision)
        return;
    n->is_persisting = true;
    n->persisting = (struct node_memory){n->welcome.store, n->welcome.generation, n->want_revision};
    node_effect_push(n, NODE_PERSIST)->memory = n->persisting;
}

static void look_around(struct node *n, struct now now)
{
    if (!n->started)
        return;
    bool resync = n->resync_us && now.mono_us >= n->resync_us;
    if (resync)
        n->list_containers_again = n->routes.pending = true;
    if (!n->list_volumes_step && (!n->volumes_known || resync || node_list_is_due(n, now)) &&
        now.mono_us >= n->volumes_backoff.next_us) {
        struct step *s = node_push_step(n, STEP_LIST_VOLUMES);
        n->list_volumes_step = s->id;
        node_list_begin(n, now, s);
        n->resync_us = now.mono_us + n->resync_every_us;
    }
    if (!n->list_containers_step && (!n->containers_known || n->list_containers_again) &&
        now.mono_us >= n->containers_backoff.next_us) {
        n->list_containers_again = false;
        n->list_containers_step = node_push_step(n, STEP_LIST_CONTAINERS)->id;
    }
}

/* Entries about which there is nothing to know or to do. */
static void forget_empty(struct node *n)
{
    struct node_dataset *d, *d2;
    struct node_container *c, *c2;

    HASH_ITER(hh, n->datasets, d, d2)
    {
        if (!d->has_order && !d->step && !d->announced && d->observed && !d->look_again &&
            plan_is_not_here(&d->volume, n->storage) && d->volume.mark.state == MARK_NONE && !d->reported)
            dataset_delete(n, d);
    }
    HASH_ITER(hh, n->containers, c, c2)
    {
        if (!c->has_order && !c->step && c->state.run == CONTAINER_ABSENT && !c->reported)
            container_delete(n, c);
    }
}

static void advance(struct node *n)
{
    struct now now = n->now;

    n->touched = false;
    persist(n);
    look_around(n, now);
    for (struct node_dataset *d = n->datasets; d; d = d->hh.next)
        node_decide_dataset(n, now, d);
    for (struct node_container *c = n->containers; c; c = c->hh.next)
        node_decide_container(n, now, c);
    node_decide_space(n, now);
    node_decide_routes(n, now);
    node_report_all(n, now);
    forget_empty(n);
}

void node_touch(struct node *n, struct now now)
{
    n->touched = true;
    n->now = now;
}

struct node_effect *node_next(struct node *n)
{
    if (n->touched)
        advance(n);
    struct node_effect *f = n->effects_first;

    if (!f)
        return NULL;
    n->effects_first = f->next;
    if (!n->effects_first)
        n->effects_last = &n->effects_first;
    f->next = NULL;
    return f;
}

void node_start(struct node *n, struct now now)
{
    n->started = true;
    n->resync_us = now.mono_us + n->resync_every_us;
    node_touch(n, now);
}

void node_tick(struct node *n, struct now now)
{
    node_touch(n, now);
}

static void earlier(uint64_t *first, uint64_t us)
{
    if (us && us < *first)
        *first = us;
}

uint64_t node_deadline(const struct node *n)
{
    uint64_t first = USEC_NEVER;

    if (n->touched)
        return n->now.mono_us;
    earlier(&first, n->resync_us);
    earlier(&first, node_space_deadline(n));
    earlier(&first, node_routes_deadline(n));
    if (!n->list_volumes_step)
        earlier(&first, node_lists_deadline(n));
    if (!n->list_volumes_step && !n->volumes_known)
        earlier(&first, n->volumes_backoff.next_us);
    if (!n->list_containers_step && (!n->containers_known || n->list_containers_again))
        earlier(&first, n->containers_backoff.next_us);
    for (struct node_dataset *d = n->datasets; d; d = d->hh.next) {
        if (!d->step)
            earlier(&first, d->wake_us);
    }
    for (struct node_container *c = n->containers; c; c = c->hh.next) {
        if (!c->step)
            earlier(&first, c->wake_us);
    }
    return first;
}

bool node_store_refused(const struct node *n)
{
    return n->refused;
}

bool node_hello_is_outdated(const struct node *n)
{
    return n->connected && n->refused && uuid_eq(&n->memory.store, &n->welcome.store) &&
           !uuid_eq(&n->memory.generation, &n->welcome.known);
}

/* ---- the session ---- */

/* Rule 0: another store, or one that does not know all that was seen of it, gives no orders. */
static bool is_obeyed(const struct node *n)
{
    const struct node_memory *m = &n->memory;
    const struct welcome *w = &n->welcome;

    if (FAULT(OLDER_STORE))
        return true;
    if (uuid_is_nil(&m->store))
        return true;
    if (!uuid_eq(&m->store, &w->store))
        return false;
    if (uuid_eq(&m->generation, &w->generation))
        return m->seen_revision <= n->want_revision; /* more: it is a copy that could not begin a life of its own */
    return uuid_eq(&m->generation, &w->known) && m->seen_revision <= w->known_until;
}

static bool takes_away(enum step_kind k)
{
    return k == STEP_UNMOUNT || k == STEP_RELEASE || k == STEP_DEMOTE || k == STEP_DROP || k == STEP_DESTROY;
}

bool node_volume_mounted(const struct node *n, const struct uuid *dataset, uint64_t epoch)
{
    const struct node_dataset *d;

    HASH_FIND(hh, n->datasets, dataset, sizeof(*dataset), d);
    if (!d || !d->observed || !d->volume.mounted || d->volume.mark.state != MARK_OWNED ||
        (d->step && takes_away(d->step_kind)))
        return false;
    if (!epoch)
        return true;
    return d->has_order && (d->order.role == ROLE_OWNER || d->order.role == ROLE_SOURCE) && d->order.epoch >= epoch &&
           d->volume.mark.epoch == d->order.epoch;
}

void node_session_up(struct node *n, struct now now, const struct welcome *welcome)
{
    n->connected = true;
    n->synced = false;
    n->complete = false;
    n->welcome = *welcome;
    n->want_revision = welcome->revision;
    bool was_refused = n->refused;
    n->refused = !is_obeyed(n);
    if (!was_refused)
        n->refused_us = now.wall_us;
    for (struct node_dataset *d = n->datasets; d; d = d->hh.next) {
        d->order_stale = true;
        d->reported = false;
    }
    for (struct node_container *c = n->containers; c; c = c->hh.next) {
        c->order_stale = true;
        c->reported = false;
    }
    node_routes_session(n);
    node_lists_session(n, now);
    n->space.reported = false;
    node_touch(n, now);
}

void node_session_down(struct node *n, struct now now)
{
    n->connected = false;
    n->synced = false;
    n->complete = false;
    node_lists_session(n, now);
    node_touch(n, now);
}

void node_order(struct node *n, struct now now, const struct order *order)
{
    if (!n->connected || n->refused)
        return;
    struct node_dataset *d = node_dataset_find(n, &order->dataset);
    if (!d) {
        d = node_dataset_get(n, &order->dataset);
        d->observed = n->volumes_known && n->storage == STORAGE_LOCAL; /* the list had nothing of it */
    }
    bool news = !d->has_order || !order_same(&d->order, order);

    if (d->has_order)
        order_done(&d->order);
    order_copy(&d->order, order);
    d->has_order = true;
    d->order_stale = false;
    if (order->revision > n->want_revision)
        n->want_revision = order->revision;
    if (news) {
        backoff_reset(&d->backoff);
        d->gone = 0;
    }
    node_touch(n, now);
}

static void drop_order(struct node_dataset *d)
{
    order_done(&d->order);
    d->has_order = false;
    d->order_stale = false;
    d->copy = (struct copy_progress){0};
    reason_done(&d->reason);
}

void node_order_none(struct node *n, struct now now, const struct uuid *dataset)
{
    struct node_dataset *d = node_dataset_find(n, dataset);

    if (!n->connected || n->refused || !d || !d->has_order)
        return;
    drop_order(d);
    node_touch(n, now);
}

void node_container_order(struct node *n, struct now now, const struct container_order *order)
{
    if (!n->connected || n->refused)
        return;
    struct node_container *c = node_container_get(n, order->config->name);
    bool news = !c->has_order || c->order.action != order->action ||
                c->order.config->created != order->config->created;

    container_order_done(&c->order);
    c->order = (struct container_order){order->action, container_copy(order->config), order->hold};
    container_spec(order->config, c->spec);
    c->has_order = true;
    c->order_stale = false;
    if (order->config->revision > n->want_revision)
        n->want_revision = order->config->revision;
    if (news) {
        backoff_reset(&c->backoff);
        c->pull = false;
        c->image_ready = false;
    }
    node_touch(n, now);
}

static void drop_container_order(struct node_container *c)
{
    if (!c->running_config)
        c->running_config = steal(&c->order.config); /* its volume is in use until it is gone */
    container_order_done(&c->order);
    c->has_order = false;
    c->order_stale = false;
    backoff_reset(&c->backoff);
}

void node_container_none(struct node *n, struct now now, const char *name)
{
    struct node_container *c;

    HASH_FIND_STR(n->containers, name, c);
    if (!n->connected || n->refused || !c || !c->has_order)
        return;
    drop_container_order(c);
    node_touch(n, now);
}

void node_orders_complete(struct node *n, struct now now)
{
    if (!n->connected || n->refused)
        return;
    n->synced = true;
    for (struct node_dataset *d = n->datasets; d; d = d->hh.next) {
        if (d->has_order && d->order_stale)
            drop_order(d);
    }
    for (struct node_container *c = n->containers; c; c = c->hh.next) {
        if (c->has_order && c->order_stale)
            drop_container_order(c);
    }
    node_routes_complete(n);
    node_touch(n, now);
}

void node_persisted(struct node *n, struct now now, const struct node_memory *memory)
{
    n->is_persisting = false;
    n->memory = *memory;
    /* It may have been begun in an earlier session, after the hello of this one was written. */
    if (n->connected && !n->refused && !is_obeyed(n)) {
        n->refused = true;
        n->refused_us = now.wall_us;
    }
    node_touch(n, now);
}

void node_volume_changed(struct node *n, struct now now, const struct uuid *dataset)
{
    node_dataset_get(n, dataset)->look_again = true;
    node_touch(n, now);
}

void node_space_wanted(struct node *n, struct now now)
{
    node_space_is_short(n, now);
    node_touch(n, now);
}

void node_containers_changed(struct node *n, struct now now)
{
    n->list_containers_again = true;
    backoff_reset(&n->containers_backoff);
    node_routes_changed(n, now); /* an engine that starts may make its part of the packet filter anew */
    node_touch(n, now);
}

#define MEGABYTE 1000000

/* An image is being fetched: its reason says how far that is. */
static void pull_progress(struct node *n, struct now now, uint64_t step, uint64_t bytes, uint64_t total)
{
    for (struct node_container *c = n->containers; total && c; c = c->hh.next) {
        if (c->step != step || c->step_kind != STEP_IMAGE || !c->has_order)
            continue;
        CLEANUP_FREE char *text =
            xasprintf("%s: %llu of %llu MB fetched", c->order.config->image, (unsigned long long)bytes / MEGABYTE,
                      (unsigned long long)(total + MEGABYTE - 1) / MEGABYTE);
        reason_set(&c->reason, REASON_WAITING_FOR_IMAGE, now.wall_us, 0, text);
        node_report_all(n, now);
        return;
    }
}

void node_progress(struct node *n, struct now now, uint64_t step, uint64_t bytes, uint64_t total)
{
    pull_progress(n, now, step, bytes, total);
    for (struct node_dataset *d = n->datasets; d; d = d->hh.next) {
        if (d->step != step || d->step_kind != STEP_SEND)
            continue;
        if (bytes > d->bytes_sent) /* an earlier failure is not the news any more */
            reason_set(&d->reason, d->order.role == ROLE_RELEASE ? REASON_RELEASING : REASON_COPYING,
                       now.wall_us, 0, NULL);
        d->bytes_sent = bytes;
        d->bytes_total = total;
        node_report_all(n, now);
        return;
    }
}
