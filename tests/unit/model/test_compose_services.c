/* Compose files: what they mean, what is refused, and where services are put. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"
#include "model/compose.h"
#include "model/json.h"

#include <stdio.h>

#define NODE_A "3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f"
#define NODE_B "8d2f6a70-1c54-4e0b-8a3d-6b7c8d9e0f11"
#define NODE_C "9d2f6a70-1c54-4e0b-8a3d-6b7c8d9e0f12"
#define AWAY "11111111-1c54-4e0b-8a3d-6b7c8d9e0f11"
#define D1 "c2b7e0d4-5a61-4f3b-9c88-13579bdf2468"
#define D2 "d2b7e0d4-5a61-4f3b-9c88-13579bdf2468"

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
    if (str_has_prefix(name, "on-c"))
        return uuid_parse(NODE_C, ret);
    return str_has_prefix(name, "away") && uuid_parse(AWAY, ret);
}

static bool find_dataset(void *cookie, const struct uuid *id, struct uuid *ret)
{
    (void)cookie;
    if (streq(UUID_STR(id), D1))
        return uuid_parse(NODE_B, ret);
    return streq(UUID_STR(id), D2) && uuid_parse(AWAY, ret);
}

/* In the tests' texts ' stands for ", and ` for '. */
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

static const bool *closed; /* in all that follows; NULL = none of the three */

static const double *room; /* likewise */

static char *compose(const char *file, const char *deployment, bool spread, struct composition *ret)
{
    struct uuid nodes[3];
    struct compose_world world = {.find_node = find_node,
                                  .find_container = find_container,
                                  .find_dataset = find_dataset,
                                  .nodes = nodes,
                                  .closed = closed,
                                  .room = room,
                                  .n_nodes = 3,
                                  .spread = spread};
    json_t *f = parse(file), *d = deployment ? parse(deployment) : NULL;

    assert_true(uuid_parse(NODE_A, &nodes[0]) && uuid_parse(NODE_B, &nodes[1]) && uuid_parse(NODE_C, &nodes[2]));
    char *text = compose_parse(f, d, &world, ret);
    json_decref(f);
    json_decref(d);
    return text;
}

#define HERE "'x-flocker-node': '10.20.0.11'"

static void refused_file(const char *file, const char *sentence)
{
    struct composition c = {0};
    CLEANUP_FREE char *text = compose(file, NULL, false, &c);

    if (!text || !streq(text, sentence))
        fail_msg("%s:\n  got      %s\n  expected %s", file, text ? text : "it is taken", sentence);
    assert_int_equal(c.n_containers + c.n_datasets, 0);
}

/* A service `web` with these keys, beside `db` with one port, and a volume `data`; the sentence follows "services.web.". */
static void refused(const char *keys, const char *sentence)
{
    CLEANUP_FREE char *file =
        xasprintf("{'services': {'web': {'image': 'i', " HERE ", %s}, 'db': {'image': 'i', " HERE
                  ", 'ports': ['5432:5432']}, 'mute': {'image': 'i', " HERE "}}, 'volumes': {'data': null}}",
                  keys);
    CLEANUP_FREE char *whole = xasprintf("services.web.%s", sentence);

    refused_file(file, whole);
}

/* The container of service `web` with these keys as the API shows it, without what is always there. */
static void taken(const char *keys, const char *expected)
{
    struct composition c = {0};
    CLEANUP_FREE char *file =
        xasprintf("{'name': 'shop', 'services': {'web': {'image': 'i', " HERE
                  "%s%s}, 'db': {'image': 'i', " HERE ", 'ports': ['5433:5432']}}, 'volumes': {'data': null, 'more': null}}",
                  *keys ? ", " : "", keys);
    CLEANUP_FREE char *text = compose(file, NULL, false, &c);

    if (text)
        fail_msg("%s: %s", keys, text);
    json_t *got = json_container_configuration(c.containers[0]), *wanted = parse(expected);
    (void)json_object_del(got, "node_uuid");
    (void)json_object_del(got, "name");
    (void)json_object_del(got, "image");
    if (!json_object_get(wanted, "restart_policy"))
        (void)json_object_del(got, "restart_policy");
    if (!json_equal(got, wanted))
        fail_msg("%s: got %s", keys, json_dumps(got, JSON_COMPACT));
    json_decref(got);
    json_decref(wanted);
    composition_done(&c);
}

