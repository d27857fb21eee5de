#include "cli/ca_x509.h"

#include "base/str.h"
#include "cli/text.h"

#include <arpa/inet.h>
#include <openssl/bn.h>
#include <openssl/ec.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509v3.h>

#define NAME_MAX_CHARS 64 /* X.520: upper bound of CN and OU */
#define SERIAL_BITS 128

static void bio_freep(BIO **b)
{
    BIO_free_all(*b);
}

static void key_freep(EVP_PKEY **k)
{
    EVP_PKEY_free(*k);
}

static void x509_freep(X509 **x)
{
    X509_free(*x);
}

#define CLEANUP_BIO CLEANUP(bio_freep)
#define CLEANUP_KEY CLEANUP(key_freep)
#define CLEANUP_X509 CLEANUP(x509_freep)

/* "what: the reason OpenSSL gives"; empties OpenSSL's queue. */
static struct err *openssl_err(enum err_code code, const char *what)
{
    const char *reason = ERR_reason_error_string(ERR_peek_last_error());
    struct err *e = err_new(code, "%s: %s", what, reason ? reason : "unknown reason");

    ERR_clear_error();
    return e;
}

void ca_pair_done(struct ca_pair *p)
{
    if (p->key)
        OPENSSL_cleanse(p->key, strlen(p->key));
    free(p->key);
    free(p->certificate);
    *p = (struct ca_pair){0};
}

void ca_authority_done(struct ca_authority *a)
{
    EVP_PKEY_free(a->key);
    X509_free(a->certificate);
    *a = (struct ca_authority){0};
}

/* Without this OpenSSL would ask on the terminal. */
static int no_passphrase(char *buf, int size, int for_writing, void *cookie)
{
    (void)buf, (void)size, (void)for_writing, (void)cookie;
    return -1;
}

/* The text of one part of the subject; NULL when absent, twice there, or with a NUL inside. */
static char *subject_part(const X509 *x, int nid)
{
    const X509_NAME *name = X509_get_subject_name(x);
    int at = X509_NAME_get_index_by_NID(name, nid, -1);

    if (at < 0 || X509_NAME_get_index_by_NID(name, nid, at) >= 0)
        return NULL;
    unsigned char *utf8 = NULL;
    int n = ASN1_STRING_to_UTF8(&utf8, X509_NAME_ENTRY_get_data(X509_NAME_get_entry(name, at)));
    if (n < 0)
        return NULL;
    char *text = memchr(utf8, '\0', (size_t)n) ? NULL : xstrndup((char *)utf8, (size_t)n);
    OPENSSL_free(utf8);
    return text;
}

static struct err *read_certificate(const char *pem, X509 **ret_certificate)
{
    CLEANUP_BIO BIO *bio = BIO_new_mem_buf(pem, -1);
    X509 *x = bio ? PEM_read_bio_X509(bio, NULL, no_passphrase, NULL) : NULL;

    if (!x)
        return openssl_err(ERR_INVALID, "not a certificate in PEM form");
    *ret_certificate = x;
    return NULL;
}

struct err *ca_authority_load(const char *certificate_pem, const char *key_pem, unsigned flags,
                              struct ca_authority *ret_authority)
{
    CLEANUP_X509 X509 *x = NULL;
    CLEANUP_KEY EVP_PKEY *key = NULL;

    TRY(read_certificate(certificate_pem, &x));
    CLEANUP_BIO BIO *bio = BIO_new_mem_buf(key_pem, -1);
    key = bio ? PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL) : NULL;
    if (!key)
        return openssl_err(ERR_INVALID, "not a private key in PEM form without passphrase");
    if (X509_check_private_key(x, key) != 1) {
        ERR_clear_error();
        return err_new(ERR_INVALID, "the certificate and the key do not belong together");
    }
    if (X509_check_ca(x) != 1)
        return err_new(ERR_INVALID, "the certificate is not that of a certificate authority");
    if (X509_cmp_current_time(X509_get0_notAfter(x)) <= 0 && !(flags & CA_EXPIRED_OK))
        return err_new(ERR_INVALID, "the certificate authority has expired; run flocker-ca renew on it");
    CLEANUP_FREE char *cluster = subject_part(x, NID_organizationalUnitName);
    if (!cluster || strlen(cluster) >= sizeof(ret_authority->cluster))
        return err_new(ERR_INVALID, "the certificate names no cluster (its OU)");
    *ret_authority = (struct ca_authority){.key = steal(&key), .certificate = steal(&x)};
    memcpy(ret_authority->cluster, cluster, strlen(cluster) + 1);
    return NULL;
}

