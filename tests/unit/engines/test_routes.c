/* The routes as text; no packet filter is touched here (tests/cluster/test_routes.py has real ones). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engines/routes.h"

#include "base/mem.h"
#include "base/str.h"

#include <string.h>

#define OWNER "3f0c9c1e-6f0a-4bb0-9f0e-8a9b2c6d7e51"
#define OTHER "11111111-6f0a-4bb0-9f0e-8a9b2c6d7e51"

static struct routed_set some(void)
{
    struct routed_set s = {0};

    routed_set_add(&s, 80, "10.0.0.2");
    routed_set_add(&s, 443, "10.0.0.2");
    routed_set_add(&s, 5432, "10.0.0.3");
    routed_set_add(&s, 6379, "fd00::3");
    interfaces_add(&s.guarded, "eth0");
    interfaces_add(&s.guarded, "eth0");
    interfaces_add(&s.guarded, "eth1");
    interfaces_add(&s.opened, "eth0");
    return s;
}

static void test_render(void **state)
{
    CLEANUP(routed_set_done) struct routed_set s = some(), none = {0};
    CLEANUP_FREE char *text = routes_render("flocker-x", &s);
    CLEANUP_FREE char *empty = routes_render("flocker-x", &none);

    assert_non_null(strstr(text, "add element inet flocker-x to4 { 80 : 10.0.0.2, 443 : 10.0.0.2, 5432 : 10.0.0.3 }\n"));
    assert_non_null(strstr(text, "add element inet flocker-x at4 { 10.0.0.2 . 80, 10.0.0.2 . 443, 10.0.0.3 . 5432 }\n"));
    assert_non_null(strstr(text, "add element inet flocker-x to6 { 6379 : fd00::3 }\n"));
    assert_non_null(strstr(text, "add element inet flocker-x localnet { \"eth0\" }\n"));
    assert_null(strstr(empty, "add element"));
    assert_int_equal(s.guarded.n, 2);
    /* one transaction: what was there goes in the same breath */
    assert_true(strstr(text, "flush map inet flocker-x to4") < strstr(text, "add element"));
}

static const char listed[] =
    "{\"nftables\": [{\"metainfo\": {\"version\": \"1.0.6\"}}, {\"table\": {\"family\": \"inet\", \"name\": \"t\"}},"
    "{\"map\": {\"name\": \"to4\", \"elem\": [[443, \"10.0.0.2\"], [80, \"10.0.0.2\"], [5432, \"10.0.0.3\"]]}},"
    "{\"map\": {\"name\": \"to6\", \"elem\": [[6379, \"fd00::3\"]]}}, {\"map\": {\"name\": \"other\", \"elem\": [[1, \"x\"]]}},"
    "{\"set\": {\"name\": \"localnet\", \"elem\": [\"eth1\", \"eth0\"]}},"
    "{\"set\": {\"name\": \"opened\", \"elem\": [\"eth0\"]}},"
    "{\"chain\": {}}, {\"chain\": {}}, {\"chain\": {}}, {\"chain\": {}},"
    "{\"rule\": {}}, {\"rule\": {}}, {\"rule\": {}}, {\"rule\": {}}, {\"rule\": {}}, {\"rule\": {}}, {\"rule\": {}}%s]}";

static void test_parse(void **state)
{
    CLEANUP(routed_set_done) struct routed_set s = some(), back = {0}, again = {0};
    CLEANUP_FREE char *all = xasprintf(listed, ", {\"rule\": {}}");
    CLEANUP_FREE char *damaged = xasprintf(listed, "");
    bool whole = false;

    assert_null(routes_parse(all, &back, &whole));
    assert_true(routed_set_same(&s, &back));
    assert_true(whole);
    assert_string_equal(routed_set_find(&back, 5432)->address, "10.0.0.3");
    assert_null(routed_set_find(&back, 5433));
    assert_null(routes_parse(damaged, &again, &whole));
    assert_false(whole);
    again.ports[0].port = 81;
    assert_false(routed_set_same(&s, &again));
}

static void test_parse_refuses(void **state)
{
    static const char *const bad[] = {
        "", "[]", "{}", "{\"nftables\": 1}",
        "{\"nftables\": [{\"map\": {\"name\": \"to4\", \"elem\": [[0, \"10.0.0.2\"]]}}]}",
        "{\"nftables\": [{\"map\": {\"name\": \"to4\", \"elem\": [[65536, \"10.0.0.2\"]]}}]}",
        "{\"nftables\": [{\"map\": {\"name\": \"to4\", \"elem\": [[80, \"drop\"]]}}]}",
        "{\"nftables\": [{\"map\": {\"name\": \"to6\", \"elem\": [[80]]}}]}",
        "{\"nftables\": [{\"set\": {\"name\": \"localnet\", \"elem\": [\"../x\"]}}]}",
    };
    struct routed_set s;
    bool whole;

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        CLEANUP_ERR struct err *e = routes_parse(bad[i], &s, &whole);
        assert_true(err_is(e, ERR_CORRUPT));
    }
}

static void test_tables(void **state)
{
    static const char json[] = "{\"nftables\": [{\"table\": {\"family\": \"ip\", \"name\": \"flocker-" OWNER "\"}},"
                               "{\"table\": {\"family\": \"inet\", \"name\": \"filter\"}},"
                               "{\"table\": {\"family\": \"inet\", \"name\": \"flocker-mine\"}},"
                               "{\"table\": {\"family\": \"inet\", \"name\": \"flocker-" OWNER "\"}}]}";
    char **names;
    size_t n;

    assert_null(routes_parse_tables(json, &names, &n));
    assert_int_equal(n, 1);
    assert_string_equal(names[0], "flocker-" OWNER);
    free(names[0]);
    free(names);
}

