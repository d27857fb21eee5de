#include "agent/link.h"

#include "base/backoff.h"
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "net/grpc.h"
#include "net/outbox.h"
#include "net/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <unistd.h>

/* Dead hosts are found by TCP; the ping finds an end that hangs. Each costs every end a wake-up or two. */
#define PING_US (60 * USEC_PER_SEC)
#define PONG_US (15 * USEC_PER_SEC)
#define HURRY_US USEC_PER_SEC /* between two tries while somebody waits */

struct agent_link {
    struct agent_link_config config;
    char *host;
    struct grpc_client *client;
    struct grpc_stream *stream;
    struct outbox *outbox;
    bool begun; /* the session was welcomed */
    bool looking_up, freed;
    char address[INET6_ADDRSTRLEN];
    char control_address[INET6_ADDRSTRLEN];
    char *last_failure; /* logged already */
    struct backoff backoff;
    struct timer retry, ping;
    uint64_t tried_us;       /* the last try began */
    uint64_t hurry_until_us; /* somebody waits for a session until then */
    uint64_t pinged_us; /* waiting for the pong since; 0 = not waiting */
    uint64_t counter;
};

static void look_up(void *cookie);
static void looked_up(void *cookie);

/* When the back-off has passed; once a second while somebody waits. */
static void set_retry(struct agent_link *l, uint64_t now_us)
{
    uint64_t due_us = l->backoff.next_us;

    if (now_us < l->hurry_until_us && l->tried_us + HURRY_US < due_us)
        due_us = l->tried_us + HURRY_US;
    timer_set(&l->retry, due_us);
}

static void try_again_later(struct agent_link *l, const char *why)
{
    struct random r = random_os();
    uint64_t now_us = now_os().mono_us;

    if (!str_equal_null(l->last_failure, why)) {
        log_warning("no session with the control service at %s:%u: %s; trying again", l->host,
                    l->config.port, why);
        free(l->last_failure);
        l->last_failure = xstrdup(why);
    }
    backoff_fail(&l->backoff, now_us, &r);
    set_retry(l, now_us);
}

static void session_over(struct agent_link *l)
{
    bool begun = l->begun;

    l->stream = NULL;
    l->outbox = outbox_free(l->outbox);
    l->begun = false;
    l->pinged_us = 0;
    timer_cancel(&l->ping);
    if (begun)
        l->config.down(l->config.cookie);
}

static void send_message(struct agent_link *l, const char *key, const struct agent_message *m)
{
    struct str bytes = {0};

    codec_agent_encode(m, &bytes);
    outbox_send(l->outbox, key, &bytes);
    str_done(&bytes);
}

static void on_ping_timer(void *cookie)
{
    struct agent_link *l = cookie;
    struct agent_message m = {.kind = AGENT_MESSAGE_PING, .counter = ++l->counter};

    if (l->pinged_us) {
        log_warning("the control service does not answer");
        grpc_stream_cancel(l->stream);
        return;
    }
    l->pinged_us = now_os().mono_us;
    send_message(l, NULL, &m);
    timer_set(&l->ping, l->pinged_us + PONG_US);
}

static void on_control_message(struct agent_link *l, struct control_message *m)
{
    switch (m->kind) {
    case CONTROL_MESSAGE_PING: {
        struct agent_message pong = {.kind = AGENT_MESSAGE_PONG, .counter = m->counter};
        send_message(l, NULL, &pong);
        break;
    }
    case CONTROL_MESSAGE_PONG:
        l->pinged_us = 0;
        timer_set(&l->ping, now_os().mono_us + PING_US);
        break;
    case CONTROL_MESSAGE_REFUSED:
        log_error("the control service refuses this agent: %s", m->text);
        break;
    case CONTROL_MESSAGE_WELCOME:
        log_info("session with the control service at %s:%u", l->host, l->config.port);
        l->begun = true;
        free(l->last_failure);
        l->last_failure = NULL;
        backoff_reset(&l->backoff);
        timer_set(&l->ping, now_os().mono_us + PING_US);
        l->config.message(l->config.cookie, m);
        break;
    default:
        if (l->begun)
            l->config.message(l->config.cookie, m);
        break;
    }
}

static void on_message(struct grpc_stream *stream, const uint8_t *bytes, size_t n)
{
    struct agent_link *l = grpc_stream_cookie(stream);
    struct control_message m;
    CLEANUP_ERR struct err *e = codec_control_decode(bytes, n, &m);

    if (e) {
        log_error("a message of the control service cannot be read: %s", e->text);
        grpc_stream_cancel(stream);
        return;
    }
    on_control_message(l, &m);
    control_message_done(&m);
}

static void on_drained(struct grpc_stream *stream)
{
    struct agent_link *l = grpc_stream_cookie(stream);

    outbox_drained(l->outbox);
}

static void drop_client(void *cookie)
{
    struct agent_link *l = cookie;

    l->client = grpc_client_free(l->client);
}

static void on_closed(struct grpc_stream *stream, enum grpc_status status, const char *text)
{
    struct agent_link *l = grpc_stream_cookie(stream);
    CLEANUP_FREE char *why = xasprintf("%s %s", grpc_status_name(status), text);

    session_over(l);
    if (l->freed)
        return;
    loop_post(l->config.loop, drop_client, l);
    try_again_later(l, why);
}

static const struct grpc_handlers handlers = {
    .on_message = on_message, .on_drained = on_drained, .on_closed = on_closed};

static void on_failed(struct grpc_client *c, const struct err *e, void *cookie)
{
    struct agent_link *l = cookie;

    /* The stream's on_closed came before and has seen to it, unless it was never opened. */
    (void)c;
    log_debug("connection to the control service: %s", e->text);
    (void)l;
}

