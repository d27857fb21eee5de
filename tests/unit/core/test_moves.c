/* What a dataset waits for on its way, and records that a store has kept but nobody expected. */
#include "fake_cluster.h"

#include "base/str.h"

/* Nodes 1 and 2 come again as these; the move to node 2 is asked for. */
static enum reason_code move_between(struct fake *f, struct hello first, struct hello second)
{
    f->hellos[1] = first;
    f->hellos[2] = second;
    for (unsigned char n = 1; n <= 2; n++) {
        leave(f, n);
        come_back(f, n);
    }
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(move(f, 2), RESULT_OK);
    assert_int_equal(f->reports[1].volume.mounted, !f->reports[2].volume.mounted);
    return reason(f);
}

static void test_another_backend(void **state)
{
    assert_int_equal(move_between(*state, (struct hello){.backend = (char *)"btrfs"}, (struct hello){.backend = (char *)"zfs"}),
                     REASON_BACKEND_MISMATCH);
}

static void test_another_kind_of_storage(void **state)
{
    assert_int_equal(move_between(*state, (struct hello){.backend = (char *)"x"},
                                  (struct hello){.backend = (char *)"x", .storage = STORAGE_ATTACHABLE}),
                     REASON_BACKEND_MISMATCH);
}

static struct hello shared(unsigned char by)
{
    return (struct hello){.backend = (char *)"x", .storage = STORAGE_ATTACHABLE, .shared_by = by ? id(by) : UUID_NIL};
}

static void test_storage_is_not_found_yet(void **state)
{
    struct fake *f = *state;

    assert_int_equal(move_between(f, shared(0), shared(40)), REASON_STORAGE_MISSING);
    f->hellos[1] = shared(40);
    leave(f, 1);
    come_back(f, 1);
    assert_int_equal(reason(f), REASON_NONE); /* it has moved */
    assert_true(f->reports[2].volume.mounted);
    f->hellos[1] = shared(0);
    leave(f, 1);
    come_back(f, 1);
    assert_int_equal(move(f, 1), RESULT_OK);
    assert_int_equal(reason(f), REASON_STORAGE_MISSING); /* the destination's */
}

static void test_storage_is_not_shared(void **state)
{
    assert_int_equal(move_between(*state, shared(40), shared(41)), REASON_CANNOT_MOVE);
}

static void test_shared_storage(void **state)
{
    assert_int_equal(move_between(*state, shared(40), shared(40)), REASON_NONE);
}

static void test_who_is_away(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    leave(f, 2);
    assert_int_equal(move(f, 2), RESULT_OK);
    assert_int_equal(reason(f), REASON_DESTINATION_DISCONNECTED);
    leave(f, 1);
    come_back(f, 2);
    assert_int_equal(reason(f), REASON_OWNER_DISCONNECTED);
    come_back(f, 1);
    assert_int_equal(reason(f), REASON_NONE);
    assert_true(f->reports[2].volume.mounted);
}

/* A release that is said of another transfer, or of another epoch, is none. */
static void test_an_outdated_release(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    f->deaf[1] = true;
    assert_int_equal(move(f, 2), RESULT_OK);
    struct transfer t = f->stored->transfer;
    f->reports[1].copied = t.id;
    tell(f, 1);
    settle(f);
    assert_int_equal(f->role[1], ROLE_RELEASE);
    f->reports[1].volume.mounted = false;
    f->reports[2].received = t.id;
    f->reports[2].received_snapshot = (char *)"final";
    tell(f, 2);
    struct volume_mark marks[] = {{MARK_RELEASED, t.epoch - 1, t.id, "final"},
                                  {MARK_RELEASED, t.epoch, t.id - 1, "final"},
                                  {MARK_RELEASED, t.epoch, t.id, "other"}};
    for (size_t i = 0; i < ARRAY_SIZE(marks); i++) {
        f->reports[1].volume.mark = marks[i];
        tell(f, 1);
        settle(f);
        assert_int_equal(reason(f), REASON_RELEASING);
        assert_true(uuid_eq(&f->stored->owner, &t.source));
    }
    /* The source has released, and the destination is away. */
    leave(f, 2);
    f->reports[1].volume.mark = (struct volume_mark){MARK_RELEASED, t.epoch, t.id, "other"};
    tell(f, 1);
    assert_int_equal(reason(f), REASON_DESTINATION_DISCONNECTED);
    leave(f, 1);
    f->reports[1].volume.mark = (struct volume_mark){MARK_RELEASED, t.epoch, t.id, "final"};
    come_back(f, 1);
    assert_true(uuid_eq(&f->stored->owner, &t.destination)); /* what it received is known */
}

