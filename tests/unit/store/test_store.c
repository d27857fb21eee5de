#include "store_test.h"

#include "store/writer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <sqlite3.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

extern char **environ;

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

static struct store *open_store(const char *dir)
{
    struct store *s = NULL;

    ok(store_open(dir, &s));
    return s;
}

static void test_all_kinds(void **state)
{
    CLEANUP_FREE char *dir = xasprintf("%s/new", (char *)*state);
    struct store *s = open_store(dir);
    struct uuid first_id = store_id(s), again;
    struct container *k = container_new("shop-db");
    struct lease lease = {.dataset = numbered(1), .node = id(A), .acquired = true, .revision = 3};
    CLEANUP_FREE char *dataset = dataset_value(numbered(1), 1, 5);
    CLEANUP_FREE char *container = record_container_encode(k);
    CLEANUP_FREE char *lease_text = record_lease_encode(&lease);
    struct uuid u = numbered(1);
    struct store_change changes[] = {
        {1, STORE_DATASET, UUID_STR(&u), dataset},
        {2, STORE_CONTAINER, "shop-db", container},
        {3, STORE_LEASE, UUID_STR(&u), lease_text},
    };
    struct store_change gone[] = {{7, STORE_CONTAINER, "shop-db", NULL},
                                  {8, STORE_CONTAINER, "never-there", NULL}};
    struct store_content c;
    struct stat st;
    bool uncertain = true;

    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_true(uuid_parse_v4(UUID_STR(&first_id), &again));
    assert_true(store_revision(s) == 0);
    ok(store_commit_sync(s, changes, 3, &uncertain));
    assert_false(uncertain);
    assert_true(store_revision(s) == 3);
    store_close(s);

    s = open_store(dir);
    again = store_id(s);
    assert_true(uuid_eq(&first_id, &again));
    ok(store_load_sync(s, &c));
    assert_true(c.revision == 3);
    assert_int_equal(c.n_datasets, 1);
    assert_int_equal(c.n_containers, 1);
    assert_int_equal(c.n_leases, 1);
    assert_string_equal(metadata_get(&c.datasets[0]->metadata, "padding"), "xxxxx");
    assert_string_equal(c.containers[0]->name, "shop-db");
    assert_true(uuid_eq(&c.leases[0].node, &lease.node));
    store_content_done(&c);
    ok(store_commit_sync(s, gone, 2, &uncertain));
    ok(store_commit_sync(s, NULL, 0, &uncertain));
    ok(store_load_sync(s, &c));
    assert_int_equal(c.n_containers, 0);
    assert_true(c.revision == 8);
    store_content_done(&c);
    store_close(s);
    container_free(k);
}

static void test_revisions(void **state)
{
    struct store *s = open_store(*state);
    struct uuid u = numbered(9), v = numbered(8);
    CLEANUP_FREE char *value = dataset_value(u, 6, 1);
    struct store_change twice[] = {{6, STORE_DATASET, UUID_STR(&u), value},
                                   {6, STORE_DATASET, UUID_STR(&v), NULL}};
    CLEANUP_FREE char *long_key = xcalloc(1, STORE_MAX_KEY + 2);
    CLEANUP_FREE char *long_value = xcalloc(1, STORE_MAX_VALUE + 2);
    bool uncertain;

    memset(long_key, 'k', STORE_MAX_KEY + 1);
    memset(long_value, 'v', STORE_MAX_VALUE + 1);
    struct store_change key = {7, STORE_CONTAINER, long_key, NULL};
    struct store_change size = {7, STORE_CONTAINER, "big", long_value};
    for (uint64_t n = 1; n <= 5; n++)
        ok(commit_numbered(s, n, 1, &uncertain));
    refused(commit_numbered(s, 5, 1, &uncertain), ERR_INTERNAL, "revision 5");
    refused(commit_numbered(s, 4, 1, &uncertain), ERR_INTERNAL, "not above 5");
    refused(store_commit_sync(s, twice, 2, &uncertain), ERR_INTERNAL, "not above 6");
    refused(store_commit_sync(s, &key, 1, &uncertain), ERR_INVALID, "1024");
    refused(store_commit_sync(s, &size, 1, &uncertain), ERR_INVALID, "\"big\" has 16777217 bytes");
    assert_false(uncertain);
    assert_numbered(s, 5); /* nothing of the refused ones is there */
    assert_true(store_revision(s) == 5);
    store_close(s);
}

