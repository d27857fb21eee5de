/* The pool: a folder on a mounted btrfs, or a file that we make, format, bind to a loop device and
 * mount. */
#include "drivers/btrfs/btrfs.h"

#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "drivers/durable.h"
#include "drivers/filesystem.h"
#include "drivers/loopdev.h"
#include "drivers/mounts.h"
#include "exec/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/btrfs.h>
#include <linux/magic.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define DEFAULT_SIZE (20ull << 30)
#define DEFAULT_FILE "pool.btrfs"
#define MOUNT_DIR "btrfs-pool" /* in state_dir */
#define RECORD "btrfs-pool.uuid"
#define MKFS_TIMEOUT_US (300 * (uint64_t)USEC_PER_SEC)

static struct err *fs_uuid(int fd, struct uuid *ret)
{
    struct btrfs_ioctl_fs_info_args a = {0};

    if (ioctl(fd, BTRFS_IOC_FS_INFO, &a) < 0)
        return btrfs_error(errno, "cannot identify the btrfs pool");
    memcpy(ret->b, a.fsid, sizeof(ret->b));
    return NULL;
}

/* ---- which pool it was: a disk that is not mounted must not be taken for a new, empty pool ----
 */

bool pool_record_parse(const char *text, const char *path, struct uuid *ret_uuid)
{
    char id[UUID_TEXT_SIZE];

    if (strlen(text) < UUID_TEXT_SIZE || text[UUID_TEXT_SIZE - 1] != ' ' ||
        !streq(text + UUID_TEXT_SIZE, path))
        return false;
    memcpy(id, text, UUID_TEXT_SIZE - 1);
    id[UUID_TEXT_SIZE - 1] = '\0';
    return uuid_parse(id, ret_uuid);
}

/* *ret_known false: no record of this path. */
static struct err *read_record(int state, const char *path, struct uuid *ret_uuid, bool *ret_known)
{
    CLEANUP_FREE char *text = NULL;

    *ret_known = false;
    TRY(file_read(state, RECORD, PATH_MAX + 64, &text));
    *ret_known = text && pool_record_parse(text, path, ret_uuid);
    return NULL;
}

static struct err *write_record(int state, const char *path, const struct uuid *uuid)
{
    CLEANUP_FREE char *text = xasprintf("%s %s", UUID_STR(uuid), path);

    return file_replace(state, RECORD, text, strlen(text));
}

static struct err *check_identity(int state, const char *path, int fd)
{
    struct uuid is, was;
    bool known;

    TRY(fs_uuid(fd, &is));
    TRY(read_record(state, path, &was, &known));
    if (known && uuid_eq(&is, &was))
        return NULL;
    if (known)
        return err_new(
            ERR_CONFLICT,
            "%s is another btrfs (%s) than the one with the datasets (%s): mount the right "
            "one, or remove %s from the agent's state folder to begin anew",
            path, UUID_STR(&is), UUID_STR(&was), RECORD);
    return write_record(state, path, &is);
}

/* ---- a pool in a file ---- */

/* Formats a file of another name and gives it the right one: the pool is there whole or not at all.
 */
static struct err *make_file(const char *path, uint64_t size)
{
    CLEANUP_FREE char *tmp = xasprintf("%s.new", path);
    CLEANUP_CLOSE int fd = open(tmp, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    const char *const argv[] = {"mkfs.btrfs", "-q", "-f", "-L", "flocker-pool", tmp, NULL};

    if (fd < 0)
        return err_errno(errno, "cannot make the pool file %s", tmp);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0)
        return err_new(ERR_BUSY, "the pool file %s is being made by another process", path);
    if (ftruncate(fd, 0) < 0 || ftruncate(fd, (off_t)size) < 0)
        return err_errno(errno, "cannot give the pool file %s its size", tmp);
    TRY(exec_run(
        &(struct exec_request){.argv = argv, .stdin_fd = fd, .timeout_us = MKFS_TIMEOUT_US}, NULL));
    if (fsync(fd) < 0 || rename(tmp, path) < 0)
        return err_errno(errno, "cannot put the pool file %s in its place", path);
    CLEANUP_FREE char *dir = xstrdup(path);

    strrchr(dir, '/')[1] = '\0';
    CLEANUP_CLOSE int parent = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return parent < 0 ? err_errno(errno, "cannot open %s", dir) : dir_sync(parent);
}

static struct err *ready_file(int state, const char *path, uint64_t size)
{
    CLEANUP_FREE char *type = NULL;
    struct stat st;
    struct uuid was;
    bool known, missing = stat(path, &st) < 0;

    if (missing && errno != ENOENT)
        return err_errno(errno, "cannot look at the pool %s", path);
    TRY(read_record(state, path, &was, &known));
    if (missing && known)
        return err_new(ERR_NOT_FOUND,
                       "the pool %s is missing; it holds btrfs %s: is its disk mounted? (Remove %s "
                       "from the agent's state folder to begin with an empty one.)",
                       path, UUID_STR(&was), RECORD);
    if (missing || st.st_size == 0)
        return make_file(path, size);
    TRY(filesystem_probe(path, &type));
    if (type && streq(type, "btrfs"))
        return NULL;
    return err_new(ERR_INVALID, "the pool %s holds %s, not btrfs: it is not formatted", path,
                   type ? type : "nothing that is known (only an empty file is formatted)");
}

static bool is_mounted_from(const struct mount_entry *m, int file)
{
    struct stat st;
    char *loop = NULL;

    if (!streq(m->fstype, "btrfs") || fstat(file, &st) < 0)
        return false;
    struct err *e = loopdev_find(st.st_dev, st.st_ino, &loop);
    bool same = !e && loop && streq(m->source, loop);

    err_free(e);
    free(loop);
    return same;
}

