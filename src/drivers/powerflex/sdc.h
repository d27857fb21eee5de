/* The client of PowerFlex on this host (SDC, the kernel module scini): who it is, and which block device a volume is. */
#pragma once

#include "drivers/powerflex/reply.h"

/* The answer of the module to "who are you", as it comes from the kernel. Pure; false: it is none. */
#define PFX_SCINI_ANSWER 32u
bool pfx_scini_decode(const unsigned char bytes[PFX_SCINI_ANSWER], char ret_guid[PFX_GUID_SIZE]);

/* Asks root/dev/scini for the GUID of this host. ERR_UNAVAILABLE: there is no SDC here. */
struct err *pfx_sdc_local_guid(const char *root, char ret_guid[PFX_GUID_SIZE]) MUST_USE;
/* Asks it to look for volumes that it does not show yet; whether it does, is seen by looking. */
void pfx_sdc_rescan(const char *root);

/* The device of a volume, by its link root/dev/disk/by-id/emc-vol-SYSTEM-VOLUME, which udev makes with what the module says. It
 * remembers nothing, so it is asked at each use. *ret_path is the device itself, below root; NULL: there is none, as shortly after
 * mapping. The caller frees it.
 * ERR_CORRUPT: it has neither the volume's size nor one from `least` up (that of a volume that grows), or another volume's link shows it, too: one of them is old. */
struct err *pfx_sdc_device(const char *root, const char *system, const char *volume, uint64_t size,
                           uint64_t least, char **ret_path) MUST_USE;
