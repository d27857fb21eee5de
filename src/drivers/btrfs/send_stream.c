#include "drivers/btrfs/send_stream.h"

#include "base/crc32c.h"

#include <endian.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/btrfs.h>
#include <linux/falloc.h>
#include <sys/stat.h>

static const char magic[13] = "btrfs-stream";

/* ---- attributes ---- */

enum attribute {
    A_UUID = 1,
    A_CTRANSID = 2,
    A_SIZE = 4,
    A_MODE = 5,
    A_UID = 6,
    A_GID = 7,
    A_RDEV = 8,
    A_MTIME = 10,
    A_ATIME = 11,
    A_XATTR_NAME = 13,
    A_XATTR_DATA = 14,
    A_PATH = 15,
    A_PATH_TO = 16,
    A_PATH_LINK = 17,
    A_OFFSET = 18,
    A_DATA = 19,
    A_CLONE_UUID = 20,
    A_CLONE_CTRANSID = 21,
    A_CLONE_PATH = 22,
    A_CLONE_OFFSET = 23,
    A_CLONE_LENGTH = 24,
    A_FALLOCATE_MODE = 25,
    A_FILEATTR = 26,
    A_UNENCODED_FILE_LENGTH = 27,
    A_UNENCODED_LENGTH = 28,
    A_UNENCODED_OFFSET = 29,
    A_COMPRESSION = 30,
    A_ENCRYPTION = 31,
    A_MAX,
};
#define A_MAX_V1 24u
#define BIT(a) (1u << (a))

enum kind { KIND_SKIPPED, KIND_U64, KIND_U64_AS_32, KIND_U32, KIND_UUID, KIND_TIME, KIND_PATH, KIND_NAME, KIND_DATA };

#define AT(field) offsetof(struct send_command, field)
/* What is read and used; of the others (inode number, ctime, otime) only the size is looked at. */
static const struct {
    enum kind kind;
    size_t at;
} attributes[A_MAX] = {
    [A_UUID] = {KIND_UUID, AT(uuid)},
    [A_CTRANSID] = {KIND_U64, AT(ctransid)},
    [A_SIZE] = {KIND_U64, AT(size)},
    [A_MODE] = {KIND_U64_AS_32, AT(mode)},
    [A_UID] = {KIND_U64_AS_32, AT(uid)},
    [A_GID] = {KIND_U64_AS_32, AT(gid)},
    [A_RDEV] = {KIND_U64_AS_32, AT(rdev)},
    [A_MTIME] = {KIND_TIME, AT(mtime)},
    [A_ATIME] = {KIND_TIME, AT(atime)},
    [A_XATTR_NAME] = {KIND_NAME, AT(xattr_name)},
    [A_XATTR_DATA] = {KIND_DATA, AT(data)},
    [A_PATH] = {KIND_PATH, AT(path)},
    [A_PATH_TO] = {KIND_PATH, AT(path_to)},
    [A_PATH_LINK] = {KIND_PATH, AT(path_link)},
    [A_OFFSET] = {KIND_U64, AT(offset)},
    [A_DATA] = {KIND_DATA, AT(data)},
    [A_CLONE_UUID] = {KIND_UUID, AT(clone_uuid)},
    [A_CLONE_CTRANSID] = {KIND_U64, AT(clone_ctransid)},
    [A_CLONE_PATH] = {KIND_PATH, AT(clone_path)},
    [A_CLONE_OFFSET] = {KIND_U64, AT(clone_offset)},
    [A_CLONE_LENGTH] = {KIND_U64, AT(clone_length)},
    [A_FALLOCATE_MODE] = {KIND_U32, AT(fallocate_mode)},
    [A_FILEATTR] = {KIND_U64, AT(file_attributes)},
    [A_UNENCODED_FILE_LENGTH] = {KIND_U64, AT(unencoded_file_length)},
    [A_UNENCODED_LENGTH] = {KIND_U64, AT(unencoded_length)},
    [A_UNENCODED_OFFSET] = {KIND_U64, AT(unencoded_offset)},
    [A_COMPRESSION] = {KIND_U32, AT(compression)},
    [A_ENCRYPTION] = {KIND_U32, 0}, /* must be 0 */
};

/* ---- commands ---- */

