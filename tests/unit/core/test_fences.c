/* Nodes of which an operator signs that they are off: what is freed, what is not, and what happens when one comes back. */
#include "fake_cluster.h"

#include "base/mem.h"
#include "base/str.h"

#include <stdio.h>

#define KEEP_US (3600 * (uint64_t)USEC_PER_SEC)

static enum result_code fence(struct fake *f, unsigned char n)
{
    return run(f, (struct command){.kind = COMMAND_NODE_FENCE, .node = id(n), .who = "alice", .why = "its power supply burned"});
}

static enum result_code unfence(struct fake *f, unsigned char n)
{
    return run(f, (struct command){.kind = COMMAND_NODE_UNFENCE, .node = id(n)});
}

static enum result_code drop_copy(struct fake *f, unsigned char n)
{
    return run(f, (struct command){.kind = COMMAND_COPY_DROP, .dataset_id = D, .node = id(n)});
}

/* All nodes anew, with such storage. */
static void stand(struct fake *f, enum storage_kind storage, enum replica_support replicas)
{
    engine_keep_replicas(f->e, KEEP_US);
    for (unsigned char n = 1; n <= NODES; n++) {
        leave(f, n);
        f->hellos[n].storage = storage;
        f->hellos[n].replicas = replicas;
        f->hellos[n].shared_by = storage == STORAGE_ATTACHABLE ? id(50) : UUID_NIL;
        come_back(f, n);
    }
}

/* It was started anew: nothing is mounted. */
static void boot(struct fake *f, unsigned char n)
{
    f->hellos[n].era = id((unsigned char)(120 + n));
    f->reports[n].volume.mounted = false;
    come_back(f, n);
}

/* What is said of D. */
static void assert_says(struct fake *f, const char *words)
{
    struct reason r;

    engine_dataset_reason(f->e, f->now, &D, &r);
    assert_int_equal(r.code, REASON_DATA_ON_FENCED_NODE);
    if (!strstr(r.text, words))
        fail_msg("%s", r.text);
    reason_done(&r);
}

static bool is_owner(const struct fake *f, unsigned char n)
{
    return uuid_eq(&f->stored->owner, &(struct uuid){.b[15] = n});
}

static void shared(struct fake *f)
{
    stand(f, STORAGE_ATTACHABLE, REPLICAS_NONE);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_true(f->reports[1].volume.mounted);
    f->reports[2].volume.present = f->reports[3].volume.present = true; /* they see it */
}

static void test_attached_elsewhere(void **state)
{
    struct fake *f = *state;

    shared(f);
    assert_int_equal(lease(f, 1), RESULT_CREATED);
    uint64_t epoch = f->stored->epoch;
    leave(f, 1);
    assert_int_equal(reason(f), REASON_NODE_DISCONNECTED);
    assert_int_equal(fence(f, 1), RESULT_OK);
    assert_string_equal(f->fence->who, "alice");
    assert_true(uuid_eq(&f->fence->era, &(struct uuid){.b[15] = 61}));
    assert_true(uuid_is_nil(&f->stored->owner) && f->stored->epoch > epoch);
    assert_int_equal(reason(f), REASON_NODE_FENCED); /* and says that it is to be moved */
    assert_int_equal(lease(f, 1), RESULT_NODE_FENCED);
    assert_int_equal(engine_counts(f->e).leases, 0);
    epoch = f->stored->epoch;
    assert_int_equal(move(f, 2), RESULT_OK);
    assert_true(is_owner(f, 2) && f->stored->epoch > epoch && f->stored->born);
    assert_int_equal(f->fenced[2], 1);
    assert_true(f->reports[2].volume.mounted);
    assert_int_equal(reason(f), REASON_NONE);
    /* The first one comes back, started anew: it gives up what it has, and is one as any other. */
    boot(f, 1);
    assert_null(f->fence);
    assert_false(f->reports[1].volume.mounted);
    assert_int_equal(f->stored->n_holders, 1);
    assert_null(f->stored->fenced);
    assert_int_equal(f->fenced[2], 0);
    assert_int_equal(drop_copy(f, 1), RESULT_COPY_NOT_FOUND);
}

