/* The backend xtremio where the conformance suite does not look: what the array does wrong, late or twice, what a killed agent leaves, paths
 * and maps, groups, and whose volumes are whose. */
#include "base/str.h"
#include "drivers/storage.h"
#include "xtremio_nodes.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define FULL "FLOCKER_TEST_FULL"

/* ---- answers that are lost, late or doubled ---- */

static void test_every_call_goes_wrong(void **state)
{
    static const char *const actions[] = {"POST volumes",   "POST lun-maps",    "DELETE lun-maps",
                                          "DELETE volumes", "GET volumes",      "GET lun-maps",
                                          "GET initiators", "GET iscsi-portals"};
    static const char *const hows[] = {"lost", "drop", "twice", "late", "hang"};

    for (size_t i = 0; i < ARRAY_SIZE(actions) * ARRAY_SIZE(hows); i++) {
        simulator_tell(&node_array, "{s:[{s:s,s:s,s:f}]}", "faults", "action",
                       actions[i % ARRAY_SIZE(actions)], "how", hows[i / ARRAY_SIZE(actions)],
                       "seconds", 0.3);
        struct uuid id = node_mounted(A, SIZE);

        assert_int_equal(volumes(), 1);
        node_shows(A, &id, true, true, false);
        node_end(A, &id);
        assert_int_equal(volumes(), 0);
    }
}

/* What is no answer of an XMS is no answer: an error, and the next try is the right one. */
static void test_garbage(void **state)
{
    struct uuid id = node_new_dataset();

    simulator_tell(&node_array, "{s:[{s:s}]}", "faults", "how", "garbage");
    fails(storage_create(A->storage, &id, SIZE, NULL, 1), ERR_CORRUPT, "not JSON");
    ok(storage_create(A->storage, &id, SIZE, NULL, 1));
    ok(storage_destroy(A->storage, &id));
}

static void test_array_is_busy(void **state)
{
    setting("busy", 1);
    struct uuid id = node_mounted(A, SIZE);

    node_end(A, &id);
}

static void test_array_is_full(void **state)
{
    struct uuid id = node_new_dataset();

    setting("volumes_max", 0);
    fails(storage_create(A->storage, &id, SIZE, NULL, 1), ERR_NO_SPACE, "too_many_objs");
    node_shows(A, &id, false, false, false);
}

/* ---- killed between any two calls ---- */

static void whole_life(const struct uuid *id, uint64_t epoch)
{
    node_open(A);
    ok(storage_create(A->storage, id, SIZE, NULL, epoch));
    ok(storage_mount(A->storage, id, epoch));
    ok(storage_release(A->storage, id, epoch, 1, ""));
    ok(storage_destroy(A->storage, id));
    node_shows(A, id, false, false, false);
    node_close(A);
}

static pid_t live_in_a_child(const struct uuid *id)
{
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (!pid) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        whole_life(id, 1);
        _exit(0);
    }
    return pid;
}

static unsigned calls(void)
{
    json_t *state = simulator_state(&node_array), *n;
    const char *action;
    unsigned sum = 0;

    json_object_foreach (json_object_get(state, "calls"), action, n)
        sum += (unsigned)json_integer_value(n);
    json_decref(state);
    return sum;
}

/* The n-th call is the last that reaches the array, with an answer or without; then the process is killed. false: it came to its end. */
static bool killed_after(unsigned n, bool answered)
{
    struct uuid id = node_new_dataset();
    int status = 0;

    simulator_tell(&node_array, "{s:b, s:b}", "reset", 1, "forget_calls", 1);
    simulator_tell(&node_array, "{s:[{s:s,s:i,s:i},{s:s,s:i,s:i}]}", "faults", "how",
                   answered ? "none" : "lost", "skip", (int)n - 1, "times", 1, "how", "drop",
                   "skip", (int)n - 1, "times", 1000000);
    pid_t child = live_in_a_child(&id);

    while (calls() <= n && waitpid(child, &status, WNOHANG) == 0)
        (void)usleep(5000);
    if (waitpid(child, &status, WNOHANG) > 0 || kill(child, 0) < 0)
        return false;
    helper_stop(child);
    simulator_tell(&node_array, "{s:[]}", "faults");
    assert_true(volumes() <= 1);
    CLEANUP_FREE char *place = node_place(A, &id);

    shell("! mountpoint -q %s || umount %s", place, place); /* as after a reboot */
    whole_life(&id, 2);
    return true;
}

