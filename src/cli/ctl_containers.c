/* flockerctl ps, create-container, destroy-container, move-container. */
#include "base/str.h"
#include "cli/ctl.h"
#include "cli/table.h"

static const char *dataset_of(const json_t *container)
{
    return ctl_text(json_array_get(json_object_get(container, "volumes"), 0), "dataset_id");
}

/* What the control service knows about one container; an object in any case: a container may vanish
 * between two calls. */
static struct err *get_detail(struct ctl *c, const char *name, json_t **ret_detail)
{
    CLEANUP_FREE char *path = api_path("/v1/state/containers/", name);
    struct err *e = api_get(c->api, path, ret_detail);

    if (!err_is(e, ERR_NOT_FOUND))
        return e;
    *ret_detail = json_object();
    return err_free(e);
}

char *ctl_container_state(const json_t *detail)
{
    const char *state = ctl_text(detail, "state"), *health = ctl_text(detail, "health");
    const json_t *code = json_object_get(detail, "exit_code");

    if (json_is_integer(code))
        return xasprintf("%s (%lld)", state, (long long)json_integer_value(code));
    return *health ? xasprintf("%s (%s)", state, health) : xstrdup(state);
}

/* One item of the result: as configured, plus state, on, reason. */
static struct err *ps_row(struct ctl *c, const json_t *configured, const json_t *in_state,
                          json_t **ret_row)
{
    static const char *const told[] = {"reason", "health", "exit_code"};
    const json_t *known = configured ? configured : in_state;
    const char *on = ctl_text(in_state, "node_uuid");
    bool running = json_is_true(json_object_get(in_state, "running"));
    CLEANUP_JSON json_t *row = json_deep_copy(known);

    (void)json_object_del(row, "running");
    json_object_set_new(row, "state",
                        json_string(running    ? "running"
                                    : in_state ? "exited"
                                               : "absent"));
    json_object_set_new(row, "on", *on ? json_string(on) : json_null());
    json_object_set_new(row, "reason", json_null());
    json_object_set_new(row, "health", json_null());
    json_object_set_new(row, "exit_code", json_null());
    /* Only what is not as wanted, or says how it is, is asked for in detail. */
    if (!configured || !running || !streq(on, ctl_text(configured, "node_uuid")) ||
        json_object_get(configured, "healthcheck")) {
        CLEANUP_JSON json_t *detail = NULL;
        TRY(get_detail(c, ctl_text(known, "name"), &detail));
        if (*ctl_text(detail, "state"))
            json_object_set(row, "state", json_object_get(detail, "state"));
        for (size_t i = 0; i < ARRAY_SIZE(told); i++) {
            if (json_object_get(detail, told[i]))
                json_object_set(row, told[i], json_object_get(detail, told[i]));
        }
    }
    *ret_row = steal(&row);
    return NULL;
}

static struct err *ps_rows(struct ctl *c, json_t *rows)
{
    CLEANUP_JSON json_t *configured = NULL, *state = NULL;
    size_t i;
    json_t *item, *row;

    TRY(ctl_get_list(c, "/v1/configuration/containers", &configured));
    TRY(ctl_get_list(c, "/v1/state/containers", &state));
    CLEANUP_JSON json_t *configured_by_name = ctl_index(configured, "name");
    CLEANUP_JSON json_t *state_by_name = ctl_index(state, "name");
    json_array_foreach (configured, i, item) {
        TRY(ps_row(c, item, json_object_get(state_by_name, ctl_text(item, "name")), &row));
        json_array_append_new(rows, row);
    }
    json_array_foreach (state, i, item) { /* being removed */
        if (json_object_get(configured_by_name, ctl_text(item, "name")))
            continue;
        TRY(ps_row(c, NULL, item, &row));
        json_array_append_new(rows, row);
    }
    ctl_sort(rows, "name");
    return NULL;
}

static void ps_cells(struct table *t, const json_t *row, const json_t *nodes, bool full_id)
{
    const json_t *reason = json_object_get(row, "reason");
    const char *on = ctl_text(row, "on");
    CLEANUP_FREE char *server = ctl_server(nodes, *on ? on : ctl_text(row, "node_uuid"), full_id);
    CLEANUP_FREE char *dataset = xstrndup(dataset_of(row), full_id ? 36 : 8);
    CLEANUP_FREE char *why = json_is_object(reason) ? xasprintf("%s: %s", ctl_text(reason, "code"),
                                                                ctl_text(reason, "text"))
                                                    : xstrdup("");

    table_cell(t, ctl_text(row, "name"));
    table_cell(t, ctl_text(row, "image"));
    CLEANUP_FREE char *state = ctl_container_state(row);
    table_cell(t, state);
    table_cell(t, server);
    table_cell(t, dataset);
    table_cell(t, why);
}

struct err *ctl_ps(struct ctl *c)
{
    CLEANUP_JSON json_t *rows = json_array(), *nodes = NULL;
    size_t i;
    json_t *row;

    TRY(ps_rows(c, rows));
    if (c->args->json) {
        ctl_print_json(rows);
        return NULL;
    }
    TRY(ctl_get_nodes(c, &nodes));
    CLEANUP(table_done) struct table t;
    table_init(&t, 6, (const char *const[]){"NAME", "IMAGE", "STATE", "NODE", "DATASET", "REASON"});
    json_array_foreach (rows, i, row)
        ps_cells(&t, row, nodes, c->args->details);
    table_print(&t, stdout);
    return NULL;
}

