/* flocker-agent: the loop that runs the node's brain between the control service, storage and containers. */
#include "agent/agent.h"
#include "agent/calls.h"
#include "agent/link.h"
#include "agent/memory.h"
#include "agent/plugin.h"
#include "agent/steps.h"
#include "agent/volumes.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/str.h"
#include "base/options.h"
#include "drivers/driver.h"
#include "engines/routes.h"
#include "net/service.h"
#include "net/tls.h"
#include "net/tls_reload.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHORT_THREADS 64    /* storage steps */
#define ENGINE_THREADS 32   /* container steps: a pull may take minutes */
#define TRANSFER_THREADS 32 /* streams */
#define FINAL_THREADS 16    /* last increments: a container waits for each */
#define COMPARE_THREADS 2   /* comparisons that somebody asked for: node.c has no more at once */
#define IMAGE_THREADS 16    /* pulls */
#define LIST_THREADS 2
#define ROUTE_THREADS 1
#define OWN_THREADS 2       /* the agent's own affairs must not wait for anything hung */
#define PROGRESS_US USEC_PER_SEC
#define PERSIST_RETRY_US USEC_PER_SEC

struct options {
    const char *config;
    const char *state_dir;
    bool adopt;
    bool remove_routes;
};

struct running {
    uint64_t id;
    struct step_job *job;
    UT_hash_handle hh;
};

struct agent {
    struct loop *loop;
    struct agent_config config;
    struct options options;
    int lock;
    struct tls *tls;
    SSL_CTX *control_tls, *mover_client_tls, *mover_server_tls;
    struct tls_reload *reload;
    /* Pools of their own, so that what takes long or hangs delays nothing else (design rule 3). */
    struct workers *short_workers, *engine_workers, *transfer_workers, *final_workers, *compare_workers,
        *image_workers, *list_workers, *route_workers, *own_workers;
    struct agent_link *link;
    struct plugin *plugin;         /* Docker's volumes; NULL = the agent serves none */
    struct agent_volumes *volumes; /* likewise */
    struct agent_calls *calls; /* NULL: nobody calls an API here */
    struct node *node;
    struct node_memory memory;
    const struct driver *driver;
    struct step_context context;
    bool watching; /* container events */
    struct routes_watch *routes_watch;
    struct running *running;
    unsigned with_progress; /* of the steps that run */
    struct timer timer, progress, persist_retry;
    struct service service;
    struct node_memory persist; /* being written */
    struct err *persist_error;
    int status;
};

/* ---- messages ---- */

static enum replica_support replicas_of(const struct driver *d)
{
    if (!d->demote)
        return REPLICAS_NONE;
    return d->snapshots_in_limit ? REPLICAS_NO_LIMIT : REPLICAS_ALL;
}

static bool shares_lists(const struct driver *d)
{
    return d->kind == STORAGE_ATTACHABLE && d->tells_hosts && d->instance_id;
}

static void hello(void *cookie, struct hello *ret)
{
    struct agent *a = cookie;

    *ret = (struct hello){.protocol = AGENT_PROTOCOL_VERSION,
                          .node = a->context.node,
                          .era = a->context.era,
                          .version = (char *)FLOCKER_VERSION,
                          .mover_port = a->config.mover_port,
                          .routes = a->config.routes,
                          .volumes = a->volumes != NULL,
                          .storage = a->driver->kind,
                          .backend = (char *)a->driver->name,
                          .replicas = replicas_of(a->driver),
                          .compares = true,
                          .extended = true,
                          .more_volumes = true,
                          .grows = a->driver->grow != NULL,
                          .lists = shares_lists(a->driver),
                          .calls = a->calls != NULL,
                          .store = a->memory.store,
                          .generation = a->memory.generation,
                          .seen_revision = a->memory.seen_revision};
    if (a->context.storage)
        ret->shared_by = storage_shared_id(a->context.storage);
}

/* A container or image of ours is named by the store of the control service: known from the first session on. */
static void containers_changed(void *cookie);

