#include "model/container.h"

#include "base/mem.h"
#include "base/str.h"
#include "model/json.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <xxhash.h>

int link_compare(const void *a, const void *b)
{
    const struct link *p = a, *q = b;
    int order = strcmp(p->alias, q->alias);

    if (order)
        return order;
    if (p->local_port != q->local_port)
        return p->local_port < q->local_port ? -1 : 1;
    return (p->remote_port > q->remote_port) - (p->remote_port < q->remote_port);
}

void container_settle_links(struct container *c)
{
    for (size_t i = 0; i < c->n_links; i++) {
        for (char *p = c->links[i].alias; *p; p++)
            *p = (char)tolower((unsigned char)*p);
    }
    if (c->n_links)
        qsort(c->links, c->n_links, sizeof(*c->links), link_compare);
}

/* The next part of a path, without what means nothing; its end is *ret_end. */
static const char *next_part(const char *p, const char **ret_end)
{
    for (;;) {
        while (*p == '/')
            p++;
        *ret_end = p + strcspn(p, "/");
        if (*ret_end - p != 1 || *p != '.')
            return p;
        p = *ret_end;
    }
}

int mountpoint_compare(const char *a, const char *b)
{
    for (;;) {
        const char *a_end, *b_end;
        a = next_part(a, &a_end);
        b = next_part(b, &b_end);
        size_t n = (size_t)(a_end - a), m = (size_t)(b_end - b);
        int order = memcmp(a, b, n < m ? n : m);
        if (order || n != m)
            return order ? order : n < m ? -1 : 1;
        if (!n)
            return 0;
        a = a_end;
        b = b_end;
    }
}

static int volume_compare(const void *a, const void *b)
{
    return mountpoint_compare(((const struct container_volume *)a)->mountpoint,
                              ((const struct container_volume *)b)->mountpoint);
}

void container_settle_volumes(struct container *c)
{
    if (c->n_volumes > 1)
        qsort(c->volumes, c->n_volumes, sizeof(*c->volumes), volume_compare);
}

void container_add_volume(struct container *c, const struct uuid *dataset, const char *mountpoint,
                          bool read_only)
{
    struct container_volume added = {*dataset, xstrdup(mountpoint), read_only}; /* maybe of another volume of it */

    c->volumes = xrealloc(c->volumes, c->n_volumes + 1, sizeof(*c->volumes));
    c->volumes[c->n_volumes++] = added;
}

struct container *container_new(const char *name)
{
    struct container *c = xcalloc(1, sizeof(*c));

    c->name = xstrdup(name);
    c->swappiness = UINT32_MAX;
    return c;
}

static char **strings_copy(char *const *from, size_t n)
{
    char **to = xcalloc(n, sizeof(*to));

    for (size_t i = 0; i < n; i++)
        to[i] = xstrdup(from[i]);
    return to;
}

static void strings_free(char **s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(s[i]);
    free(s);
}

static struct env_entry *entries_copy(const struct env_entry *from, size_t n)
{
    struct env_entry *to = xcalloc(n, sizeof(*to));

    for (size_t i = 0; i < n; i++)
        to[i] = (struct env_entry){xstrdup(from[i].name), xstrdup(from[i].value)};
    return to;
}

static void entries_free(struct env_entry *e, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(e[i].name);
        free(e[i].value);
    }
    free(e);
}

static struct health_check *health_copy(const struct health_check *h)
{
    struct health_check *n = h ? xmemdup(h, sizeof(*h)) : NULL;

    if (n)
        n->test = strings_copy(h->test, h->n_test);
    return n;
}

static void health_free(struct health_check *h)
{
    if (h)
        strings_free(h->test, h->n_test);
    free(h);
}

static void copy_extended(struct container *n, const struct container *c)
{
    n->entrypoint = strings_copy(c->entrypoint, c->n_entrypoint);
    n->user = xstrdup_null(c->user);
    n->working_dir = xstrdup_null(c->working_dir);
    n->stop_signal = xstrdup_null(c->stop_signal);
    n->labels = entries_copy(c->labels, c->n_labels);
    n->health = health_copy(c->health);
    n->depends_on = xmemdup(c->depends_on, c->n_depends_on * sizeof(*c->depends_on));
    for (size_t i = 0; i < c->n_depends_on; i++)
        n->depends_on[i].name = xstrdup(c->depends_on[i].name);
}

