/* Certificates for tests: small (P-256) and made on the spot. Every function fails the test on
 * error. */
#pragma once

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stddef.h>

#define CLUSTER_A "11111111-1111-4111-8111-111111111111"
#define CLUSTER_B "22222222-2222-4222-8222-222222222222"
#define NODE_1 "aaaaaaaa-0000-4000-8000-000000000001"
#define NODE_2 "aaaaaaaa-0000-4000-8000-000000000002"

struct certs_ca {
    char cluster[37];
    X509 *cert;
    EVP_PKEY *key;
};

#define CERTS_SAN_CONTROL 1u /* subjectAltName DNS:control-service, IP:127.0.0.1 */
#define CERTS_CLIENT_AUTH 2u /* extendedKeyUsage clientAuth, as user certificates have */
#define CERTS_EXPIRED 4u
#define CERTS_FUTURE 8u
#define CERTS_CA 16u /* may sign others */

/* Makes a temporary directory; certs_dir_remove() removes it with the files in it. */
void certs_dir_make(char *buf, size_t size);
void certs_dir_remove(const char *dir);

void certs_ca_new(struct certs_ca *ca, const char *cluster);
void certs_ca_free(struct certs_ca *ca);
/* Writes the CA's certificate as DIR/NAME.crt. */
void certs_ca_write(const struct certs_ca *ca, const char *dir, const char *name);
/* Makes DIR/NAME.crt and DIR/NAME.key (0600). `ou` NULL: the cluster of the CA; "" leaves it out.
 * `cn_len` bytes are taken as they are. */
void certs_make_raw(const struct certs_ca *ca, const char *dir, const char *name, const char *cn,
                    int cn_len, const char *ou, unsigned flags);
void certs_make(const struct certs_ca *ca, const char *dir, const char *name, const char *cn,
                const char *ou, unsigned flags);
