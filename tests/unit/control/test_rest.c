/* Configuration over the REST API. The cases follow the contract's examples (section 1.4) and its
 * tables of errors. */
#define BENCH_CHANGE_US (300 * USEC_PER_MSEC)
#include "rest_bench.h"

static void test_datasets(void **state)
{
    static const struct exchange x[] = {
        {"GET", "/v1/version", "", 200, "{\"flocker\":\"" FLOCKER_VERSION "\"}"},
        {"GET", CD, "", 200, "[]"},
        {"POST", CD,
         "{\"primary\":\"" A "\",\"maximum_size\":21474836480,\"dataset_id\":\"" D1
         "\",\"metadata\":{\"name\":\"orders\",\"team\":\"shop\"}}",
         201, D1_AT(A, "false")},
        {"POST", CD,
         "{\"primary\":\"" B "\",\"dataset_id\":\"C2B7E0D4-5A61-4F3B-9C88-13579BDF2468\"}", 409,
         SAYS("The provided dataset_id is already in use.")},
        {"POST", CD, "{\"primary\":\"" A "\",\"dataset_id\":\"" D2 "\",\"maximum_size\":null}", 201,
         D2_AT(A)},
        {"GET", CD, "ignored {", 200, "[" D2_AT(A) "," D1_AT(A, "false") "]"},
        {"POST", CD "/" D1, "{\"primary\":\"" B "\"}", 200, D1_AT(B, "false")},
        {"POST", CD "/" D1, "{\"primary\":\"" B "\"}", 200, D1_AT(B, "false")},
        {"POST", CD "/" D1, "{}", 200, D1_AT(B, "false")},
        {"POST", CD "/" D9, "{\"primary\":\"" B "\"}", 404, SAYS("Dataset not found.")},
        {"POST", CD "/C2B7E0D4-5A61-4F3B-9C88-13579BDF2468", "{}", 404, SAYS("Dataset not found.")},
        {"POST", CD "/x", "{}", 404, SAYS("Dataset not found.")},
        {"DELETE", CD "/" D9, "", 404, SAYS("Dataset not found.")},
        {"DELETE", CD "/" D1, "no JSON", 200, D1_AT(B, "true")},
        {"DELETE", CD "/" D1, "", 200, D1_AT(B, "true")},
        {"POST", CD "/" D1, "{\"primary\":\"" A "\"}", 405, SAYS("The dataset has been deleted.")},
        {"POST", CD, "{\"primary\":\"" B "\",\"dataset_id\":\"" D1 "\"}", 409,
         SAYS("The provided dataset_id is already in use.")},
        {"GET", CD, "", 200, "[" D2_AT(A) "," D1_AT(B, "true") "]"},
        {"GET", SD, "", 200, "[]"},
    };
    struct client c;

    expect_all(*state, x, ARRAY_SIZE(x));
    client_request(&c, *state, "POST", CD, "", "{\"primary\":\"" A "\"}");
    client_wait(&c, NULL);
    assert_int_equal(status_of(&c), 201);
    json_t *v = json_loads(body_of(&c), 0, NULL);
    struct uuid made;
    assert_true(uuid_parse_v4(json_string_value(json_object_get(v, "dataset_id")), &made));
    json_decref(v);
    client_done(&c);
}

#define NOT_DECODED                                                                                \
    "{\"description\":\"The request body could not be decoded according to the value of "          \
    "the\\nContent-Type header.\",\"errors\":["
#define NO_MATCH                                                                                   \
    "{\"description\":\"The provided JSON doesn't match the required schema.\",\"errors\":["

static void expect_prefix(struct bench *b, const char *method, const char *path, const char *body,
                          unsigned status, const char *prefix)
{
    struct client c;

    client_request(&c, b, method, path, "", body);
    client_wait(&c, NULL);
    if (status_of(&c) != status || !str_has_prefix(body_of(&c), prefix))
        fail_msg("%s %s %s:\n%s\nexpected %u %s...", method, path, body, c.got.data, status,
                 prefix);
    client_done(&c);
}

