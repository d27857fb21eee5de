/* The sending side: runs on the caller's thread; a second one runs storage_send() into a pipe. */
#include "base/log.h"
#include "base/now.h"
#include "mover/mover_compress.h"
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

/* storage_send(), in a thread of its own that writes into a pipe. */
struct source {
    struct storage *storage;
    const struct uuid *dataset;
    struct stream_spec stream;
    int read_fd, write_fd;
    atomic_bool stop;
    pthread_t thread;
    struct err *err; /* its result, after the thread */
};

struct sending {
    struct mover_sending s; /* first: functions that get it get the whole */
    /* what was agreed: */
    char base[SNAPSHOT_NAME_SIZE]; /* our name of it; "" = whole */
    struct mover_begin begin;
    char point_base[SNAPSHOT_NAME_SIZE]; /* our name of the point's */
    struct mover_point point;            /* from which to try to go on; snapshot "" = none */
    struct source source;
    struct mover_packer *packer; /* NULL = nothing is compressed */
};

static bool is_cancelled(const struct mover_sending *s)
{
    return s->progress && atomic_load(&s->progress->cancel);
}

static struct err *check(void *cookie)
{
    const struct mover_sending *s = cookie;

    if (is_cancelled(s))
        return err_new(ERR_CANCELLED, "the transfer was cancelled");
    if (atomic_load(&s->m->stopping))
        return err_new(ERR_CANCELLED, "the agent is stopping");
    return NULL;
}

/* ---- connecting ---- */

static struct err *connect_one(struct mover_sending *s, const struct addrinfo *ai, int *ret_fd)
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

static struct err *connect_peer(struct mover_sending *s, const char *host, uint16_t port, int *ret_fd)
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

/* The newest snapshot that both have, below `wanted`. */
static void choose_base(struct sending *s, const struct mover_offer *ours,
                        const struct mover_offer *theirs, const struct mover_snapshot *wanted)
{
    for (const struct mover_snapshot *base = wanted; base-- > ours->snapshots;) { /* newest first */
        const struct mover_snapshot *same = find_identity(theirs, base->identity);

        if (same) {
            memcpy(s->base, base->name, sizeof(s->base));
            memcpy(s->begin.base, same->name, sizeof(s->begin.base));
            return;
        }
    }
}

/* Takes the peer's point, if it is one of what is to be sent, and its base is here. */
static void choose_point(struct sending *s, const struct mover_offer *ours,
                         const struct mover_offer *theirs)
{
    const struct mover_point *p = &theirs->point;

    if (!streq(p->snapshot, s->s.what->snapshot) || !streq(p->identity, s->begin.identity))
        return;
    if (p->base[0]) {
        const struct mover_snapshot *there = mover_offer_find(theirs, p->base);
        const struct mover_snapshot *here = there ? find_identity(ours, there->identity) : NULL;

        if (!here)
            return;
        memcpy(s->point_base, here->name, sizeof(s->point_base));
    }
    s->point = *p;
}

/* Decides what to send. *ret_there: nothing, the peer has it. */
static struct err *choose(struct sending *s, const struct mover_offer *ours,
                          const struct mover_offer *theirs, bool *ret_there)
{
    const struct mover_send *what = s->s.what;
    const struct mover_snapshot *wanted = mover_offer_find(ours, what->snapshot);

    if (!wanted)
        return err_new(ERR_NOT_FOUND, "there is no snapshot %s of dataset %s here", what->snapshot,
                       UUID_STR(&what->dataset));
    const struct mover_snapshot *there = mover_offer_find(theirs, what->snapshot);
    *ret_there = there != NULL;
    if (there && !streq(there->identity, wanted->identity))
        return err_new(ERR_CONFLICT, "the receiver has another snapshot %s of dataset %s",
                       what->snapshot, UUID_STR(&what->dataset));
    memcpy(s->begin.identity, wanted->identity, sizeof(s->begin.identity));
    choose_base(s, ours, theirs, wanted);
    choose_point(s, ours, theirs);
    return NULL;
}

