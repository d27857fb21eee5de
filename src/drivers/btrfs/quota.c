/* Size limits. Every subvolume of a dataset (volume, snapshots, receives) is a member of one
 * level-1 group, and that group has the limit. A limit on the volume alone would be lost by
 * promotion: the extents stay charged to the subvolume that wrote them, so a promoted volume starts
 * at zero. */
#include "drivers/btrfs/btrfs.h"

#include "base/log.h"
#include "base/str.h"
#include "drivers/durable.h"

#include <btrfsutil.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define QUOTA_CTL_ENABLE_SIMPLE 4 /* newer than Debian 12's header: Linux 6.7 */
#define LEVEL_1 (1ull << 48)
#define NO_LIMIT UINT64_MAX /* clears a limit */
#define REMOVE_TRIES 16

uint64_t quota_group(const struct pool *p, const struct uuid *dataset)
{
    if (!p->quotas)
        return 0;
    /* Two agents may share one file system in different folders: the folder is part of the number.
     */
    uint64_t h = XXH64(dataset->b, sizeof(dataset->b), XXH64(p->path, strlen(p->path), 0));

    return LEVEL_1 | (h >> 16);
}

struct err *quota_enable(struct pool *p)
{
    struct btrfs_ioctl_quota_ctl_args a = {.cmd = QUOTA_CTL_ENABLE_SIMPLE};
    CLEANUP_FREE char *on = NULL;
    CLEANUP_CLOSE int dir = open(p->sysfs, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (dir >= 0)
        TRY(file_read(dir, "qgroups/enabled", 64, &on));
    p->quotas = on && *on == '1';
    if (!p->quotas)
        p->quotas = ioctl(p->top, BTRFS_IOC_QUOTA_CTL, &a) == 0;
    return NULL;
}

struct err *quota_prepare(const struct pool *p, uint64_t group)
{
    struct btrfs_ioctl_qgroup_create_args a = {.create = 1, .qgroupid = group};

    if (group && ioctl(p->top, BTRFS_IOC_QGROUP_CREATE, &a) < 0 && errno != EEXIST)
        return btrfs_error(errno, "cannot make a quota group");
    return NULL;
}

struct err *quota_assign(const struct pool *p, int subvolume, uint64_t group)
{
    struct btrfs_ioctl_ino_lookup_args id = {.objectid = BTRFS_FIRST_FREE_OBJECTID};

    if (!group)
        return NULL;
    if (ioctl(subvolume, BTRFS_IOC_INO_LOOKUP, &id) < 0)
        return btrfs_error(errno, "cannot get the number of a subvolume");
    struct btrfs_ioctl_qgroup_assign_args a = {.assign = 1, .src = id.treeid, .dst = group};

    if (ioctl(p->top, BTRFS_IOC_QGROUP_ASSIGN, &a) < 0 && errno != EEXIST)
        return btrfs_error(errno, "cannot put a subvolume into its quota group");
    return NULL;
}

struct err *quota_limit(const struct pool *p, uint64_t group, uint64_t size)
{
    struct btrfs_ioctl_qgroup_limit_args a = {
        .qgroupid = group,
        .lim = {.flags = BTRFS_QGROUP_LIMIT_MAX_RFER, .max_rfer = size ? size : NO_LIMIT}};

