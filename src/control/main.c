/* flocker-control: the loop that runs the engine between its store, the REST API and the agents. */
#include "base/log.h"
#include "base/str.h"
#include "base/options.h"
#include "control/admin.h"
#include "control/audit.h"
#include "control/control.h"
#include "control/offline.h"
#include "control/rest.h"
#include "control/sessions.h"
#include "model/record.h"
#include "net/http_server.h"
#include "net/loop.h"
#include "net/service.h"
#include "net/tls.h"
#include "net/tls_reload.h"
#include "store/writer.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#define STOP_GRACE_US (5 * USEC_PER_SEC)
#define EXIT_STORE_UNCERTAIN 75 /* EX_TEMPFAIL: start again, from the store */

#define BURST_SECONDS 25 /* --call-budget: of the rate, when nothing is said of the burst */

#define KEEP_REPLICA_US (24 * 3600 * (uint64_t)USEC_PER_SEC)

struct options {
    const char *data_path;
    const char *certificates;
    const char *audit_log; /* NULL = none */
    uint64_t purge_after_us; /* 0 = never */
    uint64_t keep_replica_us; /* 0 = none is kept */
    struct bucket_limits calls;
    const char *backup, *restore, *import;
    bool replace, import_empty;
    char *host, *agent_host;
    uint16_t port, agent_port;
};

/* What became of the changes handed to the store, for /readyz and /metrics. */
struct commits {
    uint64_t done, failed;
    uint64_t sum_us;    /* time of all that are done */
    uint64_t began_us;  /* of the one under way; 0 = none */
    char *failure;      /* what the last one said; NULL: it went well */
    uint64_t failed_us; /* when */
};

/* Of the one commit that is under way: written by the store's thread, then posted. */
struct commit_answer {
    uint64_t batch;
    struct store_result result;
};

struct control {
    struct loop *loop;
    struct service service;
    struct store *store;
    struct store_writer *writer;
    struct engine *engine;
    struct rest *rest;
    struct http_server *http;
    struct sessions *sessions;
    struct admin *admin; /* NULL: its socket could not be made */
    struct tls *tls;
    SSL_CTX *user_tls, *node_tls;
    struct tls_reload *reload;
    struct timer timer;
    struct audit *audit;
    struct commits commits;
    struct commit_answer answer;
    bool stopping;
    int status;
};

/* ---- effects ---- */

static void note_commit(struct commits *n, const struct err *e)
{
    free(n->failure);
    n->failure = e ? xstrdup(e->text) : NULL;
    n->failed_us = now_os().mono_us;
    if (e)
        n->failed++;
    else
        n->done++;
    n->sum_us += n->failed_us - n->began_us;
    n->began_us = 0;
}

static void take_commit_answer(void *cookie)
{
    struct control *c = cookie;
    struct commit_answer *a = &c->answer;

    note_commit(&c->commits, a->result.err);
    CLEANUP_ERR struct err *e = steal(&a->result.err);
    if (!e) {
        engine_committed(c->engine, now_os(), a->batch);
    } else if (a->result.uncertain) {
        log_error("%s; it is not known whether the change is durable: ending, start again from the store",
                  e->text);
        c->status = EXIT_STORE_UNCERTAIN;
        loop_stop(c->loop);
    } else {
        log_error("a change was not recorded: %s", e->text);
        engine_commit_failed(c->engine, now_os(), a->batch, e->text);
    }
}

/* On the writer thread. */
static void committed(void *cookie, void *batch_cookie, struct store_result result)
{
    struct control *c = cookie;

    c->answer = (struct commit_answer){(uint64_t)(uintptr_t)batch_cookie, result};
    loop_post(c->loop, take_commit_answer, c);
}

static char *encode(const struct change *change)
{
    if (change->dataset)
        return record_dataset_encode(change->dataset);
    if (change->container)
        return record_container_encode(change->container);
    if (change->cordon)
        return record_cordon_encode(change->cordon);
    if (change->fence)
        return record_fence_encode(change->fence);
    return change->lease ? record_lease_encode(change->lease) : NULL;
}

