/* Stands in for agent/volumes.c and the control service behind it: a catalogue, and one lease a volume. Everything but fake_lock() and what
 * is said to need it runs on the loop. */
#pragma once

#include "agent/volumes.h"

#include <stdatomic.h>

#define FAKE_VOLUMES_MAX 20000
#define FAKE_MOUNTS_MAX 512

struct fake_volume {
    struct volume_entry entry;
    bool deleted;
    const char *held_by;              /* somebody elsewhere; or NULL */
    char *mounts[FAKE_MOUNTS_MAX];    /* of this node's lease */
    size_t n_mounts;
    bool mounted;
};

struct fake {
    struct loop *loop;
    struct agent_volumes_config config;
    struct fake_volume *volumes;
    size_t n;
    bool up;
    uint64_t answer_us; /* how long an answer takes */
    uint64_t hurry_until_us; /* somebody waited for a session until then */
    bool silent;        /* calls get no answer at all */
    bool mounts_late;   /* a dataset that was granted is mounted only when fake_mounted() says so */
    bool releasing;     /* USE answers RELEASING */
    bool fails;         /* everything answers FAILED */
    void (*on_use)(const char *name, const char *mount); /* when USE arrives; or NULL */
    atomic_uint calls[VOLUME_CALL_KIND_MAX];
    atomic_uint uses_told; /* at the beginning of the last session */
};

extern struct fake fake;

void fake_init(struct loop *loop);
void fake_done(void);
void fake_forget(void); /* all volumes, told to nobody */
void fake_session(bool up); /* begins (the uses are told, and the catalogue) or ends */
struct fake_volume *fake_find(const char *name); /* not deleted; NULL */
struct fake_volume *fake_add(const char *name);
void fake_hold(struct fake_volume *v, const char *who); /* NULL: not any more */
void fake_mounted(struct fake_volume *v);
bool fake_has_mount(const struct fake_volume *v, const char *mount);
