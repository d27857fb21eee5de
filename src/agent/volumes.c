#include "agent/volumes.h"

#include "base/hash.h"
#include "base/sorted.h"
#include "base/str.h"

#include <utlist.h>

struct calling {
    struct volume_call call;
    volume_answered_fn *answered; /* NULL: forgotten */
    void *cookie;
    bool sent;
    struct calling *prev, *next;
    UT_hash_handle hh;
};

struct known {
    struct volume_entry entry;
    bool stale; /* of an earlier session, or of the disk; goes unless this one repeats it */
    UT_hash_handle hh;
};

struct agent_volumes {
    struct agent_volumes_config config;
    struct agent_link *sessions; /* where they come from; NULL = nowhere yet */
    struct agent_link *link;     /* with a session that has calls; NULL = none */
    uint64_t next_number;
    struct calling *waiting; /* in order; first those sent */
    struct calling *by_number;
    struct calling *away; /* their answer is VOLUME_AWAY, at the loop's next turn */
    unsigned n_sent;
    struct known *by_id;
    struct sorted by_name; /* of struct known */
};

/* ---- the catalogue ---- */

struct name_key {
    const char *name;
    struct uuid id;
};

static int compare_name(const void *key, const void *item)
{
    const struct name_key *k = key;
    const struct known *v = item;
    int order = strcmp(k->name, v->entry.name);

    return order ? order : uuid_cmp(&k->id, &v->entry.dataset);
}

static struct known *find(const struct agent_volumes *v, const struct uuid *id)
{
    struct known *k;

    HASH_FIND(hh, v->by_id, id, sizeof(*id), k);
    return k;
}

static void take_out(struct agent_volumes *v, struct known *k)
{
    sorted_remove(&v->by_name, compare_name, &(struct name_key){k->entry.name, k->entry.dataset});
    HASH_DEL(v->by_id, k);
    volume_entry_done(&k->entry);
    free(k);
}

static void put_in(struct agent_volumes *v, const struct volume_entry *e, bool stale)
{
    struct known *k = find(v, &e->dataset);

    if (k)
        take_out(v, k);
    k = xcalloc(1, sizeof(*k));
    volume_entry_copy(&k->entry, e);
    k->stale = stale;
    HASH_ADD(hh, v->by_id, entry.dataset, sizeof(k->entry.dataset), k);
    sorted_add(&v->by_name, compare_name, &(struct name_key){k->entry.name, k->entry.dataset}, k);
}

static void changed(struct agent_volumes *v, const struct uuid *dataset, const struct volume_entry *now)
{
    if (v->config.changed)
        v->config.changed(v->config.cookie, dataset, now);
}

static void take_entry(struct agent_volumes *v, const struct volume_entry *e)
{
    put_in(v, e, /* stale= */ false);
    changed(v, &e->dataset, &find(v, &e->dataset)->entry);
}

static void take_gone(struct agent_volumes *v, const struct uuid *dataset)
{
    struct known *k = find(v, dataset);

    if (!k)
        return;
    take_out(v, k);
    changed(v, dataset, NULL);
}

static void take_complete(struct agent_volumes *v)
{
    struct known *k, *next;

    HASH_ITER (hh, v->by_id, k, next) {
        struct uuid id = k->entry.dataset;
        if (k->stale)
            take_gone(v, &id);
    }
    if (v->config.complete)
        v->config.complete(v->config.cookie);
}

void agent_volumes_remember(struct agent_volumes *v, const struct volume_entry *e)
{
    if (!find(v, &e->dataset))
        put_in(v, e, /* stale= */ true);
}

const struct volume_entry *agent_volumes_by_name(const struct agent_volumes *v, const char *name)
{
    struct sorted_place place = sorted_after(&v->by_name, compare_name, &(struct name_key){name, UUID_NIL});
    const struct known *k = sorted_next(&v->by_name, &place);

    return k && streq(k->entry.name, name) ? &k->entry : NULL;
}

const struct volume_entry *agent_volumes_by_id(const struct agent_volumes *v, const struct uuid *dataset)
{
    const struct known *k = find(v, dataset);

    return k ? &k->entry : NULL;
}

size_t agent_volumes_count(const struct agent_volumes *v)
{
    return HASH_COUNT(v->by_id);
}

void agent_volumes_each(const struct agent_volumes *v, bool (*fn)(void *cookie, const struct volume_entry *), void *cookie)
{
    struct sorted_place place = sorted_after(&v->by_name, compare_name, NULL);
    const struct known *k;

    while ((k = sorted_next(&v->by_name, &place)) && fn(cookie, &k->entry))
        ;
}

/* ---- calls ---- */

static void calling_free(struct calling *c)
{
    volume_call_done(&c->call);
    free(c);
}

static void answer_away(void *cookie)
{
    struct agent_volumes *v = cookie;

    for (struct calling *c; (c = v->away);) {
        struct volume_answer a = {.number = c->call.number,
                                  .code = VOLUME_AWAY,
                                  .text = (char *)"there is no session with the control service"};
        DL_DELETE(v->away, c);
        HASH_DEL(v->by_number, c);
        volume_answered_fn *answered = c->answered;
        void *to = c->cookie;
        calling_free(c);
        if (answered)
            answered(to, &a);
    }
}

