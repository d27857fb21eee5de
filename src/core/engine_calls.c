/* Calls of storages' APIs: an account has so many an hour, and all nodes use them together. Each node that says so in its hello has a
 * small share of its own; the rest is in one pool, from which those that wait are served in turns, a few calls at a time.
 * What was handed out is counted as made, unless it comes back. README.md, "Lists of shared storage". */
#include "core/engine_internal.h"

#define OWN_PART 4   /* that part of all belongs to the nodes' own shares together */
#define AT_ONCE 16u  /* calls that one node is handed out before the next one's turn */
#define AHEAD 8u     /* more than are waited for while there is plenty: who begins something makes several, one after the other */
#define FEW_NODES 4u /* shares are for so many, or twice that and so on: they seldom change when nodes come and go */

/* All nodes of one backend, as if they had one account: they mostly do. */
struct call_account {
    char *backend;
    struct bucket pool;
    uint32_t n_nodes, n_shares; /* shares there are for so many */
    struct node_entry *first, **last; /* those that wait */
    UT_hash_handle hh;
};

void engine_call_budget(struct engine *e, struct bucket_limits limits)
{
    e->call_limits = limits;
}

void calls_free(struct engine *e)
{
    struct call_account *a, *next;

    HASH_ITER (hh, e->accounts, a, next) {
        HASH_DEL(e->accounts, a);
        free(a->backend);
        free(a);
    }
}

static struct call_account *account_of(const struct engine *e, const char *backend)
{
    struct call_account *a;

    HASH_FIND_STR(e->accounts, backend, a);
    return a;
}

/* ---- shares ---- */

static uint32_t at_least_one(uint32_t n)
{
    return n ? n : 1;
}

static struct bucket_limits share_of(const struct engine *e, const struct call_account *a)
{
    return (struct bucket_limits){at_least_one(e->call_limits.per_hour / OWN_PART / a->n_shares),
                                  at_least_one(e->call_limits.burst / OWN_PART / a->n_shares)};
}

/* What the own shares leave. */
static struct bucket_limits rest_of(const struct engine *e)
{
    return (struct bucket_limits){at_least_one(e->call_limits.per_hour - e->call_limits.per_hour / OWN_PART),
                                  at_least_one(e->call_limits.burst - e->call_limits.burst / OWN_PART)};
}

static void send_share(struct engine *e, const struct call_account *a, const struct node_entry *n)
{
    struct bucket_limits share = share_of(e, a);
    struct effect *f = effect_push(e, EFFECT_CALLS_SHARE);

    f->session = n->session;
    f->share = (struct calls_share){share.per_hour, share.burst, n->calls.handed};
}

static bool has_share(const struct node_entry *n, const struct call_account *a)
{
    return n->session && n->calls.account == a;
}

/* For as many nodes as there are, to the next power of two; less only when there are few. true: the shares are others now. */
static bool fit_shares(struct call_account *a)
{
    uint32_t n = a->n_shares;

    while (n < a->n_nodes)
        n *= 2;
    while (n > FEW_NODES && n / 4 >= a->n_nodes)
        n /= 2;
    if (n == a->n_shares)
        return false;
    a->n_shares = n;
    return true;
}

static void settle_shares(struct engine *e, struct call_account *a, const struct node_entry *news)
{
    bool all = fit_shares(a);

    for (const struct node_entry *n = all ? e->nodes : NULL; n; n = n->hh.next) {
        if (has_share(n, a))
            send_share(e, a, n);
    }
    if (!all && news)
        send_share(e, a, news);
}

/* ---- turns ---- */

static void wait_turn(struct call_account *a, struct node_entry *n)
{
    if (n->calls.queued)
        return;
    n->calls.queued = true;
    n->calls.next = NULL;
    *a->last = n;
    a->last = &n->calls.next;
}

static struct node_entry *take_first(struct call_account *a)
{
    struct node_entry *n = a->first;

    a->first = n->calls.next;
    if (!a->first)
        a->last = &a->first;
    n->calls.queued = false;
    n->calls.next = NULL;
    return n;
}

