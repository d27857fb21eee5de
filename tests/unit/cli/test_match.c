/* Finding what a person means; when a wait is over; cluster.yml. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"
#include "cli/cluster_yml.h"
#include "cli/ctl.h"
#include "cli/match.h"

#define D1 "c2b7e0d4-5a61-4f3b-9c88-13579bdf2468"
#define D2 "c2a0f3c2-9e4d-4b26-8f15-2468ace13579"
#define D3 "d3a0f3c2-9e4d-4b26-8f15-2468ace13579"
#define D4 "d4a0f3c2-9e4d-4b26-8f15-2468ace13579"

static json_t *parse(const char *text)
{
    json_t *j = json_loads(text, 0, NULL);

    assert_non_null(j);
    return j;
}

static void assert_dataset(const json_t *list, const char *text, const char *expected)
{
    json_t *item = NULL;
    struct err *e = match_dataset(list, text, &item);

    if (!expected || *expected == '!') {
        if (!e)
            fail_msg("'%s' matched %s", text, ctl_text(item, "dataset_id"));
        assert_true(err_is(e, expected ? ERR_CONFLICT : ERR_NOT_FOUND));
        if (expected)
            assert_string_equal(e->text, expected + 1);
        err_free(e);
        assert_null(item);
        return;
    }
    assert_null(e);
    assert_string_equal(ctl_text(item, "dataset_id"), expected);
}

static void test_datasets(void **state)
{
    json_t *list =
        parse("[{\"dataset_id\":\"" D1 "\",\"deleted\":false,\"metadata\":{\"name\":\"orders\"}},"
              "{\"dataset_id\":\"" D2 "\",\"deleted\":false,\"metadata\":{\"name\":\"d3\"}},"
              "{\"dataset_id\":\"" D3 "\",\"deleted\":false,\"metadata\":{\"name\":\"twin\"}},"
              "{\"dataset_id\":\"" D4 "\",\"deleted\":true,\"metadata\":{\"name\":\"orders\"}},"
              "{\"metadata\":{\"name\":7}}, null, 3]");

    assert_dataset(list, D1, D1);
    assert_dataset(list, "C2B7E0D4-5A61-4F3B-9C88-13579BDF2468", D1);
    assert_dataset(list, "c2b", D1);
    assert_dataset(list, "C2A0", D2);
    assert_dataset(list, "orders", D1); /* the deleted one of that name does not count */
    assert_dataset(list, "twin", D3);
    assert_dataset(list, "d4", D4); /* deleted, but no other matches */
    assert_dataset(list, D4, D4);
    assert_dataset(list, "c2", "!c2 is ambiguous dataset (it can be " D1 ", " D2 ")");
    assert_dataset(list, "d3",
                   "!d3 is ambiguous dataset (it can be " D2 ", " D3 ")"); /* name and id */
    assert_dataset(list, "", NULL);
    assert_dataset(list, "order", NULL); /* names match as a whole */
    assert_dataset(list, "b7e0", NULL);
    assert_dataset(list, D1 "0", NULL);
    assert_dataset(list, "%s", NULL);
    json_decref(list);
}

static void test_nodes(void **state)
{
    json_t *list = parse("[{\"uuid\":\"" D1 "\",\"host\":\"10.0.0.1\"},{\"uuid\":\"" D2
                         "\",\"host\":\"10.0.0.10\"}]");
    json_t *item = NULL;

    assert_null(match_node(list, "c2b", &item));
    assert_string_equal(ctl_text(item, "uuid"), D1);
    assert_null(match_node(list, "10.0.0.1", &item)); /* whole, not a prefix */
    assert_string_equal(ctl_text(item, "uuid"), D1);
    struct err *e = match_node(list, "c2", &item);
    assert_true(err_is(e, ERR_CONFLICT));
    assert_string_equal(e->text, "c2 is ambiguous node (it can be " D1 ", " D2 ")");
    err_free(e);
    e = match_node(list, "10.0", &item);
    assert_string_equal(e->text, "no node uuids matching 10.0");
    err_free(e);
    json_decref(list);
}

static void test_many_ambiguous(void **state)
{
    json_t *list = json_array();

    for (int i = 0; i < 9; i++) {
        CLEANUP_FREE char *id = xasprintf("a%d", i);
        json_array_append_new(list, json_pack("{s:s,s:b}", "dataset_id", id, "deleted", 0));
    }
    assert_dataset(list, "a", "!a is ambiguous dataset (it can be a0, a1, a2, a3, a4, ...)");
    json_decref(list);
}

static void assert_goal(enum ctl_goal goal, const char *detail, const char *node, bool expected)
{
    json_t *j = detail ? parse(detail) : NULL;
    bool reached = !expected;

    assert_null(ctl_goal_reached(goal, j, node, &reached));
    assert_int_equal(reached, expected);
    json_decref(j);
}

static void assert_goal_lost(enum ctl_goal goal, const char *detail, const char *node)
{
    json_t *j = detail ? parse(detail) : NULL;
    bool reached;
    struct err *e = ctl_goal_reached(goal, j, node, &reached);

    assert_non_null(e);
    err_free(e);
    json_decref(j);
}

