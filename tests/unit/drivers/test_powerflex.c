/* The backend powerflex where the conformance suite does not look: what the gateway does wrong, late or twice, and whose volumes
 * are whose. Most of it asks the driver itself, without file systems. */
#include "base/now.h"
#include "base/str.h"
#include "drivers/driver.h"
#include "drivers/powerflex/name.h"
#include "drivers/powerflex/powerflex.h"
#include "node.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#define A (&nodes[0])
#define B (&nodes[1])
#define GIB (1ull << 30)
#define PASSWORD "not/so+secret="

static const struct driver *driver;
static void *at[NODES]; /* the driver as each node has it */

static void open_driver(int i)
{
    const struct storage_config *c = &nodes[i].config;

    ok(driver_find("powerflex", &driver));
    ok(driver->open(&(struct driver_config){.options = c->dataset,
                                            .state_dir = c->state_dir,
                                            .node = c->node,
                                            .cluster = c->cluster},
                    &at[i]));
}

static int fresh(void **state)
{
    simulator_tell(&node_array, "{s:[],s:b,s:{s:s,s:f,s:f,s:f,s:f,s:b,s:I}}", "faults",
                   "forget_calls", 1, "settings", "version", "3.6", "idle_s", 600.0, "life_s",
                   28800.0, "map_s", 0.0, "lag_s", 0.0, "zero_padding", 1, "room_kb",
                   (json_int_t)1 << 40);
    for (int i = 0; i < NODES; i++)
        open_driver(i);
    return 0;
}

static int done(void **state)
{
    for (int i = 0; i < NODES; i++)
        driver->close(at[i]);
    return 0;
}

static void is(int node, const struct uuid *id, bool present, bool attached, bool elsewhere)
{
    struct volume_state v = {0};

    ok(driver->inspect(at[node], id, &v));
    assert_int_equal(v.present, present);
    assert_int_equal(v.attached, attached);
    assert_int_equal(v.attached_elsewhere, elsewhere);
    volume_state_done(&v);
}

static json_t *volumes(void)
{
    json_t *state = simulator_state(&node_array),
           *list = json_incref(json_object_get(state, "volumes"));

    json_decref(state);
    return list;
}

static size_t count(void)
{
    json_auto_t *list = volumes();

    return json_array_size(list);
}

static void fault(const char *action, const char *how, int times, int status, double seconds)
{
    simulator_tell(&node_array, "{s:[{s:s,s:s,s:i,s:i,s:f}]}", "faults", "action", action, "how",
                   how, "times", times, "status", status, "seconds", seconds);
}

static void setting(const char *name, double value)
{
    simulator_tell(&node_array, "{s:{s:f}}", "settings", name, value);
}

static const char *name_of(const struct uuid *id, char ret[PFX_NAME_SIZE])
{
    return pfx_name_make(&A->config.cluster, id, ret);
}
#define NAME(id) name_of((id), (char[PFX_NAME_SIZE]){0})

static char *hint(const struct node *n, const struct uuid *id)
{
    return xasprintf("%s/powerflex/volumes/%s", n->state_dir, UUID_STR(id));
}

/* As the agent does: what failed for a while is tried again. */
#define again(call)                                                                                \
    do {                                                                                           \
        struct err *again_e_ = (call);                                                             \
        for (int again_i_ = 0; again_e_ && again_i_ < 3; again_i_++) {                             \
            err_free(again_e_);                                                                    \
            again_e_ = (call);                                                                     \
        }                                                                                          \
        ok_(again_e_, #call, __LINE__);                                                            \
    } while (0)

static struct err *device(int node, const struct uuid *id)
{
    CLEANUP_FREE char *path = NULL;
    struct err *e = driver->device(at[node], id, &path);

    if (!e && !strstr(path, "/dev/scini"))
        fail_msg("the device is %s", path);
    return e;
}

static struct uuid attached(int node)
{
    struct uuid id = node_new_dataset();

    again(driver->create(at[node], &id, 8 * GIB));
    again(driver->attach(at[node], &id));
    again(device(node, &id));
    return id;
}

static void end(int node, const struct uuid *id)
{
    again(driver->detach(at[node], id));
    again(driver->destroy(at[node], id));
    is(node, id, false, false, false);
}

/* ---- answers that are lost, late, doubled, or none ---- */

static const char *const actions[] = {"create", "map", "unmap", "remove", "read",
                                      "find",   "sdc", "pool",  "pool_id"};

static void all_go_wrong(const char *how, int status, double seconds)
{
    for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
        fault(actions[i], how, 1, status, seconds);
        struct uuid id = attached(0);

        assert_int_equal(count(), 1);
        is(0, &id, true, true, false);
        end(0, &id);
        assert_int_equal(count(), 0);
    }
}

