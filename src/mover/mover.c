/* Life of the mover: listening, announcements, who works on what. */
#include "base/log.h"
#include "base/now.h"
#include "mover/mover_internal.h"

#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* ---- announcements and claims ---- */

static struct announcement *find_announcement(struct mover *m, const struct uuid *dataset,
                                              uint64_t transfer)
{
    for (size_t i = 0; i < m->n_announcements; i++) {
        struct announcement *a = &m->announcements[i];

        if (a->transfer == transfer && uuid_eq(&a->dataset, dataset))
            return a;
    }
    return NULL;
}

static void announce(struct mover *m, const struct uuid *dataset, uint64_t transfer, const struct uuid *source,
                     bool only_compare)
{
    (void)pthread_mutex_lock(&m->lock);
    struct announcement *a = find_announcement(m, dataset, transfer);
    if (!a) {
        m->announcements = mem_grow(m->announcements, m->n_announcements, &m->cap_announcements,
                                    sizeof(*m->announcements));
        a = &m->announcements[m->n_announcements++];
        *a = (struct announcement){.dataset = *dataset, .transfer = transfer};
    }
    a->source = *source;
    a->only_compare = only_compare;
    (void)pthread_cond_broadcast(&m->changed); /* a source may have been faster than the order */
    (void)pthread_mutex_unlock(&m->lock);
}

void mover_announce(struct mover *m, const struct uuid *dataset, uint64_t transfer,
                    const struct uuid *source)
{
    announce(m, dataset, transfer, source, /* only_compare= */ false);
}

void mover_announce_comparison(struct mover *m, const struct uuid *dataset, uint64_t number, const struct uuid *source)
{
    announce(m, dataset, number, source, /* only_compare= */ true);
}

void mover_forbid_sync(struct mover *m, const struct uuid *dataset, uint64_t transfer)
{
    (void)pthread_mutex_lock(&m->lock);
    struct announcement *a = find_announcement(m, dataset, transfer);
    if (a)
        *a = m->announcements[--m->n_announcements];
    for (bool found = true; found;) {
        found = false;
        for (struct stream *s = m->streams; s; s = s->next) {
            if (s->claimed && s->transfer == transfer && uuid_eq(&s->dataset, dataset)) {
                atomic_store(&s->ended, STREAM_FORBIDDEN);
                found = true;
            }
        }
        if (found) {
            (void)pthread_cond_broadcast(&m->changed); /* it may itself wait for an older one */
            (void)pthread_cond_wait(&m->changed, &m->lock);
        }
    }
    (void)pthread_mutex_unlock(&m->lock);
}

/* Ends the older streams of the dataset. *ret_older: there are some; *ret_newer: there is a newer
 * one. */
static void look_at_rivals(struct mover *m, const struct stream *s, bool *ret_older,
                           bool *ret_newer)
{
    *ret_older = *ret_newer = false;
    for (struct stream *o = m->streams; o; o = o->next) {
        if (o == s || !o->claimed || !uuid_eq(&o->dataset, &s->dataset))
            continue;
        if (o->serial > s->serial) {
            *ret_newer = true;
            continue;
        }
        int runs = STREAM_RUNS;
        (void)atomic_compare_exchange_strong(&o->ended, &runs, STREAM_SUPERSEDED);
        *ret_older = true;
    }
}

static struct err *end_reason(const struct stream *s)
{
    switch ((enum stream_end)atomic_load(&s->ended)) {
    case STREAM_RUNS:
        return NULL;
    case STREAM_FORBIDDEN:
        return err_new(ERR_DENIED, "the transfer is not expected any more");
    case STREAM_SUPERSEDED:
        return err_new(ERR_CONFLICT, "a newer connection of the transfer took over");
    case STREAM_STOPPED:
        break;
    }
    return err_new(ERR_UNAVAILABLE, "the receiving agent is stopping");
}

static struct timespec in_us(uint64_t us)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    us += (uint64_t)t.tv_nsec / 1000;
    t.tv_sec += (time_t)(us / USEC_PER_SEC);
    t.tv_nsec = (long)(us % USEC_PER_SEC) * 1000;
    return t;
}

/* Source and destination get their orders at the same time: the source's stream may be here before the announcement. */
static struct err *await_announcement(struct mover *m, const struct stream *s, const struct mover_hello *hello,
                                      const struct announcement **ret)
{
    struct timespec until = in_us(MOVER_EXPECT_US);

    for (int rc = 0;;) {
        TRY(end_reason(s));
        *ret = find_announcement(m, &hello->dataset, hello->transfer);
        if (*ret || rc == ETIMEDOUT)
            return NULL;
        rc = pthread_cond_timedwait(&m->changed, &m->lock, &until);
    }
}

