/* Processes and hosts that start and die, the store that outlives them, and the steps that agents run. */
#include "sim.h"

#include "base/str.h"
#include "core/fault.h"
#include "core/plan.h"

/* ---- agents ---- */

void sim_start_agent(struct sim *s, unsigned host)
{
    struct sim_host *h = &s->hosts[host];

    if (h->brain || !h->up) /* the lock of the one that runs refuses a second one */
        return;
    struct node_config config = {
        .era = h->era,
        .storage = s->storage,
        .random = random_seeded(&h->random_state),
        .copy = COPY_LIMITS_DEFAULT,
        .memory = h->memory,
        /* What happens behind the agent's back is noticed only then. */
        .resync_us = sim_looks_often(s) ? 3 * USEC_PER_SEC : 0,
        .shares_lists = sim_shares_lists(s, host)};
    config.copy.verify = s->options.seed % 3 == 0;
    h->incarnation++;
    h->tick_us = 0;
    h->brain = node_new(&config);
    node_start(h->brain, sim_now(s));
    sim_schedule_for_agent(s, sim_random(s, 100000), EV_CONNECT, host);
    sim_trace(s, "h%u agent starts", host);
}

/* What the agent was doing when it died is done, not done, or half done. */
static void settle_steps(struct sim *s, unsigned host)
{
    struct sim_host *h = &s->hosts[host];

    for (size_t k = 0; k < s->n_heap; k++) {
        struct event *ev = s->heap[k];
        if (ev->host != host || ev->incarnation != h->incarnation)
            continue;
        if (ev->kind == EV_STEP_DONE && ev->step.kind != STEP_FORBID && sim_chance(s, 50)) {
            ev->cut_at = sim_chance(s, 50) ? 1 + (unsigned)sim_random(s, 3) : ev->cut_at;
            ev->settling = true;
            sim_run_step(s, ev);
            ev->settling = false;
        } else if (ev->kind == EV_PERSISTED && sim_chance(s, 50)) {
            sim_remember(s, host, &ev->memory);
        }
    }
}

/* Orders to attach that it gave, and that the storage carries out after its death. Random numbers of their own: they leave the others as they
 * are. */
static void leave_orders(struct sim *s, unsigned host)
{
    uint64_t state = s->options.seed * 0x9e3779b97f4a7c15u + s->now_us;
    struct random r = random_seeded(&state);

    /* What is attached to a machine that is dead for ever only a person can take away. An older agent, which nobody tells, finds it by a list of its
     * own in five minutes; and so do all where lists are that rare. */
    if (!sim_shares_lists(s, host) || !sim_looks_often(s) || host >= s->n_nodes || s->hosts[host].dead || s->nuisances[N_HOST_DEAD])
        return;
    for (unsigned d = 0; d < s->n_datasets; d++) {
        if (random_below(&r, 6) == 0)
            sim_schedule(s, 1000 + random_below(&r, 20 * USEC_PER_SEC), EV_LATE_ATTACH, host)->number = d;
    }
}

void sim_kill_agent(struct sim *s, unsigned host)
{
    struct sim_host *h = &s->hosts[host];

    if (!h->brain)
        return;
    sim_trace(s, "h%u agent dies", host);
    sim_mounts_agent_dies(s, host);
    sim_agent_gone(s, host);
    h->brain = node_free(h->brain);
    sim_list_free(steal(&h->last_list));
    settle_steps(s, host);
    leave_orders(s, host);
    for (unsigned d = 0; d < s->n_datasets; d++)
        h->volumes[d].announced = 0;
}

void sim_kill_host(struct sim *s, unsigned host)
{
    struct sim_host *h = &s->hosts[host];

    if (!h->up)
        return;
    sim_kill_agent(s, host);
    h->up = false;
    h->suspended_until_us = 0;
    sim_containers_down(s, host);
    sim_mounts_host_dies(s, host);
    sim_volumes_down(s, host);
    memset(h->routes, 0, sizeof(h->routes)); /* the packet filter does not outlive the host */
    sim_trace(s, "h%u dies", host);
}

void sim_start_host(struct sim *s, unsigned host)
{
    struct sim_host *h = &s->hosts[host];

    if (h->up || h->dead)
        return;
    h->up = true;
    h->era = uuid_random_v4(&s->random);
    sim_start_agent(s, host);
}

/* ---- the control service and its store ---- */

static void begin_generation(struct sim *s)
{
    struct history *h = &s->store.history;

    h->generations = xrealloc(h->generations, h->n + 1, sizeof(*h->generations));
    h->generations[h->n++] = (struct generation){uuid_random_v4(&s->random), s->store.revision};
}