static void test_every_answer_is_lost(void **state)
{
    all_go_wrong("lost", 0, 0);
}

static void test_every_call_is_dropped(void **state)
{
    all_go_wrong("drop", 0, 0);
}

static void test_every_call_is_done_twice(void **state)
{
    all_go_wrong("twice", 0, 0);
}

static void test_every_answer_is_late(void **state)
{
    all_go_wrong("late", 0, 0.3);
}

static void test_every_call_hangs_and_breaks(void **state)
{
    all_go_wrong("hang", 0, 0.3);
}

static void test_every_answer_is_garbage(void **state)
{
    all_go_wrong("garbage", 0, 0);
}

/* The gateway is busy, or has lost its system; another time it says 500, which may mean anything. */
static void test_every_call_is_an_error(void **state)
{
    all_go_wrong("error", 503, 0);
    all_go_wrong("error", 500, 0);
    all_go_wrong("error", 401, 0);
}

/* Each of those again, for as long as the call lasts: it ends with an error, and the next one finds all as it should be. */
static void test_forbidden(void **state)
{
    static const char *const forbidden[] = {"create", "map", "unmap", "remove"};

    for (size_t i = 0; i < ARRAY_SIZE(forbidden); i++) {
        struct uuid id = node_new_dataset();
        struct err *e;

        fault(forbidden[i], "error", 100, 403, 0);
        e = driver->create(at[0], &id, 8 * GIB);
        e = e ? e : driver->attach(at[0], &id);
        e = e ? e : driver->detach(at[0], &id);
        e = e ? e : driver->destroy(at[0], &id);
        fails(e, ERR_DENIED, "role");
        simulator_tell(&node_array, "{s:[]}", "faults");
        end(0, &id);
    }
}

/* Killed before the id was written down; and another node is asked for the same: the name is taken. */
static void test_killed_before_the_hint(void **state)
{
    struct uuid id = node_new_dataset();
    CLEANUP_FREE char *path = hint(A, &id);

    ok(driver->create(at[0], &id, 8 * GIB));
    shell("rm %s", path);
    ok(driver->create(at[0], &id, 8 * GIB));
    ok(driver->create(at[1], &id, 8 * GIB));
    assert_int_equal(count(), 1);
    shell("echo -n a1b2c3d4ffffffff >%s", path); /* of a volume that is gone */
    is(0, &id, true, false, false);
    shell("echo -n ../../x >%s", path);
    is(0, &id, true, false, false);
    ok(driver->attach(at[0], &id));
    end(0, &id);
}

/* ---- killed between any two calls ---- */

static const struct uuid *life_id;

/* Ends with the volume removed; never returns. */
static void live(void)
{
    open_driver(0);
    ok(driver->create(at[0], life_id, 8 * GIB));
    ok(driver->attach(at[0], life_id));
    ok(device(0, life_id));
    ok(driver->detach(at[0], life_id));
    ok(driver->destroy(at[0], life_id));
    _exit(0);
}

/* Has the fault come to pass? */
static bool has_struck(void)
{
    json_auto_t *state = simulator_state(&node_array);
    const json_t *f = json_array_get(json_object_get(state, "faults"), 0);

    return !json_integer_value(json_object_get(f, "times"));
}

/* A process that lives the whole life of a volume is killed at its n-th call: before it was done, or after. false: it made fewer. */
static bool killed_at(int n, const char *how, const struct uuid *id)
{
    int status = 0;
    pid_t pid;

    simulator_tell(&node_array, "{s:[{s:s,s:i,s:f,s:i}]}", "faults", "how", how, "skip", n,
                   "seconds", 10.0, "times", 1);
    life_id = id;
    pid = fork();
    assert_true(pid >= 0);
    if (!pid)
        live();
    while (!has_struck() && waitpid(pid, &status, WNOHANG) == 0)
        (void)usleep(5000);
    bool killed = has_struck();

    (void)kill(pid, SIGKILL);
    if (killed)
        (void)waitpid(pid, &status, 0);
    simulator_tell(&node_array, "{s:[]}", "faults");
    return killed;
}

