#include "fake_cluster.h"

#include "base/str.h"

#include <stdio.h>

const struct uuid D = {.b[15] = 77};

struct uuid id(unsigned char n)
{
    struct uuid u = {{0}};

    u.b[15] = n;
    return u;
}

void tell(struct fake *f, unsigned char n)
{
    struct report r = f->reports[n];

    r.volume.dataset = D;
    engine_report(f->e, f->now, f->sessions[n], &r);
}

static void keep(struct fake *f, unsigned char n, const char *snapshot)
{
    struct volume_state *v = &f->reports[n].volume;

    if (f->hellos[n].replicas == REPLICAS_NONE)
        return;
    v->n_snapshots = snapshot ? 1 : 0;
    v->snapshots = f->kept[n];
    (void)snprintf(f->kept[n][0], SNAPSHOT_NAME_SIZE, "%s", snapshot ? snapshot : "");
}

static void obey(struct fake *f, unsigned char n, const struct order *o)
{
    struct report *r = &f->reports[n];

    f->orders++;
    if (!uuid_eq(&o->dataset, &D))
        return;
    f->role[n] = o->role;
    f->number[n] = o->number;
    f->fenced[n] = o->n_fenced;
    f->compare[n] = o->compare;
    f->compare_with[n] = o->peer;
    if (f->deaf[n])
        return;
    bool promoted = o->base && volume_state_has_snapshot(&r->volume, o->base);
    bool missing = o->born && !r->volume.present && !r->received && !promoted; /* never created again */
    if ((o->role == ROLE_OWNER || o->role == ROLE_SOURCE) && !missing) {
        r->volume.present = r->volume.attached = true;
        r->volume.mark = (struct volume_mark){.state = MARK_OWNED, .epoch = o->epoch};
        r->volume.mounted = o->born;
        r->copied = o->role == ROLE_SOURCE ? o->transfer : 0;
        keep(f, n, o->keep);
    } else if (o->role == ROLE_RELEASE) {
        r->volume.mounted = false;
        r->volume.mark = (struct volume_mark){MARK_RELEASED, o->epoch, o->transfer, "final"};
        keep(f, n, "final");
        for (unsigned char k = 1; k <= NODES; k++) {
            if (!uuid_eq(&o->peer, &(struct uuid){.b[15] = k}) || f->deaf[k])
                continue;
            f->reports[k].received = o->transfer;
            f->reports[k].received_snapshot = (char *)"final";
            tell(f, k);
        }
    } else if (o->role == ROLE_KEEP || o->role == ROLE_RECEIVE) {
        r->volume.mounted = false;
    } else if (o->role == ROLE_REPLICA) {
        r->volume.present = r->volume.attached = false;
        keep(f, n, o->keep);
    } else if (o->role == ROLE_DROP || o->role == ROLE_DESTROY) {
        *r = (struct report){.gone = o->number};
    }
    tell(f, n);
}

static void obey_container(struct fake *f, unsigned char n, const struct container_order *o, uint64_t session)
{
    struct container_report r = {.name = o->config->name,
                                 .run = CONTAINER_ABSENT,
                                 .image_ready = !f->image_problem[n],
                                 .created = o->config->created};

    if (f->deaf[n])
        return;
    if (f->image_problem[n]) {
        r.reason = (struct reason){.code = REASON_IMAGE_MISSING, .text = (char *)f->image_problem[n]};
    } else if (o->hold) {
        r.reason = (struct reason){.code = REASON_WAITING_FOR_DEPENDENCY};
    } else if (o->action == CONTAINER_RUN) {
        r.run = CONTAINER_RUNNING;
        f->started++;
    }
    engine_container_report(f->e, f->now, session, &r);
}

static void commit(struct fake *f, const struct batch *batch)
{
    if (f->fails) {
        engine_commit_failed(f->e, f->now, batch->id, f->fails);
        return;
    }
    for (size_t i = 0; i < batch->n; i++) {
        const struct change *c = &batch->changes[i];
        if (c->kind == OBJECT_STORE)
            f->unsettled = false;
        if (c->kind == OBJECT_FENCE) {
            fence_free(f->fence);
            f->fence = c->fence ? fence_copy(c->fence) : NULL;
        }
        if (c->kind != OBJECT_DATASET || !streq(c->key, UUID_STR(&D)))
            continue;
        dataset_free(f->stored);
        f->stored = c->dataset ? dataset_copy(c->dataset) : NULL;
    }
    if (batch->n)
        f->revision = batch->changes[batch->n - 1].revision;
    engine_committed(f->e, f->now, batch->id);
}

void settle(struct fake *f)
{
    engine_flush(f->e, f->now);
    for (struct effect *x; (x = engine_next(f->e)); effect_free(x)) {
        unsigned char n = (unsigned char)(x->session % 10);
        if (x->kind == EFFECT_COMMIT) {
            commit(f, x->batch);
        } else if (x->kind == EFFECT_REPLY) {
            f->last = x->result.code;
            free(f->text);
            f->text = xstrdup_null(x->result.text);
        } else if (x->kind == EFFECT_ORDER) {
            obey(f, n, &x->order);
        } else if (x->kind == EFFECT_CONTAINER_ORDER) {
            obey_container(f, n, &x->container_order, x->session);
        } else if (x->kind == EFFECT_CONTAINER_NONE && !f->deaf[n]) {
            engine_container_gone(f->e, f->now, x->session, x->name);
        } else if (x->kind == EFFECT_REFUSE) {
            f->refused++;
        }
        engine_flush(f->e, f->now);
    }
}

