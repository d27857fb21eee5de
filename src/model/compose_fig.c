/* Fig's application format, as far as Flocker takes it (contract section 8.2). */
#include "model/compose_private.h"

static bool is_dict_with(const json_t *config, const char *key)
{
    return json_object_get(config, key) != NULL;
}

char *fig_detect(const json_t *value, bool *ret_is)
{
    const char *name;
    json_t *config;

    json_object_foreach ((json_t *)(uintptr_t)value, name, config) {
        bool image = is_dict_with(config, "image"), build = is_dict_with(config, "build");
        if (image && build)
            return config_error(&(struct application){.name = name},
                                "Must specify either 'build' or 'image'; found both.");
        *ret_is |= image || build;
    }
    return NULL;
}

static char *check_keys(const struct application *a)
{
    static const char *const unsupported[] = {"working_dir",  "entrypoint", "user",    "hostname",
                                              "domainname",   "privileged", "dns",     "net",
                                              "volumes_from", "expose",     "command", NULL};
    static const char *const known[] = {
        "image",       "environment",  "ports",  "links",    "volumes",    "mem_limit",  "build",
        "working_dir", "entrypoint",   "user",   "hostname", "domainname", "privileged", "dns",
        "net",         "volumes_from", "expose", "command",  NULL};

    if (!json_is_object(a->config))
        return type_error(a, a->config, "Application configuration must be dictionary");
    if (is_dict_with(a->config, "build"))
        return config_error(a, "'build' is not supported yet; please specify 'image'.");
    if (!is_dict_with(a->config, "image"))
        return config_error(
            a, "Application configuration must contain either an 'image' or 'build' key.");
    CLEANUP_FREE char *found = keys_among(a->config, unsupported);
    if (found)
        return config_error(a, "Unsupported fig keys found: %s", found);
    CLEANUP_FREE char *others = other_keys(a->config, known);
    return others ? config_error(a, "Unrecognised keys: %s", others) : NULL;
}

static char *parse_image(struct application *a, const json_t *v)
{
    return json_is_string(v) ? take_image(a, json_string_value(v))
                             : type_error(a, v, "'image' must be a string");
}

static char *environment_error(const struct application *a, const json_t *got, const char *before,
                               const char *what)
{
    return config_error(a, "'environment' value %s'%s' must be a string; got type '%s'.", before,
                        what, python_type(got));
}

static char *add_variable(const struct application *a, json_t *to, const json_t *item)
{
    const char *text = json_string_value(item), *equals = text ? strchr(text, '=') : NULL;

    if (!text) {
        CLEANUP_FREE char *what = shown(item);
        return environment_error(a, item, "", what);
    }
    CLEANUP_FREE char *name = equals ? xstrndup(text, (size_t)(equals - text)) : xstrdup(text);
    (void)json_object_set_new(to, name, json_string(equals ? equals + 1 : ""));
    return NULL;
}

static char *parse_environment(struct application *a, const json_t *v)
{
    json_t *to = json_object(), *item;
    const char *name;
    char *text = NULL;
    size_t i;

    if (!json_is_object(v) && !json_is_array(v))
        text = type_error(a, v, "'environment' must be a dictionary or list");
    json_array_foreach (v, i, item) {
        text = add_variable(a, to, item);
        if (text)
            break;
    }
    json_object_foreach ((json_t *)(uintptr_t)v, name, item) {
        if (!json_is_string(item)) {
            text = environment_error(a, item, "for ", name);
            break;
        }
        (void)json_object_set(to, name, item);
    }
    if (text)
        json_decref(to);
    else
        (void)json_object_set_new(a->body, "environment", to);
    return text;
}

static char *parse_volumes(struct application *a, const json_t *v)
{
    const struct uuid dataset = compose_dataset_id(a->name);
    const json_t *item;
    size_t i;

    if (!json_is_array(v))
        return type_error(a, v, "'volumes' must be a list");
    json_array_foreach (v, i, item) {
        if (!json_is_string(item))
            return config_error(a, "'volumes' values must be string; got type '%s'.",
                                python_type(item));
    }
    if (json_array_size(v) > 1)
        return config_error(a, "Only one volume per application is supported at this time.");
    if (json_array_size(v) == 1)
        take_volume(a, &(struct volume_wish){.dataset = dataset, .mountpoint = json_string_value(json_array_get(v, 0))});
    return NULL;
}

