/* --wait of the changing commands: looks often while it may be a matter of moments, then less. */
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "cli/ctl_progress.h"

#include <time.h>

#define QUIET_US (2 * USEC_PER_SEC) /* nothing is said about waits shorter than this */
#define EAGER_US (10 * USEC_PER_SEC)
#define EAGER_POLL_US (100 * USEC_PER_MSEC)
#define POLL_US (500 * USEC_PER_MSEC)

static struct err *dataset_reached(const json_t *detail, const char *node, bool *ret_reached)
{
    const char *wanted = ctl_text(detail, "primary");

    if (json_is_true(json_object_get(detail, "deleted")))
        return err_new(ERR_CONFLICT, "somebody deleted the dataset meanwhile");
    if (!streq(wanted, node))
        return err_new(ERR_CONFLICT, "somebody set the dataset's primary to %s meanwhile", wanted);
    *ret_reached =
        streq(ctl_text(detail, "status"), "attached") && streq(ctl_text(detail, "node"), node);
    return NULL;
}

/* The node on which it is mounted tells its size. */
static struct err *growth_reached(const json_t *detail, bool *ret_reached)
{
    json_int_t wanted = json_integer_value(json_object_get(detail, "maximum_size"));
    CLEANUP_JSON json_t *nodes = ctl_index(json_object_get(detail, "nodes"), "uuid");
    const json_t *node = json_object_get(nodes, ctl_text(detail, "node"));

    if (json_is_true(json_object_get(detail, "deleted")))
        return err_new(ERR_CONFLICT, "somebody deleted the dataset meanwhile");
    *ret_reached = node && json_integer_value(json_object_get(node, "size")) >= wanted;
    return NULL;
}

/* It ended well, and its policy does not let it run again. */
static bool is_done(const json_t *detail, const char *node)
{
    const json_t *code = json_object_get(detail, "exit_code");
    const char *policy = ctl_text(json_object_get(json_object_get(detail, "configuration"), "restart_policy"), "name");

    return streq(ctl_text(detail, "state"), "exited") && streq(ctl_text(detail, "on"), node) && json_is_integer(code) &&
           !json_integer_value(code) && !streq(policy, "always");
}

static struct err *container_reached(const json_t *detail, const char *node, bool *ret_reached)
{
    const char *wanted = ctl_text(detail, "node_uuid");

    if (!streq(wanted, node))
        return err_new(ERR_CONFLICT, "somebody moved the container to %s meanwhile", wanted);
    bool runs = streq(ctl_text(detail, "state"), "running") && streq(ctl_text(detail, "on"), node);
    *ret_reached = runs || is_done(detail, node);
    return NULL;
}

/* What has a health check is up when that says so. */
static bool is_well(const json_t *detail)
{
    const char *health = ctl_text(detail, "health");

    return !streq(health, "starting") && !streq(health, "unhealthy");
}

struct err *ctl_goal_reached(enum ctl_goal goal, const json_t *detail, const char *node,
                             bool *ret_reached)
{
    switch (goal) {
    case GOAL_DATASET_AT:
        if (!detail)
            return err_new(ERR_NOT_FOUND, "the dataset vanished from the configuration meanwhile");
        return dataset_reached(detail, node, ret_reached);
    case GOAL_DATASET_GROWN:
        if (!detail)
            return err_new(ERR_NOT_FOUND, "the dataset vanished from the configuration meanwhile");
        return growth_reached(detail, ret_reached);
    case GOAL_CONTAINER_AT:
    case GOAL_CONTAINER_UP:
        if (!detail)
            return err_new(ERR_NOT_FOUND, "somebody deleted the container meanwhile");
        TRY(container_reached(detail, node, ret_reached));
        if (goal == GOAL_CONTAINER_UP)
            *ret_reached = (*ret_reached && is_well(detail)) || is_done(detail, node);
        return NULL;
    case GOAL_DATASET_GONE:
        *ret_reached = !detail || streq(ctl_text(detail, "status"), "deleted");
        return NULL;
    case GOAL_CONTAINER_GONE:
        break;
    }
    *ret_reached = !detail;
    return NULL;
}

