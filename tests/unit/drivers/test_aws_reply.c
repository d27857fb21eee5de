/* What EC2 answers. The inputs are those of the fuzz target: argv[1] is their folder; each begins with its letter. */
#include "drivers/aws/keys.h"
#include "drivers/aws/reply.h"
#include "drivers/aws/xml.h"

#include "base/now.h"
#include "base/str.h"

#include <stdio.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define GIB (1ull << 30)
#define CLUSTER "c1c1c1c1-1111-4111-8111-111111111111"
#define DATASET "d1d1d1d1-2222-4222-8222-222222222222"

static const char *folder;

/* Without its letter. The caller frees it. */
static char *input(const char *name)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", folder, name);
    CLEANUP_STR struct str s = {0};
    char buf[4096];
    size_t n;
    FILE *f = fopen(path, "re");

    if (!f)
        fail_msg("there is no %s", path);
    while ((n = fread(buf, 1, sizeof(buf), f)))
        str_append_bytes(&s, buf, n);
    (void)fclose(f);
    return xstrdup(s.data + 1);
}

static void volumes(const char *name, struct aws_volumes *v)
{
    CLEANUP_FREE char *text = input(name);
    CLEANUP_ERR struct err *e = aws_volumes_parse(text, strlen(text), v);

    if (e)
        fail_msg("%s: %s", name, e->text);
}

static void volumes_refused(const char *name, const char *part)
{
    CLEANUP_AWS_VOLUMES struct aws_volumes v = {0};
    CLEANUP_FREE char *text = input(name);
    CLEANUP_ERR struct err *e = aws_volumes_parse(text, strlen(text), &v);

    if (!err_is(e, ERR_CORRUPT) || !strstr(e->text, part))
        fail_msg("%s: %s", name, e ? e->text : "accepted");
    assert_int_equal(v.n, 0);
}

static void test_volumes(void **state)
{
    CLEANUP_AWS_VOLUMES struct aws_volumes v = {0};

    volumes("volumes_two_and_more", &v);
    assert_int_equal(v.n, 2);
    assert_string_equal(v.next, "AAMA-EFRSURBSGhvdHJhaW5ib3c=");
    const struct aws_volume *a = &v.all[0], *b = &v.all[1];

    assert_string_equal(a->id, "vol-0123456789abcdef0");
    assert_int_equal(a->size, 4 * GIB);
    assert_int_equal(a->status, AWS_VOLUME_AVAILABLE);
    assert_string_equal(a->zone, "eu-west-1a");
    assert_string_equal(a->created, "2026-01-31T12:00:00.123Z");
    assert_string_equal(UUID_STR(&a->cluster), CLUSTER);
    assert_string_equal(UUID_STR(&a->dataset), DATASET);
    assert_int_equal(a->n_attachments, 0);
    assert_int_equal(b->size, 16384 * GIB);
    assert_string_equal(b->type, "io2");
    assert_int_equal(b->n_attachments, 1);
    assert_string_equal(b->attachments[0].instance, "i-0a1b2c3d4e5f60718");
    assert_string_equal(b->attachments[0].device, "/dev/xvdaa");
    assert_int_equal(b->attachments[0].status, AWS_ATTACHED);
}

static void test_pages_add_up(void **state)
{
    CLEANUP_AWS_VOLUMES struct aws_volumes v = {0};

    volumes("volumes_two_and_more", &v);
    volumes("volumes_attaching", &v);
    assert_int_equal(v.n, 3);
    assert_null(v.next);
    assert_int_equal(v.all[2].attachments[0].status, AWS_ATTACHING);
    CLEANUP_FREE char *cut = input("volumes_cut");
    CLEANUP_ERR struct err *e = aws_volumes_parse(cut, strlen(cut), &v);

    assert_non_null(e);
    assert_int_equal(v.n, 3);
}

static void test_empty_lists(void **state)
{
    CLEANUP_AWS_VOLUMES struct aws_volumes v = {0};

    volumes("volumes_none", &v);
    volumes("volumes_empty_element", &v);
    volumes("volumes_prefixed", &v);
    assert_int_equal(v.n, 0);
}

