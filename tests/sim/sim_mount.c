/* Docker volumes: containers that another engine runs, which mount datasets through the agent's calls, write, and unmount, or
 * die without a word. The agent keeps on disk which mounts it gave out. With a source of randomness of their own. */
#include "sim.h"

#include "base/str.h"
#include "core/fault.h"

#define TURN_US 150000
#define CALLS (UINT64_C(1) << 62) /* ids of the commands that agents have made */

bool sim_has_mounts(const struct sim *s)
{
    return s->options.seed % 4 == 3;
}

bool sim_knows_volumes(const struct sim *s, unsigned host)
{
    return sim_has_mounts(s) && host < s->n_nodes && (s->options.seed % 5 || host != 1); /* some agents are older */
}

static uint64_t draw(struct sim *s, uint64_t bound)
{
    struct random r = random_seeded(&s->mount_random_state);

    return random_below(&r, bound);
}

static char *id_of(unsigned host, const struct sim_mount *m)
{
    return xasprintf("h%u-%llu", host, (unsigned long long)m->number);
}

static void call(struct sim *s, unsigned host, struct sim_mount *m, enum volume_call_kind kind)
{
    struct volume_call c = {.number = ++s->next_call, .kind = kind, .dataset = s->datasets[m->dataset].id, .mount = id_of(host, m)};

    m->call = kind == VOLUME_USE ? c.number : 0;
    sim_send_call(s, host, &c);
    volume_call_done(&c);
}

static void let_go(struct sim *s, unsigned host, struct sim_mount *m)
{
    if (s->hosts[host].volumes_session)
        call(s, host, m, VOLUME_UNUSE);
    *m = (struct sim_mount){0};
}

static void begin(struct sim *s, unsigned host, struct sim_mount *m)
{
    unsigned d = (unsigned)draw(s, s->n_datasets);

    if (!s->store.datasets[d])
        return;
    *m = (struct sim_mount){.state = SIM_MOUNT_ASKS,
                            .dataset = d,
                            .number = ++s->next_mount,
                            .until_us = s->now_us + USEC_PER_SEC + draw(s, 20 * USEC_PER_SEC)};
    sim_trace(s, "h%u a container wants d%u (mount %llu)", host, d, (unsigned long long)m->number);
}

/* Docker is answered: the container runs. */
static void run(struct sim *s, unsigned host, struct sim_mount *m)
{
    for (unsigned i = 0; i < s->n_nodes; i++) {
        bool cloned = s->cloned && (i == 0 || host == 0);
        if (i != host && !cloned && s->hosts[i].up &&
            sim_mount_runs(s, i, m->dataset, /* flags= */ 0) &&
            sim_same_data(s, m->dataset, i, host))
            sim_violation(s, V_TWO_WRITERS, "h%u and h%u both have d%u mounted for containers", i, host, m->dataset);
    }
    m->state = SIM_MOUNT_RUNS;
    m->until_us = draw(s, 8) ? s->now_us + draw(s, 15 * USEC_PER_SEC) : USEC_NEVER;
    sim_trace(s, "h%u mount %llu of d%u is there", host, (unsigned long long)m->number, m->dataset);
}

static void turn_of(struct sim *s, unsigned host, struct sim_mount *m)
{
    struct sim_host *h = &s->hosts[host];
    bool over = s->now_us >= m->until_us;

    switch (m->state) {
    case SIM_MOUNT_NONE:
        if (sim_faults(s) && draw(s, 100) < 3)
            begin(s, host, m);
        break;
    case SIM_MOUNT_ASKS:
        if (over)
            let_go(s, host, m);
        else if (h->volumes_session && !m->call)
            call(s, host, m, VOLUME_USE);
        break;
    case SIM_MOUNT_WAITS:
        if (node_volume_mounted(h->brain, &s->datasets[m->dataset].id, m->epoch))
            run(s, host, m);
        else if (over)
            let_go(s, host, m);
        break;
    case SIM_MOUNT_RUNS:
        if (over && draw(s, 4)) {
            let_go(s, host, m);
        } else if (over) {
            m->state = SIM_MOUNT_LOST; /* Docker died with it, and never says so */
            m->until_us = s->now_us + draw(s, 8 * USEC_PER_SEC);
        }
        break;
    case SIM_MOUNT_LOST:
        if (over)
            let_go(s, host, m);
        break;
    }
}