struct err *mover_greet(struct mover_sending *s, struct mover_offer *ret_ours,
                        struct mover_offer *ret_theirs)
{
    struct mover_hello hello = {.version_min = MOVER_VERSION_MIN,
                                .version_max = mover_version(s->m),
                                .dataset = s->what->dataset,
                                .transfer = s->what->transfer};
    CLEANUP(mover_offer_done) struct mover_offer ours = {0}, theirs = {0};
    CLEANUP_STR struct str payload = {0};
    struct mover_header h;

    memcpy(hello.snapshot, s->what->snapshot, strlen(s->what->snapshot) + 1);
    mover_hello_encode(&hello, &payload);
    TRY(mover_conn_write(s->conn, MOVER_HELLO, payload.data, payload.len));
    TRY(mover_list_snapshots(s->m, &s->what->dataset, &ours));
    TRY(mover_conn_expect(s->conn, MOVER_OFFER, &h));
    TRY(mover_offer_decode(s->conn->input, h.length, &theirs));
    if (theirs.version < MOVER_VERSION_MIN || theirs.version > hello.version_max)
        return err_new(ERR_CORRUPT, "the mover's peer chose version %u, which it was not offered",
                       theirs.version);
    s->version = s->conn->version = theirs.version;
    *ret_ours = ours;
    *ret_theirs = theirs;
    ours = theirs = (struct mover_offer){0};
    return NULL;
}

static struct err *agree(struct sending *s, bool *ret_there)
{
    CLEANUP(mover_offer_done) struct mover_offer ours = {0}, theirs = {0};

    TRY(mover_greet(&s->s, &ours, &theirs));
    return choose(s, &ours, &theirs, ret_there);
}

/* ---- the storage's side ---- */

static void *source_main(void *cookie)
{
    struct source *src = cookie;

    src->err = storage_send(src->storage, src->dataset, &src->stream, src->write_fd, &src->stop);
    mem_closep(&src->write_fd); /* end of the stream */
    return NULL;
}

static struct err *source_start(struct source *src)
{
    int fds[2];

    if (pipe2(fds, O_CLOEXEC))
        return err_errno(errno, "cannot make a pipe");
    src->read_fd = fds[0];
    src->write_fd = fds[1];
    atomic_store(&src->stop, false);
    (void)fcntl(src->read_fd, F_SETFL, O_NONBLOCK);     /* our end only */
    (void)fcntl(src->read_fd, F_SETPIPE_SZ, PIPE_SIZE); /* half as fast without */
    int rc = pthread_create(&src->thread, NULL, source_main, src);
    if (rc) {
        mem_closep(&src->read_fd);
        mem_closep(&src->write_fd);
        src->read_fd = -1;
        return err_errno(rc, "cannot start a thread");
    }
    return NULL;
}

/* Ends it, if it has not ended, and waits. Its error, or NULL. */
static struct err *source_end(struct source *src)
{
    if (src->read_fd < 0)
        return NULL;
    mem_closep(&src->read_fd);
    src->read_fd = -1;
    (void)pthread_join(src->thread, NULL);
    return steal(&src->err);
}

static void source_stop(struct source *src)
{
    atomic_store(&src->stop, true);
    (void)err_free(source_end(src)); /* only a consequence */
}

/* ---- streaming ---- */

/* The peer speaks while we send: it is still there, or it says why not. */
static struct err *on_input(void *cookie, struct mover_conn *c)
{
    struct mover_header h;

    return mover_conn_expect(c, MOVER_WORKING, &h);
}

static struct err *hear(struct sending *s)
{
    while (mover_conn_has_input(s->s.conn))
        TRY(on_input(s, s->s.conn));
    return NULL;
}

/* A broken connection may have an error frame in it that says why. */
static struct err *reason_of(struct mover_conn *c, struct err *e)
{
    c->idle_ms = 500;
    c->check = NULL;
    c->on_input = NULL;
    for (;;) {
        struct mover_header h;
        struct err *said = mover_conn_read(c, &h);

        if (!said)
            continue; /* what it said before */
        bool own = err_is(said, ERR_UNAVAILABLE) || err_is(said, ERR_CORRUPT);
        (void)err_free(own ? said : e);
        return own ? e : said;
    }
}

