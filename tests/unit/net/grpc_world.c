#include "grpc_world.h"

#include <unistd.h>

struct world *w;

void on_deadline(int fd, short what, void *cookie)
{
    w->timed_out = true;
}

void run_for(unsigned ms)
{
    struct timeval tv = {ms / 1000, (ms % 1000) * 1000};

    event_base_loopexit(w->base, &tv);
    event_base_loop(w->base, 0);
}

void must(struct err *e)
{
    if (e)
        fail_msg("%s", e->text);
}

/* ---- methods of the test server ---- */

static void server_on_open(struct grpc_stream *s)
{
    w->opened++;
    w->server_stream = s;
    if (grpc_stream_ssl(s)) {
        struct tls_identity id;
        must(tls_peer_identity(grpc_stream_ssl(s), &id));
        snprintf(w->peer_name, sizeof(w->peer_name), "%s", id.name);
    }
}

static void server_on_closed(struct grpc_stream *s, enum grpc_status status, const char *text)
{
    w->server_closed++;
    w->server_status = status;
    snprintf(w->server_text, sizeof(w->server_text), "%s", text);
    if (w->server_stream == s)
        w->server_stream = NULL;
}

static void echo_on_message(struct grpc_stream *s, const uint8_t *bytes, size_t n)
{
    w->server_messages++;
    if (!grpc_stream_send(s, bytes, n))
        fail_msg("the echo's queue is full");
}

static void echo_on_half_close(struct grpc_stream *s)
{
    w->half_closed++;
    grpc_stream_finish(s, GRPC_OK, NULL);
}

static const struct grpc_handlers echo = {.on_open = server_on_open,
                                          .on_message = echo_on_message,
                                          .on_half_close = echo_on_half_close,
                                          .on_closed = server_on_closed};

static void refuse_on_open(struct grpc_stream *s)
{
    server_on_open(s);
    grpc_stream_finish(s, GRPC_FAILED_PRECONDITION, NASTY);
    grpc_stream_finish(s, GRPC_OK, "the second does not count");
}

static const struct grpc_handlers refuse = {.on_open = refuse_on_open,
                                            .on_closed = server_on_closed};

static void last_words_on_message(struct grpc_stream *s, const uint8_t *bytes, size_t n)
{
    w->server_messages++;
    assert_true(grpc_stream_send(s, "bye", 3));
    grpc_stream_finish(s, GRPC_ABORTED, "enough");
    assert_false(grpc_stream_send(s, "late", 4));
}

static const struct grpc_handlers last_words = {
    .on_open = server_on_open, .on_message = last_words_on_message, .on_closed = server_on_closed};

/* Sends as the client takes, 10 KB a message. */
static void blast(struct grpc_stream *s)
{
    static const char message[10240];

    while (w->blast_left && grpc_stream_send(s, message, sizeof(message)))
        w->blast_left--;
    if (grpc_stream_queued(s) > w->queued_peak)
        w->queued_peak = grpc_stream_queued(s);
    if (!w->blast_left)
        grpc_stream_finish(s, GRPC_OK, NULL);
}

static void blast_on_open(struct grpc_stream *s)
{
    server_on_open(s);
    blast(s);
}

static const struct grpc_handlers blaster = {
    .on_open = blast_on_open, .on_drained = blast, .on_closed = server_on_closed};

static void free_server_on_message(struct grpc_stream *s, const uint8_t *bytes, size_t n)
{
    w->server = grpc_server_free(w->server);
}

static const struct grpc_handlers suicide = {
    .on_open = server_on_open, .on_message = free_server_on_message, .on_closed = server_on_closed};

/* ---- the client's side ---- */

static void call_on_message(struct grpc_stream *s, const uint8_t *bytes, size_t n)
{
    struct call *c = grpc_stream_cookie(s);

    c->messages++;
    c->bytes += n;
    for (size_t i = 0; i < n; i++)
        c->sum = c->sum * 31 + bytes[i];
    if (c->free_on_message) {
        struct grpc_client *client = steal(&c->free_on_message);
        grpc_client_free(client);
        w->client = NULL;
    }
}

static void call_on_closed(struct grpc_stream *s, enum grpc_status status, const char *text)
{
    struct call *c = grpc_stream_cookie(s);

    c->closed++;
    c->status = status;
    c->stream = NULL;
    snprintf(c->text, sizeof(c->text), "%s", text);
}

void call_send(struct call *c)
{
    char message[64];

    while (c->to_send) {
        int n = snprintf(message, sizeof(message), "message %d", c->to_send);
        if (!grpc_stream_send(c->stream, message, (size_t)n))
            return;
        c->to_send--;
    }
    if (c->half_close_after)
        grpc_stream_half_close(c->stream);
}

static void call_on_drained(struct grpc_stream *s)
{
    struct call *c = grpc_stream_cookie(s);

    c->drained++;
    call_send(c);
}