void sim_mounts_turn(struct sim *s)
{
    if (!sim_has_mounts(s))
        return;
    for (unsigned i = 0; i < s->n_nodes; i++) {
        struct sim_host *h = &s->hosts[i];
        for (unsigned k = 0; k < MAX_MOUNTS && h->brain && sim_knows_volumes(s, i) && !sim_suspended(s, i); k++)
            turn_of(s, i, &h->mounts[k]);
    }
    sim_schedule(s, 1000 + draw(s, TURN_US), EV_MOUNTS, 0);
}

bool sim_mount_runs(const struct sim *s, unsigned host, unsigned d, unsigned flags)
{
    for (unsigned k = 0; k < MAX_MOUNTS; k++) {
        const struct sim_mount *m = &s->hosts[host].mounts[k];
        if (m->state == SIM_MOUNT_RUNS && m->dataset == d && (m->promised || !(flags & SIM_PROMISED)))
            return true;
    }
    return false;
}

bool sim_mount_clings(const struct sim *s, unsigned d)
{
    for (unsigned i = 0; i < s->n_nodes; i++) {
        if (sim_mount_runs(s, i, d, /* flags= */ 0) && !sim_mount_runs(s, i, d, SIM_PROMISED))
            return true;
    }
    return false;
}

void sim_mounts_device_gone(struct sim *s, unsigned host, unsigned d)
{
    for (unsigned k = 0; k < MAX_MOUNTS; k++) {
        struct sim_mount *m = &s->hosts[host].mounts[k];
        if (m->state != SIM_MOUNT_RUNS || m->dataset != d)
            continue;
        m->state = SIM_MOUNT_LOST;
        m->until_us = s->now_us;
    }
}

/* What Docker was waiting for, it is told has failed. Whether the agent comes to know that is chance. */
void sim_mounts_agent_dies(struct sim *s, unsigned host)
{
    struct sim_host *h = &s->hosts[host];

    h->volumes_session = 0;
    for (unsigned k = 0; k < MAX_MOUNTS; k++) {
        struct sim_mount *m = &h->mounts[k];
        m->call = 0;
        if (m->state != SIM_MOUNT_ASKS && m->state != SIM_MOUNT_WAITS)
            continue;
        m->state = draw(s, 2) ? SIM_MOUNT_LOST : SIM_MOUNT_NONE;
        m->until_us = s->now_us + draw(s, 5 * USEC_PER_SEC);
    }
}

void sim_mounts_host_dies(struct sim *s, unsigned host)
{
    memset(s->hosts[host].mounts, 0, sizeof(s->hosts[host].mounts));
}

static void unpromise_on(struct sim *s, unsigned host, unsigned d)
{
    for (unsigned k = 0; k < MAX_MOUNTS; k++) {
        struct sim_mount *m = &s->hosts[host].mounts[k];
        if (m->dataset == d)
            m->promised = false;
    }
}

void sim_mounts_unpromised(struct sim *s, unsigned d)
{
    s->datasets[d].releases++;
    for (unsigned i = 0; i < s->n_nodes; i++)
        unpromise_on(s, i, d);
}

void sim_mounts_release_again(struct sim *s, unsigned d)
{
    struct command cmd = {.kind = COMMAND_LEASE_RELEASE, .id = OPERATORS, .dataset_id = s->datasets[d].id};
    const struct lease *l = s->store.leases[d];
    int node = l ? sim_node_index(s, &l->node) : -1;
    bool runs = false;

    for (int i = 0; i < (int)s->n_nodes; i++)
        runs |= i != node && sim_mount_runs(s, (unsigned)i, d, SIM_PROMISED);
    if (node < 0 || !l->acquired || !runs)
        return;
    sim_trace(s, "the lease of d%u by the API is released again", d);
    s->datasets[d].lease.promised = false;
    s->datasets[d].releases++;
    unpromise_on(s, (unsigned)node, d);
    engine_command(s->engine, sim_control_now(s), &cmd);
}

/* ---- sessions ---- */

void sim_mounts_session(struct sim *s, unsigned host, uint64_t session)
{
    struct sim_host *h = &s->hosts[host];

    h->volumes_session = session;
    for (unsigned k = 0; k < MAX_MOUNTS; k++) {
        struct sim_mount *m = &h->mounts[k];
        m->call = 0;
        if (!session || m->state == SIM_MOUNT_NONE)
            continue;
        struct volume_use use = {.dataset = s->datasets[m->dataset].id, .mount = id_of(host, m)};
        sim_send_use(s, host, &use);
        volume_use_done(&use);
    }
    if (session)
        sim_send_use(s, host, NULL);
}