/* Whatever it was killed at: the next one, on either node, finds or makes the one volume, uses it, and removes it. */
static void test_killed_between_any_two_calls(void **state)
{
    static const char *const hows[] = {"hang", "stall"};
    int points = 0;

    for (size_t h = 0; h < ARRAY_SIZE(hows); h++) {
        bool killed = true;

        for (int n = 0; killed; n++) {
            struct uuid id = node_new_dataset();

            killed = killed_at(n, hows[h], &id);
            points += killed;
            assert_true(count() <= 1);
            ok(driver->detach(at[0],
                              &id)); /* as the agent does for what it owned and is to be rid of */
            int next = n % NODES;

            ok(driver->create(at[next], &id, 8 * GIB));
            ok(driver->attach(at[next], &id));
            ok(device(next, &id));
            assert_int_equal(count(), 1);
            end(next, &id);
            assert_int_equal(count(), 0);
        }
    }
    print_message("killed at %d points\n", points);
    assert_true(points >= 40);
}

struct creator {
    pthread_t thread;
    int node;
    const struct uuid *id;
    struct err *e;
};

static void *create_it(void *arg)
{
    struct creator *c = arg;

    c->e = driver->create(at[c->node], c->id, 8 * GIB);
    return NULL;
}

/* Both nodes at once, many times: whoever is second takes what the first made. */
static void test_created_at_the_same_time(void **state)
{
    for (int i = 0; i < 10; i++) {
        struct uuid id = node_new_dataset();
        struct creator two[NODES] = {{.node = 0, .id = &id}, {.node = 1, .id = &id}};

        for (int n = 0; n < NODES; n++)
            assert_int_equal(pthread_create(&two[n].thread, NULL, create_it, &two[n]), 0);
        for (int n = 0; n < NODES; n++) {
            pthread_join(two[n].thread, NULL);
            ok(two[n].e);
        }
        assert_int_equal(count(), 1);
        end(0, &id);
    }
}

static void test_lists_lag(void **state)
{
    struct volume_state *states;
    bool seen = false;
    size_t n;

    setting("lag_s", 5.0);
    struct uuid id = attached(0);

    ok(driver->list(at[0], &states, &n));
    for (size_t i = 0; i < n; i++) {
        seen =
            seen || (uuid_eq(&states[i].dataset, &id) && states[i].present && states[i].attached);
        volume_state_done(&states[i]);
    }
    free(states);
    assert_true(seen);
    setting("lag_s", 0.0);
    end(0, &id);
}

/* ---- logging in ---- */

static unsigned logins(void)
{
    json_auto_t *state = simulator_state(&node_array);

    return (unsigned)json_integer_value(json_object_get(state, "logins"));
}

static void *look_often(void *arg)
{
    struct volume_state v;

    for (int i = 0; i < 5; i++) {
        ok(driver->inspect(at[0], arg, &v));
        volume_state_done(&v);
    }
    return NULL;
}

static void test_tokens_end(void **state)
{
    struct uuid id = attached(0);
    unsigned before = logins();
    pthread_t threads[8];

    simulator_tell(&node_array, "{s:b}", "forget_tokens", 1);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        assert_int_equal(pthread_create(&threads[i], NULL, look_often, &id), 0);
    for (size_t i = 0; i < ARRAY_SIZE(threads); i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(logins(), before + 1); /* not one a thread */
    setting("idle_s", 0.2);
    (void)usleep(300000);
    is(0, &id, true, true, false);
    assert_int_equal(logins(), before + 2);
    setting("idle_s", 600.0);
    setting("life_s", 0.3);
    (void)usleep(400000);
    is(0, &id, true, true, false);
    assert_int_equal(logins(), before + 3);
    setting("life_s", 28800.0);
    end(0, &id);
}

/* 4.x: other words for the token, and numbers of errors that nobody wrote down. */
static void test_versions(void **state)
{
    static const char *const good[] = {"3.0", "3.6", "4.0", "4.5", "5.0"};

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        simulator_tell(&node_array, "{s:{s:s},s:b}", "settings", "version", good[i],
                       "forget_tokens", 1);
        struct uuid id = attached(0);
        CLEANUP_FREE char *path = hint(B, &id);

        is(1, &id, true, false, true);
        end(0, &id);
        shell("echo -n a1b2c3d4ffffffff >%s", path);
        is(1, &id, false, false, false);
        ok(driver->destroy(at[1], &id));
    }
    simulator_tell(&node_array, "{s:{s:s},s:b}", "settings", "version", "2.5", "forget_tokens", 1);
    struct uuid id = node_new_dataset();

    fails(driver->create(at[0], &id, 8 * GIB), ERR_UNSUPPORTED, "version 2.5");
}

