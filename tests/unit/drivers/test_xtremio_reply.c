/* What an XtremIO array answers. The inputs are those of the fuzz target: argv[1] is their folder; each begins with its letter. */
#include "drivers/json_http.h"
#include "drivers/xtremio/xtremio.h"

#include "base/str.h"

#include <stdio.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#define DATASET "d1d1d1d1-2222-4222-8222-222222222222"
#define CLUSTER "5c010203-0405-4607-8809-0a0b0c0d0e0f"
#define NAME "block-" DATASET "-5c0102030405"

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

/* NULL when it is none. The caller frees it. */
static json_t *json_input(const char *name)
{
    CLEANUP_FREE char *text = input(name);
    json_t *root = NULL;

    err_free(json_http_parse(text, strlen(text), &root));
    return root;
}

#define PARSE(fn, name, ret)                                                                       \
    do {                                                                                           \
        json_t *root_ = json_input(name);                                                          \
        CLEANUP_ERR struct err *e_ = fn(root_, ret);                                               \
                                                                                                   \
        json_decref(root_);                                                                        \
        if (e_)                                                                                    \
            fail_msg("%s: %s", name, e_->text);                                                    \
    } while (0)

static struct uuid uuid(const char *text)
{
    struct uuid u;

    assert_true(uuid_parse(text, &u));
    return u;
}

static void test_volumes(void **state)
{
    CLEANUP_XTREMIO_VOLUMES struct xtremio_volumes v = {0};
    struct uuid cluster = uuid(CLUSTER), dataset;

    PARSE(xtremio_volumes_parse, "volumes", &v);
    assert_int_equal(v.n, 2); /* what is no volume is left out */
    assert_string_equal(v.all[0].name, NAME);
    assert_int_equal(v.all[0].index, 5);
    assert_int_equal(v.all[0].size, 1ull << 30);
    assert_string_equal(v.all[0].naa, "514f0c5447600351");
    assert_int_equal(v.all[0].n_maps, 1);
    assert_string_equal(v.all[0].maps[0].group, "node-a");
    assert_int_equal(v.all[0].maps[0].group_index, 3);
    assert_int_equal(v.all[0].maps[0].target_index, 1);
    assert_int_equal(v.all[0].maps[0].lun, 7);
    assert_true(xtremio_volume_dataset(&v.all[0], &cluster, &dataset));
    assert_string_equal(UUID_STR(&dataset), DATASET);
    /* one of Flocker 1 */
    assert_string_equal(UUID_STR(&v.all[1].folder), CLUSTER);
    assert_string_equal(v.all[1].naa, "");
    assert_true(xtremio_volume_dataset(&v.all[1], &cluster, &dataset));
    assert_string_equal(UUID_STR(&dataset), DATASET);
}

static void test_whose_volume(void **state)
{
    struct uuid cluster = uuid(CLUSTER), other = uuid(DATASET), dataset;
    static const char *const nobodys[] = {
        "block-" DATASET,
        "block-" DATASET "-5c0102030406",
        NAME "0",
        "block-" DATASET "-5c01",
        "block-x" DATASET,
        "block-",
        "Block-" DATASET "-5c0102030405",
        DATASET,
    };
    struct xtremio_volume v = {0};

    (void)snprintf(v.name, sizeof(v.name), "%s", NAME);
    assert_true(xtremio_volume_dataset(&v, &cluster, &dataset));
    assert_false(xtremio_volume_dataset(&v, &other, &dataset));
    for (size_t i = 0; i < ARRAY_SIZE(nobodys); i++) {
        (void)snprintf(v.name, sizeof(v.name), "%s", nobodys[i]);
        assert_false(xtremio_volume_dataset(&v, &cluster, &dataset));
    }
    (void)snprintf(v.name, sizeof(v.name), "block-" DATASET);
    v.folder = other; /* of another cluster */
    assert_false(xtremio_volume_dataset(&v, &cluster, &dataset));
    v.folder = cluster;
    assert_true(xtremio_volume_dataset(&v, &cluster, &dataset));
}

static void test_volume(void **state)
{
    CLEANUP_XTREMIO_VOLUME struct xtremio_volume v = {0}, fresh = {0};
    static const char *const odd[] = {"volume_without_size",
                                      "volume_size_too_large",
                                      "volume_odd_naa",
                                      "volume_map_without_lun",
                                      "volume_lun_too_large",
                                      "volume_name_with_newline",
                                      "volumes",
                                      "error_proxy_page"};

    PARSE(xtremio_volume_parse, "volume_mapped", &v);
    assert_string_equal(v.naa, "514f0c5447600351");
    assert_int_equal(v.n_maps, 2);
    assert_string_equal(v.maps[1].group, "node-b");
    assert_int_equal(v.maps[1].lun, 300);
    PARSE(xtremio_volume_parse, "volume_fresh", &fresh);
    assert_string_equal(fresh.naa, "");
    for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
        struct xtremio_volume none = {0};
        json_t *root = json_input(odd[i]);
        CLEANUP_ERR struct err *e = xtremio_volume_parse(root, &none);

        json_decref(root);
        if (!err_is(e, ERR_CORRUPT))
            fail_msg("%s: %s", odd[i], e ? e->text : "accepted");
        assert_null(none.maps);
    }
}

