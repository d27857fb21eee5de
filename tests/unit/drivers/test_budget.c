#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "base/now.h"
#include "drivers/budget.h"

#include <pthread.h>
#include <unistd.h>

#define MS 1000u

static uint64_t soon(unsigned ms)
{
    return now_os().mono_us + ms * (uint64_t)MS;
}

static enum err_code take(struct budget *b, uint64_t deadline_us, const atomic_bool *cancel)
{
    struct err *e = budget_take_sync(b, deadline_us, cancel);
    enum err_code code = e ? e->code : ERR_CODE_INVALID;

    err_free(e);
    return code;
}

static void test_none(void **state)
{
    assert_int_equal(take(NULL, 0, NULL), ERR_CODE_INVALID);
    budget_throttled(NULL, 0);
}

static void test_deadline(void **state)
{
    struct budget *b = budget_new((struct bucket_limits){.per_hour = 60, .burst = 2});
    uint64_t began = now_os().mono_us;

    assert_int_equal(take(b, 0, NULL), ERR_CODE_INVALID); /* what is there needs no time */
    assert_int_equal(take(b, 0, NULL), ERR_CODE_INVALID);
    assert_int_equal(take(b, soon(150), NULL), ERR_TIMEOUT);
    assert_true(now_os().mono_us - began >= 150 * MS);
    assert_int_equal(budget_state(b).taken, 2);
    assert_int_equal(budget_state(b).waiting, 0);
    budget_free(b);
}

struct taker {
    struct budget *budget;
    const atomic_bool *cancel;
    uint64_t deadline_us;
    enum err_code code;
    unsigned *order; /* of all; guarded by `lock` */
    pthread_mutex_t *lock;
    unsigned place;
    pthread_t thread;
};

static void *run_taker(void *cookie)
{
    struct taker *t = cookie;

    t->code = take(t->budget, t->deadline_us, t->cancel);
    if (t->lock) {
        pthread_mutex_lock(t->lock);
        t->place = (*t->order)++;
        pthread_mutex_unlock(t->lock);
    }
    return NULL;
}

static void begin(struct taker *t)
{
    unsigned before = budget_state(t->budget).waiting;

    assert_int_equal(pthread_create(&t->thread, NULL, run_taker, t), 0);
    while (budget_state(t->budget).waiting == before)
        usleep(1000);
}

static void test_cancel(void **state)
{
    struct budget *b = budget_new((struct bucket_limits){0, 0});
    atomic_bool cancel = false;
    struct taker t = {.budget = b, .cancel = &cancel, .deadline_us = soon(60000)};

    begin(&t);
    atomic_store(&cancel, true);
    pthread_join(t.thread, NULL);
    assert_int_equal(t.code, ERR_CANCELLED);
    budget_free(b);
}

/* First come, first served; one that gives up does not keep those behind it. */
static void test_order(void **state)
{
    struct budget *b = budget_new((struct bucket_limits){0, 0});
    pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    unsigned order = 0;
    struct taker t[4];

    for (unsigned i = 0; i < 4; i++) {
        t[i] = (struct taker){
            .budget = b, .deadline_us = soon(i ? 60000 : 100), .order = &order, .lock = &lock};
        begin(&t[i]);
    }
    pthread_join(t[0].thread, NULL);
    assert_int_equal(t[0].code, ERR_TIMEOUT);
    for (unsigned i = 1; i < 4; i++) {
        budget_add(b, 1);
        pthread_join(t[i].thread, NULL);
        assert_int_equal(t[i].code, ERR_CODE_INVALID);
        assert_int_equal(t[i].place, i);
    }
    budget_free(b);
}

static void count(void *cookie)
{
    atomic_fetch_add((atomic_uint *)cookie, 1);
}

static void test_handed_out(void **state)
{
    struct budget *b = budget_new((struct bucket_limits){.per_hour = 0, .burst = 1});
    atomic_uint news = 0;

    budget_on_news(b, count, &news);
    budget_add(b, 3);
    assert_int_equal(take(b, 0, NULL), ERR_CODE_INVALID);
    assert_int_equal(budget_state(b).extra, 2); /* what was handed out goes first */
    assert_int_equal(news, 0);
    assert_int_equal(budget_take_back(b), 2);
    assert_int_equal(take(b, 0, NULL), ERR_CODE_INVALID); /* the own share stays */
    assert_int_equal(take(b, 0, NULL), ERR_TIMEOUT);
    assert_int_equal(news, 1);
    budget_throttled(b, 0);
    assert_int_equal(news, 2);
    assert_int_equal(budget_state(b).throttled, 1);
    budget_free(b);
}

static void test_throttled(void **state)
{
    struct budget *b = budget_new((struct bucket_limits){.per_hour = 3600000, .burst = 100});
    uint64_t began = now_os().mono_us;

    budget_throttled(b, 300 * MS);
    assert_int_equal(take(b, soon(60000), NULL), ERR_CODE_INVALID);
    assert_true(now_os().mono_us - began >= 300 * MS);
    budget_add(b, 5); /* slow for those, too */
    assert_int_equal(take(b, soon(50), NULL), ERR_TIMEOUT);
    budget_free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_none),       cmocka_unit_test(test_deadline),
        cmocka_unit_test(test_cancel),     cmocka_unit_test(test_order),
        cmocka_unit_test(test_handed_out), cmocka_unit_test(test_throttled),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