static void begin(struct agent_link *l)
{
    struct agent_message hello = {.kind = AGENT_MESSAGE_HELLO};
    SSL *ssl;
    CLEANUP_ERR struct err *e = tls_client_ssl(l->config.tls, NULL, &ssl);

    if (!e) {
        struct grpc_client_options o = {.base = loop_base(l->config.loop),
                                        .host = l->control_address,
                                        .port = l->config.port,
                                        .ssl = ssl,
                                        .authority = "control-service",
                                        .max_message = CODEC_MAX_MESSAGE,
                                        .max_queue = CODEC_MAX_MESSAGE,
                                        .on_failed = on_failed,
                                        .cookie = l};
        e = grpc_client_new(&o, &l->client);
    }
    if (e) {
        try_again_later(l, e->text);
        return;
    }
    l->stream = grpc_client_call(l->client, AGENT_SESSION_PATH, &handlers, l, /* timeout_ms= */ 0);
    if (!l->stream) {
        l->client = grpc_client_free(l->client);
        try_again_later(l, "the call could not be made");
        return;
    }
    l->outbox = outbox_new(l->stream);
    l->config.hello(l->config.cookie, &hello.hello);
    hello.hello.host = l->address;
    send_message(l, NULL, &hello);
}

/* ---- finding the addresses, on a worker ---- */

struct look {
    struct agent_link *link;
    char *host;
    uint16_t port;
    char address[INET6_ADDRSTRLEN], control_address[INET6_ADDRSTRLEN];
    struct err *error;
};

static void address_text(const struct sockaddr *a, char text[INET6_ADDRSTRLEN])
{
    const void *raw = a->sa_family == AF_INET6
                          ? (const void *)&((const struct sockaddr_in6 *)(const void *)a)->sin6_addr
                          : (const void *)&((const struct sockaddr_in *)(const void *)a)->sin_addr;

    if (!inet_ntop(a->sa_family, raw, text, INET6_ADDRSTRLEN))
        text[0] = '\0';
}

/* A datagram socket that is connected sends nothing, but the kernel chooses our address for it. */
static struct err *own_address(const struct addrinfo *to, char text[INET6_ADDRSTRLEN])
{
    CLEANUP_CLOSE int fd = socket(to->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct sockaddr_storage own;
    socklen_t len = sizeof(own);

    if (fd < 0 || connect(fd, to->ai_addr, to->ai_addrlen) != 0 ||
        getsockname(fd, (struct sockaddr *)&own, &len) != 0)
        return err_errno(errno, "no route");
    address_text((const struct sockaddr *)&own, text);
    return NULL;
}

static void look_up(void *cookie)
{
    struct look *k = cookie;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found = NULL;
    CLEANUP_FREE char *port = xasprintf("%u", k->port);
    int code = getaddrinfo(k->host, port, &hints, &found);

    if (code != 0) {
        k->error = err_new(ERR_NOT_FOUND, "%s: %s", k->host, gai_strerror(code));
        return;
    }
    for (struct addrinfo *a = found; a; a = a->ai_next) {
        err_free(k->error);
        k->error = own_address(a, k->address);
        if (k->error)
            continue;
        address_text(a->ai_addr, k->control_address);
        break;
    }
    freeaddrinfo(found);
}

static void looked_up(void *cookie)
{
    struct look *k = cookie;
    struct agent_link *l = k->link;

    l->looking_up = false;
    if (l->freed) {
        (void)agent_link_free(l);
    } else if (k->error) {
        try_again_later(l, k->error->text);
    } else {
        memcpy(l->address, k->address, sizeof(l->address));
        memcpy(l->control_address, k->control_address, sizeof(l->control_address));
        begin(l);
    }
    err_free(k->error);
    free(k->host);
    free(k);
}

static void start(void *cookie)
{
    struct agent_link *l = cookie;
    struct look *k = xcalloc(1, sizeof(*k));

    l->client = grpc_client_free(l->client);
    l->tried_us = now_os().mono_us;
    k->link = l;
    k->host = xstrdup(l->host);
    k->port = l->config.port;
    l->looking_up = true;
    workers_submit(l->config.workers, look_up, looked_up, k);
}

struct agent_link *agent_link_new(const struct agent_link_config *config)
{
    struct agent_link *l = xcalloc(1, sizeof(*l));

    l->config = *config;
    l->host = xstrdup(config->host);
    timer_init(&l->retry, config->loop, start, l);
    timer_init(&l->ping, config->loop, on_ping_timer, l);
    timer_set(&l->retry, 0);
    return l;
}

struct agent_link *agent_link_free(struct agent_link *l)
{
    if (!l)
        return NULL;
    l->freed = true;
    timer_cancel(&l->retry);
    timer_cancel(&l->ping);
    l->client = grpc_client_free(l->client);
    if (l->looking_up)
        return NULL; /* looked_up() finishes it */
    loop_unpost(l->config.loop, drop_client, l);
    free(l->last_failure);
    free(l->host);
    free(l);
    return NULL;
}

void agent_link_send(struct agent_link *l, const char *key, const struct agent_message *m)
{
    if (l && l->outbox && l->begun)
        send_message(l, key, m);
}

void agent_link_hurry(struct agent_link *l, uint64_t until_us)
{
    if (until_us > l->hurry_until_us)
        l->hurry_until_us = until_us;
    if (timer_is_set(&l->retry))
        set_retry(l, now_os().mono_us);
}

const char *agent_link_address(const struct agent_link *l)
{
    return l->address;
}