static struct err *claim_locked(struct mover *m, struct stream *s, const struct mover_hello *hello,
                                const struct uuid *peer)
{
    const struct announcement *a;
    bool older, newer;

    TRY(await_announcement(m, s, hello, &a));
    if (!a)
        return err_new(ERR_DENIED, "transfer %llu of dataset %s is not expected here",
                       (unsigned long long)hello->transfer, UUID_STR(&hello->dataset));
    if (!uuid_eq(&a->source, peer))
        return err_new(ERR_DENIED,
                       "transfer %llu of dataset %s is expected from node %s, not from %s",
                       (unsigned long long)hello->transfer, UUID_STR(&hello->dataset),
                       UUID_STR(&a->source), UUID_STR(peer));
    s->dataset = hello->dataset;
    s->transfer = hello->transfer;
    s->only_compare = a->only_compare;
    s->serial = ++m->last_serial; /* a kept connection that is used again is newer than what came between */
    s->claimed = true;
    struct timespec until = in_us(MOVER_TAKEOVER_S * USEC_PER_SEC);
    for (int rc = 0;;) {
        TRY(end_reason(s));
        look_at_rivals(m, s, &older, &newer);
        if (newer)
            return err_new(ERR_CONFLICT, "a newer connection of the transfer took over");
        if (!older)
            return NULL;
        if (rc == ETIMEDOUT)
            return err_new(ERR_BUSY, "the previous stream of dataset %s does not end",
                           UUID_STR(&s->dataset));
        rc = pthread_cond_timedwait(&m->changed, &m->lock, &until);
    }
}

struct err *mover_claim(struct mover *m, struct stream *s, const struct mover_hello *hello,
                        const struct uuid *peer)
{
    (void)pthread_mutex_lock(&m->lock);
    struct err *e = claim_locked(m, s, hello, peer);
    if (e) {
        s->claimed = false;
        (void)pthread_cond_broadcast(&m->changed);
    }
    (void)pthread_mutex_unlock(&m->lock);
    return e;
}

void mover_unclaim(struct mover *m, struct stream *s)
{
    (void)pthread_mutex_lock(&m->lock);
    s->claimed = false;
    (void)pthread_cond_broadcast(&m->changed);
    (void)pthread_mutex_unlock(&m->lock);
}

bool mover_may_wait(struct mover *m)
{
    (void)pthread_mutex_lock(&m->lock);
    bool room = m->n_streams <= MOVER_STREAMS_MAX / 2;
    (void)pthread_mutex_unlock(&m->lock);
    return room;
}

struct err *mover_stream_check(void *cookie)
{
    return end_reason(cookie);
}

bool mover_point_is_usable(struct mover *m, const struct mover_hello *hello,
                           const struct mover_point *point)
{
    uint64_t number = mover_point_number(point);

    (void)pthread_mutex_lock(&m->lock);
    const struct announcement *a = find_announcement(m, &hello->dataset, hello->transfer);
    bool usable = !a || a->point != number || a->point_failures < MOVER_POINT_LIMIT;
    (void)pthread_mutex_unlock(&m->lock);
    return usable;
}

void mover_point_failed(struct mover *m, const struct mover_hello *hello,
                        const struct mover_point *point, bool broken)
{
    uint64_t number = mover_point_number(point);

    (void)pthread_mutex_lock(&m->lock);
    struct announcement *a = find_announcement(m, &hello->dataset, hello->transfer);
    if (a) {
        a->point_failures = a->point == number ? a->point_failures : 0;
        a->point = number;
        a->point_failures += broken ? MOVER_POINT_BROKEN : MOVER_POINT_ERROR;
    }
    (void)pthread_mutex_unlock(&m->lock);
}

void mover_wake(struct mover *m)
{
    (void)eventfd_write(m->wake_fd, 1);
}

uint16_t mover_version(const struct mover *m)
{
    return m->config.version_max ? m->config.version_max : MOVER_VERSION_MAX;
}

