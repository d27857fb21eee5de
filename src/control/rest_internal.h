/* Shared by the files of the REST API; not for others. */
#pragma once

#include "base/hash.h"
#include "base/random.h"
#include "base/str.h"
#include "control/rest.h"
#include "control/rest_errors.h"
#include "model/json.h"

/* A rendered answer that may be shared by many requests. */
struct document {
    unsigned refs;
    char hash[33];
    size_t len, gzip_len;
    char *text;
    unsigned char *gzip; /* the same compressed; NULL until somebody wants it */
};

/* Takes the text over. */
struct document *document_new(struct str *text);
struct document *document_unref(struct document *d); /* accepts NULL; returns NULL */

/* A write that waits for its commit. */
struct pending {
    uint64_t command;
    enum command_kind kind;
    struct uuid node; /* of the command */
    struct http_request *request; /* NULL: it was answered, for the disk was too late */
    uint64_t due_us;
    const char **tags; /* of X-If-Configuration-Matches; the strings are the request's */
    size_t n_tags;
    UT_hash_handle hh;
};

#define EVENTS_KEPT 1024 /* for readers that come back */

struct event {
    uint64_t n; /* 0 = none yet */
    enum object_kind kind;
    char *key;
};

struct subscriber {
    struct rest *rest;
    struct http_request *request;
    struct subscriber *prev, *next;
};

/* `param`: the last part of the path, where the route ends in one. */
typedef void rest_handler_fn(struct rest *rest, struct http_request *r, const char *param);

/* One method at one path. A path that ends in '/' takes one more part, the handler's parameter. */
struct route {
    enum http_method method;
    const char *path;
    const char
        *name; /* the operationId of the OpenAPI document; what metrics and audit log call it */
    rest_handler_fn *handler;
    uint64_t errors; /* set of REST_BIT() that it may answer with */
};
#define REST_BIT(error) (UINT64_C(1) << REST_ERROR_##error)

/* api/openapi.yaml as JSON; made by the build. */
extern const char openapi_json[];
extern const size_t openapi_json_len;

extern const struct route rest_routes[];
extern const size_t rest_n_routes;

/* One request on its way; hangs on the request and ends with it. */
struct call {
    struct rest *rest;
    const struct route *route; /* NULL: none fits */
    uint64_t began_us;
    char *object; /* what it is about: id of a dataset, name of a container; NULL = nothing yet */
    char node[UUID_TEXT_SIZE]; /* the node it names; "" = none */
    char *error;               /* description of the refusal; NULL = none */
    char *why;                 /* as whoever asked for a change said; NULL = nothing */
};

/* Notes which error a request is answered with, for the audit log. */
void call_note_error(const struct http_request *r, enum rest_error error, const char *description);
/* Notes why a change is wanted, for the audit log. */
void call_note_why(const struct http_request *r, const char *why);
/* Notes what a change is about. */
void call_note(const struct http_request *r, const char *object, const struct uuid *node);

/* Upper ends of the classes of times, in microseconds; the last class has no end. */
#define CLASSES 12
extern const uint64_t rest_class_ends_us[CLASSES - 1];

struct times {
    uint64_t classes[CLASSES];
    uint64_t sum_us;
};

/* Requests of one route, by the class of their status: 0 = no answer. */
struct counts {
    uint64_t answered[6];
};

struct past;

struct rest {
    struct rest_config config;
    struct http_server *server; /* NULL = not told */
    uint64_t last_command;
    struct pending *pending; /* in the order of their coming */
    struct timer late;

    /* The configuration lists, as of the revision. */
    struct document *datasets, *containers, *openapi;
    uint64_t datasets_revision, containers_revision;

    uint64_t started_wall_us;
    uint64_t instance; /* random, of this run */
    uint64_t last_event;
    struct event events[EVENTS_KEPT]; /* event n lies at n % EVENTS_KEPT */
    struct subscriber *subscribers;
    size_t n_subscribers;
    struct timer heartbeat;

    struct past *past;
    struct counts *counts; /* one a route, and one for requests without */
    struct times reads, changes;
};

/* rest_answer.c */

/* 200 with the document, or 304 when the client has it, and at most four more headers. Drops the
 * caller's reference. */
void respond_document(struct http_request *r, struct document *d, const struct http_header *more,
                      size_t n_more);
/* The same with the text of `v`, which is taken over. */
void respond_read(struct http_request *r, json_t *v);
/* Appends the text of `v`, which is taken over. */
void append_json(struct str *s, json_t *v);
/* Any status; `v` is taken over. */
void respond_json(struct http_request *r, unsigned status, json_t *v);
/* Whether If-None-Match names the tag, which is part of no other. */
bool client_has_tag(const struct http_request *r, const char *tag);
void respond_error(struct http_request *r, enum rest_error error);
/* The same with another description than that of the table. */
void respond_error_about(struct http_request *r, enum rest_error error, const char *fmt, ...)
    PRINTF_LIKE(3, 4);
/* Parses the body, or answers with 400 and returns NULL. */
json_t *parse_body(struct http_request *r);
/* Answers with 400 and the list of violations, which is taken over. */
void respond_violations(struct http_request *r, json_t *errors);

/* rest_stream.c */

/* Appends what is to be listed of the dataset: nothing, an item, or more with commas between them. */
typedef void stream_append_fn(const struct rest *rest, struct str *s, const struct uuid *id);
/* Answers with a list over all datasets piece by piece when there are many; false: do it at once. `tag`: the
 * configuration's, where the list depends on nothing else, or NULL. */