static void test_wanted_elsewhere_before(void **state)
{
    struct fake *f = *state;

    shared(f);
    leave(f, 1);
    move(f, 3);
    assert_int_equal(reason(f), REASON_OWNER_DISCONNECTED);
    fence(f, 1);
    assert_true(is_owner(f, 3));
    assert_int_equal(reason(f), REASON_NONE);
}

static void test_other_storage(void **state)
{
    struct fake *f = *state;

    shared(f);
    f->reports[3].volume.present = false;
    leave(f, 1);
    fence(f, 1);
    move(f, 3);
    assert_int_equal(reason(f), REASON_CANNOT_MOVE);
    move(f, 2);
    assert_true(is_owner(f, 2));
}

static void test_refused(void **state)
{
    struct fake *f = *state;

    shared(f);
    assert_int_equal(fence(f, 1), RESULT_NODE_CONNECTED);
    assert_non_null(strstr(f->text, "session"));
    assert_int_equal(fence(f, 9), RESULT_NODE_NOT_FOUND);
    assert_int_equal(unfence(f, 9), RESULT_NODE_NOT_FOUND);
    assert_int_equal(unfence(f, 1), RESULT_OK);
    leave(f, 1);
    f->fails = "the disk is full";
    assert_int_equal(fence(f, 1), RESULT_STORE_FAILED);
    f->fails = NULL;
    f->now.mono_us += 60 * USEC_PER_SEC;
    engine_tick(f->e, f->now);
    settle(f);
    assert_null(f->fence);
    assert_true(is_owner(f, 1));
    assert_int_equal(fence(f, 1), RESULT_OK);
    uint64_t first = f->fence->revision;
    assert_int_equal(fence(f, 1), RESULT_OK);
    assert_true(f->fence->revision == first);
}

/* On node 1, moved to node 2: node 1 has the replica. */
static void kept(struct fake *f)
{
    stand(f, STORAGE_LOCAL, REPLICAS_ALL);
    create(f, 1);
    move(f, 2);
    assert_int_equal(f->role[1], ROLE_REPLICA);
}

struct seen {
    size_t n;
    enum fate fate;
    struct uuid from;
    uint64_t made_us;
};

static void see(void *cookie, const struct fence_item *i)
{
    struct seen *s = cookie;

    *s = (struct seen){s->n + 1, i->fate, i->from, i->made_us};
}

static struct seen preview(struct fake *f, unsigned char n)
{
    struct uuid node = id(n);
    struct seen s = {0};

    engine_preview_fence(f->e, &node, see, &s);
    return s;
}

static void test_replica_is_promoted(void **state)
{
    struct fake *f = *state;

    kept(f);
    uint64_t made_us = f->now.wall_us;
    f->now.wall_us += 100 * USEC_PER_SEC;
    leave(f, 2);
    struct seen before = preview(f, 2);
    assert_int_equal(before.n, 1);
    assert_int_equal(before.fate, FATE_REPLICA);
    assert_true(uuid_eq(&before.from, &(struct uuid){.b[15] = 1}) && before.made_us == made_us);
    assert_int_equal(fence(f, 2), RESULT_OK);
    assert_int_equal(preview(f, 2).fate, FATE_REPLICA);
    assert_int_equal(reason(f), REASON_NODE_FENCED);
    assert_int_equal(drop_copy(f, 2), RESULT_COPY_NEEDED);
    move(f, 1);
    assert_true(is_owner(f, 1));
    assert_string_equal(f->stored->base, "final");
    assert_null(f->stored->replica);
    assert_true(f->reports[1].volume.mounted);
    assert_int_equal(reason(f), REASON_NONE);
    assert_int_equal(preview(f, 2).n, 0);
    /* What the other one had stays, and is not used. */
    boot(f, 2);
    assert_null(f->fence);
    assert_int_equal(f->role[2], ROLE_KEEP);
    assert_true(f->reports[2].volume.present);
    assert_int_equal(reason(f), REASON_COPY_KEPT);
    move(f, 2);
    assert_int_equal(reason(f), REASON_COPY_KEPT); /* nothing is put in its place */
    assert_true(is_owner(f, 1));
    assert_int_equal(drop_copy(f, 3), RESULT_COPY_NOT_FOUND);
    assert_int_equal(drop_copy(f, 2), RESULT_OK);
    assert_true(is_owner(f, 2));
    assert_int_equal(reason(f), REASON_NONE);
}

