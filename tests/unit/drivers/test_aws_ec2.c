/* The client of EC2 and where its keys come from, against the EC2 of the tests, which checks every signature. */
#include "drivers/aws/ec2.h"

#include "base/now.h"
#include "fake_ec2.h"

#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define GIB (1ull << 30)
#define DEADLINE_S 20
#define DATASET "d1d1d1d1-2222-4222-8222-222222222222"

static char dir[] = "/var/tmp/flocker-test-ec2-XXXXXX";
static struct simulator fake;
static struct http_client *http;
static struct aws_metadata *metadata;
static struct aws_credentials *credentials;
static struct ec2 *ec2;
static struct aws_keys good = {.id = (char *)"AKIATEST", .secret = (char *)"wJalr/K7MDENG+test="};

/* ---- the scene ---- */

/* "NAME=VALUE" each. */
static const char *environment[8];

static const char *env(const char *name)
{
    for (const char **e = environment; *e; e++) {
        if (str_has_prefix(*e, name) && (*e)[strlen(name)] == '=')
            return *e + strlen(name) + 1;
    }
    return NULL;
}

static void leave(void)
{
    ec2 = ec2_free(ec2);
    credentials = aws_credentials_free(credentials);
    metadata = aws_metadata_free(metadata);
    http = http_client_free(http);
}

/* A client with these keys of agent.yml (or none) and the environment. */
static void enter(const struct aws_keys *keys, const char *profile)
{
    leave();
    assert_null(http_client_new(&(struct http_client_options){.direct = true}, &http));
    metadata = aws_metadata_new(http, fake.url);
    struct aws_credentials_config cc = {
        .profile = profile, .env = env, .http = http, .metadata = metadata};

    if (keys)
        cc.keys = *keys;
    credentials = aws_credentials_new(&cc);
    CLEANUP_FREE char *endpoint = xasprintf("%s/", fake.url);

    assert_null(ec2_new(
        &(struct ec2_config){
            .endpoint = endpoint, .region = "eu-west-1", .http = http, .credentials = credentials},
        &ec2));
}

static int start(void **state)
{
    const char *const instances[] = {"i-0aaa=", "i-0bbb=", NULL};

    fake_ec2_start(&fake, dir, instances);
    return 0;
}

static int stop(void **state)
{
    fake_ec2_stop(&fake);
    return 0;
}

static int setup(void **state)
{
    memset(environment, 0, sizeof(environment));
    fake_ec2_tell(&fake, "{s:b}", "reset", 1);
    enter(&good, NULL);
    return 0;
}

static int teardown(void **state)
{
    leave();
    return 0;
}

static struct ec2_try try_for(unsigned seconds)
{
    return (struct ec2_try){.deadline_us = now_os().mono_us + seconds * (uint64_t)USEC_PER_SEC};
}

static void ok(struct err *e)
{
    if (e)
        fail_msg("%s", e->text);
}

static const struct ec2_filter all_tags[] = {{AWS_TAG_VERSION, "1"},
                                             {AWS_TAG_CLUSTER, DATASET},
                                             {AWS_TAG_DATASET, DATASET},
                                             {"Name", "a&b=c d/+~é"},
                                             {NULL, NULL}};

static struct ec2_new_volume new_volume(const char *token)
{
    return (struct ec2_new_volume){.zone = "eu-west-1a",
                                   .type = "gp3",
                                   .client_token = token,
                                   .size = 2 * GIB,
                                   .tags = all_tags};
}

static struct aws_volume create(const char *token)
{
    struct ec2_new_volume how = new_volume(token);
    struct ec2_try t = try_for(DEADLINE_S);
    struct aws_volume v = {0};

    ok(ec2_create_sync(ec2, &t, &how, &v));
    return v;
}

static struct aws_volumes look(const char *id, const struct ec2_filter *filters)
{
    struct ec2_try t = try_for(DEADLINE_S);
    struct aws_volumes v = {0};

    ok(ec2_volumes_sync(ec2, &t, id, filters, &v));
    return v;
}

static void expect_kind(struct err *e, const struct ec2_try *t, enum aws_failure_kind kind)
{
    if (!e || t->kind != kind)
        fail_msg("wanted kind %d, got %d: %s", kind, t->kind, e ? e->text : "success");
    err_free(e);
}

