#include "control/sessions.h"

#include "base/hash.h"
#include "base/log.h"
#include "control/catalogue.h"
#include "control/volume_calls.h"
#include "net/grpc.h"
#include "net/outbox.h"
#include "net/tls.h"
#include "proto/codec.h"

#include <utlist.h>

/* A session that says nothing for this long is ended: its agent sends a ping every 60 s. */
#define SILENCE_US (100 * USEC_PER_SEC)
/* Looked at for all sessions together, and not more often than this: an idle cluster wakes nobody without need. */
#define SWEEP_US (30 * USEC_PER_SEC)
/* How long an old session may take to prove that it lives, when a machine with another boot id comes. */
#define PROBE_US (3 * USEC_PER_SEC)

struct session {
    struct sessions *all;
    uint64_t id;
    struct grpc_stream *stream;
    struct outbox *outbox;
    struct uuid node; /* by certificate */
    struct session *prev_of_node, *next_of_node; /* greeted sessions of the same node */
    bool greeted;     /* its hello was taken */
    struct uuid era;
    uint64_t heard_us;
    bool wants_volumes; /* by its hello */
    bool volumes;      /* it was welcomed, has calls, and is told the catalogue: */
    bool volumes_complete; /* all of it, once */
    uint64_t cursor;   /* so far */
    unsigned calls;    /* without an answer */
    uint64_t probe_us; /* must have said something by then; 0 = not probed */
    struct timer probe;
    UT_hash_handle hh;
    UT_hash_handle node_hh; /* of the first in the list of its node */
};

/* A call whose answer waits for the engine. */
struct called {
    uint64_t command; /* its id, with SESSIONS_COMMAND */
    uint64_t session, number;
    enum volume_call_kind kind;
    UT_hash_handle hh;
};

struct sessions {
    struct loop *loop;
    struct engine *engine;
    struct grpc_server *server;
    struct session *by_id;
    struct session *by_node; /* the first of each node's list */
    uint64_t next_id;
    struct timer sweep; /* set while there are sessions */
    struct called *called;
    uint64_t next_command;
    struct catalogue *catalogue;
    struct timer fill; /* more of the catalogue is to be looked at */
    bool tell;         /* there is a session that has not been told anything yet */
    bool told_whole;
    uint64_t told;     /* sessions were told of it up to there, or will be when they have room */
    uint64_t forgotten; /* cursor of the slowest session when what is gone was forgotten last */
};

static void send_message(struct session *s, const char *key, const struct control_message *m)
{
    struct str bytes = {0};

    codec_control_encode(m, &bytes);
    outbox_send(s->outbox, key, &bytes);
    str_done(&bytes);
}

/* ---- Docker volumes ---- */

#define CATALOGUE_QUEUE (64u << 10) /* bytes under way to a session above which no more of the catalogue follows */

/* Orders and answers that come meanwhile wait behind little. */
static void tell_catalogue(struct session *s)
{
    struct control_message complete = {.kind = CONTROL_MESSAGE_VOLUMES_COMPLETE};
    const struct str *next;

    while (s->volumes && outbox_is_idle(s->outbox, CATALOGUE_QUEUE) && (next = catalogue_next(s->all->catalogue, &s->cursor))) {
        struct str message = {0};
        str_append_bytes(&message, next->data, next->len);
        outbox_send(s->outbox, NULL, &message);
    }
    if (s->volumes && !s->volumes_complete && catalogue_is_whole(s->all->catalogue) &&
        outbox_is_idle(s->outbox, CATALOGUE_QUEUE)) {
        s->volumes_complete = true;
        send_message(s, NULL, &complete);
    }
}

static void forget_gone(struct sessions *all)
{
    uint64_t slowest = UINT64_MAX;

    if (!catalogue_has_gone(all->catalogue))
        return;
    for (const struct session *s = all->by_id; s; s = s->hh.next) {
        if (s->volumes && s->cursor < slowest)
            slowest = s->cursor;
    }
    if (slowest <= all->forgotten)
        return;
    all->forgotten = slowest;
    catalogue_told(all->catalogue, slowest);
}

