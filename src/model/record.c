#include "model/record.h"

#include "base/str.h"
#include "model/record_quick.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>

/* Writing: `set` takes the value; a NULL value (not UTF-8) makes the whole record NULL in `finish`.
 */

struct writer {
    json_t *object;
    bool failed;
};

static struct writer writer_begin(int format)
{
    struct writer w = {.object = json_object()};

    w.failed = json_object_set_new(w.object, "format", json_integer(format)) != 0;
    return w;
}

static void set(struct writer *w, const char *key, json_t *value)
{
    /* A key that is there already would be overwritten without a word. */
    bool twice = json_object_get(w->object, key) != NULL;

    if (json_object_set_new(w->object, key, value) != 0 || twice)
        w->failed = true;
}

static void append(struct writer *w, json_t *array, json_t *value)
{
    if (json_array_append_new(array, value) != 0)
        w->failed = true;
}

static char *finish(struct writer *w)
{
    char *text = w->failed ? NULL : json_dumps(w->object, JSON_COMPACT);

    json_decref(w->object);
    return text;
}

static json_t *number(uint64_t v)
{
    char text[32];

    if (v <= INT64_MAX)
        return json_integer((json_int_t)v);
    (void)snprintf(text, sizeof(text), "%" PRIu64, v);
    return json_string(text);
}

static json_t *id(const struct uuid *u)
{
    return uuid_is_nil(u) ? json_null() : json_string(UUID_STR(u));
}

/* For an id that must be there; NULL when it is not. */
static json_t *own_id(const struct uuid *u)
{
    return uuid_is_nil(u) ? NULL : json_string(UUID_STR(u));
}

static json_t *text_or_null(const char *s)
{
    return s ? json_string(s) : json_null();
}

/* Reading: the first thing found wrong sticks in `err`, later reads return zeros. A key that was
 * read is taken out of the object, so what is left at the end is unknown. */

struct reader {
    json_t *object; /* borrowed; changed */
    const char *what;
    uint64_t format;
    struct err *err;
};

static void wrong(struct reader *r, const char *key, const char *must)
{
    if (!r->err)
        r->err = err_new(ERR_CORRUPT, "%s record: field \"%s\" must be %s", r->what, key, must);
}

/* A new reference, or NULL (and an error) when the key is absent. */
static json_t *take(struct reader *r, const char *key)
{
    json_t *v = json_incref(json_object_get(r->object, key));

    if (!v && !r->err)
        r->err = err_new(ERR_CORRUPT, "%s record: field \"%s\" is missing", r->what, key);
    if (v)
        (void)json_object_del(r->object, key);
    return v;
}

/* The canonical decimal text of a number above INT64_MAX. */
static bool parse_large(const char *s, uint64_t *ret)
{
    char again[32];
    char *end;

    errno = 0;
    unsigned long long v = strtoull(s, &end, 10);
    if (errno || *end || v <= INT64_MAX)
        return false;
    (void)snprintf(again, sizeof(again), "%llu", v);
    if (!streq(s, again))
        return false;
    *ret = v;
    return true;
}

static uint64_t value_number(struct reader *r, const char *key, const json_t *v, uint64_t max)
{
    uint64_t n = 0;

    if (json_is_integer(v) && json_integer_value(v) >= 0)
        n = (uint64_t)json_integer_value(v);
    else if (!json_is_string(v) || !parse_large(json_string_value(v), &n))
        wrong(r, key, "a whole number from 0 to 18446744073709551615");
    if (n <= max)
        return n;
    wrong(r, key, "a smaller number");
    return 0;
}

static uint64_t get_number(struct reader *r, const char *key, uint64_t max)
{
    json_t *v = take(r, key);
    uint64_t n = v ? value_number(r, key, v, max) : 0;

    json_decref(v);
    return n;
}

static bool get_bool(struct reader *r, const char *key)
{
    json_t *v = take(r, key);
    bool b = json_is_true(v);

    if (v && !json_is_boolean(v))
        wrong(r, key, "true or false");
    json_decref(v);
    return b;
}

/* The caller frees it; NULL when wrong, or when null and `nullable`. */
static char *get_text(struct reader *r, const char *key, bool nullable)
{
    json_t *v = take(r, key);
    char *s = NULL;

    if (json_is_string(v))
        s = xstrdup(json_string_value(v));
    else if (v && !(nullable && json_is_null(v)))
        wrong(r, key, nullable ? "a text or null" : "a text");
    json_decref(v);
    return s;
}