static uint64_t rate_after(struct fake *f, uint64_t us, uint64_t bytes)
{
    f->now.mono_us += us;
    f->reports[1].bytes_sent = bytes;
    tell(f, 1);
    settle(f);
    return engine_transfer_rate(f->e, f->now, &D);
}

static void test_how_fast_it_goes(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(rate_after(f, USEC_PER_SEC, 5000), 0); /* no transfer */
    f->deaf[1] = true;
    assert_int_equal(move(f, 2), RESULT_OK);
    assert_int_equal(rate_after(f, USEC_PER_SEC, 6000), 0); /* of one report nothing is known */
    assert_int_equal(rate_after(f, 2 * USEC_PER_SEC, 8000), 1000);
    assert_int_equal(rate_after(f, USEC_PER_SEC / 10, 8900), 1000); /* too near */
    assert_int_equal(rate_after(f, 9 * USEC_PER_SEC / 10, 13000), 2000); /* (3 * 1000 + 5000) / 4 */
    assert_int_equal(rate_after(f, USEC_PER_SEC, 13000), 2000); /* about something else */
    f->reports[2].bytes_sent = 1000000; /* of an earlier time, when it was the source */
    tell(f, 2);
    assert_int_equal(engine_transfer_rate(f->e, f->now, &D), 2000);
    assert_int_equal(rate_after(f, 9 * USEC_PER_SEC, 13000), 0); /* stands still */
    assert_int_equal(rate_after(f, USEC_PER_SEC, 24000), (3 * 2000 + 1000) / 4);
    assert_int_equal(rate_after(f, USEC_PER_SEC, 10), 0); /* an increment begins */
    assert_int_equal(rate_after(f, USEC_PER_SEC, 510), 500);
    assert_int_equal(move(f, 1), RESULT_OK);
    assert_int_equal(engine_transfer_rate(f->e, f->now, &D), 0);
    struct uuid nobody = id(78);
    assert_int_equal(engine_transfer_rate(f->e, f->now, &nobody), 0);
}

static void test_a_release_that_is_taken_back(void **state)
{
    struct fake *f = *state;
    struct uuid one = id(1);

    assert_int_equal(create(f, 1), RESULT_CREATED);
    f->deaf[1] = true;
    assert_int_equal(move(f, 2), RESULT_OK);
    f->reports[1].copied = f->stored->transfer.id;
    tell(f, 1);
    settle(f);
    assert_int_equal(f->role[1], ROLE_RELEASE);
    assert_int_equal(lease(f, 1), RESULT_LEASE_RELEASING);
    assert_int_equal(lease(f, 3), RESULT_CREATED); /* holds nothing there */
    uint64_t epoch = f->stored->epoch;
    assert_int_equal(move(f, 1), RESULT_OK);
    assert_true(f->stored->epoch > epoch);
    assert_true(uuid_eq(&f->stored->owner, &one));
    assert_true(f->stored->recalled);
    assert_int_equal(reason(f), REASON_MOUNTING);
    assert_int_equal(unlease(f), RESULT_OK);
    assert_int_equal(lease(f, 1), RESULT_LEASE_RELEASING); /* it may have released already */
    assert_int_equal(lease(f, 3), RESULT_CREATED);
    leave(f, 1);
    assert_int_equal(reason(f), REASON_OWNER_DISCONNECTED);
    f->deaf[1] = false;
    come_back(f, 1);
    assert_false(f->stored->recalled);
    assert_int_equal(reason(f), REASON_NONE);
    assert_int_equal(unlease(f), RESULT_OK);
    assert_int_equal(lease(f, 1), RESULT_CREATED);
}

/* A lease whose release is not durable yet holds as well. */
static void test_a_lease_holds_until_its_release_is_durable(void **state)
{
    struct fake *f = *state;
    struct command go = {.kind = COMMAND_LEASE_RELEASE, .dataset_id = D};

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(lease(f, 1), RESULT_CREATED);
    assert_int_equal(move(f, 2), RESULT_OK);
    assert_int_equal(reason(f), REASON_LEASE_HELD);
    engine_command(f->e, f->now, &go);
    tell(f, 1); /* looks at it again meanwhile */
    assert_int_equal(reason(f), REASON_LEASE_HELD);
    f->fails = "disk full";
    settle(f);
    f->fails = NULL;
    f->now.mono_us = engine_deadline(f->e);
    engine_tick(f->e, f->now);
    settle(f);
    assert_int_equal(reason(f), REASON_LEASE_HELD);
    assert_int_equal(unlease(f), RESULT_OK);
    assert_true(f->reports[2].volume.mounted);
    assert_int_equal(lease(f, 2), RESULT_CREATED);
    assert_int_equal(remove_dataset(f, false), RESULT_OK);
    assert_int_equal(reason(f), REASON_LEASE_HELD);
    assert_int_equal(unlease(f), RESULT_OK);
    assert_false(f->reports[2].volume.present);
}

