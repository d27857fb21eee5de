/* The store in one SQLite file (README.md says why it is set up like this): opening and closing. */
#include "base/str.h"
#include "store/sqlite/log_check.h"
#include "store/sqlite/mark.h"
#include "store/sqlite/sqlite_private.h"

#include <inttypes.h>

static void close_store(struct store *base)
{
    struct sqlite_store *s = sqlite_store_of(base);

    for (int k = 0; k < STORE_KIND_MAX; k++) {
        (void)sqlite3_finalize(s->get[k]);
        (void)sqlite3_finalize(s->add[k]);
        (void)sqlite3_finalize(s->set[k]);
        (void)sqlite3_finalize(s->del[k]);
        places_done(&s->places[k]);
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
    .read_sync = sqlite_read_sync,
    .read_history_sync = sqlite_read_history_sync,
    .commit_sync = sqlite_commit_sync,
    .tidy_sync = sqlite_tidy_sync,
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

    /* A store that is refused is left as it is. */
    if (s->db)
        (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (rc != SQLITE_OK)
        return sqlite_failure(s, rc, "open");
    (void)sqlite3_db_config(s->db, SQLITE_DBCONFIG_DEFENSIVE, 1, NULL);
    TRY(sqlite_run(s, "PRAGMA locking_mode=EXCLUSIVE", "open"));
    sqlite_take_log(s);
    TRY(sqlite_check_schema(s, &version));
    if (version == 0 && s->mark_fd >= 0)
        return err_new(ERR_CORRUPT,
                       "the store %s is empty or gone, but store %s with revision %" PRIu64
                       " was there; restore it from a backup, or remove the file " MARK_NAME
                       " beside it to begin anew (flocker-control(8), \"THE STORE\")",
                       s->path, UUID_STR(&m->store), m->revision);
    TRY(sqlite_check_pages(s));
    TRY(sqlite_run(s, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL", "open"));
    TRY(sqlite_query_number(s, "SELECT journal_mode = 'wal' FROM pragma_journal_mode", &wal));
    if (!wal)
        return err_new(ERR_UNSUPPORTED, "the store %s cannot use a write-ahead log here", s->path);
    if (version == 0)
        TRY(sqlite_create_schema(s));
    TRY(sqlite_read_meta(s));
    if (s->mark_fd >= 0)
        TRY(check_mark(s, m));
    /* An empty one decides nothing that it could be wrong about; one of schema 1 was written before there were marks. */
    s->put_back = s->mark_fd < 0 && version > 1 && s->base.revision;
    s->version = SCHEMA_VERSION;
    s->generation_seed = sqlite_generation_seed(version);
    if (version > 0 && version < SCHEMA_VERSION) /* an empty table changes no sum */
        TRY(sqlite_add_tables(s));
    if (version == 1)
        TRY(sqlite_add_checksum(s));
    TRY(sqlite_prepare_commits(s));
    TRY(sqlite_check_sum(s));
    if (version == 1 || version == 2)
        TRY(sqlite_drop_indexes(s));
    if (version > 0 && version < SCHEMA_VERSION)
        TRY(sqlite_know_tables(s));
    struct err *e = sqlite_begin_generation(s);
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

    if (s->put_back)
        return NULL; /* the disk is full, and it is not noted yet: the next opening must see it again */
    if (s->mark_fd < 0)
        return mark_make(dir, &m, &s->mark_fd);
    mark_set(s->mark_fd, &m);
    return NULL;
}

static struct err *open_directory(struct sqlite_store *s, const char *dir)
{
    CLEANUP_FREE char *log = xasprintf("%s-wal", s->path);
    struct mark m = {0};

    TRY(sqlite_take_directory(dir, &s->lock_fd));
    TRY(sqlite_check_no_restore(dir));
    TRY(mark_open(dir, &m, &s->mark_fd));
    TRY(sqlite_check_file(dir, s->path));
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

static struct err *check_file_of_store(struct sqlite_store *s, const char *uri)
{
    int64_t version;
    int rc = sqlite3_open_v2(uri, &s->db,
                             SQLITE_OPEN_READONLY | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
                             NULL);

    if (rc != SQLITE_OK)
        return sqlite_failure(s, rc, "open");
    TRY(sqlite_check_schema(s, &version));
    if (version == 0)
        return sqlite_damaged(s, "it is empty");
    if (version == 1)
        return err_new(ERR_UNSUPPORTED, "%s was written by an older version; open it with flocker-control --data-path once, "
                                        "as store.sqlite in a directory of its own", s->path);
    s->version = version;
    s->generation_seed = sqlite_generation_seed(version);
    TRY(sqlite_check_pages(s));
    TRY(sqlite_read_meta(s));
    TRY(sqlite_prepare_commits(s));
    return sqlite_check_sum(s);
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
