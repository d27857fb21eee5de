/* Simulated storage and mover: what a step does to a host's bytes, in parts between which it may stop. */
#include "sim.h"

#include "base/str.h"
#include "core/fault.h"
#include "core/plan.h"

/* Between two parts of a step: here it may end, with the first part done. */
#define PART(ev)                                                                                   \
    do {                                                                                           \
        if ((ev)->cut_at && --(ev)->cut_at == 0)                                                   \
            return err_new(ERR_IO, "simulated failure in the middle");                             \
    } while (0)

static struct sim_snapshot *find_snapshot(struct sim_volume *v, const char *name)
{
    for (size_t i = 0; i < v->n_snapshots; i++) {
        if (streq(v->snapshots[i].name, name))
            return &v->snapshots[i];
    }
    return NULL;
}

static void add_snapshot(struct sim *s, struct sim_volume *v, const char *name, uint64_t version,
                         uint64_t life)
{
    struct sim_snapshot *snap = find_snapshot(v, name);

    if (!snap) {
        if (v->n_snapshots == MAX_SNAPSHOTS) {
            sim_violation(s, V_UNSETTLED, "snapshots pile up");
            return;
        }
        snap = &v->snapshots[v->n_snapshots++];
    }
    (void)snprintf(snap->name, sizeof(snap->name), "%s", name);
    snap->version = version;
    snap->life = life;
    snap->damaged = false;
}

static bool attached_here(const struct sim *s, unsigned host, unsigned d)
{
    return s->shared[d].attached && s->shared[d].host == host;
}

static bool is_here(const struct sim *s, unsigned host, unsigned d)
{
    return sim_is_shared(s) ? s->shared[d].present : s->hosts[host].volumes[d].present;
}

void sim_observe(const struct sim *s, unsigned host, unsigned d, struct volume_state *ret)
{
    const struct sim_volume *v = &s->hosts[host].volumes[d];
    struct volume_state o = {.dataset = s->datasets[d].id,
                             .mounted = v->mounted,
                             .partial = v->partial,
                             .mark = v->mark};

    o.present = is_here(s, host, d);
    o.attached = sim_is_shared(s) ? attached_here(s, host, d) : o.present;
    o.attached_elsewhere = sim_is_shared(s) && s->shared[d].attached && s->shared[d].host != host;
    o.size = sim_is_shared(s) ? s->shared[d].size : v->size;
    o.n_snapshots = (unsigned)v->n_snapshots;
    if (v->n_snapshots)
        o.snapshots = xcalloc(v->n_snapshots, sizeof(*o.snapshots));
    for (size_t i = 0; i < v->n_snapshots; i++)
        memcpy(o.snapshots[i], v->snapshots[i].name, SNAPSHOT_NAME_SIZE);
    *ret = o;
}

bool sim_volume_is_blank(const struct sim *s, unsigned host, unsigned d)
{
    const struct sim_volume *v = &s->hosts[host].volumes[d];

    return !v->present && !v->partial && !v->n_snapshots && v->mark.state == MARK_NONE &&
           !v->mounted && !attached_here(s, host, d);
}

void sim_volumes_down(struct sim *s, unsigned host)
{
    for (unsigned d = 0; d < s->n_datasets; d++) {
        s->hosts[host].volumes[d].mounted = false;
        s->hosts[host].volumes[d].announced = 0;
    }
}

/* ---- attaching: device names are used again, so each use looks what is behind one ---- */

static void attach(struct sim *s, unsigned host, unsigned d)
{
    int *slots = s->hosts[host].slots;
    size_t free_slot = 0;

    if (attached_here(s, host, d))
        return;
    s->shared[d].attached = true;
    s->shared[d].host = host;
    while (slots[free_slot] >= 0)
        free_slot++;
    slots[free_slot] = (int)d;
}

static void detach(struct sim *s, unsigned host, unsigned d)
{
    if (!attached_here(s, host, d))
        return;
    s->shared[d].attached = false;
    for (size_t i = 0; i < ARRAY_SIZE(s->hosts[host].slots); i++) {
        if (s->hosts[host].slots[i] == (int)d)
            s->hosts[host].slots[i] = -1;
    }
}

