#include "cli/text.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>

#define MAX_WHOLE_DIGITS 18
#define MAX_FRACTION_DIGITS 6 /* times 2^40 still fits 64 bits */

/* Shift of the unit "k", "KiB", "mb", ...; -1 = no unit of ours. */
static int unit_shift(const char *unit)
{
    static const char letters[] = "kmgt";
    const char *letter = *unit ? strchr(letters, tolower((unsigned char)*unit)) : NULL;

    if (!*unit)
        return 0;
    if (!letter)
        return -1;
    const char *rest = unit + 1;
    if (*rest && strcasecmp(rest, "b") != 0 && strcasecmp(rest, "ib") != 0)
        return -1;
    return 10 * (int)(letter - letters + 1);
}

static struct err *bad_size(const char *text)
{
    return err_new(
        ERR_INVALID,
        "malformed size '%s', please use bytes or a number with k, M, G or T, such as 1.5G", text);
}

struct err *text_parse_size(const char *text, uint64_t *ret_bytes)
{
    const char *p = text;
    uint64_t whole = 0, fraction = 0, scale = 1;
    int digits = 0, fraction_digits = 0;

    for (; *p >= '0' && *p <= '9' && digits < MAX_WHOLE_DIGITS; p++, digits++)
        whole = whole * 10 + (uint64_t)(*p - '0');
    if (*p == '.') {
        for (p++; *p >= '0' && *p <= '9' && fraction_digits < MAX_FRACTION_DIGITS; p++) {
            fraction = fraction * 10 + (uint64_t)(*p - '0');
            scale *= 10;
            fraction_digits++;
        }
        if (!fraction_digits)
            return bad_size(text);
    }
    while (*p == ' ')
        p++;
    int shift = unit_shift(p);
    if (!digits || shift < 0 || (fraction_digits && !shift))
        return bad_size(text);

    uint64_t bytes;
    uint64_t part = ((fraction << shift) + scale - 1) / scale;
    if (__builtin_mul_overflow(whole, (uint64_t)1 << shift, &bytes) ||
        __builtin_add_overflow(bytes, part, &bytes) || bytes > (uint64_t)INT64_MAX - 1024)
        return err_new(ERR_INVALID, "size '%s' is too large", text);
    *ret_bytes = shift ? (bytes + 1023) / 1024 * 1024 : bytes;
    return NULL;
}

char *text_format_quota(uint64_t bytes)
{
    return bytes ? xasprintf("%.2fG", (double)bytes / (1024.0 * 1024 * 1024))
                 : xstrdup("<no quota>");
}

char *text_format_bytes(uint64_t bytes)
{
    static const char units[] = "KMGTPE";
    double v = (double)bytes / 1024;
    size_t u = 0;

    if (bytes < 1024)
        return xasprintf("%" PRIu64, bytes);
    while (v >= 1024 && units[u + 1]) {
        v /= 1024;
        u++;
    }
    return xasprintf("%.1f%c", v, units[u]);
}

/* One "key=value" of n bytes into `object`; false when malformed. */
static bool add_pair(json_t *object, const char *pair, size_t n)
{
    const char *equals = memchr(pair, '=', n);

    if (!equals || equals == pair || !str_is_utf8(pair, n))
        return false;
    CLEANUP_FREE char *key = xstrndup(pair, (size_t)(equals - pair));
    if (json_object_get(object, key))
        return false;
    size_t length = n - (size_t)(equals + 1 - pair);
    return json_object_set_new(object, key, json_stringn(equals + 1, length)) == 0;
}

struct err *text_parse_metadata(const char *text, json_t *object)
{
    json_t *all = json_copy(object);
    const char *p = text;
    bool good;

    do {
        size_t n = strcspn(p, ",");
        good = add_pair(all, p, n);
        p += n;
    } while (good && *p++ == ',');
    if (good)
        json_object_update(object, all);
    json_decref(all);
    if (good)
        return NULL;
    return err_new(ERR_INVALID,
                   "malformed metadata specification '%s', please use format 'a=b,c=d'", text);
}

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

char *text_format_metadata(const json_t *object)
{
    CLEANUP_STR struct str text = {0};
    size_t n = json_object_size(object), i = 0;
    CLEANUP_FREE const char **keys = xcalloc(n, sizeof(*keys));
    const char *key;
    json_t *value;

    json_object_foreach ((json_t *)(uintptr_t)object, key, value)
        keys[i++] = key;
    qsort(keys, n, sizeof(*keys), compare_keys);
    for (i = 0; i < n; i++) {
        const char *v = json_string_value(json_object_get(object, keys[i]));
        str_appendf(&text, "%s%s=%s", i ? "," : "", keys[i], v ? v : "?");
    }
    return str_steal(&text);
}

char *text_format_time(double unix_seconds)
{
    char buf[40];
    struct tm tm;
    /* The range of years 1 to 9999; what a server sends may be anything. */
    bool possible = unix_seconds > -62135596800.0 && unix_seconds < 253402300800.0;
    time_t t = possible ? (time_t)unix_seconds : 0;

    if (!possible || !gmtime_r(&t, &tm) || !strftime(buf, sizeof(buf), "%Y-%m-%dT%H:%M:%SZ", &tm))
        return xstrdup("?");
    return xstrdup(buf);
}

