/* Inside of the btrfs driver.
 *
 *   <pool>/flocker/<dataset>/vol               the writable volume, a subvolume
 *   <pool>/flocker/<dataset>/snap/NAME         complete, durable, read-only snapshots
 *   <pool>/flocker/<dataset>/incoming/NAME.X/  one try of a receive, flock'ed while it runs
 *   <pool>/flocker/<dataset>/mark              the ownership mark, written by storage.c
 */
#pragma once

#include "drivers/driver.h"

struct pool {
    char *path;     /* of the folder that holds `flocker` */
    int top;        /* <pool>/flocker, open */
    char *sysfs;    /* "/sys/fs/btrfs/<fsid>" */
    bool quotas;    /* limits work */
    unsigned proto; /* highest send stream version of the kernel */
};

/* pool.c */
/* Finds or makes the pool, mounts it if it is a file, switches quotas on. */
struct err *pool_open(const struct driver_config *config, struct pool **ret_pool) MUST_USE;
void pool_close(struct pool *p);
/* `<uuid> <path>`: the file system that was at this path. false: it is no record, or of another path. Pure. */
bool pool_record_parse(const char *text, const char *path, struct uuid *ret_uuid);
/* Opens <pool>/flocker/<dataset>; -1 when missing and not `create`. */
struct err *pool_dataset(const struct pool *p, const struct uuid *dataset, bool create,
                         int *ret_fd) MUST_USE;

/* subvolume.c: thin, with errors for people. `dir` is an open folder, `name` what is in it. */
struct err *subvolume_create(int dir, const char *name, uint64_t qgroup) MUST_USE;
/* A snapshot is a commit with the data of the subvolume: durable when this returns. qgroup 0: none.
 */
struct err *subvolume_snapshot(int from, int dir, const char *name, bool read_only,
                               uint64_t qgroup) MUST_USE;
/* With subvolumes that a user made in it. Missing is fine. Durable after the next commit. */
struct err *subvolume_delete(int dir, const char *name) MUST_USE;
/* Makes what was done (subvolumes made and deleted) durable without writing other volumes' data. */
struct err *pool_commit(int dir) MUST_USE;
struct err *btrfs_error(int errnum, const char *fmt, ...) PRINTF_LIKE(2, 3) MUST_USE;

/* quota.c */
/* Number of the level-1 group of the dataset in this pool. 0 when there are no quotas. */
uint64_t quota_group(const struct pool *p, const struct uuid *dataset);
struct err *quota_enable(struct pool *p) MUST_USE;
/* Makes the group (no effect when there). */
struct err *quota_prepare(const struct pool *p, uint64_t group) MUST_USE;
struct err *quota_assign(const struct pool *p, int subvolume, uint64_t group) MUST_USE;
/* size 0: no limit. */
struct err *quota_limit(const struct pool *p, uint64_t group, uint64_t size) MUST_USE;
uint64_t quota_get_limit(const struct pool *p, uint64_t group); /* 0 = none */
/* Removes the group of a dataset whose subvolumes are all deleted. */
void quota_remove(const struct pool *p, uint64_t group);
/* Removes the groups that deleted subvolumes left behind. */
void quota_remove_stale(const struct pool *p);

/* stream.c */
struct err *stream_send(const struct pool *p, int base, int snapshot, int fd,
                        const atomic_bool *cancel) MUST_USE;
/* Applies the stream to a new subvolume in the folder at `path`. */
struct err *stream_receive(const char *path, int fd) MUST_USE;
