/* What users ask for, and what they were promised. Each command draws from a source of its own, by its index. */
#include "sim.h"

#include "base/str.h"

#define N_COMMANDS ARRAY_SIZE(((struct sim *)NULL)->commands)

static struct sim_command *command_of(struct sim *s, uint64_t id)
{
    return &s->commands[id % N_COMMANDS];
}

/* The last container of all depends on the one before it. */
static void depend_on_last(struct container *k, unsigned c)
{
    char name[] = {'c', (char)('0' + c - 1), '\0'};

    k->depends_on = xcalloc(1, sizeof(*k->depends_on));
    k->depends_on[0] = (struct dependency){xstrdup(name), DEPENDENCY_STARTED};
    k->n_depends_on = 1;
}

static struct container *new_container(const struct sim *s, unsigned c, const struct uuid *node,
                                       struct random *r)
{
    char name[] = {'c', (char)('0' + c), '\0'};
    struct container *k = container_new(name);

    k->image = xstrdup("img:1");
    k->restart_policy = random_below(r, 3) ? RESTART_ALWAYS : RESTART_ON_FAILURE;
    k->node = *node;
    k->n_ports = 1;
    k->ports = xcalloc(1, sizeof(*k->ports));
    k->ports[0] = (struct port){80, (uint16_t)(SIM_PORT + c)};
    return k;
}

static void add_volume(const struct sim *s, struct container *k, unsigned d)
{
    char path[] = {'/', 'd', (char)('0' + d), '\0'};

    container_add_volume(k, &s->datasets[d].id, path, /* read_only= */ false);
}

/* With those of the group that are on its node; with all when none is, which is refused. */
static void add_volumes(const struct sim *s, struct container *k, unsigned group)
{
    for (unsigned d = group; d < s->n_datasets; d++) {
        const struct dataset *now = engine_dataset(s->engine, &s->datasets[d].id);
        if (s->group[d] == group && now && !now->deleted && uuid_eq(&now->primary, &k->node))
            add_volume(s, k, d);
    }
    for (unsigned d = group; d < s->n_datasets && !k->n_volumes; d++) {
        if (s->group[d] == group)
            add_volume(s, k, d);
    }
}

static bool group_is_busy(const struct sim *s, unsigned group)
{
    bool busy = false;

    for (unsigned d = group; d < s->n_datasets; d++)
        busy = busy || (s->group[d] == group && s->datasets[d].busy);
    return busy;
}

static void set_group_busy(struct sim *s, unsigned group, bool busy)
{
    for (unsigned d = group; d < s->n_datasets; d++) {
        if (s->group[d] == group)
            s->datasets[d].busy = busy;
    }
}

static bool is_used(const struct sim *s, unsigned d)
{
    const struct container *k = s->store.containers[s->group[d]];

    return k && container_uses(k, &s->datasets[d].id);
}

/* One about a container without a volume. */
static bool choose_for_container(struct sim *s, unsigned c, struct command *cmd, const char *name,
                                 struct random *r)
{
    unsigned what = (unsigned)random_below(r, 100);

    if (s->container_busy[c] || s->composing)
        return false;
    cmd->name = name;
    if (!s->container_exists[c]) {
        cmd->kind = COMMAND_CONTAINER_CREATE;
        cmd->container = new_container(s, c, &cmd->node, r);
        if (c == s->n_containers - 1)
            depend_on_last(cmd->container, c);
    } else if (what < 60) {
        cmd->kind = COMMAND_CONTAINER_MOVE;
    } else {
        cmd->kind = COMMAND_CONTAINER_DELETE;
    }
    s->container_busy[c] = true;
    return true;
}

