/* Calls of an XMS (REST version 2). Each blocks until its deadline at the latest, so it runs on a worker; all are thread-safe. What may be
 * tried again (no connection, trouble of theirs, an array that says it is busy) is, until the deadline: every call here may be made twice, for
 * names are unique and a volume is mapped to a group once. */
#pragma once

#include "drivers/budget.h"
#include "drivers/xtremio/host.h"
#include "drivers/xtremio/reply.h"
#include "net/http_client.h"

struct xms;

/* `address` is a host, with a port or without. Client and budget (each call takes of it; may be NULL) outlive the xms. ERR_INVALID: it cannot be one. */
struct err *xms_new(struct http_client *http, struct budget *budget, const char *address,
                    const char *user, const char *password, struct xms **ret_xms) MUST_USE;
struct xms *xms_free(struct xms *x); /* accepts NULL; returns NULL */
/* All other calls mean this cluster. Not while others are under way. */
void xms_set_cluster(struct xms *x, const char *name);

/* How a call went. On an error, `kind` says what the XMS answered; XTREMIO_TROUBLE also when it did not. */
struct xms_try {
    uint64_t deadline_us; /* monotonic */
    enum xtremio_failure_kind kind;
};
struct xms_try xms_try_for(unsigned seconds);

/* The names of the clusters that this XMS manages, each on a line. */
struct err *xms_clusters_sync(struct xms *x, struct xms_try *t, char **ret_names) MUST_USE;

struct err *xms_volumes_sync(struct xms *x, struct xms_try *t,
                             struct xtremio_volumes *ret_volumes) MUST_USE;
/* *ret_found false: there is none of that name. */
struct err *xms_volume_sync(struct xms *x, struct xms_try *t, const char *name,
                            struct xtremio_volume *ret_volume, bool *ret_found) MUST_USE;
/* `size` in bytes, a multiple of 1 MiB. */
struct err *xms_volume_create_sync(struct xms *x, struct xms_try *t, const char *name,
                                   uint64_t size) MUST_USE;
/* Makes it larger. */
struct err *xms_volume_grow_sync(struct xms *x, struct xms_try *t, const char *name,
                                 uint64_t size) MUST_USE;
struct err *xms_volume_delete_sync(struct xms *x, struct xms_try *t, const char *name) MUST_USE;

struct err *xms_map_sync(struct xms *x, struct xms_try *t, const char *volume, const char *group,
                         unsigned lun) MUST_USE;
/* The map by the numbers of what it connects. */
struct err *xms_unmap_sync(struct xms *x, struct xms_try *t, const struct xtremio_volume *v,
                           const struct xtremio_map *m) MUST_USE;
/* LUNs that the group has; `used` has XTREMIO_LUN_MAX + 1 places, only set. */
struct err *xms_luns_sync(struct xms *x, struct xms_try *t, const char *group, bool *used) MUST_USE;

struct err *xms_initiators_sync(struct xms *x, struct xms_try *t,
                                struct xtremio_initiators *ret_initiators) MUST_USE;
struct err *xms_group_create_sync(struct xms *x, struct xms_try *t, const char *name) MUST_USE;
struct err *xms_initiator_create_sync(struct xms *x, struct xms_try *t, const char *name,
                                      const char *port, const char *group) MUST_USE;
/* Where the array is reached with this protocol. */
struct err *xms_targets_sync(struct xms *x, struct xms_try *t, enum xtremio_protocol protocol,
                             struct xtremio_targets *ret_targets) MUST_USE;
