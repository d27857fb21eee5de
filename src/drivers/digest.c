/* One stream of records goes through the hash: each begins with a letter and has fixed fields or
 * lengths in front of what varies, so that no two trees give the same bytes. The walk keeps one
 * folder open, and goes up by "..": neither depth nor a symbolic link can lead it astray, for
 * nothing changes meanwhile. */
#include "drivers/digest.h"

#include "base/hash.h"
#include "base/str.h"

#include <dirent.h>
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <xxhash.h>

#define BLOCK 65536u
#define SUBVOLUME_PLACE_INODE 2u /* btrfs: where a snapshot leaves out a subvolume; streams do too */

/* The first name of a file with several. */
struct linked {
    uint64_t inode;
    uint64_t number;
    UT_hash_handle hh;
};

/* A folder on the way down. */
struct level {
    char **names; /* sorted */
    size_t n, at;
    uint64_t inode;
};

struct walk {
    XXH3_state_t *hash;
    const atomic_bool *cancel;
    dev_t device;
    struct linked *linked;
    uint64_t n_linked;
    struct level *levels;
    size_t depth, cap;
    int dir; /* the innermost, open */
    uint8_t block[BLOCK];
    char attributes[BLOCK]; /* names; no list is longer */
};

/* ---- records ---- */

static void put(struct walk *w, const void *bytes, size_t n)
{
    (void)XXH3_128bits_update(w->hash, bytes, n);
}

static void put_u64(struct walk *w, uint64_t v)
{
    v = htobe64(v);
    put(w, &v, sizeof(v));
}

static void put_sized(struct walk *w, const void *bytes, size_t n)
{
    put_u64(w, n);
    put(w, bytes, n);
}

static struct err *check(const struct walk *w)
{
    return w->cancel && atomic_load(w->cancel) ? err_new(ERR_CANCELLED, "stopped as asked") : NULL;
}

static struct err *cannot(const char *what, const char *name)
{
    return err_errno(errno, "cannot read %s %s", what, name);
}

/* ---- extended attributes ---- */

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static struct err *put_attribute(struct walk *w, const char *path, const char *name, const char *attribute)
{
    ssize_t n = lgetxattr(path, attribute, w->block, BLOCK); /* none is longer */

    if (n < 0)
        return cannot(attribute, name);
    put(w, "x", 1);
    put_sized(w, attribute, strlen(attribute));
    put_sized(w, w->block, (size_t)n);
    return NULL;
}

/* By the path of the open folder: the calls by descriptor do not work for symbolic links and devices. */
static struct err *put_attributes(struct walk *w, const char *name)
{
    CLEANUP_FREE char *path = xasprintf("/proc/self/fd/%d/%s", w->dir, name);
    CLEANUP_FREE char **sorted = NULL;
    char *list = w->attributes;
    ssize_t len = llistxattr(path, list, sizeof(w->attributes));
    size_t n = 0, cap = 0;

    if (len < 0 && errno != ENOTSUP)
        return cannot("the extended attributes of", name);
    for (ssize_t at = 0; at < len; at += (ssize_t)strlen(list + at) + 1) {
        sorted = mem_grow(sorted, n, &cap, sizeof(*sorted));
        sorted[n++] = list + at;
    }
    if (n)
        qsort(sorted, n, sizeof(*sorted), by_text);
    for (size_t i = 0; i < n; i++)
        TRY(put_attribute(w, path, name, sorted[i]));
    return NULL;
}

/* ---- contents ---- */

static bool is_zero(const uint8_t *bytes, size_t n)
{
    return !bytes[0] && memcmp(bytes, bytes + 1, n - 1) == 0;
}

/* The data from `at` on up to a whole block, as far as there are any. */
static struct err *read_block(struct walk *w, int fd, off_t at, const char *name, size_t *ret_n)
{
    size_t n = 0;

    while (n < BLOCK) {
        ssize_t got = pread(fd, w->block + n, BLOCK - n, at + (off_t)n);

        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return cannot("the file", name);
        if (got == 0)
            break;
        n += (size_t)got;
    }
    *ret_n = n;
    return NULL;
}

/* Only blocks that are not all zero are put, each with its place: so a hole costs nothing, and is the
 * same as zeros. */
static struct err *put_contents(struct walk *w, const char *name)
{
    CLEANUP_CLOSE int fd = openat(w->dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOATIME | O_CLOEXEC);

    if (fd < 0)
        return cannot("the file", name);
    (void)posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    for (off_t at = 0;;) {
        off_t data = lseek(fd, at, SEEK_DATA);
        size_t n;

        if (data < 0 && errno == ENXIO)
            return NULL; /* only a hole is left */
        if (data > at)
            at = data / BLOCK * BLOCK;
        TRY(check(w));
        TRY(read_block(w, fd, at, name, &n));
        if (!n)
            return NULL;
        if (!is_zero(w->block, n)) {
            put(w, "b", 1);
            put_u64(w, (uint64_t)at);
            put_sized(w, w->block, n);
        }
        at += (off_t)n;
    }
}

static struct err *put_target(struct walk *w, const char *name)
{
    char target[PATH_MAX];
    ssize_t n = readlinkat(w->dir, name, target, sizeof(target));

    if (n < 0)
        return cannot("the symbolic link", name);
    put_sized(w, target, (size_t)n);
    return NULL;
}

/* ---- the walk ---- */

