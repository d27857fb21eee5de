/* The container engine against a real Docker daemon of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/now.h"
#include "base/str.h"
#include "docker_fixture.h"
#include "engines/docker_api.h"
#include "engines/docker_watch.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct uuid cluster = {{1, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16}};
static const struct uuid other = {{9, 2, 3, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16}};
static const struct uuid era = {{7, 7, 7, 4, 5, 6, 0x47, 8, 0x89, 10, 11, 12, 13, 14, 15, 16}};
static struct container_engine *engine;
static const char *source_dir;

/* A script that ends at SIGTERM, as a well-behaved service does. */
#define SERVICE "trap 'exit 3' TERM; while :; do sleep 0.05; done"

#define assert_ok(expr)                                                                            \
    do {                                                                                           \
        struct err *ok_e_ = (expr);                                                                \
        if (ok_e_)                                                                                 \
            fail_msg("%s: %s", #expr, ok_e_->text);                                                \
    } while (0)

static void check_err(struct err *e, enum err_code code, const char *word, const char *expr)
{
    if (!e)
        fail_msg("%s succeeded", expr);
    else if (e->code != code || !strstr(e->text, word))
        fail_msg("%s: %s: %s", expr, err_code_name(e->code), e->text);
    (void)err_free(e);
}
#define assert_err(expr, code, word) check_err((expr), (code), (word), #expr)

static void set_command(struct container *c, const char *script)
{
    c->has_command_line = true;
    c->n_command_line = 3;
    c->command_line = xcalloc(3, sizeof(char *));
    c->command_line[0] = xstrdup("/bin/sh");
    c->command_line[1] = xstrdup("-c");
    c->command_line[2] = xstrdup(script);
}

static struct container *config(const char *name, const char *script)
{
    struct container *c = container_new(name);

    c->image = xstrdup(TEST_IMAGE);
    c->created = 5;
    set_command(c, script);
    return c;
}

static void add_port(struct container *c, uint16_t internal, uint16_t external)
{
    c->ports = xrealloc(c->ports, c->n_ports + 1, sizeof(*c->ports));
    c->ports[c->n_ports++] = (struct port){internal, external};
}

static void add_environment(struct container *c, const char *name, const char *value)
{
    c->environment = xrealloc(c->environment, c->n_environment + 1, sizeof(*c->environment));
    c->environment[c->n_environment++] = (struct env_entry){xstrdup(name), xstrdup(value)};
}

static char *make_dir(const char *name)
{
    char *path = xasprintf("%s/%s", fixture.dir, name);

    assert_int_equal(mkdir(path, 0755), 0);
    return path;
}

/* A dataset under fixture.dir, and its place in the container; the caller frees the path. */
static char *make_volume(struct container *c, uint8_t number, const char *mountpoint,
                         bool read_only)
{
    const struct uuid dataset = {{number}};

    container_add_volume(c, &dataset, mountpoint, read_only);
    return make_dir(UUID_STR(&dataset));
}

static struct err *start(const struct container *c, const char *mount_root)
{
    struct container_start s = {
        .config = c, .cluster = cluster, .era = era, .mount_root = mount_root, .host = "192.0.2.7"};

    return container_engine_start_sync(engine, &s);
}

/* The state of one container; CONTAINER_ABSENT when it is not listed. */
static struct container_state look(const char *name)
{
    struct container_state *states, found = {0};
    size_t n;

    assert_ok(container_engine_list_sync(engine, &cluster, &states, &n));
    for (size_t i = 0; i < n; i++) {
        if (streq(states[i].name, name)) {
            found = states[i];
            found.name = NULL;
        }
        container_state_done(&states[i]);
    }
    free(states);
    return found;
}

static void wait_run(const char *name, enum container_run run)
{
    for (int i = 0; i < 200 && look(name).run != run; i++)
        fixture_sleep_ms(25);
    assert_int_equal(look(name).run, run);
}

static void stop(const char *name)
{
    assert_ok(container_engine_stop_sync(engine, name, &cluster, 5));
    assert_int_equal(look(name).run, CONTAINER_ABSENT);
}

static json_t *inspect(const char *engine_name)
{
    CLEANUP_FREE char *path = xasprintf("/containers/%s/json", engine_name), *body = NULL;

    if (fixture_call("GET", path, NULL, &body) != 200)
        return NULL;
    json_t *j = json_loads(body, 0, NULL);
    assert_non_null(j);
    return j;
}

static json_t *at(json_t *j, const char *a, const char *b)
{
    j = json_object_get(j, a);
    return b ? json_object_get(j, b) : j;
}

/* Counts processes (in the test's pid namespace) whose command line has `mark`. */
static int count_processes(const char *mark)
{
    DIR *d = opendir("/proc");
    const struct dirent *entry;
    int n = 0;

    assert_non_null(d);
    while ((entry = readdir(d))) {
        char path[300], text[4096];

        if (!isdigit((unsigned char)entry->d_name[0]))
            continue;
        (void)snprintf(path, sizeof(path), "/proc/%s/cmdline", entry->d_name);
        CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t got = fd < 0 ? -1 : read(fd, text, sizeof(text));
        if (got > 0 && memmem(text, (size_t)got, mark, strlen(mark)))
            n++;
    }
    (void)closedir(d);
    return n;
}

/* "Running" is said when the runtime has been told to start; the command itself is there a moment later. */
static bool appears(const char *mark)
{
    uint64_t end = now_os().mono_us + 20 * USEC_PER_SEC;

    while (!count_processes(mark)) {
        if (now_os().mono_us > end)
            return false;
        (void)usleep(5000);
    }
    return true;
}

static void write_file(const char *dir, const char *name, const char *text)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", dir, name);
    FILE *f = fopen(path, "we");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static char *read_file(const char *dir, const char *name)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", dir, name);
    char *text = xcalloc(1, 16384);

    for (int i = 0; i < 200; i++) { /* the container writes it in its own time */
        CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t n = fd < 0 ? -1 : read(fd, text, 16383);

        if (n > 0)
            return text;
        fixture_sleep_ms(25);
    }
    fail_msg("%s/%s does not appear", dir, name);
    return text;
}

