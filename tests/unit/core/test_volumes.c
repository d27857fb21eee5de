/* Docker volumes: one of each name, leases by mounts, and that they follow what nodes tell. */
#include "fake_cluster.h"

#include "base/str.h"

#include <stdio.h>

/* ---- a node with calls: session n of fake_cluster says so in its hello ---- */

static int setup(void **state)
{
    (void)fake_setup(state);
    struct fake *f = *state;
    for (unsigned char n = 1; n <= NODES; n++) {
        f->hellos[n].volumes = true;
        leave(f, n);
        come_back(f, n);
        engine_volume_uses_complete(f->e, f->now, f->sessions[n]);
    }
    settle(f);
    return 0;
}

static struct command call(const struct fake *f, unsigned char n, enum command_kind kind, const char *name, const char *mount)
{
    return (struct command){.kind = kind, .session = f->sessions[n], .name = name, .mount = mount};
}

static enum result_code make(struct fake *f, unsigned char n, const char *name)
{
    struct command c = call(f, n, COMMAND_VOLUME_CREATE, name, NULL);

    c.dataset = dataset_new(UUID_NIL);
    c.dataset->metadata.entries = xcalloc(1, sizeof(*c.dataset->metadata.entries));
    c.dataset->metadata.entries[0] = (struct metadata_entry){xstrdup("name"), xstrdup(name)};
    c.dataset->metadata.n = 1;
    return run(f, c);
}

static enum result_code use(struct fake *f, unsigned char n, const char *mount)
{
    struct command c = call(f, n, COMMAND_VOLUME_USE, NULL, mount);

    c.dataset_id = D;
    return run(f, c);
}

static enum result_code unuse(struct fake *f, unsigned char n, const char *mount)
{
    struct command c = call(f, n, COMMAND_VOLUME_UNUSE, NULL, mount);

    c.dataset_id = D;
    return run(f, c);
}

static void has(struct fake *f, unsigned char n, const char *mount)
{
    struct volume_use u = {.dataset = D, .mount = (char *)mount};

    engine_volume_use(f->e, f->now, f->sessions[n], &u);
}

static void all_told(struct fake *f, unsigned char n)
{
    engine_volume_uses_complete(f->e, f->now, f->sessions[n]);
    settle(f);
}

/* "1: a b" = node 1's lease with the mounts a and b; " api" when it is acquired; "" = none */
static const char *held(struct fake *f)
{
    static char text[200];
    uint64_t left;
    const struct lease *l = engine_lease(f->e, f->now, &D, &left);
    struct str s = {0};

    if (!l)
        return "";
    str_appendf(&s, "%d:", l->node.b[15]);
    for (size_t i = 0; i < l->n_mounts; i++)
        str_appendf(&s, " %s", l->mounts[i]);
    if (l->acquired)
        str_append(&s, " api");
    (void)snprintf(text, sizeof(text), "%s", s.data);
    str_done(&s);
    return text;
}

static bool count(void *cookie, const struct uuid *id)
{
    (void)id;
    ++*(size_t *)cookie;
    return true;
}

static size_t named(struct fake *f, const char *name)
{
    size_t n = 0;

    engine_list_datasets(f->e, &(struct list_query){.name = name}, count, &n);
    return n;
}

/* ---- names ---- */

static void test_a_name_is_made_once(void **state)
{
    struct fake *f = *state;

    assert_int_equal(make(f, 1, "db"), RESULT_CREATED);
    assert_int_equal(make(f, 2, "db"), RESULT_OK);
    assert_int_equal(named(f, "db"), 1);
    assert_int_equal(make(f, 2, "other"), RESULT_CREATED);
}