static void test_texts_and_lists(void **state)
{
    (void)state;
    taken("", "{}");
    taken("'command': 'a `b c` d\\\\ e'", "{'command_line': ['a', 'b c', 'd e']}");
    taken("'command': ['a b', 5, true]", "{'command_line': ['a b', '5', 'true']}");
    taken("'command': null", "{}");
    taken("'command': []", "{'command_line': []}");
    taken("'entrypoint': 'sh -c'", "{'entrypoint': ['sh', '-c']}");
    taken("'environment': {'A': 'b', 'N': 1, 'T': true}", "{'environment': {'A': 'b', 'N': '1', 'T': 'true'}}");
    taken("'environment': ['A=b=c', 'E=']", "{'environment': {'A': 'b=c', 'E': ''}}");
    taken("'labels': ['a=b', 'c']", "{'labels': {'a': 'b', 'c': ''}}");
    taken("'labels': {'a': null}", "{'labels': {'a': ''}}");
    taken("'user': 1000, 'working_dir': '/srv', 'stop_signal': 'SIGINT'",
          "{'user': '1000', 'working_dir': '/srv', 'stop_signal': 'SIGINT'}");
    taken("'stop_grace_period': '1m30s'", "{'stop_grace_period': 90}");
    taken("'mem_limit': '64m', 'cpu_shares': '12', 'cpus': '0.5'",
          "{'memory_limit': 67108864, 'cpu_shares': 12, 'cpus': 0.5}");
    taken("'deploy': {'resources': {'limits': {'memory': '1.5GB', 'cpus': 2}}}", "{'memory_limit': 1610612736, 'cpus': 2}");
    taken("'x-anything': {'privileged': true}", "{}");
    refused("'command': 'a `b'", "command: must be a text whose quotes end, or a list of texts");
    refused("'command': [{}]", "command: must be a text whose quotes end, or a list of texts");
    refused("'environment': 'x'", "environment: must be a dictionary or a list of NAME=VALUE");
    refused("'environment': {'A': []}", "environment: the value of 'A' must be a text");
    refused("'environment': {'A': null}", "environment: 'A' has no value; flocker-deploy takes it from its own environment");
    refused("'environment': ['A']", "environment: 'A' must be NAME=VALUE");
    refused("'user': {}", "user: must be a text");
    refused("'stop_grace_period': 10", "stop_grace_period: must be a duration, such as 30s or 1m30s");
    refused("'stop_grace_period': '10'", "stop_grace_period: must be a duration, such as 30s or 1m30s");
    refused("'mem_limit': '5x'", "mem_limit: must be a number of bytes, such as 512m");
    refused("'cpus': 'many'", "cpus: must be a number of processors, such as 0.5");
    refused("'cpu_shares': 'x'", "cpu_shares: must be a whole number");
    refused("'mem_limit': '64m', 'deploy': {'resources': {'limits': {'memory': '64m'}}}",
            "mem_limit: the limit is given twice, as mem_limit and under deploy.resources.limits");
    refused("'deploy': []", "deploy: must be a dictionary of dictionaries");
}

static void test_restart(void **state)
{
    (void)state;
    taken("'restart': 'no'", "{'restart_policy': {'name': 'never'}}");
    taken("'restart': false", "{'restart_policy': {'name': 'never'}}");
    taken("'restart': 'always'", "{'restart_policy': {'name': 'always'}}");
    taken("'restart': 'unless-stopped'", "{'restart_policy': {'name': 'always'}}");
    taken("'restart': 'on-failure'", "{'restart_policy': {'name': 'on-failure'}}");
    taken("'restart': 'on-failure:3'", "{'restart_policy': {'name': 'on-failure', 'maximum_retry_count': 3}}");
    refused("'restart': 'on-failure:0'",
            "restart: 'on-failure:0' is none of no, always, on-failure, on-failure:TIMES, unless-stopped");
    refused("'restart': 'on-failurex'",
            "restart: 'on-failurex' is none of no, always, on-failure, on-failure:TIMES, unless-stopped");
    refused("'restart': 'maybe'", "restart: 'maybe' is none of no, always, on-failure, on-failure:TIMES, unless-stopped");
    refused("'restart': 1", "restart: must be a text");
}

