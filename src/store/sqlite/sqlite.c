/* The store in one SQLite file (README.md says why it is set up like this). */
#include "base/random.h"
#include "base/str.h"
#include "store/sqlite/log_check.h"
#include "store/sqlite/mark.h"
#include "store/sqlite/sqlite_private.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define APPLICATION_ID 0x464c4b52 /* "FLKR", in the file's header */
#define SCHEMA_VERSION 2 /* 1: without checksum, maybe without generations */
#define LOCK_NAME "lock"
/* Of SQLite's page cache. The check at the start looks up every record in the index of the keys, in no order. */
#define CHECK_CACHE "PRAGMA cache_size=-65536"

struct sqlite_store {
    struct store base;
    char *path; /* of the database file, for messages */
    sqlite3 *db;
    int lock_fd;
    bool no_generation; /* the disk was full at the start: this life has no name, and changes nothing */
    int mark_fd;
    uint64_t rows;        /* sum of row_sum() of all records, as it must be */
    uint64_t generations; /* the same of the generations */
    sqlite3_stmt *get[STORE_KIND_MAX];
    sqlite3_stmt *put[STORE_KIND_MAX];
    sqlite3_stmt *del[STORE_KIND_MAX];
    sqlite3_stmt *set_meta;
};

static struct sqlite_store *of(struct store *s)
{
    return (struct sqlite_store *)s;
}

/* Errors */

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
        return "; restore it from a backup (flocker-control(8), \"THE STORE\"), and look for errors of "
               "the disk in the kernel's log";
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

/* An error from the connection's present state; `doing` completes "cannot ... the store". */
static struct err *failure(const struct sqlite_store *s, int rc, const char *doing)
{
    enum err_code code = code_of(s->db, rc);
    int errnum = sqlite3_system_errno(s->db);

    return err_new(code, "cannot %s the store %s: %s%s%s%s", doing, s->path, sqlite3_errmsg(s->db),
                   errnum ? ": " : "", errnum ? strerrordesc_np(errnum) : "", advice_of(code));
}

/* What is stored is damaged; `fmt` says what is wrong with it. */
static struct err *damaged(const struct sqlite_store *s, const char *fmt, ...) PRINTF_LIKE(2, 3);

static struct err *damaged(const struct sqlite_store *s, const char *fmt, ...)
{
    CLEANUP_FREE char *what = NULL;
    va_list ap;

    va_start(ap, fmt);
    if (vasprintf(&what, fmt, ap) < 0)
        what = NULL;
    va_end(ap);
    return err_new(ERR_CORRUPT, "the store %s is damaged: %s%s", s->path, what ? what : "unknown",
                   advice_of(ERR_CORRUPT));
}

static struct err *run(struct sqlite_store *s, const char *sql, const char *doing)
{
    int rc = sqlite3_exec(s->db, sql, NULL, NULL, NULL);

    return rc == SQLITE_OK ? NULL : failure(s, rc, doing);
}

static struct err *prepare(struct sqlite_store *s, const char *sql, sqlite3_stmt **ret)
{
    int rc = sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, ret, NULL);

    return rc == SQLITE_OK ? NULL : failure(s, rc, "read");
}

/* One number from a query that gives exactly one row. */
static struct err *query_number(struct sqlite_store *s, const char *sql, int64_t *ret)
{
    sqlite3_stmt *q = NULL;
    struct err *e = prepare(s, sql, &q);

    if (!e) {
        int rc = sqlite3_step(q);
        if (rc == SQLITE_ROW)
            *ret = sqlite3_column_int64(q, 0);
        else if (rc == SQLITE_DONE)
            e = damaged(s, "\"%s\" finds nothing", sql);
        else
            e = failure(s, rc, "read");
    }
    (void)sqlite3_finalize(q);
    return e;
}

/* Checksums. The store keeps one number over all that is in it: the sum of those of its records, and that of its id and
 * revision. A change of a record changes the sum by what it takes away and what it adds. */

