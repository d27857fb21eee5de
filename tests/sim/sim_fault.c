/* What the world does to the cluster. Each fault draws from a source of its own, by its index: leaving one out leaves
 * the others as they are. */
#include "sim.h"

static const unsigned likely[N_MAX] = {
    /* per cent of the runs that have the nuisance at all */
    [N_AGENT_KILL] = 60,   [N_AGENT_TWICE] = 20,
    [N_HOST_REBOOT] = 55,  [N_HOST_DEAD] = 8,
    [N_HOST_SUSPEND] = 25, [N_CONTROL_KILL] = 55,
    [N_CLOCK_JUMP] = 20,   [N_PARTITION] = 50,
    [N_ONE_WAY] = 30,      [N_BREAK] = 50,
    [N_SLOW_NET] = 30,     [N_SLOW_STORE] = 25,
    [N_FULL_STORE] = 25,   [N_SLOW_DISK] = 30,
    [N_BAD_DISK] = 30,     [N_VANISH] = 25,
    [N_WIPE] = 8,          [N_CONTAINER_CRASH] = 40,
    [N_CRASH_LOOP] = 20,   [N_DOCKER_RESTART] = 30,
    [N_PULL_FAILS] = 20,   [N_CLONE] = 6,
    [N_RESTORE] = 8,       [N_LAGGING_LISTS] = 20, /* all the time */
    [N_POWER_OFF] = 25,
};

static uint64_t own(struct random *r, uint64_t low, uint64_t high)
{
    return low + random_below(r, high - low + 1);
}

static void undo_later(struct sim *s, uint64_t us, enum nuisance what, unsigned host)
{
    sim_schedule(s, us, EV_UNDO, host)->number = what;
}

static void cut(struct sim *s, unsigned i, bool up, bool down, struct random *r)
{
    struct sim_host *h = &s->hosts[i];

    h->cut_up = h->cut_up || up;
    h->cut_down = h->cut_down || down;
    sim_trace(s, "h%u is cut off:%s%s", i, up ? " from control" : "", down ? " to it" : "");
    /* Keep-alives end the session in most cases, at each end in its own time; else the stream survives. */
    if (random_below(r, 100) < 70)
        sim_break_session(s, i, own(r, 1, 6 * USEC_PER_SEC), own(r, 1, 6 * USEC_PER_SEC));
    undo_later(s, own(r, 500000, 12 * USEC_PER_SEC), N_PARTITION, i);
}

/* For so long that the others have been told to obey another store by then. */
static void hide(struct sim *s, unsigned i, struct random *r)
{
    s->hosts[i].cut_up = s->hosts[i].cut_down = true;
    s->hosts[i].hidden = true;
    sim_trace(s, "h%u is hidden", i);
    sim_break_session(s, i, 1000, 1000);
    undo_later(s, own(r, 5 * USEC_PER_SEC, 40 * USEC_PER_SEC), N_RESTORE, i);
}

static void suspend(struct sim *s, unsigned i, struct random *r)
{
    uint64_t until = s->now_us + own(r, USEC_PER_SEC, 15 * USEC_PER_SEC);

    if (!s->hosts[i].up || sim_suspended(s, i))
        return;
    if (until > s->end_faults_us)
        until = s->end_faults_us;
    s->hosts[i].suspended_until_us = until;
    sim_trace(s, "h%u is suspended", i);
    sim_schedule(s, until - s->now_us, EV_HOST_RESUME, i);
    if (random_below(r, 100) < 70)
        sim_break_session(s, i, 1000, own(r, 1, 8 * USEC_PER_SEC));
}

/* The host comes back with empty disks. */
static void wipe(struct sim *s, unsigned i, struct random *r)
{
    if (sim_is_shared(s))
        return;
    sim_kill_host(s, i);
    for (unsigned d = 0; d < s->n_datasets; d++) {
        s->datasets[d].wiped |= sim_has_newest(s, i, d);
        s->hosts[i].volumes[d] = (struct sim_volume){0};
        s->hosts[i].containers[d] = (struct sim_container){0};
        if (s->store.datasets[d] && dataset_has_holder(s->store.datasets[d], &s->hosts[i].id))
            s->datasets[d].lost = true;
    }
    s->hosts[i].memory = (struct node_memory){0};
    sim_schedule(s, own(r, USEC_PER_SEC, 6 * USEC_PER_SEC), EV_HOST_START, i);
    sim_trace(s, "h%u has new disks", i);
}

