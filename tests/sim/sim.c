/* The simulated world: events, crashes, workload, invariants. See sim.h. */
#include "sim.h"

#include "base/str.h"
#include "core/fault.h"

#include <stdarg.h>

uint64_t sim_random(struct sim *s, uint64_t bound)
{
    return random_below(&s->random, bound);
}

bool sim_chance(struct sim *s, unsigned percent)
{
    return sim_random(s, 100) < percent;
}

struct now sim_now(const struct sim *s)
{
    return (struct now){s->now_us, s->now_us + 1700000000ull * USEC_PER_SEC};
}

bool sim_faults(const struct sim *s)
{
    return s->now_us < s->end_faults_us;
}

void sim_trace(struct sim *s, const char *fmt, ...)
{
    va_list ap;

    if (!s->trace)
        return;
    printf("%10.6f ", (double)s->now_us / USEC_PER_SEC);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

void sim_violation(struct sim *s, const char *fmt, ...)
{
    va_list ap;

    if (s->failed)
        return;
    s->failed = true;
    va_start(ap, fmt);
    (void)vsnprintf(s->why, sizeof(s->why), fmt, ap);
    va_end(ap);
    sim_trace(s, "VIOLATION: %s", s->why);
}

unsigned sim_dataset_index(const struct sim *s, const struct uuid *id)
{
    for (unsigned i = 0; i < s->n_datasets; i++) {
        if (uuid_eq(&s->datasets[i].id, id))
            return i;
    }
    return 0;
}

unsigned sim_node_index(const struct sim *s, const struct uuid *id)
{
    for (unsigned i = 0; i < s->n_nodes; i++) {
        if (uuid_eq(&s->nodes[i].id, id))
            return i;
    }
    return 0;
}

/* ---- the event queue: a binary heap by (time, order of scheduling) ---- */

static bool sooner(const struct event *a, const struct event *b)
{
    return a->at < b->at || (a->at == b->at && a->seq < b->seq);
}

struct event *sim_schedule(struct sim *s, uint64_t delay_us, enum event_kind kind, unsigned node)
{
    struct event *ev = xcalloc(1, sizeof(*ev));

    ev->at = s->now_us + delay_us;
    ev->seq = ++s->seq;
    ev->kind = kind;
    ev->node = node;
    s->heap = mem_grow(s->heap, s->n_heap, &s->cap_heap, sizeof(*s->heap));
    size_t i = s->n_heap++;
    while (i && sooner(ev, s->heap[(i - 1) / 2])) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = ev;
    return ev;
}

static struct event *next_event(struct sim *s)
{
    struct event *first = s->heap[0], *last = s->heap[--s->n_heap];
    size_t i = 0;

    while (2 * i + 1 < s->n_heap) {
        size_t child = 2 * i + 1;
        if (child + 1 < s->n_heap && sooner(s->heap[child + 1], s->heap[child]))
            child++;
        if (!sooner(s->heap[child], last))
            break;
        s->heap[i] = s->heap[child];
        i = child;
    }
    if (s->n_heap)
        s->heap[i] = last;
    return first;
}

static void event_free(struct event *ev)
{
    step_done(&ev->step);
    for (size_t i = 0; i < MAX_DATASETS; i++) {
        volume_state_done(&ev->volumes[i]);
        container_state_done(&ev->containers[i]);
    }
    sim_message_free(ev->message);
    free(ev);
}

/* ---- starting and killing ---- */

static void start_agent(struct sim *s, unsigned i)
{
    struct sim_node *n = &s->nodes[i];
    struct node_config config = {.era = n->era,
                                 .storage = s->storage,
                                 .random = s->random,
                                 .memory = n->memory,
                                 .resync_us = s->seed % 2 ? 3 * USEC_PER_SEC : 0};

    if (n->brain || !n->host_up)
        return;
    n->incarnation++;
    n->brain = node_new(&config);
    node_start(n->brain, sim_now(s));
    sim_schedule(s, sim_random(s, 100000), EV_CONNECT, i)->incarnation = n->incarnation;
    sim_schedule(s, 1000, EV_AGENT_TICK, i)->incarnation = n->incarnation;
    sim_trace(s, "n%u agent starts", i);
}

/* What the agent was doing when it died is either done or not. */
static void settle_steps(struct sim *s, unsigned i)
{
    for (size_t k = 0; k < s->n_heap; k++) {
        struct event *ev = s->heap[k];
        bool mine = ev->kind == EV_STEP_DONE && ev->node == i && ev->incarnation == s->nodes[i].incarnation;
        if (mine && ev->step.kind != STEP_FORBID && sim_chance(s, 50)) {
            ev->orphaned = true;
            sim_run_step(s, ev);
            ev->orphaned = false;
        } else if (ev->kind == EV_PERSISTED && ev->node == i &&
                   ev->incarnation == s->nodes[i].incarnation && sim_chance(s, 50)) {
            s->nodes[i].memory = ev->memory;
        }
    }
}

static void kill_agent(struct sim *s, unsigned i)
{
    struct sim_node *n = &s->nodes[i];

    if (!n->brain)
        return;
    sim_trace(s, "n%u agent dies", i);
    sim_break_session(s, i);
    n->brain = node_free(n->brain);
    settle_steps(s, i);
    n->session = 0;
    for (unsigned d = 0; d < s->n_datasets; d++)
        n->volumes[d].announced = 0;
}

static void start_control(struct sim *s)
{
    if (s->engine)
        return;
    s->control_incarnation++;
    s->history.generations =
        xrealloc(s->history.generations, s->history.n + 1, sizeof(*s->history.generations));
    s->history.generations[s->history.n++] =
        (struct generation){uuid_random_v4(&s->random), s->store_revision};
    s->engine = engine_new(&s->history, s->store_revision, s->random);
    for (unsigned d = 0; d < s->n_datasets; d++) {
        if (s->stored[d])
            engine_restore_dataset(s->engine, dataset_copy(s->stored[d]));
        if (s->stored_containers[d])
            engine_restore_container(s->engine, container_copy(s->stored_containers[d]));
        if (s->stored_leases[d])
            engine_restore_lease(s->engine, sim_now(s), s->stored_leases[d]);
    }
    engine_tick(s->engine, sim_now(s));
    sim_schedule(s, 1000, EV_CONTROL_TICK, 0)->incarnation = s->control_incarnation;
    sim_trace(s, "control starts at revision %llu", (unsigned long long)s->store_revision);
}

static void store_batch(struct sim *s, const struct batch *b)
{
    for (size_t i = 0; i < b->n; i++) {
        const struct change *c = &b->changes[i];
        unsigned d = 0;
        struct uuid id;
        if (c->revision <= s->store_revision)
            sim_violation(s, "revision %llu is used again", (unsigned long long)c->revision);
        s->store_revision = c->revision;
        if (c->kind == OBJECT_CONTAINER)
            d = (unsigned)(c->key[1] - '0');
        else if (uuid_parse(c->key, &id))
            d = sim_dataset_index(s, &id);
        if (c->kind == OBJECT_DATASET) {
            dataset_free(s->stored[d]);
            s->stored[d] = c->dataset ? dataset_copy(c->dataset) : NULL;
            sim_trace(s, "commit %llu d%u owner n%u epoch %llu born %d transfer %llu phase %d holders %zu",
                      (unsigned long long)c->revision, d, sim_node_index(s, &c->dataset->owner),
                      (unsigned long long)c->dataset->epoch, c->dataset->born,
                      (unsigned long long)c->dataset->transfer.id, c->dataset->transfer.phase,
                      c->dataset->n_holders);
        } else if (c->kind == OBJECT_CONTAINER) {
            container_free(s->stored_containers[d]);
            s->stored_containers[d] = c->container ? container_copy(c->container) : NULL;
        } else {
            free(s->stored_leases[d]);
            s->stored_leases[d] = c->lease ? xmemdup(c->lease, sizeof(*c->lease)) : NULL;
            /* Once the release is durable the dataset may go, whether the answer arrived or not. */
            if (!c->lease)
                s->datasets[d].leased = false;
        }
    }
}

static void kill_control(struct sim *s)
{
    if (!s->engine)
        return;
    sim_trace(s, "control dies");
    for (size_t i = 0; i < s->n_heap; i++) {
        struct event *ev = s->heap[i];
        if (ev->kind == EV_COMMITTED && ev->incarnation == s->control_incarnation && sim_chance(s, 50))
            store_batch(s, (const struct batch *)(uintptr_t)ev->session);
    }
    s->engine = engine_free(s->engine);
    for (unsigned i = 0; i < s->n_nodes; i++)
        sim_break_session(s, i);
    for (unsigned d = 0; d < s->n_datasets; d++)
        s->datasets[d].busy = false; /* never answered: either outcome is right */
}

static void kill_host(struct sim *s, unsigned i)
{
    if (!s->nodes[i].host_up)
        return;
    kill_agent(s, i);
    s->nodes[i].host_up = false;
    sim_host_down(s, i);
    sim_trace(s, "n%u host dies", i);
}

static void start_host(struct sim *s, unsigned i)
{
    if (s->nodes[i].host_up)
        return;
    s->nodes[i].host_up = true;
    s->nodes[i].era = uuid_random_v4(&s->random);
    start_agent(s, i);
}

/* The host comes back with empty disks. */
static void wipe(struct sim *s, unsigned i)
{
    if (s->storage == STORAGE_ATTACHABLE)
        return;
    kill_host(s, i);
    for (unsigned d = 0; d < s->n_datasets; d++) {
        s->nodes[i].volumes[d] = (struct sim_volume){0};
        if (s->stored[d] && dataset_has_holder(s->stored[d], &s->nodes[i].id))
            s->datasets[d].lost = true;
    }
    s->nodes[i].memory = (struct node_memory){0};
    sim_schedule(s, 1000000 + sim_random(s, 5000000), EV_HOST_START, i);
    sim_trace(s, "n%u disks are wiped", i);
}

static void do_fault(struct sim *s)
{
    unsigned i = (unsigned)sim_random(s, s->n_nodes);

    switch (sim_random(s, s->wipes ? 7 : 6)) {
    case 0:
        kill_agent(s, i);
        sim_schedule(s, 100000 + sim_random(s, 3000000), EV_AGENT_START, i);
        break;
    case 1:
        kill_host(s, i);
        sim_schedule(s, 1000000 + sim_random(s, 10000000), EV_HOST_START, i);
        break;
    case 2:
        kill_control(s);
        sim_schedule(s, 100000 + sim_random(s, 3000000), EV_CONTROL_START, 0);
        break;
    case 3:
        s->nodes[i].partitioned = !s->nodes[i].partitioned;
        if (s->nodes[i].partitioned)
            sim_break_session(s, i);
        sim_trace(s, "n%u partitioned: %d", i, s->nodes[i].partitioned);
        break;
    case 4:
        sim_break_session(s, i);
        break;
    case 6:
        wipe(s, i);
        break;
    default: { /* a container crashes */
        struct sim_volume *v = &s->nodes[i].volumes[sim_random(s, s->n_datasets)];
        v->running = false;
        if (s->nodes[i].brain)
            node_containers_changed(s->nodes[i].brain, sim_now(s));
        break;
    }
    }
}

static void heal(struct sim *s)
{
    start_control(s);
    for (unsigned i = 0; i < s->n_nodes; i++) {
        s->nodes[i].partitioned = false;
        start_host(s, i);
        start_agent(s, i);
    }
}

/* ---- what users do ---- */

static void do_command(struct sim *s)
{
    unsigned d = (unsigned)sim_random(s, s->n_datasets), n = (unsigned)sim_random(s, s->n_nodes);
    struct sim_dataset *ds = &s->datasets[d];
    struct command c = {.dataset_id = ds->id, .node = s->nodes[n].id};
    unsigned what = (unsigned)sim_random(s, 100);

    if (!s->engine || ds->busy)
        return;
    c.id = ++s->next_command;
    if (!ds->exists) {
        c.kind = COMMAND_DATASET_CREATE;
        c.dataset = dataset_new(ds->id);
        c.dataset->primary = s->nodes[n].id;
    } else if (ds->deleted) {
        return;
    } else if (!ds->container_exists && what < 40) {
        const struct dataset *now = engine_dataset(s->engine, &ds->id);
        c.kind = COMMAND_CONTAINER_CREATE;
        c.container = container_new(ds->container);
        c.container->image = xstrdup("img:1");
        c.container->restart_policy = RESTART_ALWAYS;
        c.container->has_volume = true;
        c.container->dataset = ds->id;
        c.container->mountpoint = xstrdup("/data");
        c.container->node = now ? now->primary : s->nodes[n].id;
    } else if (what < 75) {
        c.kind = ds->container_exists ? COMMAND_CONTAINER_MOVE : COMMAND_DATASET_MOVE;
        c.name = ds->container;
        s->moves++;
    } else if (what < 82) {
        c.kind = COMMAND_LEASE_ACQUIRE;
    } else if (what < 92) {
        c.kind = COMMAND_LEASE_RELEASE;
        ds->leased = false; /* from the request on nothing is promised */
    } else if (what < 95 && ds->container_exists) {
        c.kind = COMMAND_CONTAINER_DELETE;
        c.name = ds->container;
    } else if (what < 97) {
        c.kind = COMMAND_DATASET_DELETE;
    } else {
        return;
    }
    unsigned slot = c.id & 0x3fff;
    s->commands[slot].id = c.id;
    s->commands[slot].dataset = d;
    s->commands[slot].kind = c.kind;
    s->commands[slot].node = n;
    ds->busy = true;
    sim_trace(s, "command %d d%u n%u", c.kind, d, n);
    engine_command(s->engine, sim_now(s), &c);
}

/* Containers write: each write builds on the last one that was acknowledged, wherever that was. */
static void do_writes(struct sim *s)
{
    for (unsigned i = 0; i < s->n_nodes; i++) {
        for (unsigned d = 0; d < s->n_datasets; d++) {
            struct sim_volume *v = &s->nodes[i].volumes[d];
            uint64_t *version = s->storage == STORAGE_ATTACHABLE ? &s->shared[d].version : &v->version;
            if (!v->running)
                continue;
            if (!v->mounted || v->mark.state != MARK_OWNED)
                sim_violation(s, "a container on n%u runs on d%u, which is not its node's", i, d);
            if (*version != s->datasets[d].acked)
                sim_violation(s, "n%u has version %llu of d%u, but %llu was acknowledged", i,
                              (unsigned long long)*version, d,
                              (unsigned long long)s->datasets[d].acked);
            *version = ++s->datasets[d].acked;
            s->writes++;
        }
    }
}

/* ---- invariants after every event ---- */

static void check(struct sim *s)
{
    for (unsigned d = 0; d < s->n_datasets; d++) {
        for (unsigned i = 0; i < s->n_nodes; i++) {
            if (s->nodes[i].volumes[d].mounted && sim_is_mounted_anywhere_else(s, d, i)) {
                sim_violation(s, "two nodes have d%u mounted, one is n%u", d, i);
                return;
            }
        }
        const struct dataset *st = s->stored[d];
        if (s->datasets[d].exists && !st)
            sim_violation(s, "the acknowledged create of d%u is not in the store", d);
        if (s->datasets[d].deleted && st && !st->deleted)
            sim_violation(s, "the acknowledged delete of d%u is not in the store", d);
        if (!s->engine || !st)
            continue;
        const struct dataset *now = engine_dataset(s->engine, &s->datasets[d].id);
        if (!now || now->deleted || now->transfer.id || uuid_eq(&now->owner, &now->primary))
            continue;
        struct reason r;
        engine_dataset_reason(s->engine, sim_now(s), &now->id, &r);
        if (r.code == REASON_NONE)
            sim_violation(s, "d%u is not where it is wanted, without a reason", d);
        reason_done(&r);
    }
}

/* Is everything as wanted, and nothing left over? The first thing that is not, or NULL. */
static const char *unsettled(struct sim *s, char *buf, size_t size)
{
    for (unsigned d = 0; d < s->n_datasets; d++) {
        const struct dataset *st = s->stored[d];
        const struct container *c = s->stored_containers[d];
        if (!st || s->datasets[d].lost)
            continue;
        bool held = s->stored_leases[d] && uuid_eq(&s->stored_leases[d]->node, &st->owner);
        if (st->deleted && (c || held))
            continue; /* waits until the user deletes the container or releases the lease */
        for (unsigned i = 0; i < s->n_nodes; i++) {
            const struct sim_volume *v = &s->nodes[i].volumes[d];
            bool owner = uuid_eq(&st->owner, &s->nodes[i].id) && !st->tombstone;
            bool shared = s->storage == STORAGE_ATTACHABLE;
            (void)snprintf(buf, size, "d%u on n%u", d, i);
            if (owner != v->mounted)
                return buf;
            if (!owner && !held && (v->mark.state != MARK_NONE || v->n_snapshots || (!shared && v->present) || v->here))
                return buf;
            if (!held && st->deleted && !c && (v->here || v->mounted || (!shared && v->present)))
                return buf;
            if (owner && !held && !st->deleted && (c != NULL) != v->running)
                return buf;
        }
        (void)snprintf(buf, size, "record of d%u", d);
        if (held)
            continue;
        if (st->deleted && !c && (st->n_holders || !st->tombstone))
            return buf;
        if (!st->deleted && (!uuid_eq(&st->owner, &st->primary) || st->transfer.id ||
                             st->n_holders != 1 || !st->born))
            return buf;
    }
    return NULL;
}

/* ---- the loop ---- */

static void dispatch(struct sim *s, struct event *ev)
{
    struct sim_node *n = &s->nodes[ev->node];
    bool agent = n->brain && n->incarnation == ev->incarnation;
    bool control = s->engine && s->control_incarnation == ev->incarnation;

    switch (ev->kind) {
    case EV_TO_CONTROL:
        sim_deliver_to_control(s, ev);
        break;
    case EV_TO_AGENT:
        sim_deliver_to_agent(s, ev);
        break;
    case EV_STEP_DONE:
        sim_run_step(s, ev);
        break;
    case EV_PERSISTED:
        if (agent) {
            n->memory = ev->memory;
            node_persisted(n->brain, sim_now(s), &ev->memory);
            if (node_store_refused(n->brain))
                sim_break_session(s, ev->node);
        }
        break;
    case EV_COMMITTED:
        if (control && ev->fails_before) {
            engine_commit_failed(s->engine, sim_now(s), ev->number, "disk full");
        } else if (control) {
            store_batch(s, (const struct batch *)(uintptr_t)ev->session);
            engine_committed(s->engine, sim_now(s), ev->number);
        }
        break;
    case EV_AGENT_CLOSED:
        if (agent && n->session == ev->session) {
            n->session = 0;
            node_session_down(n->brain, sim_now(s));
            sim_connect(s, ev->node);
        }
        break;
    case EV_CONTROL_CLOSED:
        if (control)
            engine_session_closed(s->engine, sim_now(s), ev->session);
        break;
    case EV_CONNECT:
        if (agent)
            sim_connect(s, ev->node);
        break;
    case EV_CONTROL_TICK:
        if (control) {
            if (engine_deadline(s->engine) <= s->now_us)
                engine_tick(s->engine, sim_now(s));
            sim_schedule(s, 200000, EV_CONTROL_TICK, 0)->incarnation = ev->incarnation;
        }
        break;
    case EV_AGENT_TICK:
        if (agent) {
            if (node_deadline(n->brain) <= s->now_us)
                node_tick(n->brain, sim_now(s));
            sim_schedule(s, 50000, EV_AGENT_TICK, ev->node)->incarnation = ev->incarnation;
        }
        break;
    case EV_VOLUME_CHANGED:
        if (agent)
            node_volume_changed(n->brain, sim_now(s), &s->datasets[ev->number].id);
        break;
    case EV_WRITE:
        do_writes(s);
        sim_schedule(s, 20000, EV_WRITE, 0);
        break;
    case EV_WORKLOAD:
        if (sim_faults(s)) {
            do_command(s);
            sim_schedule(s, sim_random(s, 1500000), EV_WORKLOAD, 0);
        }
        break;
    case EV_FAULT:
        if (sim_faults(s)) {
            do_fault(s);
            sim_schedule(s, sim_random(s, 5000000), EV_FAULT, 0);
        } else {
            heal(s);
        }
        break;
    case EV_AGENT_START:
        start_agent(s, ev->node);
        break;
    case EV_HOST_START:
        start_host(s, ev->node);
        break;
    case EV_CONTROL_START:
        start_control(s);
        break;
    case EV_MAX:
        break;
    }
}

static void set_up(struct sim *s, uint64_t seed, bool trace)
{
    s->seed = seed;
    s->random_state = seed * 0x9e3779b97f4a7c15u + 1;
    s->random = random_seeded(&s->random_state);
    s->trace = trace;
    s->n_nodes = 2 + (unsigned)sim_random(s, 3);
    s->n_datasets = 1 + (unsigned)sim_random(s, 3);
    s->wipes = sim_chance(s, 10);
    s->storage = sim_chance(s, 70) ? STORAGE_LOCAL : STORAGE_ATTACHABLE;
    s->history.store = uuid_random_v4(&s->random);
    s->end_faults_us = 40 * USEC_PER_SEC;
    s->end_us = s->end_faults_us + 200 * USEC_PER_SEC;
    for (unsigned i = 0; i < s->n_datasets; i++) {
        s->datasets[i].id = uuid_random_v4(&s->random);
        (void)snprintf(s->datasets[i].container, sizeof(s->datasets[i].container), "c%u", i);
    }
    start_control(s);
    for (unsigned i = 0; i < s->n_nodes; i++) {
        s->nodes[i].id = uuid_random_v4(&s->random);
        start_host(s, i);
    }
    sim_schedule(s, 1000, EV_WRITE, 0);
    sim_schedule(s, 100000, EV_WORKLOAD, 0);
    sim_schedule(s, 3000000, EV_FAULT, 0);
    sim_schedule(s, s->end_faults_us, EV_FAULT, 0);
}

static void tear_down(struct sim *s)
{
    while (s->n_heap)
        event_free(next_event(s));
    engine_free(s->engine);
    for (unsigned i = 0; i < s->n_nodes; i++)
        node_free(s->nodes[i].brain);
    for (unsigned d = 0; d < s->n_datasets; d++) {
        dataset_free(s->stored[d]);
        container_free(s->stored_containers[d]);
        free(s->stored_leases[d]);
    }
    history_done(&s->history);
    free(s->heap);
}

static bool run_seed(uint64_t seed, bool trace, struct sim *total)
{
    struct sim *s = xcalloc(1, sizeof(*s));
    char buf[64];

    set_up(s, seed, trace);
    while (!s->failed && s->now_us < s->end_us) {
        struct event *ev = next_event(s);
        s->now_us = ev->at;
        s->events++;
        dispatch(s, ev);
        event_free(ev);
        for (unsigned i = 0; i < s->n_nodes; i++)
            sim_take_node_effects(s, i);
        sim_take_engine_effects(s);
        check(s);
        if (s->now_us > s->end_faults_us + 20 * USEC_PER_SEC && s->events % 64 == 0 &&
            !unsettled(s, buf, sizeof(buf)))
            break;
    }
    const char *what = s->failed ? NULL : unsettled(s, buf, sizeof(buf));
    if (what) {
        struct reason r;
        engine_dataset_reason(s->engine, sim_now(s), &s->datasets[(unsigned)(strchr(buf, 'd')[1] - '0') % MAX_DATASETS].id, &r);
        sim_violation(s, "not settled %llu s after the last fault: %s (%s: %s)",
                      (unsigned long long)((s->end_us - s->end_faults_us) / USEC_PER_SEC), what,
                      reason_code_name(r.code), r.text ? r.text : "");
        reason_done(&r);
        engine_container_reason(s->engine, sim_now(s), s->datasets[(unsigned)(strchr(buf, 'd')[1] - '0') % MAX_DATASETS].container, &r);
        sim_trace(s, "container: %s: %s", reason_code_name(r.code), r.text ? r.text : "");
        reason_done(&r);
    }
    if (s->failed)
        printf("seed %llu at %.6f s: %s\n", (unsigned long long)seed,
               (double)s->now_us / USEC_PER_SEC, s->why);
    total->moves += s->moves;
    total->writes += s->writes;
    total->events += s->events;
    bool failed = s->failed;
    tear_down(s);
    free(s);
    return !failed;
}

#ifdef FLOCKER_FAULTS
enum core_fault core_fault;

static bool set_fault(const char *name)
{
#define CORE_FAULT_NAME(fault) #fault,
    static const char *const names[] = {CORE_FAULTS(CORE_FAULT_NAME)};

    for (unsigned i = 0; i < FAULT_MAX; i++) {
        if (streq(names[i], name)) {
            core_fault = (enum core_fault)i;
            return true;
        }
    }
    for (unsigned i = 1; i < FAULT_MAX; i++)
        fprintf(stderr, "%s\n", names[i]);
    return false;
}
#else
static bool set_fault(const char *name)
{
    fprintf(stderr, "--fault %s: this build has no faults; use flocker-sim-faulty\n", name);
    return false;
}
#endif

int main(int argc, char **argv)
{
    uint64_t seeds = 1000, first = 1, violations = 0;
    bool trace = false;
    struct sim total = {0};

    for (int i = 1; i < argc; i++) {
        bool has_value = i + 1 < argc;
        if (streq(argv[i], "--trace")) {
            trace = true;
        } else if (streq(argv[i], "--fault") && has_value) {
            if (!set_fault(argv[++i]))
                return 1;
        } else if (streq(argv[i], "--seeds") && has_value) {
            seeds = strtoull(argv[++i], NULL, 10);
        } else if (streq(argv[i], "--first") && has_value) {
            first = strtoull(argv[++i], NULL, 10);
        } else if (streq(argv[i], "--seed") && has_value) {
            first = strtoull(argv[++i], NULL, 10);
            seeds = 1;
        } else {
            fprintf(stderr, "usage: flocker-sim [--seeds N] [--first S] [--seed S] [--trace]\n");
            return 1;
        }
    }
    for (uint64_t seed = first; seed < first + seeds && violations < 10; seed++)
        violations += !run_seed(seed, trace, &total);
    printf("%llu events, %llu moves asked for, %llu writes\n", (unsigned long long)total.events,
           (unsigned long long)total.moves, (unsigned long long)total.writes);
    fflush(stdout);
    printf("%llu seeds, %llu violations\n", (unsigned long long)seeds, (unsigned long long)violations);
    return violations ? 1 : 0;
}
