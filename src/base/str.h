/* A growing string that is always NUL-terminated once something was appended. Not thread-safe. */
#pragma once

#include "base/mem.h"

#include <stdbool.h>

struct str {
    char *data; /* NULL while empty */
    size_t len;
    size_t cap;
};

void str_append(struct str *s, const char *text);
void str_append_bytes(struct str *s, const void *bytes, size_t n);
void str_appendf(struct str *s, const char *fmt, ...) PRINTF_LIKE(2, 3); /* no argument may lie in `s` */
char *str_steal(struct str *s); /* the caller frees it; never NULL; `s` is empty again */
void str_done(struct str *s);
#define CLEANUP_STR CLEANUP(str_done)

static inline bool streq(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}
/* Equal, or both NULL. */
bool str_equal_null(const char *a, const char *b);
bool str_has_prefix(const char *s, const char *prefix);
/* true when the bytes are well-formed UTF-8 (RFC 3629) without NUL. */
bool str_is_utf8(const char *bytes, size_t n);
