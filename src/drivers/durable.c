#include "drivers/durable.h"

#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define DIR_FLAGS (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

/* Makes the folder; its mode does not depend on the umask. */
static int make_dir(int dirfd, const char *name, mode_t mode)
{
    if (mkdirat(dirfd, name, mode) < 0)
        return errno == EEXIST ? 0 : -errno;
    if (fchmodat(dirfd, name, mode, 0) < 0)
        return -errno;
    return 0;
}

static struct err *sync_parent(int dirfd, const char *name)
{
    if (dirfd != AT_FDCWD)
        return dir_sync(dirfd);
    const char *slash = strrchr(name, '/');
    CLEANUP_FREE char *parent = slash ? xstrndup(name, (size_t)(slash - name)) : xstrdup(".");
    CLEANUP_CLOSE int fd = open(*parent ? parent : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return err_errno(errno, "cannot open %s", parent);
    return dir_sync(fd);
}

struct err *folder_space(int fd, uint64_t *ret_total, uint64_t *ret_free)
{
    struct statvfs st;

    if (fstatvfs(fd, &st) < 0)
        return err_errno(errno, "cannot ask for the free space");
    *ret_total = (uint64_t)st.f_blocks * st.f_frsize;
    *ret_free = (uint64_t)st.f_bavail * st.f_frsize;
    return NULL;
}

struct err *dir_open(int dirfd, const char *name, bool create, mode_t mode, int *ret_fd)
{
    int fd = openat(dirfd, name, DIR_FLAGS);

    if (fd < 0 && errno == ENOENT && create) {
        int rc = make_dir(dirfd, name, mode);

        if (rc < 0)
            return err_errno(-rc, "cannot make the folder %s", name);
        TRY(sync_parent(dirfd, name));
        fd = openat(dirfd, name, DIR_FLAGS);
    }
    if (fd < 0 && (errno != ENOENT || create))
        return err_errno(errno, "cannot open the folder %s", name);
    *ret_fd = fd;
    return NULL;
}

struct err *dir_make_path(const char *path, mode_t mode)
{
    CLEANUP_FREE char *p = xstrdup(path);

    for (char *slash = p + 1; *slash; slash++) {
        if (*slash != '/')
            continue;
        *slash = '\0';
        int rc = make_dir(AT_FDCWD, p, mode);

        if (rc < 0)
            return err_errno(-rc, "cannot make the folder %s", p);
        *slash = '/';
    }
    int rc = make_dir(AT_FDCWD, p, mode);

    if (rc < 0)
        return err_errno(-rc, "cannot make the folder %s", p);
    return sync_parent(AT_FDCWD, p);
}

struct err *dir_sync(int fd)
{
    return fsync(fd) < 0 ? err_errno(errno, "cannot sync a folder") : NULL;
}

struct err *dir_remove_empty(int dirfd, const char *name)
{
    if (unlinkat(dirfd, name, AT_REMOVEDIR) < 0 && errno != ENOENT && errno != ENOTEMPTY &&
        errno != EEXIST)
        return err_errno(errno, "cannot remove the folder %s", name);
    return NULL;
}

static int write_all(int fd, const char *bytes, size_t n)
{
    while (n) {
        ssize_t w = write(fd, bytes, n);

        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0)
            return -errno;
        bytes += w;
        n -= (size_t)w;
    }
    return 0;
}

struct err *file_replace(int dirfd, const char *name, const char *bytes, size_t n)
{
    CLEANUP_FREE char *tmp = xasprintf(".%s.new", name);
    CLEANUP_CLOSE int fd =
        openat(dirfd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0)
        return err_errno(errno, "cannot make the file %s", tmp);
    int rc = write_all(fd, bytes, n);

    if (!rc && fsync(fd) < 0)
        rc = -errno;
    if (!rc && renameat(dirfd, tmp, dirfd, name) < 0)
        rc = -errno;
    if (rc) {
        (void)unlinkat(dirfd, tmp, 0);
        return err_errno(-rc, "cannot write the file %s", name);
    }
    return dir_sync(dirfd);
}

struct err *file_read(int dirfd, const char *name, size_t max, char **ret_text)
{
    CLEANUP_CLOSE int fd = openat(dirfd, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 && errno == ENOENT) {
        *ret_text = NULL;
        return NULL;
    }
    if (fd < 0)
        return err_errno(errno, "cannot open the file %s", name);
    CLEANUP_FREE char *text = xmalloc(max + 2);
    size_t used = 0;

    while (used <= max) {
        ssize_t n = read(fd, text + used, max + 1 - used);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(errno, "cannot read the file %s", name);
        if (n == 0)
            break;
        used += (size_t)n;
    }
    if (used > max)
        return err_new(ERR_CORRUPT, "the file %s is too long", name);
    text[used] = '\0';
    *ret_text = steal(&text);
    return NULL;
}

struct err *file_remove(int dirfd, const char *name)
{
    CLEANUP_FREE char *tmp = xasprintf(".%s.new", name);

    if (unlinkat(dirfd, tmp, 0) < 0 && errno != ENOENT)
        return err_errno(errno, "cannot remove the file %s", tmp);
    if (unlinkat(dirfd, name, 0) < 0)
        return errno == ENOENT ? NULL : err_errno(errno, "cannot remove the file %s", name);
    return dir_sync(dirfd);
}

DIR *dir_stream(int fd)
{
    int copy = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = copy < 0 ? NULL : fdopendir(copy);

    if (!d && copy >= 0)
        close(copy);
    return d;
}

void dir_stream_close(DIR **d)
{
    if (*d)
        closedir(*d);
}

const char *dir_next(DIR *d)
{
    const struct dirent *de;

    while ((de = readdir(d))) {
        if (!streq(de->d_name, ".") && !streq(de->d_name, ".."))
            return de->d_name;
    }
    return NULL;
}
