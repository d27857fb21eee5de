/* Flocker's own application format (contract section 8.1). */
#include "model/compose_private.h"

#include <math.h>
#include <stdarg.h>

#define LINKS "Invalid links specification. "
#define PORTS "Invalid ports specification. "
#define VOLUME "Invalid volume specification. "

static char *parse_ports(struct application *a, const json_t *ports)
{
    static const char *const known[] = {"internal", "external", NULL};
    const json_t *port;
    size_t i;

    if (!json_is_array(ports))
        return type_error(a, ports, "'ports' must be a list of dictionaries");
    json_array_foreach (ports, i, port) {
        if (!json_is_object(port))
            return type_error(a, port, "Port must be a dictionary");
        if (!json_object_get(port, "internal"))
            return config_error(a, PORTS "Missing internal port.");
        if (!json_object_get(port, "external"))
            return config_error(a, PORTS "Missing external port.");
        CLEANUP_FREE char *others = other_keys(port, known);
        if (others)
            return config_error(a, PORTS "Unrecognised keys: %s.", others);
    }
    if (json_array_size(ports))
        (void)json_object_set(a->body, "ports", (json_t *)(uintptr_t)ports);
    return NULL;
}

static char *check_link(const struct application *a, const json_t *link)
{
    static const char *const known[] = {"local_port", "remote_port", "alias", NULL};
    const json_t *alias = json_object_get(link, "alias");

    if (!json_is_object(link))
        return type_error(a, link, "Link must be a dictionary");
    if (!json_object_get(link, "local_port"))
        return config_error(a, LINKS "Missing local port.");
    if (!json_object_get(link, "remote_port"))
        return config_error(a, LINKS "Missing remote port.");
    if (!alias)
        return config_error(a, LINKS "Missing alias.");
    CLEANUP_FREE char *others = other_keys(link, known);
    if (others)
        return config_error(a, LINKS "Unrecognised keys: %s.", others);
    if (!is_int(json_object_get(link, "local_port")))
        return type_error(a, json_object_get(link, "local_port"),
                          "Link's local port must be an int");
    if (!is_int(json_object_get(link, "remote_port")))
        return type_error(a, json_object_get(link, "remote_port"),
                          "Link's remote port must be an int");
    if (!json_is_string(alias))
        return type_error(a, alias, "Link alias must be a string");
    if (!compose_is_alphanumeric(json_string_value(alias)))
        return config_error(a, LINKS "Link aliases must be alphanumeric.");
    return NULL;
}

static char *parse_links(struct application *a, const json_t *links)
{
    const json_t *link;
    size_t i;

    if (!json_is_array(links))
        return type_error(a, links, "'links' must be a list of dictionaries");
    json_array_foreach (links, i, link) {
        char *text = check_link(a, link);
        if (text)
            return text;
    }
    if (json_array_size(links))
        (void)json_object_set(a->body, "links", (json_t *)(uintptr_t)links);
    return NULL;
}

#define BAD_SIZE VOLUME "maximum_size: Value '%s' could not be parsed as a storage quantity."

/* Rounded up to a size that a dataset can have. */
static char *parse_size(const struct application *a, const json_t *v, uint64_t *ret)
{
    const char *text = json_string_value(v), *end;
    long double size;

    if (!text)
        return config_error(a, VOLUME "maximum_size: Value must be string, got %s.",
                            python_type(v));
    if (!compose_quantity(text, &end, &size) || *end || size > (long double)INT64_MAX)
        return config_error(a, BAD_SIZE, text);
    size = ceill(size);
    if (size <= 0)
        return config_error(a, VOLUME "maximum_size: Must be greater than zero.");
    if (size < DATASET_MIN_SIZE)
        return config_error(a, VOLUME "maximum_size: Must be at least %u bytes.", DATASET_MIN_SIZE);
    *ret = ((uint64_t)size + DATASET_SIZE_STEP - 1) / DATASET_SIZE_STEP * DATASET_SIZE_STEP;
    return NULL;
}

static char *check_mountpoint(const struct application *a, const json_t *v)
{
    CLEANUP_FREE char *text = shown(v);

    if (!v)
        return config_error(a, VOLUME "Missing mountpoint.");
    if (!json_is_string(v))
        return config_error(a, VOLUME "Mountpoint \"%s\" is not a string.", text);
    for (const char *p = text; *p; p++) {
        if ((unsigned char)*p >= 0x80)
            return config_error(a, VOLUME "Mountpoint \"%s\" contains non-ASCII (unsupported).",
                                text);
    }
    if (*text != '/')
        return config_error(a, VOLUME "Mountpoint \"%s\" is not an absolute path.", text);
    return NULL;
}

static char *parse_volume(struct application *a, const json_t *volume)
{
    static const char *const known[] = {"mountpoint", "maximum_size", "dataset_id", NULL};
    const json_t *size = json_object_get(volume, "maximum_size"),
                 *id = json_object_get(volume, "dataset_id");
    const json_t *mountpoint = json_object_get(volume, "mountpoint");
    struct uuid dataset = compose_dataset_id(a->name);
    uint64_t maximum_size = 0;

    if (!json_is_object(volume)) {
        CLEANUP_FREE char *value = shown(volume);
        return config_error(a, VOLUME "Unexpected value: %s", value);
    }
    char *text = size ? parse_size(a, size, &maximum_size) : NULL;
    if (!text)
        text = check_mountpoint(a, mountpoint);
    if (text)
        return text;
    CLEANUP_FREE char *others = other_keys(volume, known);
    if (others)
        return config_error(a, VOLUME "Unrecognised keys: %s.", others);
    if (id && (!json_is_string(id) || !uuid_parse_v4(json_string_value(id), &dataset))) {
        CLEANUP_FREE char *value = shown(id);
        return config_error(a, VOLUME "dataset_id: Value '%s' is not a version 4 UUID.", value);
    }
    take_volume(a, &(struct volume_wish){.dataset = dataset,
                                         .mountpoint = json_string_value(mountpoint),
                                         .maximum_size = maximum_size});
    return NULL;
}

