/* Ports of a service. */
#include "model/compose_services.h"

#include <string.h>

#define MAX_PORTS 1000u /* of one range */

static char *add_port(struct applications *all, struct application *a, json_int_t internal,
                      json_int_t external)
{
    json_t *ports = json_object_get(a->body, "ports");

    if (internal < 1 || internal > UINT16_MAX || external < 1 || external > UINT16_MAX)
        return service_error(a, "ports", "%lld:%lld: a port is from 1 to 65535",
                             (long long)external, (long long)internal);
    if (++all->n_ports > UINT16_MAX) /* a short text of ranges makes many */
        return service_error(a, "ports", "the file publishes more ports than there are");
    if (!ports) {
        ports = json_array();
        (void)json_object_set_new(a->body, "ports", ports);
    }
    (void)json_array_append_new(
        ports, json_pack("{s:I, s:I}", "internal", internal, "external", external));
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
        return service_error(a, "ports", "'%s': both ranges must be equally long", shown_port);
    if (n >= MAX_PORTS)
        return service_error(a, "ports", "'%s': a range has at most %u ports", shown_port,
                             MAX_PORTS);
    for (json_int_t i = 0; i <= n; i++) {
        char *text = add_port(all, a, internal->first + i, external->first + i);
        if (text)
            return text;
    }
    return NULL;
}

static char *check_protocol(const struct application *a, const char *shown_port,
                            const char *protocol)
{
    return streq(protocol, "tcp")
               ? NULL
               : service_error(a, "ports", "'%s': the protocol %s is not supported, only tcp is",
                               shown_port, protocol);
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
        return service_error(a, "ports",
                             "'%s' does not say on which port of the nodes; write '%.*s:%.*s'",
                             text, (int)n, text, (int)n, text);
    if (colon && strchr(colon + 1, ':'))
        return service_error(a, "ports",
                             "'%s': host_ip is not supported: a port answers on all nodes", text);
    if (!colon || !take_range(text, (size_t)(colon - text), &external) ||
        !take_range(colon + 1, n - (size_t)(colon + 1 - text), &internal))
        return service_error(a, "ports", "'%s' must be PUBLISHED:TARGET, such as 8080:80", text);
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
        return service_error(
            a, "ports",
            "'%s': the mode %s is not supported: a port answers on all nodes, as with ingress",
            port, mode);
    if (!take_integer(json_object_get(v, "target"), &internal.first))
        return service_error(a, "ports", "'%s': target must be a port", port);
    internal.last = internal.first;
    if (!published)
        return service_error(a, "ports",
                             "'%s' does not say on which port of the nodes; add published", port);
    if (!take_range(published, strlen(published), &external))
        return service_error(a, "ports", "'%s': published must be a port", port);
    return add_ranges(all, a, port, &external, &internal);
}

char *service_ports(struct applications *all, struct application *a, const char *key,
                    const json_t *v)
{
    const json_t *item;
    size_t i;

    if (!json_is_array(v))
        return service_error(a, key, "must be a list");
    json_array_foreach (v, i, item) {
        CLEANUP_FREE char *plain = scalar_text(item);
        char *text =
            json_is_object(item) ? long_port(all, a, item) : short_port(all, a, plain ? plain : "");
        if (text)
            return text;
    }
    return NULL;
}
