/* The brains behind the codec: a script of events, some of them messages as they come over the wire from a peer that
 * may say anything. The first byte chooses: e the engine of the control service, n, a the agent's node (local and
 * attachable storage). Then each event is a letter with its arguments, see engine_event() and node_event().
 * What is told to the other side can be decoded there; each command is answered once; what is to be stored can be. */
#include "fuzz.h"

#include "core/engine.h"
#include "core/node.h"
#include "model/record.h"
#include "proto/codec.h"

#define NODES 2
#define DATASETS 2
#define COMMANDS_MAX 200

static const struct uuid nodes[NODES] = {{{0xa, 1, 1, 1, 1, 1, 0x41, 1, 0x81}}, {{0xb, 1, 1, 1, 1, 1, 0x41, 1, 0x81}}};
static const struct uuid datasets[DATASETS] = {{{0xd, 1, 1, 1, 1, 1, 0x41, 1, 0x81}},
                                               {{0xe, 1, 1, 1, 1, 1, 0x41, 1, 0x81}}};
static const struct uuid stores[2] = {{{0x5, 1, 1, 1, 1, 1, 0x41, 1, 0x81}}, {{0x6, 1, 1, 1, 1, 1, 0x41, 1, 0x81}}};
static const struct uuid generations[2] = {{{0x7, 1, 1, 1, 1, 1, 0x41, 1, 0x81}}, {{0x8, 1, 1, 1, 1, 1, 0x41, 1, 0x81}}};
static const char *const names[2] = {"db", "web"};

struct script {
    const uint8_t *at;
    size_t left;
};

static uint8_t take(struct script *s)
{
    if (!s->left)
        return 0;
    s->left--;
    return *s->at++;
}

/* A message: two bytes of length, then so many bytes (or what is left). */
static const uint8_t *take_bytes(struct script *s, size_t *ret_n)
{
    size_t n = take(s);
    const uint8_t *bytes;

    n |= (size_t)take(s) << 8;
    n = n < s->left ? n : s->left;
    bytes = s->at;
    s->at += n;
    s->left -= n;
    *ret_n = n;
    return bytes;
}

static void advance(struct now *now, struct script *s)
{
    uint64_t us = (uint64_t)take(s) * take(s) * 1000;

    now->mono_us += us;
    now->wall_us += us;
}

/* ---- the engine ---- */

struct control {
    struct engine *e;
    struct now now;
    uint64_t sessions[NODES], last_session; /* 0 = none */
    uint64_t last_command, batch;           /* 0 = no commit under way */
    bool answered[COMMANDS_MAX + 1];
};

static void check_change(const struct change *c)
{
    CLEANUP_FREE char *text = c->dataset     ? record_dataset_encode(c->dataset)
                              : c->container ? record_container_encode(c->container)
                              : c->lease     ? record_lease_encode(c->lease)
                              : c->cordon    ? record_cordon_encode(c->cordon)
                              : c->fence     ? record_fence_encode(c->fence)
                                             : xstrdup("");

    RULE(text && c->key && *c->key && c->kind <= OBJECT_FENCE);
}

static void check_told(const struct control_message *m)
{
    CLEANUP_STR struct str wire = {0};
    CLEANUP_CONTROL_MESSAGE struct control_message again = {.kind = CONTROL_MESSAGE_PING};

    codec_control_encode(m, &wire);
    RULE(!codec_control_decode(wire.data, wire.len, &again) && again.kind == m->kind);
}

static void check_volume(const struct control *c, const struct uuid *dataset)
{
    struct control_message m = {.kind = CONTROL_MESSAGE_VOLUME};

    if (!engine_volume(c->e, c->now, dataset, &m.volume))
        return;
    check_told(&m);
    control_message_done(&m);
}

static void closed(struct control *c, uint64_t session)
{
    for (size_t i = 0; i < NODES; i++) {
        if (c->sessions[i] == session)
            c->sessions[i] = 0;
    }
    engine_session_closed(c->e, c->now, session);
}

