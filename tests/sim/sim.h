/* A whole cluster in one thread: the real engine and node brains, with simulated clock, network, disks, containers
 * and crashes. One seed gives one run, event by event. */
#pragma once

#include "core/engine.h"
#include "core/node.h"

#include <stdio.h>

#define MAX_NODES 5
#define MAX_DATASETS 4
#define MAX_SNAPSHOTS 512

struct sim_snapshot {
    char name[SNAPSHOT_NAME_SIZE];
    uint64_t version;
};

/* Bytes of one dataset on one node. */
struct sim_volume {
    bool present;
    uint64_t version; /* content: number of the last write in it */
    struct volume_mark mark;
    struct sim_snapshot snapshots[MAX_SNAPSHOTS];
    size_t n_snapshots;
    bool mounted; /* volatile */
    /* A container on it; volatile. */
    bool running;
    bool here; /* exists, maybe exited */
    uint64_t created;
    struct uuid container_era;
    uint64_t announced; /* transfer that the mover takes; volatile with the agent */
    unsigned announced_from;
};

struct sim_node {
    struct uuid id, era;
    struct node *brain; /* NULL: the agent is not running */
    bool host_up;
    uint64_t incarnation; /* of the agent */
    struct node_memory memory; /* durable */
    struct sim_volume volumes[MAX_DATASETS];
    bool partitioned;
    uint64_t session;      /* the agent's end; 0 = none */
    uint64_t last_up, last_down; /* delivery times so far: a stream keeps its order */
};

struct sim_dataset {
    struct uuid id;
    char container[16]; /* name, "" = none configured by us */
    uint64_t acked;     /* last write a container was told is safe */
    bool exists;        /* its create was acknowledged */
    bool deleted;       /* its delete was acknowledged */
    bool busy;          /* a command about it is unanswered */
    bool container_busy;
    bool container_exists;
    bool lost;          /* a disk with a copy of it was wiped: it may stay where it is */
    bool leased;        /* acknowledged and not released */
    unsigned lease_node;
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
    EV_WORKLOAD,
    EV_FAULT,
    EV_AGENT_START,
    EV_HOST_START,
    EV_CONTROL_START,
    EV_VOLUME_CHANGED,
    EV_MAX,
};

struct sim_message; /* sim_net.c */

struct event {
    uint64_t at, seq;
    enum event_kind kind;
    unsigned node;
    uint64_t session;
    uint64_t incarnation; /* of the agent or the control service it belongs to */
    uint64_t number;      /* batch, step */
    struct sim_message *message;
    struct step step;
    struct node_memory memory;
    /* A list says what was there when it began; steps may have been done since. */
    struct volume_state volumes[MAX_DATASETS];
    struct container_state containers[MAX_DATASETS];
    size_t n_volumes, n_containers;
    bool fails_before, fails_after;
    bool orphaned; /* the agent died in it; what it had begun is being finished now */
};

struct sim {
    uint64_t seed, random_state;
    struct random random;
    uint64_t now_us, end_faults_us, end_us, seq;
    bool trace;
    bool wipes; /* disks fail in this run */
    struct event **heap;
    size_t n_heap, cap_heap;

    struct engine *engine; /* NULL: the control service is not running */
    uint64_t control_incarnation;
    struct history history;
    uint64_t store_revision;
    struct dataset *stored[MAX_DATASETS];
    struct container *stored_containers[MAX_DATASETS];
    struct lease *stored_leases[MAX_DATASETS];
    uint64_t next_session, next_command;
    unsigned session_node[1 << 16]; /* which node a session number belongs to */

    unsigned n_nodes, n_datasets;
    enum storage_kind storage;
    struct sim_node nodes[MAX_NODES];
    struct sim_dataset datasets[MAX_DATASETS];
    struct {
        bool attached;
        unsigned node; /* attachable storage: where the one volume is attached */
        bool present;
        uint64_t version;
    } shared[MAX_DATASETS];

    struct {
        uint64_t id;
        unsigned dataset;
        enum command_kind kind;
        unsigned node;
    } commands[1 << 14];
    uint64_t moves, writes, events;
    bool failed;
    char why[512];
};

/* sim.c */
uint64_t sim_random(struct sim *s, uint64_t bound);
bool sim_chance(struct sim *s, unsigned percent);
struct now sim_now(const struct sim *s);
struct event *sim_schedule(struct sim *s, uint64_t delay_us, enum event_kind kind, unsigned node);
void sim_violation(struct sim *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
void sim_trace(struct sim *s, const char *fmt, ...) PRINTF_LIKE(2, 3);
unsigned sim_dataset_index(const struct sim *s, const struct uuid *id);
unsigned sim_node_index(const struct sim *s, const struct uuid *id);
bool sim_faults(const struct sim *s); /* faults are still being injected */

/* sim_net.c */
void sim_take_engine_effects(struct sim *s);
void sim_take_node_effects(struct sim *s, unsigned node);
void sim_deliver_to_control(struct sim *s, struct event *ev);
void sim_deliver_to_agent(struct sim *s, struct event *ev);
void sim_connect(struct sim *s, unsigned node);
void sim_break_session(struct sim *s, unsigned node);
void sim_message_free(struct sim_message *m);

/* sim_disk.c */
void sim_run_step(struct sim *s, struct event *ev);
/* Makes the list that a list step is going to tell. */
void sim_look(struct sim *s, struct event *ev);
bool sim_is_mounted_anywhere_else(const struct sim *s, unsigned dataset, unsigned node);
void sim_host_down(struct sim *s, unsigned node);
