/* A load generator for the REST API: many connections with a client certificate, HTTP/1.1 with keep-alive, one request in
 * flight on each. One JSON object on standard output. */
#include "base/log.h"
#include "base/str.h"
#include "measure.h"
#include "net/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define HEAD_MAX 8192
#define KEPT_BODY 128 /* of an answer: holds the id of a dataset that was created */
#define PROBE_BYTES 4096
#define DATASET_MARK "{dataset}" /* in a path: the id of one of `datasets`, another each time */
#define CREATE "/v1/configuration/datasets"

enum operation { OPERATION_GET, OPERATION_CREATE, OPERATION_DURABLE };

struct options {
    enum operation operation;
    const char *certificates, *user, *path, *trace, *probe;
    uint16_t port;
    size_t connections, nodes, datasets, rounds;
    double seconds, rate; /* rate 0: as fast as the answers come */
    size_t bytes;         /* of a create's body */
    bool conditional;
};

struct connection {
    int fd;
    SSL *ssl;
    bool busy;
    uint64_t due_ns, sent_ns;
    struct uuid node; /* of the create */

    /* the answer as it comes in */
    char head[HEAD_MAX + 1];
    size_t head_n;
    bool in_body, chunked, last_chunk;
    unsigned status;
    size_t left; /* of the body, or of the chunk and its line break */
    char line[24];
    size_t line_n;
    char body[KEPT_BODY + 1];
    size_t body_n, total;
};

struct load {
    const struct options *o;
    SSL_CTX *ctx;
    struct connection *connections;
    int epoll;
    uint64_t counter, random;
    char etag[128]; /* of the last answer, when `conditional` */
    FILE *trace;
    struct latencies latencies;
    size_t errors, not_modified, bytes;
};

/* ---- requests ---- */

static uint64_t next_random(struct load *l, uint64_t limit)
{
    l->random = l->random * 6364136223846793005 + 1442695040888963407;
    return (l->random >> 33) % limit;
}

/* A create whose body has exactly the wanted size, if that is enough for what must be there. */
static void write_create(struct load *l, struct uuid node, struct str *out)
{
    CLEANUP_STR struct str body = {0};

    str_appendf(&body, "{\"primary\": \"%s\", \"maximum_size\": 1073741824, \"metadata\": {\"name\": \"d-%llu\"",
                UUID_STR(&node), (unsigned long long)l->counter);
    if (body.len + strlen(", \"fill\": \"\"}}") <= l->o->bytes) {
        str_append(&body, ", \"fill\": \"");
        while (body.len + strlen("\"}}") < l->o->bytes)
            str_append(&body, "x");
        str_append(&body, "\"");
    }
    str_append(&body, "}}");
    str_appendf(out, "POST " CREATE " HTTP/1.1\r\nHost: control-service\r\nContent-Type: application/json\r\n"
                     "Content-Length: %zu\r\n\r\n%s", body.len, body.data);
}

static void write_get(struct load *l, const char *path, struct str *out)
{
    const char *mark = strstr(path, DATASET_MARK);

    if (mark) {
        struct uuid id = measure_dataset(next_random(l, l->o->datasets));
        str_appendf(out, "GET %.*s%s%s HTTP/1.1\r\nHost: control-service\r\n", (int)(mark - path), path,
                    UUID_STR(&id), mark + strlen(DATASET_MARK));
    } else {
        str_appendf(out, "GET %s HTTP/1.1\r\nHost: control-service\r\n", path);
    }
    if (l->o->conditional && *l->etag)
        str_appendf(out, "If-None-Match: %s\r\n", l->etag);
    str_append(out, "\r\n");
}

/* Requests are small: the socket's buffer takes them whole. */
static struct err *send_text(struct connection *c, const struct str *text)
{
    c->busy = true;
    c->head_n = c->line_n = c->body_n = c->total = c->left = 0;
    c->in_body = c->chunked = c->last_chunk = false;
    c->sent_ns = measure_now_ns();
    if (SSL_write(c->ssl, text->data, (int)text->len) == (int)text->len)
        return NULL;
    CLEANUP_FREE char *why = tls_failure_text(c->ssl, 0);
    return err_new(ERR_IO, "cannot send a request: %s", why);
}

static struct err *send_next(struct load *l, struct connection *c, uint64_t due_ns)
{
    CLEANUP_STR struct str text = {0};

