/* What a service has to do with others: links, and after which it starts. */
#include "model/compose_services.h"

#include <string.h>

static char *add_dependency(struct applications *all, struct application *a, const char *name,
                            const char *condition, json_t *to)
{
    static const char *const conditions[][2] = {{"service_started", "started"},
                                                {"service_healthy", "healthy"},
                                                {"service_completed_successfully", "completed"}};
    size_t i = 0;

    if (!json_object_get(all->index, name) || streq(name, a->name))
        return service_error(a, "depends_on", "'%s' is no other service of the file", name);
    while (i < ARRAY_SIZE(conditions) && !streq(conditions[i][0], condition))
        i++;
    if (i == ARRAY_SIZE(conditions))
        return service_error(a, "depends_on",
                             "%s: the condition '%s' is none of service_started, service_healthy, "
                             "service_completed_successfully",
                             name, condition);
    (void)json_array_append_new(
        to, json_pack("{s:s, s:s}", "name", name, "condition", conditions[i][1]));
    return NULL;
}

static char *long_dependency(struct applications *all, struct application *a, const char *name,
                             const json_t *v, json_t *to)
{
    static const char *const known[] = {"condition", NULL};
    CLEANUP_FREE char *where = xasprintf("services.%s.depends_on.%s", a->name, name);
    CLEANUP_FREE char *condition = scalar_text(json_object_get(v, "condition"));

    if (!json_is_object(v))
        return service_error(a, "depends_on", "%s: must be a dictionary", name);
    note_others(all, where, v, known);
    return add_dependency(all, a, name, condition ? condition : "service_started", to);
}

static char *take_dependencies(struct applications *all, struct application *a, const json_t *v,
                               json_t *to)
{
    const json_t *item;
    const char *name;
    char *text = NULL;
    size_t i;

    if (!json_is_object(v) && !json_is_array(v))
        return service_error(a, "depends_on", "must be a list or a dictionary");
    json_array_foreach (v, i, item) {
        const char *one = json_string_value(item);
        text = text ? text : add_dependency(all, a, one ? one : "", "service_started", to);
    }
    json_object_foreach ((json_t *)(uintptr_t)v, name, item) {
        text = text ? text : long_dependency(all, a, name, item, to);
    }
    return text;
}

char *service_dependencies(struct applications *all, struct application *a, const char *key,
                           const json_t *v)
{
    json_t *to = json_array();
    char *text = take_dependencies(all, a, v, to);

    if (!text && json_array_size(to))
        (void)json_object_set(a->body, key, to);
    json_decref(to);
    return text;
}

static char *add_link(struct applications *all, struct application *a, const char *value,
                      json_t *links)
{
    const char *colon = strchr(value, ':');
    CLEANUP_FREE char *name = colon ? xstrndup(value, (size_t)(colon - value)) : xstrdup(value);
    const char *alias = colon ? colon + 1 : name;
    const json_t *number = json_object_get(all->index, name);

    if (!number)
        return service_error(a, "links", "'%s' is no service of the file", name);
    const json_t *ports = json_object_get(all->all[json_integer_value(number)].body, "ports");
    if (!json_array_size(ports))
        return service_error(
            a, "links", "%s publishes no port to which a link could lead; add one under its ports",
            name);
    if (!compose_is_alphanumeric(alias))
        return service_error(a, "links",
                             "'%s': the alias must have letters and digits only; write '%s:ALIAS'",
                             value, name);
    return compose_link(all, a, alias, ports, links);
}

char *services_link(struct applications *all, struct application *a)
{
    const json_t *v = json_object_get(a->config, "links"), *item;
    json_t *links = json_array();
    char *text =
        v && !json_is_array(v) ? service_error(a, "links", "must be a list of services") : NULL;
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
    size_t *waits = xcalloc(all->n + 1, sizeof(*waits)),
           *ready = xcalloc(all->n + 1, sizeof(*ready));
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
        text = waits[k] ? service_error(&all->all[k], "depends_on",
                                        "services wait for each other in a circle")
                        : NULL;
    for (size_t k = 0; k < all->n; k++)
        json_decref(waiters[k]);
    free(waits);
    free(ready);
    free(waiters);
    return text;
}
