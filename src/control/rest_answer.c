/* Answers: documents with their tags, in plain or compressed form, and errors. */
#include "control/rest_internal.h"

#include <inttypes.h>
#include <strings.h>
#include <xxhash.h>
#include <zlib.h>

/* Less is not worth it; more would hold up the loop for longer than GZIP_MAX takes (some
 * milliseconds a mebibyte). */
#define GZIP_MIN 1024u
#define GZIP_MAX (4u << 20)
#define GZIP_WINDOW (15 + 16) /* the largest window, in gzip's frame */
#define GZIP_MEMORY 8

/* Documents */

struct document *document_new(struct str *text)
{
    struct document *d = xcalloc(1, sizeof(*d));

    d->refs = 1;
    d->len = text->len;
    d->text = str_steal(text);
    XXH128_hash_t h = XXH3_128bits(d->text, d->len);
    (void)snprintf(d->hash, sizeof(d->hash), "%016" PRIx64 "%016" PRIx64, (uint64_t)h.high64,
                   (uint64_t)h.low64);
    return d;
}

struct document *document_unref(struct document *d)
{
    if (d && --d->refs == 0) {
        free(d->text);
        free(d->gzip);
        free(d);
    }
    return NULL;
}

static void document_release(void *d)
{
    document_unref(d);
}

/* Compresses it, once; false when that is not worth it. */
static bool document_compress(struct document *d)
{
    z_stream z = {0};

    if (d->gzip || d->len < GZIP_MIN || d->len > GZIP_MAX)
        return d->gzip != NULL;
    if (deflateInit2(&z, Z_BEST_SPEED, Z_DEFLATED, GZIP_WINDOW, GZIP_MEMORY, Z_DEFAULT_STRATEGY) !=
        Z_OK)
        return false;
    uLong bound = deflateBound(&z, d->len);
    d->gzip = xmalloc(bound);
    z.next_in = (Bytef *)d->text;
    z.avail_in = (uInt)d->len;
    z.next_out = d->gzip;
    z.avail_out = (uInt)bound;
    int r = deflate(&z, Z_FINISH);
    d->gzip_len = z.total_out;
    deflateEnd(&z);
    if (r == Z_STREAM_END)
        return true;
    free(d->gzip);
    d->gzip = NULL;
    return false;
}

/* ---- what the client wants ---- */

/* The weight of one item of Accept-Encoding, `;q=...`; 1 when it has none. */
static double weight(const char *item, size_t n)
{
    CLEANUP_FREE char *copy = xstrndup(item, n);
    const char *q = strcasestr(copy, "q=");

    return q ? strtod(q + 2, NULL) : 1;
}

/* Does Accept-Encoding (RFC 9110 section 12.5.3) name gzip? */
static bool takes_gzip(const struct http_request *r)
{
    const char *p;
    double gzip = -1, any = -1;

    for (unsigned i = 0; (p = http_request_header(r, "Accept-Encoding", i)); i++) {
        while (*p) {
            p += strspn(p, ", \t");
            size_t item = strcspn(p, ","), name = strcspn(p, ",; \t");
            if (name == 4 && strncasecmp(p, "gzip", 4) == 0)
                gzip = weight(p, item);
            else if (name == 1 && *p == '*')
                any = weight(p, item);
            p += item;
        }
    }
    return gzip >= 0 ? gzip > 0 : any > 0;
}

/* Whether If-None-Match names the document (RFC 9110 section 13.1.2): a list of tags, weak or not,
 * or "*". Its forms count as one. */
bool client_has_tag(const struct http_request *r, const char *tag)
{
    const char *value;

    for (unsigned i = 0; (value = http_request_header(r, "If-None-Match", i)); i++) {
        if (streq(value, "*") || strstr(value, tag))
            return true;
    }
    return false;
}

/* ---- answers ---- */

