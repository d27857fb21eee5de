/* /v1/state/nodes and /v1/configuration/leases */
#include "control/rest_internal.h"
#include "model/validate.h"

static bool consider_node(void *page, const struct node_view *n)
{
    return !n->listed ||
           page_add(page, (struct page_item){.id = n->node, .object = n->host ? n->host : ""});
}

static void append_node(void *cookie, struct str *s, const struct page_item *item)
{
    json_t *v =
        json_pack("{s:o, s:o}", "uuid", json_uuid(&item->id), "host", json_text(item->object));

    json_append(s, v);
    json_decref(v);
}

void nodes_list(struct rest *rest, struct http_request *r, const char *param)
{
    CLEANUP(page_done) struct page page;

    if (!page_parse(r, 0, &page))
        return;
    struct list_query q = page_query(&page);
    engine_list_nodes(rest->config.engine, now_os(), &q, consider_node, &page);
    respond_page(r, &page, append_node, NULL, NULL);
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

static bool consider_lease(void *page, const struct lease *l, uint64_t left_us)
{
    return !page_has(page, NULL, &l->node) ||
           page_add(page, (struct page_item){.id = l->dataset, .object = l, .extra = left_us});
}

static void append_lease(void *cookie, struct str *s, const struct page_item *item)
{
    json_t *v = json_lease(item->object, (int64_t)item->extra);

    json_append(s, v);
    json_decref(v);
}

void leases_list(struct rest *rest, struct http_request *r, const char *param)
{
    CLEANUP(page_done) struct page page;

    if (!page_parse(r, PAGE_NODE, &page))
        return;
    struct list_query q = page_query(&page);
    engine_list_leases(rest->config.engine, now_os(), &q, consider_lease, &page);
    respond_page(r, &page, append_lease, NULL, NULL);
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