static void test_goals(void **state)
{
    assert_goal(GOAL_DATASET_AT, "{\"primary\":\"a\",\"status\":\"attached\",\"node\":\"a\"}", "a",
                true);
    assert_goal(GOAL_DATASET_AT, "{\"primary\":\"a\",\"status\":\"attached\",\"node\":\"b\"}", "a",
                false);
    assert_goal(GOAL_DATASET_AT, "{\"primary\":\"a\",\"status\":\"moving\",\"node\":\"a\"}", "a",
                false);
    assert_goal_lost(GOAL_DATASET_AT, "{\"primary\":\"b\",\"status\":\"attached\",\"node\":\"a\"}",
                     "a");
    assert_goal_lost(GOAL_DATASET_AT, "{\"primary\":\"a\",\"deleted\":true}", "a");
    assert_goal_lost(GOAL_DATASET_AT, NULL, "a");
    assert_goal(GOAL_DATASET_GONE, "{\"deleted\":true,\"status\":\"deleting\"}", NULL, false);
    assert_goal(GOAL_DATASET_GONE, "{\"deleted\":true,\"status\":\"deleted\"}", NULL, true);
    assert_goal(GOAL_DATASET_GONE, NULL, NULL, true);
    assert_goal(GOAL_CONTAINER_AT, "{\"node_uuid\":\"a\",\"state\":\"running\",\"on\":\"a\"}", "a",
                true);
    assert_goal(GOAL_CONTAINER_AT, "{\"node_uuid\":\"a\",\"state\":\"running\",\"on\":\"b\"}", "a",
                false);
    assert_goal(GOAL_CONTAINER_AT, "{\"node_uuid\":\"a\",\"state\":\"created\",\"on\":\"a\"}", "a",
                false);
    assert_goal_lost(GOAL_CONTAINER_AT, "{\"node_uuid\":\"b\",\"state\":\"running\",\"on\":\"b\"}",
                     "a");
    assert_goal_lost(GOAL_CONTAINER_AT, NULL, "a");
    static const struct {
        const char *more;
        bool up;
    } cases[] = {
        {"'state':'running','on':'a'", true},
        {"'state':'running','on':'a','health':'healthy'", true},
        {"'state':'running','on':'a','health':'starting'", false},
        {"'state':'running','on':'a','health':'unhealthy'", false},
        {"'state':'running','on':'b'", false},
        {"'state':'exited','on':'a'", false},
        {"'state':'exited','on':'a','exit_code':0,'configuration':{'restart_policy':{'name':'never'}}", true},
        {"'state':'exited','on':'a','exit_code':0,'configuration':{'restart_policy':{'name':'on-failure'}}", true},
        {"'state':'exited','on':'a','exit_code':0,'configuration':{'restart_policy':{'name':'always'}}", false},
        {"'state':'exited','on':'a','exit_code':1,'configuration':{'restart_policy':{'name':'never'}}", false},
        {"'state':'exited','on':'b','exit_code':0,'configuration':{'restart_policy':{'name':'never'}}", false},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_FREE char *text = xasprintf("{'node_uuid':'a',%s}", cases[i].more);
        for (char *p = text; *p; p++)
            *p = *p == '\'' ? '"' : *p;
        assert_goal(GOAL_CONTAINER_UP, text, "a", cases[i].up);
    }
    assert_goal_lost(GOAL_CONTAINER_UP, "{\"node_uuid\":\"b\",\"state\":\"running\",\"on\":\"b\"}", "a");
    assert_goal_lost(GOAL_CONTAINER_UP, NULL, "a");
    assert_goal(GOAL_CONTAINER_GONE, "{\"node_uuid\":\"a\",\"state\":\"running\"}", NULL, false);
    assert_goal(GOAL_CONTAINER_GONE, NULL, NULL, true);
}

static void test_paths(void **state)
{
    char *path = api_path("/v1/x/", "aZ0-_.~");

    assert_string_equal(path, "/v1/x/aZ0-_.~");
    free(path);
    path = api_path("/v1/x/", "a/b?c#d%e ü");
    assert_string_equal(path, "/v1/x/a%2Fb%3Fc%23d%25e%20%C3%BC");
    free(path);
}

static void assert_yml(const char *text, const char *user, const char *control_service)
{
    struct cluster_yml c;

    assert_null(cluster_yml_parse(text, strlen(text), &c));
    assert_true(str_equal_null(c.user, user));
    assert_true(str_equal_null(c.control_service, control_service));
    cluster_yml_done(&c);
}

static void test_cluster_yml(void **state)
{
    struct cluster_yml c;
    char *host = NULL;

    assert_yml("users: [coke, pepsi]\ncontrol_node: c.example.org\n", "coke", "c.example.org");
    assert_yml("users:\n - coke\nagent_config:\n  control-service:\n    hostname: 1.2.3.4\n",
               "coke", "1.2.3.4");
    assert_yml("", NULL, NULL);
    assert_yml("users: []\ncontrol_node: ''\n", NULL, NULL);
    assert_yml("users: coke\ncontrol_node: [x]\nagent_config: 3\n", NULL, NULL);
    assert_yml("- a\n", NULL, NULL);
    assert_yml("users: [[x]]\n", NULL, NULL);
    struct err *e = cluster_yml_parse("a: [", 4, &c);
    assert_true(err_is(e, ERR_INVALID));
    assert_non_null(strstr(e->text, "not YAML: line "));
    err_free(e);
    static const char agent[] = "version: 1\ncontrol-service: {hostname: h, port: 4524}\n";
    assert_null(agent_yml_control_service(agent, strlen(agent), &host));
    assert_string_equal(host, "h");
    free(host);
    assert_null(agent_yml_control_service("version: 1", 10, &host));
    assert_null(host);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_datasets),       cmocka_unit_test(test_nodes),
        cmocka_unit_test(test_many_ambiguous), cmocka_unit_test(test_goals),
        cmocka_unit_test(test_paths),          cmocka_unit_test(test_cluster_yml),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
