#include "model/agent.h"

#include "base/mem.h"
#include "base/str.h"

void order_done(struct order *o)
{
    free(o->base);
    free(o->peer_host);
    metadata_done(&o->metadata);
    *o = (struct order){0};
}

void order_copy(struct order *to, const struct order *from)
{
    *to = *from;
    to->base = xstrdup_null(from->base);
    to->peer_host = xstrdup_null(from->peer_host);
    to->metadata = (struct metadata){0};
    metadata_copy(&to->metadata, &from->metadata);
}

bool order_same(const struct order *a, const struct order *b)
{
    return uuid_eq(&a->dataset, &b->dataset) && a->role == b->role && a->epoch == b->epoch &&
           a->born == b->born && str_equal_null(a->base, b->base) && a->transfer == b->transfer &&
           uuid_eq(&a->peer, &b->peer) && str_equal_null(a->peer_host, b->peer_host) &&
           a->peer_port == b->peer_port && a->number == b->number &&
           a->maximum_size == b->maximum_size && metadata_same(&a->metadata, &b->metadata);
}

void container_order_done(struct container_order *o)
{
    o->config = container_free(o->config);
}

void report_done(struct report *r)
{
    volume_state_done(&r->volume);
    reason_done(&r->reason);
    *r = (struct report){0};
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
