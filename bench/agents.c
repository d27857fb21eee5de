/* Many agents in one process: each has a certificate, a connection and a session of its own, and says at once that what it
 * is told to do is done. Answers the commands on standard input:
 *
 *   count    one JSON object: sessions; orders and messages (but pongs) since the last count, and how many agents
 *            got any; entries of the catalogue, how many agents have all of it, and bytes of both
 *   quit
 *
 * and with --volumes, of agent N (from 0), each answered by one JSON object when the control service has answered:
 *
 *   create N NAME
 *   remove N NAME
 *   use N NAME MOUNT
 *   unuse N NAME MOUNT */
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "cli/ca_x509.h"
#include "measure.h"
#include "net/grpc.h"
#include "net/loop.h"
#include "net/tls.h"
#include "proto/codec.h"

#include <fcntl.h>
#include <jansson.h>
#include <openssl/pem.h>
#include <sys/resource.h>
#include <unistd.h>

#define CONNECTING_MAX 64 /* handshakes at once */
#define PING_PERIOD 60    /* seconds; as agents do */

struct options {
    const char *certificates, *trace;
    long port, agents;
    bool volumes;
};

struct agents;

struct agent {
    struct agents *all;
    struct uuid node;
    struct grpc_client *client;
    struct grpc_stream *stream;
    bool up, woken;
};

struct agents {
    const struct options *o;
    struct loop *loop;
    struct ca_authority authority;
    SSL_CTX *ctx;
    struct agent *list;
    long begun, connecting, up, ready;
    uint64_t orders, messages, lost, volumes, volume_bytes, whole;
    uint64_t calls;
    struct uuid era;
    FILE *trace;
    struct watch *input;
    char rest[256]; /* of a line that has not ended yet */
    size_t n_rest;
    struct timer ping;
    long pinged;
    struct err *err;
};

static void give_up(struct agents *all, struct err *e)
{
    if (all->err)
        err_free(e);
    else
        all->err = e;
    loop_stop(all->loop);
}

/* ---- certificates ---- */

static struct err *bad_pem(void)
{
    return err_new(ERR_INTERNAL, "a certificate just made cannot be read");
}

/* Certificate and key of a node, for one connection. */
static struct err *certify(const struct agents *all, const struct uuid *node, SSL *ssl)
{
    CLEANUP_FREE char *name = xasprintf("node-%s", UUID_STR(node));
    struct ca_request request = {.kind = CA_NODE, .common_name = name, .key_type = CA_KEY_EC, .days = 1};
    CLEANUP(ca_pair_done) struct ca_pair pair = {0};

    TRY(ca_issue(&all->authority, &request, &pair));
    BIO *certificate_text = BIO_new_mem_buf(pair.certificate, -1), *key_text = BIO_new_mem_buf(pair.key, -1);
    X509 *certificate = PEM_read_bio_X509(certificate_text, NULL, NULL, NULL);
    EVP_PKEY *key = PEM_read_bio_PrivateKey(key_text, NULL, NULL, NULL);
    bool ok = certificate && key && SSL_use_certificate(ssl, certificate) == 1 && SSL_use_PrivateKey(ssl, key) == 1;

    EVP_PKEY_free(key);
    X509_free(certificate);
    BIO_free(key_text);
    BIO_free(certificate_text);
    return ok ? NULL : bad_pem();
}

static struct err *read_text(const char *dir, const char *name, char **ret)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", dir, name);
    FILE *f = fopen(path, "re");
    char buffer[8192];

    if (!f)
        return err_new(ERR_NOT_FOUND, "cannot open %s", path);
    size_t n = fread(buffer, 1, sizeof(buffer), f);
    (void)fclose(f);
    *ret = xstrndup(buffer, n);
    return NULL;
}

static struct err *load_authority(struct agents *all)
{
    CLEANUP_FREE char *certificate = NULL;
    CLEANUP_FREE char *key = NULL;

    TRY(read_text(all->o->certificates, "cluster.crt", &certificate));
    TRY(read_text(all->o->certificates, "cluster.key", &key));
    TRY(ca_authority_load(certificate, key, 0, &all->authority));
    /* The certificate that the context comes with is replaced on each connection. */
    return measure_client(all->o->certificates, "user", TLS_NO_TICKETS | TLS_ALPN_H2, &all->ctx);
}

/* ---- one session ---- */

