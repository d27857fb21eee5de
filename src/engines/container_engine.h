/* A node's container engine. Containers that we make carry the labels below; others are never
 * touched. Functions ending in _sync block and run on workers; all are thread-safe. */
#pragma once

#include "base/err.h"
#include "model/container.h"

#include <stdatomic.h>
#define CONTAINER_PREFIX "flocker--"                 /* name in the engine = prefix + name */
/* Ours; users' may not begin so (CONTAINER_LABEL_RESERVED). */
#define CONTAINER_LABEL_CLUSTER "io.flocker.cluster" /* store id of the control service */
#define CONTAINER_LABEL_NAME "io.flocker.container"
#define CONTAINER_LABEL_CREATED                                                                    \
    "io.flocker.created"                     /* `created` of the configuration it was made from */
#define CONTAINER_LABEL_ERA "io.flocker.era" /* boot id under which it was made */
#define CONTAINER_LABEL_STOP "io.flocker.stop-timeout" /* seconds; only when the configuration has a stop_grace_ms */
#define CONTAINER_LABEL_SPEC "io.flocker.spec" /* container_spec() of the configuration it was made from */

struct container_engine;

/* Only remembers the socket path; never fails. */
struct container_engine *container_engine_new(const char *socket_path);
/* Ends a watch; no other call may be under way. Accepts NULL; returns NULL. */
struct container_engine *container_engine_free(struct container_engine *ce);

/* All containers, in any state, with our name prefix, our labels and this cluster id. (Labels alone
 * prove nothing: an image made from one of our containers hands them on.) The caller frees each
 * element with container_state_done() and the array with free(). ERR_UNAVAILABLE: the engine does
 * not answer. */
struct err *container_engine_list_sync(struct container_engine *ce, const struct uuid *cluster,
                                       struct container_state **ret_states, size_t *ret_n) MUST_USE;

/* The names of the volumes that running (or paused, or restarting) containers use, whoever made these; some may be there twice. The
 * caller frees each and the array. ERR_UNAVAILABLE: the engine does not answer. */
struct err *container_engine_volumes_sync(struct container_engine *ce, char ***ret_names, size_t *ret_n) MUST_USE;

/* Is the image here? */
struct err *container_engine_has_image_sync(struct container_engine *ce, const char *image,
                                            bool *ret_present) MUST_USE;
/* How far a fetch is: of the layers that the engine has told of so far. Written by the fetching thread; atomic. */
struct pull_progress {
    atomic_uint_least64_t bytes, total; /* total 0 = not known */
};

/* Fetches it, with root's `docker login` state (config.json, `auths`) for its registry.
 * ERR_NOT_FOUND: the registry has no such image (or hides it); ERR_DENIED: it wants a login;
 * ERR_UNAVAILABLE: no registry or engine; ERR_NO_SPACE; ERR_TIMEOUT: nothing moved for ten minutes;
 * ERR_CANCELLED: `cancel` (may be NULL) became true. `progress` may be NULL. */
struct err *container_engine_pull_sync(struct container_engine *ce, const char *image, const atomic_bool *cancel,
                                       struct pull_progress *progress) MUST_USE;

struct container_start {
    const struct container *config;
    struct uuid cluster;
    struct uuid era;
    const char *mount_root; /* below it the datasets of config->volumes are mounted, by their ids */
    const char *host;       /* this node's address, for links (contract section 6.4) and names */
    char *const *names;     /* other applications that answer on that address */
    size_t n_names;
};

/* Makes the container (one of ours by that name that does not run is replaced) and starts it,
 * engine restart policy "no". No effect when it runs already with the same `created`.
 * ERR_NOT_FOUND: image missing; ERR_BUSY: a port is taken (text names it); ERR_EXISTS: a foreign
 * container has the name; ERR_CONFLICT: it runs with another `created` (stop it first), or somebody
 * removed it meanwhile; ERR_INVALID: the engine refuses the settings. A container that could not be
 * started is removed again. */
struct err *container_engine_start_sync(struct container_engine *ce,
                                        const struct container_start *start) MUST_USE;
/* Stops it by its stop signal, waits for the grace it was made with (stop_grace_ms), else `timeout_s`, then kills it; removes it (not
 * its anonymous volumes); returns when it is gone and no process of it is left. No effect when
 * absent or not ours (label `cluster`). ERR_TIMEOUT: the engine did not get it done; whatever is
 * left is still listed. */
struct err *container_engine_stop_sync(struct container_engine *ce, const char *name,
                                       const struct uuid *cluster, unsigned timeout_s) MUST_USE;

/* Starts a thread that calls `changed` (on that thread) whenever one of this cluster's containers
 * started, died or went away, and when the engine appeared (also at first) or disappeared. One
 * watch an engine. `changed` must not call container_engine_unwatch or _free. ERR_CONFLICT: it is
 * being watched already. */
typedef void container_engine_changed_fn(void *cookie);
struct err *container_engine_watch(struct container_engine *ce, const struct uuid *cluster,
                                   container_engine_changed_fn *changed, void *cookie) MUST_USE;
/* Ends the thread; after this `changed` is not called any more. No effect without a watch. */
void container_engine_unwatch(struct container_engine *ce);
