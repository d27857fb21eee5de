/* flockerctl list-replicas and drop-replica: the copies that moves left behind, for moving back. */
#include "base/now.h"
#include "base/str.h"
#include "cli/ctl.h"
#include "cli/table.h"
#include "cli/text.h"

char *ctl_replica_text(const json_t *replica, const json_t *nodes)
{
    double until = json_number_value(json_object_get(replica, "until"));
    double left = until - (double)now_os().wall_us / USEC_PER_SEC;
    CLEANUP_FREE char *node = ctl_node_text(nodes, ctl_text(replica, "node"));
    CLEANUP_FREE char *when = text_format_time(until);
    CLEANUP_FREE char *in = text_format_duration(left > 0 ? left : 0);

    return xasprintf("%s, until %s (in %s)", node, when, in);
}

static void list_cells(struct table *t, const json_t *replica, const json_t *nodes, bool full_id)
{
    CLEANUP_FREE char *server = ctl_server(nodes, ctl_text(replica, "node"), full_id);
    CLEANUP_FREE char *until = text_format_time(json_number_value(json_object_get(replica, "until")));

    table_cell(t, ctl_text(replica, "dataset_id"));
    table_cell(t, server);
    table_cell(t, until);
}

struct err *ctl_list_replicas(struct ctl *c)
{
    CLEANUP_JSON json_t *replicas = NULL, *nodes = NULL;
    size_t i;
    json_t *item;

    TRY(ctl_get_list(c, "/v1/replicas", &replicas));
    ctl_sort(replicas, "dataset_id");
    if (c->args->json) {
        ctl_print_json(replicas);
        return NULL;
    }
    TRY(ctl_get_nodes(c, &nodes));
    CLEANUP(table_done) struct table t;
    table_init(&t, 3, (const char *const[]){"DATASET", "SERVER", "UNTIL"});
    json_array_foreach (replicas, i, item)
        list_cells(&t, item, nodes, c->args->details);
    table_print(&t, stdout);
    return NULL;
}

struct err *ctl_drop_replica(struct ctl *c)
{
    CLEANUP_FREE char *id = NULL;
    CLEANUP_JSON json_t *answer = NULL;

    TRY(ctl_find_dataset(c, c->args->operands[0], &id));
    CLEANUP_FREE char *path = api_path("/v1/replicas/", id);
    TRY(api_call(c->api, "DELETE", path, NULL, &answer));
    if (c->args->json)
        ctl_print_json(answer);
    else
        printf("Dataset %s: its replica is removed once its node is there; moving back will ship all data.\n", id);
    return NULL;
}