static void send_message(struct agent *a, const struct agent_message *m)
{
    CLEANUP_STR struct str bytes = {0};

    codec_agent_encode(m, &bytes);
    if (!grpc_stream_send(a->stream, bytes.data, bytes.len))
        give_up(a->all, err_new(ERR_UNAVAILABLE, "a session takes no more reports"));
}

static void send_hello(struct agent *a)
{
    char text[] = FLOCKER_VERSION, host[] = LOOPBACK, backend[] = "bench";
    struct agent_message m = {.kind = AGENT_MESSAGE_HELLO,
                              .hello = {.protocol = AGENT_PROTOCOL_VERSION,
                                        .node = a->node,
                                        .era = a->all->era,
                                        .version = text,
                                        .host = host,
                                        .mover_port = 4525,
                                        .volumes = a->all->o->volumes,
                                        .storage = STORAGE_LOCAL,
                                        .backend = backend}};

    send_message(a, &m);
}

/* All is done as soon as it is ordered. */
static void take_order(struct agent *a, const struct order *o)
{
    struct agent_message m = {.kind = AGENT_MESSAGE_REPORT,
                              .report = {.volume = {.dataset = o->dataset}}};
    struct volume_state *v = &m.report.volume;

    a->all->orders++;
    if (a->all->trace)
        fprintf(a->all->trace, "%s %llu %s\n", UUID_STR(&o->dataset), (unsigned long long)measure_now_ns(),
                UUID_STR(&a->node));
    switch (o->role) {
    case ROLE_OWNER:
        v->present = v->attached = true;
        v->mounted = o->born;
        v->size = o->maximum_size;
        v->mark = (struct volume_mark){.state = MARK_OWNED, .epoch = o->epoch};
        break;
    case ROLE_DROP:
    case ROLE_DESTROY:
        m.report.gone = o->number;
        break;
    default:
        return;
    }
    send_message(a, &m);
}

static void take_container(struct agent *a, const struct container_order *o)
{
    struct agent_message m = {.kind = AGENT_MESSAGE_CONTAINER_REPORT,
                              .container = {.name = o->config->name,
                                            .run = o->action == CONTAINER_RUN ? CONTAINER_RUNNING : CONTAINER_ABSENT,
                                            .image_ready = true,
                                            .created = o->config->created}};

    send_message(a, &m);
}

static void print_answer(const struct agent *a, const struct volume_answer *answer)
{
    json_t *o = json_pack("{s:I, s:s, s:s, s:s}", "agent", (json_int_t)(a - a->all->list), "code", volume_code_name(answer->code),
                          "dataset", UUID_STR(&answer->dataset), "text", answer->text ? answer->text : "");
    CLEANUP_FREE char *text = json_dumps(o, JSON_COMPACT);

    json_decref(o);
    puts(text);
    (void)fflush(stdout);
}

static void call(struct agents *all, enum volume_call_kind kind, long agent, char *name, char *mount)
{
    struct agent_message m = {.kind = AGENT_MESSAGE_VOLUME_CALL,
                              .call = {.number = ++all->calls, .kind = kind, .name = name, .mount = mount}};

    if (agent >= 0 && agent < all->begun && all->list[agent].stream)
        send_message(&all->list[agent], &m);
}

static void take_message(struct agent *a, const struct control_message *m)
{
    struct agent_message complete = {.kind = AGENT_MESSAGE_REPORTS_COMPLETE};

    switch (m->kind) {
    case CONTROL_MESSAGE_WELCOME:
        if (a->all->o->volumes && m->welcome.volumes)
            send_message(a, &(struct agent_message){.kind = AGENT_MESSAGE_VOLUME_USES_COMPLETE});
        send_message(a, &complete);
        break;
    case CONTROL_MESSAGE_VOLUME_ANSWER:
        print_answer(a, &m->answer);
        break;
    case CONTROL_MESSAGE_VOLUME:
    case CONTROL_MESSAGE_VOLUME_NONE:
        a->all->volumes++;
        break;
    case CONTROL_MESSAGE_VOLUMES_COMPLETE:
        a->all->whole++;
        break;
    case CONTROL_MESSAGE_ORDER:
        take_order(a, &m->order);
        break;
    case CONTROL_MESSAGE_CONTAINER_ORDER:
        take_container(a, &m->container);
        break;
    case CONTROL_MESSAGE_ORDERS_COMPLETE:
        a->all->ready++;
        break;
    case CONTROL_MESSAGE_REFUSED:
        give_up(a->all, err_new(ERR_DENIED, "a session is refused: %s", m->text));
        break;
    case CONTROL_MESSAGE_PING:
        send_message(a, &(struct agent_message){.kind = AGENT_MESSAGE_PONG, .counter = m->counter});
        break;
    default:
        break;
    }
}

