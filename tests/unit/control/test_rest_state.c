/* State and events over the REST API; only the agents' messages are made here. */
#include "rest_bench.h"

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
    engine_reports_complete(b->engine, now_os(), session, 0);
    drain(b);
}

static void report_volume(struct bench *b, uint64_t session, const char *dataset, bool mounted,
                          uint64_t size, uint64_t epoch)
{
    struct report r = {0};

    r.volume = (struct volume_state){.dataset = id(dataset),
                                     .present = true,
                                     .attached = true,
                                     .mounted = mounted,
                                     .size = size,
                                     .mark = {.state = MARK_OWNED, .epoch = epoch},
                                     .device = mounted ? (char *)"/dev/loop3" : NULL};
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
    expect(b, "GET", "/v1/state/nodes/by_era/x", "", "", 400,
           SAYS("The path ends with 'x', which is not a UUID."));
}

static void tell_space(struct bench *b, uint64_t session, uint64_t total, uint64_t left)
{
    engine_space_report(b->engine, now_os(), session, &(struct space){total, left});
    drain(b);
}

static void test_space_of_nodes(void **state)
{
    struct bench *b = *state;

    open_session(b, 1, A, ERA, "10.20.0.11");
    tell_space(b, 1, 2000, 500);
    expect(b, "GET", "/v1/state/nodes", "", "", 200,
           "[{\"uuid\":\"" A
           "\",\"host\":\"10.20.0.11\",\"space\":{\"total\":2000,\"free\":500}}]");
    tell_space(b, 9, 1, 1); /* no such session */
    open_session(b, 2, A, ERA, "10.20.0.11");
    expect(b, "GET", "/v1/state/nodes", "", "", 200,
           "[{\"uuid\":\"" A "\",\"host\":\"10.20.0.11\"}]");
}

/* Where a new volume is placed by `spread`. */
static void spread_to(struct bench *b, const char *node)
{
    static const char body[] = "{\"spread\":true,\"applications\":{\"services\":{\"db\":{\"image\":"
                               "\"x\",\"volumes\":[\"v:/d\"]}},"
                               "\"volumes\":{\"v\":{}}}}";
    struct client c;

    client_request(&c, b, "POST", "/v1/configuration/_plan", "", body);
    client_wait(&c, NULL);
    assert_int_equal(status_of(&c), 200);
    json_t *v = json_loads(body_of(&c), 0, NULL), *changes = json_object_get(v, "changes");
    for (size_t i = 0; i < json_array_size(changes); i++) {
        if (strcmp(text(json_array_get(changes, i), "action"), "create") == 0)
            assert_string_equal(text(json_array_get(changes, i), "to"), node);
    }
    assert_true(json_array_size(changes) >= 2);
    json_decref(v);
    client_done(&c);
}

static void test_spread_by_room(void **state)
{
    struct bench *b = *state;
    const uint64_t gib = 1u << 30;

    open_session(b, 1, A, ERA, "10.20.0.11");
    open_session(b, 2, B, D1, "10.20.0.12");
    tell_space(b, 1, 10 * gib, 4 * gib);
    spread_to(b, A); /* B has not told: both have no container */
    tell_space(b, 2, 10 * gib, 5 * gib);
    spread_to(b, B);
    /* What is promised is no room for others, though it is free still; what has no limit counts, too. */
    expect(b, "POST", CD, "", "{\"primary\":\"" B "\",\"maximum_size\":5368709120}", 201, NULL);
    spread_to(b, B);
    expect(b, "POST", CD, "", "{\"primary\":\"" B "\"}", 201, NULL);
    spread_to(b, A);
}

#define ADOPTION "/v1/adoption"

