/* The backend aws where the conformance suite does not look: what EC2 does wrong, late or twice, and whose volumes are whose. */
#include "base/now.h"
#include "base/str.h"
#include "drivers/aws/aws.h"
#include "drivers/storage_priv.h"
#include "node.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define A (&nodes[0])
#define B (&nodes[1])
#define GIB (1ull << 30)

static int fresh(void **state)
{
    fake_ec2_tell(&node_ec2, "{s:[],s:b,s:{s:f,s:f,s:f,s:f,s:f,s:f,s:i,s:i,s:s}}", "faults",
                  "forget_calls", 1, "settings", "create_s", 0.0, "attach_s", 0.0, "detach_s", 0.0,
                  "delete_s", 0.0, "invisible_s", 0.0, "lag_s", 0.0, "page_max", 500, "attach_max",
                  27, "bus", "nvme");
    return 0;
}

static size_t volumes(void)
{
    json_t *state = fake_ec2_state(&node_ec2), *v;
    size_t i, n = 0;

    json_array_foreach (json_object_get(state, "volumes"), i, v)
        n += !streq(json_string_value(json_object_get(v, "status")), "deleted");
    json_decref(state);
    return n;
}

static void fault(const char *action, const char *how)
{
    fake_ec2_tell(&node_ec2, "{s:[{s:s,s:s}]}", "faults", "action", action, "how", how);
}

static void one_setting(const char *name, double value)
{
    fake_ec2_tell(&node_ec2, "{s:{s:f}}", "settings", name, value);
}

/* ---- answers that are lost, late or doubled ---- */

static void test_every_call_goes_wrong(void **state)
{
    static const char *const actions[] = {"CreateVolume", "AttachVolume", "DetachVolume",
                                          "DeleteVolume", "DescribeVolumes"};
    static const char *const hows[] = {"lost", "drop", "twice"};

    for (size_t i = 0; i < ARRAY_SIZE(actions) * ARRAY_SIZE(hows); i++) {
        fault(actions[i % ARRAY_SIZE(actions)], hows[i / ARRAY_SIZE(actions)]);
        struct uuid id = node_mounted(A, GIB);

        assert_int_equal(volumes(), 1);
        node_shows(A, &id, true, true, false);
        node_end(A, &id);
        assert_int_equal(volumes(), 0);
    }
}

/* All of it slow, as it really is, and unknown at first. */
static void test_slow_and_invisible(void **state)
{
    static const char *const slow[] = {"create_s", "attach_s", "detach_s", "delete_s",
                                       "invisible_s"};

    for (size_t i = 0; i < ARRAY_SIZE(slow); i++)
        one_setting(slow[i], 0.6);
    struct uuid id = node_mounted(A, GIB);

    assert_int_equal(volumes(), 1);
    node_end(A, &id);
}

/* Lists show what was two seconds ago: nothing is made twice, and this node knows its own volumes. */
static void test_lists_lag(void **state)
{
    one_setting("lag_s", 2.0);
    struct uuid id = node_mounted(A, GIB);

    node_shows(A, &id, true, true, false);
    ok(storage_create(A->storage, &id, GIB, NULL, 1));
    node_reboot(A);
    struct volume_state *states;
    size_t n;

    ok(storage_list(A->storage, &states, &n));
    bool seen = false;

    for (size_t i = 0; i < n; i++) { /* beside those that were deleted a moment ago */
        seen =
            seen || (uuid_eq(&states[i].dataset, &id) && states[i].present && states[i].attached);
        volume_state_done(&states[i]);
    }
    free(states);
    assert_true(seen);
    node_end(A, &id);
}

/* Killed before the id was written down, while lists do not show the volume yet; and another node is asked for the same: it is
 * the same client token. */
static void test_killed_before_the_hint(void **state)
{
    struct uuid id = node_new_dataset();

    one_setting("lag_s", 3.0);
    ok(storage_create(A->storage, &id, GIB, NULL, 1));
    shell("rm %s/aws/volumes/%s", A->state_dir, UUID_STR(&id));
    ok(storage_create(A->storage, &id, GIB, NULL, 1));
    ok(storage_create(B->storage, &id, GIB, NULL, 1));
    assert_int_equal(volumes(), 1);
    one_setting("lag_s", 0.0);
    ok(storage_destroy(A->storage, &id));
    ok(storage_destroy(B->storage, &id));
    assert_int_equal(volumes(), 0);
}

