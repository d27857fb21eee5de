/* The mover's protocol. The first byte chooses: h, o, b, e, r a payload (HELLO, OFFER, BEGIN, END, ERROR), which when
 * accepted is written again the same; f frames. */
#include "fuzz.h"

#include "mover/mover_wire.h"

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
    mover_offer_encode(&o, &written);
    check_written(&written, data, n, true);
}

static void begin(const uint8_t *data, size_t n)
{
    CLEANUP_STR struct str written = {0};
    struct mover_begin b;

    if (refused(mover_begin_decode(data, n, 1, &b)))
        return;
    RULE((!*b.base || mover_is_snapshot_name(b.base)) && *b.identity);
    mover_begin_encode(&b, 1, &written);
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
        begin(data + 1, size - 1);
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

bool fuzz_seed(unsigned i, struct str *out)
{
    static struct mover_snapshot snapshots[] = {{"t45-0", "1-2"}, {"t45-final", "3-4 \xe2\x82\xac"}};
    struct mover_offer o = {.version = 1, .snapshots = snapshots, .n_snapshots = 2};
    struct err e = {ERR_NO_SPACE, (char[]){"the disk is full"}};
    struct str p[5] = {0};

    mover_hello_encode(&(struct mover_hello){1, 1, {{1, 2, 3}}, 45, "t45-final"}, &p[0]);
    mover_offer_encode(&o, &p[1]);
    mover_begin_encode(&(struct mover_begin){"t45-0", "5-6"}, 1, &p[2]);
    mover_end_encode(&(struct mover_end){1ull << 40, UINT64_MAX}, &p[3]);
    mover_error_encode(&e, &p[4]);
    if (i < ARRAY_SIZE(p)) {
        str_append_bytes(out, &"hober"[i], 1);
        str_append_bytes(out, p[i].data, p[i].len);
    } else if (i == ARRAY_SIZE(p)) {
        static const enum mover_frame types[] = {MOVER_HELLO, MOVER_OFFER, MOVER_BEGIN, MOVER_END, MOVER_ERROR};
        str_append(out, "f");
        for (size_t k = 0; k < ARRAY_SIZE(p); k++)
            add_frame(out, types[k], &p[k]);
        add_frame(out, MOVER_ACK, &(struct str){0});
    }
    for (size_t k = 0; k < ARRAY_SIZE(p); k++)
        str_done(&p[k]);
    return i <= ARRAY_SIZE(p);
}
