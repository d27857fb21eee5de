/* The documents of the Docker API, friendly and hostile. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "../model/extended.h"
#include "base/random.h"
#include "base/str.h"
#include "engines/docker_api.h"
#include "engines/docker_http.h"

#include <jansson.h>

#define CLUSTER "01020304-0506-4708-890a-0b0c0d0e0f10"
#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define LABELS                                                                                     \
    "{\"io.flocker.cluster\":\"" CLUSTER "\",\"io.flocker.container\":\"web-1\","                  \
    "\"io.flocker.created\":\"18446744073709551615\"}"

static struct uuid cluster(void)
{
    struct uuid id;

    assert_true(uuid_parse(CLUSTER, &id));
    return id;
}

static void check_err(struct err *e, enum err_code code, const char *word, int line)
{
    if (!e)
        fail_msg("line %d succeeded", line);
    else if (e->code != code || !strstr(e->text, word))
        fail_msg("line %d: %s: %s", line, err_code_name(e->code), e->text);
    (void)err_free(e);
}
#define assert_err(expr, code, word) check_err((expr), (code), (word), __LINE__)

static void test_version(void **state)
{
    static const struct {
        const char *text;
        unsigned minor; /* 0 = refused */
    } cases[] = {
        {"{\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.12\"}", 41},
        {"{\"ApiVersion\":\"1.30\"}", 30},
        {"{\"ApiVersion\":\"1.99\",\"MinAPIVersion\":\"1.44\"}", DOCKER_API_MINOR_MAX},
        {"{\"ApiVersion\":\"1.29\"}", 0},
        {"{\"ApiVersion\":\"1.99\",\"MinAPIVersion\":\"1.70\"}", 0},
        {"{\"ApiVersion\":\"2.41\"}", 0},
        {"{\"ApiVersion\":\"1.\"}", 0},
        {"{\"ApiVersion\":\"1.4x\"}", 0},
        {"{\"ApiVersion\":\"1.99999999999999999999\"}", 0},
        {"{\"ApiVersion\":41}", 0},
        {"{}", 0},
        {"[]", 0},
        {"", 0},
        {"<html>", 0},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        unsigned minor = 0;
        struct err *e = docker_parse_version(cases[i].text, strlen(cases[i].text), &minor);

        assert_int_equal(minor, cases[i].minor);
        assert_int_equal(e == NULL, cases[i].minor != 0);
        (void)err_free(e);
    }
}

static size_t parse_list(const char *text, struct docker_container **ret_list)
{
    struct uuid id = cluster();
    size_t n = 0;
    struct err *e = docker_parse_list(text, strlen(text), &id, ret_list, &n);

    if (e) {
        assert_true(err_is(e, ERR_CORRUPT));
        (void)err_free(e);
        *ret_list = NULL;
        return SIZE_MAX;
    }
    return n;
}

static void test_list(void **state)
{
    struct docker_container *list;
    size_t n = parse_list(
        "[{\"Id\":\"" ID "\",\"Names\":[\"/x/alias\",\"/flocker--web-1\"],\"Labels\":" LABELS
        ",\"State\":\"running\"},"
        "{\"Id\":\"" ID "\",\"Names\":[\"/flocker--web-1\"],\"Labels\":" LABELS
        ",\"State\":\"exited\"},"
        "{\"Id\":\"" ID "\",\"Names\":[\"/flocker--web-12\"],\"Labels\":" LABELS
        ",\"State\":\"running\"},"
        "{\"Id\":\"" ID "\",\"Names\":[\"/web-1\"],\"Labels\":" LABELS ",\"State\":\"running\"},"
        "{\"Id\":\"" ID "\",\"Names\":null,\"Labels\":" LABELS "},"
        "{\"Id\":\"" ID "\",\"Names\":[\"/flocker--web-1\"],\"Labels\":null},"
        "{\"Id\":5},7,null]",
        &list);

    assert_int_equal(n, 2);
    assert_string_equal(list[0].id, ID);
    assert_string_equal(list[0].name, "web-1");
    assert_true(list[0].created == UINT64_MAX);
    for (size_t i = 0; i < n; i++)
        docker_container_done(&list[i]);
    free(list);
    assert_int_equal(parse_list("[]", &list), 0);
    free(list);
    assert_int_equal(parse_list("{}", &list), SIZE_MAX);
    assert_int_equal(parse_list("", &list), SIZE_MAX);
    /* An id goes into paths: nothing but hexadecimal digits. */
    assert_int_equal(parse_list("[{\"Id\":\"../../images/x\",\"Names\":[\"/flocker--web-1\"],"
                                "\"Labels\":" LABELS "}]",
                                &list),
                     SIZE_MAX);
    assert_int_equal(parse_list("[{\"Id\":\"" ID "0\",\"Names\":[\"/flocker--web-1\"],"
                                "\"Labels\":" LABELS "}]",
                                &list),
                     SIZE_MAX);
}