/* As the operator said that the machine that has it is off. */
static void take_away(struct sim *s, unsigned host, unsigned d, const struct step *step)
{
    for (size_t i = 0; i < step->n_fenced; i++) {
        int from = sim_node_index(s, &step->fenced[i]);
        if (from >= 0 && (unsigned)from != host)
            detach(s, (unsigned)from, d);
    }
}

void sim_vanish(struct sim *s, unsigned host, unsigned d)
{
    if (!attached_here(s, host, d))
        return;
    detach(s, host, d);
    s->hosts[host].volumes[d].mounted = false;
    s->hosts[host].volumes[d].pulled = true;
}

void sim_attach_late(struct sim *s, unsigned host, unsigned d)
{
    if (!sim_faults(s) || !s->shared[d].present || s->shared[d].attached)
        return;
    sim_trace(s, "d%u is attached to h%u after all", d, host);
    attach(s, host, d);
}

static unsigned device_of(const struct sim *s, unsigned host, unsigned d)
{
    const struct sim_host *h = &s->hosts[host];

    if (FAULT(STALE_DEVICE))
        return h->volumes[d].device; /* where it was the last time */
    for (unsigned i = 0; i < ARRAY_SIZE(h->slots); i++) {
        if (h->slots[i] == (int)d)
            return i;
    }
    return 0;
}

/* ---- steps ---- */

static void check_lease(struct sim *s, unsigned host, unsigned d)
{
    const struct sim_lease *l = &s->datasets[d].lease;
    const struct dataset *st = s->store.datasets[d];
    const struct sim_volume *v = &s->hosts[host].volumes[d];
    /* A drop of what an earlier epoch left may end just after the node became owner again. A node does one step at a time
     * about a dataset, so nothing of the new ownership was done yet: there is nothing that the drop takes away. */
    bool owner = st && uuid_eq(&st->owner, &s->hosts[host].id) && v->mark.epoch == st->epoch;
    bool there = v->mounted || owner;

    if (there && l->promised && s->now_us < l->until_us && l->node == host)
        sim_violation(s, V_LEASE, "d%u is taken off h%u in spite of a lease", d, host);
    if (sim_mount_runs(s, host, d, SIM_PROMISED))
        sim_violation(s, V_LEASE, "d%u is taken from under a container of h%u", d, host);
}

/* The core must not even ask for what the drivers would refuse: a mark never goes back. */
static void set_mark(struct sim *s, unsigned host, unsigned d, enum mark_state state,
                     const struct step *st)
{
    struct volume_mark *m = &s->hosts[host].volumes[d].mark;
    bool released = m->state == MARK_RELEASED && st->epoch <= m->epoch;

    if ((released || st->epoch < m->epoch) && m->state != MARK_NONE)
        sim_violation(s, V_TWO_WRITERS, "h%u takes d%u at epoch %llu, but its mark says %s %llu",
                      host, d, (unsigned long long)st->epoch, released ? "released" : "owned",
                      (unsigned long long)m->epoch);
    *m = (struct volume_mark){.state = state, .epoch = st->epoch};
    if (state == MARK_PROMOTING)
        memcpy(m->snapshot, st->snapshot, SNAPSHOT_NAME_SIZE);
}

static struct err *unmount(struct sim *s, unsigned host, unsigned d)
{
    struct sim_volume *v = &s->hosts[host].volumes[d];

    for (unsigned c = 0; c < s->n_containers; c++) {
        const struct sim_container *k = &s->hosts[host].containers[c];
        if (k->running && k->uses[d])
            return err_new(ERR_BUSY, "a container runs on it");
    }
    if (sim_mount_runs(s, host, d, SIM_PROMISED))
        sim_violation(s, V_LEASE, "d%u is unmounted under a container of h%u", d, host);
    if (sim_mount_runs(s, host, d, /* flags= */ 0))
        return err_new(ERR_BUSY, "a container that is not ours has it mounted");
    if (v->mounted && sim_faults(s) && sim_chance(s, 10))
        return err_new(ERR_BUSY, "pid 4711 (vi) has it open");
    v->mounted = false;
    return NULL;
}

