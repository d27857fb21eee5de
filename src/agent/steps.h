/* Carrying out the brain's steps: each on a worker, with a look at the result. */
#pragma once

#include "agent/config.h"
#include "core/node.h"
#include "drivers/storage.h"
#include "engines/container_engine.h"
#include "engines/routes.h"
#include "mover/mover.h"

/* What steps work on. Set up by the loop thread before a step that needs it is submitted; the pointers stay valid
 * until all steps are done. */
struct step_context {
    const struct agent_config *config;
    const char *state_dir, *mount_root;
    struct uuid node, cluster, era;
    struct uuid store;       /* of the control service: labels containers; nil until known */
    char host[64];           /* own address */
    struct budget *budget;   /* storage_config */
    struct storage *storage; /* opened by the first LIST_VOLUMES that succeeds */
    struct mover *mover;
    struct container_engine *engine;
    struct interfaces opened_interfaces; /* ROUTES, of which one runs at a time */
    char *left_out; /* likewise: what was said last of the ports that are not routed; owned */
    void (*no_space)(void *cookie); /* storage_config */
    void *cookie;
};

struct step_job {
    struct step_context *context;
    struct step step; /* owned */
    struct mover_progress progress; /* SEND; and `cancel` of others */
    struct pull_progress pull;      /* IMAGE */
    struct storage *opened; /* LIST_VOLUMES opened it: the loop thread takes it over */
    struct uuid store;      /* as of submission */
    char host[64];          /* likewise */
    /* The outcome; owned. */
    struct err *error;
    bool observed;
    struct volume_state volume;
    struct volume_state *volumes;
    size_t n_volumes;
    struct space space; /* LIST_VOLUMES, SPACE */
    struct container_state *containers;
    size_t n_containers;
    char *left_out; /* ROUTES */
};

/* Takes the step over. */
struct step_job *step_job_new(struct step_context *context, struct step *step);
struct step_job *step_job_free(struct step_job *j);
/* Blocks until the step is done. On a worker; jobs run side by side. */
void step_job_run_sync(struct step_job *j);
