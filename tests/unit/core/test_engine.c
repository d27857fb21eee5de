/* The engine's promises to callers: tags, failed commits, leases against jumping clocks, sessions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"
#include "core/engine.h"

static uint64_t seed = 1;
static struct now now = {10 * USEC_PER_SEC, 1000000 * (uint64_t)USEC_PER_SEC};

static struct uuid id(unsigned char n)
{
    struct uuid u = {{0}};

    u.b[15] = n;
    return u;
}

static struct engine *make(void)
{
    struct generation life = {.id = id(98)};
    struct history history = {.store = id(99), .generations = &life, .n = 1};

    return engine_new(&history, 0, random_seeded(&seed));
}

/* Carries a command out up to its answer; `fail` is what the store says, or NULL. */
static enum result_code run(struct engine *e, struct command c, const char *fail)
{
    enum result_code code = RESULT_MAX;

    c.id = 7;
    engine_command(e, now, &c);
    engine_flush(e, now);
    for (struct effect *f; (f = engine_next(e)); effect_free(f)) {
        if (f->kind == EFFECT_COMMIT && fail)
            engine_commit_failed(e, now, f->batch->id, fail);
        else if (f->kind == EFFECT_COMMIT)
            engine_committed(e, now, f->batch->id);
        if (f->kind == EFFECT_REPLY && f->command == 7)
            code = f->result.code;
    }
    return code;
}

static enum result_code create(struct engine *e, unsigned char n, const char *tag, const char *fail)
{
    struct dataset *d = dataset_new(id(n));

    d->primary = id(1);
    return run(e, (struct command){.kind = COMMAND_DATASET_CREATE, .dataset = d, .tags = &tag, .n_tags = tag ? 1 : 0},
               fail);
}

static void test_tags(void **state)
{
    struct engine *e = make();
    CLEANUP_FREE char *first = engine_tag(e);

    (void)state;
    assert_int_equal(create(e, 10, first, NULL), RESULT_CREATED);
    CLEANUP_FREE char *second = engine_tag(e);
    assert_string_not_equal(first, second);
    assert_int_equal(create(e, 11, first, NULL), RESULT_TAG_MISMATCH);
    assert_int_equal(create(e, 11, second, NULL), RESULT_CREATED);
    assert_int_equal(create(e, 11, NULL, NULL), RESULT_DATASET_EXISTS);
    engine_free(e);
}

static void test_a_failed_commit_changes_nothing(void **state)
{
    struct engine *e = make();
    struct uuid ten = id(10);
    CLEANUP_FREE char *before = engine_tag(e);

    (void)state;
    assert_int_equal(create(e, 10, NULL, "disk full"), RESULT_STORE_FAILED);
    assert_null(engine_dataset(e, &ten));
    CLEANUP_FREE char *after = engine_tag(e);
    assert_string_equal(before, after);
    assert_int_equal(create(e, 10, NULL, NULL), RESULT_CREATED);
    assert_non_null(engine_dataset(e, &ten));
    struct command move = {.kind = COMMAND_DATASET_UPDATE, .dataset_id = ten, .node = id(2)};
    assert_int_equal(run(e, move, "disk full"), RESULT_STORE_FAILED);
    struct uuid one = id(1), two = id(2);
    assert_true(uuid_eq(&engine_dataset(e, &ten)->primary, &one));
    assert_int_equal(run(e, move, NULL), RESULT_OK);
    assert_true(uuid_eq(&engine_dataset(e, &ten)->primary, &two));
    engine_free(e);
}

static void test_not_found(void **state)
{
    static const struct {
        enum command_kind kind;
        enum result_code code;
    } cases[] = {{COMMAND_DATASET_UPDATE, RESULT_DATASET_NOT_FOUND},
                 {COMMAND_DATASET_DELETE, RESULT_DATASET_NOT_FOUND},
                 {COMMAND_CONTAINER_MOVE, RESULT_CONTAINER_NOT_FOUND},
                 {COMMAND_CONTAINER_DELETE, RESULT_CONTAINER_NOT_FOUND},
                 {COMMAND_LEASE_RELEASE, RESULT_LEASE_NOT_FOUND}};
    struct engine *e = make();

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct command c = {.kind = cases[i].kind, .dataset_id = id(50), .name = "none", .node = id(1)};
        assert_int_equal(run(e, c, NULL), cases[i].code);
    }
    engine_free(e);
}

static bool count_lease(void *n, const struct lease *l, uint64_t left_us)
{
    (void)l, (void)left_us;
    ++*(unsigned *)n;
    return true;
}

