/* What an agent's brain does when things fail or happen in an unlucky order, and what it says about that. Long chains of such
 * are the simulator's work; here is also what it found once. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"
#include "core/node.h"

#include <stdio.h>

static uint64_t seed = 1;
static struct now now = {10 * USEC_PER_SEC, 1000000 * (uint64_t)USEC_PER_SEC};

static struct uuid id(unsigned char n)
{
    struct uuid u = {{0}};

    u.b[15] = n;
    return u;
}

/* Takes all effects; returns the id of the newest step of that kind, 0 = none. Memory is written at once. */
static uint64_t take(struct node *n, enum step_kind kind)
{
    uint64_t step = 0;

    for (struct node_effect *f; (f = node_next(n)); node_effect_free(f)) {
        if (f->kind == NODE_STEP && f->step.kind == kind)
            step = f->step.id;
        if (f->kind == NODE_PERSIST)
            node_persisted(n, now, &f->memory);
    }
    return step;
}

static void finish(struct node *n, uint64_t step)
{
    assert_int_not_equal(step, 0);
    node_outcome(n, now, &(struct outcome){.step = step});
}

static bool make_verifying; /* `move: {verify: always}` */

static struct node *make(void)
{
    struct node_config config = {.era = id(50), .random = random_seeded(&seed), .copy = COPY_LIMITS_DEFAULT};

    config.copy.verify = make_verifying;
    struct node *n = node_new(&config);

    node_start(n, now);
    return n;
}

static struct welcome welcome(unsigned char generation, unsigned char known, uint64_t revision)
{
    return (struct welcome){.protocol = AGENT_PROTOCOL_VERSION,
                            .store = id(99),
                            .revision = revision,
                            .generation = id(generation),
                            .known = id(known),
                            .known_until = known ? revision : 0};
}

/* A list that began before the start of a container had its effect tells nothing about it (simulator's seed 5546). */
static void test_a_list_made_before_a_start(void **state)
{
    struct node *n = make();
    struct welcome w = welcome(1, 0, 1);
    struct container_order o = {.action = CONTAINER_RUN, .config = container_new("web")};
    struct container_state running = {.name = (char *)"web", .run = CONTAINER_RUNNING, .created = 1, .era = id(50)};

    (void)state;
    (void)take(n, STEP_START);
    finish(n, 1); /* the first looks find nothing */
    finish(n, 2);
    node_session_up(n, now, &w);
    (void)take(n, STEP_START);
    o.config->image = xstrdup("img:1");
    o.config->restart_policy = RESTART_ALWAYS;
    o.config->created = o.config->revision = 1;
    node_container_order(n, now, &o);
    node_orders_complete(n, now);
    uint64_t start = take(n, STEP_START);
    node_containers_changed(n, now);
    uint64_t list = take(n, STEP_LIST_CONTAINERS);
    finish(n, start);
    finish(n, list); /* empty: made before */
    assert_int_equal(take(n, STEP_START), 0);
    node_containers_changed(n, now);
    list = take(n, STEP_LIST_CONTAINERS);
    if (list)
        node_outcome(n, now, &(struct outcome){.step = list, .containers = &running, .n_containers = 1});
    assert_int_equal(take(n, STEP_START), 0);
    container_order_done(&o);
    node_free(n);
}

/* What was written down between the hello and the welcome makes the welcome's answer one to another question (13886). */
static void test_an_outdated_hello(void **state)
{
    struct node *n = make();
    struct welcome first = welcome(1, 0, 1), second = welcome(2, 0, 1), third = welcome(2, 1, 1);

    (void)state;
    (void)take(n, STEP_START);
    node_session_up(n, now, &first);
    struct node_memory memory = {.store = first.store, .generation = first.generation, .seen_revision = 1};
    bool asked = false;
    for (struct node_effect *f; (f = node_next(n)); node_effect_free(f))
        asked = asked || f->kind == NODE_PERSIST;
    assert_true(asked);
    node_session_down(n, now);
    node_persisted(n, now, &memory); /* the hello of the next session is on its way already */
    node_session_up(n, now, &second);
    assert_true(node_store_refused(n));
    assert_true(node_hello_is_outdated(n));
    node_session_down(n, now);
    node_session_up(n, now, &third);
    assert_false(node_store_refused(n));
    assert_false(node_hello_is_outdated(n));
    node_free(n);
}

/* A copy that was put back and then opened on a full disk has no generation of its own: it is known only by its revision. */
static void test_a_copy_without_a_generation(void **state)
{
    struct node_config config = {.era = id(50), .random = random_seeded(&seed),
                                 .memory = {.store = id(99), .generation = id(1), .seen_revision = 20}};
    struct welcome older = welcome(1, 1, 10), same = welcome(1, 1, 20);
    struct node *n = node_new(&config);

    (void)state;
    node_start(n, now);
    node_session_up(n, now, &older);
    assert_true(node_store_refused(n));
    assert_false(node_hello_is_outdated(n));
    node_session_down(n, now);
    node_session_up(n, now, &same);
    assert_false(node_store_refused(n));
    node_free(n);
}

/* ---- steps that go well, badly, or are not wanted any more ---- */

static const struct uuid D = {.b[15] = 77};

/* What the node has said and asked for since look() was called last. */
struct seen {
    struct step step; /* the newest of the kind looked for; only its numbers and names */
    uint64_t cancelled;
    unsigned cancels, reports, gone, container_reports, container_gone, completes;
    bool storage_unknown;
    struct report report; /* the newest; only its numbers */
    struct compared compared; /* of the newest report */
    uint64_t announced, compare_announced;
    char reason[512];
    enum reason_code container_reason;
    struct container_report container; /* the newest; only its numbers */
};

