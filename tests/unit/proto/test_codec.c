#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "sample.h"

#include "base/bucket.h"
#include "proto/agent.pb-c.h"

#include <stdio.h>

/* The message after a way over the wire; the caller frees it. */
static struct agent_message over_agent(const struct agent_message *m)
{
    CLEANUP_STR struct str wire = {0};
    struct agent_message back;

    codec_agent_encode(m, &wire);
    struct err *e = codec_agent_decode(wire.data, wire.len, &back);
    if (e)
        fail_msg("%s", e->text);
    assert_int_equal(back.kind, m->kind);
    return back;
}

static struct control_message over_control(const struct control_message *m)
{
    CLEANUP_STR struct str wire = {0};
    struct control_message back;

    codec_control_encode(m, &wire);
    struct err *e = codec_control_decode(wire.data, wire.len, &back);
    if (e)
        fail_msg("%s", e->text);
    assert_int_equal(back.kind, m->kind);
    return back;
}

static void refuse_agent(const struct agent_message *m, const char *text)
{
    CLEANUP_STR struct str wire = {0};
    struct agent_message back;

    codec_agent_encode(m, &wire);
    CLEANUP_ERR struct err *e = codec_agent_decode(wire.data, wire.len, &back);
    assert_non_null(e);
    assert_true(err_is(e, ERR_CORRUPT));
    if (!strstr(e->text, text))
        fail_msg("\"%s\" does not say \"%s\"", e->text, text);
}

static void refuse_control(const struct control_message *m, const char *text)
{
    CLEANUP_STR struct str wire = {0};
    struct control_message back;

    codec_control_encode(m, &wire);
    CLEANUP_ERR struct err *e = codec_control_decode(wire.data, wire.len, &back);
    assert_non_null(e);
    assert_true(err_is(e, ERR_CORRUPT));
    if (!strstr(e->text, text))
        fail_msg("\"%s\" does not say \"%s\"", e->text, text);
}

static void same_reason(const struct reason *a, const struct reason *b)
{
    assert_int_equal(a->code, b->code);
    assert_true(str_equal_null(a->text, b->text));
    assert_true(a->since_us == b->since_us);
    assert_true(a->retry_us == b->retry_us);
}

static void test_hello(void **state)
{
    CLEANUP_AGENT_MESSAGE struct agent_message m = sample_agent_message(AGENT_MESSAGE_HELLO);
    CLEANUP_AGENT_MESSAGE struct agent_message back = over_agent(&m);
    const struct hello *a = &m.hello, *b = &back.hello;

    assert_int_equal(a->protocol, b->protocol);
    assert_true(uuid_eq(&a->node, &b->node));
    assert_true(uuid_eq(&a->era, &b->era));
    assert_string_equal(a->version, b->version);
    assert_string_equal(a->host, b->host);
    assert_int_equal(a->mover_port, b->mover_port);
    assert_int_equal(a->storage, b->storage);
    assert_string_equal(a->backend, b->backend);
    assert_true(uuid_eq(&a->shared_by, &b->shared_by));
    assert_true(uuid_eq(&a->store, &b->store));
    assert_true(uuid_eq(&a->generation, &b->generation));
    assert_true(a->seen_revision == b->seen_revision);
    assert_int_equal(a->replicas, b->replicas);
    assert_true(b->routes);
    assert_true(b->volumes);
    assert_true(b->lists);
    assert_true(b->calls);
}

/* An agent of the version before knows nothing of lists and calls, and says nothing of them; a control service likewise. */
static void test_older_peers(void **state)
{
    CLEANUP_AGENT_MESSAGE struct agent_message hello = sample_agent_message(AGENT_MESSAGE_HELLO);
    struct control_message welcome = sample_control_message(CONTROL_MESSAGE_WELCOME), told = over_control(&welcome);

    assert_true(told.welcome.calls);
    hello.hello.lists = hello.hello.calls = welcome.welcome.calls = false;
    CLEANUP_AGENT_MESSAGE struct agent_message back = over_agent(&hello);
    told = over_control(&welcome);
    assert_false(back.hello.lists);
    assert_false(back.hello.calls);
    assert_false(told.welcome.calls);
}

