#include "drivers/openstack/cloud.h"

#include "base/log.h"
#include "base/now.h"
#include "drivers/json_http.h"

#include <ctype.h>
#include <pthread.h>
#include <stdio.h>

#define RENEW_US (60 * (uint64_t)USEC_PER_SEC) /* before it ends */
#define TOKEN_MAX 16384u

struct os_cloud {
    struct os_cloud_config config;
    char *region, *interface, *volume_endpoint, *compute_endpoint;
    pthread_mutex_t
        lock; /* of all below; held while a token is asked for, so that one asks for all */
    char *token;
    uint64_t token_until; /* monotonic; 0: has no end */
    char *urls[2];        /* by enum os_service; NULL: the catalogue has none */
    char *regions;        /* that the catalogue has, for people */
    bool minor_known;
    unsigned minor;
    atomic_uint_fast64_t calls;
};

struct os_cloud *os_cloud_new(const struct os_cloud_config *config)
{
    struct os_cloud *c = xcalloc(1, sizeof(*c));

    c->config = *config;
    c->region = xstrdup_null(config->region);
    c->interface = xstrdup(config->interface);
    c->volume_endpoint = xstrdup_null(config->volume_endpoint);
    c->compute_endpoint = xstrdup_null(config->compute_endpoint);
    (void)pthread_mutex_init(&c->lock, NULL);
    return c;
}

static void forget_token(struct os_cloud *c)
{
    if (c->token)
        explicit_bzero(c->token, strlen(c->token));
    free(c->token);
    c->token = NULL;
}

struct os_cloud *os_cloud_free(struct os_cloud *c)
{
    if (!c)
        return NULL;
    forget_token(c);
    (void)pthread_mutex_destroy(&c->lock);
    free(c->urls[OS_VOLUME]);
    free(c->urls[OS_COMPUTE]);
    free(c->regions);
    free(c->region);
    free(c->interface);
    free(c->volume_endpoint);
    free(c->compute_endpoint);
    free(c);
    return NULL;
}

uint64_t os_cloud_calls(const struct os_cloud *c)
{
    return atomic_load(&c->calls);
}

void os_url_append(struct str *url, const char *text)
{
    for (const char *p = text; *p; p++) {
        if (isalnum((unsigned char)*p) || strchr("-_.~", *p))
            str_append_bytes(url, p, 1);
        else
            str_appendf(url, "%%%02X", (unsigned char)*p);
    }
}

/* ---- tokens; the caller holds the lock ---- */

static char *without_slash(const char *url)
{
    size_t n = strlen(url);

    while (n && url[n - 1] == '/')
        n--;
    return xstrndup(url, n);
}

static void take_url(struct os_cloud *c, enum os_service service, const char *given,
                     const char *found)
{
    free(c->urls[service]);
    c->urls[service] = given ? without_slash(given) : xstrdup_null(found);
}

static void take_catalog(struct os_cloud *c, const struct os_catalog *catalog)
{
    static const char *const volume[] = {"volumev3", "block-storage", "block-store",
                                         "volumev2", "volume",        NULL};
    static const char *const compute[] = {"compute", NULL};

    take_url(c, OS_VOLUME, c->volume_endpoint,
             os_catalog_find(catalog, volume, c->region, c->interface));
    take_url(c, OS_COMPUTE, c->compute_endpoint,
             os_catalog_find(catalog, compute, c->region, c->interface));
    free(c->regions);
    c->regions = os_catalog_regions(catalog);
}

static bool is_token(const char *s)
{
    size_t n = s ? strlen(s) : 0;

    for (size_t i = 0; i < n; i++) {
        if (s[i] < 0x21 || s[i] > 0x7e)
            return false;
    }
    return n && n <= TOKEN_MAX;
}

static struct err *take_answer(struct os_cloud *c, struct json_http_answer *a)
{
    CLEANUP_OS_CATALOG struct os_catalog catalog = {0};
    CLEANUP_FREE char *token = NULL;
    enum os_auth how = c->config.identity->how;
    struct now now = now_os();

    if (how == OS_AUTH_V2_PASSWORD || how == OS_AUTH_V2_TOKEN || how == OS_AUTH_RACKSPACE) {
        TRY(os_catalog_parse_v2(a->body, &catalog, &token));
    } else {
        TRY(os_catalog_parse_v3(a->body, &catalog));
        token = steal(&a->header);
    }
    if (!is_token(token))
        return err_new(ERR_CORRUPT, "Keystone sent no token");
    uint64_t left = catalog.expires_us > now.wall_us ? catalog.expires_us - now.wall_us : 0;

    forget_token(c);
    c->token = steal(&token);
    /* One that is nearly at its end, or a clock that is wrong: used until it is refused. */
    c->token_until = now.mono_us + (left > 2 * RENEW_US ? left - RENEW_US : RENEW_US);
    take_catalog(c, &catalog);
    return NULL;
}

