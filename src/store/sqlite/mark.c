#include "store/sqlite/mark.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>
#include <xxhash.h>

#define TEXT_SIZE                                                                                  \
    (UUID_TEXT_SIZE - 1 + 1 + 20 + 1 + 16 + 1) /* store, revision, checksum, newline */

static void format(const struct mark *m, char text[static TEXT_SIZE + 1])
{
    int n = snprintf(text, TEXT_SIZE + 1, "%s %020" PRIu64 " ", UUID_STR(&m->store), m->revision);

    (void)snprintf(text + n, TEXT_SIZE + 1 - (size_t)n, "%016" PRIx64 "\n",
                   (uint64_t)XXH3_64bits(text, (size_t)n));
}

static bool parse(const char *text, struct mark *ret)
{
    struct mark m = {0};
    char store[UUID_TEXT_SIZE], again[TEXT_SIZE + 1];

    if (sscanf(text, "%36s %20" SCNu64 " ", store, &m.revision) != 2 ||
        !uuid_parse(store, &m.store))
        return false;
    format(&m, again);
    *ret = m;
    return strcmp(text, again) == 0;
}

struct err *mark_open(const char *dir, struct mark *ret, int *ret_fd)
{
    CLEANUP_FREE char *path = xasprintf("%s/" MARK_NAME, dir);
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CLOEXEC);
    char text[TEXT_SIZE + 2] = "";

    *ret_fd = -1;
    if (fd < 0)
        return errno == ENOENT ? NULL : err_errno(errno, "cannot open %s", path);
    if (pread(fd, text, sizeof(text) - 1, 0) < 0)
        return err_errno(errno, "cannot read %s", path);
    if (!parse(text, ret))
        return err_new(
            ERR_CORRUPT,
            "%s, which tells the newest acknowledged change, is damaged: the store may be "
            "damaged too; restore it from a backup, or remove that file when you know "
            "that the store is whole (flocker-control(8), \"THE STORE\")",
            path);
    *ret_fd = steal_fd(&fd);
    return NULL;
}

struct err *mark_make(const char *dir, const struct mark *m, int *ret_fd)
{
    CLEANUP_FREE char *path = xasprintf("%s/" MARK_NAME, dir);
    CLEANUP_FREE char *temporary = xasprintf("%s.new", path);
    CLEANUP_CLOSE int parent = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_CLOSE int fd = open(temporary, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    char text[TEXT_SIZE + 1];

    if (parent < 0 || fd < 0)
        return err_errno(errno, "cannot write %s", temporary);
    format(m, text);
    ssize_t n = pwrite(fd, text, TEXT_SIZE, 0);
    if (n != TEXT_SIZE)
        return err_errno(n < 0 ? errno : ENOSPC, "cannot write %s", temporary);
    if (fsync(fd) < 0)
        return err_errno(errno, "cannot flush %s", temporary);
    if (rename(temporary, path) < 0)
        return err_errno(errno, "cannot rename %s to %s", temporary, path);
    if (fsync(parent) < 0)
        return err_errno(errno, "cannot flush directory %s", dir);
    *ret_fd = steal_fd(&fd);
    return NULL;
}

void mark_set(int fd, const struct mark *m)
{
    char text[TEXT_SIZE + 1];

    format(m, text);
    (void)!pwrite(fd, text, TEXT_SIZE, 0);
}
