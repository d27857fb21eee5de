/* agent.yml and what the agent remembers: each mistake is named, nothing is taken half. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/config.h"
#include "agent/memory.h"
#include "model/yaml_json.h"
#include "base/str.h"

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define GOOD "version: 1\ncontrol-service: {hostname: control.example}\n"
#define DATASET "dataset: {backend: btrfs}\n"

static void test_good(void **state)
{
    static const char text[] =
        "version: 1\ncontrol-service:\n  hostname: 192.0.2.1\n  port: 7000\ndataset:\n"
        "  backend: btrfs\n  pool: /data\ndocker: {socket: /run/d.sock, stop-timeout: 7}\n"
        "move: {rounds: 3, small-ms: 50, max-pause-ms: 2000, bandwidth-limit: 20MiB, verify: "
        "always, port: 4600}\n";
    struct agent_config c;

    (void)state;
    assert_null(agent_config_parse(text, strlen(text), &c));
    assert_string_equal(c.control_host, "192.0.2.1");
    assert_int_equal(c.control_port, 7000);
    assert_string_equal(c.docker_socket, "/run/d.sock");
    assert_int_equal(c.stop_timeout_s, 7);
    assert_int_equal(c.copy.rounds, 3);
    assert_int_equal(c.copy.small_us, 50000);
    assert_int_equal(c.copy.pause_us, 2 * USEC_PER_SEC);
    assert_int_equal(c.bandwidth_limit, 20u << 20);
    assert_int_equal(c.mover_port, 4600);
    assert_true(c.copy.verify);
    assert_string_equal(json_string_value(json_object_get(c.dataset, "pool")), "/data");
    agent_config_done(&c);
    assert_null(agent_config_parse(GOOD DATASET, strlen(GOOD DATASET), &c));
    assert_int_equal(c.control_port, 4524);
    assert_string_equal(c.docker_socket, "/var/run/docker.sock");
    assert_int_equal(c.stop_timeout_s, 60);
    assert_int_equal(c.copy.rounds, 8);
    assert_int_equal(c.bandwidth_limit, 0);
    assert_int_equal(c.mover_port, 4525);
    assert_false(c.copy.verify);
    agent_config_done(&c);
    static const struct {
        const char *text;
        uint64_t limit;
    } limits[] = {{GOOD DATASET "move: {bandwidth-limit: 0}\n", 0},
                  {GOOD DATASET "move: {bandwidth-limit: 65536, verify: never}\n", 65536},
                  {GOOD DATASET "move: {bandwidth-limit: '1G'}\n", 1u << 30}};
    for (size_t i = 0; i < ARRAY_SIZE(limits); i++) {
        assert_null(agent_config_parse(limits[i].text, strlen(limits[i].text), &c));
        assert_int_equal(c.bandwidth_limit, limits[i].limit);
        assert_false(c.copy.verify);
        agent_config_done(&c);
    }
}

static void test_mistakes_are_named(void **state)
{
    static const struct {
        const char *text, *word;
    } cases[] = {
        {"", "mapping"},
        {"[]", "mapping"},
        {"{", "line 2: "},
        {"control-service: {hostname: h}\n" DATASET, "'version' is missing"},
        {"version: 2\ncontrol-service: {hostname: h}\n" DATASET, "'version'"},
        {"version: '1'\ncontrol-service: {hostname: h}\n" DATASET, "'version'"},
        {"version: 1\n" DATASET, "'control-service'"},
        {"version: 1\ncontrol-service: h\n" DATASET, "'control-service'"},
        {"version: 1\ncontrol-service: {}\n" DATASET, "'hostname'"},
        {"version: 1\ncontrol-service: {hostname: 5}\n" DATASET, "'hostname'"},
        {"version: 1\ncontrol-service: {hostname: 'a b'}\n" DATASET, "'hostname'"},
        {"version: 1\ncontrol-service: {hostname: h, port: 0}\n" DATASET, "'port'"},
        {"version: 1\ncontrol-service: {hostname: h, port: 65536}\n" DATASET, "'port'"},
        {"version: 1\ncontrol-service: {hostname: h, port: '4524'}\n" DATASET, "'port'"},
        {"version: 1\ncontrol-service: {hostname: h, prot: 1}\n" DATASET, "'prot'"},
        {GOOD, "'dataset'"},
        {GOOD "dataset: btrfs\n", "'dataset'"},
        {GOOD "dataset: {}\n", "'backend'"},
        {GOOD "dataset: {backend: 3}\n", "'backend'"},
        {GOOD DATASET "datasets: 1\n", "'datasets'"},
        {GOOD DATASET "docker: 1\n", "'docker'"},
        {GOOD DATASET "docker: {socket: relative}\n", "'socket'"},
        {GOOD DATASET "docker: {stop-timeout: 0}\n", "'stop-timeout'"},
        {GOOD DATASET "docker: {stop-timeout: 3601}\n", "'stop-timeout'"},
        {GOOD DATASET "move: 3\n", "'move'"},
        {GOOD DATASET "move: {round: 3}\n", "'round'"},
        {GOOD DATASET "move: {rounds: 0}\n", "'rounds'"},
        {GOOD DATASET "move: {rounds: 1}\n", "'rounds'"},
        {GOOD DATASET "move: {rounds: 2.5}\n", "'rounds'"},
        {GOOD DATASET "move: {small-ms: 0}\n", "'small-ms'"},
        {GOOD DATASET "move: {small-ms: '1'}\n", "'small-ms'"},
        {GOOD DATASET "move: {max-pause-ms: 86400001}\n", "'max-pause-ms'"},
        {GOOD DATASET "move: {bandwidth-limit: 65535}\n", "'bandwidth-limit'"},
        {GOOD DATASET "move: {port: 0}\n", "'port'"},
        {GOOD DATASET "move: {port: 65536}\n", "'port'"},
        {GOOD DATASET "move: {port: '4525'}\n", "'port'"},
        {GOOD DATASET "move: {bandwidth-limit: -1}\n", "'bandwidth-limit'"},
        {GOOD DATASET "move: {bandwidth-limit: fast}\n", "'bandwidth-limit'"},
        {GOOD DATASET "move: {bandwidth-limit: 1.5}\n", "'bandwidth-limit'"},
        {GOOD DATASET "move: {verify: true}\n", "'verify'"},
        {GOOD DATASET "move: {verify: sometimes}\n", "'verify'"},
        {GOOD DATASET "routes: no\n", "'routes'"},
        {GOOD DATASET "routes: {enable: true}\n", "'enable'"},
        {GOOD DATASET "routes: {enabled: 1}\n", "'enabled'"},
        {GOOD DATASET "routes: {except: 22}\n", "'except'"},
        {GOOD DATASET "routes: {except: [0]}\n", "'except'"},
        {GOOD DATASET "routes: {except: [22, '80']}\n", "'except'"},
        {GOOD DATASET "routes: {except: [65536]}\n", "'except'"},
        {GOOD DATASET "docker: {sock: /x}\n", "'sock'"},
        {GOOD DATASET "docker: {plugin-socket: relative}\n", "'plugin-socket'"},
        {GOOD DATASET "docker: {plugin-socket: 7}\n", "'plugin-socket'"},
        {GOOD DATASET "docker: {plugin-socket: /"
                      "0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789}\n",
         "'plugin-socket'"},
        {GOOD DATASET "docker: {wait: 0}\n", "'wait'"},
        {GOOD DATASET "docker: {wait: 111}\n", "'wait'"},
        {GOOD DATASET "docker: {wait: '5'}\n", "'wait'"},
        {GOOD DATASET "docker: {release-unused: 3}\n", "'release-unused'"},
        {GOOD DATASET "docker: {release-unused: -1}\n", "'release-unused'"},
        {GOOD DATASET "docker: {default-size: 10X}\n", "'default-size'"},
        {GOOD DATASET "docker: {default-size: 1M}\n", "'default-size'"},
        {GOOD DATASET "docker: {default-size: 67108865}\n", "'default-size'"},
        {GOOD DATASET "docker: {default-size: -5}\n", "'default-size'"},
        {GOOD DATASET "docker: {remove: yes}\n", "'remove'"},
        {GOOD DATASET "docker: {remove: true}\n", "'remove'"},
        {GOOD DATASET DATASET, "line 4: the same key twice"},
        {GOOD "dataset: {backend: \"\xff\"}\n", "line"},
        {GOOD DATASET "\"docker\\0x\": {}\n", "a NUL character in a key"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct agent_config c;
        struct err *e = agent_config_parse(cases[i].text, strlen(cases[i].text), &c);
        if (!e)
            fail_msg("taken: %s", cases[i].text);
        if (!err_is(e, ERR_INVALID) || !strstr(e->text, cases[i].word))
            fail_msg("%s\n-> %s, expected %s", cases[i].text, e->text, cases[i].word);
        err_free(e);
    }
}

static void refuse_yaml(const char *text, size_t n, const char *word)
{
    json_t *v;
    struct err *e = yaml_load(text, n, &v);

    assert_true(err_is(e, ERR_INVALID));
    if (!strstr(e->text, word))
        fail_msg("%s, expected %s", e->text, word);
    err_free(e);
}

static void test_yaml_limits(void **state)
{
    CLEANUP_STR struct str deep = {0}, many = {0}, large = {0};

    (void)state;
    for (int i = 0; i < YAML_MAX_DEPTH + 2; i++)
        str_append(&deep, "[");
    for (int i = 0; i < YAML_MAX_DEPTH + 2; i++)
        str_append(&deep, "]");
    refuse_yaml(deep.data, deep.len, "nested too deeply");
    str_done(&deep);
    for (size_t i = 0; i < YAML_MAX_BYTES; i++) /* would take minutes if it were read to its end */
        str_append(&deep, "[");
    refuse_yaml(deep.data, deep.len, "nested too deeply");
    for (int i = 0; i < YAML_MAX_NODES; i++)
        str_append(&many, "- 1\n");
    refuse_yaml(many.data, many.len, "too many values");
    for (size_t i = 0; i <= YAML_MAX_BYTES / 8; i++)
        str_append(&large, "# 45678\n");
    refuse_yaml(large.data, large.len, "larger");
    refuse_yaml("[1, 2]: 3\n", 10, "simple value");
    refuse_yaml("a: 1\n---\nb: 2\n", 14, "second document");
    /* Aliases that blow up end at the limit of values. */
    static const char bomb[] = "a: &a [1,1,1,1,1,1,1,1,1,1]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a,*a]\n"
                               "c: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b,*b]\nd: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c,*c]\n"
                               "e: [*d,*d,*d,*d,*d,*d,*d,*d,*d,*d]\n";
    refuse_yaml(bomb, strlen(bomb), "too many values");
}

