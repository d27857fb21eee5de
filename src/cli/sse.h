/* Server-sent events (HTML standard, section 9.2.6), as far as GET /v1/events uses them: bytes in, events out. Lines that
 * are too long end the stream. Plain values; not thread-safe. */
#pragma once

#include "base/str.h"

#include <stdbool.h>

#define SSE_LINE_MAX 65536u /* bytes */

struct sse_event {
    const char *event; /* "message" when the stream names none */
    const char *data;  /* lines joined by newlines; "" = none */
};

typedef void sse_event_fn(void *cookie, const struct sse_event *event);

struct sse {
    sse_event_fn *fn;
    void *cookie;
    struct str line, event, data;
    struct str id;  /* of the last event; to be sent as Last-Event-ID after a break; survives sse_restart() */
    bool has_data, after_cr;
};

/* Calls fn for each event that is whole. false: a line is longer than SSE_LINE_MAX; the rest means nothing. */
bool sse_feed(struct sse *s, const char *bytes, size_t n);
/* The stream broke: forgets what was not whole. */
void sse_restart(struct sse *s);
void sse_done(struct sse *s);