static void test_hello_without_store(void **state)
{
    CLEANUP_AGENT_MESSAGE struct agent_message m = sample_agent_message(AGENT_MESSAGE_HELLO);

    m.hello.store = m.hello.shared_by = UUID_NIL;
    CLEANUP_AGENT_MESSAGE struct agent_message back = over_agent(&m);
    assert_true(uuid_is_nil(&back.hello.store));
    assert_true(uuid_is_nil(&back.hello.shared_by));
}

static void test_report(void **state)
{
    CLEANUP_AGENT_MESSAGE struct agent_message m = sample_agent_message(AGENT_MESSAGE_REPORT);
    CLEANUP_AGENT_MESSAGE struct agent_message back = over_agent(&m);
    const struct report *a = &m.report, *b = &back.report;
    const struct volume_state *v = &a->volume, *w = &b->volume;

    assert_true(uuid_eq(&v->dataset, &w->dataset));
    assert_true(w->present && w->attached && w->attached_elsewhere && w->mounted && w->partial);
    assert_true(v->size == w->size);
    assert_int_equal(v->mark.state, w->mark.state);
    assert_true(v->mark.epoch == w->mark.epoch);
    assert_true(v->mark.transfer == w->mark.transfer);
    assert_string_equal(v->mark.snapshot, w->mark.snapshot);
    assert_string_equal(v->device, w->device);
    assert_int_equal(v->n_snapshots, w->n_snapshots);
    for (size_t i = 0; i < v->n_snapshots; i++)
        assert_string_equal(v->snapshots[i], w->snapshots[i]);
    assert_true(a->gone == b->gone);
    assert_true(a->copied == b->copied);
    assert_true(a->received == b->received);
    assert_string_equal(a->received_snapshot, b->received_snapshot);
    assert_true(a->bytes_sent == b->bytes_sent);
    assert_true(a->bytes_total == b->bytes_total);
    assert_true(b->space_wanted);
    assert_int_equal(b->compared->number, 48);
    assert_int_equal(b->compared->end, COMPARISON_DIFFERS);
    assert_string_equal(b->compared->text, "the copy is not the same");
    same_reason(&a->reason, &b->reason);
}

/* One flag at a time, so that no two can be swapped. */
static void test_report_flags(void **state)
{
    for (int i = 0; i < 5; i++) {
        struct agent_message m = {.kind = AGENT_MESSAGE_REPORT};
        struct volume_state *v = &m.report.volume;
        memset(v->dataset.b, 7, sizeof(v->dataset.b));
        v->present = i == 0;
        v->attached = i == 1;
        v->attached_elsewhere = i == 2;
        v->mounted = i == 3;
        v->partial = i == 4;
        CLEANUP_AGENT_MESSAGE struct agent_message back = over_agent(&m);
        const struct volume_state *w = &back.report.volume;
        assert_int_equal(w->present, i == 0);
        assert_int_equal(w->attached, i == 1);
        assert_int_equal(w->attached_elsewhere, i == 2);
        assert_int_equal(w->mounted, i == 3);
        assert_int_equal(w->partial, i == 4);
        assert_null(back.report.reason.text);
        assert_int_equal(back.report.volume.n_snapshots, 0);
        assert_null(back.report.volume.device); /* as from an agent that does not tell it */
    }
}

static void test_container_report(void **state)
{
    CLEANUP_AGENT_MESSAGE struct agent_message m =
        sample_agent_message(AGENT_MESSAGE_CONTAINER_REPORT);
    CLEANUP_AGENT_MESSAGE struct agent_message back = over_agent(&m);

    assert_string_equal(back.container.name, m.container.name);
    assert_int_equal(back.container.run, m.container.run);
    assert_true(back.container.image_ready);
    assert_true(back.container.created == m.container.created);
    assert_int_equal(back.container.health, m.container.health);
    assert_true(back.container.has_exit_code && back.container.ended);
    assert_int_equal(back.container.exit_code, m.container.exit_code);
    same_reason(&back.container.reason, &m.container.reason);
}

