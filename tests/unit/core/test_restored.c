/* A store that was put back from a copy: what it does not decide before the operator's word, and that word. */
#include "fake_cluster.h"

#include "base/str.h"

#define R 50 /* revision of the copy */

static const struct volume_mark owned_20 = {.state = MARK_OWNED, .epoch = 20}, owned_70 = {.state = MARK_OWNED, .epoch = 70},
                                released_20 = {MARK_RELEASED, 20, 21, "t21-final"};

static struct dataset *unborn(unsigned char primary, unsigned char owner)
{
    struct dataset *d = wanted(77, primary);

    if (!owner)
        return d;
    d->owner = id(owner);
    d->epoch = d->number = 20;
    dataset_add_holder(d, &d->owner);
    return d;
}

static struct dataset *born(unsigned char primary, unsigned char owner)
{
    struct dataset *d = unborn(primary, owner);

    d->born = true;
    return d;
}

/* From node 1 to node 2; the order to release is given. */
static struct dataset *releasing(unsigned char primary)
{
    struct dataset *d = born(primary, 1);

    d->transfer = (struct transfer){21, 20, id(1), id(2), TRANSFER_RELEASE};
    d->number = 21;
    dataset_add_holder(d, &d->transfer.destination);
    return d;
}

/* What node n has; present with any mark. */
static void has(struct fake *f, unsigned char n, struct volume_mark mark, bool mounted)
{
    f->reports[n] = (struct report){0};
    f->reports[n].volume.present = f->reports[n].volume.attached = mark.state != MARK_NONE;
    f->reports[n].volume.mounted = mounted;
    f->reports[n].volume.mark = mark;
}

/* The store comes back with that record (taken over; NULL: with none); no node is there. Settled, unless `restored`. */
static void put_back(struct fake *f, struct dataset *d, bool restored)
{
    engine_free(f->e);
    dataset_free(f->stored);
    f->stored = d ? dataset_copy(d) : NULL;
    f->restored = restored ? R : 0;
    f->unsettled = restored;
    for (unsigned char n = 1; n <= NODES; n++)
        f->role[n] = ROLE_NONE;
    begin(f, (unsigned char)(f->life.id.b[15] - 1), R);
    if (d)
        engine_restore_dataset(f->e, d);
    engine_tick(f->e, f->now);
}

static void arrive(struct fake *f, unsigned char n)
{
    come(f, n, UUID_NIL, UUID_NIL, 0);
    settle(f);
}

static enum result_code adopt(struct fake *f, bool anyway)
{
    return run(f, (struct command){.kind = COMMAND_STORE_ADOPT, .anyway = anyway});
}

static enum result_code adopt_from(struct fake *f, unsigned char n, bool anyway)
{
    return run(f, (struct command){.kind = COMMAND_DATASET_ADOPT, .dataset_id = D, .node = id(n), .anyway = anyway});
}

static void assert_waits(struct fake *f, const char *words)
{
    struct uuid d = D;
    struct reason r;

    engine_dataset_reason(f->e, f->now, &d, &r);
    assert_int_equal(r.code, REASON_STORE_RESTORED);
    if (!strstr(r.text, words))
        fail_msg("\"%s\" has no \"%s\"", r.text, words);
    reason_done(&r);
}

static void test_what_was_never_written_waits(void **state)
{
    struct fake *f = *state;
    struct uuid two = id(2);

    put_back(f, unborn(1, 0), true);
    assert_true(engine_is_unsettled(f->e));
    assert_int_equal(engine_restored(f->e), R);
    arrive(f, 1);
    assert_waits(f, "all nodes that the store knows are here");
    assert_int_equal(move(f, 2), RESULT_OK);
    assert_waits(f, UUID_STR(&two)); /* it is known now, and is not there */
    assert_int_equal(adopt(f, false), RESULT_NODES_AWAY);
    assert_non_null(strstr(f->text, UUID_STR(&two)));
    assert_true(engine_is_unsettled(f->e));
    assert_int_equal(move(f, 1), RESULT_OK);
    assert_true(uuid_is_nil(&f->stored->owner));
    assert_int_equal(adopt(f, false), RESULT_OK);
    assert_false(engine_is_unsettled(f->e));
    assert_true(f->reports[1].volume.mounted);
    assert_int_equal(reason(f), REASON_NONE);
    assert_int_equal(adopt(f, false), RESULT_OK); /* no effect */
}

static void test_anyway(void **state)
{
    struct fake *f = *state;

    put_back(f, unborn(1, 2), true);
    arrive(f, 1);
    assert_waits(f, "nothing was ever written");
    assert_int_equal(adopt(f, true), RESULT_OK);
    assert_true(f->reports[1].volume.mounted);
}

static enum result_code use(struct fake *f, unsigned char n, const char *mount)
{
    return run(f, (struct command){.kind = COMMAND_VOLUME_USE,
                                   .session = f->sessions[n],
                                   .dataset_id = D,
                                   .mount = mount});
}

/* With its mount of D; NULL: it has none. */
static void arrive_with_mount(struct fake *f, unsigned char n, const char *mount)
{
    f->hellos[n].volumes = true;
    f->mount[n] = mount ? mount : "";
    arrive(f, n);
}

