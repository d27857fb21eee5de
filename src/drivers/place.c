#include "drivers/storage_priv.h"

#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "drivers/blockdev.h"
#include "drivers/durable.h"
#include "drivers/filesystem.h"
#include "drivers/growth.h"
#include "drivers/usage.h"
#include "drivers/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#define MAX_STACKED 64    /* mounts on top of each other at one place */
#define SETTLE_US 300000u /* the kernel finishes an unmount a moment after the call */
#define SETTLE_STEP_US 5000u
#define USER_LOOKS 4u /* so often in a row somebody must be seen who uses it */
#define INTENT "mkfs"
#define DEVICE_GROWS_S 60

char *place_path(const struct storage *s, const struct uuid *dataset)
{
    return xasprintf("%s/%s", s->mount_root, UUID_STR(dataset));
}

static bool is_local(const struct storage *s)
{
    return s->driver->kind == STORAGE_LOCAL;
}

/* ---- what the volume is in terms of mounts and files ---- */

struct what {
    struct mount_spot spot;
    dev_t files;
    char *path;   /* local: of the root folder in the backend */
    char *device; /* attachable */
};

static void what_done(struct what *w)
{
    mount_spot_done(&w->spot);
    free(w->path);
    free(w->device);
    *w = (struct what){0};
}
#define CLEANUP_WHAT CLEANUP(what_done)

/* A driver may have mounted the volume just now, for us: then `t` does not have it yet. */
static struct err *spot_of(int fd, const struct mount_table *t, struct mount_spot *ret_spot)
{
    CLEANUP_MOUNTS struct mount_table now = {0};
    struct err *e = mount_spot_of(fd, t, ret_spot);

    if (!err_is(e, ERR_NOT_FOUND))
        return e;
    err_free(e);
    TRY(mount_table_read(&now));
    return mount_spot_of(fd, &now, ret_spot);
}

static struct err *what_local(struct storage *s, const struct uuid *dataset,
                              const struct mount_table *t, struct what *w)
{
    CLEANUP_CLOSE int fd = -1;
    char link[64], path[PATH_MAX];
    struct stat st;

    TRY(s->driver->root(s->cookie, dataset, &fd));
    TRY(spot_of(fd, t, &w->spot));
    if (fstat(fd, &st) < 0)
        return err_errno(errno, "cannot look at the volume");
    w->files = st.st_dev;
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof(path) - 1);

    if (n < 0)
        return err_errno(errno, "cannot read %s", link);
    w->path = xstrndup(path, (size_t)n);
    return NULL;
}

static struct err *what_attached(struct storage *s, const struct uuid *dataset, struct what *w)
{
    struct stat st;

    TRY(s->driver->device(s->cookie, dataset, &w->device));
    if (stat(w->device, &st) < 0)
        return err_errno(errno, "cannot look at %s", w->device);
    if (!S_ISBLK(st.st_mode))
        return err_new(ERR_IO, "%s is not a block device", w->device);
    w->files = st.st_rdev;
    w->spot.major = major(st.st_rdev);
    w->spot.minor = minor(st.st_rdev);
    w->spot.root = xstrdup("/");
    return NULL;
}

static struct err *what_is(struct storage *s, const struct uuid *dataset,
                           const struct mount_table *t, struct what *w)
{
    return is_local(s) ? what_local(s, dataset, t, w) : what_attached(s, dataset, w);
}

bool place_is_mounted(struct storage *s, const struct volume_state *v, const struct mount_table *t,
                      char **ret_device)
{
    CLEANUP_FREE char *place = place_path(s, &v->dataset);
    CLEANUP_WHAT struct what w = {0};
    const struct mount_entry *m = mount_table_at(t, place);

    if (!m || !v->attached)
        return false;
    struct err *e = what_is(s, &v->dataset, t, &w);
    bool mounted = !e && mount_entry_is_exactly(m, &w.spot);

    err_free(e);
    if (mounted)
        *ret_device = steal(&w.device);
    return mounted;
}

bool place_is_still_mounted(const struct storage *s, const struct volume_state *known, const struct mount_table *t)
{
    CLEANUP_FREE char *place = place_path(s, &known->dataset);
    const struct mount_entry *m = mount_table_at(t, place);
    struct mount_spot spot = {.root = (char *)"/"};
    struct stat st;

    if (!m)
        return false;
    if (!known->mounted || !known->device || stat(known->device, &st) < 0)
        return !known->mounted;
    spot.major = major(st.st_rdev);
    spot.minor = minor(st.st_rdev);
    return mount_entry_is_exactly(m, &spot);
}

/* ---- making the file system ---- */