static struct seen look_as(struct node *n, enum step_kind kind, bool persists)
{
    struct seen s = {0};

    for (struct node_effect *f; (f = node_next(n)); node_effect_free(f)) {
        if (f->kind == NODE_STEP && f->step.kind == kind) {
            s.step = f->step;
            assert_string_not_equal(step_name(kind), "");
        } else if (f->kind == NODE_PERSIST && persists) {
            node_persisted(n, now, &f->memory);
        } else if (f->kind == NODE_CANCEL) {
            s.cancelled = f->step_id;
            s.cancels++;
        } else if (f->kind == NODE_REPORT) {
            s.reports++;
            s.report = f->report;
            s.compared = f->report.compared ? *f->report.compared : (struct compared){0};
            s.compared.text = NULL;
            (void)snprintf(s.reason, sizeof(s.reason), "%s", f->report.reason.text ? f->report.reason.text : "");
        } else if (f->kind == NODE_CONTAINER_REPORT) {
            s.container_reports++;
            s.container_reason = f->container_report.reason.code;
            s.container = f->container_report;
        }
        else if (f->kind == NODE_ANNOUNCE)
            *(f->only_compare ? &s.compare_announced : &s.announced) = f->transfer;
        s.gone += f->kind == NODE_REPORT_GONE;
        s.container_gone += f->kind == NODE_CONTAINER_GONE;
        s.completes += f->kind == NODE_REPORTS_COMPLETE;
        s.storage_unknown |= f->storage_unknown;
    }
    return s;
}

static struct seen look(struct node *n, enum step_kind kind)
{
    return look_as(n, kind, true);
}

static void list_volumes(struct node *n, const struct volume_state *v)
{
    uint64_t step = take(n, STEP_LIST_VOLUMES);

    assert_int_not_equal(step, 0);
    node_outcome(n, now, &(struct outcome){.step = step, .volumes = v, .n_volumes = v ? 1 : 0});
}

static void order_container(struct node *n, enum container_action action, uint64_t created, enum restart_policy policy)
{
    struct container_order o = {.action = action, .config = container_new("web")};

    o.config->image = xstrdup("img:1");
    o.config->restart_policy = policy;
    o.config->created = created;
    o.config->revision = 1;
    node_container_order(n, now, &o);
    container_order_done(&o);
}

/* Has looked at what is there: this volume, and this container that is wanted so, if any; in a session, with all orders
 * known. */
static struct node *make_with(const struct volume_state *v, const struct container_state *c)
{
    struct node *n = make();
    struct welcome w = welcome(1, 0, 1);

    node_session_up(n, now, &w);
    if (c)
        order_container(n, CONTAINER_RUN, c->created, RESTART_NEVER);
    node_orders_complete(n, now);
    struct seen s = look(n, STEP_LIST_VOLUMES);
    uint64_t containers = s.step.id + 1;
    node_outcome(n, now, &(struct outcome){.step = s.step.id, .volumes = v, .n_volumes = v ? 1 : 0});
    node_outcome(n, now, &(struct outcome){.step = containers, .containers = c, .n_containers = c ? 1 : 0});
    s = look(n, STEP_MAX);
    assert_int_equal(s.completes, 1);
    assert_int_equal(s.container_reports, c ? 1 : 0);
    assert_int_equal(s.container_reason, c && c->run == CONTAINER_EXITED ? REASON_CONTAINER_EXITED : REASON_NONE);
    return n;
}

static struct volume_state owned(uint64_t epoch)
{
    return (struct volume_state){.dataset = D,
                                 .present = true,
                                 .attached = true,
                                 .mounted = true,
                                 .mark = {.state = MARK_OWNED, .epoch = epoch}};
}

static void order(struct node *n, enum role role, uint64_t transfer)
{
    struct order o = {.dataset = D,
                      .role = role,
                      .revision = 1,
                      .epoch = 5,
                      .born = true,
                      .transfer = transfer,
                      .number = 9,
                      .peer = id(2),
                      .peer_host = (char *)"192.0.2.2",
                      .peer_port = 4525};

    node_order(n, now, &o);
}

static void fail_step(struct node *n, uint64_t step, enum err_code code, const struct volume_state *v)
{
    struct err error = {code, (char *)"it failed"};
    struct outcome o = {.step = step, .error = &error};

    assert_int_not_equal(step, 0);
    if (v) {
        o.observed = true;
        o.volume = *v;
    }
    node_outcome(n, now, &o);
}

static void well(struct node *n, uint64_t step, const struct volume_state *v)
{
    assert_int_not_equal(step, 0);
    node_outcome(n, now, &(struct outcome){.step = step, .observed = true, .volume = *v});
}

/* A source that sends its first increment; returns that step. */
static uint64_t begin_sending(struct node *n, struct volume_state *v, char snapshot[1][SNAPSHOT_NAME_SIZE])
{
    order(n, ROLE_SOURCE, 9);
    struct seen s = look(n, STEP_SNAPSHOT);
    assert_string_equal(s.step.snapshot, "t9-1");
    (void)snprintf(snapshot[0], SNAPSHOT_NAME_SIZE, "t9-1");
    v->snapshots = snapshot;
    v->n_snapshots = 1;
    well(n, s.step.id, v);
    s = look(n, STEP_SEND);
    assert_int_not_equal(s.step.id, 0);
    return s.step.id;
}

