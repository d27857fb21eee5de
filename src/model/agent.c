#include "model/agent.h"

#include "base/mem.h"
#include "base/str.h"

#include <xxhash.h>

void order_add_fenced(struct order *o, const struct uuid *node)
{
    if (o->n_fenced == ORDER_MAX_FENCED)
        return;
    o->fenced = xrealloc(o->fenced, o->n_fenced + 1, sizeof(*o->fenced));
    o->fenced[o->n_fenced++] = *node;
}

void order_done(struct order *o)
{
    free(o->fenced);
    free(o->base);
    free(o->keep);
    free(o->peer_host);
    metadata_done(&o->metadata);
    *o = (struct order){0};
}

void order_copy(struct order *to, const struct order *from)
{
    *to = *from;
    to->base = xstrdup_null(from->base);
    to->keep = xstrdup_null(from->keep);
    to->peer_host = xstrdup_null(from->peer_host);
    to->fenced = xmemdup(from->fenced, from->n_fenced * sizeof(*from->fenced));
    to->metadata = (struct metadata){0};
    metadata_copy(&to->metadata, &from->metadata);
}

static bool same_fenced(const struct order *a, const struct order *b)
{
    if (a->n_fenced != b->n_fenced)
        return false;
    for (size_t i = 0; i < a->n_fenced; i++) {
        if (!uuid_eq(&a->fenced[i], &b->fenced[i]))
            return false;
    }
    return true;
}

bool order_same(const struct order *a, const struct order *b)
{
    return uuid_eq(&a->dataset, &b->dataset) && a->role == b->role && a->epoch == b->epoch &&
           a->born == b->born && str_equal_null(a->base, b->base) &&
           str_equal_null(a->keep, b->keep) && a->transfer == b->transfer &&
           uuid_eq(&a->peer, &b->peer) && str_equal_null(a->peer_host, b->peer_host) &&
           a->peer_port == b->peer_port && a->compare == b->compare && a->number == b->number &&
           same_fenced(a, b) && a->maximum_size == b->maximum_size && metadata_same(&a->metadata, &b->metadata);
}

static void put_text(struct str *s, const char *text)
{
    uint64_t n = text ? strlen(text) : UINT64_MAX;

    str_append_bytes(s, &n, sizeof(n));
    if (text)
        str_append_bytes(s, text, (size_t)n);
}

struct digest order_digest(const struct order *o)
{
    const uint64_t numbers[] = {(uint64_t)o->role, o->epoch,  o->born,         o->transfer,
                                o->peer_port,      o->number, o->maximum_size, o->metadata.n, o->compare, o->n_fenced};
    CLEANUP_STR struct str s = {0};

    str_append_bytes(&s, &o->dataset, sizeof(o->dataset));
    str_append_bytes(&s, &o->peer, sizeof(o->peer));
    str_append_bytes(&s, numbers, sizeof(numbers));
    str_append_bytes(&s, o->fenced, o->n_fenced * sizeof(*o->fenced));
    put_text(&s, o->base);
    put_text(&s, o->keep);
    put_text(&s, o->peer_host);
    for (size_t i = 0; i < o->metadata.n; i++) {
        put_text(&s, o->metadata.entries[i].key);
        put_text(&s, o->metadata.entries[i].value);
    }
    XXH128_hash_t d = XXH3_128bits(s.data, s.len);
    return (struct digest){d.low64, d.high64};
}

void container_order_done(struct container_order *o)
{
    o->config = container_free(o->config);
}

void compared_done(struct compared *c)
{
    free(c->text);
    *c = (struct compared){0};
}

static struct compared *compared_copy(const struct compared *from)
{
    if (!from)
        return NULL;
    struct compared *to = xmemdup(from, sizeof(*from));

    to->text = xstrdup_null(from->text);
    return to;
}

void route_done(struct port_route *r)
{
    free(r->host);
    free(r->container);
    *r = (struct port_route){0};
}

void route_copy(struct port_route *to, const struct port_route *from)
{
    *to = *from;
    to->host = xstrdup_null(from->host);
    to->container = xstrdup_null(from->container);
}

bool route_same(const struct port_route *a, const struct port_route *b)
{
    return a->port == b->port && uuid_eq(&a->node, &b->node) && str_equal_null(a->host, b->host) &&
           str_equal_null(a->container, b->container);
}

void report_done(struct report *r)
{
    if (r->compared)
        compared_done(r->compared);
    free(r->compared);
    volume_state_done(&r->volume);
    free(r->received_snapshot);
    reason_done(&r->reason);
    *r = (struct report){0};
}

void report_copy(struct report *to, const struct report *from)
{
    *to = *from;
    volume_state_copy(&to->volume, &from->volume);
    to->compared = compared_copy(from->compared);
    to->received_snapshot = xstrdup_null(from->received_snapshot);
    reason_copy(&to->reason, &from->reason);
}

void container_report_done(struct container_report *r)
{
    free(r->name);
    reason_done(&r->reason);
    *r = (struct container_report){0};
}

void hello_done(struct hello *h)
{
    free(h->version);
    free(h->host);
    free(h->backend);
    *h = (struct hello){0};
}
