#include "mover/mover_wire.h"

#include <endian.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

static const char magic[4] = {'F', 'L', 'K', 'M'};

void mover_offer_done(struct mover_offer *o)
{
    free(o->snapshots);
    *o = (struct mover_offer){0};
}

const struct mover_snapshot *mover_offer_find(const struct mover_offer *o, const char *name)
{
    for (size_t i = 0; i < o->n_snapshots; i++) {
        if (streq(o->snapshots[i].name, name))
            return &o->snapshots[i];
    }
    return NULL;
}

bool mover_is_snapshot_name(const char *name)
{
    size_t n = strnlen(name, SNAPSHOT_NAME_SIZE);

    return n && n < SNAPSHOT_NAME_SIZE &&
           strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == n;
}

/* ---- frames ---- */

uint64_t mover_checksum(enum mover_frame type, const void *payload, size_t n)
{
    return XXH3_64bits_withSeed(payload, n, (uint64_t)type);
}

void mover_header_encode(uint8_t to[MOVER_HEADER_SIZE], enum mover_frame type, const void *payload,
                         size_t n)
{
    uint32_t length = htobe32((uint32_t)n);
    uint64_t checksum = htobe64(mover_checksum(type, payload, n));

    memset(to, 0, MOVER_HEADER_SIZE);
    to[0] = (uint8_t)type;
    memcpy(to + 4, &length, sizeof(length));
    memcpy(to + 8, &checksum, sizeof(checksum));
}

struct err *mover_header_decode(const uint8_t from[MOVER_HEADER_SIZE],
                                struct mover_header *ret_header)
{
    uint32_t length;
    uint64_t checksum;

    memcpy(&length, from + 4, sizeof(length));
    memcpy(&checksum, from + 8, sizeof(checksum));
    length = be32toh(length);
    if (from[0] == 0 || from[0] >= MOVER_FRAME_MAX || from[1] || from[2] || from[3])
        return err_new(ERR_CORRUPT, "the mover's stream has a frame of an unknown kind");
    if (length > MOVER_PAYLOAD_MAX)
        return err_new(ERR_CORRUPT, "the mover's stream has a frame of %u bytes, allowed are %u",
                       length, MOVER_PAYLOAD_MAX);
    *ret_header = (struct mover_header){(enum mover_frame)from[0], length, be64toh(checksum)};
    return NULL;
}

struct err *mover_payload_check(const struct mover_header *header, const void *payload)
{
    if (mover_checksum(header->type, payload, header->length) != header->checksum)
        return err_new(ERR_CORRUPT, "the mover's stream has a frame with a wrong checksum");
    return NULL;
}

/* ---- payloads ---- */

static void put_u16(struct str *to, uint16_t v)
{
    v = htobe16(v);
    str_append_bytes(to, &v, sizeof(v));
}

static void put_u64(struct str *to, uint64_t v)
{
    v = htobe64(v);
    str_append_bytes(to, &v, sizeof(v));
}

static void put_text(struct str *to, const char *text, size_t n)
{
    put_u16(to, (uint16_t)n);
    str_append_bytes(to, text, n);
}

/* What is left to decode; `bad` once something did not fit. */
struct reader {
    const uint8_t *at;
    size_t left;
    bool bad;
};

static void get_bytes(struct reader *r, void *to, size_t n)
{
    if (r->bad || n > r->left) {
        r->bad = true;
        memset(to, 0, n);
        return;
    }
    memcpy(to, r->at, n);
    r->at += n;
    r->left -= n;
}

static uint16_t get_u16(struct reader *r)
{
    uint16_t v;

    get_bytes(r, &v, sizeof(v));
    return be16toh(v);
}

static uint64_t get_u64(struct reader *r)
{
    uint64_t v;

    get_bytes(r, &v, sizeof(v));
    return be64toh(v);
}

/* Into a buffer of `size` bytes, NUL-terminated; the text must be UTF-8 without NUL. */
static void get_text(struct reader *r, char *to, size_t size)
{
    size_t n = get_u16(r);

    to[0] = '\0';
    if (r->bad || n >= size) {
        r->bad = true;
        return;
    }
    get_bytes(r, to, n);
    to[n] = '\0';
    if (!str_is_utf8(to, n))
        r->bad = true;
}