static void leave_turns(struct call_account *a, struct node_entry *n)
{
    struct node_entry **at = &a->first;

    if (!n->calls.queued)
        return;
    while (*at != n)
        at = &(*at)->calls.next;
    *at = n->calls.next;
    if (a->last == &n->calls.next)
        a->last = at;
    n->calls.queued = false;
    n->calls.next = NULL;
}

static uint32_t wish_of(const struct call_account *a, const struct node_entry *n)
{
    bool plenty = a->pool.level > a->pool.limits.burst * BUCKET_CALL / 2;
    uint32_t waiting = n->calls.waiting < AT_ONCE ? n->calls.waiting : AT_ONCE, wish = plenty ? waiting + AHEAD : waiting;

    return wish < AT_ONCE ? wish : AT_ONCE;
}

static void serve(struct engine *e, struct call_account *a, uint64_t now_us)
{
    while (a->first) {
        uint32_t n = bucket_take(&a->pool, wish_of(a, a->first), now_us);

        if (!n)
            break;
        struct node_entry *node = take_first(a);
        node->calls.handed += n;
        node->calls.waiting -= n < node->calls.waiting ? n : node->calls.waiting;
        send_share(e, a, node);
        if (node->calls.waiting)
            wait_turn(a, node);
    }
    uint64_t next = a->first ? bucket_next_us(&a->pool, now_us) : USEC_NEVER;
    if (next < e->calls_us)
        e->calls_us = next;
}

uint64_t calls_deadline(const struct engine *e)
{
    return e->calls_us;
}

void look_at_calls(struct engine *e, struct now now)
{
    e->calls_us = USEC_NEVER;
    for (struct call_account *a = e->accounts; a; a = a->hh.next)
        serve(e, a, now.mono_us);
}

/* ---- nodes ---- */

void calls_node_left(struct engine *e, struct node_entry *n)
{
    struct call_account *a = n->calls.account;

    if (!a)
        return;
    leave_turns(a, n);
    n->calls = (struct node_calls){0};
    a->n_nodes--;
    settle_shares(e, a, NULL);
}

void calls_node_came(struct engine *e, struct now now, struct node_entry *n)
{
    const char *backend = n->hello.backend ? n->hello.backend : "";
    struct call_account *a = account_of(e, backend);

    calls_node_left(e, n);
    if (!n->hello.calls)
        return;
    if (!a) {
        a = xcalloc(1, sizeof(*a));
        a->backend = xstrdup(backend);
        a->n_shares = FEW_NODES;
        a->last = &a->first;
        a->pool = bucket_full(rest_of(e), now.mono_us);
        HASH_ADD_KEYPTR(hh, e->accounts, a->backend, strlen(a->backend), a);
    }
    n->calls.account = a;
    a->n_nodes++;
    settle_shares(e, a, n);
}

/* No more than was handed out, whatever it says. */
static void take_back(struct call_account *a, struct node_entry *n, uint64_t returned, uint64_t now_us)
{
    struct node_calls *c = &n->calls;
    uint64_t all = returned < c->handed ? returned : c->handed, news = all > c->returned ? all - c->returned : 0;

    c->returned += news;
    bucket_put(&a->pool, news < BUCKET_BURST_MAX ? (unsigned)news : BUCKET_BURST_MAX, now_us);
}

void engine_calls_report(struct engine *e, struct now now, uint64_t session, const struct calls_report *r)
{
    struct node_entry *n = node_of_session(e, session);
    struct call_account *a = n ? n->calls.account : NULL;

    if (!a)
        return;
    take_back(a, n, r->returned, now.mono_us);
    if (r->throttled > n->calls.throttled && n->calls.heard)
        bucket_throttled(&a->pool, 0, now.mono_us);
    n->calls.throttled = r->throttled;
    n->calls.heard = true;
    n->calls.waiting = r->waiting;
    if (r->waiting)
        wait_turn(a, n);
    else
        leave_turns(a, n);
    serve(e, a, now.mono_us);
}
