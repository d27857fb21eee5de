/* The control service's brain: what the user wants, who may write to what, and what each node is told.
 *
 * A pure state machine (design rule 1): every input is a call with the time at which it happened; what is to be done
 * about it comes out as effects, which the caller takes with engine_next() and carries out. The engine calls no
 * clock, socket, disk or thread. One thread at a time. README.md in this folder argues why it is safe. */
#pragma once

#include "base/bucket.h"
#include "base/now.h"
#include "base/random.h"
#include "model/agent.h"
#include "model/compose.h"
#include "model/cordon.h"
#include "model/fence.h"
#include "model/history.h"
#include "model/lease.h"
#include "model/volume_call.h"

struct engine;

/* ---- what callers want ---- */

enum command_kind {
    COMMAND_DATASET_CREATE,
    COMMAND_DATASET_UPDATE, /* change of primary, metadata, size */
    COMMAND_DATASET_DELETE, /* `purge`: and forget it when nothing is left; also of one that is deleted already */
    COMMAND_CONTAINER_CREATE,
    COMMAND_CONTAINER_MOVE, /* takes the dataset of its volume along */
    COMMAND_CONTAINER_DELETE,
    COMMAND_LEASE_ACQUIRE, /* or renew */
    COMMAND_LEASE_RELEASE,
    COMMAND_COMPOSE, /* replaces all configuration, or nothing */
    COMMAND_STORE_ADOPT, /* the copy that the store was put back from may be believed */
    COMMAND_DATASET_ADOPT, /* what `node` has counts: the record follows; of a deleted dataset: is deleted too */
    COMMAND_REPLICA_DROP, /* the dataset's replica is not wanted any more */
    COMMAND_REPLICA_VERIFY, /* compare the dataset's replica with what its owner has; engine_comparison() tells the rest */
    COMMAND_NODE_CORDON,   /* `node` gets nothing new by automatic placement, ... */
    COMMAND_NODE_UNCORDON, /* ... or does again */
    COMMAND_VOLUME_CREATE, /* VOLUME_*: what an agent asks (model/volume_call.h) */
    COMMAND_VOLUME_REMOVE,
    COMMAND_VOLUME_USE,
    COMMAND_VOLUME_UNUSE,
    COMMAND_NODE_FENCE,    /* `who` signs that `node` is off, because of `why`: what it owned may get another owner */
    COMMAND_NODE_UNFENCE,
    COMMAND_COPY_DROP,     /* what `node` has of the dataset, whose owner it was when it was fenced, is not wanted any more */
    COMMAND_MAX,
};

struct command {
    enum command_kind kind;
    uint64_t id;                 /* the caller's; comes back in the reply */
    const char *const *tags;     /* conditional request: one of these must be the current tag */
    size_t n_tags;               /* 0 = unconditional */
    struct dataset *dataset;     /* DATASET_CREATE: id, primary, maximum_size, metadata; taken over. VOLUME_CREATE: without id and primary */
    bool fresh;                  /* DATASET_CREATE: the id is random, of just now: no node can have anything of it */
    struct container *container; /* CONTAINER_CREATE; taken over */
    struct composition *composition; /* COMPOSE; its content is taken over */
    bool purge;                  /* DATASET_DELETE */
    struct uuid dataset_id;      /* DATASET_UPDATE, DATASET_DELETE, DATASET_ADOPT, REPLICA_*, LEASE_*, COPY_DROP; VOLUME_*: nil = by name */
    bool keep_primary;           /* DATASET_UPDATE: `node` says nothing */
    const struct metadata *metadata; /* DATASET_UPDATE: the new ones; NULL = as they are */
    uint64_t maximum_size;       /* DATASET_UPDATE: the new one; 0 = as it is */
    struct uuid node;            /* DATASET_UPDATE, DATASET_ADOPT, CONTAINER_MOVE, LEASE_ACQUIRE, NODE_*, COPY_DROP */
    const char *name;            /* CONTAINER_MOVE, CONTAINER_DELETE, VOLUME_* */
    const char *mount;           /* VOLUME_USE, VOLUME_UNUSE */
    uint64_t session;            /* VOLUME_*: in which the node asks; of one that is over it has no effect */
    const char *who, *why;       /* NODE_FENCE: at most FENCE_MAX_TEXT characters each */
    bool expires;                /* LEASE_ACQUIRE */
    int64_t expires_in_us;       /* LEASE_ACQUIRE: from now; may be <= 0 (gone at the next sweep) */
    bool anyway;                 /* *_ADOPT: also while nodes that may know better are not there */
};

