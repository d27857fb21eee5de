/* Power cuts. What the store and SQLite write is recorded; for each point in it the disks are made that a power cut there
 * may leave: what was flushed is there, of what was not each sector is new, old, or (where the file grew) nothing or
 * rubbish, and names are there or not. The store is opened on each: everything acknowledged is there, and nothing half. */
#include "store_state.h"

#include "disk_shim.h"

#include <fcntl.h>
#include <sqlite3.h>
#include <time.h>

#define OPENED UINT64_MAX /* note: the first open was answered */
#define BEGINS                                                                                     \
    (UINT64_C(1) << 62) /* note: + revision, before a commit; the revision alone: acknowledged */

/* The files as flushed, and what was written since. */
struct file {
    unsigned char *bytes;
    size_t n;
    size_t *pending; /* indices of operations */
    size_t n_pending, cap;
};

struct replay {
    const struct shim_log *log;
    struct file files[SHIM_INODES];
    struct name {
        char name[32];
        int inode;
    } names[SHIM_NAMES];
    size_t n_names;
    size_t pending_names[64];
    size_t n_pending_names;
    uint64_t acknowledged, begun;
    bool opened;
};

static void set_name(struct name *names, size_t *n, const char *name, int inode)
{
    size_t i = 0;

    while (i < *n && !streq(names[i].name, name))
        i++;
    if (inode < 0) {
        if (i < *n)
            names[i] = names[--*n];
        return;
    }
    assert_true(i < SHIM_NAMES);
    if (i == *n)
        (void)snprintf(names[(*n)++].name, sizeof(names[0].name), "%s", name);
    names[i].inode = inode;
}

static void apply_name(struct name *names, size_t *n, const struct shim_op *op)
{
    if (op->kind == SHIM_RENAME)
        set_name(names, n, op->from, -1);
    set_name(names, n, op->name, op->kind == SHIM_UNLINK ? -1 : op->inode);
}

static void resize(struct file *f, size_t n)
{
    if (n > f->n) {
        f->bytes = xrealloc(f->bytes, n, 1);
        memset(f->bytes + f->n, 0, n - f->n);
    }
    f->n = n;
}

static void apply(struct file *f, const struct shim_op *op)
{
    if (op->kind == SHIM_TRUNCATE) {
        resize(f, op->size);
        return;
    }
    if (op->offset + op->size > f->n)
        resize(f, op->offset + op->size);
    memcpy(f->bytes + op->offset, op->bytes, op->size);
}

static void replay_begin(struct replay *r, const struct shim_log *log, const struct disk *start)
{
    *r = (struct replay){.log = log};
    for (size_t i = 0; i < start->n; i++) {
        set_name(r->names, &r->n_names, start->files[i].name, (int)i);
        r->files[i].bytes = xmemdup(start->files[i].bytes, start->files[i].n);
        r->files[i].n = start->files[i].n;
    }
}

static void replay_done(struct replay *r)
{
    for (size_t i = 0; i < SHIM_INODES; i++) {
        free(r->files[i].bytes);
        free(r->files[i].pending);
    }
}

static void replay_step(struct replay *r, size_t index)
{
    const struct shim_op *op = &r->log->ops[index];
    struct file *f = op->inode >= 0 ? &r->files[op->inode] : NULL;

    switch (op->kind) {
    case SHIM_WRITE:
    case SHIM_TRUNCATE:
        f->pending = mem_grow(f->pending, f->n_pending, &f->cap, sizeof(*f->pending));
        f->pending[f->n_pending++] = index;
        break;
    case SHIM_SYNC:
        for (size_t i = 0; i < f->n_pending; i++)
            apply(f, &r->log->ops[f->pending[i]]);
        f->n_pending = 0;
        break;
    case SHIM_LINK:
    case SHIM_RENAME:
    case SHIM_UNLINK:
        assert_true(r->n_pending_names < ARRAY_SIZE(r->pending_names));
        r->pending_names[r->n_pending_names++] = index;
        break;
    case SHIM_SYNC_DIR:
        for (size_t i = 0; i < r->n_pending_names; i++)
            apply_name(r->names, &r->n_names, &r->log->ops[r->pending_names[i]]);
        r->n_pending_names = 0;
        break;
    case SHIM_NOTE:
        if (op->number == OPENED)
            r->opened = true;
        else if (op->number >= BEGINS)
            r->begun = op->number - BEGINS;
        else
            r->acknowledged = op->number;
        break;
    }
}

