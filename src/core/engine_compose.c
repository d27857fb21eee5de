/* Replacing the whole configuration at once. All of it is checked before anything is collected. */
#include "core/engine_internal.h"

/* What the new configuration has, found by its keys. */
struct wanted_dataset {
    struct uuid id;
    struct uuid primary;
    bool used; /* by a container */
    UT_hash_handle hh;
};

struct wanted_container {
    const char *name; /* the container's: not to be looked at once that is handed over */
    UT_hash_handle hh;
};

struct index {
    struct wanted_dataset *datasets;
    struct wanted_container *containers;
    struct wanted_dataset *all_datasets; /* what the tables are made of */
    struct wanted_container *all_containers;
    bool *ports; /* external, UINT16_MAX + 1 of them: is it taken? */
};

static struct wanted_dataset *wanted_dataset(const struct index *x, const struct uuid *id)
{
    struct wanted_dataset *found;

    HASH_FIND(hh, x->datasets, id, sizeof(*id), found);
    return found;
}

static bool is_wanted_container(const struct index *x, const char *name)
{
    struct wanted_container *found;

    HASH_FIND_STR(x->containers, name, found);
    return found != NULL;
}

static void index_done(struct index *x)
{
    HASH_CLEAR(hh, x->datasets);
    HASH_CLEAR(hh, x->containers);
    free(x->all_datasets);
    free(x->all_containers);
    free(x->ports);
}

static enum result_code take_dataset(const struct engine *e, struct index *x, const struct dataset *d, size_t number)
{
    const struct dataset_entry *entry = dataset_entry_find(e, &d->id);
    struct wanted_dataset *w = &x->all_datasets[number];

    if (wanted_dataset(x, &d->id))
        return RESULT_DATASET_EXISTS;
    if (entry && entry->head && entry->head->deleted)
        return entry->head->purge ? RESULT_DATASET_LEAVING : RESULT_DATASET_DELETED;
    if (entry && entry->head && check_size(e, entry->head, d->maximum_size) != RESULT_OK)
        return check_size(e, entry->head, d->maximum_size);
    *w = (struct wanted_dataset){.id = d->id, .primary = d->primary};
    HASH_ADD(hh, x->datasets, id, sizeof(w->id), w);
    return RESULT_OK;
}

static enum result_code take_volume(struct index *x, const struct uuid *dataset,
                                    const struct uuid *node)
{
    struct wanted_dataset *d = wanted_dataset(x, dataset);

    if (!d)
        return RESULT_DATASET_NOT_FOUND;
    if (!uuid_eq(&d->primary, node))
        return RESULT_DATASET_ELSEWHERE;
    if (d->used)
        return RESULT_DATASET_IN_USE;
    d->used = true;
    return RESULT_OK;
}

/* One alias may stand for several ports of one application. */
static enum result_code check_links(const struct container *c)
{
    bool *taken = c->n_links ? xcalloc(UINT16_MAX + 1, sizeof(*taken)) : NULL;
    bool twice = false;

    for (size_t i = 0; i < c->n_links; i++) {
        twice |= taken[c->links[i].local_port];
        taken[c->links[i].local_port] = true;
    }
    free(taken);
    return twice ? RESULT_LINK_PORT : RESULT_OK;
}

static enum result_code take_ports(struct index *x, const struct container *k)
{
    for (size_t i = 0; i < k->n_ports; i++) {
        if (k->ports[i].external && x->ports[k->ports[i].external])
            return RESULT_PORT_IN_USE;
    }
    for (size_t i = 0; i < k->n_ports; i++)
        x->ports[k->ports[i].external] = true;
    return RESULT_OK;
}

static enum result_code take_container(struct index *x, const struct container *k, size_t number)
{
    struct wanted_container *w = &x->all_containers[number];
    enum result_code code = is_wanted_container(x, k->name) ? RESULT_CONTAINER_EXISTS : RESULT_OK;

