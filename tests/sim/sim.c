/* The simulated world's clock, event queue and life cycle. See sim.h. */
#include "sim.h"

#include "base/str.h"

#include <stdarg.h>

#define TOO_MANY_EVENTS 3000000u /* something goes round in circles */

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

struct now sim_control_now(const struct sim *s)
{
    struct now now = sim_now(s);

    now.wall_us += (uint64_t)s->wall_us;
    return now;
}

bool sim_faults(const struct sim *s)
{
    return s->now_us < s->end_faults_us;
}

bool sim_until(const struct sim *s, uint64_t until_us)
{
    return sim_faults(s) && s->now_us < until_us;
}

bool sim_suspended(const struct sim *s, unsigned host)
{
    return s->now_us < s->hosts[host].suspended_until_us;
}

bool sim_is_shared(const struct sim *s)
{
    return s->storage == STORAGE_ATTACHABLE;
}

/* Some hosts, for some seconds. Drawn from no source, so that it changes nothing else. */
bool sim_is_short_of_space(const struct sim *s, unsigned host)
{
    return sim_faults(s) && (s->options.seed * 31 + host * 17 + s->now_us / (6 * USEC_PER_SEC)) % 8 == 0;
}

static void remember(struct sim_result *r, uint64_t us, const char *fmt, va_list ap)
    PRINTF_LIKE(3, 0);

static void remember(struct sim_result *r, uint64_t us, const char *fmt, va_list ap)
{
    char *line = r->last[r->n_last++ % LAST_LINES];
    int used = snprintf(line, LINE_SIZE, "%10.6f ", (double)us / USEC_PER_SEC);

    (void)vsnprintf(line + used, LINE_SIZE - (size_t)used, fmt, ap);
}

void sim_trace(struct sim *s, const char *fmt, ...)
{
    va_list ap;

    if (s->options.remember) {
        va_start(ap, fmt);
        remember(s->result, s->now_us, fmt, ap);
        va_end(ap);
    }
    if (!s->options.trace)
        return;
    printf("%10.6f ", (double)s->now_us / USEC_PER_SEC);
    va_start(ap, fmt);
    vprintf(fmt, ap);
    va_end(ap);
    printf("\n");
}

const char *violation_name(enum violation v)
{
    static const char *const names[V_MAX] = {
        [V_NONE] = "none",
        [V_TWO_WRITERS] = "two-writers",
        [V_LOST_WRITE] = "lost-write",
        [V_STORE] = "store",
        [V_LEASE] = "lease",
        [V_RESURRECTED] = "resurrected",
        [V_RECREATED] = "recreated",
        [V_DEVICE] = "device",
        [V_NO_REASON] = "no-reason",
        [V_UNSETTLED] = "unsettled",
        [V_NUMBERS] = "numbers",
        [V_TOO_EARLY] = "too-early",
        [V_ALONE] = "alone",
        [V_AGAIN] = "again",
        [V_SESSION] = "session",
        [V_BACKOFF] = "back-off",
        [V_TAG] = "tag",
        [V_COMPARISON] = "comparison",
        [V_SIMULATOR] = "simulator",
    };

    return names[v];
}

static bool is_of_data(enum violation v)
{
    return v == V_LOST_WRITE || v == V_RECREATED || v == V_RESURRECTED || v == V_LEASE;
}

void sim_violation(struct sim *s, enum violation v, const char *fmt, ...)
{
    va_list ap;

    if (s->result->violation || ((s->cloned || s->blind) && is_of_data(v)))
        return;
    s->result->violation = v;
    s->result->at_us = s->now_us;
    va_start(ap, fmt);
    (void)vsnprintf(s->result->why, sizeof(s->result->why), fmt, ap);
    va_end(ap);
    sim_trace(s, "VIOLATION %s: %s", violation_name(v), s->result->why);
}

int sim_dataset_index(const struct sim *s, const struct uuid *id)
{
    for (unsigned i = 0; i < s->n_datasets; i++) {
        if (uuid_eq(&s->datasets[i].id, id))
            return (int)i;
    }
    return -1;
}