static void on_message(struct grpc_stream *stream, const uint8_t *bytes, size_t n)
{
    struct agent *a = grpc_stream_cookie(stream);
    CLEANUP_CONTROL_MESSAGE struct control_message m = {.kind = CONTROL_MESSAGE_PING};
    struct err *e = codec_control_decode(bytes, n, &m);

    if (e || m.kind != CONTROL_MESSAGE_PONG) {
        a->woken = true;
        a->all->messages++;
    }
    if (e) {
        m = (struct control_message){.kind = CONTROL_MESSAGE_PING};
        give_up(a->all, e);
        return;
    }
    if (!e && (m.kind == CONTROL_MESSAGE_VOLUME || m.kind == CONTROL_MESSAGE_VOLUME_NONE))
        a->all->volume_bytes += n;
    take_message(a, &m);
}

static void on_closed(struct grpc_stream *stream, enum grpc_status status, const char *text)
{
    struct agent *a = grpc_stream_cookie(stream);

    a->stream = NULL;
    a->all->lost++;
    log_warning("a session ended: %s %s", grpc_status_name(status), text);
}

static const struct grpc_handlers handlers = {.on_message = on_message, .on_closed = on_closed};

/* ---- all of them ---- */

static void connect_more(struct agents *all);

static void on_ready(struct grpc_client *client, void *cookie)
{
    struct agent *a = cookie;

    a->up = true;
    a->all->up++;
    a->all->connecting--;
    a->stream = grpc_client_call(client, AGENT_SESSION_PATH, &handlers, a, 0);
    if (!a->stream) {
        give_up(a->all, err_new(ERR_UNAVAILABLE, "a connection takes no session"));
        return;
    }
    send_hello(a);
    connect_more(a->all);
}

static void on_failed(struct grpc_client *client, const struct err *e, void *cookie)
{
    struct agent *a = cookie;

    if (a->up)
        a->all->up--;
    else
        give_up(a->all, err_new(ERR_UNAVAILABLE, "an agent cannot connect: %s", e->text));
}

static struct err *connect_one(struct agent *a)
{
    struct grpc_client_options o = {.base = loop_base(a->all->loop),
                                    .host = LOOPBACK,
                                    .port = (uint16_t)a->all->o->port,
                                    .connect_ms = 60000,
                                    .on_ready = on_ready,
                                    .on_failed = on_failed,
                                    .cookie = a};

    TRY(tls_client_ssl(a->all->ctx, NULL, &o.ssl));
    struct err *e = certify(a->all, &a->node, o.ssl);
    if (e) {
        SSL_free(o.ssl);
        return e;
    }
    return grpc_client_new(&o, &a->client);
}

static void connect_more(struct agents *all)
{
    while (all->begun < all->o->agents && all->connecting < CONNECTING_MAX) {
        struct agent *a = &all->list[all->begun];
        a->all = all;
        a->node = measure_node((uint64_t)all->begun++);
        all->connecting++;
        struct err *e = connect_one(a);
        if (e) {
            give_up(all, e);
            return;
        }
    }
}

/* Each second those that are due. */
static void ping_some(void *cookie)
{
    struct agents *all = cookie;
    struct agent_message m = {.kind = AGENT_MESSAGE_PING, .counter = 1};

    timer_set(&all->ping, now_os().mono_us + USEC_PER_SEC);
    for (long n = all->o->agents / PING_PERIOD + 1; n > 0; n--) {
        struct agent *a = &all->list[all->pinged++ % all->o->agents];
        if (a->stream)
            send_message(a, &m);
    }
}

static void print_count(struct agents *all)
{
    long woken = 0;

    for (long i = 0; i < all->begun; i++) {
        woken += all->list[i].woken;
        all->list[i].woken = false;
    }
    if (all->trace)
        (void)fflush(all->trace);
    printf("{\"up\":%ld,\"ready\":%ld,\"lost\":%llu,\"orders\":%llu,\"messages\":%llu,\"woken\":%ld,\"volumes\":%llu,"
           "\"volume_bytes\":%llu,\"whole\":%llu}\n",
           all->up, all->ready, (unsigned long long)all->lost, (unsigned long long)all->orders,
           (unsigned long long)all->messages, woken, (unsigned long long)all->volumes, (unsigned long long)all->volume_bytes,
           (unsigned long long)all->whole);
    (void)fflush(stdout);
    all->orders = all->messages = 0;
}

