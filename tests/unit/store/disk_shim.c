/* Inline checks of the C library would keep open() from being defined here. */
#undef _FORTIFY_SOURCE
#include "disk_shim.h"

#include "base/mem.h"
#include "base/random.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#define FDS 1024
#define NOT_OURS (-1)
#define THE_FOLDER (-2)

struct shim_fault shim_fault;

static struct {
    const char *dir;
    struct shim_log log;
    struct {
        char name[32];
        int inode;
    } names[SHIM_NAMES];
    size_t n_names;
    int inodes;
    int inode_of[FDS]; /* + 1 - NOT_OURS: 0 is not ours */
    bool on_disk[FDS]; /* in the folder of the faults */
} shim;

#define REAL(name)                                                                                 \
    static __typeof__(&name) real;                                                                 \
    if (!real)                                                                                     \
    real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static struct shim_op *add(enum shim_kind kind, int inode)
{
    shim.log.ops = mem_grow(shim.log.ops, shim.log.n, &shim.log.cap, sizeof(struct shim_op));
    struct shim_op *op = &shim.log.ops[shim.log.n++];
    *op = (struct shim_op){.kind = kind, .inode = inode};
    return op;
}

/* The part after the folder; NULL when the path is not in it. */
static const char *inside(const char *dir, const char *path)
{
    size_t n = dir ? strlen(dir) : 0;

    return n && strncmp(path, dir, n) == 0 && path[n] == '/' ? path + n + 1 : NULL;
}

static size_t find(const char *name)
{
    size_t i = 0;

    while (i < shim.n_names && strcmp(shim.names[i].name, name) != 0)
        i++;
    return i;
}

static void set_name(const char *name, int inode)
{
    size_t i = find(name);

    if (i == SHIM_NAMES || strlen(name) >= sizeof(shim.names[0].name))
        abort();
    if (i == shim.n_names)
        (void)snprintf(shim.names[shim.n_names++].name, sizeof(shim.names[0].name), "%s", name);
    shim.names[i].inode = inode;
}

static void drop_name(const char *name)
{
    size_t i = find(name);

    if (i < shim.n_names)
        shim.names[i] = shim.names[--shim.n_names];
}

static int inode_of(int fd)
{
    return fd >= 0 && fd < FDS && shim.dir ? shim.inode_of[fd] + NOT_OURS : NOT_OURS;
}

static bool fails(int fd, const char *path, enum shim_call call)
{
    struct shim_fault *f = &shim_fault;

    if (!f->dir || !(f->calls & call))
        return false;
    if (path ? !inside(f->dir, path) : fd < 0 || fd >= FDS || !shim.on_disk[fd])
        return false;
    f->happened++;
    if (f->happened < f->at || f->happened - f->at >= f->count)
        return false;
    errno = f->errnum;
    return true;
}

void shim_watch(const char *dir, const char *const *names, size_t n)
{
    memset(&shim, 0, sizeof(shim));
    shim.dir = dir;
    for (size_t i = 0; i < n; i++)
        set_name(names[i], shim.inodes++);
}

void shim_note(uint64_t number)
{
    if (shim.dir)
        add(SHIM_NOTE, NOT_OURS)->number = number;
}

struct shim_log shim_end(void)
{
    struct shim_log l = shim.log;

    memset(&shim, 0, sizeof(shim));
    return l;
}

void shim_log_done(struct shim_log *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->ops[i].bytes);
    free(l->ops);
    *l = (struct shim_log){0};
}

/* Half of a write, up to the end of a sector: what lies in one is written whole or not at all. */
static size_t half_of(off_t offset, size_t n)
{
    size_t end = ((size_t)offset + n / 2) / SHIM_SECTOR * SHIM_SECTOR;

    return end > (size_t)offset ? end - (size_t)offset : 0;
}

