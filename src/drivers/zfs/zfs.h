/* Inside of the ZFS driver.
 *
 *   <pool>/flocker                    ours: not mounted, readonly=on for all below, mountpoint=<state_dir>/zfs
 *   <pool>/flocker/marks              the ownership marks, <dataset>/mark, in a small file system of their own: they stay when
 *                                     a volume is replaced, go where the pool goes, and have room when the pool is full
 *   <pool>/flocker/<dataset>          one file system a dataset; flocker:role says what it is
 *   <pool>/flocker/<dataset>@NAME     snapshots; complete and ours as soon as they are held (tag `flocker`)
 *   <pool>/flocker/<dataset>.incoming a whole stream that is being received
 *   <pool>/flocker/<dataset>/view     a clone of a snapshot, while somebody reads that
 *
 * The user's files are in the folder `data` of the file system, not in its root: the driver's own mount of it, below
 * <state_dir>/zfs, then is no mount of the volume, as the mounted pool is none for btrfs.
 *
 * On a node that does not own the dataset the file system is a replica: readonly, never mounted, and increments are
 * received onto it as it is. Promotion makes it writable. A released volume becomes a replica when the first increment
 * for it arrives. */
#pragma once

#include "drivers/driver.h"
#include "exec/exec.h"

#define ZFS_TAG "flocker"
#define ZFS_DATA "data"
#define ZFS_INCOMING ".incoming"
#define ZFS_VIEW "view"
#define ZFS_ROLE "flocker:role"
#define ZFS_OURS "flocker:snapshot"

/* ---- parse.c: what the programs print. Pure. ---- */

/* What a file system below <pool>/flocker is. */
enum zfs_role {
    ZFS_ROLE_NONE,     /* a receive that has not ended */
    ZFS_ROLE_MAKING,   /* a volume that is being created */
    ZFS_ROLE_VOLUME,   /* writable; whether it may be mounted is in the mark */
    ZFS_ROLE_REPLICA,  /* received, nobody may write */
    ZFS_ROLE_ADOPTING, /* a volume of Flocker 1 that is being taken over */
    ZFS_ROLE_MOVING,   /* the same, its files are being moved */
    ZFS_ROLE_MAX,
};

const char *zfs_role_name(enum zfs_role r); /* "-" for none */

struct zfs_snapshot {
    char *name; /* without the file system */
    uint64_t guid;
    bool held;
    bool ours; /* taken by us here, or about to be destroyed by us */
};

struct zfs_fs {
    char *name;
    uint64_t limit; /* refquota; 0 = none */
    enum zfs_role role;
    char *token; /* of an interrupted receive; NULL = none */
    struct zfs_snapshot *snapshots; /* oldest first */
    size_t n_snapshots, cap_snapshots;
};

struct zfs_listing {
    struct zfs_fs *all;
    size_t n, cap;
};

/* Reads `zfs get -Hp -r -o name,property,value ...`. Lines that are something else are skipped. */
void zfs_listing_parse(const char *text, struct zfs_listing *ret_listing);
void zfs_listing_done(struct zfs_listing *l);
#define CLEANUP_LISTING CLEANUP(zfs_listing_done)
struct zfs_fs *zfs_listing_find(const struct zfs_listing *l, const char *name); /* NULL: not there */
struct zfs_snapshot *zfs_fs_snapshot(const struct zfs_fs *f, const char *name);  /* NULL: not there; `f` may be NULL */
/* A plain decimal number of up to 64 bits. */
bool zfs_number_parse(const char *text, uint64_t *ret);

/* What the installed programs can do, told by their own usage texts. */
struct zfs_can {
    bool resume;     /* recv -s, send -t */
    bool compressed; /* send -c */
    bool set_many;   /* several properties with one `zfs set` */
    bool estimate;   /* send -n -P */
    bool parallel;   /* several may run at a time; zfs-fuse, told by its old receive, mixes up two mounts */
};
void zfs_usage_parse(const char *text, struct zfs_can *ret_can);
/* One line of `zpool list -H -o guid,health POOL`. */
bool zfs_pool_line_parse(const char *line, uint64_t *ret_guid, char ret_health[32]);
/* `<guid> <pool>`: which pool it was. */
bool zfs_record_parse(const char *text, const char *pool, uint64_t *ret_guid);
bool zfs_pool_name_is_valid(const char *name);
/* What may be given to `zfs send -t`. */
bool zfs_token_is_valid(const char *token);
/* `zfs send -n -v -t TOKEN` prints what the token is for: is it this snapshot? */
bool zfs_token_is_for(const char *text, const char *snapshot);
/* The length of the stream in what `zfs send -n -v -P` prints; false: it is not said, or twice. */
bool zfs_stream_size_parse(const char *text, uint64_t *ret_bytes);
/* The programs tell only in words why they failed. */
enum err_code zfs_error_code(const char *text);
/* <owner>.default.<dataset>, as Flocker 1 named its file systems (without the pool). */
bool zfs_old_name_parse(const char *name, struct uuid *ret_owner, struct uuid *ret_dataset);

/* ---- pool.c ---- */

