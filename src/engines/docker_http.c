#include "engines/docker_http.h"

#include "engines/docker_api.h"

#include <errno.h>
#include <sys/stat.h>

/* 64 MiB: a list of 20,000 containers; nothing that an engine tells us is longer. */
#define BODY_MAX (64u * 1024 * 1024)

struct call {
    const struct docker_request *request;
    CURL *easy;
    struct str body;
    struct docker_lines lines;
    struct err *err; /* why a callback ended the transfer */
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static void curl_init(void)
{
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

void docker_http_init(struct docker_http *h, const char *socket)
{
    *h = (struct docker_http){.socket = xstrdup(socket)};
    (void)pthread_mutex_init(&h->lock, NULL);
}

void docker_http_done(struct docker_http *h)
{
    (void)pthread_mutex_destroy(&h->lock);
    free(h->socket);
}

void docker_response_done(struct docker_response *r)
{
    str_done(&r->body);
}

struct err *docker_lines_feed(struct docker_lines *l, const char *bytes, size_t n,
                              struct err *(*line)(void *cookie, const char *line, size_t n),
                              void *cookie)
{
    while (n) {
        const char *end = memchr(bytes, '\n', n);
        size_t take = end ? (size_t)(end - bytes) : n;

        if (l->rest.len + take > DOCKER_LINE_MAX)
            return err_new(ERR_CORRUPT, "the container engine sent a line of over %u bytes",
                           DOCKER_LINE_MAX);
        str_append_bytes(&l->rest, bytes, take);
        if (!end)
            return NULL;
        bytes += take + 1;
        n -= take + 1;
        while (l->rest.len && l->rest.data[l->rest.len - 1] == '\r')
            l->rest.data[--l->rest.len] = '\0';
        if (l->rest.len)
            TRY(line(cookie, l->rest.data, l->rest.len));
        l->rest.len = 0;
    }
    return NULL;
}

static size_t on_bytes(char *bytes, size_t size, size_t n, void *cookie)
{
    struct call *c = cookie;
    long status = 0;

    (void)curl_easy_getinfo(c->easy, CURLINFO_RESPONSE_CODE, &status);
    if (c->request->line && status == 200) {
        c->err = docker_lines_feed(&c->lines, bytes, n, c->request->line, c->request->cookie);
    } else if (c->body.len + n > BODY_MAX) {
        c->err = err_new(ERR_CORRUPT, "the container engine's answer is over %u bytes", BODY_MAX);
    } else {
        str_append_bytes(&c->body, bytes, n);
    }
    return c->err ? CURL_WRITEFUNC_ERROR : n;
}

static int on_progress(void *cookie, curl_off_t a, curl_off_t b, curl_off_t x, curl_off_t y)
{
    const struct call *c = cookie;

    return c->request->cancel && atomic_load(c->request->cancel);
}

struct err *docker_http_easy(const char *socket, const char *path, CURL **ret_easy)
{
    (void)pthread_once(&curl_once, curl_init);
    CURL *easy = curl_easy_init();
    CLEANUP_FREE char *url = xasprintf("http://docker%s", path);

    if (!easy || curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, socket) ||
        curl_easy_setopt(easy, CURLOPT_URL, url) || curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) ||
        curl_easy_setopt(easy, CURLOPT_PATH_AS_IS, 1L) ||
        curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http") ||
        curl_easy_setopt(easy, CURLOPT_PROXY, "") || /* no proxy of the environment */
        curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT, 10L)) {
        curl_easy_cleanup(easy);
        return err_new(ERR_INTERNAL, "cannot set up a request to the container engine at %s",
                       socket);
    }
    *ret_easy = easy;
    return NULL;
}

static struct err *explain(const struct docker_http *h, const struct docker_request *r, CURL *easy,
                           CURLcode rc)
{
    long os_errno = 0;

    (void)curl_easy_getinfo(easy, CURLINFO_OS_ERRNO, &os_errno);
    switch (rc) {
    case CURLE_ABORTED_BY_CALLBACK:
        return err_new(ERR_CANCELLED, "the request to the container engine was cancelled");
    case CURLE_OPERATION_TIMEDOUT:
        return err_new(r->timeout_s ? ERR_TIMEOUT : ERR_UNAVAILABLE,
                       "the container engine at %s did not answer within %ld seconds", h->socket,
                       r->timeout_s ? r->timeout_s : DOCKER_TIMEOUT_S);
    case CURLE_COULDNT_CONNECT:
        if (os_errno == EACCES || os_errno == EPERM)
            return err_new(ERR_DENIED, "may not open the container engine's socket %s", h->socket);
        return err_new(ERR_UNAVAILABLE,
                       "the container engine does not answer at %s (%s); start it, for example "
                       "with `systemctl start docker`",
                       h->socket, os_errno ? strerrordesc_np((int)os_errno) : "cannot connect");
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
        return err_new(ERR_CORRUPT, "what answers at %s is no container engine", h->socket);
    default:
        return err_new(ERR_UNAVAILABLE, "the container engine at %s broke off: %s", h->socket,
                       curl_easy_strerror(rc));
    }
}

