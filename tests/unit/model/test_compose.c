/* Application and deployment files: what they mean, and the sentences about wrong ones (contract section 8). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"
#include "model/compose.h"

#include <stdio.h>

#define NODE_A "3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f"
#define NODE_B "8d2f6a70-1c54-4e0b-8a3d-6b7c8d9e0f11"
#define D1 "c2b7e0d4-5a61-4f3b-9c88-13579bdf2468"

static bool find_node(void *cookie, const char *address, struct uuid *ret)
{
    (void)cookie;
    if (streq(address, "10.20.0.11"))
        return uuid_parse(NODE_A, ret);
    return streq(address, "10.20.0.12") && uuid_parse(NODE_B, ret);
}

static bool find_container(void *cookie, const char *name, struct uuid *ret)
{
    (void)cookie;
    return streq(name, "runs-on-b") && uuid_parse(NODE_B, ret);
}

static bool find_dataset(void *cookie, const struct uuid *id, struct uuid *ret)
{
    (void)cookie;
    return streq(UUID_STR(id), D1) && uuid_parse(NODE_B, ret);
}

static const struct compose_world world = {
    .find_node = find_node, .find_container = find_container, .find_dataset = find_dataset};

/* In the tests' texts ' stands for ". */
static json_t *parse(const char *text)
{
    CLEANUP_FREE char *copy = xstrdup(text);
    json_error_t e;

    for (char *p = copy; *p; p++)
        *p = *p == '\'' ? '"' : *p == '`' ? '\'' : *p;
    json_t *v = json_loads(copy, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &e);
    if (!v)
        fail_msg("%s: %s", copy, e.text);
    return v;
}

static char *compose(const char *applications, const char *deployment, struct composition *ret)
{
    json_t *a = parse(applications), *d = parse(deployment);
    char *text = compose_parse(a, d, &world, ret);

    json_decref(a);
    json_decref(d);
    return text;
}

#define ON_A "{'version': 1, 'nodes': {'10.20.0.11': ['app']}}"

static void refused(const char *applications, const char *deployment, const char *sentence)
{
    struct composition c = {0};
    CLEANUP_FREE char *text = compose(applications, deployment, &c);

    if (!text)
        fail_msg("%s is taken; expected: %s", applications, sentence);
    if (!streq(text, sentence))
        fail_msg("%s %s:\n  got      %s\n  expected %s", applications, deployment, text, sentence);
    assert_int_equal(c.n_containers + c.n_datasets, 0);
}

/* One Flocker application named app; `sentence` after its usual prefix, or whole when it begins with '!'. */
static void flocker(const char *config, const char *sentence)
{
    CLEANUP_FREE char *applications =
        xasprintf("{'version': 1, 'applications': {'app': %s}}", config);
    CLEANUP_FREE char *whole =
        *sentence == '!' ? xstrdup(sentence + 1)
                         : xasprintf("Application 'app' has a config error. %s", sentence);

    refused(applications, ON_A, whole);
}

static void fig(const char *config, const char *sentence)
{
    CLEANUP_FREE char *applications =
        xasprintf("{'app': %s, 'other': {'image': 'i', 'ports': ['81:80']}}", config);
    CLEANUP_FREE char *whole =
        *sentence == '!' ? xstrdup(sentence + 1)
                         : xasprintf("Application 'app' has a config error. %s", sentence);

    refused(applications, ON_A, whole);
}

#define IMAGE(rest) "{'image': 'busybox', " rest "}"
#define VOLUME(rest) "{'image': 'busybox', 'volume': " rest "}"
#define POLICY(rest) "{'image': 'busybox', 'restart_policy': " rest "}"
#define POLICY_ERROR "!Application 'app' has a configuration error. "

static void test_file_errors(void **state)
{
    refused("[]", ON_A, "Application configuration must be a dictionary, got list.");
    refused("'x'", ON_A, "Application configuration must be a dictionary, got unicode.");
    refused("null", ON_A, "Application configuration must be a dictionary, got NoneType.");
    refused("{}", ON_A, "Application configuration has an error. Missing 'applications' key.");
    refused("{'applications': {}}", ON_A,
            "Application configuration has an error. Missing 'version' key.");
    refused("{'applications': {}, 'version': 2}", ON_A,
            "Application configuration has an error. Incorrect version specified.");
    refused("{'applications': {}, 'version': '1'}", ON_A,
            "Application configuration has an error. Incorrect version specified.");
    refused(
        "{'applications': [], 'version': 1}", ON_A,
        "Application configuration has an error. 'applications' must be a dictionary, got list.");
}