static void test_ports(void **state)
{
    (void)state;
    taken("'ports': ['8080:80']", "{'ports': [{'internal': 80, 'external': 8080}]}");
    taken("'ports': ['8000-8001:80-81/tcp']",
          "{'ports': [{'internal': 80, 'external': 8000}, {'internal': 81, 'external': 8001}]}");
    taken("'ports': [{'target': 80, 'published': '8080', 'protocol': 'tcp', 'mode': 'ingress'}]",
          "{'ports': [{'internal': 80, 'external': 8080}]}");
    refused("'ports': '80:80'", "ports: must be a list");
    refused("'ports': [8080]", "ports: '8080' does not say on which port of the nodes; write '8080:8080'");
    refused("'ports': ['80']", "ports: '80' does not say on which port of the nodes; write '80:80'");
    refused("'ports': ['127.0.0.1:80:80']", "ports: '127.0.0.1:80:80': host_ip is not supported: a port answers on all nodes");
    refused("'ports': ['53:53/udp']", "ports: '53:53/udp': the protocol udp is not supported, only tcp is");
    refused("'ports': ['a:80']", "ports: 'a:80' must be PUBLISHED:TARGET, such as 8080:80");
    refused("'ports': ['80:81-']", "ports: '80:81-' must be PUBLISHED:TARGET, such as 8080:80");
    refused("'ports': ['80-90:80-81']", "ports: '80-90:80-81': both ranges must be equally long");
    refused("'ports': ['1-60000:1-60000']", "ports: '1-60000:1-60000': a range has at most 1000 ports");
    refused("'ports': ['70000:80']", "ports: 70000:80: a port is from 1 to 65535");
    refused("'ports': ['0:80']", "ports: 0:80: a port is from 1 to 65535");
    CLEANUP_STR struct str many = {0};
    str_append(&many, "'ports': ['1-1000:1-1000'");
    for (int i = 0; i < 70; i++)
        str_append(&many, ", '1-1000:1-1000'");
    str_append(&many, "]");
    refused(many.data, "ports: the file publishes more ports than there are");
    refused("'ports': [{'target': 80}]", "ports: '{\"target\":80}' does not say on which port of the nodes; add published");
    refused("'ports': [{'target': 53, 'published': 53, 'protocol': 'udp'}]",
            "ports: '{\"target\":53,\"published\":53,\"protocol\":\"udp\"}': the protocol udp is not supported, only tcp is");
    refused("'ports': [{'target': 80, 'published': 80, 'host_ip': '1.2.3.4'}]", "ports.host_ip is not supported.");
}

static void test_health(void **state)
{
    (void)state;
    taken("'healthcheck': {'test': 'curl x', 'interval': '1m', 'timeout': '500ms', 'start_period': '2s', 'retries': 3}",
          "{'healthcheck': {'test': ['CMD-SHELL', 'curl x'], 'interval': 60, 'timeout': 0.5, 'start_period': 2, 'retries': 3}}");
    taken("'healthcheck': {'test': ['CMD', 'a', 'b']}", "{'healthcheck': {'test': ['CMD', 'a', 'b']}}");
    taken("'healthcheck': {'test': ['NONE']}", "{'healthcheck': {'disable': true}}");
    taken("'healthcheck': {'disable': true, 'retries': 3}", "{'healthcheck': {'disable': true}}");
    refused("'healthcheck': 'x'", "healthcheck: must be a dictionary");
    refused("'healthcheck': {'test': []}",
            "healthcheck.test: must be a text, or a list that begins with CMD, CMD-SHELL or NONE");
    refused("'healthcheck': {'interval': 5}", "healthcheck.interval: must be a duration, such as 30s or 1m30s");
    refused("'healthcheck': {'retries': 'x'}", "healthcheck.retries: must be a whole number");
    refused("'healthcheck': {'disable': 'x'}", "healthcheck.disable: must be true or false");
    refused("'healthcheck': {'test': 'x', 'start_interval': '1s'}", "healthcheck.start_interval is not supported.");
}

