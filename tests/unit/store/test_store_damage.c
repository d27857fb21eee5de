/* Damaged files and failing calls. A store opens only when it holds exactly what was acknowledged; otherwise it says which
 * file is damaged and what to do, and leaves the files alone. A call of the system that fails loses nothing either. */
#include "store_state.h"

#include "disk_shim.h"
#include "store/sqlite/sqlite_private.h"

#include <errno.h>

static struct store *open_store(const char *dir)
{
    struct store *s = NULL;

    ok(store_open(dir, &s));
    return s;
}

/* Damage */

struct damage {
    struct past past;
    uint64_t first_seed, seed;
    struct random random;
    struct disk disk;
    size_t allowed_loss; /* of the newest batches */
    char *dir;
    size_t cases, noticed, harmless;
};

/* A store with some history. With `killed` as a killed process leaves it: the log holds the newest changes. */
static void damage_begin(struct damage *d, uint64_t seed, bool killed)
{
    struct store *s;
    bool uncertain;

    *d = (struct damage){.first_seed = seed, .seed = seed};
    d->random = random_seeded(&d->seed);
    past_begin(&d->past);
    d->dir = make_fast_temp();
    s = open_store(d->dir);
    for (int i = 0; i < 17; i++)
        ok(commit_random(s, &d->past, &d->random, &uncertain));
    if (killed)
        disk_read(&d->disk, d->dir);
    store_close(s);
    if (!killed)
        disk_read(&d->disk, d->dir);
}

static void damage_done(struct damage *d, const char *name)
{
    (void)printf("%s: %zu cases, %zu noticed, %zu harmless\n", name, d->cases, d->noticed,
                 d->harmless);
    past_done(&d->past);
    disk_done(&d->disk);
    remove_temp(d->dir);
}

static bool is_file_like(const struct damage *d, const char *part, const struct disk *was)
{
    struct disk is;
    bool same = true;

    disk_read(&is, d->dir);
    for (size_t i = 0; i < is.n; i++) {
        for (size_t k = 0; k < was->n; k++) {
            if (streq(is.files[i].name, was->files[k].name) &&
                str_has_prefix(is.files[i].name, part) && was->files[k].n > 0)
                same = same && is.files[i].n == was->files[k].n &&
                       memcmp(is.files[i].bytes, was->files[k].bytes, is.files[i].n) == 0;
        }
    }
    disk_done(&is);
    return same;
}

/* Opens the damaged disk: all that was acknowledged, or a sentence and nothing changed. */
static void check_damaged(struct damage *d, const struct disk *disk, const char *what)
{
    struct store *s = NULL;
    CLEANUP_FREE char *why = NULL;

    d->cases++;
    disk_write(disk, d->dir);
    struct err *e = store_open(d->dir, &s);
    if (!e) {
        const struct state *is = past_find(&d->past, store_revision(s));
        const struct state *last = &d->past.states[d->past.n - 1];

        if (!is || last - is > (ptrdiff_t)d->allowed_loss)
            is = last;
        if (!state_is(s, is, &why))
            fail_msg("seed %" PRIu64 ", %s: opened, but %s", d->first_seed, what, why);
        store_close(s);
        d->harmless++;
        return;
    }
    d->noticed++;
    if (!strstr(e->text, d->dir) || (e->code != ERR_CORRUPT && e->code != ERR_UNSUPPORTED))
        fail_msg("%s: the error does not say what is damaged: %s: %s", what, err_code_name(e->code),
                 e->text);
    if (!strstr(e->text, "backup") && !strstr(e->text, "move it away") &&
        !strstr(e->text, "newer version"))
        fail_msg("%s: the error does not say what to do: %s", what, e->text);
    if (!is_file_like(d, "store.sqlite", disk))
        fail_msg("%s: refused, but written to: %s", what, e->text);
    err_free(e);
}

static struct disk copy_of(const struct disk *d)
{
    struct disk copy = *d;

    for (size_t i = 0; i < d->n; i++)
        copy.files[i].bytes = xmemdup(d->files[i].bytes, d->files[i].n);
    return copy;
}