static bool parse_inspect(const char *state, struct docker_container *ret)
{
    CLEANUP_FREE char *text = xasprintf(
        "{\"Id\":\"%s\",\"Name\":\"/flocker--web-1\",\"Config\":{\"Labels\":%s},\"State\":%s}", ID,
        LABELS, state);
    struct uuid id = cluster();
    struct err *e = docker_parse_inspect(text, strlen(text), &id, ret);

    assert_true(!e || e->code == ERR_CORRUPT);
    bool ok = !e;
    (void)err_free(e);
    return ok;
}

static void test_inspect(void **state)
{
    static const struct {
        const char *state;
        enum container_run run;
        int exit_code;
        pid_t pid;
    } cases[] = {
        {"{\"Status\":\"running\",\"Running\":true,\"Pid\":17,\"ExitCode\":0}", CONTAINER_RUNNING,
         0, 17},
        {"{\"Status\":\"paused\",\"Running\":true,\"Paused\":true,\"Pid\":17,\"ExitCode\":0}",
         CONTAINER_RUNNING, 0, 17},
        {"{\"Status\":\"restarting\",\"Running\":false,\"Restarting\":true,\"Pid\":0,\"ExitCode\":"
         "1}",
         CONTAINER_RUNNING, 1, 0},
        {"{\"Status\":\"removing\",\"Running\":false,\"Pid\":9,\"ExitCode\":1}", CONTAINER_RUNNING,
         1, 9},
        {"{\"Status\":\"created\",\"Running\":false,\"Pid\":0,\"ExitCode\":0}", CONTAINER_CREATED,
         0, 0},
        {"{\"Status\":\"configured\",\"Running\":false,\"Pid\":0,\"ExitCode\":0}",
         CONTAINER_CREATED, 0, 0},
        {"{\"Status\":\"exited\",\"Running\":false,\"Pid\":0,\"ExitCode\":137}", CONTAINER_EXITED,
         137, 0},
        {"{\"Status\":\"dead\",\"Running\":false,\"Dead\":true,\"Pid\":0,\"ExitCode\":-1}",
         CONTAINER_EXITED, -1, 0},
    };
    static const char *const bad[] = {
        "null",
        "[]",
        "{}",
        "{\"Running\":1,\"Pid\":0,\"ExitCode\":0}",
        "{\"Running\":false,\"Pid\":99999999999,\"ExitCode\":0}",
        "{\"Running\":false,\"Pid\":0,\"ExitCode\":\"0\"}",
        "{\"Running\":false,\"Pid\":0}",
    };
    struct docker_container c;

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_true(parse_inspect(cases[i].state, &c));
        assert_true(c.ours);
        assert_int_equal(c.run, cases[i].run);
        assert_int_equal(c.exit_code, cases[i].exit_code);
        assert_int_equal(c.pid, cases[i].pid);
        docker_container_done(&c);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(parse_inspect(bad[i], &c));
}

static struct err *pull_line(const char *text)
{
    return docker_parse_pull_line(text, strlen(text));
}

