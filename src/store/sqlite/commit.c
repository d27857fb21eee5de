/* Transactions: batches of changes, and the generation that each opening adds. */
#include "base/random.h"
#include "base/str.h"
#include "store/sqlite/mark.h"
#include "store/sqlite/sqlite_private.h"

#include <inttypes.h>

/* A record that a transaction added or, when the change has no value, deleted. */
struct move {
    const struct store_change *change;
    int64_t row;
};

struct moves {
    struct move *list;
    size_t n, cap;
};

struct err *sqlite_prepare_commits(struct sqlite_store *s)
{
    for (int k = 0; k < STORE_KIND_MAX; k++) {
        const char *table = store_kind_name((enum store_kind)k);
        CLEANUP_FREE char *get = xasprintf("SELECT key, revision, value FROM %s WHERE id = ?1", table);
        CLEANUP_FREE char *add = xasprintf("INSERT INTO %s (key, revision, value) VALUES (?1, ?2, ?3)", table);
        CLEANUP_FREE char *set = xasprintf("UPDATE %s SET revision = ?2, value = ?3 WHERE id = ?1", table);
        CLEANUP_FREE char *del = xasprintf("DELETE FROM %s WHERE id = ?1", table);

        if (!sqlite_has_table(s, (enum store_kind)k))
            continue;
        TRY(sqlite_prepare(s, get, &s->get[k]));
        TRY(sqlite_prepare(s, add, &s->add[k]));
        TRY(sqlite_prepare(s, set, &s->set[k]));
        TRY(sqlite_prepare(s, del, &s->del[k]));
    }
    return sqlite_prepare(s,
                   "UPDATE meta SET value = CASE name WHEN 'revision' THEN ?1 ELSE ?2 END"
                   " WHERE name IN ('revision', 'checksum')",
                   &s->set_meta);
}

static void reset(sqlite3_stmt *q)
{
    (void)sqlite3_reset(q);
    (void)sqlite3_clear_bindings(q);
}

/* One statement with its values; SQLite's result. Bindings point into the change, so they are
 * dropped. */
static int step(sqlite3_stmt *q)
{
    int rc = sqlite3_step(q);

    reset(q);
    return rc == SQLITE_DONE ? SQLITE_OK : rc;
}

int sqlite_find_row(struct sqlite_store *s, enum store_kind kind, const char *key, int64_t *ret)
{
    sqlite3_stmt *q = s->get[kind];
    size_t at = 0;

    *ret = 0;
    for (int64_t row; (row = places_next(&s->places[kind], key, &at));) {
        int rc = sqlite3_bind_int64(q, 1, row);
        if (rc != SQLITE_OK || (rc = sqlite3_step(q)) != SQLITE_ROW)
            return rc == SQLITE_DONE ? SQLITE_CORRUPT : rc;
        const char *found = (const char *)sqlite3_column_text(q, 0);
        if (!found)
            return SQLITE_NOMEM;
        if (streq(found, key)) {
            *ret = row;
            return SQLITE_OK;
        }
        reset(q);
    }
    return SQLITE_OK;
}

void sqlite_end_find(struct sqlite_store *s, enum store_kind kind)
{
    reset(s->get[kind]);
}

/* Finds what is stored under the change's key (*ret_row is 0 when nothing is), and takes it out of the sum. */
static int forget_row(struct sqlite_store *s, const struct store_change *c, int64_t *ret_row)
{
    int rc = sqlite_find_row(s, c->kind, c->key, ret_row);

    if (rc == SQLITE_OK && *ret_row) {
        sqlite3_stmt *q = s->get[c->kind];
        const char *value = (const char *)sqlite3_column_text(q, 2);
        size_t n = (size_t)sqlite3_column_bytes(q, 2);

        if (value)
            s->rows -= sqlite_row_sum(c->kind, c->key, (uint64_t)sqlite3_column_int64(q, 1), value, n);
        else
            rc = SQLITE_NOMEM;
    }
    sqlite_end_find(s, c->kind);
    return rc;
}

static int bind_value(sqlite3_stmt *q, const struct store_change *c)
{
    int rc = sqlite3_bind_int64(q, 2, (int64_t)c->revision);

    return rc == SQLITE_OK ? sqlite3_bind_text(q, 3, c->value, -1, SQLITE_STATIC) : rc;
}

/* What became of a place, so that it can be taken back. */
static void note_place(struct moves *moves, const struct store_change *c, int64_t row)
{
    moves->list = mem_grow(moves->list, moves->n, &moves->cap, sizeof(*moves->list));
    moves->list[moves->n++] = (struct move){c, row};
}

static int add_row(struct sqlite_store *s, const struct store_change *c, struct moves *moves)
{
    sqlite3_stmt *q = s->add[c->kind];
    int rc = sqlite3_bind_text(q, 1, c->key, -1, SQLITE_STATIC);

    if (rc == SQLITE_OK)
        rc = bind_value(q, c);
    if (rc == SQLITE_OK)
        rc = step(q);
    if (rc != SQLITE_OK)
        return rc;
    int64_t row = sqlite3_last_insert_rowid(s->db);
    if (row >= PLACE_ROW_MAX)
        return SQLITE_TOOBIG;
    places_add(&s->places[c->kind], c->key, row);
    note_place(moves, c, row);
    return SQLITE_OK;
}