static void flip_bits(struct damage *d, size_t file, size_t times)
{
    const size_t n = d->disk.files[file].n;

    for (size_t i = 0; i < times && n > 0; i++) {
        struct disk copy = copy_of(&d->disk);
        /* Each byte of the header, then anywhere. */
        size_t at = i < 128 && i < n ? i : (size_t)random_below(&d->random, n);
        unsigned bit = (unsigned)random_below(&d->random, 8);
        CLEANUP_FREE char *what =
            xasprintf("bit %u of byte %zu of %zu of %s flipped", bit, at, n, copy.files[file].name);

        copy.files[file].bytes[at] ^= (unsigned char)(1u << bit);
        check_damaged(d, &copy, what);
        disk_done(&copy);
    }
}

/* Whole sectors and pages that are zero, rubbish or from elsewhere; files cut short. */
static void spoil_sectors(struct damage *d, size_t file, size_t times)
{
    const size_t n = d->disk.files[file].n;

    for (size_t i = 0; i < times && n > SHIM_SECTOR; i++) {
        struct disk copy = copy_of(&d->disk);
        unsigned char *bytes = copy.files[file].bytes;
        size_t size = random_below(&d->random, 2) ? SHIM_SECTOR : 4096;
        size_t at = (size_t)random_below(&d->random, n / SHIM_SECTOR) * SHIM_SECTOR;
        size_t from = (size_t)random_below(&d->random, n / SHIM_SECTOR) * SHIM_SECTOR;
        uint64_t how = random_below(&d->random, 4);

        if (at + size > n)
            size = n - at;
        if (from + size > n)
            from = n - size;
        CLEANUP_FREE char *what = xasprintf("%zu bytes at %zu of %zu of %s spoilt (%d, %zu)", size,
                                            at, n, copy.files[file].name, (int)how, from);
        if (how == 0)
            memset(bytes + at, 0, size);
        else if (how == 1)
            memmove(bytes + at, bytes + from, size);
        else if (how == 2)
            copy.files[file].n = at + (size_t)random_below(&d->random, SHIM_SECTOR);
        else
            for (size_t k = 0; k < size; k++)
                bytes[at + k] = (unsigned char)random_next(&d->random);
        check_damaged(d, &copy, what);
        disk_done(&copy);
    }
}

/* The version of the tables, in the file's header (user_version): with it an upgrade may seem to be due. */
static void spoil_version(struct damage *d, size_t file)
{
    for (size_t bit = 0; bit < 32; bit++) {
        struct disk copy = copy_of(&d->disk);
        CLEANUP_FREE char *what = xasprintf("bit %zu of the version flipped", bit);

        copy.files[file].bytes[60 + bit / 8] ^= (unsigned char)(1u << bit % 8);
        check_damaged(d, &copy, what);
        disk_done(&copy);
    }
}

static void take_away(struct damage *d, size_t file)
{
    struct disk copy = copy_of(&d->disk);
    CLEANUP_FREE char *what = xasprintf("%s gone", copy.files[file].name);

    free(copy.files[file].bytes);
    copy.files[file] = copy.files[--copy.n];
    check_damaged(d, &copy, what);
    disk_done(&copy);
}

static void test_damage(void **state)
{
    for (uint64_t seed = 1; seed <= few_or_many(4, 30); seed++) {
        struct damage d;

        damage_begin(&d, seed, seed % 2 == 0);
        check_damaged(&d, &d.disk, "nothing");
        assert_int_equal(d.harmless, 1);
        for (size_t i = 0; i < d.disk.n; i++) {
            if (streq(d.disk.files[i].name, "lock"))
                continue;
            flip_bits(&d, i, few_or_many(500, 4000));
            if (streq(d.disk.files[i].name, "store.sqlite") && d.disk.files[i].n > 64)
                spoil_version(&d, i);
            spoil_sectors(&d, i, few_or_many(60, 1000));
            take_away(&d, i);
        }
        assert_true(d.noticed > 100);
        damage_done(&d, seed % 2 ? "closed store" : "killed store");
    }
}

