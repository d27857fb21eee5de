/* Simulated network: sessions as ordered streams that delay, repeat, stall, break at each end in its own time, and
 * deliver late what was sent before they broke. */
#include "sim.h"

#include "base/str.h"

enum message_kind {
    MSG_HELLO,
    MSG_REPORT,
    MSG_REPORT_GONE,
    MSG_CONTAINER_REPORT,
    MSG_CONTAINER_GONE,
    MSG_ROUTES_REPORT,
    MSG_SPACE_REPORT,
    MSG_SIGHTING,
    MSG_SIGHTINGS_COMPLETE,
    MSG_REPORTS_COMPLETE,
    MSG_VOLUME_CALL,
    MSG_VOLUME_USE,
    MSG_VOLUME_USES_COMPLETE,
    MSG_VOLUME_ANSWER,
    MSG_WELCOME,
    MSG_ORDER,
    MSG_ORDER_NONE,
    MSG_CONTAINER_ORDER,
    MSG_CONTAINER_NONE,
    MSG_ROUTE,
    MSG_ROUTE_NONE,
    MSG_LIST_ORDER,
    MSG_SIGHTING_OF_OTHER,
    MSG_ORDERS_COMPLETE,
    MSG_REFUSED,
};

struct sim_message {
    enum message_kind kind;
    uint64_t ready_us;
    struct hello hello;
    struct node_effect *from_node; /* owns what is reported */
    struct effect *from_engine;
    struct volume_call call;
    struct volume_use use;
    struct volume_answer answer;
    struct sim_message *next;
};

static void message_free(struct sim_message *m)
{
    hello_done(&m->hello);
    node_effect_free(m->from_node);
    effect_free(m->from_engine);
    volume_call_done(&m->call);
    volume_use_done(&m->use);
    volume_answer_done(&m->answer);
    free(m);
}

static void drop_messages(struct sim_message **first, struct sim_message ***last)
{
    while (*first) {
        struct sim_message *m = *first;
        *first = m->next;
        message_free(m);
    }
    *last = first;
}

static struct sim_session *session_of(const struct sim *s, uint64_t number)
{
    return number && number <= s->n_sessions ? s->sessions[number - 1] : NULL;
}

static void end_session(struct sim_session *c)
{
    c->dead = true;
    drop_messages(&c->up, &c->up_last);
    drop_messages(&c->down, &c->down_last);
}

void sim_net_done(struct sim *s)
{
    for (size_t i = 0; i < s->n_sessions; i++) {
        end_session(s->sessions[i]);
        free(s->sessions[i]);
    }
    free(s->sessions);
}

static void push(struct sim *s, struct sim_session *c, bool up, struct sim_message *m)
{
    uint64_t *last = up ? &c->last_up_us : &c->last_down_us;
    uint64_t most = sim_until(s, s->slow_net_us) ? 2 * USEC_PER_SEC
                    : sim_chance(s, 5)           ? 300000
                                                 : 3000;
    uint64_t at = s->now_us + 100 + sim_random(s, most);

    if (at <= *last)
        at = *last + 1;
    *last = at;
    m->ready_us = at;
    if (up) {
        *c->up_last = m;
        c->up_last = &m->next;
    } else {
        *c->down_last = m;
        c->down_last = &m->next;
    }
    sim_schedule(s, at - s->now_us, up ? EV_TO_CONTROL : EV_TO_AGENT, c->host)->session = c->number;
}

static struct sim_message *message_new(enum message_kind kind)
{
    struct sim_message *m = xcalloc(1, sizeof(*m));

    m->kind = kind;
    return m;
}

static void connect_later(struct sim *s, unsigned host)
{
    sim_schedule_for_agent(s, 200000 + sim_random(s, 500000), EV_CONNECT, host);
}

static struct hello hello_of(const struct sim *s, unsigned host)
{
    const struct sim_host *h = &s->hosts[host];

