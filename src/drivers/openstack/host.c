#include "base/log.h"
#include "base/str.h"
#include "drivers/blockdev.h"
#include "drivers/durable.h"
#include "drivers/iscsi.h"
#include "drivers/loopdev.h"
#include "drivers/openstack/openstack.h"
#include "drivers/sysfs.h"
#include "exec/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/fs.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define MOUNT_US 60000000u
#define DISKS_MAX 64u /* of one LUN */
#define INITIATOR_FILE "/etc/iscsi/initiatorname.iscsi"
#define INITIATOR_KEY "InitiatorName="

/* Mounting and unmounting of exports, and binding of files: one at a time in this process, which is the only agent here. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static struct err *wrong_size(const struct os_volume *v, const char *path, uint64_t size)
{
    return err_new(ERR_CORRUPT,
                   "%s should be volume %s, but has %" PRIu64 " bytes instead of %" PRIu64
                   ": not used",
                   path, v->id, size, v->size);
}

/* While Cinder makes it larger, or could not say that it has, the volume may be so already. */
static bool has_size(const struct os_volume *v, uint64_t size)
{
    bool grows = v->status == OS_EXTENDING || v->status == OS_ERROR_EXTENDING;

    return size == v->size || (grows && size > v->size);
}

/* ---- NFS ---- */

/* Where the export is mounted; the name is the same at each start. */
static char *place_of(const struct openstack *o, const char *export)
{
    unsigned char sum[SHA256_DIGEST_LENGTH];

    (void)SHA256((const unsigned char *)export, strlen(export), sum);
    return xasprintf("%s/%02x%02x%02x%02x%02x%02x%02x%02x", o->nfs_root, sum[0], sum[1], sum[2],
                     sum[3], sum[4], sum[5], sum[6], sum[7]);
}

static struct err *is_mounted(const char *place, bool *ret_mounted)
{
    CLEANUP_FREE char *above = xasprintf("%s/..", place);
    struct statx here, there;

    if (statx(AT_FDCWD, place, 0, STATX_BASIC_STATS, &here) < 0 ||
        statx(AT_FDCWD, above, 0, STATX_BASIC_STATS, &there) < 0)
        return err_errno(errno, "cannot look at %s", place);
    *ret_mounted = here.stx_attributes & STATX_ATTR_MOUNT_ROOT;
    return NULL;
}

static struct err *mount_export(const struct os_connection *c, const char *place)
{
    const char *with[] = {"mount", "-t", "nfs", "-o", c->options, "--", c->export, place, NULL};
    const char *without[] = {"mount", "-t", "nfs", "--", c->export, place, NULL};
    bool mounted;

    TRY(dir_make_path(place, 0700));
    TRY(is_mounted(place, &mounted));
    if (mounted)
        return NULL;
    return err_wrap(exec_run(&(struct exec_request){.argv = *c->options ? with : without,
                                                    .timeout_us = MOUNT_US},
                             NULL),
                    "cannot mount the NFS export %s", c->export);
}

/* Opens the file of the volume, and checks that it can be it. */
static struct err *open_file(const struct os_connection *c, const struct os_volume *v,
                             const char *place, int *ret_fd, struct stat *st)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", place, c->file);
    CLEANUP_CLOSE int fd = open(path, O_RDWR | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0 || fstat(fd, st) < 0)
        return err_errno(errno, "cannot open %s of the export %s", c->file, c->export);
    if (!S_ISREG(st->st_mode))
        return err_new(ERR_CORRUPT, "%s of the export %s is no file", c->file, c->export);
    if (!has_size(v, (uint64_t)st->st_size))
        return wrong_size(v, path, (uint64_t)st->st_size);
    *ret_fd = steal_fd(&fd);
    return NULL;
}

static struct err *connect_nfs(const struct openstack *o, const struct os_volume *v,
                               const struct os_connection *c, char **ret_path)
{
    CLEANUP_FREE char *place = place_of(o, c->export);
    CLEANUP_CLOSE int file = -1, loop = -1;
    struct stat st;

    TRY(mount_export(c, place));
    TRY(open_file(c, v, place, &file, &st));
    TRY(loopdev_find(st.st_dev, st.st_ino, ret_path));
    return *ret_path ? loopdev_resize(*ret_path, st.st_dev, st.st_ino)
                     : loopdev_bind(file, c->file, /* autoclear= */ false, ret_path, &loop);
}

