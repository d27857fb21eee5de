#include "control/rest_internal.h"

#include "base/log.h"

#include <stdio.h>

/* Commands */

#define CONDITION "X-If-Configuration-Matches"
#define CHANGE_US (30 * USEC_PER_SEC) /* for a change to become durable */

static void respond_mismatch(struct http_request *r, const char *current)
{
    const char *first = http_request_header(r, CONDITION, 0);

    /* The header's bytes are the client's and need not be UTF-8. */
    if (!first || !str_is_utf8(first, strlen(first)))
        first = "(not UTF-8)";
    respond_error_about(r, REST_ERROR_TAG_MISMATCH, "Tag doesn't match. Required: %s, current: %s",
                        first, current);
}

bool condition_holds(struct rest *rest, struct http_request *r)
{
    CLEANUP_FREE char *tag = engine_tag(rest->config.engine);
    const char *value = http_request_header(r, CONDITION, 0);

    if (!value)
        return true;
    for (unsigned i = 0; (value = http_request_header(r, CONDITION, i)); i++) {
        if (streq(value, tag))
            return true;
    }
    respond_mismatch(r, tag);
    return false;
}

/* What the audit log says of the command. */
static void note(const struct http_request *r, const struct command *c)
{
    char id[UUID_TEXT_SIZE];
    const char *object = c->name;
    const struct uuid *node = uuid_is_nil(&c->node) ? NULL : &c->node;

    if (c->dataset) {
        object = uuid_format(&c->dataset->id, id);
        node = &c->dataset->primary;
    } else if (c->container) {
        object = c->container->name;
        node = &c->container->node;
    } else if (!object) {
        object = uuid_format(&c->dataset_id, id);
    }
    call_note(r, object, node);
}

/* Whoever asked is not left without an answer for ever. The command stays: its result is only not told
 * any more. */
static void answer_late(void *cookie)
{
    struct rest *rest = cookie;
    uint64_t now_us = now_os().mono_us;

    for (struct pending *p = rest->pending; p; p = p->hh.next) {
        if (p->due_us > now_us) {
            timer_set(&rest->late, p->due_us);
            return;
        }
        if (p->request)
            respond_error(steal(&p->request), REST_ERROR_STORE_LATE);
    }
}

static void hand_over(struct rest *rest, struct pending *p, struct command *c)
{
    p->command = c->id = ++rest->last_command;
    p->kind = c->kind;
    p->node = c->node;
    note(p->request, c);
    c->tags = p->tags;
    c->n_tags = p->n_tags;
    p->due_us = now_os().mono_us + rest->config.change_us;
    if (!timer_is_set(&rest->late))
        timer_set(&rest->late, p->due_us);
    HASH_ADD(hh, rest->pending, command, sizeof(p->command), p);
    rest->config.submit(rest->config.cookie, c); /* `p` may be gone after this */
}

void submit(struct rest *rest, struct http_request *r, struct command *c)
{
    struct pending *p = xcalloc(1, sizeof(*p));

    p->request = r;
    hand_over(rest, p, c);
}

void submit_conditional(struct rest *rest, struct http_request *r, struct command *c)
{
    struct pending *p = xcalloc(1, sizeof(*p));
    const char *value;
    size_t cap = 0;

    p->request = r;
    for (unsigned i = 0; (value = http_request_header(r, CONDITION, i)); i++) {
        p->tags = mem_grow(p->tags, p->n_tags, &cap, sizeof(*p->tags));
        p->tags[p->n_tags++] = value;
    }
    hand_over(rest, p, c);
}

static void pending_free(struct rest *rest, struct pending *p)
{
    HASH_DEL(rest->pending, p);
    free(p->tags);
    free(p);
}

