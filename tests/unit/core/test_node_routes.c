/* The agent's brain and routes: one step at a time, with its own back-off and reason, that holds up nothing else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "core/node.h"

#include <stdio.h>
#include <string.h>

static struct now now = {.mono_us = 1000000, .wall_us = 5000000};
static uint64_t seed = 7;

static struct uuid id(unsigned char n)
{
    return (struct uuid){.b[0] = 1, .b[15] = n};
}

static struct node *make(void)
{
    struct node_config config = {.era = id(50), .random = random_seeded(&seed)};
    struct node *n = node_new(&config);

    node_start(n, now);
    return n;
}

static void up(struct node *n, bool routes)
{
    struct welcome w = {.store = id(99), .generation = id(98), .revision = 1, .routes = routes};

    node_session_up(n, now, &w);
}

/* What was asked for and said since the last look. */
struct seen {
    uint64_t step;
    size_t n_steps, n_routes, n_reports;
    char hosts[256]; /* "port=host " of the last step, as they come */
    uint32_t ports;
    enum reason_code reason;
    uint64_t retry_us;
};

static struct seen look(struct node *n)
{
    struct seen s = {0};

    for (struct node_effect *f; (f = node_next(n)); node_effect_free(f)) {
        if (f->kind == NODE_STEP && f->step.kind == STEP_ROUTES) {
            s.step = f->step.id;
            s.n_steps++;
            s.n_routes = f->step.n_routes;
            s.hosts[0] = '\0';
            for (size_t i = 0; i < f->step.n_routes; i++) {
                size_t used = strlen(s.hosts);
                const struct port_route *r = &f->step.routes[i];
                (void)snprintf(s.hosts + used, sizeof(s.hosts) - used, "%u=%s ", r->port, r->host ? r->host : "?");
            }
        } else if (f->kind == NODE_STEP && (f->step.kind == STEP_LIST_VOLUMES || f->step.kind == STEP_LIST_CONTAINERS)) {
            node_outcome(n, now, &(struct outcome){.step = f->step.id});
        } else if (f->kind == NODE_PERSIST) {
            node_persisted(n, now, &f->memory);
        } else if (f->kind == NODE_ROUTES_REPORT) {
            s.n_reports++;
            s.ports = f->routes_report.ports;
            s.reason = f->routes_report.reason.code;
            s.retry_us = f->routes_report.reason.retry_us;
        }
    }
    return s;
}

static void route(struct node *n, uint16_t port, unsigned char node, const char *host)
{
    struct port_route r = {.port = port, .node = id(node), .host = (char *)host, .container = (char *)"c"};

    node_route(n, now, &r);
}

static void done(struct node *n, uint64_t step, const struct err *e)
{
    node_outcome(n, now, &(struct outcome){.step = step, .error = e});
}

static void test_all_at_once_and_not_before(void **state)
{
    struct node *n = make();

    up(n, true);
    route(n, 80, 2, "10.0.0.2");
    route(n, 81, 3, "10.0.0.3");
    assert_int_equal(look(n).n_steps, 0); /* not all are told yet: what is in place stays */
    node_orders_complete(n, now);
    struct seen s = look(n);
    assert_int_equal(s.n_steps, 1);
    assert_string_equal(s.hosts, "80=10.0.0.2 81=10.0.0.3 ");
    assert_int_equal(s.ports, 2);
    route(n, 82, 3, "10.0.0.3"); /* meanwhile */
    assert_int_equal(look(n).n_steps, 0);
    done(n, s.step, NULL);
    s = look(n);
    assert_int_equal(s.n_routes, 3);
    done(n, s.step, NULL);
    route(n, 82, 3, "10.0.0.3"); /* no news */
    assert_int_equal(look(n).n_steps, 0);
    node_route_none(n, now, 80);
    node_route_none(n, now, 80);
    s = look(n);
    assert_string_equal(s.hosts, "81=10.0.0.3 82=10.0.0.3 ");
    node_free(n);
}