static void watch_containers(struct agent *a)
{
    if (a->watching || uuid_is_nil(&a->context.store))
        return;
    CLEANUP_ERR struct err *e =
        container_engine_watch(a->context.engine, &a->context.store, containers_changed, a);
    if (e)
        log_error("container events cannot be watched: %s", e->text);
    a->watching = !e;
}

static void start_link(struct agent *a);

static void begin_session_anew(void *cookie)
{
    start_link(cookie);
}

static void on_welcome(struct agent *a, const struct welcome *w)
{
    snprintf(a->context.host, sizeof(a->context.host), "%s", agent_link_address(a->link));
    node_session_up(a->node, now_os(), w);
    if (node_hello_is_outdated(a->node)) { /* something was written down between the hello and now */
        loop_post(a->loop, begin_session_anew, a);
        return;
    }
    if (node_store_refused(a->node)) {
        log_error("the control service answers from store %s at revision %llu, but this node obeys %s from "
                  "revision %llu on: it takes no orders. If that is meant, stop the agent and run "
                  "flocker-agent --adopt",
                  UUID_STR(&w->store), (unsigned long long)w->revision, UUID_STR(&a->memory.store),
                  (unsigned long long)a->memory.seen_revision);
        return;
    }
    a->context.store = w->store;
    if (a->volumes && w->volumes)
        agent_volumes_up(a->volumes, a->link);
    else if (a->volumes)
        log_warning("the control service is older than this agent and knows nothing of Docker volumes");
    if (a->calls && w->calls)
        agent_calls_up(a->calls, a->link);
    watch_containers(a);
}

static void seen(struct agent *a, const struct sighting *s)
{
    struct node_sighting seen = {.dataset = s->dataset, .present = s->present, .size = s->size};

    if (!a->context.storage)
        return;
    if (s->present)
        seen.attached = storage_where(a->context.storage, s);
    node_seen(a->node, now_os(), &seen);
}

static void volume_changed(struct agent *a, const struct uuid *dataset)
{
    if (a->volumes)
        agent_volumes_dataset_changed(a->volumes, dataset);
}

static void on_message(void *cookie, struct control_message *m)
{
    struct agent *a = cookie;
    struct now now = now_os();

    switch (m->kind) {
    case CONTROL_MESSAGE_WELCOME:
        on_welcome(a, &m->welcome);
        break;
    case CONTROL_MESSAGE_ORDER:
        node_order(a->node, now, &m->order);
        volume_changed(a, &m->order.dataset);
        break;
    case CONTROL_MESSAGE_ORDER_NONE:
        node_order_none(a->node, now, &m->dataset);
        break;
    case CONTROL_MESSAGE_CONTAINER_ORDER:
        node_container_order(a->node, now, &m->container);
        break;
    case CONTROL_MESSAGE_CONTAINER_NONE:
        node_container_none(a->node, now, m->name);
        break;
    case CONTROL_MESSAGE_ROUTE:
        node_route(a->node, now, &m->route);
        break;
    case CONTROL_MESSAGE_ROUTE_NONE:
        node_route_none(a->node, now, m->port);
        break;
    case CONTROL_MESSAGE_LIST_ORDER:
        if (m->list_order.duty == LIST_FOR_ALL && node_list_duty(a->node) != LIST_FOR_ALL)
            log_info("this node lists the shared storage for all others");
        node_list_order(a->node, now, &m->list_order);
        break;
    case CONTROL_MESSAGE_SIGHTING:
        seen(a, &m->sighting);
        break;
    case CONTROL_MESSAGE_CALLS_SHARE:
        if (a->calls)
            agent_calls_share(a->calls, &m->share);
        break;
    case CONTROL_MESSAGE_ORDERS_COMPLETE:
        node_orders_complete(a->node, now);
        break;
    default:
        if (a->volumes)
            agent_volumes_message(a->volumes, m);
        break;
    }
}

static void on_down(void *cookie)
{
    struct agent *a = cookie;

    if (a->volumes)
        agent_volumes_down(a->volumes);
    if (a->calls)
        agent_calls_down(a->calls);
    node_session_down(a->node, now_os());
}

/* ---- events from other threads ---- */

static void containers_changed_on_loop(void *cookie)
{
    struct agent *a = cookie;

    node_containers_changed(a->node, now_os());
}

