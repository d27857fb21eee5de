/* The backend openstack on real Keystone, Cinder and Nova (lab/openstack), where the conformance suite does not look: ways to sign in, what
 * Nova attaches, and answers that are lost, late, doubled or refused (tests/openstack/between.py). */
#include "base/now.h"
#include "base/str.h"
#include "drivers/openstack/openstack.h"
#include "drivers/storage.h"
#include "node.h"

#include <stdio.h>
#include <unistd.h>

#define A (&nodes[0])
#define B (&nodes[1])
#define GIB (1ull << 30)

/* Files of volumes; the servers' own disks are no files. */
static unsigned files(void)
{
    CLEANUP_FREE char *n = shell_out("ls %s/cloud/export | grep -c ^volume- || true", node_dir);

    return (unsigned)strtoul(n, NULL, 10);
}

static unsigned files_before; /* a test that failed may have left some */

static unsigned volumes(void)
{
    return files() - files_before;
}

static int fresh(void **state)
{
    simulator_tell(&node_between, "{s:[],s:b}", "faults", "forget_calls", 1);
    files_before = files();
    return 0;
}

static void fault(const char *action, const char *how, int times)
{
    simulator_tell(&node_between, "{s:[{s:s,s:s,s:i}]}", "faults", "action", action, "how", how,
                   "times", times);
}

/* `action` NULL: whatever comes. */
static void refuse(const char *action, int status, const char *message, int retry_after, int times)
{
    simulator_tell(&node_between, "{s:[{s:s*,s:s,s:i,s:{s:{s:i,s:s}},s:[[s,i]],s:i}]}", "faults",
                   "action", action, "how", "error", "status", status, "body", "badRequest", "code",
                   status, "message", message, "headers", "Retry-After", retry_after, "times",
                   times);
}

/* Has the fault been met as often as it was to be? */
static bool has_struck(void)
{
    json_t *state = simulator_state(&node_between);
    json_t *first = json_array_get(json_object_get(state, "faults"), 0);
    bool struck = first && json_integer_value(json_object_get(first, "times")) == 0;

    json_decref(state);
    return struck;
}

static void wait_volumes(unsigned wanted)
{
    struct wait w = wait_for(60);

    while (volumes() != wanted && wait_more(&w))
        ;
    assert_int_equal(volumes(), wanted);
}

/* ---- Nova ---- */

static void test_move(void **state)
{
    struct uuid id = node_mounted(A, GIB);
    CLEANUP_FREE char *place = node_place(A, &id), *there = node_place(B, &id);
    struct volume_state v = node_look(A, &id);

    assert_non_null(strstr(v.device, "/0/host/dev/vd"));
    volume_state_done(&v);
    shell("dd if=/dev/urandom of=%s/data bs=1M count=40 conv=fsync status=none", place);
    CLEANUP_FREE char *before = digest(place);

    node_shows(B, &id, true, false, true);
    ok(storage_claim(B->storage, &id, 2));
    fails(storage_mount(B->storage, &id, 2), ERR_BUSY, node_instance(A));
    fails(storage_destroy(B->storage, &id), ERR_BUSY, node_instance(A));
    ok(storage_release(A->storage, &id, 1, 1, ""));
    node_shows(A, &id, true, false, false);
    ok(storage_mount(B->storage, &id, 2));
    CLEANUP_FREE char *after = digest(there);

    assert_string_equal(before, after);
    ok(storage_release(B->storage, &id, 2, 2, ""));
    ok(storage_drop(A->storage, &id));
    ok(storage_destroy(B->storage, &id));
    wait_volumes(0);
}

