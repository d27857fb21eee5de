#include "base/str.h"
#include "certs.h"
#include "net/tls_private.h"

#include <openssl/err.h>
#include <openssl/pem.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[256];
static struct certs_ca ca_a, ca_b;

static int group_setup(void **state)
{

    certs_dir_make(dir, sizeof(dir));
    certs_ca_new(&ca_a, CLUSTER_A);
    certs_ca_new(&ca_b, CLUSTER_B);
    certs_ca_write(&ca_a, dir, "a");
    certs_ca_write(&ca_b, dir, "b");
    certs_make(&ca_a, dir, "control", "control-service", NULL, CERTS_SAN_CONTROL);
    certs_make(&ca_a, dir, "control-nosan", "control-service", NULL, 0);
    certs_make(&ca_a, dir, "node1", "node-" NODE_1, NULL, 0);
    certs_make(&ca_a, dir, "node1-renewed", "node-" NODE_1, NULL, 0);
    certs_make(&ca_b, dir, "node1-b", "node-" NODE_1, NULL, 0);
    certs_make(&ca_a, dir, "node2", "node-" NODE_2, NULL, 0);
    certs_make(&ca_a, dir, "node-bad", "node-not-a-uuid", NULL, 0);
    certs_make(&ca_a, dir, "alice", "user-alice", NULL, CERTS_CLIENT_AUTH);
    certs_make(&ca_a, dir, "utf8", "user-J\xc3\xbcrgen", NULL, CERTS_CLIENT_AUTH);
    certs_make(&ca_a, dir, "user-control", "user-x", NULL, CERTS_CLIENT_AUTH | CERTS_SAN_CONTROL);
    certs_make(&ca_a, dir, "other", "somebody", NULL, 0);
    certs_make(&ca_a, dir, "foreign-ou", "user-alice", CLUSTER_B, CERTS_CLIENT_AUTH);
    certs_make(&ca_a, dir, "no-ou", "user-alice", "", CERTS_CLIENT_AUTH);
    certs_make(&ca_a, dir, "bad-ou", "user-alice", "engineering", CERTS_CLIENT_AUTH);
    certs_make(&ca_a, dir, "expired", "user-alice", NULL, CERTS_CLIENT_AUTH | CERTS_EXPIRED);
    certs_make(&ca_a, dir, "future", "user-alice", NULL, CERTS_CLIENT_AUTH | CERTS_FUTURE);
    certs_make_raw(&ca_a, dir, "nul", "user-root\0evil", 14, NULL, CERTS_CLIENT_AUTH);
    certs_make(&ca_b, dir, "b-alice", "user-alice", CLUSTER_A, CERTS_CLIENT_AUTH);
    certs_make(&ca_b, dir, "b-control", "control-service", CLUSTER_A, CERTS_SAN_CONTROL);
    /* A certificate below one that the CA signed: too deep. */
    certs_make(&ca_a, dir, "sub", "control-service", NULL, CERTS_CA);
    return 0;
}

static int group_teardown(void **state)
{
    certs_ca_free(&ca_a);
    certs_ca_free(&ca_b);
    certs_dir_remove(dir);
    return 0;
}

static struct err *load(const char *ca, const char *cert, const char *key, char **ret_warning,
                        struct tls **ret_tls)
{
    CLEANUP_FREE char *ca_path = xasprintf("%s/%s.crt", dir, ca);
    CLEANUP_FREE char *cert_path = xasprintf("%s/%s.crt", dir, cert);
    CLEANUP_FREE char *key_path = xasprintf("%s/%s.key", dir, key);

    return tls_load(ca_path, cert_path, key_path, ret_warning, ret_tls);
}

static struct tls *load_ok(const char *name)
{
    struct tls *t = NULL;
    char *warning = NULL;
    CLEANUP_ERR struct err *e = load("a", name, name, &warning, &t);

    if (e)
        fail_msg("%s: %s", name, e->text);
    assert_null(warning);
    return t;
}