#define ENCODED                                                                                                        \
    (BIT(A_UNENCODED_FILE_LENGTH) | BIT(A_UNENCODED_LENGTH) | BIT(A_UNENCODED_OFFSET) | BIT(A_OFFSET) | BIT(A_DATA))
static const struct {
    const char *name;
    uint32_t needs;
    bool root; /* may be about the subvolume itself */
} commands[SEND_TYPE_MAX] = {
    [SEND_HEADER] = {"header", 0, false},
    [SEND_SUBVOL] = {"subvol", BIT(A_PATH) | BIT(A_UUID) | BIT(A_CTRANSID), true},
    [SEND_SNAPSHOT] = {"snapshot",
                       BIT(A_PATH) | BIT(A_UUID) | BIT(A_CTRANSID) | BIT(A_CLONE_UUID) | BIT(A_CLONE_CTRANSID), true},
    [SEND_MKFILE] = {"mkfile", BIT(A_PATH), false},
    [SEND_MKDIR] = {"mkdir", BIT(A_PATH), false},
    [SEND_MKNOD] = {"mknod", BIT(A_PATH) | BIT(A_MODE) | BIT(A_RDEV), false},
    [SEND_MKFIFO] = {"mkfifo", BIT(A_PATH), false},
    [SEND_MKSOCK] = {"mksock", BIT(A_PATH), false},
    [SEND_SYMLINK] = {"symlink", BIT(A_PATH) | BIT(A_PATH_LINK), false},
    [SEND_RENAME] = {"rename", BIT(A_PATH) | BIT(A_PATH_TO), false},
    [SEND_LINK] = {"link", BIT(A_PATH) | BIT(A_PATH_LINK), false},
    [SEND_UNLINK] = {"unlink", BIT(A_PATH), false},
    [SEND_RMDIR] = {"rmdir", BIT(A_PATH), false},
    [SEND_SET_XATTR] = {"set_xattr", BIT(A_PATH) | BIT(A_XATTR_NAME) | BIT(A_XATTR_DATA), true},
    [SEND_REMOVE_XATTR] = {"remove_xattr", BIT(A_PATH) | BIT(A_XATTR_NAME), true},
    [SEND_WRITE] = {"write", BIT(A_PATH) | BIT(A_OFFSET) | BIT(A_DATA), false},
    [SEND_CLONE] = {"clone",
                    BIT(A_PATH) | BIT(A_OFFSET) | BIT(A_CLONE_UUID) | BIT(A_CLONE_CTRANSID) | BIT(A_CLONE_PATH) |
                        BIT(A_CLONE_OFFSET) | BIT(A_CLONE_LENGTH),
                    false},
    [SEND_TRUNCATE] = {"truncate", BIT(A_PATH) | BIT(A_SIZE), false},
    [SEND_CHMOD] = {"chmod", BIT(A_PATH) | BIT(A_MODE), true},
    [SEND_CHOWN] = {"chown", BIT(A_PATH) | BIT(A_UID) | BIT(A_GID), true},
    [SEND_UTIMES] = {"utimes", BIT(A_PATH) | BIT(A_ATIME) | BIT(A_MTIME), true},
    [SEND_END] = {"end", 0, false},
    [SEND_UPDATE_EXTENT] = {"update_extent", BIT(A_PATH), false},
    [SEND_FALLOCATE] = {"fallocate", BIT(A_PATH) | BIT(A_OFFSET) | BIT(A_SIZE) | BIT(A_FALLOCATE_MODE), false},
    [SEND_FILEATTR] = {"fileattr", BIT(A_PATH) | BIT(A_FILEATTR), true},
    [SEND_ENCODED_WRITE] = {"encoded_write", BIT(A_PATH) | ENCODED, false}, /* no compression, no encryption: none */
};

const char *send_type_name(enum send_type type)
{
    return type < SEND_TYPE_MAX ? commands[type].name : "unknown";
}

/* One command being taken apart. */
struct parse {
    struct send_stream *s;
    struct send_command *c;
    const uint8_t *at;
    size_t left;
    uint32_t seen;
    unsigned n_paths;
};

static struct err *damaged(const struct parse *p, const char *what)
{
    return err_new(ERR_CORRUPT, "the btrfs stream is not valid at byte %" PRIu64 "%s%s: %s", p->s->offset,
                   p->c->type ? ", command " : "", p->c->type ? send_type_name(p->c->type) : "", what);
}

