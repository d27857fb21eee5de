/* A whole cluster in one thread: the real engine and node brains, with simulated clock, network, store, disks,
 * container engines and users. One seed gives one run, event by event; README.md in this folder says what is modelled
 * and what is checked. */
#pragma once

#include "core/engine.h"
#include "core/node.h"

#include <stdio.h>

#define MAX_NODES 8
#define MAX_HOSTS (MAX_NODES + 1) /* one more: a machine with a copy of node 0's certificate */
#define MAX_DATASETS 4
#define MAX_CONTAINERS                                                                             \
    (MAX_DATASETS +                                                                                \
     2) /* one a group of datasets, by the number of its first; and two without a volume */
#define MAX_SNAPSHOTS 40
#define MAX_MOUNTS 3 /* of one host */
#define MAX_CALLS 4096
#define MAX_INJECTED 4096 /* faults, and likewise commands, of a run */
#define VERIFIERS (UINT64_MAX - 1) /* id of the commands of those who have replicas compared */
#define OPERATORS UINT64_MAX /* id of the commands of whoever settles a store that was put back */
#define SETTLE_US                                                                                  \
    (150 * USEC_PER_SEC) /* so long after the last fault everything must be as wanted */

enum violation {
    V_NONE,
    V_TWO_WRITERS,
    V_LOST_WRITE,
    V_STORE,
    V_LEASE,
    V_RESURRECTED,
    V_RECREATED,
    V_DEVICE,
    V_NO_REASON,
    V_UNSETTLED,
    V_NUMBERS,
    V_TOO_EARLY,
    V_ALONE,
    V_AGAIN,
    V_SESSION,
    V_BACKOFF,
    V_TAG,
    V_COMPARISON,
    V_SIMULATOR, /* it contradicts itself */
    V_MAX,
};
const char *violation_name(enum violation v);

/* What the world does to the cluster; each run has its own mix. */
enum nuisance {
    N_AGENT_KILL,
    N_AGENT_TWICE,
    N_HOST_REBOOT,
    N_HOST_DEAD,
    N_HOST_SUSPEND,
    N_CONTROL_KILL,
    N_CLOCK_JUMP,
    N_PARTITION,
    N_ONE_WAY,
    N_BREAK,
    N_SLOW_NET,
    N_SLOW_STORE,
    N_FULL_STORE,
    N_SLOW_DISK,
    N_BAD_DISK,
    N_VANISH,
    N_WIPE,
    N_CONTAINER_CRASH,
    N_CRASH_LOOP,
    N_DOCKER_RESTART,
    N_PULL_FAILS,
    N_LAGGING_LISTS,
    N_CLONE,
    N_RESTORE,
    N_POWER_OFF, /* an operator switches a host off, signs that, and maybe switches it on again */
    N_MAX,
};

struct sim_options {
    uint64_t seed;
    unsigned nodes, datasets; /* 0 = by the seed */
    uint64_t until_us;        /* faults and commands end then; 0 = by the seed */
    const bool *skip_faults;  /* of MAX_INJECTED, by index; NULL = none is left out */
    const bool *skip_commands;
    bool restores; /* the store may be lost and put back in every run, not in some */
    bool trace;    /* print what happens */
    bool remember; /* keep the last lines of it for the result */
};

#define LAST_LINES 40
#define LINE_SIZE 240

struct sim_result {
    enum violation violation; /* V_NONE: all went well */
    char why[512];
    uint64_t at_us, end_faults_us;
    unsigned nodes, datasets, faults, commands; /* how many there were, also those left out */
    uint64_t events, moves, writes;
    char last[LAST_LINES][LINE_SIZE];
    unsigned n_last; /* the newest is last[(n_last - 1) % LAST_LINES] */
};

void sim_run(const struct sim_options *options, struct sim_result *ret);

/* ---- the world ---- */

struct sim_snapshot {
    char name[SNAPSHOT_NAME_SIZE];
    uint64_t version, life;
    bool damaged; /* a replica that was changed behind everybody's back */
};

/* Bytes of one dataset on one host. */
struct sim_volume {
    bool present;
    bool partial; /* half a stream, or half a promotion */
    uint64_t version,
        life;      /* content: number of the last write in it; of which creation under the id */
    uint64_t size; /* local: its limit; 0 = none */
    struct volume_mark mark;
    struct sim_snapshot snapshots[MAX_SNAPSHOTS];
    size_t n_snapshots;
    bool mounted;       /* volatile, like the rest */
    bool pulled;        /* attachable: its device went away while it was mounted */
    unsigned device;    /* attachable: slot it was mounted from */
    uint64_t announced; /* transfer that the mover takes */
    struct uuid announced_from;
    bool only_compare;
    uint64_t differed; /* the transfer whose copy was once found to be another; stays */
};

