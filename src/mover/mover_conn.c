#include "mover/mover_conn.h"

#include "base/now.h"
#include "net/tls.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/err.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#define FAREWELL_MS 500u

struct mover_conn *mover_conn_new(int fd, SSL *ssl)
{
    struct mover_conn *c = xcalloc(1, sizeof(*c));

    c->fd = fd;
    c->ssl = ssl;
    c->idle_ms = MOVER_IDLE_S * 1000;
    /* A frame may be written in parts, and from another address when it is tried again. */
    (void)SSL_set_mode(ssl, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    return c;
}

struct mover_conn *mover_conn_free(struct mover_conn *c)
{
    if (!c)
        return NULL;
    SSL_free(c->ssl);
    mem_closep(&c->fd);
    free(c);
    return NULL;
}

void mover_socket_tune(int fd)
{
    int on = 1;
    unsigned user_timeout_ms = MOVER_IDLE_S * 1000;

    /* None of these is needed for being right. */
    (void)fcntl(fd, F_SETFL, O_NONBLOCK);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof(user_timeout_ms));
}

struct err *mover_conn_poll(struct mover_conn *c, int fd, short events, int timeout_ms,
                            short *ret_revents)
{
    uint64_t end = now_os().mono_us + (uint64_t)timeout_ms * 1000;

    for (;;) {
        if (c->check)
            TRY(c->check(c->cookie));
        uint64_t now = now_os().mono_us;
        int left = now < end ? (int)((end - now + 999) / 1000) : 0;
        struct pollfd p = {.fd = fd, .events = events};
        int n = poll(&p, 1, left < MOVER_SLICE_MS ? left : MOVER_SLICE_MS);

        if (n < 0 && errno != EINTR)
            return err_errno(errno, "cannot wait for a connection of the mover");
        if (n > 0 || left == 0) {
            *ret_revents = n > 0 ? p.revents : 0;
            return NULL;
        }
    }
}

/* What an SSL call that did not succeed wants: events to wait for, or an error. */
static struct err *wants(struct mover_conn *c, int rc, short *ret_events)
{
    int saved = errno;
    int why = SSL_get_error(c->ssl, rc);

    if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) {
        *ret_events = why == SSL_ERROR_WANT_READ ? POLLIN : POLLOUT;
        return NULL;
    }
    if (why == SSL_ERROR_ZERO_RETURN)
        return err_new(ERR_UNAVAILABLE, "the connection was closed before the end");
    if (why == SSL_ERROR_SYSCALL) {
        ERR_clear_error();
        return err_new(ERR_UNAVAILABLE, "the connection broke: %s",
                       saved ? strerrordesc_np(saved) : "end of file");
    }
    bool established = SSL_is_init_finished(c->ssl) == 1;
    unsigned long code = ERR_peek_error();
    CLEANUP_FREE char *text = tls_failure_text(c->ssl, 0);
    if (ERR_GET_REASON(code) == SSL_R_UNEXPECTED_EOF_WHILE_READING)
        return err_new(ERR_UNAVAILABLE, "the connection was cut");
    /* An alert about our certificate comes only after our side of the handshake is done. */
    bool alert = ERR_GET_REASON(code) >= SSL_AD_REASON_OFFSET;
    return err_new(established && !alert ? ERR_UNAVAILABLE : ERR_DENIED, "TLS: %s", text);
}

static struct err *wait_io(struct mover_conn *c, short events, uint64_t end_us, short *ret_revents)
{
    uint64_t now = now_os().mono_us;
    int left = now < end_us ? (int)((end_us - now + 999) / 1000) : 0;

    TRY(mover_conn_poll(c, c->fd, events, left, ret_revents));
    if (!*ret_revents)
        return err_new(ERR_UNAVAILABLE, "the peer is silent for %d seconds",
                       SSL_is_init_finished(c->ssl) ? MOVER_IDLE_S : MOVER_HANDSHAKE_S);
    return NULL;
}

struct err *mover_conn_handshake(struct mover_conn *c)
{
    uint64_t end = now_os().mono_us + MOVER_HANDSHAKE_S * USEC_PER_SEC;

    if (SSL_set_min_proto_version(c->ssl, TLS1_3_VERSION) != 1 || SSL_set_fd(c->ssl, c->fd) != 1)
        return err_new(ERR_INTERNAL, "cannot set up TLS for the mover");
    for (;;) {
        short events, revents;

        ERR_clear_error();
        errno = 0;
        int rc = SSL_do_handshake(c->ssl);
        if (rc == 1)
            return NULL;
        TRY(wants(c, rc, &events));
        TRY(wait_io(c, events, end, &revents));
    }
}

bool mover_conn_has_input(struct mover_conn *c)
{
    size_t got;
    char byte;

    ERR_clear_error();
    int rc = SSL_peek_ex(c->ssl, &byte, 1, &got);
    if (rc == 1)
        return true;
    int why = SSL_get_error(c->ssl, rc);
    ERR_clear_error();
    return why != SSL_ERROR_WANT_READ && why != SSL_ERROR_WANT_WRITE;
}