static void test_others(void **state)
{
    (void)state;
    taken("'depends_on': ['db']", "{'depends_on': [{'name': 'db', 'condition': 'started'}]}");
    taken("'depends_on': {'db': {'condition': 'service_healthy'}}",
          "{'depends_on': [{'name': 'db', 'condition': 'healthy'}]}");
    taken("'links': ['db', 'db:Base']", "{'links': [{'alias': 'db', 'local_port': 5432, 'remote_port': 5433},"
                                        " {'alias': 'Base', 'local_port': 5432, 'remote_port': 5433}]}");
    refused("'depends_on': 'db'", "depends_on: must be a list or a dictionary");
    refused("'depends_on': ['no']", "depends_on: 'no' is no other service of the file");
    refused("'depends_on': ['web']", "depends_on: 'web' is no other service of the file");
    refused("'depends_on': {'db': {'condition': 'x'}}",
            "depends_on: db: the condition 'x' is none of service_started, service_healthy, service_completed_successfully");
    refused("'depends_on': {'db': {'condition': 'service_started', 'restart': true}}",
            "depends_on.db.restart is not supported.");
    refused("'links': 'db'", "links: must be a list of services");
    refused("'links': ['no']", "links: 'no' is no service of the file");
    refused("'links': ['mute']", "links: mute publishes no port to which a link could lead; add one under its ports");
    refused("'links': ['db:a-b']", "links: 'db:a-b': the alias must have letters and digits only; write 'db:ALIAS'");
    refused_file("{'services': {'aa': {'image': 'i', 'depends_on': ['bb']}, 'bb': {'image': 'i', 'depends_on': ['cc']},"
                 " 'cc': {'image': 'i', 'depends_on': ['bb']}, 'dd': {'image': 'i'}}}",
                 "services.aa.depends_on: services wait for each other in a circle");
}

