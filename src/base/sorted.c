#include "base/sorted.h"

#include "base/mem.h"

/* How many chunks begin with an item that is not after the key. */
static size_t chunks_up_to(const struct sorted *s, sorted_compare_fn *compare, const void *key)
{
    size_t low = 0, high = s->n_chunks;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(key, s->chunks[middle]->items[0]) < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

struct sorted_place sorted_after(const struct sorted *s, sorted_compare_fn *compare, const void *key)
{
    size_t chunk = key ? chunks_up_to(s, compare, key) : 0;

    if (chunk == 0)
        return (struct sorted_place){0, 0};
    const struct sorted_chunk *c = s->chunks[--chunk];
    size_t low = 1, high = c->n; /* the first one is not after the key */
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (compare(key, c->items[middle]) < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return (struct sorted_place){chunk, low};
}

void *sorted_next(const struct sorted *s, struct sorted_place *place)
{
    if (place->chunk < s->n_chunks && place->number == s->chunks[place->chunk]->n)
        *place = (struct sorted_place){place->chunk + 1, 0};
    return place->chunk < s->n_chunks ? s->chunks[place->chunk]->items[place->number++] : NULL;
}

static struct sorted_chunk *insert_chunk(struct sorted *s, size_t at)
{
    struct sorted_chunk *c = xmalloc(sizeof(*c));

    c->n = 0;
    s->chunks = mem_grow(s->chunks, s->n_chunks, &s->cap, sizeof(struct sorted_chunk *));
    memmove(&s->chunks[at + 1], &s->chunks[at], (s->n_chunks - at) * sizeof(struct sorted_chunk *));
    s->n_chunks++;
    return s->chunks[at] = c;
}

/* Makes room in the full chunk of the place. What comes in order fills its chunks; else each half has room. */
static struct sorted_place split(struct sorted *s, struct sorted_place place)
{
    struct sorted_chunk *c = s->chunks[place.chunk], *next = insert_chunk(s, place.chunk + 1);
    size_t kept = place.number == c->n && place.chunk + 2 == s->n_chunks ? c->n : c->n / 2;

    next->n = c->n - kept;
    memcpy(next->items, &c->items[kept], next->n * sizeof(void *));
    c->n = kept;
    return place.number > kept || next->n == 0
               ? (struct sorted_place){place.chunk + 1, place.number - kept}
               : place;
}

void sorted_add(struct sorted *s, sorted_compare_fn *compare, const void *key, void *item)
{
    struct sorted_place place = sorted_after(s, compare, key);

    if (s->n_chunks == 0)
        insert_chunk(s, 0);
    else if (s->chunks[place.chunk]->n == SORTED_CHUNK)
        place = split(s, place);
    struct sorted_chunk *c = s->chunks[place.chunk];
    memmove(&c->items[place.number + 1], &c->items[place.number],
            (c->n++ - place.number) * sizeof(void *));
    c->items[place.number] = item;
}

static void remove_chunk(struct sorted *s, size_t at)
{
    free(s->chunks[at]);
    s->n_chunks--;
    memmove(&s->chunks[at], &s->chunks[at + 1], (s->n_chunks - at) * sizeof(struct sorted_chunk *));
}

/* Two neighbours that fill no more than half a chunk become one: so memory follows when a set shrinks. */
static void merge(struct sorted *s, size_t at)
{
    if (at + 1 >= s->n_chunks || s->chunks[at]->n + s->chunks[at + 1]->n > SORTED_CHUNK / 2)
        return;
    struct sorted_chunk *c = s->chunks[at], *next = s->chunks[at + 1];
    memcpy(&c->items[c->n], next->items, next->n * sizeof(void *));
    c->n += next->n;
    remove_chunk(s, at + 1);
}

void sorted_remove(struct sorted *s, sorted_compare_fn *compare, const void *key)
{
    struct sorted_place place = sorted_after(s, compare, key);

    if (place.number == 0) /* nothing is at the key or before it */
        return;
    struct sorted_chunk *c = s->chunks[place.chunk];
    if (compare(key, c->items[place.number - 1]) != 0)
        return;
    memmove(&c->items[place.number - 1], &c->items[place.number],
            (c->n-- - place.number) * sizeof(void *));
    if (c->n == 0) {
        remove_chunk(s, place.chunk);
        return;
    }
    merge(s, place.chunk);
    if (place.chunk > 0)
        merge(s, place.chunk - 1);
}

void sorted_fill(struct sorted *s, void *const *items, size_t n)
{
    for (size_t i = 0; i < n; i += SORTED_CHUNK) {
        struct sorted_chunk *c = insert_chunk(s, s->n_chunks);
        c->n = n - i < SORTED_CHUNK ? n - i : SORTED_CHUNK;
        memcpy(c->items, &items[i], c->n * sizeof(void *));
    }
}

void sorted_done(struct sorted *s)
{
    for (size_t i = 0; i < s->n_chunks; i++)
        free(s->chunks[i]);
    free(s->chunks);
    *s = (struct sorted){0};
}
