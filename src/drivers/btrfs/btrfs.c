/* Volumes are subvolumes of a btrfs pool; moves are btrfs send streams. */
#include "drivers/btrfs/btrfs.h"

#include "base/random.h"
#include "base/str.h"
#include "drivers/backends.h"
#include "drivers/durable.h"

#include <btrfsutil.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define FULL_BYTES (64u << 20) /* less than this is left: no room was the reason */
#define FOLDER (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

static const struct driver_key keys[] = {
    {"pool", DRIVER_KEY_STRING, false},
    {"pool_size", DRIVER_KEY_SIZE, false},
    {NULL},
};

static struct err *btrfs_open(const struct driver_config *config, void **ret_cookie)
{
    struct pool *p;

    TRY(pool_open(config, &p));
    *ret_cookie = p;
    return NULL;
}

static void btrfs_close(void *cookie)
{
    pool_close(cookie);
}

/* ---- looking ---- */

static bool is_subvolume(int dir, const char *name)
{
    struct stat st;

    return fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode) &&
           st.st_ino == BTRFS_FIRST_FREE_OBJECTID;
}

/* Of the subvolume: grows with each new one. */
static uint64_t id_of(int dir, const char *name)
{
    CLEANUP_CLOSE int fd = openat(dir, name, FOLDER);
    struct btrfs_ioctl_ino_lookup_args a = {.objectid = BTRFS_FIRST_FREE_OBJECTID};

    return fd >= 0 && ioctl(fd, BTRFS_IOC_INO_LOOKUP, &a) == 0 ? a.treeid : 0;
}

static void look_at_snapshots(int dataset, struct volume_state *v)
{
    CLEANUP_CLOSE int snap = openat(dataset, "snap", FOLDER);
    CLEANUP_DIR DIR *d = snap < 0 ? NULL : dir_stream(snap);
    CLEANUP_FREE struct snapshot_found *all = NULL;
    size_t n = 0, cap = 0;
    const char *name;

    while (d && (name = dir_next(d))) {
        if (!snapshot_name_is_valid(name) || !is_subvolume(snap, name))
            continue;
        all = mem_grow(all, n, &cap, sizeof(*all));
        all[n].order = id_of(snap, name);
        (void)snprintf(all[n++].name, SNAPSHOT_NAME_SIZE, "%s", name);
    }
    volume_state_set_snapshots(v, all, n);
}

/* A running receive holds a lock on the folder of its try. Gives a locked descriptor when nobody
 * does, else -1. */
static int lock_try(int incoming, const char *name)
{
    CLEANUP_CLOSE int fd = openat(incoming, name, FOLDER);

    return fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 ? steal_fd(&fd) : -1;
}

static bool has_leftovers(int dataset)
{
    CLEANUP_CLOSE int incoming = openat(dataset, "incoming", FOLDER);
    CLEANUP_DIR DIR *d = incoming < 0 ? NULL : dir_stream(incoming);
    const char *name;

    while (d && (name = dir_next(d))) {
        CLEANUP_CLOSE int fd = lock_try(incoming, name);

        if (fd >= 0)
            return true;
    }
    return false;
}

static void look(const struct pool *p, int dataset, struct volume_state *v)
{
    v->present = is_subvolume(dataset, "vol");
    v->attached = v->present;
    v->partial = has_leftovers(dataset);
    v->size = quota_get_limit(p, quota_group(p, &v->dataset));
    look_at_snapshots(dataset, v);
}

static struct err *btrfs_inspect(void *cookie, const struct uuid *dataset, struct volume_state *v)
{
    CLEANUP_CLOSE int dir = -1;

    TRY(pool_dataset(cookie, dataset, /* create= */ false, &dir));
    *v = (struct volume_state){.dataset = *dataset};
    if (dir >= 0)
        look(cookie, dir, v);
    return NULL;
}

static struct err *btrfs_list(void *cookie, struct volume_state **ret_states, size_t *ret_n)
{
    struct pool *p = cookie;
    CLEANUP_DIR DIR *d = dir_stream(p->top);
    struct volume_state *states = NULL;
    size_t n = 0, cap = 0;
    const char *name;
    struct uuid id;

    if (!d)
        return btrfs_error(errno, "cannot read the pool %s", p->path);
    quota_remove_stale(p); /* now and then, and this is */
    while ((name = dir_next(d))) {
        CLEANUP_CLOSE int dir = uuid_parse(name, &id) ? openat(p->top, name, FOLDER) : -1;

        if (dir < 0)
            continue;
        states = mem_grow(states, n, &cap, sizeof(*states));
        states[n] = (struct volume_state){.dataset = id};
        look(p, dir, &states[n++]);
    }
    *ret_states = states;
    *ret_n = n;
    return NULL;
}

