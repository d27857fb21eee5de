/* Reading certificates: identity, and our own credential with all its checks. */
#include "net/tls.h"

#include "net/tls_private.h"

#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX_BYTES (1u << 20)

const char *tls_identity_user(const struct tls_identity *id)
{
    return id->kind == TLS_KIND_USER ? id->name + strlen("user-") : "";
}

const char *tls_kind_name(enum tls_kind kind)
{
    switch (kind) {
    case TLS_KIND_CONTROL_SERVICE:
        return "control-service";
    case TLS_KIND_NODE:
        return "node";
    case TLS_KIND_USER:
        return "user";
    case TLS_KIND_OTHER:
        break;
    }
    return "other";
}

/* ---- identity ---- */

/* Copies the only entry `nid` of the subject into `buf`. Never X509_NAME_get_text_by_NID: that one
 * truncates, and stops at a NUL byte. */
static struct err *subject_read(const X509 *cert, int nid, char *buf, size_t size)
{
    const X509_NAME *subject = X509_get_subject_name(cert);
    const char *what = OBJ_nid2ln(nid);
    int at = X509_NAME_get_index_by_NID(subject, nid, -1);

    if (at < 0)
        return err_new(ERR_CORRUPT, "the certificate's subject has no %s", what);
    if (X509_NAME_get_index_by_NID(subject, nid, at) >= 0)
        return err_new(ERR_CORRUPT, "the certificate's subject has more than one %s", what);
    unsigned char *utf8 = NULL;
    int n = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(subject, at)));
    bool ok = n > 0 && (size_t)n < size && str_is_utf8((const char *)utf8, (size_t)n);

    if (ok) {
        memcpy(buf, utf8, (size_t)n);
        buf[n] = '\0';
    }
    OPENSSL_free(utf8);
    if (n < 0 && ERR_GET_REASON(ERR_peek_last_error()) == ERR_R_MALLOC_FAILURE)
        mem_exhausted();
    ERR_clear_error();
    if (!ok)
        return err_new(ERR_CORRUPT, "the %s of the certificate's subject is not a plain text",
                       what);
    return NULL;
}

static enum tls_kind kind_of(const char *cn, struct uuid *ret_node)
{
    if (streq(cn, TLS_CONTROL_NAME))
        return TLS_KIND_CONTROL_SERVICE;
    if (str_has_prefix(cn, "node-") && uuid_parse_v4(cn + strlen("node-"), ret_node))
        return TLS_KIND_NODE;
    if (str_has_prefix(cn, "user-") && cn[strlen("user-")])
        return TLS_KIND_USER;
    return TLS_KIND_OTHER;
}

struct err *tls_identity_read(const X509 *cert, struct tls_identity *ret_id)
{
    struct tls_identity id = {0};
    char unit[TLS_NAME_SIZE];

    TRY(subject_read(cert, NID_commonName, id.name, sizeof(id.name)));
    TRY(subject_read(cert, NID_organizationalUnitName, unit, sizeof(unit)));
    if (!uuid_parse(unit, &id.cluster))
        return err_new(ERR_CORRUPT,
                       "the certificate's organizationalUnitName is not the UUID of a cluster");
    id.kind = kind_of(id.name, &id.node);
    *ret_id = id;
    return NULL;
}

struct err *tls_peer_identity(const SSL *ssl, struct tls_identity *ret_id)
{
    const X509 *cert = SSL_get0_peer_certificate(ssl);

    if (!cert)
        return err_new(ERR_DENIED, "the peer showed no certificate");
    return tls_identity_read(cert, ret_id);
}

/* ---- our credential ---- */

/* Reads a whole small file. */
static struct err *file_read(const char *path, const char *what, struct stat *ret_st, BIO **ret_bio)
{
    CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    CLEANUP_FREE char *bytes = NULL;
    struct stat st;
    size_t used = 0;

    if (fd < 0 || fstat(fd, &st) < 0)
        return err_errno(errno, "cannot open the %s %s", what, path);
    if (!S_ISREG(st.st_mode) || st.st_size > FILE_MAX_BYTES)
        return err_new(ERR_INVALID, "the %s %s is not a file of at most %u bytes", what, path,
                       FILE_MAX_BYTES);
    bytes = xmalloc(FILE_MAX_BYTES);
    for (;;) {
        ssize_t n = read(fd, bytes + used, FILE_MAX_BYTES - used);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(errno, "cannot read the %s %s", what, path);
        if (n == 0)
            break;
        used += (size_t)n;
    }
    BIO *bio = BIO_new(BIO_s_secmem());
    if (!bio || (used > 0 && BIO_write(bio, bytes, (int)used) != (int)used))
        mem_exhausted();
    OPENSSL_cleanse(bytes, used);
    *ret_st = st;
    *ret_bio = bio;
    return NULL;
}

