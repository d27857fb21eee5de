/* What the parts of the mover share. */
#pragma once

#include "mover/mover.h"
#include "mover/mover_conn.h"

#include <pthread.h>
#include <stdatomic.h>

#define MOVER_STREAMS_MAX 128u /* connections at once; more are closed unheard */
#define MOVER_TAKEOVER_S                                                                           \
    30 /* a new stream waits this long for the older one of the dataset to end */

struct announcement {
    struct uuid dataset;
    uint64_t transfer;
    struct uuid source;
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
};

/* Makes the dataset this stream's own, ending and awaiting older streams of it. ERR_DENIED: not
 * announced, or from another source; ERR_CONFLICT: a newer connection is there; ERR_BUSY: the older
 * stream does not end. */
struct err *mover_claim(struct mover *m, struct stream *s, const struct mover_hello *hello,
                        const struct uuid *peer) MUST_USE;
void mover_unclaim(struct mover *m, struct stream *s);
/* Why the stream must end, or NULL; for struct mover_conn. `cookie` is the struct stream. */
struct err *mover_stream_check(void *cookie) MUST_USE;
/* Thread of an accepted connection; `cookie` is the struct stream. */
void *mover_receive_main(void *cookie);
/* The complete snapshots here with their identities, oldest first; one that vanishes meanwhile is
 * left out. */
struct err *mover_list_snapshots(struct mover *m, const struct uuid *dataset,
                                 struct mover_offer *ret_offer) MUST_USE;
