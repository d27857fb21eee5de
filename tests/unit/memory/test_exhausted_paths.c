/* Memory that runs out at the n-th allocation on the way of a request: through the real HTTP server, REST API, engine and
 * store, in the clear and over TLS, and through an agent's session over gRPC; the allocations of OpenSSL, libevent, nghttp2
 * and SQLite included. Each time the process ends with its sentence (base/mem.h), or the connection ends with a line in the
 * log, or the answer is the right one: no crash, no hang, no leak, and what is acknowledged is in the store. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/log.h"
#include "base/now.h"
#include "certs.h"
#include "control/rest.h"
#include "control/sessions.h"
#include "exhaust.h"
#include "model/json.h"
#include "model/record.h"
#include "net/grpc.h"
#include "net/outbox.h"
#include "proto/codec.h"
#include "store/store.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <ftw.h>
#include <openssl/err.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

#define SERVER_US (3 * USEC_PER_SEC) /* time-outs of the servers */
#define LATE_US (20 * USEC_PER_SEC)  /* a hang */
#define GAP_US (2 * USEC_PER_MSEC)
#define LONG_LIST 5000u
#define DATASET "c2b7e0d4-5a61-4f3b-9c88-13579bdf2468"
#define HOST "Host: x\r\nConnection: close\r\n"

static char store_root[64], certs_dir[64];
static struct tls *control, *user, *node;
static struct engine *long_engine; /* with LONG_LIST datasets; made once, only read */

/* ---- the control service in small ---- */

static struct world {
    bool tls, list; /* of the next trial */
    char store_dir[128];
    struct loop *loop;
    struct store *store;
    struct engine *engine;
    struct rest *rest;
    struct http_server *server;
    struct sessions *sessions;
    SSL_CTX *server_tls, *client_tls;
    uint16_t port;
    bool late;
    bool acknowledged;     /* DATASET */
    struct err *uncertain; /* the control service would end */
} w;

static void must(struct err *e)
{
    if (e)
        exhaust_wrong(e->text);
}

static void record(const struct batch *batch)
{
    struct store_change *changes = xcalloc(batch->n, sizeof(*changes));
    bool uncertain;

    for (size_t i = 0; i < batch->n; i++) {
        const struct change *c = &batch->changes[i];
        changes[i] = (struct store_change){c->revision, (enum store_kind)c->kind, c->key,
                                           record_dataset_encode(c->dataset)};
    }
    struct err *e = store_commit_sync(w.store, changes, batch->n, &uncertain);
    for (size_t i = 0; i < batch->n; i++)
        free((char *)changes[i].value);
    free(changes);
    if (e && uncertain) {
        log_error("%s", e->text);
        w.uncertain = e;
        loop_stop(w.loop);
        return;
    }
    if (e) {
        log_error("%s", e->text);
        engine_commit_failed(w.engine, now_os(), batch->id, e->text);
    } else {
        engine_committed(w.engine, now_os(), batch->id);
    }
    err_free(e);
}

static void carry_out(const struct effect *f)
{
    if (f->kind == EFFECT_COMMIT && w.store)
        record(f->batch);
    else if (f->kind == EFFECT_COMMIT)
        engine_committed(w.engine, now_os(), f->batch->id);
    else if (f->kind == EFFECT_REPLY)
        rest_reply(w.rest, f->command, &f->result);
    else if (f->kind == EFFECT_CHANGED && w.rest)
        rest_changed(w.rest, f->object, f->name);
    else if (w.sessions)
        sessions_effect(w.sessions, f);
}

static void drain(void *cookie)
{
    struct effect *f;

    engine_flush(w.engine, now_os());
    while (!w.uncertain && (f = engine_next(w.engine))) {
        carry_out(f);
        effect_free(f);
        engine_flush(w.engine, now_os());
    }
}

static void submit(void *cookie, struct command *c)
{
    engine_command(w.engine, now_os(), c);
}

static void too_late(void *cookie)
{
    w.late = true;
    loop_stop(w.loop);
}

