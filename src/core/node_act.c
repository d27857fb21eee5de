/* Turning decisions into steps, and outcomes into what is known. */
#include "core/fault.h"
#include "core/node_internal.h"

uint64_t node_wall_of(struct now now, uint64_t mono_us)
{
    return mono_us > now.mono_us ? now.wall_us + (mono_us - now.mono_us) : now.wall_us;
}

void node_fail_later(const struct node *n, struct now now, struct backoff *b)
{
    backoff_fail(b, now.mono_us, &n->random);
    if (FAULT(NO_CAP))
        b->next_us = now.mono_us + ((uint64_t)BACKOFF_FIRST_US << (b->failures < 20 ? b->failures : 20));
}

/* ---- datasets ---- */

static bool uses(const struct node_container *c, const struct uuid *dataset)
{
    const struct container *now_wanted = c->has_order ? c->order.config : NULL;
    const struct container *running = c->running_config;

    return (now_wanted && container_uses(now_wanted, dataset)) ||
           (running && container_uses(running, dataset));
}

static bool dataset_in_use(const struct node *n, const struct uuid *dataset)
{
    for (struct node_container *c = n->containers; c; c = c->hh.next) {
        bool here = c->state.run != CONTAINER_ABSENT || (c->step && c->step_kind == STEP_START);
        if (here && uses(c, dataset))
            return true;
    }
    return false;
}

/* Only then it matters whether containers use it; looking costs a pass over all of them. */
static bool may_be_taken_away(const struct node_dataset *d)
{
    bool owner = d->has_order && (d->order.role == ROLE_OWNER || d->order.role == ROLE_SOURCE);

    return !owner || d->order.base;
}

static void start_dataset_step(struct node *n, struct now now, struct node_dataset *d,
                               const struct step *wanted)
{
    struct step *s = node_push_step(n, wanted->kind);
    uint64_t id = s->id;

    *s = *wanted;
    s->id = id;
    s->dataset = d->id;
    s->peer_host = xstrdup_null(wanted->peer_host);
    s->fenced = xmemdup(wanted->fenced, wanted->n_fenced * sizeof(*wanted->fenced));
    s->metadata = (struct metadata){0};
    metadata_copy(&s->metadata, &wanted->metadata);
    d->step = id;
    d->step_kind = s->kind;
    d->step_transfer = s->transfer;
    d->step_asked = s->asked;
    n->n_comparing += s->asked;
    d->step_started_us = now.mono_us;
    d->cancelling = false;
}

static void observe(struct node *n, struct now now, struct node_dataset *d)
{
    const struct step s = {.kind = STEP_OBSERVE};

    d->look_again = false;
    start_dataset_step(n, now, d, &s);
}

static void cancel_if_pointless(struct node *n, struct node_dataset *d)
{
    bool sends = d->has_order && d->order.transfer == d->step_transfer &&
                 (d->order.role == ROLE_SOURCE || d->order.role == ROLE_RELEASE);
    bool wanted = d->step_asked ? d->has_order && d->order.compare == d->step_transfer : sends;

    bool long_one = d->step_kind == STEP_SEND || d->step_kind == STEP_VERIFY;

    if (!long_one || wanted || d->cancelling)
        return;
    d->cancelling = true;
    node_effect_push(n, NODE_CANCEL)->step_id = d->step;
}

/* Says what the dataset waits for; a failed step's own words stay until its next try. */
static void set_reason(struct node *n, struct now now, struct node_dataset *d,
                       enum reason_code code, const char *text)
{
    (void)n;
    if (code == REASON_NONE)
        reason_done(&d->reason);
    else
        reason_set(&d->reason, code, now.wall_us, 0, text);
}

static enum reason_code reason_of_step(enum step_kind kind)
{
    switch (kind) {
    case STEP_CREATE:
        return REASON_CREATING;
    case STEP_PROMOTE:
    case STEP_CLAIM:
        return REASON_PROMOTING;
    case STEP_MOUNT:
        return REASON_MOUNTING;
    case STEP_SNAPSHOT:
    case STEP_SEND:
    case STEP_VERIFY:
        return REASON_COPYING;
    case STEP_RELEASE:
        return REASON_RELEASING;
    case STEP_DEMOTE:
    case STEP_DROP:
    case STEP_DESTROY:
        return REASON_DELETING;
    default:
        return REASON_NONE;
    }
}