struct sim_container {
    bool running;
    bool here; /* exists, maybe exited */
    uint64_t created;
    struct uuid era;
    char spec[CONTAINER_SPEC_SIZE];
    bool uses[MAX_DATASETS];
    uint64_t crash_us; /* when it dies; 0 = not */
    uint64_t started_us;
    bool is_job;   /* it is not started again when it ends well */
    int exit_code; /* of the last run */
};

/* A mount that the agent has given out, or is about to, by what is on its disk. */
enum sim_mount_state {
    SIM_MOUNT_NONE,
    SIM_MOUNT_ASKS,  /* it wants the lease */
    SIM_MOUNT_WAITS, /* it has it, and waits for the volume */
    SIM_MOUNT_RUNS,  /* a container writes */
    SIM_MOUNT_LOST,  /* the container is gone, and the agent does not know */
};

struct sim_mount {
    enum sim_mount_state state;
    unsigned dataset;
    uint64_t number;
    uint64_t call; /* not answered yet; 0 = none */
    uint64_t epoch;
    uint64_t until_us;
    bool promised; /* it was told that it has the lease, and nothing was taken back since */
};

struct sim_host {
    struct uuid id, era; /* two hosts with one id: a copied certificate */
    struct node *brain;  /* NULL: the agent is not running */
    uint64_t random_state;
    bool up, dead;               /* dead: never comes back */
    bool to_fence;               /* an operator looks after it since it went off */
    bool fencing;                /* and has signed that it is off: leases that were promised there are none any more */
    uint64_t back_us;            /* he saw it then, back and still fenced; 0 = not */
    uint64_t suspended_until_us; /* nothing happens on it before; 0 = awake */
    uint64_t incarnation;        /* of the agent */
    uint64_t tick_us;            /* when it is woken; 0 = not */
    struct node_memory memory;   /* durable */
    struct sim_volume volumes[MAX_DATASETS];
    struct sim_container containers[MAX_CONTAINERS];
    struct sim_list *last_list; /* of volumes: the backend's answer may still be that */
    int slots[MAX_DATASETS +
              2];          /* attachable: device names; which volume is behind each, -1 = none */
    bool cut_up, cut_down; /* to, and from, the control service; with both also from other nodes */
    bool hidden;           /* ... until what hides it ends */
    unsigned bad_disk_percent; /* so many of a hundred steps fail */
    uint64_t slow_disk_us, bad_disk_us, docker_down_us, pull_fails_us, crash_loop_us; /* until */
    uint64_t session; /* the agent's end; 0 = none */
    struct sim_mount mounts[MAX_MOUNTS];
    uint64_t volumes_session; /* in which calls can be made; 0 = none */
    int routes[MAX_CONTAINERS]; /* where the port of each container leads; 0 = nowhere else, else 1 + the node */
};

struct sim_lease {
    bool promised; /* acknowledged and not released */
    unsigned node;
    uint64_t until_us; /* not before */
};

struct sim_dataset {
    uint64_t number; /* highest number given out for it, in all its lives */
    struct uuid id;
    uint64_t acked;        /* last write a container was told is safe */
    uint64_t life;         /* how often a dataset was created under the id */
    bool exists;           /* its create was acknowledged */
    bool deleted;          /* its delete was acknowledged */
    bool busy;             /* a command about it is unanswered */
    bool container_exists; /* of the group's first: its container */
    bool lost;             /* a disk with a copy of it is gone: it may stay where it is */
    bool wiped;            /* all that was written was on a disk that is gone */
    struct sim_lease lease;
    uint64_t releases; /* how often what was promised to mounts was taken back */
    uint64_t compared; /* number of the comparison that was made last, maybe more than once, and what it showed */
    bool compared_equal, compared_different;
};

