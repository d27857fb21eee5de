#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/json.h"
#include "model/validate.h"

#define A "3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f"
#define B "8d2f6a70-1c54-4e0b-8a3d-6b7c8d9e0f11"
#define D2 "71a0f3c2-9e4d-4b26-8f15-2468ace13579"
#define D1 "c2b7e0d4-5a61-4f3b-9c88-13579bdf2468"

static json_t *parse(const char *text)
{
    json_t *v = NULL;
    struct err *e = json_parse(text, strlen(text), &v);

    if (e)
        fail_msg("%s: %s", text, e->text);
    return v;
}

/* Compares the text, so that the order of keys counts too; frees `v`. */
static void assert_json(json_t *v, const char *expected)
{
    struct str s = {0};

    json_append(&s, v);
    assert_string_equal(s.data, expected);
    str_done(&s);
    json_decref(v);
}

static void test_parse(void **state)
{
    static const char *const bad[] = {
        "",
        " ",
        "{",
        "nul",
        "{\"a\":1,}",
        "{'a':1}",
        "{\"a\":1}x",
        "{\"a\":1,\"a\":2}",
        "[\"\xff\"]",
        "[\"\xed\xa0\x80\"]",
        "[\"\\ud800\"]",
        "[\"\\u0000\"]",
        "[9223372036854775808]",
        "[-9223372036854775809]",
        "[1e999]",
        "[NaN]",
        "[Infinity]",
        "[01]",
        "{\"a\\u0000b\":1}",
    };
    static const char *const good[] = {
        "null", "5", "\"x\"", " [ ] ", "[\"[[{{\\\"[\"]", "{\"a\":{\"a\":9223372036854775807}}"};
    char deep[2 * 2100 + 1];

    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        json_t *v = NULL;
        struct err *e = json_parse(bad[i], strlen(bad[i]), &v);
        if (!err_is(e, ERR_INVALID))
            fail_msg("accepted: %s", bad[i]);
        assert_null(v);
        err_free(e);
    }
    for (size_t i = 0; i < ARRAY_SIZE(good); i++)
        json_decref(parse(good[i]));
    for (size_t depth = JSON_MAX_DEPTH; depth <= JSON_MAX_DEPTH + 1; depth++) {
        json_t *v = NULL;
        memset(deep, '[', depth);
        memset(deep + depth, ']', depth);
        struct err *e = json_parse(deep, 2 * depth, &v);
        assert_int_equal(e == NULL, depth == JSON_MAX_DEPTH);
        json_decref(v);
        err_free(e);
    }
    memset(deep, '[', sizeof(deep));
    json_t *v = NULL;
    struct err *e = json_parse(deep, sizeof(deep), &v);
    assert_non_null(strstr(e->text, "deeper"));
    err_free(e);
    assert_non_null(e = json_parse("1\0", 2, &v)); /* a NUL is no white space */
    err_free(e);
}

static void test_image(void **state)
{
    static const char *const images[][2] = {
        {"nginx", "nginx:latest"},
        {"nginx:1.9", "nginx:1.9"},
        {"library/nginx", "library/nginx:latest"},
        {"registry:5000/img", "registry:5000/img:latest"},
        {"registry:5000/a/img:v1", "registry:5000/a/img:v1"},
        {"[::1]:5000/img", "[::1]:5000/img:latest"},
        {"img@sha256:0123abcd", "img@sha256:0123abcd"},
        {"registry:5000/img:v1@sha256:0123abcd", "registry:5000/img:v1@sha256:0123abcd"},
        {"", NULL},
        {":tag", NULL},
        {"nginx:", NULL},
        {"registry:5000/", NULL},
        {"registry:5000/:tag", NULL},
        {"@sha256:00", NULL},
        {"img@", NULL},
    };

    for (size_t i = 0; i < ARRAY_SIZE(images); i++) {
        CLEANUP_FREE char *got = image_canonical(images[i][0]);
        if (!str_equal_null(got, images[i][1]))
            fail_msg("%s -> %s, not %s", images[i][0], got, images[i][1]);
    }
}

/* The object as read back from its text. */
static json_t *dataset_object(const struct dataset *d)
{
    CLEANUP_STR struct str s = {0};

    json_append_dataset(&s, d);
    return parse(s.data);
}