static struct uuid value_id(struct reader *r, const char *key, const json_t *v)
{
    struct uuid u = UUID_NIL;

    if (json_is_string(v) && uuid_parse(json_string_value(v), &u) &&
        streq(UUID_STR(&u), json_string_value(v)) && !uuid_is_nil(&u))
        return u;
    wrong(r, key, "a UUID in lower case");
    return UUID_NIL;
}

static struct uuid get_id(struct reader *r, const char *key, bool nullable)
{
    json_t *v = take(r, key);
    struct uuid u = UUID_NIL;

    if (v && !(nullable && json_is_null(v)))
        u = value_id(r, key, v);
    json_decref(v);
    return u;
}

/* A new reference to a value of the type, or NULL. */
static json_t *get_typed(struct reader *r, const char *key, json_type type, const char *must)
{
    json_t *v = take(r, key);

    if (!v || json_typeof(v) == type)
        return v;
    wrong(r, key, must);
    json_decref(v);
    return NULL;
}

/* Reads one element of a list as an object of its own, whose fields are read with `fields`. */
static void read_part(struct reader *r, const char *what, json_t *v,
                      void (*fields)(struct reader *part, void *to), void *to)
{
    struct reader part = {.object = v, .what = what, .format = r->format};

    if (!json_is_object(v)) {
        wrong(r, what, "an object");
        return;
    }
    fields(&part, to);
    if (!part.err && json_object_size(v))
        part.err = err_new(ERR_CORRUPT, "field \"%s\" is unknown",
                           json_object_iter_key(json_object_iter(v)));
    if (r->err)
        part.err = err_free(part.err);
    else
        r->err = err_wrap(part.err, "%s record", r->what);
}

/* `newest`: the format of such records that this version knows. */
static struct err *parse(const char *what, uint64_t newest, const char *text, size_t n, struct reader *ret)
{
    json_error_t e;
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &e);

    if (!root)
        return err_new(ERR_CORRUPT, "%s record: not JSON: %s (at byte %d)", what, e.text,
                       e.position);
    *ret = (struct reader){.object = root, .what = what};
    if (!json_is_object(root)) {
        json_decref(root);
        return err_new(ERR_CORRUPT, "%s record: not a JSON object", what);
    }
    uint64_t format = get_number(ret, "format", UINT64_MAX);
    ret->format = format;
    if (!ret->err && format > newest)
        ret->err = err_new(ERR_CORRUPT,
                           "%s record: format %" PRIu64 " was written by a newer Flocker; this one "
                           "knows formats up to %" PRIu64 ": install the newer version again",
                           what, format, newest);
    if (!ret->err && format == 0)
        wrong(ret, "format", "at least 1");
    if (!ret->err)
        return NULL;
    json_decref(root);
    return steal(&ret->err);
}

static struct err *parse_end(struct reader *r)
{
    const char *key = json_object_iter_key(json_object_iter(r->object));

    if (key && !r->err)
        r->err = err_new(ERR_CORRUPT, "%s record: field \"%s\" is unknown", r->what, key);
    json_decref(r->object);
    return steal(&r->err);
}

/* Datasets */

static json_t *transfer_value(const struct transfer *t)
{
    struct writer w = {.object = json_object()};

    set(&w, "id", number(t->id));
    set(&w, "epoch", number(t->epoch));
    set(&w, "source", id(&t->source));
    set(&w, "destination", id(&t->destination));
    set(&w, "phase", json_string(t->phase == TRANSFER_COPY ? "copy" : "release"));
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
    struct writer w = {.object = json_object()};

    set(&w, "node", own_id(&p->node));
    set(&w, "base", json_string(p->base));
    set(&w, "until_us", number(p->until_us));
    if (dated)
        set(&w, "made_us", number(p->made_us));
    if (!w.failed)
        return w.object;
    json_decref(w.object);
    return NULL;
}

static json_t *fenced_value(const struct fenced *f)
{
    struct writer w = {.object = json_object()};
    json_t *nodes = json_array();

    for (size_t i = 0; i < f->n_nodes; i++)
        append(&w, nodes, own_id(&f->nodes[i]));
    set(&w, "nodes", nodes);
    set(&w, "freed", number(f->freed));
    set(&w, "freed_us", number(f->freed_us));
    set(&w, "transfer", number(f->transfer));
    set(&w, "destination", id(&f->destination));
    if (!w.failed)
        return w.object;
    json_decref(w.object);
    return NULL;
}

