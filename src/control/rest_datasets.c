/* /v1/configuration/datasets and /v1/state/datasets */
#include "control/rest_internal.h"
#include "model/validate.h"

#include <inttypes.h>

/* The contract compares ids of datasets in paths literally; stored ones are lower case. */
bool parse_id(const char *param, struct uuid *ret)
{
    return uuid_parse(param, ret) && streq(UUID_STR(ret), param);
}

static const char *name_of(const struct dataset *d)
{
    return d ? metadata_get(&d->metadata, "name") : NULL;
}

static bool consider_dataset(void *cookie, const struct uuid *id)
{
    struct page *p = cookie;
    const struct dataset *d = engine_dataset(p->rest->config.engine, id);
    struct str *s = NULL;

    if (d && page_has(p, p->name ? name_of(d) : NULL, &d->primary))
        s = page_item(p, UUID_STR(id));
    if (s)
        json_append_dataset(s, d);
    return page_looked_at(p, id);
}

static void walk_datasets(struct page *p, const struct list_query *q)
{
    engine_list_datasets(p->rest->config.engine, q, consider_dataset, p);
}

static void append_configured(const struct rest *rest, struct str *s, const struct uuid *id)
{
    const struct dataset *d = engine_dataset(rest->config.engine, id);

    if (d)
        json_append_dataset(s, d);
}

void datasets_list(struct rest *rest, struct http_request *r, const char *param)
{
    const struct engine *e = rest->config.engine;
    CLEANUP_FREE char *tag = engine_tag(e);
    struct http_header header = {"X-Configuration-Tag", tag};
    struct page *page = page_new(rest, r, PAGE_NAME | PAGE_NODE);

    if (!page)
        return;
    if (page->wanted) {
        page->tag = steal(&tag);
        page_answer(page, walk_datasets);
        return;
    }
    page_free(page);
    if (respond_stream(rest, r, tag, append_configured))
        return;
    if (!rest->datasets || rest->datasets_revision != engine_revision(e)) {
        document_unref(rest->datasets);
        rest->datasets = page_whole(rest, walk_datasets);
        rest->datasets_revision = engine_revision(e);
    }
    rest->datasets->refs++;
    respond_document(r, rest->datasets, &header, 1);
}

void datasets_create(struct rest *rest, struct http_request *r, const char *param)
{
    struct dataset *d = NULL;

    if (!condition_holds(rest, r))
        return;
    CLEANUP(json_decrefp) json_t *body = parse_body(r);
    if (!body)
        return;
    json_t *errors = validate_dataset_create(body, &d);
    if (errors) {
        respond_violations(r, errors);
        return;
    }
    bool fresh = uuid_is_nil(&d->id);
    if (fresh) {
        struct random random = random_os();
        d->id = uuid_random_v4(&random);
    }
    submit_conditional(rest, r, &(struct command){.kind = COMMAND_DATASET_CREATE, .dataset = d, .fresh = fresh});
}

void datasets_update(struct rest *rest, struct http_request *r, const char *param)
{
    struct command c = {.kind = COMMAND_DATASET_UPDATE};
    struct dataset *wanted = NULL;
    bool has_metadata;

    if (!condition_holds(rest, r))
        return;
    CLEANUP(json_decrefp) json_t *body = parse_body(r);
    if (!body)
        return;
    json_t *errors = validate_dataset_update(body, &wanted, &has_metadata);
    if (errors) {
        respond_violations(r, errors);
        return;
    }
    c.node = wanted->primary;
    c.keep_primary = uuid_is_nil(&c.node);
    c.metadata = has_metadata ? &wanted->metadata : NULL;
    c.maximum_size = wanted->maximum_size;
    if (parse_id(param, &c.dataset_id))
        submit_conditional(rest, r, &c);
    else
        respond_error(r, REST_ERROR_DATASET_NOT_FOUND);
    dataset_free(wanted);
}

void datasets_delete(struct rest *rest, struct http_request *r, const char *param)
{
    struct command c = {.kind = COMMAND_DATASET_DELETE};
    CLEANUP_FREE char *purge = http_request_query_value(r, "purge");

    if (!condition_holds(rest, r))
        return;
    if (purge && !streq(purge, "true") && !streq(purge, "false")) {
        respond_error_about(r, REST_ERROR_BAD_PARAMETER,
                            "The parameter purge must be true or false.");
        return;
    }
    c.purge = purge && streq(purge, "true");
    if (parse_id(param, &c.dataset_id))
        submit_conditional(rest, r, &c);
    else
        respond_error(r, REST_ERROR_DATASET_NOT_FOUND);
}

