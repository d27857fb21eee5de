/* Adopting a file system of Flocker 1. Each step can be seen, and what is missing is done:
 *
 *   1. role `adopting`, then the new name: from here on nobody but an adoption touches it;
 *   2. the folder STAGE in its root, then role `moving`;
 *   3. everything else in the root goes into STAGE, which then becomes `data`;
 *   4. role `volume`.
 *
 * Why STAGE and a role of its own: the user may have a file called `data`, and once STAGE is gone the root must not be taken
 * for one where nothing was done yet. */
#include "drivers/zfs/adopt.h"

#include "base/str.h"
#include "drivers/durable.h"
#include "drivers/mounts.h"
#include "drivers/zfs/zfs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define STAGE ".flocker-adopting"

struct err *zfs_old_owner(const char *path, struct uuid *ret_owner)
{
    json_error_t why;
    json_t *root = json_load_file(path, 0, &why);
    const char *text = json_string_value(json_object_get(root, "uuid"));
    bool good = text && uuid_parse(text, ret_owner);

    json_decref(root);
    if (!root)
        return err_new(ERR_NOT_FOUND, "cannot read %s, in which Flocker 1 kept the name of this node (%s); give it with --owner",
                       path, why.text);
    return good ? NULL : err_new(ERR_CORRUPT, "%s holds no \"uuid\"; give this node's name with --owner", path);
}

/* ---- looking ---- */

static struct err *list_pool(const struct zfs_pool *p, struct zfs_listing *ret)
{
    CLEANUP_EXEC struct exec_result r = {0};

    TRY(zfs_run(p, ZFS("get", "-Hp", "-r", "-o", "name,property,value", "refquota," ZFS_ROLE, p->name), &r));
    zfs_listing_parse(r.out, ret);
    return NULL;
}

static bool is_under_way(const struct zfs_fs *f)
{
    return f->role == ZFS_ROLE_ADOPTING || f->role == ZFS_ROLE_MOVING;
}

/* Is it one of those, and what can be done with it? */
static bool look_at(const struct zfs_pool *p, const struct zfs_listing *l, const struct zfs_fs *f, const struct uuid *owner,
                    struct zfs_old *o)
{
    size_t n = strlen(p->name);

    *o = (struct zfs_old){.limit = f->limit};
    if (str_has_prefix(f->name, p->top) && f->name[strlen(p->top)] == '/') {
        o->state = ZFS_OLD_UNFINISHED;
        return is_under_way(f) && uuid_parse(f->name + strlen(p->top) + 1, &o->dataset);
    }
    if (!str_has_prefix(f->name, p->name) || f->name[n] != '/' ||
        !zfs_old_name_parse(f->name + n + 1, &o->owner, &o->dataset))
        return false;
    CLEANUP_FREE char *new = zfs_name(p, &o->dataset);

    if (!uuid_eq(&o->owner, owner))
        o->state = ZFS_OLD_REPLICA;
    else
        o->state = zfs_listing_find(l, new) ? ZFS_OLD_TAKEN : ZFS_OLD_READY;
    return true;
}

static void list(const struct zfs_pool *p, const struct zfs_listing *l, const struct uuid *owner, struct zfs_old **ret_all,
                 size_t *ret_n)
{
    struct zfs_old *all = NULL, o;
    size_t n = 0, cap = 0;

    for (size_t i = 0; i < l->n; i++) {
        if (!look_at(p, l, &l->all[i], owner, &o))
            continue;
        o.name = xstrdup(l->all[i].name);
        all = mem_grow(all, n, &cap, sizeof(*all));
        all[n++] = o;
    }
    *ret_all = all;
    *ret_n = n;
}

struct err *zfs_old_list(const struct driver_config *config, const struct uuid *owner, struct zfs_old **ret_all, size_t *ret_n)
{
    CLEANUP_LISTING struct zfs_listing l = {0};
    struct zfs_pool *p;

    TRY(zfs_pool_open(config, &p));
    struct err *e = list_pool(p, &l);

    if (!e)
        list(p, &l, owner, ret_all, ret_n);
    zfs_pool_close(p);
    return e;
}

/* ---- adopting ---- */

