/* What OpenStack answers and what agent.yml and clouds.yaml mean, without any OpenStack. argv[1]: the corpus of the fuzz target. */
#include "base/str.h"
#include "drivers/json_http.h"
#include "drivers/openstack/identity.h"
#include "drivers/openstack/reply.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define GIB ((uint64_t)1 << 30)

static const char *corpus;

static void ok(struct err *e)
{
    if (e)
        fail_msg("%s", e->text);
}

static void fails(struct err *e, enum err_code code, const char *part)
{
    assert_non_null(e);
    if (e->code != code || !strstr(e->text, part))
        fail_msg("%s: %s", err_code_name(e->code), e->text);
    err_free(e);
}

/* An input of the corpus, without the letter that chooses. */
static json_t *input(const char *name)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", corpus, name);
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    char bytes[8192];
    ssize_t n = fd < 0 ? -1 : read(fd, bytes, sizeof(bytes));
    json_t *o = NULL;

    assert_true(n > 1);
    ok(json_http_parse(bytes + 1, (size_t)n - 1, &o));
    return o;
}

static void test_volumes(void **state)
{
    CLEANUP_OS_VOLUMES struct os_volumes v = {0};
    json_t *page = input("volumes_page"), *old = input("volumes_rackspace");

    ok(os_volumes_parse(page, &v));
    assert_int_equal(v.n, 2);
    assert_true(v.more);
    assert_int_equal(v.all[0].status, OS_IN_USE);
    assert_true(v.all[0].size == 75 * GIB);
    assert_int_equal(v.all[0].n_attachments, 1);
    assert_string_equal(v.all[0].attachments[0].device, "/dev/vdb");
    assert_false(uuid_is_nil(&v.all[0].dataset) || uuid_is_nil(&v.all[0].node));
    ok(os_volumes_parse(old, &v));
    assert_int_equal(v.n, 3);
    assert_false(v.more);
    assert_int_equal(v.all[2].n_attachments, 0); /* [{}] */
    json_decref(page);
    json_decref(old);
}

static void test_connections(void **state)
{
    static const char *const wrong[] = {"attachment_option_as_export", "attachment_file_outside",
                                        "attachment_option_injected"};
    struct os_connection c;
    struct os_link link;
    json_t *o = input("attachment_nfs");

    ok(os_connection_parse(o, &link, &c));
    assert_string_equal(link.id, "aa1e");
    assert_false(link.complete);
    assert_string_equal(c.export, "127.0.0.1:/srv/vol");
    assert_string_equal(c.options, "vers=4.1");
    json_decref(o);
    o = input("attachment_iscsi");
    ok(os_connection_parse(o, &link, &c));
    assert_int_equal(c.n_portals, 1);
    assert_int_equal(c.portals[0].lun, 1);
    assert_string_equal(c.chap_user, "u");
    json_decref(o);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        o = input(wrong[i]);
        fails(os_connection_parse(o, &link, &c), ERR_CORRUPT, "cannot be one");
        json_decref(o);
    }
    o = json_pack("{s:{s:s,s:{s:s,s:s,s:s,s:i,s:s,s:s,s:s}}}", "attachment", "id", "a", "connection_info", "driver_volume_type", "iscsi",
                  "target_portal", "10.0.0.5:3260", "target_iqn", "iqn.a:1", "target_lun", 1, "auth_method", "CHAP", "auth_username", "u",
                  "auth_password", "p\nnode.startup = automatic");
    fails(os_connection_parse(o, &link, &c), ERR_CORRUPT, "password for CHAP that cannot be one");
    json_decref(o);
    o = json_pack("{s:{s:s,s:{s:s,s:s,s:s,s:b}}}", "attachment", "id", "a", "connection_info", "driver_volume_type", "nfs", "export", "a:/b",
                  "name", "v", "encrypted", 1);
    fails(os_connection_parse(o, &link, &c), ERR_UNSUPPORTED, "encrypted type");
    json_decref(o);
    o = json_pack("{s:{s:s,s:{s:s}}}", "attachment", "id", "a", "connection_info",
                  "driver_volume_type", "rbd");
    fails(os_connection_parse(o, &link, &c), ERR_UNSUPPORTED, "rbd");
    json_decref(o);
    o = json_pack("{s:{s:s,s:{s:s,s:s,s:s,s:s}}}", "attachment", "id", "a", "connection_info",
                  "driver_volume_type", "nfs", "export", "a:/b", "name", "v", "format", "qcow2");
    fails(os_connection_parse(o, &link, &c), ERR_UNSUPPORTED, "qcow2");
    json_decref(o);
}