/* record_quick.c knows the order of the fields. */
char *record_dataset_encode(const struct dataset *d)
{
    int format = format_of(d);
    struct writer w = writer_begin(format);
    struct writer metadata = {.object = json_object()};
    json_t *holders = json_array();

    for (size_t i = 0; i < d->metadata.n; i++)
        set(&metadata, d->metadata.entries[i].key, json_string(d->metadata.entries[i].value));
    w.failed |= metadata.failed;
    for (size_t i = 0; i < d->n_holders; i++)
        append(&w, holders, own_id(&d->holders[i]));
    set(&w, "id", own_id(&d->id));
    set(&w, "revision", number(d->revision));
    set(&w, "primary", id(&d->primary));
    set(&w, "deleted", json_boolean(d->deleted));
    set(&w, "deleted_us", number(d->deleted_us));
    set(&w, "maximum_size", number(d->maximum_size));
    set(&w, "metadata", metadata.object);
    set(&w, "owner", id(&d->owner));
    set(&w, "epoch", number(d->epoch));
    set(&w, "born", json_boolean(d->born));
    set(&w, "recalled", json_boolean(d->recalled));
    set(&w, "purge", json_boolean(d->purge));
    set(&w, "dropped", json_boolean(d->dropped));
    set(&w, "base", text_or_null(d->base));
    set(&w, "tombstone", number(d->tombstone));
    set(&w, "number", number(d->number));
    set(&w, "holders", holders);
    set(&w, "transfer", d->transfer.id ? transfer_value(&d->transfer) : json_null());
    if (d->replica)
        set(&w, "replica", replica_value(d->replica, format >= RECORD_FORMAT_FENCED));
    else if (format >= RECORD_FORMAT_FENCED)
        set(&w, "replica", json_null());
    if (format >= RECORD_FORMAT_FENCED)
        set(&w, "fenced", d->fenced ? fenced_value(d->fenced) : json_null());
    return finish(&w);
}

static void get_metadata(struct reader *r, struct metadata *m)
{
    json_t *object = get_typed(r, "metadata", JSON_OBJECT, "an object");
    const char *key;
    json_t *v;

    if (!object)
        return;
    m->entries = xcalloc(json_object_size(object), sizeof(*m->entries));
    json_object_foreach (object, key, v) {
        if (!json_is_string(v)) {
            wrong(r, "metadata", "an object of texts");
            break;
        }
        m->entries[m->n].key = xstrdup(key);
        m->entries[m->n++].value = xstrdup(json_string_value(v));
    }
    json_decref(object);
}

static void get_holders(struct reader *r, struct dataset *d)
{
    json_t *array = get_typed(r, "holders", JSON_ARRAY, "a list");
    size_t i;
    json_t *v;

    json_array_foreach (array, i, v) {
        struct uuid holder = value_id(r, "holders", v);

        if (r->err)
            break;
        if (dataset_has_holder(d, &holder))
            wrong(r, "holders", "a list without repetition");
        dataset_add_holder(d, &holder);
    }
    json_decref(array);
}

static void transfer_fields(struct reader *r, void *to)
{
    struct transfer *t = to;

    t->id = get_number(r, "id", UINT64_MAX);
    if (!t->id)
        wrong(r, "id", "at least 1");
    t->epoch = get_number(r, "epoch", UINT64_MAX);
    t->source = get_id(r, "source", true);
    t->destination = get_id(r, "destination", true);
    CLEANUP_FREE char *phase = get_text(r, "phase", false);
    t->phase = TRANSFER_COPY;
    if (phase && streq(phase, "release"))
        t->phase = TRANSFER_RELEASE;
    else if (phase && !streq(phase, "copy"))
        wrong(r, "phase", "\"copy\" or \"release\"");
}

static void get_transfer(struct reader *r, struct transfer *t)
{
    json_t *v = take(r, "transfer");

    if (v && !json_is_null(v))
        read_part(r, "transfer", v, transfer_fields, t);
    json_decref(v);
}

static void replica_fields(struct reader *r, void *to)
{
    struct replica *p = to;

    p->node = get_id(r, "node", false);
    CLEANUP_FREE char *base = get_text(r, "base", false);
    if (base && (!*base || strlen(base) >= sizeof(p->base)))
        wrong(r, "base", "the name of a snapshot");
    else if (base)
        memcpy(p->base, base, strlen(base) + 1);
    p->until_us = get_number(r, "until_us", UINT64_MAX);
    if (r->format >= RECORD_FORMAT_FENCED)
        p->made_us = get_number(r, "made_us", UINT64_MAX);
}

