#include "base/str.h"
#include "drivers/durable.h"
#include "drivers/openstack/openstack.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#define SECTOR 512u
#define ATTRIBUTE_SIZE 128
#define VIRTIO_SERIAL 20u /* so much of a serial number virtio-blk shows */
#define VPD_HEADER 4u     /* page 0x80: two bytes, then two for the length */

struct search {
    const char *root, *volume, *xen; /* xen: "xvdf", or NULL */
    uint64_t size;
    int block; /* root/sys/block */
    char *found;
};

/* Reads an attribute in sysfs; the number of bytes, without white space at their end. */
static size_t attribute(int block, const char *device, const char *name, char ret[ATTRIBUTE_SIZE])
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", device, name);
    CLEANUP_CLOSE int fd = openat(block, path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, ret, ATTRIBUTE_SIZE - 1);

    while (n > 0 && strchr(" \n", ret[n - 1]))
        n--;
    ret[n > 0 ? n : 0] = '\0';
    return n > 0 ? (size_t)n : 0;
}

static bool is_serial_of(const char *serial, const char *volume)
{
    return streq(serial, volume) ||
           (strlen(serial) == VIRTIO_SERIAL && str_has_prefix(volume, serial));
}

static struct err *check_size(const struct search *s, const char *name)
{
    char text[ATTRIBUTE_SIZE];
    uint64_t sectors = 0;

    (void)attribute(s->block, name, "size", text);
    if (sscanf(text, "%" SCNu64, &sectors) == 1 && sectors == s->size / SECTOR)
        return NULL;
    return err_new(ERR_CORRUPT,
                   "the device %s should be volume %s, but has %" PRIu64
                   " bytes instead of %" PRIu64 ": not used",
                   name, s->volume, sectors * SECTOR, s->size);
}

static struct err *take(struct search *s, const char *name)
{
    if (s->found)
        return err_new(ERR_CORRUPT, "both %s and %s say that they are volume %s: neither is used",
                       s->found, name, s->volume);
    TRY(check_size(s, name));
    s->found = xasprintf("%s/dev/%s", s->root, name);
    return NULL;
}

/* virtio-blk says it in "serial", SCSI in its page of vital data. */
static struct err *look_at(struct search *s, const char *name)
{
    char text[ATTRIBUTE_SIZE];
    size_t n;

    if (str_has_prefix(name, "vd")) {
        (void)attribute(s->block, name, "serial", text);
        return is_serial_of(text, s->volume) ? take(s, name) : NULL;
    }
    if (!str_has_prefix(name, "sd"))
        return NULL;
    n = attribute(s->block, name, "device/vpd_pg80", text);
    return n > VPD_HEADER && is_serial_of(text + VPD_HEADER, s->volume) ? take(s, name) : NULL;
}

static struct err *look(struct search *s)
{
    CLEANUP_DIR DIR *d = dir_stream(s->block);
    const char *name;
    bool xen = false;

    if (!d)
        return err_errno(errno, "cannot list the block devices in %s/sys/block", s->root);
    while ((name = dir_next(d))) {
        TRY(look_at(s, name));
        xen = xen || (s->xen && streq(name, s->xen));
    }
    return xen && !s->found ? take(s, s->xen) : NULL;
}

/* On Xen Nova's name is right, and there is no serial number; on others it is a guess of Nova's. */
static const char *xen_name(const char *attached_as)
{
    static const char prefix[] = "/dev/xvd";
    const char *rest = attached_as + sizeof(prefix) - 1;

    if (!str_has_prefix(attached_as, prefix) || !*rest || strlen(rest) > 2 ||
        rest[strspn(rest, "abcdefghijklmnopqrstuvwxyz")])
        return NULL;
    return attached_as + strlen("/dev/");
}

struct err *os_disk_find(const char *root, const char *volume, uint64_t size,
                         const char *attached_as, char **ret_path)
{
    CLEANUP_FREE char *path = xasprintf("%s/sys/block", root);
    CLEANUP_CLOSE int block = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct search s = {
        .root = root, .volume = volume, .xen = xen_name(attached_as), .size = size, .block = block};

    if (block < 0)
        return err_errno(errno, "cannot open %s", path);
    struct err *e = look(&s);

    if (e)
        free(s.found);
    else
        *ret_path = s.found;
    return e;
}
