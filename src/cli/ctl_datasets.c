/* flockerctl list-nodes, list, create, destroy, move, grow, set-metadata, version (contract section 7.3). */
#include "base/str.h"
#include "cli/ctl.h"
#include "cli/table.h"
#include "cli/text.h"

/* What is out of the ordinary about a node; "" when nothing is. The caller frees it. */
static char *node_note(const json_t *node)
{
    const json_t *reason = json_object_get(node, "reason");
    bool fenced = json_is_true(json_object_get(node, "fenced")), cordoned = json_is_true(json_object_get(node, "cordoned"));
    const char *closed = fenced ? "fenced" : cordoned ? "cordoned" : "";
    bool blocked = json_is_object(reason);

    return xasprintf("%s%s%s%s%s", closed, *closed && blocked ? "; " : "",
                     blocked ? ctl_text(reason, "code") : "", blocked ? ": " : "", blocked ? ctl_text(reason, "text") : "");
}

/* "4.0G of 20.0G"; "" when it is not known. The caller frees it. */
static char *space_text(const json_t *node)
{
    const json_t *space = json_object_get(node, "space");
    json_int_t total = json_integer_value(json_object_get(space, "total"));

    if (total <= 0)
        return xstrdup("");
    CLEANUP_FREE char *all = text_format_bytes((uint64_t)total);
    CLEANUP_FREE char *left =
        text_format_bytes((uint64_t)json_integer_value(json_object_get(space, "free")));
    return xasprintf("%s of %s", left, all);
}

static void node_cells(struct table *t, const json_t *node, bool full_id, bool spaces, bool notes)
{
    const char *id = ctl_text(node, "uuid");
    CLEANUP_FREE char *shown = xstrndup(id, full_id ? strlen(id) : 8);
    CLEANUP_FREE char *space = space_text(node);
    CLEANUP_FREE char *note = node_note(node);

    table_cell(t, shown);
    table_cell(t, ctl_text(node, "host"));
    if (spaces)
        table_cell(t, space);
    if (notes)
        table_cell(t, note);
}

struct err *ctl_list_nodes(struct ctl *c)
{
    CLEANUP_JSON json_t *nodes = NULL;
    bool notes = false, spaces = false;
    size_t i;
    json_t *node;

    TRY(ctl_get_list(c, "/v1/state/nodes", &nodes));
    ctl_sort(nodes, "uuid");
    if (c->args->json) {
        ctl_print_json(nodes);
        return NULL;
    }
    json_array_foreach (nodes, i, node) {
        CLEANUP_FREE char *note = node_note(node);
        notes = notes || *note;
        spaces = spaces || json_object_get(node, "space");
    }
    CLEANUP(table_done) struct table t;
    table_init(&t, 2u + (size_t)spaces + (size_t)notes,
               (const char *const[]){"SERVER", "ADDRESS", spaces ? "FREE" : "NOTE", "NOTE"});
    json_array_foreach (nodes, i, node)
        node_cells(&t, node, c->args->details, spaces, notes);
    table_print(&t, stdout);
    return NULL;
}

struct err *ctl_version(struct ctl *c)
{
    CLEANUP_JSON json_t *answer = NULL;

    if (c->api)
        TRY(api_get(c->api, "/v1/version", &answer));
    if (c->args->json) {
        CLEANUP_JSON json_t *both =
            json_pack("{s:s,s:s?}", "flockerctl", FLOCKER_VERSION, "control_service",
                      answer ? ctl_text(answer, "flocker") : NULL);
        ctl_print_json(both);
        return NULL;
    }
    printf("flockerctl %s\n", FLOCKER_VERSION);
    if (answer)
        printf("control service %s: %s\n", c->control_service, ctl_text(answer, "flocker"));
    else
        printf("control service: not asked (no --control-service given)\n");
    return NULL;
}

