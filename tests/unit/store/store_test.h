/* What the store's tests share. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"
#include "model/record.h"
#include "store/sqlite/sqlite_private.h"
#include "store/store.h"

#include <ftw.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#define A "3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f"

static inline struct uuid id(const char *text)
{
    struct uuid u;

    assert_true(uuid_parse(text, &u));
    return u;
}

/* A dataset id made from a number. */
static inline struct uuid numbered(uint64_t n)
{
    struct uuid u = id("00000000-0000-4000-8000-000000000000");

    for (int i = 0; i < 6; i++)
        u.b[15 - i] = (uint8_t)(n >> (8 * i));
    return u;
}

static inline void ok(struct err *e)
{
    if (e)
        fail_msg("unexpected error: %s: %s", err_code_name(e->code), e->text);
}

static inline void refused(struct err *e, enum err_code code, const char *says)
{
    if (!e)
        fail_msg("no error; expected one that says \"%s\"", says);
    if (!err_is(e, code) || !strstr(e->text, says))
        fail_msg("%s: \"%s\" is not %s: \"%s\"", err_code_name(e->code), e->text,
                 err_code_name(code), says);
    err_free(e);
}

/* A dataset record with `padding` bytes in its metadata; the caller frees it. */
static inline char *dataset_value(struct uuid dataset, uint64_t revision, size_t padding)
{
    struct dataset *d = dataset_new(dataset);

    d->revision = revision;
    d->metadata.entries = xcalloc(1, sizeof(struct metadata_entry));
    d->metadata.n = 1;
    d->metadata.entries[0].key = xstrdup("padding");
    d->metadata.entries[0].value = xcalloc(padding + 1, 1);
    memset(d->metadata.entries[0].value, 'x', padding);
    char *value = record_dataset_encode(d);
    assert_non_null(value);
    dataset_free(d);
    return value;
}

/* Commits one dataset whose id and revision are `n`. */
static inline struct err *commit_numbered(struct store *s, uint64_t n, size_t padding,
                                          bool *ret_uncertain)
{
    struct uuid u = numbered(n);
    char key[UUID_TEXT_SIZE];
    CLEANUP_FREE char *value = dataset_value(u, n, padding);
    struct store_change c = {n, STORE_DATASET, uuid_format(&u, key), value};

    return store_commit_sync(s, &c, 1, ret_uncertain);
}

/* Every dataset from 1 to the revision is there, and nothing else. */
static inline void assert_numbered(struct store *s, uint64_t at_least)
{
    struct store_content c;

    ok(store_load_sync(s, &c));
    assert_true(c.revision >= at_least);
    assert_int_equal(c.n_datasets, c.revision);
    for (size_t i = 0; i < c.n_datasets; i++) {
        struct uuid u = numbered(i + 1);

        assert_true(uuid_eq(&c.datasets[i]->id, &u));
        assert_true(c.datasets[i]->revision == i + 1);
    }
    store_content_done(&c);
}

static inline int remove_entry(const char *path, const struct stat *st, int type, struct FTW *f)
{
    return remove(path);
}

static inline char *make_temp(void)
{
    char *dir = xstrdup("/tmp/flocker-store-test-XXXXXX");

    assert_non_null(mkdtemp(dir));
    return dir;
}

static inline void remove_temp(char *dir)
{
    (void)nftw(dir, remove_entry, 16, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
    free(dir);
}

/* Makes the store one of that schema: without later tables, and with the sum of its generations as it was then. */
static inline void make_older(const char *dir, int version)
{
    CLEANUP_FREE char *file = xasprintf("%s/store.sqlite", dir);
    uint64_t difference = 0;
    sqlite3_stmt *q = NULL;
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open(file, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT id, begin FROM generation", -1, &q, NULL), SQLITE_OK);
    while (sqlite3_step(q) == SQLITE_ROW) {
        const char *id_text = (const char *)sqlite3_column_text(q, 0);
        uint64_t begin = (uint64_t)sqlite3_column_int64(q, 1);
        difference += sqlite_row_sum(sqlite_generation_seed(version), id_text, begin, "", 0) -
                      sqlite_row_sum(sqlite_generation_seed(SCHEMA_VERSION), id_text, begin, "", 0);
    }
    sqlite3_finalize(q);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT value FROM meta WHERE name = 'checksum'", -1, &q, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(q), SQLITE_ROW);
    uint64_t sum = (uint64_t)sqlite3_column_int64(q, 0) + difference;
    sqlite3_finalize(q);
    CLEANUP_FREE char *change = xasprintf("UPDATE meta SET value = %" PRId64 " WHERE name = 'checksum'; %s DROP TABLE fence; "
                                          "PRAGMA user_version=%d",
                                          (int64_t)sum, version < 4 ? "DROP TABLE cordon;" : "", version);
    assert_int_equal(sqlite3_exec(db, change, NULL, NULL, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
}
