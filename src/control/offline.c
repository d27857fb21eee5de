#include "control/offline.h"

#include "base/str.h"
#include "control/admin.h"
#include "model/import.h"
#include "model/record.h"
#include "store/store.h"

#include <curl/curl.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define ANSWER_MAX 65536u
#define COPY_NAME "backup-" /* as the service and we call the copies that we take away */
#define IMPORT_MAX (256u << 20) /* bytes of a file to import: several hundred thousand datasets */

static void print_summary(const char *what, const char *file, const struct store_summary *s)
{
    printf("%s %s: store %s at revision %" PRIu64 ", %zu datasets, %zu containers, %zu leases.\n",
           what, file, UUID_STR(&s->id), s->revision, s->n_datasets, s->n_containers, s->n_leases);
}

/* The service may run as a user of its own, to whom the directory belongs: then so does what root has made in it. */
static struct err *give_to_owner(const char *data_path)
{
    DIR *d = opendir(data_path);
    struct err *e = NULL;
    struct stat st;

    if (!d || fstat(dirfd(d), &st) < 0)
        e = err_errno(errno, "cannot open %s", data_path);
    for (struct dirent *entry; !e && st.st_uid != geteuid() && (entry = readdir(d));) {
        struct stat file;
        bool ours = entry->d_name[0] != '.' && fstatat(dirfd(d), entry->d_name, &file, AT_SYMLINK_NOFOLLOW) == 0 &&
                    file.st_uid == geteuid();
        if (ours && fchownat(dirfd(d), entry->d_name, st.st_uid, st.st_gid, AT_SYMLINK_NOFOLLOW) < 0)
            e = err_errno(errno, "cannot give %s/%s to the owner of the directory", data_path, entry->d_name);
    }
    if (d)
        (void)closedir(d);
    return e;
}

/* After something was done to the directory: its error counts more. */
static struct err *given_to_owner(struct err *done, const char *data_path)
{
    struct err *e = access(data_path, F_OK) == 0 ? give_to_owner(data_path) : NULL;

    if (!done)
        return e;
    err_free(e);
    return done;
}

/* ---- backup ---- */

static size_t take_bytes(char *data, size_t size, size_t n, void *cookie)
{
    struct str *body = cookie;

    (void)size; /* always 1 */
    if (body->len + n > ANSWER_MAX)
        return 0;
    str_append_bytes(body, data, n);
    return n;
}

/* What the service answers to the request; ERR_UNAVAILABLE: none runs on this directory. No time limit: a large store takes
 * its time, and a service that ends closes the connection. */
static struct err *ask_service(const char *socket, CURL *curl, struct str *ret_body,
                               long *ret_status)
{
    char error[CURL_ERROR_SIZE] = "";
    CURLcode bad = CURLE_OK;

    bad |= curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, error);
    bad |= curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH, socket);
    bad |= curl_easy_setopt(curl, CURLOPT_URL, "http://localhost/backup");
    bad |= curl_easy_setopt(curl, CURLOPT_PROXY, "");
    bad |= curl_easy_setopt(curl, CURLOPT_POSTFIELDS, "");
    bad |= curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_bytes);
    bad |= curl_easy_setopt(curl, CURLOPT_WRITEDATA, ret_body);
    if (bad != CURLE_OK)
        return err_new(ERR_INTERNAL, "cannot prepare libcurl");
    CURLcode code = curl_easy_perform(curl);
    if (code == CURLE_COULDNT_CONNECT)
        return err_new(ERR_UNAVAILABLE, "no control service answers at %s: %s", socket, error);
    if (code != CURLE_OK)
        return err_new(ERR_IO, "the control service at %s gave no answer: %s", socket,
                       error[0] ? error : curl_easy_strerror(code));
    (void)curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, ret_status);
    return NULL;
}

/* Whoever answers says what root is to copy and to remove: only a copy in that very directory. */
static bool is_copy_in(const char *data_path, const char *path)
{
    CLEANUP_FREE char *real = realpath(data_path, NULL);
    CLEANUP_FREE char *start = real ? xasprintf("%s/" COPY_NAME, real) : NULL;

    return start && str_has_prefix(path, start) && !strchr(path + strlen(start), '/');
}

static struct err *read_answer(const char *data_path, const char *socket, const struct str *body, long status,
                               char **ret_copy)
{
    json_t *v = json_loadb(body->data ? body->data : "", body->len, 0, NULL);
    const char *path = json_string_value(json_object_get(v, "path"));
    const char *text = json_string_value(json_object_get(v, "description"));
    struct err *e = NULL;

    if (status == 200 && path && is_copy_in(data_path, path))
        *ret_copy = xstrdup(path);
    else
        e = err_new(ERR_IO, "the control service at %s did not copy its store: %s", socket,
                    text ? text : "its answer is not understood");
    json_decref(v);
    return e;
}

/* Lets the service that runs on the directory make a copy in it. */
static struct err *copy_by_service(const char *data_path, char **ret_copy)
{
    CLEANUP_FREE char *socket = xasprintf("%s/" ADMIN_SOCKET, data_path);
    CLEANUP_STR struct str body = {0};
    CURL *curl = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? curl_easy_init() : NULL;
    long status = 0;

    if (!curl)
        return err_new(ERR_INTERNAL, "cannot prepare libcurl");
    struct err *e = ask_service(socket, curl, &body, &status);
    curl_easy_cleanup(curl);
    return e ? e : read_answer(data_path, socket, &body, status, ret_copy);
}

/* Nobody uses the store: it is opened like a service would, so that its log is in the copy too. */
static struct err *copy_by_ourselves(const char *data_path, char **ret_copy)
{
    CLEANUP_FREE char *path = xasprintf("%s/store.sqlite", data_path);
    struct store_backup *b = NULL;
    struct store *s = NULL;
    bool done = false;