void sessions_tell(struct sessions *all)
{
    if (catalogue_settle(all->catalogue, now_os()))
        timer_set(&all->fill, 0);
    bool whole = catalogue_is_whole(all->catalogue);
    if (!all->tell && all->told == catalogue_newest(all->catalogue) && all->told_whole == whole)
        return;
    all->tell = false;
    all->told = catalogue_newest(all->catalogue);
    all->told_whole = whole;
    for (struct session *s = all->by_id; s; s = s->hh.next)
        tell_catalogue(s);
    forget_gone(all);
}

static void fill(void *cookie)
{
    (void)cookie; /* sessions_tell() comes after each turn of the loop */
}

static void begin_volumes(struct session *s)
{
    s->volumes = s->all->tell = true;
    catalogue_begin(s->all->catalogue);
}

static void answer(struct session *s, const struct volume_answer *a)
{
    struct control_message m = {.kind = CONTROL_MESSAGE_VOLUME_ANSWER, .answer = *a};

    send_message(s, NULL, &m);
}

static void take_call(struct session *s, const struct volume_call *call)
{
    struct command command;
    CLEANUP_FREE char *wrong = call->kind == VOLUME_CREATE ? volume_create_check(call) : NULL;

    if (wrong) {
        struct volume_answer a = {.number = call->number, .code = VOLUME_INVALID, .text = wrong};
        answer(s, &a);
        return;
    }
    struct called *k = xcalloc(1, sizeof(*k));
    *k = (struct called){SESSIONS_COMMAND | ++s->all->next_command, s->id, call->number, call->kind, {0}};
    HASH_ADD(hh, s->all->called, command, sizeof(k->command), k);
    s->calls++;
    volume_call_command(call, s->id, &command);
    command.id = k->command;
    engine_command(s->all->engine, now_os(), &command);
}

void sessions_reply(struct sessions *all, uint64_t command, const struct command_result *result)
{
    struct called *k;
    struct session *s;

    HASH_FIND(hh, all->called, &command, sizeof(command), k);
    if (!k)
        return;
    HASH_DEL(all->called, k);
    HASH_FIND(hh, all->by_id, &k->session, sizeof(k->session), s);
    if (s) {
        struct volume_answer a;
        s->calls--;
        volume_call_answer(k->kind, result, &a);
        a.number = k->number;
        answer(s, &a);
        volume_answer_done(&a);
    }
    free(k);
}

static void refuse(struct session *s, const char *text)
{
    struct control_message m = {.kind = CONTROL_MESSAGE_REFUSED, .text = (char *)text};

    log_warning("session of node %s at %s ended: %s", UUID_STR(&s->node),
                grpc_stream_peer(s->stream), text);
    send_message(s, NULL, &m);
    grpc_stream_finish(s->stream, GRPC_FAILED_PRECONDITION, text);
}

static void end_silent(struct session *s)
{
    log_warning("node %s says nothing; its session is ended", UUID_STR(&s->node));
    grpc_stream_cancel(s->stream);
}

static void check_probe(void *cookie)
{
    struct session *s = cookie;

    if (s->probe_us)
        end_silent(s);
}

static void sweep(void *cookie)
{
    struct sessions *all = cookie;
    uint64_t now = now_os().mono_us, oldest = now;
    struct session *s, *next;

    if (!all->by_id)
        return;
    HASH_ITER (hh, all->by_id, s, next) {
        if (now >= s->heard_us + SILENCE_US)
            end_silent(s);
        else if (s->heard_us < oldest)
            oldest = s->heard_us;
    }
    uint64_t due = oldest + SILENCE_US;
    timer_set(&all->sweep, due > now + SWEEP_US ? due : now + SWEEP_US);
}

