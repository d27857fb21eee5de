/* /v1/configuration/_compose: the whole configuration at once, from the files of flocker-deploy; /v1/configuration/_plan: what
 * that would change */
#include "control/rest_internal.h"
#include "model/compose.h"
#include "model/validate.h"

/* The nodes that are there now, by address, and all in the order of their ids. */
struct place {
    char *address;
    struct uuid node;
    UT_hash_handle hh;
};

struct places {
    const struct engine *engine;
    struct place *by_address;
    struct uuid *nodes;
    bool *cordoned;
    size_t n, cap, cordoned_cap;
    struct space *space; /* of each */
    double *room;        /* likewise; NULL = not known of all */
    size_t space_cap;
};

static bool note_node(void *cookie, const struct node_view *v)
{
    struct places *all = cookie;
    struct place *p;

    if (!v->listed || !v->host)
        return true;
    all->nodes = mem_grow(all->nodes, all->n, &all->cap, sizeof(*all->nodes));
    all->cordoned = mem_grow(all->cordoned, all->n, &all->cordoned_cap, sizeof(*all->cordoned));
    all->space = mem_grow(all->space, all->n, &all->space_cap, sizeof(*all->space));
    all->cordoned[all->n] = v->cordoned || v->fenced;
    all->space[all->n] = v->space;
    all->nodes[all->n++] = v->node;
    HASH_FIND_STR(all->by_address, v->host, p);
    if (p)
        return true;
    p = xcalloc(1, sizeof(*p));
    p->address = xstrdup(v->host);
    p->node = v->node;
    HASH_ADD_KEYPTR(hh, all->by_address, p->address, strlen(p->address), p);
    return true;
}

static bool find_node(void *cookie, const char *address, struct uuid *ret_node)
{
    const struct places *all = cookie;
    struct place *p;

    HASH_FIND_STR(all->by_address, address, p);
    if (p)
        *ret_node = p->node;
    return p != NULL;
}

static bool find_container(void *cookie, const char *name, struct uuid *ret_node)
{
    const struct container *k = engine_container(((const struct places *)cookie)->engine, name);

    if (k)
        *ret_node = k->node;
    return k != NULL;
}

static bool find_dataset(void *cookie, const struct uuid *id, struct uuid *ret_node)
{
    return engine_dataset_home(((const struct places *)cookie)->engine, id, ret_node);
}

static void forget_places(struct places *all)
{
    struct place *p, *next;

    HASH_ITER (hh, all->by_address, p, next) {
        HASH_DEL(all->by_address, p);
        free(p->address);
        free(p);
    }
    free(all->nodes);
    free(all->cordoned);
    free(all->space);
    free(all->room);
}

/* ---- room ---- */

static int by_id(const void *a, const void *b)
{
    return uuid_cmp(a, b);
}

/* What is promised to a dataset is not there for another, though it is still free. */
static bool count_promised(void *cookie, const struct uuid *id)
{
    struct places *all = cookie;
    const struct dataset *d = engine_dataset(all->engine, id);
    const struct uuid *node =
        d && !d->deleted ? bsearch(&d->primary, all->nodes, all->n, sizeof(*node), by_id) : NULL;

    if (node)
        all->room[node - all->nodes] -=
            (double)(d->maximum_size ? d->maximum_size : DATASET_GUESSED_SIZE);
    return true;
}

static void find_room(struct places *all)
{
    for (size_t i = 0; i < all->n; i++) {
        if (!all->space[i].total)
            return;
    }
    all->room = xcalloc(all->n + 1, sizeof(*all->room));
    for (size_t i = 0; i < all->n; i++)
        all->room[i] = (double)all->space[i].total;
    engine_list_datasets(all->engine, &(struct list_query){0}, count_promised, all);
    for (size_t i = 0; i < all->n; i++) {
        if (all->room[i] > (double)all->space[i].free)
            all->room[i] = (double)all->space[i].free;
    }
}

