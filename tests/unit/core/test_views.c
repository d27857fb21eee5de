/* What can be read from the engine: lists with inputs in between, nodes that come and go, leases in the order in which they
 * end, and why something is not as wanted. */
#include "fake_cluster.h"

#include "base/str.h"

/* ---- lists ---- */

/* What a list is asked for, and what it gave: last bytes of ids, or letters of names. */
struct asked {
    struct list_query q;
    size_t most; /* ends the walk; 0 = never */
    char got[300];
    size_t n;
};

static bool note_id(void *cookie, const struct uuid *id)
{
    struct asked *a = cookie;

    a->got[a->n++] = (char)id->b[15];
    return a->n != a->most;
}

static bool note_name(void *cookie, const char *name)
{
    struct asked *a = cookie;

    a->got[a->n++] = name[0];
    return a->n != a->most;
}

static bool note_lease(void *cookie, const struct lease *l, uint64_t left_us)
{
    (void)left_us;
    return note_id(cookie, &l->dataset);
}

static bool note_node(void *cookie, const struct node_view *v)
{
    return note_id(cookie, &v->node);
}

#define EXPECT(asked, ...)                                                                         \
    do {                                                                                           \
        const char expected_[] = {__VA_ARGS__};                                                    \
        assert_int_equal((asked).n, sizeof(expected_));                                            \
        assert_memory_equal((asked).got, expected_, sizeof(expected_));                            \
    } while (0)

static struct asked datasets(struct fake *f, struct list_query q, size_t most)
{
    struct asked a = {.q = q, .most = most};

    engine_list_datasets(f->e, &a.q, note_id, &a);
    return a;
}

static struct asked containers(struct fake *f, struct list_query q, size_t most)
{
    struct asked a = {.q = q, .most = most};

    engine_list_containers(f->e, &a.q, note_name, &a);
    return a;
}

static void create_at(struct fake *f, unsigned char dataset, unsigned char node, const char *name)
{
    struct dataset *d = wanted(dataset, node);
    struct metadata_entry entry = {(char *)"name", (char *)name};

    if (name)
        metadata_copy(&d->metadata, &(struct metadata){&entry, 1});
    assert_int_equal(run(f, (struct command){.kind = COMMAND_DATASET_CREATE, .dataset = d}), RESULT_CREATED);
}

static void test_lists_are_in_order(void **state)
{
    struct fake *f = *state;
    struct uuid ninety = id(90), thirty = id(30), no = id(40);
    struct report r = {.volume = {.dataset = ninety, .present = true}};

    assert_int_equal(datasets(f, (struct list_query){0}, 0).n, 0);
    engine_report(f->e, f->now, 11, &r); /* comes first, belongs behind */
    create_at(f, 50, 1, NULL);
    create_at(f, 30, 9, NULL); /* no such node: it can be purged at once */
    create_at(f, 70, 2, NULL);
    assert_int_equal(engine_dataset_count(f->e), 4);
    EXPECT(datasets(f, (struct list_query){0}, 0), 30, 50, 70, 90);
    EXPECT(datasets(f, (struct list_query){0}, 2), 30, 50);
    EXPECT(datasets(f, (struct list_query){.after = &thirty}, 0), 50, 70, 90);
    EXPECT(datasets(f, (struct list_query){.after = &no}, 1), 50); /* is not there */
    engine_report_gone(f->e, f->now, 11, &ninety);
    assert_int_equal(run(f, (struct command){.kind = COMMAND_DATASET_DELETE, .dataset_id = thirty, .purge = true}), RESULT_OK);
    EXPECT(datasets(f, (struct list_query){.after = &thirty}, 0), 50, 70); /* is there no more */
    EXPECT(datasets(f, (struct list_query){0}, 0), 50, 70);
    assert_int_equal(datasets(f, (struct list_query){.after = &ninety}, 0).n, 0);
}