/* Runs the loop until somebody stops it. */
static void run_loop(void)
{
    struct timer limit;

    exhaust_pause();
    timer_init(&limit, w.loop, too_late, NULL);
    timer_set(&limit, now_os().mono_us + LATE_US);
    exhaust_resume();
    must(loop_run(w.loop));
    timer_cancel(&limit);
    if (w.late)
        exhaust_wrong("nothing more happens");
}

static void open_engine(void)
{
    struct store_content content;

    (void)snprintf(w.store_dir, sizeof(w.store_dir), "%s/%d", store_root, (int)getpid());
    must(store_open(w.store_dir, &w.store));
    must(store_load_sync(w.store, &content));
    w.engine = engine_new(&content.history, content.revision, random_os());
    store_content_done(&content);
}

static void open_rest(void)
{
    w = (struct world){.tls = w.tls, .list = w.list};
    must(loop_new(&w.loop));
    if (w.list)
        w.engine = long_engine;
    else
        open_engine();
    if (w.tls) {
        must(
            tls_server_context(control, TLS_KIND_USER, TLS_EOF_OK | TLS_ALPN_HTTP1, &w.server_tls));
        must(tls_client_context(user, TLS_KIND_CONTROL_SERVICE, TLS_EOF_OK, &w.client_tls));
    }
    w.rest = rest_new(&(struct rest_config){.loop = w.loop, .engine = w.engine, .submit = submit});
    must(http_server_new(w.loop,
                         &(struct http_server_config){.tls = w.server_tls,
                                                      .handshake_us = SERVER_US,
                                                      .idle_us = SERVER_US,
                                                      .stall_us = SERVER_US,
                                                      .request_us = SERVER_US},
                         rest_handle, w.rest, &w.server));
    must(http_server_listen_tcp(w.server, "127.0.0.1", 0, &w.port));
    loop_on_idle(w.loop, drain, NULL);
}

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *f)
{
    return remove(path);
}

/* What was acknowledged is what a control service that starts now would find. */
static void check_store(void)
{
    struct store_content content;
    bool found = false;
    struct uuid id;

    (void)uuid_parse(DATASET, &id);
    must(store_open(w.store_dir, &w.store));
    must(store_load_sync(w.store, &content));
    for (size_t i = 0; i < content.n_datasets; i++)
        found = found || uuid_eq(&content.datasets[i]->id, &id);
    store_content_done(&content);
    store_close(w.store);
    if (w.acknowledged && !found)
        exhaust_wrong("the dataset was acknowledged, but it is not in the store");
}

