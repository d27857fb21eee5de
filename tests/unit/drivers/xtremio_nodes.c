#include "xtremio_nodes.h"

#include "drivers/storage.h"

int violations(void)
{
    json_t *state = simulator_state(&node_array), *all = json_object_get(state, "violations"), *v;
    int n = (int)json_array_size(all);
    size_t i;

    json_array_foreach (all, i, v)
        print_error("%s\n", json_string_value(v));
    json_decref(state);
    return n;
}

int fresh(void **state)
{
    node_close(A);
    node_close(B);
    simulator_tell(&node_array, "{s:b, s:b}", "reset", 1, "forget_calls", 1);
    node_open(A);
    node_open(B);
    return 0;
}

int settled(void **state)
{
    json_t *now = simulator_state(&node_array), *host;
    size_t left = json_array_size(json_object_get(now, "volumes"));
    const char *name;

    json_object_foreach (json_object_get(now, "hosts"), name, host)
        left += json_object_size(host);
    json_decref(now);
    return violations() + (int)left;
}

size_t volumes(void)
{
    json_t *state = simulator_state(&node_array);
    size_t n = json_array_size(json_object_get(state, "volumes"));

    json_decref(state);
    return n;
}

void name_of(const struct uuid *id, char ret[XTREMIO_VOLUME_NAME_SIZE])
{
    xtremio_volume_name(id, &A->config.cluster, ret);
}

void setting(const char *name, int value)
{
    simulator_tell(&node_array, "{s:{s:i}}", "settings", name, value);
}

size_t paths(const char *host, const struct uuid *id, bool *ret_map)
{
    json_t *state = simulator_state(&node_array);
    char name[XTREMIO_VOLUME_NAME_SIZE];

    name_of(id, name);
    json_t *shown = json_object_get(json_object_get(json_object_get(state, "hosts"), host), name);
    size_t n = json_array_size(json_object_get(shown, "paths"));

    if (ret_map)
        *ret_map = json_is_string(json_object_get(shown, "map"));
    json_decref(state);
    return n;
}

struct err *open_with(struct node *n, json_t *changes)
{
    struct storage_config c = n->config;
    json_t *o = json_deep_copy(n->config.dataset);

    (void)json_object_update(o, changes);
    json_decref(changes);
    c.dataset = o;
    struct err *e = storage_open(&c, &n->storage);

    json_decref(o);
    return e;
}
