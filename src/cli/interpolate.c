#include "cli/interpolate.h"

#include <ctype.h>
#include <string.h>

#define MAX_DEPTH 20     /* of defaults in defaults */
#define MAX_TEXT (1u << 20) /* bytes that one text becomes */

static bool is_name_start(char c)
{
    return isalpha((unsigned char)c) || c == '_';
}

static size_t name_length(const char *p)
{
    size_t n = 0;

    if (!is_name_start(*p))
        return 0;
    while (isalnum((unsigned char)p[n]) || p[n] == '_')
        n++;
    return n;
}

static struct err *bad_format(const char *at)
{
    return err_new(ERR_INVALID, "'%.40s' is no variable; write $$ for a $ that is meant as it is", at);
}

static struct err *expand(const char **p, char until, unsigned depth, const struct variables *v, struct str *to);

/* What follows the name in "${NAME...}": *p is at it, and then at the "}". */
static struct err *expand_operator(const char **p, const char *start, const char *name, unsigned depth,
                                   const struct variables *v, struct str *to)
{
    const char *value = v->find(v->cookie, name);
    bool colon = **p == ':' && (*p)[1] && strchr("-?+", (*p)[1]);
    CLEANUP_STR struct str word = {0};

    *p += colon;
    char op = **p;
    if (!op || !strchr("-?+", op))
        return bad_format(start);
    ++*p;
    TRY(expand(p, '}', depth + 1, v, &word));
    bool set = value && (!colon || *value);
    if (op == '?' && !set)
        return err_new(ERR_INVALID, "the variable %s is not set%s%s", name, word.len ? ": " : "", word.len ? word.data : "");
    if (op == '+')
        str_append(to, set && word.len ? word.data : "");
    else if (set)
        str_append(to, value);
    else
        str_append(to, word.len ? word.data : "");
    return NULL;
}

static void append_variable(const char *name, const struct variables *v, struct str *to)
{
    const char *value = v->find(v->cookie, name);

    if (value)
        str_append(to, value);
    else if (v->unset)
        (void)json_object_set_new(v->unset, name, json_true());
}

/* *p is behind the "$". */
static struct err *expand_variable(const char **p, unsigned depth, const struct variables *v, struct str *to)
{
    const char *start = *p - 1;
    bool braces = **p == '{';

    *p += braces;
    size_t n = name_length(*p);
    if (!n)
        return bad_format(start);
    CLEANUP_FREE char *name = xstrndup(*p, n);
    *p += n;
    if (braces && **p != '}')
        TRY(expand_operator(p, start, name, depth, v, to));
    else
        append_variable(name, v, to);
    if (braces && **p != '}')
        return bad_format(start);
    *p += braces;
    return NULL;
}

/* Up to the character `until`, at which *p is then; 0 = to the end. */
static struct err *expand(const char **p, char until, unsigned depth, const struct variables *v, struct str *to)
{
    if (depth > MAX_DEPTH)
        return err_new(ERR_INVALID, "more than %d defaults in each other", MAX_DEPTH);
    while (**p && **p != until) {
        if (to->len > MAX_TEXT)
            return err_new(ERR_INVALID, "with its variables it is longer than %u bytes", MAX_TEXT);
        if (**p != '$') {
            str_append_bytes(to, (*p)++, 1);
        } else if ((*p)[1] == '$') {
            str_append(to, "$");
            *p += 2;
        } else {
            ++*p;
            TRY(expand_variable(p, depth, v, to));
        }
    }
    if (until && !**p)
        return err_new(ERR_INVALID, "a '${' has no '}'");
    return NULL;
}

struct err *interpolate(const char *text, const struct variables *v, char **ret_text)
{
    CLEANUP_STR struct str to = {0};

    TRY(expand(&text, 0, 0, v, &to));
    *ret_text = str_steal(&to);
    return NULL;
}

static struct err *interpolate_text(const json_t *value, const struct variables *v, json_t **ret)
{
    CLEANUP_FREE char *text = NULL;

    *ret = NULL;
    if (!strchr(json_string_value(value), '$'))
        return NULL;
    TRY(interpolate(json_string_value(value), v, &text));
    *ret = json_string(text);
    return *ret ? NULL : err_new(ERR_INVALID, "with its variables it is no UTF-8 text");
}

static struct err *interpolate_at(const char *where, json_t *value, const struct variables *v)
{
    const char *key;
    json_t *item, *changed;
    size_t i;

