/* A block device of a volume. All block; thread-safe. */
#pragma once

#include "base/err.h"

#include <stdint.h>

/* Before it is detached: nobody has it open, and what was written is on the volume. ERR_BUSY: somebody uses it. */
struct err *blockdev_settle(const char *path) MUST_USE;
/* Nobody has it: no mount in any namespace (not even a detached one with an open file in it), no map. ERR_BUSY: somebody does. Who only
 * looks is waited for, a moment. */
struct err *blockdev_prove_free(const char *path) MUST_USE;
/* Bytes, as the kernel knows them now. */
struct err *blockdev_size(const char *path, uint64_t *ret_size) MUST_USE;
/* Asks the kernel to look at the device's size again, where its driver does not do so by itself (SCSI, NVMe). Best effort. */
void blockdev_rescan(const char *path);
