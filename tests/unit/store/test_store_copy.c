/* Copies of a store: while it is used, checked, and put in its place again. */
#include "store/writer.h"
#include "store_test.h"

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

static int setup(void **state)
{
    *state = make_temp();
    return 0;
}

static int teardown(void **state)
{
    remove_temp(*state);
    return 0;
}

static char *in(void *dir, const char *name)
{
    return xasprintf("%s/%s", (char *)dir, name);
}

static bool there(const char *path)
{
    return access(path, F_OK) == 0;
}

/* A store with datasets 1 to n, still open. */
static struct store *store_with(const char *dir, uint64_t n, size_t padding)
{
    struct store *s = NULL;
    bool uncertain;

    ok(store_open(dir, &s));
    for (uint64_t i = store_revision(s) + 1; i <= n; i++)
        ok(commit_numbered(s, i, padding, &uncertain));
    return s;
}

static void assert_holds(const char *dir, uint64_t n)
{
    struct store_content c;
    struct store *s = NULL;

    ok(store_open(dir, &s));
    ok(store_load_sync(s, &c));
    assert_int_equal(c.revision, n);
    assert_int_equal(c.n_datasets, n);
    store_content_done(&c);
    store_close(s);
}

static void copy_all(struct store *s, const char *path)
{
    struct store_backup *b = NULL;
    bool done = false;

    ok(store_backup_begin_sync(s, path, &b));
    while (!done)
        ok(store_backup_step_sync(b, &done));
    store_backup_end_sync(b);
}

static void test_backup_between_commits(void **state)
{
    CLEANUP_FREE char *path = in(*state, "copy"), *kept = in(*state, "kept");
    CLEANUP_FREE char *store = in(*state, "s");
    struct store *s = store_with(store, 300, 4000);
    struct store_backup *b = NULL;
    struct store_summary sum;
    uint64_t n = 300;
    bool done = false;
    bool uncertain;
    unsigned steps = 0;
    struct stat st;

    ok(store_backup_begin_sync(s, path, &b));
    for (; !done; steps++) {
        ok(store_backup_step_sync(b, &done));
        if (!done)
            ok(commit_numbered(s, ++n, 4000, &uncertain));
    }
    store_backup_end_sync(b);
    assert_true(steps > 3);
    /* After its end nothing more comes in. */
    ok(commit_numbered(s, n + 1, 0, &uncertain));
    ok(store_file_copy_sync(path, kept, &sum));
    assert_int_equal(sum.revision, n);
    assert_int_equal(sum.n_datasets, n);
    struct uuid own = store_id(s);
    assert_true(uuid_eq(&sum.id, &own));
    assert_int_equal(stat(kept, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    store_close(s);
}

static void test_backup_given_up(void **state)
{
    CLEANUP_FREE char *path = in(*state, "copy"), *store = in(*state, "s");
    struct store *s = store_with(store, 300, 4000);
    struct store_backup *b = NULL;
    bool done;

    ok(store_backup_begin_sync(s, path, &b));
    refused(store_backup_begin_sync(s, path, &(struct store_backup *){NULL}), ERR_EXISTS,
            "cannot make the copy");
    ok(store_backup_step_sync(b, &done));
    assert_false(done);
    store_backup_end_sync(b);
    assert_false(there(path));
    store_close(s);
}

/* ---- through the writer ---- */

struct answers {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    unsigned batches, failed;
    bool backup;
    enum err_code code;
};

static void batch_done(void *cookie, void *batch, struct store_result r)
{
    struct answers *a = cookie;

    (void)batch;
    (void)pthread_mutex_lock(&a->lock);
    a->batches++;
    a->failed += r.err != NULL;
    err_free(r.err);
    (void)pthread_mutex_unlock(&a->lock);
}

static void backup_done(void *cookie, struct err *e)
{
    struct answers *a = cookie;

    (void)pthread_mutex_lock(&a->lock);
    a->backup = true;
    a->code = e ? e->code : ERR_CODE_INVALID;
    err_free(e);
    (void)pthread_cond_signal(&a->changed);
    (void)pthread_mutex_unlock(&a->lock);
}

static struct store_batch *batch_of(uint64_t n)
{
    struct store_batch *b = store_batch_new();
    char key[UUID_TEXT_SIZE];
    struct uuid u = numbered(n);

    store_batch_add(b, n, STORE_DATASET, uuid_format(&u, key), dataset_value(u, n, 100));
    return b;
}

static void test_writer_backup(void **state)
{
    CLEANUP_FREE char *path = in(*state, "copy"), *store = in(*state, "s");
    struct store *s = store_with(store, 500, 4000);
    struct answers a = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};
    struct store_writer *w = NULL;
    struct store_summary sum;
    uint64_t n = 500;

    ok(store_writer_start(s, batch_done, &a, &w));
    for (int i = 0; i < 50; i++)
        store_writer_submit(w, batch_of(++n), NULL);
    ok(store_writer_backup(w, path, backup_done, &a));
    refused(store_writer_backup(w, path, backup_done, &a), ERR_BUSY, "another copy");
    for (int i = 0; i < 50; i++)
        store_writer_submit(w, batch_of(++n), NULL);
    (void)pthread_mutex_lock(&a.lock);
    while (!a.backup)
        (void)pthread_cond_wait(&a.changed, &a.lock);
    (void)pthread_mutex_unlock(&a.lock);
    assert_int_equal(a.code, ERR_CODE_INVALID);
    ok(store_file_check_sync(path, &sum));
    assert_true(sum.n_datasets >= 550); /* what was committed before it was asked for is in it */
    /* The next one may come; a writer that stops gives it up or finishes it, and says which. */
    a.backup = false;
    CLEANUP_FREE char *second = in(*state, "second");
    ok(store_writer_backup(w, second, backup_done, &a));
    store_writer_stop(w);
    assert_true(a.backup);
    assert_int_equal(there(second), a.code == ERR_CODE_INVALID);
    assert_int_equal(a.batches, 100);
    assert_int_equal(a.failed, 0);
    store_close(s);
    assert_holds(store, n);
}

/* ---- files ---- */

static void overwrite(const char *path, off_t at, const char *bytes, size_t n)
{
    int fd = open(path, O_RDWR);

    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, n, at), n);
    (void)close(fd);
}

