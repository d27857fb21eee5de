/* Looking into a snapshot, to compare copies.
 *
 * OpenZFS shows snapshots below the file system's mount, but a replica is not mounted; zfs-fuse shows them nowhere. So the
 * snapshot is cloned, readonly. The clone is a child of the dataset's file system, whatever destroys that takes it along.
 * Its reader has the dataset's lock: what is there without the lock was left by a killed agent. */
#include "drivers/zfs/zfs.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

static char *view_name(const struct zfs_pool *p, const struct uuid *dataset)
{
    return xasprintf("%s/%s/" ZFS_VIEW, p->top, UUID_STR(dataset));
}

/* Beside the driver's mount of the dataset, not in it. */
static char *view_place(const struct zfs_pool *p, const struct uuid *dataset)
{
    return xasprintf("%s/%s." ZFS_VIEW, p->dir, UUID_STR(dataset));
}

bool zfs_view_is_there(const struct zfs_pool *p, const struct zfs_listing *l, const struct uuid *dataset)
{
    CLEANUP_FREE char *view = view_name(p, dataset);

    return zfs_listing_find(l, view) != NULL;
}

struct err *zfs_view_remove(const struct zfs_pool *p, const struct uuid *dataset)
{
    CLEANUP_FREE char *view = view_name(p, dataset), *place = view_place(p, dataset);

    TRY(zfs_unmount_at(view, place));
    struct err *e = zfs_run(p, ZFS("destroy", view), NULL);

    return err_is(e, ERR_NOT_FOUND) ? err_free(e) : e;
}

struct err *zfs_view_tidy(const struct zfs_pool *p, const struct zfs_listing *l, const struct uuid *dataset)
{
    CLEANUP_CLOSE int lock = -1;

    if (!zfs_view_is_there(p, l, dataset))
        return NULL;
    struct err *e = zfs_lock(p, dataset, &lock);

    if (err_is(e, ERR_BUSY))
        return err_free(e);
    TRY(e);
    return zfs_view_remove(p, dataset);
}

/* *ret_root is the user's folder. */
static struct err *make(const struct zfs_pool *p, const struct uuid *dataset, const char *full, int *ret_root)
{
    CLEANUP_FREE char *view = view_name(p, dataset), *place = view_place(p, dataset);
    CLEANUP_FREE char *mountpoint = xasprintf("mountpoint=%s", place);
    CLEANUP_CLOSE int top = -1;

    TRY(zfs_view_remove(p, dataset));
    TRY(zfs_run(p, ZFS("clone", "-o", "readonly=on", "-o", "canmount=noauto", "-o", mountpoint, full, view), NULL));
    TRY(zfs_mount_at(p, view, place, &top));
    *ret_root = openat(top, ZFS_DATA, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    return *ret_root < 0 ? err_errno(errno, "cannot open the volume in %s", full) : NULL;
}

struct err *zfs_snapshot_read(void *cookie, const struct uuid *dataset, const char *snapshot, driver_read_fn *fn,
                              void *fn_cookie)
{
    struct zfs_pool *p = cookie;
    CLEANUP_LISTING struct zfs_listing l = {0};
    CLEANUP_FREE char *fs = zfs_name(p, dataset), *full = xasprintf("%s@%s", fs, snapshot);
    CLEANUP_CLOSE int lock = -1;
    int root = -1;

    TRY(zfs_look(p, dataset, &l));
    const struct zfs_snapshot *s = zfs_fs_snapshot(zfs_listing_find(&l, fs), snapshot);

    if (!s || !s->held)
        return err_new(ERR_NOT_FOUND, "there is no snapshot %s here", snapshot);
    TRY(zfs_lock(p, dataset, &lock));
    struct err *e = make(p, dataset, full, &root);

    if (!e)
        e = fn(fn_cookie, root);
    mem_closep(&root);
    CLEANUP_ERR struct err *left = zfs_view_remove(p, dataset);

    if (left)
        log_warning("dataset %s: what was made to read snapshot %s goes later: %s", UUID_STR(dataset), snapshot,
                    left->text);
    return e;
}
