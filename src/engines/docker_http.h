/* Requests to a Docker engine over its unix socket. One connection a call; blocking; thread-safe.
 */
#pragma once

#include "base/err.h"
#include "base/str.h"

#include <stdatomic.h>
#include <curl/curl.h>
#include <pthread.h>
#include <stdbool.h>

#define DOCKER_TIMEOUT_S 30L       /* of ordinary calls */
#define DOCKER_LONG_TIMEOUT_S 600L /* of pull (without progress) and stop */

struct docker_http {
    char *socket;
    pthread_mutex_t lock;
    unsigned api_minor; /* negotiated; 0 = not yet. Under `lock` */
};

struct docker_request {
    const char *method;
    const char *path;          /* below /v1.N, with query */
    const char *body;          /* JSON or NULL */
    const char *registry_auth; /* value of X-Registry-Auth or NULL */
    long timeout_s;            /* 0 = DOCKER_TIMEOUT_S */
    bool stream;               /* `timeout_s` counts only while nothing arrives */
    const atomic_bool *cancel;
    /* With `line` the body of a 200 answer goes there line by line (without the newline) and is not
     * kept. An error ends the call and is returned. */
    struct err *(*line)(void *cookie, const char *line, size_t n);
    void *cookie;
};

struct docker_response {
    long status;
    struct str body;
};

void docker_http_init(struct docker_http *h, const char *socket);
void docker_http_done(struct docker_http *h);
void docker_response_done(struct docker_response *r);

/* Any HTTP status is a success here. ERR_UNAVAILABLE: no connection, or no answer in time;
 * ERR_TIMEOUT: the same with a time-out of one's own; ERR_CANCELLED; ERR_CORRUPT: the answer is too
 * long or no HTTP. */
struct err *docker_http_call(struct docker_http *h, const struct docker_request *request,
                             struct docker_response *ret_response) MUST_USE;

/* For other users of curl in this room: an easy handle for a path as it is (with version), no
 * time-out set. */
struct err *docker_http_easy(const char *socket, const char *path, CURL **ret_easy) MUST_USE;

/* Cuts a stream into lines; a line over `DOCKER_LINE_MAX` is an error. */
#define DOCKER_LINE_MAX (1024u * 1024)
struct docker_lines {
    struct str rest;
};
struct err *docker_lines_feed(struct docker_lines *l, const char *bytes, size_t n,
                              struct err *(*line)(void *cookie, const char *line, size_t n),
                              void *cookie) MUST_USE;
