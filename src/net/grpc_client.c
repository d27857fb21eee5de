#include "net/grpc_conn.h"

#include <errno.h>
#include <event2/dns.h>
#include <netdb.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

/* One name being looked up. It outlives a client that is freed meanwhile: libevent still calls
 * back. */
struct lookup {
    struct grpc_client *client; /* NULL: nobody waits any more */
    struct evdns_base *dns;
    struct evdns_getaddrinfo_request *request;
    struct event_base *base;
};

struct grpc_client {
    struct grpc_conn *conn;
    SSL *ssl; /* until the socket is connected */
    bool tls;
    char *authority;
    char *target; /* for texts */
    int fd;       /* while connecting */
    struct event *dialing;
    struct evutil_addrinfo *addresses;
    struct evutil_addrinfo *next; /* to try */
    struct lookup *lookup;
    void (*on_ready)(struct grpc_client *c, void *cookie);
    void (*on_failed)(struct grpc_client *c, const struct err *e, void *cookie);
    void *cookie;
};

static void client_ready(struct grpc_conn *conn)
{
    struct grpc_client *c = conn->owner;

    if (c->on_ready)
        c->on_ready(c, c->cookie);
}

static void dialing_stop(struct grpc_client *c)
{
    if (c->dialing)
        event_free(c->dialing);
    c->dialing = NULL;
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
}

static void client_gone(struct grpc_conn *conn, const struct err *e)
{
    struct grpc_client *c = conn->owner;

    dialing_stop(c);
    if (c->on_failed)
        c->on_failed(c, e, c->cookie);
}

static const struct conn_role client_role = {.ready = client_ready, .gone = client_gone};

/* The socket is connected: TLS and HTTP/2 come next. */
static void dialed(struct grpc_client *c)
{
    int fd = steal_fd(&c->fd);
    SSL *ssl = steal(&c->ssl);

    dialing_stop(c);
    struct err *e = conn_attach(c->conn, fd, ssl);
    if (e)
        conn_fail(c->conn, e);
}

static void dial_next(struct grpc_client *c, int errnum);

static void on_dialed(evutil_socket_t fd, short what, void *cookie)
{
    struct grpc_client *c = cookie;
    struct grpc_conn *conn = c->conn;
    int errnum = 0;
    socklen_t len = sizeof(errnum);

    conn_enter(conn);
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &errnum, &len) != 0)
        errnum = errno;
    if (errnum)
        dial_next(c, errnum);
    else
        dialed(c);
    conn_leave(conn);
}

