/* What users may ask for and what they are told when they may not; whole configurations that are refused; commits that fail
 * with everything in flight. */
#include "fake_cluster.h"

#include "base/str.h"

/* ---- datasets ---- */

static enum result_code resize(struct fake *f, uint64_t size)
{
    return run(f, (struct command){.kind = COMMAND_DATASET_UPDATE, .dataset_id = D, .keep_primary = true,
                                   .maximum_size = size});
}

static void test_sizes_only_grow(void **state)
{
    struct fake *f = *state;
    struct dataset *d = wanted(77, 1);

    d->maximum_size = 200;
    assert_int_equal(run(f, (struct command){.kind = COMMAND_DATASET_CREATE, .dataset = d}), RESULT_CREATED);
    uint64_t revision = f->revision;
    assert_int_equal(resize(f, 100), RESULT_DATASET_SHRINKS);
    assert_int_equal(resize(f, 200), RESULT_OK);
    assert_int_equal(resize(f, 0), RESULT_OK);
    assert_int_equal(f->revision, revision); /* nothing changed so far */
    assert_int_equal(resize(f, 300), RESULT_OK);
    assert_int_equal(listed(f)->maximum_size, 300);
    leave(f, 1);
    f->hellos[1].storage = STORAGE_ATTACHABLE;
    come_back(f, 1);
    assert_int_equal(resize(f, 400), RESULT_DATASET_FIXED);
    leave(f, 1);
    f->hellos[1].grows = true;
    come_back(f, 1);
    assert_int_equal(resize(f, 400), RESULT_OK);
}

static enum result_code compose_size(struct fake *f, uint64_t size)
{
    struct dataset *d = wanted(77, 1);
    struct composition c = {.datasets = xmemdup(&d, sizeof(struct dataset *)), .n_datasets = 1};

    d->maximum_size = size;
    enum result_code code = run(f, (struct command){.kind = COMMAND_COMPOSE, .composition = &c});
    composition_done(&c);
    return code;
}

/* Nor does a whole configuration make one smaller, not even one that was dropped from an earlier one: its data are as large. */
static void test_sizes_only_grow_in_compositions(void **state)
{
    struct fake *f = *state;

    assert_int_equal(compose_size(f, 200), RESULT_OK);
    assert_int_equal(compose_size(f, 100), RESULT_DATASET_SHRINKS);
    assert_int_equal(listed(f)->maximum_size, 200);
    assert_int_equal(compose_size(f, 0), RESULT_OK); /* says nothing */
    assert_int_equal(listed(f)->maximum_size, 200);
    assert_int_equal(compose_size(f, 300), RESULT_OK);
    assert_int_equal(compose_all(f, 0, 0, false), RESULT_OK);
    assert_null(listed(f));
    assert_int_equal(compose_size(f, 200), RESULT_DATASET_SHRINKS);
    struct dataset *smaller = wanted(77, 1);
    smaller->maximum_size = 200;
    assert_int_equal(run(f, (struct command){.kind = COMMAND_DATASET_CREATE, .dataset = smaller}), RESULT_DATASET_SHRINKS);
    assert_null(listed(f));
    assert_int_equal(compose_size(f, 0), RESULT_OK);
    assert_int_equal(listed(f)->maximum_size, 300);
    leave(f, 1);
    f->hellos[1].storage = STORAGE_ATTACHABLE;
    come_back(f, 1);
    assert_int_equal(compose_size(f, 300), RESULT_OK);
    assert_int_equal(compose_size(f, 400), RESULT_DATASET_FIXED);
}

static void test_a_size_without_limit_cannot_get_one(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(resize(f, 400), RESULT_DATASET_SHRINKS);
}

static void test_metadata(void **state)
{
    struct fake *f = *state;
    struct metadata_entry entry = {(char *)"name", (char *)"db"};
    struct metadata metadata = {&entry, 1};
    struct command update = {.kind = COMMAND_DATASET_UPDATE, .dataset_id = D, .keep_primary = true, .metadata = &metadata};

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(run(f, update), RESULT_OK);
    assert_string_equal(metadata_get(&listed(f)->metadata, "name"), "db");
    uint64_t revision = f->revision;
    assert_int_equal(run(f, update), RESULT_OK);
    assert_int_equal(f->revision, revision); /* no news */
}

