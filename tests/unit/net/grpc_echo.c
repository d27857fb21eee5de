/* The peer of test_grpc_interop.py: our gRPC transport as a program.
 *
 *   grpc-echo certs DIR                    makes the certificates of a cluster there
 *   grpc-echo server unix PATH             serves until standard input ends; prints "ready PORT"
 *   grpc-echo server tls DIR
 *   grpc-echo client unix PATH             calls a foreign server, prints a line for each call
 *   grpc-echo client tls DIR PORT */
#include "certs.h"

#include "base/str.h"
#include "net/grpc.h"
#include "net/tls.h"

#include <event2/event.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define CLIENT_SECONDS 10
#define LARGE (3u << 20)
#define STREAM_MESSAGES 20

static struct event_base *base;

static void must(struct err *e)
{
    if (!e)
        return;
    fprintf(stderr, "%s\n", e->text);
    exit(1);
}

static struct tls *load(const char *dir, const char *name)
{
    CLEANUP_FREE char *ca = xasprintf("%s/ca.crt", dir);
    CLEANUP_FREE char *cert = xasprintf("%s/%s.crt", dir, name);
    CLEANUP_FREE char *key = xasprintf("%s/%s.key", dir, name);
    CLEANUP_FREE char *warning = NULL;
    struct tls *t;

    must(tls_load(ca, cert, key, &warning, &t));
    return t;
}

static int make_certs(const char *dir)
{
    struct certs_ca ca;

    certs_ca_new(&ca, CLUSTER_A);
    certs_ca_write(&ca, dir, "ca");
    certs_make(&ca, dir, "control", "control-service", NULL, CERTS_SAN_CONTROL);
    certs_make(&ca, dir, "node", "node-" NODE_1, NULL, 0);
    certs_ca_free(&ca);
    return 0;
}

/* ---- server ---- */

static void echo_on_message(struct grpc_stream *s, const uint8_t *bytes, size_t n)
{
    if (!grpc_stream_send(s, bytes, n))
        grpc_stream_finish(s, GRPC_RESOURCE_EXHAUSTED, "the queue is full");
}

static void echo_on_half_close(struct grpc_stream *s)
{
    grpc_stream_finish(s, GRPC_OK, NULL);
}

static const struct grpc_handlers echo = {.on_message = echo_on_message,
                                          .on_half_close = echo_on_half_close};

static void refuse_on_open(struct grpc_stream *s)
{
    grpc_stream_finish(s, GRPC_FAILED_PRECONDITION, "100% caf\xc3\xa9\nsecond line");
}

static const struct grpc_handlers refuse = {.on_open = refuse_on_open};

static void peer_on_half_close(struct grpc_stream *s)
{
    struct tls_identity id = {.name = "nobody"};

    if (grpc_stream_ssl(s))
        must(tls_peer_identity(grpc_stream_ssl(s), &id));
    if (!grpc_stream_send(s, id.name, strlen(id.name)))
        abort();
    grpc_stream_finish(s, GRPC_OK, NULL);
}

static const struct grpc_handlers peer = {.on_half_close = peer_on_half_close};
static const struct grpc_handlers silent = {0};

static void on_stdin(evutil_socket_t fd, short what, void *cookie)
{
    char c;

    if (read((int)fd, &c, 1) <= 0)
        event_base_loopbreak(base);
}

static int server(struct grpc_server_options *o)
{
    struct grpc_server *s;

    o->base = base;
    must(grpc_server_new(o, &s));
    grpc_server_add(s, "/t.Test/Echo", &echo, NULL);
    grpc_server_add(s, "/t.Test/Refuse", &refuse, NULL);
    grpc_server_add(s, "/t.Test/Peer", &peer, NULL);
    grpc_server_add(s, "/t.Test/Silent", &silent, NULL);
    struct event *input = event_new(base, 0, EV_READ | EV_PERSIST, on_stdin, NULL);
    event_add(input, NULL);
    printf("ready %u\n", grpc_server_port(s));
    fflush(stdout);
    event_base_dispatch(base);
    event_free(input);
    grpc_server_free(s);
    return 0;
}

/* ---- client ---- */

struct call {
    const char *name;
    size_t messages;
    size_t bytes;
};

static size_t open_calls;

static void call_on_message(struct grpc_stream *s, const uint8_t *bytes, size_t n)
{
    struct call *c = grpc_stream_cookie(s);

    c->messages++;
    c->bytes += n;
}

