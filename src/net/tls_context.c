/* OpenSSL contexts whose handshake decides everything about the peer. */
#include "net/tls_private.h"

#include "base/str.h"

#include <openssl/err.h>
#include <openssl/x509v3.h>
#include <pthread.h>

/* What the handshake demands of the peer; hangs on the SSL_CTX. */
struct demand {
    enum tls_kind peer;
    bool client; /* we are the client */
    struct uuid cluster;
    unsigned flags;
    unsigned char alpn[16]; /* wire form: length, name */
    unsigned alpn_len;
    SSL_CTX *newest; /* made from a later certificate; NULL: none. Under `newest_lock` */
};

/* An SSL_CTX cannot take another certificate in one step while other threads use it, so it points to its successor. */
static pthread_mutex_t newest_lock = PTHREAD_MUTEX_INITIALIZER;

/* Places of our data in OpenSSL's objects. */
static pthread_once_t places_once = PTHREAD_ONCE_INIT;
static int place_demand;  /* SSL_CTX: struct demand */
static int place_node;    /* SSL: struct uuid, the node that must answer */
static int place_refusal; /* SSL: char *, why the certificate was refused */

static void ex_free(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int idx, long argl, void *argp)
{
    free(ptr);
}

static void demand_free(void *parent, void *ptr, CRYPTO_EX_DATA *ad, int idx, long argl, void *argp)
{
    struct demand *d = ptr;

    if (d)
        SSL_CTX_free(d->newest);
    free(d);
}

static void places_make(void)
{
    place_demand = SSL_CTX_get_ex_new_index(0, NULL, NULL, NULL, demand_free);
    place_node = SSL_get_ex_new_index(0, NULL, NULL, NULL, ex_free);
    place_refusal = SSL_get_ex_new_index(0, NULL, NULL, NULL, ex_free);
    if (place_demand < 0 || place_node < 0 || place_refusal < 0)
        mem_exhausted();
}

/* The demands beyond the chain; NULL or why not. */
static char *demand_check(const struct demand *d, const struct uuid *node, const X509 *cert)
{
    struct tls_identity id;
    CLEANUP_ERR struct err *e = tls_identity_read(cert, &id);

    if (e)
        return xstrdup(e->text);
    if (id.kind != d->peer)
        return xasprintf(
            "the certificate of \"%s\" is of kind %s, but only kind %s is accepted here", id.name,
            tls_kind_name(id.kind), tls_kind_name(d->peer));
    if (!uuid_eq(&id.cluster, &d->cluster))
        return xasprintf("the certificate of \"%s\" is of cluster %s, but this is cluster %s",
                         id.name, UUID_STR(&id.cluster), UUID_STR(&d->cluster));
    if (d->client && d->peer == TLS_KIND_NODE && (!node || !uuid_eq(&id.node, node)))
        return xasprintf("node %s answered instead of node %s", UUID_STR(&id.node),
                         node ? UUID_STR(node) : "(none named)");
    return NULL;
}

/* Replaces OpenSSL's verification: the chain first, by OpenSSL's own function, then our demands. */
static int verify(X509_STORE_CTX *sc, void *unused)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(sc, SSL_get_ex_data_X509_STORE_CTX_idx());
    const struct demand *d = SSL_CTX_get_ex_data(SSL_get_SSL_CTX(ssl), place_demand);

    if (X509_verify_cert(sc) != 1)
        return 0;
    char *refusal = demand_check(d, SSL_get_ex_data(ssl, place_node), X509_STORE_CTX_get0_cert(sc));
    if (!refusal)
        return 1;
    free(SSL_get_ex_data(ssl, place_refusal));
    if (SSL_set_ex_data(ssl, place_refusal, refusal) != 1)
        mem_exhausted();
    X509_STORE_CTX_set_error(sc, X509_V_ERR_APPLICATION_VERIFICATION);
    return 0;
}

static int alpn_select(SSL *ssl, const unsigned char **out, unsigned char *outlen,
                       const unsigned char *in, unsigned inlen, void *cookie)
{
    const struct demand *d = cookie;
    unsigned char *chosen;

    if (SSL_select_next_proto(&chosen, outlen, d->alpn, d->alpn_len, in, inlen) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

static void alpn_set(SSL_CTX *ctx, struct demand *d, unsigned flags)
{
    const char *name = flags & TLS_ALPN_H2 ? "h2" : flags & TLS_ALPN_HTTP1 ? "http/1.1" : NULL;

    if (!name)
        return;
    d->alpn[0] = (unsigned char)strlen(name);
    memcpy(d->alpn + 1, name, strlen(name));
    d->alpn_len = 1 + d->alpn[0];
    if (!d->client)
        SSL_CTX_set_alpn_select_cb(ctx, alpn_select, d);
    else if (SSL_CTX_set_alpn_protos(ctx, d->alpn, d->alpn_len) != 0)
        mem_exhausted();
}

static bool context_fill(const struct tls *t, struct demand *d, unsigned flags, SSL_CTX *ctx)
{
    bool ok = SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) == 1 &&
              X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), t->ca) == 1 &&
              SSL_CTX_use_certificate(ctx, t->cert) == 1 &&
              SSL_CTX_use_PrivateKey(ctx, t->key) == 1;

    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    SSL_CTX_set_verify_depth(ctx, TLS_CHAIN_DEPTH);
    SSL_CTX_set_cert_verify_callback(ctx, verify, NULL);
    if (flags & TLS_NO_TICKETS) {
        ok = ok && SSL_CTX_set_num_tickets(ctx, 0) == 1;
        SSL_CTX_set_options(ctx, SSL_OP_NO_TICKET);
        SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    }
    if (flags & TLS_EOF_OK)
        SSL_CTX_set_options(ctx, SSL_OP_IGNORE_UNEXPECTED_EOF);
    if (flags & TLS_KTLS)
        SSL_CTX_set_options(ctx, SSL_OP_ENABLE_KTLS);
    alpn_set(ctx, d, flags);
    if (d->client)
        return ok &&
               (d->peer != TLS_KIND_CONTROL_SERVICE ||
                X509_VERIFY_PARAM_set1_host(SSL_CTX_get0_param(ctx), TLS_CONTROL_NAME, 0) == 1);
    /* The name tells sessions of one port from those of another; also required by OpenSSL for any
     * resumption when client certificates are demanded. */
    const char *kind = tls_kind_name(d->peer);
    return ok &&
           SSL_CTX_set_session_id_context(ctx, (const unsigned char *)kind,
                                          (unsigned)strlen(kind)) == 1 &&
           SSL_CTX_add_client_CA(ctx, t->ca) == 1;
}