static void test_throttled(void **state)
{
    fake_ec2_tell(&node_ec2, "{s:[{s:s,s:s,s:i,s:i}]}", "faults", "how", "error", "code",
                  "RequestLimitExceeded", "status", 503, "times", 4);
    struct uuid id = node_mounted(A, GIB);

    node_end(A, &id);
}

/* ---- attaching ---- */

static void test_device_names(void **state)
{
    struct uuid ids[3];
    char name[AWS_NAME_SIZE], other[AWS_NAME_SIZE];
    json_t *taken = json_array();

    for (unsigned i = 0; i < AWS_DEVICE_NAMES; i++) {
        aws_device_name(i, name);
        for (unsigned k = 0; k < i; k++) {
            aws_device_name(k, other);
            assert_string_not_equal(name, other);
        }
        if (i % 2) /* a device that EC2 does not list has every second one */
            (void)json_array_append_new(taken, json_string(name));
    }
    fake_ec2_tell(&node_ec2, "{s:{s:{s:o}}}", "instances", "i-node-a", "taken", taken);
    for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
        ids[i] = node_mounted(A, GIB);
    for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
        node_end(A, &ids[i]);
    fake_ec2_tell(&node_ec2, "{s:{s:{s:[]}}}", "instances", "i-node-a", "taken");
}

static void test_limit_of_the_instance(void **state)
{
    fake_ec2_tell(&node_ec2, "{s:{s:i}}", "settings", "attach_max", 1);
    struct uuid id = node_mounted(A, GIB), second = node_new_dataset();

    ok(storage_create(A->storage, &second, GIB, NULL, 1));
    fails(storage_mount(A->storage, &second, 1), ERR_TOO_MANY,
          "instance i-node-a has 1 volumes, and can have no more");
    node_end(A, &id);
    ok(storage_mount(A->storage, &second, 1));
    node_end(A, &second);
}

static void test_xen(void **state)
{
    fake_ec2_tell(&node_ec2, "{s:{s:s}}", "settings", "bus", "xen");
    struct uuid id = node_mounted(A, GIB);
    struct volume_state v = node_look(A, &id);

    assert_non_null(strstr(v.device, "/dev/xvd"));
    volume_state_done(&v);
    node_end(A, &id);
}

/* Somebody changed the device under us: it is looked at each time, and not used. */
static void test_device_is_another(void **state)
{
    struct uuid id = node_new_dataset();

    ok(storage_create(A->storage, &id, GIB, NULL, 1));
    ok(storage_mount(A->storage, &id, 1));
    ok(storage_unmount(A->storage, &id));
    shell("for f in %s/0/host/sys/block/*/size; do cp $f %s/size; echo 8 >$f; done", node_dir,
          node_dir);
    fails(storage_mount(A->storage, &id, 1), ERR_CORRUPT, "instead of 1073741824");
    shell("for f in %s/0/host/sys/block/*/size; do cp %s/size $f; done", node_dir, node_dir);
    ok(storage_mount(A->storage, &id, 1));
    node_end(A, &id);
}

/* ---- detaching ---- */

static void test_busy_is_not_forced(void **state)
{
    struct uuid id = node_mounted(A, GIB);
    struct volume_state v = node_look(A, &id);
    CLEANUP_CLOSE int fd = open(v.device, O_RDONLY | O_EXCL | O_CLOEXEC);

    assert_int_equal(fd, -1); /* mounted */
    ok(storage_unmount(A->storage, &id));
    fd = open(v.device, O_RDONLY | O_EXCL | O_CLOEXEC);
    assert_true(fd >= 0);
    fails(storage_release(A->storage, &id, 1, 1, ""), ERR_BUSY, NULL);
    assert_int_equal(fake_ec2_calls(&node_ec2, "DetachVolume"), 0);
    mem_closep(&fd);
    volume_state_done(&v);
    node_end(A, &id);
}

static void test_attached_elsewhere(void **state)
{
    struct uuid id = node_mounted(A, GIB);

    node_shows(B, &id, true, false, true);
    ok(storage_claim(B->storage, &id, 2));
    fails(storage_mount(B->storage, &id, 2), ERR_BUSY, "is attached to i-node-a");
    fails(storage_destroy(B->storage, &id), ERR_BUSY, "i-node-a");
    node_shows(A, &id, true, true, false);
    node_end(A, &id);
}

