#include "model/dataset.h"

#include "base/mem.h"
#include "base/str.h"

struct dataset *dataset_new(struct uuid id)
{
    struct dataset *d = xcalloc(1, sizeof(*d));

    d->id = id;
    return d;
}

struct dataset *dataset_copy(const struct dataset *d)
{
    struct dataset *c = xmemdup(d, sizeof(*d));

    c->metadata = (struct metadata){0};
    metadata_copy(&c->metadata, &d->metadata);
    c->base = xstrdup_null(d->base);
    c->holders = xmemdup(d->holders, d->n_holders * sizeof(*d->holders));
    c->replica = d->replica ? xmemdup(d->replica, sizeof(*d->replica)) : NULL;
    c->fenced = d->fenced ? xmemdup(d->fenced, sizeof(*d->fenced)) : NULL;
    if (c->fenced)
        c->fenced->nodes = xmemdup(d->fenced->nodes, d->fenced->n_nodes * sizeof(*d->fenced->nodes));
    return c;
}

static struct fenced *fenced_free(struct fenced *f)
{
    if (f)
        free(f->nodes);
    free(f);
    return NULL;
}

struct dataset *dataset_free(struct dataset *d)
{
    if (!d)
        return NULL;
    metadata_done(&d->metadata);
    free(d->base);
    free(d->holders);
    free(d->replica);
    fenced_free(d->fenced);
    free(d);
    return NULL;
}

bool dataset_has_holder(const struct dataset *d, const struct uuid *node)
{
    for (size_t i = 0; i < d->n_holders; i++) {
        if (uuid_eq(&d->holders[i], node))
            return true;
    }
    return false;
}

void dataset_add_holder(struct dataset *d, const struct uuid *node)
{
    if (dataset_has_holder(d, node))
        return;
    d->holders = xrealloc(d->holders, d->n_holders + 1, sizeof(*d->holders));
    d->holders[d->n_holders++] = *node;
}

void dataset_remove_holder(struct dataset *d, const struct uuid *node)
{
    for (size_t i = 0; i < d->n_holders; i++) {
        if (!uuid_eq(&d->holders[i], node))
            continue;
        d->n_holders--;
        memmove(d->holders + i, d->holders + i + 1, (d->n_holders - i) * sizeof(*d->holders));
        break;
    }
    dataset_remove_fenced(d, node);
}

bool dataset_is_replica(const struct dataset *d, const struct uuid *node)
{
    return d->replica && uuid_eq(&d->replica->node, node);
}

bool dataset_is_fenced(const struct dataset *d, const struct uuid *node)
{
    for (size_t i = 0; d->fenced && i < d->fenced->n_nodes; i++) {
        if (uuid_eq(&d->fenced->nodes[i], node))
            return true;
    }
    return false;
}

void dataset_add_fenced(struct dataset *d, const struct uuid *node)
{
    const struct uuid copy = *node; /* it may be one of the list */

    if (!d->fenced)
        d->fenced = xcalloc(1, sizeof(*d->fenced));
    struct fenced *f = d->fenced;
    for (size_t i = 0; i < f->n_nodes; i++) {
        if (!uuid_eq(&f->nodes[i], &copy))
            continue;
        f->n_nodes--;
        memmove(f->nodes + i, f->nodes + i + 1, (f->n_nodes - i) * sizeof(*f->nodes));
    }
    f->nodes = xrealloc(f->nodes, f->n_nodes + 1, sizeof(*f->nodes));
    f->nodes[f->n_nodes++] = copy;
}

void dataset_remove_fenced(struct dataset *d, const struct uuid *node)
{
    struct fenced *f = d->fenced;

    for (size_t i = 0; f && i < f->n_nodes; i++) {
        if (!uuid_eq(&f->nodes[i], node))
            continue;
        f->n_nodes--;
        memmove(f->nodes + i, f->nodes + i + 1, (f->n_nodes - i) * sizeof(*f->nodes));
        break;
    }
    if (f && !f->n_nodes)
        d->fenced = fenced_free(f);
}

const struct uuid *dataset_freed_from(const struct dataset *d)
{
    return d->fenced && d->fenced->freed ? &d->fenced->nodes[d->fenced->n_nodes - 1] : NULL;
}

void dataset_end_freed(struct dataset *d)
{
    if (!d->fenced)
        return;
    d->fenced->freed = d->fenced->freed_us = d->fenced->transfer = 0;
    d->fenced->destination = UUID_NIL;
}

void metadata_copy(struct metadata *to, const struct metadata *from)
{
    to->entries = xcalloc(from->n, sizeof(*to->entries));
    to->n = from->n;
    for (size_t i = 0; i < from->n; i++) {
        to->entries[i].key = xstrdup(from->entries[i].key);
        to->entries[i].value = xstrdup(from->entries[i].value);
    }
}

void metadata_done(struct metadata *m)
{
    for (size_t i = 0; i < m->n; i++) {
        free(m->entries[i].key);
        free(m->entries[i].value);
    }
    free(m->entries);
    *m = (struct metadata){0};
}

const char *metadata_get(const struct metadata *m, const char *key)
{
    for (size_t i = 0; i < m->n; i++) {
        if (streq(m->entries[i].key, key))
            return m->entries[i].value;
    }
    return NULL;
}

bool metadata_same(const struct metadata *a, const struct metadata *b)
{
    if (a->n != b->n)
        return false;
    for (size_t i = 0; i < a->n; i++) {
        if (!streq(a->entries[i].key, b->entries[i].key) ||
            !streq(a->entries[i].value, b->entries[i].value))
            return false;
    }
    return true;
}
