#include "control/admin.h"

#include "base/log.h"
#include "base/random.h"
#include "base/str.h"
#include "net/http_server.h"

#include <dirent.h>
#include <inttypes.h>
#include <jansson.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define COPY_PREFIX "backup-"

struct admin {
    struct loop *loop;
    struct store_writer *writer;
    struct http_server *http;
    char *data_path;
    /* The copy that is being made; there is one at a time. */
    struct http_request *request; /* NULL = none */
    char *path;
    struct err *result; /* the writer thread's, until it has posted */
};

static void answer_copy(struct admin *a, struct http_request *r)
{
    if (a->result) {
        log_error("the store was not copied: %s", a->result->text);
        http_reply_error(r, a->result->code == ERR_CANCELLED ? 503 : 500, "%s", a->result->text);
        return;
    }
    if (http_request_is_gone(r))
        (void)unlink(a->path);
    json_t *v = json_pack("{s:s}", "path", a->path);
    char *text = v ? json_dumps(v, JSON_COMPACT) : NULL;
    if (text)
        http_reply(r, 200, NULL, 0, text, strlen(text));
    else
        http_reply_error(r, 500, "The path of the data directory is not UTF-8.");
    free(text);
    json_decref(v);
}

static void copy_finished(void *cookie)
{
    struct admin *a = cookie;

    answer_copy(a, steal(&a->request));
    a->result = err_free(a->result);
    free(steal(&a->path));
}

static void copy_done(void *cookie, struct err *e)
{
    struct admin *a = cookie;

    a->result = e;
    loop_post(a->loop, copy_finished, a);
}

static void start_copy(struct admin *a, struct http_request *r)
{
    struct random random = random_os();

    if (a->request) {
        http_reply_error(r, 409, "Another copy of the store is being made; wait for it.");
        return;
    }
    a->path = xasprintf("%s/" COPY_PREFIX "%016" PRIx64, a->data_path, random_next(&random));
    struct err *e = store_writer_backup(a->writer, a->path, copy_done, a);
    if (e) {
        http_reply_error(r, 409, "%s", e->text);
        err_free(e);
        free(steal(&a->path));
        return;
    }
    a->request = r;
}

static void handle(struct http_request *r, void *cookie)
{
    if (!streq(http_request_path(r), "/backup"))
        http_reply_error(r, 404, "There is nothing at this path.");
    else if (http_request_method(r) != HTTP_POST)
        http_reply_error(r, 405, "Only POST is allowed here.");
    else
        start_copy(cookie, r);
}

/* Copies that nobody took away. */
static void remove_old_copies(const char *data_path)
{
    DIR *d = opendir(data_path);

    for (struct dirent *entry; d && (entry = readdir(d));) {
        if (str_has_prefix(entry->d_name, COPY_PREFIX))
            (void)unlinkat(dirfd(d), entry->d_name, 0);
    }
    if (d)
        (void)closedir(d);
}

struct err *admin_new(struct loop *l, struct store_writer *writer, const char *data_path,
                      struct admin **ret)
{
    struct http_server_config config = {.name = "admin", .max_connections = 16};
    struct admin *a = xcalloc(1, sizeof(*a));
    CLEANUP_FREE char *socket = xasprintf("%s/" ADMIN_SOCKET, data_path);

    a->loop = l;
    a->writer = writer;
    a->data_path = realpath(data_path, NULL);
    remove_old_copies(data_path);
    struct err *e = http_server_new(l, &config, handle, a, &a->http);
    if (!e)
        e = http_server_listen_unix(a->http, socket, 0600);
    if (e || !a->data_path) {
        admin_free(a);
        return e ? e : err_new(ERR_IO, "cannot find the data directory %s", data_path);
    }
    *ret = a;
    return NULL;
}

struct admin *admin_free(struct admin *a)
{
    if (!a)
        return NULL;
    loop_unpost(a->loop, copy_finished, a);
    if (a->request)
        copy_finished(a);
    http_server_free(a->http);
    free(a->data_path);
    free(a);
    return NULL;
}
