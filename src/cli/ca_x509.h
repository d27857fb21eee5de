/* Making and reading the cluster's certificates (contract section 2.2). No files here: PEM text in,
 * PEM text out. Uses the OpenSSL generator; thread-safe as far as OpenSSL is. */
#pragma once

#include "base/err.h"
#include "base/uuid.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

enum ca_key_type {
    CA_KEY_RSA, /* 4096 bits, as the contract has it */
    CA_KEY_EC,  /* P-256 */
};

#define CA_DAYS (20 * 365)
#define CA_DAYS_MAX 36500

/* A key and its certificate, as PEM text. */
struct ca_pair {
    char *key; /* PKCS#8, not encrypted; wiped when freed */
    char *certificate;
};

void ca_pair_done(struct ca_pair *p);

/* A certificate authority that can sign. */
struct ca_authority {
    EVP_PKEY *key;
    X509 *certificate;
    char cluster[65]; /* the OU: the cluster's uuid */
};

void ca_authority_done(struct ca_authority *a);
/* Reads the pair; checks that they belong together, that it is an authority and, unless CA_EXPIRED_OK, still valid. */
#define CA_EXPIRED_OK 1u
struct err *ca_authority_load(const char *certificate_pem, const char *key_pem, unsigned flags,
                              struct ca_authority *ret_authority) MUST_USE;

enum ca_kind { CA_CONTROL, CA_NODE, CA_USER };

/* What to issue. */
struct ca_request {
    enum ca_kind kind;
    const char *common_name; /* complete: "control-service", "node-<uuid>", "user-<name>" */
    char *const *names;      /* CA_CONTROL: host names and addresses besides control-service */
    size_t n_names;
    enum ca_key_type key_type;
    int days;
};

/* A new self-signed authority for a new cluster. */
struct err *ca_make_authority(const char *cluster_name, const struct uuid *cluster,
                              enum ca_key_type key_type, int days,
                              struct ca_pair *ret_pair) MUST_USE;
struct err *ca_issue(const struct ca_authority *authority, const struct ca_request *request,
                     struct ca_pair *ret_pair) MUST_USE;

/* The same certificate with a new serial number and valid from now on, for `days`: subject, names and extensions stay, and
 * the key too unless `new_key`: then one of the same type, and without it ret_pair->key is NULL. The certificate must be
 * signed by this authority, or be the authority's own (which keeps its key, so what it signed stays good); it may have
 * expired. */
struct err *ca_renew(const struct ca_authority *authority, const char *certificate_pem, bool new_key, int days,
                     struct ca_pair *ret_pair) MUST_USE;

/* NULL when `name` can stand in a certificate as a DNS name or an IP address; `*ret_is_address`. */
struct err *ca_check_host(const char *name, bool *ret_is_address) MUST_USE;

/* NULL when the PEM certificate is an API user's, valid now, signed by this authority. */
struct err *ca_check_user(const char *certificate_pem, const char *authority_pem) MUST_USE;

/* Is the PEM text an authority's certificate? */
bool ca_is_authority(const char *certificate_pem);

/* Prints kind, identity, cluster, validity, names, key and fingerprint of a PEM certificate. */
struct err *ca_describe(const char *pem, FILE *to) MUST_USE;