static void test_pull_lines(void **state)
{
    assert_null(pull_line("{\"status\":\"Pulling from x\",\"id\":\"1\"}"));
    assert_null(pull_line("{\"status\":\"error is only a word here\"}"));
    assert_err(
        pull_line(
            "{\"errorDetail\":{\"message\":\"manifest unknown\"},\"error\":\"manifest unknown\"}"),
        ERR_NOT_FOUND, "manifest unknown");
    assert_err(pull_line("{\"errorDetail\":{\"code\":401,\"message\":\"nope\"}}"), ERR_DENIED,
               "nope");
    assert_err(pull_line("{\"error\":\"write /x: no space left on device\"}"), ERR_NO_SPACE, "");
    assert_err(pull_line("{\"error\":\"dial tcp: lookup r: no such host\"}"), ERR_UNAVAILABLE,
               "lookup");
    assert_err(pull_line("{\"errorDetail\":{}}"), ERR_UNAVAILABLE, "no reason");
    assert_err(pull_line("{\"error\":\" \"}"), ERR_UNAVAILABLE, "no reason");
    assert_err(pull_line("rubbish"), ERR_CORRUPT, "JSON");
    assert_err(pull_line("[]"), ERR_CORRUPT, "JSON");
    assert_err(
        docker_pull_error(
            404,
            "pull access denied for x, repository does not exist or may require 'docker login'",
            "x:1"),
        ERR_NOT_FOUND, "x:1");
    assert_err(docker_pull_error(
                   500,
                   "Get \"https://r/v2/\": dial tcp 1.2.3.4:443: connect: network is unreachable",
                   "x:1"),
               ERR_UNAVAILABLE, "unreachable");
    assert_err(docker_pull_error(500, "Get \"http://r/v2/\": no basic auth credentials", "x:1"),
               ERR_DENIED, "log in");
}

static void test_events(void **state)
{
    static const struct {
        const char *text;
        bool matters;
    } cases[] = {
        {"{\"Type\":\"container\",\"Action\":\"start\"}", true},
        {"{\"Type\":\"container\",\"Action\":\"die\"}", true},
        {"{\"Type\":\"container\",\"Action\":\"exec_start: sh -c die\"}", false},
        {"{\"Type\":\"container\",\"Action\":\"health_status: healthy\"}", true},
        {"{\"Type\":\"image\",\"Action\":\"remove\"}", false},
        {"{\"Action\":7}", false},
        {"{", false},
        {"null", false},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_int_equal(docker_parse_event_matters(cases[i].text, strlen(cases[i].text)),
                         cases[i].matters);
}

static void test_messages(void **state)
{
    static const char *const none[] = {"",      "{}", "[]", "{\"message\":\"\"}", "{\"message\":5}",
                                       "<html>"};
    struct str big = {0};

    for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
        CLEANUP_FREE char *text = docker_parse_message(none[i], strlen(none[i]));
        assert_string_equal(text, "the engine gives no reason");
    }
    str_append(&big, "{\"message\":\" ");
    for (int i = 0; i < 3000; i++)
        str_append(&big, "ü");
    str_append(&big, "\\n\"}");
    CLEANUP_FREE char *text = docker_parse_message(big.data, big.len);
    assert_true(strlen(text) <= DOCKER_MESSAGE_MAX);
    assert_true(str_is_utf8(text, strlen(text)));
    str_done(&big);
}