/* ---- mapping ---- */

static void test_device_comes_late(void **state)
{
    setting("map_s", 1.0);
    struct uuid id = attached(0);

    end(0, &id);
}

static void map_by_hand(const struct uuid *id, const char *first, const char *second)
{
    if (second)
        simulator_tell(&node_array, "{s:{s:[s,s]}}", "map", NAME(id), first, second);
    else if (first)
        simulator_tell(&node_array, "{s:{s:[s]}}", "map", NAME(id), first);
    else
        simulator_tell(&node_array, "{s:{s:[]}}", "map", NAME(id));
}

/* As the list says, which one node makes for all. */
static void hosts_are(int node, const struct uuid *id, const char *wanted)
{
    struct volume_state *states;
    bool seen = false;
    size_t n;

    ok(driver->list(at[node], &states, &n));
    for (size_t i = 0; i < n; i++) {
        if (uuid_eq(&states[i].dataset, id)) {
            seen = true;
            if (!str_equal_null(states[i].hosts, wanted))
                fail_msg("on %s, not %s", states[i].hosts ? states[i].hosts : "none",
                         wanted ? wanted : "none");
        }
        volume_state_done(&states[i]);
    }
    free(states);
    assert_true(seen);
}

static void test_mapped_elsewhere(void **state)
{
    const char *a = node_instance(A), *b = node_instance(B);
    struct uuid id = attached(0);

    is(1, &id, true, false, true);
    hosts_are(1, &id, a);
    hosts_are(0, &id, a);
    fails(driver->attach(at[1], &id), ERR_BUSY, a);
    fails(driver->destroy(at[1], &id), ERR_BUSY, a);
    ok(driver->detach(at[1], &id)); /* of what is not here: nothing */
    is(0, &id, true, true, false);
    /* somebody maps it to a second host: seen by both, and refused to use */
    map_by_hand(&id, a, b);
    is(0, &id, true, true, true);
    CLEANUP_FREE char *both = xasprintf("%s %s", a, b);

    hosts_are(0, &id, both);
    fails(driver->attach(at[0], &id), ERR_BUSY, b);
    map_by_hand(&id, b, NULL); /* and takes it away from here */
    is(0, &id, true, false, true);
    map_by_hand(&id, NULL, NULL);
    hosts_are(0, &id, NULL);
    simulator_tell(&node_array, "{s:[s]}", "all_sdcs", NAME(&id));
    hosts_are(0, &id, "all");
    is(0, &id, true, false, true);
    fails(driver->attach(at[0], &id), ERR_BUSY, "all SDCs");
    simulator_tell(&node_array, "{s:b}", "reset", 1);
}

/* An operator signed that A is off: that is enough only when PowerFlex has lost it, too. */
static void test_taken_from_a_host_that_is_gone(void **state)
{
    const char *a = node_instance(A);
    struct uuid id = attached(0);
    const struct uuid *node = &A->config.node;

    fails(driver->detach_from(at[1], &id, node), ERR_BUSY, a);
    is(0, &id, true, true, false);
    simulator_tell(&node_array, "{s:{s:s}}", "states", a, "Disconnected");
    fault("unmap", "lost", 1, 0, 0);
    ok(driver->detach_from(at[1], &id, node));
    ok(driver->detach_from(at[1], &id, node));
    is(1, &id, true, false, false);
    ok(driver->attach(at[1], &id));
    fails(device(0, &id), ERR_NOT_FOUND, "not attached"); /* A comes back */
    simulator_tell(&node_array, "{s:{s:s}}", "states", a, "Connected");
    ok(driver->detach_from(at[1], &id, node)); /* what is here stays */
    is(1, &id, true, true, false);
    end(1, &id);
    ok(driver->detach_from(at[1], &id, node));
}

