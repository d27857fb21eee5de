/* The original's configuration file. The first byte says whether the datasets are taken as empty. What is taken can be
 * stored, in the order of its numbers, and nothing stands there twice. */
#include "fuzz.h"

#include "model/import.h"
#include "model/record.h"

static void check_number(const struct import *i, uint64_t revision, bool *seen)
{
    RULE(revision >= 1 && revision <= i->revision && !seen[revision]);
    seen[revision] = true;
}

static void check(const struct import *i, bool empty)
{
    bool *seen = xcalloc(i->revision + 1, sizeof(*seen));

    for (size_t k = 0; k < i->n_datasets; k++) {
        const struct dataset *d = i->datasets[k];
        CLEANUP_FREE char *record = record_dataset_encode(d);
        RULE(record);
        RULE(d->born == (!empty && !d->deleted) && (!d->born || uuid_eq(&d->owner, &d->primary)));
        check_number(i, d->revision, seen);
    }
    for (size_t k = 0; k < i->n_containers; k++) {
        CLEANUP_FREE char *record = record_container_encode(i->containers[k]);
        RULE(record && !(empty && i->containers[k]->n_volumes));
        check_number(i, i->containers[k]->revision, seen);
    }
    for (size_t k = 0; k < i->n_leases; k++) {
        CLEANUP_FREE char *record = record_lease_encode(&i->leases[k]);
        RULE(record);
        check_number(i, i->leases[k].revision, seen);
    }
    for (size_t k = 0; k < i->n_notes; k++)
        RULE(*i->notes[k]);
    RULE(i->revision == i->n_datasets + i->n_containers + i->n_leases);
    free(seen);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct import i = {0};

    if (!size)
        return -1;
    bool empty = data[0] == 'e';
    CLEANUP_ERR struct err *e =
        import_parse((const char *)data + 1, size - 1, empty ? IMPORT_EMPTY : 0, &i);
    RULE(e ? *e->text && !i.n_datasets && !i.n_notes : true);
    if (!e)
        check(&i, empty);
    import_done(&i);
    return 0;
}
