#include "model/import.h"

#include "base/now.h"
#include "base/str.h"
#include "model/json.h"
#include "model/validate.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>

#define CLASS "$__class__$"

struct reading {
    struct import result;
    unsigned flags;
    json_t *names, *ports; /* of the containers that were taken: sets */
    json_t *places;        /* datasets that were taken: id to node */
    size_t cap_datasets, cap_containers, cap_leases, cap_notes;
};

void import_done(struct import *i)
{
    for (size_t k = 0; k < i->n_datasets; k++)
        dataset_free(i->datasets[k]);
    for (size_t k = 0; k < i->n_containers; k++)
        container_free(i->containers[k]);
    for (size_t k = 0; k < i->n_notes; k++)
        free(i->notes[k]);
    free(i->datasets);
    free(i->containers);
    free(i->leases);
    free(i->notes);
    *i = (struct import){0};
}

static void note(struct reading *r, const char *format, ...) PRINTF_LIKE(2, 3);

static void note(struct reading *r, const char *format, ...)
{
    struct import *i = &r->result;
    va_list args;

    va_start(args, format);
    char *text = xvasprintf(format, args);
    va_end(args);
    i->notes = mem_grow(i->notes, i->n_notes, &r->cap_notes, sizeof(*i->notes));
    i->notes[i->n_notes++] = text;
}

/* ---- the forms of values ---- */

static bool is_class(const json_t *v, const char *name)
{
    const char *class = json_string_value(json_object_get(v, CLASS));

    return class && streq(class, name);
}

static struct err *expect(const json_t *v, const char *class)
{
    if (is_class(v, class))
        return NULL;
    return err_new(ERR_CORRUPT, "there must be a %s", class);
}

/* A list, or what stands in its place: an object with its members in "values". NULL stays NULL. */
static struct err *members(const json_t *v, const char *what, const json_t **ret)
{
    const json_t *list = json_is_object(v) ? json_object_get(v, "values") : v;

    if (list && !json_is_null(list) && !json_is_array(list))
        return err_new(ERR_CORRUPT, "\"%s\" must be a list", what);
    *ret = list;
    return NULL;
}

/* The value of a member of a map: [key, value]. */
static struct err *pair(const json_t *v, const char *what, const json_t **ret_key,
                        const json_t **ret_value)
{
    if (!json_is_array(v) || json_array_size(v) != 2)
        return err_new(ERR_CORRUPT, "\"%s\" must have pairs of a key and a value", what);
    *ret_key = json_array_get(v, 0);
    *ret_value = json_array_get(v, 1);
    return NULL;
}

/* {"$__class__$": "UUID", "hex": "..."}, or just the text. */
static struct err *take_uuid(const json_t *v, const char *what, struct uuid *ret)
{
    const char *text = json_string_value(is_class(v, "UUID") ? json_object_get(v, "hex") : v);

    if (!text || !uuid_parse(text, ret))
        return err_new(ERR_CORRUPT, "\"%s\" must be a UUID", what);
    return NULL;
}

/* What stands in the file beside that is not taken. */
static void note_others(struct reading *r, const json_t *object, const char *const *known,
                        const char *of)
{
    const char *key;
    json_t *value;

    json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
        bool found = streq(key, CLASS);
        for (const char *const *k = known; *k && !found; k++)
            found = streq(key, *k);
        if (!found)
            note(r, "%s: the unknown key \"%s\" was not taken", of, key);
    }
}

/* A map of texts as a plain object: a PMap, a list of pairs, or an object already. */
static struct err *take_texts(const json_t *v, const char *what, json_t **ret)
{
    json_t *to = json_object();
    struct err *e = NULL;
    const json_t *list, *key, *value, *item;
    size_t i;

    if (json_is_object(v) && !json_object_get(v, CLASS)) {
        (void)json_object_update(to, (json_t *)(uintptr_t)v);
    } else {
        e = members(v, what, &list);
        for (i = 0; !e && (item = json_array_get(list, i)); i++) {
            e = pair(item, what, &key, &value);
            if (!e && !json_is_string(key))
                e = err_new(ERR_CORRUPT, "a key in \"%s\" must be a text", what);
            if (!e)
                (void)json_object_set(to, json_string_value(key), (json_t *)(uintptr_t)value);
        }
    }
    if (e)
        json_decref(to);
    else
        *ret = to;
    return e;
}

