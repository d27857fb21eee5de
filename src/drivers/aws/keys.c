#include "drivers/aws/keys.h"

#include "base/now.h"
#include "base/str.h"

#include <jansson.h>
#include <stdio.h>
#include <time.h>

#define KEY_MAX 256u
#define TOKEN_MAX (16u << 10)

static void scrub(char *s)
{
    if (s)
        explicit_bzero(s, strlen(s));
    free(s);
}

void aws_keys_done(struct aws_keys *k)
{
    scrub(k->id);
    scrub(k->secret);
    scrub(k->token);
    *k = (struct aws_keys){0};
}

void aws_keys_copy(struct aws_keys *to, const struct aws_keys *from)
{
    *to = (struct aws_keys){.id = xstrdup(from->id),
                            .secret = xstrdup(from->secret),
                            .token = xstrdup_null(from->token),
                            .expires_us = from->expires_us};
}

static bool is_key(const char *s, size_t max)
{
    size_t n = s ? strlen(s) : 0;

    for (size_t i = 0; i < n; i++) {
        if (s[i] < 0x21 || s[i] > 0x7e)
            return false;
    }
    return n && n <= max;
}

bool aws_keys_are_sane(const struct aws_keys *k)
{
    return is_key(k->id, KEY_MAX) && is_key(k->secret, KEY_MAX) &&
           (!k->token || is_key(k->token, TOKEN_MAX));
}

/* ---- time ---- */

bool aws_time_parse(const char *text, uint64_t *ret_wall_us)
{
    static const char form[] = "0000-00-00T00:00:00";
    struct tm tm = {0};
    const char *rest;

    for (size_t i = 0; form[i]; i++) {
        if (form[i] == '0' ? text[i] < '0' || text[i] > '9' : text[i] != form[i])
            return false;
    }
    rest = strptime(text, "%Y-%m-%dT%H:%M:%S", &tm);
    if (!rest || rest != text + sizeof(form) - 1)
        return false;
    if (*rest == '.')
        rest += 1 + strspn(rest + 1, "0123456789");
    time_t t = timegm(&tm);

    if (!streq(rest, "Z") || t < 0)
        return false;
    *ret_wall_us = (uint64_t)t * USEC_PER_SEC;
    return true;
}

/* ---- answers ---- */

static char *string_of(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));

    return s && *s ? xstrdup(s) : NULL;
}

static bool read_keys(const json_t *o, struct aws_keys *k)
{
    const char *expires = json_string_value(json_object_get(o, "Expiration"));

    k->id = string_of(o, "AccessKeyId");
    k->secret = string_of(o, "SecretAccessKey");
    k->token = string_of(o, "Token");
    return aws_keys_are_sane(k) && (!expires || aws_time_parse(expires, &k->expires_us));
}

struct err *aws_keys_parse(const char *bytes, size_t n, struct aws_keys *ret_keys)
{
    struct aws_keys k = {0};

    if (n > AWS_KEYS_BYTES_MAX)
        return err_new(ERR_CORRUPT, "the answer with the keys is longer than %u bytes",
                       AWS_KEYS_BYTES_MAX);
    json_t *o = json_loadb(bytes, n, 0, NULL);
    bool good = json_is_object(o) && read_keys(o, &k);

    json_decref(o);
    if (!good) {
        aws_keys_done(&k);
        return err_new(ERR_CORRUPT, "the answer holds no access keys");
    }
    *ret_keys = k;
    return NULL;
}

/* ---- files ---- */

struct profile_reading {
    const char *profile;
    bool inside, seen;
    struct aws_keys keys;
};

static char *part(const char *from, const char *to)
{
    while (from < to && strchr(" \t\r", *from))
        from++;
    while (to > from && strchr(" \t\r", to[-1]))
        to--;
    return xstrndup(from, (size_t)(to - from));
}

static bool begin_section(struct profile_reading *r, const char *line, const char *end)
{
    const char *close = memchr(line, ']', (size_t)(end - line));

    if (!close)
        return false;
    CLEANUP_FREE char *name = part(line + 1, close);

    r->inside = streq(name, r->profile);
    r->seen = r->seen || r->inside;
    return true;
}

static void set_once(char **to, char **value)
{
    if (!*to)
        *to = steal(value);
}

static bool take_setting(struct profile_reading *r, const char *line, const char *end)
{
    const char *sign = memchr(line, '=', (size_t)(end - line));

    if (!sign)
        return false;
    if (!r->inside)
        return true;
    CLEANUP_FREE char *name = part(line, sign);
    char *value = part(sign + 1, end);

    if (streq(name, "aws_access_key_id"))
        set_once(&r->keys.id, &value);
    else if (streq(name, "aws_secret_access_key"))
        set_once(&r->keys.secret, &value);
    else if (streq(name, "aws_session_token") && *value)
        set_once(&r->keys.token, &value);
    scrub(value);
    return true;
}

/* Lines that begin with white space belong to a nested setting, which is none of ours. */
static bool take_line(struct profile_reading *r, const char *line, const char *end)
{
    if (line == end || strchr("#; \t\r", *line))
        return true;
    return *line == '[' ? begin_section(r, line, end) : take_setting(r, line, end);
}

static struct err *read_profile(struct profile_reading *r, const char *text)
{
    unsigned n = 1;

    for (const char *line = text; *line; n++) {
        const char *end = strchrnul(line, '\n');

        if (!take_line(r, line, end))
            return err_new(ERR_INVALID, "line %u is neither [PROFILE] nor NAME = VALUE", n);
        line = *end ? end + 1 : end;
    }
    if (!r->seen)
        return err_new(ERR_NOT_FOUND, "there is no profile [%s]", r->profile);
    if (!r->keys.id && !r->keys.secret)
        return err_new(ERR_NOT_FOUND, "profile [%s] has no access key", r->profile);
    if (!aws_keys_are_sane(&r->keys))
        return err_new(ERR_INVALID, "the access key in profile [%s] is incomplete or cannot be one",
                       r->profile);
    return NULL;
}

struct err *aws_keys_of_profile(const char *text, const char *profile, struct aws_keys *ret_keys)
{
    struct profile_reading r = {.profile = profile};
    struct err *e = read_profile(&r, text);

    if (e)
        aws_keys_done(&r.keys);
    else
        *ret_keys = r.keys;
    return e;
}

/* ---- addresses ---- */

bool aws_container_url_is_safe(const char *url)
{
    static const char *const hosts[] = {"127.0.0.1",     "localhost",      "[::1]",
                                        "169.254.170.2", "169.254.170.23", "[fd00:ec2::23]"};

    for (const char *c = url; *c; c++) {
        if (*c < 0x21 || *c > 0x7e || *c == '@' || *c == '\\')
            return false;
    }
    if (str_has_prefix(url, "https://"))
        return true;
    if (!str_has_prefix(url, "http://"))
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(hosts); i++) {
        const char *rest = url + strlen("http://");

        if (!str_has_prefix(rest, hosts[i]))
            continue;
        rest += strlen(hosts[i]);
        if (*rest == ':')
            rest += 1 + strspn(rest + 1, "0123456789");
        if (*rest == '/' || !*rest)
            return true;
    }
    return false;
}
