/* The thread that commits to a store, so that the control loop never waits for a disk.
 *
 * Batches are committed one after the other in the order given, each in one transaction. When one
 * fails, the batches that were waiting behind it are answered with ERR_CANCELLED without being
 * tried: they were made on top of changes that do not exist. A caller that submits the next batch
 * only after the answer to the last one (as the engine does) never sees that. */
#pragma once

#include "store/store.h"

struct store_writer;

struct store_result {
    struct err *err;   /* NULL = durable; otherwise owned by the receiver */
    bool uncertain;    /* as of store_commit_sync: end the process, start again from the store */
    uint64_t revision; /* the store's after this batch */
};

/* Called on the writer thread, once for each batch, in order. Must not call into the writer. */
typedef void store_done_fn(void *cookie, void *batch_cookie, struct store_result result);

/* Starts the thread; `s` is the writer's alone until it is stopped, and must outlive it. */
struct err *store_writer_start(struct store *s, store_done_fn *done, void *cookie,
                               struct store_writer **ret) MUST_USE;

/* Copies of changes to hand over: the strings in them are owned too. */
struct store_batch *store_batch_new(void);
/* `key` is copied; takes ownership of `value` (NULL = delete). */
void store_batch_add(struct store_batch *b, uint64_t revision, enum store_kind kind,
                     const char *key, char *value);
size_t store_batch_size(const struct store_batch *b);
struct store_batch *store_batch_free(struct store_batch *b); /* accepts NULL; returns NULL */

/* Queues the batch and takes it over; never blocks on the disk. Any thread. */
void store_writer_submit(struct store_writer *w, struct store_batch *b, void *batch_cookie);

/* Called on the writer thread; `e` is NULL when the copy is complete (not flushed), otherwise owned by the receiver, and
 * there is no file. */
typedef void store_backup_done_fn(void *cookie, struct err *e);

/* Copies the store to the new file `path` while commits go on: a commit waits for one small piece of it at most. What was
 * answered as durable before this call is in the copy. ERR_BUSY: one is being made; `done` is not called. Any thread; never
 * blocks on the disk. */
struct err *store_writer_backup(struct store_writer *w, const char *path, store_backup_done_fn *done,
                                void *cookie) MUST_USE;

/* Commits and answers what is still queued, gives a copy up (ERR_CANCELLED), then ends the thread and frees the writer. Accepts
 * NULL; returns NULL. Blocks. Nothing may be submitted any more. */
struct store_writer *store_writer_stop(struct store_writer *w);