static void announce(struct node *n, struct node_dataset *d)
{
    uint64_t expected = d->has_order ? plan_expected(&d->order) : 0;

    if (n->storage != STORAGE_LOCAL || !expected || d->announced || !node_is_live(n, d->order.revision))
        return;
    d->announced = expected;
    struct node_effect *f = node_effect_push(n, NODE_ANNOUNCE);
    f->dataset = d->id;
    f->transfer = expected;
    f->only_compare = d->order.role == ROLE_REPLICA;
    f->peer = d->order.peer;
}

static void act_on(struct node *n, struct now now, struct node_dataset *d,
                   const struct decision *decision)
{
    if (d->backoff.next_us > now.mono_us) {
        d->wake_us = d->backoff.next_us; /* the reason of the failure stands until then */
        return;
    }
    /* While it is tried again after a failure, the failure is still the news. */
    if (decision->step.asked) {
        if (!d->backoff.failures)
            set_reason(n, now, d, REASON_NONE, NULL); /* nothing waits for it */
    } else if (!d->backoff.failures && !d->copy.too_fast)
        set_reason(n, now, d, reason_of_step(decision->step.kind),
                   decision->step.kind == STEP_VERIFY ? "the copy is being compared with the source" : NULL);
    start_dataset_step(n, now, d, &decision->step);
}

/* The dataset waits until a container is stopped: says which, and what is in the way of that. */
static bool blame_container(const struct node *n, struct now now, struct node_dataset *d)
{
    for (struct node_container *c = n->containers; c; c = c->hh.next) {
        bool failed = c->reason.code == REASON_STOP_FAILED;
        if (c->state.run == CONTAINER_ABSENT || !uses(c, &d->id))
            continue;
        enum reason_code code = failed ? REASON_STOP_FAILED : REASON_STOPPING;
        const char *why = failed ? c->reason.text : "it is being stopped";
        if (!n->containers_known && n->engine_reason.code != REASON_NONE) {
            code = n->engine_reason.code;
            why = n->engine_reason.text;
        }
        CLEANUP_FREE char *text =
            xasprintf("container %s uses the dataset: %s", c->name, why ? why : "");
        reason_set(&d->reason, code, now.wall_us, 0, text);
        return true;
    }
    return false;
}

/* May an order to attach that an earlier agent gave here come through, and be in the way of the one that is to have the volume? An owner that only
 * keeps it is in nobody's way. */
static bool may_be_attached_late(const struct node *n, const struct node_dataset *d)
{
    bool others = d->has_order && (d->order.role == ROLE_KEEP || d->order.role == ROLE_RECEIVE);

    return n->storage == STORAGE_ATTACHABLE && others && d->volume.mark.state != MARK_OWNED;
}

/* What happens behind the back of this node, and is waited for, is looked for: data that were missing come back, or the above. */
static void look_again_later(const struct node *n, struct now now, struct node_dataset *d, const struct decision *decision)
{
    bool missing = decision->reason == REASON_DATA_MISSING, late = !missing && may_be_attached_late(n, d);

    if (!late)
        d->look_wait_us = 0;
    if (!missing && !late)
        d->look_us = 0;
    if (missing && (!d->look_us || d->look_us > now.mono_us + MISSING_LOOK_US))
        d->look_us = now.mono_us + MISSING_LOOK_US;
    if (!late || d->look_us)
        return;
    d->look_wait_us = d->look_wait_us ? d->look_wait_us * 2 : LATE_LOOK_US;
    if (d->look_wait_us > LATE_LOOK_MOST_US)
        d->look_wait_us = LATE_LOOK_MOST_US;
    d->look_us = now.mono_us + d->look_wait_us;
}

