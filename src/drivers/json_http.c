#include "drivers/json_http.h"

#include "base/log.h"
#include "base/now.h"
#include "drivers/wait.h"

#include <openssl/evp.h>
#include <string.h>

#define MESSAGE_MAX 400
#define HEADERS_MAX 32u

/* ---- bytes ---- */

struct err *json_http_parse(const char *bytes, size_t n, json_t **ret_json)
{
    json_error_t why;
    size_t values = 1;

    /* Each value but the first has one of these before it; those in texts count, too. */
    for (size_t i = 0; i < n; i++)
        values += bytes[i] == ',' || bytes[i] == '[' || bytes[i] == '{';
    if (values > JSON_HTTP_VALUES_MAX)
        return err_new(ERR_CORRUPT, "the answer holds more than %u values", JSON_HTTP_VALUES_MAX);
    *ret_json = json_loadb(bytes, n, JSON_DECODE_ANY | JSON_REJECT_DUPLICATES, &why);
    if (!*ret_json)
        return err_new(ERR_CORRUPT, "the answer is not JSON: %s (line %d)", why.text, why.line);
    return NULL;
}

const char *json_http_message(const json_t *body)
{
    static const char *const keys[] = {"message", "error_description", "detail", "error"};
    const char *found = NULL, *key;
    json_t *value;

    if (!json_is_object(body))
        return json_string_value(body);
    for (size_t i = 0; i < ARRAY_SIZE(keys) && !found; i++)
        found = json_string_value(json_object_get(body, keys[i]));
    if (found || json_object_size(body) != 1)
        return found;
    json_object_foreach ((json_t *)body, key, value) /* just one */
        found = json_string_value(json_object_get(value, "message"));
    return found;
}

char *json_http_basic(const char *user, const char *password)
{
    static const char name[] = "Authorization: Basic ";
    char *both = xasprintf("%s:%s", user, password);
    size_t n = strlen(both), at = sizeof(name) - 1;
    char *header = xmalloc(at + (n + 2) / 3 * 4 + 1);

    memcpy(header, name, at);
    (void)EVP_EncodeBlock((unsigned char *)header + at, (const unsigned char *)both, (int)n);
    explicit_bzero(both, n);
    free(both);
    return header;
}

/* ---- answers ---- */

void json_http_answer_done(struct json_http_answer *a)
{
    json_decref(a->body);
    free(a->header);
    *a = (struct json_http_answer){0};
}

static enum err_code code_of(int status)
{
    switch (status) {
    case 401:
    case 403:
        return ERR_DENIED;
    case 404:
    case 410:
        return ERR_NOT_FOUND;
    case 409:
        return ERR_CONFLICT;
    case 413:
    case 507:
        return ERR_NO_SPACE;
    default:
        return status >= 400 && status < 500 && status != 429 ? ERR_INVALID : ERR_UNAVAILABLE;
    }
}

/* One line of text, shortened. */
static char *for_people(const char *message)
{
    char *text = xstrndup(message, MESSAGE_MAX);

    for (char *c = text; *c; c++)
        *c = (unsigned char)*c < ' ' || *c == 0x7f ? ' ' : *c;
    return text;
}

struct err *json_http_failure(const struct json_http_answer *a, const char *what)
{
    const char *message = json_http_message(a->body);

    if (!message || !*message)
        return err_new(code_of(a->status), "%s: refused with status %d", what, a->status);
    CLEANUP_FREE char *text = for_people(message);

    return err_new(code_of(a->status), "%s: %s (status %d)", what, text, a->status);
}

static struct err *take(struct http_answer *from, struct json_http_answer *ret)
{
    struct json_http_answer a = {.status = from->status};

    if (from->body.len) {
        struct err *e = json_http_parse(from->body.data, from->body.len, &a.body);

        if (e && from->status < 300)
            return e;
        err_free(e); /* a proxy's page, say: the status tells enough */
    }
    a.header = steal(&from->header);
    *ret = a;
    return NULL;
}

/* ---- calls ---- */

/* May the call be tried again after this? *ret_asked_s: what the other side asks to wait. */
static bool may_repeat(const struct json_http_call *call, const struct err *e,
                       const struct http_answer *a, unsigned *ret_asked_s)
{
    *ret_asked_s = 0;
    if (e)
        return !call->once && (e->code == ERR_TIMEOUT || e->code == ERR_UNAVAILABLE);
    *ret_asked_s = a->retry_after_s;
    if (a->status == 429 || a->status == 503 || (a->status == 413 && a->retry_after_s))
        return true;
    return !call->once && (a->status == 500 || a->status == 502 || a->status == 504);
}

static struct err *try_until(struct http_client *http, const struct json_http_call *call,
                             struct http_call *raw, struct http_answer *ret)
{
    struct retry r = {.deadline_us = call->deadline_us};
    unsigned asked;

    for (;;) {
        struct http_answer a = {0};

        TRY(budget_take_sync(call->budget, call->deadline_us, call->cancel));
        raw->timeout_us = retry_time_us(&r, JSON_HTTP_TRY_US);
        struct err *e = http_client_call_sync(http, raw, &a);

        if (!e && (a.status == 429 || (a.status == 413 && a.retry_after_s)))
            budget_throttled(call->budget, a.retry_after_s * (uint64_t)USEC_PER_SEC);
        if (!may_repeat(call, e, &a, &asked) || !retry_pause(&r, asked)) {
            if (!e)
                *ret = a;
            return e;
        }
        if (e)
            log_debug("%s: again: %s", call->what, e->text);
        else
            log_debug("%s: again: status %d", call->what, a.status);
        err_free(e);
        http_answer_done(&a);
    }
}

/* The headers of the call, and those that say that it is JSON. */
static struct err *all_headers(const struct json_http_call *call,
                               const char *ret[static HEADERS_MAX])
{
    unsigned n = 0;

    ret[n++] = "Accept: application/json";
    if (call->body)
        ret[n++] = "Content-Type: application/json";
    for (const char *const *h = call->headers; h && *h; h++) {
        if (n + 1 >= HEADERS_MAX)
            return err_new(ERR_INVALID, "over %u headers in a request", HEADERS_MAX);
        ret[n++] = *h;
    }
    ret[n] = NULL;
    return NULL;
}

static struct err *call_sync(struct http_client *http, const struct json_http_call *call,
                             const char *body, struct json_http_answer *ret)
{
    CLEANUP_HTTP_ANSWER struct http_answer a = {0};
    const char *headers[HEADERS_MAX];
    struct http_call raw = {.method = call->method,
                            .url = call->url,
                            .headers = headers,
                            .body = body,
                            .body_size = body ? strlen(body) : 0,
                            .once = call->once,
                            .keep_header = call->keep_header,
                            .answer_max =
                                call->answer_max ? call->answer_max : JSON_HTTP_ANSWER_MAX,
                            .cancel = call->cancel};

    TRY(all_headers(call, headers));
    TRY(try_until(http, call, &raw, &a));
    return take(&a, ret);
}

struct err *json_http_sync(struct http_client *http, const struct json_http_call *call,
                           struct json_http_answer *ret_answer)
{
    char *body = call->body ? json_dumps(call->body, JSON_COMPACT | JSON_ENCODE_ANY) : NULL;

    if (call->body && !body)
        mem_exhausted();
    struct err *e = call_sync(http, call, body, ret_answer);

    if (body)
        explicit_bzero(body, strlen(body)); /* it may hold a password */
    free(body);
    return err_wrap(e, "%s", call->what);
}