    for (size_t i = 0; i < k->n_volumes && code == RESULT_OK; i++)
        code = take_volume(x, &k->volumes[i].dataset, &k->node);
    if (code == RESULT_OK)
        code = check_links(k);
    if (code == RESULT_OK)
        code = take_ports(x, k);
    if (code != RESULT_OK)
        return code;
    w->name = k->name;
    HASH_ADD_KEYPTR(hh, x->containers, w->name, strlen(w->name), w);
    return RESULT_OK;
}

/* One that was never written is removed when it is dropped, and one that is purged is on its way too: what it waits for. */
static char *leaving_text(const struct engine *e, const struct uuid *id)
{
    const struct dataset *d = dataset_entry_find(e, id)->head;
    CLEANUP_STR struct str s = {0};

    str_appendf(&s, "%s", UUID_STR(id));
    for (size_t i = 0; i < d->n_holders; i++)
        str_appendf(&s, "%s node %s%s", i ? "," : " waits for", UUID_STR(&d->holders[i]),
                    node_ready(e, &d->holders[i]) ? "" : ", which is not there");
    return str_steal(&s);
}

static size_t number_of(const struct index *x, const char *name)
{
    struct wanted_container *w;

    HASH_FIND_STR(x->containers, name, w);
    return (size_t)(w - x->all_containers); /* all that are asked for are there */
}

/* A walk from container to container along what they depend on. */
struct walk {
    struct step_of_walk {
        size_t container, next; /* of its dependencies */
    } *path;
    size_t n, cap;
    enum { UNSEEN, ON_PATH, SEEN } *colour; /* of each container */
};

static void walk_to(struct walk *w, size_t container)
{
    w->path = mem_grow(w->path, w->n, &w->cap, sizeof(*w->path));
    w->path[w->n++] = (struct step_of_walk){.container = container};
    w->colour[container] = ON_PATH;
}

/* Walks everywhere from the path's only step; true when it comes to where it has been on this path. Then the last
 * step's container depends on that one, *ret_again. */
static bool walks_in_circle(struct walk *w, const struct composition *c, const struct index *x, size_t *ret_again)
{
    while (w->n) {
        struct step_of_walk *s = &w->path[w->n - 1];
        const struct container *k = c->containers[s->container];
        if (s->next == k->n_depends_on) {
            w->colour[s->container] = SEEN;
            w->n--;
            continue;
        }
        size_t to = number_of(x, k->depends_on[s->next++].name);
        *ret_again = to;
        if (w->colour[to] == ON_PATH)
            return true;
        if (w->colour[to] == UNSEEN)
            walk_to(w, to);
    }
    return false;
}

static enum result_code refuse_circles(const struct composition *c, const struct index *x, struct command_result *r)
{
    struct walk w = {.colour = xcalloc(c->n_containers + 1, sizeof(*w.colour))};
    size_t again;
    bool found = false;

    for (size_t i = 0; i < c->n_containers && !found; i++) {
        if (w.colour[i] == SEEN)
            continue;
        walk_to(&w, i);
        found = walks_in_circle(&w, c, x, &again);
    }
    if (found)
        r->text = xasprintf("%s depends on %s, which depends on it", c->containers[w.path[w.n - 1].container]->name,
                            c->containers[again]->name);
    free(w.path);
    free(w.colour);
    return found ? RESULT_DEPENDENCY_CIRCLE : RESULT_OK;
}

static enum result_code check_all_dependencies(const struct composition *c, const struct index *x,
                                               struct command_result *r)
{
    for (size_t i = 0; i < c->n_containers; i++) {
        const struct container *k = c->containers[i];
        for (size_t d = 0; d < k->n_depends_on; d++) {
            if (is_wanted_container(x, k->depends_on[d].name))
                continue;
            r->text = xasprintf("%s depends on %s", k->name, k->depends_on[d].name);
            return RESULT_DEPENDENCY_MISSING;
        }
    }
    return refuse_circles(c, x, r);
}