/* ---- datasets ---- */

/* The size, as it can be had: a whole number of KiB, and at least the smallest. */
static json_t *take_size(struct reading *r, const char *id, const json_t *v)
{
    double size = ceil(json_number_value(v));
    uint64_t bytes =
        json_is_integer(v) && json_integer_value(v) > 0 ? (uint64_t)json_integer_value(v) : 0;

    if (!json_is_number(v) || size <= 0)
        return NULL;
    if (!bytes)
        bytes = size < 0x1p62 ? (uint64_t)size : UINT64_C(1) << 62;
    uint64_t rounded = bytes < DATASET_MIN_SIZE ? DATASET_MIN_SIZE
                                                : (bytes + DATASET_SIZE_STEP - 1) /
                                                      DATASET_SIZE_STEP * DATASET_SIZE_STEP;
    if (rounded != bytes)
        note(r, "dataset %s: its maximum_size was raised from %llu to %llu bytes", id,
             (unsigned long long)bytes, (unsigned long long)rounded);
    return json_integer((json_int_t)rounded);
}

/* As the body of a request, so that the same rules hold. */
static struct err *dataset_body(struct reading *r, const json_t *v, const char *id,
                                const struct uuid *node, json_t **ret)
{
    json_t *metadata = NULL;

    TRY(take_texts(json_object_get(v, "metadata"), "metadata", &metadata));
    json_t *size = take_size(r, id, json_object_get(v, "maximum_size"));
    json_t *body = json_pack("{s:s, s:o, s:o}", "dataset_id", id, "primary", json_uuid(node),
                             "metadata", metadata);
    if (size)
        (void)json_object_set_new(body, "maximum_size", size);
    *ret = body;
    return NULL;
}

static void add_dataset(struct reading *r, struct dataset *d, bool deleted)
{
    struct import *i = &r->result;

    d->revision = ++i->revision;
    d->deleted = deleted;
    if (!deleted && !(r->flags & IMPORT_EMPTY)) {
        d->born = true;
        d->owner = d->primary;
        d->epoch = d->number = d->revision;
        dataset_add_holder(d, &d->owner);
    }
    if (!deleted)
        (void)json_object_set_new(r->places, UUID_STR(&d->id), json_uuid(&d->primary));
    i->datasets = mem_grow(i->datasets, i->n_datasets, &r->cap_datasets, sizeof(*i->datasets));
    i->datasets[i->n_datasets++] = d;
}

static struct err *take_dataset(struct reading *r, const json_t *v, const struct uuid *node,
                                bool primary, json_t *seen)
{
    static const char *const known[] = {"dataset_id", "deleted", "maximum_size", "metadata", NULL};
    const char *id = json_string_value(json_object_get(v, "dataset_id"));
    struct dataset *d = NULL;
    json_t *body = NULL;

    TRY(expect(v, "Dataset"));
    if (!id)
        return err_new(ERR_CORRUPT, "\"dataset_id\" must be a text");
    if (!primary) {
        note(r, "dataset %s: its replica on node %s was not taken", id, UUID_STR(node));
        return NULL;
    }
    if (json_object_get(seen, id)) {
        note(r, "dataset %s: it stands there twice, and was not taken for node %s", id,
             UUID_STR(node));
        return NULL;
    }
    (void)json_object_set_new(seen, id, json_true());
    CLEANUP_FREE char *of = xasprintf("dataset %s", id);
    note_others(r, v, known, of);
    TRY(dataset_body(r, v, id, node, &body));
    json_t *errors = validate_dataset_create(body, &d);
    json_decref(body);
    if (errors)
        note(r, "dataset %s was not taken: %s", id, json_string_value(json_array_get(errors, 0)));
    else
        add_dataset(r, d, json_is_true(json_object_get(v, "deleted")));
    json_decref(errors);
    return NULL;
}