/* ---- taking away ---- */

static void instance_a(const char *state)
{
    fake_ec2_tell(&node_ec2, "{s:{s:{s:s}}}", "instances", "i-node-a", "state", state);
}

/* A's machine is said to be off. Only when EC2 says so too, its volume is taken from it. */
static void test_taken_from_what_is_off(void **state)
{
    static const char *const on[] = {"running", "pending", "stopping", "shutting-down"};
    struct uuid id = node_mounted(A, GIB), a = A->config.node;

    ok(storage_unmount(A->storage, &id));
    ok(storage_claim(B->storage, &id, 2));
    for (size_t i = 0; i < ARRAY_SIZE(on); i++) {
        instance_a(on[i]);
        fails(storage_take_away(B->storage, &id, 2, &a, 1), ERR_BUSY, on[i]);
    }
    assert_int_equal(fake_ec2_calls(&node_ec2, "DetachVolume"), 0);
    node_shows(B, &id, true, false, true);
    instance_a("stopped");
    fault("DetachVolume", "lost");
    ok(storage_take_away(B->storage, &id, 2, &a, 1));
    node_shows(B, &id, true, false, false);
    ok(storage_take_away(B->storage, &id, 2, &a, 1)); /* nothing is there to take */
    ok(storage_mount(B->storage, &id, 2));
    ok(storage_take_away(B->storage, &id, 2, &a, 1)); /* nor from this node itself */
    node_shows(B, &id, true, true, false);
    instance_a("running");
    fails(storage_mount(A->storage, &id, 1), ERR_BUSY, "i-node-b");
    ok(storage_drop(A->storage, &id));
    ok(storage_release(B->storage, &id, 2, 1, ""));
    ok(storage_destroy(B->storage, &id));
}

/* ---- growing ---- */

/* The file system is for the conformance suite; here it is what EC2 does. */
static struct err *grow(const struct uuid *id, uint64_t size)
{
    return A->storage->driver->grow(A->storage->cookie, id, size);
}

static uint64_t size_of(const struct uuid *id)
{
    struct volume_state v = node_look(A, id);
    uint64_t size = v.size;

    volume_state_done(&v);
    return size;
}

static void test_every_growth_goes_wrong(void **state)
{
    static const char *const actions[] = {"ModifyVolume", "DescribeVolumesModifications", "DescribeVolumes"};
    static const char *const hows[] = {"lost", "drop", "twice"};

    one_setting("modify_s", 0.4);
    for (size_t i = 0; i < ARRAY_SIZE(actions) * ARRAY_SIZE(hows); i++) {
        struct uuid id = node_new_dataset();

        ok(storage_create(A->storage, &id, GIB, NULL, 1));
        fault(actions[i % ARRAY_SIZE(actions)], hows[i / ARRAY_SIZE(actions)]);
        ok(grow(&id, 2 * GIB));
        assert_int_equal(size_of(&id), 2 * GIB);
        ok(grow(&id, 2 * GIB));
        ok(grow(&id, GIB));
        ok(storage_destroy(A->storage, &id));
    }
    one_setting("modify_s", 0.0);
}

/* Killed after the order: what goes on is waited for, not ordered again. */
static void test_growth_goes_on(void **state)
{
    struct uuid id = node_new_dataset();

    ok(storage_create(A->storage, &id, GIB, NULL, 1));
    one_setting("modify_s", 1.0);
    pid_t pid = fork();

    if (!pid) {
        err_free(grow(&id, 3 * GIB));
        _exit(0);
    }
    for (int i = 0; i < 100 && !fake_ec2_calls(&node_ec2, "ModifyVolume"); i++)
        (void)usleep(10000);
    helper_stop(pid);
    node_close(A);
    node_open(A);
    ok(grow(&id, 3 * GIB));
    assert_int_equal(size_of(&id), 3 * GIB);
    one_setting("modify_s", 0.0);
    ok(storage_destroy(A->storage, &id));
}

