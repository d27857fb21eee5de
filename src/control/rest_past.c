/* What became of datasets and containers lately: for each of the last that changed, its last states.
 * Memory only: it begins anew with the process. */
#include "control/rest_internal.h"

#define OBJECTS_KEPT 4096 /* the one that changed longest ago is forgotten first */
#define STATES_KEPT 16

struct state {
    uint64_t wall_us;
    struct brief brief;
};

struct past {
    char *key;                        /* "d" or "c", and the object's */
    struct state states[STATES_KEPT]; /* the n-th at n % STATES_KEPT */
    uint64_t n;
    UT_hash_handle hh;
};

static char *key_of(enum object_kind kind, const char *key)
{
    return xasprintf("%c%s", kind == OBJECT_DATASET ? 'd' : 'c', key);
}

static void forget(struct rest *rest, struct past *h)
{
    HASH_DEL(rest->past, h);
    free(h->key);
    free(h);
}

static bool same(const struct brief *a, const struct brief *b)
{
    return streq(a->status, b->status) && a->reason == b->reason && uuid_eq(&a->node, &b->node);
}

/* Finds or makes it, and puts it last in the order of forgetting. */
static struct past *get(struct rest *rest, char *key)
{
    struct past *h;

    HASH_FIND_STR(rest->past, key, h);
    if (h) {
        HASH_DEL(rest->past, h);
        free(key);
    } else {
        h = xcalloc(1, sizeof(*h));
        h->key = key;
    }
    HASH_ADD_KEYPTR(hh, rest->past, h->key, strlen(h->key), h);
    if (HASH_COUNT(rest->past) > OBJECTS_KEPT)
        forget(rest, rest->past);
    return h;
}

void past_note(struct rest *rest, enum object_kind kind, const char *key)
{
    struct state now = {.wall_us = now_os().wall_us};
    struct past *h;

    if (kind != OBJECT_DATASET && kind != OBJECT_CONTAINER)
        return;
    char *name = key_of(kind, key);
    if (kind == OBJECT_DATASET ? dataset_brief(rest, key, &now.brief)
                               : container_brief(rest, key, &now.brief)) {
        h = get(rest, name);
        if (h->n == 0 || !same(&h->states[(h->n - 1) % STATES_KEPT].brief, &now.brief))
            h->states[h->n++ % STATES_KEPT] = now;
        return;
    }
    HASH_FIND_STR(rest->past, name, h);
    if (h)
        forget(rest, h);
    free(name);
}

json_t *past_value(const struct rest *rest, enum object_kind kind, const char *key)
{
    CLEANUP_FREE char *name = key_of(kind, key);
    json_t *list = json_array();
    struct past *h;

    HASH_FIND_STR(rest->past, name, h);
    for (uint64_t i = h && h->n > STATES_KEPT ? h->n - STATES_KEPT : 0; h && i < h->n; i++) {
        const struct state *s = &h->states[i % STATES_KEPT];
        enum reason_code reason = s->brief.reason;
        (void)json_array_append_new(
            list,
            json_pack("{s:f, s:s, s:o, s:o}", "time", (double)s->wall_us / USEC_PER_SEC, "status",
                      s->brief.status, "node", json_uuid_or_null(&s->brief.node), "reason",
                      reason == REASON_NONE ? json_null() : json_string(reason_code_name(reason))));
    }
    return list;
}

struct past *past_free(struct past *h)
{
    struct past *one, *next;

    HASH_ITER (hh, h, one, next) {
        HASH_DEL(h, one);
        free(one->key);
        free(one);
    }
    return NULL;
}
