/* Docker volumes: what an agent asks the control service about them, and what it is told. A Docker volume is a dataset whose metadata
 * have a "name". Calls are the one place where an agent asks and waits for an answer; each is idempotent, and may be made again under a
 * new number. What must last is told as state all the same: after each welcome the agent tells all its uses (volume_use). The wire form
 * is in src/proto. Plain values; not thread-safe. */
#pragma once

#include "model/dataset.h"
#include "model/lease.h"
#include "model/reason.h"

#define VOLUME_CALLS_MAX 256u /* of one session, without an answer yet; more wait at the agent */

enum volume_call_kind {
    /* The configured dataset of this name is there, or is made now: `maximum_size`, `metadata`, wanted on the calling node. Two that are
     * asked for at the same time are one. Of one that is there already the settings stay as they are. Answers OK, CREATED, INVALID. */
    VOLUME_CREATE,
    /* Delete the dataset of this name. OK (also when there is none), HELD. */
    VOLUME_REMOVE,
    /* The calling node's lease of the dataset is there and has `mount`; and unless somebody else uses the data, they are wanted here.
     * OK, NOT_FOUND, HELD (by whom: `text`), RELEASING (it is just leaving this node: ask again when the catalogue says that something
     * changed). Only with OK is the lease there, and `epoch` says what to wait for: node_volume_mounted() of core/node.h. */
    VOLUME_USE,
    /* The calling node's lease does not have `mount` any more; without any it goes, unless it was also acquired by the API.
     * OK, also when there is nothing of it. */
    VOLUME_UNUSE,
    VOLUME_CALL_KIND_MAX,
    VOLUME_CALL_KIND_INVALID = -1,
};

struct volume_call {
    uint64_t number; /* the agent's; comes back in the answer; set by agent_volumes_call() */
    enum volume_call_kind kind;
    char *name;          /* all; UNUSE: may be NULL, when `dataset` is not nil */
    struct uuid dataset; /* USE, UNUSE: when known, else nil; it counts more than the name */
    char *mount;         /* USE, UNUSE: 1 to MOUNT_ID_MAX bytes (model/lease.h) */
    uint64_t maximum_size;    /* CREATE; 0 = not limited. A size that no dataset can have is INVALID */
    struct metadata metadata; /* CREATE; also its profile; "name" is added when it is not among them */
};

enum volume_code {
    VOLUME_OK,
    VOLUME_CREATED,
    VOLUME_NOT_FOUND,
    VOLUME_HELD,      /* by another node, or by a container of ours elsewhere; `text` says by whom, since when and how */
    VOLUME_RELEASING, /* it is just leaving the calling node, or being deleted; a later call may go well */
    VOLUME_INVALID,   /* the call can never go well; `text` says why */
    VOLUME_FAILED,    /* not done, and not the caller's fault: the store failed, this agent does not obey the store, ...; `text` */
    VOLUME_AWAY,      /* never on the wire: there is no session, or it ended before the answer came */
    VOLUME_CODE_MAX,
    VOLUME_CODE_INVALID = -1,
};

struct volume_answer {
    uint64_t number;
    enum volume_code code;
    char *text;          /* for people, complete sentences; NULL with OK and CREATED */
    struct uuid dataset; /* CREATE, USE; nil = none */
    uint64_t revision;   /* USE: of the lease */
    uint64_t epoch;      /* USE: what is mounted here as owner at this epoch or a later one, is there to stay as long as the lease
                          * has this mount. (An order's revision cannot say it: a change that leaves the order as it is sends none.) */
};

/* One use: a mount id that the agent has given out, or is about to, and has not taken back. */
struct volume_use {
    struct uuid dataset; /* nil: not known yet, then by ... */
    char *name;          /* NULL when `dataset` is known */
    char *mount;
};

enum volume_holder_kind {
    HOLDER_NONE,
    HOLDER_MOUNTS,    /* a lease with mount ids */
    HOLDER_LEASE,     /* a lease of the API */
    HOLDER_CONTAINER, /* a container of this cluster's configuration */
    HOLDER_KIND_MAX,
    HOLDER_KIND_INVALID = -1,
};

/* The catalogue's entry: what all agents that asked for it know of one configured dataset that has a "name" in its metadata. Of two
 * with the same name (the API allows it) the one with the lower id is the volume. */
struct volume_entry {
    struct uuid dataset;
    char *name;
    struct uuid home;      /* where it is wanted; nil = nowhere */
    char *home_host;       /* NULL = not known */
    struct uuid owner;     /* where its data are; nil = nowhere yet */
    uint64_t maximum_size; /* 0 = not limited */
    char *profile;         /* NULL = none */
    bool born;             /* there are data */
    enum volume_holder_kind holder;
    struct uuid holder_node;
    uint64_t holder_since_us; /* wall clock; 0 = not known */
    char *holder_text;        /* "Docker on node 48bb0baa (10.77.0.11) has it mounted (2 mounts)"; NULL with NONE */
    struct reason reason; /* why it is not where it is wanted */
};

/* What is wrong with a CREATE, for people; NULL = nothing. The caller frees it. */
char *volume_create_check(const struct volume_call *c);

void volume_call_done(struct volume_call *c);
void volume_call_copy(struct volume_call *to, const struct volume_call *from); /* `to` is overwritten, not freed */
void volume_answer_done(struct volume_answer *a);
void volume_use_done(struct volume_use *u);
void volume_entry_done(struct volume_entry *v);
void volume_entry_copy(struct volume_entry *to, const struct volume_entry *from); /* `to` is overwritten, not freed */
const char *volume_code_name(enum volume_code c); /* "held", ... */