static struct err *read_exact(struct mover_conn *c, uint8_t *to, size_t n)
{
    uint64_t end = now_os().mono_us + c->idle_ms * USEC_PER_MSEC;

    if (c->check)
        TRY(c->check(c->cookie));
    while (n) {
        short events, revents;
        size_t got = 0;

        ERR_clear_error();
        errno = 0;
        int rc = SSL_read_ex(c->ssl, to, n, &got);
        if (rc == 1) {
            to += got;
            n -= got;
            continue;
        }
        TRY(wants(c, rc, &events));
        TRY(wait_io(c, events, end, &revents));
    }
    return NULL;
}

struct err *mover_conn_read(struct mover_conn *c, struct mover_header *ret_header)
{
    uint8_t bytes[MOVER_HEADER_SIZE];
    struct mover_header h;

    TRY(read_exact(c, bytes, sizeof(bytes)));
    TRY(mover_header_decode(bytes, &h));
    TRY(read_exact(c, c->input, h.length));
    TRY(mover_payload_check(&h, c->input));
    if (h.type == MOVER_ERROR)
        return mover_error_decode(c->input, h.length);
    *ret_header = h;
    return NULL;
}

struct err *mover_conn_expect(struct mover_conn *c, enum mover_frame type,
                              struct mover_header *ret_header)
{
    TRY(mover_conn_read(c, ret_header));
    if (ret_header->type != type)
        return err_new(ERR_CORRUPT, "the mover's peer sent frame %d where %d belongs",
                       (int)ret_header->type, (int)type);
    return NULL;
}

static struct err *write_all(struct mover_conn *c, const uint8_t *from, size_t n)
{
    uint64_t end = now_os().mono_us + c->idle_ms * USEC_PER_MSEC;

    if (c->check)
        TRY(c->check(c->cookie));
    while (n) {
        short events, revents;
        size_t put = 0;

        ERR_clear_error();
        errno = 0;
        int rc = SSL_write_ex(c->ssl, from, n, &put);
        if (rc == 1) {
            from += put;
            n -= put;
            end = now_os().mono_us + c->idle_ms * USEC_PER_MSEC;
            continue;
        }
        TRY(wants(c, rc, &events));
        bool listen = c->on_input && !c->in_input;
        uint64_t waits = now_os().mono_us;
        TRY(wait_io(c, listen ? events | POLLIN : events, end, &revents));
        c->blocked_us += now_os().mono_us - waits;
        if (listen && (revents & POLLIN) && mover_conn_has_input(c)) {
            c->in_input = true;
            struct err *e = c->on_input(c->cookie, c);
            c->in_input = false;
            if (e)
                return e;
            end = now_os().mono_us + c->idle_ms * USEC_PER_MSEC;
        }
    }
    c->wrote_us = now_os().mono_us;
    return NULL;
}

bool mover_conn_is_quiet(const struct mover_conn *c)
{
    return now_os().mono_us - c->wrote_us >= MOVER_KEEPALIVE_US;
}

struct err *mover_conn_write(struct mover_conn *c, enum mover_frame type, const void *payload,
                             size_t n)
{
    if (n > MOVER_PAYLOAD_MAX)
        return err_new(ERR_INTERNAL, "the mover made a frame of %zu bytes", n);
    if (n && payload != mover_conn_payload(c))
        memcpy(mover_conn_payload(c), payload, n);
    mover_header_encode(c->frame, type, mover_conn_payload(c), n);
    return write_all(c, c->frame, MOVER_HEADER_SIZE + n);
}

void mover_conn_end_with_error(struct mover_conn *c, const struct err *e)
{
    CLEANUP_STR struct str payload = {0};
    uint64_t end = now_os().mono_us + 2 * FAREWELL_MS * USEC_PER_MSEC;

    c->check = NULL;
    c->on_input = NULL;
    c->idle_ms = FAREWELL_MS;
    mover_error_encode(e, &payload);
    CLEANUP_ERR struct err *failed = mover_conn_write(c, MOVER_ERROR, payload.data, payload.len);
    if (failed)
        return;
    (void)SSL_shutdown(c->ssl);
    (void)shutdown(c->fd, SHUT_WR);
    /* Closing with unread bytes would reset the connection and might take the error frame with it.
     */
    for (;;) {
        struct pollfd p = {.fd = c->fd, .events = POLLIN};
        uint64_t now = now_os().mono_us;
        ssize_t n;

        if (now >= end || poll(&p, 1, (int)((end - now) / 1000) + 1) <= 0)
            return;
        while ((n = recv(c->fd, c->input, sizeof(c->input), MSG_DONTWAIT)) > 0)
            continue;
        if (n == 0 || (errno != EAGAIN && errno != EINTR))
            return;
    }
}