static void test_a_deleted_dataset_takes_no_changes(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create(f, 1), RESULT_CREATED);
    leave(f, 1);
    assert_int_equal(remove_dataset(f, false), RESULT_OK);
    uint64_t revision = f->revision;
    assert_int_equal(remove_dataset(f, false), RESULT_OK); /* once more is no news */
    assert_int_equal(f->revision, revision);
    assert_int_equal(move(f, 2), RESULT_DATASET_DELETED);
    assert_int_equal(create_container(f, with_volume(1, "c")), RESULT_DATASET_NOT_FOUND);
    assert_int_equal(lease(f, 1), RESULT_LEASE_RELEASING);
    assert_int_equal(remove_dataset(f, true), RESULT_OK);
    revision = f->revision;
    assert_int_equal(remove_dataset(f, true), RESULT_OK); /* it is being forgotten already */
    assert_int_equal(f->revision, revision);
    come_back(f, 1);
    assert_null(listed(f));
}

/* ---- containers ---- */

static struct container *with_port(const char *name, uint16_t external)
{
    struct container *c = container_new(name);

    c->node = id(1);
    c->image = xstrdup("img:1");
    c->ports = xmemdup(&(struct port){80, external}, sizeof(*c->ports));
    c->n_ports = 1;
    return c;
}

static struct container *with_links(const char *name, const char *first, uint16_t first_port, const char *second,
                                    uint16_t second_port)
{
    struct container *c = container_new(name);
    struct link links[] = {{xstrdup(first), first_port, 1}, {xstrdup(second), second_port, 2}};

    c->node = id(1);
    c->image = xstrdup("img:1");
    c->links = xmemdup(links, sizeof(links));
    c->n_links = ARRAY_SIZE(links);
    return c;
}

static void test_containers_that_cannot_be(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create_container(f, with_volume(1, "c")), RESULT_DATASET_NOT_FOUND);
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(create_container(f, with_volume(2, "c")), RESULT_DATASET_ELSEWHERE);
    assert_int_equal(create_container(f, with_volume(1, "c")), RESULT_CREATED);
    assert_int_equal(create_container(f, with_volume(1, "c")), RESULT_CONTAINER_EXISTS);
    assert_int_equal(create_container(f, with_volume(1, "d")), RESULT_DATASET_IN_USE);
    assert_int_equal(create_container(f, with_port("web", 8080)), RESULT_CREATED);
    assert_int_equal(create_container(f, with_port("web2", 8080)), RESULT_PORT_IN_USE);
    assert_int_equal(create_container(f, with_port("web2", 8081)), RESULT_CREATED);
    assert_int_equal(create_container(f, with_port("any", 0)), RESULT_CREATED);
    assert_int_equal(create_container(f, with_port("any2", 0)), RESULT_CREATED); /* 0 is nobody's */
    assert_int_equal(create_container(f, with_links("l", "a", 1, "a", 2)), RESULT_LINK_ALIAS);
    assert_int_equal(create_container(f, with_links("l", "a", 1, "b", 1)), RESULT_LINK_PORT);
    assert_int_equal(create_container(f, with_links("l", "a", 1, "b", 2)), RESULT_CREATED);
    assert_null(engine_container(f->e, "d"));
    assert_non_null(engine_container(f->e, "l"));
}

static void test_a_port_is_free_when_its_container_is_going(void **state)
{
    struct fake *f = *state;

    assert_int_equal(create_container(f, with_port("web", 8080)), RESULT_CREATED);
    struct command going = {.kind = COMMAND_CONTAINER_DELETE, .name = "web"};
    engine_command(f->e, f->now, &going); /* not committed yet */
    assert_int_equal(run(f, going), RESULT_CONTAINER_NOT_FOUND);
    assert_int_equal(create_container(f, with_port("web2", 8080)), RESULT_CREATED);
}

static void test_what_is_going_is_not_found(void **state)
{
    struct fake *f = *state;
    struct command going = {.kind = COMMAND_CONTAINER_DELETE, .name = "c"};
    struct command release = {.kind = COMMAND_LEASE_RELEASE, .dataset_id = D};

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(create_container(f, with_volume(1, "c")), RESULT_CREATED);
    assert_int_equal(lease(f, 1), RESULT_CREATED);
    engine_command(f->e, f->now, &going);
    engine_command(f->e, f->now, &release);
    assert_int_equal(move_container(f, "c", 2), RESULT_CONTAINER_NOT_FOUND);
    assert_int_equal(unlease(f), RESULT_LEASE_NOT_FOUND);
}