static void restart_docker(struct sim *s, unsigned i, uint64_t until)
{
    sim_trace(s, "h%u container engine restarts", i);
    sim_containers_down(s, i);
    s->hosts[i].docker_down_us = until;
    sim_schedule_for_agent(s, 1000, EV_CONTAINERS_CHANGED, i);
    sim_schedule_for_agent(s, until - s->now_us, EV_CONTAINERS_CHANGED, i);
}

/* Another machine with the certificate of node 0. What it does to the data is the owner's mistake. */
static void clone(struct sim *s)
{
    if (s->hosts[s->n_nodes].up)
        return;
    for (unsigned d = 0; d < s->n_datasets; d++)
        s->datasets[d].lost = true;
    s->cloned = true;
    sim_trace(s, "h%u starts with the certificate of n0", s->n_nodes);
    sim_start_host(s, s->n_nodes);
}

static void fence_later(struct sim *s, unsigned i, struct random *r)
{
    s->hosts[i].to_fence = true;
    sim_schedule(s, own(r, 100000, 6 * USEC_PER_SEC), EV_FENCE, i);
}

/* A person makes a volume larger: only a list tells. Half of those named are none. */
static void grow(struct sim *s, unsigned d)
{
    if (d >= s->n_datasets || !sim_is_shared(s) || !s->shared[d].present)
        return;
    s->shared[d].size = (1ull << 40) + s->now_us;
    sim_trace(s, "d%u is made larger", d);
}

static bool is_long(const struct sim *s)
{
    return s->end_faults_us > 100 * USEC_PER_SEC;
}

static void break_host(struct sim *s, enum nuisance what, unsigned i, struct random *r)
{
    struct sim_host *h = &s->hosts[i];
    uint64_t most = is_long(s) ? 120 * USEC_PER_SEC : 15 * USEC_PER_SEC;
    uint64_t until = s->now_us + own(r, USEC_PER_SEC, most);
    if (random_below(r, 4) == 0)
        until = s->end_faults_us; /* what waits then must come back to it by itself */

    switch (what) {
    case N_AGENT_KILL:
        sim_kill_agent(s, i);
        sim_schedule(s, own(r, 100000, 3 * USEC_PER_SEC), EV_AGENT_START, i);
        break;
    case N_AGENT_TWICE:
        sim_start_agent(s, i);
        break;
    case N_HOST_REBOOT:
        sim_kill_host(s, i);
        sim_schedule(s, own(r, USEC_PER_SEC, 11 * USEC_PER_SEC), EV_HOST_START, i);
        break;
    case N_HOST_DEAD:
        sim_kill_host(s, i);
        h->dead = true;
        s->nuisances[N_HOST_DEAD] = false; /* one is enough */
        if (random_below(r, 4))
            fence_later(s, i, r);
        break;
    case N_POWER_OFF:
        sim_kill_host(s, i);
        fence_later(s, i, r);
        sim_schedule(s, own(r, USEC_PER_SEC, 30 * USEC_PER_SEC), EV_HOST_START, i);
        break;
    case N_HOST_SUSPEND:
        suspend(s, i, r);
        break;
    case N_PARTITION:
        cut(s, i, true, true, r);
        break;
    case N_ONE_WAY: {
        bool up = random_below(r, 2);
        cut(s, i, up, !up, r);
        break;
    }
    case N_BREAK:
        sim_break_session(s, i, own(r, 1, 2 * USEC_PER_SEC), own(r, 1, 4 * USEC_PER_SEC));
        break;
    case N_SLOW_DISK:
        h->slow_disk_us = until;
        break;
    case N_BAD_DISK:
        h->bad_disk_us = until;
        h->bad_disk_percent = random_below(r, 3) ? 30 : 97;
        break;
    case N_VANISH:
        sim_vanish(s, i, (unsigned)random_below(r, s->n_datasets));
        grow(s, (unsigned)random_below(r, 2 * s->n_datasets));
        break;
    case N_WIPE:
        wipe(s, i, r);
        break;
    case N_CONTAINER_CRASH:
        sim_container_dies(s, i, (unsigned)random_below(r, s->n_containers));
        break;
    case N_CRASH_LOOP:
        h->crash_loop_us = until;
        break;
    case N_DOCKER_RESTART:
        restart_docker(s, i, s->now_us + own(r, 100000, 5 * USEC_PER_SEC));
        break;
    case N_PULL_FAILS:
        h->pull_fails_us = until;
        break;
    default:
        break;
    }
}

