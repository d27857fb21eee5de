#include "model/record.h"

#include "base/str.h"
#include "model/record_json.h"
#include "model/record_quick.h"

static json_t *transfer_value(const struct transfer *t)
{
    struct record_writer w = {.object = json_object()};

    record_set(&w, "id", record_number(t->id));
    record_set(&w, "epoch", record_number(t->epoch));
    record_set(&w, "source", record_id(&t->source));
    record_set(&w, "destination", record_id(&t->destination));
    record_set(&w, "phase", json_string(t->phase == TRANSFER_COPY ? "copy" : "release"));
    return w.object;
}

/* The oldest that can say it all. */
static int format_of(const struct dataset *d)
{
    if (d->fenced || (d->replica && d->replica->made_us))
        return RECORD_FORMAT_FENCED;
    return d->replica ? RECORD_FORMAT_REPLICA : RECORD_FORMAT;
}

static json_t *replica_value(const struct replica *p, bool dated)
{
    struct record_writer w = {.object = json_object()};

    record_set(&w, "node", record_own_id(&p->node));
    record_set(&w, "base", json_string(p->base));
    record_set(&w, "until_us", record_number(p->until_us));
    if (dated)
        record_set(&w, "made_us", record_number(p->made_us));
    if (!w.failed)
        return w.object;
    json_decref(w.object);
    return NULL;
}

static json_t *fenced_value(const struct fenced *f)
{
    struct record_writer w = {.object = json_object()};
    json_t *nodes = json_array();

    for (size_t i = 0; i < f->n_nodes; i++)
        record_append(&w, nodes, record_own_id(&f->nodes[i]));
    record_set(&w, "nodes", nodes);
    record_set(&w, "freed", record_number(f->freed));
    record_set(&w, "freed_us", record_number(f->freed_us));
    record_set(&w, "transfer", record_number(f->transfer));
    record_set(&w, "destination", record_id(&f->destination));
    if (!w.failed)
        return w.object;
    json_decref(w.object);
    return NULL;
}

/* record_quick.c knows the order of the fields. */
char *record_dataset_encode(const struct dataset *d)
{
    int format = format_of(d);
    struct record_writer w = record_begin(format);
    struct record_writer metadata = {.object = json_object()};
    json_t *holders = json_array();

    for (size_t i = 0; i < d->metadata.n; i++)
        record_set(&metadata, d->metadata.entries[i].key,
                   json_string(d->metadata.entries[i].value));
    w.failed |= metadata.failed;
    for (size_t i = 0; i < d->n_holders; i++)
        record_append(&w, holders, record_own_id(&d->holders[i]));
    record_set(&w, "id", record_own_id(&d->id));
    record_set(&w, "revision", record_number(d->revision));
    record_set(&w, "primary", record_id(&d->primary));
    record_set(&w, "deleted", json_boolean(d->deleted));
    record_set(&w, "deleted_us", record_number(d->deleted_us));
    record_set(&w, "maximum_size", record_number(d->maximum_size));
    record_set(&w, "metadata", metadata.object);
    record_set(&w, "owner", record_id(&d->owner));
    record_set(&w, "epoch", record_number(d->epoch));
    record_set(&w, "born", json_boolean(d->born));
    record_set(&w, "recalled", json_boolean(d->recalled));
    record_set(&w, "purge", json_boolean(d->purge));
    record_set(&w, "dropped", json_boolean(d->dropped));
    record_set(&w, "base", record_text(d->base));
    record_set(&w, "tombstone", record_number(d->tombstone));
    record_set(&w, "number", record_number(d->number));
    record_set(&w, "holders", holders);
    record_set(&w, "transfer", d->transfer.id ? transfer_value(&d->transfer) : json_null());
    if (d->replica)
        record_set(&w, "replica", replica_value(d->replica, format >= RECORD_FORMAT_FENCED));
    else if (format >= RECORD_FORMAT_FENCED)
        record_set(&w, "replica", json_null());
    if (format >= RECORD_FORMAT_FENCED)
        record_set(&w, "fenced", d->fenced ? fenced_value(d->fenced) : json_null());
    return record_finish(&w);
}

static void get_metadata(struct record_reader *r, struct metadata *m)
{
    json_t *object = record_get_typed(r, "metadata", JSON_OBJECT, "an object");
    const char *key;
    json_t *v;

    if (!object)
        return;
    m->entries = xcalloc(json_object_size(object), sizeof(*m->entries));
    json_object_foreach (object, key, v) {
        if (!json_is_string(v)) {
            record_wrong(r, "metadata", "an object of texts");
            break;
        }
        m->entries[m->n].key = xstrdup(key);
        m->entries[m->n++].value = xstrdup(json_string_value(v));
    }
    json_decref(object);
}

static void get_holders(struct record_reader *r, struct dataset *d)
{
    json_t *array = record_get_typed(r, "holders", JSON_ARRAY, "a list");
    size_t i;
    json_t *v;

    json_array_foreach (array, i, v) {
        struct uuid holder = record_value_id(r, "holders", v);

        if (r->err)
            break;
        if (dataset_has_holder(d, &holder))
            record_wrong(r, "holders", "a list without repetition");
        dataset_add_holder(d, &holder);
    }
    json_decref(array);
}

