#include "drivers/sysfs.h"

#include "base/str.h"
#include "drivers/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#define SECTOR 512u

size_t sysfs_text(const char *root, const char *path, char ret[SYSFS_TEXT_SIZE])
{
    CLEANUP_FREE char *whole = xasprintf("%s/sys/%s", root, path);
    CLEANUP_CLOSE int fd = open(whole, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, ret, SYSFS_TEXT_SIZE - 1);

    while (n > 0 && strchr(" \n", ret[n - 1]))
        n--;
    n = n > 0 ? n : 0;
    ret[n] = '\0';
    return (size_t)n;
}

size_t sysfs_block_text(const char *root, const char *device, const char *attribute, char ret[SYSFS_TEXT_SIZE])
{
    CLEANUP_FREE char *path = xasprintf("block/%s/%s", device, attribute);

    return sysfs_text(root, path, ret);
}

uint64_t sysfs_block_size(const char *root, const char *device)
{
    char text[SYSFS_TEXT_SIZE];
    uint64_t sectors;

    (void)sysfs_block_text(root, device, "size", text);
    return sscanf(text, "%" SCNu64, &sectors) == 1 ? sectors * SECTOR : 0;
}

struct err *sysfs_each(const char *root, const char *path, sysfs_each_fn *fn, void *cookie)
{
    CLEANUP_FREE char *whole = xasprintf("%s/sys/%s", root, path);
    CLEANUP_CLOSE int fd = open(whole, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? NULL : err_errno(errno, "cannot open %s", whole);
    CLEANUP_DIR DIR *d = dir_stream(fd);
    const char *name;

    if (!d)
        return err_errno(errno, "cannot list %s", whole);
    while ((name = dir_next(d)))
        TRY(fn(cookie, name));
    return NULL;
}

struct err *sysfs_write(const char *root, const char *path, const char *text)
{
    CLEANUP_FREE char *whole = xasprintf("%s/sys/%s", root, path);
    CLEANUP_CLOSE int fd = open(whole, O_WRONLY | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return err_errno(errno, "cannot open %s", whole);
    if (dprintf(fd, "%s\n", text) < 0)
        return err_errno(errno, "cannot write to %s", whole);
    return NULL;
}

/* ---- disks ---- */

static struct err *take(const struct disk_search *s, const char *name, char **found)
{
    uint64_t bytes = sysfs_block_size(s->root, name);

    if (*found)
        return err_new(ERR_CORRUPT, "both %s and %s say that they are volume %s: neither is used",
                       *found, name, s->volume);
    if (bytes / SECTOR < s->least / SECTOR || bytes / SECTOR > s->size / SECTOR)
        return err_new(ERR_CORRUPT,
                       "the device %s should be volume %s, but has %" PRIu64
                       " bytes instead of %" PRIu64 ": not used",
                       name, s->volume, bytes, s->size);
    *found = xasprintf("%s/dev/%s", s->root, name);
    return NULL;
}

struct err *disk_find(const struct disk_search *s, char **ret_path)
{
    CLEANUP_FREE char *path = xasprintf("%s/sys/block", s->root), *found = NULL;
    CLEANUP_CLOSE int block = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (block < 0)
        return err_errno(errno, "cannot open %s", path);
    CLEANUP_DIR DIR *d = dir_stream(block);
    const char *name;
    bool named = false, others = false;

    if (!d)
        return err_errno(errno, "cannot list the block devices in %s", path);
    while ((name = dir_next(d))) {
        enum disk_identity identity = s->identify(s, name);
        if (identity == DISK_IS_IT)
            TRY(take(s, name, &found));
        others |= identity == DISK_OTHER;
        named |= s->name && streq(name, s->name);
    }
    if (named && !others && !found)
        TRY(take(s, s->name, &found));
    *ret_path = steal(&found);
    return NULL;
}

const char *disk_letters(const char *path, const char *prefix)
{
    if (!str_has_prefix(path, prefix))
        return NULL;
    const char *letters = path + strlen(prefix);
    size_t n = strlen(letters);

    return n && n <= 2 && strspn(letters, "abcdefghijklmnopqrstuvwxyz") == n ? letters : NULL;
}
