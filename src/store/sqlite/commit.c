/* Transactions: batches of changes, and the generation that each opening adds. */
#include "base/random.h"
#include "base/str.h"
#include "store/sqlite/mark.h"
#include "store/sqlite/sqlite_private.h"

#include <inttypes.h>

struct err *sqlite_prepare_commits(struct sqlite_store *s)
{
    for (int k = 0; k < STORE_KIND_MAX; k++) {
        const char *table = store_kind_name((enum store_kind)k);
        CLEANUP_FREE char *put =
            xasprintf("INSERT INTO %s (key, revision, value) VALUES (?1, ?2, ?3)"
                      " ON CONFLICT (key) DO UPDATE SET"
                      " revision = excluded.revision, value = excluded.value",
                      table);
        CLEANUP_FREE char *del = xasprintf("DELETE FROM %s WHERE key = ?1", table);
        CLEANUP_FREE char *get =
            xasprintf("SELECT revision, value FROM %s WHERE key = ?1", table);

        TRY(sqlite_prepare(s, get, &s->get[k]));
        TRY(sqlite_prepare(s, put, &s->put[k]));
        TRY(sqlite_prepare(s, del, &s->del[k]));
    }
    return sqlite_prepare(s,
                   "UPDATE meta SET value = CASE name WHEN 'revision' THEN ?1 ELSE ?2 END"
                   " WHERE name IN ('revision', 'checksum')",
                   &s->set_meta);
}

/* One statement with its values; SQLite's result. Bindings point into the change, so they are
 * dropped. */
static int step(sqlite3_stmt *q)
{
    int rc = sqlite3_step(q);

    (void)sqlite3_reset(q);
    (void)sqlite3_clear_bindings(q);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

/* Takes what is stored under the change's key out of the sum. */
static int forget_row(struct sqlite_store *s, const struct store_change *c)
{
    sqlite3_stmt *q = s->get[c->kind];
    int rc = sqlite3_bind_text(q, 1, c->key, -1, SQLITE_STATIC);

    if (rc == SQLITE_OK && (rc = sqlite3_step(q)) == SQLITE_ROW) {
        const char *value = (const char *)sqlite3_column_text(q, 1);
        size_t n = (size_t)sqlite3_column_bytes(q, 1);

        if (value) {
            s->rows -= sqlite_row_sum(c->kind, c->key, (uint64_t)sqlite3_column_int64(q, 0), value, n);
            rc = SQLITE_DONE;
        } else {
            rc = SQLITE_NOMEM;
        }
    }
    (void)sqlite3_reset(q);
    (void)sqlite3_clear_bindings(q);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

static int write_change(struct sqlite_store *s, const struct store_change *c)
{
    sqlite3_stmt *q = c->value ? s->put[c->kind] : s->del[c->kind];
    int rc = forget_row(s, c);

    if (rc == SQLITE_OK)
        rc = sqlite3_bind_text(q, 1, c->key, -1, SQLITE_STATIC);

    if (rc == SQLITE_OK && c->value)
        rc = sqlite3_bind_int64(q, 2, (int64_t)c->revision);
    if (rc == SQLITE_OK && c->value)
        rc = sqlite3_bind_text(q, 3, c->value, -1, SQLITE_STATIC);
    if (rc == SQLITE_OK && c->value)
        s->rows += sqlite_row_sum(c->kind, c->key, c->revision, c->value, strlen(c->value));
    return rc == SQLITE_OK ? step(q) : rc;
}

static int write_meta(struct sqlite_store *s, uint64_t revision, uint64_t generations)
{
    uint64_t sum = s->rows + generations + sqlite_meta_sum(&s->base.id, revision);
    int rc = sqlite3_bind_int64(s->set_meta, 1, (int64_t)revision);

    if (rc == SQLITE_OK)
        rc = sqlite3_bind_int64(s->set_meta, 2, (int64_t)sum);
    return rc == SQLITE_OK ? step(s->set_meta) : rc;
}

static int write_changes(struct sqlite_store *s, const struct store_change *changes, size_t n)
{
    int rc = SQLITE_OK;

    for (size_t i = 0; i < n && rc == SQLITE_OK; i++)
        rc = write_change(s, &changes[i]);
    return rc == SQLITE_OK ? write_meta(s, changes[n - 1].revision, s->generations) : rc;
}

/* Takes back an open transaction. When even that fails, the connection's memory can no longer be
 * trusted. */
static void roll_back(struct sqlite_store *s, bool *ret_uncertain)
{
    if (!sqlite3_get_autocommit(s->db) &&
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL) != SQLITE_OK)
        *ret_uncertain = true;
}

static struct err *insert_generation(struct sqlite_store *s, uint64_t *ret_sum)
{
    struct random r = random_os();
    struct uuid id = uuid_random_v4(&r);
    CLEANUP_FREE char *insert =
        xasprintf("BEGIN IMMEDIATE;"
                  "INSERT INTO generation (id, begin) VALUES ('%s', %" PRIu64 ");"
                  "DELETE FROM generation WHERE number <= (SELECT max(number) FROM generation) - %u;",
                  UUID_STR(&id), s->base.revision, HISTORY_MAX);

    TRY(sqlite_run(s, insert, "open"));
    TRY(sqlite_sum_generations(s, ret_sum));
    int rc = write_meta(s, s->base.revision, *ret_sum);
    if (rc != SQLITE_OK)
        return sqlite_failure(s, rc, "open");
    return sqlite_run(s, "COMMIT", "open");
}

struct err *sqlite_begin_generation(struct sqlite_store *s)
{
    uint64_t sum;
    struct err *e = insert_generation(s, &sum);

    if (!e)
        s->generations = sum;
    else if (!sqlite3_get_autocommit(s->db))
        (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return e;
}

struct err *sqlite_commit_sync(struct store *base, const struct store_change *changes, size_t n,
                               bool *ret_uncertain)
{
    struct sqlite_store *s = sqlite_store_of(base);
    uint64_t rows = s->rows;

    if (s->no_generation) {
        TRY(sqlite_begin_generation(s));
        *ret_uncertain = true; /* the name of the life that went before is known by now: start again */
        return err_new(ERR_NO_SPACE, "the disk was full when the store %s was opened; now it has space: the control "
                                     "service must start again", s->path);
    }
    TRY(sqlite_run(s, "BEGIN IMMEDIATE", "write"));
    int rc = write_changes(s, changes, n);
    if (rc != SQLITE_OK) {
        struct err *e = sqlite_failure(s, rc, "write");
        s->rows = rows;
        roll_back(s, ret_uncertain);
        return e;
    }
    rc = sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL);
    if (rc == SQLITE_OK) {
        mark_set(s->mark_fd, &(struct mark){base->id, changes[n - 1].revision});
        return NULL;
    }
    struct err *e = sqlite_failure(s, rc, "commit to");
    s->rows = rows;
    /* A full disk is noticed while the log is written, before its last word, the commit mark, is
     * whole. Any other failure may have come at the flush, when the mark may have reached the disk
     * or not. */
    *ret_uncertain = rc != SQLITE_FULL;
    roll_back(s, ret_uncertain);
    return e;
}
