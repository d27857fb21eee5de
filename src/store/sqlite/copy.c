/* Copies of a store: made while it is used, checked, and put in its place again. */
#include "base/str.h"
#include "store/sqlite/mark.h"
#include "store/sqlite/sqlite_private.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define STEP_PAGES 64 /* of 4 KiB: a commit waits for one step at most */
#define COPY_BYTES (1u << 20)

/* ---- while the store is used ---- */

struct sqlite_backup {
    struct store_backup base;
    sqlite3 *source, *to;
    char *path;
    sqlite3_backup *backup;
    bool done;
};

static struct err *step_sync(struct store_backup *base, bool *ret_done)
{
    struct sqlite_backup *b = (struct sqlite_backup *)base;
    int rc = sqlite3_backup_step(b->backup, STEP_PAGES);

    if (rc == SQLITE_OK) {
        *ret_done = false;
        return NULL;
    }
    if (rc != SQLITE_DONE)
        return sqlite_store_failure(b->to, b->path, rc, "copy to");
    b->done = *ret_done = true;
    return NULL;
}

static void end_sync(struct store_backup *base)
{
    struct sqlite_backup *b = (struct sqlite_backup *)base;

    (void)sqlite3_backup_finish(b->backup);
    (void)sqlite3_close(b->to);
    if (!b->done)
        (void)unlink(b->path);
    free(b->path);
    free(b);
}

/* Flushing is left to who takes the file: it must not hold up the commits that wait behind. */
static struct err *open_copy(struct sqlite_backup *b)
{
    int rc = sqlite3_open_v2(
        b->path, &b->to, SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE, NULL);

    if (rc == SQLITE_OK)
        rc = sqlite3_exec(b->to, "PRAGMA synchronous=OFF; PRAGMA journal_mode=OFF", NULL, NULL,
                          NULL);
    if (rc == SQLITE_OK)
        b->backup = sqlite3_backup_init(b->to, "main", b->source, "main");
    return b->backup ? NULL : sqlite_store_failure(b->to, b->path, rc, "begin to copy to");
}

struct err *sqlite_backup_begin(struct store *s, const char *path, struct store_backup **ret)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0)
        return err_errno(errno, "cannot make the copy %s", path);
    (void)close(fd);
    struct sqlite_backup *b = xcalloc(1, sizeof(*b));
    b->base = (struct store_backup){step_sync, end_sync};
    b->source = sqlite_store_of(s)->db;
    b->path = xstrdup(path);
    struct err *e = open_copy(b);
    if (e) {
        end_sync(&b->base);
        return e;
    }
    *ret = &b->base;
    return NULL;
}

/* ---- files that nobody uses ---- */

/* The path as SQLite wants it in a URI. Immutable: neither lock nor log is made beside the file. */
static char *uri_of(const char *path)
{
    struct str s = {0};

    str_append(&s, "file:");
    for (const char *p = path; *p; p++) {
        bool plain = (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') ||
                     (*p >= '0' && *p <= '9') || strchr("/._-", *p);
        if (plain)
            str_append_bytes(&s, p, 1);
        else
            str_appendf(&s, "%%%02x", (unsigned char)*p);
    }
    str_append(&s, "?immutable=1");
    return str_steal(&s);
}

static struct err *check_header(const char *path)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (fd < 0)
        return err_errno(errno, "cannot open %s", path);
    return sqlite_check_header(fd, path);
}

struct err *store_file_check_sync(const char *path, struct store_summary *ret)
{
    CLEANUP_FREE char *uri = uri_of(path);
    struct store_content content;
    struct store *s = NULL;

    TRY(check_header(path));
    TRY(sqlite_open_file(path, uri, &s));
    struct err *e = store_load_sync(s, &content);
    if (!e) {
        *ret = (struct store_summary){.id = store_id(s),
                                      .revision = content.revision,
                                      .n_datasets = content.n_datasets,
                                      .n_containers = content.n_containers,
                                      .n_leases = content.n_leases};
        store_content_done(&content);
    }
    store_close(s);
    return e;
}

static struct err *copy_bytes(int from, const char *from_path, int to, const char *to_path)
{
    CLEANUP_FREE char *buf = xmalloc(COPY_BYTES);