static void test_killed_between_any_two_calls(void **state)
{
    unsigned step = getenv(FULL) ? 1 : 2;
    unsigned n = 1;

    node_close(A);
    while (killed_after(n, /* answered= */ n % 4 < 2)) {
        if (step == 1)
            assert_true(killed_after(n, n % 4 >= 2));
        assert_int_equal(volumes(), 0);
        assert_int_equal(violations(), 0);
        n += step;
    }
    print_message("killed after each of %u calls\n", n - 1);
    assert_true(n > 20);
    simulator_tell(&node_array, "{s:b}", "reset", 1);
    node_open(A);
}

/* ---- two nodes, one volume ---- */

/* The array maps a volume to whoever asks: who finds that it is not alone steps back. */
static void test_both_map_at_once(void **state)
{
    struct uuid id = node_new_dataset();
    char name[XTREMIO_VOLUME_NAME_SIZE];

    ok(storage_create(A->storage, &id, SIZE, NULL, 1));
    ok(storage_claim(B->storage, &id, 2));
    name_of(&id, name);
    /* A's map comes while B's call is under way. */
    simulator_tell(&node_array, "{s:{s:s}}", "map_with_next", name, "node-a");
    fails(storage_mount(B->storage, &id, 2), ERR_BUSY, "is attached to node-a");
    node_shows(B, &id, true, false, true);
    assert_int_equal(paths("node-b", &id, NULL), 0);
    ok(storage_mount(A->storage, &id, 1));
    node_end(A, &id);
    ok(storage_drop(B->storage, &id));
}

static void test_attached_elsewhere(void **state)
{
    struct uuid id = node_mounted(A, SIZE);

    node_shows(B, &id, true, false, true);
    ok(storage_claim(B->storage, &id, 2));
    fails(storage_mount(B->storage, &id, 2), ERR_BUSY, "is attached to node-a");
    fails(storage_destroy(B->storage, &id), ERR_BUSY, "node-a");
    node_shows(A, &id, true, true, false);
    node_end(A, &id);
    ok(storage_drop(B->storage, &id));
}

/* Taken away while the host was on: its disk is still there, and its LUN is not given to another volume. */
static void test_taken_away_under_a_host(void **state)
{
    struct uuid id = node_mounted(A, SIZE), more[3];
    struct volume_state v = node_look(A, &id);
    struct stat before, after;

    assert_int_equal(stat(v.device, &before), 0);
    setting("cut", 1);
    ok(storage_claim(B->storage, &id, 2));
    ok(storage_take_away(B->storage, &id, 2, &A->config.node, 1));
    setting("cut", 0);
    node_shows(A, &id, true, false, false);
    for (size_t i = 0; i < ARRAY_SIZE(more); i++) {
        more[i] = node_mounted(A, SIZE);
        struct volume_state w = node_look(A, &more[i]);

        assert_string_not_equal(w.device, v.device);
        volume_state_done(&w);
    }
    assert_int_equal(stat(v.device, &after), 0);
    assert_int_equal(before.st_rdev, after.st_rdev);
    for (size_t i = 0; i < ARRAY_SIZE(more); i++)
        node_end(A, &more[i]);
    volume_state_done(&v);
    CLEANUP_FREE char *place = node_place(A, &id);

    shell("umount %s", place);
    ok(storage_drop(A->storage, &id)); /* the old disk goes */
    assert_int_equal(paths("node-a", &id, NULL), 0);
    ok(storage_destroy(B->storage, &id));
}

/* ---- paths ---- */

static void test_multipath(void **state)
{
    bool map;

    simulator_tell(&node_array, "{s:{s:i,s:b}}", "settings", "paths", 2, "multipath", 1);
    struct uuid id = node_mounted(A, SIZE);
    struct volume_state v = node_look(A, &id);

    assert_int_equal(paths("node-a", &id, &map), 2);
    assert_true(map);
    assert_non_null(strstr(v.device, "/dev/dm-"));
    volume_state_done(&v);
    ok(storage_release(A->storage, &id, 1, 1, ""));
    assert_int_equal(paths("node-a", &id, NULL), 0);
    ok(storage_claim(B->storage, &id, 2));
    ok(storage_mount(B->storage, &id, 2));
    ok(storage_release(B->storage, &id, 2, 1, ""));
    ok(storage_destroy(B->storage, &id));
    ok(storage_drop(A->storage, &id));
}

