/* The backends that are built in; driver.c lists them by name. */
#pragma once

#include "drivers/driver.h"

extern const struct driver driver_aws;
extern const struct driver driver_btrfs;
extern const struct driver driver_fake;
extern const struct driver driver_loopback;
extern const struct driver driver_openstack;
extern const struct driver driver_powerflex;
extern const struct driver driver_xtremio;
extern const struct driver driver_zfs;
