/* The original's current_configuration.json, in each of its versions, and damaged ones. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/now.h"
#include "base/str.h"
#include "model/import.h"
#include "model/record.h"

#include <jansson.h>

#include <stdio.h>

#define A "3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f"
#define D1 "c2b7e0d4-5a61-4f3b-9c88-13579bdf2468"
#define D2 "71a0f3c2-9e4d-4b26-8f15-2468ace13579"

static char *golden(const char *name)
{
    CLEANUP_FREE char *path = xasprintf(GOLDEN "/%s.json", name);
    FILE *f = fopen(path, "re");
    struct str s = {0};
    char buf[4096];

    if (!f)
        fail_msg("cannot open %s", path);
    for (size_t n; (n = fread(buf, 1, sizeof(buf), f)) > 0;)
        str_append_bytes(&s, buf, n);
    (void)fclose(f);
    return str_steal(&s);
}

static void read_golden(const char *name, unsigned flags, struct import *ret)
{
    CLEANUP_FREE char *text = golden(name);
    struct err *e = import_parse(text, strlen(text), flags, ret);

    if (e)
        fail_msg("%s: %s", name, e->text);
}

static bool notes(const struct import *i, const char *text)
{
    for (size_t k = 0; k < i->n_notes; k++) {
        if (strstr(i->notes[k], text))
            return true;
    }
    return false;
}

static void assert_noted(const struct import *i, const char *text)
{
    if (notes(i, text))
        return;
    for (size_t k = 0; k < i->n_notes; k++)
        print_error("note: %s\n", i->notes[k]);
    fail_msg("nothing says: %s", text);
}

/* All versions say the same: two datasets, one deleted, a container, and a lease where there were leases already. */
static void check_version(const char *name, int version)
{
    struct import i = {0};

    read_golden(name, 0, &i);
    assert_int_equal(i.version, version);
    assert_int_equal(i.n_datasets, 2);
    assert_int_equal(i.n_containers, 1);
    assert_int_equal(i.n_leases, version >= 3);
    assert_int_equal(i.revision, 3 + i.n_leases);
    const struct dataset *d = i.datasets[0], *gone = i.datasets[1];
    assert_string_equal(UUID_STR(&d->id), D1);
    assert_string_equal(UUID_STR(&d->primary), A);
    assert_int_equal(d->maximum_size, 21474836480);
    assert_string_equal(metadata_get(&d->metadata, "name"), "orders");
    /* It has data on its node: never made anew. */
    assert_true(d->born && uuid_eq(&d->owner, &d->primary) && dataset_has_holder(d, &d->primary));
    assert_true(d->epoch && d->epoch == d->number && d->epoch <= i.revision);
    assert_string_equal(UUID_STR(&gone->id), D2);
    assert_true(gone->deleted && !gone->born && uuid_is_nil(&gone->owner) && !gone->n_holders);
    const struct container *k = i.containers[0];
    assert_string_equal(k->name, "shop-db");
    assert_string_equal(k->image, "postgres:9.4");
    assert_string_equal(UUID_STR(&k->node), A);
    assert_int_equal(k->n_ports, 1);
    assert_int_equal(k->ports[0].internal, 5432);
    assert_int_equal(k->ports[0].external, 5433);
    assert_int_equal(k->n_links, 1);
    assert_string_equal(k->links[0].alias, "cache");
    assert_int_equal(k->n_environment, 1);
    assert_string_equal(k->environment[0].value, "shop");
    assert_int_equal(k->memory_limit, 536870912);
    assert_int_equal(k->cpu_shares, 256);
    assert_int_equal(k->restart_policy, RESTART_ON_FAILURE);
    assert_int_equal(k->maximum_retry_count, 5);
    assert_int_equal(k->n_command_line, 2);
    assert_true(k->n_volumes == 1 && uuid_eq(&k->volumes[0].dataset, &d->id));
    assert_string_equal(k->volumes[0].mountpoint, "/var/lib/postgresql/data");
    assert_int_equal(k->created, k->revision);
    if (i.n_leases) {
        assert_true(uuid_eq(&i.leases[0].dataset, &d->id) && i.leases[0].expires);
        assert_true(i.leases[0].expires_wall_us == UINT64_C(1450000000) * USEC_PER_SEC);
    }
    if (version >= 4)
        assert_noted(&i, "the volume vol-1234 of the old backend was not taken over");
    assert_int_equal(i.n_notes, version >= 4);
    /* Everything can be stored. */
    for (size_t n = 0; n < i.n_datasets; n++) {
        CLEANUP_FREE char *record = record_dataset_encode(i.datasets[n]);
        assert_non_null(record);
    }
    CLEANUP_FREE char *record = record_container_encode(k);
    assert_non_null(record);
    import_done(&i);
}

