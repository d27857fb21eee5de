/* What an agent asks about volumes, as a command of the engine, and the engine's result as an answer. Pure functions. */
#pragma once

#include "core/engine.h"

/* `ret` refers to `call`, except for its dataset, which engine_command() takes over. A CREATE must have passed volume_create_check(). */
void volume_call_command(const struct volume_call *call, uint64_t session, struct command *ret);
/* The caller frees the answer with volume_answer_done(); its number is 0. */
void volume_call_answer(enum volume_call_kind kind, const struct command_result *result, struct volume_answer *ret);