static void test_promoted_then_moved_on(void **state)
{
    struct fake *f = *state;

    kept(f);
    leave(f, 2);
    fence(f, 2);
    move(f, 3); /* the copy is on node 1: it begins there, and goes on */
    assert_true(is_owner(f, 3));
    assert_true(dataset_is_fenced(f->stored, &(struct uuid){.b[15] = 2}));
    assert_int_equal(reason(f), REASON_NONE);
}

static void test_replica_is_away(void **state)
{
    struct fake *f = *state;

    kept(f);
    leave(f, 1);
    leave(f, 2);
    assert_int_equal(preview(f, 2).fate, FATE_ASKS_NODE);
    fence(f, 2);
    move(f, 3);
    assert_int_equal(reason(f), REASON_NODE_DISCONNECTED);
    come_back(f, 1);
    assert_true(is_owner(f, 3));
}

static void test_only_there(void **state)
{
    struct fake *f = *state;

    stand(f, STORAGE_LOCAL, REPLICAS_NONE);
    create(f, 1);
    create_container(f, with_volume(1, "c"));
    leave(f, 1);
    assert_int_equal(preview(f, 1).fate, FATE_ONLY_THERE);
    fence(f, 1);
    assert_int_equal(reason(f), REASON_DATA_ON_FENCED_NODE);
    move_container(f, "c", 2);
    assert_int_equal(reason(f), REASON_DATA_ON_FENCED_NODE);
    assert_true(uuid_is_nil(&f->stored->owner));
    /* With the node all is back, and goes where it is wanted. */
    boot(f, 1);
    assert_null(f->fence);
    assert_true(is_owner(f, 2) && !f->stored->recalled);
    assert_int_equal(reason(f), REASON_NONE);
    assert_int_equal(container_reason(f, "c"), REASON_NONE);
}

static void test_back_in_the_same_boot(void **state)
{
    struct fake *f = *state;

    stand(f, STORAGE_LOCAL, REPLICAS_NONE);
    create(f, 1);
    create_container(f, with_volume(1, "c"));
    leave(f, 1);
    fence(f, 1);
    come_back(f, 1); /* it was not off */
    assert_non_null(f->fence);
    assert_int_equal(f->role[1], ROLE_KEEP);
    assert_false(f->reports[1].volume.mounted);
    assert_int_equal(container_reason(f, "c"), REASON_NODE_FENCED);
    assert_int_equal(fence(f, 1), RESULT_NODE_CONNECTED);
    assert_int_equal(unfence(f, 1), RESULT_OK);
    assert_true(is_owner(f, 1) && f->reports[1].volume.mounted);
    assert_int_equal(reason(f), REASON_NONE);
    assert_int_equal(container_reason(f, "c"), REASON_NONE);
}

/* Nobody gets it while the node, which is here, has it mounted. */
static void test_back_with_a_mount(void **state)
{
    struct fake *f = *state;

    shared(f);
    leave(f, 1);
    fence(f, 1);
    f->deaf[1] = true;
    come_back(f, 1);
    move(f, 2);
    assert_true(uuid_is_nil(&f->stored->owner));
    assert_int_equal(reason(f), REASON_NODE_FENCED);
    f->reports[1].volume.mounted = false;
    tell(f, 1);
    settle(f);
    assert_true(is_owner(f, 2));
}