static void test_two_openers(void **state)
{
    struct store *s = open_store(*state), *second = NULL;
    CLEANUP_FREE char *pid = xasprintf("pid %d", getpid());

    refused(store_open(*state, &second), ERR_BUSY, pid);
    assert_null(second);
    store_close(s);
    store_close(open_store(*state));
}

static void sql(const char *dir, const char *text)
{
    CLEANUP_FREE char *path = xasprintf("%s/store.sqlite", dir);
    sqlite3 *db = NULL;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    if (sqlite3_exec(db, text, NULL, NULL, NULL) != SQLITE_OK)
        fail_msg("%s: %s", text, sqlite3_errmsg(db));
    (void)sqlite3_close(db);
}

static void put_file(const char *dir, const char *bytes, size_t n)
{
    CLEANUP_FREE char *path = xasprintf("%s/store.sqlite", dir);
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);

    assert_int_equal(write(fd, bytes, n), n);
}

static void test_not_ours(void **state)
{
    struct store *s = NULL;
    CLEANUP_FREE char *path = xasprintf("%s/store.sqlite", (char *)*state);
    char back[16] = "";

    put_file(*state, "some notes", 10);
    refused(store_open(*state, &s), ERR_CORRUPT, "not a Flocker store");
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_int_equal(read(fd, back, sizeof(back)), 10); /* untouched */
    assert_memory_equal(back, "some notes", 10);

    put_file(*state, "", 0);
    sql(*state, "PRAGMA application_id=1234; CREATE TABLE t (x)");
    refused(store_open(*state, &s), ERR_CORRUPT, "another program (application id 0x000004d2)");
    put_file(*state, "", 0);
    sql(*state, "CREATE TABLE t (x)");
    refused(store_open(*state, &s), ERR_CORRUPT, "another program");
    put_file(*state, "", 0); /* as left by a process killed while making it */
    store_close(open_store(*state));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkdir(path, 0700), 0);
    refused(store_open(*state, &s), ERR_IO, "cannot open the store");
}

/* Each opening begins a generation; a copy that is put back does not know those of the store it replaces. */
static void test_generations(void **state)
{
    CLEANUP_FREE char *copy = xasprintf("cp -a %s %s.copy", (char *)*state, (char *)*state);
    CLEANUP_FREE char *back = xasprintf("rm -r %s && mv %s.copy %s", (char *)*state, (char *)*state, (char *)*state);
    struct store *s = open_store(*state);
    struct store_content first, second, restored;
    bool uncertain;

    ok(store_load_sync(s, &first));
    assert_int_equal(first.history.n, 1);
    assert_true(first.history.generations[0].begin == 0);
    struct uuid id = store_id(s);
    assert_true(uuid_eq(&first.history.store, &id));
    for (uint64_t n = 1; n <= 5; n++)
        ok(commit_numbered(s, n, 1, &uncertain));
    store_close(s);
    assert_int_equal(system(copy), 0);

    s = open_store(*state);
    ok(store_load_sync(s, &second));
    assert_int_equal(second.history.n, 2);
    assert_true(second.history.generations[1].begin == 5);
    ok(commit_numbered(s, 6, 1, &uncertain));
    struct uuid lost = history_generation(&second.history);
    struct uuid shared = history_generation(&first.history);
    assert_true(history_end(&second.history, &shared, 6) == 5);
    assert_true(history_end(&second.history, &lost, 6) == 6);
    store_close(s);

    assert_int_equal(system(back), 0);
    s = open_store(*state);
    ok(store_load_sync(s, &restored));
    assert_int_equal(restored.history.n, 2);
    assert_true(history_end(&restored.history, &shared, 5) == 5);
    assert_true(history_end(&restored.history, &lost, 5) == 0);
    store_close(s);
    store_content_done(&first);
    store_content_done(&second);
    store_content_done(&restored);
}