static void containers_changed(void *cookie)
{
    struct agent *a = cookie;

    loop_post(a->loop, containers_changed_on_loop, a);
}

static void routes_changed(void *cookie)
{
    struct agent *a = cookie;

    node_routes_changed(a->node, now_os());
}

static void no_space_on_loop(void *cookie)
{
    struct agent *a = cookie;

    node_space_wanted(a->node, now_os());
}

static void no_space(void *cookie)
{
    struct agent *a = cookie;

    loop_post(a->loop, no_space_on_loop, a);
}

struct received {
    struct agent *agent;
    struct uuid dataset;
};

static void received_on_loop(void *cookie)
{
    struct received *r = cookie;

    node_volume_changed(r->agent->node, now_os(), &r->dataset);
    free(r);
}

static void received(void *cookie, const struct uuid *dataset, uint64_t transfer,
                     const char *snapshot)
{
    struct received *r = xcalloc(1, sizeof(*r));

    (void)transfer, (void)snapshot;
    *r = (struct received){cookie, *dataset};
    loop_post(r->agent->loop, received_on_loop, r);
}

/* ---- steps ---- */

static void start_mover(struct agent *a)
{
    struct mover_config config = {.storage = a->context.storage,
                                  .server = a->mover_server_tls,
                                  .client = a->mover_client_tls,
                                  .node = a->context.node,
                                  .port = a->config.mover_port,
                                  .bandwidth_limit = a->config.bandwidth_limit,
                                  .received = received,
                                  .cookie = a};

    if (a->driver->kind != STORAGE_LOCAL || a->context.mover)
        return;
    CLEANUP_ERR struct err *e = mover_start(&config, &a->context.mover);
    if (e) {
        log_error("the mover cannot start: %s", e->text);
        a->status = 1;
        loop_stop(a->loop);
    }
}

/* The first look at the storage has ended; what is told about the node depends on it. Again when storage that was
 * missing has come. */
static void start_link(struct agent *a)
{
    struct agent_link_config link = {.loop = a->loop,
                                     .workers = a->own_workers,
                                     .tls = a->control_tls,
                                     .host = a->config.control_host,
                                     .port = a->config.control_port,
                                     .hello = hello,
                                     .message = on_message,
                                     .down = on_down,
                                     .cookie = a};

    if (a->volumes)
        agent_volumes_down(a->volumes);
    if (a->calls)
        agent_calls_down(a->calls);
    a->link = agent_link_free(a->link);
    a->link = agent_link_new(&link);
    if (a->volumes)
        agent_volumes_set_link(a->volumes, a->link);
}

static void take_storage(struct agent *a, struct step_job *j)
{
    bool news = j->opened && !a->context.storage;

    if (news) {
        a->context.storage = steal(&j->opened);
        start_mover(a);
    }
    if (news || !a->link)
        start_link(a);
    if (j->error && j->error->code == ERR_INVALID && !a->context.storage) {
        log_error("Configuration error: %s", j->error->text);
        a->status = 1;
        loop_stop(a->loop);
    }
}

static void step_work(void *cookie)
{
    step_job_run_sync(((struct running *)cookie)->job);
}

static bool has_progress(const struct step *s)
{
    return s->kind == STEP_SEND || s->kind == STEP_IMAGE;
}

static void step_finished(struct agent *a, struct running *r)
{
    struct step_job *j = r->job;

    HASH_DEL(a->running, r);
    if (j->step.kind == STEP_LIST_VOLUMES)
        take_storage(a, j);
    if (has_progress(&j->step))
        a->with_progress--;
    struct outcome o = {.step = r->id,
                        .error = j->error,
                        .observed = j->observed,
                        .volume = j->volume,
                        .volumes = j->volumes,
                        .n_volumes = j->n_volumes,
                        .space = j->space,
                        .left_out = j->left_out,
                        .containers = j->containers,
                        .n_containers = j->n_containers};
    node_outcome(a->node, now_os(), &o);
    volume_changed(a, &j->step.dataset);
    step_job_free(j);
    free(r);
}