/* How a cut treats what was not flushed. */
enum fate {
    LOST,  /* all of it */
    KEPT,  /* all of it: the process was killed, the machine went on */
    TORN,  /* in order up to some sector */
    MIXED, /* each sector and each name on its own */
    FATES,
};

static void spoil(struct file *f, const struct shim_op *op, const struct random *r,
                  uint64_t percent, bool rubbish)
{
    size_t end = op->offset + op->size, old = f->n;

    if (random_below(r, 2) && end > f->n)
        resize(f, end); /* the file grew, whatever became of its content */
    for (size_t at = op->offset; at < end;) {
        size_t next = (at / SHIM_SECTOR + 1) * SHIM_SECTOR;
        size_t n = (next < end ? next : end) - at;

        if (random_below(r, 100) < percent) {
            if (at + n > f->n)
                resize(f, at + n);
            memcpy(f->bytes + at, op->bytes + (at - op->offset), n);
        } else if (rubbish && at >= old && at + n <= f->n) {
            for (size_t i = 0; i < n; i++)
                f->bytes[at + i] = (unsigned char)random_next(r);
        }
        at += n;
    }
}

static void tear(struct file *f, const struct shim_op *op, const struct random *r)
{
    struct shim_op part = *op;
    size_t sectors = (op->offset + op->size) / SHIM_SECTOR - op->offset / SHIM_SECTOR;
    size_t keep = (size_t)random_below(r, sectors + 1);

    if (op->kind != SHIM_WRITE || keep == 0)
        return;
    part.size = (op->offset / SHIM_SECTOR + keep) * SHIM_SECTOR - op->offset;
    if (part.size > op->size)
        part.size = op->size;
    apply(f, &part);
}

/* A file after the cut. */
static struct file file_after(const struct replay *r, int inode, enum fate fate,
                              const struct random *random, bool rubbish)
{
    static const uint64_t percents[] = {5, 50, 95};
    const struct file *from = &r->files[inode];
    struct file f = {.bytes = xmemdup(from->bytes, from->n), .n = from->n};
    size_t whole = fate == LOST ? 0 : from->n_pending;
    uint64_t percent = percents[random_below(random, ARRAY_SIZE(percents))];

    if (fate == TORN)
        whole = (size_t)random_below(random, from->n_pending + 1);
    for (size_t i = 0; i < whole; i++) {
        const struct shim_op *op = &r->log->ops[from->pending[i]];

        if (fate != MIXED)
            apply(&f, op);
        else if (op->kind == SHIM_WRITE)
            spoil(&f, op, random, percent, rubbish);
        else if (random_below(random, 100) < percent)
            apply(&f, op);
    }
    if (fate == TORN && whole < from->n_pending)
        tear(&f, &r->log->ops[from->pending[whole]], random);
    return f;
}

static void make_disk(const struct replay *r, enum fate fate, const struct random *random,
                      struct disk *ret)
{
    struct name names[SHIM_NAMES];
    size_t n = r->n_names;
    size_t keep = fate == LOST ? 0 : r->n_pending_names;