static const struct lease *lease_of(struct fake *f)
{
    uint64_t left;

    return engine_lease(f->e, f->now, &D, &left);
}

/* A node that is away may have got the dataset, and containers on it: nobody else is told that it comes, and no release is
 * ordered from under them. */
static void test_a_mount_that_the_copy_does_not_know(void **state)
{
    struct fake *f = *state;
    struct uuid one = id(1);

    put_back(f, born(1, 1), true);
    arrive_with_mount(f, 3, NULL);
    assert_int_equal(use(f, 3, "m3"), RESULT_MOUNTS_UNKNOWN);
    assert_non_null(strstr(f->text, UUID_STR(&one)));
    has(f, 2, owned_70, true);
    arrive_with_mount(f, 2, "m2");
    assert_int_equal(use(f, 3, "m3"), RESULT_LEASE_HELD);
    has(f, 1, (struct volume_mark){.state = MARK_RELEASED, .epoch = 20}, false);
    arrive_with_mount(f, 1, NULL);
    assert_int_equal(adopt(f, false), RESULT_OK);
    assert_int_equal(f->stored->owner.b[15], 2);
    assert_true(f->reports[2].volume.mounted);
    assert_int_equal(use(f, 3, "m3"), RESULT_LEASE_HELD);
}

/* Who has it mounted never released it. */
static void test_a_mount_that_the_copy_rules_out(void **state)
{
    struct fake *f = *state;

    put_back(f, born(1, 1), true);
    has(f, 1, owned_20, true);
    arrive_with_mount(f, 2, NULL);
    assert_int_equal(use(f, 2, "m2"), RESULT_MOUNTS_UNKNOWN);
    f->hellos[1].volumes = true;
    arrive(f, 1);
    assert_int_equal(use(f, 2, "m2"), RESULT_MOUNTS_UNKNOWN); /* it has not told its mounts yet */
    engine_volume_uses_complete(f->e, f->now, f->sessions[1]);
    assert_int_equal(use(f, 2, "m2"), RESULT_OK);
    assert_int_equal(lease_of(f)->node.b[15], 2);
    assert_true(f->reports[2].volume.mounted);
}

/* A mount that only waits for the data does not get before one that has them, whoever comes first. */
static void test_a_mount_that_waits_comes_last(void **state)
{
    struct fake *f = *state;

    put_back(f, unborn(3, 0), true);
    arrive_with_mount(f, 2, "m2");
    assert_null(lease_of(f));
    has(f, 1, owned_70, true);
    arrive_with_mount(f, 1, "m1");
    assert_int_equal(adopt(f, true), RESULT_OK);
    assert_int_equal(lease_of(f)->node.b[15], 1);
    assert_string_equal(lease_of(f)->mounts[0], "m1");
    assert_true(f->reports[1].volume.mounted);
}

static enum result_code unuse(struct fake *f, unsigned char n, const char *mount)
{
    return run(f, (struct command){
                      .kind = COMMAND_VOLUME_UNUSE, .session = f->sessions[n], .dataset_id = D, .mount = mount});
}

static void restore_lease(struct fake *f, struct lease l)
{
    l.dataset = D;
    engine_restore_lease(f->e, f->now, &l);
}

/* Dropped by the copy, or since it was put back, with mounts that it does not know: it stays for them (simulator's seed 291). */
static void test_a_mount_of_what_is_dropped(void **state)
{
    struct fake *f = *state;

    for (unsigned leased = 0; leased < 2; leased++) {
        struct dataset *d = born(1, 1);
        d->dropped = true;
        has(f, 1, owned_20, true);
        put_back(f, d, true);
        if (leased)
            restore_lease(f, (struct lease){.node = id(1), .mounts = (char *[]){(char *)"m0"}, .n_mounts = 1});
        arrive_with_mount(f, 1, "m1");
        assert_int_equal(f->role[1], ROLE_OWNER);
        assert_true(f->reports[1].volume.mounted);
        assert_int_equal(lease_of(f)->n_mounts, 1);
        assert_string_equal(lease_of(f)->mounts[0], "m1");
        assert_int_equal(unuse(f, 1, "m1"), RESULT_OK);
        assert_null(lease_of(f));
        assert_false(f->reports[1].volume.mounted);
        leave(f, 1);
    }
}

/* The lease of the copy had ended when the mount was given out. It is there again, and still the volume is not pulled away (18919). */
static void test_a_mount_that_the_lease_leaves_out(void **state)
{
    struct fake *f = *state;

    for (unsigned removed = 0; removed < 2; removed++) {
        has(f, 1, owned_20, true);
        has(f, 2, (struct volume_mark){0}, false);
        put_back(f, born(1, 1), true);
        restore_lease(f, (struct lease){.node = id(2), .acquired = true});
        arrive_with_mount(f, 1, "m1");
        arrive(f, 2);
        assert_int_equal(adopt(f, false), RESULT_OK);
        assert_int_equal(lease_of(f)->node.b[15], 2);
        assert_int_equal(removed ? remove_dataset(f, false) : move(f, 2), RESULT_OK);
        assert_int_equal(reason(f), REASON_LEASE_HELD);
        assert_true(f->reports[1].volume.mounted && !f->stored->tombstone);
        assert_int_equal(unlease(f), RESULT_OK);
        assert_int_equal(lease_of(f)->node.b[15], 1);
        assert_int_equal(reason(f), REASON_LEASE_HELD);
        assert_int_equal(unuse(f, 1, "m1"), RESULT_OK);
        assert_false(f->reports[1].volume.mounted);
        leave(f, 1);
        leave(f, 2);
    }
}

