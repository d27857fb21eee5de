/* Inside flockerctl: what its commands share. A command is a function over the parsed options; it
 * prints its result on standard output and returns an error that main prints. */
#pragma once

#include "cli/api.h"
#include "base/options.h"
#include "cli/text.h"

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* Options of all commands; each command's table says which of them it takes. */
struct ctl_args {
    bool json;    /* -o json */
    bool details; /* --long */
    bool deleted;
    bool yes;
    bool wait;
    bool no_wait;
    bool force;
    long wait_seconds;
    bool look_once; /* with wait_seconds 0: not a wait that was too long, and not called so */
    const char *node;
    const char *dataset;
    const char *destination;
    const char *reason;
    json_t *metadata; /* object; owned */
    uint64_t size;
    json_t *container; /* create-container: the API's body, as far as options say it; owned */
    json_t *volumes;   /* likewise, "DATASET:/mountpoint" and "DATASET:/mountpoint:ro"; owned */
    char **operands;
    int n_operands;
};

struct ctl {
    const struct ctl_args *args;
    struct api *api;             /* NULL for a command that needs none */
    const char *control_service; /* as configured, or NULL */
};

/* Options of create-container. */
enum {
    OPT_VOLUME = 200,
    OPT_PUBLISH,
    OPT_ENV,
    OPT_LABEL,
    OPT_RESTART,
    OPT_MEMORY,
    OPT_CPU_SHARES,
    OPT_CPUS,
    OPT_ENTRYPOINT,
    OPT_RUN_AS,
    OPT_WORKDIR,
    OPT_STOP_SIGNAL,
    OPT_STOP_GRACE,
    OPT_DEPENDS_ON,
    OPT_HEALTH_CMD,
    OPT_HEALTH_INTERVAL,
    OPT_HEALTH_TIMEOUT,
    OPT_HEALTH_START,
    OPT_HEALTH_RETRIES,
    OPT_NO_HEALTH,
};
/* Takes one of them. */
struct err *ctl_take_container_option(struct ctl_args *a, int id, const char *value) MUST_USE;
/* The request of create-container; the caller drops the reference. */
struct err *ctl_container_body(struct ctl *c, const char *node, json_t **ret_body) MUST_USE;

/* The commands. */
struct err *ctl_list_nodes(struct ctl *c) MUST_USE;
struct err *ctl_version(struct ctl *c) MUST_USE;
struct err *ctl_list(struct ctl *c) MUST_USE;
struct err *ctl_create(struct ctl *c) MUST_USE;
struct err *ctl_destroy(struct ctl *c) MUST_USE;
struct err *ctl_move(struct ctl *c) MUST_USE;
struct err *ctl_grow(struct ctl *c) MUST_USE;
struct err *ctl_set_metadata(struct ctl *c) MUST_USE;
struct err *ctl_adopt(struct ctl *c) MUST_USE;
struct err *ctl_list_replicas(struct ctl *c) MUST_USE;
struct err *ctl_drop_replica(struct ctl *c) MUST_USE;
struct err *ctl_verify(struct ctl *c) MUST_USE;
struct err *ctl_ps(struct ctl *c) MUST_USE;
struct err *ctl_create_container(struct ctl *c) MUST_USE;
struct err *ctl_destroy_container(struct ctl *c) MUST_USE;
struct err *ctl_move_container(struct ctl *c) MUST_USE;
struct err *ctl_leases(struct ctl *c) MUST_USE;
struct err *ctl_release(struct ctl *c) MUST_USE;
struct err *ctl_show(struct ctl *c) MUST_USE;
/* Of a container's detail: "running", "running (healthy)", "exited (3)"; the caller frees it. */
char *ctl_container_state(const json_t *detail);
struct err *ctl_why(struct ctl *c) MUST_USE;
struct err *ctl_events(struct ctl *c) MUST_USE;
struct err *ctl_drain(struct ctl *c) MUST_USE;
struct err *ctl_cordon(struct ctl *c) MUST_USE;
struct err *ctl_uncordon(struct ctl *c) MUST_USE;
struct err *ctl_fence(struct ctl *c) MUST_USE;
struct err *ctl_unfence(struct ctl *c) MUST_USE;
struct err *ctl_drop_copy(struct ctl *c) MUST_USE;

