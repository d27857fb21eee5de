/* Simulated network: sessions as ordered streams that delay, repeat and break. */
#include "base/str.h"
#include "sim.h"

enum message_kind {
    MSG_HELLO,
    MSG_REPORT,
    MSG_REPORT_GONE,
    MSG_CONTAINER_REPORT,
    MSG_CONTAINER_GONE,
    MSG_REPORTS_COMPLETE,
    MSG_WELCOME,
    MSG_ORDER,
    MSG_ORDER_NONE,
    MSG_CONTAINER_ORDER,
    MSG_CONTAINER_NONE,
    MSG_ORDERS_COMPLETE,
    MSG_REFUSED,
};

struct sim_message {
    enum message_kind kind;
    struct hello hello;
    struct node_effect *from_node; /* owns what is reported */
    struct effect *from_engine;
};

void sim_message_free(struct sim_message *m)
{
    if (!m)
        return;
    hello_done(&m->hello);
    node_effect_free(m->from_node);
    effect_free(m->from_engine);
    free(m);
}

static void push(struct sim *s, unsigned node, uint64_t session, bool up, struct sim_message *m)
{
    struct sim_node *n = &s->nodes[node];
    uint64_t *last = up ? &n->last_up : &n->last_down;
    uint64_t at = s->now_us + 100 + sim_random(s, sim_chance(s, 5) ? 300000 : 3000);

    if (at <= *last)
        at = *last + 1;
    *last = at;
    struct event *ev = sim_schedule(s, at - s->now_us, up ? EV_TO_CONTROL : EV_TO_AGENT, node);
    ev->session = session;
    ev->message = m;
}

static struct sim_message *message_new(enum message_kind kind)
{
    struct sim_message *m = xcalloc(1, sizeof(*m));

    m->kind = kind;
    return m;
}

void sim_connect(struct sim *s, unsigned node)
{
    struct sim_node *n = &s->nodes[node];

    if (!n->brain || n->session)
        return;
    if (!s->engine || n->partitioned) {
        sim_schedule(s, 200000 + sim_random(s, 300000), EV_CONNECT, node)->incarnation =
            n->incarnation;
        return;
    }
    n->session = ++s->next_session;
    s->session_node[n->session & 0xffff] = node;
    struct sim_message *m = message_new(MSG_HELLO);
    m->hello = (struct hello){.protocol = AGENT_PROTOCOL_VERSION,
                              .node = n->id,
                              .era = n->era,
                              .version = xstrdup("sim"),
                              .host = xasprintf("10.0.0.%u", node),
                              .mover_port = 4525,
                              .storage = s->storage,
                              .shared_by = s->storage == STORAGE_ATTACHABLE ? s->history.store : UUID_NIL,
                              .backend = xstrdup("sim"),
                              .store = n->memory.store,
                              .generation = n->memory.generation,
                              .seen_revision = n->memory.seen_revision};
    push(s, node, n->session, /* up= */ true, m);
}

/* The connection is gone; each end notices in its own time. */
void sim_break_session(struct sim *s, unsigned node)
{
    struct sim_node *n = &s->nodes[node];

    if (!n->session)
        return;
    struct event *ev = sim_schedule(s, sim_random(s, 2000000), EV_CONTROL_CLOSED, node);
    ev->session = n->session;
    ev->incarnation = s->control_incarnation;
    ev = sim_schedule(s, sim_random(s, 2000000), EV_AGENT_CLOSED, node);
    ev->session = n->session;
    ev->incarnation = n->incarnation;
    /* What is on its way is lost: nothing of this session is delivered any more. */
    for (size_t i = 0; i < s->n_heap; i++) {
        struct event *e = s->heap[i];
        if ((e->kind == EV_TO_AGENT || e->kind == EV_TO_CONTROL) && e->session == n->session)
            e->session = 0;
    }
}

static void send_from_node(struct sim *s, unsigned node, enum message_kind kind,
                           struct node_effect *f)
{
    struct sim_node *n = &s->nodes[node];

    if (!n->session || n->partitioned) {
        node_effect_free(f);
        return;
    }
    struct sim_message *m = message_new(kind);
    m->from_node = f;
    push(s, node, n->session, /* up= */ true, m);
}

