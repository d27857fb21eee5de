/* The file `acknowledged` beside the database: the newest revision that was acknowledged, and of which store. It tells a
 * store that lost its newest changes (or all of them) from one that never had them, which the database alone cannot.
 *
 * It is written after each commit and not flushed: never ahead of the database, and behind it only by what the kernel had
 * not yet written when power was cut. */
#pragma once

#include "base/err.h"
#include "base/uuid.h"

#define MARK_NAME "acknowledged"

struct mark {
    struct uuid store;
    uint64_t revision;
};

/* Reads it and leaves it open for mark_set; *ret_fd is -1 when there is none. ERR_CORRUPT says what to do. Blocks. */
struct err *mark_open(const char *dir, struct mark *ret, int *ret_fd) MUST_USE;
/* Makes or replaces the file, durably; *ret_fd is for mark_set. Blocks. */
struct err *mark_make(const char *dir, const struct mark *m, int *ret_fd) MUST_USE;
/* Writes over it, in one sector, without a flush; a failure is ignored: the mark is then behind. */
void mark_set(int fd, const struct mark *m);
