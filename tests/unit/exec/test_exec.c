#include "base/now.h"
#include "base/str.h"
#include "exec/exec.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#define ARGV(...) ((const char *const[]){__VA_ARGS__, NULL})

static void test_output(void **state)
{
    CLEANUP_EXEC struct exec_result r = {0};
    struct exec_request q = {.argv = ARGV("sh", "-c", "echo out; echo err >&2; cat")};

    assert_null(exec_run(&q, &r));
    assert_string_equal(r.out, "out\n");
    assert_string_equal(r.err_text, "err\n");
    assert_int_equal(r.status, 0);
    assert_false(r.truncated);
}

static void test_arguments_are_not_interpreted(void **state)
{
    CLEANUP_EXEC struct exec_result r = {0};
    struct exec_request q = {.argv = ARGV("printf", "%s|", "a b", "$(id)", "*;&", "")};

    assert_null(exec_run(&q, &r));
    assert_string_equal(r.out, "a b|$(id)|*;&||");
}

static void test_failure(void **state)
{
    struct exec_request q = {.argv = ARGV("sh", "-c", "echo 'no such\tpool' >&2; exit 3")};
    CLEANUP_ERR struct err *e = exec_run(&q, NULL);
    CLEANUP_EXEC struct exec_result r = {0};

    assert_true(err_is(e, ERR_IO));
    assert_string_equal(e->text, "sh failed with status 3: no such\tpool");
    q.any_exit = true;
    assert_null(exec_run(&q, &r));
    assert_int_equal(r.status, 3);
}

static void test_signal(void **state)
{
    struct exec_request q = {.argv = ARGV("sh", "-c", "kill -SEGV $$"), .any_exit = true};
    CLEANUP_ERR struct err *e = exec_run(&q, NULL);

    assert_true(err_is(e, ERR_IO));
    assert_non_null(strstr(e->text, "signal 11"));
}

static void test_missing(void **state)
{
    struct exec_request q = {.argv = ARGV("flocker-no-such-program")};
    CLEANUP_ERR struct err *e = exec_run(&q, NULL);

    assert_true(err_is(e, ERR_UNAVAILABLE));
}

static void test_cap(void **state)
{
    CLEANUP_EXEC struct exec_result r = {0};
    struct exec_request q = {.argv = ARGV("sh", "-c", "head -c 3000000 /dev/zero | tr '\\0' x"),
                             .output_max = 1000};

    assert_null(exec_run(&q, &r));
    assert_int_equal(r.out_len, 1000);
    assert_true(r.truncated);
}

/* The grandchild must die too: otherwise its pid would still be there. */
static void test_deadline_kills_group(void **state)
{
    int p[2];
    char text[32] = "";

    assert_return_code(pipe2(p, O_CLOEXEC), errno);
    struct exec_request q = {.argv = ARGV("sh", "-c", "sleep 60 & echo $!; wait"),
                             .stdout_fd = p[1],
                             .timeout_us = 300000};
    uint64_t before = now_os().mono_us;
    CLEANUP_ERR struct err *e = exec_run(&q, NULL);

    assert_true(err_is(e, ERR_TIMEOUT));
    assert_true(now_os().mono_us - before < 3000000);
    assert_true(read(p[0], text, sizeof(text) - 1) > 0);
    pid_t grandchild = (pid_t)strtol(text, NULL, 10);

    assert_true(grandchild > 1);
    CLEANUP_FREE char *proc = xasprintf("/proc/%d/exe", (int)grandchild);
    char link[8];

    for (int i = 0; i < 100 && readlink(proc, link, sizeof(link)) > 0; i++)
        usleep(10000);
    assert_int_equal(readlink(proc, link, sizeof(link)), -1);
    close(p[0]);
    close(p[1]);
}

static void *set_soon(void *flag)
{
    usleep(100000);
    *(atomic_bool *)flag = true;
    return NULL;
}

static void test_cancel(void **state)
{
    atomic_bool cancel = false;
    pthread_t t;
    struct exec_request q = {.argv = ARGV("sleep", "60"), .cancel = &cancel};

    assert_int_equal(pthread_create(&t, NULL, set_soon, (void *)&cancel), 0);
    CLEANUP_ERR struct err *e = exec_run(&q, NULL);

    pthread_join(t, NULL);
    assert_true(err_is(e, ERR_CANCELLED));
}

/* Descriptors of this process do not reach the program, also those without O_CLOEXEC. */
static void test_no_leak(void **state)
{
    CLEANUP_EXEC struct exec_result r = {0};
    int leak = open("/dev/null", O_RDONLY);
    struct exec_request q = {.argv =
                                 ARGV("sh", "-c", "for f in /proc/self/fd/*; do echo $f; done")};

    assert_true(leak >= 3);
    assert_null(exec_run(&q, &r));
    CLEANUP_FREE char *name = xasprintf("/fd/%d\n", leak);

    if (leak > 3) /* the shell itself may use 3 for the folder */
        assert_null(strstr(r.out, name));
    close(leak);
}

static void test_stdin_and_other_children(void **state)
{
    int p[2];
    CLEANUP_EXEC struct exec_result r = {0};

    assert_return_code(pipe2(p, O_CLOEXEC), errno);
    assert_int_equal(write(p[1], "hello", 5), 5);
    close(p[1]);
    struct exec_request q = {.argv = ARGV("cat"), .stdin_fd = p[0]};

    assert_null(exec_run(&q, &r));
    assert_string_equal(r.out, "hello");
    close(p[0]);
}

/* A daemon that inherits the pipes must not keep us waiting. */
static void test_background_holder(void **state)
{
    CLEANUP_EXEC struct exec_result r = {0};
    struct exec_request q = {.argv = ARGV("sh", "-c", "sleep 2 & echo done")};
    uint64_t before = now_os().mono_us;

    assert_null(exec_run(&q, &r));
    assert_string_equal(r.out, "done\n");
    assert_true(now_os().mono_us - before < 1500000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_output),
        cmocka_unit_test(test_arguments_are_not_interpreted),
        cmocka_unit_test(test_failure),
        cmocka_unit_test(test_signal),
        cmocka_unit_test(test_missing),
        cmocka_unit_test(test_cap),
        cmocka_unit_test(test_deadline_kills_group),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_no_leak),
        cmocka_unit_test(test_stdin_and_other_children),
        cmocka_unit_test(test_background_holder),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
