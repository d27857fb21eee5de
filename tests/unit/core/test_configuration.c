/* Datasets that are forgotten, dropped and configured again, and records that follow the data. */
#include "fake_cluster.h"

#include "base/str.h"

#include <stdio.h>

static void test_purge(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_true(f->reports[1].volume.mounted);
    uint64_t epoch = f->stored->epoch;
    assert_int_equal(remove_dataset(f, true), RESULT_OK);
    assert_null(f->stored); /* nothing of it was left, so the record went as well */
    assert_null(listed(f));
    assert_int_equal(remove_dataset(f, true), RESULT_DATASET_NOT_FOUND);
    assert_int_equal(create(f, 2), RESULT_CREATED); /* the id can be used again, at a later epoch */
    assert_true(f->stored->epoch > epoch);
    assert_true(f->reports[2].volume.mounted);
}

static void test_purge_later(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(remove_dataset(f, false), RESULT_OK);
    assert_true(listed(f)->deleted);
    CLEANUP_FREE char *before = engine_tag(f->e);
    assert_int_equal(remove_dataset(f, true), RESULT_OK);
    CLEANUP_FREE char *after = engine_tag(f->e);
    assert_string_not_equal(before, after);
    assert_null(listed(f));
}

static void test_purge_by_age(void **state)
{
    struct fake *f = *state;
    const uint64_t age = 600 * USEC_PER_SEC;

    engine_purge_after(f->e, age);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(remove_dataset(f, false), RESULT_OK);
    uint64_t deleted = f->now.wall_us;
    assert_true(f->stored->deleted_us == deleted);
    f->now.mono_us += USEC_PER_SEC;
    f->now.wall_us += USEC_PER_SEC;
    assert_int_equal(remove_dataset(f, false), RESULT_OK); /* again: it is as old as it was */
    assert_true(f->stored->deleted_us == deleted);
    engine_tick(f->e, f->now);
    settle(f);
    assert_true(listed(f)->deleted);
    assert_true(engine_deadline(f->e) == f->now.mono_us + age - USEC_PER_SEC);
    struct dataset *old = dataset_copy(f->stored);

    f->now.mono_us += age;
    f->now.wall_us += age;
    engine_tick(f->e, f->now);
    settle(f);
    assert_null(listed(f));
    assert_null(f->stored);
    assert_true(engine_deadline(f->e) == USEC_NEVER);

    /* The time counts on while the control service is away; what has no time is old. */
    struct dataset *older = dataset_copy(old);
    older->id.b[0] = 9;
    older->deleted_us = 0;
    engine_free(f->e);
    begin(f, 97, 100);
    engine_purge_after(f->e, age);
    engine_restore_dataset(f->e, old);
    engine_restore_dataset(f->e, older);
    engine_tick(f->e, f->now);
    settle(f);
    assert_int_equal(engine_dataset_count(f->e), 0);
}

static struct dataset *deleted_at(uint32_t number, uint64_t deleted_us)
{
    struct dataset *d = wanted(1, 1);

    memcpy(d->id.b, &number, sizeof(number));
    d->deleted = true;
    d->deleted_us = deleted_us;
    d->tombstone = d->number = d->epoch = 40;
    return d;
}

/* More than go into one commit, restored in the order of their ids, not of their deletion. */
static void test_many_are_purged_in_order(void **state)
{
    struct fake *f = *state;
    const uint64_t age = 600 * USEC_PER_SEC;
    const uint32_t many = 1002;

    engine_free(f->e);
    begin(f, 97, 100);
    engine_purge_after(f->e, age);
    for (uint32_t i = 0; i < many; i++)
        engine_restore_dataset(f->e, deleted_at(i, f->now.wall_us - age - i % 7));
    engine_restore_dataset(f->e, deleted_at(many, f->now.wall_us - age + 5 * USEC_PER_SEC)); /* not yet */
    engine_tick(f->e, f->now);
    settle(f);
    assert_int_equal(engine_dataset_count(f->e), 3);
    assert_int_equal(engine_deadline(f->e), f->now.mono_us + 1 * USEC_PER_SEC);
    f->now.mono_us += 1 * USEC_PER_SEC;
    f->now.wall_us += 1 * USEC_PER_SEC;
    engine_tick(f->e, f->now);
    settle(f);
    assert_int_equal(engine_dataset_count(f->e), 1);
    assert_int_equal(engine_deadline(f->e), f->now.mono_us + 4 * USEC_PER_SEC);
    f->now.mono_us += 4 * USEC_PER_SEC;
    f->now.wall_us += 4 * USEC_PER_SEC;
    engine_tick(f->e, f->now);
    settle(f);
    assert_int_equal(engine_dataset_count(f->e), 0);
    assert_int_equal(engine_deadline(f->e), USEC_NEVER);
}

