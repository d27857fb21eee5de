/* cluster.yml and agent.yml, as far as flockerctl needs them (contract section 7.3). */
#pragma once

#include "base/err.h"

struct cluster_yml {
    char *user;            /* the first of `users`; NULL = none */
    char *control_service; /* `control_node`, or agent_config's control-service hostname; NULL =
                              none */
};

/* Reads the YAML text. What is absent stays NULL; malformed YAML is an error. */
struct err *cluster_yml_parse(const char *text, size_t n, struct cluster_yml *ret_config) MUST_USE;
/* The control service's hostname in the text of an agent.yml; NULL when it names none. */
struct err *agent_yml_control_service(const char *text, size_t n, char **ret_hostname) MUST_USE;
void cluster_yml_done(struct cluster_yml *c);