static void load_refused(const char *ca, const char *cert, const char *key, enum err_code code,
                         const char *words)
{
    struct tls *t = NULL;
    char *warning = NULL;
    CLEANUP_ERR struct err *e = load(ca, cert, key, &warning, &t);

    assert_non_null(e);
    assert_null(t);
    assert_null(warning);
    if (!strstr(e->text, words) || e->code != code)
        fail_msg("wanted \"%s\" (%s), got \"%s\" (%s)", words, err_code_name(code), e->text,
                 err_code_name(e->code));
}

static void test_own_identity(void **state)
{
    struct uuid node, cluster;
    struct tls *t;

    assert_true(uuid_parse(NODE_1, &node) && uuid_parse(CLUSTER_A, &cluster));
    t = load_ok("node1");
    assert_int_equal(tls_own_identity(t)->kind, TLS_KIND_NODE);
    assert_true(uuid_eq(&tls_own_identity(t)->node, &node));
    assert_true(uuid_eq(&tls_own_identity(t)->cluster, &cluster));
    assert_string_equal(tls_identity_user(tls_own_identity(t)), "");
    tls_free(t);
    t = load_ok("control");
    assert_int_equal(tls_own_identity(t)->kind, TLS_KIND_CONTROL_SERVICE);
    tls_free(t);
    t = load_ok("utf8");
    assert_int_equal(tls_own_identity(t)->kind, TLS_KIND_USER);
    assert_string_equal(tls_identity_user(tls_own_identity(t)), "J\xc3\xbcrgen");
    tls_free(t);
    t = load_ok("other");
    assert_int_equal(tls_own_identity(t)->kind, TLS_KIND_OTHER);
    tls_free(t);
    t = load_ok("node-bad");
    assert_int_equal(tls_own_identity(t)->kind, TLS_KIND_OTHER);
    tls_free(t);
    tls_free(NULL);
}

static void test_load_errors(void **state)
{
    CLEANUP_FREE char *junk = xasprintf("%s/junk.crt", dir);
    CLEANUP_FREE char *two = xasprintf("%s/two.crt", dir);
    FILE *f = fopen(junk, "we");

    assert_non_null(f);
    fputs("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", f);
    fclose(f);
    load_refused("missing", "alice", "alice", ERR_NOT_FOUND, "missing.crt: No such file");
    load_refused("a", "missing", "alice", ERR_NOT_FOUND, "missing.crt");
    load_refused("a", "alice", "missing", ERR_NOT_FOUND, "missing.key");
    load_refused("junk", "alice", "alice", ERR_INVALID, "junk.crt does not hold a certificate");
    load_refused("a", "junk", "alice", ERR_INVALID, "junk.crt does not hold a certificate");
    load_refused("a", "alice", "node1", ERR_INVALID, "does not belong to the certificate");
    load_refused("b", "alice", "alice", ERR_DENIED, "is not signed by the cluster's certificate");
    load_refused("a", "b-alice", "b-alice", ERR_DENIED, "is not signed by");
    load_refused("a", "expired", "expired", ERR_DENIED, "expired.crt: certificate has expired");
    load_refused("a", "future", "future", ERR_DENIED,
                 "not yet valid; look at this machine's clock");
    load_refused("a", "no-ou", "no-ou", ERR_CORRUPT, "has no organizationalUnitName");
    load_refused("a", "bad-ou", "bad-ou", ERR_CORRUPT, "is not the UUID of a cluster");
    load_refused("a", "nul", "nul", ERR_CORRUPT, "commonName");
    f = fopen(two, "we");
    assert_non_null(f);
    for (int i = 0; i < 2; i++)
        PEM_write_X509(f, ca_a.cert);
    fclose(f);
    load_refused("two", "alice", "alice", ERR_INVALID, "more than one certificate");
}

static void test_key_mode_is_a_warning(void **state)
{
    CLEANUP_FREE char *key = xasprintf("%s/node2.key", dir);
    CLEANUP_FREE char *warning = NULL;
    struct tls *t = NULL;

    assert_int_equal(chmod(key, 0640), 0);
    assert_null(load("a", "node2", "node2", &warning, &t));
    assert_non_null(warning);
    assert_non_null(strstr(warning, "mode 0640"));
    assert_int_equal(chmod(key, 0600), 0);
    tls_free(t);
}