static void test_start_errors(void **state)
{
    struct port ports[] = {{80, 80}, {81, 8080}};
    struct container c = {.name = (char *)(uintptr_t) "web",
                          .image = (char *)(uintptr_t) "x:1",
                          .ports = ports,
                          .n_ports = 2};

    assert_err(docker_start_error(500, "listen tcp4 0.0.0.0:8080: bind: address already in use", &c,
                                  false),
               ERR_BUSY, "port 8080 of");
    assert_err(
        docker_start_error(500, "Bind for 0.0.0.0:80 failed: port is already allocated", &c, false),
        ERR_BUSY, "port 80 of");
    assert_err(
        docker_start_error(
            500, "failed to bind host port for 0.0.0.0:9:172.17.0.2:9/tcp: address already in use",
            &c, false),
        ERR_BUSY, "a port of");
    assert_err(docker_start_error(404, "No such image: x:1", &c, true), ERR_NOT_FOUND, "x:1");
    assert_err(docker_start_error(404, "No such container", &c, false), ERR_CONFLICT, "removed");
    assert_true(docker_is_absent(404, "No such container: x"));
    assert_true(docker_is_absent(500, "container x does not exist in database: no such container"));
    assert_false(docker_is_absent(500, "database is locked"));
    assert_err(docker_start_error(500, "write: no space left on device", &c, true), ERR_NO_SPACE,
               "");
    assert_err(docker_start_error(500, "boom", &c, true), ERR_IO, "boom");
}

/* Aliases and other applications, all on this node's address: every node answers every port. */
static void test_hosts(void **state)
{
    struct uuid id = cluster();
    struct container *c = container_new("web");
    char *const names[] = {(char *)"db-1", (char *)"CACHE", (char *)"what:ever"};
    struct container_start s = {.config = c, .cluster = id, .era = id, .host = "10.0.0.7", .names = names, .n_names = 3};
    CLEANUP_FREE char *text = NULL, *bare = NULL;

    c->image = xstrdup("x:1");
    c->n_links = 2;
    c->links = xcalloc(2, sizeof(*c->links));
    c->links[0] = (struct link){xstrdup("cache"), 6379, 16379};
    c->links[1] = (struct link){xstrdup("cache"), 6380, 16380};
    assert_null(docker_render_create(&s, false, &text));
    assert_non_null(strstr(text, "\"ExtraHosts\":[\"cache:10.0.0.7\",\"db-1:10.0.0.7\"]"));
    c->n_links = 0;
    free(c->links[0].alias);
    free(c->links[1].alias);
    s.n_names = 0;
    assert_null(docker_render_create(&s, false, &bare));
    assert_null(strstr(bare, "ExtraHosts"));
    (void)container_free(c);
}

static void test_create(void **state)
{
    struct uuid id = cluster();
    struct container *c = container_new("web-1");
    struct container_start s = {.config = c, .cluster = id, .era = id, .mount_root = "/flocker"};
    CLEANUP_FREE char *plain = NULL, *selinux = NULL;

    c->image = xstrdup("x:1");
    container_add_volume(c, &id, "/data", false);
    assert_null(docker_render_create(&s, false, &plain));
    CLEANUP_FREE char *mounts =
        xasprintf("\"Mounts\":[{\"Type\":\"bind\",\"Source\":\"/flocker/%s\",\"Target\":\"/data\","
                  "\"BindOptions\":{\"Propagation\":\"rprivate\"}}]",
                  UUID_STR(&id));
    assert_non_null(strstr(plain, mounts));
    assert_null(strstr(plain, "Binds"));
    assert_null(strstr(plain, "Cmd"));
    assert_null(strstr(plain, "Memory"));
    assert_null(docker_render_create(&s, true, &selinux));
    CLEANUP_FREE char *binds = xasprintf("\"Binds\":[\"/flocker/%s:/data:Z\"]", UUID_STR(&id));
    assert_non_null(strstr(selinux, binds));
    assert_null(strstr(selinux, "Mounts"));
    assert_null(strstr(plain, "Entrypoint"));
    assert_null(strstr(plain, "Healthcheck"));
    assert_null(strstr(plain, "\"User\""));
    assert_null(strstr(plain, "StopTimeout"));
    char *never = NULL;
    s.mount_root = NULL;
    assert_err(docker_render_create(&s, false, &never), ERR_INVALID, "not mounted");
    s.mount_root = "/flocker/\xff";
    assert_err(docker_render_create(&s, false, &never), ERR_INVALID, "UTF-8");
    assert_null(never);
    (void)container_free(c);
}

