/* A real OpenStack (lab/openstack), in a network namespace that becomes this process's own. */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <sys/types.h>

struct cloud {
    pid_t pid;     /* 0: none */
    int end;       /* closing it ends the cloud */
    json_t *facts; /* what it says of itself: addresses, ids, secrets */
};

/* Is its root there? It is too large to be made by the way. */
bool cloud_is_built(void);
/* `servers`: "NAME=HOSTROOT", ends with NULL; with some there is Nova, and Keystone. */
void cloud_start(struct cloud *c, const char *dir, bool keystone, const char *const *servers);
void cloud_stop(struct cloud *c);
/* One of the facts; asserts that it is there. */
const char *cloud_fact(const struct cloud *c, const char *name);