static void test_flocker_errors(void **state)
{
    flocker("[]", "Application configuration must be dictionary; got type 'list'.");
    flocker("'x'", "Application configuration must be dictionary; got type 'unicode'.");
    flocker("{'image': 'b', 'zz': 1, 'aa': 2}", "Unrecognised keys: aa, zz.");
    flocker("{}", "Missing 'image' key.");
    flocker("{'image': ':foo'}", "Invalid Docker image name. Docker image names must have format "
                                 "'repository[:tag]'. Found ':foo'.");
    flocker(IMAGE("'ports': [{'external': 1}]"),
            "Invalid ports specification. Missing internal port.");
    flocker(IMAGE("'ports': [{'internal': 1}]"),
            "Invalid ports specification. Missing external port.");
    flocker(IMAGE("'ports': [{'internal': 1, 'external': 2, 'b': 1, 'a': 2}]"),
            "Invalid ports specification. Unrecognised keys: a, b.");
    flocker(IMAGE("'links': 1"), "'links' must be a list of dictionaries; got type 'int'.");
    flocker(IMAGE("'links': ['x']"), "Link must be a dictionary; got type 'unicode'.");
    flocker(IMAGE("'links': [{'remote_port': 1, 'alias': 'a'}]"),
            "Invalid links specification. Missing local port.");
    flocker(IMAGE("'links': [{'local_port': 1, 'alias': 'a'}]"),
            "Invalid links specification. Missing remote port.");
    flocker(IMAGE("'links': [{'local_port': 1, 'remote_port': 1}]"),
            "Invalid links specification. Missing alias.");
    flocker(IMAGE("'links': [{'local_port': 1, 'remote_port': 1, 'alias': 'a', 'x': 1}]"),
            "Invalid links specification. Unrecognised keys: x.");
    flocker(IMAGE("'links': [{'local_port': 1.5, 'remote_port': 1, 'alias': 'a'}]"),
            "Link's local port must be an int; got type 'float'.");
    flocker(IMAGE("'links': [{'local_port': 1, 'remote_port': null, 'alias': 'a'}]"),
            "Link's remote port must be an int; got type 'NoneType'.");
    flocker(IMAGE("'links': [{'local_port': 1, 'remote_port': 1, 'alias': 5}]"),
            "Link alias must be a string; got type 'int'.");
    flocker(IMAGE("'links': [{'local_port': 1, 'remote_port': 1, 'alias': 'a-b'}]"),
            "Invalid links specification. Link aliases must be alphanumeric.");
    flocker(IMAGE("'links': [{'local_port': 1, 'remote_port': 1, 'alias': 'aZ9~'}]"),
            "Invalid links specification. Link aliases must be alphanumeric.");
    flocker(IMAGE("'links': [{'local_port': 1, 'remote_port': 1, 'alias': ''}]"),
            "Invalid links specification. Link aliases must be alphanumeric.");
    flocker("{'image': 5}", "Invalid Docker image name. Docker image names must have format "
                            "'repository[:tag]'. Found ':'.");
    flocker(IMAGE("'environment': []"),
            "'environment' must be a dictionary of key/value pairs; got type 'list'.");
    flocker(IMAGE("'environment': {'A': 1}"),
            "Environment variable 'A' must be a string; got type 'int'.");
    flocker(IMAGE("'mem_limit': '1G'"), "mem_limit must be an integer; got type 'unicode'.");
    flocker(IMAGE("'cpu_shares': {}"), "cpu_shares must be an integer; got type 'dict'.");
}