    memcpy(names, r->names, sizeof(names));
    if (fate == TORN)
        keep = (size_t)random_below(random, keep + 1);
    for (size_t i = 0; i < keep; i++) {
        if (fate != MIXED || random_below(random, 2))
            apply_name(names, &n, &r->log->ops[r->pending_names[i]]);
    }
    *ret = (struct disk){.n = n};
    for (size_t i = 0; i < n; i++) {
        /* A file system may show rubbish in what the database wrote last; the mark is replaced whole. */
        bool rubbish = str_has_prefix(names[i].name, "store.sqlite") && random_below(random, 2);
        struct file f = file_after(r, names[i].inode, fate, random, rubbish);

        memcpy(ret->files[i].name, names[i].name, sizeof(ret->files[i].name));
        ret->files[i].bytes = f.bytes;
        ret->files[i].n = f.n;
    }
}

/* One life of a store under the recorder: from a disk, through some batches, to its end. */

struct life {
    struct disk start;
    bool opened; /* `start` is of a store that was opened before, at this revision: */
    uint64_t revision;
    struct shim_log log;
};

static void note_commit(struct store *s, struct past *p, const struct random *r)
{
    bool uncertain;

    shim_note(BEGINS); /* which one is known only afterwards: see mend_notes() */
    ok(commit_random(s, p, r, &uncertain));
    shim_note(p->states[p->n - 1].revision);
}

/* Writes into each "begins" which revision it was. */
static void mend_notes(struct shim_log *l)
{
    uint64_t next = 0;

    for (size_t i = l->n; i-- > 0;) {
        struct shim_op *op = &l->ops[i];

        if (op->kind != SHIM_NOTE || op->number == OPENED)
            continue;
        if (op->number >= BEGINS)
            op->number = BEGINS + next;
        else
            next = op->number;
    }
}

static void live(struct life *l, const char *dir, struct past *p, const struct random *r,
                 const size_t *batches, size_t opens)
{
    const char *names[DISK_FILES];

    disk_write(&l->start, dir);
    for (size_t i = 0; i < l->start.n; i++)
        names[i] = l->start.files[i].name;
    shim_watch(dir, names, l->start.n);
    for (size_t i = 0; i < opens; i++) {
        struct store *s = NULL;

        ok(store_open(dir, &s));
        if (!p->has_id)
            p->id = store_id(s);
        p->has_id = true;
        shim_note(OPENED);
        for (size_t n = 0; n < batches[i]; n++)
            note_commit(s, p, r);
        store_close(s);
    }
    l->log = shim_end();
    mend_notes(&l->log);
}

struct sweep {
    struct past past;
    struct random random;
    uint64_t seed;
    char *dir, *second_dir;
    size_t images, second_lives;
    int depth;
};

static void sweep_cuts(struct sweep *w, const struct life *l, size_t variants, size_t stride);

/* The store on this disk is opened, and used. */
static void check_disk(struct sweep *w, const struct replay *r, const struct disk *d,
                       const char *what)
{
    struct store *s = NULL;
    CLEANUP_FREE char *why = NULL;
    bool uncertain;

    w->images++;
    disk_write(d, w->dir);
    struct err *e = store_open(w->dir, &s);
    if (e)
        fail_msg("%s: %s", what, e->text);
    uint64_t revision = store_revision(s);
    const struct state *want = past_find(&w->past, revision);
    if (revision != r->acknowledged && revision != r->begun)
        fail_msg("%s: revision %" PRIu64 " instead of %" PRIu64 " or %" PRIu64, what, revision,
                 r->acknowledged, r->begun);
    struct uuid own = store_id(s);
    if (r->opened && !uuid_eq(&own, &w->past.id))
        fail_msg("%s: another store", what);
    assert_non_null(want);
    if (!state_is(s, want, &why))
        fail_msg("%s: %s", what, why);
    if (w->images % 16 == 0) {
        size_t states = w->past.n;
        ok(commit_random(s, &w->past, &w->random, &uncertain));
        store_close(s);
        ok(store_open(w->dir, &s));
        if (!state_is(s, &w->past.states[states], &why))
            fail_msg("%s: after one more commit: %s", what, why);
        store_close(s);
        /* That future did not happen. */
        past_forget(&w->past, states);
        return;
    }
    store_close(s);
}

