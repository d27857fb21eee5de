/* The mover's protocol. The first byte chooses: h, o, b, B, e, d, r a payload (HELLO, OFFER, BEGIN of version 1 and 2, END,
 * DIGEST, ERROR), which when accepted is written again the same; z a compressed one; f frames. */
#include "fuzz.h"

#include "mover/mover_compress.h"
#include "mover/mover_wire.h"

#include <zstd.h>

static bool refused(struct err *e)
{
    return fuzz_refused(e, ERR_CORRUPT);
}

/* HELLO may be followed by what a later version means. */
static void check_written(const struct str *written, const uint8_t *data, size_t n, bool whole)
{
    RULE(written->len == n || (!whole && written->len < n));
    RULE(!memcmp(written->data, data, written->len));
}

static void hello(const uint8_t *data, size_t n)
{
    CLEANUP_STR struct str written = {0};
    struct mover_hello h;

    if (refused(mover_hello_decode(data, n, &h)))
        return;
    RULE(mover_is_snapshot_name(h.snapshot) && h.version_min <= h.version_max);
    mover_hello_encode(&h, &written);
    check_written(&written, data, n, false);
}

static void offer(const uint8_t *data, size_t n)
{
    CLEANUP_STR struct str written = {0};
    CLEANUP(mover_offer_done) struct mover_offer o = {0};

    if (refused(mover_offer_decode(data, n, &o)))
        return;
    RULE(o.n_snapshots <= MOVER_SNAPSHOTS_MAX);
    for (size_t i = 0; i < o.n_snapshots; i++)
        RULE(mover_is_snapshot_name(o.snapshots[i].name) && *o.snapshots[i].identity);
    const struct mover_point *p = &o.point;
    RULE(!*p->snapshot || (mover_is_snapshot_name(p->snapshot) && *p->identity && (p->offset || *p->token)));
    RULE(!*p->base || mover_is_snapshot_name(p->base));
    RULE(o.version >= 2 || !*p->snapshot);
    mover_offer_encode(&o, &written);
    check_written(&written, data, n, true);
}

static void digest(const uint8_t *data, size_t n)
{
    CLEANUP_STR struct str written = {0};
    char d[STORAGE_DIGEST_SIZE];

    if (refused(mover_digest_decode(data, n, d)))
        return;
    RULE(strspn(d, "0123456789abcdef") == STORAGE_DIGEST_SIZE - 1 && !d[STORAGE_DIGEST_SIZE - 1]);
    mover_digest_encode(d, &written);
    check_written(&written, data, n, true);
}

/* Never more than there is room for, and the same each time. */
static void zstd(const uint8_t *data, size_t n)
{
    static uint8_t plain[MOVER_PAYLOAD_MAX], again[MOVER_PAYLOAD_MAX];
    static struct mover_unpacker *u; /* used on, as in a stream: nothing of a frame may show in the next */
    size_t size, size_again;

    if (refused(mover_unpack(&u, data, n, plain, sizeof(plain), &size)))
        return;
    RULE(size > 0 && size <= sizeof(plain));
    RULE(!refused(mover_unpack(&u, data, n, again, size, &size_again)));
    RULE(size == size_again && !memcmp(plain, again, size));
    RULE(size == 1 || refused(mover_unpack(&u, data, n, again, size - 1, &size_again)));
}

static void begin(const uint8_t *data, size_t n, uint16_t version)
{
    CLEANUP_STR struct str written = {0};
    struct mover_begin b;

    if (refused(mover_begin_decode(data, n, version, &b)))
        return;
    RULE((!*b.base || mover_is_snapshot_name(b.base)) && *b.identity);
    RULE(b.from < MOVER_FROM_MAX && (b.from == MOVER_FROM_OFFSET) == (b.offset != 0));
    RULE(version >= 2 || b.from == MOVER_FROM_START);
    mover_begin_encode(&b, version, &written);
    check_written(&written, data, n, true);
}

static void end(const uint8_t *data, size_t n)
{
    CLEANUP_STR struct str written = {0};
    struct mover_end e;

    if (refused(mover_end_decode(data, n, &e)))
        return;
    mover_end_encode(&e, &written);
    check_written(&written, data, n, true);
}

/* An error told to the other side comes back as the same error. */
static void error(const uint8_t *data, size_t n)
{
    CLEANUP_STR struct str written = {0};
    CLEANUP_ERR struct err *e = mover_error_decode(data, n);

    RULE(e && *e->text && str_is_utf8(e->text, strlen(e->text)));
    mover_error_encode(e, &written);
    CLEANUP_ERR struct err *again = mover_error_decode(written.data, written.len);
    RULE(again->code == e->code && streq(again->text, e->text));
    if (n) {
        CLEANUP_FREE char *any = fuzz_text(data, n);
        CLEANUP_ERR struct err *ours = err_new((enum err_code)(data[0] % ERR_CODE_MAX), "!%s", any);
        written.len = 0;
        mover_error_encode(ours, &written);
        CLEANUP_ERR struct err *told = mover_error_decode(written.data, written.len);
        RULE(told->code == ours->code && strlen(told->text) <= MOVER_TEXT_MAX);
    }
}