static void with_multipathd(struct node *n, bool on)
{
    CLEANUP_FREE char *pid = xasprintf("%s/%d/host/run/multipathd.pid", node_dir, (int)(n - nodes));

    shell(on ? "echo 1 >%s" : "rm %s", pid);
}

/* multipathd runs, but makes no map: a path alone would never come into one. And two paths without it are no device. */
static void test_paths_without_a_map(void **state)
{
    struct uuid id = node_new_dataset();

    simulator_tell(&node_array, "{s:{s:i,s:b,s:b}}", "settings", "paths", 2, "multipath", 1, "maps",
                   0);
    ok(storage_create(A->storage, &id, SIZE, NULL, 1));
    err_free(storage_mount(A->storage, &id, 1)); /* there may have been one only, at that moment */
    fails(storage_mount(A->storage, &id, 1), ERR_CONFLICT, "no multipath map");
    with_multipathd(A, true);
    simulator_tell(&node_array, "{s:{s:b}}", "settings", "maps", 1);
    simulator_tell(&node_array, "{s:[s]}", "make_maps", "node-a");
    ok(storage_mount(A->storage, &id, 1));
    node_end(A, &id);
    with_multipathd(A, false);
}

/* The kernel shows another volume at the LUN that was asked for. */
static void test_device_is_another(void **state)
{
    struct uuid id = node_new_dataset();

    ok(storage_create(A->storage, &id, SIZE, NULL, 1));
    ok(storage_mount(A->storage, &id, 1));
    ok(storage_unmount(A->storage, &id));
    shell("for f in %s/0/host/sys/block/sd*/size; do cp $f %s/size; echo 8 >$f; done", node_dir,
          node_dir);
    fails(storage_mount(A->storage, &id, 1), ERR_CORRUPT, "instead of 67108864");
    shell("for f in %s/0/host/sys/block/sd*/size; do cp %s/size $f; done", node_dir, node_dir);
    ok(storage_mount(A->storage, &id, 1));
    node_end(A, &id);
}

static void test_busy_is_not_forced(void **state)
{
    struct uuid id = node_mounted(A, SIZE);
    struct volume_state v = node_look(A, &id);

    ok(storage_unmount(A->storage, &id));
    CLEANUP_CLOSE int fd = open(v.device, O_RDONLY | O_EXCL | O_CLOEXEC);

    assert_true(fd >= 0);
    fails(storage_release(A->storage, &id, 1, 1, ""), ERR_BUSY, NULL);
    assert_int_equal(simulator_calls(&node_array, "DELETE lun-maps"), 0);
    assert_int_equal(paths("node-a", &id, NULL), 1);
    mem_closep(&fd);
    volume_state_done(&v);
    node_end(A, &id);
}

/* ---- the host ---- */

static void test_fibre_channel(void **state)
{
    node_close(A);
    simulator_tell(&node_array, "{s:b}", "reset", 1); /* before this node has a group */
    simulator_tell(&node_array, "{s:[s,s]}", "logout", "node-a", "node-b");
    ok(open_with(A, json_pack("{s:s}", "protocol", "fc")));
    struct uuid id = node_mounted(A, SIZE);

    assert_int_equal(paths("node-a", &id, NULL), 1);
    node_end(A, &id);
    json_t *now = simulator_state(&node_array);

    assert_int_equal(json_array_size(json_object_get(now, "initiators")), 2);
    json_decref(now);
}

static void test_logs_in(void **state)
{
    struct uuid id = node_new_dataset();

    ok(storage_create(A->storage, &id, SIZE, NULL, 1));
    simulator_tell(&node_array, "{s:[s]}", "logout", "node-a");
    node_close(A);
    ok(open_with(A, json_pack("{s:b}", "iscsi_login", 0)));
    fails(storage_mount(A->storage, &id, 1), ERR_UNAVAILABLE, "no iSCSI session");
    fails(storage_mount(A->storage, &id, 1), ERR_UNAVAILABLE, "iscsi_login: true");
    node_close(A);
    ok(open_with(A, json_object())); /* logs in, */
    simulator_tell(&node_array, "{s:[s]}", "logout", "node-a");
    ok(storage_mount(A->storage, &id, 1)); /* and does so again */
    node_end(A, &id);
    json_t *now = simulator_state(&node_array), *ran = json_object_get(now, "programs");
    CLEANUP_FREE char *text = json_dumps(ran, 0);

    assert_non_null(strstr(text, "\"node.startup\", \"-v\", \"manual\""));
    assert_null(strstr(text, "secret"));
    json_decref(now);
}