/* ---- handshakes through memory ---- */

struct ends {
    SSL *server, *client;
    bool server_up, client_up; /* handshake finished */
    bool alive;                /* a byte got through both ways afterwards */
    char *server_why, *client_why;
};

static SSL_CTX *server_ctx(const char *cert, enum tls_kind peer, unsigned flags)
{
    struct tls *t = load_ok(cert);
    SSL_CTX *ctx = NULL;

    assert_null(tls_server_context(t, peer, flags, &ctx));
    tls_free(t);
    return ctx;
}

static SSL_CTX *client_ctx(const char *cert, enum tls_kind peer, unsigned flags)
{
    struct tls *t = load_ok(cert);
    SSL_CTX *ctx = NULL;

    assert_null(tls_client_context(t, peer, flags, &ctx));
    tls_free(t);
    return ctx;
}

/* One step of a side; false when it failed for good. */
static bool step(SSL *ssl, bool *up, char **why)
{
    char c;
    int r = *up ? SSL_read(ssl, &c, 1) : SSL_do_handshake(ssl);

    if (r == 1) {
        *up = true;
        return true;
    }
    int code = SSL_get_error(ssl, r);
    if (code == SSL_ERROR_WANT_READ || code == SSL_ERROR_WANT_WRITE)
        return true;
    *why = tls_failure_text(ssl, 0);
    return false;
}

static void shake(struct ends *e)
{
    BIO *a, *b;
    bool ok = true;

    assert_int_equal(BIO_new_bio_pair(&a, 1 << 16, &b, 1 << 16), 1);
    SSL_set_bio(e->server, a, a);
    SSL_set_bio(e->client, b, b);
    for (int i = 0; i < 20 && ok; i++) {
        ok = step(e->client, &e->client_up, &e->client_why);
        ok = step(e->server, &e->server_up, &e->server_why) && ok;
    }
    if (e->server_why && !e->client_why)
        step(e->client, &e->client_up, &e->client_why); /* reads the alert */
    if (ok && e->server_up && e->client_up) {
        char c = 0;

        e->alive = SSL_write(e->client, "x", 1) == 1 && SSL_read(e->server, &c, 1) == 1 &&
                   c == 'x' && SSL_write(e->server, "y", 1) == 1 &&
                   SSL_read(e->client, &c, 1) == 1 && c == 'y';
    }
}

