/* The Docker volume plugin through its socket, with a client that behaves as dockerd does, against a link that answers, is slow, silent,
 * away, or comes and goes (fake_volumes.c). The loop runs on a thread of its own; tests reach into it through on_loop(). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/plugin.h"
#include "base/now.h"
#include "base/str.h"
#include "docker_client.h"
#include "fake_volumes.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#define MINUTE_MS 60000
#define WAIT_S 1 /* of agent.yml, in most tests */
#define LIST_VOLUMES 10000
#define FLAP_THREADS 8
#define FLAP_ROUNDS 25

static char dir[256], state_dir[300], socket_path[300];
static struct loop *loop;
static pthread_t loop_thread;
static struct agent_config config;
static struct step_context context;
static struct plugin *plugin;
static struct agent_volumes *volumes;

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static long now_ms(void)
{
    return (long)(now_os().mono_us / USEC_PER_MSEC);
}

/* ---- the loop ---- */

struct call {
    void (*fn)(void *cookie);
    void *cookie;
    sem_t done;
};

static void run_call(void *cookie)
{
    struct call *c = cookie;

    c->fn(c->cookie);
    sem_post(&c->done);
}

static void on_loop(void (*fn)(void *cookie), void *cookie)
{
    struct call c = {.fn = fn, .cookie = cookie};

    sem_init(&c.done, 0, 0);
    loop_post(loop, run_call, &c);
    sem_wait(&c.done);
    sem_destroy(&c.done);
}

static void *run_loop(void *cookie)
{
    struct err *e = loop_run(cookie);

    assert_null(e);
    return NULL;
}

static void stop_loop(void *cookie)
{
    (void)cookie;
    loop_stop(loop);
}

/* ---- the plugin ---- */

static void plugin_up(void *cookie)
{
    struct plugin_config pc = {.loop = loop, .context = &context};

    (void)cookie;
    plugin = plugin_new(&pc);
    struct agent_volumes_config vc = plugin_volumes_config(plugin);
    volumes = agent_volumes_new(&vc);
    plugin_start(plugin, volumes);
}

/* As at the end of the process, but tidy. */
static void plugin_down(void *cookie)
{
    (void)cookie;
    plugin = plugin_free(plugin);
    volumes = agent_volumes_free(volumes);
    fake.up = false;
}

static void session_up(void *cookie)
{
    (void)cookie;
    fake_session(true);
}

static void session_down(void *cookie)
{
    (void)cookie;
    fake_session(false);
}

static void add_volume(void *name)
{
    (void)fake_add(name);
}

static void release_volume(void *name)
{
    fake_hold(fake_find(name), NULL);
}

static void hold_volume(void *name)
{
    fake_hold(fake_find(name), "48bb0baa (192.0.2.8), by 1 mount");
}

static void mounted_now(void *name)
{
    fake_mounted(fake_find(name));
}

static void leave_boot(void *cookie)
{
    (void)cookie;
    context.era.b[0]++;
}

static int set_up(void **state)
{
    (void)state;
    snprintf(dir, sizeof(dir), "/tmp/flocker-plugin-XXXXXX");
    assert_non_null(mkdtemp(dir));
    snprintf(state_dir, sizeof(state_dir), "%s/state", dir);
    snprintf(socket_path, sizeof(socket_path), "%s/plugins/flocker/flocker.sock", dir);
    assert_int_equal(mkdir(state_dir, 0700), 0);
    config = (struct agent_config){.control_host = (char *)"control.example",
                                   .control_port = 4524,
                                   .plugin_socket = socket_path,
                                   .docker_wait_s = WAIT_S,
                                   .default_size = UINT64_C(75) << 30};
    context = (struct step_context){.config = &config, .state_dir = state_dir, .mount_root = "/flocker", .era = {{1, 2, 3}}};
    assert_null(loop_new(&loop));
    fake_init(loop);
    assert_int_equal(pthread_create(&loop_thread, NULL, run_loop, loop), 0);
    on_loop(plugin_up, NULL);
    on_loop(session_up, NULL);
    return 0;
}

static void remove_all(const char *path)
{
    DIR *d = opendir(path);

    for (struct dirent *e; d && (e = readdir(d));) {
        CLEANUP_FREE char *below = xasprintf("%s/%s", path, e->d_name);
        if (!streq(e->d_name, ".") && !streq(e->d_name, ".."))
            remove_all(below);
    }
    if (d)
        closedir(d);
    (void)remove(path);
}