/* The answer to a GET by HTTP/1.0: not in chunks. */
static void get_plain(struct client *c, struct bench *b, const char *path)
{
    CLEANUP_FREE char *text = xasprintf("GET %s HTTP/1.0\r\nHost: x\r\n\r\n", path);

    client_send(c, b, text, strlen(text));
    client_wait(c, NULL);
    assert_int_equal(status_of(c), 200);
}

/* A list of so many is sent piece by piece; a page of it follows an id that has been purged meanwhile. */
static void test_long_list(void **state)
{
    struct bench *b = *state;
    const size_t n = 9000;
    struct client c;

    for (size_t i = 0; i < n; i++) {
        struct dataset *d = dataset_new(UUID_NIL);
        d->id.b[0] = (unsigned char)(i >> 8);
        d->id.b[1] = (unsigned char)i;
        d->id.b[6] = 0x40;
        d->id.b[8] = 0x80;
        d->primary = id(A);
        engine_restore_dataset(b->engine, d);
    }
    engine_tick(b->engine, now_os());
    get_plain(&c, b, CD);
    json_t *list = json_loads(body_of(&c), 0, NULL);
    assert_int_equal(json_array_size(list), n);
    CLEANUP_FREE char *etag = header_of(&c, "ETag");
    json_decref(list);
    client_done(&c);
    CLEANUP_FREE char *condition = xasprintf("If-None-Match: %s\r\n", etag);
    expect(b, "GET", CD, condition, "", 304, "");
    get_plain(&c, b, SD); /* nobody reports any */
    assert_string_equal(body_of(&c), "[]");
    client_done(&c);

    /* Pages for which more must be looked at than fits into a turn of the loop. */
    get_plain(&c, b, CD "?limit=9000");
    list = json_loads(body_of(&c), 0, NULL);
    assert_int_equal(json_array_size(list), n);
    assert_null(header_of(&c, "Link"));
    json_decref(list);
    client_done(&c);
    get_plain(&c, b, CD "?limit=8999&node=" A);
    list = json_loads(body_of(&c), 0, NULL);
    assert_int_equal(json_array_size(list), n - 1);
    CLEANUP_FREE char *link = header_of(&c, "Link");
    assert_non_null(strstr(link, "limit=8999&node=" A "&after=23260000-0000-4000-8000-000000000000>"));
    json_decref(list);
    client_done(&c);
    expect(b, "GET", SD "?limit=1", "", "", 200, "[]");
    /* Who goes away in the middle leaves nothing behind. */
    client_request(&c, b, "GET", SD "?limit=2", "", "");
    client_done(&c);
    expect(b, "GET", SD "?limit=3", "", "", 200, "[]");

    struct uuid gone = UUID_NIL;
    gone.b[1] = 1;
    gone.b[6] = 0x40;
    gone.b[8] = 0x80;
    CLEANUP_FREE char *path = xasprintf(CD "/%s?purge=true", UUID_STR(&gone));
    expect(b, "DELETE", path, "", "", 200, NULL);
    assert_null(engine_dataset(b->engine, &gone));
    struct uuid next = gone;
    next.b[1] = 2;
    CLEANUP_FREE char *page = xasprintf(CD "?limit=1&after=%s", UUID_STR(&gone));
    CLEANUP_FREE char *answer =
        xasprintf("[{\"dataset_id\":\"%s\",\"primary\":\"" A "\",\"deleted\":false,\"metadata\":{}}]", UUID_STR(&next));
    expect(b, "GET", page, "", "", 200, answer);
}