static struct err *take_manifestations(struct reading *r, const json_t *v, const struct uuid *node,
                                       json_t *seen)
{
    const json_t *list, *key, *value, *item;

    TRY(members(v, "manifestations", &list));
    for (size_t i = 0; (item = json_array_get(list, i)); i++) {
        TRY(pair(item, "manifestations", &key, &value));
        TRY(expect(value, "Manifestation"));
        TRY(err_wrap(take_dataset(r, json_object_get(value, "dataset"), node,
                                  json_is_true(json_object_get(value, "primary")), seen),
                     "manifestation %zu", i + 1));
    }
    return NULL;
}

/* ---- applications ---- */

static struct err *take_image(const json_t *v, json_t *body)
{
    const char *repository = json_string_value(json_object_get(v, "repository"));
    const char *tag = json_string_value(json_object_get(v, "tag"));

    TRY(expect(v, "DockerImage"));
    if (!repository || !tag)
        return err_new(ERR_CORRUPT, "the image must have a repository and a tag");
    CLEANUP_FREE char *image = xasprintf("%s:%s", repository, tag);
    (void)json_object_set_new(body, "image", json_string(image));
    return NULL;
}

static json_t *member(const json_t *v, const char *key)
{
    json_t *value = json_object_get(v, key);

    return value ? json_incref(value) : json_null();
}

static struct err *take_ports(const json_t *v, json_t *body)
{
    const json_t *list, *item;
    json_t *ports = json_array();
    struct err *e = members(v, "ports", &list);

    for (size_t i = 0; !e && (item = json_array_get(list, i)); i++) {
        e = expect(item, "Port");
        (void)json_array_append_new(ports, json_pack("{s:o, s:o}", "internal",
                                                     member(item, "internal_port"), "external",
                                                     member(item, "external_port")));
    }
    if (!e && json_array_size(ports))
        (void)json_object_set(body, "ports", ports);
    json_decref(ports);
    return e;
}

static struct err *take_links(const json_t *v, json_t *body)
{
    const json_t *list, *item;
    json_t *links = json_array();
    struct err *e = members(v, "links", &list);

    for (size_t i = 0; !e && (item = json_array_get(list, i)); i++) {
        e = expect(item, "Link");
        (void)json_array_append_new(links,
                                    json_pack("{s:o, s:o, s:o}", "alias", member(item, "alias"),
                                              "local_port", member(item, "local_port"),
                                              "remote_port", member(item, "remote_port")));
    }
    if (!e && json_array_size(links))
        (void)json_object_set(body, "links", links);
    json_decref(links);
    return e;
}

static struct err *take_restart_policy(const json_t *v, json_t *body)
{
    static const struct {
        const char *class, *name;
    } policies[] = {
        {"RestartNever", "never"}, {"RestartAlways", "always"}, {"RestartOnFailure", "on-failure"}};
    json_t *count = json_object_get(v, "maximum_retry_count");

    if (!v || json_is_null(v))
        return NULL;
    for (size_t i = 0; i < ARRAY_SIZE(policies); i++) {
        if (!is_class(v, policies[i].class))
            continue;
        json_t *policy = json_pack("{s:s}", "name", policies[i].name);
        if (count && !json_is_null(count))
            (void)json_object_set(policy, "maximum_retry_count", count);
        (void)json_object_set_new(body, "restart_policy", policy);
        return NULL;
    }
    return err_new(ERR_CORRUPT, "\"restart_policy\" must be one of Flocker's three");
}

static struct err *take_volume(const json_t *v, json_t *body)
{
    const json_t *manifestation = json_object_get(v, "manifestation"),
                 *mountpoint = json_object_get(v, "mountpoint");
    json_t *id = json_object_get(json_object_get(manifestation, "dataset"), "dataset_id");
    json_t *path = is_class(mountpoint, "FilePath") ? json_object_get(mountpoint, "path") : NULL;

    if (!v || json_is_null(v))
        return NULL;
    TRY(expect(v, "AttachedVolume"));
    if (!json_is_string(id) || !json_is_string(path))
        return err_new(ERR_CORRUPT, "the volume must have a dataset and a path");
    (void)json_object_set_new(body, "volumes",
                              json_pack("[{s:O, s:O}]", "dataset_id", id, "mountpoint", path));
    return NULL;
}