static struct err *cert_load(const char *path, const char *what, X509 **ret_cert)
{
    struct stat st;
    BIO *bio;

    TRY(file_read(path, what, &st, &bio));
    X509 *cert = PEM_read_bio_X509(bio, NULL, NULL, NULL);
    X509 *second = cert ? PEM_read_bio_X509(bio, NULL, NULL, NULL) : NULL;
    bool more = second != NULL;

    X509_free(second);
    BIO_free(bio);
    ERR_clear_error();
    if (!cert)
        return err_new(ERR_INVALID, "the %s %s does not hold a certificate in PEM form", what,
                       path);
    if (more) {
        X509_free(cert);
        return err_new(ERR_INVALID, "the %s %s holds more than one certificate; leave only ours",
                       what, path);
    }
    *ret_cert = cert;
    return NULL;
}

/* Our keys have no passphrase; without this OpenSSL would ask on the terminal. */
static int no_passphrase(char *buf, int size, int writing, void *cookie)
{
    return -1;
}

static struct err *key_load(const char *path, char **ret_warning, EVP_PKEY **ret_key)
{
    struct stat st;
    BIO *bio;

    TRY(file_read(path, "private key file", &st, &bio));
    EVP_PKEY *key = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL);

    BIO_free(bio);
    ERR_clear_error();
    if (!key)
        return err_new(ERR_INVALID,
                       "the private key file %s does not hold a private key in PEM form without "
                       "a passphrase",
                       path);
    if (st.st_mode & (S_IRWXG | S_IRWXO))
        *ret_warning = xasprintf("the private key file %s has mode %04o, so others than its owner "
                                 "may use it; run: chmod 0600 %s",
                                 path, st.st_mode & 07777u, path);
    *ret_key = key;
    return NULL;
}

static struct err *check_signed(const struct tls *t, const char *ca_path, const char *cert_path)
{
    X509_STORE *store = X509_STORE_new();
    X509_STORE_CTX *sc = X509_STORE_CTX_new();
    struct err *e = NULL;

    if (!store || !sc || X509_STORE_add_cert(store, t->ca) != 1 ||
        X509_STORE_CTX_init(sc, store, t->cert, NULL) != 1)
        mem_exhausted();
    X509_STORE_CTX_set_depth(sc, TLS_CHAIN_DEPTH);
    if (X509_verify_cert(sc) != 1) {
        int code = X509_STORE_CTX_get_error(sc);
        int depth = X509_STORE_CTX_get_error_depth(sc);
        const char *why = X509_verify_cert_error_string(code);

        if (code == X509_V_ERR_CERT_HAS_EXPIRED || code == X509_V_ERR_CERT_NOT_YET_VALID)
            e = err_new(ERR_DENIED,
                        "%s: %s; look at this machine's clock, or make a new certificate",
                        depth == 0 ? cert_path : ca_path, why);
        else
            e = err_new(ERR_DENIED,
                        "the certificate %s is not signed by the cluster's certificate %s: %s; "
                        "both must come from the same cluster",
                        cert_path, ca_path, why);
    }
    X509_STORE_CTX_free(sc);
    X509_STORE_free(store);
    ERR_clear_error();
    return e;
}

static struct err *load_into(struct tls *t, const char *ca_path, const char *cert_path,
                             const char *key_path, char **ret_warning)
{
    TRY(cert_load(ca_path, "cluster certificate file", &t->ca));
    TRY(cert_load(cert_path, "certificate file", &t->cert));
    TRY(key_load(key_path, ret_warning, &t->key));
    bool match = X509_check_private_key(t->cert, t->key) == 1;

    ERR_clear_error();
    if (!match)
        return err_new(ERR_INVALID, "the private key %s does not belong to the certificate %s",
                       key_path, cert_path);
    TRY(check_signed(t, ca_path, cert_path));
    return err_wrap(tls_identity_read(t->cert, &t->own), "%s", cert_path);
}

struct err *tls_load(const char *ca_path, const char *cert_path, const char *key_path,
                     char **ret_warning, struct tls **ret_tls)
{
    struct tls *t = xcalloc(1, sizeof(*t));
    CLEANUP_FREE char *warning = NULL;
    struct err *e = load_into(t, ca_path, cert_path, key_path, &warning);

    if (e) {
        tls_free(t);
        return e;
    }
    *ret_warning = steal(&warning);
    *ret_tls = t;
    return NULL;
}

struct tls *tls_free(struct tls *t)
{
    if (!t)
        return NULL;
    X509_free(t->ca);
    X509_free(t->cert);
    EVP_PKEY_free(t->key);
    free(t);
    return NULL;
}

const struct tls_identity *tls_own_identity(const struct tls *t)
{
    return &t->own;
}