static void test_ports(void **state)
{
    CLEANUP_XTREMIO_INITIATORS struct xtremio_initiators in = {0};
    CLEANUP_XTREMIO_TARGETS struct xtremio_targets fc = {0}, iscsi = {0};

    PARSE(xtremio_initiators_parse, "initiators", &in);
    assert_int_equal(in.n, 2);
    assert_string_equal(in.all[0].port, "iqn.1993-08.org.debian:01:222");
    assert_string_equal(in.all[1].port, "10:00:00:00:c9:00:00:01");
    assert_string_equal(in.all[1].group, "node-b");
    PARSE(xtremio_targets_parse, "targets", &fc);
    assert_int_equal(fc.n, 1);
    assert_string_equal(fc.all[0].port, "21:00:00:24:ff:57:b2:36");
    PARSE(xtremio_portals_parse, "portals", &iscsi);
    assert_int_equal(iscsi.n, 2);
    assert_string_equal(iscsi.all[0].portal, "10.205.68.5:3260");
    assert_string_equal(iscsi.all[1].portal, "[fd00::1]:3260");
}

static void test_luns_and_clusters(void **state)
{
    static bool used[XTREMIO_LUN_MAX + 1];
    CLEANUP_FREE char *names = NULL;

    PARSE(xtremio_luns_parse, "lun_maps", used);
    for (size_t i = 0; i < ARRAY_SIZE(used); i++)
        assert_int_equal(used[i], i == 1 || i == 17);
    json_t *root = json_input("lun_maps_without_lun");
    CLEANUP_ERR struct err *e = xtremio_luns_parse(root, used);

    json_decref(root);
    assert_true(err_is(e, ERR_CORRUPT));
    PARSE(xtremio_clusters_parse, "clusters", &names);
    assert_string_equal(names, "xbrick1\nxbrick2\n");
}

static void test_names_of_ports(void **state)
{
    static const struct {
        const char *text, *port;
    } cases[] = {
        {"0x21000024FF57B236", "21:00:00:24:ff:57:b2:36"},
        {"21:00:00:24:ff:57:B2:36", "21:00:00:24:ff:57:b2:36"},
        {"21000024ff57b236", "21:00:00:24:ff:57:b2:36"},
        {"iqn.1993-08.org.debian:01:ABC", "iqn.1993-08.org.debian:01:abc"},
        {"21:00:00:24:ff:57:b2-36", NULL},
        {"21:00:00:24:ff:57:b2:3g", NULL},
        {"210000:24ff57b236", NULL},
        {"iqn.", NULL},
        {"iqn.a b", NULL},
        {"", NULL},
    };
    char port[XTREMIO_PORT_SIZE];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(xtremio_port_normalize(cases[i].text, port), cases[i].port != NULL);
        if (cases[i].port)
            assert_string_equal(port, cases[i].port);
    }
}

static void test_initiatorname(void **state)
{
    static const struct {
        const char *name, *port;
    } cases[] = {{"initiatorname", "iqn.1993-08.org.debian:01:9a8b7c"},
                 {"initiatorname_none", NULL},
                 {"initiatorname_blank_at_end", "iqn.1993-08.org.debian:01:abc"}};
    char port[XTREMIO_PORT_SIZE];

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        CLEANUP_FREE char *text = input(cases[i].name);

        assert_int_equal(xtremio_initiatorname_parse(text, port), cases[i].port != NULL);
        if (cases[i].port)
            assert_string_equal(port, cases[i].port);
    }
}

static void test_failures(void **state)
{
    static const struct {
        const char *name;
        int status;
        enum xtremio_failure_kind kind;
        enum err_code code;
        const char *part;
    } cases[] = {
        {"error_not_found", 400, XTREMIO_NOT_FOUND, ERR_NOT_FOUND, "obj_not_found"},
        {"error_not_unique", 400, XTREMIO_NOT_UNIQUE, ERR_EXISTS, "vol_obj_name_not_unique"},
        {"error_already_mapped", 400, XTREMIO_ALREADY_MAPPED, ERR_BUSY, "already_mapped"},
        {"error_busy", 400, XTREMIO_ARRAY_BUSY, ERR_UNAVAILABLE, "system_is_busy"},
        {"error_too_many", 400, XTREMIO_LIMIT, ERR_NO_SPACE, "a limit of the array"},
        {"error_control_characters", 400, XTREMIO_FAILED, ERR_INVALID, "a?b?c??"},
        {"error_proxy_page", 502, XTREMIO_TROUBLE, ERR_UNAVAILABLE, "no message"},
        {"error_proxy_page", 401, XTREMIO_DENIED, ERR_DENIED, "xms_password"},
        {"error_not_found", 503, XTREMIO_TROUBLE, ERR_UNAVAILABLE, ""},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        json_t *root = json_input(cases[i].name);
        struct xtremio_failure f = xtremio_failure_parse(cases[i].status, root);
        CLEANUP_ERR struct err *e = xtremio_failure_err(&f, "cannot");

        json_decref(root);
        assert_int_equal(f.kind, cases[i].kind);
        assert_int_equal(e->code, cases[i].code);
        if (!strstr(e->text, cases[i].part))
            fail_msg("%s: %s", cases[i].name, e->text);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_volumes),
        cmocka_unit_test(test_whose_volume),
        cmocka_unit_test(test_volume),
        cmocka_unit_test(test_ports),
        cmocka_unit_test(test_luns_and_clusters),
        cmocka_unit_test(test_names_of_ports),
        cmocka_unit_test(test_initiatorname),
        cmocka_unit_test(test_failures),
    };

    if (argc < 2)
        return 2;
    folder = argv[1];
    return cmocka_run_group_tests(tests, NULL, NULL);
}