static void ends_done(struct ends *e)
{
    /* Without a shutdown OpenSSL would make the session unusable. */
    SSL_set_shutdown(e->server, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_set_shutdown(e->client, SSL_SENT_SHUTDOWN | SSL_RECEIVED_SHUTDOWN);
    SSL_free(e->server);
    SSL_free(e->client);
    free(e->server_why);
    free(e->client_why);
    *e = (struct ends){0};
}

/* `words` NULL: the connection must come up. Else the server must refuse for this reason. */
static void user_port(const char *server, const char *client_cert, enum tls_kind demanded,
                      int version, const char *words)
{
    SSL_CTX *sc = server_ctx(server, demanded, TLS_NO_TICKETS);
    SSL_CTX *cc = client_ctx(client_cert, TLS_KIND_CONTROL_SERVICE, 0);
    struct ends e = {0};

    assert_null(tls_server_ssl(sc, &e.server));
    assert_null(tls_client_ssl(cc, NULL, &e.client));
    SSL_set_max_proto_version(e.client, version);
    shake(&e);
    if (!words) {
        if (!e.alive)
            fail_msg("%s refused: %s / %s", client_cert, e.server_why, e.client_why);
        assert_int_equal(SSL_version(e.client), version);
    } else {
        assert_false(e.alive);
        assert_false(e.server_up);
        if (!e.server_why || !strstr(e.server_why, words))
            fail_msg("%s: wanted \"%s\", got \"%s\"", client_cert, words, e.server_why);
        assert_non_null(e.client_why);
    }
    ends_done(&e);
    SSL_CTX_free(sc);
    SSL_CTX_free(cc);
}

static void test_peer_kinds(void **state)
{
    static const int versions[] = {TLS1_2_VERSION, TLS1_3_VERSION};

    for (size_t i = 0; i < ARRAY_SIZE(versions); i++) {
        int v = versions[i];

        user_port("control", "alice", TLS_KIND_USER, v, NULL);
        user_port("control", "utf8", TLS_KIND_USER, v, NULL);
        user_port("control", "node1", TLS_KIND_NODE, v, NULL);
        user_port("control", "node1", TLS_KIND_USER, v, "of kind node, but only kind user");
        user_port("control", "alice", TLS_KIND_NODE, v, "of kind user, but only kind node");
        user_port("control", "control", TLS_KIND_USER, v, "of kind control-service");
        user_port("control", "control", TLS_KIND_NODE, v, "of kind control-service");
        user_port("control", "other", TLS_KIND_USER, v, "of kind other");
        user_port("control", "node-bad", TLS_KIND_NODE, v, "of kind other");
    }
}

/* A client that shows whatever it is told to, with no checks of its own. */
static void hostile(const char *cert, const char *words)
{
    SSL_CTX *sc = server_ctx("control", TLS_KIND_USER, 0);
    SSL_CTX *cc = SSL_CTX_new(TLS_client_method());
    struct ends e = {0};

    SSL_CTX_set_verify(cc, SSL_VERIFY_NONE, NULL);
    if (cert) {
        CLEANUP_FREE char *c = xasprintf("%s/%s.crt", dir, cert);
        CLEANUP_FREE char *k = xasprintf("%s/%s.key", dir, cert);

        assert_int_equal(SSL_CTX_use_certificate_file(cc, c, SSL_FILETYPE_PEM), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey_file(cc, k, SSL_FILETYPE_PEM), 1);
    }
    assert_null(tls_server_ssl(sc, &e.server));
    e.client = SSL_new(cc);
    SSL_set_connect_state(e.client);
    shake(&e);
    assert_false(e.alive);
    assert_false(e.server_up);
    if (!e.server_why || !strstr(e.server_why, words))
        fail_msg("%s: wanted \"%s\", got \"%s\"", cert ? cert : "none", words, e.server_why);
    ends_done(&e);
    SSL_CTX_free(sc);
    SSL_CTX_free(cc);
}

static void test_server_refuses(void **state)
{
    hostile(NULL, "peer did not return a certificate");
    hostile("b-alice", "refused");
    hostile("expired", "certificate has expired");
    hostile("future", "not yet valid");
    hostile("foreign-ou", "is of cluster " CLUSTER_B ", but this is cluster " CLUSTER_A);
    hostile("no-ou", "has no organizationalUnitName");
    hostile("nul", "not a plain text");
}

static void test_chain_too_deep(void **state)
{
    SSL_CTX *sc = server_ctx("control", TLS_KIND_USER, 0);
    SSL_CTX *cc = SSL_CTX_new(TLS_client_method());
    struct certs_ca sub = {.cluster = CLUSTER_A};
    CLEANUP_FREE char *sub_crt = xasprintf("%s/sub.crt", dir);
    CLEANUP_FREE char *sub_key = xasprintf("%s/sub.key", dir);
    CLEANUP_FREE char *crt = xasprintf("%s/deep.crt", dir);
    CLEANUP_FREE char *key = xasprintf("%s/deep.key", dir);
    struct ends e = {0};
    FILE *f;

    assert_non_null((f = fopen(sub_crt, "re")));
    assert_non_null((sub.cert = PEM_read_X509(f, NULL, NULL, NULL)));
    fclose(f);
    assert_non_null((f = fopen(sub_key, "re")));
    assert_non_null((sub.key = PEM_read_PrivateKey(f, NULL, NULL, NULL)));
    fclose(f);
    certs_make(&sub, dir, "deep", "user-alice", NULL, CERTS_CLIENT_AUTH);
    assert_int_equal(SSL_CTX_use_certificate_file(cc, crt, SSL_FILETYPE_PEM), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(cc, key, SSL_FILETYPE_PEM), 1);
    assert_int_equal(SSL_CTX_add0_chain_cert(cc, sub.cert), 1);
    assert_null(tls_server_ssl(sc, &e.server));
    e.client = SSL_new(cc);
    SSL_set_connect_state(e.client);
    shake(&e);
    assert_false(e.server_up);
    assert_non_null(e.server_why);
    ends_done(&e);
    EVP_PKEY_free(sub.key);
    SSL_CTX_free(sc);
    SSL_CTX_free(cc);
}

/* What our clients refuse in a server. */
static void client_refuses(const char *server_cert, const char *words)
{
    SSL_CTX *cc = client_ctx("node1", TLS_KIND_CONTROL_SERVICE, 0);
    SSL_CTX *sc = SSL_CTX_new(TLS_server_method());
    CLEANUP_FREE char *crt = xasprintf("%s/%s.crt", dir, server_cert);
    CLEANUP_FREE char *key = xasprintf("%s/%s.key", dir, server_cert);
    struct ends e = {0};

    assert_int_equal(SSL_CTX_use_certificate_file(sc, crt, SSL_FILETYPE_PEM), 1);
    assert_int_equal(SSL_CTX_use_PrivateKey_file(sc, key, SSL_FILETYPE_PEM), 1);
    e.server = SSL_new(sc);
    SSL_set_accept_state(e.server);
    assert_null(tls_client_ssl(cc, NULL, &e.client));
    shake(&e);
    assert_false(e.alive);
    assert_false(e.client_up);
    if (!e.client_why || !strstr(e.client_why, words))
        fail_msg("%s: wanted \"%s\", got \"%s\"", server_cert, words, e.client_why);
    ends_done(&e);
    SSL_CTX_free(sc);
    SSL_CTX_free(cc);
}

static void test_client_checks_control_service(void **state)
{
    client_refuses("b-control", "refused");
    client_refuses("node1", "ostname mismatch");
    client_refuses("alice", "purpose"); /* clientAuth only */
    client_refuses("user-control", "purpose");
    client_refuses("other", "ostname mismatch");
}

static void mover(const char *server_cert, const char *expect, const char *words)
{
    SSL_CTX *sc = server_ctx(server_cert, TLS_KIND_NODE, TLS_NO_TICKETS);
    SSL_CTX *cc = client_ctx("node1", TLS_KIND_NODE, TLS_NO_TICKETS);
    struct tls_identity id;
    struct uuid node;
    struct ends e = {0};

    assert_null(tls_server_ssl(sc, &e.server));
    if (expect)
        assert_true(uuid_parse(expect, &node));
    assert_null(tls_client_ssl(cc, expect ? &node : NULL, &e.client));
    shake(&e);
    if (words) {
        assert_false(e.alive);
        if (!e.client_why || !strstr(e.client_why, words))
            fail_msg("%s: wanted \"%s\", got \"%s\"", server_cert, words, e.client_why);
    } else {
        assert_true(e.alive);
        assert_null(tls_peer_identity(e.server, &id));
        assert_int_equal(id.kind, TLS_KIND_NODE);
        assert_string_equal(id.name, "node-" NODE_1);
        assert_null(tls_peer_identity(e.client, &id));
        assert_true(uuid_eq(&id.node, &node));
    }
    ends_done(&e);
    SSL_CTX_free(sc);
    SSL_CTX_free(cc);
}

static void test_node_to_node(void **state)
{
    mover("node2", NODE_2, NULL);
    mover("node2", NODE_1, "answered instead of node " NODE_1);
    mover("node2", NULL, "instead of node (none named)");
    mover("control", NODE_2, "of kind control-service, but only kind node");
}

static void test_alpn(void **state)
{
    static const struct {
        unsigned server, client;
        const char *want; /* NULL: refused; "": none */
    } cases[] = {
        {TLS_ALPN_H2, TLS_ALPN_H2, "h2"},
        {TLS_ALPN_HTTP1, TLS_ALPN_HTTP1, "http/1.1"},
        {TLS_ALPN_H2, TLS_ALPN_HTTP1, NULL},
        {TLS_ALPN_HTTP1, TLS_ALPN_H2, NULL},
        {TLS_ALPN_H2, 0, ""},
        {0, TLS_ALPN_H2, ""},
    };

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        SSL_CTX *sc = server_ctx("control", TLS_KIND_NODE, cases[i].server);
        SSL_CTX *cc = client_ctx("node1", TLS_KIND_CONTROL_SERVICE, cases[i].client);
        const unsigned char *got;
        struct ends e = {0};
        unsigned n;

        assert_null(tls_server_ssl(sc, &e.server));
        assert_null(tls_client_ssl(cc, NULL, &e.client));
        shake(&e);
        assert_int_equal(e.alive, cases[i].want != NULL);
        SSL_get0_alpn_selected(e.server, &got, &n);
        if (cases[i].want) {
            assert_int_equal(n, strlen(cases[i].want));
            assert_memory_equal(got, cases[i].want, n);
        }
        ends_done(&e);
        SSL_CTX_free(sc);
        SSL_CTX_free(cc);
    }
}

