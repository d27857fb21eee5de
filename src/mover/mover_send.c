/* The sending side: runs on the caller's thread; a second one runs storage_send() into a pipe. */
#include "base/log.h"
#include "base/now.h"
#include "mover/mover_internal.h"
#include "net/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

#define PIPE_SIZE (1024 * 1024)
#define CONNECT_MS 10000

struct sending {
    struct mover *m;
    const struct uuid *dataset;
    uint64_t transfer;
    const char *snapshot;
    struct mover_progress *progress; /* may be NULL */
    struct mover_conn *conn;
    /* what was agreed: */
    char base[SNAPSHOT_NAME_SIZE]; /* our name of it; "" = whole */
    struct mover_begin begin;
    /* the thread in storage_send(): */
    int write_fd;
    atomic_bool stop;
    pthread_t thread;
    struct err *err;
};

static bool is_cancelled(const struct sending *s)
{
    return s->progress && atomic_load(&s->progress->cancel);
}

static struct err *check(void *cookie)
{
    const struct sending *s = cookie;

    if (is_cancelled(s))
        return err_new(ERR_CANCELLED, "the transfer was cancelled");
    if (atomic_load(&s->m->stopping))
        return err_new(ERR_CANCELLED, "the agent is stopping");
    return NULL;
}

/* ---- connecting ---- */

static struct err *connect_one(struct sending *s, const struct addrinfo *ai, int *ret_fd)
{
    CLEANUP_CLOSE int fd = socket(ai->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    uint64_t end = now_os().mono_us + CONNECT_MS * USEC_PER_MSEC;
    int error = 0;
    socklen_t len = sizeof(error);

    if (fd < 0)
        return err_errno(errno, "socket");
    mover_socket_tune(fd);
    if (connect(fd, ai->ai_addr, ai->ai_addrlen) && errno != EINPROGRESS)
        return err_new(ERR_UNAVAILABLE, "%s", strerrordesc_np(errno));
    for (struct pollfd p = {.fd = fd, .events = POLLOUT}; poll(&p, 1, MOVER_SLICE_MS) <= 0;) {
        TRY(check(s));
        if (now_os().mono_us > end)
            return err_new(ERR_UNAVAILABLE, "no answer within %d seconds", CONNECT_MS / 1000);
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) || error)
        return err_new(ERR_UNAVAILABLE, "%s", strerrordesc_np(error ? error : errno));
    *ret_fd = steal_fd(&fd);
    return NULL;
}

static struct err *connect_peer(struct sending *s, const char *host, uint16_t port, int *ret_fd)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV}, *list = NULL;
    struct err *e = NULL;
    char service[8];

    (void)snprintf(service, sizeof(service), "%u", (unsigned)port);
    int rc = getaddrinfo(host, service, &hints, &list);
    if (rc)
        return err_new(ERR_UNAVAILABLE, "%s", gai_strerror(rc));
    for (const struct addrinfo *ai = list; ai; ai = ai->ai_next) {
        (void)err_free(e);
        e = connect_one(s, ai, ret_fd);
        if (!e || err_is(e, ERR_CANCELLED))
            break;
    }
    freeaddrinfo(list);
    return e;
}

/* ---- agreeing ---- */

static const struct mover_snapshot *find_identity(const struct mover_offer *o, const char *identity)
{
    for (size_t i = o->n_snapshots; i--;) {
        if (streq(o->snapshots[i].identity, identity))
            return &o->snapshots[i];
    }
    return NULL;
}

static const struct mover_snapshot *find_name(const struct mover_offer *o, const char *name)
{
    for (size_t i = 0; i < o->n_snapshots; i++) {
        if (streq(o->snapshots[i].name, name))
            return &o->snapshots[i];
    }
    return NULL;
}

/* Decides what to send. *ret_there: nothing, the peer has it. */
static struct err *choose(struct sending *s, const struct mover_offer *ours,
                          const struct mover_offer *theirs, bool *ret_there)
{
    const struct mover_snapshot *wanted = find_name(ours, s->snapshot);

    if (!wanted)
        return err_new(ERR_NOT_FOUND, "there is no snapshot %s of dataset %s here", s->snapshot,
                       UUID_STR(s->dataset));
    const struct mover_snapshot *there = find_name(theirs, s->snapshot);
    *ret_there = there != NULL;
    if (there && !streq(there->identity, wanted->identity))
        return err_new(ERR_CONFLICT, "the receiver has another snapshot %s of dataset %s",
                       s->snapshot, UUID_STR(s->dataset));
    memcpy(s->begin.identity, wanted->identity, sizeof(s->begin.identity));
    for (const struct mover_snapshot *base = wanted; base-- > ours->snapshots;) { /* newest first */
        const struct mover_snapshot *same = find_identity(theirs, base->identity);

        if (same) {
            memcpy(s->base, base->name, sizeof(s->base));
            memcpy(s->begin.base, same->name, sizeof(s->begin.base));
            return NULL;
        }
    }
    return NULL;
}