static void carry_out(struct control *c, const struct effect *f)
{
    switch (f->kind) {
    case EFFECT_COMMIT:
        RULE(!c->batch && f->batch->id);
        c->batch = f->batch->id;
        for (size_t i = 0; i < f->batch->n; i++)
            check_change(&f->batch->changes[i]);
        break;
    case EFFECT_REPLY:
        RULE(f->command && f->command <= c->last_command && !c->answered[f->command]);
        c->answered[f->command] = true;
        break;
    case EFFECT_ORDER:
        check_told(&(struct control_message){.kind = CONTROL_MESSAGE_ORDER, .order = f->order});
        break;
    case EFFECT_CONTAINER_ORDER:
        check_told(&(struct control_message){.kind = CONTROL_MESSAGE_CONTAINER_ORDER,
                                             .container = f->container_order});
        break;
    case EFFECT_CONTAINER_NONE:
        check_told(&(struct control_message){.kind = CONTROL_MESSAGE_CONTAINER_NONE, .name = f->name});
        break;
    case EFFECT_ROUTE:
        check_told(&(struct control_message){.kind = CONTROL_MESSAGE_ROUTE, .route = f->route});
        break;
    case EFFECT_ROUTE_NONE:
        check_told(&(struct control_message){.kind = CONTROL_MESSAGE_ROUTE_NONE, .port = f->port});
        break;
    case EFFECT_REFUSE:
        check_told(&(struct control_message){.kind = CONTROL_MESSAGE_REFUSED, .text = f->text});
        closed(c, f->session);
        break;
    case EFFECT_VOLUME:
        check_volume(c, &f->dataset);
        break;
    case EFFECT_LIST_ORDER:
        check_told(&(struct control_message){.kind = CONTROL_MESSAGE_LIST_ORDER, .list_order = f->list_order});
        break;
    case EFFECT_SIGHTING:
        check_told(&(struct control_message){.kind = CONTROL_MESSAGE_SIGHTING, .sighting = f->sighting});
        break;
    case EFFECT_CALLS_SHARE:
        check_told(&(struct control_message){.kind = CONTROL_MESSAGE_CALLS_SHARE, .share = f->share});
        break;
    case EFFECT_WELCOME:
    case EFFECT_ORDER_NONE:
    case EFFECT_ORDERS_COMPLETE:
    case EFFECT_CHANGED:
        break;
    }
}

static void drain(struct control *c)
{
    struct effect *f;

    engine_flush(c->e, c->now);
    while ((f = engine_next(c->e))) {
        carry_out(c, f);
        effect_free(f);
    }
}

static void hear(struct control *c, size_t node, struct script *s)
{
    uint64_t session = c->sessions[node];
    CLEANUP_AGENT_MESSAGE struct agent_message m = {.kind = AGENT_MESSAGE_PING};
    size_t n;
    const uint8_t *bytes = take_bytes(s, &n);
    CLEANUP_ERR struct err *e = codec_agent_decode(bytes, n, &m);

    if (e) {
        m = (struct agent_message){.kind = AGENT_MESSAGE_PING};
        return;
    }
    switch (m.kind) {
    case AGENT_MESSAGE_REPORT:
        engine_report(c->e, c->now, session, &m.report);
        break;
    case AGENT_MESSAGE_REPORT_GONE:
        engine_report_gone(c->e, c->now, session, &m.dataset);
        break;
    case AGENT_MESSAGE_CONTAINER_REPORT:
        engine_container_report(c->e, c->now, session, &m.container);
        break;
    case AGENT_MESSAGE_CONTAINER_GONE:
        engine_container_gone(c->e, c->now, session, m.name);
        break;
    case AGENT_MESSAGE_VOLUME_USE:
        engine_volume_use(c->e, c->now, session, &m.use);
        break;
    case AGENT_MESSAGE_VOLUME_USES_COMPLETE:
        engine_volume_uses_complete(c->e, c->now, session);
        break;
    case AGENT_MESSAGE_SIGHTING:
        engine_sighting(c->e, c->now, session, &m.sighting);
        break;
    case AGENT_MESSAGE_SIGHTINGS_COMPLETE:
        engine_sightings_complete(c->e, c->now, session);
        break;
    case AGENT_MESSAGE_CALLS_REPORT:
        engine_calls_report(c->e, c->now, session, &m.calls);
        break;
    case AGENT_MESSAGE_REPORTS_COMPLETE:
        engine_reports_complete(c->e, c->now, session, m.storage_unknown ? REPORTS_STORAGE_UNKNOWN : 0);
        break;
    default:
        break;
    }
}