    return (struct hello){.protocol = AGENT_PROTOCOL_VERSION,
                          .node = h->id,
                          .era = h->era,
                          .version = xstrdup("sim"),
                          .host = xasprintf("10.0.0.%u", host),
                          .mover_port = 4525,
                          .routes = sim_knows_routes(s, host),
                          .volumes = sim_knows_volumes(s, host),
                          .storage = s->storage,
                          .shared_by = sim_is_shared(s) ? s->store.history.store : UUID_NIL,
                          .backend = xstrdup("sim"),
                          .replicas = s->options.seed % 7 ? REPLICAS_ALL : REPLICAS_NO_LIMIT,
                          .compares = s->options.seed % 11 || host % 2,
                          .extended = true,
                          .more_volumes = true,
                          .grows = s->options.seed % 13 || host % 2,
                          .lists = sim_shares_lists(s, host),
                          .calls = sim_shares_lists(s, host),
                          .store = h->memory.store,
                          .generation = h->memory.generation,
                          .seen_revision = h->memory.seen_revision};
}

void sim_connect(struct sim *s, unsigned host)
{
    struct sim_host *h = &s->hosts[host];

    if (h->session)
        return;
    if (!s->engine || h->cut_up || h->cut_down) {
        connect_later(s, host);
        return;
    }
    struct sim_session *c = xcalloc(1, sizeof(*c));
    s->sessions =
        mem_grow(s->sessions, s->n_sessions, &s->cap_sessions, sizeof(struct sim_session *));
    s->sessions[s->n_sessions++] = c;
    c->number = h->session = s->n_sessions;
    c->host = host;
    c->agent = h->incarnation;
    c->control = s->control_incarnation;
    c->agent_open = c->control_open = true;
    c->up_last = &c->up;
    c->down_last = &c->down;
    struct sim_message *m = message_new(MSG_HELLO);
    m->hello = hello_of(s, host);
    push(s, c, /* up= */ true, m);
}

static void control_notices(struct sim *s, const struct sim_session *c, uint64_t us)
{
    struct event *ev = sim_schedule(s, us, EV_CONTROL_CLOSED, c->host);

    ev->session = c->number;
    ev->incarnation = c->control;
}

static void agent_notices(struct sim *s, const struct sim_session *c, uint64_t us)
{
    struct event *ev = sim_schedule(s, us, EV_AGENT_CLOSED, c->host);

    ev->session = c->number;
    ev->incarnation = c->agent;
}

void sim_break_session(struct sim *s, unsigned host, uint64_t agent_us, uint64_t control_us)
{
    struct sim_session *c = session_of(s, s->hosts[host].session);

    if (!c || c->dead)
        return;
    control_notices(s, c, sim_random(s, control_us));
    agent_notices(s, c, sim_random(s, agent_us));
    /* What is on its way is lost, or (then the control service is slow to notice) arrives late. */
    if (sim_chance(s, 60))
        end_session(c);
    else
        drop_messages(&c->down, &c->down_last);
}

static struct sim_session *session_up(struct sim *s, unsigned host)
{
    struct sim_session *c = session_of(s, s->hosts[host].session);

    return c && !c->dead && c->control_open ? c : NULL;
}

void sim_send_call(struct sim *s, unsigned host, const struct volume_call *call)
{
    struct sim_session *c = session_up(s, host);

    if (!c)
        return;
    struct sim_message *m = message_new(MSG_VOLUME_CALL);
    volume_call_copy(&m->call, call);
    push(s, c, /* up= */ true, m);
}

void sim_send_use(struct sim *s, unsigned host, const struct volume_use *use)
{
    struct sim_session *c = session_up(s, host);

    if (!c)
        return;
    struct sim_message *m = message_new(use ? MSG_VOLUME_USE : MSG_VOLUME_USES_COMPLETE);
    if (use)
        m->use = (struct volume_use){.dataset = use->dataset, .mount = xstrdup(use->mount)};
    push(s, c, /* up= */ true, m);
}

void sim_send_answer(struct sim *s, uint64_t session, const struct volume_answer *a)
{
    struct sim_session *c = session_of(s, session);

    if (!c || c->dead || !c->agent_open || !c->control_open)
        return;
    struct sim_message *m = message_new(MSG_VOLUME_ANSWER);
    m->answer = *a;
    m->answer.text = xstrdup_null(a->text);
    push(s, c, /* up= */ false, m);
}