/* The answers that say no. */
static const enum rest_error refusals[RESULT_MAX] = {
    [RESULT_DATASET_EXISTS] = REST_ERROR_DATASET_EXISTS,
    [RESULT_DATASET_NOT_FOUND] = REST_ERROR_DATASET_NOT_FOUND,
    [RESULT_DATASET_DELETED] = REST_ERROR_DATASET_DELETED,
    [RESULT_REPLICA_NOT_FOUND] = REST_ERROR_REPLICA_NOT_FOUND,
    [RESULT_COMPARISON_NOT_NOW] = REST_ERROR_COMPARISON_NOT_NOW,
    [RESULT_COMPARISON_SOON] = REST_ERROR_COMPARISON_SOON,
    [RESULT_NODE_NOT_FOUND] = REST_ERROR_NODE_NOT_FOUND,
    [RESULT_NODE_CONNECTED] = REST_ERROR_NODE_CONNECTED,
    [RESULT_NODE_FENCED] = REST_ERROR_NODE_FENCED,
    [RESULT_COPY_NOT_FOUND] = REST_ERROR_COPY_NOT_FOUND,
    [RESULT_COPY_NEEDED] = REST_ERROR_COPY_NEEDED,
    [RESULT_DATASET_SHRINKS] = REST_ERROR_DATASET_SHRINKS,
    [RESULT_DATASET_FIXED] = REST_ERROR_DATASET_FIXED,
    [RESULT_DATASET_ELSEWHERE] = REST_ERROR_DATASET_ELSEWHERE,
    [RESULT_DATASET_IN_USE] = REST_ERROR_DATASET_IN_USE,
    [RESULT_CONTAINER_EXISTS] = REST_ERROR_CONTAINER_EXISTS,
    [RESULT_CONTAINER_NOT_FOUND] = REST_ERROR_CONTAINER_NOT_FOUND,
    [RESULT_PORT_IN_USE] = REST_ERROR_PORT_IN_USE,
    [RESULT_LINK_ALIAS] = REST_ERROR_LINK_ALIAS,
    [RESULT_LINK_PORT] = REST_ERROR_LINK_PORT,
    [RESULT_DEPENDENCY_MISSING] = REST_ERROR_DEPENDENCY_MISSING,
    [RESULT_DEPENDENCY_CIRCLE] = REST_ERROR_DEPENDENCY_CIRCLE,
    [RESULT_LEASE_NOT_FOUND] = REST_ERROR_LEASE_NOT_FOUND,
    [RESULT_LEASE_HELD] = REST_ERROR_LEASE_HELD,
    [RESULT_LEASE_RELEASING] = REST_ERROR_LEASE_RELEASING,
    [RESULT_RELEASES_UNKNOWN] = REST_ERROR_RELEASES_UNKNOWN,
    [RESULT_NODES_AWAY] = REST_ERROR_NODES_AWAY,
    [RESULT_DATASET_NOT_THERE] = REST_ERROR_DATASET_NOT_THERE,
    [RESULT_DATASET_NOT_IN_DOUBT] = REST_ERROR_DATASET_NOT_IN_DOUBT,
    [RESULT_DATASET_MOUNTED] = REST_ERROR_DATASET_MOUNTED,
    [RESULT_DATASET_CHANGING] = REST_ERROR_DATASET_CHANGING,
    [RESULT_DATASET_LEAVING] = REST_ERROR_DATASET_LEAVING,
};

void respond_refusal(struct http_request *r, const struct command_result *result)
{
    const char *text = result->text ? result->text : "";

    if (result->code == RESULT_TAG_MISMATCH)
        respond_mismatch(r, text);
    else if (result->code == RESULT_DATASET_OF_CONTAINER)
        respond_error_about(r, REST_ERROR_DATASET_OF_CONTAINER,
                            "The dataset is used by the container %s; move the container instead.",
                            text);
    else if (result->code == RESULT_STORE_FAILED)
        respond_error_about(r, REST_ERROR_STORE_FAILED,
                            "Nothing was changed, because it could not be stored: %s", text);
    else if (result->code == RESULT_COMPARISON_NOT_NOW)
        respond_error_about(r, REST_ERROR_COMPARISON_NOT_NOW, "The replica cannot be compared now: %s.", text);
    else if (result->code == RESULT_COMPARISON_SOON)
        respond_error_about(r, REST_ERROR_COMPARISON_SOON,
                            "The replica cannot be compared yet: %s.", text);
    else if (*text &&
             result->code == RESULT_DATASET_DELETED) /* of a composition, as is the next one */
        respond_error_about(r, REST_ERROR_COMPOSITION,
                            "The dataset %s has been deleted; its id can be used again once it is "
                            "purged and nothing of it is left.",
                            text);
    else if (*text)
        respond_error_about(r, refusals[result->code], "%s (%s)",
                            rest_errors[refusals[result->code]].text, text);
    else
        respond_error(r, refusals[result->code]);
}

