#include "core/plan.h"

#include "base/mem.h"
#include "base/str.h"
#include "core/fault.h"

#include <stdio.h>

static struct decision act(const struct dataset_view *v, enum step_kind kind)
{
    struct decision d = {.act = true};

    d.step.kind = kind;
    if (!v->order)
        return d;
    d.step.dataset = v->order->dataset;
    d.step.epoch = v->order->epoch;
    d.step.transfer = v->order->transfer;
    d.step.maximum_size = v->order->maximum_size;
    return d;
}

static struct decision because(enum reason_code code, const char *text)
{
    return (struct decision){.reason = code, .text = text};
}

static struct decision nothing(void)
{
    return (struct decision){0};
}

static struct decision with_snapshot(struct decision d, const char *name)
{
    (void)snprintf(d.step.snapshot, sizeof(d.step.snapshot), "%s", name);
    return d;
}

static void round_name(char name[SNAPSHOT_NAME_SIZE], uint64_t transfer, unsigned round)
{
    (void)snprintf(name, SNAPSHOT_NAME_SIZE, "t%llu-%u", (unsigned long long)transfer, round);
}

static void final_name(char name[SNAPSHOT_NAME_SIZE], uint64_t transfer)
{
    (void)snprintf(name, SNAPSHOT_NAME_SIZE, "t%llu-final", (unsigned long long)transfer);
}

/* Which transfer and round a snapshot belongs to; the final one counts as the highest round. */
static bool parse_name(const char *name, uint64_t *ret_transfer, unsigned *ret_round)
{
    char *end;

    if (name[0] != 't' || name[1] < '0' || name[1] > '9')
        return false;
    unsigned long long transfer = strtoull(name + 1, &end, 10);
    if (*end != '-')
        return false;
    if (streq(end + 1, "final")) {
        *ret_round = UINT32_MAX;
    } else {
        char *last;
        unsigned long round = strtoul(end + 1, &last, 10);
        if (last == end + 1 || *last || round >= UINT32_MAX)
            return false;
        *ret_round = (unsigned)round;
    }
    *ret_transfer = transfer;
    return true;
}

uint64_t plan_newest_transfer(const struct volume_state *volume)
{
    uint64_t newest = 0, transfer;
    unsigned round;

    for (size_t i = 0; i < volume->n_snapshots; i++) {
        if (parse_name(volume->snapshots[i], &transfer, &round) && transfer > newest)
            newest = transfer;
    }
    return newest;
}

bool plan_is_final(const char *snapshot)
{
    uint64_t transfer;
    unsigned round;

    return parse_name(snapshot, &transfer, &round) && round == UINT32_MAX;
}

const char *plan_received(const struct volume_state *volume, uint64_t transfer)
{
    const char *newest = NULL;
    unsigned best = 0;

    for (size_t i = 0; i < volume->n_snapshots; i++) {
        uint64_t t;
        unsigned round;
        if (!parse_name(volume->snapshots[i], &t, &round) ||
            (t != transfer && !FAULT(STALE_TRANSFER)) || round < best)
            continue;
        best = round;
        newest = volume->snapshots[i];
    }
    return newest;
}

bool plan_dataset_is_usable(const struct order *order, const struct volume_state *volume)
{
    return order && (order->role == ROLE_OWNER || order->role == ROLE_SOURCE) && order->born &&
           volume->present && volume->mounted && volume->mark.state == MARK_OWNED &&
           volume->mark.epoch == order->epoch;
}

bool plan_is_not_here(const struct volume_state *volume, enum storage_kind storage)
{
    return storage == STORAGE_LOCAL ? volume_state_is_empty(volume)
                                    : !volume->attached && !volume->mounted && !volume->partial;
}

bool plan_is_gone(const struct order *order, const struct volume_state *volume,
                  enum storage_kind storage)
{
    if (volume->mark.state != MARK_NONE)
        return false;
    return plan_is_not_here(volume, storage) &&
           (storage == STORAGE_LOCAL || order->role == ROLE_DROP || !volume->present);
}

/* Attached here, though nothing here is to use it: an order to attach that a killed agent gave came through after all, or the machine was away
 * while the dataset was taken from it. It is in the way of whoever is to have it. */
static bool is_stray(const struct dataset_view *v)
{
    return v->storage == STORAGE_ATTACHABLE && v->volume->attached && !v->volume->mounted && !FAULT(KEEP_STRAY);
}

