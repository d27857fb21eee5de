/* Shared storage: who lists it, what the others hear, what a node does with that; and how calls of its API are shared out. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"
#include "core/engine.h"
#include "core/node.h"

#define S USEC_PER_SEC
#define NODES 5

static struct uuid id(unsigned char n)
{
    return (struct uuid){.b[0] = 1, .b[15] = n};
}

static const struct uuid D = {.b[0] = 1, .b[15] = 77};

/* ---- the control service ---- */

struct world {
    struct engine *e;
    struct now now;
    uint64_t seed;
    uint64_t sessions[NODES + 1], last_session;
    struct generation life;
    int duty[NODES + 1];          /* as told last; -1 = never */
    unsigned heard[NODES + 1];    /* sightings */
    struct sighting last[NODES + 1]; /* `hosts` is not kept */
    struct calls_share share[NODES + 1];
};

static void settle(struct world *w)
{
    engine_flush(w->e, w->now);
    for (struct effect *f; (f = engine_next(w->e)); effect_free(f)) {
        unsigned n = 1;
        while (n <= NODES && w->sessions[n] != f->session)
            n++;
        if (f->kind == EFFECT_COMMIT)
            engine_committed(w->e, w->now, f->batch->id);
        if (n > NODES)
            continue;
        if (f->kind == EFFECT_LIST_ORDER)
            w->duty[n] = (int)f->list_order.duty;
        if (f->kind == EFFECT_SIGHTING) {
            w->heard[n]++;
            w->last[n] = f->sighting;
            w->last[n].hosts = NULL;
        }
        if (f->kind == EFFECT_CALLS_SHARE)
            w->share[n] = f->share;
    }
}

#define OLDER 1u         /* knows nothing of lists and calls */
#define OTHER_STORAGE 2u /* sees another storage than the others */
#define UNKNOWN 4u       /* its storage has not answered yet */
static void come(struct world *w, unsigned char n, unsigned flags)
{
    struct hello h = {.protocol = AGENT_PROTOCOL_VERSION,
                      .node = id(n),
                      .era = id((unsigned char)(100 + n)),
                      .storage = STORAGE_ATTACHABLE,
                      .backend = (char[]){"aws"},
                      .shared_by = id(flags & OTHER_STORAGE ? 201 : 200),
                      .lists = !(flags & OLDER),
                      .calls = !(flags & OLDER)};

    w->sessions[n] = ++w->last_session;
    w->duty[n] = -1;
    engine_session_open(w->e, w->now, w->last_session, &h);
    engine_reports_complete(w->e, w->now, w->last_session, flags & UNKNOWN ? REPORTS_STORAGE_UNKNOWN : 0);
    settle(w);
}

static void leave(struct world *w, unsigned char n)
{
    uint64_t session = w->sessions[n];

    w->sessions[n] = 0;
    engine_session_closed(w->e, w->now, session);
    settle(w);
}

static void report(struct world *w, unsigned char n)
{
    struct report r = {.volume = {.dataset = D, .present = true, .attached = true, .size = 5}};

    engine_report(w->e, w->now, w->sessions[n], &r);
    settle(w);
}

static void sight_at(struct world *w, unsigned char n, bool present, uint64_t size, const char *hosts)
{
    struct sighting s = {.dataset = D, .present = present, .size = size, .hosts = (char *)hosts};

    engine_sighting(w->e, w->now, w->sessions[n], &s);
    settle(w);
}

static void sight(struct world *w, unsigned char n, bool present, uint64_t size)
{
    sight_at(w, n, present, size, "h1");
}

static void complete(struct world *w, unsigned char n)
{
    engine_sightings_complete(w->e, w->now, w->sessions[n]);
    settle(w);
}

static struct world *world_new(void)
{
    struct world *w = xcalloc(1, sizeof(*w));

    w->now = (struct now){.mono_us = 100 * (uint64_t)S, .wall_us = 1000000 * (uint64_t)S};
    w->life = (struct generation){id(98), 0};
    w->e = engine_new(&(struct history){.store = id(99), .generations = &w->life, .n = 1}, 0, random_seeded(&w->seed));
    engine_call_budget(w->e, (struct bucket_limits){.per_hour = 3600, .burst = 40});
    return w;
}

