/* Lists that are too long for one turn of the loop: rendered and sent piece by piece, so that others are served in between
 * and the text is never in memory as a whole. What changes meanwhile may be in it or not; its tag is that of its beginning,
 * so nobody is told "not modified" for a mixture. */
#include "control/rest_internal.h"

#define LONG_LIST 4096u   /* ids; so many take some milliseconds at most: that many are looked at in one turn */
#define PIECE (64u << 10) /* bytes; some hundred records */

struct list_stream {
    struct rest *rest;
    struct http_request *request;
    struct dataset_cursor *cursor;
    stream_append_fn *append;
    bool begun; /* an item was written */
};

static void close_stream(struct list_stream *l)
{
    engine_cursor_close(l->cursor);
    http_request_on_close(l->request, NULL, NULL);
    free(l);
}

static void client_gone(void *cookie)
{
    struct list_stream *l = cookie;
    struct http_request *r = l->request;

    close_stream(l);
    http_drop(r);
}

/* Appends items up to a piece, or none when there is nothing to say of a long row of ids; false: that was all. */
static bool fill(struct list_stream *l, struct str *s)
{
    struct uuid id;

    for (unsigned n = 0; n < LONG_LIST && s->len < PIECE; n++) {
        if (!engine_cursor_next(l->cursor, &id))
            return false;
        CLEANUP_STR struct str item = {0};
        l->append(l->rest, &item, &id);
        if (item.len == 0)
            continue; /* nothing of it is to be listed */
        if (l->begun)
            str_append_bytes(s, ",", 1);
        str_append_bytes(s, item.data, item.len);
        l->begun = true;
    }
    return true;
}

static void go_on(void *cookie)
{
    struct list_stream *l = cookie;
    struct http_request *r = l->request;
    CLEANUP_STR struct str s = {0};
    bool more = fill(l, &s);

    if (!more)
        str_append(&s, "]");
    http_stream_write(r, s.data, s.len);
    if (more) {
        http_stream_on_drained(r, go_on, l);
        return;
    }
    close_stream(l);
    http_stream_end(r);
}

bool respond_stream(struct rest *rest, struct http_request *r, const char *tag,
                    stream_append_fn *append)
{
    if (engine_dataset_count(rest->config.engine) < LONG_LIST)
        return false;
    CLEANUP_FREE char *etag = tag ? xasprintf("\"%s\"", tag) : NULL;
    const struct http_header headers[] = {{"ETag", etag}, {"X-Configuration-Tag", tag}};
    size_t n = tag ? ARRAY_SIZE(headers) : 0;

    if (etag && client_has_tag(r, etag)) {
        http_reply(r, 304, headers, n, NULL, 0);
        return true;
    }
    http_stream_start(r, 200, headers, n);
    if (http_request_method(r) == HTTP_HEAD) {
        http_stream_end(r);
        return true;
    }
    struct list_stream *l = xcalloc(1, sizeof(*l));
    *l = (struct list_stream){rest, r, engine_cursor_open(rest->config.engine), append, false};
    http_request_on_close(r, client_gone, l);
    http_stream_write(r, "[", 1);
    http_stream_on_drained(r, go_on, l);
    return true;
}