static void make_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL, 0600);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    (void)close(fd);
}

static void test_bad_files(void **state)
{
    CLEANUP_FREE char *store = in(*state, "s"), *good = in(*state, "good"),
                      *bad = in(*state, "bad %3f?#");
    CLEANUP_FREE char *to = in(*state, "to"), *other = in(*state, "other");
    struct store *s = store_with(store, 200, 1000);
    struct store_summary sum;
    struct stat st;

    copy_all(s, good);
    store_close(s);
    make_file(to, "precious");
    assert_int_equal(stat(good, &st), 0);
    for (int i = 0; i < 4; i++) {
        ok(store_file_copy_sync(good, bad, &sum)); /* also: any name will do */
        if (i == 0)
            assert_int_equal(truncate(bad, st.st_size / 2), 0);
        else if (i == 1)
            overwrite(bad, st.st_size / 2 / 4096 * 4096, "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx", 32);
        else if (i == 2)
            assert_int_equal(truncate(bad, 0), 0);
        else
            overwrite(bad, 68, "abcd", 4); /* another program's */
        struct err *e = store_file_copy_sync(bad, to, &sum);
        assert_non_null(e);
        assert_int_equal(e->code, ERR_CORRUPT);
        err_free(e);
        assert_int_equal(stat(to, &st), 0);
        assert_int_equal(st.st_size, strlen("precious"));
        assert_int_equal(stat(good, &st), 0);
    }
    make_file(other, "a text that is longer than a hundred bytes, so that its size alone does not "
                     "tell that it is "
                     "no store of ours, nor anything like it");
    refused(store_file_check_sync(other, &sum), ERR_CORRUPT, "not a Flocker store");
    refused(store_file_check_sync(*state, &sum), ERR_CORRUPT, "not a Flocker store");
    refused(store_file_copy_sync("/nonexistent/file", to, &sum), ERR_NOT_FOUND, "cannot open");
    ok(store_file_copy_sync(good, to, &sum)); /* over what was there */
    assert_int_equal(sum.n_datasets, 200);
}

