/* Replacing the whole configuration at once. All of it is checked before anything is collected. */
#include "core/engine_internal.h"

void composition_done(struct composition *c)
{
    for (size_t i = 0; i < c->n_datasets; i++)
        dataset_free(c->datasets[i]);
    for (size_t i = 0; i < c->n_containers; i++)
        container_free(c->containers[i]);
    free(c->datasets);
    free(c->containers);
    *c = (struct composition){0};
}

static const struct dataset *wanted_dataset(const struct composition *c, const struct uuid *id)
{
    for (size_t i = 0; i < c->n_datasets; i++) {
        if (c->datasets[i] && uuid_eq(&c->datasets[i]->id, id))
            return c->datasets[i];
    }
    return NULL;
}

static const struct container *wanted_container(const struct composition *c, const char *name)
{
    for (size_t i = 0; i < c->n_containers; i++) {
        if (c->containers[i] && streq(c->containers[i]->name, name))
            return c->containers[i];
    }
    return NULL;
}

static enum result_code check_datasets(const struct engine *e, const struct composition *c,
                                       struct command_result *r)
{
    for (size_t i = 0; i < c->n_datasets; i++) {
        const struct dataset_entry *entry = dataset_entry_find(e, &c->datasets[i]->id);
        enum result_code code = RESULT_OK;
        if (wanted_dataset(c, &c->datasets[i]->id) != c->datasets[i])
            code = RESULT_DATASET_EXISTS;
        else if (entry && entry->head && entry->head->deleted)
            code = RESULT_DATASET_DELETED;
        if (code == RESULT_OK)
            continue;
        r->text = xstrdup(UUID_STR(&c->datasets[i]->id));
        return code;
    }
    return RESULT_OK;
}

static bool shares_port(const struct container *a, const struct container *b)
{
    for (size_t i = 0; i < a->n_ports; i++) {
        for (size_t k = 0; k < b->n_ports; k++) {
            if (a->ports[i].external && a->ports[i].external == b->ports[k].external)
                return true;
        }
    }
    return false;
}

static enum result_code check_volume(const struct composition *c, const struct container *k)
{
    const struct dataset *d = wanted_dataset(c, &k->dataset);

    if (!d)
        return RESULT_DATASET_NOT_FOUND;
    return uuid_eq(&d->primary, &k->node) ? RESULT_OK : RESULT_DATASET_ELSEWHERE;
}

/* Against those before it in the list. */
static enum result_code check_container(const struct composition *c, size_t number)
{
    const struct container *k = c->containers[number];
    enum result_code code = k->has_volume ? check_volume(c, k) : RESULT_OK;

    if (code == RESULT_OK)
        code = container_check_links(k);
    for (size_t i = 0; i < number && code == RESULT_OK; i++) {
        const struct container *other = c->containers[i];
        if (streq(k->name, other->name))
            code = RESULT_CONTAINER_EXISTS;
        else if (k->has_volume && other->has_volume && uuid_eq(&k->dataset, &other->dataset))
            code = RESULT_DATASET_IN_USE;
        else if (shares_port(k, other))
            code = RESULT_PORT_IN_USE;
    }
    return code;
}

static enum result_code check_containers(const struct composition *c, struct command_result *r)
{
    for (size_t i = 0; i < c->n_containers; i++) {
        enum result_code code = check_container(c, i);
        if (code == RESULT_OK)
            continue;
        r->text = xstrdup(c->containers[i]->name);
        return code;
    }
    return RESULT_OK;
}

static void drop_all_leases(struct engine *e)
{
    for (struct lease_entry *l = e->leases; l; l = l->hh.next) {
        if (l->head)
            propose_lease(e, l, NULL);
    }
}

static void drop_dataset(struct engine *e, struct dataset_entry *entry)
{
    struct dataset *d = dataset_copy(entry->head);

    if (d->deleted) {
        d->purge = true;
    } else {
        d->dropped = true;
        if (!uuid_is_nil(&d->owner))
            d->primary = d->owner; /* a move that is under way is taken back */
    }
    propose_dataset(e, entry, d);
}

static bool is_wanted_so(const struct dataset *d, const struct dataset *wanted)
{
    return !d->dropped && uuid_eq(&d->primary, &wanted->primary) &&
           d->maximum_size == wanted->maximum_size &&
           metadata_same(&d->metadata, &wanted->metadata);
}

static void replace_datasets(struct engine *e, struct composition *c)
{
    for (struct dataset_entry *d = e->datasets; d; d = d->hh.next) {
        if (d->head && !d->head->dropped && !d->head->purge && !wanted_dataset(c, &d->id))
            drop_dataset(e, d);
    }
    for (size_t i = 0; i < c->n_datasets; i++) {
        struct dataset_entry *entry = dataset_entry_get(e, &c->datasets[i]->id);
        if (!entry->head) {
            grant_at_birth(e, entry, c->datasets[i]);
            propose_dataset(e, entry, steal(&c->datasets[i]));
        } else if (!is_wanted_so(entry->head, c->datasets[i])) {
            propose_dataset(e, entry, configured_again(entry->head, c->datasets[i]));
        }
    }
}

static void replace_container(struct engine *e, struct container_entry *entry,
                              struct container *wanted)
{
    container_settle_links(wanted);
    if (entry->head && container_same_settings(entry->head, wanted)) {
        wanted->created = entry->head->created;
        if (uuid_eq(&entry->head->node, &wanted->node)) {
            container_free(wanted);
            return;
        }
    } else {
        wanted->created = next_number(e);
    }
    propose_container(e, entry, wanted);
}

static void replace_containers(struct engine *e, struct composition *c)
{
    for (struct container_entry *k = e->containers; k; k = k->hh.next) {
        if (k->head && !wanted_container(c, k->name))
            propose_container(e, k, NULL);
    }
    for (size_t i = 0; i < c->n_containers; i++) {
        struct container *wanted = steal(&c->containers[i]);
        replace_container(e, container_entry_get(e, wanted->name), wanted);
    }
}

enum result_code compose(struct engine *e, struct command *c, struct command_result *r)
{
    enum result_code code = check_datasets(e, c->composition, r);

    if (code == RESULT_OK)
        code = check_containers(c->composition, r);
    if (code != RESULT_OK)
        return code;
    drop_all_leases(e);
    replace_datasets(e, c->composition);
    replace_containers(e, c->composition);
    return RESULT_OK;
}