static void commit(struct control *c, const struct batch *b)
{
    static const enum store_kind kinds[] = {
        [OBJECT_DATASET] = STORE_DATASET,
        [OBJECT_CONTAINER] = STORE_CONTAINER,
        [OBJECT_LEASE] = STORE_LEASE,
        [OBJECT_NODE] = STORE_CORDON,
        [OBJECT_FENCE] = STORE_FENCE,
        [OBJECT_STORE] = STORE_SETTLED,
    };
    struct store_batch *out = store_batch_new();

    for (size_t i = 0; i < b->n; i++) {
        const struct change *change = &b->changes[i];
        char *value = encode(change);
        bool remove = !change->dataset && !change->container && !change->lease && !change->cordon && !change->fence;
        if (!value && !remove) {
            log_error("record %s cannot be written without loss", change->key);
            abort(); /* validation lets no such object in: a defect, and nothing may be lost by it */
        }
        store_batch_add(out, change->revision, kinds[change->kind], change->key, value);
    }
    c->commits.began_us = now_os().mono_us;
    store_writer_submit(c->writer, out, (void *)(uintptr_t)b->id);
}

static void carry_out(struct control *c, struct effect *f)
{
    switch (f->kind) {
    case EFFECT_COMMIT:
        commit(c, f->batch);
        break;
    case EFFECT_REPLY:
        if (f->command & SESSIONS_COMMAND)
            sessions_reply(c->sessions, f->command, &f->result);
        else
            rest_reply(c->rest, f->command, &f->result);
        break;
    case EFFECT_CHANGED:
        rest_changed(c->rest, f->object, f->name);
        break;
    default:
        sessions_effect(c->sessions, f);
        break;
    }
    effect_free(f);
}

/* After each batch of events: what the engine collected becomes one commit, the rest goes out. */
static void pump(void *cookie)
{
    struct control *c = cookie;

    engine_flush(c->engine, now_os());
    for (struct effect *f; (f = engine_next(c->engine));)
        carry_out(c, f);
    engine_flush(c->engine, now_os());
    for (struct effect *f; (f = engine_next(c->engine));)
        carry_out(c, f);
    sessions_tell(c->sessions);
    timer_set(&c->timer, engine_deadline(c->engine));
}

static void on_timer(void *cookie)
{
    struct control *c = cookie;

    engine_tick(c->engine, now_os());
}

static void submit(void *cookie, struct command *command)
{
    struct control *c = cookie;

    engine_command(c->engine, now_os(), command);
}

/* ---- what the REST API tells of us ---- */

/* The engine has at most one commit under way; this long is not "busy" any more. */
#define COMMIT_LATE_US (5 * USEC_PER_SEC)
/* Nobody knows whether the disk is well again before somebody tries: after this long it is let try. */
#define FAILURE_COUNTS_US (30 * USEC_PER_SEC)

static char *not_ready(void *cookie)
{
    const struct control *c = cookie;
    uint64_t now_us = now_os().mono_us;

    if (c->stopping)
        return xstrdup("it is ending.");
    if (c->commits.failure && now_us - c->commits.failed_us < FAILURE_COUNTS_US)
        return xasprintf("the last change could not be stored: %s", c->commits.failure);
    if (c->commits.began_us && now_us - c->commits.began_us > COMMIT_LATE_US)
        return xasprintf("the disk has not answered for %llu seconds.",
                         (unsigned long long)((now_us - c->commits.began_us) / USEC_PER_SEC));
    return NULL;
}

static void measure(void *cookie, struct str *out)
{
    const struct commits *n = &((const struct control *)cookie)->commits;

    str_appendf(out,
                "# HELP flocker_store_commit_seconds Time that commits took, each of one or more changes.\n"
                "# TYPE flocker_store_commit_seconds summary\n"
                "flocker_store_commit_seconds_sum %.6f\n"
                "flocker_store_commit_seconds_count %llu\n"
                "# HELP flocker_store_commits_failed_total Commits that the store refused.\n"
                "# TYPE flocker_store_commits_failed_total counter\n"
                "flocker_store_commits_failed_total %llu\n",
                (double)n->sum_us / USEC_PER_SEC, (unsigned long long)(n->done + n->failed),
                (unsigned long long)n->failed);
}

/* ---- start and stop ---- */

/* Whoever moved the log away or has put new certificates there says so. */
static void on_hangup(void *cookie)
{
    struct control *c = cookie;

    tls_reload_now(c->reload);
    if (c->audit)
        audit_reopen(c->audit);
}

static void stopped(void *cookie)
{
    struct control *c = cookie;

    loop_stop(c->loop);
}