static void test_attachments(void **state)
{
    CLEANUP_AWS_VOLUMES struct aws_volumes v = {0};

    volumes("volumes_busy", &v);
    volumes("volumes_detached_entry", &v);
    volumes("volumes_multi_attach", &v);
    volumes("volumes_new_states", &v);
    assert_int_equal(v.all[0].attachments[0].status, AWS_ATTACHMENT_BUSY);
    assert_int_equal(v.all[1].n_attachments, 0);
    assert_int_equal(v.all[2].n_attachments, 2);
    assert_int_equal(v.all[3].status, AWS_VOLUME_UNKNOWN);
    assert_int_equal(v.all[3].attachments[0].status, AWS_ATTACHMENT_UNKNOWN);
    volumes_refused("volumes_too_many_attachments", "more attachments");
}

/* Whatever people write into tags: the volume is a foreign one, not an error. */
static void test_foreign_tags(void **state)
{
    CLEANUP_AWS_VOLUMES struct aws_volumes v = {0};

    volumes("volumes_foreign_tags", &v);
    volumes("volumes_id_v1", &v);
    volumes("volumes_entity_in_tag", &v);
    for (size_t i = 0; i < v.n; i++)
        assert_true(uuid_is_nil(&v.all[i].dataset) && uuid_is_nil(&v.all[i].cluster));
}

static void test_refused(void **state)
{
    volumes_refused("volumes_bad_id", "volumeId");
    volumes_refused("volumes_bad_size", "size");
    volumes_refused("volumes_huge_size", "size");
    volumes_refused("volumes_negative_size", "size");
    volumes_refused("volumes_cut", "not XML");
    volumes_refused("volumes_wrong_root", "'html'");
}

static void test_created(void **state)
{
    CLEANUP_FREE char *text = input("created");
    CLEANUP_FREE char *without = input("created_without_id");
    struct aws_volume v;

    assert_null(aws_volume_parse(text, strlen(text), &v));
    assert_int_equal(v.status, AWS_VOLUME_CREATING);
    assert_string_equal(UUID_STR(&v.dataset), DATASET);
    CLEANUP_ERR struct err *e = aws_volume_parse(without, strlen(without), &v);
    assert_true(err_is(e, ERR_CORRUPT));
}

static void test_instances(void **state)
{
    CLEANUP_AWS_INSTANCES struct aws_instances i = {0};
    CLEANUP_FREE char *text = input("instances");
    CLEANUP_FREE char *without = input("instances_without_list");

    assert_null(aws_instances_parse(text, strlen(text), &i));
    assert_true(i.n >= 1);
    assert_string_equal(i.all[0].id, "i-0a1b2c3d4e5f60718");
    assert_false(i.all[0].off);
    size_t before = i.n;
    assert_string_equal(i.next, "abc");
    CLEANUP_ERR struct err *e = aws_instances_parse(without, strlen(without), &i);
    assert_true(err_is(e, ERR_CORRUPT));
    assert_int_equal(i.n, before);
}

static void test_zones(void **state)
{
    CLEANUP_FREE char *text = input("zones");
    CLEANUP_FREE char *names = NULL;

    assert_null(aws_zones_parse(text, strlen(text), &names));
    assert_string_equal(names, "eu-west-1a eu-west-1b ");
}

static struct aws_failure failure(int status, const char *code, const char *message)
{
    CLEANUP_FREE char *text =
        xasprintf("<Response><Errors><Error><Code>%s</Code><Message>%s</Message></Error></Errors>"
                  "<RequestID>req-1</RequestID></Response>",
                  code, message);

    return aws_failure_parse(status, text, strlen(text));
}

