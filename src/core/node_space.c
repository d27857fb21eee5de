/* How much of the storage is free: when it is asked for, whether it is too little, what is said about it. */
#include "core/node_internal.h"

static void look_at(struct node_space *s, uint64_t us)
{
    if (!s->look_us || us < s->look_us)
        s->look_us = us;
}

/* A storage that is short is asked again, ever less often, so that what waits for room need not wait for the next full look. */
static void wait_longer(struct node_space *s, struct now now)
{
    s->wait_us = s->wait_us ? 2 * s->wait_us : SPACE_SHORT_US;
    if (s->wait_us > SPACE_SHORT_MOST_US)
        s->wait_us = SPACE_SHORT_MOST_US;
    look_at(s, now.mono_us + s->wait_us);
}

void node_space_is_short(struct node *n, struct now now)
{
    struct node_space *s = &n->space;

    s->is_short = true;
    s->wait_us = 0;
    wait_longer(s, now);
}

void node_space_seen(struct node *n, struct now now, const struct space *space)
{
    struct node_space *s = &n->space;

    s->look_us = 0;
    if (space->total) {
        s->last = *space;
        s->is_short = space->free < space->total / SPACE_LOW_PART;
    }
    if (s->is_short)
        wait_longer(s, now);
    else
        s->wait_us = 0;
}

void node_space_look(struct node *n, struct now now)
{
    look_at(&n->space, now.mono_us + SPACE_LOOK_US);
}

void node_decide_space(struct node *n, struct now now)
{
    struct node_space *s = &n->space;

    if (!s->look_us || now.mono_us < s->look_us || s->step || !n->volumes_known ||
        n->list_volumes_step)
        return;
    s->look_us = 0;
    s->step = node_push_step(n, STEP_SPACE)->id;
}

bool node_space_outcome(struct node *n, struct now now, const struct outcome *o)
{
    struct node_space *s = &n->space;

    if (!o->step || o->step != s->step)
        return false;
    s->step = 0;
    node_space_seen(n, now, &(struct space){o->error ? 0 : o->space.total, o->space.free});
    return true;
}

uint64_t node_space_deadline(const struct node *n)
{
    return n->space.step || !n->volumes_known || n->list_volumes_step ? 0 : n->space.look_us;
}

static bool is_news(const struct space *told, const struct space *now)
{
    uint64_t more = now->free > told->free ? now->free - told->free : told->free - now->free;

    return now->total != told->total || more >= now->total / SPACE_NEWS_PART;
}

void node_report_space(struct node *n)
{
    struct node_space *s = &n->space;

    if (!n->welcome.space || !s->last.total || (s->reported && !is_news(&s->told, &s->last)))
        return;
    node_effect_push(n, NODE_SPACE_REPORT)->space = s->told = s->last;
    s->reported = true;
}