/* Takes seconds for RSA: the certificate is otherwise known to be in order. */
static struct err *give_key(X509 *x, enum ca_key_type type, EVP_PKEY **ret_key)
{
    CLEANUP_KEY EVP_PKEY *key = type == CA_KEY_EC ? EVP_EC_gen("P-256") : EVP_RSA_gen(4096);

    if (!key || X509_set_pubkey(x, key) != 1)
        return openssl_err(ERR_INTERNAL, "cannot generate a key");
    *ret_key = steal(&key);
    return NULL;
}

static struct err *add_subject_part(X509_NAME *name, int nid, const char *text)
{
    if (X509_NAME_add_entry_by_NID(name, nid, MBSTRING_UTF8, (const unsigned char *)text, -1, -1,
                                   0) == 1)
        return NULL;
    if (ERR_GET_REASON(ERR_peek_last_error()) != ASN1_R_STRING_TOO_LONG)
        return openssl_err(ERR_INVALID, text);
    ERR_clear_error();
    return err_new(ERR_INVALID, "'%s' is too long for a certificate: at most %d characters", text,
                   NAME_MAX_CHARS);
}

static struct err *set_subject(X509 *x, const char *cluster, const char *common_name)
{
    X509_NAME *name = X509_get_subject_name(x);

    TRY(add_subject_part(name, NID_organizationalUnitName, cluster));
    return add_subject_part(name, NID_commonName, common_name);
}

static struct err *set_serial(X509 *x)
{
    BIGNUM *bn = BN_new();
    /* The top bit is set, so that the number really has 128 bits and is never 0. */
    bool ok = bn && BN_rand(bn, SERIAL_BITS, BN_RAND_TOP_ONE, BN_RAND_BOTTOM_ANY) == 1 &&
              BN_to_ASN1_INTEGER(bn, X509_get_serialNumber(x));

    BN_free(bn);
    return ok ? NULL : openssl_err(ERR_INTERNAL, "cannot make a serial number");
}

static struct err *add_extension(X509 *x, const X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;

    X509V3_set_ctx(&ctx, (X509 *)(uintptr_t)issuer, x, NULL, NULL, 0);
    X509_EXTENSION *ext = X509V3_EXT_nconf_nid(NULL, &ctx, nid, value);
    bool ok = ext && X509_add_ext(x, ext, -1) == 1;
    X509_EXTENSION_free(ext);
    return ok ? NULL : openssl_err(ERR_INTERNAL, "cannot add a certificate extension");
}

static bool set_validity(X509 *x, int days)
{
    return X509_gmtime_adj(X509_getm_notBefore(x), 0) &&
           X509_time_adj_ex(X509_getm_notAfter(x), days, 0, NULL);
}

/* Everything but names, key and extensions. */
static struct err *make_blank(int days, X509 **ret_certificate)
{
    CLEANUP_X509 X509 *x = X509_new();

    if (!x || X509_set_version(x, X509_VERSION_3) != 1 || !set_validity(x, days))
        return openssl_err(ERR_INTERNAL, "cannot make a certificate");
    TRY(set_serial(x));
    *ret_certificate = steal(&x);
    return NULL;
}

static char *bio_text(BIO *bio)
{
    char *data;
    long n = BIO_get_mem_data(bio, &data);

    return xstrndup(data, (size_t)n);
}

