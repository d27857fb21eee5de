/* The request that makes a container. */
#include "engines/docker_api.h"

#include "base/now.h"
#include "base/str.h"

#include <ctype.h>
#include <jansson.h>
#include <strings.h>

char *container_volume_path(const struct container_start *s, const struct container_volume *v)
{
    return xasprintf("%s/%s", s->mount_root, UUID_STR(&v->dataset));
}

static char *upper(const char *s)
{
    char *u = xstrdup(s);

    for (char *p = u; *p; p++)
        *p = (char)toupper((unsigned char)*p);
    return u;
}

static bool is_set(const struct container *c, const char *name)
{
    for (size_t i = 0; i < c->n_environment; i++) {
        if (streq(c->environment[i].name, name))
            return true;
    }
    return false;
}

/* NAME=value, unless the container's own environment has that name: it overrides (contract
 * section 6.4). */
static void add_link_variable(json_t *env, const struct container *c, const char *prefix,
                              const char *suffix, const char *value)
{
    CLEANUP_FREE char *name = xasprintf("%s%s", prefix, suffix);

    if (!is_set(c, name))
        (void)json_array_append_new(env, json_sprintf("%s=%s", name, value));
}

static void add_link(json_t *env, const struct container *c, const struct link *link,
                     const char *host)
{
    CLEANUP_FREE char *alias = upper(link->alias);
    CLEANUP_FREE char *prefix = xasprintf("%s_PORT_%u_TCP", alias, (unsigned)link->local_port);
    CLEANUP_FREE char *port = xasprintf("%u", (unsigned)link->remote_port);
    bool v6 = strchr(host, ':') != NULL;
    CLEANUP_FREE char *url = xasprintf("tcp://%s%s%s:%s", v6 ? "[" : "", host, v6 ? "]" : "", port);

    add_link_variable(env, c, prefix, "", url);
    add_link_variable(env, c, prefix, "_ADDR", host);
    add_link_variable(env, c, prefix, "_PORT", port);
    add_link_variable(env, c, prefix, "_PROTO", "tcp");
}

static json_t *render_environment(const struct container *c, const char *host)
{
    json_t *env = json_array();

    for (size_t i = 0; i < c->n_links; i++)
        add_link(env, c, &c->links[i], host);
    for (size_t i = 0; i < c->n_environment; i++)
        (void)json_array_append_new(
            env, json_sprintf("%s=%s", c->environment[i].name, c->environment[i].value));
    return env;
}

/* Engines count whole seconds. */
static unsigned grace_seconds(const struct container *c)
{
    return (c->stop_grace_ms + MSEC_PER_SEC - 1) / MSEC_PER_SEC;
}

static json_t *render_labels(const struct container_start *s)
{
    json_t *labels = json_object();

    for (size_t i = 0; i < s->config->n_labels; i++)
        (void)json_object_set_new(labels, s->config->labels[i].name, json_string(s->config->labels[i].value));
    (void)json_object_set_new(labels, CONTAINER_LABEL_CLUSTER, json_string(UUID_STR(&s->cluster)));
    (void)json_object_set_new(labels, CONTAINER_LABEL_NAME, json_string(s->config->name));
    (void)json_object_set_new(labels, CONTAINER_LABEL_CREATED,
                              json_sprintf("%llu", (unsigned long long)s->config->created));
    (void)json_object_set_new(labels, CONTAINER_LABEL_ERA, json_string(UUID_STR(&s->era)));
    if (s->config->stop_grace_ms)
        (void)json_object_set_new(labels, CONTAINER_LABEL_STOP, json_sprintf("%u", grace_seconds(s->config)));
    char spec[CONTAINER_SPEC_SIZE];
    container_spec(s->config, spec);
    (void)json_object_set_new(labels, CONTAINER_LABEL_SPEC, json_string(spec));
    return labels;
}

