#include "drivers/btrfs/apply.h"

#include "base/str.h"
#include "drivers/btrfs/btrfs.h"
#include "drivers/btrfs/decompress.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/btrfs.h>
#include <linux/fs.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/xattr.h>
#include <unistd.h>

#define FOLDERS 8 /* kept open; commands come folder by folder */
#define SHOWN 200 /* bytes of a path in an error */
#define WITHIN (RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_XDEV)
#define FILE_FLAGS (O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC)

/* Something kept open, by its path below `root`. */
struct kept {
    char *path; /* NULL = nothing */
    int root;
    int fd;
    uint64_t used;
};

struct applier {
    struct apply_target target;
    struct kept folders[FOLDERS];
    struct kept written; /* the file made or written last, for reading and writing */
    struct kept source;  /* the file cloned from last, for reading */
    uint64_t clock;
    int errnum;     /* why the last command failed */
    uint8_t *plain; /* SEND_UNENCODED_MAX bytes, once they are needed */
};

/* ---- errors ---- */

/* A path of another host, fit for a sentence. */
static char *shown(const char *path)
{
    size_t n = strlen(path);
    char *text = xstrndup(path, n < SHOWN ? n : SHOWN);

    for (char *p = text; *p; p++) {
        if (*p < ' ' || *p > '~')
            *p = '?';
    }
    return text;
}

static struct err *failed(struct applier *a, int errnum, const struct send_command *c)
{
    CLEANUP_FREE char *path = shown(c->path);

    a->errnum = errnum;
    switch (errnum) {
    case ENOSPC:
    case EDQUOT:
    case EROFS:
    case EIO:
    case ENOMEM:
    case EMFILE:
    case ENFILE:
        return btrfs_error(errnum, "cannot apply %s of '%s'", send_type_name(c->type), path);
    case ELOOP:
    case EXDEV:
        return err_new(ERR_CORRUPT, "the btrfs stream does not fit what is here: %s of '%s' would leave the volume",
                       send_type_name(c->type), path);
    default:
        return err_new(ERR_CORRUPT, "the btrfs stream does not fit what is here: %s of '%s': %s", send_type_name(c->type),
                       path, strerrordesc_np(errnum));
    }
}

/* The result of a system call that is 0 or -1. */
static struct err *result(struct applier *a, int rc, const struct send_command *c)
{
    return rc < 0 ? failed(a, errno, c) : NULL;
}

/* ---- what is kept open ---- */

static void forget(struct kept *k)
{
    if (!k->path)
        return;
    free(steal(&k->path));
    close(k->fd);
}

static void keep(struct kept *k, int root, const char *path, int fd)
{
    forget(k);
    *k = (struct kept){.path = xstrdup(path), .root = root, .fd = fd};
}

static bool is_at(const struct kept *k, int root, const char *path, size_t n)
{
    return k->path && k->root == root && !strncmp(k->path, path, n) && !k->path[n];
}

static bool is_at_or_below(const struct kept *k, int root, const char *path)
{
    size_t n = strlen(path);

    return k->path && k->root == root && !strncmp(k->path, path, n) && (!k->path[n] || k->path[n] == '/');
}

/* The path, and all below it, is about to mean something else. */
static void forget_path(struct applier *a, const char *path)
{
    for (size_t i = 0; i < FOLDERS; i++) {
        if (is_at_or_below(&a->folders[i], a->target.root, path))
            forget(&a->folders[i]);
    }
    if (is_at_or_below(&a->written, a->target.root, path))
        forget(&a->written);
    if (is_at_or_below(&a->source, a->target.root, path))
        forget(&a->source);
}

struct applier *applier_new(const struct apply_target *target)
{
    struct applier *a = xcalloc(1, sizeof(*a));

    a->target = *target;
    return a;
}

struct applier *applier_free(struct applier *a)
{
    if (!a)
        return NULL;
    for (size_t i = 0; i < FOLDERS; i++)
        forget(&a->folders[i]);
    forget(&a->written);
    forget(&a->source);
    free(a->plain);
    free(a);
    return NULL;
}

/* ---- paths ---- */

static int open_within(int dir, const char *path, uint64_t flags)
{
    struct open_how how = {.flags = flags, .mode = flags & O_CREAT ? 0600 : 0, .resolve = WITHIN};

    return (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));
}

/* An open folder and a name in it: no call with these follows a link, when told not to follow the last part. */
struct place {
    int dir;
    const char *name;
};

