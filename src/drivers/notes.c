#include "drivers/notes.h"

#include "base/str.h"
#include "drivers/durable.h"

#include <fcntl.h>

struct err *notes_open(struct notes *n, const char *state_dir, const char *backend)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", state_dir, backend);
    CLEANUP_CLOSE int dir = -1;

    TRY(dir_open(AT_FDCWD, path, /* create= */ true, 0700, &dir));
    TRY(dir_open(dir, "marks", /* create= */ true, 0700, &n->marks));
    return dir_open(dir, "volumes", /* create= */ true, 0700, &n->volumes);
}

void notes_close(struct notes *n)
{
    mem_closep(&n->marks);
    mem_closep(&n->volumes);
    *n = NOTES_CLOSED;
}

struct err *notes_write(const struct notes *n, const struct uuid *dataset, const char *id)
{
    CLEANUP_FREE char *old = NULL;

    TRY(notes_read(n, dataset, strlen(id), &old));
    if (old && streq(old, id))
        return NULL;
    return file_replace(n->volumes, UUID_STR(dataset), id, strlen(id));
}

static bool is_id(const char *s)
{
    for (const char *c = s; *c; c++) {
        if (*c <= ' ' || *c > '~')
            return false;
    }
    return *s;
}

struct err *notes_read(const struct notes *n, const struct uuid *dataset, size_t max, char **ret_id)
{
    CLEANUP_FREE char *id = NULL;
    struct err *e = file_read(n->volumes, UUID_STR(dataset), max, &id);

    if (err_is(e, ERR_CORRUPT)) /* a hint only: without it all works as well */
        e = err_free(e);
    if (e)
        return e;
    *ret_id = id && is_id(id) ? steal(&id) : NULL;
    return NULL;
}

struct err *notes_remove(const struct notes *n, const struct uuid *dataset)
{
    return file_remove(n->volumes, UUID_STR(dataset));
}

struct err *notes_list(const struct notes *n, struct volume_list *l, void *cookie,
                       struct err *(*inspect)(void *cookie, const struct uuid *dataset,
                                              struct volume_state *v))
{
    const int folders[] = {n->volumes, n->marks};
    const char *name;
    struct uuid id;

    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        CLEANUP_DIR DIR *d = dir_stream(folders[i]);

        if (!d)
            return err_new(ERR_IO, "cannot list what is known of volumes");
        while ((name = dir_next(d))) {
            if (!uuid_parse(name, &id))
                continue;
            struct volume_state *v = volume_list_get(l, &id);

            if (!v->present && folders[i] == n->volumes)
                TRY(inspect(cookie, &id, v));
        }
    }
    return NULL;
}

struct err *notes_mark_dir(const struct notes *n, const struct uuid *dataset, bool create,
                           int *ret_fd)
{
    return dir_open(n->marks, UUID_STR(dataset), create, 0700, ret_fd);
}

struct err *notes_forget(const struct notes *n, const struct uuid *dataset)
{
    TRY(notes_remove(n, dataset));
    return dir_remove_empty(n->marks, UUID_STR(dataset));
}
