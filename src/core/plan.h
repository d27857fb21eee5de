/* One decision at a time: what a node does next about one dataset or one container, given what it is told and
 * what it sees. Pure functions; the bookkeeping around them is in node.c. */
#pragma once

#include "core/node.h"

/* A dataset's move as far as this node has sent it; lost at a restart, which costs one more increment. */
struct copy_progress {
    uint64_t transfer;     /* 0 = none */
    unsigned round;        /* of the snapshot being made or sent */
    unsigned in_a_row;     /* increments since the last wait */
    uint64_t last_us;      /* how long the last of these took; 0 = none yet */
    bool too_fast;         /* it changes too fast for a hand-off; `why` says so */
    bool verify;           /* the round before this one is to be compared with its copy */
    bool verified;         /* that was done, and they were the same */
    unsigned mismatches;   /* or not: after the second the move stays where it is; `why` says so */
    char why[400];
    uint64_t copied;       /* = transfer once an increment was small */
    uint64_t again_us;     /* mono: next increment while waiting for the release order */
    uint64_t wait_us;      /* how long to wait between those */
    uint64_t final_sent;   /* = transfer once the peer has confirmed the final snapshot */
};

#define COPY_MISMATCHES_MAX 2
#define COPY_AGAIN_US (30 * USEC_PER_SEC)        /* first refresh while waiting; doubles */
#define COPY_AGAIN_MAX_US (600 * USEC_PER_SEC)

struct dataset_view {
    const struct order *order; /* NULL = none */
    const struct volume_state *volume;
    enum storage_kind storage;
    bool live;      /* connected, all orders known, this store is obeyed, what is seen of it is durable */
    bool in_use;    /* a container of ours that uses it exists or is being started */
    uint64_t gone;      /* removals up to this number are done */
    uint64_t compared;  /* this comparison has ended */
    uint64_t announced; /* transfer, or comparison, that the mover accepts for it; 0 = none */
    struct copy_progress *copy;
    const struct copy_limits *limits;
    uint64_t mono_us;
};

struct decision {
    bool act;              /* do `step`; else wait, for `reason` if there is one */
    struct step step;      /* strings in it are owned by the decision's user */
    enum reason_code reason;
    const char *text;      /* static, of the order or of the copy's progress; may be NULL */
    bool stop_containers;  /* those that use the dataset must be stopped first */
    uint64_t wake_us;      /* look again then; 0 = when something changes */
};

/* The transfer, or comparison, for which the mover is to listen to the order's peer; 0 = none. */
uint64_t plan_expected(const struct order *order);
struct decision plan_dataset(const struct dataset_view *v);
/* May containers run on the dataset? */
bool plan_dataset_is_usable(const struct order *order, const struct volume_state *volume);
/* No byte of it is on this node; on attachable storage the volume may be elsewhere. */
bool plan_is_not_here(const struct volume_state *volume, enum storage_kind storage);
/* DROP or DESTROY of order->number is done: nothing that it asks to remove is here. */
bool plan_is_gone(const struct order *order, const struct volume_state *volume,
                  enum storage_kind storage);
/* Highest transfer whose bytes are here as snapshots; 0 = none. */
uint64_t plan_newest_transfer(const struct volume_state *volume);
/* Is it the last one of its transfer, taken when the source had stopped writing? */
bool plan_is_final(const char *snapshot);
/* The newest complete snapshot of the transfer, one of the volume's; NULL when none. */
const char *plan_received(const struct volume_state *volume, uint64_t transfer);
/* A confirmed increment took `took_us`: decides whether that was small enough. */
void plan_copy_sent(struct copy_progress *p, const struct copy_limits *limits, uint64_t took_us,
                    uint64_t mono_us);

/* The copy was compared with the source: it is the same. */
void plan_copy_verified(struct copy_progress *p);
/* It is not, and is gone at the destination: `text` says how. */
void plan_copy_differs(struct copy_progress *p, const char *text);

struct container_view {
    const struct container_order *order; /* NULL = none */
    const struct container_state *state; /* NULL = not here */
    bool known;                          /* the engine was listed at least once */
    bool synced;                         /* all orders are known: what has none is to go */
    bool live;                           /* as in dataset_view */
    bool other_spec;     /* what is here was made from other settings than the order's */
    bool must_stop;      /* one of its datasets is about to leave */
    bool volumes_usable; /* all of them */
    bool image_ready;
    bool pull;           /* the engine said that the image is missing */
    bool revive;         /* died with the engine or the host: start it whatever the policy says */
    unsigned restarts;   /* since it last ran for long */
};

struct decision plan_container(const struct container_view *v);