void come(struct fake *f, unsigned char n, struct uuid store, struct uuid generation, uint64_t seen)
{
    struct hello h = f->hellos[n];

    h.protocol = AGENT_PROTOCOL_VERSION;
    h.node = id(n);
    if (uuid_is_nil(&h.era))
        h.era = id((unsigned char)(60 + n));
    h.store = store;
    h.generation = generation;
    h.seen_revision = seen;
    f->sessions[n] += f->sessions[n] ? 10 : 10 + n;
    engine_session_open(f->e, f->now, f->sessions[n], &h);
    if (f->mount[n] && *f->mount[n])
        engine_volume_use(f->e, f->now, f->sessions[n], &(struct volume_use){.dataset = D, .mount = (char *)f->mount[n]});
    if (f->mount[n])
        engine_volume_uses_complete(f->e, f->now, f->sessions[n]);
    if (!f->silent[n] && (f->reports[n].volume.present || f->reports[n].volume.n_snapshots))
        tell(f, n);
    engine_reports_complete(f->e, f->now, f->sessions[n], f->silent[n] ? REPORTS_STORAGE_UNKNOWN : 0);
}

void come_back(struct fake *f, unsigned char n)
{
    come(f, n, id(99), f->life.id, f->revision);
    settle(f);
}

void leave(struct fake *f, unsigned char n)
{
    engine_session_closed(f->e, f->now, f->sessions[n]);
    settle(f);
}

void begin(struct fake *f, unsigned char life, uint64_t revision)
{
    f->life = (struct generation){id(life), revision};
    f->e = engine_new(&(struct history){id(99), &f->life, 1, f->restored, f->unsettled}, revision, random_seeded(&f->seed));
    f->revision = revision;
}

int fake_setup(void **state)
{
    struct fake *f = xcalloc(1, sizeof(*f));

    f->now = (struct now){10 * USEC_PER_SEC, 1000000 * (uint64_t)USEC_PER_SEC};
    begin(f, 98, 0);
    for (unsigned char n = 1; n <= NODES; n++)
        come(f, n, UUID_NIL, UUID_NIL, 0);
    *state = f;
    settle(f);
    return 0;
}

int fake_teardown(void **state)
{
    struct fake *f = *state;

    engine_free(f->e);
    dataset_free(f->stored);
    fence_free(f->fence);
    free(f->text);
    free(f);
    return 0;
}

enum result_code run(struct fake *f, struct command c)
{
    f->last = RESULT_MAX;
    c.id = 5;
    engine_command(f->e, f->now, &c);
    settle(f);
    return f->last;
}

struct dataset *wanted(unsigned char dataset, unsigned char node)
{
    struct dataset *d = dataset_new(id(dataset));

    d->primary = id(node);
    return d;
}

enum result_code create(struct fake *f, unsigned char node)
{
    return run(f, (struct command){.kind = COMMAND_DATASET_CREATE, .dataset = wanted(77, node)});
}

enum result_code move(struct fake *f, unsigned char node)
{
    return run(f, (struct command){.kind = COMMAND_DATASET_UPDATE, .dataset_id = D, .node = id(node)});
}

enum result_code remove_dataset(struct fake *f, bool purge)
{
    return run(f, (struct command){.kind = COMMAND_DATASET_DELETE, .dataset_id = D, .purge = purge});
}

enum result_code lease(struct fake *f, unsigned char node)
{
    return run(f, (struct command){.kind = COMMAND_LEASE_ACQUIRE, .dataset_id = D, .node = id(node)});
}

enum result_code unlease(struct fake *f)
{
    return run(f, (struct command){.kind = COMMAND_LEASE_RELEASE, .dataset_id = D});
}

struct container *with_volume(unsigned char node, const char *name)
{
    struct container *k = container_new(name);

    k->node = id(node);
    k->image = xstrdup("img:1");
    container_add_volume(k, &D, "/data", false);
    return k;
}

enum result_code create_container(struct fake *f, struct container *c)
{
    return run(f, (struct command){.kind = COMMAND_CONTAINER_CREATE, .container = c});
}

enum result_code move_container(struct fake *f, const char *name, unsigned char node)
{
    return run(f, (struct command){.kind = COMMAND_CONTAINER_MOVE, .name = name, .node = id(node)});
}

struct composition composition(unsigned char dataset, unsigned char node, bool container)
{
    struct dataset *d = dataset ? wanted(dataset, node) : NULL;
    struct container *k = container ? with_volume(node, "c") : NULL;
    struct composition c = {0};

    if (d) {
        c.datasets = xmemdup(&d, sizeof(struct dataset *));
        c.n_datasets = 1;
    }
    if (k) {
        c.containers = xmemdup(&k, sizeof(struct container *));
        c.n_containers = 1;
    }
    return c;
}

enum result_code compose_all(struct fake *f, unsigned char dataset, unsigned char node, bool container)
{
    struct composition c = composition(dataset, node, container);

    return run(f, (struct command){.kind = COMMAND_COMPOSE, .composition = &c});
}

enum reason_code reason(struct fake *f)
{
    struct uuid d = D;
    struct reason r;

    engine_dataset_reason(f->e, f->now, &d, &r);
    enum reason_code code = r.code;
    reason_done(&r);
    return code;
}

enum reason_code container_reason(struct fake *f, const char *name)
{
    struct reason r;

    engine_container_reason(f->e, f->now, name, &r);
    enum reason_code code = r.code;
    reason_done(&r);
    return code;
}

const struct dataset *listed(struct fake *f)
{
    struct uuid d = D;

    return engine_dataset(f->e, &d);
}
