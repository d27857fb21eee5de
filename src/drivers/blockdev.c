#include "drivers/blockdev.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define SETTLE_US 300000u
#define SETTLE_STEP_US 5000u

struct err *blockdev_prove_free(const char *path)
{
    for (uint64_t waited = 0;; waited += SETTLE_STEP_US) {
        CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_EXCL | O_CLOEXEC);

        if (fd >= 0)
            return NULL;
        if (errno == ENXIO)
            return err_new(ERR_UNAVAILABLE, "%s does not answer: the way to it is down", path);
        if (errno != EBUSY)
            return err_errno(errno, "cannot open %s exclusively", path);
        if (waited >= SETTLE_US)
            return err_new(ERR_BUSY, "%s is in use", path);
        (void)usleep(SETTLE_STEP_US);
    }
}

struct err *blockdev_settle(const char *path)
{
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_EXCL | O_CLOEXEC);

    if (fd < 0 && errno == EBUSY)
        return err_new(ERR_BUSY, "%s is in use and not detached", path);
    if (fd < 0 || fsync(fd) < 0 || ioctl(fd, BLKFLSBUF, 0) < 0)
        return err_errno(errno, "cannot flush %s", path);
    return NULL;
}

struct err *blockdev_size(const char *path, uint64_t *ret_size)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0 || ioctl(fd, BLKGETSIZE64, ret_size) < 0)
        return err_errno(errno, "cannot find out how large %s is", path);
    return NULL;
}

void blockdev_rescan(const char *path)
{
    static const char *const names[] = {"rescan", "rescan_controller"}; /* SCSI, NVMe */
    struct stat st;

    if (stat(path, &st) < 0)
        return;
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        CLEANUP_FREE char *file = xasprintf("/sys/dev/block/%u:%u/device/%s", major(st.st_rdev),
                                            minor(st.st_rdev), names[i]);
        CLEANUP_CLOSE int fd = open(file, O_WRONLY | O_CLOEXEC);

        if (fd >= 0)
            (void)!write(fd, "1", 1);
    }
}