static void test_volume_errors(void **state)
{
#define V "Invalid volume specification. "
    flocker(VOLUME("'x'"), V "Unexpected value: x");
    flocker(VOLUME("[1]"), V "Unexpected value: [1]");
    flocker(VOLUME("{}"), V "Missing mountpoint.");
    flocker(VOLUME("{'mountpoint': 7}"), V "Mountpoint \"7\" is not a string.");
    flocker(VOLUME("{'mountpoint': '/ü'}"),
            V "Mountpoint \"/ü\" contains non-ASCII (unsupported).");
    flocker(VOLUME("{'mountpoint': './x'}"), V "Mountpoint \"./x\" is not an absolute path.");
    flocker(VOLUME("{'mountpoint': '/x', 'bar': 1, 'foo': 2}"), V "Unrecognised keys: bar, foo.");
    flocker(VOLUME("{'mountpoint': '/x', 'maximum_size': 1000}"),
            V "maximum_size: Value must be string, got int.");
    flocker(VOLUME("{'mountpoint': '/x', 'maximum_size': '0'}"),
            V "maximum_size: Must be greater than zero.");
    static const char *const bad[] = {"-1G", "+1G", "1X",  "G",    "",        "1GG",
                                      "1 G", ".5G", "1e9", "0x10", "9999999T"};
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        CLEANUP_FREE char *config =
            xasprintf(VOLUME("{'mountpoint': '/x', 'maximum_size': '%s'}"), bad[i]);
        CLEANUP_FREE char *text = xasprintf(
            V "maximum_size: Value '%s' could not be parsed as a storage quantity.", bad[i]);
        flocker(config, text);
    }
    flocker(VOLUME("{'mountpoint': '/x', 'maximum_size': '1M'}"),
            V "maximum_size: Must be at least 67108864 bytes.");
    flocker(VOLUME("{'mountpoint': '/x', 'dataset_id': 'x'}"),
            V "dataset_id: Value 'x' is not a version 4 UUID.");
    flocker(VOLUME("{'mountpoint': '/x', 'dataset_id': 5}"),
            V "dataset_id: Value '5' is not a version 4 UUID.");
}

static void test_policy_errors(void **state)
{
    flocker(POLICY("'never'"), POLICY_ERROR "'restart_policy' must be a dict, got never");
    flocker(POLICY("{}"), POLICY_ERROR "'restart_policy' must include a 'name'.");
    flocker(POLICY("{'name': 'x'}"), POLICY_ERROR
            "Invalid 'restart_policy' name 'x'. Use one of: always, never, on-failure");
    flocker(POLICY("{'name': 5}"), POLICY_ERROR
            "Invalid 'restart_policy' name '5'. Use one of: always, never, on-failure");
    flocker(POLICY("{'name': 'always', 'extra': 1}"),
            POLICY_ERROR "Invalid 'restart_policy' arguments for RestartAlways. Got {\"extra\":1}");
    flocker(POLICY("{'name': 'never', 'maximum_retry_count': 1}"), POLICY_ERROR
            "Invalid 'restart_policy' arguments for RestartNever. Got {\"maximum_retry_count\":1}");
    flocker(POLICY("{'name': 'on-failure', 'x': 1}"),
            POLICY_ERROR "Invalid 'restart_policy' arguments for RestartOnFailure. Got {\"x\":1}");
    flocker(POLICY("{'name': 'on-failure', 'maximum_retry_count': 'x'}"),
            POLICY_ERROR "maximum_retry_count must be an integer or None, got x");
    flocker(POLICY("{'name': 'on-failure', 'maximum_retry_count': 0}"),
            POLICY_ERROR "maximum_retry_count must be positive, got 0");
}