static void call_on_closed(struct grpc_stream *s, enum grpc_status status, const char *text)
{
    struct call *c = grpc_stream_cookie(s);

    printf("%s %s %zu %zu %s\n", c->name, grpc_status_name(status), c->messages, c->bytes, text);
    if (!--open_calls)
        event_base_loopbreak(base);
}

static const struct grpc_handlers calls = {.on_message = call_on_message,
                                           .on_closed = call_on_closed};

static void on_failed(struct grpc_client *c, const struct err *e, void *cookie)
{
    printf("connection %s\n", e->text);
    event_base_loopbreak(base);
}

static void start(struct grpc_client *c, struct call *call, const char *path, const void *message,
                  size_t n, size_t count, uint32_t timeout_ms)
{
    struct grpc_stream *s = grpc_client_call(c, path, &calls, call, timeout_ms);

    if (!s)
        return;
    open_calls++;
    for (size_t i = 0; i < count; i++) {
        if (!grpc_stream_send(s, message, n))
            abort();
    }
    grpc_stream_half_close(s);
}

static int client(struct grpc_client_options *o)
{
    struct call list[] = {{"unary", 0, 0},   {"large", 0, 0},   {"stream", 0, 0},
                          {"unknown", 0, 0}, {"refused", 0, 0}, {"late", 0, 0}};
    CLEANUP_FREE char *large = xcalloc(1, LARGE);
    struct timeval limit = {CLIENT_SECONDS, 0};
    struct grpc_client *c;

    o->base = base;
    o->on_failed = on_failed;
    must(grpc_client_new(o, &c));
    start(c, &list[0], "/t.Test/Echo", "hello", 5, 1, 5000);
    start(c, &list[1], "/t.Test/Echo", large, LARGE, 1, 0);
    start(c, &list[2], "/t.Test/Stream", "0123456789", 10, STREAM_MESSAGES, 0);
    start(c, &list[3], "/t.Test/Nothing", "x", 1, 1, 0);
    start(c, &list[4], "/t.Test/Refuse", "x", 1, 1, 0);
    start(c, &list[5], "/t.Test/Silent", "x", 1, 1, 200);
    event_base_loopexit(base, &limit);
    event_base_dispatch(base);
    fflush(stdout);
    grpc_client_free(c);
    return open_calls ? 1 : 0;
}

static SSL_CTX *server_context(const char *dir)
{
    struct tls *t = load(dir, "control");
    SSL_CTX *ctx;

    must(tls_server_context(t, TLS_KIND_NODE, TLS_NO_TICKETS | TLS_ALPN_H2, &ctx));
    tls_free(t);
    return ctx;
}

static SSL *client_ssl(const char *dir)
{
    struct tls *t = load(dir, "node");
    SSL_CTX *ctx;
    SSL *ssl;

    must(tls_client_context(t, TLS_KIND_CONTROL_SERVICE, TLS_NO_TICKETS | TLS_ALPN_H2, &ctx));
    must(tls_client_ssl(ctx, NULL, &ssl));
    SSL_CTX_free(ctx);
    tls_free(t);
    return ssl;
}

static int run(int argc, char **argv)
{
    struct grpc_server_options so = {0};
    struct grpc_client_options co = {0};

    if (argc == 3 && streq(argv[1], "certs"))
        return make_certs(argv[2]);
    if (argc == 4 && streq(argv[1], "server") && streq(argv[2], "unix")) {
        so.unix_path = argv[3];
        return server(&so);
    }
    if (argc == 4 && streq(argv[1], "server") && streq(argv[2], "tls")) {
        so.host = "127.0.0.1";
        so.ctx = server_context(argv[3]);
        int rc = server(&so);
        SSL_CTX_free(so.ctx);
        return rc;
    }
    if (argc == 4 && streq(argv[1], "client") && streq(argv[2], "unix")) {
        co.unix_path = argv[3];
        return client(&co);
    }
    if (argc == 5 && streq(argv[1], "client") && streq(argv[2], "tls")) {
        co.host = "127.0.0.1";
        co.port = (uint16_t)strtoul(argv[4], NULL, 10);
        co.ssl = client_ssl(argv[3]);
        return client(&co);
    }
    fprintf(stderr, "usage: see the top of grpc_echo.c\n");
    return 2;
}

int main(int argc, char **argv)
{
    signal(SIGPIPE, SIG_IGN);
    base = event_base_new();
    int rc = run(argc, argv);
    (void)event_base_loop(base, EVLOOP_NONBLOCK); /* closed connections end in a turn of the loop */
    event_base_free(base);
    return rc;
}
