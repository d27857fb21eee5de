/* The agent's end of calls and catalogue, against a link that only writes down what is sent. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "agent/volumes.h"
#include "base/str.h"

#include <stdio.h>

static struct str sent; /* a line for each message */

void agent_link_send(struct agent_link *l, const char *key, const struct agent_message *m)
{
    assert_non_null(l);
    assert_null(key); /* the order matters */
    if (m->kind == AGENT_MESSAGE_VOLUME_CALL)
        str_appendf(&sent, "call %d %s\n", m->call.kind, m->call.name);
    else if (m->kind == AGENT_MESSAGE_VOLUME_USE)
        str_appendf(&sent, "use %s %s\n", m->use.name, m->use.mount);
    else if (m->kind == AGENT_MESSAGE_VOLUME_USES_COMPLETE)
        str_append(&sent, "end\n");
}

static uint64_t hurried_us;

void agent_link_hurry(struct agent_link *l, uint64_t until_us)
{
    assert_non_null(l);
    hurried_us = until_us;
}

struct world {
    struct loop *loop;
    struct agent_volumes *v;
    struct str heard;
    unsigned answers;
};

static struct agent_link *const a_link = (struct agent_link *)"";

static struct uuid id(unsigned char n)
{
    return (struct uuid){.b[15] = n};
}

static void each_use(void *cookie, void (*fn)(void *, const struct volume_use *), void *fn_cookie)
{
    fn(fn_cookie, &(struct volume_use){.name = (char *)"db", .mount = (char *)"m1"});
}

static void changed(void *cookie, const struct uuid *dataset, const struct volume_entry *now)
{
    struct world *w = cookie;

    str_appendf(&w->heard, "%s%d ", now ? "+" : "-", dataset->b[15]);
}

static void complete(void *cookie)
{
    str_append(&((struct world *)cookie)->heard, "complete ");
}

static void session(void *cookie, bool up)
{
    str_append(&((struct world *)cookie)->heard, up ? "up " : "down ");
}

static void answered(void *cookie, const struct volume_answer *a)
{
    struct world *w = cookie;

    w->answers++;
    str_appendf(&w->heard, "%s ", volume_code_name(a->code));
}

static const char *heard(struct world *w)
{
    static char text[200];

    (void)snprintf(text, sizeof(text), "%s", w->heard.data ? w->heard.data : "");
    str_done(&w->heard);
    return text;
}

static const char *said(void)
{
    static char text[20000];

    (void)snprintf(text, sizeof(text), "%s", sent.data ? sent.data : "");
    str_done(&sent);
    return text;
}

static int setup(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));

    assert_null(loop_new(&w->loop));
    w->v = agent_volumes_new(&(struct agent_volumes_config){.loop = w->loop,
                                                            .each_use = each_use,
                                                            .changed = changed,
                                                            .complete = complete,
                                                            .session = session,
                                                            .cookie = w});
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    agent_volumes_free(w->v);
    loop_free(w->loop);
    str_done(&w->heard);
    str_done(&sent);
    free(w);
    return 0;
}

static void stop(void *cookie)
{
    loop_stop(cookie);
}

static void turn(struct world *w)
{
    loop_post(w->loop, stop, w->loop);
    assert_null(loop_run(w->loop));
}

static uint64_t call(struct world *w, const char *name)
{
    return agent_volumes_call(w->v, &(struct volume_call){.kind = VOLUME_CREATE, .name = (char *)name}, answered, w);
}

static void answer(struct world *w, uint64_t number)
{
    agent_volumes_message(w->v, &(struct control_message){.kind = CONTROL_MESSAGE_VOLUME_ANSWER,
                                                          .answer = {.number = number, .code = VOLUME_CREATED}});
}

static void entry(struct world *w, unsigned char n, const char *name)
{
    agent_volumes_message(w->v, &(struct control_message){.kind = CONTROL_MESSAGE_VOLUME,
                                                          .volume = {.dataset = id(n), .name = (char *)name}});
}

static void end(struct world *w)
{
    agent_volumes_message(w->v, &(struct control_message){.kind = CONTROL_MESSAGE_VOLUMES_COMPLETE});
}

static void test_uses_come_first(void **state)
{
    struct world *w = *state;

    assert_false(agent_volumes_is_up(w->v));
    agent_volumes_up(w->v, a_link);
    assert_string_equal(said(), "use db m1\nend\n");
    assert_string_equal(heard(w), "up ");
    assert_true(agent_volumes_is_up(w->v));
    agent_volumes_down(w->v);
    agent_volumes_down(w->v);
    assert_string_equal(heard(w), "down ");
}