    json_object_foreach (value, key, item) {
        CLEANUP_FREE char *path = xasprintf("%s%s%s", where, *where ? "." : "", key);
        if (!json_is_string(item)) {
            TRY(interpolate_at(path, item, v));
            continue;
        }
        TRY(err_wrap(interpolate_text(item, v, &changed), "%s", path));
        if (changed)
            (void)json_object_set_new(value, key, changed);
    }
    json_array_foreach (value, i, item) {
        if (!json_is_string(item)) {
            TRY(interpolate_at(where, item, v));
            continue;
        }
        TRY(err_wrap(interpolate_text(item, v, &changed), "%s", where));
        if (changed)
            (void)json_array_set_new(value, i, changed);
    }
    return NULL;
}

struct err *interpolate_all(json_t *value, const struct variables *v)
{
    return interpolate_at("", value, v);
}

/* ---- files of variables ---- */

/* A value in double quotes, without them; *p is behind the first one, and then behind the last. */
static struct err *quoted_value(const char **p, char quote, struct str *to)
{
    for (; **p && **p != quote; ++*p) {
        if (quote == '"' && **p == '\\' && (*p)[1]) {
            static const char from[] = "nrt", into[] = "\n\r\t";
            const char *known = strchr(from, *++*p);
            if (**p == '$')
                str_append(to, "$$");
            else
                str_append_bytes(to, known ? &into[known - from] : *p, 1);
        } else {
            str_append_bytes(to, *p, 1);
        }
    }
    if (!**p)
        return err_new(ERR_INVALID, "a quote does not end");
    ++*p;
    return NULL;
}

/* To the end of the line, or a comment. */
static void plain_value(const char **p, struct str *to)
{
    const char *start = *p;

    while (**p && **p != '\n' && !(**p == '#' && *p > start && isblank((unsigned char)(*p)[-1])))
        ++*p;
    size_t n = (size_t)(*p - start);
    while (n && isspace((unsigned char)start[n - 1]))
        n--;
    str_append_bytes(to, start, n);
}

static struct err *read_value(const char **p, const struct variables *v, json_t **ret)
{
    CLEANUP_STR struct str raw = {0};
    CLEANUP_FREE char *text = NULL;
    char quote = **p == '"' || **p == '\'' ? **p : 0;

    if (quote) {
        ++*p;
        TRY(quoted_value(p, quote, &raw));
        *p += strspn(*p, " \t\r");
        if (**p && **p != '\n' && **p != '#')
            return err_new(ERR_INVALID, "something follows the quoted value");
    } else {
        plain_value(p, &raw);
    }
    const char *value = raw.data ? raw.data : "";
    if (quote != '\'') {
        TRY(interpolate(value, v, &text));
        value = text;
    }
    *ret = json_string(value);
    return *ret ? NULL : err_new(ERR_INVALID, "the value is not UTF-8 text");
}

static struct err *read_line(const char **p, const struct variables *v, json_t *to)
{
    json_t *value = NULL;

    if (strncmp(*p, "export ", 7) == 0)
        *p += 7;
    *p += strspn(*p, " \t");
    size_t n = strcspn(*p, "=\n#");
    CLEANUP_FREE char *name = xstrndup(*p, n);
    *p += n;
    while (n && isspace((unsigned char)name[n - 1]))
        name[--n] = '\0';
    if (!n || name[strcspn(name, " \t\"'$")])
        return err_new(ERR_INVALID, "'%.40s' is no name of a variable", name);
    if (**p == '=') {
        ++*p;
        *p += strspn(*p, " \t");
        TRY(err_wrap(read_value(p, v, &value), "%s", name));
    }
    if (json_object_set_new(to, name, value ? value : json_null()) != 0)
        return err_new(ERR_INVALID, "the name of a variable is not UTF-8 text");
    return NULL;
}

static unsigned line_of(const char *text, const char *p)
{
    unsigned line = 1;

    for (; text < p; text++)
        line += *text == '\n';
    return line;
}

struct err *env_file_read(const char *text, const struct variables *v, json_t *to)
{
    for (const char *p = text; *p;) {
        p += strspn(p, " \t\r");
        const char *start = p;
        if (*p && *p != '\n' && *p != '#')
            TRY(err_wrap(read_line(&p, v, to), "line %u", line_of(text, start)));
        p += strcspn(p, "\n");
        p += *p == '\n';
    }
    return NULL;
}
