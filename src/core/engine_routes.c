/* Which external port leads to which node. The same for all nodes; each is told what leads elsewhere. */
#include "core/engine_internal.h"
#include "core/fault.h"

/* Where the container answers: where it runs, and else where it is to run. While its datasets move that is the source until the
 * first new owner is recorded, so that nobody is cut off before the container has stopped. */
static const struct uuid *place_of(const struct engine *e, const struct container *c)
{
    const struct uuid *place = &c->node;

    for (size_t i = 0; i < c->n_volumes; i++) {
        const struct dataset_entry *entry = dataset_entry_find(e, &c->volumes[i].dataset);
        const struct dataset *d = entry ? entry->committed : NULL;
        const struct uuid *owner = d && d->born && !uuid_is_nil(&d->owner) ? &d->owner : &c->node;
        if (i && !uuid_eq(owner, place))
            return &c->node;
        place = owner;
    }
    return place;
}

static void tell(struct engine *e, const struct node_entry *n, const struct port_route *r)
{
    bool own = uuid_eq(&r->node, &n->id);
    struct effect *f = effect_push(e, own ? EFFECT_ROUTE_NONE : EFFECT_ROUTE);

    f->session = n->session;
    f->port = r->port;
    if (!own)
        route_copy(&f->route, r);
}

static void tell_gone(struct engine *e, const struct node_entry *n, uint16_t port)
{
    if (FAULT(FORGET_ROUTE))
        return;
    struct effect *f = effect_push(e, EFFECT_ROUTE_NONE);
    f->session = n->session;
    f->port = port;
}

static void tell_all(struct engine *e, const struct port_route *r, bool gone)
{
    for (const struct node_entry *n = e->sessions; n; n = n->by_session.next) {
        if (!n->complete || !n->hello.routes)
            continue;
        if (!gone)
            tell(e, n, r);
        else if (!uuid_eq(&r->node, &n->id))
            tell_gone(e, n, r->port);
    }
}

static struct route_entry *route_find(const struct engine *e, uint16_t port)
{
    struct route_entry *r;

    HASH_FIND(hh, e->routes, &port, sizeof(port), r);
    return r;
}

static void route_delete(struct engine *e, struct route_entry *r)
{
    HASH_DEL(e->routes, r);
    route_done(&r->route);
    free(r);
}

static void set_route(struct engine *e, struct container_entry *entry, const struct port_route *wanted)
{
    struct route_entry *r = route_find(e, wanted->port);

    if (r && r->container == entry && route_same(&r->route, wanted))
        return;
    if (!r) {
        r = xcalloc(1, sizeof(*r));
        r->port = wanted->port;
        HASH_ADD(hh, e->routes, port, sizeof(r->port), r);
    }
    route_done(&r->route);
    route_copy(&r->route, wanted);
    r->container = entry;
    tell_all(e, &r->route, /* gone= */ false);
}

static bool has_external(const struct container *c, uint16_t port)
{
    for (size_t i = 0; c && i < c->n_ports; i++) {
        if (c->ports[i].external == port)
            return true;
    }
    return false;
}

/* Those of its ports that it does not have any more, unless another container has got them meanwhile. */
static void drop_routes(struct engine *e, struct container_entry *entry, const struct container *c)
{
    for (size_t i = 0; i < entry->n_routed; i++) {
        struct route_entry *r = route_find(e, entry->routed[i]);
        if (!r || r->container != entry || has_external(c, r->port))
            continue;
        tell_all(e, &r->route, /* gone= */ true);
        route_delete(e, r);
    }
}

void update_routes(struct engine *e, struct container_entry *entry)
{
    const struct container *c = entry->committed;
    const struct uuid *place = c ? place_of(e, c) : NULL;
    const struct node_entry *n = place ? node_entry_find(e, place) : NULL;

    drop_routes(e, entry, c);
    free(steal(&entry->routed));
    entry->n_routed = 0;
    if (!c || !c->n_ports)
        return;
    entry->routed = xcalloc(c->n_ports, sizeof(*entry->routed));
    for (size_t i = 0; i < c->n_ports; i++) {
        if (!c->ports[i].external)
            continue;
        struct port_route wanted = {.port = c->ports[i].external,
                               .node = *place,
                               .host = n ? n->hello.host : NULL,
                               .container = entry->name};
        set_route(e, entry, &wanted);
        entry->routed[entry->n_routed++] = wanted.port;
    }
}

void send_all_routes(struct engine *e, const struct node_entry *node)
{
    if (!node->hello.routes)
        return;
    for (const struct route_entry *r = e->routes; r; r = r->hh.next) {
        if (!uuid_eq(&r->route.node, &node->id))
            tell(e, node, &r->route);
    }
}

void routes_free(struct engine *e)
{
    struct route_entry *r, *next;

    HASH_ITER (hh, e->routes, r, next)
        route_delete(e, r);
}