    l->counter++;
    c->due_ns = due_ns;
    if (l->o->operation == OPERATION_GET)
        write_get(l, l->o->path, &text);
    else
        write_create(l, c->node = measure_node(next_random(l, l->o->nodes)), &text);
    return send_text(c, &text);
}

/* ---- answers ---- */

static struct err *bad_answer(const struct connection *c)
{
    return err_new(ERR_CORRUPT, "an answer is not HTTP/1.1 as expected: %.60s", c->head);
}

static struct err *take_head(struct connection *c)
{
    const char *length = strcasestr(c->head, "\r\nContent-Length:");

    if (sscanf(c->head, "HTTP/1.1 %3u", &c->status) != 1)
        return bad_answer(c);
    c->in_body = true;
    c->chunked = strcasestr(c->head, "\r\nTransfer-Encoding: chunked") != NULL;
    if (length)
        c->left = strtoul(length + strlen("\r\nContent-Length:"), NULL, 10);
    else if (!c->chunked && c->status != 304 && c->status != 204)
        return bad_answer(c);
    return NULL;
}

static void keep_body(struct connection *c, const char *p, size_t n)
{
    size_t room = KEPT_BODY - c->body_n;

    memcpy(c->body + c->body_n, p, n < room ? n : room);
    c->body_n += n < room ? n : room;
    c->body[c->body_n] = '\0';
    c->total += n;
}

/* One step through bytes that are there; how many it took. *ret_end: the answer is whole. */
static size_t take_some(struct connection *c, const char *p, size_t n, bool *ret_end, struct err **ret_e)
{
    if (!c->in_body) {
        size_t take = 0;
        while (take < n && c->head_n < HEAD_MAX) {
            c->head[c->head_n++] = p[take++];
            c->head[c->head_n] = '\0';
            if (p[take - 1] == '\n' && c->head_n >= 4 && memcmp(c->head + c->head_n - 4, "\r\n\r\n", 4) == 0) {
                *ret_e = take_head(c);
                *ret_end = !c->chunked && !c->left;
                return take;
            }
        }
        if (c->head_n == HEAD_MAX)
            *ret_e = bad_answer(c);
        return take;
    }
    if (c->left) {
        size_t take = n < c->left ? n : c->left;
        keep_body(c, p, take);
        c->left -= take;
        *ret_end = !c->chunked && !c->left;
        return take;
    }
    /* Line by line: the end of the last chunk's line, the size of the next one, or, after the last, the end. */
    if (*p != '\n') {
        if (*p != '\r' && c->line_n < sizeof(c->line) - 1)
            c->line[c->line_n++] = *p;
        return 1;
    }
    c->line[c->line_n] = '\0';
    *ret_end = c->last_chunk && !c->line_n;
    if (c->line_n && !c->last_chunk) {
        c->left = strtoul(c->line, NULL, 16);
        c->last_chunk = !c->left;
    }
    c->line_n = 0;
    return 1;
}

/* Reads what there is. *ret_end: the answer is whole (nothing may follow: one request is in flight). */
static struct err *receive(struct connection *c, bool *ret_end)
{
    char buffer[16384];
    struct err *e = NULL;
    int n;

    *ret_end = false;
    while (!*ret_end && (n = SSL_read(c->ssl, buffer, sizeof(buffer))) > 0) {
        for (size_t used = 0; used < (size_t)n && !*ret_end;) {
            used += take_some(c, buffer + used, (size_t)n - used, ret_end, &e);
            if (e)
                return e;
        }
    }
    if (*ret_end || SSL_get_error(c->ssl, n) == SSL_ERROR_WANT_READ)
        return NULL;
    CLEANUP_FREE char *why = tls_failure_text(c->ssl, 0);
    return err_new(ERR_IO, "a connection ended in the middle of an answer: %s", why);
}

static void note_trace(struct load *l, const struct connection *c, uint64_t now)
{
    const char *id = strstr(c->body, "\"dataset_id\"");

    id = id ? strchr(id + strlen("\"dataset_id\""), '"') : NULL;
    if (l->trace && id)
        fprintf(l->trace, "%.36s %llu %s\n", id + 1, (unsigned long long)now, UUID_STR(&c->node));
}

