#include "certs.h"

#include "base/mem.h"

#include <dirent.h>
#include <fcntl.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <unistd.h>

#define MUST(x)                                                                                    \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #x);                        \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

void certs_dir_make(char *buf, size_t size)
{
    const char *tmp = getenv("TMPDIR");

    MUST((size_t)snprintf(buf, size, "%s/flocker-net-XXXXXX", tmp ? tmp : "/tmp") < size);
    MUST(mkdtemp(buf));
}

void certs_dir_remove(const char *dir)
{
    DIR *d = opendir(dir);
    struct dirent *entry;

    MUST(d);
    while ((entry = readdir(d))) {
        if (entry->d_name[0] != '.' && unlinkat(dirfd(d), entry->d_name, 0) != 0)
            perror(entry->d_name);
    }
    closedir(d);
    MUST(rmdir(dir) == 0);
}

static void extension_add(X509 *cert, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509_EXTENSION *ext;

    X509V3_set_ctx(&ctx, issuer, cert, NULL, NULL, 0);
    MUST((ext = X509V3_EXT_conf_nid(NULL, &ctx, nid, value)));
    MUST(X509_add_ext(cert, ext, -1) == 1);
    X509_EXTENSION_free(ext);
}

static X509 *cert_new(EVP_PKEY *key, const char *cn, int cn_len, const char *ou, unsigned flags)
{
    X509 *cert = X509_new();
    unsigned char serial[16];
    BIGNUM *n;
    X509_NAME *subject;

    MUST(cert && X509_set_version(cert, 2) == 1 && RAND_bytes(serial, sizeof(serial)) == 1);
    serial[0] &= 0x7f;
    MUST((n = BN_bin2bn(serial, sizeof(serial), NULL)));
    MUST(BN_to_ASN1_INTEGER(n, X509_get_serialNumber(cert)));
    BN_free(n);
    MUST(X509_gmtime_adj(X509_getm_notBefore(cert), flags & CERTS_FUTURE ? 3600 : -7200));
    MUST(X509_gmtime_adj(X509_getm_notAfter(cert), flags & CERTS_EXPIRED ? -3600 : 86400));
    subject = X509_get_subject_name(cert);
    if (ou[0])
        MUST(X509_NAME_add_entry_by_txt(subject, "OU", MBSTRING_UTF8, (const unsigned char *)ou, -1,
                                        -1, 0) == 1);
    MUST(X509_NAME_add_entry_by_txt(subject, "CN", V_ASN1_UTF8STRING, (const unsigned char *)cn,
                                    cn_len, -1, 0) == 1);
    MUST(X509_set_pubkey(cert, key) == 1);
    return cert;
}

static void pem_write(const char *dir, const char *name, const char *suffix, X509 *cert,
                      EVP_PKEY *key)
{
    CLEANUP_FREE char *path = xasprintf("%s/%s.%s", dir, name, suffix);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    FILE *f;

    MUST(fd >= 0 && (f = fdopen(fd, "w")));
    if (cert)
        MUST(PEM_write_X509(f, cert) == 1);
    else
        MUST(PEM_write_PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) == 1);
    MUST(fclose(f) == 0);
}

void certs_ca_new(struct certs_ca *ca, const char *cluster)
{
    MUST((ca->key = EVP_EC_gen("P-256")));
    MUST(snprintf(ca->cluster, sizeof(ca->cluster), "%s", cluster) == 36);
    ca->cert = cert_new(ca->key, "test cluster", -1, cluster, 0);
    MUST(X509_set_issuer_name(ca->cert, X509_get_subject_name(ca->cert)) == 1);
    extension_add(ca->cert, ca->cert, NID_basic_constraints, "critical,CA:TRUE,pathlen:0");
    extension_add(ca->cert, ca->cert, NID_key_usage, "critical,keyCertSign,cRLSign");
    extension_add(ca->cert, ca->cert, NID_subject_key_identifier, "hash");
    MUST(X509_sign(ca->cert, ca->key, EVP_sha256()) > 0);
}

void certs_ca_free(struct certs_ca *ca)
{
    X509_free(ca->cert);
    EVP_PKEY_free(ca->key);
}

void certs_ca_write(const struct certs_ca *ca, const char *dir, const char *name)
{
    pem_write(dir, name, "crt", ca->cert, NULL);
}

void certs_make_raw(const struct certs_ca *ca, const char *dir, const char *name, const char *cn,
                    int cn_len, const char *ou, unsigned flags)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");

    MUST(key);
    X509 *cert = cert_new(key, cn, cn_len, ou ? ou : ca->cluster, flags);
    MUST(X509_set_issuer_name(cert, X509_get_subject_name(ca->cert)) == 1);
    if (flags & CERTS_CA)
        extension_add(cert, ca->cert, NID_basic_constraints, "critical,CA:TRUE");
    if (flags & CERTS_SAN_CONTROL)
        extension_add(cert, ca->cert, NID_subject_alt_name, "DNS:control-service,IP:127.0.0.1");
    if (flags & CERTS_CLIENT_AUTH)
        extension_add(cert, ca->cert, NID_ext_key_usage, "clientAuth");
    MUST(X509_sign(cert, ca->key, EVP_sha256()) > 0);
    pem_write(dir, name, "crt", cert, NULL);
    pem_write(dir, name, "key", NULL, key);
    X509_free(cert);
    EVP_PKEY_free(key);
}

void certs_make(const struct certs_ca *ca, const char *dir, const char *name, const char *cn,
                const char *ou, unsigned flags)
{
    certs_make_raw(ca, dir, name, cn, -1, ou, flags);
}
