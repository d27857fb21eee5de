#include "drivers/xtremio/disk.h"

#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "drivers/blockdev.h"
#include "drivers/durable.h"
#include "drivers/sysfs.h"
#include "drivers/wait.h"
#include "exec/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#define PATHS_MAX 64u
#define PROGRAM_US (60 * (uint64_t)USEC_PER_SEC)
#define GONE_S 30
#define PAUSE_FIRST_US 4000u

static int open_folder(const char *root, const char *path)
{
    CLEANUP_FREE char *whole = xasprintf("%s/sys/%s", root, path);

    return open(whole, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
}

/* ---- looking ---- */

void xtremio_disk_done(struct xtremio_disk *d)
{
    for (size_t i = 0; i < d->n_paths; i++)
        free(d->paths[i]);
    for (size_t i = 0; i < d->n_gone; i++)
        free(d->gone[i]);
    free(d->paths);
    free(d->gone);
    free(d->map);
    free(d->map_name);
    *d = (struct xtremio_disk){0};
}

struct search {
    const char *root, *naa;
    uint64_t size;
    struct xtremio_disk *found;
};

static struct err *check_size(const struct search *s, const char *name, bool *ret_there)
{
    uint64_t bytes = sysfs_block_size(s->root, name);

    *ret_there = bytes;
    if (!bytes || bytes == s->size)
        return NULL;
    return err_new(ERR_CORRUPT,
                   "the device %s should be the volume with NAA %s, but has %" PRIu64
                   " bytes instead of %" PRIu64 ": not used",
                   name, s->naa, bytes, s->size);
}

static bool is_path(const struct search *s, const char *name)
{
    char text[SYSFS_TEXT_SIZE];

    (void)sysfs_block_text(s->root, name, "device/wwid", text);
    return str_has_prefix(text, "naa.") && streq(text + strlen("naa."), s->naa);
}

/* All XtremIO says of itself is in the device's own vendor field. */
static bool is_of_array(const struct search *s, const char *name)
{
    char text[SYSFS_TEXT_SIZE];

    (void)sysfs_block_text(s->root, name, "device/vendor", text);
    return streq(text, "XtremIO");
}

static struct err *delete_path(const char *root, const char *name)
{
    CLEANUP_FREE char *path = xasprintf("block/%s/device/delete", name);

    return sysfs_write(root, path, "1");
}

/* Its users, if it has any, have a file system in memory that belongs to the volume which it was. */
static struct err *check_same(const struct search *s, const char *name, const char *before)
{
    char now[SYSFS_TEXT_SIZE];
    CLEANUP_FREE char *device = xasprintf("%s/dev/%s", s->root, name);

    (void)sysfs_block_text(s->root, name, "device/wwid", now);
    if (!*before || !*now || streq(now, before))
        return NULL;
    struct err *e = blockdev_prove_free(device);
    bool used = err_is(e, ERR_BUSY);

    err_free(e);
    if (!used)
        return NULL;
    log_warning("the disk %s is in use as %s, but the array shows %s there now: it is taken away "
                "from its users, whose writes would destroy the latter",
                name, before, now);
    return delete_path(s->root, name);
}

/* What cannot be asked anew shows in its use. */
static struct err *ask_anew(const struct search *s, const char *name)
{
    CLEANUP_FREE char *rescan = xasprintf("block/%s/device/rescan", name);
    char before[SYSFS_TEXT_SIZE];

    (void)sysfs_block_text(s->root, name, "device/wwid", before);
    err_free(sysfs_write(s->root, rescan, "1"));
    return check_same(s, name, before);
}

static void add_name(char ***all, size_t *n, const char *name)
{
    *all = xrealloc(*all, *n + 1, sizeof(char *));
    (*all)[(*n)++] = xstrdup(name);
}

static struct err *look_at_path(struct search *s, const char *name)
{
    bool there;

    if (!is_path(s, name) && !is_of_array(s, name))
        return NULL;
    TRY(ask_anew(s, name));
    if (!is_path(s, name))
        return NULL;
    if (s->found->n_paths + s->found->n_gone == PATHS_MAX)
        return err_new(ERR_CORRUPT, "the volume with NAA %s has more than %u paths", s->naa,
                       PATHS_MAX);
    TRY(check_size(s, name, &there));
    if (there)
        add_name(&s->found->paths, &s->found->n_paths, name);
    else
        add_name(&s->found->gone, &s->found->n_gone, name);
    return NULL;
}

/* multipath's WWID is the type of the identifier (3: NAA) and the identifier. */
static bool is_map(const struct search *s, const char *name)
{
    char text[SYSFS_TEXT_SIZE];

    (void)sysfs_block_text(s->root, name, "dm/uuid", text);
    return str_has_prefix(text, "mpath-3") && streq(text + strlen("mpath-3"), s->naa);
}

static struct err *check_slaves(const struct search *s, const char *name)
{
    CLEANUP_FREE char *path = xasprintf("block/%s/slaves", name);
    CLEANUP_CLOSE int fd = open_folder(s->root, path);
    CLEANUP_DIR DIR *d = fd < 0 ? NULL : dir_stream(fd);
    const char *slave;

    while (d && (slave = dir_next(d))) {
        if (!is_path(s, slave))
            return err_new(ERR_CORRUPT,
                           "the multipath map %s should be the volume with NAA %s, but its path %s "
                           "is not: not used",
                           name, s->naa, slave);
    }
    return NULL;
}

static struct err *look_at_map(struct search *s, const char *name)
{
    char text[SYSFS_TEXT_SIZE];
    bool there;

    if (!is_map(s, name))
        return NULL;
    if (s->found->map)
        return err_new(ERR_CORRUPT,
                       "both %s and %s say that they are the volume with NAA %s: neither is used",
                       s->found->map, name, s->naa);
    TRY(check_slaves(s, name));
    /* With paths as large as the volume it is one that grew. */
    uint64_t bytes = sysfs_block_size(s->root, name);
    bool small = s->found->n_paths && bytes && bytes < s->size;

    if (!small)
        TRY(check_size(s, name, &there));
    if (!small && !there)
        return NULL;
    s->found->map_is_small = small;
    (void)sysfs_block_text(s->root, name, "dm/name", text);
    s->found->map = xstrdup(name);
    s->found->map_name = xstrdup(text);
    return NULL;
}

/* Paths first: they are asked anew, and maps are held against them. */
static struct err *look_at_all(struct search *s, int block)
{
    static struct err *(*const look[])(struct search *, const char *) = {look_at_path, look_at_map};
    static const char *const prefixes[] = {"sd", "dm-"};

    for (size_t i = 0; i < ARRAY_SIZE(look); i++) {
        CLEANUP_DIR DIR *d = dir_stream(block);
        const char *name;

        if (!d)
            return err_errno(errno, "cannot list the block devices in %s/sys/block", s->root);
        while ((name = dir_next(d))) {
            if (str_has_prefix(name, prefixes[i]))
                TRY(look[i](s, name));
        }
    }
    return NULL;
}

struct err *xtremio_disk_look(const char *root, const char *naa, uint64_t size,
                              struct xtremio_disk *ret_disk)
{
    CLEANUP_CLOSE int block = open_folder(root, "block");
    CLEANUP_XTREMIO_DISK struct xtremio_disk found = {0};
    struct search s = {.root = root, .naa = naa, .size = size, .found = &found};

    if (block < 0)
        return err_errno(errno, "cannot open %s/sys/block", root);
    if (*naa)
        TRY(look_at_all(&s, block));
    *ret_disk = found;
    found = (struct xtremio_disk){0};
    return NULL;
}

struct err *xtremio_disk_choose(const char *root, const struct xtremio_disk *d, bool multipath,
                                char **ret_path)
{
    const char *name = d->map ? d->map : d->n_paths && !multipath ? d->paths[0] : NULL;

    if (!d->map && !multipath && d->n_paths > 1)
        return err_new(ERR_CONFLICT,
                       "the volume has %zu paths (%s, %s, ...) and no multipath map: install "
                       "multipath-tools, or let "
                       "this node reach the array over one path",
                       d->n_paths, d->paths[0], d->paths[1]);
    *ret_path = name ? xasprintf("%s/dev/%s", root, name) : NULL;
    return NULL;
}

/* "running", or why the kernel lets nothing through: blocked (iSCSI is connecting again), transport-offline (it has given that up for
 * now), offline. */
static bool is_up(const char *root, const char *name, char ret_state[SYSFS_TEXT_SIZE])
{
    (void)sysfs_block_text(root, name, "device/state", ret_state);
    return !*ret_state || streq(ret_state, "running");
}

struct err *xtremio_disk_reached(const char *root, const char *path)
{
    const char *name = strrchr(path, '/') + 1, *slave;
    CLEANUP_FREE char *slaves = xasprintf("block/%s/slaves", name);
    char state[SYSFS_TEXT_SIZE];
    bool up = is_up(root, name, state);

    if (str_has_prefix(name, "dm-")) {
        CLEANUP_CLOSE int fd = open_folder(root, slaves);
        CLEANUP_DIR DIR *d = fd < 0 ? NULL : dir_stream(fd);

        for (up = false; !up && d && (slave = dir_next(d));)
            up = is_up(root, slave, state);
    }
    return up ? NULL
              : err_new(ERR_UNAVAILABLE,
                        "the disk %s is there, but no way to the array is up (%s): are its portals "
                        "or ports reached? It goes on when they are",
                        name, *state ? state : "no path");
}

struct err *xtremio_disk_widen(const struct xtremio_disk *d)
{
    const char *const argv[] = {"multipathd", "resize", "map", d->map_name, NULL};

    return err_wrap(exec_run(&(struct exec_request){.argv = argv, .timeout_us = PROGRAM_US}, NULL),
                    "cannot make the multipath map %s as large as its volume", d->map_name);
}

/* ---- removing ---- */

/* What is going away at this moment needs nothing any more. */
static struct err *settle(const char *root, const char *name)
{
    CLEANUP_FREE char *path = xasprintf("%s/dev/%s", root, name);
    struct err *e = blockdev_settle(path);

    return err_is(e, ERR_NOT_FOUND) ? err_free(e) : e;
}

static struct err *remove_map(const struct xtremio_disk *d)
{
    const char *const argv[] = {"multipath", "-f", d->map_name, NULL};

    return err_wrap(exec_run(&(struct exec_request){.argv = argv, .timeout_us = PROGRAM_US}, NULL),
                    "cannot remove the multipath map %s", d->map_name);
}

static struct err *remove_paths(const char *root, const struct xtremio_disk *d)
{
    for (size_t i = 0; i < d->n_paths; i++) {
        TRY(settle(root, d->paths[i])); /* each has a cache of its own */
        TRY(delete_path(root, d->paths[i]));
    }
    return NULL;
}

/* Of a volume that the array took away under this host the disk stays, as long as nothing, and its LUN with it. There is nowhere to flush
 * to. */
static struct err *remove_gone(const char *root, const struct xtremio_disk *d)
{
    for (size_t i = 0; i < d->n_gone; i++) {
        CLEANUP_FREE char *device = xasprintf("%s/dev/%s", root, d->gone[i]);
        struct err *e = blockdev_prove_free(device);

        if (err_is(e, ERR_BUSY))
            return e;
        err_free(e);
        TRY(delete_path(root, d->gone[i]));
    }
    return NULL;
}

static struct err *remove_all(const char *root, const struct xtremio_disk *d)
{
    if (d->map) {
        TRY(settle(root, d->map));
        TRY(remove_map(d));
    }
    TRY(remove_paths(root, d));
    return remove_gone(root, d);
}

/* A path may be going away already, or come back with a scan that was under way: done is when none is left. */
struct err *xtremio_disk_remove(const char *root, const char *naa, uint64_t size)
{
    struct wait w = wait_for(GONE_S);
    CLEANUP_ERR struct err *last = NULL;

    w.pause_us = PAUSE_FIRST_US; /* the kernel has done it when the write returns */
    do {
        CLEANUP_XTREMIO_DISK struct xtremio_disk d = {0};

        TRY(xtremio_disk_look(root, naa, size, &d));
        if (!d.map && !d.n_paths && !d.n_gone)
            return NULL;
        err_free(last);
        last = remove_all(root, &d);
        if (err_is(last, ERR_BUSY))
            return steal(&last);
    } while (wait_more(&w));
    return last ? steal(&last)
                : err_new(ERR_TIMEOUT,
                          "the kernel still has the device with NAA %s after it was removed", naa);
}

/* ---- LUNs ---- */

struct err *xtremio_disk_luns(const char *root, bool *used, size_t n)
{
    CLEANUP_CLOSE int fd = open_folder(root, "class/scsi_device");
    CLEANUP_DIR DIR *d = fd < 0 ? NULL : dir_stream(fd);
    const char *name;
    uint64_t lun;

    if (!d && errno != ENOENT)
        return err_errno(errno, "cannot list the SCSI devices in %s/sys/class/scsi_device", root);
    while (d && (name = dir_next(d))) { /* host:channel:target:LUN */
        if (sscanf(name, "%*u:%*u:%*u:%" SCNu64, &lun) == 1 && lun < n)
            used[lun] = true;
    }
    return NULL;
}
