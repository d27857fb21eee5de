/* Compose files (the Compose specification), as far as a cluster can have what they say. What it cannot have is named, with
 * its path. What needs the user's machine (variables, env_file) was done there before: cli/deploy_files.c. */
#include "model/compose_private.h"

#include <limits.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define MAX_PORTS 1000u /* of one range */

/* "services.web.ports: ..." */
static char *wrong(const struct application *a, const char *key, const char *format, ...) PRINTF_LIKE(3, 4);

static char *wrong(const struct application *a, const char *key, const char *format, ...)
{
    CLEANUP_FREE char *text = NULL;
    va_list args;

    va_start(args, format);
    if (vasprintf(&text, format, args) < 0)
        mem_exhausted();
    va_end(args);
    return xasprintf("services.%s.%s: %s", a->name, key, text);
}

/* ---- what is not supported ---- */

#define MAX_NAMED 30u

static const struct {
    const char *key, *instead;
} instead_of[] = {
    {"build", "no images are built here: name one under image"},
    {"networks", "services reach each other by links and by ports"},
    {"network_mode", "services reach each other by links and by ports"},
    {"expose", "publish the port under ports; links lead to it"},
    {"container_name", "containers are called as their services"},
    {"env_file", "flocker-deploy reads it and posts its variables"},
    {"replicas", "a service is one container; write another service"},
    {"restart_policy", "use restart"},
    {"external", "x-flocker-dataset-id names a dataset that is there"},
};

static const char *advice_on(const char *key)
{
    for (size_t i = 0; i < ARRAY_SIZE(instead_of); i++) {
        if (streq(instead_of[i].key, key))
            return instead_of[i].instead;
    }
    return NULL;
}

static void note_unsupported(struct applications *all, const char *where, const char *key)
{
    const char *advice = advice_on(key);

    if (++all->n_unsupported > MAX_NAMED)
        return;
    str_appendf(&all->unsupported, "%s%s%s%s", all->n_unsupported > 1 ? ", " : "", where, *where ? "." : "", key);
    if (advice)
        str_appendf(&all->unsupported, " (%s)", advice);
}

/* Notes the keys that are none of these, and no extensions. */
static void note_others(struct applications *all, const char *where, const json_t *object, const char *const *known)
{
    const char *key;
    json_t *value;

    json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
        const char *const *p = known;
        while (*p && !streq(*p, key))
            p++;
        if (!*p && strncmp(key, "x-", 2) != 0)
            note_unsupported(all, where, key);
    }
}

char *services_unsupported(struct applications *all)
{
    size_t more = all->n_unsupported > MAX_NAMED ? all->n_unsupported - MAX_NAMED : 0;

    if (!all->n_unsupported)
        return NULL;
    if (more)
        str_appendf(&all->unsupported, " and %zu more", more);
    return xasprintf("%s %s not supported.", all->unsupported.data, all->n_unsupported > 1 ? "are" : "is");
}

/* ---- values ---- */

/* A text, number or boolean as text; NULL for anything else. */
static char *scalar_text(const json_t *v)
{
    if (json_is_object(v) || json_is_array(v) || json_is_null(v) || !v)
        return NULL;
    return shown(v);
}

/* Interpolation makes texts of numbers. */
static bool take_integer(const json_t *v, json_int_t *ret)
{
    const char *text = json_string_value(v);
    char *end;

    if (json_is_integer(v)) {
        *ret = json_integer_value(v);
        return true;
    }
    if (!text || *text < '0' || *text > '9' || strlen(text) > 15)
        return false;
    *ret = strtoll(text, &end, 10);
    return !*end;
}

static bool take_boolean(const json_t *v, bool *ret)
{
    const char *text = json_string_value(v);

    *ret = json_is_true(v) || (text && streq(text, "true"));
    return *ret || json_is_false(v) || (text && streq(text, "false"));
}

/* "512m", "1.5gb", 1073741824. */
static bool take_bytes(const json_t *v, json_int_t *ret)
{
    CLEANUP_FREE char *text = scalar_text(v);
    const char *end;
    long double size;

    if (!text || json_is_boolean(v) || !compose_quantity(text, &end, &size))
        return false;
    if (end > text && end[-1] > '9' && (*end == 'i' || *end == 'I'))
        end++;
    if (*end == 'b' || *end == 'B')
        end++;
    if (*end || size > (long double)INT64_MAX)
        return false;
    *ret = (json_int_t)ceill(size);
    return true;
}

