/* What sqlite.c and copy.c need of each other; not for others. */
#pragma once

#include "store/backend.h"

#include <sqlite3.h>

#define SQLITE_STORE_FILE "store.sqlite"
/* There while a restore puts another file in place of the store: until it is gone, nothing is opened. */
#define SQLITE_STORE_RESTORING "store.sqlite.restoring"

/* sqlite.c */
sqlite3 *sqlite_store_database(struct store *s);
/* An error from the connection's present state; `doing` completes "cannot ... the store PATH". */
struct err *sqlite_store_failure(sqlite3 *db, const char *path, int rc, const char *doing) MUST_USE;
/* Is the file a store of ours, as far as its header says? */
struct err *sqlite_check_header(int fd, const char *path) MUST_USE;
/* Opens a file that nobody uses, to be read only, and checks it as an opened store is checked. `uri` is the path for SQLite. */
struct err *sqlite_open_file(const char *path, const char *uri, struct store **ret) MUST_USE;
/* Makes the directory when there is none, and takes the lock of the one process that may use the store in it. */
struct err *sqlite_take_directory(const char *dir, int *ret_lock) MUST_USE;
struct err *sqlite_sync_directory(const char *path) MUST_USE;

/* copy.c: the verb of store_ops. */
struct err *sqlite_backup_begin(struct store *s, const char *path,
                                struct store_backup **ret) MUST_USE;
