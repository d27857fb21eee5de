/* flockerctl list-replicas, drop-replica and verify: the copies that moves left behind, for moving back. */
#include "base/now.h"
#include "base/str.h"
#include "cli/ctl.h"
#include "cli/table.h"
#include "cli/text.h"

#include <time.h>

char *ctl_replica_text(const json_t *replica, const json_t *nodes)
{
    double until = json_number_value(json_object_get(replica, "until"));
    double left = until - (double)now_os().wall_us / USEC_PER_SEC;
    CLEANUP_FREE char *node = ctl_node_text(nodes, ctl_text(replica, "node"));
    CLEANUP_FREE char *when = text_format_time(until);
    CLEANUP_FREE char *in = text_format_duration(left > 0 ? left : 0);

    return xasprintf("%s, until %s (in %s)", node, when, in);
}

static void list_cells(struct table *t, const json_t *replica, const json_t *nodes, bool full_id)
{
    CLEANUP_FREE char *server = ctl_server(nodes, ctl_text(replica, "node"), full_id);
    CLEANUP_FREE char *until = text_format_time(json_number_value(json_object_get(replica, "until")));

    table_cell(t, ctl_text(replica, "dataset_id"));
    table_cell(t, server);
    table_cell(t, until);
}

struct err *ctl_list_replicas(struct ctl *c)
{
    CLEANUP_JSON json_t *replicas = NULL, *nodes = NULL;
    size_t i;
    json_t *item;

    TRY(ctl_get_list(c, "/v1/replicas", &replicas));
    ctl_sort(replicas, "dataset_id");
    if (c->args->json) {
        ctl_print_json(replicas);
        return NULL;
    }
    TRY(ctl_get_nodes(c, &nodes));
    CLEANUP(table_done) struct table t;
    table_init(&t, 3, (const char *const[]){"DATASET", "SERVER", "UNTIL"});
    json_array_foreach (replicas, i, item)
        list_cells(&t, item, nodes, c->args->details);
    table_print(&t, stdout);
    return NULL;
}

struct err *ctl_drop_replica(struct ctl *c)
{
    CLEANUP_FREE char *id = NULL;
    CLEANUP_JSON json_t *answer = NULL;

    TRY(ctl_find_dataset(c, c->args->operands[0], &id));
    CLEANUP_FREE char *path = api_path("/v1/replicas/", id);
    TRY(api_call(c->api, "DELETE", path, NULL, &answer));
    if (c->args->json)
        ctl_print_json(answer);
    else
        printf("Dataset %s: its replica is removed once its node is there; moving back will ship all data.\n", id);
    return NULL;
}

/* ---- verify ---- */

#define QUIET_US (2 * USEC_PER_SEC) /* nothing is said about waits shorter than this */
#define POLL_US (200 * USEC_PER_MSEC)

char *ctl_verification_text(const json_t *verification, const json_t *nodes)
{
    CLEANUP_FREE char *node = ctl_node_text(nodes, ctl_text(verification, "node"));
    const char *text = ctl_text(verification, "text");

    if (!json_is_number(json_object_get(verification, "ended")))
        return xasprintf("the replica on node %s is being compared", node);
    CLEANUP_FREE char *when = text_format_time(json_number_value(json_object_get(verification, "ended")));
    return xasprintf("%s, of the replica on node %s, %s%s%s", when, node, ctl_text(verification, "result"), *text ? ": " : "",
                     text);
}

/* The comparison as it is now. A control service that is away is waited for; *ret_verification stays NULL meanwhile. */
static struct err *look(struct ctl *c, const char *path, json_t **ret_verification)
{
    CLEANUP_JSON json_t *detail = NULL;
    struct err *e = api_get(c->api, path, &detail);

    if (err_is(e, ERR_UNAVAILABLE))
        return err_free(e);
    TRY(e);
    json_t *v = json_object_get(detail, "verification");
    if (!json_is_object(v))
        return err_new(ERR_UNAVAILABLE, "the control service was started anew meanwhile, and does not know of the comparison "
                                        "any more: ask again");
    *ret_verification = json_incref(v);
    return NULL;
}

