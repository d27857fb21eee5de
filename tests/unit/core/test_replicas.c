/* Replicas: that they are kept, who keeps them, and everything that ends them. */
#include "fake_cluster.h"

#include "base/mem.h"
#include "base/str.h"

#define KEEP_US (3600 * (uint64_t)USEC_PER_SEC)

static void stand(struct fake *f, enum replica_support first, enum replica_support others)
{
    engine_keep_replicas(f->e, KEEP_US);
    for (unsigned char n = 1; n <= NODES; n++) {
        f->hellos[n].replicas = n == 1 ? first : others;
        f->hellos[n].compares = true;
        leave(f, n);
        come_back(f, n);
    }
    f->now.mono_us += 2 * NODE_GRACE_US;
    f->now.wall_us += 2 * NODE_GRACE_US;
    engine_tick(f->e, f->now);
}

/* On node 1, moved to node 2: node 1 has the replica. */
static void kept(struct fake *f)
{
    stand(f, REPLICAS_ALL, REPLICAS_ALL);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(move(f, 2), RESULT_OK);
    assert_true(f->reports[2].volume.mounted);
    assert_int_equal(reason(f), REASON_NONE);
}

static void assert_replica(const struct fake *f, unsigned char node)
{
    assert_non_null(f->stored->replica);
    assert_true(uuid_eq(&f->stored->replica->node, &(struct uuid){.b[15] = node}));
    assert_int_equal(f->stored->n_holders, 2);
    assert_int_equal(f->role[node], ROLE_REPLICA);
    assert_false(f->reports[node].volume.present);
    assert_int_equal(f->reports[node].volume.n_snapshots, 1);
}

/* Of node 1's; node 2 goes on. */
static void assert_ended(const struct fake *f)
{
    assert_null(f->stored->replica);
    assert_int_equal(f->stored->n_holders, 1);
    assert_true(f->reports[1].gone > 0);
    assert_int_equal(f->reports[1].volume.n_snapshots, 0);
    assert_true(f->reports[2].volume.mounted);
    assert_int_equal(f->reports[2].volume.n_snapshots, 0);
}

static void pass(struct fake *f, uint64_t us)
{
    f->now.mono_us += us;
    f->now.wall_us += us;
    engine_tick(f->e, f->now);
    settle(f);
}

static void test_kept(void **state)
{
    struct fake *f = *state;

    kept(f);
    assert_replica(f, 1);
    assert_string_equal(f->stored->replica->base, "final");
    assert_true(f->stored->replica->until_us == f->now.wall_us + KEEP_US);
    assert_int_equal(engine_counts(f->e).replicas, 1);
}

static void test_time_over(void **state)
{
    struct fake *f = *state;

    kept(f);
    engine_tick(f->e, f->now);
    assert_true(engine_deadline(f->e) == f->now.mono_us + KEEP_US);
    pass(f, KEEP_US - 1);
    assert_replica(f, 1);
    pass(f, 1);
    assert_ended(f);
    assert_int_equal(engine_counts(f->e).replicas, 0);
    assert_true(engine_deadline(f->e) == USEC_NEVER);
}

/* The service starts again with what the store has: keeping for `keep_us` from now on. */
static void start_again(struct fake *f, uint64_t keep_us)
{
    struct dataset *d = dataset_copy(f->stored);

    engine_free(f->e);
    begin(f, 97, f->revision);
    engine_keep_replicas(f->e, keep_us);
    engine_restore_dataset(f->e, d);
    engine_tick(f->e, f->now);
    for (unsigned char n = 1; n <= NODES; n++)
        come(f, n, UUID_NIL, UUID_NIL, 0);
    settle(f);
}

static void test_start_again(void **state)
{
    struct fake *f = *state;

    kept(f);
    start_again(f, KEEP_US);
    assert_replica(f, 1);
    pass(f, KEEP_US);
    assert_ended(f);
}

static void test_over_while_the_service_was_away(void **state)
{
    struct fake *f = *state;

    kept(f);
    f->now.mono_us += KEEP_US;
    f->now.wall_us += KEEP_US;
    start_again(f, KEEP_US);
    assert_ended(f);
}

static void test_none_any_more(void **state)
{
    struct fake *f = *state;

    kept(f);
    start_again(f, 0);
    assert_ended(f);
}

static void test_not_kept(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(move(f, 2), RESULT_OK); /* by the engine's default */
    assert_ended(f);
}