static void free_extended(struct container *c)
{
    strings_free(c->entrypoint, c->n_entrypoint);
    free(c->user);
    free(c->working_dir);
    free(c->stop_signal);
    entries_free(c->labels, c->n_labels);
    health_free(c->health);
    for (size_t i = 0; i < c->n_depends_on; i++)
        free(c->depends_on[i].name);
    free(c->depends_on);
}

struct container *container_copy(const struct container *c)
{
    struct container *n = xmemdup(c, sizeof(*c));

    n->name = xstrdup(c->name);
    n->image = xstrdup_null(c->image);
    n->volumes = xmemdup(c->volumes, c->n_volumes * sizeof(*c->volumes));
    for (size_t i = 0; i < c->n_volumes; i++)
        n->volumes[i].mountpoint = xstrdup(c->volumes[i].mountpoint);
    n->ports = xmemdup(c->ports, c->n_ports * sizeof(*c->ports));
    n->links = xmemdup(c->links, c->n_links * sizeof(*c->links));
    for (size_t i = 0; i < c->n_links; i++)
        n->links[i].alias = xstrdup(c->links[i].alias);
    n->environment = entries_copy(c->environment, c->n_environment);
    n->command_line = strings_copy(c->command_line, c->n_command_line);
    copy_extended(n, c);
    return n;
}

struct container *container_free(struct container *c)
{
    if (!c)
        return NULL;
    for (size_t i = 0; i < c->n_links; i++)
        free(c->links[i].alias);
    entries_free(c->environment, c->n_environment);
    strings_free(c->command_line, c->n_command_line);
    free_extended(c);
    free(c->name);
    free(c->image);
    for (size_t i = 0; i < c->n_volumes; i++)
        free(c->volumes[i].mountpoint);
    free(c->volumes);
    free(c->ports);
    free(c->links);
    free(c);
    return NULL;
}

static bool same_strings(char *const *a, size_t na, char *const *b, size_t nb)
{
    bool same = na == nb;

    for (size_t i = 0; i < na && same; i++)
        same = streq(a[i], b[i]);
    return same;
}

static bool same_entries(const struct env_entry *a, size_t na, const struct env_entry *b, size_t nb)
{
    bool same = na == nb;

    for (size_t i = 0; i < na && same; i++)
        same = streq(a[i].name, b[i].name) && streq(a[i].value, b[i].value);
    return same;
}

static bool same_lists(const struct container *a, const struct container *b)
{
    if (a->n_ports != b->n_ports || a->n_links != b->n_links)
        return false;
    for (size_t i = 0; i < a->n_ports; i++) {
        if (a->ports[i].internal != b->ports[i].internal ||
            a->ports[i].external != b->ports[i].external)
            return false;
    }
    for (size_t i = 0; i < a->n_links; i++) {
        if (!streq(a->links[i].alias, b->links[i].alias) ||
            a->links[i].local_port != b->links[i].local_port ||
            a->links[i].remote_port != b->links[i].remote_port)
            return false;
    }
    return same_entries(a->environment, a->n_environment, b->environment, b->n_environment) &&
           a->has_command_line == b->has_command_line &&
           same_strings(a->command_line, a->n_command_line, b->command_line, b->n_command_line);
}

static bool same_health(const struct health_check *a, const struct health_check *b)
{
    if (!a || !b)
        return a == b;
    return a->disabled == b->disabled && a->interval_ms == b->interval_ms && a->timeout_ms == b->timeout_ms &&
           a->start_period_ms == b->start_period_ms && a->retries == b->retries &&
           same_strings(a->test, a->n_test, b->test, b->n_test);
}

bool container_same_dependencies(const struct container *a, const struct container *b)
{
    bool same = a->n_depends_on == b->n_depends_on;

    for (size_t i = 0; i < a->n_depends_on && same; i++)
        same = streq(a->depends_on[i].name, b->depends_on[i].name) &&
               a->depends_on[i].condition == b->depends_on[i].condition;
    return same;
}

static bool same_extended(const struct container *a, const struct container *b)
{
    return a->has_entrypoint == b->has_entrypoint &&
           same_strings(a->entrypoint, a->n_entrypoint, b->entrypoint, b->n_entrypoint) &&
           str_equal_null(a->user, b->user) && str_equal_null(a->working_dir, b->working_dir) &&
           str_equal_null(a->stop_signal, b->stop_signal) && a->stop_grace_ms == b->stop_grace_ms &&
           same_entries(a->labels, a->n_labels, b->labels, b->n_labels) &&
           same_health(a->health, b->health) && a->nano_cpus == b->nano_cpus;
}

