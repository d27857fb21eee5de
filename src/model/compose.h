/* A whole configuration, from an application file and a deployment file as flocker-deploy posts them (contract section 8):
 * Flocker's own format, Fig's, or a Compose file. Pure functions, thread-safe. */
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

/* What there is already, for finding places. */
struct compose_world {
    void *cookie; /* of the functions, each false when there is none */
    /* The node with this IPv4 address. */
    bool (*find_node)(void *cookie, const char *address, struct uuid *ret_node);
    /* Where the container of this name is configured to be. */
    bool (*find_container)(void *cookie, const char *name, struct uuid *ret_node);
    /* Where the dataset is configured to be, or its data are. */
    bool (*find_dataset)(void *cookie, const struct uuid *id, struct uuid *ret_node);
    const struct uuid *nodes; /* that are there, ascending */
    const bool *closed;       /* of each of them: nothing new is spread there (it is cordoned); NULL = none */
    const double *
        room; /* of each of them: bytes that are free and promised to no dataset, less than none when too much is
                          * promised; NULL = not known of all */
    size_t n_nodes;
    bool
        spread; /* place what nothing places: where its data are, where it is, where most room is for it, or where there is least */
};

/* NULL when both values are fine, and *ret has the containers and datasets of the applications that have a place;
 * otherwise a sentence, the contract's where it has one, which the caller frees. A Compose file needs no deployment, nor
 * does any file that is spread: NULL. */
char *compose_parse(const json_t *applications, const json_t *deployment, const struct compose_world *world,
                    struct composition *ret) __attribute__((warn_unused_result));

/* Is it a Compose file? It has `services` at the top level, and is not Fig's file with an application of that name. */
bool compose_is_services(const json_t *applications);

/* The dataset of an application that names none: always the same for the same name. */
struct uuid compose_dataset_id(const char *application);
