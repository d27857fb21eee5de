/* The calls that ask the control service. Each is a small state machine of its own; what it waits for is in enum plugin_stage. */
#include "agent/plugin_internal.h"

#include "base/log.h"
#include "base/now.h"

#include <stdarg.h>
#include <stdio.h>

#define OPS_MAX 400u
/* Docker itself waits two minutes for Create and Mount, and one for the others. */
#define REMOVE_WAIT_US (45 * USEC_PER_SEC)
/* A control service that restarts is back sooner; for one that is away for longer nobody's `docker run` is held up. */
#define AWAY_US (20 * USEC_PER_SEC)
#define AGAIN_US (5 * USEC_PER_SEC) /* asks again though nothing was heard: a safety net */
#define SOON_US (100 * USEC_PER_MSEC) /* not more often than this, whatever changes */
#define SEE_US USEC_PER_SEC
#define DROP_AGAIN_US (5 * USEC_PER_SEC)

static void op_ask(struct plugin_op *op);
static void see(struct plugin_op *op);

/* ---- the end of a call ---- */

static void op_free(struct plugin_op *op)
{
    struct plugin *p = op->plugin;

    TAILQ_REMOVE(&p->ops, op, link);
    p->n_ops--;
    timer_cancel(&op->timer);
    if (op->number)
        agent_volumes_forget(p->volumes, op->number);
    plugin_request_done(&op->request);
    free(op->why);
    free(op);
}

/* A use that no call was ever answered well for, and none waits for, is over. */
static void release_use(struct plugin_op *op)
{
    struct plugin_use *use = steal(&op->use);

    if (!use)
        return;
    use->waiting--;
    if (!use->waiting && !use->held)
        plugin_use_drop(op->plugin, use);
}

/* `http` NULL: nobody waits for the answer any more. */
static void op_end(struct plugin_op *op, struct http_request *http, const char *error)
{
    struct plugin *p = op->plugin;
    struct str body = {0};

    if (!error && op->call == PLUGIN_MOUNT)
        plugin_render_mountpoint(&body, plugin_mountpoint(p, &op->use->volume->dataset));
    else
        plugin_render_error(&body, op->call, error);
    if (error)
        log_info("Docker's %s of volume %s failed: %s", plugin_call_name(op->call), op->request.name, error);
    release_use(op);
    op_free(op);
    if (http) {
        http_request_on_close(http, NULL, NULL);
        plugin_reply(http, 200, &body);
    }
    str_done(&body);
}

static void op_done(struct plugin_op *op)
{
    op_end(op, op->http, NULL);
}

static void op_fail(struct plugin_op *op, const char *fmt, ...) PRINTF_LIKE(2, 3);

static void op_fail(struct plugin_op *op, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    CLEANUP_FREE char *text = xvasprintf(fmt, ap);
    va_end(ap);
    op_end(op, op->http, text);
}

/* Docker gave up, or was killed: what it does not know it has, it will not give back. */
static void op_gone(void *cookie)
{
    struct plugin_op *op = cookie;
    struct http_request *http = op->http;

    op_end(op, NULL, "nobody waits for it any more");
    http_drop(http);
}

static void set_why(struct plugin_op *op, const char *why)
{
    char *copy = xstrdup_null(why);

    free(op->why);
    op->why = copy;
}

/* ---- time ---- */

static void op_timer_set(struct plugin_op *op, uint64_t next_us)
{
    uint64_t due_us = op->deadline_us < next_us ? op->deadline_us : next_us;

    if (op->away_us && op->away_us + AWAY_US < due_us)
        due_us = op->away_us + AWAY_US;
    timer_set(&op->timer, due_us);
}

static void fail_away(struct plugin_op *op, uint64_t now_us)
{
    const struct agent_config *c = plugin_settings(op->plugin);

    op_fail(op,
            "The control service at %s:%u has not answered for %llu seconds. Volumes that are mounted stay usable; look at it, or at the "
            "network, and try again.",
            c->control_host, c->control_port, (unsigned long long)((now_us - op->away_us + USEC_PER_SEC - 1) / USEC_PER_SEC));
}

