/* What flocker-deploy posts: {"applications": ..., "deployment": ...}. What is taken can be stored, and fits together. */
#include "fuzz.h"

#include "model/compose.h"
#include "model/json.h"
#include "model/record.h"

/* Every address is a node, but those that end in 9. */
static bool find_node(void *cookie, const char *address, struct uuid *ret)
{
    uint64_t h = fuzz_hash(address, strlen(address));

    (void)cookie;
    *ret = (struct uuid){{1, 2, 3, 4, 5, 6, 0x47, 8, 0x89}};
    memcpy(ret->b + 10, &h, 6);
    return address[strlen(address) - 1] != '9';
}

static bool find_container(void *cookie, const char *name, struct uuid *ret)
{
    return name[0] == 'r' && find_node(cookie, name, ret);
}

static bool find_dataset(void *cookie, const struct uuid *id, struct uuid *ret)
{
    return id->b[0] % 2 && find_node(cookie, UUID_STR(id), ret);
}

static bool has_dataset(const struct composition *c, const struct container *k,
                        const struct uuid *dataset)
{
    for (size_t i = 0; i < c->n_datasets; i++) {
        if (uuid_eq(&c->datasets[i]->id, dataset) && uuid_eq(&c->datasets[i]->primary, &k->node))
            return true;
    }
    return false;
}

static void check(const struct composition *c)
{
    for (size_t i = 0; i < c->n_datasets; i++) {
        CLEANUP_FREE char *record = record_dataset_encode(c->datasets[i]);
        RULE(record);
        RULE(!c->datasets[i]->maximum_size ||
             (c->datasets[i]->maximum_size >= DATASET_MIN_SIZE &&
              c->datasets[i]->maximum_size % DATASET_SIZE_STEP == 0));
    }
    for (size_t i = 0; i < c->n_containers; i++) {
        CLEANUP_FREE char *record = record_container_encode(c->containers[i]);
        RULE(record);
        for (size_t v = 0; v < c->containers[i]->n_volumes; v++)
            RULE(has_dataset(c, c->containers[i], &c->containers[i]->volumes[v].dataset));
        RULE(!uuid_is_nil(&c->containers[i]->node));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct composition c = {0};
    json_t *body = NULL;
    CLEANUP_ERR struct err *e = json_parse((const char *)data, size, &body);

    if (e)
        return -1;
    static const struct uuid nodes[] = {{{1}}, {{2}}, {{3}}};
    struct compose_world world = {.find_node = find_node,
                                  .find_container = find_container,
                                  .find_dataset = find_dataset,
                                  .nodes = nodes,
                                  .n_nodes = ARRAY_SIZE(nodes),
                                  .spread = json_is_true(json_object_get(body, "spread"))};
    CLEANUP_FREE char *text =
        compose_parse(json_object_get(body, "applications"), json_object_get(body, "deployment"), &world, &c);
    RULE(text ? *text && !c.n_containers && !c.n_datasets : true);
    if (!text)
        check(&c);
    composition_done(&c);
    json_decref(body);
    return 0;
}