static void take_answer(struct load *l, struct connection *c)
{
    uint64_t now = measure_now_ns();
    const char *etag = strcasestr(c->head, "\r\nETag: ");

    c->busy = false;
    l->bytes += c->total;
    l->not_modified += c->status == 304;
    if (c->status >= 400) {
        if (!l->errors++)
            log_warning("answer %u: %.120s", c->status, c->body);
        return;
    }
    latencies_add(&l->latencies, now - c->due_ns);
    note_trace(l, c, now);
    if (l->o->conditional && etag && c->status == 200)
        (void)snprintf(l->etag, sizeof(l->etag), "%.*s", (int)strcspn(etag + 8, "\r"), etag + 8);
}

/* ---- connections ---- */

static struct err *open_connection(struct load *l, struct connection *c)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(l->o->port)};
    int on = 1;

    (void)inet_pton(AF_INET, LOOPBACK, &a.sin_addr);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&a, sizeof(a)) < 0)
        return err_errno(errno, "cannot connect to port %u", l->o->port);
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    TRY(tls_client_ssl(l->ctx, NULL, &c->ssl));
    if (SSL_set_fd(c->ssl, c->fd) != 1 || SSL_connect(c->ssl) != 1) {
        CLEANUP_FREE char *why = tls_failure_text(c->ssl, 0);
        return err_new(ERR_UNAVAILABLE, "cannot set up TLS with port %u: %s", l->o->port, why);
    }
    return NULL;
}

static struct err *watch(struct load *l, struct connection *c)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};

    if (fcntl(c->fd, F_SETFL, O_NONBLOCK) < 0 || epoll_ctl(l->epoll, EPOLL_CTL_ADD, c->fd, &event) < 0)
        return err_errno(errno, "cannot watch a connection");
    return NULL;
}

static void close_connections(struct load *l)
{
    for (size_t i = 0; i < l->o->connections; i++) {
        SSL_free(l->connections[i].ssl);
        if (l->connections[i].fd > 0)
            close(l->connections[i].fd);
    }
    free(l->connections);
}

/* ---- closed and open loop ---- */

static struct connection *idle_connection(struct load *l)
{
    for (size_t i = 0; i < l->o->connections; i++) {
        if (!l->connections[i].busy)
            return &l->connections[i];
    }
    return NULL;
}

/* At a rate: what is due goes out on idle connections. A request that had to wait for one counts from when it was due. */
static struct err *send_due(struct load *l, uint64_t begun, uint64_t end, uint64_t *done)
{
    uint64_t now = measure_now_ns();

    for (;;) {
        uint64_t due = begun + (uint64_t)((double)*done * NSEC_PER_SEC / l->o->rate);
        struct connection *c = due <= now && due < end ? idle_connection(l) : NULL;
        if (!c)
            return NULL;
        ++*done;
        TRY(send_next(l, c, due));
    }
}

/* Milliseconds to wait for answers. */
static int patience(const struct load *l, uint64_t begun, uint64_t done)
{
    uint64_t due = begun + (uint64_t)((double)done * NSEC_PER_SEC / l->o->rate);
    uint64_t now = measure_now_ns();

    if (l->o->rate <= 0)
        return 1000;
    return due > now ? (int)((due - now) / 1000000) : 0;
}

static size_t busy_connections(const struct load *l)
{
    size_t n = 0;

    for (size_t i = 0; i < l->o->connections; i++)
        n += l->connections[i].busy;
    return n;
}

static struct err *take_ready(struct load *l, const struct epoll_event *events, int n, uint64_t end)
{
    for (int i = 0; i < n; i++) {
        struct connection *c = events[i].data.ptr;
        bool whole;
        TRY(receive(c, &whole));
        if (!whole)
            continue;
        take_answer(l, c);
        if (l->o->rate <= 0 && measure_now_ns() < end)
            TRY(send_next(l, c, measure_now_ns()));
    }
    return NULL;
}

static struct err *run_load(struct load *l)
{
    struct epoll_event events[256];
    uint64_t begun = measure_now_ns(), done = 0;
    uint64_t end = begun + (uint64_t)(l->o->seconds * NSEC_PER_SEC);

