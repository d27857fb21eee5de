#include "mover/mover_compress.h"

#include "base/now.h"
#include "mover/mover_wire.h"

#include <zstd.h>

#define WINDOW_BYTES (1024u * 1024) /* nothing before is compressed: small increments never are */
#define FRAME_MIN 1024u             /* smaller ones are not worth it */
#define SAMPLE_MIN 16384u           /* smaller ones say too little */
#define SHRINKS 900u                /* permille: a frame or sample above does not shrink */
#define RESAMPLE_WINDOWS 16u        /* the data change along a stream */

static const int zstd_levels[MOVER_LEVEL_MAX] = {
    [MOVER_FASTEST] = -5, [MOVER_FAST] = -1, [MOVER_NORMAL] = 1};

/* ---- the decision ---- */

static uint64_t per_second(uint64_t bytes, uint64_t us)
{
    return us ? (uint64_t)((double)bytes * USEC_PER_SEC / (double)us) : 0;
}

uint64_t mover_link_rate(uint64_t link, const struct mover_window *w)
{
    uint64_t busy_us = w->wall_us > w->idle_us ? w->wall_us - w->idle_us : 0;
    uint64_t rate = per_second(w->wire, busy_us);

    if (w->blocked_us * 5 >= w->wall_us && w->blocked_us)
        return rate; /* everything waits for the network */
    if (w->level == MOVER_PLAIN)
        return 0; /* it takes what the storage gives */
    /* When the compressor is what is slow, the network can do more than it is given: less
     * compressing will be chosen as the guess rises. */
    if (w->packing_us * 2 >= w->wall_us && link < rate + rate / 4)
        return rate + rate / 4;
    if (w->packing_us * 2 >= w->wall_us)
        return link + link / 4;
    return link;
}

enum mover_level mover_level_choose(uint64_t link, const struct mover_sample samples[MOVER_LEVEL_MAX])
{
    enum mover_level best = MOVER_PLAIN;
    uint64_t best_rate = link + link / 10; /* less is not worth the processor */

    for (enum mover_level l = MOVER_FASTEST; l < MOVER_LEVEL_MAX; l++) {
        const struct mover_sample *s = &samples[l];

        if (!link || !s->permille || s->permille >= SHRINKS)
            continue;
        uint64_t over = (uint64_t)((double)link * 1000 / s->permille);
        uint64_t rate = s->rate < over ? s->rate : over;
        if (rate > best_rate) {
            best = l;
            best_rate = rate;
        }
    }
    return best;
}

/* ---- packing ---- */

struct mover_packer {
    ZSTD_CCtx *zstd; /* made when something is compressed first */
    uint8_t *out;
    size_t out_size;
    enum mover_level level;
    uint64_t link;
    struct mover_sample samples[MOVER_LEVEL_MAX];
    bool sample_next; /* the next frame is tried at all levels */
    unsigned windows; /* since the last samples */
    uint64_t began_us;
    struct mover_window w; /* the present one */
};

struct mover_packer *mover_packer_new(void)
{
    return xcalloc(1, sizeof(struct mover_packer));
}

struct mover_packer *mover_packer_free(struct mover_packer *p)
{
    if (!p)
        return NULL;
    (void)ZSTD_freeCCtx(p->zstd);
    free(p->out);
    free(p);
    return NULL;
}

static void prepare(struct mover_packer *p)
{
    if (p->zstd)
        return;
    p->zstd = ZSTD_createCCtx();
    if (!p->zstd)
        mem_exhausted();
    p->out_size = ZSTD_compressBound(MOVER_PAYLOAD_MAX);
    p->out = xmalloc(p->out_size);
}

/* A moving average: single frames and single moments say little. */
static void note(struct mover_sample *s, uint32_t permille, uint64_t rate)
{
    if (s->permille)
        *s = (struct mover_sample){(s->permille * 3 + permille) / 4, (s->rate * 3 + rate) / 4};
    else
        *s = (struct mover_sample){permille, rate};
}