static void test_fig_errors(void **state)
{
    fig("{'image': 'i', 'build': '.'}", "Must specify either 'build' or 'image'; found both.");
    fig("[]", "Application configuration must be dictionary; got type 'list'.");
    fig("{}", "Application configuration must contain either an 'image' or 'build' key.");
    fig("{'build': '.'}", "'build' is not supported yet; please specify 'image'.");
    fig("{'image': 'i', 'net': 1, 'dns': 2, 'x': 1}", "Unsupported fig keys found: dns, net");
    fig("{'image': 'i', 'zz': 1, 'foo': 2}", "Unrecognised keys: foo, zz");
    fig("{'image': {}}", "'image' must be a string; got type 'dict'.");
    fig("{'image': 'i', 'environment': 'x'}",
        "'environment' must be a dictionary or list; got type 'unicode'.");
    fig("{'image': 'i', 'environment': [1]}",
        "'environment' value '1' must be a string; got type 'int'.");
    fig("{'image': 'i', 'environment': {'A': 1}}",
        "'environment' value for 'A' must be a string; got type 'int'.");
    fig("{'image': 'i', 'volumes': 'x'}", "'volumes' must be a list; got type 'unicode'.");
    fig("{'image': 'i', 'volumes': [1]}", "'volumes' values must be string; got type 'int'.");
    fig("{'image': 'i', 'volumes': ['/a', '/b']}",
        "Only one volume per application is supported at this time.");
    fig("{'image': 'i', 'ports': '80:80'}", "'ports' must be a list; got type 'unicode'.");
    fig("{'image': 'i', 'ports': [80]}",
        "'ports' must be list of string values in the form of 'host_port:container_port'.");
    fig("{'image': 'i', 'ports': ['80']}",
        "'ports' must be list of string values in the form of 'host_port:container_port'.");
    fig("{'image': 'i', 'ports': ['80:80:80']}",
        "'ports' must be list of string values in the form of 'host_port:container_port'.");
    fig("{'image': 'i', 'ports': ['80:80x']}",
        "'ports' value '80:80x' could not be parsed in to integer values.");
    fig("{'image': 'i', 'ports': ['a:80']}",
        "'ports' value 'a:80' could not be parsed in to integer values.");
    fig("{'image': 'i', 'mem_limit': '1g'}", "mem_limit must be an integer; got type 'unicode'.");
    fig("{'image': 'i', 'mem_limit': true}", "\"memory_limit\" must be at least 1048576.");
    fig("{'image': 'i', 'links': 'other'}", "'links' must be a list; got type 'unicode'.");
    fig("{'image': 'i', 'links': [1]}",
        "'links' must be a list of application names with optional :alias.");
    fig("{'image': 'i', 'links': ['no:x']}", "'links' value 'no:x' could not be mapped to any "
                                             "application; application 'no' does not exist.");
    fig("{'image': 'i', 'links': ['other:a_b']}",
        "!Application 'app' has a config error: Link aliases must be alphanumeric.");
    fig("{'image': 'i', 'links': ['other:aZ9~']}",
        "!Application 'app' has a config error: Link aliases must be alphanumeric.");
    fig("{'image': 'i', 'links': ['other:']}",
        "!Application 'app' has a config error: Link aliases must be alphanumeric.");
    refused("{'app': {'image': 'i', 'links': ['x-y']}, 'x-y': {'image': 'i'}}", ON_A,
            "Application 'app' has a config error: Link aliases must be alphanumeric.");
}

static void test_deployment_errors(void **state)
{
    static const char apps[] =
        "{'version': 1, 'applications': {'app': {'image': 'i'}, 'zwei': {'image': 'i'}}}";

    refused(apps, "[]", "Deployment configuration must be a dictionary, got list.");
    refused(apps, "{}", "Deployment configuration has an error. Missing 'nodes' key.");
    refused(apps, "{'nodes': {}}", "Deployment configuration has an error. Missing 'version' key.");
    refused(apps, "{'nodes': {}, 'version': 2}",
            "Deployment configuration has an error. Incorrect version specified.");
    refused(apps, "{'nodes': {'node1': []}, 'version': 1}",
            "Node \"node1\" specified, but deployment configuration expects an IPv4 address.");
    refused(apps, "{'nodes': {'10.20.0.11': null}, 'version': 1}",
            "Node 10.20.0.11 has a config error. Wrong value type: NoneType. Should be list.");
    refused(apps, "{'nodes': {'10.20.0.11': ['nein']}, 'version': 1}",
            "Node 10.20.0.11 has a config error. Unrecognised application name: nein.");
    refused(apps, "{'nodes': {'10.20.0.11': [1.5]}, 'version': 1}",
            "Node 10.20.0.11 has a config error. Unrecognised application name: 1.5.");
    refused(apps, "{'nodes': {'10.20.0.99': ['app']}, 'version': 1}",
            "No known node with address 10.20.0.99.");
    refused(apps, "{'nodes': {'10.20.0.11': ['app', 'app']}, 'version': 1}",
            "Application 'app' appears more than once.");
    refused(apps, "{'nodes': {'10.20.0.11': ['app'], '10.20.0.12': ['zwei', 'app']}, 'version': 1}",
            "Application 'app' appears more than once.");
    refused(apps, "{'nodes': {'10.20.0.99': []}, 'version': 1}",
            "No known node with address 10.20.0.99.");
    refused("{'version': 1, 'applications': {'app': {'image': 'i', 'cpu_shares': 9999999}}}", ON_A,
            "Application 'app' has a config error. \"cpu_shares\" must be from 1 to 1024.");
}