static uint64_t row_sum(enum store_kind kind, const char *key, uint64_t revision, const char *value,
                        size_t n)
{
    uint64_t sum = XXH3_64bits_withSeed(key, strlen(key), (XXH64_hash_t)kind);

    return XXH3_64bits_withSeed(value, n, sum ^ revision * 0x9e3779b97f4a7c15);
}

static uint64_t meta_sum(const struct uuid *id, uint64_t revision)
{
    return XXH3_64bits_withSeed(id->b, sizeof(id->b), revision);
}

/* Directory and lock */

static struct err *directory_error(int errnum, const char *what, const char *path)
{
    if (errnum == EROFS)
        return err_new(ERR_DENIED,
                       "%s %s: the file system is read-only; the store must be writable", what,
                       path);
    return err_errno(errnum, "%s %s", what, path);
}

static struct err *sync_directory(const char *path)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0 || fsync(fd) < 0)
        return directory_error(errno, "cannot flush directory", path);
    return NULL;
}

static struct err *make_directory(const char *dir)
{
    CLEANUP_FREE char *parent = xasprintf("%s/..", dir);

    if (mkdir(dir, 0700) < 0) {
        if (errno == EEXIST)
            return NULL;
        return directory_error(errno, "cannot make the store's directory", dir);
    }
    return sync_directory(parent);
}

static struct err *busy_error(const char *dir, int fd)
{
    char holder[32] = "";
    ssize_t n = pread(fd, holder, sizeof(holder) - 1, 0);

    holder[n > 0 ? n : 0] = '\0';
    holder[strspn(holder, "0123456789")] = '\0';
    return err_new(ERR_BUSY, "the store in %s is used by another process%s%s; end that one first",
                   dir, *holder ? ", pid " : "", holder);
}

/* The lock goes with the descriptor, however the process ends. The file stays: removing it would
 * let two processes lock two files of the same name. */
static struct err *take_lock(const char *dir, int *ret_fd)
{
    CLEANUP_FREE char *path = xasprintf("%s/" LOCK_NAME, dir);
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    char pid[32];

    if (fd < 0)
        return directory_error(errno, "cannot open", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK)
            return busy_error(dir, fd);
        return directory_error(errno, "cannot lock", path);
    }
    int n = snprintf(pid, sizeof(pid), "%ld\n", (long)getpid());
    /* The pid is for the message above only; a full disk must not keep a store from opening. */
    if (ftruncate(fd, 0) == 0)
        (void)!pwrite(fd, pid, (size_t)n, 0);
    *ret_fd = steal_fd(&fd);
    return NULL;
}