static void world_free(struct world *w)
{
    engine_free(w->e);
    free(w);
}

static void test_one_lists(void **state)
{
    struct world *w = world_new();

    come(w, 4, OLDER);
    assert_int_equal(w->duty[4], -1); /* it is told nothing */
    come(w, 2, 0);
    assert_int_equal(w->duty[2], LIST_FOR_ALL);
    come(w, 1, 0);
    come(w, 3, 0);
    assert_int_equal(w->duty[1], LIST_BY_OTHER);
    assert_int_equal(w->duty[3], LIST_BY_OTHER);
    come(w, 5, OTHER_STORAGE); /* that has a lister of its own */
    assert_int_equal(w->duty[5], LIST_FOR_ALL);
    leave(w, 2);
    assert_int_equal(w->duty[3], LIST_FOR_ALL); /* the next by id */
    assert_int_equal(w->duty[1], LIST_BY_OTHER);
    come(w, 2, 0);
    assert_int_equal(w->duty[2], LIST_BY_OTHER);
    come(w, 3, 0); /* a newer session of it ends the older: it lists no more until it is told */
    assert_int_equal(w->duty[1], LIST_FOR_ALL);
    assert_int_equal(w->duty[3], LIST_BY_OTHER);
    leave(w, 1);
    leave(w, 2);
    leave(w, 3);
    come(w, 3, 0);
    assert_int_equal(w->duty[3], LIST_FOR_ALL);
    world_free(w);
}

/* A node whose storage does not answer cannot list it. */
static void test_unknown_storage(void **state)
{
    struct world *w = world_new();

    come(w, 1, UNKNOWN);
    assert_int_equal(w->duty[1], -1);
    come(w, 2, 0);
    assert_int_equal(w->duty[2], LIST_FOR_ALL);
    engine_reports_complete(w->e, w->now, w->sessions[1], 0);
    settle(w);
    assert_int_equal(w->duty[1], LIST_BY_OTHER);
    world_free(w);
}

static void test_what_concerns(void **state)
{
    struct world *w = world_new();

    come(w, 1, 0);
    come(w, 2, 0);
    come(w, 3, 0);
    come(w, 4, OLDER);
    report(w, 2);
    report(w, 4);
    sight(w, 1, true, 5);
    assert_int_equal(w->heard[2], 1);
    assert_int_equal(w->heard[3], 0); /* none of its affairs */
    assert_int_equal(w->heard[4], 0); /* does not understand it */
    sight(w, 1, true, 5);
    assert_int_equal(w->heard[2], 1); /* no news */
    sight(w, 3, true, 6);
    assert_int_equal(w->heard[2], 1); /* who is not asked is not believed */
    sight(w, 1, true, 6);
    assert_int_equal(w->heard[2], 2);
    assert_int_equal(w->last[2].size, 6);
    sight(w, 1, false, 0);
    assert_int_equal(w->heard[2], 3);
    assert_false(w->last[2].present);
    sight(w, 1, false, 0);
    assert_int_equal(w->heard[2], 3);
    sight(w, 1, true, 7);
    come(w, 2, 0); /* after a break it hears what was seen meanwhile, once it has told what it has */
    assert_int_equal(w->heard[2], 4); /* before it left */
    report(w, 2);
    come(w, 2, 0);
    engine_report(w->e, w->now, w->sessions[2], &(struct report){.volume = {.dataset = D, .present = true, .attached = true}});
    settle(w);
    sight(w, 1, true, 8);
    assert_true(w->heard[2] > 4);
    assert_int_equal(w->last[2].size, 8);
    world_free(w);
}

