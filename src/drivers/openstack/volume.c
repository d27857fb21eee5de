#include "base/log.h"
#include "base/now.h"
#include "drivers/openstack/openstack.h"

#include <stdio.h>

#define LOOK_S 60
#define PAGE 500u
#define PAGES_MAX 1000u

/* ---- one dataset ---- */

static bool exists(const struct os_volume *v)
{
    return v->status != OS_DELETING;
}

static bool is_of(const struct openstack *o, const struct os_volume *v, const struct uuid *dataset)
{
    return exists(v) && uuid_eq(&v->cluster, &o->cluster) && uuid_eq(&v->dataset, dataset);
}

static bool is_mine(const struct openstack *o, const struct os_attachment *a)
{
    if (o->by_cinder)
        return !*a->server && streq(a->device, o->instance);
    return streq(a->server, o->instance);
}

const struct os_attachment *os_mine(const struct openstack *o, const struct os_volume *v)
{
    for (size_t i = 0; i < v->n_attachments; i++) {
        if (is_mine(o, &v->attachments[i]))
            return &v->attachments[i];
    }
    return NULL;
}

const struct os_attachment *os_others(const struct openstack *o, const struct os_volume *v)
{
    for (size_t i = 0; i < v->n_attachments; i++) {
        if (!is_mine(o, &v->attachments[i]))
            return &v->attachments[i];
    }
    return NULL;
}

const char *os_holder(const struct os_attachment *a)
{
    return *a->server ? a->server : *a->device ? a->device : "another host";
}

bool os_is_moving(const struct os_volume *v)
{
    return v->status == OS_RESERVED || v->status == OS_ATTACHING || v->status == OS_DETACHING ||
           (v->status == OS_IN_USE && !v->n_attachments);
}

struct err *os_look_again(struct openstack *o, const char *id, uint64_t deadline_us,
                          struct os_volume *ret, bool *ret_found)
{
    CLEANUP_FREE char *path = xasprintf("/volumes/%s", id);
    CLEANUP_FREE char *what = xasprintf("cannot look at volume %s", id);
    enum os_kind kind;
    json_t *body = NULL;
    struct err *e = os_call_sync(o->cloud,
                                 &(struct os_call){.what = what,
                                                   .service = OS_VOLUME,
                                                   .method = "GET",
                                                   .path = path,
                                                   .deadline_us = deadline_us},
                                 &kind, &body);

    *ret_found = false;
    if (e && kind == OS_NOT_FOUND)
        return err_free(e), NULL;
    if (!e) {
        e = os_volume_parse(body, ret);
        *ret_found = !e && exists(ret);
    }
    json_decref(body);
    return e;
}

/* ---- lists ---- */

/* `key` and `value` of the metadata that a volume must have; Cinder filters, and who asks must not rely on it. */
static struct err *get_page(struct openstack *o, const char *key, const char *value,
                            const char *after, uint64_t deadline_us, struct os_volumes *v)
{
    CLEANUP_FREE char *filter = xasprintf("{\"%s\": \"%s\"}", key, value);
    CLEANUP_STR struct str path = {0};
    enum os_kind kind;
    json_t *body = NULL;

    str_appendf(&path, "/volumes/detail?limit=%u&metadata=", PAGE);
    os_url_append(&path, filter);
    if (after)
        str_appendf(&path, "&marker=%s", after);
    TRY(os_call_sync(o->cloud,
                     &(struct os_call){.what = "cannot list the volumes",
                                       .service = OS_VOLUME,
                                       .method = "GET",
                                       .path = path.data,
                                       .deadline_us = deadline_us},
                     &kind, &body));
    struct err *e = os_volumes_parse(body, v);

    json_decref(body);
    return e;
}

static struct err *get_all(struct openstack *o, const char *key, const char *value,
                           struct os_volumes *v)
{
    struct wait w = wait_for(LOOK_S);
    char last[OS_ID_SIZE] = "";

    for (unsigned page = 0; page < PAGES_MAX; page++) {
        size_t had = v->n;

        TRY(get_page(o, key, value, page ? last : NULL, w.deadline_us, v));
        if (!v->more || v->n == had)
            return NULL;
        memcpy(last, v->all[v->n - 1].id, sizeof(last));
    }
    return err_new(ERR_CORRUPT, "OpenStack sends page after page of volumes, over %u", PAGES_MAX);
}

/* Was it ever used? One that was not has no data. */
static bool was_used(const struct os_volume *v)
{
    return v->n_attachments || os_is_moving(v) || !uuid_is_nil(&v->node);
}

/* Does `x` count before `y`? The same on every node. */
static bool counts_before(const struct os_volume *x, const struct os_volume *y)
{
    int order = strcmp(x->created, y->created);

    if (was_used(x) != was_used(y))
        return was_used(x);
    return order ? order < 0 : strcmp(x->id, y->id) < 0;
}

