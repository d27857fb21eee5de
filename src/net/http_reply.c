/* Writing answers. */
#include "net/http_private.h"

#include "base/log.h"
#include "base/now.h"

#include <event2/buffer.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>

const char *http_status_text(unsigned status)
{
    static const struct {
        unsigned status;
        const char *text;
    } words[] = {
        {100, "Continue"},
        {200, "OK"},
        {201, "Created"},
        {202, "Accepted"},
        {204, "No Content"},
        {206, "Partial Content"},
        {301, "Moved Permanently"},
        {302, "Found"},
        {303, "See Other"},
        {304, "Not Modified"},
        {307, "Temporary Redirect"},
        {308, "Permanent Redirect"},
        {400, "Bad Request"},
        {401, "Unauthorized"},
        {403, "Forbidden"},
        {404, "Not Found"},
        {405, "Method Not Allowed"},
        {406, "Not Acceptable"},
        {408, "Request Timeout"},
        {409, "Conflict"},
        {410, "Gone"},
        {411, "Length Required"},
        {412, "Precondition Failed"},
        {413, "Content Too Large"},
        {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"},
        {417, "Expectation Failed"},
        {422, "Unprocessable Content"},
        {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"},
        {500, "Internal Server Error"},
        {501, "Not Implemented"},
        {502, "Bad Gateway"},
        {503, "Service Unavailable"},
        {504, "Gateway Timeout"},
        {505, "HTTP Version Not Supported"},
        {507, "Insufficient Storage"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
        if (words[i].status == status)
            return words[i].text;
    }
    return "Unknown";
}

/* `Sun, 06 Nov 1994 08:49:37 GMT`, whatever the locale. Made once a second. */
static void date_append(struct str *s)
{
    static const char days[] = "SunMonTueWedThuFriSat";
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    static _Thread_local time_t made;
    static _Thread_local char text[64];
    time_t seconds = (time_t)(now_os().wall_us / USEC_PER_SEC);
    struct tm tm;

    if (seconds != made) {
        gmtime_r(&seconds, &tm);
        (void)snprintf(text, sizeof(text), "Date: %.3s, %02d %.3s %d %02d:%02d:%02d GMT\r\n", days + tm.tm_wday * 3,
                       tm.tm_mday, months + tm.tm_mon * 3, tm.tm_year + 1900, tm.tm_hour, tm.tm_min, tm.tm_sec);
        made = seconds;
    }
    str_append(s, text);
}

static void header_append(struct str *s, const char *name, const char *value)
{
    str_append(s, name);
    str_append_bytes(s, ": ", 2);
    str_append(s, value);
    str_append_bytes(s, "\r\n", 2);
}

/* A value with a line break would be a second header, or a second answer. */
static bool header_is_sound(const struct http_header *h)
{
    for (const char *p = h->value; *p; p++) {
        if (((unsigned char)*p < ' ' && *p != '\t') || *p == 0x7f)
            return false;
    }
    return h->name[0] && !strpbrk(h->name, ": \t\r\n");
}

void http_head_write(struct evbuffer *out, unsigned status, const struct http_header *headers,
                     size_t header_count, uint64_t length, bool chunked, bool keep_alive)
{
    CLEANUP_STR struct str s = {0};
    char number[32];
    bool typed = false;

    (void)snprintf(number, sizeof(number), "HTTP/1.1 %u ", status);
    str_append(&s, number);
    str_append(&s, http_status_text(status));
    str_append_bytes(&s, "\r\n", 2);
    date_append(&s);
    for (size_t i = 0; i < header_count; i++) {
        if (!header_is_sound(&headers[i])) {
            log_error("http: left out header %s of an answer: it holds control characters",
                      headers[i].name);
            continue;
        }
        typed = typed || strcasecmp(headers[i].name, "Content-Type") == 0;
        header_append(&s, headers[i].name, headers[i].value);
    }
    if (!typed && (chunked || (length != 0 && length != HTTP_LENGTH_NONE)))
        str_append(&s, "Content-Type: application/json\r\n");
    if (chunked)
        str_append(&s, "Transfer-Encoding: chunked\r\n");
    else if (length != HTTP_LENGTH_NONE) {
        (void)snprintf(number, sizeof(number), "%llu", (unsigned long long)length);
        header_append(&s, "Content-Length", number);
    }
    str_append(&s, keep_alive ? "Connection: keep-alive\r\n\r\n" : "Connection: close\r\n\r\n");
    if (evbuffer_add(out, s.data, s.len) < 0)
        mem_exhausted();
}

/* JSON of any bytes; what is not UTF-8 becomes '?'. */
char *http_error_body(const char *text)
{
    bool utf8 = str_is_utf8(text, strlen(text));
    struct str s = {0};

    str_append(&s, "{\"description\": \"");
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;

        if (c == '"' || c == '\\')
            str_appendf(&s, "\\%c", c);
        else if (c == '\n')
            str_append(&s, "\\n");
        else if (c < ' ')
            str_appendf(&s, "\\u%04x", c);
        else if (c >= 0x80 && !utf8)
            str_append(&s, "?");
        else
            str_append_bytes(&s, p, 1);
    }
    str_append(&s, "\"}");
    return str_steal(&s);
}

static bool status_has_body(unsigned status)
{
    return status >= 200 && status != 204 && status != 304;
}

/* Writes the head; false when nobody waits for it. *ret_body: the body is to follow. */
static bool reply_start(struct http_request *r, unsigned status, const struct http_header *headers,
                        size_t header_count, size_t len, bool *ret_body, bool *ret_keep_alive)
{
    struct http_conn *c = r->conn;

    if (!r->streaming)
        r->status = status;
    if (!c || r->streaming) /* gone; or a second answer, a defect of the caller */
        return false;
    *ret_keep_alive = c->keep_alive && r->head->keep_alive;
    *ret_body = status_has_body(status) && len > 0 && r->head->method != HTTP_HEAD;
    http_head_write(http_conn_output(c), status, headers, header_count,
                    status_has_body(status) ? len : HTTP_LENGTH_NONE, /* chunked= */ false,
                    *ret_keep_alive);
    return true;
}

void http_reply(struct http_request *r, unsigned status, const struct http_header *headers,
                size_t header_count, const void *body, size_t len)
{
    bool with_body, keep_alive;

    if (!reply_start(r, status, headers, header_count, len, &with_body, &keep_alive)) {
        http_drop(r);
        return;
    }
    if (with_body && evbuffer_add(http_conn_output(r->conn), body, len) < 0)
        mem_exhausted();
    http_conn_answered(r->conn, keep_alive);
}

struct shared {
    void (*release)(void *cookie);
    void *cookie;
};

static void shared_release(const void *data, size_t len, void *cookie)
{
    struct shared *shared = cookie;

    shared->release(shared->cookie);
    free(shared);
}

void http_reply_shared(struct http_request *r, unsigned status, const struct http_header *headers,
                       size_t header_count, const void *body, size_t len,
                       void (*release)(void *cookie), void *cookie)
{
    bool with_body, keep_alive;

    if (!reply_start(r, status, headers, header_count, len, &with_body, &keep_alive)) {
        http_drop(r);
        release(cookie);
        return;
    }
    if (with_body) {
        struct shared *shared = xmalloc(sizeof(*shared));

        *shared = (struct shared){release, cookie};
        if (evbuffer_add_reference(http_conn_output(r->conn), body, len, shared_release, shared) <
            0)
            mem_exhausted();
    }
    http_conn_answered(r->conn, keep_alive);
    if (!with_body)
        release(cookie);
}

void http_reply_error(struct http_request *r, unsigned status, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    CLEANUP_FREE char *text = xvasprintf(fmt, ap);
    va_end(ap);
    CLEANUP_FREE char *body = http_error_body(text);
    http_reply(r, status, NULL, 0, body, strlen(body));
}

void http_drop(struct http_request *r)
{
    struct http_conn *c = r->conn;

    if (c)
        http_conn_kill(c); /* takes the request from the connection */
    http_request_free(r);
}

/* ---- streams ---- */

void http_stream_start(struct http_request *r, unsigned status, const struct http_header *headers,
                       size_t header_count)
{
    struct http_conn *c = r->conn;

    if (r->streaming)
        return;
    r->streaming = true;
    r->status = status;
    if (!c)
        return;
    r->chunked = r->head->minor == 1;
    r->body_wanted = r->head->method != HTTP_HEAD && status_has_body(status);
    c->keep_alive = c->keep_alive && r->chunked;
    http_head_write(http_conn_output(c), status, headers, header_count, HTTP_LENGTH_NONE,
                    r->chunked && status_has_body(status), c->keep_alive && r->head->keep_alive);
    c->state = HTTP_STATE_STREAM;
    http_conn_output_grew(c);
}

void http_stream_write(struct http_request *r, const void *bytes, size_t len)
{
    struct http_conn *c = r->conn;

    if (!c || !r->streaming || !r->body_wanted || len == 0)
        return;
    struct evbuffer *out = http_conn_output(c);
    bool ok = true;

    if (r->chunked)
        ok = evbuffer_add_printf(out, "%zx\r\n", len) > 0;
    ok = ok && evbuffer_add(out, bytes, len) == 0;
    if (r->chunked)
        ok = ok && evbuffer_add(out, "\r\n", 2) == 0;
    if (!ok)
        mem_exhausted();
    http_conn_output_grew(c);
}

size_t http_stream_queued(const struct http_request *r)
{
    return r->conn ? evbuffer_get_length(http_conn_output(r->conn)) : 0;
}

static void drained(void *cookie)
{
    struct http_request *r = cookie;
    loop_fn *fn = r->on_drained;

    r->drained_posted = false;
    r->on_drained = NULL;
    fn(r->on_drained_cookie);
}

void http_stream_drained(struct http_request *r)
{
    if (!r->on_drained || r->drained_posted)
        return;
    r->drained_posted = true;
    loop_post(r->loop, drained, r);
}

void http_stream_forget_drained(struct http_request *r)
{
    if (r->drained_posted)
        loop_unpost(r->loop, drained, r);
}

void http_stream_on_drained(struct http_request *r, loop_fn *fn, void *cookie)
{
    r->on_drained = fn;
    r->on_drained_cookie = cookie;
    if (http_stream_queued(r) == 0)
        http_stream_drained(r);
}

void http_stream_end(struct http_request *r)
{
    struct http_conn *c = r->conn;

    if (!c || !r->streaming) {
        http_drop(r);
        return;
    }
    if (r->chunked && r->body_wanted && evbuffer_add(http_conn_output(c), "0\r\n\r\n", 5) < 0)
        mem_exhausted();
    http_conn_answered(c, c->keep_alive && r->head->keep_alive);
}
