/* What the parts of the mover share. */
#pragma once

#include "mover/mover.h"
#include "mover/mover_conn.h"
#include "mover/mover_limit.h"

#include <pthread.h>
#include <stdatomic.h>

#define MOVER_STREAMS_MAX 128u /* connections at once; more are closed unheard */
#define MOVER_TAKEOVER_S                                                                           \
    30 /* a new stream waits this long for the older one of the dataset to end */

#define MOVER_EXPECT_US 1000000u /* a stream that is not announced yet waits this long for it */
#define MOVER_KEPT_MAX 8u /* connections that wait for the next stream of their transfer, at the sender ... */
#ifndef MOVER_KEPT_US     /* a test makes it short */
#define MOVER_KEPT_US 15000000u /* ... and for how long; the receiver waits a little longer */
#endif
#define MOVER_KEPT_SLACK_US 5000000u

struct announcement {
    struct uuid dataset;
    uint64_t transfer;
    struct uuid source;
    bool only_compare;
    /* Receiving that was to go on from this point and failed; see mover_point_failed(). */
    uint64_t point; /* mover_point_number() */
    unsigned point_failures;
};

enum stream_end {
    STREAM_RUNS,
    STREAM_FORBIDDEN,  /* the announcement was withdrawn */
    STREAM_SUPERSEDED, /* a newer connection for the dataset */
    STREAM_STOPPED,    /* mover_stop() */
};

/* One accepted connection; its thread is the only one that uses the socket. */
struct stream {
    struct mover *m;
    struct stream *next; /* this and what follows to `finished`: under the mover's lock */
    uint64_t serial;     /* later connections have higher ones */
    bool claimed;        /* works on, or waits for, `dataset` and `transfer` */
    struct uuid dataset;
    uint64_t transfer;
    bool only_compare; /* as announced */
    bool finished;    /* the thread can be joined */
    atomic_int ended; /* enum stream_end */
    int fd;           /* until the thread takes it */
    pthread_t thread;
};

struct mover {
    struct mover_config config;
    int listen_fd;
    int wake_fd; /* eventfd: look at `stopping`, and join finished threads */
    uint16_t port;
    pthread_t acceptor;
    atomic_bool stopping;

    /* `changed`: a stream gave up its claim, or a send ended. No other lock is taken while this one
     * is held. */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct announcement *announcements;
    size_t n_announcements, cap_announcements;
    struct stream *streams;
    size_t n_streams;
    uint64_t last_serial;
    size_t n_sends;
    struct kept *kept; /* mover_kept.c */
    size_t n_kept, cap_kept;
    struct mover_limit limit;
};

/* How much a failure at a point counts, and at which sum the stream begins anew: three errors, or
 * ten connections that broke before the next point was reached. */
#define MOVER_POINT_ERROR 4u
#define MOVER_POINT_BROKEN 1u
#define MOVER_POINT_LIMIT 10u

/* Makes the dataset this stream's own, ending and awaiting older streams of it. Waits a moment for the
 * announcement. ERR_DENIED: not announced, or from another source; ERR_CONFLICT: a newer connection is there; ERR_BUSY: the older
 * stream does not end. */
struct err *mover_claim(struct mover *m, struct stream *s, const struct mover_hello *hello,
                        const struct uuid *peer) MUST_USE;
void mover_unclaim(struct mover *m, struct stream *s);
/* Is there room for connections on which nothing happens? */
bool mover_may_wait(struct mover *m);
/* Why the stream must end, or NULL; for struct mover_conn. `cookie` is the struct stream. */
struct err *mover_stream_check(void *cookie) MUST_USE;
/* May receiving go on from this point, or did that fail too often? */
bool mover_point_is_usable(struct mover *m, const struct mover_hello *hello,
                           const struct mover_point *point);
void mover_point_failed(struct mover *m, const struct mover_hello *hello,
                        const struct mover_point *point, bool broken);
/* Lets the accepting thread look at `stopping`, finished threads and kept connections. */
void mover_wake(struct mover *m);
/* The highest version that this mover speaks. */
uint16_t mover_version(const struct mover *m);
/* Thread of an accepted connection; `cookie` is the struct stream. */
void *mover_receive_main(void *cookie);
/* The complete snapshots here with their identities, oldest first; one that vanishes meanwhile is
 * left out. */
struct err *mover_list_snapshots(struct mover *m, const struct uuid *dataset,
                                 struct mover_offer *ret_offer) MUST_USE;

/* ---- connections between two streams (mover_kept.c) ---- */

/* One that waits for a stream of this transfer to this peer, now the caller's; NULL: there is none. */
struct mover_conn *mover_kept_take(struct mover *m, const struct mover_send *what);
/* Keeps it for the next one, or closes it when there are too many; takes it. */
void mover_kept_put(struct mover *m, const struct mover_send *what, struct mover_conn *conn);
/* Closes those that nobody came for, or all. true: some are left, look again in a while. */
bool mover_kept_sweep(struct mover *m, bool all);

/* ---- the sender's connection (mover_send.c), for mover_verify.c ---- */

struct mover_sending {
    struct mover *m;
    const struct mover_send *what;
    struct mover_progress *progress; /* may be NULL */
    struct mover_conn *conn;
    uint16_t version; /* agreed; 0 = not yet */
};

/* Connects, runs `fn` on the connection, and wraps the error in what was being done. */
struct err *mover_with_peer(struct mover_sending *s, struct err *(*fn)(struct mover_sending *s),
                            const char *doing) MUST_USE;
/* Says HELLO and hears the OFFER; lists our own snapshots. */
struct err *mover_greet(struct mover_sending *s, struct mover_offer *ret_ours,
                        struct mover_offer *ret_theirs) MUST_USE;

/* A digest of a snapshot being computed by a thread of its own. */
struct mover_digest_job {
    struct storage *storage;
    struct uuid dataset;
    char snapshot[SNAPSHOT_NAME_SIZE];
    atomic_bool cancel;
    int done_fd; /* eventfd, readable when it is done */
    pthread_t thread;
    char digest[STORAGE_DIGEST_SIZE];
    struct err *err;
};

struct err *mover_digest_start(struct mover_digest_job *j) MUST_USE;
/* Ends it if it still runs, and waits. Its error, or NULL and the digest is there. */
struct err *mover_digest_end(struct mover_digest_job *j, bool cancel) MUST_USE;
/* The receiver's side of VERIFY. */
struct err *mover_serve_verify(struct mover *m, struct mover_conn *c, const struct mover_hello *hello,
                               const struct mover_offer *offer) MUST_USE;
/* Deletes the snapshots of `offer` but for these two (either may be ""); logs what fails. */
void mover_delete_snapshots(struct mover *m, const struct uuid *dataset,
                            const struct mover_offer *offer, const char *keep, const char *and_keep);
