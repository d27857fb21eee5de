/* What the control service is told: each thing when it differs from what it was told last in this session. */
#include "core/node_internal.h"

static void make_report(const struct node *n, const struct node_dataset *d, struct report *ret)
{
    struct report r = {.gone = d->gone};

    volume_state_copy(&r.volume, &d->volume);
    r.volume.dataset = d->id;
    if (d->has_order && (d->order.role == ROLE_SOURCE || d->order.role == ROLE_RELEASE) &&
        d->copy.transfer == d->order.transfer) {
        r.copied = d->copy.copied;
        r.bytes_sent = d->bytes_sent;
        r.bytes_total = d->bytes_total;
    }
    if (d->has_order && d->order.role == ROLE_RECEIVE) {
        const char *received = plan_received(&d->volume, d->order.transfer);
        r.received_snapshot = xstrdup_null(received);
        r.received = received ? d->order.transfer : 0;
    }
    const struct compared *c = &d->compared;
    if (d->has_order && d->order.compare && c->number == d->order.compare && c->end != COMPARISON_RUNS) {
        r.compared = xmemdup(c, sizeof(*c));
        r.compared->text = xstrdup_null(c->text);
    }
    r.space_wanted = n->space.is_short && d->has_order && d->order.role == ROLE_REPLICA;
    if (n->refused) {
        reason_set(
            &r.reason, REASON_STORE_UNKNOWN, n->refused_us, 0,
            "the control service answers from another or an older store than this node obeys");
    } else {
        reason_copy(&r.reason, &d->reason);
    }
    *ret = r;
}

static bool snapshots_same(const struct volume_state *a, const struct volume_state *b)
{
    if (a->n_snapshots != b->n_snapshots)
        return false;
    for (size_t i = 0; i < a->n_snapshots; i++) {
        if (!streq(a->snapshots[i], b->snapshots[i]))
            return false;
    }
    return true;
}

bool node_volume_same(const struct volume_state *a, const struct volume_state *b)
{
    return a->present == b->present && a->attached == b->attached &&
           a->attached_elsewhere == b->attached_elsewhere && a->mounted == b->mounted &&
           a->partial == b->partial && a->size == b->size && a->mark.state == b->mark.state &&
           a->mark.epoch == b->mark.epoch && a->mark.transfer == b->mark.transfer &&
           streq(a->mark.snapshot, b->mark.snapshot) && snapshots_same(a, b) &&
           str_equal_null(a->device, b->device);
}

static bool reason_same(const struct reason *a, const struct reason *b)
{
    return a->code == b->code && str_equal_null(a->text, b->text) && a->retry_us == b->retry_us;
}

static bool compared_same(const struct compared *a, const struct compared *b)
{
    return a && b ? a->number == b->number && a->end == b->end && str_equal_null(a->text, b->text) : a == b;
}

static bool report_same(const struct report *a, const struct report *b)
{
    return node_volume_same(&a->volume, &b->volume) && a->gone == b->gone && a->copied == b->copied &&
           a->received == b->received && str_equal_null(a->received_snapshot, b->received_snapshot) &&
           a->bytes_sent == b->bytes_sent && a->bytes_total == b->bytes_total &&
           a->space_wanted == b->space_wanted && compared_same(a->compared, b->compared) &&
           reason_same(&a->reason, &b->reason);
}

static void report_dataset(struct node *n, struct node_dataset *d)
{
    bool worth_telling = d->has_order || !plan_is_not_here(&d->volume, n->storage) ||
                         d->volume.mark.state != MARK_NONE;
    struct report r;

    if (!worth_telling) {
        if (d->reported)
            node_effect_push(n, NODE_REPORT_GONE)->dataset = d->id;
        d->reported = false;
        return;
    }
    if (!d->observed && d->reason.code == REASON_NONE)
        return; /* not looked yet: nothing can be said */
    make_report(n, d, &r);
    if (d->reported && report_same(&r, &d->last)) {
        report_done(&r);
        return;
    }
    report_copy(&node_effect_push(n, NODE_REPORT)->report, &r);
    report_done(&d->last);
    d->last = r;
    d->reported = true;
}

static void report_container(struct node *n, struct node_container *c)
{
    if (!c->has_order && c->state.run == CONTAINER_ABSENT) {
        if (c->reported)
            node_effect_push(n, NODE_CONTAINER_GONE)->name = xstrdup(c->name);
        c->reported = false;
        return;
    }
    /* Where it is to run now, nothing may be of it. */
    bool ended_before = c->has_order && c->order.action == CONTAINER_RUN &&
                        c->order.config->ended && c->state.run == CONTAINER_ABSENT;
    enum container_run run = ended_before ? CONTAINER_EXITED : c->state.run;
    struct container_report r = {
        .name = c->name,
        .run = run,
        .image_ready = c->image_ready,
        .created = ended_before ? c->order.config->created : c->state.created,
        .ended = ended_before || c->ended,
        .health = c->state.run == CONTAINER_RUNNING ? c->state.health : HEALTH_NONE,
        .has_exit_code = run == CONTAINER_EXITED,
        .exit_code = c->state.run == CONTAINER_EXITED ? c->state.exit_code : 0,
        .reason = c->reason};
    if (c->reported && c->last.run == r.run && c->last.image_ready == r.image_ready &&
        c->last.created == r.created && c->last.health == r.health &&
        c->last.has_exit_code == r.has_exit_code && c->last.exit_code == r.exit_code &&
        c->last.ended == r.ended && reason_same(&c->last.reason, &r.reason))
        return;
    struct container_report *out = &node_effect_push(n, NODE_CONTAINER_REPORT)->container_report;
    *out = r;
    out->name = xstrdup(c->name);
    reason_copy(&out->reason, &r.reason);
    container_report_done(&c->last);
    c->last = r;
    c->last.name = xstrdup(c->name);
    reason_copy(&c->last.reason, &r.reason);
    c->reported = true;
}

void node_report_all(struct node *n, struct now now)
{
    (void)now;
    if (!n->connected || !n->volumes_answered || !n->containers_answered)
        return;
    for (struct node_dataset *d = n->datasets; d; d = d->hh.next)
        report_dataset(n, d);
    for (struct node_container *c = n->containers; c; c = c->hh.next)
        report_container(n, c);
    node_report_routes(n);
    node_report_space(n);
    if (!n->complete || (n->told_storage_unknown && n->volumes_known)) {
        n->complete = true;
        n->told_storage_unknown = !n->volumes_known;
        node_effect_push(n, NODE_REPORTS_COMPLETE)->storage_unknown = !n->volumes_known;
    }
}
