/* /metrics, /healthz, /readyz, and the line of the audit log: what is noted when a request ends. */
#include "control/rest_internal.h"

#include "base/now.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* ---- counting ---- */

const uint64_t rest_class_ends_us[CLASSES - 1] = {500,   1000,   2500,   5000,    10000,  25000,
                                                  50000, 100000, 250000, 1000000, 5000000};

static void note_time(struct times *t, uint64_t us)
{
    size_t class = 0;

    while (class < CLASSES - 1 && us > rest_class_ends_us[class])
        class ++;
    t->classes[class]++;
    t->sum_us += us;
}

static bool is_change(const struct route *route)
{
    return route && route->errors & REST_BIT(STORE_FAILED);
}

void metrics_count(struct call *call, const struct http_request *r, unsigned status)
{
    struct rest *rest = call->rest;
    size_t number = call->route ? (size_t)(call->route - rest_routes) : rest_n_routes;
    unsigned class = status / 100;

    rest->counts[number].answered[class < 6 ? class : 0]++;
    if (call->route && call->route->handler == events_stream)
        return; /* as long as the reader likes */
    note_time(is_change(call->route) ? &rest->changes : &rest->reads,
              now_os().mono_us - call->began_us);
}

/* ---- the audit log ---- */

static json_t *text_or_null(const char *s)
{
    return s && *s ? json_text(s) : json_null();
}

static void format_time(char *buf, size_t size, uint64_t wall_us)
{
    time_t seconds = (time_t)(wall_us / USEC_PER_SEC);
    struct tm tm;
    char date[32];

    gmtime_r(&seconds, &tm);
    strftime(date, sizeof(date), "%Y-%m-%dT%H:%M:%S", &tm);
    (void)snprintf(buf, size, "%s.%03uZ", date, (unsigned)(wall_us % USEC_PER_SEC / USEC_PER_MSEC));
}

void audit_call(struct call *call, const struct http_request *r, unsigned status)
{
    struct audit *audit = call->rest->config.audit;
    const struct http_peer *peer = http_request_peer(r);
    struct str line = {0};
    char when[48];

    if (!audit || !is_change(call->route))
        return;
    format_time(when, sizeof(when), now_os().wall_us);
    json_t *o =
        json_pack("{s:s, s:o, s:s, s:s, s:s, s:o, s:o, s:o, s:i, s:o}", "time", when, "user",
                  text_or_null(peer->has_identity ? peer->identity.name : NULL), "address",
                  peer->address, "action", call->route->name, "method",
                  http_method_name(http_request_method(r)), "object", text_or_null(call->object),
                  "node", text_or_null(call->node), "query", text_or_null(http_request_query(r)),
                  "status", (int)status, "error", text_or_null(call->error));
    if (call->why)
        (void)json_object_set_new(o, "reason", json_text(call->why));
    json_append(&line, o);
    json_decref(o);
    str_append(&line, "\n");
    audit_write(audit, str_steal(&line));
}

/* ---- health ---- */

void get_health(struct rest *rest, struct http_request *r, const char *param)
{
    respond_json(r, 200, json_pack("{s:s}", "status", "ok"));
}

void get_ready(struct rest *rest, struct http_request *r, const char *param)
{
    CLEANUP_FREE char *why =
        rest->config.not_ready ? rest->config.not_ready(rest->config.cookie) : NULL;

    if (why)
        respond_error_about(r, REST_ERROR_NOT_READY, "The control service is not ready: %s", why);
    else
        respond_json(r, 200, json_pack("{s:s}", "status", "ready"));
}

/* ---- Prometheus' text form ---- */

static void family(struct str *s, const char *name, const char *type, const char *help)
{
    str_appendf(s, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void number(struct str *s, const char *name, const char *type, const char *help, uint64_t v)
{
    family(s, name, type, help);
    str_appendf(s, "%s %" PRIu64 "\n", name, v);
}

static void append_requests(struct str *s, const struct rest *rest)
{
    static const char *const classes[] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"};

    family(
        s, "flocker_http_requests_total", "counter",
        "Requests of the REST API, by route and class of the answer (none: the client went away).");
    for (size_t i = 0; i <= rest_n_routes; i++) {
        for (size_t k = 0; k < ARRAY_SIZE(classes); k++) {
            if (rest->counts[i].answered[k])
                str_appendf(s,
                            "flocker_http_requests_total{route=\"%s\",code=\"%s\"} %" PRIu64 "\n",
                            i < rest_n_routes ? rest_routes[i].name : "none", classes[k],
                            rest->counts[i].answered[k]);
        }
    }
}

static void append_times(struct str *s, const struct times *t, const char *kind)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < CLASSES; i++) {
        sum += t->classes[i];
        str_appendf(s, "flocker_http_request_duration_seconds_bucket{kind=\"%s\",le=\"", kind);
        if (i < CLASSES - 1)
            str_appendf(s, "%g", (double)rest_class_ends_us[i] / USEC_PER_SEC);
        else
            str_append(s, "+Inf");
        str_appendf(s, "\"} %" PRIu64 "\n", sum);
    }
    str_appendf(s, "flocker_http_request_duration_seconds_sum{kind=\"%s\"} %.6f\n", kind,
                (double)t->sum_us / USEC_PER_SEC);
    str_appendf(s, "flocker_http_request_duration_seconds_count{kind=\"%s\"} %" PRIu64 "\n", kind,
                sum);
}