enum event_kind {
    EV_TO_CONTROL,
    EV_TO_AGENT,
    EV_STEP_DONE,
    EV_PERSISTED,
    EV_COMMITTED,
    EV_AGENT_CLOSED,   /* the agent notices that its session is gone */
    EV_CONTROL_CLOSED, /* the control service notices */
    EV_CONNECT,
    EV_CONTROL_TICK,
    EV_AGENT_TICK,
    EV_WRITE,
    EV_MOUNTS,
    EV_COMMAND,
    EV_FAULT,
    EV_HEAL,
    EV_UNDO, /* a fault that lasts ends */
    EV_AGENT_START,
    EV_HOST_START,
    EV_HOST_RESUME,
    EV_CONTROL_START,
    EV_VOLUME_CHANGED,
    EV_CONTAINER_DIES,
    EV_CONTAINERS_CHANGED,
    EV_ADOPT, /* an operator looks whether the node refuses its store */
    EV_LOSE_STORE,
    EV_SETTLE, /* an operator looks whether the store was put back and all nodes are there */
    EV_LATE_ATTACH, /* an order of an agent that has died */
    EV_FENCE, /* an operator looks whether the host is off, or back */
    EV_LOOK,  /* has it settled? */
    EV_MAX,
};

struct sim_message; /* sim_net.c */

/* What a list step saw. */
struct sim_list {
    struct volume_state volumes[MAX_DATASETS];
    struct container_state containers[MAX_CONTAINERS];
    size_t n_volumes, n_containers;
    bool fails;
};

struct event {
    uint64_t at, seq;
    enum event_kind kind;
    unsigned host;
    uint64_t session;
    uint64_t incarnation; /* of the agent or the control service it belongs to */
    uint64_t number;
    const struct batch *batch;
    struct step step;
    struct node_memory memory;
    struct sim_list
        *list;       /* a list says what was there when it began; steps may have been done since */
    unsigned cut_at; /* the step fails at its n-th part; 0 = not */
    bool fails_before, fails_after;
    bool taken;    /* SEND: the peer's mover took the stream when it began */
    bool cancelled;
    bool settling; /* the agent died in the step */
};

struct sim_session {
    uint64_t number;
    unsigned host;
    uint64_t agent, control; /* incarnations at its ends */
    bool agent_open, control_open;
    bool dead; /* nothing passes any more */
    bool greeted;
    uint64_t ended_us; /* when the engine ended it, after it was greeted; 0 = not */
    struct sim_message *up, **up_last, *down, **down_last;
    uint64_t last_up_us, last_down_us; /* delivery times so far: a stream keeps its order */
};

struct sim_store {
    struct history history;
    uint64_t revision;
    struct dataset *datasets[MAX_DATASETS];
    struct container *containers[MAX_CONTAINERS];
    struct lease *leases[MAX_DATASETS];
    struct fence *fences[MAX_NODES];
    uint64_t slow_us, full_us; /* until */
    bool
        frozen; /* opened on a full disk, without a generation: it takes no commit until it is opened again */
};

struct sim_command {
    uint64_t id;
    unsigned subject; /* index of the dataset or container */
    enum command_kind kind;
    unsigned node;
    uint64_t until_us; /* LEASE_ACQUIRE */
    uint64_t
        tag_changes; /* as many acknowledged changes were known when the tag was read; UINT64_MAX = no tag */
};

/* What users were told is configured. */
struct sim_promises {
    bool datasets[MAX_DATASETS], containers[MAX_CONTAINERS];
};

struct sim {
    struct sim_options options;
    struct sim_result *result;
    uint64_t random_state, engine_random_state, mount_random_state;
    struct random random;
    uint64_t now_us, end_faults_us, end_us, seq;
    int64_t wall_us; /* the control service's wall clock: ahead of the true one by that */
    bool wall_jumped;
    bool nuisances[N_MAX];
    unsigned fault_gap_us;
    struct event **heap;
    size_t n_heap, cap_heap;
    bool done;

    struct engine *engine; /* NULL: the control service is not running */
    uint64_t control_incarnation, control_tick_us;
    struct sim_store store, backup;
    bool has_backup;
    uint64_t backup_lives[MAX_DATASETS];
    bool restored, emptied;
    bool
        blind; /* the backup does not know of data that were written since: what becomes of them is not judged */
    struct sim_session **sessions; /* by number - 1 */
    size_t n_sessions, cap_sessions;

