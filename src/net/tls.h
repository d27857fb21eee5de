/* TLS identity: who we are and who the peer is, by certificates of one cluster (contract section
 * 2). The cluster's CA is the only trust root. Everything about the peer is decided in the
 * handshake: a connection that is established is with a peer of the demanded kind and of this
 * cluster.
 *
 * A struct tls and an SSL_CTX may be used by several threads at once, an SSL by one at a time. */
#pragma once

#include "base/err.h"
#include "base/uuid.h"

#include <openssl/ssl.h>
#include <stdbool.h>

enum tls_kind {
    TLS_KIND_OTHER,           /* signed by the CA, but none of ours; never accepted as a peer */
    TLS_KIND_CONTROL_SERVICE, /* CN control-service */
    TLS_KIND_NODE,            /* CN node-<uuid> */
    TLS_KIND_USER,            /* CN user-<name> */
};

#define TLS_NAME_SIZE 257 /* a CN is at most 64 characters of UTF-8 */

struct tls_identity {
    enum tls_kind kind;
    struct uuid node;         /* of TLS_KIND_NODE, else nil */
    struct uuid cluster;      /* OU */
    char name[TLS_NAME_SIZE]; /* the whole CN, UTF-8 without NUL */
};

/* The name behind "user-"; "" for other kinds. Lives as long as `id`. */
const char *tls_identity_user(const struct tls_identity *id);
/* "control-service", "node", "user" or "other". */
const char *tls_kind_name(enum tls_kind kind);
/* Reads subject CN and OU exactly: each must be there once, without NUL, the OU a UUID.
 * ERR_CORRUPT. */
struct err *tls_identity_read(const X509 *cert, struct tls_identity *ret_id) MUST_USE;

/* Our credential: the cluster's certificate, our certificate and our key. Immutable. */
struct tls;

/* Reads the three PEM files and checks them: key fits certificate, certificate is signed by this
 * CA, in date, names a cluster. Errors name the file, the reason and the remedy. *ret_warning is
 * NULL, or a sentence for the log (the caller frees it): the key file can be read by others. Blocks
 * (files). */
struct err *tls_load(const char *ca_path, const char *cert_path, const char *key_path,
                     char **ret_warning, struct tls **ret_tls) MUST_USE;
struct tls *tls_free(struct tls *t); /* accepts NULL; returns NULL; contexts made from it live on */
const struct tls_identity *tls_own_identity(const struct tls *t);

#define TLS_NO_TICKETS 1u /* no session resumption: agent port and mover port, both sides */
#define TLS_EOF_OK 2u     /* a peer that closes without close_notify is just gone; HTTP only */
#define TLS_ALPN_H2 4u    /* gRPC: offer or, when the client offers anything, demand "h2" */
#define TLS_ALPN_HTTP1 8u /* the same with "http/1.1" */
#define TLS_KTLS 16u      /* let the kernel encrypt where it can; not with bufferevents */

/* A context for accepting connections from peers of this kind (TLS_KIND_USER, TLS_KIND_NODE). */
struct err *tls_server_context(const struct tls *t, enum tls_kind peer, unsigned flags,
                               SSL_CTX **ret_ctx) MUST_USE;
/* A context for connecting to a peer of this kind. TLS_KIND_CONTROL_SERVICE: the certificate must
 * be valid for the DNS name `control-service`, whatever host is dialled. TLS_KIND_NODE: use
 * tls_client_ssl() to say which node. */
struct err *tls_client_context(const struct tls *t, enum tls_kind peer, unsigned flags,
                               SSL_CTX **ret_ctx) MUST_USE;
/* From now on connections made from `ctx` show the certificate of `t`, and trust its CA; those that exist stay as they are.
 * `t` must be of the same cluster. Any thread. */
struct err *tls_context_renew(SSL_CTX *ctx, const struct tls *t) MUST_USE;
/* One connection of a server context. */
struct err *tls_server_ssl(SSL_CTX *ctx, SSL **ret_ssl) MUST_USE;
/* One connection of a client context, with the server name set. `node` (copied) is the node that
 * must answer; required for TLS_KIND_NODE, NULL otherwise. */
struct err *tls_client_ssl(SSL_CTX *ctx, const struct uuid *node, SSL **ret_ssl) MUST_USE;

/* Who the peer of an established connection is. */
struct err *tls_peer_identity(const SSL *ssl, struct tls_identity *ret_id) MUST_USE;
/* Why a handshake or a connection failed, in words, from the SSL, from `ssl_error` (a code of
 * ERR_get_error() or 0) and this thread's queue of OpenSSL errors, which it empties. The caller
 * frees. */
char *tls_failure_text(const SSL *ssl, unsigned long ssl_error);
