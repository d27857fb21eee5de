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
    bool has_volume;
    struct uuid dataset;
    char *mountpoint; /* absolute path inside the container */
};

/* For qsort(): by alias, local port, remote port. */
int link_compare(const void *a, const void *b);
/* Brings the aliases to lower case, and the links into their order. */
void container_settle_links(struct container *c);

struct container *container_new(const char *name);
struct container *container_copy(const struct container *c);
struct container *container_free(struct container *c); /* accepts NULL; returns NULL */
/* true when both would be started with the same settings (name, node and revision are not compared). */
bool container_same_settings(const struct container *a, const struct container *b);

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

struct container_state {
    char *name; /* as configured, without the engine's prefix */
    enum container_run run;
    uint64_t created;  /* of the configuration it was made from (label) */
    struct uuid era;   /* boot id under which it was made (label) */
    int exit_code;     /* of the last run; meaningful in CONTAINER_EXITED */
};

void container_state_done(struct container_state *s);