static void test_before_the_start(void **state)
{
    struct node_config config = {.era = id(50), .random = random_seeded(&seed), .resync_us = 1000};
    struct node *n = node_new(&config);

    (void)state;
    assert_int_equal(node_deadline(n), USEC_NEVER);
    node_tick(n, now);
    assert_int_equal(node_deadline(n), now.mono_us);
    assert_null(node_next(n));
    node_start(n, now);
    struct node_effect *first = node_next(n);
    assert_non_null(first);
    assert_int_equal(node_deadline(n), now.mono_us + 1000);
    assert_null(node_effect_free(first));
    assert_null(node_effect_free(NULL));
    assert_null(node_free(n)); /* with an effect that nobody took */
    assert_null(node_free(NULL));
}

static void test_progress(void **state)
{
    char snapshot[1][SNAPSHOT_NAME_SIZE];
    struct volume_state v = owned(5);
    struct node *n = make_with(&v, NULL);
    uint64_t send = begin_sending(n, &v, snapshot);

    (void)state;
    node_progress(n, now, send, 10, 100);
    struct seen s = look(n, STEP_MAX);
    assert_int_equal(s.report.bytes_sent, 10);
    assert_int_equal(s.report.bytes_total, 100);
    assert_int_equal(s.report.reason.code, REASON_COPYING);
    node_progress(n, now, send, 10, 100);
    node_progress(n, now, send + 100, 20, 100); /* nobody's */
    assert_int_equal(look(n, STEP_MAX).reports, 0);
    node_progress(n, now, send, 10, 200); /* more than was estimated */
    assert_int_equal(look(n, STEP_MAX).report.bytes_total, 200);
    order(n, ROLE_RELEASE, 9);
    node_progress(n, now, send, 20, 200);
    s = look(n, STEP_MAX);
    assert_int_equal(s.report.reason.code, REASON_RELEASING);
    assert_int_equal(s.cancels, 0);
    well(n, send, &v);
    struct seen release = look(n, STEP_RELEASE);
    node_progress(n, now, release.step.id, 30, 200); /* does not send */
    assert_int_equal(look(n, STEP_MAX).reports, 0);
    node_free(n);
}

/* A copy is compared; that fails in this way and that; then it is the same. */
static void test_verify(void **state)
{
    char snapshot[1][SNAPSHOT_NAME_SIZE];
    struct volume_state v = owned(5);

    (void)state;
    make_verifying = true;
    struct node *n = make_with(&v, NULL);
    make_verifying = false;
    well(n, begin_sending(n, &v, snapshot), &v);
    struct seen s = look(n, STEP_VERIFY);
    assert_string_equal(s.step.snapshot, "t9-1");
    assert_int_equal(s.report.copied, 0);
    assert_int_equal(s.report.reason.code, REASON_COPYING);
    struct err *away = err_new(ERR_UNAVAILABLE, "away");
    node_outcome(n, now, &(struct outcome){.step = s.step.id, .error = away, .observed = true, .volume = v});
    (void)err_free(away);
    assert_int_equal(look(n, STEP_MAX).report.reason.code, REASON_PEER_UNREACHABLE);
    now.mono_us += 60 * USEC_PER_SEC;
    node_tick(n, now);
    s = look(n, STEP_VERIFY); /* again */
    struct err *other = err_new(ERR_DIFFERS, "not the same");
    node_outcome(n, now, &(struct outcome){.step = s.step.id, .error = other, .observed = true, .volume = v});
    (void)err_free(other);
    s = look(n, STEP_MAX);
    assert_int_equal(s.report.reason.code, REASON_TRANSFER_FAILED);
    assert_string_equal(s.reason, "not the same");
    now.mono_us += 60 * USEC_PER_SEC;
    node_tick(n, now);
    s = look(n, STEP_SNAPSHOT); /* anew, under the next name */
    assert_string_equal(s.step.snapshot, "t9-2");
    (void)snprintf(snapshot[0], SNAPSHOT_NAME_SIZE, "t9-2");
    well(n, s.step.id, &v);
    well(n, look(n, STEP_SEND).step.id, &v);
    s = look(n, STEP_VERIFY);
    assert_string_equal(s.step.snapshot, "t9-2");
    well(n, s.step.id, &v);
    s = look(n, STEP_SNAPSHOT);
    (void)snprintf(snapshot[0], SNAPSHOT_NAME_SIZE, "t9-3");
    well(n, s.step.id, &v);
    well(n, look(n, STEP_SEND).step.id, &v);
    assert_int_equal(look(n, STEP_MAX).report.copied, 9);
    node_free(n);
}

/* What the owner of a dataset with a replica is told; 0 = nobody wants to compare. */
static void order_comparison(struct node *n, uint64_t number)
{
    struct order o = {.dataset = D,
                      .role = ROLE_OWNER,
                      .revision = 1,
                      .epoch = 5,
                      .born = true,
                      .keep = (char *)"t7-final",
                      .compare = number,
                      .peer = number ? id(2) : (struct uuid){{0}},
                      .peer_host = number ? (char *)"192.0.2.2" : NULL,
                      .peer_port = 4525};

    node_order(n, now, &o);
}

static void verify_ends(struct node *n, uint64_t step, enum err_code code, const struct volume_state *v)
{
    struct err *e = code == ERR_CODE_MAX ? NULL : err_new(code, "as it is");

    node_outcome(n, now, &(struct outcome){.step = step, .error = e, .observed = true, .volume = *v});
    (void)err_free(e);
}