/* Power fails again while the store recovers and goes on. */
static void live_again(struct sweep *w, const struct replay *r, const struct disk *d, size_t stride)
{
    struct life l = {.start = *d, .opened = r->opened};
    size_t states = w->past.n, batches[] = {2, 1};

    w->second_lives++;
    struct uuid first = w->past.id;
    w->past.has_id = r->opened;
    disk_write(d, w->second_dir);
    struct store *s = NULL;
    ok(store_open(w->second_dir, &s));
    l.revision = store_revision(s);
    store_close(s);
    live(&l, w->second_dir, &w->past, &w->random, batches, ARRAY_SIZE(batches));
    w->depth++;
    sweep_cuts(w, &l, 3, stride);
    w->depth--;
    shim_log_done(&l.log);
    w->past.id = first;
    w->past.has_id = true;
    past_forget(&w->past, states);
}

static void sweep_cuts(struct sweep *w, const struct life *l, size_t variants, size_t stride)
{
    struct replay r;

    replay_begin(&r, &l->log, &l->start);
    r.opened = l->opened;
    r.acknowledged = r.begun = l->revision;
    for (size_t i = 0; i < l->log.n; i++) {
        replay_step(&r, i);
        if (stride > 1 && random_below(&w->random, stride) != 0)
            continue;
        for (size_t v = 0; v < variants; v++) {
            enum fate fate = v < FATES ? (enum fate)v : v % 2 ? TORN : MIXED;
            CLEANUP_FREE char *what =
                xasprintf("seed %" PRIu64 ", life %d, cut after operation %zu of "
                          "%zu (kind %d, inode %d), variant %zu",
                          w->seed, w->depth + 1, i, l->log.n, (int)l->log.ops[i].kind,
                          l->log.ops[i].inode, v);
            struct disk d;

            make_disk(&r, fate, &w->random, &d);
            check_disk(w, &r, &d, what);
            if (w->depth == 0 && random_below(&w->random, 400) == 0)
                live_again(w, &r, &d, 8);
            disk_done(&d);
        }
    }
    replay_done(&r);
}

static void sweep_begin(struct sweep *w, uint64_t *seed)
{
    *w = (struct sweep){.seed = *seed, .random = random_seeded(seed)};
    past_begin(&w->past);
    shim_seed(*seed);
    (void)sqlite3_test_control(SQLITE_TESTCTRL_PRNG_SEED, (int)*seed, NULL);
    sqlite3_randomness(0, NULL);
    w->dir = make_fast_temp();
    w->second_dir = make_fast_temp();
}

static void sweep_done(struct sweep *w, const char *name)
{
    (void)printf("%s: %zu disks, %zu of them lived again\n", name, w->images, w->second_lives);
    past_done(&w->past);
    remove_temp(w->dir);
    remove_temp(w->second_dir);
}

/* A store is made, used, closed, opened and used again. */
static void test_cuts(void **state)
{
    size_t batches[] = {14, 0, 8};

    for (uint64_t n = 1; n <= few_or_many(1, 6); n++) {
        uint64_t seed = n;
        struct life l = {0};
        struct sweep w;

        sweep_begin(&w, &seed);
        live(&l, w.dir, &w.past, &w.random, batches, ARRAY_SIZE(batches));
        sweep_cuts(&w, &l, few_or_many(6, 24), 1);
        shim_log_done(&l.log);
        assert_true(w.images > 1000);
        sweep_done(&w, "cuts");
    }
}