static void test_older_agents(void **state)
{
    struct fake *f = *state;

    stand(f, REPLICAS_NONE, REPLICAS_ALL);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(move(f, 2), RESULT_OK);
    assert_null(f->stored->replica);
    assert_int_equal(move(f, 3), RESULT_OK); /* both can */
    assert_replica(f, 2);
    assert_int_equal(move(f, 1), RESULT_OK); /* the owner could not keep its side */
    assert_null(f->stored->replica);
    assert_int_equal(f->stored->n_holders, 1);
}

/* An agent that was put back to an older version never hears of what it does not know. */
static void test_an_agent_becomes_older(void **state)
{
    struct fake *f = *state;

    kept(f);
    leave(f, 1);
    f->hellos[1].replicas = REPLICAS_NONE;
    f->role[1] = ROLE_NONE;
    f->deaf[1] = true;
    come_back(f, 1);
    assert_null(f->stored->replica);
    assert_int_equal(f->role[1], ROLE_DROP);
}

static enum result_code create_with_limit(struct fake *f)
{
    struct dataset *d = wanted(77, 1);

    d->maximum_size = DATASET_MIN_SIZE;
    return run(f, (struct command){.kind = COMMAND_DATASET_CREATE, .dataset = d});
}

/* A snapshot that is kept would fill up the volume. */
static void test_limited_where_snapshots_count(void **state)
{
    struct fake *f = *state;

    stand(f, REPLICAS_NO_LIMIT, REPLICAS_NO_LIMIT);
    assert_int_equal(create_with_limit(f), RESULT_CREATED);
    assert_int_equal(move(f, 2), RESULT_OK);
    assert_ended(f);
}

static void test_limited_where_they_do_not(void **state)
{
    struct fake *f = *state;

    stand(f, REPLICAS_ALL, REPLICAS_ALL);
    assert_int_equal(create_with_limit(f), RESULT_CREATED);
    assert_int_equal(move(f, 2), RESULT_OK);
    assert_replica(f, 1);
}

static void test_shared_storage(void **state)
{
    struct fake *f = *state;

    for (unsigned char n = 1; n <= NODES; n++)
        f->hellos[n] = (struct hello){.backend = (char *)"x", .storage = STORAGE_ATTACHABLE, .shared_by = id(40)};
    stand(f, REPLICAS_ALL, REPLICAS_ALL);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(move(f, 2), RESULT_OK);
    assert_null(f->stored->replica);
}

static void test_moved_back(void **state)
{
    struct fake *f = *state;

    kept(f);
    assert_int_equal(move(f, 1), RESULT_OK);
    assert_true(f->reports[1].volume.mounted);
    assert_replica(f, 2);
}

static void test_moved_on(void **state)
{
    struct fake *f = *state;

    kept(f);
    assert_int_equal(move(f, 3), RESULT_OK);
    assert_true(f->reports[3].volume.mounted);
    assert_replica(f, 2);
    assert_true(f->reports[1].gone > 0);
}

static void test_space_wanted(void **state)
{
    struct fake *f = *state;

    kept(f);
    f->reports[1].space_wanted = true;
    tell(f, 1);
    settle(f);
    assert_ended(f);
}

static void test_lost_at_either_end(void **state)
{
    struct fake *f = *state;

    for (unsigned char n = 1; n <= 2; n++) {
        if (n == 1)
            kept(f);
        else
            assert_int_equal(move(f, 1), RESULT_OK); /* back, so that there is one again ... */
        if (n == 2)
            assert_int_equal(move(f, 2), RESULT_OK); /* ... on node 1 */
        assert_replica(f, 1);
        f->reports[n].volume.n_snapshots = 0;
        tell(f, n);
        settle(f);
        assert_ended(f);
    }
}

/* Nothing is known of a node whose storage does not answer. */
static void test_storage_unknown(void **state)
{
    struct fake *f = *state;
    struct report all = {0};

    kept(f);
    leave(f, 1);
    all = f->reports[1];
    f->reports[1].volume.present = false;
    f->sessions[1] += 10;
    struct hello h = f->hellos[1];
    h.protocol = AGENT_PROTOCOL_VERSION;
    h.node = id(1);
    h.era = id(61);
    engine_session_open(f->e, f->now, f->sessions[1], &h);
    engine_reports_complete(f->e, f->now, f->sessions[1], REPORTS_STORAGE_UNKNOWN);
    settle(f);
    assert_non_null(f->stored->replica);
    f->reports[1] = all;
    f->reports[1].volume.snapshots = f->kept[1];
    tell(f, 1);
    engine_reports_complete(f->e, f->now, f->sessions[1], 0);
    settle(f);
    assert_replica(f, 1);
}

static enum result_code drop(struct fake *f)
{
    return run(f, (struct command){.kind = COMMAND_REPLICA_DROP, .dataset_id = D});
}