/* GET http://127.0.0.1:port/file, whole answer. */
static char *http_get(uint16_t port, const char *file)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};
    CLEANUP_FREE char *request = xasprintf("GET /%s HTTP/1.0\r\n\r\n", file);
    struct str answer = {0};

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < 100 && !answer.len; i++) {
        CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct timeval limit = {.tv_sec = 5};
        char buf[1024];
        ssize_t n;

        (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
        if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 &&
            send(fd, request, strlen(request), MSG_NOSIGNAL) > 0) {
            while ((n = recv(fd, buf, sizeof(buf), 0)) > 0)
                str_append_bytes(&answer, buf, (size_t)n);
        }
        if (!answer.len)
            fixture_sleep_ms(25);
    }
    return str_steal(&answer);
}

static void test_start_stop(void **state)
{
    struct container *c = config("web-1", "echo mark-web; " SERVICE);
    bool present = false;

    assert_ok(container_engine_has_image_sync(engine, TEST_IMAGE, &present));
    assert_true(present);
    assert_ok(container_engine_has_image_sync(engine, "nosuch:1", &present));
    assert_false(present);
    assert_int_equal(look("web-1").run, CONTAINER_ABSENT);
    assert_ok(container_engine_stop_sync(engine, "web-1", &cluster, 1)); /* absent: no effect */

    assert_ok(start(c, NULL));
    assert_int_equal(look("web-1").run, CONTAINER_RUNNING);
    assert_int_equal(look("web-1").created, 5);
    struct uuid found = look("web-1").era;
    assert_true(uuid_eq(&found, &era));
    json_t *before = inspect("flocker--web-1");
    json_t *labels = at(before, "Config", "Labels");
    assert_string_equal(json_string_value(json_object_get(labels, "io.flocker.cluster")),
                        UUID_STR(&cluster));
    assert_string_equal(json_string_value(json_object_get(labels, "io.flocker.container")),
                        "web-1");
    assert_string_equal(json_string_value(json_object_get(labels, "io.flocker.created")), "5");
    assert_string_equal(json_string_value(json_object_get(labels, "io.flocker.era")),
                        UUID_STR(&era));
    assert_string_equal(
        json_string_value(json_object_get(at(before, "HostConfig", "RestartPolicy"), "Name")),
        "no");

    assert_ok(start(c, NULL)); /* no effect */
    json_t *after = inspect("flocker--web-1");
    assert_true(json_equal(at(before, "Id", NULL), at(after, "Id", NULL)));
    assert_true(json_equal(at(before, "State", "StartedAt"), at(after, "State", "StartedAt")));
    c->created = 6;
    assert_err(start(c, NULL), ERR_CONFLICT, "revision 5");
    /* Another cluster's order does not touch it. */
    assert_ok(container_engine_stop_sync(engine, "web-1", &other, 1));
    assert_int_equal(look("web-1").run, CONTAINER_RUNNING);
    assert_true(appears("mark-web"));
    stop("web-1");
    assert_int_equal(count_processes("mark-web"), 0);
    assert_null(inspect("flocker--web-1"));
    stop("web-1"); /* again: no effect */
    json_decref(before);
    json_decref(after);
    (void)container_free(c);
}