/* A person has mapped it to another machine as well: which of the two is off, nobody can tell. */
static void test_not_taken_from_a_stranger(void **state)
{
    const char *a = node_instance(A);
    struct uuid id = attached(0);

    map_by_hand(&id, a, NODE_STRANGER);
    simulator_tell(&node_array, "{s:{s:s,s:s}}", "states", a, "Disconnected", NODE_STRANGER, "Disconnected");
    fails(driver->detach_from(at[1], &id, &A->config.node), ERR_BUSY, "several other SDCs");
    is(0, &id, true, true, true);
    map_by_hand(&id, a, NULL);
    ok(driver->detach_from(at[1], &id, &A->config.node));
    is(0, &id, true, false, false);
    simulator_tell(&node_array, "{s:{s:s,s:s}}", "states", a, "Connected", NODE_STRANGER, "Connected");
    end(0, &id);
}

/* Somebody took it away between the look and the order, or was faster. */
static void test_mapped_between(void **state)
{
    struct uuid id = node_new_dataset();

    ok(driver->create(at[0], &id, 8 * GIB));
    fault("map", "lost", 1, 0, 0);
    ok(driver->attach(at[0], &id));
    fault("unmap", "lost", 1, 0, 0);
    ok(driver->detach(at[0], &id));
    fails(device(0, &id), ERR_NOT_FOUND, "not attached");
    end(0, &id);
}

/* The host was removed from the system and came back: it is the same by its GUID, with another id. */
static void test_new_id_of_the_host(void **state)
{
    struct uuid id = node_new_dataset();

    ok(driver->create(at[0], &id, 8 * GIB));
    simulator_tell(&node_array, "{s:b}", "new_sdc_ids", 1);
    ok(driver->attach(at[0], &id));
    is(0, &id, true, true, false);
    ok(device(0, &id));
    end(0, &id);
}

static void test_busy_is_not_forced(void **state)
{
    struct uuid id = attached(0);
    CLEANUP_FREE char *path = NULL;

    ok(driver->device(at[0], &id, &path));
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);

    assert_true(fd >= 0);
    fails(driver->detach(at[0], &id), ERR_BUSY, path);
    assert_int_equal(simulator_calls(&node_array, "unmap"), 0);
    mem_closep(&fd);
    end(0, &id);
}

/* Links are udev's, and may be old: they are looked at each time. */
static void test_device_is_another(void **state)
{
    struct uuid id = attached(0), other = attached(0);
    CLEANUP_FREE char *by_id = xasprintf("%s/0/host/dev/disk/by-id", node_dir);

    ok(device(0, &id));
    shell("cd %s && set -- * && mv $1 kept && ln -s $(readlink $2) $1", by_id);
    fails(device(0, &id), ERR_CORRUPT, "neither is used");
    fails(driver->detach(at[0], &id), ERR_CORRUPT, "neither is used");
    shell("cd %s && set -- emc-vol-* && mv -f kept $1", by_id);
    ok(device(0, &id));
    /* another size: the file behind it was cut */
    CLEANUP_FREE char *path = NULL;

    ok(driver->device(at[0], &id, &path));
    CLEANUP_FREE char *file = node_volume_file(&id);

    shell("truncate -s 4G %s && losetup -c $(losetup -n -O NAME -j %s)", file, file);
    fails(device(0, &id), ERR_CORRUPT, "instead of 8589934592");
    shell("truncate -s 8G %s && losetup -c $(losetup -n -O NAME -j %s)", file, file);
    shell("rm %s/emc-vol-*", by_id);
    fails(device(0, &id), ERR_UNAVAILABLE, "drv_cfg");
    ok(driver->detach(at[0], &id)); /* without a device there is nobody to hold it */
    end(0, &id);
    end(0, &other);
}

/* ---- whose volumes ---- */

static void test_volumes_of_others(void **state)
{
    struct uuid id = node_new_dataset();
    char name[PFX_NAME_SIZE];
    size_t n;
    struct volume_state *states;

    ok(driver->create(at[0], &id, 8 * GIB));
    (void)snprintf(name, sizeof(name), "%s", NAME(&id));
    name[PFX_NAME_SIZE - 2] ^= 1; /* a digit of the cluster */
    simulator_tell(&node_array, "{s:{s:s}}", "rename", NAME(&id), name);
    is(0, &id, false, false, false);
    fails(driver->attach(at[0], &id), ERR_NOT_FOUND, "no volume");
    ok(driver->destroy(at[0], &id));
    assert_int_equal(count(), 1);
    ok(driver->list(at[1], &states, &n));
    for (size_t i = 0; i < n; i++) /* what is known by hints alone is listed, too */
        assert_false(states[i].present);
    free(states);
    /* Back, as a volume of Flocker 1 that this node never saw: adopted. */
    simulator_tell(&node_array, "{s:{s:s}}", "rename", name, NAME(&id));
    is(0, &id, true, false, false);
    ok(driver->create(at[0], &id, 8 * GIB));
    assert_int_equal(count(), 1);
    end(0, &id);
}