/* A number that is set: null and 0 are not. */
static void take_number(const json_t *v, const char *from, const char *to, json_t *body)
{
    json_t *n = json_object_get(v, from);

    if (n && !json_is_null(n) && !(json_is_integer(n) && json_integer_value(n) == 0))
        (void)json_object_set(body, to, n);
}

static struct err *fill_body(const json_t *v, json_t *body)
{
    const json_t *environment = json_object_get(v, "environment"), *command;
    json_t *variables = NULL;

    TRY(take_image(json_object_get(v, "image"), body));
    TRY(take_ports(json_object_get(v, "ports"), body));
    TRY(take_links(json_object_get(v, "links"), body));
    TRY(take_restart_policy(json_object_get(v, "restart_policy"), body));
    TRY(take_volume(json_object_get(v, "volume"), body));
    take_number(v, "memory_limit", "memory_limit", body);
    take_number(v, "cpu_shares", "cpu_shares", body);
    take_number(v, "swappiness", "swappiness", body);
    TRY(members(json_object_get(v, "command_line"), "command_line", &command));
    if (command && !json_is_null(command))
        (void)json_object_set(body, "command_line", (json_t *)(uintptr_t)command);
    if (environment && !json_is_null(environment)) {
        TRY(take_texts(environment, "environment", &variables));
        (void)json_object_set_new(body, "environment", variables);
    }
    return NULL;
}

/* NULL when it can be taken beside those that were. */
static char *conflict(const struct reading *r, const struct container *k)
{
    if (json_object_get(r->names, k->name))
        return xstrdup("another one has the same name");
    for (size_t i = 0; i < k->n_ports; i++) {
        char port[8];
        (void)snprintf(port, sizeof(port), "%u", k->ports[i].external);
        if (k->ports[i].external && json_object_get(r->ports, port))
            return xasprintf("another one has the external port %s", port);
    }
    for (size_t i = 0; i < k->n_volumes; i++) {
        const char *place =
            json_string_value(json_object_get(r->places, UUID_STR(&k->volumes[i].dataset)));
        if (!place || !streq(place, UUID_STR(&k->node)))
            return xasprintf(
                "its dataset %s was not taken for its node, or belongs to another container",
                UUID_STR(&k->volumes[i].dataset));
    }
    return NULL;
}

static void add_container(struct reading *r, struct container *k)
{
    struct import *i = &r->result;

    (void)json_object_set_new(r->names, k->name, json_true());
    for (size_t n = 0; n < k->n_ports; n++) {
        char port[8];
        (void)snprintf(port, sizeof(port), "%u", k->ports[n].external);
        (void)json_object_set_new(r->ports, port, json_true());
    }
    for (size_t n = 0; n < k->n_volumes; n++)
        (void)json_object_set_new(r->places, UUID_STR(&k->volumes[n].dataset), json_string("used"));
    k->revision = k->created = ++i->revision;
    i->containers =
        mem_grow(i->containers, i->n_containers, &r->cap_containers, sizeof(*i->containers));
    i->containers[i->n_containers++] = k;
}

static void judge_container(struct reading *r, struct container *k, const json_t *v)
{
    CLEANUP_FREE char *why = conflict(r, k);

    if (!why && json_is_false(json_object_get(v, "running")))
        why = xstrdup("it was configured not to run, which there is no way to say any more");
    if (!why && k->n_volumes && (r->flags & IMPORT_EMPTY)) {
        CLEANUP_STR struct str body = {0};
        json_t *configuration = json_container_configuration(k);
        json_append(&body, configuration);
        json_decref(configuration);
        why = xasprintf("it would start on an empty volume; when its data are there, POST to "
                        "/v1/configuration/containers: %s",
                        body.data);
    }
    if (!why) {
        add_container(r, k);
        return;
    }
    note(r, "container %s was not taken: %s", k->name, why);
    container_free(k);
}