static void test_versions(void **state)
{
    for (int version = 1; version <= IMPORT_VERSION_MAX; version++) {
        char name[16];
        (void)snprintf(name, sizeof(name), "v%d", version);
        check_version(name, version);
    }
}

static void test_as_empty(void **state)
{
    struct import i = {0};

    read_golden("v6", IMPORT_EMPTY, &i);
    assert_int_equal(i.n_datasets, 2);
    assert_false(i.datasets[0]->born);
    assert_true(uuid_is_nil(&i.datasets[0]->owner) && !i.datasets[0]->n_holders &&
                !i.datasets[0]->epoch);
    /* A database must not start on an empty volume by itself. */
    assert_int_equal(i.n_containers, 0);
    assert_noted(&i, "container shop-db was not taken: it would start on an empty volume");
    assert_noted(&i, "{\"node_uuid\":\"" A "\",\"name\":\"shop-db\"");
    import_done(&i);
}

/* What is odd is named, and the rest is taken. */
static void test_odd(void **state)
{
    struct import i = {0};

    read_golden("odd", 0, &i);
    assert_noted(&i, "the deployment: the unknown key \"future\" was not taken");
    assert_noted(&i, "dataset " D1 ": the unknown key \"colour\" was not taken");
    assert_noted(&i, "dataset " D1 ": its maximum_size was raised from 1000 to 67108864 bytes");
    assert_noted(&i, "dataset " D2 ": its replica on node " A " was not taken");
    assert_noted(&i, "dataset " D1 ": it stands there twice");
    assert_noted(&i, "dataset not-a-uuid was not taken:");
    assert_noted(&i, "container x was not taken:"); /* one letter is too short a name */
    assert_noted(&i, "container homeless was not taken: its dataset " D2);
    assert_noted(&i, "container off was not taken: it was configured not to run");
    assert_noted(&i, "container twin was not taken: another one has the same name");
    assert_noted(&i, "container port was not taken: another one has the external port 80");
    assert_int_equal(i.n_datasets, 1);
    assert_int_equal(i.n_containers, 1);
    assert_string_equal(i.containers[0]->name, "twin");
    assert_int_equal(i.n_notes, 11);
    import_done(&i);
}

static void refused(const char *text, size_t n, enum err_code code, const char *says)
{
    struct import i = {0};
    CLEANUP_ERR struct err *e = import_parse(text, n, 0, &i);

    if (!e)
        fail_msg("%.60s: taken", text);
    if (e->code != code || !strstr(e->text, says))
        fail_msg("%s: %s", err_code_name(e->code), e->text);
    assert_null(i.datasets);
}