/* The same rules as the original's (contract section 7.3); NULL = not to be listed. */
static const char *status_of(const json_t *dataset, const json_t *in_state, const json_t *nodes,
                             bool with_deleted)
{
    if (json_is_true(json_object_get(dataset, "deleted")))
        return with_deleted ? (in_state ? "deleting" : "deleted") : NULL;
    if (!in_state)
        return "pending";
    if (json_object_get(nodes, ctl_text(in_state, "primary")))
        return "attached";
    return "detached";
}

static const char *decorated(const char *status)
{
    if (streq(status, "attached"))
        return "attached ✅";
    if (streq(status, "pending"))
        return "pending ⌛";
    return status;
}

static json_t *list_row(const json_t *dataset, const char *status, const json_t *nodes)
{
    json_t *row = json_deep_copy(dataset);
    const json_t *node = json_object_get(nodes, ctl_text(dataset, "primary"));

    json_object_set_new(row, "status", json_string(status));
    json_object_set_new(row, "host", node ? json_string(ctl_text(node, "host")) : json_null());
    return row;
}

static void list_cells(struct table *t, const json_t *row, const json_t *nodes, bool full_id)
{
    CLEANUP_FREE char *quota = ctl_quota(row);
    CLEANUP_FREE char *metadata = text_format_metadata(json_object_get(row, "metadata"));
    CLEANUP_FREE char *server = ctl_server(nodes, ctl_text(row, "primary"), full_id);

    table_cell(t, ctl_text(row, "dataset_id"));
    table_cell(t, quota);
    table_cell(t, metadata);
    table_cell(t, decorated(ctl_text(row, "status")));
    table_cell(t, server);
}

/* dataset_id -> item of the state list; one with a primary wins over one without. */
static json_t *index_state(const json_t *state)
{
    json_t *index = json_object();
    size_t i;
    json_t *item;

    json_array_foreach (state, i, item) {
        const char *id = ctl_text(item, "dataset_id");
        if (!*ctl_text(json_object_get(index, id), "primary"))
            json_object_set(index, id, item);
    }
    return index;
}

struct err *ctl_list(struct ctl *c)
{
    CLEANUP_JSON json_t *datasets = NULL, *state = NULL, *nodes = NULL;
    CLEANUP_JSON json_t *rows = json_array();
    size_t i;
    json_t *item;

    TRY(ctl_get_list(c, "/v1/configuration/datasets", &datasets));
    TRY(ctl_get_list(c, "/v1/state/datasets", &state));
    TRY(ctl_get_nodes(c, &nodes));
    CLEANUP_JSON json_t *index = index_state(state);
    ctl_sort(datasets, "dataset_id");
    json_array_foreach (datasets, i, item) {
        const json_t *in_state = json_object_get(index, ctl_text(item, "dataset_id"));
        const char *status = status_of(item, in_state, nodes, c->args->deleted);
        if (status)
            json_array_append_new(rows, list_row(item, status, nodes));
    }
    if (c->args->json) {
        ctl_print_json(rows);
        return NULL;
    }
    CLEANUP(table_done) struct table t;
    table_init(&t, 5, (const char *const[]){"DATASET", "SIZE", "METADATA", "STATUS", "SERVER"});
    json_array_foreach (rows, i, item)
        list_cells(&t, item, nodes, c->args->details);
    table_print(&t, stdout);
    return NULL;
}

/* The last part of each changing command: prints the answer or the note, then waits if asked. */
static struct err *finish(struct ctl *c, const json_t *answer, enum ctl_goal goal, const char *node,
                          const char *note)
{
    const char *id = ctl_text(answer, "dataset_id");

    if (c->args->json)
        ctl_print_json(answer);
    else
        printf("Dataset %s %s\n", id, note);
    (void)fflush(stdout);
    TRY(ctl_wait(c, goal, id, node));
    if (c->args->wait && !c->args->json)
        printf("Done.\n");
    return NULL;
}

struct err *ctl_create(struct ctl *c)
{
    CLEANUP_FREE char *node = NULL;
    CLEANUP_JSON json_t *answer = NULL;