/* A replica is compared because somebody asked: until it has ended, and not again. */
static void test_compared_when_asked(void **state)
{
    char snapshot[1][SNAPSHOT_NAME_SIZE] = {"t7-final"};
    struct volume_state v = owned(5);

    (void)state;
    v.n_snapshots = 1;
    v.snapshots = snapshot;
    struct node *n = make_with(&v, NULL);
    order_comparison(n, 100);
    struct seen s = look(n, STEP_VERIFY);
    assert_true(s.step.asked);
    assert_int_equal(s.step.transfer, 100);
    assert_string_equal(s.step.snapshot, "t7-final");
    verify_ends(n, s.step.id, ERR_CODE_MAX, &v);
    s = look(n, STEP_VERIFY);
    assert_int_equal(s.step.id, 0);
    assert_int_equal(s.compared.number, 100);
    assert_int_equal(s.compared.end, COMPARISON_EQUAL);
    order_comparison(n, 0);
    s = look(n, STEP_VERIFY);
    assert_int_equal(s.reports, 1);
    assert_int_equal(s.compared.number, 0); /* no news any more */
    order_comparison(n, 101);
    s = look(n, STEP_VERIFY);
    assert_int_not_equal(s.step.id, 0);
    verify_ends(n, s.step.id, ERR_DIFFERS, &v);
    s = look(n, STEP_VERIFY);
    assert_int_equal(s.compared.end, COMPARISON_DIFFERS);
    assert_int_equal(s.report.reason.code, REASON_NONE);
    order_comparison(n, 102);
    for (unsigned i = 0; i < 3; i++) { /* bytes that are not what they must be prove nothing about the replica */
        s = look(n, STEP_VERIFY);
        assert_int_not_equal(s.step.id, 0);
        assert_int_equal(s.compared.number, 0);
        verify_ends(n, s.step.id, i == 1 ? ERR_CORRUPT : ERR_UNAVAILABLE, &v);
        now.mono_us += i < 2 ? 60 * USEC_PER_SEC : 0;
        node_tick(n, now);
    }
    s = look(n, STEP_VERIFY);
    assert_int_equal(s.step.id, 0);
    assert_int_equal(s.compared.end, COMPARISON_FAILED);
    order_comparison(n, 103);
    s = look(n, STEP_VERIFY);
    verify_ends(n, s.step.id, ERR_NOT_FOUND, &v); /* a next try cannot change that */
    assert_int_equal(look(n, STEP_VERIFY).compared.end, COMPARISON_FAILED);
    node_free(n);
}

/* A move is wanted while the replica is compared: it does not wait for that. */
static void test_a_comparison_that_is_not_wanted(void **state)
{
    char snapshot[1][SNAPSHOT_NAME_SIZE] = {"t7-final"};
    struct volume_state v = owned(5);

    (void)state;
    v.n_snapshots = 1;
    v.snapshots = snapshot;
    struct node *n = make_with(&v, NULL);
    order_comparison(n, 100);
    uint64_t step = look(n, STEP_VERIFY).step.id;
    order(n, ROLE_SOURCE, 9);
    struct seen s = look(n, STEP_MAX);
    assert_int_equal(s.cancels, 1);
    assert_int_equal(s.cancelled, step);
    verify_ends(n, step, ERR_CANCELLED, &v);
    s = look(n, STEP_SNAPSHOT);
    assert_string_equal(s.step.snapshot, "t9-1"); /* at once */
    node_free(n);
}

/* Only while the order says so, and only for that, may the owner's node come. */
static void test_a_replica_may_be_compared(void **state)
{
    char snapshot[1][SNAPSHOT_NAME_SIZE] = {"t7-final"};
    struct volume_state v = {.dataset = D, .mark = {MARK_RELEASED, 5, 7, "t7-final"}, .n_snapshots = 1, .snapshots = snapshot};
    struct node *n = make_with(&v, NULL);
    struct order o = {.dataset = D, .role = ROLE_REPLICA, .revision = 1, .number = 9, .keep = snapshot[0]};

    (void)state;
    node_order(n, now, &o);
    struct seen s = look(n, STEP_MAX);
    assert_int_equal(s.announced + s.compare_announced, 0);
    o.compare = 100;
    o.peer = id(2);
    node_order(n, now, &o);
    s = look(n, STEP_MAX);
    assert_int_equal(s.announced, 0);
    assert_int_equal(s.compare_announced, 100);
    o.compare = 0;
    node_order(n, now, &o);
    assert_int_equal(look(n, STEP_FORBID).step.transfer, 100);
    node_free(n);
}

/* The move is taken back while the copy is compared. */
static void test_a_verify_that_is_not_wanted(void **state)
{
    char snapshot[1][SNAPSHOT_NAME_SIZE];
    struct volume_state v = owned(5);

    (void)state;
    make_verifying = true;
    struct node *n = make_with(&v, NULL);
    make_verifying = false;
    well(n, begin_sending(n, &v, snapshot), &v);
    assert_int_not_equal(look(n, STEP_VERIFY).step.id, 0);
    order(n, ROLE_OWNER, 0);
    assert_int_equal(look(n, STEP_MAX).cancels, 1);
    node_free(n);
}

/* The move is taken back while the increment is on its way. */
static void test_a_send_that_is_not_wanted(void **state)
{
    char snapshot[1][SNAPSHOT_NAME_SIZE];
    struct volume_state v = owned(5);
    struct node *n = make_with(&v, NULL);
    uint64_t send = begin_sending(n, &v, snapshot);

    (void)state;
    order(n, ROLE_OWNER, 0);
    assert_int_equal(look(n, STEP_MAX).cancelled, send);
    node_tick(n, now);
    assert_int_equal(look(n, STEP_MAX).cancels, 0); /* once is enough */
    fail_step(n, send, ERR_CANCELLED, NULL);
    struct seen s = look(n, STEP_OBSERVE); /* at once: that was no failure */
    assert_int_equal(s.report.reason.code, REASON_NONE);
    well(n, s.step.id, &v);
    assert_int_not_equal(look(n, STEP_PRUNE).step.id, 0);
    node_free(n);
}

