#include "agent/steps.h"

#include "base/log.h"
#include "base/now.h"
#include "base/str.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <unistd.h>

struct step_job *step_job_new(struct step_context *context, struct step *step)
{
    struct step_job *j = xcalloc(1, sizeof(*j));

    j->context = context;
    j->step = *step;
    j->store = context->store;
    memcpy(j->host, context->host, sizeof(j->host));
    *step = (struct step){0};
    return j;
}

struct step_job *step_job_free(struct step_job *j)
{
    for (size_t i = 0; i < j->n_volumes; i++)
        volume_state_done(&j->volumes[i]);
    for (size_t i = 0; i < j->n_containers; i++)
        container_state_done(&j->containers[i]);
    free(j->volumes);
    free(j->containers);
    free(j->left_out);
    volume_state_done(&j->volume);
    step_done(&j->step);
    err_free(j->error);
    free(j);
    return NULL;
}

static struct err *open_storage(struct step_job *j, struct storage **ret)
{
    const struct step_context *c = j->context;
    struct storage_config config = {.dataset = c->config->dataset,
                                    .mount_root = c->mount_root,
                                    .state_dir = c->state_dir,
                                    .node = c->node,
                                    .cluster = c->cluster,
                                    .budget = c->budget,
                                    .no_space = c->no_space,
                                    .cookie = c->cookie};

    if (c->storage) {
        *ret = c->storage;
        return NULL;
    }
    TRY(storage_open(&config, &j->opened));
    *ret = j->opened;
    return NULL;
}

static struct err *list_volumes(struct step_job *j)
{
    struct storage *s;

    TRY(open_storage(j, &s));
    if (!j->step.again)
        TRY(storage_list(s, &j->volumes, &j->n_volumes));
    else
        TRY(storage_list_again(s, j->step.known, j->step.n_known, j->step.here_only ? LIST_HERE_ONLY : 0, &j->volumes,
                               &j->n_volumes));
    CLEANUP_ERR struct err *e = storage_space(s, &j->space.total, &j->space.free);
    if (e)
        log_warning("%s", e->text);
    return NULL;
}

/* What became of the compression, and of what was there already. */
static void log_sent(const struct step *s, const struct mover_progress *p)
{
    log_debug("sent %s of %s: %llu bytes as %llu, after %llu that were there", s->snapshot,
              UUID_STR(&s->dataset), (unsigned long long)p->bytes, (unsigned long long)p->wire,
              (unsigned long long)p->skipped);
}

static struct err *with_peer(struct step_job *j)
{
    const struct step *s = &j->step;
    struct mover_send send = {.dataset = s->dataset,
                              .transfer = s->transfer,
                              .snapshot = s->snapshot,
                              .peer = s->peer,
                              .peer_host = s->peer_host,
                              .peer_port = s->peer_port,
                              .final = s->final || s->asked}; /* of a comparison no stream follows */

    if (!j->context->mover)
        return err_new(ERR_UNAVAILABLE, "the mover does not run yet");
    if (s->kind == STEP_VERIFY)
        return mover_verify_sync(j->context->mover, &send, &j->progress);
    TRY(mover_send_sync(j->context->mover, &send, &j->progress));
    log_sent(s, &j->progress);
    return NULL;
}

static struct err *dataset_step(struct step_job *j)
{
    struct storage *st = j->context->storage;
    const struct step *s = &j->step;

    switch (s->kind) {
    case STEP_CREATE:
        return storage_create(st, &s->dataset, s->maximum_size, &s->metadata, s->epoch);
    case STEP_CLAIM:
        return storage_claim(st, &s->dataset, s->epoch);
    case STEP_PROMOTE:
        return storage_promote(st, &s->dataset, s->snapshot, s->maximum_size, s->epoch);
    case STEP_MOUNT:
        if (s->n_fenced)
            TRY(storage_take_away(st, &s->dataset, s->epoch, s->fenced, s->n_fenced));
        return storage_mount(st, &s->dataset, s->epoch);
    case STEP_UNMOUNT:
        TRY(storage_unmount(st, &s->dataset));
        return storage_detach(st, &s->dataset);
    case STEP_SNAPSHOT:
        return storage_snapshot(st, &s->dataset, s->snapshot);
    case STEP_SEND:
    case STEP_VERIFY:
        return with_peer(j);
    case STEP_RELEASE:
        return storage_release(st, &s->dataset, s->epoch, s->transfer, s->snapshot);
    case STEP_PRUNE:
        return storage_prune(st, &s->dataset, s->snapshot, s->keep); /* "" is no name */
    case STEP_DEMOTE:
        return storage_demote(st, &s->dataset, s->snapshot);
    case STEP_GROW:
        return storage_grow(st, &s->dataset, s->maximum_size, s->epoch);
    case STEP_DROP:
        return storage_drop(st, &s->dataset);
    case STEP_DESTROY:
        return storage_destroy(st, &s->dataset);
    case STEP_FORBID:
        mover_forbid_sync(j->context->mover, &s->dataset, s->transfer);
        return NULL;
    default: /* STEP_OBSERVE */
        return NULL;
    }
}

