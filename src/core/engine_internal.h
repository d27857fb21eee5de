/* Shared by the files of the engine; not for others. */
#pragma once

#include "base/backoff.h"
#include "base/hash.h"
#include "base/sorted.h"
#include "base/str.h"
#include "core/engine.h"

/* The nodes that an entry concerns, and the entries that concern a node: each knows its place in the other's list. */
enum near_kind { NEAR_DATASETS, NEAR_CONTAINERS, NEAR_LEASES, NEAR_KINDS };

struct near_link {
    struct node_near *node;
    size_t place; /* in its list */
    bool seen;    /* while the set is being renewed */
};

struct near_set {
    struct near_link *links;
    uint32_t n, cap;
};

struct near_list {
    struct near_set **sets; /* each the first member of its entry */
    size_t n, cap;
};

struct node_near {
    struct uuid node;
    struct near_list lists[NEAR_KINDS];
    UT_hash_handle hh;
};

/* How fast the source of a transfer sends: bytes_sent over some reports. */
#define FLOW_MIN_US (USEC_PER_SEC / 2) /* reports nearer to each other say too little */
#define FLOW_OLD_US (10 * USEC_PER_SEC) /* without news it does not flow */
struct flow {
    uint64_t transfer;
    uint64_t bytes, at_us; /* of the last report with news; at_us 0 = none */
    uint64_t rate;         /* bytes a second, a moving average; 0 = not known yet */
};

struct dataset_report {
    struct uuid node;
    bool stale; /* from the node's earlier session; goes unless the new one repeats it */
    struct report report;
};

struct dataset_sent {
    struct uuid node;
    uint64_t session;
    struct digest order; /* what was sent */
};

struct dataset_entry {
    struct near_set near; /* primary, owner, holders, and who reports it; must be first */
    struct uuid id;
    struct dataset *committed; /* NULL: not configured (there are only reports) */
    struct dataset *head;      /* newest value; the same pointer as committed while pending == 0 */
    unsigned pending;          /* changes handed out or collected, not yet committed */
    bool queued;
    bool named;         /* listed by its name, under name_hash */
    bool was_named;     /* it lost a name since the catalogue was told */
    struct dataset_entry *next_queued;
    struct reason reason; /* what reconciling last found; the node's own reason may be more exact */
    /* There may be a million entries, and these are mostly one or none: they are as long as they must be. */
    struct dataset_sent *sent;
    struct dataset_report *reports;
    struct comparison *comparison;  /* the newest of its replicas; NULL = none was asked for */
    struct flow *flow;              /* of its transfer; NULL = nothing was heard of one */
    uint64_t received_us;           /* wall clock: when the destination of a transfer told of the newest snapshot that came; 0 = not heard */
    struct container_entry **users; /* their committed or newest value has it among the volumes */
    uint32_t n_sent, n_reports, n_users;
    uint32_t name_hash; /* of `named` */
    UT_hash_handle hh;
};

struct container_report_entry {
    struct uuid node;
    bool stale;
    struct container_report report;
};

struct container_sent {
    struct uuid node;
    uint64_t session;
    enum container_action action;
    uint64_t revision;
    bool hold;
};

/* Where connections to an external port are to go; told to every other node that can be told. */
struct route_entry {
    uint16_t port;
    struct port_route route;
    struct container_entry *container;
    UT_hash_handle hh;
};

struct container_entry {
    struct near_set near; /* its node, and who reports it; must be first */
    struct uuid
        *uses; /* datasets that list it as a user: those of the committed and of the newest value */
    size_t n_uses;
    char *name;
    struct container *committed;
    struct container *head;
    unsigned pending;
    uint64_t since_us; /* wall clock: last change of configuration or state */
    char **depends;    /* what the committed and the newest value depend on */
    size_t n_depends;
    uint64_t started; /* `created` of the newest configuration that a node has told to have been started; 0 = none */
    uint64_t visit; /* of the search for circles that came by last */
    struct container_sent *sent;
    size_t n_sent, cap_sent;
    struct container_report_entry *reports;
    size_t n_reports, cap_reports;
    uint16_t *routed; /* its ports that are in engine.routes */
    size_t n_routed;
    UT_hash_handle hh;
};

