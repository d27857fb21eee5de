/* The example driver, the one to copy from: volumes are plain folders, snapshots are tar archives
 * of them, a stream is an archive as it is. For development and tests; it has no size limits, and a
 * snapshot of a volume in use is only as consistent as tar sees it.
 *
 *   <root_path>/<dataset>/vol/              the volume
 *   <root_path>/<dataset>/snap/NAME.tar     complete snapshots
 *   <root_path>/<dataset>/work/             what is being made: leftovers after a crash
 *   <root_path>/<dataset>/work/point        of what stream the beginning is in work/tar
 *   <root_path>/<dataset>/mark              the ownership mark, written by storage.c
 *
 * How each verb survives a crash: everything is made in work/ and appears under its own name by one
 * rename. Programs of a killed process run on for a while: rm and tar hold the lock of the folder they work in (as
 * their standard input), so that nobody else begins there before they have ended. */
#include "base/str.h"
#include "drivers/backends.h"
#include "drivers/durable.h"
#include "exec/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#define DEFAULT_ROOT "/var/lib/flocker/fake"
#define HASH_BUFFER (64u * 1024)

struct fake {
    char *root_path;
    int root; /* the folder, open */
};

static const struct driver_key keys[] = {
    {"root_path", DRIVER_KEY_STRING, false},
    {NULL},
};

static void fake_close(void *cookie)
{
    struct fake *f = cookie;

    mem_closep(&f->root);
    free(f->root_path);
    free(f);
}

static struct err *fake_open(const struct driver_config *config, void **ret_cookie)
{
    const char *path = driver_option_string(config->options, "root_path", DEFAULT_ROOT);
    struct fake *f;
    int root = -1;

    if (*path != '/')
        return err_new(ERR_INVALID, "root_path must be an absolute path, not %s", path);
    TRY(dir_make_path(path, 0700));
    TRY(dir_open(AT_FDCWD, path, /* create= */ false, 0700, &root));
    f = xcalloc(1, sizeof(*f));
    f->root_path = xstrdup(path);
    f->root = root;
    *ret_cookie = f;
    return NULL;
}

/* ---- folders ---- */

/* Unlocked also where a program that was being started by another thread has a copy of the descriptor. */
static void unlock_closep(int *fd)
{
    if (*fd >= 0)
        (void)flock(*fd, LOCK_UN);
    mem_closep(fd);
}
#define CLEANUP_UNLOCK CLEANUP(unlock_closep)

static struct err *open_dataset(struct fake *f, const struct uuid *dataset, bool create,
                                int *ret_fd)
{
    return dir_open(f->root, UUID_STR(dataset), create, 0700, ret_fd);
}

/* Opens <dataset>/<sub>, both made when missing. */
static struct err *make_sub(struct fake *f, const struct uuid *dataset, const char *sub,
                            int *ret_fd)
{
    CLEANUP_CLOSE int dir = -1;

    TRY(open_dataset(f, dataset, /* create= */ true, &dir));
    return dir_open(dir, sub, /* create= */ true, 0700, ret_fd);
}

static char *path_of(const struct fake *f, const struct uuid *dataset, const char *rest)
{
    return xasprintf("%s/%s/%s", f->root_path, UUID_STR(dataset), rest);
}

/* Opens the dataset's folder locked: vol/ is made and removed under it. -1: there is none. */
static struct err *lock_dataset(struct fake *f, const struct uuid *dataset, bool create,
                                int *ret_fd)
{
    CLEANUP_CLOSE int dir = -1;

    TRY(open_dataset(f, dataset, create, &dir));
    if (dir >= 0 && flock(dir, LOCK_EX | LOCK_NB) < 0)
        return err_new(ERR_BUSY, "a program of an earlier run still removes files of it");
    *ret_fd = steal_fd(&dir);
    return NULL;
}

/* `lock`: held until rm has ended, even when this process is killed. */
static struct err *remove_tree(const char *path, int lock)
{
    const char *const argv[] = {"rm", "-rf", "--one-file-system", "--", path, NULL};

    return exec_run(&(struct exec_request){.argv = argv, .stdin_fd = lock}, NULL);
}

/* ---- looking ---- */

