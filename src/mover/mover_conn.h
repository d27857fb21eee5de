/* One TLS connection of the mover, frame by frame. The socket does not block; every wait is cut
 * into slices of MOVER_SLICE_MS after each of which `check` is asked. One thread at a time. */
#pragma once

#include "base/err.h"
#include "mover/mover_wire.h"

#include <openssl/ssl.h>
#include <stdbool.h>

#define MOVER_SLICE_MS 200
#define MOVER_HANDSHAKE_S 15
#define MOVER_IDLE_S 60              /* without a byte from or to the peer */
#ifndef MOVER_KEEPALIVE_US           /* a test makes it short */
#define MOVER_KEEPALIVE_US 10000000u /* say something at least this often while a stream runs */
#endif

struct mover_conn {
    int fd;
    SSL *ssl;
    /* Non-NULL ends what is being done with that error. May be NULL. */
    struct err *(*check)(void *cookie);
    /* Called when the peer speaks while a frame waits to be written; it reads one frame. NULL: not
     * looked for. */
    struct err *(*on_input)(void *cookie, struct mover_conn *c);
    void *cookie;
    uint16_t version; /* agreed in the last OFFER; 0 = none yet */
    bool in_input;
    uint64_t idle_ms;  /* MOVER_IDLE_S, until the farewell */
    uint64_t blocked_us; /* how long frames waited to be written, in all */
    uint64_t wrote_us; /* when the last frame was written (now_os().mono_us) */
    uint8_t frame[MOVER_HEADER_SIZE + MOVER_PAYLOAD_MAX]; /* of writing */
    uint8_t input[MOVER_PAYLOAD_MAX];                     /* of reading */
};

struct mover_conn *mover_conn_new(int fd, SSL *ssl); /* takes both */
struct mover_conn *mover_conn_free(struct mover_conn *c);

/* Non-blocking, no delay, keep-alive. */
void mover_socket_tune(int fd);
/* Waits at most `timeout_ms` for `events` on `fd`, asking `check` between; 0 in *ret_revents: time
 * is up. */
struct err *mover_conn_poll(struct mover_conn *c, int fd, short events, int timeout_ms,
                            short *ret_revents) MUST_USE;
/* TLS 1.3 or nothing. ERR_DENIED: one side refuses the other's certificate; ERR_UNAVAILABLE: broken
 * off or too slow. */
struct err *mover_conn_handshake(struct mover_conn *c) MUST_USE;
/* Is there something to read, the end included? Does not block. */
bool mover_conn_has_input(struct mover_conn *c);
/* Reads a frame into `c->input`. An ERROR frame is returned as the error. ERR_UNAVAILABLE: broken
 * off or idle. */
struct err *mover_conn_read(struct mover_conn *c, struct mover_header *ret_header) MUST_USE;
/* The same, and the frame must be of this type. */
struct err *mover_conn_expect(struct mover_conn *c, enum mover_frame type,
                              struct mover_header *ret_header) MUST_USE;
/* Where the payload of the next frame may be put beforehand; mover_conn_write() then need not copy.
 */
static inline uint8_t *mover_conn_payload(struct mover_conn *c)
{
    return c->frame + MOVER_HEADER_SIZE;
}
/* Is it time to say that we are still here? */
bool mover_conn_is_quiet(const struct mover_conn *c);
struct err *mover_conn_write(struct mover_conn *c, enum mover_frame type, const void *payload,
                             size_t n) MUST_USE;
/* Tells the peer why, and waits (a second at most) so that it can read it. `c->check` is not asked
 * any more. */
void mover_conn_end_with_error(struct mover_conn *c, const struct err *e);
