/* Parsing of HTTP/1.1 requests: bytes in, structures out; no I/O. Strict where leniency would let
 * two readers of the same bytes disagree (RFC 9112 sections 2.2, 5, 6 and 11.2). Thread-safe. */
#pragma once

#include "base/str.h"
#include "net/http_server.h"

#define HTTP_MAX_HEADERS 100
#define HTTP_LENGTH_NONE UINT64_MAX

/* One parsed head. All pointers point into `bytes`, which belongs to the head. */
struct http_head {
    char *bytes;
    enum http_method method;
    char *raw_path, *query;
    char *path; /* decoded; allocated */
    struct http_header headers[HTTP_MAX_HEADERS];
    unsigned header_count;
    unsigned minor;          /* HTTP/1.<minor>: 0 or 1 */
    uint64_t content_length; /* HTTP_LENGTH_NONE: no such header */
    bool chunked;
    bool keep_alive;      /* what the client wants */
    bool expect_continue; /* the client waits for "100 Continue" */
};

/* A refusal: the status to answer with, and why. */
struct http_refusal {
    unsigned status;  /* 0 = none */
    const char *text; /* static */
};

/* Looks for the end of the head in `n` bytes, from *scanned on (kept by the caller between calls, 0
 * at first). Returns the length of the head with its empty line, 0 when more bytes are needed. A
 * line that does not end in CRLF is a refusal. */
size_t http_head_find(const char *bytes, size_t n, size_t *scanned,
                      struct http_refusal *ret_refusal);
/* Parses `n` bytes found by http_head_find(). *ret_head is written only when nothing is refused. */
struct http_refusal http_head_parse(const char *bytes, size_t n, struct http_head **ret_head);
struct http_head *http_head_free(struct http_head *h); /* accepts NULL; returns NULL */
const char *http_head_get(const struct http_head *h, const char *name, unsigned index);

/* Decodes %XX of n bytes ('+' to space when `plus`); NULL when malformed or holding a NUL. The
 * caller frees it. */
char *http_percent_decode(const char *s, size_t n, bool plus);

/* The chunked coding of a body. Zeroed = at the beginning. */
struct http_chunked {
    unsigned state;
    uint64_t left;       /* of the present chunk */
    unsigned line_bytes; /* of the present line */
    unsigned trailer_bytes;
};

enum http_chunked_result {
    HTTP_CHUNKED_MORE, /* all bytes taken, more needed */
    HTTP_CHUNKED_DATA, /* *ret_data, *ret_len: body bytes; call again with the rest */
    HTTP_CHUNKED_END,
    HTTP_CHUNKED_BAD,
};

/* Takes some of `n` bytes: *ret_taken of them. */
enum http_chunked_result http_chunked_feed(struct http_chunked *c, const char *bytes, size_t n,
                                           size_t *ret_taken, const char **ret_data,
                                           size_t *ret_len);
