/* Inside of the btrfs driver.
 *
 *   <pool>/flocker/<dataset>/vol               the writable volume, a subvolume
 *   <pool>/flocker/<dataset>/snap/NAME         complete, durable, read-only snapshots
 *   <pool>/flocker/<dataset>/incoming/NAME.X/  one try of a receive, flock'ed while it runs (tries.c)
 *   <pool>/flocker/<dataset>/mark              the ownership mark, written by storage.c
 */
#pragma once

#include "drivers/btrfs/point.h"
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
bool subvolume_is(int dir, const char *name);
struct subvolume_facts {
    struct uuid identity; /* by which increments refer to it: where it was received from, or its own */
    bool read_only;
    bool written; /* since it was made */
};
struct err *subvolume_look(int fd, struct subvolume_facts *ret_facts) MUST_USE;
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
uint64_t quota_used(const struct pool *p, uint64_t group); /* bytes on the disk; 0 = not known */
/* Removes the group of a dataset whose subvolumes are all deleted. */
void quota_remove(const struct pool *p, uint64_t group);
/* Removes the groups that deleted subvolumes left behind. */
void quota_remove_stale(const struct pool *p);

/* stream.c */
struct err *stream_send(const struct pool *p, int base, int snapshot, int fd,
                        const atomic_bool *cancel) MUST_USE;

/* receive.c */
/* In the dataset's folder: writable, the same as the snapshot that was received last. Goes with the snapshots. */
#define NEXT "next"
/* Reads the stream to its end of file and makes the snapshot of it, as storage_receive(). `base` is open, -1 = none. */
struct err *receive_stream(const struct pool *p, int dataset, uint64_t group, int base,
                           const struct stream_spec *stream, int fd) MUST_USE;
/* A checkpoint is taken after so much of the stream, or so long; tests do it more often. */
struct receive_pace {
    uint64_t bytes, us;
};
extern struct receive_pace receive_pace;

/* tries.c. `dataset` is the dataset's open folder. */
struct receive_try {
    char *name; /* of the folder */
    int fd;     /* holds the lock */
};
/* Is there a folder in which no receive runs? */
bool tries_left(int dataset);
/* Removes those in which none runs, but for `except` (may be NULL). ERR_BUSY: one runs, and `all` are to go. */
struct err *tries_remove(int dataset, const char *except, bool all) MUST_USE;
/* The newest checkpoint that is left over. */
bool tries_point(int dataset, struct point *ret_point);
/* Makes a folder for a receive, locked: a later try, or a program left over from a killed agent, never works in it. */
struct err *try_begin(int dataset, const char *snapshot, struct receive_try *ret_try) MUST_USE;
/* Locks the folder with the checkpoint stream->from, and clears it of all but that. ERR_NOT_FOUND: there is none. */
struct err *try_continue(int dataset, const struct stream_spec *stream, struct receive_try *ret_try,
                         struct point *ret_point) MUST_USE;
/* Clears the folder of all but the checkpoint at `keep`, unlocks it; 0: removes all of it. */
struct err *try_end(int dataset, struct receive_try *t, uint64_t keep) MUST_USE;
char *try_point_name(uint64_t offset); /* names in the folder; the caller frees them */
char *try_note_name(uint64_t offset);