static char *parse_environment(struct application *a, const json_t *environment)
{
    const char *name;
    json_t *value;

    if (!json_is_object(environment))
        return type_error(a, environment, "'environment' must be a dictionary of key/value pairs");
    json_object_foreach ((json_t *)(uintptr_t)environment, name, value) {
        if (!json_is_string(value))
            return config_error(a, "Environment variable '%s' must be a string; got type '%s'.",
                                name, python_type(value));
    }
    (void)json_object_set(a->body, "environment", (json_t *)(uintptr_t)environment);
    return NULL;
}

/* 0 means the same as nothing; true and false are numbers to Python. */
static char *parse_limit(struct application *a, const json_t *v, const char *key, const char *error)
{
    json_int_t n = json_is_true(v) ? 1 : json_integer_value(v);

    if (!is_int(v))
        return type_error(a, v, error);
    if (n)
        (void)json_object_set_new(a->body, key, json_integer(n));
    return NULL;
}

static char *parse_mem_limit(struct application *a, const json_t *v)
{
    return parse_limit(a, v, "memory_limit", "mem_limit must be an integer");
}

static char *parse_cpu_shares(struct application *a, const json_t *v)
{
    return parse_limit(a, v, "cpu_shares", "cpu_shares must be an integer");
}

/* Here the prefix has another word. */
static char *policy_error(const struct application *a, const char *format, ...) PRINTF_LIKE(2, 3);

static char *policy_error(const struct application *a, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    CLEANUP_FREE char *text = xvasprintf(format, args);
    va_end(args);
    return xasprintf("Application '%s' has a configuration error. %s", a->name, text);
}

static char *check_retry_count(const struct application *a, const json_t *count)
{
    CLEANUP_FREE char *text = shown(count);

    if (!is_int(count))
        return policy_error(a, "maximum_retry_count must be an integer or None, got %s", text);
    if (json_integer_value(count) < 1 && !json_is_true(count))
        return policy_error(a, "maximum_retry_count must be positive, got %s", text);
    return NULL;
}

static char *parse_restart_policy(struct application *a, const json_t *policy)
{
    static const char *const classes[] = {[RESTART_NEVER] = "RestartNever",
                                          [RESTART_ALWAYS] = "RestartAlways",
                                          [RESTART_ON_FAILURE] = "RestartOnFailure"};
    const json_t *name = json_object_get(policy, "name"),
                 *count = json_object_get(policy, "maximum_retry_count");
    CLEANUP_FREE char *value = shown(json_is_object(policy) ? name : policy);

    if (!json_is_object(policy))
        return policy_error(a, "'restart_policy' must be a dict, got %s", value);
    if (!name)
        return policy_error(a, "'restart_policy' must include a 'name'.");
    enum restart_policy p = json_is_string(name) ? restart_policy_parse(json_string_value(name))
                                                 : RESTART_POLICY_INVALID;
    if (p == RESTART_POLICY_INVALID)
        return policy_error(
            a, "Invalid 'restart_policy' name '%s'. Use one of: always, never, on-failure", value);
    json_t *arguments = json_copy((json_t *)(uintptr_t)policy);
    (void)json_object_del(arguments, "name");
    bool fits = json_object_size(arguments) == (p == RESTART_ON_FAILURE && count);
    CLEANUP_FREE char *shown_arguments = shown(arguments);
    json_decref(arguments);
    if (!fits)
        return policy_error(a, "Invalid 'restart_policy' arguments for %s. Got %s", classes[p],
                            shown_arguments);
    char *text = count && !json_is_null(count) ? check_retry_count(a, count) : NULL;
    if (text)
        return text;
    json_t *plain = json_pack("{s:s}", "name", restart_policy_name(p));
    if (count && !json_is_null(count))
        (void)json_object_set_new(
            plain, "maximum_retry_count",
            json_integer(json_is_true(count) ? 1 : json_integer_value(count)));
    (void)json_object_set_new(a->body, "restart_policy", plain);
    return NULL;
}

char *flocker_parse(struct applications *all, struct application *a)
{
    static const char *const known[] = {"image",      "environment",    "ports",
                                        "links",      "volume",         "mem_limit",
                                        "cpu_shares", "restart_policy", NULL};
    static const struct {
        const char *key;
        char *(*parse)(struct application *a, const json_t *v);
    } parts[] = {
        {"ports", parse_ports},
        {"links", parse_links},
        {"volume", parse_volume},
        {"environment", parse_environment},
        {"mem_limit", parse_mem_limit},
        {"cpu_shares", parse_cpu_shares},
        {"restart_policy", parse_restart_policy},
    };
    const json_t *image = json_object_get(a->config, "image");

    if (!json_is_object(a->config))
        return type_error(a, a->config, "Application configuration must be dictionary");
    CLEANUP_FREE char *others = other_keys(a->config, known);
    if (others)
        return config_error(a, "Unrecognised keys: %s.", others);
    if (!image)
        return config_error(a, "Missing 'image' key.");
    CLEANUP_FREE char *name = shown(image);
    char *text = take_image(a, json_is_string(image) ? name : ":");
    for (size_t i = 0; !text && i < ARRAY_SIZE(parts); i++) {
        const json_t *v = json_object_get(a->config, parts[i].key);
        text = v ? parts[i].parse(a, v) : NULL;
    }
    return text;
}
