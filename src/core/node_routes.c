/* Ports whose applications are on other nodes: what is wanted of them, when it is put in place, what is said about it. */
#include "core/node_internal.h"

static struct node_route *route_find(const struct node_routes *r, uint16_t port)
{
    struct node_route *found;

    HASH_FIND(hh, r->by_port, &port, sizeof(port), found);
    return found;
}

static void route_delete(struct node_routes *all, struct node_route *r)
{
    HASH_DEL(all->by_port, r);
    route_done(&r->route);
    free(r);
}

/* A change is tried at once, whatever became of the earlier ones. */
static void wanted_changed(struct node_routes *r)
{
    r->pending = true;
    backoff_reset(&r->backoff);
}

void node_route(struct node *n, struct now now, const struct port_route *route)
{
    struct node_routes *all = &n->routes;

    if (!n->connected || n->refused)
        return;
    struct node_route *r = route_find(all, route->port);
    if (!r) {
        r = xcalloc(1, sizeof(*r));
        r->port = route->port;
        HASH_ADD(hh, all->by_port, port, sizeof(r->port), r);
    }
    r->stale = false;
    bool same_place = uuid_eq(&r->route.node, &route->node);
    if (route_same(&r->route, route) || (same_place && !route->host && r->route.host))
        return; /* that node's address is as it was last known */
    route_done(&r->route);
    route_copy(&r->route, route);
    wanted_changed(all);
    node_touch(n, now);
}

void node_route_none(struct node *n, struct now now, uint16_t port)
{
    struct node_route *r = route_find(&n->routes, port);

    if (!n->connected || n->refused || !r)
        return;
    route_delete(&n->routes, r);
    wanted_changed(&n->routes);
    node_touch(n, now);
}

void node_routes_session(struct node *n)
{
    for (struct node_route *r = n->routes.by_port; r; r = r->hh.next)
        r->stale = true;
    n->routes.reported = false;
}

void node_routes_complete(struct node *n)
{
    struct node_route *r, *next;

    if (!n->welcome.routes)
        return; /* an older control service tells none: that says nothing about them */
    HASH_ITER (hh, n->routes.by_port, r, next) {
        if (!r->stale)
            continue;
        route_delete(&n->routes, r);
        wanted_changed(&n->routes);
    }
    if (!n->routes.known)
        wanted_changed(&n->routes);
    n->routes.known = true;
}

void node_routes_changed(struct node *n, struct now now)
{
    if (!n->routes.look_us)
        n->routes.look_us = now.mono_us + ROUTES_LOOK_US;
    node_touch(n, now);
}

void node_decide_routes(struct node *n, struct now now)
{
    struct node_routes *r = &n->routes;
    size_t count = HASH_COUNT(r->by_port);

    if (r->look_us && now.mono_us >= r->look_us) {
        r->look_us = 0;
        r->pending = true;
    }
    if (!r->pending || !r->known || r->step || !n->started || now.mono_us < r->backoff.next_us)
        return;
    struct step *s = node_push_step(n, STEP_ROUTES);
    s->routes = xcalloc(count, sizeof(*s->routes));
    for (const struct node_route *one = r->by_port; one; one = one->hh.next)
        route_copy(&s->routes[s->n_routes++], &one->route);
    r->step = s->id;
    r->pending = false;
}

bool node_routes_outcome(struct node *n, struct now now, const struct outcome *o)
{
    struct node_routes *r = &n->routes;

    if (!o->step || o->step != r->step)
        return false;
    r->step = 0;
    if (!o->error) {
        backoff_reset(&r->backoff);
        if (o->left_out)
            reason_set(&r->reason, REASON_ROUTES_FAILED, now.wall_us, 0, o->left_out);
        else
            reason_done(&r->reason);
        return true;
    }
    node_fail_later(n, now, &r->backoff);
    reason_set(&r->reason, REASON_ROUTES_FAILED, now.wall_us, node_wall_of(now, r->backoff.next_us), o->error->text);
    r->pending = true;
    return true;
}

uint64_t node_routes_deadline(const struct node *n)
{
    const struct node_routes *r = &n->routes;

    if (r->step || !r->known)
        return 0;
    if (r->pending)
        return r->backoff.next_us ? r->backoff.next_us : n->now.mono_us;
    return r->look_us;
}

void node_report_routes(struct node *n)
{
    struct node_routes *r = &n->routes;
    struct routes_report now = {.ports = HASH_COUNT(r->by_port), .reason = r->reason};

    if (!n->welcome.routes || !r->known)
        return;
    if (r->reported && r->last.ports == now.ports && r->last.reason.code == now.reason.code &&
        r->last.reason.retry_us == now.reason.retry_us && str_equal_null(r->last.reason.text, now.reason.text))
        return;
    struct node_effect *f = node_effect_push(n, NODE_ROUTES_REPORT);
    f->routes_report.ports = r->last.ports = now.ports;
    reason_copy(&f->routes_report.reason, &now.reason);
    reason_done(&r->last.reason);
    reason_copy(&r->last.reason, &now.reason);
    r->reported = true;
}

struct names {
    char **all;
    size_t n, cap;
};

static void add_name(struct names *names, const char *name, const char *besides)
{
    bool known = streq(name, besides);

    for (size_t i = 0; i < names->n && !known; i++)
        known = streq(names->all[i], name);
    if (known)
        return;
    names->all = mem_grow(names->all, names->n, &names->cap, sizeof(char *));
    names->all[names->n++] = xstrdup(name);
}

static bool answers(const struct container *c)
{
    bool external = false;

    for (size_t i = 0; c && i < c->n_ports; i++)
        external = external || c->ports[i].external;
    return external;
}

char **node_routes_names(const struct node *n, const char *besides, size_t *ret_n)
{
    struct names names = {0};

    for (const struct node_route *r = n->routes.by_port; r; r = r->hh.next)
        add_name(&names, r->route.container, besides);
    for (const struct node_container *c = n->containers; c; c = c->hh.next) {
        if (c->has_order && answers(c->order.config))
            add_name(&names, c->name, besides);
    }
    *ret_n = names.n;
    return names.all;
}

void node_routes_free(struct node *n)
{
    struct node_route *r, *next;

    HASH_ITER (hh, n->routes.by_port, r, next)
        route_delete(&n->routes, r);
    reason_done(&n->routes.reason);
    reason_done(&n->routes.last.reason);
}