/* The order went and came again meanwhile: the increment counts for nothing, it is not known what the copy needs. */
static void test_a_send_of_an_earlier_order(void **state)
{
    char snapshot[1][SNAPSHOT_NAME_SIZE];
    struct volume_state v = owned(5);

    (void)state;
    for (int again = 0; again < 2; again++) {
        struct node *n = make_with(&v, NULL);
        struct volume_state sent = v;
        uint64_t send = begin_sending(n, &sent, snapshot);
        struct uuid d = D;
        node_order_none(n, now, &d);
        if (again)
            order(n, ROLE_SOURCE, 9);
        well(n, send, &sent);
        struct seen s = look(n, STEP_SNAPSHOT);
        assert_int_equal(s.report.copied, 0);
        assert_string_equal(s.step.snapshot, again ? "t9-2" : "");
        node_free(n);
    }
}

static void test_why_a_send_failed(void **state)
{
    static const struct {
        enum err_code code;
        enum reason_code reason;
        bool observed;
    } cases[] = {{ERR_UNAVAILABLE, REASON_PEER_UNREACHABLE, true},
                 {ERR_IO, REASON_TRANSFER_FAILED, true},
                 {ERR_CANCELLED, REASON_TRANSFER_FAILED, true},
                 {ERR_LIMIT, REASON_NO_SPACE, true},
                 {ERR_TOO_MANY, REASON_STORAGE_LIMIT, true},
                 {ERR_NO_SPACE, REASON_NO_SPACE, false}};
    char snapshot[1][SNAPSHOT_NAME_SIZE];
    struct volume_state v = owned(5);

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct node *n = make_with(&v, NULL);
        struct volume_state sent = v;
        uint64_t send = begin_sending(n, &sent, snapshot);
        fail_step(n, send, cases[i].code, cases[i].observed ? &sent : NULL);
        struct seen s = look(n, cases[i].observed ? STEP_SEND : STEP_OBSERVE);
        assert_int_equal(s.report.reason.code, cases[i].reason);
        assert_string_equal(s.reason, "it failed");
        assert_int_equal(s.step.id, 0); /* not at once */
        uint64_t again = node_deadline(n);
        assert_true(again > now.mono_us && again < now.mono_us + USEC_PER_SEC);
        struct now later = {again, now.wall_us};
        node_tick(n, later);
        assert_int_not_equal(look(n, cases[i].observed ? STEP_SEND : STEP_OBSERVE).step.id, 0);
        node_free(n);
    }
}

static void test_why_a_volume_is_busy(void **state)
{
    static const struct {
        enum role role;
        enum step_kind step;
        enum reason_code reason;
    } cases[] = {{ROLE_KEEP, STEP_UNMOUNT, REASON_VOLUME_BUSY},     {ROLE_RELEASE, STEP_RELEASE, REASON_VOLUME_BUSY},
                 {ROLE_DROP, STEP_DROP, REASON_VOLUME_BUSY},        {ROLE_DESTROY, STEP_DESTROY, REASON_VOLUME_BUSY},
                 {ROLE_SOURCE, STEP_SNAPSHOT, REASON_STORAGE_ERROR}};
    struct volume_state v = owned(5);

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct node *n = make_with(&v, NULL);
        order(n, cases[i].role, 9);
        fail_step(n, look(n, cases[i].step).step.id, ERR_BUSY, &v);
        assert_int_equal(look(n, STEP_MAX).report.reason.code, cases[i].reason);
        node_free(n);
    }
}

/* Docker is answered only when nothing can take the volume away any more. */
static void test_a_volume_is_mounted_to_stay(void **state)
{
    struct volume_state v = owned(5);
    struct node *n = make_with(&v, NULL);

    (void)state;
    assert_true(node_volume_mounted(n, &D, 0));
    assert_false(node_volume_mounted(n, &D, 5)); /* nobody has said that it is to be here */
    order(n, ROLE_KEEP, 0);
    uint64_t step = look(n, STEP_UNMOUNT).step.id;
    order(n, ROLE_OWNER, 0);
    assert_false(node_volume_mounted(n, &D, 5)); /* it is just being unmounted, by the order before */
    assert_false(node_volume_mounted(n, &D, 0));
    v.mounted = false;
    well(n, step, &v);
    assert_false(node_volume_mounted(n, &D, 5));
    step = look(n, STEP_MOUNT).step.id;
    v.mounted = true;
    well(n, step, &v);
    assert_true(node_volume_mounted(n, &D, 5));
    assert_true(node_volume_mounted(n, &D, 4));
    assert_false(node_volume_mounted(n, &D, 6)); /* what is promised is of a later time */
    order(n, ROLE_SOURCE, 9);
    assert_true(node_volume_mounted(n, &D, 5)); /* it is copied, and stays until the release is ordered */
    order(n, ROLE_RELEASE, 9);
    assert_false(node_volume_mounted(n, &D, 5));
    assert_false(node_volume_mounted(n, &(struct uuid){.b[15] = 1}, 0));
    node_free(n);
    v.mark.epoch = 4; /* of before the release was taken back */
    n = make_with(&v, NULL);
    order(n, ROLE_OWNER, 0);
    assert_false(node_volume_mounted(n, &D, 5));
    node_free(n);
}

/* ---- what is told when ---- */