/* "1m30s", "1.5s", "500ms": seconds. */
static bool take_duration(const json_t *v, double *ret)
{
    static const struct {
        const char *name;
        double seconds;
    } units[] = {{"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9}, {"h", 3600}, {"m", 60}, {"s", 1}};
    const char *p = json_string_value(v);
    double sum = 0;

    if (!p || !*p)
        return false;
    while (*p) {
        double number = 0, digit = 1;
        const char *start = p;
        for (; *p >= '0' && *p <= '9'; p++)
            number = number * 10 + (*p - '0');
        for (p += *p == '.'; *p >= '0' && *p <= '9'; p++)
            number += (*p - '0') * (digit /= 10);
        size_t i = 0;
        while (i < ARRAY_SIZE(units) && strncmp(p, units[i].name, strlen(units[i].name)) != 0)
            i++;
        if (p == start || i == ARRAY_SIZE(units))
            return false;
        sum += number * units[i].seconds;
        p += strlen(units[i].name);
    }
    *ret = sum;
    return isfinite(sum);
}

/* One word of a command line as a shell would take it; NULL when a quote does not end. */
static const char *take_word(const char *p, struct str *word)
{
    char quote = 0;

    for (; *p && (quote || !strchr(" \t\n", *p)); p++) {
        if (quote && *p == quote)
            quote = 0;
        else if (!quote && (*p == '\'' || *p == '"'))
            quote = *p;
        else if (*p == '\\' && quote != '\'' && p[1] && (!quote || strchr("\"\\$`", p[1])))
            str_append_bytes(word, ++p, 1);
        else
            str_append_bytes(word, p, 1);
    }
    return quote ? NULL : p;
}

static json_t *split_words(const char *text)
{
    json_t *list = json_array();

    for (text += strspn(text, " \t\n"); *text; text += strspn(text, " \t\n")) {
        CLEANUP_STR struct str word = {0};
        text = take_word(text, &word);
        if (!text) {
            json_decref(list);
            return NULL;
        }
        (void)json_array_append_new(list, json_stringn(word.data ? word.data : "", word.len));
    }
    return list;
}

/* A list of texts, or one text that is split as a shell would; NULL when it is neither. */
static json_t *take_command(const json_t *v)
{
    const json_t *item;
    size_t i;

    if (json_is_string(v))
        return split_words(json_string_value(v));
    if (!json_is_array(v))
        return NULL;
    json_t *list = json_array();
    json_array_foreach (v, i, item) {
        CLEANUP_FREE char *text = scalar_text(item);
        if (!text) {
            json_decref(list);
            return NULL;
        }
        (void)json_array_append_new(list, json_string(text));
    }
    return list;
}

/* ---- keys of a service ---- */

typedef char *service_key_fn(struct applications *all, struct application *a, const char *key, const json_t *v);

static void set(struct application *a, const char *key, json_t *value)
{
    (void)json_object_set_new(a->body, key, value);
}

static char *parse_image(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    (void)all;
    if (!json_is_string(v))
        return wrong(a, key, "must be a text");
    return take_image(a, json_string_value(v));
}

static char *parse_command(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    json_t *list = json_is_null(v) ? NULL : take_command(v);

    (void)all;
    if (json_is_null(v)) /* the image's own */
        return NULL;
    if (!list)
        return wrong(a, key, "must be a text whose quotes end, or a list of texts");
    set(a, streq(key, "command") ? "command_line" : "entrypoint", list);
    return NULL;
}

/* A map, or a list of "NAME=VALUE", as a map of texts. */
static char *take_pairs(const struct application *a, const char *key, const json_t *v, json_t *to)
{
    const json_t *item;
    const char *name;
    size_t i;

    if (!json_is_object(v) && !json_is_array(v))
        return wrong(a, key, "must be a dictionary or a list of NAME=VALUE");
    json_object_foreach ((json_t *)(uintptr_t)v, name, item) {
        CLEANUP_FREE char *text = scalar_text(item);
        if (!text && !json_is_null(item))
            return wrong(a, key, "the value of '%s' must be a text", name);
        if (!text && streq(key, "environment"))
            return wrong(a, key, "'%s' has no value; flocker-deploy takes it from its own environment", name);
        (void)json_object_set_new(to, name, json_string(text ? text : ""));
    }
    json_array_foreach (v, i, item) {
        const char *text = json_string_value(item), *equals = text ? strchr(text, '=') : NULL;
        if (!text || (!equals && streq(key, "environment")))
            return wrong(a, key, "'%s' must be NAME=VALUE", text ? text : "a value that is no text");
        CLEANUP_FREE char *left = equals ? xstrndup(text, (size_t)(equals - text)) : xstrdup(text);
        (void)json_object_set_new(to, left, json_string(equals ? equals + 1 : ""));
    }
    return NULL;
}

static char *parse_pairs(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    json_t *to = json_object();
    char *text = json_is_null(v) ? NULL : take_pairs(a, key, v, to);

    (void)all;
    if (!text && json_object_size(to))
        (void)json_object_set(a->body, key, to);
    json_decref(to);
    return text;
}

static char *parse_text(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    CLEANUP_FREE char *text = json_is_boolean(v) ? NULL : scalar_text(v);

    (void)all;
    if (!text)
        return wrong(a, key, "must be a text");
    set(a, key, json_string(text));
    return NULL;
}

static char *parse_grace(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    double seconds;

    (void)all;
    if (!take_duration(v, &seconds))
        return wrong(a, key, "must be a duration, such as 30s or 1m30s");
    set(a, key, json_real(seconds));
    return NULL;
}

static char *parse_memory(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    json_int_t bytes;

    (void)all;
    if (!take_bytes(v, &bytes))
        return wrong(a, key, "must be a number of bytes, such as 512m");
    if (json_object_get(a->body, "memory_limit"))
        return wrong(a, key, "the limit is given twice, as mem_limit and under deploy.resources.limits");
    if (bytes)
        set(a, "memory_limit", json_integer(bytes));
    return NULL;
}

static char *parse_cpus(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    CLEANUP_FREE char *text = json_is_boolean(v) ? NULL : scalar_text(v);
    char *end = NULL;
    double n = text && *text >= '0' && *text <= '9' ? strtod(text, &end) : 0;

    (void)all;
    if (!end || *end || !isfinite(n))
        return wrong(a, key, "must be a number of processors, such as 0.5");
    if (json_object_get(a->body, "cpus"))
        return wrong(a, key, "the limit is given twice, as cpus and under deploy.resources.limits");
    if (n > 0)
        set(a, "cpus", json_real(n));
    return NULL;
}

static char *parse_shares(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    json_int_t n;

    (void)all;
    if (!take_integer(v, &n))
        return wrong(a, key, "must be a whole number");
    if (n)
        set(a, key, json_integer(n));
    return NULL;
}

static char *parse_deploy(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    static const char *const known[] = {"resources", NULL}, *const kinds[] = {"limits", NULL},
                             *const limits[] = {"memory", "cpus", NULL};
    CLEANUP_FREE char *where = xasprintf("services.%s.deploy", a->name);
    CLEANUP_FREE char *deeper = xasprintf("%s.resources", where);
    CLEANUP_FREE char *deepest = xasprintf("%s.limits", deeper);
    const json_t *resources = json_object_get(v, "resources"), *all_limits = json_object_get(resources, "limits");

    if (!json_is_object(v) || (resources && !json_is_object(resources)) || (all_limits && !json_is_object(all_limits)))
        return wrong(a, key, "must be a dictionary of dictionaries");
    note_others(all, where, v, known);
    note_others(all, deeper, resources, kinds);
    note_others(all, deepest, all_limits, limits);
    const json_t *memory = json_object_get(all_limits, "memory"), *cpus = json_object_get(all_limits, "cpus");
    char *text = memory ? parse_memory(all, a, "deploy.resources.limits.memory", memory) : NULL;
    return text || !cpus ? text : parse_cpus(all, a, "deploy.resources.limits.cpus", cpus);
}

/* Nobody but Flocker stops its containers: what runs until it is stopped runs always. */
static char *parse_restart(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    const char *text = json_string_value(v), *count;
    json_int_t n = 0;

    (void)all;
    if (json_is_false(v)) /* no, as YAML 1.1 has it */
        text = "no";
    if (!text)
        return wrong(a, key, "must be a text");
    if (streq(text, "no")) {
        set(a, "restart_policy", json_pack("{s:s}", "name", "never"));
        return NULL;
    }
    if (streq(text, "always") || streq(text, "unless-stopped")) {
        set(a, "restart_policy", json_pack("{s:s}", "name", "always"));
        return NULL;
    }
    count = strncmp(text, "on-failure", 10) == 0 ? text + 10 : "?";
    json_t *number = *count == ':' ? json_string(count + 1) : NULL;
    bool fits = !*count || (number && take_integer(number, &n) && n > 0);
    json_decref(number);
    if (!fits)
        return wrong(a, key, "'%s' is none of no, always, on-failure, on-failure:TIMES, unless-stopped", text);
    json_t *policy = json_pack("{s:s}", "name", "on-failure");
    if (n)
        (void)json_object_set_new(policy, "maximum_retry_count", json_integer(n));
    set(a, "restart_policy", policy);
    return NULL;
}

/* ---- ports ---- */

static char *add_port(struct applications *all, struct application *a, json_int_t internal, json_int_t external)
{
    json_t *ports = json_object_get(a->body, "ports");

    if (internal < 1 || internal > UINT16_MAX || external < 1 || external > UINT16_MAX)
        return wrong(a, "ports", "%lld:%lld: a port is from 1 to 65535", (long long)external, (long long)internal);
    if (++all->n_ports > UINT16_MAX) /* a short text of ranges makes many */
        return wrong(a, "ports", "the file publishes more ports than there are");
    if (!ports) {
        ports = json_array();
        set(a, "ports", ports);
    }
    (void)json_array_append_new(ports, json_pack("{s:I, s:I}", "internal", internal, "external", external));
    return NULL;
}

struct range {
    json_int_t first, last;
};

static bool take_range(const char *text, size_t n, struct range *ret)
{
    CLEANUP_FREE char *copy = xstrndup(text, n);
    char *end;

    if (*copy < '0' || *copy > '9' || n > 11)
        return false;
    ret->first = ret->last = strtoll(copy, &end, 10);
    if (*end == '-' && end[1] >= '0' && end[1] <= '9')
        ret->last = strtoll(end + 1, &end, 10);
    return !*end && ret->last >= ret->first;
}

static char *add_ranges(struct applications *all, struct application *a, const char *shown_port,
                        const struct range *external, const struct range *internal)
{
    json_int_t n = internal->last - internal->first;

    if (external->last - external->first != n)
        return wrong(a, "ports", "'%s': both ranges must be equally long", shown_port);
    if (n >= MAX_PORTS)
        return wrong(a, "ports", "'%s': a range has at most %u ports", shown_port, MAX_PORTS);
    for (json_int_t i = 0; i <= n; i++) {
        char *text = add_port(all, a, internal->first + i, external->first + i);
        if (text)
            return text;
    }
    return NULL;
}

static char *check_protocol(const struct application *a, const char *shown_port, const char *protocol)
{
    return streq(protocol, "tcp")
               ? NULL
               : wrong(a, "ports", "'%s': the protocol %s is not supported, only tcp is", shown_port, protocol);
}

/* "8080:80", "8000-8002:80-82/tcp" */
static char *short_port(struct applications *all, struct application *a, const char *text)
{
    const char *slash = strchr(text, '/'), *colon = strchr(text, ':');
    struct range external, internal;

    char *error = slash ? check_protocol(a, text, slash + 1) : NULL;
    if (error)
        return error;
    size_t n = slash ? (size_t)(slash - text) : strlen(text);
    if (!colon && take_range(text, n, &internal))
        return wrong(a, "ports", "'%s' does not say on which port of the nodes; write '%.*s:%.*s'", text, (int)n, text,
                     (int)n, text);
    if (colon && strchr(colon + 1, ':'))
        return wrong(a, "ports", "'%s': host_ip is not supported: a port answers on all nodes", text);
    if (!colon || !take_range(text, (size_t)(colon - text), &external) ||
        !take_range(colon + 1, n - (size_t)(colon + 1 - text), &internal))
        return wrong(a, "ports", "'%s' must be PUBLISHED:TARGET, such as 8080:80", text);
    return add_ranges(all, a, text, &external, &internal);
}

static char *long_port(struct applications *all, struct application *a, const json_t *v)
{
    static const char *const known[] = {"target", "published", "protocol", "mode", NULL};
    CLEANUP_FREE char *where = xasprintf("services.%s.ports", a->name);
    CLEANUP_FREE char *port = shown(v);
    CLEANUP_FREE char *published = scalar_text(json_object_get(v, "published"));
    CLEANUP_FREE char *protocol = scalar_text(json_object_get(v, "protocol"));
    CLEANUP_FREE char *mode = scalar_text(json_object_get(v, "mode"));
    struct range external, internal;

    note_others(all, where, v, known);
    char *error = protocol ? check_protocol(a, port, protocol) : NULL;
    if (error)
        return error;
    if (mode && !streq(mode, "ingress"))
        return wrong(a, "ports", "'%s': the mode %s is not supported: a port answers on all nodes, as with ingress", port, mode);
    if (!take_integer(json_object_get(v, "target"), &internal.first))
        return wrong(a, "ports", "'%s': target must be a port", port);
    internal.last = internal.first;
    if (!published)
        return wrong(a, "ports", "'%s' does not say on which port of the nodes; add published", port);
    if (!take_range(published, strlen(published), &external))
        return wrong(a, "ports", "'%s': published must be a port", port);
    return add_ranges(all, a, port, &external, &internal);
}

static char *parse_ports(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    const json_t *item;
    size_t i;

    if (!json_is_array(v))
        return wrong(a, key, "must be a list");
    json_array_foreach (v, i, item) {
        CLEANUP_FREE char *plain = scalar_text(item);
        char *text = json_is_object(item) ? long_port(all, a, item) : short_port(all, a, plain ? plain : "");
        if (text)
            return text;
    }
    return NULL;
}

/* ---- volumes ---- */

#define ID_PREFIX "compose-volume:" /* not the ids of applications of the other formats */

static char *volume_size(const char *name, const json_t *v, json_int_t *ret)
{
    const json_t *own = json_object_get(v, "x-flocker-size"),
                 *option = json_object_get(json_object_get(v, "driver_opts"), "size");

    if (own && option)
        return xasprintf("volumes.%s: the size is given twice, as x-flocker-size and under driver_opts", name);
    if (!own && !option)
        return NULL;
    if (!take_bytes(own ? own : option, ret))
        return xasprintf("volumes.%s: the size must be a number of bytes, such as 10G", name);
    if (*ret < (json_int_t)DATASET_MIN_SIZE)
        return xasprintf("volumes.%s: the size must be at least %u bytes", name, DATASET_MIN_SIZE);
    if (*ret > INT64_MAX - (json_int_t)DATASET_SIZE_STEP)
        return xasprintf("volumes.%s: the size is too large", name);
    *ret = (*ret + (json_int_t)DATASET_SIZE_STEP - 1) / (json_int_t)DATASET_SIZE_STEP * (json_int_t)DATASET_SIZE_STEP;
    return NULL;
}

static char *volume_id(const char *name, const json_t *v, const char *full, struct uuid *ret)
{
    const json_t *given = json_object_get(v, "x-flocker-dataset-id");
    CLEANUP_FREE char *seed = xasprintf(ID_PREFIX "%s", full);

    *ret = compose_dataset_id(seed);
    if (given && (!json_is_string(given) || !uuid_parse_v4(json_string_value(given), ret)))
        return xasprintf("volumes.%s.x-flocker-dataset-id: must be a version 4 UUID", name);
    return NULL;
}

static char *check_driver(const char *name, const json_t *v)
{
    CLEANUP_FREE char *driver = scalar_text(json_object_get(v, "driver"));

    if (!driver || streq(driver, "flocker") || streq(driver, "local"))
        return NULL;
    return xasprintf("volumes.%s.driver: '%s' is not supported; leave it out, or say flocker", name, driver);
}

/* Its dataset, with "id", "size" and "name", goes to all->volumes. */
static char *declare_volume(struct applications *all, const char *project, const char *name, const json_t *v)
{
    static const char *const known[] = {"name", "driver", "driver_opts", NULL}, *const options[] = {"size", NULL};
    CLEANUP_FREE char *where = xasprintf("volumes.%s", name);
    CLEANUP_FREE char *deeper = xasprintf("volumes.%s.driver_opts", name);
    CLEANUP_FREE char *own = scalar_text(json_object_get(v, "name"));
    CLEANUP_FREE char *full = own ? xstrdup(own) : xasprintf("%s%s%s", project, *project ? "_" : "", name);
    json_int_t size = 0;
    struct uuid id;

    if (v && !json_is_object(v) && !json_is_null(v))
        return xasprintf("%s: must be a dictionary", where);
    const json_t *opts = json_object_get(v, "driver_opts");
    if (opts && !json_is_object(opts) && !json_is_null(opts))
        return xasprintf("%s: must be a dictionary", deeper);
    note_others(all, where, v, known);
    note_others(all, deeper, opts, options);
    if (!*full || strlen(full) > 256)
        return xasprintf("%s: the name of a volume, with the project's, has from 1 to 256 bytes", where);
    char *text = check_driver(name, v);
    if (!text)
        text = volume_size(name, v, &size);
    if (!text)
        text = volume_id(name, v, full, &id);
    if (text)
        return text;
    (void)json_object_set_new(all->volumes, name,
                              json_pack("{s:s, s:I, s:s}", "id", UUID_STR(&id), "size", size, "name", full));
    return NULL;
}

static char *declare_volumes(struct applications *all, const json_t *file)
{
    const json_t *volumes = json_object_get(file, "volumes");
    const char *project = json_string_value(json_object_get(file, "name")), *name;
    json_t *v;

    all->volumes = json_object();
    if (volumes && !json_is_object(volumes) && !json_is_null(volumes))
        return xstrdup("volumes: must be a dictionary");
    json_object_foreach ((json_t *)(uintptr_t)volumes, name, v) {
        char *text = declare_volume(all, project ? project : "", name, v);
        if (text)
            return text;
    }
    return NULL;
}

static char *mount_volume(struct applications *all, struct application *a, const char *name, const char *target,
                          bool read_only)
{
    json_t *volume = json_object_get(all->volumes, name);
    const char *user = json_string_value(json_object_get(volume, "user"));
    struct uuid id;

    if (!volume)
        return wrong(a, "volumes", "'%s' is not among the volumes at the top level of the file", name);
    if (user)
        return wrong(a, "volumes", "'%s' is mounted by services.%s already; a dataset is in one container only", name, user);
    if (*target != '/')
        return wrong(a, "volumes", "'%s' is not an absolute path", target);
    (void)json_object_set_new(volume, "user", json_string(a->name));
    (void)uuid_parse(json_string_value(json_object_get(volume, "id")), &id);
    take_volume(a, &(struct volume_wish){.dataset = id,
                                         .name = json_string_value(json_object_get(volume, "name")),
                                         .mountpoint = target,
                                         .maximum_size = (uint64_t)json_integer_value(json_object_get(volume, "size")),
                                         .read_only = read_only});
    return NULL;
}

/* "data:/path", "data:/path:ro" */
static char *short_volume(struct applications *all, struct application *a, const char *text)
{
    const char *colon = strchr(text, ':');
    CLEANUP_FREE char *name = xstrndup(text, colon ? (size_t)(colon - text) : strlen(text));

    if (strchr("./~", *name))
        return wrong(a, "volumes", "'%s': %s is not supported; name a volume, and declare it at the top level", text,
                     colon ? "a path of the host" : "a volume without a name");
    if (!colon)
        return wrong(a, "volumes", "'%s' must be NAME:/PATH, or NAME:/PATH:ro", text);
    const char *second = strchr(colon + 1, ':'), *mode = second ? second + 1 : "rw";
    CLEANUP_FREE char *target = xstrndup(colon + 1, second ? (size_t)(second - colon - 1) : strlen(colon + 1));
    if (!streq(mode, "ro") && !streq(mode, "rw"))
        return wrong(a, "volumes", "'%s': the mode %s is not supported, only ro and rw are", text, mode);
    return mount_volume(all, a, name, target, streq(mode, "ro"));
}

static char *long_volume(struct applications *all, struct application *a, const json_t *v)
{
    static const char *const known[] = {"type", "source", "target", "read_only", NULL};
    CLEANUP_FREE char *where = xasprintf("services.%s.volumes", a->name);
    CLEANUP_FREE char *type = scalar_text(json_object_get(v, "type"));
    const char *source = json_string_value(json_object_get(v, "source")),
               *target = json_string_value(json_object_get(v, "target"));
    const json_t *read_only = json_object_get(v, "read_only");
    bool ro = false;

    note_others(all, where, v, known);
    if (!type || !streq(type, "volume"))
        return wrong(a, "volumes", "the type '%s' is not supported, only volume is", type ? type : "");
    if (!source || !target)
        return wrong(a, "volumes", "a volume needs a source and a target");
    if (read_only && !take_boolean(read_only, &ro))
        return wrong(a, "volumes", "read_only must be true or false");
    return mount_volume(all, a, source, target, ro);
}

static char *parse_volumes(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    const json_t *item;
    size_t i;

    if (!json_is_array(v))
        return wrong(a, key, "must be a list");
    json_array_foreach (v, i, item) {
        char *text = json_is_object(item)   ? long_volume(all, a, item)
                     : json_is_string(item) ? short_volume(all, a, json_string_value(item))
                                            : wrong(a, key, "must be a list of texts or dictionaries");
        if (text)
            return text;
    }
    return NULL;
}

/* ---- health ---- */

static char *health_test(const struct application *a, const json_t *v, json_t *to)
{
    json_t *list = json_is_string(v) ? json_pack("[s, s]", "CMD-SHELL", json_string_value(v))
                                     : json_is_array(v) ? take_command(v) : NULL;
    const char *first = json_string_value(json_array_get(list, 0));

    if (first && streq(first, "NONE"))
        (void)json_object_set_new(to, "disable", json_true());
    else if (first)
        (void)json_object_set(to, "test", list);
    json_decref(list);
    return first ? NULL : wrong(a, "healthcheck.test", "must be a text, or a list that begins with CMD, CMD-SHELL or NONE");
}

static char *health_time(const struct application *a, const char *key, const json_t *v, json_t *to)
{
    CLEANUP_FREE char *path = xasprintf("healthcheck.%s", key);
    double seconds;

    if (!take_duration(v, &seconds))
        return wrong(a, path, "must be a duration, such as 30s or 1m30s");
    (void)json_object_set_new(to, key, json_real(seconds));
    return NULL;
}

static char *health_key(const struct application *a, const char *key, const json_t *v, json_t *to)
{
    json_int_t n;
    bool disable;

    if (streq(key, "test"))
        return health_test(a, v, to);
    if (streq(key, "interval") || streq(key, "timeout") || streq(key, "start_period"))
        return health_time(a, key, v, to);
    if (streq(key, "retries")) {
        if (!take_integer(v, &n))
            return wrong(a, "healthcheck.retries", "must be a whole number");
        (void)json_object_set_new(to, key, json_integer(n));
    }
    if (streq(key, "disable")) {
        if (!take_boolean(v, &disable))
            return wrong(a, "healthcheck.disable", "must be true or false");
        if (disable)
            (void)json_object_set_new(to, key, json_true());
    }
    return NULL;
}

static char *parse_health(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    static const char *const known[] = {"test", "interval", "timeout", "start_period", "retries", "disable", NULL};
    CLEANUP_FREE char *where = xasprintf("services.%s.healthcheck", a->name);
    json_t *to = json_object();
    const char *name;
    json_t *item;
    char *text = json_is_object(v) ? NULL : wrong(a, key, "must be a dictionary");

    note_others(all, where, v, known);
    json_object_foreach ((json_t *)(uintptr_t)v, name, item) {
        text = text ? text : health_key(a, name, item, to);
    }
    if (!text && json_is_true(json_object_get(to, "disable"))) /* the rest has no meaning then */
        set(a, key, json_pack("{s:b}", "disable", 1));
    else if (!text && json_object_size(to))
        (void)json_object_set(a->body, key, to);
    json_decref(to);
    return text;
}

/* ---- other services ---- */

static char *add_dependency(struct applications *all, struct application *a, const char *name, const char *condition,
                            json_t *to)
{
    static const char *const conditions[][2] = {
        {"service_started", "started"}, {"service_healthy", "healthy"}, {"service_completed_successfully", "completed"}};
    size_t i = 0;

    if (!json_object_get(all->index, name) || streq(name, a->name))
        return wrong(a, "depends_on", "'%s' is no other service of the file", name);
    while (i < ARRAY_SIZE(conditions) && !streq(conditions[i][0], condition))
        i++;
    if (i == ARRAY_SIZE(conditions))
        return wrong(a, "depends_on",
                     "%s: the condition '%s' is none of service_started, service_healthy, service_completed_successfully",
                     name, condition);
    (void)json_array_append_new(to, json_pack("{s:s, s:s}", "name", name, "condition", conditions[i][1]));
    return NULL;
}

static char *long_dependency(struct applications *all, struct application *a, const char *name, const json_t *v, json_t *to)
{
    static const char *const known[] = {"condition", NULL};
    CLEANUP_FREE char *where = xasprintf("services.%s.depends_on.%s", a->name, name);
    CLEANUP_FREE char *condition = scalar_text(json_object_get(v, "condition"));

    if (!json_is_object(v))
        return wrong(a, "depends_on", "%s: must be a dictionary", name);
    note_others(all, where, v, known);
    return add_dependency(all, a, name, condition ? condition : "service_started", to);
}

static char *take_dependencies(struct applications *all, struct application *a, const json_t *v, json_t *to)
{
    const json_t *item;
    const char *name;
    char *text = NULL;
    size_t i;

    if (!json_is_object(v) && !json_is_array(v))
        return wrong(a, "depends_on", "must be a list or a dictionary");
    json_array_foreach (v, i, item) {
        const char *one = json_string_value(item);
        text = text ? text : add_dependency(all, a, one ? one : "", "service_started", to);
    }
    json_object_foreach ((json_t *)(uintptr_t)v, name, item) {
        text = text ? text : long_dependency(all, a, name, item, to);
    }
    return text;
}

static char *parse_dependencies(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    json_t *to = json_array();
    char *text = take_dependencies(all, a, v, to);

    if (!text && json_array_size(to))
        (void)json_object_set(a->body, key, to);
    json_decref(to);
    return text;
}

static char *add_link(struct applications *all, struct application *a, const char *value, json_t *links)
{
    const char *colon = strchr(value, ':');
    CLEANUP_FREE char *name = colon ? xstrndup(value, (size_t)(colon - value)) : xstrdup(value);
    const char *alias = colon ? colon + 1 : name;
    const json_t *number = json_object_get(all->index, name);

    if (!number)
        return wrong(a, "links", "'%s' is no service of the file", name);
    const json_t *ports = json_object_get(all->all[json_integer_value(number)].body, "ports");
    if (!json_array_size(ports))
        return wrong(a, "links", "%s publishes no port to which a link could lead; add one under its ports", name);
    if (!compose_is_alphanumeric(alias))
        return wrong(a, "links", "'%s': the alias must have letters and digits only; write '%s:ALIAS'", value, name);
    return compose_link(all, a, alias, ports, links);
}

char *services_link(struct applications *all, struct application *a)
{
    const json_t *v = json_object_get(a->config, "links"), *item;
    json_t *links = json_array();
    char *text = v && !json_is_array(v) ? wrong(a, "links", "must be a list of services") : NULL;
    size_t i;

    json_array_foreach (v, i, item) {
        const char *value = json_string_value(item);
        text = text ? text : add_link(all, a, value ? value : "", links);
    }
    if (!text && json_array_size(links))
        (void)json_object_set(a->body, "links", links);
    json_decref(links);
    return text;
}

/* Every service waits for others only as long as those do not wait for it. */
char *services_check_order(struct applications *all)
{
    size_t *waits = xcalloc(all->n + 1, sizeof(*waits)), *ready = xcalloc(all->n + 1, sizeof(*ready));
    json_t **waiters = xcalloc(all->n + 1, sizeof(*waiters));
    const json_t *d, *number;
    size_t n = 0, i;
    char *text = NULL;

    for (size_t k = 0; k < all->n; k++) {
        const json_t *list = json_object_get(all->all[k].body, "depends_on");
        waits[k] = json_array_size(list);
        json_array_foreach (list, i, d) {
            json_int_t on = json_integer_value(
                json_object_get(all->index, json_string_value(json_object_get(d, "name"))));
            waiters[on] = waiters[on] ? waiters[on] : json_array();
            (void)json_array_append_new(waiters[on], json_integer((json_int_t)k));
        }
        if (!waits[k])
            ready[n++] = k;
    }
    for (size_t k = 0; k < n; k++) {
        json_array_foreach (waiters[ready[k]], i, number) {
            if (--waits[json_integer_value(number)] == 0)
                ready[n++] = (size_t)json_integer_value(number);
        }
    }
    for (size_t k = 0; k < all->n && n < all->n && !text; k++)
        text = waits[k] ? wrong(&all->all[k], "depends_on", "services wait for each other in a circle") : NULL;
    for (size_t k = 0; k < all->n; k++)
        json_decref(waiters[k]);
    free(waits);
    free(ready);
    free(waiters);
    return text;
}

/* ---- the file ---- */

static char *parse_node(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    (void)all;
    if (!json_is_string(v))
        return wrong(a, key, "must be the address or the UUID of a node");
    a->place = json_string_value(v);
    return NULL;
}

char *services_parse(struct applications *all, struct application *a)
{
    static const struct {
        const char *key;
        service_key_fn *parse;
    } keys[] = {
        {"image", parse_image},
        {"command", parse_command},
        {"entrypoint", parse_command},
        {"environment", parse_pairs},
        {"labels", parse_pairs},
        {"ports", parse_ports},
        {"volumes", parse_volumes},
        {"depends_on", parse_dependencies},
        {"restart", parse_restart},
        {"deploy", parse_deploy},
        {"mem_limit", parse_memory},
        {"cpus", parse_cpus},
        {"cpu_shares", parse_shares},
        {"healthcheck", parse_health},
        {"user", parse_text},
        {"working_dir", parse_text},
        {"stop_signal", parse_text},
        {"stop_grace_period", parse_grace},
        {"x-flocker-node", parse_node},
        {"links", NULL}, /* when all have their ports */
    };
    const char *known[ARRAY_SIZE(keys) + 1] = {0};
    CLEANUP_FREE char *where = xasprintf("services.%s", a->name);
    char *text = NULL;

    if (!json_is_object(a->config))
        return xasprintf("%s: must be a dictionary", where);
    for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
        known[i] = keys[i].key;
    note_others(all, where, a->config, known);
    if (!json_object_get(a->config, "image") && !json_object_get(a->config, "build"))
        return xasprintf("%s: names no image", where);
    for (size_t i = 0; i < ARRAY_SIZE(keys) && !text; i++) {
        const json_t *v = json_object_get(a->config, keys[i].key);
        text = v && keys[i].parse ? keys[i].parse(all, a, keys[i].key, v) : NULL;
    }
    return text;
}

char *services_begin(struct applications *all, const json_t *file)
{
    static const char *const known[] = {"services", "volumes", "version", "name", NULL};
    const json_t *name = json_object_get(file, "name");

    note_others(all, "", file, known);
    if (!json_is_object(json_object_get(file, "services")))
        return xasprintf("services: must be a dictionary, got %s.", python_type(json_object_get(file, "services")));
    if (name && !json_is_string(name))
        return xstrdup("name: must be a text");
    return declare_volumes(all, file);
}