static void greet(struct control *c, size_t node, struct script *s)
{
    uint8_t how = take(s);
    struct hello h = {.protocol = AGENT_PROTOCOL_VERSION + (how == 255),
                      .node = nodes[node],
                      .era = {{(uint8_t)(1 + (how & 1)), (uint8_t)node}},
                      .version = (char[]){"2"},
                      .host = (char[]){"192.0.2.1"},
                      .mover_port = 1,
                      .storage = how & 2 ? STORAGE_ATTACHABLE : STORAGE_LOCAL,
                      .backend = (char[]){"fake"},
                      .replicas = how & 32 ? REPLICAS_ALL : REPLICAS_NONE,
                      .compares = how & 32,
                      .shared_by = how & 2 ? stores[1] : UUID_NIL,
                      .routes = how & 2,
                      .lists = how & 32,
                      .calls = how & 32,
                      .volumes = !(how & 64),
                      .store = how & 4 ? stores[(how >> 3) & 1] : UUID_NIL,
                      .generation = how & 4 ? generations[(how >> 4) & 1] : UUID_NIL,
                      .extended = !(how & 8),
                      .more_volumes = !(how & 16),
                      .grows = how & 32,
                      .seen_revision = how & 4 ? how : 0};

    if (c->sessions[node])
        closed(c, c->sessions[node]);
    c->sessions[node] = ++c->last_session;
    engine_session_open(c->e, c->now, c->last_session, &h);
}

static struct container *new_container(const char *name, size_t node, uint8_t how)
{
    struct container *k = container_new(name);

    k->ports = xcalloc(1, sizeof(*k->ports));
    k->ports[0] = (struct port){80, how & 1 ? 8080 : 8081};
    k->n_ports = 1;
    k->node = nodes[node];
    k->image = xstrdup("nginx:1");
    for (size_t i = 0; i < 2; i++) {
        if (how & (16u << i))
            container_add_volume(k, &datasets[i], i ? "/more" : "/data", how & 64);
    }
    if (how & 8) { /* maybe on itself */
        k->depends_on = xcalloc(1, sizeof(*k->depends_on));
        k->depends_on[k->n_depends_on++] = (struct dependency){xstrdup(names[how & 1]), how % DEPENDENCY_MAX};
    }
    return k;
}

static struct dataset *new_dataset(size_t dataset, size_t node)
{
    struct dataset *d = dataset_new(datasets[dataset]);

    d->primary = nodes[node];
    d->metadata.entries = xcalloc(1, sizeof(*d->metadata.entries));
    d->metadata.entries[0] = (struct metadata_entry){xstrdup("name"), xstrdup(names[dataset])};
    d->metadata.n = 1;
    return d;
}

static struct composition compose(uint8_t how)
{
    struct composition c = {.datasets = xcalloc(DATASETS, sizeof(*c.datasets)),
                            .containers = xcalloc(2, sizeof(*c.containers))};

    for (size_t i = 0; i < DATASETS; i++) {
        if (how & (1 << i))
            c.datasets[c.n_datasets++] = new_dataset(i, (how >> 2) & 1);
    }
    for (size_t i = 0; i < 2; i++) {
        if (how & (8 << i))
            c.containers[c.n_containers++] =
                new_container(names[i], (how >> 2) & 1, (uint8_t)((how & (1 << i) ? 16 | i << 5 : 0) | (i && how & 32 ? 8 : 0)));
    }
    return c;
}

static void command(struct control *c, struct script *s)
{
    uint8_t kind = take(s), how = take(s);
    size_t node = (how >> 1) & 1;
    struct command k = {.kind = kind % COMMAND_MAX,
                        .id = c->last_command + 1,
                        .dataset_id = datasets[how & 1],
                        .node = nodes[node],
                        .name = names[how & 1],
                        .mount = how & 16 ? "m1" : "m2",
                        .session = c->sessions[node],
                        .keep_primary = how & 4,
                        .purge = how & 4,
                        .expires = how & 8,
                        .expires_in_us = (int64_t)(how >> 4) * 1000000 - 1000000};

    if (c->last_command == COMMANDS_MAX)
        return;
    c->last_command++;
    CLEANUP(composition_done) struct composition all = {0};
    if (k.kind >= COMMAND_VOLUME_CREATE && how & 32)
        k.dataset_id = UUID_NIL; /* by name */
    if (k.kind == COMMAND_DATASET_CREATE || k.kind == COMMAND_VOLUME_CREATE) {
        k.dataset = new_dataset(how & 1, node);
    } else if (k.kind == COMMAND_COMPOSE) {
        all = compose(how);
        k.composition = &all;
    } else if (k.kind == COMMAND_CONTAINER_CREATE) {
        k.container = new_container(names[how & 1], node, how);
    }
    engine_command(c->e, c->now, &k);
}