static void test_only_news_are_told(void **state)
{
    struct volume_state v = owned(5);
    struct node *n = make_with(&v, NULL);
    struct uuid d = D;

    (void)state;
    v.mark = (struct volume_mark){MARK_RELEASED, 5, 9, "t9-final"};
    for (int change = 0; change < 4; change++) {
        if (change == 1)
            v.mark.transfer = 10;
        else if (change == 2)
            (void)snprintf(v.mark.snapshot, sizeof(v.mark.snapshot), "t10-final");
        node_volume_changed(n, now, &d);
        well(n, look(n, STEP_OBSERVE).step.id, &v);
        assert_int_equal(look(n, STEP_MAX).reports, change < 3 ? 1 : 0);
    }
    v = (struct volume_state){.dataset = D};
    node_volume_changed(n, now, &d);
    well(n, look(n, STEP_OBSERVE).step.id, &v);
    assert_int_equal(look(n, STEP_MAX).gone, 1);
    node_tick(n, now);
    assert_int_equal(look(n, STEP_MAX).gone, 0);
    node_free(n);
}

/* A later list that has nothing of what is known is a hint to look: also when only the mark is known. */
static void test_a_list_without_the_mark(void **state)
{
    struct volume_state v = {.dataset = D, .mark = {MARK_RELEASED, 5, 9, "t9-final"}};
    struct node *n = make_with(&v, NULL);
    struct now before = now;

    (void)state;
    now.mono_us = node_deadline(n);
    node_tick(n, now);
    list_volumes(n, &v);
    assert_int_equal(look(n, STEP_OBSERVE).step.id, 0);
    now.mono_us = node_deadline(n);
    node_tick(n, now);
    list_volumes(n, NULL);
    assert_int_not_equal(look(n, STEP_OBSERVE).step.id, 0);
    now = before;
    node_free(n);
}

static void test_storage_is_missing(void **state)
{
    struct node *n = make();
    struct welcome w = welcome(1, 0, 1);
    struct uuid other = id(78);

    (void)state;
    node_session_up(n, now, &w);
    node_orders_complete(n, now);
    struct seen s = look(n, STEP_LIST_VOLUMES);
    node_outcome(n, now, &(struct outcome){.step = s.step.id + 1});
    order(n, ROLE_OWNER, 0);
    node_volume_changed(n, now, &other); /* of that nobody asks anything */
    assert_int_equal(look(n, STEP_MAX).reports, 0);
    fail_step(n, s.step.id, ERR_NOT_FOUND, NULL);
    s = look(n, STEP_MAX);
    assert_int_equal(s.report.reason.code, REASON_STORAGE_MISSING);
    assert_int_equal(s.reports, 1);
    assert_int_equal(s.completes, 1); /* the control service need not wait for the storage */
    assert_true(s.storage_unknown);   /* but what is there is not known yet */
    now.mono_us += 60 * USEC_PER_SEC;
    node_tick(n, now);
    s = look(n, STEP_LIST_VOLUMES);
    assert_int_equal(s.completes, 0);
    node_outcome(n, now, &(struct outcome){.step = s.step.id});
    s = look(n, STEP_MAX);
    assert_int_equal(s.completes, 1); /* said again, now that it is */
    assert_false(s.storage_unknown);
    assert_int_equal(look(n, STEP_MAX).completes, 0);
    node_free(n);
}

/* ---- containers ---- */

static void test_why_a_container_does_not_start(void **state)
{
    static const struct {
        bool image;
        enum err_code code;
        enum reason_code reason;
    } cases[] = {{false, ERR_BUSY, REASON_PORT_IN_USE},     {false, ERR_EXISTS, REASON_NAME_TAKEN},
                 {false, ERR_IO, REASON_START_FAILED},      {false, ERR_UNAVAILABLE, REASON_ENGINE_UNAVAILABLE},
                 {true, ERR_NOT_FOUND, REASON_IMAGE_MISSING}, {true, ERR_UNAVAILABLE, REASON_IMAGE_PULL_FAILED}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct node *n = make_with(NULL, NULL);
        order_container(n, CONTAINER_RUN, 1, RESTART_ALWAYS);
        uint64_t step = look(n, STEP_START).step.id;
        if (cases[i].image) {
            fail_step(n, step, ERR_NOT_FOUND, NULL); /* it is not here: fetched at once */
            struct seen s = look(n, STEP_IMAGE);
            assert_true(s.step.pull);
            step = s.step.id;
        }
        fail_step(n, step, cases[i].code, NULL);
        assert_int_equal(look(n, STEP_MAX).container_reason, cases[i].reason);
        node_free(n);
    }
}

static void test_a_container_that_has_ended(void **state)
{
    struct container_state c = {.name = (char *)"web", .run = CONTAINER_EXITED, .created = 1, .era = id(50), .exit_code = 3};
    struct node *n = make_with(NULL, &c);

    (void)state;
    order_container(n, CONTAINER_RUN, 2, RESTART_NEVER); /* configured anew */
    struct seen s = look(n, STEP_STOP);
    assert_int_not_equal(s.step.id, 0);
    fail_step(n, s.step.id, ERR_IO, NULL);
    assert_int_equal(look(n, STEP_MAX).container_reason, REASON_STOP_FAILED);
    node_free(n);
}