static struct err *unbind_file(const struct openstack *o, const struct os_volume *v,
                               const struct os_connection *c, const char *place)
{
    CLEANUP_CLOSE int file = -1;
    CLEANUP_FREE char *device = NULL;
    struct stat st;

    TRY(open_file(c, v, place, &file, &st));
    TRY(loopdev_find(st.st_dev, st.st_ino, &device));
    if (device)
        TRY(loopdev_unbind(device, st.st_dev, st.st_ino));
    return fsync(file) < 0 ? err_errno(errno, "cannot flush the file of volume %s", v->id) : NULL;
}

static struct err *disconnect_nfs(const struct openstack *o, const struct os_volume *v,
                                  const struct os_connection *c)
{
    CLEANUP_FREE char *place = place_of(o, c->export);
    bool mounted;

    if (access(place, F_OK) < 0)
        return NULL;
    TRY(is_mounted(place, &mounted));
    if (!mounted)
        return NULL;
    TRY(unbind_file(o, v, c, place));
    (void)umount2(place, 0); /* other volumes use it, or it is used again soon: no harm */
    return NULL;
}

/* ---- local ---- */

static struct err *connect_local(const struct openstack *o, const struct os_volume *v,
                                 const struct os_connection *c, char **ret_path)
{
    CLEANUP_FREE char *path = xasprintf("%s%s", o->host_root, c->path);
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
    uint64_t size;
    struct stat st;

    if (fd < 0 && (errno == ENOENT || errno == ENXIO))
        return NULL;
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_errno(errno, "cannot open %s", path);
    if (!S_ISBLK(st.st_mode) || ioctl(fd, BLKGETSIZE64, &size) < 0)
        return err_new(ERR_CORRUPT, "%s is no block device", path);
    if (!has_size(v, size))
        return wrong_size(v, path, size);
    *ret_path = steal(&path);
    return NULL;
}

static struct err *disconnect_local(const struct openstack *o, const struct os_volume *v,
                                    const struct os_connection *c)
{
    CLEANUP_FREE char *path = NULL;

    TRY(connect_local(o, v, c, &path));
    return path ? blockdev_settle(path) : NULL;
}

/* ---- iSCSI ---- */

/* Cinder was told that there is no multipath: any one portal will do. */
static struct iscsi_target target_of(const struct os_connection *c, size_t i)
{
    struct iscsi_target t = {.iqn = c->portals[i].iqn, .portal = c->portals[i].address};

    if (*c->chap_user) {
        t.chap_user = c->chap_user;
        t.chap_password = c->chap_password;
    }
    return t;
}

/* A session with one of the portals' targets, made when there is none; *ret is its place in the list. */
static struct err *log_in(const struct openstack *o, const struct os_connection *c, size_t *ret)
{
    CLEANUP_ERR struct err *last = NULL;

    for (size_t i = 0; i < c->n_portals; i++) {
        bool there;

        *ret = i;
        TRY(iscsi_has_session(o->host_root, c->portals[i].iqn, &there));
        if (there)
            return NULL;
    }
    for (size_t i = 0; i < c->n_portals; i++) {
        struct iscsi_target t = target_of(c, i);

        *ret = i;
        err_free(last);
        last = iscsi_login(o->host_root, &t);
        if (!last)
            return NULL;
        log_debug("%s", last->text);
    }
    return steal(&last);
}

/* The target and the LUN say which disk it is; the kernel is asked anew how long it is. */
static struct err *connect_iscsi(const struct openstack *o, const struct os_volume *v,
                                 const struct os_connection *c, char **ret_path)
{
    CLEANUP_FREE char *name = NULL, *rescan = NULL;
    unsigned sessions;
    size_t i = 0;

    TRY(err_wrap(log_in(o, c, &i), "volume %s is reached by iSCSI", v->id));
    const struct os_portal *p = &c->portals[i];

    TRY(iscsi_disk(o->host_root, p->iqn, p->lun, &name));
    if (!name)
        return iscsi_scan(o->host_root, p->iqn, p->lun, &sessions);
    rescan = xasprintf("block/%s/device/rescan", name);
    err_free(sysfs_write(o->host_root, rescan, "1")); /* what cannot be asked shows in its use */
    uint64_t size = sysfs_block_size(o->host_root, name);
    CLEANUP_FREE char *path = xasprintf("%s/dev/%s", o->host_root, name);

    if (!size) /* it is going away, or just coming */
        return NULL;
    if (!has_size(v, size))
        return wrong_size(v, path, size);
    *ret_path = steal(&path);
    return NULL;
}

