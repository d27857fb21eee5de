#include "cli/sse.h"

#include "base/mem.h"

static void set(struct str *s, const char *text)
{
    s->len = 0;
    str_append(s, text);
}

static void dispatch(struct sse *s)
{
    if (s->has_data || s->event.len) {
        struct sse_event e = {.event = s->event.len ? s->event.data : "message", .data = s->data.len ? s->data.data : ""};
        s->fn(s->cookie, &e);
    }
    s->event.len = s->data.len = 0;
    s->has_data = false;
}

static void take_field(struct sse *s, const char *name, const char *value)
{
    if (streq(name, "event")) {
        set(&s->event, value);
    } else if (streq(name, "data")) {
        if (s->has_data)
            str_append(&s->data, "\n");
        str_append(&s->data, value);
        s->has_data = true;
    } else if (streq(name, "id")) {
        set(&s->id, value);
    }
}

static void take_line(struct sse *s)
{
    char *line = s->line.len ? s->line.data : (char[]){""};
    char *colon = strchr(line, ':');

    s->line.len = 0;
    if (!*line) {
        dispatch(s);
        return;
    }
    if (!colon) {
        take_field(s, line, "");
        return;
    }
    *colon = '\0';
    take_field(s, line, colon + 1 + (colon[1] == ' '));
}

bool sse_feed(struct sse *s, const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c = bytes[i];
        bool second = c == '\n' && s->after_cr; /* of a CR LF */
        s->after_cr = c == '\r';
        if (second)
            continue;
        if (c == '\n' || c == '\r')
            take_line(s);
        else if (s->line.len >= SSE_LINE_MAX || s->data.len >= SSE_LINE_MAX)
            return false;
        else if (c) /* a NUL means nothing here, and would end the text */
            str_append_bytes(&s->line, &c, 1);
    }
    return true;
}

void sse_restart(struct sse *s)
{
    s->line.len = s->event.len = s->data.len = 0;
    s->has_data = s->after_cr = false;
}

void sse_done(struct sse *s)
{
    str_done(&s->line);
    str_done(&s->event);
    str_done(&s->data);
    str_done(&s->id);
}