    unsigned n_nodes, n_hosts, n_datasets, n_containers;
    enum storage_kind storage;
    uint64_t keep_replicas_us;
    unsigned group
        [MAX_DATASETS]; /* the first dataset of those that may be in the same container: its number */
    struct sim_host hosts[MAX_HOSTS];
    struct sim_dataset datasets[MAX_DATASETS];
    uint64_t container_started
        [MAX_CONTAINERS]; /* `created` of the newest configuration that was started; 0 = none */
    bool container_exists[MAX_CONTAINERS],
        container_busy[MAX_CONTAINERS]; /* those without a volume */
    struct {
        bool present, formatted;
        bool attached;
        unsigned host; /* where the one volume is attached */
        uint64_t version, life;
        uint64_t size; /* 0: as it was made; a person may have made it larger */
    } shared[MAX_DATASETS]; /* attachable storage */
    uint64_t slow_net_us;

    uint64_t next_mount, next_call;
    uint64_t call_sessions[MAX_CALLS], call_releases[MAX_CALLS]; /* by number */

    struct sim_command commands[512];
    uint64_t next_command;
    uint64_t acknowledged_changes;
    char *old_tag;
    uint64_t old_tag_changes;
    bool composing;    /* a COMPOSE is unanswered: what it may change is not promised */
    unsigned composes; /* so many of a hundred commands replace all configuration */
    struct sim_promises composed, before_compose;
    bool engine_touched;
    bool
        cloned; /* two machines were one node in turns: what they do to its data is the operator's mistake */
    uint64_t settled_us;
};

/* sim.c */
uint64_t sim_random(struct sim *s, uint64_t bound);
bool sim_chance(struct sim *s, unsigned percent);
struct now sim_now(const struct sim *s);
struct now sim_control_now(const struct sim *s);
struct event *sim_schedule(struct sim *s, uint64_t delay_us, enum event_kind kind, unsigned host);
struct event *sim_schedule_for_agent(struct sim *s, uint64_t delay_us, enum event_kind kind,
                                     unsigned host);
