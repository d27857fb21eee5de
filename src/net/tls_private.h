/* Shared by tls.c and tls_context.c only. */
#pragma once

#include "net/tls.h"

#define TLS_CONTROL_NAME "control-service"
#define TLS_CHAIN_DEPTH                                                                            \
    0 /* the cluster's CA signs directly (pathlen:0): no certificate in between */

struct tls {
    X509 *ca, *cert;
    EVP_PKEY *key;
    struct tls_identity own;
};