static void test_failures(void **state)
{
    static const struct {
        int status;
        const char *code, *message;
        enum aws_failure_kind kind;
        enum err_code err;
    } cases[] = {
        {503, "RequestLimitExceeded", "", AWS_THROTTLED, ERR_UNAVAILABLE},
        {429, "NewName", "", AWS_THROTTLED, ERR_UNAVAILABLE},
        {500, "InternalError", "", AWS_TROUBLE, ERR_UNAVAILABLE},
        {502, "", "", AWS_TROUBLE, ERR_UNAVAILABLE},
        {400, "InvalidVolume.NotFound", "", AWS_NOT_FOUND, ERR_NOT_FOUND},
        {400, "IncorrectState", "", AWS_WRONG_STATE, ERR_CONFLICT},
        {400, "VolumeInUse", "", AWS_IN_USE, ERR_BUSY},
        {400, "InvalidParameterValue", "Attachment point /dev/xvdaa is already in use",
         AWS_DEVICE_TAKEN, ERR_BUSY},
        {400, "InvalidParameterValue", "Invalid size", AWS_REFUSED, ERR_INVALID},
        {400, "AttachmentLimitExceeded", "", AWS_LIMIT, ERR_TOO_MANY},
        {400, "VolumeModificationRateExceeded", "", AWS_TOO_SOON, ERR_TOO_MANY},
        {400, "InsufficientVolumeCapacity", "", AWS_NO_CAPACITY, ERR_NO_SPACE},
        {401, "AuthFailure", "", AWS_CREDENTIALS, ERR_DENIED},
        {403, "UnauthorizedOperation", "", AWS_FORBIDDEN, ERR_DENIED},
        {400, "IdempotentParameterMismatch", "", AWS_TOKEN_MISMATCH, ERR_EXISTS},
        {400, "SomethingNew", "", AWS_FAILED, ERR_IO},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct aws_failure f = failure(cases[i].status, cases[i].code, cases[i].message);
        CLEANUP_ERR struct err *e = aws_failure_err(&f, "cannot do it");

        if (f.kind != cases[i].kind || !err_is(e, cases[i].err))
            fail_msg("%s: kind %d, %s", cases[i].code, f.kind, e->text);
        assert_true(str_has_prefix(e->text, "cannot do it: EC2 says "));
        assert_non_null(strstr(e->text, "(request req-1)"));
    }
}

static void test_failure_that_is_no_xml(void **state)
{
    CLEANUP_FREE char *page = input("error_proxy_page");
    CLEANUP_FREE char *odd = input("error_control_characters");
    struct aws_failure f = aws_failure_parse(502, page, strlen(page));

    assert_int_equal(f.kind, AWS_TROUBLE);
    assert_string_equal(f.code, "HTTP status 502");
    f = aws_failure_parse(503, NULL, 0);
    assert_int_equal(f.kind, AWS_TROUBLE);
    f = aws_failure_parse(400, odd, strlen(odd));
    assert_string_equal(f.code, "a?b");
    assert_string_equal(f.message, "c?d???");
}

static void test_xml(void **state)
{
    static const char *const refused[] = {"xml_doctype", "xml_external", "xml_deep",
                                          "xml_two_roots"};
    CLEANUP_FREE char *text = input("xml_comment_cdata");
    CLEANUP_XML struct xml *root = NULL;

    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        CLEANUP_FREE char *bad = input(refused[i]);
        CLEANUP_XML struct xml *none = NULL;
        CLEANUP_ERR struct err *e = xml_parse(bad, strlen(bad), &none);

        assert_true(err_is(e, ERR_CORRUPT));
        assert_null(none);
    }
    assert_null(xml_parse(text, strlen(text), &root));
    assert_string_equal(xml_text(root, "c"), "<d>  e");
    assert_string_equal(xml_text(root, "d"), "");
    assert_string_equal(xml_text(NULL, "d"), "");
}

/* ---- keys ---- */

static void test_role_keys(void **state)
{
    static const char *const refused[] = {"role_failed", "role_line_break", "role_bad_time"};
    CLEANUP_FREE char *text = input("role_keys");
    CLEANUP_AWS_KEYS struct aws_keys k = {0};
    uint64_t end;

    assert_null(aws_keys_parse(text, strlen(text), &k));
    assert_string_equal(k.id, "ASIAEXAMPLE");
    assert_string_equal(k.secret, "secret/+=");
    assert_string_equal(k.token, "IQoJb3JpZ2luX2VjEXAMPLE");
    assert_true(aws_time_parse("2026-01-31T18:00:00Z", &end));
    assert_int_equal(end, 1769882400ull * USEC_PER_SEC);
    assert_int_equal(k.expires_us, end);
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        CLEANUP_FREE char *bad = input(refused[i]);
        CLEANUP_AWS_KEYS struct aws_keys none = {0};
        CLEANUP_ERR struct err *e = aws_keys_parse(bad, strlen(bad), &none);

        if (!err_is(e, ERR_CORRUPT))
            fail_msg("%s was accepted", refused[i]);
        assert_null(none.secret);
    }
}

