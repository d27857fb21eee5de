/* Listening, accepting, stopping. */
#include "net/http_private.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/now.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define ACCEPT_BATCH 64
#define RESUME_US USEC_PER_SEC
#define CROWDED_US (50 * USEC_PER_MSEC) /* until it is looked again whether somebody can go */
#define REFUSAL_LOG_US USEC_PER_SEC

/* ---- accepting ---- */

/* Accepts only while there is room or can be made; the rest waits in the kernel's queue, and we
 * sleep. */
static void accepting_update(struct http_server *s)
{
    bool pause = timer_is_set(&s->resume);
    struct http_listener *l;

    if (pause == s->paused)
        return;
    s->paused = pause;
    LIST_FOREACH (l, &s->listeners, link) {
        CLEANUP_ERR struct err *e = watch_set(l->watch, pause ? 0 : WATCH_READ);

        if (e)
            log_error("%s: %s", s->config.name, e->text);
    }
}

static void resume_fired(void *cookie)
{
    accepting_update(cookie);
}

static void peer_address(const struct sockaddr_storage *ss, char *buf, size_t size)
{
    char host[INET6_ADDRSTRLEN] = "?";

    if (ss->ss_family == AF_INET) {
        const struct sockaddr_in *in = (const void *)ss;

        inet_ntop(AF_INET, &in->sin_addr, host, sizeof(host));
        snprintf(buf, size, "%s:%u", host, ntohs(in->sin_port));
    } else if (ss->ss_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const void *)ss;

        inet_ntop(AF_INET6, &in6->sin6_addr, host, sizeof(host));
        snprintf(buf, size, "[%s]:%u", host, ntohs(in6->sin6_port));
    } else {
        snprintf(buf, size, "unix");
    }
}

static void serve(struct http_listener *l, int fd, const struct sockaddr_storage *ss)
{
    struct http_peer peer = {0};
    struct ucred cred;
    socklen_t len = sizeof(cred);

    peer_address(ss, peer.address, sizeof(peer.address));
    if (ss->ss_family == AF_UNIX && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0) {
        peer.has_uid = true;
        peer.uid = cred.uid;
        peer.pid = cred.pid;
    }
    http_conn_accept(l->server, fd, &peer);
}

/* ---- making room ---- */

struct host {
    const char *address; /* of one of its connections: "host:port" */
    size_t len;          /* without the port */
    unsigned n;
    UT_hash_handle hh;
};

static size_t host_length(const char *address)
{
    const char *colon = strrchr(address, ':');

    return colon ? (size_t)(colon - address) : strlen(address);
}

/* Counts the connections of each address; the array has room for all. */
static struct host *count_hosts(struct http_server *s, struct host *array)
{
    struct host *hosts = NULL, *h;
    struct http_conn *c;

    TAILQ_FOREACH (c, &s->conns, link) {
        size_t len = host_length(c->peer.address);
        HASH_FIND(hh, hosts, c->peer.address, len, h);
        if (!h) {
            h = array++;
            h->address = c->peer.address;
            h->len = len;
            HASH_ADD_KEYPTR(hh, hosts, h->address, len, h);
        }
        h->n++;
    }
    return hosts;
}

/* Closes the connection that can best be done without; false when there is none. */
static bool make_room(struct http_server *s)
{
    CLEANUP_FREE struct host *array = xcalloc(s->conn_count, sizeof(*array));
    struct host *hosts = count_hosts(s, array), *h;
    struct http_conn *c, *victim = NULL;
    unsigned most = 0;

    TAILQ_FOREACH (c, &s->conns, link) {
        if (!http_conn_waits_for_client(c))
            continue;
        HASH_FIND(hh, hosts, c->peer.address, host_length(c->peer.address), h);
        if (!victim || h->n > most || (h->n == most && c->state_us < victim->state_us)) {
            victim = c;
            most = h->n;
        }
    }
    HASH_CLEAR(hh, hosts);
    if (!victim)
        return false;
    s->refused++;
    http_conn_destroy(victim);
    return true;
}