static void test_volumes(void **state)
{
    struct composition c = {0};
    CLEANUP_FREE char *text = compose(
        "{'name': 'shop', 'services': {'web': {'image': 'i', " HERE ", 'volumes': ['data:/srv']},"
        " 'db': {'image': 'i', " HERE ", 'volumes': [{'type': 'volume', 'source': 'more', 'target': '/db'}]},"
        " 'old': {'image': 'i', " HERE ", 'volumes': ['old:/x:rw']}, 'opt': {'image': 'i', " HERE ", 'volumes': ['opt:/o']}},"
        " 'volumes': {'data': null, 'more': {'name': 'own', 'x-flocker-size': '1G'},"
        " 'old': {'x-flocker-dataset-id': '" D1 "', 'driver': 'local'},"
        " 'opt': {'driver': 'flocker', 'driver_opts': {'size': '100MiB'}}, 'unused': {}}}",
        NULL, false, &c);

    (void)state;
    if (text)
        fail_msg("%s", text);
    assert_int_equal(c.n_containers, 4);
    assert_int_equal(c.n_datasets, 4);
    assert_string_equal(metadata_get(&c.datasets[0]->metadata, "name"), "shop_data");
    struct uuid id = compose_dataset_id("compose-volume:shop_data");
    assert_true(uuid_eq(&c.datasets[0]->id, &id));
    assert_int_equal(c.datasets[0]->maximum_size, 0);
    assert_string_equal(UUID_STR(&c.datasets[0]->primary), NODE_A);
    assert_string_equal(metadata_get(&c.datasets[1]->metadata, "name"), "own");
    assert_int_equal(c.datasets[1]->maximum_size, 1 << 30);
    assert_string_equal(UUID_STR(&c.datasets[2]->id), D1);
    assert_int_equal(c.datasets[3]->maximum_size, 100 << 20);
    assert_string_equal(c.containers[1]->volumes[0].mountpoint, "/db");
    assert_false(c.containers[1]->volumes[0].read_only);
    composition_done(&c);
    CLEANUP_FREE char *several = compose(
        "{'services': {'web': {'image': 'i', " HERE ", 'volumes': ['wal:/srv/wal', 'data:/srv:ro',"
        " {'type': 'volume', 'source': 'keys', 'target': '/keys', 'read_only': true}]}},"
        " 'volumes': {'data': {}, 'wal': {'x-flocker-size': '1G'}, 'keys': {}}}",
        NULL, false, &c);
    if (several)
        fail_msg("%s", several);
    const struct container *k = c.containers[0];
    assert_int_equal(c.n_datasets, 3);
    assert_int_equal(k->n_volumes, 3);
    assert_string_equal(k->volumes[0].mountpoint, "/keys");
    assert_string_equal(k->volumes[1].mountpoint, "/srv");
    assert_string_equal(k->volumes[2].mountpoint, "/srv/wal");
    assert_true(k->volumes[0].read_only && k->volumes[1].read_only && !k->volumes[2].read_only);
    assert_true(uuid_eq(&k->volumes[2].dataset, &c.datasets[0]->id));
    assert_int_equal(c.datasets[0]->maximum_size, 1 << 30);
    for (size_t i = 0; i < 3; i++)
        assert_string_equal(UUID_STR(&c.datasets[i]->primary), NODE_A);
    composition_done(&c);
    refused_file("{'services': {'aa': {'image': 'i', " HERE
                 ", 'volumes': ['x:/a', 'y:/a/']}}, 'volumes': {'x': {}, 'y': {}}}",
                 "Application 'aa' has a config error. \"volumes\" must not have the same "
                 "mountpoint twice: /a/.");
    refused_file("{'services': {'aa': {'image': 'i', " HERE
                 ", 'volumes': ['x:/a', 'x:/b']}}, 'volumes': {'x': {}}}",
                 "services.aa.volumes: 'x' is mounted by services.aa already; a dataset is in one "
                 "container only");
    refused("'volumes': 'x'", "volumes: must be a list");
    refused("'volumes': [5]", "volumes: must be a list of texts or dictionaries");
    refused("'volumes': ['./x:/y']",
            "volumes: './x:/y': a path of the host is not supported; name a volume, and declare it at the top level");
    refused("'volumes': ['/y']",
            "volumes: '/y': a volume without a name is not supported; name a volume, and declare it at the top level");
    refused("'volumes': ['data']", "volumes: 'data' must be NAME:/PATH, or NAME:/PATH:ro");
    refused("'volumes': ['data:/x:z']", "volumes: 'data:/x:z': the mode z is not supported, only ro and rw are");
    refused("'volumes': ['data:x']", "volumes: 'x' is not an absolute path");
    refused("'volumes': ['no:/x']", "volumes: 'no' is not among the volumes at the top level of the file");
    refused("'volumes': [{'type': 'bind', 'source': '/a', 'target': '/b'}]",
            "volumes: the type 'bind' is not supported, only volume is");
    refused("'volumes': [{'type': 'volume', 'target': '/b'}]", "volumes: a volume needs a source and a target");
    refused("'volumes': [{'type': 'volume', 'source': 'data', 'target': '/b', 'read_only': 5}]",
            "volumes: read_only must be true or false");
    refused("'volumes': [{'type': 'volume', 'source': 'data', 'target': '/b', 'volume': {'nocopy': true}}]",
            "volumes.volume is not supported.");
    refused_file("{'services': {'aa': {'image': 'i', 'volumes': ['d:/x']}, 'bb': {'image': 'i', 'volumes': ['d:/x']}},"
                 " 'volumes': {'d': {}}}",
                 "services.bb.volumes: 'd' is mounted by services.aa already; a dataset is in one container only");
#define VOLUME(of) "{'services': {}, 'volumes': {'d': " of "}}"
    refused_file(VOLUME("5"), "volumes.d: must be a dictionary");
    refused_file(VOLUME("{'external': true}"),
                 "volumes.d.external (x-flocker-dataset-id names a dataset that is there) is not supported.");
    refused_file(VOLUME("{'driver': 'nfs'}"), "volumes.d.driver: 'nfs' is not supported; leave it out, or say flocker");
    refused_file(VOLUME("{'driver_opts': {'type': 'nfs'}}"), "volumes.d.driver_opts.type is not supported.");
    refused_file(VOLUME("{'driver_opts': 5}"), "volumes.d.driver_opts: must be a dictionary");
    refused_file(VOLUME("{'x-flocker-size': 'x'}"), "volumes.d: the size must be a number of bytes, such as 10G");
    refused_file(VOLUME("{'x-flocker-size': '1M'}"), "volumes.d: the size must be at least 67108864 bytes");
    refused_file(VOLUME("{'x-flocker-size': 9223372036854775807}"), "volumes.d: the size is too large");
    refused_file(VOLUME("{'x-flocker-size': '1G', 'driver_opts': {'size': '1G'}}"),
                 "volumes.d: the size is given twice, as x-flocker-size and under driver_opts");
    refused_file(VOLUME("{'x-flocker-dataset-id': 'x'}"), "volumes.d.x-flocker-dataset-id: must be a version 4 UUID");
    refused_file(VOLUME("{'name': ''}"), "volumes.d: the name of a volume, with the project's, has from 1 to 256 bytes");
}