struct lease_entry {
    struct near_set near; /* its node; must be first */
    struct uuid dataset;
    struct lease *committed, *head;
    unsigned pending;
    uint64_t expires_mono_us;           /* of head */
    uint64_t committed_expires_mono_us; /* of committed */
    size_t place; /* 1 + that in the heap of those that expire; 0 = not in it */
    UT_hash_handle hh;
};

struct fence_entry {
    struct uuid node;
    struct fence *committed, *head; /* NULL = it is not fenced; the same pointer while pending == 0 */
    unsigned pending;
    UT_hash_handle hh;
};

struct cordon_entry {
    struct uuid node;
    bool committed, head;
    unsigned pending;
    UT_hash_handle hh;
};

/* Mounts that a node has told (and leases follow), or that it waits for. */
#define USES_MAX 10000u /* of one node */
#define WAITS_MAX 1000u /* of one node; more wait unseen */
struct use {
    struct uuid dataset;
    char *mount;
    uint64_t since_us; /* wall clock */
};

struct uses {
    struct use *all;
    size_t n, cap;
};

struct node_calls {
    struct call_account *account; /* NULL: it has no share */
    bool queued, heard;
    uint32_t waiting;
    uint64_t handed, returned;
    uint64_t throttled;
    struct node_entry *next; /* that waits */
};

struct node_entry {
    struct uuid id;
    struct hello hello; /* of the last session */
    uint64_t session;   /* 0 = none */
    bool refuses;       /* it obeys another store, or knows a later state of this one */
    bool complete;      /* the session's first full state has come */
    bool storage_unknown; /* ... but its storage has not answered yet: more may be there */
    bool untold; /* it obeyed no store when it came, and has not told since what it has: that may be of another store's time */
    bool sending;       /* first contact: orders are being sent */
    uint64_t closed_mono_us; /* 0 = never, or its grace is over */
    uint64_t closed_wall_us; /* end of the last session */
    struct routes_report routes;
    struct space space; /* in this session */
    bool has_routes; /* it reported them in this session */
    struct uses uses, waits; /* of this session (engine_volumes.c) */
    bool uses_complete; /* all that it had at the session's beginning were told */
    struct node_calls calls; /* of this session (engine_calls.c) */
    bool uses_unmet;    /* for some the lease cannot be had at present */
    UT_hash_handle hh, by_session;
#ifdef FLOCKER_FAULTS
    uint64_t old_session;
#endif
};

struct era_entry {
    struct uuid era;
    struct uuid node;
    UT_hash_handle hh;
};

struct waiting_reply {
    uint64_t command;
    struct command_result result;
};

struct engine_batch {
    struct batch batch;
    size_t cap;
    struct waiting_reply *replies;
    size_t n_replies, cap_replies;
};

struct deletion {
    struct uuid dataset;
    uint64_t at_us; /* wall clock */
};

struct engine {
    struct history history;
    struct random random;
    uint64_t head_revision; /* highest number given out */
    uint64_t revision;      /* highest committed */
    uint64_t head_config;   /* revision of the last change that users see; the tag */
    uint64_t config;        /* the same, committed */
    uint64_t next_batch;
    struct engine_batch *in_flight, *next;
    uint64_t commit_retry_us; /* after a failed commit nothing of our own is tried before; 0 = at once */
    unsigned commit_failures;
    char *commit_error; /* what the last failed commit said; NULL when none failed since one went well */

