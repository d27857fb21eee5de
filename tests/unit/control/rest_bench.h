/* What the tests of the REST API share: the real engine and store behind the API on a real server
 * on loopback, and a client. */
#pragma once

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
#ifndef BENCH_CHANGE_US
#define BENCH_CHANGE_US 0
#endif
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

static inline struct uuid id(const char *text)
{
    struct uuid u;

    assert_true(uuid_parse(text, &u));
    return u;
}

static inline void ok(struct err *e)
{
    if (e)
        fail_msg("unexpected error: %s", e->text);
}

/* The control loop in small: carries out the engine's effects. */

static inline void commit(struct bench *b, const struct batch *batch)
{
    struct store_change *changes = xcalloc(batch->n, sizeof(*changes));
    bool uncertain;

    for (size_t i = 0; i < batch->n; i++) {
        const struct change *c = &batch->changes[i];
        changes[i].revision = c->revision;
        changes[i].kind = c->kind == OBJECT_STORE ? STORE_SETTLED : (enum store_kind)c->kind;
        changes[i].key = c->key;
        if (c->dataset)
            changes[i].value = record_dataset_encode(c->dataset);
        else if (c->container)
            changes[i].value = record_container_encode(c->container);
        else if (c->lease)
            changes[i].value = record_lease_encode(c->lease);
        else if (c->cordon)
            changes[i].value = record_cordon_encode(c->cordon);
        else if (c->fence)
            changes[i].value = record_fence_encode(c->fence);
    }
    ok(store_commit_sync(b->store, changes, batch->n, &uncertain));
    for (size_t i = 0; i < batch->n; i++)
        free((char *)changes[i].value);
    free(changes);
    engine_committed(b->engine, now_os(), batch->id);
}

static inline void carry_out(struct bench *b, struct effect *f)
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

static inline void drain(void *cookie)
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

static inline void bench_submit(void *cookie, struct command *c)
{
    struct bench *b = cookie;

    engine_command(b->engine, now_os(), c);
}

static inline int setup(void **state)
{
    struct bench *b = xcalloc(1, sizeof(*b));

    b->dir = xstrdup("/tmp/flocker-rest-test-XXXXXX");
    assert_non_null(mkdtemp(b->dir));
    ok(loop_new(&b->loop));
    ok(store_open(b->dir, &b->store));
    struct store_content content;
    ok(store_load_sync(b->store, &content));
    b->engine = engine_new(&content.history, content.revision, random_os());
    store_content_done(&content);
    b->rest = rest_new(&(struct rest_config){.loop = b->loop,
                                             .engine = b->engine,
                                             .submit = bench_submit,
                                             .change_us = BENCH_CHANGE_US,
                                             .cookie = b});
    ok(http_server_new(b->loop, &(struct http_server_config){0}, rest_handle, b->rest, &b->server));
    ok(http_server_listen_tcp(b->server, "127.0.0.1", 0, &b->port));
    loop_on_idle(b->loop, drain, b);
    *state = b;
    return 0;
}

static inline int remove_entry(const char *path, const struct stat *st, int type, struct FTW *f)
{
    return remove(path);
}

static inline int teardown(void **state)
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

static inline void on_readable(void *cookie, unsigned ready)
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

static inline void on_timeout(void *cookie)
{
    struct client *c = cookie;

    c->late = true;
    loop_stop(c->b->loop);
}

static inline void client_send(struct client *c, struct bench *b, const char *request, size_t n)
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
static inline void client_wait(struct client *c, const char *until)
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

static inline void client_done(struct client *c)
{
    timer_cancel(&c->timeout);
    watch_free(c->watch);
    (void)close(c->fd);
    str_done(&c->got);
}

static inline void client_request(struct client *c, struct bench *b, const char *method,
                                  const char *path, const char *headers, const char *body)
{
    CLEANUP_FREE char *text = xasprintf(
        "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %zu\r\n%s\r\n%s", method,
        path, strlen(body), headers, body);

    client_send(c, b, text, strlen(text));
}

static inline unsigned status_of(const struct client *c)
{
    assert_true(c->got.data && str_has_prefix(c->got.data, "HTTP/1.1 "));
    return (unsigned)strtoul(c->got.data + 9, NULL, 10);
}

static inline const char *body_of(const struct client *c)
{
    const char *end = strstr(c->got.data, "\r\n\r\n");

    assert_non_null(end);
    return end + 4;
}

/* The value of a header of the answer; the caller frees it. */
static inline char *header_of(const struct client *c, const char *name)
{
    CLEANUP_FREE char *start = xasprintf("\r\n%s: ", name);
    const char *at = strcasestr(c->got.data, start);

    if (!at || at > body_of(c))
        return NULL;
    at += strlen(start);
    return xstrndup(at, strcspn(at, "\r"));
}

static inline bool same_json(const char *a, const char *b)
{
    json_t *v = json_loads(a, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    json_t *w = json_loads(b, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, NULL);
    bool same = v && w && json_equal(v, w);

    json_decref(v);
    json_decref(w);
    return same;
}

/* Sends the request and expects the status and, unless NULL, this body (white space aside). */
static inline void expect(struct bench *b, const char *method, const char *path,
                          const char *headers, const char *body, unsigned status,
                          const char *answer)
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

static inline void expect_all(struct bench *b, const struct exchange *x, size_t n)
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

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

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