static int tear_down(void **state)
{
    (void)state;
    on_loop(plugin_down, NULL);
    on_loop(stop_loop, NULL);
    pthread_join(loop_thread, NULL);
    loop = loop_free(loop);
    fake_done();
    remove_all(dir);
    return 0;
}

static char *call(const char *path, const char *body)
{
    return client_call(socket_path, path, body, MINUTE_MS, NULL);
}

static void expect(const char *path, const char *body, const char *answer)
{
    CLEANUP_FREE char *a = call(path, body);

    if (!a || !streq(a, answer))
        fail_msg("%s %s\n-> %s, expected %s", path, body, a ? a : "nothing", answer);
}

static void expect_word(const char *path, const char *body, const char *word)
{
    CLEANUP_FREE char *a = call(path, body);

    if (!a || !strstr(a, word))
        fail_msg("%s %s\n-> %s, expected %s in it", path, body, a ? a : "nothing", word);
}

/* The end of a URL path, and a body. */
#define CREATE "/VolumeDriver.Create"
#define REMOVE "/VolumeDriver.Remove"
#define MOUNT "/VolumeDriver.Mount"
#define UNMOUNT "/VolumeDriver.Unmount"
#define PATH "/VolumeDriver.Path"
#define GET "/VolumeDriver.Get"
#define LIST "/VolumeDriver.List"
#define OK "{\"Err\":\"\"}\n"
#define MOUNTED(n) "{\"Err\":\"\",\"Mountpoint\":\"/flocker/3f0c9c1e-7b1d-4c7a-9d0e-" n "\"}\n"
#define FIRST MOUNTED("000000000001")

static char *mounts_file(void)
{
    CLEANUP_FREE char *path = xasprintf("%s/docker-mounts.json", state_dir);
    FILE *f = fopen(path, "re");
    char *text = xcalloc(1, 1 << 20);

    if (f) {
        (void)!fread(text, 1, (1 << 20) - 1, f);
        (void)fclose(f);
    }
    return text;
}

static bool is_on_disk(const char *mount)
{
    CLEANUP_FREE char *text = mounts_file();
    CLEANUP_FREE char *quoted = xasprintf("\"%s\"", mount);

    return strstr(text, quoted) != NULL;
}

static void wait_off_disk(const char *mount)
{
    for (int i = 0; i < 500 && is_on_disk(mount); i++)
        sleep_ms(10);
    assert_false(is_on_disk(mount));
}

/* ---- the protocol ---- */

