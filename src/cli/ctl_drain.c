/* flockerctl drain, cordon, uncordon. All that is wanted of a drain is in the configuration after its first moments: it goes on
 * when this program or the control service ends, and calling it again goes on from there. */
#include "base/now.h"
#include "base/str.h"
#include "cli/ctl.h"
#include "cli/text.h"
#include "model/dataset.h"

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

/* A node that may get something. */
struct target {
    const char *id;     /* in drain.nodes */
    double promised;    /* bytes and containers */
    double total, left; /* bytes of its storage; `left` without what was sent there just now */
};

struct drain {
    struct ctl *c;
    char *node;
    char *to;      /* NULL = spread */
    json_t *nodes; /* by uuid, of the targets */
    json_t *copies; /* of a node that is fenced: dataset -> the node that has the newest copy of it */
    json_t *datasets; /* all that are configured, by id */
    struct target *targets;
    size_t n_targets;
    bool by_space;   /* all tell how much of their storage is free */
    json_t *moved;   /* lines of the result */
    json_t *refused; /* likewise, with what the control service said */
};

static void drain_done(struct drain *d)
{
    json_decref(d->nodes);
    json_decref(d->copies);
    json_decref(d->datasets);
    json_decref(d->moved);
    json_decref(d->refused);
    free(d->targets);
    free(d->node);
    free(d->to);
}

/* A container without a volume counts as a dataset of unknown size, so that those are spread too. */
#define CONTAINER_LOAD ((double)DATASET_GUESSED_SIZE)

static struct target *find_target(const struct drain *d, const char *id)
{
    for (size_t i = 0; i < d->n_targets; i++) {
        if (streq(d->targets[i].id, id))
            return &d->targets[i];
    }
    return NULL;
}

static void add_load(struct drain *d, const char *node, double load)
{
    struct target *t = find_target(d, node);

    if (t)
        t->promised += load;
}

static double limit_of(const json_t *dataset)
{
    return json_number_value(json_object_get(dataset, "maximum_size"));
}

static double load_of(const json_t *dataset)
{
    double size = limit_of(dataset);

    return size > 0 ? size : CONTAINER_LOAD;
}

/* What is free there and promised to nobody. */
static double room_of(const struct target *t)
{
    return t->left < t->total - t->promised ? t->left : t->total - t->promised;
}

static bool is_better(const struct drain *d, const struct target *t, const struct target *than,
                      bool has_data)
{
    if (d->by_space && has_data)
        return room_of(t) > room_of(than);
    return t->promised < than->promised;
}

/* What is to be moved: a dataset, or a container with its datasets. */
struct piece {
    const char *kind, *id, *prefix, *key;
    double load;
    double limit; /* so many bytes its datasets may grow to; 0 = none, or not limited */
    bool has_data;
    const char *dataset;   /* which it is; NULL = a container, with */
    const json_t *volumes; /* these; may be NULL */
};

/* What is not to be copied when the piece goes to a node: what this has a copy of already. */
struct saving {
    double load, limit;
};

static void add_saving(const struct drain *d, const char *dataset, const struct target *t, struct saving *s)
{
    const char *node = json_string_value(json_object_get(d->copies, dataset));
    const json_t *value = json_object_get(d->datasets, dataset);

    if (!node || !streq(node, t->id))
        return;
    s->load += load_of(value);
    s->limit += limit_of(value);
}

static struct saving saving_at(const struct drain *d, const struct piece *p, const struct target *t)
{
    struct saving s = {0};
    size_t i;
    json_t *volume;

    if (p->dataset)
        add_saving(d, p->dataset, t, &s);
    json_array_foreach (p->volumes, i, volume)
        add_saving(d, ctl_text(volume, "dataset_id"), t, &s);
    return s;
}

/* The node that has most of it already, and room for the rest; NULL: none has anything. */
static struct target *with_copy(const struct drain *d, const struct piece *p)
{
    struct target *best = NULL;
    double most = 0;

    for (size_t i = 0; i < d->n_targets; i++) {
        struct saving s = saving_at(d, p, &d->targets[i]);
        double rest = p->limit - s.limit;
        if (s.load <= most || (d->by_space && rest > 0 && rest > d->targets[i].left))
            continue;
        best = &d->targets[i];
        most = s.load;
    }
    return best;
}

/* Data go where a copy is, or most room, else all goes where least is promised. */
static struct target *choose(const struct drain *d, const struct piece *p)
{
    struct target *best = NULL;

    if (d->to)
        return find_target(d, d->to);
    if (with_copy(d, p))
        return with_copy(d, p);
    for (size_t i = 0; i < d->n_targets; i++) {
        if (!best || is_better(d, &d->targets[i], best, p->has_data))
            best = &d->targets[i];
    }
    return best;
}

static void add_target(struct drain *d, const json_t *node)
{
    const json_t *space = json_object_get(node, "space");
    struct target *t = &d->targets[d->n_targets++];

    *t = (struct target){.id = ctl_text(node, "uuid"),
                         .total = json_number_value(json_object_get(space, "total")),
                         .left = json_number_value(json_object_get(space, "free"))};
    (void)json_object_set(d->nodes, t->id, (json_t *)node);
    d->by_space = d->by_space && t->total > 0;
}

static struct err *find_targets(struct drain *d)
{
    CLEANUP_JSON json_t *list = NULL;
    size_t i;
    json_t *node;

