/* A block device of a volume. All block; thread-safe. */
#pragma once

#include "base/err.h"

/* Before it is detached: nobody has it open, and what was written is on the volume. ERR_BUSY: somebody uses it. */
struct err *blockdev_settle(const char *path) MUST_USE;
