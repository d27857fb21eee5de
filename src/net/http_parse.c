#include "net/http_parse.h"

#include <strings.h>

#define REFUSE(code, why) ((struct http_refusal){(code), (why)})
#define ACCEPTED ((struct http_refusal){0})

/* tchar of RFC 9110 section 5.6.2. */
static bool is_token_char(unsigned char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
           (c && strchr("!#$%&'*+-.^_`|~", c));
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

char *http_percent_decode(const char *s, size_t n, bool plus)
{
    CLEANUP_FREE char *out = xmalloc(n + 1);
    size_t used = 0;

    for (size_t i = 0; i < n; i++) {
        char c = s[i];

        if (c == '%') {
            int high = i + 2 < n ? hex_digit(s[i + 1]) : -1;
            int low = i + 2 < n ? hex_digit(s[i + 2]) : -1;

            if (high < 0 || low < 0)
                return NULL;
            c = (char)(high * 16 + low);
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        if (c == '\0')
            return NULL;
        out[used++] = c;
    }
    out[used] = '\0';
    return steal(&out);
}

size_t http_head_find(const char *bytes, size_t n, size_t *scanned,
                      struct http_refusal *ret_refusal)
{
    size_t at = *scanned;

    while (at < n) {
        const char *nl = memchr(bytes + at, '\n', n - at);

        if (!nl)
            break;
        size_t i = (size_t)(nl - bytes);
        if (i == 0 || bytes[i - 1] != '\r') {
            *ret_refusal = REFUSE(400, "A line of the request does not end with CR LF.");
            return 0;
        }
        at = i + 1;
        if (i >= 3 && bytes[i - 2] == '\n') {
            *scanned = 0;
            return at;
        }
    }
    *scanned = n;
    return 0;
}

/* ---- the request line ---- */

static const char *const method_names[] = {
    [HTTP_GET] = "GET",     [HTTP_HEAD] = "HEAD",     [HTTP_POST] = "POST",
    [HTTP_PUT] = "PUT",     [HTTP_DELETE] = "DELETE", [HTTP_OPTIONS] = "OPTIONS",
    [HTTP_PATCH] = "PATCH", [HTTP_TRACE] = "TRACE",   [HTTP_QUERY] = "QUERY",
};

const char *http_method_name(enum http_method m)
{
    return method_names[m];
}

static struct http_refusal method_parse(struct http_head *h, const char *word)
{
    for (size_t i = 0; i < ARRAY_SIZE(method_names); i++) {
        if (streq(word, method_names[i])) {
            h->method = (enum http_method)i;
            return ACCEPTED;
        }
    }
    for (const char *p = word; *p; p++) {
        if (!is_token_char((unsigned char)*p))
            return REFUSE(400, "The request does not begin with an HTTP method.");
    }
    return REFUSE(501, "The method is not supported.");
}

static struct http_refusal target_parse(struct http_head *h, char *target)
{
    static char root[] = "/";

    for (const char *p = target; *p; p++) {
        if ((unsigned char)*p <= ' ' || *p == 0x7f)
            return REFUSE(400, "The request target holds a control character.");
    }
    if (strncasecmp(target, "http://", 7) == 0 || strncasecmp(target, "https://", 8) == 0) {
        target = strchr(target, ':') + 3;
        target += strcspn(target, "/?");
        if (*target == '?')
            return REFUSE(400, "The request target has no path.");
        if (!*target)
            target = root;
    }
    if (*target != '/' && !(streq(target, "*") && h->method == HTTP_OPTIONS))
        return REFUSE(400, "The request target is not a path.");
    h->raw_path = target;
    h->query = target + strcspn(target, "?");
    if (*h->query)
        *h->query++ = '\0';
    h->path = http_percent_decode(h->raw_path, strlen(h->raw_path), /* plus= */ false);
    if (!h->path)
        return REFUSE(400, "The path of the request is badly percent-encoded.");
    /* Only looked at: whoever wants a parameter decodes it. */
    CLEANUP_FREE char *query = http_percent_decode(h->query, strlen(h->query), /* plus= */ true);
    if (!query)
        return REFUSE(400, "The query of the request is badly percent-encoded.");
    return ACCEPTED;
}

static struct http_refusal request_line_parse(struct http_head *h, char *line)
{
    char *target = strchr(line, ' ');
    char *version = target ? strchr(target + 1, ' ') : NULL;

    if (!target || !version || target == line)
        return REFUSE(400, "The first line is not an HTTP request.");
    *target++ = '\0';
    *version++ = '\0';
    if (streq(version, "HTTP/1.1"))
        h->minor = 1;
    else if (streq(version, "HTTP/1.0"))
        h->minor = 0;
    else if (str_has_prefix(version, "HTTP/"))
        return REFUSE(505, "Only HTTP/1.1 and HTTP/1.0 are supported.");
    else
        return REFUSE(400, "The first line is not an HTTP request.");
    struct http_refusal refusal = method_parse(h, line);
    if (refusal.status)
        return refusal;
    return target_parse(h, target);
}

/* ---- headers ---- */

static struct http_refusal header_parse(struct http_head *h, char *line)
{
    char *colon = line;

    if (*line == ' ' || *line == '\t')
        return REFUSE(400, "A header is folded over two lines.");
    while (is_token_char((unsigned char)*colon))
        colon++;
    if (colon == line || *colon != ':')
        return REFUSE(400, "The name of a header is malformed.");
    *colon = '\0';
    char *value = colon + 1 + strspn(colon + 1, " \t");
    size_t n = strlen(value);
    while (n > 0 && (value[n - 1] == ' ' || value[n - 1] == '\t'))
        n--;
    value[n] = '\0';
    for (const char *p = value; *p; p++) {
        if (((unsigned char)*p < ' ' && *p != '\t') || *p == 0x7f)
            return REFUSE(400, "The value of a header holds a control character.");
    }
    if (h->header_count == HTTP_MAX_HEADERS)
        return REFUSE(431, "The request has too many headers.");
    h->headers[h->header_count++] = (struct http_header){line, value};
    return ACCEPTED;
}

const char *http_head_get(const struct http_head *h, const char *name, unsigned index)
{
    for (unsigned i = 0; i < h->header_count; i++) {
        if (strcasecmp(h->headers[i].name, name) == 0 && index-- == 0)
            return h->headers[i].value;
    }
    return NULL;
}

static bool length_parse(const char *text, uint64_t *ret_length)
{
    uint64_t v = 0;
    size_t n = strlen(text);

    if (n == 0 || n > 18)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (text[i] < '0' || text[i] > '9')
            return false;
        v = v * 10 + (uint64_t)(text[i] - '0');
    }
    *ret_length = v;
    return true;
}

/* true when one of the comma-separated words of any header `name` is `word`. */
static bool header_has_word(const struct http_head *h, const char *name, const char *word)
{
    const char *value;

    for (unsigned i = 0; (value = http_head_get(h, name, i)); i++) {
        while (*value) {
            value += strspn(value, ", \t");
            size_t n = strcspn(value, ", \t");
            if (n == strlen(word) && strncasecmp(value, word, n) == 0)
                return true;
            value += n;
        }
    }
    return false;
}

static struct http_refusal framing_parse(struct http_head *h)
{
    const char *length = http_head_get(h, "Content-Length", 0);
    const char *coding = http_head_get(h, "Transfer-Encoding", 0);
    const char *expect = http_head_get(h, "Expect", 0);

    h->content_length = HTTP_LENGTH_NONE;
    if (http_head_get(h, "Content-Length", 1))
        return REFUSE(400, "The request has more than one Content-Length.");
    if (length && coding)
        return REFUSE(400, "The request has both Content-Length and Transfer-Encoding.");
    if (http_head_get(h, "Host", 1))
        return REFUSE(400, "The request has more than one Host.");
    if (length && !length_parse(length, &h->content_length))
        return REFUSE(400, "The Content-Length is not a number of bytes.");
    if (coding && h->minor == 0)
        return REFUSE(400, "HTTP/1.0 knows no Transfer-Encoding.");
    if (coding && (strcasecmp(coding, "chunked") != 0 || http_head_get(h, "Transfer-Encoding", 1)))
        return REFUSE(501, "The only Transfer-Encoding supported is chunked.");
    h->chunked = coding != NULL;
    if (expect && strcasecmp(expect, "100-continue") != 0)
        return REFUSE(417, "The expectation is not supported.");
    h->expect_continue = expect && h->minor == 1;
    h->keep_alive = h->minor == 1 ? !header_has_word(h, "Connection", "close")
                                  : header_has_word(h, "Connection", "keep-alive");
    return ACCEPTED;
}

static struct http_refusal parse_into(struct http_head *h, size_t n)
{
    char *line = h->bytes, *end;
    struct http_refusal refusal = ACCEPTED;
    bool first = true;

    if (memchr(h->bytes, '\0', n))
        return REFUSE(400, "The request's head holds a NUL byte.");
    /* http_head_find() has seen that each line ends in CRLF and that the last is empty. */
    for (; (end = strstr(line, "\r\n")) && end != line; line = end + 2) {
        *end = '\0';
        refusal = first ? request_line_parse(h, line) : header_parse(h, line);
        if (refusal.status)
            return refusal;
        first = false;
    }
    return first ? REFUSE(400, "The first line is not an HTTP request.") : framing_parse(h);
}

struct http_refusal http_head_parse(const char *bytes, size_t n, struct http_head **ret_head)
{
    struct http_head *h = xcalloc(1, sizeof(*h));

    h->bytes = xmalloc(n + 1);
    memcpy(h->bytes, bytes, n);
    h->bytes[n] = '\0';
    struct http_refusal refusal = parse_into(h, n);
    if (refusal.status)
        http_head_free(h);
    else
        *ret_head = h;
    return refusal;
}

struct http_head *http_head_free(struct http_head *h)
{
    if (h) {
        free(h->path);
        free(h->bytes);
    }
    free(h);
    return NULL;
}

/* ---- chunked ---- */

enum {
    SIZE,
    EXTENSION,
    SIZE_LF,
    DATA,
    DATA_CR,
    DATA_LF,
    TRAILER,
    TRAILER_LINE,
    TRAILER_LF,
    LAST_LF,
    END
};

#define LINE_MAX_BYTES 256u
#define TRAILER_MAX_BYTES 4096u

/* One byte of anything but chunk data; false = malformed. */
static bool chunked_byte(struct http_chunked *c, char b)
{
    int digit = hex_digit(b);

    switch (c->state) {
    case SIZE:
        if (digit >= 0 && c->line_bytes++ < 15) {
            c->left = c->left * 16 + (unsigned)digit;
            return true;
        }
        if (c->line_bytes == 0 || c->line_bytes > 15)
            return false;
        c->state = b == '\r' ? SIZE_LF : EXTENSION;
        return b == '\r' || b == ';';
    case EXTENSION:
        if (b == '\r')
            c->state = SIZE_LF;
        return ++c->line_bytes < LINE_MAX_BYTES &&
               (b == '\r' || b == '\t' || (unsigned char)b >= ' ');
    case SIZE_LF:
        c->state = c->left > 0 ? DATA : TRAILER;
        c->line_bytes = 0;
        return b == '\n';
    case DATA_CR:
        c->state = DATA_LF;
        return b == '\r';
    case DATA_LF:
        c->state = SIZE;
        return b == '\n';
    case TRAILER: /* at the beginning of a line; trailers are skipped */
        c->state = b == '\r' ? LAST_LF : TRAILER_LINE;
        return b != '\n' && ++c->trailer_bytes < TRAILER_MAX_BYTES;
    case TRAILER_LINE:
        if (b == '\r')
            c->state = TRAILER_LF;
        return b != '\n' && b != '\0' && ++c->trailer_bytes < TRAILER_MAX_BYTES;
    case TRAILER_LF:
        c->state = TRAILER;
        return b == '\n';
    case LAST_LF:
        c->state = END;
        return b == '\n';
    default:
        return false;
    }
}

enum http_chunked_result http_chunked_feed(struct http_chunked *c, const char *bytes, size_t n,
                                           size_t *ret_taken, const char **ret_data,
                                           size_t *ret_len)
{
    size_t at = 0;

    while (at < n && c->state != END) {
        if (c->state == DATA) {
            size_t part = n - at < c->left ? n - at : (size_t)c->left;

            c->left -= part;
            if (c->left == 0)
                c->state = DATA_CR;
            *ret_data = bytes + at;
            *ret_len = part;
            *ret_taken = at + part;
            return HTTP_CHUNKED_DATA;
        }
        if (!chunked_byte(c, bytes[at++])) {
            c->state = END + 1; /* stays bad */
            return HTTP_CHUNKED_BAD;
        }
    }
    *ret_taken = at;
    return c->state == END ? HTTP_CHUNKED_END : HTTP_CHUNKED_MORE;
}