static void test_restore(void **state)
{
    CLEANUP_FREE char *store = in(*state, "s"), *copy = in(*state, "copy"),
                      *other = in(*state, "o");
    struct store *s = store_with(store, 20, 10);
    struct store_summary sum;
    char *kept = NULL;

    copy_all(s, copy);
    refused(store_restore_sync(store, copy, STORE_REPLACE, &kept, &sum), ERR_BUSY,
            "used by another process");
    store_close(s);
    store_close(store_with(store, 30, 10));
    refused(store_restore_sync(store, copy, 0, &kept, &sum), ERR_EXISTS, "--replace");
    assert_holds(store, 30);
    refused(store_restore_sync(store, "/nonexistent/file", STORE_REPLACE, &kept, &sum),
            ERR_NOT_FOUND, "cannot open");
    assert_holds(store, 30);
    ok(store_restore_sync(store, copy, STORE_REPLACE, &kept, &sum));
    assert_int_equal(sum.n_datasets, 20);
    assert_holds(store, 20);
    ok(store_file_check_sync(kept, &sum));
    assert_int_equal(sum.n_datasets, 30);
    free(kept);
    /* Into a directory that is not there yet. */
    ok(store_restore_sync(other, copy, 0, &kept, &sum));
    assert_null(kept);
    assert_holds(other, 20);
}

/* A store as a killed process leaves it: its newest changes are in the log beside it. */
static void leave_with_log(const char *store, uint64_t n)
{
    CLEANUP_FREE char *aside = xasprintf("%s.aside", store);
    struct store *s = store_with(store, n, 10);
    CLEANUP_FREE char *command = xasprintf("cp -a '%s' '%s'", store, aside);
    CLEANUP_FREE char *back = xasprintf("rm -rf '%s' && mv '%s' '%s'", store, aside, store);

    assert_int_equal(system(command), 0);
    store_close(s);
    assert_int_equal(system(back), 0);
    CLEANUP_FREE char *log = xasprintf("%s/store.sqlite-wal", store);
    assert_true(there(log));
}

/* Every state that a restore can be cut in. */
static void test_restore_cut_short(void **state)
{
    for (int cut = 0; cut < 3; cut++) {
        CLEANUP_FREE char *store = xasprintf("%s/s%d", (char *)*state, cut);
        CLEANUP_FREE char *copy = xasprintf("%s/copy%d", (char *)*state, cut);
        CLEANUP_FREE char *main = in(store, "store.sqlite"), *log = in(store, "store.sqlite-wal");
        CLEANUP_FREE char *restoring = in(store, "store.sqlite.restoring");
        CLEANUP_FREE char *old = in(store, "store.sqlite.replaced.1"),
                          *old_log = in(store, "store.sqlite.replaced.1-wal");
        struct store *s = store_with(store, 20, 10);
        struct store_summary sum;
        char *kept = NULL;

        copy_all(s, copy);
        store_close(s);
        leave_with_log(store, 30);
        ok(store_file_copy_sync(copy, restoring, &sum));
        if (cut >= 1)
            assert_int_equal(rename(log, old_log), 0);
        if (cut >= 2)
            assert_int_equal(rename(main, old), 0);
        refused(store_open(store, &s), ERR_CONFLICT, "cut short");
        ok(store_restore_sync(store, copy, 0, &kept, &sum));
        free(kept);
        assert_false(there(restoring));
        CLEANUP_FREE char *mark = in(store, "acknowledged");
        assert_false(there(mark));
        assert_holds(store, 20);
        /* The old one is whole: under its kept name, with its log. */
        assert_true(there(old) && there(old_log));
        CLEANUP_FREE char *whole = xasprintf("%s/whole%d", (char *)*state, cut);
        CLEANUP_FREE char *command =
            xasprintf("mkdir '%s' && mv '%s' '%s/store.sqlite' && mv '%s' '%s/store.sqlite-wal'",
                      whole, old, whole, old_log, whole);
        assert_int_equal(system(command), 0);
        assert_holds(whole, 30);
    }
}