static const struct os_volume *choose(const struct openstack *o, const struct os_volumes *l,
                                      const struct uuid *dataset)
{
    const struct os_volume *best = NULL;

    for (size_t i = 0; i < l->n; i++) {
        if (is_of(o, &l->all[i], dataset) && (!best || counts_before(&l->all[i], best)))
            best = &l->all[i];
    }
    return best;
}

struct err *os_find(struct openstack *o, const struct uuid *dataset, struct os_volume *ret,
                    bool *ret_found)
{
    CLEANUP_OS_VOLUMES struct os_volumes all = {0};
    CLEANUP_FREE char *hint = NULL;
    struct wait w = wait_for(LOOK_S);

    /* Who knows its id asks for it: that is never behind, and costs no more. */
    TRY(notes_read(&o->notes, dataset, OS_ID_SIZE - 1, &hint));
    if (hint && os_id_is_sane(hint)) {
        TRY(os_look_again(o, hint, w.deadline_us, ret, ret_found));
        if (*ret_found && is_of(o, ret, dataset))
            return NULL;
    }
    TRY(get_all(o, OS_KEY_DATASET, UUID_STR(dataset), &all));
    const struct os_volume *v = choose(o, &all, dataset);

    *ret_found = v != NULL;
    if (v)
        *ret = *v;
    return NULL;
}

/* While it moves no attachment is listed: whose it is, Nova knows, or nobody may use it yet. */
static struct err *is_moving_here(struct openstack *o, const struct os_volume *v, bool *ret_here)
{
    struct wait w = wait_for(LOOK_S);

    *ret_here = false;
    if (v->n_attachments || !os_is_moving(v) || o->by_cinder)
        return NULL;
    return os_nova_has(o, v->id, w.deadline_us, ret_here);
}

static struct err *fill(struct openstack *o, const struct os_volume *from, struct volume_state *v)
{
    bool here;

    TRY(is_moving_here(o, from, &here));
    v->present = true;
    v->size = from->size;
    /* In whatever state: as long as there is an attachment, it is not known to be off. */
    v->attached = os_mine(o, from) || here;
    /* An attachment that Cinder alone makes is used by nobody before it is complete, and then it is listed. */
    v->attached_elsewhere =
        os_others(o, from) || (!v->attached && !o->by_cinder && os_is_moving(from));
    return NULL;
}

struct err *os_inspect(void *cookie, const struct uuid *dataset, struct volume_state *v)
{
    struct openstack *o = cookie;
    struct os_volume volume;
    bool found;

    TRY(os_find(o, dataset, &volume, &found));
    *v = (struct volume_state){.dataset = *dataset};
    return found ? fill(o, &volume, v) : NULL;
}

/* ---- all ---- */

/* As os_instance_id() has them; NULL: none is listed. */
static char *hosts_of(const struct os_volume *v)
{
    CLEANUP_STR struct str s = {0};

    for (size_t i = 0; i < v->n_attachments; i++)
        str_appendf(&s, "%s%s", i ? " " : "", os_holder(&v->attachments[i]));
    return v->n_attachments ? str_steal(&s) : NULL;
}

/* By dataset, and the one that counts first. */
static int by_dataset(const void *x, const void *y)
{
    const struct os_volume *a = x, *b = y;
    int order = uuid_cmp(&a->dataset, &b->dataset);

    return order ? order : counts_before(a, b) ? -1 : 1;
}

static struct err *add_volumes(struct openstack *o, struct os_volumes *all, struct volume_list *l)
{
    size_t n = 0;

    for (size_t i = 0; i < all->n; i++) {
        if (!uuid_is_nil(&all->all[i].dataset) && is_of(o, &all->all[i], &all->all[i].dataset))
            all->all[n++] = all->all[i];
    }
    if (n)
        qsort(all->all, n, sizeof(*all->all), by_dataset);
    for (size_t i = 0; i < n; i++) {
        const struct os_volume *v = &all->all[i];

        if (!i || !uuid_eq(&v[-1].dataset, &v->dataset)) {
            struct volume_state *state = volume_list_get(l, &v->dataset);

            TRY(fill(o, v, state));
            state->hosts = hosts_of(v);
            continue;
        }
        log_warning("dataset %s has more than one volume (%s is one that does not count, unless "
                    "this node used it): see docs/openstack.md",
                    UUID_STR(&v->dataset), v->id);
        TRY(os_inspect(o, &v->dataset, volume_list_get(l, &v->dataset)));
    }
    return NULL;
}

struct err *os_list(void *cookie, struct volume_state **ret_states, size_t *ret_n)
{
    struct openstack *o = cookie;
    CLEANUP_OS_VOLUMES struct os_volumes all = {0};
    struct volume_list l = {0};

    TRY(get_all(o, OS_KEY_CLUSTER, UUID_STR(&o->cluster), &all));
    struct err *e = add_volumes(o, &all, &l);

    if (!e)
        e = notes_list(&o->notes, &l, o, os_inspect);
    if (e) {
        volume_list_done(&l);
        return e;
    }
    *ret_states = l.states;
    *ret_n = l.n;
    return NULL;
}