static void fail_late(struct plugin_op *op)
{
    uint32_t waited_s = plugin_settings(op->plugin)->docker_wait_s;
    const struct volume_entry *v = agent_volumes_by_name(op->plugin->volumes, op->request.name);

    if (op->stage == STAGE_MOUNTING && v && v->reason.code != REASON_NONE)
        op_fail(op, "The volume is not mounted here after %u seconds: %s. %s", waited_s,
                v->reason.text ? v->reason.text : reason_code_name(v->reason.code), reason_advice(v->reason.code));
    else if (op->why)
        op_fail(op, "%s (Waited for %u seconds.)", op->why, waited_s);
    else
        op_fail(op, "Timed out waiting for dataset to mount. After %u seconds the control service has not said why.", waited_s);
}

static void op_timer(void *cookie)
{
    struct plugin_op *op = cookie;
    uint64_t now_us = now_os().mono_us;

    if (op->stage == STAGE_SEEING)
        see(op);
    else if (op->call == PLUGIN_UNMOUNT)
        op_done(op); /* the disk is slow; as in plugin_calls_save_failed() */
    else if (op->away_us && (now_us >= op->away_us + AWAY_US || now_us >= op->deadline_us))
        fail_away(op, now_us);
    else if (now_us >= op->deadline_us)
        fail_late(op);
    else if (op->stage == STAGE_WAITING || op->stage == STAGE_MOUNTING)
        op_ask(op);
    else
        op_timer_set(op, USEC_NEVER);
}

/* Asks again soon: never from inside a callback that may tell of thousands of changes. */
static void op_hurry(struct plugin_op *op)
{
    op_timer_set(op, op->asked_us + SOON_US);
}

static void op_wait(struct plugin_op *op, uint64_t for_us)
{
    op->stage = STAGE_WAITING;
    op_timer_set(op, now_os().mono_us + for_us);
}

static void op_save(struct plugin_op *op, uint64_t seq)
{
    op->stage = STAGE_SAVING;
    op->seq = seq;
    op_timer_set(op, USEC_NEVER);
}

/* ---- Mount ---- */

static void mount_done(struct plugin_op *op)
{
    op->use->held = true;
    op->use->volume->mounted_us = now_os().mono_us;
    op->use->volume->unused_us = 0;
    plugin_users_watch(op->plugin);
    op_done(op);
}

/* The control service is away, but another mount of this volume here has the lease already, and nothing has been heard against it: so
 * nobody else can have the data. A container that restarts need not wait. */
static bool grant_alone(struct plugin_op *op)
{
    struct plugin_volume *v = op->use->volume;

    if (uuid_is_nil(&v->dataset) || !uses_held(v) || !node_volume_mounted(op->plugin->config.node, &v->dataset, 0))
        return false;
    op->use->unconfirmed = true;
    mount_done(op);
    return true;
}

static void mount_look(struct plugin_op *op)
{
    if (node_volume_mounted(op->plugin->config.node, &op->use->volume->dataset, op->epoch)) {
        mount_done(op);
        return;
    }
    op->stage = STAGE_MOUNTING;
    op_timer_set(op, now_os().mono_us + AGAIN_US);
}

static void mount_granted(struct plugin_op *op, const struct volume_answer *a)
{
    struct plugin_volume *v = op->use->volume;

    op->epoch = a->epoch;
    op->use->unconfirmed = false;
    if (uuid_eq(&v->dataset, &a->dataset)) {
        mount_look(op);
        return;
    }
    v->dataset = a->dataset;
    op->asked_well = true;
    op_save(op, plugin_save(op->plugin));
}

static void mount_begin(struct plugin_op *op)
{
    struct plugin *p = op->plugin;
    const struct volume_entry *entry = agent_volumes_by_name(p->volumes, op->request.name);
    struct plugin_use *use = NULL;
    CLEANUP_ERR struct err *e = uses_get(&p->uses, op->request.name, op->request.id, &use);

    if (e) {
        op_fail(op, "%s.", e->text);
        return;
    }
    op->use = use;
    use->waiting++;
    if (uuid_is_nil(&use->volume->dataset) && entry)
        use->volume->dataset = entry->dataset; /* so that it need not be written twice; the answer decides */
    if (!use->seq || use->parked)
        use->seq = plugin_save(p);
    use->parked = false;
    if (use->seq > p->saved_seq)
        op_save(op, use->seq);
    else
        op_ask(op);
}

/* ---- Unmount, and uses that end otherwise ---- */

static void drop_free(struct plugin_drop *d)
{
    TAILQ_REMOVE(&d->plugin->drops, d, link);
    free(d->name);
    free(d->mount);
    free(d);
}