static void run_later(struct sim *s, unsigned node, struct node_effect *f)
{
    static const uint64_t longest[STEP_MAX] = {
        [STEP_SEND] = 2000000, [STEP_START] = 1000000, [STEP_STOP] = 3000000, [STEP_IMAGE] = 5000000,
        [STEP_LIST_VOLUMES] = 1000000, [STEP_LIST_CONTAINERS] = 500000,
    };
    uint64_t most = longest[f->step.kind] ? longest[f->step.kind] : 100000;
    struct event *ev = sim_schedule(s, 500 + sim_random(s, most), EV_STEP_DONE, node);

    ev->incarnation = s->nodes[node].incarnation;
    ev->step = f->step;
    f->step = (struct step){0};
    sim_look(s, ev);
    ev->fails_before = sim_faults(s) && sim_chance(s, 4);
    ev->fails_after = sim_faults(s) && sim_chance(s, 4);
    node_effect_free(f);
}

static void announce(struct sim *s, unsigned node, const struct node_effect *f)
{
    struct sim_volume *v = &s->nodes[node].volumes[sim_dataset_index(s, &f->dataset)];

    v->announced = f->transfer;
    v->announced_from = sim_node_index(s, &f->peer);
}

void sim_take_node_effects(struct sim *s, unsigned node)
{
    struct sim_node *n = &s->nodes[node];

    for (struct node_effect *f; n->brain && (f = node_next(n->brain));) {
        switch (f->kind) {
        case NODE_STEP:
            run_later(s, node, f);
            break;
        case NODE_PERSIST: {
            struct event *ev = sim_schedule(s, 200 + sim_random(s, 5000), EV_PERSISTED, node);
            ev->incarnation = n->incarnation;
            ev->memory = f->memory;
            node_effect_free(f);
            break;
        }
        case NODE_ANNOUNCE:
            announce(s, node, f);
            node_effect_free(f);
            break;
        case NODE_REPORT:
            send_from_node(s, node, MSG_REPORT, f);
            break;
        case NODE_REPORT_GONE:
            send_from_node(s, node, MSG_REPORT_GONE, f);
            break;
        case NODE_CONTAINER_REPORT:
            send_from_node(s, node, MSG_CONTAINER_REPORT, f);
            break;
        case NODE_CONTAINER_GONE:
            send_from_node(s, node, MSG_CONTAINER_GONE, f);
            break;
        case NODE_REPORTS_COMPLETE:
            send_from_node(s, node, MSG_REPORTS_COMPLETE, f);
            break;
        case NODE_CANCEL:
            node_effect_free(f); /* steps end by themselves soon */
            break;
        }
    }
}

static void send_from_engine(struct sim *s, struct effect *f, enum message_kind kind)
{
    unsigned node = s->session_node[f->session & 0xffff];
    struct sim_message *m = message_new(kind);

    m->from_engine = f;
    push(s, node, f->session, /* up= */ false, m);
}

static void take_reply(struct sim *s, const struct effect *f)
{
    unsigned i = f->command & 0x3fff;
    struct sim_dataset *d = &s->datasets[s->commands[i].dataset];
    bool ok = f->result.code == RESULT_OK || f->result.code == RESULT_CREATED;

    if (s->commands[i].id != f->command)
        return;
    sim_trace(s, "reply %d to command %d of d%u", f->result.code, s->commands[i].kind,
              s->commands[i].dataset);
    switch (s->commands[i].kind) {
    case COMMAND_DATASET_CREATE:
        d->exists = d->exists || ok || f->result.code == RESULT_DATASET_EXISTS;
        d->busy = false;
        break;
    case COMMAND_DATASET_DELETE:
        d->deleted = d->deleted || ok;
        d->busy = false;
        break;
    case COMMAND_CONTAINER_CREATE:
        d->container_exists = d->container_exists || ok || f->result.code == RESULT_CONTAINER_EXISTS;
        d->busy = false;
        break;
    case COMMAND_CONTAINER_DELETE:
        if (ok || f->result.code == RESULT_CONTAINER_NOT_FOUND)
            d->container_exists = false;
        d->busy = false;
        break;
    case COMMAND_LEASE_ACQUIRE:
        if (ok) {
            d->leased = true;
            d->lease_node = s->commands[i].node;
        }
        d->busy = false;
        break;
    default:
        d->busy = false;
        break;
    }
}

