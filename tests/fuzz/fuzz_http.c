/* HTTP requests as text. The first byte chooses:
 *   h  a head: found at the same place whatever the pieces; what is accepted means the same when it
 *      is written out again
 *   c  a chunked body: the same bytes whatever the pieces
 *   e  the rest as a body: chunked and read again it is the same
 *   p  percent-encoding */
#include "fuzz.h"

#include "net/http_parse.h"

static void check_text(const char *text)
{
    for (const char *p = text; *p; p++)
        RULE(((unsigned char)*p >= ' ' || *p == '\t') && *p != 0x7f);
}

static void check_head(const struct http_head *h)
{
    RULE(h->header_count <= HTTP_MAX_HEADERS && h->minor <= 1);
    RULE(*h->path == '/' || (streq(h->path, "*") && h->method == HTTP_OPTIONS));
    RULE(!h->chunked || (h->content_length == HTTP_LENGTH_NONE && h->minor == 1));
    RULE(!http_head_get(h, "Content-Length", 1) && !http_head_get(h, "Host", 1));
    check_text(h->raw_path);
    check_text(h->query);
    for (unsigned i = 0; i < h->header_count; i++) {
        check_text(h->headers[i].name);
        check_text(h->headers[i].value);
        RULE(*h->headers[i].name && !strpbrk(h->headers[i].name, ": \t"));
    }
}

static void check_same(const struct http_head *a, const struct http_head *b)
{
    RULE(a->method == b->method && a->minor == b->minor && streq(a->path, b->path) &&
         streq(a->raw_path, b->raw_path) && streq(a->query, b->query));
    RULE(a->content_length == b->content_length && a->chunked == b->chunked &&
         a->keep_alive == b->keep_alive && a->expect_continue == b->expect_continue);
    RULE(a->header_count == b->header_count);
    for (unsigned i = 0; i < a->header_count; i++)
        RULE(streq(a->headers[i].name, b->headers[i].name) &&
             streq(a->headers[i].value, b->headers[i].value));
}

static void write_head(const struct http_head *h, struct str *to)
{
    str_appendf(to, "%s %s%s%s HTTP/1.%u\r\n", http_method_name(h->method), h->raw_path,
                *h->query ? "?" : "", h->query, h->minor);
    for (unsigned i = 0; i < h->header_count; i++)
        str_appendf(to, "%s:%s\r\n", h->headers[i].name, h->headers[i].value);
    str_append(to, "\r\n");
}

static void parse_head(const char *bytes, size_t n)
{
    CLEANUP_STR struct str text = {0};
    struct http_refusal refusal = {0};
    struct http_head *h = NULL, *again = NULL;
    size_t scanned = 0;

    refusal = http_head_parse(bytes, n, &h);
    RULE(refusal.status ? refusal.text && !h : h != NULL);
    if (!h)
        return;
    check_head(h);
    write_head(h, &text);
    RULE(http_head_find(text.data, text.len, &scanned, &refusal) == text.len);
    refusal = http_head_parse(text.data, text.len, &again);
    RULE(!refusal.status);
    check_same(h, again);
    http_head_free(h);
    http_head_free(again);
}

static void head(const char *bytes, size_t n, const struct random *r)
{
    struct http_refusal whole = {0}, pieces = {0};
    size_t scanned = 0, found = 0, here = 0;
    size_t end = http_head_find(bytes, n, &scanned, &whole);

    scanned = 0;
    while (here < n && !found && !pieces.status) {
        here += fuzz_piece(r, n - here);
        found = http_head_find(bytes, here, &scanned, &pieces);
    }
    RULE(found == end && pieces.status == whole.status && end <= n);
    if (end)
        parse_head(bytes, end);
}

/* Reads all of it, whole when `r` is NULL. *ret_taken: bytes up to the end of the body. */
static enum http_chunked_result read_chunked(const char *bytes, size_t n, const struct random *r,
                                             struct str *body, size_t *ret_taken)
{
    struct http_chunked c = {0};
    size_t at = 0;

    for (size_t end = 0; end < n;) {
        end += r ? fuzz_piece(r, n - end) : n;
        while (at < end) {
            const char *data = NULL;
            size_t taken = 0, len = 0;
            enum http_chunked_result result =
                http_chunked_feed(&c, bytes + at, end - at, &taken, &data, &len);

            if (result == HTTP_CHUNKED_BAD)
                return result;
            RULE(taken > 0 && taken <= end - at);
            if (result == HTTP_CHUNKED_DATA) {
                RULE(len && data >= bytes + at && data + len == bytes + at + taken);
                str_append_bytes(body, data, len);
            }
            at += taken;
            *ret_taken = at;
            if (result == HTTP_CHUNKED_END)
                return result;
        }
    }
    return HTTP_CHUNKED_MORE;
}

static void chunked(const char *bytes, size_t n, const struct random *r)
{
    CLEANUP_STR struct str whole = {0};
    CLEANUP_STR struct str pieces = {0};
    size_t taken = 0, taken_pieces = 0;
    enum http_chunked_result a = read_chunked(bytes, n, NULL, &whole, &taken);
    enum http_chunked_result b = read_chunked(bytes, n, r, &pieces, &taken_pieces);

    RULE(a == b && whole.len == pieces.len);
    RULE(!whole.len || !memcmp(whole.data, pieces.data, whole.len));
    RULE(a != HTTP_CHUNKED_END || taken == taken_pieces);
}

static void encoded(const char *bytes, size_t n, const struct random *r)
{
    static const char *const ends[] = {"0\r\n\r\n", "000;x=\"y\"\r\nA: b\r\n\r\n"};
    CLEANUP_STR struct str text = {0};
    CLEANUP_STR struct str body = {0};
    size_t taken = 0;

    for (size_t at = 0; at < n;) {
        size_t piece = fuzz_piece(r, n - at);
        str_appendf(&text, piece & 1 ? "%zx\r\n" : "0%zX;ext\r\n", piece);
        str_append_bytes(&text, bytes + at, piece);
        str_append(&text, "\r\n");
        at += piece;
    }
    str_append(&text, ends[n & 1]);
    size_t length = text.len;
    str_append(&text, "GET / HTTP/1.1\r\n"); /* the next request is not touched */
    RULE(read_chunked(text.data, text.len, r, &body, &taken) == HTTP_CHUNKED_END);
    RULE(taken == length && body.len == n && (!n || !memcmp(body.data, bytes, n)));
}

static void percent(const char *bytes, size_t n)
{
    CLEANUP_FREE char *plain = http_percent_decode(bytes, n, n & 1);
    CLEANUP_STR struct str text = {0};

    if (!plain)
        return;
    RULE(strlen(plain) <= n);
    for (const char *p = plain; *p; p++)
        str_appendf(&text, "%%%02x", (unsigned char)*p);
    CLEANUP_FREE char *again = http_percent_decode(text.data ? text.data : "", text.len, true);
    RULE(again && streq(plain, again));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t state = fuzz_hash(data, size);
    struct random r = random_seeded(&state);
    const char *bytes = (const char *)data + 1;

    switch (size ? data[0] : 0) {
    case 'h':
        head(bytes, size - 1, &r);
        return 0;
    case 'c':
        chunked(bytes, size - 1, &r);
        return 0;
    case 'e':
        encoded(bytes, size - 1, &r);
        return 0;
    case 'p':
        percent(bytes, size - 1);
        return 0;
    default:
        return -1;
    }
}