static void test_bad_requests(void **state)
{
    static const struct exchange x[] = {
        {"POST", CD, "", 400, NOT_DECODED},
        {"POST", CD, "{", 400, NOT_DECODED},
        {"POST", CD, "{\"primary\":\"" A "\",\"primary\":\"" A "\"}", 400,
         NOT_DECODED "\"not JSON: dup"},
        {"POST", CD, "{\"primary\":\"\xff\"}", 400, NOT_DECODED},
        {"POST", CD,
         "{\"primary\":\"\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\xe2\x82\xac\" x}", 400,
         NOT_DECODED},
        {"POST", CD, "{\"maximum_size\":18446744073709551616}", 400, NOT_DECODED},
        {"POST", CD "/" D9, "nonsense", 400, NOT_DECODED}, /* decoding comes before the look-up */
        {"POST", CC, "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]", 400,
         NOT_DECODED "\"JSON nested deeper"},
        {"POST", CC "/shop-web", "x", 400, NOT_DECODED},
        {"POST", CL, "x", 400, NOT_DECODED},
        {"POST", CD, "{\"maximum_size\":1000}", 400, NO_MATCH "\"\\\"primary\\\" is required\",\""},
        {"POST", CD, "{\"primary\":\"" A "\",\"deleted\":false}", 400,
         NO_MATCH "\"\\\"deleted\\\" cannot"},
        {"POST", CD "/" D9, "{\"deleted\":true}", 400, NO_MATCH "\"\\\"deleted\\\" is not"},
        {"POST", CC, "{}", 400, NO_MATCH},
        {"POST", CC "/none", "{}", 400, NO_MATCH "\"\\\"node_uuid\\\" is required\"]}"},
        {"POST", CL, "{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" A "\"}", 400,
         NO_MATCH "\"\\\"expires\\\" is required\"]}"},
        {"GET", "/", "", 404, SAYS("There is nothing at this path.")},
        {"GET", "/v1/version/", "", 404, SAYS("There is nothing at this path.")},
        {"GET", "/v1/state/datasets/", "", 404, SAYS("There is nothing at this path.")},
        {"GET", "/v1/state/datasets/a/b", "", 404, SAYS("There is nothing at this path.")},
        {"POST", "/v2/version", "{}", 404, SAYS("There is nothing at this path.")},
        {"POST", "/v1/version", "{}", 405,
         SAYS("The method POST is not allowed here; GET, HEAD is.")},
        {"GET", CD "/" D1, "", 405, SAYS("The method GET is not allowed here; POST, DELETE is.")},
        {"PUT", CD, "{}", 405, SAYS("The method PUT is not allowed here; GET, HEAD, POST is.")},
        {"DELETE", SD "/" D1, "", 405,
         SAYS("The method DELETE is not allowed here; GET, HEAD is.")},
    };

    for (size_t i = 0; i < ARRAY_SIZE(x); i++) {
        if (x[i].status == 400)
            expect_prefix(*state, x[i].method, x[i].path, x[i].body, x[i].status, x[i].answer);
        else
            expect(*state, x[i].method, x[i].path, "", x[i].body, x[i].status, x[i].answer);
    }
}

static char *current_tag(struct bench *b)
{
    struct client c;

    client_request(&c, b, "GET", CD, "", "");
    client_wait(&c, NULL);
    char *tag = header_of(&c, "X-Configuration-Tag");
    assert_non_null(tag);
    client_done(&c);
    return tag;
}

static void test_conditional(void **state)
{
    struct bench *b = *state;
    CLEANUP_FREE char *first = current_tag(b);
    CLEANUP_FREE char *stale = xasprintf("X-If-Configuration-Matches: %s\r\n", first);
    expect(b, "POST", CD, stale, "{\"primary\":\"" A "\",\"dataset_id\":\"" D2 "\"}", 201,
           D2_AT(A));
    CLEANUP_FREE char *second = current_tag(b);
    assert_string_not_equal(first, second);
    CLEANUP_FREE char *refusal =
        xasprintf(SAYS("Tag doesn't match. Required: %s, current: %s"), first, second);
    CLEANUP_FREE char *two = xasprintf("%sX-If-Configuration-Matches: %s\r\n", stale, second);

    /* Before the body is looked at, and before the dataset is. */
    expect(b, "POST", CD, stale, "not JSON", 412, refusal);
    expect(b, "POST", CD "/" D9, stale, "{}", 412, refusal);
    expect(b, "DELETE", CD "/" D2, stale, "", 412, refusal);
    expect(b, "DELETE", CD "/x", stale, "", 412, refusal);
    /* Others ignore it. */
    expect(b, "DELETE", CC "/none", stale, "", 404, SAYS("Container not found."));
    /* One of several is enough. */
    expect(b, "POST", CD "/" D2, two, "{\"primary\":\"" B "\"}", 200, D2_AT(B));
    CLEANUP_FREE char *third = current_tag(b);
    assert_string_not_equal(second, third);
    expect(b, "DELETE", CD "/" D2, two, "", 412, NULL);
}