/* State: the list of the contract */

struct seen {
    struct uuid dataset;
    struct uuid node;
    bool mounted;
    uint64_t size;
};

struct seen_list {
    const struct engine *engine;
    struct seen *items;
    size_t n, cap;
};

static void seen_done(struct seen_list *list)
{
    free(list->items);
}

/* All nodes see a volume on shared storage, but the one that destroys it is the only one to look again. */
static bool is_destroyed(const struct engine *e, const struct report *report)
{
    const struct dataset *d = engine_dataset(e, &report->volume.dataset);

    return d && d->tombstone && !d->n_holders && !report->volume.attached;
}

static void note_report(void *cookie, const struct uuid *node, const struct report *report)
{
    struct seen_list *list = cookie;
    const struct volume_state *v = &report->volume;

    if ((!v->present && !v->mounted) || is_destroyed(list->engine, report))
        return;
    list->items = mem_grow(list->items, list->n, &list->cap, sizeof(*list->items));
    list->items[list->n++] = (struct seen){v->dataset, *node, v->mounted, v->size};
}

/* By dataset; within one, first where it is mounted, then the largest. */
static int compare_seen(const void *a, const void *b)
{
    const struct seen *p = a, *q = b;
    int order = uuid_cmp(&p->dataset, &q->dataset);

    if (order)
        return order;
    if (p->mounted != q->mounted)
        return p->mounted ? -1 : 1;
    if (p->size != q->size)
        return p->size > q->size ? -1 : 1;
    return uuid_cmp(&p->node, &q->node);
}

/* Finds what is to be listed of the dataset: each place where it is mounted; of what is mounted nowhere one item, without a
 * node. */
static void look_at_dataset(struct seen_list *list, const struct uuid *id)
{
    size_t listed = 0;

    engine_each_report(list->engine, now_os(), id, note_report, list);
    if (list->n)
        qsort(list->items, list->n, sizeof(*list->items), compare_seen);
    while (listed < list->n && (list->items[listed].mounted || listed == 0))
        listed++;
    list->n = listed;
}

static void append_seen(struct str *s, const struct seen *d)
{
    str_appendf(s, "{\"dataset_id\":\"%s\"", UUID_STR(&d->dataset));
    if (d->mounted)
        str_appendf(s, ",\"primary\":\"%s\",\"path\":\"/flocker/%s\"", UUID_STR(&d->node),
                    UUID_STR(&d->dataset));
    if (d->size)
        str_appendf(s, ",\"maximum_size\":%" PRIu64, d->size);
    str_append(s, "}");
}

static bool consider_seen(void *cookie, const struct uuid *id)
{
    struct page *p = cookie;
    CLEANUP(seen_done) struct seen_list list = {.engine = p->rest->config.engine};
    const char *name = p->name ? name_of(engine_dataset(list.engine, id)) : NULL;

    look_at_dataset(&list, id);
    for (size_t i = 0; i < list.n; i++) {
        struct uuid node = list.items[i].mounted ? list.items[i].node : UUID_NIL;
        struct str *s = page_has(p, name, &node) ? page_item(p, UUID_STR(id)) : NULL;
        if (s)
            append_seen(s, &list.items[i]);
    }
    return page_looked_at(p, id);
}

static void walk_seen(struct page *p, const struct list_query *q)
{
    engine_list_datasets(p->rest->config.engine, q, consider_seen, p);
}

static void append_state(const struct rest *rest, struct str *s, const struct uuid *id)
{
    CLEANUP(seen_done) struct seen_list list = {.engine = rest->config.engine};

    look_at_dataset(&list, id);
    for (size_t i = 0; i < list.n; i++) {
        if (i > 0)
            str_append_bytes(s, ",", 1);
        append_seen(s, &list.items[i]);
    }
}

void datasets_state_list(struct rest *rest, struct http_request *r, const char *param)
{
    struct page *page = page_new(rest, r, PAGE_NAME | PAGE_NODE);

    if (!page)
        return;
    if (page->wanted || !respond_stream(rest, r, NULL, append_state))
        page_answer(page, walk_seen);
    else
        page_free(page);
}

/* State: one dataset, with all that is known about it */

static const char *const mark_names[MARK_STATE_MAX] = {
    [MARK_NONE] = "none",
    [MARK_OWNED] = "owned",
    [MARK_PROMOTING] = "promoting",
    [MARK_RELEASED] = "released",
};