/* The container's image is fetched before its dataset is taken away from where it runs. */
static void test_the_image_first(void **state)
{
    struct fake *f = *state;
    struct container_report fetching = {.name = (char *)"c", .reason = {.code = REASON_WAITING_FOR_IMAGE}};

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(create_container(f, with_volume(1, "c")), RESULT_CREATED);
    f->deaf[2] = true;
    assert_int_equal(move_container(f, "c", 2), RESULT_OK);
    assert_int_equal(reason(f), REASON_WAITING_FOR_IMAGE);
    engine_container_report(f->e, f->now, f->sessions[2], &fetching);
    assert_int_equal(reason(f), REASON_WAITING_FOR_IMAGE);
    fetching.reason = (struct reason){.code = REASON_IMAGE_MISSING};
    engine_container_report(f->e, f->now, f->sessions[2], &fetching);
    assert_int_equal(reason(f), REASON_IMAGE_MISSING);
    fetching.reason.text = (char *)"there is no such image";
    engine_container_report(f->e, f->now, f->sessions[2], &fetching);
    assert_int_equal(reason(f), REASON_IMAGE_MISSING);
    assert_true(f->reports[1].volume.mounted);
    f->deaf[2] = false;
    fetching = (struct container_report){.name = (char *)"c", .image_ready = true};
    engine_container_report(f->e, f->now, f->sessions[2], &fetching);
    settle(f);
    assert_true(f->reports[2].volume.mounted);
    assert_int_equal(container_reason(f, "c"), REASON_NONE);
}

/* A volume that a node has mounted, without a mark and without being on the list, is in the way of a grant elsewhere. */
static void test_a_stranger(void **state)
{
    struct fake *f = *state;

    f->reports[3].volume.present = f->reports[3].volume.mounted = true;
    tell(f, 3);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(reason(f), REASON_STORE_UNKNOWN);
    assert_false(f->reports[1].volume.present);
    f->reports[3] = (struct report){0};
    tell(f, 3);
    settle(f);
    assert_int_equal(reason(f), REASON_NONE);
}

/* It is started anew, on a new disk: nothing is in the way any more. */
static void test_a_stranger_that_lost_it(void **state)
{
    struct fake *f = *state;

    f->reports[3].volume.present = f->reports[3].volume.mounted = true;
    tell(f, 3);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    leave(f, 3);
    f->reports[3] = (struct report){0};
    f->hellos[3].era = id(123);
    come_back(f, 3);
    assert_int_equal(reason(f), REASON_NONE);
    assert_true(f->reports[1].volume.mounted);
}

/* A damaged mark must not use up the numbers. */
static void test_a_damaged_mark(void **state)
{
    struct fake *f = *state;
    struct volume_mark damaged[] = {{.state = MARK_RELEASED, .epoch = UINT64_MAX},
                                    {.state = MARK_RELEASED, .epoch = 1, .transfer = UINT64_MAX}};

    for (size_t i = 0; i < ARRAY_SIZE(damaged); i++) {
        struct report r = {.volume = {.dataset = id((unsigned char)(80 + i)), .present = true, .mark = damaged[i]}};
        engine_report(f->e, f->now, f->sessions[1], &r);
    }
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_true(f->stored->epoch < 100);
}

/* Of two nodes that own it at epochs beyond the record's, none can be believed. */
static void test_two_later_owners(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    for (unsigned char n = 2; n <= NODES; n++) {
        f->reports[n].volume.present = true;
        f->reports[n].volume.mark = (struct volume_mark){.state = MARK_OWNED, .epoch = f->revision + 50 - n};
        tell(f, n);
    }
    uint64_t revision = f->revision;
    leave(f, 1);
    come_back(f, 1);
    assert_int_equal(reason(f), REASON_STORE_UNKNOWN);
    assert_int_equal(f->revision, revision);
    f->reports[3].volume.mark.epoch += 5;
    tell(f, 3);
    settle(f);
    assert_int_equal(reason(f), REASON_STORE_UNKNOWN);
    assert_int_equal(f->revision, revision);
}