void mover_delete_snapshots(struct mover *m, const struct uuid *dataset,
                            const struct mover_offer *offer, const char *keep, const char *and_keep)
{
    for (size_t i = 0; i < offer->n_snapshots; i++) {
        const char *name = offer->snapshots[i].name;

        if (streq(name, keep) || streq(name, and_keep))
            continue;
        struct err *e = storage_snapshot_delete(m->config.storage, dataset, name);
        if (e)
            log_debug("mover: %s", e->text);
        (void)err_free(e);
    }
}

struct err *mover_list_snapshots(struct mover *m, const struct uuid *dataset,
                                 struct mover_offer *ret_offer)
{
    struct volume_state v = {0};
    struct mover_offer o = {0};

    TRY(storage_observe(m->config.storage, dataset, &v));
    size_t first = v.n_snapshots > MOVER_SNAPSHOTS_MAX ? v.n_snapshots - MOVER_SNAPSHOTS_MAX : 0;
    o.snapshots = xcalloc(v.n_snapshots - first, sizeof(*o.snapshots));
    for (size_t i = first; i < v.n_snapshots; i++) {
        struct mover_snapshot *s = &o.snapshots[o.n_snapshots];
        CLEANUP_FREE char *identity = NULL;
        CLEANUP_ERR struct err *e =
            storage_snapshot_identity(m->config.storage, dataset, v.snapshots[i], &identity);

        if (e && !err_is(e, ERR_NOT_FOUND)) {
            volume_state_done(&v);
            mover_offer_done(&o);
            return err_wrap(steal(&e), "snapshot %s of dataset %s", v.snapshots[i],
                            UUID_STR(dataset));
        }
        if (e || strlen(identity) > MOVER_IDENTITY_MAX || !mover_is_snapshot_name(v.snapshots[i]))
            continue;
        memcpy(s->name, v.snapshots[i], sizeof(s->name));
        memcpy(s->identity, identity, strlen(identity) + 1);
        o.n_snapshots++;
    }
    volume_state_done(&v);
    *ret_offer = o;
    return NULL;
}

/* ---- listening ---- */

#define REST_MS 500   /* when no connection can be accepted */
#define SWEEP_MS 5000 /* while connections are kept */

/* Takes the finished streams out of the list, joins and frees them. */
static void reap(struct mover *m, bool all)
{
    for (;;) {
        struct stream *done = NULL;

        (void)pthread_mutex_lock(&m->lock);
        for (struct stream **at = &m->streams; *at; at = &(*at)->next) {
            if ((*at)->finished || all) {
                done = *at;
                break;
            }
        }
        (void)pthread_mutex_unlock(&m->lock);
        if (!done)
            return;
        (void)pthread_join(done->thread,
                           NULL); /* it stays in the list, and can be ended, until it has */
        (void)pthread_mutex_lock(&m->lock);
        for (struct stream **at = &m->streams; *at; at = &(*at)->next) {
            if (*at == done) {
                *at = done->next;
                break;
            }
        }
        m->n_streams--;
        (void)pthread_mutex_unlock(&m->lock);
        free(done);
    }
}

static void take_connection(struct mover *m, int fd)
{
    struct stream *s = xcalloc(1, sizeof(*s));

    mover_socket_tune(fd);
    s->m = m;
    s->fd = fd;
    (void)pthread_mutex_lock(&m->lock);
    int rc = m->n_streams < MOVER_STREAMS_MAX ? 0 : EAGAIN;
    if (rc == 0) {
        s->serial = ++m->last_serial;
        rc = pthread_create(&s->thread, NULL, mover_receive_main, s);
    }
    if (rc == 0) {
        s->next = m->streams;
        m->streams = s;
        m->n_streams++;
    }
    (void)pthread_mutex_unlock(&m->lock);
    if (rc) {
        log_debug("mover: cannot serve one more connection: %s", strerrordesc_np(rc));
        (void)close(fd);
        free(s);
    }
}

static void *accept_main(void *cookie)
{
    struct mover *m = cookie;
    bool rest = false, kept = false;

    (void)pthread_setname_np(pthread_self(), "mover-accept");
    while (!atomic_load(&m->stopping)) {
        struct pollfd p[2] = {{.fd = m->wake_fd, .events = POLLIN},
                              {.fd = rest ? -1 : m->listen_fd, .events = POLLIN}};
        uint64_t count;

        (void)poll(p, 2, rest ? REST_MS : kept ? SWEEP_MS : -1);
        (void)!read(m->wake_fd, &count, sizeof(count));
        reap(m, false);
        kept = mover_kept_sweep(m, /* all= */ false);
        rest = false;
        if (!(p[1].revents & POLLIN))
            continue;
        int fd = accept4(m->listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd >= 0) {
            take_connection(m, fd);
        } else if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
            log_debug("mover: cannot accept a connection: %m");
            rest = true; /* it stays in the queue: do not spin */
        }
    }
    return NULL;
}

