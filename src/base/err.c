#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

static const char *const names[ERR_CODE_MAX] = {
    [ERR_INVALID] = "invalid",         [ERR_NOT_FOUND] = "not-found",
    [ERR_EXISTS] = "exists",           [ERR_CONFLICT] = "conflict",
    [ERR_BUSY] = "busy",               [ERR_NO_SPACE] = "no-space",
    [ERR_IO] = "io",                   [ERR_TIMEOUT] = "timeout",
    [ERR_UNAVAILABLE] = "unavailable", [ERR_DENIED] = "denied",
    [ERR_UNSUPPORTED] = "unsupported", [ERR_CORRUPT] = "corrupt",
    [ERR_DIFFERS] = "differs",         [ERR_LIMIT] = "limit",
    [ERR_TOO_MANY] = "too-many",       [ERR_CANCELLED] = "cancelled",
    [ERR_INTERNAL] = "internal",
};

static struct err *make(enum err_code code, char *text)
{
    struct err *e = xmalloc(sizeof(*e));

    e->code = code;
    e->text = text;
    return e;
}

struct err *err_new(enum err_code code, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    char *text = xvasprintf(fmt, ap);
    va_end(ap);
    return make(code, text);
}

static enum err_code code_of_errno(int errnum)
{
    switch (errnum) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
        return ERR_NOT_FOUND;
    case EEXIST:
        return ERR_EXISTS;
    case EBUSY:
    case ETXTBSY:
        return ERR_BUSY;
    case ENOSPC:
    case EDQUOT:
        return ERR_NO_SPACE;
    case ETIMEDOUT:
        return ERR_TIMEOUT;
    case ECONNREFUSED:
    case ECONNRESET:
    case EHOSTUNREACH:
    case ENETUNREACH:
    case EPIPE:
        return ERR_UNAVAILABLE;
    case EACCES:
    case EPERM:
        return ERR_DENIED;
    case EOPNOTSUPP:
    case ENOSYS:
        return ERR_UNSUPPORTED;
    case EINVAL:
    case ENAMETOOLONG:
        return ERR_INVALID;
    default:
        return ERR_IO;
    }
}

struct err *err_errno(int errnum, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    CLEANUP_FREE char *text = xvasprintf(fmt, ap);
    va_end(ap);
    return make(code_of_errno(errnum), xasprintf("%s: %s", text, strerrordesc_np(errnum)));
}

struct err *err_wrap(struct err *e, const char *fmt, ...)
{
    va_list ap;

    if (!e)
        return NULL;
    va_start(ap, fmt);
    CLEANUP_FREE char *context = xvasprintf(fmt, ap);
    va_end(ap);
    char *text = xasprintf("%s: %s", context, e->text);
    free(e->text);
    e->text = text;
    return e;
}

struct err *err_free(struct err *e)
{
    if (e)
        free(e->text);
    free(e);
    return NULL;
}

void err_freep(struct err **e)
{
    *e = err_free(*e);
}

bool err_is(const struct err *e, enum err_code code)
{
    return e && e->code == code;
}

const char *err_code_name(enum err_code code)
{
    if ((int)code < 0 || code >= ERR_CODE_MAX)
        return "internal";
    return names[code];
}

enum err_code err_code_parse(const char *name)
{
    for (int i = 0; i < ERR_CODE_MAX; i++) {
        if (strcmp(names[i], name) == 0)
            return (enum err_code)i;
    }
    return ERR_CODE_INVALID;
}
