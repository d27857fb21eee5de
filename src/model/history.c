#include "model/history.h"

#include "base/mem.h"

void history_copy(struct history *to, const struct history *from)
{
    *to = *from;
    to->generations =
        from->n ? xmemdup(from->generations, from->n * sizeof(*from->generations)) : NULL;
}

void history_done(struct history *h)
{
    free(h->generations);
    *h = (struct history){0};
}

struct uuid history_generation(const struct history *h)
{
    return h->n ? h->generations[h->n - 1].id : UUID_NIL;
}

uint64_t history_end(const struct history *h, const struct uuid *generation, uint64_t revision)
{
    for (size_t i = h->n; i-- > 0;) {
        if (uuid_eq(&h->generations[i].id, generation))
            return i + 1 < h->n ? h->generations[i + 1].begin : revision;
    }
    return 0;
}
