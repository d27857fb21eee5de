#include "model/record.h"

#include "base/str.h"
#include "model/record_json.h"

static json_t *pair(struct record_writer *w, json_t *a, json_t *b)
{
    json_t *p = json_array();

    record_append(w, p, a);
    record_append(w, p, b);
    return p;
}

static json_t *strings_value(struct record_writer *w, char *const *strings, size_t n)
{
    json_t *array = json_array();

    for (size_t i = 0; i < n; i++)
        record_append(w, array, json_string(strings[i]));
    return array;
}

static json_t *entries_value(struct record_writer *w, const struct env_entry *entries, size_t n)
{
    json_t *array = json_array();

    for (size_t i = 0; i < n; i++)
        record_append(w, array,
                      pair(w, json_string(entries[i].name), json_string(entries[i].value)));
    return array;
}

static void set_lists(struct record_writer *w, const struct container *c)
{
    json_t *ports = json_array(), *links = json_array();

    for (size_t i = 0; i < c->n_ports; i++)
        record_append(
            w, ports,
            pair(w, json_integer(c->ports[i].internal), json_integer(c->ports[i].external)));
    for (size_t i = 0; i < c->n_links; i++) {
        struct record_writer link = {.object = json_object()};

        record_set(&link, "alias", json_string(c->links[i].alias));
        record_set(&link, "local_port", json_integer(c->links[i].local_port));
        record_set(&link, "remote_port", json_integer(c->links[i].remote_port));
        w->failed |= link.failed;
        record_append(w, links, link.object);
    }
    record_set(w, "ports", ports);
    record_set(w, "links", links);
    record_set(w, "environment", entries_value(w, c->environment, c->n_environment));
    record_set(w, "command_line",
               c->has_command_line ? strings_value(w, c->command_line, c->n_command_line)
                                   : json_null());
}

static json_t *health_value(struct record_writer *w, const struct health_check *h)
{
    struct record_writer v = {.object = json_object()};

    record_set(&v, "test", strings_value(w, h->test, h->n_test));
    record_set(&v, "disabled", json_boolean(h->disabled));
    record_set(&v, "interval_ms", record_number(h->interval_ms));
    record_set(&v, "timeout_ms", record_number(h->timeout_ms));
    record_set(&v, "start_period_ms", record_number(h->start_period_ms));
    record_set(&v, "retries", record_number(h->retries));
    w->failed |= v.failed;
    return v.object;
}

static json_t *dependencies_value(struct record_writer *w, const struct container *c)
{
    json_t *array = json_array();

    for (size_t i = 0; i < c->n_depends_on; i++)
        record_append(w, array,
                      pair(w, json_string(c->depends_on[i].name),
                           json_string(dependency_condition_name(c->depends_on[i].condition))));
    return array;
}

static json_t *extended_value(struct record_writer *w, const struct container *c)
{
    struct record_writer v = {.object = json_object()};

    record_set(&v, "entrypoint",
               c->has_entrypoint ? strings_value(w, c->entrypoint, c->n_entrypoint) : json_null());
    record_set(&v, "user", record_text(c->user));
    record_set(&v, "working_dir", record_text(c->working_dir));
    record_set(&v, "stop_signal", record_text(c->stop_signal));
    record_set(&v, "stop_grace_ms", record_number(c->stop_grace_ms));
    record_set(&v, "labels", entries_value(w, c->labels, c->n_labels));
    record_set(&v, "health", c->health ? health_value(w, c->health) : json_null());
    record_set(&v, "nano_cpus", record_number(c->nano_cpus));
    record_set(&v, "depends_on", dependencies_value(w, c));
    w->failed |= v.failed;
    return v.object;
}

static json_t *volume_value(struct record_writer *w, const struct container_volume *from,
                            bool with_read_only)
{
    struct record_writer v = {.object = json_object()};

    record_set(&v, "dataset", record_id(&from->dataset));
    record_set(&v, "mountpoint", json_string(from->mountpoint));
    if (with_read_only)
        record_set(&v, "read_only", json_boolean(from->read_only));
    w->failed |= v.failed;
    return v.object;
}

static json_t *volumes_value(struct record_writer *w, const struct container *c)
{
    json_t *array = json_array();

    for (size_t i = 0; i < c->n_volumes; i++)
        record_append(w, array, volume_value(w, &c->volumes[i], /* with_read_only= */ true));
    return array;
}

