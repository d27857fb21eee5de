/* A node's storage as the agent uses it: one driver, its mounts, and the ownership marks beside the data.
 * Works the same for both kinds of storage (model/volume.h); what a driver itself must offer is in driver.h.
 *
 * Every function here may block (run on a worker, never on the loop thread) and is thread-safe; calls for
 * different datasets run side by side; for one dataset the caller makes one call at a time, except that
 * `storage_observe` and `storage_receive` may overlap with others. Each call first looks at what is, then does
 * what is missing: it may be repeated after any crash or error and ends in the same place. */
#pragma once

#include "base/err.h"
#include "model/dataset.h"
#include "model/sighting.h"
#include "model/volume.h"

#include <stdatomic.h>
#include <jansson.h>

struct storage;

struct storage_config {
    const json_t *dataset;   /* the `dataset` section of agent.yml: `backend` and the backend's own keys */
    const char *mount_root;  /* usually "/flocker" */
    const char *state_dir;   /* the agent's own directory; exists, mode 0700 */
    struct uuid node;
    struct uuid cluster;
    void (*no_space)(void *cookie); /* NULL, or: a receive found the storage full, not only the dataset at its limit. Called on its thread; must return soon */
    void *cookie;
    struct budget *budget; /* of calls of a storage's API, or NULL: as many as there are. Outlives the storage */
};

/* Opens the backend named in the configuration. ERR_INVALID: wrong or missing keys (the text names the key);
 * other codes: the storage is not there now (missing pool, ...): may be tried again. */
struct err *storage_open(const struct storage_config *config, struct storage **ret_storage) MUST_USE;
struct storage *storage_close(struct storage *s); /* accepts NULL; unmounts nothing; returns NULL */

enum storage_kind storage_kind(const struct storage *s);
const char *storage_backend(const struct storage *s);
/* Nodes that answer the same id see the same volumes; nil for local storage. */
struct uuid storage_shared_id(const struct storage *s);

/* May a dataset have a maximum_size here? Does not block. */
bool storage_has_limits(const struct storage *s);

/* Everything of every dataset on this node (attachable: of this cluster). The caller frees each element with
 * volume_state_done() and the array with free(). */
struct err *storage_list(struct storage *s, struct volume_state **ret_states, size_t *ret_n) MUST_USE;
/* The same once more, as cheaply as it can be done for attachable storage: what was there when it was looked at last (`known`) is
 * not looked at anew where nothing has changed. Only a hint where to look: what differs is to be observed.
 * LIST_HERE_ONLY: the backend is not asked; only what this machine tells, of the known ones. */
#define LIST_HERE_ONLY 1u
struct err *storage_list_again(struct storage *s, const struct volume_state *known, size_t n_known, unsigned flags,
                               struct volume_state **ret_states, size_t *ret_n) MUST_USE;
/* What another node saw of a volume, from this node's point of view. */
struct where_attached storage_where(const struct storage *s, const struct sighting *seen);
/* The same for one dataset; never ERR_NOT_FOUND: then an empty state is returned. */
struct err *storage_observe(struct storage *s, const struct uuid *dataset, struct volume_state *ret_state) MUST_USE;

/* Makes an empty volume and marks it owned at `epoch`. An existing volume is marked and kept as it is: data are
 * never replaced. maximum_size 0 = the backend's default. */
struct err *storage_create(struct storage *s, const struct uuid *dataset, uint64_t maximum_size,
                           const struct metadata *metadata, uint64_t epoch) MUST_USE;
/* Marks the existing volume owned at `epoch` (which must be above the mark's). ERR_NOT_FOUND: no volume. */
struct err *storage_claim(struct storage *s, const struct uuid *dataset, uint64_t epoch) MUST_USE;
/* Local: makes the read-only `snapshot` the writable volume of `epoch` (mark PROMOTING, unless it appears at once and
 * there was none; the volume, with its size limit; mark OWNED); no effect when the mark says owned at `epoch` already. ERR_NOT_FOUND: no such snapshot. */