void sim_mounts_call(struct sim *s, uint64_t session, const struct volume_call *c)
{
    struct command cmd = {.kind = c->kind == VOLUME_USE ? COMMAND_VOLUME_USE : COMMAND_VOLUME_UNUSE,
                          .id = CALLS | c->number,
                          .session = session,
                          .dataset_id = c->dataset,
                          .mount = c->mount};

    int d = sim_dataset_index(s, &c->dataset);
    s->call_sessions[c->number % MAX_CALLS] = session;
    s->call_releases[c->number % MAX_CALLS] = d < 0 ? 0 : s->datasets[d].releases;
    engine_command(s->engine, sim_control_now(s), &cmd);
}

bool sim_mounts_reply(struct sim *s, uint64_t id, const struct command_result *r)
{
    if (!(id & CALLS) || id >= VERIFIERS)
        return false;
    struct volume_answer a = {.number = id & ~CALLS, .code = r->code == RESULT_OK ? VOLUME_OK : VOLUME_FAILED};
    if (r->dataset) {
        a.dataset = r->dataset->id;
        a.epoch = r->dataset->epoch;
    }
    if (r->code == RESULT_DATASET_NOT_FOUND)
        a.code = VOLUME_NOT_FOUND;
    a.revision = s->call_releases[a.number % MAX_CALLS]; /* here: how often all that was promised had been taken back then */
    sim_send_answer(s, s->call_sessions[a.number % MAX_CALLS], &a);
    return true;
}

void sim_mounts_answer(struct sim *s, unsigned host, const struct volume_answer *a)
{
    for (unsigned k = 0; k < MAX_MOUNTS; k++) {
        struct sim_mount *m = &s->hosts[host].mounts[k];
        if (m->state != SIM_MOUNT_ASKS || m->call != a->number)
            continue;
        m->call = 0;
        sim_trace(s, "h%u mount %llu of d%u is answered %s", host, (unsigned long long)m->number, m->dataset,
                  volume_code_name(a->code));
        if (a->code == VOLUME_OK) {
            m->state = SIM_MOUNT_WAITS;
            m->epoch = a->epoch;
            m->promised = a->revision == s->datasets[m->dataset].releases && !s->emptied;
        } else if (a->code == VOLUME_NOT_FOUND) {
            let_go(s, host, m);
        }
    }
}

/* ---- what must hold ---- */

static bool is_on_disk(const struct sim_host *h, unsigned host, unsigned d, const char *mount)
{
    for (unsigned k = 0; k < MAX_MOUNTS; k++) {
        CLEANUP_FREE char *id = id_of(host, &h->mounts[k]);
        if (h->mounts[k].state != SIM_MOUNT_NONE && h->mounts[k].dataset == d && streq(id, mount))
            return true;
    }
    return false;
}

void sim_mounts_check_lease(struct sim *s, unsigned d, const struct lease *l)
{
    int node = sim_node_index(s, &l->node);

    for (size_t i = 0; i < l->n_mounts; i++) {
        CLEANUP_FREE char *own = xasprintf("h%d-", node);
        if (!str_has_prefix(l->mounts[i], own))
            sim_violation(s, V_LEASE, "the lease of d%u on h%d has the mount %s", d, node, l->mounts[i]);
    }
}

const char *sim_mounts_unsettled(const struct sim *s, unsigned d, char *buf, size_t size)
{
    const struct lease *l = s->store.leases[d];
    int node = l ? sim_node_index(s, &l->node) : -1;

    for (size_t i = 0; node >= 0 && !s->hosts[node].dead && !s->cloned && i < l->n_mounts; i++) {
        (void)snprintf(buf, size, "the lease of d%u has the mount %s, which nobody has", d, l->mounts[i]);
        if (!is_on_disk(&s->hosts[node], (unsigned)node, d, l->mounts[i]))
            return buf;
    }
    /* What the store does not know, as it was put back, or knows as deleted, has no lease before it is made again. */
    const struct dataset *st = s->store.datasets[d];
    bool known = st && !(st->tombstone && s->store.history.restored);
    for (unsigned i = 0; known && i < s->n_nodes; i++) {
        (void)snprintf(buf, size, "d%u: no lease for a mount that runs on h%u", d, i);
        if (!s->hosts[i].dead && !s->cloned && sim_mount_runs(s, i, d, SIM_PROMISED) && node != (int)i)
            return buf;
    }
    return NULL;
}