bool container_is_extended(const struct container *c)
{
    static const struct container plain;

    return c->n_depends_on || !same_extended(c, &plain);
}

bool container_has_more_volumes(const struct container *c)
{
    return c->n_volumes > 1 || (c->n_volumes && c->volumes[0].read_only);
}

bool container_uses(const struct container *c, const struct uuid *dataset)
{
    for (size_t i = 0; i < c->n_volumes; i++) {
        if (uuid_eq(&c->volumes[i].dataset, dataset))
            return true;
    }
    return false;
}

const struct dependency *container_dependency(const struct container *c, const char *name)
{
    for (size_t i = 0; i < c->n_depends_on; i++) {
        if (streq(c->depends_on[i].name, name))
            return &c->depends_on[i];
    }
    return NULL;
}

static bool same_volumes(const struct container *a, const struct container *b)
{
    bool same = a->n_volumes == b->n_volumes;

    for (size_t i = 0; i < a->n_volumes && same; i++) {
        const struct container_volume *v = &a->volumes[i], *w = &b->volumes[i];
        same = uuid_eq(&v->dataset, &w->dataset) && streq(v->mountpoint, w->mountpoint) &&
               v->read_only == w->read_only;
    }
    return same;
}

bool container_same_settings(const struct container *a, const struct container *b)
{
    return str_equal_null(a->image, b->image) && a->cpu_shares == b->cpu_shares &&
           a->memory_limit == b->memory_limit && a->swappiness == b->swappiness &&
           a->restart_policy == b->restart_policy &&
           a->maximum_retry_count == b->maximum_retry_count && same_volumes(a, b) &&
           same_lists(a, b) && same_extended(a, b);
}

static const char *const condition_names[DEPENDENCY_MAX] = {
    [DEPENDENCY_STARTED] = "started",
    [DEPENDENCY_HEALTHY] = "healthy",
    [DEPENDENCY_COMPLETED] = "completed",
};

const char *dependency_condition_name(enum dependency_condition d)
{
    return condition_names[d];
}

enum dependency_condition dependency_condition_parse(const char *name)
{
    for (int i = 0; i < DEPENDENCY_MAX; i++) {
        if (streq(condition_names[i], name))
            return (enum dependency_condition)i;
    }
    return DEPENDENCY_INVALID;
}

static const char *const policy_names[RESTART_POLICY_MAX] = {
    [RESTART_NEVER] = "never",
    [RESTART_ALWAYS] = "always",
    [RESTART_ON_FAILURE] = "on-failure",
};

const char *restart_policy_name(enum restart_policy p)
{
    return policy_names[p];
}

enum restart_policy restart_policy_parse(const char *name)
{
    for (int i = 0; i < RESTART_POLICY_MAX; i++) {
        if (streq(policy_names[i], name))
            return (enum restart_policy)i;
    }
    return RESTART_POLICY_INVALID;
}

static const char *const health_names[CONTAINER_HEALTH_MAX] = {
    [HEALTH_STARTING] = "starting",
    [HEALTH_HEALTHY] = "healthy",
    [HEALTH_UNHEALTHY] = "unhealthy",
};

const char *container_health_name(enum container_health h)
{
    return health_names[h];
}

void container_spec(const struct container *c, char ret_spec[CONTAINER_SPEC_SIZE])
{
    CLEANUP_STR struct str text = {0};
    json_t *v = json_container_configuration(c);

    (void)json_object_del(v, "node_uuid");
    (void)json_object_del(v, "depends_on");
    if (c->swappiness != UINT32_MAX)
        (void)json_object_set_new(v, "swappiness", json_integer(c->swappiness));
    json_append(&text, v);
    json_decref(v);
    XXH128_hash_t d = XXH3_128bits(text.data, text.len);
    (void)snprintf(ret_spec, CONTAINER_SPEC_SIZE, "%016" PRIx64 "%016" PRIx64, (uint64_t)d.high64, (uint64_t)d.low64);
}

void container_state_done(struct container_state *s)
{
    free(s->last_words);
    free(s->name);
    *s = (struct container_state){0};
}
