/* The pool: finding it, what its programs can do, running them, and mounting what is in it. */
#include "drivers/zfs/zfs.h"

#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "drivers/durable.h"
#include "drivers/mounts.h"
#include "drivers/usage.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define DEFAULT_POOL "flocker"
#define RECORD "zfs-pool.guid" /* in state_dir */
#define PLACE "zfs"
#define LOCK "zfs.lock"
#define MARKS_ROOM "reservation=8M" /* a release must be noted even when the pool is full */
#define TIMEOUT_US (300 * (uint64_t)USEC_PER_SEC)
#define PATIENCE_US (3 * (uint64_t)USEC_PER_SEC)
#define STEP_US 20000u
#define EARLIER_S 60 /* so long may programs of a killed agent run on */
#define OUTPUT_MAX (256u << 20) /* a listing: some hundred bytes a snapshot */

/* ---- running ---- */

/* Every program has this locked as its standard input: the lock outlives a killed agent, and the next one waits for it. It is
 * shared, except with zfs-fuse: that tells its own listener of a new mount in two writes to a pipe, and when those of two mounts
 * mix it answers nobody any more (0.7.0). */
static struct err *lock_program(const struct zfs_pool *p, int *ret_fd)
{
    CLEANUP_CLOSE int fd = open(p->lock, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0 || flock(fd, p->can.parallel ? LOCK_SH : LOCK_EX) < 0)
        return err_errno(errno, "cannot lock %s", p->lock);
    *ret_fd = steal_fd(&fd);
    return NULL;
}

static struct err *wait_for_earlier(const struct zfs_pool *p)
{
    CLEANUP_CLOSE int fd = open(p->lock, O_RDONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

    if (fd < 0)
        return err_errno(errno, "cannot open %s", p->lock);
    for (uint64_t waited = 0; flock(fd, LOCK_EX | LOCK_NB) < 0; waited += STEP_US) {
        if (errno != EWOULDBLOCK)
            return err_errno(errno, "cannot lock %s", p->lock);
        if (waited > EARLIER_S * (uint64_t)USEC_PER_SEC)
            return err_new(ERR_BUSY, "a zfs command that an earlier agent began has not ended yet: see 'ps ax'");
        (void)usleep(STEP_US);
    }
    return NULL;
}

static struct err *why(const char *const *argv, const struct exec_result *r)
{
    enum err_code code = zfs_error_code(r->err_text);
    CLEANUP_FREE char *words = xstrdup(r->err_text);

    for (char *c = words; *c; c++) {
        if (*c == '\n')
            *c = c[1] ? ' ' : '\0';
    }
    if (code == ERR_UNAVAILABLE)
        return err_new(code, "ZFS does not run on this machine (%s): load the kernel module (modprobe zfs) or start zfs-fuse",
                       words);
    return err_new(code, "%s %s: %s", argv[0], argv[1] ? argv[1] : "", words);
}

/* Somebody uses it for a moment. zfs-fuse calls it an I/O error while an unmount still goes on. */
static bool may_pass(const char *text)
{
    return zfs_error_code(text) == ERR_BUSY || strstr(text, "I/O error");
}

static struct err *run_once(const struct zfs_pool *p, const char *const *argv, struct exec_result *ret, bool *ret_passes)
{
    CLEANUP_CLOSE int lock = -1;
    CLEANUP_EXEC struct exec_result r = {0};

    TRY(lock_program(p, &lock));
    struct err *e = exec_run(&(struct exec_request){.argv = argv,
                                                    .stdin_fd = lock,
                                                    .timeout_us = TIMEOUT_US,
                                                    .output_max = OUTPUT_MAX,
                                                    .any_exit = true},
                             &r);

    if (err_is(e, ERR_UNAVAILABLE))
        return err_wrap(e, "the backend zfs needs the programs zfs and zpool (Debian: zfsutils-linux, or zfs-fuse)");
    TRY(e);
    *ret_passes = r.status && may_pass(r.err_text);
    if (r.status)
        return why(argv, &r);
    if (r.truncated)
        return err_new(ERR_INTERNAL, "%s %s printed more than can be read", argv[0], argv[1]);
    if (ret) {
        *ret = r;
        r = (struct exec_result){0};
    }
    return NULL;
}

struct err *zfs_run(const struct zfs_pool *p, const char *const *argv, struct exec_result *ret)
{
    uint64_t end = now_os().mono_us + PATIENCE_US;

