/* Calls of the control service's REST API: HTTPS with the user's certificate; the server's is
 * checked against the cluster's authority for the fixed name `control-service`, whatever host is
 * dialled (contract section 2.3). One connection, kept open between calls; calls block. Not
 * thread-safe. */
#pragma once

#include "base/err.h"
#include "cli/sse.h"

#include <jansson.h>
#include <stdint.h>

struct api;

struct api_config {
    const char *host; /* name or address of the control service */
    uint16_t port;
    const char *authority;   /* paths of PEM files */
    const char *certificate; /* of the user */
    const char *key;
};

/* Checks the files: there, the user's signed by the authority; connects at the first call. */
struct err *api_open(const struct api_config *config, struct api **ret_api) MUST_USE;
struct api *api_free(struct api *r); /* accepts NULL; returns NULL */

/* `path` starts with "/v1/"; `body` may be NULL. An answer that is not 2xx becomes an error with
 * the server's description: 404 ERR_NOT_FOUND, 400 ERR_INVALID, 405/409/412 ERR_CONFLICT, else
 * ERR_INTERNAL; ERR_UNSUPPORTED when the server does not know the path at all; ERR_UNAVAILABLE when
 * no server was reached, which alone is worth repeating. *ret_answer is owned by the caller;
 * `ret_answer` may be NULL. */
struct err *api_call(struct api *r, const char *method, const char *path, const json_t *body,
                     json_t **ret_answer) MUST_USE;
/* The same call with the answer as it is, whatever its status: appended to `text`. */
struct err *api_exchange(struct api *r, const char *method, const char *path, const json_t *body,
                         struct str *text, long *ret_status) MUST_USE;
static inline struct err *api_get(struct api *r, const char *path, json_t **ret_answer)
{
    return api_call(r, "GET", path, NULL, ret_answer);
}
/* Feeds a stream of events into `s` until it ends (NULL) or breaks (ERR_UNAVAILABLE: worth repeating; s->id is where to go
 * on). *ret_began: the stream was open. Calls of api_call from within s->fn are fine. */
struct err *api_follow(struct api *r, const char *path, struct sse *s, bool *ret_began) MUST_USE;
/* "/v1/state/containers/" + the percent-encoded name. */
char *api_path(const char *prefix, const char *name);