static void test_half_move(void **state)
{
    struct fake *f = *state;

    stand(f, STORAGE_LOCAL, REPLICAS_NONE);
    create(f, 1);
    f->deaf[1] = f->deaf[3] = true;
    move(f, 3);
    assert_true(f->stored->transfer.id > 0);
    char name[1][SNAPSHOT_NAME_SIZE];
    (void)snprintf(name[0], sizeof(name[0]), "t%llu-2", (unsigned long long)f->stored->transfer.id);
    f->now.wall_us += 7 * USEC_PER_SEC;
    f->reports[3] = (struct report){.received = f->stored->transfer.id, .received_snapshot = name[0]};
    f->reports[3].volume.n_snapshots = 1;
    f->reports[3].volume.snapshots = name;
    tell(f, 3);
    uint64_t at_us = f->now.wall_us;
    f->now.wall_us += 9 * USEC_PER_SEC;
    leave(f, 1);
    assert_int_equal(preview(f, 1).fate, FATE_HALF_MOVE);
    assert_true(preview(f, 1).made_us == at_us);
    f->deaf[3] = false;
    fence(f, 1);
    assert_true(is_owner(f, 3));
    assert_string_equal(f->stored->base, name[0]);
    assert_true(f->reports[3].volume.mounted);
    assert_int_equal(reason(f), REASON_NONE);
}

/* The destination dies: the source goes on. */
static void test_destination_is_fenced(void **state)
{
    struct fake *f = *state;

    stand(f, STORAGE_LOCAL, REPLICAS_NONE);
    create(f, 1);
    f->deaf[3] = true;
    move(f, 3);
    assert_int_equal(f->role[1], ROLE_RELEASE);
    leave(f, 3);
    assert_int_equal(fence(f, 3), RESULT_OK);
    assert_true(is_owner(f, 1) && !f->stored->transfer.id);
    assert_true(f->reports[1].volume.mounted);
    assert_int_equal(reason(f), REASON_NODE_FENCED);
    assert_int_equal(preview(f, 3).n, 0);
}

static void test_unwritten(void **state)
{
    struct fake *f = *state;

    stand(f, STORAGE_LOCAL, REPLICAS_NONE);
    f->deaf[1] = true;
    create(f, 1);
    leave(f, 1);
    assert_int_equal(preview(f, 1).fate, FATE_UNWRITTEN);
    fence(f, 1);
    assert_null(f->stored->fenced);
    assert_int_equal(reason(f), REASON_NODE_FENCED);
    move(f, 2);
    assert_true(is_owner(f, 2) && f->reports[2].volume.mounted);
}

/* The service starts again with what the store has. */
static void start_again(struct fake *f)
{
    struct dataset *d = dataset_copy(f->stored);

    engine_free(f->e);
    begin(f, 97, f->revision);
    engine_restore_dataset(f->e, d);
    if (f->fence)
        engine_restore_fence(f->e, f->fence);
    engine_tick(f->e, f->now);
    settle(f);
}

static void test_lasts(void **state)
{
    struct fake *f = *state;

    shared(f);
    leave(f, 1);
    fence(f, 1);
    start_again(f);
    for (unsigned char n = 2; n <= NODES; n++)
        come_back(f, n);
    assert_int_equal(reason(f), REASON_NODE_FENCED);
    move(f, 2);
    assert_true(is_owner(f, 2));
}

/* Committed, and not more: the next life frees what it owned. */
static void test_freed_after_a_restart(void **state)
{
    struct fake *f = *state;

    shared(f);
    leave(f, 1);
    struct dataset *before = dataset_copy(f->stored);
    fence(f, 1);
    dataset_free(f->stored);
    f->stored = before;
    start_again(f);
    assert_true(uuid_is_nil(&f->stored->owner));
}

/* The boot id is not known any more: it ends with the next start, or the operator ends it. */
static void test_unknown_boot(void **state)
{
    struct fake *f = *state;

    stand(f, STORAGE_LOCAL, REPLICAS_NONE);
    create(f, 1);
    leave(f, 1);
    start_again(f);
    fence(f, 1);
    assert_true(uuid_is_nil(&f->fence->era));
    boot(f, 1);
    assert_non_null(f->fence);
    unfence(f, 1);
    assert_true(is_owner(f, 1));
    assert_int_equal(reason(f), REASON_NONE);
    leave(f, 1);
    start_again(f);
    fence(f, 1);
    come_back(f, 1);
    assert_non_null(f->fence);
    assert_string_equal(f->fence->who, "alice");
    assert_false(f->reports[1].volume.mounted);
    assert_says(f, "flockerctl unfence");
    leave(f, 1);
    come_back(f, 1);
    assert_non_null(f->fence);
    leave(f, 1);
    start_again(f); /* the record knows */
    f->hellos[1].era = id(119);
    come_back(f, 1);
    assert_null(f->fence);
    assert_true(is_owner(f, 1) && f->reports[1].volume.mounted);
}