static void get_snapshot_name(struct reader *r, char to[SNAPSHOT_NAME_SIZE])
{
    get_text(r, to, SNAPSHOT_NAME_SIZE);
    if (!mover_is_snapshot_name(to))
        r->bad = true;
}

static void get_identity(struct reader *r, char to[MOVER_IDENTITY_MAX + 1])
{
    get_text(r, to, MOVER_IDENTITY_MAX + 1);
    if (!to[0])
        r->bad = true;
}

/* "" = none */
static void get_base(struct reader *r, char to[SNAPSHOT_NAME_SIZE])
{
    get_text(r, to, SNAPSHOT_NAME_SIZE);
    if (to[0] && !mover_is_snapshot_name(to))
        r->bad = true;
}

static struct err *refuse(const char *what)
{
    return err_new(ERR_CORRUPT, "the mover's peer sent a damaged %s", what);
}

void mover_hello_encode(const struct mover_hello *hello, struct str *to)
{
    str_append_bytes(to, magic, sizeof(magic));
    put_u16(to, hello->version_min);
    put_u16(to, hello->version_max);
    str_append_bytes(to, hello->dataset.b, sizeof(hello->dataset.b));
    put_u64(to, hello->transfer);
    put_text(to, hello->snapshot, strlen(hello->snapshot));
}

struct err *mover_hello_decode(const void *payload, size_t n, struct mover_hello *ret_hello)
{
    struct reader r = {payload, n, false};
    struct mover_hello h;
    char found[sizeof(magic)];

    get_bytes(&r, found, sizeof(found));
    h.version_min = get_u16(&r);
    h.version_max = get_u16(&r);
    get_bytes(&r, h.dataset.b, sizeof(h.dataset.b));
    h.transfer = get_u64(&r);
    get_snapshot_name(&r, h.snapshot);
    if (r.bad || memcmp(found, magic, sizeof(magic)) != 0 || h.version_min > h.version_max)
        return refuse("greeting");
    *ret_hello = h;
    return NULL;
}

static void put_point(struct str *to, const struct mover_point *p)
{
    put_text(to, p->snapshot, strlen(p->snapshot));
    if (!p->snapshot[0])
        return;
    put_text(to, p->identity, strlen(p->identity));
    put_text(to, p->base, strlen(p->base));
    put_u64(to, p->offset);
    put_u64(to, p->hash_low);
    put_u64(to, p->hash_high);
    put_text(to, p->token, strlen(p->token));
}

static void get_point(struct reader *r, struct mover_point *p)
{
    get_text(r, p->snapshot, sizeof(p->snapshot));
    if (r->bad || !p->snapshot[0])
        return;
    get_identity(r, p->identity);
    get_base(r, p->base);
    p->offset = get_u64(r);
    p->hash_low = get_u64(r);
    p->hash_high = get_u64(r);
    get_text(r, p->token, sizeof(p->token));
    if (!mover_is_snapshot_name(p->snapshot) || (!p->offset && !p->token[0]))
        r->bad = true;
}

uint64_t mover_point_number(const struct mover_point *p)
{
    CLEANUP_STR struct str bytes = {0};

    put_point(&bytes, p);
    return XXH3_64bits(bytes.data, bytes.len);
}

void mover_offer_encode(const struct mover_offer *offer, struct str *to)
{
    size_t first =
        offer->n_snapshots > MOVER_SNAPSHOTS_MAX ? offer->n_snapshots - MOVER_SNAPSHOTS_MAX : 0;

    put_u16(to, offer->version);
    put_u16(to, (uint16_t)(offer->n_snapshots - first));
    for (size_t i = first; i < offer->n_snapshots; i++) {
        const struct mover_snapshot *s = &offer->snapshots[i];

        put_text(to, s->name, strlen(s->name));
        put_text(to, s->identity, strlen(s->identity));
    }
    if (offer->version >= 2)
        put_point(to, &offer->point);
}

