#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "exhaust.h"

#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#define SHOWN 20 /* of the allocations that end wrongly */

/* The allocator: the C library's, with a count. */

void *__libc_malloc(size_t n);
void *__libc_calloc(size_t count, size_t n);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t alignment, size_t n);
void __libc_free(void *p);

static uint64_t calls, fail_at; /* 0: never */
static int64_t live;
static unsigned paused;

static bool fails(void)
{
    if (!fail_at || paused || ++calls != fail_at)
        return false;
    errno = ENOMEM;
    return true;
}

void *malloc(size_t n)
{
    void *p = fails() ? NULL : __libc_malloc(n);

    live += p != NULL;
    return p;
}

void *calloc(size_t count, size_t n)
{
    void *p = fails() ? NULL : __libc_calloc(count, n);

    live += p != NULL;
    return p;
}

void *realloc(void *p, size_t n)
{
    bool frees = p && n == 0;

    if (!frees && fails())
        return NULL;
    void *q = __libc_realloc(p, n);
    live += (!p && q) - frees;
    return q;
}

void *memalign(size_t alignment, size_t n)
{
    void *p = fails() ? NULL : __libc_memalign(alignment, n);

    live += p != NULL;
    return p;
}

void *aligned_alloc(size_t alignment, size_t n)
{
    return memalign(alignment, n);
}

int posix_memalign(void **ret, size_t alignment, size_t n)
{
    void *p = memalign(alignment, n);

    if (!p)
        return ENOMEM;
    *ret = p;
    return 0;
}

void free(void *p)
{
    live -= p != NULL;
    __libc_free(p);
}

void exhaust_pause(void)
{
    paused++;
}

void exhaust_resume(void)
{
    paused--;
}

/* ---- one allocation, in a child ---- */

enum end {
    END_SAME = 40,
    END_ERROR,
    END_WRONG,
    END_LEAK,
    END_BLAMES, /* the error calls bytes damaged that are not */
};

static bool in_child;

void exhaust_wrong(const char *why)
{
    (void)dprintf(STDERR_FILENO, "%s", why);
    if (!in_child)
        abort();
    _exit(END_WRONG);
}

static struct err *run(const struct exhaust_trial *t, uint64_t n, struct str *out)
{
    if (t->before)
        t->before();
    calls = 0;
    fail_at = n;
    struct err *e = t->run(out);
    fail_at = 0;
    if (t->after)
        t->after();
    return e;
}

static _Noreturn void child(const struct exhaust_trial *t, uint64_t n, const struct str *want,
                            int to)
{
    struct str out = {0};
    int64_t before = live;

    static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};

    in_child = true;
    for (size_t i = 0; i < ARRAY_SIZE(crashes); i++) /* else cmocka takes them */
        (void)signal(crashes[i], SIG_DFL);
    (void)alarm(30);
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0});
    (void)dup2(to, STDERR_FILENO);
    struct err *e = run(t, n, &out);
    bool blames = err_is(e, ERR_CORRUPT) || err_is(e, ERR_INVALID);
    bool same = !e && out.len == want->len && memcmp(out.data, want->data, out.len) == 0;
    bool failed = e != NULL;
    if (e)
        (void)dprintf(to, "%s: %s", err_code_name(e->code), e->text);
    else if (!same)
        (void)dprintf(to, "%.300s", out.data);
    err_free(e);
    str_done(&out);
    if (live != before)
        (void)dprintf(to, " %ld left", (long)(live - before));
    if (live != before)
        _exit(END_LEAK);
    _exit(blames ? END_BLAMES : failed ? END_ERROR : same ? END_SAME : END_WRONG);
}

/* Runs the child; returns its status, and what it said. */
static int try_one(const struct exhaust_trial *t, uint64_t n, const struct str *want, char *said,
                   size_t size)
{
    int fds[2], status;
    size_t used = 0;

    assert_int_equal(pipe(fds), 0);
    (void)fflush(NULL);
    pid_t pid = fork();
    if (pid == 0)
        child(t, n, want, fds[1]);
    (void)close(fds[1]);
    for (ssize_t r; (r = read(fds[0], said + used, size - 1 - used)) > 0;)
        used += (size_t)r;
    said[used] = '\0';
    (void)close(fds[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* A connection that a time-out ends is seldom worth a line. */
static bool logged(const char *said)
{
    return strstr(said, "timeout: ") || strstr(said, "Z error ") || strstr(said, "Z warning ");
}

void exhaust_each(const struct exhaust_trial *t)
{
    const char *full = getenv("FLOCKER_TEST_FULL");
    uint64_t total, stride = 1, ended = 0, errors = 0, same = 0, wrong = 0;
    struct str want = {0};
    char said[4000];

    for (int i = 0; i < 2; i++) { /* the first fills caches */
        want.len = 0;
        struct err *e = run(t, UINT64_MAX, &want);
        if (e)
            fail_msg("%s: %s", t->name, e->text);
    }
    total = calls;
    assert_true(total > 0);
    unsigned at_most = full && *full && !streq(full, "0") ? t->full_at_most : t->at_most;
    if (at_most && total > at_most)
        stride = total / at_most;
    for (uint64_t n = 1; n <= total; n += stride) {
        int status = try_one(t, n, &want, said, sizeof(said));
        int code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;

        if (WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT &&
            strstr(said, "out of memory; ending"))
            ended++;
        else if (code == END_SAME)
            same++;
        else if (code == END_ERROR && (!t->logs || logged(said)))
            errors++;
        else if (wrong++ < SHOWN)
            print_error("%s, allocation %d of %d: signal %d, exit %d: %s\n", t->name, (int)n,
                        (int)total, WIFSIGNALED(status) ? WTERMSIG(status) : 0, code, said);
    }
    str_done(&want);
    (void)printf("%s: %d of %d allocations: %d ended, %d errors, %d without effect\n", t->name,
                 (int)(ended + errors + same + wrong), (int)total, (int)ended, (int)errors,
                 (int)same);
    if (wrong > 0)
        fail_msg("%s: %d allocations end wrongly", t->name, (int)wrong);
}
