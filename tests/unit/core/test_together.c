/* Containers with several datasets: held until all are there, moved with all of them. D obeys at once (fake_cluster.h); what
 * the nodes do about E is said here. */
#include "fake_cluster.h"

#include "base/str.h"

static const struct uuid E = {.b[15] = 78};

static const struct dataset *record(struct fake *f)
{
    return engine_dataset(f->e, &E);
}

static void say(struct fake *f, unsigned char node, struct report r)
{
    r.volume.dataset = E;
    engine_report(f->e, f->now, f->sessions[node], &r);
    settle(f);
}

/* It has E, at the record's epoch. `copied`: the copy that is being made is nearly done. */
static void have(struct fake *f, unsigned char node, bool copied)
{
    const struct dataset *d = record(f);

    say(f, node,
        (struct report){.volume = {.present = true,
                                   .attached = true,
                                   .mounted = d->born,
                                   .mark = {.state = MARK_OWNED, .epoch = d->epoch}},
                        .copied = copied ? d->transfer.id : 0});
}

static void release(struct fake *f, unsigned char source, unsigned char destination)
{
    const struct dataset *d = record(f);
    const uint64_t transfer = d->transfer.id, epoch = d->epoch;

    say(f, source,
        (struct report){.volume = {.present = true,
                                   .attached = true,
                                   .mark = {MARK_RELEASED, epoch, transfer, "final"}}});
    say(f, destination,
        (struct report){.received = transfer, .received_snapshot = (char *)"final"});
}

static struct container *with_both(unsigned char node)
{
    struct container *c = with_volume(node, "c");

    container_add_volume(c, &E, "/data/more", false);
    return c;
}

static void know_volumes(struct fake *f)
{
    for (unsigned char n = 1; n <= NODES; n++) {
        leave(f, n);
        f->hellos[n].more_volumes = f->hellos[n].extended = true;
        come_back(f, n);
    }
}

/* Both on node 1, and the container that runs on them. */
static void begin_on_1(struct fake *f)
{
    know_volumes(f);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(
        run(f, (struct command){.kind = COMMAND_DATASET_CREATE, .dataset = wanted(78, 1)}),
        RESULT_CREATED);
    assert_int_equal(create_container(f, with_both(1)), RESULT_CREATED);
    assert_int_equal(f->started, 0);
    have(f, 1, false); /* it is made, ... */
    have(f, 1, false); /* ... and mounted */
    assert_int_equal(f->started, 1);
    assert_int_equal(container_reason(f, "c"), REASON_NONE);
}

static void check_text(struct fake *f, const char *words)
{
    struct reason r;

    engine_container_reason(f->e, f->now, "c", &r);
    if (r.code != REASON_WAITING_FOR_DATASET || !strstr(r.text, UUID_STR(&E)) ||
        !strstr(r.text, words))
        fail_msg("%d: %s", r.code, r.text);
    reason_done(&r);
}

static void test_held_until_all_are_there(void **state)
{
    struct fake *f = *state;

    know_volumes(f);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(create_container(f, with_both(1)), RESULT_DATASET_NOT_FOUND);
    assert_int_equal(
        run(f, (struct command){.kind = COMMAND_DATASET_CREATE, .dataset = wanted(78, 2)}),
        RESULT_CREATED);
    assert_int_equal(create_container(f, with_both(1)), RESULT_DATASET_ELSEWHERE);
    assert_int_equal(
        run(f, (struct command){.kind = COMMAND_DATASET_UPDATE, .dataset_id = E, .node = id(1)}),
        RESULT_OK);
    assert_int_equal(create_container(f, with_both(1)), RESULT_CREATED);
    check_text(f, "creating");
    assert_string_equal(engine_container_of_dataset(f->e, &E)->name, "c");
    assert_string_equal(engine_container_of_dataset(f->e, &D)->name, "c");
    assert_int_equal(create_container(f, with_volume(1, "d")), RESULT_DATASET_IN_USE);
    assert_int_equal(move(f, 2), RESULT_DATASET_OF_CONTAINER);
    have(f, 1, false);
    assert_int_equal(f->started, 1);
    have(f, 1, false);
    assert_int_equal(container_reason(f, "c"), REASON_NONE);
}

/* The container runs on until both are nearly there; then both are released at once. */
static void test_leave_together(void **state)
{
    struct fake *f = *state;

    begin_on_1(f);
    assert_int_equal(move_container(f, "c", 2), RESULT_OK);
    assert_true(uuid_eq(&f->stored->primary, &record(f)->primary));
    assert_int_equal(f->role[1], ROLE_SOURCE); /* D is ready, E is not */
    assert_int_equal(f->stored->transfer.phase, TRANSFER_COPY);
    assert_int_equal(reason(f), REASON_WAITING_FOR_DATASET);
    check_text(f, "copying");
    size_t started = f->started; /* where it is it was told of the move */
    uint64_t before = f->revision;
    have(f, 1, true);
    assert_int_equal(record(f)->transfer.phase, TRANSFER_RELEASE);
    assert_true(record(f)->revision == before + 2 ||
                record(f)->revision == before + 1);                      /* both by one commit */
    assert_true(uuid_eq(&f->stored->owner, &(struct uuid){.b[15] = 2})); /* D has arrived */
    assert_int_equal(f->started, started);
    check_text(f, "releasing");
    release(f, 1, 2);
    assert_int_equal(f->started, started + 1);
    have(f, 2, false);
    assert_int_equal(container_reason(f, "c"), REASON_NONE);
}

