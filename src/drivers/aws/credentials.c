#include "drivers/aws/credentials.h"

#include "base/log.h"
#include "base/now.h"
#include "drivers/durable.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>

#define TOKEN_PATH "/latest/api/token"
#define TOKEN_SECONDS 21600u
#define ROLES "meta-data/iam/security-credentials/"
#define CONTAINER_HOST "http://169.254.170.2"
#define NEAR_TIMEOUT_US 5000000u
#define TEXT_MAX (64u << 10)

/* ---- the metadata service ---- */

struct aws_metadata {
    struct http_client *http;
    char *url;
    pthread_mutex_t lock; /* of the token */
    char *token;
    uint64_t token_until; /* monotonic */
};

struct aws_metadata *aws_metadata_new(struct http_client *http, const char *url)
{
    struct aws_metadata *m = xcalloc(1, sizeof(*m));

    m->http = http;
    m->url = xstrdup(url);
    (void)pthread_mutex_init(&m->lock, NULL);
    return m;
}

struct aws_metadata *aws_metadata_free(struct aws_metadata *m)
{
    if (!m)
        return NULL;
    (void)pthread_mutex_destroy(&m->lock);
    free(m->token);
    free(m->url);
    free(m);
    return NULL;
}

static struct err *near_call(struct http_client *http, const char *method, const char *url,
                             const char *header, struct http_answer *ret)
{
    const char *const headers[] = {header, NULL};

    return http_client_call_sync(http,
                                 &(struct http_call){.method = method,
                                                     .url = url,
                                                     .headers = headers,
                                                     .answer_max = TEXT_MAX,
                                                     .timeout_us = NEAR_TIMEOUT_US},
                                 ret);
}

/* The text of an answer, which must be one line and fit into a header. */
static char *line_of(const struct http_answer *a)
{
    const char *text = a->body.data ? a->body.data : "";

    return xstrndup(text, strcspn(text, "\r\n"));
}

/* The caller holds the lock. */
static struct err *renew_token(struct aws_metadata *m)
{
    CLEANUP_HTTP_ANSWER struct http_answer a = {0};
    CLEANUP_FREE char *url = xasprintf("%s" TOKEN_PATH, m->url);
    CLEANUP_FREE char *header =
        xasprintf("X-aws-ec2-metadata-token-ttl-seconds: %u", TOKEN_SECONDS);

    TRY(err_wrap(near_call(m->http, "PUT", url, header, &a), "instance metadata"));
    if (a.status == 403)
        return err_new(ERR_DENIED, "instance metadata: the service is switched off for this "
                                   "instance (HttpEndpoint); switch it on, or give keys");
    if (a.status != 200 || !a.body.len)
        return err_new(ERR_UNAVAILABLE, "instance metadata: no token, HTTP status %d", a.status);
    free(m->token);
    m->token = line_of(&a);
    m->token_until = now_os().mono_us + (uint64_t)TOKEN_SECONDS / 2 * USEC_PER_SEC;
    return NULL;
}

/* `stale`: this one was refused. */
static struct err *get_token(struct aws_metadata *m, const char *stale, char **ret_token)
{
    struct err *e = NULL;

    (void)pthread_mutex_lock(&m->lock);
    if (!m->token || now_os().mono_us >= m->token_until || (stale && streq(stale, m->token)))
        e = renew_token(m);
    if (!e)
        *ret_token = xstrdup(m->token);
    (void)pthread_mutex_unlock(&m->lock);
    return e;
}

static struct err *get_with(struct aws_metadata *m, const char *path, const char *token,
                            struct http_answer *ret)
{
    CLEANUP_FREE char *url = xasprintf("%s/latest/%s", m->url, path);
    CLEANUP_FREE char *header = xasprintf("X-aws-ec2-metadata-token: %s", token);

    return err_wrap(near_call(m->http, "GET", url, header, ret), "instance metadata");
}

struct err *aws_metadata_get_sync(struct aws_metadata *m, const char *path, char **ret_text)
{
    CLEANUP_FREE char *token = NULL, *second = NULL;
    CLEANUP_HTTP_ANSWER struct http_answer a = {0};

