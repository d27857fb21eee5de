/* flockerctl create-container: its options, and what they make of the request. */
#include "base/now.h"
#include "base/str.h"
#include "cli/ctl.h"
#include "cli/text.h"

#include <math.h>

/* Sets a text; ERR_INVALID when it is none. */
static struct err *set_text(json_t *object, const char *key, const char *option, const char *value)
{
    if (json_object_set_new(object, key, json_string(value)) < 0)
        return err_new(ERR_INVALID, "what follows %s must be UTF-8 text", option);
    return NULL;
}

/* The value under `key`, made when it is not there. */
static json_t *part(json_t *object, const char *key, json_type type)
{
    if (!json_object_get(object, key))
        json_object_set_new(object, key, type == JSON_ARRAY ? json_array() : json_object());
    return json_object_get(object, key);
}

/* "EXTERNAL:INTERNAL" */
static struct err *take_port(json_t *body, const char *value)
{
    const char *colon = strchr(value, ':');
    long external, internal;

    if (!colon)
        return err_new(ERR_INVALID, "malformed port '%s', please use EXTERNAL:INTERNAL", value);
    CLEANUP_FREE char *first = xstrndup(value, (size_t)(colon - value));
    TRY(cli_parse_number("the external port", first, 1, 65535, &external));
    TRY(cli_parse_number("the internal port", colon + 1, 1, 65535, &internal));
    json_array_append_new(
        part(body, "ports", JSON_ARRAY),
        json_pack("{s:I,s:I}", "internal", (json_int_t)internal, "external", (json_int_t)external));
    return NULL;
}

/* "NAME=VALUE" */
static struct err *take_pair(json_t *body, const char *key, const char *what, const char *value)
{
    const char *equals = strchr(value, '=');

    if (!equals || equals == value || !str_is_utf8(value, strlen(value)))
        return err_new(ERR_INVALID, "malformed %s '%s', please use NAME=VALUE", what, value);
    CLEANUP_FREE char *name = xstrndup(value, (size_t)(equals - value));
    json_object_set_new(part(body, key, JSON_OBJECT), name, json_string(equals + 1));
    return NULL;
}

static struct err *take_seconds(json_t *object, const char *key, const char *option,
                                const char *value)
{
    uint64_t us;

    TRY(cli_parse_duration(option, value, &us));
    json_object_set_new(object, key, json_integer((json_int_t)(us / USEC_PER_SEC)));
    return NULL;
}

static struct err *take_cpus(json_t *body, const char *value)
{
    char *end;
    double n = *value >= '0' && *value <= '9' ? strtod(value, &end) : -1;

    if (n < 0 || *end || !isfinite(n))
        return err_new(ERR_INVALID, "--cpus must be a number of processors, such as 0.5, not '%s'",
                       value);
    json_object_set_new(body, "cpus", json_real(n));
    return NULL;
}

static struct err *take_number(json_t *object, const char *key, const char *option,
                               const char *value, long min, long max)
{
    long n;

    TRY(cli_parse_number(option, value, min, max, &n));
    json_object_set_new(object, key, json_integer(n));
    return NULL;
}

static struct err *take_memory(json_t *body, const char *value)
{
    uint64_t bytes;

    TRY(text_parse_size(value, &bytes));
    json_object_set_new(body, "memory_limit", json_integer((json_int_t)bytes));
    return NULL;
}

/* "NAME", "NAME:healthy" */
static struct err *take_dependency(json_t *body, const char *value)
{
    const char *colon = strchr(value, ':');
    CLEANUP_FREE char *name = colon ? xstrndup(value, (size_t)(colon - value)) : xstrdup(value);
    CLEANUP_JSON json_t *one = json_object();

    TRY(set_text(one, "name", "--depends-on", name));
    TRY(set_text(one, "condition", "--depends-on", colon ? colon + 1 : "started"));
    json_array_append(part(body, "depends_on", JSON_ARRAY), one);
    return NULL;
}

static struct err *take_health(json_t *body, int id, const char *value)
{
    json_t *health = part(body, "healthcheck", JSON_OBJECT);

    switch (id) {
    case OPT_HEALTH_CMD:
        if (json_object_set_new(health, "test", json_pack("[s,s]", "CMD-SHELL", value)) < 0)
            return err_new(ERR_INVALID, "what follows --health-cmd must be UTF-8 text");
        return NULL;
    case OPT_HEALTH_INTERVAL:
        return take_seconds(health, "interval", "--health-interval", value);
    case OPT_HEALTH_TIMEOUT:
        return take_seconds(health, "timeout", "--health-timeout", value);
    case OPT_HEALTH_START:
        return take_seconds(health, "start_period", "--health-start-period", value);
    case OPT_HEALTH_RETRIES:
        return take_number(health, "retries", "--health-retries", value, 1, INT32_MAX);
    default: /* OPT_NO_HEALTH */
        json_object_set_new(health, "disable", json_true());
        return NULL;
    }
}