static uint16_t get_16(const uint8_t *p)
{
    uint16_t v;

    memcpy(&v, p, sizeof(v));
    return le16toh(v);
}

static uint32_t get_32(const uint8_t *p)
{
    uint32_t v;

    memcpy(&v, p, sizeof(v));
    return le32toh(v);
}

static uint64_t get_64(const uint8_t *p)
{
    uint64_t v;

    memcpy(&v, p, sizeof(v));
    return le64toh(v);
}

/* ---- values ---- */

static struct err *get_number(const struct parse *p, enum kind kind, void *to, size_t n)
{
    uint64_t v;

    if (n != (kind == KIND_U32 ? 4u : 8u))
        return damaged(p, "a number has the wrong size");
    v = kind == KIND_U32 ? get_32(p->at) : get_64(p->at);
    if (kind == KIND_U64) {
        memcpy(to, &v, sizeof(v));
        return NULL;
    }
    if (v > UINT32_MAX)
        return damaged(p, "a number is too large");
    memcpy(to, &(uint32_t){(uint32_t)v}, sizeof(uint32_t));
    return NULL;
}

static struct err *get_time(const struct parse *p, struct timespec *to, size_t n)
{
    if (n != 12 || get_32(p->at + 8) >= 1000000000)
        return damaged(p, "a time has the wrong size or value");
    to->tv_sec = (time_t)get_64(p->at);
    to->tv_nsec = (long)get_32(p->at + 8);
    return NULL;
}

/* Copied, for it has no NUL at its end. */
static struct err *get_text(struct parse *p, bool name, const char **to, size_t n)
{
    char *buf = p->s->xattr_name;

    if (n > (name ? SEND_NAME_MAX : SEND_PATH_MAX) || memchr(p->at, '\0', n))
        return damaged(p, "a name or path is too long or has a NUL in it");
    if (!name) {
        if (p->n_paths == ARRAY_SIZE(p->s->paths))
            return damaged(p, "too many paths");
        buf = p->s->paths[p->n_paths++];
    }
    memcpy(buf, p->at, n);
    buf[n] = '\0';
    *to = buf;
    return NULL;
}

static struct err *get_value(struct parse *p, unsigned a, size_t n)
{
    void *to = (char *)p->c + attributes[a].at;
    uint32_t none = 0;

    switch (attributes[a].kind) {
    case KIND_U32:
        TRY(get_number(p, KIND_U32, a == A_ENCRYPTION ? &none : to, n));
        return none ? damaged(p, "it is encrypted") : NULL;
    case KIND_U64:
    case KIND_U64_AS_32:
        return get_number(p, attributes[a].kind, to, n);
    case KIND_UUID:
        if (n != sizeof(struct uuid))
            return damaged(p, "a uuid has the wrong size");
        memcpy(to, p->at, n);
        return NULL;
    case KIND_TIME:
        return get_time(p, to, n);
    case KIND_PATH:
    case KIND_NAME:
        return get_text(p, attributes[a].kind == KIND_NAME, to, n);
    case KIND_DATA:
        if (p->c->data)
            return damaged(p, "it has data twice");
        p->c->data = p->at;
        p->c->n_data = n;
        return NULL;
    case KIND_SKIPPED:
        break;
    }
    return NULL;
}

/* The length of the value, and `at` behind the attribute's own header. */
static struct err *get_header(struct parse *p, unsigned *ret_a, size_t *ret_n)
{
    if (p->left < 2)
        return damaged(p, "it ends within an attribute");
    *ret_a = get_16(p->at);
    bool rest = p->s->version >= 2 && *ret_a == A_DATA;
    size_t head = rest ? 2 : 4;

    if (p->left < head)
        return damaged(p, "it ends within an attribute");
    *ret_n = rest ? p->left - head : get_16(p->at + 2);
    p->at += head;
    p->left -= head;
    if (*ret_n > p->left)
        return damaged(p, "an attribute is longer than the command");
    return NULL;
}

static struct err *get_attributes(struct parse *p)
{
    while (p->left) {
        unsigned a = 0;
        size_t n = 0;

        TRY(get_header(p, &a, &n));
        if (a == 0 || a > (p->s->version >= 2 ? A_MAX - 1 : A_MAX_V1))
            return damaged(p, "an attribute is unknown");
        if (p->seen & BIT(a))
            return damaged(p, "an attribute is there twice");
        p->seen |= BIT(a);
        TRY(get_value(p, a, n));
        p->at += n;
        p->left -= n;
    }
    if (commands[p->c->type].needs & ~p->seen)
        return damaged(p, "an attribute is missing");
    return NULL;
}