/* Tickets: off means that nothing resumes; on means that a resumed session keeps the peer's
 * identity. */
static void test_tickets(void **state)
{
    for (int off = 0; off < 2; off++) {
        SSL_CTX *sc = server_ctx("control", TLS_KIND_USER, off ? TLS_NO_TICKETS : 0);
        SSL_CTX *cc = client_ctx("alice", TLS_KIND_CONTROL_SERVICE, 0);
        struct tls_identity id;
        struct ends e = {0};

        assert_null(tls_server_ssl(sc, &e.server));
        assert_null(tls_client_ssl(cc, NULL, &e.client));
        shake(&e);
        assert_true(e.alive);
        SSL_SESSION *session = SSL_get1_session(e.client);
        assert_int_equal(SSL_SESSION_is_resumable(session), !off);
        ends_done(&e);
        assert_null(tls_server_ssl(sc, &e.server));
        assert_null(tls_client_ssl(cc, NULL, &e.client));
        SSL_set_session(e.client, session);
        shake(&e);
        assert_true(e.alive);
        assert_int_equal(SSL_session_reused(e.server), !off);
        assert_null(tls_peer_identity(e.server, &id));
        assert_string_equal(tls_identity_user(&id), "alice");
        SSL_SESSION_free(session);
        ends_done(&e);
        SSL_CTX_free(sc);
        SSL_CTX_free(cc);
    }
}

