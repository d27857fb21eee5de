#include "net/grpc_wire.h"

#include <ctype.h>
#include <nghttp2/nghttp2.h>
#include <stdio.h>

#define BODY_FIRST 4096u

/* Room for what has come, by doubling, never more than the message needs. */
static void body_reserve(struct grpc_assembler *a, size_t need)
{
    if (need <= a->capacity)
        return;
    size_t capacity = a->capacity ? a->capacity : BODY_FIRST;
    while (capacity < need)
        capacity *= 2;
    if (capacity > a->length)
        capacity = a->length;
    a->body = xrealloc(a->body, capacity, 1);
    a->capacity = capacity;
}

static enum grpc_assembled head_complete(struct grpc_assembler *a, size_t max)
{
    a->length = (size_t)a->head[1] << 24 | (size_t)a->head[2] << 16 | (size_t)a->head[3] << 8 |
                (size_t)a->head[4];
    if (a->head[0])
        return GRPC_ASSEMBLED_COMPRESSED;
    if (a->length > max)
        return GRPC_ASSEMBLED_TOO_LONG;
    return a->length ? GRPC_ASSEMBLED_PART : GRPC_ASSEMBLED_MESSAGE;
}

enum grpc_assembled grpc_assembler_feed(struct grpc_assembler *a, size_t max, const uint8_t **p,
                                        size_t *n)
{
    while (a->head_n < sizeof(a->head)) {
        if (!*n)
            return GRPC_ASSEMBLED_PART;
        a->head[a->head_n++] = **p;
        (*p)++;
        (*n)--;
        if (a->head_n == sizeof(a->head)) {
            enum grpc_assembled r = head_complete(a, max);
            if (r != GRPC_ASSEMBLED_PART)
                return r;
        }
    }
    size_t take = a->length - a->n;
    if (take > *n)
        take = *n;
    if (take) {
        body_reserve(a, a->n + take);
        memcpy(a->body + a->n, *p, take);
        a->n += take;
        *p += take;
        *n -= take;
    }
    return a->n == a->length ? GRPC_ASSEMBLED_MESSAGE : GRPC_ASSEMBLED_PART;
}

void grpc_assembler_next(struct grpc_assembler *a)
{
    free(a->body);
    *a = (struct grpc_assembler){0};
}

void grpc_text_encode(const char *text, struct str *out)
{
    size_t n = strnlen(text, GRPC_MAX_TEXT);

    while (n < strlen(text) && n && ((unsigned char)text[n] & 0xc0) == 0x80)
        n--; /* do not cut inside a character */
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c >= 0x20 && c <= 0x7e && c != '%')
            str_append_bytes(out, &text[i], 1);
        else
            str_appendf(out, "%%%02X", c);
    }
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    return -1;
}

/* In place: what is not UTF-8, and control characters but line ends and tabs, become '?'. */
static void make_printable(char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)s[i];
        size_t len = 1;
        while (len <= 4 && i + len <= n && !str_is_utf8(s + i, len))
            len++;
        if (len > 4 || i + len > n || c == 0x7f || (c < 0x20 && c != '\n' && c != '\t')) {
            s[i] = '?';
            len = 1;
        }
        i += len;
    }
}

