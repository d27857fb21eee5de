/* Taking over what Flocker 1 left in a pool: its file systems <pool>/<owner>.default.<dataset>. */
#pragma once

#include "drivers/driver.h"

enum zfs_old_state {
    ZFS_OLD_READY,      /* can be adopted */
    ZFS_OLD_UNFINISHED, /* its adoption was interrupted; `name` is the new one */
    ZFS_OLD_REPLICA,    /* belongs to another node: the data are there */
    ZFS_OLD_TAKEN,      /* there is something of this dataset under the new name already */
};

struct zfs_old {
    char *name;
    struct uuid owner, dataset; /* owner: nil when unfinished */
    uint64_t limit;
    enum zfs_old_state state;
};

/* What is in the pool, of which `owner` is this node's own name (nil: no file system is). The caller frees each name and
 * the array. Blocks; needs the agent's state folder. */
struct err *zfs_old_list(const struct driver_config *config, const struct uuid *owner, struct zfs_old **ret_all,
                         size_t *ret_n) MUST_USE;
/* Makes it a volume of ours, without a mark: the next storage_create() of that dataset takes it as it is. Its files are moved
 * within their file system, never copied or changed. May be interrupted anywhere and repeated. ERR_BUSY: it is in use. */
struct err *zfs_old_adopt(const struct driver_config *config, const struct zfs_old *old) MUST_USE;
/* The owner in Flocker 1's volume.json. */
struct err *zfs_old_owner(const char *path, struct uuid *ret_owner) MUST_USE;
