#include "agent/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <unistd.h>

#define FILE_MAX 4096u

bool memory_parse(const char *text, size_t n, struct node_memory *ret)
{
    const char *store, *generation;
    json_int_t revision;
    json_error_t at;
    struct node_memory m = {0};
    json_t *root = memchr(text, '\0', n) ? NULL : json_loadb(text, n, JSON_REJECT_DUPLICATES, &at);
    bool ok = json_unpack(root, "{s:s, s:s, s:I}", "store", &store, "generation", &generation, "revision",
                          &revision) == 0 &&
              revision >= 0 && uuid_parse(store, &m.store) && uuid_parse(generation, &m.generation);

    if (ok) {
        m.seen_revision = (uint64_t)revision;
        *ret = m;
    }
    json_decref(root);
    return ok;
}

char *memory_format(const struct node_memory *m)
{
    return xasprintf("{\"store\": \"%s\", \"generation\": \"%s\", \"revision\": %llu}\n", UUID_STR(&m->store),
                     UUID_STR(&m->generation), (unsigned long long)m->seen_revision);
}

struct err *memory_load(const char *state_dir, struct node_memory *ret)
{
    CLEANUP_FREE char *path = xasprintf("%s/store.json", state_dir);
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    char text[FILE_MAX];

    if (fd < 0 && errno == ENOENT) {
        *ret = (struct node_memory){0};
        return NULL;
    }
    ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof(text));
    if (n < 0)
        return err_errno(errno, "cannot read %s", path);
    if (memory_parse(text, (size_t)n, ret))
        return NULL;
    return err_new(ERR_CORRUPT, "%s is damaged; `flocker-agent --adopt` makes it anew", path);
}

static struct err *write_file(const char *path, const char *text)
{
    CLEANUP_CLOSE int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    size_t n = strlen(text);

    if (fd < 0)
        return err_errno(errno, "cannot write %s", path);
    ssize_t written = write(fd, text, n);
    if (written != (ssize_t)n)
        return err_errno(written < 0 ? errno : ENOSPC, "cannot write %s", path);
    if (fsync(fd) != 0)
        return err_errno(errno, "cannot flush %s", path);
    return NULL;
}

struct err *memory_save(const char *state_dir, const struct node_memory *m)
{
    CLEANUP_FREE char *path = xasprintf("%s/store.json", state_dir);
    CLEANUP_FREE char *temporary = xasprintf("%s/store.json.new", state_dir);
    CLEANUP_FREE char *text = memory_format(m);

    TRY(write_file(temporary, text));
    if (rename(temporary, path) != 0)
        return err_errno(errno, "cannot rename %s", temporary);
    CLEANUP_CLOSE int dir = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || fsync(dir) != 0)
        return err_errno(errno, "cannot flush %s", state_dir);
    return NULL;
}