static void test_a_container_takes_its_dataset_along(void **state)
{
    struct fake *f = *state;
    struct uuid two = id(2);

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(create_container(f, with_volume(1, "c")), RESULT_CREATED);
    assert_int_equal(move(f, 2), RESULT_DATASET_OF_CONTAINER);
    assert_string_equal(f->text, "c");
    uint64_t revision = f->revision;
    assert_int_equal(move_container(f, "c", 1), RESULT_OK); /* where it is */
    assert_int_equal(f->revision, revision);
    assert_int_equal(move_container(f, "c", 2), RESULT_OK);
    assert_true(uuid_eq(&listed(f)->primary, &two));
    assert_true(f->reports[2].volume.mounted);
    assert_false(f->reports[1].volume.present);
    assert_int_equal(container_reason(f, "c"), REASON_NONE);
    assert_int_equal(reason(f), REASON_NONE);
}

/* A dataset that is deleted stays where it is; its container goes without it, and keeps it from being destroyed. */
static void test_a_container_leaves_a_deleted_dataset(void **state)
{
    struct fake *f = *state;
    struct uuid one = id(1);

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(create_container(f, with_volume(1, "c")), RESULT_CREATED);
    assert_int_equal(remove_dataset(f, false), RESULT_OK);
    assert_int_equal(reason(f), REASON_IN_USE_BY_CONTAINER);
    assert_int_equal(move_container(f, "c", 2), RESULT_OK);
    assert_true(uuid_eq(&listed(f)->primary, &one));
    assert_true(f->reports[1].volume.mounted);
    assert_int_equal(run(f, (struct command){.kind = COMMAND_CONTAINER_DELETE, .name = "c"}), RESULT_OK);
    assert_false(f->reports[1].volume.present);
}

/* ---- containers that depend on others ---- */

static struct container *with_dependency(unsigned char node, const char *name, const char *on,
                                         enum dependency_condition condition)
{
    struct container *c = container_new(name);

    c->node = id(node);
    c->image = xstrdup("img:1");
    c->n_depends_on = on != NULL;
    c->depends_on = xcalloc(1, sizeof(*c->depends_on));
    if (on)
        c->depends_on[0] = (struct dependency){xstrdup(on), condition};
    return c;
}

static void know_settings(struct fake *f)
{
    for (unsigned char n = 1; n <= NODES; n++) {
        leave(f, n);
        f->hellos[n].extended = true;
        come_back(f, n);
    }
}

static void say(struct fake *f, unsigned char node, const char *name, struct container_report r)
{
    r.name = (char *)(uintptr_t)name;
    r.created = engine_container(f->e, name)->created;
    engine_container_report(f->e, f->now, f->sessions[node], &r);
    settle(f);
}

static void check_waits(struct fake *f, const char *name, const char *words)
{
    struct reason r;

    engine_container_reason(f->e, f->now, name, &r);
    assert_int_equal(r.code, REASON_WAITING_FOR_DEPENDENCY);
    if (!strstr(r.text, words))
        fail_msg("%s", r.text);
    reason_done(&r);
}

static void test_dependencies_that_cannot_be(void **state)
{
    struct fake *f = *state;

    know_settings(f);
    assert_int_equal(create_container(f, with_dependency(1, "web", "db", DEPENDENCY_STARTED)), RESULT_DEPENDENCY_MISSING);
    assert_string_equal(f->text, "db");
    assert_int_equal(create_container(f, with_dependency(1, "me", "me", DEPENDENCY_STARTED)), RESULT_DEPENDENCY_CIRCLE);
    assert_string_equal(f->text, "me depends on itself");
    assert_int_equal(create_container(f, with_dependency(1, "db", NULL, DEPENDENCY_STARTED)), RESULT_CREATED);
    assert_int_equal(create_container(f, with_dependency(2, "web", "db", DEPENDENCY_STARTED)), RESULT_CREATED);
    assert_int_equal(create_container(f, with_dependency(2, "top", "web", DEPENDENCY_STARTED)), RESULT_CREATED);
    assert_int_equal(run(f, (struct command){.kind = COMMAND_CONTAINER_DELETE, .name = "db"}), RESULT_OK);
    assert_int_equal(create_container(f, with_dependency(1, "db", "top", DEPENDENCY_STARTED)), RESULT_DEPENDENCY_CIRCLE);
    assert_string_equal(f->text, "web, on which db depends, depends on it");
    assert_int_equal(create_container(f, with_dependency(1, "db", NULL, DEPENDENCY_STARTED)), RESULT_CREATED);
}

