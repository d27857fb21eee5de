/* Volumes are file systems of a ZFS pool; moves are zfs send streams. Works with OpenZFS and with zfs-fuse.
 *
 * Everything goes through the programs zfs and zpool. Each change they make is a transaction of the pool, and they return
 * when that is on disk (dsl_sync_task waits for its transaction group); so what a verb did is durable when it returns. */
#include "drivers/zfs/zfs.h"

#include "base/str.h"
#include "drivers/backends.h"
#include "drivers/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOUNT_ROOT "/flocker"

/* The last two are Flocker 1's. */
static const struct driver_key keys[] = {
    {"pool", DRIVER_KEY_STRING, false},
    {"mount_root", DRIVER_KEY_STRING, false},
    {"volume_config_path", DRIVER_KEY_STRING, false},
    {NULL},
};

static struct err *zfs_open(const struct driver_config *config, void **ret_cookie)
{
    const char *mount_root = driver_option_string(config->options, "mount_root", MOUNT_ROOT);
    struct zfs_pool *p;

    if (!streq(mount_root, MOUNT_ROOT))
        return err_new(ERR_INVALID,
                       "volumes are mounted at " MOUNT_ROOT "/<dataset_id>: mount_root cannot be %s, remove that key",
                       mount_root);
    TRY(zfs_pool_open(config, &p));
    *ret_cookie = p;
    return NULL;
}

static void zfs_close(void *cookie)
{
    zfs_pool_close(cookie);
}

/* ---- looking ---- */

static void fill_snapshots(const struct zfs_fs *f, struct volume_state *v)
{
    CLEANUP_FREE struct snapshot_found *found = NULL;
    size_t n = 0, cap = 0;

    for (size_t i = 0; i < f->n_snapshots; i++) {
        if (!f->snapshots[i].held || !snapshot_name_is_valid(f->snapshots[i].name))
            continue;
        found = mem_grow(found, n, &cap, sizeof(*found));
        found[n].order = i;
        (void)snprintf(found[n++].name, SNAPSHOT_NAME_SIZE, "%s", f->snapshots[i].name);
    }
    volume_state_set_snapshots(v, found, n);
}

static bool has_unfinished_snapshot(const struct zfs_fs *f)
{
    for (size_t i = 0; i < f->n_snapshots; i++) {
        if (f->snapshots[i].ours && !f->snapshots[i].held)
            return true;
    }
    return false;
}

