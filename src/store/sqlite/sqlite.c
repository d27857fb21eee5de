/* The store in one SQLite file (README.md says why it is set up like this). */
#include "base/random.h"
#include "base/str.h"
#include "store/backend.h"

#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define APPLICATION_ID 0x464c4b52 /* "FLKR", in the file's header */
#define SCHEMA_VERSION 1
#define FILE_NAME "store.sqlite"
#define LOCK_NAME "lock"

struct sqlite_store {
    struct store base;
    char *path; /* of the database file, for messages */
    sqlite3 *db;
    int lock_fd;
    bool no_generation; /* the disk was full at the start: this life has no name, and changes nothing */
    sqlite3_stmt *put[STORE_KIND_MAX];
    sqlite3_stmt *del[STORE_KIND_MAX];
    sqlite3_stmt *set_revision;
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
        return "; the file is damaged: restore it from a backup";
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
            e = err_new(ERR_CORRUPT, "the store %s is damaged: \"%s\" finds nothing", s->path, sql);
        else
            e = failure(s, rc, "read");
    }
    (void)sqlite3_finalize(q);
    return e;
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

/* Makes the file, or looks at its header before SQLite may change a byte of something that is not
 * ours. An application id of 0 is decided later: the header may still be in the log. */
static struct err *check_file(const char *dir, const char *path)
{
    unsigned char header[100];
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct stat st;

    if (fd < 0)
        return directory_error(errno, "cannot open the store", path);
    if (fstat(fd, &st) < 0)
        return err_errno(errno, "cannot look at %s", path);
    if (S_ISREG(st.st_mode) && st.st_size == 0)
        return sync_directory(dir);
    ssize_t n = S_ISREG(st.st_mode) ? pread(fd, header, sizeof(header), 0) : 0;
    if (n < 0)
        return err_errno(errno, "cannot read %s", path);
    if (n < (ssize_t)sizeof(header) || memcmp(header, "SQLite format 3", 16) != 0)
        return err_new(ERR_CORRUPT,
                       "%s is not a Flocker store; move it away or name another directory", path);
    uint32_t application = big_endian(header + 68);
    if (application != 0 && application != APPLICATION_ID)
        return err_new(ERR_CORRUPT,
                       "%s belongs to another program (application id 0x%08x); move it away "
                       "or name another directory",
                       path, application);
    return NULL;
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
                  "INSERT INTO meta VALUES ('store_id', '%s'), ('revision', 0);"
                  "CREATE TABLE dataset (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,"
                  " revision INTEGER NOT NULL, value TEXT NOT NULL) STRICT;"
                  "CREATE TABLE container (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,"
                  " revision INTEGER NOT NULL, value TEXT NOT NULL) STRICT;"
                  "CREATE TABLE generation (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,"
                  " begin INTEGER NOT NULL) STRICT;"
                  "CREATE TABLE lease (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,"
                  " revision INTEGER NOT NULL, value TEXT NOT NULL) STRICT;"
                  "COMMIT;",
                  APPLICATION_ID, SCHEMA_VERSION, UUID_STR(&id));

    TRY(run(s, sql, "create"));
    /* So that the file's own header says whose it is. */
    return run(s, "PRAGMA wal_checkpoint(TRUNCATE)", "create");
}

/* Whether the file is empty (a new store, or one whose creation was cut short). */
static struct err *check_schema(struct sqlite_store *s, bool *ret_empty)
{
    int64_t application, version, objects;

    TRY(query_number(s, "PRAGMA application_id", &application));
    TRY(query_number(s, "PRAGMA user_version", &version));
    TRY(query_number(s, "SELECT count(*) FROM sqlite_schema", &objects));
    *ret_empty = application == 0 && version == 0 && objects == 0;
    if (*ret_empty)
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
    if (version != SCHEMA_VERSION)
        return err_new(ERR_CORRUPT, "the store %s is damaged: schema version %lld", s->path,
                       (long long)version);
    return NULL;
}

static struct err *read_meta(struct sqlite_store *s)
{
    sqlite3_stmt *q = NULL;
    int64_t revision;
    struct err *e;

    TRY(query_number(s, "SELECT value FROM meta WHERE name = 'revision'", &revision));
    if (revision < 0)
        return err_new(ERR_CORRUPT, "the store %s is damaged: revision %lld", s->path,
                       (long long)revision);
    atomic_store(&s->base.revision, (uint64_t)revision);
    e = prepare(s, "SELECT value FROM meta WHERE name = 'store_id'", &q);
    if (!e) {
        int rc = sqlite3_step(q);
        const char *id = rc == SQLITE_ROW ? (const char *)sqlite3_column_text(q, 0) : NULL;
        if (rc != SQLITE_ROW && rc != SQLITE_DONE)
            e = failure(s, rc, "read");
        else if (!id || !uuid_parse_v4(id, &s->base.id))
            e = err_new(ERR_CORRUPT, "the store %s is damaged: its id is no UUID", s->path);
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

        TRY(prepare(s, put, &s->put[k]));
        TRY(prepare(s, del, &s->del[k]));
    }
    return prepare(s, "UPDATE meta SET value = ?1 WHERE name = 'revision'", &s->set_revision);
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

static int write_change(struct sqlite_store *s, const struct store_change *c)
{
    sqlite3_stmt *q = c->value ? s->put[c->kind] : s->del[c->kind];
    int rc = sqlite3_bind_text(q, 1, c->key, -1, SQLITE_STATIC);

    if (rc == SQLITE_OK && c->value)
        rc = sqlite3_bind_int64(q, 2, (int64_t)c->revision);
    if (rc == SQLITE_OK && c->value)
        rc = sqlite3_bind_text(q, 3, c->value, -1, SQLITE_STATIC);
    return rc == SQLITE_OK ? step(q) : rc;
}

static int write_changes(struct sqlite_store *s, const struct store_change *changes, size_t n)
{
    int rc = SQLITE_OK;

    for (size_t i = 0; i < n && rc == SQLITE_OK; i++)
        rc = write_change(s, &changes[i]);
    if (rc == SQLITE_OK)
        rc = sqlite3_bind_int64(s->set_revision, 1, (int64_t)changes[n - 1].revision);
    return rc == SQLITE_OK ? step(s->set_revision) : rc;
}

/* Takes back an open transaction. When even that fails, the connection's memory can no longer be
 * trusted. */
static void roll_back(struct sqlite_store *s, bool *ret_uncertain)
{
    if (!sqlite3_get_autocommit(s->db) &&
        sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL) != SQLITE_OK)
        *ret_uncertain = true;
}