/* The agent's process is gone. */
void sim_agent_gone(struct sim *s, unsigned host)
{
    struct sim_session *c = session_of(s, s->hosts[host].session);

    s->hosts[host].session = 0;
    if (!c)
        return;
    c->agent_open = false;
    drop_messages(&c->down, &c->down_last);
    if (c->control_open)
        control_notices(s, c, sim_random(s, sim_chance(s, 20) ? 12 * USEC_PER_SEC : USEC_PER_SEC));
}

void sim_agent_closed(struct sim *s, const struct event *ev)
{
    struct sim_host *h = &s->hosts[ev->host];
    struct sim_session *c = session_of(s, ev->session);

    if (h->session != ev->session || !c)
        return;
    h->session = 0;
    c->agent_open = false;
    drop_messages(&c->down, &c->down_last);
    if (c->control_open)
        control_notices(s, c, sim_random(s, 3 * USEC_PER_SEC));
    sim_mounts_session(s, ev->host, 0);
    sim_trace(s, "h%u lost its session %llu", ev->host, (unsigned long long)ev->session);
    node_session_down(h->brain, sim_now(s));
    sim_connect(s, ev->host);
}

static void close_control_end(struct sim *s, struct sim_session *c)
{
    if (!c->control_open)
        return;
    c->control_open = false;
    drop_messages(&c->up, &c->up_last);
    if (c->agent_open)
        agent_notices(s, c,
                      sim_random(s, USEC_PER_SEC) +
                          (c->last_down_us > s->now_us ? c->last_down_us - s->now_us : 0));
    engine_session_closed(s->engine, sim_control_now(s), c->number);
}

void sim_control_closed(struct sim *s, const struct event *ev)
{
    struct sim_session *c = session_of(s, ev->session);

    if (!c || c->control != s->control_incarnation)
        return;
    sim_trace(s, "control lost session %llu of h%u", (unsigned long long)ev->session, c->host);
    close_control_end(s, c);
}

/* What stalled goes on, if the stream still lives. */
void sim_net_healed(struct sim *s, unsigned host)
{
    for (size_t i = 0; i < s->n_sessions; i++) {
        struct sim_session *c = s->sessions[i];
        if (c->host != host || c->dead)
            continue;
        for (const struct sim_message *m = c->up; m; m = m->next)
            sim_schedule(s, 1, EV_TO_CONTROL, host)->session = c->number;
        for (const struct sim_message *m = c->down; m; m = m->next)
            sim_schedule(s, 1, EV_TO_AGENT, host)->session = c->number;
    }
}

static void send_from_node(struct sim *s, unsigned host, enum message_kind kind,
                           struct node_effect *f)
{
    struct sim_session *c = session_of(s, s->hosts[host].session);

    if (!c || c->dead || !c->control_open) {
        node_effect_free(f);
        return;
    }
    struct sim_message *m = message_new(kind);
    m->from_node = f;
    push(s, c, /* up= */ true, m);
}

static void announce(struct sim *s, unsigned host, const struct node_effect *f)
{
    int d = sim_dataset_index(s, &f->dataset);

    if (d < 0)
        return;
    s->hosts[host].volumes[d].announced = f->transfer;
    s->hosts[host].volumes[d].announced_from = f->peer;
    s->hosts[host].volumes[d].only_compare = f->only_compare;
}

