/* flocker-deploy --plan: what would change, for people. */
#include "cli/deploy.h"

#include "base/str.h"
#include "cli/table.h"
#include "cli/text.h"

/* "up to 1.0G" is what the dataset may hold: how much is in it only its node knows. */
static char *data_text(const json_t *change)
{
    json_int_t size = json_integer_value(json_object_get(change, "size"));

    if (!json_is_true(json_object_get(change, "moves_data")))
        return xstrdup("");
    if (size <= 0)
        return xstrdup("moves");
    CLEANUP_FREE char *bytes = text_format_bytes((uint64_t)size);
    return xasprintf("moves, up to %s", bytes);
}

static char *place_text(const json_t *nodes, const char *id)
{
    return *id ? ctl_node_text(nodes, id) : xstrdup("-");
}

static void add_row(struct table *t, const json_t *change, const json_t *nodes)
{
    const char *id = ctl_text(change, "dataset_id"), *name = ctl_text(change, "name");
    CLEANUP_FREE char *what = *id && *name ? xasprintf("%s (%.8s)", name, id) : xstrdup(*id ? id : name);
    CLEANUP_FREE char *from = place_text(nodes, ctl_text(change, "from"));
    CLEANUP_FREE char *to = place_text(nodes, ctl_text(change, "to"));
    CLEANUP_FREE char *data = data_text(change);

    table_cell(t, ctl_text(change, "action"));
    table_cell(t, ctl_text(change, "kind"));
    table_cell(t, what);
    table_cell(t, from);
    table_cell(t, to);
    table_cell(t, data);
}

struct err *deploy_print_plan(struct ctl *c, const json_t *plan)
{
    const json_t *changes = json_object_get(plan, "changes"), *change;
    CLEANUP_JSON json_t *nodes = NULL;
    CLEANUP(table_done) struct table t = {0};
    size_t i, moving = 0;

    if (!json_is_array(changes))
        return err_new(ERR_CORRUPT, "the control service's plan has no list of changes");
    if (c->args->json) {
        ctl_print_json(plan);
        return NULL;
    }
    if (!json_array_size(changes)) {
        printf("Nothing would change.\n");
        return NULL;
    }
    TRY(ctl_get_nodes(c, &nodes));
    table_init(&t, 6, (const char *const[]){"ACTION", "WHAT", "NAME", "FROM", "TO", "DATA"});
    json_array_foreach (changes, i, change) {
        add_row(&t, change, nodes);
        moving += json_is_true(json_object_get(change, "moves_data"));
    }
    table_print(&t, stdout);
    printf("%zu %s; the data of %zu %s move.\n", json_array_size(changes), i == 1 ? "change" : "changes", moving,
           moving == 1 ? "dataset would" : "datasets would");
    return NULL;
}
