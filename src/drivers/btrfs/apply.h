/* Applies the commands of a send stream to one subvolume, and to nothing else.
 *
 * Nobody but the caller uses the subvolume meanwhile (it is in a folder for root only), but its content and the commands come
 * from another host: every path is resolved below the root, through folders only, within this one subvolume; no device,
 * fifo or socket in it is ever opened. Memory does not grow with the stream. Blocks; one thread at a time. */
#pragma once

#include "drivers/btrfs/send_stream.h"

struct applier;

struct apply_target {
    int root;                /* the subvolume; stays the caller's, as long as the applier lives */
    int base;                /* the snapshot from which increments may clone; -1 = none */
    struct uuid identity;    /* of what the subvolume becomes: clones from this are from the subvolume itself */
    struct uuid base_identity;
};

struct applier *applier_new(const struct apply_target *target);
struct applier *applier_free(struct applier *a); /* accepts NULL; returns NULL */
/* A command of the body. ERR_CORRUPT: it cannot be applied to what is there; ERR_NO_SPACE, ERR_LIMIT, ERR_UNSUPPORTED, ERR_IO. Something
 * of it may have been done when it fails. */
struct err *applier_apply(struct applier *a, const struct send_command *c) MUST_USE;