static void test_rebooted(void **state)
{
    struct uuid id = node_mounted(A, SIZE);

    node_reboot(A);
    assert_int_equal(paths("node-a", &id, NULL), 0);
    node_shows(A, &id, true, true, false);
    ok(storage_mount(A->storage, &id, 1));
    node_end(A, &id);
}

/* ---- groups ---- */

static void groups(const char *name, const char *port)
{
    simulator_tell(&node_array, "{s:{s:[s]}}", "groups", name, port);
}

static void test_group_that_people_made(void **state)
{
    node_close(A);
    simulator_tell(&node_array, "{s:b}", "reset", 1);
    groups("esx-17", "iqn.2026-01.test:node-a");
    node_open(A);
    struct uuid id = node_mounted(A, SIZE);

    ok(storage_claim(B->storage, &id, 2));
    fails(storage_mount(B->storage, &id, 2), ERR_BUSY, "is attached to esx-17");
    ok(storage_drop(B->storage, &id));

    node_end(A, &id);
}

/* What is mapped to it would be seen by another host. */
static void test_group_with_another_host(void **state)
{
    node_close(A);
    simulator_tell(&node_array, "{s:b}", "reset", 1);
    groups("node-a", "iqn.2026-01.test:stranger");
    fails(storage_open(&A->config, &A->storage), ERR_INVALID, "which is not this node's");
    groups("node-a", "iqn.2026-01.test:node-a");
    fails(storage_open(&A->config, &A->storage), ERR_INVALID, "which is not this node's");
    simulator_tell(&node_array, "{s:b}", "reset", 1);
    groups("one", "10:00:00:00:c9:00:00:01");
    groups("two", "10:00:00:00:c9:00:00:02");
    fails(open_with(A, json_pack("{s:s}", "protocol", "fc")), ERR_INVALID,
          "in two initiator groups");
    simulator_tell(&node_array, "{s:b}", "reset", 1);
    node_open(A);
}

/* ---- whose volumes ---- */

static void test_volumes_of_flocker_1(void **state)
{
    struct uuid id = node_new_dataset();
    char name[XTREMIO_VOLUME_NAME_SIZE], other[UUID_TEXT_SIZE];
    CLEANUP_FREE char *old = xasprintf("block-%s", UUID_STR(&id));
    CLEANUP_FREE char *ours = xasprintf(XTREMIO_FOLDER "%s", UUID_STR(&A->config.cluster));
    CLEANUP_FREE char *theirs = xasprintf(XTREMIO_FOLDER "%s", uuid_format(&id, other));

    ok(storage_create(A->storage, &id, SIZE, NULL, 1));
    name_of(&id, name);
    simulator_tell(&node_array, "{s:{s:s}}", "rename", name, old);
    node_shows(A, &id, false, false, false);
    simulator_tell(&node_array, "{s:{s:[s,s]}}", "tags", old, "/Volume", theirs);
    node_shows(A, &id, false, false, false);
    simulator_tell(&node_array, "{s:{s:[s,s]}}", "tags", old, "/Volume", ours);
    node_shows(A, &id, true, false, false);
    ok(storage_create(A->storage, &id, SIZE, NULL, 1));
    assert_int_equal(volumes(), 1);
    ok(storage_mount(A->storage, &id, 1));
    struct volume_state *states;
    size_t n, seen = 0;

    ok(storage_list(A->storage, &states, &n));
    for (size_t i = 0; i < n; i++) {
        seen += uuid_eq(&states[i].dataset, &id) && states[i].attached && states[i].mounted;
        volume_state_done(&states[i]);
    }
    free(states);
    assert_int_equal(seen, 1);
    node_end(A, &id);
}

