/* Simulated storage, mover and containers: what a step does to a node. */
#include "base/str.h"
#include "sim.h"

static struct sim_snapshot *find_snapshot(struct sim_volume *v, const char *name)
{
    for (size_t i = 0; i < v->n_snapshots; i++) {
        if (streq(v->snapshots[i].name, name))
            return &v->snapshots[i];
    }
    return NULL;
}

static void add_snapshot(struct sim *s, struct sim_volume *v, const char *name, uint64_t version)
{
    struct sim_snapshot *snap = find_snapshot(v, name);

    if (!snap) {
        if (v->n_snapshots == MAX_SNAPSHOTS) {
            sim_violation(s, "snapshots pile up");
            return;
        }
        snap = &v->snapshots[v->n_snapshots++];
    }
    (void)snprintf(snap->name, sizeof(snap->name), "%s", name);
    snap->version = version;
}

bool sim_is_mounted_anywhere_else(const struct sim *s, unsigned dataset, unsigned node)
{
    for (unsigned i = 0; i < s->n_nodes; i++) {
        if (i != node && s->nodes[i].volumes[dataset].mounted)
            return true;
    }
    return false;
}

void sim_host_down(struct sim *s, unsigned node)
{
    for (unsigned d = 0; d < s->n_datasets; d++) {
        struct sim_volume *v = &s->nodes[node].volumes[d];
        v->mounted = v->running = false;
        v->announced = 0;
    }
}

static bool is_shared(const struct sim *s)
{
    return s->storage == STORAGE_ATTACHABLE;
}

static bool is_here(const struct sim *s, unsigned node, unsigned d)
{
    return is_shared(s) ? s->shared[d].present : s->nodes[node].volumes[d].present;
}

static void observe(const struct sim *s, unsigned node, unsigned d, struct volume_state *ret)
{
    const struct sim_volume *v = &s->nodes[node].volumes[d];
    struct volume_state o = {.dataset = s->datasets[d].id, .mounted = v->mounted, .mark = v->mark};

    o.present = is_here(s, node, d);
    o.attached = is_shared(s) ? s->shared[d].attached && s->shared[d].node == node : o.present;
    o.attached_elsewhere = is_shared(s) && s->shared[d].attached && s->shared[d].node != node;
    o.n_snapshots = v->n_snapshots;
    if (v->n_snapshots)
        o.snapshots = xcalloc(v->n_snapshots, sizeof(*o.snapshots));
    for (size_t i = 0; i < v->n_snapshots; i++)
        memcpy(o.snapshots[i], v->snapshots[i].name, SNAPSHOT_NAME_SIZE);
    *ret = o;
}

static struct err *unmount(struct sim *s, unsigned node, unsigned d)
{
    struct sim_volume *v = &s->nodes[node].volumes[d];

    if (v->running)
        return err_new(ERR_BUSY, "a container runs on it");
    if (v->mounted && sim_faults(s) && sim_chance(s, 10))
        return err_new(ERR_BUSY, "pid 4711 (vi) has it open");
    v->mounted = false;
    return NULL;
}

static struct err *mount_volume(struct sim *s, unsigned node, unsigned d, uint64_t epoch)
{
    struct sim_volume *v = &s->nodes[node].volumes[d];

    if (v->mark.state != MARK_OWNED || v->mark.epoch != epoch)
        return err_new(ERR_CONFLICT, "not owned at that epoch");
    if (!is_here(s, node, d))
        return err_new(ERR_NOT_FOUND, "no volume");
    if (is_shared(s)) {
        if (s->shared[d].attached && s->shared[d].node != node)
            return err_new(ERR_BUSY, "attached elsewhere");
        s->shared[d].attached = true;
        s->shared[d].node = node;
    }
    v->mounted = true;
    return NULL;
}

static struct err *create(struct sim *s, unsigned node, unsigned d, uint64_t epoch)
{
    struct sim_volume *v = &s->nodes[node].volumes[d];

    if (!is_here(s, node, d)) {
        if (s->datasets[d].acked)
            sim_violation(s, "a born dataset is created empty again on n%u", node);
        v->version = 0;
        s->shared[d].version = 0;
        s->shared[d].present = true;
        v->present = true;
    }
    v->mark = (struct volume_mark){.state = MARK_OWNED, .epoch = epoch};
    return NULL;
}

static void check_lease(struct sim *s, unsigned node, unsigned d)
{
    bool there = s->nodes[node].volumes[d].mounted ||
                 (s->stored[d] && uuid_eq(&s->stored[d]->owner, &s->nodes[node].id));

    if (there && s->datasets[d].leased && s->datasets[d].lease_node == node)
        sim_violation(s, "d%u is taken off n%u in spite of a lease", d, node);
}