static void test_pools(void **state)
{
    struct uuid id = node_new_dataset();

    simulator_tell(&node_array, "{s:{s:b}}", "settings", "zero_padding", 0);
    fails(driver->create(at[0], &id, 8 * GIB), ERR_UNSUPPORTED, "zero padding");
    simulator_tell(&node_array, "{s:{s:b,s:i}}", "settings", "zero_padding", 1, "room_kb", 1 << 20);
    fails(driver->create(at[0], &id, 8 * GIB), ERR_IO, "Not enough capacity");
    assert_int_equal(count(), 0);
    simulator_tell(&node_array, "{s:{s:I}}", "settings", "room_kb", (json_int_t)1 << 40);
    ok(driver->create(at[0], &id, 0));
    json_auto_t *list = volumes();

    assert_int_equal(json_integer_value(json_object_get(json_array_get(list, 0), "sizeInKb")),
                     80 << 20); /* 75 GiB, in steps of 8 */
    end(0, &id);
}

/* ---- growing ---- */

/* Of the volume; device and file system are the conformance suite's. */
static void test_grow(void **state)
{
    static const char *const hows[] = {"none", "lost", "twice", "drop", "late"};
    struct uuid id = attached(0);

    for (size_t i = 0; i < ARRAY_SIZE(hows); i++) {
        struct volume_state v = {0};

        fault("resize", hows[i], 1, 0, 0.3);
        ok(driver->grow(at[0], &id, (2 + i) * 8 * GIB));
        ok(driver->grow(at[0], &id, 8 * GIB)); /* never smaller */
        ok(driver->inspect(at[0], &id, &v));
        assert_int_equal(v.size, (2 + i) * 8 * GIB);
        volume_state_done(&v);
    }
    fault("resize", "error", 100, 403, 0);
    fails(driver->grow(at[0], &id, 80 * GIB), ERR_DENIED, "role");
    simulator_tell(&node_array, "{s:[]}", "faults");
    end(0, &id);
    fails(driver->grow(at[0], &id, 80 * GIB), ERR_NOT_FOUND, NULL);
}

/* ---- what it costs ---- */

static unsigned all_calls(void)
{
    json_auto_t *state = simulator_state(&node_array);
    json_t *n;
    const char *action;
    unsigned sum = 0;

    json_object_foreach (json_object_get(state, "calls"), action, n)
        sum += (unsigned)json_integer_value(n);
    return sum;
}

/* docs/powerflex.md says these. */
static void test_costs(void **state)
{
    struct uuid id = node_new_dataset();
    struct volume_state *states;
    size_t n;
    unsigned before = all_calls();

    ok(driver->create(at[0], &id, 8 * GIB));
    /* unknown by name, and held against the list; domain, pool, its properties; the creation */
    assert_int_equal(all_calls() - before, 6);
    before = all_calls();
    ok(driver->attach(at[0],
                      &id)); /* this host; the volume; before the order; the order; after it */
    assert_int_equal(all_calls() - before, 5);
    before = all_calls();
    is(0, &id, true, true, false);
    assert_int_equal(all_calls() - before, 1);
    before = all_calls();
    ok(driver->list(at[0], &states, &n));
    assert_int_equal(all_calls() - before, 1);
    for (size_t i = 0; i < n; i++)
        volume_state_done(&states[i]);
    free(states);
    before = all_calls();
    ok(driver->detach(at[0], &id));
    assert_int_equal(all_calls() - before, 4);
    before = all_calls();
    ok(driver->destroy(at[0], &id)); /* the volume; the order; by id; by name; the list */
    assert_int_equal(all_calls() - before, 5);
}

/* ---- agent.yml ---- */

static void opens(const char *key, json_t *value, const char *part)
{
    struct storage_config c = A->config;
    struct storage *s = NULL;
    json_t *o = json_deep_copy(A->config.dataset);

    if (value)
        (void)json_object_set_new(o, key, value);
    else
        (void)json_object_del(o, key);
    c.dataset = o;
    struct err *e = storage_open(&c, &s);

    if (part && (!e || !strstr(e->text, part) || strstr(e->text, PASSWORD)))
        fail_msg("%s: wanted %s, got: %s", key, part, e ? e->text : "success");
    if (!part)
        ok(e);
    else
        err_free(e);
    storage_close(s);
    json_decref(o);
}

