/* The agent's budget of calls, as the control service shares it out: says when threads wait for a call, or the storage's API has
 * said "too many", and gives back what was handed out and is not needed. Loop thread. */
#pragma once

#include "agent/link.h"
#include "drivers/budget.h"
#include "net/loop.h"

struct agent_calls;

/* `budget` belongs to the caller and outlives it. */
struct agent_calls *agent_calls_new(struct loop *loop, struct budget *budget);
/* A session has begun that takes reports; `link` is used until agent_calls_down(). */
void agent_calls_up(struct agent_calls *c, struct agent_link *link);
/* It is over: what there is of the share stays. */
void agent_calls_down(struct agent_calls *c);
void agent_calls_share(struct agent_calls *c, const struct calls_share *share);