static void test_purge_of_what_is_gone_or_made_anew(void **state)
{
    struct fake *f = *state;
    const uint64_t age = 600 * USEC_PER_SEC;

    engine_purge_after(f->e, age);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(remove_dataset(f, false), RESULT_OK);
    assert_int_equal(remove_dataset(f, true), RESULT_OK); /* before its time */
    assert_null(f->stored);
    f->now.wall_us += age;
    f->now.mono_us += age;
    engine_tick(f->e, f->now);
    assert_null(f->stored);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(remove_dataset(f, true), RESULT_OK);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    f->now.wall_us += age;
    f->now.mono_us += age;
    engine_tick(f->e, f->now);
    settle(f);
    assert_false(listed(f)->deleted);
    assert_true(f->reports[1].volume.mounted);
}

/* A holder is being struck off when the time has come: that is written first. */
static void test_purge_comes_back_to_what_is_changing(void **state)
{
    struct fake *f = *state;
    const uint64_t age = 600 * USEC_PER_SEC;

    engine_purge_after(f->e, age);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    f->deaf[1] = true;
    assert_int_equal(remove_dataset(f, false), RESULT_OK);
    engine_tick(f->e, f->now);
    f->now.wall_us += age;
    f->now.mono_us += age;
    f->reports[1] = (struct report){.gone = f->stored->tombstone};
    tell(f, 1);
    engine_tick(f->e, f->now);
    assert_int_equal(engine_deadline(f->e), f->now.mono_us + 1 * USEC_PER_SEC);
    settle(f);
    assert_int_equal(f->stored->n_holders, 0);
    f->now.mono_us = engine_deadline(f->e);
    engine_tick(f->e, f->now);
    settle(f);
    assert_null(f->stored);
}

static void test_purge_waits_for_holders(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    engine_session_closed(f->e, f->now, 11);
    assert_int_equal(remove_dataset(f, true), RESULT_OK);
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

    assert_int_equal(compose_all(f, 77, 1, true), RESULT_OK);
    assert_int_equal(f->started, 1);
    assert_true(f->reports[1].volume.mounted);
    assert_int_equal(compose_all(f, 77, 1, true), RESULT_OK); /* the same again changes nothing */
    assert_int_equal(f->started, 1);
    assert_int_equal(lease(f, 1), RESULT_CREATED);
    assert_int_equal(compose_all(f, 0, 0, false), RESULT_OK);
    assert_null(listed(f));
    assert_null(engine_container(f->e, "c"));
    assert_false(f->reports[1].volume.mounted);
    assert_true(f->reports[1].volume.present);
    assert_int_equal(f->role[1], ROLE_KEEP);
    assert_int_equal(lease(f, 1), RESULT_LEASE_RELEASING);
    assert_int_equal(remove_dataset(f, false), RESULT_DATASET_NOT_FOUND);

    uint64_t epoch = f->stored->epoch;
    assert_int_equal(create(f, 2),
                     RESULT_CREATED); /* its data come back, and move to where they are wanted */
    assert_true(f->stored->epoch > epoch);
    assert_true(f->stored->born);
    assert_true(f->reports[2].volume.mounted);
    assert_int_equal(reason(f), REASON_NONE);
}

/* Its node, which was to make it, is away: its id is free again when that has said that there is nothing. */
static void test_drop_of_what_may_be_there(void **state)
{
    struct fake *f = *state;
    struct uuid one = id(1);

    f->deaf[1] = true;
    assert_int_equal(create(f, 1), RESULT_CREATED);
    leave(f, 1);
    assert_int_equal(compose_all(f, 0, 0, false), RESULT_OK);
    assert_int_equal(compose_all(f, 77, 2, false), RESULT_DATASET_LEAVING);
    assert_non_null(strstr(f->text, UUID_STR(&D)));
    assert_non_null(strstr(f->text, UUID_STR(&one)));
    assert_non_null(strstr(f->text, "is not there"));
    f->deaf[1] = false;
    come_back(f, 1);
    assert_null(f->stored);
    assert_int_equal(compose_all(f, 77, 2, false), RESULT_OK);
    assert_true(f->reports[2].volume.mounted);
}

static void test_drop_of_what_was_never_there(void **state)
{
    struct fake *f = *state;

    engine_session_closed(f->e, f->now, 11);
    settle(f);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(reason(f), REASON_NODE_DISCONNECTED);
    assert_int_equal(compose_all(f, 0, 0, false), RESULT_OK);
    assert_null(f->stored);
}

static void test_compose_is_checked_whole(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    uint64_t revision = f->revision;
    assert_int_equal(compose_all(f, 0, 1, true),
                     RESULT_DATASET_NOT_FOUND); /* its volume is not in the list */
    assert_string_equal(f->text, "c");
    assert_int_equal(f->revision, revision);
    assert_non_null(listed(f));
    engine_session_closed(f->e, f->now, 11);
    assert_int_equal(remove_dataset(f, false), RESULT_OK);
    assert_int_equal(compose_all(f, 77, 1, false), RESULT_DATASET_DELETED);
    assert_string_equal(f->text, UUID_STR(&D));
    assert_int_equal(compose_all(f, 0, 0, false),
                     RESULT_OK); /* deleted ones are forgotten when they are gone */
    assert_true(f->stored->purge);
}