void sim_start_control(struct sim *s)
{
    if (s->engine)
        return;
    s->control_incarnation++;
    s->control_tick_us = 0;
    s->store.frozen = sim_until(s, s->store.full_us) && s->store.history.n;
    if (!s->store.frozen)
        begin_generation(s);
    s->engine =
        engine_new(&s->store.history, s->store.revision, random_seeded(&s->engine_random_state));
    engine_keep_replicas(s->engine, s->keep_replicas_us);
    if (sim_looks_often(s))
        engine_list_every(s->engine, 3 * USEC_PER_SEC);
    for (unsigned d = 0; d < s->n_datasets; d++) {
        if (s->store.datasets[d])
            engine_restore_dataset(s->engine, dataset_copy(s->store.datasets[d]));
    }
    for (unsigned c = 0; c < s->n_containers; c++) {
        if (s->store.containers[c])
            engine_restore_container(s->engine, container_copy(s->store.containers[c]));
    }
    for (unsigned d = 0; d < s->n_datasets; d++) {
        struct lease *l = s->store.leases[d];
        uint64_t wall = sim_control_now(s).wall_us;
        if (!l)
            continue;
        engine_restore_lease(s->engine, sim_control_now(s), l);
        /* A restart goes by the wall clock: what that was moved by in the meantime is not the lease's. */
        uint64_t until = s->now_us + (l->expires_wall_us > wall ? l->expires_wall_us - wall : 0);
        if (s->wall_jumped && l->expires && until < s->datasets[d].lease.until_us)
            s->datasets[d].lease.until_us = until;
    }
    for (unsigned i = 0; i < s->n_nodes; i++) {
        if (s->store.fences[i])
            engine_restore_fence(s->engine, s->store.fences[i]);
    }
    engine_tick(s->engine, sim_control_now(s));
    s->engine_touched = true;
    sim_trace(s, "control starts at revision %llu", (unsigned long long)s->store.revision);
}

void sim_kill_control(struct sim *s)
{
    if (!s->engine)
        return;
    sim_trace(s, "control dies");
    for (size_t i = 0; i < s->n_heap; i++) {
        struct event *ev = s->heap[i];
        if (ev->kind == EV_COMMITTED && ev->incarnation == s->control_incarnation &&
            !ev->fails_before && sim_chance(s, 50))
            sim_commit(s, ev->batch);
    }
    s->engine = engine_free(s->engine);
    for (size_t i = 0; i < s->n_sessions; i++) {
        struct sim_session *c = s->sessions[i];
        if (!c->control_open)
            continue;
        c->control_open = false;
        struct event *ev =
            sim_schedule(s, sim_random(s, 2 * USEC_PER_SEC), EV_AGENT_CLOSED, c->host);
        ev->session = c->number;
        ev->incarnation = c->agent;
    }
    /* Never answered: either outcome is right. */
    for (unsigned d = 0; d < s->n_datasets; d++)
        s->datasets[d].busy = false;
    memset(s->container_busy, 0, sizeof(s->container_busy));
    s->composing = false;
}

void sim_store_done(struct sim_store *st)
{
    for (unsigned d = 0; d < MAX_DATASETS; d++) {
        dataset_free(st->datasets[d]);
        lease_free(st->leases[d]);
    }
    for (unsigned c = 0; c < MAX_CONTAINERS; c++)
        container_free(st->containers[c]);
    for (unsigned i = 0; i < MAX_NODES; i++)
        fence_free(st->fences[i]);
    history_done(&st->history);
    *st = (struct sim_store){0};
}

static void store_copy(struct sim_store *to, const struct sim_store *from)
{
    history_copy(&to->history, &from->history);
    to->revision = from->revision;
    for (unsigned d = 0; d < MAX_DATASETS; d++) {
        to->datasets[d] = from->datasets[d] ? dataset_copy(from->datasets[d]) : NULL;
        to->leases[d] = lease_dup(from->leases[d]);
    }
    for (unsigned c = 0; c < MAX_CONTAINERS; c++)
        to->containers[c] = from->containers[c] ? container_copy(from->containers[c]) : NULL;
    for (unsigned i = 0; i < MAX_NODES; i++)
        to->fences[i] = from->fences[i] ? fence_copy(from->fences[i]) : NULL;
}

void sim_back_up(struct sim *s)
{
    sim_store_done(&s->backup);
    store_copy(&s->backup, &s->store);
    s->has_backup = true;
    for (unsigned d = 0; d < s->n_datasets; d++)
        s->backup_lives[d] = s->datasets[d].life;
    sim_trace(s, "the store is backed up at revision %llu", (unsigned long long)s->store.revision);
}

/* Is it at a point where a copy of the store would know least of what comes? */
static bool is_between(const struct dataset *d)
{
    return d && !d->deleted && (!d->born || (d->transfer.id && d->transfer.phase == TRANSFER_RELEASE));
}