/* What it was in a session with this target is gone from the kernel; and the session, if nothing else is in it. */
static struct err *leave(const struct openstack *o, const struct iscsi_target *t, unsigned lun)
{
    bool others, session;

    for (unsigned i = 0; i < DISKS_MAX; i++) {
        CLEANUP_FREE char *name = NULL;

        TRY(iscsi_disk(o->host_root, t->iqn, lun, &name));
        if (!name)
            break;
        CLEANUP_FREE char *path = xasprintf("%s/dev/%s", o->host_root, name);
        CLEANUP_FREE char *gone = xasprintf("block/%s/device/delete", name);

        TRY(blockdev_settle(path));
        TRY(sysfs_write(o->host_root, gone, "1"));
    }
    TRY(iscsi_has_disks(o->host_root, t->iqn, &others));
    if (others)
        return NULL;
    TRY(iscsi_has_session(o->host_root, t->iqn, &session));
    struct err *e = iscsi_logout(t);

    /* Without a session and without iscsiadm it was never connected. */
    return !session && err_is(e, ERR_UNAVAILABLE) ? err_free(e) : e;
}

static struct err *disconnect_iscsi(const struct openstack *o, const struct os_connection *c)
{
    for (size_t i = 0; i < c->n_portals; i++) {
        struct iscsi_target t = target_of(c, i);
        TRY(leave(o, &t, c->portals[i].lun));
    }
    return NULL;
}

/* ---- all ---- */

static struct err *connect_any(const struct openstack *o, const struct os_volume *v,
                               const struct os_connection *c, char **ret_path)
{
    *ret_path = NULL;
    switch (c->kind) {
    case OS_CONNECT_NFS:
        return connect_nfs(o, v, c, ret_path);
    case OS_CONNECT_LOCAL:
        return connect_local(o, v, c, ret_path);
    case OS_CONNECT_ISCSI:
        return connect_iscsi(o, v, c, ret_path);
    }
    return NULL;
}

static struct err *disconnect_any(const struct openstack *o, const struct os_volume *v,
                                  const struct os_connection *c)
{
    switch (c->kind) {
    case OS_CONNECT_NFS:
        return disconnect_nfs(o, v, c);
    case OS_CONNECT_LOCAL:
        return disconnect_local(o, v, c);
    case OS_CONNECT_ISCSI:
        return disconnect_iscsi(o, c);
    }
    return NULL;
}

struct err *os_host_connect(struct openstack *o, const struct os_volume *v,
                            const struct os_connection *c, char **ret_path)
{
    (void)pthread_mutex_lock(&lock);
    struct err *e = connect_any(o, v, c, ret_path);

    (void)pthread_mutex_unlock(&lock);
    return e;
}

struct err *os_host_disconnect(struct openstack *o, const struct os_volume *v,
                               const struct os_connection *c)
{
    (void)pthread_mutex_lock(&lock);
    struct err *e = disconnect_any(o, v, c);

    (void)pthread_mutex_unlock(&lock);
    return e;
}

struct err *os_host_initiator(const struct openstack *o, char **ret_name)
{
    CLEANUP_FREE char *path = xasprintf("%s" INITIATOR_FILE, o->host_root), *text = NULL;
    const char *at;

    *ret_name = NULL;
    TRY(file_read(AT_FDCWD, path, 64u << 10, &text));
    at = text ? strstr(text, INITIATOR_KEY) : NULL;
    while (at && at != text && at[-1] != '\n') /* not in a comment */
        at = strstr(at + 1, INITIATOR_KEY);
    if (at)
        at += strlen(INITIATOR_KEY);
    if (at && str_is_utf8(at, strcspn(at, " \t\r\n")))
        *ret_name = xstrndup(at, strcspn(at, " \t\r\n"));
    return NULL;
}