/* ---- calls ---- */

static void test_life_of_a_volume(void **state)
{
    struct aws_volume v = create("token-1");
    CLEANUP_AWS_VOLUMES struct aws_volumes l = look(v.id, NULL);
    struct ec2_try t = try_for(DEADLINE_S);

    assert_int_equal(l.n, 1);
    assert_int_equal(l.all[0].size, 2 * GIB);
    assert_string_equal(UUID_STR(&l.all[0].dataset), DATASET);
    CLEANUP_FREE char *name =
        fake_ec2_sent(&fake, "CreateVolume", "TagSpecification.1.Tag.4.Value");
    assert_string_equal(name, "a&b=c d/+~é");
    ok(ec2_attach_sync(ec2, &t, v.id, "i-0aaa", "/dev/xvdaa"));
    CLEANUP_AWS_VOLUMES struct aws_volumes m = look(v.id, NULL);
    assert_int_equal(m.all[0].status, AWS_VOLUME_IN_USE);
    assert_string_equal(m.all[0].attachments[0].instance, "i-0aaa");
    expect_kind(ec2_delete_sync(ec2, &t, v.id), &t, AWS_IN_USE);
    expect_kind(ec2_attach_sync(ec2, &t, v.id, "i-0bbb", "/dev/xvdaa"), &t, AWS_IN_USE);
    expect_kind(ec2_detach_sync(ec2, &t, v.id, "i-0bbb"), &t, AWS_NOT_FOUND);
    ok(ec2_detach_sync(ec2, &t, v.id, "i-0aaa"));
    expect_kind(ec2_detach_sync(ec2, &t, v.id, "i-0aaa"), &t, AWS_WRONG_STATE);
    ok(ec2_delete_sync(ec2, &t, v.id));
    expect_kind(ec2_delete_sync(ec2, &t, v.id), &t, AWS_NOT_FOUND);
}

static void test_types(void **state)
{
    struct ec2_new_volume how = new_volume("token-io2");
    struct ec2_try t = try_for(DEADLINE_S);
    struct aws_volume v;

    how.type = "io2";
    how.size = 4 * GIB;
    expect_kind(ec2_create_sync(ec2, &t, &how, &v), &t, AWS_REFUSED);
    how.iops = 120;
    how.encrypted = true;
    how.kms_key_id = "arn:aws:kms:eu-west-1:1:key/x";
    ok(ec2_create_sync(ec2, &t, &how, &v));
    CLEANUP_FREE char *key = fake_ec2_sent(&fake, "CreateVolume", "KmsKeyId");
    assert_string_equal(key, how.kms_key_id);
    how.client_token = "token-2";
    how.throughput = 500;
    expect_kind(ec2_create_sync(ec2, &t, &how, &v), &t, AWS_REFUSED);
}

static void test_same_token_same_volume(void **state)
{
    struct aws_volume a = create("token-1"), b = create("token-1"), c = create("token-2");
    struct ec2_new_volume how = new_volume("token-1");
    struct ec2_try t = try_for(DEADLINE_S);

    assert_string_equal(a.id, b.id);
    assert_string_not_equal(a.id, c.id);
    how.size = 3 * GIB;
    expect_kind(ec2_create_sync(ec2, &t, &how, &c), &t, AWS_TOKEN_MISMATCH);
}

/* The answer is lost, comes late, the call is dropped or done twice: one volume in all. */
static void test_create_is_never_doubled(void **state)
{
    static const char *const how[] = {"lost", "drop", "twice"};

    for (size_t i = 0; i < ARRAY_SIZE(how); i++) {
        CLEANUP_FREE char *token = xasprintf("token-%zu", i);

        fake_ec2_tell(&fake, "{s:[{s:s,s:s}]}", "faults", "action", "CreateVolume", "how", how[i]);
        (void)create(token);
        CLEANUP_AWS_VOLUMES struct aws_volumes l = look(NULL, NULL);
        assert_int_equal(l.n, i + 1);
    }
}