static void test_create_with_several_volumes(void **state)
{
    const struct uuid id = cluster(), second = {{2}};
    struct container *c = container_new("web-1");
    struct container_start s = {.config = c, .cluster = id, .era = id, .mount_root = "/flocker"};
    CLEANUP_FREE char *plain = NULL, *selinux = NULL;
    char *never = NULL;

    c->image = xstrdup("x:1");
    container_add_volume(c, &id, "/data", false);
    container_add_volume(c, &second, "/data/fixed", true);
    assert_null(docker_render_create(&s, false, &plain));
    assert_non_null(
        strstr(plain, "\"Target\":\"/data\",\"BindOptions\":{\"Propagation\":\"rprivate\"}},{"));
    assert_non_null(strstr(
        plain, "\"Target\":\"/data/"
               "fixed\",\"BindOptions\":{\"Propagation\":\"rprivate\"},\"ReadOnly\":true}]"));
    assert_null(docker_render_create(&s, true, &selinux));
    assert_non_null(strstr(selinux, ":/data:Z\",\""));
    assert_non_null(strstr(selinux, ":/data/fixed:Z,ro\"]"));
    container_add_volume(c, &(struct uuid){{3}}, "/a:b", true);
    assert_err(docker_render_create(&s, true, &never), ERR_INVALID, "with SELinux");
    container_add_volume(c, &(struct uuid){{4}}, "/\xff", true);
    assert_err(docker_render_create(&s, false, &never), ERR_INVALID, "UTF-8");
    assert_null(never);
    (void)container_free(c);
}

static void test_create_extended(void **state)
{
    struct uuid id = cluster();
    struct container *c = container_new("web-1");
    struct container_start s = {.config = c, .cluster = id, .era = id};
    CLEANUP_FREE char *text = NULL, *off = NULL;

    c->image = xstrdup("x:1");
    container_extend(c);
    assert_null(docker_render_create(&s, false, &text));
    assert_non_null(strstr(text, "\"Entrypoint\":[\"tini\",\"--\"]"));
    assert_non_null(strstr(text, "\"User\":\"70:70\""));
    assert_non_null(strstr(text, "\"WorkingDir\":\"/srv/"));
    assert_non_null(strstr(text, "\"StopSignal\":\"SIGQUIT\""));
    assert_non_null(strstr(text, "\"StopTimeout\":91"));
    assert_non_null(strstr(text, "\"io.flocker.stop-timeout\":\"91\""));
    char spec[CONTAINER_SPEC_SIZE];
    container_spec(c, spec);
    CLEANUP_FREE char *label = xasprintf("\"io.flocker.spec\":\"%s\"", spec);
    assert_non_null(strstr(text, label));
    assert_non_null(strstr(text, "\"tier\":\"db\""));
    assert_non_null(strstr(text, "\"NanoCpus\":1500000000"));
    assert_non_null(strstr(text, "\"Healthcheck\":{\"Test\":[\"CMD\",\"pg_isready\"],\"Interval\":5000000000,"
                                 "\"Timeout\":2500000000,\"StartPeriod\":60000000000,\"Retries\":3}"));
    for (size_t i = 0; i < c->n_entrypoint; i++)
        free(c->entrypoint[i]);
    c->n_entrypoint = 0;
    c->health->disabled = true;
    assert_null(docker_render_create(&s, false, &off));
    assert_non_null(strstr(off, "\"Entrypoint\":[\"\"]"));
    assert_non_null(strstr(off, "\"Healthcheck\":{\"Test\":[\"NONE\"]}"));
    (void)container_free(c);
}

static char *logs_of(const char *body, size_t n)
{
    char *text = docker_parse_logs(body, n);

    assert_true(!text || (strlen(text) <= DOCKER_LOG_BYTES && str_is_utf8(text, strlen(text))));
    return text;
}