/* Two conditional creates on one tag, the second sent while the first is not durable: only one may
 * win. */
static void test_conditional_race(void **state)
{
    struct bench *b = *state;
    CLEANUP_FREE char *tag = current_tag(b);
    CLEANUP_FREE char *header = xasprintf("X-If-Configuration-Matches: %s\r\n", tag);
    struct client first, second, probe;

    b->hold = true;
    client_request(&first, b, "POST", CD, header, "{\"primary\":\"" A "\"}");
    client_request(&second, b, "POST", CD, header, "{\"primary\":\"" A "\"}");
    /* Not durable: nobody sees it, and nobody is answered. */
    client_request(&probe, b, "GET", CD, "", "");
    client_wait(&probe, "[]");
    client_done(&probe);
    assert_int_equal(first.got.len + second.got.len, 0);
    b->hold = false;
    commit(b, b->held);
    client_wait(&first, NULL);
    client_wait(&second, NULL);
    assert_int_equal(status_of(&first), 201);
    assert_int_equal(status_of(&second), 412);
    client_done(&first);
    client_done(&second);
}

static void test_store_failed(void **state)
{
    struct bench *b = *state;

    b->fail = "the disk is full";
    expect(b, "POST", CD, "", "{\"primary\":\"" A "\",\"dataset_id\":\"" D2 "\"}", 503,
           SAYS("Nothing was changed, because it could not be stored: the disk is full"));
    expect(b, "GET", CD, "", "", 200, "[]");
    b->fail = NULL;
    expect(b, "POST", CD, "", "{\"primary\":\"" A "\",\"dataset_id\":\"" D2 "\"}", 201, D2_AT(A));
}

/* A disk that hangs: whoever asked is told so, and what becomes of it later harms nobody. */
static void test_store_late(void **state)
{
    struct bench *b = *state;
    static const char late[] =
        SAYS("The disk has not answered for 30 seconds; look whether the change was made.");

    b->hold = true;
    expect(b, "POST", CD, "", "{\"primary\":\"" A "\",\"dataset_id\":\"" D2 "\"}", 503, late);
    expect(b, "DELETE", CD "/" D2, "", "", 503, late);
    expect(b, "GET", CD, "", "", 200, "[]");
    b->hold = false;
    commit(b, b->held);
    drain(b);
    CLEANUP_FREE char *gone = xstrdup("[{\"dataset_id\":\"" D2 "\",\"primary\":\"" A
                                      "\",\"deleted\":true,\"metadata\":{}}]");
    expect(b, "GET", CD, "", "", 200, gone);
}

