/* flocker-deploy --wait: follows everything that is configured to where it is to be. */
#include "cli/deploy.h"

#include "base/now.h"
#include "base/str.h"

#include <stdio.h>

struct goal {
    enum ctl_goal kind;
    char *id, *node; /* owned */
};

struct goals {
    struct goal *all;
    size_t n, cap;
};

static void goals_done(struct goals *g)
{
    for (size_t i = 0; i < g->n; i++) {
        free(g->all[i].id);
        free(g->all[i].node);
    }
    free(g->all);
}

static void add(struct goals *g, enum ctl_goal kind, const char *id, const char *node)
{
    g->all = mem_grow(g->all, g->n, &g->cap, sizeof(*g->all));
    g->all[g->n++] = (struct goal){.kind = kind, .id = xstrdup(id), .node = xstrdup(node)};
}

/* Datasets first: containers wait for theirs. */
static struct err *collect(struct ctl *c, struct goals *g)
{
    CLEANUP_JSON json_t *datasets = NULL, *containers = NULL, *running = NULL;
    const json_t *item;
    size_t i;

    TRY(ctl_get_list(c, "/v1/configuration/datasets", &datasets));
    TRY(ctl_get_list(c, "/v1/configuration/containers", &containers));
    TRY(ctl_get_list(c, "/v1/state/containers", &running));
    CLEANUP_JSON json_t *wanted = ctl_index(containers, "name");
    json_array_foreach (running, i, item) {
        if (!json_object_get(wanted, ctl_text(item, "name")))
            add(g, GOAL_CONTAINER_GONE, ctl_text(item, "name"), ctl_text(item, "node_uuid"));
    }
    json_array_foreach (datasets, i, item) {
        if (!json_is_true(json_object_get(item, "deleted")))
            add(g, GOAL_DATASET_AT, ctl_text(item, "dataset_id"), ctl_text(item, "primary"));
    }
    json_array_foreach (containers, i, item)
        add(g, GOAL_CONTAINER_UP, ctl_text(item, "name"), ctl_text(item, "node_uuid"));
    return NULL;
}

static struct err *wait_for(struct api *api, const struct goal *g, long seconds)
{
    struct ctl_args args = {.wait = true, .wait_seconds = seconds, .look_once = !seconds};

    return ctl_wait(&(struct ctl){.args = &args, .api = api}, g->kind, g->id, g->node);
}

static void complain(struct err *e)
{
    CLEANUP_FREE char *safe = ctl_harmless(e->text);

    fprintf(stderr, "  %s\n", safe);
    err_free(e);
}

static long seconds_left(uint64_t end_us)
{
    uint64_t now_us = now_os().mono_us;

    return end_us > now_us ? (long)((end_us - now_us + USEC_PER_SEC - 1) / USEC_PER_SEC) : 0;
}

/* How many goals are not reached; only those are looked at again when the time is over. */
static size_t wait_for_all(struct api *api, const struct goals *g, uint64_t end_us)
{
    size_t missed = 0;

    for (size_t i = 0; i < g->n; i++) {
        struct err *e = wait_for(api, &g->all[i], seconds_left(end_us));
        if (err_is(e, ERR_TIMEOUT)) { /* what holds it up now, in the words of the others */
            err_free(e);
            e = wait_for(api, &g->all[i], 0);
        }
        if (!e)
            continue;
        if (!missed++)
            fprintf(stderr, "Not everything is as wanted:\n");
        complain(e);
    }
    return missed;
}

int deploy_wait(struct api *api, long seconds)
{
    CLEANUP(goals_done) struct goals g = {0};
    uint64_t end_us = now_os().mono_us + (uint64_t)seconds * USEC_PER_SEC;
    struct err *e = collect(&(struct ctl){.args = &(struct ctl_args){0}, .api = api}, &g);

    if (e)
        return cli_fail(e);
    if (wait_for_all(api, &g, end_us))
        return 1;
    printf("All is as wanted.\n");
    return 0;
}