static void test_a_container_is_started_after_another(void **state)
{
    struct fake *f = *state;

    know_settings(f);
    f->deaf[1] = true;
    assert_int_equal(create_container(f, with_dependency(1, "db", NULL, DEPENDENCY_STARTED)), RESULT_CREATED);
    assert_int_equal(create_container(f, with_dependency(2, "web", "db", DEPENDENCY_STARTED)), RESULT_CREATED);
    assert_int_equal(create_container(f, with_dependency(2, "c", "db", DEPENDENCY_HEALTHY)), RESULT_CREATED);
    assert_int_equal(create_container(f, with_dependency(3, "end", "db", DEPENDENCY_COMPLETED)), RESULT_CREATED);
    assert_int_equal(f->started, 0);
    check_waits(f, "web", "container web depends on container db, which has not been started yet");
    say(f, 1, "db", (struct container_report){.run = CONTAINER_CREATED});
    assert_int_equal(f->started, 0);
    say(f, 1, "db", (struct container_report){.run = CONTAINER_RUNNING});
    assert_int_equal(f->started, 1); /* web */
    check_waits(f, "c", "which has no health check");
    say(f, 1, "db", (struct container_report){.run = CONTAINER_RUNNING, .health = HEALTH_STARTING});
    check_waits(f, "c", "whose health is not known yet");
    say(f, 1, "db", (struct container_report){.run = CONTAINER_RUNNING, .health = HEALTH_UNHEALTHY});
    check_waits(f, "c", "which is unhealthy");
    assert_int_equal(f->started, 1);
    say(f, 1, "db", (struct container_report){.run = CONTAINER_RUNNING, .health = HEALTH_HEALTHY});
    assert_int_equal(f->started, 2);
    check_waits(f, "end", "which has not ended yet");
    say(f, 1, "db", (struct container_report){.run = CONTAINER_EXITED, .has_exit_code = true, .exit_code = 1});
    check_waits(f, "end", "which ended with a failure");
    say(f, 1, "db", (struct container_report){.run = CONTAINER_EXITED}); /* an agent that does not tell */
    check_waits(f, "end", "which ended with a failure");
    assert_int_equal(f->started, 2);
    say(f, 1, "db", (struct container_report){.run = CONTAINER_EXITED, .has_exit_code = true});
    assert_int_equal(f->started, 3);
    assert_int_equal(create_container(f, with_dependency(2, "late", "db", DEPENDENCY_HEALTHY)), RESULT_CREATED);
    assert_int_equal(run(f, (struct command){.kind = COMMAND_CONTAINER_DELETE, .name = "db"}), RESULT_OK);
    check_waits(f, "late", "which does not exist");
    assert_int_equal(f->started, 3);
    assert_int_equal(move_container(f, "web", 3), RESULT_OK);
    assert_int_equal(f->started, 4); /* it was started before, elsewhere */
}

/* Also when the store fails, and when it is moved; not what is made anew under the name. */
static void test_a_container_ends_for_good(void **state)
{
    struct fake *f = *state;
    struct container_report r = {.run = CONTAINER_EXITED, .has_exit_code = true, .ended = true};

    assert_int_equal(create_container(f, with_port("job", 8080)), RESULT_CREATED);
    say(f, 1, "job", (struct container_report){.run = CONTAINER_EXITED, .has_exit_code = true});
    say(f, 2, "job", r); /* it is not there that it is to run */
    assert_false(engine_container(f->e, "job")->ended);
    f->fails = "disk full";
    say(f, 1, "job", r);
    assert_false(engine_container(f->e, "job")->ended);
    f->fails = NULL;
    f->now.mono_us = engine_deadline(f->e);
    engine_tick(f->e, f->now);
    settle(f);
    assert_true(engine_container(f->e, "job")->ended);
    uint64_t revision = f->revision;
    say(f, 1, "job", r); /* no news */
    assert_int_equal(f->revision, revision);
    assert_int_equal(move_container(f, "job", 2), RESULT_OK);
    assert_true(engine_container(f->e, "job")->ended);
    assert_int_equal(run(f, (struct command){.kind = COMMAND_CONTAINER_DELETE, .name = "job"}),
                     RESULT_OK);
    assert_int_equal(create_container(f, with_port("job", 8080)), RESULT_CREATED);
    assert_false(engine_container(f->e, "job")->ended);
}