unsigned sim_restore(struct sim *s, bool empty)
{
    unsigned keeper = s->n_nodes;

    sim_kill_control(s);
    for (unsigned d = 0; d < s->n_datasets; d++) {
        const struct dataset *now = s->store.datasets[d], *then = s->backup.datasets[d];
        bool known = !empty && then && then->born && !then->deleted && now && !now->deleted &&
                     s->backup_lives[d] == s->datasets[d].life;
        if ((now || then) && !known)
            s->blind = true;
        if (now && now->born && is_between(then) && !uuid_eq(&now->owner, &then->owner) && !uuid_is_nil(&now->owner))
            keeper = (unsigned)sim_node_index(s, &now->owner);
    }
    sim_store_done(&s->store);
    if (empty)
        s->store.history.store = uuid_random_v4(&s->random);
    else
        store_copy(&s->store, &s->backup);
    s->store.history.restored = s->store.revision;
    s->store.history.unsettled = s->store.revision != 0;
    s->restored = true;
    s->emptied = s->emptied || empty;
    for (unsigned d = 0; d < s->n_datasets; d++) {
        struct sim_dataset *ds = &s->datasets[d];
        ds->exists = ds->deleted = ds->container_exists = ds->lease.promised = false;
        ds->lost =
            true; /* leftovers that the backup does not know of stay, and what the nodes know better waits */
        ds->number = 0;
        if (s->emptied)
            sim_mounts_unpromised(s, d);
        if (!s->store.datasets[d] || !s->store.datasets[d]->born)
            ds->life++; /* if it is made again, then anew */
    }
    memset(s->container_exists, 0, sizeof(s->container_exists));
    free(steal(&s->old_tag));
    for (unsigned i = 0; i < s->n_nodes; i++)
        sim_schedule(s, 2 * USEC_PER_SEC + sim_random(s, 8 * USEC_PER_SEC), EV_ADOPT, i);
    sim_schedule(s, 5 * USEC_PER_SEC, EV_SETTLE, 0);
    sim_trace(s, "the store comes back %s, at revision %llu", empty ? "empty" : "from the backup",
              (unsigned long long)s->store.revision);
    if (keeper < s->n_nodes)
        sim_trace(s, "h%u has what the backup does not know to be written", keeper);
    return keeper;
}

/* flocker-agent --adopt, where it is needed. */
void sim_adopt(struct sim *s, unsigned host)
{
    struct sim_host *h = &s->hosts[host];

    sim_schedule(s, 3 * USEC_PER_SEC, EV_ADOPT, host);
    if (!h->brain || !node_store_refused(h->brain) || sim_suspended(s, host))
        return;
    sim_kill_agent(s, host);
    h->memory = (struct node_memory){0};
    sim_trace(s, "h%u adopts the store", host);
    sim_start_agent(s, host);
}

struct count {
    const struct sim *s;
    unsigned ready;
};

/* The control service may not have noticed yet that a machine is gone. */
static bool count_ready(void *cookie, const struct node_view *n)
{
    struct count *c = cookie;
    int i = sim_node_index(c->s, &n->node);

    c->ready += n->obeys && i >= 0 && !c->s->hosts[i].dead;
    return true;
}

/* What speaks for taking a node's data: that they are mounted, then that they are owned, then their age. */
struct candidate {
    struct uuid owner; /* as the store has it */
    struct uuid node;
    uint64_t rank, epoch;
    bool found;
};

static void consider(void *cookie, const struct uuid *node, const struct report *r)
{
    struct candidate *best = cookie;
    const struct volume_state *v = &r->volume;
    uint64_t rank = v->mounted && uuid_eq(node, &best->owner)    ? 6
                    : v->mounted                               ? 5
                    : v->attached && v->mark.state == MARK_OWNED ? 4
                    : v->mark.state == MARK_OWNED                ? 3
                    : v->present                                 ? 2
                    : v->n_snapshots                             ? 1
                                                                 : 0;
    bool better = rank != best->rank ? rank > best->rank : v->mark.epoch > best->epoch;

    if (!best->found || better)
        *best = (struct candidate){best->owner, *node, rank, v->mark.epoch, true};
}

/* flockerctl adopt DATASET --node NODE, where the store cannot find out by itself who has the data. */
static void settle_dataset(struct sim *s, unsigned d, const struct command *settle)
{
    struct command cmd = *settle;
    const struct dataset *now = engine_dataset(s->engine, &s->datasets[d].id);
    struct candidate best = {.owner = now ? now->owner : UUID_NIL};
    struct reason why;

    engine_dataset_reason(s->engine, sim_control_now(s), &s->datasets[d].id, &why);
    bool unknown = why.code == REASON_STORE_UNKNOWN;
    reason_done(&why);
    if (!unknown)
        return;
    engine_each_report(s->engine, sim_control_now(s), &s->datasets[d].id, consider, &best);
    cmd.kind = COMMAND_DATASET_ADOPT;
    cmd.dataset_id = s->datasets[d].id;
    cmd.node = best.node;
    sim_trace(s, "the operator says that the d%u of n%d counts", d, sim_node_index(s, &best.node));
    engine_command(s->engine, sim_control_now(s), &cmd);
}