/* Our writer writes what jansson's would. */
static void test_append(void **state)
{
    static const char *const texts[] = {
        "null", "true", "false", "0", "-1", "9223372036854775807", "-9223372036854775808", "1.5", "-1e-7", "[]", "{}",
        "[[],{},[1,[2,3]],{\"a\":[]}]", "{\"z\":1,\"a\":{\"b\":null},\"\":\"\"}",
        "\"\\b\\n\\f\\r\\t\\u0001\\\"\\\\/\\u00e9\\ud83d\\ude00\\u007f\""};

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        json_t *v = parse(texts[i]);
        char *expected = json_dumps(v, JSON_COMPACT | JSON_ENCODE_ANY | JSON_REAL_PRECISION(15));
        assert_json(v, expected);
        free(expected);
    }
}

static void test_string(void **state)
{
    static const char *const texts[] = {"",
                                        "plain",
                                        "\"",
                                        "\\\\",
                                        "a\"b\\c/d",
                                        "\x01\x1f\x7f\n\t",
                                        "\xc3\xa9\xe2\x82\xac\xf0\x9f\x90\xb3",
                                        "end\\",
                                        "\"start"};

    for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
        struct str s = {0};
        json_append_string(&s, texts[i]);
        json_t *v = parse(s.data);
        assert_string_equal(json_string_value(v), texts[i]);
        json_decref(v);
        str_done(&s);
    }
}

enum schema { DATASET, DATASET_UPDATE, CONTAINER, CONTAINER_UPDATE, LEASE };

/* Validates; on success *ret_object is the object as the API shows it. Returns the list of errors
 * or NULL. */
static json_t *validate(enum schema schema, const char *body, json_t **ret_object)
{
    CLEANUP(json_decrefp) json_t *v = parse(body);
    struct container *c = NULL;
    struct dataset *d = NULL, *update = NULL;
    struct lease_request l = {0};
    struct uuid u = UUID_NIL;
    bool has_metadata;
    json_t *errors = NULL;

    *ret_object = NULL;
    switch (schema) {
    case DATASET:
        errors = validate_dataset_create(v, &d);
        break;
    case DATASET_UPDATE:
        errors = validate_dataset_update(v, &update, &has_metadata);
        u = update ? update->primary : u;
        dataset_free(update);
        break;
    case CONTAINER:
        errors = validate_container_create(v, &c);
        break;
    case CONTAINER_UPDATE:
        errors = validate_container_update(v, &u);
        break;
    case LEASE:
        errors = validate_lease(v, &l);
        break;
    }
    if (errors)
        return errors;
    if (schema == DATASET)
        *ret_object = dataset_object(d);
    else if (schema == CONTAINER)
        *ret_object = json_container_configuration(c);
    else if (schema == LEASE)
        *ret_object = json_pack("[s, s, o, I]", UUID_STR(&l.dataset), UUID_STR(&l.node),
                                json_boolean(l.expires), (json_int_t)l.expires_in_us);
    else
        *ret_object = json_uuid_or_null(&u);
    dataset_free(d);
    container_free(c);
    return NULL;
}

#define C "\"node_uuid\":\"" A "\",\"name\":\"shop-web\",\"image\":\"nginx\""
#define CC "\"node_uuid\":\"" A "\",\"name\":\"shop-web\",\"image\":\"nginx:latest\""
#define NEVER "\"restart_policy\":{\"name\":\"never\"}"