/* The answer of a command that was carried out. */
static void respond_result(const struct rest *rest, struct pending *p, const struct command_result *result)
{
    unsigned status = result->code == RESULT_CREATED ? 201 : 200;
    struct str s = {0};

    switch (p->kind) {
    case COMMAND_DATASET_CREATE:
    case COMMAND_DATASET_UPDATE:
    case COMMAND_DATASET_DELETE:
    case COMMAND_DATASET_ADOPT:
    case COMMAND_REPLICA_DROP:
    case COMMAND_COPY_DROP:
        json_append_dataset(&s, result->dataset);
        http_reply(p->request, status, NULL, 0, s.data, s.len);
        str_done(&s);
        break;
    case COMMAND_CONTAINER_CREATE:
    case COMMAND_CONTAINER_MOVE:
        respond_json(p->request, status, json_container_configuration(result->container));
        break;
    case COMMAND_LEASE_ACQUIRE:
    case COMMAND_LEASE_RELEASE:
        respond_json(p->request, status,
                     json_lease(&result->lease, (int64_t)result->lease_left_us));
        break;
    case COMMAND_STORE_ADOPT:
        respond_json(p->request, status, adoption_value(rest));
        break;
    case COMMAND_REPLICA_VERIFY:
        respond_json(p->request, status, verification_value(rest, &result->dataset->id));
        break;
    case COMMAND_NODE_FENCE:
        respond_json(p->request, status, fence_preview_value(rest, &p->node));
        break;
    case COMMAND_NODE_UNFENCE:
    case COMMAND_NODE_CORDON:
    case COMMAND_NODE_UNCORDON:
    case COMMAND_CONTAINER_DELETE:
    case COMMAND_COMPOSE:
    case COMMAND_VOLUME_CREATE:
    case COMMAND_VOLUME_REMOVE:
    case COMMAND_VOLUME_USE:
    case COMMAND_VOLUME_UNUSE:
    case COMMAND_MAX:
        respond_json(p->request, status, json_null());
        break;
    }
}

void rest_reply(struct rest *rest, uint64_t command, const struct command_result *result)
{
    struct pending *p;

    HASH_FIND(hh, rest->pending, &command, sizeof(command), p);
    if (!p)
        return;
    if (!p->request)
        log_warning("a change was answered as too late, and has been %s now",
                    result->code == RESULT_STORE_FAILED ? "refused by the store" : "decided");
    else if (result->code == RESULT_OK || result->code == RESULT_CREATED)
        respond_result(rest, p, result);
    else
        respond_refusal(p->request, result);
    pending_free(rest, p);
}

/* Routes */

void get_openapi(struct rest *rest, struct http_request *r, const char *param)
{
    if (!rest->openapi) {
        struct str s = {0};
        str_append_bytes(&s, openapi_json, openapi_json_len);
        rest->openapi = document_new(&s);
    }
    rest->openapi->refs++;
    respond_document(r, rest->openapi, NULL, 0);
}

void get_version(struct rest *rest, struct http_request *r, const char *param)
{
    respond_read(r, json_pack("{s:s}", "flocker", FLOCKER_VERSION));
}

/* What the routes of one kind have in common. */
#define LISTING REST_BIT(BAD_PARAMETER)
#define BODY (REST_BIT(NOT_JSON) | REST_BIT(SCHEMA))
#define CHANGE (REST_BIT(STORE_FAILED) | REST_BIT(STORE_LATE) | REST_BIT(ENDING))
#define CONDITIONAL (CHANGE | REST_BIT(TAG_MISMATCH))
#define DATASET REST_BIT(DATASET_NOT_FOUND)
#define CONTAINER REST_BIT(CONTAINER_NOT_FOUND)
#define COMPOSITION                                                                                                  \
    (REST_BIT(COMPOSITION) | REST_BIT(DATASET_SHRINKS) | REST_BIT(DATASET_FIXED) | REST_BIT(DATASET_EXISTS) |       \
     REST_BIT(DATASET_IN_USE) | REST_BIT(PORT_IN_USE) | REST_BIT(LINK_PORT) | REST_BIT(DATASET_LEAVING) |        \
     REST_BIT(DEPENDENCY_MISSING) | REST_BIT(DEPENDENCY_CIRCLE))