static void test_profiles(void **state)
{
    static const struct {
        const char *name, *profile;
        enum err_code code;
    } refused[] = {
        {"profile_incomplete", "default", ERR_INVALID},
        {"profile_missing", "default", ERR_NOT_FOUND},
        {"profile_no_assignment", "default", ERR_INVALID},
        {"profile", "third", ERR_NOT_FOUND},
    };
    CLEANUP_FREE char *text = input("profile");
    CLEANUP_FREE char *crlf = input("profile_crlf");
    CLEANUP_AWS_KEYS struct aws_keys k = {0}, other = {0}, third = {0};

    assert_null(aws_keys_of_profile(text, "default", &k));
    assert_string_equal(k.id, "AKIAEXAMPLE");
    assert_string_equal(k.secret, "wJalr/K7=MDENG");
    assert_null(k.token);
    assert_null(aws_keys_of_profile(text, "other", &other));
    assert_string_equal(other.secret, "o");
    assert_null(aws_keys_of_profile(crlf, "default", &third));
    assert_string_equal(third.secret, "B");
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        CLEANUP_FREE char *bad = input(refused[i].name);
        CLEANUP_AWS_KEYS struct aws_keys none = {0};
        CLEANUP_ERR struct err *e = aws_keys_of_profile(bad, refused[i].profile, &none);

        if (!err_is(e, refused[i].code))
            fail_msg("%s: %s", refused[i].name, e ? e->text : "accepted");
        assert_null(none.id);
    }
}

static void test_times(void **state)
{
    static const char *const refused[] = {"",
                                          "2026-01-31",
                                          "2026-01-31T12:00:00",
                                          "2026-13-31T12:00:00Z",
                                          "2026-01-31T12:00:00+01:00",
                                          " 026-01-31T12:00:00Z",
                                          "1900-01-31T12:00:00Z"};
    uint64_t us;

    assert_true(aws_time_parse("1970-01-01T00:00:01.999Z", &us));
    assert_int_equal(us, USEC_PER_SEC);
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        if (aws_time_parse(refused[i], &us))
            fail_msg("%s was accepted", refused[i]);
    }
}

static void test_addresses_for_keys(void **state)
{
    static const char *const good[] = {"https://keys.example.net/x", "http://169.254.170.2/v2/x",
                                       "http://[fd00:ec2::23]/v1", "http://localhost:8080/x",
                                       "http://127.0.0.1:1"};
    static const char *const bad[] = {"http://keys.example.net/",
                                      "http://localhost@evil.example/",
                                      "http://127.0.0.1.evil.example/",
                                      "http://127.0.0.1:1@evil/",
                                      "ftp://127.0.0.1/",
                                      "http://127.0.0.1/a b",
                                      ""};

    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        assert_true(aws_container_url_is_safe(good[i]));
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_false(aws_container_url_is_safe(bad[i]));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_volumes),
        cmocka_unit_test(test_pages_add_up),
        cmocka_unit_test(test_empty_lists),
        cmocka_unit_test(test_attachments),
        cmocka_unit_test(test_foreign_tags),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_created),
        cmocka_unit_test(test_instances),
        cmocka_unit_test(test_zones),
        cmocka_unit_test(test_failures),
        cmocka_unit_test(test_failure_that_is_no_xml),
        cmocka_unit_test(test_xml),
        cmocka_unit_test(test_role_keys),
        cmocka_unit_test(test_profiles),
        cmocka_unit_test(test_times),
        cmocka_unit_test(test_addresses_for_keys),
    };

    if (argc < 2)
        return 2;
    folder = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
