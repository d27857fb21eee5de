/* Datasets that are forgotten, dropped and configured again, and records that follow the data. The nodes here obey at
 * once, and keep what they have when nobody is there to tell them anything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"
#include "core/engine.h"

#include <stdio.h>

#define NODES 3 /* id(1) .. id(3) */

struct fake {
    struct engine *e;
    struct generation life;
    bool away[NODES + 1];
    struct report reports[NODES + 1]; /* about dataset D */
    enum role role[NODES + 1];
    enum result_code last;
    char *text;
    uint64_t revision;
    struct dataset *stored; /* dataset D, as committed */
    size_t containers;      /* started */
};

static struct now now = {10 * USEC_PER_SEC, 1000000 * (uint64_t)USEC_PER_SEC};

static struct uuid id(unsigned char n)
{
    struct uuid u = {{0}};

    u.b[15] = n;
    return u;
}

static const struct uuid D = {.b[15] = 77};

static unsigned char node_of(uint64_t session)
{
    return (unsigned char)(session % 10);
}

static void tell(struct fake *f, unsigned char n)
{
    struct report r = f->reports[n];

    r.dataset = D;
    engine_report(f->e, now, 10 + n, &r);
}

static void obey(struct fake *f, unsigned char n, const struct order *o)
{
    struct report *r = &f->reports[n];

    f->role[n] = o->role;
    if (!uuid_eq(&o->dataset, &D))
        return;
    bool missing = o->born && !r->volume.present && !r->received; /* never created again */
    if ((o->role == ROLE_OWNER || o->role == ROLE_SOURCE) && !missing) {
        r->volume.present = r->volume.attached = true;
        r->volume.mark = (struct volume_mark){.state = MARK_OWNED, .epoch = o->epoch};
        r->volume.mounted = o->born;
        r->copied = o->role == ROLE_SOURCE ? o->transfer : 0;
    } else if (o->role == ROLE_RELEASE) {
        r->volume.mounted = false;
        r->volume.mark = (struct volume_mark){MARK_RELEASED, o->epoch, o->transfer, "final"};
        for (unsigned char k = 1; k <= NODES; k++) {
            if (!uuid_eq(&o->peer, &(struct uuid){.b[15] = k}))
                continue;
            f->reports[k].received = o->transfer;
            memcpy(f->reports[k].received_snapshot, "final", 6);
            tell(f, k);
        }
    } else if (o->role == ROLE_KEEP || o->role == ROLE_RECEIVE) {
        r->volume.mounted = false;
    } else if (o->role == ROLE_DROP || o->role == ROLE_DESTROY) {
        *r = (struct report){.gone = o->number};
    }
    tell(f, n);
}

/* Carries out everything that comes out, until nothing does. */
static void settle(struct fake *f)
{
    engine_flush(f->e, now);
    for (struct effect *x; (x = engine_next(f->e)); effect_free(x)) {
        if (x->kind == EFFECT_COMMIT) {
            for (size_t i = 0; i < x->batch->n; i++) {
                const struct change *c = &x->batch->changes[i];
                if (c->kind != OBJECT_DATASET || !streq(c->key, UUID_STR(&D)))
                    continue;
                dataset_free(f->stored);
                f->stored = c->dataset ? dataset_copy(c->dataset) : NULL;
            }
            if (x->batch->n)
                f->revision = x->batch->changes[x->batch->n - 1].revision;
            engine_committed(f->e, now, x->batch->id);
        } else if (x->kind == EFFECT_REPLY) {
            f->last = x->result.code;
            free(f->text);
            f->text = xstrdup_null(x->result.text);
        } else if (x->kind == EFFECT_ORDER) {
            obey(f, node_of(x->session), &x->order);
        } else if (x->kind == EFFECT_CONTAINER_ORDER) {
            struct container_report r = {.name = x->container_order.config->name,
                                         .run = CONTAINER_ABSENT,
                                         .image_ready = true,
                                         .created = x->container_order.config->created};
            if (x->container_order.action == CONTAINER_RUN) {
                r.run = CONTAINER_RUNNING;
                f->containers++;
            }
            engine_container_report(f->e, now, x->session, &r);
        }
        engine_flush(f->e, now);
    }
}

static void come(struct fake *f, unsigned char n, struct uuid store, struct uuid generation,
                 uint64_t seen)
{
    struct hello h = {.protocol = AGENT_PROTOCOL_VERSION,
                      .node = id(n),
                      .era = id((unsigned char)(60 + n)),
                      .store = store,
                      .generation = generation,
                      .seen_revision = seen};

    engine_session_open(f->e, now, 10 + n, &h);
    if (f->reports[n].volume.present)
        tell(f, n);
    engine_reports_complete(f->e, now, 10 + n);
}