/* The same where nothing of the dataset should be: no order names it, or what it asked for is done. */
static struct decision plan_stray(const struct dataset_view *v)
{
    return is_stray(v) && v->live && v->volume->mark.state == MARK_NONE ? act(v, STEP_UNMOUNT) : nothing();
}

/* Stop what runs on it, then take the mount away. */
static struct decision take_away(const struct dataset_view *v, enum step_kind kind)
{
    if (v->in_use)
        return (struct decision){.stop_containers = true,
                                 .reason = REASON_STOPPING,
                                 .text = "the container that uses the dataset is being stopped"};
    return act(v, kind);
}

static void begin_copy(struct copy_progress *p, uint64_t transfer, const struct volume_state *volume)
{
    *p = (struct copy_progress){.transfer = transfer, .round = 1};
    for (size_t i = 0; i < volume->n_snapshots; i++) {
        uint64_t t;
        unsigned round;
        if (parse_name(volume->snapshots[i], &t, &round) && t == transfer && round != UINT32_MAX &&
            round >= p->round)
            p->round = round + 1; /* after a restart: begin with a fresh increment */
    }
}

static void wait_for_next(struct copy_progress *p, uint64_t mono_us)
{
    if (!p->wait_us)
        p->wait_us = COPY_AGAIN_US;
    else if (p->wait_us < COPY_AGAIN_MAX_US)
        p->wait_us *= 2;
    p->again_us = mono_us + p->wait_us;
}

/* The writer would have to stand still for about as long as the last increment took. */
static void say_too_fast(struct copy_progress *p, const struct copy_limits *limits)
{
    (void)snprintf(p->why, sizeof(p->why),
                   "the volume changes as fast as it is copied: after %u increments one still takes %llu ms, and "
                   "the pause of a move may be %llu ms",
                   p->in_a_row, (unsigned long long)(p->last_us / USEC_PER_MSEC),
                   (unsigned long long)(limits->pause_us / USEC_PER_MSEC));
}

void plan_copy_sent(struct copy_progress *p, const struct copy_limits *limits, uint64_t took_us,
                    uint64_t mono_us)
{
    bool small = took_us <= limits->small_us;
    bool stuck = p->last_us && took_us > p->last_us - p->last_us / 5; /* shrinks no more */

    p->last_us = took_us;
    p->round++;
    p->in_a_row++;
    if (p->copied == p->transfer) {
        wait_for_next(p, mono_us);
        return;
    }
    if (!small && !stuck && p->in_a_row < limits->rounds)
        return;
    p->too_fast = !small && took_us > limits->pause_us;
    if (!p->too_fast && limits->verify && !p->verified) {
        /* It may take long, and must not fall into the pause: increments follow until they are small again. */
        p->verify = true;
        p->in_a_row = 0;
        p->last_us = 0;
        return;
    }
    if (p->too_fast) {
        say_too_fast(p, limits);
    } else {
        p->copied = p->transfer;
        p->wait_us = 0;
    }
    p->in_a_row = 0;
    p->last_us = 0;
    wait_for_next(p, mono_us);
}

void plan_copy_verified(struct copy_progress *p)
{
    p->verify = false;
    p->verified = true;
}

void plan_copy_differs(struct copy_progress *p, const char *text)
{
    p->verify = false;
    p->mismatches++;
    (void)snprintf(p->why, sizeof(p->why), "the copy was not the same as the source, twice; cancel the move, or look at: %s",
                   text);
}

static struct decision plan_send(const struct dataset_view *v, const char *snapshot)
{
    if (!v->order->peer_host)
        return because(REASON_PEER_UNREACHABLE, "the address of the destination is not known");
    struct decision d = with_snapshot(act(v, STEP_SEND), snapshot);
    d.step.peer = v->order->peer;
    d.step.peer_host = v->order->peer_host; /* copied by the user of the decision */
    d.step.peer_port = v->order->peer_port;
    return d;
}

/* Compares the copy of the last round. */
static struct decision plan_verify(const struct dataset_view *v, const char *snapshot)
{
    struct decision d = plan_send(v, snapshot);

    if (d.act)
        d.step.kind = STEP_VERIFY;
    return d;
}

/* Compares the replica, as somebody asked. */
static struct decision plan_asked(const struct dataset_view *v)
{
    const struct order *o = v->order;

