/* What a storage backend offers. storage.c makes the agent's storage.h out of it: it does the
 * mounts, the ownership marks, the order of steps and the proof that nobody writes any more; a
 * driver knows only its own volumes. */

/* clang-format off */
/*
 *            open    (ERR_INVALID: configuration; other: the storage is not there now, try later)
 *              |
 *   +----------+---------------- any number of threads --------------------------+
 *   | local (bytes live here)                attachable (bytes live elsewhere)   |
 *   |                                                                            |
 *   |  create -> volume -> root -> mounted    create -> volume                   |
 *   |   snapshot, |  ^                                   |  ^                    |
 *   |      demote |  | promote                    attach |  | detach             |
 *   |             v  |                                   v  |                    |
 *   |           snapshot <- receive <- send        attached -> device -> mounted |
 *   |             |          (another node's)            |                       |
 *   |             v                                      v                       |
 *   |   snapshot_delete, tidy                     destroy (detached only)        |
 *   |   destroy (volume, snapshots, leftovers)                                   |
 *   +----------+-----------------------------------------------------------------+
 *              |
 *            close
 *
 * Rules for every verb
 * - It may block, is called on worker threads, and must be thread-safe. For one dataset there is
 *   one call at a time, except that inspect, list and receive may overlap with anything.
 * - It looks at what is, then does what is missing: after a crash at any instruction, or an error,
 *   it is called again and must end in the same place. What was there already is success.
 * - It keeps no cache that somebody else's action could make wrong.
 * - On success the result is on stable storage.
 * - It never waits without end, and never forces anything.
 * - Errors: ERR_NOT_FOUND no such volume or snapshot, ERR_BUSY somebody uses it, ERR_NO_SPACE the storage is full,
 *   ERR_LIMIT only the volume is, by its size limit, ERR_TOO_MANY a limit of a number is reached (docs/reasons.md, storage-limit).
 *   The text names the thing and says what to do.
 * - A verb is called only in states in which it makes sense (mounted or not, ...): said at each.
 *
 * A verb marked (optional) may be NULL: then the backend cannot do it. What a backend can do is
 * told by its pointers alone. `fake/` is the example to copy from. */
/* clang-format on */
#pragma once

#include "base/err.h"
#include "drivers/storage.h"
#include "model/volume.h"

#include <jansson.h>

#define DRIVER_ABI 1u
/* For drivers whose volumes must have a size: contract section 1.2. */
#define DRIVER_DEFAULT_SIZE 80530636800ull /* 75 GiB */

enum driver_key_type {
    DRIVER_KEY_STRING,
    DRIVER_KEY_SIZE,   /* bytes: a number, or text like "20GiB" (driver_option_size) */
    DRIVER_KEY_NUMBER, /* a whole number from 1 to 2^31-1 */
    DRIVER_KEY_BOOL,
};

/* One key of the `dataset` section of agent.yml. */
struct driver_key {
    const char *name;
    enum driver_key_type type;
    bool required;
};

struct driver_config {
    const json_t
        *options; /* the `dataset` section, keys and types already checked against `keys` */
    const char *state_dir; /* the agent's own folder, absolute; exists */
    struct uuid node;
    struct uuid cluster;
    struct budget *budget; /* of calls of the account's API (drivers/budget.h); outlives the cookie; may be NULL: no limit */
};

/* Reads what is in the folder `root`, and leaves it open. */
typedef struct err *driver_read_fn(void *cookie, int root);

struct driver {
    uint32_t abi;     /* DRIVER_ABI */
    size_t size;      /* sizeof(struct driver) */
    const char *name; /* as written at `backend:` */
    enum storage_kind kind;
    const struct driver_key *keys; /* ends with a NULL name; `backend` is not among them */

    struct err *(*open)(const struct driver_config *config, void **ret_cookie)MUST_USE;
    void (*close)(void *cookie); /* frees the cookie; changes nothing on disk */

    /* Every dataset of which the backend has anything at all, marks included. Fills everything but
     * `mounted` and `mark`. Must be cheap: it is called when the agent starts, inspect once after
     * each step of a dataset and in most verbs of storage.h. No program is started for it; where
     * only a program can tell (ZFS), one, however many datasets there are. One damaged volume must
     * not hide the others. */
    struct err *(*list)(void *cookie, struct volume_state **ret_states, size_t *ret_n)MUST_USE;
    /* The same for one dataset; an unknown one is an empty state, not an error. */
    struct err *(*inspect)(void *cookie, const struct uuid *dataset,
                           struct volume_state *ret_state)MUST_USE;

