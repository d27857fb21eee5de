#include "model/json.h"

#include "base/now.h"

#include <inttypes.h>
#include <stdio.h>

/* Depth is counted before jansson recurses into the text. Brackets inside strings do not count. */
static bool too_deep(const char *text, size_t n)
{
    bool in_string = false;
    int depth = 0;

    for (size_t i = 0; i < n; i++) {
        if (in_string) {
            if (text[i] == '\\')
                i++;
            else if (text[i] == '"')
                in_string = false;
        } else if (text[i] == '"') {
            in_string = true;
        } else if (text[i] == '[' || text[i] == '{') {
            if (++depth > JSON_MAX_DEPTH)
                return true;
        } else if (text[i] == ']' || text[i] == '}') {
            depth--;
        }
    }
    return false;
}

void json_setup(void)
{
    json_set_alloc_funcs(xmalloc, free);
}

struct err *json_parse(const char *text, size_t n, json_t **ret)
{
    json_error_t e;

    if (memchr(text, '\0', n)) /* jansson takes one for the end of the text */
        return err_new(ERR_INVALID, "not JSON: it has a NUL byte");
    if (too_deep(text, n))
        return err_new(ERR_INVALID, "JSON nested deeper than %d", JSON_MAX_DEPTH);
    json_t *v = json_loadb(text, n, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
    if (!v)
        return err_new(ERR_INVALID, "not JSON: %s (line %d, column %d)", e.text, e.line, e.column);
    *ret = v;
    return NULL;
}

static int append_part(const char *bytes, size_t n, void *cookie)
{
    str_append_bytes(cookie, bytes, n);
    return 0;
}

static void append_escape(struct str *s, char c)
{
    static const char names[] = "b\bn\nf\fr\rt\t\"\"\\\\";

    for (const char *p = names; *p; p += 2) {
        if (p[1] == c) {
            str_append_bytes(s, (char[]){'\\', *p}, 2);
            return;
        }
    }
    str_appendf(s, "\\u%04x", (unsigned)c);
}

static void append_text(struct str *s, const char *text, size_t n)
{
    const char *from = text, *end = text + n;

    str_append_bytes(s, "\"", 1);
    for (const char *p = text; p < end; p++) {
        if ((unsigned char)*p >= 0x20 && *p != '"' && *p != '\\')
            continue;
        str_append_bytes(s, from, (size_t)(p - from));
        from = p + 1;
        append_escape(s, *p);
    }
    str_append_bytes(s, from, (size_t)(end - from));
    str_append_bytes(s, "\"", 1);
}

static void append_integer(struct str *s, json_int_t v)
{
    char text[24], *p = text + sizeof(text);
    uint64_t left = v < 0 ? -(uint64_t)v : (uint64_t)v;

    do
        *--p = (char)('0' + left % 10);
    while ((left /= 10));
    if (v < 0)
        *--p = '-';
    str_append_bytes(s, p, (size_t)(text + sizeof(text) - p));
}

static void append_object(struct str *s, const json_t *v)
{
    const char *separator = "{";

    for (void *i = json_object_iter((json_t *)v); i; i = json_object_iter_next((json_t *)v, i)) {
        str_append_bytes(s, separator, 1);
        append_text(s, json_object_iter_key(i), json_object_iter_key_len(i));
        str_append_bytes(s, ":", 1);
        json_append(s, json_object_iter_value(i));
        separator = ",";
    }
    str_append(s, *separator == '{' ? "{}" : "}");
}

static void append_array(struct str *s, const json_t *v)
{
    str_append_bytes(s, "[", 1);
    for (size_t i = 0; i < json_array_size(v); i++) {
        if (i)
            str_append_bytes(s, ",", 1);
        json_append(s, json_array_get(v, i));
    }
    str_append_bytes(s, "]", 1);
}

/* As few as tell the number from its neighbours: 0.991027 is written as people would, not with 17 digits. */
static size_t digits_of(double v)
{
    char text[32];

    for (int digits = 15; digits < 17; digits++) {
        (void)snprintf(text, sizeof(text), "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            return (size_t)digits;
    }
    return 17;
}

/* jansson's own writer takes three times as long: it calls back for each piece of a text, and looks for loops, which our
 * values do not have. The numbers with a fraction are left to it. */
void json_append(struct str *s, const json_t *v)
{
    switch (json_typeof(v)) {
    case JSON_OBJECT:
        append_object(s, v);
        break;
    case JSON_ARRAY:
        append_array(s, v);
        break;
    case JSON_STRING:
        append_text(s, json_string_value(v), json_string_length(v));
        break;
    case JSON_INTEGER:
        append_integer(s, json_integer_value(v));
        break;
    case JSON_TRUE:
        str_append(s, "true");
        break;
    case JSON_FALSE:
        str_append(s, "false");
        break;
    case JSON_NULL:
        str_append(s, "null");
        break;
    case JSON_REAL:
        if (json_dump_callback(v, append_part, s, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(digits_of(json_real_value(v)))) != 0)
            mem_exhausted();
        break;
    }
}

/* As json_object_set_new; a value that cannot be made (a text that is not UTF-8) becomes null, so
 * that one odd byte can never take a key, or the whole answer, away. */
static void set(json_t *object, const char *key, json_t *value)
{
    (void)json_object_set_new(object, key, value ? value : json_null());
}

json_t *json_text(const char *s)
{
    json_t *v = s ? json_string(s) : json_null();

    if (v)
        return v;
    CLEANUP_FREE char *copy = xstrdup(s);
    for (char *p = copy; *p; p++)
        *p = (char)((unsigned char)*p < 0x80 ? *p : '?');
    return json_string(copy);
}

json_t *json_uuid(const struct uuid *u)
{
    return json_string(UUID_STR(u));
}

json_t *json_uuid_or_null(const struct uuid *u)
{
    return uuid_is_nil(u) ? json_null() : json_uuid(u);
}

json_t *json_metadata(const struct metadata *m)
{
    json_t *o = json_object();

    for (size_t i = 0; i < m->n; i++)
        set(o, m->entries[i].key, json_string(m->entries[i].value));
    return o;
}

void json_append_string(struct str *s, const char *text)
{
    append_text(s, text, strlen(text));
}

void json_append_dataset(struct str *s, const struct dataset *d)
{
    str_append(s, "{\"dataset_id\":\"");
    str_append(s, UUID_STR(&d->id));
    str_append(s, "\",\"primary\":\"");
    str_append(s, UUID_STR(&d->primary));
    str_append(s, d->deleted ? "\",\"deleted\":true,\"metadata\":{"
                             : "\",\"deleted\":false,\"metadata\":{");
    for (size_t i = 0; i < d->metadata.n; i++) {
        if (i)
            str_append_bytes(s, ",", 1);
        json_append_string(s, d->metadata.entries[i].key);
        str_append_bytes(s, ":", 1);
        json_append_string(s, d->metadata.entries[i].value);
    }
    str_append_bytes(s, "}", 1);
    if (d->maximum_size)
        str_appendf(s, ",\"maximum_size\":%" PRIu64, d->maximum_size);
    str_append_bytes(s, "}", 1);
}

static json_t *ports(const struct container *c)
{
    json_t *list = json_array();

    for (size_t i = 0; i < c->n_ports; i++) {
        json_t *o = json_object();

        set(o, "internal", json_integer(c->ports[i].internal));
        set(o, "external", json_integer(c->ports[i].external));
        (void)json_array_append_new(list, o);
    }
    return list;
}

static json_t *links(const struct container *c)
{
    json_t *list = json_array();

    for (size_t i = 0; i < c->n_links; i++) {
        json_t *o = json_object();

        set(o, "alias", json_string(c->links[i].alias));
        set(o, "local_port", json_integer(c->links[i].local_port));
        set(o, "remote_port", json_integer(c->links[i].remote_port));
        (void)json_array_append_new(list, o);
    }
    return list;
}

json_t *json_container_volumes(const struct container *c)
{
    json_t *list = json_array();

    for (size_t i = 0; i < c->n_volumes; i++) {
        json_t *o = json_object();

        set(o, "dataset_id", json_uuid(&c->volumes[i].dataset));
        set(o, "mountpoint", json_string(c->volumes[i].mountpoint));
        if (c->volumes[i].read_only)
            set(o, "read_only", json_true());
        (void)json_array_append_new(list, o);
    }
    return list;
}

static json_t *entries(const struct env_entry *e, size_t n)
{
    json_t *o = json_object();

    for (size_t i = 0; i < n; i++)
        set(o, e[i].name, json_string(e[i].value));
    return o;
}

static json_t *strings(char *const *s, size_t n)
{
    json_t *list = json_array();

    for (size_t i = 0; i < n; i++)
        (void)json_array_append_new(list, json_string(s[i]));
    return list;
}

/* A whole number where it is one. */
static json_t *quotient(uint64_t v, uint64_t by)
{
    return v % by ? json_real((double)v / (double)by) : json_integer((json_int_t)(v / by));
}

static json_t *health(const struct health_check *h)
{
    json_t *o = json_object();

    if (h->n_test)
        set(o, "test", strings(h->test, h->n_test));
    if (h->disabled)
        set(o, "disable", json_true());
    if (h->interval_ms)
        set(o, "interval", quotient(h->interval_ms, MSEC_PER_SEC));
    if (h->timeout_ms)
        set(o, "timeout", quotient(h->timeout_ms, MSEC_PER_SEC));
    if (h->start_period_ms)
        set(o, "start_period", quotient(h->start_period_ms, MSEC_PER_SEC));
    if (h->retries)
        set(o, "retries", json_integer(h->retries));
    return o;
}

static json_t *dependencies(const struct container *c)
{
    json_t *list = json_array();

    for (size_t i = 0; i < c->n_depends_on; i++) {
        json_t *o = json_object();

        set(o, "name", json_string(c->depends_on[i].name));
        set(o, "condition", json_string(dependency_condition_name(c->depends_on[i].condition)));
        (void)json_array_append_new(list, o);
    }
    return list;
}

static void set_extended(json_t *o, const struct container *c)
{
    if (c->has_entrypoint)
        set(o, "entrypoint", strings(c->entrypoint, c->n_entrypoint));
    if (c->user)
        set(o, "user", json_string(c->user));
    if (c->working_dir)
        set(o, "working_dir", json_string(c->working_dir));
    if (c->stop_signal)
        set(o, "stop_signal", json_string(c->stop_signal));
    if (c->stop_grace_ms)
        set(o, "stop_grace_period", quotient(c->stop_grace_ms, MSEC_PER_SEC));
    if (c->n_labels)
        set(o, "labels", entries(c->labels, c->n_labels));
    if (c->health)
        set(o, "healthcheck", health(c->health));
    if (c->nano_cpus)
        set(o, "cpus", quotient(c->nano_cpus, NANO_CPUS));
    if (c->n_depends_on)
        set(o, "depends_on", dependencies(c));
}

static json_t *restart_policy(const struct container *c)
{
    json_t *o = json_object();

    set(o, "name", json_string(restart_policy_name(c->restart_policy)));
    if (c->restart_policy == RESTART_ON_FAILURE && c->maximum_retry_count)
        set(o, "maximum_retry_count", json_integer(c->maximum_retry_count));
    return o;
}

json_t *json_container_configuration(const struct container *c)
{
    json_t *o = json_object();

    set(o, "node_uuid", json_uuid(&c->node));
    set(o, "name", json_string(c->name));
    set(o, "image", json_string(c->image));
    if (c->n_ports)
        set(o, "ports", ports(c));
    if (c->n_volumes)
        set(o, "volumes", json_container_volumes(c));
    if (c->n_environment)
        set(o, "environment", entries(c->environment, c->n_environment));
    if (c->n_links)
        set(o, "links", links(c));
    if (c->cpu_shares)
        set(o, "cpu_shares", json_integer(c->cpu_shares));
    if (c->memory_limit)
        set(o, "memory_limit", json_integer((json_int_t)c->memory_limit));
    if (c->has_command_line)
        set(o, "command_line", strings(c->command_line, c->n_command_line));
    set(o, "restart_policy", restart_policy(c)); /* swappiness is never echoed */
    set_extended(o, c);
    return o;
}

json_t *json_lease(const struct lease *l, int64_t left_us)
{
    json_t *o = json_object();

    set(o, "dataset_id", json_uuid(&l->dataset));
    set(o, "node_uuid", json_uuid(&l->node));
    set(o, "expires", l->expires ? json_real((double)left_us / USEC_PER_SEC) : json_null());
    return o;
}

static json_t *seconds(uint64_t us)
{
    return json_real((double)us / USEC_PER_SEC);
}

json_t *json_lease_state(const struct lease *l, int64_t left_us)
{
    json_t *o = json_lease(l, left_us);

    set(o, "acquired", json_boolean(l->acquired));
    set(o, "since", l->since_us ? seconds(l->since_us) : json_null());
    set(o, "mounts", strings(l->mounts, l->n_mounts));
    return o;
}

json_t *json_replica(const struct replica *p)
{
    if (!p)
        return json_null();
    json_t *o = json_object();
    set(o, "node", json_uuid(&p->node));
    set(o, "snapshot", json_string(p->base));
    set(o, "until", seconds(p->until_us));
    return o;
}

json_t *json_reason(const struct reason *r)
{
    if (r->code == REASON_NONE)
        return json_null();
    json_t *o = json_object();
    set(o, "code", json_string(reason_code_name(r->code)));
    set(o, "text", json_text(r->text ? r->text : reason_code_name(r->code)));
    set(o, "since", seconds(r->since_us));
    set(o, "next_try", r->retry_us ? seconds(r->retry_us) : json_null());
    set(o, "advice", json_string(reason_advice(r->code)));
    return o;
}