static void add_progress(uint64_t *to, uint64_t n)
{
    (void)__atomic_fetch_add(to, n, __ATOMIC_RELAXED);
}

/* One round of the pump: waits for bytes of the storage or of the peer. *ret_n: bytes now in the
 * payload; *ret_eof: the storage is done. */
static struct err *pump_in(struct sending *s, size_t max, size_t *ret_n, bool *ret_eof)
{
    struct mover_conn *c = s->s.conn;
    struct pollfd p[2] = {{.fd = s->source.read_fd, .events = POLLIN},
                          {.fd = c->fd, .events = POLLIN}};

    *ret_n = 0;
    *ret_eof = false;
    TRY(check(s));
    if (poll(p, 2, MOVER_SLICE_MS) < 0 && errno != EINTR)
        return err_errno(errno, "cannot wait for the stream");
    TRY(hear(s));
    ssize_t n = read(s->source.read_fd, mover_conn_payload(c), max);
    if (n < 0 && errno != EAGAIN && errno != EINTR)
        return err_errno(errno, "cannot read the stream");
    *ret_n = n > 0 ? (size_t)n : 0;
    *ret_eof = n == 0;
    return NULL;
}

/* Until what all streams of this node may send has room for `n` bytes. */
static struct err *await_limit(struct sending *s, size_t n, uint64_t *waited_us)
{
    struct mover *m = s->s.m;

    if (!m->limit.rate || s->s.what->final)
        return NULL;
    uint64_t began = now_os().mono_us;
    (void)pthread_mutex_lock(&m->lock);
    uint64_t at = mover_limit_take(&m->limit, began, n);
    (void)pthread_mutex_unlock(&m->lock);
    for (uint64_t now = began; now < at; now = now_os().mono_us) {
        uint64_t left_ms = (at - now) / USEC_PER_MSEC + 1;
        short revents;

        TRY(mover_conn_poll(s->s.conn, s->s.conn->fd, POLLIN,
                            left_ms < MOVER_SLICE_MS ? (int)left_ms : MOVER_SLICE_MS, &revents));
        TRY(hear(s));
    }
    *waited_us += now_os().mono_us - began;
    return NULL;
}

/* Sends the `n` bytes that are in the payload; none: says that we are here. */
static struct err *put_data(struct sending *s, size_t n)
{
    struct mover_conn *c = s->s.conn;
    enum mover_frame type = MOVER_DATA;
    const uint8_t *bytes = mover_conn_payload(c);
    size_t wire = n;
    uint64_t blocked_us = 0, before_us = c->blocked_us;

    if (s->packer && mover_pack(s->packer, bytes, n, &bytes, &wire))
        type = MOVER_ZSTD;
    TRY(await_limit(s, MOVER_HEADER_SIZE + wire, &blocked_us));
    struct err *e = mover_conn_write(c, type, bytes, wire);
    if (e)
        return err_is(e, ERR_UNAVAILABLE) ? reason_of(c, e) : e;
    if (s->packer)
        mover_pack_sent(s->packer, n, wire, blocked_us + c->blocked_us - before_us);
    if (s->s.progress) {
        add_progress(&s->s.progress->bytes, n);
        add_progress(&s->s.progress->wire, wire);
    }
    return NULL;
}

static struct err *pump(struct sending *s, XXH3_state_t *hash, struct mover_end *end)
{
    size_t max = (size_t)mover_limit_piece(&s->s.m->limit, MOVER_PAYLOAD_MAX);

    for (;;) {
        uint64_t began = now_os().mono_us;
        bool eof;
        size_t n;

        TRY(pump_in(s, max, &n, &eof));
        if (eof)
            return NULL;
        if (s->packer)
            mover_pack_idle(s->packer, now_os().mono_us - began);
        if (n == 0 && !mover_conn_is_quiet(s->s.conn))
            continue;
        (void)XXH3_64bits_update(hash, mover_conn_payload(s->s.conn), n);
        end->length += n;
        TRY(put_data(s, n));
    }
}