static void test_lists_by_name(void **state)
{
    struct fake *f = *state;
    struct uuid d = D, middle = id(80);
    struct metadata_entry entry = {(char *)"name", (char *)"b"};
    struct metadata b = {&entry, 1}, none = {0};

    create_at(f, 95, 9, "a"); /* no such node: it can be purged at once */
    create_at(f, 77, 2, "a");
    create_at(f, 80, 1, "a");
    create_at(f, 2, 1, "b");
    create_at(f, 6, 1, NULL);
    EXPECT(datasets(f, (struct list_query){.name = "a"}, 0), 77, 80, 95);
    EXPECT(datasets(f, (struct list_query){.name = "a"}, 2), 77, 80);
    EXPECT(datasets(f, (struct list_query){.name = "a", .after = &d}, 0), 80, 95);
    assert_int_equal(datasets(f, (struct list_query){.name = "none"}, 0).n, 0);
    assert_int_equal(datasets(f, (struct list_query){.name = ""}, 0).n, 0);
    struct command c = {.kind = COMMAND_DATASET_UPDATE, .dataset_id = middle, .keep_primary = true, .metadata = &b};
    assert_int_equal(run(f, c), RESULT_OK);
    EXPECT(datasets(f, (struct list_query){.name = "a"}, 0), 77, 95);
    EXPECT(datasets(f, (struct list_query){.name = "b"}, 0), 2, 80);
    c.metadata = &none;
    assert_int_equal(run(f, c), RESULT_OK);
    EXPECT(datasets(f, (struct list_query){.name = "b"}, 0), 2);
    /* What is deleted still has its name; what was purged or dropped has none. */
    assert_int_equal(run(f, (struct command){.kind = COMMAND_DATASET_DELETE, .dataset_id = id(95)}), RESULT_OK);
    EXPECT(datasets(f, (struct list_query){.name = "a"}, 0), 77, 95);
    assert_int_equal(run(f, (struct command){.kind = COMMAND_DATASET_DELETE, .dataset_id = id(95), .purge = true}), RESULT_OK);
    EXPECT(datasets(f, (struct list_query){.name = "a"}, 0), 77);
    assert_int_equal(compose_all(f, 0, 0, false), RESULT_OK);
    assert_int_equal(datasets(f, (struct list_query){.name = "a"}, 0).n, 0);
}

/* Many datasets, few of them on node 3; then those of node 3 are looked at alone, and else what is in between. */
static void test_lists_of_a_node(void **state)
{
    struct fake *f = *state;
    struct uuid one = id(1), three = id(3), nobody = id(200), forty = id(40);

    for (unsigned char k = 100; k-- > 0;)
        create_at(f, (unsigned char)(100 + k), k % 50 == 7 ? 3 : 1, NULL);
    EXPECT(datasets(f, (struct list_query){.node = &three}, 0), 107, (char)157);
    struct uuid after = id(107);
    EXPECT(datasets(f, (struct list_query){.node = &three, .after = &after}, 0), (char)157);
    EXPECT(datasets(f, (struct list_query){.node = &three}, 1), 107);
    assert_int_equal(datasets(f, (struct list_query){.node = &nobody, .after = &forty}, 0).n, 0);
    EXPECT(datasets(f, (struct list_query){.node = &one, .about = 2}, 2), 100, 101);
}

