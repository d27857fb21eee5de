/* Messages waiting for a gRPC stream, the latest value of each thing only: a slow peer costs at most one message a
 * thing, never a growing queue. Order of first waiting is kept. Loop thread. */
#pragma once

#include "base/str.h"
#include "net/grpc.h"

struct outbox;

/* `stream` is used until outbox_free(). */
struct outbox *outbox_new(struct grpc_stream *stream);
struct outbox *outbox_free(struct outbox *o); /* accepts NULL; drops what waits; returns NULL */
/* Sends now, or when the stream has room. A message that waits under the same `key` is replaced; NULL = a message
 * that nothing replaces. Takes the bytes out of `message`. */
void outbox_send(struct outbox *o, const char *key, struct str *message);
/* Nothing waits here, and less than `bytes` in the stream's own queue. */
bool outbox_is_idle(const struct outbox *o, size_t bytes);
/* Call from the stream's on_drained. */
void outbox_drained(struct outbox *o);