static struct err *no_auth(struct os_cloud *c)
{
    const struct os_identity *i = c->config.identity;

    c->token = xasprintf("%s:%s", i->username ? i->username : "admin", i->project_id);
    c->token_until = 0;
    take_url(c, OS_VOLUME, c->volume_endpoint, NULL);
    take_url(c, OS_COMPUTE, c->compute_endpoint, NULL);
    return is_token(c->token) ? NULL
                              : err_new(ERR_INVALID, "username and project_id cannot be such");
}

static struct err *authenticate(struct os_cloud *c, uint64_t deadline_us)
{
    const struct os_identity *i = c->config.identity;
    CLEANUP_JSON_HTTP_ANSWER struct json_http_answer a = {0};
    json_t *body = os_identity_request(i);

    if (!body)
        return no_auth(c);
    struct err *e = json_http_sync(c->config.http,
                                   &(struct json_http_call){.what = "cannot get a token",
                                                            .method = "POST",
                                                            .url = i->url,
                                                            .body = body,
                                                            .keep_header = "X-Subject-Token",
                                                            .deadline_us = deadline_us,
                                                            .budget = c->config.budget},
                                   &a);

    atomic_fetch_add(&c->calls, 1);
    json_decref(body);
    if (e)
        return e;
    if (a.status >= 300 || a.status < 200)
        return err_wrap(json_http_failure(&a, "cannot get a token"), "%s", i->url);
    return err_wrap(take_answer(c, &a), "%s", i->url);
}

/* ---- sessions ---- */

struct session {
    char *token, *url;
};

static void session_done(struct session *s)
{
    if (s->token)
        explicit_bzero(s->token, strlen(s->token));
    free(s->token);
    free(s->url);
    *s = (struct session){0};
}

static struct err *no_service(const struct os_cloud *c, enum os_service service)
{
    const char *what = service == OS_VOLUME ? "volumes (Cinder)" : "servers (Nova)";

    if (c->region)
        return err_new(ERR_INVALID,
                       "OpenStack has no service for %s in region %s with the interface %s (it has "
                       "the regions: %s)",
                       what, c->region, c->interface,
                       c->regions && *c->regions ? c->regions : "none");
    return err_new(ERR_INVALID,
                   "OpenStack has no service for %s; see the keys region, interface, "
                   "volume_endpoint and compute_endpoint",
                   what);
}

/* `refused`: this token is not accepted any more. */
static struct err *get_session_locked(struct os_cloud *c, enum os_service service,
                                      const char *refused, uint64_t deadline_us,
                                      struct session *ret)
{
    bool old = c->token && c->token_until && now_os().mono_us >= c->token_until;

    if (!c->token || old || (refused && streq(refused, c->token))) {
        if (c->config.identity->how == OS_AUTH_NONE)
            forget_token(c);
        TRY(authenticate(c, deadline_us));
    }
    if (!c->urls[service])
        return no_service(c, service);
    *ret = (struct session){.token = xstrdup(c->token), .url = xstrdup(c->urls[service])};
    return NULL;
}

static struct err *get_session(struct os_cloud *c, enum os_service service, const char *refused,
                               uint64_t deadline_us, struct session *ret)
{
    (void)pthread_mutex_lock(&c->lock);
    struct err *e = get_session_locked(c, service, refused, deadline_us, ret);

    (void)pthread_mutex_unlock(&c->lock);
    return e;
}

/* ---- calls ---- */

static enum os_kind kind_of(int status)
{
    if (status >= 200 && status < 300)
        return OS_DONE;
    switch (status) {
    case 400:
    case 409:
        return OS_WRONG_STATE;
    case 401:
        return OS_CREDENTIALS;
    case 403:
        return OS_FORBIDDEN;
    case 404:
    case 410:
        return OS_NOT_FOUND;
    case 413:
        return OS_LIMIT;
    default:
        return status >= 500 || status == 429 ? OS_TROUBLE : OS_FAILED;
    }
}

static struct err *send(struct os_cloud *c, const struct os_call *call, const struct session *s,
                        struct json_http_answer *ret)
{
    CLEANUP_FREE char *url = xasprintf("%s%s", s->url, call->path);
    CLEANUP_FREE char *version =
        call->minor ? xasprintf("OpenStack-API-Version: volume 3.%u", call->minor) : NULL;
    char *token = xasprintf("X-Auth-Token: %s", s->token);
    const char *const headers[] = {token, version, NULL};
    struct err *e = json_http_sync(c->config.http,
                                   &(struct json_http_call){.what = call->what,
                                                            .method = call->method,
                                                            .url = url,
                                                            .headers = headers,
                                                            .body = call->body,
                                                            .once = call->once,
                                                            .deadline_us = call->deadline_us,
                                                            .budget = c->config.budget},
                                   ret);