/* flockerctl adopt, once every machine that still lives obeys the store. */
void sim_settle(struct sim *s)
{
    struct command cmd = {.kind = COMMAND_STORE_ADOPT, .id = OPERATORS};
    struct count count = {.s = s};
    unsigned alive = 0;

    sim_schedule(s, 3 * USEC_PER_SEC, EV_SETTLE, 0);
    for (unsigned i = 0; i < s->n_nodes; i++)
        alive += !s->hosts[i].dead;
    if (s->engine)
        engine_list_nodes(s->engine, sim_control_now(s), &(struct list_query){0}, count_ready, &count);
    if (count.ready < alive)
        return;
    s->engine_touched = true;
    cmd.anyway = alive < s->n_nodes;
    if (!s->store.history.unsettled) {
        for (unsigned d = 0; d < s->n_datasets; d++) {
            settle_dataset(s, d, &cmd);
            sim_mounts_release_again(s, d);
        }
        return;
    }
    sim_trace(s, "the operator says that all are back");
    engine_command(s->engine, sim_control_now(s), &cmd);
}

/* ---- the operator and a machine that is off ---- */

static void operate(struct sim *s, struct command *cmd)
{
    cmd->id = OPERATORS;
    s->engine_touched = true;
    engine_command(s->engine, sim_control_now(s), cmd);
}

/* What is wanted there is wanted elsewhere now: it never comes back. */
static void move_all_away(struct sim *s, unsigned host)
{
    unsigned to = (unsigned)sim_random(s, s->n_nodes);

    while (s->hosts[to].dead)
        to = (to + 1) % s->n_nodes;
    for (unsigned c = 0; c < s->n_containers; c++) {
        char name[] = {'c', (char)('0' + c), '\0'};
        const struct container *k = engine_container(s->engine, name);
        struct command cmd = {
            .kind = COMMAND_CONTAINER_MOVE, .node = s->hosts[to].id, .name = name};
        if (k && uuid_eq(&k->node, &s->hosts[host].id))
            operate(s, &cmd);
    }
    for (unsigned i = 0; i < s->n_datasets; i++) {
        char name[] = {'c', (char)('0' + s->group[i]), '\0'};
        const struct container *k = engine_container(s->engine, name);
        const struct dataset *d = engine_dataset(s->engine, &s->datasets[i].id);
        struct command cmd = {.kind = COMMAND_DATASET_UPDATE,
                              .node = s->hosts[to].id,
                              .dataset_id = s->datasets[i].id};
        bool used = k && container_uses(k, &s->datasets[i].id); /* it goes along, or is elsewhere */
        if (d && !d->deleted && !used && uuid_eq(&d->primary, &s->hosts[host].id))
            operate(s, &cmd);
    }
}

/* It is back: what it has kept is not wanted by anybody. */
static void drop_kept_copies(struct sim *s, unsigned host)
{
    for (unsigned d = 0; d < s->n_datasets; d++) {
        const struct dataset *now = engine_dataset(s->engine, &s->datasets[d].id);
        struct command cmd = {.kind = COMMAND_COPY_DROP, .dataset_id = s->datasets[d].id, .node = s->hosts[host].id};
        if (!now || now->deleted || uuid_is_nil(&now->owner) || !dataset_is_fenced(now, &s->hosts[host].id) || sim_is_shared(s))
            continue;
        sim_trace(s, "the operator has h%u drop its d%u", host, d);
        operate(s, &cmd);
    }
}

static void sign_off(struct sim *s, unsigned host)
{
    struct command cmd = {.kind = COMMAND_NODE_FENCE, .node = s->hosts[host].id, .who = "operator", .why = "it is off"};

    for (unsigned d = 0; d < s->n_datasets; d++) {
        struct sim_lease *l = &s->datasets[d].lease;
        l->promised = l->promised && l->node != host;
    }
    s->hosts[host].fencing = true;
    sim_trace(s, "the operator signs that h%u is off", host);
    operate(s, &cmd);
}

/* He signs only what he has seen: the machine is off in this very moment. One that is back needs him only when it is not known that it
 * was started anew. */
void sim_fence(struct sim *s, unsigned host)
{
    struct sim_host *h = &s->hosts[host];
    bool fenced = s->engine && engine_fence(s->engine, &h->id);

    sim_schedule(s, 3 * USEC_PER_SEC, EV_FENCE, host);
    if (!s->engine || (!h->up && s->cloned && !host)) /* nobody knows which of two machines is off */
        return;
    if (!h->up) {
        if (!fenced || s->store.fences[host]->revision <= s->store.history.restored)
            sign_off(s, host);
        else if (h->dead || (sim_faults(s) && sim_chance(s, 40)))
            move_all_away(s, host);
        return;
    }
    if (!fenced) {
        h->back_us = 0;
        if (!sim_faults(s) || sim_chance(s, 30))
            drop_kept_copies(s, host);
        return;
    }
    if (!h->back_us)
        h->back_us = s->now_us;
    if (s->now_us < h->back_us + 10 * USEC_PER_SEC)
        return;
    struct command cmd = {.kind = COMMAND_NODE_UNFENCE, .node = h->id};
    sim_trace(s, "the operator ends the fence of h%u", host);
    operate(s, &cmd);
}

