#include "drivers/filesystem.h"

#include "base/now.h"
#include "base/str.h"
#include "drivers/durable.h"
#include "exec/exec.h"

#include <blkid/blkid.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#define BLANK_BYTES (1u << 20)
#define MKFS_TIMEOUT_US (600 * (uint64_t)USEC_PER_SEC)

/* A file system with its signature damaged is not blank: that would cost the data. New volumes are
 * all zeros. */
static struct err *starts_with_zeros(int fd, const char *path, bool *ret_zeros)
{
    CLEANUP_FREE char *buf = xmalloc(65536);

    *ret_zeros = true;
    for (off_t at = 0; at < BLANK_BYTES;) {
        ssize_t n = pread(fd, buf, 65536, at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(errno, "cannot read %s", path);
        if (n == 0)
            break;
        for (ssize_t i = 0; i < n; i++) {
            if (buf[i]) {
                *ret_zeros = false;
                return NULL;
            }
        }
        at += n;
    }
    return NULL;
}

static struct err *probe(blkid_probe p, int fd, const char *path, char **ret_type)
{
    const char *type = NULL;
    bool zeros;

    if (blkid_probe_set_device(p, fd, 0, 0) < 0)
        return err_new(ERR_IO, "cannot look at %s", path);
    blkid_probe_enable_superblocks(p, 1);
    blkid_probe_set_superblocks_flags(p, BLKID_SUBLKS_TYPE | BLKID_SUBLKS_MAGIC);
    blkid_probe_enable_partitions(p, 1);
    int rc = blkid_do_safeprobe(p);

    if (rc == 1) {
        TRY(starts_with_zeros(fd, path, &zeros));
        *ret_type = zeros ? NULL : xstrdup("unknown data");
        return NULL;
    }
    if (rc == -2) {
        *ret_type = xstrdup("several signatures");
        return NULL;
    }
    if (rc < 0)
        return err_new(ERR_IO, "cannot find out what %s holds", path);
    if (blkid_probe_lookup_value(p, "TYPE", &type, NULL) < 0)
        (void)blkid_probe_lookup_value(p, "PTTYPE", &type, NULL);
    *ret_type = xstrdup(type ? type : "unknown signature");
    return NULL;
}

struct err *filesystem_probe(const char *path, char **ret_type)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);

    if (fd < 0)
        return err_errno(errno, "cannot open %s", path);
    blkid_probe p = blkid_new_probe();

    if (!p)
        return err_new(ERR_IO, "cannot look at %s", path);
    struct err *e = probe(p, fd, path, ret_type);

    blkid_free_probe(p);
    return e;
}

struct err *filesystem_make(const char *device, int intent)
{
    const char *const argv[] = {"mkfs.ext4", "-q", "-F", device, NULL};

    return exec_run(
        &(struct exec_request){.argv = argv, .stdin_fd = intent, .timeout_us = MKFS_TIMEOUT_US},
        NULL);
}

struct err *filesystem_freshen(int root)
{
    CLEANUP_DIR DIR *d = dir_stream(root);
    const char *name;
    bool lost = false;

    if (!d)
        return err_errno(errno, "cannot read the volume's root folder");
    while ((name = dir_next(d))) {
        if (!streq(name, "lost+found"))
            return NULL;
        lost = true;
    }
    if (lost && unlinkat(root, "lost+found", AT_REMOVEDIR) < 0)
        return errno == ENOTEMPTY ? NULL : err_errno(errno, "cannot remove lost+found");
    if (fchmodat(root, ".", 0777, 0) < 0)
        return err_errno(errno, "cannot set the mode of the volume's root folder");
    return NULL;
}
