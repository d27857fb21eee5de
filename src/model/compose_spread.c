/* Places for applications that nothing places: where their data are, else where they are; else, with a volume, where most room
 * is for it, and without one where there is least. The same files in the same cluster always give the same places. */
#include "model/compose_private.h"

#include "base/mem.h"

static int by_id(const void *a, const void *b)
{
    return uuid_cmp(a, b);
}

/* The node's number; -1 when it is not there. */
static ssize_t number_of(const struct compose_world *world, const struct uuid *node)
{
    const struct uuid *found =
        world->n_nodes ? bsearch(node, world->nodes, world->n_nodes, sizeof(*node), by_id) : NULL;

    return found ? found - world->nodes : -1;
}

/* Where the most of its datasets are; of two such nodes, that of the first dataset. False: none is anywhere. */
static bool find_data(const struct application *a, const struct compose_world *world,
                      struct uuid *ret)
{
    size_t most = 0;

    for (size_t i = 0; i < a->n_volumes; i++) {
        struct uuid node, other;
        size_t n = 0;
        if (!world->find_dataset(world->cookie, &a->volumes[i]->id, &node))
            continue;
        for (size_t k = 0; k < a->n_volumes; k++)
            n += world->find_dataset(world->cookie, &a->volumes[k]->id, &other) &&
                 uuid_eq(&other, &node);
        if (n <= most)
            continue;
        most = n;
        *ret = node;
    }
    return most != 0;
}

/* Data stay where they are, also while their node is away: a copy elsewhere would not be them. */
static bool find_home(const struct application *a, const struct compose_world *world,
                      struct uuid *ret)
{
    if (find_data(a, world, ret))
        return true;
    return world->find_container(world->cookie, a->name, ret) && number_of(world, ret) >= 0;
}

static int by_name(const void *a, const void *b)
{
    const struct application *const *p = a, *const *q = b;

    return strcmp((*p)->name, (*q)->name);
}

/* Of each node, with what is placed meanwhile. */
struct loads {
    const struct compose_world *world;
    size_t *counts; /* of applications */
    double *room;   /* NULL = not known */
};

static void loads_begin(struct loads *l, const struct compose_world *world)
{
    l->world = world;
    l->counts = xcalloc(world->n_nodes + 1, sizeof(*l->counts));
    if (world->room && world->n_nodes)
        l->room = xmemdup(world->room, world->n_nodes * sizeof(*l->room));
}

static void loads_done(struct loads *l)
{
    free(l->counts);
    free(l->room);
}

static bool is_better(const struct loads *l, size_t i, size_t than, bool by_room)
{
    if (by_room && l->room[i] != l->room[than])
        return l->room[i] > l->room[than];
    return l->counts[i] < l->counts[than];
}

/* The best open node; n_nodes when none is open. */
static size_t best_node(const struct loads *l, bool has_volume)
{
    const struct compose_world *world = l->world;
    size_t best = world->n_nodes;

    for (size_t i = 0; i < world->n_nodes; i++) {
        if (world->closed && world->closed[i])
            continue;
        if (best == world->n_nodes || is_better(l, i, best, has_volume && l->room))
            best = i;
    }
    return best;
}

/* A volume that is there already has its place in the room. */
static void count(struct loads *l, const struct application *a, size_t number)
{
    struct uuid home;

    l->counts[number]++;
    for (size_t i = 0; l->room && i < a->n_volumes; i++) {
        const struct dataset *d = a->volumes[i];
        if (!l->world->find_dataset(l->world->cookie, &d->id, &home))
            l->room[number] -= (double)(d->maximum_size ? d->maximum_size : DATASET_GUESSED_SIZE);
    }
}

static void put(struct application *a, const struct uuid *node)
{
    a->placed = true;
    a->node = *node;
}

char *compose_spread(struct applications *all, const struct compose_world *world)
{
    struct application **left = xcalloc(all->n + 1, sizeof(*left));
    CLEANUP(loads_done) struct loads loads = {0};
    size_t n = 0;
    struct uuid home;
    char *text = NULL;

    loads_begin(&loads, world);
    for (size_t i = 0; i < all->n; i++) {
        struct application *a = &all->all[i];
        if (!a->placed && find_home(a, world, &home))
            put(a, &home);
        ssize_t number = a->placed ? number_of(world, &a->node) : -1;
        if (number >= 0)
            count(&loads, a, (size_t)number);
        if (!a->placed)
            left[n++] = a;
    }
    if (n && !world->n_nodes)
        text = xstrdup("No node is there to spread over.");
    else if (n && best_node(&loads, /* has_volume= */ false) == world->n_nodes)
        text = xstrdup("All nodes are cordoned: there is none to spread over (flockerctl uncordon).");
    qsort(left, n, sizeof(*left), by_name);
    for (size_t i = 0; i < n && !text; i++) {
        size_t number = best_node(&loads, left[i]->n_volumes > 0);
        count(&loads, left[i], number);
        put(left[i], &world->nodes[number]);
    }
    free(left);
    return text;
}
