#include "drivers/powerflex/sdc.h"

#include "base/str.h"
#include "drivers/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <linux/fs.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

/* Calls of /dev/scini, and what they answer: goscaleio, drv_cfg.go. */
#define SCINI_RESCAN _IO('a', 10)
#define SCINI_QUERY_GUID _IO('a', 14)
#define SCINI_GOOD 65u /* the first byte of an answer; the GUID is in bytes 8 to 23 */
#define SCINI_GUID_AT 8u

#define BY_ID "dev/disk/by-id"
#define LINK_PREFIX "emc-vol-"

/* ---- who ---- */

bool pfx_scini_decode(const unsigned char bytes[PFX_SCINI_ANSWER], char ret_guid[PFX_GUID_SIZE])
{
    struct uuid guid;

    if (bytes[0] != SCINI_GOOD)
        return false;
    memcpy(guid.b, bytes + SCINI_GUID_AT, sizeof(guid.b));
    if (uuid_is_nil(&guid))
        return false;
    uuid_format(&guid, ret_guid);
    return true;
}

static int scini_open(const char *root)
{
    CLEANUP_FREE char *path = xasprintf("%s/dev/scini", root);

    return open(path, O_RDONLY | O_CLOEXEC);
}

struct err *pfx_sdc_local_guid(const char *root, char ret_guid[PFX_GUID_SIZE])
{
    CLEANUP_CLOSE int fd = scini_open(root);
    unsigned char answer[PFX_SCINI_ANSWER] = {0};

    if (fd < 0)
        return err_new(ERR_UNAVAILABLE,
                       "cannot open %s/dev/scini: %s (the SDC is not installed on this host, or "
                       "its module scini not loaded)",
                       root, strerror(errno));
    if (ioctl(fd, SCINI_QUERY_GUID, answer) < 0)
        return err_new(ERR_UNAVAILABLE, "cannot ask %s/dev/scini for the GUID of the SDC: %s", root,
                       strerror(errno));
    if (!pfx_scini_decode(answer, ret_guid))
        return err_new(ERR_UNAVAILABLE,
                       "%s/dev/scini does not tell the GUID of the SDC (answer %u)", root,
                       answer[0]);
    return NULL;
}

void pfx_sdc_rescan(const char *root)
{
    CLEANUP_CLOSE int fd = scini_open(root);
    unsigned char answer[PFX_SCINI_ANSWER] = {0};

    if (fd >= 0)
        (void)ioctl(fd, SCINI_RESCAN, answer);
}

/* ---- which device ---- */

/* What is behind a link below `dir`; false: nothing, or no block device. */
static bool block_device(int dir, const char *link, struct stat *ret)
{
    return fstatat(dir, link, ret, 0) == 0 && S_ISBLK(ret->st_mode);
}

/* A link that outlived its device shows whatever has the device's number now. */
static struct err *check_single(int dir, const char *link, const struct stat *device)
{
    CLEANUP_DIR DIR *d = dir_stream(dir);
    const char *name;
    struct stat st;

    if (!d)
        return err_errno(errno, "cannot list " BY_ID);
    while ((name = dir_next(d))) {
        if (str_has_prefix(name, LINK_PREFIX) && !streq(name, link) &&
            block_device(dir, name, &st) && st.st_rdev == device->st_rdev)
            return err_new(ERR_CORRUPT,
                           "both %s and %s are links to one device: neither is used (udevadm "
                           "trigger makes them anew)",
                           link, name);
    }
    return NULL;
}

static struct err *check_size(const char *path, const struct stat *expected, const char *volume,
                              uint64_t size, uint64_t least)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    uint64_t found = 0;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_errno(errno, "cannot open %s", path);
    if (!S_ISBLK(st.st_mode) || st.st_rdev != expected->st_rdev ||
        ioctl(fd, BLKGETSIZE64, &found) < 0 || found > size || found < least)
        return err_new(ERR_CORRUPT,
                       "the device %s should be volume %s, but has %" PRIu64
                       " bytes instead of %" PRIu64 ": not used",
                       path, volume, found, size);
    return NULL;
}

struct err *pfx_sdc_device(const char *root, const char *system, const char *volume, uint64_t size,
                           uint64_t least, char **ret_path)
{
    CLEANUP_FREE char *link = xasprintf(LINK_PREFIX "%s-%s", system, volume);
    CLEANUP_FREE char *folder = xasprintf("%s/" BY_ID, root);
    CLEANUP_FREE char *full = xasprintf("%s/%s", folder, link);
    CLEANUP_CLOSE int dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    char path[PATH_MAX];
    struct stat st;

    *ret_path = NULL;
    if (dir < 0 || !block_device(dir, link, &st) || !realpath(full, path))
        return NULL;
    TRY(check_single(dir, link, &st));
    TRY(check_size(path, &st, volume, size, least));
    *ret_path = xstrdup(path);
    return NULL;
}