static void test_adoption(void **state)
{
    struct bench *b = *state;

    expect(b, "GET", ADOPTION, "", "", 200, "{\"waiting\":false,\"revision\":null,\"nodes_away\":[]}");
    expect(b, "POST", ADOPTION, "", "{}", 200, "{\"waiting\":false,\"revision\":null,\"nodes_away\":[]}");
    expect(b, "POST", ADOPTION, "", "{\"anyway\":1}", 400, NULL);
    expect(b, "POST", ADOPTION, "", "{\"anyway\":true,\"node_uuid\":\"" A "\"}", 400, NULL);
    expect(b, "POST", ADOPTION "/" D1, "", "{}", 400, NULL);
    expect(b, "POST", ADOPTION "/" D1, "", "{\"node_uuid\":\"" A "\"}", 404, SAYS("Dataset not found."));
    expect(b, "POST", ADOPTION "/x", "", "{\"node_uuid\":\"" A "\"}", 404, SAYS("Dataset not found."));
    expect(b, "POST", CD, "", "{\"primary\":\"" A "\",\"dataset_id\":\"" D1 "\"}", 201, NULL);
    expect(b, "GET", ADOPTION, "", "", 200, "{\"waiting\":false,\"revision\":null,\"nodes_away\":[\"" A "\"]}");
    expect(b, "POST", ADOPTION "/" D1, "", "{\"node_uuid\":\"" A "\"}", 409, NULL); /* it is away */
    open_session(b, 1, A, ERA, "10.20.0.11");
    expect(b, "POST", ADOPTION "/" D1, "", "{\"node_uuid\":\"" A "\"}", 409, SAYS("That node has nothing of the dataset."));
    report_volume(b, 1, D1, true, 0, engine_revision(b->engine));
    expect(b, "POST", ADOPTION "/" D1, "", "{\"node_uuid\":\"" A "\"}", 409,
           SAYS("The store knows where the data of the dataset are."));
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
    assert_null(json_object_get(v, "device"));
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
    assert_string_equal(text(v, "device"), "/dev/loop3");
    assert_string_equal(text(v, "owner"), A);
    assert_true(json_is_true(json_object_get(v, "born")));
    assert_true(json_is_null(json_object_get(v, "reason")));
    assert_string_equal(json_string_value(json_array_get(json_object_get(v, "holders"), 0)), A);
    json_t *node = json_array_get(json_object_get(v, "nodes"), 0);
    assert_string_equal(text(node, "uuid"), A);
    assert_string_equal(text(node, "mark"), "owned");
    assert_true(json_is_true(json_object_get(node, "mounted")));
    assert_int_equal(json_integer_value(json_object_get(node, "size")), 80530636800);
    assert_true(json_object_size(node) == 7);
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
    assert_true(json_object_size(t) == 7);
    json_t *progress = json_object_get(t, "progress"); /* nothing is known of it yet */
    assert_true(json_is_null(json_object_get(progress, "fraction")));
    assert_true(json_is_null(json_object_get(progress, "bytes_per_second")));
    assert_true(json_is_null(json_object_get(progress, "seconds_left")));
    assert_true(json_object_size(progress) == 3);
    json_decref(v);
    expect(b, "DELETE", CD "/" D2, "", "", 200, NULL);
    v = get_json(b, SD "/" D2);
    assert_string_equal(text(v, "status"), "deleting");
    assert_true(json_is_true(json_object_get(v, "deleted")));
    json_decref(v);
}

/* The statuses of a history in one text, each once: "pending attached moving". */
static char *statuses(struct bench *b, const char *path)
{
    json_t *v = get_json(b, path);
    struct str s = {0};
    size_t i;
    json_t *one;
    double last = 0;

    json_array_foreach (json_object_get(v, "history"), i, one) {
        assert_true(json_real_value(json_object_get(one, "time")) >= last);
        last = json_real_value(json_object_get(one, "time"));
        assert_int_equal(json_object_size(one), 4);
        str_appendf(&s, "%s%s/%s", i ? " " : "", text(one, "status"),
                    text(one, "reason") ? text(one, "reason") : "-");
    }
    json_decref(v);
    return str_steal(&s);
}

