/* A node's container engine. Containers that we make carry the labels below; others are never touched.
 * Functions ending in _sync block and run on workers; all are thread-safe. */
#pragma once

#include "base/err.h"
#include "model/container.h"

#define CONTAINER_PREFIX "flocker--"                    /* name in the engine = prefix + name */
#define CONTAINER_LABEL_CLUSTER "io.flocker.cluster"    /* store id of the control service */
#define CONTAINER_LABEL_NAME "io.flocker.container"
#define CONTAINER_LABEL_CREATED "io.flocker.created"    /* `created` of the configuration it was made from */
#define CONTAINER_LABEL_ERA "io.flocker.era"            /* boot id under which it was made */

struct container_engine;

/* Only remembers the socket path; never fails. */
struct container_engine *container_engine_new(const char *socket_path);
struct container_engine *container_engine_free(struct container_engine *ce); /* returns NULL */

/* All containers, in any state, with our labels and this cluster id. The caller frees each element with
 * container_state_done() and the array with free(). ERR_UNAVAILABLE: the engine does not answer. */
struct err *container_engine_list_sync(struct container_engine *ce, const struct uuid *cluster,
                                       struct container_state **ret_states, size_t *ret_n) MUST_USE;

/* Is the image here? */
struct err *container_engine_has_image_sync(struct container_engine *ce, const char *image,
                                            bool *ret_present) MUST_USE;
/* Fetches it. ERR_NOT_FOUND: the registry has no such image; ERR_UNAVAILABLE: no registry or engine. */
struct err *container_engine_pull_sync(struct container_engine *ce, const char *image,
                                       const volatile bool *cancel) MUST_USE;

struct container_start {
    const struct container *config;
    struct uuid cluster;
    struct uuid era;
    const char *volume_path; /* host path bound to config->mountpoint, or NULL */
    const char *host;        /* this node's address, for links (contract section 6.4) */
};

/* Makes the container (an exited one of ours by that name is replaced) and starts it, engine restart policy "no".
 * No effect when it runs already with the same `created`. ERR_NOT_FOUND: image missing;
 * ERR_BUSY: a port is taken (text names it); ERR_EXISTS: a foreign container has the name; ERR_INVALID: the engine
 * refuses the settings. */
struct err *container_engine_start_sync(struct container_engine *ce,
                                        const struct container_start *start) MUST_USE;
/* Stops it by the image's stop signal, waits at most `timeout_s`, then kills it; removes it; returns when it is gone
 * and no process of it is left. No effect when absent or not ours (label `cluster`). */
struct err *container_engine_stop_sync(struct container_engine *ce, const char *name,
                                       const struct uuid *cluster, unsigned timeout_s) MUST_USE;

/* Starts a thread that calls `changed` (on that thread) whenever one of our containers started, died or went away,
 * and when the engine appeared or disappeared. */
typedef void container_engine_changed_fn(void *cookie);
struct err *container_engine_watch(struct container_engine *ce, container_engine_changed_fn *changed,
                                   void *cookie) MUST_USE;