/* Another disk of the same server is never taken for it, whatever Nova calls it; one of the wrong size is not used. */
static void test_device_is_told_by_serial(void **state)
{
    struct uuid id = node_mounted(A, GIB), other = node_mounted(A, GIB);
    struct volume_state v = node_look(A, &id), w = node_look(A, &other);

    assert_string_not_equal(v.device, w.device);
    volume_state_done(&v);
    volume_state_done(&w);
    ok(storage_unmount(A->storage, &id));
    shell("cd %s/0/host/sys/block && for d in vd*; do cp $d/size $d/was; echo 8 >$d/size; done",
          node_dir);
    fails(storage_mount(A->storage, &id, 1), ERR_CORRUPT, "instead of 1073741824");
    shell("cd %s/0/host/sys/block && for d in vd*; do mv $d/was $d/size; done", node_dir);
    ok(storage_mount(A->storage, &id, 1));
    node_end(A, &id);
    node_end(A, &other);
}

/* The operator says that it is off; Nova says otherwise, then too. */
static void test_take_away(void **state)
{
    struct uuid id = node_mounted(A, GIB), node = A->config.node, stranger = node_new_dataset();
    CLEANUP_FREE char *place = node_place(A, &id);

    shell("echo kept >%s/f && sync %s/f", place, place);
    ok(storage_claim(B->storage, &id, 2));
    ok(storage_take_away(B->storage, &id, 2, &stranger, 1));
    fails(storage_take_away(B->storage, &id, 2, &node, 1), ERR_BUSY, "ACTIVE");
    node_reboot(A);
    CLEANUP_FREE char *path = xasprintf("/servers/%s", node_instance(A));
    struct openstack probe = {0};
    json_t *options = node_nova_options(A);

    ok(os_identity_read(options, &probe.identity));
    ok(http_client_new(&(struct http_client_options){.direct = true}, &probe.http));
    probe.cloud = os_cloud_new(&(struct os_cloud_config){
        .identity = &probe.identity, .http = probe.http, .region = NULL, .interface = "public"});
    const char *const orders[] = {"os-stop", "os-start"};
    const char *const states[] = {"SHUTOFF", "ACTIVE"};

    for (int i = 0; i < 2; i++) {
        CLEANUP_FREE char *action = xasprintf("%s/action", path);
        struct wait w = wait_for(60);
        char status[OS_NAME_SIZE] = "";
        json_t *order = json_pack("{s:n}", orders[i]), *body;
        enum os_kind kind;

        ok(os_call_sync(probe.cloud,
                        &(struct os_call){.what = "order",
                                          .service = OS_COMPUTE,
                                          .method = "POST",
                                          .path = action,
                                          .body = order,
                                          .deadline_us = w.deadline_us},
                        &kind, NULL));
        json_decref(order);
        while (!streq(status, states[i]) && wait_more(&w)) {
            ok(os_call_sync(probe.cloud,
                            &(struct os_call){.what = "look",
                                              .service = OS_COMPUTE,
                                              .method = "GET",
                                              .path = path,
                                              .deadline_us = w.deadline_us},
                            &kind, &body));
            ok(os_server_status(body, status));
            json_decref(body);
        }
        assert_string_equal(status, states[i]);
        if (i)
            break;
        ok(storage_take_away(B->storage, &id, 2, &node, 1));
        ok(storage_take_away(B->storage, &id, 2, &node, 1));
        ok(storage_mount(B->storage, &id, 2));
    }
    CLEANUP_FREE char *there = node_place(B, &id);
    CLEANUP_FREE char *text = read_text(there, "f");

    assert_string_equal(text, "kept\n");
    os_cloud_free(probe.cloud);
    http_client_free(probe.http);
    os_identity_done(&probe.identity);
    json_decref(options);
    ok(storage_drop(A->storage, &id));
    ok(storage_release(B->storage, &id, 2, 2, ""));
    ok(storage_destroy(B->storage, &id));
}

/* ---- answers that are lost, late or doubled ---- */

#define CREATE "POST volume /volumes"
#define ATTACH "POST compute /servers/ID/os-volume_attachments"
#define DETACH "DELETE compute /servers/ID/os-volume_attachments/ID"
#define DELETE "DELETE volume /volumes/ID"
#define LOOK "GET volume /volumes/ID"