/* As version 1 of the schema made it. */
static const char schema_1[] =
    "PRAGMA journal_mode=WAL; BEGIN; PRAGMA application_id=0x464c4b52; PRAGMA user_version=1;"
    "CREATE TABLE meta (name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT;"
    "INSERT INTO meta VALUES ('store_id', '" A "'), ('revision', 6);"
    "CREATE TABLE dataset (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,"
    " revision INTEGER NOT NULL, value TEXT NOT NULL) STRICT;"
    "CREATE TABLE container (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,"
    " revision INTEGER NOT NULL, value TEXT NOT NULL) STRICT;"
    "CREATE TABLE lease (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,"
    " revision INTEGER NOT NULL, value TEXT NOT NULL) STRICT;";

static void make_old_store(const char *dir, struct past *p)
{
    CLEANUP_FREE char *path = xasprintf("%s/store.sqlite", dir);
    struct state *s = &p->states[p->n++];
    sqlite3 *db = NULL;

    p->id = id(A);
    p->has_id = true;
    *s = (struct state){.revision = 6, .records = xcalloc(6, sizeof(struct record))};
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, schema_1, NULL, NULL, NULL), SQLITE_OK);
    for (; s->n < 6; s->n++) {
        struct uuid u = numbered(s->n + 1);
        char *value = dataset_value(u, s->n + 1, 700);
        CLEANUP_FREE char *sql =
            xasprintf("INSERT INTO dataset (key, revision, value) VALUES ('%s', %zu, '%s')",
                      UUID_STR(&u), s->n + 1, value);

        assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
        s->records[s->n] = (struct record){STORE_DATASET, xstrdup(UUID_STR(&u)), value};
    }
    assert_int_equal(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
    (void)sqlite3_close(db);
}

/* As version 2 had it: with indexes of the keys. */
#define TABLE_2(name)                                                                                                  \
    "ALTER TABLE " name " RENAME TO made; CREATE TABLE " name " (id INTEGER PRIMARY KEY, key TEXT NOT NULL UNIQUE,"    \
    " revision INTEGER NOT NULL, value TEXT NOT NULL) STRICT; INSERT INTO " name " SELECT * FROM made;"                \
    "DROP TABLE made;"

static const char to_schema_2[] = "BEGIN;" TABLE_2("dataset") TABLE_2("container") TABLE_2("lease") "COMMIT";

static void make_store_2(const char *dir, struct past *p, const struct random *r)
{
    CLEANUP_FREE char *path = xasprintf("%s/store.sqlite", dir);
    struct store *s = NULL;
    sqlite3 *db = NULL;
    bool uncertain;

    ok(store_open(dir, &s));
    p->id = store_id(s);
    p->has_id = true;
    for (int i = 0; i < 4; i++)
        ok(commit_random(s, p, r, &uncertain));
    store_close(s);
    make_older(dir, 2);
    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, to_schema_2, NULL, NULL, NULL), SQLITE_OK);
    (void)sqlite3_close(db);
}

/* A store of an older version is opened. */
static void upgrade_from(int version)
{
    uint64_t seed = 100;
    size_t batches[] = {3, 2};
    struct life l = {.opened = true};
    struct sweep w;

    sweep_begin(&w, &seed);
    if (version == 1)
        make_old_store(w.dir, &w.past);
    else
        make_store_2(w.dir, &w.past, &w.random);
    l.revision = w.past.states[w.past.n - 1].revision;
    disk_read(&l.start, w.dir);
    live(&l, w.dir, &w.past, &w.random, batches, ARRAY_SIZE(batches));
    sweep_cuts(&w, &l, few_or_many(6, 40), 1);
    shim_log_done(&l.log);
    disk_done(&l.start);
    sweep_done(&w, version == 1 ? "upgrade from 1" : "upgrade from 2");
}

static void test_upgrade_from_1(void **state)
{
    upgrade_from(1);
}

static void test_upgrade_from_2(void **state)
{
    upgrade_from(2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cuts),
        cmocka_unit_test(test_upgrade_from_1),
        cmocka_unit_test(test_upgrade_from_2),
    };

    make_sqlite_busy();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
