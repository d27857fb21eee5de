/* What the control service and an agent tell each other. Both directions carry states, not commands: a newer
 * value replaces an older one, any message may be repeated. The wire form is in src/proto. */
#pragma once

#include "model/container.h"
#include "model/dataset.h"
#include "model/reason.h"
#include "model/sighting.h"
#include "model/volume.h"

#define AGENT_PROTOCOL_VERSION 1u

/* What a node is to do about one dataset. */
enum role {
    ROLE_NONE,    /* nothing is asked; whatever is there stays as it is */
    ROLE_OWNER,   /* may write at `epoch`; create it unless born; mount it once born */
    ROLE_SOURCE,  /* owner, and copies to `peer` while it writes */
    ROLE_RELEASE, /* stop writing for ever at `epoch`, ship the final snapshot to `peer` */
    ROLE_RECEIVE, /* take snapshots of `transfer` from `peer` */
    ROLE_KEEP,    /* keep what is here, use nothing (a released copy until the new owner has mounted) */
    ROLE_DROP,    /* not an owner any more: remove what was gained under numbers <= `number` */
    ROLE_DESTROY, /* deleted: destroy the data, whoever held it, up to `number` */
    ROLE_REPLICA, /* released, and not needed any more but for moving back: of what was gained under numbers <= `number`
                   * only the snapshot `keep` stays, and nobody uses it */
    ROLE_MAX,
    ROLE_INVALID = -1,
};

struct order {
    struct uuid dataset;
    uint64_t revision; /* of the dataset's record in the store */
    enum role role;
    uint64_t epoch;    /* OWNER, SOURCE, RELEASE */
    bool born;         /* OWNER: false = create and report, do not mount */
    uint64_t compare;  /* OWNER: compare `keep` with what `peer` has, somebody asked for it; REPLICA: `peer` may compare; 0 = no */
    char *keep;        /* REPLICA, and OWNER, SOURCE, RELEASE while there is one: the snapshot that both keep; or NULL */
    char *base;        /* OWNER: promote exactly this snapshot, unless marked owned at `epoch`; or NULL */
    uint64_t transfer; /* SOURCE, RELEASE, RECEIVE */
    struct uuid peer;  /* SOURCE, RELEASE: the destination. RECEIVE: the source. With `compare`: the other one */
    char *peer_host;   /* address of the peer's mover; NULL when unknown */
    uint16_t peer_port;
    uint64_t number;   /* DROP, DESTROY, REPLICA, RECEIVE, KEEP: what came under numbers above it stays as it is. A control service of
                        * before says 0 with RECEIVE, and sometimes with KEEP: then nothing is known of that */
    struct uuid *fenced; /* OWNER, SOURCE, RELEASE: nodes that are off; attachable storage is taken away from them. Owned */
    size_t n_fenced;
    uint64_t maximum_size;
    struct metadata metadata;
};

#define ORDER_MAX_FENCED 64 /* more are not told */
void order_add_fenced(struct order *o, const struct uuid *node); /* no effect when there are as many as can be told */
void order_done(struct order *o);
void order_copy(struct order *to, const struct order *from); /* `to` is overwritten, not freed */
bool order_same(const struct order *a, const struct order *b); /* revision is not compared */
/* Two orders that are not the same have different digests (XXH3, 128 bits; not made against malice). */
struct digest {
    uint64_t low, high;
};
struct digest order_digest(const struct order *o);

/* What a node is to do about one container. A container without an order and with this cluster's label is
 * stopped and removed. */
enum container_action {
    CONTAINER_PREPARE, /* have the image here; do not start */
    CONTAINER_RUN,     /* keep it running, by its restart policy, on its mounted dataset */
    CONTAINER_ACTION_MAX,
    CONTAINER_ACTION_INVALID = -1,
};

struct container_order {
    enum container_action action;
    struct container *config; /* owned */
    bool hold; /* RUN: as long as it has not been started, do not, because of what it depends on; prepare the image */
};

void container_order_done(struct container_order *o);

/* How a comparison of a replica with the owner's snapshot went. */
enum comparison_end {
    COMPARISON_RUNS,
    COMPARISON_EQUAL,
    COMPARISON_DIFFERS, /* what the replica's node had of it is deleted */
    COMPARISON_FAILED,  /* nothing is known; the text says why */
    COMPARISON_END_MAX,
};

struct compared {
    uint64_t number; /* order.compare */
    enum comparison_end end;
    char *text; /* of DIFFERS and FAILED; else NULL */
};

/* An external port of a container that runs, or is to run, on another node: connections to it are to go there. A node is told no
 * route for what runs on itself; its container engine publishes that. */
