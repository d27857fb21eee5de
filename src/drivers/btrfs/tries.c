/* The folders in which receives work: `incoming/NAME.X`, one a receive.
 *
 *   work         the subvolume to which the stream is applied
 *   point-N      a checkpoint: what it was after N bytes of the stream
 *   note-N       the note to it (point.h); written durably before the checkpoint
 *
 * A running receive holds an exclusive lock on its folder. What is not locked is left over, and what is left over may have a
 * checkpoint from which a later receive goes on. Who only looks takes a shared lock, and only for a moment. */
#include "drivers/btrfs/btrfs.h"

#include "base/random.h"
#include "base/str.h"
#include "drivers/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define FOLDER (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)
#define LOCK_TRIES 100 /* a millisecond each: longer than anybody only looks */
#define BEGIN_TRIES 3
#define NOTE "note-"

static bool is_running(int incoming, const char *name)
{
    CLEANUP_CLOSE int fd = openat(incoming, name, FOLDER);

    return fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) < 0;
}

bool tries_left(int dataset)
{
    CLEANUP_CLOSE int incoming = openat(dataset, "incoming", FOLDER);
    CLEANUP_DIR DIR *d = incoming < 0 ? NULL : dir_stream(incoming);
    const char *name;

    while (d && (name = dir_next(d))) {
        if (!is_running(incoming, name))
            return true;
    }
    return false;
}

/* A descriptor with the exclusive lock; -1: a receive runs in it, or it went away. */
static int lock_try(int incoming, const char *name)
{
    CLEANUP_CLOSE int fd = openat(incoming, name, FOLDER);
    struct stat st;

    for (int i = 0; fd >= 0 && i < LOCK_TRIES; i++) {
        if (flock(fd, LOCK_EX | LOCK_NB) == 0)
            return fstat(fd, &st) == 0 && st.st_nlink ? steal_fd(&fd) : -1;
        (void)usleep(1000);
    }
    return -1;
}

/* Deletes what is in the folder, but for the checkpoint of that offset (0: everything). */
static struct err *clear(int try_fd, uint64_t keep)
{
    CLEANUP_DIR DIR *d = dir_stream(try_fd);
    CLEANUP_FREE char *point = try_point_name(keep), *note = try_note_name(keep);
    const char *name;

    while (d && (name = dir_next(d))) {
        struct stat st;

        if (keep && (streq(name, point) || streq(name, note)))
            continue;
        if (fstatat(try_fd, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
            (void)unlinkat(try_fd, name, 0);
        else
            TRY(subvolume_delete(try_fd, name));
    }
    return NULL;
}

struct err *tries_remove(int dataset, const char *except, bool all)
{
    CLEANUP_CLOSE int incoming = openat(dataset, "incoming", FOLDER);
    CLEANUP_DIR DIR *d = incoming < 0 ? NULL : dir_stream(incoming);
    const char *name;

    while (d && (name = dir_next(d))) {
        if (except && streq(name, except))
            continue;
        CLEANUP_CLOSE int fd = lock_try(incoming, name);

        if (fd < 0 && all && is_running(incoming, name))
            return err_new(ERR_BUSY, "a snapshot of it is being received");
        if (fd < 0)
            continue;
        TRY(clear(fd, 0));
        TRY(dir_remove_empty(incoming, name));
    }
    return NULL;
}

char *try_point_name(uint64_t offset)
{
    return xasprintf("point-%" PRIu64, offset);
}

char *try_note_name(uint64_t offset)
{
    return xasprintf(NOTE "%" PRIu64, offset);
}

struct err *try_begin(int dataset, const char *snapshot, struct receive_try *ret_try)
{
    struct random r = random_os();
    CLEANUP_CLOSE int incoming = -1;

    TRY(dir_open(dataset, "incoming", /* create= */ true, 0700, &incoming));
    for (int i = 0; i < BEGIN_TRIES; i++) {
        CLEANUP_FREE char *name = xasprintf("%s.%016llx", snapshot, (unsigned long long)random_next(&r));

        if (mkdirat(incoming, name, 0700) < 0)
            return btrfs_error(errno, "cannot make a folder for the snapshot");
        int fd = lock_try(incoming, name);

        if (fd >= 0) { /* else it was taken for a leftover, before it had its lock */
            *ret_try = (struct receive_try){steal(&name), fd};
            return NULL;
        }
    }
    return err_new(ERR_BUSY, "the folder for the snapshot is removed again and again");
}

/* The newest checkpoint in the folder. */
static bool best_point(int try_fd, struct point *ret_point)
{
    CLEANUP_DIR DIR *d = dir_stream(try_fd);
    const char *name;
    bool found = false;

    while (d && (name = dir_next(d))) {
        CLEANUP_FREE char *text = NULL;
        struct point p;

        if (!str_has_prefix(name, NOTE))
            continue;
        struct err *e = file_read(try_fd, name, POINT_TEXT_MAX, &text);

        err_free(e);
        if (!text || !point_parse(text, &p) || (found && p.offset < ret_point->offset))
            continue;
        CLEANUP_FREE char *note = try_note_name(p.offset), *point = try_point_name(p.offset);

        if (!streq(name, note) || !subvolume_is(try_fd, point))
            continue;
        *ret_point = p;
        found = true;
    }
    return found;
}

bool tries_point(int dataset, struct point *ret_point)
{
    CLEANUP_CLOSE int incoming = openat(dataset, "incoming", FOLDER);
    CLEANUP_DIR DIR *d = incoming < 0 ? NULL : dir_stream(incoming);
    const char *name;
    bool found = false;

    while (d && (name = dir_next(d))) {
        CLEANUP_CLOSE int fd = openat(incoming, name, FOLDER);
        struct point p;

        if (fd < 0 || flock(fd, LOCK_SH | LOCK_NB) < 0 || !best_point(fd, &p) || (found && p.offset < ret_point->offset))
            continue;
        *ret_point = p;
        found = true;
    }
    return found;
}

static bool is_the_point(const struct point *p, const struct stream_spec *stream)
{
    const struct stream_point *from = stream->from;

    return streq(p->snapshot, stream->snapshot) && streq(p->base, stream->base ? stream->base : "") &&
           streq(UUID_STR(&p->identity), stream->identity) && p->offset == from->offset && p->hash_low == from->hash_low &&
           p->hash_high == from->hash_high;
}

struct err *try_continue(int dataset, const struct stream_spec *stream, struct receive_try *ret_try, struct point *ret_point)
{
    CLEANUP_CLOSE int incoming = openat(dataset, "incoming", FOLDER);
    CLEANUP_DIR DIR *d = incoming < 0 ? NULL : dir_stream(incoming);
    const char *name;

    while (d && (name = dir_next(d))) {
        CLEANUP_CLOSE int fd = lock_try(incoming, name);

        if (fd < 0 || !best_point(fd, ret_point) || !is_the_point(ret_point, stream))
            continue;
        TRY(clear(fd, ret_point->offset));
        *ret_try = (struct receive_try){xstrdup(name), steal_fd(&fd)};
        return NULL;
    }
    return err_new(ERR_NOT_FOUND, "what was received of it before is not here any more: send it from the beginning");
}

struct err *try_end(int dataset, struct receive_try *t, uint64_t keep)
{
    CLEANUP_CLOSE int incoming = openat(dataset, "incoming", FOLDER);
    struct err *e = clear(t->fd, keep);

    if (!e && !keep && incoming >= 0)
        e = dir_remove_empty(incoming, t->name);
    mem_closep(&t->fd);
    t->fd = -1;
    free(steal(&t->name));
    return e;
}
