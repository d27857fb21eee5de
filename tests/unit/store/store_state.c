#include "store_state.h"

#include "store/sqlite/sqlite_private.h"

#include <dirent.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <sys/stat.h>

static int compare_records(const void *x, const void *y)
{
    const struct record *a = x, *b = y;

    return a->kind != b->kind ? (int)a->kind - (int)b->kind : strcmp(a->key, b->key);
}

static void state_done(struct state *s)
{
    for (size_t i = 0; i < s->n; i++) {
        free(s->records[i].key);
        free(s->records[i].value);
    }
    free(s->records);
    *s = (struct state){0};
}

void past_begin(struct past *p)
{
    *p = (struct past){.n = 1};
}

void past_forget(struct past *p, size_t n)
{
    while (p->n > n)
        state_done(&p->states[--p->n]);
}

void past_done(struct past *p)
{
    past_forget(p, 0);
}

/* With room for `more` records. */
static struct state state_copy(const struct state *from, size_t more)
{
    struct state s = {.revision = from->revision,
                      .records = xcalloc(from->n + more, sizeof(struct record))};

    for (; s.n < from->n; s.n++)
        s.records[s.n] = (struct record){from->records[s.n].kind, xstrdup(from->records[s.n].key),
                                         xstrdup(from->records[s.n].value)};
    return s;
}

void past_copy_last(struct past *p, const struct past *from)
{
    p->states[p->n++] = state_copy(&from->states[from->n - 1], 0);
}

const struct state *past_find(const struct past *p, uint64_t revision)
{
    for (size_t i = p->n; i-- > 0;) {
        if (p->states[i].revision == revision)
            return &p->states[i];
    }
    return NULL;
}

/* Takes over `key` and `value`. */
static void state_put(struct state *s, enum store_kind kind, char *key, char *value)
{
    size_t at = 0;

    while (at < s->n && (s->records[at].kind != kind || !streq(s->records[at].key, key)))
        at++;
    if (at < s->n) {
        free(s->records[at].key);
        free(s->records[at].value);
        s->records[at] = s->records[--s->n];
    }
    if (value)
        s->records[s->n++] = (struct record){kind, key, value};
    else
        free(key);
    qsort(s->records, s->n, sizeof(*s->records), compare_records);
}

static char *container_value(const char *name)
{
    struct container *k = container_new(name);
    char *value = record_container_encode(k);

    container_free(k);
    return value;
}

static char *lease_value(struct uuid dataset, uint64_t revision)
{
    return record_lease_encode(
        &(struct lease){.dataset = dataset, .node = id(A), .revision = revision});
}

static struct store_change random_change(const struct random *r, uint64_t revision)
{
    uint64_t kind = random_below(r, 10), which = 1 + random_below(r, 24);
    struct uuid u = numbered(which);
    bool is_delete = random_below(r, 4) == 0;
    struct store_change c = {.revision = revision};

    if (kind < 6) {
        uint64_t size = random_below(r, 20);
        size_t padding = size == 0 ? 60000 : size < 3 ? 9000 : (size_t)random_below(r, 900);
        c.kind = STORE_DATASET;
        c.key = xstrdup(UUID_STR(&u));
        c.value = is_delete ? NULL : dataset_value(u, revision, padding);
    } else if (kind < 8) {
        c.kind = STORE_CONTAINER;
        c.key = xasprintf("app-%d", (int)which);
        c.value = is_delete ? NULL : container_value(c.key);
    } else {
        c.kind = STORE_LEASE;
        c.key = xstrdup(UUID_STR(&u));
        c.value = is_delete ? NULL : lease_value(u, revision);
    }
    return c;
}

struct err *commit_random(struct store *s, struct past *p, const struct random *r,
                          bool *ret_uncertain)
{
    uint64_t revision = store_revision(s);
    const struct state *from = past_find(p, revision);
    struct store_change changes[6];
    size_t n = 1 + (size_t)random_below(r, ARRAY_SIZE(changes));

    if (!from || p->n == MAX_STATES)
        abort();
    struct state next = state_copy(from, n);
    next.revision = p->states[p->n - 1].revision + n;
    for (size_t i = 0; i < n; i++) {
        changes[i] = random_change(r, next.revision - n + 1 + i);
        state_put(&next, changes[i].kind, xstrdup(changes[i].key), xstrdup_null(changes[i].value));
    }
    p->states[p->n++] = next;
    struct err *e = store_commit_sync(s, changes, n, ret_uncertain);
    if (!e && random_below(r, 2))
        store_tidy_sync(s);
    for (size_t i = 0; i < n; i++) {
        free((char *)changes[i].key);
        free((char *)changes[i].value);
    }
    return e;
}