static void test_every_call_goes_wrong(void **state)
{
    static const char *const actions[] = {CREATE, ATTACH, DETACH, DELETE, LOOK};
    static const char *const hows[] = {"lost", "twice"};

    for (size_t i = 0; i < ARRAY_SIZE(actions) * ARRAY_SIZE(hows); i++) {
        struct uuid id;

        fault(actions[i % ARRAY_SIZE(actions)], hows[i / ARRAY_SIZE(actions)], 1);
        id = node_mounted(A, GIB);
        node_shows(A, &id, true, true, false);
        node_end(A, &id);
        wait_volumes(0); /* also those that a doubled request made */
        assert_true(has_struck());
    }
}

/* Nothing was done: the order is refused once, with the reason, and the next try does it. */
static void test_creation_never_arrives(void **state)
{
    struct uuid id = node_new_dataset();

    fault(CREATE, "drop", 1);
    fails(storage_create(A->storage, &id, GIB, NULL, 1), ERR_UNAVAILABLE, "cannot create a volume");
    assert_int_equal(volumes(), 0);
    ok(storage_create(A->storage, &id, GIB, NULL, 1));
    ok(storage_destroy(A->storage, &id));
}

/* Of two volumes that were never used the oldest counts for all; once one was used, that one does. */
static void test_two_volumes(void **state)
{
    struct uuid id = node_new_dataset();

    fault(CREATE, "twice", 1);
    ok(storage_create(A->storage, &id, GIB, NULL, 1));
    wait_volumes(2);
    ok(storage_mount(A->storage, &id, 1));
    CLEANUP_FREE char *place = node_place(A, &id), *there = node_place(B, &id);

    shell("echo here >%s/f", place);
    ok(storage_release(A->storage, &id, 1, 1, ""));
    ok(storage_claim(B->storage, &id, 2)); /* B never had a hint */
    ok(storage_mount(B->storage, &id, 2));
    CLEANUP_FREE char *text = read_text(there, "f");

    assert_string_equal(text, "here\n");
    ok(storage_release(B->storage, &id, 2, 2, ""));
    ok(storage_drop(A->storage, &id));
    ok(storage_destroy(B->storage, &id));
    wait_volumes(0);
}

static void test_rate_limits(void **state)
{
    static const int statuses[] = {413, 429, 503};

    for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
        refuse(NULL, statuses[i], "This request was rate-limited.", 1, 2);
        struct uuid id = node_new_dataset();

        ok(storage_create(A->storage, &id, GIB, NULL, 1));
        ok(storage_destroy(A->storage, &id));
    }
}

static void test_quota(void **state)
{
    struct uuid id = node_new_dataset();

    refuse(CREATE, 413, "VolumeLimitExceeded: Maximum number of volumes allowed (10) exceeded", 0,
           1);
    fails(storage_create(A->storage, &id, GIB, NULL, 1), ERR_NO_SPACE, "VolumeLimitExceeded");
    refuse(ATTACH, 403, "The maximum allowed number of volumes is attached", 0, 1);
    ok(storage_create(A->storage, &id, GIB, NULL, 1));
    fails(storage_mount(A->storage, &id, 1), ERR_TOO_MANY, "maximum allowed");
    ok(storage_destroy(A->storage, &id));
}

/* A token that is refused is replaced, once. */
static void test_token_is_refused(void **state)
{
    struct uuid id = node_new_dataset();

    refuse(NULL, 401, "Unauthorized", 0, 1);
    ok(storage_create(A->storage, &id, GIB, NULL, 1));
    refuse(NULL, 401, "Unauthorized", 0, 2);
    fails(storage_mount(A->storage, &id, 1), ERR_DENIED, "Unauthorized");
    ok(storage_destroy(A->storage, &id));
}

