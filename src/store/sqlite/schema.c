/* The tables: made, recognized, checked, and brought up from those of older versions. */
#include "base/random.h"
#include "base/str.h"
#include "store/sqlite/sqlite_private.h"

#include <inttypes.h>

/* No index of the keys: see places.h. */
#define RECORDS                                                                                                        \
    "(id INTEGER PRIMARY KEY, key TEXT NOT NULL, revision INTEGER NOT NULL, value TEXT NOT NULL) STRICT;"

struct err *sqlite_create_schema(struct sqlite_store *s)
{
    struct random r = random_os();
    struct uuid id = uuid_random_v4(&r);
    CLEANUP_FREE char *sql =
        xasprintf("BEGIN IMMEDIATE;"
                  "PRAGMA application_id=%d;"
                  "PRAGMA user_version=%d;"
                  "CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT;"
                  "INSERT INTO meta VALUES ('store_id', '%s'), ('revision', 0), ('checksum', %" PRId64 ");"
                  "CREATE TABLE dataset " RECORDS
                  "CREATE TABLE container " RECORDS
                  "CREATE TABLE generation (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,"
                  " begin INTEGER NOT NULL) STRICT;"
                  "CREATE TABLE lease " RECORDS
                  "CREATE TABLE cordon " RECORDS
                  "CREATE TABLE fence " RECORDS
                  "COMMIT;",
                  APPLICATION_ID, SCHEMA_VERSION, UUID_STR(&id), (int64_t)sqlite_meta_sum(&(struct sqlite_store){.base.id = id}, 0));

    TRY(sqlite_run(s, sql, "create"));
    /* So that the file's own header says whose it is. */
    return sqlite_run(s, "PRAGMA wal_checkpoint(TRUNCATE)", "create");
}

struct err *sqlite_check_schema(struct sqlite_store *s, int64_t *ret_version)
{
    int64_t application, version, objects;

    TRY(sqlite_query_number(s, "PRAGMA application_id", &application));
    TRY(sqlite_query_number(s, "PRAGMA user_version", &version));
    TRY(sqlite_query_number(s, "SELECT count(*) FROM sqlite_schema", &objects));
    *ret_version = version;
    if (application == 0 && version == 0 && objects == 0)
        return NULL;
    if (application != APPLICATION_ID)
        return err_new(
            ERR_CORRUPT,
            "%s is a database of another program; move it away or name another directory", s->path);
    if (version > SCHEMA_VERSION)
        return err_new(
            ERR_UNSUPPORTED,
            "the store %s was written by a newer version of Flocker (schema %lld, this one "
            "knows %d); install that version again",
            s->path, (long long)version, SCHEMA_VERSION);
    if (version < 1)
        return sqlite_damaged(s, "its schema version is %" PRId64, version);
    return NULL;
}

struct err *sqlite_check_pages(struct sqlite_store *s)
{
    sqlite3_stmt *q = NULL;
    struct err *e = sqlite_prepare(s, "PRAGMA integrity_check(1)", &q);

    if (!e) {
        int rc = sqlite3_step(q);
        const char *said = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(q, 0) : NULL;
        if (!said)
            e = sqlite_failure(s, rc == SQLITE_ROW ? SQLITE_NOMEM : rc, "check");
        else if (!streq(said, "ok"))
            e = sqlite_damaged(s, "%.*s", (int)strcspn(said, "\n"), said);
    }
    (void)sqlite3_finalize(q);
    return e;
}

struct err *sqlite_read_meta(struct sqlite_store *s)
{
    sqlite3_stmt *q = NULL;
    int64_t revision, restored, settled;
    struct err *e;