static void test_lists_of_containers(void **state)
{
    struct fake *f = *state;
    struct uuid two = id(2), three = id(3);
    struct container_report old = {.name = (char *)"old", .run = CONTAINER_RUNNING};

    for (char k = 'z'; k >= 'a'; k--) {
        struct container *c = container_new((char[]){k, 0});
        c->node = id(k == 'm' ? 3 : 1);
        c->image = xstrdup("img:1");
        assert_int_equal(create_container(f, c), RESULT_CREATED);
    }
    engine_container_report(f->e, f->now, 12, &old);
    assert_int_equal(containers(f, (struct list_query){0}, 0).n, 27);
    EXPECT(containers(f, (struct list_query){.after_name = "n"}, 3), 'o', 'o', 'p');
    EXPECT(containers(f, (struct list_query){.after_name = "xx"}, 0), 'y', 'z');
    EXPECT(containers(f, (struct list_query){.name = "d"}, 0), 'd');
    EXPECT(containers(f, (struct list_query){.name = "d", .after_name = "cc"}, 0), 'd');
    assert_int_equal(containers(f, (struct list_query){.name = "d", .after_name = "d"}, 0).n, 0);
    assert_int_equal(containers(f, (struct list_query){.name = "none"}, 0).n, 0);
    EXPECT(containers(f, (struct list_query){.node = &three}, 0), 'm');
    EXPECT(containers(f, (struct list_query){.node = &two}, 0), 'o'); /* only reports it */
    assert_int_equal(run(f, (struct command){.kind = COMMAND_CONTAINER_DELETE, .name = "y"}), RESULT_OK);
    f->now.mono_us += 1;
    engine_container_gone(f->e, f->now, 11, "y");
    EXPECT(containers(f, (struct list_query){.after_name = "xx"}, 0), 'z');
}

static void test_lists_of_leases_and_nodes(void **state)
{
    struct fake *f = *state;
    struct uuid three = id(3), sixty = id(60);
    struct asked a = {0};

    for (unsigned char k = 100; k-- > 40;) {
        struct command c = {.kind = COMMAND_LEASE_ACQUIRE, .dataset_id = id(k), .node = id(k == 50 || k == 70 ? 3 : 1)};
        assert_int_equal(run(f, c), RESULT_CREATED);
    }
    a = (struct asked){.most = 2};
    engine_list_leases(f->e, f->now, &a.q, note_lease, &a);
    EXPECT(a, 40, 41);
    a = (struct asked){.q = {.node = &three}};
    engine_list_leases(f->e, f->now, &a.q, note_lease, &a);
    EXPECT(a, 50, 70);
    a = (struct asked){.q = {.node = &three, .after = &sixty}};
    engine_list_leases(f->e, f->now, &a.q, note_lease, &a);
    EXPECT(a, 70);
    assert_int_equal(run(f, (struct command){.kind = COMMAND_LEASE_RELEASE, .dataset_id = id(70)}), RESULT_OK);
    a = (struct asked){.q = {.node = &three}};
    engine_list_leases(f->e, f->now, &a.q, note_lease, &a);
    EXPECT(a, 50);
    a = (struct asked){0};
    engine_list_nodes(f->e, f->now, &a.q, note_node, &a);
    EXPECT(a, 1, 2, 3);
    struct uuid one = id(1);
    a = (struct asked){.q = {.after = &one}, .most = 1};
    engine_list_nodes(f->e, f->now, &a.q, note_node, &a);
    EXPECT(a, 2);
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
    unsigned datasets, containers, reports, container_reports;
};

struct look {
    struct fake *f;
    struct seen seen;
};

static bool look_at_dataset(void *cookie, const struct uuid *id)
{
    struct look *l = cookie;

    l->seen.datasets += engine_dataset(l->f->e, id) != NULL;
    return true;
}

static bool look_at_container(void *cookie, const char *name)
{
    struct look *l = cookie;

    l->seen.containers += engine_container(l->f->e, name) != NULL;
    return true;
}

static struct seen look(struct fake *f, const char *container)
{
    struct look l = {.f = f};
    struct uuid d = D;

    engine_list_datasets(f->e, &(struct list_query){0}, look_at_dataset, &l);
    engine_list_containers(f->e, &(struct list_query){0}, look_at_container, &l);
    engine_each_report(f->e, f->now, &d, count_report, &l.seen.reports);
    engine_each_container_report(f->e, f->now, container, count_container_report, &l.seen.container_reports);
    return l.seen;
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
    engine_report(f->e, f->now, 12, &(struct report){.volume = {.dataset = id(90), .present = true}});
    engine_container_report(f->e, f->now, 12, &old);
    s = look(f, "c");
    assert_true(same(&s, (struct seen){1, 1, 1, 1}));
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
    struct report r = {.volume = {.dataset = D, .present = true}};
    struct container_report c = {.name = (char *)"c", .run = CONTAINER_RUNNING};

