#include "drivers/filesystem.h"

#include "base/now.h"
#include "base/str.h"
#include "drivers/durable.h"
#include "drivers/wait.h"
#include "exec/exec.h"

#include <blkid/blkid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLANK_BYTES (1u << 20)
#define MKFS_TIMEOUT_US (600 * (uint64_t)USEC_PER_SEC)
#define GROW_TIMEOUT_US (600 * (uint64_t)USEC_PER_SEC)
#define GROWING_S 30 /* for another's growth to end */

/* A file system with its signature damaged is not blank: that would cost the data. New volumes are
 * all zeros. */
static struct err *starts_with_zeros(int fd, const char *path, bool *ret_zeros)
{
    CLEANUP_FREE char *buf = xmalloc(65536);

    *ret_zeros = true;
    for (off_t at = 0; at < BLANK_BYTES;) {
        ssize_t n = pread(fd, buf, 65536, at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(errno, "cannot read %s", path);
        if (n == 0)
            break;
        for (ssize_t i = 0; i < n; i++) {
            if (buf[i]) {
                *ret_zeros = false;
                return NULL;
            }
        }
        at += n;
    }
    return NULL;
}

static struct err *probe(blkid_probe p, int fd, const char *path, char **ret_type)
{
    const char *type = NULL;
    bool zeros;

    if (blkid_probe_set_device(p, fd, 0, 0) < 0)
        return err_new(ERR_IO, "cannot look at %s", path);
    blkid_probe_enable_superblocks(p, 1);
    blkid_probe_set_superblocks_flags(p, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_MAGIC);
    blkid_probe_enable_partitions(p, 1);
    int rc = blkid_do_safeprobe(p);

    if (rc == 1) {
        TRY(starts_with_zeros(fd, path, &zeros));
        *ret_type = zeros ? NULL : xstrdup("unknown data");
        return NULL;
    }
    if (rc == -2) {
        *ret_type = xstrdup("several signatures");
        return NULL;
    }
    if (rc < 0)
        return err_new(ERR_IO, "cannot find out what %s holds", path);
    if (blkid_probe_lookup_value(p, "TYPE", &type, NULL) < 0)
        (void)blkid_probe_lookup_value(p, "PTTYPE", &type, NULL);
    *ret_type = xstrdup(type ? type : "unknown signature");
    return NULL;
}

struct err *filesystem_probe(const char *path, char **ret_type)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return err_errno(errno, "cannot open %s", path);
    blkid_probe p = blkid_new_probe();

    if (!p)
        return err_new(ERR_IO, "cannot look at %s", path);
    struct err *e = probe(p, fd, path, ret_type);

    blkid_free_probe(p);
    return e;
}

bool filesystem_is_known(const char *type)
{
    return streq(type, "ext4") || streq(type, "xfs");
}

/* Nothing is discarded: a blank volume has nothing, and on some storage that takes minutes. */
struct err *filesystem_make(const char *type, const char *device, int intent)
{
    const char *const ext4[] = {"mkfs.ext4", "-q", "-F", "-E", "nodiscard", device, NULL};
    const char *const xfs[] = {"mkfs.xfs", "-q", "-f", "-K", device, NULL};

    return exec_run(&(struct exec_request){.argv = streq(type, "xfs") ? xfs : ext4,
                                           .stdin_fd = intent,
                                           .timeout_us = MKFS_TIMEOUT_US},
                    NULL);
}

struct err *filesystem_grow(const char *type, const char *device, const char *place)
{
    const char *const ext4[] = {"resize2fs", device, NULL};
    const char *const xfs[] = {"xfs_growfs", "-d", place, NULL};
    struct wait w = wait_for(GROWING_S);

    for (;;) {
        struct err *e = exec_run(&(struct exec_request){.argv = streq(type, "xfs") ? xfs : ext4,
                                                        .timeout_us = GROW_TIMEOUT_US},
                                 NULL);

        /* The program of a killed agent may still be at it, in the kernel. */
        if (!e || !strstr(e->text, "operation in progress") || !wait_more(&w))
            return e;
        err_free(e);
    }
}

/* ---- superblocks ---- */

#define EXT4_AT 1024u /* of the superblock; the offsets below are in it */
#define XFS_INPROGRESS 126u

static uint32_t little32(const unsigned char *b)
{
    return (uint32_t)b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static uint64_t big(const unsigned char *b, size_t n)
{
    uint64_t v = 0;

    for (size_t i = 0; i < n; i++)
        v = v << 8 | b[i];
    return v;
}

static bool ext4_head(const unsigned char *b, struct filesystem_head *ret)
{
    uint32_t shift = little32(b + 0x18);
    uint64_t blocks = little32(b + 4);

    if (b[0x38] != 0x53 || b[0x39] != 0xef || shift > 6)
        return false;
    if (little32(b + 0x60) & 0x80) /* 64bit */
        blocks |= (uint64_t)little32(b + 0x150) << 32;
    *ret = (struct filesystem_head){.block = 1024u << shift};
    return !__builtin_mul_overflow(blocks, (uint64_t)ret->block, &ret->bytes);
}

static bool xfs_head(const unsigned char *b, struct filesystem_head *ret)
{
    uint64_t block = big(b + 4, 4);

    if (memcmp(b, "XFSB", 4) != 0 || block < 512 || block > 65536)
        return false;
    *ret = (struct filesystem_head){.block = (uint32_t)block, .unfinished = b[XFS_INPROGRESS]};
    return !__builtin_mul_overflow(big(b + 8, 8), block, &ret->bytes);
}

bool filesystem_head_parse(const unsigned char *bytes, size_t n, struct filesystem_head *ret_head)
{
    struct filesystem_head head;

    if (n < FILESYSTEM_HEAD || (!xfs_head(bytes, &head) && !ext4_head(bytes + EXT4_AT, &head)))
        return false;
    *ret_head = head;
    return true;
}

struct err *filesystem_head_read(const char *device, struct filesystem_head *ret_head)
{
    CLEANUP_CLOSE int fd = open(device, O_RDONLY | O_CLOEXEC);
    unsigned char bytes[FILESYSTEM_HEAD];
    ssize_t n = fd < 0 ? -1 : pread(fd, bytes, sizeof(bytes), 0);

    if (n < 0)
        return err_errno(errno, "cannot read %s", device);
    if (!filesystem_head_parse(bytes, (size_t)n, ret_head))
        *ret_head = (struct filesystem_head){0};
    return NULL;
}

struct err *filesystem_freshen(int root)
{
    CLEANUP_DIR DIR *d = dir_stream(root);
    const char *name;
    bool lost = false;

    if (!d)
        return err_errno(errno, "cannot read the volume's root folder");
    while ((name = dir_next(d))) {
        if (!streq(name, "lost+found"))
            return NULL;
        lost = true;
    }
    if (lost && unlinkat(root, "lost+found", AT_REMOVEDIR) < 0)
        return errno == ENOTEMPTY ? NULL : err_errno(errno, "cannot remove lost+found");
    if (fchmodat(root, ".", 0777, 0) < 0)
        return err_errno(errno, "cannot set the mode of the volume's root folder");
    return NULL;
}