void sim_take_node_effects(struct sim *s, unsigned host)
{
    static const enum message_kind kinds[] = {
        [NODE_REPORT] = MSG_REPORT,
        [NODE_REPORT_GONE] = MSG_REPORT_GONE,
        [NODE_CONTAINER_REPORT] = MSG_CONTAINER_REPORT,
        [NODE_CONTAINER_GONE] = MSG_CONTAINER_GONE,
        [NODE_ROUTES_REPORT] = MSG_ROUTES_REPORT,
        [NODE_SPACE_REPORT] = MSG_SPACE_REPORT,
        [NODE_SIGHTING] = MSG_SIGHTING,
        [NODE_SIGHTINGS_COMPLETE] = MSG_SIGHTINGS_COMPLETE,
        [NODE_REPORTS_COMPLETE] = MSG_REPORTS_COMPLETE,
    };
    struct sim_host *h = &s->hosts[host];

    if (h->brain && sim_chance(s, 15))
        return; /* the agent takes several inputs in one turn */
    for (struct node_effect *f; h->brain && (f = node_next(h->brain));) {
        switch (f->kind) {
        case NODE_STEP:
            sim_begin_step(s, host, &f->step);
            break;
        case NODE_PERSIST:
            sim_schedule_for_agent(s, 200 + sim_random(s, 5000), EV_PERSISTED, host)->memory =
                f->memory;
            break;
        case NODE_ANNOUNCE:
            announce(s, host, f);
            break;
        case NODE_CANCEL:
            sim_cancel_step(s, host, f->step_id);
            break;
        case NODE_REPORT:
        case NODE_REPORT_GONE:
        case NODE_CONTAINER_REPORT:
        case NODE_CONTAINER_GONE:
        case NODE_ROUTES_REPORT:
        case NODE_SPACE_REPORT:
        case NODE_SIGHTING:
        case NODE_SIGHTINGS_COMPLETE:
        case NODE_REPORTS_COMPLETE:
            send_from_node(s, host, kinds[f->kind], f);
            continue; /* the message owns it */
        }
        node_effect_free(f);
    }
}

static void send_from_engine(struct sim *s, struct effect *f, enum message_kind kind)
{
    struct sim_session *c = session_of(s, f->session);

    if (!c || c->dead || !c->agent_open || !c->control_open) {
        effect_free(f);
        return;
    }
    struct sim_message *m = message_new(kind);
    m->from_engine = f;
    push(s, c, /* up= */ false, m);
}

/* Two machines with one certificate must not be served at once. */
static void check_welcome(struct sim *s, uint64_t number)
{
    const struct sim_session *c = session_of(s, number);

    for (size_t i = 0; i < s->n_sessions; i++) {
        const struct sim_session *o = s->sessions[i];
        bool served = o->greeted || o->ended_us == s->now_us; /* nor one take it over from the other */
        if (o != c && served && o->control_open && o->control == c->control && o->host != c->host && uuid_eq(&s->hosts[o->host].id, &s->hosts[c->host].id))
            sim_violation(s, V_SESSION, "h%u and h%u are served as one node", o->host, c->host);
    }
    s->sessions[number - 1]->greeted = true;
}

/* The engine wants the session ended: it is, soon; until then messages of it still come in. */
static void refuse(struct sim *s, struct effect *f)
{
    const struct sim_session *c = session_of(s, f->session);

    sim_trace(s, "session %llu refused: %s", (unsigned long long)f->session, f->text);
    if (c)
        control_notices(s, c, sim_random(s, 500000));
    if (s->sessions[f->session - 1]->greeted)
        s->sessions[f->session - 1]->ended_us = s->now_us;
    s->sessions[f->session - 1]->greeted = false;
    send_from_engine(s, f, MSG_REFUSED);
}

static void commit_later(struct sim *s, const struct effect *f)
{
    uint64_t most = sim_until(s, s->store.slow_us) ? 3 * USEC_PER_SEC : 20000;
    struct event *ev = sim_schedule(s, 200 + sim_random(s, most), EV_COMMITTED, 0);

    ev->incarnation = s->control_incarnation;
    ev->number = f->batch->id;
    ev->batch = f->batch; /* lives as long as the engine needs the answer */
    ev->fails_before = sim_until(s, s->store.full_us) || (sim_faults(s) && sim_chance(s, 2));
}