int sim_node_index(const struct sim *s, const struct uuid *id)
{
    for (unsigned i = 0; i < s->n_nodes; i++) {
        if (uuid_eq(&s->hosts[i].id, id))
            return (int)i;
    }
    return -1;
}

unsigned sim_container_index(const char *name)
{
    return (unsigned)(name[1] - '0');
}

/* ---- the event queue: a binary heap by (time, order of scheduling) ---- */

static bool sooner(const struct event *a, const struct event *b)
{
    return a->at < b->at || (a->at == b->at && a->seq < b->seq);
}

static void heap_push(struct sim *s, struct event *ev)
{
    s->heap = mem_grow(s->heap, s->n_heap, &s->cap_heap, sizeof(*s->heap));
    size_t i = s->n_heap++;
    while (i && sooner(ev, s->heap[(i - 1) / 2])) {
        s->heap[i] = s->heap[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    s->heap[i] = ev;
}

struct event *sim_schedule(struct sim *s, uint64_t delay_us, enum event_kind kind, unsigned host)
{
    struct event *ev = xcalloc(1, sizeof(*ev));

    ev->at = s->now_us + delay_us;
    ev->seq = ++s->seq;
    ev->kind = kind;
    ev->host = host;
    heap_push(s, ev);
    return ev;
}

struct event *sim_schedule_for_agent(struct sim *s, uint64_t delay_us, enum event_kind kind,
                                     unsigned host)
{
    struct event *ev = sim_schedule(s, delay_us, kind, host);

    ev->incarnation = s->hosts[host].incarnation;
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
    sim_list_free(ev->list);
    free(ev);
}

/* ---- the loop ---- */

/* What a suspended host would do itself. */
static bool waits_for_host(enum event_kind k)
{
    return k == EV_TO_AGENT || k == EV_STEP_DONE || k == EV_PERSISTED || k == EV_AGENT_CLOSED ||
           k == EV_CONNECT || k == EV_AGENT_TICK || k == EV_AGENT_START || k == EV_VOLUME_CHANGED ||
           k == EV_CONTAINER_DIES || k == EV_CONTAINERS_CHANGED;
}

static void look(struct sim *s)
{
    char buf[128];

    if (sim_unsettled(s, buf, sizeof(buf))) {
        s->settled_us = 0;
    } else if (!s->settled_us) {
        /* In some runs it must stay that way for a while. */
        s->settled_us = s->now_us + (s->options.seed % 4 ? 0 : 40 * USEC_PER_SEC);
    }
    if (s->settled_us && s->now_us >= s->settled_us)
        s->done = true;
    sim_schedule(s, USEC_PER_SEC, EV_LOOK, 0);
}

static void write_everywhere(struct sim *s)
{
    for (unsigned i = 0; i < s->n_hosts; i++)
        sim_write(s, i);
    sim_schedule(s, 5000 + sim_random(s, 60000), EV_WRITE, 0);
}

static void dispatch_to_agent(struct sim *s, struct event *ev)
{
    struct sim_host *h = &s->hosts[ev->host];

    if (!h->brain || h->incarnation != ev->incarnation)
        return;
    switch (ev->kind) {
    case EV_PERSISTED:
        sim_remember(s, ev->host, &ev->memory);
        node_persisted(h->brain, sim_now(s), &ev->memory);
        sim_trace(s, "h%u remembers revision %llu%s", ev->host,
                  (unsigned long long)ev->memory.seen_revision,
                  node_store_refused(h->brain) ? ", refuses" : "");
        if (node_hello_is_outdated(h->brain))
            sim_break_session(s, ev->host, 1000, 4 * USEC_PER_SEC);
        break;
    case EV_AGENT_CLOSED:
        sim_agent_closed(s, ev);
        break;
    case EV_CONNECT:
        sim_connect(s, ev->host);
        break;
    case EV_AGENT_TICK:
        if (h->tick_us != ev->at)
            break;
        h->tick_us = 0;
        node_tick(h->brain, sim_now(s));
        break;
    case EV_VOLUME_CHANGED:
        node_volume_changed(h->brain, sim_now(s), &s->datasets[ev->number].id);
        break;
    case EV_CONTAINERS_CHANGED:
        node_containers_changed(h->brain, sim_now(s));
        break;
    default:
        break;
    }
}

static void dispatch_to_control(struct sim *s, struct event *ev)
{
    if (!s->engine || s->control_incarnation != ev->incarnation)
        return;
    s->engine_touched = true;
    switch (ev->kind) {
    case EV_COMMITTED:
        if (s->store.frozen && !sim_until(s, s->store.full_us)) {
            sim_kill_control(s);
            sim_schedule(s, 100000 + sim_random(s, USEC_PER_SEC), EV_CONTROL_START, 0);
        } else if (ev->fails_before || s->store.frozen) {
            sim_trace(s, "commit fails");
            engine_commit_failed(s->engine, sim_control_now(s), ev->number, "disk full");
        } else {
            sim_commit(s, ev->batch);
            engine_committed(s->engine, sim_control_now(s), ev->number);
        }
        break;
    case EV_CONTROL_CLOSED:
        sim_control_closed(s, ev);
        break;
    case EV_CONTROL_TICK:
        if (s->control_tick_us != ev->at)
            break;
        s->control_tick_us = 0;
        engine_tick(s->engine, sim_control_now(s));
        break;
    default:
        break;
    }
}

static void dispatch(struct sim *s, struct event *ev)
{
    switch (ev->kind) {
    case EV_TO_CONTROL:
    case EV_TO_AGENT:
        sim_deliver(s, ev);
        break;
    case EV_STEP_DONE:
        sim_run_step(s, ev);
        break;
    case EV_PERSISTED:
    case EV_AGENT_CLOSED:
    case EV_CONNECT:
    case EV_AGENT_TICK:
    case EV_VOLUME_CHANGED:
    case EV_CONTAINERS_CHANGED:
        dispatch_to_agent(s, ev);
        break;
    case EV_COMMITTED:
    case EV_CONTROL_CLOSED:
    case EV_CONTROL_TICK:
        dispatch_to_control(s, ev);
        break;
    case EV_WRITE:
        write_everywhere(s);
        break;
    case EV_MOUNTS:
        sim_mounts_turn(s);
        break;
    case EV_COMMAND:
        sim_issue(s, (unsigned)ev->number);
        break;
    case EV_FAULT:
        sim_inject(s, (unsigned)ev->number);
        break;
    case EV_UNDO:
        sim_undo(s, ev);
        break;
    case EV_HEAL:
        sim_heal(s);
        break;
    case EV_AGENT_START:
        sim_start_agent(s, ev->host);
        break;
    case EV_HOST_START:
        sim_start_host(s, ev->host);
        break;
    case EV_HOST_RESUME:
        if (sim_suspended(s, ev->host))
            break;
        sim_trace(s, "h%u goes on", ev->host);
        sim_write(s, ev->host); /* before it hears of anything */
        break;
    case EV_CONTROL_START:
        sim_start_control(s);
        break;
    case EV_CONTAINER_DIES:
        if (s->hosts[ev->host].containers[ev->number].crash_us == ev->at)
            sim_container_dies(s, ev->host, (unsigned)ev->number);
        break;
    case EV_ADOPT:
        sim_adopt(s, ev->host);
        break;
    case EV_LOSE_STORE:
        sim_lose_store(s, ev->host);
        break;
    case EV_SETTLE:
        sim_settle(s);
        break;
    case EV_LATE_ATTACH:
        sim_attach_late(s, ev->host, (unsigned)ev->number);
        break;
    case EV_FENCE:
        sim_fence(s, ev->host);
        break;
    case EV_LOOK:
        look(s);
        break;
    case EV_MAX:
        break;
    }
}

/* Brains say when they want to be woken; nothing else wakes them. */
static void arm(struct sim *s, unsigned host)
{
    struct sim_host *h = &s->hosts[host];
    uint64_t at = h->brain ? node_deadline(h->brain) : USEC_NEVER;

    if (at == USEC_NEVER)
        return;
    if (at <= s->now_us)
        at = s->now_us + 1000;
    if (h->tick_us > s->now_us && h->tick_us <= at)
        return;
    sim_schedule_for_agent(s, at - s->now_us, EV_AGENT_TICK, host);
    h->tick_us = at;
}

static void arm_control(struct sim *s)
{
    uint64_t at = s->engine ? engine_deadline(s->engine) : USEC_NEVER;

    if (at == USEC_NEVER)
        return;
    if (at <= s->now_us)
        at = s->now_us + 1000;
    if (s->control_tick_us > s->now_us && s->control_tick_us <= at)
        return;
    sim_schedule(s, at - s->now_us, EV_CONTROL_TICK, 0)->incarnation = s->control_incarnation;
    s->control_tick_us = at;
}

static void step_world(struct sim *s)
{
    struct event *ev = next_event(s);
    bool only_writes = ev->kind == EV_WRITE || ev->kind == EV_LOOK;

    s->now_us = ev->at;
    if (waits_for_host(ev->kind) && sim_suspended(s, ev->host)) {
        ev->at = s->hosts[ev->host].suspended_until_us;
        if (ev->kind == EV_AGENT_TICK && s->hosts[ev->host].tick_us == s->now_us)
            s->hosts[ev->host].tick_us = ev->at;
        if (ev->kind == EV_CONTAINER_DIES)
            s->hosts[ev->host].containers[ev->number].crash_us = ev->at;
        heap_push(s, ev);
        return;
    }
    s->result->events++;
    s->engine_touched = false;
    dispatch(s, ev);
    event_free(ev);
    if (only_writes)
        return;
    for (unsigned i = 0; i < s->n_hosts; i++) {
        sim_take_node_effects(s, i);
        arm(s, i);
    }
    sim_take_engine_effects(s);
    arm_control(s);
    sim_check(s);
    if (s->result->events > TOO_MANY_EVENTS)
        sim_violation(s, V_BACKOFF, "something goes round in circles: %u events", TOO_MANY_EVENTS);
}

/* ---- a run ---- */

/* None at all; some that end while the cluster is busy; some that stay. */
static uint64_t keep_replicas(uint64_t seed)
{
    static const uint64_t seconds[] = {0, 2, 10, 60, 86400};

    return seconds[seed % ARRAY_SIZE(seconds)] * USEC_PER_SEC;
}

/* In some runs neighbours are together, up to all of them; with a source of its own, so that other runs stay as they are. */
static void make_groups(struct sim *s)
{
    uint64_t state = s->options.seed * 0x9e3779b97f4a7c15u + 0x6a09e667f3bcc909u;
    struct random r = random_seeded(&state);
    bool together = random_below(&r, 100) < 40;

    for (unsigned d = 0; d < s->n_datasets; d++)
        s->group[d] = d && together && random_below(&r, 100) < 75 ? s->group[d - 1] : d;
}

static void set_up(struct sim *s)
{
    const struct sim_options *o = &s->options;

    s->random_state = o->seed * 0x9e3779b97f4a7c15u + 1;
    s->random = random_seeded(&s->random_state);
    unsigned nodes = 2 + (unsigned)sim_random(s, 3), datasets = 1 + (unsigned)sim_random(s, 3);
    s->n_nodes = o->nodes ? o->nodes : nodes;
    s->n_datasets = o->datasets ? o->datasets : datasets;
    s->n_containers = s->n_datasets + 2;
    make_groups(s);
    s->storage = sim_chance(s, 65) ? STORAGE_LOCAL : STORAGE_ATTACHABLE;
    s->store.history.store = uuid_random_v4(&s->random);
    s->engine_random_state = sim_random(s, UINT64_MAX);
    uint64_t until = sim_chance(s, 5) ? 150 : 20 + sim_random(s, 25);
    s->end_faults_us = o->until_us ? o->until_us : until * USEC_PER_SEC;
    s->end_us = s->end_faults_us + SETTLE_US;
    for (unsigned i = 0; i < s->n_datasets; i++)
        s->datasets[i].id = uuid_random_v4(&s->random);
    for (unsigned i = 0; i < s->n_nodes; i++)
        s->hosts[i].id = uuid_random_v4(&s->random);
    s->n_hosts = s->n_nodes + 1;
    s->hosts[s->n_nodes].id = s->hosts[0].id; /* off, unless a fault switches it on */
    for (unsigned i = 0; i < s->n_hosts; i++) {
        s->hosts[i].random_state = sim_random(s, UINT64_MAX);
        for (size_t k = 0; k < ARRAY_SIZE(s->hosts[i].slots); k++)
            s->hosts[i].slots[k] = -1;
    }
    s->composes = sim_chance(s, 30) ? 5 : 0;
    s->keep_replicas_us = keep_replicas(o->seed);
    sim_plan_faults(s);
    sim_start_control(s);
    for (unsigned i = 0; i < s->n_nodes; i++)
        sim_start_host(s, i);
    sim_schedule(s, 1000, EV_WRITE, 0);
    sim_schedule(s, 100000, EV_COMMAND, 0);
    s->mount_random_state = o->seed * 0xd6e8feb86659fd93u + 7;
    if (sim_has_mounts(s))
        sim_schedule(s, USEC_PER_SEC, EV_MOUNTS, 0);
    sim_schedule(s, s->end_faults_us, EV_HEAL, 0);
    sim_schedule(s, s->end_faults_us + 2 * USEC_PER_SEC, EV_LOOK, 0);
}

static void tear_down(struct sim *s)
{
    while (s->n_heap)
        event_free(next_event(s));
    engine_free(s->engine);
    for (unsigned i = 0; i < s->n_hosts; i++) {
        node_free(s->hosts[i].brain);
        sim_list_free(s->hosts[i].last_list);
    }
    sim_store_done(&s->store);
    sim_store_done(&s->backup);
    sim_net_done(s);
    free(s->heap);
    free(s->old_tag);
    free(s);
}

static void judge_end(struct sim *s)
{
    char buf[128];
    struct reason r = {0}, rc = {0};
    const char *what = sim_unsettled(s, buf, sizeof(buf));

    if (!what || s->result->violation)
        return;
    const char *d = strchr(buf, 'd');
    unsigned index = d && d[1] >= '0' ? (unsigned)(d[1] - '0') % s->n_datasets : 0;
    char name[] = {'c', (char)('0' + s->group[index]), '\0'};
    if (s->engine) {
        engine_dataset_reason(s->engine, sim_control_now(s), &s->datasets[index].id, &r);
        engine_container_reason(s->engine, sim_control_now(s), name, &rc);
    }
    sim_violation(
        s, V_UNSETTLED,
        "not settled %llu s after the last fault: %s (dataset: %s: %s; container: %s: %s)",
        (unsigned long long)(SETTLE_US / USEC_PER_SEC), what, reason_code_name(r.code),
        r.text ? r.text : "", reason_code_name(rc.code), rc.text ? rc.text : "");
    reason_done(&r);
    reason_done(&rc);
}

void sim_run(const struct sim_options *options, struct sim_result *ret)
{
    struct sim *s = xcalloc(1, sizeof(*s));

    memset(ret, 0, sizeof(*ret));
    s->options = *options;
    s->result = ret;
    set_up(s);
    ret->nodes = s->n_nodes;
    ret->datasets = s->n_datasets;
    ret->end_faults_us = s->end_faults_us;
    while (!ret->violation && !s->done && s->now_us < s->end_us)
        step_world(s);
    judge_end(s);
    tear_down(s);
}

bool sim_looks_often(const struct sim *s)
{
    return s->options.seed % 2 || s->nuisances[N_VANISH];
}

bool sim_shares_lists(const struct sim *s, unsigned host)
{
    return sim_is_shared(s) && (s->options.seed % 5 || host % 2);
}
