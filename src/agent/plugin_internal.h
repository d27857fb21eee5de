/* Shared by plugin.c (the socket, what is answered from memory, what is kept on disk), plugin_calls.c (what is asked of the control
 * service) and plugin_users.c (uses that nobody has); not for others. */
#pragma once

#include "agent/plugin.h"
#include "agent/plugin_copy.h"
#include "agent/plugin_uses.h"
#include "agent/plugin_wire.h"
#include "net/http_server.h"
#include "net/workers.h"

#include <sys/queue.h>

/* What a call waits for. */
enum plugin_stage {
    STAGE_SAVING,   /* `seq` to be on disk */
    STAGE_CALLING,  /* the control service's answer */
    STAGE_WAITING,  /* something to change, or a while, before it is asked again */
    STAGE_MOUNTING, /* the dataset to be mounted here */
    STAGE_SEEING,   /* the catalogue to show what was done */
};

/* A call of Docker that is not answered yet. */
struct plugin_op {
    TAILQ_ENTRY(plugin_op) link;
    struct plugin *plugin;
    struct http_request *http;
    enum plugin_call call;
    struct plugin_request request;
    struct plugin_use *use; /* MOUNT */
    enum plugin_stage stage;
    uint64_t seq;    /* SAVING */
    bool asked_well; /* the control service said OK: after SAVING, wait for the mount */
    uint64_t number; /* CALLING */
    uint64_t epoch;  /* MOUNTING */
    uint64_t asked_us, deadline_us;
    uint64_t away_us; /* since when there is no session, as far as this call knows; 0 = there is */
    char *why;        /* what it waits for; NULL = not known */
    struct timer timer;
};

/* A use that is over, which the control service has to be told. */
struct plugin_drop {
    TAILQ_ENTRY(plugin_drop) link;
    struct plugin *plugin;
    char *name, *mount;
    struct uuid dataset;
    uint64_t seq; /* not before this is on disk */
    bool calling;
};

struct plugin {
    struct plugin_config config;
    struct agent_volumes *volumes;
    struct http_server *server;
    struct timer listen_again;
    char *listen_failure; /* logged already */
    struct workers *workers; /* one thread: what it writes is written in order */
    char *path; /* the mount point told last */

    struct plugin_uses uses;
    uint64_t seq, saving_seq, saved_seq; /* the last change; the one being written; the one on disk */
    bool saving;
    char *save_text;
    size_t save_n;
    struct err *save_error;
    bool save_failed; /* logged already */
    struct timer save_again;

    TAILQ_HEAD(, plugin_op) ops;
    unsigned n_ops;
    TAILQ_HEAD(, plugin_drop) drops;
    struct timer drop_again;

    bool known; /* the catalogue: told by the control service, or read from the copy, once */
    bool copy_due, copying;
    struct timer copy_timer;
    struct str copy_text;
    struct err *copy_error;

    struct workers *look_workers; /* one thread: looking through all processes takes its time, and the engine may hang */
    struct timer look_timer;
    bool looking;
};

/* ---- plugin.c ---- */

/* Something in the uses has changed: writes them. Returns what saved_seq will be at least. */
uint64_t plugin_save(struct plugin *p);
/* "/flocker/ID", valid until the next call. */
const char *plugin_mountpoint(struct plugin *p, const struct uuid *dataset);
const struct agent_config *plugin_settings(const struct plugin *p);
/* Answers, and frees the handle. `body` is emptied. */
void plugin_reply(struct http_request *http, unsigned status, struct str *body);
void plugin_reply_error(struct http_request *http, enum plugin_call call, const char *error);

/* ---- plugin_calls.c ---- */

/* Takes what is in `request`. */
void plugin_op_begin(struct plugin *p, struct http_request *http, enum plugin_call call, struct plugin_request *request);
void plugin_calls_saved(struct plugin *p); /* saved_seq has grown */
void plugin_calls_save_failed(struct plugin *p, const struct err *e);
void plugin_calls_session(struct plugin *p, bool up);
void plugin_calls_changed(struct plugin *p, const struct uuid *dataset, const char *name); /* in the catalogue; `name` may be NULL */
void plugin_calls_dataset_changed(struct plugin *p, const struct uuid *dataset);
/* Takes the use back: off the disk, then off the lease. No call of Mount waits for it. */
void plugin_use_drop(struct plugin *p, struct plugin_use *use);
void plugin_calls_done(struct plugin *p); /* ends all */
void plugin_drops_retry(void *cookie);

/* ---- plugin_users.c ---- */

void plugin_users_init(struct plugin *p);
/* There may be uses: looks at them from time to time. */
void plugin_users_watch(struct plugin *p);
