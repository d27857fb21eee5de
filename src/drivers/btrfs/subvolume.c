#include "drivers/btrfs/btrfs.h"

#include "base/str.h"

#include <btrfsutil.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

struct err *btrfs_error(int errnum, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    CLEANUP_FREE char *what = xvasprintf(fmt, ap);
    va_end(ap);
    switch (errnum) {
    case EROFS:
        return err_new(ERR_IO,
                       "%s: the btrfs pool has become read-only, as btrfs does after an error: see "
                       "the kernel log",
                       what);
    case ENOSPC:
        return err_new(ERR_NO_SPACE, "%s: there is no space left in the btrfs pool", what);
    case EDQUOT:
        return err_new(ERR_LIMIT, "%s: the dataset is at its maximum size", what);
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

bool subvolume_is(int dir, const char *name)
{
    struct stat st;

    return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode) &&
           st.st_ino == BTRFS_FIRST_FREE_OBJECTID;
}

struct err *subvolume_look(int fd, struct subvolume_facts *ret_facts)
{
    struct btrfs_util_subvolume_info info;
    static const uint8_t none[16];

    if (btrfs_util_subvolume_info_fd(fd, 0, &info) != BTRFS_UTIL_OK)
        return btrfs_error(errno, "cannot identify a subvolume");
    bool received = memcmp(info.received_uuid, none, sizeof(none)) != 0;

    memcpy(ret_facts->identity.b, received ? info.received_uuid : info.uuid, sizeof(ret_facts->identity.b));
    ret_facts->read_only = info.flags & BTRFS_ROOT_SUBVOL_RDONLY;
    /* Each change of an inode in it moves its number of the last change beyond that of its making. */
    ret_facts->written = info.ctransid > info.otransid;
    return NULL;
}

struct err *pool_commit(int dir)
{
    uint64_t transid;

    if (ioctl(dir, BTRFS_IOC_START_SYNC, &transid) < 0 ||
        ioctl(dir, BTRFS_IOC_WAIT_SYNC, &transid) < 0)
        return btrfs_error(errno, "cannot commit to the btrfs pool");
    return NULL;
}