    if (access(path, F_OK) < 0)
        return err_new(ERR_NOT_FOUND, "there is no store in %s; say where it is with --data-path",
                       data_path);
    TRY(store_open(data_path, &s));
    char *copy = xasprintf("%s/" COPY_NAME "%ld", data_path, (long)getpid());
    struct err *e = store_backup_begin_sync(s, copy, &b);
    while (!e && !done)
        e = store_backup_step_sync(b, &done);
    store_backup_end_sync(b);
    store_close(s);
    if (e)
        free(copy);
    else
        *ret_copy = copy;
    return e;
}

struct err *offline_backup(const char *data_path, const char *file)
{
    CLEANUP_FREE char *copy = NULL;
    struct store_summary s;
    struct err *e = copy_by_service(data_path, &copy);

    if (err_is(e, ERR_UNAVAILABLE)) {
        err_free(e);
        e = given_to_owner(copy_by_ourselves(data_path, &copy), data_path);
    }
    TRY(e);
    e = store_file_copy_sync(copy, file, &s);
    (void)unlink(copy);
    if (!e)
        print_summary("Backup", file, &s);
    return e;
}

/* ---- restore ---- */

struct err *offline_restore(const char *data_path, const char *file, bool replace)
{
    CLEANUP_FREE char *kept = NULL;
    struct store_summary s;

    TRY(given_to_owner(store_restore_sync(data_path, file, replace ? STORE_REPLACE : 0, &kept, &s), data_path));
    print_summary("Restored from", file, &s);
    if (kept)
        printf("The store that was there is kept as %s.\n", kept);
    printf("Agents that have seen more than this copy knows will take no orders until "
           "flocker-agent --adopt is run on\n"
           "their nodes; read \"Backup and restore\" in docs/install.md before. When all nodes are back: flockerctl adopt.\n");
    return NULL;
}

/* ---- import ---- */

static struct err *read_file(const char *path, struct str *ret)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    char buf[65536];
    ssize_t n;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_errno(errno, "cannot open %s", path);
    if (!S_ISREG(st.st_mode) || st.st_size > IMPORT_MAX)
        return err_new(ERR_INVALID, "%s is not a file of at most %u MiB", path, IMPORT_MAX >> 20);
    while ((n = read(fd, buf, sizeof(buf))) > 0 && ret->len <= IMPORT_MAX)
        str_append_bytes(ret, buf, (size_t)n);
    return n < 0 ? err_errno(errno, "cannot read %s", path) : NULL;
}

static struct err *add_change(struct store_change *to, uint64_t revision, enum store_kind kind,
                              const char *key, char *record)
{
    if (!record)
        return err_new(ERR_INTERNAL, "%s %s cannot be written without loss", store_kind_name(kind),
                       key);
    *to = (struct store_change){revision, kind, xstrdup(key), record};
    return NULL;
}

/* The changes of everything that was read, by ascending revision: that is the order in which it was read. */
static struct err *make_changes(const struct import *i, struct store_change *changes)
{
    for (size_t k = 0; k < i->n_datasets; k++) {
        const struct dataset *d = i->datasets[k];
        TRY(add_change(&changes[d->revision - 1], d->revision, STORE_DATASET, UUID_STR(&d->id),
                       record_dataset_encode(d)));
    }
    for (size_t k = 0; k < i->n_containers; k++) {
        const struct container *c = i->containers[k];
        TRY(add_change(&changes[c->revision - 1], c->revision, STORE_CONTAINER, c->name,
                       record_container_encode(c)));
    }
    for (size_t k = 0; k < i->n_leases; k++) {
        const struct lease *l = &i->leases[k];
        TRY(add_change(&changes[l->revision - 1], l->revision, STORE_LEASE, UUID_STR(&l->dataset),
                       record_lease_encode(l)));
    }
    return NULL;
}

static struct err *fill_store(struct store *s, const struct import *i)
{
    struct store_change *changes = xcalloc(i->revision + 1, sizeof(*changes));
    struct err *e = make_changes(i, changes);
    bool uncertain;

    if (!e)
        e = store_commit_sync(s, changes, i->revision, &uncertain);
    for (size_t k = 0; k < i->revision; k++) {
        free((char *)changes[k].key);
        free((char *)changes[k].value);
    }
    free(changes);
    return e;
}

static struct err *import_into(const char *data_path, const struct import *i)
{
    struct store *s = NULL;

    TRY(store_open(data_path, &s));
    struct err *e =
        store_revision(s)
            ? err_new(ERR_EXISTS, "the store in %s is not empty; import into a new directory",
                      data_path)
            : fill_store(s, i);
    store_close(s);
    return e;
}

struct err *offline_import(const char *data_path, const char *file, bool empty)
{
    CLEANUP_STR struct str text = {0};
    struct import i = {0};

    TRY(read_file(file, &text));
    TRY(err_wrap(import_parse(text.data ? text.data : "", text.len, empty ? IMPORT_EMPTY : 0, &i),
                 "%s", file));
    struct err *e = given_to_owner(import_into(data_path, &i), data_path);
    if (!e) {
        size_t deleted = 0;
        for (size_t k = 0; k < i.n_datasets; k++)
            deleted += i.datasets[k]->deleted;
        printf("Imported %s (version %d): %zu datasets, of them %zu deleted; %zu containers; %zu "
               "leases.\n",
               file, i.version, i.n_datasets, deleted, i.n_containers, i.n_leases);
        for (size_t k = 0; k < i.n_notes; k++)
            printf("- %s\n", i.notes[k]);
    }
    import_done(&i);
    return e;
}