static void add_host(json_t *list, const char *name, const char *address)
{
    static const char plain[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.";

    if (*name && strspn(name, plain) == strlen(name))
        (void)json_array_append_new(list, json_sprintf("%s:%s", name, address));
}

static bool is_alias(const struct container *c, const char *name)
{
    for (size_t i = 0; i < c->n_links; i++) {
        if (strcasecmp(c->links[i].alias, name) == 0)
            return true;
    }
    return false;
}

/* The other applications by name: all of them answer on this node's address, wherever they are and will be, so that the entry
 * stays right when they move (docs/routes.md). What a link is called means what is linked. */
static void render_hosts(const struct container_start *s, json_t *host)
{
    const struct container *c = s->config;
    json_t *list = json_array();

    for (size_t i = 0; s->host && i < c->n_links; i++) {
        if (!i || !streq(c->links[i].alias, c->links[i - 1].alias)) /* they are sorted */
            add_host(list, c->links[i].alias, s->host);
    }
    for (size_t i = 0; s->host && i < s->n_names; i++) {
        if (!is_alias(c, s->names[i]))
            add_host(list, s->names[i], s->host);
    }
    if (json_array_size(list))
        (void)json_object_set(host, "ExtraHosts", list);
    json_decref(list);
}

static void render_ports(const struct container *c, json_t *body, json_t *host)
{
    json_t *exposed = json_object(), *bindings = json_object();

    for (size_t i = 0; i < c->n_ports; i++) {
        char key[16], value[8] = "";
        (void)snprintf(key, sizeof(key), "%u/tcp", (unsigned)c->ports[i].internal);
        if (c->ports[i].external)
            (void)snprintf(value, sizeof(value), "%u", (unsigned)c->ports[i].external);
        json_t *list = json_object_get(bindings, key);

        if (!list) {
            list = json_array();
            (void)json_object_set_new(bindings, key, list);
            (void)json_object_set_new(exposed, key, json_object());
        }
        (void)json_array_append_new(list, json_pack("{ss}", "HostPort", value));
    }
    (void)json_object_set_new(body, "ExposedPorts", exposed);
    (void)json_object_set_new(host, "PortBindings", bindings);
}

/* A mount of type "bind" fails when the source is missing; a classic bind would make an empty
 * directory there, and the container would write beside its volume. But only the classic form can
 * relabel for SELinux. */
static void render_volumes(const struct container_start *s, bool selinux, json_t *host)
{
    json_t *list = json_array();

    for (size_t i = 0; i < s->config->n_volumes; i++) {
        const struct container_volume *v = &s->config->volumes[i];
        CLEANUP_FREE char *from = container_volume_path(s, v);
        if (selinux) {
            (void)json_array_append_new(
                list, json_sprintf("%s:%s:Z%s", from, v->mountpoint, v->read_only ? ",ro" : ""));
            continue;
        }
        json_t *mount = json_pack("{ss ss ss s{ss}}", "Type", "bind", "Source", from, "Target",
                                  v->mountpoint, "BindOptions", "Propagation", "rprivate");
        if (v->read_only)
            (void)json_object_set_new(mount, "ReadOnly", json_true());
        (void)json_array_append_new(list, mount);
    }
    if (json_array_size(list))
        (void)json_object_set(host, selinux ? "Binds" : "Mounts", list);
    json_decref(list);
}

static json_t *render_strings(char *const *strings, size_t n)
{
    json_t *list = json_array();

    for (size_t i = 0; i < n; i++)
        (void)json_array_append_new(list, json_string(strings[i]));
    return list;
}

#define NSEC_PER_MSEC 1000000

static json_t *render_health(const struct health_check *h)
{
    if (h->disabled)
        return json_pack("{s[s]}", "Test", "NONE");
    return json_pack("{so sI sI sI sI}", "Test", render_strings(h->test, h->n_test), "Interval",
                     (json_int_t)(h->interval_ms * NSEC_PER_MSEC), "Timeout",
                     (json_int_t)(h->timeout_ms * NSEC_PER_MSEC), "StartPeriod",
                     (json_int_t)(h->start_period_ms * NSEC_PER_MSEC), "Retries", (json_int_t)h->retries);
}

/* Settings that are not in the contract. */
static void render_extended(const struct container *c, json_t *body, json_t *host)
{
    if (c->has_entrypoint && !c->n_entrypoint) /* an empty list would be the image's own */
        (void)json_object_set_new(body, "Entrypoint", json_pack("[s]", ""));
    else if (c->has_entrypoint)
        (void)json_object_set_new(body, "Entrypoint", render_strings(c->entrypoint, c->n_entrypoint));
    if (c->user)
        (void)json_object_set_new(body, "User", json_string(c->user));
    if (c->working_dir)
        (void)json_object_set_new(body, "WorkingDir", json_string(c->working_dir));
    if (c->stop_signal)
        (void)json_object_set_new(body, "StopSignal", json_string(c->stop_signal));
    if (c->health)
        (void)json_object_set_new(body, "Healthcheck", render_health(c->health));
    if (c->nano_cpus)
        (void)json_object_set_new(host, "NanoCpus", json_integer((json_int_t)c->nano_cpus));
    if (c->stop_grace_ms)
        (void)json_object_set_new(body, "StopTimeout", json_integer(grace_seconds(c)));
}

static bool is_utf8(const char *s)
{
    return !s || str_is_utf8(s, strlen(s));
}

static bool strings_utf8(char *const *strings, size_t n)
{
    bool ok = true;

    for (size_t i = 0; i < n && ok; i++)
        ok = is_utf8(strings[i]);
    return ok;
}

static bool entries_utf8(const struct env_entry *entries, size_t n)
{
    bool ok = true;

    for (size_t i = 0; i < n && ok; i++)
        ok = is_utf8(entries[i].name) && is_utf8(entries[i].value);
    return ok;
}

static bool all_utf8(const struct container_start *s)
{
    const struct container *c = s->config;

    return is_utf8(c->name) && is_utf8(c->image) &&
           entries_utf8(c->environment, c->n_environment) &&
           strings_utf8(c->command_line, c->n_command_line) &&
           strings_utf8(c->entrypoint, c->n_entrypoint) && entries_utf8(c->labels, c->n_labels) &&
           is_utf8(c->user) && is_utf8(c->working_dir) && is_utf8(c->stop_signal) &&
           (!c->health || strings_utf8(c->health->test, c->health->n_test)) &&
           is_utf8(s->mount_root);
}

static struct err *check_volumes(const struct container_start *s, bool selinux)
{
    const struct container *c = s->config;

    for (size_t i = 0; i < c->n_volumes; i++) {
        const char *to = c->volumes[i].mountpoint;
        if (!s->mount_root)
            return err_new(ERR_INVALID, "container %s has a volume, but it is not mounted here",
                           c->name);
        if (!is_utf8(to))
            return err_new(ERR_INVALID, "container %s has a mountpoint that is no UTF-8 text",
                           c->name);
        if (selinux && (strchr(to, ':') || strchr(s->mount_root, ':')))
            return err_new(ERR_INVALID,
                           "container %s: with SELinux a mountpoint must not have a ':'", c->name);
    }
    return NULL;
}

static struct err *check(const struct container_start *s, bool selinux)
{
    const struct container *c = s->config;

    if (!c->image || !all_utf8(s))
        return err_new(ERR_INVALID, "container %s has a setting that is no UTF-8 text, or no image",
                       c->name);
    if (c->n_links && !s->host)
        return err_new(ERR_INVALID,
                       "container %s has links, but this node knows no address of "
                       "itself",
                       c->name);
    for (size_t i = 0; i < c->n_environment; i++) {
        if (!c->environment[i].name[0] || strchr(c->environment[i].name, '='))
            return err_new(ERR_INVALID,
                           "container %s has an environment variable with the name "
                           "\"%s\"",
                           c->name, c->environment[i].name);
    }
    return check_volumes(s, selinux);
}

struct err *docker_render_create(const struct container_start *start, bool selinux, char **ret_json)
{
    const struct container *c = start->config;

    TRY(check(start, selinux));
    json_t *body = json_object(), *host = json_object();

    (void)json_object_set_new(body, "Image", json_string(c->image));
    (void)json_object_set_new(body, "Env", render_environment(c, start->host));
    (void)json_object_set_new(body, "Labels", render_labels(start));
    if (c->has_command_line)
        (void)json_object_set_new(body, "Cmd", render_strings(c->command_line, c->n_command_line));
    render_extended(c, body, host);
    render_ports(c, body, host);
    render_volumes(start, selinux, host);
    render_hosts(start, host);
    (void)json_object_set_new(host, "RestartPolicy", json_pack("{ss}", "Name", "no"));
    if (c->memory_limit)
        (void)json_object_set_new(host, "Memory", json_integer((json_int_t)c->memory_limit));
    if (c->cpu_shares)
        (void)json_object_set_new(host, "CpuShares", json_integer(c->cpu_shares));
    if (c->swappiness != UINT32_MAX)
        (void)json_object_set_new(host, "MemorySwappiness", json_integer(c->swappiness));
    (void)json_object_set_new(body, "HostConfig", host);
    *ret_json = json_dumps(body, JSON_COMPACT);
    json_decref(body);
    return *ret_json ? NULL
                     : err_new(ERR_INTERNAL, "cannot write the settings of container %s", c->name);
}

char *docker_render_filters(const struct uuid *cluster, bool events)
{
    if (events)
        return xasprintf("{\"type\":[\"container\"],\"label\":[\"%s=%s\"]}",
                         CONTAINER_LABEL_CLUSTER, UUID_STR(cluster));
    return xasprintf("{\"label\":[\"%s=%s\"]}", CONTAINER_LABEL_CLUSTER, UUID_STR(cluster));
}