static void obey(struct agents *all, char *line)
{
    static const char *const calls[VOLUME_CALL_KIND_MAX] = {
        [VOLUME_CREATE] = "create", [VOLUME_REMOVE] = "remove", [VOLUME_USE] = "use", [VOLUME_UNUSE] = "unuse"};
    char *rest = NULL, *word = strtok_r(line, " ", &rest);

    if (!word || *word == 'q') {
        loop_stop(all->loop);
        return;
    }
    for (int kind = 0; kind < VOLUME_CALL_KIND_MAX; kind++) {
        if (!streq(word, calls[kind]))
            continue;
        char *agent = strtok_r(NULL, " ", &rest), *name = strtok_r(NULL, " ", &rest), *mount = strtok_r(NULL, " ", &rest);
        if (agent && name)
            call(all, (enum volume_call_kind)kind, strtol(agent, NULL, 10), name, mount);
        return;
    }
    print_count(all);
}

static void on_input(void *cookie, unsigned ready)
{
    struct agents *all = cookie;
    char line[65536], *end;
    ssize_t n = read(STDIN_FILENO, line + all->n_rest, sizeof(line) - all->n_rest - 1);

    if (n <= 0) {
        loop_stop(all->loop);
        return;
    }
    memcpy(line, all->rest, all->n_rest);
    line[all->n_rest + (size_t)n] = '\0';
    char *next = line;
    for (; (end = strchr(next, '\n')); next = end + 1) {
        *end = '\0';
        obey(all, next);
    }
    all->n_rest = strlen(next) < sizeof(all->rest) ? strlen(next) : 0;
    memcpy(all->rest, next, all->n_rest);
}

static struct err *start(struct agents *all)
{
    struct rlimit files = {0};
    struct random r = random_os();

    (void)getrlimit(RLIMIT_NOFILE, &files);
    if (files.rlim_cur < (rlim_t)all->o->agents + 64)
        return err_new(ERR_INVALID, "%ld agents need more than the %llu files this process may open", all->o->agents,
                       (unsigned long long)files.rlim_cur);
    all->era = uuid_random_v4(&r);
    TRY(loop_new(&all->loop));
    TRY(load_authority(all));
    all->list = xcalloc((size_t)all->o->agents, sizeof(*all->list));
    all->trace = all->o->trace ? fopen(all->o->trace, "we") : NULL;
    TRY(watch_new(all->loop, STDIN_FILENO, WATCH_READ, on_input, all, &all->input));
    timer_init(&all->ping, all->loop, ping_some, all);
    timer_set(&all->ping, 0);
    connect_more(all);
    return loop_run(all->loop);
}

static struct err *run(void *cookie, const char *operand)
{
    const struct options *o = cookie;
    static struct agents all; /* in sight of leak checkers to the end */
    all.o = o;
    struct err *e = start(&all);

    if (!e)
        e = steal(&all.err);
    else
        all.err = err_free(all.err);
    return e; /* the process ends: ten thousand connections need not be taken apart one by one */
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
        return cli_parse_number("--agents", value, 1, 1000000, &o->agents);
    case 5:
        o->volumes = true;
        return NULL;
    default:
        o->trace = value;
        return NULL;
    }
}

int main(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {1, 'p', "port", "PORT", "Of the control service for agents, on 127.0.0.1"},
        {2, 'c', "certificates-directory", "DIR", "Holds cluster.crt, cluster.key, user.crt and user.key"},
        {3, 0, "agents", "N", "How many: the first N made-up nodes (1)"},
        {5, 0, "volumes", NULL, "They make calls about volumes, and want the catalogue"},
        {4, 0, "trace", "FILE", "Write dataset, time (ns) and node of each order"},
    };
    static const struct cli_spec spec = {.program = "agents",
                                         .synopsis = "agents [options]",
                                         .options = options,
                                         .n_options = ARRAY_SIZE(options),
                                         .text = "Simulated agents with real sessions. Commands on standard input: count, quit.",
                                         .take = take};
    struct options o = {.certificates = ".", .agents = 1};

    return measure_main(&spec, &o, argc, argv, run);
}
