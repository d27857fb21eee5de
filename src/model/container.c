#include "model/container.h"

#include "base/mem.h"
#include "base/str.h"

#include <ctype.h>

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

struct container *container_new(const char *name)
{
    struct container *c = xcalloc(1, sizeof(*c));

    c->name = xstrdup(name);
    c->swappiness = UINT32_MAX;
    return c;
}

struct container *container_copy(const struct container *c)
{
    struct container *n = xmemdup(c, sizeof(*c));

    n->name = xstrdup(c->name);
    n->image = xstrdup_null(c->image);
    n->mountpoint = xstrdup_null(c->mountpoint);
    n->ports = xmemdup(c->ports, c->n_ports * sizeof(*c->ports));
    n->links = xmemdup(c->links, c->n_links * sizeof(*c->links));
    for (size_t i = 0; i < c->n_links; i++)
        n->links[i].alias = xstrdup(c->links[i].alias);
    n->environment = xcalloc(c->n_environment, sizeof(*c->environment));
    for (size_t i = 0; i < c->n_environment; i++) {
        n->environment[i].name = xstrdup(c->environment[i].name);
        n->environment[i].value = xstrdup(c->environment[i].value);
    }
    n->command_line = xcalloc(c->n_command_line, sizeof(*c->command_line));
    for (size_t i = 0; i < c->n_command_line; i++)
        n->command_line[i] = xstrdup(c->command_line[i]);
    return n;
}

struct container *container_free(struct container *c)
{
    if (!c)
        return NULL;
    for (size_t i = 0; i < c->n_links; i++)
        free(c->links[i].alias);
    for (size_t i = 0; i < c->n_environment; i++) {
        free(c->environment[i].name);
        free(c->environment[i].value);
    }
    for (size_t i = 0; i < c->n_command_line; i++)
        free(c->command_line[i]);
    free(c->name);
    free(c->image);
    free(c->mountpoint);
    free(c->ports);
    free(c->links);
    free(c->environment);
    free(c->command_line);
    free(c);
    return NULL;
}

static bool same_lists(const struct container *a, const struct container *b)
{
    if (a->n_ports != b->n_ports || a->n_links != b->n_links ||
        a->n_environment != b->n_environment || a->n_command_line != b->n_command_line ||
        a->has_command_line != b->has_command_line)
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
    for (size_t i = 0; i < a->n_environment; i++) {
        if (!streq(a->environment[i].name, b->environment[i].name) ||
            !streq(a->environment[i].value, b->environment[i].value))
            return false;
    }
    for (size_t i = 0; i < a->n_command_line; i++) {
        if (!streq(a->command_line[i], b->command_line[i]))
            return false;
    }
    return true;
}

bool container_same_settings(const struct container *a, const struct container *b)
{
    return str_equal_null(a->image, b->image) && a->cpu_shares == b->cpu_shares &&
           a->memory_limit == b->memory_limit && a->swappiness == b->swappiness &&
           a->restart_policy == b->restart_policy &&
           a->maximum_retry_count == b->maximum_retry_count && a->has_volume == b->has_volume &&
           uuid_eq(&a->dataset, &b->dataset) && str_equal_null(a->mountpoint, b->mountpoint) &&
           same_lists(a, b);
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

void container_state_done(struct container_state *s)
{
    free(s->name);
    *s = (struct container_state){0};
}