/* EC2 lets a volume be changed rarely, and is not asked all the time until then. */
static void test_growth_too_soon(void **state)
{
    struct uuid id = node_new_dataset();

    one_setting("modify_again_s", 2.0);
    ok(storage_create(A->storage, &id, GIB, NULL, 1));
    ok(grow(&id, 2 * GIB));
    fails(grow(&id, 3 * GIB), ERR_TOO_MANY, "6 hours");
    unsigned asked = fake_ec2_calls(&node_ec2, "ModifyVolume");

    fails(grow(&id, 3 * GIB), ERR_TOO_MANY, "asked again in 10 minutes");
    assert_int_equal(fake_ec2_calls(&node_ec2, "ModifyVolume"), asked);
    assert_int_equal(size_of(&id), 2 * GIB);
    ok(storage_destroy(A->storage, &id));
    one_setting("modify_again_s", 0.0);
}

static void test_growth_fails(void **state)
{
    struct uuid id = node_new_dataset();

    ok(storage_create(A->storage, &id, 500 * GIB, NULL, 1));
    fails(grow(&id, 70000 * GIB), ERR_INVALID, "outside");
    fails(grow(&(struct uuid){.b = {1}}, GIB), ERR_NOT_FOUND, "no volume");
    ok(storage_destroy(A->storage, &id));
}

/* ---- whose volumes ---- */

/* The id of the only volume. The caller frees it. */
static char *only_volume(void)
{
    json_t *state = fake_ec2_state(&node_ec2), *v;
    char *id = NULL;
    size_t i;

    json_array_foreach (json_object_get(state, "volumes"), i, v) {
        if (!streq(json_string_value(json_object_get(v, "status")), "deleted"))
            id = xstrdup(json_string_value(json_object_get(v, "id")));
    }
    json_decref(state);
    assert_non_null(id);
    return id;
}

static void test_volumes_of_others(void **state)
{
    struct uuid id = node_new_dataset(), other = node_new_dataset();
    char tag[UUID_TEXT_SIZE];

    ok(storage_create(A->storage, &id, GIB, NULL, 1));
    CLEANUP_FREE char *volume = only_volume();

    fake_ec2_tell(&node_ec2, "{s:{s:{s:s,s:s}}}", "tags", volume, AWS_TAG_CLUSTER,
                  uuid_format(&other, tag), AWS_TAG_DATASET, UUID_STR(&id));
    node_shows(A, &id, false, false, false);
    fails(storage_mount(A->storage, &id, 1), ERR_NOT_FOUND, "no volume");
    ok(storage_destroy(A->storage, &id));
    assert_int_equal(volumes(), 1);
    fake_ec2_tell(&node_ec2, "{s:{s:{}}}", "tags", volume);
    node_shows(A, &id, false, false, false);
    /* Back, as a volume of Flocker 1 that this node never saw: adopted. */
    fake_ec2_tell(&node_ec2, "{s:{s:{s:s,s:s,s:s}}}", "tags", volume, AWS_TAG_VERSION, "1",
                  AWS_TAG_CLUSTER, uuid_format(&A->config.cluster, tag), AWS_TAG_DATASET,
                  UUID_STR(&id));
    node_shows(A, &id, true, false, false);
    ok(storage_create(A->storage, &id, GIB, NULL, 1));
    assert_int_equal(volumes(), 1);
    ok(storage_mount(A->storage, &id, 1));
    node_end(A, &id);
}

static void test_profiles(void **state)
{
    static const struct {
        const char *profile, *type, *iops;
        uint64_t gib;
    } cases[] = {{"gold", "io2", "120", 4},   {"gold", "io2", "20000", 1000},
                 {"silver", "gp3", "", 4},    {"bronze", "standard", "", 1024},
                 {"bronze", "st1", "", 1025}, {"gold", "gp3", "", 3}};
    char key[] = "clusterhq:flocker:profile";

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct uuid id = node_new_dataset();
        struct metadata_entry entry = {key, (char *)cases[i].profile};
        struct metadata md = {&entry, 1};

        ok(storage_create(A->storage, &id, cases[i].gib * GIB, &md, 1));
        CLEANUP_FREE char *type = fake_ec2_sent(&node_ec2, "CreateVolume", "VolumeType");
        CLEANUP_FREE char *iops = fake_ec2_sent(&node_ec2, "CreateVolume", "Iops");
        assert_string_equal(type, cases[i].type);
        assert_string_equal(iops, cases[i].iops);
        ok(storage_destroy(A->storage, &id));
    }
    struct uuid id = node_new_dataset();

    fails(storage_create(A->storage, &id, 70000 * GIB, NULL, 1), ERR_INVALID, "outside");
    assert_int_equal(volumes(), 0);
}