/* Until it has ended. Takes and returns the comparison. */
static struct err *await_end(struct ctl *c, const char *id, json_t **verification)
{
    CLEANUP_FREE char *path = api_path("/v1/state/datasets/", id);
    uint64_t start = now_os().mono_us;
    bool said = false;

    while (streq(ctl_text(*verification, "result"), "running")) {
        const struct timespec pause = {.tv_nsec = (long)POLL_US * 1000};
        json_t *news = NULL;
        uint64_t waited = now_os().mono_us - start;
        if (c->args->wait && waited >= (uint64_t)c->args->wait_seconds * USEC_PER_SEC)
            return err_new(ERR_TIMEOUT, "not compared after %ld seconds; it goes on", c->args->wait_seconds);
        if (!said && waited >= QUIET_US)
            fprintf(stderr, "waiting: both nodes read all of the snapshot\n");
        said = said || waited >= QUIET_US;
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
        TRY(look(c, path, &news));
        if (!news)
            continue;
        json_decref(*verification);
        *verification = news;
    }
    return NULL;
}

#define SOON_US (30 * USEC_PER_SEC) /* so long what passes by itself is waited for */

/* Just after a move the replica is still being made: asks again until it is there. */
static struct err *begin(struct ctl *c, const char *id, json_t **ret_verification)
{
    CLEANUP_FREE char *path = api_path("/v1/verification/", id);
    uint64_t start = now_os().mono_us;
    bool said = false;

    for (;;) {
        const struct timespec pause = {.tv_nsec = (long)POLL_US * 1000};
        struct err *e = api_call(c->api, "POST", path, NULL, ret_verification);
        uint64_t waited = now_os().mono_us - start;
        bool given_up = waited >= SOON_US ||
                        (c->args->wait && waited >= (uint64_t)c->args->wait_seconds * USEC_PER_SEC);
        if (!err_is(e, ERR_BUSY) || c->args->no_wait)
            return e;
        if (given_up)
            return err_wrap(e, "waited %llu seconds", (unsigned long long)(waited / USEC_PER_SEC));
        if (!said && waited >= QUIET_US) {
            CLEANUP_FREE char *safe = ctl_harmless(e->text);
            fprintf(stderr, "waiting: %s\n", safe);
            said = true;
        }
        err_free(e);
        (void)clock_nanosleep(CLOCK_MONOTONIC, 0, &pause, NULL);
    }
}

struct err *ctl_verify(struct ctl *c)
{
    CLEANUP_FREE char *id = NULL;
    CLEANUP_JSON json_t *v = NULL, *nodes = NULL;

    TRY(ctl_find_dataset(c, c->args->operands[0], &id));
    TRY(err_wrap(begin(c, id, &v), "dataset %s", id));
    if (!c->args->no_wait)
        TRY(err_wrap(await_end(c, id, &v), "dataset %s", id));
    TRY(ctl_get_nodes(c, &nodes));
    const char *result = ctl_text(v, "result"), *text = ctl_text(v, "text");
    CLEANUP_FREE char *node = ctl_node_text(nodes, ctl_text(v, "node"));
    if (c->args->json)
        ctl_print_json(v);
    if (streq(result, "differs"))
        return err_new(ERR_DIFFERS, "dataset %s: the replica on node %s is not the same as what the dataset's owner has, and is "
                                    "removed: %s",
                       id, node, text);
    if (streq(result, "failed"))
        return err_new(ERR_UNAVAILABLE, "dataset %s: the replica on node %s could not be compared: %s", id, node, text);
    if (!c->args->json)
        printf(streq(result, "running") ? "Dataset %s: the replica on node %s is being compared.\n"
                                        : "Dataset %s: the replica on node %s is the same as what the dataset's owner has of it.\n",
               id, node);
    return NULL;
}