static void frames(const uint8_t *data, size_t n)
{
    struct mover_header h;
    uint8_t again[MOVER_HEADER_SIZE];

    while (n >= MOVER_HEADER_SIZE && !refused(mover_header_decode(data, &h))) {
        RULE(h.length <= MOVER_PAYLOAD_MAX && h.type > 0 && h.type < MOVER_FRAME_MAX);
        data += MOVER_HEADER_SIZE;
        n -= MOVER_HEADER_SIZE;
        if (h.length > n || refused(mover_payload_check(&h, data)))
            return;
        mover_header_encode(again, h.type, data, h.length);
        RULE(!memcmp(again, data - MOVER_HEADER_SIZE, MOVER_HEADER_SIZE));
        data += h.length;
        n -= h.length;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    switch (size ? data[0] : 0) {
    case 'h':
        hello(data + 1, size - 1);
        return 0;
    case 'o':
        offer(data + 1, size - 1);
        return 0;
    case 'b':
    case 'B':
        begin(data + 1, size - 1, data[0] == 'b' ? 1 : 2);
        return 0;
    case 'd':
        digest(data + 1, size - 1);
        return 0;
    case 'z':
        zstd(data + 1, size - 1);
        return 0;
    case 'e':
        end(data + 1, size - 1);
        return 0;
    case 'r':
        error(data + 1, size - 1);
        return 0;
    case 'f':
        frames(data + 1, size - 1);
        return 0;
    default:
        return -1;
    }
}

/* ---- seeds ---- */

static void add_frame(struct str *to, enum mover_frame type, const struct str *payload)
{
    uint8_t header[MOVER_HEADER_SIZE];

    mover_header_encode(header, type, payload->data, payload->len);
    str_append_bytes(to, header, sizeof(header));
    str_append_bytes(to, payload->data, payload->len);
}

static void add_packed(struct str *to, const char *text, unsigned times)
{
    CLEANUP_STR struct str plain = {0};
    char packed[512];

    for (unsigned i = 0; i < times; i++)
        str_append(&plain, text);
    str_append_bytes(to, packed, ZSTD_compress(packed, sizeof(packed), plain.data, plain.len, 1));
}

#define PAYLOADS 10

bool fuzz_seed(unsigned i, struct str *out)
{
    static struct mover_snapshot snapshots[] = {{"t45-0", "1-2"}, {"t45-final", "3-4 \xe2\x82\xac"}};
    static const enum mover_frame types[PAYLOADS] = {MOVER_HELLO, MOVER_OFFER, MOVER_BEGIN, MOVER_END,   MOVER_ERROR,
                                                     MOVER_OFFER, MOVER_OFFER, MOVER_BEGIN, MOVER_DIGEST, MOVER_ZSTD};
    struct mover_offer o = {.version = 1, .snapshots = snapshots, .n_snapshots = 2};
    struct err e = {ERR_NO_SPACE, (char[]){"the disk is full"}};
    struct str p[PAYLOADS] = {0};

    mover_hello_encode(&(struct mover_hello){1, 2, {{1, 2, 3}}, 45, "t45-final"}, &p[0]);
    mover_offer_encode(&o, &p[1]);
    mover_begin_encode(&(struct mover_begin){"t45-0", "5-6"}, 1, &p[2]);
    mover_end_encode(&(struct mover_end){1ull << 40, UINT64_MAX}, &p[3]);
    mover_error_encode(&e, &p[4]);
    o.version = 2;
    o.point = (struct mover_point){"t45-1", "7-8", "t45-0", 1ull << 30, 1, UINT64_MAX, ""};
    mover_offer_encode(&o, &p[5]);
    o.point = (struct mover_point){"t45-1", "7-8", "", 0, 0, 0, "1-e604ea4bf-e0-789c63a2"};
    mover_offer_encode(&o, &p[6]);
    mover_begin_encode(&(struct mover_begin){"t45-0", "5-6", MOVER_FROM_OFFSET, 1ull << 30}, 2, &p[7]);
    mover_digest_encode("0123456789abcdef0123456789abcdef", &p[8]);
    add_packed(&p[9], "the same again, ", 300);
    if (i < PAYLOADS) {
        str_append_bytes(out, &"hoberooBdz"[i], 1);
        str_append_bytes(out, p[i].data, p[i].len);
    } else if (i == PAYLOADS) {
        str_append(out, "f");
        for (size_t k = 0; k < PAYLOADS; k++)
            add_frame(out, types[k], &p[k]);
        add_frame(out, MOVER_ACK, &(struct str){0});
    }
    for (size_t k = 0; k < PAYLOADS; k++)
        str_done(&p[k]);
    return i <= PAYLOADS;
}