static struct agent *the_agent; /* workers_submit() has one cookie for work and done: the job */

static void step_done_on_loop(void *cookie)
{
    step_finished(the_agent, cookie);
}

static void report_progress(void *cookie)
{
    struct agent *a = cookie;

    for (struct running *r = a->running; r; r = r->hh.next) {
        const struct mover_progress *p = &r->job->progress;
        if (r->job->step.kind == STEP_IMAGE)
            node_progress(a->node, now_os(), r->id, atomic_load(&r->job->pull.bytes),
                          atomic_load(&r->job->pull.total));
        if (r->job->step.kind == STEP_SEND)
            node_progress(a->node, now_os(), r->id,
                          __atomic_load_n(&p->skipped, __ATOMIC_RELAXED) +
                              __atomic_load_n(&p->bytes, __ATOMIC_RELAXED),
                          __atomic_load_n(&p->total, __ATOMIC_RELAXED));
    }
    if (a->with_progress)
        timer_set(&a->progress, now_os().mono_us + PROGRESS_US);
}

static struct workers *workers_for(const struct agent *a, const struct step *s)
{
    switch (s->kind) {
    case STEP_VERIFY:
        if (s->asked)
            return a->compare_workers;
        return a->transfer_workers;
    case STEP_SEND:
        return s->final ? a->final_workers : a->transfer_workers;
    case STEP_LIST_VOLUMES:
    case STEP_LIST_CONTAINERS:
    case STEP_SPACE:
        return a->list_workers;
    case STEP_IMAGE:
        return a->image_workers;
    case STEP_ROUTES:
        return a->route_workers;
    case STEP_START:
    case STEP_STOP:
        return a->engine_workers;
    default:
        return a->short_workers;
    }
}

static void run_step(struct agent *a, struct node_effect *f)
{
    struct running *r = xcalloc(1, sizeof(*r));
    struct workers *w = workers_for(a, &f->step);

    r->id = f->step.id;
    if (has_progress(&f->step)) {
        if (!a->with_progress++)
            timer_set(&a->progress, now_os().mono_us + PROGRESS_US);
    }
    r->job = step_job_new(&a->context, &f->step);
    HASH_ADD(hh, a->running, id, sizeof(r->id), r);
    workers_submit(w, step_work, step_done_on_loop, r);
}

static void cancel_step(struct agent *a, uint64_t id)
{
    struct running *r;

    HASH_FIND(hh, a->running, &id, sizeof(id), r);
    if (r)
        atomic_store(&r->job->progress.cancel, true);
}

/* ---- memory ---- */

static void persist_work(void *cookie)
{
    struct agent *a = cookie;

    a->persist_error = memory_save(a->options.state_dir, &a->persist);
}

static void persist_submit(void *cookie);

static void persist_done(void *cookie)
{
    struct agent *a = cookie;

    if (a->persist_error) {
        log_error("what this node obeys cannot be written down, so it takes no new orders; trying again: %s",
                  a->persist_error->text);
        a->persist_error = err_free(a->persist_error);
        timer_set(&a->persist_retry, now_os().mono_us + PERSIST_RETRY_US);
        return;
    }
    a->memory = a->persist;
    node_persisted(a->node, now_os(), &a->persist);
    if (node_hello_is_outdated(a->node))
        start_link(a);
}

static void persist_submit(void *cookie)
{
    struct agent *a = cookie;

    workers_submit(a->own_workers, persist_work, persist_done, a);
}

/* ---- effects ---- */