static void test_small_agent_messages(void **state)
{
    for (int i = 0; i < AGENT_MESSAGE_KIND_MAX; i++) {
        CLEANUP_AGENT_MESSAGE struct agent_message m =
            sample_agent_message((enum agent_message_kind)i);
        CLEANUP_AGENT_MESSAGE struct agent_message back = over_agent(&m);
        if (i == AGENT_MESSAGE_REPORT_GONE)
            assert_true(uuid_eq(&m.dataset, &back.dataset));
        if (i == AGENT_MESSAGE_CONTAINER_GONE)
            assert_string_equal(m.name, back.name);
        if (i == AGENT_MESSAGE_PING || i == AGENT_MESSAGE_PONG)
            assert_true(m.counter == back.counter);
    }
}

static void test_order(void **state)
{
    CLEANUP_CONTROL_MESSAGE struct control_message m =
        sample_control_message(CONTROL_MESSAGE_ORDER);
    CLEANUP_CONTROL_MESSAGE struct control_message back = over_control(&m);

    assert_true(order_same(&m.order, &back.order));
    assert_true(m.order.revision == back.order.revision);
    assert_string_equal(back.order.metadata.entries[0].value, "caf\xc3\xa9\nline 2");
    order_done(&m.order);
    memset(m.order.dataset.b, 3, sizeof(m.order.dataset.b));
    CLEANUP_CONTROL_MESSAGE struct control_message bare = over_control(&m);
    assert_true(order_same(&m.order, &bare.order));
    assert_null(bare.order.base);
    assert_null(bare.order.peer_host);
}

static void test_container_order(void **state)
{
    CLEANUP_CONTROL_MESSAGE struct control_message m =
        sample_control_message(CONTROL_MESSAGE_CONTAINER_ORDER);
    CLEANUP_CONTROL_MESSAGE struct control_message back = over_control(&m);
    const struct container *a = m.container.config, *b = back.container.config;

    assert_int_equal(back.container.action, CONTAINER_RUN);
    assert_true(back.container.hold);
    assert_string_equal(a->name, b->name);
    assert_true(a->revision == b->revision);
    assert_true(a->created == b->created);
    assert_true(uuid_eq(&a->node, &b->node));
    assert_true(container_same_settings(a, b));
    assert_int_equal(b->swappiness, 0);
    assert_string_equal(b->command_line[2], "echo\t1\nsleep 9");

    control_message_done(&m);
    m = (struct control_message){.kind = CONTROL_MESSAGE_CONTAINER_ORDER,
                                 .container = {CONTAINER_PREPARE, container_new("a")}};
    m.container.config->image = xstrdup("i:1");
    CLEANUP_CONTROL_MESSAGE struct control_message bare = over_control(&m);
    assert_int_equal(bare.container.action, CONTAINER_PREPARE);
    assert_true(container_same_settings(m.container.config, bare.container.config));
    assert_int_equal(bare.container.config->swappiness, UINT32_MAX);

    m.container.config->has_command_line = true; /* present and empty is not absent */
    CLEANUP_CONTROL_MESSAGE struct control_message empty = over_control(&m);
    assert_true(empty.container.config->has_command_line);
    assert_int_equal(empty.container.config->n_command_line, 0);
}

static void test_small_control_messages(void **state)
{
    for (int i = 0; i < CONTROL_MESSAGE_KIND_MAX; i++) {
        CLEANUP_CONTROL_MESSAGE struct control_message m =
            sample_control_message((enum control_message_kind)i);
        CLEANUP_CONTROL_MESSAGE struct control_message back = over_control(&m);
        if (i == CONTROL_MESSAGE_WELCOME) {
            assert_int_equal(m.welcome.protocol, back.welcome.protocol);
            assert_true(uuid_eq(&m.welcome.store, &back.welcome.store));
            assert_true(m.welcome.revision == back.welcome.revision);
            assert_true(uuid_eq(&m.welcome.generation, &back.welcome.generation));
            assert_true(uuid_eq(&m.welcome.known, &back.welcome.known));
            assert_true(m.welcome.known_until == back.welcome.known_until);
            assert_true(back.welcome.routes);
            assert_true(back.welcome.volumes);
        }
        if (i == CONTROL_MESSAGE_ORDER_NONE)
            assert_true(uuid_eq(&m.dataset, &back.dataset));
        if (i == CONTROL_MESSAGE_CONTAINER_NONE)
            assert_string_equal(m.name, back.name);
        if (i == CONTROL_MESSAGE_ROUTE)
            assert_true(route_same(&m.route, &back.route));
        if (i == CONTROL_MESSAGE_ROUTE_NONE)
            assert_int_equal(m.port, back.port);
        if (i == CONTROL_MESSAGE_REFUSED)
            assert_string_equal(m.text, back.text);
        if (i == CONTROL_MESSAGE_PING || i == CONTROL_MESSAGE_PONG)
            assert_true(m.counter == back.counter);
    }
}