static bool set_options(CURL *easy, struct call *c, struct curl_slist *headers)
{
    const struct docker_request *r = c->request;
    long timeout = r->timeout_s ? r->timeout_s : DOCKER_TIMEOUT_S;
    bool bad = false;

    bad |= curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers) != CURLE_OK;
    if (!streq(r->method, "GET"))
        bad |= curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, r->method) != CURLE_OK;
    if (streq(r->method, "POST"))
        bad |= curl_easy_setopt(easy, CURLOPT_POSTFIELDS, r->body ? r->body : "") != CURLE_OK;
    bad |= curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_bytes) != CURLE_OK;
    bad |= curl_easy_setopt(easy, CURLOPT_WRITEDATA, c) != CURLE_OK;
    if (r->cancel) {
        bad |= curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L) != CURLE_OK;
        bad |= curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress) != CURLE_OK;
        bad |= curl_easy_setopt(easy, CURLOPT_XFERINFODATA, c) != CURLE_OK;
    }
    if (r->stream) {
        bad |= curl_easy_setopt(easy, CURLOPT_LOW_SPEED_LIMIT, 1L) != CURLE_OK;
        bad |= curl_easy_setopt(easy, CURLOPT_LOW_SPEED_TIME, timeout) != CURLE_OK;
    } else {
        bad |= curl_easy_setopt(easy, CURLOPT_TIMEOUT, timeout) != CURLE_OK;
    }
    return !bad;
}

static struct err *call_path(struct docker_http *h, const struct docker_request *request,
                             const char *path, struct docker_response *ret_response)
{
    struct call c = {.request = request};
    struct curl_slist *headers = NULL;
    struct err *e = docker_http_easy(h->socket, path, &c.easy);

    if (e)
        return e;
    headers = curl_slist_append(headers, "Expect:");
    headers = curl_slist_append(headers,
                                request->body ? "Content-Type: application/json" : "Content-Type:");
    if (request->registry_auth) {
        char *line = xasprintf("X-Registry-Auth: %s", request->registry_auth);

        headers = curl_slist_append(headers, line);
        explicit_bzero(line, strlen(line));
        free(line);
    }
    if (set_options(c.easy, &c, headers)) {
        CURLcode rc = curl_easy_perform(c.easy);

        if (rc != CURLE_OK)
            e = c.err ? steal(&c.err) : explain(h, request, c.easy, rc);
    } else {
        e = err_new(ERR_INTERNAL, "cannot set up a request to the container engine at %s",
                    h->socket);
    }
    long status = 0;
    (void)curl_easy_getinfo(c.easy, CURLINFO_RESPONSE_CODE, &status);
    if (!e && (status < 100 || status > 599)) /* libcurl reads what is not HTTP/1 leniently */
        e = err_new(ERR_CORRUPT, "the container engine at %s answers with the status %ld, which is none of HTTP", h->socket,
                    status);
    if (!e) {
        ret_response->status = status;
        ret_response->body = c.body;
        c.body = (struct str){0};
    }
    curl_easy_cleanup(c.easy);
    curl_slist_free_all(headers);
    str_done(&c.body);
    str_done(&c.lines.rest);
    return e;
}

static struct err *negotiate(struct docker_http *h, unsigned *ret_minor)
{
    static const struct docker_request request = {.method = "GET"};
    CLEANUP(docker_response_done) struct docker_response r = {0};

    TRY(call_path(h, &request, "/version", &r));
    if (r.status != 200) {
        CLEANUP_FREE char *text = docker_parse_message(r.body.data, r.body.len);

        return docker_error(r.status, text, "cannot ask the container engine for its version");
    }
    TRY(docker_parse_version(r.body.data, r.body.len, ret_minor));
    (void)pthread_mutex_lock(&h->lock);
    h->api_minor = *ret_minor;
    (void)pthread_mutex_unlock(&h->lock);
    return NULL;
}

static struct err *call_version(struct docker_http *h, const struct docker_request *request,
                                unsigned minor, struct docker_response *ret_response)
{
    CLEANUP_FREE char *path = xasprintf("/v1.%u%s", minor, request->path);

    return call_path(h, request, path, ret_response);
}

struct err *docker_http_call(struct docker_http *h, const struct docker_request *request,
                             struct docker_response *ret_response)
{
    struct docker_response r = {0};

    (void)pthread_mutex_lock(&h->lock);
    unsigned minor = h->api_minor;
    (void)pthread_mutex_unlock(&h->lock);
    if (!minor)
        TRY(negotiate(h, &minor));
    TRY(call_version(h, request, minor, &r));
    if (r.status == 400) {
        /* Maybe the engine was exchanged for one that does not speak our version any more. */
        unsigned again = 0;
        struct err *e = negotiate(h, &again);

        if (!e && again != minor) {
            docker_response_done(&r);
            r = (struct docker_response){0};
            e = call_version(h, request, again, &r);
        }
        if (e) {
            docker_response_done(&r);
            return e;
        }
    }
    *ret_response = r;
    return NULL;
}
