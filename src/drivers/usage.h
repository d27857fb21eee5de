/* Who uses a volume: looks through all mount namespaces and processes of the machine (design
 * section 6, "unwritable"). Blocks for some milliseconds, more with many processes; thread-safe;
 * needs root in the host's PID namespace. */
#pragma once

#include "base/err.h"
#include "drivers/mounts.h"

struct usage_target {
    /* Mounts of this folder or below it, in any mount namespace. root NULL: mounts are not looked
     * for. */
    const struct mount_spot *spot;
    /* Files with this st_dev: open, as working directory, root, program, or mapped. 0: not looked
     * for. */
    dev_t files;
    /* Not NULL when `files` is shared with other data: only paths at or below one of these two
     * count. */
    const char *path, *path2;
    /* Openers of this block device. 0: not looked for. */
    dev_t device;
    /* A mount at this place does not count in this thread's own mount namespace and its peers; may
     * be NULL. Used to find the process that keeps our own mount busy. */
    const char *except;
};

/* Finds one user. *ret_text is NULL when there is none, else for people: `pid 1234 (postgres) has
 * /flocker/x open`; the caller frees it. ERR_DENIED and others: could not look everywhere, so
 * nothing is proven. */
struct err *usage_find(const struct usage_target *target, char **ret_text) MUST_USE;