    leave(f, 3);
    for (uint64_t session = 13; session <= 14; session++) { /* closed, and never opened */
        engine_report(f->e, f->now, session, &r);
        engine_report_gone(f->e, f->now, session, &unknown);
        engine_container_report(f->e, f->now, session, &c);
        engine_container_gone(f->e, f->now, session, "c");
        engine_reports_complete(f->e, f->now, session, 0);
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
    engine_report_gone(f->e, f->now, 12, &r.volume.dataset);
    engine_container_gone(f->e, f->now, 12, "c");
    struct seen s = look(f, "c");
    assert_int_equal(s.reports, 1);
    assert_int_equal(s.container_reports, 1);
}

struct nodes {
    unsigned known, connected, listed;
};

static bool count_node(void *cookie, const struct node_view *v)
{
    struct nodes *n = cookie;

    n->known++;
    n->connected += v->connected;
    n->listed += v->listed;
    return true;
}

static struct nodes count_nodes(struct fake *f)
{
    struct nodes n = {0};

    engine_list_nodes(f->e, f->now, &(struct list_query){0}, count_node, &n);
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

static bool bits_of(void *cookie, const struct lease *l, uint64_t left_us)
{
    (void)left_us;
    *(unsigned *)cookie |= 1u << l->dataset.b[15];
    return true;
}

static unsigned leases(struct fake *f)
{
    unsigned bits = 0;

    engine_list_leases(f->e, f->now, &(struct list_query){0}, bits_of, &bits);
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

static bool left_of(void *cookie, const struct lease *l, uint64_t left_us)
{
    (void)l;
    *(uint64_t *)cookie = left_us;
    return true;
}

static void test_a_lease_that_is_due(void **state)
{
    struct fake *f = *state;
    uint64_t left = 1;

    acquire(f, 1, -5); /* gone at the next look */
    engine_list_leases(f->e, f->now, &(struct list_query){0}, left_of, &left);
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

/* What it does not know an agent does not leave out: it does not start the container. */
static void test_an_older_agent_and_new_settings(void **state)
{
    struct fake *f = *state;
    struct container *k = container_new("c");

    k->node = id(1);
    k->image = xstrdup("img:1");
    k->user = xstrdup("70");
    assert_int_equal(create_container(f, k), RESULT_CREATED);
    assert_int_equal(f->started, 0);
    assert_int_equal(container_reason(f, "c"), REASON_START_FAILED);
    leave(f, 1);
    f->hellos[1].extended = true; /* it was upgraded */
    come_back(f, 1);
    assert_int_equal(f->started, 1);
    assert_int_equal(container_reason(f, "c"), REASON_NONE);
    assert_int_equal(move_container(f, "c", 2), RESULT_OK);
    assert_int_equal(f->started, 1);
    assert_int_equal(container_reason(f, "c"), REASON_START_FAILED);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_lists_are_in_order),
        TEST(test_lists_by_name),
        TEST(test_lists_of_a_node),
        TEST(test_lists_of_containers),
        TEST(test_lists_of_leases_and_nodes),
        TEST(test_what_there_is),
        TEST(test_messages_without_effect),
        TEST(test_a_node_that_is_away_is_listed_for_a_while),
        TEST(test_leases_end_in_order),
        TEST(test_a_lease_that_is_due),
        TEST(test_a_node_knows_more),
        TEST(test_of_two_nodes_the_one_with_the_cause),
        TEST(test_why_a_container_does_not_run),
        TEST(test_why_a_container_without_volume_does_not_run),
        TEST(test_an_older_agent_and_new_settings),
    };

    return cmocka_run_group_tests_name("views", tests, NULL, NULL);
}
