/* What can be read from the engine: lists with inputs in between, nodes that come and go, leases in the order in which they
 * end, and why something is not as wanted. */
#include "fake_cluster.h"

#include "base/str.h"

/* ---- lists ---- */

static size_t rest_of(struct dataset_cursor *c)
{
    struct uuid next;
    size_t n = 0;

    while (engine_cursor_next(c, &next))
        n++;
    return n;
}

static void test_cursors(void **state)
{
    struct fake *f = *state;
    struct uuid ninety = id(90), next;
    struct report r = {.dataset = ninety, .volume = {.present = true}};

    assert_null(engine_cursor_close(NULL));
    struct dataset_cursor *nothing = engine_cursor_open(f->e);
    assert_int_equal(rest_of(nothing), 0);
    engine_report(f->e, f->now, 11, &r); /* comes first, and goes before its turn */
    assert_int_equal(create(f, 1), RESULT_CREATED);
    struct dataset_cursor *whole = engine_cursor_open(f->e), *late = engine_cursor_open(f->e);
    assert_int_equal(engine_dataset_count(f->e), 2);
    assert_true(engine_cursor_next(late, &next));
    assert_true(uuid_eq(&next, &ninety));
    engine_report_gone(f->e, f->now, 11, &ninety);
    assert_int_equal(engine_dataset_count(f->e), 1);
    assert_int_equal(rest_of(late), 1);
    assert_true(engine_cursor_next(whole, &next));
    assert_true(uuid_eq(&next, &D));
    assert_int_equal(run(f, (struct command){.kind = COMMAND_DATASET_CREATE, .dataset = wanted(78, 1)}), RESULT_CREATED);
    assert_int_equal(rest_of(whole), 0); /* was at its end already */
    struct dataset_cursor *again = engine_cursor_open(f->e);
    assert_int_equal(rest_of(again), 2);
    assert_null(engine_cursor_close(whole)); /* not the one opened last */
    assert_null(engine_cursor_close(again));
    assert_null(engine_cursor_close(nothing));
    assert_null(engine_cursor_close(late));
}

static void count_dataset(void *n, const struct dataset *d)
{
    assert_non_null(d);
    ++*(unsigned *)n;
}

static void count_container(void *n, const struct container *c)
{
    assert_non_null(c);
    ++*(unsigned *)n;
}

static void count_report(void *n, const struct uuid *node, const struct report *r)
{
    (void)node;
    assert_non_null(r);
    ++*(unsigned *)n;
}

static void count_container_report(void *n, const struct uuid *node, const struct container_report *r)
{
    (void)node;
    assert_non_null(r->name);
    ++*(unsigned *)n;
}

struct seen {
    unsigned datasets, containers, reports, all_reports, container_reports, all_container_reports;
};

static struct seen look(struct fake *f, const char *container)
{
    struct seen s = {0};
    struct uuid d = D;

    engine_each_dataset(f->e, count_dataset, &s.datasets);
    engine_each_container(f->e, count_container, &s.containers);
    engine_each_report(f->e, f->now, &d, count_report, &s.reports);
    engine_each_report_all(f->e, f->now, count_report, &s.all_reports);
    engine_each_container_report(f->e, f->now, container, count_container_report, &s.container_reports);
    engine_each_container_report_all(f->e, f->now, count_container_report, &s.all_container_reports);
    return s;
}

static bool same(const struct seen *s, struct seen wanted)
{
    return memcmp(s, &wanted, sizeof(wanted)) == 0;
}

static void test_what_there_is(void **state)
{
    struct fake *f = *state;
    struct uuid d = D, unknown = id(200);
    struct container_report old = {.name = (char *)"old", .run = CONTAINER_RUNNING};

    struct seen s = look(f, "c");
    assert_true(same(&s, (struct seen){0}));
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(create_container(f, with_volume(1, "c")), RESULT_CREATED);
    engine_report(f->e, f->now, 12, &(struct report){.dataset = id(90), .volume = {.present = true}});
    engine_container_report(f->e, f->now, 12, &old);
    s = look(f, "c");
    assert_true(same(&s, (struct seen){1, 1, 1, 2, 1, 2}));
    assert_string_equal(engine_container_of_dataset(f->e, &d)->name, "c");
    assert_null(engine_container_of_dataset(f->e, &unknown));
    assert_null(engine_container(f->e, "old")); /* only reported */
    assert_int_equal(container_reason(f, "old"), REASON_NONE);
    assert_int_equal(container_reason(f, "none"), REASON_NONE);
    /* A dropped dataset is there for nobody. */
    assert_int_equal(compose_all(f, 0, 0, false), RESULT_OK);
    s = look(f, "c");
    assert_int_equal(s.datasets, 0);
    assert_int_equal(s.containers, 0);
    assert_null(engine_container_of_dataset(f->e, &d));
}