static void test_options(void **state)
{
    opens("backend", json_string("scaleio"), NULL);
    opens("backend", json_string("powerflex"), NULL);
    opens("debug", json_string("DEBUG"), NULL); /* of Flocker 1; means nothing any more */
    opens("provisioning", json_string("thick"), NULL);
    opens("username", NULL, "Required key username is missing.");
    opens("password", NULL, "Required key password is missing.");
    opens("mdm", NULL, "Required key mdm is missing.");
    opens("ssl", NULL, "Required key ssl is missing.");
    opens("password", json_string("wrong"), "are username and password right?");
    opens("username", json_string("a:b"), "colon");
    opens("mdm", json_string("https://x/"), "host name or address");
    opens("provisioning", json_string("fat"), "thin or thick");
    opens("ssl", json_false(), "certificate needs ssl: true");
    opens("port", json_integer(70000), "65535");
    opens("port", json_integer(1), "cannot be reached");
    opens("certificate", NULL, "certificate"); /* the system knows nothing of this authority */
    opens("certificate", json_string("/nonexistent"), "/nonexistent");
    opens("protection_domain", json_string("d/1"), "cannot find protection domain 'd/1'");
    opens("storage_pool", json_string("fast"),
          "cannot find storage pool 'fast' in protection domain 'default'");
    opens("sdc_guid", json_string("x"), "GUID of an SDC");
    opens("sdc_guid", json_string("9E56672F-2F4B-4A42-BFF4-000000000000"),
          "knows no SDC with the GUID 9e56672f-2f4b-4a42-bff4-000000000000");
    opens("sdc_guid", NULL, "Could not find valid instance ID for this node");
    opens("host_root", json_string("x"), "absolute");
}

static int run(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_options, fresh, done),
        cmocka_unit_test_setup_teardown(test_costs, fresh, done),
        cmocka_unit_test_setup_teardown(test_every_answer_is_lost, fresh, done),
        cmocka_unit_test_setup_teardown(test_every_call_is_dropped, fresh, done),
        cmocka_unit_test_setup_teardown(test_every_call_is_done_twice, fresh, done),
        cmocka_unit_test_setup_teardown(test_every_answer_is_late, fresh, done),
        cmocka_unit_test_setup_teardown(test_every_call_hangs_and_breaks, fresh, done),
        cmocka_unit_test_setup_teardown(test_every_answer_is_garbage, fresh, done),
        cmocka_unit_test_setup_teardown(test_every_call_is_an_error, fresh, done),
        cmocka_unit_test_setup_teardown(test_forbidden, fresh, done),
        cmocka_unit_test_setup_teardown(test_killed_before_the_hint, fresh, done),
        cmocka_unit_test_setup_teardown(test_killed_between_any_two_calls, fresh, done),
        cmocka_unit_test_setup_teardown(test_created_at_the_same_time, fresh, done),
        cmocka_unit_test_setup_teardown(test_lists_lag, fresh, done),
        cmocka_unit_test_setup_teardown(test_tokens_end, fresh, done),
        cmocka_unit_test_setup_teardown(test_versions, fresh, done),
        cmocka_unit_test_setup_teardown(test_device_comes_late, fresh, done),
        cmocka_unit_test_setup_teardown(test_mapped_elsewhere, fresh, done),
        cmocka_unit_test_setup_teardown(test_not_taken_from_a_stranger, fresh, done),
        cmocka_unit_test_setup_teardown(test_taken_from_a_host_that_is_gone, fresh, done),
        cmocka_unit_test_setup_teardown(test_mapped_between, fresh, done),
        cmocka_unit_test_setup_teardown(test_new_id_of_the_host, fresh, done),
        cmocka_unit_test_setup_teardown(test_busy_is_not_forced, fresh, done),
        cmocka_unit_test_setup_teardown(test_device_is_another, fresh, done),
        cmocka_unit_test_setup_teardown(test_volumes_of_others, fresh, done),
        cmocka_unit_test_setup_teardown(test_pools, fresh, done),
        cmocka_unit_test_setup_teardown(test_grow, fresh, done),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    return node_main(argc, argv, run);
}