static void begin(struct fake *f, unsigned char life, uint64_t revision)
{
    f->life = (struct generation){id(life), revision};
    f->e =
        engine_new(&(struct history){id(99), &f->life, 1}, revision, random_seeded(&(uint64_t){1}));
    f->revision = revision;
}

static int setup(void **state)
{
    struct fake *f = xcalloc(1, sizeof(*f));

    begin(f, 98, 0);
    for (unsigned char n = 1; n <= NODES; n++)
        come(f, n, UUID_NIL, UUID_NIL, 0);
    *state = f;
    settle(f);
    return 0;
}

static int teardown(void **state)
{
    struct fake *f = *state;

    engine_free(f->e);
    dataset_free(f->stored);
    free(f->text);
    free(f);
    return 0;
}

static enum result_code run(struct fake *f, struct command c)
{
    f->last = RESULT_MAX;
    c.id = 5;
    engine_command(f->e, now, &c);
    settle(f);
    return f->last;
}

static struct dataset *wanted(unsigned char dataset, unsigned char node)
{
    struct dataset *d = dataset_new(id(dataset));

    d->primary = id(node);
    return d;
}

static enum result_code create(struct fake *f, unsigned char node)
{
    return run(f, (struct command){.kind = COMMAND_DATASET_CREATE, .dataset = wanted(77, node)});
}

static enum result_code delete (struct fake *f, bool purge) {
    return run(f,
               (struct command){.kind = COMMAND_DATASET_DELETE, .dataset_id = D, .purge = purge});
}

/* One dataset, or none (0), on that node; with a container on it. */
static enum result_code compose(struct fake *f, unsigned char dataset, unsigned char node,
                                bool container)
{
    struct dataset *d = dataset ? wanted(dataset, node) : NULL;
    struct container *k = container ? container_new("c") : NULL;
    struct composition c = {0};

    if (d) {
        c.datasets = xmemdup(&d, sizeof(struct dataset *));
        c.n_datasets = 1;
    }
    if (k) {
        k->node = id(node);
        k->image = xstrdup("img:1");
        k->has_volume = true;
        k->dataset = D;
        k->mountpoint = xstrdup("/data");
        c.containers = xmemdup(&k, sizeof(struct container *));
        c.n_containers = 1;
    }
    return run(f, (struct command){.kind = COMMAND_COMPOSE, .composition = &c});
}

static enum reason_code reason(struct fake *f)
{
    struct uuid d = D;
    struct reason r;

    engine_dataset_reason(f->e, now, &d, &r);
    enum reason_code code = r.code;
    reason_done(&r);
    return code;
}

static const struct dataset *listed(struct fake *f)
{
    struct uuid d = D;

    return engine_dataset(f->e, &d);
}

static void test_purge(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_true(f->reports[1].volume.mounted);
    uint64_t epoch = f->stored->epoch;
    assert_int_equal(delete (f, true), RESULT_OK);
    assert_null(f->stored); /* nothing of it was left, so the record went as well */
    assert_null(listed(f));
    assert_int_equal(delete (f, true), RESULT_DATASET_NOT_FOUND);
    assert_int_equal(create(f, 2), RESULT_CREATED); /* the id can be used again, at a later epoch */
    assert_true(f->stored->epoch > epoch);
    assert_true(f->reports[2].volume.mounted);
}

static void test_purge_later(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(delete (f, false), RESULT_OK);
    assert_true(listed(f)->deleted);
    CLEANUP_FREE char *before = engine_tag(f->e);
    assert_int_equal(delete (f, true), RESULT_OK);
    CLEANUP_FREE char *after = engine_tag(f->e);
    assert_string_not_equal(before, after);
    assert_null(listed(f));
}

static void test_purge_waits_for_holders(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    engine_session_closed(f->e, now, 11);
    assert_int_equal(delete (f, true), RESULT_OK);
    assert_true(listed(f)->deleted);
    assert_int_equal(reason(f), REASON_WAITING_FOR_HOLDERS);
    assert_int_equal(create(f, 2), RESULT_DATASET_EXISTS);
    come(f, 1, id(99), id(98), f->revision);
    settle(f);
    assert_null(listed(f));
    assert_false(f->reports[1].volume.present);
}

