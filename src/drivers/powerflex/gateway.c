#include "drivers/powerflex/gateway.h"

#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "drivers/json_http.h"
#include "drivers/wait.h"

#include <ctype.h>
#include <inttypes.h>
#include <pthread.h>

#define GIB ((uint64_t)1 << 30)
#define LIST_BYTES_MAX HTTP_CLIENT_ANSWER_MAX
#define OLDEST 3u /* of the versions of the API */
#define NEWEST 4u
#define PATIENCE_US                                                                                \
    (5 *                                                                                           \
     (uint64_t)USEC_PER_SEC) /* trouble that lasts longer is told, and tried again by the agent */

struct pfx_gateway {
    char *url;
    struct http_client *http;
    struct budget *budget;
    pthread_mutex_t
        lock;    /* of what follows; held while somebody logs in, so that the others wait for it */
    char *login; /* header with user and password */
    char *user;
    char *authorization; /* header with the token; NULL: not logged in */
    char accept[64];     /* header with the version that the gateway said */
    unsigned serial;     /* of the token */
};

static char *wipe(char *secret)
{
    if (secret)
        explicit_bzero(secret, strlen(secret));
    free(secret);
    return NULL;
}

struct pfx_gateway *pfx_gateway_new(const struct pfx_gateway_config *config)
{
    struct pfx_gateway *g = xcalloc(1, sizeof(*g));

    g->url = xstrdup(config->url);
    g->user = xstrdup(config->user);
    g->login = json_http_basic(config->user, config->password);
    g->http = config->http;
    g->budget = config->budget;
    (void)pthread_mutex_init(&g->lock, NULL);
    return g;
}

struct pfx_gateway *pfx_gateway_free(struct pfx_gateway *g)
{
    if (!g)
        return NULL;
    wipe(g->login);
    wipe(g->authorization);
    (void)pthread_mutex_destroy(&g->lock);
    free(g->url);
    free(g->user);
    free(g);
    return NULL;
}

/* ---- one call ---- */

struct request {
    const char *method, *path, *what;
    const json_t *body;
};

/* Sends it with that header of authorization; 200 is success, all else is an error and its kind. */
static struct err *send_once(struct pfx_gateway *g, struct pfx_try *t, const struct request *r,
                             const char *authorization, const char *accept, json_t **ret)
{
    CLEANUP_JSON_HTTP_ANSWER struct json_http_answer a = {0};
    CLEANUP_FREE char *url = xasprintf("%s%s", g->url, r->path);
    const char *const headers[] = {authorization, accept, NULL};
    const struct json_http_call call = {.what = r->what,
                                        .method = r->method,
                                        .url = url,
                                        .headers = headers,
                                        .body = r->body,
                                        .answer_max = LIST_BYTES_MAX,
                                        .deadline_us = t->deadline_us,
                                        .budget = g->budget,
                                        .once = true}; /* status 500 means refusals, too */

    t->kind = PFX_TROUBLE;
    TRY(json_http_sync(g->http, &call, &a));
    if (a.status == 200) {
        *ret = steal(&a.body);
        return NULL;
    }
    struct pfx_failure f = pfx_failure_parse(a.status, a.body);

    t->kind = f.kind;
    return pfx_failure_err(&f, r->what);
}

/* ---- logging in ---- */

/* 4.x wants the token as a bearer's (goscaleio, api.go); until the version is known, and on 3.x, it is a password. */
static char *authorization_of(const struct pfx_gateway *g, const char *token, unsigned major)
{
    return major >= 4 ? xasprintf("Authorization: Bearer %s", token)
                      : json_http_basic(g->user, token);
}

static struct err *check_version(unsigned major, unsigned minor)
{
    if (major < OLDEST)
        return err_new(
            ERR_UNSUPPORTED,
            "the PowerFlex gateway speaks version %u.%u of its API; 3.x and 4.x are needed", major,
            minor);
    if (major > NEWEST)
        log_warning("the PowerFlex gateway speaks version %u.%u of its API, newer than 4.x, with "
                    "which this was made",
                    major, minor);
    return NULL;
}

static struct err *log_in(struct pfx_gateway *g, struct pfx_try *t)
{
    static const struct request login = {"GET", "/api/login",
                                         "cannot log in to the PowerFlex gateway", NULL},
                                version = {"GET", "/api/version",
                                           "cannot ask the PowerFlex gateway for its version",
                                           NULL};
    json_auto_t *token_json = NULL, *version_json = NULL;
    char *token = NULL;
    unsigned major, minor;

    TRY(send_once(g, t, &login, g->login, NULL, &token_json));
    TRY(pfx_token_parse(token_json, &token));
    char *basic = authorization_of(g, token, 0);
    struct err *e = send_once(g, t, &version, basic, NULL, &version_json);

    if (!e)
        e = pfx_version_parse(version_json, &major, &minor);
    if (!e)
        e = check_version(major, minor);
    if (!e) {
        g->authorization = authorization_of(g, token, major);
        g->serial++;
        (void)snprintf(g->accept, sizeof(g->accept), "Accept: application/json;version=%u.%u",
                       major, minor);
    }
    wipe(basic);
    wipe(token);
    return e;
}

