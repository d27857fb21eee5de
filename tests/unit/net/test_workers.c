#include "base/now.h"
#include "net/workers.h"

#include <dirent.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

#include <cmocka.h>

static struct loop *loop;
static struct workers *pool;
static struct timer guard;
static pthread_t loop_thread;

static void guard_fired(void *cookie)
{
    fail_msg("the loop did not end in time");
}

static int setup(void **state)
{
    assert_null(loop_new(&loop));
    timer_init(&guard, loop, guard_fired, NULL);
    timer_set(&guard, now_os().mono_us + 20 * USEC_PER_SEC);
    loop_thread = pthread_self();
    return 0;
}

static int teardown(void **state)
{
    pool = workers_stop(pool);
    loop = loop_free(loop);
    return 0;
}

static void sleep_ms(long ms)
{
    nanosleep(&(struct timespec){.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000}, NULL);
}

static unsigned threads_count(void)
{
    DIR *d = opendir("/proc/self/task");
    struct dirent *entry;
    unsigned n = 0;

    assert_non_null(d);
    while ((entry = readdir(d)))
        n += entry->d_name[0] != '.';
    closedir(d);
    return n;
}

struct job {
    int number;
    bool worked, done;
    long ms;
};

static atomic_int started, running, most;
static int done_count, done_target;

static void work(void *cookie)
{
    struct job *j = cookie;
    sigset_t mask;
    int now = atomic_fetch_add(&running, 1) + 1;
    int seen = atomic_load(&most);

    while (now > seen && !atomic_compare_exchange_weak(&most, &seen, now))
        ;
    assert_false(pthread_equal(pthread_self(), loop_thread));
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    assert_true(sigismember(&mask, SIGTERM));
    j->number = atomic_fetch_add(&started, 1);
    if (j->ms > 0)
        sleep_ms(j->ms);
    j->worked = true;
    atomic_fetch_sub(&running, 1);
}

static void done(void *cookie)
{
    struct job *j = cookie;

    assert_true(pthread_equal(pthread_self(), loop_thread));
    assert_true(j->worked);
    assert_false(j->done);
    j->done = true;
    if (++done_count == done_target)
        loop_stop(loop);
}

static void counters_reset(int target)
{
    atomic_store(&started, 0);
    atomic_store(&most, 0);
    done_count = 0;
    done_target = target;
}

static void test_work_then_done(void **state)
{
    static struct job jobs[1000];

    counters_reset(1000);
    memset(jobs, 0, sizeof(jobs));
    pool = workers_new(loop, 4, "test");
    for (int i = 0; i < 1000; i++)
        workers_submit(pool, work, done, &jobs[i]);
    assert_int_equal(workers_pending(pool), 1000);
    assert_null(loop_run(loop));
    assert_int_equal(done_count, 1000);
    assert_int_equal(workers_pending(pool), 0);
    assert_true(atomic_load(&most) <= 4);
}

static void test_one_thread_keeps_order(void **state)
{
    static struct job jobs[50];

    counters_reset(50);
    memset(jobs, 0, sizeof(jobs));
    pool = workers_new(loop, 1, "test");
    for (int i = 0; i < 50; i++)
        workers_submit(pool, work, done, &jobs[i]);
    assert_null(loop_run(loop));
    for (int i = 0; i < 50; i++)
        assert_int_equal(jobs[i].number, i);
}

static void test_slow_jobs_run_beside_each_other(void **state)
{
    static struct job jobs[4];
    unsigned before = threads_count();

    counters_reset(4);
    memset(jobs, 0, sizeof(jobs));
    pool = workers_new(loop, 4, "test");
    assert_int_equal(threads_count(), before); /* made on demand */
    for (int i = 0; i < 4; i++) {
        jobs[i].ms = 100;
        workers_submit(pool, work, done, &jobs[i]);
    }
    assert_null(loop_run(loop));
    assert_int_equal(atomic_load(&most), 4);
}

static void test_quick_jobs_share_a_thread(void **state)
{
    struct job j;
    unsigned before = threads_count();

    pool = workers_new(loop, 8, "test");
    for (int i = 0; i < 20; i++) {
        counters_reset(1);
        j = (struct job){0};
        workers_submit(pool, work, done, &j);
        assert_null(loop_run(loop));
        sleep_ms(2);
    }
    assert_int_equal(threads_count(), before + 1);
}

static void stop(void *cookie)
{
    loop_stop(loop);
}

static void test_idle_threads_end(void **state)
{
    struct job jobs[3] = {{.ms = 50}, {.ms = 50}, {.ms = 50}};
    unsigned before = threads_count();
    struct timer later;

    counters_reset(3);
    pool = workers_new(loop, 3, "test");
    for (int i = 0; i < 3; i++)
        workers_submit(pool, work, done, &jobs[i]);
    assert_null(loop_run(loop));
    assert_int_equal(threads_count(), before + 3);
    timer_init(&later, loop, stop, NULL);
    timer_set(&later, now_os().mono_us + WORKERS_IDLE_US + 500 * USEC_PER_MSEC);
    assert_null(loop_run(loop));
    assert_int_equal(threads_count(), before);
    /* ... and come back */
    struct job last = {0};
    counters_reset(1);
    workers_submit(pool, work, done, &last);
    assert_null(loop_run(loop));
    assert_true(last.done);
}

static struct job extra;

static void done_adds(void *cookie)
{
    done(cookie);
    workers_submit(pool, work, done, &extra);
}

static void test_stop_finishes_everything(void **state)
{
    static struct job jobs[20];

    counters_reset(-1);
    memset(jobs, 0, sizeof(jobs));
    extra = (struct job){.ms = 20};
    pool = workers_new(loop, 2, "test");
    for (int i = 0; i < 20; i++) {
        jobs[i].ms = 5;
        workers_submit(pool, work, i == 19 ? done_adds : done, &jobs[i]);
    }
    workers_submit(pool, work, NULL, &(struct job){0});
    unsigned before = threads_count();
    assert_true(before > 1);
    pool = workers_stop(pool);
    for (int i = 0; i < 20; i++)
        assert_true(jobs[i].done);
    assert_true(extra.done);
    assert_int_equal(threads_count(), before - 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_work_then_done, setup, teardown),
        cmocka_unit_test_setup_teardown(test_one_thread_keeps_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_slow_jobs_run_beside_each_other, setup, teardown),
        cmocka_unit_test_setup_teardown(test_quick_jobs_share_a_thread, setup, teardown),
        cmocka_unit_test_setup_teardown(test_idle_threads_end, setup, teardown),
        cmocka_unit_test_setup_teardown(test_stop_finishes_everything, setup, teardown),
    };

    return cmocka_run_group_tests_name("workers", tests, NULL, NULL);
}