/* Both before the first is in the store, of which one is in flight. */
static void test_a_name_is_made_once_at_the_same_time(void **state)
{
    struct fake *f = *state;
    enum result_code codes[3];

    for (unsigned char n = 1; n <= 3; n++) {
        struct command c = call(f, n, COMMAND_VOLUME_CREATE, "db", NULL);
        c.dataset = dataset_new(UUID_NIL);
        c.dataset->metadata.entries = xcalloc(1, sizeof(*c.dataset->metadata.entries));
        c.dataset->metadata.entries[0] = (struct metadata_entry){xstrdup("name"), xstrdup("db")};
        c.dataset->metadata.n = 1;
        c.id = n;
        engine_command(f->e, f->now, &c);
        if (n == 1)
            engine_flush(f->e, f->now); /* takes it: the others come while it is being written */
    }
    struct effect *x;
    size_t replies = 0;
    const struct batch *batch = NULL;
    for (int turn = 0; turn < 4; turn++) {
        while ((x = engine_next(f->e))) {
            if (x->kind == EFFECT_COMMIT)
                batch = x->batch;
            if (x->kind == EFFECT_REPLY)
                codes[replies++] = x->result.code;
            effect_free(x);
        }
        if (batch)
            engine_committed(f->e, f->now, batch->id);
        batch = NULL;
        engine_flush(f->e, f->now);
    }
    assert_int_equal(replies, 3);
    assert_int_equal(codes[0], RESULT_CREATED);
    assert_int_equal(codes[1], RESULT_OK);
    assert_int_equal(codes[2], RESULT_OK);
    assert_int_equal(named(f, "db"), 1);
}

static void test_remove(void **state)
{
    struct fake *f = *state;
    struct command use_it = call(f, 1, COMMAND_VOLUME_USE, "db", "m1");
    struct command remove = call(f, 2, COMMAND_VOLUME_REMOVE, "db", NULL);
    struct command unuse_it = call(f, 1, COMMAND_VOLUME_UNUSE, "db", "m1");

    assert_int_equal(run(f, remove), RESULT_OK); /* there is none */
    assert_int_equal(make(f, 1, "db"), RESULT_CREATED);
    assert_int_equal(run(f, use_it), RESULT_OK);
    assert_int_equal(run(f, remove), RESULT_LEASE_HELD);
    assert_non_null(strstr(f->text, "1 mount"));
    assert_int_equal(run(f, unuse_it), RESULT_OK);
    assert_int_equal(run(f, remove), RESULT_OK);
    assert_int_equal(make(f, 2, "db"), RESULT_CREATED); /* another one */
}

static void test_remove_what_a_container_uses(void **state)
{
    struct fake *f = *state;
    struct command remove = call(f, 2, COMMAND_VOLUME_REMOVE, NULL, NULL);

    remove.dataset_id = D;
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(create_container(f, with_volume(1, "c")), RESULT_CREATED);
    assert_int_equal(run(f, remove), RESULT_LEASE_HELD);
    assert_non_null(strstr(f->text, "container c"));
}

/* ---- use ---- */

static void test_use_takes_the_lease_and_the_data(void **state)
{
    struct fake *f = *state;

    assert_int_equal(use(f, 1, "m1"), RESULT_DATASET_NOT_FOUND);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(use(f, 2, "m1"), RESULT_OK);
    assert_string_equal(held(f), "2: m1");
    assert_int_equal(f->stored->owner.b[15], 2); /* they have moved */
    uint64_t revision = f->revision;
    assert_int_equal(use(f, 2, "m1"), RESULT_OK); /* once more is no news */
    assert_int_equal(f->revision, revision);
    assert_int_equal(use(f, 2, "m0"), RESULT_OK);
    assert_string_equal(held(f), "2: m0 m1");
    assert_int_equal(use(f, 1, "m9"), RESULT_LEASE_HELD);
    assert_non_null(strstr(f->text, "2 mounts"));
    assert_int_equal(unuse(f, 1, "m0"), RESULT_OK); /* not its mount */
    assert_int_equal(unuse(f, 2, "m0"), RESULT_OK);
    assert_int_equal(unuse(f, 2, "m0"), RESULT_OK);
    assert_string_equal(held(f), "2: m1");
    assert_int_equal(unuse(f, 2, "m1"), RESULT_OK);
    assert_string_equal(held(f), "");
    assert_int_equal(f->stored->owner.b[15], 2); /* and stay there */
    assert_int_equal(use(f, 1, "m9"), RESULT_OK);
    assert_int_equal(f->stored->owner.b[15], 1);
}

static void test_a_container_elsewhere_holds_it(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(create_container(f, with_volume(1, "c")), RESULT_CREATED);
    assert_int_equal(use(f, 2, "m1"), RESULT_LEASE_HELD);
    assert_non_null(strstr(f->text, "container c"));
    assert_int_equal(use(f, 1, "m1"), RESULT_OK); /* beside it */
}

