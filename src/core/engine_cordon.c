/* Nodes that get nothing new by automatic placement. The engine only remembers it: who places, decides. */
#include "core/engine_internal.h"

static struct cordon_entry *cordon_find(const struct engine *e, const struct uuid *node)
{
    struct cordon_entry *c;

    HASH_FIND(hh, e->cordons, node, sizeof(*node), c);
    return c;
}

static struct cordon_entry *cordon_get(struct engine *e, const struct uuid *node)
{
    struct cordon_entry *c = cordon_find(e, node);

    if (c)
        return c;
    c = xcalloc(1, sizeof(*c));
    c->node = *node;
    HASH_ADD(hh, e->cordons, node, sizeof(c->node), c);
    return c;
}

static void cordon_gc(struct engine *e, struct cordon_entry *c)
{
    if (c->committed || c->head || c->pending)
        return;
    HASH_DEL(e->cordons, c);
    free(c);
}

enum result_code node_cordon(struct engine *e, const struct uuid *node, bool cordoned)
{
    const struct cordon_entry *known = cordon_find(e, node);

    if (!known && !node_entry_find(e, node))
        return RESULT_NODE_NOT_FOUND;
    if ((known && known->head) == cordoned)
        return RESULT_OK; /* as it is */
    struct cordon_entry *c = cordon_get(e, node);
    propose_cordon(e, node, cordoned);
    c->head = cordoned;
    c->pending++;
    return RESULT_OK;
}

void committed_cordon(struct engine *e, const struct change *change)
{
    struct uuid node;

    (void)uuid_parse(change->key, &node);
    struct cordon_entry *c = cordon_find(e, &node);
    c->pending--;
    c->committed = change->cordon != NULL;
    cordon_gc(e, c);
}

void roll_back_cordon(struct engine *e, const struct uuid *node)
{
    struct cordon_entry *c = cordon_find(e, node);

    if (!c)
        return;
    c->head = c->committed;
    c->pending = 0;
    cordon_gc(e, c);
}

void engine_restore_cordon(struct engine *e, const struct cordon *cordon)
{
    struct cordon_entry *c = cordon_get(e, &cordon->node);

    c->committed = c->head = true;
}

bool node_is_cordoned(const struct engine *e, const struct uuid *node)
{
    const struct cordon_entry *c = cordon_find(e, node);

    return c && c->committed;
}

void cordons_free(struct engine *e)
{
    struct cordon_entry *c, *next;

    HASH_ITER (hh, e->cordons, c, next) {
        HASH_DEL(e->cordons, c);
        free(c);
    }
}

void engine_each_cordon(const struct engine *e, void (*fn)(void *, const struct uuid *node), void *cookie)
{
    for (const struct cordon_entry *c = e->cordons; c; c = c->hh.next) {
        if (c->committed)
            fn(cookie, &c->node);
    }
}