void node_decide_dataset(struct node *n, struct now now, struct node_dataset *d)
{
    if (d->step) {
        cancel_if_pointless(n, d);
        return;
    }
    d->wake_us = 0;
    if (!n->volumes_known) {
        d->stop_containers = false;
        if (d->has_order && n->storage_reason.code != REASON_NONE)
            reason_set(&d->reason, n->storage_reason.code, now.wall_us, n->storage_reason.retry_us,
                       n->storage_reason.text);
        return;
    }
    if (d->look_us && now.mono_us >= d->look_us) {
        d->look_us = 0;
        d->look_again = true;
    }
    if (!d->observed || d->look_again) {
        if (d->has_order && (d->order.role == ROLE_OWNER || d->order.role == ROLE_SOURCE))
            d->stop_containers = false;
        if (d->backoff.next_us > now.mono_us)
            d->wake_us = d->backoff.next_us;
        else
            observe(n, now, d);
        return;
    }
    struct dataset_view v = {.order = d->has_order ? &d->order : NULL,
                             .volume = &d->volume,
                             .storage = n->storage,
                             .live = node_is_live(n, d->has_order ? d->order.revision : 0),
                             .in_use = may_be_taken_away(d) && dataset_in_use(n, &d->id),
                             .gone = d->gone,
                             .announced = d->announced,
                             .compared = d->compared.end == COMPARISON_RUNS ? 0 : d->compared.number,
                             .copy = &d->copy,
                             .limits = &n->copy_limits,
                             .mono_us = now.mono_us};
    struct decision decision = plan_dataset(&v);
    d->stop_containers = decision.stop_containers;
    if (v.order && (v.order->role == ROLE_DROP || v.order->role == ROLE_DESTROY) &&
        plan_is_gone(v.order, v.volume, n->storage) && !d->announced)
        d->gone = v.order->number;
    if (decision.act && decision.step.asked && n->n_comparing >= COMPARE_AT_ONCE)
        return; /* another one's end comes back to it */
    if (decision.act) {
        act_on(n, now, d, &decision);
        return;
    }
    backoff_reset(&d->backoff);
    d->wake_us = decision.wake_us;
    look_again_later(n, now, d, &decision);
    if (d->look_us)
        d->wake_us = d->look_us;
    if (!decision.stop_containers || !blame_container(n, now, d))
        set_reason(n, now, d, decision.reason, decision.text);
    announce(n, d);
}

/* What fails may have failed at the other end. */
static bool with_peer(enum step_kind kind)
{
    return kind == STEP_SEND || kind == STEP_VERIFY;
}

static enum reason_code reason_of_error(enum step_kind kind, enum err_code code)
{
    if (code == ERR_NO_SPACE || code == ERR_LIMIT)
        return REASON_NO_SPACE;
    if (code == ERR_TOO_MANY)
        return REASON_STORAGE_LIMIT;
    if (code == ERR_BUSY && (kind == STEP_UNMOUNT || kind == STEP_RELEASE || kind == STEP_DEMOTE || kind == STEP_DROP ||
                             kind == STEP_DESTROY || kind == STEP_PROMOTE))
        return REASON_VOLUME_BUSY;
    if (with_peer(kind))
        return code == ERR_UNAVAILABLE ? REASON_PEER_UNREACHABLE : REASON_TRANSFER_FAILED;
    return REASON_STORAGE_ERROR;
}

static void take_volume(struct node_dataset *d, const struct volume_state *v)
{
    volume_state_done(&d->volume);
    volume_state_copy(&d->volume, v);
    d->volume.dataset = d->id;
    d->observed = true;
}

/* The comparison of a copy is done: well, or not. */
static void verify_outcome(struct node_dataset *d, const struct err *e)
{
    if (!d->has_order || d->order.role != ROLE_SOURCE || d->copy.transfer != d->step_transfer)
        return;
    if (!e)
        plan_copy_verified(&d->copy);
    else if (e->code == ERR_DIFFERS)
        plan_copy_differs(&d->copy, e->text);
    else if (e->code == ERR_NOT_FOUND)
        d->copy.verify = false; /* lost there, or here: copied once more */
}

/* What a next try cannot change. */
static bool is_final(enum err_code code)
{
    return code == ERR_NOT_FOUND || code == ERR_CONFLICT || code == ERR_UNSUPPORTED || code == ERR_INVALID;
}

