/* /v1/configuration/containers and /v1/state/containers */
#include "control/rest_internal.h"
#include "model/validate.h"

static bool consider_container(void *cookie, const char *name)
{
    struct page *p = cookie;
    const struct container *c = engine_container(p->rest->config.engine, name);
    struct str *s = c && page_has(p, name, &c->node) ? page_item(p, name) : NULL;

    if (s)
        append_json(s, json_container_configuration(c));
    return page_looked_at_name(p, name);
}

static void walk_containers(struct page *p, const struct list_query *q)
{
    engine_list_containers(p->rest->config.engine, q, consider_container, p);
}

void containers_list(struct rest *rest, struct http_request *r, const char *param)
{
    const struct engine *e = rest->config.engine;
    struct page *page = page_new(rest, r, PAGE_NAME | PAGE_NODE | PAGE_BY_NAME);

    if (!page)
        return;
    if (page->wanted || engine_counts(e).containers >= LONG_LIST) {
        page_answer(page, walk_containers);
        return;
    }
    page_free(page);
    if (!rest->containers || rest->containers_revision != engine_revision(e)) {
        document_unref(rest->containers);
        rest->containers = page_whole(rest, walk_containers);
        rest->containers_revision = engine_revision(e);
    }
    rest->containers->refs++;
    respond_document(r, rest->containers, NULL, 0);
}

void containers_create(struct rest *rest, struct http_request *r, const char *param)
{
    CLEANUP(json_decrefp) json_t *body = parse_body(r);
    struct container *c = NULL;

    if (!body)
        return;
    json_t *errors = validate_container_create(body, &c);
    if (errors)
        respond_violations(r, errors);
    else
        submit(rest, r, &(struct command){.kind = COMMAND_CONTAINER_CREATE, .container = c});
}

void containers_move(struct rest *rest, struct http_request *r, const char *param)
{
    struct command c = {.kind = COMMAND_CONTAINER_MOVE, .name = param};
    CLEANUP(json_decrefp) json_t *body = parse_body(r);

    if (!body)
        return;
    json_t *errors = validate_container_update(body, &c.node);
    if (errors)
        respond_violations(r, errors);
    else
        submit(rest, r, &c);
}

void containers_delete(struct rest *rest, struct http_request *r, const char *param)
{
    submit(rest, r, &(struct command){.kind = COMMAND_CONTAINER_DELETE, .name = param});
}

/* State: the list of the contract */

static void append_report(struct str *s, const struct engine *e, const struct uuid *node,
                          const struct container_report *report)
{
    const struct container *c = engine_container(e, report->name);
    json_t *o;

    if (c)
        o = json_container_configuration(c);
    else /* deleted, and still being stopped: its settings are gone, the keys must be there */
        o = json_pack("{s:n, s:o, s:s, s:{s:s}}", "node_uuid", "name", json_text(report->name),
                      "image", "", "restart_policy", "name", "never");
    /* Where it is, not where it goes. */
    (void)json_object_set_new(o, "node_uuid", json_uuid(node));
    (void)json_object_set_new(o, "running", json_boolean(report->run == CONTAINER_RUNNING));
    append_json(s, o);
}

static void consider_report(void *cookie, const struct uuid *node,
                            const struct container_report *report)
{
    struct page *p = cookie;
    struct str *s = NULL;

    if (report->run != CONTAINER_ABSENT && page_has(p, report->name, node))
        s = page_item(p, report->name);
    if (s)
        append_report(s, p->rest->config.engine, node, report);
}

static bool consider_state(void *cookie, const char *name)
{
    struct page *p = cookie;

    engine_each_container_report(p->rest->config.engine, now_os(), name, consider_report, p);
    return page_looked_at_name(p, name);
}

static void walk_states(struct page *p, const struct list_query *q)
{
    engine_list_containers(p->rest->config.engine, q, consider_state, p);
}

void containers_state_list(struct rest *rest, struct http_request *r, const char *param)
{
    struct page *page = page_new(rest, r, PAGE_NAME | PAGE_NODE | PAGE_BY_NAME);

    if (page)
        page_answer(page, walk_states);
}

/* State: one container */

static const char *const run_names[CONTAINER_RUN_MAX] = {
    [CONTAINER_ABSENT] = "absent",
    [CONTAINER_CREATED] = "created",
    [CONTAINER_RUNNING] = "running",
    [CONTAINER_EXITED] = "exited",
};

struct place {
    const struct container *container;
    enum container_run run;
    struct uuid node;
    enum container_health health;
    bool has_exit_code;
    int exit_code;
};

/* Where it runs counts first, then where it should be, then wherever something of it is. */
static int rank(const struct place *p, enum container_run run, const struct uuid *node)
{
    if (run == CONTAINER_ABSENT)
        return 0;
    return 1 + (uuid_eq(node, &p->container->node) ? 1 : 0) + (run == CONTAINER_RUNNING ? 2 : 0);
}

static void note_place(void *cookie, const struct uuid *node, const struct container_report *report)
{
    struct place *p = cookie;

    if (rank(p, report->run, node) > rank(p, p->run, &p->node)) {
        p->run = report->run;
        p->node = *node;
        p->health = report->health;
        p->has_exit_code = report->has_exit_code;
        p->exit_code = report->exit_code;
    }
}

/* Looks where it is, and why it is not as wanted; the caller calls reason_done(). */
static void look(const struct engine *e, struct place *p, struct reason *ret_reason)
{
    struct now now = now_os();

    engine_each_container_report(e, now, p->container->name, note_place, p);
    engine_container_reason(e, now, p->container->name, ret_reason);
}

bool container_brief(const struct rest *rest, const char *key, struct brief *ret_brief)
{
    const struct engine *e = rest->config.engine;
    struct place p = {.container = engine_container(e, key), .run = CONTAINER_ABSENT};
    struct reason reason;

    if (!p.container)
        return false;
    look(e, &p, &reason);
    *ret_brief = (struct brief){run_names[p.run], p.node, reason.code};
    reason_done(&reason);
    return true;
}

void containers_state(struct rest *rest, struct http_request *r, const char *param)
{
    const struct engine *e = rest->config.engine;
    const struct container *c = engine_container(e, param);
    struct place p = {.container = c, .run = CONTAINER_ABSENT};
    struct reason reason;

    if (!c) {
        respond_error(r, REST_ERROR_CONTAINER_NOT_FOUND);
        return;
    }
    look(e, &p, &reason);
    json_t *o = json_pack("{s:s, s:o, s:s, s:b, s:s, s:o, s:o, s:o, s:I}", "name", c->name,
                          "node_uuid", json_uuid(&c->node), "image", c->image, "running",
                          p.run == CONTAINER_RUNNING, "state", run_names[p.run], "on",
                          json_uuid_or_null(&p.node), "volumes", json_container_volumes(c),
                          "reason", json_reason(&reason), "revision", (json_int_t)c->revision);
    (void)json_object_set_new(o, "exit_code",
                              p.has_exit_code ? json_integer(p.exit_code) : json_null());
    (void)json_object_set_new(o, "health", json_text(container_health_name(p.health)));
    (void)json_object_set_new(o, "configuration", json_container_configuration(c));
    (void)json_object_set_new(o, "history", past_value(rest, OBJECT_CONTAINER, c->name));
    respond_read(r, o);
    reason_done(&reason);
}
