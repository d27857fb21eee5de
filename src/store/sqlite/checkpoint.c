/* The way of what was committed from SQLite's log into the main file. SQLite would go it inside of whichever commit finds
 * the log long; here it is gone between commits, by the thread that commits: only one connection can have a file that is
 * locked exclusively. */
#include "store/sqlite/sqlite_private.h"

/* From this part of the most on, the log is copied when no commit waits: soon enough that it is the work of a few
 * milliseconds, late enough that pages which many commits write are written to the file once. */
#define TIDY_PART 4

int sqlite_log_most = 1000;

/* After each commit: how long the log is. */
static int note_log(void *cookie, sqlite3 *db, const char *name, int pages)
{
    struct sqlite_store *s = cookie;

    s->log_pages = pages;
    return SQLITE_OK;
}

void sqlite_take_log(struct sqlite_store *s)
{
    (void)sqlite3_wal_hook(s->db, note_log, s); /* in place of SQLite's own, which would checkpoint */
}

/* Copies all of the log, after which it is written from its beginning again; it keeps its size, so that a flush of it has
 * no metadata to write. */
static void checkpoint(struct sqlite_store *s)
{
    int rc = sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, NULL);

    if (rc == SQLITE_OK)
        s->log_pages = 0;
    else if (rc == SQLITE_IOERR_FSYNC)
        s->base.uncertain = true; /* a second flush may lie, and then the log would be overwritten */
    /* Otherwise, on a full disk for example, nothing is lost: the log goes on, and so do the tries. */
}

void sqlite_tidy_sync(struct store *base)
{
    struct sqlite_store *s = sqlite_store_of(base);

    if (!s->base.uncertain && s->log_pages >= sqlite_log_most / TIDY_PART)
        checkpoint(s);
}

void sqlite_bound_log(struct sqlite_store *s)
{
    if (s->log_pages >= sqlite_log_most)
        checkpoint(s);
}