/* Attached twice, or elsewhere, as its owner says: it may be to a node that has nothing to do with it. */
static void test_what_concerns_all(void **state)
{
    struct world *w = world_new();
    struct command c = {.kind = COMMAND_DATASET_CREATE, .id = 1, .dataset = xcalloc(1, sizeof(struct dataset))};

    come(w, 1, 0);
    come(w, 2, 0);
    come(w, 3, 0);
    come(w, 4, OTHER_STORAGE);
    report(w, 2);
    sight_at(w, 1, true, 5, "h2 h3");
    assert_int_equal(w->heard[3], 1);
    assert_int_equal(w->heard[1], 0); /* it was the one that saw it */
    assert_int_equal(w->heard[4], 0);
    sight_at(w, 1, true, 5, "h2");
    assert_int_equal(w->heard[3], 1); /* the store knows nothing of it */
    c.dataset->id = D;
    c.dataset->primary = id(2);
    engine_command(w->e, w->now, &c);
    settle(w);
    sight_at(w, 1, true, 5, "h3");
    assert_int_equal(w->heard[3], 1); /* a move is no news for everybody */
    for (int i = 0; i < 2; i++) {
        engine_report(w->e, w->now, w->sessions[2], &(struct report){.volume = {.dataset = D, .present = true, .attached_elsewhere = true}});
        settle(w);
        assert_int_equal(w->heard[3], 2); /* once is enough */
    }
    come(w, 5, 0);
    assert_int_equal(w->heard[5], 1); /* and who comes later */
    sight_at(w, 1, true, 5, NULL); /* nowhere */
    assert_int_equal(w->heard[3], 2);
    report(w, 2);
    sight_at(w, 1, true, 5, "h2");
    assert_int_equal(w->heard[3], 2); /* where its owner says it is */
    come(w, 5, 0);
    assert_int_equal(w->heard[5], 1);
    world_free(w);
}

/* A new lister begins from nothing: what it does not see is gone when it has told all, and not before. */
static void test_new_lister(void **state)
{
    struct world *w = world_new();

    come(w, 1, 0);
    come(w, 2, 0);
    come(w, 3, 0);
    report(w, 3);
    sight(w, 1, true, 5);
    complete(w, 1);
    assert_int_equal(w->heard[3], 1);
    leave(w, 1);
    assert_int_equal(w->duty[2], LIST_FOR_ALL);
    assert_int_equal(w->heard[3], 1);
    complete(w, 2);
    assert_int_equal(w->heard[3], 2);
    assert_false(w->last[3].present);
    sight(w, 2, true, 5);
    complete(w, 2);
    assert_int_equal(w->heard[3], 3);
    assert_true(w->last[3].present);
    world_free(w);
}

static void sleep_us(struct world *w, uint64_t us)
{
    w->now.mono_us += us;
    engine_tick(w->e, w->now);
    settle(w);
}

static void test_silent_lister(void **state)
{
    struct world *w = world_new();

    come(w, 1, 0);
    sleep_us(w, 10 * LIST_EVERY_US);
    assert_int_equal(w->duty[1], LIST_FOR_ALL); /* there is no other */
    come(w, 2, 0);
    for (unsigned i = 0; i < 5; i++) {
        complete(w, 1);
        sleep_us(w, LIST_EVERY_US);
    }
    assert_int_equal(w->duty[2], LIST_BY_OTHER);
    assert_true(engine_deadline(w->e) < USEC_NEVER);
    sleep_us(w, 3 * LIST_EVERY_US);
    assert_int_equal(w->duty[2], LIST_FOR_ALL);
    assert_int_equal(w->duty[1], LIST_BY_OTHER);
    sight(w, 1, true, 9);
    sleep_us(w, 3 * LIST_EVERY_US);
    assert_int_equal(w->duty[1], LIST_FOR_ALL);
    world_free(w);
}

/* ---- calls ---- */

static void ask(struct world *w, unsigned char n, uint32_t waiting, uint64_t returned, uint64_t throttled)
{
    struct calls_report r = {waiting, returned, throttled};

    engine_calls_report(w->e, w->now, w->sessions[n], &r);
    settle(w);
}

static void test_shares(void **state)
{
    struct world *w = world_new();

    come(w, 1, 0);
    assert_int_equal(w->share[1].per_hour, 3600 / 4 / 4); /* a quarter, for four */
    assert_int_equal(w->share[1].burst, 40 / 4 / 4);
    for (unsigned char n = 2; n <= 4; n++)
        come(w, n, 0);
    assert_int_equal(w->share[4].per_hour, 225);
    come(w, 5, 0);
    for (unsigned char n = 1; n <= 5; n++)
        assert_int_equal(w->share[n].per_hour, 3600 / 4 / 8);
    for (unsigned char n = 2; n <= 5; n++)
        leave(w, n);
    assert_int_equal(w->share[1].per_hour, 225); /* never so few that those who come make it others all the time */
    world_free(w);
}

