/* Shared by the files of the SQLite store; not for others. */
#pragma once

#include "store/backend.h"
#include "store/sqlite/directory.h"
#include "store/sqlite/places.h"

#include <sqlite3.h>

/* 2: with an index of the keys, and without notes of a restore; 1: also without checksum, maybe without generations. */
#define SCHEMA_VERSION 5

/* What the checksum of the generations begins with: that of schemas 1 to 3, and the later one. */
enum generation_seed { GENERATION_SEED_3 = 3, GENERATION_SEED = 4 };

static inline enum generation_seed sqlite_generation_seed(int64_t version)
{
    return version >= 1 && version <= 3 ? GENERATION_SEED_3 : GENERATION_SEED;
}

struct sqlite_store {
    struct store base;
    char *path; /* of the database file, for messages */
    sqlite3 *db;
    int lock_fd;
    bool no_generation; /* the disk was full at the start: this life has no name, and changes nothing */
    int mark_fd;
    bool put_back;     /* since it was last open; not noted yet */
    uint64_t restored; /* revision at which it was put back the last time; 0 = never */
    bool settled;      /* ... and the copy is believed since */
    uint64_t rows;        /* sum of sqlite_row_sum() of all records, as it must be */
    uint64_t generations; /* the same of the generations */
    enum generation_seed generation_seed;
    int64_t version; /* its schema; of a file that is only read it may be an older one */
    struct places places[STORE_KIND_MAX];
    int log_pages; /* in the log, not yet copied into the file */
    sqlite3_stmt *get[STORE_KIND_MAX];
    sqlite3_stmt *add[STORE_KIND_MAX];
    sqlite3_stmt *set[STORE_KIND_MAX];
    sqlite3_stmt *del[STORE_KIND_MAX];
    sqlite3_stmt *set_meta;
};

static inline struct sqlite_store *sqlite_store_of(struct store *s)
{
    return (struct sqlite_store *)s;
}

/* query.c */
/* An error from the connection's present state; `doing` completes "cannot ... the store PATH". */
struct err *sqlite_failure(const struct sqlite_store *s, int rc, const char *doing) MUST_USE;
struct err *sqlite_store_failure(sqlite3 *db, const char *path, int rc, const char *doing) MUST_USE;
/* What is stored is damaged; `fmt` says what is wrong with it. */
struct err *sqlite_damaged(const struct sqlite_store *s, const char *fmt, ...) PRINTF_LIKE(2, 3) MUST_USE;
struct err *sqlite_run(struct sqlite_store *s, const char *sql, const char *doing) MUST_USE;
struct err *sqlite_prepare(struct sqlite_store *s, const char *sql, sqlite3_stmt **ret) MUST_USE;
/* One number from a query that gives exactly one row. */
struct err *sqlite_query_number(struct sqlite_store *s, const char *sql, int64_t *ret) MUST_USE;

/* schema.c */
/* *ret_version is 0 when the file is empty (a new store, or one whose creation was cut short). */
struct err *sqlite_check_schema(struct sqlite_store *s, int64_t *ret_version) MUST_USE;
struct err *sqlite_create_schema(struct sqlite_store *s) MUST_USE;
/* Bring a store of an older version up, once its id and revision were read: from 1 to 2, and from 2 to 3. */
struct err *sqlite_add_checksum(struct sqlite_store *s) MUST_USE;
struct err *sqlite_drop_indexes(struct sqlite_store *s) MUST_USE;
/* The tables of schemas 4 and 5: before anything of them is read, and when all else is as it is to be. */
struct err *sqlite_add_tables(struct sqlite_store *s) MUST_USE;
struct err *sqlite_know_tables(struct sqlite_store *s) MUST_USE;
/* Is there such a table in a file of that schema? */
bool sqlite_has_table(const struct sqlite_store *s, enum store_kind kind);
/* Reads the whole file: SQLite's own checks of its pages and indexes. */
struct err *sqlite_check_pages(struct sqlite_store *s) MUST_USE;
/* Its id and revision, and when it was put back. */
struct err *sqlite_read_meta(struct sqlite_store *s) MUST_USE;

/* content.c */
uint64_t sqlite_row_sum(unsigned seed, const char *key, uint64_t revision, const char *value, size_t n);
uint64_t sqlite_meta_sum(const struct sqlite_store *s, uint64_t revision);
struct err *sqlite_sum_generations(struct sqlite_store *s, uint64_t *ret) MUST_USE;
struct err *sqlite_add_up(struct sqlite_store *s, uint64_t *ret) MUST_USE; /* the records */
/* Adds all up before anything is written to the store, and notes where the records lie. */
struct err *sqlite_check_sum(struct sqlite_store *s) MUST_USE;
struct err *sqlite_read_sync(struct store *base, store_record_fn *fn, void *cookie) MUST_USE; /* verbs of store_ops */
struct err *sqlite_read_history_sync(struct store *base, struct history *ret) MUST_USE;

/* commit.c */
struct err *sqlite_prepare_commits(struct sqlite_store *s) MUST_USE;
/* The row of the key, 0 when there is none; SQLite's result. Until sqlite_end_find(), `get` stands on it. */
int sqlite_find_row(struct sqlite_store *s, enum store_kind kind, const char *key, int64_t *ret);
void sqlite_end_find(struct sqlite_store *s, enum store_kind kind);
/* Durable before anybody hears of it: WAL and synchronous=FULL. */
struct err *sqlite_begin_generation(struct sqlite_store *s) MUST_USE;
struct err *sqlite_commit_sync(struct store *base, const struct store_change *changes, size_t n,
                               bool *ret_uncertain) MUST_USE; /* verb of store_ops */

/* checkpoint.c */
extern int sqlite_log_most; /* pages of the log, not counting those of one commit; tests make it small */
void sqlite_take_log(struct sqlite_store *s); /* at the opening: SQLite leaves its log to us */
void sqlite_tidy_sync(struct store *base); /* verb of store_ops */
void sqlite_bound_log(struct sqlite_store *s); /* before a commit, for those who never tidy */

/* sqlite.c */
/* Opens a file that nobody uses, to be read only, and checks it as an opened store is checked. `uri` is the path for SQLite. */
struct err *sqlite_open_file(const char *path, const char *uri, struct store **ret) MUST_USE;

/* copy.c: the verb of store_ops. */
struct err *sqlite_backup_begin(struct store *s, const char *path, struct store_backup **ret) MUST_USE;