static void test_exit_codes(void **state)
{
    struct container *c = config("job", "exit 7");

    assert_ok(start(c, NULL));
    wait_run("job", CONTAINER_EXITED);
    assert_int_equal(look("job").exit_code, 7);
    json_t *before = inspect("flocker--job");
    assert_ok(start(c, NULL)); /* an exited one is replaced */
    json_t *after = inspect("flocker--job");
    assert_false(json_equal(at(before, "Id", NULL), at(after, "Id", NULL)));
    wait_run("job", CONTAINER_EXITED);
    stop("job");
    json_decref(before);
    json_decref(after);
    (void)container_free(c);
}

static void test_stubborn(void **state)
{
    struct container *c =
        config("stubborn", "trap '' TERM; (while :; do sleep 0.1; done; echo mark-stub) & "
                           "while :; do sleep 0.1; done; echo mark-stub");
    uint64_t began = now_os().mono_us;

    assert_ok(start(c, NULL));
    assert_true(appears("mark-stub"));
    assert_ok(container_engine_stop_sync(engine, "stubborn", &cluster, 1));
    assert_true(now_os().mono_us - began >= 900000);
    assert_int_equal(count_processes("mark-stub"), 0);
    assert_int_equal(look("stubborn").run, CONTAINER_ABSENT);

    /* A paused one counts as running and can be stopped. */
    assert_ok(start(c, NULL));
    assert_int_equal(fixture_call("POST", "/containers/flocker--stubborn/pause", NULL, NULL), 204);
    assert_int_equal(look("stubborn").run, CONTAINER_RUNNING);
    assert_ok(container_engine_stop_sync(engine, "stubborn", &cluster, 0));
    assert_int_equal(count_processes("mark-stub"), 0);
    assert_int_equal(look("stubborn").run, CONTAINER_ABSENT);
    (void)container_free(c);
}

static void test_ports_and_volume(void **state)
{
    struct container *c = config("httpd", "httpd -p 80 -h /srv; " SERVICE);
    struct container *d = config("second", SERVICE);
    CLEANUP_FREE char *dir = make_volume(c, 1, "/srv", false);

    /* A mount of its own, as a volume is. */
    assert_int_equal(mount("tmpfs", dir, "tmpfs", 0, NULL), 0);
    write_file(dir, "hello.txt", "from the volume");
    add_port(c, 80, 8088);
    add_port(c, 80, 8089);
    assert_ok(start(c, fixture.dir));
    CLEANUP_FREE char *one = http_get(8088, "hello.txt"), *two = http_get(8089, "hello.txt");
    assert_non_null(strstr(one, "from the volume"));
    assert_non_null(strstr(two, "from the volume"));

    add_port(d, 81, 9090);
    add_port(d, 80, 8088);
    assert_err(start(d, NULL), ERR_BUSY, "port 8088 of this node");
    assert_int_equal(look("second").run, CONTAINER_ABSENT);
    /* Taken by a program outside the engine. */
    CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(8099)};
    assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof(a)), 0);
    assert_int_equal(listen(fd, 1), 0);
    d->ports[1].external = 8099;
    assert_err(start(d, NULL), ERR_BUSY, "port 8099 of this node");
    d->ports[1].external = 0; /* any */
    assert_ok(start(d, NULL));
    stop("second");
    stop("httpd");
    assert_int_equal(umount(dir), 0); /* nothing holds it */

    /* Without its volume it does not start, and nothing is made in its place. */
    CLEANUP_FREE char *missing = xasprintf("%s/missing", fixture.dir);
    assert_err(start(c, missing), ERR_INVALID, "missing");
    assert_int_not_equal(access(missing, F_OK), 0);
    assert_err(start(c, NULL), ERR_INVALID, "not mounted");
    assert_int_equal(look("httpd").run, CONTAINER_ABSENT);
    (void)container_free(c);
    (void)container_free(d);
}

