#include "net/http_client.h"

#include "base/now.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

/* Each has a connection of its own; more calls at the same time work, their connections are not kept. */
#define IDLE_MAX 8
#define RETRY_AFTER_MAX 3600u

struct http_client {
    char *ca_file;
    bool direct, insecure;
    pthread_mutex_t lock; /* of the idle ones */
    CURL *idle[IDLE_MAX];
    size_t n_idle;
};

struct transfer {
    const struct http_call *call;
    size_t answer_max, headers_size;
    struct http_answer answer;
    struct err *err; /* why a callback ended it */
    char detail[CURL_ERROR_SIZE];
};

static pthread_once_t curl_once = PTHREAD_ONCE_INIT;

static void curl_init(void)
{
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

struct err *http_client_new(const struct http_client_options *options,
                            struct http_client **ret_client)
{
    (void)pthread_once(&curl_once, curl_init);
    if (options->ca_file && access(options->ca_file, R_OK) < 0)
        return err_new(ERR_INVALID, "cannot read the certificates in %s", options->ca_file);
    struct http_client *c = xcalloc(1, sizeof(*c));

    c->ca_file = xstrdup_null(options->ca_file);
    c->direct = options->direct;
    c->insecure = options->insecure;
    (void)pthread_mutex_init(&c->lock, NULL);
    *ret_client = c;
    return NULL;
}

struct http_client *http_client_free(struct http_client *c)
{
    if (!c)
        return NULL;
    while (c->n_idle)
        curl_easy_cleanup(c->idle[--c->n_idle]);
    (void)pthread_mutex_destroy(&c->lock);
    free(c->ca_file);
    free(c);
    return NULL;
}

void http_answer_done(struct http_answer *a)
{
    str_done(&a->body);
    free(a->header);
    a->header = NULL;
}

/* ---- callbacks ---- */

static size_t on_body(char *bytes, size_t size, size_t n, void *cookie)
{
    struct transfer *t = cookie;

    if (n > t->answer_max - t->answer.body.len) {
        t->err = err_new(ERR_CORRUPT, "the answer is longer than %zu bytes", t->answer_max);
        return CURL_WRITEFUNC_ERROR;
    }
    str_append_bytes(&t->answer.body, bytes, n);
    return n;
}

static void take_retry_after(struct transfer *t, const char *value, size_t n)
{
    unsigned seconds = 0;

    for (size_t i = 0; i < n && value[i] >= '0' && value[i] <= '9'; i++)
        seconds = seconds < RETRY_AFTER_MAX ? seconds * 10 + (unsigned)(value[i] - '0') : seconds;
    t->answer.retry_after_s = seconds < RETRY_AFTER_MAX ? seconds : RETRY_AFTER_MAX;
}

/* The value begins there; 0: it is another header. */
static size_t is_header(const char *bytes, size_t n, const char *name)
{
    size_t end = strlen(name);

    if (n <= end || strncasecmp(bytes, name, end) || bytes[end] != ':')
        return 0;
    for (end++; end < n && (bytes[end] == ' ' || bytes[end] == '\t');)
        end++;
    return end;
}

static void take_kept(struct transfer *t, const char *value, size_t n)
{
    while (n && (value[n - 1] == '\r' || value[n - 1] == '\n' || value[n - 1] == ' '))
        n--;
    free(t->answer.header);
    t->answer.header = xstrndup(value, n);
}

static size_t on_header(char *bytes, size_t size, size_t n, void *cookie)
{
    struct transfer *t = cookie;
    size_t at;

    if (n > HTTP_CLIENT_HEADERS_MAX - t->headers_size) {
        t->err = err_new(ERR_CORRUPT, "the headers of the answer are longer than %u bytes",
                         HTTP_CLIENT_HEADERS_MAX);
        return CURL_WRITEFUNC_ERROR;
    }
    t->headers_size += n;
    if ((at = is_header(bytes, n, "Retry-After")))
        take_retry_after(t, bytes + at, n - at);
    if (t->call->keep_header && (at = is_header(bytes, n, t->call->keep_header)))
        take_kept(t, bytes + at, n - at);
    return n;
}

static int on_progress(void *cookie, curl_off_t a, curl_off_t b, curl_off_t x, curl_off_t y)
{
    const struct transfer *t = cookie;

    return t->call->cancel && atomic_load(t->call->cancel);
}

/* Programs that are started meanwhile do not inherit it. */
static curl_socket_t open_socket(void *cookie, curlsocktype purpose, struct curl_sockaddr *a)
{
    return socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
}

/* ---- handles ---- */

static CURL *take_idle(struct http_client *c)
{
    CURL *easy = NULL;

    (void)pthread_mutex_lock(&c->lock);
    if (c->n_idle)
        easy = c->idle[--c->n_idle];
    (void)pthread_mutex_unlock(&c->lock);
    return easy ? easy : curl_easy_init();
}

/* Options, keys among them, do not outlive the call; connections do. */
static void give_back(struct http_client *c, CURL *easy)
{
    curl_easy_reset(easy);
    (void)pthread_mutex_lock(&c->lock);
    if (c->n_idle < IDLE_MAX)
        c->idle[c->n_idle++] = steal(&easy);
    (void)pthread_mutex_unlock(&c->lock);
    curl_easy_cleanup(easy);
}

/* ---- one call ---- */

static struct err *check_call(const struct http_call *call)
{
    if (!str_has_prefix(call->url, "https://") && !str_has_prefix(call->url, "http://"))
        return err_new(ERR_INVALID, "%s is not the address of an HTTP service", call->url);
    if (call->body_size > HTTP_CLIENT_BODY_MAX)
        return err_new(ERR_INVALID, "the request is longer than %u bytes", HTTP_CLIENT_BODY_MAX);
    for (const char *const *h = call->headers; h && *h; h++) {
        if (strpbrk(*h, "\r\n"))
            return err_new(ERR_INVALID, "a header of the request holds a line break");
    }
    return NULL;
}

static struct curl_slist *make_headers(const struct http_call *call)
{
    struct curl_slist *list = NULL;

    for (const char *const *h = call->headers; h && *h; h++) {
        struct curl_slist *longer = curl_slist_append(list, *h);

        if (!longer)
            mem_exhausted();
        list = longer;
    }
    return list;
}

static bool set_sign(CURL *easy, const struct http_sign *s)
{
    CLEANUP_FREE char *how = xasprintf("aws:amz:%s:%s", s->region, s->service);

    return !curl_easy_setopt(easy, CURLOPT_AWS_SIGV4, how) &&
           !curl_easy_setopt(easy, CURLOPT_USERNAME, s->key_id) &&
           !curl_easy_setopt(easy, CURLOPT_PASSWORD, s->secret);
}

static bool set_method(CURL *easy, const struct http_call *call)
{
    if (call->body)
        return !curl_easy_setopt(easy, CURLOPT_POST, 1L) &&
               !curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)call->body_size) &&
               !curl_easy_setopt(easy, CURLOPT_POSTFIELDS, call->body) &&
               !curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, call->method);
    return !curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L) &&
           !curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, call->method);
}