static void test_unsupported(void **state)
{
    (void)state;
    refused("'privileged': true", "privileged is not supported.");
    refused("'privileged': true, 'dns': []", "privileged, services.web.dns are not supported.");
    refused("'networks': ['x']", "networks (services reach each other by links and by ports) is not supported.");
    refused("'deploy': {'replicas': 3, 'resources': {'reservations': {}, 'limits': {'pids': 3}}}",
            "deploy.replicas (a service is one container; write another service), "
            "services.web.deploy.resources.reservations, services.web.deploy.resources.limits.pids are not supported.");
    refused_file("{'services': {}, 'secrets': {}, 'version': '3', 'x-more': 1}", "secrets is not supported.");
    refused_file("{'services': {'web': {'build': '.'}}}",
                 "services.web.build (no images are built here: name one under image) is not supported.");
    refused_file("{'services': []}", "services: must be a dictionary, got list.");
    refused_file("{'services': {'web': []}}", "services.web: must be a dictionary");
    refused_file("{'services': {'web': {}}}", "services.web: names no image");
    refused_file("{'services': {'web': {'image': 5}}}", "services.web.image: must be a text");
    refused_file("{'services': {}, 'name': 5}", "name: must be a text");
    refused_file("{'services': {}, 'volumes': []}", "volumes: must be a dictionary");
}

/* Fig's file may have an application that is called services, and a Compose file a service that is called image. */
static void test_formats(void **state)
{
    struct composition c = {0};
    CLEANUP_FREE char *text = compose("{'services': {'image': 'i'}}",
                                      "{'version': 1, 'nodes': {'10.20.0.11': ['services']}}", false, &c);

    (void)state;
    assert_null(text);
    assert_string_equal(c.containers[0]->name, "services");
    composition_done(&c);
    text = compose("{'services': {'image': {'image': 'i', " HERE "}}}", NULL, false, &c);
    assert_null(text);
    assert_string_equal(c.containers[0]->name, "image");
    composition_done(&c);
}

/* "NAME:NODE", node by its first letter, for all containers. */
static char *places(const struct composition *c)
{
    struct str s = {0};

    for (size_t i = 0; i < c->n_containers; i++)
        str_appendf(&s, "%s%s:%c", i ? " " : "", c->containers[i]->name, UUID_STR(&c->containers[i]->node)[0]);
    return str_steal(&s);
}