static void on_stop(void *cookie)
{
    struct control *c = cookie;

    if (c->stopping)
        return;
    c->stopping = true;
    log_info("stopping");
    service_stopping(&c->service);
    http_server_stop(c->http, now_os().mono_us + STOP_GRACE_US, stopped, c);
}

static struct err *load(struct control *c, const struct options *o)
{
    struct store_content content;
    struct now now = now_os();

    TRY(store_load_sync(c->store, &content));
    c->engine = engine_new(&content.history, content.revision, random_os());
    engine_purge_after(c->engine, o->purge_after_us);
    engine_keep_replicas(c->engine, o->keep_replica_us);
    engine_call_budget(c->engine, o->calls);
    for (size_t i = 0; i < content.n_datasets; i++)
        engine_restore_dataset(c->engine, steal(&content.datasets[i]));
    for (size_t i = 0; i < content.n_containers; i++)
        engine_restore_container(c->engine, steal(&content.containers[i]));
    for (size_t i = 0; i < content.n_leases; i++)
        engine_restore_lease(c->engine, now, &content.leases[i]);
    for (size_t i = 0; i < content.n_cordons; i++)
        engine_restore_cordon(c->engine, &content.cordons[i]);
    for (size_t i = 0; i < content.n_fences; i++)
        engine_restore_fence(c->engine, content.fences[i]);
    struct uuid id = store_id(c->store);
    log_info("store %s at revision %llu: %zu datasets, %zu containers, %zu leases", UUID_STR(&id),
             (unsigned long long)content.revision,
             content.n_datasets, content.n_containers, content.n_leases);
    if (content.history.unsettled)
        log_warning("the store was put back from a copy of revision %llu: what may have happened since waits for flockerctl "
                    "adopt (docs/install.md, \"Backup and restore\")",
                    (unsigned long long)content.history.restored);
    store_content_done(&content);
    engine_tick(c->engine, now);
    return NULL;
}

static struct err *load_certificates(struct control *c, const char *dir)
{
    CLEANUP_FREE char *ca = xasprintf("%s/cluster.crt", dir);
    CLEANUP_FREE char *crt = xasprintf("%s/control-service.crt", dir);
    CLEANUP_FREE char *key = xasprintf("%s/control-service.key", dir);
    CLEANUP_FREE char *warning = NULL;

    TRY(tls_load(ca, crt, key, &warning, &c->tls));
    if (warning)
        log_warning("%s", warning);
    if (tls_own_identity(c->tls)->kind != TLS_KIND_CONTROL_SERVICE)
        return err_new(ERR_INVALID, "%s is not a control service's certificate; make one with "
                                    "flocker-ca create-control-certificate",
                       crt);
    TRY(tls_server_context(c->tls, TLS_KIND_USER, TLS_EOF_OK | TLS_ALPN_HTTP1, &c->user_tls));
    return tls_server_context(c->tls, TLS_KIND_NODE, TLS_NO_TICKETS | TLS_ALPN_H2, &c->node_tls);
}

static void watch_certificates(struct control *c, const char *dir)
{
    struct tls_reload_config config = {.loop = c->loop,
                                       .dir = dir,
                                       .name = "control-service",
                                       .tls = c->tls,
                                       .contexts = {c->user_tls, c->node_tls}};

    c->reload = tls_reload_new(&config);
}

/* A full disk or a long path is no reason not to serve. */
static void start_admin(struct control *c, const char *data_path)
{
    CLEANUP_ERR struct err *e = admin_new(c->loop, c->writer, data_path, &c->admin);

    if (e)
        log_warning("no backup can be made while this service runs: %s", e->text);
}

static struct err *start(struct control *c, const struct options *o)
{
    uint16_t port;

    TRY(loop_new(&c->loop));
    timer_init(&c->timer, c->loop, on_timer, c);
    TRY(load_certificates(c, o->certificates));
    watch_certificates(c, o->certificates);
    TRY(store_open(o->data_path, &c->store));
    TRY(load(c, o));
    TRY(store_writer_start(c->store, committed, c, &c->writer));
    start_admin(c, o->data_path);

