/* The powerflex backend's own shape. What is where:
 *
 *   the system                                 volumes, told by their names, which are Flocker 1's (name.h) and unique in it
 *   <state_dir>/powerflex/                     marks and hints (notes.h)
 *
 * One volume a dataset, whatever gets lost: its name is a function of cluster and dataset, and the system gives a name once. What
 * the system says of a volume that is asked for by id or name is true at that moment; its lists are used for lists, and to tell a
 * volume that is gone from one that cannot be looked at. Nothing is remembered but the hints. */
#pragma once

#include "drivers/driver.h"
#include "drivers/notes.h"
#include "drivers/powerflex/gateway.h"
#include "drivers/wait.h"

#include <pthread.h>

#define PFX_UNIT (8ull << 30) /* the system's step of sizes */

struct powerflex {
    char *domain, *pool, *host_root;
    bool thick;
    struct uuid cluster, shared;
    char guid[PFX_GUID_SIZE]; /* of this host's SDC: the name of this machine */
    char system[PFX_ID_SIZE];
    struct http_client *http;
    struct pfx_gateway *gateway;
    struct notes notes;
    pthread_mutex_t lock;
    char sdc
        [PFX_ID_SIZE]; /* the system's id of this SDC; under `lock`. Another one after it was removed and came back */
};

struct pfx_try pfx_try_until(const struct wait *w);

/* ---- looking (volume.c) ---- */

/* The system's id of this host. */
void pfx_self(struct powerflex *p, char ret_sdc[PFX_ID_SIZE]);
/* Asks whether it is still that. */
struct err *pfx_self_check(struct powerflex *p, struct pfx_try *t) MUST_USE;
/* The dataset's volume; *ret_found false: there is none. */
struct err *pfx_find(struct powerflex *p, const struct uuid *dataset, struct pfx_volume *ret,
                     bool *ret_found) MUST_USE;
/* This one as it is now; *ret_found false: gone. */
struct err *pfx_look(struct powerflex *p, struct pfx_try *t, const char *id, struct pfx_volume *ret,
                     bool *ret_found) MUST_USE;
/* ERR_BUSY: who has a volume that is mapped elsewhere. */
struct err *pfx_elsewhere(struct powerflex *p, struct pfx_try *t,
                          const struct pfx_volume *v) MUST_USE;
struct err *pfx_inspect(void *cookie, const struct uuid *dataset, struct volume_state *v) MUST_USE;
struct err *pfx_list(void *cookie, struct volume_state **ret_states, size_t *ret_n) MUST_USE;

/* ---- making and removing (create.c) ---- */

struct err *pfx_create(void *cookie, const struct uuid *dataset, uint64_t size) MUST_USE;
struct err *pfx_destroy(void *cookie, const struct uuid *dataset) MUST_USE;

/* ---- mapping (attach.c) ---- */

struct err *pfx_attach(void *cookie, const struct uuid *dataset) MUST_USE;
struct err *pfx_detach(void *cookie, const struct uuid *dataset) MUST_USE;
struct err *pfx_detach_from(void *cookie, const struct uuid *dataset,
                            const struct uuid *node) MUST_USE;
struct err *pfx_grow(void *cookie, const struct uuid *dataset, uint64_t size) MUST_USE;
struct err *pfx_device(void *cookie, const struct uuid *dataset, char **ret_path) MUST_USE;