static void take_engine_effect(struct sim *s, struct effect *f)
{
    switch (f->kind) {
    case EFFECT_COMMIT:
        commit_later(s, f);
        break;
    case EFFECT_REPLY:
        sim_reply(s, f->command, &f->result);
        break;
    case EFFECT_CHANGED:
    case EFFECT_VOLUME:
        break;
    case EFFECT_WELCOME:
        check_welcome(s, f->session);
        send_from_engine(s, f, MSG_WELCOME);
        return;
    case EFFECT_ORDER:
        send_from_engine(s, f, MSG_ORDER);
        return;
    case EFFECT_ORDER_NONE:
        send_from_engine(s, f, MSG_ORDER_NONE);
        return;
    case EFFECT_CONTAINER_ORDER:
        send_from_engine(s, f, MSG_CONTAINER_ORDER);
        return;
    case EFFECT_CONTAINER_NONE:
        send_from_engine(s, f, MSG_CONTAINER_NONE);
        return;
    case EFFECT_ROUTE:
        send_from_engine(s, f, MSG_ROUTE);
        return;
    case EFFECT_ROUTE_NONE:
        send_from_engine(s, f, MSG_ROUTE_NONE);
        return;
    case EFFECT_LIST_ORDER:
        send_from_engine(s, f, MSG_LIST_ORDER);
        return;
    case EFFECT_SIGHTING:
        send_from_engine(s, f, MSG_SIGHTING_OF_OTHER);
        return;
    case EFFECT_CALLS_SHARE: /* the simulated storage has no API */
        break;
    case EFFECT_ORDERS_COMPLETE:
        send_from_engine(s, f, MSG_ORDERS_COMPLETE);
        return;
    case EFFECT_REFUSE:
        refuse(s, f);
        return;
    }
    effect_free(f);
}

void sim_take_engine_effects(struct sim *s)
{
    if (!s->engine)
        return;
    engine_flush(s->engine, sim_control_now(s));
    for (struct effect *f; (f = engine_next(s->engine));)
        take_engine_effect(s, f);
}

/* ---- delivery ---- */

static void to_control(struct sim *s, const struct sim_session *c, const struct sim_message *m)
{
    struct now now = sim_control_now(s);

    s->engine_touched = true;
    switch (m->kind) {
    case MSG_HELLO:
        engine_session_open(s->engine, now, c->number, &m->hello);
        break;
    case MSG_REPORT:
        engine_report(s->engine, now, c->number, &m->from_node->report);
        break;
    case MSG_REPORT_GONE:
        engine_report_gone(s->engine, now, c->number, &m->from_node->dataset);
        break;
    case MSG_CONTAINER_REPORT:
        engine_container_report(s->engine, now, c->number, &m->from_node->container_report);
        break;
    case MSG_CONTAINER_GONE:
        engine_container_gone(s->engine, now, c->number, m->from_node->name);
        break;
    case MSG_ROUTES_REPORT:
        engine_routes_report(s->engine, now, c->number, &m->from_node->routes_report);
        break;
    case MSG_VOLUME_CALL:
        sim_mounts_call(s, c->number, &m->call);
        break;
    case MSG_VOLUME_USE:
        engine_volume_use(s->engine, now, c->number, &m->use);
        break;
    case MSG_VOLUME_USES_COMPLETE:
        engine_volume_uses_complete(s->engine, now, c->number);
        break;
    case MSG_SPACE_REPORT:
        engine_space_report(s->engine, now, c->number, &m->from_node->space);
        break;
    case MSG_SIGHTING:
        engine_sighting(s->engine, now, c->number, &m->from_node->sighting);
        break;
    case MSG_SIGHTINGS_COMPLETE:
        engine_sightings_complete(s->engine, now, c->number);
        break;
    case MSG_REPORTS_COMPLETE:
        engine_reports_complete(s->engine, now, c->number,
                                m->from_node->storage_unknown ? REPORTS_STORAGE_UNKNOWN : 0);
        break;
    default:
        break;
    }
}

static void hear_sighting(struct sim *s, unsigned host, const struct sighting *told)
{
    struct node_sighting seen = {.dataset = told->dataset, .present = told->present, .size = told->size};
    CLEANUP_FREE char *own = xasprintf("h%u", host);

    if (told->present)
        seen.attached = sighting_where(told->hosts, own);
    sim_trace(s, "h%u hears of d%d: %s, attached to %s", host, sim_dataset_index(s, &told->dataset),
              told->present ? "there" : "gone", told->hosts ? told->hosts : "none");
    node_seen(s->hosts[host].brain, sim_now(s), &seen);
}