/* Checks all of it. When something is wrong, result->text names it. */
static enum result_code index_composition(const struct engine *e, const struct composition *c, struct index *x,
                                          struct command_result *r)
{
    x->all_datasets = xcalloc(c->n_datasets + 1, sizeof(*x->all_datasets));
    x->all_containers = xcalloc(c->n_containers + 1, sizeof(*x->all_containers));
    x->ports = xcalloc(UINT16_MAX + 1, sizeof(*x->ports));
    for (size_t i = 0; i < c->n_datasets; i++) {
        enum result_code code = take_dataset(e, x, c->datasets[i], i);
        if (code != RESULT_OK) {
            r->text = code == RESULT_DATASET_LEAVING ? leaving_text(e, &c->datasets[i]->id)
                                                     : xstrdup(UUID_STR(&c->datasets[i]->id));
            return code;
        }
    }
    for (size_t i = 0; i < c->n_containers; i++) {
        enum result_code code = take_container(x, c->containers[i], i);
        if (code != RESULT_OK) {
            r->text = xstrdup(c->containers[i]->name);
            return code;
        }
    }
    return check_all_dependencies(c, x, r);
}

/* ---- what changes: it is done, or noted in a plan ---- */

static void plan_add(struct plan *p, const struct planned *planned)
{
    p->all = mem_grow(p->all, p->n, &p->cap, sizeof(*p->all));
    p->all[p->n] = *planned;
    p->all[p->n].key = xstrdup(planned->key);
    p->all[p->n++].name = xstrdup_null(planned->name);
}

void plan_done(struct plan *p)
{
    for (size_t i = 0; i < p->n; i++) {
        free(p->all[i].key);
        free(p->all[i].name);
    }
    free(p->all);
    *p = (struct plan){0};
}

static void plan_dataset_change(struct plan *p, const struct dataset *now, const struct dataset *wanted,
                                enum planned_action action)
{
    const struct dataset *any = wanted ? wanted : now;

    if (!any) /* one of both is there */
        return;
    plan_add(p, &(struct planned){.kind = OBJECT_DATASET,
                                  .action = action,
                                  .key = UUID_STR(&any->id),
                                  .name = (char *)(uintptr_t)metadata_get(&any->metadata, "name"),
                                  .from = now ? now->owner : UUID_NIL,
                                  .to = wanted ? wanted->primary : UUID_NIL});
}

static void plan_container_change(struct plan *p, const struct container *now, const struct container *wanted,
                                  enum planned_action action)
{
    const struct container *any = wanted ? wanted : now;

    if (!any)
        return;
    plan_add(p, &(struct planned){.kind = OBJECT_CONTAINER,
                                  .action = action,
                                  .key = any->name,
                                  .from = now ? now->node : UUID_NIL,
                                  .to = wanted ? wanted->node : UUID_NIL});
}

/* What Docker has mounted is not part of a composition. */
static void drop_all_leases(struct engine *e, struct plan *plan)
{
    for (struct lease_entry *l = e->leases; l; l = l->hh.next) {
        if (l->head && !l->head->acquired)
            continue;
        if (l->head && plan)
            plan_add(plan, &(struct planned){.kind = OBJECT_LEASE,
                                             .action = PLANNED_RELEASE,
                                             .key = UUID_STR(&l->head->dataset),
                                             .from = l->head->node});
        else if (l->head)
            propose_lease(e, l, without_acquisition(l));
    }
}

static void drop_dataset(struct engine *e, struct dataset_entry *entry, struct plan *plan)
{
    if (plan) {
        plan_dataset_change(plan, entry->head, NULL, entry->head->deleted ? PLANNED_FORGET : PLANNED_DROP);
        return;
    }
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
           (!wanted->maximum_size || d->maximum_size == wanted->maximum_size) &&
           metadata_same(&d->metadata, &wanted->metadata);
}

