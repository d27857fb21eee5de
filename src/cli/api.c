#include "cli/api.h"

#include "base/log.h"
#include "base/str.h"
#include "cli/api_answer.h"
#include "cli/ca_x509.h"
#include "cli/pair_file.h"

#include <curl/curl.h>
#include <errno.h>
#include <unistd.h>

#define SERVER_NAME "control-service"
#define CONNECT_TIMEOUT_S 10L
#define CALL_TIMEOUT_S 60L
#define SILENCE_S 90L /* of a stream; the server says something every 30 s */
#define ANSWER_MAX (256u << 20) /* a list of a million datasets; more is not believed */

struct api {
    CURL *curl;
    struct curl_slist *connect_to;
    struct curl_slist *headers;
    char *peer; /* "host:port", for messages */
    char *certificate;
    uint16_t port;
    char error[CURL_ERROR_SIZE];
};

/* What can be seen of wrong certificates here is said here: from the server comes only a closed
 * connection. */
static struct err *check_files(const struct api_config *c)
{
    static const char where[] =
        "copy it from where flocker-ca initialize was run, or say where it is "
        "with --certs-path and --cluster-crt";
    static const char make[] =
        "make one with flocker-ca create-api-certificate, or say where it is "
        "with --certs-path and --user";
    CLEANUP_FREE char *authority = NULL;
    CLEANUP_FREE char *certificate = NULL;

    CLEANUP_ERR struct err *e =
        text_file_read("Cannot read the cluster's certificate.", c->authority, &authority);
    if (e)
        return err_new(e->code, "%s; %s", e->text, where);
    e = text_file_read("Cannot read the user's certificate.", c->certificate, &certificate);
    if (e)
        return err_new(e->code, "%s; %s", e->text, make);
    if (access(c->key, R_OK) < 0)
        return err_new(ERR_NOT_FOUND, "Cannot read the user's key. %s: %s; %s", strerror(errno),
                       c->key, make);
    e = ca_check_user(certificate, authority);
    if (e)
        return err_new(e->code, "cannot use %s with %s: %s", c->certificate, c->authority, e->text);
    return NULL;
}

static bool global_ready(void)
{
    static bool ready;

    if (!ready)
        ready = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK;
    return ready;
}

static size_t take_bytes(char *data, size_t size, size_t n, void *cookie)
{
    struct str *body = cookie;

    (void)size; /* always 1 */
    if (body->len + n > ANSWER_MAX)
        return 0; /* makes libcurl give up */
    str_append_bytes(body, data, n);
    return n;
}