static void test_protocol(void **state)
{
    int status = 0;
    struct stat st;

    (void)state;
    expect("/Plugin.Activate", "", "{\"Implements\":[\"VolumeDriver\"]}\n");
    expect("/Plugin.Activate", "{}", "{\"Implements\":[\"VolumeDriver\"]}\n");
    expect("/VolumeDriver.Capabilities", "{}", "{\"Capabilities\":{\"Scope\":\"global\"}}\n");
    expect(LIST, "{}", "{\"Err\":\"\",\"Volumes\":[]}\n");
    expect(LIST, "", "{\"Err\":\"\",\"Volumes\":[]}\n");
    free(client_call(socket_path, "/VolumeDriver.Snapshot", "{}", MINUTE_MS, &status));
    assert_int_equal(status, 404);
    CLEANUP_FREE char *get = client_raw(socket_path, "GET /Plugin.Activate HTTP/1.1\r\nConnection: close\r\n\r\n", "", 0, MINUTE_MS);
    assert_non_null(strstr(get, "405"));
    CLEANUP_FREE char *empty_host = client_raw(
        socket_path, "POST /Plugin.Activate HTTP/1.1\r\nHost:\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "", 0, MINUTE_MS);
    assert_non_null(strstr(empty_host, "VolumeDriver"));
    CLEANUP_FREE char *no_host = client_raw(socket_path, "POST /VolumeDriver.Get HTTP/1.1\r\nAccept: */*\r\nContent-Length: 25\r\n"
                                                         "Connection: close\r\n\r\n",
                                            "{\"Name\":\"x\",\"Future\":[1]}", 25, MINUTE_MS);
    assert_non_null(strstr(no_host, "Could not find volume with given name."));
    assert_int_equal(stat(socket_path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    CLEANUP_FREE char *folder = xstrndup(socket_path, strlen(socket_path) - strlen("/flocker.sock"));
    assert_int_equal(stat(folder, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
}

/* What is wrong is named, and nothing is done. */
static void test_bad_calls(void **state)
{
    static const struct {
        const char *path, *body, *word;
    } cases[] = {
        {CREATE, "", "no body"},
        {MOUNT, "", "no body"},
        {REMOVE, "{}", "no body"},
        {REMOVE, "{\"Name\":\"\"}", "names no volume"},
        {GET, "{\"Name\":7}", "names no volume"},
        {GET, "[]", "JSON object"},
        {GET, "{\"Name\":\"x\"", "the body of the call"},
        {GET, "{\"Name\":\"a\\nb\"}", "on one line"},
        {MOUNT, "{\"Name\":\"x\",\"ID\":7}", "\\\"ID\\\""},
        {CREATE, "{\"Name\":\"x\",\"Opts\":[]}", "\\\"Opts\\\""},
        {CREATE, "{\"Name\":\"x\",\"Opts\":{\"size\":\"10X\"}}", "10X"},
        {CREATE, "{\"Name\":\"x\",\"Opts\":{\"size\":\"1.5GB\"}}", "whole number"},
        {CREATE, "{\"Name\":\"x\",\"Opts\":{\"size\":\"\"}}", "whole number"},
        {CREATE, "{\"Name\":\"x\",\"Opts\":{\"size\":\"-1G\"}}", "whole number"},
        {CREATE, "{\"Name\":\"x\",\"Opts\":{\"size\":\"10M\"}}", "at least 64M"},
        {CREATE, "{\"Name\":\"x\",\"Opts\":{\"size\":\"67108865\"}}", "multiple of 1024"},
        {CREATE, "{\"Name\":\"x\",\"Opts\":{\"size\":7}}", "must be a text"},
        {CREATE, "{\"Name\":\"x\",\"Opts\":{\"sice\":\"1G\"}}", "there are size, profile, and metadata.KEY"},
        {CREATE, "{\"Name\":\"x\",\"Opts\":{\"profile\":\"\"}}", "profile"},
        {CREATE, "{\"Name\":\"x\",\"Opts\":{\"metadata.name\":\"y\"}}", "taken already"},
        {CREATE, "{\"Name\":\"x\",\"Opts\":{\"metadata.\":\"y\"}}", "metadata"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        expect_word(cases[i].path, cases[i].body, cases[i].word);
    for (int k = 0; k < VOLUME_CALL_KIND_MAX; k++)
        assert_int_equal(atomic_load(&fake.calls[k]), 0);
    CLEANUP_FREE char *name = xcalloc(1, 1000), *body = NULL;
    memset(name, 'n', 300);
    body = xasprintf("{\"Name\":\"%s\"}", name);
    expect_word(CREATE, body, "at most 256 characters");
}

static void see_created(void *cookie)
{
    const struct fake_volume *v = fake_find("data");

    (void)cookie;
    assert_int_equal(fake.n, 2);
    assert_true(v->entry.maximum_size == UINT64_C(10) << 30);
    assert_true(fake_find("other")->entry.maximum_size == UINT64_C(75) << 30);
}

static void test_create_and_remove(void **state)
{
    (void)state;
    expect(CREATE, "{\"Name\":\"data\",\"Opts\":{\"size\":\"10gib\",\"profile\":\"gold\",\"metadata.team\":\"red\"}}", OK);
    expect(CREATE, "{\"Name\":\"data\",\"Opts\":{\"size\":\"20G\"}}", OK); /* as before: settings stay */
    expect(CREATE, "{\"Name\":\"other\",\"Opts\":null,\"Labels\":{}}", OK);
    on_loop(see_created, NULL);
    expect_word(GET, "{\"Name\":\"data\"}", "\"Status\":{\"dataset_id\":\"3f0c9c1e-7b1d-4c7a-9d0e-000000000001\"");
    expect_word(GET, "{\"Name\":\"data\"}", "\"maximum_size\":10737418240");
    expect_word(LIST, "{}", "\"Name\":\"other\"");
    expect_word(PATH, "{\"Name\":\"data\"}", "Volume not available.");
    expect_word(PATH, "{\"Name\":\"none\"}", "Could not find volume with given name.");
    expect(MOUNT, "{\"Name\":\"data\",\"ID\":\"a\"}", FIRST);
    expect_word(REMOVE, "{\"Name\":\"data\"}", "in use: 1 mounts");
    expect(UNMOUNT, "{\"Name\":\"data\",\"ID\":\"a\"}", OK);
    expect(REMOVE, "{\"Name\":\"data\"}", OK);
    expect(REMOVE, "{\"Name\":\"data\"}", OK); /* repeated, for the answer was lost */
    expect_word(GET, "{\"Name\":\"data\"}", "Could not find volume with given name.");
    config.docker_keep = true;
    expect(REMOVE, "{\"Name\":\"other\"}", OK);
    expect_word(GET, "{\"Name\":\"other\"}", "\"Name\":\"other\"");
}

#define ANONYMOUS "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

/* Nobody could ever find it again: it goes though others are kept. */
static void test_anonymous_goes(void **state)
{
    (void)state;
    config.docker_keep = true;
    expect(CREATE, "{\"Name\":\"" ANONYMOUS "\"}", OK);
    expect(REMOVE, "{\"Name\":\"" ANONYMOUS "\"}", OK);
    expect_word(GET, "{\"Name\":\"" ANONYMOUS "\"}", "Could not find");
}

/* ---- mounts ---- */

static bool was_on_disk;

static void look_at_disk(const char *name, const char *mount)
{
    (void)name;
    was_on_disk = is_on_disk(mount);
}

static void watch_uses(void *cookie)
{
    (void)cookie;
    fake.on_use = look_at_disk;
}

static unsigned n_mounts;

static void count_mounts(void *name)
{
    n_mounts = (unsigned)fake_find(name)->n_mounts;
}

static unsigned lease_mounts(const char *name)
{
    on_loop(count_mounts, (void *)name);
    return n_mounts;
}

static void wait_for_mounts(const char *name, unsigned want)
{
    for (int i = 0; i < 500 && lease_mounts(name) != want; i++)
        sleep_ms(10);
    assert_int_equal(lease_mounts(name), want);
}

static void test_mount_is_on_disk_first(void **state)
{
    (void)state;
    on_loop(add_volume, (void *)"data");
    on_loop(watch_uses, NULL);
    expect(MOUNT, "{\"Name\":\"data\",\"ID\":\"one\"}", FIRST);
    assert_true(was_on_disk);
    expect(MOUNT, "{\"Name\":\"data\",\"ID\":\"two\"}", FIRST);
    expect(MOUNT, "{\"Name\":\"data\",\"ID\":\"two\"}", FIRST); /* dockerd repeats after its own crash */
    expect(MOUNT, "{\"Name\":\"data\"}", FIRST);                /* dvdcli has no id */
    assert_int_equal(lease_mounts("data"), 3);
    expect(PATH, "{\"Name\":\"data\"}", FIRST);
    expect(UNMOUNT, "{\"Name\":\"data\",\"ID\":\"one\"}", OK);
    assert_false(is_on_disk("one"));
    assert_true(is_on_disk("two"));
    expect(UNMOUNT, "{\"Name\":\"data\"}", OK);
    expect(UNMOUNT, "{\"Name\":\"data\",\"ID\":\"never seen\"}", OK);
    expect(UNMOUNT, "{\"Name\":\"no such volume\",\"ID\":\"x\"}", OK);
    expect(UNMOUNT, "{\"Name\":\"data\",\"ID\":\"two\"}", OK);
    wait_for_mounts("data", 0);
    expect_word(MOUNT, "{\"Name\":\"nobody\",\"ID\":\"x\"}", "Could not find volume with given name.");
    wait_off_disk("x");
}

struct waiting {
    pthread_t thread;
    const char *path, *body;
    char *answer;
    long ms;
};

static void *call_waiting(void *cookie)
{
    struct waiting *w = cookie;
    long began = now_ms();

    w->answer = client_docker(socket_path, w->path, w->body, MINUTE_MS);
    w->ms = now_ms() - began;
    return NULL;
}

static void begin(struct waiting *w, const char *path, const char *body)
{
    *w = (struct waiting){.path = path, .body = body};
    assert_int_equal(pthread_create(&w->thread, NULL, call_waiting, w), 0);
}

static void finish(struct waiting *w, const char *word)
{
    pthread_join(w->thread, NULL);
    if (!w->answer || !strstr(w->answer, word))
        fail_msg("%s %s\n-> %s, expected %s in it", w->path, w->body, w->answer ? w->answer : "nothing", word);
    free(w->answer);
}

static void test_held_elsewhere(void **state)
{
    struct waiting w;

    (void)state;
    on_loop(add_volume, (void *)"data");
    on_loop(hold_volume, (void *)"data");
    long began = now_ms();
    expect_word(MOUNT, "{\"Name\":\"data\",\"ID\":\"a\"}", "in use on node 48bb0baa (192.0.2.8), by 1 mount. (Waited for 1 seconds.)");
    assert_true(now_ms() - began >= 1000 * WAIT_S);
    wait_off_disk("a");
    config.docker_wait_s = 30;
    begin(&w, MOUNT, "{\"Name\":\"data\",\"ID\":\"b\"}");
    sleep_ms(300);
    on_loop(release_volume, (void *)"data");
    finish(&w, "\"Mountpoint\":\"/flocker/3f0c");
    assert_true(w.ms < 5000); /* as soon as it is free, not when the time is over */
}

static void mounts_late(void *cookie)
{
    (void)cookie;
    fake.mounts_late = true;
}

static void test_waits_for_the_mount(void **state)
{
    struct waiting w;

    (void)state;
    on_loop(add_volume, (void *)"data");
    on_loop(mounts_late, NULL);
    expect_word(MOUNT, "{\"Name\":\"data\",\"ID\":\"a\"}", "Timed out waiting for dataset to mount.");
    wait_for_mounts("data", 0); /* the lease is given back */
    config.docker_wait_s = 30;
    begin(&w, MOUNT, "{\"Name\":\"data\",\"ID\":\"b\"}");
    sleep_ms(200);
    on_loop(mounted_now, (void *)"data");
    finish(&w, "\"Mountpoint\":\"/flocker/3f0c");
    assert_true(w.ms < 5000);
}

/* Docker gave up: it will not unmount what it never got. */
static void test_client_goes_away(void **state)
{
    (void)state;
    on_loop(add_volume, (void *)"data");
    on_loop(mounts_late, NULL);
    config.docker_wait_s = 30;
    assert_null(client_call(socket_path, MOUNT, "{\"Name\":\"data\",\"ID\":\"a\"}", 300, NULL));
    wait_for_mounts("data", 0);
    wait_off_disk("a");
}

static void test_unmount_ends_a_mount(void **state)
{
    struct waiting w;

    (void)state;
    on_loop(add_volume, (void *)"data");
    on_loop(hold_volume, (void *)"data");
    config.docker_wait_s = 30;
    begin(&w, MOUNT, "{\"Name\":\"data\",\"ID\":\"a\"}");
    sleep_ms(200);
    expect(UNMOUNT, "{\"Name\":\"data\",\"ID\":\"a\"}", OK);
    finish(&w, "unmounted meanwhile");
    assert_false(is_on_disk("a"));
}

/* ---- without the control service ---- */

static void quick(const char *path, const char *body, const char *word)
{
    long best = 1000;

    for (int i = 0; i < 5; i++) { /* the machine may be busy with other things */
        long began = now_ms();
        expect_word(path, body, word);
        best = now_ms() - began < best ? now_ms() - began : best;
    }
    assert_true(best <= 10);
}

static void test_away(void **state)
{
    struct waiting w;

    (void)state;
    on_loop(add_volume, (void *)"data");
    on_loop(add_volume, (void *)"other");
    expect(MOUNT, "{\"Name\":\"data\",\"ID\":\"a\"}", FIRST);
    on_loop(session_down, NULL);
    begin(&w, MOUNT, "{\"Name\":\"other\",\"ID\":\"z\"}");
    quick(LIST, "{}", "\"Name\":\"data\",\"Mountpoint\":\"/flocker/");
    quick(GET, "{\"Name\":\"other\"}", "\"Name\":\"other\",\"Mountpoint\":\"\"");
    quick(PATH, "{\"Name\":\"data\"}", "/flocker/3f0c");
    finish(&w, "The control service at control.example:4524 has not answered for 1 seconds.");
    assert_true(fake.hurry_until_us > 0);
    assert_true(w.ms < 5000);
    expect_word(CREATE, "{\"Name\":\"new\"}", "The control service at control.example:4524 has not answered");
    expect_word(REMOVE, "{\"Name\":\"other\"}", "The control service at control.example:4524 has not answered");
    expect(CREATE, "{\"Name\":\"other\"}", OK); /* as Swarm does on each node: it is there */
    config.docker_wait_s = 30;
    begin(&w, MOUNT, "{\"Name\":\"other\",\"ID\":\"y\"}");
    sleep_ms(200);
    on_loop(session_up, NULL);
    finish(&w, "\"Mountpoint\":\"/flocker/3f0c");
    assert_int_equal(atomic_load(&fake.uses_told), 2); /* that of before, and the one that waited */
}

/* A container that restarts while the control service is away need not wait: the lease is there. */
static void test_restart_while_away(void **state)
{
    (void)state;
    on_loop(add_volume, (void *)"data");
    expect(MOUNT, "{\"Name\":\"data\",\"ID\":\"a\"}", FIRST);
    on_loop(session_down, NULL);
    expect(UNMOUNT, "{\"Name\":\"data\",\"ID\":\"a\"}", OK);
    assert_false(is_on_disk("a"));
    expect(MOUNT, "{\"Name\":\"data\",\"ID\":\"b\"}", FIRST);
    assert_true(is_on_disk("b"));
    on_loop(session_up, NULL);
    wait_for_mounts("data", 1); /* the first one ends now */
    assert_true(fake_has_mount(fake_find("data"), "b"));
    expect(UNMOUNT, "{\"Name\":\"data\",\"ID\":\"b\"}", OK);
    wait_for_mounts("data", 0);
    on_loop(session_down, NULL);
    expect_word(MOUNT, "{\"Name\":\"data\",\"ID\":\"c\"}", "has not answered"); /* no lease, no mount */
}

static void fails(void *cookie)
{
    fake.fails = cookie != NULL;
}

static void silent(void *cookie)
{
    fake.silent = cookie != NULL;
}

static void slow(void *cookie)
{
    (void)cookie;
    fake.answer_us = 200 * USEC_PER_MSEC;
}

static void test_slow_silent_and_failing(void **state)
{
    (void)state;
    on_loop(add_volume, (void *)"data");
    on_loop(silent, (void *)"yes");
    expect_word(MOUNT, "{\"Name\":\"data\",\"ID\":\"a\"}", "has not said why");
    quick(GET, "{\"Name\":\"data\"}", "\"Name\":\"data\"");
    on_loop(silent, NULL);
    on_loop(fails, (void *)"yes");
    expect_word(MOUNT, "{\"Name\":\"data\",\"ID\":\"b\"}", "The store is full.");
    on_loop(fails, NULL);
    on_loop(slow, NULL);
    expect(MOUNT, "{\"Name\":\"data\",\"ID\":\"c\"}", FIRST);
    quick(GET, "{\"Name\":\"data\"}", "\"Name\":\"data\"");
    expect(UNMOUNT, "{\"Name\":\"data\",\"ID\":\"c\"}", OK);
}

/* ---- restarts ---- */

static void unmount_everything(void *cookie)
{
    (void)cookie;
    for (size_t i = 0; i < fake.n; i++)
        fake.volumes[i].mounted = false; /* as far as a new agent knows */
}

static void restart(void)
{
    on_loop(plugin_down, NULL);
    on_loop(unmount_everything, NULL);
    on_loop(plugin_up, NULL);
}

static void test_agent_restarts(void **state)
{
    (void)state;
    on_loop(add_volume, (void *)"data");
    expect(MOUNT, "{\"Name\":\"data\",\"ID\":\"a\"}", FIRST);
    restart(); /* without a session */
    quick(PATH, "{\"Name\":\"data\"}", "/flocker/3f0c");
    on_loop(session_up, NULL);
    assert_int_equal(atomic_load(&fake.uses_told), 1);
    assert_true(fake_has_mount(fake_find("data"), "a"));
    expect(UNMOUNT, "{\"Name\":\"data\",\"ID\":\"a\"}", OK);
    wait_for_mounts("data", 0);
}

static void test_host_reboots(void **state)
{
    (void)state;
    on_loop(add_volume, (void *)"data");
    expect(MOUNT, "{\"Name\":\"data\",\"ID\":\"a\"}", FIRST);
    on_loop(plugin_down, NULL);
    on_loop(unmount_everything, NULL);
    on_loop(leave_boot, NULL);
    on_loop(plugin_up, NULL);
    on_loop(session_up, NULL);
    assert_int_equal(atomic_load(&fake.uses_told), 0);
    assert_int_equal(lease_mounts("data"), 0);
    expect_word(PATH, "{\"Name\":\"data\"}", "Volume not available.");
}

static void write_text(const char *name, const char *text)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", state_dir, name);
    FILE *f = fopen(path, "we");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void test_damaged_files(void **state)
{
    static const char *const texts[] = {"", "{", "[]", "{\"boot\": \"x\"}", "{\"boot\": 1, \"mounts\": [], \"volumes\": [{}]}"};

    (void)state;
    on_loop(add_volume, (void *)"data");
    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        on_loop(plugin_down, NULL);
        write_text("docker-mounts.json", texts[i]);
        write_text("docker-volumes.json", texts[i]);
        on_loop(plugin_up, NULL);
        on_loop(session_up, NULL);
        expect(MOUNT, "{\"Name\":\"data\",\"ID\":\"a\"}", FIRST);
    }
}

static void forget_volumes(void *cookie)
{
    (void)cookie;
    fake_forget();
}

/* What is known of volumes outlives the agent, without the control service. */
static void test_copy_of_the_catalogue(void **state)
{
    static const char copy[] = "{\"volumes\": [\n{\"dataset\": \"3f0c9c1e-7b1d-4c7a-9d0e-000000000001\", \"name\": \"kept\"}]}\n";

    (void)state;
    on_loop(plugin_down, NULL);
    on_loop(forget_volumes, NULL);
    on_loop(plugin_up, NULL);
    expect_word(GET, "{\"Name\":\"kept\"}", "It is not known yet which volumes there are");
    on_loop(plugin_down, NULL);
    write_text("docker-volumes.json", copy);
    on_loop(plugin_up, NULL);
    expect_word(GET, "{\"Name\":\"kept\"}", "\"Name\":\"kept\"");
    expect_word(LIST, "{}", "\"Name\":\"kept\"");
    expect_word(GET, "{\"Name\":\"lost\"}", "Could not find");
}

/* A control service that goes away soon after a change takes nothing of it along. */
static void test_copy_when_a_session_ends(void **state)
{
    CLEANUP_FREE char *path = xasprintf("%s/docker-volumes.json", state_dir);

    (void)state;
    on_loop(add_volume, (void *)"late");
    expect_word(LIST, "{}", "\"Name\":\"late\"");
    on_loop(session_down, NULL);
    for (int i = 0; i < 500 && access(path, F_OK) != 0; i++)
        usleep(10000);
    on_loop(plugin_down, NULL);
    on_loop(forget_volumes, NULL);
    on_loop(plugin_up, NULL);
    expect_word(GET, "{\"Name\":\"late\"}", "\"Name\":\"late\"");
}

/* What cannot be written down is not mounted; what is given back is given back. */
static void test_disk_fails(void **state)
{
    CLEANUP_FREE char *aside = xasprintf("%s.aside", state_dir);

    (void)state;
    on_loop(add_volume, (void *)"data");
    expect(MOUNT, "{\"Name\":\"data\",\"ID\":\"a\"}", FIRST);
    assert_int_equal(rename(state_dir, aside), 0);
    int fd = open(state_dir, O_CREAT | O_WRONLY | O_CLOEXEC, 0600); /* a file in its place */
    assert_true(fd >= 0);
    close(fd);
    expect_word(MOUNT, "{\"Name\":\"data\",\"ID\":\"b\"}", "cannot be written down");
    expect(UNMOUNT, "{\"Name\":\"data\",\"ID\":\"a\"}", OK);
    assert_int_equal(unlink(state_dir), 0);
    assert_int_equal(rename(aside, state_dir), 0);
    config.docker_wait_s = 30;
    expect(MOUNT, "{\"Name\":\"data\",\"ID\":\"c\"}", FIRST);
    assert_true(is_on_disk("c"));
    assert_false(is_on_disk("a"));
    wait_for_mounts("data", 1);
}

/* ---- many at once ---- */

static void *create_one(void *cookie)
{
    (void)cookie;
    expect(CREATE, "{\"Name\":\"same\"}", OK);
    return NULL;
}

static void test_creates_at_once(void **state)
{
    pthread_t threads[20];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, create_one, NULL), 0);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(fake.n, 1);
}

static atomic_uint flap_mounted, flap_failed;
static atomic_bool flap_over;

static void *flap_work(void *cookie)
{
    unsigned t = (unsigned)(uintptr_t)cookie;

    for (unsigned i = 0; i < FLAP_ROUNDS; i++) {
        CLEANUP_FREE char *body = xasprintf("{\"Name\":\"v%u\",\"ID\":\"%u-%u\"}", (t + i) % 4, t, i);
        CLEANUP_FREE char *answer = client_docker(socket_path, MOUNT, body, MINUTE_MS);

        assert_non_null(answer);
        bool ok = strstr(answer, "\"Err\":\"\"") != NULL;
        atomic_fetch_add(ok ? &flap_mounted : &flap_failed, 1);
        if (!ok)
            continue;
        CLEANUP_FREE char *id = xasprintf("%u-%u", t, i);
        assert_true(is_on_disk(id));
        CLEANUP_FREE char *done = client_docker(socket_path, UNMOUNT, body, MINUTE_MS);
        assert_string_equal(done, OK);
    }
    return NULL;
}

static void *flap_link(void *cookie)
{
    (void)cookie;
    while (!atomic_load(&flap_over)) {
        on_loop(session_down, NULL);
        sleep_ms(7);
        on_loop(session_up, NULL);
        sleep_ms(13);
    }
    return NULL;
}

/* The link comes and goes all the time: whatever is answered, nothing is left over at the end. */
static void test_flapping_link(void **state)
{
    pthread_t threads[FLAP_THREADS], flapper;

    (void)state;
    config.docker_wait_s = 30;
    for (int i = 0; i < 4; i++) {
        CLEANUP_FREE char *name = xasprintf("v%d", i);
        on_loop(add_volume, name);
    }
    atomic_store(&flap_over, false);
    assert_int_equal(pthread_create(&flapper, NULL, flap_link, NULL), 0);
    for (size_t i = 0; i < FLAP_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, flap_work, (void *)(uintptr_t)i), 0);
    for (size_t i = 0; i < FLAP_THREADS; i++)
        pthread_join(threads[i], NULL);
    atomic_store(&flap_over, true);
    pthread_join(flapper, NULL);
    assert_int_equal(atomic_load(&flap_failed), 0);
    assert_int_equal(atomic_load(&flap_mounted), FLAP_THREADS * FLAP_ROUNDS);
    for (int i = 0; i < 4; i++) {
        CLEANUP_FREE char *name = xasprintf("v%d", i);
        wait_for_mounts(name, 0);
    }
    CLEANUP_FREE char *text = mounts_file();
    assert_null(strstr(text, "\"mount\""));
}

static void add_many(void *cookie)
{
    (void)cookie;
    for (int i = 0; i < LIST_VOLUMES; i++) {
        CLEANUP_FREE char *name = xasprintf("volume-%05d", i);
        (void)fake_add(name);
    }
}

static void test_list_of_many(void **state)
{
    (void)state;
    on_loop(session_down, NULL); /* the stand-in's searches are slow */
    on_loop(add_many, NULL);
    CLEANUP_FREE char *answer = call(LIST, "{}");
    size_t n = 0;
    for (const char *p = answer; (p = strstr(p, "\"Name\"")); p++)
        n++;
    assert_int_equal(n, LIST_VOLUMES);
}

/* More than may wait are refused, with an answer, and what is answered from memory is answered all the same. */
static void *mount_held(void *cookie)
{
    CLEANUP_FREE char *body = xasprintf("{\"Name\":\"data\",\"ID\":\"%u\"}", (unsigned)(uintptr_t)cookie);

    free(client_call(socket_path, MOUNT, body, 3000, NULL));
    return NULL;
}

static void test_too_many_at_once(void **state)
{
    enum { N = 430 };
    pthread_t *threads = xcalloc(N, sizeof(*threads));
    pthread_attr_t attr;

    (void)state;
    on_loop(add_volume, (void *)"data");
    on_loop(hold_volume, (void *)"data");
    config.docker_wait_s = 60;
    pthread_attr_init(&attr);
    pthread_attr_setstacksize(&attr, 256 << 10);
    for (unsigned i = 0; i < N; i++)
        assert_int_equal(pthread_create(&threads[i], &attr, mount_held, (void *)(uintptr_t)i), 0);
    sleep_ms(1000);
    expect_word(MOUNT, "{\"Name\":\"data\",\"ID\":\"late\"}", "Too many calls");
    expect_word(GET, "{\"Name\":\"data\"}", "\"Name\":\"data\"");
    for (unsigned i = 0; i < N; i++)
        pthread_join(threads[i], NULL);
    free(threads);
    pthread_attr_destroy(&attr);
    wait_for_mounts("data", 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_protocol),
        TEST(test_bad_calls),
        TEST(test_create_and_remove),
        TEST(test_anonymous_goes),
        TEST(test_mount_is_on_disk_first),
        TEST(test_held_elsewhere),
        TEST(test_waits_for_the_mount),
        TEST(test_client_goes_away),
        TEST(test_unmount_ends_a_mount),
        TEST(test_away),
        TEST(test_restart_while_away),
        TEST(test_slow_silent_and_failing),
        TEST(test_agent_restarts),
        TEST(test_host_reboots),
        TEST(test_damaged_files),
        TEST(test_copy_of_the_catalogue),
        TEST(test_copy_when_a_session_ends),
        TEST(test_disk_fails),
        TEST(test_creates_at_once),
        TEST(test_flapping_link),
        TEST(test_list_of_many),
        TEST(test_too_many_at_once),
    };

    return cmocka_run_group_tests_name("agent-plugin", tests, NULL, NULL);
}