    for (size_t i = 0; i < l->o->connections && l->o->rate <= 0; i++)
        TRY(send_next(l, &l->connections[i], measure_now_ns()));
    for (;;) {
        if (l->o->rate > 0)
            TRY(send_due(l, begun, end, &done));
        bool over = measure_now_ns() >= end;
        if (over && !busy_connections(l))
            break;
        int n = epoll_wait(l->epoll, events, ARRAY_SIZE(events), over ? 1000 : patience(l, begun, done));
        if (n < 0 && errno != EINTR)
            return err_errno(errno, "cannot wait for answers");
        TRY(take_ready(l, events, n, end));
    }
    double seconds = (double)(measure_now_ns() - begun) / NSEC_PER_SEC;
    printf("{\"n\":%zu,\"errors\":%zu,\"not_modified\":%zu,\"seconds\":%.3f,\"per_s\":%.1f,\"bytes\":%zu,", l->latencies.n,
           l->errors, l->not_modified, seconds, (double)l->latencies.n / seconds, l->bytes);
    latencies_print(&l->latencies, "", stdout);
    printf("}\n");
    return NULL;
}

/* ---- one create, one GET, one append in turn ---- */

static struct err *exchange(struct load *l, struct connection *c, const struct str *text, struct latencies *to)
{
    bool whole = false;
    uint64_t begun = measure_now_ns();

    TRY(send_text(c, text));
    while (!whole)
        TRY(receive(c, &whole));
    latencies_add(to, measure_now_ns() - begun);
    return c->status < 400 ? NULL : err_new(ERR_INTERNAL, "answer %u: %.120s", c->status, c->body);
}

static struct err *append_probe(int fd, struct latencies *to)
{
    static const char page[PROBE_BYTES] = "flocker";
    uint64_t begun = measure_now_ns();

    if (write(fd, page, sizeof(page)) != sizeof(page) || fdatasync(fd) < 0)
        return err_errno(errno, "cannot append to the probe's file");
    latencies_add(to, measure_now_ns() - begun);
    return NULL;
}

static struct err *run_round(struct load *l, int probe, struct latencies *create, struct latencies *get,
                             struct latencies *append)
{
    CLEANUP_STR struct str post = {0}, read = {0};
    struct connection *c = &l->connections[0];

    l->counter++;
    write_create(l, measure_node(0), &post);
    TRY(exchange(l, c, &post, create));
    const char *id = strstr(c->body, "\"dataset_id\"");
    id = id ? strchr(id + strlen("\"dataset_id\""), '"') : NULL;
    if (!id)
        return bad_answer(c);
    /* As large as the create, on its way there too. */
    str_appendf(&read, "GET /v1/state/datasets/%.36s HTTP/1.1\r\nHost: control-service\r\nX-Fill: ", id + 1);
    while (read.len + 4 < post.len)
        str_append(&read, "x");
    str_append(&read, "\r\n\r\n");
    TRY(exchange(l, c, &read, get));
    return append_probe(probe, append);
}

static struct err *run_durable(struct load *l)
{
    CLEANUP_CLOSE int probe = open(l->o->probe, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
    struct latencies create = {0}, get = {0}, append = {0};
    struct err *e = NULL;

    if (probe < 0)
        return err_errno(errno, "cannot make %s", l->o->probe);
    for (size_t i = 0; i < l->o->rounds && !e; i++)
        e = run_round(l, probe, &create, &get, &append);
    (void)unlink(l->o->probe);
    if (!e) {
        printf("{\"n\":%zu,", create.n);
        latencies_print(&create, "create", stdout);
        printf(",");
        latencies_print(&get, "get", stdout);
        printf(",");
        latencies_print(&append, "append", stdout);
        printf("}\n");
    }
    latencies_done(&create);
    latencies_done(&get);
    latencies_done(&append);
    return e;
}

/* ---- the program ---- */

static struct err *take_operation(struct options *o, const char *what)
{
    static const char *const names[] = {"get", "create", "durable"}; /* as in enum operation */

    for (size_t i = 0; what && i < ARRAY_SIZE(names); i++) {
        o->operation = (enum operation)i;
        if (streq(what, names[i]))
            return NULL;
    }
    return err_new(ERR_INVALID, "say what: get, create or durable");
}

static struct err *run(void *cookie, const char *operand)
{
    struct options *o = cookie;
    struct load l = {.o = o, .random = measure_now_ns()};

    TRY(take_operation(o, operand));
    struct err *e = measure_client(o->certificates, o->user, TLS_ALPN_HTTP1, &l.ctx);

