/* Messages with a non-default value in every field, one of each kind. */
#pragma once

#include "proto/codec.h"

/* The caller frees them with the _done functions. */
struct agent_message sample_agent_message(enum agent_message_kind kind);
struct control_message sample_control_message(enum control_message_kind kind);