static void set_dataset(struct engine *e, struct dataset **wanted, struct plan *plan)
{
    struct dataset_entry *entry = dataset_entry_find(e, &(*wanted)->id);
    const struct dataset *head = entry ? entry->head : NULL;

    if (head && is_wanted_so(head, *wanted))
        return;
    if (plan) {
        plan_dataset_change(plan, head, *wanted,
                            !head                                            ? PLANNED_CREATE
                            : head->dropped                                  ? PLANNED_RETURN
                            : uuid_eq(&head->primary, &(*wanted)->primary) ? PLANNED_CHANGE
                                                                             : PLANNED_MOVE);
    } else if (head) {
        propose_dataset(e, entry, configured_again(head, *wanted));
    } else {
        entry = dataset_entry_get(e, &(*wanted)->id);
        grant_at_birth(e, entry, *wanted);
        propose_dataset(e, entry, steal(wanted));
    }
}

static void replace_datasets(struct engine *e, struct composition *c, const struct index *x, struct plan *plan)
{
    for (struct dataset_entry *d = e->datasets; d; d = d->hh.next) {
        if (d->head && !d->head->dropped && !d->head->purge && !wanted_dataset(x, &d->id))
            drop_dataset(e, d, plan);
    }
    for (size_t i = 0; i < c->n_datasets; i++)
        set_dataset(e, &c->datasets[i], plan);
}

static void set_container(struct engine *e, struct container **wanted, struct plan *plan)
{
    struct container_entry *entry = container_entry_find(e, (*wanted)->name);
    const struct container *head = entry ? entry->head : NULL;

    container_settle_links(*wanted);
    container_settle_volumes(*wanted);
    bool same = head && container_same_settings(head, *wanted);
    bool here = head && uuid_eq(&head->node, &(*wanted)->node);
    if (same && here && container_same_dependencies(head, *wanted))
        return;
    if (plan) {
        plan_container_change(plan, head, *wanted,
                              !head           ? PLANNED_CREATE
                              : same && !here ? PLANNED_MOVE
                                              : PLANNED_CHANGE);
        return;
    }
    (*wanted)->created = same ? head->created : next_number(e);
    (*wanted)->ended = same && head->ended;
    entry = container_entry_get(e, (*wanted)->name);
    propose_container(e, entry, steal(wanted));
}

static void replace_containers(struct engine *e, struct composition *c, const struct index *x, struct plan *plan)
{
    for (struct container_entry *k = e->containers; k; k = k->hh.next) {
        if (!k->head || is_wanted_container(x, k->name))
            continue;
        if (plan)
            plan_container_change(plan, k->head, NULL, PLANNED_REMOVE);
        else
            propose_container(e, k, NULL);
    }
    for (size_t i = 0; i < c->n_containers; i++)
        set_container(e, &c->containers[i], plan);
}

static void replace_all(struct engine *e, struct composition *c, const struct index *x, struct plan *plan)
{
    drop_all_leases(e, plan);
    replace_datasets(e, c, x, plan);
    replace_containers(e, c, x, plan);
}

enum result_code compose(struct engine *e, struct command *c, struct command_result *r)
{
    struct index x = {0};
    enum result_code code = index_composition(e, c->composition, &x, r);

    if (code == RESULT_OK)
        replace_all(e, c->composition, &x, NULL);
    index_done(&x);
    return code;
}

enum result_code engine_plan(const struct engine *e, struct composition *c, struct plan *ret_plan, char **ret_text)
{
    struct command_result r = {0};
    struct index x = {0};
    struct plan plan = {0};
    enum result_code code = index_composition(e, c, &x, &r);

    if (code == RESULT_OK)
        replace_all((struct engine *)(uintptr_t)e, c, &x, &plan); /* which only looks, for the plan is there */
    index_done(&x);
    *ret_plan = plan;
    *ret_text = r.text;
    return code;
}