struct view {
    const struct dataset *dataset;
    json_t *nodes;          /* NULL = not wanted */
    struct uuid mounted_on; /* nil = nowhere */
    const char *device;     /* there; NULL = a folder, or not told */
    uint64_t bytes_sent, bytes_total;
    uint64_t rate; /* bytes a second; 0 = not known */
};

static void place(struct view *v, const struct uuid *node, const struct volume_state *volume)
{
    v->mounted_on = *node;
    v->device = volume->device;
}

static void view_report(void *cookie, const struct uuid *node, const struct report *report)
{
    struct view *v = cookie;
    const struct volume_state *volume = &report->volume;

    /* During a hand-over both may be mounted for a moment; the one who may write counts. */
    if (volume->mounted && (uuid_is_nil(&v->mounted_on) || uuid_eq(node, &v->dataset->owner)))
        place(v, node, volume);
    if (uuid_eq(node, &v->dataset->transfer.source)) {
        v->bytes_sent = report->bytes_sent;
        v->bytes_total = report->bytes_total;
    }
    if (!v->nodes)
        return;
    (void)json_array_append_new(
        v->nodes, json_pack("{s:o, s:b, s:b, s:I, s:s, s:I, s:o}", "uuid", json_uuid(node), "present",
                            (int)volume->present, "mounted", (int)volume->mounted, "size",
                            (json_int_t)volume->size, "mark",
                            mark_names[volume->mark.state], "epoch", (json_int_t)volume->mark.epoch,
                            "reason", json_reason(&report->reason)));
}

static const char *status_of(const struct view *v)
{
    const struct dataset *d = v->dataset;

    if (d->deleted)
        return d->n_holders ? "deleting" : "deleted";
    if (d->transfer.id || (!uuid_is_nil(&d->owner) && !uuid_eq(&d->owner, &d->primary)))
        return "moving";
    if (!uuid_is_nil(&v->mounted_on) && uuid_eq(&v->mounted_on, &d->primary))
        return "attached";
    return d->born ? "detached" : "pending";
}

/* Of the stream that is being sent now. What is not known is null: an increment's length before its end, for one. */
static json_t *progress_value(const struct view *v)
{
    bool total = v->bytes_total && v->bytes_total >= v->bytes_sent;
    uint64_t left = total ? v->bytes_total - v->bytes_sent : 0;

    return json_pack("{s:o, s:o, s:o}", "fraction",
                     total ? json_real((double)v->bytes_sent / (double)v->bytes_total) : json_null(),
                     "bytes_per_second", v->rate ? json_integer((json_int_t)v->rate) : json_null(), "seconds_left",
                     total && v->rate ? json_integer((json_int_t)(left / v->rate)) : json_null());
}

static json_t *transfer_value(const struct view *v)
{
    const struct transfer *t = &v->dataset->transfer;

    if (!t->id)
        return json_null();
    return json_pack("{s:I, s:o, s:o, s:s, s:I, s:I, s:o}", "id", (json_int_t)t->id, "source",
                     json_uuid(&t->source), "destination", json_uuid(&t->destination), "phase",
                     t->phase == TRANSFER_COPY ? "copy" : "release", "bytes_sent",
                     (json_int_t)v->bytes_sent, "bytes_total", (json_int_t)v->bytes_total, "progress",
                     progress_value(v));
}

static json_t *holders_value(const struct dataset *d)
{
    json_t *list = json_array();

    for (size_t i = 0; i < d->n_holders; i++)
        (void)json_array_append_new(list, json_uuid(&d->holders[i]));
    return list;
}

static void set_place(json_t *o, const struct view *v)
{
    if (uuid_is_nil(&v->mounted_on))
        return;
    CLEANUP_FREE char *path = xasprintf("/flocker/%s", UUID_STR(&v->dataset->id));
    (void)json_object_set_new(o, "path", json_string(path));
    (void)json_object_set_new(o, "node", json_uuid(&v->mounted_on));
    if (v->device)
        (void)json_object_set_new(o, "device", json_text(v->device));
}

bool dataset_brief(const struct rest *rest, const char *key, struct brief *ret_brief)
{
    const struct engine *e = rest->config.engine;
    struct now now = now_os();
    struct view v = {0};
    struct reason reason;
    struct uuid id;

    if (!uuid_parse(key, &id) || !(v.dataset = engine_dataset(e, &id)))
        return false;
    engine_each_report(e, now, &id, view_report, &v);
    engine_dataset_reason(e, now, &id, &reason);
    *ret_brief = (struct brief){status_of(&v), v.mounted_on, reason.code};
    reason_done(&reason);
    return true;
}