static struct err *bind_and_mount(const char *path, int file, const char *at)
{
    CLEANUP_FREE char *loop = NULL;
    CLEANUP_CLOSE int loop_fd = -1, mnt = -1;
    struct stat st;

    if (fstat(file, &st) < 0)
        return err_errno(errno, "cannot look at the pool %s", path);
    TRY(loopdev_find(st.st_dev, st.st_ino, &loop));
    if (!loop)
        TRY(loopdev_bind(file, path, /* autoclear= */ true, &loop, &loop_fd));
    TRY(mount_detached("btrfs", loop, NULL, &mnt));
    return mount_attach(mnt, at);
}

static struct err *mount_file(int state, const char *state_dir, const char *path, char **ret_at)
{
    CLEANUP_FREE char *at = xasprintf("%s/" MOUNT_DIR, state_dir);
    CLEANUP_MOUNTS struct mount_table t = {0};
    CLEANUP_CLOSE int file = open(path, O_RDWR | O_CLOEXEC), dir = -1;
    char real[PATH_MAX];

    if (file < 0)
        return err_errno(errno, "cannot open the pool %s", path);
    TRY(dir_open(state, MOUNT_DIR, /* create= */ true, 0700, &dir));
    if (!realpath(at, real))
        return err_errno(errno, "cannot use %s", at);
    TRY(mount_table_read(&t));
    const struct mount_entry *m = mount_table_at(&t, real);

    if (m && !is_mounted_from(m, file))
        return err_new(ERR_CONFLICT, "%s is mounted at %s, where the pool %s belongs: unmount it",
                       m->source, real, path);
    if (!m)
        TRY(bind_and_mount(path, file, real));
    *ret_at = xstrdup(real);
    return NULL;
}

/* ---- opening ---- */

static struct err *open_folder(const char *path, int *ret_fd)
{
    struct statfs fs;
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT)
        return err_new(ERR_NOT_FOUND, "the pool %s is missing: is its disk mounted?", path);
    if (fd < 0)
        return err_errno(errno, "cannot open the pool %s", path);
    if (fstatfs(fd, &fs) < 0)
        return err_errno(errno, "cannot look at the pool %s", path);
    if (fs.f_type != BTRFS_SUPER_MAGIC)
        return err_new(ERR_NOT_FOUND, "the pool %s is not on btrfs: is its disk mounted?", path);
    *ret_fd = steal_fd(&fd);
    return NULL;
}

/* A path that is or will be a file, rather than a folder. */
static bool wants_file(const char *path)
{
    struct stat st;
    size_t n = strlen(path);

    if (stat(path, &st) == 0)
        return S_ISREG(st.st_mode);
    return n && path[n - 1] != '/';
}

static unsigned stream_version(void)
{
    CLEANUP_CLOSE int dir = open("/sys/fs/btrfs/features", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_FREE char *text = NULL;

    if (dir < 0)
        return 1;
    struct err *e = file_read(dir, "send_stream_version", 64, &text);

    err_free(e);
    return text ? (unsigned)strtoul(text, NULL, 10) : 1;
}

static struct err *fill(struct pool *p, int folder)
{
    struct uuid id;

    TRY(fs_uuid(folder, &id));
    TRY(dir_open(folder, "flocker", /* create= */ true, 0700, &p->top));
    p->sysfs = xasprintf("/sys/fs/btrfs/%s", UUID_STR(&id));
    p->proto = stream_version();
    TRY(quota_enable(p));
    if (!p->quotas)
        log_warning(
            "the btrfs pool %s has no quotas (Linux 6.7 or newer has simple ones): datasets "
            "with maximum_size will be refused",
            p->path);
    return NULL;
}

static struct err *find_folder(const struct driver_config *config, const char *path, int state,
                               char **ret_folder)
{
    if (!wants_file(path)) {
        *ret_folder = xstrdup(path);
        return NULL;
    }
    TRY(ready_file(state, path, driver_option_size(config->options, "pool_size", DEFAULT_SIZE)));
    return mount_file(state, config->state_dir, path, ret_folder);
}

struct err *pool_open(const struct driver_config *config, struct pool **ret_pool)
{
    CLEANUP_FREE char *fallback = xasprintf("%s/" DEFAULT_FILE, config->state_dir);
    const char *path = driver_option_string(config->options, "pool", fallback);
    CLEANUP_CLOSE int state = -1, folder = -1;
    CLEANUP_FREE char *at = NULL;

    if (*path != '/')
        return err_new(ERR_INVALID, "pool must be an absolute path, not %s", path);
    TRY(dir_open(AT_FDCWD, config->state_dir, /* create= */ false, 0700, &state));
    if (state < 0)
        return err_new(ERR_NOT_FOUND, "the state folder %s is missing", config->state_dir);
    TRY(find_folder(config, path, state, &at));
    TRY(open_folder(at, &folder));
    TRY(check_identity(state, path, folder));
    struct pool *p = xcalloc(1, sizeof(*p));

    p->path = steal(&at);
    p->top = -1;
    struct err *e = fill(p, folder);

    if (e) {
        pool_close(p);
        return e;
    }
    *ret_pool = p;
    return NULL;
}

void pool_close(struct pool *p)
{
    mem_closep(&p->top);
    free(p->path);
    free(p->sysfs);
    free(p);
}

struct err *pool_dataset(const struct pool *p, const struct uuid *dataset, bool create, int *ret_fd)
{
    return dir_open(p->top, UUID_STR(dataset), create, 0700, ret_fd);
}
