#include "model/record_json.h"

#include "base/str.h"

#include <errno.h>
#include <inttypes.h>

struct record_writer record_begin(int format)
{
    struct record_writer w = {.object = json_object()};

    w.failed = json_object_set_new(w.object, "format", json_integer(format)) != 0;
    return w;
}

void record_set(struct record_writer *w, const char *key, json_t *value)
{
    /* A key that is there already would be overwritten without a word. */
    bool twice = json_object_get(w->object, key) != NULL;

    if (json_object_set_new(w->object, key, value) != 0 || twice)
        w->failed = true;
}

void record_append(struct record_writer *w, json_t *array, json_t *value)
{
    if (json_array_append_new(array, value) != 0)
        w->failed = true;
}

char *record_finish(struct record_writer *w)
{
    char *text = w->failed ? NULL : json_dumps(w->object, JSON_COMPACT);

    json_decref(w->object);
    return text;
}

json_t *record_number(uint64_t v)
{
    char text[32];

    if (v <= INT64_MAX)
        return json_integer((json_int_t)v);
    (void)snprintf(text, sizeof(text), "%" PRIu64, v);
    return json_string(text);
}

json_t *record_id(const struct uuid *u)
{
    return uuid_is_nil(u) ? json_null() : json_string(UUID_STR(u));
}

json_t *record_own_id(const struct uuid *u)
{
    return uuid_is_nil(u) ? NULL : json_string(UUID_STR(u));
}

json_t *record_text(const char *s)
{
    return s ? json_string(s) : json_null();
}

void record_wrong(struct record_reader *r, const char *key, const char *must)
{
    if (!r->err)
        r->err = err_new(ERR_CORRUPT, "%s record: field \"%s\" must be %s", r->what, key, must);
}

json_t *record_take(struct record_reader *r, const char *key)
{
    json_t *v = json_incref(json_object_get(r->object, key));

    if (!v && !r->err)
        r->err = err_new(ERR_CORRUPT, "%s record: field \"%s\" is missing", r->what, key);
    if (v)
        (void)json_object_del(r->object, key);
    return v;
}

/* The canonical decimal text of a number above INT64_MAX. */
static bool parse_large(const char *s, uint64_t *ret)
{
    char again[32];
    char *end;

    errno = 0;
    unsigned long long v = strtoull(s, &end, 10);
    if (errno || *end || v <= INT64_MAX)
        return false;
    (void)snprintf(again, sizeof(again), "%llu", v);
    if (!streq(s, again))
        return false;
    *ret = v;
    return true;
}

uint64_t record_value_number(struct record_reader *r, const char *key, const json_t *v,
                             uint64_t max)
{
    uint64_t n = 0;

    if (json_is_integer(v) && json_integer_value(v) >= 0)
        n = (uint64_t)json_integer_value(v);
    else if (!json_is_string(v) || !parse_large(json_string_value(v), &n))
        record_wrong(r, key, "a whole number from 0 to 18446744073709551615");
    if (n <= max)
        return n;
    record_wrong(r, key, "a smaller number");
    return 0;
}

uint64_t record_get_number(struct record_reader *r, const char *key, uint64_t max)
{
    json_t *v = record_take(r, key);
    uint64_t n = v ? record_value_number(r, key, v, max) : 0;

    json_decref(v);
    return n;
}

bool record_get_bool(struct record_reader *r, const char *key)
{
    json_t *v = record_take(r, key);
    bool b = json_is_true(v);

    if (v && !json_is_boolean(v))
        record_wrong(r, key, "true or false");
    json_decref(v);
    return b;
}

char *record_get_text(struct record_reader *r, const char *key, bool nullable)
{
    json_t *v = record_take(r, key);
    char *s = NULL;

    if (json_is_string(v))
        s = xstrdup(json_string_value(v));
    else if (v && !(nullable && json_is_null(v)))
        record_wrong(r, key, nullable ? "a text or null" : "a text");
    json_decref(v);
    return s;
}

struct uuid record_value_id(struct record_reader *r, const char *key, const json_t *v)
{
    struct uuid u = UUID_NIL;

    if (json_is_string(v) && uuid_parse(json_string_value(v), &u) &&
        streq(UUID_STR(&u), json_string_value(v)) && !uuid_is_nil(&u))
        return u;
    record_wrong(r, key, "a UUID in lower case");
    return UUID_NIL;
}

struct uuid record_get_id(struct record_reader *r, const char *key, bool nullable)
{
    json_t *v = record_take(r, key);
    struct uuid u = UUID_NIL;

    if (v && !(nullable && json_is_null(v)))
        u = record_value_id(r, key, v);
    json_decref(v);
    return u;
}

json_t *record_get_typed(struct record_reader *r, const char *key, json_type type, const char *must)
{
    json_t *v = record_take(r, key);

    if (!v || json_typeof(v) == type)
        return v;
    record_wrong(r, key, must);
    json_decref(v);
    return NULL;
}

void record_get_part(struct record_reader *r, const char *what, json_t *v,
                     void (*fields)(struct record_reader *part, void *to), void *to)
{
    struct record_reader part = {.object = v, .what = what, .format = r->format};

    if (!json_is_object(v)) {
        record_wrong(r, what, "an object");
        return;
    }
    fields(&part, to);
    if (!part.err && json_object_size(v))
        part.err = err_new(ERR_CORRUPT, "field \"%s\" is unknown",
                           json_object_iter_key(json_object_iter(v)));
    if (r->err)
        part.err = err_free(part.err);
    else
        r->err = err_wrap(part.err, "%s record", r->what);
}

struct err *record_parse(const char *what, uint64_t newest, const char *text, size_t n,
                         struct record_reader *ret)
{
    json_error_t e;
    json_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &e);

    if (!root)
        return err_new(ERR_CORRUPT, "%s record: not JSON: %s (at byte %d)", what, e.text,
                       e.position);
    *ret = (struct record_reader){.object = root, .what = what};
    if (!json_is_object(root)) {
        json_decref(root);
        return err_new(ERR_CORRUPT, "%s record: not a JSON object", what);
    }
    uint64_t format = record_get_number(ret, "format", UINT64_MAX);
    ret->format = format;
    if (!ret->err && format > newest)
        ret->err = err_new(ERR_CORRUPT,
                           "%s record: format %" PRIu64 " was written by a newer Flocker; this one "
                           "knows formats up to %" PRIu64 ": install the newer version again",
                           what, format, newest);
    if (!ret->err && format == 0)
        record_wrong(ret, "format", "at least 1");
    if (!ret->err)
        return NULL;
    json_decref(root);
    return steal(&ret->err);
}

struct err *record_parse_end(struct record_reader *r)
{
    const char *key = json_object_iter_key(json_object_iter(r->object));

    if (key && !r->err)
        r->err = err_new(ERR_CORRUPT, "%s record: field \"%s\" is unknown", r->what, key);
    json_decref(r->object);
    return steal(&r->err);
}