static void on_acceptable(void *cookie, unsigned ready)
{
    struct http_listener *l = cookie;
    struct http_server *s = l->server;

    for (int i = 0; i < ACCEPT_BATCH; i++) {
        bool full = s->conn_count >= s->config.max_connections;

        if (full && i > 0) /* is there another one? We are called again if so */
            break;
        if (full && !make_room(s)) {
            timer_set(&s->resume, now_os().mono_us + CROWDED_US);
            break;
        }
        struct sockaddr_storage ss = {0};
        socklen_t len = sizeof(ss);
        int fd = accept4(l->fd, (struct sockaddr *)&ss, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            serve(l, fd, &ss);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            log_error("%s: cannot accept a connection: %s; trying again in a second",
                      s->config.name, strerrordesc_np(errno));
            timer_set(&s->resume, now_os().mono_us + RESUME_US);
            break;
        }
        if (errno == EAGAIN)
            break;
        /* anything else concerns one connection that is gone already */
    }
    accepting_update(s);
}

void http_server_log_refusal(struct http_server *s, const char *address, const char *why)
{
    uint64_t now_us = now_os().mono_us;

    s->refused++;
    if (s->refusal_logged_us && now_us - s->refusal_logged_us < REFUSAL_LOG_US) {
        s->refusals_unlogged++;
        return;
    }
    if (s->refusals_unlogged > 0)
        log_warning("%s: %u more connections were refused", s->config.name, s->refusals_unlogged);
    s->refusals_unlogged = 0;
    s->refusal_logged_us = now_us;
    log_warning("%s: refused the connection from %s: %s", s->config.name, address, why);
}

/* ---- listening ---- */

static struct http_listener *listener_free(struct http_listener *l)
{
    struct stat st;

    watch_free(l->watch);
    mem_closep(&l->fd);
    /* Only while it is still ours: another process may have put its own there. */
    if (l->path && lstat(l->path, &st) == 0 && st.st_dev == l->dev && st.st_ino == l->ino)
        unlink(l->path);
    free(l->path);
    free(l);
    return NULL;
}

/* Takes `fd` and `path`, also when it fails. */
static struct err *listener_add(struct http_server *s, int fd, char *path, const struct stat *st)
{
    struct http_listener *l = xcalloc(1, sizeof(*l));

    l->server = s;
    l->fd = fd;
    l->path = path;
    if (st) {
        l->dev = st->st_dev;
        l->ino = st->st_ino;
    }
    struct err *e = watch_new(s->loop, fd, s->paused ? 0 : WATCH_READ, on_acceptable, l, &l->watch);
    if (e) {
        listener_free(l);
        return e;
    }
    LIST_INSERT_HEAD(&s->listeners, l, link);
    return NULL;
}

/* A listening socket on one address, or -1 with errno. */
static int tcp_open(int family, const struct sockaddr *sa, socklen_t len)
{
    CLEANUP_CLOSE int fd = socket(family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int on = 1, off = 0, idle = 60;

    if (fd < 0)
        return -1;
    /* Accepted sockets inherit these. Without TCP_NODELAY short TLS answers wait for delayed
     * acknowledgements; keep-alive finds the dead clients of streams. */
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(fd, sa, len) < 0 || listen(fd, SOMAXCONN) < 0)
        return -1;
    return steal_fd(&fd);
}

static struct err *tcp_resolve(const char *host, uint16_t port, struct addrinfo **ret_list)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    char service[8];

    snprintf(service, sizeof(service), "%u", port);
    int r = getaddrinfo(host && host[0] ? host : NULL, service, &hints, ret_list);
    if (r == EAI_SYSTEM)
        return err_errno(errno, "cannot resolve the address %s to listen on", host);
    if (r != 0)
        return err_new(ERR_NOT_FOUND, "cannot resolve the address %s to listen on: %s", host,
                       gai_strerror(r));
    return NULL;
}

/* The first address that works; all addresses: IPv6 first, for it takes IPv4 too. */
static int tcp_open_any(const struct addrinfo *list)
{
    static const int families[] = {AF_INET6, AF_INET};
    int error = EADDRNOTAVAIL;

    for (size_t i = 0; i < ARRAY_SIZE(families); i++) {
        for (const struct addrinfo *a = list; a; a = a->ai_next) {
            int fd = a->ai_family == families[i] ? tcp_open(a->ai_family, a->ai_addr, a->ai_addrlen)
                                                 : -1;

            if (fd >= 0)
                return fd;
            if (a->ai_family == families[i] && (error == EADDRNOTAVAIL || errno == EADDRINUSE))
                error = errno;
        }
    }
    errno = error;
    return -1;
}

