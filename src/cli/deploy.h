/* Inside flocker-deploy: what its files share. */
#pragma once

#include "cli/ctl.h"

struct deploy_args {
    const char *host; /* of the control service */
    long port;
    const char *directory; /* of the certificates; NULL = not given */
    const char *user;
    const char *authority, *certificate, *key; /* paths; NULL = not given */
    const char *deployment;  /* path; NULL = not given */
    const char *application; /* path */
    const char *project;     /* of a Compose file; NULL = as the file or its folder is called */
    bool spread;
    bool plan; /* change nothing, show what would change */
    bool json; /* the plan as JSON */
    bool has_output;
    bool wait;
    bool has_timeout;
    long timeout; /* seconds */
};

/* Reads the files into the body that the control service gets: {"applications": ..., "deployment": ...}. An error is a
 * usage error in the contract's words (section 7.1). */
struct err *deploy_read(const struct deploy_args *a, json_t **ret_body) MUST_USE;

/* Prints what /v1/configuration/_plan answered. */
struct err *deploy_print_plan(struct ctl *c, const json_t *plan) MUST_USE;

/* Waits until all that is configured is where it is to be and runs, and what is not is gone, for so many seconds; says on
 * standard error what it waits for. The exit status: 1, and the reasons on standard error, when not all is so. */
int deploy_wait(struct api *api, long seconds);
