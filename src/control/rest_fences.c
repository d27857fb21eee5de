/* /v1/fences: nodes of which an operator says that they are off; /v1/copies: what they kept */
#include "control/rest_internal.h"
#include "model/validate.h"

static json_t *seconds_or_null(uint64_t us)
{
    return us ? json_real((double)us / USEC_PER_SEC) : json_null();
}

static json_t *fence_value(const struct fence *f)
{
    if (!f)
        return json_null();
    return json_pack("{s:o, s:o, s:o}", "since", seconds_or_null(f->at_us), "by", json_text(f->who), "reason", json_text(f->why));
}

static void append_node(void *cookie, const struct fenceable *n)
{
    (void)json_array_append_new(cookie, json_pack("{s:o, s:o, s:b, s:o}", "node_uuid", json_uuid(&n->node), "host",
                                                  n->host ? json_text(n->host) : json_null(), "connected", n->connected, "fence",
                                                  fence_value(n->fence)));
}

void fences_list(struct rest *rest, struct http_request *r, const char *param)
{
    json_t *list = json_array();

    engine_each_fenceable(rest->config.engine, append_node, list);
    respond_read(r, list);
}

static void append_item(void *cookie, const struct fence_item *i)
{
    static const char *const fates[FATE_MAX] = {
        [FATE_UNWRITTEN] = "unwritten", [FATE_ATTACH] = "attach",         [FATE_WHOLE_COPY] = "whole-copy",
        [FATE_HALF_MOVE] = "half-move", [FATE_REPLICA] = "replica",       [FATE_ASKS_NODE] = "asks-node",
        [FATE_ONLY_THERE] = "only-there", [FATE_UNKNOWN] = "unknown",
    };
    const char *name = metadata_get(&i->dataset->metadata, "name");

    (void)json_array_append_new(
        cookie, json_pack("{s:o, s:o, s:o, s:s, s:o, s:o, s:o}", "dataset_id", json_uuid(&i->dataset->id), "name",
                          name ? json_text(name) : json_null(), "primary", json_uuid(&i->dataset->primary), "outcome", fates[i->fate],
                          "node", uuid_is_nil(&i->from) ? json_null() : json_uuid(&i->from), "snapshot",
                          i->snapshot ? json_text(i->snapshot) : json_null(), "as_of", seconds_or_null(i->made_us)));
}

struct counted {
    const struct uuid *node;
    json_int_t leases;
    json_t *containers;
};

static bool count_lease(void *cookie, const struct lease *l, uint64_t left_us)
{
    struct counted *c = cookie;

    c->leases += uuid_eq(&l->node, c->node);
    return true;
}

struct named {
    const struct engine *engine;
    struct counted *counted;
};

static bool add_container(void *cookie, const char *name)
{
    struct named *n = cookie;
    const struct container *k = engine_container(n->engine, name);

    if (k && uuid_eq(&k->node, n->counted->node))
        (void)json_array_append_new(n->counted->containers, json_text(name));
    return true;
}

json_t *fence_preview_value(const struct rest *rest, const struct uuid *node)
{
    const struct engine *e = rest->config.engine;
    struct counted c = {.node = node, .containers = json_array()};
    struct named n = {e, &c};
    struct list_query q = {.node = node};
    json_t *datasets = json_array();

    engine_preview_fence(e, node, append_item, datasets);
    engine_list_leases(e, now_os(), &q, count_lease, &c);
    engine_list_containers(e, &q, add_container, &n);
    return json_pack("{s:o, s:b, s:o, s:o, s:o, s:I}", "node_uuid", json_uuid(node), "connected", engine_node_is_connected(e, node),
                     "fence", fence_value(engine_fence(e, node)), "datasets", datasets, "containers", c.containers, "leases", c.leases);
}

static bool take_node(struct http_request *r, const char *param, struct uuid *ret_node)
{
    if (uuid_parse(param, ret_node))
        return true;
    respond_error_about(r, REST_ERROR_BAD_ID, "The path ends with '%.100s', which is not a UUID.", param);
    return false;
}

void fences_preview(struct rest *rest, struct http_request *r, const char *param)
{
    struct uuid node;

    if (!take_node(r, param, &node))
        return;
    if (engine_node_is_known(rest->config.engine, &node))
        respond_read(r, fence_preview_value(rest, &node));
    else
        respond_error(r, REST_ERROR_NODE_NOT_FOUND);
}

void fences_add(struct rest *rest, struct http_request *r, const char *param)
{
    const struct http_peer *peer = http_request_peer(r);
    CLEANUP(json_decrefp) json_t *body = parse_body(r);
    struct command c = {.kind = COMMAND_NODE_FENCE, .who = peer->has_identity ? peer->identity.name : ""};

    if (!body)
        return;
    json_t *errors = validate_fence(body, &c.why);
    if (errors) {
        respond_violations(r, errors);
    } else if (take_node(r, param, &c.node)) {
        call_note_why(r, c.why);
        submit(rest, r, &c);
    }
}

void fences_delete(struct rest *rest, struct http_request *r, const char *param)
{
    struct command c = {.kind = COMMAND_NODE_UNFENCE};

    if (take_node(r, param, &c.node))
        submit(rest, r, &c);
}

void copies_delete(struct rest *rest, struct http_request *r, const char *param)
{
    struct command c = {.kind = COMMAND_COPY_DROP};
    CLEANUP_FREE char *node = http_request_query_value(r, "node");

    if (!node || !uuid_parse(node, &c.node))
        respond_error_about(r, REST_ERROR_BAD_PARAMETER, "The parameter node must be the UUID of the node that keeps the copy.");
    else if (parse_id(param, &c.dataset_id))
        submit(rest, r, &c);
    else
        respond_error(r, REST_ERROR_DATASET_NOT_FOUND);
}