/* A ticket of one port must not open the other. */
static void test_ticket_of_another_port(void **state)
{
    SSL_CTX *users = server_ctx("control", TLS_KIND_USER, 0);
    SSL_CTX *nodes = server_ctx("control", TLS_KIND_NODE, 0);
    SSL_CTX *cc = client_ctx("alice", TLS_KIND_CONTROL_SERVICE, 0);
    struct ends e = {0};

    assert_null(tls_server_ssl(users, &e.server));
    assert_null(tls_client_ssl(cc, NULL, &e.client));
    shake(&e);
    assert_true(e.alive);
    SSL_SESSION *session = SSL_get1_session(e.client);
    ends_done(&e);
    assert_null(tls_server_ssl(nodes, &e.server));
    assert_null(tls_client_ssl(cc, NULL, &e.client));
    SSL_set_session(e.client, session);
    shake(&e);
    assert_false(e.alive);
    assert_non_null(strstr(e.server_why, "of kind user, but only kind node"));
    SSL_SESSION_free(session);
    ends_done(&e);
    SSL_CTX_free(users);
    SSL_CTX_free(nodes);
    SSL_CTX_free(cc);
}

static void test_old_tls_is_refused(void **state)
{
    SSL_CTX *sc = server_ctx("control", TLS_KIND_USER, 0);
    SSL_CTX *cc = client_ctx("alice", TLS_KIND_CONTROL_SERVICE, 0);
    struct ends e = {0};

    assert_null(tls_server_ssl(sc, &e.server));
    assert_null(tls_client_ssl(cc, NULL, &e.client));
    SSL_set_min_proto_version(e.client, TLS1_1_VERSION);
    SSL_set_max_proto_version(e.client, TLS1_1_VERSION);
    SSL_set_security_level(e.client, 0);
    shake(&e);
    assert_false(e.alive);
    ends_done(&e);
    SSL_CTX_free(sc);
    SSL_CTX_free(cc);
}

