/* Shared storage within one machine: volumes are sparse files behind loop devices. For development;
 * and hosts of a lab (mount namespaces of one kernel) that share `root_path` have what a storage
 * array would give them.
 *
 *   <root_path>/id                             uuid: same id, same volumes
 *   <root_path>/lock                           flock: shared to look, exclusive to change
 *   <root_path>/unattached/block-UUID_SIZE     a volume that no node has
 *   <root_path>/attached/INSTANCE/block-...    one that this instance has
 *   <root_path>/marks/INSTANCE/UUID/mark       ownership marks, written by storage.c
 *   <root_path>/nodes/UUID                     INSTANCE of that node
 *
 * The file's place is the truth about attachment; the loop device follows it and is made again when
 * it is missing, as after a reboot. Layout and names are those of the original, so its volumes are
 * found. */
#include "base/now.h"
#include "base/str.h"
#include "drivers/backends.h"
#include "drivers/durable.h"
#include "drivers/loopback/name.h"
#include "drivers/loopdev.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define DEFAULT_ROOT "/var/lib/flocker/loopback"
#define LOCK_STEP_US 2000u
#define LOCK_WAIT_US (10 * (uint64_t)USEC_PER_SEC)

struct loopback {
    char *root_path, *instance;
    uint64_t unit;
    struct uuid id;
    int root, unattached, attached, mine, marks, nodes; /* folders; mine = attached/INSTANCE */
};

static const struct driver_key keys[] = {
    {"root_path", DRIVER_KEY_STRING, false},
    {"compute_instance_id", DRIVER_KEY_STRING, false},
    {"allocation_unit", DRIVER_KEY_SIZE, false},
    {NULL},
};

/* ---- lock ---- */

/* The holder needs moments; one that was stopped must not stop everybody. */
static struct err *lock(const struct loopback *l, int how, int *ret_fd)
{
    CLEANUP_CLOSE int fd = openat(l->root, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0)
        return err_errno(errno, "cannot open %s/lock", l->root_path);
    for (uint64_t waited = 0; flock(fd, how | LOCK_NB) < 0; waited += LOCK_STEP_US) {
        if (errno != EWOULDBLOCK && errno != EINTR)
            return err_errno(errno, "cannot lock %s", l->root_path);
        if (waited >= LOCK_WAIT_US)
            return err_new(ERR_BUSY, "%s/lock is held by another process for too long",
                           l->root_path);
        (void)usleep(LOCK_STEP_US);
    }
    *ret_fd = steal_fd(&fd);
    return NULL;
}

/* ---- opening ---- */

static void loopback_close(void *cookie)
{
    struct loopback *l = cookie;

    mem_closep(&l->root);
    mem_closep(&l->unattached);
    mem_closep(&l->attached);
    mem_closep(&l->mine);
    mem_closep(&l->marks);
    mem_closep(&l->nodes);
    free(l->root_path);
    free(l->instance);
    free(l);
}

static struct err *read_id(struct loopback *l)
{
    CLEANUP_CLOSE int held = -1;
    CLEANUP_FREE char *text = NULL;
    struct random r = random_os();

    TRY(lock(l, LOCK_EX, &held));
    TRY(file_read(l->root, "id", 64, &text));
    if (text) {
        text[strcspn(text, "\n")] = '\0';
        if (!uuid_parse(text, &l->id))
            return err_new(ERR_CORRUPT, "%s/id is not a uuid", l->root_path);
        return NULL;
    }
    l->id = uuid_random_v4(&r);
    return file_replace(l->root, "id", UUID_STR(&l->id), UUID_TEXT_SIZE - 1);
}

/* A volume that is being made, under the lock; what a killed process leaves is taken over or removed by this name. */
static char *unfinished_name(const struct uuid *dataset)
{
    return xasprintf("." LOOPBACK_PREFIX "%s.new", UUID_STR(dataset));
}

static struct err *remove_unfinished(struct loopback *l)
{
    CLEANUP_CLOSE int held = -1;
    CLEANUP_DIR DIR *d = dir_stream(l->unattached);
    const char *name;

    if (!d)
        return err_errno(errno, "cannot list the volumes");
    TRY(lock(l, LOCK_EX, &held));
    while ((name = dir_next(d))) {
        if (str_has_prefix(name, "." LOOPBACK_PREFIX))
            TRY(file_remove(l->unattached, name));
    }
    return NULL;
}