/* Messages that came too late, or about what nobody knows. */
static void test_messages_without_effect(void **state)
{
    struct fake *f = *state;
    struct uuid unknown = id(200);
    struct report r = {.dataset = D, .volume = {.present = true}};
    struct container_report c = {.name = (char *)"c", .run = CONTAINER_RUNNING};

    leave(f, 3);
    for (uint64_t session = 13; session <= 14; session++) { /* closed, and never opened */
        engine_report(f->e, f->now, session, &r);
        engine_report_gone(f->e, f->now, session, &unknown);
        engine_container_report(f->e, f->now, session, &c);
        engine_container_gone(f->e, f->now, session, "c");
        engine_reports_complete(f->e, f->now, session);
        engine_session_closed(f->e, f->now, session);
    }
    engine_report(f->e, f->now, 0, &r);
    engine_report_gone(f->e, f->now, 11, &unknown);
    engine_container_gone(f->e, f->now, 11, "c");
    assert_null(engine_next(f->e));
    assert_int_equal(engine_counts(f->e).datasets, 0);
    assert_int_equal(engine_counts(f->e).containers, 0);
    /* Gone from a node that never had it: the other's report stays. */
    engine_report(f->e, f->now, 11, &r);
    engine_container_report(f->e, f->now, 11, &c);
    engine_report_gone(f->e, f->now, 12, &r.dataset);
    engine_container_gone(f->e, f->now, 12, "c");
    struct seen s = look(f, "c");
    assert_int_equal(s.reports, 1);
    assert_int_equal(s.container_reports, 1);
}

struct nodes {
    unsigned known, connected, listed;
};

static void count_node(void *cookie, const struct node_view *v)
{
    struct nodes *n = cookie;

    n->known++;
    n->connected += v->connected;
    n->listed += v->listed;
}

static struct nodes count_nodes(struct fake *f)
{
    struct nodes n = {0};

    engine_each_node(f->e, f->now, count_node, &n);
    return n;
}

static void test_a_node_that_is_away_is_listed_for_a_while(void **state)
{
    struct fake *f = *state;
    struct uuid era = id(61), node, never = id(200);

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(create_container(f, with_volume(1, "c")), RESULT_CREATED);
    leave(f, 1);
    f->now.mono_us += 1 * USEC_PER_SEC;
    leave(f, 2);
    assert_int_equal(engine_deadline(f->e), f->now.mono_us - 1 * USEC_PER_SEC + NODE_GRACE_US);
    struct nodes n = count_nodes(f);
    assert_true(n.known == 3 && n.connected == 1 && n.listed == 3);
    assert_int_equal(look(f, "c").reports, 1);
    f->now.mono_us = engine_deadline(f->e);
    engine_tick(f->e, f->now);
    n = count_nodes(f);
    assert_true(n.known == 3 && n.connected == 1 && n.listed == 2);
    struct seen s = look(f, "c");
    assert_int_equal(s.reports, 0);
    assert_int_equal(s.container_reports, 0);
    f->now.mono_us = engine_deadline(f->e);
    engine_tick(f->e, f->now);
    assert_int_equal(count_nodes(f).listed, 1);
    assert_true(engine_node_by_era(f->e, &era, &node)); /* eras are known for ever */
    assert_int_equal(node.b[15], 1);
    assert_false(engine_node_by_era(f->e, &never, &node));
    assert_int_equal(container_reason(f, "c"), REASON_NODE_DISCONNECTED);
    come_back(f, 1);
    assert_int_equal(container_reason(f, "c"), REASON_NONE);
}

/* ---- leases ---- */

static void acquire(struct fake *f, unsigned char dataset, int64_t seconds)
{
    (void)run(f, (struct command){.kind = COMMAND_LEASE_ACQUIRE, .dataset_id = id(dataset), .node = id(1), .expires = true,
                                  .expires_in_us = seconds * (int64_t)USEC_PER_SEC});
}

static void bits_of(void *cookie, const struct lease *l, uint64_t left_us)
{
    (void)left_us;
    *(unsigned *)cookie |= 1u << l->dataset.b[15];
}

