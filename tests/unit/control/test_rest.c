/* The REST API over real HTTP on loopback, with the real engine and the real store behind it; only
 * the agents' messages are made here. The cases follow the contract's examples (section 1.4) and
 * its tables of errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "control/rest.h"
#include "model/json.h"
#include "model/record.h"
#include "store/store.h"

#include <arpa/inet.h>
#include <ftw.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define A "3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f"
#define B "8d2f6a70-1c54-4e0b-8a3d-6b7c8d9e0f11"
#define D1 "c2b7e0d4-5a61-4f3b-9c88-13579bdf2468"
#define D2 "71a0f3c2-9e4d-4b26-8f15-2468ace13579"
#define D9 "ffffffff-0000-4000-8000-000000000000"
#define ERA "0b6f2d9a-44c1-4d7e-9b02-5e6f7a8b9c0d"
#define TIMEOUT_US (10 * USEC_PER_SEC)

struct bench {
    struct loop *loop;
    struct engine *engine;
    struct store *store;
    struct rest *rest;
    struct http_server *server;
    uint16_t port;
    char *dir;
    bool hold;        /* commits wait */
    const char *fail; /* commits fail with this text */
    const struct batch *held;
};

static struct uuid id(const char *text)
{
    struct uuid u;

    assert_true(uuid_parse(text, &u));
    return u;
}

static void ok(struct err *e)
{
    if (e)
        fail_msg("unexpected error: %s", e->text);
}

/* The control loop in small: carries out the engine's effects. */

static void commit(struct bench *b, const struct batch *batch)
{
    struct store_change *changes = xcalloc(batch->n, sizeof(*changes));
    bool uncertain;

    for (size_t i = 0; i < batch->n; i++) {
        const struct change *c = &batch->changes[i];
        changes[i].revision = c->revision;
        changes[i].kind = (enum store_kind)c->kind;
        changes[i].key = c->key;
        if (c->dataset)
            changes[i].value = record_dataset_encode(c->dataset);
        else if (c->container)
            changes[i].value = record_container_encode(c->container);
        else if (c->lease)
            changes[i].value = record_lease_encode(c->lease);
    }
    ok(store_commit_sync(b->store, changes, batch->n, &uncertain));
    for (size_t i = 0; i < batch->n; i++)
        free((char *)changes[i].value);
    free(changes);
    engine_committed(b->engine, now_os(), batch->id);
}

static void carry_out(struct bench *b, struct effect *f)
{
    if (f->kind == EFFECT_COMMIT && b->hold)
        b->held = f->batch;
    else if (f->kind == EFFECT_COMMIT && b->fail)
        engine_commit_failed(b->engine, now_os(), f->batch->id, b->fail);
    else if (f->kind == EFFECT_COMMIT)
        commit(b, f->batch);
    else if (f->kind == EFFECT_REPLY)
        rest_reply(b->rest, f->command, &f->result);
    else if (f->kind == EFFECT_CHANGED)
        rest_changed(b->rest, f->object, f->name);
}

static void drain(void *cookie)
{
    struct bench *b = cookie;
    struct effect *f;

    engine_flush(b->engine, now_os());
    while ((f = engine_next(b->engine))) {
        carry_out(b, f);
        effect_free(f);
        engine_flush(b->engine, now_os());
    }
}

static void submit(void *cookie, struct command *c)
{
    struct bench *b = cookie;

    engine_command(b->engine, now_os(), c);
}