static struct err *open_folders(struct loopback *l)
{
    CLEANUP_CLOSE int marks = -1;

    TRY(dir_make_path(l->root_path, 0700));
    TRY(dir_open(AT_FDCWD, l->root_path, /* create= */ false, 0700, &l->root));
    TRY(dir_open(l->root, "unattached", /* create= */ true, 0700, &l->unattached));
    TRY(dir_open(l->root, "attached", /* create= */ true, 0700, &l->attached));
    TRY(dir_open(l->attached, l->instance, /* create= */ true, 0700, &l->mine));
    TRY(dir_open(l->root, "marks", /* create= */ true, 0700, &marks));
    TRY(dir_open(marks, l->instance, /* create= */ true, 0700, &l->marks));
    TRY(dir_open(l->root, "nodes", /* create= */ true, 0700, &l->nodes));
    TRY(remove_unfinished(l));
    return read_id(l);
}

/* How the instance of a node is called: *ret_instance NULL when the node was never here. The caller frees it. */
static struct err *instance_of(struct loopback *l, const struct uuid *node, char **ret_instance)
{
    CLEANUP_FREE char *text = NULL;

    TRY(file_read(l->nodes, UUID_STR(node), NAME_MAX + 1, &text));
    if (text && (!*text || *text == '.' || strchr(text, '/')))
        return err_new(ERR_CORRUPT, "%s/nodes/%s does not name an instance", l->root_path, UUID_STR(node));
    *ret_instance = steal(&text);
    return NULL;
}

/* Others must find this machine when it is off. */
static struct err *note_node(struct loopback *l, const struct uuid *node)
{
    CLEANUP_FREE char *noted = NULL;

    TRY(instance_of(l, node, &noted));
    if (noted && streq(noted, l->instance))
        return NULL;
    return file_replace(l->nodes, UUID_STR(node), l->instance, strlen(l->instance));
}

static struct err *loopback_open(const struct driver_config *config, void **ret_cookie)
{
    const char *root = driver_option_string(config->options, "root_path", DEFAULT_ROOT);
    /* The original took a new random id at each start and then saw its own volumes attached to
     * somebody else. */
    const char *instance =
        driver_option_string(config->options, "compute_instance_id", UUID_STR(&config->node));

    if (*root != '/')
        return err_new(ERR_INVALID, "root_path must be an absolute path, not %s", root);
    if (*instance == '.' || strchr(instance, '/') || strlen(instance) > NAME_MAX)
        return err_new(ERR_INVALID,
                       "compute_instance_id must be usable as the name of a folder, "
                       "not %s",
                       instance);
    struct loopback *l = xcalloc(1, sizeof(*l));

    l->root = l->unattached = l->attached = l->mine = l->marks = l->nodes = -1;
    l->root_path = xstrdup(root);
    l->instance = xstrdup(instance);
    l->unit = driver_option_size(config->options, "allocation_unit", 1);
    struct err *e = open_folders(l);

    if (!e)
        e = note_node(l, &config->node);
    if (e) {
        loopback_close(l);
        return e;
    }
    *ret_cookie = l;
    return NULL;
}

/* ---- looking ---- */

/* Called for each volume file; `instance` NULL: not attached. */
typedef void seen_fn(void *cookie, const struct uuid *dataset, uint64_t size, const char *name,
                     const char *instance);

static struct err *scan_folder(int folder, const char *instance, seen_fn *seen, void *cookie)
{
    CLEANUP_DIR DIR *d = dir_stream(folder);
    const char *name;
    struct uuid id;
    uint64_t size;

    if (!d)
        return err_errno(errno, "cannot list the volumes");
    while ((name = dir_next(d))) {
        if (loopback_name_parse(name, &id, &size))
            seen(cookie, &id, size, name, instance);
    }
    return NULL;
}

/* The caller holds the lock. */
static struct err *scan(struct loopback *l, seen_fn *seen, void *cookie)
{
    CLEANUP_DIR DIR *d = dir_stream(l->attached);
    const char *instance;

