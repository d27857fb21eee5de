/* This machine as an initiator of iSCSI: sessions by open-iscsi's `iscsiadm`, LUNs by what the kernel says of its sessions. Functions of
 * what is below `root` ("" on a host): they remember nothing. All block. Any thread, but one at a time for a target. */
#pragma once

#include "base/err.h"

#include <stdbool.h>

struct iscsi_target {
    const char *iqn;
    const char *portal;                   /* "10.0.0.5:3260", "[fd00::5]:3260" */
    const char *chap_user, *chap_password; /* NULL: as iscsid.conf says */
};

/* Is there a session with that target, whoever made it? */
struct err *iscsi_has_session(const char *root, const char *iqn, bool *ret) MUST_USE;
/* Logs in. Its record in open-iscsi's files is `manual` in all: nothing is logged in to or scanned by itself, so that after a reboot no LUN comes
 * that is not asked for. A password goes into that record, which only root can read, never into an argument. When it fails no record stays. */
struct err *iscsi_login(const char *root, const struct iscsi_target *t) MUST_USE;
/* Logs out, and removes the record. Fine when there is none. */
struct err *iscsi_logout(const struct iscsi_target *t) MUST_USE;

/* Looks for this one LUN in each session with the target, never for all. *ret_n: in so many sessions. ERR_UNAVAILABLE: there
 * are, and none of them is up. */
struct err *iscsi_scan(const char *root, const char *iqn, unsigned lun, unsigned *ret_n) MUST_USE;
/* The name in sys/block of a disk that is this LUN of a session with the target; *ret_name NULL: there is none. The caller frees it. */
struct err *iscsi_disk(const char *root, const char *iqn, unsigned lun, char **ret_name) MUST_USE;
/* Has a session with the target any disk? */
struct err *iscsi_has_disks(const char *root, const char *iqn, bool *ret) MUST_USE;