/* Who owned it was off, and it goes on elsewhere: with all that was written, or, on local storage, from an earlier copy. The operator
 * was told; from now on that is what counts. */
static void note_rescue(struct sim *s, unsigned d, const struct dataset *old, const struct dataset *now)
{
    const struct uuid *from = old && now ? dataset_freed_from(old) : NULL;
    int to = from && !uuid_is_nil(&now->owner) ? sim_node_index(s, &now->owner) : -1;

    if (to < 0 || uuid_eq(from, &now->owner) || sim_is_shared(s) || !now->base)
        return;
    const struct sim_volume *v = &s->hosts[to].volumes[d];
    CLEANUP_FREE char *transfer = xasprintf("%llu-", (unsigned long long)old->fenced->transfer);
    for (size_t i = 0; i < v->n_snapshots; i++) {
        if (!streq(v->snapshots[i].name, now->base) || v->snapshots[i].version > s->datasets[d].acked)
            continue;
        sim_trace(s, "d%u goes on from version %llu of %llu", d, (unsigned long long)v->snapshots[i].version,
                  (unsigned long long)s->datasets[d].acked);
        bool whole = plan_is_final(now->base) && !strncmp(now->base + 1, transfer, strlen(transfer));
        if (whole && v->snapshots[i].version != s->datasets[d].acked)
            sim_violation(s, V_LOST_WRITE, "d%u is said to be whole on h%d, and is not", d, to);
        s->datasets[d].acked = v->snapshots[i].version;
    }
}

/* Nobody gets it, or loses it, without a new epoch: the former owner is refused from then on. */
static void check_epochs(struct sim *s, unsigned d, const struct dataset *old, const struct dataset *now)
{
    if (old && now && !s->restored && !uuid_eq(&old->owner, &now->owner) && now->epoch <= old->epoch)
        sim_violation(s, V_NUMBERS, "d%u changes its owner at epoch %llu", d, (unsigned long long)now->epoch);
}

/* A delete is done when nobody holds a byte any more. */
static void check_deleted(struct sim *s, unsigned d, const struct dataset *value)
{
    if (!value || !value->tombstone || value->n_holders)
        return;
    for (unsigned i = 0; i < s->n_nodes; i++) {
        if (!sim_volume_is_blank(s, i, d) && !s->datasets[d].lost)
            sim_violation(s, V_RESURRECTED, "the delete of d%u is done, but n%u still holds it", d,
                          i);
    }
}

/* A record goes only when the user wanted that, and nothing of the dataset is left. */
static void forgotten(struct sim *s, unsigned d, const struct dataset *old)
{
    sim_trace(s, "commit: d%u is forgotten", d);
    if (!old || !old->deleted || !old->purge || !old->tombstone || old->n_holders)
        sim_violation(s, V_STORE, "the record of d%u is forgotten too early", d);
    s->datasets[d].exists = s->datasets[d].deleted = false;
}

static void commit_dataset(struct sim *s, const struct change *c)
{
    struct uuid id = UUID_NIL;

    (void)uuid_parse(c->key, &id);
    int d = sim_dataset_index(s, &id);
    if (d < 0)
        return;
    const struct dataset *v = c->dataset;
    if (!v)
        forgotten(s, (unsigned)d, s->store.datasets[d]);
    if (v && !s->store.datasets[d]) { /* a new one, if under an old id */
        s->datasets[d].life++;
        s->datasets[d].acked = 0;
    }
    const struct dataset *old = s->store.datasets[d];
    if (v && (!old || old->epoch != v->epoch) && v->epoch && v->epoch <= s->datasets[d].number)
        sim_violation(s, V_NUMBERS, "d%d gets epoch %llu, but number %llu was given out for it", d,
                      (unsigned long long)v->epoch, (unsigned long long)s->datasets[d].number);
    if (v && v->number > s->datasets[d].number)
        s->datasets[d].number = v->number;
    check_epochs(s, (unsigned)d, old, v);
    note_rescue(s, (unsigned)d, old, v);
    dataset_free(s->store.datasets[d]);
    s->store.datasets[d] = v ? dataset_copy(v) : NULL;
    if (v)
        sim_trace(s,
                  "commit %llu d%d primary n%d owner n%d epoch %llu born %d transfer %llu phase %d "
                  "holders %zu replica n%d%s",
                  (unsigned long long)c->revision, d, sim_node_index(s, &v->primary),
                  sim_node_index(s, &v->owner), (unsigned long long)v->epoch, v->born,
                  (unsigned long long)v->transfer.id, v->transfer.phase, v->n_holders,
                  v->replica ? sim_node_index(s, &v->replica->node) : -1,
                  v->tombstone ? " tombstone"
                  : v->deleted ? " deleted"
                  : v->dropped ? " dropped"
                               : "");
    check_deleted(s, (unsigned)d, v);
}