static void test_logs(void **state)
{
    static const struct {
        const char *body;
        size_t n;
        const char *text; /* NULL = nothing */
    } cases[] = {
#define LOG(body, text) {body, sizeof(body) - 1, text}
        LOG("", NULL),
        LOG("\n\r\n  \n", NULL),
        LOG("\1\0\0\0\0\0\0\4one\n\2\0\0\0\0\0\0\4two\n", "one | two"),
        LOG("\1\0\0\0\0\0\0\2on\1\0\0\0\0\0\0\2e\n", "one"), /* one line in two frames */
        LOG("\2\0\0\0\377\377\377\377cut", "cut"),                  /* longer than what came */
        LOG("\2\0\0", "???"),
        LOG("of a terminal\r\n", "of a terminal"),
        LOG("1\n2\n3\n4\n5\n6\n7\n", "3 | 4 | 5 | 6 | 7"),
        LOG("\33[31mred\33[0m\33", "red"),
        LOG("a\tb\7\177 \302\205 \303\251 \377\303", "a b?? ?? \303\251 ??"),
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_FREE char *text = logs_of(cases[i].body, cases[i].n);

        if (!cases[i].text)
            assert_null(text);
        else
            assert_string_equal(text ? text : "", cases[i].text);
    }
    CLEANUP_STR struct str lines = {0};
    for (int i = 0; i < 300; i++)
        str_append(&lines, "\303\251");
    str_append(&lines, "\nthe end\n");
    CLEANUP_FREE char *text = logs_of(lines.data, lines.len);
    assert_true(strlen(text) > DOCKER_LOG_BYTES - 4);
    assert_true(str_has_prefix(text, "\303\251"));
    assert_non_null(strstr(text, "\303\251 | the end"));
}

static void test_health(void **state)
{
    static const struct {
        const char *state;
        enum container_health health;
    } cases[] = {
        {"{\"Running\":true,\"ExitCode\":0,\"Pid\":1}", HEALTH_NONE},
        {"{\"Running\":true,\"ExitCode\":0,\"Pid\":1,\"Health\":null}", HEALTH_NONE},
        {"{\"Running\":true,\"ExitCode\":0,\"Pid\":1,\"Health\":{\"Status\":\"none\"}}", HEALTH_NONE},
        {"{\"Running\":true,\"ExitCode\":0,\"Pid\":1,\"Health\":{\"Status\":\"starting\"}}", HEALTH_STARTING},
        {"{\"Running\":true,\"ExitCode\":0,\"Pid\":1,\"Health\":{\"Status\":\"healthy\"}}", HEALTH_HEALTHY},
        {"{\"Running\":true,\"ExitCode\":0,\"Pid\":1,\"Healthcheck\":{\"Status\":\"unhealthy\"}}", HEALTH_UNHEALTHY},
        {"{\"Running\":true,\"ExitCode\":0,\"Pid\":1,\"Health\":{\"Status\":7}}", HEALTH_NONE},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct docker_container c;

        assert_true(parse_inspect(cases[i].state, &c));
        assert_int_equal(c.health, cases[i].health);
        assert_string_equal(c.spec, ""); /* an older agent made it */
        assert_int_equal(c.stop_timeout_s, 0);
        docker_container_done(&c);
    }
    static const char event[] = "{\"Type\":\"container\",\"Action\":\"health_status: healthy\"}";
    assert_true(docker_parse_event_matters(event, strlen(event)));
}

