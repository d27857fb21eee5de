/* A container as configured (contract sections 1.2 and 1.4) and as observed on a node. */
#pragma once

#include "base/uuid.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct port {
    uint16_t internal;
    uint16_t external; /* 0 = any */
};

struct link {
    char *alias; /* lower case */
    uint16_t local_port;
    uint16_t remote_port;
};

struct env_entry {
    char *name;
    char *value;
};

enum restart_policy {
    RESTART_NEVER,
    RESTART_ALWAYS,
    RESTART_ON_FAILURE,
    RESTART_POLICY_MAX,
    RESTART_POLICY_INVALID = -1,
};

/* How a container is asked whether it is well. What is 0 or empty is as the image has it, else as the engine has it. */
struct health_check {
    char **test; /* "CMD" and a program with its arguments, or "CMD-SHELL" and a command; n_test 0 = the image's own */
    size_t n_test;
    bool disabled; /* it is not asked, whatever the image says; the rest is 0 */
    uint64_t interval_ms;
    uint64_t timeout_ms;
    uint64_t start_period_ms;
    uint32_t retries;
};

enum dependency_condition {
    DEPENDENCY_STARTED,   /* it runs, or ran and ended */
    DEPENDENCY_HEALTHY,   /* its health check says so */
    DEPENDENCY_COMPLETED, /* it ended with exit code 0 */
    DEPENDENCY_MAX,
    DEPENDENCY_INVALID = -1,
};

struct dependency {
    char *name; /* of a container of the same cluster */
    enum dependency_condition condition;
};

/* A dataset as the container sees it. */
struct container_volume {
    struct uuid dataset;
    char *mountpoint; /* absolute path inside the container */
    bool read_only;
};

#define NANO_CPUS 1000000000u /* of one processor */

struct container {
    char *name; /* without a leading '/' */
    uint64_t revision;
    uint64_t created; /* revision at which it was created; moves do not change it */
    struct uuid node;
    char *image; /* always repository:tag, or repository@digest */
    struct port *ports; /* sorted by internal, external */
    size_t n_ports;
    struct link *links; /* sorted by link_compare() */
    size_t n_links;
    struct env_entry *environment;
    size_t n_environment;
    char **command_line; /* NULL = the image's own */
    size_t n_command_line;
    bool has_command_line;
    uint32_t cpu_shares;   /* 0 = not set */
    uint64_t memory_limit; /* bytes; 0 = not set */
    uint32_t swappiness;   /* per cent; UINT32_MAX = not set */
    enum restart_policy restart_policy;
    uint32_t maximum_retry_count; /* on-failure only; 0 = without limit */
    struct container_volume
        *volumes; /* no dataset twice; in the order of mountpoint_compare(), none equal by it */
    size_t n_volumes;
    /* What container_is_extended() is about. */
    char **entrypoint; /* before command_line; empty = the image's is taken away */
    size_t n_entrypoint;
    bool has_entrypoint; /* false = the image's own */
    char *user;          /* NULL = the image's own, as the two below */
    char *working_dir;   /* absolute path inside the container */
    char *stop_signal;
    uint32_t stop_grace_ms; /* from that signal to SIGKILL; 0 = as agent.yml says */
    struct env_entry *labels; /* none of ours (CONTAINER_LABEL_RESERVED) */
    size_t n_labels;
    struct health_check *health; /* NULL = the image's own */
    uint64_t nano_cpus;          /* NANO_CPUS = one processor; 0 = without limit */
    struct dependency *depends_on; /* no name twice */
    size_t n_depends_on;
    bool ended; /* no setting: it has ended with status 0, its restart policy does not start it again, and so nobody does */
};

#define CONTAINER_LABEL_RESERVED "io.flocker." /* labels that begin so are ours */

/* For qsort(): by alias, local port, remote port. */
int link_compare(const void *a, const void *b);
/* Brings the aliases to lower case, and the links into their order. */
void container_settle_links(struct container *c);
/* Of absolute paths, part by part: 0 when both are the same place; one inside the other comes after it. */
int mountpoint_compare(const char *a, const char *b);
/* Brings the volumes into their order. */
void container_settle_volumes(struct container *c);
/* Appends a volume; the mountpoint is copied. */
void container_add_volume(struct container *c, const struct uuid *dataset, const char *mountpoint,
                          bool read_only);

struct container *container_new(const char *name);
struct container *container_copy(const struct container *c);
struct container *container_free(struct container *c); /* accepts NULL; returns NULL */
/* true when both would be started with the same settings: what only says where and when (name, node, revision, depends_on)
 * is not compared. */
bool container_same_settings(const struct container *a, const struct container *b);
bool container_same_dependencies(const struct container *a, const struct container *b);

/* true when it has settings that agents and records of format 1 do not know. */
bool container_is_extended(const struct container *c);
/* true when its volumes are more than agents and records of format 2 know: several, or a read-only one. */
bool container_has_more_volumes(const struct container *c);
bool container_uses(const struct container *c, const struct uuid *dataset);

/* NULL when there is none of that name. */
const struct dependency *container_dependency(const struct container *c, const char *name);

/* "started", "healthy", "completed". */
const char *dependency_condition_name(enum dependency_condition d);
enum dependency_condition dependency_condition_parse(const char *name);

/* "never", "always", "on-failure". */
const char *restart_policy_name(enum restart_policy p);
enum restart_policy restart_policy_parse(const char *name);

/* What a node's container engine says about one container that carries our labels. */
enum container_run {
    CONTAINER_ABSENT,
    CONTAINER_CREATED, /* made, never started */
    CONTAINER_RUNNING,
    CONTAINER_EXITED,
    CONTAINER_RUN_MAX,
    CONTAINER_RUN_INVALID = -1,
};

/* What the health check says of a container that runs. */
enum container_health {
    HEALTH_NONE, /* it has no check */
    HEALTH_STARTING,
    HEALTH_HEALTHY,
    HEALTH_UNHEALTHY,
    CONTAINER_HEALTH_MAX,
};

/* "starting", "healthy", "unhealthy"; NULL for HEALTH_NONE. */
const char *container_health_name(enum container_health h);

/* What a container is made from, in short: equal settings have the same text, others another one (XXH3, 128 bits; not
 * made against malice). Where it runs, when it was configured, and after which others it starts, make no difference. Settings that are left out must
 * not change the text, nor may those that later versions add, else an upgrade would make all containers anew. */
#define CONTAINER_SPEC_SIZE 33
void container_spec(const struct container *c, char ret_spec[CONTAINER_SPEC_SIZE]);

struct container_state {
    char *name; /* as configured, without the engine's prefix */
    enum container_run run;
    uint64_t created;  /* of the configuration it was made from (label) */
    struct uuid era;   /* boot id under which it was made (label) */
    int exit_code;     /* of the last run; meaningful in CONTAINER_EXITED */
    enum container_health health;
    char spec[CONTAINER_SPEC_SIZE]; /* of the configuration it was made from (label); "" = not known */
    char *last_words;               /* CONTAINER_EXITED: the end of its output, on one line; or NULL */
};

void container_state_done(struct container_state *s);