static bool is_releasing(const struct dataset *d)
{
    return d && d->transfer.id && d->transfer.phase == TRANSFER_RELEASE;
}

#define OLD_ENOUGH_US                                                                              \
    (10 * USEC_PER_SEC) /* what was proposed before the container was known is committed by then */

/* The number alone does not tell: a store that was put back gives out the same ones again. */
static bool is_made_from(const struct sim_container *k, const struct container *c)
{
    char spec[CONTAINER_SPEC_SIZE];

    container_spec(c, spec);
    return k->created == c->created && streq(k->spec, spec);
}

/* The release of `d` was ordered just now. Who runs on it at the source has to stop, and must not wait for another dataset then. */
static void check_alone(struct sim *s, unsigned d)
{
    const struct container *c = s->store.containers[s->group[d]];
    int source = sim_node_index(s, &s->store.datasets[d]->transfer.source);
    const struct sim_container *k = source < 0 ? NULL : &s->hosts[source].containers[s->group[d]];

    if (!c || !k || !k->running || !is_made_from(k, c) || !k->uses[d] ||
        k->started_us + OLD_ENOUGH_US > s->now_us)
        return;
    for (unsigned i = 0; i < s->n_datasets; i++) {
        const struct dataset *st = s->store.datasets[i];
        bool stays = st && k->uses[i] && container_uses(c, &s->datasets[i].id) && st->born &&
                     !is_releasing(st) && uuid_eq(&st->owner, &s->hosts[source].id);
        if (stays)
            sim_violation(s, V_ALONE, "d%u leaves h%d, where c%u runs, before d%u is ready", d,
                          source, s->group[d], i);
    }
}

static void commit_fence(struct sim *s, const struct change *c)
{
    struct uuid id = UUID_NIL;

    (void)uuid_parse(c->key, &id);
    int host = sim_node_index(s, &id);
    sim_trace(s, "commit %llu h%d is %s", (unsigned long long)c->revision, host, c->fence ? "fenced" : "not fenced any more");
    if (host < 0)
        return;
    fence_free(s->store.fences[host]);
    s->store.fences[host] = c->fence ? fence_copy(c->fence) : NULL;
    s->hosts[host].fencing = c->fence != NULL;
}

static void commit_lease(struct sim *s, const struct change *c)
{
    struct uuid id = UUID_NIL;

    (void)uuid_parse(c->key, &id);
    int d = sim_dataset_index(s, &id);
    if (d < 0)
        return;
    lease_free(s->store.leases[d]);
    s->store.leases[d] = lease_dup(c->lease);
    if (c->lease)
        sim_trace(s, "commit %llu d%d lease of h%d, %zu mounts%s", (unsigned long long)c->revision,
                  d, sim_node_index(s, &c->lease->node), c->lease->n_mounts,
                  c->lease->acquired ? ", acquired" : "");
    else
        sim_trace(s, "commit %llu d%d no lease", (unsigned long long)c->revision, d);
    if (c->lease)
        sim_mounts_check_lease(s, (unsigned)d, c->lease);
    if (!c->lease || !c->lease->acquired)
        sim_lease_gone(s, (unsigned)d);
}

void sim_commit(struct sim *s, const struct batch *b)
{
    bool between = false, before[MAX_DATASETS];

    for (unsigned d = 0; d < s->n_datasets; d++)
        before[d] = is_releasing(s->store.datasets[d]);
    for (size_t i = 0; i < b->n; i++) {
        const struct change *c = &b->changes[i];
        if (c->revision <= s->store.revision)
            sim_violation(s, V_NUMBERS, "revision %llu is used again",
                          (unsigned long long)c->revision);
        s->store.revision = c->revision;
        if (c->kind == OBJECT_DATASET) {
            commit_dataset(s, c);
            between = between || is_between(c->dataset);
        } else if (c->kind == OBJECT_CONTAINER) {
            unsigned k = sim_container_index(c->key);
            if (c->container && c->container->ended)
                sim_trace(s, "commit %llu %s has ended for good", (unsigned long long)c->revision, c->key);
            container_free(s->store.containers[k]);
            s->store.containers[k] = c->container ? container_copy(c->container) : NULL;
        } else if (c->kind == OBJECT_STORE) {
            s->store.history.unsettled = false;
            sim_trace(s, "commit %llu the store is settled", (unsigned long long)c->revision);
        } else if (c->kind == OBJECT_FENCE) {
            commit_fence(s, c);
        } else if (c->kind != OBJECT_NODE) { /* no user of the simulation cordons a node */
            commit_lease(s, c);
        }
    }
    for (unsigned d = 0; d < s->n_datasets; d++) {
        if (!before[d] && is_releasing(s->store.datasets[d]))
            check_alone(s, d);
    }
    if (between && !s->has_backup && s->nuisances[N_RESTORE] && sim_faults(s) &&
        sim_chance(s, 20)) {
        sim_back_up(s);
        sim_schedule(s, USEC_PER_SEC + sim_random(s, 8 * USEC_PER_SEC), EV_LOSE_STORE, (unsigned)sim_random(s, s->n_nodes));
    }
}