static void commit(struct control *c, bool fails)
{
    uint64_t batch = c->batch;

    c->batch = 0;
    if (!batch)
        return;
    if (fails)
        engine_commit_failed(c->e, c->now, batch, "the disk is full");
    else
        engine_committed(c->e, c->now, batch);
}

static void engine_event(struct control *c, struct script *s)
{
    uint8_t event = take(s);

    switch (event) {
    case 'H': /* a hello of node 0, 1 */
    case 'h':
        greet(c, event == 'h', s);
        break;
    case 'M': /* a message of node 0, 1 */
    case 'm':
        hear(c, event == 'm', s);
        break;
    case 'X': /* the session of node 0, 1 ends */
    case 'x':
        if (c->sessions[event == 'x'])
            closed(c, c->sessions[event == 'x']);
        break;
    case 'c':
        command(c, s);
        break;
    case 't':
        advance(&c->now, s);
        engine_tick(c->e, c->now);
        break;
    case 'k':
    case 'f':
        commit(c, event == 'f');
        break;
    default:
        break;
    }
}

static void look(const struct control *c)
{
    for (size_t i = 0; i < DATASETS; i++) {
        struct reason r = {0};
        engine_dataset_reason(c->e, c->now, &datasets[i], &r);
        RULE(r.code == REASON_NONE || (r.code < REASON_CODE_MAX && *reason_advice(r.code)));
        reason_done(&r);
        r = (struct reason){0};
        engine_container_reason(c->e, c->now, names[i], &r);
        reason_done(&r);
    }
    CLEANUP_FREE char *tag = engine_tag(c->e);
    RULE(*tag);
}

static void run_engine(struct script *s, uint64_t seed)
{
    struct control c = {.now = {.mono_us = 1000000, .wall_us = 1700000000000000}};
    struct dataset *d = dataset_new(datasets[0]);

    struct generation lives[2] = {{generations[0], 1}, {generations[1], 5}};
    c.e = engine_new(&(struct history){stores[0], lives, 2}, 5, random_seeded(&seed));
    engine_keep_replicas(c.e, 3600 * USEC_PER_SEC);
    d->revision = 5;
    d->primary = d->owner = nodes[0];
    d->epoch = d->number = 3;
    d->born = true;
    dataset_add_holder(d, &nodes[0]);
    engine_restore_dataset(c.e, d);
    engine_tick(c.e, c.now);
    for (unsigned i = 0; s->left && i < 100; i++) {
        engine_event(&c, s);
        drain(&c);
        look(&c);
    }
    while (c.batch) {
        commit(&c, /* fails= */ false);
        drain(&c);
    }
    for (uint64_t i = 1; i <= c.last_command; i++)
        RULE(c.answered[i]);
    engine_free(c.e);
}

/* ---- the node ---- */

#define STEPS_MAX 64

struct host {
    struct node *n;
    struct now now;
    bool up;
    struct node_memory memory; /* asked to be kept */
    bool persisting;
    struct {
        uint64_t id;
        enum step_kind kind;
        struct uuid dataset;
    } steps[STEPS_MAX];
    size_t n_steps;
};

static void check_report(const struct agent_message *m)
{
    CLEANUP_STR struct str wire = {0};
    CLEANUP_AGENT_MESSAGE struct agent_message again = {.kind = AGENT_MESSAGE_PING};

    codec_agent_encode(m, &wire);
    RULE(!codec_agent_decode(wire.data, wire.len, &again) && again.kind == m->kind);
}

