/* A lease: keeps a dataset on a node (contract sections 1.4 and 1.5). It has up to two reasons to be there: the API acquired it, which is
 * all of v1, and the node's Docker mounts the dataset. It goes when the last of them has gone; a release drops all of it. */
#pragma once

#include "base/uuid.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MOUNT_ID_MAX 128u      /* bytes; Docker's have 64 */
#define LEASE_MOUNTS_MAX 1000u /* of one lease */

struct lease {
    struct uuid dataset;
    uint64_t revision;
    struct uuid node;
    bool acquired; /* by the API; only that part expires */
    bool expires;
    uint64_t expires_wall_us; /* valid when `expires`; what a restart goes by */
    uint64_t since_us;        /* wall clock: since when this node has it; 0 = not known */
    char **mounts;            /* ids of the mounts that use it; sorted, no two the same */
    size_t n_mounts;
};

void lease_done(struct lease *l);
void lease_copy(struct lease *to, const struct lease *from); /* `to` is overwritten, not freed */
struct lease *lease_dup(const struct lease *l);              /* accepts NULL */
struct lease *lease_free(struct lease *l);                   /* accepts NULL; returns NULL */

bool lease_has_mount(const struct lease *l, const char *id);
void lease_add_mount(struct lease *l, const char *id);    /* no effect when it is there */
bool lease_remove_mount(struct lease *l, const char *id); /* false: it was not there */