/* "what action from>to, ..." with nodes by their numbers. */
static void planned(struct fake *f, unsigned char dataset, unsigned char node, bool container, const char *expected)
{
    static const char *const kinds[] = {[OBJECT_DATASET] = "dataset", [OBJECT_CONTAINER] = "container", [OBJECT_LEASE] = "lease"};
    static const char *const actions[PLANNED_MAX] = {"create", "return", "change", "move", "drop", "forget", "remove", "release"};
    struct composition c = composition(dataset, node, container);
    CLEANUP(plan_done) struct plan plan;
    CLEANUP_FREE char *text = NULL;
    CLEANUP_STR struct str s = {0};
    uint64_t revision = f->revision;

    str_append(&s, "");
    assert_int_equal(engine_plan(f->e, &c, &plan, &text), RESULT_OK);
    assert_null(text);
    for (size_t i = 0; i < plan.n; i++)
        str_appendf(&s, "%s%s %s %d>%d", i ? ", " : "", kinds[plan.all[i].kind], actions[plan.all[i].action],
                    plan.all[i].from.b[15], plan.all[i].to.b[15]);
    assert_string_equal(s.data ? s.data : "", expected);
    composition_done(&c);
    settle(f);
    assert_int_equal(f->revision, revision); /* it was only looked at */
    /* What is planned is what is done. */
    assert_int_equal(compose_all(f, dataset, node, container), RESULT_OK);
    assert_true((f->revision > revision) == (plan.n > 0));
}

static void test_plan(void **state)
{
    struct fake *f = *state;
    struct composition c = composition(0, 1, true);
    struct plan plan;
    char *text = NULL;

    assert_int_equal(id(2).b[15], 2);
    planned(f, 77, 1, true, "dataset create 0>1, container create 0>1");
    planned(f, 77, 1, true, "");
    assert_int_equal(lease(f, 1), RESULT_CREATED);
    planned(f, 77, 1, true, "lease release 1>0");
    planned(f, 77, 2, true, "dataset move 1>2, container move 1>2");
    planned(f, 77, 2, false, "container remove 2>0");
    planned(f, 77, 2, true, "container create 0>2");
    planned(f, 0, 0, false, "dataset drop 2>0, container remove 2>0");
    planned(f, 0, 0, false, "");
    planned(f, 77, 1, false, "dataset return 2>1");
    engine_session_closed(f->e, f->now, 11); /* so that it cannot be forgotten at once */
    assert_int_equal(remove_dataset(f, false), RESULT_OK);
    planned(f, 0, 0, false, "dataset forget 0>0");
    planned(f, 0, 0, false, "");
    assert_int_equal(engine_plan(f->e, &c, &plan, &text), RESULT_DATASET_NOT_FOUND);
    assert_string_equal(text, "c");
    assert_int_equal(plan.n, 0);
    free(text);
    composition_done(&c);
    plan_done(&plan);
}

/* The store is put back as it was before a move; the nodes obey it again, in this order. */
static void follow_the_data(struct fake *f, unsigned char first, unsigned char second)
{
    assert_int_equal(create(f, 1), RESULT_CREATED);
    struct dataset *old = dataset_copy(f->stored);
    uint64_t old_revision = f->revision;
    assert_int_equal(move(f, 2), RESULT_OK);
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
        engine_flush(f->e, f->now);
        for (struct effect *x; (x = engine_next(f->e)); effect_free(x))
            assert_int_not_equal(x->kind, EFFECT_COMMIT);
    }
    memset(f->reports, 0, sizeof(f->reports));
}

/* The store was lost; a dataset is created again where its data are, and wanted elsewhere before the node has answered. */
static void test_found_data_are_moved_not_dropped(void **state)
{
    struct fake *f = *state;
    struct command make = {.kind = COMMAND_DATASET_CREATE, .dataset = wanted(77, 1)};
    struct command move = {.kind = COMMAND_DATASET_UPDATE, .dataset_id = D, .node = id(2)};

    f->reports[1].volume.present = f->reports[1].volume.mounted = true;
    f->reports[1].volume.mark = (struct volume_mark){.state = MARK_OWNED, .epoch = 20};
    tell(f, 1);
    settle(f);
    engine_command(f->e, f->now, &make);
    engine_command(f->e, f->now, &move);
    settle(f);
    assert_true(f->stored->born);
    assert_true(f->reports[2].volume.mounted);
    assert_int_not_equal(f->reports[2].received, 0);
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
        cmocka_unit_test_setup_teardown(test_purge, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_purge_later, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_purge_by_age, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_purge_waits_for_holders, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_many_are_purged_in_order, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_purge_of_what_is_gone_or_made_anew, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_purge_comes_back_to_what_is_changing, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_drop_and_back, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_drop_of_what_was_never_there, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_drop_of_what_may_be_there, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_compose_is_checked_whole, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_plan, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_the_record_follows_the_data, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_the_record_follows_the_data_of_the_last_to_come, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_found_data_are_moved_not_dropped, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_a_volume_that_does_not_grow, fake_setup, fake_teardown),
        cmocka_unit_test_setup_teardown(test_the_record_does_not_follow_another_history, fake_setup, fake_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
