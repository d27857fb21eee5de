/* Who we are to Keystone, and the request for a token that says so; and clouds.yaml, where others keep it. Pure. */
#pragma once

#include "base/err.h"

#include <jansson.h>

enum os_auth {
    OS_AUTH_V3_PASSWORD,
    OS_AUTH_V3_TOKEN,
    OS_AUTH_V3_APPLICATION_CREDENTIAL,
    OS_AUTH_V2_PASSWORD,
    OS_AUTH_V2_TOKEN,
    OS_AUTH_RACKSPACE,
    OS_AUTH_NONE, /* a Cinder without Keystone (auth_strategy = noauth) */
};

/* Texts are the options' own and live as long. */
struct os_identity {
    enum os_auth how;
    char *url; /* where tokens are asked for; NULL with OS_AUTH_NONE */
    const char *username, *user_id, *password, *api_key, *token;
    const char *user_domain_name, *user_domain_id;
    const char *project_name, *project_id, *project_domain_name, *project_domain_id;
    const char *credential_name, *credential_id, *credential_secret;
};
void os_identity_done(struct os_identity *i);

/* What the options of agent.yml mean. ERR_INVALID names the key that is missing. */
struct err *os_identity_read(const json_t *options, struct os_identity *ret_identity) MUST_USE;
/* The body of the request for a token. It holds the secret. NULL with OS_AUTH_NONE. */
json_t *os_identity_request(const struct os_identity *i);

/* Fills `options` with what the file says of this cloud, as far as the options do not say it themselves. ERR_NOT_FOUND: it has no such
 * cloud; ERR_INVALID: what it says cannot be used. */
struct err *os_cloud_apply(const json_t *clouds, const char *name, json_t *options) MUST_USE;
