/* What an agent's brain does when things happen in an unlucky order. Most of that is the simulator's work; here is what it
 * found once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"
#include "core/node.h"

static uint64_t seed = 1;
static struct now now = {10 * USEC_PER_SEC, 1000000 * (uint64_t)USEC_PER_SEC};

static struct uuid id(unsigned char n)
{
    struct uuid u = {{0}};

    u.b[15] = n;
    return u;
}

/* Takes all effects; returns the id of the newest step of that kind, 0 = none. Memory is written at once. */
static uint64_t take(struct node *n, enum step_kind kind)
{
    uint64_t step = 0;

    for (struct node_effect *f; (f = node_next(n)); node_effect_free(f)) {
        if (f->kind == NODE_STEP && f->step.kind == kind)
            step = f->step.id;
        if (f->kind == NODE_PERSIST)
            node_persisted(n, now, &f->memory);
    }
    return step;
}

static void finish(struct node *n, uint64_t step)
{
    assert_int_not_equal(step, 0);
    node_outcome(n, now, &(struct outcome){.step = step});
}

static struct node *make(void)
{
    struct node_config config = {.era = id(50), .random = random_seeded(&seed)};
    struct node *n = node_new(&config);

    node_start(n, now);
    return n;
}

static struct welcome welcome(unsigned char generation, unsigned char known, uint64_t revision)
{
    return (struct welcome){.protocol = AGENT_PROTOCOL_VERSION,
                            .store = id(99),
                            .revision = revision,
                            .generation = id(generation),
                            .known = id(known),
                            .known_until = known ? revision : 0};
}

/* A list that began before the start of a container had its effect tells nothing about it (simulator's seed 5546). */
static void test_a_list_made_before_a_start(void **state)
{
    struct node *n = make();
    struct welcome w = welcome(1, 0, 1);
    struct container_order o = {.action = CONTAINER_RUN, .config = container_new("web")};
    struct container_state running = {.name = (char *)"web", .run = CONTAINER_RUNNING, .created = 1, .era = id(50)};

    (void)state;
    (void)take(n, STEP_START);
    finish(n, 1); /* the first looks find nothing */
    finish(n, 2);
    node_session_up(n, now, &w);
    (void)take(n, STEP_START);
    o.config->image = xstrdup("img:1");
    o.config->restart_policy = RESTART_ALWAYS;
    o.config->created = o.config->revision = 1;
    node_container_order(n, now, &o);
    node_orders_complete(n, now);
    uint64_t start = take(n, STEP_START);
    node_containers_changed(n, now);
    uint64_t list = take(n, STEP_LIST_CONTAINERS);
    finish(n, start);
    finish(n, list); /* empty: made before */
    assert_int_equal(take(n, STEP_START), 0);
    node_containers_changed(n, now);
    list = take(n, STEP_LIST_CONTAINERS);
    if (list)
        node_outcome(n, now, &(struct outcome){.step = list, .containers = &running, .n_containers = 1});
    assert_int_equal(take(n, STEP_START), 0);
    container_order_done(&o);
    node_free(n);
}

/* What was written down between the hello and the welcome makes the welcome's answer one to another question (13886). */
static void test_an_outdated_hello(void **state)
{
    struct node *n = make();
    struct welcome first = welcome(1, 0, 1), second = welcome(2, 0, 1), third = welcome(2, 1, 1);

    (void)state;
    (void)take(n, STEP_START);
    node_session_up(n, now, &first);
    struct node_memory memory = {.store = first.store, .generation = first.generation, .seen_revision = 1};
    bool asked = false;
    for (struct node_effect *f; (f = node_next(n)); node_effect_free(f))
        asked = asked || f->kind == NODE_PERSIST;
    assert_true(asked);
    node_session_down(n, now);
    node_persisted(n, now, &memory); /* the hello of the next session is on its way already */
    node_session_up(n, now, &second);
    assert_true(node_store_refused(n));
    assert_true(node_hello_is_outdated(n));
    node_session_down(n, now);
    node_session_up(n, now, &third);
    assert_false(node_store_refused(n));
    assert_false(node_hello_is_outdated(n));
    node_free(n);
}

/* A copy that was put back and then opened on a full disk has no generation of its own: it is known only by its revision. */
static void test_a_copy_without_a_generation(void **state)
{
    struct node_config config = {.era = id(50), .random = random_seeded(&seed),
                                 .memory = {.store = id(99), .generation = id(1), .seen_revision = 20}};
    struct welcome older = welcome(1, 1, 10), same = welcome(1, 1, 20);
    struct node *n = node_new(&config);

    (void)state;
    node_start(n, now);
    node_session_up(n, now, &older);
    assert_true(node_store_refused(n));
    assert_false(node_hello_is_outdated(n));
    node_session_down(n, now);
    node_session_up(n, now, &same);
    assert_false(node_store_refused(n));
    node_free(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_list_made_before_a_start),
        cmocka_unit_test(test_an_outdated_hello),
        cmocka_unit_test(test_a_copy_without_a_generation),
    };

    return cmocka_run_group_tests_name("node", tests, NULL, NULL);
}