/* true: the file was seen under another name, whose number was put. */
static bool put_link(struct walk *w, const struct stat *st)
{
    struct linked *l;
    uint64_t inode = st->st_ino;

    if (S_ISDIR(st->st_mode) || st->st_nlink < 2)
        return false;
    HASH_FIND(hh, w->linked, &inode, sizeof(inode), l);
    put(w, l ? "l" : "f", 1);
    if (l) {
        put_u64(w, l->number);
        return true;
    }
    l = xcalloc(1, sizeof(*l));
    l->inode = inode;
    l->number = w->n_linked++;
    HASH_ADD(hh, w->linked, inode, sizeof(l->inode), l);
    return false;
}

static void put_stat(struct walk *w, const struct stat *st)
{
    bool device = S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode);

    put_u64(w, st->st_mode);
    put_u64(w, (uint64_t)st->st_uid << 32 | st->st_gid);
    put_u64(w, (uint64_t)st->st_mtim.tv_sec);
    put_u64(w, (uint64_t)st->st_mtim.tv_nsec);
    put_u64(w, S_ISREG(st->st_mode) ? (uint64_t)st->st_size : 0);
    put_u64(w, device ? (uint64_t)major(st->st_rdev) << 32 | minor(st->st_rdev) : 0);
}

static struct err *read_names(struct level *l, int dir, const char *name)
{
    int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = copy < 0 ? NULL : fdopendir(copy);
    size_t cap = 0;

    if (!d) {
        mem_closep(&copy);
        return cannot("the folder", name);
    }
    for (const struct dirent *e; (errno = 0, e = readdir(d));) {
        if (streq(e->d_name, ".") || streq(e->d_name, ".."))
            continue;
        l->names = mem_grow(l->names, l->n, &cap, sizeof(*l->names));
        l->names[l->n++] = xstrdup(e->d_name);
    }
    struct err *e = errno ? cannot("the folder", name) : NULL;
    (void)closedir(d);
    if (!e && l->n)
        qsort(l->names, l->n, sizeof(*l->names), by_text);
    return e;
}

static void level_done(struct level *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->names[i]);
    free(l->names);
    *l = (struct level){0};
}

/* Goes into the folder that is open as `dir`, which it takes. */
static struct err *go_down(struct walk *w, int dir, uint64_t inode, const char *name)
{
    w->levels = mem_grow(w->levels, w->depth, &w->cap, sizeof(*w->levels));
    struct level *l = &w->levels[w->depth++];

    *l = (struct level){.inode = inode};
    mem_closep(&w->dir);
    w->dir = dir;
    return read_names(l, dir, name);
}

static struct err *go_up(struct walk *w)
{
    level_done(&w->levels[--w->depth]);
    put(w, "u", 1);
    if (!w->depth)
        return NULL;
    int up = openat(w->dir, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat st;

    if (up < 0)
        return cannot("the folder", "..");
    mem_closep(&w->dir);
    w->dir = up;
    if (fstat(up, &st) < 0 || st.st_ino != w->levels[w->depth - 1].inode)
        return err_new(ERR_IO, "the snapshot changes while it is read");
    return NULL;
}

static struct err *put_entry(struct walk *w, const char *name)
{
    struct stat st;

    if (fstatat(w->dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
        return cannot("what is called", name);
    if (S_ISDIR(st.st_mode) && (st.st_ino == SUBVOLUME_PLACE_INODE || st.st_dev != w->device))
        return NULL;
    put(w, "e", 1);
    put_sized(w, name, strlen(name));
    if (put_link(w, &st))
        return NULL;
    put_stat(w, &st);
    TRY(put_attributes(w, name));
    if (S_ISLNK(st.st_mode))
        return put_target(w, name);
    if (S_ISREG(st.st_mode))
        return put_contents(w, name);
    if (!S_ISDIR(st.st_mode))
        return NULL;
    int dir = openat(w->dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (dir < 0)
        return cannot("the folder", name);
    return go_down(w, dir, st.st_ino, name);
}

static struct err *walk_tree(struct walk *w, int root)
{
    struct stat st;

    if (fstat(root, &st) < 0)
        return err_errno(errno, "cannot look at the snapshot");
    int dir = openat(root, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return err_errno(errno, "cannot open the snapshot");
    w->device = st.st_dev;
    w->dir = dir;
    put_stat(w, &st);
    TRY(put_attributes(w, "."));
    w->dir = -1;
    TRY(go_down(w, dir, st.st_ino, "."));
    while (w->depth) {
        struct level *l = &w->levels[w->depth - 1];

        TRY(check(w));
        if (l->at < l->n)
            TRY(put_entry(w, l->names[l->at++]));
        else
            TRY(go_up(w));
    }
    return NULL;
}

static void walk_free(struct walk *w)
{
    struct linked *l, *next;

    HASH_ITER(hh, w->linked, l, next)
    {
        HASH_DEL(w->linked, l);
        free(l);
    }
    while (w->depth)
        level_done(&w->levels[--w->depth]);
    free(w->levels);
    mem_closep(&w->dir);
    XXH3_freeState(w->hash);
    free(w);
}

struct err *digest_tree(int root, const atomic_bool *cancel, char ret_digest[STORAGE_DIGEST_SIZE])
{
    struct walk *w = xcalloc(1, sizeof(*w));

    w->cancel = cancel;
    w->dir = -1;
    w->hash = XXH3_createState();
    if (!w->hash || XXH3_128bits_reset(w->hash) != XXH_OK)
        mem_exhausted();
    struct err *e = walk_tree(w, root);
    if (!e) {
        XXH128_hash_t h = XXH3_128bits_digest(w->hash);

        (void)snprintf(ret_digest, STORAGE_DIGEST_SIZE, "%016" PRIx64 "%016" PRIx64, (uint64_t)h.high64,
                       (uint64_t)h.low64);
    }
    walk_free(w);
    return e;
}
