#include "agent/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <unistd.h>

struct err *memory_load(const char *state_dir, struct node_memory *ret)
{
    CLEANUP_FREE char *path = xasprintf("%s/store.json", state_dir);
    json_error_t at;
    const char *store, *generation;
    json_int_t revision;
    struct node_memory m = {0};

    if (access(path, F_OK) != 0) {
        if (errno != ENOENT)
            return err_errno(errno, "cannot read %s", path);
        *ret = m;
        return NULL;
    }
    json_t *root = json_load_file(path, JSON_REJECT_DUPLICATES, &at);
    if (!root)
        return err_new(ERR_CORRUPT, "%s is damaged: %s; `flocker-agent --adopt` makes it anew", path,
                       at.text);
    bool ok = json_unpack(root, "{s:s, s:s, s:I}", "store", &store, "generation", &generation, "revision",
                          &revision) == 0 &&
              revision >= 0 && uuid_parse(store, &m.store) && uuid_parse(generation, &m.generation);
    m.seen_revision = (uint64_t)revision;
    json_decref(root);
    if (!ok)
        return err_new(ERR_CORRUPT, "%s is damaged; `flocker-agent --adopt` makes it anew", path);
    *ret = m;
    return NULL;
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
    CLEANUP_FREE char *text =
        xasprintf("{\"store\": \"%s\", \"generation\": \"%s\", \"revision\": %llu}\n", UUID_STR(&m->store),
                  UUID_STR(&m->generation), (unsigned long long)m->seen_revision);

    TRY(write_file(temporary, text));
    if (rename(temporary, path) != 0)
        return err_errno(errno, "cannot rename %s", temporary);
    CLEANUP_CLOSE int dir = open(state_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || fsync(dir) != 0)
        return err_errno(errno, "cannot flush %s", state_dir);
    return NULL;
}
