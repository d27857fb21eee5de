#include "model/lease.h"

#include "base/mem.h"

void lease_done(struct lease *l)
{
    for (size_t i = 0; i < l->n_mounts; i++)
        free(l->mounts[i]);
    free(l->mounts);
    *l = (struct lease){0};
}

void lease_copy(struct lease *to, const struct lease *from)
{
    *to = *from;
    to->mounts = from->n_mounts ? xcalloc(from->n_mounts, sizeof(*to->mounts)) : NULL;
    for (size_t i = 0; i < from->n_mounts; i++)
        to->mounts[i] = xstrdup(from->mounts[i]);
}

struct lease *lease_dup(const struct lease *l)
{
    struct lease *copy = l ? xcalloc(1, sizeof(*copy)) : NULL;

    if (copy)
        lease_copy(copy, l);
    return copy;
}

struct lease *lease_free(struct lease *l)
{
    if (l)
        lease_done(l);
    free(l);
    return NULL;
}

/* Where it is, or belongs. */
static size_t place_of(const struct lease *l, const char *id)
{
    size_t low = 0, high = l->n_mounts;

    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(l->mounts[middle], id) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

bool lease_has_mount(const struct lease *l, const char *id)
{
    size_t place = place_of(l, id);

    return place < l->n_mounts && strcmp(l->mounts[place], id) == 0;
}

void lease_add_mount(struct lease *l, const char *id)
{
    size_t place = place_of(l, id);

    if (lease_has_mount(l, id))
        return;
    l->mounts = xrealloc(l->mounts, l->n_mounts + 1, sizeof(*l->mounts));
    memmove(&l->mounts[place + 1], &l->mounts[place], (l->n_mounts - place) * sizeof(*l->mounts));
    l->mounts[place] = xstrdup(id);
    l->n_mounts++;
}

bool lease_remove_mount(struct lease *l, const char *id)
{
    size_t place = place_of(l, id);

    if (!lease_has_mount(l, id))
        return false;
    free(l->mounts[place]);
    l->n_mounts--;
    memmove(&l->mounts[place], &l->mounts[place + 1], (l->n_mounts - place) * sizeof(*l->mounts));
    return true;
}