static void test_dropped_by_the_operator(void **state)
{
    struct fake *f = *state;

    assert_int_equal(drop(f), RESULT_DATASET_NOT_FOUND);
    kept(f);
    assert_int_equal(drop(f), RESULT_OK);
    assert_ended(f);
    assert_int_equal(drop(f), RESULT_REPLICA_NOT_FOUND);
}

static void test_deleted(void **state)
{
    struct fake *f = *state;

    kept(f);
    assert_int_equal(remove_dataset(f, /* purge= */ false), RESULT_OK);
    assert_null(f->stored->replica);
    assert_int_equal(f->stored->n_holders, 0);
    assert_int_equal(f->role[1], ROLE_DESTROY);
    assert_int_equal(engine_counts(f->e).replicas, 0);
}

/* Node 1 keeps its copy whole while nobody knows that node 2 has the data. */
static void test_owner_away(void **state)
{
    struct fake *f = *state;

    stand(f, REPLICAS_ALL, REPLICAS_ALL);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    f->deaf[2] = true;
    assert_int_equal(move(f, 2), RESULT_OK);
    f->reports[2].received = f->stored->transfer.id;
    f->reports[2].received_snapshot = (char *)"final";
    tell(f, 2);
    settle(f);
    assert_true(uuid_eq(&f->stored->owner, &(struct uuid){.b[15] = 2}));
    assert_non_null(f->stored->replica);
    assert_int_equal(f->role[1], ROLE_KEEP); /* it has not mounted it yet */
    assert_true(f->reports[1].volume.present);
    leave(f, 2);
    pass(f, KEEP_US);
    assert_int_equal(f->role[1], ROLE_KEEP);
    assert_true(f->reports[1].volume.present);
    f->deaf[2] = false;
    f->reports[2].received = 1;
    come_back(f, 2);
    assert_ended(f);
}

/* A move to node 3 that stays in its copy phase. */
static void begin_to_move(struct fake *f, unsigned char node)
{
    f->deaf[2] = true;
    assert_int_equal(move(f, node), RESULT_OK);
    assert_int_equal(f->stored->transfer.phase, TRANSFER_COPY);
    assert_int_not_equal(f->stored->transfer.id, 0);
}

static void test_cancelled(void **state)
{
    struct fake *f = *state;

    kept(f);
    begin_to_move(f, 3);
    assert_int_equal(f->role[1], ROLE_REPLICA);
    f->deaf[2] = false;
    assert_int_equal(move(f, 2), RESULT_OK);
    assert_int_equal(f->stored->transfer.id, 0);
    assert_replica(f, 1);
}

static void test_time_over_during_a_move(void **state)
{
    struct fake *f = *state;

    kept(f);
    begin_to_move(f, 3);
    pass(f, KEEP_US);
    assert_null(f->stored->replica);
    assert_int_equal(f->role[1], ROLE_DROP);
}

/* What is just being made the newest copy does not end under way; when that is taken back, it does. */
static void test_time_over_on_the_way_back(void **state)
{
    struct fake *f = *state;

    kept(f);
    begin_to_move(f, 1);
    assert_int_equal(f->role[1], ROLE_RECEIVE);
    pass(f, KEEP_US);
    assert_non_null(f->stored->replica);
    f->deaf[2] = false;
    assert_int_equal(move(f, 2), RESULT_OK);
    assert_ended(f);
}

/* The clock is set back, or forward: the replica ends by it all the same. */
static void test_clock_is_set(void **state)
{
    struct fake *f = *state;

    kept(f);
    f->now.wall_us += 2 * KEEP_US;
    for (int hours = 0; hours < 2 && f->stored->replica; hours++) {
        f->now.mono_us += KEEP_US;
        engine_tick(f->e, f->now);
        settle(f);
    }
    assert_ended(f);
}

static void test_store_does_not_work(void **state)
{
    struct fake *f = *state;

    kept(f);
    f->fails = "disk full";
    pass(f, KEEP_US);
    assert_non_null(f->stored->replica);
    f->fails = NULL;
    pass(f, 60 * USEC_PER_SEC);
    assert_ended(f);
}

/* A store that was put back knows a replica that has got the data since: the record follows to it, and nothing there is made
 * less. */