/* `key` NULL: only the certificate. */
static struct err *sign_and_write(X509 *x, EVP_PKEY *signer, EVP_PKEY *key,
                                  struct ca_pair *ret_pair)
{
    if (X509_sign(x, signer, EVP_sha256()) <= 0)
        return openssl_err(ERR_INTERNAL, "cannot sign the certificate");
    CLEANUP_BIO BIO *certificate_bio = BIO_new(BIO_s_mem());
    CLEANUP_BIO BIO *key_bio = BIO_new(BIO_s_secmem());
    if (!certificate_bio || !key_bio || PEM_write_bio_X509(certificate_bio, x) != 1 ||
        (key && PEM_write_bio_PrivateKey(key_bio, key, NULL, NULL, 0, NULL, NULL) != 1))
        return openssl_err(ERR_INTERNAL, "cannot write the certificate as PEM");
    *ret_pair = (struct ca_pair){.key = key ? bio_text(key_bio) : NULL,
                                 .certificate = bio_text(certificate_bio)};
    return NULL;
}

struct err *ca_make_authority(const char *cluster_name, const struct uuid *cluster,
                              enum ca_key_type key_type, int days, struct ca_pair *ret_pair)
{
    static const struct {
        int nid;
        const char *value;
    } extensions[] = {
        {NID_basic_constraints, "critical,CA:TRUE,pathlen:0"},
        {NID_key_usage, "critical,keyCertSign,cRLSign"},
        {NID_subject_key_identifier, "hash"},
        {NID_authority_key_identifier, "keyid:always"},
    };
    CLEANUP_KEY EVP_PKEY *key = NULL;
    CLEANUP_X509 X509 *x = NULL;

    TRY(make_blank(days, &x));
    TRY(set_subject(x, UUID_STR(cluster), cluster_name));
    if (X509_set_issuer_name(x, X509_get_subject_name(x)) != 1)
        return openssl_err(ERR_INTERNAL, "cannot set the issuer");
    TRY(give_key(x, key_type, &key));
    for (size_t i = 0; i < ARRAY_SIZE(extensions); i++)
        TRY(add_extension(x, x, extensions[i].nid, extensions[i].value));
    return sign_and_write(x, key, key, ret_pair);
}