static void test_space(void **state)
{
    struct agent_message report = sample_agent_message(AGENT_MESSAGE_SPACE_REPORT);
    struct agent_message back = over_agent(&report);

    assert_true(back.space.total == report.space.total && back.space.free == report.space.free);
    report.space.free = report.space.total = 7;
    back = over_agent(&report);
    assert_true(back.space.free == 7);
    report.space.free = 8;
    refuse_agent(&report, "space_report: free");
    report.space = (struct space){(uint64_t)INT64_MAX + 1, 8};
    refuse_agent(&report, "space_report: total");
    report.space = (struct space){0};
    refuse_agent(&report, "space_report: total");
}

static void test_sightings(void **state)
{
    CLEANUP_AGENT_MESSAGE struct agent_message m = sample_agent_message(AGENT_MESSAGE_SIGHTING);
    CLEANUP_AGENT_MESSAGE struct agent_message back = over_agent(&m);
    CLEANUP_CONTROL_MESSAGE struct control_message gone = sample_control_message(CONTROL_MESSAGE_SIGHTING);
    CLEANUP_CONTROL_MESSAGE struct control_message told = over_control(&gone);
    struct control_message duty = sample_control_message(CONTROL_MESSAGE_LIST_ORDER);

    assert_true(uuid_eq(&m.sighting.dataset, &back.sighting.dataset));
    assert_true(sighting_same(&m.sighting, &back.sighting));
    assert_string_equal(back.sighting.hosts, "i-0a1 i-0b2");
    assert_false(told.sighting.present);
    assert_null(told.sighting.hosts);
    m.sighting.dataset = UUID_NIL;
    refuse_agent(&m, "sighting: dataset");
    for (int i = 0; i < LIST_DUTY_MAX; i++) {
        duty.list_order.duty = (enum list_duty)i;
        struct control_message again = over_control(&duty);
        assert_int_equal(again.list_order.duty, i);
        assert_int_equal(again.list_order.interval_s, 300);
    }
    duty.list_order = (struct list_order){LIST_FOR_ALL, 0};
    refuse_control(&duty, "list order: interval");
    duty.list_order.interval_s = CODEC_MAX_INTERVAL_S + 1;
    refuse_control(&duty, "list order: interval");
}

static void test_calls(void **state)
{
    struct agent_message report = sample_agent_message(AGENT_MESSAGE_CALLS_REPORT), back = over_agent(&report);
    struct control_message share = sample_control_message(CONTROL_MESSAGE_CALLS_SHARE), told = over_control(&share);

    assert_memory_equal(&report.calls, &back.calls, sizeof(report.calls));
    assert_int_equal(told.share.per_hour, 72000);
    assert_int_equal(told.share.burst, 500);
    assert_true(told.share.handed == UINT64_MAX - 5);
    share.share.per_hour = BUCKET_PER_HOUR_MAX + 1;
    refuse_control(&share, "calls share");
    share.share = (struct calls_share){1, BUCKET_BURST_MAX + 1, 0};
    refuse_control(&share, "calls share");
}

