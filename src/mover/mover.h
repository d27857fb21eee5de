/* Snapshot streams between nodes: agent to agent, port 4525, mutual TLS with node certificates, one
 * stream at a time on a connection. The receiver takes only transfers that were announced to it, and only from
 * the announced node. */
#pragma once

#include "base/err.h"
#include "drivers/storage.h"
#include "model/volume.h"

#include <stdatomic.h>
#include <openssl/ssl.h>

#define MOVER_PORT 4525

struct mover;

/* Called on a mover thread when a snapshot of `dataset` is complete and durable here; again when
 * the source asks for it again; with `snapshot` NULL when those that were here are deleted, because the
 * peer found that they are not the same as its own. Must return soon and must not call mover_forbid_sync() or
 * mover_stop(). */
typedef void mover_received_fn(void *cookie, const struct uuid *dataset, uint64_t transfer,
                               const char *snapshot);

struct mover_config {
    struct storage *storage;  /* outlives the mover */
    SSL_CTX *server, *client; /* made from the node's certificate (net/tls.h); outlive the mover */
    struct uuid node;
    const char *address; /* to listen on, NULL = any */
    uint16_t port;       /* 0 = the system picks one */
    uint64_t bandwidth_limit; /* bytes a second, of all that is sent together; 0 = none */
    uint16_t version_max;     /* highest version of the protocol to speak; 0 = the newest */
    mover_received_fn *received;
    void *cookie;
};

/* Listens, and starts the thread that accepts. SIGPIPE is ignored in the whole process from here
 * on. The addresses and names in `config` are copied. ERR_INVALID: no local storage, or a bad
 * address; ERR_BUSY: the port is taken. */
struct err *mover_start(const struct mover_config *config, struct mover **ret_mover) MUST_USE;
/* Ends all streams, waits for them (blocks) and frees. No call may begin any more. Accepts NULL;
 * returns NULL. */
struct mover *mover_stop(struct mover *m);
uint16_t mover_port(const struct mover *m);

/* Allows (until forbidden) the transfer of `dataset` from `source`; the same transfer again
 * replaces the source. Thread-safe, does not block. One stream a dataset runs at a time: a newer
 * connection ends the older one. */
void mover_announce(struct mover *m, const struct uuid *dataset, uint64_t transfer,
                    const struct uuid *source);
/* The same for comparing only (mover_verify_sync()): nothing is received, and no snapshot goes but one that is found to differ.
 * `number` is that of the comparison, and is forbidden like a transfer's. */
void mover_announce_comparison(struct mover *m, const struct uuid *dataset, uint64_t number, const struct uuid *source);
/* Forbids it and ends a running stream of it; returns when no thread works on it any more (blocks).
 */
void mover_forbid_sync(struct mover *m, const struct uuid *dataset, uint64_t transfer);

/* What is to be sent, and to whom. */
struct mover_send {
    struct uuid dataset;
    uint64_t transfer;
    const char *snapshot;
    struct uuid peer;
    const char *peer_host;
    uint16_t peer_port;
    bool final; /* somebody waits for it: the limit of bandwidth does not hold */
};

/* Written by the mover, read by others meanwhile (__atomic builtins). */
struct mover_progress {
    uint64_t bytes;   /* of the stream, sent now */
    uint64_t wire;    /* as which they went over the network, compressed */
    uint64_t skipped; /* of the stream, which the peer had: grows while they are passed by */
    uint64_t total;   /* about how long the stream is; 0 = not known */
    atomic_bool skipping; /* the beginning is being passed by; nothing is sent */
    atomic_bool cancel;   /* set by the caller to end the call */
};

/* Sends the snapshot to the peer as an increment from the newest snapshot that both sides hold, else
 * whole; goes on where an earlier try was cut, if that can be. Returns NULL when the peer has
 * confirmed that it is complete and durable there (also when it was there before). Blocks.
 * ERR_UNAVAILABLE: peer not reached; ERR_DENIED: the peer does not expect this transfer;
 * ERR_CANCELLED. `progress` may be NULL. */
struct err *mover_send_sync(struct mover *m, const struct mover_send *send,
                            struct mover_progress *progress) MUST_USE;

/* Compares the content of the snapshot, which the peer has, with the one here; reads all of both.
 * When they differ, the peer deletes its snapshots of the dataset, so that the next send begins
 * anew, and ERR_DIFFERS is returned; the text says when the peer could not confirm that. ERR_UNSUPPORTED: the storage, or the peer's agent, cannot do
 * it. ERR_NOT_FOUND: one side does not have it. Blocks, maybe for hours. */
struct err *mover_verify_sync(struct mover *m, const struct mover_send *what,
                              struct mover_progress *progress) MUST_USE;
