/* The file system on a block device: what is there, and making one where nothing is. Block;
 * thread-safe. */
#pragma once

#include "base/err.h"

/* What a device or file holds. *ret_type: name of the file system, partition table, RAID, ...
 * ("ext4"); NULL when it is blank: no signature that libblkid knows, and nothing but zeros in the
 * first MiB. Anything that is not understood is "unknown data". The caller frees it. */
struct err *filesystem_probe(const char *path, char **ret_type) MUST_USE;
/* Makes an ext4 file system on a device that filesystem_probe() found blank a moment ago. `intent`
 * is an open file whose lock (flock) shows that this work goes on: it is held until mkfs has ended,
 * even when this process is killed. */
struct err *filesystem_make(const char *device, int intent) MUST_USE;
/* A new volume looks empty and anybody can write to it: when the root folder holds nothing but
 * lost+found, that is removed and the folder's mode becomes 0777. Otherwise nothing is changed. */
struct err *filesystem_freshen(int root) MUST_USE;