static struct err *create(struct sim *s, struct event *ev, unsigned host, unsigned d)
{
    struct sim_volume *v = &s->hosts[host].volumes[d];
    struct sim_dataset *ds = &s->datasets[d];

    if (!is_here(s, host, d)) {
        /* A host that slept in the step may end it at an epoch that is long over: that volume is never mounted. */
        const struct dataset *st = s->store.datasets[d];
        if (ds->acked && st && st->epoch == ev->step.epoch)
            sim_violation(s, V_RECREATED, "a born dataset is created empty again: d%u on h%u", d,
                          host);
        v->version = 0;
        v->size = sim_is_shared(s) ? 0 : ev->step.maximum_size;
        v->life = s->shared[d].life = ds->life;
        s->shared[d].version = s->shared[d].size = 0;
        s->shared[d].formatted = false;
        s->shared[d].present = sim_is_shared(s);
        v->present = !sim_is_shared(s);
    }
    PART(ev);
    set_mark(s, host, d, MARK_OWNED, &ev->step);
    return NULL;
}

bool sim_has_newest(const struct sim *s, unsigned host, unsigned d)
{
    const struct sim_volume *v = &s->hosts[host].volumes[d];
    const struct sim_dataset *ds = &s->datasets[d];
    bool has = v->present && v->life == ds->life && v->version == ds->acked;

    for (size_t i = 0; i < v->n_snapshots; i++)
        has |= plan_is_final(v->snapshots[i].name) && v->snapshots[i].life == ds->life && v->snapshots[i].version == ds->acked;
    return has;
}

/* After a restore somebody said that all are back. The disk with the newest data was not among them, so what there is counts: the
 * newest volume that a machine has which is not dead for ever. */
static bool is_all_there_is(const struct sim *s, unsigned host, unsigned d)
{
    const struct sim_volume *mine = &s->hosts[host].volumes[d];
    bool gone = s->datasets[d].wiped;

    if (!s->restored || s->store.history.unsettled || sim_is_shared(s))
        return false;
    for (unsigned i = 0; i < s->n_nodes; i++) {
        const struct sim_volume *v = &s->hosts[i].volumes[d];
        bool newer = v->present && v->life == mine->life && v->version > mine->version;
        if (!s->hosts[i].dead && (newer || sim_has_newest(s, i, d)))
            return false;
        gone |= s->hosts[i].dead && sim_has_newest(s, i, d);
    }
    return gone;
}

static struct err *mount_volume(struct sim *s, struct event *ev, unsigned host, unsigned d)
{
    struct sim_volume *v = &s->hosts[host].volumes[d];

    if (v->mark.state != MARK_OWNED || v->mark.epoch != ev->step.epoch)
        return err_new(ERR_CONFLICT, "not owned at that epoch");
    if (!is_here(s, host, d))
        return err_new(ERR_NOT_FOUND, "no volume");
    if (sim_is_shared(s)) {
        take_away(s, host, d, &ev->step);
        if (s->shared[d].attached && s->shared[d].host != host)
            return err_new(ERR_BUSY, "attached elsewhere");
        attach(s, host, d);
        PART(ev);
        v->device = device_of(s, host, d);
        int behind = s->hosts[host].slots[v->device];
        if (behind != (int)d)
            sim_violation(s, V_DEVICE, "h%u mounts d%u from device %u, which is d%d", host, d,
                          v->device, behind);
        if (!s->shared[d].formatted || FAULT(FORMAT_ANYWAY)) {
            s->shared[d].formatted = true;
            s->shared[d].version = 0;
            PART(ev);
        }
    }
    v->mounted = true;
    v->pulled = false;
    struct sim_dataset *ds = &s->datasets[d];
    uint64_t version = sim_is_shared(s) ? s->shared[d].version : v->version;
    uint64_t life = sim_is_shared(s) ? s->shared[d].life : v->life;
    if (life != ds->life)
        sim_violation(s, V_RESURRECTED, "h%u mounts what was deleted of d%u", host, d);
    else if (version != ds->acked && is_all_there_is(s, host, d))
        ds->acked = version;
    else if (version != ds->acked)
        sim_violation(s, V_LOST_WRITE, "h%u mounts d%u at version %llu, but %llu was acknowledged",
                      host, d, (unsigned long long)version, (unsigned long long)ds->acked);
    return NULL;
}

