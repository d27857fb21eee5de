/* The openstack backend's own shape. What is where:
 *
 *   Cinder                                     volumes, told by the metadata of Flocker 1
 *   Nova                                       attaches them, when this host is a server of its
 *   Cinder's attachments                       attach them, when it is not (attach: cinder)
 *   <state_dir>/openstack/...                  notes.h
 *   <state_dir>/openstack-nfs/HASH             where an NFS export of Cinder's is mounted (attach: cinder)
 *
 * From bytes to volumes: reply.c (answers), identity.c (who we are), both pure; cloud.c (calls with a token); volume.c, create.c,
 * attach.c (the verbs), host.c (devices of attachments that this host makes itself), disk.c (which device a volume is),
 * instance.c (which server this is). */
#pragma once

#include "drivers/driver.h"
#include "drivers/notes.h"
#include "drivers/openstack/cloud.h"
#include "drivers/wait.h"

#define OS_GIB ((uint64_t)1 << 30)
#define OS_PROFILES 3u

struct openstack {
    json_t *options; /* those of agent.yml, and what clouds.yaml adds */
    struct os_identity identity;
    struct http_client *http, *near;
    struct os_cloud *cloud;
    char *instance; /* id of the server; with `by_cinder` of this node */
    char *host_root, *nfs_root;
    bool by_cinder;                            /* this host attaches by itself */
    const char *volume_type, *zone;            /* NULL: as Cinder chooses; of the options */
    const char *profiles[OS_PROFILES];         /* volume types by profile; NULL: none */
    uint64_t size_default, size_min, size_max; /* bytes; max 0: no limit of ours */
    struct uuid cluster, node, shared;
    struct notes notes;
    struct budget *budget; /* may be NULL */
};

/* ---- looking (volume.c) ---- */

/* The dataset's volume; *ret_found false: there is none. Of several (which a repeated request, or people, may make) the one that
 * was attached before, then the one of the hint, else the oldest counts. */
struct err *os_find(struct openstack *o, const struct uuid *dataset, struct os_volume *ret,
                    bool *ret_found) MUST_USE;
/* This one as it is now; *ret_found false: gone. */
struct err *os_look_again(struct openstack *o, const char *id, uint64_t deadline_us,
                          struct os_volume *ret, bool *ret_found) MUST_USE;
/* The attachment to this machine, or NULL. */
const struct os_attachment *os_mine(const struct openstack *o, const struct os_volume *v);
/* One to another machine, or NULL. */
const struct os_attachment *os_others(const struct openstack *o, const struct os_volume *v);
/* Whose attachment is this, for people. */
const char *os_holder(const struct os_attachment *a);
/* Does its state say that somebody attaches or detaches it, although it lists no attachment? */
bool os_is_moving(const struct os_volume *v);
struct err *os_inspect(void *cookie, const struct uuid *dataset, struct volume_state *v) MUST_USE;
struct err *os_list(void *cookie, struct volume_state **ret_states, size_t *ret_n) MUST_USE;

/* ---- making and removing (create.c) ---- */

struct err *os_create(void *cookie, const struct uuid *dataset, uint64_t size) MUST_USE;
struct err *os_create_profiled(void *cookie, const struct uuid *dataset, uint64_t size,
                               const char *profile) MUST_USE;
struct err *os_destroy(void *cookie, const struct uuid *dataset) MUST_USE;

struct err *os_grow(void *cookie, const struct uuid *dataset, uint64_t size) MUST_USE;

/* ---- attaching (attach.c) ---- */

struct err *os_attach(void *cookie, const struct uuid *dataset) MUST_USE;
struct err *os_detach(void *cookie, const struct uuid *dataset) MUST_USE;
struct err *os_detach_from(void *cookie, const struct uuid *dataset,
                           const struct uuid *node) MUST_USE;
struct err *os_device(void *cookie, const struct uuid *dataset, char **ret_path) MUST_USE;
/* Nova's word on whether it attaches (or has attached) this volume to this server. */
struct err *os_nova_has(struct openstack *o, const char *volume, uint64_t deadline_us,
                        bool *ret_has) MUST_USE;

/* Of a volume that no server has: ends the attachments that whoever began them did not finish; nobody uses them. ERR_BUSY: a
 * server has it. */
struct err *os_clear_unfinished(struct openstack *o, const char *volume,
                                uint64_t deadline_us) MUST_USE;

/* ---- attachments that this host makes itself (host.c) ---- */

/* The device of the connection, made when it is missing. *ret_path NULL: it is not there yet. */
struct err *os_host_connect(struct openstack *o, const struct os_volume *v,
                            const struct os_connection *c, char **ret_path) MUST_USE;
/* Takes it away again; flushed first. ERR_BUSY: somebody uses it. */
struct err *os_host_disconnect(struct openstack *o, const struct os_volume *v,
                               const struct os_connection *c) MUST_USE;
/* This host's name for iSCSI; *ret_name NULL: it has none. */
struct err *os_host_initiator(const struct openstack *o, char **ret_name) MUST_USE;

/* ---- devices of servers (disk.c) ---- */

/* The device in `root`/sys/block that is this volume, by serial number and size; by name on Xen alone. *ret_path NULL: none. */
struct err *os_disk_find(const char *root, const char *volume, uint64_t size,
                         const char *attached_as, char **ret_path) MUST_USE;

/* ---- which server this is (instance.c) ---- */

/* In this order: compute_instance_id, the config drive, the metadata service, the only active server with an address of ours. */
struct err *os_instance_find(struct openstack *o, char **ret_id) MUST_USE;