static char *parse_mem_limit(struct application *a, const json_t *v)
{
    json_int_t n = json_is_true(v) ? 1 : json_integer_value(v);

    if (!is_int(v))
        return type_error(a, v, "mem_limit must be an integer");
    if (n)
        (void)json_object_set_new(a->body, "memory_limit", json_integer(n));
    return NULL;
}

/* A whole number with white space around it at most; false when it is none. */
static bool parse_port(const char *text, size_t n, json_int_t *ret)
{
    CLEANUP_FREE char *copy = xstrndup(text, n);
    char *end;
    long long port = strtoll(copy, &end, 10);

    *ret = port;
    return end != copy && !end[strspn(end, " \t\n\r\f\v")];
}

static char *parse_ports(struct application *a, const json_t *v)
{
    json_t *ports = json_array();
    const json_t *item;
    char *text = NULL;
    size_t i;

    if (!json_is_array(v))
        text = type_error(a, v, "'ports' must be a list");
    json_array_foreach (v, i, item) {
        const char *pair = json_string_value(item), *colon = pair ? strchr(pair, ':') : NULL;
        json_int_t internal, external;
        if (!colon || strchr(colon + 1, ':'))
            text = config_error(
                a,
                "'ports' must be list of string values in the form of 'host_port:container_port'.");
        else if (!parse_port(pair, (size_t)(colon - pair), &external) ||
                 !parse_port(colon + 1, strlen(colon + 1), &internal))
            text = config_error(a, "'ports' value '%s' could not be parsed in to integer values.",
                                pair);
        else
            (void)json_array_append_new(
                ports, json_pack("{s:I, s:I}", "internal", internal, "external", external));
        if (text)
            break;
    }
    if (!text && json_array_size(ports))
        (void)json_object_set(a->body, "ports", ports);
    json_decref(ports);
    return text;
}

char *fig_parse(struct applications *all, struct application *a)
{
    static const struct {
        const char *key;
        char *(*parse)(struct application *a, const json_t *v);
    } parts[] = {
        {"image", parse_image},     {"environment", parse_environment},
        {"volumes", parse_volumes}, {"mem_limit", parse_mem_limit},
        {"ports", parse_ports},
    };
    char *text = check_keys(a);

    for (size_t i = 0; !text && i < ARRAY_SIZE(parts); i++) {
        const json_t *v = json_object_get(a->config, parts[i].key);
        text = v ? parts[i].parse(a, v) : NULL;
    }
    return text;
}

/* ---- links ---- */

static const struct application *find(const struct applications *all, const char *name)
{
    const json_t *number = json_object_get(all->index, name);

    return number ? &all->all[json_integer_value(number)] : NULL;
}

/* "APPLICATION" or "APPLICATION:ALIAS": each of its ports. */
static char *add_links(struct applications *all, const struct application *a, const char *value,
                       json_t *links)
{
    const char *colon = strchr(value, ':');
    CLEANUP_FREE char *name = colon ? xstrndup(value, (size_t)(colon - value)) : xstrdup(value);
    const char *alias = colon ? colon + 1 : name;
    const struct application *target = find(all, name);

    if (!target)
        return config_error(
            a,
            "'links' value '%s' could not be mapped to any application; application '%s' does not "
            "exist.",
            value, name);
    if (!compose_is_alphanumeric(alias))
        return xasprintf("Application '%s' has a config error: Link aliases must be alphanumeric.",
                         a->name);
    return compose_link(all, a, alias, json_object_get(target->body, "ports"), links);
}

char *fig_link(struct applications *all, struct application *a)
{
    const json_t *v = json_object_get(a->config, "links"), *item;
    json_t *links = json_array();
    char *text = NULL;
    size_t i;

    if (v && !json_is_array(v))
        text = type_error(a, v, "'links' must be a list");
    json_array_foreach (v, i, item) {
        text = json_is_string(item)
                   ? add_links(all, a, json_string_value(item), links)
                   : config_error(
                         a, "'links' must be a list of application names with optional :alias.");
        if (text)
            break;
    }
    if (!text && json_array_size(links))
        (void)json_object_set(a->body, "links", links);
    json_decref(links);
    return text;
}
