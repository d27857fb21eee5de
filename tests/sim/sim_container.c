/* Simulated container engines, and what containers write. Container c<n> uses the datasets of the group that begins with
 * dataset n, or some of them; the last two use none. */
#include "sim.h"

#include "base/str.h"

void sim_list_containers(struct sim *s, unsigned host, struct sim_list *list)
{
    list->fails = sim_until(s, s->hosts[host].docker_down_us);
    for (unsigned c = 0; c < s->n_containers; c++) {
        const struct sim_container *k = &s->hosts[host].containers[c];
        if (!k->here)
            continue;
        list->containers[list->n_containers++] =
            (struct container_state){.name = xasprintf("c%u", c),
                                     .run = k->running ? CONTAINER_RUNNING : CONTAINER_EXITED,
                                     .created = k->created,
                                     .exit_code = k->running ? 0 : k->exit_code,
                                     .era = k->era};
        memcpy(list->containers[list->n_containers - 1].spec, k->spec, sizeof(k->spec));
    }
}

bool sim_knows_routes(const struct sim *s, unsigned host)
{
    return s->options.seed % 5 || host != 1;
}

/* What the step says, and nothing else; those without an address stay as they are. */
void sim_set_routes(struct sim *s, unsigned host, const struct step *step)
{
    struct sim_host *h = &s->hosts[host];
    int routes[MAX_CONTAINERS] = {0};

    for (size_t i = 0; i < step->n_routes; i++) {
        const struct port_route *r = &step->routes[i];
        unsigned c = (unsigned)r->port - SIM_PORT;
        if (c >= s->n_containers) {
            sim_violation(s, V_SIMULATOR, "h%u is to route port %u, which nobody has", host, r->port);
            continue;
        }
        routes[c] = r->host ? 1 + sim_node_index(s, &r->node) : h->routes[c];
    }
    memcpy(h->routes, routes, sizeof(routes));
}

void sim_containers_down(struct sim *s, unsigned host)
{
    for (unsigned c = 0; c < s->n_containers; c++) {
        struct sim_container *k = &s->hosts[host].containers[c];
        if (k->running)
            k->exit_code = 137;
        k->running = false;
        k->crash_us = 0;
    }
}

void sim_container_dies(struct sim *s, unsigned host, unsigned c)
{
    struct sim_container *k = &s->hosts[host].containers[c];

    if (!k->running)
        return;
    k->running = false;
    k->crash_us = 0;
    k->exit_code = !k->is_job || s->now_us / USEC_PER_MSEC % 2; /* some jobs end well */
    sim_trace(s, "h%u container c%u ends with %d", host, c, k->exit_code);
    sim_schedule_for_agent(s, sim_random(s, 20000), EV_CONTAINERS_CHANGED, host);
}

/* Each of them was started at some time before, or the container itself was, when it did not depend on that yet. */
static void check_dependencies(struct sim *s, unsigned host, const struct container *c)
{
    if (s->container_started[sim_container_index(c->name)] >= c->created)
        return;
    for (size_t i = 0; i < c->n_depends_on; i++) {
        if (!s->container_started[sim_container_index(c->depends_on[i].name)])
            sim_violation(s, V_TOO_EARLY, "container %s starts on h%u before %s, on which it depends", c->name, host,
                          c->depends_on[i].name);
    }
}

/* Notes the datasets; false when one is not mounted. */
static bool bind_volumes(struct sim *s, unsigned host, const struct container *c,
                         struct sim_container *k)
{
    bool mounted = true;

    for (size_t i = 0; i < c->n_volumes; i++) {
        int d = sim_dataset_index(s, &c->volumes[i].dataset);
        const struct sim_volume *v = &s->hosts[host].volumes[d];
        if (v->mark.state != MARK_OWNED)
            sim_violation(s, V_TWO_WRITERS, "a container starts on h%u without ownership of d%d",
                          host, d);
        mounted = mounted && v->mounted;
        k->uses[d] = true;
    }
    return mounted;
}

static struct err *start(struct sim *s, unsigned host, const struct step *st)
{
    struct sim_host *h = &s->hosts[host];
    unsigned c = sim_container_index(st->container->name);
    struct sim_container started = {.running = true,
                                    .here = true,
                                    .created = st->container->created,
                                    .era = h->era,
                                    .started_us = s->now_us,
                                    .is_job = st->container->restart_policy != RESTART_ALWAYS},
                         *k = &h->containers[c];

