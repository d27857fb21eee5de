/* Connections that ended a stream well and wait for the next one of the same transfer: the last increment of a hand-off,
 * for which a writer stands still, finds one ready. */
#include "base/now.h"
#include "base/str.h"
#include "mover/mover_internal.h"

#include <poll.h>

struct kept {
    struct uuid dataset, peer;
    uint64_t transfer;
    char *host;
    uint16_t port;
    struct mover_conn *conn;
    uint64_t since_us; /* now_os().mono_us */
};

static bool is_for(const struct kept *k, const struct mover_send *what)
{
    return k->transfer == what->transfer && k->port == what->peer_port && uuid_eq(&k->dataset, &what->dataset) &&
           uuid_eq(&k->peer, &what->peer) && streq(k->host, what->peer_host);
}

/* Takes it out of the list; the caller frees connection and host. */
static struct kept take_at(struct mover *m, size_t i)
{
    struct kept k = m->kept[i];

    m->kept[i] = m->kept[--m->n_kept];
    return k;
}

/* While one waits, the peer says nothing: it is old, or it was closed at the other end. */
static bool is_stale(const struct kept *k, uint64_t now_us)
{
    struct pollfd p = {.fd = k->conn->fd, .events = POLLIN};

    return now_us - k->since_us >= MOVER_KEPT_US || poll(&p, 1, 0) != 0;
}

struct mover_conn *mover_kept_take(struct mover *m, const struct mover_send *what)
{
    struct mover_conn *conn = NULL;
    char *host = NULL;

    (void)pthread_mutex_lock(&m->lock);
    for (size_t i = 0; i < m->n_kept && !conn; i++) {
        if (is_for(&m->kept[i], what) && !is_stale(&m->kept[i], now_os().mono_us)) {
            struct kept k = take_at(m, i);
            conn = k.conn;
            host = k.host;
        }
    }
    (void)pthread_mutex_unlock(&m->lock);
    free(host);
    return conn;
}

void mover_kept_put(struct mover *m, const struct mover_send *what, struct mover_conn *conn)
{
    struct kept k = {.dataset = what->dataset,
                     .peer = what->peer,
                     .transfer = what->transfer,
                     .host = xstrdup(what->peer_host),
                     .port = what->peer_port,
                     .conn = conn,
                     .since_us = now_os().mono_us};
    bool full;

    conn->check = NULL;
    conn->cookie = NULL;
    (void)pthread_mutex_lock(&m->lock);
    full = m->n_kept == MOVER_KEPT_MAX || atomic_load(&m->stopping);
    if (!full) {
        m->kept = mem_grow(m->kept, m->n_kept, &m->cap_kept, sizeof(*m->kept));
        m->kept[m->n_kept++] = k;
    }
    (void)pthread_mutex_unlock(&m->lock);
    if (full) {
        free(k.host);
        (void)mover_conn_free(conn);
        return;
    }
    mover_wake(m);
}

bool mover_kept_sweep(struct mover *m, bool all)
{
    uint64_t now_us = now_os().mono_us;
    size_t left;

    (void)pthread_mutex_lock(&m->lock);
    for (size_t i = m->n_kept; i--;) {
        if (!all && !is_stale(&m->kept[i], now_us))
            continue;
        struct kept k = take_at(m, i);
        free(k.host);
        (void)mover_conn_free(k.conn); /* does not wait for the peer */
    }
    left = m->n_kept;
    (void)pthread_mutex_unlock(&m->lock);
    return left > 0;
}
