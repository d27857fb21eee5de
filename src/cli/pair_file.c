#include "cli/pair_file.h"

#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define KEY_ERROR "Unable to write private key file."
#define CERTIFICATE_ERROR "Unable to write certificate file."

void pair_files_name(struct pair_files *f, const char *directory, const char *name)
{
    const char *slash = directory[strlen(directory) - 1] == '/' ? "" : "/";

    f->key = xasprintf("%s%s%s.key", directory, slash, name);
    f->certificate = xasprintf("%s%s%s.crt", directory, slash, name);
}

void pair_files_done(struct pair_files *f)
{
    free(f->key);
    free(f->certificate);
    *f = (struct pair_files){0};
}

/* Contract section 2.4: the sentence, the operating system's reason, the path. */
static struct err *path_err(const char *sentence, int errnum, const char *path)
{
    enum err_code code = errnum == EEXIST ? ERR_EXISTS : errnum == ENOENT ? ERR_NOT_FOUND : ERR_IO;

    return err_new(code, "%s %s: %s", sentence, strerror(errnum), path);
}

struct err *pair_files_check(const struct pair_files *f)
{
    struct stat st;

    if (lstat(f->key, &st) == 0)
        return path_err(KEY_ERROR, EEXIST, f->key);
    if (lstat(f->certificate, &st) == 0)
        return path_err(CERTIFICATE_ERROR, EEXIST, f->certificate);
    return NULL;
}

static int write_all(int fd, const char *text)
{
    size_t left = strlen(text);

    while (left) {
        ssize_t n = write(fd, text, left);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        text += n;
        left -= (size_t)n;
    }
    return fchmod(fd, 0600) < 0 || fsync(fd) < 0 ? -errno : 0;
}

static int sync_directory(const char *directory)
{
    CLEANUP_CLOSE int fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    /* Some file systems cannot sync a directory; then there is nothing more to do. */
    if (fd < 0 || (fsync(fd) < 0 && errno != EINVAL))
        return -errno;
    return 0;
}

/* The file appears under its name only when complete: an unnamed file, then a link. Leaves nothing
 * behind when killed. -EOPNOTSUPP where the file system has no unnamed files or no links. */
static int write_unnamed(const char *directory, const char *path, const char *text)
{
    CLEANUP_CLOSE int fd = open(directory, O_WRONLY | O_TMPFILE | O_CLOEXEC, 0600);

    if (fd < 0)
        return errno == EISDIR || errno == EOPNOTSUPP || errno == EINVAL ? -EOPNOTSUPP : -errno;
    int r = write_all(fd, text);
    if (r < 0)
        return r;
    CLEANUP_FREE char *proc = xasprintf("/proc/self/fd/%d", fd);
    if (linkat(AT_FDCWD, proc, AT_FDCWD, path, AT_SYMLINK_FOLLOW) == 0)
        return 0;
    return errno == EEXIST ? -EEXIST : -EOPNOTSUPP;
}

static int write_named(const char *path, const char *text)
{
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0)
        return -errno;
    int r = write_all(fd, text);
    if (r < 0)
        (void)unlink(path);
    return r;
}

static int write_new_file(const char *path, const char *text)
{
    CLEANUP_FREE char *copy = xstrdup(path);
    const char *directory = dirname(copy);
    int r = write_unnamed(directory, path, text);

    if (r == -EOPNOTSUPP)
        r = write_named(path, text);
    if (r < 0)
        return r;
    r = sync_directory(directory);
    if (r < 0)
        (void)unlink(path);
    return r;
}

struct err *pair_files_write(const struct pair_files *f, const char *key, const char *certificate)
{
    int r = write_new_file(f->key, key);

    if (r < 0)
        return path_err(KEY_ERROR, -r, f->key);
    r = write_new_file(f->certificate, certificate);
    if (r == 0)
        return NULL;
    (void)unlink(f->key); /* ours: made exclusively a moment ago */
    return path_err(CERTIFICATE_ERROR, -r, f->certificate);
}

static int replace_file(const char *path, const char *text)
{
    CLEANUP_FREE char *fresh = xasprintf("%s.%ld.new", path, (long)getpid());
    CLEANUP_FREE char *copy = xstrdup(path);
    int r = write_named(fresh, text);

    if (r < 0)
        return r;
    if (rename(fresh, path) < 0) {
        r = -errno;
        (void)unlink(fresh);
        return r;
    }
    return sync_directory(dirname(copy));
}

struct err *pair_files_replace(const struct pair_files *f, const char *key, const char *certificate)
{
    int r = key ? replace_file(f->key, key) : 0;

    if (r < 0)
        return path_err(KEY_ERROR, -r, f->key);
    r = replace_file(f->certificate, certificate);
    return r < 0 ? path_err(CERTIFICATE_ERROR, -r, f->certificate) : NULL;
}

struct err *text_file_read(const char *sentence, const char *path, char **ret_text)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    CLEANUP_STR struct str text = {0};
    char buf[8192];

    if (fd < 0)
        return path_err(sentence, errno, path);
    for (;;) {
        ssize_t n = read(fd, buf, sizeof(buf));
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return path_err(sentence, errno, path);
        if (n == 0)
            break;
        if (text.len + (size_t)n > TEXT_FILE_MAX || memchr(buf, '\0', (size_t)n))
            return err_new(ERR_INVALID, "%s Not a text file, or too long: %s", sentence, path);
        str_append_bytes(&text, buf, (size_t)n);
    }
    *ret_text = str_steal(&text);
    return NULL;
}