static void test_drop_and_back(void **state)
{
    struct fake *f = *state;
    struct uuid d = D;
    struct command lease = {.kind = COMMAND_LEASE_ACQUIRE, .dataset_id = d, .node = id(1)};

    assert_int_equal(compose(f, 77, 1, true), RESULT_OK);
    assert_int_equal(f->containers, 1);
    assert_true(f->reports[1].volume.mounted);
    assert_int_equal(compose(f, 77, 1, true), RESULT_OK); /* the same again changes nothing */
    assert_int_equal(f->containers, 1);
    assert_int_equal(run(f, lease), RESULT_CREATED);
    assert_int_equal(compose(f, 0, 0, false), RESULT_OK);
    assert_null(listed(f));
    assert_null(engine_container(f->e, "c"));
    assert_false(f->reports[1].volume.mounted);
    assert_true(f->reports[1].volume.present);
    assert_int_equal(f->role[1], ROLE_KEEP);
    assert_int_equal(run(f, lease), RESULT_LEASE_RELEASING);
    assert_int_equal(delete (f, false), RESULT_DATASET_NOT_FOUND);

    uint64_t epoch = f->stored->epoch;
    assert_int_equal(create(f, 2),
                     RESULT_CREATED); /* its data come back, and move to where they are wanted */
    assert_true(f->stored->epoch > epoch);
    assert_true(f->stored->born);
    assert_true(f->reports[2].volume.mounted);
    assert_int_equal(reason(f), REASON_NONE);
}

static void test_drop_of_what_was_never_there(void **state)
{
    struct fake *f = *state;

    engine_session_closed(f->e, now, 11);
    settle(f);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(reason(f), REASON_NODE_DISCONNECTED);
    assert_int_equal(compose(f, 0, 0, false), RESULT_OK);
    assert_null(f->stored);
}

static void test_compose_is_checked_whole(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    uint64_t revision = f->revision;
    assert_int_equal(compose(f, 0, 1, true),
                     RESULT_DATASET_NOT_FOUND); /* its volume is not in the list */
    assert_string_equal(f->text, "c");
    assert_int_equal(f->revision, revision);
    assert_non_null(listed(f));
    engine_session_closed(f->e, now, 11);
    assert_int_equal(delete (f, false), RESULT_OK);
    assert_int_equal(compose(f, 77, 1, false), RESULT_DATASET_DELETED);
    assert_string_equal(f->text, UUID_STR(&D));
    assert_int_equal(compose(f, 0, 0, false),
                     RESULT_OK); /* deleted ones are forgotten when they are gone */
    assert_true(f->stored->purge);
}

/* The store is put back as it was before a move; the nodes obey it again, in this order. */
static void follow_the_data(struct fake *f, unsigned char first, unsigned char second)
{
    assert_int_equal(create(f, 1), RESULT_CREATED);
    struct dataset *old = dataset_copy(f->stored);
    uint64_t old_revision = f->revision;
    assert_int_equal(
        run(f, (struct command){.kind = COMMAND_DATASET_UPDATE, .dataset_id = D, .node = id(2)}),
        RESULT_OK);
    assert_true(f->reports[2].volume.mounted);
    assert_false(f->reports[1].volume.present);
    uint64_t lost = f->stored->epoch;

    engine_free(f->e);
    begin(f, 97, old_revision);
    engine_restore_dataset(f->e, old);
    come(f, first, UUID_NIL, UUID_NIL, 0);
    settle(f);
    if (first == 2)
        assert_int_equal(reason(f), REASON_STORE_UNKNOWN); /* what node 1 does is not known */
    assert_true(f->reports[2].volume.mounted);
    come(f, second, UUID_NIL, UUID_NIL, 0);
    settle(f);
    /* The record has followed to node 2, and as the old configuration wants it on node 1, it goes there. */
    assert_true(f->stored->epoch > lost);
    assert_true(f->reports[1].volume.mounted);
    assert_false(f->reports[2].volume.mounted);
    assert_int_equal(reason(f), REASON_NONE);
}

static void test_the_record_follows_the_data(void **state)
{
    follow_the_data(*state, 2, 1);
}

/* Nothing else happens after the node that has the data has told it and is known whole. */
static void test_the_record_follows_the_data_of_the_last_to_come(void **state)
{
    follow_the_data(*state, 1, 2);
}

/* A store was put back, two nodes went on with it, and now comes the third, with what it had before, at a later epoch. It
 * is not what became of the record: while that is being handed over, all look idle, but the data are on their way. */
