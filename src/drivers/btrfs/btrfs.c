/* Volumes are subvolumes of a btrfs pool; moves are btrfs send streams. */
#include "drivers/btrfs/btrfs.h"

#include "base/str.h"
#include "drivers/backends.h"
#include "drivers/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/btrfs_tree.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

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
        if (!snapshot_name_is_valid(name) || !subvolume_is(snap, name))
            continue;
        all = mem_grow(all, n, &cap, sizeof(*all));
        all[n].order = id_of(snap, name);
        (void)snprintf(all[n++].name, SNAPSHOT_NAME_SIZE, "%s", name);
    }
    volume_state_set_snapshots(v, all, n);
}

static void look(const struct pool *p, int dataset, struct volume_state *v)
{
    v->present = subvolume_is(dataset, "vol");
    v->attached = v->present;
    v->partial = tries_left(dataset);
    v->size = quota_get_limit(p, quota_group(p, &v->dataset));
    look_at_snapshots(dataset, v);
    /* Beside a volume, or without the snapshot, nothing is received on it any more. Promoting does not delete it: with it
     * goes what is cached of it, which takes 150 ms for a GiB, while nobody can write. */
    v->partial = v->partial || ((v->present || !v->n_snapshots) && subvolume_is(dataset, NEXT));
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

static bool btrfs_has_limits(void *cookie)
{
    const struct pool *p = cookie;

    return p->quotas;
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
    if (!subvolume_is(dir, "vol")) {
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

static struct err *btrfs_destroy(void *cookie, const struct uuid *dataset)
{
    CLEANUP_CLOSE int dir = -1;

    TRY(pool_dataset(cookie, dataset, /* create= */ false, &dir));
    if (dir < 0)
        return NULL;
    TRY(tries_remove(dir, NULL, /* all= */ true));
    TRY(subvolume_delete(dir, "vol"));
    TRY(subvolume_delete(dir, NEXT));
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
    if (subvolume_is(snap, name))
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
    if (dir < 0)
        return NULL;
    TRY(subvolume_delete(dir, NEXT));
    return tries_remove(dir, NULL, /* all= */ false);
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

static struct err *btrfs_demote(void *cookie, const struct uuid *dataset, const char *snapshot)
{
    CLEANUP_CLOSE int dir = -1, snap = -1;

    TRY(pool_dataset(cookie, dataset, /* create= */ false, &dir));
    TRY(open_in(dir, "snap", snapshot, &snap)); /* a copy of its own: it needs no volume */
    TRY(subvolume_delete(dir, "vol"));
    TRY(subvolume_delete(dir, NEXT));
    return pool_commit(dir);
}

static struct err *btrfs_space(void *cookie, uint64_t *ret_total, uint64_t *ret_free)
{
    const struct pool *p = cookie;

    return folder_space(p->top, ret_total, ret_free);
}

/* ---- streams ---- */

static struct err *btrfs_identity(void *cookie, const struct uuid *dataset, const char *name,
                                  char **ret_identity)
{
    CLEANUP_CLOSE int dir = -1, snap = -1;
    struct subvolume_facts facts;

    TRY(pool_dataset(cookie, dataset, /* create= */ false, &dir));
    TRY(open_in(dir, "snap", name, &snap));
    TRY(subvolume_look(snap, &facts));
    *ret_identity = xstrdup(UUID_STR(&facts.identity));
    return NULL;
}

/* A snapshot that was made writable keeps its identity, and an increment on it would be taken and be wrong. */
static struct err *open_base(int dataset, const char *name, int *ret_fd)
{
    struct subvolume_facts facts;

    TRY(err_wrap(open_in(dataset, "snap", name, ret_fd), "its base"));
    TRY(subvolume_look(*ret_fd, &facts));
    return facts.read_only && !facts.written
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

static struct err *btrfs_receive(void *cookie, const struct uuid *dataset,
                                 const struct stream_spec *stream, int fd)
{
    CLEANUP_CLOSE int dir = -1, ready = -1, base = -1;

    TRY(pool_dataset(cookie, dataset, /* create= */ true, &dir));
    struct err *missing = open_in(dir, "snap", stream->snapshot, &ready);

    if (!missing)
        return err_new(ERR_EXISTS, "it is here already");
    err_free(missing);
    if (stream->base)
        TRY(open_base(dir, stream->base, &base));
    return receive_stream(cookie, dir, quota_group(cookie, dataset), base, stream, fd);
}

static struct err *btrfs_stream_point(void *cookie, const struct uuid *dataset,
                                      struct stream_point *ret_point)
{
    CLEANUP_CLOSE int dir = -1;
    struct point p;

    *ret_point = (struct stream_point){0};
    TRY(pool_dataset(cookie, dataset, /* create= */ false, &dir));
    if (dir >= 0 && tries_point(dir, &p))
        *ret_point = (struct stream_point){.snapshot = xstrdup(p.snapshot),
                                           .identity = xstrdup(UUID_STR(&p.identity)),
                                           .base = xstrdup(p.base),
                                           .offset = p.offset,
                                           .hash_low = p.hash_low,
                                           .hash_high = p.hash_high};
    return NULL;
}

/* An increment may be anything. */
static struct err *btrfs_stream_size(void *cookie, const struct uuid *dataset,
                                     const struct stream_spec *stream, uint64_t *ret_bytes)
{
    *ret_bytes = stream->base ? 0 : quota_used(cookie, quota_group(cookie, dataset));
    return NULL;
}

static struct err *btrfs_snapshot_read(void *cookie, const struct uuid *dataset, const char *snapshot,
                                       driver_read_fn *fn, void *fn_cookie)
{
    CLEANUP_CLOSE int dir = -1, root = -1;

    TRY(pool_dataset(cookie, dataset, /* create= */ false, &dir));
    TRY(open_in(dir, "snap", snapshot, &root));
    return fn(fn_cookie, root);
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
    .has_limits = btrfs_has_limits,
    .snapshot = btrfs_snapshot,
    .snapshot_delete = btrfs_snapshot_delete,
    .tidy = btrfs_tidy,
    .promote = btrfs_promote,
    .promotes_at_once = true,
    .demote = btrfs_demote,
    .snapshots_in_limit = true,
    .space = btrfs_space,
    .send = btrfs_send,
    .receive = btrfs_receive,
    .stream_point = btrfs_stream_point,
    .identity = btrfs_identity,
    .stream_size = btrfs_stream_size,
    .snapshot_read = btrfs_snapshot_read,
};