struct err *storage_promote(struct storage *s, const struct uuid *dataset, const char *snapshot,
                            uint64_t maximum_size, uint64_t epoch) MUST_USE;
/* Makes the volume, whose mark must say owned at `epoch`, at least so large: local, its limit; attachable, while it is mounted here, the
 * volume, its device and its file system. ERR_UNSUPPORTED: the backend cannot. */
struct err *storage_grow(struct storage *s, const struct uuid *dataset, uint64_t maximum_size,
                         uint64_t epoch) MUST_USE;
/* Mounts the volume at <mount_root>/<dataset>; attachable: attach, make a filesystem on a blank device, mount.
 * ERR_CONFLICT unless the mark says owned at exactly `epoch`. The mount appears on all of the host's shared mounts. */
struct err *storage_mount(struct storage *s, const struct uuid *dataset, uint64_t epoch) MUST_USE;
/* Attachable: takes the volume away from the machines of these nodes, of which an operator has signed that they are off. No effect
 * on what is attached to another, or when the backend cannot. ERR_CONFLICT unless the mark says owned at exactly `epoch`;
 * ERR_BUSY: the backend sees that one of them uses it all the same. */
struct err *storage_take_away(struct storage *s, const struct uuid *dataset, uint64_t epoch, const struct uuid *nodes,
                              size_t n) MUST_USE;
/* Unmounts and proves the volume unwritable (design section 6: no mount of it in any mountinfo, no open file,
 * working directory or mapping below it; a block device opens exclusively). The mount point is removed or
 * immutable afterwards. ERR_BUSY: somebody uses it; the text names pid and command. Nothing is forced, and on
 * ERR_BUSY the volume is mounted at its place as before. */
struct err *storage_unmount(struct storage *s, const struct uuid *dataset) MUST_USE;
/* Attachable: detaches the volume, which is unmounted, from this machine, and checks that the backend says so; no effect when it is not attached here.
 * ERR_BUSY: somebody has the device open. Local: no effect. */
struct err *storage_detach(struct storage *s, const struct uuid *dataset) MUST_USE;
/* Who uses the volume that is mounted at its place, other than by that mount: for people; NULL = nobody, or it is not mounted; the caller
 * frees it. An error: it could not be looked everywhere, so nothing is proven. */
struct err *storage_find_user(struct storage *s, const struct uuid *dataset, char **ret_user) MUST_USE;
/* Local: takes the read-only snapshot `name`, also while mounted. No effect when it exists. */
struct err *storage_snapshot(struct storage *s, const struct uuid *dataset, const char *name) MUST_USE;
/* Unmounts (as above), local: takes the final snapshot `snapshot` (an unmarked one of that name is replaced),
 * attachable: detaches and checks that the backend says so; then writes the mark
 * RELEASED(epoch, transfer, snapshot) durably. No effect when that mark is there. */
struct err *storage_release(struct storage *s, const struct uuid *dataset, uint64_t epoch,
                            uint64_t transfer, const char *snapshot) MUST_USE;
/* Local: deletes all snapshots except `keep` and `also` (may be NULL) and unfinished receives; the volume stays. */
struct err *storage_prune(struct storage *s, const struct uuid *dataset, const char *keep,
                          const char *also) MUST_USE;
/* Local: makes a released dataset a replica: the volume goes, `snapshot` stays. No effect when there is no volume. ERR_CONFLICT:
 * the mark does not say released; ERR_NOT_FOUND: no such snapshot. */
struct err *storage_demote(struct storage *s, const struct uuid *dataset, const char *snapshot) MUST_USE;
/* Bytes of the storage, and how many of them are free; 0 and 0 when the backend cannot tell. */
struct err *storage_space(struct storage *s, uint64_t *ret_total, uint64_t *ret_free) MUST_USE;
/* Local, used by the mover: deletes one snapshot. No effect when it is not there. */
struct err *storage_snapshot_delete(struct storage *s, const struct uuid *dataset,
                                    const char *name) MUST_USE;