void sim_take_engine_effects(struct sim *s)
{
    if (!s->engine)
        return;
    engine_flush(s->engine, sim_now(s));
    for (struct effect *f; (f = engine_next(s->engine));) {
        switch (f->kind) {
        case EFFECT_COMMIT: {
            struct event *ev = sim_schedule(s, 200 + sim_random(s, 20000), EV_COMMITTED, 0);
            ev->incarnation = s->control_incarnation;
            ev->number = f->batch->id;
            ev->session = (uint64_t)(uintptr_t)f->batch; /* lives as long as the engine needs the answer */
            ev->fails_before = sim_faults(s) && sim_chance(s, 2);
            effect_free(f);
            break;
        }
        case EFFECT_REPLY:
            take_reply(s, f);
            effect_free(f);
            break;
        case EFFECT_WELCOME:
            send_from_engine(s, f, MSG_WELCOME);
            break;
        case EFFECT_ORDER:
            send_from_engine(s, f, MSG_ORDER);
            break;
        case EFFECT_ORDER_NONE:
            send_from_engine(s, f, MSG_ORDER_NONE);
            break;
        case EFFECT_CONTAINER_ORDER:
            send_from_engine(s, f, MSG_CONTAINER_ORDER);
            break;
        case EFFECT_CONTAINER_NONE:
            send_from_engine(s, f, MSG_CONTAINER_NONE);
            break;
        case EFFECT_ORDERS_COMPLETE:
            send_from_engine(s, f, MSG_ORDERS_COMPLETE);
            break;
        case EFFECT_REFUSE:
            send_from_engine(s, f, MSG_REFUSED);
            break;
        case EFFECT_CHANGED:
            effect_free(f);
            break;
        }
    }
}

static void to_control(struct sim *s, const struct event *ev)
{
    const struct sim_message *m = ev->message;
    struct now now = sim_now(s);

    switch (m->kind) {
    case MSG_HELLO:
        engine_session_open(s->engine, now, ev->session, &m->hello);
        break;
    case MSG_REPORT:
        engine_report(s->engine, now, ev->session, &m->from_node->report);
        break;
    case MSG_REPORT_GONE:
        engine_report_gone(s->engine, now, ev->session, &m->from_node->dataset);
        break;
    case MSG_CONTAINER_REPORT:
        engine_container_report(s->engine, now, ev->session, &m->from_node->container_report);
        break;
    case MSG_CONTAINER_GONE:
        engine_container_gone(s->engine, now, ev->session, m->from_node->name);
        break;
    case MSG_REPORTS_COMPLETE:
        engine_reports_complete(s->engine, now, ev->session);
        break;
    default:
        break;
    }
}

void sim_deliver_to_control(struct sim *s, struct event *ev)
{
    if (!s->engine || !ev->session || s->nodes[ev->node].partitioned)
        return;
    to_control(s, ev);
    if (ev->message->kind != MSG_HELLO && sim_chance(s, 3))
        to_control(s, ev); /* repeated */
}

static void to_agent(struct sim *s, const struct event *ev)
{
    struct sim_node *n = &s->nodes[ev->node];
    const struct effect *f = ev->message->from_engine;
    struct now now = sim_now(s);

    switch (ev->message->kind) {
    case MSG_WELCOME:
        node_session_up(n->brain, now, &f->welcome);
        break;
    case MSG_ORDER:
        sim_trace(s, "n%u order role %d epoch %llu transfer %llu d%u", ev->node, f->order.role,
                  (unsigned long long)f->order.epoch, (unsigned long long)f->order.transfer,
                  sim_dataset_index(s, &f->order.dataset));
        node_order(n->brain, now, &f->order);
        break;
    case MSG_ORDER_NONE:
        node_order_none(n->brain, now, &f->dataset);
        break;
    case MSG_CONTAINER_ORDER:
        sim_trace(s, "n%u container order %d %s created %llu", ev->node, f->container_order.action,
                  f->container_order.config->name,
                  (unsigned long long)f->container_order.config->created);
        node_container_order(n->brain, now, &f->container_order);
        break;
    case MSG_CONTAINER_NONE:
        sim_trace(s, "n%u container none %s", ev->node, f->name);
        node_container_none(n->brain, now, f->name);
        break;
    case MSG_ORDERS_COMPLETE:
        node_orders_complete(n->brain, now);
        break;
    case MSG_REFUSED:
        n->session = 0;
        node_session_down(n->brain, now);
        sim_schedule(s, 300000 + sim_random(s, 500000), EV_CONNECT, ev->node)->incarnation =
            n->incarnation;
        break;
    default:
        break;
    }
}

void sim_deliver_to_agent(struct sim *s, struct event *ev)
{
    struct sim_node *n = &s->nodes[ev->node];

    if (!n->brain || n->session != ev->session || !ev->session || n->partitioned)
        return;
    to_agent(s, ev);
    if (ev->message->kind != MSG_WELCOME && ev->message->kind != MSG_REFUSED && sim_chance(s, 3))
        to_agent(s, ev);
}