char *text_format_duration(double seconds)
{
    long s = seconds > 0 && seconds < 1e12 ? (long)seconds : 0;

    if (s < 120)
        return xasprintf("%lds", s);
    if (s < 120 * 60)
        return xasprintf("%ldm", s / 60);
    if (s < 48 * 3600)
        return xasprintf("%ldh", s / 3600);
    return xasprintf("%ldd", s / 86400);
}

#define BAR_MIN 10u
#define BAR_MAX 50u

static double fraction(const struct text_progress *p)
{
    return p->sent < p->total ? (double)p->sent / (double)p->total : 1.0;
}

static char *progress_numbers(const struct text_progress *p)
{
    CLEANUP_FREE char *sent = text_format_bytes(p->sent);
    CLEANUP_FREE char *total = text_format_bytes(p->total);
    CLEANUP_FREE char *rate = text_format_bytes(p->rate);
    CLEANUP_FREE char *left = text_format_duration((double)p->left);
    struct str s = {0};

    str_append(&s, sent);
    if (p->total) /* an estimate; the file system may send more */
        str_appendf(&s, " of about %s (%.0f %%)", total, 100 * fraction(p));
    str_append(&s, " sent");
    if (p->rate)
        str_appendf(&s, ", %s/s", rate);
    if (p->left >= 0)
        str_appendf(&s, ", %s left", left);
    return str_steal(&s);
}

/* Of `n` columns with its brackets and the space after them. */
static void append_bar(struct str *s, const struct text_progress *p, size_t n)
{
    size_t room = n - 3, done = (size_t)(fraction(p) * (double)room);

    str_append(s, "[");
    for (size_t i = 0; i < room; i++)
        str_append(s, i < done ? "=" : i == done ? ">" : " ");
    str_append(s, "] ");
}

char *text_format_progress(const struct text_progress *p, size_t columns)
{
    CLEANUP_FREE char *numbers = progress_numbers(p);
    size_t n = strlen(numbers), bar = columns > n ? columns - n : 0;
    struct str s = {0};

    if (p->total && bar >= BAR_MIN)
        append_bar(&s, p, bar < BAR_MAX ? bar : BAR_MAX);
    str_append_bytes(&s, numbers, columns && columns < n ? columns : n);
    return str_steal(&s);
}

/* Takes one character off *p; 0xfffd for a broken sequence. */
static uint32_t next_character(const char **p)
{
    const unsigned char *s = (const unsigned char *)*p;
    size_t n = *s < 0x80 ? 1 : (*s >= 0xf0 ? 4 : (*s >= 0xe0 ? 3 : 2));

    if (strnlen(*p, n) < n || !str_is_utf8(*p, n)) {
        (*p)++;
        return 0xfffd;
    }
    *p += n;
    if (n == 1)
        return *s;
    uint32_t c = *s & (0xffu >> (n + 1));
    for (size_t i = 1; i < n; i++)
        c = (c << 6) | (s[i] & 0x3fu);
    return c;
}

/* Not wcwidth(): its answer depends on the caller's locale. */
static size_t character_width(uint32_t c)
{
    static const struct {
        uint32_t first, last;
    } zero[] = {{0x0300, 0x036f}, {0x0483, 0x0489}, {0x0591, 0x05bd}, {0x064b, 0x065f},
                {0x1ab0, 0x1aff}, {0x1dc0, 0x1dff}, {0x200b, 0x200f}, {0x202a, 0x202e},
                {0x2060, 0x2064}, {0x20d0, 0x20f0}, {0xfe00, 0xfe0f}, {0xfe20, 0xfe2f}},
      wide[] = {{0x1100, 0x115f},   {0x231a, 0x231b},  {0x23e9, 0x23ec},   {0x23f0, 0x23f0},
                {0x23f3, 0x23f3},   {0x25fd, 0x25fe},  {0x2614, 0x2615},   {0x2648, 0x2653},
                {0x26a1, 0x26a1},   {0x2705, 0x2705},  {0x270a, 0x270b},   {0x2728, 0x2728},
                {0x274c, 0x274c},   {0x2753, 0x2755},  {0x2757, 0x2757},   {0x2e80, 0x303e},
                {0x3041, 0xa4cf},   {0xac00, 0xd7a3},  {0xf900, 0xfaff},   {0xfe30, 0xfe6f},
                {0xff00, 0xff60},   {0xffe0, 0xffe6},  {0x1f300, 0x1f64f}, {0x1f680, 0x1f6ff},
                {0x1f900, 0x1f9ff}, {0x20000, 0x3fffd}};

    for (size_t i = 0; i < ARRAY_SIZE(zero); i++) {
        if (c >= zero[i].first && c <= zero[i].last)
            return 0;
    }
    for (size_t i = 0; i < ARRAY_SIZE(wide); i++) {
        if (c >= wide[i].first && c <= wide[i].last)
            return 2;
    }
    return 1;
}

size_t text_width(const char *utf8)
{
    size_t width = 0;

    while (*utf8)
        width += character_width(next_character(&utf8));
    return width;
}

void text_append_safe(struct str *to, const char *text)
{
    while (*text) {
        const char *start = text;
        uint32_t c = next_character(&text);
        /* C0, DEL, C1, and the marks that reverse the reading direction */
        bool bad =
            c < 0x20 || (c >= 0x7f && c < 0xa0) || (c >= 0x202a && c <= 0x202e) || c == 0xfffd;
        if (bad)
            str_append(to, "?");
        else
            str_append_bytes(to, start, (size_t)(text - start));
    }
}