/* Nor does it go when the lease stays, and the mount ends. */
static void test_a_mount_that_the_lease_leaves_out_ends(void **state)
{
    struct fake *f = *state;

    has(f, 1, owned_20, true);
    put_back(f, born(2, 1), true);
    restore_lease(f, (struct lease){.node = id(2), .acquired = true});
    arrive_with_mount(f, 1, "m1");
    arrive(f, 2);
    assert_true(f->reports[1].volume.mounted);
    assert_int_equal(unuse(f, 1, "m1"), RESULT_OK);
    assert_true(f->reports[2].volume.mounted && !f->reports[1].volume.mounted);
}

/* A node that is not here may be releasing it, by an order that the copy does not know (28847). */
static void test_a_lease_of_a_node_that_is_away(void **state)
{
    struct fake *f = *state;
    struct uuid two = id(2);

    put_back(f, born(1, 1), true);
    assert_int_equal(lease(f, 2), RESULT_RELEASES_UNKNOWN);
    assert_non_null(strstr(f->text, UUID_STR(&two)));
    arrive(f, 2);
    assert_int_equal(lease(f, 2), RESULT_CREATED);
    put_back(f, NULL, true);
    assert_int_equal(lease(f, 1), RESULT_RELEASES_UNKNOWN);
    assert_int_equal(adopt(f, true), RESULT_OK);
    assert_int_equal(lease(f, 1), RESULT_CREATED);
}

static void test_a_mount_after_the_operators_word(void **state)
{
    struct fake *f = *state;

    put_back(f, born(1, 1), true);
    arrive_with_mount(f, 2, NULL);
    assert_int_equal(use(f, 2, "m2"), RESULT_MOUNTS_UNKNOWN);
    assert_int_equal(adopt(f, true), RESULT_OK);
    assert_int_equal(use(f, 2, "m2"), RESULT_OK);
}

static void test_a_store_that_failed_is_not_settled(void **state)
{
    struct fake *f = *state;

    put_back(f, unborn(1, 0), true);
    arrive(f, 1);
    f->fails = "the disk is full";
    assert_int_equal(adopt(f, false), RESULT_STORE_FAILED);
    assert_true(engine_is_unsettled(f->e));
    f->fails = NULL;
    f->now.mono_us += 60 * USEC_PER_SEC;
    engine_tick(f->e, f->now);
    settle(f);
    assert_false(f->reports[1].volume.present);
}

/* A node whose storage does not answer has not told what it has. */
static void test_storage_that_does_not_answer(void **state)
{
    struct fake *f = *state;

    put_back(f, unborn(1, 0), true);
    arrive(f, 1);
    arrive(f, 2);
    engine_reports_complete(f->e, f->now, f->sessions[2], REPORTS_STORAGE_UNKNOWN);
    assert_int_equal(adopt(f, false), RESULT_NODES_AWAY);
    engine_reports_complete(f->e, f->now, f->sessions[2], 0);
    assert_int_equal(adopt(f, false), RESULT_OK);
}

/* In a store that is new, and empty: a node that has just come may have data of an earlier one under an id that a user names. */
static void test_a_silent_node_may_have_the_named_id(void **state)
{
    struct fake *f = *state;

    put_back(f, NULL, false);
    f->silent[2] = true;
    has(f, 2, owned_20, true);
    arrive(f, 1);
    arrive(f, 2);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(reason(f), REASON_NODE_UNHEARD);
    assert_true(uuid_is_nil(&f->stored->owner));
    tell(f, 2);
    engine_reports_complete(f->e, f->now, f->sessions[2], 0);
    settle(f);
    assert_int_equal(reason(f), REASON_STORE_UNKNOWN); /* it has it indeed */
    assert_false(f->reports[1].volume.present);
}

static void test_a_silent_node_holds_nothing_up_for_ever(void **state)
{
    struct fake *f = *state;
    struct command fresh = {.kind = COMMAND_DATASET_CREATE, .fresh = true};

    for (unsigned how = 0; how < 4; how++) {
        put_back(f, NULL, false);
        has(f, 1, (struct volume_mark){0}, false);
        f->silent[2] = how < 3;
        arrive(f, 1);
        arrive(f, 2);
        f->silent[2] = true;
        if (how == 3) { /* it told before */
            leave(f, 2);
            come_back(f, 2);
        }
        if (how == 2) {
            fresh.dataset = wanted(77, 1);
            assert_int_equal(run(f, fresh), RESULT_CREATED);
        } else {
            assert_int_equal(how ? create(f, 1) : compose_all(f, 77, 1, false), how ? RESULT_CREATED : RESULT_OK);
        }
        assert_int_equal(reason(f), how < 2 ? REASON_NODE_UNHEARD : REASON_NONE);
        if (how == 0)
            leave(f, 2);
        if (how == 1) {
            engine_reports_complete(f->e, f->now, f->sessions[2], 0);
            settle(f);
        }
        assert_int_equal(reason(f), REASON_NONE);
        assert_true(f->reports[1].volume.mounted);
    }
}