static void test_flocker_application(void **state)
{
    struct composition c = {0};
    CLEANUP_FREE char *text = compose(
        "{'version': 1, 'applications': {"
        " 'shop-db': {'image': 'registry:5000/postgres', 'ports': [{'internal': 5432, 'external': "
        "5433}],"
        "  'links': [{'local_port': 6379, 'remote_port': 16379, 'alias': 'Cache'}],"
        "  'volume': {'mountpoint': '/var/lib', 'maximum_size': '1.5G', 'dataset_id': '" D1 "'},"
        "  'environment': {'USER': 'shop'}, 'mem_limit': 536870912, 'cpu_shares': 256,"
        "  'restart_policy': {'name': 'on-failure', 'maximum_retry_count': 5}},"
        " 'shop-web': {'image': 'nginx', 'ports': [], 'mem_limit': 0, 'volume': {'mountpoint': "
        "'/data'}},"
        " 'unused': {'image': 'x'}}}",
        "{'version': 1, 'nodes': {'10.20.0.11': ['shop-db'], '10.20.0.12': ['shop-web']}}", &c);

    if (text)
        fail_msg("%s", text);
    assert_int_equal(c.n_containers, 2);
    assert_int_equal(c.n_datasets, 2);
    const struct container *k = c.containers[0];
    assert_string_equal(k->name, "shop-db");
    assert_string_equal(UUID_STR(&k->node), NODE_A);
    assert_string_equal(k->image, "registry:5000/postgres:latest");
    assert_int_equal(k->n_ports, 1);
    assert_int_equal(k->ports[0].internal, 5432);
    assert_int_equal(k->ports[0].external, 5433);
    assert_int_equal(k->n_links, 1);
    assert_string_equal(k->links[0].alias, "Cache");
    assert_string_equal(k->environment[0].value, "shop");
    assert_int_equal(k->memory_limit, 536870912);
    assert_int_equal(k->cpu_shares, 256);
    assert_int_equal(k->restart_policy, RESTART_ON_FAILURE);
    assert_int_equal(k->maximum_retry_count, 5);
    assert_int_equal(k->n_volumes, 1);
    assert_string_equal(UUID_STR(&k->volumes[0].dataset), D1);
    assert_string_equal(k->volumes[0].mountpoint, "/var/lib");
    const struct dataset *d = c.datasets[0];
    assert_string_equal(UUID_STR(&d->id), D1);
    assert_string_equal(UUID_STR(&d->primary), NODE_A);
    assert_int_equal(d->maximum_size, 1536 << 20);
    assert_string_equal(metadata_get(&d->metadata, "name"), "shop-db");
    k = c.containers[1];
    assert_int_equal(k->restart_policy, RESTART_NEVER);
    assert_int_equal(k->memory_limit, 0);
    struct uuid derived = compose_dataset_id("shop-web");
    assert_true(uuid_eq(&k->volumes[0].dataset, &derived));
    assert_true(uuid_eq(&c.datasets[1]->id, &derived));
    assert_int_equal(c.datasets[1]->maximum_size, 0);
    composition_done(&c);
}

static void test_fig_application(void **state)
{
    struct composition c = {0};
    CLEANUP_FREE char *text = compose(
        "{'web': {'image': 'nginx:1', 'links': ['db', 'db:Second'], 'environment': ['A=b=c', "
        "'EMPTY', 'A2=']},"
        " 'db': {'image': 'mysql', 'ports': ['3307:3306', ' 8081 : 8080'], 'volumes': ['/data'],"
        "  'environment': {'X': 'y'}, 'mem_limit': 200000000}}",
        "{'version': 1, 'nodes': {'10.20.0.11': ['web', 'db']}}", &c);

    if (text)
        fail_msg("%s", text);
    assert_int_equal(c.n_containers, 2);
    assert_int_equal(c.n_datasets, 1);
    const struct container *web = c.containers[0], *db = c.containers[1];
    assert_int_equal(web->n_environment, 3);
    assert_string_equal(web->environment[0].name, "A");
    assert_string_equal(web->environment[0].value, "b=c");
    assert_string_equal(web->environment[1].value, "");
    assert_int_equal(web->n_links, 4);
    assert_string_equal(web->links[0].alias, "db");
    assert_int_equal(web->links[0].local_port, 3306);
    assert_int_equal(web->links[0].remote_port, 3307);
    assert_string_equal(web->links[2].alias, "Second");
    assert_int_equal(db->n_ports, 2);
    assert_int_equal(db->ports[0].internal, 3306);
    assert_int_equal(db->ports[0].external, 3307);
    assert_int_equal(db->memory_limit, 200000000);
    assert_string_equal(db->volumes[0].mountpoint, "/data");
    assert_true(uuid_eq(&db->volumes[0].dataset, &c.datasets[0]->id));
    composition_done(&c);
}

