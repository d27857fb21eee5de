/* What is in the store, read and added up.
 *
 * The store keeps one number over all that is in it: the sum of those of its records, and that of its id and
 * revision. A change of a record changes the sum by what it takes away and what it adds. */
#include "store/sqlite/sqlite_private.h"

#include <xxhash.h>

uint64_t sqlite_row_sum(enum store_kind kind, const char *key, uint64_t revision, const char *value,
                        size_t n)
{
    uint64_t sum = XXH3_64bits_withSeed(key, strlen(key), (XXH64_hash_t)kind);

    return XXH3_64bits_withSeed(value, n, sum ^ revision * 0x9e3779b97f4a7c15);
}

uint64_t sqlite_meta_sum(const struct uuid *id, uint64_t revision)
{
    return XXH3_64bits_withSeed(id->b, sizeof(id->b), revision);
}

struct err *sqlite_sum_generations(struct sqlite_store *s, uint64_t *ret)
{
    sqlite3_stmt *q = NULL;
    struct err *e = sqlite_prepare(s, "SELECT id, begin FROM generation", &q);
    int rc = SQLITE_DONE;

    *ret = 0;
    while (!e && (rc = sqlite3_step(q)) == SQLITE_ROW) {
        const char *id = (const char *)sqlite3_column_text(q, 0);

        if (!id) {
            e = sqlite_failure(s, SQLITE_NOMEM, "read");
            break;
        }
        *ret += sqlite_row_sum(STORE_KIND_MAX, id, (uint64_t)sqlite3_column_int64(q, 1), "", 0);
    }
    if (!e && rc != SQLITE_DONE)
        e = sqlite_failure(s, rc, "read");
    (void)sqlite3_finalize(q);
    return e;
}

struct err *sqlite_read_table(struct sqlite_store *s, enum store_kind kind, uint64_t *sum,
                              store_record_fn *fn, void *cookie)
{
    CLEANUP_FREE char *sql =
        xasprintf("SELECT key, value, revision FROM %s ORDER BY id", store_kind_name(kind));
    sqlite3_stmt *q = NULL;
    struct err *e = sqlite_prepare(s, sql, &q);
    int rc = SQLITE_DONE;

    while (!e && (rc = sqlite3_step(q)) == SQLITE_ROW) {
        const char *key = (const char *)sqlite3_column_text(q, 0);
        const char *value = (const char *)sqlite3_column_text(q, 1);
        size_t n = (size_t)sqlite3_column_bytes(q, 1);

        if (!key || !value) {
            e = sqlite_failure(s, SQLITE_NOMEM, "read");
            break;
        }
        *sum += sqlite_row_sum(kind, key, (uint64_t)sqlite3_column_int64(q, 2), value, n);
        e = fn ? fn(cookie, kind, key, value, n) : NULL;
    }
    if (!e && rc != SQLITE_DONE)
        e = sqlite_failure(s, rc, "read");
    (void)sqlite3_finalize(q);
    return e;
}

struct err *sqlite_read_sync(struct store *base, store_record_fn *fn, void *cookie)
{
    struct sqlite_store *s = sqlite_store_of(base);
    uint64_t sum = 0;

    for (int k = 0; k < STORE_KIND_MAX; k++)
        TRY(sqlite_read_table(s, (enum store_kind)k, &sum, fn, cookie));
    if (sum != s->rows)
        return sqlite_damaged(s, "its records do not add up to their checksum (a record was damaged, or "
                          "changed by another program)");
    return NULL;
}

struct err *sqlite_check_sum(struct sqlite_store *s)
{
    int64_t sum;

    TRY(sqlite_query_number(s, "SELECT value FROM meta WHERE name = 'checksum'", &sum));
    TRY(sqlite_sum_generations(s, &s->generations));
    s->rows = (uint64_t)sum - s->generations - sqlite_meta_sum(&s->base.id, s->base.revision);
    return sqlite_read_sync(&s->base, NULL, NULL);
}

struct err *sqlite_read_history_sync(struct store *base, struct history *ret)
{
    struct sqlite_store *s = sqlite_store_of(base);
    sqlite3_stmt *q = NULL;
    struct err *e = sqlite_prepare(s, "SELECT id, begin FROM generation ORDER BY number", &q);
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
        e = sqlite_failure(s, rc, "read");
    (void)sqlite3_finalize(q);
    return e;
}