/* Makes it a store of schema 1, which had none: it is made anew when the store is opened. */
static const char without_checksum[] =
    "DELETE FROM meta WHERE name = 'checksum'; PRAGMA user_version=1";

static void test_old_generations_go(void **state)
{
    CLEANUP_FREE char *many =
        xasprintf("WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i <= %u) "
                  "INSERT INTO generation SELECT i, printf('00000000-0000-4000-8000-%%012x', i), 0 FROM n",
                  HISTORY_MAX);
    struct store *s = open_store(*state);
    struct store_content c;

    store_close(s);
    sql(*state, many);
    sql(*state, without_checksum);
    s = open_store(*state);
    ok(store_load_sync(s, &c));
    assert_int_equal(c.history.n, HISTORY_MAX);
    store_content_done(&c);
    store_close(s);
    sql(*state, "UPDATE generation SET id = 'odd' WHERE number = 99");
    refused(store_open(*state, &s), ERR_CORRUPT, "do not add up to their checksum");
    sql(*state, without_checksum);
    s = open_store(*state);
    refused(store_load_sync(s, &c), ERR_CORRUPT, "generations cannot be read");
    store_close(s);
}

static void test_newer_schema(void **state)
{
    struct store *s = open_store(*state);

    store_close(s);
    sql(*state, "PRAGMA user_version=6");
    refused(store_open(*state, &s), ERR_UNSUPPORTED, "newer version of Flocker (schema 6");
    sql(*state, "PRAGMA user_version=5");
    store_close(open_store(*state));
}

/* Until schema 4 there were no fences. */
static void test_before_fences(void **state)
{
    struct store *s = open_store(*state);
    struct fence fence = {.node = id(A), .revision = 4, .who = (char *)"alice", .why = (char *)""};
    CLEANUP_FREE char *value = record_fence_encode(&fence);
    CLEANUP_FREE char *file = xasprintf("%s/store.sqlite", (char *)*state);
    struct store_change change = {4, STORE_FENCE, UUID_STR(&fence.node), value};
    struct store_change gone = {5, STORE_FENCE, UUID_STR(&fence.node), NULL};
    struct store_summary summary;
    struct store_content c;
    bool uncertain;

    for (uint64_t n = 1; n <= 3; n++)
        ok(commit_numbered(s, n, 1, &uncertain));
    store_close(s);
    make_older(*state, 4);
    ok(store_file_check_sync(file, &summary));
    assert_int_equal(summary.n_datasets, 3);
    s = open_store(*state);
    ok(store_commit_sync(s, &change, 1, &uncertain));
    store_close(s);
    s = open_store(*state);
    ok(store_load_sync(s, &c));
    assert_int_equal(c.n_datasets, 3);
    assert_int_equal(c.n_fences, 1);
    assert_true(uuid_eq(&c.fences[0]->node, &fence.node));
    store_content_done(&c);
    ok(store_commit_sync(s, &gone, 1, &uncertain));
    ok(store_load_sync(s, &c));
    assert_int_equal(c.n_fences, 0);
    store_content_done(&c);
    store_close(s);
}

