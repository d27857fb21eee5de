/* Errors at the borders of modules. A function that can fail returns `struct err *`: NULL is success,
 * anything else is owned by the caller, who returns it (maybe with more context), or decides, logs once
 * and frees. Never match on the text; match on the code. */
#pragma once

#include "base/mem.h"

#include <stdbool.h>

enum err_code {
    ERR_INVALID,     /* the caller's input is wrong; repeating it will not help */
    ERR_NOT_FOUND,   /* the named thing does not exist */
    ERR_EXISTS,      /* the thing exists already, or exists with other properties */
    ERR_CONFLICT,    /* the present state does not allow it */
    ERR_BUSY,        /* somebody uses it; will pass */
    ERR_NO_SPACE,    /* a disk, a pool, or what a user may have of it, is full */
    ERR_IO,          /* the operating system or a device failed */
    ERR_TIMEOUT,     /* a deadline passed */
    ERR_UNAVAILABLE, /* a peer, service or program cannot be reached or is missing */
    ERR_DENIED,      /* not permitted */
    ERR_UNSUPPORTED, /* this backend or system cannot do it */
    ERR_CORRUPT,     /* stored or received bytes are not what they must be */
    ERR_DIFFERS,     /* two things that were compared are not the same */
    ERR_LIMIT,       /* the dataset's own size limit is reached; the storage is not full */
    ERR_TOO_MANY,    /* as many as are allowed (volumes of a machine or an account, changes in a time) are there */
    ERR_CANCELLED,   /* somebody asked to stop */
    ERR_INTERNAL,    /* a defect of this program */
    ERR_CODE_MAX,
    ERR_CODE_INVALID = -1,
};

struct err {
    enum err_code code;
    char *text; /* a sentence for people: what failed, on what, why, what to do */
};

/* Makes an error: `return err_new(ERR_IO, "cannot open %s: %s", path, strerror(errno));` */
struct err *err_new(enum err_code code, const char *fmt, ...) PRINTF_LIKE(2, 3) MUST_USE
    __attribute__((returns_nonnull));
/* The same with ": " and the text of `errnum` at the end; picks a code that fits errnum. */
struct err *err_errno(int errnum, const char *fmt, ...) PRINTF_LIKE(2, 3) MUST_USE
    __attribute__((returns_nonnull));
/* Puts "context: " in front of the text; takes and returns `e`; NULL stays NULL. */
struct err *err_wrap(struct err *e, const char *fmt, ...) PRINTF_LIKE(2, 3) MUST_USE;
struct err *err_free(struct err *e); /* accepts NULL; returns NULL */
/* true when `e` has this code; NULL has none. */
bool err_is(const struct err *e, enum err_code code);
/* "busy", "no-space", ...: stable names, used on the wire and in the API. */
const char *err_code_name(enum err_code code);
enum err_code err_code_parse(const char *name); /* ERR_CODE_INVALID when unknown */

void err_freep(struct err **e);
#define CLEANUP_ERR CLEANUP(err_freep)

/* Returns the error of `expr` from the calling function, if there is one. */
#define TRY(expr)                                                                                  \
    do {                                                                                           \
        struct err *try_e_ = (expr);                                                               \
        if (try_e_)                                                                                \
            return try_e_;                                                                         \
    } while (0)