enum result_code {
    RESULT_OK,
    RESULT_CREATED,
    RESULT_TAG_MISMATCH,
    RESULT_DATASET_EXISTS,
    RESULT_DATASET_NOT_FOUND,
    RESULT_DATASET_DELETED,
    RESULT_DATASET_OF_CONTAINER, /* the container that uses it must be moved instead */
    RESULT_DATASET_SHRINKS,      /* the new size is below the present one, or there was no limit */
    RESULT_DATASET_FIXED,        /* the storage of its node cannot grow a volume */
    RESULT_DATASET_ELSEWHERE,
    RESULT_DATASET_IN_USE,
    RESULT_CONTAINER_EXISTS,
    RESULT_CONTAINER_NOT_FOUND,
    RESULT_PORT_IN_USE,
    RESULT_LINK_ALIAS,
    RESULT_LINK_PORT,
    RESULT_DEPENDENCY_MISSING, /* `text` is the container that does not exist */
    RESULT_DEPENDENCY_CIRCLE,  /* `text` says which depends on which */
    RESULT_LEASE_NOT_FOUND,
    RESULT_LEASE_HELD,      /* VOLUME_*: `text` says by whom, `lease` since when (if it is a lease) */
    RESULT_LEASE_RELEASING, /* the dataset is just leaving that node */
    RESULT_LEASE_FULL,      /* VOLUME_USE: it has LEASE_MOUNTS_MAX mounts, or the node has very many */
    RESULT_DATASET_LEAVING, /* COMPOSE: it is being removed; `text` says what that waits for */
    RESULT_NODES_AWAY,      /* *_ADOPT: `text` names them */
    RESULT_DATASET_NOT_THERE,    /* DATASET_ADOPT: the node has nothing of it, */
    RESULT_DATASET_NOT_IN_DOUBT, /* the store knows where the data are, */
    RESULT_DATASET_MOUNTED,      /* another node, `text`, uses them or is about to, */
    RESULT_DATASET_CHANGING,     /* or a change of it is just being recorded */
    RESULT_REPLICA_NOT_FOUND,
    RESULT_COMPARISON_NOT_NOW, /* REPLICA_VERIFY: `text` says why */
    RESULT_COMPARISON_SOON,    /* likewise, and it passes by itself within moments */
    RESULT_NODE_NOT_FOUND,  /* NODE_*: no such node was ever here */
    RESULT_NODE_CONNECTED,  /* NODE_FENCE: it is not off; `text` says how that is known */
    RESULT_NODE_FENCED,     /* LEASE_ACQUIRE */
    RESULT_COPY_NOT_FOUND,  /* COPY_DROP: that node keeps none */
    RESULT_COPY_NEEDED,     /* COPY_DROP: nobody owns the dataset: it may be all that there is */
    RESULT_NODE_REFUSES,    /* VOLUME_*: its session is over, or it obeys another store, or a later state of this one */
    RESULT_MOUNTS_UNKNOWN,  /* VOLUME_USE: the store was put back, and somebody may have it mounted since; `text` */
    RESULT_RELEASES_UNKNOWN, /* LEASE_ACQUIRE: the store was put back, and the node may be releasing it since; `text` */
    RESULT_STORE_FAILED,    /* not committed; nothing changed; `text` says why */
    RESULT_MAX,
};

struct command_result {
    enum result_code code;
    struct dataset *dataset;     /* the object after the change (dataset commands), or NULL */
    struct container *container; /* likewise */
    struct lease lease;          /* lease commands, VOLUME_USE */
    uint64_t lease_left_us;      /* seconds left of it, when it expires */
    char *text;                  /* TAG_MISMATCH: the current tag; STORE_FAILED, DATASET_OF_CONTAINER: detail;
                                  * COMPOSE: name of what is wrong */
};