static int listen_on(const struct addrinfo *ai)
{
    int on = 1, off = 0;
    CLEANUP_CLOSE int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -1;
    (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (ai->ai_family == AF_INET6) /* "::" takes IPv4 too */
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(fd, ai->ai_addr, ai->ai_addrlen) || listen(fd, 64))
        return -1;
    return steal_fd(&fd);
}

static struct err *open_listener(struct mover *m, const char *address)
{
    /* Without an address: any, by IPv6 if there is any of it, else by IPv4. */
    const char *const tries[] = {address ? address : "::", address ? NULL : "0.0.0.0"};
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV};
    char port[8];
    int saved = 0;

    (void)snprintf(port, sizeof(port), "%u", (unsigned)m->config.port);
    for (size_t i = 0; i < ARRAY_SIZE(tries) && tries[i] && m->listen_fd < 0; i++) {
        struct addrinfo *list = NULL;

        if (getaddrinfo(tries[i], port, &hints, &list) != 0)
            return err_new(ERR_INVALID, "mover: \"%s\" is no address of this host", tries[i]);
        m->listen_fd = listen_on(list);
        saved = errno;
        freeaddrinfo(list);
    }
    if (m->listen_fd < 0)
        return err_new(saved == EADDRINUSE ? ERR_BUSY : ERR_IO,
                       "mover: cannot listen on %s port %s: %s", address ? address : "any address",
                       port, strerrordesc_np(saved));
    struct sockaddr_storage a = {0};
    socklen_t len = sizeof(a);
    if (getsockname(m->listen_fd, (struct sockaddr *)&a, &len))
        return err_errno(errno, "mover: cannot tell the own port");
    m->port = ntohs(a.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&a)->sin6_port
                                            : ((struct sockaddr_in *)&a)->sin_port);
    return NULL;
}

static struct mover *mover_free(struct mover *m)
{
    (void)mover_kept_sweep(m, /* all= */ true);
    free(m->kept);
    mem_closep(&m->listen_fd);
    mem_closep(&m->wake_fd);
    (void)pthread_cond_destroy(&m->changed);
    (void)pthread_mutex_destroy(&m->lock);
    free(m->announcements);
    free(m);
    return NULL;
}

struct err *mover_start(const struct mover_config *config, struct mover **ret_mover)
{
    pthread_condattr_t monotonic;

    if (storage_kind(config->storage) != STORAGE_LOCAL)
        return err_new(ERR_INVALID,
                       "mover: the backend %s keeps its data on shared storage, there "
                       "is nothing to move",
                       storage_backend(config->storage));
    (void)signal(SIGPIPE, SIG_IGN);
    struct mover *m = xcalloc(1, sizeof(*m));
    m->config = *config;
    m->config.address = NULL; /* not needed later */
    m->limit.rate = config->bandwidth_limit;
    m->listen_fd = -1;
    m->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    (void)pthread_mutex_init(&m->lock, NULL);
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&m->changed, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    struct err *e =
        m->wake_fd < 0 ? err_errno(errno, "mover: eventfd") : open_listener(m, config->address);
    if (!e) {
        int rc = pthread_create(&m->acceptor, NULL, accept_main, m);

        if (rc)
            e = err_errno(rc, "mover: cannot start a thread");
    }
    if (e) {
        (void)mover_free(m);
        return e;
    }
    *ret_mover = m;
    return NULL;
}

struct mover *mover_stop(struct mover *m)
{
    if (!m)
        return NULL;
    atomic_store(&m->stopping, true);
    mover_wake(m);
    (void)pthread_join(m->acceptor, NULL); /* no new streams from here on */
    (void)pthread_mutex_lock(&m->lock);
    for (struct stream *s = m->streams; s; s = s->next)
        atomic_store(&s->ended, STREAM_STOPPED);
    (void)pthread_cond_broadcast(&m->changed);
    while (m->n_sends)
        (void)pthread_cond_wait(&m->changed, &m->lock);
    (void)pthread_mutex_unlock(&m->lock);
    reap(m, true);
    return mover_free(m);
}

uint16_t mover_port(const struct mover *m)
{
    return m->port;
}
