/* Writes a store with many datasets that live on many nodes, through the store's own code. */
#include "base/str.h"
#include "measure.h"
#include "model/record.h"
#include "store/store.h"

#define BATCH 10000

static char *record(uint64_t i, uint64_t nodes)
{
    struct dataset *d = dataset_new(measure_dataset(i));

    d->revision = d->epoch = d->number = i + 1;
    d->primary = d->owner = measure_node(i % nodes);
    d->maximum_size = 1u << 30;
    d->born = true;
    d->metadata.entries = xcalloc(1, sizeof(*d->metadata.entries));
    d->metadata.entries[0].key = xstrdup("name");
    d->metadata.entries[0].value = xasprintf("dataset-%llu", (unsigned long long)i);
    d->metadata.n = 1;
    dataset_add_holder(d, &d->owner);
    char *text = record_dataset_encode(d);
    dataset_free(d);
    return text;
}

static struct err *commit(struct store *s, uint64_t first, uint64_t n, uint64_t nodes)
{
    struct store_change changes[BATCH];
    bool uncertain;

    for (uint64_t i = 0; i < n; i++) {
        struct uuid id = measure_dataset(first + i);
        changes[i] = (struct store_change){.revision = first + i + 1,
                                           .kind = STORE_DATASET,
                                           .key = xstrdup(UUID_STR(&id)),
                                           .value = record(first + i, nodes)};
    }
    struct err *e = store_commit_sync(s, changes, n, &uncertain);
    for (uint64_t i = 0; i < n; i++) {
        free((char *)changes[i].key);
        free((char *)changes[i].value);
    }
    return e;
}

struct options {
    const char *data_path;
    long datasets, nodes;
};

static struct err *run(void *cookie, const char *operand)
{
    const struct options *o = cookie;
    struct store *s;
    struct err *e = store_open(o->data_path, &s);

    if (e)
        return e;
    for (uint64_t i = 0; i < (uint64_t)o->datasets && !e; i += BATCH) {
        uint64_t left = (uint64_t)o->datasets - i;
        e = commit(s, i, left < BATCH ? left : BATCH, (uint64_t)o->nodes);
    }
    store_close(s);
    return e;
}

static struct err *take(void *cookie, int id, const char *value)
{
    struct options *o = cookie;

    switch (id) {
    case 1:
        o->data_path = value;
        return NULL;
    case 2:
        return cli_parse_number("--datasets", value, 1, 100000000, &o->datasets);
    default:
        return cli_parse_number("--nodes", value, 1, 1000000, &o->nodes);
    }
}

int main(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {1, 'd', "data-path", "DIR", "Where to make the store"},
        {2, 0, "datasets", "N", "How many (1000)"},
        {3, 0, "nodes", "N", "On how many nodes (1)"},
    };
    static const struct cli_spec spec = {.program = "fill",
                                         .synopsis = "fill [options]",
                                         .options = options,
                                         .n_options = ARRAY_SIZE(options),
                                         .text = "Makes a store with datasets that are there already.",
                                         .take = take};
    struct options o = {.data_path = "store", .datasets = 1000, .nodes = 1};

    return measure_main(&spec, &o, argc, argv, run);
}