    if (!d)
        return err_errno(errno, "cannot list the volumes");
    TRY(scan_folder(l->unattached, NULL, seen, cookie));
    while ((instance = dir_next(d))) {
        CLEANUP_CLOSE int folder =
            openat(l->attached, instance, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

        if (folder >= 0)
            TRY(scan_folder(folder, instance, seen, cookie));
    }
    return NULL;
}

struct volume {
    struct uuid id;
    bool found;
    char name[NAME_MAX + 1];
    char instance[NAME_MAX + 1]; /* "" when not attached */
    uint64_t size;
};

static void seen_one(void *cookie, const struct uuid *dataset, uint64_t size, const char *name,
                     const char *instance)
{
    struct volume *v = cookie;

    if (!uuid_eq(dataset, &v->id))
        return;
    v->found = true;
    v->size = size;
    (void)snprintf(v->name, sizeof(v->name), "%s", name);
    (void)snprintf(v->instance, sizeof(v->instance), "%s", instance ? instance : "");
}

/* The caller holds the lock. */
static struct err *find(struct loopback *l, const struct uuid *dataset, struct volume *ret)
{
    *ret = (struct volume){.id = *dataset};
    return scan(l, seen_one, ret);
}

static void fill(const struct loopback *l, struct volume_state *v, uint64_t size,
                 const char *instance)
{
    v->present = true;
    v->size = size;
    v->attached = instance && streq(instance, l->instance);
    v->attached_elsewhere = instance && !v->attached;
}

static struct err *loopback_inspect(void *cookie, const struct uuid *dataset,
                                    struct volume_state *v)
{
    struct loopback *l = cookie;
    CLEANUP_CLOSE int held = -1;
    struct volume f;

    TRY(lock(l, LOCK_SH, &held));
    TRY(find(l, dataset, &f));
    *v = (struct volume_state){.dataset = *dataset};
    if (f.found)
        fill(l, v, f.size, *f.instance ? f.instance : NULL);
    return NULL;
}

struct listing {
    struct loopback *l;
    struct volume_list volumes;
};

static void seen_any(void *cookie, const struct uuid *dataset, uint64_t size, const char *name,
                     const char *instance)
{
    struct listing *g = cookie;

    struct volume_state *v = volume_list_get(&g->volumes, dataset);

    fill(g->l, v, size, instance);
    free(v->hosts); /* a volume that is being attached may be seen twice */
    v->hosts = xstrdup_null(instance);
}

static struct err *loopback_list(void *cookie, struct volume_state **ret_states, size_t *ret_n)
{
    struct loopback *l = cookie;
    CLEANUP_CLOSE int held = -1;
    CLEANUP_DIR DIR *d = dir_stream(l->marks);
    struct listing g = {.l = l};
    const char *name;
    struct uuid id;

    if (!d)
        return err_errno(errno, "cannot list the marks in %s", l->root_path);
    TRY(lock(l, LOCK_SH, &held));
    struct err *e = scan(l, seen_any, &g);

    if (e) {
        volume_list_done(&g.volumes);
        return e;
    }
    while ((name = dir_next(d))) {
        if (uuid_parse(name, &id))
            (void)volume_list_get(&g.volumes, &id);
    }
    *ret_states = g.volumes.states;
    *ret_n = g.volumes.n;
    return NULL;
}

static struct err *loopback_mark_dir(void *cookie, const struct uuid *dataset, bool create,
                                     int *ret_fd)
{
    struct loopback *l = cookie;

    return dir_open(l->marks, UUID_STR(dataset), create, 0700, ret_fd);
}

static struct err *loopback_forget(void *cookie, const struct uuid *dataset)
{
    struct loopback *l = cookie;
    CLEANUP_CLOSE int held = -1;
    CLEANUP_FREE char *unfinished = unfinished_name(dataset);

    TRY(lock(l, LOCK_EX, &held));
    TRY(file_remove(l->unattached, unfinished));
    return dir_remove_empty(l->marks, UUID_STR(dataset));
}

/* ---- volumes ---- */

static struct err *make_file(struct loopback *l, const struct uuid *dataset, uint64_t size)
{
    CLEANUP_FREE char *name = loopback_name(dataset, size);
    CLEANUP_FREE char *tmp = unfinished_name(dataset);
    CLEANUP_CLOSE int fd =
        openat(l->unattached, tmp, O_RDWR | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0600);

    if (fd < 0 || ftruncate(fd, (off_t)size) < 0 || fsync(fd) < 0 ||
        renameat(l->unattached, tmp, l->unattached, name) < 0)
        return err_errno(errno, "cannot make the volume %s in %s", name, l->root_path);
    return dir_sync(l->unattached);
}

static struct err *loopback_create(void *cookie, const struct uuid *dataset, uint64_t size)
{
    struct loopback *l = cookie;
    CLEANUP_CLOSE int held = -1;
    struct volume f;