    /* The folder in which storage.c keeps this node's ownership mark of the dataset: beside the
     * data, so that it goes where the data go. Made when missing and `create`; otherwise *ret_fd is
     * -1. The caller closes the descriptor. */
    struct err *(*mark_dir)(void *cookie, const struct uuid *dataset, bool create,
                            int *ret_fd)MUST_USE;
    /* Removes that folder when nothing is left in it, and what else is left of a dataset that is
     * gone. */
    struct err *(*forget)(void *cookie, const struct uuid *dataset)MUST_USE;

    /* An empty volume of at most `size` bytes (0 = the backend's default). Local: its root folder
     * has mode 0777; a limit is in force before this returns. An existing volume is kept as it is,
     * data and size. */
    struct err *(*create)(void *cookie, const struct uuid *dataset, uint64_t size)MUST_USE;
    /* (optional) The same with a storage profile: "gold", "silver", "bronze". */
    struct err *(*create_profiled)(void *cookie, const struct uuid *dataset, uint64_t size,
                                   const char *profile)MUST_USE;
    /* Removes the volume and, local, its snapshots and leftovers. Called unmounted. Attachable:
     * called detached; ERR_BUSY when it is attached to another node. */
    struct err *(*destroy)(void *cookie, const struct uuid *dataset)MUST_USE;

    /* --- local --- */
    /* Opens (O_PATH) the root folder of the volume; what is mounted is a bind of it. The caller
     * closes it. */
    struct err *(*root)(void *cookie, const struct uuid *dataset, int *ret_fd)MUST_USE;
    /* true when every file below root() has a st_dev that no other file in the system has (btrfs
     * subvolume, own file system). Otherwise open files are told apart by their paths, which is
     * weaker. */
    bool own_device;
    /* (optional) Sets the limit of the dataset; 0 = none. NULL: a size is refused at creation. */
    struct err *(*limit)(void *cookie, const struct uuid *dataset, uint64_t size)MUST_USE;
    /* (optional) false: this pool cannot, though the backend has limit(). Soon, and the same as long as it is open. */
    bool (*has_limits)(void *cookie);
    /* Takes the read-only snapshot `name` of the volume, which may be mounted and in use. */
    struct err *(*snapshot)(void *cookie, const struct uuid *dataset, const char *name)MUST_USE;
    struct err *(*snapshot_delete)(void *cookie, const struct uuid *dataset,
                                   const char *name)MUST_USE;
    /* Deletes what unfinished receives and promotions left; not what a running receive works on. */
    struct err *(*tidy)(void *cookie, const struct uuid *dataset)MUST_USE;
    /* Replaces the volume (deleted if there) by a writable copy of the snapshot, with the limit in
     * force before anybody can write. Called unmounted. After a crash in between it is called
     * again. */
    struct err *(*promote)(void *cookie, const struct uuid *dataset, const char *snapshot,
                           uint64_t size)MUST_USE;
    /* true when the volume appears whole at once, and a snapshot is not changed by being promoted: where there was
     * no volume, that it has begun need not be written down first. */
    bool promotes_at_once;
    /* (optional) The opposite: the volume goes, and what was written after the snapshot; that and older ones stay. Called
     * unmounted and released. A crash of the machine may bring the volume back: then it is called again. NULL: the backend
     * keeps no replicas. */
    struct err *(*demote)(void *cookie, const struct uuid *dataset, const char *snapshot)MUST_USE;
    /* true when what only a snapshot holds counts against the limit of the dataset: a base that is kept would fill it. */
    bool snapshots_in_limit;
    /* (optional) Bytes of the storage, and how many of them are free. */
    struct err *(*space)(void *cookie, uint64_t *ret_total, uint64_t *ret_free)MUST_USE;
    /* send, receive, stream_point, identity: exactly as in storage.h. */
    struct err *(*send)(void *cookie, const struct uuid *dataset, const struct stream_spec *stream,
                        int fd, const atomic_bool *cancel)MUST_USE;
    struct err *(*receive)(void *cookie, const struct uuid *dataset,
                           const struct stream_spec *stream, int fd)MUST_USE;
    /* (optional) NULL: an interrupted receive leaves nothing, and receive never gets a point. */
    struct err *(*stream_point)(void *cookie, const struct uuid *dataset,
                                struct stream_point *ret_point)MUST_USE;
    struct err *(*identity)(void *cookie, const struct uuid *dataset, const char *snapshot,
                            char **ret_identity)MUST_USE;
    /* (optional) About how long the stream will be; 0 = not known. Cheap. */
    struct err *(*stream_size)(void *cookie, const struct uuid *dataset,
                               const struct stream_spec *stream, uint64_t *ret_bytes)MUST_USE;
    /* (optional) Calls `fn` with the root folder of a snapshot, open for reading until it returns,
     * and returns its error. Like receive it may overlap with anything. NULL: the content of
     * snapshots cannot be compared with that of copies. */
    struct err *(*snapshot_read)(void *cookie, const struct uuid *dataset, const char *snapshot,
                                 driver_read_fn *fn, void *fn_cookie)MUST_USE;

