/* A dataset: what the user wants of it, and who may write to it (design section 6). This whole record is
 * durable in the store. Plain values; not thread-safe. */
#pragma once

#include "base/uuid.h"
#include "model/volume.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DATASET_MIN_SIZE 67108864u /* contract section 1.2 */
#define DATASET_SIZE_STEP 1024u
#define METADATA_MAX_ENTRIES 16
#define METADATA_PROFILE "clusterhq:flocker:profile"
#define METADATA_MAX_CHARS 256 /* characters (code points) of a key or value */

struct metadata_entry {
    char *key;
    char *value;
};

struct metadata {
    struct metadata_entry *entries; /* in the order given; keys unique */
    size_t n;
};

enum transfer_phase {
    TRANSFER_COPY,    /* snapshot and increments flow while the source writes */
    TRANSFER_RELEASE, /* the source is ordered to stop writing, for ever at this epoch */
    TRANSFER_PHASE_MAX,
    TRANSFER_PHASE_INVALID = -1,
};

/* A move in progress. */
struct transfer {
    uint64_t id;    /* from the cluster-wide counter; 0 = no transfer */
    uint64_t epoch; /* the source's, which it ends */
    struct uuid source;
    struct uuid destination;
    enum transfer_phase phase;
};

/* The copy that an earlier owner keeps, read-only, so that moving back ships only the difference. */
struct replica {
    struct uuid node;              /* one of the holders; never the owner */
    uint64_t until_us;             /* wall clock: it ends then */
    char base[SNAPSHOT_NAME_SIZE]; /* all that it is: the snapshot from which the owner began, who keeps it, too */
    uint64_t made_us;              /* wall clock: of that moment are the data in it; 0 = not known */
};

/* What is left of owners that were fenced. */
struct fenced {
    struct uuid *nodes; /* they, in the order of it; each a holder that has not confirmed since that nothing of it is left */
    size_t n_nodes;     /* never 0 */
    uint64_t freed;     /* the last of them is fenced, and nobody got the dataset since: the epoch at which it owned; 0 = not so */
    uint64_t freed_us;  /* wall clock: since when */
    uint64_t transfer;  /* the move that was on its way then; 0 = none; ... */
    struct uuid destination; /* ... to here */
};

/* Where room is looked for, a dataset without maximum_size counts as one of so many bytes. */
#define DATASET_GUESSED_SIZE (1ull << 30)

struct dataset {
    struct uuid id;
    uint64_t revision; /* of the store, when this record was last changed */

    /* Wanted by the user. */
    struct uuid primary;
    /* There may be a million of these: flags lie together. */
    bool deleted;
    bool purge;   /* deleted, and to be forgotten once nothing of it is left */
    bool dropped; /* not configured any more, but not deleted: hidden, unmounted, its data stay until it is created again */
    bool born;     /* data exist; never create it again */
    bool recalled; /* the owner was told to release and then not to; it has not confirmed that yet */
    uint64_t deleted_us; /* wall clock: when the deletion was asked for; 0 = not, or not known */
    uint64_t maximum_size; /* bytes; 0 = not limited */
    struct metadata metadata;

    /* Who may write. */
    struct uuid owner; /* nil = nobody */
    uint64_t epoch;    /* fencing token: from the cluster-wide counter, never used again */
    char *base;        /* snapshot that the owner must start from, or NULL */
    uint64_t tombstone; /* number of the delete order; 0 = not ordered yet */
    uint64_t number;    /* highest number given out for this dataset: epoch, transfer or tombstone */
    struct uuid *holders; /* every node that holds, or may hold, bytes */
    size_t n_holders;
    struct transfer transfer;
    struct replica *replica; /* NULL = none. There may be a million datasets, and most have none */
    struct fenced *fenced;   /* likewise */
};

struct dataset *dataset_new(struct uuid id);
struct dataset *dataset_copy(const struct dataset *d);
struct dataset *dataset_free(struct dataset *d); /* accepts NULL; returns NULL */

bool dataset_has_holder(const struct dataset *d, const struct uuid *node);
void dataset_add_holder(struct dataset *d, const struct uuid *node); /* no effect when listed */
void dataset_remove_holder(struct dataset *d, const struct uuid *node);
bool dataset_is_replica(const struct dataset *d, const struct uuid *node); /* is its replica there? */

/* Was the node fenced as its owner, and may have something of it still? */
bool dataset_is_fenced(const struct dataset *d, const struct uuid *node);
void dataset_add_fenced(struct dataset *d, const struct uuid *node); /* a holder; becomes the last of them */
void dataset_remove_fenced(struct dataset *d, const struct uuid *node); /* no effect when it is none of them */
/* The node that owned it last, when nobody does since that was fenced; else NULL. */
const struct uuid *dataset_freed_from(const struct dataset *d);
void dataset_end_freed(struct dataset *d); /* it has an owner; no effect when it was not freed */

void metadata_copy(struct metadata *to, const struct metadata *from); /* `to` must be empty */
void metadata_done(struct metadata *m);
bool metadata_same(const struct metadata *a, const struct metadata *b);
const char *metadata_get(const struct metadata *m, const char *key); /* NULL when absent */
