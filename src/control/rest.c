#include "control/rest_internal.h"

#include <inttypes.h>
#include <xxhash.h>

/* Documents */

struct document *document_new(struct str *text)
{
    struct document *d = xcalloc(1, sizeof(*d));

    d->refs = 1;
    d->len = text->len;
    d->text = str_steal(text);
    XXH128_hash_t h = XXH3_128bits(d->text, d->len);
    (void)snprintf(d->etag, sizeof(d->etag), "\"%016" PRIx64 "%016" PRIx64 "\"", (uint64_t)h.high64,
                   (uint64_t)h.low64);
    return d;
}

struct document *document_unref(struct document *d)
{
    if (d && --d->refs == 0) {
        free(d->text);
        free(d);
    }
    return NULL;
}

static void document_release(void *d)
{
    document_unref(d);
}

/* Answers */

/* Whether If-None-Match names the tag (RFC 9110 section 13.1.2): a list of tags, weak or not, or
 * "*". */
static bool client_has(const struct http_request *r, const char *etag)
{
    const char *value;

    for (unsigned i = 0; (value = http_request_header(r, "If-None-Match", i)); i++) {
        /* No tag of ours is part of another: they have quotes and all the same length. */
        if (streq(value, "*") || strstr(value, etag))
            return true;
    }
    return false;
}

void respond_document(struct http_request *r, struct document *d, const char *name,
                      const char *value)
{
    struct http_header headers[] = {
        {"ETag", d->etag}, {"Cache-Control", "no-cache"}, {name, value}};
    size_t n = name ? 3 : 2;

    if (client_has(r, d->etag)) {
        http_reply(r, 304, headers, n, NULL, 0);
        document_unref(d);
    } else {
        http_reply_shared(r, 200, headers, n, d->text, d->len, document_release, d);
    }
}

void respond_read(struct http_request *r, json_t *v)
{
    struct str s = {0};

    json_append(&s, v);
    json_decref(v);
    respond_document(r, document_new(&s), NULL, NULL);
}

void respond_json(struct http_request *r, unsigned status, json_t *v)
{
    struct str s = {0};

    json_append(&s, v);
    json_decref(v);
    http_reply(r, status, NULL, 0, s.data, s.len);
    str_done(&s);
}

json_t *parse_body(struct http_request *r)
{
    size_t n;
    const char *body = http_request_body(r, &n);
    json_t *v = NULL;
    struct err *e = json_parse(body, n, &v);

    if (e) {
        /* The contract fixes the sentence, line break and all; what is wrong goes beside it. */
        respond_json(r, 400,
                     json_pack("{s:s, s:[o]}", "description",
                               "The request body could not be decoded according to the value of "
                               "the\nContent-Type header.",
                               "errors", json_text(e->text)));
        err_free(e);
    }
    return v;
}

void respond_violations(struct http_request *r, json_t *errors)
{
    respond_json(r, 400,
                 json_pack("{s:s, s:o}", "description",
                           "The provided JSON doesn't match the required schema.", "errors",
                           errors));
}

/* Commands */

#define CONDITION "X-If-Configuration-Matches"

