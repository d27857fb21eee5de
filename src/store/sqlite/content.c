/* What is in the store, read and added up.
 *
 * The store keeps one number over all that is in it: the sum of those of its records, and that of its id,
 * its revision, and when it was put back. A change of a record changes the sum by what it takes away and what it adds. */
#include "store/sqlite/sqlite_private.h"

#include <inttypes.h>
#include <xxhash.h>

/* As it is stored; valid during the call only. */
struct row {
    enum store_kind kind;
    int64_t id;
    const char *key;
    uint64_t revision;
    const char *value;
    size_t n;
};

typedef struct err *row_fn(void *cookie, const struct row *r);

uint64_t sqlite_row_sum(unsigned seed, const char *key, uint64_t revision, const char *value,
                        size_t n)
{
    uint64_t sum = XXH3_64bits_withSeed(key, strlen(key), (XXH64_hash_t)seed);

    return XXH3_64bits_withSeed(value, n, sum ^ revision * 0x9e3779b97f4a7c15);
}

uint64_t sqlite_meta_sum(const struct sqlite_store *s, uint64_t revision)
{
    uint64_t sum = XXH3_64bits_withSeed(s->base.id.b, sizeof(s->base.id.b), revision);

    if (s->restored)
        sum += XXH3_64bits_withSeed(&s->restored, sizeof(s->restored), s->settled);
    return sum;
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
        *ret += sqlite_row_sum(s->generation_seed, id, (uint64_t)sqlite3_column_int64(q, 1), "", 0);
    }
    if (!e && rc != SQLITE_DONE)
        e = sqlite_failure(s, rc, "read");
    (void)sqlite3_finalize(q);
    return e;
}

/* Calls `fn` for each record of the kind, in the order in which they were made; ends with its first error. */
static struct err *each_row(struct sqlite_store *s, enum store_kind kind, row_fn *fn, void *cookie)
{
    CLEANUP_FREE char *sql = xasprintf("SELECT id, key, revision, value FROM %s ORDER BY id", store_kind_name(kind));
    sqlite3_stmt *q = NULL;
    struct err *e = sqlite_prepare(s, sql, &q);
    int rc = SQLITE_DONE;

    while (!e && (rc = sqlite3_step(q)) == SQLITE_ROW) {
        struct row r = {.kind = kind,
                        .id = sqlite3_column_int64(q, 0),
                        .key = (const char *)sqlite3_column_text(q, 1),
                        .revision = (uint64_t)sqlite3_column_int64(q, 2),
                        .value = (const char *)sqlite3_column_text(q, 3),
                        .n = (size_t)sqlite3_column_bytes(q, 3)};

        e = r.key && r.value ? fn(cookie, &r) : sqlite_failure(s, SQLITE_NOMEM, "read");
    }
    if (!e && rc != SQLITE_DONE)
        e = sqlite_failure(s, rc, "read");
    (void)sqlite3_finalize(q);
    return e;
}

struct reading {
    struct sqlite_store *store;
    uint64_t sum;
    store_record_fn *fn;
    void *cookie;
};

static struct err *add_row(void *cookie, const struct row *r)
{
    struct reading *reading = cookie;

    reading->sum += sqlite_row_sum(r->kind, r->key, r->revision, r->value, r->n);
    return reading->fn ? reading->fn(reading->cookie, r->kind, r->key, r->value, r->n) : NULL;
}

static struct err *read_all(struct sqlite_store *s, row_fn *fn, struct reading *reading)
{
    for (int k = 0; k < STORE_KIND_MAX; k++) {
        if (sqlite_has_table(s, (enum store_kind)k))
            TRY(each_row(s, (enum store_kind)k, fn, reading));
    }
    return NULL;
}

struct err *sqlite_add_up(struct sqlite_store *s, uint64_t *ret)
{
    struct reading reading = {.store = s};

    TRY(read_all(s, add_row, &reading));
    *ret = reading.sum;
    return NULL;
}

static struct err *check_total(const struct sqlite_store *s, uint64_t sum)
{
    if (sum == s->rows)
        return NULL;
    return sqlite_damaged(s, "its records do not add up to their checksum (a record was damaged, or changed by another "
                             "program)");
}

struct err *sqlite_read_sync(struct store *base, store_record_fn *fn, void *cookie)
{
    struct sqlite_store *s = sqlite_store_of(base);
    struct reading reading = {s, 0, fn, cookie};

    TRY(read_all(s, add_row, &reading));
    return check_total(s, reading.sum);
}

/* Adds it up, and notes where it lies. */
static struct err *place_row(void *cookie, const struct row *r)
{
    struct reading *reading = cookie;
    struct sqlite_store *s = reading->store;
    int64_t other = 0;

    if (r->id <= 0 || r->id >= PLACE_ROW_MAX)
        return sqlite_damaged(s, "%s \"%s\" has the number %" PRId64, store_kind_name(r->kind), r->key, r->id);
    int rc = sqlite_find_row(s, r->kind, r->key, &other);
    sqlite_end_find(s, r->kind);
    if (rc != SQLITE_OK)
        return sqlite_failure(s, rc, "read");
    if (other)
        return sqlite_damaged(s, "it has two records of %s \"%s\"", store_kind_name(r->kind), r->key);
    places_add(&s->places[r->kind], r->key, r->id);
    return add_row(reading, r);
}

struct err *sqlite_check_sum(struct sqlite_store *s)
{
    struct reading reading = {.store = s};
    int64_t sum;

    TRY(sqlite_query_number(s, "SELECT value FROM meta WHERE name = 'checksum'", &sum));
    TRY(sqlite_sum_generations(s, &s->generations));
    s->rows = (uint64_t)sum - s->generations - sqlite_meta_sum(s, s->base.revision);
    TRY(read_all(s, place_row, &reading));
    return check_total(s, reading.sum);
}

struct err *sqlite_read_history_sync(struct store *base, struct history *ret)
{
    struct sqlite_store *s = sqlite_store_of(base);
    sqlite3_stmt *q = NULL;
    struct err *e = sqlite_prepare(s, "SELECT id, begin FROM generation ORDER BY number", &q);
    int rc = SQLITE_DONE;
    size_t cap = 0;

    ret->store = base->id;
    ret->restored = s->restored;
    ret->unsettled = s->restored && !s->settled;
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
