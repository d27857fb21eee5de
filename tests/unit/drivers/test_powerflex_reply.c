/* What a PowerFlex gateway answers. The inputs are those of the fuzz target: argv[1] is their folder; each begins with its letter. */
#include "drivers/json_http.h"
#include "drivers/powerflex/sdc.h"

#include "base/str.h"

#include <stdio.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define SDC "c000000100000000"
#define GUID "9e56672f-2f4b-4a42-bff4-88b6846fbfda"
#define NAME "f0dHR0SIiQiKCIiIiIiIiIgc1c1c1c1"
#define GIB (1ull << 30)

static const char *folder;
static const struct uuid cluster = {{0xc1, 0xc1, 0xc1, 0xc1, 1}};

/* Without its letter. The caller frees it. */
static struct str input(const char *name)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", folder, name);
    struct str s = {0}, rest = {0};
    char buf[4096];
    size_t n;
    FILE *f = fopen(path, "re");

    if (!f)
        fail_msg("there is no %s", path);
    while ((n = fread(buf, 1, sizeof(buf), f)))
        str_append_bytes(&s, buf, n);
    (void)fclose(f);
    str_append_bytes(&rest, s.data + 1, s.len - 1);
    str_done(&s);
    return rest;
}

/* NULL: empty, or no JSON. The caller frees it. */
static json_t *answer(const char *name)
{
    CLEANUP_STR struct str s = input(name);
    json_t *o = NULL;

    if (s.len)
        err_free(json_http_parse(s.data, s.len, &o));
    return o;
}

static struct pfx_volume volume(const char *name)
{
    json_auto_t *o = answer(name);
    struct pfx_volume v;
    CLEANUP_ERR struct err *e = pfx_volume_parse(o, SDC, &v);

    if (e)
        fail_msg("%s: %s", name, e->text);
    return v;
}

static void test_volumes(void **state)
{
    struct pfx_volume v = volume("volume_unmapped");

    assert_string_equal(v.id, "a1b2c3d400000001");
    assert_string_equal(v.name, NAME);
    assert_int_equal(v.size, 8 * GIB);
    assert_false(v.here || v.elsewhere || v.n_others);
    v = volume("volume_mapped_here");
    assert_true(v.here && !v.elsewhere);
    v = volume("volume_mapped_elsewhere");
    assert_true(!v.here && v.elsewhere && v.n_others == 1);
    assert_string_equal(v.others[0], "c000000200000000");
    v = volume("volume_mapped_to_both");
    assert_true(v.here && v.elsewhere && v.n_others == 1);
    v = volume("volume_mapped_to_all");
    assert_true(!v.here && v.elsewhere && !v.n_others);
    v = volume("volume_mapped_to_many");
    assert_true(v.here && v.elsewhere && v.n_others == PFX_OTHERS_MAX);
    assert_int_equal(volume("volume_size_as_text").size, 16 * GIB);
    assert_string_equal(volume("volume_long_name").name, "");
    assert_string_equal(volume("volume_no_name").name, "");
}

static void test_volumes_refused(void **state)
{
    static const char *const names[] = {"volume_size_negative",
                                        "volume_size_huge",
                                        "volume_size_missing",
                                        "volume_id_with_slash",
                                        "volume_mapping_without_sdc",
                                        "volume_mapping_is_a_text",
                                        "volume_empty",
                                        "volume_html"};
    struct pfx_volume v;

    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        json_auto_t *o = answer(names[i]);
        CLEANUP_ERR struct err *e = pfx_volume_parse(o, SDC, &v);

        if (!err_is(e, ERR_CORRUPT))
            fail_msg("%s: %s", names[i], e ? e->text : "accepted");
    }
}