/* Whoever lost the store may well miss a machine too. */
static void lose_store(struct sim *s, unsigned host, struct random *r)
{
    unsigned keeper = sim_restore(s, !s->has_backup);

    sim_schedule(s, own(r, 100000, 3 * USEC_PER_SEC), EV_CONTROL_START, 0);
    if (random_below(r, 4))
        hide(s, keeper < s->n_nodes ? keeper : host, r);
    s->nuisances[N_RESTORE] = random_below(r, 2);
}

void sim_lose_store(struct sim *s, unsigned host)
{
    if (sim_faults(s) && s->has_backup && !s->restored)
        lose_store(s, host, &s->random);
}

static void break_something(struct sim *s, enum nuisance what, unsigned host, struct random *r)
{
    uint64_t until = s->now_us + own(r, USEC_PER_SEC, 12 * USEC_PER_SEC);

    switch (what) {
    case N_CONTROL_KILL:
        sim_kill_control(s);
        sim_schedule(s, own(r, 100000, 3 * USEC_PER_SEC), EV_CONTROL_START, 0);
        break;
    case N_CLOCK_JUMP:
        s->wall_us += (int64_t)own(r, 0, 7200 * USEC_PER_SEC) - (int64_t)(3600 * USEC_PER_SEC);
        s->wall_jumped = true;
        break;
    case N_SLOW_NET:
        s->slow_net_us = until;
        break;
    case N_SLOW_STORE:
        s->store.slow_us = until;
        break;
    case N_FULL_STORE:
        s->store.full_us = until;
        break;
    case N_CLONE:
        clone(s);
        break;
    case N_RESTORE:
        if (s->has_backup || random_below(r, 4) == 0)
            lose_store(s, host, r);
        else
            sim_back_up(s);
        break;
    default:
        break_host(s, what, host, r);
        break;
    }
}

void sim_inject(struct sim *s, unsigned index)
{
    uint64_t state = s->options.seed * 0x9e3779b97f4a7c15u + (index + 1) * 0xd1342543de82ef95u;
    struct random r = random_seeded(&state);
    enum nuisance what;

    if (!sim_faults(s) || index >= MAX_INJECTED)
        return;
    sim_schedule(s, own(&r, 1000, s->fault_gap_us), EV_FAULT, 0)->number = index + 1;
    s->result->faults = index + 1;
    unsigned tries = 0;
    do
        what = (enum nuisance)random_below(&r, N_MAX);
    while (!s->nuisances[what] && ++tries < 200);
    unsigned host = (unsigned)random_below(&r, s->n_nodes);
    if (!s->nuisances[what] || (s->options.skip_faults && s->options.skip_faults[index]))
        return;
    sim_trace(s, "fault %u", index);
    break_something(s, what, host, &r);
}

void sim_undo(struct sim *s, const struct event *ev)
{
    struct sim_host *h = &s->hosts[ev->host];

    if ((!h->cut_up && !h->cut_down) || (h->hidden && ev->number == N_PARTITION))
        return;
    h->cut_up = h->cut_down = h->hidden = false;
    sim_trace(s, "h%u is reached again", ev->host);
    sim_net_healed(s, ev->host);
}

void sim_heal(struct sim *s)
{
    sim_trace(s, "faults and commands end");
    sim_kill_host(s, s->n_nodes);
    s->hosts[s->n_nodes].dead = true;
    sim_start_control(s);
    for (unsigned i = 0; i < s->n_nodes; i++) {
        if (!s->hosts[i].hidden)
            sim_undo(s, &(struct event){.host = i});
        sim_start_host(s, i);
        sim_start_agent(s, i);
        sim_schedule_for_agent(s, 1000, EV_CONTAINERS_CHANGED, i);
    }
}

void sim_plan_faults(struct sim *s)
{
    for (unsigned i = 0; i < N_MAX; i++)
        s->nuisances[i] = sim_chance(s, likely[i]);
    if (s->options.restores)
        s->nuisances[N_RESTORE] = true;
    if (is_long(s)) /* long enough for failures to add up */
        s->nuisances[N_PULL_FAILS] = s->nuisances[N_BAD_DISK] = true;
    if (s->n_nodes < 3)
        s->nuisances[N_HOST_DEAD] = false;
    s->fault_gap_us = 1000000 + (unsigned)sim_random(s, 8000000);
    sim_schedule(s, 2 * USEC_PER_SEC, EV_FAULT, 0);
}