char *record_container_encode(const struct container *c)
{
    bool volumes = container_has_more_volumes(c) || c->ended,
         extended = volumes || container_is_extended(c);
    struct record_writer w = record_begin(c->ended   ? RECORD_FORMAT_ENDED
                                          : volumes  ? RECORD_FORMAT_VOLUMES
                                          : extended ? RECORD_FORMAT_EXTENDED
                                                     : RECORD_FORMAT);

    record_set(&w, "name", json_string(c->name));
    record_set(&w, "revision", record_number(c->revision));
    record_set(&w, "created", record_number(c->created));
    record_set(&w, "node", record_id(&c->node));
    record_set(&w, "image", record_text(c->image));
    set_lists(&w, c);
    record_set(&w, "cpu_shares", record_number(c->cpu_shares));
    record_set(&w, "memory_limit", record_number(c->memory_limit));
    record_set(&w, "swappiness",
               c->swappiness == UINT32_MAX ? json_null() : record_number(c->swappiness));
    record_set(&w, "restart_policy", json_string(restart_policy_name(c->restart_policy)));
    record_set(&w, "maximum_retry_count", record_number(c->maximum_retry_count));
    if (c->ended)
        record_set(&w, "ended", json_boolean(c->ended));
    if (volumes)
        record_set(&w, "volumes", volumes_value(&w, c));
    else
        record_set(&w, "volume",
                   c->n_volumes ? volume_value(&w, c->volumes, /* with_read_only= */ false)
                                : json_null());
    if (extended)
        record_set(&w, "extended", extended_value(&w, c));
    return record_finish(&w);
}

static void get_ports(struct record_reader *r, struct container *c)
{
    json_t *array = record_get_typed(r, "ports", JSON_ARRAY, "a list");
    size_t i;
    json_t *v;

    c->ports = xcalloc(json_array_size(array), sizeof(*c->ports));
    json_array_foreach (array, i, v) {
        if (json_array_size(v) != 2) {
            record_wrong(r, "ports", "a list of pairs");
            break;
        }
        c->ports[i].internal =
            (uint16_t)record_value_number(r, "ports", json_array_get(v, 0), UINT16_MAX);
        c->ports[i].external =
            (uint16_t)record_value_number(r, "ports", json_array_get(v, 1), UINT16_MAX);
        c->n_ports++;
    }
    json_decref(array);
}

static void link_fields(struct record_reader *r, void *to)
{
    struct link *l = to;

    l->alias = record_get_text(r, "alias", false);
    l->local_port = (uint16_t)record_get_number(r, "local_port", UINT16_MAX);
    l->remote_port = (uint16_t)record_get_number(r, "remote_port", UINT16_MAX);
}

static void get_links(struct record_reader *r, struct container *c)
{
    json_t *array = record_get_typed(r, "links", JSON_ARRAY, "a list");
    size_t i;
    json_t *v;

    c->links = xcalloc(json_array_size(array), sizeof(*c->links));
    json_array_foreach (array, i, v) {
        record_get_part(r, "links", v, link_fields, &c->links[c->n_links++]);
    }
    json_decref(array);
}

/* What the caller gets is its own; *ret_n elements of it are whole, also when something is wrong. */
static struct env_entry *get_entries(struct record_reader *r, const char *key, size_t *ret_n)
{
    json_t *array = record_get_typed(r, key, JSON_ARRAY, "a list");
    struct env_entry *entries = xcalloc(json_array_size(array), sizeof(*entries));
    size_t i;
    json_t *v;

    json_array_foreach (array, i, v) {
        const char *name = json_string_value(json_array_get(v, 0));
        const char *value = json_string_value(json_array_get(v, 1));

        if (json_array_size(v) != 2 || !name || !value) {
            record_wrong(r, key, "a list of pairs of texts");
            break;
        }
        entries[(*ret_n)++] = (struct env_entry){.name = xstrdup(name), .value = xstrdup(value)};
    }
    json_decref(array);
    return entries;
}

/* Likewise. `ret_has` NULL: it must not be null. */
static char **get_strings(struct record_reader *r, const char *key, size_t *ret_n, bool *ret_has)
{
    json_t *array = record_take(r, key);
    const char *must = ret_has ? "a list of texts or null" : "a list of texts";
    char **strings = xcalloc(json_array_size(array), sizeof(*strings));
    size_t i;
    json_t *v;

    if (array && !json_is_array(array) && !(ret_has && json_is_null(array)))
        record_wrong(r, key, must);
    if (ret_has)
        *ret_has = json_is_array(array);
    json_array_foreach (array, i, v) {
        if (!json_is_string(v)) {
            record_wrong(r, key, must);
            break;
        }
        strings[(*ret_n)++] = xstrdup(json_string_value(v));
    }
    json_decref(array);
    return strings;
}

static void health_fields(struct record_reader *r, void *to)
{
    struct health_check *h = to;

    h->test = get_strings(r, "test", &h->n_test, NULL);
    h->disabled = record_get_bool(r, "disabled");
    h->interval_ms = record_get_number(r, "interval_ms", UINT64_MAX);
    h->timeout_ms = record_get_number(r, "timeout_ms", UINT64_MAX);
    h->start_period_ms = record_get_number(r, "start_period_ms", UINT64_MAX);
    h->retries = (uint32_t)record_get_number(r, "retries", UINT32_MAX);
}

static void get_health(struct record_reader *r, struct container *c)
{
    json_t *v = record_take(r, "health");

    if (v && !json_is_null(v)) {
        c->health = xcalloc(1, sizeof(*c->health));
        record_get_part(r, "health", v, health_fields, c->health);
    }
    json_decref(v);
}

