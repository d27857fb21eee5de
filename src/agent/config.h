/* agent.yml (contract section 3.1): read once at start. */
#pragma once

#include "base/err.h"
#include "core/node.h"

#include <jansson.h>
#include <stdint.h>

struct agent_config {
    char *directory;    /* of the file: the certificates lie there too */
    char *control_host;
    uint16_t control_port; /* 4524 */
    char *docker_socket;   /* /var/run/docker.sock */
    uint32_t stop_timeout_s; /* how long a container may take to stop; 60 */
    char *plugin_socket;     /* where Docker asks for volumes; NULL = nowhere */
    uint32_t docker_wait_s;  /* how long a Mount may wait; 90 */
    uint32_t release_unused_s; /* a mount of Docker's that nobody uses for so long is over; 600; 0 = never */
    uint64_t default_size;   /* of volumes that Docker makes without one; 0 = not limited */
    bool has_default_size;   /* false: 75 GiB where the storage can limit sizes */
    bool docker_keep;        /* Docker's Remove deletes nothing */
    struct copy_limits copy; /* `move` */
    uint16_t mover_port;     /* `move`: where other nodes send to; 4525 */
    uint64_t bandwidth_limit; /* `move`: bytes a second that this node sends to others; 0 = as they come */
    bool routes;              /* `routes`: ports of applications on other nodes answer here, ... */
    uint16_t *routes_except;  /* ... but for these: owned */
    size_t n_routes_except;
    json_t *dataset;       /* `backend` and its own keys */
};

/* ERR_INVALID names the key; ERR_NOT_FOUND and others: the file cannot be read. Blocks. */
struct err *agent_config_load(const char *path, struct agent_config *ret) MUST_USE;
/* The same from text, for tests; `directory` stays NULL. */
struct err *agent_config_parse(const char *text, size_t n, struct agent_config *ret) MUST_USE;
void agent_config_done(struct agent_config *c);