/* What says nothing, and what Python takes for a number. */
static void test_empty_parts(void **state)
{
    struct composition c = {0};
    CLEANUP_FREE char *text = compose(
        "{'version': 1, 'applications': {"
        " 'aa': {'image': 'i', 'links': [], 'cpu_shares': true, 'restart_policy': {'name': 'on-failure'}},"
        " 'bb': {'image': 'i', 'restart_policy': {'name': 'on-failure', 'maximum_retry_count': null}},"
        " 'cc': {'image': 'i', 'restart_policy': {'name': 'on-failure', 'maximum_retry_count': true}}}}",
        "{'version': 1, 'nodes': {'10.20.0.11': ['aa', 'bb', 'cc']}}", &c);

    (void)state;
    if (text)
        fail_msg("%s", text);
    assert_int_equal(c.n_containers, 3);
    assert_int_equal(c.containers[0]->n_links, 0);
    assert_int_equal(c.containers[0]->cpu_shares, 1);
    for (uint32_t i = 0; i < 3; i++) {
        assert_int_equal(c.containers[i]->restart_policy, RESTART_ON_FAILURE);
        assert_int_equal(c.containers[i]->maximum_retry_count, i < 2 ? 0 : 1);
    }
    composition_done(&c);
    text = compose("{'aa': {'image': 'i', 'ports': [], 'volumes': [], 'mem_limit': 0}, 'bb': {'image': 'i'}}",
                   "{'version': 1, 'nodes': {'10.20.0.11': ['aa', 'bb']}}", &c);
    if (text)
        fail_msg("%s", text);
    assert_int_equal(c.n_datasets, 0);
    assert_int_equal(c.containers[0]->n_ports, 0);
    assert_int_equal(c.containers[0]->memory_limit, 0);
    composition_done(&c);
}

/* MD5 of the name, as a version 4 UUID. */
static void test_dataset_id(void **state)
{
    struct uuid id = compose_dataset_id("example");

    assert_string_equal(UUID_STR(&id), "1a79a4d6-0de6-418e-8e5b-326e338ae533");
}

static void test_sizes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } sizes[] = {{"67108864", 67108864}, {"67108865", 67109888}, {"65536k", 67108864},
                 {"64M", 67108864},      {"1.g", 1u << 30},      {"0.5T", 1ull << 39},
                 {"0064m", 67108864},    {"100.1M", 104963072},  {"1T", 1ull << 40}};

    for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
        struct composition c = {0};
        CLEANUP_FREE char *applications = xasprintf(
            "{'version': 1, 'applications': {'app': {'image': 'i', 'volume': {'mountpoint': '/x', "
            "'maximum_size': '%s'}}}}",
            sizes[i].text);
        CLEANUP_FREE char *text = compose(applications, ON_A, &c);
        if (text)
            fail_msg("%s: %s", sizes[i].text, text);
        if (c.datasets[0]->maximum_size != sizes[i].bytes)
            fail_msg("%s is %llu", sizes[i].text, (unsigned long long)c.datasets[0]->maximum_size);
        composition_done(&c);
    }
}

/* A short text can ask for very many links. */
static void test_many_links(void **state)
{
    struct str s = {0};

    str_append(&s, "{'app': {'image': 'i', 'links': ['o'");
    for (int i = 0; i < 1000; i++)
        str_append(&s, ",'o'");
    str_append(&s, "]}, 'o': {'image': 'i', 'ports': ['1:1'");
    for (int i = 2; i < 1000; i++)
        str_appendf(&s, ",'%d:%d'", i, i);
    str_append(&s, "]}}");
    refused(s.data, ON_A,
            "Application 'app' has a config error. There are more than 100000 links.");
    str_done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_file_errors),         cmocka_unit_test(test_flocker_errors),
        cmocka_unit_test(test_volume_errors),       cmocka_unit_test(test_policy_errors),
        cmocka_unit_test(test_fig_errors),          cmocka_unit_test(test_deployment_errors),
        cmocka_unit_test(test_flocker_application), cmocka_unit_test(test_fig_application),
        cmocka_unit_test(test_dataset_id),          cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_many_links),          cmocka_unit_test(test_empty_parts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