/* The storage itself failed: the peer must not think that only the connection broke. */
static struct err *source_failed(struct sending *s, struct err *e)
{
    if (!err_is(e, ERR_CANCELLED))
        mover_conn_end_with_error(s->s.conn, e);
    return e;
}

/* Passes on what the storage writes until its end. */
static struct err *stream(struct sending *s, struct mover_end *end)
{
    XXH3_state_t *hash = XXH3_createState();

    if (!hash || XXH3_64bits_reset(hash) != XXH_OK)
        mem_exhausted();
    struct err *e = pump(s, hash, end);
    end->hash = XXH3_64bits_digest(hash);
    (void)XXH3_freeState(hash);
    if (e) {
        source_stop(&s->source);
        return e;
    }
    e = source_end(&s->source);
    return e ? source_failed(s, e) : NULL;
}

/* ---- where the stream begins ---- */

static struct err *say_here(struct sending *s)
{
    if (!mover_conn_is_quiet(s->s.conn))
        return NULL;
    return mover_conn_write(s->s.conn, MOVER_WORKING, NULL, 0);
}

/* Passes by what the peer has already. *ret_same: it is what the peer has. */
static struct err *skip(struct sending *s, XXH3_state_t *hash, bool *ret_same)
{
    uint64_t left = s->point.offset;
    bool eof = false;

    while (left && !eof) {
        size_t n;

        TRY(pump_in(s, left < MOVER_PAYLOAD_MAX ? (size_t)left : MOVER_PAYLOAD_MAX, &n, &eof));
        (void)XXH3_128bits_update(hash, mover_conn_payload(s->s.conn), n);
        left -= n;
        if (s->s.progress)
            add_progress(&s->s.progress->skipped, n);
        TRY(say_here(s));
    }
    XXH128_hash_t h = XXH3_128bits_digest(hash);
    *ret_same = !left && h.low64 == s->point.hash_low && h.high64 == s->point.hash_high;
    return NULL;
}

static struct err *skip_to_offset(struct sending *s, bool *ret_same)
{
    XXH3_state_t *hash = XXH3_createState();

    if (!hash || XXH3_128bits_reset(hash) != XXH_OK)
        mem_exhausted();
    struct err *e = skip(s, hash, ret_same);
    (void)XXH3_freeState(hash);
    return e;
}

/* A token that the storage does not take shows before the first byte. *ret_taken: there is one. */
static struct err *await_first(struct sending *s, bool *ret_taken)
{
    for (;;) {
        struct pollfd p = {.fd = s->source.read_fd, .events = POLLIN};

        TRY(check(s));
        if (poll(&p, 1, MOVER_SLICE_MS) > 0) {
            *ret_taken = p.revents & POLLIN;
            return NULL;
        }
        TRY(hear(s));
        TRY(say_here(s));
    }
}

/* The source, at the place where the peer's point is; *ret_there false: it does not come there. */
static struct err *go_to_point(struct sending *s, const struct stream_point *from, bool *ret_there)
{
    bool token = s->point.token[0];

    s->source.stream.base = s->point_base[0] ? s->point_base : NULL;
    s->source.stream.from = token ? from : NULL;
    TRY(source_start(&s->source));
    struct err *e = token ? await_first(s, ret_there) : skip_to_offset(s, ret_there);
    if (!e && *ret_there)
        return NULL;
    source_stop(&s->source);
    return e;
}

static void set_skipping(struct sending *s, bool skipping)
{
    if (s->s.progress)
        atomic_store(&s->s.progress->skipping, skipping);
}

/* Tries to go on where an earlier stream was cut. *ret_there: the source is running, and `begin` says from
 * where. */
