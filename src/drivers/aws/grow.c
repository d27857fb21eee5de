#include "base/now.h"
#include "base/str.h"
#include "drivers/aws/aws.h"

#include <inttypes.h>

#define GROW_S 300
#define PATIENCE_US (600 * (uint64_t)USEC_PER_SEC)

/* ---- what was refused a short time ago ---- */

void aws_patience_done(struct aws_patience *p)
{
    for (size_t i = 0; i < p->n; i++)
        free(p->all[i].text);
    free(p->all);
    *p = (struct aws_patience){0};
}

/* The same answer as last time, without asking; NULL: it is time to ask. */
static struct err *recall(struct aws *a, const struct uuid *dataset)
{
    struct aws_patience *p = &a->patience;
    uint64_t now = now_os().mono_us;
    struct err *e = NULL;

    (void)pthread_mutex_lock(&a->lock);
    for (size_t i = 0; i < p->n; i++) {
        struct aws_refusal *r = &p->all[i];

        if (!uuid_eq(&r->dataset, dataset))
            continue;
        if (now < r->until_us) {
            e = err_new(ERR_TOO_MANY, "%s (EC2 is asked again in %" PRIu64 " minutes)", r->text,
                        (r->until_us - now) / (60 * (uint64_t)USEC_PER_SEC) + 1);
        } else {
            free(r->text);
            *r = p->all[--p->n];
        }
        break;
    }
    (void)pthread_mutex_unlock(&a->lock);
    return e;
}

static void remember(struct aws *a, const struct uuid *dataset, const char *text)
{
    struct aws_patience *p = &a->patience;

    (void)pthread_mutex_lock(&a->lock);
    p->all = mem_grow(p->all, p->n, &p->cap, sizeof(*p->all));
    p->all[p->n++] = (struct aws_refusal){
        .dataset = *dataset, .until_us = now_os().mono_us + PATIENCE_US, .text = xstrdup(text)};
    (void)pthread_mutex_unlock(&a->lock);
}

/* ---- growing ---- */

/* EC2 takes no change now: because of this one, ordered before an answer was lost or we were killed? */
static struct err *goes_on_already(struct aws *a, struct wait *w, const char *id, uint64_t size,
                                   bool *ret_so)
{
    struct ec2_try t = aws_try(w);
    struct aws_modification m;

    TRY(ec2_modification_sync(a->ec2, &t, id, &m));
    *ret_so = !m.ended && m.target_size >= size;
    return NULL;
}

static struct err *order(struct aws *a, const struct uuid *dataset, const char *id, uint64_t size,
                         struct wait *w)
{
    struct ec2_try t = aws_try(w);
    CLEANUP_ERR struct err *e = ec2_grow_sync(a->ec2, &t, id, size);
    bool ours = false;

    if (!e || t.kind != AWS_TOO_SOON)
        return steal(&e);
    TRY(goes_on_already(a, w, id, size, &ours));
    if (ours)
        return NULL;
    remember(a, dataset, e->text);
    return steal(&e);
}

/* Why EC2 does not show the new size. */
static struct err *explain(struct aws *a, const char *id)
{
    struct wait w = wait_for(10);
    struct ec2_try t = aws_try(&w);
    struct aws_modification m;

    TRY(ec2_modification_sync(a->ec2, &t, id, &m));
    if (m.failed)
        return err_new(ERR_IO, "EC2 could not enlarge volume %s: %s", id,
                       *m.message ? m.message : "it does not say why");
    return err_new(ERR_TIMEOUT, "EC2 is still enlarging volume %s (%s) after %d seconds", id,
                   m.state, GROW_S);
}

struct err *aws_grow(void *cookie, const struct uuid *dataset, uint64_t size)
{
    struct aws *a = cookie;
    struct wait w = wait_for(GROW_S);
    bool found, ordered = false;
    struct aws_volume v;

    TRY(aws_find(a, dataset, &v, &found));
    do {
        struct ec2_try t = aws_try(&w);

        if (!found)
            return err_new(ERR_NOT_FOUND, "there is no volume of it in %s", a->region);
        if (v.size >= size)
            return NULL;
        if (!ordered) {
            TRY(recall(a, dataset));
            TRY(order(a, dataset, v.id, size, &w));
            ordered = true;
            wait_soon(&w);
        }
        TRY(aws_look_again(a, &t, v.id, &v, &found));
    } while (wait_more(&w));
    return explain(a, v.id);
}
