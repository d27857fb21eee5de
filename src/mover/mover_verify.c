/* Comparing the content of a snapshot at both ends. Each reads its own at the same time, in a thread,
 * while the connection's thread says that it is still here. */
#include "base/log.h"
#include "base/now.h"
#include "mover/mover_internal.h"

#include <errno.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* ---- the thread that reads ---- */

static void *digest_main(void *cookie)
{
    struct mover_digest_job *j = cookie;

    j->err = storage_snapshot_digest(j->storage, &j->dataset, j->snapshot, &j->cancel, j->digest);
    (void)eventfd_write(j->done_fd, 1);
    return NULL;
}

struct err *mover_digest_start(struct mover_digest_job *j)
{
    j->done_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (j->done_fd < 0)
        return err_errno(errno, "cannot start reading a snapshot");
    int rc = pthread_create(&j->thread, NULL, digest_main, j);
    if (rc) {
        mem_closep(&j->done_fd);
        return err_errno(rc, "cannot start reading a snapshot");
    }
    return NULL;
}

struct err *mover_digest_end(struct mover_digest_job *j, bool cancel)
{
    if (cancel)
        atomic_store(&j->cancel, true);
    (void)pthread_join(j->thread, NULL);
    mem_closep(&j->done_fd);
    return steal(&j->err);
}

static void job_init(struct mover_digest_job *j, struct mover *m, const struct uuid *dataset,
                     const char *snapshot)
{
    *j = (struct mover_digest_job){.storage = m->config.storage, .dataset = *dataset};
    memcpy(j->snapshot, snapshot, strlen(snapshot) + 1);
}

/* Until it is done; says meanwhile that we are here. */
static struct err *await_digest(struct mover_conn *c, const struct mover_digest_job *j)
{
    for (short revents = 0; !revents;) {
        TRY(mover_conn_poll(c, j->done_fd, POLLIN, MOVER_SLICE_MS, &revents));
        if (!revents && mover_conn_is_quiet(c))
            TRY(mover_conn_write(c, MOVER_WORKING, NULL, 0));
    }
    return NULL;
}

/* The digest of a snapshot here, while the peer is told that we are at it. */
static struct err *own_digest(struct mover *m, struct mover_conn *c, const struct uuid *dataset,
                              const char *snapshot, char ret_digest[STORAGE_DIGEST_SIZE])
{
    struct mover_digest_job j;

    job_init(&j, m, dataset, snapshot);
    TRY(mover_digest_start(&j));
    struct err *e = await_digest(c, &j);
    struct err *own = mover_digest_end(&j, e != NULL);

    if (e) {
        (void)err_free(own); /* only a consequence */
        return e;
    }
    TRY(own);
    memcpy(ret_digest, j.digest, sizeof(j.digest));
    return NULL;
}

/* ---- receiver ---- */

struct err *mover_serve_verify(struct mover *m, struct mover_conn *c, const struct mover_hello *hello,
                               const struct mover_offer *offer)
{
    char digest[STORAGE_DIGEST_SIZE];
    CLEANUP_STR struct str payload = {0};
    struct mover_header h;

    TRY(own_digest(m, c, &hello->dataset, hello->snapshot, digest));
    mover_digest_encode(digest, &payload);
    TRY(mover_conn_write(c, MOVER_DIGEST, payload.data, payload.len));
    do
        TRY(mover_conn_read(c, &h));
    while (h.type == MOVER_WORKING); /* it is slower */
    if (h.type == MOVER_BYE)
        return NULL;
    if (h.type != MOVER_DIFFERS)
        return err_new(ERR_CORRUPT, "the mover's peer sent frame %d after a digest", (int)h.type);
    /* Acknowledged only when it is gone: what is not the same must not become the base of an increment. */
    struct err *e = storage_snapshot_delete(m->config.storage, &hello->dataset, hello->snapshot);
    if (e && !err_is(e, ERR_NOT_FOUND))
        return err_wrap(e, "a snapshot that is not the same could not be deleted");
    (void)err_free(e);
    mover_delete_snapshots(m, &hello->dataset, offer, hello->snapshot, "");
    log_warning("the copy %s of dataset %s was not the same as what its owner has: it is deleted; look at the disks and the "
                "memory of both nodes", hello->snapshot, UUID_STR(&hello->dataset));
    m->config.received(m->config.cookie, &hello->dataset, hello->transfer, NULL);
    return mover_conn_write(c, MOVER_ACK, NULL, 0);
}

