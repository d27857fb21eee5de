#include "control/catalogue.h"

#include "base/hash.h"
#include "proto/codec.h"

#define FILL_AT_ONCE 500u /* volumes that are there from before, at each turn of the loop: about a millisecond */

struct told {
    struct uuid dataset;
    struct str message; /* as it goes over the wire */
    uint64_t number;    /* of its last change; its place in the log; 0 = none yet */
    bool gone;
    bool noted;
    struct told *next_noted;
    UT_hash_handle hh;
};

/* By ascending number; what changed again has left a hole. */
struct place {
    uint64_t number;
    struct told *told; /* NULL = a hole */
};

struct catalogue {
    const struct engine *engine;
    bool wanted, whole;
    struct uuid filled; /* all up to this id were looked at, when not whole */
    struct told *by_id;
    struct told *noted;
    struct place *log;
    size_t n, cap, holes, n_gone;
    uint64_t newest;
};

struct catalogue *catalogue_new(const struct engine *e)
{
    struct catalogue *c = xcalloc(1, sizeof(*c));

    c->engine = e;
    return c;
}

static void forget(struct catalogue *c, struct told *t)
{
    HASH_DEL(c->by_id, t);
    str_done(&t->message);
    free(t);
}

struct catalogue *catalogue_free(struct catalogue *c)
{
    struct told *t, *next;

    if (!c)
        return NULL;
    HASH_ITER (hh, c->by_id, t, next)
        forget(c, t);
    free(c->log);
    free(c);
    return NULL;
}

void catalogue_begin(struct catalogue *c)
{
    c->wanted = true;
}

static struct told *find(const struct catalogue *c, const struct uuid *dataset)
{
    struct told *t;

    HASH_FIND(hh, c->by_id, dataset, sizeof(*dataset), t);
    return t;
}

void catalogue_note(struct catalogue *c, const struct uuid *dataset)
{
    if (!c->wanted)
        return;
    struct told *t = find(c, dataset);
    if (!t) {
        t = xcalloc(1, sizeof(*t));
        t->dataset = *dataset;
        HASH_ADD(hh, c->by_id, dataset, sizeof(t->dataset), t);
    }
    if (t->noted)
        return;
    t->noted = true;
    t->next_noted = c->noted;
    c->noted = t;
}

static size_t place_after(const struct catalogue *c, uint64_t number)
{
    size_t low = 0, high = c->n;

    while (low < high) {
        size_t middle = (low + high) / 2;
        if (c->log[middle].number <= number)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

static void leave_log(struct catalogue *c, struct told *t)
{
    if (!t->number)
        return;
    c->log[place_after(c, t->number) - 1].told = NULL;
    c->holes++;
    t->number = 0;
}

static void close_holes(struct catalogue *c)
{
    size_t n = 0;

    if (c->holes <= c->n / 2)
        return;
    for (size_t i = 0; i < c->n; i++) {
        if (c->log[i].told)
            c->log[n++] = c->log[i];
    }
    c->n = n;
    c->holes = 0;
}

static void append(struct catalogue *c, struct told *t)
{
    leave_log(c, t);
    close_holes(c);
    c->log = mem_grow(c->log, c->n, &c->cap, sizeof(*c->log));
    t->number = ++c->newest;
    c->log[c->n++] = (struct place){t->number, t};
}

/* The message about it as it is now; false: it is no volume. */
static bool encode(const struct catalogue *c, struct now now, const struct uuid *dataset, struct str *out)
{
    struct control_message m = {.kind = CONTROL_MESSAGE_VOLUME};

    if (!engine_volume(c->engine, now, dataset, &m.volume))
        return false;
    codec_control_encode(&m, out);
    control_message_done(&m);
    return true;
}

static void encode_gone(const struct uuid *dataset, struct str *out)
{
    struct control_message m = {.kind = CONTROL_MESSAGE_VOLUME_NONE, .dataset = *dataset};

    codec_control_encode(&m, out);
}

static bool is_same(const struct str *a, const struct str *b)
{
    return a->len == b->len && (!a->len || memcmp(a->data, b->data, a->len) == 0);
}

static void look_at(struct catalogue *c, struct now now, struct told *t)
{
    CLEANUP_STR struct str message = {0};
    bool gone = !encode(c, now, &t->dataset, &message);

    if (gone && !t->number) {
        forget(c, t); /* nobody has heard of it */
        return;
    }
    if (gone)
        encode_gone(&t->dataset, &message);
    if (is_same(&message, &t->message))
        return;
    if (gone != t->gone)
        c->n_gone = gone ? c->n_gone + 1 : c->n_gone - 1;
    t->gone = gone;
    str_done(&t->message);
    t->message = message;
    message = (struct str){0};
    append(c, t);
}

struct filling {
    struct catalogue *catalogue;
    unsigned left;
};

static bool fill_one(void *cookie, const struct uuid *id)
{
    struct filling *f = cookie;

    f->catalogue->filled = *id;
    const struct dataset *d = engine_dataset(f->catalogue->engine, id);
    if (d && metadata_get(&d->metadata, "name"))
        catalogue_note(f->catalogue, id);
    return --f->left > 0;
}

static void fill(struct catalogue *c)
{
    struct filling f = {c, FILL_AT_ONCE};
    struct uuid after = c->filled;
    struct list_query q = {.after = uuid_is_nil(&after) ? NULL : &after, .about = FILL_AT_ONCE};

    engine_list_datasets(c->engine, &q, fill_one, &f);
    c->whole = f.left > 0;
}

bool catalogue_settle(struct catalogue *c, struct now now)
{
    if (!c->wanted)
        return false;
    if (!c->whole)
        fill(c);
    for (struct told *t; (t = c->noted);) {
        c->noted = t->next_noted;
        t->noted = false;
        look_at(c, now, t);
    }
    return !c->whole;
}

bool catalogue_is_whole(const struct catalogue *c)
{
    return c->whole;
}

uint64_t catalogue_newest(const struct catalogue *c)
{
    return c->newest;
}

const struct str *catalogue_next(struct catalogue *c, uint64_t *cursor)
{
    size_t i = place_after(c, *cursor);

    while (i < c->n && !c->log[i].told)
        i++;
    if (i == c->n)
        return NULL;
    *cursor = c->log[i].number;
    return &c->log[i].told->message;
}

void catalogue_told(struct catalogue *c, uint64_t cursor)
{
    struct told *t, *next;

    HASH_ITER (hh, c->by_id, t, next) {
        if (!t->gone || t->noted || t->number > cursor)
            continue;
        leave_log(c, t);
        forget(c, t);
        c->n_gone--;
    }
}

bool catalogue_has_gone(const struct catalogue *c)
{
    return c->n_gone > 0;
}