/* Starts to connect; 0 or the errno. */
static int dial(struct grpc_client *c, const struct sockaddr *a, socklen_t len)
{
    dialing_stop(c);
    c->fd = socket(a->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (c->fd < 0)
        return errno;
    if (connect(c->fd, a, len) != 0 && errno != EINPROGRESS)
        return errno;
    /* Connected or not: the event tells, at the earliest in the next turn of the loop. */
    c->dialing = event_new(c->conn->base, c->fd, EV_WRITE, on_dialed, c);
    if (!c->dialing || event_add(c->dialing, NULL) != 0)
        return ENOMEM;
    return 0;
}

/* Tries the addresses in turn; `errnum` is why the one before failed. */
static void dial_next(struct grpc_client *c, int errnum)
{
    while (c->next) {
        struct evutil_addrinfo *a = c->next;
        c->next = a->ai_next;
        errnum = dial(c, a->ai_addr, (socklen_t)a->ai_addrlen);
        if (!errnum)
            return;
    }
    conn_fail(c->conn,
              err_new(ERR_UNAVAILABLE, "cannot connect to %s: %s", c->target, strerror(errnum)));
}

static void on_dns_free(evutil_socket_t fd, short what, void *cookie)
{
    evdns_base_free(cookie, 0);
}

/* The resolver cannot be freed inside its own callback. */
static void lookup_free(struct lookup *l)
{
    struct timeval now = {0};

    if (event_base_once(l->base, -1, EV_TIMEOUT, on_dns_free, l->dns, &now) != 0)
        mem_exhausted();
    free(l);
}

static void on_looked_up(int result, struct evutil_addrinfo *addresses, void *cookie)
{
    struct lookup *l = cookie;
    struct grpc_client *c = l->client;

    l->request = NULL;
    if (!c) {
        if (addresses)
            evutil_freeaddrinfo(addresses);
        lookup_free(l);
        return;
    }
    struct grpc_conn *conn = c->conn;
    conn_enter(conn);
    if (result) {
        conn_fail(conn, err_new(ERR_UNAVAILABLE, "cannot find the address of %s: %s", c->target,
                                evutil_gai_strerror(result)));
    } else if (!conn->failure) {
        c->addresses = c->next = addresses;
        addresses = NULL;
        dial_next(c, EADDRNOTAVAIL);
    }
    if (addresses)
        evutil_freeaddrinfo(addresses);
    c->lookup = NULL;
    lookup_free(l);
    conn_leave(conn);
}

static void look_up(struct grpc_client *c, const char *host, const char *port,
                    const struct evutil_addrinfo *hints)
{
    struct lookup *l = xcalloc(1, sizeof(*l));

    l->client = c;
    l->base = c->conn->base;
    l->dns = evdns_base_new(l->base, EVDNS_BASE_DISABLE_WHEN_INACTIVE);
    if (!l->dns)
        mem_exhausted();
    /* Without this file there are still the hosts file and a resolver on this machine. */
    evdns_base_resolv_conf_parse(l->dns, DNS_OPTIONS_ALL, "/etc/resolv.conf");
    c->lookup = l;
    struct evdns_getaddrinfo_request *r =
        evdns_getaddrinfo(l->dns, host, port, hints, on_looked_up, l);
    if (r) /* else it has called back already */
        l->request = r;
}

static void dial_host(struct grpc_client *c, const char *host, uint16_t port)
{
    struct evutil_addrinfo hints = {.ai_family = AF_UNSPEC,
                                    .ai_socktype = SOCK_STREAM,
                                    .ai_protocol = IPPROTO_TCP,
                                    .ai_flags = EVUTIL_AI_NUMERICHOST};
    char service[8];

    snprintf(service, sizeof(service), "%u", port);
    if (evutil_getaddrinfo(host, service, &hints, &c->addresses) == 0) {
        c->next = c->addresses;
        dial_next(c, EADDRNOTAVAIL);
        return;
    }
    hints.ai_flags = 0;
    look_up(c, host, service, &hints);
}

static void dial_unix(struct grpc_client *c, const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    memcpy(a.sun_path, path, strlen(path) + 1);
    int errnum = dial(c, (const struct sockaddr *)&a, sizeof(a));
    if (errnum)
        dial_next(c, errnum);
}

struct err *grpc_client_new(const struct grpc_client_options *o, struct grpc_client **ret)
{
    struct sockaddr_un a;

    if (!o->host && strlen(o->unix_path) >= sizeof(a.sun_path)) {
        SSL_free(o->ssl);
        return err_new(ERR_INVALID, "the socket path %s is longer than %zu bytes", o->unix_path,
                       sizeof(a.sun_path) - 1);
    }
    struct grpc_client *c = xcalloc(1, sizeof(*c));
    struct grpc_conn *conn = conn_new(o->base, &client_role, c);
    bool v6 = o->host && strchr(o->host, ':');
    c->conn = conn;
    c->fd = -1;
    c->ssl = o->ssl;
    c->tls = o->ssl != NULL;
    c->on_ready = o->on_ready;
    c->on_failed = o->on_failed;
    c->cookie = o->cookie;
    c->target =
        o->host ? xasprintf(v6 ? "[%s]:%u" : "%s:%u", o->host, o->port) : xstrdup(o->unix_path);
    c->authority = xstrdup(o->authority ? o->authority : o->host ? c->target : "localhost");
    conn->max_message = o->max_message ? o->max_message : GRPC_DEFAULT_MAX_MESSAGE;
    conn->max_queue = o->max_queue ? o->max_queue : GRPC_DEFAULT_MAX_QUEUE;
    snprintf(conn->peer, sizeof(conn->peer), "%s", c->target);
    if (c->ssl && SSL_set_alpn_protos(c->ssl, (const unsigned char *)"\x02h2", 3) != 0)
        mem_exhausted();
    conn_start(conn);
    conn_timer(conn, o->connect_ms ? o->connect_ms : GRPC_DEFAULT_CONNECT_MS);
    if (o->host)
        dial_host(c, o->host, o->port);
    else
        dial_unix(c, o->unix_path);
    *ret = c;
    return NULL;
}

struct grpc_stream *grpc_client_call(struct grpc_client *c, const char *path,
                                     const struct grpc_handlers *h, void *cookie,
                                     uint32_t timeout_ms)
{
    struct grpc_conn *conn = c->conn;

    if (!conn || conn->failure || conn->doomed || conn->draining || !conn->session)
        return NULL;
    struct grpc_stream *s = stream_new(conn, 0);
    int id = session_request(conn, s, path, c->tls ? "https" : "http", c->authority,
                             timeout_ms * 1000ull);
    if (id < 0) { /* no ids are left after 2^30 calls: the connection has served its time */
        TAILQ_REMOVE(&conn->streams, s, link);
        conn->n_streams--;
        stream_free(s);
        conn_fail(conn, err_new(ERR_UNAVAILABLE, "%s: cannot open a call: %s", conn->peer,
                                nghttp2_strerror(id)));
        return NULL;
    }
    s->id = id;
    s->h = h;
    s->cookie = cookie;
    if (timeout_ms)
        stream_timer(s, timeout_ms * 1000ull);
    conn_kick(conn);
    return s;
}

struct grpc_client *grpc_client_free(struct grpc_client *c)
{
    if (!c || !c->conn) /* an on_closed below may call this again */
        return NULL;
    struct grpc_conn *conn = steal(&c->conn);
    if (c->lookup) {
        c->lookup->client = NULL;
        if (c->lookup->request)
            evdns_getaddrinfo_cancel(c->lookup->request);
    }
    dialing_stop(c);
    if (c->addresses)
        evutil_freeaddrinfo(c->addresses);
    SSL_free(c->ssl);
    free(c->authority);
    free(c->target);
    conn_close(conn);
    free(c);
    return NULL;
}