static void on_open(struct grpc_stream *stream)
{
    struct sessions *all = grpc_stream_cookie(stream);
    struct session *s = xcalloc(1, sizeof(*s));
    struct tls_identity id;
    CLEANUP_ERR struct err *e = tls_peer_identity(grpc_stream_ssl(stream), &id);

    s->all = all;
    s->id = ++all->next_id;
    s->stream = stream;
    s->outbox = outbox_new(stream);
    s->heard_us = now_os().mono_us;
    timer_init(&s->probe, all->loop, check_probe, s);
    if (!timer_is_set(&all->sweep))
        timer_set(&all->sweep, s->heard_us + SILENCE_US);
    HASH_ADD(hh, all->by_id, id, sizeof(s->id), s);
    grpc_stream_set_cookie(stream, s);
    if (e || id.kind != TLS_KIND_NODE) {
        refuse(s, e ? e->text : "a node certificate is needed here");
        return;
    }
    s->node = id.node;
}

static struct session *first_of_node(const struct sessions *all, const struct uuid *node)
{
    struct session *s;

    HASH_FIND(node_hh, all->by_node, node, sizeof(*node), s);
    return s;
}

static void join_node(struct session *s)
{
    struct session *first = first_of_node(s->all, &s->node);

    s->greeted = true;
    if (first)
        HASH_DELETE(node_hh, s->all->by_node, first);
    DL_PREPEND2(first, s, prev_of_node, next_of_node);
    HASH_ADD(node_hh, s->all->by_node, node, sizeof(s->node), first);
}

static void leave_node(struct session *s)
{
    struct session *first = first_of_node(s->all, &s->node);

    HASH_DELETE(node_hh, s->all->by_node, first);
    DL_DELETE2(first, s, prev_of_node, next_of_node);
    if (first)
        HASH_ADD(node_hh, s->all->by_node, node, sizeof(first->node), first);
}

/* Another machine, or the same after a reboot? The older session must show that it is alive. */
static void probe_older(struct session *s)
{
    for (struct session *o = first_of_node(s->all, &s->node); o; o = o->next_of_node) {
        struct control_message m = {.kind = CONTROL_MESSAGE_PING};
        if (o == s || uuid_eq(&o->era, &s->era) || o->probe_us)
            continue;
        o->probe_us = now_os().mono_us + PROBE_US;
        timer_set(&o->probe, o->probe_us);
        send_message(o, NULL, &m);
    }
}

static void take_hello(struct session *s, const struct hello *h)
{
    if (!uuid_eq(&h->node, &s->node)) {
        CLEANUP_FREE char *text = xasprintf(
            "the certificate is that of node %s; it cannot speak for another", UUID_STR(&s->node));
        refuse(s, text);
        return;
    }
    s->era = h->era;
    s->wants_volumes = h->volumes;
    join_node(s);
    probe_older(s);
    log_info("node %s (%s, %s, backend %s) connected", UUID_STR(&h->node), h->host, h->version,
             h->backend);
    engine_session_open(s->all->engine, now_os(), s->id, h);
}

static void take_message(struct session *s, struct agent_message *m)
{
    struct engine *e = s->all->engine;
    struct now now = now_os();

    if (!s->greeted && m->kind != AGENT_MESSAGE_HELLO) {
        refuse(s, "the first message must be a hello");
        return;
    }
    switch (m->kind) {
    case AGENT_MESSAGE_HELLO:
        if (s->greeted)
            refuse(s, "a second hello in one session");
        else
            take_hello(s, &m->hello);
        break;
    case AGENT_MESSAGE_REPORT:
        engine_report(e, now, s->id, &m->report);
        break;
    case AGENT_MESSAGE_REPORT_GONE:
        engine_report_gone(e, now, s->id, &m->dataset);
        break;
    case AGENT_MESSAGE_CONTAINER_REPORT:
        engine_container_report(e, now, s->id, &m->container);
        break;
    case AGENT_MESSAGE_CONTAINER_GONE:
        engine_container_gone(e, now, s->id, m->name);
        break;
    case AGENT_MESSAGE_ROUTES_REPORT:
        engine_routes_report(e, now, s->id, &m->routes);
        break;
    case AGENT_MESSAGE_VOLUME_CALL:
        if (!s->wants_volumes || s->calls >= VOLUME_CALLS_MAX)
            refuse(s, s->wants_volumes ? "too many calls without an answer" : "a call, but its hello says that it has none");
        else
            take_call(s, &m->call);
        break;
    case AGENT_MESSAGE_VOLUME_USE:
        engine_volume_use(e, now, s->id, &m->use);
        break;
    case AGENT_MESSAGE_VOLUME_USES_COMPLETE:
        engine_volume_uses_complete(e, now, s->id);
        break;
    case AGENT_MESSAGE_SPACE_REPORT:
        engine_space_report(e, now, s->id, &m->space);
        break;
    case AGENT_MESSAGE_SIGHTING:
        engine_sighting(e, now, s->id, &m->sighting);
        break;
    case AGENT_MESSAGE_SIGHTINGS_COMPLETE:
        engine_sightings_complete(e, now, s->id);
        break;
    case AGENT_MESSAGE_CALLS_REPORT:
        engine_calls_report(e, now, s->id, &m->calls);
        break;
    case AGENT_MESSAGE_REPORTS_COMPLETE:
        engine_reports_complete(e, now, s->id, m->storage_unknown ? REPORTS_STORAGE_UNKNOWN : 0);
        break;
    case AGENT_MESSAGE_PING: {
        struct control_message pong = {.kind = CONTROL_MESSAGE_PONG, .counter = m->counter};
        send_message(s, "pong", &pong);
        break;
    }
    case AGENT_MESSAGE_PONG:
    case AGENT_MESSAGE_KIND_MAX:
        break;
    }
}