static void test_routes(void **state)
{
    CLEANUP_AGENT_MESSAGE struct agent_message report = sample_agent_message(AGENT_MESSAGE_ROUTES_REPORT);
    CLEANUP_AGENT_MESSAGE struct agent_message back = over_agent(&report);
    CLEANUP_CONTROL_MESSAGE struct control_message none = sample_control_message(CONTROL_MESSAGE_ROUTE_NONE);
    CLEANUP_CONTROL_MESSAGE struct control_message route = sample_control_message(CONTROL_MESSAGE_ROUTE);

    assert_int_equal(back.routes.ports, report.routes.ports);
    same_reason(&back.routes.reason, &report.routes.reason);
    none.port = 0;
    refuse_control(&none, "route_none: port");
    route.route.port = 0;
    refuse_control(&route, "route: port");
    route.route.port = 1;
    route.route.node = UUID_NIL;
    refuse_control(&route, "route: node");
}

static void test_volume_calls(void **state)
{
    CLEANUP_AGENT_MESSAGE struct agent_message call = sample_agent_message(AGENT_MESSAGE_VOLUME_CALL);
    CLEANUP_AGENT_MESSAGE struct agent_message back = over_agent(&call);
    CLEANUP_AGENT_MESSAGE struct agent_message use = sample_agent_message(AGENT_MESSAGE_VOLUME_USE);
    CLEANUP_AGENT_MESSAGE struct agent_message used = over_agent(&use);
    char long_id[MOUNT_ID_MAX + 2];

    assert_int_equal(back.call.kind, VOLUME_CREATE);
    assert_true(back.call.number == call.call.number && back.call.maximum_size == call.call.maximum_size);
    assert_string_equal(back.call.name, "orders");
    assert_string_equal(back.call.mount, "m1");
    assert_true(uuid_eq(&back.call.dataset, &call.call.dataset));
    assert_true(metadata_same(&back.call.metadata, &call.call.metadata));
    assert_true(uuid_eq(&used.use.dataset, &use.use.dataset));
    assert_string_equal(used.use.name, "orders");
    assert_string_equal(used.use.mount, "m2");
    for (int kind = 0; kind < VOLUME_CALL_KIND_MAX; kind++) {
        call.call.kind = (enum volume_call_kind)kind;
        CLEANUP_AGENT_MESSAGE struct agent_message again = over_agent(&call);
        assert_int_equal(again.call.kind, kind);
    }
    memset(long_id, 'x', sizeof(long_id) - 1);
    long_id[sizeof(long_id) - 1] = '\0';
    free(call.call.mount);
    call.call.mount = xstrdup(long_id);
    call.call.kind = VOLUME_USE;
    refuse_agent(&call, "volume call: mount");
    free(steal(&call.call.mount));
    refuse_agent(&call, "volume call: mount");
    call.call.kind = VOLUME_CREATE;
    free(steal(&call.call.name));
    refuse_agent(&call, "volume call: name");
    free(steal(&use.use.name));
    use.use.dataset = UUID_NIL;
    refuse_agent(&use, "volume use has neither");
}

static void test_volume_answers(void **state)
{
    CLEANUP_CONTROL_MESSAGE struct control_message answer = sample_control_message(CONTROL_MESSAGE_VOLUME_ANSWER);
    CLEANUP_CONTROL_MESSAGE struct control_message volume = sample_control_message(CONTROL_MESSAGE_VOLUME);
    CLEANUP_CONTROL_MESSAGE struct control_message none = sample_control_message(CONTROL_MESSAGE_VOLUME_NONE);
    CLEANUP_CONTROL_MESSAGE struct control_message back = over_control(&volume);

    for (int code = 0; code < VOLUME_AWAY; code++) {
        answer.answer.code = (enum volume_code)code;
        CLEANUP_CONTROL_MESSAGE struct control_message again = over_control(&answer);
        assert_int_equal(again.answer.code, code);
        assert_true(again.answer.epoch == answer.answer.epoch && again.answer.revision == answer.answer.revision);
        assert_true(uuid_eq(&again.answer.dataset, &answer.answer.dataset));
        assert_string_equal(again.answer.text, answer.answer.text);
    }
    assert_string_equal(back.volume.name, "orders");
    assert_string_equal(back.volume.home_host, "10.0.0.3");
    assert_string_equal(back.volume.profile, "gold");
    assert_string_equal(back.volume.holder_text, "Docker has it");
    assert_true(uuid_eq(&back.volume.home, &volume.volume.home) && uuid_eq(&back.volume.owner, &volume.volume.owner));
    assert_true(uuid_eq(&back.volume.holder_node, &volume.volume.holder_node));
    assert_true(back.volume.born && back.volume.holder == HOLDER_MOUNTS);
    assert_true(back.volume.maximum_size == volume.volume.maximum_size);
    assert_true(back.volume.holder_since_us == volume.volume.holder_since_us);
    same_reason(&back.volume.reason, &volume.volume.reason);
    none.dataset = UUID_NIL;
    refuse_control(&none, "volume_none: dataset");
    volume.volume.dataset = UUID_NIL;
    refuse_control(&volume, "volume: dataset");
}