static struct err *take_application(struct reading *r, const json_t *v, const struct uuid *node)
{
    static const char *const known[] = {
        "name",       "image",        "ports",   "links",          "environment", "memory_limit",
        "cpu_shares", "command_line", "running", "restart_policy", "volume",      "swappiness",
        NULL};
    const char *name = json_string_value(json_object_get(v, "name"));
    struct container *k = NULL;

    TRY(expect(v, "Application"));
    if (!name)
        return err_new(ERR_CORRUPT, "its \"name\" must be a text");
    CLEANUP_FREE char *of = xasprintf("container %s", name);
    note_others(r, v, known, of);
    json_t *body = json_pack("{s:o, s:s}", "node_uuid", json_uuid(node), "name", name);
    struct err *e = err_wrap(fill_body(v, body), "application %s", name);
    json_t *errors = e ? NULL : validate_container_create(body, &k);
    json_decref(body);
    TRY(e);
    if (errors)
        note(r, "container %s was not taken: %s", name,
             json_string_value(json_array_get(errors, 0)));
    else
        judge_container(r, k, v);
    json_decref(errors);
    return NULL;
}

static struct err *take_applications(struct reading *r, const json_t *v, const struct uuid *node)
{
    const json_t *list, *item, *key;

    TRY(members(v, "applications", &list));
    for (size_t i = 0; (item = json_array_get(list, i)); i++) {
        if (is_class(v, "PMap"))
            TRY(pair(item, "applications", &key, &item));
        TRY(err_wrap(take_application(r, item, node), "application %zu", i + 1));
    }
    return NULL;
}

/* ---- leases, and what is kept of volumes ---- */

static struct err *take_lease(struct reading *r, const json_t *v)
{
    const json_t *expiration = json_object_get(v, "expiration");
    struct import *i = &r->result;
    struct lease l = {0};

    TRY(expect(v, "Lease"));
    TRY(take_uuid(json_object_get(v, "dataset_id"), "dataset_id", &l.dataset));
    TRY(take_uuid(json_object_get(v, "node_id"), "node_id", &l.node));
    l.expires = expiration && !json_is_null(expiration);
    const json_t *seconds =
        json_is_object(expiration) ? json_object_get(expiration, "seconds") : expiration;
    if (l.expires && (!json_is_number(seconds) || json_number_value(seconds) < 0 ||
                      json_number_value(seconds) > 1e12))
        return err_new(ERR_CORRUPT, "\"expiration\" must be a time in seconds");
    if (l.expires)
        l.expires_wall_us = (uint64_t)(json_number_value(seconds) * USEC_PER_SEC);
    if (uuid_is_nil(&l.dataset) || uuid_is_nil(&l.node)) {
        note(r, "a lease of the nil UUID was not taken");
        return NULL;
    }
    l.acquired = true;
    l.revision = ++i->revision;
    i->leases = mem_grow(i->leases, i->n_leases, &r->cap_leases, sizeof(*i->leases));
    i->leases[i->n_leases++] = l;
    return NULL;
}

static struct err *take_leases(struct reading *r, const json_t *v)
{
    const json_t *list, *item, *key, *value;
    json_t *seen = json_object();
    struct err *e = members(v, "leases", &list);

    for (size_t i = 0; !e && (item = json_array_get(list, i)); i++) {
        struct uuid id = UUID_NIL;
        e = pair(item, "leases", &key, &value);
        if (!e)
            e = take_uuid(key, "leases", &id);
        if (!e && json_object_get(seen, UUID_STR(&id))) {
            note(r, "a second lease of dataset %s was not taken", UUID_STR(&id));
            continue;
        }
        if (!e)
            e = err_wrap(take_lease(r, value), "lease %zu", i + 1);
        (void)json_object_set_new(seen, UUID_STR(&id), json_true());
    }
    json_decref(seen);
    return e;
}

static struct err *note_volumes(struct reading *r, const json_t *state)
{
    const json_t *list, *item, *key, *value;
    struct uuid id;