static void test_containers(void **state)
{
    static const struct exchange x[] = {
        {"GET", CC, "", 200, "[]"},
        {"POST", CC,
         "{\"node_uuid\":\"" A "\",\"name\":\"shop-web\",\"image\":\"nginx\","
         "\"ports\":[{\"internal\":80,\"external\":8080}],\"memory_limit\":268435456}",
         201, WEB_AT(A)},
        {"POST", CC, NEW("\"shop-web\""), 409, SAYS("The container name already exists.")},
        {"POST", CC, NEW("\"other\"," VOLUME(D2)), 404, SAYS("Dataset not found.")},
        {"POST", CD, "{\"primary\":\"" B "\",\"dataset_id\":\"" D2 "\"}", 201, D2_AT(B)},
        {"POST", CC, NEW("\"other\"," VOLUME(D2)), 409, SAYS("The dataset is on another node.")},
        {"POST", CD "/" D2, "{\"primary\":\"" A "\"}", 200, D2_AT(A)},
        {"POST", CC,
         "{\"node_uuid\":\"" A "\",\"name\":\"shop-db\",\"image\":\"postgres:9.4\"," VOLUME(D2) "}",
         201, DB_AT(A)},
        {"POST", CC, NEW("\"other\"," VOLUME(D2)), 409,
         SAYS("The dataset is being used by another container.")},
        {"POST", CC, NEW("\"other\",\"ports\":[{\"internal\":1,\"external\":8080}]"), 409,
         SAYS("A specified external port is already in use.")},
        {"POST", CC, NEW("\"other\",\"links\":[" LINK("a", "1") "," LINK("a", "2") "]"), 409,
         SAYS("Link aliases must be unique.")},
        {"POST", CC, NEW("\"other\",\"links\":[" LINK("a", "1") "," LINK("b", "1") "]"), 409,
         SAYS("The local ports in a container's links must be unique.")},
        /* The first failing check wins: name, volume, port, links. */
        {"POST", CC, NEW("\"shop-db\"," VOLUME(D9)), 409,
         SAYS("The container name already exists.")},
        {"POST", CC, NEW("\"other\"," VOLUME(D9) ",\"ports\":[{\"internal\":1,\"external\":8080}]"),
         404, SAYS("Dataset not found.")},
        {"POST", CC,
         NEW("\"other\",\"ports\":[{\"internal\":1,\"external\":8080}],"
             "\"links\":[" LINK("a", "1") "," LINK("a", "2") "]"),
         409, SAYS("A specified external port is already in use.")},
        {"GET", CC, "", 200, "[" DB_AT(A) "," WEB_AT(A) "]"},
        {"POST", CD "/" D2, "{\"primary\":\"" B "\"}", 409,
         SAYS("The dataset is used by the container shop-db; move the container instead.")},
        {"POST", CC "/shop-web", "{\"node_uuid\":\"" B "\"}", 200, WEB_AT(B)},
        {"POST", CC "/shop-web", "{\"node_uuid\":\"" B "\"}", 200, WEB_AT(B)},
        {"POST", CC "/shop-db", "{\"node_uuid\":\"" B "\"}", 200, DB_AT(B)},
        {"GET", CD, "", 200, "[" D2_AT(B) "]"}, /* its dataset went along */
        {"POST", CC "/none", "{\"node_uuid\":\"" B "\"}", 404, SAYS("Container not found.")},
        {"DELETE", CC "/shop-web", "", 200, "null"},
        {"DELETE", CC "/shop-web", "", 404, SAYS("Container not found.")},
        {"GET", CC, "", 200, "[" DB_AT(B) "]"},
        {"GET", SC, "", 200, "[]"},
        {"GET", SC "/shop-web", "", 404, SAYS("Container not found.")},
    };

    expect_all(*state, x, ARRAY_SIZE(x));
}

static void test_leases(void **state)
{
    struct bench *b = *state;
    static const struct exchange x[] = {
        {"GET", CL, "", 200, "[]"},
        {"POST", CL, "{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" A "\",\"expires\":60}", 201,
         "{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" A "\",\"expires\":60.0}"},
        {"POST", CL, "{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" B "\",\"expires\":null}", 409,
         SAYS("Lease already held.")},
        {"POST", CL, "{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" A "\",\"expires\":null}", 200,
         "{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" A "\",\"expires\":null}"},
        {"GET", CL, "", 200,
         "[{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" A "\",\"expires\":null}]"},
        {"DELETE", CL "/" D1, "", 200,
         "{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" A "\",\"expires\":null}"},
        {"DELETE", CL "/" D1, "", 404, SAYS("Lease not found.")},
        {"DELETE", CL "/nonsense", "", 400,
         SAYS("The path ends with 'nonsense', which is not a UUID.")},
        {"POST", CL, "{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" A "\",\"expires\":100.5}", 201,
         "{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" A "\",\"expires\":100.5}"},
    };
    struct client c;

    expect_all(b, x, ARRAY_SIZE(x));
    client_request(&c, b, "DELETE", CL "/" D1, "", "");
    client_wait(&c, NULL);
    json_t *v = json_loads(body_of(&c), 0, NULL);
    double left = json_real_value(json_object_get(v, "expires"));
    assert_true(left > 80 && left < 100.5);
    json_decref(v);
    client_done(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_datasets),    TEST(test_long_list),        TEST(test_bad_requests),
        TEST(test_conditional), TEST(test_conditional_race), TEST(test_store_failed),
        TEST(test_store_late),  TEST(test_containers),       TEST(test_leases),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