static void test_new_ids(void **state)
{
    struct fake *f = *state;
    struct command fresh = {.kind = COMMAND_DATASET_CREATE, .fresh = true};

    put_back(f, NULL, true);
    arrive(f, 1);
    assert_int_equal(create(f, 1), RESULT_CREATED); /* the id is the user's: it may be an old one */
    assert_waits(f, "nothing was ever written");
    assert_int_equal(remove_dataset(f, true), RESULT_OK); /* where nothing is, nothing waits */
    assert_null(f->stored);
    assert_int_equal(compose_all(f, 77, 1, false), RESULT_OK);
    assert_waits(f, "nothing was ever written");
    assert_int_equal(remove_dataset(f, true), RESULT_OK);
    fresh.dataset = wanted(77, 2); /* also when its node comes only later */
    assert_int_equal(run(f, fresh), RESULT_CREATED);
    arrive(f, 2);
    assert_true(f->reports[2].volume.mounted);
    assert_int_equal(remove_dataset(f, true), RESULT_OK);
    assert_null(f->stored);
    fresh.dataset = wanted(77, 1);
    assert_int_equal(run(f, fresh), RESULT_CREATED);
    assert_true(f->reports[1].volume.mounted);
}

/* Data that somebody made under that id, and has mounted, prove where the dataset is. */
static void test_named_again_where_it_is_mounted(void **state)
{
    struct fake *f = *state;

    has(f, 1, owned_70, true);
    put_back(f, NULL, true);
    arrive(f, 1);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_true(f->stored->born);
    assert_int_equal(reason(f), REASON_NONE);
}

/* Granted in the copy: its volume may be what a grant that was taken back left. */
static void test_a_grant_of_the_copy(void **state)
{
    struct fake *f = *state;

    has(f, 1, owned_20, false);
    put_back(f, unborn(1, 1), true);
    arrive(f, 1);
    assert_waits(f, "nothing was ever written");
    assert_int_equal(f->role[1], ROLE_NONE); /* not even to be made */
    assert_int_equal(move(f, 2), RESULT_OK);
    assert_true(uuid_eq(&f->stored->owner, &(struct uuid){.b[15] = 1})); /* nor taken back */
    arrive(f, 2);
    assert_int_equal(adopt(f, false), RESULT_OK);
    /* It may be all that was written: it is moved, not dropped. */
    assert_true(f->stored->born && f->reports[2].volume.mounted && f->reports[2].received);
}

static void test_a_grant_that_is_mounted(void **state)
{
    struct fake *f = *state;

    has(f, 1, owned_20, true);
    put_back(f, unborn(2, 1), true);
    arrive(f, 1);
    arrive(f, 2);
    assert_true(f->stored->born && f->reports[2].received);
}

/* The owner by the copy may have been fenced since, and another node, which is away, have got the dataset. */
static void test_an_owner_that_was_fenced_since(void **state)
{
    struct fake *f = *state;

    has(f, 1, owned_20, false); /* it was off */
    has(f, 2, owned_70, true);
    put_back(f, born(1, 1), true);
    arrive(f, 1);
    assert_int_equal(f->role[1], ROLE_NONE);
    assert_false(f->reports[1].volume.mounted);
    assert_waits(f, "does not have it mounted");
    assert_int_equal(move(f, 3), RESULT_OK);
    arrive(f, 3);
    assert_int_equal(f->stored->transfer.id, 0);
    arrive(f, 2);
    assert_int_equal(adopt(f, false), RESULT_OK);
    assert_false(f->reports[1].volume.mounted);
    assert_true(f->reports[2].volume.mounted && uuid_is_nil(&f->stored->owner));
    assert_int_equal(adopt_from(f, 2, false), RESULT_OK);
    assert_true(f->reports[3].volume.mounted); /* from there */
}

/* Nobody has got it since. */
static void test_an_owner_that_was_started_anew(void **state)
{
    struct fake *f = *state;

    has(f, 1, owned_20, false);
    put_back(f, born(1, 1), true);
    arrive(f, 1);
    assert_waits(f, "does not have it mounted");
    assert_int_equal(adopt(f, false), RESULT_OK);
    assert_true(f->reports[1].volume.mounted);
    assert_int_equal(reason(f), REASON_NONE);
}

static void test_a_handover_of_the_copy(void **state)
{
    struct fake *f = *state;

    for (unsigned char primary = 1; primary <= 2; primary++) {
        has(f, 1, released_20, false);
        has(f, 2, (struct volume_mark){0}, false);
        f->reports[2].received = 21;
        f->reports[2].received_snapshot = (char *)"t21-final";
        put_back(f, releasing(primary), true);
        f->deaf[1] = f->deaf[2] = true;
        arrive(f, 1);
        arrive(f, 2);
        tell(f, 2);
        settle(f);
        assert_waits(f, "being handed over");
        f->deaf[1] = f->deaf[2] = false;
        assert_int_equal(adopt(f, false), RESULT_OK);
        assert_true(f->reports[primary].volume.mounted);
    }
}

