#include "drivers/loopdev.h"

#include "base/str.h"
#include "drivers/durable.h"
#include "drivers/usage.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <linux/major.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define BIND_TRIES 64 /* races with others for free devices */
#define UNBIND_STEP_US 5000u
#define UNBIND_WAIT_US 2000000u

/* The kernel's "new" encoding of device numbers in struct loop_info64. */
static dev_t decode_dev(uint64_t d)
{
    return makedev((unsigned)((d & 0xfff00) >> 8), (unsigned)((d & 0xff) | ((d >> 12) & 0xfff00)));
}

static bool is_bound_to(int fd, dev_t dev, ino_t ino)
{
    struct loop_info64 info;

    return ioctl(fd, LOOP_GET_STATUS64, &info) == 0 && decode_dev(info.lo_device) == dev &&
           info.lo_inode == ino;
}

/* The devices that sysfs shows as bound: others need not be opened. */
static bool has_backing_file(int block, const char *name)
{
    CLEANUP_FREE char *path = xasprintf("%s/loop/backing_file", name);

    return faccessat(block, path, F_OK, 0) == 0;
}

struct err *loopdev_find(dev_t dev, ino_t ino, char **ret_path)
{
    CLEANUP_CLOSE int block = open("/sys/block", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_DIR DIR *d = block < 0 ? NULL : dir_stream(block);
    const char *name;

    if (!d)
        return err_errno(errno, "cannot list the block devices");
    *ret_path = NULL;
    while ((name = dir_next(d))) {
        if (!str_has_prefix(name, "loop") || !isdigit((unsigned char)name[4]) ||
            !has_backing_file(block, name))
            continue;
        CLEANUP_FREE char *path = xasprintf("/dev/%s", name);
        CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

        if (fd >= 0 && is_bound_to(fd, dev, ino)) {
            *ret_path = steal(&path);
            return NULL;
        }
    }
    return NULL;
}

/* 0, or -errno; -EBUSY: somebody else took the device meanwhile. */
static int configure(int loop, int file, const char *name, bool autoclear)
{
    struct loop_config c = {.fd = (uint32_t)file};

    c.info.lo_flags = LO_FLAGS_DIRECT_IO | (autoclear ? LO_FLAGS_AUTOCLEAR : 0);
    (void)snprintf((char *)c.info.lo_file_name, LO_NAME_SIZE, "%s", name);
    if (ioctl(loop, LOOP_CONFIGURE, &c) == 0)
        return 0;
    if (errno != EINVAL)
        return -errno;
    /* Not every file system can do direct I/O (tmpfs); then the page cache is in between. */
    c.info.lo_flags &= ~(uint32_t)LO_FLAGS_DIRECT_IO;
    return ioctl(loop, LOOP_CONFIGURE, &c) == 0 ? 0 : -errno;
}

struct err *loopdev_bind(int file, const char *name, bool autoclear, char **ret_path, int *ret_fd)
{
    CLEANUP_CLOSE int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);

    if (control < 0)
        return err_errno(errno, "cannot open /dev/loop-control");
    for (int i = 0; i < BIND_TRIES; i++) {
        int n = ioctl(control, LOOP_CTL_GET_FREE);

        if (n < 0)
            return err_errno(errno, "there is no free loop device");
        CLEANUP_FREE char *path = xasprintf("/dev/loop%d", n);

        if (access(path, F_OK) < 0) /* no devtmpfs here */
            (void)mknod(path, S_IFBLK | 0600, makedev(LOOP_MAJOR, (unsigned)n));
        CLEANUP_CLOSE int loop = open(path, O_RDWR | O_CLOEXEC);

        if (loop < 0 && errno != ENXIO && errno != EBUSY)
            return err_errno(errno, "cannot open %s", path);
        int rc = loop < 0 ? -EBUSY : configure(loop, file, name, autoclear);

        if (rc == 0) {
            *ret_path = steal(&path);
            *ret_fd = steal_fd(&loop);
            return NULL;
        }
        if (rc != -EBUSY)
            return err_errno(-rc, "cannot bind %s to %s", path, name);
    }
    return err_new(ERR_BUSY, "could not get a loop device for %s: others took each free one", name);
}

struct err *loopdev_resize(const char *path, dev_t dev, ino_t ino)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return err_errno(errno, "cannot open %s", path);
    if (!is_bound_to(fd, dev, ino))
        return err_new(ERR_BUSY, "%s is not the device of the volume any more", path);
    return ioctl(fd, LOOP_SET_CAPACITY) < 0 ? err_errno(errno, "cannot make %s larger", path) : NULL;
}

static struct err *who_holds(const char *path)
{
    struct stat st;
    CLEANUP_FREE char *user = NULL;

    if (stat(path, &st) < 0)
        return err_errno(errno, "cannot look at %s", path);
    TRY(usage_find(&(struct usage_target){.device = st.st_rdev}, &user));
    return err_new(ERR_BUSY, "%s cannot be detached: %s", path, user ? user : "it is in use");
}

struct err *loopdev_unbind(const char *path, dev_t dev, ino_t ino)
{
    for (uint64_t waited = 0;; waited += UNBIND_STEP_US) {
        CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

        if (fd < 0 && errno != ENXIO && errno != ENOENT)
            return err_errno(errno, "cannot open %s", path);
        if (fd < 0 || !is_bound_to(fd, dev, ino))
            return NULL;
        if (waited >= UNBIND_WAIT_US)
            return who_holds(path);
        if (waited == 0 && fsync(fd) < 0)
            return err_errno(errno, "cannot flush %s", path);
        /* Takes effect when the last descriptor, also this one, is closed. */
        if (ioctl(fd, LOOP_CLR_FD) < 0 && errno != EBUSY && errno != ENXIO)
            return err_errno(errno, "cannot detach %s", path);
        mem_closep(&fd);
        fd = -1;
        if (waited)
            (void)usleep(UNBIND_STEP_US);
    }
}