struct zfs_pool {
    char *name; /* of the pool */
    char *top;  /* <pool>/flocker */
    char *dir;  /* <state_dir>/zfs, where the driver mounts */
    char *lock; /* a file that each program has locked (shared) while it runs */
    int marks;  /* <pool>/flocker/marks, open */
    struct zfs_can can;
};

struct err *zfs_pool_open(const struct driver_config *config, struct zfs_pool **ret_pool) MUST_USE;
void zfs_pool_close(struct zfs_pool *p);

#define ZFS(...) ((const char *const[]){"zfs", __VA_ARGS__, NULL})
/* Runs one of the programs to its end. `ret` may be NULL. What fails because the file system is busy, as it is while
 * an unmount goes on, is tried again for a while. */
struct err *zfs_run(const struct zfs_pool *p, const char *const *argv, struct exec_result *ret) MUST_USE;
/* `zfs set` of pairs "name=value", ended by NULL, in this order. */
struct err *zfs_set(const struct zfs_pool *p, const char *fs, const char *const *pairs) MUST_USE;

char *zfs_name(const struct zfs_pool *p, const struct uuid *dataset);     /* <pool>/flocker/<dataset> */
char *zfs_incoming(const struct zfs_pool *p, const struct uuid *dataset); /* the caller frees both */
/* Everything in the pool. */
struct err *zfs_look_all(const struct zfs_pool *p, struct zfs_listing *ret_listing) MUST_USE;
/* The dataset's file systems. */
struct err *zfs_look(const struct zfs_pool *p, const struct uuid *dataset, struct zfs_listing *ret_listing) MUST_USE;

/* Opens (O_PATH) the user's folder of the volume; mounts the file system for that. */
struct err *zfs_open_data(const struct zfs_pool *p, const struct uuid *dataset, int *ret_fd) MUST_USE;
/* Mounts it at the driver's own place; opens its root. */
struct err *zfs_mount(const struct zfs_pool *p, const struct uuid *dataset, int *ret_fd) MUST_USE;
/* Removes the driver's own mount. ERR_BUSY with who uses it. */
struct err *zfs_unmount(const struct zfs_pool *p, const struct uuid *dataset) MUST_USE;
/* The same two for any file system, where its property `mountpoint` says. */
struct err *zfs_mount_at(const struct zfs_pool *p, const char *fs, const char *place, int *ret_fd) MUST_USE;
struct err *zfs_unmount_at(const char *fs, const char *place) MUST_USE;
/* Writes what is still only in memory of a mounted one: a snapshot does not see dirty mapped pages. */
struct err *zfs_flush(const struct zfs_pool *p, const struct uuid *dataset) MUST_USE;

/* Releases and destroys a snapshot, or a whole file system with its snapshots. Missing is fine. */
struct err *zfs_destroy_snapshot(const struct zfs_pool *p, const char *fs, const char *name) MUST_USE;
struct err *zfs_destroy_fs(const struct zfs_pool *p, const struct zfs_fs *f) MUST_USE;

/* ---- stream.c ---- */

/* Opens the dataset's folder of marks, locked for a receive or for reading a snapshot. */
struct err *zfs_lock(const struct zfs_pool *p, const struct uuid *dataset, int *ret_dir) MUST_USE;
/* true while this process, or one that still runs, has it locked. `dir` is the folder. */
bool zfs_is_locked(int dir);
/* Removes what interrupted receives left; finishes one of which only the last step is missing. */
struct err *zfs_tidy(const struct zfs_pool *p, const struct uuid *dataset) MUST_USE;
struct err *zfs_send_stream(void *cookie, const struct uuid *dataset, const struct stream_spec *stream, int fd,
                            const atomic_bool *cancel) MUST_USE;
struct err *zfs_receive_stream(void *cookie, const struct uuid *dataset, const struct stream_spec *stream,
                               int fd) MUST_USE;
struct err *zfs_stream_point(void *cookie, const struct uuid *dataset, struct stream_point *ret_point) MUST_USE;
struct err *zfs_stream_size(void *cookie, const struct uuid *dataset, const struct stream_spec *stream,
                            uint64_t *ret_bytes) MUST_USE;
/* Removes the note of a receive. */
struct err *zfs_forget_receive(int dir) MUST_USE;

/* ---- view.c ---- */

struct err *zfs_snapshot_read(void *cookie, const struct uuid *dataset, const char *snapshot, driver_read_fn *fn,
                              void *fn_cookie) MUST_USE;
/* Is something there that was made to read a snapshot of the dataset? */
bool zfs_view_is_there(const struct zfs_pool *p, const struct zfs_listing *l, const struct uuid *dataset);
/* Removes it; the caller has the lock. Missing is fine. */
struct err *zfs_view_remove(const struct zfs_pool *p, const struct uuid *dataset) MUST_USE;
/* Removes it if it is there and nobody has the lock. */
struct err *zfs_view_tidy(const struct zfs_pool *p, const struct zfs_listing *l, const struct uuid *dataset) MUST_USE;

/* ---- zfs.c, also for adopt.c ---- */

/* Makes `snapshot` the state of the file system: newer snapshots and changes are lost. */
struct err *zfs_rollback(const struct zfs_pool *p, const struct uuid *dataset, const struct zfs_fs *f,
                         const char *snapshot) MUST_USE;