static void test_layers(void **state)
{
    static const struct {
        const char *line;
        uint64_t bytes, total;
    } steps[] = {
        {"{\"status\":\"Pulling from x\",\"id\":\"1\"}", 0, 0},
        {"{\"status\":\"Downloading\",\"progressDetail\":{\"current\":10,\"total\":100},\"id\":\"aaaaaaaaaaaa\"}", 10, 100},
        {"{\"status\":\"Downloading\",\"progressDetail\":{\"current\":5,\"total\":50},\"id\":\"bbbbbbbbbbbb\"}", 15, 150},
        {"{\"status\":\"Downloading\",\"progressDetail\":{\"current\":90,\"total\":100},\"id\":\"aaaaaaaaaaaa\"}", 95, 150},
        {"{\"status\":\"Download complete\",\"progressDetail\":{},\"id\":\"aaaaaaaaaaaa\"}", 105, 150},
        {"{\"status\":\"Extracting\",\"progressDetail\":{\"current\":1,\"total\":100},\"id\":\"aaaaaaaaaaaa\"}", 105, 150},
        {"{\"status\":\"Downloading\",\"progressDetail\":{\"current\":-1,\"total\":50},\"id\":\"cc\"}", 105, 150},
        {"{\"status\":\"Downloading\",\"progressDetail\":{\"current\":60,\"total\":50},\"id\":\"cc\"}", 105, 150},
        {"{\"status\":\"Downloading\",\"progressDetail\":{\"current\":1,\"total\":9},\"id\":\"much too long a name\"}", 105, 150},
        {"[", 105, 150},
        {"", 105, 150},
    };
    CLEANUP(docker_layers_done) struct docker_layers layers = {0};

    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        uint64_t bytes, total;

        docker_layers_take(&layers, steps[i].line, strlen(steps[i].line), &bytes, &total);
        assert_int_equal(bytes, steps[i].bytes);
        assert_int_equal(total, steps[i].total);
    }
}

static void test_images(void **state)
{
    static const struct {
        const char *image, *repository, *tag, *registry; /* repository NULL = refused */
    } cases[] = {
        {"nginx:1.25", "nginx", "1.25", "index.docker.io"},
        {"nginx", "nginx", "latest", "index.docker.io"},
        {"docker.io/library/nginx:1", "docker.io/library/nginx", "1", "index.docker.io"},
        {"reg:5000/a/b", "reg:5000/a/b", "latest", "reg:5000"},
        {"localhost/a:2", "localhost/a", "2", "localhost"},
        {"a.example/b@sha256:" ID, "a.example/b", "sha256:" ID, "a.example"},
        {"", NULL, NULL, NULL},
        {":1", NULL, NULL, NULL},
        {"a:", NULL, NULL, NULL},
        {"a@", NULL, NULL, NULL},
        {"../x", NULL, NULL, NULL},
        {"a/../../x:1", NULL, NULL, NULL},
        {"a//b", NULL, NULL, NULL},
        {"a b", NULL, NULL, NULL},
        {"a?x=1", NULL, NULL, NULL},
        {"a#b", NULL, NULL, NULL},
        {"a%2fb", NULL, NULL, NULL},
        {"a\nb", NULL, NULL, NULL},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_FREE char *repository = NULL, *tag = NULL;
        struct err *e = docker_image_split(cases[i].image, &repository, &tag);

        if (!cases[i].repository) {
            assert_err(e, ERR_INVALID, "no name");
            continue;
        }
        assert_null(e);
        assert_string_equal(repository, cases[i].repository);
        assert_string_equal(tag, cases[i].tag);
        CLEANUP_FREE char *registry = docker_image_registry(cases[i].image);
        assert_string_equal(registry, cases[i].registry);
    }
}

static void test_registry_auth(void **state)
{
    /* "me:secret" and "a:b:c" */
    static const char config[] =
        "{\"auths\":{\"https://index.docker.io/v1/\":{\"auth\":\"bWU6c2VjcmV0\"},"
        "\"reg:5000\":{\"auth\":\"YTpiOmM=\"},\"tok.example\":{\"identitytoken\":\"T\"},"
        "\"bad.example\":{\"auth\":\"***\"},\"none.example\":{},\"odd.example\":7}}";
    static const char *const none[] = {"other.example", "bad.example", "none.example",
                                       "odd.example",   "reg:500",     "reg"};

    CLEANUP_FREE char *hub = docker_registry_auth(config, strlen(config), "index.docker.io");
    /* {"username":"me","password":"secret","serveraddress":"index.docker.io"} */
    assert_string_equal(hub, "eyJ1c2VybmFtZSI6Im1lIiwicGFzc3dvcmQiOiJzZWNyZXQiLCJzZXJ2ZXJhZGRyZXNzI"
                             "joiaW5kZXguZG9ja2VyLmlvIn0=");
    CLEANUP_FREE char *reg = docker_registry_auth(config, strlen(config), "reg:5000");
    /* {"username":"a","password":"b:c","serveraddress":"reg:5000"} */
    assert_string_equal(
        reg, "eyJ1c2VybmFtZSI6ImEiLCJwYXNzd29yZCI6ImI6YyIsInNlcnZlcmFkZHJlc3MiOiJyZWc6NTAwMCJ9");
    CLEANUP_FREE char *token = docker_registry_auth(config, strlen(config), "tok.example");
    assert_non_null(token);
    for (size_t i = 0; i < ARRAY_SIZE(none); i++)
        assert_null(docker_registry_auth(config, strlen(config), none[i]));
    assert_null(docker_registry_auth("", 0, "x"));
    assert_null(docker_registry_auth("{", 1, "x"));
    assert_null(docker_registry_auth("{\"auths\":[]}", 12, "x"));
}

