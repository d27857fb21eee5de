/* Shared by the files of the agent's brain; not for others. */
#pragma once

#include "base/backoff.h"
#include "base/hash.h"
#include "base/mem.h"
#include "base/str.h"
#include "core/plan.h"

struct node_dataset {
    struct uuid id;
    bool has_order;
    bool order_stale; /* of an earlier session; goes unless the new one repeats it */
    struct order order;
    bool observed;  /* `volume` is what is there */
    bool listed;     /* by the list that is being compared */
    bool look_again; /* something changed while a step was running */
    struct volume_state volume;
    uint64_t step; /* running; 0 = none */
    enum step_kind step_kind;
    uint64_t step_transfer;
    bool step_asked;
    uint64_t step_started_us;
    bool cancelling;
    bool stop_containers; /* the last decision wants them stopped */
    struct backoff backoff;
    struct copy_progress copy;
    struct compared compared; /* the comparison that was made, or is being made, last; number 0 = none */
    unsigned compare_failures; /* of it, so far */
    uint64_t announced;
    uint64_t gone; /* DROP or DESTROY up to this number is done */
    uint64_t bytes_sent, bytes_total;
    uint64_t wake_us; /* the decision wants to be made again then; 0 = not */
    uint64_t look_us; /* missing data may have come back, or a volume been attached late: look again then; 0 = not */
    uint64_t look_wait_us; /* the latter: the present wait; 0 = it cannot be */
    struct reason reason;
    bool reported; /* in this session */
    struct report last;
    UT_hash_handle hh;
};

struct node_container {
    char *name;
    bool has_order;
    bool order_stale;
    struct container_order order;
    char spec[CONTAINER_SPEC_SIZE];   /* of the order's configuration */
    char *last_words;                 /* of its last run, if that has ended; or NULL */
    struct container *running_config; /* what was started last, to know its volume; or NULL */
    struct container_state state;     /* run = ABSENT: not here */
    uint64_t step;
    enum step_kind step_kind;
    struct backoff backoff;
    bool image_ready;
    bool pull;
    bool revive;
    unsigned restarts;
    uint64_t started_us;
    uint64_t exited_us;     /* EXITED: seen since then */
    bool ended;             /* as in its report */
    uint64_t not_listed_by; /* the list step that was running when a step of it ended last */
    uint64_t wake_us; /* a postponed step is due then; 0 = none */
    struct reason reason;
    bool reported;
    struct container_report last;
    UT_hash_handle hh;
};

struct node_route {
    uint16_t port;
    bool stale; /* of an earlier session; goes unless the new one repeats it */
    struct port_route route;
    UT_hash_handle hh;
};

/* All routes of the node together: they are put in place in one go, by a step that stands in nobody's way. */
struct node_routes {
    struct node_route *by_port;
    bool known;       /* all were told once in this life of the agent: what is not among them may go */
    bool pending;     /* they are not, or maybe not, in place */
    uint64_t look_us; /* somebody changed the packet filter: look at it then; 0 = nobody */
    uint64_t step;    /* running; 0 = none */
    struct backoff backoff;
    struct reason reason;
    bool reported; /* in this session */
    struct routes_report last;
};

/* What there is of the storage's space. A full look at the volumes tells it; when something changed it is asked for by itself. */
struct node_space {
    struct space last; /* as the storage said */
    bool is_short;     /* until the storage says that there is enough */
    uint64_t wait_us;  /* is_short: so long from one look to the next */
    uint64_t look_us;  /* look then; 0 = when the volumes are looked at next */
    uint64_t step;     /* running; 0 = none */
    bool reported;     /* in this session: */
    struct space told;
};

/* Lists of storage that several nodes share (node_lists.c). */
struct node_lists {
    bool shared;        /* one node can list for all */
    enum list_duty duty;
    uint64_t every_us;  /* FOR_ALL */
    uint64_t listed_us; /* the backend was asked last; 0 = not yet */
    uint64_t full_us;   /* it is to be asked next; 0 = with everything else */
    bool here_only;     /* the list that runs does not ask it */
    struct told_sighting *told; /* FOR_ALL */
};

struct node {
    struct uuid era;
    enum storage_kind storage;
    struct random random;
    struct copy_limits copy_limits;
    struct node_memory memory;    /* durable */
    struct node_memory persisting; /* being written; valid while `is_persisting` */
    bool is_persisting;
    uint64_t want_revision; /* highest revision told in this session */

    bool connected; /* a session is up */
    bool synced;    /* and all its orders have come */
    bool refused;   /* and its store is not the one to obey */
    uint64_t refused_us; /* wall clock: since when */
    bool complete;  /* our first full state was sent in it */
    struct welcome welcome;

    bool touched; /* decide again ... */
    struct now now; /* ... as of this time */
    bool started;
    uint64_t next_step;
    uint64_t list_volumes_step, list_containers_step;
    bool volumes_known, containers_known;
    bool volumes_answered, containers_answered; /* the first look has ended, well or not */
    bool told_storage_unknown;                  /* that is what the control service heard last */
    bool list_containers_again;
    unsigned n_comparing; /* steps that run */
    struct backoff volumes_backoff, containers_backoff;
    uint64_t resync_every_us;
    uint64_t resync_us; /* next full look, as a safety net */
    struct reason storage_reason, engine_reason;