const struct route rest_routes[] = {
    {HTTP_GET, "/v1/version", "getVersion", get_version, 0},
    {HTTP_GET, "/v1/configuration/datasets", "listDatasets", datasets_list, LISTING},
    {HTTP_POST, "/v1/configuration/datasets", "createDataset", datasets_create,
     BODY | CONDITIONAL | REST_BIT(DATASET_EXISTS) | REST_BIT(DATASET_SHRINKS) |
         REST_BIT(DATASET_FIXED)},
    {HTTP_POST, "/v1/configuration/datasets/", "updateDataset", datasets_update,
     BODY | CONDITIONAL | DATASET | REST_BIT(DATASET_DELETED) | REST_BIT(DATASET_OF_CONTAINER) |
         REST_BIT(DATASET_SHRINKS) | REST_BIT(DATASET_FIXED)},
    {HTTP_DELETE, "/v1/configuration/datasets/", "deleteDataset", datasets_delete,
     CONDITIONAL | DATASET | REST_BIT(BAD_PARAMETER)},
    {HTTP_GET, "/v1/state/datasets", "listDatasetStates", datasets_state_list, LISTING},
    {HTTP_GET, "/v1/state/datasets/", "getDatasetState", datasets_state, DATASET},
    {HTTP_GET, "/v1/configuration/containers", "listContainers", containers_list, LISTING},
    {HTTP_POST, "/v1/configuration/containers", "createContainer", containers_create,
     BODY | CHANGE | DATASET | REST_BIT(CONTAINER_EXISTS) | REST_BIT(DATASET_ELSEWHERE) |
         REST_BIT(DATASET_IN_USE) | REST_BIT(PORT_IN_USE) | REST_BIT(LINK_ALIAS) |
         REST_BIT(LINK_PORT) | REST_BIT(DEPENDENCY_MISSING) | REST_BIT(DEPENDENCY_CIRCLE)},
    {HTTP_POST, "/v1/configuration/containers/", "moveContainer", containers_move,
     BODY | CHANGE | CONTAINER},
    {HTTP_DELETE, "/v1/configuration/containers/", "deleteContainer", containers_delete,
     CHANGE | CONTAINER},
    {HTTP_POST, "/v1/configuration/_compose", "compose", configuration_compose,
     BODY | CHANGE | COMPOSITION},
    {HTTP_POST, "/v1/configuration/_plan", "plan", configuration_plan, BODY | COMPOSITION},
    {HTTP_GET, "/v1/state/containers", "listContainerStates", containers_state_list, LISTING},
    {HTTP_GET, "/v1/state/containers/", "getContainerState", containers_state, CONTAINER},
    {HTTP_GET, "/v1/state/nodes", "listNodes", nodes_list, LISTING},
    {HTTP_GET, "/v1/state/nodes/by_era/", "getNodeByEra", nodes_by_era,
     REST_BIT(BAD_ID) | REST_BIT(ERA_NOT_FOUND)},
    {HTTP_GET, "/v1/cordons", "listCordons", cordons_list, 0},
    {HTTP_POST, "/v1/cordons/", "cordonNode", cordons_add,
     CHANGE | REST_BIT(BAD_ID) | REST_BIT(NODE_NOT_FOUND)},
    {HTTP_DELETE, "/v1/cordons/", "uncordonNode", cordons_delete,
     CHANGE | REST_BIT(BAD_ID) | REST_BIT(NODE_NOT_FOUND)},
    {HTTP_GET, "/v1/fences", "listFences", fences_list, 0},
    {HTTP_GET, "/v1/fences/", "previewFence", fences_preview, REST_BIT(BAD_ID) | REST_BIT(NODE_NOT_FOUND)},
    {HTTP_POST, "/v1/fences/", "fenceNode", fences_add,
     BODY | CHANGE | REST_BIT(BAD_ID) | REST_BIT(NODE_NOT_FOUND) | REST_BIT(NODE_CONNECTED)},
    {HTTP_DELETE, "/v1/fences/", "unfenceNode", fences_delete, CHANGE | REST_BIT(BAD_ID) | REST_BIT(NODE_NOT_FOUND)},
    {HTTP_DELETE, "/v1/copies/", "dropCopy", copies_delete,
     CHANGE | DATASET | REST_BIT(BAD_PARAMETER) | REST_BIT(COPY_NOT_FOUND) | REST_BIT(COPY_NEEDED)},
    {HTTP_GET, "/v1/configuration/leases", "listLeases", leases_list, LISTING},
    {HTTP_POST, "/v1/configuration/leases", "acquireLease", leases_acquire,
     BODY | CHANGE | REST_BIT(LEASE_HELD) | REST_BIT(LEASE_RELEASING) | REST_BIT(RELEASES_UNKNOWN) |
         REST_BIT(NODE_FENCED)},
    {HTTP_DELETE, "/v1/configuration/leases/", "releaseLease", leases_release,
     CHANGE | REST_BIT(BAD_ID) | REST_BIT(LEASE_NOT_FOUND)},
    {HTTP_GET, "/v1/state/leases", "listLeaseStates", leases_state_list, LISTING},
    {HTTP_GET, "/v1/adoption", "getAdoption", adoption_get, 0},
    {HTTP_POST, "/v1/adoption", "adoptStore", adoption_of_store,
     BODY | CHANGE | REST_BIT(NODES_AWAY)},
    {HTTP_POST, "/v1/adoption/", "adoptDataset", adoption_of_dataset,
     BODY | CHANGE | DATASET | REST_BIT(NODES_AWAY) | REST_BIT(DATASET_NOT_THERE) |
         REST_BIT(DATASET_NOT_IN_DOUBT) | REST_BIT(DATASET_MOUNTED) | REST_BIT(DATASET_CHANGING)},
    {HTTP_GET, "/v1/replicas", "listReplicas", replicas_list, LISTING},
    {HTTP_DELETE, "/v1/replicas/", "dropReplica", replicas_delete,
     CHANGE | DATASET | REST_BIT(REPLICA_NOT_FOUND)},
    {HTTP_POST, "/v1/verification/", "verifyReplica", verification_of_dataset,
     CHANGE | DATASET | REST_BIT(DATASET_DELETED) | REST_BIT(REPLICA_NOT_FOUND) |
         REST_BIT(COMPARISON_NOT_NOW) | REST_BIT(COMPARISON_SOON)},
    {HTTP_GET, "/v1/openapi.json", "getOpenAPI", get_openapi, 0},
    {HTTP_GET, "/v1/events", "streamEvents", events_stream,
     REST_BIT(BAD_PARAMETER) | REST_BIT(EVENTS_GONE) | REST_BIT(TOO_MANY_READERS)},
    {HTTP_GET, "/healthz", "getHealth", get_health, 0},
    {HTTP_GET, "/readyz", "getReadiness", get_ready, REST_BIT(NOT_READY)},
    {HTTP_GET, "/metrics", "getMetrics", get_metrics, 0},
};
const size_t rest_n_routes = ARRAY_SIZE(rest_routes);