static struct err *try_point(struct sending *s, const struct stream_point *from, bool *ret_there)
{
    *ret_there = false;
    if (!s->point.snapshot[0])
        return NULL;
    set_skipping(s, true);
    struct err *e = go_to_point(s, from, ret_there);
    set_skipping(s, false);
    TRY(e);
    if (!*ret_there) {
        log_info("dataset %s: what the receiver has of snapshot %s is not what would be sent now: it "
                 "is sent from the beginning",
                 UUID_STR(&s->s.what->dataset), s->s.what->snapshot);
        if (s->s.progress)
            __atomic_store_n(&s->s.progress->skipped, 0, __ATOMIC_RELAXED);
        return NULL;
    }
    s->begin.from = s->point.token[0] ? MOVER_FROM_TOKEN : MOVER_FROM_OFFSET;
    s->begin.offset = s->point.token[0] ? 0 : s->point.offset;
    memcpy(s->begin.base, s->point.base, sizeof(s->begin.base));
    return NULL;
}

/* Only for people. */
static void estimate(struct sending *s)
{
    uint64_t total = 0;
    struct stream_spec whole = s->source.stream;

    if (!s->s.progress)
        return;
    whole.from = NULL;
    CLEANUP_ERR struct err *e =
        storage_stream_size(s->s.m->config.storage, &s->s.what->dataset, &whole, &total);
    if (e)
        log_debug("mover: %s", e->text);
    __atomic_store_n(&s->s.progress->total, total, __ATOMIC_RELAXED);
}

/* Starts the storage's stream, and says BEGIN. */
static struct err *begin(struct sending *s, const struct stream_point *from)
{
    CLEANUP_STR struct str payload = {0};
    bool there;

    s->source.stream.base = s->point.snapshot[0] && s->point_base[0] ? s->point_base
                            : s->base[0]                             ? s->base
                                                                     : NULL;
    estimate(s);
    TRY(try_point(s, from, &there));
    if (!there) {
        s->source.stream.base = s->base[0] ? s->base : NULL;
        s->source.stream.from = NULL;
        TRY(source_start(&s->source));
    }
    mover_begin_encode(&s->begin, s->s.version, &payload);
    struct err *e = mover_conn_write(s->s.conn, MOVER_BEGIN, payload.data, payload.len);
    if (e)
        source_stop(&s->source);
    return e;
}

static struct err *finish(struct sending *s, const struct mover_end *end)
{
    CLEANUP_STR struct str payload = {0};
    struct mover_header h;

    mover_end_encode(end, &payload);
    struct err *e = mover_conn_write(s->s.conn, MOVER_END, payload.data, payload.len);
    if (e)
        return err_is(e, ERR_UNAVAILABLE) ? reason_of(s->s.conn, e) : e;
    do
        TRY(mover_conn_read(s->s.conn, &h));
    while (h.type == MOVER_WORKING);
    if (h.type != MOVER_ACK)
        return err_new(ERR_CORRUPT, "the mover's peer sent frame %d where its confirmation belongs",
                       (int)h.type);
    return NULL;
}

/* Everything after the handshake. */
static struct err *transfer(struct mover_sending *base)
{
    struct sending *s = (struct sending *)base;
    struct mover_end end = {0};
    bool there;

    TRY(agree(s, &there));
    if (there)
        return mover_conn_write(base->conn, MOVER_BYE, NULL, 0);
    struct mover_point *p = &s->point;
    const struct stream_point from = {.snapshot = p->snapshot,
                                      .identity = p->identity,
                                      .base = p->base,
                                      .offset = p->offset,
                                      .hash_low = p->hash_low,
                                      .hash_high = p->hash_high,
                                      .token = p->token[0] ? p->token : NULL};
    TRY(begin(s, &from));
    s->packer = base->version >= 2 ? mover_packer_new() : NULL;
    base->conn->on_input = on_input;
    struct err *e = stream(s, &end);
    base->conn->on_input = NULL;
    s->packer = mover_packer_free(s->packer);
    return e ? e : finish(s, &end);
}

/* ---- calls ---- */