    d->nodes = json_object();
    d->by_space = true;
    TRY(ctl_get_list(d->c, "/v1/state/nodes", &list));
    d->targets = xcalloc(json_array_size(list) + 1, sizeof(*d->targets));
    json_array_foreach (list, i, node) {
        const char *id = ctl_text(node, "uuid");
        bool closed = json_is_true(json_object_get(node, "cordoned")) || json_is_true(json_object_get(node, "fenced"));
        if (!streq(id, d->node) && !json_object_get(d->nodes, id) && (d->to || !closed))
            add_target(d, node);
    }
    if (!choose(d, &(struct piece){0}))
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

static void count_loads(struct drain *d, const json_t *datasets, const json_t *containers)
{
    size_t i;
    json_t *item;

    json_array_foreach (datasets, i, item) {
        if (!json_is_true(json_object_get(item, "deleted")))
            add_load(d, ctl_text(item, "primary"), load_of(item));
    }
    json_array_foreach (containers, i, item) {
        if (!json_array_size(json_object_get(item, "volumes")))
            add_load(d, ctl_text(item, "node_uuid"), CONTAINER_LOAD);
    }
}

static void refuse(struct drain *d, const struct piece *p, const char *text)
{
    json_array_append_new(d->refused,
                          json_pack("{s:s, s:s, s:s}", "kind", p->kind, "id", p->id, "text", text));
}

/* Only when nobody said where: who names a node knows better than a limit how much there is. */
static bool has_no_room(struct drain *d, const struct piece *p)
{
    double most = 0;

    if (d->to || !d->by_space || with_copy(d, p))
        return false;
    for (size_t i = 0; i < d->n_targets; i++)
        most = d->targets[i].left > most ? d->targets[i].left : most;
    if (p->limit <= most)
        return false;
    CLEANUP_FREE char *wanted = text_format_bytes((uint64_t)p->limit);
    CLEANUP_FREE char *left = text_format_bytes((uint64_t)most);
    CLEANUP_FREE char *text = xasprintf(
        "no node has room for it: its data may grow to %s, and no node has more than %s free. "
        "--to NODE moves it all the same",
        wanted, left);
    refuse(d, p, text);
    return true;
}

/* One object, and what came of it. Only what the control service says of this object is noted, other errors end the drain. */
static struct err *move_one(struct drain *d, const struct piece *p)
{
    if (has_no_room(d, p))
        return NULL;
    struct target *to = choose(d, p);
    CLEANUP_FREE char *path = api_path(p->prefix, p->id);
    CLEANUP_JSON json_t *body = json_pack("{s:s}", p->key, to->id);
    struct err *e = api_call(d->c->api, "POST", path, body, NULL);

    if (err_is(e, ERR_NOT_FOUND)) /* somebody deleted it just now */
        return err_free(e);
    if (err_is(e, ERR_CONFLICT) || err_is(e, ERR_INVALID)) {
        refuse(d, p, e->text);
        return err_free(e);
    }
    if (e)
        return e;
    struct saving s = saving_at(d, p, to);
    to->promised += p->load;
    to->left -= p->has_data ? p->load - s.load : 0;
    json_array_append_new(d->moved,
                          json_pack("{s:s, s:s, s:s}", "kind", p->kind, "id", p->id, "to", to->id));
    if (!d->c->args->json) {
        CLEANUP_FREE char *server = ctl_server(d->nodes, to->id, /* full_id= */ false);
        printf("%s %s goes to %s\n", p->kind, p->id, server);
        (void)fflush(stdout);
    }
    return NULL;
}

/* `datasets` by id; those of the container are noted in `used`: they go with it. */
static struct piece piece_of_container(const json_t *container, const json_t *datasets,
                                       json_t *used)
{
    struct piece p = {.kind = "container",
                      .id = ctl_text(container, "name"),
                      .prefix = "/v1/configuration/containers/",
                      .key = "node_uuid",
                      .volumes = json_object_get(container, "volumes")};
    size_t i;
    json_t *volume;

    json_array_foreach (p.volumes, i, volume) {
        const char *id = ctl_text(volume, "dataset_id");
        const json_t *dataset = json_object_get(datasets, id);
        (void)json_object_set_new(used, id, json_true());
        p.has_data = true;
        p.load += load_of(dataset);
        p.limit += limit_of(dataset);
    }
    if (!p.has_data)
        p.load = CONTAINER_LOAD;
    return p;
}

/* A node that is fenced: each dataset goes to where a copy of it is, if there is one. */
static struct err *find_copies(struct drain *d)
{
    CLEANUP_FREE char *path = api_path("/v1/fences/", d->node);
    CLEANUP_JSON json_t *preview = NULL;
    size_t i;
    json_t *item;

    d->copies = json_object();
    struct err *e = api_get(d->c->api, path, &preview);
    if (err_is(e, ERR_UNSUPPORTED)) /* an older control service knows no fences */
        return err_free(e);
    TRY(e);
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
    CLEANUP_JSON json_t *datasets = NULL, *containers = NULL, *used = json_object();
    size_t i;
    json_t *item;

    TRY(ctl_get_list(d->c, "/v1/configuration/datasets", &datasets));
    TRY(ctl_get_list(d->c, "/v1/configuration/containers", &containers));
    count_loads(d, datasets, containers);
    d->datasets = ctl_index(datasets, "dataset_id");
    json_array_foreach (containers, i, item) {
        struct piece p = piece_of_container(item, d->datasets, used);
        if (is_on(item, "node_uuid", d->node))
            TRY(move_one(d, &p));
    }
    json_array_foreach (datasets, i, item) {
        struct piece p = {.kind = "dataset",
                          .id = ctl_text(item, "dataset_id"),
                          .prefix = "/v1/configuration/datasets/",
                          .key = "primary",
                          .load = load_of(item),
                          .limit = limit_of(item),
                          .has_data = true,
                          .dataset = ctl_text(item, "dataset_id")};
        if (is_on(item, "primary", d->node) && !json_object_get(used, p.id))
            TRY(move_one(d, &p));
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
