#include "store/sqlite/directory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOCK_NAME "lock"

static struct err *directory_error(int errnum, const char *what, const char *path)
{
    if (errnum == EROFS)
        return err_new(ERR_DENIED,
                       "%s %s: the file system is read-only; the store must be writable", what,
                       path);
    return err_errno(errnum, "%s %s", what, path);
}

struct err *sqlite_sync_directory(const char *path)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        return directory_error(errno, "cannot flush directory", path);
    return NULL;
}

static struct err *make_directory(const char *dir)
{
    CLEANUP_FREE char *parent = xasprintf("%s/..", dir);

    if (mkdir(dir, 0700) < 0) {
        if (errno == EEXIST)
            return NULL;
        return directory_error(errno, "cannot make the store's directory", dir);
    }
    return sqlite_sync_directory(parent);
}

static struct err *busy_error(const char *dir, int fd)
{
    char holder[32] = "";
    ssize_t n = pread(fd, holder, sizeof(holder) - 1, 0);

    holder[n > 0 ? n : 0] = '\0';
    holder[strspn(holder, "0123456789")] = '\0';
    return err_new(ERR_BUSY, "the store in %s is used by another process%s%s; end that one first",
                   dir, *holder ? ", pid " : "", holder);
}

/* The lock goes with the descriptor, however the process ends. The file stays: removing it would
 * let two processes lock two files of the same name. */
static struct err *take_lock(const char *dir, int *ret_fd)
{
    CLEANUP_FREE char *path = xasprintf("%s/" LOCK_NAME, dir);
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    char pid[32];

    if (fd < 0)
        return directory_error(errno, "cannot open", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK)
            return busy_error(dir, fd);
        return directory_error(errno, "cannot lock", path);
    }
    int n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    /* The pid is for the message above only; a full disk must not keep a store from opening. */
    if (ftruncate(fd, 0) == 0)
        (void)!pwrite(fd, pid, (size_t)n, 0);
    *ret_fd = steal_fd(&fd);
    return NULL;
}

static uint32_t big_endian(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool has_magic(int fd, const struct stat *st)
{
    char magic[16];

    return S_ISREG(st->st_mode) && pread(fd, magic, sizeof(magic), 0) == (ssize_t)sizeof(magic) &&
           memcmp(magic, "SQLite format 3", 16) == 0;
}

/* An application id of 0 is decided later: the header may still be in the log. */
struct err *sqlite_check_header(int fd, const char *path)
{
    unsigned char header[100];
    struct stat st;

    if (fstat(fd, &st) < 0)
        return err_errno(errno, "cannot look at %s", path);
    ssize_t n = S_ISREG(st.st_mode) ? pread(fd, header, sizeof(header), 0) : 0;
    if (n < 0)
        return err_errno(errno, "cannot read %s", path);
    if (n < (ssize_t)sizeof(header) || !has_magic(fd, &st))
        return err_new(ERR_CORRUPT,
                       "%s is not a Flocker store; move it away or name another directory", path);
    uint32_t application = big_endian(header + 68);
    if (application != 0 && application != APPLICATION_ID)
        return err_new(ERR_CORRUPT,
                       "%s belongs to another program (application id 0x%08x); move it away "
                       "or name another directory",
                       path, application);
    /* SQLite would take a higher one for a file that it may read only. */
    if (header[18] > 2 || header[19] > 2)
        return err_new(ERR_CORRUPT,
                       "the store %s is damaged: its header names file format %d/%d%s", path,
                       header[18], header[19], SQLITE_ADVICE_DAMAGED);
    return NULL;
}

/* Makes the file, or looks at its header before SQLite may change a byte of something that is not
 * ours. Rubbish with a rollback journal beside it is let pass: its creation was cut short, and SQLite takes that back. */
struct err *sqlite_check_file(const char *dir, const char *path)
{
    CLEANUP_FREE char *journal = xasprintf("%s-journal", path);
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct stat st;

    if (fd < 0)
        return directory_error(errno, "cannot open the store", path);
    if (fstat(fd, &st) < 0)
        return err_errno(errno, "cannot look at %s", path);
    if (S_ISREG(st.st_mode) && st.st_size == 0)
        return sqlite_sync_directory(dir);
    if (S_ISREG(st.st_mode) && !has_magic(fd, &st) && access(journal, F_OK) == 0)
        return NULL;
    return sqlite_check_header(fd, path);
}

struct err *sqlite_check_no_restore(const char *dir)
{
    CLEANUP_FREE char *path = xasprintf("%s/" SQLITE_STORE_RESTORING, dir);

    if (access(path, F_OK) == 0)
        return err_new(ERR_CONFLICT,
                       "a restore of the store in %s was cut short (%s is there); run flocker-control "
                       "--restore again",
                       dir, path);
    return NULL;
}

struct err *sqlite_take_directory(const char *dir, int *ret_lock)
{
    TRY(make_directory(dir));
    return take_lock(dir, ret_lock);
}