    if (sim_until(s, h->docker_down_us))
        return err_new(ERR_UNAVAILABLE, "simulated engine does not answer");
    if (sim_until(s, h->pull_fails_us) && sim_chance(s, 50))
        return err_new(ERR_NOT_FOUND, "no such image");
    if (!bind_volumes(s, host, st->container, &started))
        return err_new(ERR_INVALID, "bind source does not exist");
    check_dependencies(s, host, st->container);
    if (st->container->ended)
        sim_violation(s, V_AGAIN,
                      "c%u is started on h%u, which has been told that it ended for good", c, host);
    if (st->container->created > s->container_started[c])
        s->container_started[c] = st->container->created;
    *k = started;
    container_spec(st->container, k->spec);
    if (sim_until(s, h->crash_loop_us)) {
        struct event *ev = sim_schedule(s, 10000 + sim_random(s, 500000), EV_CONTAINER_DIES, host);
        ev->number = c;
        k->crash_us = ev->at;
    }
    return NULL;
}

static struct err *image(struct sim *s, unsigned host)
{
    if (sim_until(s, s->hosts[host].docker_down_us))
        return err_new(ERR_UNAVAILABLE, "simulated engine does not answer");
    if (sim_until(s, s->hosts[host].pull_fails_us))
        return err_new(ERR_TIMEOUT, "simulated registry does not answer");
    return NULL;
}

static struct err *stop(struct sim *s, unsigned host, const char *name)
{
    struct sim_container *k = &s->hosts[host].containers[sim_container_index(name)];

    if (sim_until(s, s->hosts[host].docker_down_us))
        return err_new(ERR_UNAVAILABLE, "simulated engine does not answer");
    *k = (struct sim_container){0};
    return NULL;
}

struct err *sim_container_step(struct sim *s, unsigned host, struct event *ev)
{
    switch (ev->step.kind) {
    case STEP_START:
        return start(s, host, &ev->step);
    case STEP_STOP:
        return stop(s, host, ev->step.name);
    case STEP_IMAGE:
        return image(s, host);
    default:
        return NULL;
    }
}

/* Each write builds on the last one that was acknowledged, wherever that was. */
static void write_to(struct sim *s, unsigned host, unsigned d)
{
    struct sim_volume *v = &s->hosts[host].volumes[d];
    struct sim_dataset *ds = &s->datasets[d];
    uint64_t *version = sim_is_shared(s) ? &s->shared[d].version : &v->version;
    uint64_t life = sim_is_shared(s) ? s->shared[d].life : v->life;

    if (!v->mounted || v->mark.state != MARK_OWNED)
        sim_violation(s, V_TWO_WRITERS, "a container on h%u runs on d%u, which is not its node's", host, d);
    if (life != ds->life)
        sim_violation(s, V_RESURRECTED, "a container on h%u writes to what was deleted of d%u", host, d);
    else if (*version != ds->acked)
        sim_violation(s, V_LOST_WRITE, "h%u has version %llu of d%u, but %llu was acknowledged", host,
                      (unsigned long long)*version, d, (unsigned long long)ds->acked);
    *version = ++ds->acked;
    ds->wiped = false;
    s->result->writes++;
}

/* Its device was pulled out. */
static bool is_device_gone(const struct sim *s, unsigned host, unsigned d)
{
    const struct sim_volume *v = &s->hosts[host].volumes[d];

    return sim_is_shared(s) && !v->mounted && (v->pulled || !(s->shared[d].attached && s->shared[d].host == host));
}

void sim_write(struct sim *s, unsigned host)
{
    struct sim_host *h = &s->hosts[host];

    if (!h->up || sim_suspended(s, host))
        return;
    for (unsigned c = 0; c < s->n_datasets; c++) {
        for (unsigned d = 0; d < s->n_datasets && h->containers[c].running; d++) {
            if (!h->containers[c].uses[d])
                continue;
            if (is_device_gone(s, host, d))
                sim_container_dies(s, host, c);
            else
                write_to(s, host, d);
        }
    }
    for (unsigned d = 0; d < s->n_datasets; d++) {
        if (!sim_mount_runs(s, host, d, /* flags= */ 0))
            continue;
        if (is_device_gone(s, host, d))
            sim_mounts_device_gone(s, host, d);
        else
            write_to(s, host, d);
    }
}