/* One inside the other, and one that cannot be written. */
static void test_several_volumes(void **state)
{
    struct container *c =
        config("several", "cat /a/in /a/b/in /ro/in > /a/new; touch /ro/x; echo $? >> /a/new; "
                          "touch /a/b/x && mv /a/new /a/out; " SERVICE);
    CLEANUP_FREE char *inner = make_volume(c, 2, "/a/b", false),
                      *outer = make_volume(c, 3, "/a", false),
                      *fixed = make_volume(c, 4, "/ro", true);

    write_file(outer, "in", "outer ");
    write_file(inner, "in", "inner ");
    write_file(fixed, "in", "fixed ");
    container_settle_volumes(c);
    assert_ok(start(c, fixture.dir));
    CLEANUP_FREE char *text = read_file(outer, "out");
    assert_string_equal(text, "outer inner fixed 1\n");
    CLEANUP_FREE char *x = xasprintf("%s/x", inner), *y = xasprintf("%s/x", fixed);
    assert_int_equal(access(x, F_OK), 0);
    assert_int_not_equal(access(y, F_OK), 0);
    stop("several");
    (void)container_free(c);
}

static void test_environment(void **state)
{
    struct container *c = config("env", "env > /data/new; mv /data/new /data/env; " SERVICE);
    CLEANUP_FREE char *dir = make_volume(c, 5, "/data", false);

    c->n_links = 1;
    c->links = xcalloc(1, sizeof(*c->links));
    c->links[0] = (struct link){xstrdup("db"), 5432, 15432};
    add_environment(c, "GREETING", "grüß = \"Gott\"\n2");
    add_environment(c, "DB_PORT_5432_TCP_PROTO", "udp");
    assert_ok(start(c, fixture.dir));
    CLEANUP_FREE char *text = read_file(dir, "env");
    assert_non_null(strstr(text, "GREETING=grüß = \"Gott\"\n2\n"));
    assert_non_null(strstr(text, "DB_PORT_5432_TCP=tcp://192.0.2.7:15432\n"));
    assert_non_null(strstr(text, "DB_PORT_5432_TCP_ADDR=192.0.2.7\n"));
    assert_non_null(strstr(text, "DB_PORT_5432_TCP_PORT=15432\n"));
    assert_non_null(strstr(text, "DB_PORT_5432_TCP_PROTO=udp\n"));
    assert_null(strstr(text, "PROTO=tcp"));
    stop("env");
    (void)container_free(c);
}

static void test_limits(void **state)
{
    struct container *c = config("limits", SERVICE);

    c->memory_limit = 64 * 1024 * 1024;
    c->cpu_shares = 300;
    c->swappiness = 10;
    assert_ok(start(c, NULL));
    json_t *j = inspect("flocker--limits");
    assert_int_equal(json_integer_value(at(j, "HostConfig", "Memory")), 64 * 1024 * 1024);
    assert_int_equal(json_integer_value(at(j, "HostConfig", "CpuShares")), 300);
    json_decref(j);
    stop("limits");
    c->memory_limit = 1024 * 1024; /* the API allows it, the engine does not */
    assert_err(start(c, NULL), ERR_INVALID, "memory");
    assert_int_equal(look("limits").run, CONTAINER_ABSENT);
    (void)container_free(c);
}

static void test_bad_settings(void **state)
{
    struct container *c = config("bad", SERVICE);

    free(c->command_line[0]);
    c->command_line[0] = xstrdup("/nonexistent");
    assert_err(start(c, NULL), ERR_INVALID, "/nonexistent");
    assert_int_equal(look("bad").run, CONTAINER_ABSENT); /* cleared away */
    free(c->image);
    c->image = xstrdup("nosuch:1");
    assert_err(start(c, NULL), ERR_NOT_FOUND, "image nosuch:1");
    free(c->image);
    c->image = xstrdup("../../x");
    assert_err(start(c, NULL), ERR_INVALID, "");
    bool present;
    assert_err(container_engine_has_image_sync(engine, "../../containers", &present), ERR_INVALID,
               "no name");
    (void)container_free(c);
}