/* Who has not released is proof that nobody got it. */
static void test_a_handover_that_did_not_begin(void **state)
{
    struct fake *f = *state;

    has(f, 1, owned_20, true);
    put_back(f, releasing(2), true);
    f->deaf[1] = true;
    arrive(f, 1);
    assert_int_equal(f->stored->transfer.id, 0);
    assert_true(f->stored->recalled && f->stored->epoch > R);
    f->deaf[1] = false;
    come_back(f, 1);
    arrive(f, 2);
    assert_true(f->reports[2].volume.mounted && f->reports[2].received > R);
}

static void test_a_delete_of_the_copy(void **state)
{
    struct fake *f = *state;
    struct dataset *d = born(1, 1);

    d->deleted = true;
    d->owner = UUID_NIL;
    d->tombstone = d->number = 30;
    has(f, 1, owned_20, false);
    put_back(f, d, true);
    arrive(f, 1);
    assert_waits(f, "is deleted");
    assert_true(f->reports[1].volume.present);
    assert_int_equal(adopt(f, false), RESULT_OK);
    assert_false(f->reports[1].volume.present);
    assert_int_equal(f->stored->n_holders, 0);
}

/* One that was deleted before the operator's word is not gone before the data are of which a node has told: it may be away since, with
 * the volume mounted, when somebody uses the id again (simulator's seed 702). */
static void test_a_delete_before_the_word(void **state)
{
    struct fake *f = *state;
    struct uuid two = id(2);

    has(f, 2, owned_20, true);
    put_back(f, unborn(1, 1), true);
    f->deaf[2] = true;
    arrive(f, 1);
    arrive(f, 2);
    assert_int_equal(remove_dataset(f, /* purge= */ false), RESULT_OK);
    assert_int_equal(adopt(f, false), RESULT_OK);
    leave(f, 2);
    assert_true(dataset_has_holder(f->stored, &two));
    f->deaf[2] = false;
    come_back(f, 2);
    assert_false(f->reports[2].volume.present);
    assert_int_equal(f->stored->n_holders, 0);
}

/* While it is doubted, only what is mounted proves where the data are. */
static void test_what_is_followed(void **state)
{
    struct fake *f = *state;

    has(f, 2, owned_70, false);
    put_back(f, born(1, 1), true);
    arrive(f, 1);
    arrive(f, 2);
    assert_int_equal(reason(f), REASON_STORE_UNKNOWN);
    assert_int_equal(adopt(f, false), RESULT_OK);
    assert_true(f->stored->epoch > 70 && f->reports[1].volume.mounted && f->reports[1].received);

    has(f, 1, (struct volume_mark){0}, false);
    has(f, 2, owned_70, true);
    put_back(f, unborn(1, 0), true); /* wherever it is wanted */
    arrive(f, 1);
    arrive(f, 2);
    assert_true(f->stored->born && f->reports[1].volume.mounted && f->reports[1].received);
}

/* What a node told before the operator's word is not forgotten when it goes away after it, and the service starts anew. */
static void what_was_told_stays(struct fake *f, struct dataset *copy)
{
    struct uuid three = id(3);

    has(f, 1, (struct volume_mark){0}, false);
    has(f, 2, (struct volume_mark){0}, false);
    has(f, 3, owned_70, false);
    put_back(f, copy, true);
    f->deaf[3] = true;
    arrive(f, 1);
    arrive(f, 2);
    arrive(f, 3);
    leave(f, 3);
    assert_int_equal(adopt(f, true), RESULT_OK);
    assert_true(f->stored->born && uuid_is_nil(&f->stored->owner) && dataset_has_holder(f->stored, &three));
    put_back(f, dataset_copy(f->stored), true);
    f->unsettled = false;
    engine_free(f->e);
    begin(f, 80, R + 30);
    engine_restore_dataset(f->e, dataset_copy(f->stored));
    engine_tick(f->e, f->now);
    arrive(f, 1);
    arrive(f, 2);
    assert_int_equal(reason(f), REASON_DATA_MISSING);
    assert_false(f->reports[1].volume.present);
    f->deaf[3] = false;
    arrive(f, 3);
    assert_true(f->reports[1].volume.mounted && f->reports[1].received);
    assert_int_equal(reason(f), REASON_NONE);
}

static void test_what_was_told_stays(void **state)
{
    what_was_told_stays(*state, unborn(1, 0));
    what_was_told_stays(*state, unborn(1, 2));
    what_was_told_stays(*state, releasing(1));
}

/* It is mounted, but the store cannot follow, as another node is not there: nobody unmounts it. */
static void test_an_orphan_stays_mounted(void **state)
{
    struct fake *f = *state;
    struct dataset *d = unborn(1, 0);
    struct uuid three = id(3);

    dataset_add_holder(d, &three);
    has(f, 2, owned_70, true);
    put_back(f, d, true);
    arrive(f, 1);
    arrive(f, 2);
    assert_int_equal(adopt(f, true), RESULT_OK);
    assert_true(f->stored->born && uuid_is_nil(&f->stored->owner));
    assert_int_equal(f->role[2], ROLE_NONE);
    assert_true(f->reports[2].volume.mounted);
    arrive(f, 3);
    assert_true(f->reports[1].volume.mounted && f->reports[1].received);
}