static void restart(struct fake *f)
{
    engine_free(f->e);
    begin(f, 97, 50);
}

static void test_data_without_an_owner(void **state)
{
    struct fake *f = *state;
    struct dataset *d = wanted(77, 1);

    restart(f);
    d->born = true;
    engine_restore_dataset(f->e, d);
    come(f, 1, UUID_NIL, UUID_NIL, 0);
    settle(f);
    assert_int_equal(reason(f), REASON_DATA_MISSING);
    assert_false(f->reports[1].volume.present);
}

/* The store has a container, but not its dataset. */
static void test_a_container_without_its_dataset(void **state)
{
    struct fake *f = *state;

    restart(f);
    engine_restore_container(f->e, with_volume(1, "c"));
    for (unsigned char n = 1; n <= NODES; n++)
        come(f, n, UUID_NIL, UUID_NIL, 0);
    settle(f);
    assert_int_equal(f->started, 0);
    assert_int_equal(container_reason(f, "c"), REASON_WAITING_FOR_DATASET);
    assert_int_equal(move_container(f, "c", 2), RESULT_OK);
    assert_int_equal(f->started, 0);
    assert_int_equal(create(f, 2), RESULT_CREATED); /* it is made anew */
    assert_int_equal(f->started, 1);
    assert_int_equal(run(f, (struct command){.kind = COMMAND_CONTAINER_DELETE, .name = "c"}), RESULT_OK);
}

/* Two containers have the same volume for a moment, one of them until its end is durable. */
static void test_one_container_after_the_other(void **state)
{
    struct fake *f = *state;
    struct command going = {.kind = COMMAND_CONTAINER_DELETE, .name = "c"};

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(create_container(f, with_volume(1, "c")), RESULT_CREATED);
    engine_command(f->e, f->now, &going);
    f->fails = "disk full";
    assert_int_equal(create_container(f, with_volume(1, "d")), RESULT_STORE_FAILED);
    f->fails = NULL;
    struct uuid d = D;
    assert_string_equal(engine_container_of_dataset(f->e, &d)->name, "c");
    assert_null(engine_container(f->e, "d"));
    assert_int_equal(create_container(f, with_volume(1, "d")), RESULT_DATASET_IN_USE);
    engine_command(f->e, f->now, &going);
    assert_int_equal(create_container(f, with_volume(1, "d")), RESULT_CREATED);
    assert_string_equal(engine_container_of_dataset(f->e, &d)->name, "d");
}

/* A container gets another volume; until that is durable it has both, and the old one is free for others. */
static void test_a_container_gets_another_volume(void **state)
{
    struct fake *f = *state;
    struct dataset *datasets[] = {wanted(77, 1), wanted(78, 1)};
    struct container *c = with_volume(1, "c");
    struct composition all = {.datasets = xmemdup(datasets, sizeof(datasets)),
                              .n_datasets = 2,
                              .containers = xmemdup(&c, sizeof(struct container *)),
                              .n_containers = 1};
    struct command command = {.kind = COMMAND_COMPOSE, .composition = &all};
    struct uuid d = D;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(create_container(f, with_volume(1, "c")), RESULT_CREATED);
    c->volumes[0].dataset = id(78);
    engine_command(f->e, f->now, &command);
    assert_int_equal(create_container(f, with_volume(1, "d")), RESULT_CREATED);
    assert_string_equal(engine_container_of_dataset(f->e, &d)->name, "d");
    d = id(78);
    assert_string_equal(engine_container_of_dataset(f->e, &d)->name, "c");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_another_backend),
        TEST(test_another_kind_of_storage),
        TEST(test_storage_is_not_found_yet),
        TEST(test_storage_is_not_shared),
        TEST(test_shared_storage),
        TEST(test_who_is_away),
        TEST(test_an_outdated_release),
        TEST(test_how_fast_it_goes),
        TEST(test_a_release_that_is_taken_back),
        TEST(test_a_lease_holds_until_its_release_is_durable),
        TEST(test_the_image_first),
        TEST(test_a_stranger),
        TEST(test_a_stranger_that_lost_it),
        TEST(test_a_damaged_mark),
        TEST(test_two_later_owners),
        TEST(test_data_without_an_owner),
        TEST(test_a_container_without_its_dataset),
        TEST(test_one_container_after_the_other),
        TEST(test_a_container_gets_another_volume),
    };

    return cmocka_run_group_tests_name("moves", tests, NULL, NULL);
}