/* This node is not an owner any more: unmounts (as above), then local: removes volume, snapshots and partial
 * receives; attachable: detaches. The mark is removed last. */
struct err *storage_drop(struct storage *s, const struct uuid *dataset) MUST_USE;
/* The dataset is deleted: as drop, and attachable: destroys the volume; ERR_BUSY while it is attached elsewhere. */
struct err *storage_destroy(struct storage *s, const struct uuid *dataset) MUST_USE;

/* How far a receive came that did not reach its end: what is durable of it, so that only the rest need be sent. */
struct stream_point {
    char *snapshot;  /* which it was to become; NULL = there is nothing to continue */
    char *identity;  /* the sender's, of that snapshot */
    char *base;      /* "" = the stream is whole */
    uint64_t offset; /* so many bytes of the stream, as storage_send() writes it, are there ... */
    uint64_t hash_low, hash_high; /* ... and this is their XXH3, 128 bits */
    char *token; /* non-NULL: the backend can send just the rest, from this; offset and hash mean nothing */
};

void stream_point_done(struct stream_point *p); /* `p` is empty again */

#define STORAGE_DIGEST_SIZE 33 /* 32 hexadecimal digits and a NUL */

struct stream_spec {
    const char *base; /* an increment from this snapshot; NULL = whole */
    const char *snapshot;
    const char *identity; /* receive: the sender's, of `snapshot` */
    /* NULL = from the beginning. send: the receiver's point, which has a token. receive: this node's own, as
     * storage_stream_point() told it; the stream goes on after its offset. */
    const struct stream_point *from;
};

/* Local, used by the mover. Writes the stream to the pipe or socket `fd`, which must block; `cancel` is polled (may be
 * NULL). */
struct err *storage_send(struct storage *s, const struct uuid *dataset, const struct stream_spec *stream,
                         int fd, const atomic_bool *cancel) MUST_USE;
/* Local, used by the mover. Reads a stream from `fd` until end of file. When this returns NULL the snapshot is
 * complete, checked against the sender's identity of it, listed by storage_observe and on stable storage; in any
 * other case nothing of that name is listed. Removes leftovers of earlier tries first, but for what it continues; when
 * the stream breaks, what can be continued is kept. A snapshot that is already complete is an ERR_EXISTS and `fd` is
 * not read. */
struct err *storage_receive(struct storage *s, const struct uuid *dataset,
                            const struct stream_spec *stream, int fd) MUST_USE;
/* Local: what can be continued of an interrupted receive; an empty point when there is nothing or the backend cannot. */
struct err *storage_stream_point(struct storage *s, const struct uuid *dataset,
                                 struct stream_point *ret_point) MUST_USE;
/* Local: what names a snapshot's content on any node (btrfs: the uuid by which a received copy refers to it). */
struct err *storage_snapshot_identity(struct storage *s, const struct uuid *dataset,
                                      const char *snapshot, char **ret_identity) MUST_USE;
/* Local: about how many bytes storage_send() will write; 0 = not known. */
struct err *storage_stream_size(struct storage *s, const struct uuid *dataset,
                                const struct stream_spec *stream, uint64_t *ret_bytes) MUST_USE;
/* Local: a sum over everything that a user of the volume can see in the snapshot (drivers/digest.h), the same on
 * every node. Reads all of it: takes as long as that takes. `cancel` is polled (may be NULL). ERR_UNSUPPORTED: this
 * backend's snapshots cannot be looked into. */
struct err *storage_snapshot_digest(struct storage *s, const struct uuid *dataset, const char *snapshot,
                                    const atomic_bool *cancel,
                                    char ret_digest[STORAGE_DIGEST_SIZE]) MUST_USE;