static bool set_limits(CURL *easy, struct transfer *t)
{
    const struct http_call *call = t->call;
    long ms = (long)(call->timeout_us / USEC_PER_MSEC);
    long connect_ms = HTTP_CLIENT_CONNECT_US / USEC_PER_MSEC;

    return !curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) &&
           !curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, ms > 0 ? ms : 1L) &&
           !curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, connect_ms) &&
           !curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L) &&
           !curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") &&
           !curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1) &&
           !curl_easy_setopt(easy, CURLOPT_HTTP09_ALLOWED, 0L) &&
           !curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, call->once ? 1L : 0L) &&
           !curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED) &&
           !curl_easy_setopt(easy, CURLOPT_NOPROGRESS, 0L) &&
           !curl_easy_setopt(easy, CURLOPT_XFERINFOFUNCTION, on_progress) &&
           !curl_easy_setopt(easy, CURLOPT_XFERINFODATA, t) &&
           !curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, on_body) &&
           !curl_easy_setopt(easy, CURLOPT_WRITEDATA, t) &&
           !curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, on_header) &&
           !curl_easy_setopt(easy, CURLOPT_HEADERDATA, t) &&
           !curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket) &&
           !curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, t->detail);
}

static bool set_tls(CURL *easy, const struct http_client *c)
{
    return !curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2) &&
           !curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, c->insecure ? 0L : 1L) &&
           !curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, c->insecure ? 0L : 2L) &&
           (!c->ca_file || (!curl_easy_setopt(easy, CURLOPT_CAINFO, c->ca_file) &&
                            !curl_easy_setopt(easy, CURLOPT_CAPATH, NULL))) &&
           (!c->direct || !curl_easy_setopt(easy, CURLOPT_PROXY, ""));
}