    if (!group && !size)
        return NULL;
    if (!group)
        return err_new(ERR_UNSUPPORTED,
                       "this kernel or pool has no quotas, so the size of a dataset "
                       "cannot be limited: create it without maximum_size");
    TRY(quota_prepare(p, group));
    if (ioctl(p->top, BTRFS_IOC_QGROUP_LIMIT, &a) < 0)
        return btrfs_error(errno, "cannot set the size limit");
    return NULL;
}

static uint64_t read_number(int dir, const char *name)
{
    CLEANUP_FREE char *text = NULL;
    struct err *e = file_read(dir, name, 64, &text);

    err_free(e);
    return text ? strtoull(text, NULL, 10) : 0;
}

/* The kernel's files about the group, or -1. */
static int open_group(const struct pool *p, uint64_t group)
{
    CLEANUP_FREE char *path =
        xasprintf("%s/qgroups/1_%" PRIu64, p->sysfs, (uint64_t)(group & (LEVEL_1 - 1)));

    return group ? open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
}

uint64_t quota_get_limit(const struct pool *p, uint64_t group)
{
    CLEANUP_CLOSE int dir = open_group(p, group);

    if (dir < 0 || !(read_number(dir, "limit_flags") & BTRFS_QGROUP_LIMIT_MAX_RFER))
        return 0;
    uint64_t size = read_number(dir, "max_referenced");

    return size == NO_LIMIT ? 0 : size;
}

uint64_t quota_used(const struct pool *p, uint64_t group)
{
    CLEANUP_CLOSE int dir = open_group(p, group);

    return dir < 0 ? 0 : read_number(dir, "referenced");
}

/* ---- removing ---- */

/* 0, or -errno; the kernel refuses (EBUSY) while the group is needed. */
static int remove_group(const struct pool *p, uint64_t group)
{
    struct btrfs_ioctl_qgroup_create_args a = {.create = 0, .qgroupid = group};

    return ioctl(p->top, BTRFS_IOC_QGROUP_CREATE, &a) < 0 ? -errno : 0;
}

/* Looks in the quota tree for items with keys from (objectid, type, from) to (objectid, type, to). */
static bool search(const struct pool *p, uint64_t objectid, uint32_t type, uint64_t from,
                   uint64_t to, struct btrfs_ioctl_search_args *ret)
{
    *ret = (struct btrfs_ioctl_search_args){.key = {.tree_id = BTRFS_QUOTA_TREE_OBJECTID,
                                                    .min_objectid = objectid,
                                                    .max_objectid = objectid,
                                                    .min_type = type,
                                                    .max_type = type,
                                                    .min_offset = from,
                                                    .max_offset = to,
                                                    .max_transid = UINT64_MAX,
                                                    .nr_items = UINT32_MAX}};
    return ioctl(p->top, BTRFS_IOC_TREE_SEARCH, ret) == 0 && ret->key.nr_items;
}

/* The kernel may be clearing one away at the same moment: then there is nothing to take out. */
static void take_members_out(const struct pool *p, uint64_t group)
{
    struct btrfs_ioctl_search_args found;
    struct btrfs_ioctl_search_header h = {0};

    while (search(p, group, BTRFS_QGROUP_RELATION_KEY, h.offset + 1, LEVEL_1 - 1, &found)) {
        memcpy(&h, found.buf, sizeof(h));
        struct btrfs_ioctl_qgroup_assign_args a = {.assign = 0, .src = h.offset, .dst = group};

        (void)ioctl(p->top, BTRFS_IOC_QGROUP_ASSIGN, &a);
    }
}

void quota_remove(const struct pool *p, uint64_t group)
{
    int rc = group ? -EBUSY : 0;

    /* The volume is deleted, but the groups of its subvolumes stay members, some for ever: see below. */
    for (int i = 0; i < REMOVE_TRIES && rc == -EBUSY; i++) {
        take_members_out(p, group);
        rc = remove_group(p, group);
    }
    if (rc && rc != -ENOENT)
        log_warning("the quota group %" PRIu64
                    " of a removed dataset is left in the btrfs pool %s: %s",
                    (uint64_t)(group & (LEVEL_1 - 1)), p->path, strerrordesc_np(-rc));
}

static bool subvolume_is_gone(const struct pool *p, uint64_t id)
{
    struct btrfs_util_subvolume_info info;

    return btrfs_util_subvolume_info_fd(p->top, id, &info) == BTRFS_UTIL_ERROR_SUBVOLUME_NOT_FOUND;
}

/* The kernel removes the group of a deleted subvolume with it, unless the group was still charged for extents that a
 * snapshot uses. So each promoted volume leaves one behind. One that was changed in the transaction under
 * way may belong to a subvolume that is just being made. */
static void remove_if_stale(const struct pool *p, uint64_t group,
                            const struct btrfs_qgroup_info_item *item, uint64_t generation)
{
    if (group >= BTRFS_FIRST_FREE_OBJECTID && group < LEVEL_1 && !item->rfer && !item->excl &&
        le64toh(item->generation) < generation && subvolume_is_gone(p, group))
        (void)remove_group(p, group);
}

void quota_remove_stale(const struct pool *p)
{
    struct btrfs_ioctl_fs_info_args fs = {.flags = BTRFS_FS_INFO_FLAG_GENERATION};
    struct btrfs_ioctl_search_args found;
    struct btrfs_ioctl_search_header h = {0};
    struct btrfs_qgroup_info_item item;

    if (!p->quotas || ioctl(p->top, BTRFS_IOC_FS_INFO, &fs) < 0 ||
        !(fs.flags & BTRFS_FS_INFO_FLAG_GENERATION))
        return;
    while (search(p, 0, BTRFS_QGROUP_INFO_KEY, h.offset + 1, LEVEL_1 - 1, &found)) {
        const char *at = found.buf;

        for (uint32_t i = 0; i < found.key.nr_items; i++) {
            memcpy(&h, at, sizeof(h));
            memcpy(&item, at + sizeof(h), sizeof(item));
            at += sizeof(h) + h.len;
            remove_if_stale(p, h.offset, &item, fs.generation);
        }
    }
}