struct session {
    char *authorization;
    char accept[64];
    unsigned serial;
};

static struct err *session_take(struct pfx_gateway *g, struct pfx_try *t, struct session *ret)
{
    struct err *e = NULL;

    (void)pthread_mutex_lock(&g->lock);
    if (!g->authorization)
        e = log_in(g, t);
    if (!e) {
        ret->authorization = xstrdup(g->authorization);
        ret->serial = g->serial;
        memcpy(ret->accept, g->accept, sizeof(ret->accept));
    }
    (void)pthread_mutex_unlock(&g->lock);
    return e;
}

/* The token of that session was refused: the next call logs in, unless somebody did already. */
static void session_ended(struct pfx_gateway *g, const struct session *s)
{
    (void)pthread_mutex_lock(&g->lock);
    if (g->serial == s->serial)
        g->authorization = wipe(g->authorization);
    (void)pthread_mutex_unlock(&g->lock);
}

/* ---- calls that are tried again ---- */

static struct err *attempt(struct pfx_gateway *g, struct pfx_try *t, const struct request *r,
                           json_t **ret)
{
    struct err *e = NULL;

    for (int login = 0; login < 2; login++) {
        struct session s = {0};

        err_free(e);
        TRY(session_take(g, t, &s));
        e = send_once(g, t, r, s.authorization, s.accept, ret);
        wipe(s.authorization);
        if (!e || t->kind != PFX_LOGIN)
            return e;
        session_ended(g, &s);
    }
    return e;
}

static struct err *call(struct pfx_gateway *g, struct pfx_try *t, const struct request *r,
                        json_t **ret)
{
    uint64_t patience_us = now_os().mono_us + PATIENCE_US;
    struct retry again = {.deadline_us =
                              patience_us < t->deadline_us ? patience_us : t->deadline_us};

    for (;;) {
        struct err *e = attempt(g, t, r, ret);

        if (!e || t->kind != PFX_TROUBLE || (e->code != ERR_TIMEOUT && e->code != ERR_UNAVAILABLE))
            return e;
        if (!retry_pause(&again, 0))
            return e;
        log_debug("again: %s", e->text);
        err_free(e);
    }
}

/* What came is no answer of a gateway's: the caller is told who sent it. */
static struct err *understood(struct pfx_try *t, struct err *e, const char *what)
{
    if (e)
        t->kind = PFX_TROUBLE;
    return err_wrap(e, "%s", what);
}

/* ---- what is ---- */

static void append_encoded(struct str *s, const char *text)
{
    for (const char *c = text; *c; c++) {
        if (isalnum((unsigned char)*c) || strchr("-_.~", *c))
            str_append_bytes(s, c, 1);
        else
            str_appendf(s, "%%%02X", (unsigned char)*c);
    }
}

struct err *pfx_system_sync(struct pfx_gateway *g, struct pfx_try *t, char ret_id[PFX_ID_SIZE])
{
    static const struct request r = {"GET", "/api/types/System/instances",
                                     "cannot look at the PowerFlex system", NULL};
    json_auto_t *o = NULL;

    TRY(call(g, t, &r, &o));
    return understood(t, pfx_system_parse(o, ret_id), r.what);
}

static struct err *find_named(struct pfx_gateway *g, struct pfx_try *t, const char *path,
                              const char *name, const char *what, char ret_id[PFX_ID_SIZE])
{
    CLEANUP_STR struct str full = {0};
    json_auto_t *o = NULL;

    str_append(&full, path);
    append_encoded(&full, name);
    const struct request r = {"GET", full.data, what, NULL};

    TRY(call(g, t, &r, &o));
    return understood(t, pfx_id_parse(o, ret_id), what);
}

struct err *pfx_pool_sync(struct pfx_gateway *g, struct pfx_try *t, const char *domain,
                          const char *pool, struct pfx_pool *ret)
{
    CLEANUP_FREE char *what = xasprintf("cannot find protection domain '%s'", domain);
    CLEANUP_FREE char *pool_what =
        xasprintf("cannot find storage pool '%s' in protection domain '%s'", pool, domain);
    CLEANUP_FREE char *by_name = NULL, *by_id = NULL;
    struct pfx_pool p = {0};
    json_auto_t *o = NULL;

    TRY(find_named(g, t, "/api/types/Domain/instances/getByName::", domain, what, p.domain));
    by_name = xasprintf("/api/types/Pool/instances/getByName::%s,", p.domain);
    TRY(find_named(g, t, by_name, pool, pool_what, p.id));
    by_id = xasprintf("/api/instances/StoragePool::%s", p.id);
    const struct request r = {"GET", by_id, pool_what, NULL};

    TRY(call(g, t, &r, &o));
    TRY(understood(t, pfx_pool_parse(o, &p.zeros), pool_what));
    *ret = p;
    return NULL;
}

