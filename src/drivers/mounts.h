/* The mount table, read from /proc/PID/mountinfo, and the few mounts that we make. */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct mount_entry {
    int id;
    unsigned major, minor; /* of the superblock; for btrfs not what stat() says of a file */
    char *
        root; /* the folder of the file system that is mounted, "/x//deleted" when it was removed */
    char *target; /* where */
    char *fstype;
    char *source;
};

struct mount_table {
    struct mount_entry
        *entries; /* in the kernel's order: a later one at the same target covers an earlier one */
    size_t n, cap;
};

/* Parses one line (without the line end). false: it is not a mountinfo line; *ret_entry untouched.
 * Pure. */
bool mount_line_parse(const char *line, size_t n, struct mount_entry *ret_entry);
/* Adds all lines of a text; lines that cannot be read are an ERR_CORRUPT (what is not understood
 * must not be taken for "not mounted"). Pure. */
struct err *mount_text_parse(const char *text, size_t n, struct mount_table *t) MUST_USE;
void mount_table_done(struct mount_table *t);
#define CLEANUP_MOUNTS CLEANUP(mount_table_done)

/* The table of this thread's mount namespace. */
struct err *mount_table_read(struct mount_table *ret_table) MUST_USE;
/* The same out of an open mountinfo file. Returns 0 or -errno. */
int mount_table_read_fd(int fd, struct mount_table *ret_table);
/* The uppermost mount at exactly this target; NULL when there is none. */
const struct mount_entry *mount_table_at(const struct mount_table *t, const char *target);
/* Some mount strictly below the target; NULL when there is none. */
const struct mount_entry *mount_table_below(const struct mount_table *t, const char *target);

/* What a folder is in terms of the mount table: superblock and path in its file system. */
struct mount_spot {
    unsigned major, minor;
    char *root; /* NULL: not found */
};

/* Finds it for an open folder (O_PATH will do). `t` is this thread's table. */
struct err *mount_spot_of(int fd, const struct mount_table *t,
                          struct mount_spot *ret_spot) MUST_USE;
void mount_spot_done(struct mount_spot *s);
#define CLEANUP_SPOT CLEANUP(mount_spot_done)
/* The entry mounts the spot itself or something below it. */
bool mount_entry_is_of(const struct mount_entry *m, const struct mount_spot *s);
/* The entry mounts exactly the spot. */
bool mount_entry_is_exactly(const struct mount_entry *m, const struct mount_spot *s);

/* Mounts a bind of the open folder at `target` (an existing folder). */
struct err *mount_bind(int fd, const char *target) MUST_USE;
/* Makes a mount of the file system on the device that nobody can see yet; the descriptor is its
 * root. Closing it unmounts it. `options` (NULL: none) is as for mount(8), "noatime,commit=10". */
struct err *mount_detached(const char *fstype, const char *device, const char *options,
                           int *ret_fd) MUST_USE;
/* ERR_INVALID: with these options nobody could write to a volume, or they mean no mount of their own, or they are no options. What
 * a file system knows is for it to say. */
struct err *mount_options_check(const char *options) MUST_USE;
/* Puts such a mount at `target`. */
struct err *mount_attach(int fd, const char *target) MUST_USE;
/* Plain umount: no force, not lazy. Returns 0 or -errno. */
int mount_remove(const char *target);