static void test_times(void **state)
{
    static const char *const wrong[] = {"", "2026-13-01T00:00:00Z", "2026-01-01",
                                        "1969-01-01T00:00:00Z", "2026-01-01T00:00:00x"};
    uint64_t us;

    assert_true(os_time_parse("2012-04-13T13:15:00.000-05:00", &us));
    assert_true(us == 1334340900ull * 1000000);
    assert_true(os_time_parse("2012-04-13T18:15:00.123456Z", &us));
    assert_true(us == 1334340900ull * 1000000);
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        assert_false(os_time_parse(wrong[i], &us));
}

static void test_catalog(void **state)
{
    static const char *const types[] = {"volumev3", "volume", NULL};
    CLEANUP_OS_CATALOG struct os_catalog c = {0}, old = {0};
    CLEANUP_FREE char *token = NULL, *regions = NULL;
    json_t *o = input("token_v3"), *p = input("token_rackspace");

    ok(os_catalog_parse_v3(o, &c));
    assert_string_equal(os_catalog_find(&c, types, "RegionOne", "public"), "https://c:8776/v3/p");
    assert_null(os_catalog_find(&c, types, "RegionOne", "internal"));
    assert_null(os_catalog_find(&c, types, "Nowhere", "public"));
    regions = os_catalog_regions(&c);
    assert_string_equal(regions, "RegionOne");
    ok(os_catalog_parse_v2(p, &old, &token));
    assert_string_equal(token, "abcdef");
    assert_non_null(os_catalog_find(&old, types, "DFW", "public"));
    json_decref(o);
    json_decref(p);
}

/* What is sent to ask for a token; the texts are those of Keystone's documents. */
static void request_is(json_t *options, const char *url, const char *text)
{
    struct os_identity i;

    ok(os_identity_read(options, &i));
    json_t *request = os_identity_request(&i);
    char *got = json_dumps(request, JSON_COMPACT | JSON_SORT_KEYS);

    assert_string_equal(i.url, url);
    assert_string_equal(got, text);
    free(got);
    json_decref(request);
    os_identity_done(&i);
    json_decref(options);
}

static void test_requests(void **state)
{
    request_is(json_pack("{s:s,s:s,s:s,s:s}", "auth_url", "https://k:5000/", "username", "u",
                         "password", "p", "project_name", "x"),
               "https://k:5000/v3/auth/tokens",
               "{\"auth\":{\"identity\":{\"methods\":[\"password\"],\"password\":{\"user\":{"
               "\"domain\":{\"id\":\"default\"},\"name\":\"u\",\"password\":\"p\"}}},\"scope\":{"
               "\"project\":{\"domain\":{\"id\":\"default\"},\"name\":\"x\"}}}}");
    request_is(json_pack("{s:s,s:s,s:s,s:s}", "auth_url", "https://k/identity/v2.0/", "username",
                         "u", "password", "p", "tenant_name", "x"),
               "https://k/identity/v2.0/tokens",
               "{\"auth\":{\"passwordCredentials\":{\"password\":\"p\",\"username\":\"u\"},"
               "\"tenantName\":\"x\"}}");
    request_is(
        json_pack("{s:s,s:s,s:s}", "auth_plugin", "rackspace", "username", "u", "api_key", "k"),
        "https://identity.api.rackspacecloud.com/v2.0/tokens",
        "{\"auth\":{\"RAX-KSKEY:apiKeyCredentials\":{\"apiKey\":\"k\",\"username\":\"u\"}}}");
    request_is(
        json_pack("{s:s,s:s,s:s}", "auth_url", "https://k/v3", "application_credential_id", "i",
                  "application_credential_secret", "s"),
        "https://k/v3/auth/tokens",
        "{\"auth\":{\"identity\":{\"application_credential\":{\"id\":\"i\",\"secret\":\"s\"},"
        "\"methods\":[\"application_credential\"]}}}");
    request_is(
        json_pack("{s:s,s:s,s:s,s:s}", "auth_plugin", "token", "auth_url", "https://k/v3", "token",
                  "t", "project_id", "x"),
        "https://k/v3/auth/tokens",
        "{\"auth\":{\"identity\":{\"methods\":[\"token\"],\"token\":{\"id\":\"t\"}},\"scope\":{"
        "\"project\":{\"id\":\"x\"}}}}");
}

static void test_missing_keys(void **state)
{
    static const struct {
        const char *plugin, *lacks;
    } cases[] = {{"password", "auth_url"},
                 {"rackspace", "username"},
                 {"noauth", "project_id"},
                 {"kerberos", "no auth_plugin"}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct os_identity id;
        json_t *o = json_pack("{s:s}", "auth_plugin", cases[i].plugin);

        fails(os_identity_read(o, &id), ERR_INVALID, cases[i].lacks);
        json_decref(o);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_volumes),  cmocka_unit_test(test_connections),
        cmocka_unit_test(test_times),    cmocka_unit_test(test_catalog),
        cmocka_unit_test(test_requests), cmocka_unit_test(test_missing_keys),
    };

    corpus = argc > 1 ? argv[1] : ".";
    return cmocka_run_group_tests(tests, NULL, NULL);
}