/* At most one other place is in use: a folder used last is not the one that is closed. */
static int find_folder(struct applier *a, int root, const char *path, size_t n)
{
    char text[SEND_PATH_MAX + 1];
    struct kept *oldest = &a->folders[0];

    for (size_t i = 0; i < FOLDERS; i++) {
        struct kept *k = &a->folders[i];

        if (is_at(k, root, path, n)) {
            k->used = ++a->clock;
            return k->fd;
        }
        if (!k->path || (oldest->path && k->used < oldest->used))
            oldest = k;
    }
    memcpy(text, path, n);
    text[n] = '\0';
    int fd = open_within(root, text, O_PATH | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0) {
        keep(oldest, root, text, fd);
        oldest->used = ++a->clock;
    }
    return fd;
}

static bool find_place(struct applier *a, int root, const char *path, struct place *ret)
{
    const char *slash = strrchr(path, '/');

    *ret = (struct place){root, slash ? slash + 1 : *path ? path : "."};
    if (slash)
        ret->dir = find_folder(a, root, path, (size_t)(slash - path));
    return ret->dir >= 0;
}

/* Only what is a regular file is opened: opening a device would reach beyond the volume. Nobody exchanges it in between. */
static int open_file(struct applier *a, int root, const char *path, int flags)
{
    struct place at;
    struct stat st;

    if (!find_place(a, root, path, &at) || fstatat(at.dir, at.name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    if (!S_ISREG(st.st_mode)) {
        errno = S_ISDIR(st.st_mode) ? EISDIR : S_ISLNK(st.st_mode) ? ELOOP : EINVAL;
        return -1;
    }
    return open_within(at.dir, at.name, (uint64_t)(flags | FILE_FLAGS));
}

/* The file, if it is the one that is open already; else -1. */
static int written_fd(const struct applier *a, const char *path)
{
    return is_at(&a->written, a->target.root, path, strlen(path)) ? a->written.fd : -1;
}

static struct err *open_written(struct applier *a, const struct send_command *c, int *ret_fd)
{
    int fd = written_fd(a, c->path);

    if (fd < 0) {
        fd = open_file(a, a->target.root, c->path, O_RDWR);
        if (fd < 0)
            return failed(a, errno, c);
        keep(&a->written, a->target.root, c->path, fd);
    }
    *ret_fd = fd;
    return NULL;
}

/* ---- making and removing ---- */

static struct err *make_file(struct applier *a, const struct send_command *c)
{
    struct place at;

    if (!find_place(a, a->target.root, c->path, &at))
        return failed(a, errno, c);
    int fd = open_within(at.dir, at.name, O_RDWR | O_CREAT | O_EXCL | FILE_FLAGS);

    if (fd < 0)
        return failed(a, errno, c);
    keep(&a->written, a->target.root, c->path, fd);
    return NULL;
}

/* Modes come later with a command of their own; until then it is for root only. */
static struct err *make_other(struct applier *a, const struct send_command *c)
{
    struct place at;

    if (!find_place(a, a->target.root, c->path, &at))
        return failed(a, errno, c);
    switch (c->type) {
    case SEND_MKDIR:
        return result(a, mkdirat(at.dir, at.name, 0700), c);
    case SEND_MKNOD:
        return result(a, mknodat(at.dir, at.name, (c->mode & S_IFMT) | 0600, c->rdev), c);
    case SEND_MKFIFO:
        return result(a, mknodat(at.dir, at.name, S_IFIFO | 0600, 0), c);
    case SEND_MKSOCK:
        return result(a, mknodat(at.dir, at.name, S_IFSOCK | 0600, 0), c);
    default:
        return result(a, symlinkat(c->path_link, at.dir, at.name), c);
    }
}

static struct err *move(struct applier *a, const struct send_command *c)
{
    struct place from, to;

    if (!find_place(a, a->target.root, c->path, &from) || !find_place(a, a->target.root, c->path_to, &to) ||
        renameat(from.dir, from.name, to.dir, to.name) < 0)
        return failed(a, errno, c);
    /* A new file is made under one name, renamed and written: it stays open. */
    bool same = written_fd(a, c->path) >= 0;
    struct kept file = same ? a->written : (struct kept){0};

    if (same)
        a->written.path = NULL;
    forget_path(a, c->path);
    forget_path(a, c->path_to);
    if (same) {
        free(file.path);
        keep(&a->written, a->target.root, c->path_to, file.fd);
    }
    return NULL;
}

static struct err *make_link(struct applier *a, const struct send_command *c)
{
    struct place old, new;

    if (!find_place(a, a->target.root, c->path_link, &old) || !find_place(a, a->target.root, c->path, &new))
        return failed(a, errno, c);
    return result(a, linkat(old.dir, old.name, new.dir, new.name, 0), c);
}

static struct err *remove_it(struct applier *a, const struct send_command *c)
{
    struct place at;

    if (!find_place(a, a->target.root, c->path, &at))
        return failed(a, errno, c);
    if (unlinkat(at.dir, at.name, c->type == SEND_RMDIR ? AT_REMOVEDIR : 0) < 0)
        return failed(a, errno, c);
    forget_path(a, c->path);
    return NULL;
}

/* ---- content ---- */

static struct err *write_bytes(struct applier *a, int fd, const uint8_t *p, size_t n, uint64_t offset,
                               const struct send_command *c)
{
    while (n) {
        ssize_t w = pwrite(fd, p, n, (off_t)offset);

        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return failed(a, errno, c);
        p += w;
        n -= (size_t)w;
        offset += (uint64_t)w;
    }
    return NULL;
}

static struct err *write_plain(struct applier *a, const struct send_command *c)
{
    int fd;

    TRY(open_written(a, c, &fd));
    return write_bytes(a, fd, c->data, c->n_data, c->offset, c);
}

/* As they are, so that they stay compressed and nobody computes. */
static int write_as_is(int fd, const struct send_command *c)
{
    struct iovec data = {.iov_base = (void *)(uintptr_t)c->data, .iov_len = c->n_data};
    struct btrfs_ioctl_encoded_io_args args = {.iov = &data,
                                               .iovcnt = 1,
                                               .offset = (int64_t)c->offset,
                                               .len = c->unencoded_file_length,
                                               .unencoded_len = c->unencoded_length,
                                               .unencoded_offset = c->unencoded_offset,
                                               .compression = c->compression};

    return ioctl(fd, BTRFS_IOC_ENCODED_WRITE, &args) < 0 ? -errno : 0;
}

static struct err *write_encoded(struct applier *a, const struct send_command *c)
{
    int fd;

    TRY(open_written(a, c, &fd));
    if (c->compression == BTRFS_ENCODED_IO_COMPRESSION_NONE)
        return write_bytes(a, fd, c->data + c->unencoded_offset, c->unencoded_file_length, c->offset, c);
    int rc = write_as_is(fd, c);

    /* An old kernel, another sector size, a file that must not be compressed; or no room for a whole extent. */
    if (rc && rc != -ENOTTY && rc != -EINVAL && rc != -EOPNOTSUPP && rc != -ENOSPC)
        return failed(a, -rc, c);
    if (!rc)
        return NULL;
    if (!a->plain)
        a->plain = xmalloc(SEND_UNENCODED_MAX);
    TRY(decompress(c->compression, c->data, c->n_data, a->plain, c->unencoded_length));
    return write_bytes(a, fd, a->plain + c->unencoded_offset, c->unencoded_file_length, c->offset, c);
}

static struct err *open_source(struct applier *a, const struct send_command *c, int *ret_fd)
{
    int root = -1;

    if (uuid_eq(&c->clone_uuid, &a->target.identity))
        root = a->target.root;
    else if (a->target.base >= 0 && uuid_eq(&c->clone_uuid, &a->target.base_identity))
        root = a->target.base;
    else
        return err_new(ERR_CORRUPT, "the btrfs stream clones from subvolume %s, which is neither it nor its base",
                       UUID_STR(&c->clone_uuid));
    if (!is_at(&a->source, root, c->clone_path, strlen(c->clone_path))) {
        int fd = open_file(a, root, c->clone_path, O_RDONLY);

        if (fd < 0)
            return failed(a, errno, c);
        keep(&a->source, root, c->clone_path, fd);
    }
    *ret_fd = a->source.fd;
    return NULL;
}

static struct err *clone_range(struct applier *a, const struct send_command *c)
{
    struct file_clone_range range = {
        .src_offset = c->clone_offset, .src_length = c->clone_length, .dest_offset = c->offset};
    int from = -1, to = -1;

    TRY(open_source(a, c, &from));
    TRY(open_written(a, c, &to));
    range.src_fd = from;
    return result(a, ioctl(to, FICLONERANGE, &range), c);
}

static struct err *set_length(struct applier *a, const struct send_command *c)
{
    int fd;

    TRY(open_written(a, c, &fd));
    if (c->type == SEND_TRUNCATE)
        return result(a, ftruncate(fd, (off_t)c->size), c);
    return result(a, fallocate(fd, (int)c->fallocate_mode, (off_t)c->offset, (off_t)c->size), c);
}

/* ---- attributes ---- */

/* There is no chmod that does not follow links in all kernels; a link has no mode. */
static int chmod_at(const struct place *at, uint32_t mode)
{
    struct stat st;

    if (fstatat(at->dir, at->name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return -1;
    if (S_ISLNK(st.st_mode)) {
        errno = ELOOP;
        return -1;
    }
    return fchmodat(at->dir, at->name, mode, 0);
}

static struct err *set_owner_or_mode_or_times(struct applier *a, const struct send_command *c)
{
    const struct timespec times[] = {c->atime, c->mtime};
    int fd = written_fd(a, c->path);
    struct place at;

    if (fd < 0 && !find_place(a, a->target.root, c->path, &at))
        return failed(a, errno, c);
    if (c->type == SEND_CHMOD)
        return result(a, fd >= 0 ? fchmod(fd, c->mode) : chmod_at(&at, c->mode), c);
    if (c->type == SEND_CHOWN)
        return result(a, fd >= 0 ? fchown(fd, c->uid, c->gid)
                              : fchownat(at.dir, at.name, c->uid, c->gid, AT_SYMLINK_NOFOLLOW),
                      c);
    return result(a, fd >= 0 ? futimens(fd, times) : utimensat(at.dir, at.name, times, AT_SYMLINK_NOFOLLOW), c);
}

/* Capabilities go by themselves when a file is written or changes its owner. */
static int gone(int rc)
{
    return rc < 0 && errno == ENODATA ? 0 : rc;
}

static struct err *set_xattr(struct applier *a, const struct send_command *c)
{
    char path[SEND_NAME_MAX + 64];
    int fd = written_fd(a, c->path);
    struct place at;

    if (fd >= 0 && c->type == SEND_SET_XATTR)
        return result(a, fsetxattr(fd, c->xattr_name, c->data, c->n_data, 0), c);
    if (fd >= 0)
        return result(a, gone(fremovexattr(fd, c->xattr_name)), c);
    if (!find_place(a, a->target.root, c->path, &at))
        return failed(a, errno, c);
    /* No kernel in use has a call with a folder and a name. */
    (void)snprintf(path, sizeof(path), "/proc/self/fd/%d/%s", at.dir, at.name);
    if (c->type == SEND_SET_XATTR)
        return result(a, lsetxattr(path, c->xattr_name, c->data, c->n_data, 0), c);
    return result(a, gone(lremovexattr(path, c->xattr_name)), c);
}

static struct err *apply_once(struct applier *a, const struct send_command *c)
{
    switch (c->type) {
    case SEND_MKFILE:
        return make_file(a, c);
    case SEND_MKDIR:
    case SEND_MKNOD:
    case SEND_MKFIFO:
    case SEND_MKSOCK:
    case SEND_SYMLINK:
        return make_other(a, c);
    case SEND_RENAME:
        return move(a, c);
    case SEND_LINK:
        return make_link(a, c);
    case SEND_UNLINK:
    case SEND_RMDIR:
        return remove_it(a, c);
    case SEND_SET_XATTR:
    case SEND_REMOVE_XATTR:
        return set_xattr(a, c);
    case SEND_WRITE:
        return write_plain(a, c);
    case SEND_ENCODED_WRITE:
        return write_encoded(a, c);
    case SEND_CLONE:
        return clone_range(a, c);
    case SEND_TRUNCATE:
    case SEND_FALLOCATE:
        return set_length(a, c);
    case SEND_CHMOD:
    case SEND_CHOWN:
    case SEND_UTIMES:
        return set_owner_or_mode_or_times(a, c);
    case SEND_FILEATTR: /* no kernel says yet what its bits are */
        return NULL;
    default:
        return err_new(ERR_INTERNAL, "%s is no command of a volume's content", send_type_name(c->type));
    }
}

/* Makes what was made immutable or append-only changeable. true: it was. */
static bool unlock(struct applier *a, const char *path)
{
    unsigned flags = 0, locks = FS_IMMUTABLE_FL | FS_APPEND_FL;
    struct place at;
    struct stat st;

    if (!find_place(a, a->target.root, path, &at) || fstatat(at.dir, at.name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
        (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode)))
        return false;
    CLEANUP_CLOSE int fd = open_within(at.dir, at.name, O_RDONLY | FILE_FLAGS);

    if (fd < 0 || ioctl(fd, FS_IOC_GETFLAGS, &flags) < 0 || !(flags & locks))
        return false;
    flags &= ~locks;
    return ioctl(fd, FS_IOC_SETFLAGS, &flags) == 0;
}

static bool unlock_with_folder(struct applier *a, const char *path)
{
    const char *slash = path ? strrchr(path, '/') : NULL;
    CLEANUP_FREE char *folder = slash ? xstrndup(path, (size_t)(slash - path)) : xstrdup("");

    return path && unlock(a, path) | unlock(a, folder);
}

/* Streams do not carry these flags, so a volume that moved has none; but the base from which it comes back may have. The file
 * on the sender's side was changed, so there it has none. */
struct err *applier_apply(struct applier *a, const struct send_command *c)
{
    a->errnum = 0;
    struct err *e = apply_once(a, c);

    if (!e || a->errnum != EPERM)
        return e;
    if (!(unlock_with_folder(a, c->path) | unlock_with_folder(a, c->path_to) |
          unlock_with_folder(a, c->type == SEND_LINK ? c->path_link : NULL)))
        return e;
    err_free(e);
    return apply_once(a, c);
}
