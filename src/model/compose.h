/* A whole configuration, from an application file and a deployment file as flocker-deploy posts them (contract section 8):
 * Flocker's own format, or Fig's. Pure functions, thread-safe. */
#pragma once

#include "model/container.h"
#include "model/dataset.h"

#include <jansson.h>

/* A whole configuration. A dataset that is not in it is *dropped*: not listed any more, unmounted, its data kept by its
 * owner; when it is configured again under the same id its data come back. A container that is not in it, or has other
 * settings, goes (and comes anew). All leases go. Deleted datasets are forgotten once nothing of them is left. */
struct composition {
    struct dataset **datasets; /* id, primary, maximum_size, metadata; owned */
    size_t n_datasets;
    struct container **containers; /* volumes name datasets above, on the same node; owned */
    size_t n_containers;
};

void composition_done(struct composition *c);

/* Finds the node with this IPv4 address. */
typedef bool compose_find_node_fn(void *cookie, const char *address, struct uuid *ret_node);

/* NULL when both values are fine, and *ret has the containers and datasets of the applications that the deployment names;
 * otherwise a sentence, the contract's where it has one, which the caller frees. */
char *compose_parse(const json_t *applications, const json_t *deployment,
                    compose_find_node_fn *find, void *cookie, struct composition *ret)
    __attribute__((warn_unused_result));

/* The dataset of an application that names none: always the same for the same name. */
struct uuid compose_dataset_id(const char *application);
