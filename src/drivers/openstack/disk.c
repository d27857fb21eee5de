#include "base/str.h"
#include "drivers/openstack/openstack.h"
#include "drivers/sysfs.h"

#define VIRTIO_SERIAL 20u /* so much of a serial number virtio-blk shows */
#define VPD_HEADER 4u     /* page 0x80: two bytes, then two for the length */

static bool is_serial_of(const char *serial, const char *volume)
{
    return streq(serial, volume) ||
           (strlen(serial) == VIRTIO_SERIAL && str_has_prefix(volume, serial));
}

/* virtio-blk says it in "serial", SCSI in its page of vital data. */
static enum disk_identity identify(const struct disk_search *s, const char *name)
{
    char text[SYSFS_TEXT_SIZE];
    const char *serial = text;

    if (str_has_prefix(name, "vd"))
        (void)sysfs_block_text(s->root, name, "serial", text);
    else if (str_has_prefix(name, "sd") && sysfs_block_text(s->root, name, "device/vpd_pg80", text) > VPD_HEADER)
        serial = text + VPD_HEADER;
    else
        return DISK_SAYS_NOTHING;
    return is_serial_of(serial, s->volume) ? DISK_IS_IT : DISK_SAYS_NOTHING; /* the others need not be Cinder's */
}

struct err *os_disk_find(const char *root, const char *volume, uint64_t size,
                         const char *attached_as, char **ret_path)
{
    /* On Xen Nova's name is right, and there is no serial number; on others it is a guess of Nova's. */
    bool xen = disk_letters(attached_as, "/dev/xvd");
    struct disk_search s = {root, volume, size, size, identify, xen ? attached_as + strlen("/dev/") : NULL};

    return disk_find(&s, ret_path);
}