static void test_restored_from_before_the_way_back(void **state)
{
    struct fake *f = *state;

    kept(f);
    struct dataset *old = dataset_copy(f->stored);
    uint64_t then = f->revision;
    assert_int_equal(move(f, 1), RESULT_OK);
    assert_replica(f, 2);
    engine_free(f->e);
    f->restored = then;
    f->unsettled = true;
    begin(f, 97, then);
    engine_keep_replicas(f->e, KEEP_US);
    engine_restore_dataset(f->e, old);
    engine_tick(f->e, f->now);
    f->deaf[1] = f->deaf[2] = true; /* by their marks */
    come(f, 2, UUID_NIL, UUID_NIL, 0);
    settle(f);
    assert_true(uuid_eq(&listed(f)->owner, &(struct uuid){.b[15] = 2}));
    assert_int_equal(f->role[2],
                     ROLE_NONE); /* it does not have it mounted: who got it since is not known */
    pass(f, KEEP_US);
    assert_null(listed(f)->replica);
    assert_int_equal(listed(f)->n_holders, 2); /* it is not forgotten */
    f->role[1] = ROLE_NONE;
    come(f, 1, UUID_NIL, UUID_NIL, 0);
    settle(f);
    assert_true(uuid_eq(&f->stored->owner, &(struct uuid){.b[15] = 1}));
    assert_null(f->stored->replica);
    assert_true(f->role[1] == ROLE_OWNER || f->role[1] == ROLE_SOURCE);
}

/* ---- comparisons ---- */

static enum result_code verify(struct fake *f)
{
    return run(f, (struct command){.kind = COMMAND_REPLICA_VERIFY, .dataset_id = D});
}

static const struct comparison *comparison(struct fake *f)
{
    return engine_comparison(f->e, &D);
}

/* The owner, node 2, says how the comparison of that number ended. */
static void compared(struct fake *f, uint64_t number, enum comparison_end end, const char *text)
{
    struct compared c = {number, end, (char *)text};

    f->reports[2].compared = &c;
    tell(f, 2);
    f->reports[2].compared = NULL;
    settle(f);
}

static void assert_not_ordered(const struct fake *f)
{
    assert_int_equal(f->compare[1], 0);
    assert_int_equal(f->compare[2], 0);
}

static void assert_not_now(struct fake *f, const char *why)
{
    assert_int_equal(verify(f), RESULT_COMPARISON_NOT_NOW);
    assert_non_null(strstr(f->text, why));
    assert_not_ordered(f);
}

static void assert_failed(struct fake *f, const char *why)
{
    assert_int_equal(comparison(f)->end, COMPARISON_FAILED);
    assert_non_null(strstr(comparison(f)->text, why));
    assert_true(comparison(f)->ended_us > 0);
}

static void test_compared(void **state)
{
    struct fake *f = *state;

    kept(f);
    assert_null(comparison(f));
    assert_int_equal(verify(f), RESULT_CREATED);
    uint64_t number = comparison(f)->number;
    assert_true(number > 1ull << 50 && number < 1ull << 53);
    assert_int_equal(comparison(f)->end, COMPARISON_RUNS);
    assert_string_equal(comparison(f)->snapshot, "final");
    assert_true(f->compare[1] == number && f->compare[2] == number);
    assert_true(uuid_eq(&f->compare_with[1], &(struct uuid){.b[15] = 2}));
    assert_true(uuid_eq(&f->compare_with[2], &(struct uuid){.b[15] = 1}));
    assert_int_equal(verify(f), RESULT_OK); /* it runs */
    assert_true(comparison(f)->number == number);
    f->reports[1].volume.partial = true; /* what it makes to read the snapshot */
    tell(f, 1);
    settle(f);
    compared(f, number - 1, COMPARISON_EQUAL, NULL); /* another's */
    assert_int_equal(comparison(f)->end, COMPARISON_RUNS);
    compared(f, number, COMPARISON_EQUAL, NULL);
    assert_int_equal(comparison(f)->end, COMPARISON_EQUAL);
    assert_true(comparison(f)->ended_us == f->now.wall_us);
    assert_not_ordered(f);
    assert_replica(f, 1);
    assert_int_equal(reason(f), REASON_NONE);
    assert_int_equal(verify(f), RESULT_CREATED); /* once more */
    assert_true(comparison(f)->number != number);
    assert_int_equal(comparison(f)->end, COMPARISON_RUNS);
}

static void test_compared_and_different(void **state)
{
    struct fake *f = *state;

    kept(f);
    assert_int_equal(verify(f), RESULT_CREATED);
    f->fails = "disk full"; /* and it must not be forgotten that it is to go */
    compared(f, comparison(f)->number, COMPARISON_DIFFERS, "not the same");
    assert_int_equal(comparison(f)->end, COMPARISON_DIFFERS);
    assert_string_equal(comparison(f)->text, "not the same");
    assert_non_null(f->stored->replica);
    f->fails = NULL;
    pass(f, 60 * USEC_PER_SEC);
    assert_ended(f);
    assert_int_equal(verify(f), RESULT_REPLICA_NOT_FOUND);
    assert_int_equal(comparison(f)->end, COMPARISON_DIFFERS); /* still told */
}

