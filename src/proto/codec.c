#include "proto/codec.h"

#include "proto/codec_wire.h"

static const int roles[ROLE_MAX] = {
    [ROLE_NONE] = WIRE__ROLE__ROLE_NONE,       [ROLE_OWNER] = WIRE__ROLE__ROLE_OWNER,
    [ROLE_SOURCE] = WIRE__ROLE__ROLE_SOURCE,   [ROLE_RELEASE] = WIRE__ROLE__ROLE_RELEASE,
    [ROLE_RECEIVE] = WIRE__ROLE__ROLE_RECEIVE, [ROLE_KEEP] = WIRE__ROLE__ROLE_KEEP,
    [ROLE_DROP] = WIRE__ROLE__ROLE_DROP,       [ROLE_DESTROY] = WIRE__ROLE__ROLE_DESTROY,
    [ROLE_REPLICA] = WIRE__ROLE__ROLE_REPLICA,
};
const struct enum_map map_role = {roles, ARRAY_SIZE(roles)};

static const int kinds[STORAGE_KIND_MAX] = {
    [STORAGE_LOCAL] = WIRE__STORAGE_KIND__STORAGE_KIND_LOCAL,
    [STORAGE_ATTACHABLE] = WIRE__STORAGE_KIND__STORAGE_KIND_ATTACHABLE,
};
const struct enum_map map_storage = {kinds, ARRAY_SIZE(kinds)};

static const int supports[REPLICA_SUPPORT_MAX] = {
    [REPLICAS_NONE] = WIRE__REPLICA_SUPPORT__REPLICA_SUPPORT_UNSPECIFIED,
    [REPLICAS_NO_LIMIT] = WIRE__REPLICA_SUPPORT__REPLICA_SUPPORT_NO_LIMIT,
    [REPLICAS_ALL] = WIRE__REPLICA_SUPPORT__REPLICA_SUPPORT_ALL,
};
const struct enum_map map_replicas = {supports, ARRAY_SIZE(supports)};

static const int marks[MARK_STATE_MAX] = {
    [MARK_NONE] = WIRE__MARK_STATE__MARK_STATE_NONE,
    [MARK_OWNED] = WIRE__MARK_STATE__MARK_STATE_OWNED,
    [MARK_PROMOTING] = WIRE__MARK_STATE__MARK_STATE_PROMOTING,
    [MARK_RELEASED] = WIRE__MARK_STATE__MARK_STATE_RELEASED,
};
const struct enum_map map_mark = {marks, ARRAY_SIZE(marks)};

static const int ends[COMPARISON_END_MAX] = {
    [COMPARISON_RUNS] = WIRE__COMPARISON_END__COMPARISON_END_UNSPECIFIED,
    [COMPARISON_EQUAL] = WIRE__COMPARISON_END__COMPARISON_END_EQUAL,
    [COMPARISON_DIFFERS] = WIRE__COMPARISON_END__COMPARISON_END_DIFFERS,
    [COMPARISON_FAILED] = WIRE__COMPARISON_END__COMPARISON_END_FAILED,
};
const struct enum_map map_end = {ends, ARRAY_SIZE(ends)};

static const int runs[CONTAINER_RUN_MAX] = {
    [CONTAINER_ABSENT] = WIRE__CONTAINER_RUN__CONTAINER_RUN_ABSENT,
    [CONTAINER_CREATED] = WIRE__CONTAINER_RUN__CONTAINER_RUN_CREATED,
    [CONTAINER_RUNNING] = WIRE__CONTAINER_RUN__CONTAINER_RUN_RUNNING,
    [CONTAINER_EXITED] = WIRE__CONTAINER_RUN__CONTAINER_RUN_EXITED,
};
const struct enum_map map_run = {runs, ARRAY_SIZE(runs)};

static const int healths[CONTAINER_HEALTH_MAX] = {
    [HEALTH_NONE] = WIRE__CONTAINER_HEALTH__CONTAINER_HEALTH_UNSPECIFIED,
    [HEALTH_STARTING] = WIRE__CONTAINER_HEALTH__CONTAINER_HEALTH_STARTING,
    [HEALTH_HEALTHY] = WIRE__CONTAINER_HEALTH__CONTAINER_HEALTH_HEALTHY,
    [HEALTH_UNHEALTHY] = WIRE__CONTAINER_HEALTH__CONTAINER_HEALTH_UNHEALTHY,
};
const struct enum_map map_health = {healths, ARRAY_SIZE(healths)};

static const int actions[CONTAINER_ACTION_MAX] = {
    [CONTAINER_PREPARE] = WIRE__CONTAINER_ACTION__CONTAINER_ACTION_PREPARE,
    [CONTAINER_RUN] = WIRE__CONTAINER_ACTION__CONTAINER_ACTION_RUN,
};
const struct enum_map map_action = {actions, ARRAY_SIZE(actions)};