static void test_every_enum_value(void **state)
{
    CLEANUP_AGENT_MESSAGE struct agent_message hello = sample_agent_message(AGENT_MESSAGE_HELLO);
    CLEANUP_AGENT_MESSAGE struct agent_message report = sample_agent_message(AGENT_MESSAGE_REPORT);
    CLEANUP_AGENT_MESSAGE struct agent_message run =
        sample_agent_message(AGENT_MESSAGE_CONTAINER_REPORT);
    CLEANUP_CONTROL_MESSAGE struct control_message order =
        sample_control_message(CONTROL_MESSAGE_ORDER);
    CLEANUP_CONTROL_MESSAGE struct control_message container =
        sample_control_message(CONTROL_MESSAGE_CONTAINER_ORDER);

#define EACH(max, message, back_type, over, field)                                                 \
    for (int i = 0; i < (max); i++) {                                                              \
        (message).field = (__typeof__((message).field))i;                                          \
        struct back_type back = over(&(message));                                                  \
        assert_int_equal(back.field, i);                                                           \
        back_type##_done(&back);                                                                   \
    }
    EACH(STORAGE_KIND_MAX, hello, agent_message, over_agent, hello.storage)
    EACH(MARK_STATE_MAX, report, agent_message, over_agent, report.volume.mark.state)
    EACH(REASON_CODE_MAX, report, agent_message, over_agent, report.reason.code)
    EACH(CONTAINER_RUN_MAX, run, agent_message, over_agent, container.run)
    EACH(ROLE_MAX, order, control_message, over_control, order.role)
    EACH(CONTAINER_ACTION_MAX, container, control_message, over_control, container.action)
    EACH(RESTART_POLICY_MAX, container, control_message, over_control,
         container.config->restart_policy)
#undef EACH
}

/* Numbers on the wire are for ever; these must not follow the order of the enums in the model. */
static void test_wire_numbers(void **state)
{
    CLEANUP_STR struct str wire = {0};
    struct agent_message ping = {.kind = AGENT_MESSAGE_PING, .counter = 5};

    codec_agent_encode(&ping, &wire);
    assert_int_equal(wire.len, 4);
    assert_memory_equal(wire.data, "\x3a\x02\x08\x05", 4); /* field 7, length 2, field 1 = 5 */
    assert_int_equal(WIRE__ROLE__ROLE_DESTROY, 8);
    assert_int_equal(WIRE__ROLE__ROLE_REPLICA, 9);
    assert_int_equal(WIRE__REASON_CODE__REASON_CODE_STOPPING, 34);
    assert_int_equal(WIRE__MARK_STATE__MARK_STATE_RELEASED, 4);
}

static void test_texts_for_people(void **state)
{
    CLEANUP_AGENT_MESSAGE struct agent_message m =
        sample_agent_message(AGENT_MESSAGE_CONTAINER_REPORT);

    free(m.container.reason.text);
    m.container.reason.text = xstrdup("bad \xff\xc3 \xe2\x82\xac end \xe2\x82");
    CLEANUP_AGENT_MESSAGE struct agent_message back = over_agent(&m);
    assert_string_equal(back.container.reason.text, "bad ?? \xe2\x82\xac end ??");

    free(m.container.reason.text);
    m.container.reason.text = xcalloc(1, CODEC_MAX_TEXT + 10);
    memset(m.container.reason.text, 'x', CODEC_MAX_TEXT + 9);
    memcpy(m.container.reason.text + CODEC_MAX_TEXT - 2, "\xe2\x82\xac", 3);
    CLEANUP_AGENT_MESSAGE struct agent_message cut = over_agent(&m);
    assert_int_equal(strlen(cut.container.reason.text), CODEC_MAX_TEXT);
    assert_string_equal(cut.container.reason.text + CODEC_MAX_TEXT - 3, "x??");
}