static void test_garbage(void **state)
{
    struct uuid id = node_new_dataset();
    struct volume_state v;

    ok(storage_create(A->storage, &id, GIB, NULL, 1));
    fault(LOOK, "garbage", 1);
    fails(storage_observe(A->storage, &id, &v), ERR_CORRUPT, "not JSON");
    ok(storage_destroy(A->storage, &id));
}

/* ---- signing in ---- */

/* Opens the storage with these options, as a third node; what differs is in `more` (NULL takes a key away). */
static struct err *open_with(json_t *more, struct storage **ret)
{
    struct storage_config config = A->config;
    json_t *options = node_nova_options(A), *value;
    CLEANUP_FREE char *dir = xasprintf("%s/third", node_dir);
    const char *key;

    json_object_foreach (more, key, value) {
        if (json_is_null(value))
            (void)json_object_del(options, key);
        else
            (void)json_object_set(options, key, value);
    }
    shell("mkdir -p %s", dir);
    config.dataset = options;
    config.state_dir = dir;
    struct err *e = storage_open(&config, ret);

    json_decref(more);
    json_decref(options);
    return e;
}

/* They do not only sign in: they list. */
static void works(json_t *more)
{
    struct storage *s = NULL;
    struct volume_state *states;
    size_t n;

    ok(open_with(more, &s));
    ok(storage_list(s, &states, &n));
    for (size_t i = 0; i < n; i++)
        volume_state_done(&states[i]);
    free(states);
    s = storage_close(s);
}

static void refused(json_t *more, enum err_code code, const char *part, const char *secret)
{
    struct storage *s = NULL;
    CLEANUP_ERR struct err *e = open_with(more, &s);

    assert_non_null(e);
    if (e->code != code || !strstr(e->text, part))
        fail_msg("%s: %s", err_code_name(e->code), e->text);
    assert_null(strstr(e->text, secret));
}

static const char *fact(const char *name)
{
    return cloud_fact(&node_cloud, name);
}

static void test_ways_to_sign_in(void **state)
{
    works(json_pack("{s:s}", "auth_plugin", "v3password"));
    works(json_pack("{s:n, s:s, s:s, s:s}", "project_name", "project_id", fact("project_id"),
                    "user_domain_name", "Default", "project_domain_id", "default"));
    works(json_pack("{s:n, s:s}", "project_name", "tenant_name", fact("project_name")));
    works(json_pack("{s:s, s:n, s:n, s:n, s:s, s:s}", "auth_plugin", "v3applicationcredential",
                    "username", "password", "project_name", "application_credential_id",
                    fact("credential_id"), "application_credential_secret",
                    fact("credential_secret")));
    works(json_pack("{s:n, s:n, s:s, s:s}", "password", "project_name",
                    "application_credential_name", "flocker-lab", "application_credential_secret",
                    fact("credential_secret")));
    /* as the catalogue says, not as the tests want it */
    works(json_pack("{s:n, s:n, s:s}", "volume_endpoint", "compute_endpoint", "interface",
                    "internal"));
}

static void test_clouds_yaml(void **state)
{
    CLEANUP_FREE char *file = xasprintf("%s/clouds.yaml", node_dir);

    shell("printf 'clouds:\\n  lab:\\n    auth: {auth_url: \"%s\", username: %s, password: %s, "
          "project_name: %s}\\n    region_name: %s\\n' >%s",
          fact("auth_url"), fact("username"), fact("password"), fact("project_name"),
          fact("region"), file);
    works(json_pack("{s:n, s:n, s:n, s:n, s:n, s:s, s:s}", "auth_url", "username", "password",
                    "project_name", "region", "cloud", "lab", "clouds_file", file));
    refused(json_pack("{s:s, s:s}", "cloud", "other", "clouds_file", file), ERR_INVALID,
            "no cloud 'other'", fact("password"));
}

