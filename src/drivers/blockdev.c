#include "drivers/blockdev.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <unistd.h>

struct err *blockdev_settle(const char *path)
{
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_EXCL | O_CLOEXEC);

    if (fd < 0 && errno == EBUSY)
        return err_new(ERR_BUSY, "%s is in use and not detached", path);
    if (fd < 0 || fsync(fd) < 0 || ioctl(fd, BLKFLSBUF, 0) < 0)
        return err_errno(errno, "cannot flush %s", path);
    return NULL;
}