void sim_violation(struct sim *s, enum violation v, const char *fmt, ...) PRINTF_LIKE(3, 4);
void sim_trace(struct sim *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
int sim_dataset_index(const struct sim *s, const struct uuid *id); /* -1 = none of ours */
int sim_node_index(const struct sim *s, const struct uuid *id);
unsigned sim_container_index(const char *name);
bool sim_faults(const struct sim *s); /* faults are still being injected */
bool sim_until(const struct sim *s, uint64_t until_us);
bool sim_suspended(const struct sim *s, unsigned host);
bool sim_is_shared(const struct sim *s);
bool sim_knows_routes(const struct sim *s, unsigned host); /* some agents are older */
bool sim_looks_often(const struct sim *s); /* agents compare what they know with what is every few seconds */
bool sim_shares_lists(const struct sim *s, unsigned host); /* shared storage; some agents are older */
bool sim_is_short_of_space(const struct sim *s, unsigned host);

/* sim_net.c */
void sim_take_engine_effects(struct sim *s);
void sim_take_node_effects(struct sim *s, unsigned host);
void sim_deliver(struct sim *s, const struct event *ev);
void sim_connect(struct sim *s, unsigned host);
/* The connection is gone; each end notices in its own time, of which at most so much passes. */
void sim_break_session(struct sim *s, unsigned host, uint64_t agent_us, uint64_t control_us);
void sim_agent_gone(struct sim *s, unsigned host);
void sim_agent_closed(struct sim *s, const struct event *ev);
void sim_control_closed(struct sim *s, const struct event *ev);
void sim_net_healed(struct sim *s, unsigned host);
void sim_send_call(struct sim *s, unsigned host, const struct volume_call *c);
void sim_send_use(struct sim *s, unsigned host, const struct volume_use *u); /* NULL: all were told */
void sim_send_answer(struct sim *s, uint64_t session, const struct volume_answer *a);
void sim_net_done(struct sim *s);

/* sim_disk.c */
struct err *sim_dataset_step(struct sim *s, unsigned host, struct event *ev, unsigned d);
void sim_begin_stream(struct sim *s, struct event *ev, unsigned d);
void sim_observe(const struct sim *s, unsigned host, unsigned d, struct volume_state *ret);
void sim_volumes_down(struct sim *s, unsigned host); /* what is volatile of them is gone */
bool sim_volume_is_blank(const struct sim *s, unsigned host, unsigned d);
/* On local storage: all that was acknowledged is there, as a volume or as what the owner released it with. */
bool sim_has_newest(const struct sim *s, unsigned host, unsigned d);
/* Changes the replica of the dataset, if there is one. */
void sim_damage_replica(struct sim *s, unsigned d);
void sim_vanish(struct sim *s, unsigned host, unsigned d);
/* Attaches the volume if it is attached nowhere. */
void sim_attach_late(struct sim *s, unsigned host, unsigned d);

/* sim_container.c */
struct err *sim_container_step(struct sim *s, unsigned host, struct event *ev);
#define SIM_PORT 1000 /* the external port of container 0; the next ones follow */
void sim_set_routes(struct sim *s, unsigned host, const struct step *step);
void sim_list_containers(struct sim *s, unsigned host, struct sim_list *list);
void sim_containers_down(struct sim *s, unsigned host);
void sim_container_dies(struct sim *s, unsigned host, unsigned c);
void sim_write(struct sim *s, unsigned host);

/* sim_mount.c */
bool sim_has_mounts(const struct sim *s);
bool sim_knows_volumes(const struct sim *s, unsigned host);
void sim_mounts_turn(struct sim *s);
#define SIM_PROMISED 1u /* and was promised that it stays */
bool sim_mount_runs(const struct sim *s, unsigned host, unsigned d, unsigned flags);
/* Somewhere a container runs on it to which nothing is promised (any more): the volume cannot leave there. */
bool sim_mount_clings(const struct sim *s, unsigned d);
void sim_mounts_device_gone(struct sim *s, unsigned host, unsigned d);
void sim_mounts_agent_dies(struct sim *s, unsigned host);
void sim_mounts_host_dies(struct sim *s, unsigned host);
void sim_mounts_unpromised(struct sim *s, unsigned d);
/* Where a lease by the API is there again, as the store was put back, and a container runs elsewhere that got the lease since: somebody
 * had released it, and does so again. */
void sim_mounts_release_again(struct sim *s, unsigned d);
void sim_mounts_session(struct sim *s, unsigned host, uint64_t session); /* 0: it is over */
void sim_mounts_call(struct sim *s, uint64_t session, const struct volume_call *c);
bool sim_mounts_reply(struct sim *s, uint64_t id, const struct command_result *r); /* false: to another command */
void sim_mounts_answer(struct sim *s, unsigned host, const struct volume_answer *a);
void sim_mounts_check_lease(struct sim *s, unsigned d, const struct lease *l); /* just committed */
const char *sim_mounts_unsettled(const struct sim *s, unsigned d, char *buf, size_t size);

/* sim_life.c: processes and hosts that start and stop, and the steps that agents run */
void sim_start_agent(struct sim *s, unsigned host);
void sim_kill_agent(struct sim *s, unsigned host);
void sim_start_host(struct sim *s, unsigned host);
void sim_kill_host(struct sim *s, unsigned host);
void sim_start_control(struct sim *s);
void sim_kill_control(struct sim *s);
void sim_list_free(struct sim_list *list);
void sim_remember(struct sim *s, unsigned host, const struct node_memory *news);
void sim_begin_step(struct sim *s, unsigned host, struct step *step);
void sim_run_step(struct sim *s, struct event *ev);
void sim_cancel_step(struct sim *s, unsigned host, uint64_t step);
void sim_store_done(struct sim_store *st);
/* The store comes back as it was in the backup, or empty. Returns a node that has what the backup does not know to be
 * written, or n_nodes. */
unsigned sim_restore(struct sim *s, bool empty);
void sim_back_up(struct sim *s);
void sim_adopt(struct sim *s, unsigned host);
void sim_settle(struct sim *s);
void sim_fence(struct sim *s, unsigned host);
void sim_commit(struct sim *s, const struct batch *b);

/* sim_fault.c */
void sim_plan_faults(struct sim *s);
void sim_inject(struct sim *s, unsigned index);
void sim_undo(struct sim *s, const struct event *ev);
void sim_heal(struct sim *s);
/* Soon after a backup that knows least of what comes. */
void sim_lose_store(struct sim *s, unsigned host);

/* sim_user.c */
void sim_issue(struct sim *s, unsigned index);
void sim_reply(struct sim *s, uint64_t id, const struct command_result *r);
void sim_lease_gone(struct sim *s, unsigned d);

/* sim_check.c */
void sim_check(struct sim *s);
/* Of one life of the dataset, on both hosts? */
bool sim_same_data(const struct sim *s, unsigned d, unsigned i, unsigned k);
/* Is everything as wanted, and nothing left over? The first thing that is not, or NULL. */
const char *sim_unsettled(struct sim *s, char *buf, size_t size);

/* shrink.c: prints a shorter run that fails in the same way; returns the exit status. */
int sim_shrink(const struct sim_options *options);
