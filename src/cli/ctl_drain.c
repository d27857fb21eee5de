/* flockerctl drain, cordon, uncordon. All that is wanted of a drain is in the configuration after its first moments: it goes on
 * when this program or the control service ends, and calling it again goes on from there. */
#include "base/now.h"
#include "base/str.h"
#include "cli/ctl.h"

#include <time.h>

#define POLL_NS 300000000

static struct err *set_cordon(struct ctl *c, const char *node, const char *method)
{
    CLEANUP_FREE char *path = api_path("/v1/cordons/", node);

    return api_call(c->api, method, path, NULL, NULL);
}

static struct err *change_cordon(struct ctl *c, const char *method, const char *said)
{
    CLEANUP_FREE char *id = NULL;

    TRY(ctl_find_any_node(c, c->args->operands[0], &id));
    TRY(set_cordon(c, id, method));
    if (c->args->json) {
        CLEANUP_JSON json_t *answer = json_pack("{s:s, s:b}", "uuid", id, "cordoned", streq(method, "POST"));
        ctl_print_json(answer);
    } else {
        printf("Node %.8s %s.\n", id, said);
    }
    return NULL;
}

struct err *ctl_cordon(struct ctl *c)
{
    return change_cordon(c, "POST", "gets nothing new, unless somebody names it; 'flockerctl uncordon' ends that");
}

struct err *ctl_uncordon(struct ctl *c)
{
    return change_cordon(c, "DELETE", "gets new datasets and containers again");
}

/* ---- what goes where ---- */

struct drain {
    struct ctl *c;
    char *node;
    char *to;        /* NULL = spread */
    json_t *nodes;   /* by uuid, those that may get something */
    json_t *loads;   /* uuid -> bytes and containers that are promised to it */
    json_t *copies;  /* of a node that is fenced: dataset -> the node that has the newest copy of it */
    json_t *moved;   /* lines of the result */
    json_t *refused; /* likewise, with what the control service said */
};

static void drain_done(struct drain *d)
{
    json_decref(d->nodes);
    json_decref(d->loads);
    json_decref(d->copies);
    json_decref(d->moved);
    json_decref(d->refused);
    free(d->node);
    free(d->to);
}

/* A container counts as a volume of a gibibyte, so that those without one are spread too. */
#define CONTAINER_LOAD 1073741824.0

static void add_load(struct drain *d, const char *node, double load)
{
    const json_t *before = json_object_get(d->loads, node);

    if (before)
        (void)json_object_set_new(d->loads, node, json_real(json_real_value(before) + load));
}

static double load_of(const json_t *dataset)
{
    double size = json_number_value(json_object_get(dataset, "maximum_size"));

    return size > 0 ? size : CONTAINER_LOAD;
}

/* The node that has a copy already, or that to which least is promised; how much of their storage is free the nodes do not tell.
 * `dataset` NULL: none is moved along. */
static const char *choose(const struct drain *d, const char *dataset)
{
    const char *best = dataset ? json_string_value(json_object_get(d->copies, dataset)) : NULL, *node;
    double least = 0;
    json_t *load;

    if (d->to)
        return d->to;
    if (best && json_object_get(d->loads, best))
        return best;
    best = NULL;
    json_object_foreach (d->loads, node, load) {
        if (best && json_real_value(load) >= least)
            continue;
        best = node;
        least = json_real_value(load);
    }
    return best;
}

static struct err *find_targets(struct drain *d)
{
    CLEANUP_JSON json_t *list = NULL;
    size_t i;
    json_t *node;

    d->nodes = json_object();
    d->loads = json_object();
    TRY(ctl_get_list(d->c, "/v1/state/nodes", &list));
    json_array_foreach (list, i, node) {
        const char *id = ctl_text(node, "uuid");
        bool closed = json_is_true(json_object_get(node, "cordoned")) || json_is_true(json_object_get(node, "fenced"));
        if (streq(id, d->node) || (!d->to && closed))
            continue;
        (void)json_object_set(d->nodes, id, node);
        (void)json_object_set_new(d->loads, id, json_real(0));
    }
    if (!choose(d, NULL))
        return err_new(ERR_CONFLICT,
                       "nothing can be moved away from %.8s: no other node is connected that is not cordoned. It is cordoned now; "
                       "call this again when there is one, or 'flockerctl uncordon %.8s'",
                       d->node, d->node);
    return NULL;
}

static bool is_on(const json_t *object, const char *key, const char *node)
{
    return streq(ctl_text(object, key), node) && !json_is_true(json_object_get(object, "deleted"));
}