struct err *http_server_listen_tcp(struct http_server *s, const char *host, uint16_t port,
                                   uint16_t *ret_port)
{
    struct addrinfo *list = NULL;
    struct sockaddr_storage ss = {0};
    socklen_t len = sizeof(ss);
    const char *name = host && host[0] ? host : "all addresses";

    TRY(tcp_resolve(host, port, &list));
    CLEANUP_CLOSE int fd = tcp_open_any(list);
    int error = errno;
    freeaddrinfo(list);
    if (fd < 0 && error == EADDRINUSE)
        return err_new(ERR_BUSY, "cannot listen on %s port %u: another program uses it already",
                       name, port);
    if (fd < 0)
        return err_errno(error, "cannot listen on %s port %u", name, port);
    if (getsockname(fd, (struct sockaddr *)&ss, &len) < 0)
        return err_errno(errno, "cannot find the port of %s", name);
    TRY(listener_add(s, steal_fd(&fd), NULL, NULL));
    *ret_port = ntohs(ss.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)(void *)&ss)->sin6_port
                                               : ((struct sockaddr_in *)(void *)&ss)->sin_port);
    return NULL;
}

/* Is there a socket at `path` that somebody serves? */
static bool unix_is_served(const struct sockaddr_un *sun)
{
    CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    return fd >= 0 &&
           (connect(fd, (const struct sockaddr *)sun, sizeof(*sun)) == 0 || errno == EAGAIN);
}

static struct err *unix_address(const char *path, struct sockaddr_un *ret_sun)
{
    *ret_sun = (struct sockaddr_un){.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(ret_sun->sun_path))
        return err_new(ERR_INVALID, "the socket path %s is longer than %zu characters", path,
                       sizeof(ret_sun->sun_path) - 1);
    memcpy(ret_sun->sun_path, path, strlen(path));
    return NULL;
}

/* Listens under a name of our own and moves it over: whoever connects meets the right permissions,
 * and the place of a dead process's socket is taken at once. */
static struct err *unix_open(const char *path, const char *fresh, mode_t mode, int *ret_fd,
                             struct stat *ret_st)
{
    CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    struct sockaddr_un sun;

    if (fd < 0)
        return err_errno(errno, "cannot make a unix socket");
    TRY(unix_address(fresh, &sun));
    if (unlink(fresh) < 0 && errno != ENOENT)
        return err_errno(errno, "cannot remove the left-over socket %s", fresh);
    if (bind(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0)
        return err_errno(errno, "cannot make the socket %s", path);
    if (chmod(fresh, mode) < 0 || listen(fd, SOMAXCONN) < 0 || lstat(fresh, ret_st) < 0 ||
        rename(fresh, path) < 0) {
        struct err *e = err_errno(errno, "cannot listen on the socket %s", path);

        unlink(fresh);
        return e;
    }
    *ret_fd = steal_fd(&fd);
    return NULL;
}

struct err *http_server_listen_unix(struct http_server *s, const char *path, mode_t mode)
{
    CLEANUP_FREE char *fresh = xasprintf("%s.new", path);
    struct sockaddr_un sun;
    struct stat st;
    int fd;

    if (s->config.tls)
        return err_new(ERR_INTERNAL, "a unix socket (%s) is never served with TLS", path);
    TRY(unix_address(path, &sun));
    if (lstat(path, &st) == 0 && !S_ISSOCK(st.st_mode))
        return err_new(ERR_EXISTS,
                       "%s exists and is not a socket; remove it or choose another path", path);
    if (unix_is_served(&sun))
        return err_new(ERR_BUSY, "another process serves the socket %s; stop it first", path);
    TRY(unix_open(path, fresh, mode, &fd, &st));
    return listener_add(s, fd, xstrdup(path), &st);
}

struct err *http_server_listen_fd(struct http_server *s, int fd)
{
    CLEANUP_CLOSE int owned = fd;
    int listening = 0, type = 0, family = 0;
    socklen_t n = sizeof(int);