/* The container in the list of what the nodes report; *ret_detail NULL when no node has it any
 * more. What is no longer configured is only there. */
static struct err *find_reported(struct ctl *c, const char *name, json_t **ret_detail)
{
    CLEANUP_JSON json_t *list = NULL;

    TRY(ctl_get_list(c, "/v1/state/containers", &list));
    CLEANUP_JSON json_t *by_name = ctl_index(list, "name");
    *ret_detail = json_incref(json_object_get(by_name, name));
    return NULL;
}

/* What is watched. */
struct watch {
    enum ctl_goal goal;
    const char *id; /* or name */
    const char *node;
    const char *path;
};

/* What a look at the object showed. */
struct sight {
    bool away;      /* nothing is known: the control service (restarting?) or the node is silent */
    json_t *detail; /* NULL = not found, or away */
    char *reason;   /* why it is not as wanted, or why there was no answer; NULL = not said */
};

static void sight_done(struct sight *s)
{
    json_decref(s->detail);
    free(s->reason);
    *s = (struct sight){0};
}

static struct err *look(struct ctl *c, const struct watch *w, struct sight *ret_sight)
{
    struct sight s = {0};
    struct err *e = w->goal == GOAL_CONTAINER_GONE ? find_reported(c, w->id, &s.detail)
                                                   : api_get(c->api, w->path, &s.detail);
    const json_t *reason = json_object_get(s.detail, "reason");

    if (json_is_object(reason)) {
        s.reason = xasprintf("%s: %s%s%s", ctl_text(reason, "code"), ctl_text(reason, "text"),
                             ctl_text(reason, "text")[0] ? ". " : "", ctl_text(reason, "advice"));
    } else if (err_is(e, ERR_UNAVAILABLE)) {
        s.away = true;
        s.reason = xstrdup(e->text);
        e = err_free(e);
    } else if (err_is(e, ERR_NOT_FOUND)) {
        e = err_free(e);
    }
    if (!e)
        *ret_sight = s;
    return e;
}

/* A node that is silent reports nothing: that its container is not in the list proves nothing. */
static struct err *look_at_node(struct ctl *c, const struct watch *w, struct sight *s)
{
    CLEANUP_JSON json_t *nodes = NULL;

    if (w->goal != GOAL_CONTAINER_GONE || !w->node || s->away || s->detail)
        return NULL;
    struct err *e = ctl_get_nodes(c, &nodes);
    if (err_is(e, ERR_UNAVAILABLE)) {
        s->reason = xstrdup(e->text);
        e = err_free(e);
    } else if (!e && !json_object_get(nodes, w->node)) {
        s->reason =
            xasprintf("node-disconnected: node %s is not connected, so it is not known whether "
                      "the container still runs there; it is stopped when the node is back",
                      w->node);
    }
    s->away = s->reason != NULL;
    return e;
}

static const char *goal_text(enum ctl_goal goal)
{
    switch (goal) {
    case GOAL_DATASET_AT:
        return "attached";
    case GOAL_DATASET_GROWN:
        return "as large as wanted";
    case GOAL_DATASET_GONE:
        return "destroyed";
    case GOAL_CONTAINER_AT:
    case GOAL_CONTAINER_UP:
        return "running";
    default:
        return "removed";
    }
}

/* Says on standard error what is waited for, once per reason. */
static void say(const char *reason, char **last)
{
    if (!reason || str_equal_null(reason, *last))
        return;
    CLEANUP_FREE char *safe = ctl_harmless(reason);
    fprintf(stderr, "waiting: %s\n", safe);
    free(*last);
    *last = xstrdup(reason);
}

