#include "base/mem.h"

#include <errno.h>
#include <malloc.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

void mem_exhausted(void)
{
    static const char text[] = "out of memory; ending (all acknowledged changes are on disk)\n";

    (void)!write(STDERR_FILENO, text, sizeof(text) - 1);
    abort();
}

void *xmalloc(size_t size)
{
    void *p = malloc(size ? size : 1);

    if (!p)
        mem_exhausted();
    return p;
}

void *xcalloc(size_t count, size_t size)
{
    void *p = calloc(count ? count : 1, size ? size : 1);

    if (!p)
        mem_exhausted();
    return p;
}

void *xrealloc(void *p, size_t count, size_t size)
{
    void *q = reallocarray(p, count, size);

    if (!q)
        mem_exhausted();
    return q;
}

char *xstrdup(const char *s)
{
    char *p = strdup(s);

    if (!p)
        mem_exhausted();
    return p;
}

char *xstrdup_null(const char *s)
{
    return s ? xstrdup(s) : NULL;
}

char *xstrndup(const char *s, size_t n)
{
    char *p = strndup(s, n);

    if (!p)
        mem_exhausted();
    return p;
}

void *xmemdup(const void *p, size_t n)
{
    void *q = xmalloc(n);

    if (n)
        memcpy(q, p, n);
    return q;
}

char *xasprintf(const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    char *p = xvasprintf(fmt, ap);
    va_end(ap);
    return p;
}

char *xvasprintf(const char *fmt, va_list ap)
{
    char *p = NULL;

    if (vasprintf(&p, fmt, ap) < 0)
        mem_exhausted();
    return p;
}

void *mem_grow(void *array, size_t used, size_t *capacity, size_t element_size)
{
    if (used < *capacity)
        return array;
    /* Of big elements there is mostly one. */
    *capacity = *capacity ? *capacity * 2 : (element_size <= 16 ? 8 : 1);
    return xrealloc(array, *capacity, element_size);
}

void mem_freep(void *p)
{
    void *v;

    memcpy(&v, p, sizeof(v));
    free(v);
}

void mem_closep(int *fd)
{
    int saved = errno;

    if (*fd >= 0)
        (void)close(*fd); /* never retried: on Linux the descriptor is gone either way */
    errno = saved;
}

void mem_setup_service(void)
{
    /* By default each thread may get an arena, which keeps what it ever had. Setting a threshold also keeps the
     * allocator from raising it after the first large block. */
    (void)mallopt(M_ARENA_MAX, 2);
    (void)mallopt(M_TRIM_THRESHOLD, 128 * 1024);
}

void mem_give_back(void)
{
    (void)malloc_trim(0);
}