static struct err *agree(struct sending *s, bool *ret_there)
{
    struct mover_hello hello = {.version_min = MOVER_VERSION_MIN,
                                .version_max = MOVER_VERSION_MAX,
                                .dataset = *s->dataset,
                                .transfer = s->transfer};
    CLEANUP(mover_offer_done) struct mover_offer ours = {0}, theirs = {0};
    CLEANUP_STR struct str payload = {0};
    struct mover_header h;

    memcpy(hello.snapshot, s->snapshot, strlen(s->snapshot) + 1);
    mover_hello_encode(&hello, &payload);
    TRY(mover_conn_write(s->conn, MOVER_HELLO, payload.data, payload.len));
    TRY(mover_list_snapshots(s->m, s->dataset, &ours));
    TRY(mover_conn_expect(s->conn, MOVER_OFFER, &h));
    TRY(mover_offer_decode(s->conn->input, h.length, &theirs));
    if (theirs.version < MOVER_VERSION_MIN || theirs.version > MOVER_VERSION_MAX)
        return err_new(ERR_CORRUPT, "the mover's peer chose version %u, which it was not offered",
                       theirs.version);
    return choose(s, &ours, &theirs, ret_there);
}

/* ---- streaming ---- */

static void *storage_main(void *cookie)
{
    struct sending *s = cookie;

    const struct stream_spec stream = {.base = s->base[0] ? s->base : NULL, .snapshot = s->snapshot};

    s->err = storage_send(s->m->config.storage, s->dataset, &stream, s->write_fd, &s->stop);
    mem_closep(&s->write_fd); /* end of the stream */
    return NULL;
}

/* The peer speaks while we send: it is still there, or it says why not. */
static struct err *on_input(void *cookie, struct mover_conn *c)
{
    struct mover_header h;

    return mover_conn_expect(c, MOVER_WORKING, &h);
}

static struct err *hear(struct sending *s)
{
    while (mover_conn_has_input(s->conn))
        TRY(on_input(s, s->conn));
    return NULL;
}

/* A broken connection may have an error frame in it that says why. */
static struct err *reason_of(struct sending *s, struct err *e)
{
    s->conn->idle_ms = 500;
    s->conn->check = NULL;
    s->conn->on_input = NULL;
    for (;;) {
        struct mover_header h;
        struct err *said = mover_conn_read(s->conn, &h);

        if (!said)
            continue; /* what it said before */
        bool own = err_is(said, ERR_UNAVAILABLE) || err_is(said, ERR_CORRUPT);
        (void)err_free(own ? said : e);
        return own ? e : said;
    }
}

/* One round of the pump: waits for bytes of the storage or of the peer. *ret_n: bytes now in the
 * payload; *ret_eof: the storage is done. */
static struct err *pump_in(struct sending *s, int fd, size_t *ret_n, bool *ret_eof)
{
    struct pollfd p[2] = {{.fd = fd, .events = POLLIN}, {.fd = s->conn->fd, .events = POLLIN}};

    *ret_n = 0;
    *ret_eof = false;
    TRY(check(s));
    if (poll(p, 2, MOVER_SLICE_MS) < 0 && errno != EINTR)
        return err_errno(errno, "cannot wait for the stream");
    TRY(hear(s));
    ssize_t n = read(fd, mover_conn_payload(s->conn), MOVER_PAYLOAD_MAX);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        return err_errno(errno, "cannot read the stream");
    *ret_n = n > 0 ? (size_t)n : 0;
    *ret_eof = n == 0;
    return NULL;
}

static struct err *pump(struct sending *s, int fd, XXH3_state_t *hash, struct mover_end *end)
{
    for (;;) {
        bool eof;
        size_t n;

        TRY(pump_in(s, fd, &n, &eof));
        if (eof)
            return NULL;
        if (n == 0 && now_os().mono_us - s->conn->wrote_us < MOVER_KEEPALIVE_US)
            continue;
        (void)XXH3_64bits_update(hash, mover_conn_payload(s->conn), n);
        end->length += n;
        struct err *e = mover_conn_write(s->conn, MOVER_DATA, mover_conn_payload(s->conn), n);
        if (e)
            return err_is(e, ERR_UNAVAILABLE) ? reason_of(s, e) : e;
        if (s->progress)
            (void)__atomic_fetch_add(&s->progress->bytes, n, __ATOMIC_RELAXED);
    }
}

