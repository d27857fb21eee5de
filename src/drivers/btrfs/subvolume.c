#include "drivers/btrfs/btrfs.h"

#include "base/str.h"

#include <btrfsutil.h>
#include <errno.h>
#include <linux/btrfs.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

struct err *btrfs_error(int errnum, const char *fmt, ...)
{
    CLEANUP_FREE char *what = NULL;
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&what, fmt, ap) < 0)
        what = NULL;
    va_end(ap);
    switch (errnum) {
    case EROFS:
        return err_new(ERR_IO,
                       "%s: the btrfs pool has become read-only, as btrfs does after an error: see "
                       "the kernel log",
                       what);
    case ENOSPC:
        return err_new(ERR_NO_SPACE, "%s: the btrfs pool is full", what);
    case EDQUOT:
        return err_new(ERR_NO_SPACE, "%s: the dataset is at its maximum size", what);
    default:
        return err_errno(errnum, "%s", what);
    }
}

static struct btrfs_util_qgroup_inherit *inherit_of(uint64_t qgroup)
{
    struct btrfs_util_qgroup_inherit *i = NULL;

    if (!qgroup || btrfs_util_create_qgroup_inherit(0, &i) != BTRFS_UTIL_OK)
        return NULL;
    if (btrfs_util_qgroup_inherit_add_group(&i, qgroup) != BTRFS_UTIL_OK)
        mem_exhausted();
    return i;
}

struct err *subvolume_create(int dir, const char *name, uint64_t qgroup)
{
    struct btrfs_util_qgroup_inherit *i = inherit_of(qgroup);
    enum btrfs_util_error rc = btrfs_util_create_subvolume_fd(dir, name, 0, NULL, i);
    int errnum = errno;

    if (i)
        btrfs_util_destroy_qgroup_inherit(i);
    if (rc != BTRFS_UTIL_OK)
        return btrfs_error(errnum, "cannot make the subvolume %s", name);
    return NULL;
}

struct err *subvolume_snapshot(int from, int dir, const char *name, bool read_only, uint64_t qgroup)
{
    struct btrfs_util_qgroup_inherit *i = inherit_of(qgroup);
    int flags = read_only ? BTRFS_UTIL_CREATE_SNAPSHOT_READ_ONLY : 0;
    enum btrfs_util_error rc = btrfs_util_create_snapshot_fd2(from, dir, name, flags, NULL, i);
    int errnum = errno;

    if (i)
        btrfs_util_destroy_qgroup_inherit(i);
    if (rc != BTRFS_UTIL_OK)
        return btrfs_error(errnum, "cannot take the snapshot %s", name);
    return NULL;
}

struct err *subvolume_delete(int dir, const char *name)
{
    enum btrfs_util_error rc = btrfs_util_delete_subvolume_fd(dir, name, 0);

    if (rc != BTRFS_UTIL_OK && errno == ENOTEMPTY)
        rc = btrfs_util_delete_subvolume_fd(dir, name, BTRFS_UTIL_DELETE_SUBVOLUME_RECURSIVE);
    if (rc == BTRFS_UTIL_OK || errno == ENOENT)
        return NULL;
    return btrfs_error(errno, "cannot delete the subvolume %s", name);
}

struct err *pool_commit(int dir)
{
    uint64_t transid;

    if (ioctl(dir, BTRFS_IOC_START_SYNC, &transid) < 0 ||
        ioctl(dir, BTRFS_IOC_WAIT_SYNC, &transid) < 0)
        return btrfs_error(errno, "cannot commit to the btrfs pool");
    return NULL;
}
