/* What a driver whose volumes live elsewhere keeps on this node (state_dir is the agent's own folder):
 *
 *   <state_dir>/BACKEND/marks/DATASET/     ownership mark, and what storage.c keeps beside it
 *   <state_dir>/BACKEND/volumes/DATASET    id of the volume that this node made or found for the dataset
 *
 * The ids are hints, not truth: a list of the backend's may lag behind, and who asks by id is told the truth sooner. A
 * volume counts only when the backend itself says whose it is. All functions block and are thread-safe. */
#pragma once

#include "base/err.h"
#include "drivers/driver.h"

struct notes {
    int marks, volumes; /* folders; -1: not open */
};
#define NOTES_CLOSED                                                                               \
    (struct notes)                                                                                 \
    {                                                                                              \
        .marks = -1, .volumes = -1                                                                 \
    }

/* `n` is NOTES_CLOSED; to be closed also after an error. */
struct err *notes_open(struct notes *n, const char *state_dir, const char *backend) MUST_USE;
void notes_close(struct notes *n);

/* Durable when it returns. */
struct err *notes_write(const struct notes *n, const struct uuid *dataset, const char *id) MUST_USE;
/* *ret_id NULL: there is none, or it is not of 1 to `max` printable characters without blanks. The caller frees it. */
struct err *notes_read(const struct notes *n, const struct uuid *dataset, size_t max,
                       char **ret_id) MUST_USE;
struct err *notes_remove(const struct notes *n, const struct uuid *dataset) MUST_USE;
/* Adds to `l` the datasets that are known here and not in it. Calls `inspect` for those with an id that are in the list
 * without a volume: a list may be behind. */
struct err *notes_list(const struct notes *n, struct volume_list *l, void *cookie,
                       struct err *(*inspect)(void *cookie, const struct uuid *dataset,
                                              struct volume_state *v)) MUST_USE;

/* What driver.h asks of mark_dir() and forget(). */
struct err *notes_mark_dir(const struct notes *n, const struct uuid *dataset, bool create,
                           int *ret_fd) MUST_USE;
struct err *notes_forget(const struct notes *n, const struct uuid *dataset) MUST_USE;