bool respond_stream(struct rest *rest, struct http_request *r, const char *tag,
                    stream_append_fn *append);

/* rest.c: commands */

/* Answers with 412 and returns false when the request has a condition that does not hold. */
bool condition_holds(struct rest *rest, struct http_request *r);
/* Fills in the id, and the request's conditions when `conditional`, and hands the command over; the
 * request is answered with its result. */
void submit(struct rest *rest, struct http_request *r, struct command *c);
/* The answer to a command that was refused. */
void respond_refusal(struct http_request *r, const struct command_result *result);
void submit_conditional(struct rest *rest, struct http_request *r, struct command *c);

/* rest_page.c: lists that are walked in the order of their keys: filters, pages, and as many turns of the loop as it takes */

#define LONG_LIST 4096u /* keys; so many take some milliseconds at most, a list of fewer is kept as text */
#define TURN_KEYS 1024u /* so many are looked at in one turn */

/* What a request wants of a list, and how far it is. */
struct page {
    struct rest *rest;
    struct http_request *request; /* NULL: the list is for nobody yet */
    bool by_name; /* keys are names, not ids */
    bool wanted;  /* a part of the list was asked for */
    size_t limit; /* of keys; 0 = all */
    struct uuid *after; /* looked at up to this key; NULL = at nothing; this one when keys are ids, */
    char *after_name;   /* and this one when they are names */
    char *name;         /* only what has this name; NULL = any */
    struct uuid *node;  /* only what is on this node; NULL = any */
    void (*walk)(struct page *p, const struct list_query *q);
    char *tag;       /* header X-Configuration-Tag, or NULL */
    struct str text; /* of the items; empty = none */
    char *last;      /* key of the last item; NULL = none */
    size_t keys;     /* of the items */
    bool more;       /* others follow */
    unsigned turn;   /* looked at in this turn of the loop */
    bool paused;     /* looks on in the next one */
};

#define PAGE_NAME 1u    /* `name` has a meaning */
#define PAGE_NODE 2u    /* `node` has one */
#define PAGE_BY_NAME 4u /* keys are names, not ids */

/* Reads the parameters, or answers with 400 and returns NULL. */
struct page *page_new(struct rest *rest, struct http_request *r, unsigned flags);
struct page *page_free(struct page *p); /* returns NULL */
/* Answers with what `walk` finds, now or in later turns. It calls page_has() and page_item() for each item, and
 * ends when page_looked_at() says so. Takes the page over. */
void page_answer(struct page *p, void (*walk)(struct page *p, const struct list_query *q));
/* Does it pass the filters? `name` may be NULL. */
bool page_has(const struct page *p, const char *name, const struct uuid *node);
/* Where to append the next item to, NULL when the page is full. Several items may have one key. */
struct str *page_item(struct page *p, const char *key);
/* False: no more in this turn. The second for lists by name. */
bool page_looked_at(struct page *p, const struct uuid *id);
bool page_looked_at_name(struct page *p, const char *name);
/* The same for what does not belong to a request: all that `walk` finds, in this turn. */
struct document *page_whole(struct rest *rest, void (*walk)(struct page *p, const struct list_query *q));

/* rest_past.c: what became of datasets and containers lately */

void past_note(struct rest *rest, enum object_kind kind, const char *key);
/* List of {"time", "status", "node", "reason"}, oldest first. */
json_t *past_value(const struct rest *rest, enum object_kind kind, const char *key);
struct past *past_free(struct past *h);

/* How a dataset or container is, in short. */
struct brief {
    const char *status; /* static */
    struct uuid node;   /* where it is; nil = nowhere */
    enum reason_code reason;
};

/* False when there is no such object. */
bool dataset_brief(const struct rest *rest, const char *key, struct brief *ret_brief);
bool container_brief(const struct rest *rest, const char *key, struct brief *ret_brief);

/* Reads a dataset's id from a path. */
bool parse_id(const char *param, struct uuid *ret);
/* What /v1/adoption says. */
json_t *adoption_value(const struct rest *rest);
/* What /v1/fences/NODE says. */
json_t *fence_preview_value(const struct rest *rest, const struct uuid *node);
/* The newest comparison of its replica, or null. */
json_t *verification_value(const struct rest *rest, const struct uuid *dataset);

/* The handlers, by topic. */
rest_handler_fn adoption_get, adoption_of_store, adoption_of_dataset;
rest_handler_fn datasets_list, datasets_create, datasets_update, datasets_delete;
rest_handler_fn datasets_state_list, datasets_state;
rest_handler_fn replicas_list, replicas_delete;
rest_handler_fn verification_of_dataset;
rest_handler_fn containers_list, containers_create, containers_move, containers_delete;
rest_handler_fn containers_state_list, containers_state;
rest_handler_fn configuration_compose, configuration_plan;
rest_handler_fn leases_list, leases_state_list, leases_acquire, leases_release;
rest_handler_fn cordons_list, cordons_add, cordons_delete;
rest_handler_fn fences_list, fences_preview, fences_add, fences_delete, copies_delete;
rest_handler_fn nodes_list, nodes_by_era;
rest_handler_fn events_stream;
rest_handler_fn get_version, get_openapi, get_health, get_ready, get_metrics;
void events_free(struct rest *rest);
void metrics_count(struct call *call, const struct http_request *r, unsigned status);
/* One line of the audit log, when there is one. */
void audit_call(struct call *call, const struct http_request *r, unsigned status);