/* ---- what must be made durable ---- */

enum object_kind { OBJECT_DATASET, OBJECT_CONTAINER, OBJECT_LEASE, OBJECT_NODE, OBJECT_FENCE, OBJECT_STORE, OBJECT_KIND_MAX };

/* One object's new value at one revision. */
struct change {
    uint64_t revision;
    enum object_kind kind;
    char *key;             /* dataset: uuid; container: name; lease: uuid of the dataset; node, fence: uuid; store: "restored" */
    struct dataset *dataset;     /* the new value: one of these three (or `cordon`), */
    struct container *container; /* all NULL = the object is gone; OBJECT_STORE: the copy is settled (model/history.h) */
    struct lease *lease;
    struct cordon *cordon;    /* OBJECT_NODE: likewise */
    struct fence *fence;      /* OBJECT_FENCE: likewise */
    uint64_t expires_mono_us; /* the engine's: end of the lease by the monotonic clock */
};

struct batch {
    uint64_t id;
    struct change *changes; /* by ascending revision; may be empty */
    size_t n;
};

/* ---- what comes out ---- */

enum effect_kind {
    EFFECT_COMMIT,          /* make `batch` durable, then call engine_committed or engine_commit_failed */
    EFFECT_REPLY,           /* answer a command */
    EFFECT_WELCOME,         /* to `session` ... */
    EFFECT_ORDER,
    EFFECT_ORDER_NONE,      /* the node has no order for `dataset` any more */
    EFFECT_CONTAINER_ORDER,
    EFFECT_CONTAINER_NONE,  /* ... nor for container `name` */
    EFFECT_ROUTE,
    EFFECT_ROUTE_NONE,      /* nor a route for `port` */
    EFFECT_LIST_ORDER,      /* who lists the node's shared storage */
    EFFECT_SIGHTING,        /* what the node that does saw of one volume */
    EFFECT_CALLS_SHARE,     /* calls of the storage's API that the node may make */
    EFFECT_ORDERS_COMPLETE, /* first contact: all orders were sent */
    EFFECT_REFUSE,          /* send `text`, then close the session */
    EFFECT_CHANGED,         /* an object's configuration or state changed (for event streams and caches) */
    EFFECT_VOLUME,          /* the catalogue's entry of `dataset` may have changed: engine_volume() */
};

struct effect {
    enum effect_kind kind;
    const struct batch *batch; /* COMMIT; belongs to the engine until the answer */
    uint64_t command;          /* REPLY */
    struct command_result result;
    uint64_t session; /* WELCOME .. REFUSE */
    struct welcome welcome;
    struct order order;
    struct container_order container_order;
    struct uuid dataset; /* ORDER_NONE, VOLUME */
    struct port_route route;  /* ROUTE */
    uint16_t port;       /* ROUTE_NONE */
    struct list_order list_order; /* LIST_ORDER */
    struct sighting sighting;     /* SIGHTING */
    struct calls_share share;     /* CALLS_SHARE */
    char *name;          /* CONTAINER_NONE; CHANGED: key of the object */
    char *text;          /* REFUSE */
    enum object_kind object; /* CHANGED */
    struct effect *next;     /* the engine's */
};

/* Takes the oldest effect, NULL when there is none. The caller frees it with effect_free(). */
struct effect *engine_next(struct engine *e);
struct effect *effect_free(struct effect *f);

/* ---- life ---- */

/* `history`: of the store, with the generation that begins now; copied. `revision`: the highest in the store. `random` is
 * copied. */
struct engine *engine_new(const struct history *history, uint64_t revision, struct random random);
struct engine *engine_free(struct engine *e);
/* Before anything else: what the store holds. Ownership of the objects passes to the engine. Then engine_tick(), before
 * anything is read. */
void engine_restore_dataset(struct engine *e, struct dataset *d);
void engine_restore_container(struct engine *e, struct container *c);
void engine_restore_cordon(struct engine *e, const struct cordon *c);
void engine_restore_fence(struct engine *e, const struct fence *f); /* copied */
void engine_restore_lease(struct engine *e, struct now now, const struct lease *l);

/* Deleted datasets are forgotten that long after their deletion, when nothing of them is left; 0 (the default): never. Before
 * anything is restored. */