    for (;;) {
        bool passes = false;
        struct err *e = run_once(p, argv, ret, &passes);

        if (!passes || now_os().mono_us > end)
            return e;
        err_free(e);
        (void)usleep(STEP_US);
    }
}

struct err *zfs_set(const struct zfs_pool *p, const char *fs, const char *const *pairs)
{
    const char *argv[16] = {"zfs", "set"};
    size_t n = 2;

    if (!p->can.set_many) {
        for (; *pairs; pairs++)
            TRY(zfs_run(p, ZFS("set", *pairs, fs), NULL));
        return NULL;
    }
    for (; *pairs && n < ARRAY_SIZE(argv) - 2; pairs++)
        argv[n++] = *pairs;
    argv[n] = fs;
    return zfs_run(p, argv, NULL);
}

char *zfs_name(const struct zfs_pool *p, const struct uuid *dataset)
{
    return xasprintf("%s/%s", p->top, UUID_STR(dataset));
}

char *zfs_incoming(const struct zfs_pool *p, const struct uuid *dataset)
{
    return xasprintf("%s/%s" ZFS_INCOMING, p->top, UUID_STR(dataset));
}

/* ---- looking ---- */

static struct err *look(const struct zfs_pool *p, const char *what, struct zfs_listing *ret)
{
    static const char with[] = "guid,refquota,userrefs," ZFS_ROLE "," ZFS_OURS ",receive_resume_token",
                      without[] = "guid,refquota,userrefs," ZFS_ROLE "," ZFS_OURS;
    CLEANUP_EXEC struct exec_result r = {0};

    TRY(zfs_run(p, ZFS("get", "-Hp", "-r", "-o", "name,property,value", p->can.resume ? with : without, what), &r));
    zfs_listing_parse(r.out, ret);
    return NULL;
}

struct err *zfs_look_all(const struct zfs_pool *p, struct zfs_listing *ret_listing)
{
    return look(p, p->top, ret_listing);
}

/* The file system alone is asked for: that costs the same however many there are. Only when it is missing, or when a note
 * says that a receive may have left something beside it, everything is. */
struct err *zfs_look(const struct zfs_pool *p, const struct uuid *dataset, struct zfs_listing *ret_listing)
{
    CLEANUP_FREE char *fs = zfs_name(p, dataset), *note = xasprintf("%s/incoming", UUID_STR(dataset));

    if (faccessat(p->marks, note, F_OK, AT_SYMLINK_NOFOLLOW) < 0) {
        struct err *e = look(p, fs, ret_listing);

        if (!err_is(e, ERR_NOT_FOUND))
            return e;
        err_free(e);
    }
    return zfs_look_all(p, ret_listing);
}

/* ---- mounts ---- */

static char *own_place(const struct zfs_pool *p, const struct uuid *dataset)
{
    return xasprintf("%s/%s", p->dir, UUID_STR(dataset));
}

/* A mount of this folder of the file system, where it can be reached; NULL: there is none. */
static const struct mount_entry *find_mount(const struct mount_table *t, const char *fs, const char *root)
{
    for (size_t i = t->n; i > 0; i--) {
        const struct mount_entry *m = &t->entries[i - 1];

        if (streq(m->source, fs) && streq(m->root, root) && mount_table_at(t, m->target) == m)
            return m;
    }
    return NULL;
}

static struct err *open_folder(const char *path, int flags, int *ret_fd)
{
    int fd = open(path, flags | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return err_errno(errno, "cannot open %s", path);
    *ret_fd = fd;
    return NULL;
}

/* true when the file system is mounted at the driver's place. */
static struct err *is_mounted(const char *fs, const char *place, bool *ret)
{
    CLEANUP_MOUNTS struct mount_table t = {0};

    TRY(mount_table_read(&t));
    const struct mount_entry *m = mount_table_at(&t, place);

    *ret = m && streq(m->source, fs);
    if (m && !*ret)
        return err_new(ERR_CONFLICT, "%s is mounted at %s, where %s belongs: unmount it", m->source, place, fs);
    return NULL;
}

static struct err *ensure_mounted(const struct zfs_pool *p, const char *fs, const char *place)
{
    bool mounted;

    TRY(is_mounted(fs, place, &mounted));
    if (mounted)
        return NULL;
    struct err *e = zfs_run(p, ZFS("mount", fs), NULL), *looked = NULL;

