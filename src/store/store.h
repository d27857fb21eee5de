/* The durable store of the control service: the configuration, as one record for each dataset,
 * container and lease, and the revision it stands at. Which database keeps it is hidden here
 * (backend.h).
 *
 * A store has a random id, made once, and a revision: the number of its newest committed change.
 * The caller numbers the changes; the store refuses numbers that are not above its own, so an old
 * or doubled writer cannot turn time back. One process at a time may have a store open.
 *
 * Threads: one thread at a time may be inside any of the functions that block (`_sync`, open,
 * close); store_id and store_revision may be called from any thread. */
#pragma once

#include "base/err.h"
#include "base/uuid.h"
#include "model/container.h"
#include "model/cordon.h"
#include "model/dataset.h"
#include "model/fence.h"
#include "model/history.h"
#include "model/lease.h"

#include <stdbool.h>
#include <stdint.h>

#define STORE_MAX_VALUE (16u << 20) /* bytes of one record */
#define STORE_MAX_KEY 1024u         /* bytes */

struct store;

enum store_kind {
    STORE_DATASET,   /* key: dataset id; value: record_dataset_encode */
    STORE_CONTAINER, /* key: name; value: record_container_encode */
    STORE_LEASE,     /* key: dataset id; value: record_lease_encode */
    STORE_CORDON,    /* key: node id; value: record_cordon_encode */
    STORE_FENCE,     /* key: node id; value: record_fence_encode */
    STORE_KIND_MAX,
    STORE_SETTLED = STORE_KIND_MAX, /* no record: from now on the copy that was put back is believed; value: NULL */
    STORE_KIND_INVALID = -1,
};

const char *store_kind_name(enum store_kind kind); /* "dataset", ... */

/* One object's new value. Within one commit revisions rise from change to change. */
struct store_change {
    uint64_t revision;
    enum store_kind kind;
    const char *key;
    const char *value; /* NULL = delete (no error when it is not there) */
};

/* Everything in a store, decoded. */
struct store_content {
    uint64_t revision;
    struct history history; /* the last generation began when the store was opened */
    struct dataset **datasets;
    size_t n_datasets;
    struct container **containers;
    size_t n_containers;
    struct lease *leases;
    size_t n_leases;
    struct cordon *cordons;
    size_t n_cordons;
    struct fence **fences;
    size_t n_fences;
};

void store_content_done(struct store_content *c); /* frees the objects too */

/* Opens the store in directory `dir`; makes directory (mode 0700, not its parents) and store when
 * there is none. Begins a new generation (model/history.h), durable on return, and notes with it when the store was put there (by
 * store_restore_sync, or as a file alone): the file that tells the newest acknowledged change is not beside it, then; on a full disk the store opens without
 * one, can be read, and refuses every commit (when there is space again: as uncertain, see below). Blocks. ERR_BUSY: another process has it (the text gives its pid).
 * ERR_UNSUPPORTED: written by a newer version. ERR_CORRUPT: something else lies there, or it is
 * damaged; it is left untouched. ERR_DENIED: no permission or read-only file system. ERR_NO_SPACE,
 * ERR_IO: as they say. */
struct err *store_open(const char *dir, struct store **ret) MUST_USE;

/* Writes everything into the main file and lets go of the store. Accepts NULL; returns NULL.
 * Blocks. After an unclean end nothing is lost either: the next open replays the log. */
struct store *store_close(struct store *s);

struct uuid store_id(const struct store *s);
uint64_t store_revision(const struct store *s); /* of the newest committed change; 0 = none yet */

/* Reads and decodes all records. ERR_CORRUPT names the record and what is wrong with it. Blocks. */
struct err *store_load_sync(struct store *s, struct store_content *ret) MUST_USE;

/* Commits all `n` changes or none; on success they are on stable storage. Blocks.
 *
 * On failure *ret_uncertain tells which kind it is (it is always written):
 * false: rolled back, nothing of it is or will be there; a later commit may succeed. ERR_NO_SPACE
 * (disk full), ERR_INVALID (value or key too long), ERR_INTERNAL (a revision not above the store's
 * or out of order), ERR_DENIED, ERR_IO. true:  the disk failed at the very commit; whether it is
 * durable is only known after opening the store again. Every later commit is refused the same way.
 * The caller ends itself without answering, and starts again from the store. */
struct err *store_commit_sync(struct store *s, const struct store_change *changes, size_t n,
                              bool *ret_uncertain) MUST_USE;

/* Work that commits left for later, when there is enough of it: for moments in which no commit waits. Blocks, for some
 * milliseconds. When the disk fails in it, the next commit says so, as uncertain. */
void store_tidy_sync(struct store *s);

/* ---- copies ---- */

/* What a store, or a copy of one, holds. */
struct store_summary {
    struct uuid id;
    uint64_t revision;
    size_t n_datasets, n_containers, n_leases;
};

/* A copy that is made of an open store, piece by piece, between its commits. Functions as above: one thread at a time
 * inside the store and its backup together. */
struct store_backup;

/* Begins to copy to the new file `path` (mode 0600); ERR_EXISTS when it is there. Blocks. */
struct err *store_backup_begin_sync(struct store *s, const char *path, struct store_backup **ret) MUST_USE;
/* Copies the next piece, some hundred KiB. What is committed between two pieces comes along: when *ret_done is true,
 * the file is the store as it is now. It is not flushed. Blocks. */
struct err *store_backup_step_sync(struct store_backup *b, bool *ret_done) MUST_USE;
/* Removes the file unless the copy is complete. Before store_close(). Accepts NULL; returns NULL. Blocks. */
struct store_backup *store_backup_end_sync(struct store_backup *b);

/* Reads the whole file of a store that nobody uses: its structure and every record. ERR_CORRUPT says what is wrong with
 * it, ERR_UNSUPPORTED that a newer version wrote it. Changes nothing. Blocks. */
struct err *store_file_check_sync(const char *path, struct store_summary *ret) MUST_USE;
/* Copies such a file, checks the copy, and gives it its name only then: `to` is whole, durable and has mode 0600, or is
 * what it was before. Blocks. */
struct err *store_file_copy_sync(const char *from, const char *to, struct store_summary *ret) MUST_USE;

#define STORE_REPLACE 1u
/* Puts a checked copy of `file` in place of the store in `dir` (made when missing), which nobody may use meanwhile
 * (ERR_BUSY). ERR_EXISTS: there is a store; with STORE_REPLACE it is kept beside, and *ret_kept is its new path (NULL when
 * there was none; the caller frees it). Cut short, the directory has the old store, or none that can be opened until
 * this is done again. Blocks. */
struct err *store_restore_sync(const char *dir, const char *file, unsigned flags, char **ret_kept,
                               struct store_summary *ret) MUST_USE;
