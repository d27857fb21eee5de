/* flockerctl events: what changes, as it changes. */
#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "cli/ctl.h"
#include "cli/text.h"

#include <stdio.h>
#include <unistd.h>

#define AGAIN_S 1

static void print_json(const char *kind, const char *id, json_t *detail)
{
    json_t *o = json_pack("{s:f, s:s, s:s, s:o}", "time", (double)now_os().wall_us / USEC_PER_SEC, "event", kind, "id",
                          id, "detail", detail ? json_incref(detail) : json_null());
    CLEANUP_FREE char *text = json_dumps(o, JSON_COMPACT);

    printf("%s\n", text);
    json_decref(o);
}

/* "moving to 8d2f6a70; copying: the data are being copied ..." */
static void describe(struct str *s, const json_t *detail)
{
    const json_t *reason = json_object_get(detail, "reason");
    const char *state = ctl_text(detail, "status");

    str_append(s, *state ? state : ctl_text(detail, "state"));
    const char *verified = ctl_text(json_object_get(detail, "verification"), "result");
    if (*verified)
        str_appendf(s, "; replica compared: %s", verified);
    if (json_is_object(reason))
        str_appendf(s, "; %s: %s", ctl_text(reason, "code"), ctl_text(reason, "text"));
}

static void print_line(const char *kind, const char *id, const json_t *detail, const char *what)
{
    CLEANUP_FREE char *when = text_format_time((double)now_os().wall_us / USEC_PER_SEC);
    CLEANUP_STR struct str text = {0};
    CLEANUP_STR struct str safe = {0};

    str_appendf(&text, "%s  %-9s %s  ", when, kind, id);
    if (detail)
        describe(&text, detail);
    else
        str_append(&text, what);
    text_append_safe(&safe, text.data);
    printf("%s\n", safe.data);
}

/* What the control service says about it now; NULL: nothing (any more). */
static struct err *fetch(struct ctl *c, const char *kind, const char *id, json_t **ret_detail)
{
    const char *prefix = streq(kind, "dataset") ? "/v1/state/datasets/" : streq(kind, "container") ? "/v1/state/containers/" : NULL;

    *ret_detail = NULL;
    if (!prefix)
        return NULL;
    CLEANUP_FREE char *path = api_path(prefix, id);
    CLEANUP_ERR struct err *e = api_get(c->api, path, ret_detail);
    if (e && e->code != ERR_NOT_FOUND)
        return steal(&e);
    return NULL;
}

static void take_event(void *cookie, const struct sse_event *event)
{
    struct ctl *c = cookie;
    const char *kind = str_is_utf8(event->event, strlen(event->event)) ? event->event : "?";
    json_t *data = json_loads(event->data, JSON_REJECT_DUPLICATES, NULL);
    CLEANUP_FREE char *id = xstrdup(ctl_text(data, "id"));
    json_t *detail = NULL;

    json_decref(data);
    if (streq(kind, "resync")) {
        if (c->args->json)
            print_json("resync", "", NULL);
        else
            print_line("resync", "", NULL, "some events were missed");
    } else {
        CLEANUP_ERR struct err *e = fetch(c, kind, id, &detail);
        if (e)
            log_warning("%s", e->text);
        if (c->args->json)
            print_json(kind, id, detail);
        else
            print_line(kind, id, detail,
                       streq(kind, "dataset") || streq(kind, "container") ? "is gone" : "changed");
        json_decref(detail);
    }
    (void)fflush(stdout);
}

struct err *ctl_events(struct ctl *c)
{
    struct sse events = {.fn = take_event, .cookie = c};
    struct err *e;
    bool heard = false;

    /* A control service that restarts is waited for; one that was never reached is an error. */
    for (;;) {
        bool began = false;
        e = api_follow(c->api, "/v1/events", &events, &began);
        heard = heard || began;
        if (e && (!heard || e->code != ERR_UNAVAILABLE || ferror(stdout)))
            break;
        log_info("%s; again in %d s", e ? e->text : "the stream of events ended", AGAIN_S);
        err_free(e);
        sse_restart(&events);
        (void)sleep(AGAIN_S);
    }
    sse_done(&events);
    return e;
}