/* Until schema 3 there were no cordons. */
static void test_before_cordons(void **state)
{
    struct store *s = open_store(*state);
    struct cordon cordon = {.node = id(A), .revision = 4};
    CLEANUP_FREE char *value = record_cordon_encode(&cordon);
    CLEANUP_FREE char *file = xasprintf("%s/store.sqlite", (char *)*state);
    struct store_change change = {4, STORE_CORDON, UUID_STR(&cordon.node), value};
    struct store_change gone = {5, STORE_CORDON, UUID_STR(&cordon.node), NULL};
    struct store_summary summary;
    struct store_content c;
    bool uncertain;

    for (uint64_t n = 1; n <= 3; n++)
        ok(commit_numbered(s, n, 1, &uncertain));
    store_close(s);
    make_older(*state, 3);
    ok(store_file_check_sync(file, &summary)); /* a copy that an older version made can be put back */
    assert_int_equal(summary.n_datasets, 3);
    s = open_store(*state);
    ok(store_commit_sync(s, &change, 1, &uncertain));
    store_close(s);
    ok(store_file_check_sync(file, &summary));
    s = open_store(*state);
    ok(store_load_sync(s, &c));
    assert_int_equal(c.n_datasets, 3);
    assert_int_equal(c.n_cordons, 1);
    assert_true(uuid_eq(&c.cordons[0].node, &cordon.node));
    assert_true(c.cordons[0].revision == 4);
    store_content_done(&c);
    ok(store_commit_sync(s, &gone, 1, &uncertain));
    ok(store_load_sync(s, &c));
    assert_int_equal(c.n_cordons, 0);
    store_content_done(&c);
    store_close(s);
}

/* Keys have no index in the file. */
static void test_two_records_of_one_key(void **state)
{
    struct store *s = open_store(*state);
    bool uncertain;

    for (uint64_t n = 1; n <= 3; n++)
        ok(commit_numbered(s, n, 1, &uncertain));
    store_close(s);
    sql(*state, "INSERT INTO dataset (key, revision, value) SELECT key, revision, value FROM dataset WHERE id = 2");
    refused(store_open(*state, &s), ERR_CORRUPT, "two records of dataset");
    sql(*state, "DELETE FROM dataset WHERE id = 4");
    sql(*state, "UPDATE dataset SET id = 274877906944 WHERE id = 3");
    refused(store_open(*state, &s), ERR_CORRUPT, "has the number 274877906944");
    sql(*state, "UPDATE dataset SET id = 274877906943 WHERE id = 274877906944");
    s = open_store(*state);
    refused(commit_numbered(s, 4, 1, &uncertain), ERR_INVALID, "too big");
    assert_false(uncertain);
    assert_numbered(s, 3);
    store_close(s);
}

static void test_corrupt_records(void **state)
{
    CLEANUP_FREE char *other = dataset_value(numbered(1), 3, 1);
    struct store_change odd = {2, STORE_CONTAINER, "odd", "{\"format\":1}"};
    struct store_change gone = {3, STORE_CONTAINER, "odd", NULL};
    struct store_change wrong = {4, STORE_DATASET, A, other};
    struct store *s = open_store(*state);
    struct store_content c;
    bool uncertain;

    ok(commit_numbered(s, 1, 1, &uncertain));
    ok(store_commit_sync(s, &odd, 1, &uncertain));
    refused(store_load_sync(s, &c), ERR_CORRUPT,
            "container \"odd\": container record: field \"name\"");
    ok(store_commit_sync(s, &gone, 1, &uncertain));
    ok(store_commit_sync(s, &wrong, 1, &uncertain));
    store_close(s);
    s = open_store(*state);
    refused(store_load_sync(s, &c), ERR_CORRUPT,
            "is that of \"00000000-0000-4000-8000-000000000001\"");
    store_close(s);
    sql(*state, "UPDATE dataset SET revision = revision + 1 WHERE key = '" A "'");
    refused(store_open(*state, &s), ERR_CORRUPT, "do not add up to their checksum");
    sql(*state, "DELETE FROM meta WHERE name = 'store_id'");
    refused(store_open(*state, &s), ERR_CORRUPT, "its id is no UUID");
}

static void test_no_permission(void **state)
{
    CLEANUP_FREE char *dir = xasprintf("%s/sub", (char *)*state);
    CLEANUP_FREE char *missing = xasprintf("%s/a/b", (char *)*state);
    struct store *s = NULL;

    refused(store_open(missing, &s), ERR_NOT_FOUND, "cannot make the store's directory");
    if (geteuid() != 0) {
        assert_int_equal(chmod(*state, 0500), 0);
        refused(store_open(dir, &s), ERR_DENIED, "Permission denied");
        assert_int_equal(chmod(*state, 0700), 0);
        return;
    }
    assert_int_equal(seteuid(65534), 0);
    struct err *e = store_open(dir, &s);
    assert_int_equal(seteuid(0), 0);
    refused(e, ERR_DENIED, "Permission denied");
}

