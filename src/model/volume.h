/* What a node has of one dataset: the outcome of looking at its own storage and mounts. */
#pragma once

#include "base/uuid.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SNAPSHOT_NAME_SIZE 64 /* with the NUL; characters [a-z0-9-] */

/* The two kinds of storage (design section 6). */
enum storage_kind {
    STORAGE_LOCAL,      /* bytes live on the node; moving means copying */
    STORAGE_ATTACHABLE, /* bytes live on shared storage; moving means detach and attach */
    STORAGE_KIND_MAX,
    STORAGE_KIND_INVALID = -1,
};

const char *storage_kind_name(enum storage_kind k); /* "local", "attachable" */

enum mark_state {
    MARK_NONE,      /* this node never owned it, or the mark is gone with the storage */
    MARK_OWNED,     /* the volume belongs to `epoch`, it may be mounted at that epoch */
    MARK_PROMOTING, /* `snapshot` is being made the volume of `epoch`; not mountable */
    MARK_RELEASED,  /* final for `epoch` and all below: never writable again */
    MARK_STATE_MAX,
    MARK_STATE_INVALID = -1,
};

/* Ownership as this node last wrote it, durable, beside the data. */
struct volume_mark {
    enum mark_state state;
    uint64_t epoch;
    uint64_t transfer;                 /* RELEASED: by which transfer */
    char snapshot[SNAPSHOT_NAME_SIZE]; /* RELEASED: the final one; PROMOTING: the source */
};

struct volume_state {
    struct uuid dataset;
    /* There may be a million of these in the control service: flags are bits, and the number lies beside them. */
    bool present : 1;  /* local: the writable volume exists. attachable: the backend has the volume */
    bool attached : 1; /* attachable: attached to this node. local: always equal to present */
    bool attached_elsewhere : 1; /* attachable only */
    bool mounted : 1;            /* at its place, /flocker/<dataset_id>, from the right device */
    bool partial : 1;            /* leftovers of something unfinished exist: a receive, promotion, creation, removal */
    unsigned n_snapshots;
    uint64_t size; /* bytes of the limit or device; 0 = unlimited or unknown */
    struct volume_mark mark;
    char (*snapshots)[SNAPSHOT_NAME_SIZE]; /* complete, durable, read-only; oldest first */
    char *device; /* attachable: the block device that is mounted, as it is called here (/dev/loop3); else NULL */
    char *hosts;  /* attachable, of lists only: the backend's names of the machines to which it is attached, with spaces between;
                   * NULL: none, or the backend does not tell (model/sighting.h). Is not reported */
};

void volume_state_done(struct volume_state *v);
void volume_state_copy(struct volume_state *to, const struct volume_state *from); /* `to` is overwritten */
bool volume_state_has_snapshot(const struct volume_state *v, const char *name);
/* true when nothing at all of the dataset is here (a mark alone does not count). */
bool volume_state_is_empty(const struct volume_state *v);