static int set_row(struct sqlite_store *s, const struct store_change *c, int64_t row)
{
    sqlite3_stmt *q = s->set[c->kind];
    int rc = sqlite3_bind_int64(q, 1, row);

    if (rc == SQLITE_OK)
        rc = bind_value(q, c);
    return rc == SQLITE_OK ? step(q) : rc;
}

static int delete_row(struct sqlite_store *s, const struct store_change *c, int64_t row, struct moves *moves)
{
    sqlite3_stmt *q = s->del[c->kind];
    int rc = sqlite3_bind_int64(q, 1, row);

    if (rc == SQLITE_OK)
        rc = step(q);
    if (rc != SQLITE_OK)
        return rc;
    places_remove(&s->places[c->kind], c->key, row);
    note_place(moves, c, row);
    return SQLITE_OK;
}

static int write_change(struct sqlite_store *s, const struct store_change *c, struct moves *moves)
{
    int64_t row;
    int rc = forget_row(s, c, &row);

    if (rc != SQLITE_OK)
        return rc;
    if (!c->value)
        return row ? delete_row(s, c, row, moves) : SQLITE_OK;
    s->rows += sqlite_row_sum(c->kind, c->key, c->revision, c->value, strlen(c->value));
    return row ? set_row(s, c, row) : add_row(s, c, moves);
}

static int write_meta(struct sqlite_store *s, uint64_t revision, uint64_t generations)
{
    uint64_t sum = s->rows + generations + sqlite_meta_sum(s, revision);
    int rc = sqlite3_bind_int64(s->set_meta, 1, (int64_t)revision);

    if (rc == SQLITE_OK)
        rc = sqlite3_bind_int64(s->set_meta, 2, (int64_t)sum);
    return rc == SQLITE_OK ? step(s->set_meta) : rc;
}

static int write_settled(struct sqlite_store *s)
{
    s->settled = true;
    return sqlite3_exec(s->db, "UPDATE meta SET value = 1 WHERE name = 'settled'", NULL, NULL, NULL);
}

static int write_changes(struct sqlite_store *s, const struct store_change *changes, size_t n, struct moves *moves)
{
    int rc = SQLITE_OK;

    for (size_t i = 0; i < n && rc == SQLITE_OK; i++)
        rc = changes[i].kind == STORE_SETTLED ? write_settled(s) : write_change(s, &changes[i], moves);
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

/* In the transaction that begins the generation. */
static struct err *note_restore(struct sqlite_store *s)
{
    CLEANUP_FREE char *insert =
        xasprintf("INSERT OR REPLACE INTO meta VALUES ('restored', %" PRIu64 "), ('settled', 0)", s->base.revision);

    s->restored = s->base.revision;
    s->settled = false;
    return sqlite_run(s, insert, "open");
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
    if (s->put_back)
        TRY(note_restore(s));
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

    if (!e) {
        s->generations = sum;
        s->put_back = false;
    } else if (!sqlite3_get_autocommit(s->db)) {
        (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    }
    return e;
}

static void take_back(struct sqlite_store *s, const struct moves *moves)
{
    for (size_t i = moves->n; i-- > 0;) {
        const struct move *m = &moves->list[i];
        struct places *p = &s->places[m->change->kind];

        if (m->change->value)
            places_remove(p, m->change->key, m->row);
        else
            places_add(p, m->change->key, m->row);
    }
}

static struct err *commit_changes(struct sqlite_store *s, const struct store_change *changes, size_t n,
                                  struct moves *moves, bool *ret_uncertain)
{
    TRY(sqlite_run(s, "BEGIN IMMEDIATE", "write"));
    int rc = write_changes(s, changes, n, moves);
    if (rc != SQLITE_OK)
        return sqlite_failure(s, rc, "write");
    rc = sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        return NULL;
    /* A full disk is noticed while the log is written, before its last word, the commit mark, is
     * whole. Any other failure may have come at the flush, when the mark may have reached the disk
     * or not. */
    *ret_uncertain = rc != SQLITE_FULL;
    return sqlite_failure(s, rc, "commit to");
}

struct err *sqlite_commit_sync(struct store *base, const struct store_change *changes, size_t n, bool *ret_uncertain)
{
    struct sqlite_store *s = sqlite_store_of(base);
    uint64_t rows = s->rows;
    bool settled = s->settled;
    struct moves moves = {0};

    if (s->no_generation) {
        TRY(sqlite_begin_generation(s));
        *ret_uncertain = true; /* the name of the life that went before is known by now: start again */
        return err_new(ERR_NO_SPACE, "the disk was full when the store %s was opened; now it has space: the control "
                                     "service must start again", s->path);
    }
    sqlite_bound_log(s);
    if (base->uncertain) {
        *ret_uncertain = true;
        return err_new(ERR_IO, "cannot flush the store %s; check the disk", s->path);
    }
    struct err *e = commit_changes(s, changes, n, &moves, ret_uncertain);
    if (e) {
        s->rows = rows;
        s->settled = settled;
        take_back(s, &moves);
        roll_back(s, ret_uncertain);
    } else {
        mark_set(s->mark_fd, &(struct mark){base->id, changes[n - 1].revision});
    }
    free(moves.list);
    return e;
}
