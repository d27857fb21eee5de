/* The agent's brain: what this node is told, what it sees, what it does next, what it says about it.
 *
 * A pure state machine like the engine: inputs are calls, what is to be done comes out as effects. One step at a time a
 * dataset and a container; a stuck one delays no other; each has its own back-off and reason. One thread at a time. */
#pragma once

#include "base/err.h"
#include "base/now.h"
#include "base/random.h"
#include "model/agent.h"

struct node;

enum step_kind {
    STEP_LIST_VOLUMES, /* outcome: volumes; storage_list(), later storage_list_again() */
    STEP_OBSERVE,      /* of one dataset; so is the outcome of every step below up to FORBID */
    STEP_CREATE,
    STEP_CLAIM,
    STEP_PROMOTE,
    STEP_MOUNT,
    STEP_UNMOUNT,
    STEP_SNAPSHOT,
    STEP_SEND,
    STEP_VERIFY, /* the peer has `snapshot`: compare its content with what is here */
    STEP_RELEASE,
    STEP_PRUNE,
    STEP_DEMOTE, /* remove the volume; `snapshot` stays */
    STEP_GROW,   /* make it as large as maximum_size says */
    STEP_DROP,
    STEP_DESTROY,
    STEP_FORBID, /* the mover must not take the transfer any more, and a running stream has ended */
    STEP_LIST_CONTAINERS, /* outcome: containers */
    STEP_IMAGE,           /* have the image here: look, pull when missing */
    STEP_START,
    STEP_STOP,   /* stop and remove */
    STEP_SPACE,  /* outcome: space. Only after a list of volumes */
    STEP_ROUTES, /* let the ports in `routes` lead where they are to, and no others */
    STEP_MAX,
};

const char *step_name(enum step_kind k);

/* One thing to do on this node. */
struct step {
    uint64_t id;
    enum step_kind kind;
    struct uuid dataset;
    uint64_t epoch;
    uint64_t transfer;
    char snapshot[SNAPSHOT_NAME_SIZE]; /* PROMOTE, SNAPSHOT, SEND, VERIFY, RELEASE, DEMOTE; PRUNE: keep this one ("" = none) ... */
    char keep[SNAPSHOT_NAME_SIZE];     /* PRUNE: ... and this one, likewise */
    uint64_t maximum_size;
    struct metadata metadata; /* CREATE; owned */
    struct uuid peer;         /* SEND, VERIFY */
    char *peer_host;          /* SEND, VERIFY; owned */
    uint16_t peer_port;
    struct container *container; /* IMAGE, START; owned */
    char *name;                  /* STOP; owned */
    struct uuid *fenced;         /* MOUNT: nodes that are off, and may not keep the volume attached; owned */
    size_t n_fenced;
    bool pull;                   /* IMAGE: it is known to be missing */
    bool asked;                  /* VERIFY: of a replica, and somebody asked; `transfer` is the comparison's number */
    bool final;                  /* SEND: the last one; its container is stopped */
    struct port_route *routes;        /* ROUTES; owned. Without a host: as it is now */
    size_t n_routes;
    bool again;                  /* LIST_VOLUMES: not for the first time; `known` is what is known of attachable storage: */
    bool here_only;              /* ... and the backend is not asked: another node lists it for all, or it is not time yet */
    struct volume_state *known;  /* owned */
    size_t n_known;
    char **names;                /* START: other applications that answer on this node's address; owned */
    size_t n_names;
};

void step_done(struct step *s);

/* How a step went. Everything is copied by node_outcome(). */
struct outcome {
    uint64_t step;
    const struct err *error;           /* NULL = well */
    bool observed;                     /* `volume` says what is there now, also after an error */
    struct volume_state volume;        /* dataset steps */
    const struct volume_state *volumes; /* LIST_VOLUMES */
    size_t n_volumes;
    struct space space;                       /* LIST_VOLUMES, SPACE */
    const struct container_state *containers; /* LIST_CONTAINERS */
    size_t n_containers;
    const char *left_out; /* ROUTES, when it went well: what is not routed on purpose, or NULL */
};

/* What the agent keeps on disk about the store that it obeys (design section 6, rule 0). */
struct node_memory {
    struct uuid store;      /* nil = none yet */
    struct uuid generation; /* the store's life (model/history.h) in which ... */
    uint64_t seen_revision; /* ... this, the highest revision obeyed, was seen */
};

enum node_effect_kind {
    NODE_STEP,    /* run `step` on a worker, then node_outcome() */
    NODE_CANCEL,  /* end the running step `step_id` early */
    NODE_PERSIST, /* write `memory` durably, then node_persisted() */
    NODE_ANNOUNCE, /* the mover may take `transfer` of `dataset` from `peer`; `only_compare`: compare, not send */
    NODE_REPORT,      /* to the control service, in the present session: ... */
    NODE_REPORT_GONE, /* nothing of `dataset` is here and nothing is asked about it */
    NODE_CONTAINER_REPORT,
    NODE_CONTAINER_GONE,
    NODE_ROUTES_REPORT,
    NODE_SPACE_REPORT,
    NODE_SIGHTING,           /* this node lists the storage for all: one volume that is not as it told before; ... */
    NODE_SIGHTINGS_COMPLETE, /* ... and the end of one list */
    NODE_REPORTS_COMPLETE, /* ... the first full state was sent; again when `storage_unknown` is over */
};

