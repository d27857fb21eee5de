/* /v1/configuration/containers and /v1/state/containers */
#include "control/rest_internal.h"
#include "model/validate.h"

static void append_item(struct str *s, json_t *v)
{
    str_append(s, s->len > 1 ? "," : "");
    json_append(s, v);
    json_decref(v);
}

static void append_container(void *s, const struct container *c)
{
    append_item(s, json_container_configuration(c));
}

void containers_list(struct rest *rest, struct http_request *r, const char *param)
{
    const struct engine *e = rest->config.engine;

    if (!rest->containers || rest->containers_revision != engine_revision(e)) {
        struct str s = {0};
        str_append(&s, "[");
        engine_each_container(e, append_container, &s);
        str_append(&s, "]");
        document_unref(rest->containers);
        rest->containers = document_new(&s);
        rest->containers_revision = engine_revision(e);
    }
    rest->containers->refs++;
    respond_document(r, rest->containers, NULL, NULL);
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

struct listing {
    const struct engine *engine;
    struct str text;
};

static void append_report(void *cookie, const struct uuid *node,
                          const struct container_report *report)
{
    struct listing *l = cookie;
    const struct container *c = engine_container(l->engine, report->name);
    json_t *o;

    if (report->run == CONTAINER_ABSENT)
        return;
    if (c)
        o = json_container_configuration(c);
    else /* deleted, and still being stopped: its settings are gone, the keys must be there */
        o = json_pack("{s:n, s:o, s:s, s:{s:s}}", "node_uuid", "name", json_text(report->name),
                      "image", "", "restart_policy", "name", "never");
    (void)json_object_set_new(o, "node_uuid", json_uuid(node)); /* where it is, not where it goes */
    (void)json_object_set_new(o, "running", json_boolean(report->run == CONTAINER_RUNNING));
    append_item(&l->text, o);
}

void containers_state_list(struct rest *rest, struct http_request *r, const char *param)
{
    struct listing l = {.engine = rest->config.engine};

    str_append(&l.text, "[");
    engine_each_container_report_all(l.engine, now_os(), append_report, &l);
    str_append(&l.text, "]");
    respond_document(r, document_new(&l.text), NULL, NULL);
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
    }
}

static json_t *volumes_value(const struct container *c)
{
    if (!c->has_volume)
        return json_array();
    return json_pack("[{s:o, s:s}]", "dataset_id", json_uuid(&c->dataset), "mountpoint",
                     c->mountpoint);
}

void containers_state(struct rest *rest, struct http_request *r, const char *param)
{
    const struct engine *e = rest->config.engine;
    const struct container *c = engine_container(e, param);
    struct place p = {.container = c, .run = CONTAINER_ABSENT};
    struct now now = now_os();
    struct reason reason;

    if (!c) {
        http_reply_error(r, 404, "Container not found.");
        return;
    }
    engine_each_container_report(e, now, param, note_place, &p);
    engine_container_reason(e, now, param, &reason);
    respond_read(r, json_pack("{s:s, s:o, s:s, s:b, s:s, s:o, s:o, s:o, s:I}", "name", c->name,
                              "node_uuid", json_uuid(&c->node), "image", c->image, "running",
                              p.run == CONTAINER_RUNNING, "state", run_names[p.run], "on",
                              json_uuid_or_null(&p.node), "volumes", volumes_value(c), "reason",
                              json_reason(&reason), "revision", (json_int_t)c->revision));
    reason_done(&reason);
}