static void choose_lease(struct sim *s, struct sim_dataset *ds, struct command *cmd,
                         struct sim_command *mine, struct random *r)
{
    cmd->kind = COMMAND_LEASE_ACQUIRE;
    if (ds->lease.promised && random_below(r, 2))
        cmd->node = s->hosts[ds->lease.node].id; /* renews it */
    cmd->expires = random_below(r, 3) != 0;
    cmd->expires_in_us = (int64_t)random_below(r, 15 * USEC_PER_SEC) - (int64_t)USEC_PER_SEC;
    uint64_t left = cmd->expires_in_us > 0 ? (uint64_t)cmd->expires_in_us : 0;
    mine->until_us = cmd->expires ? s->now_us + left : USEC_NEVER;
    mine->node = (unsigned)sim_node_index(s, &cmd->node);
    if (ds->lease.promised && mine->until_us < ds->lease.until_us)
        ds->lease.until_us = mine->until_us; /* from the request on no more is promised */
}

static uint64_t some_size(struct random *r)
{
    return random_below(r, 5) * DATASET_MIN_SIZE; /* 0: no limit, or as it is */
}

static void unpromise(struct sim *s, unsigned d)
{
    s->datasets[d].lease.promised = false;
    sim_mounts_unpromised(s, d);
}

static bool choose_for_dataset(struct sim *s, unsigned d, struct command *cmd,
                               struct sim_command *mine, const char *name, struct random *r)
{
    struct sim_dataset *ds = &s->datasets[d], *first = &s->datasets[s->group[d]];
    unsigned what = (unsigned)random_below(r, 100);
    bool container = first->container_exists;

    cmd->name = name;
    if (s->composing)
        return false;
    if (ds->busy && (!ds->exists || container || what >= 60))
        return false;
    if (ds->busy) {
        cmd->kind = COMMAND_DATASET_UPDATE; /* on top of what is not answered yet */
        return true;
    }
    if (!ds->exists) {
        cmd->kind = COMMAND_DATASET_CREATE;
        cmd->dataset = dataset_new(ds->id);
        cmd->dataset->primary = cmd->node;
        cmd->dataset->maximum_size = some_size(r);
    } else if (ds->deleted) {
        if (!container && what < 50)
            return false;
        cmd->kind = container && what < 60 ? COMMAND_CONTAINER_DELETE
                    : what < 80            ? COMMAND_DATASET_DELETE
                                           : COMMAND_LEASE_RELEASE;
        cmd->purge = cmd->kind == COMMAND_DATASET_DELETE;
        if (cmd->kind == COMMAND_LEASE_RELEASE)
            unpromise(s, d);
    } else if (!container && what < 35) {
        const struct dataset *now = engine_dataset(s->engine, &ds->id);
        cmd->kind = COMMAND_CONTAINER_CREATE;
        if (group_is_busy(s, s->group[d]))
            return false;
        cmd->container =
            new_container(s, s->group[d], now && what < 32 ? &now->primary : &cmd->node, r);
        add_volumes(s, cmd->container, s->group[d]);
    } else if (what < 72) {
        bool along = container && (is_used(s, d) || s->group[d] == d);
        cmd->kind = along ? COMMAND_CONTAINER_MOVE : COMMAND_DATASET_UPDATE;
        s->result->moves++;
    } else if (what < 82) {
        choose_lease(s, ds, cmd, mine, r);
    } else if (what < 92) {
        cmd->kind = COMMAND_LEASE_RELEASE;
        unpromise(s, d); /* from the request on nothing is promised */
    } else if (what < 94 && container) {
        cmd->kind = COMMAND_CONTAINER_DELETE;
    } else if (what < 96) {
        cmd->kind = COMMAND_DATASET_DELETE;
        cmd->purge = random_below(r, 2);
    } else {
        cmd->kind = COMMAND_DATASET_UPDATE;
        cmd->keep_primary = random_below(r, 2); /* else refused while a container uses it */
        cmd->maximum_size = some_size(r);
    }
    bool of_container = cmd->kind == COMMAND_CONTAINER_CREATE ||
                        cmd->kind == COMMAND_CONTAINER_MOVE ||
                        cmd->kind == COMMAND_CONTAINER_DELETE;
    if (of_container && group_is_busy(s, s->group[d]))
        return false;
    if (cmd->kind == COMMAND_CONTAINER_DELETE)
        first->container_exists = false; /* unless it is answered that it is still there */
    if (of_container)
        set_group_busy(s, s->group[d], true);
    else
        ds->busy = cmd->kind != COMMAND_DATASET_UPDATE;
    return true;
}