/* What is mounted stays, whatever users want meanwhile. */
static void test_a_mounted_dataset_stays(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(use(f, 1, "m1"), RESULT_OK);
    assert_int_equal(move(f, 2), RESULT_OK);
    assert_int_equal(f->stored->owner.b[15], 1);
    assert_int_equal(reason(f), REASON_LEASE_HELD);
    assert_int_equal(remove_dataset(f, false), RESULT_OK);
    assert_int_equal(f->stored->tombstone, 0);
    assert_int_equal(unuse(f, 1, "m1"), RESULT_OK);
    assert_true(f->stored->tombstone);
}

/* Who was told that the data come has not got them yet: a delete waits for that node, too, or it would get what somebody makes
 * under the id afterwards, without a lease. */
static void test_a_delete_waits_for_mounts_elsewhere(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    f->deaf[1] = true; /* the data do not move */
    assert_int_equal(use(f, 2, "m1"), RESULT_OK);
    assert_int_equal(remove_dataset(f, true), RESULT_OK);
    assert_int_equal(f->stored->tombstone, 0);
    assert_int_equal(reason(f), REASON_LEASE_HELD);
    assert_string_equal(held(f), "2: m1");
    f->fails = "disk full";
    assert_int_equal(unuse(f, 2, "m1"), RESULT_STORE_FAILED);
    assert_int_equal(f->stored->tombstone, 0);
    f->fails = NULL;
    assert_int_equal(unuse(f, 2, "m1"), RESULT_OK);
    assert_true(f->stored->tombstone);
    assert_int_equal(use(f, 2, "m2"), RESULT_DATASET_NOT_FOUND);
}

/* Not even a new configuration without it takes it away. */
static void test_a_composition_leaves_mounts(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(use(f, 1, "m1"), RESULT_OK);
    assert_int_equal(lease(f, 1), RESULT_OK);
    assert_string_equal(held(f), "1: m1 api");
    assert_int_equal(compose_all(f, 0, 0, false), RESULT_OK);
    assert_string_equal(held(f), "1: m1");
    assert_int_equal(f->role[1], ROLE_OWNER);
    assert_true(f->reports[1].volume.mounted);
    assert_int_equal(use(f, 1, "m2"), RESULT_DATASET_NOT_FOUND);
    assert_int_equal(unuse(f, 1, "m1"), RESULT_OK);
    assert_int_equal(f->role[1], ROLE_KEEP);
    assert_false(f->reports[1].volume.mounted);
}

static void test_not_while_it_is_leaving(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    f->deaf[1] = true;
    assert_int_equal(move(f, 2), RESULT_OK);
    f->reports[1].copied = f->stored->transfer.id;
    tell(f, 1);
    settle(f);
    assert_int_equal(f->stored->transfer.phase, TRANSFER_RELEASE);
    assert_int_equal(use(f, 1, "m1"), RESULT_LEASE_RELEASING);
    assert_int_equal(use(f, 2, "m1"), RESULT_OK); /* where it goes */
}

/* ---- the API's part of a lease ---- */

static void test_the_apis_part_ends_by_itself(void **state)
{
    struct fake *f = *state;
    struct command acquire = {.kind = COMMAND_LEASE_ACQUIRE, .dataset_id = D, .node = id(1), .expires = true,
                              .expires_in_us = 5 * USEC_PER_SEC};

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(use(f, 1, "m1"), RESULT_OK);
    assert_int_equal(run(f, acquire), RESULT_OK);
    assert_string_equal(held(f), "1: m1 api");
    f->now.mono_us += 6 * USEC_PER_SEC;
    f->now.wall_us += 6 * USEC_PER_SEC;
    engine_tick(f->e, f->now);
    settle(f);
    assert_string_equal(held(f), "1: m1");
    assert_int_equal(engine_deadline(f->e) > f->now.mono_us, 1);
    assert_int_equal(lease(f, 2), RESULT_LEASE_HELD);
    assert_int_equal(lease(f, 1), RESULT_OK);
    assert_int_equal(unuse(f, 1, "m1"), RESULT_OK);
    assert_string_equal(held(f), "1: api");
    assert_int_equal(use(f, 1, "m1"), RESULT_OK);
    assert_int_equal(unlease(f), RESULT_OK); /* all of it, and it is not taken again by itself */
    assert_string_equal(held(f), "");
    assert_int_equal(use(f, 2, "m5"), RESULT_OK);
}

/* ---- what nodes tell when they come ---- */