/* ---- steps ---- */

static bool is_dataset_step(enum step_kind k)
{
    return k > STEP_LIST_VOLUMES && k <= STEP_FORBID;
}

/* What the machine itself tells of what is known of shared storage, without asking that. */
static struct sim_list *look_here(const struct sim *s, unsigned host, const struct step *step)
{
    struct sim_list *list = xcalloc(1, sizeof(*list));

    for (size_t i = 0; i < step->n_known; i++) {
        const struct volume_state *known = &step->known[i];
        int d = sim_dataset_index(s, &known->dataset);
        if (d < 0)
            continue;
        const struct sim_volume *here = &s->hosts[host].volumes[d];
        list->volumes[list->n_volumes++] = (struct volume_state){.dataset = known->dataset,
                                                                 .present = known->present,
                                                                 .attached = known->attached,
                                                                 .attached_elsewhere = known->attached_elsewhere,
                                                                 .size = known->size,
                                                                 .mounted = here->mounted,
                                                                 .partial = here->partial,
                                                                 .mark = here->mark};
    }
    return list;
}

static void look_at_volumes(struct sim *s, unsigned host, struct sim_list *list)
{
    for (unsigned d = 0; d < s->n_datasets; d++) {
        struct volume_state *v = &list->volumes[list->n_volumes];
        sim_observe(s, host, d, v);
        if (sim_is_shared(s) && s->shared[d].attached)
            v->hosts = xasprintf("h%u", s->shared[d].host);
        if (volume_state_is_empty(v) && v->mark.state == MARK_NONE)
            volume_state_done(v);
        else
            list->n_volumes++;
    }
}

/* A node that has seen more of the store's history than the store has must not go over to it (unless it is told to). */
void sim_remember(struct sim *s, unsigned host, const struct node_memory *news)
{
    struct node_memory *m = &s->hosts[host].memory;
    struct uuid present = history_generation(&s->store.history);

    /* A store put back while its disk is full has no life of its own: what is newer than it came from the one that is lost. */
    if (s->engine && !uuid_is_nil(&m->store) && uuid_eq(&news->generation, &present) &&
        news->seen_revision <= s->store.revision &&
        (!uuid_eq(&m->store, &s->store.history.store) ||
         m->seen_revision > history_end(&s->store.history, &m->generation, s->store.revision)))
        sim_violation(s, V_STORE, "h%u goes over to a store that knows less than it has seen",
                      host);
    *m = *news;
}

void sim_list_free(struct sim_list *list)
{
    for (size_t i = 0; list && i < MAX_DATASETS; i++)
        volume_state_done(&list->volumes[i]);
    for (size_t i = 0; list && i < MAX_CONTAINERS; i++)
        container_state_done(&list->containers[i]);
    free(list);
}

static struct sim_list *list_copy(const struct sim_list *from)
{
    struct sim_list *to = xcalloc(1, sizeof(*to));

    to->n_volumes = from->n_volumes;
    for (size_t i = 0; i < from->n_volumes; i++)
        volume_state_copy(&to->volumes[i], &from->volumes[i]);
    return to;
}

/* Some backends answer for a while what was there before; not what was there before the agent started. */
static struct sim_list *list_volumes(struct sim *s, unsigned host)
{
    struct sim_host *h = &s->hosts[host];
    struct sim_list *list = xcalloc(1, sizeof(*list)), *old = h->last_list;

    look_at_volumes(s, host, list);
    if (!s->nuisances[N_LAGGING_LISTS])
        return list;
    h->last_list = list_copy(list);
    if (!old || !sim_faults(s) || !sim_chance(s, 40)) {
        sim_list_free(old);
        return list;
    }
    sim_list_free(list);
    return old;
}

#define COMPARE_MOST_US (20 * USEC_PER_SEC)
#define CANCEL_MOST_US USEC_PER_SEC

/* Only comparisons last so long that it matters. */
void sim_cancel_step(struct sim *s, unsigned host, uint64_t step)
{
    for (size_t k = 0; k < s->n_heap; k++) {
        struct event *ev = s->heap[k];
        if (ev->kind != EV_STEP_DONE || ev->host != host || ev->incarnation != s->hosts[host].incarnation ||
            ev->step.id != step || !ev->step.asked || ev->cancelled)
            continue;
        struct event *soon = sim_schedule_for_agent(s, sim_random(s, CANCEL_MOST_US), EV_STEP_DONE, host);
        soon->step = ev->step;
        soon->cancelled = true;
        ev->step = (struct step){0};
        ev->incarnation = 0; /* nobody's any more */
        return;
    }
}