static void drop_answered(void *cookie, const struct volume_answer *a)
{
    struct plugin_drop *d = cookie;
    struct plugin *p = d->plugin;

    /* When the session ended, the next one begins with all uses that there are: this one is not among them. */
    if (a->code == VOLUME_FAILED) {
        log_warning("the control service did not take back a mount of volume %s; trying again: %s", d->name, a->text ? a->text : "");
        d->calling = false;
        timer_set(&p->drop_again, now_os().mono_us + DROP_AGAIN_US);
        return;
    }
    drop_free(d);
}

static void drop_send(struct plugin_drop *d)
{
    struct plugin *p = d->plugin;
    struct volume_call call = {.kind = VOLUME_UNUSE, .name = d->name, .dataset = d->dataset, .mount = d->mount};

    /* It may be in use again by now: then the lease is to keep it. */
    if (uses_find(&p->uses, d->name, d->mount) || !agent_volumes_is_up(p->volumes)) {
        drop_free(d);
        return;
    }
    d->calling = true;
    (void)agent_volumes_call(p->volumes, &call, drop_answered, d);
}

static void drops_send(struct plugin *p)
{
    struct plugin_drop *d, *next;

    for (d = TAILQ_FIRST(&p->drops); d; d = next) {
        next = TAILQ_NEXT(d, link);
        if (!d->calling && d->seq <= p->saved_seq)
            drop_send(d);
    }
}

void plugin_drops_retry(void *cookie)
{
    drops_send(cookie);
}

void plugin_use_drop(struct plugin *p, struct plugin_use *use)
{
    struct plugin_drop *d = xcalloc(1, sizeof(*d));

    d->plugin = p;
    d->name = xstrdup(use->volume->name);
    d->mount = xstrdup(use->mount);
    d->dataset = use->volume->dataset;
    uses_remove(&p->uses, use);
    d->seq = plugin_save(p);
    TAILQ_INSERT_TAIL(&p->drops, d, link);
}

/* While the control service is away the lease keeps the last mount that it had: one that comes before it is back needs that lease. */
static bool is_worth_parking(const struct plugin *p, const struct plugin_use *use)
{
    const struct plugin_use *other;

    if (agent_volumes_is_up(p->volumes) || !use->held)
        return false;
    LIST_FOREACH (other, &use->volume->uses, link) {
        if (other != use && other->held)
            return false;
    }
    return true;
}

static void unmount_begin(struct plugin_op *op)
{
    struct plugin *p = op->plugin;
    struct plugin_use *use = uses_find(&p->uses, op->request.name, op->request.id);
    struct plugin_op *other, *next;

    for (other = use ? TAILQ_FIRST(&p->ops) : NULL; other; other = next) {
        next = TAILQ_NEXT(other, link);
        if (other->use != use)
            continue;
        use->waiting++; /* it is ended here, not by the last of its calls */
        op_fail(other, "The volume was unmounted meanwhile.");
        use->waiting--;
    }
    if (!use || use->parked) {
        op_done(op);
        return;
    }
    if (is_worth_parking(p, use)) {
        use->parked = true;
        op_save(op, plugin_save(p));
        return;
    }
    plugin_use_drop(p, use);
    op_save(op, p->seq);
}

/* ---- Create and Remove ---- */

static bool is_seen(const struct plugin_op *op)
{
    bool there = agent_volumes_by_name(op->plugin->volumes, op->request.name) != NULL;

    return there == (op->call == PLUGIN_CREATE);
}

/* Docker looks next: it must find what it was told. */
static void see(struct plugin_op *op)
{
    uint64_t now_us = now_os().mono_us;

    if (op->stage != STAGE_SEEING)
        op->asked_us = now_us;
    op->stage = STAGE_SEEING;
    if (is_seen(op) || now_us >= op->asked_us + SEE_US)
        op_done(op);
    else
        timer_set(&op->timer, op->asked_us + SEE_US);
}

static void remove_begin(struct plugin_op *op)
{
    if (plugin_settings(op->plugin)->docker_keep && !plugin_name_is_anonymous(op->request.name))
        op_done(op);
    else
        op_ask(op);
}

/* ---- asking ---- */