struct err *ctl_take_container_option(struct ctl_args *a, int id, const char *value)
{
    json_t *body = a->container;

    switch (id) {
    case OPT_VOLUME:
        if (json_array_append_new(a->volumes, json_string(value)) < 0)
            return err_new(ERR_INVALID, "the volume '%s' is not UTF-8 text", value);
        return NULL;
    case OPT_PUBLISH:
        return take_port(body, value);
    case OPT_ENV:
        return take_pair(body, "environment", "environment variable", value);
    case OPT_LABEL:
        return take_pair(body, "labels", "label", value);
    case OPT_RESTART:
        json_object_set_new(body, "restart_policy", json_object());
        return set_text(json_object_get(body, "restart_policy"), "name", "--restart", value);
    case OPT_MEMORY:
        return take_memory(body, value);
    case OPT_CPU_SHARES:
        return take_number(body, "cpu_shares", "--cpu-shares", value, 1, 1024);
    case OPT_CPUS:
        return take_cpus(body, value);
    case OPT_ENTRYPOINT:
        if (*value &&
            json_array_append_new(part(body, "entrypoint", JSON_ARRAY), json_string(value)) < 0)
            return err_new(ERR_INVALID, "what follows --entrypoint must be UTF-8 text");
        (void)part(body, "entrypoint", JSON_ARRAY); /* "" takes the image's away */
        return NULL;
    case OPT_RUN_AS:
        return set_text(body, "user", "--user", value);
    case OPT_WORKDIR:
        return set_text(body, "working_dir", "--workdir", value);
    case OPT_STOP_SIGNAL:
        return set_text(body, "stop_signal", "--stop-signal", value);
    case OPT_STOP_GRACE:
        return take_seconds(body, "stop_grace_period", "--stop-grace", value);
    case OPT_DEPENDS_ON:
        return take_dependency(body, value);
    default:
        return take_health(body, id, value);
    }
}

/* "DATASET:/PATH", "DATASET:/PATH:ro" -> an item of the API's list of volumes. */
static struct err *take_volume(struct ctl *c, const char *volume, json_t *list)
{
    const char *colon = strchr(volume, ':');
    CLEANUP_FREE char *id = NULL, *path = colon ? xstrdup(colon + 1) : NULL;

    if (!path || *path != '/')
        return err_new(
            ERR_INVALID,
            "malformed volume '%s', please use DATASET:/mountpoint, or DATASET:/mountpoint:ro",
            volume);
    char *mode = strrchr(path, ':');
    bool read_only = mode && streq(mode, ":ro");
    if (read_only || (mode && streq(mode, ":rw")))
        *mode = '\0';
    CLEANUP_FREE char *dataset = xstrndup(volume, (size_t)(colon - volume));
    TRY(ctl_find_dataset(c, dataset, &id));
    json_t *item = json_pack("{s:s,s:s}", "dataset_id", id, "mountpoint", path);
    if (read_only)
        json_object_set_new(item, "read_only", json_true());
    json_array_append_new(list, item);
    return NULL;
}

static struct err *add_volumes(struct ctl *c, json_t *body)
{
    size_t i;
    const json_t *v;

    json_array_foreach (c->args->volumes, i, v)
        TRY(take_volume(c, json_string_value(v), part(body, "volumes", JSON_ARRAY)));
    return NULL;
}

static struct err *add_command(const struct ctl_args *a, json_t *body)
{
    for (int i = 2; i < a->n_operands; i++) {
        if (json_array_append_new(part(body, "command_line", JSON_ARRAY),
                                  json_string(a->operands[i])) < 0)
            return err_new(ERR_INVALID, "the command line must be UTF-8 text");
    }
    return NULL;
}

struct err *ctl_container_body(struct ctl *c, const char *node, json_t **ret_body)
{
    const struct ctl_args *a = c->args;
    CLEANUP_JSON json_t *body = json_deep_copy(a->container);
    CLEANUP_JSON json_t *names = json_pack("{s:s,s:s,s:s}", "node_uuid", node, "name",
                                           a->operands[0], "image", a->operands[1]);

    if (!names)
        return err_new(ERR_INVALID, "name and image must be UTF-8 text");
    json_object_update(body, names);
    TRY(add_command(a, body));
    TRY(add_volumes(c, body));
    *ret_body = steal(&body);
    return NULL;
}
