/* What the kernel says of devices. Functions of what is below `root` ("" on a host): they remember nothing, so they are asked
 * at each use. All block. Any thread. */
#pragma once

#include "base/err.h"

#include <stddef.h>
#include <stdint.h>

#define SYSFS_TEXT_SIZE 256

/* The attribute root/sys/PATH without white space at its end, as text, and how many bytes it has (some are binary); "" and 0
 * when there is none. */
size_t sysfs_text(const char *root, const char *path, char ret[SYSFS_TEXT_SIZE]);
/* The same of root/sys/block/DEVICE/ATTRIBUTE. */
size_t sysfs_block_text(const char *root, const char *device, const char *attribute, char ret[SYSFS_TEXT_SIZE]);
/* How long the block device is, in bytes; 0: it is not there, or is going away at this moment. */
uint64_t sysfs_block_size(const char *root, const char *device);
/* Calls `fn` with each name in the folder root/sys/PATH until it fails. A folder that is not there has no names: the kernel has no such thing. */
typedef struct err *sysfs_each_fn(void *cookie, const char *name);
struct err *sysfs_each(const char *root, const char *path, sysfs_each_fn *fn, void *cookie) MUST_USE;
struct err *sysfs_write(const char *root, const char *path, const char *text) MUST_USE;

enum disk_identity {
    DISK_SAYS_NOTHING, /* of which volume it is */
    DISK_OTHER,
    DISK_IS_IT,
};

/* A disk that a cloud shows to this machine. */
struct disk_search {
    const char *root;
    const char *volume; /* its id */
    uint64_t size;      /* it must have this, */
    uint64_t least;     /* or, while it grows, at least this; otherwise the same as `size` */
    /* By what the block device `name` says of itself; DISK_OTHER when it is of the same cloud. */
    enum disk_identity (*identify)(const struct disk_search *s, const char *name);
    const char *name; /* which it is ("xvdf") where no disk says anything of itself; NULL: none is */
};

/* *ret_path is root/dev/NAME, or NULL: there is no such device, as shortly after attaching. The caller frees it. ERR_CORRUPT: a
 * device is the volume and has another size, or two say that they are. */
struct err *disk_find(const struct disk_search *s, char **ret_path) MUST_USE;
/* "f" of "/dev/xvdf", "aa" of "/dev/xvdaa", with the prefix "/dev/xvd"; NULL for what names no disk so. */
const char *disk_letters(const char *path, const char *prefix);