/* The parameter ("" when the route has none), or NULL when the route is another. */
static const char *match(const struct route *route, const char *path)
{
    size_t n = strlen(route->path);

    if (route->path[n - 1] != '/')
        return streq(route->path, path) ? "" : NULL;
    if (strncmp(route->path, path, n) != 0 || !path[n] || strchr(path + n, '/'))
        return NULL;
    return path + n;
}

static void respond_no_route(struct http_request *r, struct str *allowed)
{
    if (!allowed->len) {
        respond_error(r, REST_ERROR_NO_ROUTE);
        return;
    }
    struct http_header header = {"Allow", allowed->data};
    struct str s = {0};
    CLEANUP_FREE char *text = xasprintf("The method %s is not allowed here; %s is.",
                                        http_method_name(http_request_method(r)), allowed->data);

    call_note_error(r, REST_ERROR_METHOD, text);
    json_t *body = json_pack("{s:s}", "description", text);
    json_append(&s, body);
    json_decref(body);
    http_reply(r, 405, &header, 1, s.data, s.len);
    str_done(&s);
}

/* ---- calls ---- */

void call_note(const struct http_request *r, const char *object, const struct uuid *node)
{
    struct call *call = http_request_data(r);

    free(call->object);
    call->object = xstrdup(object);
    if (node)
        uuid_format(node, call->node);
}