static int setup(void **state)
{
    struct bench *b = xcalloc(1, sizeof(*b));

    b->dir = xstrdup("/tmp/flocker-rest-test-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    ok(loop_new(&b->loop));
    ok(store_open(b->dir, &b->store));
    b->engine = engine_new(store_id(b->store), store_revision(b->store), random_os());
    b->rest = rest_new(&(struct rest_config){b->loop, b->engine, submit, b});
    ok(http_server_new(b->loop, &(struct http_server_config){0}, rest_handle, b->rest, &b->server));
    ok(http_server_listen_tcp(b->server, "127.0.0.1", 0, &b->port));
    loop_on_idle(b->loop, drain, b);
    *state = b;
    return 0;
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *f)
{
    return remove(path);
}

static int teardown(void **state)
{
    struct bench *b = *state;

    http_server_free(b->server);
    rest_free(b->rest);
    loop_off_idle(b->loop, drain, b);
    loop_free(b->loop);
    engine_free(b->engine);
    store_close(b->store);
    (void)nftw(b->dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    free(b->dir);
    free(b);
    return 0;
}

/* The client: one request a connection; the loop runs until the answer is there. */

struct client {
    struct bench *b;
    int fd;
    struct watch *watch;
    struct timer timeout;
    struct str got;
    const char *until; /* stop when this was received; NULL = at the end of the stream */
    bool ended, late;
};

static void on_readable(void *cookie, unsigned ready)
{
    struct client *c = cookie;
    char buf[4096];
    ssize_t n = read(c->fd, buf, sizeof(buf));

    if (n > 0)
        str_append_bytes(&c->got, buf, (size_t)n);
    else
        c->ended = true;
    if (c->ended)
        ok(watch_set(c->watch, 0));
    if (c->ended || (c->until && c->got.data && strstr(c->got.data, c->until)))
        loop_stop(c->b->loop);
}

static void on_timeout(void *cookie)
{
    struct client *c = cookie;

    c->late = true;
    loop_stop(c->b->loop);
}

static void client_send(struct client *c, struct bench *b, const char *request, size_t n)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(b->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    *c = (struct client){.b = b};
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(c->fd, (struct sockaddr *)&to, sizeof(to)), 0);
    assert_int_equal(send(c->fd, request, n, MSG_NOSIGNAL), n);
    ok(watch_new(b->loop, c->fd, WATCH_READ, on_readable, c, &c->watch));
    timer_init(&c->timeout, b->loop, on_timeout, c);
}

/* Runs the loop until `until` has come (in all that was received), or the server closed. */
static void client_wait(struct client *c, const char *until)
{
    c->until = until;
    if (!c->ended && !(until && c->got.data && strstr(c->got.data, until))) {
        timer_set(&c->timeout, now_os().mono_us + TIMEOUT_US);
        ok(loop_run(c->b->loop));
        timer_cancel(&c->timeout);
    }
    if (c->late)
        fail_msg("no answer in time; got so far: %s", c->got.data);
    if (until && !strstr(c->got.data ? c->got.data : "", until))
        fail_msg("\"%s\" did not come: %s", until, c->got.data);
}

static void client_done(struct client *c)
{
    timer_cancel(&c->timeout);
    watch_free(c->watch);
    (void)close(c->fd);
    str_done(&c->got);
}

static void client_request(struct client *c, struct bench *b, const char *method, const char *path,
                           const char *headers, const char *body)
{
    CLEANUP_FREE char *text = xasprintf(
        "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n%s\r\n%s", method,
        path, strlen(body), headers, body);

    client_send(c, b, text, strlen(text));
}

static unsigned status_of(const struct client *c)
{
    assert_true(c->got.data && str_has_prefix(c->got.data, "HTTP/1.1 "));
    return (unsigned)strtoul(c->got.data + 9, NULL, 10);
}

static const char *body_of(const struct client *c)
{
    const char *end = strstr(c->got.data, "\r\n\r\n");

    assert_non_null(end);
    return end + 4;
}

/* The value of a header of the answer; the caller frees it. */
static char *header_of(const struct client *c, const char *name)
{
    CLEANUP_FREE char *start = xasprintf("\r\n%s: ", name);
    const char *at = strcasestr(c->got.data, start);

    if (!at || at > body_of(c))
        return NULL;
    at += strlen(start);
    return xstrndup(at, strcspn(at, "\r"));
}

static bool same_json(const char *a, const char *b)
{
    json_t *v = json_loads(a, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    json_t *w = json_loads(b, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    bool same = v && w && json_equal(v, w);

    json_decref(v);
    json_decref(w);
    return same;
}

/* Sends the request and expects the status and, unless NULL, this body (white space aside). */
static void expect(struct bench *b, const char *method, const char *path, const char *headers,
                   const char *body, unsigned status, const char *answer)
{
    struct client c;

    client_request(&c, b, method, path, headers, body);
    client_wait(&c, NULL);
    if (status_of(&c) != status ||
        (answer && !streq(body_of(&c), answer) && !same_json(body_of(&c), answer)))
        fail_msg("%s %s %s:\n%s\nexpected %u %s", method, path, body, c.got.data, status, answer);
    CLEANUP_FREE char *type = header_of(&c, "Content-Type");
    if (status != 304 && (!type || !streq(type, "application/json")))
        fail_msg("%s %s: content type %s", method, path, type);
    client_done(&c);
}

struct exchange {
    const char *method, *path, *body;
    unsigned status;
    const char *answer;
};

static void expect_all(struct bench *b, const struct exchange *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        expect(b, x[i].method, x[i].path, "", x[i].body, x[i].status, x[i].answer);
}

#define CD "/v1/configuration/datasets"
#define CC "/v1/configuration/containers"
#define CL "/v1/configuration/leases"
#define SD "/v1/state/datasets"
#define SC "/v1/state/containers"
#define SAYS(text) "{\"description\":\"" text "\"}"
#define D1_AT(node, deleted)                                                                       \
    "{\"dataset_id\":\"" D1 "\",\"primary\":\"" node "\",\"deleted\":" deleted                     \
    ",\"metadata\":{\"name\":\"orders\",\"team\":\"shop\"},\"maximum_size\":21474836480}"
#define D2_AT(node)                                                                                \
    "{\"dataset_id\":\"" D2 "\",\"primary\":\"" node "\",\"deleted\":false,\"metadata\":{}}"

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
        {"GET", CD, "ignored {", 200, "[" D1_AT(A, "false") "," D2_AT(A) "]"},
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
        {"GET", CD, "", 200, "[" D1_AT(B, "true") "," D2_AT(A) "]"},
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
        {"POST", CD "/" D9, "{\"metadata\":{}}", 400, NO_MATCH "\"\\\"metadata\\\" is not"},
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

#define WEB "\"name\":\"shop-web\",\"image\":\"nginx:latest\""
#define NEVER "\"restart_policy\":{\"name\":\"never\"}"
#define WEB_AT(node)                                                                               \
    "{\"node_uuid\":\"" node "\"," WEB                                                             \
    ",\"ports\":[{\"internal\":80,\"external\":8080}],\"memory_limit\":268435456," NEVER "}"
#define DB_AT(node)                                                                                \
    "{\"node_uuid\":\"" node "\",\"name\":\"shop-db\",\"image\":\"postgres:9.4\","                 \
    "\"volumes\":[{\"dataset_id\":\"" D2 "\",\"mountpoint\":\"/data\"}]," NEVER "}"
#define NEW(rest) "{\"node_uuid\":\"" A "\",\"image\":\"i\",\"name\":" rest "}"
#define VOLUME(d) "\"volumes\":[{\"dataset_id\":\"" d "\",\"mountpoint\":\"/data\"}]"
#define LINK(alias, port) "{\"alias\":\"" alias "\",\"local_port\":" port ",\"remote_port\":1}"

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
        {"POST", CC, NEW("\"other\",\"links\":[" LINK("a", "1") "," LINK("A", "2") "]"), 409,
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
        {"GET", CC, "", 200, "[" WEB_AT(A) "," DB_AT(A) "]"},
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
        {"DELETE", CL "/nonsense", "", 404, SAYS("Lease not found.")},
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

/* State: what agents say */

static void open_session(struct bench *b, uint64_t session, const char *node, const char *era,
                         const char *host)
{
    struct hello h = {.protocol = AGENT_PROTOCOL_VERSION,
                      .node = id(node),
                      .era = id(era),
                      .version = (char *)"2.0.0",
                      .host = (char *)host,
                      .mover_port = 4525,
                      .storage = STORAGE_LOCAL,
                      .backend = (char *)"btrfs"};

    engine_session_open(b->engine, now_os(), session, &h);
    engine_reports_complete(b->engine, now_os(), session);
    drain(b);
}

static void report_volume(struct bench *b, uint64_t session, const char *dataset, bool mounted,
                          uint64_t size, uint64_t epoch)
{
    struct report r = {.dataset = id(dataset)};

    r.volume = (struct volume_state){.dataset = r.dataset,
                                     .present = true,
                                     .attached = true,
                                     .mounted = mounted,
                                     .size = size,
                                     .mark = {.state = MARK_OWNED, .epoch = epoch}};
    engine_report(b->engine, now_os(), session, &r);
    drain(b);
}

static json_t *get_json(struct bench *b, const char *path)
{
    struct client c;

    client_request(&c, b, "GET", path, "", "");
    client_wait(&c, NULL);
    assert_int_equal(status_of(&c), 200);
    json_t *v = json_loads(body_of(&c), 0, NULL);
    assert_non_null(v);
    client_done(&c);
    return v;
}

static const char *text(json_t *o, const char *key)
{
    return json_string_value(json_object_get(o, key));
}

static void test_nodes(void **state)
{
    struct bench *b = *state;

    expect(b, "GET", "/v1/state/nodes", "", "", 200, "[]");
    open_session(b, 1, A, ERA, "10.20.0.11");
    expect(b, "GET", "/v1/state/nodes", "", "", 200,
           "[{\"uuid\":\"" A "\",\"host\":\"10.20.0.11\"}]");
    expect(b, "GET", "/v1/state/nodes/by_era/" ERA, "", "", 200, "{\"uuid\":\"" A "\"}");
    expect(b, "GET", "/v1/state/nodes/by_era/" D1, "", "", 404,
           SAYS("No node found with given era."));
    expect(b, "GET", "/v1/state/nodes/by_era/x", "", "", 404,
           SAYS("No node found with given era."));
}

static void test_dataset_state(void **state)
{
    struct bench *b = *state;
    struct uuid d2 = id(D2);

    expect(b, "GET", SD "/" D2, "", "", 404, SAYS("Dataset not found."));
    expect(b, "GET", SD "/x", "", "", 404, SAYS("Dataset not found."));
    expect(b, "POST", CD, "", "{\"primary\":\"" A "\",\"dataset_id\":\"" D2 "\"}", 201, D2_AT(A));
    json_t *v = get_json(b, SD "/" D2);
    assert_string_equal(text(v, "status"), "pending");
    assert_true(json_is_null(json_object_get(v, "owner")));
    assert_true(json_is_null(json_object_get(v, "transfer")));
    assert_string_equal(text(json_object_get(v, "reason"), "code"), "node-disconnected");
    assert_true(json_object_size(json_object_get(v, "reason")) == 5);
    assert_null(json_object_get(v, "path"));
    assert_null(json_object_get(v, "maximum_size"));
    json_decref(v);

    open_session(b, 1, A, ERA, "10.20.0.11");
    const struct dataset *d = engine_dataset(b->engine, &d2);
    assert_true(d->epoch > 0);
    report_volume(b, 1, D2, false, 0, d->epoch);
    expect(b, "GET", SD, "", "", 200, "[{\"dataset_id\":\"" D2 "\"}]");
    report_volume(b, 1, D2, true, 80530636800, engine_dataset(b->engine, &d2)->epoch);
    expect(b, "GET", SD, "", "", 200,
           "[{\"dataset_id\":\"" D2 "\",\"primary\":\"" A "\",\"path\":\"/flocker/" D2
           "\",\"maximum_size\":80530636800}]");
    v = get_json(b, SD "/" D2);
    assert_string_equal(text(v, "status"), "attached");
    assert_string_equal(text(v, "path"), "/flocker/" D2);
    assert_string_equal(text(v, "node"), A);
    assert_string_equal(text(v, "owner"), A);
    assert_true(json_is_true(json_object_get(v, "born")));
    assert_true(json_is_null(json_object_get(v, "reason")));
    assert_string_equal(json_string_value(json_array_get(json_object_get(v, "holders"), 0)), A);
    json_t *node = json_array_get(json_object_get(v, "nodes"), 0);
    assert_string_equal(text(node, "uuid"), A);
    assert_string_equal(text(node, "mark"), "owned");
    assert_true(json_is_true(json_object_get(node, "mounted")));
    assert_true(json_object_size(node) == 6);
    json_decref(v);

    /* A move to a node that is there becomes a transfer; the delete waits for the holders. */
    open_session(b, 2, B, D1, "10.20.0.12");
    expect(b, "POST", CD "/" D2, "", "{\"primary\":\"" B "\"}", 200, D2_AT(B));
    v = get_json(b, SD "/" D2);
    assert_string_equal(text(v, "status"), "moving");
    json_t *t = json_object_get(v, "transfer");
    assert_string_equal(text(t, "source"), A);
    assert_string_equal(text(t, "destination"), B);
    assert_string_equal(text(t, "phase"), "copy");
    assert_true(json_object_size(t) == 6);
    json_decref(v);
    expect(b, "DELETE", CD "/" D2, "", "", 200, NULL);
    v = get_json(b, SD "/" D2);
    assert_string_equal(text(v, "status"), "deleting");
    assert_true(json_is_true(json_object_get(v, "deleted")));
    json_decref(v);
}

static void test_container_state(void **state)
{
    struct bench *b = *state;
    struct container_report r = {
        .name = (char *)"shop-web", .run = CONTAINER_RUNNING, .image_ready = true};

    open_session(b, 1, A, ERA, "10.20.0.11");
    expect(b, "POST", CC, "",
           "{\"node_uuid\":\"" A "\",\"name\":\"shop-web\",\"image\":\"nginx\","
           "\"ports\":[{\"internal\":80,\"external\":8080}],\"memory_limit\":268435456}",
           201, WEB_AT(A));
    json_t *v = get_json(b, SC "/shop-web");
    assert_string_equal(text(v, "state"), "absent");
    assert_true(json_is_false(json_object_get(v, "running")));
    assert_true(json_is_null(json_object_get(v, "on")));
    assert_true(json_is_object(json_object_get(v, "reason")));
    assert_int_equal(json_array_size(json_object_get(v, "volumes")), 0);
    assert_int_equal(json_object_size(v), 9);
    json_decref(v);
    r.created = engine_container(b->engine, "shop-web")->created;
    engine_container_report(b->engine, now_os(), 1, &r);
    drain(b);
    v = get_json(b, SC "/shop-web");
    assert_string_equal(text(v, "state"), "running");
    assert_string_equal(text(v, "on"), A);
    assert_true(json_is_true(json_object_get(v, "running")));
    assert_true(json_is_null(json_object_get(v, "reason")));
    json_decref(v);
    expect(b, "GET", SC, "", "", 200,
           "[{\"node_uuid\":\"" A "\"," WEB ",\"ports\":[{\"internal\":80,\"external\":8080}],"
           "\"memory_limit\":268435456," NEVER ",\"running\":true}]");
    /* Moved away, it still runs where it was. */
    expect(b, "POST", CC "/shop-web", "", "{\"node_uuid\":\"" B "\"}", 200, WEB_AT(B));
    v = get_json(b, SC "/shop-web");
    assert_string_equal(text(v, "node_uuid"), B);
    assert_string_equal(text(v, "on"), A);
    json_decref(v);
    expect(b, "DELETE", CC "/shop-web", "", "", 200, "null");
    expect(b, "GET", SC, "", "", 200,
           "[{\"node_uuid\":\"" A "\",\"name\":\"shop-web\",\"image\":\"\"," NEVER
           ",\"running\":true}]");
    r.run = CONTAINER_ABSENT;
    engine_container_report(b->engine, now_os(), 1, &r);
    drain(b);
    expect(b, "GET", SC, "", "", 200, "[]");
}

static void test_head_and_etag(void **state)
{
    struct bench *b = *state;
    struct client c;

    expect(b, "POST", CD, "", "{\"primary\":\"" A "\",\"dataset_id\":\"" D2 "\"}", 201, NULL);
    client_request(&c, b, "GET", CD, "", "");
    client_wait(&c, NULL);
    CLEANUP_FREE char *etag = header_of(&c, "ETag");
    assert_non_null(etag);
    client_done(&c);
    client_request(&c, b, "HEAD", CD, "", "");
    client_wait(&c, NULL);
    CLEANUP_FREE char *again = header_of(&c, "ETag");
    CLEANUP_FREE char *tag = header_of(&c, "X-Configuration-Tag");
    assert_int_equal(status_of(&c), 200);
    assert_string_equal(body_of(&c), "");
    assert_string_equal(etag, again);
    assert_non_null(tag);
    client_done(&c);
    CLEANUP_FREE char *have = xasprintf("If-None-Match: \"x\", W/%s\r\n", etag);
    expect(b, "GET", CD, have, "", 304, "");
    expect(b, "POST", CD "/" D2, "", "{\"primary\":\"" B "\"}", 200, NULL);
    expect(b, "GET", CD, have, "", 200, "[" D2_AT(B) "]");
}

static char *last_id(const struct client *c)
{
    const char *at = NULL;

    for (const char *p = c->got.data; (p = strstr(p, "\nid: ")); p++)
        at = p + 5;
    assert_non_null(at);
    return xstrndup(at, strcspn(at, "\n"));
}

static void test_events(void **state)
{
    struct bench *b = *state;
    struct client c;

    client_request(&c, b, "GET", "/v1/events", "", "");
    client_wait(&c, ": changes of this cluster\n\n");
    assert_int_equal(status_of(&c), 200);
    CLEANUP_FREE char *type = header_of(&c, "Content-Type");
    assert_string_equal(type, "text/event-stream");
    open_session(b, 1, A, ERA, "10.20.0.11");
    client_wait(&c, "event: node\n");
    client_wait(&c, "data: {\"id\":\"" A "\"}\n\n");
    expect(b, "POST", CD, "", "{\"primary\":\"" B "\",\"dataset_id\":\"" D2 "\"}", 201, D2_AT(B));
    client_wait(&c, "event: dataset\n");
    client_wait(&c, "data: {\"id\":\"" D2 "\"}\n\n");
    expect(b, "POST", CL, "",
           "{\"dataset_id\":\"" D1 "\",\"node_uuid\":\"" A "\",\"expires\":null}", 201, NULL);
    client_wait(&c, "event: lease\n");
    client_wait(&c, "data: {\"id\":\"" D1 "\"}\n\n");
    CLEANUP_FREE char *seen = last_id(&c);
    client_done(&c);

    /* Back after a while: only what was missed comes. */
    expect(b, "POST", CC, "", NEW("\"shop-web\""), 201, NULL);
    CLEANUP_FREE char *header = xasprintf("Last-Event-ID: %s\r\n", seen);
    client_request(&c, b, "GET", "/v1/events", header, "");
    client_wait(&c, "event: container\n");
    client_wait(&c, "data: {\"id\":\"shop-web\"}\n\n");
    assert_null(strstr(c.got.data, D2));
    assert_null(strstr(c.got.data, "resync"));
    client_done(&c);
    /* An id of another run, or nonsense. */
    client_request(&c, b, "GET", "/v1/events", "Last-Event-ID: 0123:7\r\n", "");
    client_wait(&c, "event: resync\n");
    client_wait(&c, "data: {}\n\n");
    client_done(&c);
    client_request(&c, b, "HEAD", "/v1/events", "", "");
    client_wait(&c, NULL);
    assert_int_equal(status_of(&c), 200);
    client_done(&c);
}

/* A reader that does not read is dropped; the others get everything. */
static void test_slow_reader(void **state)
{
    struct bench *b = *state;
    struct client slow, good;

    client_request(&slow, b, "GET", "/v1/events", "", "");
    client_request(&good, b, "GET", "/v1/events", "", "");
    client_wait(&slow, ": changes of this cluster\n\n");
    client_wait(&good, ": changes of this cluster\n\n");
    ok(watch_set(slow.watch, 0));
    for (int round = 0; round < 100; round++) {
        CLEANUP_FREE char *key = xasprintf("round-%d", round);
        for (int i = 0; i < 999; i++)
            rest_changed(b->rest, OBJECT_CONTAINER, "some-container");
        rest_changed(b->rest, OBJECT_CONTAINER, key);
        client_wait(&good, key);
        good.got.len = 0; /* what was read may be forgotten */
        good.got.data[0] = '\0';
    }
    ok(watch_set(slow.watch, WATCH_READ));
    client_wait(&slow, NULL);
    assert_true(slow.ended);
    assert_null(strstr(slow.got.data, "round-99"));
    client_done(&slow);
    client_done(&good);
}

/* A client that goes away while its change is being stored harms nobody; the change is made. */
static void test_client_gone(void **state)
{
    struct bench *b = *state;
    struct client c, probe;

    b->hold = true;
    client_request(&c, b, "POST", CD, "", "{\"primary\":\"" A "\",\"dataset_id\":\"" D2 "\"}");
    client_request(&probe, b, "GET", CD, "", "");
    client_wait(&probe, "[]");
    client_done(&probe);
    assert_non_null(b->held);
    client_done(&c);
    expect(b, "GET", "/v1/version", "", "", 200, NULL);
    b->hold = false;
    commit(b, b->held);
    expect(b, "GET", CD, "", "", 200, "[" D2_AT(A) "]");
}

/* What waits when the service ends is answered, not left hanging. */
static void test_end(void **state)
{
    struct bench *b = *state;
    struct client c, probe;

    b->hold = true;
    client_request(&c, b, "POST", CD, "", "{\"primary\":\"" A "\"}");
    client_request(&probe, b, "GET", CD, "", "");
    client_wait(&probe, "[]");
    client_done(&probe);
    b->rest = rest_free(b->rest);
    client_wait(&c, NULL);
    assert_int_equal(status_of(&c), 503);
    client_done(&c);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_datasets),
        TEST(test_bad_requests),
        TEST(test_conditional),
        TEST(test_store_failed),
        TEST(test_conditional_race),
        TEST(test_containers),
        TEST(test_leases),
        TEST(test_nodes),
        TEST(test_dataset_state),
        TEST(test_head_and_etag),
        TEST(test_container_state),
        TEST(test_events),
        TEST(test_slow_reader),
        TEST(test_client_gone),
        TEST(test_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
