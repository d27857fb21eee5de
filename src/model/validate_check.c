/* What the checks of all bodies use. */
#include "model/validate_private.h"

#include <ctype.h>
#include <stdarg.h>

void complain(struct check *c, const char *fmt, ...)
{
    va_list ap;

    if (!c->errors)
        c->errors = json_array();
    if (json_array_size(c->errors) >= VALIDATE_MAX_ERRORS)
        return;
    va_start(ap, fmt);
    CLEANUP_FREE char *text = xvasprintf(fmt, ap);
    va_end(ap);
    /* A key of the client's may have been cut within a character. */
    if (!str_is_utf8(text, strlen(text))) {
        for (char *p = text; *p; p++)
            *p = (char)(isascii(*p) ? *p : '?');
    }
    (void)json_array_append_new(c->errors, json_string(text));
}

static const struct field *find_field(const struct field *fields, size_t n, const char *key)
{
    for (size_t i = 0; i < n; i++) {
        if (streq(fields[i].key, key))
            return &fields[i];
    }
    return NULL;
}

void check_object(struct check *c, const char *prefix, const json_t *v, const struct field *fields,
                  size_t n, void *to)
{
    const char *key;
    json_t *item;

    if (!json_is_object(v)) {
        if (*prefix)
            complain(c, "\"%.*s\" must be an object", (int)strlen(prefix) - 1, prefix);
        else
            complain(c, "the body must be a JSON object");
        return;
    }
    json_object_foreach ((json_t *)v, key, item) {
        if (!find_field(fields, n, key))
            complain(c, KEY_FMT " is not a known key here", prefix, key);
    }
    for (size_t i = 0; i < n; i++) {
        CLEANUP_FREE char *where = xasprintf("%s%s", prefix, fields[i].key);

        item = json_object_get(v, fields[i].key);
        if (item)
            fields[i].check(c, where, item, to);
        else if (fields[i].required)
            complain(c, "\"%s\" is required", where);
    }
}

/* ---- values ---- */

size_t characters(const char *s)
{
    size_t n = 0;

    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

bool check_line(struct check *c, const char *where, const char *s, size_t max)
{
    for (const char *p = s; *p; p++) {
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            complain(c, "\"%s\" must not have control characters", where);
            return false;
        }
    }
    if (strlen(s) > max)
        complain(c, "\"%s\" must have at most %zu bytes", where, max);
    return strlen(s) <= max;
}

bool check_integer(struct check *c, const char *where, const json_t *v, json_int_t min,
                   json_int_t max, json_int_t *ret)
{
    if (!json_is_integer(v)) {
        complain(c, "\"%s\" must be a whole number", where);
        return false;
    }
    *ret = json_integer_value(v);
    if (*ret >= min && *ret <= max)
        return true;
    if (max == INT64_MAX)
        complain(c, "\"%s\" must be at least %lld", where, (long long)min);
    else
        complain(c, "\"%s\" must be from %lld to %lld", where, (long long)min, (long long)max);
    return false;
}

void check_uuid_v4(struct check *c, const char *where, const json_t *v, struct uuid *ret)
{
    if (!json_is_string(v) || !uuid_parse_v4(json_string_value(v), ret))
        complain(c, "\"%s\" must be a version 4 UUID such as c2b7e0d4-5a61-4f3b-9c88-13579bdf2468",
                 where);
}

bool check_list(struct check *c, const char *where, const json_t *v, size_t min, size_t max)
{
    size_t n = json_array_size(v);

    if (!json_is_array(v)) {
        complain(c, "\"%s\" must be a list", where);
        return false;
    }
    if (n < min || n > max) {
        if (n < min)
            complain(c, "\"%s\" must have at least %zu item; leave the key out instead", where,
                     min);
        else
            complain(c, "\"%s\" must have at most %zu items", where, max);
        return false;
    }
    return true;
}

bool alphanumeric(char ch)
{
    return isascii(ch) && isalnum((unsigned char)ch);
}

bool good_name(const char *s)
{
    if (!alphanumeric(s[0]) || !s[1] || strlen(s) > VALIDATE_MAX_NAME)
        return false;
    for (; *s; s++) {
        if (!alphanumeric(*s) && !strchr("_.-", *s))
            return false;
    }
    return true;
}

void check_node(struct check *c, const char *where, const json_t *v, void *to)
{
    check_uuid_v4(c, where, v, to);
}
