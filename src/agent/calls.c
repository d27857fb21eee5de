#include "agent/calls.h"

#include "base/now.h"

#include <stdatomic.h>

#define LOOK_US USEC_PER_SEC       /* while somebody waits, or something is to go back */
#define UNUSED_US (5 * USEC_PER_SEC) /* what was handed out goes back after that, when nobody waits */

struct agent_calls {
    struct loop *loop;
    struct budget *budget;
    struct agent_link *link; /* NULL: there is no session for it */
    struct timer timer;
    atomic_bool posted;
    uint64_t handed, returned; /* in this session */
    uint64_t told_throttled;
    unsigned told_waiting;
    uint64_t quiet_us; /* since then nobody has waited; 0 = somebody does */
};

static void tell(struct agent_calls *c, const struct budget_state *s)
{
    struct agent_message m = {.kind = AGENT_MESSAGE_CALLS_REPORT,
                              .calls = {.waiting = s->waiting, .returned = c->returned, .throttled = s->throttled}};

    c->told_waiting = s->waiting;
    c->told_throttled = s->throttled;
    agent_link_send(c->link, "calls", &m);
}

static void look(void *cookie)
{
    struct agent_calls *c = cookie;
    struct budget_state s = budget_state(c->budget);
    uint64_t now = now_os().mono_us;
    bool news = s.waiting || c->told_waiting || s.throttled != c->told_throttled;

    if (!c->link)
        return;
    if (s.waiting)
        c->quiet_us = 0;
    else if (!c->quiet_us)
        c->quiet_us = now;
    if (s.extra && c->quiet_us && now >= c->quiet_us + UNUSED_US) {
        c->returned += budget_take_back(c->budget);
        news = true;
    }
    if (news)
        tell(c, &s);
    if (s.waiting || s.extra)
        timer_set(&c->timer, now + LOOK_US);
}

static void look_on_loop(void *cookie)
{
    struct agent_calls *c = cookie;

    atomic_store(&c->posted, false);
    look(c);
}

/* On a driver's thread. */
static void on_news(void *cookie)
{
    struct agent_calls *c = cookie;

    if (!atomic_exchange(&c->posted, true))
        loop_post(c->loop, look_on_loop, c);
}

struct agent_calls *agent_calls_new(struct loop *loop, struct budget *budget)
{
    struct agent_calls *c = xcalloc(1, sizeof(*c));

    c->loop = loop;
    c->budget = budget;
    timer_init(&c->timer, loop, look, c);
    budget_on_news(budget, on_news, c);
    return c;
}

void agent_calls_up(struct agent_calls *c, struct agent_link *link)
{
    c->link = link;
    c->handed = c->returned = c->told_waiting = 0;
    (void)budget_take_back(c->budget); /* of an earlier session: is nobody's any more */
    struct budget_state s = budget_state(c->budget);
    tell(c, &s);
    look(c);
}

void agent_calls_down(struct agent_calls *c)
{
    c->link = NULL;
    timer_cancel(&c->timer);
}

void agent_calls_share(struct agent_calls *c, const struct calls_share *share)
{
    budget_set(c->budget, (struct bucket_limits){.per_hour = share->per_hour, .burst = share->burst});
    if (share->handed <= c->handed)
        return;
    uint64_t news = share->handed - c->handed;

    c->handed = share->handed;
    budget_add(c->budget, news < BUCKET_BURST_MAX ? (unsigned)news : BUCKET_BURST_MAX);
    timer_set(&c->timer, now_os().mono_us + LOOK_US);
}