static uint32_t big_endian(const unsigned char *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static bool has_magic(int fd, const struct stat *st)
{
    char magic[16];

    return S_ISREG(st->st_mode) && pread(fd, magic, sizeof(magic), 0) == (ssize_t)sizeof(magic) &&
           memcmp(magic, "SQLite format 3", 16) == 0;
}

/* An application id of 0 is decided later: the header may still be in the log. */
struct err *sqlite_check_header(int fd, const char *path)
{
    unsigned char header[100];
    struct stat st;

    if (fstat(fd, &st) < 0)
        return err_errno(errno, "cannot look at %s", path);
    ssize_t n = S_ISREG(st.st_mode) ? pread(fd, header, sizeof(header), 0) : 0;
    if (n < 0)
        return err_errno(errno, "cannot read %s", path);
    if (n < (ssize_t)sizeof(header) || !has_magic(fd, &st))
        return err_new(ERR_CORRUPT,
                       "%s is not a Flocker store; move it away or name another directory", path);
    uint32_t application = big_endian(header + 68);
    if (application != 0 && application != APPLICATION_ID)
        return err_new(ERR_CORRUPT,
                       "%s belongs to another program (application id 0x%08x); move it away "
                       "or name another directory",
                       path, application);
    /* SQLite would take a higher one for a file that it may read only. */
    if (header[18] > 2 || header[19] > 2)
        return err_new(ERR_CORRUPT,
                       "the store %s is damaged: its header names file format %d/%d%s", path,
                       header[18], header[19], advice_of(ERR_CORRUPT));
    return NULL;
}

/* Makes the file, or looks at its header before SQLite may change a byte of something that is not
 * ours. Rubbish with a rollback journal beside it is let pass: its creation was cut short, and SQLite takes that back. */
static struct err *check_file(const char *dir, const char *path)
{
    CLEANUP_FREE char *journal = xasprintf("%s-journal", path);
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct stat st;

    if (fd < 0)
        return directory_error(errno, "cannot open the store", path);
    if (fstat(fd, &st) < 0)
        return err_errno(errno, "cannot look at %s", path);
    if (S_ISREG(st.st_mode) && st.st_size == 0)
        return sync_directory(dir);
    if (S_ISREG(st.st_mode) && !has_magic(fd, &st) && access(journal, F_OK) == 0)
        return NULL;
    return sqlite_check_header(fd, path);
}

/* Schema */

static struct err *create_schema(struct sqlite_store *s)
{
    struct random r = random_os();
    struct uuid id = uuid_random_v4(&r);
    CLEANUP_FREE char *sql =
        xasprintf("BEGIN IMMEDIATE;"
                  "PRAGMA application_id=%d;"
                  "PRAGMA user_version=%d;"
                  "CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT;"
                  "INSERT INTO meta VALUES ('store_id', '%s'), ('revision', 0), ('checksum', %" PRId64 ");"
                  "CREATE TABLE dataset (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,"
                  " revision INTEGER NOT NULL, value TEXT NOT NULL) STRICT;"
                  "CREATE TABLE container (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,"
                  " revision INTEGER NOT NULL, value TEXT NOT NULL) STRICT;"
                  "CREATE TABLE generation (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,"
                  " begin INTEGER NOT NULL) STRICT;"
                  "CREATE TABLE lease (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,"
                  " revision INTEGER NOT NULL, value TEXT NOT NULL) STRICT;"
                  "COMMIT;",
                  APPLICATION_ID, SCHEMA_VERSION, UUID_STR(&id), (int64_t)meta_sum(&id, 0));

    TRY(run(s, sql, "create"));
    /* So that the file's own header says whose it is. */
    return run(s, "PRAGMA wal_checkpoint(TRUNCATE)", "create");
}

/* *ret_version is 0 when the file is empty (a new store, or one whose creation was cut short). */
static struct err *check_schema(struct sqlite_store *s, int64_t *ret_version)
{
    int64_t application, version, objects;

    TRY(query_number(s, "PRAGMA application_id", &application));
    TRY(query_number(s, "PRAGMA user_version", &version));
    TRY(query_number(s, "SELECT count(*) FROM sqlite_schema", &objects));
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
        return damaged(s, "its schema version is %" PRId64, version);
    return NULL;
}

/* Reads the whole file: SQLite's own checks of its pages and indexes. */
static struct err *check_pages(struct sqlite_store *s)
{
    sqlite3_stmt *q = NULL;
    struct err *e = prepare(s, "PRAGMA integrity_check(1)", &q);

    if (!e) {
        int rc = sqlite3_step(q);
        const char *said = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(q, 0) : NULL;
        if (!said)
            e = failure(s, rc == SQLITE_ROW ? SQLITE_NOMEM : rc, "check");
        else if (!streq(said, "ok"))
            e = damaged(s, "%.*s", (int)strcspn(said, "\n"), said);
    }
    (void)sqlite3_finalize(q);
    return e;
}

/* The same with a larger cache for that time. */
static struct err *check_pages_fast(struct sqlite_store *s)
{
    int64_t usual;

    TRY(query_number(s, "PRAGMA cache_size", &usual));
    CLEANUP_FREE char *back = xasprintf("PRAGMA cache_size=%" PRId64 "; PRAGMA shrink_memory", usual);
    TRY(run(s, CHECK_CACHE, "open"));
    TRY(check_pages(s));
    return run(s, back, "open");
}

static struct err *read_meta(struct sqlite_store *s)
{
    sqlite3_stmt *q = NULL;
    int64_t revision;
    struct err *e;

    TRY(query_number(s, "SELECT value FROM meta WHERE name = 'revision'", &revision));
    if (revision < 0)
        return damaged(s, "its revision is %" PRId64, revision);
    atomic_store(&s->base.revision, (uint64_t)revision);
    e = prepare(s, "SELECT value FROM meta WHERE name = 'store_id'", &q);
    if (!e) {
        int rc = sqlite3_step(q);
        const char *id = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(q, 0) : NULL;
        if (rc != SQLITE_ROW && rc != SQLITE_DONE)
            e = failure(s, rc, "read");
        else if (!id || !uuid_parse_v4(id, &s->base.id))
            e = damaged(s, "its id is no UUID");
    }
    (void)sqlite3_finalize(q);
    return e;
}

static struct err *prepare_all(struct sqlite_store *s)
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

        TRY(prepare(s, get, &s->get[k]));
        TRY(prepare(s, put, &s->put[k]));
        TRY(prepare(s, del, &s->del[k]));
    }
    return prepare(s,
                   "UPDATE meta SET value = CASE name WHEN 'revision' THEN ?1 ELSE ?2 END"
                   " WHERE name IN ('revision', 'checksum')",
                   &s->set_meta);
}