struct err *pfx_sdc_sync(struct pfx_gateway *g, struct pfx_try *t, const char *id,
                         struct pfx_sdc *ret)
{
    CLEANUP_FREE char *path = xasprintf("/api/instances/Sdc::%s", id);
    CLEANUP_FREE char *what = xasprintf("cannot look at SDC %s", id);
    const struct request r = {"GET", path, what, NULL};
    json_auto_t *o = NULL;

    TRY(call(g, t, &r, &o));
    return understood(t, pfx_sdc_parse(o, ret), what);
}

struct err *pfx_sdcs_sync(struct pfx_gateway *g, struct pfx_try *t, struct pfx_sdcs *ret)
{
    static const struct request r = {"GET", "/api/types/Sdc/instances",
                                     "cannot list the SDCs of the PowerFlex system", NULL};
    json_auto_t *o = NULL;

    TRY(call(g, t, &r, &o));
    return understood(t, pfx_sdcs_parse(o, ret), r.what);
}

struct err *pfx_volume_sync(struct pfx_gateway *g, struct pfx_try *t, const char *id,
                            const char *sdc, struct pfx_volume *ret)
{
    CLEANUP_FREE char *path = xasprintf("/api/instances/Volume::%s", id);
    CLEANUP_FREE char *what = xasprintf("cannot look at volume %s", id);
    const struct request r = {"GET", path, what, NULL};
    json_auto_t *o = NULL;

    TRY(call(g, t, &r, &o));
    return understood(t, pfx_volume_parse(o, sdc, ret), what);
}

struct err *pfx_volumes_sync(struct pfx_gateway *g, struct pfx_try *t, const char *sdc,
                             struct pfx_volumes *ret)
{
    static const struct request r = {"GET", "/api/types/Volume/instances",
                                     "cannot list the volumes of the PowerFlex system", NULL};
    json_auto_t *o = NULL;

    TRY(call(g, t, &r, &o));
    return understood(t, pfx_volumes_parse(o, sdc, ret), r.what);
}

struct err *pfx_id_of_name_sync(struct pfx_gateway *g, struct pfx_try *t, const char *name,
                                char ret_id[PFX_ID_SIZE])
{
    CLEANUP_FREE char *what = xasprintf("cannot look for volume %s", name);
    json_auto_t *body = json_pack("{s:s}", "name", name), *o = NULL;
    const struct request r = {"POST", "/api/types/Volume/instances/action/queryIdByKey", what,
                              body};

    TRY(call(g, t, &r, &o));
    return understood(t, pfx_id_parse(o, ret_id), what);
}

/* ---- changes ---- */

struct err *pfx_create_sync(struct pfx_gateway *g, struct pfx_try *t, const struct pfx_pool *pool,
                            const char *name, bool thick, uint64_t size, char ret_id[PFX_ID_SIZE])
{
    CLEANUP_FREE char *kb = xasprintf("%" PRIu64, size >> 10);
    CLEANUP_FREE char *what = xasprintf("cannot create volume %s", name);
    json_auto_t *body =
        json_pack("{s:s, s:s, s:s, s:s, s:s}", "name", name, "protectionDomainId", pool->domain,
                  "storagePoolId", pool->id, "volumeType",
                  thick ? "ThickProvisioned" : "ThinProvisioned", "volumeSizeInKb", kb);
    json_auto_t *o = NULL;
    const struct request r = {"POST", "/api/types/Volume/instances", what, body};

    TRY(call(g, t, &r, &o));
    return understood(t, pfx_created_parse(o, ret_id), what);
}

/* A change of which the answer says nothing that is not looked at afterwards. Takes `body` over. */
static struct err *change(struct pfx_gateway *g, struct pfx_try *t, const char *volume,
                          const char *action, const char *verb, json_t *body)
{
    CLEANUP_FREE char *path = xasprintf("/api/instances/Volume::%s/action/%s", volume, action);
    CLEANUP_FREE char *what = xasprintf("cannot %s volume %s", verb, volume);
    json_auto_t *mine = body, *o = NULL;
    const struct request r = {"POST", path, what, mine};

    return call(g, t, &r, &o);
}

struct err *pfx_map_sync(struct pfx_gateway *g, struct pfx_try *t, const char *volume,
                         const char *sdc)
{
    return change(g, t, volume, "addMappedSdc", "map",
                  json_pack("{s:s, s:s}", "sdcId", sdc, "allowMultipleMappings", "FALSE"));
}

struct err *pfx_unmap_sync(struct pfx_gateway *g, struct pfx_try *t, const char *volume,
                           const char *sdc)
{
    return change(g, t, volume, "removeMappedSdc", "unmap", json_pack("{s:s}", "sdcId", sdc));
}

struct err *pfx_resize_sync(struct pfx_gateway *g, struct pfx_try *t, const char *volume,
                            uint64_t size)
{
    CLEANUP_FREE char *gib = xasprintf("%" PRIu64, size / GIB);

    return change(g, t, volume, "setVolumeSize", "grow", json_pack("{s:s}", "sizeInGB", gib));
}

struct err *pfx_remove_sync(struct pfx_gateway *g, struct pfx_try *t, const char *volume)
{
    return change(g, t, volume, "removeVolume", "remove",
                  json_pack("{s:s}", "removeMode", "ONLY_ME"));
}
