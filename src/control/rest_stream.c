/* Lists that are too long for one turn of the loop: rendered and sent piece by piece, so that others are served in between
 * and the text is never in memory as a whole. What changes meanwhile may be in it or not; its tag is that of its beginning,
 * so nobody is told "not modified" for a mixture. */
#include "control/rest_internal.h"

#define PIECE (16u << 10) /* bytes, about a TLS record: more at a time is not sent sooner, and others wait while it is made */

struct list_stream {
    struct rest *rest;
    struct http_request *request;
    stream_append_fn *append;
    bool begun;     /* an item was written */
    bool looked;    /* at ids up to this one */
    struct uuid at;
    unsigned turn;  /* ids looked at in this turn */
    struct str *piece;
    bool more;
};

static void close_stream(struct list_stream *l)
{
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

static bool add_dataset(void *cookie, const struct uuid *id)
{
    struct list_stream *l = cookie;
    CLEANUP_STR struct str item = {0};

    l->at = *id;
    l->looked = true;
    l->append(l->rest, &item, id);
    if (item.len > 0) { /* else nothing of it is to be listed */
        if (l->begun)
            str_append_bytes(l->piece, ",", 1);
        str_append_bytes(l->piece, item.data, item.len);
        l->begun = true;
    }
    l->more = ++l->turn == TURN_KEYS || l->piece->len >= PIECE;
    return !l->more;
}

/* Appends items up to a piece, or none when there is nothing to say of a long row of ids; false: that was all. */
static bool fill(struct list_stream *l, struct str *s)
{
    struct list_query rest = {.after = l->looked ? &l->at : NULL};

    l->piece = s;
    l->turn = 0;
    l->more = false;
    engine_list_datasets(l->rest->config.engine, &rest, add_dataset, l);
    l->piece = NULL;
    return l->more;
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
    *l = (struct list_stream){.rest = rest, .request = r, .append = append};
    http_request_on_close(r, client_gone, l);
    http_stream_write(r, "[", 1);
    http_stream_on_drained(r, go_on, l);
    return true;
}
