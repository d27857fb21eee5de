/* Calls of Keystone, Cinder and Nova. Each blocks until its deadline at the latest, so it runs on a worker; all are
 * thread-safe. Tokens are asked for when they are needed, kept, and renewed a minute before they end, or when one is refused. What a
 * service asks to be tried again is; what may have been done although there was no answer is repeated only when that does no harm. */
#pragma once

#include "base/str.h"
#include "drivers/openstack/identity.h"
#include "drivers/openstack/reply.h"
#include "net/http_client.h"

struct os_cloud;

struct os_cloud_config {
    const struct os_identity *identity; /* these two outlive it */
    struct http_client *http;
    const char *region, *interface;                 /* region NULL: whichever */
    const char *volume_endpoint, *compute_endpoint; /* NULL: as the catalogue says */
    struct budget *budget;                          /* of calls; outlives it; NULL: no limit */
};

struct os_cloud *os_cloud_new(const struct os_cloud_config *config);
struct os_cloud *os_cloud_free(struct os_cloud *c); /* accepts NULL; returns NULL */
/* Calls made since the start. */
uint64_t os_cloud_calls(const struct os_cloud *c);

enum os_service { OS_VOLUME, OS_COMPUTE };

/* How a call went. */
enum os_kind {
    OS_DONE,
    OS_FAILED,      /* anything else */
    OS_TROUBLE,     /* no answer, or theirs: look what is */
    OS_NOT_FOUND,   /* gone */
    OS_WRONG_STATE, /* 400 and 409: look again, it may be done already, or it cannot be */
    OS_LIMIT,       /* quota */
    OS_TOO_MANY,    /* volumes on this server */
    OS_CREDENTIALS,
    OS_FORBIDDEN,
};

struct os_call {
    const char *what; /* begins each error: "cannot attach volume 1234" */
    enum os_service service;
    const char *method;
    const char *path;     /* below the service's address, with its query; begins with "/" */
    const json_t *body;   /* NULL: none */
    unsigned minor;       /* microversion 3.N of Cinder; 0: none */
    bool once;            /* not to be repeated when it may have been done */
    uint64_t deadline_us; /* monotonic */
};
/* *ret_body (may be NULL: not wanted) is NULL when the answer had none; the caller calls json_decref. */
struct err *os_call_sync(struct os_cloud *c, const struct os_call *call, enum os_kind *ret_kind,
                         json_t **ret_body) MUST_USE;

/* Which API of Cinder it is: 1, 2 or 3; known after the first call of it, or after this. */
struct err *os_cloud_volume_api(struct os_cloud *c, uint64_t deadline_us,
                                unsigned *ret_api) MUST_USE;
/* The highest microversion 3.N that Cinder offers; 0: none. Asked for once. */
struct err *os_cloud_volume_minor(struct os_cloud *c, uint64_t deadline_us,
                                  unsigned *ret_minor) MUST_USE;

/* Appends `text` as a part of a query. */
void os_url_append(struct str *url, const char *text);
