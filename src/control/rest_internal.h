/* Shared by the files of the REST API; not for others. */
#pragma once

#include "base/random.h"
#include "base/str.h"
#include "control/rest.h"
#include "model/json.h"

#include <uthash.h>

/* A rendered answer that may be shared by many requests. */
struct document {
    unsigned refs;
    char etag[40]; /* with its quotes */
    size_t len;
    char *text;
};

/* Takes the text over. */
struct document *document_new(struct str *text);
struct document *document_unref(struct document *d); /* accepts NULL; returns NULL */

/* A write that waits for its commit. */
struct pending {
    uint64_t command;
    enum command_kind kind;
    struct http_request *request;
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

struct rest {
    struct rest_config config;
    uint64_t last_command;
    struct pending *pending;

    /* The configuration lists, as of the revision. */
    struct document *datasets, *containers;
    uint64_t datasets_revision, containers_revision;

    uint64_t instance; /* random, of this run */
    uint64_t last_event;
    struct event events[EVENTS_KEPT]; /* event n lies at n % EVENTS_KEPT */
    struct subscriber *subscribers;
    size_t n_subscribers;
    struct timer heartbeat;
};

/* `param`: the last part of the path, where the route ends in one. */
typedef void rest_handler_fn(struct rest *rest, struct http_request *r, const char *param);

/* rest.c: answers */

/* 200 with the document, or 304 when the client has it; `name`, `value`: one more header, or NULL.
 * Drops the caller's reference. */
void respond_document(struct http_request *r, struct document *d, const char *name,
                      const char *value);
/* The same with the text of `v`, which is taken over. */
void respond_read(struct http_request *r, json_t *v);
/* Any status; `v` is taken over. */
void respond_json(struct http_request *r, unsigned status, json_t *v);
/* Parses the body, or answers with 400 and returns NULL. */
json_t *parse_body(struct http_request *r);
/* Answers with 400 and the list of violations, which is taken over. */
void respond_violations(struct http_request *r, json_t *errors);

/* rest.c: commands */

/* Answers with 412 and returns false when the request has a condition that does not hold. */
bool condition_holds(struct rest *rest, struct http_request *r);
/* Fills in the id, and the request's conditions when `conditional`, and hands the command over; the
 * request is answered with its result. */
void submit(struct rest *rest, struct http_request *r, struct command *c);
void submit_conditional(struct rest *rest, struct http_request *r, struct command *c);

/* The handlers, by topic. */
rest_handler_fn datasets_list, datasets_create, datasets_move, datasets_delete;
rest_handler_fn datasets_state_list, datasets_state;
rest_handler_fn containers_list, containers_create, containers_move, containers_delete;
rest_handler_fn containers_state_list, containers_state;
rest_handler_fn leases_list, leases_acquire, leases_release;
rest_handler_fn nodes_list, nodes_by_era;
rest_handler_fn events_stream;
void events_free(struct rest *rest);