    /* Another thread that only looks may have been faster. */
    if (e)
        looked = is_mounted(fs, place, &mounted);
    err_free(looked);
    if (e && !mounted)
        return e;
    err_free(e);
    return NULL;
}

struct err *zfs_mount_at(const struct zfs_pool *p, const char *fs, const char *place, int *ret_fd)
{
    TRY(ensure_mounted(p, fs, place));
    return open_folder(place, O_RDONLY, ret_fd);
}

struct err *zfs_mount(const struct zfs_pool *p, const struct uuid *dataset, int *ret_fd)
{
    CLEANUP_FREE char *fs = zfs_name(p, dataset), *place = own_place(p, dataset);

    return zfs_mount_at(p, fs, place, ret_fd);
}

struct err *zfs_open_data(const struct zfs_pool *p, const struct uuid *dataset, int *ret_fd)
{
    CLEANUP_FREE char *fs = zfs_name(p, dataset), *place = own_place(p, dataset);
    CLEANUP_MOUNTS struct mount_table t = {0};

    TRY(mount_table_read(&t));
    const struct mount_entry *whole = find_mount(&t, fs, "/"), *data = find_mount(&t, fs, "/" ZFS_DATA);

    if (!whole && data) /* somebody unmounted ours; zfs would say that it is mounted already */
        return open_folder(data->target, O_PATH, ret_fd);
    if (!whole)
        TRY(ensure_mounted(p, fs, place));
    CLEANUP_FREE char *path = xasprintf("%s/" ZFS_DATA, whole ? whole->target : place);

    return open_folder(path, O_PATH, ret_fd);
}

/* Who keeps it busy, as far as it can be seen. */
static struct err *busy(const char *fs, dev_t files)
{
    CLEANUP_FREE char *user = NULL;

    TRY(usage_find(&(struct usage_target){.files = files}, &user));
    return err_new(ERR_BUSY, "%s is in use: %s", fs, user ? user : "no process is seen that uses it");
}

/* FUSE tells its daemon later that a file was closed, and not at all when it is unmounted at once: then zfs-fuse takes the file for
 * open, tries to end the mount for ever, and answers nobody meanwhile. An answer to this comes after what was said before. */
static void let_closes_arrive(const char *place)
{
    struct statvfs st;

    (void)statvfs(place, &st);
}

struct err *zfs_unmount_at(const char *fs, const char *place)
{
    uint64_t end = now_os().mono_us + PATIENCE_US / 10;
    bool mounted;
    struct stat st;

    TRY(is_mounted(fs, place, &mounted));
    /* By the kernel's call: by name `zfs unmount` may take the user's mount. */
    while (mounted) {
        int known = stat(place, &st);
        let_closes_arrive(place);
        int rc = mount_remove(place);

        if (rc < 0 && rc != -EBUSY)
            return err_errno(-rc, "cannot unmount %s", place);
        if (rc < 0 && now_os().mono_us > end)
            return busy(fs, known < 0 ? 0 : st.st_dev);
        if (rc < 0)
            (void)usleep(STEP_US);
        TRY(is_mounted(fs, place, &mounted));
    }
    if (rmdir(place) < 0 && errno != ENOENT)
        return err_errno(errno, "cannot remove the empty folder %s", place);
    return NULL;
}

struct err *zfs_unmount(const struct zfs_pool *p, const struct uuid *dataset)
{
    CLEANUP_FREE char *fs = zfs_name(p, dataset), *place = own_place(p, dataset);

    return zfs_unmount_at(fs, place);
}

struct err *zfs_flush(const struct zfs_pool *p, const struct uuid *dataset)
{
    CLEANUP_FREE char *fs = zfs_name(p, dataset), *place = own_place(p, dataset);
    CLEANUP_CLOSE int fd = -1;
    bool mounted;

    TRY(is_mounted(fs, place, &mounted));
    if (!mounted)
        return NULL;
    TRY(open_folder(place, O_RDONLY, &fd));
    return syncfs(fd) < 0 ? err_errno(errno, "cannot write what %s has in memory", fs) : NULL;
}

/* ---- destroying ---- */

struct err *zfs_destroy_snapshot(const struct zfs_pool *p, const char *fs, const char *name)
{
    CLEANUP_FREE char *full = xasprintf("%s@%s", fs, name);