static void test_turns(void **state)
{
    struct world *w = world_new();

    come(w, 1, 0);
    come(w, 2, 0);
    ask(w, 1, 1000, 0, 0);
    assert_int_equal(w->share[1].handed, 30); /* what the own shares leave of the burst */
    ask(w, 2, 5, 0, 0);
    assert_int_equal(w->share[2].handed, 0);
    for (unsigned i = 0; i < 40; i++) /* 45 a minute: the one that asks for little is not kept by the other */
        sleep_us(w, S);
    assert_int_equal(w->share[2].handed, 5);
    assert_int_equal(w->share[1].handed, 30 + 30 - 5);
    assert_true(engine_deadline(w->e) < w->now.mono_us + 2 * S);
    ask(w, 1, 0, 0, 0);
    sleep_us(w, 60 * S);
    assert_int_equal(w->share[1].handed, 55); /* does not wait any more */
    world_free(w);
}

static void test_return(void **state)
{
    struct world *w = world_new();

    come(w, 1, 0);
    come(w, 2, 0);
    ask(w, 1, 30, 0, 0);
    ask(w, 1, 0, 20, 0);
    ask(w, 1, 0, 20, 0); /* said twice, it is the same */
    ask(w, 2, 100, 0, 0);
    assert_int_equal(w->share[2].handed, 20);
    ask(w, 1, 0, UINT64_MAX, 0); /* a node cannot give back what it did not get */
    assert_int_equal(w->share[2].handed, 30);
    leave(w, 1); /* what it had is counted as made */
    ask(w, 2, 100, 0, 0);
    assert_int_equal(w->share[2].handed, 30);
    world_free(w);
}

static void test_throttled_account(void **state)
{
    struct world *w = world_new();

    come(w, 1, 0);
    come(w, 2, 0);
    ask(w, 1, 0, 0, 7); /* before this session */
    ask(w, 2, 1, 0, 0);
    assert_int_equal(w->share[2].handed, 1 + 8); /* there is plenty: some for what follows */
    ask(w, 1, 0, 0, 8);
    ask(w, 2, 5, 0, 0);
    assert_int_equal(w->share[2].handed, 9); /* slows all down */
    sleep_us(w, S);
    assert_in_range(w->share[2].handed, 10, 11);
    world_free(w);
}

/* ---- a node ---- */

struct brain {
    struct node *n;
    struct now now;
    uint64_t seed;
    unsigned lists, here_only, observes, detaches, told, gone, completes;
    struct volume_state states[2]; /* what a list and a look say */
    size_t n_states;
};

static void run(struct brain *b)
{
    for (struct node_effect *f; (f = node_next(b->n)); node_effect_free(f)) {
        struct outcome o = {.step = f->step.id};
        if (f->kind == NODE_PERSIST)
            node_persisted(b->n, b->now, &f->memory);
        b->told += f->kind == NODE_SIGHTING && f->sighting.present;
        b->gone += f->kind == NODE_SIGHTING && !f->sighting.present;
        b->completes += f->kind == NODE_SIGHTINGS_COMPLETE;
        if (f->kind != NODE_STEP)
            continue;
        if (f->step.kind == STEP_LIST_VOLUMES && f->step.here_only) {
            b->here_only++;
            o.volumes = f->step.known;
            o.n_volumes = f->step.n_known;
        } else if (f->step.kind == STEP_LIST_VOLUMES) {
            b->lists++;
            o.volumes = b->states;
            o.n_volumes = b->n_states;
        } else if (f->step.kind == STEP_OBSERVE) {
            b->observes++;
            o.observed = true;
            o.volume = b->states[0];
        } else if (f->step.kind == STEP_UNMOUNT) {
            b->detaches++;
            b->states[0].attached = b->states[0].mounted = false;
            o.observed = true;
            o.volume = b->states[0];
        }
        node_outcome(b->n, b->now, &o);
    }
}

static void pass(struct brain *b, uint64_t us)
{
    uint64_t end = b->now.mono_us + us;

    while (b->now.mono_us < end) {
        uint64_t next = node_deadline(b->n);
        b->now.mono_us = next < end ? next > b->now.mono_us ? next : b->now.mono_us + 1 : end;
        node_tick(b->n, b->now);
        run(b);
    }
}