const struct grpc_handlers call_handlers = {
    .on_message = call_on_message, .on_drained = call_on_drained, .on_closed = call_on_closed};

static void client_on_ready(struct grpc_client *c, void *cookie)
{
    w->ready++;
}

static void client_on_failed(struct grpc_client *c, const struct err *e, void *cookie)
{
    w->failed++;
    assert_true(err_is(e, ERR_UNAVAILABLE) || err_is(e, ERR_TIMEOUT));
    snprintf(w->failure, sizeof(w->failure), "%s", e->text);
}

struct grpc_stream *open_call(struct call *c, const char *path, uint32_t timeout_ms)
{
    c->stream = grpc_client_call(w->client, path, &call_handlers, c, timeout_ms);
    assert_non_null(c->stream);
    return c->stream;
}

/* ---- set-up ---- */

static const char *in_dir(const char *name, char buf[160])
{
    snprintf(buf, 160, "%s/%s", w->dir, name);
    return buf;
}

static struct tls *load(const char *name)
{
    char ca[160], crt[160], key[160], file[64];
    char *warning = NULL;
    struct tls *t;

    snprintf(file, sizeof(file), "%s.crt", name);
    in_dir(file, crt);
    snprintf(file, sizeof(file), "%s.key", name);
    in_dir(file, key);
    must(tls_load(in_dir("ca.crt", ca), crt, key, &warning, &t));
    free(warning);
    return t;
}

/* A cluster's CA with certificates for the control service and one node. */
void make_certs(void)
{
    struct certs_ca ca;

    certs_ca_new(&ca, CLUSTER_A);
    certs_ca_write(&ca, w->dir, "ca");
    certs_make(&ca, w->dir, "control", "control-service", NULL, CERTS_SAN_CONTROL);
    certs_make(&ca, w->dir, "node", "node-" NODE_1, NULL, 0);
    certs_make(&ca, w->dir, "user", "user-alice", NULL, CERTS_CLIENT_AUTH);
    certs_ca_free(&ca);
}

static SSL_CTX *server_context(void)
{
    struct tls *t = load("control");
    SSL_CTX *ctx;

    must(tls_server_context(t, TLS_KIND_NODE, TLS_NO_TICKETS | TLS_ALPN_H2, &ctx));
    tls_free(t);
    return ctx;
}

SSL *client_ssl(const char *name)
{
    struct tls *t = load(name);
    SSL_CTX *ctx;
    SSL *ssl;

    must(tls_client_context(t, TLS_KIND_CONTROL_SERVICE, TLS_NO_TICKETS | TLS_ALPN_H2, &ctx));
    must(tls_client_ssl(ctx, NULL, &ssl));
    SSL_CTX_free(ctx);
    tls_free(t);
    return ssl;
}

void serve_with(enum transport transport, struct grpc_server_options o)
{
    o.base = w->base;
    if (transport == UNIX) {
        o.unix_path = w->path;
    } else {
        o.host = "127.0.0.1";
        if (transport == MTLS) {
            make_certs();
            o.ctx = server_context();
        }
    }
    must(grpc_server_new(&o, &w->server));
    SSL_CTX_free(o.ctx);
    grpc_server_add(w->server, "/t/Echo", &echo, NULL);
    grpc_server_add(w->server, "/t/Refuse", &refuse, NULL);
    grpc_server_add(w->server, "/t/LastWords", &last_words, NULL);
    grpc_server_add(w->server, "/t/Blast", &blaster, NULL);
    grpc_server_add(w->server, "/t/Suicide", &suicide, NULL);
}

struct grpc_client_options client_options(enum transport transport)
{
    struct grpc_client_options o = {
        .base = w->base, .on_ready = client_on_ready, .on_failed = client_on_failed};

    if (transport == UNIX) {
        o.unix_path = w->path;
    } else {
        o.host = "127.0.0.1";
        o.port = grpc_server_port(w->server);
    }
    if (transport == MTLS)
        o.ssl = client_ssl("node");
    return o;
}

void connect_client(enum transport transport)
{
    struct grpc_client_options o = client_options(transport);

    must(grpc_client_new(&o, &w->client));
}

void serve(enum transport transport)
{
    serve_with(transport, (struct grpc_server_options){0});
    connect_client(transport);
}

int world_setup(void **state)
{
    w = xcalloc(1, sizeof(*w));
    w->base = event_base_new();
    certs_dir_make(w->dir, sizeof(w->dir));
    snprintf(w->path, sizeof(w->path), "%s/socket", w->dir);
    return 0;
}

int world_teardown(void **state)
{
    grpc_client_free(w->client);
    grpc_server_free(w->server);
    event_base_loop(w->base, EVLOOP_NONBLOCK);
    event_base_free(w->base);
    unlink(w->path);
    certs_dir_remove(w->dir);
    free(w);
    return 0;
}