void respond_document(struct http_request *r, struct document *d, const struct http_header *more,
                      size_t n_more)
{
    struct http_header headers[8] = {
        {"ETag", NULL}, {"Cache-Control", "no-cache"}, {"Vary", "Accept-Encoding"}};
    bool gzip = takes_gzip(r) && document_compress(d);
    CLEANUP_FREE char *etag = xasprintf("\"%s%s\"", d->hash, gzip ? "-gzip" : "");
    size_t n = 3;

    headers[0].value = etag;
    for (size_t i = 0; i < n_more && n < ARRAY_SIZE(headers) - 1; i++)
        headers[n++] = more[i];
    if (client_has_tag(r, d->hash)) { /* hashes have all the same length */
        http_reply(r, 304, headers, n, NULL, 0);
        document_unref(d);
        return;
    }
    if (gzip)
        headers[n++] = (struct http_header){"Content-Encoding", "gzip"};
    http_reply_shared(r, 200, headers, n, gzip ? (const char *)d->gzip : d->text,
                      gzip ? d->gzip_len : d->len, document_release, d);
}

void append_json(struct str *s, json_t *v)
{
    json_append(s, v);
    json_decref(v);
}

void respond_read(struct http_request *r, json_t *v)
{
    struct str s = {0};

    json_append(&s, v);
    json_decref(v);
    respond_document(r, document_new(&s), NULL, 0);
}

void respond_json(struct http_request *r, unsigned status, json_t *v)
{
    struct str s = {0};

    json_append(&s, v);
    json_decref(v);
    http_reply(r, status, NULL, 0, s.data, s.len);
    str_done(&s);
}

/* ---- errors ---- */

const struct rest_error_entry rest_errors[REST_ERROR_MAX] = {
#define REST_ERROR_ENTRY(id, error_name, code, text) [REST_ERROR_##id] = {error_name, code, text},
    REST_ERRORS(REST_ERROR_ENTRY)
#undef REST_ERROR_ENTRY
};

static void respond_with(struct http_request *r, enum rest_error error, const char *description,
                         json_t *errors)
{
    /* RFC 9110 wants Allow with each 405; of a deleted dataset this is what is left. */
    struct http_header header = error == REST_ERROR_COMPARISON_SOON
                                    ? (struct http_header){"Retry-After", "1"}
                                    : (struct http_header){"Allow", "GET, HEAD, DELETE"};
    bool has_header = error == REST_ERROR_DATASET_DELETED || error == REST_ERROR_COMPARISON_SOON;
    json_t *body = json_pack("{s:o}", "description", json_text(description));
    struct str s = {0};

    call_note_error(r, error, description);
    if (errors)
        (void)json_object_set_new(body, "errors", errors);
    json_append(&s, body);
    json_decref(body);
    http_reply(r, rest_errors[error].status, &header, has_header, s.data, s.len);
    str_done(&s);
}

void respond_error(struct http_request *r, enum rest_error error)
{
    respond_with(r, error, rest_errors[error].text, NULL);
}

void respond_error_about(struct http_request *r, enum rest_error error, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    CLEANUP_FREE char *text = xvasprintf(fmt, ap);
    va_end(ap);
    respond_with(r, error, text, NULL);
}

json_t *parse_body(struct http_request *r)
{
    size_t n;
    const char *body = http_request_body(r, &n);
    json_t *v = NULL;
    struct err *e = json_parse(body, n, &v);

    if (e) {
        /* The contract fixes the sentence, line break and all; what is wrong goes beside it. */
        respond_with(r, REST_ERROR_NOT_JSON, rest_errors[REST_ERROR_NOT_JSON].text,
                     json_pack("[o]", json_text(e->text)));
        err_free(e);
    }
    return v;
}

void respond_violations(struct http_request *r, json_t *errors)
{
    respond_with(r, REST_ERROR_SCHEMA, rest_errors[REST_ERROR_SCHEMA].text, errors);
}