    struct dataset_entry *datasets;
    struct container_entry *containers;
    struct dependents *dependents; /* engine_depends.c */
    uint64_t visits;
    struct lease_entry *leases;
    struct node_entry *nodes;
    struct cordon_entry *cordons;
    struct fence_entry *fences;
    struct node_entry *sessions; /* those with one, by its number */
    struct node_near *near;
    struct route_entry *routes; /* by port */
    struct sorted dataset_ids, lease_ids, node_ids; /* all there are, in the order of lists */
    bool restoring; /* dataset_ids and dataset_names come when all is there */
    struct sorted container_names;
    struct sorted dataset_names; /* the configured datasets that have one, by its hash, then by id */
    struct lease_entry **expiring;
    size_t n_expiring, cap_expiring;
    uint64_t purge_after_us;    /* 0 = never */
    struct deletion *deletions; /* the oldest first */
    size_t n_deletions, cap_deletions;
    bool unsorted;
    uint64_t purge_us; /* mono: look at them then */
    uint64_t keep_replicas_us;     /* 0 = none */
    struct replica_due *replicas;  /* by dataset */
    struct sorted replica_ends;    /* the same, the first to end first */
    uint64_t replicas_us;          /* mono: look at them then */
    bool waits_for_untold; /* some dataset does, until a node has told what it has */
    bool uses_unmet; /* of some node */
    struct listing *listings; /* engine_lists.c */
    uint64_t list_every_us;
    uint64_t lists_us; /* mono: look at them then */
    struct call_account *accounts; /* engine_calls.c */
    struct bucket_limits call_limits;
    uint64_t calls_us; /* mono: somebody waits, and may be served then */
    bool has_catalogue; /* somebody wants to hear of volumes */
    uint64_t grace_us; /* the grace of a node ends then, at the earliest; USEC_NEVER = of none */
    struct era_entry *eras;

    struct dataset_entry *queue_first, **queue_last;
    struct effect *effects_first, **effects_last;
};

/* engine.c */
struct effect *effect_push(struct engine *e, enum effect_kind kind);
void effect_push_changed(struct engine *e, enum object_kind kind, const char *key);
struct dataset_entry *dataset_entry_get(struct engine *e, const struct uuid *id); /* makes it */
struct dataset_entry *dataset_entry_find(const struct engine *e, const struct uuid *id);
struct container_entry *container_entry_get(struct engine *e, const char *name);
struct container_entry *container_entry_find(const struct engine *e, const char *name);
struct lease_entry *lease_entry_find(const struct engine *e, const struct uuid *dataset);
struct lease_entry *lease_entry_get(struct engine *e, const struct uuid *dataset);
struct node_entry *node_entry_find(const struct engine *e, const struct uuid *id);
void dataset_entry_gc(struct engine *e, struct dataset_entry *entry);
void container_entry_gc(struct engine *e, struct container_entry *entry);
/* Collect a new value of an object (taken over; NULL = delete) for the next commit. */
void propose_dataset(struct engine *e, struct dataset_entry *entry, struct dataset *value);
void propose_container(struct engine *e, struct container_entry *entry, struct container *value);
void propose_lease(struct engine *e, struct lease_entry *entry, struct lease *value);
void propose_cordon(struct engine *e, const struct uuid *node, bool cordoned);
void propose_fence(struct engine *e, const struct uuid *node, struct fence *value); /* not taken over; gets its revision */
void propose_settled(struct engine *e); /* the copy that the store was put back from may be believed */
/* The number that the next proposed change will have. */
static inline uint64_t next_number(const struct engine *e)
{
    return e->head_revision + 1;
}
/* Is it there for users? */
static inline bool is_configured(const struct dataset *d)
{
    return d && !d->dropped;
}
/* Answers now, or with the commit of what the result is based on. Takes `result` over. */
void reply_later(struct engine *e, uint64_t command, struct command_result *result);
void command_result_done(struct command_result *r);

/* engine_index.c: call the first three after each change of what they look at */
void index_dataset(struct engine *e, struct dataset_entry *entry);
void index_container(struct engine *e, struct container_entry *entry);
void index_lease(struct engine *e, struct lease_entry *l);
void index_session(struct engine *e, struct node_entry *n, uint64_t session); /* sets it; 0 = none */
/* All datasets are there: makes the lists of them. */
void index_restored(struct engine *e);
/* The orders of lists, by id or name. */
sorted_compare_fn compare_dataset, compare_container, compare_lease, compare_node;
/* The configured datasets of a name, by id: where those after `after` (NULL = all) begin, and one after the other. */
struct sorted_place datasets_named(const struct engine *e, const char *name, const struct uuid *after);
struct dataset_entry *next_named(const struct engine *e, const char *name, struct sorted_place *place);
struct node_entry *node_of_session(const struct engine *e, uint64_t session);
/* What concerns the node. Going from the highest number down, the entry in hand may be changed or freed. */
size_t near_count(const struct engine *e, const struct uuid *node, enum near_kind kind);
void *near_entry(const struct engine *e, const struct uuid *node, enum near_kind kind, size_t number);
struct dataset_entry *near_dataset(const struct engine *e, const struct uuid *node, size_t number);
struct container_entry *near_container(const struct engine *e, const struct uuid *node, size_t number);
const struct container_entry *container_using(const struct engine *e, const struct uuid *dataset,
                                              bool committed);