/* Without a session: what can be said without, else waits for one. */
static void op_alone(struct plugin_op *op)
{
    uint64_t now_us = now_os().mono_us;

    if (op->call == PLUGIN_MOUNT && grant_alone(op))
        return;
    if (op->call == PLUGIN_CREATE && agent_volumes_by_name(op->plugin->volumes, op->request.name)) {
        op_done(op); /* it is there, as far as anybody here knows; if not, its Mount will tell */
        return;
    }
    if (!op->away_us)
        op->away_us = now_us;
    op->stage = STAGE_WAITING;
    op_timer_set(op, USEC_NEVER);
    agent_volumes_hurry(op->plugin->volumes, op->deadline_us);
}

static void op_answered(void *cookie, const struct volume_answer *a)
{
    struct plugin_op *op = cookie;

    op->number = 0;
    if (a->code != VOLUME_AWAY)
        op->away_us = 0;
    switch (a->code) {
    case VOLUME_OK:
    case VOLUME_CREATED:
        if (op->call == PLUGIN_MOUNT)
            mount_granted(op, a);
        else
            see(op);
        return;
    case VOLUME_NOT_FOUND:
        if (op->call == PLUGIN_REMOVE)
            see(op);
        else
            op_fail(op, "Could not find volume with given name. There is no volume '%s'.", op->request.name);
        return;
    case VOLUME_INVALID:
        op_fail(op, "%s", a->text ? a->text : "The control service refuses it.");
        return;
    case VOLUME_HELD:
        set_why(op, a->text);
        if (op->call == PLUGIN_REMOVE)
            op_fail(op, "%s", a->text ? a->text : "The volume is in use.");
        else
            op_wait(op, AGAIN_US);
        return;
    case VOLUME_AWAY:
        if (agent_volumes_is_up(op->plugin->volumes))
            op_wait(op, SOON_US);
        else
            op_alone(op);
        return;
    case VOLUME_FAILED:
    case VOLUME_RELEASING:
    default:
        set_why(op, a->text);
        op_wait(op, a->code == VOLUME_FAILED ? USEC_PER_SEC : AGAIN_US);
        return;
    }
}

static void op_ask(struct plugin_op *op)
{
    static const enum volume_call_kind kinds[PLUGIN_CALL_MAX] = {
        [PLUGIN_CREATE] = VOLUME_CREATE, [PLUGIN_REMOVE] = VOLUME_REMOVE, [PLUGIN_MOUNT] = VOLUME_USE};
    struct volume_call call = {.kind = kinds[op->call],
                               .name = op->request.name,
                               .mount = op->request.id,
                               .maximum_size = op->request.maximum_size,
                               .metadata = op->request.metadata};

    if (!agent_volumes_is_up(op->plugin->volumes)) {
        op_alone(op);
        return;
    }
    op->asked_us = now_os().mono_us;
    op->stage = STAGE_CALLING;
    op->number = agent_volumes_call(op->plugin->volumes, &call, op_answered, op);
    op_timer_set(op, USEC_NEVER);
}

void plugin_op_begin(struct plugin *p, struct http_request *http, enum plugin_call call, struct plugin_request *request)
{
    uint64_t wait_us = plugin_settings(p)->docker_wait_s * (uint64_t)USEC_PER_SEC;

    if (p->n_ops >= OPS_MAX) {
        plugin_reply_error(http, call, "Too many calls about volumes wait on this node already; try again later.");
        return;
    }
    if (call != PLUGIN_MOUNT && wait_us > REMOVE_WAIT_US)
        wait_us = REMOVE_WAIT_US;
    struct plugin_op *op = xcalloc(1, sizeof(*op));
    op->plugin = p;
    op->http = http;
    op->call = call;
    op->request = *request;
    *request = (struct plugin_request){0};
    op->deadline_us = now_os().mono_us + wait_us;
    timer_init(&op->timer, p->config.loop, op_timer, op);
    TAILQ_INSERT_TAIL(&p->ops, op, link);
    p->n_ops++;
    http_request_on_close(http, op_gone, op);
    if (call == PLUGIN_MOUNT)
        mount_begin(op);
    else if (call == PLUGIN_UNMOUNT)
        unmount_begin(op);
    else if (call == PLUGIN_REMOVE)
        remove_begin(op);
    else
        op_ask(op);
}

/* ---- events ---- */

static void op_saved(struct plugin_op *op)
{
    if (op->call == PLUGIN_UNMOUNT)
        op_done(op);
    else if (op->asked_well)
        mount_look(op);
    else
        op_ask(op);
}

