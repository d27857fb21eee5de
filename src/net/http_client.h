/* Calls to HTTP services of others (clouds, storage arrays), for drivers. A call blocks, so it runs on
 * a worker; it ends at its deadline, or within a second of being cancelled. What the other side sends is limited
 * in every part. TLS (1.2 or newer) is verified against the host's name. Nothing is redirected, nothing is
 * repeated: whether a call may be made again is for the caller to know. (One exception, of HTTP itself: a kept connection that
 * turns out to be closed before anything was answered is replaced by a new one; not for a call that is marked `once`.) The program must ignore SIGPIPE. */
#pragma once

#include "base/err.h"
#include "base/str.h"

#include <stdatomic.h>

#define HTTP_CLIENT_ANSWER_MAX (16u << 20) /* unless the call says less */
#define HTTP_CLIENT_HEADERS_MAX (64u << 10)
#define HTTP_CLIENT_BODY_MAX                                                                       \
    (1u << 20) /* of requests; up to there libcurl asks for no "100 Continue" */
#define HTTP_CLIENT_CONNECT_US 10000000u

struct http_client;

struct http_client_options {
    const char *ca_file; /* PEM; NULL: the authorities that the system trusts */
    bool insecure;       /* whoever answers is believed to be it; ca_file is not used then */
    bool direct;         /* without the proxy of the environment (https_proxy): for what is near */
};

/* Signature Version 4 of AWS; libcurl makes it. Signed are host, x-amz-date, and all headers that the call names.
 * Known of libcurl 7.88.1 (Debian 12): it signs what is in the list of headers, also one that is in it only to
 * be left out ("Expect:"), which then nobody can verify; so such lines are never used here. A header that libcurl adds by itself
 * (Content-Type of a POST) is not signed: name it in the call. The query is taken as it is, neither sorted nor encoded: keep
 * it empty, or in canonical form. */
struct http_sign {
    const char *region, *service;
    const char *key_id, *secret; /* never logged, in no error */
};

struct http_call {
    const char *method;         /* "GET", "PUT", "POST", "PATCH", "DELETE" */
    const char *url;            /* http:// or https://, without user and password */
    const char *const *headers; /* "Name: value", ends with NULL; may be NULL */
    const void *body;           /* NULL: none */
    size_t body_size;
    const struct http_sign *sign; /* NULL: not signed */
    bool once; /* on a new connection, so that it is certainly sent one time only */
    const char *keep_header;      /* NULL, or the name of a header of the answer that is wanted */
    size_t answer_max;            /* 0: HTTP_CLIENT_ANSWER_MAX */
    uint64_t timeout_us;          /* for all of it, at least a millisecond */
    const atomic_bool *cancel;    /* NULL: cannot be cancelled */
};

struct http_answer {
    int status; /* any, also 5xx: what it means is for the caller to say */
    struct str body;
    unsigned retry_after_s; /* of the header Retry-After in seconds; 0: there was none */
    char *header;           /* the value of keep_header (the last, of several); NULL: there was none */
};

/* Fails only when the options are wrong (ERR_INVALID: the CA file cannot be read). */
struct err *http_client_new(const struct http_client_options *options,
                            struct http_client **ret_client) MUST_USE;
/* No call may be under way. Accepts NULL; returns NULL. */
struct http_client *http_client_free(struct http_client *c);

/* Thread-safe; connections are kept and used again. ERR_TIMEOUT, ERR_CANCELLED, ERR_UNAVAILABLE (no
 * connection, or it broke: it may have been done all the same), ERR_DENIED (the certificate is not to be trusted), ERR_CORRUPT
 * (not HTTP, or too long), ERR_INVALID (the call). */
struct err *http_client_call_sync(struct http_client *c, const struct http_call *call,
                                  struct http_answer *ret_answer) MUST_USE;
void http_answer_done(struct http_answer *a);
#define CLEANUP_HTTP_ANSWER CLEANUP(http_answer_done)
