/* The REST API, version 1 (contract section 1), on an http_server.
 *
 * Reads are answered at once from the engine's committed values. A write is parsed and checked,
 * handed to the engine as a command, and answered when its result comes back, that is when it is
 * durable. Everything runs on the loop thread. The strings of error answers are part of the
 * contract. */
#pragma once

#include "base/str.h"
#include "control/audit.h"
#include "core/engine.h"
#include "net/http_server.h"
#include "net/loop.h"

struct rest;

struct rest_config {
    struct loop *loop;
    const struct engine *engine; /* read only; must outlive the rest */
    /* Gives `c` to engine_command() at once (`c` is valid during the call only), and sees to it
     * that the engine is flushed and its effects are carried out afterwards. Replies may come
     * before it returns. */
    void (*submit)(void *cookie, struct command *c);
    /* Why no change could be made at present, a sentence that the caller frees; NULL: one could. */
    char *(*not_ready)(void *cookie);
    /* Adds lines about the store to the metrics, in Prometheus' text form; may be NULL. */
    void (*measure)(void *cookie, struct str *out);
    uint64_t change_us;  /* after this long without a commit a change is answered; 0 = 30 s */
    struct audit *audit; /* NULL = no audit log; must outlive the rest */
    void *cookie;
};

struct rest *rest_new(const struct rest_config *config);
/* The server it runs on, for the metrics; NULL when it is gone. */
void rest_set_server(struct rest *rest, struct http_server *server);
/* Answers what still waits with 503, and ends the event streams. The server must not call
 * rest_handle any more. Accepts NULL; returns NULL. */
struct rest *rest_free(struct rest *rest);

/* The http_handler_fn for the API's server; `rest` is the cookie. */
void rest_handle(struct http_request *r, void *rest);

/* Call for each EFFECT_REPLY. Ids that nobody waits for have no effect. */
void rest_reply(struct rest *rest, uint64_t command, const struct command_result *result);
/* Call for each EFFECT_CHANGED: goes to the readers of GET /v1/events, and into the histories. */
void rest_changed(struct rest *rest, enum object_kind kind, const char *key);