static struct container *composed_container(const struct composition *all, unsigned c)
{
    for (size_t i = 0; i < all->n_containers; i++) {
        if (sim_container_index(all->containers[i]->name) == c)
            return all->containers[i];
    }
    return NULL;
}

/* A new configuration: most of what there is, some of it elsewhere, some of it left out. */
static bool choose_composition(struct sim *s, struct command *cmd, struct composition *all,
                               struct random *r)
{
    bool busy = s->composing;

    for (unsigned d = 0; d < s->n_datasets; d++)
        busy = busy || s->datasets[d].busy;
    for (unsigned c = 0; c < s->n_containers; c++)
        busy = busy || s->container_busy[c];
    if (busy)
        return false;
    *all = (struct composition){.datasets = xcalloc(MAX_DATASETS, sizeof(struct dataset *)),
                                .containers = xcalloc(MAX_CONTAINERS, sizeof(struct container *))};
    s->composed = (struct sim_promises){0};
    for (unsigned c = 0; c < s->n_containers; c++) {
        struct uuid node = s->hosts[random_below(r, s->n_nodes)].id;
        const struct dataset *st = c < s->n_datasets ? s->store.datasets[c] : NULL;
        bool first = c >= s->n_datasets || s->group[c] == c;
        struct container *k = first ? NULL : composed_container(all, s->group[c]);
        if (c < s->n_datasets) {
            struct sim_dataset *ds = &s->datasets[c];
            s->before_compose.datasets[c] = ds->exists;
            s->before_compose.containers[c] = ds->container_exists;
            if (!ds->deleted)
                ds->exists = false;
            ds->container_exists = false;
            ds->lease.promised = false;
            if (random_below(r, 100) < 25 || (st && st->deleted))
                continue;
            struct dataset *d = dataset_new(ds->id);
            if (k && random_below(r, 100) < 80)
                node = k->node;
            else if (st && random_below(r, 100) < 80)
                node = st->primary;
            d->primary = node;
            all->datasets[all->n_datasets++] = d;
            s->composed.datasets[c] = true;
        } else {
            s->before_compose.containers[c] = s->container_exists[c];
            s->container_exists[c] = false;
        }
        if (k && uuid_eq(&k->node, &node))
            add_volume(s, k, c);
        if (!first || random_below(r, 100) < 30)
            continue;
        all->containers[all->n_containers++] = new_container(s, c, &node, r);
        if (c < s->n_datasets)
            add_volume(s, all->containers[all->n_containers - 1], c);
        if (c == s->n_containers - 1 && s->composed.containers[c - 1])
            depend_on_last(all->containers[all->n_containers - 1], c);
        s->composed.containers[c] = true;
    }
    cmd->kind = COMMAND_COMPOSE;
    cmd->composition = all;
    s->composing = true;
    return true;
}

static void reply_for_composition(struct sim *s, enum result_code code)
{
    const struct sim_promises *p = code == RESULT_OK ? &s->composed : &s->before_compose;

    s->composing = false;
    for (unsigned d = 0; d < s->n_datasets; d++) {
        if (!s->datasets[d].deleted)
            s->datasets[d].exists = p->datasets[d] && s->store.datasets[d];
        s->datasets[d].container_exists = p->containers[d];
    }
    for (unsigned c = s->n_datasets; c < s->n_containers; c++)
        s->container_exists[c] = p->containers[c];
}

