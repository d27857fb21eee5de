#include "drivers/aws/disk.h"

#include "base/str.h"
#include "drivers/sysfs.h"

#define MODEL "Amazon Elastic Block Store"

/* "vol0123" (or "vol-0123") for "vol-0123". */
static bool is_serial_of(const char *serial, const char *volume)
{
    const char *dash = strchr(volume, '-');
    size_t head = dash ? (size_t)(dash - volume) : 0;

    return dash && (streq(serial, volume) ||
                    (!strncmp(serial, volume, head) && streq(serial + head, dash + 1)));
}

static enum disk_identity identify(const struct disk_search *s, const char *name)
{
    char text[SYSFS_TEXT_SIZE];

    if (!str_has_prefix(name, "nvme"))
        return DISK_SAYS_NOTHING;
    (void)sysfs_block_text(s->root, name, "device/model", text);
    if (!streq(text, MODEL))
        return DISK_SAYS_NOTHING;
    (void)sysfs_block_text(s->root, name, "device/serial", text);
    return is_serial_of(text, s->volume) ? DISK_IS_IT : DISK_OTHER;
}

/* "/dev/sdf" and "/dev/xvdf" are "xvdf"; NULL for what names no disk. */
static char *xen_name(const char *attached_as)
{
    const char *letters = disk_letters(attached_as, "/dev/sd");

    if (!letters)
        letters = disk_letters(attached_as, "/dev/xvd");
    return letters ? xasprintf("xvd%s", letters) : NULL;
}

struct err *aws_disk_find(const char *root, const char *volume, uint64_t size, uint64_t least,
                          const char *attached_as, char **ret_path)
{
    CLEANUP_FREE char *xen = xen_name(attached_as);
    struct disk_search s = {root, volume, size, least, identify, xen};

    return disk_find(&s, ret_path);
}