static struct err *release(struct sim *s, struct event *ev, unsigned host, unsigned d)
{
    struct sim_volume *v = &s->hosts[host].volumes[d];
    const struct step *st = &ev->step;

    if (v->mark.state == MARK_RELEASED && v->mark.epoch == st->epoch &&
        v->mark.transfer == st->transfer)
        return NULL;
    check_lease(s, host, d);
    TRY(unmount(s, host, d));
    PART(ev);
    if (sim_is_shared(s))
        detach(s, host, d);
    else
        add_snapshot(s, v, st->snapshot, v->version, v->life);
    PART(ev);
    if (v->mark.state != MARK_OWNED || v->mark.epoch != st->epoch)
        return err_new(ERR_CONFLICT, "not owned at that epoch");
    v->mark = (struct volume_mark){MARK_RELEASED, st->epoch, st->transfer, ""};
    memcpy(v->mark.snapshot, st->snapshot, SNAPSHOT_NAME_SIZE);
    return NULL;
}

static struct err *promote(struct sim *s, struct event *ev, unsigned host, unsigned d)
{
    struct sim_volume *v = &s->hosts[host].volumes[d];
    struct sim_snapshot *snap = find_snapshot(v, ev->step.snapshot);

    if (v->mark.state == MARK_OWNED && v->mark.epoch == ev->step.epoch)
        return NULL;
    if (!snap)
        return err_new(ERR_NOT_FOUND, "no such snapshot");
    set_mark(s, host, d, MARK_PROMOTING, &ev->step);
    PART(ev);
    v->present = false;
    v->partial = true;
    PART(ev);
    v->present = true;
    v->partial = false;
    v->version = snap->version;
    v->life = snap->life;
    v->size = ev->step.maximum_size;
    PART(ev);
    set_mark(s, host, d, MARK_OWNED, &ev->step);
    return NULL;
}

static void delete_snapshot(struct sim_volume *v, size_t i)
{
    memmove(&v->snapshots[i], &v->snapshots[i + 1],
            (v->n_snapshots - i - 1) * sizeof(*v->snapshots));
    v->n_snapshots--;
}

static struct err *prune(struct event *ev, struct sim_volume *v)
{
    v->partial = false;
    for (size_t i = v->n_snapshots; i-- > 0;) {
        const char *name = v->snapshots[i].name;
        if (streq(name, ev->step.snapshot) || streq(name, ev->step.keep))
            continue;
        delete_snapshot(v, i);
        PART(ev);
    }
    return NULL;
}

static struct err *demote(struct sim *s, struct event *ev, unsigned host, unsigned d)
{
    struct sim_volume *v = &s->hosts[host].volumes[d];

    if (v->mark.state != MARK_RELEASED)
        sim_violation(s, V_RESURRECTED, "h%u removes d%u, which it has not released", host, d);
    if (!find_snapshot(v, ev->step.snapshot))
        return err_new(ERR_NOT_FOUND, "no such snapshot");
    TRY(unmount(s, host, d));
    PART(ev);
    v->present = false;
    v->size = 0;
    return NULL;
}

static struct err *drop(struct sim *s, struct event *ev, unsigned host, unsigned d, bool destroy)
{
    struct sim_volume *v = &s->hosts[host].volumes[d];

    const struct dataset *st = s->store.datasets[d];
    if (!destroy && !sim_is_shared(s) && v->mark.state == MARK_OWNED && st && !s->restored && dataset_is_fenced(st, &s->hosts[host].id))
        sim_violation(s, V_LOST_WRITE, "h%u removes the d%u that it had when it was fenced, and nobody told it to", host, d);
    check_lease(s, host, d);
    TRY(unmount(s, host, d));
    PART(ev);
    if (sim_is_shared(s)) {
        detach(s, host, d);
        if (destroy && s->shared[d].attached)
            return err_new(ERR_BUSY, "attached elsewhere");
        if (destroy)
            s->shared[d].present = false;
    }
    PART(ev);
    v->present = false;
    v->partial = false;
    v->size = 0;
    v->n_snapshots = 0;
    PART(ev);
    v->mark = (struct volume_mark){0};
    return NULL;
}