static void test_one_cannot_go(void **state)
{
    struct fake *f = *state;
    const struct command hold = {.kind = COMMAND_LEASE_ACQUIRE, .dataset_id = E, .node = id(1)};

    begin_on_1(f);
    assert_int_equal(run(f, hold), RESULT_CREATED);
    assert_int_equal(move_container(f, "c", 2), RESULT_OK);
    have(f, 1, true);
    assert_int_equal(f->stored->transfer.phase, TRANSFER_COPY);
    assert_int_equal(record(f)->transfer.phase, TRANSFER_COPY);
    assert_int_equal(reason(f), REASON_WAITING_FOR_DATASET);
    check_text(f, "lease-held");
    assert_int_equal(run(f, (struct command){.kind = COMMAND_LEASE_RELEASE, .dataset_id = E}),
                     RESULT_OK);
    assert_int_equal(record(f)->transfer.phase, TRANSFER_RELEASE);
    assert_true(uuid_eq(&f->stored->owner, &record(f)->primary));
}

/* One has arrived, the other is called back. */
static void test_taken_back_half_way(void **state)
{
    struct fake *f = *state;

    begin_on_1(f);
    assert_int_equal(move_container(f, "c", 2), RESULT_OK);
    have(f, 1, true);
    assert_true(uuid_eq(&f->stored->owner, &record(f)->primary));
    assert_int_equal(move_container(f, "c", 1), RESULT_OK);
    assert_int_equal(record(f)->transfer.id, 0);
    assert_true(record(f)->recalled);
    assert_int_equal(f->stored->transfer.id,
                     0); /* D went back without waiting: nothing runs on it */
    assert_true(uuid_eq(&f->stored->owner, &record(f)->owner));
    have(f, 1, false);
    assert_int_equal(container_reason(f, "c"), REASON_NONE);
}

/* Deleted, and still in use: it stays, and so does the other. */
static void test_one_is_deleted(void **state)
{
    struct fake *f = *state;

    begin_on_1(f);
    assert_int_equal(run(f, (struct command){.kind = COMMAND_DATASET_DELETE, .dataset_id = E}),
                     RESULT_OK);
    assert_int_equal(move_container(f, "c", 2), RESULT_OK);
    assert_int_equal(f->stored->transfer.phase, TRANSFER_COPY);
    check_text(f, "in-use-by-container");
    assert_int_equal(run(f, (struct command){.kind = COMMAND_CONTAINER_DELETE, .name = "c"}),
                     RESULT_OK);
    assert_true(uuid_eq(&f->stored->owner, &f->stored->primary));
    assert_int_not_equal(record(f)->tombstone, 0);
}

/* What it does not know an agent does not leave out. */
static void test_an_older_agent(void **state)
{
    struct fake *f = *state;

    begin_on_1(f);
    leave(f, 2);
    f->hellos[2].more_volumes = false;
    come_back(f, 2);
    assert_int_equal(move_container(f, "c", 2), RESULT_OK);
    have(f, 1, true);
    assert_int_equal(f->stored->transfer.phase, TRANSFER_COPY);
    assert_int_equal(reason(f), REASON_START_FAILED);
    assert_int_equal(container_reason(f, "c"), REASON_START_FAILED);
    leave(f, 2);
    f->hellos[2].more_volumes = true;
    come_back(f, 2);
    assert_int_equal(record(f)->transfer.phase, TRANSFER_RELEASE);
}

/* Another order of starting is recorded; nothing is made anew. */
static void test_other_dependencies(void **state)
{
    struct fake *f = *state;
    const char *const names[] = {"", "c", "c"};

    know_volumes(f);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct composition all = composition(77, 1, true);
        struct container *second = container_new("second");
        second->node = id(1);
        second->image = xstrdup("img:1");
        if (*names[i]) {
            second->depends_on = xcalloc(1, sizeof(*second->depends_on));
            second->depends_on[second->n_depends_on++] =
                (struct dependency){xstrdup(names[i]), DEPENDENCY_STARTED};
        }
        all.containers = xrealloc(all.containers, 2, sizeof(*all.containers));
        all.containers[all.n_containers++] = second;
        const struct container *before = engine_container(f->e, "second");
        uint64_t created = before ? before->created : 0, revision = before ? before->revision : 0;
        assert_int_equal(run(f, (struct command){.kind = COMMAND_COMPOSE, .composition = &all}),
                         RESULT_OK);
        const struct container *now = engine_container(f->e, "second");
        assert_int_equal(now->n_depends_on, *names[i] != '\0');
        if (i)
            assert_int_equal(now->created, created);
        assert_int_equal(now->revision != revision, i < 2); /* the third time nothing is new */
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_held_until_all_are_there), TEST(test_leave_together), TEST(test_one_cannot_go),
        TEST(test_taken_back_half_way),      TEST(test_one_is_deleted), TEST(test_an_older_agent),
        TEST(test_other_dependencies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