static void get_dependencies(struct record_reader *r, struct container *c)
{
    size_t n = 0;
    struct env_entry *pairs = get_entries(r, "depends_on", &n);

    c->depends_on = xcalloc(n, sizeof(*c->depends_on));
    for (size_t i = 0; i < n; i++) {
        enum dependency_condition condition = dependency_condition_parse(pairs[i].value);

        if ((int)condition == DEPENDENCY_INVALID)
            record_wrong(r, "depends_on", "with \"started\", \"healthy\" or \"completed\"");
        free(pairs[i].value);
        c->depends_on[c->n_depends_on++] = (struct dependency){pairs[i].name, condition};
    }
    free(pairs);
}

static void extended_fields(struct record_reader *r, void *to)
{
    struct container *c = to;

    c->entrypoint = get_strings(r, "entrypoint", &c->n_entrypoint, &c->has_entrypoint);
    c->user = record_get_text(r, "user", true);
    c->working_dir = record_get_text(r, "working_dir", true);
    c->stop_signal = record_get_text(r, "stop_signal", true);
    c->stop_grace_ms = (uint32_t)record_get_number(r, "stop_grace_ms", UINT32_MAX);
    c->labels = get_entries(r, "labels", &c->n_labels);
    get_health(r, c);
    c->nano_cpus = record_get_number(r, "nano_cpus", UINT64_MAX);
    get_dependencies(r, c);
}

static void get_extended(struct record_reader *r, struct container *c)
{
    json_t *v = r->format < RECORD_FORMAT_EXTENDED ? NULL : record_take(r, "extended");

    if (v)
        record_get_part(r, "extended", v, extended_fields, c);
    json_decref(v);
}

static void volume_fields(struct record_reader *r, void *to)
{
    struct container_volume *v = to;

    v->dataset = record_get_id(r, "dataset", true);
    v->mountpoint = record_get_text(r, "mountpoint", false);
    if (r->format >= RECORD_FORMAT_VOLUMES)
        v->read_only = record_get_bool(r, "read_only");
}

/* As formats 1 and 2 have it: one, or none. */
static void get_volume(struct record_reader *r, struct container *c)
{
    json_t *v = record_take(r, "volume");

    if (v && !json_is_null(v)) {
        c->volumes = xcalloc(1, sizeof(*c->volumes));
        record_get_part(r, "volume", v, volume_fields, &c->volumes[c->n_volumes++]);
    }
    json_decref(v);
}

static void get_volumes(struct record_reader *r, struct container *c)
{
    json_t *array = record_get_typed(r, "volumes", JSON_ARRAY, "a list"), *v;
    size_t i;

    c->volumes = xcalloc(json_array_size(array), sizeof(*c->volumes));
    json_array_foreach (array, i, v) {
        record_get_part(r, "volumes", v, volume_fields, &c->volumes[c->n_volumes++]);
    }
    json_decref(array);
}

static void get_container_rest(struct record_reader *r, struct container *c)
{
    json_t *swappiness = record_take(r, "swappiness");
    CLEANUP_FREE char *policy = NULL;

    if (swappiness && !json_is_null(swappiness))
        c->swappiness = (uint32_t)record_value_number(r, "swappiness", swappiness, UINT32_MAX - 1);
    json_decref(swappiness);
    policy = record_get_text(r, "restart_policy", false);
    c->restart_policy = policy ? restart_policy_parse(policy) : RESTART_NEVER;
    if ((int)c->restart_policy == RESTART_POLICY_INVALID)
        record_wrong(r, "restart_policy", "\"never\", \"always\" or \"on-failure\"");
    c->maximum_retry_count = (uint32_t)record_get_number(r, "maximum_retry_count", UINT32_MAX);
    if (r->format >= RECORD_FORMAT_ENDED)
        c->ended = record_get_bool(r, "ended");
    if (r->format < RECORD_FORMAT_VOLUMES)
        get_volume(r, c);
    else
        get_volumes(r, c);
}

struct err *record_container_decode(const char *text, size_t n, struct container **ret)
{
    struct record_reader r;

    TRY(record_parse("container", RECORD_FORMAT_ENDED, text, n, &r));
    CLEANUP_FREE char *name = record_get_text(&r, "name", false);
    struct container *c = container_new(name ? name : "");
    c->revision = record_get_number(&r, "revision", UINT64_MAX);
    c->created = record_get_number(&r, "created", UINT64_MAX);
    c->node = record_get_id(&r, "node", true);
    c->image = record_get_text(&r, "image", true);
    get_ports(&r, c);
    get_links(&r, c);
    c->environment = get_entries(&r, "environment", &c->n_environment);
    c->command_line = get_strings(&r, "command_line", &c->n_command_line, &c->has_command_line);
    c->cpu_shares = (uint32_t)record_get_number(&r, "cpu_shares", UINT32_MAX);
    c->memory_limit = record_get_number(&r, "memory_limit", UINT64_MAX);
    get_container_rest(&r, c);
    get_extended(&r, c);
    struct err *e = record_parse_end(&r);
    if (e) {
        container_free(c);
        return e;
    }
    *ret = c;
    return NULL;
}