/* ---- what commands mean ---- */

static bool path_is_below(const char *path)
{
    for (;;) {
        size_t n = strcspn(path, "/");

        if (n == 0 || n > SEND_NAME_MAX || (n == 1 && *path == '.') || (n == 2 && path[0] == '.' && path[1] == '.'))
            return false;
        if (!path[n])
            return true;
        path += n + 1;
    }
}

static struct err *check_path(const struct parse *p, const char *path, bool root)
{
    return path_is_below(path) || (root && !*path) ? NULL : damaged(p, "a path does not stay below the subvolume");
}

static struct err *check_paths(const struct parse *p)
{
    const struct send_command *c = p->c;

    if (c->type == SEND_SUBVOL || c->type == SEND_SNAPSHOT)
        return NULL;
    if (c->path)
        TRY(check_path(p, c->path, commands[c->type].root));
    if (c->path_to)
        TRY(check_path(p, c->path_to, false));
    if (c->clone_path)
        TRY(check_path(p, c->clone_path, false));
    if (c->type == SEND_SYMLINK)
        return *c->path_link ? NULL : damaged(p, "a symbolic link is empty");
    return c->path_link ? check_path(p, c->path_link, false) : NULL;
}

static struct err *check_range(const struct parse *p, uint64_t offset, uint64_t length)
{
    return offset <= INT64_MAX && length <= INT64_MAX - offset ? NULL : damaged(p, "it goes beyond any file");
}

static struct err *check_encoded(const struct parse *p)
{
    const struct send_command *c = p->c;

    if (c->unencoded_length > SEND_UNENCODED_MAX || c->n_data > SEND_UNENCODED_MAX ||
        c->unencoded_offset >= c->unencoded_length || !c->unencoded_file_length ||
        c->unencoded_file_length > c->unencoded_length - c->unencoded_offset)
        return damaged(p, "its lengths cannot be");
    if (c->compression >= BTRFS_ENCODED_IO_COMPRESSION_TYPES)
        return err_new(ERR_UNSUPPORTED, "the btrfs stream has data of compression %u, which this version does not know",
                       c->compression);
    if (c->compression == BTRFS_ENCODED_IO_COMPRESSION_NONE && c->n_data < c->unencoded_length)
        return damaged(p, "its lengths cannot be");
    return check_range(p, c->offset, c->unencoded_file_length);
}

static struct err *check_numbers(const struct parse *p)
{
    const struct send_command *c = p->c;

    switch (c->type) {
    case SEND_MKNOD:
        return S_ISCHR(c->mode) || S_ISBLK(c->mode) ? NULL : damaged(p, "it is no device");
    case SEND_CHMOD:
        return c->mode <= 07777 ? NULL : damaged(p, "it is no mode");
    case SEND_CHOWN: /* -1 would mean "as it is" */
        return c->uid != UINT32_MAX && c->gid != UINT32_MAX ? NULL : damaged(p, "it is no owner");
    case SEND_WRITE:
        return check_range(p, c->offset, c->n_data);
    case SEND_TRUNCATE:
        return check_range(p, c->size, 0);
    case SEND_CLONE:
        if (!c->clone_length) /* would mean "to the end" */
            return damaged(p, "it clones nothing");
        TRY(check_range(p, c->offset, c->clone_length));
        return check_range(p, c->clone_offset, c->clone_length);
    case SEND_FALLOCATE:
        if (!c->size || c->fallocate_mode & ~(uint32_t)(FALLOC_FL_KEEP_SIZE | FALLOC_FL_PUNCH_HOLE))
            return damaged(p, "its length or mode cannot be");
        return check_range(p, c->offset, c->size);
    case SEND_SET_XATTR:
    case SEND_REMOVE_XATTR:
        return *c->xattr_name && c->n_data <= SEND_XATTR_MAX ? NULL : damaged(p, "it is no extended attribute");
    case SEND_ENCODED_WRITE:
        return check_encoded(p);
    default:
        return NULL;
    }
}