/* What ended well, and stays so, is told to have ended for good; where nothing is of it that is told as well. */
static void test_a_container_that_has_ended_for_good(void **state)
{
    struct container_state c = {
        .name = (char *)"web", .run = CONTAINER_EXITED, .created = 1, .era = id(50)};
    struct now began = now;
    struct node *n = make_with(NULL, &c);

    (void)state;
    now.mono_us += 9 * USEC_PER_SEC;
    node_tick(n, now);
    struct seen s = look(n, STEP_START);
    assert_false(s.step.id || s.container.ended);
    assert_true(node_deadline(n) <= began.mono_us + 10 * USEC_PER_SEC);
    now.mono_us = began.mono_us + 10 * USEC_PER_SEC;
    node_tick(n, now);
    s = look(n, STEP_START);
    assert_true(!s.step.id && s.container.ended && s.container.created == 1);
    struct container_order o = {.action = CONTAINER_RUN, .config = container_new("web")};
    o.config->image = xstrdup("img:1");
    o.config->created = o.config->revision = 2;
    o.config->ended = true;
    node_container_order(n, now, &o); /* another configuration, which ended elsewhere */
    container_order_done(&o);
    s = look(n, STEP_STOP);
    assert_true(s.step.id && s.container_reports == 1 && !s.container.ended);
    node_outcome(n, now, &(struct outcome){.step = s.step.id});
    s = look(n, STEP_START);
    assert_true(!s.step.id && s.container.ended && s.container.run == CONTAINER_EXITED &&
                s.container.created == 2);
    assert_true(s.container.has_exit_code && s.container.exit_code == 0 &&
                s.container_reason == REASON_CONTAINER_EXITED);
    node_free(n);
    now = began;
}

/* Somebody else made it anew from another configuration between two looks. */
static void test_a_container_that_is_another(void **state)
{
    struct container_state c = {.name = (char *)"web", .run = CONTAINER_RUNNING, .created = 1, .era = id(50)};
    struct node *n = make_with(NULL, &c);

    (void)state;
    node_containers_changed(n, now);
    uint64_t list = look(n, STEP_LIST_CONTAINERS).step.id;
    node_container_none(n, now, "other"); /* not known */
    c.created = 2;
    node_outcome(n, now, &(struct outcome){.step = list, .containers = &c, .n_containers = 1});
    struct seen s = look(n, STEP_STOP);
    assert_int_equal(s.container_reports, 1);
    assert_int_not_equal(s.step.id, 0);
    node_free(n);
}

/* ---- sessions ---- */

static void give_orders(struct node *n)
{
    struct uuid d = D;

    order(n, ROLE_OWNER, 0);
    node_order_none(n, now, &d);
    order_container(n, CONTAINER_RUN, 1, RESTART_ALWAYS);
    node_container_none(n, now, "web");
    node_orders_complete(n, now);
}

static void test_orders_that_are_not_obeyed(void **state)
{
    struct container_state c = {.name = (char *)"web", .run = CONTAINER_RUNNING, .created = 1, .era = id(50)};
    struct node_config config = {.era = id(50),
                                 .random = random_seeded(&seed),
                                 .memory = {.store = id(98), .generation = id(1), .seen_revision = 7}};
    struct node *n = node_new(&config);
    struct welcome w = welcome(1, 0, 1);
    struct volume_state v = owned(5);

    (void)state;
    node_start(n, now);
    struct seen s = look(n, STEP_LIST_VOLUMES);
    node_outcome(n, now, &(struct outcome){.step = s.step.id, .volumes = &v, .n_volumes = 1});
    node_outcome(n, now, &(struct outcome){.step = s.step.id + 1, .containers = &c, .n_containers = 1});
    give_orders(n); /* without a session */
    assert_int_equal(look(n, STEP_MAX).reports, 0);
    node_session_up(n, now, &w); /* of another store */
    assert_true(node_store_refused(n));
    assert_false(node_hello_is_outdated(n));
    give_orders(n);
    s = look(n, STEP_STOP);
    assert_int_equal(s.step.id, 0);
    assert_int_equal(s.report.reason.code, REASON_STORE_UNKNOWN);
    node_session_down(n, now);
    assert_false(node_hello_is_outdated(n));
    node_free(n);
}

/* The memory of an earlier session becomes durable when the next one, of a later life of the store, has already told all
 * orders: nothing of it is obeyed any more, also not what has no order. */
static void test_a_memory_that_is_written_late(void **state)
{
    struct container_state c = {.name = (char *)"web", .run = CONTAINER_RUNNING, .created = 1, .era = id(50)};
    struct welcome first = welcome(1, 0, 1), second = welcome(2, 0, 1);
    struct node_memory memory = {.store = first.store, .generation = first.generation, .seen_revision = 1};
    struct node *n = make();

    (void)state;
    struct seen s = look_as(n, STEP_LIST_VOLUMES, false);
    node_outcome(n, now, &(struct outcome){.step = s.step.id});
    node_outcome(n, now, &(struct outcome){.step = s.step.id + 1, .containers = &c, .n_containers = 1});
    node_session_up(n, now, &first);
    (void)look_as(n, STEP_MAX, false); /* it is being written */
    node_session_down(n, now);
    node_session_up(n, now, &second);
    assert_false(node_store_refused(n));
    node_persisted(n, now, &memory);
    node_orders_complete(n, now);
    assert_true(node_store_refused(n));
    assert_true(node_hello_is_outdated(n));
    assert_int_equal(look(n, STEP_STOP).step.id, 0);
    node_free(n);
}

