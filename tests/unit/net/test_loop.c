#include "base/now.h"
#include "base/random.h"
#include "net/loop.h"

#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cmocka.h>

static struct loop *loop;
static struct timer guard; /* ends a loop that hangs */

static void guard_fired(void *cookie)
{
    fail_msg("the loop did not end in time");
}

static int setup(void **state)
{
    assert_null(loop_new(&loop));
    timer_init(&guard, loop, guard_fired, NULL);
    timer_set(&guard, now_os().mono_us + 10 * USEC_PER_SEC);
    return 0;
}

static int teardown(void **state)
{
    loop = loop_free(loop);
    return 0;
}

static void stop(void *cookie)
{
    loop_stop(loop);
}

/* ---- timers ---- */

static int order[64];
static size_t order_used;

struct numbered {
    struct timer timer;
    int number;
};

static void note(void *cookie)
{
    struct numbered *n = cookie;

    order[order_used++] = n->number;
}

static void test_timers_fire_in_order(void **state)
{
    struct numbered n[8];
    /* Milliseconds from now: equal moments in the order of setting, a past moment first. */
    static const int ms[8] = {30, 10, 20, 10, -5, 20, 40, 10};
    static const int want[7] = {4, 1, 3, 7, 2, 0, 6};
    uint64_t start = now_os().mono_us;
    struct timer end;

    order_used = 0;
    for (int i = 0; i < 8; i++) {
        n[i].number = i;
        timer_init(&n[i].timer, loop, note, &n[i]);
        timer_set(&n[i].timer, start + (uint64_t)(ms[i] * 1000));
    }
    timer_cancel(&n[5].timer);
    assert_false(timer_is_set(&n[5].timer));
    timer_init(&end, loop, stop, NULL);
    timer_set(&end, start + 50 * USEC_PER_MSEC);
    assert_null(loop_run(loop));
    assert_true(now_os().mono_us >= start + 50 * USEC_PER_MSEC);
    assert_int_equal(order_used, 7);
    assert_memory_equal(order, want, sizeof(want));
    assert_false(timer_is_set(&n[0].timer));
}

static void test_timer_heap_random(void **state)
{
    enum { COUNT = 500 };
    struct numbered *n = xcalloc(COUNT, sizeof(*n));
    struct random r = random_seeded(&(uint64_t){7});
    uint64_t base = now_os().mono_us - USEC_PER_SEC; /* all in the past: fire in one batch */
    struct timer end;

    order_used = 0;
    for (int i = 0; i < COUNT; i++) {
        n[i].number = 0;
        timer_init(&n[i].timer, loop, note, &n[i]);
    }
    for (int k = 0; k < 5000; k++) {
        struct timer *t = &n[random_below(&r, COUNT)].timer;

        if (random_below(&r, 3) == 0)
            timer_cancel(t);
        else
            timer_set(t, base + random_below(&r, 1000));
    }
    for (int i = 0; i < COUNT; i++)
        timer_cancel(&n[i].timer);
    /* Only these are left, set in a shuffled order. */
    for (int i = 0; i < 40; i++) {
        int k = (i * 17) % 40;

        n[k].number = k;
        timer_set(&n[k].timer, base + (uint64_t)k);
    }
    timer_init(&end, loop, stop, NULL);
    timer_set(&end, base + 2000);
    assert_null(loop_run(loop));
    assert_int_equal(order_used, 40);
    for (int i = 0; i < 40; i++)
        assert_int_equal(order[i], i);
    free(n);
}

static struct timer repeat;
static int repeats;
static bool posted_ran;

static void again(void *cookie)
{
    repeats++;
    timer_set(&repeat, 0); /* always due: must not starve the others */
}

static void posted(void *cookie)
{
    posted_ran = true;
    loop_stop(loop);
}

static void test_due_timer_does_not_starve(void **state)
{
    repeats = 0;
    posted_ran = false;
    timer_init(&repeat, loop, again, NULL);
    timer_set(&repeat, 1);
    loop_post(loop, posted, NULL);
    assert_null(loop_run(loop));
    assert_true(posted_ran);
    assert_true(repeats < 100);
    timer_cancel(&repeat);
    timer_cancel(&(struct timer){0});
}

static void test_idle_loop_sleeps(void **state)
{
    struct rusage before, after;
    struct timer end;

    timer_init(&end, loop, stop, NULL);
    timer_set(&end, now_os().mono_us + 300 * USEC_PER_MSEC);
    getrusage(RUSAGE_SELF, &before);
    assert_null(loop_run(loop));
    getrusage(RUSAGE_SELF, &after);
    /* A voluntary context switch is a sleep that was ended by a wake-up. */
    assert_true(after.ru_nvcsw - before.ru_nvcsw <= 5);
}

/* ---- posts ---- */

#define POSTERS 4
#define POSTS 5000

static int seen[POSTERS];
static int seen_total;

static void post_arrived(void *cookie)
{
    uintptr_t v = (uintptr_t)cookie;

    assert_int_equal(seen[v / POSTS], v % POSTS); /* each thread's posts arrive in order */
    seen[v / POSTS]++;
    if (++seen_total == POSTERS * POSTS)
        loop_stop(loop);
}

static void *poster(void *arg)
{
    for (uintptr_t i = 0; i < POSTS; i++)
        loop_post(loop, post_arrived, (void *)((uintptr_t)arg * POSTS + i));
    return NULL;
}