/* *ret_type is what is there then; the caller frees it. */
static struct err *make_filesystem(struct storage *s, const struct uuid *dataset,
                                   const char *device, char **ret_type)
{
    CLEANUP_CLOSE int dir = -1;
    CLEANUP_FREE char *type = NULL;
    struct filesystem_head head = {0};

    TRY(s->driver->mark_dir(s->cookie, dataset, /* create= */ true, &dir));
    bool begun = faccessat(dir, INTENT, F_OK, AT_SYMLINK_NOFOLLOW) == 0;
    CLEANUP_CLOSE int intent = openat(dir, INTENT, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (intent < 0)
        return err_errno(errno, "cannot note that %s is being formatted", device);
    if (flock(intent, LOCK_EX | LOCK_NB) < 0)
        return err_new(ERR_BUSY, "%s is still being formatted", device);
    TRY(filesystem_probe(device, &type));
    TRY(filesystem_head_read(device, &head));
    /* Zeros, or what our own mkfs left when it was killed: it was blank when the note was made. */
    if (!type || (begun && (streq(type, "unknown data") || head.unfinished))) {
        TRY(dir_sync(dir));
        TRY(filesystem_make(s->filesystem, device, intent));
        free(type);
        type = xstrdup(s->filesystem);
    } else if (!filesystem_is_known(type)) {
        if (!begun)
            (void)unlinkat(dir, INTENT, 0);
        return err_new(ERR_EXISTS, "%s holds %s, not a file system of ext4 or xfs: it is not formatted",
                       device, type);
    }
    TRY(file_remove(dir, INTENT));
    *ret_type = steal(&type);
    return NULL;
}

static struct err *ready_filesystem(struct storage *s, const struct uuid *dataset,
                                    const char *device, char **ret_type)
{
    CLEANUP_FREE char *type = NULL;
    CLEANUP_CLOSE int dir = -1;

    TRY(filesystem_probe(device, &type));
    TRY(s->driver->mark_dir(s->cookie, dataset, /* create= */ false, &dir));
    /* With the note, mkfs may still run, left by a killed agent; and a note must not outlive it: damaged data would be taken
     * for a volume that was never finished. */
    bool begun = dir >= 0 && faccessat(dir, INTENT, F_OK, AT_SYMLINK_NOFOLLOW) == 0;

    if (!type || !filesystem_is_known(type) || begun)
        return make_filesystem(s, dataset, device, ret_type);
    *ret_type = steal(&type);
    return NULL;
}

/* ---- growing ---- */

/* The device may be larger than the file system on it: it was grown where the volume was before, and the node died. What
 * fails is noted, and tried again as a growth: the data can be used all the same. */
static struct err *fill_device(struct storage *s, const struct uuid *dataset, const char *type,
                               const char *device, const struct filesystem_head *head,
                               const char *place)
{
    CLEANUP_CLOSE int dir = -1;
    uint64_t size = 0, begun = 0;

    TRY(blockdev_size(device, &size));
    TRY(s->driver->mark_dir(s->cookie, dataset, /* create= */ true, &dir));
    TRY(growth_read(dir, &begun));
    if (!begun && head->bytes + head->block > size)
        return NULL;
    CLEANUP_ERR struct err *e = filesystem_grow(type, device, place);

    if (!e)
        return begun ? growth_forget(dir) : NULL;
    log_warning("dataset %s: the file system could not be made as large as its volume, ignoring: %s",
                UUID_STR(dataset), e->text);
    return growth_note(dir, head->bytes);
}

static struct err *wait_device_size(struct storage *s, const struct uuid *dataset, uint64_t size,
                                    char **ret_device)
{
    struct wait w = wait_for(DEVICE_GROWS_S);
    uint64_t is = 0;

    do {
        CLEANUP_FREE char *device = NULL;

        TRY(s->driver->device(s->cookie, dataset, &device));
        TRY(blockdev_size(device, &is));
        if (is >= size) {
            *ret_device = steal(&device);
            return NULL;
        }
        blockdev_rescan(device);
    } while (wait_more(&w));
    return err_new(ERR_TIMEOUT,
                   "the volume has grown to %" PRIu64 " bytes, but its device still has %" PRIu64
                   " after %d seconds",
                   size, is, DEVICE_GROWS_S);
}

struct err *place_grow(struct storage *s, const struct uuid *dataset, uint64_t size)
{
    CLEANUP_FREE char *place = place_path(s, dataset);
    CLEANUP_FREE char *device = NULL;
    CLEANUP_MOUNTS struct mount_table t = {0};
    CLEANUP_WHAT struct what w = {0};

    TRY(wait_device_size(s, dataset, size, &device));
    TRY(mount_table_read(&t));
    TRY(what_is(s, dataset, &t, &w));
    const struct mount_entry *m = mount_table_at(&t, place);

    if (!m || !mount_entry_is_exactly(m, &w.spot)) /* with the next mount */
        return err_new(ERR_CONFLICT, "the volume is not mounted at %s", place);
    return filesystem_grow(m->fstype, device, place);
}

struct err *place_forget(int dir)
{
    TRY(file_remove(dir, INTENT));
    return growth_forget(dir);
}

/* ---- its users ---- */

static struct usage_target target_of(const struct storage *s, const struct what *w,
                                     const char *place)
{
    struct usage_target u = {.spot = &w->spot, .files = w->files};

    if (!is_local(s)) {
        u.device = w->files;
    } else if (!s->driver->own_device) {
        u.path = w->path;
        u.path2 = place;
    }
    return u;
}

/* No mount in any namespace has it, and nobody a file of it: nobody else can write. */
static struct err *prove_unused(const struct storage *s, const struct what *w, const char *place)
{
    CLEANUP_FREE char *user = NULL;
    struct usage_target u = target_of(s, w, place);

    if (w->device) {
        struct err *e = blockdev_prove_free(w->device);

        if (!err_is(e, ERR_BUSY))
            return e;
        err_free(e);
    }
    TRY(usage_find(&u, &user));
    if (user)
        return err_new(ERR_BUSY, "in use elsewhere: %s", user);
    return w->device ? err_new(ERR_BUSY, "%s is held by something that cannot be seen", w->device)
                     : NULL;
}

/* ---- mounting ---- */

static struct err *make_place(const char *place)
{
    if (mkdir(place, 0700) < 0 && errno != EEXIST)
        return err_errno(errno, "cannot make the mount point %s", place);
    return NULL;
}

#define MOUNT_USED 1u /* although somebody still has it, as after an unmount that failed */

/* A file system that is mounted twice is one in memory: on a device that is in use as another volume, ours would be that one. */
static struct err *mount_device(struct storage *s, const struct uuid *dataset, const struct what *w,
                                const char *place, unsigned flags)
{
    CLEANUP_CLOSE int mnt = -1;
    CLEANUP_FREE char *type = NULL;
    struct filesystem_head head;

    TRY(ready_filesystem(s, dataset, w->device, &type));
    TRY(filesystem_head_read(w->device, &head));
    if (!(flags & MOUNT_USED))
        TRY(err_wrap(prove_unused(s, w, place), "not mounted"));
    TRY(mount_detached(type, w->device, s->mount_options, &mnt));
    TRY(filesystem_freshen(mnt));
    TRY(mount_attach(mnt, place));
    return fill_device(s, dataset, type, w->device, &head, place);
}

static struct err *mount_folder(struct storage *s, const struct uuid *dataset, const char *place)
{
    CLEANUP_CLOSE int fd = -1;

    TRY(s->driver->root(s->cookie, dataset, &fd));
    return mount_bind(fd, place);
}

static struct err *mount_it(struct storage *s, const struct uuid *dataset, unsigned flags)
{
    CLEANUP_FREE char *place = place_path(s, dataset);
    CLEANUP_MOUNTS struct mount_table t = {0};
    CLEANUP_WHAT struct what w = {0};

    TRY(mount_table_read(&t));
    TRY(what_is(s, dataset, &t, &w));
    const struct mount_entry *m = mount_table_at(&t, place);

    if (m && mount_entry_is_exactly(m, &w.spot))
        return NULL;
    if (m)
        return err_new(ERR_CONFLICT, "something else (%s, %s) is mounted at %s: unmount it",
                       m->source, m->root, place);
    TRY(make_place(place));
    struct err *e =
        is_local(s) ? mount_folder(s, dataset, place) : mount_device(s, dataset, &w, place, flags);

    if (e)
        (void)rmdir(place);
    return e;
}

struct err *place_mount(struct storage *s, const struct uuid *dataset)
{
    return mount_it(s, dataset, 0);
}

/* ---- unmounting ---- */

/* The reason why umount said "busy", as far as it can be seen; NULL: none is seen. */
static struct err *find_busy(const struct storage *s, const struct what *w, const char *place,
                             char **ret_reason)
{
    CLEANUP_MOUNTS struct mount_table t = {0};
    CLEANUP_FREE char *user = NULL;
    struct usage_target u = target_of(s, w, place);

    TRY(mount_table_read(&t));
    const struct mount_entry *below = mount_table_below(&t, place);

    *ret_reason =
        below ? xasprintf("%s is mounted below the volume: unmount it first", below->target) : NULL;
    if (below)
        return NULL;
    u.except = place;
    TRY(usage_find(&u, &user));
    if (user)
        *ret_reason = xasprintf("in use: %s", user);
    return NULL;
}

struct err *place_find_user(struct storage *s, const struct uuid *dataset, char **ret_user)
{
    CLEANUP_FREE char *place = place_path(s, dataset);
    CLEANUP_MOUNTS struct mount_table t = {0};
    CLEANUP_WHAT struct what w = {0};

    *ret_user = NULL;
    TRY(mount_table_read(&t));
    if (!mount_table_at(&t, place))
        return NULL;
    TRY(what_is(s, dataset, &t, &w));
    return find_busy(s, &w, place, ret_user);
}

/* Whoever only looks (a scan of /proc like ours, lsof, losetup) keeps a mount busy for a moment, or is taken for a user of it: that is waited for. */
static struct err *unmount_one(const struct storage *s, const struct what *w, const char *place)
{
    unsigned seen = 0;

    for (uint64_t waited = 0;; waited += SETTLE_STEP_US) {
        CLEANUP_FREE char *reason = NULL;
        int rc = mount_remove(place);

        if (rc != -EBUSY || !w->spot.root)
            return rc < 0 ? err_errno(-rc, "cannot unmount %s", place) : NULL;
        TRY(find_busy(s, w, place, &reason));
        seen = reason ? seen + 1 : 0;
        if (seen == USER_LOOKS)
            return err_new(ERR_BUSY, "%s", reason);
        if (waited >= SETTLE_US)
            return err_new(
                ERR_BUSY,
                "%s is in use, but no process is seen that uses it: a loop device, a swap "
                "file or an NFS export on it",
                place);
        (void)usleep(SETTLE_STEP_US);
    }
}

/* All mounts at the place are ours to remove: whatever is there hides, or is, the volume. */
static struct err *unmount_all(const struct storage *s, const struct what *w, const char *place,
                               bool *ret_was_mounted)
{
    for (int i = 0; i < MAX_STACKED; i++) {
        CLEANUP_MOUNTS struct mount_table t = {0};

        TRY(mount_table_read(&t));
        if (!mount_table_at(&t, place))
            return NULL;
        TRY(unmount_one(s, w, place));
        *ret_was_mounted = true;
    }
    return err_new(ERR_BUSY, "more than %d mounts are on top of each other at %s", MAX_STACKED,
                   place);
}

static struct err *unmount_and_prove(struct storage *s, const struct uuid *dataset,
                                     const struct what *w, const char *place)
{
    bool was_mounted = false;
    struct err *e = unmount_all(s, w, place, &was_mounted);

    if (!e && w->spot.root)
        e = prove_unused(s, w, place);
    if (e && was_mounted) {
        /* Whoever uses it keeps what he had. */
        struct err *again = mount_it(s, dataset, MOUNT_USED);

        if (again)
            e = err_wrap(e, "unmounted, and could not be mounted again (%s)", again->text);
        err_free(again);
    }
    if (e)
        return e;
    if (rmdir(place) < 0 && errno != ENOENT && errno != ENOTEMPTY && errno != EBUSY)
        return err_errno(errno, "cannot remove the mount point %s", place);
    return NULL;
}

struct err *place_unmount(struct storage *s, const struct volume_state *v)
{
    CLEANUP_FREE char *place = place_path(s, &v->dataset);
    CLEANUP_MOUNTS struct mount_table t = {0};
    CLEANUP_WHAT struct what w = {0};

    TRY(mount_table_read(&t));
    if (v->attached)
        TRY(what_is(s, &v->dataset, &t, &w));
    return unmount_and_prove(s, &v->dataset, &w, place);
}

void place_flush(const struct storage *s, const struct uuid *dataset)
{
    CLEANUP_FREE char *place = place_path(s, dataset);
    CLEANUP_CLOSE int fd = open(place, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0)
        (void)syncfs(fd);
}

struct err *place_clean(struct storage *s)
{
    CLEANUP_MOUNTS struct mount_table t = {0};
    CLEANUP_CLOSE int fd = open(s->mount_root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_DIR DIR *d = fd < 0 ? NULL : dir_stream(fd);
    const char *name;
    struct uuid id;

    if (!d)
        return err_errno(errno, "cannot read %s", s->mount_root);
    TRY(mount_table_read(&t));
    while ((name = dir_next(d))) {
        if (!uuid_parse(name, &id))
            continue;
        CLEANUP_FREE char *place = place_path(s, &id);

        if (mount_table_at(&t, place) || unlinkat(fd, name, AT_REMOVEDIR) == 0)
            continue;
        if (errno == ENOTEMPTY || errno == EEXIST)
            log_warning(
                "%s is not a mounted volume but holds files: somebody wrote there while the "
                "volume was away; they will be hidden by the volume",
                place);
    }
    return NULL;
}