/* ---- whole configurations ---- */

struct wanted_all {
    struct dataset *datasets[2];
    struct container *containers[2];
};

/* Configures these; they are freed. */
static enum result_code configure(struct fake *f, struct wanted_all *w)
{
    struct composition c = {0};

    for (; c.n_datasets < 2 && w->datasets[c.n_datasets]; c.n_datasets++) {
    }
    for (; c.n_containers < 2 && w->containers[c.n_containers]; c.n_containers++) {
    }
    c.datasets = xmemdup(w->datasets, sizeof(w->datasets));
    c.containers = xmemdup(w->containers, sizeof(w->containers));
    return run(f, (struct command){.kind = COMMAND_COMPOSE, .composition = &c});
}

static void test_compositions_that_cannot_be(void **state)
{
    struct fake *f = *state;
    struct container *at_home = with_volume(1, "b");
    at_home->volumes[0].dataset = id(78);
    struct {
        struct wanted_all all;
        enum result_code code;
        const char *name;
    } cases[] = {
        {{{wanted(77, 1), wanted(77, 2)}, {NULL}}, RESULT_DATASET_EXISTS, UUID_STR(&D)},
        {{{wanted(77, 2)}, {with_volume(1, "c")}}, RESULT_DATASET_ELSEWHERE, "c"},
        {{{wanted(77, 1)}, {with_volume(1, "c"), with_volume(1, "d")}}, RESULT_DATASET_IN_USE, "d"},
        {{{wanted(77, 1)}, {with_volume(1, "c"), at_home}}, RESULT_DATASET_NOT_FOUND, "b"},
        {{{NULL}, {with_port("w", 0), with_port("w", 0)}}, RESULT_CONTAINER_EXISTS, "w"},
        {{{wanted(77, 1)}, {with_volume(1, "c"), with_volume(1, "c")}}, RESULT_CONTAINER_EXISTS, "c"},
        {{{NULL}, {with_port("w", 8080), with_port("x", 8080)}}, RESULT_PORT_IN_USE, "x"},
        {{{NULL}, {with_links("l", "a", 1, "b", 1), NULL}}, RESULT_LINK_PORT, "l"},
        {{{NULL}, {with_dependency(1, "a1", "b1", DEPENDENCY_STARTED), NULL}},
         RESULT_DEPENDENCY_MISSING,
         "a1 depends on b1"},
        {{{NULL},
          {with_dependency(1, "a1", "b1", DEPENDENCY_STARTED), with_dependency(2, "b1", "a1", DEPENDENCY_HEALTHY)}},
         RESULT_DEPENDENCY_CIRCLE,
         "b1 depends on a1, which depends on it"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(configure(f, &cases[i].all), cases[i].code);
        assert_string_equal(f->text, cases[i].name);
        assert_int_equal(f->revision, 0); /* nothing of it was done */
    }
}

static void test_a_composition_replaces_everything(void **state)
{
    struct fake *f = *state;
    struct wanted_all all = {{wanted(77, 1)}, {with_volume(1, "c"), with_links("l", "a", 1, "A", 2)}};
    struct metadata_entry entry = {xstrdup("name"), xstrdup("db")};

    assert_int_equal(configure(f, &all), RESULT_OK); /* one alias for two ports is one application's */
    assert_int_equal(lease(f, 1), RESULT_CREATED);
    all = (struct wanted_all){{wanted(77, 1)}, {with_port("w", 8080), with_port("any", 0)}};
    all.datasets[0]->metadata = (struct metadata){xmemdup(&entry, sizeof(entry)), 1};
    assert_int_equal(configure(f, &all), RESULT_OK);
    assert_string_equal(metadata_get(&listed(f)->metadata, "name"), "db");
    assert_null(engine_container(f->e, "c"));
    assert_null(engine_container(f->e, "l"));
    assert_non_null(engine_container(f->e, "w"));
    assert_int_equal(unlease(f), RESULT_LEASE_NOT_FOUND);
    all = (struct wanted_all){{wanted(77, 1)}, {with_port("any", 0)}};
    all.containers[0]->node = id(2); /* has no more to be said about it than where it runs */
    assert_int_equal(configure(f, &all), RESULT_OK);
    assert_null(engine_container(f->e, "w"));
}

/* What goes anyway, or is only known from a node's report, needs no dropping. */
static void test_a_composition_over_what_is_going(void **state)
{
    struct fake *f = *state;
    struct command going = {.kind = COMMAND_CONTAINER_DELETE, .name = "w"};
    struct command release = {.kind = COMMAND_LEASE_RELEASE, .dataset_id = D};

    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(create_container(f, with_port("w", 8080)), RESULT_CREATED);
    assert_int_equal(lease(f, 1), RESULT_CREATED);
    engine_report(f->e, f->now, 12, &(struct report){.volume = {.dataset = id(90), .present = true}});
    engine_command(f->e, f->now, &going);
    engine_command(f->e, f->now, &release);
    assert_int_equal(compose_all(f, 77, 1, false), RESULT_OK);
    assert_non_null(listed(f));
    assert_null(engine_container(f->e, "w"));
    engine_report_gone(f->e, f->now, 12, &(struct uuid){.b[15] = 90});
    assert_int_equal(engine_counts(f->e).datasets, 1);
    assert_int_equal(engine_counts(f->e).containers, 0);
    assert_int_equal(engine_counts(f->e).leases, 0);
}

static void test_not_a_command(void **state)
{
    assert_int_equal(run(*state, (struct command){.kind = COMMAND_MAX}), RESULT_STORE_FAILED);
}

/* ---- commits ---- */

/* The next commit, without answering it. */
static uint64_t hand_out(struct fake *f)
{
    uint64_t batch = 0;

    engine_flush(f->e, f->now);
    for (struct effect *x; (x = engine_next(f->e)); effect_free(x)) {
        if (x->kind == EFFECT_COMMIT)
            batch = x->batch->id;
    }
    return batch;
}

static void ask(struct fake *f, struct command c)
{
    engine_command(f->e, f->now, &c);
}

/* Each kind of object changed in the commit in flight, and again in the one that waits behind it. */
static uint64_t change_everything_twice(struct fake *f)
{
    ask(f, (struct command){.kind = COMMAND_DATASET_UPDATE, .dataset_id = D, .node = id(2)});
    ask(f, (struct command){.kind = COMMAND_DATASET_CREATE, .dataset = wanted(78, 1)});
    ask(f, (struct command){.kind = COMMAND_CONTAINER_MOVE, .name = "w", .node = id(2)});
    ask(f, (struct command){.kind = COMMAND_CONTAINER_CREATE, .container = with_port("x", 8081)});
    ask(f, (struct command){.kind = COMMAND_LEASE_ACQUIRE, .dataset_id = D, .node = id(1), .expires = true,
                            .expires_in_us = 5000});
    ask(f, (struct command){.kind = COMMAND_LEASE_ACQUIRE, .dataset_id = id(78), .node = id(1)});
    uint64_t batch = hand_out(f);
    ask(f, (struct command){.kind = COMMAND_DATASET_UPDATE, .dataset_id = D, .node = id(3)});
    ask(f, (struct command){.kind = COMMAND_DATASET_DELETE, .dataset_id = id(78)});
    ask(f, (struct command){.kind = COMMAND_CONTAINER_MOVE, .name = "w", .node = id(3)});
    ask(f, (struct command){.kind = COMMAND_CONTAINER_DELETE, .name = "x"});
    ask(f, (struct command){.kind = COMMAND_LEASE_RELEASE, .dataset_id = D});
    ask(f, (struct command){.kind = COMMAND_LEASE_RELEASE, .dataset_id = id(78)});
    return batch;
}

static bool nodes_of(void *cookie, const struct lease *l, uint64_t left_us)
{
    unsigned char *nodes = cookie;

    assert_true(!left_us == !l->expires);
    nodes[l->dataset.b[15] - 77] = l->node.b[15];
    return true;
}

static void begin_with_everything(struct fake *f)
{
    assert_int_equal(create(f, 1), RESULT_CREATED);
    assert_int_equal(create_container(f, with_port("w", 8080)), RESULT_CREATED);
    assert_int_equal(lease(f, 1), RESULT_CREATED);
}

static void test_a_commit_fails_with_everything_in_flight(void **state)
{
    struct fake *f = *state;
    unsigned char nodes[2] = {0};
    struct uuid one = id(1), other = id(78);

    begin_with_everything(f);
    CLEANUP_FREE char *before = engine_tag(f->e);
    uint64_t batch = change_everything_twice(f);
    engine_commit_failed(f->e, f->now, batch + 1, "not this one");
    engine_commit_failed(f->e, f->now, batch, "disk full");
    engine_commit_failed(f->e, f->now, batch, "again");
    engine_committed(f->e, f->now, batch); /* too late */
    assert_true(engine_deadline(f->e) > f->now.mono_us && engine_deadline(f->e) < f->now.mono_us + USEC_PER_SEC);
    engine_tick(f->e, f->now); /* too early */
    settle(f);
    assert_true(uuid_eq(&listed(f)->primary, &one));
    assert_null(engine_dataset(f->e, &other));
    assert_true(uuid_eq(&engine_container(f->e, "w")->node, &one));
    assert_null(engine_container(f->e, "x"));
    engine_list_leases(f->e, f->now, &(struct list_query){0}, nodes_of, nodes);
    assert_int_equal(nodes[0], 1);
    assert_int_equal(nodes[1], 0);
    assert_int_equal(engine_counts(f->e).datasets, 1);
    assert_int_equal(engine_counts(f->e).containers, 1);
    assert_int_equal(engine_counts(f->e).leases, 1);
    CLEANUP_FREE char *after = engine_tag(f->e);
    assert_string_equal(before, after);
    assert_int_equal(f->last, RESULT_STORE_FAILED);
    assert_string_equal(f->text, "disk full");
    f->now.mono_us = engine_deadline(f->e);
    engine_tick(f->e, f->now);
    settle(f);
    assert_int_equal(reason(f), REASON_NONE);
}

static void test_commits_that_follow_one_another(void **state)
{
    struct fake *f = *state;
    unsigned char nodes[2] = {0};
    struct uuid one = id(1), two = id(2), three = id(3);

    begin_with_everything(f);
    uint64_t batch = change_everything_twice(f);
    engine_committed(f->e, f->now, batch + 1); /* not handed out yet */
    assert_true(uuid_eq(&listed(f)->primary, &one));
    engine_committed(f->e, f->now, batch);
    assert_true(uuid_eq(&listed(f)->primary, &two));
    assert_true(uuid_eq(&engine_container(f->e, "w")->node, &two));
    assert_non_null(engine_container(f->e, "x"));
    engine_list_leases(f->e, f->now, &(struct list_query){0}, nodes_of, nodes);
    assert_int_equal(nodes[0], 1);
    assert_int_equal(nodes[1], 1);
    settle(f);
    assert_true(uuid_eq(&listed(f)->primary, &three));
    assert_true(f->reports[3].volume.mounted);
    assert_true(uuid_eq(&engine_container(f->e, "w")->node, &three));
    assert_null(engine_container(f->e, "x"));
    assert_int_equal(engine_counts(f->e).leases, 0);
}

/* The engine is ended with commits in flight and waiting. */
static void test_ended_in_the_middle(void **state)
{
    struct fake *f = *state;

    begin_with_everything(f);
    (void)change_everything_twice(f);
    assert_null(engine_free(NULL));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, fake_setup, fake_teardown)
    const struct CMUnitTest tests[] = {
        TEST(test_sizes_only_grow),
        TEST(test_sizes_only_grow_in_compositions),
        TEST(test_sizes_only_grow_in_compositions),
        TEST(test_a_size_without_limit_cannot_get_one),
        TEST(test_metadata),
        TEST(test_a_deleted_dataset_takes_no_changes),
        TEST(test_containers_that_cannot_be),
        TEST(test_a_port_is_free_when_its_container_is_going),
        TEST(test_what_is_going_is_not_found),
        TEST(test_a_container_takes_its_dataset_along),
        TEST(test_a_container_leaves_a_deleted_dataset),
        TEST(test_dependencies_that_cannot_be),
        TEST(test_a_container_ends_for_good),
        TEST(test_a_container_is_started_after_another),
        TEST(test_compositions_that_cannot_be),
        TEST(test_a_composition_replaces_everything),
        TEST(test_a_composition_over_what_is_going),
        TEST(test_not_a_command),
        TEST(test_a_commit_fails_with_everything_in_flight),
        TEST(test_commits_that_follow_one_another),
        TEST(test_ended_in_the_middle),
    };

    return cmocka_run_group_tests_name("commands", tests, NULL, NULL);
}