static unsigned leases(struct engine *e)
{
    unsigned n = 0;

    engine_tick(e, now);
    engine_flush(e, now);
    for (struct effect *f; (f = engine_next(e)); effect_free(f)) {
        if (f->kind == EFFECT_COMMIT)
            engine_committed(e, now, f->batch->id);
    }
    engine_list_leases(e, now, &(struct list_query){0}, count_lease, &n);
    return n;
}

static void test_a_lease_runs_by_the_monotonic_clock(void **state)
{
    struct engine *e = make();
    struct command c = {.kind = COMMAND_LEASE_ACQUIRE,
                        .dataset_id = id(10),
                        .node = id(1),
                        .expires = true,
                        .expires_in_us = 60 * (int64_t)USEC_PER_SEC};

    (void)state;
    assert_int_equal(run(e, c, NULL), RESULT_CREATED);
    c.node = id(2);
    assert_int_equal(run(e, c, NULL), RESULT_LEASE_HELD);
    c.node = id(1);
    assert_int_equal(run(e, c, NULL), RESULT_OK); /* renewed */
    now.wall_us += 3600 * (uint64_t)USEC_PER_SEC;
    assert_int_equal(leases(e), 1);
    now.wall_us -= 7200 * (uint64_t)USEC_PER_SEC;
    now.mono_us += 59 * USEC_PER_SEC;
    assert_int_equal(leases(e), 1);
    now.mono_us += 1 * USEC_PER_SEC;
    assert_int_equal(leases(e), 0);
    engine_free(e);
}

/* A lease that was acknowledged lives on when its renewal, collected while it was being written, is not written. */
static void test_a_lease_outlives_a_failed_renewal(void **state)
{
    static const int64_t expires_in_us[] = {0, 60 * (int64_t)USEC_PER_SEC}; /* 0: never */

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(expires_in_us); i++) {
        struct engine *e = make();
        struct command c = {.kind = COMMAND_LEASE_ACQUIRE,
                            .id = 1,
                            .dataset_id = id(10),
                            .node = id(1),
                            .expires = expires_in_us[i] > 0,
                            .expires_in_us = expires_in_us[i]};
        struct command again = c;
        uint64_t batches[2] = {0};
        size_t n = 0;

        engine_command(e, now, &c);
        engine_flush(e, now);
        again.id = 2;
        engine_command(e, now, &again);
        for (struct effect *f; n < 2 && (f = engine_next(e)); effect_free(f)) {
            if (f->kind != EFFECT_COMMIT)
                continue;
            batches[n++] = f->batch->id;
            if (n == 1)
                engine_committed(e, now, batches[0]);
            engine_flush(e, now);
        }
        assert_int_equal(n, 2);
        engine_commit_failed(e, now, batches[1], "disk full");
        now.mono_us += 50 * USEC_PER_SEC;
        now.wall_us += 50 * USEC_PER_SEC;
        assert_int_equal(leases(e), 1);
        now.mono_us += 10 * USEC_PER_SEC;
        now.wall_us += 10 * USEC_PER_SEC;
        assert_int_equal(leases(e), expires_in_us[i] ? 0 : 1);
        engine_free(e);
    }
}

static uint64_t refused(struct engine *e)
{
    uint64_t session = 0;

    for (struct effect *f; (f = engine_next(e)); effect_free(f)) {
        if (f->kind == EFFECT_REFUSE) {
            assert_true(strlen(f->text) > 10);
            session = f->session;
        }
    }
    return session;
}

static void test_sessions(void **state)
{
    struct engine *e = make();
    struct hello h = {.protocol = AGENT_PROTOCOL_VERSION, .node = id(1), .era = id(61)};
    struct hello other = h, old = h;

    (void)state;
    other.era = id(62);
    old.protocol++;
    engine_session_open(e, now, 1, &h);
    assert_int_equal(refused(e), 0);
    engine_session_open(e, now, 2, &other); /* another machine with the same certificate */
    assert_int_equal(refused(e), 2);
    engine_session_open(e, now, 3, &h); /* the same machine: the newer session counts */
    assert_int_equal(refused(e), 1);
    engine_session_open(e, now, 4, &old);
    assert_int_equal(refused(e), 4);
    engine_session_closed(e, now, 3);
    engine_session_open(e, now, 5, &other); /* the first is gone */
    assert_int_equal(refused(e), 0);
    engine_free(e);
}

/* What the engine tells a node that has seen `revision` in `generation`. */
static struct welcome welcome(struct engine *e, uint64_t session, struct uuid generation, uint64_t revision)
{
    struct hello h = {.protocol = AGENT_PROTOCOL_VERSION,
                      .node = id(1),
                      .era = id(61),
                      .store = id(99),
                      .generation = generation,
                      .seen_revision = revision};
    struct welcome w = {0};

