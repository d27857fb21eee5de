/* Which block device of this machine is an EBS volume. A function of what is below `root` (its /sys and /dev):
 * it remembers nothing, so it is asked at each use. */
#pragma once

#include "base/err.h"

#include <stdint.h>

/* On Nitro instances volumes are NVMe drives, told by their serial number, which is the volume's id; the name
 * that was asked for at attaching means nothing there. On Xen there is no serial number: `attached_as` ("/dev/sdf",
 * "/dev/xvdaa") says which, as /dev/xvdf or /dev/xvdaa; it counts only where there is no NVMe drive of EBS at all. In
 * either case the size must be exactly the volume's, or, while it grows, at least `least` (otherwise the same as `size`).
 * *ret_path is root/dev/NAME, or NULL: there is no such device, as shortly after attaching. The caller frees it.
 * ERR_CORRUPT: a device says that it is the volume and has another size, or two say so. */
struct err *aws_disk_find(const char *root, const char *volume, uint64_t size, uint64_t least,
                          const char *attached_as, char **ret_path) MUST_USE;