/* The size afterwards; updates what is known of the level. */
static size_t try_level(struct mover_packer *p, enum mover_level l, const uint8_t *from, size_t n)
{
    uint64_t began = now_os().mono_us;
    size_t packed = ZSTD_compressCCtx(p->zstd, p->out, p->out_size, from, n, zstd_levels[l]);

    if (ZSTD_isError(packed)) /* the output is large enough for everything */
        mem_exhausted();
    uint64_t took = now_os().mono_us - began;
    p->w.packing_us += took;
    note(&p->samples[l], (uint32_t)(packed * 1000 / n) + 1, per_second(n, took ? took : 1));
    return packed;
}

static void take_samples(struct mover_packer *p, const uint8_t *from, size_t n)
{
    prepare(p);
    memset(p->samples, 0, sizeof(p->samples));
    for (enum mover_level l = MOVER_FASTEST; l < MOVER_LEVEL_MAX; l++)
        (void)try_level(p, l, from, n);
    p->sample_next = false;
    p->windows = 0;
    p->level = mover_level_choose(p->link, p->samples);
}

bool mover_pack(struct mover_packer *p, const uint8_t *from, size_t n, const uint8_t **ret_packed,
                size_t *ret_n)
{
    if (!p->began_us)
        p->began_us = now_os().mono_us;
    if (n < FRAME_MIN)
        return false;
    if (p->sample_next && n >= SAMPLE_MIN)
        take_samples(p, from, n);
    if (p->level == MOVER_PLAIN)
        return false;
    size_t packed = try_level(p, p->level, from, n);
    if (packed > MOVER_PAYLOAD_MAX || packed * 1000 >= n * SHRINKS)
        return false;
    *ret_packed = p->out;
    *ret_n = packed;
    return true;
}

static void end_window(struct mover_packer *p)
{
    uint64_t now = now_os().mono_us;
    uint64_t had = p->link;

    p->w.level = p->level;
    p->w.wall_us = now - p->began_us;
    p->link = mover_link_rate(p->link, &p->w);
    p->sample_next = p->link && (!had || ++p->windows >= RESAMPLE_WINDOWS);
    p->level = mover_level_choose(p->link, p->samples);
    p->w = (struct mover_window){0};
    p->began_us = now;
}

void mover_pack_sent(struct mover_packer *p, size_t plain, size_t wire, uint64_t blocked_us)
{
    p->w.plain += plain;
    p->w.wire += wire;
    p->w.blocked_us += blocked_us;
    if (p->w.plain >= WINDOW_BYTES)
        end_window(p);
}

void mover_pack_idle(struct mover_packer *p, uint64_t us)
{
    if (p->began_us)
        p->w.idle_us += us;
}

/* ---- unpacking ---- */

static const uint8_t zstd_magic[4] = {0x28, 0xb5, 0x2f, 0xfd};

struct mover_unpacker {
    ZSTD_DCtx *zstd;
};

struct mover_unpacker *mover_unpacker_free(struct mover_unpacker *u)
{
    if (!u)
        return NULL;
    (void)ZSTD_freeDCtx(u->zstd);
    free(u);
    return NULL;
}

struct err *mover_unpack(struct mover_unpacker **u, const uint8_t *from, size_t n, uint8_t *to,
                         size_t size, size_t *ret_n)
{
    if (!*u) {
        *u = xcalloc(1, sizeof(**u));
        (*u)->zstd = ZSTD_createDCtx();
        if (!(*u)->zstd)
            mem_exhausted();
    }
    /* One frame of the present format; the library would also take several, and those of its past. */
    if (n < sizeof(zstd_magic) || memcmp(from, zstd_magic, sizeof(zstd_magic)) != 0 ||
        ZSTD_findFrameCompressedSize(from, n) != n)
        return err_new(ERR_CORRUPT, "the mover's stream has a frame that is not one of zstd");
    size_t plain = ZSTD_decompressDCtx((*u)->zstd, to, size, from, n);
    if (ZSTD_isError(plain) || !plain)
        return err_new(ERR_CORRUPT, "the mover's stream has a frame that cannot be unpacked: %s",
                       ZSTD_isError(plain) ? ZSTD_getErrorName(plain) : "it is empty");
    *ret_n = plain;
    return NULL;
}
