/* How far an interrupted receive came: the hash of the stream so far, and the note beside a checkpoint. No I/O. */
#pragma once

#include "base/uuid.h"
#include "model/volume.h"

#include <stdbool.h>

#define POINT_TEXT_MAX 2048u

/* XXH3, 128 bits, which can be put away and gone on with. A digest alone would not do, so what the algorithm keeps between two
 * pieces is written down; whether it was understood again is seen by the digest. */
struct stream_hash;

struct stream_hash_state {
    uint64_t sums[8];
    uint64_t stripes;
    uint32_t buffered;
    uint8_t buffer[256];
};

struct stream_hash *stream_hash_new(void);
struct stream_hash *stream_hash_free(struct stream_hash *h); /* accepts NULL; returns NULL */
void stream_hash_update(struct stream_hash *h, const void *bytes, size_t n);
void stream_hash_digest(const struct stream_hash *h, uint64_t *ret_low, uint64_t *ret_high);
void stream_hash_save(const struct stream_hash *h, struct stream_hash_state *ret_state);
/* Goes on after `length` bytes. false: that is no state; the hash is as new. */
bool stream_hash_restore(struct stream_hash *h, const struct stream_hash_state *state, uint64_t length);

struct point {
    char snapshot[SNAPSHOT_NAME_SIZE];
    char base[SNAPSHOT_NAME_SIZE]; /* "" = whole */
    struct uuid identity;
    struct uuid base_identity; /* nil = whole */
    unsigned version;          /* of the stream */
    uint64_t ctransid;         /* the sender's, of the snapshot */
    uint64_t offset;
    uint64_t hash_low, hash_high;
    struct stream_hash_state state;
};

void point_format(const struct point *p, char ret_text[POINT_TEXT_MAX]);
/* Accepts exactly what point_format() writes, and only when the state gives the hash. Pure. */
bool point_parse(const char *text, struct point *ret_point);