static struct err *unmount_old(const struct zfs_pool *p, const char *fs)
{
    CLEANUP_MOUNTS struct mount_table t = {0};

    TRY(mount_table_read(&t));
    for (size_t i = 0; i < t.n; i++) {
        if (streq(t.entries[i].source, fs))
            return err_wrap(zfs_run(p, ZFS("unmount", fs), NULL), "stop what uses it and unmount it");
    }
    return NULL;
}

static struct err *take_name(const struct zfs_pool *p, const char *old, const char *new)
{
    TRY(unmount_old(p, old));
    TRY(zfs_set(p, old, (const char *const[]){"canmount=noauto", ZFS_ROLE "=adopting", NULL}));
    return zfs_run(p, ZFS("rename", old, new), NULL);
}

static struct err *move_all(int root, int stage)
{
    CLEANUP_DIR DIR *d = dir_stream(root);
    const char *name;

    if (!d)
        return err_errno(errno, "cannot read the volume");
    while ((name = dir_next(d))) {
        if (!streq(name, STAGE) && renameat(root, name, stage, name) < 0)
            return err_errno(errno, "cannot move %s", name);
    }
    TRY(dir_sync(stage));
    return dir_sync(root);
}

/* What the root was for the user the folder is from now on. */
static struct err *copy_owner(int root, int stage)
{
    struct stat st;

    if (fstat(root, &st) < 0 || fchown(stage, st.st_uid, st.st_gid) < 0 || fchmod(stage, st.st_mode & 07777) < 0)
        return err_errno(errno, "cannot give the volume's folder its owner and mode");
    return NULL;
}

static struct err *move_files(int root)
{
    CLEANUP_CLOSE int stage = -1;

    TRY(dir_open(root, STAGE, /* create= */ false, 0700, &stage));
    if (stage < 0)
        return NULL; /* it is `data` already */
    TRY(move_all(root, stage));
    TRY(copy_owner(root, stage));
    if (renameat(root, STAGE, root, ZFS_DATA) < 0) /* the root is empty but for it */
        return err_errno(errno, "cannot put the volume's folder in its place");
    return dir_sync(root);
}

static struct err *make_stage(const struct zfs_pool *p, const char *fs, int root)
{
    CLEANUP_CLOSE int stage = -1;

    TRY(dir_open(root, STAGE, /* create= */ true, 0700, &stage));
    TRY(dir_sync(root));
    return zfs_set(p, fs, (const char *const[]){ZFS_ROLE "=moving", NULL});
}

static struct err *adopt_renamed(const struct zfs_pool *p, const struct uuid *dataset, const char *fs, enum zfs_role role)
{
    CLEANUP_CLOSE int root = -1;

    TRY(zfs_run(p, ZFS("inherit", "mountpoint", fs), NULL));
    TRY(zfs_set(p, fs, (const char *const[]){"readonly=off", NULL}));
    TRY(zfs_mount(p, dataset, &root));
    if (role != ZFS_ROLE_MOVING)
        TRY(make_stage(p, fs, root));
    TRY(move_files(root));
    return zfs_set(p, fs, (const char *const[]){ZFS_ROLE "=volume", NULL});
}

static struct err *adopt(const struct zfs_pool *p, const struct zfs_old *old)
{
    CLEANUP_LISTING struct zfs_listing l = {0};
    CLEANUP_FREE char *fs = zfs_name(p, &old->dataset);

    TRY(list_pool(p, &l)); /* it may have changed since it was shown */
    const struct zfs_fs *f = zfs_listing_find(&l, fs);

    if (f && !is_under_way(f))
        return err_new(ERR_EXISTS, "%s is there already: nothing is overwritten", fs);
    if (!f)
        TRY(take_name(p, old->name, fs));
    return adopt_renamed(p, &old->dataset, fs, f ? f->role : ZFS_ROLE_ADOPTING);
}

struct err *zfs_old_adopt(const struct driver_config *config, const struct zfs_old *old)
{
    struct zfs_pool *p;

    TRY(zfs_pool_open(config, &p));
    struct err *e = adopt(p, old);

    zfs_pool_close(p);
    return err_wrap(e, "%s", old->name);
}
