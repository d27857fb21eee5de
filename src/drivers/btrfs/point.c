#include "drivers/btrfs/point.h"

#include "base/str.h"
#include "drivers/driver.h"

#include <inttypes.h>
#include <stdio.h>

/* Inlined, so that the fields are those of this very code and not of the library on the machine. */
#define XXH_INLINE_ALL
#include <xxhash.h>

struct stream_hash {
    XXH3_state_t *state;
};

struct stream_hash *stream_hash_new(void)
{
    struct stream_hash *h = xcalloc(1, sizeof(*h));

    h->state = XXH3_createState();
    if (!h->state)
        mem_exhausted();
    (void)XXH3_128bits_reset(h->state);
    return h;
}

struct stream_hash *stream_hash_free(struct stream_hash *h)
{
    if (h)
        (void)XXH3_freeState(h->state);
    free(h);
    return NULL;
}

void stream_hash_update(struct stream_hash *h, const void *bytes, size_t n)
{
    (void)XXH3_128bits_update(h->state, bytes, n);
}

void stream_hash_digest(const struct stream_hash *h, uint64_t *ret_low, uint64_t *ret_high)
{
    XXH128_hash_t d = XXH3_128bits_digest(h->state);

    *ret_low = d.low64;
    *ret_high = d.high64;
}

void stream_hash_save(const struct stream_hash *h, struct stream_hash_state *ret_state)
{
    *ret_state = (struct stream_hash_state){.stripes = h->state->nbStripesSoFar, .buffered = h->state->bufferedSize};
    _Static_assert(sizeof(ret_state->sums) == sizeof(h->state->acc), "eight sums");
    _Static_assert(sizeof(ret_state->buffer) == sizeof(h->state->buffer), "256 bytes");
    memcpy(ret_state->sums, h->state->acc, sizeof(ret_state->sums));
    memcpy(ret_state->buffer, h->state->buffer, sizeof(ret_state->buffer));
}

bool stream_hash_restore(struct stream_hash *h, const struct stream_hash_state *state, uint64_t length)
{
    (void)XXH3_128bits_reset(h->state);
    if (state->buffered > sizeof(state->buffer) || state->buffered > length || state->stripes > h->state->nbStripesPerBlock)
        return false;
    memcpy(h->state->acc, state->sums, sizeof(state->sums));
    memcpy(h->state->buffer, state->buffer, sizeof(state->buffer));
    h->state->bufferedSize = state->buffered;
    h->state->nbStripesSoFar = (size_t)state->stripes;
    h->state->totalLen = length;
    return true;
}

/* ---- the note ---- */

static void append_hex(char *to, const void *bytes, size_t n)
{
    const uint8_t *p = bytes;

    for (size_t i = 0; i < n; i++)
        (void)snprintf(to + 2 * i, 3, "%02x", p[i]);
}

static bool read_hex(const char *text, void *bytes, size_t n)
{
    uint8_t *p = bytes;
    unsigned v;

    if (strlen(text) != 2 * n)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (sscanf(text + 2 * i, "%2x", &v) != 1)
            return false;
        p[i] = (uint8_t)v;
    }
    return true;
}

void point_format(const struct point *p, char ret_text[POINT_TEXT_MAX])
{
    char sums[sizeof(p->state.sums) * 2 + 1], buffer[sizeof(p->state.buffer) * 2 + 1];

    append_hex(sums, p->state.sums, sizeof(p->state.sums));
    append_hex(buffer, p->state.buffer, sizeof(p->state.buffer));
    (void)snprintf(ret_text, POINT_TEXT_MAX,
                   "flocker-point 1 %s %s %s %s %u %" PRIu64 " %" PRIu64 " %016" PRIx64 " %016" PRIx64 "\n%" PRIu64
                   " %" PRIu32 " %s %s\n",
                   p->snapshot, UUID_STR(&p->identity), *p->base ? p->base : "-", UUID_STR(&p->base_identity), p->version,
                   p->ctransid, p->offset, p->hash_low, p->hash_high, p->state.stripes, p->state.buffered, sums, buffer);
}

static bool hash_agrees(const struct point *p)
{
    struct stream_hash *h = stream_hash_new();
    uint64_t low = 0, high = 0;
    bool good = stream_hash_restore(h, &p->state, p->offset);

    if (good)
        stream_hash_digest(h, &low, &high);
    stream_hash_free(h);
    return good && low == p->hash_low && high == p->hash_high;
}

bool point_parse(const char *text, struct point *ret_point)
{
    struct point p = {0};
    char identity[UUID_TEXT_SIZE], base_identity[UUID_TEXT_SIZE], base[SNAPSHOT_NAME_SIZE];
    char sums[sizeof(p.state.sums) * 2 + 1], buffer[sizeof(p.state.buffer) * 2 + 1], again[POINT_TEXT_MAX];

    if (sscanf(text,
               "flocker-point 1 %63s %36s %63s %36s %u %" SCNu64 " %" SCNu64 " %" SCNx64 " %" SCNx64 " %" SCNu64 " %" SCNu32
               " %128s %512s",
               p.snapshot, identity, base, base_identity, &p.version, &p.ctransid, &p.offset, &p.hash_low, &p.hash_high,
               &p.state.stripes, &p.state.buffered, sums, buffer) != 13)
        return false;
    if (!uuid_parse(identity, &p.identity) || !uuid_parse(base_identity, &p.base_identity) ||
        !read_hex(sums, p.state.sums, sizeof(p.state.sums)) || !read_hex(buffer, p.state.buffer, sizeof(p.state.buffer)))
        return false;
    if (!streq(base, "-"))
        memcpy(p.base, base, sizeof(base));
    if (!snapshot_name_is_valid(p.snapshot) || (*p.base && !snapshot_name_is_valid(p.base)) ||
        (*p.base == '\0') != uuid_is_nil(&p.base_identity))
        return false;
    /* One value has one form. */
    point_format(&p, again);
    if (!streq(text, again) || !hash_agrees(&p))
        return false;
    *ret_point = p;
    return true;
}