static void get_replica(struct reader *r, struct dataset *d)
{
    json_t *v = r->format < RECORD_FORMAT_REPLICA ? NULL : take(r, "replica");

    if (v && !(json_is_null(v) && r->format >= RECORD_FORMAT_FENCED)) {
        d->replica = xcalloc(1, sizeof(*d->replica));
        read_part(r, "replica", v, replica_fields, d->replica);
    }
    if (d->replica && !r->err && !dataset_has_holder(d, &d->replica->node))
        wrong(r, "replica", "on one of the holders");
    json_decref(v);
}

static void fenced_fields(struct reader *r, void *to)
{
    struct dataset *d = to;
    json_t *array = get_typed(r, "nodes", JSON_ARRAY, "a list");
    size_t i;
    json_t *v;

    json_array_foreach (array, i, v) {
        struct uuid node = value_id(r, "nodes", v);
        if (r->err)
            break;
        if (dataset_is_fenced(d, &node) || !dataset_has_holder(d, &node))
            wrong(r, "nodes", "holders, without repetition");
        dataset_add_fenced(d, &node);
    }
    json_decref(array);
    if (!d->fenced) {
        wrong(r, "nodes", "not empty");
        return;
    }
    d->fenced->freed = get_number(r, "freed", UINT64_MAX);
    d->fenced->freed_us = get_number(r, "freed_us", UINT64_MAX);
    d->fenced->transfer = get_number(r, "transfer", UINT64_MAX);
    d->fenced->destination = get_id(r, "destination", true);
    if (d->fenced->freed && !uuid_is_nil(&d->owner))
        wrong(r, "freed", "0 when there is an owner");
}

static void get_fenced(struct reader *r, struct dataset *d)
{
    json_t *v = r->format < RECORD_FORMAT_FENCED ? NULL : take(r, "fenced");

    if (v && !json_is_null(v))
        read_part(r, "fenced", v, fenced_fields, d);
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
    struct reader r;

    TRY(parse("dataset", RECORD_FORMAT_FENCED, text, n, &r));
    struct dataset *d = dataset_new(get_id(&r, "id", false));
    d->revision = get_number(&r, "revision", UINT64_MAX);
    d->primary = get_id(&r, "primary", true);
    d->deleted = get_bool(&r, "deleted");
    d->deleted_us = get_number(&r, "deleted_us", UINT64_MAX);
    d->maximum_size = get_number(&r, "maximum_size", UINT64_MAX);
    get_metadata(&r, &d->metadata);
    d->owner = get_id(&r, "owner", true);
    d->epoch = get_number(&r, "epoch", UINT64_MAX);
    d->born = get_bool(&r, "born");
    d->recalled = get_bool(&r, "recalled");
    d->purge = get_bool(&r, "purge");
    d->dropped = get_bool(&r, "dropped");
    d->base = get_text(&r, "base", true);
    d->tombstone = get_number(&r, "tombstone", UINT64_MAX);
    d->number = get_number(&r, "number", UINT64_MAX);
    get_holders(&r, d);
    get_transfer(&r, &d->transfer);
    get_replica(&r, d);
    get_fenced(&r, d);
    struct err *e = parse_end(&r);
    if (e) {
        dataset_free(d);
        return e;
    }
    *ret = d;
    return NULL;
}

/* Containers */

static json_t *pair(struct writer *w, json_t *a, json_t *b)
{
    json_t *p = json_array();

    append(w, p, a);
    append(w, p, b);
    return p;
}

static json_t *strings_value(struct writer *w, char *const *strings, size_t n)
{
    json_t *array = json_array();

    for (size_t i = 0; i < n; i++)
        append(w, array, json_string(strings[i]));
    return array;
}

static json_t *entries_value(struct writer *w, const struct env_entry *entries, size_t n)
{
    json_t *array = json_array();

    for (size_t i = 0; i < n; i++)
        append(w, array, pair(w, json_string(entries[i].name), json_string(entries[i].value)));
    return array;
}

static void set_lists(struct writer *w, const struct container *c)
{
    json_t *ports = json_array(), *links = json_array();

    for (size_t i = 0; i < c->n_ports; i++)
        append(w, ports,
               pair(w, json_integer(c->ports[i].internal), json_integer(c->ports[i].external)));
    for (size_t i = 0; i < c->n_links; i++) {
        struct writer link = {.object = json_object()};

        set(&link, "alias", json_string(c->links[i].alias));
        set(&link, "local_port", json_integer(c->links[i].local_port));
        set(&link, "remote_port", json_integer(c->links[i].remote_port));
        w->failed |= link.failed;
        append(w, links, link.object);
    }
    set(w, "ports", ports);
    set(w, "links", links);
    set(w, "environment", entries_value(w, c->environment, c->n_environment));
    set(w, "command_line",
        c->has_command_line ? strings_value(w, c->command_line, c->n_command_line) : json_null());
}

