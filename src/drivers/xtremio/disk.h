/* Which block devices of this machine are a volume of the array: its paths (SCSI disks), and the multipath map of them.
 * Functions of what is below `root` (its /sys and /dev): they remember nothing, so they are asked at each use. All block. */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct xtremio_disk {
    char **paths; /* names in sys/block: "sdb" */
    size_t n_paths;
    char **gone; /* paths to it of which the array says that nothing is there any more */
    size_t n_gone;
    char *map;         /* "dm-3"; NULL: there is none */
    char *map_name;    /* as multipath knows it: "mpatha" */
    bool map_is_small; /* the volume grew, and multipathd does not know yet */
};
void xtremio_disk_done(struct xtremio_disk *d);
#define CLEANUP_XTREMIO_DISK CLEANUP(xtremio_disk_done)

/* The devices whose NAA is the volume's. Each path is first asked anew who it is and how long (its `rescan`): the kernel keeps what a disk
 * said when it came, also when the array shows another volume there since. A disk that is another volume than it was and still in use
 * is taken away from this machine at once, whosever it is: what its users write would go to the other volume. ERR_CORRUPT: a size is not the volume's, or a map has
 * paths that are not. None at all is no error. */
struct err *xtremio_disk_look(const char *root, const char *naa, uint64_t size,
                              struct xtremio_disk *ret_disk) MUST_USE;
/* The one to use, root/dev/NAME; the map, if there is one. *ret_path is NULL when there is nothing yet, or, with `multipath`, no map
 * yet: a path that is used alone would never come into a map. ERR_CONFLICT: several paths and nothing that makes one of
 * them. The caller frees it. */
struct err *xtremio_disk_choose(const char *root, const struct xtremio_disk *d, bool multipath,
                                char **ret_path) MUST_USE;
/* Lets multipathd make a map as large as its volume became. */
struct err *xtremio_disk_widen(const struct xtremio_disk *d) MUST_USE;
/* ERR_UNAVAILABLE: the kernel lets nothing through to the device (root/dev/NAME, of xtremio_disk_choose()), for no way to the
 * array is up. */
struct err *xtremio_disk_reached(const char *root, const char *path) MUST_USE;
/* Takes all of it away from this machine: map and paths are flushed and deleted. ERR_BUSY: somebody uses it (nothing is forced). Done when
 * the kernel has none of them any more. */
struct err *xtremio_disk_remove(const char *root, const char *naa, uint64_t size) MUST_USE;

/* Which LUNs have a device here, whoever's: `used` has `n` places, only set. */
struct err *xtremio_disk_luns(const char *root, bool *used, size_t n) MUST_USE;