static void fill_state(const struct zfs_pool *p, const struct zfs_listing *l, struct volume_state *v)
{
    CLEANUP_FREE char *fs = zfs_name(p, &v->dataset), *incoming = zfs_incoming(p, &v->dataset);
    const struct zfs_fs *f = zfs_listing_find(l, fs);
    CLEANUP_CLOSE int dir = openat(p->marks, UUID_STR(&v->dataset), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool finished = !f || f->role == ZFS_ROLE_VOLUME || f->role == ZFS_ROLE_REPLICA;
    bool left = zfs_listing_find(l, incoming) || zfs_view_is_there(p, l, &v->dataset) || !finished ||
                (f && (f->token || has_unfinished_snapshot(f)));

    v->partial = left && (dir < 0 || !zfs_is_locked(dir));
    if (!f)
        return;
    v->present = f->role == ZFS_ROLE_VOLUME;
    v->attached = v->present;
    v->size = f->limit;
    fill_snapshots(f, v);
}

static struct err *zfs_inspect(void *cookie, const struct uuid *dataset, struct volume_state *v)
{
    struct zfs_pool *p = cookie;
    CLEANUP_LISTING struct zfs_listing l = {0};

    TRY(zfs_look(p, dataset, &l));
    *v = (struct volume_state){.dataset = *dataset};
    fill_state(p, &l, v);
    return NULL;
}

/* The dataset of <top>/<dataset> or <top>/<dataset>.incoming. */
static bool dataset_of(const struct zfs_pool *p, const char *name, struct uuid *ret_dataset)
{
    size_t n = strlen(p->top);

    if (!str_has_prefix(name, p->top) || name[n] != '/')
        return false;
    CLEANUP_FREE char *rest = xstrdup(name + n + 1);
    char *dot = strchr(rest, '.');

    if (dot && !streq(dot, ZFS_INCOMING))
        return false;
    if (dot)
        *dot = '\0';
    return uuid_parse(rest, ret_dataset);
}

static struct err *zfs_list(void *cookie, struct volume_state **ret_states, size_t *ret_n)
{
    struct zfs_pool *p = cookie;
    CLEANUP_LISTING struct zfs_listing l = {0};
    struct volume_list states = {0};
    CLEANUP_DIR DIR *d = dir_stream(p->marks);
    const char *name;
    struct uuid id;

    if (!d)
        return err_errno(errno, "cannot read the marks in the pool %s", p->name);
    TRY(zfs_look_all(p, &l));
    while ((name = dir_next(d))) {
        if (uuid_parse(name, &id))
            (void)volume_list_get(&states, &id);
    }
    for (size_t i = 0; i < l.n; i++) {
        if (dataset_of(p, l.all[i].name, &id))
            (void)volume_list_get(&states, &id);
    }
    for (size_t i = 0; i < states.n; i++)
        fill_state(p, &l, &states.states[i]);
    *ret_states = states.states;
    *ret_n = states.n;
    return NULL;
}

static struct err *zfs_mark_dir(void *cookie, const struct uuid *dataset, bool create, int *ret_fd)
{
    struct zfs_pool *p = cookie;

    return dir_open(p->marks, UUID_STR(dataset), create, 0700, ret_fd);
}

static struct err *zfs_forget(void *cookie, const struct uuid *dataset)
{
    struct zfs_pool *p = cookie;
    CLEANUP_CLOSE int dir = -1;

    TRY(zfs_mark_dir(p, dataset, /* create= */ false, &dir));
    if (dir < 0)
        return NULL;
    TRY(zfs_forget_receive(dir));
    return dir_remove_empty(p->marks, UUID_STR(dataset));
}

/* ---- volumes ---- */

static char *limit_of(uint64_t size)
{
    return size ? xasprintf("refquota=%" PRIu64, size) : xstrdup("refquota=none");
}

static struct err *zfs_limit(void *cookie, const struct uuid *dataset, uint64_t size)
{
    struct zfs_pool *p = cookie;
    CLEANUP_FREE char *fs = zfs_name(p, dataset), *limit = limit_of(size);

    return zfs_run(p, ZFS("set", limit, fs), NULL);
}

/* Its data are of Flocker 1, and nobody has ordered anything about them yet. */
static struct err *need_not_adopting(const struct zfs_fs *f)
{
    if (f->role != ZFS_ROLE_ADOPTING && f->role != ZFS_ROLE_MOVING)
        return NULL;
    return err_new(ERR_CONFLICT, "%s is being adopted, and that is not finished: run 'flocker-volume adopt' again", f->name);
}

static struct err *need_no_other(const struct zfs_fs *f)
{
    if (!f || f->role == ZFS_ROLE_MAKING || (f->role == ZFS_ROLE_NONE && !f->n_snapshots))
        return NULL;
    TRY(need_not_adopting(f));
    return err_new(ERR_CONFLICT, "%s is a replica of its data: it is not replaced by an empty volume", f->name);
}

static struct err *make_fs(const struct zfs_pool *p, const char *fs, uint64_t size)
{
    CLEANUP_FREE char *limit = limit_of(size);

    return zfs_run(p, ZFS("create", "-o", "canmount=noauto", "-o", "readonly=off", "-o", ZFS_ROLE "=making", "-o", limit, fs),
                   NULL);
}

/* The user's folder, on stable storage. */
static struct err *make_data(const struct zfs_pool *p, const struct uuid *dataset)
{
    CLEANUP_CLOSE int root = -1, data = -1;

    TRY(zfs_mount(p, dataset, &root));
    TRY(dir_open(root, ZFS_DATA, /* create= */ true, 0777, &data));
    if (fchmod(data, 0777) < 0)
        return err_errno(errno, "cannot set the mode of the new volume");
    TRY(dir_sync(data));
    return dir_sync(root);
}

static struct err *zfs_create(void *cookie, const struct uuid *dataset, uint64_t size)
{
    struct zfs_pool *p = cookie;
    CLEANUP_LISTING struct zfs_listing l = {0};
    CLEANUP_FREE char *fs = zfs_name(p, dataset), *limit = limit_of(size);

    TRY(zfs_look(p, dataset, &l));
    const struct zfs_fs *f = zfs_listing_find(&l, fs);

    if (f && f->role == ZFS_ROLE_VOLUME)
        return NULL;
    TRY(need_no_other(f));
    if (f)
        TRY(zfs_set(p, fs, (const char *const[]){limit, "canmount=noauto", "readonly=off", NULL}));
    else
        TRY(make_fs(p, fs, size));
    TRY(make_data(p, dataset));
    return zfs_set(p, fs, (const char *const[]){ZFS_ROLE "=volume", NULL});
}

static struct err *zfs_destroy(void *cookie, const struct uuid *dataset)
{
    struct zfs_pool *p = cookie;
    CLEANUP_LISTING struct zfs_listing l = {0};
    CLEANUP_FREE char *fs = zfs_name(p, dataset), *incoming = zfs_incoming(p, dataset);
    const char *const names[] = {fs, incoming};
    CLEANUP_CLOSE int dir = -1;

    TRY(zfs_mark_dir(p, dataset, /* create= */ false, &dir));
    if (dir >= 0 && zfs_is_locked(dir))
        return err_new(ERR_BUSY, "a snapshot of it is being received or compared");
    TRY(zfs_look(p, dataset, &l));
    TRY(zfs_view_tidy(p, &l, dataset));
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        const struct zfs_fs *f = zfs_listing_find(&l, names[i]);

        if (f)
            TRY(need_not_adopting(f));
        if (f && i == 0)
            TRY(zfs_unmount(p, dataset));
        if (f)
            TRY(zfs_destroy_fs(p, f));
    }
    return zfs_unmount(p, dataset); /* the folder, if a killed agent had just made it */
}