static json_t *health_value(struct writer *w, const struct health_check *h)
{
    struct writer v = {.object = json_object()};

    set(&v, "test", strings_value(w, h->test, h->n_test));
    set(&v, "disabled", json_boolean(h->disabled));
    set(&v, "interval_ms", number(h->interval_ms));
    set(&v, "timeout_ms", number(h->timeout_ms));
    set(&v, "start_period_ms", number(h->start_period_ms));
    set(&v, "retries", number(h->retries));
    w->failed |= v.failed;
    return v.object;
}

static json_t *dependencies_value(struct writer *w, const struct container *c)
{
    json_t *array = json_array();

    for (size_t i = 0; i < c->n_depends_on; i++)
        append(w, array,
               pair(w, json_string(c->depends_on[i].name),
                    json_string(dependency_condition_name(c->depends_on[i].condition))));
    return array;
}

static json_t *extended_value(struct writer *w, const struct container *c)
{
    struct writer v = {.object = json_object()};

    set(&v, "entrypoint", c->has_entrypoint ? strings_value(w, c->entrypoint, c->n_entrypoint) : json_null());
    set(&v, "user", text_or_null(c->user));
    set(&v, "working_dir", text_or_null(c->working_dir));
    set(&v, "stop_signal", text_or_null(c->stop_signal));
    set(&v, "stop_grace_ms", number(c->stop_grace_ms));
    set(&v, "labels", entries_value(w, c->labels, c->n_labels));
    set(&v, "health", c->health ? health_value(w, c->health) : json_null());
    set(&v, "nano_cpus", number(c->nano_cpus));
    set(&v, "depends_on", dependencies_value(w, c));
    w->failed |= v.failed;
    return v.object;
}

static json_t *volume_value(struct writer *w, const struct container_volume *from,
                            bool with_read_only)
{
    struct writer v = {.object = json_object()};

    set(&v, "dataset", id(&from->dataset));
    set(&v, "mountpoint", json_string(from->mountpoint));
    if (with_read_only)
        set(&v, "read_only", json_boolean(from->read_only));
    w->failed |= v.failed;
    return v.object;
}

static json_t *volumes_value(struct writer *w, const struct container *c)
{
    json_t *array = json_array();

    for (size_t i = 0; i < c->n_volumes; i++)
        append(w, array, volume_value(w, &c->volumes[i], /* with_read_only= */ true));
    return array;
}

char *record_container_encode(const struct container *c)
{
    bool volumes = container_has_more_volumes(c) || c->ended,
         extended = volumes || container_is_extended(c);
    struct writer w = writer_begin(c->ended   ? RECORD_FORMAT_ENDED
                                   : volumes  ? RECORD_FORMAT_VOLUMES
                                   : extended ? RECORD_FORMAT_EXTENDED
                                              : RECORD_FORMAT);

    set(&w, "name", json_string(c->name));
    set(&w, "revision", number(c->revision));
    set(&w, "created", number(c->created));
    set(&w, "node", id(&c->node));
    set(&w, "image", text_or_null(c->image));
    set_lists(&w, c);
    set(&w, "cpu_shares", number(c->cpu_shares));
    set(&w, "memory_limit", number(c->memory_limit));
    set(&w, "swappiness", c->swappiness == UINT32_MAX ? json_null() : number(c->swappiness));
    set(&w, "restart_policy", json_string(restart_policy_name(c->restart_policy)));
    set(&w, "maximum_retry_count", number(c->maximum_retry_count));
    if (c->ended)
        set(&w, "ended", json_boolean(c->ended));
    if (volumes)
        set(&w, "volumes", volumes_value(&w, c));
    else
        set(&w, "volume",
            c->n_volumes ? volume_value(&w, c->volumes, /* with_read_only= */ false) : json_null());
    if (extended)
        set(&w, "extended", extended_value(&w, c));
    return finish(&w);
}

