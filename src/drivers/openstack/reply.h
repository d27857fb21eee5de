/* What Keystone, Cinder and Nova answer, as structures; pure. Everything in an answer comes from outside: lengths and counts
 * are limited, ids and names of files have the form of such, sizes fit. Errors are ERR_CORRUPT. */
#pragma once

#include "base/err.h"
#include "base/uuid.h"

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OS_ID_SIZE 64
#define OS_NAME_SIZE 128
#define OS_URL_MAX 1024u
#define OS_ATTACHMENTS_MAX 16u
#define OS_ENDPOINTS_MAX 1000u
#define OS_PORTALS_MAX 16u

/* Metadata of volumes; the first two are those of Flocker 1, whose volumes are found by them. */
#define OS_KEY_CLUSTER "flocker-cluster-id"
#define OS_KEY_DATASET "flocker-dataset-id"
#define OS_KEY_NODE "flocker-node-id" /* the node that attached it last; absent: none ever did */

/* ---- volumes ---- */

enum os_status {
    OS_CREATING,
    OS_AVAILABLE,
    OS_RESERVED,
    OS_ATTACHING,
    OS_IN_USE,
    OS_DETACHING,
    OS_EXTENDING,
    OS_DELETING,
    OS_ERROR,
    OS_ERROR_DELETING,
    OS_ERROR_EXTENDING,
    OS_STATUS_OTHER, /* migrating, backing-up, and so on */
};

struct os_attachment {
    char id[OS_ID_SIZE];     /* "" where the service does not say */
    char server[OS_ID_SIZE]; /* "": attached to no server of Nova's */
    char device
        [OS_NAME_SIZE]; /* of a server: the name it was given; else what the attaching host said of itself */
};

struct os_volume {
    char id[OS_ID_SIZE];
    uint64_t size; /* bytes */
    enum os_status status;
    char status_name[OS_NAME_SIZE];
    char created[OS_ID_SIZE];           /* ISO 8601, sorts by time */
    struct uuid cluster, dataset, node; /* of the metadata; nil: no such key, or no id */
    struct os_attachment attachments[OS_ATTACHMENTS_MAX];
    size_t n_attachments;
};

struct os_volumes {
    struct os_volume *all;
    size_t n, cap;
    bool more; /* there is another page, after the last of these */
};
void os_volumes_done(struct os_volumes *v);
#define CLEANUP_OS_VOLUMES CLEANUP(os_volumes_done)

/* One page of volumes is added to `v`. On an error `v` holds what it held. */
struct err *os_volumes_parse(const json_t *body, struct os_volumes *v) MUST_USE;
struct err *os_volume_parse(const json_t *body, struct os_volume *ret_volume) MUST_USE;

/* ---- attachments, as Cinder tells of them (3.27) ---- */

struct os_link {
    char id[OS_ID_SIZE];
    char server[OS_ID_SIZE]; /* "": none */
    bool complete;           /* what attaches may use it */
};
/* The first OS_ATTACHMENTS_MAX of a list. */
struct err *os_links_parse(const json_t *body, struct os_link ret_links[OS_ATTACHMENTS_MAX],
                           size_t *ret_n) MUST_USE;

enum os_connection_kind { OS_CONNECT_NFS, OS_CONNECT_ISCSI, OS_CONNECT_LOCAL };

struct os_portal {
    char address[OS_NAME_SIZE]; /* "10.0.0.5:3260" */
    char iqn[256];
    unsigned lun;
};

/* How a host reaches the volume. Nothing in it can be taken for an option by a program, and names are no paths. */
struct os_connection {
    enum os_connection_kind kind;
    char export[OS_NAME_SIZE * 2]; /* NFS: "host:/folder" */
    char file[OS_NAME_SIZE];       /* NFS: name in the export, a raw image */
    char options[OS_NAME_SIZE];    /* NFS: of mount, "vers=4.1,hard"; may be "" */
    char path[OS_NAME_SIZE * 2];   /* local: absolute */
    struct os_portal portals[OS_PORTALS_MAX];
    size_t n_portals;
    char chap_user[256], chap_password[256]; /* "": none. A secret */
};
/* The answer that has an attachment. ERR_UNSUPPORTED: a kind of connection that this program cannot make. */
struct err *os_connection_parse(const json_t *body, struct os_link *ret_link,
                                struct os_connection *ret_connection) MUST_USE;
/* The attachment alone, which has no connection (yet). */
struct err *os_link_parse(const json_t *body, struct os_link *ret_link) MUST_USE;

/* ---- servers ---- */

/* Those of a list that have this IP address, and the first of them. */
struct err *os_servers_match(const json_t *body, const char *address, char ret_id[OS_ID_SIZE],
                             size_t *ret_n) MUST_USE;
/* "ACTIVE", "SHUTOFF", ... */
struct err *os_server_status(const json_t *body, char ret_status[OS_NAME_SIZE]) MUST_USE;
/* The id in what a server is told of itself (meta_data.json). */
struct err *os_server_id(const json_t *meta_data, char ret_id[OS_ID_SIZE]) MUST_USE;
bool os_id_is_sane(const char *id);

/* ---- identity ---- */

struct os_endpoint {
    char *type, *interface, *region, *url;
};

/* A token's companions. */
struct os_catalog {
    uint64_t expires_us; /* since 1970 */
    struct os_endpoint *all;
    size_t n, cap;
};
void os_catalog_done(struct os_catalog *c);
#define CLEANUP_OS_CATALOG CLEANUP(os_catalog_done)

struct err *os_catalog_parse_v3(const json_t *body, struct os_catalog *ret_catalog) MUST_USE;
/* *ret_token: printable, may go into a header; the caller frees it. */
struct err *os_catalog_parse_v2(const json_t *body, struct os_catalog *ret_catalog,
                                char **ret_token) MUST_USE;
/* The address of the first of `types` (ends with NULL) that the region has; NULL: none. `region` NULL: whichever is first. Without
 * a slash at its end; lives as long as the catalogue. */
const char *os_catalog_find(const struct os_catalog *c, const char *const *types,
                            const char *region, const char *interface);
/* The regions that there are, for people: "A, B". The caller frees it. */
char *os_catalog_regions(const struct os_catalog *c);
/* "2026-01-31T12:00:00.000000Z", also with an offset; microseconds since 1970. */
bool os_time_parse(const char *text, uint64_t *ret_us);

/* ---- versions ---- */

/* The highest microversion of API 3 ("3.71" is 71) that the service offers; 0: none. */
struct err *os_minor_parse(const json_t *body, unsigned *ret_minor) MUST_USE;