/* Transactions */

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
            s->rows -= row_sum(c->kind, c->key, (uint64_t)sqlite3_column_int64(q, 0), value, n);
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
        s->rows += row_sum(c->kind, c->key, c->revision, c->value, strlen(c->value));
    return rc == SQLITE_OK ? step(q) : rc;
}

static int write_meta(struct sqlite_store *s, uint64_t revision, uint64_t generations)
{
    uint64_t sum = s->rows + generations + meta_sum(&s->base.id, revision);
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

static struct err *sum_generations(struct sqlite_store *s, uint64_t *ret)
{
    sqlite3_stmt *q = NULL;
    struct err *e = prepare(s, "SELECT id, begin FROM generation", &q);
    int rc = SQLITE_DONE;

    *ret = 0;
    while (!e && (rc = sqlite3_step(q)) == SQLITE_ROW) {
        const char *id = (const char *)sqlite3_column_text(q, 0);

        if (!id) {
            e = failure(s, SQLITE_NOMEM, "read");
            break;
        }
        *ret += row_sum(STORE_KIND_MAX, id, (uint64_t)sqlite3_column_int64(q, 1), "", 0);
    }
    if (!e && rc != SQLITE_DONE)
        e = failure(s, rc, "read");
    (void)sqlite3_finalize(q);
    return e;
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

    TRY(run(s, insert, "open"));
    TRY(sum_generations(s, ret_sum));
    int rc = write_meta(s, s->base.revision, *ret_sum);
    if (rc != SQLITE_OK)
        return failure(s, rc, "open");
    return run(s, "COMMIT", "open");
}

/* Durable before anybody hears of it: WAL and synchronous=FULL. */
static struct err *begin_generation(struct sqlite_store *s)
{
    uint64_t sum;
    struct err *e = insert_generation(s, &sum);

    if (!e)
        s->generations = sum;
    else if (!sqlite3_get_autocommit(s->db))
        (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return e;
}

static struct err *commit_sync(struct store *base, const struct store_change *changes, size_t n,
                               bool *ret_uncertain)
{
    struct sqlite_store *s = of(base);
    uint64_t rows = s->rows;

    if (s->no_generation) {
        TRY(begin_generation(s));
        *ret_uncertain = true; /* the name of the life that went before is known by now: start again */
        return err_new(ERR_NO_SPACE, "the disk was full when the store %s was opened; now it has space: the control "
                                     "service must start again", s->path);
    }
    TRY(run(s, "BEGIN IMMEDIATE", "write"));
    int rc = write_changes(s, changes, n);
    if (rc != SQLITE_OK) {
        struct err *e = failure(s, rc, "write");
        s->rows = rows;
        roll_back(s, ret_uncertain);
        return e;
    }
    rc = sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL);
    if (rc == SQLITE_OK) {
        mark_set(s->mark_fd, &(struct mark){base->id, changes[n - 1].revision});
        return NULL;
    }
    struct err *e = failure(s, rc, "commit to");
    s->rows = rows;
    /* A full disk is noticed while the log is written, before its last word, the commit mark, is
     * whole. Any other failure may have come at the flush, when the mark may have reached the disk
     * or not. */
    *ret_uncertain = rc != SQLITE_FULL;
    roll_back(s, ret_uncertain);
    return e;
}

/* Adds the records up into *sum; `fn` may be NULL. */
static struct err *read_table(struct sqlite_store *s, enum store_kind kind, uint64_t *sum,
                              store_record_fn *fn, void *cookie)
{
    CLEANUP_FREE char *sql =
        xasprintf("SELECT key, value, revision FROM %s ORDER BY id", store_kind_name(kind));
    sqlite3_stmt *q = NULL;
    struct err *e = prepare(s, sql, &q);
    int rc = SQLITE_DONE;

    while (!e && (rc = sqlite3_step(q)) == SQLITE_ROW) {
        const char *key = (const char *)sqlite3_column_text(q, 0);
        const char *value = (const char *)sqlite3_column_text(q, 1);
        size_t n = (size_t)sqlite3_column_bytes(q, 1);

        if (!key || !value) {
            e = failure(s, SQLITE_NOMEM, "read");
            break;
        }
        *sum += row_sum(kind, key, (uint64_t)sqlite3_column_int64(q, 2), value, n);
        e = fn ? fn(cookie, kind, key, value, n) : NULL;
    }
    if (!e && rc != SQLITE_DONE)
        e = failure(s, rc, "read");
    (void)sqlite3_finalize(q);
    return e;
}

static struct err *read_sync(struct store *base, store_record_fn *fn, void *cookie)
{
    struct sqlite_store *s = of(base);
    uint64_t sum = 0;

    for (int k = 0; k < STORE_KIND_MAX; k++)
        TRY(read_table(s, (enum store_kind)k, &sum, fn, cookie));
    if (sum != s->rows)
        return damaged(s, "its records do not add up to their checksum (a record was damaged, or "
                          "changed by another program)");
    return NULL;
}

/* From schema 1: the checksum, and the generations. */
static struct err *upgrade(struct sqlite_store *s)
{
    uint64_t sum = 0, generations;

    TRY(run(s, "BEGIN IMMEDIATE", "upgrade"));
    for (int k = 0; k < STORE_KIND_MAX; k++)
        TRY(read_table(s, (enum store_kind)k, &sum, NULL, NULL));
    TRY(run(s,
            "CREATE TABLE IF NOT EXISTS generation (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,"
            " begin INTEGER NOT NULL) STRICT",
            "upgrade"));
    TRY(sum_generations(s, &generations));
    sum += generations + meta_sum(&s->base.id, s->base.revision);
    CLEANUP_FREE char *sql = xasprintf("INSERT INTO meta VALUES ('checksum', %" PRId64 ");"
                                       "PRAGMA user_version=%d;"
                                       "COMMIT",
                                       (int64_t)sum, SCHEMA_VERSION);
    return run(s, sql, "upgrade");
}

/* Adds all up before anything is written to the store. */
static struct err *check_sum(struct sqlite_store *s)
{
    int64_t sum;

    TRY(query_number(s, "SELECT value FROM meta WHERE name = 'checksum'", &sum));
    TRY(sum_generations(s, &s->generations));
    s->rows = (uint64_t)sum - s->generations - meta_sum(&s->base.id, s->base.revision);
    return read_sync(&s->base, NULL, NULL);
}

static struct err *read_history_sync(struct store *base, struct history *ret)
{
    struct sqlite_store *s = of(base);
    sqlite3_stmt *q = NULL;
    struct err *e = prepare(s, "SELECT id, begin FROM generation ORDER BY number", &q);
    int rc = SQLITE_DONE;
    size_t cap = 0;

    ret->store = base->id;
    while (!e && (rc = sqlite3_step(q)) == SQLITE_ROW) {
        const char *id = (const char *)sqlite3_column_text(q, 0);
        int64_t begin = sqlite3_column_int64(q, 1);
        struct generation g = {.begin = (uint64_t)begin};

        if (!id || !uuid_parse_v4(id, &g.id) || begin < 0) {
            e = err_new(ERR_CORRUPT, "the store %s is damaged: its generations cannot be read", s->path);
            break;
        }
        ret->generations = mem_grow(ret->generations, ret->n, &cap, sizeof(*ret->generations));
        ret->generations[ret->n++] = g;
    }
    if (!e && rc != SQLITE_DONE)
        e = failure(s, rc, "read");
    (void)sqlite3_finalize(q);
    return e;
}

/* Opening and closing */

static void close_store(struct store *base)
{
    struct sqlite_store *s = of(base);

    for (int k = 0; k < STORE_KIND_MAX; k++) {
        (void)sqlite3_finalize(s->get[k]);
        (void)sqlite3_finalize(s->put[k]);
        (void)sqlite3_finalize(s->del[k]);
    }
    (void)sqlite3_finalize(s->set_meta);
    (void)sqlite3_close(s->db); /* checkpoints; when it cannot, the log stays and is replayed */
    mem_closep(&s->mark_fd);
    mem_closep(&s->lock_fd);
    free(s->path);
    free(s);
}

static const struct store_ops ops = {
    .name = "sqlite",
    .read_sync = read_sync,
    .read_history_sync = read_history_sync,
    .commit_sync = commit_sync,
    .backup_begin_sync = sqlite_backup_begin,
    .close = close_store,
};

/* What was acknowledged must be there. */
static struct err *check_mark(const struct sqlite_store *s, const struct mark *m)
{
    CLEANUP_FREE char *advice =
        xasprintf("; restore the store from a backup, or, when you put a backup there yourself, "
                  "remove the file " MARK_NAME " beside it (flocker-control(8), \"THE STORE\")");

    if (!uuid_eq(&m->store, &s->base.id))
        return err_new(ERR_CORRUPT, "%s is not the store that was here before (%s)%s", s->path,
                       UUID_STR(&m->store), advice);
    if (m->revision > s->base.revision)
        return err_new(ERR_CORRUPT,
                       "the store %s lost changes: it ends at revision %" PRIu64 ", but %" PRIu64
                       " was acknowledged%s",
                       s->path, s->base.revision, m->revision, advice);
    return NULL;
}

static struct err *open_database(struct sqlite_store *s, const struct mark *m)
{
    int64_t version, wal;
    int rc = sqlite3_open_v2(
        s->path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);

    if (rc != SQLITE_OK)
        return failure(s, rc, "open");
    (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    /* A store that is refused is left as it is. */
    (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    TRY(run(s, "PRAGMA locking_mode=EXCLUSIVE", "open"));
    TRY(check_schema(s, &version));
    if (version == 0 && s->mark_fd >= 0)
        return err_new(ERR_CORRUPT,
                       "the store %s is empty or gone, but store %s with revision %" PRIu64
                       " was there; restore it from a backup, or remove the file " MARK_NAME
                       " beside it to begin anew (flocker-control(8), \"THE STORE\")",
                       s->path, UUID_STR(&m->store), m->revision);
    TRY(check_pages_fast(s));
    TRY(run(s, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL", "open"));
    TRY(query_number(s, "SELECT journal_mode = 'wal' FROM pragma_journal_mode", &wal));
    if (!wal)
        return err_new(ERR_UNSUPPORTED, "the store %s cannot use a write-ahead log here", s->path);
    if (version == 0)
        TRY(create_schema(s));
    TRY(read_meta(s));
    if (s->mark_fd >= 0)
        TRY(check_mark(s, m));
    if (version == 1)
        TRY(upgrade(s));
    TRY(check_sum(s));
    TRY(prepare_all(s));
    struct err *e = begin_generation(s);
    s->no_generation = err_is(e, ERR_NO_SPACE);
    if (e && !s->no_generation)
        return e;
    err_free(e);
    (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
    return NULL;
}

/* Brings the mark up to the store, or makes it. */
static struct err *renew_mark(struct sqlite_store *s, const char *dir)
{
    struct mark m = {s->base.id, s->base.revision};

    if (s->mark_fd < 0)
        return mark_make(dir, &m, &s->mark_fd);
    mark_set(s->mark_fd, &m);
    return NULL;
}

/* A restore that was cut short has taken the old store away, or its log, and not yet put the new one there. */
static struct err *check_no_restore(const char *dir)
{
    CLEANUP_FREE char *path = xasprintf("%s/" SQLITE_STORE_RESTORING, dir);

    if (access(path, F_OK) == 0)
        return err_new(ERR_CONFLICT,
                       "a restore of the store in %s was cut short (%s is there); run flocker-control "
                       "--restore again",
                       dir, path);
    return NULL;
}

static struct err *open_directory(struct sqlite_store *s, const char *dir)
{
    CLEANUP_FREE char *log = xasprintf("%s-wal", s->path);
    struct mark m = {0};

    TRY(make_directory(dir));
    TRY(take_lock(dir, &s->lock_fd));
    TRY(check_no_restore(dir));
    TRY(mark_open(dir, &m, &s->mark_fd));
    TRY(check_file(dir, s->path));
    TRY(log_check(log));
    TRY(open_database(s, &m));
    return renew_mark(s, dir);
}

struct err *store_sqlite_open(const char *dir, struct store **ret)
{
    struct sqlite_store *s = xcalloc(1, sizeof(*s));
    struct err *e;

    s->base.ops = &ops;
    s->lock_fd = s->mark_fd = -1;
    s->path = xasprintf("%s/" SQLITE_STORE_FILE, dir);
    e = open_directory(s, dir);
    if (e) {
        close_store(&s->base);
        return e;
    }
    *ret = &s->base;
    return NULL;
}

/* For copy.c */

sqlite3 *sqlite_store_database(struct store *s)
{
    return of(s)->db;
}

struct err *sqlite_store_failure(sqlite3 *db, const char *path, int rc, const char *doing)
{
    struct sqlite_store s = {.db = db, .path = (char *)path};

    return failure(&s, rc, doing);
}

struct err *sqlite_sync_directory(const char *path)
{
    return sync_directory(path);
}

struct err *sqlite_take_directory(const char *dir, int *ret_lock)
{
    TRY(make_directory(dir));
    return take_lock(dir, ret_lock);
}

static struct err *check_file_of_store(struct sqlite_store *s, const char *uri)
{
    int64_t version;
    int rc = sqlite3_open_v2(uri, &s->db,
                             SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
                             NULL);

    if (rc != SQLITE_OK)
        return failure(s, rc, "open");
    TRY(check_schema(s, &version));
    if (version == 0)
        return damaged(s, "it is empty");
    if (version != SCHEMA_VERSION)
        return err_new(ERR_UNSUPPORTED, "%s was written by an older version; open it with flocker-control --data-path once, "
                                        "as store.sqlite in a directory of its own", s->path);
    TRY(check_pages(s));
    TRY(read_meta(s));
    return check_sum(s);
}

struct err *sqlite_open_file(const char *path, const char *uri, struct store **ret)
{
    struct sqlite_store *s = xcalloc(1, sizeof(*s));

    s->base.ops = &ops;
    s->lock_fd = s->mark_fd = -1;
    s->path = xstrdup(path);
    struct err *e = check_file_of_store(s, uri);
    if (e) {
        close_store(&s->base);
        return e;
    }
    *ret = &s->base;
    return NULL;
}