static void test_leases_follow_what_a_node_has(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(use(f, 1, "m1"), RESULT_OK);
    assert_int_equal(use(f, 1, "m2"), RESULT_OK);
    leave(f, 1);
    assert_string_equal(held(f), "1: m1 m2"); /* it is away, and its containers may write */
    assert_int_equal(use(f, 2, "m5"), RESULT_LEASE_HELD);
    come_back(f, 1);
    has(f, 1, "m2");
    has(f, 1, "m3");
    settle(f);
    assert_string_equal(held(f), "1: m1 m2"); /* there may be more to come */
    all_told(f, 1);
    assert_string_equal(held(f), "1: m2 m3");
    leave(f, 1);
    f->hellos[1].era = id(200); /* it has booted: nothing is mounted any more */
    come_back(f, 1);
    all_told(f, 1);
    assert_string_equal(held(f), "");
}

/* What could not be had is taken as soon as it can. */
static void test_a_use_that_is_not_met_yet(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(use(f, 2, "m1"), RESULT_OK);
    leave(f, 1);
    come_back(f, 1);
    has(f, 1, "m9"); /* of before the store was put back, say */
    all_told(f, 1);
    assert_string_equal(held(f), "2: m1");
    assert_int_equal(unuse(f, 2, "m1"), RESULT_OK);
    assert_string_equal(held(f), "1: m9");
}

/* A dataset that is made anew under its id, while a node has the one of before, which the store forgot. */
static void test_a_use_of_a_dataset_made_anew(void **state)
{
    struct fake *f = *state;

    leave(f, 2);
    come_back(f, 2);
    has(f, 2, "m1");
    all_told(f, 2);
    assert_string_equal(held(f), "");
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_string_equal(held(f), "2: m1");
    assert_int_equal(use(f, 1, "m2"), RESULT_LEASE_HELD);
}

/* A store that fails takes nothing away for good. */
static void test_a_commit_that_fails(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(use(f, 1, "m1"), RESULT_OK);
    f->fails = "disk full";
    assert_int_equal(unuse(f, 1, "m1"), RESULT_STORE_FAILED);
    assert_string_equal(held(f), "1: m1");
    f->fails = NULL;
    f->now.mono_us += 60 * USEC_PER_SEC;
    engine_tick(f->e, f->now);
    settle(f);
    assert_string_equal(held(f), ""); /* the node has said that it does not have it */
}

/* Nor does one that works again before it was tried again. */
static void test_a_store_that_works_again(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(use(f, 1, "m1"), RESULT_OK);
    f->fails = "disk full";
    assert_int_equal(unuse(f, 1, "m1"), RESULT_STORE_FAILED);
    f->fails = NULL;
    assert_int_equal(make(f, 2, "db"), RESULT_CREATED);
    assert_string_equal(held(f), "");
}

static void test_a_session_that_is_over_changes_nothing(void **state)
{
    struct fake *f = *state;
    struct command c = call(f, 1, COMMAND_VOLUME_USE, NULL, "m1");

    c.dataset_id = D;
    assert_int_equal(create(f, 1), RESULT_CREATED);
    leave(f, 1);
    assert_int_equal(run(f, c), RESULT_NODE_REFUSES);
    come_back(f, 1);
    assert_int_equal(run(f, c), RESULT_NODE_REFUSES); /* late, of the session before */
    assert_string_equal(held(f), "");
}

/* ---- who waits ---- */

static void count_wait(void *cookie, const struct uuid *node, uint64_t since_us)
{
    assert_int_equal(node->b[15], 2);
    assert_true(since_us != 0);
    ++*(size_t *)cookie;
}

static size_t waits(struct fake *f)
{
    size_t n = 0;

    engine_each_wait(f->e, &D, count_wait, &n);
    return n;
}

static void test_who_waits_is_told(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(use(f, 1, "m1"), RESULT_OK);
    assert_int_equal(use(f, 2, "m5"), RESULT_LEASE_HELD);
    assert_int_equal(use(f, 2, "m6"), RESULT_LEASE_HELD);
    assert_int_equal(waits(f), 1); /* of each node the longest */
    assert_int_equal(unuse(f, 2, "m5"), RESULT_OK);
    assert_int_equal(unuse(f, 2, "m6"), RESULT_OK);
    assert_int_equal(waits(f), 0);
    assert_int_equal(use(f, 2, "m5"), RESULT_LEASE_HELD);
    leave(f, 2);
    assert_int_equal(waits(f), 0);
}

