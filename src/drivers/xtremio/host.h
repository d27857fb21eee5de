/* This machine as a host of the array: its ports, its ways to the array, and scans for LUNs. Functions of what is below `root`.
 * All block. */
#pragma once

#include "drivers/xtremio/reply.h"

enum xtremio_protocol { XTREMIO_ISCSI, XTREMIO_FC };

struct xtremio_ports {
    char (*all)[XTREMIO_PORT_SIZE];
    size_t n, cap;
};
void xtremio_ports_done(struct xtremio_ports *p);
#define CLEANUP_XTREMIO_PORTS CLEANUP(xtremio_ports_done)
bool xtremio_ports_has(const struct xtremio_ports *p, const char *port);

/* The machine's ports of that protocol: its IQN, or the WWPNs of its adapters. None is no error. */
struct err *xtremio_host_ports(const char *root, enum xtremio_protocol protocol,
                               struct xtremio_ports *ret_ports) MUST_USE;
/* Logs in to those of the iSCSI targets that there is no session with (iscsiadm; node.startup and node.session.scan manual). One that cannot be
 * reached is logged; an error only when there is no session at all in the end. */
struct err *xtremio_host_login(const char *root, const struct xtremio_targets *targets) MUST_USE;
/* Looks for this one LUN wherever the array is reached; never for all of them. ERR_UNAVAILABLE: it is reached nowhere, for
 * there is no session, or none is up. */
struct err *xtremio_host_scan(const char *root, enum xtremio_protocol protocol,
                              const struct xtremio_targets *targets, unsigned lun) MUST_USE;
