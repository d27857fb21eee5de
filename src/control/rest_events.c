/* GET /v1/events: server-sent events (HTML standard, section 9.2). Each says only which object
 * changed; the reader asks for its state. Readers that come back with Last-Event-ID get what they
 * missed, or, when that is no longer known, one event `resync`: everything may have changed. */
#include "control/rest_internal.h"

#include <inttypes.h>
#include <stdio.h>

#define HEARTBEAT_US (30 * USEC_PER_SEC)
#define MAX_QUEUED (256u << 10) /* bytes; a reader further behind is dropped */
#define MAX_SUBSCRIBERS                                                                            \
    256 /* they hold requests of the server, which must keep some for others                       \
         */

static const char *const kind_names[OBJECT_KIND_MAX] = {
    [OBJECT_DATASET] = "dataset",
    [OBJECT_CONTAINER] = "container",
    [OBJECT_LEASE] = "lease",
    [OBJECT_NODE] = "node",
};

static void drop(struct subscriber *s)
{
    struct rest *rest = s->rest;

    if (s->prev)
        s->prev->next = s->next;
    else
        rest->subscribers = s->next;
    if (s->next)
        s->next->prev = s->prev;
    if (--rest->n_subscribers == 0)
        timer_cancel(&rest->heartbeat);
    http_request_on_close(s->request, NULL, NULL);
    http_drop(s->request);
    free(s);
}

static void on_close(void *subscriber)
{
    drop(subscriber);
}

/* To one reader; one who does not read is dropped. */
static void send_to(struct subscriber *s, const struct str *text)
{
    if (http_stream_queued(s->request) + text->len > MAX_QUEUED)
        drop(s);
    else
        http_stream_write(s->request, text->data, text->len);
}

static void send_to_all(struct rest *rest, const struct str *text)
{
    for (struct subscriber *s = rest->subscribers, *next; s; s = next) {
        next = s->next;
        send_to(s, text);
    }
}

static void heartbeat(void *cookie)
{
    struct rest *rest = cookie;
    CLEANUP_STR struct str text = {0};

    timer_set(&rest->heartbeat, now_os().mono_us + HEARTBEAT_US);
    str_append(&text, ": still here\n\n");
    send_to_all(rest, &text);
}

static void append_event(struct str *text, const struct rest *rest, const struct event *e)
{
    json_t *data = json_pack("{s:o}", "id", json_text(e->key));

    str_appendf(text, "event: %s\nid: %016" PRIx64 ":%" PRIu64 "\ndata: ", kind_names[e->kind],
                rest->instance, e->n);
    json_append(text, data);
    str_append(text, "\n\n");
    json_decref(data);
}

void rest_changed(struct rest *rest, enum object_kind kind, const char *key)
{
    struct event *e = &rest->events[++rest->last_event % EVENTS_KEPT];
    CLEANUP_STR struct str text = {0};

    past_note(rest, kind, key);
    free(e->key);
    *e = (struct event){.n = rest->last_event, .kind = kind, .key = xstrdup(key)};
    if (!rest->subscribers)
        return;
    append_event(&text, rest, e);
    send_to_all(rest, &text);
}

/* Which event a reader has seen last, by the id of it; false when what came after it is not known any
 * more. */
static bool find_seen(const struct rest *rest, const char *last, uint64_t *ret_n)
{
    uint64_t instance, n;
    int end = 0;

    if (sscanf(last, "%16" SCNx64 ":%" SCNu64 "%n", &instance, &n, &end) != 2 || last[end] ||
        instance != rest->instance || n > rest->last_event || rest->last_event - n > EVENTS_KEPT)
        return false;
    *ret_n = n;
    return true;
}

/* What a reader missed since `last`, its Last-Event-ID (NULL: it is new, and has read nothing
 * before). */
static void append_missed(struct str *text, const struct rest *rest, const char *last)
{
    uint64_t n;

    if (!last)
        return;
    if (!find_seen(rest, last, &n)) {
        str_appendf(text, "event: resync\nid: %016" PRIx64 ":%" PRIu64 "\ndata: {}\n\n",
                    rest->instance, rest->last_event);
        return;
    }
    while (++n <= rest->last_event)
        append_event(text, rest, &rest->events[n % EVENTS_KEPT]);
}

/* ?since=<instance>:<n>: as Last-Event-ID, but whoever asks so wants to be told when it is too old.
 * False: answered. */
static bool since_is_known(const struct rest *rest, struct http_request *r, const char *since)
{
    uint64_t n, instance;
    int end = 0;

    if (sscanf(since, "%16" SCNx64 ":%" SCNu64 "%n", &instance, &n, &end) != 2 || since[end]) {
        respond_error_about(r, REST_ERROR_BAD_PARAMETER,
                            "The parameter since must be the id of an event: <instance>:<number>.");
        return false;
    }
    if (find_seen(rest, since, &n))
        return true;
    respond_error_about(r, REST_ERROR_EVENTS_GONE,
                        "The events after %016" PRIx64 ":%" PRIu64
                        " are not known any more; read the state, then go on from now.",
                        instance, n);
    return false;
}

void events_stream(struct rest *rest, struct http_request *r, const char *param)
{
    static const struct http_header headers[] = {{"Content-Type", "text/event-stream"},
                                                 {"Cache-Control", "no-store"}};
    CLEANUP_STR struct str text = {0};
    CLEANUP_FREE char *since = http_request_query_value(r, "since");
    const char *seen = http_request_header(r, "Last-Event-ID", 0);

    /* A reader that comes back by itself (an EventSource) repeats its first address, and says in the
     * header what it saw since. */
    if (since && !seen && !since_is_known(rest, r, since))
        return;
    if (http_request_method(r) == HTTP_HEAD) {
        http_stream_start(r, 200, headers, ARRAY_SIZE(headers));
        http_stream_end(r);
        return;
    }
    if (rest->n_subscribers >= MAX_SUBSCRIBERS) {
        respond_error_about(r, REST_ERROR_TOO_MANY_READERS,
                            "There are already %d readers of events.", MAX_SUBSCRIBERS);
        return;
    }
    struct subscriber *s = xcalloc(1, sizeof(*s));
    s->rest = rest;
    s->request = r;
    s->next = rest->subscribers;
    if (s->next)
        s->next->prev = s;
    rest->subscribers = s;
    if (rest->n_subscribers++ == 0) {
        timer_init(&rest->heartbeat, rest->config.loop, heartbeat, rest);
        timer_set(&rest->heartbeat, now_os().mono_us + HEARTBEAT_US);
    }
    http_stream_start(r, 200, headers, ARRAY_SIZE(headers));
    http_request_on_close(r, on_close, s);
    str_append(&text, ": changes of this cluster\n\n");
    append_missed(&text, rest, seen ? seen : since);
    http_stream_write(r, text.data, text.len);
}

void events_free(struct rest *rest)
{
    while (rest->subscribers)
        drop(rest->subscribers);
    timer_cancel(&rest->heartbeat);
    for (size_t i = 0; i < EVENTS_KEPT; i++)
        free(rest->events[i].key);
}