void engine_purge_after(struct engine *e, uint64_t age_us);

/* After a move the earlier owner keeps its copy that long, as a replica, where its storage can; 0 (the default): not at all.
 * Before anything is restored. */
void engine_keep_replicas(struct engine *e, uint64_t age_us);

/* The node that lists shared storage for all does so that often; LIST_EVERY_US if nobody says. Whole seconds. */
#define LIST_EVERY_US (300 * (uint64_t)USEC_PER_SEC)
void engine_list_every(struct engine *e, uint64_t every_us);

/* So many calls all nodes of one backend make of its API together; CALL_BUDGET if nobody says. Before the first session. */
#define CALL_BUDGET ((struct bucket_limits){.per_hour = 72000, .burst = 500})
void engine_call_budget(struct engine *e, struct bucket_limits limits);

/* ---- inputs ---- */

void engine_command(struct engine *e, struct now now, struct command *command);
/* Hands the collected changes out as one EFFECT_COMMIT, if none is in flight. Call after each batch of inputs. */
void engine_flush(struct engine *e, struct now now);
void engine_committed(struct engine *e, struct now now, uint64_t batch);
void engine_commit_failed(struct engine *e, struct now now, uint64_t batch, const char *text);

/* `session` is a number never used before. */
void engine_session_open(struct engine *e, struct now now, uint64_t session, const struct hello *hello);
void engine_session_closed(struct engine *e, struct now now, uint64_t session);
/* Messages of sessions that are not (or no longer) open have no effect. `report` is copied. */
void engine_report(struct engine *e, struct now now, uint64_t session, const struct report *report);
void engine_report_gone(struct engine *e, struct now now, uint64_t session, const struct uuid *dataset);
void engine_container_report(struct engine *e, struct now now, uint64_t session,
                             const struct container_report *report);
void engine_container_gone(struct engine *e, struct now now, uint64_t session, const char *name);
void engine_space_report(struct engine *e, struct now now, uint64_t session,
                         const struct space *space);
/* Of the node that was told to list its storage for all; from others they have no effect. `s` is copied. */
void engine_sighting(struct engine *e, struct now now, uint64_t session, const struct sighting *s);
void engine_sightings_complete(struct engine *e, struct now now, uint64_t session);
void engine_calls_report(struct engine *e, struct now now, uint64_t session, const struct calls_report *r);
void engine_routes_report(struct engine *e, struct now now, uint64_t session, const struct routes_report *report); /* copied */
#define REPORTS_STORAGE_UNKNOWN 1u /* the node's storage has not answered yet; called again without it when it has */
/* The uses that a node has when its session begins, then the end of them: leases follow (model/volume_call.h). */
void engine_volume_use(struct engine *e, struct now now, uint64_t session, const struct volume_use *use); /* copied */
void engine_volume_uses_complete(struct engine *e, struct now now, uint64_t session);
void engine_reports_complete(struct engine *e, struct now now, uint64_t session, unsigned flags);

/* Call when the time of engine_deadline() has come. */
void engine_tick(struct engine *e, struct now now);
uint64_t engine_deadline(const struct engine *e); /* mono_us; USEC_NEVER = nothing is due */

/* ---- what COMMAND_COMPOSE would change ---- */

enum planned_action {
    PLANNED_CREATE,
    PLANNED_RETURN,  /* a dataset that was dropped is configured again: its data come back */
    PLANNED_CHANGE,  /* other settings; a container is made anew, maybe on another node */
    PLANNED_MOVE,    /* a dataset's settings may change too */
    PLANNED_DROP,    /* a dataset leaves the configuration; its data stay */
    PLANNED_FORGET,  /* a deleted dataset leaves it */
    PLANNED_REMOVE,  /* a container */
    PLANNED_RELEASE, /* a lease */
    PLANNED_MAX,
};

struct planned {
    enum object_kind kind; /* OBJECT_DATASET, OBJECT_CONTAINER, OBJECT_LEASE */
    enum planned_action action;
    char *key;         /* as that of a change */
    char *name;        /* a dataset's, of its metadata; NULL = none */
    struct uuid from;  /* where it is, or its data are; nil = nowhere yet */
    struct uuid to;    /* where it is to be; nil = nowhere */
};