void call_note_why(const struct http_request *r, const char *why)
{
    struct call *call = http_request_data(r);

    free(call->why);
    call->why = *why ? xstrdup(why) : NULL;
}

void call_note_error(const struct http_request *r, enum rest_error error, const char *description)
{
    struct call *call = http_request_data(r);
    uint64_t general = REST_BIT(NO_ROUTE) | REST_BIT(METHOD);

    free(call->error);
    call->error = xstrdup(description);
    /* The OpenAPI document is made by hand, and checked against the table of routes: this table must
     * not lie. */
    if (!((call->route ? call->route->errors : general) & (UINT64_C(1) << error)))
        log_error("defect: the route %s answers with %s, which it does not declare",
                  call->route ? call->route->name : "none", rest_errors[error].name);
}

static void call_done(void *cookie, const struct http_request *r, unsigned status)
{
    struct call *call = cookie;

    metrics_count(call, r, status);
    audit_call(call, r, status);
    free(call->object);
    free(call->error);
    free(call->why);
    free(call);
}

static struct call *call_begin(struct rest *rest, struct http_request *r)
{
    struct call *call = xcalloc(1, sizeof(*call));

    call->rest = rest;
    call->began_us = now_os().mono_us;
    http_request_set_data(r, call);
    http_request_on_done(r, call_done, call);
    return call;
}

void rest_handle(struct http_request *r, void *cookie)
{
    const char *path = http_request_path(r);
    enum http_method method = http_request_method(r);
    CLEANUP_STR struct str allowed = {0};
    struct call *call = call_begin(cookie, r);

    if (method == HTTP_HEAD)
        method = HTTP_GET;
    for (size_t i = 0; i < rest_n_routes; i++) {
        const struct route *route = &rest_routes[i];
        const char *param = match(route, path);
        if (!param)
            continue;
        if (route->method == method) {
            call->route = route;
            if (*param && method != HTTP_GET)
                call_note(r, param, NULL);
            route->handler(cookie, r, param);
            return;
        }
        str_appendf(&allowed, "%s%s", allowed.len ? ", " : "", http_method_name(route->method));
        if (route->method == HTTP_GET)
            str_append(&allowed, ", HEAD");
    }
    respond_no_route(r, &allowed);
}

/* Life */

struct rest *rest_new(const struct rest_config *config)
{
    struct rest *rest = xcalloc(1, sizeof(*rest));
    struct random random = random_os();

    rest->config = *config;
    rest->started_wall_us = now_os().wall_us;
    rest->instance = random_next(&random);
    if (!rest->config.change_us)
        rest->config.change_us = CHANGE_US;
    timer_init(&rest->late, config->loop, answer_late, rest);
    rest->counts = xcalloc(rest_n_routes + 1, sizeof(*rest->counts));
    return rest;
}

void rest_set_server(struct rest *rest, struct http_server *server)
{
    rest->server = server;
}

struct rest *rest_free(struct rest *rest)
{
    struct pending *p, *next;

    if (!rest)
        return NULL;
    events_free(rest);
    timer_cancel(&rest->late);
    HASH_ITER (hh, rest->pending, p, next) {
        if (p->request)
            respond_error(p->request, REST_ERROR_ENDING);
        pending_free(rest, p);
    }
    document_unref(rest->datasets);
    document_unref(rest->containers);
    document_unref(rest->openapi);
    past_free(rest->past);
    free(rest->counts);
    free(rest);
    return NULL;
}
