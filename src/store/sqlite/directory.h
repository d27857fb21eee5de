/* The directory of a store: who may use it, and whether what lies in it is ours. All of this blocks. */
#pragma once

#include "base/err.h"

#define APPLICATION_ID 0x464c4b52 /* "FLKR", in the file's header */
#define SQLITE_STORE_FILE "store.sqlite"
/* There while a restore puts another file in place of the store: until it is gone, nothing is opened. */
#define SQLITE_STORE_RESTORING "store.sqlite.restoring"

/* Goes on after "... is damaged". */
#define SQLITE_ADVICE_DAMAGED                                                                                          \
    "; restore it from a backup (flocker-control(8), \"THE STORE\"), and look for errors of the disk in the kernel's log"

/* Makes the directory when there is none, and takes the lock of the one process that may use the store in it. */
struct err *sqlite_take_directory(const char *dir, int *ret_lock) MUST_USE;
struct err *sqlite_sync_directory(const char *path) MUST_USE;
/* A restore that was cut short has taken the old store away, or its log, and not yet put the new one there. */
struct err *sqlite_check_no_restore(const char *dir) MUST_USE;
/* Is the file a store of ours, as far as its header says? */
struct err *sqlite_check_header(int fd, const char *path) MUST_USE;
/* Makes the file, or looks at its header before SQLite may change a byte of something that is not ours. */
struct err *sqlite_check_file(const char *dir, const char *path) MUST_USE;