/* A new life of the store that the node obeys: it acts only when that is written down. */
static void test_a_new_life_of_the_store(void **state)
{
    struct node_config config = {.era = id(50),
                                 .random = random_seeded(&seed),
                                 .memory = {.store = id(99), .generation = id(1), .seen_revision = 7}};
    struct node *n = node_new(&config);
    struct welcome w = welcome(2, 1, 7);
    struct volume_state none = {.dataset = D};

    (void)state;
    node_start(n, now);
    struct seen s = look(n, STEP_LIST_VOLUMES);
    node_outcome(n, now, &(struct outcome){.step = s.step.id});
    node_outcome(n, now, &(struct outcome){.step = s.step.id + 1});
    node_session_up(n, now, &w);
    struct order o = {.dataset = D, .role = ROLE_OWNER, .revision = 3, .epoch = 5};
    node_order(n, now, &o);
    node_orders_complete(n, now);
    s = look_as(n, STEP_CREATE, false);
    assert_int_equal(s.step.id, 0);
    assert_int_equal(s.report.reason.code, REASON_MOUNTING);
    node_persisted(n, now, &(struct node_memory){.store = w.store, .generation = w.generation, .seen_revision = 7});
    uint64_t create = look(n, STEP_CREATE).step.id;
    assert_int_not_equal(create, 0);
    fail_step(n, create, ERR_IO, &none);
    assert_int_equal(look(n, STEP_MAX).report.reason.code, REASON_STORAGE_ERROR);
    node_free(n);
}

/* The next list of volumes, with so much free space. */
static struct seen look_at_space(struct node *n, const struct volume_state *v, uint64_t total, uint64_t unused)
{
    struct now later = now;
    struct seen s = {0};

    for (unsigned i = 0; i < 3 && !s.step.id;
         i++) { /* before it, maybe a look at the space alone */
        later.mono_us = node_deadline(n);
        node_tick(n, later);
        s = look(n, STEP_LIST_VOLUMES);
    }
    assert_int_not_equal(s.step.id, 0);
    struct outcome o = {.step = s.step.id, .volumes = v, .n_volumes = 1, .space = {total, unused}};
    node_outcome(n, later, &o);
    s = look(n, STEP_LIST_CONTAINERS);
    node_outcome(n, later, &(struct outcome){.step = s.step.id});
    (void)look(n, STEP_MAX);
    return s;
}

/* A node that is short of space says that it wants the room of its replicas. */
static void test_short_of_space(void **state)
{
    char snapshot[1][SNAPSHOT_NAME_SIZE] = {"t7-final"};
    struct volume_state v = {.dataset = D, .mark = {MARK_RELEASED, 5, 7, "t7-final"}, .n_snapshots = 1, .snapshots = snapshot};
    struct node *n = make_with(&v, NULL);
    struct order o = {.dataset = D, .role = ROLE_REPLICA, .revision = 1, .number = 9, .keep = snapshot[0]};

    (void)state;
    node_space_wanted(n, now);
    assert_false(look(n, STEP_MAX).report.space_wanted); /* there is no replica */
    node_order(n, now, &o);
    assert_true(look(n, STEP_MAX).report.space_wanted);
    struct seen s = look_at_space(n, &v, 100, 50);
    assert_int_equal(s.reports, 1);
    assert_false(s.report.space_wanted);
    s = look_at_space(n, &v, 100, 10);
    assert_int_equal(s.reports, 0);
    s = look_at_space(n, &v, 100, 9);
    assert_true(s.report.space_wanted);
    s = look_at_space(n, &v, 0, 0); /* not known: as it was */
    assert_int_equal(s.reports, 0);
    s = look_at_space(n, &v, 100, 50);
    assert_false(s.report.space_wanted);
    v.partial = true;
    node_volume_changed(n, now, &D);
    struct seen observe = look(n, STEP_OBSERVE);
    node_outcome(n, now, &(struct outcome){.step = observe.step.id, .observed = true, .volume = v});
    struct seen prune = look(n, STEP_PRUNE);
    assert_string_equal(prune.step.snapshot, "t7-final");
    assert_false(prune.report.space_wanted);
    fail_step(n, prune.step.id, ERR_LIMIT, &v); /* one dataset's own limit is not the node's */
    assert_false(look(n, STEP_MAX).report.space_wanted);
    now.mono_us += 60 * USEC_PER_SEC;
    node_tick(n, now);
    prune = look(n, STEP_PRUNE);
    fail_step(n, prune.step.id, ERR_NO_SPACE, &v);
    assert_true(look(n, STEP_MAX).report.space_wanted);
    node_free(n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_list_made_before_a_start),
        cmocka_unit_test(test_an_outdated_hello),
        cmocka_unit_test(test_a_copy_without_a_generation),
        cmocka_unit_test(test_before_the_start),
        cmocka_unit_test(test_progress),
        cmocka_unit_test(test_verify),
        cmocka_unit_test(test_compared_when_asked),
        cmocka_unit_test(test_a_comparison_that_is_not_wanted),
        cmocka_unit_test(test_a_replica_may_be_compared),
        cmocka_unit_test(test_a_verify_that_is_not_wanted),
        cmocka_unit_test(test_a_send_that_is_not_wanted),
        cmocka_unit_test(test_a_send_of_an_earlier_order),
        cmocka_unit_test(test_why_a_send_failed),
        cmocka_unit_test(test_why_a_volume_is_busy),
        cmocka_unit_test(test_a_volume_is_mounted_to_stay),
        cmocka_unit_test(test_only_news_are_told),
        cmocka_unit_test(test_a_list_without_the_mark),
        cmocka_unit_test(test_storage_is_missing),
        cmocka_unit_test(test_why_a_container_does_not_start),
        cmocka_unit_test(test_a_container_that_has_ended),
        cmocka_unit_test(test_a_container_that_has_ended_for_good),
        cmocka_unit_test(test_a_container_that_is_another),
        cmocka_unit_test(test_orders_that_are_not_obeyed),
        cmocka_unit_test(test_a_memory_that_is_written_late),
        cmocka_unit_test(test_a_new_life_of_the_store),
        cmocka_unit_test(test_short_of_space),
    };

    return cmocka_run_group_tests_name("node", tests, NULL, NULL);
}
