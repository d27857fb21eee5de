/* The agent's end of the calls and of the catalogue (model/volume_call.h), on top of the link. Loop thread.
 *
 * The agent's main part owns it, and gives it the link's messages; the Docker plugin uses it. */
#pragma once

#include "agent/link.h"
#include "core/node.h"
#include "model/volume_call.h"

struct agent_volumes;

struct agent_volumes_config {
    struct loop *loop;
    /* All uses that there are now, those not yet acknowledged, too; called after each welcome. */
    void (*each_use)(void *cookie, void (*fn)(void *fn_cookie, const struct volume_use *), void *fn_cookie);
    /* An entry of the catalogue is new, changed, or (`now` NULL) gone. Entries are valid during the call. */
    void (*changed)(void *cookie, const struct uuid *dataset, const struct volume_entry *now);
    /* The whole catalogue was told in this session; what was known before and not told again has been reported gone. */
    void (*complete)(void *cookie);
    /* A session with a control service that has calls and the catalogue begins (after the uses were told), or is over. */
    void (*session)(void *cookie, bool up);
    /* What this node has of the dataset, or what it is to do about it, changed: ask agent_volume_mounted() again. */
    void (*dataset_changed)(void *cookie, const struct uuid *dataset);
    void *cookie;
};

struct agent_volumes *agent_volumes_new(const struct agent_volumes_config *config);
struct agent_volumes *agent_volumes_free(struct agent_volumes *v); /* accepts NULL; returns NULL; answers nothing any more */

/* Makes the call (copied; `number` is set here) and returns its number. `answered` is called once, never before this returns: with the
 * answer, or with VOLUME_AWAY when there is no session or it ends first. Beyond VOLUME_CALLS_MAX calls wait their turn in order. */
typedef void volume_answered_fn(void *cookie, const struct volume_answer *a);
uint64_t agent_volumes_call(struct agent_volumes *v, const struct volume_call *call, volume_answered_fn *answered, void *cookie);
/* `answered` will not be called. What was asked for may have been done, or be done yet. */
void agent_volumes_forget(struct agent_volumes *v, uint64_t number);

/* Somebody waits for a session until then: agent_link_hurry(). No effect before the agent has a link. */
void agent_volumes_hurry(struct agent_volumes *v, uint64_t until_us);
bool agent_volumes_is_up(const struct agent_volumes *v); /* there is a session with calls */

/* The catalogue, as last told; it is kept when the session ends. Pointers are valid until the loop runs again. */
const struct volume_entry *agent_volumes_by_name(const struct agent_volumes *v, const char *name);
const struct volume_entry *agent_volumes_by_id(const struct agent_volumes *v, const struct uuid *dataset);
size_t agent_volumes_count(const struct agent_volumes *v);
/* By name, then by id, until `fn` returns false. */
void agent_volumes_each(const struct agent_volumes *v, bool (*fn)(void *cookie, const struct volume_entry *), void *cookie);
/* Before the first session: what a copy on disk says. Copied. No effect for what was told already. */
void agent_volumes_remember(struct agent_volumes *v, const struct volume_entry *e);

/* Is it mounted here, so that the answer OK with that `epoch` to a USE is fulfilled? node_volume_mounted() of core/node.h. */

/* ---- for the agent's main part ---- */

/* What makes the sessions, not owned; NULL before it is freed. */
void agent_volumes_set_link(struct agent_volumes *v, struct agent_link *link);
/* After the welcome of a session whose control service has calls and the catalogue; and when that is over (no effect when none is up). */
void agent_volumes_up(struct agent_volumes *v, struct agent_link *link);
void agent_volumes_down(struct agent_volumes *v);
/* VOLUME_ANSWER, VOLUME, VOLUME_NONE, VOLUMES_COMPLETE; others have no effect. */
void agent_volumes_message(struct agent_volumes *v, const struct control_message *m);
void agent_volumes_dataset_changed(struct agent_volumes *v, const struct uuid *dataset);