static void send_report(struct agent *a, struct node_effect *f)
{
    struct agent_message m = {0};
    CLEANUP_FREE char *key = NULL;

    switch (f->kind) {
    case NODE_REPORT:
        m.kind = AGENT_MESSAGE_REPORT;
        m.report = f->report;
        key = xasprintf("dataset %s", UUID_STR(&f->report.volume.dataset));
        break;
    case NODE_REPORT_GONE:
        m.kind = AGENT_MESSAGE_REPORT_GONE;
        m.dataset = f->dataset;
        key = xasprintf("dataset %s", UUID_STR(&f->dataset));
        break;
    case NODE_CONTAINER_REPORT:
        m.kind = AGENT_MESSAGE_CONTAINER_REPORT;
        m.container = f->container_report;
        key = xasprintf("container %s", f->container_report.name);
        break;
    case NODE_ROUTES_REPORT:
        m.kind = AGENT_MESSAGE_ROUTES_REPORT;
        m.routes = f->routes_report;
        key = xstrdup("routes");
        break;
    case NODE_SPACE_REPORT:
        m.kind = AGENT_MESSAGE_SPACE_REPORT;
        m.space = f->space;
        key = xstrdup("space");
        break;
    case NODE_SIGHTING:
        m.kind = AGENT_MESSAGE_SIGHTING;
        m.sighting = f->sighting;
        key = xasprintf("sighting %s", UUID_STR(&f->sighting.dataset));
        break;
    case NODE_SIGHTINGS_COMPLETE:
        m.kind = AGENT_MESSAGE_SIGHTINGS_COMPLETE;
        break;
    case NODE_CONTAINER_GONE:
        m.kind = AGENT_MESSAGE_CONTAINER_GONE;
        m.name = f->name;
        key = xasprintf("container %s", f->name);
        break;
    default:
        m.kind = AGENT_MESSAGE_REPORTS_COMPLETE;
        m.storage_unknown = f->storage_unknown;
        break;
    }
    agent_link_send(a->link, key, &m);
}

static void carry_out(struct agent *a, struct node_effect *f)
{
    switch (f->kind) {
    case NODE_STEP:
        run_step(a, f);
        break;
    case NODE_CANCEL:
        cancel_step(a, f->step_id);
        break;
    case NODE_PERSIST:
        a->persist = f->memory;
        persist_submit(a);
        break;
    case NODE_ANNOUNCE:
        if (a->context.mover && f->only_compare)
            mover_announce_comparison(a->context.mover, &f->dataset, f->transfer, &f->peer);
        else if (a->context.mover)
            mover_announce(a->context.mover, &f->dataset, f->transfer, &f->peer);
        break;
    default:
        send_report(a, f);
        break;
    }
    node_effect_free(f);
}

static void pump(void *cookie)
{
    struct agent *a = cookie;

    for (struct node_effect *f; (f = node_next(a->node));)
        carry_out(a, f);
    timer_set(&a->timer, node_deadline(a->node));
}

static void on_timer(void *cookie)
{
    struct agent *a = cookie;

    node_tick(a->node, now_os());
}

/* ---- start and stop ---- */

static void on_stop(void *cookie)
{
    struct agent *a = cookie;

    log_info("stopping; volumes stay mounted, containers run on");
    service_stopping(&a->service);
    loop_stop(a->loop);
}

static void on_hangup(void *cookie)
{
    struct agent *a = cookie;

    tls_reload_now(a->reload);
}

static struct err *watch_certificates(struct agent *a)
{
    struct tls_reload_config config = {
        .loop = a->loop,
        .dir = a->config.directory,
        .name = "node",
        .tls = a->tls,
        .contexts = {a->control_tls, a->mover_client_tls, a->mover_server_tls}};

    a->reload = tls_reload_new(&config);
    return loop_on_signal(a->loop, SIGHUP, on_hangup, a);
}

static struct err *read_era(struct uuid *ret)
{
    char text[UUID_TEXT_SIZE] = "";
    CLEANUP_CLOSE int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);

    if (fd < 0 || read(fd, text, UUID_TEXT_SIZE - 1) != UUID_TEXT_SIZE - 1 || !uuid_parse(text, ret))
        return err_new(ERR_IO, "cannot read the boot id (/proc/sys/kernel/random/boot_id)");
    return NULL;
}

/* One agent a node. */
static struct err *take_lock(struct agent *a)
{
    CLEANUP_FREE char *path = xasprintf("%s/agent.lock", a->options.state_dir);

    a->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (a->lock < 0)
        return err_errno(errno, "cannot open %s", path);
    if (flock(a->lock, LOCK_EX | LOCK_NB) != 0)
        return errno == EWOULDBLOCK
                   ? err_new(ERR_BUSY, "another flocker-agent runs on this node (it holds %s)", path)
                   : err_errno(errno, "cannot lock %s", path);
    return NULL;
}