#define FOREIGN                                                                                    \
    "{\"Image\":\"" TEST_IMAGE "\",\"Cmd\":[\"/bin/sh\",\"-c\",\"" SERVICE "\"],\"Labels\":{%s}}"

static void make_foreign(const char *name, const char *labels)
{
    CLEANUP_FREE char *path = xasprintf("/containers/create?name=%s", name);
    CLEANUP_FREE char *body = xasprintf(FOREIGN, labels);

    assert_int_equal(fixture_call("POST", path, body, NULL), 201);
}

static void remove_foreign(const char *name)
{
    CLEANUP_FREE char *path = xasprintf("/containers/%s?force=1", name);

    assert_int_equal(fixture_call("DELETE", path, NULL, NULL), 204);
}

static void test_foreign(void **state)
{
    struct container *c = config("mine", SERVICE);
    CLEANUP_FREE char *ours = xasprintf(
        "\"io.flocker.cluster\":\"%s\",\"io.flocker.container\":\"mine\"", UUID_STR(&cluster));
    CLEANUP_FREE char *theirs = xasprintf(
        "\"io.flocker.cluster\":\"%s\",\"io.flocker.container\":\"mine\"", UUID_STR(&other));
    const char *const labels[] = {"", theirs};

    for (size_t i = 0; i < ARRAY_SIZE(labels); i++) {
        make_foreign("flocker--mine", labels[i]);
        assert_err(start(c, NULL), ERR_EXISTS, "flocker--mine");
        assert_ok(container_engine_stop_sync(engine, "mine", &cluster, 0));
        assert_int_equal(look("mine").run, CONTAINER_ABSENT);
        json_t *j = inspect("flocker--mine");
        assert_non_null(j); /* untouched */
        json_decref(j);
        remove_foreign("flocker--mine");
    }
    /* Our labels under another name, as an image committed from our container hands them on. */
    make_foreign("copy", ours);
    assert_int_equal(look("mine").run, CONTAINER_ABSENT);
    assert_ok(start(c, NULL));
    stop("mine");
    json_t *j = inspect("copy");
    assert_non_null(j);
    json_decref(j);
    remove_foreign("copy");
    (void)container_free(c);
}

static void test_half_made(void **state)
{
    struct container *c = config("half", SERVICE);
    CLEANUP_FREE char *labels =
        xasprintf("\"io.flocker.cluster\":\"%s\",\"io.flocker.container\":\"half\","
                  "\"io.flocker.created\":\"4\"",
                  UUID_STR(&cluster));

    make_foreign("flocker--half", labels);
    assert_int_equal(look("half").run, CONTAINER_CREATED);
    assert_int_equal(look("half").created, 4);
    assert_ok(start(c, NULL));
    assert_int_equal(look("half").run, CONTAINER_RUNNING);
    assert_int_equal(look("half").created, 5);
    stop("half");
    make_foreign("flocker--half", labels);
    stop("half"); /* a created one is removed too */
    (void)container_free(c);
}

static atomic_int changes;

static void count_change(void *cookie)
{
    atomic_fetch_add(&changes, 1);
}

static void wait_changes_above(int n, unsigned timeout_ms)
{
    for (unsigned t = 0; t < timeout_ms && atomic_load(&changes) <= n; t += 5)
        fixture_sleep_ms(5);
    assert_true(atomic_load(&changes) > n);
}

/* How often the watching thread went to sleep so far. */
static long wakeups(void)
{
    DIR *d = opendir("/proc/self/task");
    const struct dirent *entry;
    long sum = -1;

    assert_non_null(d);
    while ((entry = readdir(d))) {
        char path[300], line[256];
        bool ours = false;
        long v;

        (void)snprintf(path, sizeof(path), "/proc/self/task/%s/status", entry->d_name);
        FILE *f = fopen(path, "re");
        while (f && fgets(line, sizeof(line), f)) {
            if (streq(line, "Name:\t" DOCKER_WATCH_THREAD "\n"))
                ours = true;
            if (ours && sscanf(line, "voluntary_ctxt_switches: %ld", &v) == 1)
                sum = v;
        }
        if (f)
            (void)fclose(f);
    }
    (void)closedir(d);
    assert_true(sum >= 0);
    return sum;
}

