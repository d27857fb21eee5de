/* Memory helpers. The x-functions never return NULL: when memory is exhausted the process
 * ends with a message. That is safe here because every program is crash-only (HACKING.md, "Memory"):
 * whatever it acknowledged is durable, and a restart continues where it stopped. Sizes that a
 * peer controls are bounded before they get here. All functions are thread-safe. */
#pragma once

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#define MUST_USE __attribute__((warn_unused_result))

/* Runs `fn(&variable)` when the variable leaves its scope. */
#define CLEANUP(fn) __attribute__((cleanup(fn), unused))
#define CLEANUP_FREE CLEANUP(mem_freep)
#define CLEANUP_CLOSE CLEANUP(mem_closep)

/* For what a library of others cannot allocate: ends the process with the same message. */
_Noreturn void mem_exhausted(void);

void *xmalloc(size_t size) __attribute__((malloc, returns_nonnull));
void *xcalloc(size_t count, size_t size) __attribute__((malloc, returns_nonnull));
/* realloc of count*size bytes, checked for overflow; count*size must not be 0. */
void *xrealloc(void *p, size_t count, size_t size) __attribute__((returns_nonnull));
char *xstrdup(const char *s) __attribute__((malloc, returns_nonnull));
/* NULL stays NULL. */
char *xstrdup_null(const char *s);
char *xstrndup(const char *s, size_t n) __attribute__((malloc, returns_nonnull));
void *xmemdup(const void *p, size_t n) __attribute__((returns_nonnull));
char *xasprintf(const char *fmt, ...) PRINTF_LIKE(1, 2) __attribute__((malloc, returns_nonnull));
char *xvasprintf(const char *fmt, va_list ap) PRINTF_LIKE(1, 0) __attribute__((malloc, returns_nonnull));

/* Makes room for one more element in a growing array; returns the (possibly moved) array. */
void *mem_grow(void *array, size_t used, size_t *capacity, size_t element_size);

/* For programs that run for long beside others' work: few arenas for however many threads, freed memory goes back. Call
 * once, before the first thread. */
void mem_setup_service(void);
/* Gives back what a burst of work left free in all arenas; some milliseconds at worst. */
void mem_give_back(void);

void mem_freep(void *p);  /* for CLEANUP_FREE: frees *(void **)p */
void mem_closep(int *fd); /* for CLEANUP_CLOSE: closes *fd when >= 0 */

/* Hands a pointer over and leaves NULL behind. */
#define steal(pp)                                                                                  \
    ({                                                                                             \
        __typeof__(pp) steal_pp_ = (pp);                                                           \
        __typeof__(*steal_pp_) steal_v_ = *steal_pp_;                                              \
        *steal_pp_ = NULL;                                                                         \
        steal_v_;                                                                                  \
    })
static inline int steal_fd(int *fd)
{
    int v = *fd;

    *fd = -1;
    return v;
}