static void node_carry_out(struct host *h, const struct node_effect *f)
{
    switch (f->kind) {
    case NODE_STEP:
        for (size_t i = 0; i < h->n_steps; i++) /* one at a time a dataset */
            RULE(h->steps[i].kind >= STEP_LIST_CONTAINERS || f->step.kind >= STEP_LIST_CONTAINERS ||
                 h->steps[i].kind == STEP_LIST_VOLUMES || f->step.kind == STEP_LIST_VOLUMES ||
                 !uuid_eq(&h->steps[i].dataset, &f->step.dataset));
        if (h->n_steps < STEPS_MAX) {
            h->steps[h->n_steps].id = f->step.id;
            h->steps[h->n_steps].kind = f->step.kind;
            h->steps[h->n_steps++].dataset = f->step.dataset;
        }
        break;
    case NODE_PERSIST:
        h->memory = f->memory;
        h->persisting = true;
        break;
    case NODE_REPORT:
        RULE(h->up);
        check_report(&(struct agent_message){.kind = AGENT_MESSAGE_REPORT, .report = f->report});
        break;
    case NODE_CONTAINER_REPORT:
        RULE(h->up);
        check_report(&(struct agent_message){.kind = AGENT_MESSAGE_CONTAINER_REPORT,
                                             .container = f->container_report});
        break;
    case NODE_CONTAINER_GONE:
        check_report(&(struct agent_message){.kind = AGENT_MESSAGE_CONTAINER_GONE, .name = f->name});
        break;
    case NODE_ROUTES_REPORT:
        RULE(h->up);
        check_report(&(struct agent_message){.kind = AGENT_MESSAGE_ROUTES_REPORT, .routes = f->routes_report});
        break;
    case NODE_SPACE_REPORT:
        RULE(h->up);
        check_report(
            &(struct agent_message){.kind = AGENT_MESSAGE_SPACE_REPORT, .space = f->space});
        break;
    case NODE_SIGHTING:
        RULE(h->up);
        check_report(&(struct agent_message){.kind = AGENT_MESSAGE_SIGHTING, .sighting = f->sighting});
        break;
    case NODE_SIGHTINGS_COMPLETE:
        RULE(h->up);
        break;
    case NODE_CANCEL:
    case NODE_ANNOUNCE:
    case NODE_REPORT_GONE:
    case NODE_REPORTS_COMPLETE:
        break;
    }
}

static void node_drain(struct host *h)
{
    struct node_effect *f;

    while ((f = node_next(h->n))) {
        node_carry_out(h, f);
        node_effect_free(f);
    }
}

static void obey(struct host *h, struct script *s)
{
    CLEANUP_CONTROL_MESSAGE struct control_message m = {.kind = CONTROL_MESSAGE_PING};
    size_t n;
    const uint8_t *bytes = take_bytes(s, &n);
    CLEANUP_ERR struct err *e = codec_control_decode(bytes, n, &m);

    if (e) {
        m = (struct control_message){.kind = CONTROL_MESSAGE_PING};
        return;
    }
    if (m.kind == CONTROL_MESSAGE_WELCOME && !h->up) {
        h->up = true;
        node_session_up(h->n, h->now, &m.welcome);
    }
    if (!h->up) /* what comes before the welcome is passed over by the link */
        return;
    switch (m.kind) {
    case CONTROL_MESSAGE_ORDER:
        node_order(h->n, h->now, &m.order);
        break;
    case CONTROL_MESSAGE_ORDER_NONE:
        node_order_none(h->n, h->now, &m.dataset);
        break;
    case CONTROL_MESSAGE_CONTAINER_ORDER:
        node_container_order(h->n, h->now, &m.container);
        break;
    case CONTROL_MESSAGE_CONTAINER_NONE:
        node_container_none(h->n, h->now, m.name);
        break;
    case CONTROL_MESSAGE_ROUTE:
        node_route(h->n, h->now, &m.route);
        break;
    case CONTROL_MESSAGE_ROUTE_NONE:
        node_route_none(h->n, h->now, m.port);
        break;
    case CONTROL_MESSAGE_LIST_ORDER:
        node_list_order(h->n, h->now, &m.list_order);
        break;
    case CONTROL_MESSAGE_SIGHTING: {
        struct node_sighting seen = {.dataset = m.sighting.dataset, .present = m.sighting.present, .size = m.sighting.size};
        seen.attached = sighting_where(m.sighting.hosts, "h1");
        node_seen(h->n, h->now, &seen);
        break;
    }
    case CONTROL_MESSAGE_ORDERS_COMPLETE:
        node_orders_complete(h->n, h->now);
        break;
    default:
        break;
    }
}