    TRY(sqlite_query_number(s, "SELECT value FROM meta WHERE name = 'revision'", &revision));
    if (revision < 0)
        return sqlite_damaged(s, "its revision is %" PRId64, revision);
    atomic_store(&s->base.revision, (uint64_t)revision);
    TRY(sqlite_query_number(s, "SELECT coalesce((SELECT value FROM meta WHERE name = 'restored'), 0)", &restored));
    TRY(sqlite_query_number(s, "SELECT coalesce((SELECT value FROM meta WHERE name = 'settled'), 0)", &settled));
    s->restored = (uint64_t)restored;
    s->settled = settled != 0;
    e = sqlite_prepare(s, "SELECT value FROM meta WHERE name = 'store_id'", &q);
    if (!e) {
        int rc = sqlite3_step(q);
        const char *id = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(q, 0) : NULL;
        if (rc != SQLITE_ROW && rc != SQLITE_DONE)
            e = sqlite_failure(s, rc, "read");
        else if (!id || !uuid_parse_v4(id, &s->base.id))
            e = sqlite_damaged(s, "its id is no UUID");
    }
    (void)sqlite3_finalize(q);
    return e;
}

struct err *sqlite_add_checksum(struct sqlite_store *s)
{
    uint64_t sum, generations;
    int64_t there;

    TRY(sqlite_query_number(s, "SELECT count(*) FROM meta WHERE name = 'checksum'", &there));
    if (there)
        return sqlite_damaged(s, "it says that its schema version is 1, but it has a checksum, which that version had not");
    TRY(sqlite_run(s, "BEGIN IMMEDIATE", "upgrade"));
    TRY(sqlite_add_up(s, &sum));
    TRY(sqlite_run(s,
                   "CREATE TABLE IF NOT EXISTS generation (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,"
                   " begin INTEGER NOT NULL) STRICT",
                   "upgrade"));
    TRY(sqlite_sum_generations(s, &generations));
    sum += generations + sqlite_meta_sum(s, s->base.revision);
    CLEANUP_FREE char *sql = xasprintf("INSERT INTO meta VALUES ('checksum', %" PRId64 ");"
                                       "PRAGMA user_version=2;"
                                       "COMMIT",
                                       (int64_t)sum);
    return sqlite_run(s, sql, "upgrade");
}

/* The index of a UNIQUE column goes with its table only. Rows keep their numbers. */
static struct err *copy_table(struct sqlite_store *s, const char *table)
{
    CLEANUP_FREE char *sql = xasprintf("ALTER TABLE %s RENAME TO old;"
                                       "CREATE TABLE %s " RECORDS
                                       "INSERT INTO %s SELECT id, key, revision, value FROM old ORDER BY id;"
                                       "DROP TABLE old",
                                       table, table, table);

    return sqlite_run(s, sql, "upgrade");
}

struct err *sqlite_drop_indexes(struct sqlite_store *s)
{
    TRY(sqlite_run(s, "BEGIN IMMEDIATE", "upgrade"));
    for (int k = 0; k <= STORE_LEASE; k++) /* those that had one */
        TRY(copy_table(s, store_kind_name((enum store_kind)k)));
    TRY(sqlite_run(s, "PRAGMA user_version=3; COMMIT", "upgrade"));
    return sqlite_run(s, "PRAGMA wal_checkpoint(TRUNCATE)", "upgrade");
}

bool sqlite_has_table(const struct sqlite_store *s, enum store_kind kind)
{
    static const int64_t since[STORE_KIND_MAX] = {[STORE_CORDON] = 4, [STORE_FENCE] = 5};

    return s->version >= since[kind];
}

struct err *sqlite_add_tables(struct sqlite_store *s)
{
    return sqlite_run(s, "CREATE TABLE IF NOT EXISTS cordon " RECORDS "CREATE TABLE IF NOT EXISTS fence " RECORDS, "upgrade");
}

struct err *sqlite_know_tables(struct sqlite_store *s)
{
    s->generation_seed = GENERATION_SEED;
    TRY(sqlite_sum_generations(s, &s->generations));
    uint64_t sum = s->rows + s->generations + sqlite_meta_sum(s, s->base.revision);
    CLEANUP_FREE char *sql = xasprintf("BEGIN IMMEDIATE;"
                                       "UPDATE meta SET value = %" PRId64 " WHERE name = 'checksum';"
                                       "PRAGMA user_version=%d;"
                                       "COMMIT",
                                       (int64_t)sum, SCHEMA_VERSION);

    return sqlite_run(s, sql, "upgrade");
}
