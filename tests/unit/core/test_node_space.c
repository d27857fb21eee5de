/* The agent's brain and the space of its storage: when it asks, and what it tells. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/node.h"

static struct now now = {.mono_us = 1000000, .wall_us = 5000000};
static uint64_t seed = 7;
static const struct uuid D = {.b[15] = 77};

static struct uuid id(unsigned char n)
{
    return (struct uuid){.b[0] = 1, .b[15] = n};
}

/* What was asked for and said since the last look; the first lists are answered. */
struct seen {
    uint64_t space_step, create_step, list_step;
    unsigned n_reports;
    struct space told;
};

static struct space storage; /* what a list says */

static struct seen look(struct node *n)
{
    struct seen s = {0};

    for (struct node_effect *f; (f = node_next(n)); node_effect_free(f)) {
        if (f->kind == NODE_STEP && f->step.kind == STEP_SPACE)
            s.space_step = f->step.id;
        else if (f->kind == NODE_STEP && f->step.kind == STEP_CREATE)
            s.create_step = f->step.id;
        else if (f->kind == NODE_STEP &&
                 (f->step.kind == STEP_LIST_VOLUMES || f->step.kind == STEP_LIST_CONTAINERS))
            node_outcome(n, now, &(struct outcome){.step = f->step.id, .space = storage});
        else if (f->kind == NODE_PERSIST)
            node_persisted(n, now, &f->memory);
        if (f->kind == NODE_SPACE_REPORT) {
            s.n_reports++;
            s.told = f->space;
        }
    }
    return s;
}

static void up(struct node *n, bool space)
{
    struct welcome w = {.store = id(99), .generation = id(98), .revision = 1, .space = space};

    node_session_up(n, now, &w);
    node_orders_complete(n, now);
}

static struct node *make(uint64_t total, uint64_t left)
{
    struct node_config config = {.era = id(50), .random = random_seeded(&seed)};
    struct node *n = node_new(&config);

    storage = (struct space){total, left};
    node_start(n, now);
    (void)look(n);
    return n;
}

/* So much later, when the node wants to be woken. */
static uint64_t wait_for_step(struct node *n)
{
    uint64_t began = now.mono_us, step = 0;

    while (!step && now.mono_us < began + 300 * USEC_PER_SEC) {
        uint64_t next = node_deadline(n);
        assert_true(next < USEC_NEVER);
        now.mono_us = next > now.mono_us ? next : now.mono_us;
        node_tick(n, now);
        step = look(n).space_step;
    }
    return step;
}

static void answer(struct node *n, uint64_t step, uint64_t total, uint64_t left)
{
    assert_int_not_equal(step, 0);
    node_outcome(n, now, &(struct outcome){.step = step, .space = {total, left}});
}

static void test_news_are_told(void **state)
{
    struct node *n = make(1000, 500);

    (void)state;
    up(n, true);
    struct seen s = look(n);
    assert_int_equal(s.n_reports, 1);
    assert_true(s.told.total == 1000 && s.told.free == 500);
    node_space_wanted(n, now);
    answer(n, wait_for_step(n), 1000, 491);
    assert_int_equal(look(n).n_reports, 0); /* less than a hundredth */
    node_space_wanted(n, now);
    answer(n, wait_for_step(n), 1000, 490);
    s = look(n);
    assert_int_equal(s.n_reports, 1);
    assert_int_equal(s.told.free, 490);
    node_space_wanted(n, now);
    answer(n, wait_for_step(n), 1001, 490);
    assert_int_equal(look(n).told.total, 1001);
    node_session_down(n, now);
    assert_int_equal(look(n).n_reports, 0);
    up(n, true);
    assert_int_equal(look(n).n_reports, 1); /* a new session knows nothing */
    node_session_down(n, now);
    up(n, false);
    assert_int_equal(look(n).n_reports, 0); /* an older control service */
    node_free(n);
}

static void test_what_is_not_known_is_not_told(void **state)
{
    struct node *n = make(0, 0);

    (void)state;
    up(n, true);
    assert_int_equal(look(n).n_reports, 0);
    node_free(n);
}

/* While it is short it asks again, ever less often, and not only with the next full look. */
static void test_short_of_space(void **state)
{
    static const unsigned seconds[] = {5, 10, 20, 40, 80, 80};
    struct node *n = make(1000, 500);

    (void)state;
    up(n, true);
    (void)look(n);
    storage = (struct space){0}; /* the full look that comes meanwhile tells nothing of it */
    node_space_wanted(n, now);
    for (size_t i = 0; i < sizeof(seconds) / sizeof(*seconds); i++) {
        uint64_t began = now.mono_us;
        uint64_t step = wait_for_step(n);
        assert_int_equal(now.mono_us - began, seconds[i] * USEC_PER_SEC);
        if (i % 2) { /* an error tells nothing */
            CLEANUP_ERR struct err *e = err_new(ERR_IO, "no answer");
            node_outcome(n, now, &(struct outcome){.step = step, .error = e, .space = {1000, 500}});
        } else {
            answer(n, step, 1000, 99);
        }
        (void)look(n);
    }
    answer(n, wait_for_step(n), 1000, 100);
    assert_int_equal(wait_for_step(n), 0); /* enough */
    node_space_wanted(n, now);
    uint64_t began = now.mono_us;
    assert_int_not_equal(wait_for_step(n), 0);
    assert_int_equal(now.mono_us - began, 5 * USEC_PER_SEC);
    node_free(n);
}

/* What was made or went changes how much is free. */
static void test_a_change_is_looked_at(void **state)
{
    struct node *n = make(1000, 500);
    struct order o = {.dataset = D, .role = ROLE_OWNER, .revision = 1, .epoch = 3};

    (void)state;
    up(n, true);
    (void)look(n);
    node_order(n, now, &o);
    struct seen s = look(n);
    assert_int_not_equal(s.create_step, 0);
    assert_int_equal(s.space_step, 0);
    uint64_t began = now.mono_us;
    node_outcome(
        n, now,
        &(struct outcome){
            .step = s.create_step,
            .observed = true,
            .volume = {.dataset = D, .present = true, .mark = {.state = MARK_OWNED, .epoch = 3}}});
    assert_int_not_equal(wait_for_step(n), 0);
    assert_int_equal(now.mono_us - began, 3 * USEC_PER_SEC);
    node_free(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_news_are_told),
        cmocka_unit_test(test_what_is_not_known_is_not_told),
        cmocka_unit_test(test_short_of_space),
        cmocka_unit_test(test_a_change_is_looked_at),
    };

    return cmocka_run_group_tests_name("node-space", tests, NULL, NULL);
}