/* A store that was not put back, or is settled, does not follow what proves nothing. */
static void assert_not_followed(struct fake *f)
{
    assert_int_equal(reason(f), REASON_STORE_UNKNOWN);
    engine_flush(f->e, f->now);
    for (struct effect *x; (x = engine_next(f->e)); effect_free(x))
        assert_int_not_equal(x->kind, EFFECT_COMMIT);
}

/* Seed 82522: the mark is that of a grant that was taken back. */
static void test_a_grant_that_was_taken_back_is_not_followed(void **state)
{
    struct fake *f = *state;

    has(f, 2, owned_70, false);
    put_back(f, unborn(2, 0), false);
    come(f, 1, UUID_NIL, UUID_NIL, 0);
    come(f, 2, UUID_NIL, UUID_NIL, 0);
    assert_not_followed(f);
}

/* Seed 99031: the volume is of an earlier life of the id; the user wants the dataset elsewhere. */
static void test_an_earlier_life_is_not_followed(void **state)
{
    struct fake *f = *state;

    has(f, 2, owned_70, true);
    put_back(f, unborn(1, 0), false);
    come(f, 2, UUID_NIL, UUID_NIL, 0);
    come(f, 1, UUID_NIL, UUID_NIL, 0);
    assert_not_followed(f);
}

/* ---- where the operator says whose data count ---- */

static void test_adopt_what_was_released(void **state)
{
    struct fake *f = *state;

    has(f, 1, (struct volume_mark){MARK_RELEASED, 70, 71, "t71-final"}, false); /* and who got it is lost */
    put_back(f, born(1, 1), true);
    f->deaf[1] = true; /* as such a mark makes it */
    arrive(f, 1);
    assert_int_equal(adopt(f, false), RESULT_OK);
    assert_int_equal(reason(f), REASON_STORE_UNKNOWN);
    f->deaf[1] = false;
    assert_int_equal(adopt_from(f, 2, false), RESULT_NODES_AWAY);
    arrive(f, 2);
    assert_int_equal(adopt_from(f, 2, false), RESULT_DATASET_NOT_THERE);
    assert_int_equal(adopt_from(f, 1, false), RESULT_OK);
    assert_true(f->stored->epoch > 70 && f->reports[1].volume.mounted);
    assert_int_equal(reason(f), REASON_NONE);
    assert_int_equal(move(f, 2), RESULT_OK);
    f->restored = 0;
    assert_int_equal(adopt_from(f, 2, false), RESULT_DATASET_NOT_IN_DOUBT);
}

static void test_adopt_what_was_received(void **state)
{
    struct fake *f = *state;
    char snapshots[2][SNAPSHOT_NAME_SIZE] = {"t71-1", "t71-final"};

    f->reports[2].volume.snapshots = snapshots;
    f->reports[2].volume.n_snapshots = 2;
    put_back(f, born(1, 1), true);
    arrive(f, 1);
    arrive(f, 2);
    f->deaf[2] = true;
    tell(f, 2);
    settle(f);
    assert_int_equal(adopt_from(f, 2, false), RESULT_OK);
    assert_string_equal(f->stored->base, "t71-final");
    assert_true(f->stored->number > 71); /* numbers in the names of snapshots are not given out again */
    f->reports[2].volume.snapshots = NULL;
    f->reports[2].volume.n_snapshots = 0;
}

static void test_adopt_in_spite_of_others(void **state)
{
    struct fake *f = *state;
    struct uuid one = id(1);
    struct dataset *d = born(1, 1);

    has(f, 1, owned_20, true);
    has(f, 2, owned_70, false);
    put_back(f, d, true);
    arrive(f, 1);
    arrive(f, 2);
    assert_int_equal(reason(f), REASON_STORE_UNKNOWN);
    assert_int_equal(adopt_from(f, 2, true), RESULT_DATASET_MOUNTED);
    assert_string_equal(f->text, UUID_STR(&one));
    has(f, 2, owned_70, true); /* both: one can be chosen, the other is told to go */
    tell(f, 2);
    settle(f);
    assert_int_equal(adopt_from(f, 1, false), RESULT_OK);
    assert_true(f->reports[1].volume.mounted && !f->reports[2].volume.present);
    assert_int_equal(f->stored->n_holders, 1);
    assert_int_equal(reason(f), REASON_NONE);

    has(f, 2, owned_70, false); /* the owner is not there */
    put_back(f, born(1, 1), true);
    arrive(f, 2);
    assert_int_equal(adopt_from(f, 2, false), RESULT_NODES_AWAY);
    assert_non_null(strstr(f->text, UUID_STR(&one)));
    assert_int_equal(adopt_from(f, 2, true), RESULT_OK);
    assert_true(uuid_eq(&f->stored->owner, &(struct uuid){.b[15] = 2}));
}