static void add_snapshots(int dataset, struct volume_state *v)
{
    CLEANUP_CLOSE int snap = openat(dataset, "snap", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_DIR DIR *d = snap < 0 ? NULL : dir_stream(snap);
    CLEANUP_FREE struct snapshot_found *found = NULL;
    size_t n = 0, cap = 0;
    const char *name;
    struct stat st;

    while (d && (name = dir_next(d))) {
        size_t stem = strlen(name) - strlen(strrchr(name, '.') ? strrchr(name, '.') : "");

        if (stem >= SNAPSHOT_NAME_SIZE || !streq(name + stem, ".tar") ||
            fstatat(snap, name, &st, 0) < 0)
            continue;
        found = mem_grow(found, n, &cap, sizeof(*found));
        found[n] = (struct snapshot_found){.order = (uint64_t)st.st_mtim.tv_sec * 1000000000u +
                                                    (uint64_t)st.st_mtim.tv_nsec};
        memcpy(found[n++].name, name, stem);
    }
    volume_state_set_snapshots(v, found, n);
}

/* The lock on work/ tells what is being made from what a crash left. */
static bool has_leftovers(int dataset)
{
    CLEANUP_UNLOCK int work = openat(dataset, "work", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    return work >= 0 && flock(work, LOCK_EX | LOCK_NB) == 0;
}

static void look(int dataset, struct volume_state *v)
{
    struct stat st;

    v->present = fstatat(dataset, "vol", &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode);
    v->attached = v->present;
    v->partial = has_leftovers(dataset);
    add_snapshots(dataset, v);
}

static struct err *fake_inspect(void *cookie, const struct uuid *dataset, struct volume_state *v)
{
    CLEANUP_CLOSE int dir = -1;

    TRY(open_dataset(cookie, dataset, /* create= */ false, &dir));
    *v = (struct volume_state){.dataset = *dataset};
    if (dir >= 0)
        look(dir, v);
    return NULL;
}

static struct err *fake_list(void *cookie, struct volume_state **ret_states, size_t *ret_n)
{
    struct fake *f = cookie;
    CLEANUP_DIR DIR *d = dir_stream(f->root);
    struct volume_list l = {0};
    const char *name;
    struct uuid id;

    if (!d)
        return err_errno(errno, "cannot read %s", f->root_path);
    while ((name = dir_next(d))) {
        CLEANUP_CLOSE int dir =
            uuid_parse(name, &id) ? openat(f->root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;

        if (dir >= 0)
            look(dir, volume_list_get(&l, &id));
    }
    *ret_states = l.states;
    *ret_n = l.n;
    return NULL;
}

static struct err *fake_mark_dir(void *cookie, const struct uuid *dataset, bool create, int *ret_fd)
{
    return open_dataset(cookie, dataset, create, ret_fd);
}

static struct err *fake_forget(void *cookie, const struct uuid *dataset)
{
    struct fake *f = cookie;
    CLEANUP_CLOSE int dir = -1;

    TRY(open_dataset(f, dataset, /* create= */ false, &dir));
    if (dir >= 0)
        TRY(dir_remove_empty(dir, "snap"));
    return dir_remove_empty(f->root, UUID_STR(dataset));
}

/* ---- volumes ---- */

static struct err *fake_create(void *cookie, const struct uuid *dataset, uint64_t size)
{
    CLEANUP_CLOSE int vol = -1;
    CLEANUP_UNLOCK int dir = -1;

    TRY(lock_dataset(cookie, dataset, /* create= */ true, &dir));
    return dir_open(dir, "vol", /* create= */ true, 0777, &vol);
}

static struct err *fake_destroy(void *cookie, const struct uuid *dataset)
{
    static const char *const subs[] = {"vol", "snap", "work"};
    struct fake *f = cookie;
    CLEANUP_UNLOCK int dir = -1;

    TRY(lock_dataset(f, dataset, /* create= */ false, &dir));
    for (size_t i = 0; dir >= 0 && i < ARRAY_SIZE(subs); i++) {
        CLEANUP_FREE char *path = path_of(f, dataset, subs[i]);

        TRY(remove_tree(path, dir));
    }
    return dir >= 0 ? dir_sync(dir) : NULL;
}

static struct err *fake_root(void *cookie, const struct uuid *dataset, int *ret_fd)
{
    CLEANUP_FREE char *path = path_of(cookie, dataset, "vol");
    int fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return err_errno(errno, "cannot open the volume %s", path);
    *ret_fd = fd;
    return NULL;
}

/* ---- snapshots ---- */

/* Opens work/ locked (CLEANUP_UNLOCK); what is in it can be continued no more. */
static struct err *begin(struct fake *f, const struct uuid *dataset, int *ret_work)
{
    CLEANUP_UNLOCK int work = -1;

    TRY(make_sub(f, dataset, "work", &work));
    if (flock(work, LOCK_EX | LOCK_NB) < 0)
        return err_new(ERR_BUSY, "another snapshot of it is being made");
    TRY(file_remove(work, "point"));
    *ret_work = steal_fd(&work);
    return NULL;
}

/* Makes work/tar the snapshot `name`, on stable storage. */
static struct err *publish(struct fake *f, const struct uuid *dataset, const char *name, int work)
{
    CLEANUP_FREE char *file = xasprintf("%s.tar", name);
    CLEANUP_FREE char *path = path_of(f, dataset, "work");
    CLEANUP_CLOSE int snap = -1;
    CLEANUP_CLOSE int tar = openat(work, "tar", O_RDONLY | O_CLOEXEC);

    TRY(make_sub(f, dataset, "snap", &snap));
    if (tar < 0 || fsync(tar) < 0 || renameat(work, "tar", snap, file) < 0)
        return err_errno(errno, "cannot put the snapshot %s in its place", name);
    TRY(dir_sync(snap));
    return remove_tree(path, work);
}

static bool has_snapshot(struct fake *f, const struct uuid *dataset, const char *name)
{
    CLEANUP_FREE char *rest = xasprintf("snap/%s.tar", name);
    CLEANUP_FREE char *path = path_of(f, dataset, rest);

    return access(path, F_OK) == 0;
}

static struct err *fake_snapshot(void *cookie, const struct uuid *dataset, const char *name)
{
    struct fake *f = cookie;
    CLEANUP_UNLOCK int work = -1;
    CLEANUP_FREE char *tar = path_of(f, dataset, "work/tar"), *vol = path_of(f, dataset, "vol");
    /* sort: the same content gives the same archive. A unique comment gives each snapshot its own
     * identity. */
    const char *const argv[] = {"tar",
                                "--create",
                                "--file",
                                tar,
                                "--directory",
                                vol,
                                "--sparse",
                                "--numeric-owner",
                                "--xattrs",
                                "--acls",
                                "--sort=name",
                                "--format=posix",
                                "--warning=no-file-changed",
                                ".",
                                NULL};
    CLEANUP_EXEC struct exec_result r = {0};

    if (has_snapshot(f, dataset, name))
        return NULL;
    if (access(vol, F_OK) < 0)
        return err_errno(errno, "cannot take a snapshot: no volume %s", vol);
    TRY(begin(f, dataset, &work));
    TRY(exec_run(&(struct exec_request){.argv = argv, .stdin_fd = work, .any_exit = true}, &r));
    if (r.status > 1) /* 1: a file changed while it was read */
        return err_new(ERR_IO, "tar: %s", r.err_text);
    return publish(f, dataset, name, work);
}

static struct err *fake_snapshot_delete(void *cookie, const struct uuid *dataset, const char *name)
{
    CLEANUP_FREE char *file = xasprintf("%s.tar", name);
    CLEANUP_CLOSE int snap = -1;

    TRY(make_sub(cookie, dataset, "snap", &snap));
    return file_remove(snap, file);
}

static struct err *fake_tidy(void *cookie, const struct uuid *dataset)
{
    CLEANUP_FREE char *path = path_of(cookie, dataset, "work");
    CLEANUP_UNLOCK int work = -1;

    TRY(dir_open(AT_FDCWD, path, /* create= */ false, 0700, &work));
    if (work < 0 || flock(work, LOCK_EX | LOCK_NB) < 0)
        return NULL;
    return remove_tree(path, work);
}

static struct err *fake_promote(void *cookie, const struct uuid *dataset, const char *snapshot,
                                uint64_t size)
{
    struct fake *f = cookie;
    CLEANUP_UNLOCK int work = -1, dir = -1;
    CLEANUP_CLOSE int fresh = -1;
    CLEANUP_FREE char *rest = xasprintf("snap/%s.tar", snapshot);
    CLEANUP_FREE char *tar = path_of(f, dataset, rest), *to = path_of(f, dataset, "work/vol");
    CLEANUP_FREE char *vol = path_of(f, dataset, "vol"), *path = path_of(f, dataset, "work");
    const char *const argv[] = {"tar",
                                "--extract",
                                "--file",
                                tar,
                                "--directory",
                                to,
                                "--numeric-owner",
                                "--same-owner",
                                "--same-permissions",
                                "--xattrs",
                                "--xattrs-include=*",
                                "--acls",
                                NULL};

    TRY(lock_dataset(f, dataset, /* create= */ true, &dir));
    TRY(begin(f, dataset, &work));
    TRY(remove_tree(to, work));
    TRY(dir_open(work, "vol", /* create= */ true, 0777, &fresh));
    TRY(exec_run(&(struct exec_request){.argv = argv, .stdin_fd = work}, NULL));
    if (syncfs(fresh) < 0)
        return err_errno(errno, "cannot sync the volume");
    TRY(remove_tree(vol, dir));
    if (rename(to, vol) < 0)
        return err_errno(errno, "cannot put the volume in its place");
    TRY(remove_tree(path, work));
    return dir_sync(f->root);
}

static struct err *fake_demote(void *cookie, const struct uuid *dataset, const char *snapshot)
{
    struct fake *f = cookie;
    CLEANUP_UNLOCK int dir = -1;
    CLEANUP_FREE char *vol = path_of(f, dataset, "vol");

    if (!has_snapshot(f, dataset, snapshot))
        return err_new(ERR_NOT_FOUND, "there is no snapshot %s here", snapshot);
    TRY(lock_dataset(f, dataset, /* create= */ false, &dir));
    return remove_tree(vol, dir);
}

static struct err *fake_space(void *cookie, uint64_t *ret_total, uint64_t *ret_free)
{
    const struct fake *f = cookie;

    return folder_space(f->root, ret_total, ret_free);
}

/* ---- streams ---- */

/* The hash of the archive: the same on any node. */
static struct err *hash_of(int fd, char **ret_identity)
{
    const char *const argv[] = {"sha256sum", NULL};
    CLEANUP_EXEC struct exec_result r = {0};

    if (lseek(fd, 0, SEEK_SET) < 0)
        return err_errno(errno, "cannot read a snapshot");
    TRY(exec_run(&(struct exec_request){.argv = argv, .stdin_fd = fd}, &r));
    *ret_identity = xstrndup(r.out, strcspn(r.out, " "));
    return NULL;
}

static struct err *open_snapshot(struct fake *f, const struct uuid *dataset, const char *name,
                                 int *ret_fd)
{
    CLEANUP_FREE char *rest = xasprintf("snap/%s.tar", name);
    CLEANUP_FREE char *path = path_of(f, dataset, rest);
    int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return err_errno(errno, "cannot open the snapshot %s", path);
    *ret_fd = fd;
    return NULL;
}

static struct err *fake_identity(void *cookie, const struct uuid *dataset, const char *name,
                                 char **ret_identity)
{
    CLEANUP_CLOSE int fd = -1;

    TRY(open_snapshot(cookie, dataset, name, &fd));
    return hash_of(fd, ret_identity);
}

/* There are no increments: the whole archive is sent, whatever the base. */
static struct err *fake_send(void *cookie, const struct uuid *dataset,
                             const struct stream_spec *stream, int fd, const atomic_bool *cancel)
{
    CLEANUP_CLOSE int tar = -1, base_tar = -1;
    const char *const argv[] = {"cat", NULL};

    if (stream->base)
        TRY(open_snapshot(cookie, dataset, stream->base, &base_tar));
    TRY(open_snapshot(cookie, dataset, stream->snapshot, &tar));
    return exec_run(
        &(struct exec_request){.argv = argv, .stdin_fd = tar, .stdout_fd = fd, .cancel = cancel},
        NULL);
}

/* Opens work/tar, with what is there of it when the stream goes on, and notes whose it is. */
static struct err *open_tar(int work, const struct stream_spec *stream, int *ret_tar)
{
    CLEANUP_FREE char *point = xasprintf("%s\n%s\n%s\n", stream->snapshot, stream->identity,
                                         stream->base ? stream->base : "");
    int trunc = stream->from ? 0 : O_TRUNC;
    CLEANUP_CLOSE int tar =
        openat(work, "tar", O_RDWR | O_CREAT | trunc | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (tar < 0)
        return err_errno(errno, "cannot make a file for the snapshot");
    if (stream->from && lseek(tar, 0, SEEK_END) != (off_t)stream->from->offset)
        return err_new(ERR_CONFLICT, "what there was of the snapshot is not there any more");
    TRY(file_replace(work, "point", point, strlen(point)));
    *ret_tar = steal_fd(&tar);
    return NULL;
}

static struct err *fake_receive(void *cookie, const struct uuid *dataset,
                                const struct stream_spec *stream, int fd)
{
    struct fake *f = cookie;
    CLEANUP_UNLOCK int work = -1;
    CLEANUP_CLOSE int tar = -1;
    CLEANUP_FREE char *got = NULL;
    const char *const argv[] = {"cat", NULL};

    if (has_snapshot(f, dataset, stream->snapshot))
        return err_new(ERR_EXISTS, "it is here already");
    if (stream->base && !has_snapshot(f, dataset, stream->base))
        return err_new(ERR_NOT_FOUND, "its base %s is not here", stream->base);
    TRY(begin(f, dataset, &work));
    TRY(open_tar(work, stream, &tar));
    /* What came before a break stays, to go on from. */
    TRY(exec_run(&(struct exec_request){.argv = argv, .stdin_fd = fd, .stdout_fd = tar}, NULL));
    struct err *e = hash_of(tar, &got);

    if (!e && !streq(got, stream->identity))
        e = err_new(ERR_CORRUPT, "what arrived is not what was sent (%s, not %s): send it again",
                    got, stream->identity);
    if (!e)
        return publish(f, dataset, stream->snapshot, work);
    unlock_closep(&work);
    work = -1;
    err_free(fake_tidy(f, dataset));
    return e;
}

/* Takes the next line off `text`. */
static char *take_line(char **text)
{
    const char *line = strsep(text, "\n");

    return xstrdup(line ? line : "");
}

static struct err *hash_tar(int tar, struct stream_point *p)
{
    CLEANUP_FREE char *buf = xmalloc(HASH_BUFFER);
    XXH3_state_t *state = XXH3_createState();
    ssize_t n;

    if (!state || XXH3_128bits_reset(state) != XXH_OK)
        mem_exhausted();
    for (p->offset = 0; (n = read(tar, buf, HASH_BUFFER)) > 0; p->offset += (uint64_t)n)
        (void)XXH3_128bits_update(state, buf, (size_t)n);
    XXH128_hash_t h = XXH3_128bits_digest(state);
    (void)XXH3_freeState(state);
    p->hash_low = h.low64;
    p->hash_high = h.high64;
    return n < 0 ? err_errno(errno, "cannot read what there is of a snapshot") : NULL;
}

/* The hash says what is there: nothing need be durable for that. */
static struct err *fake_stream_point(void *cookie, const struct uuid *dataset,
                                     struct stream_point *ret_point)
{
    CLEANUP_FREE char *path = path_of(cookie, dataset, "work"), *text = NULL;
    CLEANUP_CLOSE int work = -1;
    struct stream_point p = {0};

    TRY(dir_open(AT_FDCWD, path, /* create= */ false, 0700, &work));
    if (work < 0)
        return NULL;
    TRY(file_read(work, "point", 4096, &text));
    CLEANUP_CLOSE int tar = openat(work, "tar", O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
    if (!text || tar < 0)
        return NULL;
    TRY(hash_tar(tar, &p));
    if (!p.offset)
        return NULL;
    char *rest = text;
    p.snapshot = take_line(&rest);
    p.identity = take_line(&rest);
    p.base = take_line(&rest);
    *ret_point = p;
    return NULL;
}

static struct err *fake_stream_size(void *cookie, const struct uuid *dataset,
                                    const struct stream_spec *stream, uint64_t *ret_bytes)
{
    CLEANUP_CLOSE int tar = -1;
    struct stat st;

    TRY(open_snapshot(cookie, dataset, stream->snapshot, &tar));
    if (fstat(tar, &st) < 0)
        return err_errno(errno, "cannot look at a snapshot");
    *ret_bytes = (uint64_t)st.st_size;
    return NULL;
}

const struct driver driver_fake = {
    .abi = DRIVER_ABI,
    .size = sizeof(struct driver),
    .name = "fake",
    .kind = STORAGE_LOCAL,
    .keys = keys,
    .open = fake_open,
    .close = fake_close,
    .list = fake_list,
    .inspect = fake_inspect,
    .mark_dir = fake_mark_dir,
    .forget = fake_forget,
    .create = fake_create,
    .destroy = fake_destroy,
    .root = fake_root,
    .snapshot = fake_snapshot,
    .snapshot_delete = fake_snapshot_delete,
    .tidy = fake_tidy,
    .promote = fake_promote,
    .demote = fake_demote,
    .space = fake_space,
    .send = fake_send,
    .receive = fake_receive,
    .stream_point = fake_stream_point,
    .identity = fake_identity,
    .stream_size = fake_stream_size,
};
