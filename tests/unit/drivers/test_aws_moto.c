/* The client of EC2 against moto, an EC2 by others: the plain cases. (It knows no states, tokens or signatures; those are the
 * business of tests/ec2.) argv[1]: moto_server, which scripts/install-moto installs; skipped without it. */
#include "drivers/aws/ec2.h"
#include "drivers/aws/xml.h"

#include "base/now.h"

#include <signal.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define GIB (1ull << 30)
#define START_S 60
#define DATASET "d1d1d1d1-2222-4222-8222-222222222222"

static const char *program;
static pid_t server;
static char url[64];
static struct http_client *http;
static struct aws_metadata *metadata;
static struct aws_credentials *credentials;
static struct ec2 *ec2;

static struct ec2_try try_for(unsigned seconds)
{
    return (struct ec2_try){.deadline_us = now_os().mono_us + seconds * (uint64_t)USEC_PER_SEC};
}

static void ok(struct err *e)
{
    if (e)
        fail_msg("%s", e->text);
}

static int start(void **state)
{
    const struct aws_keys keys = {.id = (char *)"AKIATEST", .secret = (char *)"secret"};
    CLEANUP_FREE char *port = xasprintf("%d", 20000 + getpid() % 10000);
    CLEANUP_FREE char *zones = NULL;

    (void)snprintf(url, sizeof(url), "http://127.0.0.1:%s/", port);
    server = fork();
    if (!server) {
        (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (freopen("/dev/null", "w", stderr) && freopen("/dev/null", "w", stdout))
            (void)execl(program, program, "-H", "127.0.0.1", "-p", port, NULL);
        _exit(127);
    }
    ok(http_client_new(&(struct http_client_options){.direct = true}, &http));
    metadata = aws_metadata_new(http, url);
    credentials = aws_credentials_new(
        &(struct aws_credentials_config){.keys = keys, .http = http, .metadata = metadata});
    ok(ec2_new(
        &(struct ec2_config){
            .endpoint = url, .region = "eu-west-1", .http = http, .credentials = credentials},
        &ec2));
    struct ec2_try t = try_for(START_S);

    ok(ec2_zones_sync(ec2, &t, &zones)); /* tries until it is up */
    assert_non_null(strstr(zones, "eu-west-1a "));
    return 0;
}

static int stop(void **state)
{
    ec2_free(ec2);
    aws_credentials_free(credentials);
    aws_metadata_free(metadata);
    http_client_free(http);
    (void)kill(server, SIGKILL);
    (void)waitpid(server, NULL, 0);
    return 0;
}

/* What the client has no call for. The caller frees the id. */
static char *run_instance(void)
{
    static const char form[] =
        "Action=RunInstances&Version=2016-11-15&ImageId=ami-12c6146b&MinCount=1&MaxCount=1&"
        "Placement.AvailabilityZone=eu-west-1a";
    const char *const headers[] = {"Content-Type: application/x-www-form-urlencoded; charset=utf-8",
                                   NULL};
    const struct http_sign sign = {"eu-west-1", "ec2", "AKIATEST", "secret"};
    CLEANUP_HTTP_ANSWER struct http_answer a = {0};
    CLEANUP_XML struct xml *root = NULL;

    ok(http_client_call_sync(http,
                             &(struct http_call){.method = "POST",
                                                 .url = url,
                                                 .headers = headers,
                                                 .body = form,
                                                 .body_size = strlen(form),
                                                 .sign = &sign,
                                                 .timeout_us = 30000000},
                             &a));
    ok(xml_parse(a.body.data, a.body.len, &root));
    return xstrdup(xml_text(xml_child(xml_child(root, "instancesSet"), "item"), "instanceId"));
}

static void test_life_of_a_volume(void **state)
{
    CLEANUP_FREE char *instance = run_instance();
    const struct ec2_filter tags[] = {
        {AWS_TAG_CLUSTER, DATASET}, {AWS_TAG_DATASET, DATASET}, {"Name", "a&b=c d"}, {NULL, NULL}};
    const struct ec2_filter tagged[] = {{"tag:" AWS_TAG_DATASET, DATASET}, {NULL, NULL}};
    const struct ec2_filter here[] = {{"attachment.instance-id", instance}, {NULL, NULL}};
    const struct ec2_new_volume how = {.zone = "eu-west-1a",
                                       .type = "gp3",
                                       .client_token = "token-1",
                                       .size = 2 * GIB,
                                       .tags = tags};
    CLEANUP_AWS_VOLUMES struct aws_volumes l = {0}, m = {0}, gone = {0};
    CLEANUP_AWS_INSTANCES struct aws_instances running = {0};
    struct ec2_try t = try_for(60);
    struct aws_volume v;

    ok(ec2_create_sync(ec2, &t, &how, &v));
    assert_int_equal(v.size, 2 * GIB);
    ok(ec2_volumes_sync(ec2, &t, NULL, tagged, &l));
    assert_int_equal(l.n, 1);
    assert_string_equal(l.all[0].id, v.id);
    assert_string_equal(UUID_STR(&l.all[0].dataset), DATASET);
    assert_int_equal(l.all[0].status, AWS_VOLUME_AVAILABLE);
    ok(ec2_instance_sync(ec2, &t, instance, &running));
    assert_int_equal(running.n, 1);
    assert_string_equal(running.all[0].id, instance);
    ok(ec2_attach_sync(ec2, &t, v.id, instance, "/dev/xvdba"));
    ok(ec2_volumes_sync(ec2, &t, NULL, here, &m));
    bool seen = false;

    for (size_t i = 0; i < m.n; i++)
        seen = seen || (streq(m.all[i].id, v.id) && m.all[i].n_attachments == 1 &&
                        streq(m.all[i].attachments[0].device, "/dev/xvdba") &&
                        m.all[i].attachments[0].status == AWS_ATTACHED);
    assert_true(seen);
    CLEANUP_ERR struct err *used = ec2_delete_sync(ec2, &t, v.id);
    assert_int_equal(t.kind, AWS_IN_USE);
    assert_non_null(used);
    ok(ec2_detach_sync(ec2, &t, v.id, instance));
    ok(ec2_delete_sync(ec2, &t, v.id));
    CLEANUP_ERR struct err *again = ec2_delete_sync(ec2, &t, v.id);
    assert_non_null(again);
    assert_int_equal(t.kind, AWS_NOT_FOUND);
    ok(ec2_volumes_sync(ec2, &t, NULL, tagged, &gone));
    assert_int_equal(gone.n, 0);
}

static void test_attach_to_nobody(void **state)
{
    const struct ec2_filter tags[] = {{"Name", "x"}, {NULL, NULL}};
    const struct ec2_new_volume how = {
        .zone = "eu-west-1a", .type = "gp3", .client_token = "token-2", .size = GIB, .tags = tags};
    struct ec2_try t = try_for(60);
    struct aws_volume v;

    ok(ec2_create_sync(ec2, &t, &how, &v));
    CLEANUP_ERR struct err *e = ec2_attach_sync(ec2, &t, v.id, "i-0123456789abcdef0", "/dev/xvdba");

    assert_non_null(e);
    assert_int_equal(t.kind, AWS_NOT_FOUND);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_life_of_a_volume),
        cmocka_unit_test(test_attach_to_nobody),
    };

    if (argc < 2 || access(argv[1], X_OK) < 0) {
        (void)puts("skipped: needs moto (scripts/install-moto)");
        return 77;
    }
    (void)signal(SIGPIPE, SIG_IGN);
    program = argv[1];
    return cmocka_run_group_tests(tests, start, stop);
}