static struct err *collect(void *cookie, const char *line, size_t n)
{
    str_append_bytes(cookie, line, n);
    str_append(cookie, "|");
    return NULL;
}

static void test_lines(void **state)
{
    static const char text[] = "one\r\n\n\ntwo\nthree";
    struct str out = {0};
    struct docker_lines l = {0};

    for (size_t i = 0; i < sizeof(text) - 1; i++)
        assert_null(docker_lines_feed(&l, text + i, 1, collect, &out));
    assert_string_equal(out.data, "one|two|");
    str_done(&out);
    str_done(&l.rest);
    struct err *e = NULL;
    CLEANUP_FREE char *big = xcalloc(1, 65536);
    memset(big, 'x', 65536);
    for (int i = 0; i < 17 && !e; i++)
        e = docker_lines_feed(&l, big, 65536, collect, &out);
    assert_err(e, ERR_CORRUPT, "line");
    str_done(&l.rest);
}

/* Damaged documents: refused or understood, never a crash (run with sanitizers). */
static void test_damaged(void **state)
{
    static const char good[] =
        "[{\"Id\":\"" ID "\",\"Names\":[\"/flocker--web-1\"],\"Labels\":" LABELS
        ",\"State\":{\"Running\":false,\"Pid\":0,\"ExitCode\":1}}]";
    uint64_t seed = 11;
    struct random r = random_seeded(&seed);
    struct uuid id = cluster();

    for (int i = 0; i < 20000; i++) {
        char text[sizeof(good)];
        size_t n = sizeof(good) - 1, count = 0;
        struct docker_container *list = NULL, c = {0};

        memcpy(text, good, sizeof(good));
        for (uint64_t k = random_below(&r, 4); k; k--)
            text[random_below(&r, n)] = (char)random_below(&r, 256);
        if (random_below(&r, 4) == 0)
            n = random_below(&r, n);
        (void)err_free(docker_parse_list(text, n, &id, &list, &count));
        for (size_t k = 0; list && k < count; k++)
            docker_container_done(&list[k]);
        free(list);
        (void)err_free(n ? docker_parse_inspect(text + 1, n - 1, &id, &c) : NULL);
        docker_container_done(&c);
        (void)err_free(docker_parse_pull_line(text, n));
        (void)docker_parse_event_matters(text, n);
        free(docker_parse_message(text, n));
        free(docker_registry_auth(text, n, "x"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_version),
        cmocka_unit_test(test_hosts),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_inspect),
        cmocka_unit_test(test_pull_lines),
        cmocka_unit_test(test_events),
        cmocka_unit_test(test_messages),
        cmocka_unit_test(test_start_errors),
        cmocka_unit_test(test_create),
        cmocka_unit_test(test_create_with_several_volumes),
        cmocka_unit_test(test_create_extended),
        cmocka_unit_test(test_logs),
        cmocka_unit_test(test_health),
        cmocka_unit_test(test_layers),
        cmocka_unit_test(test_images),
        cmocka_unit_test(test_registry_auth),
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_damaged),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