static void to_agent(struct sim *s, struct sim_session *c, const struct sim_message *m)
{
    struct sim_host *h = &s->hosts[c->host];
    const struct effect *f = m->from_engine;
    struct now now = sim_now(s);

    if ((m->kind == MSG_ROUTE || m->kind == MSG_ROUTE_NONE) && !sim_knows_routes(s, c->host))
        sim_violation(s, V_SESSION, "h%u was told a route and does not know what that is", c->host);
    if ((m->kind == MSG_LIST_ORDER || m->kind == MSG_SIGHTING_OF_OTHER) && !sim_shares_lists(s, c->host))
        sim_violation(s, V_SESSION, "h%u was told of lists and does not know what that is", c->host);
    switch (m->kind) {
    case MSG_WELCOME:
        sim_trace(s, "h%u welcome at revision %llu", c->host,
                  (unsigned long long)f->welcome.revision);
        node_session_up(h->brain, now, &f->welcome);
        if (node_hello_is_outdated(h->brain))
            sim_break_session(s, c->host, 1000, 4 * USEC_PER_SEC);
        else if (sim_knows_volumes(s, c->host) && !node_store_refused(h->brain))
            sim_mounts_session(s, c->host, c->number);
        break;
    case MSG_VOLUME_ANSWER:
        sim_mounts_answer(s, c->host, &m->answer);
        break;
    case MSG_ORDER:
        sim_trace(s, "h%u order role %d d%d epoch %llu transfer %llu number %llu", c->host,
                  f->order.role, sim_dataset_index(s, &f->order.dataset),
                  (unsigned long long)f->order.epoch, (unsigned long long)f->order.transfer,
                  (unsigned long long)f->order.number);
        node_order(h->brain, now, &f->order);
        break;
    case MSG_ORDER_NONE:
        node_order_none(h->brain, now, &f->dataset);
        break;
    case MSG_CONTAINER_ORDER:
        sim_trace(s, "h%u container order %d %s created %llu", c->host, f->container_order.action,
                  f->container_order.config->name,
                  (unsigned long long)f->container_order.config->created);
        node_container_order(h->brain, now, &f->container_order);
        break;
    case MSG_CONTAINER_NONE:
        sim_trace(s, "h%u container none %s", c->host, f->name);
        node_container_none(h->brain, now, f->name);
        break;
    case MSG_ROUTE:
        sim_trace(s, "h%u route %u to %s (%s)", c->host, f->route.port, f->route.host ? f->route.host : "?",
                  f->route.container);
        node_route(h->brain, now, &f->route);
        break;
    case MSG_ROUTE_NONE:
        sim_trace(s, "h%u route none %u", c->host, f->port);
        node_route_none(h->brain, now, f->port);
        break;
    case MSG_LIST_ORDER:
        sim_trace(s, "h%u lists: %d", c->host, f->list_order.duty);
        node_list_order(h->brain, now, &f->list_order);
        break;
    case MSG_SIGHTING_OF_OTHER:
        hear_sighting(s, c->host, &f->sighting);
        break;
    case MSG_ORDERS_COMPLETE:
        node_orders_complete(h->brain, now);
        break;
    case MSG_REFUSED:
        sim_mounts_session(s, c->host, 0);
        h->session = 0;
        c->agent_open = false;
        node_session_down(h->brain, now);
        connect_later(s, c->host);
        break;
    default:
        break;
    }
}

static struct sim_message *pop(struct sim_message **first, struct sim_message ***last)
{
    struct sim_message *m = *first;

    *first = m->next;
    if (!*first)
        *last = first;
    return m;
}

void sim_deliver(struct sim *s, const struct event *ev)
{
    struct sim_session *c = s->sessions[ev->session - 1];
    struct sim_host *h = &s->hosts[c->host];
    bool up = ev->kind == EV_TO_CONTROL;
    struct sim_message *m = up ? c->up : c->down;

    if (!m || m->ready_us > s->now_us || (up ? h->cut_up : h->cut_down))
        return;
    m = up ? pop(&c->up, &c->up_last) : pop(&c->down, &c->down_last);
    bool again = m->kind != MSG_HELLO && m->kind != MSG_WELCOME && m->kind != MSG_REFUSED &&
                 sim_chance(s, 3);
    if (up && s->engine && c->control_open && c->control == s->control_incarnation) {
        to_control(s, c, m);
        if (again)
            to_control(s, c, m); /* repeated */
    } else if (!up && h->brain && c->agent_open && h->session == c->number &&
               c->agent == h->incarnation) {
        to_agent(s, c, m);
        if (again)
            to_agent(s, c, m);
    }
    message_free(m);
}
