/* A small world for the tests of the gRPC transport: one loop, a server with a few methods, one
 * client. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "certs.h"

#include "net/grpc.h"
#include "net/tls.h"

#include <event2/event.h>
#include <signal.h>
#include <stdio.h>

#define WAIT_MS 8000

enum transport { UNIX, PLAIN_TCP, MTLS };

struct world {
    struct event_base *base;
    struct grpc_server *server;
    struct grpc_client *client;
    char dir[64];
    char path[128];
    bool timed_out;
    /* the client's view of its connection */
    int ready;
    int failed;
    char failure[512];
    /* the server's view of streams */
    int opened, half_closed, server_closed, server_messages;
    enum grpc_status server_status;
    char server_text[256];
    struct grpc_stream *server_stream; /* the newest open one */
    size_t blast_left;                 /* messages that /t/Blast still wants to send */
    size_t queued_peak;
    char peer_name[TLS_NAME_SIZE];
};

extern struct world *w; /* of the running test */

struct call {
    struct grpc_stream *stream;
    int messages;
    size_t bytes;
    uint64_t sum;
    int closed;
    enum grpc_status status;
    char text[512];
    int drained;
    int to_send; /* messages still to be sent, one each time the queue drains */
    bool half_close_after;
    struct grpc_client *free_on_message;
};

extern const struct grpc_handlers call_handlers; /* the cookie is a struct call */

#define NASTY "100% caf\xc3\xa9\nnew line \xf0\x9f\x90\xb3 and \x7f"
#define NASTY_SEEN "100% caf\xc3\xa9\nnew line \xf0\x9f\x90\xb3 and ?"

/* Runs the loop until the condition holds; fails the test after WAIT_MS. */
#define RUN_UNTIL(condition)                                                                       \
    do {                                                                                           \
        struct timeval limit_ = {WAIT_MS / 1000, 0};                                               \
        struct event *deadline_ = event_new(w->base, -1, 0, on_deadline, NULL);                    \
        event_add(deadline_, &limit_);                                                             \
        w->timed_out = false;                                                                      \
        while (!(condition) && !w->timed_out)                                                      \
            event_base_loop(w->base, EVLOOP_ONCE);                                                 \
        event_free(deadline_);                                                                     \
        if (!(condition))                                                                          \
            fail_msg("not within %d ms: %s", WAIT_MS, #condition);                                 \
    } while (0)

void run_for(unsigned ms);
void must(struct err *e);
struct grpc_stream *open_call(struct call *c, const char *path, uint32_t timeout_ms);
void make_certs(void); /* a CA, "control", "node" and "user", in the world's directory */
SSL *client_ssl(const char *name); /* with that certificate */
void serve_with(enum transport transport, struct grpc_server_options o);
struct grpc_client_options client_options(enum transport transport);
void connect_client(enum transport transport);
void serve(enum transport transport); /* a server and a client of it */
void call_send(struct call *c);       /* what c->to_send asks for, as the queue allows */
int world_setup(void **state);
int world_teardown(void **state);
void on_deadline(int fd, short what, void *cookie); /* for RUN_UNTIL */