struct lease_entry *next_expiring(const struct engine *e); /* NULL: none */
/* Calls `fn` for each node that an object concerns or that reports one, in the order in which it became known. */
void each_near_node(const struct engine *e, void (*fn)(void *, const struct uuid *node), void *cookie);
void index_free(struct engine *e);

/* engine_purge.c */
void purge_note(struct engine *e, const struct dataset *d); /* its deletion is committed */
void purge_aged(struct engine *e, struct now now);
uint64_t purge_deadline(const struct engine *e);

/* engine_replica.c */
void index_replica(struct engine *e, const struct dataset_entry *entry);
void look_at_replicas(struct engine *e, struct now now);
uint64_t replicas_deadline(const struct engine *e);
size_t replica_count(const struct engine *e);
void replicas_free(struct engine *e);
/* The dataset has just got its owner, who began from the snapshot `base` of `node`: makes what is there the replica, if both can
 * keep one; an earlier one ends. */
void replica_begin(const struct engine *e, struct now now, struct dataset *d, const struct uuid *node, const char *base);
void replica_end(struct dataset *d); /* no effect when there is none */
/* Ends the replica of a dataset that is settled or being copied, if its time is over, the space is wanted or it is lost. */
bool end_replica(struct engine *e, struct dataset_entry *entry, struct now now);

/* engine_compare.c */
struct comparison *comparison_free(struct comparison *c); /* accepts NULL; returns NULL */
enum result_code comparison_begin(struct engine *e, struct now now, const struct command *c, struct command_result *r);
/* Takes the result of a running comparison, or ends it when it cannot be had any more. Of a dataset without uncommitted
 * change, before it is reconciled. */
void look_at_comparison(struct engine *e, struct dataset_entry *entry, struct now now);
/* The number of the comparison that is to be made by the committed record's owner; 0 = none. */
uint64_t comparison_ordered(const struct dataset_entry *entry);
/* Is the replica of the committed record known not to be what it should be? */
bool is_found_different(const struct dataset_entry *entry);

/* engine_reconcile.c */
void queue_dataset(struct engine *e, struct dataset_entry *entry);
void queue_volumes(struct engine *e,
                   const struct container *c); /* all that it uses; NULL has none */
void queue_all_datasets(struct engine *e);
/* engine_session.c: all that may look different now that the node came or went, or has told something */
void queue_datasets_of(struct engine *e, const struct uuid *node);
void run_queue(struct engine *e, struct now now);
/* Is the node there, fully reported, not fenced, and does it obey this store? */
bool node_ready(const struct engine *e, const struct uuid *node);
/* What is wrong with a node that is not ready, after its name. */
const char *node_absence(const struct engine *e, const struct uuid *node);
void because(struct dataset_entry *entry, struct now now, enum reason_code code, const char *text);
void becausef(struct dataset_entry *entry, struct now now, enum reason_code code, const char *format, ...) PRINTF_LIKE(4, 5);
/* The node is not ready. `code` unless it is fenced, or there but takes no orders. */
void because_absent(const struct engine *e, struct dataset_entry *entry, struct now now, enum reason_code code, const char *what,
                    const struct uuid *node);
const struct report *report_of(const struct dataset_entry *entry, const struct uuid *node);
const struct container_report *container_report_of(const struct container_entry *entry,
                                                   const struct uuid *node);
/* A node that owns data under the id of a dataset that nobody owns yet, and is not on its list: left from before the
 * store was replaced, or forgotten by it. NULL: none. */
const struct uuid *stranger_with_data(const struct dataset_entry *entry, const struct dataset *d);
/* Does the node on which it is wanted own data under the id, left in the same way? Then it is born: what is there is taken
 * over, moved when wanted elsewhere, and never dropped as something in which nothing was ever written. */
