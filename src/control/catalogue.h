/* What is told to all agents that asked for it: the volumes, as a list in the order of their last change. Each session remembers how far
 * it has been told; so a slow agent costs nothing, and hears of each volume only what is true when its turn comes. An entry is encoded once
 * for all sessions. Nothing is made before the first session asks. Loop thread. */
#pragma once

#include "base/str.h"
#include "core/engine.h"

struct catalogue;

struct catalogue *catalogue_new(const struct engine *e);
struct catalogue *catalogue_free(struct catalogue *c); /* accepts NULL; returns NULL */

/* Somebody wants it from now on. */
void catalogue_begin(struct catalogue *c);
/* Something about the volume may have changed. */
void catalogue_note(struct catalogue *c, const struct uuid *dataset);
/* Looks at what was noted. Of what is there from before it begins it takes a part each time: true while there is more, come back then. */
bool catalogue_settle(struct catalogue *c, struct now now);
bool catalogue_is_whole(const struct catalogue *c);
uint64_t catalogue_newest(const struct catalogue *c); /* the cursor of who has been told everything */

/* The next message for a session that has been told everything up to `*cursor` (0 = nothing), which moves on; NULL: there is none. Valid
 * until catalogue_settle(). */
const struct str *catalogue_next(struct catalogue *c, uint64_t *cursor);
/* All sessions have been told everything up to there: what is gone since before is forgotten. */
void catalogue_told(struct catalogue *c, uint64_t cursor);
/* Is there anything gone that is not forgotten yet? */
bool catalogue_has_gone(const struct catalogue *c);
