/* zstd for the mover's frames, when it pays: when the network is the bottleneck, and the data shrink.
 * Each frame is compressed for itself. What pays is measured: how long writing waits for the
 * network, and what samples of the stream give at each level. One thread at a time. */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum mover_level {
    MOVER_PLAIN,
    MOVER_FASTEST, /* zstd level -5 */
    MOVER_FAST,    /* -1 */
    MOVER_NORMAL,  /* 1 */
    MOVER_LEVEL_MAX,
};

/* What a level made of this stream; all 0 = not tried yet. */
struct mover_sample {
    uint32_t permille; /* size afterwards, of 1000 */
    uint64_t rate;     /* plain bytes a second */
};

/* One stretch of a stream. */
struct mover_window {
    enum mover_level level;
    uint64_t plain, wire;  /* bytes before and after */
    uint64_t wall_us;      /* how long it took, of which ... */
    uint64_t idle_us;      /* ... there was nothing to send, */
    uint64_t blocked_us;   /* ... the network, or the limit, was waited for, */
    uint64_t packing_us;   /* ... was spent with compressing */
};

/* What the network carries, in bytes a second, after this stretch; `link` is what was thought
 * before; 0 = not known, because it is not what everything waits for. Pure. */
uint64_t mover_link_rate(uint64_t link, const struct mover_window *w);
/* The level that brings the most plain bytes over such a network. Pure. */
enum mover_level mover_level_choose(uint64_t link, const struct mover_sample samples[MOVER_LEVEL_MAX]);

struct mover_packer;

struct mover_packer *mover_packer_new(void);
struct mover_packer *mover_packer_free(struct mover_packer *p); /* accepts NULL; returns NULL */
/* true: *ret_packed, valid until the next call, is to be sent instead; it is smaller. */
bool mover_pack(struct mover_packer *p, const uint8_t *from, size_t n, const uint8_t **ret_packed,
                size_t *ret_n);
/* What was packed last went out as `wire` bytes, after `blocked_us` of waiting for the network. */
void mover_pack_sent(struct mover_packer *p, size_t plain, size_t wire, uint64_t blocked_us);
/* So long there was nothing to send. */
void mover_pack_idle(struct mover_packer *p, uint64_t us);

/* The other side. Allocates the same memory whatever the peer sends. */
struct mover_unpacker;

struct mover_unpacker *mover_unpacker_free(struct mover_unpacker *u); /* accepts NULL; returns NULL */
/* Into `to`; ERR_CORRUPT when it is no zstd frame, empty, or larger than `size`. *u is made when
 * needed first. */
struct err *mover_unpack(struct mover_unpacker **u, const uint8_t *from, size_t n, uint8_t *to,
                         size_t size, size_t *ret_n) MUST_USE;
