/* Values as Compose files write them. */
#include "model/compose_services.h"

#include <math.h>
#include <string.h>

char *scalar_text(const json_t *v)
{
    if (json_is_object(v) || json_is_array(v) || json_is_null(v) || !v)
        return NULL;
    return shown(v);
}

bool take_integer(const json_t *v, json_int_t *ret)
{
    const char *text = json_string_value(v);
    char *end;

    if (json_is_integer(v)) {
        *ret = json_integer_value(v);
        return true;
    }
    if (!text || *text < '0' || *text > '9' || strlen(text) > 15)
        return false;
    *ret = strtoll(text, &end, 10);
    return !*end;
}

bool take_boolean(const json_t *v, bool *ret)
{
    const char *text = json_string_value(v);

    *ret = json_is_true(v) || (text && streq(text, "true"));
    return *ret || json_is_false(v) || (text && streq(text, "false"));
}

bool take_bytes(const json_t *v, json_int_t *ret)
{
    CLEANUP_FREE char *text = scalar_text(v);
    const char *end;
    long double size;

    if (!text || json_is_boolean(v) || !compose_quantity(text, &end, &size))
        return false;
    if (end > text && end[-1] > '9' && (*end == 'i' || *end == 'I'))
        end++;
    if (*end == 'b' || *end == 'B')
        end++;
    if (*end || size > (long double)INT64_MAX)
        return false;
    *ret = (json_int_t)ceill(size);
    return true;
}

bool take_duration(const json_t *v, double *ret)
{
    static const struct {
        const char *name;
        double seconds;
    } units[] = {{"ms", 1e-3}, {"us", 1e-6}, {"ns", 1e-9}, {"h", 3600}, {"m", 60}, {"s", 1}};
    const char *p = json_string_value(v);
    double sum = 0;

    if (!p || !*p)
        return false;
    while (*p) {
        double number = 0, digit = 1;
        const char *start = p;
        for (; *p >= '0' && *p <= '9'; p++)
            number = number * 10 + (*p - '0');
        for (p += *p == '.'; *p >= '0' && *p <= '9'; p++)
            number += (*p - '0') * (digit /= 10);
        size_t i = 0;
        while (i < ARRAY_SIZE(units) && strncmp(p, units[i].name, strlen(units[i].name)) != 0)
            i++;
        if (p == start || i == ARRAY_SIZE(units))
            return false;
        sum += number * units[i].seconds;
        p += strlen(units[i].name);
    }
    *ret = sum;
    return isfinite(sum);
}

/* One word of a command line as a shell would take it; NULL when a quote does not end. */
static const char *take_word(const char *p, struct str *word)
{
    char quote = 0;

    for (; *p && (quote || !strchr(" \t\n", *p)); p++) {
        if (quote && *p == quote)
            quote = 0;
        else if (!quote && (*p == '\'' || *p == '"'))
            quote = *p;
        else if (*p == '\\' && quote != '\'' && p[1] && (!quote || strchr("\"\\$`", p[1])))
            str_append_bytes(word, ++p, 1);
        else
            str_append_bytes(word, p, 1);
    }
    return quote ? NULL : p;
}

static json_t *split_words(const char *text)
{
    json_t *list = json_array();

    for (text += strspn(text, " \t\n"); *text; text += strspn(text, " \t\n")) {
        CLEANUP_STR struct str word = {0};
        text = take_word(text, &word);
        if (!text) {
            json_decref(list);
            return NULL;
        }
        (void)json_array_append_new(list, json_stringn(word.data ? word.data : "", word.len));
    }
    return list;
}

json_t *take_command(const json_t *v)
{
    const json_t *item;
    size_t i;

    if (json_is_string(v))
        return split_words(json_string_value(v));
    if (!json_is_array(v))
        return NULL;
    json_t *list = json_array();
    json_array_foreach (v, i, item) {
        CLEANUP_FREE char *text = scalar_text(item);
        if (!text) {
            json_decref(list);
            return NULL;
        }
        (void)json_array_append_new(list, json_string(text));
    }
    return list;
}