    if (o->audit_log)
        TRY(audit_start(o->audit_log, &c->audit));
    struct rest_config rest = {.loop = c->loop,
                               .engine = c->engine,
                               .submit = submit,
                               .not_ready = not_ready,
                               .measure = measure,
                               .audit = c->audit,
                               .cookie = c};
    c->rest = rest_new(&rest);
    struct http_server_config http = {.tls = c->user_tls, .name = "rest"};
    TRY(http_server_new(c->loop, &http, rest_handle, c->rest, &c->http));
    rest_set_server(c->rest, c->http);
    TRY(http_server_listen_tcp(c->http, o->host, o->port, &port));
    struct sessions_config sessions = {.loop = c->loop,
                                       .engine = c->engine,
                                       .tls = c->node_tls,
                                       .host = o->agent_host,
                                       .port = o->agent_port};
    TRY(sessions_new(&sessions, &c->sessions));
    loop_on_idle(c->loop, pump, c);
    TRY(loop_on_signal(c->loop, SIGTERM, on_stop, c));
    TRY(loop_on_signal(c->loop, SIGINT, on_stop, c));
    TRY(loop_on_signal(c->loop, SIGHUP, on_hangup, c));
    log_info("REST API on port %u, agents on port %u", port, sessions_port(c->sessions));
    service_ready(&c->service, c->loop);
    return NULL;
}

/* A commit that is under way is finished; who asked for it may not hear that any more. */
static void finish(struct control *c)
{
    c->sessions = sessions_free(c->sessions);
    if (c->writer)
        c->writer = store_writer_stop(c->writer);
    if (c->rest)
        rest_set_server(c->rest, NULL);
    c->admin = admin_free(c->admin);
    http_server_free(c->http);
    rest_free(c->rest);
    audit_stop(c->audit);
    engine_free(c->engine);
    store_close(c->store);
    tls_reload_free(c->reload);
    SSL_CTX_free(c->user_tls);
    SSL_CTX_free(c->node_tls);
    tls_free(c->tls);
    timer_cancel(&c->timer);
    free(c->commits.failure);
    err_free(c->answer.result.err);
    loop_free(c->loop);
}

/* A connection is an open file, and there are as many as clients and agents. */
static void allow_many_files(void)
{
    struct rlimit r;

    if (getrlimit(RLIMIT_NOFILE, &r) < 0)
        return;
    r.rlim_cur = r.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &r);
}

static int run(const struct options *o)
{
    struct control c = {0};

    allow_many_files();
    struct err *e = start(&c, o);

    if (!e)
        e = loop_run(c.loop);
    if (e) {
        log_error("%s", e->text);
        c.status = 1;
        err_free(e);
    }
    finish(&c);
    return c.status;
}

/* ---- options ---- */

/* Endpoint as the original took it: `tcp:PORT[:interface=ADDRESS]`, or just the port. */
static struct err *parse_endpoint(const char *text, char **ret_host, uint16_t *ret_port)
{
    const char *p = str_has_prefix(text, "tcp:") ? text + 4 : text;
    char *end;
    unsigned long port = strtoul(p, &end, 10);

    if (end == p || port > UINT16_MAX || (*end && !str_has_prefix(end, ":interface=")))
        return err_new(ERR_INVALID, "'%s' is not an endpoint: use tcp:PORT or tcp:PORT:interface=ADDRESS",
                       text);
    free(*ret_host);
    *ret_host = NULL;
    if (*end) {
        struct str host = {0};
        for (p = end + strlen(":interface="); *p; p++) {
            if (*p != '\\') /* Twisted's escape of the colons in IPv6 addresses */
                str_append_bytes(&host, p, 1);
        }
        *ret_host = str_steal(&host);
    }
    *ret_port = (uint16_t)port;
    return NULL;
}

/* RATE or RATE,BURST: calls a second, and at once. */
static struct err *parse_calls(const char *text, struct bucket_limits *ret)
{
    CLEANUP_FREE char *rate_text = xstrndup(text, strcspn(text, ","));
    const char *burst_text = strchr(text, ',');
    long rate, burst;

    TRY(cli_parse_number("--call-budget", rate_text, 1, BUCKET_PER_HOUR_MAX / 3600, &rate));
    burst = rate * BURST_SECONDS < BUCKET_BURST_MAX ? rate * BURST_SECONDS : BUCKET_BURST_MAX;
    if (burst_text)
        TRY(cli_parse_number("--call-budget", burst_text + 1, 1, BUCKET_BURST_MAX, &burst));
    *ret = (struct bucket_limits){.per_hour = (uint32_t)rate * 3600, .burst = (uint32_t)burst};
    return NULL;
}