/* A restored store is another life: what came after the copy does not belong to it. */
static void test_restore_is_another_life(void **state)
{
    CLEANUP_FREE char *store = in(*state, "s"), *copy = in(*state, "copy");
    struct store *s = store_with(store, 20, 10);
    struct store_content before, after;
    struct store_summary sum;
    char *kept = NULL;

    ok(store_load_sync(s, &before));
    copy_all(s, copy);
    store_close(s);
    store_close(store_with(store, 30, 10));
    ok(store_restore_sync(store, copy, STORE_REPLACE, &kept, &sum));
    free(kept);
    ok(store_open(store, &s));
    ok(store_load_sync(s, &after));
    struct uuid life = history_generation(&before.history);
    assert_int_equal(history_end(&after.history, &life, after.revision), 20);
    store_content_done(&before);
    store_content_done(&after);
    store_close(s);
}

static struct store_content opened(const char *dir)
{
    struct store_content c;
    struct store *s = NULL;

    ok(store_open(dir, &s));
    ok(store_load_sync(s, &c));
    store_close(s);
    return c;
}

static void settle(const char *dir, uint64_t revision)
{
    struct store_change c = {revision, STORE_SETTLED, "restored", NULL};
    struct store *s = NULL;
    bool uncertain;

    ok(store_open(dir, &s));
    ok(store_commit_sync(s, &c, 1, &uncertain));
    store_close(s);
}

static void assert_restored(const char *dir, uint64_t revision, bool unsettled)
{
    struct store_content c = opened(dir);

    assert_int_equal(c.history.restored, revision);
    assert_int_equal(c.history.unsettled, unsettled);
    store_content_done(&c);
}

/* A store that was put back says so, at each opening, until it is settled; it also tells when it was settled once. */
static void test_restore_is_noted(void **state)
{
    CLEANUP_FREE char *store = in(*state, "s"), *copy = in(*state, "copy"), *second = in(*state, "second");
    CLEANUP_FREE char *mark = in(store, "acknowledged");
    struct store *s = store_with(store, 20, 10);
    struct store_summary sum;
    char *kept = NULL;

    copy_all(s, copy);
    store_close(s);
    assert_restored(store, 0, false);
    ok(store_restore_sync(store, copy, STORE_REPLACE, &kept, &sum));
    free(kept);
    assert_restored(store, 20, true);
    assert_restored(store, 20, true);
    s = store_with(store, 25, 10);
    copy_all(s, second);
    store_close(s);
    assert_restored(store, 20, true);
    settle(store, 26);
    assert_restored(store, 20, false);
    ok(store_restore_sync(store, second, STORE_REPLACE, &kept, &sum)); /* a copy of one that waited */
    free(kept);
    assert_restored(store, 25, true);
    settle(store, 30);
    assert_restored(store, 25, false);
    assert_int_equal(unlink(mark), 0); /* as when a file was put there by hand */
    assert_restored(store, 30, true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_backup_between_commits, setup, teardown),
        cmocka_unit_test_setup_teardown(test_backup_given_up, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writer_backup, setup, teardown),
        cmocka_unit_test_setup_teardown(test_bad_files, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restore, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restore_cut_short, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restore_is_another_life, setup, teardown),
        cmocka_unit_test_setup_teardown(test_restore_is_noted, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