/* The word of a store that was put back from a copy is an old one. */
static void test_fence_of_a_copy(void **state)
{
    struct fake *f = *state;

    shared(f);
    leave(f, 1);
    fence(f, 1);
    f->restored = f->revision;
    start_again(f);
    assert_int_equal(reason(f), REASON_DATA_MISSING); /* nobody has anything */
    come_back(f, 2);
    move(f, 2);
    assert_true(uuid_is_nil(&f->stored->owner));
    assert_int_equal(reason(f), REASON_STORE_UNKNOWN);
    come_back(f, 1);
    assert_null(f->fence);
    assert_int_equal(run(f, (struct command){.kind = COMMAND_DATASET_ADOPT, .dataset_id = D, .node = id(1), .anyway = true}),
                     RESULT_OK);
    assert_true(is_owner(f, 2));
    assert_null(f->stored->fenced);
}

/* The copy says that nobody owns it, as it was taken from a node that has it no more: the record follows who got it since, and nothing
 * is given back (simulator's seed 15926). */
static void test_fence_of_a_copy_and_a_later_owner(void **state)
{
    struct fake *f = *state;
    struct volume_mark later = {.state = MARK_OWNED};

    stand(f, STORAGE_LOCAL, REPLICAS_NONE);
    create(f, 1);
    leave(f, 1);
    fence(f, 1);
    assert_true(uuid_is_nil(&f->stored->owner));
    f->restored = f->revision;
    later.epoch = f->revision + 5;
    f->reports[2].volume = (struct volume_state){.present = true, .mounted = true, .mark = later};
    f->reports[1].volume.mark = (struct volume_mark){MARK_RELEASED, f->revision + 3, f->revision + 4, "final"};
    start_again(f);
    f->deaf[1] = f->deaf[2] = true;
    boot(f, 1);
    come_back(f, 2);
    assert_true(is_owner(f, 2));
    assert_null(dataset_freed_from(f->stored));
}

static void test_two_fences(void **state)
{
    struct fake *f = *state;

    shared(f);
    leave(f, 1);
    fence(f, 1);
    move(f, 2);
    leave(f, 2);
    assert_int_equal(fence(f, 2), RESULT_OK);
    move(f, 3);
    assert_true(is_owner(f, 3));
    assert_int_equal(f->fenced[3], 2);
    assert_int_equal(f->stored->fenced->n_nodes, 2);
}

static void test_deleted(void **state)
{
    struct fake *f = *state;

    shared(f);
    lease(f, 1);
    leave(f, 1);
    fence(f, 1);
    assert_int_equal(remove_dataset(f, false), RESULT_OK);
    assert_int_equal(reason(f), REASON_WAITING_FOR_HOLDERS);
    boot(f, 1);
    assert_int_equal(f->stored->n_holders, 0);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_attached_elsewhere),
        TEST(test_wanted_elsewhere_before),
        TEST(test_other_storage),
        TEST(test_refused),
        TEST(test_replica_is_promoted),
        TEST(test_promoted_then_moved_on),
        TEST(test_replica_is_away),
        TEST(test_only_there),
        TEST(test_back_in_the_same_boot),
        TEST(test_back_with_a_mount),
        TEST(test_half_move),
        TEST(test_destination_is_fenced),
        TEST(test_unwritten),
        TEST(test_lasts),
        TEST(test_freed_after_a_restart),
        TEST(test_unknown_boot),
        TEST(test_fence_of_a_copy),
        TEST(test_fence_of_a_copy_and_a_later_owner),
        TEST(test_two_fences),
        TEST(test_deleted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