static void test_yaml_scalars(void **state)
{
    static const char text[] = "[1, -7, '1', 1.5, true, yes, ~, '', 99999999999999999999, -, 0x10]";
    json_t *v;

    (void)state;
    assert_null(yaml_load(text, strlen(text), &v));
    char *out = json_dumps(v, JSON_COMPACT);
    assert_string_equal(out, "[1,-7,\"1\",\"1.5\",true,\"yes\",null,\"\",\"99999999999999999999\",\"-\",\"0x10\"]");
    free(out);
    json_decref(v);
}

static void write_text(const char *path, const char *text)
{
    FILE *f = fopen(path, "we");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void test_memory(void **state)
{
    static const char *const damaged[] = {
        "", "{", "[]", "{}", "{\"store\": \"x\", \"generation\": \"3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f\", \"revision\": 1}",
        "{\"store\": \"3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f\", \"generation\": \"x\", \"revision\": 1}",
        "{\"store\": \"3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f\", \"revision\": 1}",
        "{\"store\": \"3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f\", "
        "\"generation\": \"3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f\", \"revision\": -1}",
        "{\"store\": \"3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f\", \"revision\": \"1\"}",
        "{\"store\": \"3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f\"}",
        "{\"store\": 1, \"store\": 2}"};
    char dir[] = "/tmp/flocker-memory-XXXXXX";
    struct node_memory m = {.seen_revision = 99}, read;

    (void)state;
    assert_non_null(mkdtemp(dir));
    CLEANUP_FREE char *path = xasprintf("%s/store.json", dir);
    assert_null(memory_load(dir, &m)); /* no file: nothing yet */
    assert_true(uuid_is_nil(&m.store));
    assert_int_equal(m.seen_revision, 0);
    assert_true(uuid_parse("3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f", &m.store));
    assert_true(uuid_parse("8d2f6a70-1c54-4e0b-8a3d-6b7c8d9e0f11", &m.generation));
    m.seen_revision = 1234567890123;
    assert_null(memory_save(dir, &m));
    assert_null(memory_load(dir, &read));
    assert_true(uuid_eq(&read.store, &m.store));
    assert_true(uuid_eq(&read.generation, &m.generation));
    assert_int_equal(read.seen_revision, m.seen_revision);
    for (size_t i = 0; i < ARRAY_SIZE(damaged); i++) {
        write_text(path, damaged[i]);
        struct err *e = memory_load(dir, &read);
        if (!err_is(e, ERR_CORRUPT) || !strstr(e->text, path) || !strstr(e->text, "--adopt"))
            fail_msg("%s: %s", damaged[i], e ? e->text : "taken");
        err_free(e);
        struct stat st;
        assert_int_equal(stat(path, &st), 0); /* left alone */
        assert_int_equal(st.st_size, strlen(damaged[i]));
    }
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
    struct err *e = memory_save(dir, &m);
    assert_non_null(e);
    assert_non_null(strstr(e->text, dir));
    err_free(e);
}

static bool is_excepted(const struct agent_config *c, uint16_t port)
{
    bool found = false;

    for (size_t i = 0; i < c->n_routes_except; i++)
        found = found || c->routes_except[i] == port;
    return found;
}

/* Nobody can route the cluster's own ports away from the node, and nobody does so with ssh by mistake. */
static void test_routes(void **state)
{
    static const char bare[] = GOOD DATASET, chosen[] = GOOD DATASET "routes: {enabled: false, except: [80, 443]}\n";
    struct agent_config c;

    (void)state;
    assert_null(agent_config_parse(bare, strlen(bare), &c));
    assert_true(c.routes);
    assert_true(is_excepted(&c, 22) && is_excepted(&c, 4523) && is_excepted(&c, 4524) && is_excepted(&c, 4525));
    assert_false(is_excepted(&c, 80));
    agent_config_done(&c);
    assert_null(agent_config_parse(chosen, strlen(chosen), &c));
    assert_false(c.routes);
    assert_true(is_excepted(&c, 80) && is_excepted(&c, 443) && is_excepted(&c, 4524));
    assert_false(is_excepted(&c, 22));
    agent_config_done(&c);
}

static void test_docker_volumes(void **state)
{
    static const char chosen[] = GOOD DATASET "docker: {plugin-socket: /run/x.sock, wait: 7, remove: keep, default-size: 10G, release-unused: 0}\n";
    static const char none[] = GOOD DATASET "docker: {plugin-socket: none, default-size: 0, remove: delete}\n";
    struct agent_config c;

    (void)state;
    assert_null(agent_config_parse(GOOD DATASET, strlen(GOOD DATASET), &c));
    assert_string_equal(c.plugin_socket, "/run/docker/plugins/flocker/flocker.sock");
    assert_int_equal(c.docker_wait_s, 90);
    assert_int_equal(c.release_unused_s, 600);
    assert_true(c.default_size == UINT64_C(75) << 30 && !c.has_default_size && !c.docker_keep);
    agent_config_done(&c);
    assert_null(agent_config_parse(chosen, strlen(chosen), &c));
    assert_string_equal(c.plugin_socket, "/run/x.sock");
    assert_int_equal(c.docker_wait_s, 7);
    assert_int_equal(c.release_unused_s, 0);
    assert_true(c.default_size == UINT64_C(10) << 30 && c.docker_keep);
    agent_config_done(&c);
    assert_null(agent_config_parse(none, strlen(none), &c));
    assert_null(c.plugin_socket);
    assert_true(c.default_size == 0 && c.has_default_size && !c.docker_keep);
    agent_config_done(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_good),        cmocka_unit_test(test_mistakes_are_named),
        cmocka_unit_test(test_yaml_limits), cmocka_unit_test(test_yaml_scalars),
        cmocka_unit_test(test_memory),      cmocka_unit_test(test_routes),
        cmocka_unit_test(test_docker_volumes),
    };

    return cmocka_run_group_tests_name("agent-config", tests, NULL, NULL);
}