static void test_calls(void **state)
{
    struct world *w = *state;

    agent_volumes_up(w->v, a_link);
    (void)said();
    uint64_t a = call(w, "a"), b = call(w, "b"), c = call(w, "c");
    assert_string_equal(said(), "call 0 a\ncall 0 b\ncall 0 c\n");
    (void)heard(w);
    answer(w, b);
    answer(w, b); /* again: nobody waits for it */
    assert_string_equal(heard(w), "created ");
    agent_volumes_forget(w->v, a);
    answer(w, a);
    assert_string_equal(heard(w), "");
    agent_volumes_down(w->v);
    assert_string_equal(heard(w), "down "); /* never from inside */
    turn(w);
    assert_string_equal(heard(w), "away ");
    answer(w, c); /* late */
    assert_int_equal(w->answers, 2);
}

static void test_hurry(void **state)
{
    struct world *w = *state;

    agent_volumes_hurry(w->v, 3); /* nothing makes sessions yet */
    assert_int_equal(hurried_us, 0);
    agent_volumes_set_link(w->v, a_link);
    assert_false(agent_volumes_is_up(w->v));
    agent_volumes_hurry(w->v, 4);
    assert_int_equal(hurried_us, 4);
}

static void test_a_call_without_a_session(void **state)
{
    struct world *w = *state;

    (void)call(w, "a");
    uint64_t b = call(w, "b");
    agent_volumes_forget(w->v, b);
    assert_int_equal(w->answers, 0);
    turn(w);
    assert_string_equal(heard(w), "away ");
    agent_volumes_up(w->v, a_link); /* is not made again by itself */
    assert_string_equal(said(), "use db m1\nend\n");
}

/* The control service ends a session with more. */
static void test_no_more_calls_than_it_takes(void **state)
{
    struct world *w = *state;
    uint64_t first = 0;

    agent_volumes_up(w->v, a_link);
    (void)said();
    for (unsigned i = 0; i < VOLUME_CALLS_MAX + 2; i++) {
        uint64_t number = call(w, "x");
        first = first ? first : number;
    }
    assert_int_equal(strlen(said()), VOLUME_CALLS_MAX * strlen("call 0 x\n"));
    answer(w, first);
    assert_string_equal(said(), "call 0 x\n");
    answer(w, first + 1);
    assert_string_equal(said(), "call 0 x\n");
    answer(w, first + 2);
    assert_string_equal(said(), "");
    agent_volumes_down(w->v);
    turn(w);
    assert_int_equal(w->answers, VOLUME_CALLS_MAX + 2);
}

static bool add_name(void *cookie, const struct volume_entry *e)
{
    str_appendf(cookie, "%s%d ", e->name, e->dataset.b[15]);
    return true;
}

static void test_the_catalogue(void **state)
{
    struct world *w = *state;
    CLEANUP_STR struct str all = {0};

    agent_volumes_remember(w->v, &(struct volume_entry){.dataset = id(9), .name = (char *)"old"});
    assert_non_null(agent_volumes_by_name(w->v, "old"));
    agent_volumes_up(w->v, a_link);
    entry(w, 2, "b");
    entry(w, 1, "a");
    entry(w, 3, "a");
    entry(w, 2, "c"); /* renamed */
    end(w);
    assert_string_equal(heard(w), "up +2 +1 +3 +2 -9 complete ");
    agent_volumes_each(w->v, add_name, &all);
    assert_string_equal(all.data, "a1 a3 c2 ");
    assert_int_equal(agent_volumes_by_name(w->v, "a")->dataset.b[15], 1);
    assert_null(agent_volumes_by_name(w->v, "b"));
    assert_string_equal(agent_volumes_by_id(w->v, &(struct uuid){.b[15] = 2})->name, "c");
    agent_volumes_message(w->v, &(struct control_message){.kind = CONTROL_MESSAGE_VOLUME_NONE, .dataset = id(1)});
    assert_int_equal(agent_volumes_by_name(w->v, "a")->dataset.b[15], 3);
    agent_volumes_down(w->v);
    assert_int_equal(agent_volumes_count(w->v), 2); /* kept */
    agent_volumes_remember(w->v, &(struct volume_entry){.dataset = id(3), .name = (char *)"x"}); /* it is known better */
    assert_null(agent_volumes_by_name(w->v, "x"));
    (void)heard(w);
    agent_volumes_up(w->v, a_link);
    entry(w, 3, "a");
    end(w);
    assert_string_equal(heard(w), "up +3 -2 complete ");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_uses_come_first),
        TEST(test_calls),
        TEST(test_hurry),
        TEST(test_a_call_without_a_session),
        TEST(test_no_more_calls_than_it_takes),
        TEST(test_the_catalogue),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