static bool is_host_name(const char *name)
{
    size_t label = 0, n = strlen(name);

    if (n > 253)
        return false;
    for (const char *p = name; *p; p++) {
        bool alnum =
            (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9');
        if (*p == '.' || *p == '-') {
            if (!label || (*p == '.' && p[-1] == '-'))
                return false;
        } else if (!alnum && *p != '_') {
            return false;
        }
        label = *p == '.' ? 0 : label + 1;
        if (label > 63)
            return false;
    }
    return label > 0 && name[n - 1] != '-';
}

struct err *ca_check_host(const char *name, bool *ret_is_address)
{
    unsigned char address[16];
    bool is_address =
        inet_pton(AF_INET, name, address) == 1 || inet_pton(AF_INET6, name, address) == 1;

    if (!is_address && !is_host_name(name))
        return err_new(
            ERR_INVALID,
            "'%s' is neither a host name nor an IP address (write international names in "
            "their xn-- form)",
            name);
    *ret_is_address = is_address;
    return NULL;
}

static struct err *control_names(const struct ca_request *request, char **ret_value)
{
    CLEANUP_STR struct str value = {0};

    str_append(&value, "DNS:control-service");
    for (size_t i = 0; i < request->n_names; i++) {
        bool is_address, seen = streq(request->names[i], "control-service");
        TRY(ca_check_host(request->names[i], &is_address));
        for (size_t k = 0; k < i && !seen; k++)
            seen = streq(request->names[i], request->names[k]);
        if (!seen)
            str_appendf(&value, ",%s:%s", is_address ? "IP" : "DNS", request->names[i]);
    }
    *ret_value = str_steal(&value);
    return NULL;
}

struct err *ca_issue(const struct ca_authority *authority, const struct ca_request *request,
                     struct ca_pair *ret_pair)
{
    CLEANUP_KEY EVP_PKEY *key = NULL;
    CLEANUP_X509 X509 *x = NULL;

    TRY(make_blank(request->days, &x));
    TRY(set_subject(x, authority->cluster, request->common_name));
    if (X509_set_issuer_name(x, X509_get_subject_name(authority->certificate)) != 1)
        return openssl_err(ERR_INTERNAL, "cannot set the issuer");
    if (request->kind == CA_CONTROL) {
        CLEANUP_FREE char *names = NULL;
        TRY(control_names(request, &names));
        TRY(add_extension(x, authority->certificate, NID_subject_alt_name, names));
    } else if (request->kind == CA_USER) {
        TRY(add_extension(x, authority->certificate, NID_ext_key_usage, "clientAuth"));
    }
    TRY(give_key(x, request->key_type, &key));
    return sign_and_write(x, authority->key, key, ret_pair);
}

/* Is it signed by the authority, or the authority's own? */
static struct err *check_issuer(const struct ca_authority *authority, X509 *x)
{
    if (X509_NAME_cmp(X509_get_issuer_name(x), X509_get_subject_name(authority->certificate)) == 0 &&
        X509_verify(x, authority->key) == 1)
        return NULL;
    ERR_clear_error();
    return err_new(ERR_DENIED, "it was not signed by this cluster's authority, so it cannot be renewed with it");
}

struct err *ca_renew(const struct ca_authority *authority, const char *certificate_pem, bool new_key, int days,
                     struct ca_pair *ret_pair)
{
    CLEANUP_KEY EVP_PKEY *key = NULL;
    CLEANUP_X509 X509 *x = NULL;

    TRY(read_certificate(certificate_pem, &x));
    TRY(check_issuer(authority, x));
    if (new_key && X509_check_ca(x) == 1)
        return err_new(ERR_INVALID, "an authority with a new key would be another one: nothing that it signed would be "
                                    "trusted any more");
    TRY(set_serial(x));
    if (!set_validity(x, days))
        return openssl_err(ERR_INTERNAL, "cannot set the validity");
    if (new_key)
        TRY(give_key(x, EVP_PKEY_is_a(X509_get0_pubkey(x), "RSA") ? CA_KEY_RSA : CA_KEY_EC, &key));
    return sign_and_write(x, authority->key, key, ret_pair);
}

struct err *ca_check_user(const char *certificate_pem, const char *authority_pem)
{
    CLEANUP_X509 X509 *x = NULL, *authority = NULL;

    TRY(err_wrap(read_certificate(authority_pem, &authority), "the cluster's certificate"));
    TRY(err_wrap(read_certificate(certificate_pem, &x), "the user's certificate"));
    CLEANUP_FREE char *cn = subject_part(x, NID_commonName);
    if (!cn || !str_has_prefix(cn, "user-"))
        return err_new(ERR_DENIED, "this is not an API user's certificate but that of %s",
                       cn ? cn : "nobody");
    if (X509_verify(x, X509_get0_pubkey(authority)) != 1) {
        ERR_clear_error();
        return err_new(ERR_DENIED,
                       "the user's certificate was signed by another cluster's authority");
    }
    if (X509_cmp_current_time(X509_get0_notAfter(x)) < 0)
        return err_new(ERR_DENIED, "the user's certificate has expired; make a new one");
    if (X509_cmp_current_time(X509_get0_notBefore(x)) > 0)
        return err_new(ERR_DENIED,
                       "the user's certificate is not valid yet; is this machine's clock right?");
    return NULL;
}

bool ca_is_authority(const char *certificate_pem)
{
    CLEANUP_X509 X509 *x = NULL;
    CLEANUP_ERR struct err *e = read_certificate(certificate_pem, &x);

    return !e && X509_check_ca(x) == 1;
}

/* ---- describe ---- */

/* `n` bytes out of a certificate, which may come from anywhere, made harmless for a terminal. The caller frees it. */
static char *harmless(const char *bytes, size_t n)
{
    CLEANUP_STR struct str safe = {0};
    CLEANUP_FREE char *text = xstrndup(bytes, n);

    text_append_safe(&safe, text);
    return str_steal(&safe);
}

static char *subject_shown(const X509 *x, int nid)
{
    CLEANUP_FREE char *part = subject_part(x, nid);

    return part ? harmless(part, strlen(part)) : xstrdup("(none)");
}

static void print_identity(const X509 *x, const char *cn, FILE *to)
{
    if (X509_check_ca((X509 *)(uintptr_t)x) == 1)
        fprintf(to, "Kind:        cluster authority\nIdentity:    %s\n", cn);
    else if (streq(cn, "control-service"))
        fprintf(to, "Kind:        control service\nIdentity:    %s\n", cn);
    else if (str_has_prefix(cn, "node-"))
        fprintf(to, "Kind:        node\nIdentity:    %s\n", cn + strlen("node-"));
    else if (str_has_prefix(cn, "user-"))
        fprintf(to, "Kind:        API user\nIdentity:    %s\n", cn + strlen("user-"));
    else
        fprintf(to, "Kind:        not a Flocker certificate\nIdentity:    %s\n", cn);
}

static void print_time(const char *label, const ASN1_TIME *t, FILE *to)
{
    struct tm tm;
    char text[40] = "?";

    if (ASN1_TIME_to_tm(t, &tm) == 1)
        (void)strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%SZ", &tm);
    fprintf(to, "%-12s %s", label, text);
}

static void print_names(const X509 *x, FILE *to)
{
    GENERAL_NAMES *names = X509_get_ext_d2i(x, NID_subject_alt_name, NULL, NULL);

    for (int i = 0; names && i < sk_GENERAL_NAME_num(names); i++) {
        const GENERAL_NAME *n = sk_GENERAL_NAME_value(names, i);
        const char *label = i ? "" : "Names:";
        if (n->type == GEN_DNS) {
            CLEANUP_FREE char *name = harmless((const char *)ASN1_STRING_get0_data(n->d.dNSName),
                                               (size_t)ASN1_STRING_length(n->d.dNSName));
            fprintf(to, "%-12s %s\n", label, name);
        } else if (n->type == GEN_IPADD) {
            char text[INET6_ADDRSTRLEN] = "?";
            int family = ASN1_STRING_length(n->d.iPAddress) == 4 ? AF_INET : AF_INET6;
            if (family == AF_INET || ASN1_STRING_length(n->d.iPAddress) == 16)
                (void)inet_ntop(family, ASN1_STRING_get0_data(n->d.iPAddress), text, sizeof(text));
            fprintf(to, "%-12s %s\n", label, text);
        }
    }
    GENERAL_NAMES_free(names);
}

struct err *ca_describe(const char *pem, FILE *to)
{
    CLEANUP_X509 X509 *x = NULL;

    TRY(read_certificate(pem, &x));
    CLEANUP_FREE char *cn = subject_shown(x, NID_commonName);
    CLEANUP_FREE char *ou = subject_shown(x, NID_organizationalUnitName);
    print_identity(x, cn, to);
    fprintf(to, "Cluster:     %s\n", ou);
    print_time("Valid from:", X509_get0_notBefore(x), to);
    fprintf(to, "%s\n", X509_cmp_current_time(X509_get0_notBefore(x)) > 0 ? " (not yet)" : "");
    print_time("Valid until:", X509_get0_notAfter(x), to);
    fprintf(to, "%s\n", X509_cmp_current_time(X509_get0_notAfter(x)) < 0 ? " (EXPIRED)" : "");
    print_names(x, to);

    const EVP_PKEY *key = X509_get0_pubkey(x);
    const char *type = key ? EVP_PKEY_get0_type_name(key) : NULL;
    fprintf(to, "Key:         %s, %d bits\n", type ? type : "unknown",
            key ? EVP_PKEY_get_bits(key) : 0);
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (X509_digest(x, EVP_sha256(), digest, &n) != 1)
        return openssl_err(ERR_INTERNAL, "cannot compute the fingerprint");
    fprintf(to, "Fingerprint: SHA256 ");
    for (unsigned i = 0; i < n; i++)
        fprintf(to, "%s%02X", i ? ":" : "", digest[i]);
    fprintf(to, "\n");
    return NULL;
}