static struct err *context_new(const struct tls *t, enum tls_kind peer, bool client, unsigned flags,
                               SSL_CTX **ret_ctx)
{
    pthread_once(&places_once, places_make);
    SSL_CTX *ctx = SSL_CTX_new(client ? TLS_client_method() : TLS_server_method());
    struct demand *d = xcalloc(1, sizeof(*d));

    d->peer = peer;
    d->client = client;
    d->flags = flags;
    d->cluster = t->own.cluster;
    if (!ctx || SSL_CTX_set_ex_data(ctx, place_demand, d) != 1)
        mem_exhausted();
    if (!context_fill(t, d, flags, ctx)) {
        CLEANUP_FREE char *why = tls_failure_text(NULL, 0);

        SSL_CTX_free(ctx);
        return err_new(ERR_INTERNAL, "cannot set up TLS for \"%s\": %s", t->own.name, why);
    }
    *ret_ctx = ctx;
    return NULL;
}

struct err *tls_server_context(const struct tls *t, enum tls_kind peer, unsigned flags,
                               SSL_CTX **ret_ctx)
{
    return context_new(t, peer, false, flags, ret_ctx);
}

struct err *tls_client_context(const struct tls *t, enum tls_kind peer, unsigned flags,
                               SSL_CTX **ret_ctx)
{
    return context_new(t, peer, true, flags, ret_ctx);
}

struct err *tls_context_renew(SSL_CTX *ctx, const struct tls *t)
{
    struct demand *d = SSL_CTX_get_ex_data(ctx, place_demand);
    SSL_CTX *fresh = NULL;

    if (!uuid_eq(&t->own.cluster, &d->cluster))
        return err_new(ERR_INVALID, "the new certificate is of cluster %s, but this is cluster %s",
                       UUID_STR(&t->own.cluster), UUID_STR(&d->cluster));
    TRY(context_new(t, d->peer, d->client, d->flags, &fresh));
    pthread_mutex_lock(&newest_lock);
    SSL_CTX *before = d->newest;
    d->newest = fresh;
    pthread_mutex_unlock(&newest_lock);
    SSL_CTX_free(before);
    return NULL;
}

/* NULL: no memory. */
static SSL *ssl_new(SSL_CTX *ctx)
{
    const struct demand *d = SSL_CTX_get_ex_data(ctx, place_demand);

    pthread_mutex_lock(&newest_lock);
    SSL_CTX *newest = d->newest ? d->newest : ctx;
    SSL_CTX_up_ref(newest);
    pthread_mutex_unlock(&newest_lock);
    SSL *ssl = SSL_new(newest);
    SSL_CTX_free(newest);
    return ssl;
}

struct err *tls_server_ssl(SSL_CTX *ctx, SSL **ret_ssl)
{
    SSL *ssl = ssl_new(ctx);

    if (!ssl)
        return err_new(ERR_INTERNAL, "cannot make a TLS connection object");
    SSL_set_accept_state(ssl);
    *ret_ssl = ssl;
    return NULL;
}

struct err *tls_client_ssl(SSL_CTX *ctx, const struct uuid *node, SSL **ret_ssl)
{
    const struct demand *d = SSL_CTX_get_ex_data(ctx, place_demand);
    SSL *ssl = ssl_new(ctx);

    if (!ssl)
        return err_new(ERR_INTERNAL, "cannot make a TLS connection object");
    SSL_set_connect_state(ssl);
    if (d->peer == TLS_KIND_CONTROL_SERVICE && SSL_set_tlsext_host_name(ssl, TLS_CONTROL_NAME) != 1)
        mem_exhausted();
    if (node && SSL_set_ex_data(ssl, place_node, xmemdup(node, sizeof(*node))) != 1)
        mem_exhausted();
    *ret_ssl = ssl;
    return NULL;
}

char *tls_failure_text(const SSL *ssl, unsigned long ssl_error)
{
    unsigned long code = ssl_error, next;
    const char *refusal = NULL;
    long verdict = X509_V_OK;
    char buf[256];

    while ((next = ERR_get_error()) != 0)
        code = code ? code : next;
    if (ssl) {
        pthread_once(&places_once, places_make);
        refusal = SSL_get_ex_data(ssl, place_refusal);
        verdict = SSL_get_verify_result(ssl);
    }
    if (refusal)
        return xstrdup(refusal);
    if (verdict != X509_V_OK)
        return xasprintf("the peer's certificate is refused: %s",
                         X509_verify_cert_error_string(verdict));
    if (code == 0)
        return xstrdup("the connection was closed");
    const char *reason = ERR_reason_error_string(code);
    if (reason)
        return xstrdup(reason);
    ERR_error_string_n(code, buf, sizeof(buf));
    return xstrdup(buf);
}