struct node_effect {
    enum node_effect_kind kind;
    struct step step;
    uint64_t step_id;
    struct node_memory memory;
    struct uuid dataset;
    uint64_t transfer;
    struct uuid peer;
    struct report report;
    struct container_report container_report;
    struct routes_report routes_report;
    struct space space;
    struct sighting sighting;
    char *name;
    bool only_compare;
    bool storage_unknown; /* it has not answered yet: more may be there than was reported */
    struct node_effect *next;
};

/* Decides what the inputs since the last call have changed. The oldest effect, or NULL; free with node_effect_free(). */
struct node_effect *node_next(struct node *n);
struct node_effect *node_effect_free(struct node_effect *f);

/* When a move has copied enough while the source writes (agent.yml `move`). */
struct copy_limits {
    /* After so many streams in a row the hand-off begins in any case but that of pause_us. At least 2: the first copy says
     * nothing about how fast the volume changes. */
    unsigned rounds;
    uint64_t small_us; /* an increment that took no longer is small: the hand-off begins */
    uint64_t pause_us; /* while increments take longer and shrink no more there is no hand-off */
    bool verify;       /* before it the copy is compared with the source, and increments follow once more */
};

#define COPY_LIMITS_DEFAULT                                                                        \
    (struct copy_limits) { .rounds = 8, .small_us = 300 * USEC_PER_MSEC, .pause_us = 60 * USEC_PER_SEC }

struct node_config {
    struct uuid era;
    enum storage_kind storage;
    struct random random;
    struct copy_limits copy;   /* rounds 0: all the defaults */
    struct node_memory memory; /* as last persisted */
    uint64_t resync_us;        /* how often everything is looked at again, as a safety net; 0 = every 5 minutes */
    bool shares_lists;         /* lists of the storage name the hosts (driver.h), so that one node can list it for all */
};

struct node *node_new(const struct node_config *config);
struct node *node_free(struct node *n);
/* Asks for the first look at storage and containers. */
void node_start(struct node *n, struct now now);

/* A session with the control service: `welcome`, orders, orders_complete, more orders. */
void node_session_up(struct node *n, struct now now, const struct welcome *welcome);
void node_session_down(struct node *n, struct now now);
void node_order(struct node *n, struct now now, const struct order *order); /* copied */
void node_order_none(struct node *n, struct now now, const struct uuid *dataset);
void node_container_order(struct node *n, struct now now, const struct container_order *order); /* copied */
void node_container_none(struct node *n, struct now now, const char *name);
void node_route(struct node *n, struct now now, const struct port_route *route); /* copied */
void node_route_none(struct node *n, struct now now, uint16_t port);
void node_orders_complete(struct node *n, struct now now);

/* Who lists the shared storage. Ends with the session. */
void node_list_order(struct node *n, struct now now, const struct list_order *order);
/* What the node that lists the storage saw of a volume, from this node's point of view. */
struct node_sighting {
    struct uuid dataset;
    bool present;
    struct where_attached attached;
    uint64_t size;
};
void node_seen(struct node *n, struct now now, const struct node_sighting *seen);

/* Is the dataset mounted here to stay: owned and mounted by an order to use it at `epoch` or a later one, and nothing is under way that
 * takes it away? Epoch 0: as it looks, whatever the orders. */
bool node_volume_mounted(const struct node *n, const struct uuid *dataset, uint64_t epoch);

void node_outcome(struct node *n, struct now now, const struct outcome *outcome);
void node_persisted(struct node *n, struct now now, const struct node_memory *memory);
/* Something about the dataset changed from outside a step (the mover received a snapshot): look again. */
void node_volume_changed(struct node *n, struct now now, const struct uuid *dataset);
/* The storage had no room for something: replicas are to make some. */
void node_space_wanted(struct node *n, struct now now);
/* Somebody changed the packet filter: look whether the routes are still there. */
void node_routes_changed(struct node *n, struct now now);
/* A container started, died or went away, or the engine came or went: look again. */
void node_containers_changed(struct node *n, struct now now);
/* A running STEP_SEND has sent so much, or a STEP_IMAGE fetched so much. */
void node_progress(struct node *n, struct now now, uint64_t step, uint64_t bytes, uint64_t total);

void node_tick(struct node *n, struct now now);
uint64_t node_deadline(const struct node *n); /* mono_us; USEC_NEVER = nothing is due */

/* For tests and diagnostics: who lists the storage; the store this node obeys now is not the one it should (rule 0). */
enum list_duty node_list_duty(const struct node *n);
bool node_store_refused(const struct node *n);
/* ... only because the hello of this session told what was remembered before the last node_persisted(). Ask after
 * node_session_up() and node_persisted(), and begin a new session when it is so. */
bool node_hello_is_outdated(const struct node *n);
