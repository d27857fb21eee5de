/* Why something is not as wanted. Each code is documented in docs/reasons.md with what to do; the API, the
 * command line and the event stream show code, text and advice. */
#pragma once

#include <stdint.h>

enum reason_code {
    REASON_NONE,
    REASON_NODE_DISCONNECTED,        /* the node has no session with the control service */
    REASON_OWNER_DISCONNECTED,       /* the node that may write is silent: no proof that it stopped */
    REASON_DESTINATION_DISCONNECTED, /* the move waits for the destination */
    REASON_LEASE_HELD,
    REASON_IN_USE_BY_CONTAINER,
    REASON_CREATING,
    REASON_MOUNTING,
    REASON_COPYING,
    REASON_RELEASING,
    REASON_PROMOTING,
    REASON_VOLUME_BUSY, /* a process outside Flocker uses the volume; the text names its pid */
    REASON_DATA_MISSING, /* a born dataset is not where it must be */
    REASON_NO_SPACE,
    REASON_STORAGE_ERROR,
    REASON_STORAGE_MISSING, /* pool or root path not there */
    REASON_TRANSFER_FAILED,
    REASON_PEER_UNREACHABLE,
    REASON_BACKEND_MISMATCH, /* source and destination have different storage */
    REASON_CANNOT_MOVE, /* this backend cannot carry data to that node */
    REASON_WAITING_FOR_DATASET,
    REASON_WAITING_FOR_IMAGE,
    REASON_IMAGE_MISSING,
    REASON_IMAGE_PULL_FAILED,
    REASON_PORT_IN_USE,
    REASON_START_FAILED,
    REASON_STOP_FAILED,
    REASON_CONTAINER_EXITED,
    REASON_CRASH_LOOP,
    REASON_NAME_TAKEN, /* a container of that name exists that is not ours */
    REASON_ROUTES_FAILED, /* a node cannot lead connections to the nodes that run the applications */
    REASON_ENGINE_UNAVAILABLE, /* Docker does not answer */
    REASON_STORE_UNKNOWN,      /* the control service has another or an older store: flocker-agent --adopt */
    REASON_DELETING,
    REASON_WAITING_FOR_HOLDERS, /* the delete is done when every listed node has confirmed */
    REASON_STOPPING,
    REASON_RECORDING,    /* a change of the dataset is on its way into the store */
    REASON_STORE_FAILED, /* the control service cannot write its store */
    REASON_CHANGES_TOO_FAST, /* a volume is written as fast as it can be copied: no hand-off */
    REASON_STORE_RESTORED, /* the store was put back from a copy: somebody who is not here may have the data since */
    REASON_WAITING_FOR_DEPENDENCY, /* a container that this one depends on is not as it must be */
    REASON_NODE_FENCED, /* it is wanted on a node that an operator says is off */
    REASON_DATA_ON_FENCED_NODE, /* nobody else has them */
    REASON_COPY_KEPT, /* a node that was fenced and is back keeps what it had, until somebody says that it is not wanted */
    REASON_NODE_UNHEARD, /* a node that has just come to this store has not told what it has, as its storage does not answer */
    REASON_STORAGE_LIMIT, /* the storage allows no more: volumes on a machine or in an account, changes in a time */
    REASON_CODE_MAX,
    REASON_CODE_INVALID = -1,
};

struct reason {
    enum reason_code code; /* REASON_NONE: all is as wanted */
    char *text;            /* what blocks, on what, or NULL */
    uint64_t since_us;     /* wall clock: since when this code stands */
    uint64_t retry_us;     /* wall clock: next try; 0 = when something changes */
};

const char *reason_code_name(enum reason_code code); /* "lease-held", ... */
enum reason_code reason_code_parse(const char *name);
const char *reason_advice(enum reason_code code); /* what an operator could do; never NULL */

/* Replaces what `r` says; `since_us` is kept while the code stays the same. `text` may be NULL. */
void reason_set(struct reason *r, enum reason_code code, uint64_t wall_us, uint64_t retry_us,
                const char *text);
void reason_copy(struct reason *to, const struct reason *from); /* `to` is overwritten, not freed */
void reason_done(struct reason *r);