/* False: it was answered. */
static bool read_composition(struct rest *rest, struct http_request *r, struct composition *ret)
{
    CLEANUP(json_decrefp) json_t *body = parse_body(r);
    CLEANUP(forget_places) struct places places = {.engine = rest->config.engine};

    if (!body)
        return false;
    json_t *errors = validate_compose(body);
    if (errors) {
        respond_violations(r, errors);
        return false;
    }
    engine_list_nodes(rest->config.engine, now_os(), &(struct list_query){0}, note_node, &places);
    bool spread = json_is_true(json_object_get(body, "spread"));
    if (spread)
        find_room(&places);
    struct compose_world world = {.cookie = &places,
                                  .find_node = find_node,
                                  .find_container = find_container,
                                  .find_dataset = find_dataset,
                                  .nodes = places.nodes,
                                  .closed = places.cordoned,
                                  .room = places.room,
                                  .n_nodes = places.n,
                                  .spread = spread};
    CLEANUP_FREE char *text =
        compose_parse(json_object_get(body, "applications"), json_object_get(body, "deployment"), &world, ret);
    if (text)
        respond_error_about(r, REST_ERROR_COMPOSITION, "%s", text);
    return text == NULL;
}

void configuration_compose(struct rest *rest, struct http_request *r, const char *param)
{
    struct composition composition = {0};

    if (read_composition(rest, r, &composition))
        submit(rest, r, &(struct command){.kind = COMMAND_COMPOSE, .composition = &composition});
}

/* ---- the plan ---- */

static const char *const kinds[] = {
    [OBJECT_DATASET] = "dataset", [OBJECT_CONTAINER] = "container", [OBJECT_LEASE] = "lease"};
static const char *const actions[PLANNED_MAX] = {
    [PLANNED_CREATE] = "create", [PLANNED_RETURN] = "return", [PLANNED_CHANGE] = "change", [PLANNED_MOVE] = "move",
    [PLANNED_DROP] = "drop",     [PLANNED_FORGET] = "forget", [PLANNED_REMOVE] = "remove", [PLANNED_RELEASE] = "release",
};

static void note_size(void *cookie, const struct uuid *node, const struct report *report)
{
    uint64_t *size = cookie;

    if (report->volume.size > *size)
        *size = report->volume.size;
}

static json_t *planned_value(const struct rest *rest, const struct planned *p)
{
    bool dataset = p->kind == OBJECT_DATASET;
    json_t *o = json_pack("{s:s, s:s, s:s, s:o, s:o}", "kind", kinds[p->kind], "action", actions[p->action],
                          p->kind == OBJECT_CONTAINER ? "name" : "dataset_id", p->key, "from", json_uuid_or_null(&p->from),
                          "to", json_uuid_or_null(&p->to));
    uint64_t size = 0;
    struct uuid id;

    if (!dataset || !uuid_parse(p->key, &id))
        return o;
    engine_each_report(rest->config.engine, now_os(), &id, note_size, &size);
    (void)json_object_set_new(o, "name", json_text(p->name));
    (void)json_object_set_new(o, "moves_data", json_boolean(!uuid_is_nil(&p->from) && !uuid_is_nil(&p->to) &&
                                                            !uuid_eq(&p->from, &p->to)));
    (void)json_object_set_new(o, "size", size ? json_integer((json_int_t)size) : json_null());
    return o;
}

void configuration_plan(struct rest *rest, struct http_request *r, const char *param)
{
    CLEANUP(composition_done) struct composition composition = {0};
    CLEANUP(plan_done) struct plan plan = {0};
    CLEANUP_FREE char *text = NULL;

    if (!read_composition(rest, r, &composition))
        return;
    enum result_code code = engine_plan(rest->config.engine, &composition, &plan, &text);
    if (code != RESULT_OK) {
        respond_refusal(r, &(struct command_result){.code = code, .text = text});
        return;
    }
    json_t *changes = json_array();
    for (size_t i = 0; i < plan.n; i++)
        (void)json_array_append_new(changes, planned_value(rest, &plan.all[i]));
    respond_json(r, 200, json_pack("{s:o}", "changes", changes));
}