static struct err *take(void *cookie, int id, const char *value)
{
    struct options *o = cookie;

    switch (id) {
    case 1:
        o->data_path = value;
        return NULL;
    case 2:
        return parse_endpoint(value, &o->host, &o->port);
    case 3:
        return parse_endpoint(value, &o->agent_host, &o->agent_port);
    case 4:
        o->audit_log = value;
        return NULL;
    case 5:
        o->certificates = value;
        return NULL;
    case 6:
        o->backup = value;
        return NULL;
    case 7:
        o->restore = value;
        return NULL;
    case 8:
        o->replace = true;
        return NULL;
    case 9:
        o->import = value;
        return NULL;
    case 13:
        return parse_calls(value, &o->calls);
    case 12:
        if (!streq(value, "0"))
            return cli_parse_duration("--keep-replica", value, &o->keep_replica_us);
        o->keep_replica_us = 0;
        return NULL;
    case 11:
        return cli_parse_duration("--purge-deleted-after", value, &o->purge_after_us);
    default:
        o->import_empty = true;
        return NULL;
    }
}

/* One of the commands that serve nothing; false: none was given. */
static bool run_offline(const struct options *o, struct err **ret_error)
{
    if (o->backup)
        *ret_error = offline_backup(o->data_path, o->backup);
    else if (o->restore)
        *ret_error = offline_restore(o->data_path, o->restore, o->replace);
    else if (o->import)
        *ret_error = offline_import(o->data_path, o->import, o->import_empty);
    else
        return false;
    return true;
}

int control_main(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {1, 'd', "data-path", "DIR", "Where the store is (/var/lib/flocker)"},
        {2, 'p', "port", "ENDPOINT", "For the REST API (tcp:4523)"},
        {3, 'a', "agent-port", "ENDPOINT", "For the agents (tcp:4524)"},
        {4, 0, "audit-log", "FILE", "Append a line about each change to this file"},
        {5, 'c', "certificates-directory", "DIR",
         "Holds cluster.crt, control-service.crt and control-service.key (/etc/flocker)"},
        {6, 0, "backup", "FILE", "Copy the store to FILE, also while the service runs; then exit"},
        {7, 0, "restore", "FILE", "Put such a copy in the place of the store; then exit"},
        {8, 0, "replace", NULL, "With --restore: also where there is a store; it is kept beside"},
        {9, 0, "import", "FILE", "Fill a new store with the current_configuration.json of Flocker 1; then exit"},
        {11, 0, "purge-deleted-after", "DURATION", "Forget deleted datasets after that long: 30d, 12h, 90m, 45s (never)"},
        {12, 0, "keep-replica", "DURATION",
         "Keep the copy that a move leaves behind that long, so that moving back is quick: 7d, 30m, 0 (24h)"},
        {13, 0, "call-budget", "RATE[,BURST]",
         "Calls a second, and at once, that all nodes make of their storage's API together (20,500)"},
        {10, 0, "import-empty", NULL, "With --import: make its datasets anew, empty"},
    };
    static const struct cli_spec spec = {
        .program = "flocker-control",
        .synopsis = "flocker-control [options]",
        .options = options,
        .n_options = ARRAY_SIZE(options),
        .text = "The control service: holds what users want, and tells the agents.",
        .take = take,
    };
    struct options o = {.data_path = "/var/lib/flocker",
                        .certificates = "/etc/flocker",
                        .port = 4523,
                        .agent_port = 4524,
                        .keep_replica_us = KEEP_REPLICA_US,
                        .calls = CALL_BUDGET};
    struct err *e = NULL;
    int first, status;

    mem_setup_service();
    if (!cli_begin(&spec, &o, argc, argv, &first, &status))
        return status;
    if (first != argc)
        return cli_usage_error(&spec, "Unexpected argument: %s", argv[first]);
    if (!!o.backup + !!o.restore + !!o.import > 1)
        return cli_usage_error(&spec, "--backup, --restore and --import cannot be used together");
    if ((o.replace && !o.restore) || (o.import_empty && !o.import))
        return cli_usage_error(&spec, "--replace belongs to --restore, and --import-empty to --import");
    status = run_offline(&o, &e) ? (e ? cli_fail(e) : 0) : run(&o);
    free(o.host);
    free(o.agent_host);
    return status;
}