static unsigned leases(struct fake *f)
{
    unsigned bits = 0;

    engine_each_lease(f->e, f->now, bits_of, &bits);
    return bits;
}

/* Ten leases in a mixed order; one is renewed, one given back in the middle, one never ends. */
static void test_leases_end_in_order(void **state)
{
    static const int seconds[] = {50, 20, 90, 30, 70, 10, 80, 40, 60};
    struct fake *f = *state;
    uint64_t begin_us = f->now.mono_us;

    for (unsigned char k = 0; k < ARRAY_SIZE(seconds); k++)
        acquire(f, k, seconds[k]);
    (void)run(f, (struct command){.kind = COMMAND_LEASE_ACQUIRE, .dataset_id = id(9), .node = id(1)});
    acquire(f, 5, 75); /* instead of 10 */
    acquire(f, 2, 15); /* instead of 90 */
    (void)run(f, (struct command){.kind = COMMAND_LEASE_RELEASE, .dataset_id = id(3)}); /* 30 */
    static const struct {
        uint64_t seconds;
        unsigned dataset;
    } ends[] = {{15, 2}, {20, 1}, {40, 7}, {50, 0}, {60, 8}, {70, 4}, {75, 5}, {80, 6}};
    unsigned left = 0x3ff & ~(1u << 3);
    assert_int_equal(leases(f), left);
    for (size_t i = 0; i < ARRAY_SIZE(ends); i++) {
        assert_int_equal(engine_deadline(f->e), begin_us + ends[i].seconds * USEC_PER_SEC);
        f->now.mono_us = engine_deadline(f->e);
        engine_tick(f->e, f->now);
        settle(f);
        left &= ~(1u << ends[i].dataset);
        assert_int_equal(leases(f), left);
    }
    assert_int_equal(engine_deadline(f->e), USEC_NEVER);
    assert_int_equal(left, 1u << 9);
}

static void left_of(void *cookie, const struct lease *l, uint64_t left_us)
{
    (void)l;
    *(uint64_t *)cookie = left_us;
}

static void test_a_lease_that_is_due(void **state)
{
    struct fake *f = *state;
    uint64_t left = 1;

    acquire(f, 1, -5); /* gone at the next look */
    engine_each_lease(f->e, f->now, left_of, &left);
    assert_int_equal(left, 0);
    engine_tick(f->e, f->now);
    struct command release = {.kind = COMMAND_LEASE_RELEASE, .dataset_id = id(1)};
    assert_int_equal(run(f, release), RESULT_LEASE_NOT_FOUND);
    acquire(f, 1, 5);
    f->now.mono_us += 6 * USEC_PER_SEC;
    assert_int_equal(run(f, release), RESULT_OK); /* before it was noticed */
}

/* ---- reasons ---- */

/* A dataset on node 1 of which that node says this. */
static char *text_of(struct fake *f, enum reason_code code, const char *text, enum reason_code *ret_code)
{
    struct uuid d = D;
    struct reason r;

    f->reports[1].reason = (struct reason){.code = code, .text = (char *)text};
    tell(f, 1);
    settle(f);
    engine_dataset_reason(f->e, f->now, &d, &r);
    *ret_code = r.code;
    char *found = xstrdup_null(r.text);
    reason_done(&r);
    return found;
}

static void test_a_node_knows_more(void **state)
{
    struct fake *f = *state;
    enum reason_code code;

    assert_int_equal(reason(f), REASON_NONE); /* of what nobody knows */
    f->deaf[1] = true;
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(reason(f), REASON_CREATING);
    CLEANUP_FREE char *busy = text_of(f, REASON_NO_SPACE, "pool full", &code);
    assert_int_equal(code, REASON_NO_SPACE);
    assert_non_null(strstr(busy, "pool full"));
    CLEANUP_FREE char *silent = text_of(f, REASON_STORAGE_ERROR, NULL, &code);
    assert_int_equal(code, REASON_STORAGE_ERROR);
    assert_non_null(strstr(silent, reason_code_name(REASON_STORAGE_ERROR)));
    CLEANUP_FREE char *at_it = text_of(f, REASON_CREATING, NULL, &code); /* no more than the engine knows */
    assert_int_equal(code, REASON_CREATING);
    /* What another node says is not asked for. */
    f->reports[2].reason = (struct reason){.code = REASON_NO_SPACE};
    tell(f, 2);
    assert_int_equal(reason(f), REASON_CREATING);
    f->reports[1].reason = (struct reason){0};
    f->reports[2].reason = (struct reason){0};
}