static void placed(const char *file, const char *deployment, bool spread, const char *expected)
{
    struct composition c = {0};
    CLEANUP_FREE char *text = compose(file, deployment, spread, &c);
    CLEANUP_FREE char *got = places(&c);

    if (text)
        fail_msg("%s: %s", file, text);
    assert_string_equal(got, expected);
    for (size_t i = 0; i < c.n_datasets; i++)
        assert_false(uuid_is_nil(&c.datasets[i]->primary));
    composition_done(&c);
}

#define PLAIN "{'image': 'i'}"

static void test_places(void **state)
{
    struct composition c = {0};

    (void)state;
    placed("{'services': {'aa': " PLAIN ", 'bb': " PLAIN "}}",
           "{'version': 1, 'nodes': {'10.20.0.11': ['bb'], '10.20.0.12': ['aa']}}", false, "aa:8 bb:3");
    placed("{'services': {'aa': {'image': 'i', 'x-flocker-node': '10.20.0.12'}, 'bb': {'image': 'i', 'x-flocker-node': '" NODE_C
           "'}}}",
           NULL, false, "aa:8 bb:9");
    /* The deployment file wins. */
    placed("{'services': {'aa': {'image': 'i', 'x-flocker-node': '10.20.0.12'}}}",
           "{'version': 1, 'nodes': {'10.20.0.11': ['aa']}}", false, "aa:3");
    CLEANUP_FREE char *text = compose("{'services': {'aa': " PLAIN "}}", NULL, false, &c);
    assert_string_equal(text, "services.aa: has no place; name it in the deployment file, give it x-flocker-node, or use "
                              "--spread.");
    free(text);
    text = compose("{'services': {'aa': {'image': 'i', 'x-flocker-node': '" AWAY "'}}}", NULL, true, &c);
    assert_string_equal(text, "services.aa.x-flocker-node: no known node with address or UUID " AWAY ".");
    free(text);
    text = compose("{'services': {'aa': {'image': 'i', 'x-flocker-node': 5}}}", NULL, true, &c);
    assert_string_equal(text, "services.aa.x-flocker-node: must be the address or the UUID of a node");
    free(text);
    text = compose("{'version': 1, 'applications': {}}", NULL, false, &c);
    assert_string_equal(text, "Deployment configuration must be a dictionary, got NoneType.");
}

#define WITH(name) "{'image': 'i', 'volumes': ['" name ":/x']}"
#define GIB 1073741824.0

/* Data go where most room is, with what was just placed; the rest where there is least. */
static void test_spread_by_room(void **state)
{
    (void)state;
    room = (const double[]){10 * GIB, 13 * GIB, 2 * GIB};
    placed("{'services': {'aa': " WITH("d") ", 'bb': " WITH("e") ", 'cc': " WITH(
               "f") ", 'dd': " PLAIN "}, 'volumes': {'d': {'x-flocker-size': '4G'}, 'e': "
                    "{'x-flocker-size': '4G'}, 'f': {'x-flocker-size': '4G'}}}",
           NULL, true, "aa:8 bb:3 cc:8 dd:9");
    /* One without a size counts, too; where there is the same room, the fewest containers are decisive. */
    room = (const double[]){3 * GIB, 3 * GIB, 3 * GIB};
    placed("{'services': {'aa': " WITH("d") ", 'bb': " WITH("e") ", 'cc': " WITH(
               "f") ", 'on-c1': " PLAIN "}, 'volumes': {'d': {}, 'e': {}, 'f': {}}}",
           NULL, true, "aa:3 bb:8 cc:9 on-c1:9");
    /* What is on a node already has its room; what is put there by name takes it. */
    room = (const double[]){2 * GIB, 3 * GIB, 0};
    placed("{'services': {'aa': " WITH("d") ", 'bb': " WITH(
               "e") "}, 'volumes': {"
                    "'d': {'x-flocker-dataset-id': '" D1 "', 'x-flocker-size': '9G'}, 'e': {}}}",
           NULL, true, "aa:8 bb:8");
    room = (const double[]){3 * GIB, 2 * GIB + 1, 0};
    placed("{'services': {'aa': {'image': 'i', 'volumes': ['d:/x'], 'x-flocker-node': "
           "'10.20.0.11'}, 'bb': " WITH("e") "}, 'volumes': {'d': {}, 'e': {}}}",
           NULL, true, "aa:3 bb:8");
    /* Too much is promised everywhere, and the best is cordoned. */
    room = (const double[]){-3 * GIB, -1 * GIB, -2 * GIB};
    closed = (const bool[]){false, true, false};
    placed("{'services': {'aa': " WITH("d") "}, 'volumes': {'d': {}}}", NULL, true, "aa:9");
    closed = NULL;
    room = NULL;
}

