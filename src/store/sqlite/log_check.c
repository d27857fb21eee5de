/* The log is a header and frames (https://www.sqlite.org/fileformat2.html#walformat). Each frame's checksum goes on from
 * that of the frame before. SQLite flushes the log at each commit, before the next transaction writes its first frame:
 * what a power cut can spoil is one transaction, the last. So a transaction that follows a broken one shows that the
 * broken one was whole on the disk before. Left-overs of a torn transaction do not deceive: their checksums go on from
 * frames that were overwritten since. */
#include "store/sqlite/log_check.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

#define HEADER_SIZE 32
#define FRAME_HEADER_SIZE 24
#define MAGIC 0x377f0682u /* the lowest bit set: checksums over big-endian words */
#define VERSION 3007000u
#define MAX_PAGE_SIZE 65536u

struct sum {
    uint32_t a, b;
};

struct log {
    const char *path;
    int fd;
    bool big_endian;
    size_t frame_size; /* with its header */
    uint64_t frames;
    uint32_t salt[2];
    struct sum header_sum;
};

struct frame {
    uint32_t page;
    uint32_t commit; /* not 0 in the last frame of a transaction */
    uint32_t salt[2];
    struct sum sum;
    unsigned char *bytes;
};

static uint32_t word(const unsigned char *p, bool big_endian)
{
    return big_endian ? (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3]
                      : (uint32_t)p[3] << 24 | (uint32_t)p[2] << 16 | (uint32_t)p[1] << 8 | p[0];
}

/* `n`: a multiple of 8. */
static struct sum add(struct sum s, const unsigned char *p, size_t n, bool big_endian)
{
    for (size_t i = 0; i < n; i += 8) {
        s.a += word(p + i, big_endian) + s.b;
        s.b += word(p + i + 4, big_endian) + s.a;
    }
    return s;
}

static struct sum sum_at(const unsigned char *p)
{
    return (struct sum){word(p, true), word(p + 4, true)};
}

static bool sum_eq(struct sum x, struct sum y)
{
    return x.a == y.a && x.b == y.b;
}

static bool parse_header(struct log *l, const unsigned char *h)
{
    uint32_t magic = word(h, true), page = word(h + 8, true);

    l->big_endian = magic & 1;
    l->frame_size = FRAME_HEADER_SIZE + page;
    l->salt[0] = word(h + 16, true);
    l->salt[1] = word(h + 20, true);
    l->header_sum = sum_at(h + 24);
    return (magic & ~1u) == MAGIC && word(h + 4, true) == VERSION && page >= 512 &&
           page <= MAX_PAGE_SIZE && (page & (page - 1)) == 0 &&
           sum_eq(l->header_sum, add((struct sum){0}, h, 24, l->big_endian));
}

static struct err *read_frame(const struct log *l, uint64_t number, struct frame *f)
{
    ssize_t n =
        pread(l->fd, f->bytes, l->frame_size, (off_t)(HEADER_SIZE + number * l->frame_size));

    if (n != (ssize_t)l->frame_size)
        return err_errno(n < 0 ? errno : EIO, "cannot read the store's log %s", l->path);
    f->page = word(f->bytes, true);
    f->commit = word(f->bytes + 4, true);
    f->salt[0] = word(f->bytes + 8, true);
    f->salt[1] = word(f->bytes + 12, true);
    f->sum = sum_at(f->bytes + 16);
    return NULL;
}

/* Whether `f` is whole and was written after the frame whose checksum is `before`. */
static bool goes_on(const struct log *l, const struct frame *f, struct sum before)
{
    if (f->page == 0 || f->salt[0] != l->salt[0] || f->salt[1] != l->salt[1])
        return false;
    before = add(before, f->bytes, 8, l->big_endian);
    before =
        add(before, f->bytes + FRAME_HEADER_SIZE, l->frame_size - FRAME_HEADER_SIZE, l->big_endian);
    return sum_eq(f->sum, before);
}

static struct err *damaged(const struct log *l, uint64_t at)
{
    return err_new(ERR_CORRUPT,
                   "the store's log %s is damaged at byte %" PRIu64
                   ": acknowledged changes are lost with it; restore the store from a backup "
                   "(flocker-control(8), \"THE STORE\")",
                   l->path, at);
}

static struct err *check_frames(const struct log *l, struct frame *f)
{
    struct sum before = l->header_sum;
    uint64_t i = 0, broken;
    bool after_commit = false; /* the frame before is whole and ends a transaction */

    for (; i < l->frames; i++) {
        TRY(read_frame(l, i, f));
        if (!goes_on(l, f, before))
            break;
        before = f->sum;
    }
    broken = i;
    for (; i < l->frames; i++) {
        TRY(read_frame(l, i, f));
        bool is_whole = i > broken && goes_on(l, f, before);
        if (is_whole && after_commit)
            return damaged(l, HEADER_SIZE + broken * l->frame_size);
        after_commit = is_whole && f->commit != 0;
        before = f->sum;
    }
    return NULL;
}

struct err *log_check(const char *path)
{
    unsigned char header[HEADER_SIZE];
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct log l = {.path = path, .fd = fd};
    struct stat st;

    if (fd < 0)
        return errno == ENOENT ? NULL : err_errno(errno, "cannot open the store's log %s", path);
    if (fstat(fd, &st) < 0)
        return err_errno(errno, "cannot look at the store's log %s", path);
    if (st.st_size <= HEADER_SIZE)
        return NULL; /* the first frame is written after the header was flushed */
    ssize_t n = pread(fd, header, sizeof(header), 0);
    if (n != sizeof(header))
        return err_errno(n < 0 ? errno : EIO, "cannot read the store's log %s", path);
    if (!parse_header(&l, header))
        return damaged(&l, 0);
    l.frames = ((uint64_t)st.st_size - HEADER_SIZE) / l.frame_size;
    CLEANUP_FREE unsigned char *bytes = xmalloc(l.frame_size);
    struct frame f = {.bytes = bytes};
    return check_frames(&l, &f);
}