/* Runs storage_send() and passes its output on. */
static struct err *stream(struct sending *s, struct mover_end *end)
{
    int fds[2];
    XXH3_state_t *hash = XXH3_createState();

    if (!hash || XXH3_64bits_reset(hash) != XXH_OK)
        mem_exhausted();
    if (pipe2(fds, O_CLOEXEC)) {
        XXH3_freeState(hash);
        return err_errno(errno, "cannot make a pipe");
    }
    CLEANUP_CLOSE int fd = fds[0];
    s->write_fd = fds[1];
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);     /* our end only */
    (void)fcntl(fd, F_SETPIPE_SZ, PIPE_SIZE); /* half as fast without */
    int rc = pthread_create(&s->thread, NULL, storage_main, s);
    if (rc) {
        XXH3_freeState(hash);
        mem_closep(&s->write_fd);
        return err_errno(rc, "cannot start a thread");
    }
    struct err *e = pump(s, fd, hash, end);
    if (e)
        atomic_store(&s->stop, true);
    mem_closep(&fd);
    fd = -1;
    (void)pthread_join(s->thread, NULL);
    if (e)
        s->err = err_free(s->err); /* only a consequence */
    else
        e = steal(&s->err);
    end->hash = XXH3_64bits_digest(hash);
    XXH3_freeState(hash);
    return e;
}

/* Everything after the handshake. */
static struct err *transfer(struct sending *s)
{
    CLEANUP_STR struct str payload = {0};
    struct mover_end end = {0};
    struct mover_header h;
    bool there;

    TRY(agree(s, &there));
    if (there)
        return mover_conn_write(s->conn, MOVER_BYE, NULL, 0);
    mover_begin_encode(&s->begin, &payload);
    TRY(mover_conn_write(s->conn, MOVER_BEGIN, payload.data, payload.len));
    s->conn->on_input = on_input;
    struct err *e = stream(s, &end);
    s->conn->on_input = NULL;
    if (e)
        return e;
    payload.len = 0;
    mover_end_encode(&end, &payload);
    e = mover_conn_write(s->conn, MOVER_END, payload.data, payload.len);
    if (e)
        return err_is(e, ERR_UNAVAILABLE) ? reason_of(s, e) : e;
    do
        TRY(mover_conn_read(s->conn, &h));
    while (h.type == MOVER_WORKING);
    if (h.type != MOVER_ACK)
        return err_new(ERR_CORRUPT, "the mover's peer sent frame %d where its confirmation belongs",
                       (int)h.type);
    return NULL;
}

static struct err *run(struct sending *s, const struct uuid *peer, const char *host, uint16_t port)
{
    SSL *ssl = NULL;
    int fd = -1;

    struct err *e = connect_peer(s, host, port, &fd);
    if (e)
        return err_wrap(e, "cannot reach the mover of node %s at %s port %u", UUID_STR(peer), host,
                        (unsigned)port);
    e = tls_client_ssl(s->m->config.client, peer, &ssl);
    if (e) {
        (void)close(fd);
        return e;
    }
    s->conn = mover_conn_new(fd, ssl);
    s->conn->check = check;
    s->conn->cookie = s;
    e = mover_conn_handshake(s->conn);
    if (!e)
        e = transfer(s);
    s->conn = mover_conn_free(s->conn);
    /* The peer's own cancelling is not our caller's. */
    if (err_is(e, ERR_CANCELLED) && !is_cancelled(s) && !atomic_load(&s->m->stopping))
        e->code = ERR_UNAVAILABLE;
    return err_wrap(e, "sending snapshot %s of dataset %s to node %s at %s port %u", s->snapshot,
                    UUID_STR(s->dataset), UUID_STR(peer), host, (unsigned)port);
}

struct err *mover_send_sync(struct mover *m, const struct uuid *dataset, uint64_t transfer,
                            const char *snapshot, const struct uuid *peer, const char *peer_host,
                            uint16_t peer_port, struct mover_progress *progress)
{
    struct sending s = {.m = m,
                        .dataset = dataset,
                        .transfer = transfer,
                        .snapshot = snapshot,
                        .progress = progress,
                        .write_fd = -1};

    if (!mover_is_snapshot_name(snapshot))
        return err_new(ERR_INVALID, "\"%.80s\" is no name of a snapshot", snapshot);
    (void)pthread_mutex_lock(&m->lock);
    m->n_sends++;
    (void)pthread_mutex_unlock(&m->lock);
    struct err *e = run(&s, peer, peer_host, peer_port);
    (void)pthread_mutex_lock(&m->lock);
    m->n_sends--;
    (void)pthread_cond_broadcast(&m->changed);
    (void)pthread_mutex_unlock(&m->lock);
    return e;
}
