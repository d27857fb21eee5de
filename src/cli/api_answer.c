#include "cli/api_answer.h"

#include "base/str.h"

char *api_answer_description(const json_t *answer)
{
    const char *text = json_string_value(json_object_get(answer, "description"));
    CLEANUP_STR struct str full = {0};
    size_t i;
    json_t *item;

    if (!text || !*text)
        return NULL;
    str_append(&full, text);
    json_array_foreach (json_object_get(answer, "errors"), i, item) {
        if (json_is_string(item))
            str_appendf(&full, "%s %s", i ? ";" : "", json_string_value(item));
    }
    return str_steal(&full);
}

static char *description_of(const json_t *answer, long status)
{
    if (json_is_string(answer))
        return xasprintf("the control service failed (status %ld); see its log for incident %s",
                         status, json_string_value(answer));
    return api_answer_description(answer);
}

static struct err *status_err(const struct api_answer *a, const json_t *answer)
{
    CLEANUP_FREE char *text = description_of(answer, a->status);
    enum err_code code = ERR_INTERNAL;

    if (!text && (a->status == 404 || a->status == 405))
        return err_new(ERR_UNSUPPORTED,
                       "the control service at %s does not offer %s %s (is it an older one?)",
                       a->peer, a->method, a->path);
    if (a->status == 400)
        code = ERR_INVALID;
    else if (a->status == 404)
        code = ERR_NOT_FOUND;
    else if (a->status == 409 && a->passes)
        code = ERR_BUSY;
    else if (a->status == 405 || a->status == 409 || a->status == 412)
        code = ERR_CONFLICT;
    else if (a->status == 502 || a->status == 503 || a->status == 504)
        code = ERR_UNAVAILABLE;
    if (text)
        return err_new(code, "%s", text);
    return err_new(code, "%s answered %s %s with status %ld", a->peer, a->method, a->path, a->status);
}

struct err *api_answer_read(const struct api_answer *a, json_t **ret_answer)
{
    json_error_t where;
    json_t *answer = json_loadb(a->text, a->n, JSON_DECODE_ANY, &where);

    if (a->status < 200 || a->status > 299) {
        struct err *e = status_err(a, answer);
        json_decref(answer);
        return e;
    }
    if (!answer)
        return err_new(ERR_CORRUPT, "the answer of %s to %s %s is not JSON: %s", a->peer, a->method,
                       a->path, where.text);
    if (ret_answer)
        *ret_answer = answer;
    else
        json_decref(answer);
    return NULL;
}

char *api_path(const char *prefix, const char *name)
{
    static const char plain[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~";
    CLEANUP_STR struct str path = {0};

    str_append(&path, prefix);
    for (const char *p = name; *p; p++) {
        if (strchr(plain, *p))
            str_append_bytes(&path, p, 1);
        else
            str_appendf(&path, "%%%02X", (unsigned char)*p);
    }
    return str_steal(&path);
}
