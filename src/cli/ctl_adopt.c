/* flockerctl adopt: what only an operator knows about a store that was put back from a copy. */
#include "base/str.h"
#include "cli/ctl.h"

static json_t *body_of(const struct ctl *c, const char *node)
{
    json_t *body = json_object();

    if (node)
        json_object_set_new(body, "node_uuid", json_string(node));
    if (c->args->yes)
        json_object_set_new(body, "anyway", json_true());
    return body;
}

static struct err *adopt_dataset(struct ctl *c)
{
    CLEANUP_FREE char *id = NULL, *node = NULL;
    CLEANUP_JSON json_t *answer = NULL;

    if (!c->args->node)
        return err_new(ERR_INVALID, "must specify --node: whose data count");
    TRY(ctl_find_dataset(c, c->args->operands[0], &id));
    TRY(ctl_find_node(c, c->args->node, &node));
    CLEANUP_JSON json_t *body = body_of(c, node);
    CLEANUP_FREE char *path = api_path("/v1/adoption/", id);
    TRY(api_call(c->api, "POST", path, body, &answer));
    if (c->args->json)
        ctl_print_json(answer);
    else if (json_is_true(json_object_get(answer, "deleted")))
        printf("Dataset %s is deleted; what node %s has of it is destroyed too.\n", id, node);
    else
        printf("Dataset %s: what node %s has counts; what other nodes have of it goes when it is mounted there.\n"
               "Use 'flockerctl why' to see how far it is.\n",
               id, node);
    return NULL;
}

static struct err *adopt_store(struct ctl *c)
{
    CLEANUP_JSON json_t *before = NULL, *answer = NULL;

    if (c->args->node)
        return err_new(ERR_INVALID, "must specify a dataset with --node");
    TRY(api_get(c->api, "/v1/adoption", &before));
    CLEANUP_JSON json_t *body = body_of(c, NULL);
    TRY(api_call(c->api, "POST", "/v1/adoption", body, &answer));
    if (c->args->json)
        ctl_print_json(answer);
    else if (json_is_true(json_object_get(before, "waiting")))
        printf("The copy of revision %lld, from which the store was put back, is believed from now on.\n",
               (long long)json_integer_value(json_object_get(before, "revision")));
    else
        printf("Nothing to do: the store does not wait for this.\n");
    return NULL;
}

struct err *ctl_adopt(struct ctl *c)
{
    return c->args->n_operands ? adopt_dataset(c) : adopt_store(c);
}