static void test_only_newest_snapshots_are_sent(void **state)
{
    CLEANUP_AGENT_MESSAGE struct agent_message m = sample_agent_message(AGENT_MESSAGE_REPORT);
    struct volume_state *v = &m.report.volume;

    free(v->snapshots);
    v->n_snapshots = CODEC_MAX_SNAPSHOTS + 2;
    v->snapshots = xcalloc(v->n_snapshots, sizeof(*v->snapshots));
    for (size_t i = 0; i < v->n_snapshots; i++)
        snprintf(v->snapshots[i], SNAPSHOT_NAME_SIZE, "s%zu", i);
    CLEANUP_AGENT_MESSAGE struct agent_message back = over_agent(&m);
    assert_int_equal(back.report.volume.n_snapshots, CODEC_MAX_SNAPSHOTS);
    assert_string_equal(back.report.volume.snapshots[0], "s2");
    assert_string_equal(back.report.volume.snapshots[CODEC_MAX_SNAPSHOTS - 1], "s10001");
}

static void replace(char **s, const char *with)
{
    free(*s);
    *s = xstrdup_null(with);
}

static void test_refused_agent_values(void **state)
{
    CLEANUP_AGENT_MESSAGE struct agent_message hello = sample_agent_message(AGENT_MESSAGE_HELLO);
    CLEANUP_AGENT_MESSAGE struct agent_message report = sample_agent_message(AGENT_MESSAGE_REPORT);
    CLEANUP_AGENT_MESSAGE struct agent_message gone =
        sample_agent_message(AGENT_MESSAGE_CONTAINER_GONE);

    replace(&hello.hello.host, "");
    refuse_agent(&hello, "host is missing");
    replace(&hello.hello.host, "a\nb");
    refuse_agent(&hello, "control character");
    replace(&hello.hello.host, "\xc0\xaf");
    refuse_agent(&hello, "UTF-8");
    free(hello.hello.host);
    hello.hello.host = xcalloc(1, CODEC_MAX_HOST + 2);
    memset(hello.hello.host, 'h', CODEC_MAX_HOST + 1);
    refuse_agent(&hello, "host is too long");
    replace(&hello.hello.host, "h");
    hello.hello.era = UUID_NIL;
    refuse_agent(&hello, "era is missing");

    replace(&report.report.volume.device, "/dev/a\nb");
    refuse_agent(&report, "device has a control character");
    replace(&report.report.volume.device, NULL);
    memcpy(report.report.volume.snapshots[1], "../x", 5);
    refuse_agent(&report, "snapshot names");
    report.report.volume.snapshots[1][0] = '\0';
    refuse_agent(&report, "snapshot is missing");
    memcpy(report.report.volume.snapshots[1], "x", 2);
    replace(&report.report.received_snapshot, "A");
    refuse_agent(&report, "received_snapshot");
    replace(&report.report.received_snapshot, NULL);
    report.report.volume.dataset = UUID_NIL;
    refuse_agent(&report, "dataset is missing");

    replace(&gone.name, "a/b");
    refuse_agent(&gone, "names cannot have");
    replace(&gone.name, "");
    refuse_agent(&gone, "name is missing");
}