/* ---- the catalogue's entry ---- */

static void test_the_entry_of_a_volume(void **state)
{
    struct fake *f = *state;
    struct metadata_entry entries[] = {{(char *)"name", (char *)"db"}, {(char *)METADATA_PROFILE, (char *)"gold"}};
    struct metadata metadata = {entries, 2};
    struct command name = {.kind = COMMAND_DATASET_UPDATE, .dataset_id = D, .keep_primary = true, .metadata = &metadata};
    struct volume_entry v;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_false(engine_volume(f->e, f->now, &D, &v)); /* it has no name */
    assert_int_equal(run(f, name), RESULT_OK);
    assert_true(engine_volume(f->e, f->now, &D, &v));
    assert_string_equal(v.name, "db");
    assert_string_equal(v.profile, "gold");
    assert_int_equal(v.home.b[15], 1);
    assert_int_equal(v.holder, HOLDER_NONE);
    assert_true(v.born);
    volume_entry_done(&v);
    assert_int_equal(use(f, 1, "m1"), RESULT_OK);
    assert_true(engine_volume(f->e, f->now, &D, &v));
    assert_int_equal(v.holder, HOLDER_MOUNTS);
    assert_true(v.holder_since_us == f->now.wall_us);
    volume_entry_done(&v);
    assert_int_equal(unuse(f, 1, "m1"), RESULT_OK);
    assert_int_equal(remove_dataset(f, true), RESULT_OK);
    assert_false(engine_volume(f->e, f->now, &D, &v));
}

/* Whatever changes in it comes out as an effect; of a dataset without a name none does. */
static size_t told(struct fake *f)
{
    size_t n = 0;

    engine_flush(f->e, f->now);
    for (struct effect *x; (x = engine_next(f->e)); effect_free(x)) {
        n += x->kind == EFFECT_VOLUME;
        if (x->kind == EFFECT_COMMIT)
            engine_committed(f->e, f->now, x->batch->id);
        engine_flush(f->e, f->now);
    }
    return n;
}

static void test_changes_of_volumes_are_told(void **state)
{
    struct fake *f = *state;
    struct metadata_entry entry = {(char *)"name", (char *)"db"};
    struct metadata metadata = {&entry, 1}, none = {0};
    struct command name = {.kind = COMMAND_DATASET_UPDATE, .dataset_id = D, .keep_primary = true, .metadata = &metadata};
    struct command acquire = {.kind = COMMAND_LEASE_ACQUIRE, .dataset_id = D, .node = id(1)};

    assert_int_equal(create(f, 1), RESULT_CREATED);
    engine_command(f->e, f->now, &acquire);
    assert_int_equal(told(f), 0);
    engine_command(f->e, f->now, &name);
    assert_true(told(f) > 0);
    engine_command(f->e, f->now, &acquire);
    assert_true(told(f) > 0);
    engine_session_closed(f->e, f->now, f->sessions[1]); /* the reason is another now */
    assert_true(told(f) > 0);
    name.metadata = &none;
    engine_command(f->e, f->now, &name);
    assert_true(told(f) > 0); /* that it is gone */
    engine_command(f->e, f->now, &acquire);
    assert_int_equal(told(f), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, fake_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_a_name_is_made_once),
        TEST(test_a_name_is_made_once_at_the_same_time),
        TEST(test_remove),
        TEST(test_remove_what_a_container_uses),
        TEST(test_use_takes_the_lease_and_the_data),
        TEST(test_a_container_elsewhere_holds_it),
        TEST(test_a_mounted_dataset_stays),
        TEST(test_a_delete_waits_for_mounts_elsewhere),
        TEST(test_a_composition_leaves_mounts),
        TEST(test_not_while_it_is_leaving),
        TEST(test_the_apis_part_ends_by_itself),
        TEST(test_leases_follow_what_a_node_has),
        TEST(test_a_use_that_is_not_met_yet),
        TEST(test_a_use_of_a_dataset_made_anew),
        TEST(test_a_commit_that_fails),
        TEST(test_a_store_that_works_again),
        TEST(test_a_session_that_is_over_changes_nothing),
        TEST(test_who_waits_is_told),
        TEST(test_the_entry_of_a_volume),
        TEST(test_changes_of_volumes_are_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