static void on_message(struct grpc_stream *stream, const uint8_t *bytes, size_t n)
{
    struct session *s = grpc_stream_cookie(stream);
    CLEANUP_AGENT_MESSAGE struct agent_message m = {.kind = AGENT_MESSAGE_PING};
    CLEANUP_ERR struct err *e = codec_agent_decode(bytes, n, &m);

    s->heard_us = now_os().mono_us;
    s->probe_us = 0;
    timer_cancel(&s->probe);
    if (e) {
        m = (struct agent_message){.kind = AGENT_MESSAGE_PING};
        refuse(s, e->text);
        return;
    }
    take_message(s, &m);
}

static void on_half_close(struct grpc_stream *stream)
{
    grpc_stream_finish(stream, GRPC_OK, NULL);
}

static void on_drained(struct grpc_stream *stream)
{
    struct session *s = grpc_stream_cookie(stream);

    outbox_drained(s->outbox);
    tell_catalogue(s);
}

static void on_closed(struct grpc_stream *stream, enum grpc_status status, const char *text)
{
    struct session *s = grpc_stream_cookie(stream);

    log_info("session of node %s is over (%s %s)", UUID_STR(&s->node), grpc_status_name(status),
             text);
    HASH_DEL(s->all->by_id, s);
    timer_cancel(&s->probe);
    if (s->greeted) {
        leave_node(s);
        engine_session_closed(s->all->engine, now_os(), s->id);
    }
    outbox_free(s->outbox);
    free(s);
}

static const struct grpc_handlers handlers = {on_open, on_message, on_half_close, on_drained,
                                              on_closed};

struct err *sessions_new(const struct sessions_config *config, struct sessions **ret)
{
    struct sessions *s = xcalloc(1, sizeof(*s));
    struct grpc_server_options o = {.base = loop_base(config->loop),
                                    .host = config->host ? config->host : "::",
                                    .port = config->port,
                                    .ctx = config->tls,
                                    .max_message = CODEC_MAX_MESSAGE,
                                    .max_queue = CODEC_MAX_MESSAGE,
                                    .idle_ms = 30000};
    struct err *e = grpc_server_new(&o, &s->server);

    if (e && !config->host) { /* a host without IPv6 */
        err_free(e);
        o.host = "0.0.0.0";
        e = grpc_server_new(&o, &s->server);
    }
    if (e) {
        free(s);
        return err_wrap(e, "cannot listen for agents on port %u", config->port);
    }
    s->loop = config->loop;
    s->engine = config->engine;
    s->catalogue = catalogue_new(s->engine);
    timer_init(&s->sweep, s->loop, sweep, s);
    timer_init(&s->fill, s->loop, fill, s);
    grpc_server_add(s->server, AGENT_SESSION_PATH, &handlers, s);
    *ret = s;
    return NULL;
}

