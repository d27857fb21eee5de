#include "net/outbox.h"

#include "base/hash.h"

#include <utlist.h>

/* Above this the stream's own queue is left alone, so that newer values can still replace older ones. */
#define OUTBOX_HIGH_WATER (256u << 10)

struct waiting {
    char *key; /* NULL = not replaceable */
    struct str message;
    struct waiting *prev, *next;
    UT_hash_handle hh;
};

struct outbox {
    struct grpc_stream *stream;
    struct waiting *list;   /* in order */
    struct waiting *by_key; /* those with a key */
};

struct outbox *outbox_new(struct grpc_stream *stream)
{
    struct outbox *o = xcalloc(1, sizeof(*o));

    o->stream = stream;
    return o;
}

static void take_out(struct outbox *o, struct waiting *w)
{
    DL_DELETE(o->list, w);
    if (w->key)
        HASH_DEL(o->by_key, w);
    free(w->key);
    str_done(&w->message);
    free(w);
}

struct outbox *outbox_free(struct outbox *o)
{
    if (!o)
        return NULL;
    while (o->list)
        take_out(o, o->list);
    free(o);
    return NULL;
}

static bool has_room(const struct outbox *o)
{
    return grpc_stream_queued(o->stream) < OUTBOX_HIGH_WATER;
}

void outbox_send(struct outbox *o, const char *key, struct str *message)
{
    struct waiting *w = NULL;

    if (key && o->by_key)
        HASH_FIND_STR(o->by_key, key, w);
    if (w) {
        str_done(&w->message);
        w->message = *message;
        *message = (struct str){0};
        return;
    }
    if (!o->list && has_room(o) && grpc_stream_send(o->stream, message->data, message->len)) {
        str_done(message);
        return;
    }
    w = xcalloc(1, sizeof(*w));
    w->key = xstrdup_null(key);
    w->message = *message;
    *message = (struct str){0};
    DL_APPEND(o->list, w);
    if (w->key)
        HASH_ADD_KEYPTR(hh, o->by_key, w->key, strlen(w->key), w);
}

void outbox_drained(struct outbox *o)
{
    while (o->list && has_room(o) &&
           grpc_stream_send(o->stream, o->list->message.data, o->list->message.len))
        take_out(o, o->list);
}

bool outbox_is_idle(const struct outbox *o, size_t bytes)
{
    return !o->list && grpc_stream_queued(o->stream) < bytes;
}