static void test_post_from_threads(void **state)
{
    pthread_t t[POSTERS];

    memset(seen, 0, sizeof(seen));
    seen_total = 0;
    for (uintptr_t i = 0; i < POSTERS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, poster, (void *)i), 0);
    assert_null(loop_run(loop));
    for (int i = 0; i < POSTERS; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(seen_total, POSTERS * POSTS);
}

static void must_not_run(void *cookie)
{
    fail_msg("a withdrawn post ran");
}

static void unpost_it(void *cookie)
{
    loop_unpost(loop, must_not_run, &loop);
}

static void test_unpost(void **state)
{
    loop_post(loop, unpost_it, NULL);
    loop_post(loop, must_not_run, &loop); /* withdrawn while the batch runs */
    loop_post(loop, must_not_run, &loop);
    loop_post(loop, stop, NULL);
    assert_null(loop_run(loop));
    loop_post(loop, must_not_run, &loop); /* freed by loop_free() */
}

static int pieces;

static void one_piece(void *cookie)
{
    if (++pieces < 100)
        loop_post(loop, one_piece, cookie);
    else
        loop_stop(loop);
}

static void note_pieces(void *seen_at)
{
    *(int *)seen_at = pieces;
}

/* Work in pieces that post each other lets others in between. */
static void test_posts_take_turns(void **state)
{
    struct timer t;
    int seen_at = -1;

    pieces = 0;
    timer_init(&t, loop, note_pieces, &seen_at);
    loop_post(loop, one_piece, &t);
    timer_set(&t, 0);
    assert_null(loop_run(loop));
    assert_in_range(seen_at, 0, 10);
    assert_int_equal(pieces, 100);
}

/* ---- idle hook, signals, watches ---- */

static int idles, works;

static void idle_hook(void *cookie)
{
    idles++;
}

static void one_work(void *cookie)
{
    if (++works == 10)
        loop_stop(loop);
}

static void test_idle_runs_once_a_batch(void **state)
{
    idles = works = 0;
    loop_on_idle(loop, must_not_run, NULL);
    loop_off_idle(loop, must_not_run, NULL);
    loop_on_idle(loop, idle_hook, NULL);
    for (int i = 0; i < 10; i++)
        loop_post(loop, one_work, NULL);
    assert_null(loop_run(loop));
    assert_int_equal(works, 10);
    assert_int_equal(idles, 2); /* before the first sleep, after the batch of ten */
}

static void signalled(void *cookie)
{
    *(int *)cookie += 1;
    loop_stop(loop);
}

static void test_signals(void **state)
{
    int hup = 0, term = 0;

    assert_null(loop_on_signal(loop, SIGHUP, signalled, &hup));
    assert_null(loop_on_signal(loop, SIGTERM, signalled, &term));
    raise(SIGHUP);
    assert_null(loop_run(loop));
    raise(SIGTERM);
    assert_null(loop_run(loop));
    assert_int_equal(hup, 1);
    assert_int_equal(term, 1);
}

struct pipe_state {
    struct watch *watch;
    int fd[2];
    int reads, writes;
};

static void pipe_ready(void *cookie, unsigned ready)
{
    struct pipe_state *p = cookie;
    char c;

    if (ready & WATCH_READ) {
        assert_int_equal(read(p->fd[0], &c, 1), 1);
        if (++p->reads == 3) {
            p->watch = watch_free(p->watch);
            loop_stop(loop);
        } else if (p->reads == 2) {
            assert_null(watch_set(p->watch, 0)); /* silence: the timer below opens it again */
        }
    }
}

static void pipe_listen(void *cookie)
{
    struct pipe_state *p = cookie;

    assert_int_equal(p->reads, 2);
    assert_null(watch_set(p->watch, WATCH_READ));
}

static void pipe_writable(void *cookie, unsigned ready)
{
    struct pipe_state *p = cookie;

    assert_int_equal(ready, WATCH_WRITE);
    p->writes++;
    p->watch = watch_free(p->watch);
    loop_stop(loop);
}

static void test_watch(void **state)
{
    struct pipe_state p = {0};
    struct timer later;

    assert_int_equal(pipe(p.fd), 0);
    assert_int_equal(write(p.fd[1], "abc", 3), 3);
    assert_null(watch_new(loop, p.fd[0], WATCH_READ, pipe_ready, &p, &p.watch));
    timer_init(&later, loop, pipe_listen, &p);
    timer_set(&later, now_os().mono_us + 30 * USEC_PER_MSEC);
    assert_null(loop_run(loop));
    assert_int_equal(p.reads, 3);
    assert_null(watch_new(loop, p.fd[1], WATCH_WRITE, pipe_writable, &p, &p.watch));
    assert_null(loop_run(loop));
    assert_int_equal(p.writes, 1);
    close(p.fd[0]);
    close(p.fd[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_timers_fire_in_order, setup, teardown),
        cmocka_unit_test_setup_teardown(test_timer_heap_random, setup, teardown),
        cmocka_unit_test_setup_teardown(test_due_timer_does_not_starve, setup, teardown),
        cmocka_unit_test_setup_teardown(test_idle_loop_sleeps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_post_from_threads, setup, teardown),
        cmocka_unit_test_setup_teardown(test_unpost, setup, teardown),
        cmocka_unit_test_setup_teardown(test_posts_take_turns, setup, teardown),
        cmocka_unit_test_setup_teardown(test_idle_runs_once_a_batch, setup, teardown),
        cmocka_unit_test_setup_teardown(test_signals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_watch, setup, teardown),
    };

    return cmocka_run_group_tests_name("loop", tests, NULL, NULL);
}