static bool is_announced(const struct sim *s, const struct event *ev, unsigned to, unsigned d)
{
    const struct sim_volume *there = &s->hosts[to].volumes[d];

    return there->announced == ev->step.transfer &&
           uuid_eq(&there->announced_from, &s->hosts[ev->host].id);
}

static unsigned peer_of(const struct step *st)
{
    return (unsigned)strtoul(st->peer_host + strlen("10.0.0."), NULL, 10);
}

void sim_begin_stream(struct sim *s, struct event *ev, unsigned d)
{
    ev->taken = is_announced(s, ev, peer_of(&ev->step), d);
}

static struct err *reach_peer(struct sim *s, struct event *ev, unsigned host, unsigned to)
{
    const struct sim_host *peer = &s->hosts[to], *h = &s->hosts[host];
    bool cut = (peer->cut_up && peer->cut_down) || (h->cut_up && h->cut_down);

    if (!peer->brain || cut || sim_suspended(s, to))
        return err_new(ERR_UNAVAILABLE, "peer not reached");
    return NULL;
}

void sim_damage_replica(struct sim *s, unsigned d)
{
    const struct dataset *st = s->store.datasets[d];
    int host = st && st->replica ? sim_node_index(s, &st->replica->node) : -1;
    struct sim_snapshot *snap = host < 0 ? NULL : find_snapshot(&s->hosts[host].volumes[d], st->replica->base);

    if (!snap || s->hosts[host].volumes[d].present)
        return;
    snap->damaged = true;
    sim_trace(s, "the replica of d%u on h%d is damaged", d, host);
}

/* As somebody asked: what was found is remembered, to be held against what is told of it. */
static struct err *compare(struct sim *s, struct event *ev, unsigned host, unsigned d)
{
    const struct step *st = &ev->step;
    unsigned to = peer_of(st);
    struct sim_volume *there = &s->hosts[to].volumes[d];
    struct sim_dataset *ds = &s->datasets[d];
    const struct sim_snapshot *a = find_snapshot(&s->hosts[host].volumes[d], st->snapshot), *b = find_snapshot(there, st->snapshot);

    if (ev->cancelled)
        return err_new(ERR_CANCELLED, "the comparison was cancelled");
    TRY(reach_peer(s, ev, host, to));
    if (!is_announced(s, ev, to, d))
        return err_new(ERR_DENIED, "comparison not announced");
    if (!a || !b)
        return err_new(ERR_NOT_FOUND, "no such snapshot");
    PART(ev);
    if (ds->compared != st->transfer) {
        ds->compared = st->transfer;
        ds->compared_equal = ds->compared_different = false;
    }
    bool equal = a->version == b->version && a->life == b->life && a->damaged == b->damaged;
    ds->compared_equal = ds->compared_equal || equal;
    ds->compared_different = ds->compared_different || !equal;
    if (equal)
        return NULL;
    there->n_snapshots = 0;
    sim_schedule_for_agent(s, sim_random(s, 3000), EV_VOLUME_CHANGED, to)->number = d;
    return err_new(ERR_DIFFERS, "the replica is not the same");
}

/* Now and then bytes change on the way, or on a disk; once a transfer, for the second time ends it. */
static struct err *verify(struct sim *s, struct event *ev, unsigned host, unsigned d)
{
    const struct step *st = &ev->step;
    unsigned to = peer_of(st);
    struct sim_volume *here = &s->hosts[host].volumes[d], *there = &s->hosts[to].volumes[d];