static struct err *btrfs_mark_dir(void *cookie, const struct uuid *dataset, bool create,
                                  int *ret_fd)
{
    return pool_dataset(cookie, dataset, create, ret_fd);
}

static struct err *btrfs_forget(void *cookie, const struct uuid *dataset)
{
    struct pool *p = cookie;
    CLEANUP_CLOSE int dir = -1;

    TRY(pool_dataset(p, dataset, /* create= */ false, &dir));
    if (dir >= 0) {
        TRY(dir_remove_empty(dir, "snap"));
        TRY(dir_remove_empty(dir, "incoming"));
    }
    /* Before the folder: as long as that is there, a killed agent comes back to this. */
    quota_remove(p, quota_group(p, dataset));
    return dir < 0 ? NULL : dir_remove_empty(p->top, UUID_STR(dataset));
}

/* ---- volumes ---- */

/* Opens vol or snap/NAME and so on as a folder. */
static struct err *open_in(int dataset, const char *sub, const char *name, int *ret_fd)
{
    CLEANUP_FREE char *path = name ? xasprintf("%s/%s", sub, name) : xstrdup(sub);
    int fd = dataset < 0 ? -1 : openat(dataset, path, FOLDER);

    if (dataset < 0 || (fd < 0 && errno == ENOENT))
        return err_new(ERR_NOT_FOUND, "there is no %s %s here", name ? "snapshot" : "volume",
                       name ? name : "");
    if (fd < 0)
        return btrfs_error(errno, "cannot open %s", path);
    *ret_fd = fd;
    return NULL;
}

static struct err *btrfs_limit(void *cookie, const struct uuid *dataset, uint64_t size)
{
    return quota_limit(cookie, quota_group(cookie, dataset), size);
}

static struct err *btrfs_create(void *cookie, const struct uuid *dataset, uint64_t size)
{
    struct pool *p = cookie;
    uint64_t group = quota_group(p, dataset);
    CLEANUP_CLOSE int dir = -1, vol = -1;

    TRY(pool_dataset(p, dataset, /* create= */ true, &dir));
    if (!is_subvolume(dir, "vol")) {
        TRY(quota_prepare(p, group));
        TRY(quota_limit(p, group, size));
        TRY(subvolume_create(dir, "vol", group));
    }
    TRY(open_in(dir, "vol", NULL, &vol));
    struct stat st;

    /* Also after a crash between the two: an own mode is set only once the volume is in use. */
    if (fstat(vol, &st) < 0)
        return btrfs_error(errno, "cannot look at the new volume");
    CLEANUP_DIR DIR *d = dir_stream(vol);

    if ((st.st_mode & 07777) == 0755 && d && !dir_next(d) && fchmod(vol, 0777) < 0)
        return btrfs_error(errno, "cannot set the mode of the new volume");
    return pool_commit(dir);
}

/* Deletes all subvolumes in <dataset>/<sub>. */
static struct err *delete_all(int dataset, const char *sub)
{
    CLEANUP_CLOSE int fd = openat(dataset, sub, FOLDER);
    CLEANUP_DIR DIR *d = fd < 0 ? NULL : dir_stream(fd);
    const char *name;

    while (d && (name = dir_next(d)))
        TRY(subvolume_delete(fd, name));
    return NULL;
}

/* Removes the tries of receives that no longer run. ERR_BUSY: one does, and `all` are to go. */
static struct err *remove_tries(int dataset, bool all)
{
    CLEANUP_CLOSE int incoming = openat(dataset, "incoming", FOLDER);
    CLEANUP_DIR DIR *d = incoming < 0 ? NULL : dir_stream(incoming);
    const char *name;

    while (d && (name = dir_next(d))) {
        CLEANUP_CLOSE int fd = lock_try(incoming, name);

        if (fd < 0 && all)
            return err_new(ERR_BUSY, "a snapshot of it is being received");
        if (fd < 0)
            continue;
        TRY(delete_all(fd, "."));
        TRY(dir_remove_empty(incoming, name));
    }
    return NULL;
}

static struct err *btrfs_destroy(void *cookie, const struct uuid *dataset)
{
    CLEANUP_CLOSE int dir = -1;

    TRY(pool_dataset(cookie, dataset, /* create= */ false, &dir));
    if (dir < 0)
        return NULL;
    TRY(remove_tries(dir, /* all= */ true));
    TRY(subvolume_delete(dir, "vol"));
    TRY(delete_all(dir, "snap"));
    return pool_commit(dir);
}

