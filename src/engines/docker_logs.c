/* What a container wrote last, made fit for a sentence. */
#include "engines/docker_api.h"

#include "base/str.h"

#define FRAME_HEADER 8 /* stream (0 to 2), three zeros, length in four bytes, big-endian */

static size_t frame_length(const unsigned char *p)
{
    return (size_t)p[4] << 24 | (size_t)p[5] << 16 | (size_t)p[6] << 8 | p[7];
}

/* Without a terminal, output and errors come in frames; what does not look like one is taken as it is. */
static void take_frames(const char *body, size_t n, struct str *out)
{
    while (n >= FRAME_HEADER && (unsigned char)body[0] <= 2 && !body[1] && !body[2] && !body[3]) {
        size_t length = frame_length((const unsigned char *)body);

        body += FRAME_HEADER;
        n -= FRAME_HEADER;
        if (length > n)
            length = n;
        str_append_bytes(out, body, length);
        body += length;
        n -= length;
    }
    str_append_bytes(out, body, n);
}

/* Length of the escape sequence at `s`: ESC [ ... letter, or ESC and one character. */
static size_t escape_length(const char *s, size_t n)
{
    size_t i = 2;

    if (n < 2)
        return n;
    if (s[1] != '[')
        return 2;
    while (i < n && (unsigned char)s[i] >= 0x20 && (unsigned char)s[i] <= 0x3f)
        i++;
    return i < n ? i + 1 : n;
}

/* Length of the character at `s` when it may be shown; 0 when not. */
static size_t character_length(const char *s, size_t n)
{
    unsigned char c = (unsigned char)s[0];

    if (c < 0x80)
        return c >= 0x20 && c != 0x7f;
    for (size_t len = 2; len <= 4 && len <= n; len++) {
        if (str_is_utf8(s, len)) /* C2 80 to C2 9F are control characters */
            return c == 0xc2 && (unsigned char)s[1] < 0xa0 ? 0 : len;
    }
    return 0;
}

static void append_clean(struct str *out, const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        size_t len = character_length(s + i, n - i);

        if (s[i] == '\x1b') {
            i += escape_length(s + i, n - i);
            continue;
        }
        str_append_bytes(out, len ? s + i : s[i] == '\t' ? " " : "?", len ? len : 1);
        i += len ? len : 1;
    }
}

/* From where in `line`, of `n` bytes, it has at most `most` bytes, between characters. */
static size_t cut_front(const char *line, size_t n, size_t most)
{
    size_t from = n > most ? n - most : 0;

    while (from < n && ((unsigned char)line[from] & 0xc0) == 0x80)
        from++;
    return from;
}

#define SEPARATOR " | "

/* Puts a line in front of those that are there, as far as it fits. */
static void put_before(struct str *all, const char *line, size_t n)
{
    size_t taken = all->len ? all->len + strlen(SEPARATOR) : 0;

    if (taken >= DOCKER_LOG_BYTES)
        return;
    size_t from = cut_front(line, n, DOCKER_LOG_BYTES - taken);
    if (from == n)
        return;
    struct str whole = {0};
    str_append_bytes(&whole, line + from, n - from);
    if (all->len) {
        str_append(&whole, SEPARATOR);
        str_append_bytes(&whole, all->data, all->len);
    }
    str_done(all);
    *all = whole;
}

static void take_line(struct str *all, const char *s, size_t n, unsigned *lines)
{
    CLEANUP_STR struct str clean = {0};
    /* No more of it than could be shown, were each byte a character; escape sequences may make it less. */
    size_t from = n > (size_t)4 * DOCKER_LOG_BYTES ? n - (size_t)4 * DOCKER_LOG_BYTES : 0;

    append_clean(&clean, s + from, n - from);
    while (clean.len && clean.data[clean.len - 1] == ' ')
        clean.len--;
    if (!clean.len)
        return;
    put_before(all, clean.data, clean.len);
    ++*lines;
}

char *docker_parse_logs(const char *body, size_t n)
{
    CLEANUP_STR struct str text = {0};
    CLEANUP_STR struct str all = {0};
    unsigned lines = 0;

    take_frames(body, n, &text);
    for (size_t end = text.len; end > 0 && lines < DOCKER_LOG_LINES;) {
        size_t begin = end;

        while (begin > 0 && text.data[begin - 1] != '\n' && text.data[begin - 1] != '\r')
            begin--;
        take_line(&all, text.data + begin, end - begin, &lines);
        end = begin ? begin - 1 : 0;
    }
    return all.len ? str_steal(&all) : NULL;
}