    if (!o->compare || o->compare == v->compared || !v->live || !volume_state_has_snapshot(v->volume, o->keep))
        return nothing();
    struct decision d = plan_verify(v, o->keep);
    d.step.asked = true;
    d.step.transfer = o->compare;
    return d;
}

static struct decision plan_final(const struct dataset_view *v)
{
    struct decision d = plan_send(v, v->volume->mark.snapshot);

    d.step.final = true;
    return d;
}

/* How many snapshots are here beside the one that a replica has in common with this node. */
static unsigned count_others(const struct volume_state *volume, const char *keep)
{
    unsigned n = volume->n_snapshots;

    return keep && volume_state_has_snapshot(volume, keep) ? n - 1 : n;
}

/* Deletes all snapshots but `keep`, and but `too`; both may be NULL. */
static struct decision prune(const struct dataset_view *v, const char *keep, const char *too)
{
    struct decision d = act(v, STEP_PRUNE);

    if (too)
        (void)snprintf(d.step.keep, sizeof(d.step.keep), "%s", too);
    return with_snapshot(d, keep ? keep : "");
}

/* Increments while the source writes. */
static struct decision plan_copy(const struct dataset_view *v)
{
    struct copy_progress *p = v->copy;
    char name[SNAPSHOT_NAME_SIZE];

    if (p->transfer != v->order->transfer)
        begin_copy(p, v->order->transfer, v->volume);
    if (v->storage == STORAGE_ATTACHABLE) {
        p->copied = p->transfer; /* nothing to copy */
        return nothing();
    }
    if (p->mismatches >= COPY_MISMATCHES_MAX)
        return because(REASON_TRANSFER_FAILED, p->why);
    if (p->verify) {
        round_name(name, p->transfer, p->round - 1);
        if (volume_state_has_snapshot(v->volume, name))
            return plan_verify(v, name);
        p->verify = false; /* gone: after the next round */
    }
    if ((p->copied == p->transfer || p->too_fast) && v->mono_us < p->again_us) {
        struct decision d = p->too_fast ? because(REASON_CHANGES_TOO_FAST, p->why) : nothing();
        d.wake_us = p->again_us;
        return d;
    }
    round_name(name, p->transfer, p->round);
    if (volume_state_has_snapshot(v->volume, name))
        return plan_send(v, name);
    /* The newest one that both sides have is enough as a base. */
    if (count_others(v->volume, v->order->keep) > 1) {
        const char *base = plan_received(v->volume, p->transfer);
        if (base)
            return prune(v, base, v->order->keep);
    }
    return with_snapshot(act(v, STEP_SNAPSHOT), name);
}

static struct decision plan_owned(const struct dataset_view *v)
{
    const struct order *o = v->order;

    if (!v->volume->present) {
        if (o->born && !FAULT(RECREATE_BORN))
            return because(REASON_DATA_MISSING, "the volume that this node owned is not there");
        return act(v, STEP_CREATE);
    }
    if (!o->born && !FAULT(MOUNT_UNBORN))
        return because(REASON_CREATING, NULL); /* made; waiting until the birth is recorded */
    if (!v->volume->mounted) {
        struct decision d = act(v, STEP_MOUNT);
        d.step.fenced = o->fenced; /* copied by the user of the decision */
        d.step.n_fenced = o->n_fenced;
        return d;
    }
    if (o->role == ROLE_SOURCE)
        return plan_copy(v); /* the destination makes its volume with the new size */
    if (count_others(v->volume, o->keep) || v->volume->partial)
        return prune(v, o->keep, NULL);
    if (!v->volume->size || v->volume->size >= o->maximum_size)
        return plan_asked(v);
    return act(v, STEP_GROW);
}

static struct decision plan_owner(const struct dataset_view *v)
{
    const struct order *o = v->order;
    const struct volume_mark *mark = &v->volume->mark;