/* One that has a replica and is not on its way, where there is one. */
static unsigned choose_replica(const struct sim *s, unsigned first)
{
    for (unsigned i = 0; i < s->n_datasets; i++) {
        unsigned d = (first + i) % s->n_datasets;
        const struct dataset *st = s->store.datasets[d];
        if (st && st->replica && !st->transfer.id)
            return d;
    }
    return first;
}

/* Somebody wants a replica compared; with a source of its own, so that it leaves the other commands as they are. */
static void verify_something(struct sim *s, unsigned index)
{
    uint64_t state = s->options.seed * 0x9e3779b97f4a7c15u + (index + 1) * 0xc2b2ae3d27d4eb4fu;
    struct random r = random_seeded(&state);
    unsigned d = choose_replica(s, (unsigned)random_below(&r, s->n_datasets));
    struct command cmd = {.kind = COMMAND_REPLICA_VERIFY, .id = VERIFIERS, .dataset_id = s->datasets[d].id};

    if (!s->keep_replicas_us || random_below(&r, 100) >= 50)
        return;
    if (random_below(&r, 100) < 25)
        sim_damage_replica(s, d);
    sim_trace(s, "somebody has the replica of d%u compared", d);
    s->engine_touched = true;
    engine_command(s->engine, sim_control_now(s), &cmd);
}

void sim_issue(struct sim *s, unsigned index)
{
    uint64_t state = s->options.seed * 0x9e3779b97f4a7c15u + (index + 1) * 0xaf251af3b0f025b5u;
    struct random r = random_seeded(&state);

    if (!sim_faults(s) || index >= MAX_INJECTED)
        return;
    sim_schedule(s, random_below(&r, random_below(&r, 4) ? 1500000 : 50000), EV_COMMAND, 0)
        ->number = index + 1;
    s->result->commands = index + 1;
    unsigned subject = (unsigned)random_below(&r, s->n_containers),
             n = (unsigned)random_below(&r, s->n_nodes);
    bool dataset = subject < s->n_datasets || random_below(&r, 3) != 0;
    if (!s->engine || (s->options.skip_commands && s->options.skip_commands[index]))
        return;
    verify_something(s, index);
    if (dataset)
        subject %= s->n_datasets;
    struct sim_command *mine = command_of(s, s->next_command + 1);
    *mine = (struct sim_command){
        .id = s->next_command + 1, .subject = subject, .node = n, .tag_changes = UINT64_MAX};
    struct command cmd = {.id = mine->id, .node = s->hosts[n].id};
    char name[] = {'c', (char)('0' + (dataset ? s->group[subject] : subject)), '\0'};
    if (dataset)
        cmd.dataset_id = s->datasets[subject].id;
    struct composition all;
    if (random_below(&r, 100) < s->composes) {
        if (!choose_composition(s, &cmd, &all, &r))
            return;
    } else if (dataset ? !choose_for_dataset(s, subject, &cmd, mine, name, &r)
                       : !choose_for_container(s, subject, &cmd, name, &r)) {
        return;
    }
    s->next_command++;
    mine->kind = cmd.kind;
    CLEANUP_FREE char *tag = NULL;
    const char *tags[1];
    if (random_below(&r, 100) < 10) {
        if (s->old_tag && random_below(&r, 2)) {
            tag = xstrdup(s->old_tag);
            mine->tag_changes = s->old_tag_changes;
        } else {
            tag = engine_tag(s->engine);
        }
        tags[0] = tag;
        cmd.tags = tags;
        cmd.n_tags = 1;
    } else if (random_below(&r, 100) < 10) {
        free(s->old_tag);
        s->old_tag = engine_tag(s->engine);
        s->old_tag_changes = s->acknowledged_changes;
    }
    sim_trace(s, "command %u: kind %d %c%u n%u", index, cmd.kind, dataset ? 'd' : 'c', subject,
              mine->node);
    s->engine_touched = true;
    engine_command(s->engine, sim_control_now(s), &cmd);
}