static void send_waiting(struct agent_volumes *v)
{
    struct calling *c;

    DL_FOREACH (v->waiting, c) {
        if (!v->link || v->n_sent >= VOLUME_CALLS_MAX)
            return;
        if (c->sent)
            continue;
        struct agent_message m = {.kind = AGENT_MESSAGE_VOLUME_CALL, .call = c->call};
        c->sent = true;
        v->n_sent++;
        agent_link_send(v->link, NULL, &m);
    }
}

uint64_t agent_volumes_call(struct agent_volumes *v, const struct volume_call *call, volume_answered_fn *answered, void *cookie)
{
    struct calling *c = xcalloc(1, sizeof(*c));

    volume_call_copy(&c->call, call);
    c->call.number = ++v->next_number;
    c->answered = answered;
    c->cookie = cookie;
    HASH_ADD(hh, v->by_number, call.number, sizeof(c->call.number), c);
    if (v->link) {
        DL_APPEND(v->waiting, c);
        send_waiting(v);
    } else {
        if (!v->away)
            loop_post(v->config.loop, answer_away, v);
        DL_APPEND(v->away, c);
    }
    return c->call.number;
}

static struct calling *find_call(const struct agent_volumes *v, uint64_t number)
{
    struct calling *c;

    HASH_FIND(hh, v->by_number, &number, sizeof(number), c);
    return c;
}

void agent_volumes_forget(struct agent_volumes *v, uint64_t number)
{
    struct calling *c = find_call(v, number);

    if (c)
        c->answered = NULL;
}

static void take_answer(struct agent_volumes *v, const struct volume_answer *a)
{
    struct calling *c = find_call(v, a->number);

    if (!c || !c->sent)
        return;
    DL_DELETE(v->waiting, c);
    HASH_DEL(v->by_number, c);
    v->n_sent--;
    volume_answered_fn *answered = c->answered;
    void *to = c->cookie;
    calling_free(c);
    send_waiting(v);
    if (answered)
        answered(to, a);
}

/* ---- sessions ---- */

static void tell_use(void *cookie, const struct volume_use *use)
{
    struct agent_volumes *v = cookie;
    struct agent_message m = {.kind = AGENT_MESSAGE_VOLUME_USE, .use = *use};

    agent_link_send(v->link, NULL, &m);
}

void agent_volumes_set_link(struct agent_volumes *v, struct agent_link *link)
{
    v->sessions = link;
}

void agent_volumes_hurry(struct agent_volumes *v, uint64_t until_us)
{
    if (v->sessions)
        agent_link_hurry(v->sessions, until_us);
}

void agent_volumes_up(struct agent_volumes *v, struct agent_link *link)
{
    struct agent_message end = {.kind = AGENT_MESSAGE_VOLUME_USES_COMPLETE};

    v->link = link;
    for (struct known *k = v->by_id; k; k = k->hh.next)
        k->stale = true;
    if (v->config.each_use)
        v->config.each_use(v->config.cookie, tell_use, v);
    agent_link_send(v->link, NULL, &end);
    if (v->config.session)
        v->config.session(v->config.cookie, true);
}

void agent_volumes_down(struct agent_volumes *v)
{
    if (!v->link)
        return;
    v->link = NULL;
    v->n_sent = 0;
    if (!v->away && v->waiting)
        loop_post(v->config.loop, answer_away, v);
    DL_CONCAT(v->away, v->waiting);
    v->waiting = NULL;
    if (v->config.session)
        v->config.session(v->config.cookie, false);
}

void agent_volumes_message(struct agent_volumes *v, const struct control_message *m)
{
    switch (m->kind) {
    case CONTROL_MESSAGE_VOLUME_ANSWER:
        take_answer(v, &m->answer);
        break;
    case CONTROL_MESSAGE_VOLUME:
        take_entry(v, &m->volume);
        break;
    case CONTROL_MESSAGE_VOLUME_NONE:
        take_gone(v, &m->dataset);
        break;
    case CONTROL_MESSAGE_VOLUMES_COMPLETE:
        take_complete(v);
        break;
    default:
        break;
    }
}

void agent_volumes_dataset_changed(struct agent_volumes *v, const struct uuid *dataset)
{
    if (v->config.dataset_changed && !uuid_is_nil(dataset))
        v->config.dataset_changed(v->config.cookie, dataset);
}

bool agent_volumes_is_up(const struct agent_volumes *v)
{
    return v->link != NULL;
}

struct agent_volumes *agent_volumes_new(const struct agent_volumes_config *config)
{
    struct agent_volumes *v = xcalloc(1, sizeof(*v));

    v->config = *config;
    return v;
}

struct agent_volumes *agent_volumes_free(struct agent_volumes *v)
{
    struct calling *c, *next;
    struct known *k, *next_known;

    if (!v)
        return NULL;
    loop_unpost(v->config.loop, answer_away, v);
    HASH_ITER (hh, v->by_number, c, next) {
        HASH_DEL(v->by_number, c);
        calling_free(c);
    }
    HASH_ITER (hh, v->by_id, k, next_known)
        take_out(v, k);
    sorted_done(&v->by_name);
    free(v);
    return NULL;
}
