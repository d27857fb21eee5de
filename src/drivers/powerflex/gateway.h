/* Calls of the PowerFlex gateway's REST API, 3.x and 4.x. Each blocks until its deadline at the latest, so it runs on a worker; all are
 * thread-safe. A token that has ended is replaced by a new login, once a call. Trouble of theirs and connections that broke are tried
 * again, with growing pauses, for five seconds: nothing here makes a second thing the second time. (A name is given once; what
 * is mapped, unmapped or gone already is refused, and looked at by the caller.) */
#pragma once

#include "drivers/budget.h"
#include "drivers/powerflex/reply.h"
#include "net/http_client.h"

struct pfx_gateway;

struct pfx_gateway_config {
    const char *url; /* "https://gateway:443" */
    const char *user, *password;
    struct http_client *http; /* outlives it, and so does: */
    struct budget *budget;    /* of calls; NULL: no limit */
};

struct pfx_gateway *pfx_gateway_new(const struct pfx_gateway_config *config);
struct pfx_gateway *pfx_gateway_free(struct pfx_gateway *g); /* accepts NULL; returns NULL */

/* How a call went. On an error, `kind` says what the system answered; PFX_TROUBLE also when it did not. */
struct pfx_try {
    uint64_t deadline_us; /* monotonic */
    enum pfx_failure_kind kind;
};

struct err *pfx_system_sync(struct pfx_gateway *g, struct pfx_try *t,
                            char ret_id[PFX_ID_SIZE]) MUST_USE;

struct pfx_pool {
    char domain[PFX_ID_SIZE], id[PFX_ID_SIZE];
    bool zeros;
};
struct err *pfx_pool_sync(struct pfx_gateway *g, struct pfx_try *t, const char *domain,
                          const char *pool, struct pfx_pool *ret) MUST_USE;

struct err *pfx_sdc_sync(struct pfx_gateway *g, struct pfx_try *t, const char *id,
                         struct pfx_sdc *ret) MUST_USE;
struct err *pfx_sdcs_sync(struct pfx_gateway *g, struct pfx_try *t, struct pfx_sdcs *ret) MUST_USE;

/* `sdc` is this host's, of which `here` is told. */
struct err *pfx_volume_sync(struct pfx_gateway *g, struct pfx_try *t, const char *id,
                            const char *sdc, struct pfx_volume *ret) MUST_USE;
struct err *pfx_volumes_sync(struct pfx_gateway *g, struct pfx_try *t, const char *sdc,
                             struct pfx_volumes *ret) MUST_USE;
struct err *pfx_id_of_name_sync(struct pfx_gateway *g, struct pfx_try *t, const char *name,
                                char ret_id[PFX_ID_SIZE]) MUST_USE;

struct err *pfx_create_sync(struct pfx_gateway *g, struct pfx_try *t, const struct pfx_pool *pool,
                            const char *name, bool thick, uint64_t size,
                            char ret_id[PFX_ID_SIZE]) MUST_USE;
/* For one SDC alone: refused when another has it. */
struct err *pfx_map_sync(struct pfx_gateway *g, struct pfx_try *t, const char *volume,
                         const char *sdc) MUST_USE;
struct err *pfx_unmap_sync(struct pfx_gateway *g, struct pfx_try *t, const char *volume,
                           const char *sdc) MUST_USE;
struct err *pfx_resize_sync(struct pfx_gateway *g, struct pfx_try *t, const char *volume,
                            uint64_t size) MUST_USE;
struct err *pfx_remove_sync(struct pfx_gateway *g, struct pfx_try *t, const char *volume) MUST_USE;