    /* --- attachable --- */
    /* Nodes with the same answer see the same volumes. */
    struct uuid (*shared_id)(void *cookie);
    /* list() fills `hosts` of each volume, with names as instance_id() has them: so one node's list serves all that share the
     * storage, and the others need not make theirs. For backends where a list costs calls of an API. */
    bool tells_hosts;
    /* The backend's name of this machine; lives as long as the cookie. */
    const char *(*instance_id)(void *cookie);
    /* Smallest step of sizes, in bytes; storage.c rounds up to it. */
    uint64_t (*allocation_unit)(void *cookie);
    /* Attaches the volume to this machine. ERR_BUSY: it is attached elsewhere, the text says where. ERR_TOO_MANY: the machine has
     * as many as it can.
     */
    struct err *(*attach)(void *cookie, const struct uuid *dataset)MUST_USE;
    /* Detaches it from this machine, when nobody has the device open; flushed first. */
    struct err *(*detach)(void *cookie, const struct uuid *dataset)MUST_USE;
    /* (optional) Detaches it from the machine of that other node, of which an operator has signed that it is off; the backend finds
     * the machine by the node's id, also when nothing runs there. No effect when it is attached to another machine, or to none.
     * ERR_BUSY: the backend itself sees that it is used there. A backend that cannot tell whose a machine is takes the only one that has
     * the volume for it, if the backend itself says that this one is off or gone, else ERR_BUSY: nodes had the volume one after the other, so no
     * other node of the cluster can be using it there (powerflex/attach.c, aws/attach.c). */
    struct err *(*detach_from)(void *cookie, const struct uuid *dataset, const struct uuid *node)MUST_USE;
    /* (optional) Makes the volume at least `size` bytes (a multiple of allocation_unit()) large, also while it is attached here and in
     * use; never smaller. Done when the backend says so; storage.c waits for the device to show it, and grows the file system.
     * ERR_TOO_MANY: not now, it was changed too often. */
    struct err *(*grow)(void *cookie, const struct uuid *dataset, uint64_t size)MUST_USE;
    /* The block device of an attached volume, checked now to be the volume's (never from memory);
     * made again if it is missing, as after a reboot. The caller frees the path. ERR_NOT_FOUND: not
     * attached. */
    struct err *(*device)(void *cookie, const struct uuid *dataset, char **ret_path)MUST_USE;
};

/* The backend of that name, or an error whose text is the one users know. */
struct err *driver_find(const char *backend, const struct driver **ret_driver) MUST_USE;
/* Checks the `dataset` section against the driver's keys, and those that storage.c itself has for all attachable backends
 * (filesystem, mount_options, discard): unknown, missing and mistyped keys are named. */
struct err *driver_check_options(const struct driver *d, const json_t *options) MUST_USE;
/* The value of a string key, or `fallback`. Lives as long as the section. */
const char *driver_option_string(const json_t *options, const char *key, const char *fallback);
/* The value of a size key, or `fallback` when absent. */
uint64_t driver_option_size(const json_t *options, const char *key, uint64_t fallback);
unsigned driver_option_number(const json_t *options, const char *key, unsigned fallback);
bool driver_option_bool(const json_t *options, const char *key, bool fallback);
/* Reads "1000", "20 GiB", "64m", "1TB" (powers of 1024); false when it is not a size or too large.
 */
bool driver_size_parse(const char *text, uint64_t *ret_size);

/* Helpers for lists of volumes. */
struct volume_list {
    struct volume_state *states;
    size_t n, cap;
};

/* The state of that dataset in the list, added when missing; valid until the next call. */
struct volume_state *volume_list_get(struct volume_list *l, const struct uuid *dataset);
void volume_list_done(struct volume_list *l);
struct snapshot_found {
    uint64_t order; /* grows with the time of making */
    char name[SNAPSHOT_NAME_SIZE];
};
/* Makes these, oldest first, the snapshots of a state that has none; sorts `found`. */
void volume_state_set_snapshots(struct volume_state *v, struct snapshot_found *found, size_t n);
/* true for [a-z0-9-]{1,63}, not beginning with "-": safe as the name of a file. */
bool snapshot_name_is_valid(const char *name);