/* ---- sender ---- */

static struct err *check_both_have(const struct mover_sending *s, const struct mover_offer *ours,
                                   const struct mover_offer *theirs)
{
    const struct mover_snapshot *here = mover_offer_find(ours, s->what->snapshot);
    const struct mover_snapshot *there = mover_offer_find(theirs, s->what->snapshot);

    if (!here || !there)
        return err_new(ERR_NOT_FOUND, "it is not %s", here ? "there" : "here");
    if (!streq(here->identity, there->identity))
        return err_new(ERR_CONFLICT, "the receiver has another snapshot of that name");
    return NULL;
}

static struct err *peers_digest(struct mover_conn *c, char ret_digest[STORAGE_DIGEST_SIZE])
{
    struct mover_header h;

    do
        TRY(mover_conn_read(c, &h));
    while (h.type == MOVER_WORKING);
    if (h.type != MOVER_DIGEST)
        return err_new(ERR_CORRUPT, "the mover's peer sent frame %d where a digest belongs",
                       (int)h.type);
    return mover_digest_decode(c->input, h.length, ret_digest);
}

/* Both at the same time: our own is read while the peer's is waited for. */
static struct err *both_digests(struct mover_sending *s, char ours[STORAGE_DIGEST_SIZE],
                                char theirs[STORAGE_DIGEST_SIZE])
{
    struct mover_digest_job j;

    job_init(&j, s->m, &s->what->dataset, s->what->snapshot);
    TRY(mover_digest_start(&j));
    struct err *e = peers_digest(s->conn, theirs);
    if (!e)
        e = await_digest(s->conn, &j);
    struct err *own = mover_digest_end(&j, e != NULL);
    if (e) {
        (void)err_free(own);
        return e;
    }
    TRY(own);
    memcpy(ours, j.digest, sizeof(j.digest));
    return NULL;
}

static struct err *verify(struct mover_sending *s)
{
    CLEANUP(mover_offer_done) struct mover_offer ours = {0}, theirs = {0};
    char here[STORAGE_DIGEST_SIZE], there[STORAGE_DIGEST_SIZE];
    struct mover_header h;

    TRY(mover_greet(s, &ours, &theirs));
    if (s->version < 2)
        return err_new(ERR_UNSUPPORTED, "the agent there is of an older release that cannot compare "
                                        "snapshots: update it, or set 'verify: never' here");
    TRY(check_both_have(s, &ours, &theirs));
    TRY(mover_conn_write(s->conn, MOVER_VERIFY, NULL, 0));
    TRY(both_digests(s, here, there));
    if (streq(here, there))
        return mover_conn_write(s->conn, MOVER_BYE, NULL, 0);
    struct err *e = mover_conn_write(s->conn, MOVER_DIFFERS, NULL, 0);
    if (!e)
        e = mover_conn_expect(s->conn, MOVER_ACK, &h);
    CLEANUP_FREE char *fate = e ? xasprintf("whether it was deleted is not known (%s)", e->text) : xstrdup("it was deleted");
    (void)err_free(e);
    return err_new(ERR_DIFFERS,
                   "the copy there is not the same (digest %s, here %s): %s; look at the disks and the memory of both nodes",
                   there, here, fate);
}

struct err *mover_verify_sync(struct mover *m, const struct mover_send *what,
                              struct mover_progress *progress)
{
    struct mover_sending s = {.m = m, .what = what, .progress = progress};

    return mover_with_peer(&s, verify, "comparing");
}