struct plan {
    struct planned *all;
    size_t n, cap;
};

void plan_done(struct plan *p);

/* Whether the composition would be refused, with the code and *ret_text (NULL = nothing to say) that the command would get, and
 * else what it would change: nothing that is not in *ret_plan. The caller frees both. */
enum result_code engine_plan(const struct engine *e, struct composition *c, struct plan *ret_plan, char **ret_text);

/* ---- reading; committed values only; pointers are valid until the next input ---- */

uint64_t engine_revision(const struct engine *e);
struct uuid engine_store(const struct engine *e);
/* How many there are: those that are configured, and those that are only reported by a node or not yet committed. */
struct engine_counts {
    size_t datasets, containers, leases, replicas;
};
struct engine_counts engine_counts(const struct engine *e);
/* Revision of the copy that was last put in the place of the store; 0 = never. */
uint64_t engine_restored(const struct engine *e);
/* And nobody has said since that the copy may be believed (COMMAND_STORE_ADOPT). */
bool engine_is_unsettled(const struct engine *e);
/* The nodes that the store knows, or has seen, and that have not told all that they have, or take no orders. */
void engine_each_node_away(const struct engine *e, void (*fn)(void *, const struct uuid *node), void *cookie);
/* The opaque configuration tag; the caller frees it. */
char *engine_tag(const struct engine *e);

/* NULL also for one that was dropped. */
const struct dataset *engine_dataset(const struct engine *e, const struct uuid *id);
const struct container *engine_container(const struct engine *e, const char *name);
const struct container *engine_container_of_dataset(const struct engine *e, const struct uuid *dataset);
/* Where it is to be; of one that was dropped, where its data are. False: it is unknown, or deleted. */
bool engine_dataset_home(const struct engine *e, const struct uuid *id, struct uuid *ret_node);
size_t engine_dataset_count(const struct engine *e); /* also of those that are only reported */

/* Lists: what there is, in the order of keys, until `fn` returns false. A part of a list costs as much as is walked, not as
 * much as there is; what changes between two parts is in the second if its key comes later. */
struct list_query {
    const struct uuid *after;   /* ids after this one, which need not be there (any more); NULL = from the first */
    const char *after_name;     /* the same for containers */
    const char *name;           /* only what is called so; datasets: those configured with that "name"; NULL = anything */
    const struct uuid *node;    /* leave out what has nothing to do with this node, where that is quick; NULL = anything */
    size_t about;               /* so many are wanted, to decide what is quick; 0 = all */
};
/* All ids that there are or that a node reports. */
void engine_list_datasets(const struct engine *e, const struct list_query *q,
                          bool (*fn)(void *, const struct uuid *id), void *cookie);
void engine_list_containers(const struct engine *e, const struct list_query *q,
                            bool (*fn)(void *, const char *name), void *cookie);
/* `left_us`: until expiry; may be 0 when just due. */
void engine_list_leases(const struct engine *e, struct now now, const struct list_query *q,
                        bool (*fn)(void *, const struct lease *, uint64_t left_us), void *cookie);

/* NULL: there is none. */
const struct lease *engine_lease(const struct engine *e, struct now now, const struct uuid *dataset, uint64_t *ret_left_us);

struct node_view {
    struct uuid node;
    struct uuid era;
    const char *host;
    const char *backend;
    bool connected;
    bool obeys;  /* connected, all that it has is reported, and it takes orders */
    const struct routes_report *routes; /* what it said last in this session; NULL: nothing, or it is an agent without routes */
    struct space space;                 /* as it said last in this session */
    bool cordoned; /* gets nothing new by automatic placement */
    bool fenced;   /* ... nor anything else */
    bool listed; /* connected, or gone for less than NODE_GRACE_US: belongs into /v1/state/nodes */
};
#define NODE_GRACE_US (10 * USEC_PER_SEC)
void engine_list_nodes(const struct engine *e, struct now now, const struct list_query *q,
                       bool (*fn)(void *, const struct node_view *), void *cookie);