static struct err *load_certificates(struct agent *a)
{
    CLEANUP_FREE char *ca = xasprintf("%s/cluster.crt", a->config.directory);
    CLEANUP_FREE char *crt = xasprintf("%s/node.crt", a->config.directory);
    CLEANUP_FREE char *key = xasprintf("%s/node.key", a->config.directory);
    CLEANUP_FREE char *warning = NULL;

    TRY(tls_load(ca, crt, key, &warning, &a->tls));
    if (warning)
        log_warning("%s", warning);
    const struct tls_identity *id = tls_own_identity(a->tls);
    if (id->kind != TLS_KIND_NODE)
        return err_new(ERR_INVALID,
                       "%s is not a node certificate; make one with flocker-ca create-node-certificate",
                       crt);
    a->context.node = id->node;
    a->context.cluster = id->cluster;
    TRY(tls_client_context(a->tls, TLS_KIND_CONTROL_SERVICE, TLS_NO_TICKETS | TLS_ALPN_H2,
                           &a->control_tls));
    TRY(tls_client_context(a->tls, TLS_KIND_NODE, TLS_NO_TICKETS | TLS_KTLS, &a->mover_client_tls));
    return tls_server_context(a->tls, TLS_KIND_NODE, TLS_NO_TICKETS | TLS_KTLS, &a->mover_server_tls);
}

static struct err *make_state_dir(const char *path)
{
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return err_errno(errno, "cannot make the state directory %s", path);
    return NULL;
}

static struct err *check_backend(struct agent *a)
{
    const char *name = json_string_value(json_object_get(a->config.dataset, "backend"));

    TRY(err_wrap(driver_find(name, &a->driver), "Configuration error"));
    return err_wrap(driver_check_options(a->driver, a->config.dataset), "Configuration error");
}

static struct err *prepare(struct agent *a)
{
    TRY(agent_config_load(a->options.config, &a->config));
    TRY(check_backend(a));
    TRY(load_certificates(a));
    TRY(make_state_dir(a->options.state_dir));
    TRY(take_lock(a));
    TRY(read_era(&a->context.era));
    return memory_load(a->options.state_dir, &a->memory);
}

/* Without it the routes are looked at when containers change, and every few minutes. */
static void watch_routes(struct agent *a)
{
    CLEANUP_ERR struct err *e =
        a->config.routes ? routes_watch_new(a->loop, routes_changed, a, &a->routes_watch) : NULL;

    if (e)
        log_warning("%s", e->text);
}

static void start_plugin(struct agent *a)
{
    struct plugin_config config = {.loop = a->loop, .context = &a->context, .node = a->node};

    if (!a->config.plugin_socket)
        return;
    a->plugin = plugin_new(&config);
    struct agent_volumes_config volumes = plugin_volumes_config(a->plugin);
    a->volumes = agent_volumes_new(&volumes);
    plugin_start(a->plugin, a->volumes);
}