/* What is wrong on one of the two is told rather than that they could not talk. */
static void test_of_two_nodes_the_one_with_the_cause(void **state)
{
    struct fake *f = *state;
    enum reason_code code;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    f->deaf[1] = f->deaf[2] = true;
    assert_int_equal(move(f, 2), RESULT_OK);
    assert_int_equal(reason(f), REASON_COPYING);
    CLEANUP_FREE char *failed = text_of(f, REASON_TRANSFER_FAILED, "cut", &code);
    assert_int_equal(code, REASON_TRANSFER_FAILED);
    f->reports[2].reason = (struct reason){.code = REASON_NO_SPACE, .text = (char *)"full"};
    tell(f, 2);
    assert_int_equal(reason(f), REASON_NO_SPACE);
    f->reports[2].reason = (struct reason){.code = REASON_PEER_UNREACHABLE};
    tell(f, 2);
    assert_int_equal(reason(f), REASON_TRANSFER_FAILED);
    f->reports[1].reason = f->reports[2].reason = (struct reason){0};
}

static void say(struct fake *f, unsigned char n, enum container_run state, enum reason_code code)
{
    struct container_report r = {.name = (char *)"c", .run = state, .reason = {.code = code}};

    engine_container_report(f->e, f->now, f->sessions[n], &r);
    settle(f);
}

static void test_why_a_container_does_not_run(void **state)
{
    struct fake *f = *state;

    f->deaf[1] = true;
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(create_container(f, with_volume(1, "c")), RESULT_CREATED);
    assert_int_equal(container_reason(f, "c"), REASON_WAITING_FOR_DATASET);
    say(f, 1, CONTAINER_ABSENT, REASON_NONE);
    assert_int_equal(container_reason(f, "c"), REASON_WAITING_FOR_DATASET);
    say(f, 1, CONTAINER_ABSENT, REASON_WAITING_FOR_DATASET);
    assert_int_equal(container_reason(f, "c"), REASON_WAITING_FOR_DATASET);
    say(f, 1, CONTAINER_RUNNING, REASON_CRASH_LOOP);
    assert_int_equal(container_reason(f, "c"), REASON_CRASH_LOOP);
    say(f, 1, CONTAINER_RUNNING, REASON_NONE);
    assert_int_equal(container_reason(f, "c"), REASON_NONE);
    assert_int_equal(create_container(f, with_volume(3, "d")), RESULT_DATASET_ELSEWHERE);
}

static void test_why_a_container_without_volume_does_not_run(void **state)
{
    struct fake *f = *state;
    struct container *c = container_new("c");

    c->node = id(9);
    c->image = xstrdup("img:1");
    assert_int_equal(create_container(f, c), RESULT_CREATED);
    assert_int_equal(container_reason(f, "c"), REASON_NODE_DISCONNECTED); /* never was */
    f->deaf[1] = true;
    assert_int_equal(move_container(f, "c", 1), RESULT_OK);
    assert_int_equal(container_reason(f, "c"), REASON_WAITING_FOR_IMAGE);
    say(f, 1, CONTAINER_ABSENT, REASON_WAITING_FOR_DATASET); /* of an earlier one with a volume */
    assert_int_equal(container_reason(f, "c"), REASON_WAITING_FOR_DATASET);
    leave(f, 1);
    assert_int_equal(container_reason(f, "c"), REASON_NODE_DISCONNECTED);
    engine_session_open(f->e, f->now, 21, &(struct hello){.protocol = AGENT_PROTOCOL_VERSION, .node = id(1), .era = id(70)});
    assert_int_equal(container_reason(f, "c"), REASON_WAITING_FOR_IMAGE); /* it is still looking around */
    engine_session_closed(f->e, f->now, 21);
    come(f, 1, id(55), id(98), 1); /* of another store */
    settle(f);
    assert_int_equal(container_reason(f, "c"), REASON_STORE_UNKNOWN);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_cursors),
        TEST(test_what_there_is),
        TEST(test_messages_without_effect),
        TEST(test_a_node_that_is_away_is_listed_for_a_while),
        TEST(test_leases_end_in_order),
        TEST(test_a_lease_that_is_due),
        TEST(test_a_node_knows_more),
        TEST(test_of_two_nodes_the_one_with_the_cause),
        TEST(test_why_a_container_does_not_run),
        TEST(test_why_a_container_without_volume_does_not_run),
    };

    return cmocka_run_group_tests_name("views", tests, NULL, NULL);
}