/* A comparison that somebody asked for is done, well or not. true: it has ended. */
static bool comparison_outcome(struct node_dataset *d, const struct err *e)
{
    struct compared *c = &d->compared;

    if (c->number != d->step_transfer) {
        compared_done(c);
        c->number = d->step_transfer;
        d->compare_failures = 0;
    }
    if (!e || (FAULT(BLIND_COMPARISON) && e->code != ERR_CANCELLED))
        c->end = COMPARISON_EQUAL;
    else if (e->code == ERR_DIFFERS)
        c->end = COMPARISON_DIFFERS;
    else if (is_final(e->code) || (d->compare_failures += e->code == ERR_DENIED ? 1 : COMPARE_DENIALS / COMPARE_TRIES) >= COMPARE_DENIALS)
        c->end = COMPARISON_FAILED;
    if (c->end == COMPARISON_DIFFERS || c->end == COMPARISON_FAILED)
        c->text = xstrdup(e->text);
    return c->end != COMPARISON_RUNS;
}

static void dataset_outcome(struct node *n, struct now now, struct node_dataset *d,
                            const struct outcome *o)
{
    enum step_kind kind = d->step_kind;

    d->step = 0;
    if (o->observed)
        take_volume(d, &o->volume);
    if (o->error && !o->observed)
        d->observed = false;
    if (d->step_asked) {
        n->n_comparing--;
        d->step_asked = false;
        if (d->cancelling)
            return;
        if (comparison_outcome(d, o->error)) {
            backoff_reset(&d->backoff);
            return;
        }
    } else if (kind == STEP_VERIFY) {
        verify_outcome(d, o->error);
    }
    if (o->error) {
        if (o->error->code == ERR_CANCELLED && d->cancelling)
            return;
        if (o->error->code == ERR_NO_SPACE && !with_peer(kind))
            node_space_is_short(n, now);
        node_fail_later(n, now, &d->backoff);
        reason_set(&d->reason, reason_of_error(kind, o->error->code), now.wall_us,
                   node_wall_of(now, d->backoff.next_us), o->error->text);
        return;
    }
    if (kind != STEP_OBSERVE)
        backoff_reset(&d->backoff);
    if (kind == STEP_CREATE || kind == STEP_PROMOTE || kind == STEP_DROP || kind == STEP_DESTROY ||
        kind == STEP_PRUNE)
        node_space_look(n, now);
    if (kind == STEP_FORBID)
        d->announced = 0;
    if (kind == STEP_SEND && d->has_order && d->order.transfer == d->step_transfer) {
        if (d->order.role == ROLE_SOURCE && d->copy.transfer == d->step_transfer)
            plan_copy_sent(&d->copy, &n->copy_limits, now.mono_us - d->step_started_us, now.mono_us);
        if (d->volume.mark.state == MARK_RELEASED && d->volume.mark.transfer == d->step_transfer) {
            d->copy.final_sent = d->step_transfer;
            d->copy.again_us = now.mono_us + COPY_AGAIN_US;
        }
    }
}

/* Something of it is, or was, this node's affair. */
static bool is_ours(const struct node *n, const struct volume_state *v)
{
    return !plan_is_not_here(v, n->storage) || v->mark.state != MARK_NONE;
}

/* A later list is only a hint: steps were done while it was made, so it may be older than what is known. Where the two
 * differ, the dataset is looked at again by itself. Of shared storage it has the volumes of all nodes: most are none of ours. */
static void compare_list(struct node *n, const struct outcome *o)
{
    for (struct node_dataset *d = n->datasets; d; d = d->hh.next)
        d->listed = false;
    for (size_t i = 0; i < o->n_volumes; i++) {
        struct node_dataset *d = node_dataset_find(n, &o->volumes[i].dataset);
        if (!d && !is_ours(n, &o->volumes[i]))
            continue;
        d = node_dataset_get(n, &o->volumes[i].dataset);
        d->listed = true;
        if (!node_volume_same(&d->volume, &o->volumes[i]))
            d->look_again = true;
    }
    for (struct node_dataset *d = n->datasets; d; d = d->hh.next) {
        if (!d->listed && !n->lists.here_only && (!volume_state_is_empty(&d->volume) || d->volume.mark.state != MARK_NONE))
            d->look_again = true;
    }
}