/* ---- agent.yml ---- */

static void opens(const char *key, json_t *value, const char *part)
{
    struct storage_config c = A->config;
    struct storage *s = NULL;
    json_t *o = json_deep_copy(A->config.dataset);

    (void)json_object_set_new(o, key, value);
    c.dataset = o;
    struct err *e = storage_open(&c, &s);

    if (part && (!e || !strstr(e->text, part) || strstr(e->text, "wJalr")))
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
    opens("zone", json_string("eu-west-1c"), "The specified AWS zone is not valid.");
    opens("zone", json_string("eu-west-1"), "The specified AWS zone is not valid.");
    opens("region", json_string("EU"), "The specified AWS region is not valid.");
    opens("region", json_string("us-east-1"), "AuthFailure");
    opens("secret_access_key", json_string("nonsense"), "SignatureDoesNotMatch");
    opens("profile", json_string("x"), "not both");
    opens("kms_key_id", json_string("x"), "needs encrypted");
    opens("validate_region", json_string("no"), "must be true or false");
    opens("iops", json_integer(0), "whole number");
    opens("compute_instance_id", json_string("../x"), "cannot be the id of an instance");
    opens("host_root", json_string("x"), "absolute");
    opens("iops", json_integer(3000), NULL);
    opens("endpoint", json_string("http://127.0.0.1:1/"), "cannot be reached");
}

/* As on a real instance: who it is and its keys come from the metadata service. */
static void test_nothing_told(void **state)
{
    struct storage_config c = A->config;
    struct storage *s = NULL;
    json_t *o = json_deep_copy(A->config.dataset);
    struct uuid id = node_mounted(A, GIB);
    struct volume_state v = {0};

    (void)json_object_del(o, "compute_instance_id");
    (void)json_object_del(o, "access_key_id");
    (void)json_object_del(o, "secret_access_key");
    (void)json_object_set_new(o, "metadata_endpoint", json_string(node_ec2.url));
    c.dataset = o;
    ok(storage_open(&c, &s));
    ok(storage_observe(s, &id,
                       &v)); /* that it is attached here, it knows only when it is i-node-a */
    assert_true(v.attached && v.mounted);
    volume_state_done(&v);
    storage_close(s);
    (void)json_object_set_new(o, "metadata_endpoint", json_string("http://127.0.0.1:1"));
    fails(storage_open(&c, &s), ERR_UNAVAILABLE, "Could not find valid instance ID for this node");
    json_decref(o);
    node_end(A, &id);
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_options, fresh),
        cmocka_unit_test_setup(test_nothing_told, fresh),
        cmocka_unit_test_setup(test_every_call_goes_wrong, fresh),
        cmocka_unit_test_setup(test_slow_and_invisible, fresh),
        cmocka_unit_test_setup(test_lists_lag, fresh),
        cmocka_unit_test_setup(test_killed_before_the_hint, fresh),
        cmocka_unit_test_setup(test_throttled, fresh),
        cmocka_unit_test_setup(test_device_names, fresh),
        cmocka_unit_test_setup(test_limit_of_the_instance, fresh),
        cmocka_unit_test_setup(test_xen, fresh),
        cmocka_unit_test_setup(test_device_is_another, fresh),
        cmocka_unit_test_setup(test_busy_is_not_forced, fresh),
        cmocka_unit_test_setup(test_attached_elsewhere, fresh),
        cmocka_unit_test_setup(test_taken_from_what_is_off, fresh),
        cmocka_unit_test_setup(test_every_growth_goes_wrong, fresh),
        cmocka_unit_test_setup(test_growth_goes_on, fresh),
        cmocka_unit_test_setup(test_growth_too_soon, fresh),
        cmocka_unit_test_setup(test_growth_fails, fresh),
        cmocka_unit_test_setup(test_volumes_of_others, fresh),
        cmocka_unit_test_setup(test_profiles, fresh),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    return node_main(argc, argv, run);
}