static void transfer_fields(struct record_reader *r, void *to)
{
    struct transfer *t = to;

    t->id = record_get_number(r, "id", UINT64_MAX);
    if (!t->id)
        record_wrong(r, "id", "at least 1");
    t->epoch = record_get_number(r, "epoch", UINT64_MAX);
    t->source = record_get_id(r, "source", true);
    t->destination = record_get_id(r, "destination", true);
    CLEANUP_FREE char *phase = record_get_text(r, "phase", false);
    t->phase = TRANSFER_COPY;
    if (phase && streq(phase, "release"))
        t->phase = TRANSFER_RELEASE;
    else if (phase && !streq(phase, "copy"))
        record_wrong(r, "phase", "\"copy\" or \"release\"");
}

static void get_transfer(struct record_reader *r, struct transfer *t)
{
    json_t *v = record_take(r, "transfer");

    if (v && !json_is_null(v))
        record_get_part(r, "transfer", v, transfer_fields, t);
    json_decref(v);
}

static void replica_fields(struct record_reader *r, void *to)
{
    struct replica *p = to;

    p->node = record_get_id(r, "node", false);
    CLEANUP_FREE char *base = record_get_text(r, "base", false);
    if (base && (!*base || strlen(base) >= sizeof(p->base)))
        record_wrong(r, "base", "the name of a snapshot");
    else if (base)
        memcpy(p->base, base, strlen(base) + 1);
    p->until_us = record_get_number(r, "until_us", UINT64_MAX);
    if (r->format >= RECORD_FORMAT_FENCED)
        p->made_us = record_get_number(r, "made_us", UINT64_MAX);
}

static void get_replica(struct record_reader *r, struct dataset *d)
{
    json_t *v = r->format < RECORD_FORMAT_REPLICA ? NULL : record_take(r, "replica");

    if (v && !(json_is_null(v) && r->format >= RECORD_FORMAT_FENCED)) {
        d->replica = xcalloc(1, sizeof(*d->replica));
        record_get_part(r, "replica", v, replica_fields, d->replica);
    }
    if (d->replica && !r->err && !dataset_has_holder(d, &d->replica->node))
        record_wrong(r, "replica", "on one of the holders");
    json_decref(v);
}

static void fenced_fields(struct record_reader *r, void *to)
{
    struct dataset *d = to;
    json_t *array = record_get_typed(r, "nodes", JSON_ARRAY, "a list");
    size_t i;
    json_t *v;

    json_array_foreach (array, i, v) {
        struct uuid node = record_value_id(r, "nodes", v);
        if (r->err)
            break;
        if (dataset_is_fenced(d, &node) || !dataset_has_holder(d, &node))
            record_wrong(r, "nodes", "holders, without repetition");
        dataset_add_fenced(d, &node);
    }
    json_decref(array);
    if (!d->fenced) {
        record_wrong(r, "nodes", "not empty");
        return;
    }
    d->fenced->freed = record_get_number(r, "freed", UINT64_MAX);
    d->fenced->freed_us = record_get_number(r, "freed_us", UINT64_MAX);
    d->fenced->transfer = record_get_number(r, "transfer", UINT64_MAX);
    d->fenced->destination = record_get_id(r, "destination", true);
    if (d->fenced->freed && !uuid_is_nil(&d->owner))
        record_wrong(r, "freed", "0 when there is an owner");
}

static void get_fenced(struct record_reader *r, struct dataset *d)
{
    json_t *v = r->format < RECORD_FORMAT_FENCED ? NULL : record_take(r, "fenced");

    if (v && !json_is_null(v))
        record_get_part(r, "fenced", v, fenced_fields, d);
    json_decref(v);
}

struct err *record_dataset_decode(const char *text, size_t n, struct dataset **ret)
{
    struct dataset *d = record_dataset_quick(text, n);

    if (!d)
        return record_dataset_full(text, n, ret);
    *ret = d;
    return NULL;
}

struct err *record_dataset_full(const char *text, size_t n, struct dataset **ret)
{
    struct record_reader r;

    TRY(record_parse("dataset", RECORD_FORMAT_FENCED, text, n, &r));
    struct dataset *d = dataset_new(record_get_id(&r, "id", false));
    d->revision = record_get_number(&r, "revision", UINT64_MAX);
    d->primary = record_get_id(&r, "primary", true);
    d->deleted = record_get_bool(&r, "deleted");
    d->deleted_us = record_get_number(&r, "deleted_us", UINT64_MAX);
    d->maximum_size = record_get_number(&r, "maximum_size", UINT64_MAX);
    get_metadata(&r, &d->metadata);
    d->owner = record_get_id(&r, "owner", true);
    d->epoch = record_get_number(&r, "epoch", UINT64_MAX);
    d->born = record_get_bool(&r, "born");
    d->recalled = record_get_bool(&r, "recalled");
    d->purge = record_get_bool(&r, "purge");
    d->dropped = record_get_bool(&r, "dropped");
    d->base = record_get_text(&r, "base", true);
    d->tombstone = record_get_number(&r, "tombstone", UINT64_MAX);
    d->number = record_get_number(&r, "number", UINT64_MAX);
    get_holders(&r, d);
    get_transfer(&r, &d->transfer);
    get_replica(&r, d);
    get_fenced(&r, d);
    struct err *e = record_parse_end(&r);
    if (e) {
        dataset_free(d);
        return e;
    }
    *ret = d;
    return NULL;
}