    if (e)
        return e;
    l.connections = xcalloc(o->connections, sizeof(*l.connections));
    l.epoll = epoll_create1(EPOLL_CLOEXEC);
    l.trace = o->trace ? fopen(o->trace, "we") : NULL;
    for (size_t i = 0; i < o->connections && !e; i++) {
        e = open_connection(&l, &l.connections[i]);
        if (!e && o->operation != OPERATION_DURABLE)
            e = watch(&l, &l.connections[i]);
    }
    if (!e)
        e = o->operation == OPERATION_DURABLE ? run_durable(&l) : run_load(&l);
    if (l.trace)
        (void)fclose(l.trace);
    close_connections(&l);
    close(l.epoll);
    latencies_done(&l.latencies);
    SSL_CTX_free(l.ctx);
    return e;
}

static struct err *take_decimal(const char *what, const char *text, double *ret)
{
    char *end;
    double v = strtod(text, &end);

    if (*end || end == text || !(v > 0))
        return err_new(ERR_INVALID, "%s must be a number above 0, not '%s'", what, text);
    *ret = v;
    return NULL;
}

static struct err *take_count(const char *what, const char *text, long max, size_t *ret)
{
    long n;

    TRY(cli_parse_number(what, text, 1, max, &n));
    *ret = (size_t)n;
    return NULL;
}

static struct err *take(void *cookie, int id, const char *value)
{
    struct options *o = cookie;
    size_t port = 0;

    switch (id) {
    case 1:
        TRY(take_count("--port", value, UINT16_MAX, &port));
        o->port = (uint16_t)port;
        return NULL;
    case 2:
        o->certificates = value;
        return NULL;
    case 3:
        o->user = value;
        return NULL;
    case 4:
        return take_count("--connections", value, 10000, &o->connections);
    case 5:
        return take_decimal("--seconds", value, &o->seconds);
    case 6:
        return take_decimal("--rate", value, &o->rate);
    case 7:
        o->path = value;
        return NULL;
    case 8:
        o->conditional = true;
        return NULL;
    case 9:
        return take_count("--nodes", value, 1000000, &o->nodes);
    case 10:
        return take_count("--datasets", value, 100000000, &o->datasets);
    case 11:
        return take_count("--bytes", value, 2000, &o->bytes);
    case 12:
        o->trace = value;
        return NULL;
    case 13:
        o->probe = value;
        return NULL;
    default:
        return take_count("--rounds", value, 1000000, &o->rounds);
    }
}

int main(int argc, char **argv)
{
    static const struct cli_option options[] = {
        {1, 'p', "port", "PORT", "Of the REST API, on 127.0.0.1"},
        {2, 'c', "certificates-directory", "DIR", "Holds cluster.crt, USER.crt and USER.key"},
        {3, 'u', "user", "USER", "Name of the files of the certificate (user)"},
        {4, 0, "connections", "N", "At once (1)"},
        {5, 0, "seconds", "S", "How long (3)"},
        {6, 0, "rate", "R", "Requests a second whatever the answers take, instead of one after the other"},
        {7, 0, "path", "PATH", "What to get; " DATASET_MARK " is replaced by a made-up id"},
        {8, 0, "conditional", NULL, "Send the ETag of the last answer"},
        {9, 0, "nodes", "N", "Create datasets on the first N made-up nodes (1)"},
        {10, 0, "datasets", "N", "Get one of the first N made-up datasets (1)"},
        {11, 0, "bytes", "N", "Of the body of a create (300)"},
        {12, 0, "trace", "FILE", "Write dataset, time of the answer (ns) and node of each create"},
        {13, 0, "probe", "FILE", "For durable: append to this file, on the store's disk"},
        {14, 0, "rounds", "N", "For durable: how often (200)"},
    };
    static const struct cli_spec spec = {
        .program = "load",
        .synopsis = "load [options] get|create|durable",
        .options = options,
        .n_options = ARRAY_SIZE(options),
        .text = "Load on the REST API of a control service (or what looks like one).",
        .take = take,
    };
    struct options o = {.user = "user", .certificates = ".", .path = CREATE, .connections = 1, .nodes = 1, .datasets = 1,
                        .rounds = 200, .seconds = 3, .bytes = 300, .probe = "probe"};

    return measure_main(&spec, &o, argc, argv, run);
}