/* Another cluster on the same array: neither seen nor touched, and with the same dataset (a cluster that was copied) two volumes. */
static void test_volumes_of_another_cluster(void **state)
{
    struct uuid id = node_new_dataset(), cluster = B->config.cluster;
    struct volume_state *states;
    size_t n;

    ok(storage_create(A->storage, &id, SIZE, NULL, 1));
    node_close(B);
    B->config.cluster = node_new_dataset();
    node_open(B);
    node_shows(B, &id, false, false, false);
    ok(storage_list(B->storage, &states, &n));
    assert_int_equal(n, 0);
    free(states);
    ok(storage_create(B->storage, &id, SIZE, NULL, 1));
    assert_int_equal(volumes(), 2);
    ok(storage_destroy(B->storage, &id));
    assert_int_equal(volumes(), 1);
    node_close(B);
    B->config.cluster = cluster;
    node_open(B);
    ok(storage_destroy(A->storage, &id));
}

static void test_sizes(void **state)
{
    struct uuid id = node_new_dataset();

    ok(storage_create(A->storage, &id, SIZE + 1, NULL, 1));
    struct volume_state v = node_look(A, &id);

    assert_int_equal(v.size, SIZE + (1 << 20)); /* rounded up; Flocker 1 cut */
    volume_state_done(&v);
    ok(storage_destroy(A->storage, &id));
}

/* ---- agent.yml ---- */

static void opens(const char *key, json_t *value, const char *part)
{
    struct storage *was = A->storage;
    struct err *e = open_with(A, json_pack("{s:o}", key, value));

    if (part && (!e || !strstr(e->text, part) || strstr(e->text, "secret")))
        fail_msg("%s: wanted %s, got: %s", key, part, e ? e->text : "success");
    if (!part)
        ok(e);
    else
        err_free(e);
    if (A->storage != was)
        storage_close(A->storage);
    A->storage = was;
}

static void test_options(void **state)
{
    opens("xms_password", json_string("wrong"), "check xms_user and xms_password");
    opens("xms_user", json_string("a:b"), "without ':'");
    opens("xms_ip", json_string("https://x/"), "must be a host or an address");
    opens("xms_ip", json_string("127.0.0.1:1"), "cannot be reached");
    opens("ca_file", json_string("/dev/null"), "certificate file: /dev/null");
    opens("protocol", json_string("nvme"), "iscsi or fc");
    opens("multipath", json_string("no"), "must be true or false");
    opens("host_root", json_string("x"), "absolute");
    opens("compute_instance_id", json_string("17"), "for a number");
    opens("compute_instance_id", json_string("a b"), "initiator group");
    opens("cluster_name", json_string("xbrick2"), "xbrick1");
    opens("cluster_name", json_string("xbrick1"), NULL);
    simulator_tell(&node_array, "{s:{s:[s,s]}}", "settings", "clusters", "xbrick1", "xbrick2");
    opens("protocol", json_string("iscsi"), "xbrick1 xbrick2");
    opens("cluster_name", json_string("xbrick2"), NULL);
}

/* A certificate that nobody vouches for is refused, whatever it is. */
static void test_certificate(void **state)
{
    struct storage_config c = A->config;
    struct storage *s = NULL;
    json_t *o = json_deep_copy(A->config.dataset);

    (void)json_object_del(o, "ca_file");
    c.dataset = o;
    fails(storage_open(&c, &s), ERR_DENIED, "certificate");
    json_decref(o);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        WITH_ARRAY(test_options),
        WITH_ARRAY(test_certificate),
        WITH_ARRAY(test_every_call_goes_wrong),
        WITH_ARRAY(test_garbage),
        WITH_ARRAY(test_array_is_busy),
        WITH_ARRAY(test_array_is_full),
        WITH_ARRAY(test_killed_between_any_two_calls),
        WITH_ARRAY(test_both_map_at_once),
        WITH_ARRAY(test_attached_elsewhere),
        WITH_ARRAY(test_taken_away_under_a_host),
        WITH_ARRAY(test_multipath),
        WITH_ARRAY(test_paths_without_a_map),
        WITH_ARRAY(test_device_is_another),
        WITH_ARRAY(test_busy_is_not_forced),
        WITH_ARRAY(test_fibre_channel),
        WITH_ARRAY(test_logs_in),
        WITH_ARRAY(test_rebooted),
        WITH_ARRAY(test_group_that_people_made),
        WITH_ARRAY(test_group_with_another_host),
        WITH_ARRAY(test_volumes_of_flocker_1),
        WITH_ARRAY(test_volumes_of_another_cluster),
        WITH_ARRAY(test_sizes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    return node_main(argc, argv, run);
}