    /* A received one is not marked as ours. Without hold and mark nobody would know it for a leftover, if we were killed here. */
    err_free(zfs_run(p, ZFS("set", ZFS_OURS "=1", full), NULL));
    /* Not held by us, or not there: both are as wanted. */
    err_free(zfs_run(p, ZFS("release", ZFS_TAG, full), NULL));
    struct err *e = zfs_run(p, ZFS("destroy", full), NULL);

    if (err_is(e, ERR_NOT_FOUND))
        return err_free(e);
    if (err_is(e, ERR_BUSY))
        return err_wrap(e, "snapshot %s is held, cloned or being sent by somebody else (zfs get userrefs,clones)", full);
    return e;
}

struct err *zfs_destroy_fs(const struct zfs_pool *p, const struct zfs_fs *f)
{
    if (f->token)
        err_free(zfs_run(p, ZFS("receive", "-A", f->name), NULL));
    for (size_t i = 0; i < f->n_snapshots; i++) {
        CLEANUP_FREE char *full = xasprintf("%s@%s", f->name, f->snapshots[i].name);

        if (f->snapshots[i].held)
            err_free(zfs_run(p, ZFS("release", ZFS_TAG, full), NULL));
    }
    struct err *e = zfs_run(p, ZFS("destroy", "-r", f->name), NULL);

    if (err_is(e, ERR_NOT_FOUND))
        return err_free(e);
    if (err_is(e, ERR_BUSY))
        return err_wrap(e, "%s is mounted elsewhere, or a snapshot of it is held, cloned or being sent", f->name);
    return e;
}

/* ---- opening ---- */

/* A pool that was made anew must not be taken for the one with the datasets. */
static struct err *check_identity(const struct driver_config *config, const char *pool, uint64_t guid)
{
    CLEANUP_CLOSE int state = -1;
    CLEANUP_FREE char *text = NULL;
    CLEANUP_FREE char *record = xasprintf("%llu %s", (unsigned long long)guid, pool);
    uint64_t was;

    TRY(dir_open(AT_FDCWD, config->state_dir, /* create= */ false, 0700, &state));
    if (state < 0)
        return err_new(ERR_NOT_FOUND, "the state folder %s is missing", config->state_dir);
    TRY(file_read(state, RECORD, PATH_MAX, &text));
    if (!text || !zfs_record_parse(text, pool, &was))
        return file_replace(state, RECORD, record, strlen(record));
    if (was == guid)
        return NULL;
    return err_new(ERR_CONFLICT,
                   "the ZFS pool %s is another one (guid %llu) than the one with the datasets (%llu): import the right "
                   "one, or remove %s from the agent's state folder to begin anew",
                   pool, (unsigned long long)guid, (unsigned long long)was, RECORD);
}

static struct err *find_pool(const struct zfs_pool *p, const struct driver_config *config)
{
    CLEANUP_EXEC struct exec_result r = {0};
    char health[32];
    uint64_t guid;
    struct err *e =
        zfs_run(p, (const char *const[]){"zpool", "list", "-H", "-o", "guid,health", p->name, NULL}, &r);

    if (err_is(e, ERR_NOT_FOUND)) {
        err_free(e);
        return err_new(ERR_NOT_FOUND,
                       "there is no ZFS pool %s here: import it (zpool import %s), or make it (zpool create %s DEVICE)",
                       p->name, p->name, p->name);
    }
    TRY(e);
    if (!zfs_pool_line_parse(r.out, &guid, health))
        return err_new(ERR_IO, "zpool said about the pool %s what is not understood: %s", p->name, r.out);
    if (!streq(health, "ONLINE") && !streq(health, "DEGRADED"))
        return err_new(ERR_UNAVAILABLE, "the ZFS pool %s is %s: see 'zpool status %s'", p->name, health, p->name);
    return check_identity(config, p->name, guid);
}

/* The programs themselves say what they can; an old pool may still lack what the program knows. */
static struct err *find_abilities(struct zfs_pool *p)
{
    CLEANUP_EXEC struct exec_result r = {0}, feature = {0};

    TRY(exec_run(&(struct exec_request){.argv = (const char *const[]){"zfs", NULL},
                                        .timeout_us = TIMEOUT_US,
                                        .any_exit = true},
                 &r));
    zfs_usage_parse(*r.out ? r.out : r.err_text, &p->can);
    if (!p->can.resume)
        return NULL;
    TRY(exec_run(&(struct exec_request){.argv = (const char *const[]){"zpool", "get", "-H", "-o", "value",
                                                                      "feature@extensible_dataset", p->name, NULL},
                                        .timeout_us = TIMEOUT_US,
                                        .any_exit = true},
                 &feature));
    p->can.resume = str_has_prefix(feature.out, "enabled") || str_has_prefix(feature.out, "active");
    return NULL;
}

static struct err *get(const struct zfs_pool *p, const char *property, const char *fs, char **ret_value)
{
    CLEANUP_EXEC struct exec_result r = {0};