static void test_refused_orders(void **state)
{
    CLEANUP_CONTROL_MESSAGE struct control_message m =
        sample_control_message(CONTROL_MESSAGE_ORDER);
    struct order *o = &m.order;

    o->epoch = 0;
    refuse_control(&m, "epoch is missing");
    o->epoch = 1;
    o->transfer = 0;
    refuse_control(&m, "transfer is missing");
    o->transfer = 1;
    o->role = ROLE_REPLICA;
    replace(&o->keep, NULL);
    refuse_control(&m, "keep_snapshot is missing");
    replace(&o->keep, "a b");
    refuse_control(&m, "snapshot names");
    replace(&o->keep, "t44-final");
    o->compare = 1;
    o->role = ROLE_SOURCE;
    refuse_control(&m, "compare has no snapshot");
    o->compare = 0;
    o->role = ROLE_SOURCE;
    replace(&o->keep, NULL);
    o->fenced[1] = UUID_NIL;
    refuse_control(&m, "fenced is missing");
    o->fenced[1] = (struct uuid){.b = {34}};
    while (o->n_fenced < ORDER_MAX_FENCED)
        order_add_fenced(o, &o->dataset);
    order_add_fenced(o, &o->dataset);
    assert_int_equal(o->n_fenced, ORDER_MAX_FENCED);
    o->fenced = xrealloc(o->fenced, ORDER_MAX_FENCED + 1, sizeof(*o->fenced));
    o->fenced[o->n_fenced++] = o->dataset;
    refuse_control(&m, "fenced are too many");
    o->n_fenced = 1;
    replace(&o->metadata.entries[1].key, "name");
    refuse_control(&m, "appears twice");
    replace(&o->base, "a b");
    refuse_control(&m, "snapshot names");
    metadata_done(&o->metadata);
    replace(&o->base, NULL);
    o->metadata.n = METADATA_MAX_ENTRIES + 1;
    o->metadata.entries = xcalloc(o->metadata.n, sizeof(*o->metadata.entries));
    for (size_t i = 0; i < o->metadata.n; i++) {
        o->metadata.entries[i].key = xasprintf("k%zu", i);
        o->metadata.entries[i].value = xstrdup("v");
    }
    refuse_control(&m, "too many entries");
}

static void test_refused_containers(void **state)
{
    CLEANUP_CONTROL_MESSAGE struct control_message m =
        sample_control_message(CONTROL_MESSAGE_CONTAINER_ORDER);
    struct container *c = m.container.config;

    c->swappiness = 101;
    refuse_control(&m, "swappiness");
    c->swappiness = 100;
    replace(&c->volumes[0].mountpoint, "relative");
    refuse_control(&m, "absolute");
    replace(&c->volumes[0].mountpoint, "");
    refuse_control(&m, "mountpoint is missing");
    replace(&c->volumes[0].mountpoint, "/m");
    replace(&c->volumes[1].mountpoint, "/m/");
    refuse_control(&m, "mountpoint is there twice");
    replace(&c->volumes[1].mountpoint, "/n");
    struct uuid second = c->volumes[1].dataset;
    c->volumes[1].dataset = c->volumes[0].dataset;
    refuse_control(&m, "dataset is there twice");
    c->volumes[1].dataset = second;
    replace(&c->image, "");
    refuse_control(&m, "image is missing");
    replace(&c->image, "i:1");
    free(c->ports);
    c->n_ports = CODEC_MAX_LIST + 1;
    c->ports = xcalloc(c->n_ports, sizeof(*c->ports));
    refuse_control(&m, "ports are too many");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_hello),
        cmocka_unit_test(test_older_peers),
        cmocka_unit_test(test_hello_without_store),
        cmocka_unit_test(test_report),
        cmocka_unit_test(test_report_flags),
        cmocka_unit_test(test_container_report),
        cmocka_unit_test(test_small_agent_messages),
        cmocka_unit_test(test_order),
        cmocka_unit_test(test_container_order),
        cmocka_unit_test(test_small_control_messages),
        cmocka_unit_test(test_routes),
        cmocka_unit_test(test_volume_calls),
        cmocka_unit_test(test_volume_answers),
        cmocka_unit_test(test_space),
        cmocka_unit_test(test_sightings),
        cmocka_unit_test(test_calls),
        cmocka_unit_test(test_every_enum_value),
        cmocka_unit_test(test_wire_numbers),
        cmocka_unit_test(test_texts_for_people),
        cmocka_unit_test(test_only_newest_snapshots_are_sent),
        cmocka_unit_test(test_refused_agent_values),
        cmocka_unit_test(test_refused_orders),
        cmocka_unit_test(test_refused_containers),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