/* The oldest step ends: 'o' as a report (which follows) says, 'e' with an error. */
static void outcome(struct host *h, struct script *s, bool failed)
{
    CLEANUP_AGENT_MESSAGE struct agent_message m = {.kind = AGENT_MESSAGE_PING};
    struct err error = {.code = (enum err_code)(take(s) % ERR_CODE_MAX), .text = (char[]){"no"}};
    struct outcome o = {.error = failed ? &error : NULL};
    size_t n;
    const uint8_t *bytes = take_bytes(s, &n);
    CLEANUP_ERR struct err *e = codec_agent_decode(bytes, n, &m);

    if (e)
        m = (struct agent_message){.kind = AGENT_MESSAGE_PING};
    if (!h->n_steps)
        return;
    o.step = h->steps[0].id;
    o.volume.dataset = h->steps[0].dataset;
    if (m.kind == AGENT_MESSAGE_REPORT) {
        if (h->steps[0].kind != STEP_LIST_VOLUMES)
            m.report.volume.dataset = h->steps[0].dataset;
        o.volume = m.report.volume;
        o.volumes = &m.report.volume;
        o.n_volumes = 1;
    }
    o.observed = !failed || n;
    struct container_state state = {.run = CONTAINER_RUNNING, .era = stores[0]};
    if (m.kind == AGENT_MESSAGE_CONTAINER_REPORT) {
        state.name = m.container.name;
        state.run = m.container.run;
        state.created = m.container.created;
        o.containers = &state;
        o.n_containers = m.container.run != CONTAINER_ABSENT;
    }
    h->n_steps--;
    memmove(&h->steps[0], &h->steps[1], h->n_steps * sizeof(h->steps[0]));
    node_outcome(h->n, h->now, &o);
}

static void node_event(struct host *h, struct script *s)
{
    uint8_t event = take(s);

    switch (event) {
    case 'm':
        obey(h, s);
        break;
    case 'd':
        if (h->up)
            node_session_down(h->n, h->now);
        h->up = false;
        break;
    case 'o':
    case 'e':
        outcome(h, s, event == 'e');
        break;
    case 'p':
        if (h->persisting)
            node_persisted(h->n, h->now, &h->memory);
        h->persisting = false;
        break;
    case 'v':
        node_volume_changed(h->n, h->now, &datasets[take(s) & 1]);
        break;
    case 'c':
        node_containers_changed(h->n, h->now);
        break;
    case 'g':
        if (h->n_steps)
            node_progress(h->n, h->now, h->steps[0].id, take(s), take(s));
        break;
    case 't':
        advance(&h->now, s);
        node_tick(h->n, h->now);
        break;
    default:
        break;
    }
}