static void get_ports(struct reader *r, struct container *c)
{
    json_t *array = get_typed(r, "ports", JSON_ARRAY, "a list");
    size_t i;
    json_t *v;

    c->ports = xcalloc(json_array_size(array), sizeof(*c->ports));
    json_array_foreach (array, i, v) {
        if (json_array_size(v) != 2) {
            wrong(r, "ports", "a list of pairs");
            break;
        }
        c->ports[i].internal = (uint16_t)value_number(r, "ports", json_array_get(v, 0), UINT16_MAX);
        c->ports[i].external = (uint16_t)value_number(r, "ports", json_array_get(v, 1), UINT16_MAX);
        c->n_ports++;
    }
    json_decref(array);
}

static void link_fields(struct reader *r, void *to)
{
    struct link *l = to;

    l->alias = get_text(r, "alias", false);
    l->local_port = (uint16_t)get_number(r, "local_port", UINT16_MAX);
    l->remote_port = (uint16_t)get_number(r, "remote_port", UINT16_MAX);
}

static void get_links(struct reader *r, struct container *c)
{
    json_t *array = get_typed(r, "links", JSON_ARRAY, "a list");
    size_t i;
    json_t *v;

    c->links = xcalloc(json_array_size(array), sizeof(*c->links));
    json_array_foreach (array, i, v) {
        read_part(r, "links", v, link_fields, &c->links[c->n_links++]);
    }
    json_decref(array);
}

/* What the caller gets is its own; *ret_n elements of it are whole, also when something is wrong. */
static struct env_entry *get_entries(struct reader *r, const char *key, size_t *ret_n)
{
    json_t *array = get_typed(r, key, JSON_ARRAY, "a list");
    struct env_entry *entries = xcalloc(json_array_size(array), sizeof(*entries));
    size_t i;
    json_t *v;

    json_array_foreach (array, i, v) {
        const char *name = json_string_value(json_array_get(v, 0));
        const char *value = json_string_value(json_array_get(v, 1));

        if (json_array_size(v) != 2 || !name || !value) {
            wrong(r, key, "a list of pairs of texts");
            break;
        }
        entries[(*ret_n)++] = (struct env_entry){.name = xstrdup(name), .value = xstrdup(value)};
    }
    json_decref(array);
    return entries;
}

/* Likewise. `ret_has` NULL: it must not be null. */
static char **get_strings(struct reader *r, const char *key, size_t *ret_n, bool *ret_has)
{
    json_t *array = take(r, key);
    const char *must = ret_has ? "a list of texts or null" : "a list of texts";
    char **strings = xcalloc(json_array_size(array), sizeof(*strings));
    size_t i;
    json_t *v;

    if (array && !json_is_array(array) && !(ret_has && json_is_null(array)))
        wrong(r, key, must);
    if (ret_has)
        *ret_has = json_is_array(array);
    json_array_foreach (array, i, v) {
        if (!json_is_string(v)) {
            wrong(r, key, must);
            break;
        }
        strings[(*ret_n)++] = xstrdup(json_string_value(v));
    }
    json_decref(array);
    return strings;
}

static void health_fields(struct reader *r, void *to)
{
    struct health_check *h = to;

    h->test = get_strings(r, "test", &h->n_test, NULL);
    h->disabled = get_bool(r, "disabled");
    h->interval_ms = get_number(r, "interval_ms", UINT64_MAX);
    h->timeout_ms = get_number(r, "timeout_ms", UINT64_MAX);
    h->start_period_ms = get_number(r, "start_period_ms", UINT64_MAX);
    h->retries = (uint32_t)get_number(r, "retries", UINT32_MAX);
}

static void get_health(struct reader *r, struct container *c)
{
    json_t *v = take(r, "health");

    if (v && !json_is_null(v)) {
        c->health = xcalloc(1, sizeof(*c->health));
        read_part(r, "health", v, health_fields, c->health);
    }
    json_decref(v);
}

static void get_dependencies(struct reader *r, struct container *c)
{
    size_t n = 0;
    struct env_entry *pairs = get_entries(r, "depends_on", &n);

    c->depends_on = xcalloc(n, sizeof(*c->depends_on));
    for (size_t i = 0; i < n; i++) {
        enum dependency_condition condition = dependency_condition_parse(pairs[i].value);

        if ((int)condition == DEPENDENCY_INVALID)
            wrong(r, "depends_on", "with \"started\", \"healthy\" or \"completed\"");
        free(pairs[i].value);
        c->depends_on[c->n_depends_on++] = (struct dependency){pairs[i].name, condition};
    }
    free(pairs);
}