/* A new connection, or an error for people. */
static struct err *open_connection(struct mover_sending *s)
{
    const struct mover_send *w = s->what;
    SSL *ssl = NULL;
    int fd = -1;

    struct err *e = connect_peer(s, w->peer_host, w->peer_port, &fd);
    if (e)
        return err_wrap(e, "cannot reach the mover of node %s at %s port %u", UUID_STR(&w->peer),
                        w->peer_host, (unsigned)w->peer_port);
    e = tls_client_ssl(s->m->config.client, &w->peer, &ssl);
    if (e) {
        (void)close(fd);
        return e;
    }
    s->conn = mover_conn_new(fd, ssl);
    s->conn->check = check;
    s->conn->cookie = s;
    return NULL;
}

/* On the connection of the stream before, if it is still there. *ret_tried false: it is not, as shows before the peer
 * has said anything; nothing is lost by a new one. */
static struct err *run_on_kept(struct mover_sending *s, struct err *(*fn)(struct mover_sending *s), bool *ret_tried)
{
    *ret_tried = false;
    s->conn = mover_kept_take(s->m, s->what);
    if (!s->conn)
        return NULL;
    s->version = 0;
    s->conn->check = check;
    s->conn->cookie = s;
    struct err *e = fn(s);
    *ret_tried = !e || s->version || is_cancelled(s) || atomic_load(&s->m->stopping);
    if (*ret_tried)
        return e;
    log_debug("mover: the connection that was kept is gone: %s", e->text);
    (void)err_free(e);
    s->conn = mover_conn_free(s->conn);
    return NULL;
}

/* After the last stream of a transfer there is no next one. */
static void end_connection(struct mover_sending *s, bool well)
{
    struct mover_conn *c = steal(&s->conn);

    if (c && well && c->version >= 3 && !s->what->final)
        mover_kept_put(s->m, s->what, c);
    else
        (void)mover_conn_free(c);
}

static struct err *run(struct mover_sending *s, struct err *(*fn)(struct mover_sending *s),
                       const char *doing)
{
    const struct mover_send *w = s->what;
    bool tried;
    struct err *e = run_on_kept(s, fn, &tried);

    if (!tried) {
        TRY(open_connection(s));
        e = mover_conn_handshake(s->conn);
        if (!e)
            e = fn(s);
    }
    end_connection(s, e == NULL);
    /* The peer's own cancelling is not our caller's. */
    if (err_is(e, ERR_CANCELLED) && !is_cancelled(s) && !atomic_load(&s->m->stopping))
        e->code = ERR_UNAVAILABLE;
    return err_wrap(e, "%s snapshot %s of dataset %s to node %s at %s port %u", doing, w->snapshot,
                    UUID_STR(&w->dataset), UUID_STR(&w->peer), w->peer_host, (unsigned)w->peer_port);
}

struct err *mover_with_peer(struct mover_sending *s, struct err *(*fn)(struct mover_sending *s),
                            const char *doing)
{
    struct mover *m = s->m;

    if (!mover_is_snapshot_name(s->what->snapshot))
        return err_new(ERR_INVALID, "\"%.80s\" is no name of a snapshot", s->what->snapshot);
    (void)pthread_mutex_lock(&m->lock);
    m->n_sends++;
    (void)pthread_mutex_unlock(&m->lock);
    struct err *e = run(s, fn, doing);
    (void)pthread_mutex_lock(&m->lock);
    m->n_sends--;
    (void)pthread_cond_broadcast(&m->changed);
    (void)pthread_mutex_unlock(&m->lock);
    return e;
}

struct err *mover_send_sync(struct mover *m, const struct mover_send *what,
                            struct mover_progress *progress)
{
    struct sending s = {
        .s = {.m = m, .what = what, .progress = progress},
        .source = {.storage = m->config.storage,
                   .dataset = &what->dataset,
                   .stream = {.snapshot = what->snapshot},
                   .read_fd = -1,
                   .write_fd = -1}};

    return mover_with_peer(&s.s, transfer, "sending");
}
