/* The agent's connection to the control service: one gRPC stream, made again with growing delays when it ends.
 * Loop thread; looking up the address runs on a worker. */
#pragma once

#include "model/agent.h"
#include "net/loop.h"
#include "net/workers.h"
#include "proto/codec.h"

#include <openssl/ssl.h>

struct agent_link_config {
    struct loop *loop;
    struct workers *workers;
    SSL_CTX *tls; /* of tls_client_context(TLS_KIND_CONTROL_SERVICE) */
    const char *host;
    uint16_t port;
    /* The hello of a session that begins, without `host`: filled in by the link. */
    void (*hello)(void *cookie, struct hello *ret);
    void (*message)(void *cookie, struct control_message *m); /* not PING, PONG, REFUSED */
    void (*down)(void *cookie); /* the session that had begun is over */
    void *cookie;
};

struct agent_link;

struct agent_link *agent_link_new(const struct agent_link_config *config);
struct agent_link *agent_link_free(struct agent_link *l); /* accepts NULL; returns NULL */
/* Sends in the present session; without one the message is dropped. `key`: see outbox_send(). */
void agent_link_send(struct agent_link *l, const char *key, const struct agent_message *m);
/* Somebody waits for a session until then (CLOCK_BOOTTIME, microseconds): as long as there is none, it is tried once a second,
 * however long the delay has grown. */
void agent_link_hurry(struct agent_link *l, uint64_t until_us);
/* The address under which this node reaches the control service; "" until known. */
const char *agent_link_address(const struct agent_link *l);
