/* flockerctl show and why: everything about one dataset; what blocks a dataset or container. */
#include "base/now.h"
#include "base/str.h"
#include "cli/ctl.h"
#include "cli/match.h"
#include "cli/text.h"

#include <inttypes.h>

/* "label    value" with control characters of `value` made harmless. */
static void line(const char *label, const char *value)
{
    CLEANUP_STR struct str safe = {0};

    text_append_safe(&safe, value);
    printf("  %-10s %s\n", label, safe.data ? safe.data : "");
}

static double wall_seconds(void)
{
    return (double)now_os().wall_us / USEC_PER_SEC;
}

static void print_reason(const json_t *reason)
{
    double now = wall_seconds();
    const json_t *since = json_object_get(reason, "since");
    const json_t *next = json_object_get(reason, "next_try");
    CLEANUP_FREE char *what =
        xasprintf("%s: %s", ctl_text(reason, "code"), ctl_text(reason, "text"));

    line("blocked by", what);
    if (json_is_number(since)) {
        CLEANUP_FREE char *when = text_format_time(json_number_value(since));
        CLEANUP_FREE char *ago = text_format_duration(now - json_number_value(since));
        CLEANUP_FREE char *text = xasprintf("%s (%s ago)", when, ago);
        line("since", text);
    }
    if (json_is_number(next)) {
        CLEANUP_FREE char *in = text_format_duration(json_number_value(next) - now);
        CLEANUP_FREE char *text = xasprintf("in %s", in);
        line("next try", text);
    } else {
        line("next try", "when something changes");
    }
    line("to do", ctl_text(reason, "advice"));
}

static void print_transfer(const json_t *transfer, const json_t *nodes)
{
    struct text_progress p = ctl_transfer_progress(transfer);
    CLEANUP_FREE char *source = ctl_node_text(nodes, ctl_text(transfer, "source"));
    CLEANUP_FREE char *destination = ctl_node_text(nodes, ctl_text(transfer, "destination"));
    CLEANUP_FREE char *numbers = text_format_progress(&p, /* columns= */ 0);
    CLEANUP_STR struct str text = {0};

    str_appendf(&text, "%s, %s -> %s, %s", ctl_text(transfer, "phase"), source, destination, numbers);
    line("transfer", text.data);
}

static char *dataset_actual(const json_t *d, const json_t *nodes)
{
    const char *status = ctl_text(d, "status");
    const char *at = ctl_text(d, "node");
    CLEANUP_FREE char *node = ctl_node_text(nodes, at);

    if (*at && *ctl_text(d, "path"))
        return xasprintf("%s, on %s at %s", status, node, ctl_text(d, "path"));
    if (*at)
        return xasprintf("%s, on %s", status, node);
    return xstrdup(status);
}

/* Blocks of single nodes, when they differ from the dataset's own. */
static void print_node_reasons(const json_t *d, const json_t *nodes)
{
    const json_t *own = json_object_get(d, "reason");
    size_t i;
    json_t *item;

    json_array_foreach (json_object_get(d, "nodes"), i, item) {
        const json_t *reason = json_object_get(item, "reason");
        if (!json_is_object(reason) || streq(ctl_text(reason, "text"), ctl_text(own, "text")))
            continue;
        CLEANUP_FREE char *node = ctl_node_text(nodes, ctl_text(item, "uuid"));
        CLEANUP_FREE char *text =
            xasprintf("%s: %s: %s", node, ctl_text(reason, "code"), ctl_text(reason, "text"));
        line("on node", text);
    }
}

static void print_dataset_head(const json_t *d)
{
    CLEANUP_FREE char *metadata = text_format_metadata(json_object_get(d, "metadata"));
    CLEANUP_STR struct str safe = {0};

    str_append(&safe, "dataset ");
    text_append_safe(&safe, ctl_text(d, "dataset_id"));
    if (*metadata) {
        str_append(&safe, " (");
        text_append_safe(&safe, metadata);
        str_append(&safe, ")");
    }
    puts(safe.data);
}

/* Docker on other nodes waits for it. */
static void print_waiting(const json_t *d, const json_t *nodes)
{
    size_t i;
    json_t *item;

    json_array_foreach (json_object_get(d, "waiting"), i, item) {
        double since = json_number_value(json_object_get(item, "since"));
        CLEANUP_FREE char *node = ctl_node_text(nodes, ctl_text(item, "node_uuid"));
        CLEANUP_FREE char *when = text_format_time(since);
        CLEANUP_FREE char *text = xasprintf("Docker on %s, to mount it, since %s", node, when);
        line("waiting", text);
    }
}

static void print_lease(const json_t *d, const json_t *nodes)
{
    const json_t *lease = json_object_get(d, "lease");

    if (!json_is_object(lease))
        return;
    CLEANUP_FREE char *text = ctl_lease_text(lease, nodes);
    line("held by", text);
}

static void print_dataset_why(const json_t *d, const json_t *nodes)
{
    const json_t *reason = json_object_get(d, "reason");
    bool deleted = json_is_true(json_object_get(d, "deleted"));
    CLEANUP_FREE char *wanted = ctl_node_text(nodes, ctl_text(d, "primary"));
    CLEANUP_FREE char *wanted_text = xasprintf("on %s", wanted);
    CLEANUP_FREE char *actual = dataset_actual(d, nodes);

    print_dataset_head(d);
    line("wanted", deleted ? "destroyed" : wanted_text);
    line("actual", actual);
    if (json_is_object(json_object_get(d, "transfer")))
        print_transfer(json_object_get(d, "transfer"), nodes);
    if (json_is_object(reason))
        print_reason(reason);
    else
        line("blocked by", "nothing");
    print_lease(d, nodes);
    print_waiting(d, nodes);
    print_node_reasons(d, nodes);
}

