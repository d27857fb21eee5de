/* flockerctl leases and release: who keeps which dataset where it is. */
#include "base/str.h"
#include "cli/ctl.h"
#include "cli/table.h"
#include "cli/text.h"

/* "2 Docker mounts", "API", "2 Docker mounts, API". */
static char *lease_by(const json_t *lease)
{
    size_t n = json_array_size(json_object_get(lease, "mounts"));
    bool acquired = json_is_true(json_object_get(lease, "acquired"));

    if (!n)
        return xstrdup("API");
    return xasprintf("%zu Docker mount%s%s", n, n == 1 ? "" : "s", acquired ? ", API" : "");
}

static char *time_or_dash(const json_t *seconds)
{
    return json_is_number(seconds) ? text_format_time(json_number_value(seconds)) : xstrdup("-");
}

static void list_cells(struct table *t, const json_t *lease, const json_t *nodes, bool full_id)
{
    const json_t *expires = json_object_get(lease, "expires");
    CLEANUP_FREE char *server = ctl_server(nodes, ctl_text(lease, "node_uuid"), full_id);
    CLEANUP_FREE char *by = lease_by(lease);
    CLEANUP_FREE char *since = time_or_dash(json_object_get(lease, "since"));
    CLEANUP_FREE char *left =
        json_is_number(expires) ? text_format_duration(json_number_value(expires)) : xstrdup("never");

    table_cell(t, ctl_text(lease, "dataset_id"));
    table_cell(t, server);
    table_cell(t, by);
    table_cell(t, since);
    table_cell(t, left);
}

struct err *ctl_leases(struct ctl *c)
{
    CLEANUP_JSON json_t *leases = NULL, *nodes = NULL;
    size_t i;
    json_t *item;

    TRY(ctl_get_list(c, "/v1/state/leases", &leases));
    ctl_sort(leases, "dataset_id");
    if (c->args->json) {
        ctl_print_json(leases);
        return NULL;
    }
    TRY(ctl_get_nodes(c, &nodes));
    CLEANUP(table_done) struct table t;
    table_init(&t, 5, (const char *const[]){"DATASET", "SERVER", "BY", "SINCE", "EXPIRES IN"});
    json_array_foreach (leases, i, item)
        list_cells(&t, item, nodes, c->args->details);
    table_print(&t, stdout);
    return NULL;
}

char *ctl_lease_text(const json_t *lease, const json_t *nodes)
{
    CLEANUP_FREE char *node = ctl_node_text(nodes, ctl_text(lease, "node_uuid"));
    CLEANUP_FREE char *by = lease_by(lease);
    const json_t *since = json_object_get(lease, "since");
    CLEANUP_FREE char *when = time_or_dash(since);

    return xasprintf("%s on %s%s%s", by, node, json_is_number(since) ? ", since " : "", json_is_number(since) ? when : "");
}

struct err *ctl_release(struct ctl *c)
{
    CLEANUP_FREE char *id = NULL;
    CLEANUP_JSON json_t *detail = NULL, *nodes = NULL, *answer = NULL;

    TRY(ctl_find_dataset(c, c->args->operands[0], &id));
    CLEANUP_FREE char *state_path = api_path("/v1/state/datasets/", id);
    TRY(api_get(c->api, state_path, &detail));
    TRY(ctl_get_nodes(c, &nodes));
    const json_t *lease = json_object_get(detail, "lease");
    if (!json_is_object(lease))
        return err_new(ERR_NOT_FOUND, "nobody holds a lease of dataset %s", id);
    CLEANUP_FREE char *holder = ctl_lease_text(lease, nodes);
    bool mounted = json_array_size(json_object_get(lease, "mounts")) > 0;
    bool alive = json_object_get(nodes, ctl_text(lease, "node_uuid")) != NULL;
    if (mounted && alive && !c->args->force)
        return err_new(ERR_CONFLICT,
                       "dataset %s is held by %s. That node is alive, and a container may be writing: stop it there, and Docker "
                       "lets go of the volume. --force releases it all the same; then a move waits until nothing has it open",
                       id, holder);
    if (mounted && !alive && !c->args->force)
        return err_new(ERR_CONFLICT,
                       "dataset %s is held by %s. That node does not answer, which is no proof that its containers do not write. If "
                       "it is off for good, 'flockerctl fence' frees what it had; --force releases only this lease",
                       id, holder);
    CLEANUP_FREE char *path = api_path("/v1/configuration/leases/", id);
    TRY(err_wrap(api_call(c->api, "DELETE", path, NULL, &answer), "dataset %s", id));
    if (c->args->json)
        ctl_print_json(answer);
    else
        printf("Dataset %s: released; it was held by %s.\n", id, holder);
    return NULL;
}