/* On shared storage who has it attached keeps all others out. */
static void test_adopt_what_is_attached(void **state)
{
    struct fake *f = *state;

    for (unsigned char n = 1; n <= 2; n++)
        f->hellos[n] = (struct hello){.storage = STORAGE_ATTACHABLE, .shared_by = id(40)};
    has(f, 1, owned_20, false);
    f->reports[1].volume.attached = false;
    has(f, 2, owned_70, false);
    f->deaf[1] = true;
    put_back(f, born(1, 1), true);
    arrive(f, 1);
    arrive(f, 2);
    assert_int_equal(reason(f), REASON_STORE_UNKNOWN);
    assert_int_equal(adopt_from(f, 1, false), RESULT_OK); /* nobody else is told to mount it */
    put_back(f, born(1, 1), true);
    arrive(f, 1);
    arrive(f, 2);
    assert_int_equal(adopt_from(f, 2, false), RESULT_OK);
    f->reports[2].volume.attached = false;
    f->reports[2].volume.mounted = false;
    f->reports[2].volume.mark = owned_70;
    put_back(f, born(1, 1), true);
    arrive(f, 1);
    arrive(f, 2);
    assert_int_equal(adopt_from(f, 2, false), RESULT_DATASET_MOUNTED); /* the owner may attach it just now */
}

static void test_adopt_what_is_deleted(void **state)
{
    struct fake *f = *state;
    struct dataset *d = born(1, 1);

    d->deleted = true;
    d->owner = UUID_NIL;
    d->tombstone = d->number = 30;
    dataset_remove_holder(d, &(struct uuid){.b[15] = 1});
    has(f, 2, owned_70, true);
    put_back(f, d, true);
    arrive(f, 2);
    assert_int_equal(adopt(f, true), RESULT_OK);
    assert_int_equal(reason(f), REASON_STORE_UNKNOWN);
    assert_true(f->reports[2].volume.present);
    assert_int_equal(adopt_from(f, 2, false), RESULT_OK);
    assert_false(f->reports[2].volume.present);
    assert_true(f->stored->tombstone > 70 && !f->stored->n_holders);
    assert_int_equal(reason(f), REASON_NONE);
}

/* An owner that makes a volume in which nothing was ever written is in nobody's way (simulator's seed 2428). */
static void test_adopt_beside_an_unborn_owner(void **state)
{
    struct fake *f = *state;

    has(f, 2, owned_70, true);
    put_back(f, unborn(1, 1), false);
    f->deaf[1] = f->deaf[2] = true; /* it is about to */
    arrive(f, 1);
    assert_int_equal(f->role[1], ROLE_OWNER);
    arrive(f, 2);
    assert_int_equal(reason(f), REASON_STORE_UNKNOWN);
    assert_int_equal(adopt_from(f, 2, false), RESULT_OK);
    assert_int_equal(f->stored->owner.b[15], 2);
    assert_true(f->reports[2].volume.mounted);
}

/* What the record would take away from a node that got it later says up to when (simulator's seed 5299). */
static void test_orders_say_of_when_they_are(void **state)
{
    struct fake *f = *state;

    has(f, 2, owned_70, true);
    put_back(f, releasing(2), true);
    f->deaf[2] = true;
    arrive(f, 2);
    assert_int_equal(f->role[2], ROLE_RECEIVE);
    assert_int_equal(f->number[2], 21);
    arrive(f, 1);
    assert_int_equal(f->stored->owner.b[15], 2);
}

/* Whose data count is said while a lease keeps them: they are its owner's until it ends. */
static void test_adopt_what_is_deleted_and_held(void **state)
{
    struct fake *f = *state;
    struct dataset *d = born(1, 1);

    d->deleted = true;
    has(f, 2, owned_70, true);
    put_back(f, d, true);
    arrive(f, 1);
    arrive(f, 2);
    assert_int_equal(lease(f, 2), RESULT_CREATED);
    assert_int_equal(adopt(f, true), RESULT_OK);
    assert_int_equal(reason(f), REASON_STORE_UNKNOWN);
    assert_int_equal(adopt_from(f, 2, false), RESULT_OK);
    assert_int_equal(f->stored->tombstone, 0);
    assert_true(f->reports[2].volume.mounted);
    assert_int_equal(reason(f), REASON_LEASE_HELD);
    assert_int_equal(unlease(f), RESULT_OK);
    assert_true(f->stored->tombstone > 70 && !f->stored->n_holders);
    assert_false(f->reports[2].volume.present);
}

/* Where there is only a mark, there is nothing to keep. */
static void test_adopt_a_mark(void **state)
{
    struct fake *f = *state;

    has(f, 2, owned_70, false);
    f->reports[2].volume.present = f->reports[2].volume.attached = false;
    put_back(f, unborn(1, 0), true);
    arrive(f, 1);
    arrive(f, 2);
    tell(f, 2);
    settle(f);
    assert_int_equal(adopt_from(f, 2, false), RESULT_DATASET_NOT_THERE); /* as long as the copy is doubted */
    put_back(f, unborn(1, 0), false);
    arrive(f, 1);
    arrive(f, 2);
    tell(f, 2);
    settle(f);
    assert_int_equal(reason(f), REASON_STORE_UNKNOWN);
    assert_int_equal(adopt_from(f, 2, false), RESULT_OK);
    assert_int_equal(f->reports[2].volume.mark.state, MARK_NONE);
    assert_true(f->reports[1].volume.mounted);
}