static struct err *zfs_root(void *cookie, const struct uuid *dataset, int *ret_fd)
{
    return zfs_open_data(cookie, dataset, ret_fd);
}

/* ---- snapshots ---- */

static struct err *take_snapshot(const struct zfs_pool *p, const char *full)
{
    TRY(zfs_run(p, ZFS("snapshot", "-o", ZFS_OURS "=1", full), NULL));
    return zfs_run(p, ZFS("hold", ZFS_TAG, full), NULL);
}

static struct err *zfs_take_snapshot(void *cookie, const struct uuid *dataset, const char *name)
{
    struct zfs_pool *p = cookie;
    CLEANUP_LISTING struct zfs_listing l = {0};
    CLEANUP_FREE char *fs = zfs_name(p, dataset), *full = xasprintf("%s@%s", fs, name);

    TRY(zfs_flush(p, dataset));
    CLEANUP_ERR struct err *e = take_snapshot(p, full);

    if (!e)
        return NULL;
    TRY(zfs_look(p, dataset, &l));
    const struct zfs_fs *f = zfs_listing_find(&l, fs);
    const struct zfs_snapshot *s = zfs_fs_snapshot(f, name);

    if (!f || f->role != ZFS_ROLE_VOLUME)
        return err_new(ERR_NOT_FOUND, "there is no volume of it here");
    if (!s)
        return steal(&e);
    if (s->held)
        return NULL;
    /* A killed agent took it, and it was never told to anybody: what was written since belongs into it. */
    TRY(zfs_destroy_snapshot(p, fs, name));
    return take_snapshot(p, full);
}

static struct err *zfs_snapshot_delete(void *cookie, const struct uuid *dataset, const char *name)
{
    CLEANUP_FREE char *fs = zfs_name(cookie, dataset);
    CLEANUP_LISTING struct zfs_listing l = {0};
    CLEANUP_ERR struct err *e = zfs_destroy_snapshot(cookie, fs, name);

    if (!err_is(e, ERR_BUSY))
        return steal(&e);
    TRY(zfs_look(cookie, dataset, &l));
    if (!zfs_view_is_there(cookie, &l, dataset))
        return steal(&e);
    TRY(zfs_view_tidy(cookie, &l, dataset));
    return zfs_destroy_snapshot(cookie, fs, name);
}

static struct err *zfs_identity(void *cookie, const struct uuid *dataset, const char *name, char **ret_identity)
{
    CLEANUP_FREE char *fs = zfs_name(cookie, dataset), *full = xasprintf("%s@%s", fs, name);
    CLEANUP_EXEC struct exec_result r = {0};

    TRY(zfs_run(cookie, ZFS("get", "-Hp", "-o", "value", "guid", full), &r));
    *ret_identity = xstrndup(r.out, strcspn(r.out, "\n"));
    return NULL;
}

static struct err *zfs_tidy_all(void *cookie, const struct uuid *dataset)
{
    struct zfs_pool *p = cookie;
    CLEANUP_LISTING struct zfs_listing l = {0};
    CLEANUP_FREE char *fs = zfs_name(p, dataset);

    TRY(zfs_tidy(p, dataset));
    TRY(zfs_look(p, dataset, &l));
    const struct zfs_fs *f = zfs_listing_find(&l, fs);

    for (size_t i = 0; f && i < f->n_snapshots; i++) {
        if (f->snapshots[i].ours && !f->snapshots[i].held)
            TRY(zfs_destroy_snapshot(p, fs, f->snapshots[i].name));
    }
    return NULL;
}

/* ---- promotion ---- */

