/* The xtremio backend's own shape. What is where:
 *
 *   the array                                  volumes, told by their names; initiator groups, one a node
 *   <state_dir>/xtremio/marks/DATASET/mark     ownership marks, written by storage.c
 *
 * A volume is named block-DATASET-CLUSTER (the first 12 digits of the cluster's id). Names are unique on an array, so a
 * dataset has one volume, whatever is lost or asked for twice, and no hint is needed to find it. One of Flocker 1
 * (block-DATASET in the folder, nowadays tag, /Volume/CLUSTER-ID) counts as long as there is no other. */
#pragma once

#include "drivers/driver.h"
#include "drivers/notes.h"
#include "drivers/wait.h"
#include "drivers/xtremio/disk.h"
#include "drivers/xtremio/xms.h"

#include <pthread.h>

#define XTREMIO_VOLUME_NAME_SIZE 65

struct xtremio {
    char *group;     /* initiator group of this node: its instance id */
    char *host_root; /* "" or a folder */
    enum xtremio_protocol protocol;
    bool login, multipath_told, multipath;
    struct uuid node, cluster, shared;
    struct http_client *http;
    struct xms *xms;
    struct notes notes;
    pthread_mutex_t lock;
    unsigned next_lun; /* to try next: one that was freed just now is not taken again */
};

/* Waiting for what is nearly always so at the second look (the array answers when a thing is done, and so does the kernel): as
 * wait_for(), with shorter pauses at first. */
struct wait xtremio_wait_for(unsigned seconds);

/* ---- looking (volume.c) ---- */

/* Pure. */
void xtremio_volume_name(const struct uuid *dataset, const struct uuid *cluster,
                         char ret[XTREMIO_VOLUME_NAME_SIZE]);
/* Whose volume is that? false: none of this cluster's. */
bool xtremio_volume_dataset(const struct xtremio_volume *v, const struct uuid *cluster,
                            struct uuid *ret_dataset);

/* The dataset's volume; *ret_found false: there is none. */
struct err *xtremio_find(struct xtremio *x, struct xms_try *t, const struct uuid *dataset,
                         struct xtremio_volume *ret, bool *ret_found) MUST_USE;
/* The map to this node's group, or NULL; one to another, or NULL. */
const struct xtremio_map *xtremio_mine(const struct xtremio *x, const struct xtremio_volume *v);
const struct xtremio_map *xtremio_others(const struct xtremio *x, const struct xtremio_volume *v);
struct err *xtremio_inspect(void *cookie, const struct uuid *dataset,
                            struct volume_state *v) MUST_USE;
struct err *xtremio_list(void *cookie, struct volume_state **ret_states, size_t *ret_n) MUST_USE;
struct err *xtremio_create(void *cookie, const struct uuid *dataset, uint64_t size) MUST_USE;
/* Also while it is attached here and in use. */
struct err *xtremio_grow(void *cookie, const struct uuid *dataset, uint64_t size) MUST_USE;
struct err *xtremio_destroy(void *cookie, const struct uuid *dataset) MUST_USE;

/* ---- this node's initiator group (group.c) ---- */

/* Finds or makes it; `wanted` is its name when there is none yet. The caller frees *ret_group. */
struct err *xtremio_group_ensure(struct xtremio *x, const char *wanted, char **ret_group) MUST_USE;
/* The group of another node; NULL when no initiator has its name. The caller frees it. */
struct err *xtremio_group_of(struct xtremio *x, const struct uuid *node, char **ret_group) MUST_USE;

/* ---- attaching (attach.c) ---- */

struct err *xtremio_attach(void *cookie, const struct uuid *dataset) MUST_USE;
struct err *xtremio_detach(void *cookie, const struct uuid *dataset) MUST_USE;
struct err *xtremio_detach_from(void *cookie, const struct uuid *dataset,
                                const struct uuid *node) MUST_USE;
struct err *xtremio_device(void *cookie, const struct uuid *dataset, char **ret_path) MUST_USE;
