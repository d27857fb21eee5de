/* flockerctl ps, create-container, destroy-container, move-container. */
#include "base/str.h"
#include "cli/ctl.h"
#include "cli/table.h"

/* All of them, with a comma between; the caller frees it. */
static char *datasets_of(const json_t *container, bool full_id)
{
    CLEANUP_STR struct str s = {0};
    size_t i;
    json_t *volume;

    json_array_foreach (json_object_get(container, "volumes"), i, volume)
        str_appendf(&s, "%s%.*s", i ? "," : "", full_id ? 36 : 8, ctl_text(volume, "dataset_id"));
    return s.len ? str_steal(&s) : xstrdup("");
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
    CLEANUP_FREE char *datasets = datasets_of(row, full_id);
    CLEANUP_FREE char *why = json_is_object(reason) ? xasprintf("%s: %s", ctl_text(reason, "code"),
                                                                ctl_text(reason, "text"))
                                                    : xstrdup("");

    table_cell(t, ctl_text(row, "name"));
    table_cell(t, ctl_text(row, "image"));
    CLEANUP_FREE char *state = ctl_container_state(row);
    table_cell(t, state);
    table_cell(t, server);
    table_cell(t, datasets);
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

struct err *ctl_create_container(struct ctl *c)
{
    CLEANUP_FREE char *node = NULL;
    CLEANUP_JSON json_t *body = NULL, *answer = NULL;

    if (!c->args->node)
        return err_new(ERR_INVALID, "must specify --node");
    TRY(ctl_find_node(c, c->args->node, &node));
    TRY(ctl_container_body(c, node, &body));
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
                  "is no longer in the configuration; the cluster stops it. Its datasets stay.");
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
                  "is configured to move, with its datasets.\n"
                  "Use 'flockerctl ps' to see where it runs, 'flockerctl why' if it does not.");
}