static struct err *release(struct sim *s, unsigned node, const struct step *st, unsigned d)
{
    struct sim_volume *v = &s->nodes[node].volumes[d];

    if (v->mark.state == MARK_RELEASED && v->mark.epoch == st->epoch &&
        v->mark.transfer == st->transfer)
        return NULL;
    check_lease(s, node, d);
    TRY(unmount(s, node, d));
    if (is_shared(s))
        s->shared[d].attached = s->shared[d].attached && s->shared[d].node != node;
    else
        add_snapshot(s, v, st->snapshot, v->version);
    v->mark = (struct volume_mark){MARK_RELEASED, st->epoch, st->transfer, ""};
    memcpy(v->mark.snapshot, st->snapshot, SNAPSHOT_NAME_SIZE);
    return NULL;
}

static struct err *promote(struct sim_volume *v, const struct step *st)
{
    struct sim_snapshot *snap = find_snapshot(v, st->snapshot);

    if (v->mark.state == MARK_OWNED && v->mark.epoch == st->epoch)
        return NULL;
    if (!snap)
        return err_new(ERR_NOT_FOUND, "no such snapshot");
    v->present = true;
    v->version = snap->version;
    v->mark = (struct volume_mark){.state = MARK_OWNED, .epoch = st->epoch};
    return NULL;
}

static void prune(struct sim_volume *v, const char *keep)
{
    size_t n = 0;

    for (size_t i = 0; i < v->n_snapshots; i++) {
        if (keep[0] && streq(v->snapshots[i].name, keep))
            v->snapshots[n++] = v->snapshots[i];
    }
    v->n_snapshots = n;
}

static struct err *drop(struct sim *s, unsigned node, unsigned d, bool destroy)
{
    struct sim_volume *v = &s->nodes[node].volumes[d];

    /* On shared storage the drop of an old mark may end just after the node became owner again: then nothing is mounted or
     * attached here that it could take away. Anything else is judged. */
    bool attached = is_shared(s) && s->shared[d].attached && s->shared[d].node == node;
    if (destroy || !is_shared(s) || v->mounted || attached)
        check_lease(s, node, d);
    TRY(unmount(s, node, d));
    if (is_shared(s)) {
        if (s->shared[d].attached && s->shared[d].node == node)
            s->shared[d].attached = false;
        if (destroy && s->shared[d].attached)
            return err_new(ERR_BUSY, "attached elsewhere");
        if (destroy)
            s->shared[d].present = false;
    }
    v->present = false;
    v->n_snapshots = 0;
    v->mark = (struct volume_mark){0};
    return NULL;
}

static struct err *send_snapshot(struct sim *s, unsigned node, const struct step *st, unsigned d)
{
    unsigned to = sim_node_index(s, &st->peer);
    struct sim_node *peer = &s->nodes[to];
    struct sim_volume *there = &peer->volumes[d];
    struct sim_snapshot *snap = find_snapshot(&s->nodes[node].volumes[d], st->snapshot);

    if (!snap)
        return err_new(ERR_NOT_FOUND, "no such snapshot");
    if (!peer->brain || peer->partitioned || s->nodes[node].partitioned)
        return err_new(ERR_UNAVAILABLE, "peer not reached");
    if (there->announced != st->transfer || there->announced_from != node)
        return err_new(ERR_DENIED, "transfer not announced");
    if (!find_snapshot(there, st->snapshot))
        add_snapshot(s, there, st->snapshot, snap->version);
    struct event *ev = sim_schedule(s, sim_random(s, 3000), EV_VOLUME_CHANGED, to);
    ev->number = d;
    ev->incarnation = peer->incarnation;
    return NULL;
}

static struct err *run_dataset_step(struct sim *s, unsigned node, const struct step *st, unsigned d)
{
    struct sim_volume *v = &s->nodes[node].volumes[d];

    switch (st->kind) {
    case STEP_CREATE:
        return create(s, node, d, st->epoch);
    case STEP_CLAIM:
        if (!is_here(s, node, d))
            return err_new(ERR_NOT_FOUND, "no volume");
        v->mark = (struct volume_mark){.state = MARK_OWNED, .epoch = st->epoch};
        return NULL;
    case STEP_PROMOTE:
        return promote(v, st);
    case STEP_MOUNT:
        return mount_volume(s, node, d, st->epoch);
    case STEP_UNMOUNT:
        return unmount(s, node, d);
    case STEP_SNAPSHOT:
        if (!find_snapshot(v, st->snapshot))
            add_snapshot(s, v, st->snapshot, v->version);
        return NULL;
    case STEP_SEND:
        return send_snapshot(s, node, st, d);
    case STEP_RELEASE:
        return release(s, node, st, d);
    case STEP_PRUNE:
        prune(v, st->snapshot);
        return NULL;
    case STEP_DROP:
    case STEP_DESTROY:
        return drop(s, node, d, st->kind == STEP_DESTROY);
    case STEP_FORBID:
        v->announced = 0;
        return NULL;
    default:
        return NULL;
    }
}