    engine_session_open(e, now, session, &h);
    for (struct effect *f; (f = engine_next(e)); effect_free(f)) {
        if (f->kind == EFFECT_WELCOME)
            w = f->welcome;
    }
    return w;
}

/* The reason of a dataset that waits for node 1, which has just reported everything. */
static enum reason_code waiting(struct engine *e, uint64_t session)
{
    struct reason r;

    engine_reports_complete(e, now, session, 0);
    struct uuid d = id(5);
    engine_dataset_reason(e, now, &d, &r);
    enum reason_code code = r.code;
    reason_done(&r);
    return code;
}

static void test_a_restored_store_is_told_apart(void **state)
{
    struct generation lives[] = {{id(71), 0}, {id(72), 50}, {id(73), 60}};
    struct history history = {.store = id(99), .generations = lives, .n = 3};
    struct engine *e = engine_new(&history, 60, random_seeded(&seed));

    (void)state;
    struct dataset *d = dataset_new(id(5));
    d->primary = id(1);
    engine_restore_dataset(e, d);
    struct welcome w = welcome(e, 1, id(71), 50);
    assert_true(uuid_eq(&w.generation, &lives[2].id));
    assert_true(uuid_eq(&w.known, &lives[0].id));
    assert_int_equal(w.known_until, 50);
    assert_int_equal(waiting(e, 1), REASON_CREATING);
    engine_free(e);

    static const struct {
        unsigned char generation;
        uint64_t seen, until;
    } refused[] = {{71, 51, 50}, {72, 61, 60}, {74, 1, 0}};
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        e = engine_new(&history, 60, random_seeded(&seed));
        d = dataset_new(id(5));
        d->primary = id(1);
        engine_restore_dataset(e, d);
        w = welcome(e, 1, id(refused[i].generation), refused[i].seen);
        assert_int_equal(w.known_until, refused[i].until);
        assert_int_equal(waiting(e, 1), REASON_STORE_UNKNOWN);
        engine_free(e);
    }
}

/* Carries commits out; returns the last order sent for dataset 5. */
static struct order last_order(struct engine *e)
{
    struct order o = {.role = ROLE_NONE};

    for (engine_flush(e, now);; engine_flush(e, now)) {
        struct effect *f = engine_next(e);
        if (!f)
            return o;
        if (f->kind == EFFECT_COMMIT)
            engine_committed(e, now, f->batch->id);
        if (f->kind == EFFECT_ORDER)
            o = (struct order){.role = f->order.role, .number = f->order.number, .epoch = f->order.epoch};
        effect_free(f);
    }
}

/* On shared storage the volume that a first owner made lies there still when it is not the owner any more: it must be left
 * on the list to destroy it (simulator's seed 874). */
static void test_who_made_a_volume_can_destroy_it(void **state)
{
    struct engine *e = make();

    (void)state;
    (void)welcome(e, 1, id(98), 0);
    engine_reports_complete(e, now, 1, 0);
    assert_int_equal(create(e, 5, NULL, NULL), RESULT_CREATED);
    struct uuid d = id(5);
    assert_int_equal(last_order(e).role, ROLE_NONE); /* sent with the reply */
    assert_int_equal(run(e, (struct command){.kind = COMMAND_DATASET_UPDATE, .dataset_id = d, .node = id(2)}, NULL),
                     RESULT_OK);
    struct order drop = last_order(e);
    assert_int_equal(drop.role, ROLE_DROP);
    engine_report(e, now, 1, &(struct report){.volume = {.dataset = d}, .gone = drop.number});
    (void)last_order(e);
    assert_int_equal(run(e, (struct command){.kind = COMMAND_DATASET_DELETE, .dataset_id = d}, NULL), RESULT_OK);
    assert_int_equal(last_order(e).role, ROLE_DESTROY);
    engine_free(e);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tags),
        cmocka_unit_test(test_a_failed_commit_changes_nothing),
        cmocka_unit_test(test_not_found),
        cmocka_unit_test(test_a_lease_runs_by_the_monotonic_clock),
        cmocka_unit_test(test_a_lease_outlives_a_failed_renewal),
        cmocka_unit_test(test_sessions),
        cmocka_unit_test(test_a_restored_store_is_told_apart),
        cmocka_unit_test(test_who_made_a_volume_can_destroy_it),
    };

    return cmocka_run_group_tests_name("engine", tests, NULL, NULL);
}