static void test_watch(void **state)
{
    struct container *c = config("watched", SERVICE), *e = config("short", "exit 0");

    atomic_store(&changes, 0);
    assert_ok(container_engine_watch(engine, &cluster, count_change, NULL));
    assert_err(container_engine_watch(engine, &cluster, count_change, NULL), ERR_CONFLICT,
               "already");
    wait_changes_above(0, 5000); /* the engine is there */
    fixture_sleep_ms(300);
    int n = atomic_load(&changes);
    long before = wakeups();
    make_foreign("foreign", ""); /* not ours: no call */
    remove_foreign("foreign");
    fixture_sleep_ms(1000);
    assert_int_equal(atomic_load(&changes), n);
    assert_int_equal(wakeups(), before); /* idle means asleep */
    assert_ok(start(c, NULL));
    wait_changes_above(n, 3000);
    fixture_sleep_ms(200);
    n = atomic_load(&changes);
    assert_int_equal(fixture_call("POST", "/containers/flocker--watched/kill", NULL, NULL), 204);
    wait_changes_above(n, 3000);
    stop("watched");
    fixture_sleep_ms(200);
    n = atomic_load(&changes);
    assert_ok(start(e, NULL));
    wait_run("short", CONTAINER_EXITED);
    wait_changes_above(n, 3000);
    stop("short");
    container_engine_unwatch(engine);
    n = atomic_load(&changes);
    assert_ok(start(e, NULL));
    stop("short");
    assert_int_equal(atomic_load(&changes), n);
    (void)container_free(c);
    (void)container_free(e);
}

static void test_daemon_away(void **state)
{
    struct container *c = config("survivor", SERVICE);
    struct container_state *states;
    bool present;
    size_t n;

    assert_ok(start(c, NULL));
    atomic_store(&changes, 0);
    assert_ok(container_engine_watch(engine, &cluster, count_change, NULL));
    wait_changes_above(0, 5000);
    fixture_sleep_ms(100);
    fixture_stop_dockerd(); /* ends the container too */
    fixture_sleep_ms(100);
    int seen = atomic_load(&changes);
    assert_true(seen >= 2); /* died, and the engine went */
    assert_err(container_engine_list_sync(engine, &cluster, &states, &n), ERR_UNAVAILABLE,
               "does not answer");
    assert_err(container_engine_has_image_sync(engine, TEST_IMAGE, &present), ERR_UNAVAILABLE, "");
    assert_err(start(c, NULL), ERR_UNAVAILABLE, "");
    assert_err(container_engine_stop_sync(engine, "survivor", &cluster, 1), ERR_UNAVAILABLE, "");
    assert_err(container_engine_pull_sync(engine, TEST_IMAGE, NULL, NULL), ERR_UNAVAILABLE, "");
    fixture_sleep_ms(1000); /* long enough that the pauses between tries have grown */
    assert_int_equal(atomic_load(&changes), seen);
    fixture_start_dockerd();
    wait_changes_above(seen, 2000);
    assert_int_equal(look("survivor").run, CONTAINER_EXITED);
    assert_int_equal(look("survivor").exit_code, 3);
    assert_ok(start(c, NULL));
    assert_int_equal(look("survivor").run, CONTAINER_RUNNING);
    stop("survivor");
    container_engine_unwatch(engine);
    (void)container_free(c);
}

/* A folder that is not there yet, an engine that never comes: the watch can be ended at once. */
static void test_watch_nothing(void **state)
{
    struct container_engine *ce = container_engine_new("/nonexistent/docker.sock");
    struct container_state *states;
    size_t n;

    assert_ok(container_engine_watch(ce, &cluster, count_change, NULL));
    fixture_sleep_ms(50);
    uint64_t began = now_os().mono_us;
    assert_err(container_engine_list_sync(ce, &cluster, &states, &n), ERR_UNAVAILABLE,
               "/nonexistent");
    (void)container_engine_free(ce);
    assert_true(now_os().mono_us - began < USEC_PER_SEC);
}

static void wait_listening(uint16_t port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(port)};

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    for (int i = 0; i < 400; i++) {
        CLEANUP_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0)
            return;
        fixture_sleep_ms(25);
    }
    fail_msg("nothing listens on port %u", (unsigned)port);
}

static void *cancel_soon(void *cookie)
{
    fixture_sleep_ms(1500);
    atomic_store((atomic_bool *)cookie, true);
    return NULL;
}