/* ---- containers: one a dataset, named c<index> ---- */

static struct err *start_container(struct sim *s, unsigned node, const struct step *st)
{
    unsigned d = sim_dataset_index(s, &st->container->dataset);
    struct sim_volume *v = &s->nodes[node].volumes[d];

    if (!v->mounted)
        return err_new(ERR_INVALID, "bind source does not exist");
    if (v->mark.state != MARK_OWNED)
        sim_violation(s, "a container starts on n%u without ownership of d%u", node, d);
    v->here = v->running = true;
    v->created = st->container->created;
    v->container_era = s->nodes[node].era;
    return NULL;
}

static void stop_container(struct sim *s, unsigned node, const char *name)
{
    unsigned d = (unsigned)(name[1] - '0');
    struct sim_volume *v = &s->nodes[node].volumes[d];

    v->here = v->running = false;
}

static struct err *run_step(struct sim *s, unsigned node, const struct step *st)
{
    switch (st->kind) {
    case STEP_START:
        return start_container(s, node, st);
    case STEP_STOP:
        stop_container(s, node, st->name);
        return NULL;
    case STEP_IMAGE:
    case STEP_LIST_VOLUMES:
    case STEP_LIST_CONTAINERS:
        return NULL;
    default:
        return run_dataset_step(s, node, st, sim_dataset_index(s, &st->dataset));
    }
}

static void list_volumes(struct sim *s, struct event *ev)
{
    for (unsigned d = 0; d < s->n_datasets; d++) {
        struct volume_state *v = &ev->volumes[ev->n_volumes];
        observe(s, ev->node, d, v);
        if (volume_state_is_empty(v) && v->mark.state == MARK_NONE)
            volume_state_done(v);
        else
            ev->n_volumes++;
    }
}

static void list_containers(struct sim *s, struct event *ev)
{
    for (unsigned d = 0; d < s->n_datasets; d++) {
        struct sim_volume *v = &s->nodes[ev->node].volumes[d];
        if (!v->here)
            continue;
        ev->containers[ev->n_containers++] =
            (struct container_state){.name = xasprintf("c%u", d),
                                     .run = v->running ? CONTAINER_RUNNING : CONTAINER_EXITED,
                                     .created = v->created,
                                     .era = v->container_era};
    }
}

void sim_look(struct sim *s, struct event *ev)
{
    if (ev->step.kind == STEP_LIST_VOLUMES)
        list_volumes(s, ev);
    else if (ev->step.kind == STEP_LIST_CONTAINERS)
        list_containers(s, ev);
}

/* Carries the step out now and tells the agent, unless the agent that asked is gone. */
void sim_run_step(struct sim *s, struct event *ev)
{
    struct sim_node *n = &s->nodes[ev->node];
    struct outcome o = {.step = ev->step.id};
    CLEANUP_ERR struct err *error = NULL;
    bool alive = n->brain && n->incarnation == ev->incarnation;
    bool dataset_step = ev->step.kind > STEP_LIST_VOLUMES && ev->step.kind <= STEP_FORBID;

    if (!alive && !ev->orphaned)
        return; /* settled when the agent died */
    if (ev->fails_before)
        error = err_new(ERR_IO, "simulated failure before the step");
    else
        error = run_step(s, ev->node, &ev->step);
    if (!error && ev->fails_after)
        error = err_new(ERR_TIMEOUT, "simulated failure after the step");
    sim_trace(s, "n%u step %s d%u %s: %s", ev->node, step_name(ev->step.kind),
              sim_dataset_index(s, &ev->step.dataset), ev->step.snapshot, error ? error->text : "ok");
    if (!alive)
        return;
    o.error = error;
    if (dataset_step) {
        o.observed = true;
        observe(s, ev->node, sim_dataset_index(s, &ev->step.dataset), &o.volume);
    }
    o.volumes = ev->volumes;
    o.n_volumes = ev->n_volumes;
    o.containers = ev->containers;
    o.n_containers = ev->n_containers;
    node_outcome(n->brain, sim_now(s), &o);
    volume_state_done(&o.volume);
}
