/* The Docker volume plugin: a unix socket on which the node's Docker (podman, dvdcli) asks for volumes that follow their containers.
 *
 * What can be told from memory is told at once, whatever the control service does; Create, Remove and Mount ask it, and fail with the
 * reason when that takes longer than Docker would wait. A mount that is answered well has a lease of this node with its id behind it, and
 * the id was on disk before the lease was asked for. Loop thread. */
#pragma once

#include "agent/steps.h"
#include "agent/volumes.h"
#include "net/loop.h"

struct plugin;

struct plugin_config {
    struct loop *loop;
    const struct step_context *context; /* its pointers may be set later */
    const struct node *node;
};

struct plugin *plugin_new(const struct plugin_config *config);
struct plugin *plugin_free(struct plugin *p); /* accepts NULL; returns NULL; waits for what workers do */

/* What `volumes` is to be made with. Its cookie is the plugin. */
struct agent_volumes_config plugin_volumes_config(struct plugin *p);
/* Reads what is kept on disk and serves the socket: the one that systemd hands over, else agent.yml's. What cannot be done now (the
 * socket is in use) is logged and tried again. Blocks a little: at start-up only. `volumes` is the caller's and outlives the plugin. */
void plugin_start(struct plugin *p, struct agent_volumes *volumes);