static void extended_fields(struct reader *r, void *to)
{
    struct container *c = to;

    c->entrypoint = get_strings(r, "entrypoint", &c->n_entrypoint, &c->has_entrypoint);
    c->user = get_text(r, "user", true);
    c->working_dir = get_text(r, "working_dir", true);
    c->stop_signal = get_text(r, "stop_signal", true);
    c->stop_grace_ms = (uint32_t)get_number(r, "stop_grace_ms", UINT32_MAX);
    c->labels = get_entries(r, "labels", &c->n_labels);
    get_health(r, c);
    c->nano_cpus = get_number(r, "nano_cpus", UINT64_MAX);
    get_dependencies(r, c);
}

static void get_extended(struct reader *r, struct container *c)
{
    json_t *v = r->format < RECORD_FORMAT_EXTENDED ? NULL : take(r, "extended");

    if (v)
        read_part(r, "extended", v, extended_fields, c);
    json_decref(v);
}

static void volume_fields(struct reader *r, void *to)
{
    struct container_volume *v = to;

    v->dataset = get_id(r, "dataset", true);
    v->mountpoint = get_text(r, "mountpoint", false);
    if (r->format >= RECORD_FORMAT_VOLUMES)
        v->read_only = get_bool(r, "read_only");
}

/* As formats 1 and 2 have it: one, or none. */
static void get_volume(struct reader *r, struct container *c)
{
    json_t *v = take(r, "volume");

    if (v && !json_is_null(v)) {
        c->volumes = xcalloc(1, sizeof(*c->volumes));
        read_part(r, "volume", v, volume_fields, &c->volumes[c->n_volumes++]);
    }
    json_decref(v);
}

static void get_volumes(struct reader *r, struct container *c)
{
    json_t *array = get_typed(r, "volumes", JSON_ARRAY, "a list"), *v;
    size_t i;

    c->volumes = xcalloc(json_array_size(array), sizeof(*c->volumes));
    json_array_foreach (array, i, v) {
        read_part(r, "volumes", v, volume_fields, &c->volumes[c->n_volumes++]);
    }
    json_decref(array);
}

static void get_container_rest(struct reader *r, struct container *c)
{
    json_t *swappiness = take(r, "swappiness");
    CLEANUP_FREE char *policy = NULL;

    if (swappiness && !json_is_null(swappiness))
        c->swappiness = (uint32_t)value_number(r, "swappiness", swappiness, UINT32_MAX - 1);
    json_decref(swappiness);
    policy = get_text(r, "restart_policy", false);
    c->restart_policy = policy ? restart_policy_parse(policy) : RESTART_NEVER;
    if ((int)c->restart_policy == RESTART_POLICY_INVALID)
        wrong(r, "restart_policy", "\"never\", \"always\" or \"on-failure\"");
    c->maximum_retry_count = (uint32_t)get_number(r, "maximum_retry_count", UINT32_MAX);
    if (r->format >= RECORD_FORMAT_ENDED)
        c->ended = get_bool(r, "ended");
    if (r->format < RECORD_FORMAT_VOLUMES)
        get_volume(r, c);
    else
        get_volumes(r, c);
}

struct err *record_container_decode(const char *text, size_t n, struct container **ret)
{
    struct reader r;

    TRY(parse("container", RECORD_FORMAT_ENDED, text, n, &r));
    CLEANUP_FREE char *name = get_text(&r, "name", false);
    struct container *c = container_new(name ? name : "");
    c->revision = get_number(&r, "revision", UINT64_MAX);
    c->created = get_number(&r, "created", UINT64_MAX);
    c->node = get_id(&r, "node", true);
    c->image = get_text(&r, "image", true);
    get_ports(&r, c);
    get_links(&r, c);
    c->environment = get_entries(&r, "environment", &c->n_environment);
    c->command_line = get_strings(&r, "command_line", &c->n_command_line, &c->has_command_line);
    c->cpu_shares = (uint32_t)get_number(&r, "cpu_shares", UINT32_MAX);
    c->memory_limit = get_number(&r, "memory_limit", UINT64_MAX);
    get_container_rest(&r, c);
    get_extended(&r, c);
    struct err *e = parse_end(&r);
    if (e) {
        container_free(c);
        return e;
    }
    *ret = c;
    return NULL;
}

/* Leases */

