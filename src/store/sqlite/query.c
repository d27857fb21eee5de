/* Errors of SQLite in our words, and single statements. */
#include "store/sqlite/sqlite_private.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

static enum err_code code_of(sqlite3 *db, int rc)
{
    switch (rc & 0xff) {
    case SQLITE_FULL:
        return ERR_NO_SPACE;
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_ERROR: /* our statements are right: a table or the file's format is not */
        return ERR_CORRUPT;
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
        return ERR_BUSY;
    case SQLITE_PERM:
    case SQLITE_READONLY:
    case SQLITE_AUTH:
        return ERR_DENIED;
    case SQLITE_TOOBIG:
        return ERR_INVALID;
    case SQLITE_IOERR:
    case SQLITE_CANTOPEN:
        break;
    default:
        return ERR_INTERNAL;
    }
    switch (sqlite3_system_errno(db)) {
    case ENOSPC:
    case EDQUOT:
        return ERR_NO_SPACE;
    case EACCES:
    case EPERM:
    case EROFS:
        return ERR_DENIED;
    default:
        return ERR_IO;
    }
}

static const char *advice_of(enum err_code code)
{
    switch (code) {
    case ERR_NO_SPACE:
        return "; free space on that file system";
    case ERR_CORRUPT:
        return SQLITE_ADVICE_DAMAGED;
    case ERR_BUSY:
        return "; another program has the file open: end it";
    case ERR_DENIED:
        return "; check the permissions, and that the file system is not read-only";
    case ERR_IO:
        return "; check the disk";
    default:
        return "";
    }
}

struct err *sqlite_failure(const struct sqlite_store *s, int rc, const char *doing)
{
    enum err_code code = code_of(s->db, rc);
    int errnum = sqlite3_system_errno(s->db);
    bool is_own = sqlite3_extended_errcode(s->db) != rc; /* found by us, not by SQLite's last call */

    return err_new(code, "cannot %s the store %s: %s%s%s%s", doing, s->path,
                   is_own ? sqlite3_errstr(rc) : sqlite3_errmsg(s->db),
                   errnum ? ": " : "", errnum ? strerrordesc_np(errnum) : "", advice_of(code));
}

struct err *sqlite_damaged(const struct sqlite_store *s, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    CLEANUP_FREE char *what = xvasprintf(fmt, ap);
    va_end(ap);
    return err_new(ERR_CORRUPT, "the store %s is damaged: %s%s", s->path, what,
                   SQLITE_ADVICE_DAMAGED);
}

struct err *sqlite_run(struct sqlite_store *s, const char *sql, const char *doing)
{
    int rc = sqlite3_exec(s->db, sql, NULL, NULL, NULL);

    return rc == SQLITE_OK ? NULL : sqlite_failure(s, rc, doing);
}

struct err *sqlite_prepare(struct sqlite_store *s, const char *sql, sqlite3_stmt **ret)
{
    int rc = sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, ret, NULL);

    return rc == SQLITE_OK ? NULL : sqlite_failure(s, rc, "read");
}

struct err *sqlite_query_number(struct sqlite_store *s, const char *sql, int64_t *ret)
{
    sqlite3_stmt *q = NULL;
    struct err *e = sqlite_prepare(s, sql, &q);

    if (!e) {
        int rc = sqlite3_step(q);
        if (rc == SQLITE_ROW)
            *ret = sqlite3_column_int64(q, 0);
        else if (rc == SQLITE_DONE)
            e = sqlite_damaged(s, "\"%s\" finds nothing", sql);
        else
            e = sqlite_failure(s, rc, "read");
    }
    (void)sqlite3_finalize(q);
    return e;
}

struct err *sqlite_store_failure(sqlite3 *db, const char *path, int rc, const char *doing)
{
    struct sqlite_store s = {.db = db, .path = (char *)path};

    return sqlite_failure(&s, rc, doing);
}
