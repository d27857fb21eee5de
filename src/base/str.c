#include "base/str.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>

static void reserve(struct str *s, size_t extra)
{
    size_t need = s->len + extra + 1;

    if (need <= s->cap)
        return;
    size_t cap = s->cap ? s->cap : 64;
    while (cap < need)
        cap *= 2;
    s->data = xrealloc(s->data, cap, 1);
    s->cap = cap;
}

void str_append_bytes(struct str *s, const void *bytes, size_t n)
{
    reserve(s, n);
    if (n)
        memcpy(s->data + s->len, bytes, n);
    s->len += n;
    s->data[s->len] = '\0';
}

void str_append(struct str *s, const char *text)
{
    str_append_bytes(s, text, strlen(text));
}

void str_appendf(struct str *s, const char *fmt, ...)
{
    va_list ap, again;

    va_start(ap, fmt);
    va_copy(again, ap);
    reserve(s, 64);
    int n = vsnprintf(s->data + s->len, s->cap - s->len, fmt, ap);
    if (n >= 0 && (size_t)n >= s->cap - s->len) {
        reserve(s, (size_t)n);
        n = vsnprintf(s->data + s->len, s->cap - s->len, fmt, again);
    }
    va_end(again);
    va_end(ap);
    if (n < 0)
        mem_exhausted();
    s->len += (size_t)n;
}

char *str_steal(struct str *s)
{
    char *data = s->data ? s->data : xstrdup("");

    *s = (struct str){0};
    return data;
}

void str_done(struct str *s)
{
    free(s->data);
    *s = (struct str){0};
}

bool str_equal_null(const char *a, const char *b)
{
    if (!a || !b)
        return a == b;
    return streq(a, b);
}

bool str_has_prefix(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* Length of the sequence that starts with `lead`, and the range of its second byte; 0 = not a lead. */
static size_t utf8_sequence(unsigned char lead, unsigned char *low, unsigned char *high)
{
    *low = 0x80;
    *high = 0xbf;
    if (lead >= 0xc2 && lead <= 0xdf)
        return 2;
    if (lead >= 0xe0 && lead <= 0xef) {
        if (lead == 0xe0)
            *low = 0xa0;
        if (lead == 0xed)
            *high = 0x9f;
        return 3;
    }
    if (lead >= 0xf0 && lead <= 0xf4) {
        if (lead == 0xf0)
            *low = 0x90;
        if (lead == 0xf4)
            *high = 0x8f;
        return 4;
    }
    return 0;
}

bool str_is_utf8(const char *bytes, size_t n)
{
    const unsigned char *p = (const unsigned char *)bytes;

    for (size_t i = 0; i < n;) {
        if (p[i] >= 0x01 && p[i] <= 0x7f) {
            i++;
            continue;
        }
        unsigned char low, high;
        size_t len = utf8_sequence(p[i], &low, &high);
        if (!len || i + len > n || p[i + 1] < low || p[i + 1] > high)
            return false;
        for (size_t k = 2; k < len; k++) {
            if (p[i + k] < 0x80 || p[i + k] > 0xbf)
                return false;
        }
        i += len;
    }
    return true;
}