static const int policies[RESTART_POLICY_MAX] = {
    [RESTART_NEVER] = WIRE__RESTART_POLICY__RESTART_POLICY_NEVER,
    [RESTART_ALWAYS] = WIRE__RESTART_POLICY__RESTART_POLICY_ALWAYS,
    [RESTART_ON_FAILURE] = WIRE__RESTART_POLICY__RESTART_POLICY_ON_FAILURE,
};
const struct enum_map map_policy = {policies, ARRAY_SIZE(policies)};

static const int conditions[DEPENDENCY_MAX] = {
    [DEPENDENCY_STARTED] = WIRE__DEPENDENCY_CONDITION__DEPENDENCY_CONDITION_STARTED,
    [DEPENDENCY_HEALTHY] = WIRE__DEPENDENCY_CONDITION__DEPENDENCY_CONDITION_HEALTHY,
    [DEPENDENCY_COMPLETED] = WIRE__DEPENDENCY_CONDITION__DEPENDENCY_CONDITION_COMPLETED,
};
const struct enum_map map_condition = {conditions, ARRAY_SIZE(conditions)};

static const int calls[VOLUME_CALL_KIND_MAX] = {
    [VOLUME_CREATE] = WIRE__VOLUME_CALL_KIND__VOLUME_CALL_KIND_CREATE,
    [VOLUME_REMOVE] = WIRE__VOLUME_CALL_KIND__VOLUME_CALL_KIND_REMOVE,
    [VOLUME_USE] = WIRE__VOLUME_CALL_KIND__VOLUME_CALL_KIND_USE,
    [VOLUME_UNUSE] = WIRE__VOLUME_CALL_KIND__VOLUME_CALL_KIND_UNUSE,
};
const struct enum_map map_call = {calls, ARRAY_SIZE(calls)};

static const int codes[VOLUME_AWAY] = {
    [VOLUME_OK] = WIRE__VOLUME_CODE__VOLUME_CODE_OK,
    [VOLUME_CREATED] = WIRE__VOLUME_CODE__VOLUME_CODE_CREATED,
    [VOLUME_NOT_FOUND] = WIRE__VOLUME_CODE__VOLUME_CODE_NOT_FOUND,
    [VOLUME_HELD] = WIRE__VOLUME_CODE__VOLUME_CODE_HELD,
    [VOLUME_RELEASING] = WIRE__VOLUME_CODE__VOLUME_CODE_RELEASING,
    [VOLUME_INVALID] = WIRE__VOLUME_CODE__VOLUME_CODE_INVALID,
    [VOLUME_FAILED] = WIRE__VOLUME_CODE__VOLUME_CODE_FAILED,
};
const struct enum_map map_code = {codes, ARRAY_SIZE(codes)};

static const int holders[HOLDER_KIND_MAX] = {
    [HOLDER_NONE] = WIRE__HOLDER_KIND__HOLDER_KIND_UNSPECIFIED,
    [HOLDER_MOUNTS] = WIRE__HOLDER_KIND__HOLDER_KIND_MOUNTS,
    [HOLDER_LEASE] = WIRE__HOLDER_KIND__HOLDER_KIND_LEASE,
    [HOLDER_CONTAINER] = WIRE__HOLDER_KIND__HOLDER_KIND_CONTAINER,
};
const struct enum_map map_holder = {holders, ARRAY_SIZE(holders)};

static const int duties[LIST_DUTY_MAX] = {
    [LIST_ALONE] = WIRE__LIST_DUTY__LIST_DUTY_UNSPECIFIED,
    [LIST_FOR_ALL] = WIRE__LIST_DUTY__LIST_DUTY_FOR_ALL,
    [LIST_BY_OTHER] = WIRE__LIST_DUTY__LIST_DUTY_BY_OTHER,
};
const struct enum_map map_duty = {duties, ARRAY_SIZE(duties)};