static void opened(int fd, const char *path, int flags)
{
    const char *name = inside(shim.dir, path);

    shim.inode_of[fd] = 0;
    shim.on_disk[fd] = shim_fault.dir && strncmp(path, shim_fault.dir, strlen(shim_fault.dir)) == 0;
    if (shim.dir && strcmp(path, shim.dir) == 0)
        shim.inode_of[fd] = THE_FOLDER - NOT_OURS;
    if (!name)
        return;
    size_t i = find(name);
    if (i == shim.n_names) {
        if (shim.inodes == SHIM_INODES)
            abort();
        set_name(name, shim.inodes++);
        (void)snprintf(add(SHIM_LINK, shim.names[i].inode)->name, sizeof(shim.names[0].name), "%s",
                       name);
    } else if (flags & O_TRUNC) {
        add(SHIM_TRUNCATE, shim.names[i].inode)->size = 0;
    }
    shim.inode_of[fd] = shim.names[i].inode - NOT_OURS;
}

/* Calls of the system */

int open64(const char *path, int flags, ...)
{
    REAL(open64);
    va_list ap;

    va_start(ap, flags);
    mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    if ((flags & O_ACCMODE) != O_RDONLY && fails(-1, path, SHIM_ON_NAMES))
        return -1;
    int fd = real(path, flags, mode);
    if (fd >= 0 && fd < FDS)
        opened(fd, path, flags);
    return fd;
}

int close(int fd)
{
    REAL(close);

    if (fd >= 0 && fd < FDS) {
        shim.inode_of[fd] = 0;
        shim.on_disk[fd] = false;
    }
    return real(fd);
}

ssize_t pwrite64(int fd, const void *bytes, size_t n, off64_t offset)
{
    REAL(pwrite64);
    int inode = inode_of(fd);
    bool failing = fails(fd, NULL, SHIM_ON_WRITE);

    if (failing && shim_fault.half)
        n = half_of(offset, n);
    if (failing && !(shim_fault.half && n))
        return -1;
    if (inode >= 0) {
        struct shim_op *op = add(SHIM_WRITE, inode);
        op->offset = (uint64_t)offset;
        op->bytes = xmemdup(bytes, n);
        op->size = n;
    }
    ssize_t written = real(fd, bytes, n, offset);
    if (failing)
        errno = shim_fault.errnum;
    return written;
}

ssize_t pread64(int fd, void *bytes, size_t n, off64_t offset)
{
    REAL(pread64);

    return fails(fd, NULL, SHIM_ON_READ) ? -1 : real(fd, bytes, n, offset);
}

int ftruncate64(int fd, off64_t size)
{
    REAL(ftruncate64);

    if (fails(fd, NULL, SHIM_ON_TRUNCATE))
        return -1;
    if (inode_of(fd) >= 0)
        add(SHIM_TRUNCATE, inode_of(fd))->size = (size_t)size;
    return real(fd, size);
}

static int flush(int fd)
{
    int inode = inode_of(fd);

    if (fails(fd, NULL, SHIM_ON_SYNC))
        return -1;
    if (inode >= 0)
        add(SHIM_SYNC, inode);
    else if (inode == THE_FOLDER)
        add(SHIM_SYNC_DIR, inode);
    return 0;
}

int fsync(int fd)
{
    return flush(fd);
}

int fdatasync(int fd)
{
    return flush(fd);
}

int unlink(const char *path)
{
    REAL(unlink);
    const char *name = inside(shim.dir, path);

    if (fails(-1, path, SHIM_ON_NAMES))
        return -1;
    int rc = real(path);
    if (rc == 0 && name) {
        drop_name(name);
        (void)snprintf(add(SHIM_UNLINK, NOT_OURS)->name, sizeof(shim.names[0].name), "%s", name);
    }
    return rc;
}

int rename(const char *from, const char *to)
{
    REAL(rename);
    const char *old = inside(shim.dir, from), *name = inside(shim.dir, to);

    if (fails(-1, to, SHIM_ON_NAMES))
        return -1;
    int rc = real(from, to);
    if (rc == 0 && old && name) {
        int inode = shim.names[find(old)].inode;
        drop_name(old);
        set_name(name, inode);
        struct shim_op *op = add(SHIM_RENAME, inode);
        (void)snprintf(op->name, sizeof(op->name), "%s", name);
        (void)snprintf(op->from, sizeof(op->from), "%s", old);
    }
    return rc;
}

/* A source of randomness that can be repeated. */

static uint64_t seed;

void shim_seed(uint64_t to)
{
    seed = to;
}

ssize_t getrandom(void *bytes, size_t n, unsigned flags)
{
    struct random r = random_seeded(&seed);
    unsigned char *p = bytes;

    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)random_next(&r);
    return (ssize_t)n;
}