static bool set_options(struct api *r, const struct api_config *c)
{
    CURL *h = r->curl;
    CURLcode bad = CURLE_OK;

    bad |= curl_easy_setopt(h, CURLOPT_ERRORBUFFER, r->error);
    bad |= curl_easy_setopt(h, CURLOPT_PROTOCOLS_STR, "https");
    bad |= curl_easy_setopt(h, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    bad |= curl_easy_setopt(h, CURLOPT_CONNECT_TO, r->connect_to);
    bad |= curl_easy_setopt(h, CURLOPT_HTTPHEADER, r->headers);
    /* A proxy of the environment must not see the cluster. */
    bad |= curl_easy_setopt(h, CURLOPT_PROXY, "");
    bad |= curl_easy_setopt(h, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    bad |= curl_easy_setopt(h, CURLOPT_SSL_VERIFYPEER, 1L);
    bad |= curl_easy_setopt(h, CURLOPT_SSL_VERIFYHOST, 2L);
    /* The cluster's authority and no other: not the system's either. */
    bad |= curl_easy_setopt(h, CURLOPT_CAINFO, c->authority);
    bad |= curl_easy_setopt(h, CURLOPT_CAPATH, NULL);
    bad |= curl_easy_setopt(h, CURLOPT_SSLCERT, c->certificate);
    bad |= curl_easy_setopt(h, CURLOPT_SSLKEY, c->key);
    bad |= curl_easy_setopt(h, CURLOPT_CONNECTTIMEOUT, CONNECT_TIMEOUT_S);
    bad |= curl_easy_setopt(h, CURLOPT_TIMEOUT, CALL_TIMEOUT_S);
    bad |= curl_easy_setopt(h, CURLOPT_WRITEFUNCTION, take_bytes);
    return bad == CURLE_OK;
}

struct err *api_open(const struct api_config *config, struct api **ret_api)
{
    TRY(check_files(config));
    struct api *r = xcalloc(1, sizeof(*r));
    /* An IPv6 address needs its brackets. */
    bool colon = strchr(config->host, ':') && config->host[0] != '[';
    r->peer =
        xasprintf("%s%s%s:%u", colon ? "[" : "", config->host, colon ? "]" : "", config->port);
    r->port = config->port;
    r->certificate = xstrdup(config->certificate);
    r->curl = global_ready() ? curl_easy_init() : NULL;
    CLEANUP_FREE char *to = xasprintf(SERVER_NAME ":%u:%s", config->port, r->peer);
    r->connect_to = curl_slist_append(NULL, to);
    r->headers = curl_slist_append(NULL, "Content-Type: application/json");
    if (!r->curl || !r->connect_to || !r->headers || !set_options(r, config)) {
        api_free(r);
        return err_new(ERR_INTERNAL, "cannot prepare libcurl");
    }
    *ret_api = r;
    return NULL;
}

struct api *api_free(struct api *r)
{
    if (!r)
        return NULL;
    curl_easy_cleanup(r->curl);
    curl_slist_free_all(r->connect_to);
    curl_slist_free_all(r->headers);
    free(r->peer);
    free(r->certificate);
    free(r);
    return NULL;
}

static struct err *transport_err(const struct api *r, CURLcode code)
{
    const char *detail = r->error[0] ? r->error : curl_easy_strerror(code);

    switch (code) {
    case CURLE_PEER_FAILED_VERIFICATION:
        return err_new(ERR_DENIED,
                       "%s did not prove to be the control service of this cluster: %s; check that "
                       "cluster.crt is this cluster's and that the address is right",
                       r->peer, detail);
    case CURLE_SSL_CERTPROBLEM:
    case CURLE_SSL_CACERT_BADFILE:
        return err_new(ERR_INVALID, "cannot use the certificates: %s", detail);
    case CURLE_OPERATION_TIMEDOUT:
        return err_new(ERR_UNAVAILABLE, "the control service at %s did not answer in time: %s",
                       r->peer, detail);
    case CURLE_WRITE_ERROR:
        return err_new(ERR_CORRUPT, "the answer of %s is longer than %u MiB", r->peer,
                       ANSWER_MAX >> 20);
    default:
        break;
    }
    if (strstr(detail, "alert"))
        return err_new(
            ERR_DENIED,
            "%s refused the certificate %s: %s; it must be a user's certificate, signed by "
            "the same cluster authority",
            r->peer, r->certificate, detail);
    /* With TLS 1.3 a refusal comes after the handshake, and its alert may be lost with the
     * connection. */
    if (code == CURLE_SEND_ERROR || code == CURLE_RECV_ERROR || code == CURLE_GOT_NOTHING)
        return err_new(
            ERR_UNAVAILABLE,
            "the control service at %s closed the connection without an answer (%s); it is "
            "just being restarted, or it refuses the certificate %s",
            r->peer, detail, r->certificate);
    return err_new(ERR_UNAVAILABLE,
                   "cannot reach the control service at %s: %s; check the address and that "
                   "flocker-control runs there",
                   r->peer, detail);
}

struct err *api_exchange(struct api *r, const char *method, const char *path, const json_t *body,
                         struct str *text, long *ret_status)
{
    CLEANUP_FREE char *url = xasprintf("https://" SERVER_NAME ":%u%s", r->port, path);
    CLEANUP_FREE char *bytes = body ? json_dumps(body, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;
    CURLcode bad = CURLE_OK;

    /* Back to GET first: libcurl remembers what the last call was. */
    bad |= curl_easy_setopt(r->curl, CURLOPT_HTTPGET, 1L);
    /* libcurl repeats a request whose re-used connection dies; a creation must not happen twice. */
    bad |= curl_easy_setopt(r->curl, CURLOPT_FRESH_CONNECT, bytes ? 1L : 0L);
    if (bytes) {
        bad |= curl_easy_setopt(r->curl, CURLOPT_POSTFIELDSIZE, (long)strlen(bytes));
        bad |= curl_easy_setopt(r->curl, CURLOPT_POSTFIELDS, bytes);
    }
    bad |= curl_easy_setopt(r->curl, CURLOPT_CUSTOMREQUEST, method);
    bad |= curl_easy_setopt(r->curl, CURLOPT_URL, url);
    bad |= curl_easy_setopt(r->curl, CURLOPT_WRITEDATA, text);
    if (bad != CURLE_OK)
        return err_new(ERR_INTERNAL, "cannot prepare the call of %s", path);
    r->error[0] = '\0';
    CURLcode code = curl_easy_perform(r->curl);
    if (code != CURLE_OK)
        return transport_err(r, code);
    (void)curl_easy_getinfo(r->curl, CURLINFO_RESPONSE_CODE, ret_status);
    return NULL;
}

struct err *api_call(struct api *r, const char *method, const char *path, const json_t *body,
                     json_t **ret_answer)
{
    CLEANUP_STR struct str text = {0};
    struct api_answer a = {.peer = r->peer, .method = method, .path = path};

    curl_off_t retry_after = 0;

    TRY(api_exchange(r, method, path, body, &text, &a.status));
    (void)curl_easy_getinfo(r->curl, CURLINFO_RETRY_AFTER, &retry_after);
    a.passes = retry_after > 0;
    log_debug("%s %s: status %ld, %zu bytes", method, path, a.status, text.len);
    a.text = text.data ? text.data : "";
    a.n = text.len;
    return api_answer_read(&a, ret_answer);
}

struct following {
    CURL *curl;
    struct sse *sse;
    struct str refusal; /* body of an answer that is no stream */
    bool began, bad;
};

static size_t take_stream(char *data, size_t size, size_t n, void *cookie)
{
    struct following *f = cookie;
    long status = 0;

    (void)size; /* always 1 */
    (void)curl_easy_getinfo(f->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status != 200) {
        if (f->refusal.len + n > SSE_LINE_MAX)
            return 0;
        str_append_bytes(&f->refusal, data, n);
        return n;
    }
    f->began = true;
    f->bad = !sse_feed(f->sse, data, n);
    return f->bad ? 0 : n;
}

static struct err *follow(struct api *r, const char *path, struct following *f)
{
    CLEANUP_FREE char *url = xasprintf("https://" SERVER_NAME ":%u%s", r->port, path);
    CLEANUP_FREE char *last = f->sse->id.len ? xasprintf("Last-Event-ID: %s", f->sse->id.data) : NULL;
    struct curl_slist *headers = last ? curl_slist_append(NULL, last) : NULL;
    struct api_answer a = {.peer = r->peer, .method = "GET", .path = path, .text = ""};
    CURLcode bad = CURLE_OK;

    bad |= curl_easy_setopt(f->curl, CURLOPT_HTTPGET, 1L);
    bad |= curl_easy_setopt(f->curl, CURLOPT_URL, url);
    bad |= curl_easy_setopt(f->curl, CURLOPT_HTTPHEADER, headers);
    bad |= curl_easy_setopt(f->curl, CURLOPT_TIMEOUT, 0L);
    bad |= curl_easy_setopt(f->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    bad |= curl_easy_setopt(f->curl, CURLOPT_LOW_SPEED_TIME, SILENCE_S);
    bad |= curl_easy_setopt(f->curl, CURLOPT_WRITEFUNCTION, take_stream);
    bad |= curl_easy_setopt(f->curl, CURLOPT_WRITEDATA, f);
    r->error[0] = '\0';
    CURLcode code = bad == CURLE_OK ? curl_easy_perform(f->curl) : CURLE_FAILED_INIT;
    curl_slist_free_all(headers);
    if (f->bad)
        return err_new(ERR_CORRUPT, "%s sends events with lines longer than %u bytes", r->peer, SSE_LINE_MAX);
    if (code != CURLE_OK)
        return transport_err(r, code);
    (void)curl_easy_getinfo(f->curl, CURLINFO_RESPONSE_CODE, &a.status);
    if (a.status == 200)
        return NULL;
    if (f->refusal.len) {
        a.text = f->refusal.data;
        a.n = f->refusal.len;
    }
    json_t *answer = NULL;
    struct err *e = api_answer_read(&a, &answer);
    json_decref(answer);
    return e ? e : err_new(ERR_UNSUPPORTED, "%s has no stream of events", r->peer);
}

struct err *api_follow(struct api *r, const char *path, struct sse *s, bool *ret_began)
{
    struct following f = {.curl = curl_easy_duphandle(r->curl), .sse = s};

    *ret_began = false;
    if (!f.curl)
        return err_new(ERR_INTERNAL, "cannot prepare libcurl");
    struct err *e = follow(r, path, &f);
    *ret_began = f.began;
    curl_easy_cleanup(f.curl);
    str_done(&f.refusal);
    return e;
}