static void test_pull(void **state)
{
    CLEANUP_FREE char *script = xasprintf("%s/registry.py", source_dir);
    const char *const open_argv[] = {"python3", script, "5000", NULL};
    const char *const closed_argv[] = {"python3", script, "5001", "bWU6c2VjcmV0", NULL};
    struct pull_progress progress = {0};
    atomic_bool cancel = false;
    bool present = false;
    pthread_t thread;

    assert_err(container_engine_pull_sync(engine, "127.0.0.1:5000/test/good:1", NULL, NULL),
               ERR_UNAVAILABLE, "127.0.0.1:5000");
    assert_err(container_engine_pull_sync(engine, "busybox:latest", NULL, NULL), ERR_UNAVAILABLE, "");
    pid_t open_pid = fixture_spawn(open_argv), closed_pid = fixture_spawn(closed_argv);
    wait_listening(5000);
    wait_listening(5001);
    assert_ok(container_engine_pull_sync(engine, "127.0.0.1:5000/test/good:1", NULL, NULL));
    assert_ok(container_engine_pull_sync(engine, "127.0.0.1:5000/test/good:1", NULL, NULL)); /* again */
    assert_ok(container_engine_has_image_sync(engine, "127.0.0.1:5000/test/good:1", &present));
    assert_true(present);
    assert_err(container_engine_pull_sync(engine, "127.0.0.1:5000/test/good:2", NULL, NULL),
               ERR_NOT_FOUND, "good:2");
    assert_err(container_engine_pull_sync(engine, "127.0.0.1:5000/test/other:1", NULL, NULL),
               ERR_NOT_FOUND, "other:1");
    /* The manifest is there, a layer is not: told inside the progress stream of a HTTP 200. */
    assert_err(container_engine_pull_sync(engine, "127.0.0.1:5000/test/broken:1", NULL, NULL),
               ERR_UNAVAILABLE, "unknown blob");
    assert_int_equal(pthread_create(&thread, NULL, cancel_soon, (void *)(uintptr_t)&cancel), 0);
    uint64_t began = now_os().mono_us;
    assert_err(container_engine_pull_sync(engine, "127.0.0.1:5000/test/slow:1", &cancel, &progress),
               ERR_CANCELLED, "slow:1");
    assert_true(now_os().mono_us - began < 4 * USEC_PER_SEC);
    assert_int_equal(atomic_load(&progress.total), 8 << 20);
    assert_true(atomic_load(&progress.bytes) > 0 && atomic_load(&progress.bytes) <= 2 << 20); /* it is not told often */
    assert_int_equal(pthread_join(thread, NULL), 0);

    assert_err(container_engine_pull_sync(engine, "127.0.0.1:5001/test/good:1", NULL, NULL), ERR_DENIED,
               "log in");
    write_file(getenv("DOCKER_CONFIG"), "config.json",
               "{\"auths\": {\"127.0.0.1:5001\": {\"auth\": \"bWU6c2VjcmV0\"}}}");
    assert_ok(container_engine_pull_sync(engine, "127.0.0.1:5001/test/good:1", NULL, NULL));
    fixture_end(open_pid, SIGKILL);
    fixture_end(closed_pid, SIGKILL);
}

static int run_inside(const char *dir)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_start_stop),
        cmocka_unit_test(test_exit_codes),
        cmocka_unit_test(test_stubborn),
        cmocka_unit_test(test_ports_and_volume),
        cmocka_unit_test(test_several_volumes),
        cmocka_unit_test(test_environment),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_bad_settings),
        cmocka_unit_test(test_foreign),
        cmocka_unit_test(test_half_made),
        cmocka_unit_test(test_watch),
        cmocka_unit_test(test_watch_nothing),
        cmocka_unit_test(test_pull),
        cmocka_unit_test(test_daemon_away),
    };

    fixture_setup(dir);
    engine = container_engine_new(fixture.socket);
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    (void)container_engine_free(engine);
    fixture_teardown();
    return failed;
}

int main(int argc, char **argv)
{
    source_dir = getenv("TEST_SOURCE_DIR");
    if (!source_dir)
        source_dir = "tests/unit/engines";
    if (argc == 3 && streq(argv[1], "--inside"))
        return run_inside(argv[2]);
    return fixture_outside(argv[0]);
}