bool has_unknown_data(const struct dataset_entry *entry, const struct dataset *d);
/* engine_restored.c: a store that was put back from a copy. README.md says what it may decide. */

/* Does the record say what it said in the copy (or, of a new one, what the copy could not say)? */
bool is_of_copy(const struct engine *e, const struct dataset *d);
/* The same, and no operator has said since that the copy may be believed. */
bool is_doubted(const struct engine *e, const struct dataset *d);
/* Does the record's owner not have a doubted dataset mounted? Then it may have been fenced since, and another node be the owner. */
bool may_have_been_fenced(const struct engine *e, const struct dataset_entry *entry);
/* Is its data's place proven all the same, as the node has it mounted? */
bool is_mounted_on(const struct dataset_entry *entry, const struct uuid *node);
/* Is the other node kept out by the storage itself, which lets one node at a time attach the volume, and `node` has it? */
bool is_shut_out(const struct engine *e, const struct dataset_entry *entry, const struct uuid *node,
                 const struct uuid *other);
/* Has some node told that it has something of it, if only a mark? */
bool is_anywhere(const struct dataset_entry *entry);
/* Is the node ready, and all reported that it has? (One whose storage does not answer is ready, too.) */
bool node_has_told(const struct engine *e, const struct uuid *node);
/* A node that is here, and may have data under the dataset's id of which neither it nor the record has told; NULL: none. */
const struct uuid *untold_node(const struct engine *e, const struct dataset *d);
/* A node has told, or is gone: those that waited for that are looked at again. */
void queue_waiting_for_untold(struct engine *e);
/* Appends the nodes that the store knows, or has seen, and that have not told what they have, with "; " between. */
void append_nodes_away(const struct engine *e, struct str *s);
enum result_code store_adopt(struct engine *e, const struct command *c, struct command_result *r);
enum result_code dataset_adopt(struct engine *e, const struct command *c, struct command_result *r);

/* engine_command.c */
void grant_at_birth(struct engine *e, const struct dataset_entry *entry, struct dataset *d);
struct dataset *configured_again(const struct dataset *dropped, const struct dataset *wanted);
/* From the release order to the commit, and once a delete was ordered, nothing may hold the dataset any more. */
bool is_leaving(const struct engine *e, const struct uuid *dataset, const struct uuid *node);
/* May the dataset become that large? 0 = nothing is said about it. */
enum result_code check_size(const struct engine *e, const struct dataset *d, uint64_t size);

/* engine_compose.c */
enum result_code compose(struct engine *e, struct command *c, struct command_result *r);

bool report_is_mounted_at(const struct report *r, uint64_t epoch);

/* engine_orders.c */
void update_dataset_orders(struct engine *e, struct dataset_entry *entry);
void update_container_orders(struct engine *e, struct container_entry *entry);
void send_all_orders(struct engine *e, struct node_entry *node);
/* Does the agent of that node know all settings of the container? Also true of a node that was never here. An older one would
 * start it without those that it does not know. */
bool knows_settings(const struct engine *e, const struct container *c, const struct uuid *node);
char *unknown_settings_text(const struct engine *e, const struct container *c,
                            const struct uuid *node); /* the caller frees it */
/* Where the container is to run now: where all its datasets are to be mounted; and where its image is to be ready. Nil = nowhere. */
void container_places(const struct engine *e, const struct container *c, struct uuid *ret_run,
                      struct uuid *ret_prepare);

/* ---- engine_depends.c ---- */

void index_dependencies(struct engine *e, struct container_entry *entry); /* called by index_container() */
void dependencies_free(struct engine *e);
/* Something about the container `name` changed, or it came or went: tells those that depend on it. */
void update_dependents(struct engine *e, const char *name);
/* It has not been started anywhere, and must not be yet: something that it depends on is not as its condition says. */
bool is_held(const struct engine *e, const struct container_entry *entry);
/* Why it is, for people; the caller frees it. */
char *held_text(const struct engine *e, const struct container *c);
/* Of a new container, against what there is. */
enum result_code check_dependencies(struct engine *e, const struct container *c, struct command_result *r);