static void test_late_answer(void **state)
{
    struct ec2_new_volume how = new_volume("token-1");
    struct ec2_try t = {.deadline_us = now_os().mono_us + USEC_PER_SEC / 2};
    struct aws_volume v;

    fake_ec2_tell(&fake, "{s:[{s:s,s:s,s:f}]}", "faults", "action", "CreateVolume", "how", "late",
                  "seconds", 1.0);
    CLEANUP_ERR struct err *e = ec2_create_sync(ec2, &t, &how, &v);

    assert_true(err_is(e, ERR_TIMEOUT));
    assert_int_equal(t.kind, AWS_TROUBLE);
    assert_true(str_has_prefix(e->text, "cannot create a volume: "));
    (void)usleep(1000000);
    v = create("token-1");
    CLEANUP_AWS_VOLUMES struct aws_volumes l = look(NULL, NULL);
    assert_int_equal(l.n, 1);
}

static void test_throttled(void **state)
{
    CLEANUP_AWS_VOLUMES struct aws_volumes v = {0};

    fake_ec2_tell(&fake, "{s:[{s:s,s:s,s:i,s:i}]}", "faults", "how", "error", "code",
                  "RequestLimitExceeded", "status", 503, "times", 3);
    (void)create("token-1");
    assert_int_equal(fake_ec2_calls(&fake, "CreateVolume"), 4);
    fake_ec2_tell(&fake, "{s:[{s:s,s:s,s:i,s:i}]}", "faults", "how", "error", "code",
                  "RequestLimitExceeded", "status", 503, "times", 1000);
    struct ec2_try t = try_for(2);
    uint64_t begin = now_os().mono_us;

    expect_kind(ec2_volumes_sync(ec2, &t, NULL, NULL, &v), &t, AWS_THROTTLED);
    assert_true(now_os().mono_us - begin < 8 * (uint64_t)USEC_PER_SEC);
}

static void test_their_trouble(void **state)
{
    fake_ec2_tell(&fake, "{s:[{s:s,s:s,s:i},{s:s}]}", "faults", "how", "error", "code",
                  "InternalError", "status", 500, "how", "drop");
    (void)create("token-1");
    assert_int_equal(fake_ec2_calls(&fake, "CreateVolume"), 3);
}

static void test_pages(void **state)
{
    const struct ec2_filter tagged[] = {{"tag:" AWS_TAG_DATASET, DATASET}, {NULL, NULL}};
    const struct ec2_filter other[] = {{"tag:" AWS_TAG_DATASET, "x"}, {NULL, NULL}};

    for (int i = 0; i < 12; i++) {
        CLEANUP_FREE char *token = xasprintf("token-%d", i);

        (void)create(token);
    }
    fake_ec2_tell(&fake, "{s:{s:i},s:b}", "settings", "page_max", 5, "forget_calls", 1);
    CLEANUP_AWS_VOLUMES struct aws_volumes l = look(NULL, tagged);
    assert_int_equal(l.n, 12);
    assert_int_equal(fake_ec2_calls(&fake, "DescribeVolumes"), 3);
    CLEANUP_AWS_VOLUMES struct aws_volumes none = look(NULL, other);
    assert_int_equal(none.n, 0);
}

static void test_is_an_instance_off(void **state)
{
    CLEANUP_AWS_INSTANCES struct aws_instances i = {0};
    struct ec2_try t = try_for(DEADLINE_S);
    CLEANUP_FREE char *zones = NULL;

    static const char *const states[] = {"stopping", "shutting-down", "pending", "running", "stopped", "terminated"};

    for (size_t k = 0; k < ARRAY_SIZE(states); k++) {
        fake_ec2_tell(&fake, "{s:{s:{s:s}}}", "instances", "i-0bbb", "state", states[k]);
        ok(ec2_instance_sync(ec2, &t, "i-0bbb", &i));
        assert_int_equal(i.n, k + 1);
        assert_string_equal(i.all[k].id, "i-0bbb");
        assert_int_equal(i.all[k].off, k >= 4);
    }
    size_t n = i.n;

    ok(ec2_instance_sync(ec2, &t, "i-0nobody", &i));
    assert_int_equal(i.n, n);
    ok(ec2_zones_sync(ec2, &t, &zones));
    assert_string_equal(zones, "eu-west-1a eu-west-1b ");
}