    explicit_bzero(token, strlen(token));
    free(token);
    atomic_fetch_add(&c->calls, 1);
    return e;
}

/* With a new token when this one is refused. */
static struct err *send_authenticated(struct os_cloud *c, const struct os_call *call,
                                      struct json_http_answer *ret)
{
    CLEANUP(session_done) struct session s = {0}, again = {0};

    TRY(err_wrap(get_session(c, call->service, NULL, call->deadline_us, &s), "%s", call->what));
    TRY(send(c, call, &s, ret));
    if (ret->status != 401 || c->config.identity->how == OS_AUTH_NONE)
        return NULL;
    json_http_answer_done(ret);
    TRY(err_wrap(get_session(c, call->service, s.token, call->deadline_us, &again), "%s",
                 call->what));
    return send(c, call, &again, ret);
}

/* 403 is also the answer when a server has as many volumes as it can; only the sentence tells. */
static bool says_too_many(const struct json_http_answer *a)
{
    const char *message = json_http_message(a->body);

    return message && strstr(message, "aximum allowed number of");
}

static struct err *too_many(const struct json_http_answer *a, const char *what,
                            enum os_kind *ret_kind)
{
    *ret_kind = OS_TOO_MANY;
    return err_new(ERR_TOO_MANY, "%s: %.300s", what, json_http_message(a->body));
}

struct err *os_call_sync(struct os_cloud *c, const struct os_call *call, enum os_kind *ret_kind,
                         json_t **ret_body)
{
    CLEANUP_JSON_HTTP_ANSWER struct json_http_answer a = {0};
    struct err *e = send_authenticated(c, call, &a);

    if (e) {
        *ret_kind = e->code == ERR_TIMEOUT || e->code == ERR_UNAVAILABLE ? OS_TROUBLE
                    : e->code == ERR_DENIED                              ? OS_CREDENTIALS
                                                                         : OS_FAILED;
        return e;
    }
    *ret_kind = kind_of(a.status);
    if (*ret_kind == OS_FORBIDDEN && says_too_many(&a))
        return too_many(&a, call->what, ret_kind);
    if (*ret_kind != OS_DONE)
        return json_http_failure(&a, call->what);
    if (ret_body)
        *ret_body = steal(&a.body);
    return NULL;
}

/* ---- versions ---- */

/* Where the number of the version stands in the path of an address, or NULL. */
static const char *find_version(const char *url)
{
    const char *host = strstr(url, "://"), *at = host ? strchr(host + 3, '/') : NULL;

    for (; at; at = strchr(at + 1, '/')) {
        if (at[1] == 'v' && isdigit((unsigned char)at[2]))
            return at + 2;
    }
    return NULL;
}

struct err *os_cloud_volume_api(struct os_cloud *c, uint64_t deadline_us, unsigned *ret_api)
{
    CLEANUP(session_done) struct session s = {0};

    TRY(get_session(c, OS_VOLUME, NULL, deadline_us, &s));
    const char *version = find_version(s.url);

    *ret_api = version && (*version == '1' || *version == '2') ? (unsigned)(*version - '0') : 3;
    return NULL;
}

static struct err *ask_minor(struct os_cloud *c, uint64_t deadline_us, unsigned *ret_minor)
{
    CLEANUP(session_done) struct session s = {0};
    CLEANUP_JSON_HTTP_ANSWER struct json_http_answer a = {0};

    TRY(get_session(c, OS_VOLUME, NULL, deadline_us, &s));
    const char *version = find_version(s.url);
    CLEANUP_FREE char *root =
        version ? xasprintf("%.*s", (int)(version - 1 - s.url), s.url) : xasprintf("%s/", s.url);

    atomic_fetch_add(&c->calls, 1);
    TRY(json_http_sync(c->config.http,
                       &(struct json_http_call){.what = "cannot ask Cinder for its versions",
                                                .method = "GET",
                                                .url = root,
                                                .deadline_us = deadline_us,
                                                .budget = c->config.budget},
                       &a));
    if (a.status != 200 && a.status != 300)
        return json_http_failure(&a, "cannot ask Cinder for its versions");
    return os_minor_parse(a.body, ret_minor);
}

struct err *os_cloud_volume_minor(struct os_cloud *c, uint64_t deadline_us, unsigned *ret_minor)
{
    unsigned minor;

    (void)pthread_mutex_lock(&c->lock);
    bool known = c->minor_known;

    *ret_minor = c->minor;
    (void)pthread_mutex_unlock(&c->lock);
    if (known)
        return NULL;
    TRY(ask_minor(c, deadline_us, &minor));
    (void)pthread_mutex_lock(&c->lock);
    c->minor_known = true;
    c->minor = minor;
    (void)pthread_mutex_unlock(&c->lock);
    *ret_minor = minor;
    return NULL;
}