static void test_damaged(void **state)
{
    CLEANUP_FREE char *text = golden("v6");
    size_t n = strlen(text);

    for (size_t cut = 0; cut < n; cut += 7)
        refused(text, cut < n - 2 ? cut : n - 3, ERR_CORRUPT, "");
    refused("{}", 2, ERR_CORRUPT, "there must be a Configuration");
    static const struct {
        const char *text, *says;
        enum err_code code;
    } cases[] = {
        {"{\"$__class__$\":\"Configuration\"}", "names no version", ERR_CORRUPT},
        {"{\"$__class__$\":\"Configuration\",\"version\":7}",
         "version 7; the newest that is known is 6", ERR_UNSUPPORTED},
        {"{\"$__class__$\":\"Configuration\",\"version\":3}", "there must be a Deployment",
         ERR_CORRUPT},
        {"{\"$__class__$\":\"Deployment\"}", "no \"nodes\"", ERR_CORRUPT},
        {"{\"$__class__$\":\"Deployment\",\"nodes\":3}", "\"nodes\" must be a list", ERR_CORRUPT},
        {"{\"$__class__$\":\"Deployment\",\"nodes\":[{}]}", "node 1: there must be a Node",
         ERR_CORRUPT},
        {"{\"$__class__$\":\"Deployment\",\"nodes\":[{\"$__class__$\":\"Node\"}]}",
         "\"uuid\" must be a UUID", ERR_CORRUPT},
        {"{\"$__class__$\":\"Deployment\",\"nodes\":[{\"$__class__$\":\"Node\",\"uuid\":\"" A
         "\",\"manifestations\":{\"$__class__$\":\"PMap\",\"values\":[1]}}]}",
         "node " A ": \"manifestations\" must have pairs", ERR_CORRUPT},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        refused(cases[i].text, strlen(cases[i].text), cases[i].code, cases[i].says);
}

/* Every value of a good file replaced by something else: it is refused, or what is taken can be stored. */
static void replace_all(json_t *root, json_t *at)
{
    static const char *const others[] = {"null",  "true", "-1", "1.5e300", "\"\"",
                                         "\"x\"", "[]",   "{}", "[[1,2]]"};
    const char *key;
    json_t *value;
    void *next;
    size_t i;

    json_object_foreach_safe(at, next, key, value)
    {
        json_t *kept = json_incref(value);
        for (i = 0; i < ARRAY_SIZE(others); i++) {
            struct import read = {0};
            (void)json_object_set_new(at, key, json_loads(others[i], JSON_DECODE_ANY, NULL));
            CLEANUP_FREE char *text = json_dumps(root, 0);
            CLEANUP_ERR struct err *e = import_parse(text, strlen(text), 0, &read);
            for (size_t k = 0; !e && k < read.n_datasets; k++) {
                CLEANUP_FREE char *record = record_dataset_encode(read.datasets[k]);
                assert_non_null(record);
            }
            for (size_t k = 0; !e && k < read.n_containers; k++) {
                CLEANUP_FREE char *record = record_container_encode(read.containers[k]);
                assert_non_null(record);
            }
            import_done(&read);
        }
        (void)json_object_set(at, key, kept);
        replace_all(root, kept);
        json_decref(kept);
    }
    json_array_foreach (at, i, value)
        replace_all(root, value);
}

static void test_every_value_replaced(void **state)
{
    CLEANUP_FREE char *text = golden("v6");
    json_t *root = json_loads(text, 0, NULL);

    assert_non_null(root);
    replace_all(root, root);
    json_decref(root);
}

/* The records are made in one pass: twice as many take twice as long, and ten thousand no time. */
static void test_many(void **state)
{
    struct str s = {0};
    struct import i = {0};

    str_append(&s,
               "{\"$__class__$\":\"Deployment\",\"nodes\":[{\"$__class__$\":\"Node\",\"uuid\":\"" A
               "\",\"applications\":[],\"manifestations\":{\"$__class__$\":\"PMap\",\"values\":[");
    for (unsigned n = 0; n < 50000; n++)
        str_appendf(&s,
                    "%s[\"%08x-0000-4000-8000-000000000000\",{\"$__class__$\":\"Manifestation\","
                    "\"primary\":true,"
                    "\"dataset\":{\"$__class__$\":\"Dataset\",\"dataset_id\":\"%08x-0000-4000-8000-"
                    "000000000000\","
                    "\"deleted\":false,\"maximum_size\":null,\"metadata\":{\"$__class__$\":"
                    "\"PMap\",\"values\":[]}}}]",
                    n ? "," : "", n, n);
    str_append(&s, "]}}]}");
    struct err *e = import_parse(s.data, s.len, 0, &i);
    if (e)
        fail_msg("%s", e->text);
    assert_int_equal(i.n_datasets, 50000);
    assert_int_equal(i.n_notes, 0);
    import_done(&i);
    str_done(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_versions),
        cmocka_unit_test(test_as_empty),
        cmocka_unit_test(test_odd),
        cmocka_unit_test(test_damaged),
        cmocka_unit_test(test_every_value_replaced),
        cmocka_unit_test(test_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