/* The owner has only a mark that lets it do nothing: the data are gone. */
static void test_adopt_the_mark_of_the_owner(void **state)
{
    struct fake *f = *state;

    has(f, 1, (struct volume_mark){MARK_RELEASED, 20, 21, "t21-final"}, false);
    f->reports[1].volume.present = f->reports[1].volume.attached = false;
    f->reports[1].reason = (struct reason){.code = REASON_STORE_UNKNOWN};
    put_back(f, born(1, 1), false);
    f->deaf[1] = true;
    arrive(f, 1);
    tell(f, 1);
    settle(f);
    assert_int_equal(adopt_from(f, 1, false), RESULT_OK);
    assert_true(f->stored->epoch > 20 && f->stored->epoch == f->stored->number);
    f->reports[1].reason.code = REASON_NONE;
}

/* The owner has received something, but nothing that it would start from. */
static void test_adopt_from_elsewhere(void **state)
{
    struct fake *f = *state;
    char snapshot[1][SNAPSHOT_NAME_SIZE] = {"t71-final"};

    has(f, 2, released_20, false);
    f->reports[2].volume.mark.epoch = 70;
    f->reports[1].volume.snapshots = snapshot;
    f->reports[1].volume.n_snapshots = 1;
    put_back(f, born(1, 1), true);
    f->deaf[1] = true;
    arrive(f, 1);
    tell(f, 1);
    arrive(f, 2);
    assert_int_equal(adopt_from(f, 2, false), RESULT_OK);
    assert_true(f->stored->epoch > 71);
    struct dataset *d = born(1, 1);
    d->base = xstrdup("t71-final");
    has(f, 2, released_20, false);
    f->reports[2].volume.mark.epoch = 70;
    put_back(f, d, true);
    arrive(f, 1);
    tell(f, 1);
    arrive(f, 2);
    assert_int_equal(adopt_from(f, 2, false), RESULT_DATASET_MOUNTED); /* that is what it starts from */
    f->reports[1].volume.snapshots = NULL;
    f->reports[1].volume.n_snapshots = 0;
}

static void test_adopt_is_refused(void **state)
{
    struct fake *f = *state;
    struct command again = {.kind = COMMAND_DATASET_ADOPT, .id = 9, .dataset_id = D, .node = id(1)};
    struct command move = {.kind = COMMAND_DATASET_UPDATE, .id = 8, .dataset_id = D, .node = id(2)};

    put_back(f, NULL, true);
    arrive(f, 1);
    assert_int_equal(adopt_from(f, 1, true), RESULT_DATASET_NOT_FOUND);
    has(f, 1, owned_70, false);
    put_back(f, born(1, 1), true);
    arrive(f, 1);
    engine_command(f->e, f->now, &move);
    engine_command(f->e, f->now, &again);
    settle(f);
    assert_int_equal(f->last, RESULT_DATASET_CHANGING);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, fake_setup, fake_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_what_was_never_written_waits),
        TEST(test_anyway),
        TEST(test_a_mount_that_the_copy_does_not_know),
        TEST(test_a_mount_that_the_copy_rules_out),
        TEST(test_a_mount_that_waits_comes_last),
        TEST(test_a_mount_of_what_is_dropped),
        TEST(test_a_mount_that_the_lease_leaves_out),
        TEST(test_a_mount_that_the_lease_leaves_out_ends),
        TEST(test_a_lease_of_a_node_that_is_away),
        TEST(test_a_mount_after_the_operators_word),
        TEST(test_a_store_that_failed_is_not_settled),
        TEST(test_storage_that_does_not_answer),
        TEST(test_a_silent_node_may_have_the_named_id),
        TEST(test_a_silent_node_holds_nothing_up_for_ever),
        TEST(test_new_ids),
        TEST(test_named_again_where_it_is_mounted),
        TEST(test_a_grant_of_the_copy),
        TEST(test_a_grant_that_is_mounted),
        TEST(test_an_owner_that_was_fenced_since),
        TEST(test_an_owner_that_was_started_anew),
        TEST(test_a_handover_of_the_copy),
        TEST(test_a_handover_that_did_not_begin),
        TEST(test_a_delete_of_the_copy),
        TEST(test_a_delete_before_the_word),
        TEST(test_what_is_followed),
        TEST(test_what_was_told_stays),
        TEST(test_an_orphan_stays_mounted),
        TEST(test_a_grant_that_was_taken_back_is_not_followed),
        TEST(test_an_earlier_life_is_not_followed),
        TEST(test_adopt_what_was_released),
        TEST(test_adopt_what_was_received),
        TEST(test_adopt_in_spite_of_others),
        TEST(test_adopt_what_is_attached),
        TEST(test_adopt_what_is_deleted),
        TEST(test_adopt_beside_an_unborn_owner),
        TEST(test_orders_say_of_when_they_are),
        TEST(test_adopt_what_is_deleted_and_held),
        TEST(test_adopt_a_mark),
        TEST(test_adopt_the_mark_of_the_owner),
        TEST(test_adopt_from_elsewhere),
        TEST(test_adopt_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
