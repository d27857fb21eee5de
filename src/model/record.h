/* The durable form of the model's objects: one compact JSON text for each, as the store keeps it.
 *
 * Format version 1; 2 is a dataset with a replica, so that what has none can still be read by an older
 * version, a container with settings of container_is_extended(), or a lease that Docker mounts have; 3 is a
 * container of which container_has_more_volumes() is true, or a dataset of which a fence is remembered, or the age of a replica;
 * 4 is a container that has ended for good. Every field
 * is always there; a field too many, too few, twice or of another type makes
 * the record corrupt, and a record of a newer format is refused by saying so: what cannot be
 * understood wholly is not used at all. Numbers are exact over all 64 bits: up to 2^63-1 they are
 * JSON integers, above that decimal strings. Pure functions, thread-safe. */
#pragma once

#include "base/err.h"
#include "model/container.h"
#include "model/cordon.h"
#include "model/dataset.h"
#include "model/fence.h"
#include "model/lease.h"

#define RECORD_FORMAT 1
#define RECORD_FORMAT_REPLICA 2  /* of datasets only */
#define RECORD_FORMAT_FENCED 3   /* likewise */
#define RECORD_FORMAT_EXTENDED 2 /* of containers only */
#define RECORD_FORMAT_VOLUMES 3  /* likewise; has "volumes" in the place of "volume" */
#define RECORD_FORMAT_ENDED 4    /* likewise; has "ended" besides, and "volumes" like 3 */
#define RECORD_FORMAT_MOUNTS 2   /* of leases only */

/* Encoders return text that the caller frees, or NULL when the object cannot be written without
 * loss: a text in it is not valid UTF-8, a metadata key stands there twice, or its own id (or a
 * holder's) is nil. Validation lets none of these in. */
char *record_dataset_encode(const struct dataset *d) MUST_USE;
char *record_container_encode(const struct container *c) MUST_USE;
char *record_lease_encode(const struct lease *l) MUST_USE;
char *record_cordon_encode(const struct cordon *c) MUST_USE;
char *record_fence_encode(const struct fence *f) MUST_USE;

/* Decoders read `n` bytes; ERR_CORRUPT names the field and what is wrong with it. */
struct err *record_dataset_decode(const char *text, size_t n, struct dataset **ret) MUST_USE;
struct err *record_container_decode(const char *text, size_t n, struct container **ret) MUST_USE;
struct err *record_lease_decode(const char *text, size_t n, struct lease *ret) MUST_USE;
struct err *record_cordon_decode(const char *text, size_t n, struct cordon *ret) MUST_USE;
struct err *record_fence_decode(const char *text, size_t n, struct fence **ret) MUST_USE;
