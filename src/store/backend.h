/* What a database must offer to be a store; used only inside src/store. The contract of each verb
 * is that of the function of the same name in store.h. */
#pragma once

#include "store/store.h"

#include <stdatomic.h>

/* Hands one stored record over; `value` has `n` bytes and is valid during the call only. */
typedef struct err *store_record_fn(void *cookie, enum store_kind kind, const char *key,
                                    const char *value, size_t n);

struct store_ops {
    const char *name;
    /* Calls `fn` for each record, datasets first, then containers, then leases; ends with its first
     * error. */
    struct err *(*read_sync)(struct store *s, store_record_fn *fn, void *cookie);
    /* The generations, oldest first; `ret->store` too. */
    struct err *(*read_history_sync)(struct store *s, struct history *ret);
    /* `changes` were checked against the limits and the revision. */
    struct err *(*commit_sync)(struct store *s, const struct store_change *changes, size_t n,
                               bool *ret_uncertain);
    void (*tidy_sync)(struct store *s);
    /* The contract of these three is that of store_backup_begin_sync and so on. */
    struct err *(*backup_begin_sync)(struct store *s, const char *path, struct store_backup **ret);
    void (*close)(struct store *s); /* frees it */
};

/* The first member of each backend's own struct. */
struct store {
    const struct store_ops *ops;
    struct uuid id;
    _Atomic uint64_t revision;
    bool uncertain; /* a commit ended without a known outcome; the store takes no more */
};

/* The first member of each backend's own struct. */
struct store_backup {
    struct err *(*step_sync)(struct store_backup *b, bool *ret_done);
    void (*end_sync)(struct store_backup *b); /* frees it */
};

struct err *store_sqlite_open(const char *dir, struct store **ret) MUST_USE;
