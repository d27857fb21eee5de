/* The receiving side of one stream.
 *
 * The connection's thread reads frames and feeds them into a socket pair; a second thread runs
 * storage_receive() on its other end. Why not a pipe: a stream that broke must not look like one
 * that ended. One byte lies unread in our end of the pair. When we close it so, the reader gets
 * ECONNRESET; only after a good END frame we take the byte out first, and the reader gets a clean
 * end of file. */
#include "base/log.h"
#include "base/now.h"
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
                                       .identity = in->begin->identity};

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

/* The stream broke: the storage must see that, and forget what it has. Returns the storage's own
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
    if (now_os().mono_us - c->wrote_us < MOVER_KEEPALIVE_US)
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

/* DATA until END. */
static struct err *take_data(struct intake *in, struct mover_conn *c)
{
    XXH3_state_t *state = XXH3_createState();
    uint64_t length = 0;
    struct err *e = NULL;

    if (!state || XXH3_64bits_reset(state) != XXH_OK)
        mem_exhausted();
    for (bool more = true; more && !e && !atomic_load(&in->done);) {
        struct mover_header h;
        struct mover_end end;

        e = mover_conn_read(c, &h);
        if (e)
            break;
        switch (h.type) {
        case MOVER_DATA:
            length += h.length;
            (void)XXH3_64bits_update(state, c->input, h.length);
            e = intake_feed(in, c, c->input, h.length);
            if (!e)
                e = keep_alive(c);
            break;
        case MOVER_END:
            e = mover_end_decode(c->input, h.length, &end);
            if (!e && (end.length != length || end.hash != XXH3_64bits_digest(state)))
                e = err_new(ERR_CORRUPT, "the stream is not what the source sent");
            more = false;
            break;
        default:
            e = err_new(ERR_CORRUPT, "the mover's peer sent frame %d inside a stream", (int)h.type);
        }
    }
    XXH3_freeState(state);
    return e;
}

/* The sender is told about everything that goes wrong here; so is our log, at the level of details.
 */
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

static struct err *take_stream(struct mover *m, struct mover_conn *c,
                               const struct mover_hello *hello, const struct mover_begin *begin)
{
    struct intake in = {
        .m = m, .hello = hello, .begin = begin, .feed_fd = -1, .read_fd = -1, .done_fd = -1};

    TRY(intake_start(&in));
    CLEANUP_ERR struct err *e = take_data(&in, c);
    if (e || atomic_load(&in.done)) {
        struct err *cause = intake_abort(&in);

        if (cause && !err_is(cause, ERR_EXISTS)) /* the storage failed first: that is the reason */
            return cause;
        (void)err_free(cause);
        if (e)
            return steal(&e);
        return check_present(m, hello, begin); /* it was there before */
    }
    e = intake_finish(&in, c);
    if (err_is(e, ERR_EXISTS))
        return check_present(m, hello, begin);
    return steal(&e);
}

/* Everything after the claim. */
/* A move may wait for days for its release, and takes an increment every few minutes meanwhile: only the newest and its
 * base are kept. What cannot be deleted now is tried again at the next. */
static void delete_older(struct mover *m, const struct mover_hello *hello,
                         const struct mover_offer *had, const char *base)
{
    for (size_t i = 0; i < had->n_snapshots; i++) {
        const char *name = had->snapshots[i].name;
        if (streq(name, base) || streq(name, hello->snapshot))
            continue;
        struct err *e = storage_snapshot_delete(m->config.storage, &hello->dataset, name);
        if (e)
            log_debug("mover: %s", e->text);
        (void)err_free(e);
    }
}

static struct err *serve_claimed(struct stream *s, struct mover_conn *c,
                                 const struct mover_hello *hello)
{
    CLEANUP(mover_offer_done) struct mover_offer offer = {0};
    CLEANUP_STR struct str payload = {0};
    struct mover *m = s->m;
    struct mover_header h;
    struct mover_begin begin;

    TRY(mover_list_snapshots(m, &hello->dataset, &offer));
    offer.version = MOVER_VERSION_MAX < hello->version_max ? MOVER_VERSION_MAX : hello->version_max;
    mover_offer_encode(&offer, &payload);
    TRY(mover_conn_write(c, MOVER_OFFER, payload.data, payload.len));
    TRY(mover_conn_read(c, &h));
    if (h.type ==
        MOVER_BYE) { /* complete before: tell it once more, the first time may have been lost */
        for (size_t i = 0; i < offer.n_snapshots; i++) {
            if (streq(offer.snapshots[i].name, hello->snapshot))
                m->config.received(m->config.cookie, &hello->dataset, hello->transfer,
                                   hello->snapshot);
        }
        return NULL;
    }
    if (h.type != MOVER_BEGIN)
        return err_new(ERR_CORRUPT, "the mover's peer sent frame %d where a stream begins",
                       (int)h.type);
    TRY(mover_begin_decode(c->input, h.length, &begin));
    TRY(take_stream(m, c, hello, &begin));
    m->config.received(m->config.cookie, &hello->dataset, hello->transfer, hello->snapshot);
    TRY(mover_conn_write(c, MOVER_ACK, NULL, 0));
    delete_older(m, hello, &offer, begin.base);
    return NULL;
}

static struct err *serve(struct stream *s, struct mover_conn *c)
{
    struct tls_identity peer;
    struct mover_header h;
    struct mover_hello hello;

    TRY(mover_conn_handshake(c));
    TRY(tls_peer_identity(c->ssl, &peer));
    if (peer.kind != TLS_KIND_NODE)
        return err_new(ERR_DENIED, "only nodes may speak here");
    TRY(mover_conn_expect(c, MOVER_HELLO, &h));
    TRY(mover_hello_decode(c->input, h.length, &hello));
    if (hello.version_min > MOVER_VERSION_MAX || hello.version_max < MOVER_VERSION_MIN)
        return err_new(
            ERR_UNSUPPORTED,
            "the agents cannot talk: the source's mover speaks versions %u to %u, this one "
            "%u to %u; bring both to the same release",
            hello.version_min, hello.version_max, MOVER_VERSION_MIN, MOVER_VERSION_MAX);
    TRY(mover_claim(s->m, s, &hello, &peer.node));
    return err_wrap(serve_claimed(s, c, &hello), "node %s", UUID_STR(&s->m->config.node));
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
