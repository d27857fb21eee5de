/* The receiving side of one stream.
 *
 * The connection's thread reads frames and feeds them into a socket pair; a second thread runs
 * storage_receive() on its other end. Why not a pipe: a stream that broke must not look like one
 * that ended. One byte lies unread in our end of the pair. When we close it so, the reader gets
 * ECONNRESET; only after a good END frame we take the byte out first, and the reader gets a clean
 * end of file. */
#include "base/log.h"
#include "base/now.h"
#include "mover/mover_compress.h"
#include "mover/mover_internal.h"
#include "net/tls.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>
#include <xxhash.h>

#define PAIR_BUFFER (1024 * 1024)

/* The thread in storage_receive(). */
struct intake {
    struct mover *m;
    const struct mover_hello *hello;
    const struct mover_begin *begin;
    const struct stream_point *from; /* NULL = from the start */
    uint16_t version;
    int feed_fd; /* our end; -1 once closed */
    int read_fd; /* the storage's end; closed when it is done */
    int done_fd; /* eventfd, readable when it is done */
    pthread_t thread;
    atomic_bool done;
    struct err *err; /* its result, when done */
};

static void *intake_main(void *cookie)
{
    struct intake *in = cookie;
    const struct stream_spec stream = {.base = in->begin->base[0] ? in->begin->base : NULL,
                                       .snapshot = in->hello->snapshot,
                                       .identity = in->begin->identity,
                                       .from = in->from};

    in->err = storage_receive(in->m->config.storage, &in->hello->dataset, &stream, in->read_fd);
    (void)shutdown(in->read_fd, SHUT_RDWR); /* whoever feeds gets an error at once */
    atomic_store(&in->done, true);
    (void)eventfd_write(in->done_fd, 1);
    return NULL;
}

static void intake_close(struct intake *in)
{
    mem_closep(&in->feed_fd);
    mem_closep(&in->read_fd);
    mem_closep(&in->done_fd);
}

static struct err *intake_start(struct intake *in)
{
    int fds[2], size = PAIR_BUFFER;

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
        return err_errno(errno, "cannot make a socket pair");
    in->feed_fd = fds[0];
    in->read_fd = fds[1];
    in->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    (void)setsockopt(in->feed_fd, SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size));
    int rc = in->done_fd < 0 || send(in->read_fd, "x", 1, MSG_NOSIGNAL) != 1 ? errno : 0;
    if (rc == 0)
        rc = pthread_create(&in->thread, NULL, intake_main, in);
    if (rc) {
        intake_close(in);
        return err_errno(rc, "cannot start receiving");
    }
    return NULL;
}

/* The stream broke: the storage must see that; it keeps at most what can be continued. Returns the storage's own
 * error, if it had one before, or NULL. */
static struct err *intake_abort(struct intake *in)
{
    bool had = atomic_load(&in->done);

    mem_closep(&in->feed_fd);
    in->feed_fd = -1;
    (void)pthread_join(in->thread, NULL);
    struct err *e = steal(&in->err);
    intake_close(in);
    if (had)
        return e;
    if (e)
        log_debug("mover: broken stream of %s: %s", in->hello->snapshot, e->text);
    else
        log_debug("mover: %s was complete before its stream broke", in->hello->snapshot);
    return err_free(e);
}

static struct err *keep_alive(struct mover_conn *c)
{
    if (!mover_conn_is_quiet(c))
        return NULL;
    return mover_conn_write(c, MOVER_WORKING, NULL, 0);
}

/* Into the storage; returns NULL also when it does not take it any more (then it is, or will be,
 * done). */