static struct err *btrfs_root(void *cookie, const struct uuid *dataset, int *ret_fd)
{
    CLEANUP_CLOSE int dir = -1;

    TRY(pool_dataset(cookie, dataset, /* create= */ false, &dir));
    int fd = dir < 0 ? -1 : openat(dir, "vol", O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return err_new(ERR_NOT_FOUND, "there is no volume of it here");
    *ret_fd = fd;
    return NULL;
}

/* ---- snapshots ---- */

static struct err *btrfs_snapshot(void *cookie, const struct uuid *dataset, const char *name)
{
    CLEANUP_CLOSE int dir = -1, snap = -1, vol = -1;

    TRY(pool_dataset(cookie, dataset, /* create= */ false, &dir));
    TRY(open_in(dir, "vol", NULL, &vol));
    TRY(dir_open(dir, "snap", /* create= */ true, 0700, &snap));
    if (is_subvolume(snap, name))
        return NULL;
    return subvolume_snapshot(vol, snap, name, /* read_only= */ true, quota_group(cookie, dataset));
}

static struct err *btrfs_snapshot_delete(void *cookie, const struct uuid *dataset, const char *name)
{
    CLEANUP_CLOSE int dir = -1, snap = -1;

    TRY(pool_dataset(cookie, dataset, /* create= */ false, &dir));
    if (dir >= 0)
        TRY(dir_open(dir, "snap", /* create= */ false, 0700, &snap));
    return snap < 0 ? NULL : subvolume_delete(snap, name);
}

static struct err *btrfs_tidy(void *cookie, const struct uuid *dataset)
{
    CLEANUP_CLOSE int dir = -1;

    TRY(pool_dataset(cookie, dataset, /* create= */ false, &dir));
    return dir < 0 ? NULL : remove_tries(dir, /* all= */ false);
}

static struct err *btrfs_promote(void *cookie, const struct uuid *dataset, const char *snapshot,
                                 uint64_t size)
{
    struct pool *p = cookie;
    uint64_t group = quota_group(p, dataset);
    CLEANUP_CLOSE int dir = -1, from = -1;

    TRY(pool_dataset(p, dataset, /* create= */ false, &dir));
    TRY(open_in(dir, "snap", snapshot, &from));
    TRY(quota_prepare(p, group));
    TRY(quota_limit(p, group, size));
    TRY(quota_assign(p, from, group));
    TRY(subvolume_delete(dir, "vol"));
    return subvolume_snapshot(from, dir, "vol", /* read_only= */ false, group);
}

/* ---- streams ---- */

static struct err *identity_of(int fd, struct uuid *ret_id, bool *ret_read_only)
{
    struct btrfs_util_subvolume_info info;
    static const uint8_t none[16];

    if (btrfs_util_subvolume_info_fd(fd, 0, &info) != BTRFS_UTIL_OK)
        return btrfs_error(errno, "cannot identify a subvolume");
    bool received = memcmp(info.received_uuid, none, sizeof(none)) != 0;

    memcpy(ret_id->b, received ? info.received_uuid : info.uuid, sizeof(ret_id->b));
    *ret_read_only = info.flags & BTRFS_ROOT_SUBVOL_RDONLY;
    return NULL;
}

static struct err *btrfs_identity(void *cookie, const struct uuid *dataset, const char *name,
                                  char **ret_identity)
{
    CLEANUP_CLOSE int dir = -1, snap = -1;
    struct uuid id;
    bool read_only;

    TRY(pool_dataset(cookie, dataset, /* create= */ false, &dir));
    TRY(open_in(dir, "snap", name, &snap));
    TRY(identity_of(snap, &id, &read_only));
    *ret_identity = xstrdup(UUID_STR(&id));
    return NULL;
}

/* A snapshot that was made writable keeps its identity, and an increment on it would be taken and be wrong. */
static struct err *open_base(int dataset, const char *name, int *ret_fd)
{
    struct uuid id;
    bool read_only;

    TRY(err_wrap(open_in(dataset, "snap", name, ret_fd), "its base"));
    TRY(identity_of(*ret_fd, &id, &read_only));
    return read_only
               ? NULL
               : err_new(ERR_CORRUPT, "its base %s was made writable: delete that snapshot", name);
}

static struct err *btrfs_send(void *cookie, const struct uuid *dataset,
                              const struct stream_spec *stream, int fd, const atomic_bool *cancel)
{
    CLEANUP_CLOSE int dir = -1, from = -1, to = -1;

    TRY(pool_dataset(cookie, dataset, /* create= */ false, &dir));
    TRY(open_in(dir, "snap", stream->snapshot, &to));
    if (stream->base)
        TRY(open_base(dir, stream->base, &from));
    return stream_send(cookie, from, to, fd, cancel);
}

/* Makes the locked folder of one try: a later try, or a program left over from a killed agent,
 * never works in it. */
static struct err *begin_try(int dataset, const char *snapshot, char **ret_name, int *ret_fd)
{
    struct random r = random_os();
    CLEANUP_FREE char *name =
        xasprintf("%s.%016llx", snapshot, (unsigned long long)random_next(&r));
    CLEANUP_CLOSE int incoming = -1, fd = -1;