static void test_regions(void **state)
{
    static const char *const bad[] = {"", "eu-west-1.evil.example/", "EU", "a b"};

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        struct ec2 *none = NULL;
        CLEANUP_ERR struct err *e = ec2_new(
            &(struct ec2_config){.region = bad[i], .http = http, .credentials = credentials},
            &none);

        assert_true(err_is(e, ERR_INVALID));
        assert_true(str_has_prefix(e->text, "The specified AWS region is not valid."));
    }
}

/* ---- keys ---- */

/* A call with what was found; its error, if any. */
static struct err *works(void)
{
    struct ec2_try t = try_for(DEADLINE_S);
    CLEANUP_FREE char *zones = NULL;

    return ec2_zones_sync(ec2, &t, &zones);
}

static void refused(enum err_code code, const char *part)
{
    CLEANUP_ERR struct err *e = works();

    if (!err_is(e, code) || !strstr(e->text, part))
        fail_msg("wanted %s, got: %s", part, e ? e->text : "success");
    assert_null(strstr(e->text, "wrong-secret"));
}

static void test_wrong_keys(void **state)
{
    enter(&(struct aws_keys){.id = (char *)"AKIATEST", .secret = (char *)"wrong-secret"}, NULL);
    refused(ERR_DENIED, "SignatureDoesNotMatch");
    enter(&(struct aws_keys){.id = (char *)"AKIANOBODY", .secret = (char *)"wrong-secret"}, NULL);
    refused(ERR_DENIED, "check the access key and this machine's clock");
}

static void test_session_token(void **state)
{
    struct aws_keys k = good;

    fake_ec2_tell(&fake, "{s:{s:{s:{s:s,s:s}}}}", "settings", "keys", "AKIATEST", "secret",
                  good.secret, "token", "tok+en/=");
    refused(ERR_DENIED, "AuthFailure");
    k.token = (char *)"tok+en/=";
    enter(&k, NULL);
    ok(works());
}

static void test_environment(void **state)
{
    environment[0] = "AWS_ACCESS_KEY_ID=AKIATEST";
    enter(NULL, NULL);
    refused(ERR_DENIED, "AWS_SECRET_ACCESS_KEY");
    environment[1] = "AWS_SECRET_ACCESS_KEY=wJalr/K7MDENG+test=";
    enter(NULL, NULL);
    ok(works());
    /* What agent.yml says comes first. */
    enter(&(struct aws_keys){.id = (char *)"AKIATEST", .secret = (char *)"wrong-secret"}, NULL);
    refused(ERR_DENIED, "SignatureDoesNotMatch");
}

static void write_credentials(const char *text)
{
    CLEANUP_FREE char *path = xasprintf("%s/credentials", dir);
    FILE *f = fopen(path, "we");

    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(fclose(f), 0);
}

static void test_profile_file(void **state)
{
    CLEANUP_FREE char *file = xasprintf("AWS_SHARED_CREDENTIALS_FILE=%s/credentials", dir);

    environment[0] = file;
    write_credentials(
        "[default]\naws_access_key_id = AKIATEST\naws_secret_access_key = wrong-secret\n"
        "[flocker]\naws_access_key_id = AKIATEST\n"
        "aws_secret_access_key = wJalr/K7MDENG+test=\n");
    enter(NULL, "flocker");
    ok(works());
    enter(NULL, NULL);
    refused(ERR_DENIED, "SignatureDoesNotMatch");
    environment[1] = "AWS_PROFILE=flocker";
    enter(NULL, NULL);
    ok(works());
    enter(NULL, "nobody");
    refused(ERR_NOT_FOUND, "there is no profile [nobody]");
}

static void test_role_of_the_instance(void **state)
{
    enter(NULL, NULL);
    ok(works());
    /* The metadata service was restarted: the token is renewed. */
    fake_ec2_tell(&fake, "{s:b}", "forget_imds_tokens", 1);
    CLEANUP_FREE char *id = NULL;
    ok(aws_metadata_get_sync(metadata, "meta-data/instance-id", &id));
    assert_string_equal(id, "i-0aaa");
    char *nothing = NULL;
    CLEANUP_ERR struct err *e = aws_metadata_get_sync(metadata, "meta-data/nothing", &nothing);
    assert_true(err_is(e, ERR_NOT_FOUND));
}

