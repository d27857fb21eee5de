/* The mover's protocol as pure functions: frames and messages to bytes and back. All integers are
 * big-endian. Every length is bounded before anything is allocated; what a decoder refuses is
 * ERR_CORRUPT. Thread-safe.
 *
 *   sender                                   receiver
 *   HELLO versions, dataset, transfer, name ->
 *                                         <- OFFER version, complete snapshots, (2) stream point
 *   (2) WORKING ... WORKING               ->           (skipping what is there already)
 *   BEGIN base, identity, (2) from where  ->           (or BYE: you have it already, or VERIFY)
 *   DATA ... DATA, (2) ZSTD ... ZSTD      ->           (empty DATA: still here, nothing to send yet)
 *                                         <- WORKING   (at any time after BEGIN: the disk is busy)
 *   END length, hash                      ->
 *                                         <- ACK       complete and on stable storage
 *
 *   (2) VERIFY                            ->           (instead of BEGIN)
 *                                         <- WORKING ... WORKING
 *                                         <- DIGEST    of the content of the snapshot
 *   BYE, or DIFFERS                       ->           (delete your snapshots of the dataset)
 *                                         <- ACK       of DIFFERS: done
 *
 *   (3) HELLO, and so on                  ->           (the next stream, on the same connection)
 *
 * What is marked (2) is there from version 2 on, (3) from version 3. Either side may say ERROR instead and is not
 * listened to after it. A frame is a header of 16 bytes (type, 3 zero bytes, 32 bits of payload
 * length, 64 bits of checksum) and the payload. */
#pragma once

#include "base/err.h"
#include "base/str.h"
#include "base/uuid.h"
#include "drivers/storage.h"
#include "model/volume.h"

#include <stddef.h>
#include <stdint.h>

#define MOVER_VERSION_MIN 1u
#define MOVER_VERSION_MAX 3u

#define MOVER_HEADER_SIZE 16u
#define MOVER_PAYLOAD_MAX (256u * 1024)
#define MOVER_IDENTITY_MAX 255u  /* bytes of a snapshot's identity */
#define MOVER_SNAPSHOTS_MAX 512u /* in an OFFER; the newest */
#define MOVER_TEXT_MAX 2000u     /* bytes of an ERROR's sentence; longer ones are cut */
#define MOVER_TOKEN_MAX 4096u    /* bytes of a token from which a backend continues */

enum mover_frame {
    MOVER_HELLO = 1,
    MOVER_OFFER = 2,
    MOVER_BEGIN = 3,
    MOVER_DATA = 4,
    MOVER_END = 5,
    MOVER_ACK = 6,
    MOVER_ERROR = 7,
    MOVER_WORKING = 8,
    MOVER_BYE = 9,
    MOVER_ZSTD = 10, /* DATA as one zstd frame, of at most MOVER_PAYLOAD_MAX plain bytes */
    MOVER_VERIFY = 11,
    MOVER_DIGEST = 12,
    MOVER_DIFFERS = 13,
    MOVER_FRAME_MAX,
};

struct mover_header {
    enum mover_frame type;
    uint32_t length;
    uint64_t checksum;
};

struct mover_hello {
    uint16_t version_min, version_max;
    struct uuid dataset;
    uint64_t transfer;
    char snapshot[SNAPSHOT_NAME_SIZE];
};

struct mover_snapshot {
    char name[SNAPSHOT_NAME_SIZE];
    char identity[MOVER_IDENTITY_MAX + 1];
};

/* How far a stream came that was cut before (struct stream_point of storage.h). */
struct mover_point {
    char snapshot[SNAPSHOT_NAME_SIZE]; /* "" = there is none */
    char identity[MOVER_IDENTITY_MAX + 1];
    char base[SNAPSHOT_NAME_SIZE]; /* the receiver's name for it; "" = the stream is whole */
    uint64_t offset;               /* not 0, unless there is a token */
    uint64_t hash_low, hash_high;
    char token[MOVER_TOKEN_MAX + 1]; /* "" = none */
};

struct mover_offer {
    uint16_t version;                 /* the one to speak */
    struct mover_snapshot *snapshots; /* oldest first */
    size_t n_snapshots;
    struct mover_point point;
};

enum mover_from {
    MOVER_FROM_START,
    MOVER_FROM_OFFSET, /* the point's */
    MOVER_FROM_TOKEN,
    MOVER_FROM_MAX,
};

struct mover_begin {
    char base[SNAPSHOT_NAME_SIZE]; /* the receiver's name for it; "" = the stream is whole */
    char identity[MOVER_IDENTITY_MAX + 1];
    enum mover_from from;
    uint64_t offset; /* FROM_OFFSET: what was skipped */
};

struct mover_end {
    uint64_t length; /* of all DATA of this connection, plain */
    uint64_t hash;   /* XXH3-64 of it */
};

void mover_offer_done(struct mover_offer *o);
/* NULL when it is not offered. */
const struct mover_snapshot *mover_offer_find(const struct mover_offer *o, const char *name);

uint64_t mover_checksum(enum mover_frame type, const void *payload, size_t n);
/* Writes the header for a payload of at most MOVER_PAYLOAD_MAX bytes. */
void mover_header_encode(uint8_t to[MOVER_HEADER_SIZE], enum mover_frame type, const void *payload,
                         size_t n);
/* Checks type and length, not yet the checksum. */
struct err *mover_header_decode(const uint8_t from[MOVER_HEADER_SIZE],
                                struct mover_header *ret_header) MUST_USE;
struct err *mover_payload_check(const struct mover_header *header, const void *payload) MUST_USE;

/* Payloads; the encoders append to `to`. HELLO may be followed by bytes that a later version means.
 */
void mover_hello_encode(const struct mover_hello *hello, struct str *to);
struct err *mover_hello_decode(const void *payload, size_t n,
                               struct mover_hello *ret_hello) MUST_USE;
void mover_offer_encode(const struct mover_offer *offer, struct str *to);
struct err *mover_offer_decode(const void *payload, size_t n,
                               struct mover_offer *ret_offer) MUST_USE;
void mover_begin_encode(const struct mover_begin *begin, uint16_t version, struct str *to);
struct err *mover_begin_decode(const void *payload, size_t n, uint16_t version,
                               struct mover_begin *ret_begin) MUST_USE;
void mover_end_encode(const struct mover_end *end, struct str *to);
struct err *mover_end_decode(const void *payload, size_t n, struct mover_end *ret_end) MUST_USE;
void mover_digest_encode(const char *digest, struct str *to);
struct err *mover_digest_decode(const void *payload, size_t n,
                                char ret_digest[STORAGE_DIGEST_SIZE]) MUST_USE;
void mover_error_encode(const struct err *e, struct str *to);
/* The error that the peer told; ERR_CORRUPT when it is none. Never NULL. */
struct err *mover_error_decode(const void *payload, size_t n) MUST_USE;

/* Different points have different numbers, but for chance. */
uint64_t mover_point_number(const struct mover_point *p);

/* 1 to 63 characters of [a-z0-9-]. */
bool mover_is_snapshot_name(const char *name);