void sim_begin_step(struct sim *s, unsigned host, struct step *step)
{
    /* On a slow disk 30 times that: less than what is left when the faults have ended, as nothing ends a step early here. */
    static const uint64_t longest[STEP_MAX] = {
        [STEP_SEND] = 2000000,  [STEP_VERIFY] = 2000000,       [STEP_START] = 1000000,        [STEP_STOP] = 3000000,
        [STEP_IMAGE] = 5000000, [STEP_LIST_VOLUMES] = 1000000, [STEP_LIST_CONTAINERS] = 500000,
    };
    struct sim_host *h = &s->hosts[host];
    uint64_t most = step->asked ? s->options.seed % 4 ? COMPARE_MOST_US / 40 : COMPARE_MOST_US : longest[step->kind] ? longest[step->kind] : 100000;
    bool dataset = is_dataset_step(step->kind);

    if (dataset && !step->asked && sim_until(s, h->slow_disk_us))
        most *= 30;
    struct event *ev = sim_schedule_for_agent(s, 500 + sim_random(s, most), EV_STEP_DONE, host);
    ev->step = *step;
    *step = (struct step){0};
    if (ev->step.kind == STEP_LIST_VOLUMES || ev->step.kind == STEP_LIST_CONTAINERS) {
        if (ev->step.kind == STEP_LIST_VOLUMES) {
            ev->list = ev->step.here_only ? look_here(s, host, &ev->step) : list_volumes(s, host);
        } else {
            ev->list = xcalloc(1, sizeof(*ev->list));
            sim_list_containers(s, host, ev->list);
        }
    }
    int d = sim_dataset_index(s, &ev->step.dataset);
    if (ev->step.kind == STEP_SEND && d >= 0)
        sim_begin_stream(s, ev, (unsigned)d);
    if (!sim_faults(s))
        return;
    unsigned bad = dataset && sim_until(s, h->bad_disk_us) ? h->bad_disk_percent
                   : ev->step.kind == STEP_SEND            ? 10
                                                           : 3;
    ev->fails_before = sim_chance(s, bad);
    ev->fails_after = sim_chance(s, bad);
    if (sim_chance(s, bad))
        ev->cut_at = 1 + (unsigned)sim_random(s, 3);
}

static struct err *run(struct sim *s, struct event *ev, int d)
{
    if (ev->list && ev->list->fails)
        return err_new(ERR_UNAVAILABLE, "simulated engine does not answer");
    if (ev->fails_before)
        return err_new(ERR_IO, "simulated failure before the step");
    if (ev->list)
        return NULL;
    if (ev->step.kind == STEP_SPACE)
        return NULL;
    if (ev->step.kind == STEP_ROUTES) {
        sim_set_routes(s, ev->host, &ev->step);
        return NULL;
    }
    if (!is_dataset_step(ev->step.kind))
        return sim_container_step(s, ev->host, ev);
    return d < 0 ? NULL : sim_dataset_step(s, ev->host, ev, (unsigned)d);
}

/* Carries the step out now and tells the agent, unless the agent that asked is gone. */
void sim_run_step(struct sim *s, struct event *ev)
{
    struct sim_host *h = &s->hosts[ev->host];
    struct outcome o = {.step = ev->step.id};
    CLEANUP_ERR struct err *error = NULL;
    bool alive = h->brain && h->incarnation == ev->incarnation;
    int d = sim_dataset_index(s, &ev->step.dataset);

    if (!alive && !ev->settling)
        return; /* settled when the agent died */
    error = run(s, ev, d);
    if (!error && ev->fails_after)
        error = err_new(ERR_TIMEOUT, "simulated failure after the step");
    if (is_dataset_step(ev->step.kind))
        sim_trace(s, "h%u step %s d%d %s: %s", ev->host, step_name(ev->step.kind), d,
                  ev->step.snapshot, error ? error->text : "ok");
    else
        sim_trace(s, "h%u step %s %s: %s", ev->host, step_name(ev->step.kind),
                  ev->step.name ? ev->step.name : "", error ? error->text : "ok");
    if (!alive)
        return;
    o.error = error;
    if (is_dataset_step(ev->step.kind) && d >= 0) {
        o.observed = true;
        sim_observe(s, ev->host, (unsigned)d, &o.volume);
    }
    if (ev->step.kind == STEP_LIST_VOLUMES || ev->step.kind == STEP_SPACE)
        o.space = (struct space){1000, sim_is_short_of_space(s, ev->host) ? 10 : 500};
    if (ev->list) {
        o.volumes = ev->list->volumes;
        o.n_volumes = ev->list->n_volumes;
        o.containers = ev->list->containers;
        o.n_containers = ev->list->n_containers;
    }
    node_outcome(h->brain, sim_now(s), &o);
    volume_state_done(&o.volume);
}
