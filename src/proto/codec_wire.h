/* Private to the codec: the enums of the model beside those of the wire. */
#pragma once

#include "proto/agent.pb-c.h"

#include <stddef.h>

/* wire[model value] = value on the wire. */
struct enum_map {
    const int *wire;
    size_t n;
};

extern const struct enum_map map_role;
extern const struct enum_map map_storage, map_replicas;
extern const struct enum_map map_reason;
extern const struct enum_map map_mark;
extern const struct enum_map map_end;
extern const struct enum_map map_run;
extern const struct enum_map map_action;
extern const struct enum_map map_policy;
extern const struct enum_map map_condition, map_health;
extern const struct enum_map map_call, map_code, map_holder, map_duty;
