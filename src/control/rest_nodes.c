/* /v1/state/nodes, /v1/cordons, /v1/configuration/leases and /v1/state/leases */
#include "control/rest_internal.h"
#include "model/validate.h"

/* The two members of Flocker 1, its space, and what is out of the ordinary. */
static json_t *node_json(const struct node_view *n)
{
    json_t *o = json_pack("{s:o, s:o}", "uuid", json_uuid(&n->node), "host", json_text(n->host ? n->host : ""));

    if (n->space.total)
        (void)json_object_set_new(o, "space",
                                  json_pack("{s:I, s:I}", "total", (json_int_t)n->space.total,
                                            "free", (json_int_t)n->space.free));
    if (n->routes && n->routes->reason.code != REASON_NONE)
        (void)json_object_set_new(o, "reason", json_reason(&n->routes->reason));
    if (n->cordoned)
        (void)json_object_set_new(o, "cordoned", json_true());
    if (n->fenced)
        (void)json_object_set_new(o, "fenced", json_true());
    return o;
}

static bool consider_node(void *cookie, const struct node_view *n)
{
    struct page *p = cookie;
    struct str *s = n->listed ? page_item(p, UUID_STR(&n->node)) : NULL;

    if (s)
        append_json(s, node_json(n));
    return page_looked_at(p, &n->node);
}

static void walk_nodes(struct page *p, const struct list_query *q)
{
    engine_list_nodes(p->rest->config.engine, now_os(), q, consider_node, p);
}

void nodes_list(struct rest *rest, struct http_request *r, const char *param)
{
    struct page *page = page_new(rest, r, 0);

    if (page)
        page_answer(page, walk_nodes);
}

void nodes_by_era(struct rest *rest, struct http_request *r, const char *param)
{
    struct uuid era, node;

    if (!uuid_parse(param, &era))
        respond_error_about(r, REST_ERROR_BAD_ID,
                            "The path ends with '%.100s', which is not a UUID.", param);
    else if (engine_node_by_era(rest->config.engine, &era, &node))
        respond_read(r, json_pack("{s:o}", "uuid", json_uuid(&node)));
    else
        respond_error(r, REST_ERROR_ERA_NOT_FOUND);
}

static void add_cordon(void *cookie, const struct uuid *node)
{
    (void)json_array_append_new(cookie, json_pack("{s:o}", "node_uuid", json_uuid(node)));
}

void cordons_list(struct rest *rest, struct http_request *r, const char *param)
{
    json_t *list = json_array();

    engine_each_cordon(rest->config.engine, add_cordon, list);
    respond_read(r, list);
}

static void change_cordon(struct rest *rest, struct http_request *r, const char *param, enum command_kind kind)
{
    struct command c = {.kind = kind};

    if (uuid_parse(param, &c.node))
        submit(rest, r, &c);
    else
        respond_error_about(r, REST_ERROR_BAD_ID, "The path ends with '%.100s', which is not a UUID.", param);
}

void cordons_add(struct rest *rest, struct http_request *r, const char *param)
{
    change_cordon(rest, r, param, COMMAND_NODE_CORDON);
}

void cordons_delete(struct rest *rest, struct http_request *r, const char *param)
{
    change_cordon(rest, r, param, COMMAND_NODE_UNCORDON);
}

static bool consider_lease(void *cookie, const struct lease *l, uint64_t left_us)
{
    struct page *p = cookie;
    struct str *s = page_has(p, NULL, &l->node) ? page_item(p, UUID_STR(&l->dataset)) : NULL;

    if (s)
        append_json(s, json_lease(l, (int64_t)left_us));
    return page_looked_at(p, &l->dataset);
}

static void walk_leases(struct page *p, const struct list_query *q)
{
    engine_list_leases(p->rest->config.engine, now_os(), q, consider_lease, p);
}

void leases_list(struct rest *rest, struct http_request *r, const char *param)
{
    struct page *page = page_new(rest, r, PAGE_NODE);

    if (page)
        page_answer(page, walk_leases);
}

static bool consider_lease_state(void *cookie, const struct lease *l, uint64_t left_us)
{
    struct page *p = cookie;
    struct str *s = page_has(p, NULL, &l->node) ? page_item(p, UUID_STR(&l->dataset)) : NULL;

    if (s)
        append_json(s, json_lease_state(l, (int64_t)left_us));
    return page_looked_at(p, &l->dataset);
}

static void walk_lease_states(struct page *p, const struct list_query *q)
{
    engine_list_leases(p->rest->config.engine, now_os(), q, consider_lease_state, p);
}

void leases_state_list(struct rest *rest, struct http_request *r, const char *param)
{
    struct page *page = page_new(rest, r, PAGE_NODE);

    if (page)
        page_answer(page, walk_lease_states);
}

void leases_acquire(struct rest *rest, struct http_request *r, const char *param)
{
    CLEANUP(json_decrefp) json_t *body = parse_body(r);
    struct lease_request l;

    if (!body)
        return;
    json_t *errors = validate_lease(body, &l);
    if (errors)
        respond_violations(r, errors);
    else
        submit(rest, r,
               &(struct command){.kind = COMMAND_LEASE_ACQUIRE,
                                 .dataset_id = l.dataset,
                                 .node = l.node,
                                 .expires = l.expires,
                                 .expires_in_us = l.expires_in_us});
}

void leases_release(struct rest *rest, struct http_request *r, const char *param)
{
    struct command c = {.kind = COMMAND_LEASE_RELEASE};

    if (uuid_parse(param, &c.dataset_id))
        submit(rest, r, &c);
    else
        respond_error_about(r, REST_ERROR_BAD_ID,
                            "The path ends with '%.100s', which is not a UUID.", param);
}