static void test_lists(void **state)
{
    json_auto_t *none = answer("list_none"), *mixed = answer("list_ours_and_others"),
                *broken = answer("list_ours_broken"), *object = answer("list_is_an_object");
    CLEANUP_PFX_VOLUMES struct pfx_volumes l = {0};
    struct uuid dataset;

    assert_null(pfx_volumes_parse(none, SDC, &l));
    assert_int_equal(l.n, 0);
    assert_null(pfx_volumes_parse(mixed, SDC, &l)); /* what others have there may be anything */
    assert_int_equal(l.n, 2);
    assert_string_equal(l.all[1].id, "a1b2c3d400000003");
    assert_true(l.all[1].here);
    assert_true(pfx_name_parse(l.all[1].name, &cluster, &dataset));
    assert_int_equal(dataset.b[0], 0xff);
    CLEANUP_ERR struct err *e = pfx_volumes_parse(broken, SDC, &l);
    CLEANUP_ERR struct err *f = pfx_volumes_parse(object, SDC, &l);
    CLEANUP_ERR struct err *g = pfx_volumes_parse(NULL, SDC, &l);
    assert_true(err_is(e, ERR_CORRUPT) && err_is(f, ERR_CORRUPT) && err_is(g, ERR_CORRUPT));
}

/* As Python's base64 makes them, which made those of Flocker 1. */
static void test_names(void **state)
{
    static const char *const refused[] = {"name_of_another_cluster", "name_a_bit_too_many",
                                          "name_too_long", "name_other_letters"};
    struct uuid dataset, got;
    char made[PFX_NAME_SIZE];

    assert_true(uuid_parse("d1d1d1d1-2222-4222-8222-222222222222", &dataset));
    assert_string_equal(pfx_name_make(&cluster, &dataset, made), NAME);
    assert_true(pfx_name_parse(NAME, &cluster, &got) && uuid_eq(&got, &dataset));
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
        CLEANUP_STR struct str s = input(refused[i]);

        if (pfx_name_parse(s.data, &cluster, &got))
            fail_msg("%s was accepted", refused[i]);
    }
    struct random r = random_os();

    for (int i = 0; i < 1000; i++) {
        struct uuid some = uuid_random_v4(&r);

        assert_true(pfx_name_parse(pfx_name_make(&cluster, &some, made), &cluster, &got) &&
                    uuid_eq(&got, &some));
        assert_int_equal(strlen(made), 31);
    }
}

static void test_ids_and_tokens(void **state)
{
    static const struct {
        const char *name;
        bool good;
    } ids[] = {{"id", true}, {"id_empty", false}, {"id_path", false}, {"created", false}},
      tokens[] = {{"token", true},
                  {"token_line_break", false},
                  {"token_empty", false},
                  {"token_object", false}};
    char id[PFX_ID_SIZE];

    for (size_t i = 0; i < ARRAY_SIZE(ids); i++) {
        json_auto_t *o = answer(ids[i].name);
        CLEANUP_ERR struct err *e = pfx_id_parse(o, id);

        assert_int_equal(!e, ids[i].good);
    }
    for (size_t i = 0; i < ARRAY_SIZE(tokens); i++) {
        json_auto_t *o = answer(tokens[i].name);
        CLEANUP_FREE char *token = NULL;
        CLEANUP_ERR struct err *e = pfx_token_parse(o, &token);

        assert_int_equal(!e, tokens[i].good);
        assert_true(!e || !strstr(e->text, "Evil"));
    }
    json_auto_t *created = answer("created"), *without = answer("created_without_id");
    CLEANUP_ERR struct err *e = pfx_created_parse(without, id);

    assert_true(err_is(e, ERR_CORRUPT));
    assert_null(pfx_created_parse(created, id));
    assert_string_equal(id, "a1b2c3d400000001");
}

static void test_versions(void **state)
{
    static const struct {
        const char *name;
        unsigned major, minor; /* 0: refused */
    } cases[] = {{"version_36", 3, 6},   {"version_451", 4, 5},    {"version_no_dot", 0, 0},
                 {"version_text", 0, 0}, {"version_number", 0, 0}, {"version_trailing", 0, 0}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        json_auto_t *o = answer(cases[i].name);
        unsigned major = 0, minor = 0;
        CLEANUP_ERR struct err *e = pfx_version_parse(o, &major, &minor);

        if (!e != !!cases[i].major || major != cases[i].major || minor != cases[i].minor)
            fail_msg("%s: %u.%u", cases[i].name, major, minor);
    }
}