struct err *zfs_rollback(const struct zfs_pool *p, const struct uuid *dataset, const struct zfs_fs *f,
                         const char *snapshot)
{
    CLEANUP_FREE char *full = xasprintf("%s@%s", f->name, snapshot);

    TRY(zfs_unmount(p, dataset));
    if (f->token)
        err_free(zfs_run(p, ZFS("receive", "-A", f->name), NULL));
    for (size_t i = f->n_snapshots; i > 0 && !streq(f->snapshots[i - 1].name, snapshot); i--)
        TRY(zfs_destroy_snapshot(p, f->name, f->snapshots[i - 1].name));
    return zfs_run(p, ZFS("rollback", full), NULL);
}

/* A replica is not mounted and cannot be written: its state is that of its newest snapshot. */
static bool is_at(const struct zfs_fs *f, const char *snapshot)
{
    return f->role == ZFS_ROLE_REPLICA && !f->token && streq(f->snapshots[f->n_snapshots - 1].name, snapshot);
}

static struct err *zfs_promote(void *cookie, const struct uuid *dataset, const char *snapshot, uint64_t size)
{
    struct zfs_pool *p = cookie;
    CLEANUP_LISTING struct zfs_listing l = {0};
    CLEANUP_FREE char *fs = zfs_name(p, dataset), *limit = limit_of(size);

    TRY(zfs_look(p, dataset, &l));
    const struct zfs_fs *f = zfs_listing_find(&l, fs);
    const struct zfs_snapshot *s = zfs_fs_snapshot(f, snapshot);

    if (!s || !s->held)
        return err_new(ERR_NOT_FOUND, "there is no snapshot %s here", snapshot);
    TRY(zfs_view_tidy(p, &l, dataset));
    if (!is_at(f, snapshot))
        TRY(zfs_rollback(p, dataset, f, snapshot));
    /* In this order where they cannot be set together: the limit is in force before anybody can write. */
    return zfs_set(p, fs, (const char *const[]){limit, "readonly=off", ZFS_ROLE "=volume", NULL});
}

/* The volume and its snapshots are one file system: nothing but what was written since can go. The limit goes with the
 * volume: what is received later may be of one that has grown. */
static struct err *zfs_demote(void *cookie, const struct uuid *dataset, const char *snapshot)
{
    struct zfs_pool *p = cookie;
    CLEANUP_LISTING struct zfs_listing l = {0};
    CLEANUP_FREE char *fs = zfs_name(p, dataset), *no_limit = limit_of(0);

    TRY(zfs_look(p, dataset, &l));
    const struct zfs_fs *f = zfs_listing_find(&l, fs);
    const struct zfs_snapshot *s = zfs_fs_snapshot(f, snapshot);

    if (!s || !s->held)
        return err_new(ERR_NOT_FOUND, "there is no snapshot %s here", snapshot);
    if (f->role != ZFS_ROLE_VOLUME)
        return NULL;
    TRY(zfs_rollback(p, dataset, f, snapshot));
    return zfs_set(p, fs, (const char *const[]){"readonly=on", no_limit, ZFS_ROLE "=replica", NULL});
}

static struct err *zfs_space(void *cookie, uint64_t *ret_total, uint64_t *ret_free)
{
    struct zfs_pool *p = cookie;
    CLEANUP_EXEC struct exec_result r = {0};
    uint64_t used;

    TRY(zfs_run(p, ZFS("get", "-Hp", "-o", "value", "used,available", p->name), &r));
    char *rest = r.out;
    const char *first = strsep(&rest, "\n"), *second = strsep(&rest, "\n");

    if (!second || !zfs_number_parse(first, &used) || !zfs_number_parse(second, ret_free))
        return err_new(ERR_IO, "zfs get printed no sizes of the pool %s", p->name);
    *ret_total = used + *ret_free;
    return NULL;
}

const struct driver driver_zfs = {
    .abi = DRIVER_ABI,
    .size = sizeof(struct driver),
    .name = "zfs",
    .kind = STORAGE_LOCAL,
    .keys = keys,
    .open = zfs_open,
    .close = zfs_close,
    .list = zfs_list,
    .inspect = zfs_inspect,
    .mark_dir = zfs_mark_dir,
    .forget = zfs_forget,
    .create = zfs_create,
    .destroy = zfs_destroy,
    .root = zfs_root,
    .own_device = true,
    .limit = zfs_limit,
    .snapshot = zfs_take_snapshot,
    .snapshot_delete = zfs_snapshot_delete,
    .tidy = zfs_tidy_all,
    .promote = zfs_promote,
    .demote = zfs_demote,
    .space = zfs_space,
    .send = zfs_send_stream,
    .receive = zfs_receive_stream,
    .stream_point = zfs_stream_point,
    .identity = zfs_identity,
    .stream_size = zfs_stream_size,
    .snapshot_read = zfs_snapshot_read,
};