    TRY(zfs_run(p, ZFS("get", "-Hp", "-o", "value", property, fs), &r));
    r.out[strcspn(r.out, "\n")] = '\0';
    *ret_value = steal(&r.out);
    return NULL;
}

static struct err *make_fs(const struct zfs_pool *p, const char *fs, const char *a, const char *b, const char *c)
{
    struct err *e = zfs_run(p, ZFS("create", "-o", a, "-o", b, "-o", c, fs), NULL);

    return err_wrap(e, "cannot make %s for the datasets", fs);
}

/* Where the pool was used before, the state folder may have been another. */
static struct err *ready_top(const struct zfs_pool *p)
{
    CLEANUP_FREE char *mountpoint = xasprintf("mountpoint=%s", p->dir), *is = NULL;
    struct err *e = get(p, "mountpoint", p->top, &is);

    if (err_is(e, ERR_NOT_FOUND)) {
        err_free(e);
        return make_fs(p, p->top, mountpoint, "canmount=off", "readonly=on");
    }
    TRY(e);
    return streq(is, p->dir) ? NULL : zfs_run(p, ZFS("set", mountpoint, p->top), NULL);
}

static struct err *ready_marks(struct zfs_pool *p)
{
    CLEANUP_FREE char *fs = xasprintf("%s/marks", p->top), *place = xasprintf("%s/marks", p->dir), *guid = NULL;
    struct err *e = get(p, "guid", fs, &guid);

    if (err_is(e, ERR_NOT_FOUND)) {
        err_free(e);
        e = make_fs(p, fs, "canmount=noauto", "readonly=off", MARKS_ROOM);
    }
    TRY(e);
    return zfs_mount_at(p, fs, place, &p->marks);
}

/* Folders in which a killed agent had mounted something. */
static void remove_empty_places(const struct zfs_pool *p)
{
    CLEANUP_CLOSE int fd = open(p->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_DIR DIR *d = fd < 0 ? NULL : dir_stream(fd);
    const char *name;
    struct uuid id;

    while (d && (name = dir_next(d))) {
        CLEANUP_FREE char *dataset = xstrndup(name, strcspn(name, ".")); /* a view has "." behind it */

        if (uuid_parse(dataset, &id))
            (void)unlinkat(fd, name, AT_REMOVEDIR);
    }
}

static struct err *fill(struct zfs_pool *p, const struct driver_config *config)
{
    CLEANUP_CLOSE int dir = -1;
    char real[PATH_MAX];

    TRY(wait_for_earlier(p));
    TRY(find_pool(p, config));
    TRY(find_abilities(p));
    TRY(dir_open(AT_FDCWD, p->dir, /* create= */ true, 0700, &dir));
    if (!realpath(p->dir, real)) /* as it stands in the mount table */
        return err_errno(errno, "cannot use %s", p->dir);
    free(p->dir);
    p->dir = xstrdup(real);
    TRY(ready_top(p));
    TRY(ready_marks(p));
    remove_empty_places(p);
    return NULL;
}

struct err *zfs_pool_open(const struct driver_config *config, struct zfs_pool **ret_pool)
{
    const char *name = driver_option_string(config->options, "pool", DEFAULT_POOL);

    if (!zfs_pool_name_is_valid(name))
        return err_new(ERR_INVALID, "'%s' cannot be the name of a ZFS pool", name);
    struct zfs_pool *p = xcalloc(1, sizeof(*p));

    p->name = xstrdup(name);
    p->top = xasprintf("%s/flocker", name);
    p->dir = xasprintf("%s/" PLACE, config->state_dir);
    p->lock = xasprintf("%s/" LOCK, config->state_dir);
    p->marks = -1;
    struct err *e = fill(p, config);

    if (e) {
        zfs_pool_close(p);
        return e;
    }
    *ret_pool = p;
    return NULL;
}

void zfs_pool_close(struct zfs_pool *p)
{
    mem_closep(&p->marks);
    free(p->name);
    free(p->top);
    free(p->dir);
    free(p->lock);
    free(p);
}