static void state_of(const struct store_content *c, struct state *ret)
{
    struct state s = {.revision = c->revision};

    s.records = xcalloc(c->n_datasets + c->n_containers + c->n_leases + 1, sizeof(struct record));
    for (size_t i = 0; i < c->n_datasets; i++)
        s.records[s.n++] = (struct record){STORE_DATASET, xstrdup(UUID_STR(&c->datasets[i]->id)),
                                           record_dataset_encode(c->datasets[i])};
    for (size_t i = 0; i < c->n_containers; i++)
        s.records[s.n++] = (struct record){STORE_CONTAINER, xstrdup(c->containers[i]->name),
                                           record_container_encode(c->containers[i])};
    for (size_t i = 0; i < c->n_leases; i++)
        s.records[s.n++] = (struct record){STORE_LEASE, xstrdup(UUID_STR(&c->leases[i].dataset)),
                                           record_lease_encode(&c->leases[i])};
    qsort(s.records, s.n, sizeof(struct record), compare_records);
    *ret = s;
}

bool state_is(struct store *s, const struct state *want, char **ret_why)
{
    struct store_content c;
    struct err *e = store_load_sync(s, &c);
    struct state is;

    *ret_why = NULL;
    if (e) {
        *ret_why = xstrdup(e->text);
        err_free(e);
        return false;
    }
    state_of(&c, &is);
    store_content_done(&c);
    if (is.revision != want->revision || is.n != want->n)
        *ret_why =
            xasprintf("revision %" PRIu64 " with %zu records instead of %" PRIu64 " with %zu",
                      is.revision, is.n, want->revision, want->n);
    for (size_t i = 0; !*ret_why && i < is.n; i++) {
        if (is.records[i].kind != want->records[i].kind ||
            !streq(is.records[i].key, want->records[i].key) ||
            !streq(is.records[i].value, want->records[i].value))
            *ret_why = xasprintf("%s %s is not what was committed last, %s %s",
                                 store_kind_name(is.records[i].kind), is.records[i].key,
                                 store_kind_name(want->records[i].kind), want->records[i].key);
    }
    state_done(&is);
    return !*ret_why;
}

/* Disks */

void folder_empty(const char *dir)
{
    DIR *d = opendir(dir);

    assert_non_null(d);
    for (struct dirent *f; (f = readdir(d));) {
        if (f->d_name[0] != '.')
            assert_int_equal(unlinkat(dirfd(d), f->d_name, 0), 0);
    }
    (void)closedir(d);
}

void disk_read(struct disk *d, const char *dir)
{
    DIR *folder = opendir(dir);

    *d = (struct disk){0};
    assert_non_null(folder);
    for (struct dirent *f; (f = readdir(folder));) {
        struct stat st;

        if (f->d_name[0] == '.')
            continue;
        assert_true(d->n < DISK_FILES);
        CLEANUP_CLOSE int fd = openat(dirfd(folder), f->d_name, O_RDONLY | O_CLOEXEC);
        assert_int_equal(fstat(fd, &st), 0);
        (void)snprintf(d->files[d->n].name, sizeof(d->files[0].name), "%.31s", f->d_name);
        d->files[d->n].n = (size_t)st.st_size;
        d->files[d->n].bytes = xmalloc((size_t)st.st_size);
        assert_int_equal(read(fd, d->files[d->n].bytes, (size_t)st.st_size), st.st_size);
        d->n++;
    }
    (void)closedir(folder);
}

void disk_write(const struct disk *d, const char *dir)
{
    folder_empty(dir);
    for (size_t i = 0; i < d->n; i++) {
        CLEANUP_FREE char *path = xasprintf("%s/%s", dir, d->files[i].name);
        CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

        assert_true(fd >= 0);
        assert_int_equal(write(fd, d->files[i].bytes, d->files[i].n), d->files[i].n);
    }
}

void disk_done(struct disk *d)
{
    for (size_t i = 0; i < d->n; i++)
        free(d->files[i].bytes);
    *d = (struct disk){0};
}

char *make_fast_temp(void)
{
    char *dir = xstrdup("/dev/shm/flocker-store-test-XXXXXX");

    if (mkdtemp(dir))
        return dir;
    free(dir);
    return make_temp();
}

size_t few_or_many(size_t few, size_t many)
{
    const char *full = getenv("FLOCKER_TEST_FULL");

    return full && *full && !streq(full, "0") ? many : few;
}

static int set_up_connection(sqlite3 *db, char **ret_error, const void *api)
{
    /* The size of the cache cannot be set in a damaged file; that is for the store to say. */
    (void)sqlite3_exec(db, "PRAGMA cache_size=12", NULL, NULL, NULL);
    return SQLITE_OK;
}

void make_sqlite_busy(void)
{
    sqlite_log_most = 40;
    /* SQLite's interface: the entry point of an extension is given as a function without arguments. */
    (void)sqlite3_auto_extension((void (*)(void))set_up_connection);
}
