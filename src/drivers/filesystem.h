/* The file system on a block device: what is there, and making one where nothing is. Block;
 * thread-safe. */
#pragma once

#include "base/err.h"

#include <stdbool.h>
#include <stdint.h>

/* What a device or file holds. *ret_type: name of the file system, partition table, RAID, ...
 * ("ext4"); NULL when it is blank: no signature that libblkid knows, and nothing but zeros in the
 * first MiB. Anything that is not understood is "unknown data". The caller frees it. */
struct err *filesystem_probe(const char *path, char **ret_type) MUST_USE;
/* Can volumes have this one? "ext4" and "xfs" can. */
bool filesystem_is_known(const char *type);
/* Makes a file system on a device that filesystem_probe() found blank a moment ago. `intent`
 * is an open file whose lock (flock) shows that this work goes on: it is held until mkfs has ended,
 * even when this process is killed. */
struct err *filesystem_make(const char *type, const char *device, int intent) MUST_USE;
/* Makes the mounted file system as large as its device is; no effect when it is. */
struct err *filesystem_grow(const char *type, const char *device, const char *place) MUST_USE;

/* What the first FILESYSTEM_HEAD bytes of a device say about an ext4 or xfs on it; pure. Of one that was not unmounted
 * it may be what was some time ago. false: neither is there. */
#define FILESYSTEM_HEAD 2048u
struct filesystem_head {
    uint64_t bytes;  /* of the device, that it uses */
    uint32_t block;  /* bytes of one of its blocks: smaller rests of the device stay unused */
    bool unfinished; /* its mkfs did not come to the end */
};
bool filesystem_head_parse(const unsigned char *bytes, size_t n, struct filesystem_head *ret_head);
/* The same of a device; all zero when neither is there. */
struct err *filesystem_head_read(const char *device, struct filesystem_head *ret_head) MUST_USE;
/* A new volume looks empty and anybody can write to it: when the root folder holds nothing but
 * lost+found, that is removed and the folder's mode becomes 0777. Otherwise nothing is changed. */
struct err *filesystem_freshen(int root) MUST_USE;