    if (!size)
        size = (DRIVER_DEFAULT_SIZE + l->unit - 1) / l->unit * l->unit;
    TRY(lock(l, LOCK_EX, &held));
    TRY(find(l, dataset, &f));
    return f.found ? NULL : make_file(l, dataset, size);
}

static struct err *attached_to(const struct volume *f)
{
    return err_new(ERR_BUSY, "the volume is attached to %s", f->instance);
}

static struct err *loopback_destroy(void *cookie, const struct uuid *dataset)
{
    struct loopback *l = cookie;
    CLEANUP_CLOSE int held = -1;
    struct volume f;

    TRY(lock(l, LOCK_EX, &held));
    TRY(find(l, dataset, &f));
    if (!f.found)
        return NULL;
    if (*f.instance)
        return attached_to(&f);
    if (unlinkat(l->unattached, f.name, 0) < 0)
        return err_errno(errno, "cannot delete the volume %s", f.name);
    return dir_sync(l->unattached);
}

/* ---- attaching ---- */

static struct err *move(int from, int to, const char *name)
{
    if (renameat(from, name, to, name) < 0)
        return err_errno(errno, "cannot move the volume %s", name);
    TRY(dir_sync(to));
    return dir_sync(from);
}

static struct err *loopback_attach(void *cookie, const struct uuid *dataset)
{
    struct loopback *l = cookie;
    CLEANUP_CLOSE int held = -1;
    struct volume f;

    TRY(lock(l, LOCK_EX, &held));
    TRY(find(l, dataset, &f));
    if (!f.found)
        return err_new(ERR_NOT_FOUND, "there is no volume of it in %s", l->root_path);
    if (streq(f.instance, l->instance))
        return NULL;
    return *f.instance ? attached_to(&f) : move(l->unattached, l->mine, f.name);
}

/* Opens the file of a volume attached here; -1 when it is not. */
static struct err *open_mine(struct loopback *l, const struct uuid *dataset, struct volume *f,
                             int *ret_fd, struct stat *st)
{
    CLEANUP_CLOSE int held = -1, fd = -1;

    *ret_fd = -1;
    TRY(lock(l, LOCK_SH, &held));
    TRY(find(l, dataset, f));
    if (!f->found || !streq(f->instance, l->instance))
        return NULL;
    fd = openat(l->mine, f->name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, st) < 0)
        return err_errno(errno, "cannot open the volume %s", f->name);
    *ret_fd = steal_fd(&fd);
    return NULL;
}

static struct err *loopback_detach(void *cookie, const struct uuid *dataset)
{
    struct loopback *l = cookie;
    CLEANUP_CLOSE int file = -1, held = -1;
    CLEANUP_FREE char *device = NULL;
    struct volume f;
    struct stat st;

    TRY(open_mine(l, dataset, &f, &file, &st));
    if (file < 0)
        return NULL;
    TRY(loopdev_find(st.st_dev, st.st_ino, &device));
    if (device)
        TRY(loopdev_unbind(device, st.st_dev, st.st_ino));
    if (fsync(file) < 0)
        return err_errno(errno, "cannot flush the volume %s", f.name);
    TRY(lock(l, LOCK_EX, &held));
    return move(l->mine, l->unattached, f.name);
}

/* Its device, in this kernel: whoever has it mounted is not off. */
static struct err *check_unused(const char *device, const struct volume *f)
{
    CLEANUP_CLOSE int fd = open(device, O_RDONLY | O_EXCL | O_CLOEXEC);

    if (fd < 0 && errno == EBUSY)
        return err_new(ERR_BUSY, "%s still uses the volume (%s), though it is said to be off: end that host, or stop what runs there",
                       f->instance, device);
    return fd < 0 ? err_errno(errno, "cannot open %s", device) : NULL;
}

static struct err *take_from(struct loopback *l, const struct volume *f)
{
    CLEANUP_CLOSE int folder = openat(l->attached, f->instance, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC), file = -1;
    CLEANUP_FREE char *device = NULL;
    struct stat st;

    if (folder >= 0)
        file = openat(folder, f->name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);
    if (file < 0 || fstat(file, &st) < 0)
        return err_errno(errno, "cannot open the volume %s", f->name);
    TRY(loopdev_find(st.st_dev, st.st_ino, &device));
    if (device) {
        TRY(check_unused(device, f));
        TRY(loopdev_unbind(device, st.st_dev, st.st_ino));
    }
    if (fsync(file) < 0)
        return err_errno(errno, "cannot flush the volume %s", f->name);
    return move(folder, l->unattached, f->name);
}