/* ---- shared by the commands ---- */

/* A list from the API (an array, or an error); the caller drops the reference. */
struct err *ctl_get_list(struct ctl *c, const char *path, json_t **ret_list) MUST_USE;
void json_dropp(json_t **j);
#define CLEANUP_JSON CLEANUP(json_dropp)

/* The string under `key`; "" when there is none. Borrowed. */
const char *ctl_text(const json_t *object, const char *key);
/* Prints indented JSON and a newline. */
void ctl_print_json(const json_t *j);
/* Array of objects -> object of them by the string under `key`. Of two alike the later stays. */
json_t *ctl_index(const json_t *list, const char *key);
/* The nodes of /v1/state/nodes by uuid; the caller drops the reference. */
struct err *ctl_get_nodes(struct ctl *c, json_t **ret_nodes) MUST_USE;
/* Sorts an array of objects by the string under `key`. */
void ctl_sort(json_t *list, const char *key);

/* Who holds a lease, and since when; the caller frees it. */
char *ctl_lease_text(const json_t *lease, const json_t *nodes);
/* Where a replica is, and until when; the caller frees it. */
char *ctl_replica_text(const json_t *replica, const json_t *nodes);
/* How a comparison of a replica went, and when; the caller frees it. */
char *ctl_verification_text(const json_t *verification, const json_t *nodes);
/* Looks up the node or dataset that `text` means; *ret_id is owned by the caller. */
struct err *ctl_find_node(struct ctl *c, const char *text, char **ret_id) MUST_USE;
/* The same of a node that need not be connected; a complete UUID is believed. */
struct err *ctl_find_any_node(struct ctl *c, const char *text, char **ret_id) MUST_USE;
struct err *ctl_find_dataset(struct ctl *c, const char *text, char **ret_id) MUST_USE;

/* `text` without what could command a terminal (a server may say anything); lines stay lines. The caller frees it. */
char *ctl_harmless(const char *text);
/* The dataset's maximum_size: "1.50G". */
char *ctl_quota(const json_t *dataset);
/* "3f0c9c1e (10.20.0.11)", or "<missing>" when the node is not among the nodes by uuid (contract
 * section 7.3). */
char *ctl_server(const json_t *nodes, const char *id, bool full_id);
/* The same for sentences: "3f0c9c1e (not connected)"; "no node" for an empty id. */
char *ctl_node_text(const json_t *nodes, const char *id);

/* What an answer about a dataset says of its transfer. */
struct text_progress ctl_transfer_progress(const json_t *transfer);

/* ---- waiting ---- */

enum ctl_goal {
    GOAL_DATASET_AT,   /* attached on the node */
    GOAL_DATASET_GROWN, /* as large as wanted, wherever it is mounted */
    GOAL_DATASET_GONE, /* destroyed everywhere */
    GOAL_CONTAINER_AT, /* running on the node */
    GOAL_CONTAINER_UP, /* the same, and well if it has a health check; or ended well there, and is not to run again */
    GOAL_CONTAINER_GONE,
};

#define CTL_WAIT_SECONDS 300

/* With --wait: blocks until the goal is reached, prints on standard error what blocks it, gives up
 * with the reason after the time. Without --wait it does nothing. For a container
 * that is to go, `node` is where it is, or NULL when unknown; other datasets need none. */
struct err *ctl_wait(struct ctl *c, enum ctl_goal goal, const char *id, const char *node) MUST_USE;
/* true when `detail` (answer of /v1/state/.../<id>; of a container that is to go, its item in
 * /v1/state/containers; NULL = not found) shows that the goal is reached; an
 * error when it cannot be reached any more because somebody wants something else now. */
struct err *ctl_goal_reached(enum ctl_goal goal, const json_t *detail, const char *node,
                             bool *ret_reached) MUST_USE;
