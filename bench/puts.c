/* Load on etcd: one gRPC Put in flight on each of many TLS connections. One JSON object on standard output. */
#include "base/log.h"
#include "base/str.h"
#include "measure.h"
#include "net/grpc.h"
#include "net/loop.h"
#include "net/tls.h"

#define PUT_PATH "/etcdserverpb.KV/Put"

struct options {
    const char *certificates, *user;
    long port, connections, seconds, bytes;
};

struct puts;

struct connection {
    struct puts *all;
    struct grpc_client *client;
    uint64_t sent_ns;
    bool ready;
};

struct puts {
    const struct options *o;
    struct loop *loop;
    struct connection *connections;
    long ready, busy;
    uint64_t counter, begun_ns, end_ns;
    struct timer deadline;
    struct latencies latencies;
    struct err *err;
};

static void give_up(struct puts *p, struct err *e)
{
    if (p->err)
        err_free(e);
    else
        p->err = e;
    loop_stop(p->loop);
}

static void append_field(struct str *s, unsigned char tag, const char *bytes, size_t n)
{
    unsigned char head[] = {tag, (unsigned char)(n & 0x7f), (unsigned char)(n >> 7)};

    if (n > 0x7f)
        head[1] |= 0x80;
    str_append_bytes(s, head, n > 0x7f ? 3 : 2);
    str_append_bytes(s, bytes, n);
}

static void on_closed(struct grpc_stream *stream, enum grpc_status status, const char *text);
static const struct grpc_handlers handlers = {.on_closed = on_closed};

static void send_put(struct connection *c)
{
    struct puts *p = c->all;
    CLEANUP_STR struct str request = {0};
    CLEANUP_FREE char *value = xmalloc((size_t)p->o->bytes);
    struct uuid key = measure_dataset(p->counter++);

    memset(value, 'x', (size_t)p->o->bytes);
    append_field(&request, 0x0a, UUID_STR(&key), UUID_TEXT_SIZE - 1);
    append_field(&request, 0x12, value, (size_t)p->o->bytes);
    struct grpc_stream *s = grpc_client_call(c->client, PUT_PATH, &handlers, c, 0);
    if (!s || !grpc_stream_send(s, request.data, request.len)) {
        give_up(p, err_new(ERR_UNAVAILABLE, "cannot send a Put"));
        return;
    }
    grpc_stream_half_close(s);
    c->sent_ns = measure_now_ns();
    p->busy++;
}

static void on_closed(struct grpc_stream *stream, enum grpc_status status, const char *text)
{
    struct connection *c = grpc_stream_cookie(stream);
    struct puts *p = c->all;
    uint64_t now = measure_now_ns();

    if (p->err)
        return;
    p->busy--;
    if (status != GRPC_OK) {
        give_up(p, err_new(ERR_UNAVAILABLE, "a Put failed: %s %s", grpc_status_name(status), text));
        return;
    }
    latencies_add(&p->latencies, now - c->sent_ns);
    if (now < p->end_ns)
        send_put(c);
    else if (!p->busy)
        loop_stop(p->loop);
}

static void on_ready(struct grpc_client *client, void *cookie)
{
    struct connection *c = cookie;
    struct puts *p = c->all;

    if (++p->ready < p->o->connections)
        return;
    p->begun_ns = measure_now_ns();
    p->end_ns = p->begun_ns + (uint64_t)p->o->seconds * NSEC_PER_SEC;
    for (long i = 0; i < p->o->connections; i++)
        send_put(&p->connections[i]);
}

static void on_failed(struct grpc_client *client, const struct err *e, void *cookie)
{
    struct connection *c = cookie;

    give_up(c->all, err_new(ERR_UNAVAILABLE, "a connection failed: %s", e->text));
}

static struct err *connect_all(struct puts *p)
{
    SSL_CTX *ctx;

    TRY(measure_client(p->o->certificates, p->o->user, TLS_ALPN_H2, &ctx));
    for (long i = 0; i < p->o->connections; i++) {
        struct connection *c = &p->connections[i];
        struct grpc_client_options o = {.base = loop_base(p->loop),
                                        .host = LOOPBACK,
                                        .port = (uint16_t)p->o->port,
                                        .connect_ms = 30000,
                                        .on_ready = on_ready,
                                        .on_failed = on_failed,
                                        .cookie = c};
        c->all = p;
        TRY(tls_client_ssl(ctx, NULL, &o.ssl));
        TRY(grpc_client_new(&o, &c->client));
    }
    SSL_CTX_free(ctx);
    return NULL;
}

static struct err *run(void *cookie, const char *operand)
{
    const struct options *o = cookie;
    struct puts p = {.o = o, .counter = measure_now_ns()};

    TRY(loop_new(&p.loop));
    p.connections = xcalloc((size_t)o->connections, sizeof(*p.connections));
    TRY(connect_all(&p));
    TRY(loop_run(p.loop));
    if (p.err)
        return p.err;
    double seconds = (double)(measure_now_ns() - p.begun_ns) / NSEC_PER_SEC;
    printf("{\"n\":%zu,\"seconds\":%.3f,\"per_s\":%.1f,", p.latencies.n, seconds, (double)p.latencies.n / seconds);
    latencies_print(&p.latencies, "", stdout);
    printf("}\n");
    for (long i = 0; i < o->connections; i++)
        grpc_client_free(p.connections[i].client);
    free(p.connections);
    latencies_done(&p.latencies);
    loop_free(p.loop);
    return NULL;
}

static struct err *take(void *cookie, int id, const char *value)
{
    struct options *o = cookie;

    switch (id) {
    case 1:
        return cli_parse_number("--port", value, 1, UINT16_MAX, &o->port);
    case 2:
        o->certificates = value;
        return NULL;
    case 3:
        o->user = value;
        return NULL;
    case 4:
        return cli_parse_number("--connections", value, 1, 10000, &o->connections);
    case 5:
        return cli_parse_number("--seconds", value, 1, 3600, &o->seconds);
    default:
        return cli_parse_number("--bytes", value, 1, 16000, &o->bytes);
    }
}

int main(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {1, 'p', "port", "PORT", "Of etcd, on 127.0.0.1"},
        {2, 'c', "certificates-directory", "DIR", "Holds cluster.crt, USER.crt and USER.key"},
        {3, 'u', "user", "USER", "Name of the files of the certificate (user)"},
        {4, 0, "connections", "N", "At once (1)"},
        {5, 0, "seconds", "S", "How long (3)"},
        {6, 0, "bytes", "N", "Of a value (300)"},
    };
    static const struct cli_spec spec = {.program = "puts",
                                         .synopsis = "puts [options]",
                                         .options = options,
                                         .n_options = ARRAY_SIZE(options),
                                         .text = "Load on etcd, for comparison.",
                                         .take = take};
    struct options o = {.user = "user", .certificates = ".", .connections = 1, .seconds = 3, .bytes = 300};

    return measure_main(&spec, &o, argc, argv, run);
}