static struct err *start(struct agent *a)
{
    TRY(prepare(a));
    TRY(loop_new(&a->loop));
    timer_init(&a->timer, a->loop, on_timer, a);
    timer_init(&a->progress, a->loop, report_progress, a);
    timer_init(&a->persist_retry, a->loop, persist_submit, a);
    a->short_workers = workers_new(a->loop, SHORT_THREADS, "storage");
    a->engine_workers = workers_new(a->loop, ENGINE_THREADS, "containers");
    a->transfer_workers = workers_new(a->loop, TRANSFER_THREADS, "transfers");
    a->final_workers = workers_new(a->loop, FINAL_THREADS, "last-increments");
    a->compare_workers = workers_new(a->loop, COMPARE_THREADS, "comparisons");
    a->image_workers = workers_new(a->loop, IMAGE_THREADS, "images");
    a->list_workers = workers_new(a->loop, LIST_THREADS, "lists");
    a->route_workers = workers_new(a->loop, ROUTE_THREADS, "routes");
    a->own_workers = workers_new(a->loop, OWN_THREADS, "own");
    a->context.config = &a->config;
    a->context.state_dir = a->options.state_dir;
    a->context.mount_root = "/flocker";
    a->context.store = a->memory.store;
    a->context.no_space = no_space;
    a->context.cookie = a;
    if (a->driver->kind == STORAGE_ATTACHABLE) {
        a->context.budget = budget_new(BUDGET_ALONE);
        a->calls = agent_calls_new(a->loop, a->context.budget);
    }
    a->context.engine = container_engine_new(a->config.docker_socket);
    struct node_config config = {.era = a->context.era,
                                 .storage = a->driver->kind,
                                 .random = random_os(),
                                 .copy = a->config.copy,
                                 .memory = a->memory,
                                 .shares_lists = shares_lists(a->driver)};
    a->node = node_new(&config);
    loop_on_idle(a->loop, pump, a);
    TRY(loop_on_signal(a->loop, SIGTERM, on_stop, a));
    TRY(loop_on_signal(a->loop, SIGINT, on_stop, a));
    TRY(watch_certificates(a));
    watch_containers(a);
    watch_routes(a);
    start_plugin(a);
    node_start(a->node, now_os());
    log_info("node %s, backend %s, boot id %s", UUID_STR(&a->context.node), a->driver->name,
             UUID_STR(&a->context.era));
    service_ready(&a->service, a->loop);
    return NULL;
}

/* Steps under way are not waited for: they may take minutes, and each may be cut at any instruction (rule 7). */
static int run(struct agent *a)
{
    struct err *e = start(a);

    if (!e)
        e = loop_run(a->loop);
    if (e) {
        log_error("%s", e->text);
        err_free(e);
        return 1;
    }
    return a->status;
}

static int adopt(struct agent *a)
{
    struct node_memory nothing = {0};
    struct err *e = make_state_dir(a->options.state_dir);

    if (!e)
        e = take_lock(a);
    if (!e)
        e = memory_save(a->options.state_dir, &nothing);
    if (e)
        return cli_fail(e);
    printf("This node will obey whatever control service answers next. Start flocker-agent now.\n");
    return 0;
}

/* Needs neither configuration nor certificate: they may be gone already. */
static int remove_routes(void)
{
    size_t n;
    struct err *e = routes_remove_sync(&n);

    if (e)
        return cli_fail(e);
    printf(n ? "The routes of this host are gone.\n" : "There were no routes on this host.\n");
    return 0;
}

static struct err *take(void *cookie, int id, const char *value)
{
    struct options *o = cookie;

    if (id == 1)
        o->config = value;
    else if (id == 2)
        o->state_dir = value;
    else if (id == 3)
        o->adopt = true;
    else
        o->remove_routes = true;
    return NULL;
}

int agent_main(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {1, 'c', "agent-config", "FILE", "Configuration (/etc/flocker/agent.yml)"},
        {2, 0, "state-dir", "DIR", "What the agent keeps between runs (" AGENT_STATE_DIR ")"},
        {3, 0, "adopt", NULL,
         "Forget which store this node obeyed, so that it takes another; then exit"},
        {4, 0, "remove-routes", NULL, "Take away the routes that agents made on this host; then exit"},
    };
    static const struct cli_spec spec = {
        .program = "flocker-agent",
        .synopsis = "flocker-agent [options]",
        .options = options,
        .n_options = ARRAY_SIZE(options),
        .text = "The agent of a node: volumes, moves, containers.",
        .take = take,
    };
    struct agent *a = xcalloc(1, sizeof(*a));
    int first, status;

    the_agent = a;
    a->options = (struct options){"/etc/flocker/agent.yml", AGENT_STATE_DIR, false};
    mem_setup_service();
    if (!cli_begin(&spec, &a->options, argc, argv, &first, &status))
        return status;
    if (first != argc)
        return cli_usage_error(&spec, "Unexpected argument: %s", argv[first]);
    if (a->options.remove_routes)
        return remove_routes();
    status = a->options.adopt ? adopt(a) : run(a);
    (void)fflush(stdout);
    _exit(status); /* worker threads may still be at work on what `a` holds */
}
