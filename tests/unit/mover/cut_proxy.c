#include "cut_proxy.h"

#include "base/mem.h"

#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct cut_proxy {
    int listen_fd;
    uint16_t to, port;
    atomic_ullong cut, carried;
    atomic_uint pause_us, cut_records, records, connections, drops;
    atomic_bool stop;
    pthread_t thread;
};

struct pair {
    struct cut_proxy *p;
    int fd[2];
    uint64_t cut, carried;
    unsigned pause_us;
    unsigned cut_records, records; /* complete ones */
    unsigned drops;                /* of the proxy, when it began */
    /* The record that is being carried in each direction: bytes of its header so far, and of its
     * body to come. */
    struct {
        uint8_t header[5];
        size_t n_header, left;
    } now[2];
};

#define MUST(expr)                                                                                 \
    do {                                                                                           \
        if (!(expr)) {                                                                             \
            perror(#expr);                                                                         \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

/* How many of the bytes may be carried on: those up to the end of the last record that may. */
static size_t count_records(struct pair *c, int from, const uint8_t *bytes, size_t n)
{
    size_t at = 0;

    while (at < n && c->records < c->cut_records) {
        if (c->now[from].n_header < sizeof(c->now[from].header)) {
            c->now[from].header[c->now[from].n_header++] = bytes[at++];
            c->now[from].left =
                (size_t)c->now[from].header[3] << 8 | c->now[from].header[4];
            continue;
        }
        size_t some = n - at < c->now[from].left ? n - at : c->now[from].left;
        at += some;
        c->now[from].left -= some;
        if (c->now[from].left == 0) {
            c->now[from].n_header = 0;
            c->records++;
        }
    }
    return at;
}

/* One chunk from one side to the other; false: the connection is over. */
static bool forward(struct pair *c, int from)
{
    char buf[16384];
    uint64_t room = c->cut - c->carried;
    size_t want = room < sizeof(buf) ? (size_t)room : sizeof(buf);

    if (want == 0)
        return false;
    ssize_t n = recv(c->fd[from], buf, want, 0);
    if (n <= 0)
        return false;
    n = (ssize_t)count_records(c, from, (const uint8_t *)buf, (size_t)n);
    for (ssize_t at = 0; at < n;) {
        ssize_t put = send(c->fd[!from], buf + at, (size_t)(n - at), MSG_NOSIGNAL);

        if (put <= 0)
            return false;
        at += put;
    }
    c->carried += (uint64_t)n;
    atomic_store(&c->p->carried, c->carried);
    atomic_store(&c->p->records, c->records);
    if (c->pause_us)
        (void)nanosleep(&(struct timespec){.tv_nsec = (long)c->pause_us * 1000}, NULL);
    return true;
}

static void *pair_main(void *cookie)
{
    struct pair *c = cookie;
    struct linger reset = {.l_onoff = 1};
    bool over = false;

    while (!over && !atomic_load(&c->p->stop)) {
        struct pollfd p[2] = {{.fd = c->fd[0], .events = POLLIN},
                              {.fd = c->fd[1], .events = POLLIN}};

        (void)poll(p, 2, 50);
        for (int i = 0; i < 2 && !over; i++)
            over = p[i].revents && !forward(c, i);
        over |= c->carried >= c->cut || c->records >= c->cut_records || c->drops != atomic_load(&c->p->drops);
    }
    if (c->records >= c->cut_records) /* a reset takes away what was not read yet */
        (void)nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    if (c->carried >= c->cut || c->records >= c->cut_records) {
        (void)setsockopt(c->fd[0], SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        (void)setsockopt(c->fd[1], SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
    }
    (void)close(c->fd[0]);
    (void)close(c->fd[1]);
    free(c);
    return NULL;
}

static void *proxy_main(void *cookie)
{
    struct cut_proxy *p = cookie;
    pthread_t threads[1024];
    size_t n = 0;

    while (!atomic_load(&p->stop)) {
        struct pollfd l = {.fd = p->listen_fd, .events = POLLIN};
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(p->to)};

        if (poll(&l, 1, 50) <= 0)
            continue;
        struct pair *c = xcalloc(1, sizeof(*c));
        c->p = p;
        c->drops = atomic_load(&p->drops);
        c->cut = atomic_load(&p->cut);
        c->pause_us = atomic_load(&p->pause_us);
        c->cut_records = atomic_load(&p->cut_records);
        atomic_fetch_add(&p->connections, 1);
        atomic_store(&p->carried, 0);
        atomic_store(&p->records, 0);
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        MUST((c->fd[0] = accept4(p->listen_fd, NULL, NULL, SOCK_CLOEXEC)) >= 0);
        MUST((c->fd[1] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
        MUST(connect(c->fd[1], (struct sockaddr *)&to, sizeof(to)) == 0);
        MUST(n < ARRAY_SIZE(threads));
        MUST(pthread_create(&threads[n++], NULL, pair_main, c) == 0);
    }
    for (size_t i = 0; i < n; i++)
        (void)pthread_join(threads[i], NULL);
    return NULL;
}

struct cut_proxy *cut_proxy_start(uint16_t port)
{
    struct cut_proxy *p = xcalloc(1, sizeof(*p));
    struct sockaddr_in a = {.sin_family = AF_INET};
    socklen_t len = sizeof(a);

    p->to = port;
    atomic_store(&p->cut, UINT64_MAX);
    atomic_store(&p->cut_records, UINT32_MAX);
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    MUST((p->listen_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) >= 0);
    MUST(bind(p->listen_fd, (struct sockaddr *)&a, sizeof(a)) == 0);
    MUST(listen(p->listen_fd, 16) == 0);
    MUST(getsockname(p->listen_fd, (struct sockaddr *)&a, &len) == 0);
    p->port = ntohs(a.sin_port);
    MUST(pthread_create(&p->thread, NULL, proxy_main, p) == 0);
    return p;
}

struct cut_proxy *cut_proxy_stop(struct cut_proxy *p)
{
    atomic_store(&p->stop, true);
    (void)pthread_join(p->thread, NULL);
    (void)close(p->listen_fd);
    free(p);
    return NULL;
}

uint16_t cut_proxy_port(const struct cut_proxy *p)
{
    return p->port;
}

void cut_proxy_set(struct cut_proxy *p, uint64_t bytes, unsigned pause_us)
{
    atomic_store(&p->cut, bytes);
    atomic_store(&p->pause_us, pause_us);
    atomic_store(&p->cut_records, UINT32_MAX);
}

void cut_proxy_set_records(struct cut_proxy *p, unsigned records)
{
    cut_proxy_set(p, UINT64_MAX, 0);
    atomic_store(&p->cut_records, records);
}

unsigned cut_proxy_records(struct cut_proxy *p)
{
    return atomic_load(&p->records);
}

uint64_t cut_proxy_carried(struct cut_proxy *p)
{
    return atomic_load(&p->carried);
}

unsigned cut_proxy_connections(struct cut_proxy *p)
{
    return atomic_load(&p->connections);
}

void cut_proxy_drop(struct cut_proxy *p)
{
    atomic_fetch_add(&p->drops, 1);
}
