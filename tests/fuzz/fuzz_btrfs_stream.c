/* Streams of btrfs send, as another host sends them. The first byte chooses: s a stream as it is; x one whose checksums are
 * put right first, so that what is behind them is reached; n the note beside a checkpoint; z, Z compressed data. */
#include "fuzz.h"

#include "../unit/drivers/send_build.h"
#include "drivers/btrfs/decompress.h"
#include "drivers/btrfs/point.h"

#include <linux/btrfs.h>

static bool below(const char *path)
{
    CLEANUP_FREE char *slashed = xasprintf("/%s/", path);

    return *path != '/' && !strstr(slashed, "//") && !strstr(slashed, "/./") && !strstr(slashed, "/../");
}

static void check_path(const char *path, bool root)
{
    RULE(strlen(path) <= SEND_PATH_MAX && (below(path) || (root && !*path)));
}

/* What the applier relies on. */
static void check_command(const struct send_command *c)
{
    RULE(c->type < SEND_TYPE_MAX && c->type != SEND_UPDATE_EXTENT && *send_type_name(c->type));
    if (c->type == SEND_HEADER || c->type == SEND_END || c->type == SEND_SUBVOL || c->type == SEND_SNAPSHOT)
        return;
    check_path(c->path, c->type >= SEND_SET_XATTR);
    if (c->type == SEND_RENAME)
        check_path(c->path_to, false);
    if (c->type == SEND_LINK)
        check_path(c->path_link, false);
    if (c->type == SEND_SYMLINK)
        RULE(*c->path_link && strlen(c->path_link) <= SEND_PATH_MAX);
    if (c->type == SEND_CLONE) {
        check_path(c->clone_path, false);
        RULE(c->clone_length && c->offset + c->clone_length <= INT64_MAX && c->clone_offset + c->clone_length <= INT64_MAX);
    }
    if (c->type == SEND_SET_XATTR || c->type == SEND_REMOVE_XATTR)
        RULE(*c->xattr_name && strlen(c->xattr_name) <= SEND_NAME_MAX && c->n_data <= SEND_XATTR_MAX);
    if (c->type == SEND_WRITE)
        RULE(c->data && c->n_data <= SEND_COMMAND_MAX && c->offset + c->n_data <= INT64_MAX);
    if (c->type == SEND_ENCODED_WRITE)
        RULE(c->unencoded_length <= SEND_UNENCODED_MAX && c->unencoded_file_length &&
             c->unencoded_offset + c->unencoded_file_length <= c->unencoded_length && c->n_data <= SEND_UNENCODED_MAX);
}

static uint64_t mix(uint64_t h, const void *bytes, size_t n)
{
    return h * 31 + fuzz_hash(bytes, n);
}

/* Takes what arrived in pieces, each in a heap block of its size; a hash of all commands and of the end. */
static uint64_t take(const uint8_t *data, size_t n, const struct random *cuts, size_t *ret_taken)
{
    struct send_stream *s = xcalloc(1, sizeof(*s));
    uint64_t h = 0;
    size_t at = 0, end = cuts ? 0 : n;
    struct err *e = NULL;
    bool subvolume = false;

    send_stream_init(s);
    while (!e) {
        struct send_command c;
        size_t used;
        CLEANUP_FREE uint8_t *piece = end == at ? xmalloc(1) : xmemdup(data + at, end - at);

        e = send_stream_next(s, piece, end - at, &used, &c);
        RULE(!e || (*e->text && (err_is(e, ERR_CORRUPT) || err_is(e, ERR_UNSUPPORTED))));
        if (e)
            break;
        RULE(used <= end - at && used <= SEND_COMMAND_MAX);
        if (used) {
            check_command(&c);
            bool first = c.type == SEND_SUBVOL || c.type == SEND_SNAPSHOT;
            RULE(first ? !subvolume : subvolume || c.type == SEND_HEADER);
            subvolume |= first;
            h = mix(h, &c.type, sizeof(c.type));
            h = mix(h, &used, sizeof(used));
            if (c.path)
                h = mix(h, c.path, strlen(c.path));
            at += used;
            RULE(s->offset == at);
            continue;
        }
        RULE(end - at < SEND_COMMAND_MAX);
        if (end == n)
            break;
        end += fuzz_piece(cuts, n - end);
    }
    if (e)
        h = mix(h, e->text, strlen(e->text));
    RULE(s->phase != SEND_AT_END || subvolume);
    err_free(e);
    free(s);
    *ret_taken = at;
    return h;
}

static void stream(const uint8_t *data, size_t n)
{
    uint64_t seed = fuzz_hash(data, n);
    struct random cuts = random_seeded(&seed);
    size_t a, b;

    RULE(take(data, n, NULL, &a) == take(data, n, &cuts, &b) && a == b);
}