static void test_spread(void **state)
{
    (void)state;
    /* Balanced, by the names, whatever the order in the file. */
    placed("{'services': {'aa': " PLAIN ", 'bb': " PLAIN ", 'cc': " PLAIN ", 'dd': " PLAIN "}}", NULL, true,
           "aa:3 bb:8 cc:9 dd:3");
    placed("{'services': {'dd': " PLAIN ", 'cc': " PLAIN ", 'bb': " PLAIN ", 'aa': " PLAIN "}}", NULL, true,
           "dd:3 cc:9 bb:8 aa:3");
    /* What is there stays, and counts; what was on a node that is away goes where there is least. */
    placed("{'services': {'aa': " PLAIN ", 'on-c1': " PLAIN ", 'on-c2': " PLAIN ", 'away': " PLAIN ", 'zz': " PLAIN "}}", NULL,
           true, "aa:3 on-c1:9 on-c2:9 away:8 zz:3");
    /* Data stay, also on a node that is away. */
    placed("{'services': {'aa': {'image': 'i', 'volumes': ['d:/x']}, 'bb': {'image': 'i', 'volumes': ['e:/x']}, 'cc': " PLAIN
           "}, 'volumes': {'d': {'x-flocker-dataset-id': '" D1 "'}, 'e': {'x-flocker-dataset-id': '" D2 "'}}}",
           NULL, true, "aa:8 bb:1 cc:3");
    /* Nothing new on a cordoned node; what is there stays. */
    closed = (const bool[]){true, false, false};
    placed("{'services': {'aa': " PLAIN ", 'bb': " PLAIN ", 'cc': " PLAIN ", 'on-c1': " PLAIN "}}", NULL, true,
           "aa:8 bb:8 cc:9 on-c1:9");
    closed = (const bool[]){false, false, true};
    placed("{'services': {'aa': " PLAIN ", 'on-c1': " PLAIN "}}", NULL, true, "aa:3 on-c1:9");
    closed = (const bool[]){true, true, true};
    struct composition none = {0};
    CLEANUP_FREE char *full = compose("{'services': {'aa': " PLAIN "}}", NULL, true, &none);
    assert_string_equal(full, "All nodes are cordoned: there is none to spread over (flockerctl uncordon).");
    closed = NULL;
    /* With the other formats, too. */
    placed("{'version': 1, 'applications': {'aa': " PLAIN ", 'bb': " PLAIN "}}", NULL, true, "aa:3 bb:8");
    placed("{'aa': " PLAIN ", 'bb': " PLAIN "}", "{'version': 1, 'nodes': {'10.20.0.11': ['bb']}}", true, "aa:8 bb:3");
    struct composition c = {0};
    json_t *file = parse("{'services': {'aa': " PLAIN "}}");
    CLEANUP_FREE char *text = compose_parse(file, NULL,
                                            &(struct compose_world){.find_node = find_node,
                                                                    .find_container = find_container,
                                                                    .find_dataset = find_dataset,
                                                                    .spread = true},
                                            &c);
    assert_string_equal(text, "No node is there to spread over.");
    json_decref(file);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_texts_and_lists), cmocka_unit_test(test_restart),
        cmocka_unit_test(test_ports),           cmocka_unit_test(test_health),
        cmocka_unit_test(test_others),          cmocka_unit_test(test_volumes),
        cmocka_unit_test(test_unsupported),     cmocka_unit_test(test_formats),
        cmocka_unit_test(test_places),          cmocka_unit_test(test_spread),
        cmocka_unit_test(test_spread_by_room),
    };

    json_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