static void session(struct brain *b)
{
    struct welcome w = {.store = id(99), .generation = id(98), .revision = 1};

    node_session_up(b->n, b->now, &w);
    node_orders_complete(b->n, b->now);
    run(b);
}

static char h1[] = "h1", h2[] = "h2", h3[] = "h3";

static struct brain *brain_new(void)
{
    struct brain *b = xcalloc(1, sizeof(*b));

    b->now = (struct now){.mono_us = S, .wall_us = 5 * S};
    b->states[0] = (struct volume_state){.dataset = D, .present = true, .attached = true, .mounted = true, .size = 5, .hosts = h1};
    b->states[1] = (struct volume_state){.dataset = id(78), .present = true, .attached_elsewhere = true, .hosts = h2};
    b->n_states = 2;
    b->n = node_new(&(struct node_config){
        .era = id(50), .storage = STORAGE_ATTACHABLE, .random = random_seeded(&b->seed), .shares_lists = true});
    node_start(b->n, b->now);
    run(b);
    assert_int_equal(b->lists, 1);
    return b;
}

static void brain_free(struct brain *b)
{
    node_free(b->n);
    free(b);
}

static void duty(struct brain *b, enum list_duty d)
{
    node_list_order(b->n, b->now, &(struct list_order){.duty = d, .interval_s = 120});
    run(b);
}

#define HOUR (3600 * (uint64_t)S)

static void test_alone(void **state)
{
    struct brain *b = brain_new();

    pass(b, HOUR);
    assert_in_range(b->lists, 2, 4);     /* seldom, */
    assert_in_range(b->here_only, 7, 11); /* and nothing of this machine is missed for that */
    assert_int_equal(b->observes, 0);    /* the volumes of others are none of its affairs */
    assert_int_equal(b->told, 0);
    session(b); /* an older control service says nothing of lists: as without one */
    b->lists = 0;
    pass(b, 2 * HOUR);
    assert_in_range(b->lists, 3, 6);
    assert_int_equal(b->told, 0);
    brain_free(b);
}

static void test_by_other(void **state)
{
    struct brain *b = brain_new();

    session(b);
    duty(b, LIST_BY_OTHER);
    pass(b, 10 * HOUR);
    assert_int_equal(b->lists, 1); /* that of its start */
    assert_int_equal(b->here_only, 120);
    assert_int_equal(b->observes, 0);
    node_session_down(b->n, b->now);
    pass(b, HOUR);
    assert_in_range(b->lists, 2, 4);
    brain_free(b);
}

static void test_for_all(void **state)
{
    struct brain *b = brain_new();

    session(b);
    duty(b, LIST_FOR_ALL);
    pass(b, 61 * S); /* not sooner after the last one */
    assert_int_equal(b->lists, 2);
    assert_int_equal(b->told, 2);
    assert_int_equal(b->completes, 1);
    duty(b, LIST_FOR_ALL); /* said twice */
    pass(b, HOUR);
    assert_in_range(b->lists, 31, 33);
    assert_int_equal(b->told, 2); /* no news */
    assert_true(b->completes + 1 == b->lists);
    b->states[1].hosts = h3;
    pass(b, 121 * S);
    assert_int_equal(b->told, 3);
    b->n_states = 1;
    pass(b, 121 * S);
    assert_int_equal(b->gone, 1);
    node_session_down(b->n, b->now);
    session(b);
    duty(b, LIST_FOR_ALL); /* another control service: it knows nothing */
    pass(b, 121 * S);
    assert_int_equal(b->told, 4);
    brain_free(b);
}

static struct node_sighting as_known(void)
{
    return (struct node_sighting){.dataset = D, .present = true, .attached = {.here = true}, .size = 5};
}

