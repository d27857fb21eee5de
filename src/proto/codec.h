/* The agent link's messages: model structures to and from their wire form (agent.proto). Pure
 * functions without I/O, state or clocks; thread-safe. Whatever bytes come in, decoding ends with a
 * message whose every value is within the limits below, or with ERR_CORRUPT and a text that names
 * the field. Fields that this version does not know are ignored; values of enums and kinds of
 * messages that it does not know are refused. */
#pragma once

#include "base/err.h"
#include "base/str.h"
#include "model/agent.h"
#include "model/volume_call.h"

/* The path of the one method, and the limit to give to the transport for messages on it. */
#define AGENT_SESSION_PATH "/flocker.agent.v1.Agent/Session"
#define CODEC_MAX_MESSAGE (16u << 20)

/* Memory that decoding one message may take before it is refused: many tiny parts cost more than
 * their bytes. */
#define CODEC_MAX_MEMORY (64u << 20)

/* Limits in bytes without the NUL, or in elements. Who lets data into the system (the REST service)
 * must be stricter than these, else an order is made that no agent accepts. */
#define CODEC_MAX_HOST 255
#define CODEC_MAX_VERSION 64
#define CODEC_MAX_BACKEND 64
#define CODEC_MAX_NAME 1024 /* container names, link aliases */
#define CODEC_MAX_IMAGE 4096
#define CODEC_MAX_PATH 4095
#define CODEC_MAX_STRING (1u << 20) /* one environment name or value, one argument */
#define CODEC_MAX_TEXT 4096         /* reason and refusal texts; longer ones are cut when sent */
#define CODEC_MAX_SNAPSHOTS 10000   /* of one dataset; only the newest are sent */
#define CODEC_MAX_VOLUMES 1024      /* of one container */
#define CODEC_MAX_INTERVAL_S 86400u
#define CODEC_MAX_LIST 65536        /* ports, links, environment, command line of one container */

/* What an agent says. */
enum agent_message_kind {
    AGENT_MESSAGE_HELLO,            /* hello */
    AGENT_MESSAGE_REPORT,           /* report */
    AGENT_MESSAGE_REPORT_GONE,      /* dataset */
    AGENT_MESSAGE_CONTAINER_REPORT, /* container */
    AGENT_MESSAGE_CONTAINER_GONE,   /* name */
    AGENT_MESSAGE_REPORTS_COMPLETE, /* storage_unknown */
    AGENT_MESSAGE_PING,             /* counter */
    AGENT_MESSAGE_PONG,             /* counter */
    AGENT_MESSAGE_ROUTES_REPORT,    /* routes */
    AGENT_MESSAGE_VOLUME_CALL,      /* call */
    AGENT_MESSAGE_VOLUME_USE,       /* use */
    AGENT_MESSAGE_VOLUME_USES_COMPLETE, /* nothing */
    AGENT_MESSAGE_SPACE_REPORT,     /* space */
    AGENT_MESSAGE_SIGHTING,         /* sighting */
    AGENT_MESSAGE_SIGHTINGS_COMPLETE, /* nothing */
    AGENT_MESSAGE_CALLS_REPORT,     /* calls */
    AGENT_MESSAGE_KIND_MAX,
};

struct agent_message {
    enum agent_message_kind kind;
    union {
        struct hello hello;
        struct report report;
        struct uuid dataset;
        struct container_report container;
        char *name;
        uint64_t counter;
        bool storage_unknown;
        struct routes_report routes;
        struct volume_call call;
        struct volume_use use;
        struct space space;
        struct sighting sighting;
        struct calls_report calls;
    };
};

/* What the control service says. */
enum control_message_kind {
    CONTROL_MESSAGE_WELCOME,         /* welcome */
    CONTROL_MESSAGE_ORDER,           /* order */
    CONTROL_MESSAGE_ORDER_NONE,      /* dataset */
    CONTROL_MESSAGE_CONTAINER_ORDER, /* container */
    CONTROL_MESSAGE_CONTAINER_NONE,  /* name */
    CONTROL_MESSAGE_ORDERS_COMPLETE, /* nothing */
    CONTROL_MESSAGE_REFUSED,         /* text */
    CONTROL_MESSAGE_PING,            /* counter */
    CONTROL_MESSAGE_PONG,            /* counter */
    CONTROL_MESSAGE_ROUTE,           /* route */
    CONTROL_MESSAGE_ROUTE_NONE,      /* port */
    CONTROL_MESSAGE_VOLUME_ANSWER,   /* answer */
    CONTROL_MESSAGE_VOLUME,          /* volume */
    CONTROL_MESSAGE_VOLUMES_COMPLETE, /* nothing */
    CONTROL_MESSAGE_VOLUME_NONE,     /* dataset */
    CONTROL_MESSAGE_LIST_ORDER,      /* list_order */
    CONTROL_MESSAGE_SIGHTING,        /* sighting */
    CONTROL_MESSAGE_CALLS_SHARE,     /* share */
    CONTROL_MESSAGE_KIND_MAX,
};

struct control_message {
    enum control_message_kind kind;
    union {
        struct welcome welcome;
        struct order order;
        struct uuid dataset;
        struct container_order container;
        char *name;
        char *text;
        uint64_t counter;
        struct port_route route;
        uint16_t port;
        struct volume_answer answer;
        struct volume_entry volume;
        struct list_order list_order;
        struct sighting sighting;
        struct calls_share share;
    };
};

/* Free what the message holds and clear it. */
void agent_message_done(struct agent_message *m);
void control_message_done(struct control_message *m);
#define CLEANUP_AGENT_MESSAGE CLEANUP(agent_message_done)
#define CLEANUP_CONTROL_MESSAGE CLEANUP(control_message_done)

/* Append the wire form to `out`. The message is only read; a sender may fill it with pointers that
 * it keeps owning. NULL strings are sent as empty ones. Reason and refusal texts are made valid
 * UTF-8 and cut to CODEC_MAX_TEXT. */
void codec_agent_encode(const struct agent_message *m, struct str *out);
void codec_control_encode(const struct control_message *m, struct str *out);

/* Read one message. On success the caller frees `*ret` with the _done function; ERR_CORRUPT else.
 * Optional strings (order.base, order.peer_host, reason.text) are NULL when absent or empty. */
struct err *codec_agent_decode(const void *bytes, size_t n, struct agent_message *ret) MUST_USE;
struct err *codec_control_decode(const void *bytes, size_t n, struct control_message *ret) MUST_USE;
