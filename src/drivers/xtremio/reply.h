/* What the management server of an XtremIO array (XMS) answers, as structures; pure. `root` is its JSON, or NULL. Everything in an answer comes from
 * outside: lengths and counts are limited, addresses and names have the form of such, sizes fit.
 *
 * Where facts come from: the names of objects and properties, and what errors say, from the Cinder driver of OpenStack
 * (cinder/volume/drivers/dell_emc/xtremio.py) and the driver of Flocker 1 (emc_xtremio_flocker_plugin), both published. Numbers
 * come as JSON numbers or as texts, depending on the version of XMS. */
#pragma once

#include "base/err.h"
#include "base/uuid.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define XTREMIO_NAME_SIZE 256  /* with the NUL */
#define XTREMIO_NAA_SIZE 33    /* 16 or 32 hexadecimal digits */
#define XTREMIO_PORT_SIZE 224  /* an IQN, or a WWPN as 21:00:... */
#define XTREMIO_PORTAL_SIZE 64 /* 10.0.0.1:3260 */
#define XTREMIO_MAPS_MAX 1024u /* of one volume */
#define XTREMIO_LUN_MAX 16383u /* what a lun-map may have */
#define XTREMIO_FOLDER                                                                             \
    "/Volume/" /* and the id of the cluster: where the driver of Flocker 1 kept its volumes */

/* A volume is seen by all hosts of an initiator group. */
struct xtremio_map {
    char group[XTREMIO_NAME_SIZE];
    unsigned group_index, target_index; /* with the volume's they make the name of the lun-map */
    unsigned lun;
};

struct xtremio_volume {
    char name[XTREMIO_NAME_SIZE];
    char naa[XTREMIO_NAA_SIZE]; /* lower case; "" until it was mapped for the first time */
    unsigned index;
    uint64_t size;      /* bytes */
    struct uuid folder; /* the cluster of XTREMIO_FOLDER; nil: in none */
    struct xtremio_map *maps;
    size_t n_maps;
};
void xtremio_volume_done(struct xtremio_volume *v);
#define CLEANUP_XTREMIO_VOLUME CLEANUP(xtremio_volume_done)

struct xtremio_volumes {
    struct xtremio_volume *all;
    size_t n;
};
void xtremio_volumes_done(struct xtremio_volumes *v);
#define CLEANUP_XTREMIO_VOLUMES CLEANUP(xtremio_volumes_done)

/* GET volumes?full=1: all of them. One without the form of a volume is left out, for others' must not hide ours. */
struct err *xtremio_volumes_parse(const json_t *root, struct xtremio_volumes *ret_volumes) MUST_USE;
/* GET volumes?name=... */
struct err *xtremio_volume_parse(const json_t *root, struct xtremio_volume *ret_volume) MUST_USE;

/* GET initiators?full=1 */
struct xtremio_initiator {
    char name[XTREMIO_NAME_SIZE];
    char port[XTREMIO_PORT_SIZE]; /* lower case */
    char group[XTREMIO_NAME_SIZE];
};
struct xtremio_initiators {
    struct xtremio_initiator *all;
    size_t n;
};
void xtremio_initiators_done(struct xtremio_initiators *i);
#define CLEANUP_XTREMIO_INITIATORS CLEANUP(xtremio_initiators_done)
struct err *xtremio_initiators_parse(const json_t *root,
                                     struct xtremio_initiators *ret_initiators) MUST_USE;

/* GET targets?full=1 (Fibre Channel: those that are up) or iscsi-portals?full=1: where the array is reached. */
struct xtremio_target {
    char port[XTREMIO_PORT_SIZE];     /* lower case */
    char portal[XTREMIO_PORTAL_SIZE]; /* iSCSI only */
};
struct xtremio_targets {
    struct xtremio_target *all;
    size_t n;
};
void xtremio_targets_done(struct xtremio_targets *t);
#define CLEANUP_XTREMIO_TARGETS CLEANUP(xtremio_targets_done)
struct err *xtremio_targets_parse(const json_t *root, struct xtremio_targets *ret_targets) MUST_USE;
struct err *xtremio_portals_parse(const json_t *root, struct xtremio_targets *ret_targets) MUST_USE;

/* GET lun-maps?full=1: which LUNs are used; `used` has XTREMIO_LUN_MAX + 1 places, only set, never cleared. */
struct err *xtremio_luns_parse(const json_t *root, bool *used) MUST_USE;

/* GET clusters: their names, each on a line of its own. The caller frees it. */
struct err *xtremio_clusters_parse(const json_t *root, char **ret_names) MUST_USE;

/* ---- ports ---- */

/* Both forms of a WWPN ("0x21000024ff57b236", "21:00:...") as "21:00:...", and an IQN, in lower case; false: it is neither. */
bool xtremio_port_normalize(const char *text, char ret[XTREMIO_PORT_SIZE]);
/* The name in the text of /etc/iscsi/initiatorname.iscsi; false: there is none. */
bool xtremio_initiatorname_parse(const char *text, char ret[XTREMIO_PORT_SIZE]);

/* ---- errors ---- */

enum xtremio_failure_kind {
    XTREMIO_FAILED,     /* anything else */
    XTREMIO_TROUBLE,    /* theirs, or no answer: later */
    XTREMIO_ARRAY_BUSY, /* later */
    XTREMIO_NOT_FOUND,
    XTREMIO_NOT_UNIQUE,     /* the name, or the address of an initiator, is in use: look again */
    XTREMIO_ALREADY_MAPPED, /* look again */
    XTREMIO_LIMIT,
    XTREMIO_DENIED, /* user, password, or what the user may do */
    XTREMIO_FAILURE_KIND_MAX,
};

struct xtremio_failure {
    enum xtremio_failure_kind kind;
    char message[256]; /* printable */
};

/* Of an answer whose status is not 2xx; `root` may be NULL (a proxy's page). Never fails. */
struct xtremio_failure xtremio_failure_parse(int status, const json_t *root);
/* As an error: `what` is what was tried ("cannot map volume x"). */
struct err *xtremio_failure_err(const struct xtremio_failure *f, const char *what) MUST_USE;