    TRY(members(json_object_get(state, "blockdevice_ownership"), "blockdevice_ownership", &list));
    for (size_t i = 0; (item = json_array_get(list, i)); i++) {
        TRY(pair(item, "blockdevice_ownership", &key, &value));
        TRY(take_uuid(key, "blockdevice_ownership", &id));
        note(r, "dataset %s: the volume %s of the old backend was not taken over", UUID_STR(&id),
             json_is_string(value) ? json_string_value(value) : "?");
    }
    return NULL;
}

/* ---- the whole ---- */

static struct err *take_node(struct reading *r, const json_t *v, struct uuid *ret_node)
{
    static const char *const known[] = {"uuid", "applications", "manifestations", NULL};

    TRY(expect(v, "Node"));
    TRY(take_uuid(json_object_get(v, "uuid"), "uuid", ret_node));
    CLEANUP_FREE char *of = xasprintf("node %s", UUID_STR(ret_node));
    note_others(r, v, known, of);
    return NULL;
}

/* Datasets of all nodes first: a container may stand before its dataset. */
static struct err *take_nodes(struct reading *r, const json_t *v, bool applications, json_t *seen)
{
    const json_t *list, *item, *key;
    struct uuid node = UUID_NIL;
    size_t notes = r->result.n_notes;

    TRY(members(v, "nodes", &list));
    for (size_t i = 0; (item = json_array_get(list, i)); i++) {
        if (is_class(v, "PMap"))
            TRY(pair(item, "nodes", &key, &item));
        TRY(err_wrap(take_node(r, item, &node), "node %zu", i + 1));
        while (applications && r->result.n_notes > notes) /* said the first time */
            free(r->result.notes[--r->result.n_notes]);
        struct err *e =
            applications
                ? take_applications(r, json_object_get(item, "applications"), &node)
                : take_manifestations(r, json_object_get(item, "manifestations"), &node, seen);
        TRY(err_wrap(e, "node %s", UUID_STR(&node)));
        notes = r->result.n_notes;
    }
    return NULL;
}

static struct err *take_deployment(struct reading *r, const json_t *v)
{
    static const char *const known[] = {"nodes", "leases", "persistent_state", NULL};
    const json_t *nodes = json_object_get(v, "nodes");

    TRY(expect(v, "Deployment"));
    if (!nodes)
        return err_new(ERR_CORRUPT, "it has no \"nodes\"");
    note_others(r, v, known, "the deployment");
    json_t *seen = json_object();
    struct err *e = take_nodes(r, nodes, /* applications= */ false, seen);
    if (!e)
        e = take_nodes(r, nodes, /* applications= */ true, seen);
    json_decref(seen);
    TRY(e);
    TRY(take_leases(r, json_object_get(v, "leases")));
    return note_volumes(r, json_object_get(v, "persistent_state"));
}

static struct err *take_configuration(struct reading *r, const json_t *v)
{
    static const char *const known[] = {"version", "deployment", NULL};
    const json_t *version = json_object_get(v, "version");

    r->result.version = 1;
    if (is_class(v, "Deployment"))
        return take_deployment(r, v);
    TRY(expect(v, "Configuration"));
    if (!json_is_integer(version) || json_integer_value(version) < 1)
        return err_new(ERR_CORRUPT, "it names no version");
    if (json_integer_value(version) > IMPORT_VERSION_MAX)
        return err_new(ERR_UNSUPPORTED, "it has version %lld; the newest that is known is %d",
                       (long long)json_integer_value(version), IMPORT_VERSION_MAX);
    r->result.version = (int)json_integer_value(version);
    note_others(r, v, known, "the file");
    return take_deployment(r, json_object_get(v, "deployment"));
}

struct err *import_parse(const char *text, size_t n, unsigned flags, struct import *ret)
{
    struct reading r = {.flags = flags};
    json_t *v = NULL;
    struct err *e = json_parse(text, n, &v);

    if (e)
        e->code = ERR_CORRUPT;
    TRY(e);
    r.names = json_object();
    r.ports = json_object();
    r.places = json_object();
    e = take_configuration(&r, v);
    json_decref(v);
    json_decref(r.names);
    json_decref(r.ports);
    json_decref(r.places);
    if (e)
        import_done(&r.result);
    else
        *ret = r.result;
    return e;
}