static void test_role_is_renewed(void **state)
{
    CLEANUP_AWS_KEYS struct aws_keys a = {0}, b = {0}, c = {0};

    /* Six minutes: kept. Four: fetched anew at each use. */
    fake_ec2_tell(&fake, "{s:{s:f}}", "settings", "role_keys_s", 360.0);
    enter(NULL, NULL);
    ok(aws_credentials_get_sync(credentials, &a));
    ok(aws_credentials_get_sync(credentials, &b));
    assert_string_equal(a.id, b.id);
    fake_ec2_tell(&fake, "{s:{s:f}}", "settings", "role_keys_s", 240.0);
    enter(NULL, NULL);
    aws_keys_done(&a);
    ok(aws_credentials_get_sync(credentials, &a));
    ok(aws_credentials_get_sync(credentials, &c));
    assert_string_not_equal(a.id, c.id);
    /* Cannot be renewed: those that still are good serve on. */
    fake_ec2_tell(&fake, "{s:{s:b}}", "settings", "imds", 0);
    fake_ec2_tell(&fake, "{s:b}", "forget_imds_tokens", 1);
    ok(works());
}

/* They end before their time, or the clock is off: asked for once more, then used. */
static void test_refused_keys_are_replaced(void **state)
{
    enter(NULL, NULL);
    ok(works());
    fake_ec2_tell(&fake, "{s:{s:{}}}", "settings", "keys");
    uint64_t before = ec2_calls(ec2);

    ok(works());
    assert_int_equal(ec2_calls(ec2) - before, 2);
}

static void test_container(void **state)
{
    CLEANUP_FREE char *url = xasprintf("AWS_CONTAINER_CREDENTIALS_FULL_URI=%s/container", fake.url);
    CLEANUP_FREE char *file =
        xasprintf("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=%s/credentials", dir);

    environment[0] = url;
    environment[1] = "AWS_CONTAINER_AUTHORIZATION_TOKEN=wrong";
    enter(NULL, NULL);
    refused(ERR_DENIED, "HTTP status 403");
    environment[1] = "AWS_CONTAINER_AUTHORIZATION_TOKEN=container-token";
    enter(NULL, NULL);
    ok(works());
    write_credentials("container-token\n");
    environment[1] = file;
    enter(NULL, NULL);
    ok(works());
    environment[0] = "AWS_CONTAINER_CREDENTIALS_FULL_URI=http://keys.example.net/";
    enter(NULL, NULL);
    refused(ERR_DENIED, "no place to get access keys from");
}

static void test_no_keys_at_all(void **state)
{
    fake_ec2_tell(&fake, "{s:{s:b}}", "settings", "imds", 0);
    enter(NULL, NULL);
    refused(ERR_DENIED, "no access keys for AWS");
    fake_ec2_tell(&fake, "{s:{s:b,s:n}}", "settings", "imds", 1, "role");
    enter(NULL, NULL);
    refused(ERR_DENIED, "there is no meta-data/iam/security-credentials/");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_life_of_a_volume),
        TEST(test_types),
        TEST(test_same_token_same_volume),
        TEST(test_create_is_never_doubled),
        TEST(test_late_answer),
        TEST(test_throttled),
        TEST(test_their_trouble),
        TEST(test_pages),
        TEST(test_is_an_instance_off),
        TEST(test_regions),
        TEST(test_wrong_keys),
        TEST(test_session_token),
        TEST(test_environment),
        TEST(test_profile_file),
        TEST(test_role_of_the_instance),
        TEST(test_role_is_renewed),
        TEST(test_refused_keys_are_replaced),
        TEST(test_container),
        TEST(test_no_keys_at_all),
    };

    (void)signal(SIGPIPE, SIG_IGN);
    if (!mkdtemp(dir))
        return 2;
    int rc = cmocka_run_group_tests(tests, start, stop);
    CLEANUP_FREE char *rm = xasprintf("rm -rf %s", dir);

    return system(rm) ? 2 : rc;
}
