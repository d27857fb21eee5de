/* /v1/state/nodes and /v1/configuration/leases */
#include "control/rest_internal.h"
#include "model/validate.h"

static void append_node(void *list, const struct node_view *n)
{
    if (n->listed)
        (void)json_array_append_new(list, json_pack("{s:o, s:o}", "uuid", json_uuid(&n->node),
                                                    "host", json_text(n->host ? n->host : "")));
}

void nodes_list(struct rest *rest, struct http_request *r, const char *param)
{
    json_t *list = json_array();

    engine_each_node(rest->config.engine, now_os(), append_node, list);
    respond_read(r, list);
}

void nodes_by_era(struct rest *rest, struct http_request *r, const char *param)
{
    struct uuid era, node;

    if (uuid_parse(param, &era) && engine_node_by_era(rest->config.engine, &era, &node))
        respond_read(r, json_pack("{s:o}", "uuid", json_uuid(&node)));
    else
        http_reply_error(r, 404, "No node found with given era.");
}

static void append_lease(void *list, const struct lease *l, uint64_t left_us)
{
    (void)json_array_append_new(list, json_lease(l, (int64_t)left_us));
}

void leases_list(struct rest *rest, struct http_request *r, const char *param)
{
    json_t *list = json_array();

    engine_each_lease(rest->config.engine, now_os(), append_lease, list);
    respond_read(r, list);
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
        http_reply_error(r, 404, "Lease not found.");
}