static struct err *have_image(struct step_job *j)
{
    struct container_engine *ce = j->context->engine;
    const char *image = j->step.container->image;
    bool present = false;

    TRY(container_engine_has_image_sync(ce, image, &present));
    return present ? NULL : container_engine_pull_sync(ce, image, &j->progress.cancel, &j->pull);
}

static struct err *start_container(struct step_job *j)
{
    const struct step_context *c = j->context;
    const struct container *config = j->step.container;
    struct container_start start = {.config = config,
                                    .cluster = j->store,
                                    .era = c->era,
                                    .mount_root = c->mount_root,
                                    .host = j->host,
                                    .names = j->step.names,
                                    .n_names = j->step.n_names};
    return container_engine_start_sync(c->engine, &start);
}

static struct err *apply_routes(struct step_job *j)
{
    const struct agent_config *c = j->context->config;
    struct routes_config config = {
        .node = j->context->node, .own_address = j->host, .except = c->routes_except, .n_except = c->n_routes_except,
        .opened = &j->context->opened_interfaces};

    size_t n = c->routes ? j->step.n_routes : 0;
    TRY(routes_apply_sync(&config, j->step.routes, n));
    j->left_out = routes_left_out(&config, j->step.routes, n);
    if (j->left_out && !str_equal_null(j->left_out, j->context->left_out))
        log_warning("%s", j->left_out);
    free(j->context->left_out);
    j->context->left_out = xstrdup_null(j->left_out);
    return NULL;
}

static struct err *run(struct step_job *j)
{
    struct step_context *c = j->context;

    switch (j->step.kind) {
    case STEP_LIST_VOLUMES:
        return list_volumes(j);
    case STEP_SPACE: /* after the first list */
        return storage_space(c->storage, &j->space.total, &j->space.free);
    case STEP_LIST_CONTAINERS:
        if (uuid_is_nil(&j->store)) /* never had a session: there can be none of ours */
            return NULL;
        return container_engine_list_sync(c->engine, &j->store, &j->containers, &j->n_containers);
    case STEP_IMAGE:
        return have_image(j);
    case STEP_START:
        return start_container(j);
    case STEP_ROUTES:
        return apply_routes(j);
    case STEP_STOP:
        return container_engine_stop_sync(c->engine, j->step.name, &j->store, c->config->stop_timeout_s);
    default:
        return dataset_step(j);
    }
}

/* For the tests that kill a process at a named step: FLOCKER_TEST_PAUSE_AT=before-release:/path makes the file and waits
 * there until somebody removes it, once in a process. The send of the final snapshot is called send-final. Off unless the
 * variable is set. */
static void pause_for_test(const struct step *s, const char *when)
{
    static atomic_flag paused = ATOMIC_FLAG_INIT;
    const char *at = getenv("FLOCKER_TEST_PAUSE_AT");

    if (!at)
        return;
    CLEANUP_FREE char *here =
        xasprintf("%s-%s%s:", when, step_name(s->kind), s->final ? "-final" : "");

    if (!str_has_prefix(at, here) || atomic_flag_test_and_set(&paused))
        return;
    const char *path = at + strlen(here);
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return;
    log_warning("test: paused at %s", at);
    for (int i = 0; i < 1200 && access(path, F_OK) == 0; i++)
        (void)usleep(50000);
    (void)unlink(path);
}

void step_job_run_sync(struct step_job *j)
{
    bool of_dataset = j->step.kind > STEP_LIST_VOLUMES && j->step.kind <= STEP_FORBID;
    uint64_t began = now_os().mono_us;

    pause_for_test(&j->step, "before");
    j->error = run(j);
    pause_for_test(&j->step, "after");
    if (of_dataset) {
        CLEANUP_ERR struct err *e =
            storage_observe(j->context->storage, &j->step.dataset, &j->volume);
        j->observed = !e;
        if (e && !j->error)
            j->error = steal(&e);
    }
    uint64_t took_ms = (now_os().mono_us - began) / USEC_PER_MSEC;
    if (j->error)
        log_warning("%s %s failed after %llu ms: %s", step_name(j->step.kind),
                    j->step.name ? j->step.name : UUID_STR(&j->step.dataset),
                    (unsigned long long)took_ms, j->error->text);
    else
        log_debug("%s %s %s took %llu ms", step_name(j->step.kind),
                  j->step.name ? j->step.name : UUID_STR(&j->step.dataset), j->step.snapshot,
                  (unsigned long long)took_ms);
}