static json_t *lease_value(const struct rest *rest, const struct uuid *dataset)
{
    uint64_t left_us;
    const struct lease *l = engine_lease(rest->config.engine, now_os(), dataset, &left_us);

    return l ? json_lease_state(l, (int64_t)left_us) : json_null();
}

static void add_wait(void *cookie, const struct uuid *node, uint64_t since_us)
{
    (void)json_array_append_new(cookie, json_pack("{s:o, s:f}", "node_uuid", json_uuid(node), "since",
                                                  (double)since_us / USEC_PER_SEC));
}

static json_t *waiting_value(const struct rest *rest, const struct uuid *dataset)
{
    json_t *list = json_array();

    engine_each_wait(rest->config.engine, dataset, add_wait, list);
    return list;
}

static json_t *view_value(const struct rest *rest, struct view *v, const struct reason *reason)
{
    const struct dataset *d = v->dataset;
    json_t *o = json_pack("{s:o, s:b, s:o, s:o, s:I, s:b}", "dataset_id", json_uuid(&d->id),
                          "deleted", (int)d->deleted, "primary", json_uuid_or_null(&d->primary),
                          "owner", json_uuid_or_null(&d->owner), "epoch", (json_int_t)d->epoch,
                          "born", (int)d->born);

    if (d->maximum_size)
        (void)json_object_set_new(o, "maximum_size", json_integer((json_int_t)d->maximum_size));
    (void)json_object_set_new(o, "metadata", json_metadata(&d->metadata));
    (void)json_object_set_new(o, "status", json_string(status_of(v)));
    set_place(o, v);
    (void)json_object_set_new(o, "holders", holders_value(d));
    (void)json_object_set_new(o, "transfer", transfer_value(v));
    (void)json_object_set_new(o, "replica", json_replica(d->replica));
    (void)json_object_set_new(o, "verification", verification_value(rest, &d->id));
    (void)json_object_set_new(o, "lease", lease_value(rest, &d->id));
    (void)json_object_set_new(o, "waiting", waiting_value(rest, &d->id));
    (void)json_object_set_new(o, "reason", json_reason(reason));
    (void)json_object_set_new(o, "nodes", v->nodes);
    (void)json_object_set_new(o, "history", past_value(rest, OBJECT_DATASET, UUID_STR(&d->id)));
    (void)json_object_set_new(o, "revision", json_integer((json_int_t)d->revision));
    return o;
}

void datasets_state(struct rest *rest, struct http_request *r, const char *param)
{
    const struct engine *e = rest->config.engine;
    struct now now = now_os();
    struct view v = {0};
    struct reason reason;
    struct uuid id;

    if (parse_id(param, &id))
        v.dataset = engine_dataset(e, &id);
    if (!v.dataset) {
        respond_error(r, REST_ERROR_DATASET_NOT_FOUND);
        return;
    }
    v.nodes = json_array();
    v.rate = engine_transfer_rate(e, now, &id);
    engine_each_report(e, now, &id, view_report, &v);
    engine_dataset_reason(e, now, &id, &reason);
    respond_read(r, view_value(rest, &v, &reason));
    reason_done(&reason);
}

/* /v1/replicas */

static bool consider_replica(void *cookie, const struct uuid *id)
{
    struct page *p = cookie;
    const struct dataset *d = engine_dataset(p->rest->config.engine, id);
    bool wanted = d && d->replica && page_has(p, p->name ? name_of(d) : NULL, &d->replica->node);
    struct str *s = wanted ? page_item(p, UUID_STR(id)) : NULL;

    if (s) {
        json_t *o = json_replica(d->replica);
        (void)json_object_set_new(o, "dataset_id", json_uuid(id));
        append_json(s, o);
    }
    return page_looked_at(p, id);
}

static void walk_replicas(struct page *p, const struct list_query *q)
{
    engine_list_datasets(p->rest->config.engine, q, consider_replica, p);
}

void replicas_list(struct rest *rest, struct http_request *r, const char *param)
{
    struct page *page = page_new(rest, r, PAGE_NAME | PAGE_NODE);

    if (page)
        page_answer(page, walk_replicas);
}

void replicas_delete(struct rest *rest, struct http_request *r, const char *param)
{
    struct command c = {.kind = COMMAND_REPLICA_DROP};

    if (parse_id(param, &c.dataset_id))
        submit(rest, r, &c);
    else
        respond_error(r, REST_ERROR_DATASET_NOT_FOUND);
}