void sim_lease_gone(struct sim *s, unsigned d)
{
    struct sim_lease *l = &s->datasets[d].lease;

    const struct dataset *st = s->store.datasets[d];
    if (l->promised && s->now_us < l->until_us && st && !st->tombstone)
        sim_violation(s, V_LEASE, "the lease of d%u ends too early", d);
    l->promised = false;
}

static void reply_for_dataset(struct sim *s, const struct sim_command *c, enum result_code code)
{
    struct sim_dataset *d = &s->datasets[c->subject], *first = &s->datasets[s->group[c->subject]];
    bool ok = code == RESULT_OK || code == RESULT_CREATED;

    switch (c->kind) {
    case COMMAND_DATASET_CREATE:
        /* Of one that is deleted the record may have gone while the answer waited. */
        d->exists = ok || (code == RESULT_DATASET_EXISTS ? s->store.datasets[c->subject] != NULL
                                                         : d->exists);
        break;
    case COMMAND_DATASET_DELETE:
        d->deleted = d->deleted || (ok && s->store.datasets[c->subject]);
        break;
    case COMMAND_CONTAINER_CREATE:
        first->container_exists = first->container_exists || ok || code == RESULT_CONTAINER_EXISTS;
        set_group_busy(s, s->group[c->subject], false);
        return;
    case COMMAND_CONTAINER_DELETE:
        first->container_exists = !ok && code != RESULT_CONTAINER_NOT_FOUND;
        set_group_busy(s, s->group[c->subject], false);
        return;
    case COMMAND_CONTAINER_MOVE:
        set_group_busy(s, s->group[c->subject], false);
        return;
    case COMMAND_LEASE_ACQUIRE:
        if (ok && !s->hosts[c->node].fencing)
            d->lease = (struct sim_lease){true, c->node, c->until_us};
        break;
    case COMMAND_DATASET_UPDATE:
        return; /* does not make it busy */
    default:
        break;
    }
    d->busy = false;
}

static void reply_for_container(struct sim *s, const struct sim_command *c, enum result_code code)
{
    bool ok = code == RESULT_OK || code == RESULT_CREATED;

    s->container_busy[c->subject] = false;
    if (c->kind == COMMAND_CONTAINER_CREATE)
        s->container_exists[c->subject] = ok || code == RESULT_CONTAINER_EXISTS;
    else if (c->kind == COMMAND_CONTAINER_DELETE && (ok || code == RESULT_CONTAINER_NOT_FOUND))
        s->container_exists[c->subject] = false;
}

void sim_reply(struct sim *s, uint64_t id, const struct command_result *r)
{
    struct sim_command *c = command_of(s, id);

    if (sim_mounts_reply(s, id, r))
        return;
    if (id == OPERATORS)
        sim_trace(s, "the operator is answered %d: %s", r->code, r->text ? r->text : "");
    if (id == VERIFIERS)
        sim_trace(s, "who wants a comparison is answered %d: %s", r->code, r->text ? r->text : "");
    if (c->id != id)
        return;
    sim_trace(s, "reply %d to kind %d of %u", r->code, c->kind, c->subject);
    if (c->tag_changes < s->acknowledged_changes && r->code != RESULT_TAG_MISMATCH &&
        r->code != RESULT_STORE_FAILED)
        sim_violation(s, V_TAG, "a command with an old tag is answered %d", r->code);
    if (r->code == RESULT_CREATED || (c->kind == COMMAND_CONTAINER_DELETE && r->code == RESULT_OK))
        s->acknowledged_changes++;
    if (c->kind == COMMAND_COMPOSE)
        reply_for_composition(s, r->code);
    else if (c->subject < s->n_datasets)
        reply_for_dataset(s, c, r->code);
    else
        reply_for_container(s, c, r->code);
}
