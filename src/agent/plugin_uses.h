/* Which mounts of Docker volumes are in use on this node: the mount ids that were asked for and not given back, by volume. What a use is
 * to keep it in force must be on disk before it is asked for, so that none is forgotten. A reboot ends all of them: no container of the
 * boot before runs. Loop thread, but for the two that end in _sync. */
#pragma once

#include "base/err.h"
#include "base/hash.h"
#include "base/uuid.h"
#include "model/lease.h"

#include <stdbool.h>
#include <sys/queue.h>

#define USES_MAX 20000u /* of a node, all volumes together */

struct plugin_use {
    LIST_ENTRY(plugin_use) link;
    struct plugin_volume *volume;
    char *mount;      /* the id */
    uint64_t seq;     /* the first saving that has it */
    unsigned waiting; /* calls of Mount under way */
    bool held;        /* a Mount of it was answered well */
    bool parked;      /* given back while the control service was away: not on disk any more, but there the lease still has it */
    bool unconfirmed; /* granted while the control service was away */
};

struct plugin_volume {
    char *name;
    struct uuid dataset; /* nil = not known yet: nothing of it was answered well */
    LIST_HEAD(, plugin_use) uses; /* never empty */
    size_t n;
    uint64_t mounted_us;   /* mono: the last Mount */
    uint64_t unused_us;    /* mono: since when nobody is seen that uses it; 0 = somebody is, or it was not looked */
    UT_hash_handle hh;
};

struct plugin_uses {
    struct plugin_volume *by_name;
    size_t n;
};

struct plugin_volume *uses_volume(const struct plugin_uses *u, const char *name); /* NULL: no use of it */
struct plugin_use *uses_find(const struct plugin_uses *u, const char *name, const char *mount);
/* Finds or adds. ERR_LIMIT: there are too many. */
struct err *uses_get(struct plugin_uses *u, const char *name, const char *mount, struct plugin_use **ret_use) MUST_USE;
void uses_remove(struct plugin_uses *u, struct plugin_use *use);
/* Some use of the volume that was answered well; NULL = none. */
struct plugin_use *uses_held(const struct plugin_volume *v);
void uses_done(struct plugin_uses *u);

/* The file: what is not parked, with the boot in which it holds. Pure. */
char *uses_format(const struct plugin_uses *u, const struct uuid *boot, size_t *ret_n);
/* `ret` must be empty. What is of another boot is left out; so is what was not answered well. ERR_CORRUPT. */
struct err *uses_parse(const char *text, size_t n, const struct uuid *boot, struct plugin_uses *ret) MUST_USE;

/* No file is an empty set. A damaged one is ERR_CORRUPT. */
struct err *uses_load_sync(const char *state_dir, const struct uuid *boot, struct plugin_uses *ret) MUST_USE;
/* Durable when it returns. */
struct err *uses_save_sync(const char *state_dir, const char *text, size_t n) MUST_USE;