static void append_http(struct str *s, const struct rest *rest)
{
    append_requests(s, rest);
    family(s, "flocker_http_request_duration_seconds", "histogram",
           "From a request's arrival to its answer; of changes that includes the disk.");
    append_times(s, &rest->reads, "read");
    append_times(s, &rest->changes, "change");
    if (rest->server) {
        number(s, "flocker_http_connections", "gauge", "Connections of the REST API.",
               http_server_connections(rest->server));
        number(s, "flocker_http_refused_total", "counter",
               "Requests refused for their form or size, and failed handshakes.",
               http_server_refused(rest->server));
    }
    number(s, "flocker_event_readers", "gauge", "Readers of the stream of events.",
           rest->n_subscribers);
    number(s, "flocker_events_total", "counter", "Events since the start.", rest->last_event);
}

struct node_counts {
    uint64_t connected, listed, cordoned, routes_failed;
};

static bool count_node(void *cookie, const struct node_view *n)
{
    struct node_counts *c = cookie;

    c->connected += n->connected;
    c->listed += n->listed;
    c->cordoned += n->cordoned;
    c->routes_failed += n->routes && n->routes->reason.code != REASON_NONE;
    return true;
}

static void count_fence(void *cookie, const struct fenceable *n)
{
    *(uint64_t *)cookie += n->fence != NULL;
}

static void append_cluster(struct str *s, const struct rest *rest)
{
    const struct engine *e = rest->config.engine;
    struct engine_counts counts = engine_counts(e);
    struct node_counts nodes = {0};
    uint64_t fenced = 0;

    engine_each_fenceable(e, count_fence, &fenced);
    engine_list_nodes(e, now_os(), &(struct list_query){0}, count_node, &nodes);
    number(s, "flocker_configuration_revision", "gauge",
           "Number of the last change that is durable.", engine_revision(e));
    number(
        s, "flocker_datasets", "gauge",
        "Datasets that are configured (also deleted ones that were not purged) or seen on a node.",
        counts.datasets);
    number(s, "flocker_containers", "gauge", "Containers that are configured or seen on a node.",
           counts.containers);
    number(s, "flocker_leases", "gauge", "Leases.", counts.leases);
    number(s, "flocker_replicas", "gauge", "Copies that are kept for moving back.", counts.replicas);
    number(s, "flocker_nodes_connected", "gauge", "Nodes whose agent is connected.",
           nodes.connected);
    number(s, "flocker_nodes_listed", "gauge", "Nodes in /v1/state/nodes.", nodes.listed);
    number(s, "flocker_nodes_fenced", "gauge", "Nodes of which an operator signed that they are off.", fenced);
    number(s, "flocker_nodes_cordoned", "gauge", "Nodes that automatic placement gives nothing new.", nodes.cordoned);
    number(s, "flocker_nodes_routes_failed", "gauge",
           "Connected nodes on which ports of applications on other nodes may not answer.", nodes.routes_failed);
}

/* Pages of resident memory, the second number of /proc/self/statm. */
static uint64_t resident_pages(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    uint64_t size, resident = 0;

    if (f && fscanf(f, "%" SCNu64 " %" SCNu64, &size, &resident) != 2)
        resident = 0;
    if (f)
        (void)fclose(f);
    return resident;
}

static uint64_t open_files(void)
{
    DIR *d = opendir("/proc/self/fd");
    uint64_t n = 0;

    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n > 3 ? n - 3 : 0; /* "." and "..", and this one */
}

static void append_process(struct str *s, const struct rest *rest)
{
    struct rusage usage = {0};
    struct rlimit files = {0};

    family(s, "flocker_build_info", "gauge", "Which program this is.");
    str_append(s, "flocker_build_info{version=\"" FLOCKER_VERSION "\"} 1\n");
    (void)getrusage(RUSAGE_SELF, &usage);
    (void)getrlimit(RLIMIT_NOFILE, &files);
    family(s, "process_cpu_seconds_total", "counter", "Time on processors.");
    str_appendf(s, "process_cpu_seconds_total %.6f\n",
                (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                    (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / USEC_PER_SEC);
    number(s, "process_start_time_seconds", "gauge", "When it was started, since 1970.",
           rest->started_wall_us / USEC_PER_SEC);
    number(s, "process_resident_memory_bytes", "gauge", "Resident memory.",
           resident_pages() * (uint64_t)sysconf(_SC_PAGESIZE));
    number(s, "process_open_fds", "gauge", "Open files.", open_files());
    number(s, "process_max_fds", "gauge", "How many may be.", files.rlim_cur);
}

static void append_audit(struct str *s, const struct rest *rest)
{
    uint64_t written, lost;

    if (!rest->config.audit)
        return;
    audit_counts(rest->config.audit, &written, &lost);
    number(s, "flocker_audit_lines_total", "counter", "Lines written to the audit log.", written);
    number(s, "flocker_audit_lines_lost_total", "counter",
           "Lines of the audit log that were lost: the disk was too slow or full.", lost);
}

void get_metrics(struct rest *rest, struct http_request *r, const char *param)
{
    static const struct http_header headers[] = {
        {"Content-Type", "text/plain; version=0.0.4; charset=utf-8"},
        {"Cache-Control", "no-store"}};
    CLEANUP_STR struct str s = {0};

    append_process(&s, rest);
    append_http(&s, rest);
    append_cluster(&s, rest);
    append_audit(&s, rest);
    if (rest->config.measure)
        rest->config.measure(rest->config.cookie, &s);
    http_reply(r, 200, headers, ARRAY_SIZE(headers), s.data, s.len);
}