/* Another program cannot write to a store that is in use. */

/* That program. */
static int foreign(const char *path)
{
    sqlite3 *db;
    int rc = sqlite3_open(path, &db);

    if (rc == SQLITE_OK)
        rc = sqlite3_exec(db, "DELETE FROM dataset", NULL, NULL, NULL);
    (void)sqlite3_close(db);
    return rc == SQLITE_BUSY ? 0 : 1;
}

static void test_foreign_writer(void **state)
{
    struct store *s = open_store(*state);
    CLEANUP_FREE char *path = xasprintf("%s/store.sqlite", (char *)*state);
    char *argv[] = {(char *)"foreign", (char *)"foreign", path, NULL};
    bool uncertain;
    int status;
    pid_t pid;

    ok(commit_numbered(s, 1, 3, &uncertain));
    assert_int_equal(posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    ok(commit_numbered(s, 2, 3, &uncertain));
    assert_numbered(s, 2);
    store_close(s);
}

/* The writer thread */

struct answers {
    pthread_mutex_t lock;
    uint64_t order[64];
    enum err_code code[64];
    size_t n;
};

static void note(void *cookie, void *batch_cookie, struct store_result result)
{
    struct answers *a = cookie;

    (void)pthread_mutex_lock(&a->lock);
    a->order[a->n] = (uint64_t)(uintptr_t)batch_cookie;
    a->code[a->n++] = result.err ? result.err->code : ERR_CODE_INVALID;
    (void)pthread_mutex_unlock(&a->lock);
    err_free(result.err);
}

static struct store_batch *numbered_batch(uint64_t from, uint64_t to)
{
    struct store_batch *b = store_batch_new();

    for (uint64_t n = from; n <= to; n++) {
        struct uuid u = numbered(n);
        store_batch_add(b, n, STORE_DATASET, UUID_STR(&u), dataset_value(u, n, 3));
    }
    assert_int_equal(store_batch_size(b), to - from + 1);
    return b;
}

static void test_writer(void **state)
{
    struct store *s = open_store(*state);
    struct answers a = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct store_writer *w = NULL;

    ok(store_writer_start(s, note, &a, &w));
    for (uint64_t i = 0; i < 20; i++)
        store_writer_submit(w, numbered_batch(i * 10 + 1, i * 10 + 10), (void *)(uintptr_t)i);
    store_writer_stop(w); /* flushes */
    assert_int_equal(a.n, 20);
    for (uint64_t i = 0; i < 20; i++) {
        assert_true(a.order[i] == i);
        assert_int_equal((int)a.code[i], ERR_CODE_INVALID);
    }
    assert_numbered(s, 200);
    store_close(s);
}

static void hold(void *cookie, void *batch_cookie, struct store_result result)
{
    struct answers *a = cookie;

    note(a, batch_cookie, result);
    (void)pthread_mutex_lock(&a->lock); /* until the test has queued all it wants */
    (void)pthread_mutex_unlock(&a->lock);
}

/* What was queued behind a failure is not committed: it was made on top of the failed change. */
static void test_writer_failure(void **state)
{
    struct store *s = open_store(*state);
    struct answers a = {.lock = PTHREAD_MUTEX_INITIALIZER};
    struct store_writer *w = NULL;

    ok(store_writer_start(s, hold, &a, &w));
    (void)pthread_mutex_lock(&a.lock);
    store_writer_submit(w, numbered_batch(1, 2), (void *)1);
    store_writer_submit(w, numbered_batch(2, 3), (void *)2); /* 2 is not above 2 */
    store_writer_submit(w, numbered_batch(5, 6), (void *)3);
    store_writer_submit(w, numbered_batch(7, 8), (void *)4);
    (void)pthread_mutex_unlock(&a.lock);
    store_writer_stop(w);
    assert_int_equal(a.n, 4);
    assert_int_equal((int)a.code[0], ERR_CODE_INVALID);
    assert_int_equal(a.code[1], ERR_INTERNAL);
    assert_int_equal(a.code[2], ERR_CANCELLED);
    assert_int_equal(a.code[3], ERR_CANCELLED);
    assert_numbered(s, 2);
    store_close(s);
}

/* Killed in the middle of a storm of commits: what it had acknowledged is there. */

/* The child: commits without end and prints each revision after its commit. */
static int storm(const char *dir)
{
    struct store *s = NULL;
    bool uncertain;

    if (store_open(dir, &s))
        return 1;
    for (;;) {
        uint64_t n = store_revision(s) + 1;
        if (commit_numbered(s, n, 50, &uncertain) ||
            write(STDOUT_FILENO, &n, sizeof(n)) != sizeof(n))
            return 1;
    }
}

static uint64_t storm_and_kill(const char *dir, uint64_t commits)
{
    char *argv[] = {(char *)"storm", (char *)"storm", (char *)dir, NULL};
    posix_spawn_file_actions_t fa;
    uint64_t n = 0, acknowledged = 0;
    int pipe_fd[2], status;
    pid_t pid;

    assert_int_equal(pipe2(pipe_fd, O_CLOEXEC), 0);
    (void)posix_spawn_file_actions_init(&fa);
    (void)posix_spawn_file_actions_adddup2(&fa, pipe_fd[1], STDOUT_FILENO);
    assert_int_equal(posix_spawn(&pid, "/proc/self/exe", &fa, NULL, argv, environ), 0);
    (void)posix_spawn_file_actions_destroy(&fa);
    (void)close(pipe_fd[1]);
    struct pollfd p = {.fd = pipe_fd[0], .events = POLLIN};
    for (uint64_t i = 0; i < commits; i++) {
        if (poll(&p, 1, 20000) != 1 || read(pipe_fd[0], &n, sizeof(n)) != sizeof(n))
            break;
        acknowledged = n;
    }
    (void)kill(pid, SIGKILL);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    while (read(pipe_fd[0], &n, sizeof(n)) == sizeof(n))
        acknowledged = n;
    (void)close(pipe_fd[0]);
    return acknowledged;
}

static void test_kill(void **state)
{
    uint64_t before = 0;

    for (uint64_t round = 0; round < 6; round++) {
        uint64_t acknowledged = storm_and_kill(*state, round * 37);
        struct store *s = NULL;

        if (round)
            assert_true(acknowledged >= before + round * 37);
        ok(store_open(*state, &s));
        assert_numbered(s, acknowledged);
        before = store_revision(s);
        store_close(s);
    }
}

int main(int argc, char **argv)
{
    if (argc == 3 && streq(argv[1], "storm"))
        return storm(argv[2]);
    if (argc == 3 && streq(argv[1], "foreign"))
        return foreign(argv[2]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_all_kinds, setup, teardown),
        cmocka_unit_test_setup_teardown(test_revisions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_openers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_not_ours, setup, teardown),
        cmocka_unit_test_setup_teardown(test_generations, setup, teardown),
        cmocka_unit_test_setup_teardown(test_old_generations_go, setup, teardown),
        cmocka_unit_test_setup_teardown(test_newer_schema, setup, teardown),
        cmocka_unit_test_setup_teardown(test_before_cordons, setup, teardown),
        cmocka_unit_test_setup_teardown(test_before_fences, setup, teardown),
        cmocka_unit_test_setup_teardown(test_two_records_of_one_key, setup, teardown),
        cmocka_unit_test_setup_teardown(test_corrupt_records, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_permission, setup, teardown),
        cmocka_unit_test_setup_teardown(test_foreign_writer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writer, setup, teardown),
        cmocka_unit_test_setup_teardown(test_writer_failure, setup, teardown),
        cmocka_unit_test_setup_teardown(test_kill, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