/* What is only acquired by the API can still be read by an older version; since when is not worth more. */
char *record_lease_encode(const struct lease *l)
{
    bool by_mounts = l->n_mounts > 0;
    struct writer w = writer_begin(by_mounts ? RECORD_FORMAT_MOUNTS : RECORD_FORMAT);

    if (!by_mounts && !l->acquired)
        w.failed = true;
    set(&w, "dataset", own_id(&l->dataset));
    set(&w, "revision", number(l->revision));
    set(&w, "node", id(&l->node));
    set(&w, "expires_wall_us", l->expires ? number(l->expires_wall_us) : json_null());
    if (by_mounts) {
        json_t *mounts = json_array();
        for (size_t i = 0; i < l->n_mounts; i++)
            append(&w, mounts, json_string(l->mounts[i]));
        set(&w, "acquired", json_boolean(l->acquired));
        set(&w, "since_us", number(l->since_us));
        set(&w, "mounts", mounts);
    }
    return finish(&w);
}

static void get_mount(struct reader *r, struct lease *l, const json_t *v)
{
    const char *text = json_string_value(v);
    size_t n = json_string_length(v);

    if (!text || !n || n > MOUNT_ID_MAX || (l->n_mounts && strcmp(l->mounts[l->n_mounts - 1], text) >= 0))
        wrong(r, "mounts", "a sorted list of ids");
    else
        lease_add_mount(l, text);
}

static void get_mounts(struct reader *r, struct lease *l)
{
    json_t *mounts = take(r, "mounts");

    if (mounts && (!json_is_array(mounts) || !json_array_size(mounts) || json_array_size(mounts) > LEASE_MOUNTS_MAX))
        wrong(r, "mounts", "a sorted list of ids");
    for (size_t i = 0; !r->err && i < json_array_size(mounts); i++)
        get_mount(r, l, json_array_get(mounts, i));
    json_decref(mounts);
}

struct err *record_lease_decode(const char *text, size_t n, struct lease *ret)
{
    struct lease l = {0};
    struct reader r;

    TRY(parse("lease", RECORD_FORMAT_MOUNTS, text, n, &r));
    l.dataset = get_id(&r, "dataset", false);
    l.revision = get_number(&r, "revision", UINT64_MAX);
    l.node = get_id(&r, "node", true);
    json_t *expires = take(&r, "expires_wall_us");
    if (expires && !json_is_null(expires)) {
        l.expires = true;
        l.expires_wall_us = value_number(&r, "expires_wall_us", expires, UINT64_MAX);
    }
    json_decref(expires);
    l.acquired = true;
    if (r.format >= RECORD_FORMAT_MOUNTS) {
        l.acquired = get_bool(&r, "acquired");
        l.since_us = get_number(&r, "since_us", UINT64_MAX);
        get_mounts(&r, &l);
    }
    if (!r.err && l.expires && !l.acquired)
        wrong(&r, "expires_wall_us", "null, as the API has not acquired it");
    struct err *e = parse_end(&r);
    if (e) {
        lease_done(&l);
        return e;
    }
    *ret = l;
    return NULL;
}

/* Cordons */

char *record_cordon_encode(const struct cordon *c)
{
    struct writer w = writer_begin(RECORD_FORMAT);

    set(&w, "node", own_id(&c->node));
    set(&w, "revision", number(c->revision));
    return finish(&w);
}

struct err *record_cordon_decode(const char *text, size_t n, struct cordon *ret)
{
    struct cordon c = {0};
    struct reader r;

    TRY(parse("cordon", RECORD_FORMAT, text, n, &r));
    c.node = get_id(&r, "node", false);
    c.revision = get_number(&r, "revision", UINT64_MAX);
    TRY(parse_end(&r));
    *ret = c;
    return NULL;
}

/* Fences */

char *record_fence_encode(const struct fence *f)
{
    struct writer w = writer_begin(RECORD_FORMAT);

    set(&w, "node", own_id(&f->node));
    set(&w, "revision", number(f->revision));
    set(&w, "era", id(&f->era));
    set(&w, "at_us", number(f->at_us));
    set(&w, "who", json_string(f->who));
    set(&w, "why", json_string(f->why));
    return finish(&w);
}

struct err *record_fence_decode(const char *text, size_t n, struct fence **ret)
{
    struct reader r;

    TRY(parse("fence", RECORD_FORMAT, text, n, &r));
    struct fence *f = xcalloc(1, sizeof(*f));
    f->node = get_id(&r, "node", false);
    f->revision = get_number(&r, "revision", UINT64_MAX);
    f->era = get_id(&r, "era", true);
    f->at_us = get_number(&r, "at_us", UINT64_MAX);
    f->who = get_text(&r, "who", false);
    f->why = get_text(&r, "why", false);
    struct err *e = parse_end(&r);
    if (e) {
        fence_free(f);
        return e;
    }
    *ret = f;
    return NULL;
}
