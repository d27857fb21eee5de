/* /v1/adoption: the operator's word about a store that was put back from a copy */
#include "control/rest_internal.h"
#include "model/validate.h"

static void append_node(void *cookie, const struct uuid *node)
{
    json_array_append_new(cookie, json_uuid(node));
}

json_t *adoption_value(const struct rest *rest)
{
    const struct engine *e = rest->config.engine;
    uint64_t revision = engine_restored(e);
    json_t *away = json_array();

    engine_each_node_away(e, append_node, away);
    return json_pack("{s:b, s:o, s:o}", "waiting", engine_is_unsettled(e), "revision",
                     revision ? json_integer((json_int_t)revision) : json_null(), "nodes_away", away);
}

void adoption_get(struct rest *rest, struct http_request *r, const char *param)
{
    respond_read(r, adoption_value(rest));
}

void adoption_of_store(struct rest *rest, struct http_request *r, const char *param)
{
    CLEANUP(json_decrefp) json_t *body = parse_body(r);
    struct command c = {.kind = COMMAND_STORE_ADOPT};

    if (!body)
        return;
    json_t *errors = validate_adoption(body, &c.anyway);
    if (errors) {
        respond_violations(r, errors);
        return;
    }
    c.name = "store";
    submit(rest, r, &c);
}

void adoption_of_dataset(struct rest *rest, struct http_request *r, const char *param)
{
    CLEANUP(json_decrefp) json_t *body = parse_body(r);
    struct command c = {.kind = COMMAND_DATASET_ADOPT};

    if (!body)
        return;
    json_t *errors = validate_dataset_adoption(body, &c.node, &c.anyway);
    if (errors)
        respond_violations(r, errors);
    else if (parse_id(param, &c.dataset_id))
        submit(rest, r, &c);
    else
        respond_error(r, REST_ERROR_DATASET_NOT_FOUND);
}