static struct err *explain(const struct transfer *t, CURLcode rc)
{
    const char *url = t->call->url, *detail = *t->detail ? t->detail : curl_easy_strerror(rc);

    switch (rc) {
    case CURLE_ABORTED_BY_CALLBACK:
        return err_new(ERR_CANCELLED, "the request to %s was cancelled", url);
    case CURLE_OPERATION_TIMEDOUT:
        return err_new(ERR_TIMEOUT, "%s did not answer in time: %s", url, detail);
    case CURLE_COULDNT_RESOLVE_HOST:
        return err_new(ERR_UNAVAILABLE, "the address %s cannot be resolved: %s", url, detail);
    case CURLE_PEER_FAILED_VERIFICATION:
    case CURLE_SSL_CACERT_BADFILE:
        return err_new(ERR_DENIED, "who answers at %s cannot prove to be it: %s", url, detail);
    case CURLE_WEIRD_SERVER_REPLY:
    case CURLE_UNSUPPORTED_PROTOCOL:
    case CURLE_BAD_CONTENT_ENCODING:
        return err_new(ERR_CORRUPT, "what answers at %s is no HTTP service: %s", url, detail);
    case CURLE_URL_MALFORMAT:
        return err_new(ERR_INVALID, "%s is not an address: %s", url, detail);
    default:
        return err_new(ERR_UNAVAILABLE, "%s cannot be reached: %s", url, detail);
    }
}

static struct err *perform(const struct http_client *c, CURL *easy, struct transfer *t)
{
    struct curl_slist *headers = make_headers(t->call);
    long status = 0;

    if (curl_easy_setopt(easy, CURLOPT_URL, t->call->url) ||
        curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers) || !set_limits(easy, t) ||
        !set_tls(easy, c) || !set_method(easy, t->call) ||
        (t->call->sign && !set_sign(easy, t->call->sign))) {
        curl_slist_free_all(headers);
        return err_new(ERR_INTERNAL, "cannot set up a request to %s", t->call->url);
    }
    CURLcode rc = curl_easy_perform(easy);

    (void)curl_easy_getinfo(easy, CURLINFO_RESPONSE_CODE, &status);
    (void)curl_easy_setopt(easy, CURLOPT_HTTPHEADER, NULL);
    curl_slist_free_all(headers);
    if (rc == CURLE_OUT_OF_MEMORY)
        mem_exhausted();
    t->answer.status = (int)status;
    if (t->err)
        return err_wrap(steal(&t->err), "%s", t->call->url);
    return rc ? explain(t, rc) : NULL;
}

struct err *http_client_call_sync(struct http_client *c, const struct http_call *call,
                                  struct http_answer *ret_answer)
{
    struct transfer t = {
        .call = call, .answer_max = call->answer_max ? call->answer_max : HTTP_CLIENT_ANSWER_MAX};

    TRY(check_call(call));
    CURL *easy = take_idle(c);

    if (!easy)
        mem_exhausted();
    struct err *e = perform(c, easy, &t);

    give_back(c, easy);
    if (e) {
        http_answer_done(&t.answer);
        return e;
    }
    *ret_answer = t.answer;
    return NULL;
}