    if (!c->args->node)
        return err_new(ERR_INVALID, "must specify --node");
    TRY(ctl_find_node(c, c->args->node, &node));
    CLEANUP_JSON json_t *body = json_pack("{s:s}", "primary", node);
    if (json_object_size(c->args->metadata))
        json_object_set(body, "metadata", c->args->metadata);
    if (c->args->size)
        json_object_set_new(body, "maximum_size", json_integer((json_int_t)c->args->size));
    TRY(api_call(c->api, "POST", "/v1/configuration/datasets", body, &answer));
    return finish(
        c, answer, GOAL_DATASET_AT, node,
        "is in the configuration now; the cluster makes it.\n"
        "Use 'flockerctl list' to see when it is attached, 'flockerctl why' if it is not.");
}

struct err *ctl_destroy(struct ctl *c)
{
    CLEANUP_FREE char *id = NULL;
    CLEANUP_JSON json_t *answer = NULL;

    if (!c->args->dataset)
        return err_new(ERR_INVALID, "must specify --dataset");
    TRY(ctl_find_dataset(c, c->args->dataset, &id));
    CLEANUP_FREE char *path = api_path("/v1/configuration/datasets/", id);
    TRY(api_call(c->api, "DELETE", path, NULL, &answer));
    return finish(c, answer, GOAL_DATASET_GONE, NULL,
                  "is marked for deletion; the cluster destroys it when nothing uses it.\n"
                  "Use 'flockerctl list --deleted' to see when it is gone.");
}

struct err *ctl_move(struct ctl *c)
{
    CLEANUP_FREE char *id = NULL, *node = NULL;
    CLEANUP_JSON json_t *answer = NULL;

    if (!c->args->dataset)
        return err_new(ERR_INVALID, "must specify --dataset");
    if (!c->args->destination)
        return err_new(ERR_INVALID, "must specify --destination");
    TRY(ctl_find_dataset(c, c->args->dataset, &id));
    TRY(ctl_find_node(c, c->args->destination, &node));
    CLEANUP_JSON json_t *body = json_pack("{s:s}", "primary", node);
    CLEANUP_FREE char *path = api_path("/v1/configuration/datasets/", id);
    TRY(api_call(c->api, "POST", path, body, &answer));
    return finish(
        c, answer, GOAL_DATASET_AT, node,
        "is configured to move; that takes as long as its data need.\n"
        "Use 'flockerctl list' to see when it is attached, 'flockerctl why' if it is not.");
}

/* The update call for the dataset that is named by the operand. */
static struct err *update(struct ctl *c, json_t *body, json_t **ret_answer)
{
    CLEANUP_FREE char *id = NULL;

    TRY(ctl_find_dataset(c, c->args->operands[0], &id));
    CLEANUP_FREE char *path = api_path("/v1/configuration/datasets/", id);
    return api_call(c->api, "POST", path, body, ret_answer);
}

struct err *ctl_grow(struct ctl *c)
{
    CLEANUP_JSON json_t *answer = NULL;

    if (!c->args->size)
        return err_new(ERR_INVALID, "must specify --size");
    CLEANUP_JSON json_t *body = json_pack("{s:I}", "maximum_size", (json_int_t)c->args->size);
    TRY(update(c, body, &answer));
    return finish(c, answer, GOAL_DATASET_GROWN, NULL,
                  "is configured to be larger; its node makes it so.\n"
                  "Use 'flockerctl show' to see how large it is to be, 'flockerctl why' if it is not.");
}

struct err *ctl_set_metadata(struct ctl *c)
{
    CLEANUP_JSON json_t *answer = NULL;

    if (!json_object_size(c->args->metadata))
        return err_new(ERR_INVALID, "must specify --metadata");
    CLEANUP_JSON json_t *body = json_pack("{s:O}", "metadata", c->args->metadata);
    TRY(update(c, body, &answer));
    if (c->args->json) {
        ctl_print_json(answer);
        return NULL;
    }
    CLEANUP_FREE char *metadata = text_format_metadata(json_object_get(answer, "metadata"));
    CLEANUP_FREE char *safe = ctl_harmless(metadata);
    printf("Dataset %s has this metadata now: %s\n", ctl_text(answer, "dataset_id"), safe);
    return NULL;
}