    struct node_dataset *datasets;
    struct node_container *containers;
    struct node_routes routes;
    struct node_space space;
    struct node_lists lists;
    struct node_effect *effects_first, **effects_last;
};

#define COMPARE_TRIES 3   /* then it has failed; but the peer may still be at something else, and not listen yet: */
#define COMPARE_DENIALS 9
#define COMPARE_AT_ONCE 2 /* of all datasets: each reads all of a snapshot, maybe for hours; others wait without a step */
#define SPACE_LOW_PART 10 /* short of space: less than that part of the storage is free */
#define SPACE_NEWS_PART 100 /* that part more or less is worth telling */
#define SPACE_LOOK_US                                                                              \
    (3 * USEC_PER_SEC) /* file systems free space after a while; several changes cost one look */
#define SPACE_SHORT_US                                                                             \
    (5 * USEC_PER_SEC) /* short of space: the first look, then at twice the time ... */
#define SPACE_SHORT_MOST_US (80 * USEC_PER_SEC)
#define NODE_RESYNC_US (300 * USEC_PER_SEC)
#define ROUTES_LOOK_US (300 * USEC_PER_MSEC) /* who changes the packet filter does so in several steps */
#define MISSING_LOOK_US (5 * USEC_PER_SEC)
#define LATE_LOOK_US (10 * USEC_PER_SEC) /* each may cost calls of a storage's API: the first, then after twice the time ... */
#define LATE_LOOK_MOST_US (160 * USEC_PER_SEC)
/* A host that goes down may end its containers before the engine, and those that have a clean end exit with 0. It is down long
 * before that. */
#define CONTAINER_ENDED_US (10 * USEC_PER_SEC)
#define CONTAINER_STABLE_US (10 * USEC_PER_SEC) /* ran that long: its failures are forgotten */

/* node.c */
struct node_effect *node_effect_push(struct node *n, enum node_effect_kind kind);
struct step *node_push_step(struct node *n, enum step_kind kind);
struct node_dataset *node_dataset_get(struct node *n, const struct uuid *id);
struct node_dataset *node_dataset_find(struct node *n, const struct uuid *id);
struct node_container *node_container_get(struct node *n, const char *name);
/* Everything is to be decided and reported again, before the next effect is taken: many inputs cost one pass. */
void node_touch(struct node *n, struct now now);
bool node_is_live(const struct node *n, uint64_t revision);
/* The settings of what runs or is to run under that name; NULL when not known. */
const struct container *node_container_config(const struct node_container *c);

/* node_act.c */
void node_decide_dataset(struct node *n, struct now now, struct node_dataset *d);
uint64_t node_wall_of(struct now now, uint64_t mono_us);
void node_fail_later(const struct node *n, struct now now, struct backoff *b);
void node_decide_container(struct node *n, struct now now, struct node_container *c);

/* node_report.c */
bool node_volume_same(const struct volume_state *a, const struct volume_state *b);
void node_report_all(struct node *n, struct now now);

/* node_space.c */
void node_space_is_short(struct node *n, struct now now); /* a step found no room */
void node_space_seen(struct node *n, struct now now, const struct space *space);
void node_space_look(struct node *n, struct now now); /* something was made or went */
void node_decide_space(struct node *n, struct now now);
bool node_space_outcome(struct node *n, struct now now,
                        const struct outcome *o); /* false: of another step */
void node_report_space(struct node *n);
uint64_t node_space_deadline(const struct node *n); /* 0 = none */
/* node_lists.c */
#define LIST_ALONE_TIMES 6 /* as many looks at what is here before the backend is asked: all nodes do that */
#define LIST_LEAST_US (60 * USEC_PER_SEC) /* from one list to the next, whoever wants one */
bool node_list_is_due(const struct node *n, struct now now);
void node_list_begin(struct node *n, struct now now, struct step *s);
void node_list_failed(struct node *n, struct now now);
void node_list_tell(struct node *n, const struct outcome *o); /* it went well */
void node_lists_session(struct node *n, struct now now); /* one begins or ends */
uint64_t node_lists_deadline(const struct node *n); /* 0 = none */
void node_lists_free(struct node *n);

/* node_routes.c */
void node_decide_routes(struct node *n, struct now now);
bool node_routes_outcome(struct node *n, struct now now, const struct outcome *o); /* false: of another step */
void node_report_routes(struct node *n);
/* The applications that answer on this node's address, but for `besides`: the caller frees each and the array. */
char **node_routes_names(const struct node *n, const char *besides, size_t *ret_n);
void node_routes_session(struct node *n); /* a session begins */
void node_routes_complete(struct node *n);
uint64_t node_routes_deadline(const struct node *n); /* 0 = none */
void node_routes_free(struct node *n);