/* What iptables lists after a restore: the commands that add rules, at their places, among those that were there. */
static char *listing_of(const char *before, const char *input)
{
    struct str s = {0};

    (void)before;
    str_append(&s, "-N DOCKER-USER\n-A DOCKER-USER -s 10.9.9.9/32 -j DROP\n");
    for (const char *line = input; (line = strstr(line, "-I DOCKER-USER ")); line++) {
        const char *rule = strchr(line + strlen("-I DOCKER-USER "), ' ') + 1;
        str_appendf(&s, "-A DOCKER-USER %.*s\n", (int)strcspn(rule, "\n"), rule);
    }
    str_append(&s, "-A DOCKER-USER -j RETURN\n");
    return s.data;
}

static void test_docker(void **state)
{
    static const char fresh[] = "-N DOCKER-USER\n-A DOCKER-USER -s 10.9.9.9/32 -j DROP\n-A DOCKER-USER -j RETURN\n";
    CLEANUP(routed_set_done) struct routed_set s = some(), none = {0};
    CLEANUP_FREE char *input = routes_render_docker(fresh, OWNER, &s, /* v6= */ false);
    CLEANUP_FREE char *v6 = routes_render_docker(fresh, OWNER, &s, /* v6= */ true);

    /* behind the administrator's rule, before Docker's RETURN */
    assert_non_null(strstr(input, "*filter\n-I DOCKER-USER 2 -d 10.0.0.2/32 -p tcp -m multiport --dports 80,443 "));
    assert_non_null(strstr(input, "-I DOCKER-USER 3 -s 10.0.0.2/32 -p tcp -m multiport --sports 80,443 "));
    assert_non_null(strstr(input, "-I DOCKER-USER 5 -s 10.0.0.3/32 "));
    assert_null(strstr(input, "fd00"));
    assert_null(strstr(input, "-D "));
    assert_non_null(strstr(v6, "-d fd00::3/128 -p tcp -m multiport --dports 6379 "));

    CLEANUP_FREE char *now = listing_of(fresh, input);
    assert_null(routes_render_docker(now, OWNER, &s, false)); /* all is there */
    CLEANUP_FREE char *removal = routes_render_docker(now, OWNER, &none, false);
    assert_non_null(strstr(removal, "-D DOCKER-USER -d 10.0.0.2/32 "));
    assert_null(strstr(removal, "10.9.9.9"));
    assert_null(strstr(removal, "-I "));
    CLEANUP_FREE char *of_all = routes_render_docker_removal(now);
    assert_string_equal(of_all, removal);
    assert_null(routes_render_docker_removal(fresh));

    /* those of another node, or of nobody, are not ours */
    CLEANUP_FREE char *beside = routes_render_docker(now, OTHER, &s, false);
    assert_null(strstr(beside, "-D "));
    assert_null(routes_render_docker_removal("-A DOCKER-USER -m comment --comment \"flocker was here\" -j ACCEPT\n"));
}

static void test_docker_many(void **state)
{
    CLEANUP(routed_set_done) struct routed_set s = {0};

    for (uint16_t p = 1; p <= 40; p++)
        routed_set_add(&s, (uint16_t)(1000 + p), p % 4 ? "10.0.0.2" : "10.0.0.3");
    CLEANUP_FREE char *input = routes_render_docker("-N DOCKER-USER\n", OWNER, &s, false);
    unsigned lines = 0, ports = 0;
    for (const char *l = input; (l = strstr(l, "--dports ")); l++) {
        size_t n = strcspn(l + 9, " ");
        unsigned here = 1;
        for (size_t i = 0; i < n; i++)
            here += l[9 + i] == ',';
        assert_true(here <= 15);
        ports += here;
        lines++;
    }
    assert_int_equal(ports, 40); /* each once */
    assert_int_equal(lines, 3);
    assert_non_null(strstr(input, "-I DOCKER-USER 1 ")); /* without a RETURN at the end of what is there */
}

static void test_left_out(void **state)
{
    struct port_route routes[8];
    const uint16_t except[] = {22, 4523, 4524, 4525, 7000, 7001, 7002};
    struct routes_config config = {.except = except, .n_except = 1};

    (void)state;
    for (size_t i = 0; i < 8; i++)
        routes[i] = (struct port_route){.port = i < 7 ? except[i] : 80, .container = (char *)"web"};
    CLEANUP_FREE char *none = routes_left_out(&config, routes + 1, 7),
                      *one = routes_left_out(&config, routes, 8);
    assert_null(none);
    assert_non_null(strstr(one, "port 22 (of container web) answers only"));
    config.n_except = 7;
    CLEANUP_FREE char *many = routes_left_out(&config, routes, 8);
    assert_non_null(strstr(many, "the ports 22 (of container web), 4523 "));
    assert_non_null(strstr(many, "7000 (of container web) and 2 more answer only"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_left_out),    cmocka_unit_test(test_render),
        cmocka_unit_test(test_parse),       cmocka_unit_test(test_parse_refuses),
        cmocka_unit_test(test_tables),      cmocka_unit_test(test_docker),
        cmocka_unit_test(test_docker_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