/* Just after a move: what passes by itself is told apart. */
static void test_compared_too_early(void **state)
{
    struct fake *f = *state;

    kept(f);
    f->reports[1].volume.present =
        true; /* what it had is being taken away, and only the snapshot will stay */
    tell(f, 1);
    settle(f);
    assert_int_equal(verify(f), RESULT_COMPARISON_SOON);
    assert_non_null(strstr(f->text, "is still making its copy"));
    assert_not_ordered(f);
}

static void test_not_compared(void **state)
{
    struct fake *f = *state;

    assert_int_equal(verify(f), RESULT_DATASET_NOT_FOUND);
    kept(f);
    leave(f, 1);
    assert_not_now(f, "is not connected");
    come_back(f, 1);
    leave(f, 2);
    assert_not_now(f, "the owner, node");
    come_back(f, 2);
    leave(f, 1);
    f->hellos[1].compares = false;
    come_back(f, 1);
    assert_not_now(f, "older release");
    leave(f, 1);
    f->hellos[1].compares = true;
    come_back(f, 1);
    assert_int_equal(verify(f), RESULT_CREATED);
    assert_int_equal(remove_dataset(f, /* purge= */ false), RESULT_OK);
    assert_int_equal(verify(f), RESULT_DATASET_DELETED);
}

/* Whatever else is wanted comes first. */
static void test_a_comparison_is_in_nobodys_way(void **state)
{
    struct fake *f = *state;

    kept(f);
    assert_int_equal(verify(f), RESULT_CREATED);
    f->deaf[2] = true;
    assert_int_equal(move(f, 1), RESULT_OK); /* onto the replica */
    assert_int_equal(f->role[2], ROLE_SOURCE);
    assert_failed(f, "a move to node");
    assert_not_ordered(f);
    assert_not_now(f, "a move to node");
    f->deaf[2] = false;
    assert_int_equal(move(f, 2), RESULT_OK);
    assert_int_equal(verify(f), RESULT_CREATED);
    leave(f, 2);
    assert_failed(f, "is not connected");
    come_back(f, 2);
    assert_not_ordered(f);
    assert_int_equal(verify(f), RESULT_CREATED);
    assert_int_equal(drop(f), RESULT_OK);
    assert_failed(f, "was removed");
    assert_ended(f);
}

static void test_a_comparison_ends_with_the_dataset(void **state)
{
    struct fake *f = *state;

    kept(f);
    assert_int_equal(verify(f), RESULT_CREATED);
    assert_int_equal(remove_dataset(f, /* purge= */ false), RESULT_OK);
    assert_failed(f, "deleted");
    assert_int_equal(f->stored->n_holders, 0);
}

/* The wish is in memory only: nobody is told to compare any more, and who asked can see that. */
static void test_a_comparison_is_lost_with_the_process(void **state)
{
    struct fake *f = *state;

    kept(f);
    assert_int_equal(verify(f), RESULT_CREATED);
    assert_true(f->compare[2] != 0);
    start_again(f, KEEP_US);
    assert_null(comparison(f));
    assert_not_ordered(f);
    assert_replica(f, 1);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(test_##name, fake_setup, fake_teardown)
    const struct CMUnitTest tests[] = {
        TEST(kept),
        TEST(time_over),
        TEST(start_again),
        TEST(over_while_the_service_was_away),
        TEST(none_any_more),
        TEST(not_kept),
        TEST(older_agents),
        TEST(an_agent_becomes_older),
        TEST(limited_where_snapshots_count),
        TEST(limited_where_they_do_not),
        TEST(shared_storage),
        TEST(moved_back),
        TEST(moved_on),
        TEST(space_wanted),
        TEST(lost_at_either_end),
        TEST(storage_unknown),
        TEST(dropped_by_the_operator),
        TEST(deleted),
        TEST(owner_away),
        TEST(cancelled),
        TEST(time_over_during_a_move),
        TEST(time_over_on_the_way_back),
        TEST(clock_is_set),
        TEST(store_does_not_work),
        TEST(restored_from_before_the_way_back),
        TEST(compared),
        TEST(compared_and_different),
        TEST(compared_too_early),
        TEST(not_compared),
        TEST(a_comparison_is_in_nobodys_way),
        TEST(a_comparison_ends_with_the_dataset),
        TEST(a_comparison_is_lost_with_the_process),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