static void close_rest(void)
{
    http_server_free(w.server);
    rest_free(w.rest);
    loop_off_idle(w.loop, drain, NULL);
    (void)event_base_loop(loop_base(w.loop), EVLOOP_NONBLOCK);
    loop_free(w.loop);
    SSL_CTX_free(w.server_tls);
    SSL_CTX_free(w.client_tls);
    OPENSSL_thread_stop(); /* its queue of errors keeps their texts */
    err_free(w.uncertain);
    if (w.list)
        return;
    engine_free(w.engine);
    store_close(w.store);
    check_store();
    (void)nftw(w.store_dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

/* ---- a client of HTTP; it has all the memory it wants ---- */

struct client {
    int fd;
    SSL *ssl;
    struct watch *watch;
    struct timer gap;
    struct str request;
    size_t sent, piece; /* the first piece goes on its own */
    struct str got;
    const char *until; /* NULL: the end of the answer */
    bool ended;
    uint64_t begun_us;
};

static bool has_come(const struct client *c, const char *text)
{
    return c->got.data && strstr(c->got.data, text);
}

/* All of an answer that says itself where it ends. */
static bool is_whole(const struct client *c)
{
    const char *end = has_come(c, "\r\n\r\n") ? strstr(c->got.data, "\r\n\r\n") + 4 : NULL;
    const char *length = end ? strstr(c->got.data, "Content-Length: ") : NULL;

    if (!end)
        return false;
    if (length && length < end)
        return strlen(end) == strtoul(length + 16, NULL, 10);
    return c->got.len > 7 && streq(c->got.data + c->got.len - 7, "\r\n0\r\n\r\n");
}

static void client_write(struct client *c)
{
    size_t n = (c->sent ? c->request.len : c->piece) - c->sent;
    ssize_t k = c->ssl ? SSL_write(c->ssl, c->request.data + c->sent, (int)n)
                       : send(c->fd, c->request.data + c->sent, n, MSG_NOSIGNAL);

    if (k > 0)
        c->sent += (size_t)k;
    if (k > 0 && c->sent < c->request.len)
        timer_set(&c->gap, now_os().mono_us + GAP_US);
}

static void on_gap(void *cookie)
{
    exhaust_pause();
    client_write(cookie);
    exhaust_resume();
}

static ssize_t client_read(struct client *c, char *buf, size_t size)
{
    if (!c->ssl)
        return recv(c->fd, buf, size, MSG_DONTWAIT);
    int k = SSL_read(c->ssl, buf, (int)size);
    int error = SSL_get_error(c->ssl, k);

    ERR_clear_error();
    if (k <= 0 && error == SSL_ERROR_WANT_READ) {
        errno = EAGAIN;
        return -1;
    }
    return k > 0 ? k : 0;
}

static void client_step(struct client *c)
{
    char buf[16384];
    ssize_t k;

    if (!c->sent && c->ssl && SSL_do_handshake(c->ssl) != 1 &&
        SSL_get_error(c->ssl, -1) == SSL_ERROR_WANT_READ)
        return;
    ERR_clear_error();
    if (!c->sent)
        client_write(c);
    while ((k = client_read(c, buf, sizeof(buf))) > 0)
        str_append_bytes(&c->got, buf, (size_t)k);
    c->ended = k == 0 || (errno != EAGAIN && errno != EINTR);
    if (c->ended)
        must(watch_set(c->watch, 0));
    if (c->ended || (c->until ? has_come(c, c->until) : is_whole(c)))
        loop_stop(w.loop);
}

static void on_ready(void *cookie, unsigned ready)
{
    exhaust_pause();
    client_step(cookie);
    exhaust_resume();
}

static void client_begin(struct client *c, const char *line, const char *body)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons(w.port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    char filler[5000];

    exhaust_pause();
    memset(filler, 'f', sizeof(filler));
    *c = (struct client){.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0),
                         .begun_us = now_os().mono_us};
    if (connect(c->fd, (struct sockaddr *)&to, sizeof(to)) != 0 ||
        fcntl(c->fd, F_SETFL, O_NONBLOCK) != 0)
        exhaust_wrong("cannot connect");
    str_appendf(&c->request, "%s HTTP/1.1\r\n" HOST "Content-Length: %zu\r\n", line, strlen(body));
    c->piece = c->request.len;
    str_appendf(&c->request, "X-Filler: %.*s\r\n\r\n%s", (int)sizeof(filler), filler, body);
    timer_init(&c->gap, w.loop, on_gap, c);
    must(watch_new(w.loop, c->fd, WATCH_READ, on_ready, c, &c->watch));
    if (w.tls) {
        must(tls_client_ssl(w.client_tls, NULL, &c->ssl));
        if (SSL_set_fd(c->ssl, c->fd) != 1)
            exhaust_wrong("SSL_set_fd");
    }
    client_step(c);
    exhaust_resume();
}

static void on_heard(void *cookie)
{
    (void)cookie;
    loop_stop(w.loop);
}

/* It was the client's TLS that ended it, because the server's, short of memory, said something odd: the server learns that
 * from the client, and logs it. */
static void let_server_hear(void)
{
    struct timer soon;

    timer_init(&soon, w.loop, on_heard, NULL);
    timer_set(&soon, now_os().mono_us + GAP_US);
    run_loop();
    timer_cancel(&soon);
}

/* Until that has come, or the answer; an error when the connection is closed before, or the answer is 50x. */
static struct err *client_wait(struct client *c, const char *until)
{
    c->until = until;
    if (!c->ended && !(until ? has_come(c, until) : is_whole(c)))
        run_loop();
    if (w.uncertain)
        return err_new(ERR_IO, "the control service ends");
    if (c->got.len && str_has_prefix(c->got.data, "HTTP/1.1 50"))
        return err_new(ERR_UNAVAILABLE, "%.12s", c->got.data);
    if (until ? has_come(c, until) : is_whole(c))
        return NULL;
    bool late = now_os().mono_us - c->begun_us >= SERVER_US;
    if (c->ssl && !c->got.len)
        let_server_hear();
    return err_new(late ? ERR_TIMEOUT : ERR_UNAVAILABLE, "closed after %zu bytes", c->got.len);
}

static void client_end(struct client *c)
{
    exhaust_pause();
    timer_cancel(&c->gap);
    watch_free(c->watch);
    SSL_free(c->ssl);
    (void)close(c->fd);
    str_done(&c->got);
    str_done(&c->request);
    ERR_clear_error();
    exhaust_resume();
}

/* ---- trials of HTTP ---- */

static struct err *ask(const char *line, const char *body, struct str *out)
{
    struct client c;

    client_begin(&c, line, body);
    struct err *e = client_wait(&c, NULL);
    exhaust_pause();
    if (!e) { /* without the headers: times, tags and sizes of pieces */
        str_append_bytes(out, c.got.data, 12);
        str_append(out, strstr(c.got.data, "\r\n\r\n"));
        w.acknowledged = w.acknowledged || str_has_prefix(c.got.data, "HTTP/1.1 201");
    }
    exhaust_resume();
    client_end(&c);
    return e;
}

#define DATASETS "/v1/configuration/datasets"
#define NODE_BODY "{\"primary\":\"" NODE_1 "\""

static struct err *create(struct str *out)
{
    return ask("POST " DATASETS,
               NODE_BODY ",\"dataset_id\":\"" DATASET "\",\"metadata\":{\"name\":\"shop\"}}", out);
}

static struct err *list(struct str *out)
{
    return ask("GET " DATASETS, "", out);
}

static struct err *refused(struct str *out)
{
    return ask("POST " DATASETS, NODE_BODY ",\"odd\":[1,null],\"maximum_size\":5}", out);
}

static struct err *watch_create(struct client *c, struct str *out)
{
    TRY(client_wait(c, ": changes of this cluster\n\n"));
    TRY(create(out));
    TRY(client_wait(c, "data: {\"id\":\"" DATASET "\"}\n\n"));
    return NULL;
}

static struct err *events(struct str *out)
{
    struct client c;

    client_begin(&c, "GET /v1/events", "");
    struct err *e = watch_create(&c, out);
    client_end(&c);
    return e;
}

/* A create and a list on connections of their own. */
static struct err *create_and_list(struct str *out)
{
    TRY(create(out));
    return list(out);
}

static void try_http(const char *name, bool tls, bool long_list, exhaust_fn *run, unsigned at_most)
{
    w = (struct world){.tls = tls, .list = long_list};
    exhaust_each(
        &(struct exhaust_trial){.name = name,
                                .before = open_rest,
                                .run = run,
                                .after = close_rest,
                                .at_most = at_most,
                                .full_at_most = long_list ? 2000 : 0, /* of thousands like it */
                                .logs = true});
}

static void test_http(void **state)
{
    try_http("HTTP: a create and a list", false, false, create_and_list, 150);
    try_http("HTTP: a refused body", false, false, refused, 100);
    try_http("HTTP: a stream of events", false, false, events, 100);
    try_http("HTTP: a long list", false, true, list, 50);
}

static void test_https(void **state)
{
    try_http("HTTPS: a create", true, false, create, 250);
    try_http("HTTPS: a refused body", true, false, refused, 50);
    try_http("HTTPS: a stream of events", true, false, events, 50);
    try_http("HTTPS: a long list", true, true, list, 40);
}

/* ---- an agent's session; here both sides are tried ---- */

struct agent {
    struct grpc_client *client;
    struct outbox *outbox;
    struct err *error;
    struct str *out;
    bool done;
};

static void say(struct agent *a, const struct agent_message *m)
{
    struct str bytes = {0};

    codec_agent_encode(m, &bytes);
    outbox_send(a->outbox, NULL, &bytes);
    str_done(&bytes);
}

static void on_message(struct grpc_stream *s, const uint8_t *bytes, size_t n)
{
    struct agent *a = grpc_stream_cookie(s);
    struct control_message m;

    a->error = codec_control_decode(bytes, n, &m);
    if (a->error) {
        loop_stop(w.loop);
        return;
    }
    exhaust_pause();
    str_appendf(a->out, "%d ", (int)m.kind);
    if (m.kind == CONTROL_MESSAGE_ORDER)
        str_append(a->out, UUID_STR(&m.order.dataset));
    exhaust_resume();
    if (m.kind == CONTROL_MESSAGE_WELCOME)
        say(a, &(struct agent_message){.kind = AGENT_MESSAGE_REPORTS_COMPLETE});
    a->done = m.kind == CONTROL_MESSAGE_ORDERS_COMPLETE;
    if (a->done)
        loop_stop(w.loop);
    control_message_done(&m);
}

static void on_drained(struct grpc_stream *s)
{
    outbox_drained(((struct agent *)grpc_stream_cookie(s))->outbox);
}

static void on_closed(struct grpc_stream *s, enum grpc_status status, const char *text)
{
    struct agent *a = grpc_stream_cookie(s);

    if (!a->error && !a->done)
        a->error = err_new(ERR_UNAVAILABLE, "%s %s", grpc_status_name(status), text);
    if (a->error)
        log_warning("%s", a->error->text);
    loop_stop(w.loop);
}

static const struct grpc_handlers agent_handlers = {
    .on_message = on_message, .on_drained = on_drained, .on_closed = on_closed};

static struct err *connect_agent(struct agent *a)
{
    SSL *ssl;

    TRY(tls_client_ssl(w.client_tls, NULL, &ssl));
    return grpc_client_new(&(struct grpc_client_options){.base = loop_base(w.loop),
                                                         .host = "127.0.0.1",
                                                         .port = w.port,
                                                         .ssl = ssl,
                                                         .authority = "control-service",
                                                         .connect_ms = SERVER_US / USEC_PER_MSEC},
                           &a->client);
}

static struct err *session(struct str *out)
{
    struct agent_message hello = {.kind = AGENT_MESSAGE_HELLO,
                                  .hello = {.protocol = AGENT_PROTOCOL_VERSION,
                                            .version = (char *)"1",
                                            .host = (char *)"127.0.0.1",
                                            .mover_port = 4525,
                                            .backend = (char *)"fake"}};
    struct agent a = {.out = out};

    (void)uuid_parse(NODE_1, &hello.hello.node);
    (void)uuid_parse(DATASET, &hello.hello.era);
    struct err *e = connect_agent(&a);
    if (e) {
        log_warning("%s", e->text);
        return e;
    }
    struct grpc_stream *s = grpc_client_call(a.client, AGENT_SESSION_PATH, &agent_handlers, &a, 0);
    if (s) {
        a.outbox = outbox_new(s);
        say(&a, &hello);
        run_loop();
    }
    e = s ? steal(&a.error) : err_new(ERR_UNAVAILABLE, "the call could not be made");
    exhaust_pause();
    a.done = true;
    if (!s)
        log_warning("%s", e->text);
    grpc_client_free(a.client);
    outbox_free(a.outbox);
    exhaust_resume();
    return e;
}

static void open_sessions(void)
{
    const struct random random = random_os();
    struct generation life = {.id = uuid_random_v4(&random)};
    const struct history history = {.store = life.id, .generations = &life, .n = 1};
    struct uuid id;

    w = (struct world){0};
    must(loop_new(&w.loop));
    w.engine = engine_new(&history, 1, random);
    (void)uuid_parse(DATASET, &id);
    struct dataset *d = dataset_new(id);
    (void)uuid_parse(NODE_1, &d->primary);
    engine_restore_dataset(w.engine, d);
    engine_tick(w.engine, now_os());
    must(tls_server_context(control, TLS_KIND_NODE, TLS_NO_TICKETS | TLS_ALPN_H2, &w.server_tls));
    must(tls_client_context(node, TLS_KIND_CONTROL_SERVICE, TLS_NO_TICKETS | TLS_ALPN_H2,
                            &w.client_tls));
    must(sessions_new(
        &(struct sessions_config){
            .loop = w.loop, .engine = w.engine, .tls = w.server_tls, .host = "127.0.0.1"},
        &w.sessions));
    w.port = sessions_port(w.sessions);
    loop_on_idle(w.loop, drain, NULL);
}

static void close_sessions(void)
{
    sessions_free(w.sessions);
    loop_off_idle(w.loop, drain, NULL);
    (void)event_base_loop(loop_base(w.loop), EVLOOP_NONBLOCK);
    loop_free(w.loop);
    SSL_CTX_free(w.server_tls);
    SSL_CTX_free(w.client_tls);
    OPENSSL_thread_stop(); /* its queue of errors keeps their texts */
    engine_free(w.engine);
}

static void test_session(void **state)
{
    exhaust_each(&(struct exhaust_trial){.name = "gRPC: an agent's session",
                                         .before = open_sessions,
                                         .run = session,
                                         .after = close_sessions,
                                         .at_most = 400,
                                         .logs = true});
}

/* ---- set-up ---- */

static struct tls *credential(const char *name)
{
    CLEANUP_FREE char *ca = xasprintf("%s/ca.crt", certs_dir);
    CLEANUP_FREE char *crt = xasprintf("%s/%s.crt", certs_dir, name);
    CLEANUP_FREE char *key = xasprintf("%s/%s.key", certs_dir, name);
    CLEANUP_FREE char *warning = NULL;
    struct tls *t;

    must(tls_load(ca, crt, key, &warning, &t));
    return t;
}

static void make_certs(void)
{
    struct certs_ca ca;

    certs_dir_make(certs_dir, sizeof(certs_dir));
    certs_ca_new(&ca, CLUSTER_A);
    certs_ca_write(&ca, certs_dir, "ca");
    certs_make(&ca, certs_dir, "control", "control-service", NULL, CERTS_SAN_CONTROL);
    certs_make(&ca, certs_dir, "node", "node-" NODE_1, NULL, 0);
    certs_make(&ca, certs_dir, "user", "user-alice", NULL, CERTS_CLIENT_AUTH);
    certs_ca_free(&ca);
    control = credential("control");
    node = credential("node");
    user = credential("user");
}

static void make_long_engine(void)
{
    const struct random random = random_os();
    struct generation life = {.id = uuid_random_v4(&random)};
    const struct history history = {.store = life.id, .generations = &life, .n = 1};

    long_engine = engine_new(&history, 1, random);
    for (unsigned i = 0; i < LONG_LIST; i++) {
        struct dataset *d = dataset_new(UUID_NIL);
        d->id.b[0] = (unsigned char)(i >> 8);
        d->id.b[1] = (unsigned char)i;
        d->id.b[6] = 0x40;
        d->id.b[8] = 0x80;
        (void)uuid_parse(NODE_1, &d->primary);
        engine_restore_dataset(long_engine, d);
    }
}

static int setup(void **state)
{
    (void)snprintf(store_root, sizeof(store_root), "/dev/shm/flocker-paths-test-XXXXXX");
    if (!mkdtemp(store_root)) {
        (void)snprintf(store_root, sizeof(store_root), "/tmp/flocker-paths-test-XXXXXX");
        assert_non_null(mkdtemp(store_root));
    }
    make_certs();
    make_long_engine();
    return 0;
}

static int teardown(void **state)
{
    tls_free(control);
    tls_free(node);
    tls_free(user);
    engine_free(long_engine);
    certs_dir_remove(certs_dir);
    (void)nftw(store_root, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_http),
        cmocka_unit_test(test_https),
        cmocka_unit_test(test_session),
    };

    json_setup();
    log_setup("test", LOG_LEVEL_INFO);
    return cmocka_run_group_tests(tests, setup, teardown);
}