static void respond_mismatch(struct http_request *r, const char *current)
{
    const char *first = http_request_header(r, CONDITION, 0);

    /* The header's bytes are the client's and need not be UTF-8. */
    if (!first || !str_is_utf8(first, strlen(first)))
        first = "(not UTF-8)";
    http_reply_error(r, 412, "Tag doesn't match. Required: %s, current: %s", first, current);
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

static void hand_over(struct rest *rest, struct pending *p, struct command *c)
{
    p->command = c->id = ++rest->last_command;
    p->kind = c->kind;
    c->tags = p->tags;
    c->n_tags = p->n_tags;
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

/* The answers that say no (contract section 1.1; those without a place there are ours). */
static const struct {
    unsigned status;
    const char *description;
} refusals[RESULT_MAX] = {
    [RESULT_DATASET_EXISTS] = {409, "The provided dataset_id is already in use."},
    [RESULT_DATASET_NOT_FOUND] = {404, "Dataset not found."},
    [RESULT_DATASET_DELETED] = {405, "The dataset has been deleted."},
    [RESULT_DATASET_ELSEWHERE] = {409, "The dataset is on another node."},
    [RESULT_DATASET_IN_USE] = {409, "The dataset is being used by another container."},
    [RESULT_CONTAINER_EXISTS] = {409, "The container name already exists."},
    [RESULT_CONTAINER_NOT_FOUND] = {404, "Container not found."},
    [RESULT_PORT_IN_USE] = {409, "A specified external port is already in use."},
    [RESULT_LINK_ALIAS] = {409, "Link aliases must be unique."},
    [RESULT_LINK_PORT] = {409, "The local ports in a container's links must be unique."},
    [RESULT_LEASE_NOT_FOUND] = {404, "Lease not found."},
    [RESULT_LEASE_HELD] = {409, "Lease already held."},
    [RESULT_LEASE_RELEASING] = {409, "The dataset is just leaving that node; try again when it has "
                                     "arrived at its new one."},
};

static void respond_refusal(struct http_request *r, const struct command_result *result)
{
    const char *text = result->text ? result->text : "";

    if (result->code == RESULT_TAG_MISMATCH)
        respond_mismatch(r, text);
    else if (result->code == RESULT_DATASET_OF_CONTAINER)
        http_reply_error(
            r, 409, "The dataset is used by the container %s; move the container instead.", text);
    else if (result->code == RESULT_STORE_FAILED)
        http_reply_error(r, 503, "Nothing was changed, because it could not be stored: %s", text);
    else
        http_reply_error(r, refusals[result->code].status, "%s",
                         refusals[result->code].description);
}

/* The answer of a command that was carried out. */
static void respond_result(struct pending *p, const struct command_result *result)
{
    unsigned status = result->code == RESULT_CREATED ? 201 : 200;
    struct str s = {0};

    switch (p->kind) {
    case COMMAND_DATASET_CREATE:
    case COMMAND_DATASET_MOVE:
    case COMMAND_DATASET_DELETE:
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
    case COMMAND_CONTAINER_DELETE:
    case COMMAND_COMPOSE:
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
    if (result->code == RESULT_OK || result->code == RESULT_CREATED)
        respond_result(p, result);
    else
        respond_refusal(p->request, result);
    pending_free(rest, p);
}

/* Routes */

static void get_version(struct rest *rest, struct http_request *r, const char *param)
{
    respond_read(r, json_pack("{s:s}", "flocker", FLOCKER_VERSION));
}

/* A path that ends in '/' takes one more part, the handler's parameter. */
static const struct route {
    enum http_method method;
    const char *path;
    rest_handler_fn *handler;
} routes[] = {
    {HTTP_GET, "/v1/version", get_version},
    {HTTP_GET, "/v1/configuration/datasets", datasets_list},
    {HTTP_POST, "/v1/configuration/datasets", datasets_create},
    {HTTP_POST, "/v1/configuration/datasets/", datasets_move},
    {HTTP_DELETE, "/v1/configuration/datasets/", datasets_delete},
    {HTTP_GET, "/v1/state/datasets", datasets_state_list},
    {HTTP_GET, "/v1/state/datasets/", datasets_state},
    {HTTP_GET, "/v1/configuration/containers", containers_list},
    {HTTP_POST, "/v1/configuration/containers", containers_create},
    {HTTP_POST, "/v1/configuration/containers/", containers_move},
    {HTTP_DELETE, "/v1/configuration/containers/", containers_delete},
    {HTTP_GET, "/v1/state/containers", containers_state_list},
    {HTTP_GET, "/v1/state/containers/", containers_state},
    {HTTP_GET, "/v1/state/nodes", nodes_list},
    {HTTP_GET, "/v1/state/nodes/by_era/", nodes_by_era},
    {HTTP_GET, "/v1/configuration/leases", leases_list},
    {HTTP_POST, "/v1/configuration/leases", leases_acquire},
    {HTTP_DELETE, "/v1/configuration/leases/", leases_release},
    {HTTP_GET, "/v1/events", events_stream},
};

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
        http_reply_error(r, 404, "There is nothing at this path.");
        return;
    }
    struct http_header header = {"Allow", allowed->data};
    struct str s = {0};
    json_t *body = json_object();
    CLEANUP_FREE char *text = xasprintf("The method %s is not allowed here; %s is.",
                                        http_method_name(http_request_method(r)), allowed->data);

    (void)json_object_set_new(body, "description", json_string(text));
    json_append(&s, body);
    json_decref(body);
    http_reply(r, 405, &header, 1, s.data, s.len);
    str_done(&s);
}

void rest_handle(struct http_request *r, void *cookie)
{
    const char *path = http_request_path(r);
    enum http_method method = http_request_method(r);
    CLEANUP_STR struct str allowed = {0};

    if (method == HTTP_HEAD)
        method = HTTP_GET;
    for (size_t i = 0; i < ARRAY_SIZE(routes); i++) {
        const char *param = match(&routes[i], path);
        if (!param)
            continue;
        if (routes[i].method == method) {
            routes[i].handler(cookie, r, param);
            return;
        }
        str_appendf(&allowed, "%s%s", allowed.len ? ", " : "", http_method_name(routes[i].method));
        if (routes[i].method == HTTP_GET)
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
    rest->instance = random_next(&random);
    return rest;
}

struct rest *rest_free(struct rest *rest)
{
    struct pending *p, *next;

    if (!rest)
        return NULL;
    events_free(rest);
    HASH_ITER (hh, rest->pending, p, next) {
        http_reply_error(p->request, 503,
                         "The control service is ending; look whether the change was made.");
        pending_free(rest, p);
    }
    document_unref(rest->datasets);
    document_unref(rest->containers);
    free(rest);
    return NULL;
}
