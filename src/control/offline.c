#include "control/offline.h"

#include "base/str.h"
#include "control/admin.h"
#include "store/store.h"

#include <curl/curl.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <unistd.h>

#define ANSWER_MAX 65536u

static void print_summary(const char *what, const char *file, const struct store_summary *s)
{
    printf("%s %s: store %s at revision %" PRIu64 ", %zu datasets, %zu containers, %zu leases.\n",
           what, file, UUID_STR(&s->id), s->revision, s->n_datasets, s->n_containers, s->n_leases);
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

static struct err *read_answer(const char *socket, const struct str *body, long status,
                               char **ret_copy)
{
    json_t *v = json_loadb(body->data ? body->data : "", body->len, 0, NULL);
    const char *path = json_string_value(json_object_get(v, "path"));
    const char *text = json_string_value(json_object_get(v, "description"));
    struct err *e = NULL;

    if (status == 200 && path)
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
    return e ? e : read_answer(socket, &body, status, ret_copy);
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
    char *copy = xasprintf("%s/backup-%ld", data_path, (long)getpid());
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
        e = copy_by_ourselves(data_path, &copy);
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

    TRY(store_restore_sync(data_path, file, replace ? STORE_REPLACE : 0, &kept, &s));
    print_summary("Restored from", file, &s);
    if (kept)
        printf("The store that was there is kept as %s.\n", kept);
    printf("Agents that have seen more than this copy knows will take no orders until "
           "flocker-agent --adopt is run on\n"
           "their nodes; read \"Backup and restore\" in docs/install.md before.\n");
    return NULL;
}