static void print_volumes(const json_t *container)
{
    size_t i;
    json_t *volume;

    json_array_foreach (json_object_get(container, "volumes"), i, volume) {
        bool read_only = json_is_true(json_object_get(volume, "read_only"));
        CLEANUP_FREE char *text =
            xasprintf("%s at %s%s", ctl_text(volume, "dataset_id"), ctl_text(volume, "mountpoint"),
                      read_only ? ", read-only" : "");
        line(i ? "" : "datasets", text);
    }
}

static void print_container_why(const json_t *d, const json_t *nodes)
{
    const json_t *reason = json_object_get(d, "reason");
    const char *at = ctl_text(d, "on");
    CLEANUP_STR struct str name = {0};
    CLEANUP_FREE char *wanted = ctl_node_text(nodes, ctl_text(d, "node_uuid"));
    CLEANUP_FREE char *wanted_text = xasprintf("running on %s", wanted);
    CLEANUP_FREE char *node = ctl_node_text(nodes, at);
    CLEANUP_FREE char *state = ctl_container_state(d);
    CLEANUP_FREE char *actual = *at ? xasprintf("%s on %s", state, node) : xstrdup(state);

    str_append(&name, "container ");
    text_append_safe(&name, ctl_text(d, "name"));
    puts(name.data);
    line("wanted", wanted_text);
    line("actual", actual);
    print_volumes(d);
    if (json_is_object(reason))
        print_reason(reason);
    else
        line("blocked by", "nothing");
}

static struct err *get_dataset(struct ctl *c, const char *id, json_t **ret_detail)
{
    CLEANUP_FREE char *path = api_path("/v1/state/datasets/", id);

    return api_get(c->api, path, ret_detail);
}

/* The container of exactly this name; *ret_detail NULL when there is none. */
static struct err *get_container(struct ctl *c, const char *name, json_t **ret_detail)
{
    CLEANUP_FREE char *path = api_path("/v1/state/containers/", name);
    struct err *e = api_get(c->api, path, ret_detail);

    if (!err_is(e, ERR_NOT_FOUND))
        return e;
    *ret_detail = NULL;
    return err_free(e);
}

/* A dataset and a container may have the same name: then both are told. */
struct err *ctl_why(struct ctl *c)
{
    const char *what = c->args->operands[0];
    CLEANUP_JSON json_t *dataset = NULL, *container = NULL, *nodes = NULL;
    CLEANUP_FREE char *id = NULL;

    TRY(get_container(c, what, &container));
    CLEANUP_ERR struct err *none = ctl_find_dataset(c, what, &id);
    if (none && !err_is(none, ERR_NOT_FOUND))
        return steal(&none);
    if (none && !container)
        return err_new(ERR_NOT_FOUND, "%s, and no container of that name", none->text);
    if (id)
        TRY(get_dataset(c, id, &dataset));
    if (c->args->json) {
        CLEANUP_JSON json_t *both =
            json_pack("{s:O?,s:O?}", "dataset", dataset, "container", container);
        ctl_print_json(both);
        return NULL;
    }
    TRY(ctl_get_nodes(c, &nodes));
    if (dataset)
        print_dataset_why(dataset, nodes);
    if (container)
        print_container_why(container, nodes);
    return NULL;
}

static void print_holders(const json_t *d, const json_t *nodes)
{
    size_t i;
    json_t *item;

    json_array_foreach (json_object_get(d, "holders"), i, item) {
        const char *id = json_string_value(item);
        CLEANUP_FREE char *node = ctl_node_text(nodes, id ? id : "");
        line(i ? "" : "holders", node);
    }
}

static void print_dataset(const json_t *d, const json_t *nodes)
{
    CLEANUP_FREE char *owner = ctl_node_text(nodes, ctl_text(d, "owner"));
    CLEANUP_FREE char *epoch =
        xasprintf("%" JSON_INTEGER_FORMAT, json_integer_value(json_object_get(d, "epoch")));
    CLEANUP_FREE char *quota = ctl_quota(d);

    print_dataset_why(d, nodes);
    if (*ctl_text(d, "device"))
        line("device", ctl_text(d, "device"));
    line("size", quota);
    line("owner", owner);
    line("epoch", epoch);
    line("data", json_is_true(json_object_get(d, "born")) ? "exist" : "not created yet");
    print_holders(d, nodes);
    if (json_is_object(json_object_get(d, "replica"))) {
        CLEANUP_FREE char *replica = ctl_replica_text(json_object_get(d, "replica"), nodes);
        line("replica", replica);
    }
    if (json_is_object(json_object_get(d, "verification"))) {
        CLEANUP_FREE char *text = ctl_verification_text(json_object_get(d, "verification"), nodes);
        line("verified", text);
    }
}

struct err *ctl_show(struct ctl *c)
{
    CLEANUP_JSON json_t *dataset = NULL, *nodes = NULL;
    CLEANUP_FREE char *id = NULL;

    TRY(ctl_find_dataset(c, c->args->operands[0], &id));
    TRY(get_dataset(c, id, &dataset));
    if (c->args->json) {
        ctl_print_json(dataset);
        return NULL;
    }
    TRY(ctl_get_nodes(c, &nodes));
    print_dataset(dataset, nodes);
    return NULL;
}