/* With its datasets, which go with it. */
static double load_of_container(const json_t *container, const json_t *datasets)
{
    double load = CONTAINER_LOAD;
    size_t i;
    json_t *volume;

    json_array_foreach (json_object_get(container, "volumes"), i, volume)
        load += load_of(json_object_get(datasets, ctl_text(volume, "dataset_id")));
    return load;
}

static void count_loads(struct drain *d, const json_t *datasets, const json_t *containers)
{
    const char *id;
    size_t i;
    json_t *item;

    json_object_foreach ((json_t *)(uintptr_t)datasets, id, item) {
        if (!json_is_true(json_object_get(item, "deleted")))
            add_load(d, ctl_text(item, "primary"), load_of(item));
    }
    json_array_foreach (containers, i, item)
        add_load(d, ctl_text(item, "node_uuid"), CONTAINER_LOAD);
}

/* One object, and what came of it. Only what the control service says of this object is noted, other errors end the drain. */
static struct err *move_one(struct drain *d, const char *kind, const char *id, const char *dataset, const char *prefix,
                            const char *key, double load)
{
    const char *to = choose(d, dataset);
    CLEANUP_FREE char *path = api_path(prefix, id);
    CLEANUP_JSON json_t *body = json_pack("{s:s}", key, to);
    struct err *e = api_call(d->c->api, "POST", path, body, NULL);

    if (err_is(e, ERR_NOT_FOUND)) /* somebody deleted it just now */
        return err_free(e);
    if (err_is(e, ERR_CONFLICT) || err_is(e, ERR_INVALID)) {
        json_array_append_new(d->refused, json_pack("{s:s, s:s, s:s}", "kind", kind, "id", id, "text", e->text));
        return err_free(e);
    }
    if (e)
        return e;
    add_load(d, to, load);
    json_array_append_new(d->moved, json_pack("{s:s, s:s, s:s}", "kind", kind, "id", id, "to", to));
    if (!d->c->args->json) {
        CLEANUP_FREE char *server = ctl_server(d->nodes, to, /* full_id= */ false);
        printf("%s %s goes to %s\n", kind, id, server);
        (void)fflush(stdout);
    }
    return NULL;
}

static const char *first_volume(const json_t *container)
{
    return json_string_value(json_object_get(json_array_get(json_object_get(container, "volumes"), 0), "dataset_id"));
}

/* A node that is fenced: each dataset goes to where a copy of it is, if there is one. */
static struct err *find_copies(struct drain *d)
{
    CLEANUP_FREE char *path = api_path("/v1/fences/", d->node);
    CLEANUP_JSON json_t *preview = NULL;
    size_t i;
    json_t *item;

    d->copies = json_object();
    TRY(api_get(d->c->api, path, &preview));
    if (!json_is_object(json_object_get(preview, "fence")))
        return NULL;
    json_array_foreach (json_object_get(preview, "datasets"), i, item) {
        if (*ctl_text(item, "node"))
            (void)json_object_set(d->copies, ctl_text(item, "dataset_id"), json_object_get(item, "node"));
    }
    return NULL;
}

static struct err *move_all(struct drain *d)
{
    CLEANUP_JSON json_t *list = NULL, *containers = NULL, *used = json_object();
    const char *id;
    size_t i, k;
    json_t *item, *volume;

    TRY(ctl_get_list(d->c, "/v1/configuration/datasets", &list));
    CLEANUP_JSON json_t *datasets = ctl_index(list, "dataset_id");
    TRY(ctl_get_list(d->c, "/v1/configuration/containers", &containers));
    count_loads(d, datasets, containers);
    json_array_foreach (containers, i, item) {
        json_array_foreach (json_object_get(item, "volumes"), k, volume)
            (void)json_object_set_new(used, ctl_text(volume, "dataset_id"), json_true());
        if (is_on(item, "node_uuid", d->node))
            TRY(move_one(d, "container", ctl_text(item, "name"), first_volume(item), "/v1/configuration/containers/", "node_uuid",
                         load_of_container(item, datasets)));
    }
    json_object_foreach (datasets, id, item) { /* those of containers go with them */
        if (is_on(item, "primary", d->node) && !json_object_get(used, id))
            TRY(move_one(d, "dataset", id, id, "/v1/configuration/datasets/", "primary", load_of(item)));
    }
    return NULL;
}

/* ---- waiting ---- */

/* What is there still, whether this call moved it or an earlier one: {kind, id, text}. */
static struct err *find_left(struct drain *d, const char *path, const char *kind, const char *id_key, const char *node_key,
                             json_t *left)
{
    CLEANUP_JSON json_t *list = NULL;
    size_t i;
    json_t *item;

    TRY(ctl_get_list(d->c, path, &list));
    json_array_foreach (list, i, item) {
        if (streq(ctl_text(item, node_key), d->node))
            json_array_append_new(left, json_pack("{s:s, s:s}", "kind", kind, "id", ctl_text(item, id_key)));
    }
    return NULL;
}