struct port_route {
    uint16_t port;    /* never 0; no two routes of a node have the same */
    struct uuid node; /* where it leads, and ... */
    char *host;       /* ... its address, as that node's hello told it; NULL: it has not been here since the control service
                       * started, and the route stays as it was */
    char *container;
};

void route_done(struct port_route *r);
void route_copy(struct port_route *to, const struct port_route *from); /* `to` is overwritten, not freed */
bool route_same(const struct port_route *a, const struct port_route *b);

/* What a node says about its routes as a whole; sent when it changes. */
struct routes_report {
    uint32_t ports; /* so many lead elsewhere */
    struct reason reason;
};

/* How much of its storage there is, in bytes; `total` 0: it is not known, or the storage is not the node's own. */
struct space {
    uint64_t total, free;
};

/* What a node says about one dataset; sent when it changes. The control service keeps a million of these. */
struct report {
    struct volume_state volume; /* also says of which dataset */
    uint64_t gone;       /* DROP or DESTROY of this number (and all below) is done; 0 = none */
    uint64_t copied;     /* this transfer's last increment was small: ready for the release; 0 = none */
    uint64_t received;   /* this node has, durably and checked, of this transfer ... */
    char *received_snapshot; /* ... this snapshot (the newest); NULL = none */
    uint64_t bytes_sent; /* of the present transfer */
    uint64_t bytes_total; /* estimate; 0 = unknown */
    struct compared *compared; /* OWNER: how the comparison of the order ended; NULL = there is none, or it runs; owned */
    bool space_wanted;    /* REPLICA: this node is short of space, and the replica is to end */
    struct reason reason;
};

void compared_done(struct compared *c);
void report_done(struct report *r);
void report_copy(struct report *to, const struct report *from); /* `to` is overwritten, not freed */

/* What a node says about one container; sent when it changes. */
struct container_report {
    char *name;
    enum container_run run;
    bool image_ready;
    uint64_t created; /* of the configuration that runs */
    bool ended; /* RUN was ordered of that configuration, and it has ended for good: with status 0, some time ago, by itself, and its
                 * restart policy does not start it again. What the order says to have ended is EXITED where nothing is of it */
    enum container_health health;
    bool has_exit_code; /* it has run, and does not now */
    int exit_code;
    struct reason reason;
};

void container_report_done(struct container_report *r);

/* Of which datasets a node can keep replicas, and knows the orders for it. */
enum replica_support {
    REPLICAS_NONE,     /* also: an agent that is older than they are */
    REPLICAS_NO_LIMIT, /* without maximum_size: on this storage a snapshot that is kept counts against it */
    REPLICAS_ALL,
    REPLICA_SUPPORT_MAX,
};

/* First message of a session, from the agent. */
struct hello {
    uint32_t protocol;
    struct uuid node; /* must equal the certificate's */
    struct uuid era;  /* boot id */
    char *version;
    char *host; /* address under which the node is reached */
    uint16_t mover_port;
    bool routes;            /* it can be told routes */
    bool volumes;           /* it tells uses, makes calls, and wants the catalogue (model/volume_call.h) */
    enum storage_kind storage;
    char *backend;          /* "btrfs", ... */
    enum replica_support replicas;
    bool compares; /* it knows orders with `compare` */
    bool
        extended; /* knows the settings of container_is_extended(); an older agent would start without them */
    bool more_volumes; /* the same of container_has_more_volumes() */
    bool grows;        /* attachable: its storage can make a volume larger */
    struct uuid
        shared_by;     /* attachable: nodes with the same value see the same storage; nil = local */
    bool lists; /* it can list the storage for all nodes with the same `shared_by`, and understands what another saw */
    bool calls; /* it counts calls of the storage's API, and takes a share of them */
    struct uuid store; /* store this node obeys; nil = none yet */
    struct uuid generation; /* the store's life (model/history.h) in which ... */
    uint64_t seen_revision; /* ... this, the highest revision obeyed, was seen */
};

void hello_done(struct hello *h);

/* First message of a session, from the control service. */
struct welcome {
    uint32_t protocol;
    struct uuid store;
    uint64_t revision; /* of the store, at the time of the session's start */
    struct uuid generation; /* the store's present life */
    struct uuid known;      /* the generation that the hello told, and ... */
    uint64_t known_until;   /* ... up to which revision this store shares it; 0 = not at all */
    bool routes;            /* it tells routes, and takes reports of them */
    bool volumes;           /* it takes uses and calls, and tells the catalogue */
    bool space;             /* it takes reports of the storage's space */
    bool calls;             /* it hands out shares of calls, and takes reports of them */
};