/* The transfer of a dataset, or NULL. What cannot be had now is shown another time. */
static json_t *transfer_of(struct ctl *c, const char *dataset)
{
    CLEANUP_FREE char *path = api_path("/v1/state/datasets/", dataset);
    CLEANUP_JSON json_t *detail = NULL;

    err_free(api_get(c->api, path, &detail));
    return json_incref(json_object_get(detail, "transfer"));
}

/* The transfer on which it depends: of a container with several datasets, the one with the most to send still. Or NULL. */
static json_t *find_transfer(struct ctl *c, const struct watch *w, const struct sight *s)
{
    json_t *found = NULL, *volume;
    double most = -1;
    size_t i;

    if (w->goal == GOAL_DATASET_AT)
        return json_incref(json_object_get(s->detail, "transfer"));
    if (w->goal != GOAL_CONTAINER_AT && w->goal != GOAL_CONTAINER_UP)
        return NULL;
    json_array_foreach (json_object_get(s->detail, "volumes"), i, volume) {
        json_t *transfer = transfer_of(c, ctl_text(volume, "dataset_id"));
        double left = json_number_value(json_object_get(transfer, "bytes_total")) -
                      json_number_value(json_object_get(transfer, "bytes_sent"));
        if (json_is_object(transfer) && left > most) {
            json_decref(found);
            found = json_incref(transfer);
            most = left;
        }
        json_decref(transfer);
    }
    return found;
}

static void show_progress(struct ctl *c, const struct watch *w, const struct sight *s,
                          struct ctl_progress *p)
{
    if (!ctl_progress_is_due(p))
        return;
    CLEANUP_JSON json_t *transfer = find_transfer(c, w, s);
    ctl_progress_show(p, transfer);
}

static struct err *timeout_err(const struct ctl *c, const struct watch *w, const struct sight *s)
{
    const char *reason = s->reason ? s->reason : "no reason is known";

    if (c->args->look_once)
        return err_new(ERR_TIMEOUT, "not %s: %s", goal_text(w->goal), reason);
    return err_new(ERR_TIMEOUT, "not %s after %ld seconds: %s", goal_text(w->goal), c->args->wait_seconds, reason);
}

static struct err *wait_loop(struct ctl *c, const struct watch *w)
{
    CLEANUP_FREE char *said = NULL;
    CLEANUP(ctl_progress_done) struct ctl_progress progress;
    uint64_t start = now_os().mono_us;
    uint64_t limit = (uint64_t)c->args->wait_seconds * USEC_PER_SEC;

    ctl_progress_init(&progress);
    for (;;) {
        CLEANUP(sight_done) struct sight s = {0};
        bool reached = false;
        TRY(look(c, w, &s));
        TRY(look_at_node(c, w, &s));
        if (!s.away)
            TRY(ctl_goal_reached(w->goal, s.detail, w->node, &reached));
        if (reached)
            return NULL;
        uint64_t waited = now_os().mono_us - start;
        if (waited >= limit)
            return timeout_err(c, w, &s);
        if (waited >= QUIET_US) {
            if (s.reason && !str_equal_null(s.reason, said))
                ctl_progress_clear(&progress);
            say(s.reason, &said);
            show_progress(c, w, &s, &progress);
        }
        uint64_t pause = waited < EAGER_US ? EAGER_POLL_US : POLL_US;
        if (pause > limit - waited)
            pause = limit - waited;
        struct timespec ts = {.tv_nsec = (long)pause * 1000};
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &ts, NULL);
    }
}

struct err *ctl_wait(struct ctl *c, enum ctl_goal goal, const char *id, const char *node)
{
    if (!c->args->wait)
        return NULL;
    bool container = goal == GOAL_CONTAINER_AT || goal == GOAL_CONTAINER_UP || goal == GOAL_CONTAINER_GONE;
    CLEANUP_FREE char *path =
        api_path(container ? "/v1/state/containers/" : "/v1/state/datasets/", id);
    struct watch w = {.goal = goal, .id = id, .node = node, .path = path};
    return err_wrap(wait_loop(c, &w), "%s %s", container ? "container" : "dataset", id);
}