static void run_node(struct script *s, enum storage_kind storage, uint64_t seed)
{
    struct host h = {.now = {.mono_us = 1000000, .wall_us = 1700000000000000}};

    h.n = node_new(&(struct node_config){
        .era = stores[0], .storage = storage, .random = random_seeded(&seed), .shares_lists = true});
    node_start(h.n, h.now);
    node_drain(&h);
    for (unsigned i = 0; s->left && i < 100; i++) {
        node_event(&h, s);
        node_drain(&h);
    }
    node_free(h.n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct script s = {data + 1, size ? size - 1 : 0};

    switch (size ? data[0] : 0) {
    case 'e':
        run_engine(&s, size);
        return 0;
    case 'n':
        run_node(&s, STORAGE_LOCAL, size);
        return 0;
    case 'a':
        run_node(&s, STORAGE_ATTACHABLE, size);
        return 0;
    default:
        return -1;
    }
}

/* ---- seeds ---- */

static void add_wire(struct str *to, const struct str *wire)
{
    str_append_bytes(to, (char[]){(char)(wire->len & 255), (char)(wire->len >> 8)}, 2);
    str_append_bytes(to, wire->data, wire->len);
}

static void add_agent(struct str *to, const char *event, const struct agent_message *m)
{
    CLEANUP_STR struct str wire = {0};

    codec_agent_encode(m, &wire);
    str_append(to, event);
    add_wire(to, &wire);
}

static void add_control(struct str *to, const char *event, const struct control_message *m)
{
    CLEANUP_STR struct str wire = {0};

    codec_control_encode(m, &wire);
    str_append(to, event);
    add_wire(to, &wire);
}

static struct agent_message report_of(size_t dataset, enum mark_state mark, bool mounted)
{
    static char snapshots[1][SNAPSHOT_NAME_SIZE] = {"t6-final"};
    struct agent_message m = {
        .kind = AGENT_MESSAGE_REPORT,
        .report = {.volume = {.dataset = datasets[dataset],
                              .present = true,
                              .attached = true,
                              .mounted = mounted,
                              .mark = {mark, 3, mark == MARK_RELEASED ? 6 : 0, ""},
                              .snapshots = snapshots,
                              .n_snapshots = 1}}};

    if (mark == MARK_RELEASED)
        memcpy(m.report.volume.mark.snapshot, "t6-final", 9);
    return m;
}

static void engine_seed(struct str *out)
{
    struct agent_message complete = {.kind = AGENT_MESSAGE_REPORTS_COMPLETE};
    struct agent_message owned = report_of(0, MARK_OWNED, true), released = report_of(0, MARK_RELEASED, false);
    struct agent_message received = report_of(0, MARK_NONE, false);
    struct agent_message web = {.kind = AGENT_MESSAGE_CONTAINER_REPORT,
                                .container = {.name = (char[]){"web"}, .run = CONTAINER_RUNNING, .image_ready = true}};

    owned.report.copied = 6;
    received.report.received = 6;
    received.report.received_snapshot = (char[]){"t6-final"};
    str_append(out, "eH\4h\4");
    add_agent(out, "M", &owned);
    add_agent(out, "M", &complete);
    add_agent(out, "m", &complete);
    str_append(out, "c\1\2kt\60\60k"); /* a move */
    add_agent(out, "M", &owned);
    str_append(out, "kk");
    add_agent(out, "M", &released);
    add_agent(out, "m", &received);
    str_append(out, "kkc\3\3kc\6\2kX");
    add_agent(out, "m", &web);
    str_append(out, "kc\2\1fc\7\1kc\5\1kc\10\37kc\10\2k");
    const char calls[] = {'c', COMMAND_VOLUME_CREATE, 33, 'k', 'c', COMMAND_VOLUME_USE,   33,  'k',
                          'c', COMMAND_VOLUME_USE,    49, 'f', 'c', COMMAND_VOLUME_UNUSE, 33,  'k',
                          'c', COMMAND_VOLUME_REMOVE, 35, 'k', 'H', 4};
    str_append_bytes(out, calls, sizeof(calls));
    add_agent(out, "M", &(struct agent_message){.kind = AGENT_MESSAGE_VOLUME_USE, .use = {.dataset = datasets[0], .mount = (char[]){"m2"}}});
    add_agent(out, "M", &(struct agent_message){.kind = AGENT_MESSAGE_VOLUME_USES_COMPLETE});
    str_append(out, "k");
}

static void node_seed(struct str *out, char kind)
{
    struct container *k = new_container("web", 0, 16);
    struct control_message welcome = {.kind = CONTROL_MESSAGE_WELCOME,
                                      .welcome = {.protocol = AGENT_PROTOCOL_VERSION,
                                                  .store = stores[0],
                                                  .generation = generations[0],
                                                  .revision = 9}};
    struct control_message order = {.kind = CONTROL_MESSAGE_ORDER,
                                    .order = {.dataset = datasets[0], .role = ROLE_OWNER, .epoch = 3, .born = true}};
    struct control_message run = {.kind = CONTROL_MESSAGE_CONTAINER_ORDER, .container = {CONTAINER_RUN, k}};
    struct control_message complete = {.kind = CONTROL_MESSAGE_ORDERS_COMPLETE};
    struct agent_message owned = report_of(0, MARK_OWNED, false), mounted = report_of(0, MARK_OWNED, true);

    str_append_bytes(out, &kind, 1);
    add_control(out, "m", &welcome);
    add_agent(out, "o1", &owned);
    add_agent(out, "o1", &(struct agent_message){.kind = AGENT_MESSAGE_REPORTS_COMPLETE});
    str_append(out, "p");
    add_control(out, "m", &order);
    add_control(out, "m", &run);
    add_control(out, "m", &complete);
    add_agent(out, "o1", &mounted);
    add_agent(out, "o1", &mounted);
    add_agent(out, "e1", &mounted);
    str_append(out, "t\377\377g\1\2v0cp");
    order.order.role = ROLE_RELEASE;
    order.order.transfer = 6;
    order.order.peer = nodes[1];
    order.order.number = 6;
    add_control(out, "m", &order);
    add_agent(out, "o1", &mounted);
    add_agent(out, "o1", &owned);
    order.order.role = ROLE_DROP;
    add_control(out, "m", &order);
    str_append(out, "t\377\377d");
    container_free(k);
}

bool fuzz_seed(unsigned i, struct str *out)
{
    if (i == 0)
        engine_seed(out);
    else if (i <= 2)
        node_seed(out, i == 1 ? 'n' : 'a');
    return i <= 2;
}