static void volumes_outcome(struct node *n, struct now now, const struct outcome *o)
{
    n->list_volumes_step = 0;
    n->volumes_answered = true;
    if (o->error) {
        node_fail_later(n, now, &n->volumes_backoff);
        node_list_failed(n, now);
        reason_set(&n->storage_reason, REASON_STORAGE_MISSING, now.wall_us,
                   node_wall_of(now, n->volumes_backoff.next_us), o->error->text);
        return;
    }
    backoff_reset(&n->volumes_backoff);
    reason_done(&n->storage_reason);
    node_space_seen(n, now, &o->space);
    node_list_tell(n, o);
    if (n->volumes_known) {
        compare_list(n, o);
        return;
    }
    n->volumes_known = true;
    for (struct node_dataset *d = n->datasets; d; d = d->hh.next)
        d->observed = true; /* as empty, unless it is listed */
    for (size_t i = 0; i < o->n_volumes; i++)
        take_volume(node_dataset_get(n, &o->volumes[i].dataset), &o->volumes[i]);
}

/* ---- containers ---- */

static void start_container_step(struct node *n, struct now now, struct node_container *c,
                                 const struct decision *decision)
{
    struct step *s = node_push_step(n, decision->step.kind);

    s->name = xstrdup(c->name);
    s->pull = decision->step.pull;
    if (decision->step.container && s->kind != STEP_STOP)
        s->container = container_copy(decision->step.container);
    c->step = s->id;
    c->step_kind = s->kind;
    if (s->kind == STEP_START) {
        container_free(c->running_config);
        c->running_config = container_copy(s->container);
        s->names = node_routes_names(n, c->name, &s->n_names);
        c->started_us = now.mono_us;
    }
}

static bool is_usable(struct node *n, const struct uuid *dataset)
{
    struct node_dataset *d = node_dataset_find(n, dataset);

    /* A snapshot or stream of it disturbs nobody; any other step may be taking it away. */
    if (!d || !d->has_order || !d->observed || d->stop_containers)
        return false;
    if (d->step && d->step_kind != STEP_SEND && d->step_kind != STEP_VERIFY && d->step_kind != STEP_SNAPSHOT &&
        d->step_kind != STEP_PRUNE && d->step_kind != STEP_OBSERVE)
        return false;
    return plan_dataset_is_usable(&d->order, &d->volume);
}

#define CRASH_LOOP_RESTARTS 3

/* Runs, but has died often: once it has run for long, that is forgotten. */
static void watch_crash_loop(struct now now, struct node_container *c)
{
    uint64_t stable_us = c->started_us + CONTAINER_STABLE_US;

    if (now.mono_us < stable_us) {
        c->wake_us = stable_us;
        return;
    }
    c->restarts = 0;
    backoff_reset(&c->backoff);
    reason_done(&c->reason);
}

/* What its output ended with, as the end of a sentence; the caller frees it. */
static char *last_words_of(const struct node_container *c)
{
    return c->last_words ? xasprintf(". Its output ended with: %s", c->last_words) : xstrdup("");
}

/* It is not started again. If it ended well, and so long ago that it cannot have been with the host, that is for good. */
static void note_end(struct now now, struct node_container *c)
{
    uint64_t sure_us = c->exited_us + CONTAINER_ENDED_US;

    if (c->state.run != CONTAINER_EXITED || c->state.exit_code)
        return;
    c->ended = now.mono_us >= sure_us;
    if (!c->ended)
        c->wake_us = sure_us;
}

/* Neither to start nor to stop it: why. */
static void container_waits(struct now now, struct node_container *c,
                            const struct decision *decision)
{
    if (decision->reason == REASON_CONTAINER_EXITED) {
        note_end(now, c);
        CLEANUP_FREE char *words = last_words_of(c);
        CLEANUP_FREE char *text =
            xasprintf("container %s exited with status %d, and its restart "
                      "policy does not start it again%s",
                      c->name, c->order.config->ended ? 0 : c->state.exit_code, words);
        reason_set(&c->reason, decision->reason, now.wall_us, 0, text);
    } else if (decision->reason != REASON_NONE) {
        reason_set(&c->reason, decision->reason, now.wall_us, 0, decision->text);
    } else if (c->state.run == CONTAINER_RUNNING && c->reason.code == REASON_CRASH_LOOP) {
        watch_crash_loop(now, c);
    } else {
        reason_done(&c->reason);
    }
}

static bool must_stop(struct node *n, const struct container *config)
{
    for (size_t i = 0; config && i < config->n_volumes; i++) {
        const struct node_dataset *d = node_dataset_find(n, &config->volumes[i].dataset);
        if (d && d->stop_containers)
            return true;
    }
    return false;
}

