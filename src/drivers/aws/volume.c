#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "drivers/aws/aws.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

#define LOOK_S 30

struct ec2_try aws_try(const struct wait *w)
{
    return (struct ec2_try){.deadline_us = w->deadline_us};
}

/* ---- one dataset ---- */

static bool exists(const struct aws_volume *v)
{
    return v->status != AWS_VOLUME_DELETING && v->status != AWS_VOLUME_DELETED;
}

static bool is_of(const struct aws *a, const struct aws_volume *v, const struct uuid *dataset)
{
    return exists(v) && uuid_eq(&v->cluster, &a->cluster) && uuid_eq(&v->dataset, dataset);
}

const struct aws_attachment *aws_mine(const struct aws *a, const struct aws_volume *v)
{
    for (size_t i = 0; i < v->n_attachments; i++) {
        if (streq(v->attachments[i].instance, a->instance))
            return &v->attachments[i];
    }
    return NULL;
}

const struct aws_attachment *aws_others(const struct aws *a, const struct aws_volume *v)
{
    for (size_t i = 0; i < v->n_attachments; i++) {
        if (!streq(v->attachments[i].instance, a->instance))
            return &v->attachments[i];
    }
    return NULL;
}

void aws_fill(const struct aws *a, const struct aws_volume *from, struct volume_state *v)
{
    v->present = true;
    v->size = from->size;
    /* In whatever state: as long as EC2 has an attachment, it is not known to be off. */
    v->attached = aws_mine(a, from) != NULL;
    v->attached_elsewhere = aws_others(a, from) != NULL;
}

struct err *aws_look_again(struct aws *a, struct ec2_try *t, const char *id, struct aws_volume *ret,
                           bool *ret_found)
{
    CLEANUP_AWS_VOLUMES struct aws_volumes found = {0};
    struct err *e = ec2_volumes_sync(a->ec2, t, id, NULL, &found);

    if (e && t->kind == AWS_NOT_FOUND)
        e = err_free(e);
    if (e)
        return e;
    *ret_found = found.n == 1 && exists(&found.all[0]);
    if (*ret_found)
        *ret = found.all[0];
    return NULL;
}

/* Does `x` count before `y`? */
static bool is_older(const struct aws_volume *x, const struct aws_volume *y)
{
    int order = strcmp(x->created, y->created);

    return order ? order < 0 : strcmp(x->id, y->id) < 0;
}

static const struct aws_volume *choose(const struct aws *a, const struct aws_volumes *l,
                                       const struct uuid *dataset, const char *hint)
{
    const struct aws_volume *best = NULL;

    for (size_t i = 0; i < l->n; i++) {
        const struct aws_volume *v = &l->all[i];

        if (!is_of(a, v, dataset))
            continue;
        if (hint && streq(v->id, hint))
            return v;
        if (!best || is_older(v, best))
            best = v;
    }
    return best;
}

struct err *aws_find(struct aws *a, const struct uuid *dataset, struct aws_volume *ret,
                     bool *ret_found)
{
    CLEANUP_AWS_VOLUMES struct aws_volumes found = {0};
    CLEANUP_FREE char *hint = NULL;
    char cluster[UUID_TEXT_SIZE], id[UUID_TEXT_SIZE];
    const struct ec2_filter filters[] = {
        {"tag:" AWS_TAG_CLUSTER, uuid_format(&a->cluster, cluster)},
        {"tag:" AWS_TAG_DATASET, uuid_format(dataset, id)},
        {NULL, NULL}};
    struct wait w = wait_for(LOOK_S);
    struct ec2_try t = aws_try(&w);

    /* Who knows its id asks for it: that is never behind, and costs no more. */
    TRY(notes_read(&a->notes, dataset, AWS_ID_SIZE - 1, &hint));
    if (hint && str_has_prefix(hint, "vol-")) {
        TRY(aws_look_again(a, &t, hint, ret, ret_found));
        if (*ret_found && is_of(a, ret, dataset))
            return NULL;
    }
    TRY(ec2_volumes_sync(a->ec2, &t, NULL, filters, &found));
    const struct aws_volume *v = choose(a, &found, dataset, hint);

    /* What was deleted a moment ago may still be in the list, or come into it only now. */
    *ret_found = false;
    return v ? aws_look_again(a, &t, v->id, ret, ret_found) : NULL;
}

struct err *aws_inspect(void *cookie, const struct uuid *dataset, struct volume_state *v)
{
    struct aws *a = cookie;
    struct aws_volume volume;
    bool found;

    TRY(aws_find(a, dataset, &volume, &found));
    *v = (struct volume_state){.dataset = *dataset};
    if (found)
        aws_fill(a, &volume, v);
    return NULL;
}

/* ---- all ---- */

/* In whatever state, like aws_fill(). */
static char *hosts_of(const struct aws_volume *v)
{
    CLEANUP_STR struct str s = {0};

    for (size_t i = 0; i < v->n_attachments; i++)
        str_appendf(&s, "%s%s", i ? " " : "", v->attachments[i].instance);
    return v->n_attachments ? xstrdup(s.data) : NULL;
}

/* By dataset, and the one that counts first. */
static int by_dataset(const void *x, const void *y)
{
    const struct aws_volume *a = x, *b = y;
    int order = uuid_cmp(&a->dataset, &b->dataset);

    return order ? order : is_older(a, b) ? -1 : 1;
}

static struct err *add_volumes(struct aws *a, struct aws_volumes *all, struct volume_list *l)
{
    size_t n = 0;

    for (size_t i = 0; i < all->n; i++) {
        if (!uuid_is_nil(&all->all[i].dataset) && is_of(a, &all->all[i], &all->all[i].dataset))
            all->all[n++] = all->all[i];
    }
    if (n)
        qsort(all->all, n, sizeof(*all->all), by_dataset);
    for (size_t i = 0; i < n; i++) {
        const struct aws_volume *v = &all->all[i];

        if (!i || !uuid_eq(&v[-1].dataset, &v->dataset)) {
            struct volume_state *state = volume_list_get(l, &v->dataset);

            aws_fill(a, v, state);
            state->hosts = hosts_of(v);
            continue;
        }
        log_warning(
            "dataset %s has more than one volume (%s is one); its hint, or the oldest counts",
            UUID_STR(&v->dataset), v->id);
        TRY(aws_inspect(a, &v->dataset, volume_list_get(l, &v->dataset)));
    }
    return NULL;
}

struct err *aws_list(void *cookie, struct volume_state **ret_states, size_t *ret_n)
{
    struct aws *a = cookie;
    CLEANUP_AWS_VOLUMES struct aws_volumes all = {0};
    struct volume_list l = {0};
    const struct ec2_filter filters[] = {{"tag:" AWS_TAG_CLUSTER, UUID_STR(&a->cluster)},
                                         {NULL, NULL}};
    struct wait w = wait_for(LOOK_S);
    struct ec2_try t = aws_try(&w);

    TRY(ec2_volumes_sync(a->ec2, &t, NULL, filters, &all));
    struct err *e = add_volumes(a, &all, &l);

    if (!e)
        e = notes_list(&a->notes, &l, a, aws_inspect);
    if (e) {
        volume_list_done(&l);
        return e;
    }
    *ret_states = l.states;
    *ret_n = l.n;
    return NULL;
}