    if (mark->state == MARK_OWNED && mark->epoch == o->epoch) {
        struct decision d = plan_owned(v);
        bool new_here = d.act && (d.step.kind == STEP_MOUNT || d.step.kind == STEP_CREATE);
        if (new_here && !v->live)
            return because(REASON_MOUNTING, "waiting for the control service to confirm");
        return d;
    }
    bool promoting = mark->state == MARK_PROMOTING && mark->epoch == o->epoch;
    if (mark->state != MARK_NONE && mark->epoch >= o->epoch && !promoting)
        return because(REASON_STORE_UNKNOWN, "this node has released the dataset at that epoch, or "
                                             "knows a later one");
    if (!v->live)
        return because(REASON_MOUNTING, "waiting for the control service to confirm");
    if (o->base) {
        if (v->volume->mounted)
            return take_away(v, STEP_UNMOUNT);
        if (!volume_state_has_snapshot(v->volume, o->base))
            return because(REASON_DATA_MISSING, "the snapshot to start from is not there");
        return with_snapshot(act(v, STEP_PROMOTE),
                             FAULT(PROMOTE_OTHER) ? v->volume->snapshots[0] : o->base);
    }
    if (v->volume->present)
        return act(v, STEP_CLAIM);
    if (o->born && !FAULT(RECREATE_BORN))
        return because(REASON_DATA_MISSING, "the dataset has data, but there is no volume here");
    struct decision d = act(v, STEP_CREATE);
    d.step.metadata = o->metadata; /* copied by the user of the decision */
    return d;
}

static struct decision plan_release(const struct dataset_view *v)
{
    const struct order *o = v->order;
    const struct volume_mark *mark = &v->volume->mark;
    char name[SNAPSHOT_NAME_SIZE];

    if (mark->state == MARK_RELEASED && mark->epoch == o->epoch && mark->transfer == o->transfer) {
        if (FAULT(REMOUNT_RELEASED) && !v->live)
            return act(v, STEP_CLAIM);
        if (v->storage == STORAGE_ATTACHABLE)
            return is_stray(v) ? act(v, STEP_UNMOUNT) : because(REASON_RELEASING, NULL);
        if (v->copy->final_sent != o->transfer || v->mono_us >= v->copy->again_us)
            return plan_final(v);
        struct decision d = because(REASON_RELEASING, NULL);
        d.wake_us = v->copy->again_us; /* if it is lost there before the commit, it is sent again */
        return d;
    }
    if (mark->state != MARK_OWNED || mark->epoch != o->epoch || !v->volume->present)
        return because(REASON_DATA_MISSING, "the volume to release is not there");
    if (v->storage == STORAGE_ATTACHABLE)
        return take_away(v, STEP_RELEASE); /* nothing is shipped */
    final_name(name, o->transfer);
    return with_snapshot(take_away(v, STEP_RELEASE), name);
}

/* Did something come here later than the order knows of? That must not be touched by it. */
static bool is_newer(const struct dataset_view *v)
{
    return v->volume->mark.epoch > v->order->number || plan_newest_transfer(v->volume) > v->order->number;
}

static struct decision plan_unmounted(const struct dataset_view *v)
{
    const struct volume_mark *mark = &v->volume->mark;

    /* A control service of before says no number to all that are to unmount. */
    bool newer = v->order->number && mark->state == MARK_OWNED && mark->epoch > v->order->number;

    if (!v->volume->mounted)
        return is_stray(v) && !newer ? act(v, STEP_UNMOUNT) : nothing();
    if (newer)
        return because(REASON_STORE_UNKNOWN, "this node has it mounted at a later epoch than the order knows of");
    return take_away(v, STEP_UNMOUNT);
}

static struct decision plan_remove(const struct dataset_view *v)
{
    const struct order *o = v->order;

    /* Once done, done: on shared storage a volume that appears later is that of a new dataset under the same id. */
    if (v->gone >= o->number || plan_is_gone(o, v->volume, v->storage))
        return plan_stray(v);
    if (!v->live)
        return because(REASON_DELETING, "waiting for the control service to confirm");
    if (is_newer(v))
        return because(REASON_STORE_UNKNOWN, "this node holds newer data than the order knows of");
    return take_away(v, o->role == ROLE_DROP ? STEP_DROP : STEP_DESTROY);
}

/* What was released stays only as the snapshot `keep`. It is nothing that can be mounted: for that it takes a transfer to this
 * node, as if there were no replica. */
static struct decision plan_replica(const struct dataset_view *v)
{
    const struct order *o = v->order;
    const struct volume_state *volume = v->volume;

    if (volume->mounted)
        return plan_unmounted(v);
    if (!volume_state_has_snapshot(volume, o->keep))
        return because(REASON_DATA_MISSING, "the snapshot that the replica is to be is not there");
    if (volume->mark.state != MARK_RELEASED || is_newer(v))
        return because(REASON_STORE_UNKNOWN, "this node holds other data than the order knows of");
    if (!volume->present && volume->n_snapshots == 1 && !volume->partial)
        return nothing();
    if (!v->live)
        return because(REASON_DELETING, "waiting for the control service to confirm");
    if (volume->present)
        return with_snapshot(take_away(v, STEP_DEMOTE), o->keep);
    return prune(v, o->keep, NULL);
}