struct err *mover_offer_decode(const void *payload, size_t n, struct mover_offer *ret_offer)
{
    struct reader r = {payload, n, false};
    struct mover_offer o = {.version = get_u16(&r)};
    size_t count = get_u16(&r);

    if (r.bad || count > MOVER_SNAPSHOTS_MAX)
        return refuse("list of snapshots");
    o.snapshots = xcalloc(count, sizeof(*o.snapshots));
    for (; o.n_snapshots < count && !r.bad; o.n_snapshots++) {
        get_snapshot_name(&r, o.snapshots[o.n_snapshots].name);
        get_identity(&r, o.snapshots[o.n_snapshots].identity);
    }
    if (o.version >= 2)
        get_point(&r, &o.point);
    if (r.bad || r.left) {
        mover_offer_done(&o);
        return refuse("list of snapshots");
    }
    *ret_offer = o;
    return NULL;
}

void mover_begin_encode(const struct mover_begin *begin, uint16_t version, struct str *to)
{
    put_text(to, begin->base, strlen(begin->base));
    put_text(to, begin->identity, strlen(begin->identity));
    if (version < 2)
        return;
    put_u16(to, (uint16_t)begin->from);
    put_u64(to, begin->offset);
}

struct err *mover_begin_decode(const void *payload, size_t n, uint16_t version,
                               struct mover_begin *ret_begin)
{
    struct reader r = {payload, n, false};
    struct mover_begin b = {0};

    get_base(&r, b.base);
    get_identity(&r, b.identity);
    uint16_t from = version >= 2 ? get_u16(&r) : MOVER_FROM_START;
    b.offset = version >= 2 ? get_u64(&r) : 0;
    if (r.bad || r.left || from >= MOVER_FROM_MAX || (from == MOVER_FROM_OFFSET) != (b.offset != 0))
        return refuse("start of a stream");
    b.from = (enum mover_from)from;
    *ret_begin = b;
    return NULL;
}

void mover_end_encode(const struct mover_end *end, struct str *to)
{
    put_u64(to, end->length);
    put_u64(to, end->hash);
}

struct err *mover_end_decode(const void *payload, size_t n, struct mover_end *ret_end)
{
    struct reader r = {payload, n, false};
    struct mover_end e = {.length = get_u64(&r), .hash = get_u64(&r)};

    if (r.bad || r.left)
        return refuse("end of a stream");
    *ret_end = e;
    return NULL;
}

void mover_digest_encode(const char *digest, struct str *to)
{
    put_text(to, digest, strlen(digest));
}

struct err *mover_digest_decode(const void *payload, size_t n, char ret_digest[STORAGE_DIGEST_SIZE])
{
    struct reader r = {payload, n, false};
    char digest[STORAGE_DIGEST_SIZE];

    get_text(&r, digest, sizeof(digest));
    if (r.bad || r.left || strspn(digest, "0123456789abcdef") != STORAGE_DIGEST_SIZE - 1)
        return refuse("digest");
    memcpy(ret_digest, digest, sizeof(digest));
    return NULL;
}

void mover_error_encode(const struct err *e, struct str *to)
{
    const char *code = err_code_name(e->code);
    size_t n = strnlen(e->text, MOVER_TEXT_MAX + 1);

    if (n > MOVER_TEXT_MAX) {
        n = MOVER_TEXT_MAX;
        while (n && ((unsigned char)e->text[n] & 0xc0) == 0x80) /* not inside a character */
            n--;
    }
    put_text(to, code, strlen(code));
    if (str_is_utf8(e->text, n))
        put_text(to, e->text, n);
    else
        put_text(to, code, strlen(code)); /* a text that cannot be told; the code still can */
}

struct err *mover_error_decode(const void *payload, size_t n)
{
    struct reader r = {payload, n, false};
    char name[32], text[MOVER_TEXT_MAX + 1];

    get_text(&r, name, sizeof(name));
    get_text(&r, text, sizeof(text));
    if (r.bad || r.left || !text[0])
        return refuse("error");
    enum err_code code = err_code_parse(name);
    return err_new(code == ERR_CODE_INVALID ? ERR_IO : code, "%s", text);
}