static void test_the_record_does_not_follow_another_history(void **state)
{
    static const struct {
        const char *base;
        struct transfer transfer;
        struct volume_mark first; /* node 1's */
        const char *snapshot;     /* node 2 has it */
        unsigned char owner;
    } cases[] = {
        /* node 1 is the owner again and has not heard of it */
        {NULL, {0}, {MARK_RELEASED, 5, 9, "t9-final"}, NULL, 1},
        /* node 2 is the owner and has not promoted yet */
        {"t9-final", {0}, {MARK_RELEASED, 5, 9, "t9-final"}, "t9-final", 2},
        /* node 1 has released, node 2 is receiving */
        {NULL,
         {9, 5, {.b[15] = 1}, {.b[15] = 2}, TRANSFER_RELEASE},
         {MARK_RELEASED, 5, 9, "t9-final"},
         NULL,
         1},
    };
    struct fake *f = *state;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct dataset *d = wanted(77, 2);
        char snapshot[1][SNAPSHOT_NAME_SIZE] = {""};

        d->owner = id(cases[i].owner);
        d->epoch = d->number = cases[i].transfer.id ? 5 : 15;
        d->number = d->epoch > cases[i].transfer.id ? d->epoch : cases[i].transfer.id;
        d->born = true;
        d->recalled = !cases[i].base && !cases[i].transfer.id;
        d->base = xstrdup_null(cases[i].base);
        d->transfer = cases[i].transfer;
        dataset_add_holder(d, &(struct uuid){.b[15] = 1});
        dataset_add_holder(d, &(struct uuid){.b[15] = 2});
        memset(f->reports, 0, sizeof(f->reports));
        f->reports[1].volume.present = true;
        f->reports[1].volume.mark = cases[i].first;
        if (cases[i].snapshot) {
            snprintf(snapshot[0], sizeof(snapshot[0]), "%s", cases[i].snapshot);
            f->reports[2].volume.snapshots = snapshot;
            f->reports[2].volume.n_snapshots = 1;
        }
        f->reports[3].volume.present = f->reports[3].volume.mounted = true;
        f->reports[3].volume.mark = (struct volume_mark){.state = MARK_OWNED, .epoch = 20};

        engine_free(f->e);
        begin(f, (unsigned char)(90 + i), 16);
        engine_restore_dataset(f->e, d);
        for (unsigned char n = 1; n <= NODES; n++) {
            come(f, n, UUID_NIL, UUID_NIL, 0);
            if (!f->reports[n].volume.present)
                tell(f, n);
        }
        assert_int_equal(reason(f), REASON_STORE_UNKNOWN);
        engine_flush(f->e, now);
        for (struct effect *x; (x = engine_next(f->e)); effect_free(x))
            assert_int_not_equal(x->kind, EFFECT_COMMIT);
    }
    memset(f->reports, 0, sizeof(f->reports));
}

/* Mounted, but smaller than wanted: what the owner says about that is the dataset's reason. */
static void test_a_volume_that_does_not_grow(void **state)
{
    struct fake *f = *state;
    struct report *r = &f->reports[1];
    struct dataset *d = wanted(77, 1);

    d->maximum_size = 64 << 20;
    assert_int_equal(run(f, (struct command){.kind = COMMAND_DATASET_CREATE, .dataset = d}), RESULT_CREATED);
    r->volume.size = 64 << 20;
    tell(f, 1);
    settle(f);
    assert_int_equal(reason(f), REASON_NONE);
    assert_int_equal(run(f, (struct command){.kind = COMMAND_DATASET_UPDATE,
                                             .dataset_id = D,
                                             .keep_primary = true,
                                             .maximum_size = 128 << 20}),
                     RESULT_OK);
    reason_set(&r->reason, REASON_NO_SPACE, 1, 0, "the pool is full");
    tell(f, 1);
    settle(f);
    assert_int_equal(reason(f), REASON_NO_SPACE);
    r->volume.size = 128 << 20;
    tell(f, 1);
    settle(f);
    assert_int_equal(reason(f), REASON_NONE);
    reason_done(&r->reason);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_purge, setup, teardown),
        cmocka_unit_test_setup_teardown(test_purge_later, setup, teardown),
        cmocka_unit_test_setup_teardown(test_purge_waits_for_holders, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drop_and_back, setup, teardown),
        cmocka_unit_test_setup_teardown(test_drop_of_what_was_never_there, setup, teardown),
        cmocka_unit_test_setup_teardown(test_compose_is_checked_whole, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_record_follows_the_data, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_record_follows_the_data_of_the_last_to_come, setup, teardown),
        cmocka_unit_test_setup_teardown(test_a_volume_that_does_not_grow, setup, teardown),
        cmocka_unit_test_setup_teardown(test_the_record_does_not_follow_another_history, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