#define CODE(name) [REASON_##name] = WIRE__REASON_CODE__REASON_CODE_##name
static const int reasons[REASON_CODE_MAX] = {
    [REASON_NONE] = WIRE__REASON_CODE__REASON_CODE_UNSPECIFIED,
    CODE(NODE_DISCONNECTED),
    CODE(OWNER_DISCONNECTED),
    CODE(DESTINATION_DISCONNECTED),
    CODE(LEASE_HELD),
    CODE(IN_USE_BY_CONTAINER),
    CODE(CREATING),
    CODE(MOUNTING),
    CODE(COPYING),
    CODE(RELEASING),
    CODE(PROMOTING),
    CODE(VOLUME_BUSY),
    CODE(DATA_MISSING),
    CODE(NO_SPACE),
    CODE(STORAGE_ERROR),
    CODE(STORAGE_MISSING),
    CODE(TRANSFER_FAILED),
    CODE(PEER_UNREACHABLE),
    CODE(BACKEND_MISMATCH),
    CODE(CANNOT_MOVE),
    CODE(WAITING_FOR_DATASET),
    CODE(WAITING_FOR_IMAGE),
    CODE(IMAGE_MISSING),
    CODE(IMAGE_PULL_FAILED),
    CODE(PORT_IN_USE),
    CODE(START_FAILED),
    CODE(STOP_FAILED),
    CODE(CONTAINER_EXITED),
    CODE(CRASH_LOOP),
    CODE(NAME_TAKEN),
    CODE(ENGINE_UNAVAILABLE),
    CODE(ROUTES_FAILED),
    CODE(STORE_UNKNOWN),
    CODE(DELETING),
    CODE(WAITING_FOR_HOLDERS),
    CODE(STOPPING),
    CODE(RECORDING),
    CODE(STORE_FAILED),
    CODE(CHANGES_TOO_FAST),
    CODE(STORE_RESTORED),
    CODE(WAITING_FOR_DEPENDENCY),
    CODE(NODE_FENCED),
    CODE(DATA_ON_FENCED_NODE),
    CODE(COPY_KEPT),
    CODE(STORAGE_LIMIT),
    CODE(NODE_UNHEARD),
};
#undef CODE
const struct enum_map map_reason = {reasons, ARRAY_SIZE(reasons)};

/* A code that is added to the model needs a number on the wire; the unit test finds a hole in a
 * table. */
_Static_assert(REASON_CODE_MAX == 46, "give the new reason a number in agent.proto and codec.c");

void agent_message_done(struct agent_message *m)
{
    switch (m->kind) {
    case AGENT_MESSAGE_HELLO:
        hello_done(&m->hello);
        break;
    case AGENT_MESSAGE_REPORT:
        report_done(&m->report);
        break;
    case AGENT_MESSAGE_CONTAINER_REPORT:
        container_report_done(&m->container);
        break;
    case AGENT_MESSAGE_CONTAINER_GONE:
        free(m->name);
        break;
    case AGENT_MESSAGE_ROUTES_REPORT:
        reason_done(&m->routes.reason);
        break;
    case AGENT_MESSAGE_VOLUME_CALL:
        volume_call_done(&m->call);
        break;
    case AGENT_MESSAGE_VOLUME_USE:
        volume_use_done(&m->use);
        break;
    case AGENT_MESSAGE_SIGHTING:
        sighting_done(&m->sighting);
        break;
    case AGENT_MESSAGE_SIGHTINGS_COMPLETE:
    case AGENT_MESSAGE_CALLS_REPORT:
    case AGENT_MESSAGE_VOLUME_USES_COMPLETE:
    case AGENT_MESSAGE_REPORT_GONE:
    case AGENT_MESSAGE_REPORTS_COMPLETE:
    case AGENT_MESSAGE_SPACE_REPORT:
    case AGENT_MESSAGE_PING:
    case AGENT_MESSAGE_PONG:
    case AGENT_MESSAGE_KIND_MAX:
        break;
    }
    *m = (struct agent_message){0};
}

void control_message_done(struct control_message *m)
{
    switch (m->kind) {
    case CONTROL_MESSAGE_ORDER:
        order_done(&m->order);
        break;
    case CONTROL_MESSAGE_CONTAINER_ORDER:
        container_order_done(&m->container);
        break;
    case CONTROL_MESSAGE_CONTAINER_NONE:
        free(m->name);
        break;
    case CONTROL_MESSAGE_REFUSED:
        free(m->text);
        break;
    case CONTROL_MESSAGE_ROUTE:
        route_done(&m->route);
        break;
    case CONTROL_MESSAGE_VOLUME_ANSWER:
        volume_answer_done(&m->answer);
        break;
    case CONTROL_MESSAGE_VOLUME:
        volume_entry_done(&m->volume);
        break;
    case CONTROL_MESSAGE_SIGHTING:
        sighting_done(&m->sighting);
        break;
    case CONTROL_MESSAGE_LIST_ORDER:
    case CONTROL_MESSAGE_CALLS_SHARE:
    case CONTROL_MESSAGE_VOLUMES_COMPLETE:
    case CONTROL_MESSAGE_VOLUME_NONE:
    case CONTROL_MESSAGE_ROUTE_NONE:
    case CONTROL_MESSAGE_WELCOME:
    case CONTROL_MESSAGE_ORDER_NONE:
    case CONTROL_MESSAGE_ORDERS_COMPLETE:
    case CONTROL_MESSAGE_PING:
    case CONTROL_MESSAGE_PONG:
    case CONTROL_MESSAGE_KIND_MAX:
        break;
    }
    *m = (struct control_message){0};
}