static void test_systems_and_pools(void **state)
{
    json_auto_t *one = answer("systems"), *two = answer("systems_two"),
                *padded = answer("pool_padded"), *bare = answer("pool_not_padded"),
                *newer = answer("pool_of_5");
    char id[PFX_ID_SIZE];
    bool zeros = false;
    CLEANUP_ERR struct err *e = pfx_system_parse(two, id);

    assert_true(err_is(e, ERR_CORRUPT));
    assert_null(pfx_system_parse(one, id));
    assert_string_equal(id, "5f3a0c1e2d4b6978");
    assert_true(!pfx_pool_parse(padded, &zeros) && zeros);
    assert_true(!pfx_pool_parse(bare, &zeros) && !zeros);
    assert_true(!pfx_pool_parse(newer, &zeros) && zeros);
}

static void test_sdcs(void **state)
{
    json_auto_t *one = answer("sdc"), *odd = answer("sdc_odd_ip"), *none = answer("sdc_no_guid"),
                *list = answer("sdcs"), *without = answer("sdcs_without_us");
    struct pfx_sdc s;

    assert_null(pfx_sdc_parse(one, &s));
    assert_string_equal(s.guid, GUID);
    assert_string_equal(s.ip, "192.0.2.1");
    assert_null(pfx_sdc_parse(odd, &s));
    assert_string_equal(s.ip, "");
    CLEANUP_ERR struct err *e = pfx_sdc_parse(none, &s);
    CLEANUP_PFX_SDCS struct pfx_sdcs all = {0}, others = {0};

    assert_null(pfx_sdcs_parse(without, &others));
    CLEANUP_ERR struct err *f = pfx_sdcs_find(&others, GUID, &s);

    assert_true(err_is(e, ERR_CORRUPT));
    assert_true(err_is(f, ERR_NOT_FOUND) && strstr(f->text, GUID));
    assert_null(pfx_sdcs_parse(list, &all));
    assert_int_equal(all.n, 1);
    assert_null(pfx_sdcs_find(&all, GUID, &s));
    assert_string_equal(pfx_sdcs_guid(&all, SDC), GUID);
    assert_null(pfx_sdcs_guid(&all, "c000000200000000"));
    assert_string_equal(s.id, SDC);
    assert_string_equal(s.ip, "2001:db8::1");
}

static void test_scini(void **state)
{
    CLEANUP_STR struct str good = input("scini_guid");
    CLEANUP_STR struct str refused = input("scini_refused");
    CLEANUP_STR struct str nil = input("scini_nil");
    char guid[PFX_GUID_SIZE];

    assert_true(pfx_scini_decode((unsigned char *)good.data, guid));
    assert_string_equal(guid, GUID);
    assert_false(pfx_scini_decode((unsigned char *)refused.data, guid));
    assert_false(pfx_scini_decode((unsigned char *)nil.data, guid));
}

static void test_failures(void **state)
{
    static const struct {
        const char *name;
        int status;
        enum pfx_failure_kind kind;
        int code;
        const char *part;
    } cases[] = {
        {"error_not_found", 500, PFX_NOT_FOUND, 79, "Could not find the volume (error 79)"},
        {"error_not_found", 401, PFX_LOGIN, 79, "username and password"},
        {"error_not_found", 403, PFX_FORBIDDEN, 79, "role"},
        {"error_in_details", 500, PFX_MAPPED, 4037, "already mapped to this SDC"},
        {"error_unknown", 500, PFX_REFUSED, 3, "Not??found"},
        {"error_empty", 500, PFX_TROUBLE, 0, "HTTP status 500"},
        {"error_empty", 400, PFX_REFUSED, 0, "HTTP status 400"},
        {"error_proxy_page", 502, PFX_TROUBLE, 0, "HTTP status 502"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        json_auto_t *o = answer(cases[i].name);
        struct pfx_failure f = pfx_failure_parse(cases[i].status, o);
        CLEANUP_ERR struct err *e = pfx_failure_err(&f, "cannot map volume 1");

        if (f.kind != cases[i].kind || f.code != cases[i].code || !strstr(e->text, cases[i].part))
            fail_msg("%s, %d: kind %d, %s", cases[i].name, cases[i].status, (int)f.kind, e->text);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_volumes),
        cmocka_unit_test(test_volumes_refused),
        cmocka_unit_test(test_lists),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_ids_and_tokens),
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_systems_and_pools),
        cmocka_unit_test(test_sdcs),
        cmocka_unit_test(test_scini),
        cmocka_unit_test(test_failures),
    };

    if (argc < 2)
        return 2;
    folder = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
