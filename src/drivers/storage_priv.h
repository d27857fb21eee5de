/* Shared by storage.c (what to do, in which order) and place.c (mounts and the proof of
 * unwritability). */
#pragma once

#include "drivers/driver.h"
#include "drivers/mounts.h"
#include "drivers/storage.h"

struct storage {
    const struct driver *driver;
    void *cookie;
    void (*no_space)(void *cookie); /* NULL: nobody wants to know */
    void *no_space_cookie;
    char *mount_root; /* without symbolic links: as it stands in the mount table */
    /* Attachable: */
    const char *filesystem; /* of new volumes; static */
    char *mount_options;    /* NULL: none */
};

/* Where the dataset is mounted; the caller frees it. */
char *place_path(const struct storage *s, const struct uuid *dataset);
/* true when the dataset's own volume is mounted at its place. `t` is this thread's mount table. */
bool place_is_mounted(struct storage *s, const struct volume_state *v, const struct mount_table *t,
                      char **ret_device);
/* Attachable, without asking the backend: is what was known to be mounted there still? Where it cannot tell, it says what was not known. */
bool place_is_still_mounted(const struct storage *s, const struct volume_state *known, const struct mount_table *t);
/* Mounts the volume (attachable: attached already) at its place; makes the file system on a blank
 * device. */
struct err *place_mount(struct storage *s, const struct uuid *dataset) MUST_USE;
struct err *place_find_user(struct storage *s, const struct uuid *dataset, char **ret_user) MUST_USE; /* storage_find_user() */
/* Unmounts and proves (storage_unmount). `v` says what there is. */
struct err *place_unmount(struct storage *s, const struct volume_state *v) MUST_USE;
/* Attachable: waits until the device of the volume is at least so large, and when it is mounted at its place, makes the file
 * system as large. */
struct err *place_grow(struct storage *s, const struct uuid *dataset, uint64_t size) MUST_USE;
/* Removes what is noted beside the mark of a volume that is gone from here. `dir` is mark_dir(). */
struct err *place_forget(int dir) MUST_USE;

/* Writes out what its users have written; what fails is found by what follows. */
void place_flush(const struct storage *s, const struct uuid *dataset);
/* Removes mount points that a crash or a reboot left behind, if they are empty. */
struct err *place_clean(struct storage *s) MUST_USE;
