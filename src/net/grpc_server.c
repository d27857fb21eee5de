#include "net/grpc_conn.h"

#include "base/log.h"
#include "base/now.h"
#include "net/tls.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/listener.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define BACKLOG 512
#define ACCEPT_PAUSE_MS 500 /* when file descriptors have run out */

struct method {
    const char *path;
    const struct grpc_handlers *h;
    void *cookie;
};

struct grpc_server {
    struct event_base *base;
    struct evconnlistener *listener;
    struct event *retry; /* accepts again after a pause */
    SSL_CTX *ctx;
    struct method *methods;
    size_t n_methods;
    size_t methods_capacity;
    TAILQ_HEAD(, grpc_conn) conns;
    size_t n_conns;
    size_t max_message;
    size_t max_queue;
    uint32_t idle_ms;
    uint16_t port;
    char *unix_path;
    uint64_t warned_us;
    bool freeing;
};

static bool server_method(struct grpc_conn *c, const char *path, const struct grpc_handlers **ret_h,
                          void **ret_cookie)
{
    struct grpc_server *s = c->owner;

    for (size_t i = 0; i < s->n_methods; i++) {
        if (streq(s->methods[i].path, path)) {
            *ret_h = s->methods[i].h;
            *ret_cookie = s->methods[i].cookie;
            return true;
        }
    }
    return false;
}

static void server_ready(struct grpc_conn *c)
{
}

static void server_gone(struct grpc_conn *c, const struct err *e)
{
    struct grpc_server *s = c->owner;

    /* A peer that never got through is worth a line, but whoever knocks all day gets one a second.
     */
    uint64_t now_us = now_os().mono_us;
    if (!c->ready && now_us - s->warned_us >= USEC_PER_SEC) {
        log_warning("refused a connection: %s", e->text);
        s->warned_us = now_us;
    } else {
        log_debug("connection ended: %s", e->text);
    }
    TAILQ_REMOVE(&s->conns, c, link);
    s->n_conns--;
    conn_close(c);
}

static const struct conn_role server_role = {
    .is_server = true, .method = server_method, .ready = server_ready, .gone = server_gone};

static void on_accept(struct evconnlistener *l, evutil_socket_t fd, struct sockaddr *a, int n,
                      void *cookie)
{
    struct grpc_server *s = cookie;
    SSL *ssl = NULL;

    if (s->ctx) {
        CLEANUP_ERR struct err *e = tls_server_ssl(s->ctx, &ssl);
        if (e) {
            log_error("cannot accept a connection: %s", e->text);
            close(fd);
            return;
        }
    }
    struct grpc_conn *c = conn_new(s->base, &server_role, s);
    c->max_message = s->max_message;
    c->max_queue = s->max_queue;
    c->idle_ms = s->idle_ms;
    TAILQ_INSERT_TAIL(&s->conns, c, link);
    s->n_conns++;
    conn_timer(c, GRPC_HANDSHAKE_MS);
    struct err *e = conn_attach(c, fd, ssl);
    if (e)
        conn_fail(c, e);
}

/* Out of descriptors or memory: the listening socket stays readable, so stop looking at it for a
 * while. */
static void on_accept_error(struct evconnlistener *l, void *cookie)
{
    struct grpc_server *s = cookie;
    struct timeval tv = {.tv_usec = ACCEPT_PAUSE_MS * 1000};

    log_warning("cannot accept connections for the moment: %s", strerror(EVUTIL_SOCKET_ERROR()));
    evconnlistener_disable(l);
    event_add(s->retry, &tv);
}

static void on_retry(evutil_socket_t fd, short what, void *cookie)
{
    struct grpc_server *s = cookie;

    if (s->listener)
        evconnlistener_enable(s->listener);
}

/* A socket file without a listener is what a dead process leaves. */
static struct err *clear_socket(const char *path, const struct sockaddr_un *a)
{
    struct stat st;

    if (lstat(path, &st) != 0)
        return errno == ENOENT ? NULL : err_errno(errno, "cannot look at %s", path);
    if (!S_ISSOCK(st.st_mode))
        return err_new(ERR_EXISTS, "cannot listen on %s: it exists and is not a socket", path);
    CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(errno, "cannot make a socket");
    if (connect(fd, (const struct sockaddr *)a, sizeof(*a)) == 0 || errno == EAGAIN)
        return err_new(ERR_EXISTS, "cannot listen on %s: another process does", path);
    if (unlink(path) != 0 && errno != ENOENT)
        return err_errno(errno, "cannot remove the old socket %s", path);
    return NULL;
}