static void test_accepted(void **state)
{
    static const struct {
        enum schema schema;
        const char *body, *object;
    } cases[] = {
        {DATASET,
         "{\"primary\":\"" A "\",\"dataset_id\":\"" D1 "\",\"maximum_size\":21474836480,"
         "\"metadata\":{\"name\":\"orders\",\"team\":\"shop\"}}",
         "{\"dataset_id\":\"" D1 "\",\"primary\":\"" A "\",\"deleted\":false,"
         "\"metadata\":{\"name\":\"orders\",\"team\":\"shop\"},\"maximum_size\":21474836480}"},
        {DATASET,
         "{\"primary\":\"3F0C9C1E-7B1D-4C7A-9D0E-0A1B2C3D4E5F\",\"maximum_size\":null,"
         "\"dataset_id\":\"C2B7E0D4-5A61-4F3B-9C88-13579BDF2468\"}",
         "{\"dataset_id\":\"" D1 "\",\"primary\":\"" A "\",\"deleted\":false,\"metadata\":{}}"},
        {DATASET, "{\"primary\":\"" A "\",\"maximum_size\":67108864}",
         "{\"dataset_id\":\"00000000-0000-0000-0000-000000000000\",\"primary\":\"" A
         "\",\"deleted\":false,\"metadata\":{},\"maximum_size\":67108864}"},
        {DATASET_UPDATE, "{}", "null"},
        {DATASET_UPDATE, "{\"primary\":\"" B "\"}", "\"" B "\""},
        {CONTAINER_UPDATE, "{\"node_uuid\":\"" B "\"}", "\"" B "\""},
        {CONTAINER,
         "{" C ",\"ports\":[{\"internal\":80,\"external\":8080}],\"memory_limit\":268435456}",
         "{" CC ",\"ports\":[{\"internal\":80,\"external\":8080}],\"memory_limit\":268435456," NEVER
         "}"},
        {CONTAINER, "{" C ",\"volumes\":[],\"swappiness\":0,\"environment\":{}}",
         "{" CC "," NEVER "}"},
        {CONTAINER,
         "{" C ",\"ports\":[{\"internal\":443,\"external\":0},{\"internal\":80,\"external\":81},"
         "{\"external\":80,\"internal\":80}],"
         "\"links\":[{\"alias\":\"Web\",\"local_port\":80,\"remote_port\":65535},"
         "{\"alias\":\"CACHE\",\"local_port\":6379,\"remote_port\":16379}],"
         "\"environment\":{\"Z\":\"1\",\"A\":\"\"},\"command_line\":[\"sh\",\"-c\",\"\"],"
         "\"volumes\":[{\"dataset_id\":\"" D1 "\",\"mountpoint\":\"/data\"}],\"cpu_shares\":1024,"
         "\"memory_limit\":1048576,\"swappiness\":100,"
         "\"restart_policy\":{\"name\":\"on-failure\",\"maximum_retry_count\":1}}",
         "{" CC ",\"ports\":[{\"internal\":80,\"external\":80},{\"internal\":80,\"external\":81},"
         "{\"internal\":443,\"external\":0}],\"volumes\":[{\"dataset_id\":\"" D1
         "\",\"mountpoint\":\"/data\"}],\"environment\":{\"Z\":\"1\",\"A\":\"\"},"
         "\"links\":[{\"alias\":\"Web\",\"local_port\":80,\"remote_port\":65535},"
         "{\"alias\":\"CACHE\",\"local_port\":6379,\"remote_port\":16379}],\"cpu_shares\":1024,"
         "\"memory_limit\":1048576,\"command_line\":[\"sh\",\"-c\",\"\"],"
         "\"restart_policy\":{\"name\":\"on-failure\",\"maximum_retry_count\":1}}"},
        {CONTAINER,
         "{\"node_uuid\":\"" A "\",\"name\":\"/a_\",\"image\":\"r:5/i\",\"command_line\":[],"
         "\"restart_policy\":{\"name\":\"on-failure\"}}",
         "{\"node_uuid\":\"" A "\",\"name\":\"a_\",\"image\":\"r:5/i:latest\",\"command_line\":[],"
         "\"restart_policy\":{\"name\":\"on-failure\"}}"},
        {CONTAINER,
         "{" C ",\"entrypoint\":[],\"user\":\"70:70\",\"working_dir\":\"/srv\",\"stop_signal\":\"SIGRTMIN+3\","
         "\"stop_grace_period\":90,\"labels\":{\"tier\":\"db\",\"e\":\"\"},\"cpus\":1.5,"
         "\"healthcheck\":{\"test\":[\"CMD-SHELL\",\"true\"],\"interval\":0.25,\"timeout\":1.5,\"start_period\":60,"
         "\"retries\":3},\"depends_on\":[{\"name\":\"/db\"},{\"name\":\"init\",\"condition\":\"completed\"}]}",
         "{" CC "," NEVER
         ",\"entrypoint\":[],\"user\":\"70:70\",\"working_dir\":\"/srv\",\"stop_signal\":\"SIGRTMIN+3\","
         "\"stop_grace_period\":90,\"labels\":{\"tier\":\"db\",\"e\":\"\"},"
         "\"healthcheck\":{\"test\":[\"CMD-SHELL\",\"true\"],\"interval\":0.25,\"timeout\":1.5,\"start_period\":60,"
         "\"retries\":3},\"cpus\":1.5,\"depends_on\":[{\"name\":\"db\",\"condition\":\"started\"},"
         "{\"name\":\"init\",\"condition\":\"completed\"}]}"},
        {CONTAINER,
         "{" C ",\"volumes\":[{\"dataset_id\":\"" D1
         "\",\"mountpoint\":\"/a/b\"},{\"dataset_id\":\"" D2
         "\",\"mountpoint\":\"/a\",\"read_only\":true}]}",
         "{" CC ",\"volumes\":[{\"dataset_id\":\"" D2
         "\",\"mountpoint\":\"/a\",\"read_only\":true},{\"dataset_id\":\"" D1
         "\",\"mountpoint\":\"/a/b\"}]," NEVER "}"},
        {CONTAINER,
         "{" C ",\"volumes\":[{\"dataset_id\":\"" D1
         "\",\"mountpoint\":\"/a/../b\",\"read_only\":false}]}",
         "{" CC ",\"volumes\":[{\"dataset_id\":\"" D1 "\",\"mountpoint\":\"/a/../b\"}]," NEVER "}"},
        {CONTAINER,
         "{" C ",\"entrypoint\":[\"/"
               "x\"],\"healthcheck\":{\"disable\":true},\"cpus\":2,\"stop_signal\":\"9\"}",
         "{" CC "," NEVER
         ",\"entrypoint\":[\"/"
         "x\"],\"stop_signal\":\"9\",\"healthcheck\":{\"disable\":true},\"cpus\":2}"},
        {CONTAINER,
         "{" C ",\"healthcheck\":{\"interval\":1},\"stop_grace_period\":0.001,\"labels\":{}}",
         "{" CC "," NEVER ",\"stop_grace_period\":0.001,\"healthcheck\":{\"interval\":1}}"},
        {LEASE, "{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" A "\",\"expires\":60}",
         "[\"" D1 "\",\"" A "\",true,60000000]"},
        {LEASE, "{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" A "\",\"expires\":0.25}",
         "[\"" D1 "\",\"" A "\",true,250000]"},
        {LEASE, "{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" A "\",\"expires\":-1e300}",
         "[\"" D1 "\",\"" A "\",true,-4000000000000000000]"},
        {LEASE,
         "{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" A "\",\"expires\":9223372036854775807}",
         "[\"" D1 "\",\"" A "\",true,4000000000000000000]"},
        {LEASE, "{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" A "\",\"expires\":null}",
         "[\"" D1 "\",\"" A "\",false,0]"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        json_t *object;
        json_t *errors = validate(cases[i].schema, cases[i].body, &object);
        if (errors)
            fail_msg("%s: %s", cases[i].body, json_string_value(json_array_get(errors, 0)));
        assert_json(object, cases[i].object);
    }
}

static void test_refused(void **state)
{
    static const struct {
        enum schema schema;
        const char *body, *says;
        size_t n; /* errors */
    } cases[] = {
        {DATASET, "[]", "body must be a JSON object", 1},
        {DATASET, "null", "body must be a JSON object", 1},
        {DATASET, "{\"maximum_size\":1000}", "\"primary\" is required", 2},
        {DATASET, "{\"primary\":7}", "\"primary\" must be a version 4 UUID", 1},
        {DATASET, "{\"primary\":\"3f0c9c1e-7b1d-1c7a-9d0e-0a1b2c3d4e5f\"}", "\"primary\" must be",
         1},
        {DATASET, "{\"primary\":\"" A "\",\"dataset_id\":\"x\"}", "\"dataset_id\" must be", 1},
        {DATASET, "{\"primary\":\"" A "\",\"dataset_id\":null}", "\"dataset_id\" must be", 1},
        {DATASET, "{\"primary\":\"" A "\",\"deleted\":false}", "\"deleted\" cannot be given", 1},
        {DATASET, "{\"primary\":\"" A "\",\"color\":1}", "\"color\" is not a known key", 1},
        {DATASET, "{\"primary\":\"" A "\",\"maximum_size\":67108863}", "at least 67108864", 1},
        {DATASET, "{\"primary\":\"" A "\",\"maximum_size\":67108865}", "multiple of 1024", 1},
        {DATASET, "{\"primary\":\"" A "\",\"maximum_size\":67108864.0}", "whole number", 1},
        {DATASET, "{\"primary\":\"" A "\",\"maximum_size\":1e9}", "whole number", 1},
        {DATASET, "{\"primary\":\"" A "\",\"maximum_size\":\"67108864\"}", "whole number", 1},
        {DATASET, "{\"primary\":\"" A "\",\"metadata\":[]}", "object of texts", 1},
        {DATASET, "{\"primary\":\"" A "\",\"metadata\":{\"\":\"\"}}", "1 to 256 characters", 1},
        {DATASET, "{\"primary\":\"" A "\",\"metadata\":{\"a\\nb\":\"\"}}", "one line", 1},
        {DATASET, "{\"primary\":\"" A "\",\"metadata\":{\"k\":1}}", "\"metadata.k\" must be a text",
         1},
        {DATASET_UPDATE, "{\"primary\":null}", "\"primary\" must be", 1},
        {DATASET_UPDATE, "{\"primary\":\"" A "\",\"dataset_id\":\"" D1 "\"}", "not a known key", 1},
        {DATASET_UPDATE, "{\"deleted\":false,\"maximum_size\":67108865}", "", 2},
        {DATASET_UPDATE, "{\"metadata\":null}", "\"metadata\" must be", 1},
        {CONTAINER_UPDATE, "{}", "\"node_uuid\" is required", 1},
        {CONTAINER, "{}", "\"node_uuid\" is required", 3},
        {CONTAINER, "{" C ",\"running\":true}", "\"running\" is not a known", 1},
        {CONTAINER, "{\"node_uuid\":\"" A "\",\"name\":\"a\",\"image\":\"i\"}",
         "\"name\" must be 2", 1},
        {CONTAINER, "{\"node_uuid\":\"" A "\",\"name\":\"//ab\",\"image\":\"i\"}", "\"name\"", 1},
        {CONTAINER, "{\"node_uuid\":\"" A "\",\"name\":\"-ab\",\"image\":\"i\"}", "\"name\"", 1},
        {CONTAINER, "{\"node_uuid\":\"" A "\",\"name\":\"ab\\n\",\"image\":\"i\"}", "\"name\"", 1},
        {CONTAINER, "{\"node_uuid\":\"" A "\",\"name\":\"\xc3\xa9t\xc3\xa9\",\"image\":\"i\"}",
         "\"name\"", 1},
        {CONTAINER, "{\"node_uuid\":\"" A "\",\"name\":\"ab\",\"image\":\":x\"}",
         "\"image\" must be", 1},
        {CONTAINER, "{\"node_uuid\":\"" A "\",\"name\":\"ab\",\"image\":5}",
         "\"image\" must be a text", 1},
        {CONTAINER, "{\"node_uuid\":\"" A "\",\"name\":\"ab\",\"image\":\"i\\tj\"}",
         "\"image\" must not have control characters", 1},
        {CONTAINER, "{" C ",\"volumes\":[{\"dataset_id\":\"" D1 "\",\"mountpoint\":\"/a\\u007f\"}]}",
         "\"volumes[0].mountpoint\" must not have control characters", 1},
        {CONTAINER, "{" C ",\"ports\":[]}", "\"ports\" must have at least 1", 1},
        {CONTAINER, "{" C ",\"ports\":[7]}", "\"ports[0]\" must be an object", 1},
        {CONTAINER, "{" C ",\"ports\":[{\"internal\":80}]}", "\"ports[0].external\" is required",
         1},
        {CONTAINER, "{" C ",\"ports\":[{\"internal\":0,\"external\":0}]}",
         "\"ports[0].internal\" must", 1},
        {CONTAINER, "{" C ",\"ports\":[{\"internal\":1,\"external\":65536}]}", "from 0 to 65535",
         1},
        {CONTAINER, "{" C ",\"ports\":[{\"internal\":1,\"external\":-1}]}", "from 0 to 65535", 1},
        {CONTAINER,
         "{" C ",\"ports\":[{\"internal\":80,\"external\":1},{\"external\":1,\"internal\":80}]}",
         "\"ports\" must not have the same item twice", 1},
        {CONTAINER, "{" C ",\"ports\":[{\"internal\":80,\"external\":1,\"x\":1}]}",
         "\"ports[0].x\"", 1},
        {CONTAINER, "{" C ",\"links\":[]}", "\"links\" must have at least 1", 1},
        {CONTAINER, "{" C ",\"links\":[{\"alias\":\"a-b\",\"local_port\":1,\"remote_port\":1}]}",
         "\"links[0].alias\" must be", 1},
        {CONTAINER, "{" C ",\"links\":[{\"alias\":\"\",\"local_port\":0,\"remote_port\":\"1\"}]}",
         "\"links[0].alias\" must be", 3},
        {CONTAINER,
         "{" C ",\"links\":[{\"alias\":\"a\",\"local_port\":1,\"remote_port\":1},"
         "{\"alias\":\"a\",\"local_port\":1,\"remote_port\":1}]}",
         "\"links\" must not have the same item twice", 1},
        {CONTAINER, "{" C ",\"environment\":{\"\":\"x\"}}", "must not be empty", 1},
        {CONTAINER, "{" C ",\"environment\":{\"A\":1}}", "\"environment.A\" must be a text", 1},
        {CONTAINER, "{" C ",\"environment\":null}", "\"environment\" must be an object", 1},
        {CONTAINER, "{" C ",\"command_line\":\"sh\"}", "\"command_line\" must be a list", 1},
        {CONTAINER, "{" C ",\"command_line\":[1]}", "\"command_line[0]\" must be a text", 1},
        {CONTAINER, "{" C ",\"cpu_shares\":0}", "\"cpu_shares\" must be from 1 to 1024", 1},
        {CONTAINER, "{" C ",\"cpu_shares\":1025}", "\"cpu_shares\"", 1},
        {CONTAINER, "{" C ",\"memory_limit\":1048575}", "\"memory_limit\" must be at least", 1},
        {CONTAINER, "{" C ",\"swappiness\":101}", "\"swappiness\" must be from 0 to 100", 1},
        {CONTAINER, "{" C ",\"restart_policy\":\"always\"}", "\"restart_policy\" must be an object",
         1},
        {CONTAINER, "{" C ",\"restart_policy\":{}}", "\"restart_policy.name\" is required", 1},
        {CONTAINER, "{" C ",\"restart_policy\":{\"name\":\"often\"}}",
         "\"restart_policy.name\" must", 1},
        {CONTAINER, "{" C ",\"restart_policy\":{\"name\":\"always\",\"maximum_retry_count\":3}}",
         "\"restart_policy.maximum_retry_count\" goes with", 1},
        {CONTAINER,
         "{" C ",\"restart_policy\":{\"name\":\"on-failure\",\"maximum_retry_count\":0}}",
         "\"restart_policy.maximum_retry_count\" must", 1},
        {CONTAINER, "{" C ",\"volumes\":[{},{}]}", "\"volumes[0].dataset_id\" is", 4},
        {CONTAINER,
         "{" C ",\"volumes\":[{\"dataset_id\":\"" D1
         "\",\"mountpoint\":\"/a\"},{\"dataset_id\":\"" D1 "\",\"mountpoint\":\"/a/b\"}]}",
         "\"volumes\" must not have the same dataset twice: " D1, 1},
        {CONTAINER,
         "{" C ",\"volumes\":[{\"dataset_id\":\"" D1
         "\",\"mountpoint\":\"/a/b\"},{\"dataset_id\":\"" D2 "\",\"mountpoint\":\"/a//b/\"}]}",
         "\"volumes\" must not have the same mountpoint twice: /a//b/", 1},
        {CONTAINER,
         "{" C ",\"volumes\":[{\"dataset_id\":\"" D1
         "\",\"mountpoint\":\"/a\"},{\"dataset_id\":\"" D2 "\",\"mountpoint\":\"/b/../c\"}]}",
         "\"volumes[1].mountpoint\" must not have \"..\" beside", 1},
        {CONTAINER,
         "{" C ",\"volumes\":[{\"dataset_id\":\"" D1
         "\",\"mountpoint\":\"/a\",\"read_only\":\"yes\"}]}",
         "\"volumes[0].read_only\" must be true or false", 1},
        {CONTAINER, "{" C ",\"volumes\":[{\"dataset_id\":\"" D1 "\"}]}",
         "\"volumes[0].mountpoint\" is", 1},
        {CONTAINER, "{" C ",\"volumes\":[{\"dataset_id\":\"" D1 "\",\"mountpoint\":\"data\"}]}",
         "\"volumes[0].mountpoint\" must be an absolute path", 1},
        {CONTAINER, "{" C ",\"entrypoint\":\"sh\"}", "\"entrypoint\" must be a list", 1},
        {CONTAINER, "{" C ",\"entrypoint\":[null]}", "\"entrypoint[0]\" must be a text", 1},
        {CONTAINER, "{" C ",\"user\":\"\"}", "\"user\" must be a user's name", 1},
        {CONTAINER, "{" C ",\"user\":\"a\\nb\"}", "\"user\" must not have control", 1},
        {CONTAINER, "{" C ",\"working_dir\":\"srv\"}", "\"working_dir\" must be an absolute path", 1},
        {CONTAINER, "{" C ",\"stop_signal\":\"SIG QUIT\"}", "\"stop_signal\" must be a signal's", 1},
        {CONTAINER, "{" C ",\"stop_signal\":\"-9\"}", "\"stop_signal\" must be a signal's", 1},
        {CONTAINER, "{" C ",\"stop_signal\":9}", "\"stop_signal\" must be a signal's", 1},
        {CONTAINER, "{" C ",\"stop_grace_period\":\"10s\"}", "\"stop_grace_period\" must be a number", 1},
        {CONTAINER, "{" C ",\"stop_grace_period\":0}", "\"stop_grace_period\" must be from 0.001 to 86400", 1},
        {CONTAINER, "{" C ",\"stop_grace_period\":1e300}", "\"stop_grace_period\" must be from", 1},
        {CONTAINER, "{" C ",\"labels\":[]}", "\"labels\" must be an object of texts", 1},
        {CONTAINER, "{" C ",\"labels\":{\"a\":1}}", "\"labels.a\" must be a text", 1},
        {CONTAINER, "{" C ",\"labels\":{\"io.flocker.spec\":\"x\"}}", "Flocker's own", 1},
        {CONTAINER, "{" C ",\"labels\":{\"\":\"x\"}}", "must not be empty", 1},
        {CONTAINER, "{" C ",\"cpus\":0}", "\"cpus\" must be from 0.01 to 65536", 1},
        {CONTAINER, "{" C ",\"cpus\":true}", "\"cpus\" must be a number", 1},
        {CONTAINER, "{" C ",\"healthcheck\":[]}", "\"healthcheck\" must be an object", 1},
        {CONTAINER, "{" C ",\"healthcheck\":{}}", "\"healthcheck\" says nothing", 1},
        {CONTAINER, "{" C ",\"healthcheck\":{\"test\":[]}}", "\"healthcheck.test\" must be", 1},
        {CONTAINER, "{" C ",\"healthcheck\":{\"test\":[\"CMD\"]}}", "\"healthcheck.test\" must be", 1},
        {CONTAINER, "{" C ",\"healthcheck\":{\"test\":[\"NONE\"]}}", "\"disable\": true", 1},
        {CONTAINER, "{" C ",\"healthcheck\":{\"test\":[\"CMD-SHELL\",\"a\",\"b\"]}}", "one command", 1},
        {CONTAINER, "{" C ",\"healthcheck\":{\"disable\":true,\"retries\":1}}", "goes with no other key", 1},
        {CONTAINER, "{" C ",\"healthcheck\":{\"disable\":1}}", "\"healthcheck.disable\" must be true, or", 1},
        {CONTAINER, "{" C ",\"healthcheck\":{\"interval\":-1}}", "\"healthcheck.interval\" must be from", 1},
        {CONTAINER, "{" C ",\"healthcheck\":{\"retries\":0}}", "\"healthcheck.retries\" must be from", 1},
        {CONTAINER, "{" C ",\"depends_on\":[]}", "\"depends_on\" must have at least 1", 1},
        {CONTAINER, "{" C ",\"depends_on\":{\"db\":{}}}", "\"depends_on\" must be a list", 1},
        {CONTAINER, "{" C ",\"depends_on\":[{}]}", "\"depends_on[0].name\" is required", 1},
        {CONTAINER, "{" C ",\"depends_on\":[{\"name\":\"a b\"}]}", "\"depends_on[0].name\" must be the name", 1},
        {CONTAINER, "{" C ",\"depends_on\":[{\"name\":\"db\",\"condition\":\"up\"}]}",
         "\"depends_on[0].condition\" must be \"started\"", 1},
        {CONTAINER, "{" C ",\"depends_on\":[{\"name\":\"db\"},{\"name\":\"/db\",\"condition\":\"healthy\"}]}",
         "the same name twice: \"db\"", 1},
        {LEASE, "{}", "\"dataset_id\" is required", 3},
        {LEASE,
         "{\"dataset_id\":\"123456789012345678901234567890123456\",\"node_uuid\":\"" A
         "\",\"expires\":1}",
         "\"dataset_id\" must be a UUID", 1},
        {LEASE, "{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" A "\",\"expires\":\"60\"}",
         "\"expires\" must be a number of seconds or null", 1},
        {LEASE, "{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" A "\",\"expires\":true}",
         "\"expires\"", 1},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        json_t *object;
        json_t *errors = validate(cases[i].schema, cases[i].body, &object);
        if (!errors)
            fail_msg("accepted: %s", cases[i].body);
        const char *first = json_string_value(json_array_get(errors, 0));
        if (!first || !strstr(first, cases[i].says))
            fail_msg("%s: \"%s\" does not say \"%s\"", cases[i].body, first, cases[i].says);
        assert_int_equal(json_array_size(errors), cases[i].n);
        json_decref(errors);
    }
}

static json_t *dataset_with_metadata(size_t entries, size_t key, size_t value, json_t **ret_object)
{
    struct str s = {0};

    str_append(&s, "{\"primary\":\"" A "\",\"metadata\":{");
    for (size_t i = 0; i < entries; i++) {
        str_appendf(&s, "%s\"%02zu", i ? "," : "", i);
        for (size_t k = 2; k < key; k++)
            str_append(&s, "\xc3\xa9"); /* characters count, not bytes */
        str_append(&s, "\":\"");
        for (size_t k = 0; k < value; k++)
            str_append(&s, "\xf0\x9f\x90\xb3");
        str_append(&s, "\"");
    }
    str_append(&s, "}}");
    json_t *errors = validate(DATASET, s.data, ret_object);
    str_done(&s);
    return errors;
}

static void test_limits(void **state)
{
    json_t *object, *errors;

    assert_null(dataset_with_metadata(16, 256, 256, &object));
    assert_int_equal(json_object_size(json_object_get(object, "metadata")), 16);
    json_decref(object);
    assert_non_null(errors = dataset_with_metadata(17, 5, 5, &object));
    json_decref(errors);
    assert_non_null(errors = dataset_with_metadata(1, 257, 5, &object));
    assert_non_null(json_string_value(json_array_get(errors, 0))); /* the cut key is still a text */
    json_decref(errors);
    assert_non_null(errors = dataset_with_metadata(1, 5, 257, &object));
    json_decref(errors);

    struct str s = {0};
    str_append(&s, "{" C ",\"command_line\":[\"");
    for (int i = 0; i < 4096; i++)
        str_append(&s, "\xc3\xa9");
    str_append(&s, "\"");
    for (int i = 1; i < 4096; i++)
        str_append(&s, ",\"\"");
    size_t good = s.len;
    str_append(&s, "]}");
    assert_null(validate(CONTAINER, s.data, &object));
    json_decref(object);
    s.len = good;
    str_append(&s, ",\"\"]}");
    assert_non_null(errors = validate(CONTAINER, s.data, &object));
    json_decref(errors);
    str_done(&s);
}

/* The rest is given as a format with one text of n letters in it. */
static bool container_fits(const char *fmt, size_t n)
{
    CLEANUP_FREE char *letters = xmalloc(n + 1);
    json_t *object = NULL, *errors;

    memset(letters, 'a', n);
    letters[n] = '\0';
    const char *gap = strchr(fmt, '#');
    CLEANUP_FREE char *body = xasprintf("{\"node_uuid\":\"" A "\",\"name\":\"ab\",%.*s%s%s}",
                                        (int)(gap - fmt), fmt, letters, gap + 1);
    errors = validate(CONTAINER, body, &object);
    json_decref(errors);
    if (!errors)
        json_decref(object);
    return !errors;
}

static void test_container_limits(void **state)
{
    static const struct {
        const char *fmt;
        size_t max;
    } cases[] = {
        {"\"image\":\"#\"", VALIDATE_MAX_IMAGE},
        {"\"image\":\"i\",\"links\":[{\"alias\":\"#\",\"local_port\":1,\"remote_port\":1}]",
         VALIDATE_MAX_NAME},
        {"\"image\":\"i\",\"volumes\":[{\"dataset_id\":\"" D1 "\",\"mountpoint\":\"/#\"}]",
         VALIDATE_MAX_PATH - 1},
        {"\"image\":\"i\",\"environment\":{\"A\":\"#\"}", VALIDATE_MAX_VARIABLE - 1},
        {"\"image\":\"i\",\"command_line\":[\"#\"]", VALIDATE_MAX_COMMAND_LINE},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_true(container_fits(cases[i].fmt, cases[i].max));
        assert_false(container_fits(cases[i].fmt, cases[i].max + 1));
    }
}

static void test_many_errors(void **state)
{
    struct str s = {0};
    json_t *object;

    str_append(&s, "{\"0\":0");
    for (int i = 1; i < 1000; i++)
        str_appendf(&s, ",\"%d\":0", i);
    str_append(&s, "}");
    json_t *errors = validate(DATASET, s.data, &object);
    assert_int_equal(json_array_size(errors), VALIDATE_MAX_ERRORS);
    json_decref(errors);
    str_done(&s);
}

static void test_lease_and_reason(void **state)
{
    struct lease l = {.expires = true};
    struct reason r = {0};

    assert_true(uuid_parse(D1, &l.dataset));
    assert_true(uuid_parse(A, &l.node));
    assert_json(json_lease(&l, 60000000),
                "{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" A "\",\"expires\":60.0}");
    assert_json(json_lease(&l, 991027), /* and not 0.99102699999999999 */
                "{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" A "\",\"expires\":0.991027}");
    l.expires = false;
    assert_json(json_lease(&l, 0),
                "{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" A "\",\"expires\":null}");
    assert_json(json_reason(&r), "null");
    reason_set(&r, REASON_LEASE_HELD, 1500000, 0, "held");
    json_t *o = json_reason(&r);
    assert_string_equal(json_string_value(json_object_get(o, "code")), "lease-held");
    assert_true(json_real_value(json_object_get(o, "since")) == 1.5);
    assert_true(json_is_null(json_object_get(o, "next_try")));
    assert_true(json_string_length(json_object_get(o, "advice")) > 0);
    json_decref(o);
    reason_done(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse),
        cmocka_unit_test(test_image),
        cmocka_unit_test(test_accepted),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_container_limits),
        cmocka_unit_test(test_many_errors),
        cmocka_unit_test(test_lease_and_reason),
        cmocka_unit_test(test_append),
        cmocka_unit_test(test_string),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