/* Connects, and says whether the server shows this certificate, and the client that one. */
static bool they_show(SSL_CTX *sc, SSL_CTX *cc, const struct tls *server, const struct tls *client, struct ends *e)
{
    struct uuid node;

    assert_true(uuid_parse(NODE_1, &node));
    assert_null(tls_server_ssl(sc, &e->server));
    assert_null(tls_client_ssl(cc, &node, &e->client));
    shake(e);
    if (!e->alive)
        fail_msg("refused: %s / %s", e->server_why, e->client_why);
    return X509_cmp(SSL_get0_peer_certificate(e->client), server->cert) == 0 &&
           X509_cmp(SSL_get0_peer_certificate(e->server), client->cert) == 0;
}

static void test_renewed_certificate(void **state)
{
    struct tls *old = load_ok("node1"), *fresh = load_ok("node1-renewed"), *foreign = NULL;
    SSL_CTX *sc, *cc;
    struct ends before = {0}, after = {0}, again = {0};
    char *warning = NULL, c = 0;

    assert_null(load("b", "node1-b", "node1-b", &warning, &foreign));
    assert_null(tls_server_context(old, TLS_KIND_NODE, TLS_NO_TICKETS | TLS_ALPN_H2, &sc));
    assert_null(tls_client_context(old, TLS_KIND_NODE, TLS_NO_TICKETS | TLS_ALPN_H2, &cc));
    assert_true(they_show(sc, cc, old, old, &before));
    assert_null(tls_context_renew(sc, fresh));
    assert_true(they_show(sc, cc, fresh, old, &after));
    assert_null(tls_context_renew(cc, fresh));
    assert_null(tls_context_renew(sc, old));
    assert_true(they_show(sc, cc, old, fresh, &again));
    /* What was connected before stays so. */
    assert_int_equal(SSL_write(before.client, "z", 1), 1);
    assert_int_equal(SSL_read(before.server, &c, 1), 1);
    assert_int_equal(c, 'z');
    CLEANUP_ERR struct err *e = tls_context_renew(sc, foreign);
    assert_non_null(e);
    assert_non_null(strstr(e->text, "is of cluster " CLUSTER_B));
    ends_done(&before);
    ends_done(&after);
    ends_done(&again);
    assert_true(they_show(sc, cc, old, fresh, &again));
    ends_done(&again);
    SSL_CTX_free(sc);
    SSL_CTX_free(cc);
    tls_free(old);
    tls_free(fresh);
    tls_free(foreign);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_identity),
        cmocka_unit_test(test_load_errors),
        cmocka_unit_test(test_key_mode_is_a_warning),
        cmocka_unit_test(test_peer_kinds),
        cmocka_unit_test(test_server_refuses),
        cmocka_unit_test(test_chain_too_deep),
        cmocka_unit_test(test_client_checks_control_service),
        cmocka_unit_test(test_node_to_node),
        cmocka_unit_test(test_alpn),
        cmocka_unit_test(test_tickets),
        cmocka_unit_test(test_ticket_of_another_port),
        cmocka_unit_test(test_old_tls_is_refused),
        cmocka_unit_test(test_renewed_certificate),
    };

    return cmocka_run_group_tests_name("tls", tests, group_setup, group_teardown);
}