    TRY(reach_peer(s, ev, host, to));
    if (!is_announced(s, ev, to, d))
        return err_new(ERR_DENIED, "transfer not announced");
    if (!find_snapshot(here, st->snapshot) || !find_snapshot(there, st->snapshot))
        return err_new(ERR_NOT_FOUND, "no such snapshot");
    if (!sim_faults(s) || here->differed == st->transfer || !sim_chance(s, 30))
        return NULL;
    here->differed = st->transfer;
    there->n_snapshots = 0;
    sim_schedule_for_agent(s, sim_random(s, 3000), EV_VOLUME_CHANGED, to)->number = d;
    return err_new(ERR_DIFFERS, "the copy is not the same");
}

/* A receiver keeps what it has just got and its base, the newest of the others that the sender has. */
static void delete_older(const struct sim_volume *here, struct sim_volume *there, const char *got)
{
    bool base = false;

    for (size_t i = there->n_snapshots; i-- > 0;) {
        const char *name = there->snapshots[i].name;
        bool both = !base && find_snapshot((struct sim_volume *)here, name);
        if (streq(name, got))
            continue;
        base = base || both;
        if (!both)
            delete_snapshot(there, i);
    }
}

static struct err *send_snapshot(struct sim *s, struct event *ev, unsigned host, unsigned d)
{
    const struct step *st = &ev->step;
    unsigned to = peer_of(st);
    struct sim_host *peer = &s->hosts[to], *h = &s->hosts[host];
    struct sim_volume *there = &peer->volumes[d];
    struct sim_snapshot *snap = find_snapshot(&h->volumes[d], st->snapshot);

    if (!snap)
        return err_new(ERR_NOT_FOUND, "no such snapshot");
    TRY(reach_peer(s, ev, host, to));
    bool announced = is_announced(s, ev, to, d) && !there->only_compare;
    if (!announced && ev->taken && FAULT(RECEIVE_OVER)) {
        there->version =
            snap->version; /* the stream was not ended, and `recv -F` takes it whatever is there */
        return NULL;
    }
    if (!announced && !FAULT(STALE_STREAM))
        return err_new(ERR_DENIED, "transfer not announced");
    there->partial = true;
    PART(ev);
    there->partial = false;
    if (!find_snapshot(there, st->snapshot))
        add_snapshot(s, there, st->snapshot, snap->version, snap->life);
    if (s->keep_replicas_us && s->options.seed % 2)
        delete_older(&h->volumes[d], there, st->snapshot);
    sim_schedule_for_agent(s, sim_random(s, 3000), EV_VOLUME_CHANGED, to)->number = d;
    return NULL;
}

struct err *sim_dataset_step(struct sim *s, unsigned host, struct event *ev, unsigned d)
{
    struct sim_volume *v = &s->hosts[host].volumes[d];

    switch (ev->step.kind) {
    case STEP_CREATE:
        return create(s, ev, host, d);
    case STEP_CLAIM:
        if (!is_here(s, host, d))
            return err_new(ERR_NOT_FOUND, "no volume");
        set_mark(s, host, d, MARK_OWNED, &ev->step);
        return NULL;
    case STEP_PROMOTE:
        return promote(s, ev, host, d);
    case STEP_MOUNT:
        return mount_volume(s, ev, host, d);
    case STEP_UNMOUNT:
        TRY(unmount(s, host, d));
        PART(ev);
        detach(s, host, d);
        return NULL;
    case STEP_SNAPSHOT:
        if (!find_snapshot(v, ev->step.snapshot))
            add_snapshot(s, v, ev->step.snapshot, v->version, v->life);
        return NULL;
    case STEP_SEND:
        return send_snapshot(s, ev, host, d);
    case STEP_VERIFY:
        return ev->step.asked ? compare(s, ev, host, d) : verify(s, ev, host, d);
    case STEP_RELEASE:
        return release(s, ev, host, d);
    case STEP_PRUNE:
        return prune(ev, v);
    case STEP_DEMOTE:
        return demote(s, ev, host, d);
    case STEP_GROW:
        if (ev->step.maximum_size > v->size)
            v->size = ev->step.maximum_size;
        return NULL;
    case STEP_DROP:
    case STEP_DESTROY:
        return drop(s, ev, host, d, ev->step.kind == STEP_DESTROY);
    case STEP_FORBID:
        v->announced = 0;
        return NULL;
    default:
        return NULL;
    }
}