static struct err *listen_unix(struct grpc_server *s, const char *path, int *ret_fd)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    if (strlen(path) >= sizeof(a.sun_path))
        return err_new(ERR_INVALID, "the socket path %s is longer than %zu bytes", path,
                       sizeof(a.sun_path) - 1);
    memcpy(a.sun_path, path, strlen(path) + 1);
    TRY(clear_socket(path, &a));
    CLEANUP_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(errno, "cannot make a socket");
    /* The mode of the socket before bind() becomes that of the file: nobody else ever gets in. */
    if (fchmod(fd, 0600) != 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) != 0 ||
        listen(fd, BACKLOG) != 0)
        return err_errno(errno, "cannot listen on %s", path);
    s->unix_path = xstrdup(path);
    *ret_fd = steal_fd(&fd);
    return NULL;
}

static struct err *listen_tcp(struct grpc_server *s, const char *host, uint16_t port, int *ret_fd)
{
    union {
        struct sockaddr any;
        struct sockaddr_in v4;
        struct sockaddr_in6 v6;
    } a = {0};
    socklen_t len = sizeof(a.v4);
    int on = 1;

    if (inet_pton(AF_INET, host, &a.v4.sin_addr) == 1) {
        a.v4.sin_family = AF_INET;
        a.v4.sin_port = htons(port);
    } else if (inet_pton(AF_INET6, host, &a.v6.sin6_addr) == 1) {
        a.v6.sin6_family = AF_INET6;
        a.v6.sin6_port = htons(port);
        len = sizeof(a.v6);
    } else {
        return err_new(ERR_INVALID, "cannot listen on \"%s\": not a numeric address", host);
    }
    CLEANUP_CLOSE int fd = socket(a.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_errno(errno, "cannot make a socket");
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        bind(fd, &a.any, len) != 0 || listen(fd, BACKLOG) != 0)
        return err_errno(errno, "cannot listen on %s port %u", host, port);
    if (getsockname(fd, &a.any, &len) != 0)
        return err_errno(errno, "cannot tell the port of %s", host);
    s->port = ntohs(a.any.sa_family == AF_INET ? a.v4.sin_port : a.v6.sin6_port);
    *ret_fd = steal_fd(&fd);
    return NULL;
}

static struct err *server_listen(struct grpc_server *s, const struct grpc_server_options *o)
{
    int fd;

    if (o->host)
        TRY(listen_tcp(s, o->host, o->port, &fd));
    else
        TRY(listen_unix(s, o->unix_path, &fd));
    s->retry = event_new(s->base, -1, 0, on_retry, s);
    s->listener = evconnlistener_new(s->base, on_accept, s,
                                     LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC, 0, fd);
    if (!s->listener || !s->retry) {
        if (!s->listener)
            close(fd);
        return err_new(ERR_INTERNAL, "cannot listen: libevent refuses the socket");
    }
    evconnlistener_set_error_cb(s->listener, on_accept_error);
    return NULL;
}

struct err *grpc_server_new(const struct grpc_server_options *o, struct grpc_server **ret)
{
    struct grpc_server *s = xcalloc(1, sizeof(*s));

    s->base = o->base;
    s->max_message = o->max_message ? o->max_message : GRPC_DEFAULT_MAX_MESSAGE;
    s->max_queue = o->max_queue ? o->max_queue : GRPC_DEFAULT_MAX_QUEUE;
    s->idle_ms = o->idle_ms;
    TAILQ_INIT(&s->conns);
    struct err *e = server_listen(s, o);
    if (e) {
        grpc_server_free(s);
        return e;
    }
    if (o->ctx) {
        SSL_CTX_up_ref(o->ctx);
        s->ctx = o->ctx;
    }
    *ret = s;
    return NULL;
}

void grpc_server_add(struct grpc_server *s, const char *path, const struct grpc_handlers *h,
                     void *cookie)
{
    s->methods = mem_grow(s->methods, s->n_methods, &s->methods_capacity, sizeof(*s->methods));
    s->methods[s->n_methods++] = (struct method){path, h, cookie};
}

uint16_t grpc_server_port(const struct grpc_server *s)
{
    return s->port;
}

size_t grpc_server_connections(const struct grpc_server *s)
{
    return s->n_conns;
}

static void listener_close(struct grpc_server *s)
{
    if (s->listener) {
        evconnlistener_free(s->listener);
        s->listener = NULL;
        if (s->unix_path)
            unlink(s->unix_path);
    }
}

void grpc_server_drain(struct grpc_server *s)
{
    struct grpc_conn *c;

    listener_close(s);
    TAILQ_FOREACH (c, &s->conns, link)
        conn_drain(c);
}

struct grpc_server *grpc_server_free(struct grpc_server *s)
{
    struct grpc_conn *c;

    if (!s || s->freeing)
        return NULL;
    s->freeing = true; /* an on_closed may call this again */
    listener_close(s);
    while ((c = TAILQ_FIRST(&s->conns)) != NULL) {
        TAILQ_REMOVE(&s->conns, c, link);
        conn_close(c);
    }
    if (s->retry)
        event_free(s->retry);
    SSL_CTX_free(s->ctx);
    free(s->unix_path);
    free(s->methods);
    free(s);
    return NULL;
}