/* All that are, whether the node is here or not; any order. */
void engine_each_cordon(const struct engine *e, void (*fn)(void *, const struct uuid *node), void *cookie);
/* A node that is fenced, or that is known and has no session: it may be. */
struct fenceable {
    struct uuid node;
    const char *host; /* NULL: it has not been here since the process began */
    bool connected;
    const struct fence *fence; /* NULL = it is not fenced */
};
void engine_each_fenceable(const struct engine *e, void (*fn)(void *, const struct fenceable *), void *cookie); /* any order */
bool engine_node_is_connected(const struct engine *e, const struct uuid *node);
const struct fence *engine_fence(const struct engine *e, const struct uuid *node); /* NULL = it is not fenced */
/* Was it ever here, or is anything configured, or known, to be there? */
bool engine_node_is_known(const struct engine *e, const struct uuid *node);

/* What becomes of a dataset when the node that owns it is fenced, and it is moved elsewhere. */
enum fate {
    FATE_UNWRITTEN,  /* nothing was ever in it: it is made anew */
    FATE_ATTACH,     /* its volume is attached to the other node, nothing is lost */
    FATE_WHOLE_COPY, /* it had stopped there, and all of it had arrived on `from` */
    FATE_HALF_MOVE,  /* it goes on from what had arrived on `from` by a move, */
    FATE_REPLICA,    /* or from the copy that `from` keeps since an earlier one: what was written later is lost, unless the node
                      * comes back */
    FATE_ASKS_NODE,  /* that depends on what `from`, which is not here, has */
    FATE_ONLY_THERE, /* nothing: the data are only on the fenced node */
    FATE_UNKNOWN,    /* nothing: the store was put back from a copy, and does not know enough */
    FATE_MAX,
};

struct fence_item {
    const struct dataset *dataset;
    enum fate fate;
    struct uuid from;
    const char *snapshot; /* WHOLE_COPY, HALF_MOVE, REPLICA */
    uint64_t made_us;     /* likewise: what it holds is of then, by the wall clock; 0 = not known */
};

/* Of each dataset that the node owns, or owned last when it was fenced; any order. */
void engine_preview_fence(const struct engine *e, const struct uuid *node, void (*fn)(void *, const struct fence_item *),
                          void *cookie);
/* Eras are remembered as long as the process lives. */
bool engine_node_by_era(const struct engine *e, const struct uuid *era, struct uuid *ret_node);

/* The newest comparison of the dataset's replica that was asked for; NULL: none since the process began. */
struct comparison {
    uint64_t number; /* random: none that an earlier process began has it */
    struct uuid owner, node; /* the replica is on `node` */
    char snapshot[SNAPSHOT_NAME_SIZE];
    uint64_t asked_us, ended_us; /* wall clock */
    enum comparison_end end;
    char *text; /* of DIFFERS and FAILED */
};
const struct comparison *engine_comparison(const struct engine *e, const struct uuid *dataset);

/* The entry of the catalogue; false: it is no volume. The caller calls volume_entry_done(). */
bool engine_volume(const struct engine *e, struct now now, const struct uuid *id, struct volume_entry *ret);
/* The nodes whose Docker waits to mount it, and since when. */
void engine_each_wait(const struct engine *e, const struct uuid *dataset,
                      void (*fn)(void *, const struct uuid *node, uint64_t since_us), void *cookie);

/* What listed nodes last said about the dataset (any order). */
void engine_each_report(const struct engine *e, struct now now, const struct uuid *dataset,
                        void (*fn)(void *, const struct uuid *node, const struct report *), void *cookie);
/* How fast the source of the dataset's transfer sends, in bytes a second; 0 = not known, or it does not at present. */
uint64_t engine_transfer_rate(const struct engine *e, struct now now, const struct uuid *dataset);
void engine_each_container_report(const struct engine *e, struct now now, const char *name,
                                  void (*fn)(void *, const struct uuid *node, const struct container_report *),
                                  void *cookie);

/* Why the dataset or container is not as wanted; code REASON_NONE when it is. The caller calls reason_done(). */
void engine_dataset_reason(const struct engine *e, struct now now, const struct uuid *id,
                           struct reason *ret_reason);
void engine_container_reason(const struct engine *e, struct now now, const char *name,
                             struct reason *ret_reason);