static void test_history(void **state)
{
    struct bench *b = *state;
    struct uuid d2 = id(D2);

    expect(b, "POST", CD, "", "{\"primary\":\"" A "\",\"dataset_id\":\"" D2 "\"}", 201, D2_AT(A));
    CLEANUP_FREE char *born = statuses(b, SD "/" D2);
    assert_string_equal(born, "pending/node-disconnected");
    open_session(b, 1, A, ERA, "10.20.0.11");
    report_volume(b, 1, D2, false, 0, engine_dataset(b->engine, &d2)->epoch);
    report_volume(b, 1, D2, true, 0, engine_dataset(b->engine, &d2)->epoch);
    report_volume(b, 1, D2, true, 0, engine_dataset(b->engine, &d2)->epoch); /* nothing new */
    CLEANUP_FREE char *lives = statuses(b, SD "/" D2);
    assert_non_null(strstr(lives, "attached/-"));
    assert_ptr_equal(strstr(lives, "attached/-"), strrchr(lives, ' ') + 1);
    /* It is not longer than it may be. */
    for (int i = 0; i < 100; i++)
        report_volume(b, 1, D2, i % 2, 0, engine_dataset(b->engine, &d2)->epoch);
    json_t *v = get_json(b, SD "/" D2);
    assert_int_equal(json_array_size(json_object_get(v, "history")), 16);
    json_decref(v);
    expect(b, "POST", CC, "", NEW("\"shop-web\""), 201, NULL);
    CLEANUP_FREE char *container = statuses(b, SC "/shop-web");
    assert_true(str_has_prefix(container, "absent/"));
    expect(b, "DELETE", CC "/shop-web", "", "", 200, "null");
    expect(b, "POST", CC, "", NEW("\"shop-web\""), 201, NULL);
    CLEANUP_FREE char *again = statuses(b, SC "/shop-web");
    assert_string_equal(container, again); /* another container: it begins anew */
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
    assert_true(json_is_null(json_object_get(v, "exit_code")));
    assert_true(json_is_null(json_object_get(v, "health")));
    assert_int_equal(json_object_size(v), 13);
    json_decref(v);
    r.health = HEALTH_HEALTHY;
    r.created = engine_container(b->engine, "shop-web")->created;
    engine_container_report(b->engine, now_os(), 1, &r);
    drain(b);
    v = get_json(b, SC "/shop-web");
    assert_string_equal(text(v, "state"), "running");
    assert_string_equal(text(v, "on"), A);
    assert_true(json_is_true(json_object_get(v, "running")));
    assert_true(json_is_null(json_object_get(v, "reason")));
    assert_string_equal(text(v, "health"), "healthy");
    json_decref(v);
    expect(b, "GET", SC, "", "", 200,
           "[{\"node_uuid\":\"" A "\"," WEB ",\"ports\":[{\"internal\":80,\"external\":8080}],"
           "\"memory_limit\":268435456," NEVER ",\"running\":true}]");
    r = (struct container_report){.name = r.name, .run = CONTAINER_EXITED, .has_exit_code = true, .exit_code = 137};
    engine_container_report(b->engine, now_os(), 1, &r);
    drain(b);
    v = get_json(b, SC "/shop-web");
    assert_int_equal(json_integer_value(json_object_get(v, "exit_code")), 137);
    assert_true(json_is_null(json_object_get(v, "health")));
    json_decref(v);
    r = (struct container_report){.name = r.name, .run = CONTAINER_RUNNING};
    engine_container_report(b->engine, now_os(), 1, &r);
    drain(b);
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
    r = (struct container_report){.name = r.name, .run = CONTAINER_ABSENT};
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

struct stopping {
    struct loop *loop;
    bool stopped;
};

static void note_stopped(void *cookie)
{
    struct stopping *s = cookie;

    s->stopped = true;
    loop_stop(s->loop);
}

/* A server that stops ends the event streams; the API lives on without them. */
static void test_stop_with_readers(void **state)
{
    struct bench *b = *state;
    struct stopping s = {.loop = b->loop};
    struct client c, d;

    client_request(&c, b, "GET", "/v1/events", "", "");
    client_request(&d, b, "GET", "/v1/events", "", "");
    client_wait(&c, ": changes of this cluster\n\n");
    client_wait(&d, ": changes of this cluster\n\n");
    http_server_stop(b->server, now_os().mono_us + TIMEOUT_US, note_stopped, &s);
    client_wait(&c, NULL);
    client_wait(&d, NULL);
    client_done(&c);
    client_done(&d);
    timer_set(&c.timeout, now_os().mono_us + TIMEOUT_US);
    while (!s.stopped && !c.late)
        ok(loop_run(b->loop));
    timer_cancel(&c.timeout);
    assert_true(s.stopped);
    rest_changed(b->rest, OBJECT_CONTAINER, "nobody-reads-this");
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nodes),
        TEST(test_adoption),
        TEST(test_dataset_state),
        TEST(test_space_of_nodes),
        TEST(test_spread_by_room),
        TEST(test_history),
        TEST(test_container_state),
        TEST(test_head_and_etag),
        TEST(test_events),
        TEST(test_slow_reader),
        TEST(test_client_gone),
        TEST(test_stop_with_readers),
        TEST(test_end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