void plugin_calls_saved(struct plugin *p)
{
    struct plugin_op *op, *next;

    for (op = TAILQ_FIRST(&p->ops); op; op = next) {
        next = TAILQ_NEXT(op, link);
        if (op->stage == STAGE_SAVING && op->seq <= p->saved_seq)
            op_saved(op);
    }
    drops_send(p);
}

/* A use that is not on disk is none. One that ends is over for Docker in any case: nothing of it is lost if this process goes on, and
 * else nobody is seen that uses the volume, and it goes later. */
void plugin_calls_save_failed(struct plugin *p, const struct err *e)
{
    struct plugin_op *op, *next;

    for (op = TAILQ_FIRST(&p->ops); op; op = next) {
        next = TAILQ_NEXT(op, link);
        if (op->stage != STAGE_SAVING)
            continue;
        if (op->call == PLUGIN_UNMOUNT)
            op_done(op);
        else
            op_fail(op, "The mount cannot be written down on this node, so it is not made: %s.", e->text);
    }
}

struct confirm {
    struct plugin *plugin;
    char *name, *mount;
};

static void confirmed(void *cookie, const struct volume_answer *a)
{
    struct confirm *c = cookie;
    struct plugin_use *use = uses_find(&c->plugin->uses, c->name, c->mount);

    if (use && (a->code == VOLUME_OK || a->code == VOLUME_AWAY))
        use->unconfirmed = a->code == VOLUME_AWAY;
    else if (use)
        log_error("the volume %s is used by a container here that started while the control service was away, and its lease was taken "
                  "away meanwhile: %s",
                  c->name, a->text ? a->text : volume_code_name(a->code));
    free(c->name);
    free(c->mount);
    free(c);
}

static void confirm(struct plugin *p, struct plugin_use *use)
{
    struct confirm *c = xcalloc(1, sizeof(*c));
    struct volume_call call = {
        .kind = VOLUME_USE, .name = use->volume->name, .dataset = use->volume->dataset, .mount = use->mount};

    *c = (struct confirm){p, xstrdup(use->volume->name), xstrdup(use->mount)};
    (void)agent_volumes_call(p->volumes, &call, confirmed, c);
}

/* The session began with all uses, parked ones too: now those end. */
static void uses_settle(struct plugin *p)
{
    struct plugin_volume *v, *next_volume;
    struct plugin_use *use, *next;

    for (v = p->uses.by_name; v; v = next_volume) {
        next_volume = v->hh.next;
        for (use = LIST_FIRST(&v->uses); use; use = next) {
            next = LIST_NEXT(use, link); /* before: with the last use the volume goes */
            if (use->parked)
                plugin_use_drop(p, use);
            else if (use->unconfirmed && !use->waiting)
                confirm(p, use);
        }
    }
}

void plugin_calls_session(struct plugin *p, bool up)
{
    struct plugin_op *op;

    TAILQ_FOREACH (op, &p->ops, link) {
        if (up)
            op->away_us = 0;
        if (op->stage == STAGE_WAITING || (up && op->stage == STAGE_MOUNTING))
            timer_set(&op->timer, 0);
    }
    if (up)
        uses_settle(p);
}

void plugin_calls_changed(struct plugin *p, const struct uuid *dataset, const char *name)
{
    struct plugin_op *op;

    TAILQ_FOREACH (op, &p->ops, link) {
        bool same = (name && streq(op->request.name, name)) || (op->use && uuid_eq(&op->use->volume->dataset, dataset));

        if (op->stage == STAGE_WAITING && same)
            op_hurry(op);
        if (op->stage == STAGE_SEEING)
            timer_set(&op->timer, 0);
    }
}

void plugin_calls_dataset_changed(struct plugin *p, const struct uuid *dataset)
{
    struct plugin_op *op, *next;

    for (op = TAILQ_FIRST(&p->ops); op; op = next) {
        next = TAILQ_NEXT(op, link);
        if (op->stage == STAGE_MOUNTING && uuid_eq(&op->use->volume->dataset, dataset))
            mount_look(op);
    }
}

void plugin_calls_done(struct plugin *p)
{
    while (!TAILQ_EMPTY(&p->ops))
        op_fail(TAILQ_FIRST(&p->ops), "The agent of this node is stopping; try again.");
    while (!TAILQ_EMPTY(&p->drops))
        drop_free(TAILQ_FIRST(&p->drops));
}