static bool all_usable(struct node *n, const struct container *config)
{
    for (size_t i = 0; config && i < config->n_volumes && !(i && FAULT(FIRST_VOLUME)); i++) {
        if (!is_usable(n, &config->volumes[i].dataset))
            return false;
    }
    return true;
}

void node_decide_container(struct node *n, struct now now, struct node_container *c)
{
    const struct container *config = node_container_config(c);
    uint64_t revision = c->has_order ? c->order.config->revision : 0;

    c->ended = false; /* unless it is found again */
    if (c->step)
        return;
    c->wake_us = 0;
    struct container_view v = {
        .order = c->has_order ? &c->order : NULL,
        .state = c->state.run == CONTAINER_ABSENT ? NULL : &c->state,
        .known = n->containers_known,
        .synced = n->synced && !n->refused,
        .live = node_is_live(n, revision),
        .other_spec = c->has_order && c->state.spec[0] && !streq(c->state.spec, c->spec),
        .must_stop = must_stop(n, config) || must_stop(n, c->running_config),
        .volumes_usable = all_usable(n, config),
        .image_ready = c->image_ready,
        .pull = c->pull,
        .revive =
            c->revive || (c->state.run == CONTAINER_EXITED && !uuid_eq(&c->state.era, &n->era)),
        .restarts = c->restarts,
    };
    struct decision decision = plan_container(&v);
    if (!n->containers_known && n->engine_reason.code != REASON_NONE) {
        reason_set(&c->reason, n->engine_reason.code, now.wall_us, n->engine_reason.retry_us,
                   n->engine_reason.text);
        return;
    }
    if (!decision.act) {
        container_waits(now, c, &decision);
        return;
    }
    /* A stop waits only for the back-off of an earlier stop, not for that of starts. */
    bool stop = decision.step.kind == STEP_STOP;
    if (c->backoff.next_us > now.mono_us && (!stop || c->reason.code == REASON_STOP_FAILED)) {
        c->wake_us = FAULT(FORGET_WAKE) ? 0 : c->backoff.next_us;
        return;
    }
    if (!c->backoff.failures)
        reason_set(&c->reason,
                   decision.step.kind == STEP_STOP ? REASON_STOPPING : REASON_WAITING_FOR_IMAGE,
                   now.wall_us, 0, decision.step.kind == STEP_STOP ? NULL : config->image);
    start_container_step(n, now, c, &decision);
}

static enum reason_code reason_of_container_error(enum step_kind kind, enum err_code code)
{
    if (code == ERR_UNAVAILABLE && kind != STEP_IMAGE)
        return REASON_ENGINE_UNAVAILABLE;
    if (kind == STEP_IMAGE)
        return code == ERR_NOT_FOUND ? REASON_IMAGE_MISSING : REASON_IMAGE_PULL_FAILED;
    if (kind == STEP_STOP)
        return REASON_STOP_FAILED;
    if (code == ERR_BUSY)
        return REASON_PORT_IN_USE;
    if (code == ERR_EXISTS)
        return REASON_NAME_TAKEN;
    return REASON_START_FAILED;
}

static void container_failed(struct node *n, struct now now, struct node_container *c,
                             enum reason_code code, const char *text)
{
    node_fail_later(n, now, &c->backoff);
    reason_set(&c->reason, code, now.wall_us, node_wall_of(now, c->backoff.next_us), text);
}

static void container_outcome(struct node *n, struct now now, struct node_container *c,
                              const struct outcome *o)
{
    enum step_kind kind = c->step_kind;

    c->step = 0;
    if (kind != STEP_IMAGE) {
        n->list_containers_again = true;
        c->not_listed_by = n->list_containers_step;
    }
    if (o->error) {
        if (kind == STEP_START && o->error->code == ERR_NOT_FOUND) {
            c->pull = true; /* the image is missing: fetch it next */
            return;
        }
        container_failed(n, now, c, reason_of_container_error(kind, o->error->code),
                         o->error->text);
        return;
    }
    if (kind == STEP_IMAGE) {
        c->image_ready = true;
        c->pull = false;
        backoff_reset(&c->backoff);
        return;
    }
    if (kind == STEP_STOP) {
        c->state.run = CONTAINER_ABSENT;
        c->running_config = container_free(c->running_config);
        backoff_reset(&c->backoff);
        return;
    }
    c->state.run = CONTAINER_RUNNING;
    c->state.created = c->running_config->created;
    c->state.health = HEALTH_NONE;
    container_spec(c->running_config, c->state.spec);
    c->state.era = n->era;
    c->revive = false;
    c->image_ready = true;
    if (c->reason.code != REASON_CRASH_LOOP || c->restarts < CRASH_LOOP_RESTARTS)
        reason_done(&c->reason);
}

