/* A look at SQLite's write-ahead log before SQLite uses it. SQLite takes a damaged log for one that a power cut
 * shortened, and drops what lies behind the damage without a word, acknowledged or not. */
#pragma once

#include "base/err.h"

/* ERR_CORRUPT when the log at `path` was damaged after it had been flushed; a torn end, an empty and a missing log are
 * fine. Changes nothing. Blocks. */
struct err *log_check(const char *path) MUST_USE;