static struct err *finish(struct ctl *c, const json_t *answer, enum ctl_goal goal, const char *name,
                          const char *node, const char *note)
{
    if (c->args->json)
        ctl_print_json(answer);
    else
        printf("Container %s %s\n", name, note);
    (void)fflush(stdout);
    TRY(ctl_wait(c, goal, name, node));
    if (c->args->wait && !c->args->json)
        printf("Done.\n");
    return NULL;
}

/* "DATASET:/mountpoint" -> the API's list of volumes. */
static struct err *volumes_of(struct ctl *c, const char *volume, json_t **ret_volumes)
{
    const char *colon = strchr(volume, ':');
    CLEANUP_FREE char *id = NULL;

    if (!colon || colon[1] != '/')
        return err_new(ERR_INVALID, "malformed volume '%s', please use DATASET:/mountpoint",
                       volume);
    CLEANUP_FREE char *dataset = xstrndup(volume, (size_t)(colon - volume));
    TRY(ctl_find_dataset(c, dataset, &id));
    *ret_volumes = json_pack("[{s:s,s:s}]", "dataset_id", id, "mountpoint", colon + 1);
    if (!*ret_volumes)
        return err_new(ERR_INVALID, "the mountpoint in '%s' is not UTF-8 text", volume);
    return NULL;
}

/* The options of create-container as the API's body. */
static struct err *container_body(struct ctl *c, const char *node, json_t **ret_body)
{
    const struct ctl_args *a = c->args;
    CLEANUP_JSON json_t *body = json_pack("{s:s,s:s,s:s}", "node_uuid", node, "name",
                                          a->operands[0], "image", a->operands[1]);
    json_t *volumes;

    if (!body)
        return err_new(ERR_INVALID, "name and image must be UTF-8 text");
    if (json_array_size(a->ports))
        json_object_set(body, "ports", a->ports);
    if (json_object_size(a->environment))
        json_object_set(body, "environment", a->environment);
    if (a->restart)
        json_object_set_new(body, "restart_policy", json_pack("{s:s}", "name", a->restart));
    if (a->memory)
        json_object_set_new(body, "memory_limit", json_integer((json_int_t)a->memory));
    if (a->cpu_shares)
        json_object_set_new(body, "cpu_shares", json_integer(a->cpu_shares));
    if (a->n_operands > 2) {
        json_t *command = json_array();
        json_object_set_new(body, "command_line", command);
        for (int i = 2; i < a->n_operands; i++) {
            if (json_array_append_new(command, json_string(a->operands[i])) < 0)
                return err_new(ERR_INVALID, "the command line must be UTF-8 text");
        }
    }
    if (a->volume) {
        TRY(volumes_of(c, a->volume, &volumes));
        json_object_set_new(body, "volumes", volumes);
    }
    *ret_body = steal(&body);
    return NULL;
}

struct err *ctl_create_container(struct ctl *c)
{
    CLEANUP_FREE char *node = NULL;
    CLEANUP_JSON json_t *body = NULL, *answer = NULL;

    if (!c->args->node)
        return err_new(ERR_INVALID, "must specify --node");
    TRY(ctl_find_node(c, c->args->node, &node));
    TRY(container_body(c, node, &body));
    TRY(api_call(c->api, "POST", "/v1/configuration/containers", body, &answer));
    return finish(c, answer, GOAL_CONTAINER_AT, ctl_text(answer, "name"), node,
                  "is in the configuration now; the cluster starts it.\n"
                  "Use 'flockerctl ps' to see when it runs, 'flockerctl why' if it does not.");
}

struct err *ctl_destroy_container(struct ctl *c)
{
    const char *name = c->args->operands[0];
    CLEANUP_JSON json_t *answer = NULL, *before = NULL;
    CLEANUP_FREE char *path = api_path("/v1/configuration/containers/", name);

    if (c->args->wait) /* where it is, for afterwards nobody says */
        TRY(get_detail(c, name, &before));
    const char *on =
        *ctl_text(before, "on") ? ctl_text(before, "on") : ctl_text(before, "node_uuid");
    TRY(api_call(c->api, "DELETE", path, NULL, &answer));
    return finish(c, answer, GOAL_CONTAINER_GONE, name, *on ? on : NULL,
                  "is no longer in the configuration; the cluster stops it. Its dataset stays.");
}

struct err *ctl_move_container(struct ctl *c)
{
    const char *name = c->args->operands[0];
    CLEANUP_FREE char *node = NULL;
    CLEANUP_JSON json_t *answer = NULL;

    if (!c->args->destination)
        return err_new(ERR_INVALID, "must specify --destination");
    TRY(ctl_find_node(c, c->args->destination, &node));
    CLEANUP_JSON json_t *body = json_pack("{s:s}", "node_uuid", node);
    CLEANUP_FREE char *path = api_path("/v1/configuration/containers/", name);
    TRY(api_call(c->api, "POST", path, body, &answer));
    return finish(c, answer, GOAL_CONTAINER_AT, name, node,
                  "is configured to move, with its dataset.\n"
                  "Use 'flockerctl ps' to see where it runs, 'flockerctl why' if it does not.");
}