/* engine_depends.c, too: where it runs a node has told that it ended for good. That is written down, so that nobody starts it
 * again: a host that was started anew, or the one that it is moved to. */
void note_end(struct engine *e, struct container_entry *entry);
void note_ends(struct engine *e); /* of all: after the store failed */

/* engine_routes.c */
/* Call when the container, where it is to run, or the address of that node may have changed. */
void update_routes(struct engine *e, struct container_entry *entry);
void send_all_routes(struct engine *e, const struct node_entry *node); /* first contact */
void routes_free(struct engine *e);

/* engine_lists.c */
void lists_node_told(struct engine *e, struct now now, struct node_entry *n); /* all that it has */
void lists_reported(struct engine *e, const struct node_entry *n, const struct dataset_entry *d); /* news of it from the node */
void lists_node_left(struct engine *e, struct now now, const struct uuid *node); /* its session is over, or another begins */
uint64_t lists_deadline(const struct engine *e);
void look_at_lists(struct engine *e, struct now now);
void lists_free(struct engine *e);

/* engine_calls.c */
void calls_node_came(struct engine *e, struct now now, struct node_entry *n); /* a session begins */
void calls_node_left(struct engine *e, struct node_entry *n);
uint64_t calls_deadline(const struct engine *e);
void look_at_calls(struct engine *e, struct now now);
void calls_free(struct engine *e);

/* engine_volumes.c */
#define USES_UNMET_ONLY 1u
/* Lets leases follow what nodes have, after something changed that stood in the way. */
void settle_all_uses(struct engine *e, struct now now, unsigned flags);
void uses_forget(struct node_entry *n); /* its session is over */
void uses_of_lease_forget(struct engine *e, const struct lease *l); /* it is not to be taken again in this session */
/* What is left of the newest value when the API's part ends; NULL = nothing. */
struct lease *without_acquisition(struct lease_entry *entry);
/* Has the node mounts of it for Docker: by its committed lease, or, as it has it mounted, by what it says or has not said yet? */
bool may_be_used_by_docker(const struct engine *e, const struct dataset_entry *entry, const struct uuid *node);
char *lease_text(const struct engine *e, const struct lease *l); /* who holds what, for people; the caller frees it */
enum result_code volume_command(struct engine *e, struct now now, struct command *c, struct command_result *r);

/* engine_cordon.c */
enum result_code node_cordon(struct engine *e, const struct uuid *node, bool cordoned);
void committed_cordon(struct engine *e, const struct change *c);
void roll_back_cordon(struct engine *e, const struct uuid *node);
bool node_is_cordoned(const struct engine *e, const struct uuid *node); /* committed */
void cordons_free(struct engine *e);

/* engine_fence.c */
enum result_code node_fence(struct engine *e, struct now now, const struct command *c, struct command_result *r);
enum result_code node_unfence(struct engine *e, const struct uuid *node);
enum result_code copy_drop(struct engine *e, const struct command *c, struct command_result *r);
void committed_fence(struct engine *e, struct change *c);
void roll_back_fence(struct engine *e, const struct uuid *node);
void fences_free(struct engine *e);
/* Committed or about to be: it is given nothing. */
bool node_is_fenced(const struct engine *e, const struct uuid *node);
const struct fence *fence_of(const struct engine *e, const struct uuid *node); /* committed; NULL = none */
/* Ends those of nodes that are back as they are to be. */
void look_at_fences(struct engine *e, struct now now);
/* If the dataset's owner is fenced: proposes that nobody owns it, at a new epoch, and returns true. */
bool take_from_fenced(struct engine *e, struct dataset_entry *entry, struct now now);
/* Of a dataset that was taken from a fenced node and has no owner yet. */
void reconcile_freed(struct engine *e, struct dataset_entry *entry, struct now now);
/* Does the node keep what it had of the dataset when it was fenced, until somebody says that it is not wanted? */
bool keeps_copy(const struct engine *e, const struct dataset *d, const struct uuid *node);
/* All is as wanted: says so of copies that are kept. */
void note_kept_copies(const struct engine *e, struct dataset_entry *entry, struct now now);