static void test_refused(void **state)
{
    refused(json_pack("{s:s}", "password", "wrong-secret"), ERR_DENIED, "cannot get a token",
            "wrong-secret");
    refused(json_pack("{s:s, s:n}", "region", "Nowhere", "volume_endpoint"), ERR_INVALID,
            "RegionOne", fact("password"));
    refused(json_pack("{s:s}", "auth_plugin", "v3kerberos"), ERR_INVALID, "v3applicationcredential",
            fact("password"));
    refused(json_pack("{s:n}", "password"), ERR_INVALID, "Required key password is missing", "zzz");
    refused(json_pack("{s:s}", "auth_url", "http://127.0.0.1:1/v3"), ERR_UNAVAILABLE,
            "cannot get a token", fact("password"));
}

/* No back end takes it: nothing is left of the volume that Cinder could not make, and the next try can make one. */
static void test_creation_fails(void **state)
{
    struct uuid id = node_new_dataset();
    struct storage *s = NULL;

    ok(open_with(json_pack("{s:s}", "volume_type", "refused"), &s));
    fails(storage_create(s, &id, GIB, NULL, 1), ERR_IO, "no back end");
    node_shows(A, &id, false, false, false);
    fails(storage_create(s, &id, GIB, NULL, 1), ERR_IO, "no back end");
    s = storage_close(s);
    ok(storage_create(A->storage, &id, GIB, NULL, 1));
    ok(storage_mount(A->storage, &id, 1));
    node_end(A, &id);
}

/* ---- Rackspace ---- */

static json_t *rackspace(void)
{
    CLEANUP_FREE char *url = xasprintf("%s/v2.0", node_between.url);

    return json_pack("{s:s, s:s, s:s, s:s, s:n, s:n, s:n, s:n}", "auth_plugin", "rackspace",
                     "auth_url", url, "api_key", fact("password"), "region", "DFW", "password",
                     "project_name", "volume_endpoint", "compute_endpoint");
}

/* Identity v2 with an API key, Cinder v1, and sizes as they are there. */
static void test_rackspace(void **state)
{
    struct uuid id = node_new_dataset();
    struct storage *s = NULL;
    struct volume_state v;

    ok(open_with(rackspace(), &s));
    ok(storage_create(s, &id, GIB, NULL, 1));
    ok(storage_observe(s, &id, &v));
    assert_int_equal(v.size, 75 * GIB);
    volume_state_done(&v);
    fails(storage_create(s, &(struct uuid){{1}}, 2048 * GIB, NULL, 1), ERR_INVALID,
          "at most 1024 GiB");
    ok(storage_destroy(s, &id));
    s = storage_close(s);
    wait_volumes(0);
    works(json_pack("{s:s, s:o}", "auth_plugin", "v2password", "auth_url",
                    json_sprintf("%s/v2.0", node_between.url)));
}

static int run(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_move, fresh),
        cmocka_unit_test_setup(test_device_is_told_by_serial, fresh),
        cmocka_unit_test_setup(test_take_away, fresh),
        cmocka_unit_test_setup(test_every_call_goes_wrong, fresh),
        cmocka_unit_test_setup(test_creation_never_arrives, fresh),
        cmocka_unit_test_setup(test_two_volumes, fresh),
        cmocka_unit_test_setup(test_rate_limits, fresh),
        cmocka_unit_test_setup(test_quota, fresh),
        cmocka_unit_test_setup(test_token_is_refused, fresh),
        cmocka_unit_test_setup(test_garbage, fresh),
        cmocka_unit_test_setup(test_ways_to_sign_in, fresh),
        cmocka_unit_test_setup(test_clouds_yaml, fresh),
        cmocka_unit_test_setup(test_refused, fresh),
        cmocka_unit_test_setup(test_creation_fails, fresh),
        cmocka_unit_test_setup(test_rackspace, fresh),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(int argc, char **argv)
{
    return node_main(argc, argv, run);
}