static void test_seen(void **state)
{
    struct brain *b = brain_new();
    struct node_sighting s = as_known(), other = {.dataset = id(79), .present = true, .attached = {.elsewhere = true}};

    session(b);
    s.size = 6;
    node_seen(b->n, b->now, &s);
    run(b);
    assert_int_equal(b->observes, 0); /* it lists by itself: what others saw does not count */
    duty(b, LIST_BY_OTHER);
    s = as_known();
    node_seen(b->n, b->now, &s);
    node_seen(b->n, b->now, &other);
    run(b);
    assert_int_equal(b->observes, 0);
    for (unsigned i = 0; i < 4; i++) {
        s = as_known();
        if (i == 0)
            s.size++;
        else if (i == 1)
            s.present = false;
        else if (i == 2)
            s.attached.here = false;
        else
            s.attached.elsewhere = true;
        node_seen(b->n, b->now, &s);
        run(b);
        assert_int_equal(b->observes, i + 1); /* looks, and believes that */
    }
    other.attached = (struct where_attached){.here = true};
    b->states[0].dataset = other.dataset;
    node_seen(b->n, b->now, &other);
    run(b);
    assert_int_equal(b->observes, 5); /* of something that it did not know to have */
    brain_free(b);
}

/* What is attached here and not used is looked for where somebody else is to have it, and detached. */
static void test_attached_late(void **state)
{
    static const struct {
        enum role role;
        enum mark_state mark;
        bool looks;
    } cases[] = {{ROLE_KEEP, MARK_RELEASED, true}, {ROLE_KEEP, MARK_NONE, true}, {ROLE_RECEIVE, MARK_NONE, true}, {ROLE_KEEP, MARK_OWNED, false}};

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct brain *b = brain_new();
        struct order o = {.dataset = D, .role = cases[i].role, .revision = 1, .transfer = 7, .number = 9};

        b->states[0] = (struct volume_state){.dataset = D, .present = true, .mark = {.state = cases[i].mark, .epoch = 5}};
        node_volume_changed(b->n, b->now, &o.dataset);
        session(b);
        node_order(b->n, b->now, &o);
        run(b);
        duty(b, LIST_BY_OTHER);
        assert_int_equal(b->detaches, 0);
        b->observes = 0;
        pass(b, 9 * S);
        assert_int_equal(b->observes, 0);
        b->states[0].attached = true; /* nobody says so */
        pass(b, 2 * S);
        assert_int_equal(b->observes, cases[i].looks);
        assert_int_equal(b->detaches, cases[i].looks);
        b->observes = 0;
        pass(b, HOUR);
        assert_in_range(b->observes, cases[i].looks ? 20 : 0, cases[i].looks ? 26 : 0); /* ever less often */
        brain_free(b);
    }
}

/* No order names the dataset any more, and a list says that it is attached here. */
static void test_attached_later_still(void **state)
{
    struct brain *b = brain_new();
    struct node_sighting s = {.dataset = id(79), .present = true, .attached = {.here = true, .elsewhere = true}};

    session(b);
    duty(b, LIST_BY_OTHER);
    b->states[0] = (struct volume_state){.dataset = s.dataset, .present = true, .attached = true, .attached_elsewhere = true};
    node_seen(b->n, b->now, &s);
    run(b);
    assert_int_equal(b->detaches, 1);
    brain_free(b);
}

static void test_where(void **state)
{
    struct where_attached w = sighting_where("i-1 i-2", "i-2");

    assert_true(w.here && w.elsewhere);
    w = sighting_where("i-21", "i-2");
    assert_true(!w.here && w.elsewhere);
    w = sighting_where(NULL, "i-2");
    assert_true(!w.here && !w.elsewhere);
    w = sighting_where("my host", "my host");
    assert_true(w.here && !w.elsewhere);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_lists),
        cmocka_unit_test(test_unknown_storage),
        cmocka_unit_test(test_what_concerns),
        cmocka_unit_test(test_what_concerns_all),
        cmocka_unit_test(test_new_lister),
        cmocka_unit_test(test_silent_lister),
        cmocka_unit_test(test_shares),
        cmocka_unit_test(test_turns),
        cmocka_unit_test(test_return),
        cmocka_unit_test(test_throttled_account),
        cmocka_unit_test(test_alone),
        cmocka_unit_test(test_by_other),
        cmocka_unit_test(test_for_all),
        cmocka_unit_test(test_seen),
        cmocka_unit_test(test_attached_late),
        cmocka_unit_test(test_attached_later_still),
        cmocka_unit_test(test_where),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