static struct err *intake_feed(struct intake *in, struct mover_conn *c, const uint8_t *from,
                               size_t n)
{
    while (n && !atomic_load(&in->done)) {
        ssize_t put = send(in->feed_fd, from, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        short revents;

        if (put > 0) {
            from += put;
            n -= (size_t)put;
            continue;
        }
        if (put < 0 && errno == EPIPE)
            return NULL;
        if (put < 0 && errno != EAGAIN && errno != EINTR)
            return err_errno(errno, "cannot pass a stream on");
        TRY(keep_alive(c));
        TRY(mover_conn_poll(c, in->feed_fd, POLLOUT, MOVER_SLICE_MS, &revents));
    }
    return NULL;
}

/* END came and is right: lets the storage finish, and tells the peer meanwhile that we are here. */
static struct err *intake_finish(struct intake *in, struct mover_conn *c)
{
    char byte;

    (void)!recv(in->feed_fd, &byte, 1, MSG_DONTWAIT);
    (void)shutdown(in->feed_fd, SHUT_WR);
    /* From here on nothing can be undone: the storage will have the snapshot. So the peer's being
     * gone, or our being forbidden, is looked at only afterwards. */
    c->check = NULL;
    for (bool silent = false; !atomic_load(&in->done);) {
        struct pollfd p = {.fd = in->done_fd, .events = POLLIN};

        (void)poll(&p, 1, MOVER_KEEPALIVE_US / 1000);
        if (!silent && !atomic_load(&in->done)) {
            struct err *e = keep_alive(c);

            silent = e != NULL;
            (void)err_free(e);
        }
    }
    (void)pthread_join(in->thread, NULL);
    struct err *e = steal(&in->err);
    intake_close(in);
    return e;
}

/* What arrived of a stream. */
struct taken {
    XXH3_state_t *hash;
    uint64_t length;
    struct mover_unpacker *unpacker;
    uint8_t plain[MOVER_PAYLOAD_MAX];
};

static struct taken *taken_new(void)
{
    struct taken *t = xcalloc(1, sizeof(*t));

    t->hash = XXH3_createState();
    if (!t->hash || XXH3_64bits_reset(t->hash) != XXH_OK)
        mem_exhausted();
    return t;
}

static void taken_free(struct taken *t)
{
    (void)mover_unpacker_free(t->unpacker);
    (void)XXH3_freeState(t->hash);
    free(t);
}

static struct err *take_bytes(struct taken *t, struct intake *in, struct mover_conn *c,
                              const uint8_t *bytes, size_t n)
{
    t->length += n;
    (void)XXH3_64bits_update(t->hash, bytes, n);
    TRY(intake_feed(in, c, bytes, n));
    return keep_alive(c);
}

static struct err *take_end(const struct taken *t, struct mover_conn *c, size_t n)
{
    struct mover_end end;

    TRY(mover_end_decode(c->input, n, &end));
    if (end.length != t->length || end.hash != XXH3_64bits_digest(t->hash))
        return err_new(ERR_CORRUPT, "the stream is not what the source sent");
    return NULL;
}

static struct err *take_frame(struct taken *t, struct intake *in, struct mover_conn *c, bool *ret_more)
{
    struct mover_header h;
    size_t n;

    TRY(mover_conn_read(c, &h));
    *ret_more = h.type != MOVER_END;
    if (h.type == MOVER_DATA)
        return take_bytes(t, in, c, c->input, h.length);
    if (h.type == MOVER_END)
        return take_end(t, c, h.length);
    if (h.type != MOVER_ZSTD || in->version < 2)
        return err_new(ERR_CORRUPT, "the mover's peer sent frame %d inside a stream", (int)h.type);
    TRY(mover_unpack(&t->unpacker, c->input, h.length, t->plain, sizeof(t->plain), &n));
    return take_bytes(t, in, c, t->plain, n);
}

/* DATA until END. */
static struct err *take_data(struct intake *in, struct mover_conn *c)
{
    struct taken *t = taken_new();
    struct err *e = NULL;

    for (bool more = true; more && !e && !atomic_load(&in->done);)
        e = take_frame(t, in, c, &more);
    taken_free(t);
    return e;
}

static struct err *check_present(struct mover *m, const struct mover_hello *hello,
                                 const struct mover_begin *begin)
{
    CLEANUP_FREE char *identity = NULL;

    TRY(storage_snapshot_identity(m->config.storage, &hello->dataset, hello->snapshot, &identity));
    if (!streq(identity, begin->identity))
        return err_new(ERR_CONFLICT, "there is another snapshot %s of dataset %s here",
                       hello->snapshot, UUID_STR(&hello->dataset));
    return NULL;
}

static struct err *take_stream(struct intake *in, struct mover_conn *c)
{
    TRY(intake_start(in));
    CLEANUP_ERR struct err *e = take_data(in, c);
    if (e || atomic_load(&in->done)) {
        struct err *cause = intake_abort(in);

        if (cause && !err_is(cause, ERR_EXISTS)) /* the storage failed first: that is the reason */
            return cause;
        (void)err_free(cause);
        if (e)
            return steal(&e);
        return check_present(in->m, in->hello, in->begin); /* it was there before */
    }
    e = intake_finish(in, c);
    if (err_is(e, ERR_EXISTS))
        return check_present(in->m, in->hello, in->begin);
    return steal(&e);
}

/* ---- going on after a cut ---- */

static bool fill(char *to, size_t size, const char *from)
{
    size_t n = from ? strlen(from) : 0;

    if (n >= size)
        return false;
    memcpy(to, from ? from : "", n + 1);
    return true;
}

/* The storage's point as it goes over the wire; false: there is none that can be told. */
static bool point_to_wire(const struct stream_point *own, struct mover_point *ret)
{
    struct mover_point p = {
        .offset = own->offset, .hash_low = own->hash_low, .hash_high = own->hash_high};

    if (!own->snapshot || !fill(p.snapshot, sizeof(p.snapshot), own->snapshot) ||
        !fill(p.identity, sizeof(p.identity), own->identity) ||
        !fill(p.base, sizeof(p.base), own->base) || !fill(p.token, sizeof(p.token), own->token) ||
        !p.identity[0] || (!p.offset && !p.token[0]))
        return false;
    *ret = p;
    return true;
}

/* What of an earlier stream can be continued; leaves the offer without a point when nothing. */
static void offer_point(struct mover *m, const struct mover_hello *hello, struct stream_point *own,
                        struct mover_offer *offer)
{
    struct mover_point p;
    struct err *e = storage_stream_point(m->config.storage, &hello->dataset, own);

    if (e)
        log_debug("mover: %s", e->text);
    else if (point_to_wire(own, &p) && mover_point_is_usable(m, hello, &p))
        offer->point = p;
    (void)err_free(e);
}

/* The sender may only go on from what it was offered. */
static struct err *check_from(const struct mover_begin *begin, const struct mover_hello *hello,
                              const struct mover_point *p)
{
    bool token = begin->from == MOVER_FROM_TOKEN;

    if (begin->from == MOVER_FROM_START)
        return NULL;
    if (!streq(p->snapshot, hello->snapshot) || !streq(p->identity, begin->identity) ||
        !streq(p->base, begin->base) || token != (p->token[0] != '\0') ||
        (!token && begin->offset != p->offset))
        return err_new(ERR_CORRUPT, "the mover's peer goes on from where this node is not");
    return NULL;
}

/* The storage's failing counts more than a connection that broke: see MOVER_POINT_LIMIT. */
static bool is_broken_off(const struct err *e)
{
    return err_is(e, ERR_UNAVAILABLE) || err_is(e, ERR_CANCELLED) || err_is(e, ERR_DENIED) ||
           err_is(e, ERR_CONFLICT);
}

/* ---- a connection ---- */

struct serving {
    struct mover *m;
    struct mover_conn *c;
    const struct mover_hello *hello;
    bool only_compare;
    struct mover_offer offer;
    struct stream_point point; /* the storage's own, of which the offer tells */
};

static void serving_done(struct serving *s)
{
    mover_offer_done(&s->offer);
    stream_point_done(&s->point);
}

static struct err *serve_begin(struct serving *s, size_t n)
{
    struct mover *m = s->m;
    struct mover_begin begin;
    struct intake in = {.m = m,
                        .hello = s->hello,
                        .begin = &begin,
                        .version = s->offer.version,
                        .feed_fd = -1,
                        .read_fd = -1,
                        .done_fd = -1};

    TRY(mover_begin_decode(s->c->input, n, s->offer.version, &begin));
    TRY(check_from(&begin, s->hello, &s->offer.point));
    in.from = begin.from == MOVER_FROM_START ? NULL : &s->point;
    if (in.from)
        log_debug("mover: %s goes on after %llu bytes", s->hello->snapshot,
                  (unsigned long long)begin.offset);
    struct err *e = take_stream(&in, s->c);
    if (e && in.from && !err_is(e, ERR_NO_SPACE) && !err_is(e, ERR_LIMIT)) /* that is not the point's fault */
        mover_point_failed(m, s->hello, &s->offer.point, is_broken_off(e));
    TRY(e);
    m->config.received(m->config.cookie, &s->hello->dataset, s->hello->transfer, s->hello->snapshot);
    TRY(mover_conn_write(s->c, MOVER_ACK, NULL, 0));
    /* A move may wait for days for its release, and takes an increment every few minutes meanwhile:
     * only the newest and its base are kept. What cannot be deleted now is tried again at the next. */
    mover_delete_snapshots(m, &s->hello->dataset, &s->offer, begin.base, s->hello->snapshot);
    return NULL;
}

/* Complete before: tell it once more, the first time may have been lost. */
static void serve_bye(const struct serving *s)
{
    const struct mover_hello *h = s->hello;

    if (mover_offer_find(&s->offer, h->snapshot) && !s->only_compare)
        s->m->config.received(s->m->config.cookie, &h->dataset, h->transfer, h->snapshot);
}

/* Everything after the offer. */
static struct err *serve_choice(struct serving *s)
{
    struct mover_header h;

    do
        TRY(mover_conn_read(s->c, &h));
    while (h.type == MOVER_WORKING && s->offer.version >= 2); /* it skips what is here */
    if (h.type == MOVER_BEGIN && s->only_compare)
        return err_new(ERR_DENIED, "snapshots of dataset %s may be compared, not sent", UUID_STR(&s->hello->dataset));
    if (h.type == MOVER_BEGIN)
        return serve_begin(s, h.length);
    if (h.type == MOVER_VERIFY && s->offer.version >= 2)
        return mover_serve_verify(s->m, s->c, s->hello, &s->offer);
    if (h.type != MOVER_BYE)
        return err_new(ERR_CORRUPT, "the mover's peer sent frame %d where a stream begins",
                       (int)h.type);
    serve_bye(s);
    return NULL;
}

/* Everything after the claim. */
static struct err *serve_claimed(struct stream *stream, struct mover_conn *c,
                                 const struct mover_hello *hello)
{
    CLEANUP(serving_done) struct serving s = {.m = stream->m, .c = c, .hello = hello, .only_compare = stream->only_compare};
    CLEANUP_STR struct str payload = {0};
    uint16_t own = mover_version(s.m);

    TRY(mover_list_snapshots(s.m, &hello->dataset, &s.offer));
    s.offer.version = c->version = own < hello->version_max ? own : hello->version_max;
    if (s.offer.version >= 2 && !s.only_compare)
        offer_point(s.m, hello, &s.point, &s.offer);
    mover_offer_encode(&s.offer, &payload);
    TRY(mover_conn_write(c, MOVER_OFFER, payload.data, payload.len));
    return serve_choice(&s);
}

/* One stream, or one comparison: from its HELLO, which is in the input, to its end. */
static struct err *serve_hello(struct stream *s, struct mover_conn *c, const struct uuid *peer, size_t n)
{
    struct mover_hello hello;

    TRY(mover_hello_decode(c->input, n, &hello));
    if (hello.version_min > mover_version(s->m) || hello.version_max < MOVER_VERSION_MIN)
        return err_new(
            ERR_UNSUPPORTED,
            "the agents cannot talk: the source's mover speaks versions %u to %u, this one "
            "%u to %u; bring both to the same release",
            hello.version_min, hello.version_max, MOVER_VERSION_MIN, mover_version(s->m));
    TRY(mover_claim(s->m, s, &hello, peer));
    TRY(err_wrap(serve_claimed(s, c, &hello), "node %s", UUID_STR(&s->m->config.node)));
    mover_unclaim(s->m, s);
    return NULL;
}

/* The next stream of the transfer may come on the same connection. *ret_come false: it did not, and the peer is gone. */
static struct err *await_next(struct mover_conn *c, struct mover_header *h, bool *ret_come)
{
    uint64_t idle_ms = c->idle_ms;

    c->idle_ms = (MOVER_KEPT_US + MOVER_KEPT_SLACK_US) / 1000;
    struct err *e = mover_conn_expect(c, MOVER_HELLO, h);
    c->idle_ms = idle_ms;
    *ret_come = !e;
    return err_is(e, ERR_UNAVAILABLE) ? err_free(e) : e;
}

static struct err *serve(struct stream *s, struct mover_conn *c)
{
    struct tls_identity peer;
    struct mover_header h;
    bool more = true;

    TRY(mover_conn_handshake(c));
    TRY(tls_peer_identity(c->ssl, &peer));
    if (peer.kind != TLS_KIND_NODE)
        return err_new(ERR_DENIED, "only nodes may speak here");
    TRY(mover_conn_expect(c, MOVER_HELLO, &h));
    while (more) {
        TRY(serve_hello(s, c, &peer.node, h.length));
        if (c->version < 3 || !mover_may_wait(s->m))
            return NULL;
        TRY(await_next(c, &h, &more));
    }
    return NULL;
}

void *mover_receive_main(void *cookie)
{
    struct stream *s = cookie;
    struct mover *m = s->m;
    SSL *ssl = NULL;
    struct err *e = tls_server_ssl(m->config.server, &ssl);

    (void)pthread_setname_np(pthread_self(), "mover-receive");
    if (e) {
        (void)close(s->fd);
    } else {
        struct mover_conn *c = mover_conn_new(s->fd, ssl);

        c->check = mover_stream_check;
        c->cookie = s;
        e = serve(s, c);
        mover_unclaim(m, s); /* the farewell may take a moment; nobody need wait for it */
        if (e && SSL_is_init_finished(c->ssl))
            mover_conn_end_with_error(c, e);
        (void)mover_conn_free(c);
    }
    if (e)
        log_debug("mover: receiving: %s", e->text);
    (void)err_free(e);
    (void)pthread_mutex_lock(&m->lock);
    s->finished = true;
    (void)pthread_mutex_unlock(&m->lock);
    (void)eventfd_write(m->wake_fd, 1);
    return NULL;
}