static struct err *all_left(struct drain *d, json_t **ret_left)
{
    CLEANUP_JSON json_t *left = json_array();

    TRY(find_left(d, "/v1/state/containers", "container", "name", "node_uuid", left));
    TRY(find_left(d, "/v1/state/datasets", "dataset", "dataset_id", "primary", left));
    *ret_left = steal(&left);
    return NULL;
}

static struct err *wait_until_empty(struct drain *d, json_t **ret_left)
{
    uint64_t end = now_os().mono_us + (uint64_t)d->c->args->wait_seconds * USEC_PER_SEC;

    for (;;) {
        CLEANUP_JSON json_t *left = NULL;
        struct err *e = all_left(d, &left);
        bool over = now_os().mono_us >= end || !d->c->args->wait;
        if (e && (over || !err_is(e, ERR_UNAVAILABLE))) /* the control service may be restarting */
            return e;
        err_free(e);
        if (left && (over || !json_array_size(left))) {
            *ret_left = steal(&left);
            return NULL;
        }
        (void)nanosleep(&(struct timespec){.tv_nsec = POLL_NS}, NULL);
    }
}

/* Why it is there still. */
static void explain(struct drain *d, json_t *item)
{
    const char *prefix = streq(ctl_text(item, "kind"), "container") ? "/v1/state/containers/" : "/v1/state/datasets/";
    CLEANUP_FREE char *path = api_path(prefix, ctl_text(item, "id"));
    CLEANUP_JSON json_t *detail = NULL;
    CLEANUP_ERR struct err *e = api_get(d->c->api, path, &detail);
    const json_t *reason = e ? NULL : json_object_get(detail, "reason");

    if (!json_is_object(reason))
        return;
    (void)json_object_set(item, "reason", (json_t *)reason);
    CLEANUP_FREE char *text = xasprintf("%s: %s. %s", ctl_text(reason, "code"), ctl_text(reason, "text"),
                                        ctl_text(reason, "advice"));
    (void)json_object_set_new(item, "text", json_string(text));
}

static void print_lines(const json_t *items, const char *said)
{
    size_t i;
    json_t *item;

    json_array_foreach (items, i, item) {
        CLEANUP_FREE char *safe = ctl_harmless(ctl_text(item, "text"));
        printf("%s %s %s%s%s\n", ctl_text(item, "kind"), ctl_text(item, "id"), said, *safe ? ": " : "", safe);
    }
}

static struct err *report(struct drain *d, json_t *left)
{
    size_t n_left = json_array_size(left), n_refused = json_array_size(d->refused), i;
    json_t *item;

    json_array_foreach (left, i, item)
        explain(d, item);
    if (d->c->args->json) {
        CLEANUP_JSON json_t *answer =
            json_pack("{s:s, s:O, s:O, s:O}", "uuid", d->node, "moved", d->moved, "refused", d->refused, "left", left);
        ctl_print_json(answer);
    } else {
        print_lines(d->refused, "cannot be moved");
        if (d->c->args->wait)
            print_lines(left, "is there still");
        if (!n_refused && !n_left)
            printf("Node %.8s is empty and gets nothing new; 'flockerctl uncordon %.8s' ends that.\n", d->node, d->node);
        else if (!d->c->args->wait)
            printf("%zu are on their way; 'flockerctl drain --wait %.8s' waits for them.\n", n_left, d->node);
    }
    if (n_refused || (d->c->args->wait && n_left))
        return err_new(ERR_CONFLICT, "node %.8s is not empty: %zu could not be moved, %zu are there still", d->node, n_refused,
                       n_left);
    return NULL;
}

struct err *ctl_drain(struct ctl *c)
{
    CLEANUP(drain_done) struct drain d = {.c = c, .moved = json_array(), .refused = json_array()};
    CLEANUP_JSON json_t *left = NULL;

    TRY(ctl_find_any_node(c, c->args->operands[0], &d.node));
    if (c->args->destination)
        TRY(ctl_find_node(c, c->args->destination, &d.to));
    if (d.to && streq(d.to, d.node))
        return err_new(ERR_INVALID, "a node cannot be drained to itself");
    TRY(set_cordon(c, d.node, "POST"));
    TRY(find_targets(&d));
    TRY(find_copies(&d));
    TRY(move_all(&d));
    TRY(wait_until_empty(&d, &left));
    return report(&d, left);
}