/* Durable before anybody hears of it: WAL and synchronous=FULL. */
static struct err *begin_generation(struct sqlite_store *s)
{
    struct random r = random_os();
    struct uuid id = uuid_random_v4(&r);
    CLEANUP_FREE char *sql =
        xasprintf("BEGIN IMMEDIATE;"
                  "INSERT INTO generation (id, begin) SELECT '%s', value FROM meta WHERE name = 'revision';"
                  "DELETE FROM generation WHERE number <= (SELECT max(number) FROM generation) - %u;"
                  "COMMIT;",
                  UUID_STR(&id), HISTORY_MAX);

    struct err *e = run(s, sql, "open");
    if (e && !sqlite3_get_autocommit(s->db))
        (void)sqlite3_exec(s->db, "ROLLBACK", NULL, NULL, NULL);
    return e;
}

static struct err *commit_sync(struct store *base, const struct store_change *changes, size_t n,
                               bool *ret_uncertain)
{
    struct sqlite_store *s = of(base);

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
        roll_back(s, ret_uncertain);
        return e;
    }
    rc = sqlite3_exec(s->db, "COMMIT", NULL, NULL, NULL);
    if (rc == SQLITE_OK)
        return NULL;
    struct err *e = failure(s, rc, "commit to");
    /* A full disk is noticed while the log is written, before its last word, the commit mark, is
     * whole. Any other failure may have come at the flush, when the mark may have reached the disk
     * or not. */
    *ret_uncertain = rc != SQLITE_FULL;
    roll_back(s, ret_uncertain);
    return e;
}

static struct err *read_table(struct sqlite_store *s, enum store_kind kind, store_record_fn *fn,
                              void *cookie)
{
    CLEANUP_FREE char *sql =
        xasprintf("SELECT key, value FROM %s ORDER BY id", store_kind_name(kind));
    sqlite3_stmt *q = NULL;
    struct err *e = prepare(s, sql, &q);
    int rc = SQLITE_DONE;

    while (!e && (rc = sqlite3_step(q)) == SQLITE_ROW) {
        const char *key = (const char *)sqlite3_column_text(q, 0);
        const char *value = (const char *)sqlite3_column_text(q, 1);
        size_t n = (size_t)sqlite3_column_bytes(q, 1);

        e = key && value ? fn(cookie, kind, key, value, n) : failure(s, SQLITE_NOMEM, "read");
    }
    if (!e && rc != SQLITE_DONE)
        e = failure(s, rc, "read");
    (void)sqlite3_finalize(q);
    return e;
}

static struct err *read_sync(struct store *base, store_record_fn *fn, void *cookie)
{
    for (int k = 0; k < STORE_KIND_MAX; k++)
        TRY(read_table(of(base), (enum store_kind)k, fn, cookie));
    return NULL;
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
        (void)sqlite3_finalize(s->put[k]);
        (void)sqlite3_finalize(s->del[k]);
    }
    (void)sqlite3_finalize(s->set_revision);
    (void)sqlite3_close(s->db); /* checkpoints; when it cannot, the log stays and is replayed */
    mem_closep(&s->lock_fd);
    free(s->path);
    free(s);
}

static const struct store_ops ops = {
    .name = "sqlite",
    .read_sync = read_sync,
    .read_history_sync = read_history_sync,
    .commit_sync = commit_sync,
    .close = close_store,
};

static struct err *open_database(struct sqlite_store *s)
{
    bool empty;
    int64_t wal;
    int rc = sqlite3_open_v2(
        s->path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);

    if (rc != SQLITE_OK)
        return failure(s, rc, "open");
    (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    TRY(run(s, "PRAGMA locking_mode=EXCLUSIVE", "open"));
    TRY(check_schema(s, &empty));
    TRY(run(s, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL", "open"));
    TRY(query_number(s, "SELECT journal_mode = 'wal' FROM pragma_journal_mode", &wal));
    if (!wal)
        return err_new(ERR_UNSUPPORTED, "the store %s cannot use a write-ahead log here", s->path);
    if (empty)
        TRY(create_schema(s));
    TRY(read_meta(s));
    TRY(prepare_all(s));
    struct err *e = begin_generation(s);
    s->no_generation = err_is(e, ERR_NO_SPACE);
    if (!s->no_generation)
        return e;
    err_free(e);
    return NULL;
}

struct err *store_sqlite_open(const char *dir, struct store **ret)
{
    struct sqlite_store *s = xcalloc(1, sizeof(*s));
    struct err *e;

    s->base.ops = &ops;
    s->lock_fd = -1;
    s->path = xasprintf("%s/" FILE_NAME, dir);
    e = make_directory(dir);
    if (!e)
        e = take_lock(dir, &s->lock_fd);
    if (!e)
        e = check_file(dir, s->path);
    if (!e)
        e = open_database(s);
    if (e) {
        close_store(&s->base);
        return e;
    }
    *ret = &s->base;
    return NULL;
}