static void repair(char *bytes, size_t n)
{
    for (size_t at = SEND_HEADER_SIZE; at + SEND_COMMAND_HEADER_SIZE <= n;) {
        uint32_t length;

        memcpy(&length, bytes + at, 4);
        if (le32toh(length) > n - at - SEND_COMMAND_HEADER_SIZE)
            return;
        send_seal(bytes + at, le32toh(length) + SEND_COMMAND_HEADER_SIZE);
        at += le32toh(length) + SEND_COMMAND_HEADER_SIZE;
    }
}

static void note(const uint8_t *data, size_t n)
{
    CLEANUP_FREE char *text = fuzz_text(data, n);
    char again[POINT_TEXT_MAX];
    struct point p;

    if (!point_parse(text, &p))
        return;
    point_format(&p, again);
    RULE(streq(text, again) && p.offset);
}

static void unpack(uint32_t compression, const uint8_t *data, size_t n)
{
    size_t want = n ? (size_t)data[0] * 514 + 1 : 1;
    CLEANUP_FREE uint8_t *to = xmalloc(want);
    CLEANUP_ERR struct err *e = decompress(compression, data + (n != 0), n - (n != 0), to, want);

    RULE(!e || err_is(e, ERR_CORRUPT));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CLEANUP_FREE char *copy = NULL;

    switch (size ? data[0] : 0) {
    case 's':
        stream(data + 1, size - 1);
        return 0;
    case 'x':
        copy = xmemdup(data, size);
        repair(copy + 1, size - 1);
        stream((uint8_t *)copy + 1, size - 1);
        return 0;
    case 'n':
        note(data + 1, size - 1);
        return 0;
    case 'z':
        unpack(BTRFS_ENCODED_IO_COMPRESSION_ZLIB, data + 1, size - 1);
        return 0;
    case 'Z':
        unpack(BTRFS_ENCODED_IO_COMPRESSION_ZSTD, data + 1, size - 1);
        return 0;
    default:
        return -1;
    }
}

/* ---- seeds ---- */

static void one_of_each(struct str *s)
{
    static const struct uuid id = {{1}}, base = {{2}};
    size_t at;

    send_put_header(s, 2);
    send_put_snapshot(s, &id, &base);
    for (unsigned type = SEND_MKFILE; type <= SEND_ENCODED_WRITE; type++) {
        if (type == SEND_UPDATE_EXTENT || type == SEND_END)
            continue;
        at = send_begin(s, type);
        send_put_text(s, ATTR_PATH, "d/f");
        for (unsigned a = ATTR_SIZE; a <= ATTR_RDEV; a++)
            send_put_64(s, a, type == SEND_MKNOD ? 020600 : 0600);
        send_put_time(s, ATTR_ATIME, 1);
        send_put_time(s, ATTR_MTIME, 2);
        if (type == SEND_RENAME)
            send_put_text(s, ATTR_PATH_TO, "e");
        if (type == SEND_SYMLINK || type == SEND_LINK)
            send_put_text(s, ATTR_PATH_LINK, "l");
        send_put_64(s, ATTR_OFFSET, 4096);
        send_put_64(s, 26, 0);
        if (type == SEND_FALLOCATE)
            send_put_32(s, 25, 1);
        if (type == SEND_SET_XATTR || type == SEND_REMOVE_XATTR) {
            send_put_text(s, ATTR_XATTR_NAME, "user.a");
            send_put_text(s, ATTR_XATTR_DATA, "value");
        }
        if (type == SEND_CLONE) {
            send_put(s, ATTR_CLONE_UUID, id.b, 16);
            send_put_64(s, ATTR_CLONE_CTRANSID, 1);
            send_put_text(s, ATTR_CLONE_PATH, "g");
            send_put_64(s, ATTR_CLONE_OFFSET, 0);
            send_put_64(s, ATTR_CLONE_LENGTH, 4096);
        }
        if (type == SEND_ENCODED_WRITE) {
            send_put_64(s, ATTR_UNENCODED_FILE_LENGTH, 4096);
            send_put_64(s, ATTR_UNENCODED_LENGTH, 8192);
            send_put_64(s, ATTR_UNENCODED_OFFSET, 4096);
            send_put_32(s, ATTR_COMPRESSION, BTRFS_ENCODED_IO_COMPRESSION_ZSTD);
        }
        if (type == SEND_WRITE || type == SEND_ENCODED_WRITE)
            send_put_data(s, "data", 4);
        send_end(s, at);
    }
    send_put_end(s);
}

static void a_note(struct str *s)
{
    struct point p = {.snapshot = "t1-0", .base = "t0", .identity = {{1}}, .base_identity = {{2}}, .version = 2, .offset = 9};
    struct stream_hash *h = stream_hash_new();
    char text[POINT_TEXT_MAX];

    stream_hash_update(h, "123456789", 9);
    stream_hash_save(h, &p.state);
    stream_hash_digest(h, &p.hash_low, &p.hash_high);
    stream_hash_free(h);
    point_format(&p, text);
    str_append(s, text);
}

bool fuzz_seed(unsigned i, struct str *out)
{
    if (i > 2)
        return false;
    str_append_bytes(out, &"sxn"[i], 1);
    if (i < 2)
        one_of_each(out);
    else
        a_note(out);
    return true;
}