    for (;;) {
        ssize_t n = read(from, buf, COPY_BYTES);
        if (n == 0)
            break;
        if (n < 0)
            return err_errno(errno, "cannot read %s", from_path);
        for (ssize_t at = 0, done; at < n; at += done) {
            done = write(to, buf + at, (size_t)(n - at));
            if (done < 0)
                return err_errno(errno, "cannot write %s", to_path);
        }
    }
    return fsync(to) == 0 ? NULL : err_errno(errno, "cannot flush %s", to_path);
}

/* A whole, checked and flushed copy under a name that was free; on failure there is none. */
static struct err *copy_checked(const char *from, const char *to, struct store_summary *ret)
{
    CLEANUP_CLOSE int in = open(from, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (in < 0)
        return err_errno(errno, "cannot open %s", from);
    TRY(sqlite_check_header(in, from));
    CLEANUP_CLOSE int out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (out < 0)
        return err_errno(errno, "cannot make %s", to);
    struct err *e = copy_bytes(in, from, out, to);
    if (!e)
        e = err_wrap(store_file_check_sync(to, ret), "the copy of %s", from);
    if (e)
        (void)unlink(to);
    return e;
}

static struct err *rename_durably(const char *from, const char *to)
{
    CLEANUP_FREE char *copy = xstrdup(to);

    if (rename(from, to) < 0)
        return err_errno(errno, "cannot rename %s to %s", from, to);
    return sqlite_sync_directory(dirname(copy));
}

struct err *store_file_copy_sync(const char *from, const char *to, struct store_summary *ret)
{
    CLEANUP_FREE char *part = xasprintf("%s.%ld.part", to, (long)getpid());

    TRY(copy_checked(from, part, ret));
    struct err *e = rename_durably(part, to);
    if (e)
        (void)unlink(part); /* gone already when only the flush failed */
    return e;
}

static bool exists(const char *path)
{
    return access(path, F_OK) == 0;
}

/* Moves the old store away. Its log goes first: whatever happens in between, a log never lies beside a store that it does
 * not belong to, and a second try finds the same name for both. */
static struct err *keep_old(const char *dir, char **ret_kept)
{
    static const char *const suffixes[] = {"-wal", "-journal", ""};
    CLEANUP_FREE char *mark = xasprintf("%s/" MARK_NAME, dir);
    CLEANUP_FREE char *kept = NULL;
    unsigned n = 0;

    do {
        free(kept);
        kept = xasprintf("%s/" SQLITE_STORE_FILE ".replaced.%u", dir, ++n);
    } while (exists(kept));
    if (unlink(mark) < 0 && errno != ENOENT)
        return err_errno(errno, "cannot remove %s", mark);
    for (size_t i = 0; i < ARRAY_SIZE(suffixes); i++) {
        CLEANUP_FREE char *from = xasprintf("%s/" SQLITE_STORE_FILE "%s", dir, suffixes[i]);
        CLEANUP_FREE char *to = xasprintf("%s%s", kept, suffixes[i]);
        if (exists(from))
            TRY(rename_durably(from, to));
    }
    if (exists(kept))
        *ret_kept = steal(&kept);
    return NULL;
}

static struct err *put_in_place(const char *dir, const char *file, unsigned flags, char **ret_kept,
                                struct store_summary *ret)
{
    CLEANUP_FREE char *path = xasprintf("%s/" SQLITE_STORE_FILE, dir);
    CLEANUP_FREE char *restoring = xasprintf("%s/" SQLITE_STORE_RESTORING, dir);
    CLEANUP_FREE char *fresh = xasprintf("%s/" SQLITE_STORE_FILE ".new", dir);

    if (exists(path) && !exists(restoring) && !(flags & STORE_REPLACE))
        return err_new(ERR_EXISTS,
                       "there is a store in %s; with --replace it makes room, and is kept beside",
                       dir);
    (void)unlink(fresh); /* of a try that was cut short */
    TRY(copy_checked(file, fresh, ret));
    TRY(rename_durably(fresh,
                       restoring)); /* from here on nobody opens what is left of the old one */
    TRY(keep_old(dir, ret_kept));
    return rename_durably(restoring, path);
}

struct err *store_restore_sync(const char *dir, const char *file, unsigned flags, char **ret_kept,
                               struct store_summary *ret)
{
    CLEANUP_CLOSE int lock = -1;
    CLEANUP_FREE char *kept = NULL;

    TRY(sqlite_take_directory(dir, &lock));
    TRY(put_in_place(dir, file, flags, &kept, ret));
    *ret_kept = steal(&kept);
    return NULL;
}