/* Without the mark (or with one that is behind, after a power cut) damage in the log is told from its end by what follows
 * in it. Two batches must follow. */
static void test_log_alone(void **state)
{
    for (uint64_t seed = 1; seed <= few_or_many(2, 20); seed++) {
        struct damage d;

        damage_begin(&d, seed, true);
        d.allowed_loss = 2;
        for (size_t i = 0; i < d.disk.n; i++) {
            if (streq(d.disk.files[i].name, "acknowledged")) {
                free(d.disk.files[i].bytes);
                d.disk.files[i] = d.disk.files[--d.disk.n];
            }
        }
        for (size_t i = 0; i < d.disk.n; i++) {
            if (streq(d.disk.files[i].name, "store.sqlite-wal"))
                flip_bits(&d, i, few_or_many(300, 4000));
        }
        assert_true(d.noticed > 10);
        damage_done(&d, "log alone");
    }
}

/* A store that vanished is not begun anew in silence; an older copy alone is not taken for it. */
static void test_lost(void **state)
{
    char *dir = make_fast_temp();
    CLEANUP_FREE char *database = xasprintf("%s/store.sqlite", dir);
    CLEANUP_FREE char *mark = xasprintf("%s/acknowledged", dir);
    struct disk old, now;
    struct store *s = open_store(dir);
    bool uncertain;

    for (uint64_t n = 1; n <= 3; n++)
        ok(commit_numbered(s, n, 1, &uncertain));
    store_close(s);
    disk_read(&old, dir);
    s = open_store(dir);
    ok(commit_numbered(s, 4, 1, &uncertain));
    store_close(s);
    disk_read(&now, dir);

    assert_int_equal(unlink(database), 0);
    refused(store_open(dir, &s), ERR_CORRUPT, "empty or gone");
    for (size_t i = 0; i < old.n; i++) {
        for (size_t k = 0; k < now.n; k++) {
            if (streq(old.files[i].name, now.files[k].name) &&
                streq(old.files[i].name, "acknowledged")) {
                unsigned char *bytes = old.files[i].bytes;
                old.files[i].bytes = now.files[k].bytes;
                now.files[k].bytes = bytes;
            }
        }
    }
    disk_write(&old, dir);
    refused(store_open(dir, &s), ERR_CORRUPT, "ends at revision 3, but 4 was acknowledged");
    assert_int_equal(unlink(mark), 0);
    s = open_store(dir);
    assert_numbered(s, 3);
    store_close(s);
    assert_int_equal(access(mark, F_OK), 0);

    folder_empty(dir); /* another store, with this one's mark */
    store_close(open_store(dir));
    disk_done(&now);
    disk_read(&now, dir);
    for (size_t i = 0; i < now.n; i++) {
        for (size_t k = 0; k < old.n; k++) {
            if (streq(now.files[i].name, "acknowledged") &&
                streq(old.files[k].name, "acknowledged"))
                memcpy(now.files[i].bytes, old.files[k].bytes, now.files[i].n);
        }
    }
    disk_write(&now, dir);
    refused(store_open(dir, &s), ERR_CORRUPT, "is not the store that was here before");
    disk_done(&old);
    disk_done(&now);
    remove_temp(dir);
}

/* Failing calls */