/* It ran and is not running any more. */
static void container_died(struct node *n, struct now now, struct node_container *c)
{
    if (c->revive)
        return;
    if (now.mono_us - c->started_us >= CONTAINER_STABLE_US) {
        c->restarts = 0;
        backoff_reset(&c->backoff);
    }
    c->restarts++;
    CLEANUP_FREE char *words = last_words_of(c);
    CLEANUP_FREE char *text = xasprintf("container %s exited with status %d; %u exits in a row%s",
                                        c->name, c->state.exit_code, c->restarts, words);
    container_failed(n, now, c, REASON_CRASH_LOOP, text);
}

static void take_container(struct node *n, struct now now, struct node_container *c,
                           const struct container_state *s)
{
    bool ran = c->state.run == CONTAINER_RUNNING;
    char *name = c->state.name;

    if (c->state.run != CONTAINER_EXITED || c->state.created != s->created)
        c->exited_us = now.mono_us;
    c->state = *s;
    c->state.name = name;
    c->state.last_words = NULL;
    if (s->run == CONTAINER_EXITED) {
        free(c->last_words);
        c->last_words = xstrdup_null(s->last_words);
    }
    if (ran && s->run == CONTAINER_EXITED)
        container_died(n, now, c);
}

/* The list may have been made before the container's step had its effect (seed 5546): then the next one tells, which the
 * step's outcome asks for. */
static bool list_tells_about(const struct outcome *list, const struct node_container *c)
{
    return (!c->step || c->step_kind == STEP_IMAGE) && c->not_listed_by != list->step;
}

static void containers_outcome(struct node *n, struct now now, const struct outcome *o)
{
    n->list_containers_step = 0;
    n->containers_answered = true;
    if (o->error) {
        /* The engine is away. What ran then and does not when it comes back died with it. */
        for (struct node_container *c = n->containers; c; c = c->hh.next) {
            if (c->state.run == CONTAINER_RUNNING)
                c->revive = true;
        }
        n->containers_known = false;
        node_fail_later(n, now, &n->containers_backoff);
        reason_set(&n->engine_reason, REASON_ENGINE_UNAVAILABLE, now.wall_us,
                   node_wall_of(now, n->containers_backoff.next_us), o->error->text);
        return;
    }
    n->containers_known = true;
    backoff_reset(&n->containers_backoff);
    reason_done(&n->engine_reason);
    for (struct node_container *c = n->containers; c; c = c->hh.next) {
        bool listed = false;
        for (size_t i = 0; i < o->n_containers && !listed; i++)
            listed = streq(o->containers[i].name, c->name);
        if (!listed && list_tells_about(o, c)) {
            c->state.run = CONTAINER_ABSENT;
            c->running_config = container_free(c->running_config);
        }
    }
    for (size_t i = 0; i < o->n_containers; i++) {
        struct node_container *c = node_container_get(n, o->containers[i].name);
        if (list_tells_about(o, c))
            take_container(n, now, c, &o->containers[i]);
        if (c->state.run == CONTAINER_RUNNING)
            c->revive = false;
    }
}

void node_outcome(struct node *n, struct now now, const struct outcome *o)
{
    bool found = true;

    if (node_routes_outcome(n, now, o) || node_space_outcome(n, now, o)) {
        found = true;
    } else if (o->step && o->step == n->list_volumes_step) {
        volumes_outcome(n, now, o);
    } else if (o->step && o->step == n->list_containers_step) {
        containers_outcome(n, now, o);
    } else {
        found = false;
    }
    for (struct node_dataset *d = n->datasets; d && !found; d = d->hh.next) {
        if (d->step == o->step) {
            dataset_outcome(n, now, d, o);
            found = true;
        }
    }
    for (struct node_container *c = n->containers; c && !found; c = c->hh.next) {
        if (c->step == o->step) {
            container_outcome(n, now, c, o);
            found = true;
        }
    }
    node_touch(n, now);
}
