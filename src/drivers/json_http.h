/* JSON over HTTP for drivers: one call with a body and an answer, tried again for as long as that makes sense. Each
 * blocks until its deadline at the latest (a second after being cancelled), so it runs on a worker; all are thread-safe. */
#pragma once

#include "drivers/budget.h"
#include "net/http_client.h"

#include <jansson.h>

#define JSON_HTTP_ANSWER_MAX (4u << 20) /* unless the call says another */
#define JSON_HTTP_VALUES_MAX 500000u    /* in an answer; each costs many times its bytes */
#define JSON_HTTP_TRY_US 30000000u      /* one try */

struct json_http_call {
    const char *what;   /* begins each error: "cannot attach volume 1234" */
    const char *method; /* "GET", "POST", "PUT", "PATCH", "DELETE" */
    const char *url;
    const char *const *headers; /* "Name: value", ends with NULL; may be NULL. Never logged */
    const json_t *body;         /* NULL: none. Never logged */
    const char *keep_header;   /* NULL, or the name of one of the answer's headers, which is kept */
    size_t answer_max;         /* 0: JSON_HTTP_ANSWER_MAX */
    uint64_t deadline_us;      /* monotonic; for all tries */
    struct budget *budget;     /* each try takes a call of it; NULL: as many as there are */
    bool once;                 /* to do it twice would be wrong: see below */
    const atomic_bool *cancel; /* NULL: cannot be cancelled */
};

struct json_http_answer {
    int status;
    json_t *body; /* NULL: there was none, or, from 300 on, no JSON */
    char *header; /* keep_header's value; NULL: there was none */
};

/* Any answer is success, also one of status 404 or 500; what it means is for the caller to say, who
 * makes an error of it with json_http_failure(). Tried again with growing pauses until the deadline: status 429 and 503 (after
 * Retry-After, too), and 413 with Retry-After (as older OpenStacks limit rates), which say that nothing was done; unless `once`, also 500, 502, 504 and a connection that
 * could not be made, broke or was silent: there it may have been done. What is answered last is the result.
 * Errors: those of http_client_call_sync(); ERR_CORRUPT also when an answer below 300 is neither empty nor JSON. */
struct err *json_http_sync(struct http_client *http, const struct json_http_call *call,
                           struct json_http_answer *ret_answer) MUST_USE;
void json_http_answer_done(struct json_http_answer *a);
#define CLEANUP_JSON_HTTP_ANSWER CLEANUP(json_http_answer_done)

/* An answer that is a refusal as an error: `what`, what the other side says (shortened), and the status. The code is that of
 * the status: 401, 403 DENIED; 404, 410 NOT_FOUND; 409 CONFLICT; 413, 507 NO_SPACE; other 4xx INVALID; all else UNAVAILABLE. */
struct err *json_http_failure(const struct json_http_answer *a, const char *what) MUST_USE;

/* The two below are pure. */

/* ERR_CORRUPT: no JSON, a key twice, or more than JSON_HTTP_VALUES_MAX values. Any value, also a single string, is one. */
struct err *json_http_parse(const char *bytes, size_t n, json_t **ret_json) MUST_USE;
/* What a refusal says to people: "message", "error_description", "detail" or "error" at the top, or "message" in the only thing there
 * ({"itemNotFound": {"code": 404, "message": ...}}). NULL: nothing. Lives as long as `body`, which may be NULL. */
const char *json_http_message(const json_t *body);

/* "Authorization: Basic ...". The caller wipes and frees it. */
char *json_http_basic(const char *user, const char *password);