static const struct {
    const char *name;
    struct shim_fault fault;
} faults[] = {
    {"the disk is full", {.calls = SHIM_ON_WRITE | SHIM_ON_NAMES, .count = 1000, .errnum = ENOSPC}},
    {"the disk is full in mid-write",
     {.calls = SHIM_ON_WRITE, .count = 1000, .errnum = ENOSPC, .half = true}},
    {"over quota once", {.calls = SHIM_ON_WRITE, .count = 1, .errnum = EDQUOT}},
    {"read-only",
     {.calls = SHIM_ON_WRITE | SHIM_ON_SYNC | SHIM_ON_TRUNCATE | SHIM_ON_NAMES,
      .count = 1000,
      .errnum = EROFS}},
    {"a write fails", {.calls = SHIM_ON_WRITE, .count = 1, .errnum = EIO}},
    {"all writes fail", {.calls = SHIM_ON_WRITE, .count = 1000, .errnum = EIO}},
    {"a flush fails", {.calls = SHIM_ON_SYNC, .count = 1, .errnum = EIO}},
    {"all flushes fail", {.calls = SHIM_ON_SYNC, .count = 1000, .errnum = EIO}},
    {"a flush finds the disk full", {.calls = SHIM_ON_SYNC, .count = 1, .errnum = ENOSPC}},
    {"a truncation fails", {.calls = SHIM_ON_TRUNCATE, .count = 1, .errnum = EIO}},
    {"a read fails", {.calls = SHIM_ON_READ, .count = 1, .errnum = EIO}},
    {"all reads fail", {.calls = SHIM_ON_READ, .count = 1000, .errnum = EIO}},
    {"everything fails once",
     {.calls = SHIM_ON_WRITE | SHIM_ON_SYNC | SHIM_ON_TRUNCATE | SHIM_ON_NAMES | SHIM_ON_READ,
      .count = 1,
      .errnum = EIO}},
};

struct trial {
    struct past past;
    uint64_t seed;
    struct random random;
    char *dir, *second_dir;
    char *what;
    size_t acknowledged; /* index of the state */
    size_t tried;        /* the one whose commit ended as uncertain; or `acknowledged` */
};

static void must_hold(struct trial *t, struct store *s)
{
    CLEANUP_FREE char *why = NULL, *why_not = NULL;

    if (state_is(s, &t->past.states[t->acknowledged], &why))
        t->tried = t->acknowledged;
    else if (t->tried != t->acknowledged && state_is(s, &t->past.states[t->tried], &why_not))
        t->acknowledged = t->tried;
    else
        fail_msg("%s: %s", t->what, why);
}

/* What was taken back stays away when the process is killed now. */
static void must_be_gone(const struct trial *t)
{
    struct shim_fault fault = shim_fault;
    CLEANUP_FREE char *why = NULL;
    struct disk now;

    shim_fault.dir = NULL;
    disk_read(&now, t->dir);
    disk_write(&now, t->second_dir);
    disk_done(&now);
    struct store *s = open_store(t->second_dir);
    if (!state_is(s, &t->past.states[t->acknowledged], &why))
        fail_msg("%s: killed after a commit that was taken back: %s", t->what, why);
    store_close(s);
    shim_fault = fault;
}

/* A commit. false: the store must be opened again. */
static bool commit_one(struct trial *t, struct store *s)
{
    bool uncertain = true;
    struct err *e = commit_random(s, &t->past, &t->random, &uncertain);

    if (!e) {
        t->acknowledged = t->tried = t->past.n - 1;
        return true;
    }
    if (uncertain)
        t->tried = t->past.n - 1;
    if (!strstr(e->text, "store"))
        fail_msg("%s: the error does not speak of the store: %s", t->what, e->text);
    err_free(e);
    if (!uncertain)
        must_be_gone(t);
    if (!uncertain && !shim_fault.dir)
        fail_msg("%s: a commit fails though nothing is wrong any more", t->what);
    return !uncertain;
}

/* With faults until `free_after` more commits failed or passed; then none: everything goes on. */
static void live_through(struct trial *t)
{
    struct store *s = NULL;
    bool goes_on = true;
    struct err *e = store_open(t->dir, &s);

    /* SQLite makes "damaged" of what the disk cannot read. */
    if (e && e->code == ERR_CORRUPT && !(shim_fault.calls & SHIM_ON_READ))
        fail_msg("%s: the store is not damaged, but: %s", t->what, e->text);
    for (int i = 0; i < 9 && !e && goes_on; i++)
        goes_on = commit_one(t, s);
    shim_fault.dir = NULL;
    for (int i = 0; i < 2 && !e && goes_on; i++)
        goes_on = commit_one(t, s);
    if (!e && goes_on)
        must_hold(t, s);
    err_free(e);
    s = store_close(s);

    s = open_store(t->dir);
    must_hold(t, s);
    assert_true(commit_one(t, s));
    store_close(s);
    s = open_store(t->dir);
    must_hold(t, s);
    store_close(s);
}