    TRY(get_token(m, NULL, &token));
    TRY(get_with(m, path, token, &a));
    if (a.status == 401) {
        http_answer_done(&a);
        TRY(get_token(m, token, &second));
        TRY(get_with(m, path, second, &a));
    }
    if (a.status == 404)
        return err_new(ERR_NOT_FOUND, "instance metadata: there is no %s", path);
    if (a.status != 200)
        return err_new(a.status == 403 ? ERR_DENIED : ERR_UNAVAILABLE,
                       "instance metadata: HTTP status %d for %s", a.status, path);
    *ret_text = str_steal(&a.body);
    return NULL;
}

/* ---- keys ---- */

struct aws_credentials {
    struct aws_keys fixed;
    char *profile;
    const char *(*env)(const char *name);
    struct http_client *http;
    struct aws_metadata *metadata;
    pthread_mutex_t lock;
    struct aws_keys keys; /* the last ones; id NULL: none, look for some */
};

static const char *system_env(const char *name)
{
    return getenv(name);
}

struct aws_credentials *aws_credentials_new(const struct aws_credentials_config *config)
{
    struct aws_credentials *c = xcalloc(1, sizeof(*c));

    if (config->keys.id)
        aws_keys_copy(&c->fixed, &config->keys);
    c->profile = xstrdup_null(config->profile);
    c->env = config->env ? config->env : system_env;
    c->http = config->http;
    c->metadata = config->metadata;
    (void)pthread_mutex_init(&c->lock, NULL);
    return c;
}

struct aws_credentials *aws_credentials_free(struct aws_credentials *c)
{
    if (!c)
        return NULL;
    (void)pthread_mutex_destroy(&c->lock);
    aws_keys_done(&c->fixed);
    aws_keys_done(&c->keys);
    free(c->profile);
    free(c);
    return NULL;
}

/* A variable that is set and not empty, or NULL. */
static const char *variable(const struct aws_credentials *c, const char *name)
{
    const char *v = c->env(name);

    return v && *v ? v : NULL;
}

static struct err *from_config(struct aws_credentials *c, struct aws_keys *ret)
{
    if (c->fixed.id)
        aws_keys_copy(ret, &c->fixed);
    return NULL;
}

static struct err *from_environment(struct aws_credentials *c, struct aws_keys *ret)
{
    const char *id = variable(c, "AWS_ACCESS_KEY_ID");
    const char *secret = variable(c, "AWS_SECRET_ACCESS_KEY");
    const char *token = variable(c, "AWS_SESSION_TOKEN");

    if (!id && !secret)
        return NULL;
    struct aws_keys k = {(char *)id, (char *)secret, (char *)token, 0};

    if (!aws_keys_are_sane(&k))
        return err_new(ERR_DENIED,
                       "the access key in the environment is incomplete or cannot be one: "
                       "check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
    aws_keys_copy(ret, &k);
    return NULL;
}

/* Without the profile or the file, but asked for by name: an error; else the next place. */
static struct err *from_file(struct aws_credentials *c, struct aws_keys *ret)
{
    const char *named = variable(c, "AWS_SHARED_CREDENTIALS_FILE"), *home = variable(c, "HOME");
    const char *wanted = c->profile ? c->profile : variable(c, "AWS_PROFILE");
    CLEANUP_FREE char *path = named  ? xstrdup(named)
                              : home ? xasprintf("%s/.aws/credentials", home)
                                     : NULL;
    CLEANUP_FREE char *text = NULL;

    if (path)
        TRY(file_read(AT_FDCWD, path, AWS_KEYS_BYTES_MAX, &text));
    if (!text)
        return wanted ? err_new(ERR_DENIED, "profile %s: there is no file of credentials at %s",
                                wanted, path ? path : "~/.aws/credentials")
                      : NULL;
    struct err *e = aws_keys_of_profile(text, wanted ? wanted : "default", ret);