uint64_t plan_expected(const struct order *o)
{
    if (!o)
        return 0;
    return o->role == ROLE_RECEIVE ? o->transfer : o->role == ROLE_REPLICA ? o->compare : 0;
}

struct decision plan_dataset(const struct dataset_view *v)
{
    const struct order *o = v->order;

    if (v->announced && v->announced != plan_expected(o)) {
        struct decision d = {.act = true};
        d.step.kind = STEP_FORBID;
        d.step.transfer = v->announced;
        return d; /* the dataset's id is filled in by the user */
    }
    if (!o && FAULT(DESTROY_UNKNOWN) && v->volume->present)
        return (struct decision){.act = true, .step.kind = STEP_DESTROY};
    if (!o)
        return plan_stray(v);
    switch (o->role) {
    case ROLE_OWNER:
    case ROLE_SOURCE:
        return plan_owner(v);
    case ROLE_RELEASE:
        return plan_release(v);
    case ROLE_RECEIVE:
    case ROLE_KEEP:
        return plan_unmounted(v);
    case ROLE_DROP:
    case ROLE_DESTROY:
        return plan_remove(v);
    case ROLE_REPLICA:
        return plan_replica(v);
    case ROLE_NONE:
    case ROLE_MAX:
    case ROLE_INVALID:
        break;
    }
    return nothing();
}

/* ---- containers ---- */

static struct decision container_act(const struct container_view *v, enum step_kind kind)
{
    struct decision d = {.act = true};

    d.step.kind = kind;
    if (v->order)
        d.step.container = v->order->config; /* copied by the user of the decision */
    d.step.pull = v->pull;
    return d;
}

static bool policy_restarts(const struct container_view *v)
{
    const struct container *c = v->order->config;

    if (v->revive || c->restart_policy == RESTART_ALWAYS)
        return true;
    if (c->restart_policy != RESTART_ON_FAILURE || v->state->exit_code == 0)
        return false;
    return !c->maximum_retry_count || v->restarts <= c->maximum_retry_count;
}

static struct decision plan_run(const struct container_view *v)
{
    const struct container *c = v->order->config;
    bool here = v->state != NULL;
    bool running = here && v->state->run == CONTAINER_RUNNING;

    if (here && (v->state->created != c->created || v->other_spec))
        return container_act(v, STEP_STOP); /* made from an earlier configuration of that name */
    if (running)
        return nothing();
    if (c->ended && !FAULT(FORGET_END))
        return because(REASON_CONTAINER_EXITED,
                       "it has ended well, and its restart policy does not start it again");
    if (here && v->state->run == CONTAINER_EXITED && !policy_restarts(v))
        return because(REASON_CONTAINER_EXITED,
                       "it exited and its restart policy does not start it again");
    if (!v->volumes_usable)
        return because(REASON_WAITING_FOR_DATASET, c->n_volumes == 1
                                                       ? "its dataset is not mounted here"
                                                       : "its datasets are not all mounted here");
    if (v->pull)
        return container_act(v, STEP_IMAGE);
    if (v->order->hold && !(here && v->state->run == CONTAINER_EXITED))
        return v->image_ready ? because(REASON_WAITING_FOR_DEPENDENCY, "what it depends on is not as it must be yet")
                              : container_act(v, STEP_IMAGE);
    return container_act(v, STEP_START);
}

struct decision plan_container(const struct container_view *v)
{
    bool here = v->state != NULL;

    if (!v->known)
        return because(REASON_ENGINE_UNAVAILABLE, "the container engine has not answered yet");
    if (!v->order)
        return here && (v->synced || v->must_stop) ? container_act(v, STEP_STOP) : nothing();
    if (v->must_stop)
        return here ? container_act(v, STEP_STOP)
                    : because(REASON_WAITING_FOR_DATASET,
                              "what it has mounted is leaving this node");
    if (v->order->action == CONTAINER_RUN)
        return plan_run(v);
    if (here)
        return container_act(v, STEP_STOP);
    if (!v->image_ready)
        return container_act(v, STEP_IMAGE);
    return nothing();
}