/* One fault at the n-th call, for each n, in the life of a new store and in that of one with a log to replay. */
static size_t try_fault(size_t which, const struct disk *start, const struct past *start_past)
{
    size_t at = 1, stride = few_or_many(start->n ? 2 : 1, 1);

    for (bool reached = true; reached; at += stride) {
        struct trial t = {.seed = 1000 + at};

        t.random = random_seeded(&t.seed);
        t.dir = make_fast_temp();
        t.second_dir = make_fast_temp();
        t.what = xasprintf("%s at call %zu", faults[which].name, at);
        past_begin(&t.past);
        if (start->n) {
            disk_write(start, t.dir);
            past_copy_last(&t.past, start_past);
            t.acknowledged = t.tried = t.past.n - 1;
        }
        shim_fault = faults[which].fault;
        shim_fault.dir = t.dir;
        shim_fault.at = at;
        live_through(&t);
        reached = shim_fault.happened >= at;
        shim_fault = (struct shim_fault){0};
        past_done(&t.past);
        remove_temp(t.dir);
        remove_temp(t.second_dir);
        free(t.what);
    }
    return at / stride;
}

static void test_faults(void **state)
{
    struct disk none = {0};
    struct damage used;

    damage_begin(&used, 7, true);
    for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
        size_t n = try_fault(i, &none, NULL) + try_fault(i, &used.disk, &used.past);
        (void)printf("%s: at %zu points\n", faults[i].name, n);
    }
    damage_done(&used, "faults");
}

/* After a flush that failed while the log was copied, nobody knows what the main file has; with another try the log would
 * be overwritten. */
static void test_flush_while_tidying(void **state)
{
    char *dir = make_fast_temp();
    bool uncertain;

    shim_fault = (struct shim_fault){.dir = dir}; /* so that the shim knows the files */
    struct store *s = open_store(dir);
    for (uint64_t n = 1; n <= 9; n++)
        ok(commit_numbered(s, n, 1, &uncertain));
    shim_fault = (struct shim_fault){.dir = dir, .calls = SHIM_ON_SYNC, .at = 1, .count = 1, .errnum = EIO};
    store_tidy_sync(s);
    assert_int_equal(shim_fault.happened, 1);
    store_tidy_sync(s);
    refused(commit_numbered(s, 10, 1, &uncertain), ERR_IO, "the disk failed");
    assert_true(uncertain);
    assert_int_equal(shim_fault.happened, 1); /* not flushed again */
    shim_fault = (struct shim_fault){0};
    store_close(s);
    s = open_store(dir);
    assert_numbered(s, 9);
    store_close(s);
    remove_temp(dir);
}

static off_t log_size(const char *dir)
{
    CLEANUP_FREE char *path = xasprintf("%s/store.sqlite-wal", dir);
    struct stat st;

    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

/* The log stays short: shorter where somebody tidies than where nobody does. */
static void test_log_is_bounded(void **state)
{
    const off_t frame = 4120, one_commit = 8;
    char *dir = make_fast_temp();
    struct store *s = open_store(dir);
    bool uncertain;

    for (uint64_t n = 1; n <= 200; n++) {
        ok(commit_numbered(s, n, 100, &uncertain));
        store_tidy_sync(s);
    }
    assert_true(log_size(dir) < (sqlite_log_most / 4 + one_commit) * frame);
    for (uint64_t n = 201; n <= 400; n++)
        ok(commit_numbered(s, n, 100, &uncertain));
    assert_true(log_size(dir) < (sqlite_log_most + one_commit) * frame);
    assert_numbered(s, 400);
    store_close(s);
    remove_temp(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_damage),
        cmocka_unit_test(test_log_alone),
        cmocka_unit_test(test_lost),
        cmocka_unit_test(test_faults),
        cmocka_unit_test(test_flush_while_tidying),
        cmocka_unit_test(test_log_is_bounded),
    };

    make_sqlite_busy();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