static struct err *loopback_detach_from(void *cookie, const struct uuid *dataset, const struct uuid *node)
{
    struct loopback *l = cookie;
    CLEANUP_FREE char *instance = NULL;
    CLEANUP_CLOSE int held = -1;
    struct volume f;

    TRY(instance_of(l, node, &instance));
    if (!instance || streq(instance, l->instance))
        return NULL;
    TRY(lock(l, LOCK_EX, &held));
    TRY(find(l, dataset, &f));
    return f.found && streq(f.instance, instance) ? take_from(l, &f) : NULL;
}

/* The file is larger before its name says so: a crash in between leaves what the name says. */
static struct err *grow_file(struct loopback *l, const struct volume *f, int folder, uint64_t size)
{
    CLEANUP_FREE char *name = loopback_name(&f->id, size);
    CLEANUP_CLOSE int file = openat(folder, f->name, O_RDWR | O_NOFOLLOW | O_CLOEXEC);

    if (file < 0 || ftruncate(file, (off_t)size) < 0 || fsync(file) < 0 ||
        renameat(folder, f->name, folder, name) < 0)
        return err_errno(errno, "cannot make the volume %s in %s larger", f->name, l->root_path);
    return dir_sync(folder);
}

static struct err *loopback_grow(void *cookie, const struct uuid *dataset, uint64_t size)
{
    struct loopback *l = cookie;
    CLEANUP_CLOSE int held = -1, file = -1;
    CLEANUP_FREE char *device = NULL;
    struct volume f;
    struct stat st;

    TRY(lock(l, LOCK_EX, &held));
    TRY(find(l, dataset, &f));
    if (!f.found)
        return err_new(ERR_NOT_FOUND, "there is no volume of it in %s", l->root_path);
    if (*f.instance && !streq(f.instance, l->instance))
        return attached_to(&f);
    if (f.size < size)
        TRY(grow_file(l, &f, *f.instance ? l->mine : l->unattached, size));
    mem_closep(&held);
    held = -1;
    TRY(open_mine(l, dataset, &f, &file, &st));
    if (file < 0)
        return NULL;
    TRY(loopdev_find(st.st_dev, st.st_ino, &device));
    return device ? loopdev_resize(device, st.st_dev, st.st_ino) : NULL;
}

static struct err *loopback_device(void *cookie, const struct uuid *dataset, char **ret_path)
{
    struct loopback *l = cookie;
    CLEANUP_CLOSE int file = -1, loop = -1, held = -1;
    struct volume f;
    struct stat st;

    TRY(open_mine(l, dataset, &f, &file, &st));
    if (file < 0)
        return err_new(ERR_NOT_FOUND, "the volume is not attached to this node");
    /* Two must not bind two devices to one file. (No lock on the file itself: the device would keep
     * it.) */
    TRY(lock(l, LOCK_EX, &held));
    TRY(loopdev_find(st.st_dev, st.st_ino, ret_path));
    if (*ret_path)
        return NULL;
    return loopdev_bind(file, f.name, /* autoclear= */ false, ret_path, &loop);
}

static struct uuid loopback_shared_id(void *cookie)
{
    return ((struct loopback *)cookie)->id;
}

static const char *loopback_instance_id(void *cookie)
{
    return ((struct loopback *)cookie)->instance;
}

static uint64_t loopback_allocation_unit(void *cookie)
{
    return ((struct loopback *)cookie)->unit;
}

const struct driver driver_loopback = {
    .abi = DRIVER_ABI,
    .size = sizeof(struct driver),
    .name = "loopback",
    .kind = STORAGE_ATTACHABLE,
    .keys = keys,
    .open = loopback_open,
    .close = loopback_close,
    .list = loopback_list,
    .inspect = loopback_inspect,
    .mark_dir = loopback_mark_dir,
    .forget = loopback_forget,
    .create = loopback_create,
    .destroy = loopback_destroy,
    .shared_id = loopback_shared_id,
    .instance_id = loopback_instance_id,
    .tells_hosts = true,
    .allocation_unit = loopback_allocation_unit,
    .attach = loopback_attach,
    .detach = loopback_detach,
    .detach_from = loopback_detach_from,
    .grow = loopback_grow,
    .device = loopback_device,
};