char *grpc_text_decode(const char *text, size_t n)
{
    struct str out = {0};

    for (size_t i = 0; i < n && out.len < GRPC_MAX_TEXT; i++) {
        char c = text[i];
        if (c == '%' && i + 2 < n && hex_digit(text[i + 1]) >= 0 && hex_digit(text[i + 2]) >= 0) {
            c = (char)(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
            i += 2;
        }
        str_append_bytes(&out, &c, 1);
    }
    make_printable(out.data, out.len);
    return str_steal(&out);
}

bool grpc_timeout_parse(const char *text, size_t n, uint64_t *ret_us)
{
    uint64_t value = 0;

    if (n < 2 || n > 9)
        return false;
    for (size_t i = 0; i + 1 < n; i++) {
        if (!isdigit((unsigned char)text[i]))
            return false;
        value = value * 10 + (uint64_t)(text[i] - '0');
    }
    switch (text[n - 1]) {
    case 'H':
        *ret_us = value * 3600000000u;
        return true;
    case 'M':
        *ret_us = value * 60000000u;
        return true;
    case 'S':
        *ret_us = value * 1000000u;
        return true;
    case 'm':
        *ret_us = value * 1000u;
        return true;
    case 'u':
        *ret_us = value;
        return true;
    case 'n':
        *ret_us = value / 1000u;
        return true;
    default:
        return false;
    }
}

void grpc_timeout_format(uint64_t us, char buf[16])
{
    static const struct {
        uint64_t us;
        char unit;
    } units[] = {{1, 'u'}, {1000, 'm'}, {1000000, 'S'}, {60000000, 'M'}};
    size_t i = 0;

    while (i + 1 < ARRAY_SIZE(units) && us / units[i].us > 99999999)
        i++;
    uint64_t value = us / units[i].us;
    snprintf(buf, 16, "%u%c", value > 99999999 ? 99999999u : (unsigned)value, units[i].unit);
}

bool grpc_content_type_ok(const char *text, size_t n)
{
    static const char type[] = "application/grpc";
    size_t len = sizeof(type) - 1;

    return n >= len && memcmp(text, type, len) == 0 &&
           (n == len || text[len] == '+' || text[len] == ';');
}

enum grpc_status grpc_status_parse(const char *text, size_t n)
{
    unsigned value = 0;

    if (n < 1 || n > 2)
        return GRPC_UNKNOWN;
    for (size_t i = 0; i < n; i++) {
        if (!isdigit((unsigned char)text[i]))
            return GRPC_UNKNOWN;
        value = value * 10 + (unsigned)(text[i] - '0');
    }
    return value < GRPC_STATUS_MAX ? (enum grpc_status)value : GRPC_UNKNOWN;
}

enum grpc_status grpc_status_of_http(int http_status)
{
    switch (http_status) {
    case 400:
        return GRPC_INTERNAL;
    case 401:
        return GRPC_UNAUTHENTICATED;
    case 403:
        return GRPC_PERMISSION_DENIED;
    case 404:
        return GRPC_UNIMPLEMENTED;
    case 429:
    case 502:
    case 503:
    case 504:
        return GRPC_UNAVAILABLE;
    default:
        return GRPC_UNKNOWN;
    }
}

enum grpc_status grpc_status_of_reset(uint32_t http2_error)
{
    switch (http2_error) {
    case NGHTTP2_REFUSED_STREAM:
        return GRPC_UNAVAILABLE;
    case NGHTTP2_CANCEL:
        return GRPC_CANCELLED;
    case NGHTTP2_ENHANCE_YOUR_CALM:
        return GRPC_RESOURCE_EXHAUSTED;
    case NGHTTP2_INADEQUATE_SECURITY:
        return GRPC_PERMISSION_DENIED;
    case NGHTTP2_STREAM_CLOSED:
    case NGHTTP2_HTTP_1_1_REQUIRED:
        return GRPC_UNKNOWN;
    default:
        return GRPC_INTERNAL;
    }
}

static const char *const status_names[GRPC_STATUS_MAX] = {
    [GRPC_OK] = "OK",
    [GRPC_CANCELLED] = "CANCELLED",
    [GRPC_UNKNOWN] = "UNKNOWN",
    [GRPC_INVALID_ARGUMENT] = "INVALID_ARGUMENT",
    [GRPC_DEADLINE_EXCEEDED] = "DEADLINE_EXCEEDED",
    [GRPC_NOT_FOUND] = "NOT_FOUND",
    [GRPC_ALREADY_EXISTS] = "ALREADY_EXISTS",
    [GRPC_PERMISSION_DENIED] = "PERMISSION_DENIED",
    [GRPC_RESOURCE_EXHAUSTED] = "RESOURCE_EXHAUSTED",
    [GRPC_FAILED_PRECONDITION] = "FAILED_PRECONDITION",
    [GRPC_ABORTED] = "ABORTED",
    [GRPC_OUT_OF_RANGE] = "OUT_OF_RANGE",
    [GRPC_UNIMPLEMENTED] = "UNIMPLEMENTED",
    [GRPC_INTERNAL] = "INTERNAL",
    [GRPC_UNAVAILABLE] = "UNAVAILABLE",
    [GRPC_DATA_LOSS] = "DATA_LOSS",
    [GRPC_UNAUTHENTICATED] = "UNAUTHENTICATED",
};

const char *grpc_status_name(enum grpc_status status)
{
    return (int)status >= 0 && status < GRPC_STATUS_MAX ? status_names[status] : "UNKNOWN";
}