/* Ports that are left out on purpose are said, and nothing is tried again because of them. */
static void test_left_out(void **state)
{
    struct node *n = make();

    up(n, true);
    route(n, 22, 2, "10.0.0.2");
    node_orders_complete(n, now);
    node_outcome(n, now, &(struct outcome){.step = look(n).step, .left_out = "22 is not routed"});
    struct seen s = look(n);
    assert_int_equal(s.reason, REASON_ROUTES_FAILED);
    assert_true(s.retry_us == 0 && s.n_steps == 0);
    assert_int_equal(look(n).n_reports, 0);
    node_route_none(n, now, 22);
    done(n, look(n).step, NULL);
    s = look(n);
    assert_int_equal(s.n_reports, 1);
    assert_int_equal(s.reason, REASON_NONE);
    node_free(n);
}

static void test_a_new_session(void **state)
{
    struct node *n = make();

    up(n, true);
    route(n, 80, 2, "10.0.0.2");
    route(n, 81, 3, "10.0.0.3");
    route(n, 82, 3, "10.0.0.3");
    node_orders_complete(n, now);
    done(n, look(n).step, NULL);
    node_session_down(n, now);
    assert_int_equal(look(n).n_steps, 0); /* without the control service the last set stays */
    up(n, true);
    route(n, 80, 2, NULL); /* its address is not known there, but here */
    route(n, 82, 4, NULL); /* and of this one nowhere */
    assert_int_equal(look(n).n_steps, 1); /* a change is not held back by what is not told yet */
    node_orders_complete(n, now);
    struct seen s = look(n);
    assert_int_equal(s.n_steps, 0); /* one at a time */
    assert_int_equal(s.ports, 2);
    node_free(n);
}

static void test_an_older_control_service(void **state)
{
    struct node *n = make();

    up(n, false);
    node_orders_complete(n, now);
    struct seen s = look(n);
    assert_int_equal(s.n_steps + s.n_reports, 0); /* it says nothing about routes: those that are there stay */
    node_free(n);
}

static void test_failures(void **state)
{
    const struct err broken = {.code = ERR_IO, .text = (char[]){"the filter is broken"}};
    struct node *n = make();

    up(n, true);
    route(n, 80, 2, "10.0.0.2");
    node_orders_complete(n, now);
    struct seen s = look(n);
    done(n, s.step, &broken);
    s = look(n);
    assert_int_equal(s.n_steps, 0);
    assert_int_equal(s.reason, REASON_ROUTES_FAILED);
    assert_true(s.retry_us > now.wall_us);
    assert_true(node_deadline(n) > now.mono_us && node_deadline(n) < now.mono_us + USEC_PER_SEC);
    route(n, 81, 2, "10.0.0.2"); /* a change is tried at once */
    s = look(n);
    assert_int_equal(s.n_steps, 1);
    done(n, s.step, &broken);
    (void)look(n);
    now.mono_us = node_deadline(n);
    node_tick(n, now);
    s = look(n);
    assert_int_equal(s.n_routes, 2);
    done(n, s.step, NULL);
    s = look(n);
    assert_int_equal(s.n_reports, 1);
    assert_int_equal(s.reason, REASON_NONE);
    node_free(n);
}

static void test_somebody_changed_the_filter(void **state)
{
    struct node *n = make();

    up(n, true);
    route(n, 80, 2, "10.0.0.2");
    node_orders_complete(n, now);
    done(n, look(n).step, NULL);
    (void)look(n);
    node_routes_changed(n, now);
    node_routes_changed(n, now);
    assert_int_equal(look(n).n_steps, 0); /* it may not have ended yet */
    now.mono_us = node_deadline(n);
    node_tick(n, now);
    struct seen s = look(n);
    assert_int_equal(s.n_steps, 1);
    assert_string_equal(s.hosts, "80=10.0.0.2 ");
    node_free(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_at_once_and_not_before),
        cmocka_unit_test(test_left_out),
        cmocka_unit_test(test_a_new_session),
        cmocka_unit_test(test_an_older_control_service),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_somebody_changed_the_filter),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