struct sessions *sessions_free(struct sessions *s)
{
    struct called *k, *next;

    if (!s)
        return NULL;
    grpc_server_free(s->server);
    timer_cancel(&s->sweep);
    timer_cancel(&s->fill);
    s->catalogue = catalogue_free(s->catalogue);
    HASH_ITER (hh, s->called, k, next) {
        HASH_DEL(s->called, k);
        free(k);
    }
    free(s);
    return NULL;
}

uint16_t sessions_port(const struct sessions *s)
{
    return grpc_server_port(s->server);
}

static void send_keyed(struct session *s, const char *kind, const char *key,
                       const struct control_message *m)
{
    CLEANUP_FREE char *full = xasprintf("%s %s", kind, key);

    send_message(s, full, m);
}

void sessions_effect(struct sessions *all, const struct effect *f)
{
    struct control_message m = {0};
    struct session *s;
    char port[8];

    if (f->kind == EFFECT_VOLUME) {
        catalogue_note(all->catalogue, &f->dataset);
        return;
    }
    HASH_FIND(hh, all->by_id, &f->session, sizeof(f->session), s);
    if (!s)
        return;
    switch (f->kind) {
    case EFFECT_WELCOME:
        m.kind = CONTROL_MESSAGE_WELCOME;
        m.welcome = f->welcome;
        send_message(s, NULL, &m);
        if (s->wants_volumes && f->welcome.volumes)
            begin_volumes(s);
        break;
    case EFFECT_ORDER:
        m.kind = CONTROL_MESSAGE_ORDER;
        m.order = f->order;
        send_keyed(s, "dataset", UUID_STR(&f->order.dataset), &m);
        break;
    case EFFECT_ORDER_NONE:
        m.kind = CONTROL_MESSAGE_ORDER_NONE;
        m.dataset = f->dataset;
        send_keyed(s, "dataset", UUID_STR(&f->dataset), &m);
        break;
    case EFFECT_CONTAINER_ORDER:
        m.kind = CONTROL_MESSAGE_CONTAINER_ORDER;
        m.container = f->container_order;
        send_keyed(s, "container", f->container_order.config->name, &m);
        break;
    case EFFECT_CONTAINER_NONE:
        m.kind = CONTROL_MESSAGE_CONTAINER_NONE;
        m.name = f->name;
        send_keyed(s, "container", f->name, &m);
        break;
    case EFFECT_ROUTE:
        m.kind = CONTROL_MESSAGE_ROUTE;
        m.route = f->route;
        (void)snprintf(port, sizeof(port), "%u", f->route.port);
        send_keyed(s, "route", port, &m);
        break;
    case EFFECT_ROUTE_NONE:
        m.kind = CONTROL_MESSAGE_ROUTE_NONE;
        m.port = f->port;
        (void)snprintf(port, sizeof(port), "%u", f->port);
        send_keyed(s, "route", port, &m);
        break;
    case EFFECT_LIST_ORDER:
        m.kind = CONTROL_MESSAGE_LIST_ORDER;
        m.list_order = f->list_order;
        send_keyed(s, "list", "order", &m);
        break;
    case EFFECT_SIGHTING:
        m.kind = CONTROL_MESSAGE_SIGHTING;
        m.sighting = f->sighting;
        send_keyed(s, "sighting", UUID_STR(&f->sighting.dataset), &m);
        break;
    case EFFECT_CALLS_SHARE:
        m.kind = CONTROL_MESSAGE_CALLS_SHARE;
        m.share = f->share;
        send_keyed(s, "calls", "share", &m);
        break;
    case EFFECT_ORDERS_COMPLETE:
        m.kind = CONTROL_MESSAGE_ORDERS_COMPLETE;
        send_message(s, NULL, &m);
        break;
    case EFFECT_REFUSE:
        refuse(s, f->text);
        break;
    case EFFECT_COMMIT:
    case EFFECT_REPLY:
    case EFFECT_CHANGED:
    case EFFECT_VOLUME:
        break;
    }
}