    if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &n) < 0 || getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) < 0 ||
        getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &n) < 0 || !listening || type != SOCK_STREAM)
        return err_new(ERR_INVALID, "the file descriptor %d is not a listening stream socket", fd);
    if (family == AF_UNIX && s->config.tls)
        return err_new(ERR_INVALID, "a unix socket (file descriptor %d) is never served with TLS", fd);
    if (fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
        return err_errno(errno, "cannot serve the file descriptor %d", fd);
    return listener_add(s, steal_fd(&owned), NULL, NULL);
}

/* ---- the server ---- */

static void stop_check(struct http_server *s)
{
    if (!s->stopping || s->conn_count > 0 || !s->stop_done)
        return;
    timer_cancel(&s->stop_timer);
    loop_post(s->loop, steal(&s->stop_done), s->stop_cookie);
}

void http_server_conn_gone(struct http_server *s)
{
    if (!s->stopping)
        timer_cancel(&s->resume); /* there is room again, and a file descriptor */
    accepting_update(s);
    stop_check(s);
}

static void stop_deadline(void *cookie)
{
    struct http_server *s = cookie;

    while (!TAILQ_EMPTY(&s->conns))
        http_conn_destroy(TAILQ_FIRST(&s->conns));
}

struct err *http_server_new(struct loop *l, const struct http_server_config *config,
                            http_handler_fn *handler, void *cookie, struct http_server **ret_server)
{
    struct http_server *s = xcalloc(1, sizeof(*s));
    struct http_server_config *c = &s->config;

    s->loop = l;
    s->handler = handler;
    s->cookie = cookie;
    *c = *config;
    c->name = c->name ? c->name : "http";
    c->max_header_bytes = c->max_header_bytes ? c->max_header_bytes : 16u << 10;
    c->max_body_bytes = c->max_body_bytes ? c->max_body_bytes : 4u << 20;
    c->max_connections = c->max_connections ? c->max_connections : 1024;
    c->max_held = c->max_held ? c->max_held : 512;
    c->handshake_us = c->handshake_us ? c->handshake_us : 10 * USEC_PER_SEC;
    c->idle_us = c->idle_us ? c->idle_us : 75 * USEC_PER_SEC;
    c->stall_us = c->stall_us ? c->stall_us : 10 * USEC_PER_SEC;
    c->request_us = c->request_us ? c->request_us : 60 * USEC_PER_SEC;
    if (c->tls)
        SSL_CTX_up_ref(c->tls);
    LIST_INIT(&s->listeners);
    TAILQ_INIT(&s->conns);
    timer_init(&s->resume, l, resume_fired, s);
    timer_init(&s->stop_timer, l, stop_deadline, s);
    *ret_server = s;
    return NULL;
}

static void listeners_close(struct http_server *s)
{
    struct http_listener *l;

    while ((l = LIST_FIRST(&s->listeners))) {
        LIST_REMOVE(l, link);
        listener_free(l);
    }
    timer_cancel(&s->resume);
}

void http_server_stop(struct http_server *s, uint64_t deadline_us, loop_fn *done, void *cookie)
{
    struct http_conn *c;

    s->stopping = true;
    s->stop_done = done;
    s->stop_cookie = cookie;
    listeners_close(s);
    timer_set(&s->stop_timer, deadline_us);
    TAILQ_FOREACH (c, &s->conns, link) /* destroys none at once */
        http_conn_wind_down(c);
    stop_check(s);
}

struct http_server *http_server_free(struct http_server *s)
{
    if (!s)
        return NULL;
    s->stop_done = NULL;
    s->stopping = true;
    listeners_close(s);
    stop_deadline(s);
    timer_cancel(&s->stop_timer);
    SSL_CTX_free(s->config.tls);
    free(s);
    return NULL;
}

unsigned http_server_connections(const struct http_server *s)
{
    return s->conn_count;
}

uint64_t http_server_refused(const struct http_server *s)
{
    return s->refused;
}
