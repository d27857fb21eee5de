#include "drivers/aws/disk.h"

#include "base/str.h"
#include "drivers/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#define SECTOR 512u
#define MODEL "Amazon Elastic Block Store"
#define ATTRIBUTE_SIZE 128

struct search {
    const char *root, *volume, *xen; /* xen: "xvdf", or NULL */
    uint64_t size, least;
    int block; /* root/sys/block */
    bool nvme; /* there are NVMe drives of EBS */
    char *found;
};

/* An attribute in sysfs without white space at its end; "" when there is none. */
static void attribute(int block, const char *device, const char *name, char ret[ATTRIBUTE_SIZE])
{
    CLEANUP_FREE char *path = xasprintf("%s/%s", device, name);
    CLEANUP_CLOSE int fd = openat(block, path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, ret, ATTRIBUTE_SIZE - 1);

    while (n > 0 && strchr(" \n", ret[n - 1]))
        n--;
    ret[n > 0 ? n : 0] = '\0';
}

/* "vol0123" (or "vol-0123") for "vol-0123". */
static bool is_serial_of(const char *serial, const char *volume)
{
    const char *dash = strchr(volume, '-');
    size_t head = dash ? (size_t)(dash - volume) : 0;

    return dash && (streq(serial, volume) ||
                    (!strncmp(serial, volume, head) && streq(serial + head, dash + 1)));
}

static struct err *check_size(const struct search *s, const char *name)
{
    char text[ATTRIBUTE_SIZE];
    uint64_t sectors = 0;

    attribute(s->block, name, "size", text);
    if (sscanf(text, "%" SCNu64, &sectors) == 1 && sectors >= s->least / SECTOR &&
        sectors <= s->size / SECTOR)
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

static struct err *look_at_nvme(struct search *s, const char *name)
{
    char text[ATTRIBUTE_SIZE];

    attribute(s->block, name, "device/model", text);
    if (!streq(text, MODEL))
        return NULL;
    s->nvme = true;
    attribute(s->block, name, "device/serial", text);
    return is_serial_of(text, s->volume) ? take(s, name) : NULL;
}

static struct err *look(struct search *s)
{
    CLEANUP_DIR DIR *d = dir_stream(s->block);
    const char *name;
    bool xen = false;

    if (!d)
        return err_errno(errno, "cannot list the block devices in %s/sys/block", s->root);
    while ((name = dir_next(d))) {
        if (str_has_prefix(name, "nvme"))
            TRY(look_at_nvme(s, name));
        xen = xen || (s->xen && streq(name, s->xen));
    }
    return xen && !s->nvme && !s->found ? take(s, s->xen) : NULL;
}

/* "/dev/sdf" and "/dev/xvdf" are "xvdf"; NULL for what names no disk. */
static char *xen_name(const char *attached_as)
{
    static const char *const prefixes[] = {"/dev/sd", "/dev/xvd"};
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz";

    for (size_t i = 0; i < ARRAY_SIZE(prefixes); i++) {
        const char *rest = attached_as + strlen(prefixes[i]);

        if (str_has_prefix(attached_as, prefixes[i]) && *rest && strlen(rest) <= 2 &&
            !rest[strspn(rest, letters)])
            return xasprintf("xvd%s", rest);
    }
    return NULL;
}

struct err *aws_disk_find(const char *root, const char *volume, uint64_t size, uint64_t least,
                          const char *attached_as, char **ret_path)
{
    CLEANUP_FREE char *xen = xen_name(attached_as);
    CLEANUP_FREE char *path = xasprintf("%s/sys/block", root);
    CLEANUP_CLOSE int block = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct search s = {
        .root = root, .volume = volume, .xen = xen, .size = size, .least = least, .block = block};

    if (block < 0)
        return err_errno(errno, "cannot open %s", path);
    struct err *e = look(&s);

    if (e)
        free(s.found);
    else
        *ret_path = s.found;
    return e;
}