    explicit_bzero(text, strlen(text));
    if (err_is(e, ERR_NOT_FOUND) && !wanted)
        e = err_free(e);
    return err_wrap(e, "%s", path);
}

static struct err *container_token(struct aws_credentials *c, char **ret_header)
{
    const char *file = variable(c, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    const char *token = variable(c, "AWS_CONTAINER_AUTHORIZATION_TOKEN");
    CLEANUP_FREE char *text = NULL;

    if (file) {
        TRY(file_read(AT_FDCWD, file, TEXT_MAX, &text));
        if (!text)
            return err_new(ERR_DENIED,
                           "there is no file %s (AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE)", file);
        text[strcspn(text, "\r\n")] = '\0';
        token = text;
    }
    *ret_header = token ? xasprintf("Authorization: %s", token) : NULL;
    return NULL;
}

static struct err *from_container(struct aws_credentials *c, struct aws_keys *ret)
{
    const char *relative = variable(c, "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    const char *full = variable(c, "AWS_CONTAINER_CREDENTIALS_FULL_URI");
    CLEANUP_HTTP_ANSWER struct http_answer a = {0};
    CLEANUP_FREE char *header = NULL;

    if (!relative && !full)
        return NULL;
    CLEANUP_FREE char *url = relative ? xasprintf(CONTAINER_HOST "%s", relative) : xstrdup(full);

    if (!aws_container_url_is_safe(url))
        return err_new(ERR_DENIED,
                       "%s is no place to get access keys from: it must be https, or on "
                       "this host",
                       url);
    TRY(container_token(c, &header));
    TRY(err_wrap(near_call(c->http, "GET", url, header, &a), "access keys of the container"));
    if (a.status != 200)
        return err_new(ERR_DENIED, "access keys of the container: HTTP status %d from %s", a.status,
                       url);
    return err_wrap(aws_keys_parse(a.body.data ? a.body.data : "", a.body.len, ret), "%s", url);
}

static bool is_role(const char *s)
{
    return *s && strlen(s) < 128 &&
           !s[strspn(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+=,.@_-")];
}

static struct err *from_instance(struct aws_credentials *c, struct aws_keys *ret)
{
    CLEANUP_FREE char *role = NULL;
    CLEANUP_FREE char *text = NULL;

    TRY(aws_metadata_get_sync(c->metadata, ROLES, &role));
    role[strcspn(role, "\r\n")] = '\0';
    if (!is_role(role))
        return err_new(ERR_CORRUPT, "instance metadata: the name of the role cannot be one");
    CLEANUP_FREE char *path = xasprintf(ROLES "%s", role);

    TRY(aws_metadata_get_sync(c->metadata, path, &text));
    struct err *e = aws_keys_parse(text, strlen(text), ret);

    explicit_bzero(text, strlen(text));
    return err_wrap(e, "role %s of the instance", role);
}

static struct err *look_for_keys(struct aws_credentials *c, struct aws_keys *ret)
{
    static struct err *(*const places[])(struct aws_credentials *, struct aws_keys *) = {
        from_config, from_environment, from_file, from_container};

    for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
        TRY(places[i](c, ret));
        if (ret->id)
            return NULL;
    }
    struct err *e = from_instance(c, ret);

    if (!e)
        return NULL;
    CLEANUP_ERR struct err *why = e;
    return err_new(
        ERR_DENIED,
        "no access keys for AWS: none in agent.yml (access_key_id), in the environment or a "
        "credentials file, none of a container, and no role of the instance (%s)",
        why->text);
}

/* The caller holds the lock. */
static struct err *refresh(struct aws_credentials *c)
{
    CLEANUP_AWS_KEYS struct aws_keys fresh = {0};
    uint64_t now = now_os().wall_us;

    if (c->keys.id && (!c->keys.expires_us || now + AWS_KEYS_REFRESH_US < c->keys.expires_us))
        return NULL;
    struct err *e = look_for_keys(c, &fresh);

    if (e && c->keys.id && now < c->keys.expires_us) {
        log_warning("the access keys for AWS end soon and cannot be renewed: %s", e->text);
        err_free(e);
        return NULL;
    }
    if (e)
        return e;
    aws_keys_done(&c->keys);
    c->keys = fresh;
    fresh = (struct aws_keys){0};
    return NULL;
}

struct err *aws_credentials_get_sync(struct aws_credentials *c, struct aws_keys *ret_keys)
{
    (void)pthread_mutex_lock(&c->lock);
    struct err *e = refresh(c);

    if (!e)
        aws_keys_copy(ret_keys, &c->keys);
    (void)pthread_mutex_unlock(&c->lock);
    return e;
}

void aws_credentials_refused(struct aws_credentials *c, const struct aws_keys *keys)
{
    (void)pthread_mutex_lock(&c->lock);
    if (c->keys.id && streq(c->keys.id, keys->id) && streq(c->keys.secret, keys->secret) &&
        str_equal_null(c->keys.token, keys->token))
        aws_keys_done(&c->keys);
    (void)pthread_mutex_unlock(&c->lock);
}
