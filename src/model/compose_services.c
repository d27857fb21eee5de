/* Compose files (the Compose specification), as far as a cluster can have what they say. What it cannot have is named, with
 * its path. What needs the user's machine (variables, env_file) was done there before: cli/deploy_files.c. */
#include "model/compose_services.h"

#include <math.h>
#include <stdarg.h>
#include <string.h>

char *service_error(const struct application *a, const char *key, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    CLEANUP_FREE char *text = xvasprintf(format, args);
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

void note_others(struct applications *all, const char *where, const json_t *object, const char *const *known)
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

/* ---- keys of a service ---- */

static void set(struct application *a, const char *key, json_t *value)
{
    (void)json_object_set_new(a->body, key, value);
}

static char *parse_image(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    (void)all;
    if (!json_is_string(v))
        return service_error(a, key, "must be a text");
    return take_image(a, json_string_value(v));
}

static char *parse_command(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    json_t *list = json_is_null(v) ? NULL : take_command(v);

    (void)all;
    if (json_is_null(v)) /* the image's own */
        return NULL;
    if (!list)
        return service_error(a, key, "must be a text whose quotes end, or a list of texts");
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
        return service_error(a, key, "must be a dictionary or a list of NAME=VALUE");
    json_object_foreach ((json_t *)(uintptr_t)v, name, item) {
        CLEANUP_FREE char *text = scalar_text(item);
        if (!text && !json_is_null(item))
            return service_error(a, key, "the value of '%s' must be a text", name);
        if (!text && streq(key, "environment"))
            return service_error(a, key, "'%s' has no value; flocker-deploy takes it from its own environment", name);
        (void)json_object_set_new(to, name, json_string(text ? text : ""));
    }
    json_array_foreach (v, i, item) {
        const char *text = json_string_value(item), *equals = text ? strchr(text, '=') : NULL;
        if (!text || (!equals && streq(key, "environment")))
            return service_error(a, key, "'%s' must be NAME=VALUE", text ? text : "a value that is no text");
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
        return service_error(a, key, "must be a text");
    set(a, key, json_string(text));
    return NULL;
}

static char *parse_grace(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    double seconds;

    (void)all;
    if (!take_duration(v, &seconds))
        return service_error(a, key, "must be a duration, such as 30s or 1m30s");
    set(a, key, json_real(seconds));
    return NULL;
}

static char *parse_memory(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    json_int_t bytes;

    (void)all;
    if (!take_bytes(v, &bytes))
        return service_error(a, key, "must be a number of bytes, such as 512m");
    if (json_object_get(a->body, "memory_limit"))
        return service_error(a, key, "the limit is given twice, as mem_limit and under deploy.resources.limits");
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
        return service_error(a, key, "must be a number of processors, such as 0.5");
    if (json_object_get(a->body, "cpus"))
        return service_error(a, key, "the limit is given twice, as cpus and under deploy.resources.limits");
    if (n > 0)
        set(a, "cpus", json_real(n));
    return NULL;
}

static char *parse_shares(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    json_int_t n;

    (void)all;
    if (!take_integer(v, &n))
        return service_error(a, key, "must be a whole number");
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
        return service_error(a, key, "must be a dictionary of dictionaries");
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
        return service_error(a, key, "must be a text");
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
        return service_error(a, key, "'%s' is none of no, always, on-failure, on-failure:TIMES, unless-stopped", text);
    json_t *policy = json_pack("{s:s}", "name", "on-failure");
    if (n)
        (void)json_object_set_new(policy, "maximum_retry_count", json_integer(n));
    set(a, "restart_policy", policy);
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
    return first ? NULL : service_error(a, "healthcheck.test", "must be a text, or a list that begins with CMD, CMD-SHELL or NONE");
}

static char *health_time(const struct application *a, const char *key, const json_t *v, json_t *to)
{
    CLEANUP_FREE char *path = xasprintf("healthcheck.%s", key);
    double seconds;

    if (!take_duration(v, &seconds))
        return service_error(a, path, "must be a duration, such as 30s or 1m30s");
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
            return service_error(a, "healthcheck.retries", "must be a whole number");
        (void)json_object_set_new(to, key, json_integer(n));
    }
    if (streq(key, "disable")) {
        if (!take_boolean(v, &disable))
            return service_error(a, "healthcheck.disable", "must be true or false");
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
    char *text = json_is_object(v) ? NULL : service_error(a, key, "must be a dictionary");

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

/* ---- the file ---- */

static char *parse_node(struct applications *all, struct application *a, const char *key, const json_t *v)
{
    (void)all;
    if (!json_is_string(v))
        return service_error(a, key, "must be the address or the UUID of a node");
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
        {"ports", service_ports},
        {"volumes", service_volumes},
        {"depends_on", service_dependencies},
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
