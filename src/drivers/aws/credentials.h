/* Where the access keys come from, and the service that tells an instance about itself. The first place that has keys
 * counts: agent.yml; the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN); a shared credentials
 * file (AWS_SHARED_CREDENTIALS_FILE, else ~/.aws/credentials; profile of agent.yml, of AWS_PROFILE, or default); the endpoint
 * of a container (AWS_CONTAINER_CREDENTIALS_RELATIVE_URI or _FULL_URI); the role of the instance (metadata service,
 * version 2 only). Those that expire are fetched again 5 minutes before; while that fails, they serve until their
 * end. All functions are thread-safe; those that end in _sync block. */
#pragma once

#include "drivers/aws/keys.h"
#include "net/http_client.h"

#define AWS_METADATA_URL "http://169.254.169.254"
#define AWS_KEYS_REFRESH_US (5ull * 60 * 1000000)

/* ---- the metadata service ---- */

struct aws_metadata;

/* `http` must be a direct client and outlive it. */
struct aws_metadata *aws_metadata_new(struct http_client *http, const char *url);
struct aws_metadata *aws_metadata_free(struct aws_metadata *m); /* accepts NULL; returns NULL */
/* The text at "/latest/PATH". ERR_NOT_FOUND: nothing there. ERR_DENIED: the service is off. ERR_UNAVAILABLE, ERR_TIMEOUT: there
 * is none; this is no instance, or a container behind a hop too many. */
struct err *aws_metadata_get_sync(struct aws_metadata *m, const char *path,
                                  char **ret_text) MUST_USE;

/* ---- keys ---- */

struct aws_credentials_config {
    struct aws_keys keys;                 /* of agent.yml; id NULL: none. Copied. */
    const char *profile;                  /* NULL: none in agent.yml */
    const char *(*env)(const char *name); /* NULL: getenv */
    struct http_client *http;             /* direct */
    struct aws_metadata *metadata;
};

struct aws_credentials;

struct aws_credentials *aws_credentials_new(const struct aws_credentials_config *config);
struct aws_credentials *aws_credentials_free(struct aws_credentials *c);
/* A copy of what is valid now. ERR_DENIED: no place has any; the text names the places. */
struct err *aws_credentials_get_sync(struct aws_credentials *c, struct aws_keys *ret_keys) MUST_USE;
/* These were refused: the next call looks again, unless somebody did already. */
void aws_credentials_refused(struct aws_credentials *c, const struct aws_keys *keys);