    TRY(dir_open(dataset, "incoming", /* create= */ true, 0700, &incoming));
    if (mkdirat(incoming, name, 0700) < 0)
        return btrfs_error(errno, "cannot make a folder for the snapshot");
    fd = openat(incoming, name, FOLDER);
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
        return btrfs_error(errno, "cannot lock the folder for the snapshot");
    *ret_name = steal(&name);
    *ret_fd = steal_fd(&fd);
    return NULL;
}

/* Checks what the stream made, and gives it its place: the snapshot of it flushes and commits, so
 * it is complete, durable and listed in one step. (`btrfs receive` itself ends before its data are
 * on disk.) */
static struct err *accept(struct pool *p, const struct uuid *dataset, int dir, int try_fd,
                          const char *snapshot, const char *identity)
{
    CLEANUP_CLOSE int got = openat(try_fd, snapshot, FOLDER), snap = -1;
    uint64_t group = quota_group(p, dataset);
    struct uuid id;
    bool read_only;

    if (got < 0)
        return err_new(ERR_CORRUPT, "the stream held something else than snapshot %s", snapshot);
    TRY(identity_of(got, &id, &read_only));
    if (!read_only || !streq(UUID_STR(&id), identity))
        return err_new(ERR_CORRUPT, "what arrived is snapshot %s%s, not %s: send it again",
                       UUID_STR(&id), read_only ? "" : " (unfinished)", identity);
    TRY(quota_prepare(p, group));
    TRY(quota_assign(p, got, group));
    TRY(dir_open(dir, "snap", /* create= */ true, 0700, &snap));
    return subvolume_snapshot(got, snap, snapshot, /* read_only= */ true, group);
}

/* `btrfs receive` tells only in words why it failed. */
static bool pool_is_full(const struct pool *p)
{
    struct statvfs st;

    return fstatvfs(p->top, &st) == 0 && st.f_bavail * st.f_frsize < FULL_BYTES;
}

static struct err *btrfs_receive(void *cookie, const struct uuid *dataset,
                                 const struct stream_spec *stream, int fd)
{
    struct pool *p = cookie;
    CLEANUP_CLOSE int dir = -1, try_fd = -1, ready = -1;
    CLEANUP_FREE char *name = NULL;

    TRY(pool_dataset(p, dataset, /* create= */ true, &dir));
    struct err *missing = open_in(dir, "snap", stream->snapshot, &ready);

    if (!missing)
        return err_new(ERR_EXISTS, "it is here already");
    err_free(missing);
    if (stream->base)
        TRY(open_base(dir, stream->base, &ready));
    TRY(remove_tries(dir, /* all= */ false));
    TRY(begin_try(dir, stream->snapshot, &name, &try_fd));
    CLEANUP_FREE char *path =
        xasprintf("%s/flocker/%s/incoming/%s", p->path, UUID_STR(dataset), name);
    struct err *e = stream_receive(path, fd);

    if (e && pool_is_full(p))
        e->code = ERR_NO_SPACE;
    if (!e)
        e = accept(p, dataset, dir, try_fd, stream->snapshot, stream->identity);
    mem_closep(&try_fd);
    try_fd = -1;
    /* What is left of the try goes, now or at the next look: it is not part of the answer. */
    err_free(remove_tries(dir, /* all= */ false));
    return e;
}

const struct driver driver_btrfs = {
    .abi = DRIVER_ABI,
    .size = sizeof(struct driver),
    .name = "btrfs",
    .kind = STORAGE_LOCAL,
    .keys = keys,
    .open = btrfs_open,
    .close = btrfs_close,
    .list = btrfs_list,
    .inspect = btrfs_inspect,
    .mark_dir = btrfs_mark_dir,
    .forget = btrfs_forget,
    .create = btrfs_create,
    .destroy = btrfs_destroy,
    .root = btrfs_root,
    .own_device = true,
    .limit = btrfs_limit,
    .snapshot = btrfs_snapshot,
    .snapshot_delete = btrfs_snapshot_delete,
    .tidy = btrfs_tidy,
    .promote = btrfs_promote,
    .send = btrfs_send,
    .receive = btrfs_receive,
    .identity = btrfs_identity,
};