static struct err *check_order(const struct parse *p)
{
    bool first = p->c->type == SEND_SUBVOL || p->c->type == SEND_SNAPSHOT;

    if (first != (p->s->phase == SEND_AT_SUBVOLUME))
        return damaged(p, first ? "it has a second subvolume" : "it does not begin with a subvolume");
    if (p->c->type == SEND_UPDATE_EXTENT)
        return err_new(ERR_UNSUPPORTED, "the btrfs stream was made without the files' data");
    return NULL;
}

/* ---- the stream ---- */

void send_stream_init(struct send_stream *s)
{
    s->phase = SEND_AT_HEADER;
    s->version = 0;
    s->offset = 0;
}

void send_stream_resume(struct send_stream *s, unsigned version, uint64_t offset)
{
    s->phase = SEND_AT_BODY;
    s->version = version;
    s->offset = offset;
}

static struct err *take_header(struct send_stream *s, const uint8_t *bytes, size_t n, size_t *ret_used)
{
    if (n < SEND_HEADER_SIZE && !memcmp(bytes, magic, n < sizeof(magic) ? n : sizeof(magic)))
        return NULL;
    if (n < SEND_HEADER_SIZE || memcmp(bytes, magic, sizeof(magic)))
        return err_new(ERR_CORRUPT, "what arrived is no btrfs stream");
    s->version = get_32(bytes + sizeof(magic));
    if (!s->version)
        return err_new(ERR_CORRUPT, "the btrfs stream has no version");
    if (s->version > SEND_VERSION_MAX)
        return err_new(ERR_UNSUPPORTED,
                       "the btrfs stream is of version %u, this node's Flocker understands up to %u: bring both nodes to "
                       "the same release",
                       s->version, SEND_VERSION_MAX);
    s->phase = SEND_AT_SUBVOLUME;
    s->offset = SEND_HEADER_SIZE;
    *ret_used = SEND_HEADER_SIZE;
    return NULL;
}

static struct err *check_sum(const struct parse *p, const uint8_t *bytes, size_t n)
{
    static const uint8_t none[4];
    uint32_t crc = crc32c(0, bytes, 6);

    crc = crc32c(crc, none, sizeof(none));
    crc = crc32c(crc, bytes + SEND_COMMAND_HEADER_SIZE, n - SEND_COMMAND_HEADER_SIZE);
    return crc == get_32(bytes + 6) ? NULL : damaged(p, "its checksum is wrong");
}

static struct err *take_command(struct parse *p, const uint8_t *bytes, size_t n)
{
    TRY(check_sum(p, bytes, n));
    p->at = bytes + SEND_COMMAND_HEADER_SIZE;
    p->left = n - SEND_COMMAND_HEADER_SIZE;
    TRY(get_attributes(p));
    TRY(check_order(p));
    TRY(check_paths(p));
    return check_numbers(p);
}

struct err *send_stream_next(struct send_stream *s, const uint8_t *bytes, size_t n, size_t *ret_used,
                             struct send_command *ret_command)
{
    struct parse p = {.s = s, .c = ret_command};

    *ret_used = 0;
    *ret_command = (struct send_command){0};
    if (!n)
        return NULL;
    if (s->phase == SEND_AT_HEADER)
        return take_header(s, bytes, n, ret_used);
    if (s->phase == SEND_AT_END)
        return damaged(&p, "something follows its end");
    if (n < SEND_COMMAND_HEADER_SIZE)
        return NULL;
    uint64_t length = (uint64_t)get_32(bytes) + SEND_COMMAND_HEADER_SIZE;
    unsigned type = get_16(bytes + 4);

    if (length > (s->version >= 2 ? SEND_COMMAND_MAX : SEND_COMMAND_MAX_V1))
        return damaged(&p, "a command is longer than any can be");
    if (!type || type >= (s->version >= 2 ? SEND_TYPE_MAX : SEND_FALLOCATE))
        return err_new(ERR_UNSUPPORTED, "the btrfs stream has command %u at byte %" PRIu64 ", which version %u does not have",
                       type, s->offset, s->version);
    if (n < length)
        return NULL;
    ret_command->type = (enum send_type)type;
    TRY(take_command(&p, bytes, (size_t)length));
    s->phase = type == SEND_END ? SEND_AT_END : SEND_AT_BODY;
    s->offset += length;
    *ret_used = (size_t)length;
    return NULL;
}
