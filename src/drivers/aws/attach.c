#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "drivers/aws/aws.h"
#include "drivers/aws/disk.h"
#include "drivers/blockdev.h"
#include "drivers/growth.h"

#include <stdio.h>

#define ATTACH_S 90 /* "attaching" for longer is stuck, as AWS's own driver takes it */
#define DEVICE_S 60
#define DETACH_S 120
#define ORDER_AGAIN_S 5
#define LOOK_S 30
#define BUSY_S 10
#define NAMES_TRIED 8u

/* ---- names of devices ---- */

/* xvdaa and so on: root and instance store of no instance are there. */
void aws_device_name(unsigned n, char ret[AWS_NAME_SIZE])
{
    static const char first[] = "abcd";

    n %= AWS_DEVICE_NAMES;
    (void)snprintf(ret, AWS_NAME_SIZE, "/dev/xvd%c%c", first[n / 26], 'a' + (char)(n % 26));
}

static bool is_taken(const struct aws *a, const struct aws_volumes *here, const char *name)
{
    for (size_t i = 0; i < here->n; i++) {
        const struct aws_attachment *m = aws_mine(a, &here->all[i]);

        if (m && streq(m->device, name))
            return true;
    }
    return false;
}

static void next_name(struct aws *a, char ret[AWS_NAME_SIZE])
{
    (void)pthread_mutex_lock(&a->lock);
    aws_device_name(a->next_device++, ret);
    (void)pthread_mutex_unlock(&a->lock);
}

/* One that no volume here has; each name is given out once until all were. */
static struct err *choose_name(struct aws *a, const struct aws_volumes *here,
                               char ret[AWS_NAME_SIZE])
{
    for (unsigned i = 0; i < AWS_DEVICE_NAMES; i++) {
        next_name(a, ret);
        if (!is_taken(a, here, ret))
            return NULL;
    }
    return err_new(ERR_TOO_MANY, "all %u names of devices of %s are used: detach volumes",
                   AWS_DEVICE_NAMES, a->instance);
}

/* ---- attaching ---- */

static struct err *volumes_here(struct aws *a, struct ec2_try *t, struct aws_volumes *here)
{
    const struct ec2_filter mine[] = {{"attachment.instance-id", a->instance}, {NULL, NULL}};

    return ec2_volumes_sync(a->ec2, t, NULL, mine, here);
}

static struct err *try_other_names(struct aws *a, const char *id, struct ec2_try *t)
{
    CLEANUP_AWS_VOLUMES struct aws_volumes here = {0};
    char name[AWS_NAME_SIZE];
    struct err *e = NULL;

    TRY(volumes_here(a, t, &here));
    for (unsigned i = 0; i < NAMES_TRIED; i++) {
        err_free(e);
        TRY(choose_name(a, &here, name));
        e = ec2_attach_sync(a->ec2, t, id, a->instance, name);
        if (!e || t->kind != AWS_DEVICE_TAKEN)
            return e;
    }
    return e;
}

static struct err *say_full(struct aws *a, struct ec2_try *t, struct err *e)
{
    CLEANUP_AWS_VOLUMES struct aws_volumes here = {0};

    err_free(volumes_here(a, t, &here));
    t->kind = AWS_LIMIT;
    return err_wrap(e, "instance %s has %zu volumes, and can have no more", a->instance, here.n);
}

/* What is there is looked at only when a name is taken: that costs a call. */
static struct err *order_attachment(struct aws *a, const char *id, struct ec2_try *t)
{
    char name[AWS_NAME_SIZE];

    next_name(a, name);
    struct err *e = ec2_attach_sync(a->ec2, t, id, a->instance, name);

    if (e && t->kind == AWS_DEVICE_TAKEN) {
        err_free(e);
        e = try_other_names(a, id, t);
    }
    return e && t->kind == AWS_LIMIT ? say_full(a, t, e) : e;
}

/* Does it mean "look again", not "it cannot be"? */
static bool means_look_again(enum aws_failure_kind k)
{
    return k == AWS_IN_USE || k == AWS_WRONG_STATE || k == AWS_NOT_FOUND || k == AWS_TROUBLE;
}

static struct err *elsewhere(const struct aws_volume *v, const struct aws_attachment *other)
{
    return err_new(ERR_BUSY, "the volume %s is attached to %s%s", v->id, other->instance,
                   other->status == AWS_DETACHING ? " and being detached" : "");
}

static struct err *look(struct aws *a, struct wait *w, struct aws_volume *v)
{
    struct ec2_try t = aws_try(w);
    bool found;

    TRY(aws_look_again(a, &t, v->id, v, &found));
    if (!found) { /* by id: not visible yet, or deleted meanwhile */
        v->status = AWS_VOLUME_UNKNOWN;
        v->n_attachments = 0;
    }
    return NULL;
}

/* What `v`, seen just now, asks for. *ret_done: it is attached here. */
static struct err *attach_step(struct aws *a, struct wait *w, const struct aws_volume *v,
                               bool *ret_done)
{
    struct ec2_try t = aws_try(w);
    const struct aws_attachment *mine = aws_mine(a, v), *other = aws_others(a, v);

    if (other)
        return elsewhere(v, other);
    if (v->status == AWS_VOLUME_ERROR)
        return err_new(ERR_IO, "EC2 says that volume %s is in state error", v->id);
    *ret_done = mine && mine->status == AWS_ATTACHED;
    if (mine || v->status != AWS_VOLUME_AVAILABLE)
        return NULL;
    struct err *e = order_attachment(a, v->id, &t);

    if (e && means_look_again(t.kind)) {
        log_debug("%s", e->text);
        e = err_free(e);
    }
    if (!e)
        wait_soon(w);
    return e;
}

/* Gives a stuck attachment up, so that the next try begins anew. */
static struct err *stuck(struct aws *a, const struct aws_volume *v)
{
    const struct aws_attachment *mine = aws_mine(a, v);
    struct wait w = wait_for(BUSY_S);
    struct ec2_try t = aws_try(&w);

    if (mine && mine->status == AWS_ATTACHING)
        err_free(ec2_detach_sync(a->ec2, &t, v->id, a->instance));
    return err_new(
        ERR_TIMEOUT, "volume %s is still %s after %d seconds; it is tried again from the beginning",
        v->id, mine ? aws_attachment_status_name(mine->status) : aws_volume_status_name(v->status),
        ATTACH_S);
}

/* *ret_path NULL: it is not there. */
static struct err *find_device(struct aws *a, const struct aws_volume *v, char **ret_path)
{
    const struct aws_attachment *mine = aws_mine(a, v);
    CLEANUP_CLOSE int dir = -1;
    uint64_t grows_from = 0;

    TRY(notes_mark_dir(&a->notes, &v->dataset, /* create= */ false, &dir));
    if (dir >= 0)
        TRY(growth_read(dir, &grows_from));
    uint64_t least = grows_from && grows_from < v->size ? grows_from : v->size;

    return aws_disk_find(a->host_root, v->id, v->size, least, mine ? mine->device : "", ret_path);
}

static struct err *no_device(const struct aws *a, const struct aws_volume *v)
{
    const struct aws_attachment *mine = aws_mine(a, v);

    return err_new(
        ERR_UNAVAILABLE,
        "EC2 says that volume %s is attached to %s as %s, but no block device here has its serial "
        "number: is this that instance (compute_instance_id), and is host_root right?",
        v->id, a->instance, mine ? mine->device : "?");
}

static struct err *wait_device(struct aws *a, const struct aws_volume *v)
{
    struct wait w = wait_for_local(DEVICE_S);

    do {
        CLEANUP_FREE char *path = NULL;

        TRY(find_device(a, v, &path));
        if (path)
            return NULL;
    } while (wait_more(&w));
    return no_device(a, v);
}

struct err *aws_attach(void *cookie, const struct uuid *dataset)
{
    struct aws *a = cookie;
    struct wait w = wait_for(ATTACH_S);
    struct aws_volume v;
    bool found, done = false;

    TRY(aws_find(a, dataset, &v, &found));
    if (!found)
        return err_new(ERR_NOT_FOUND, "there is no volume of it in %s", a->region);
    TRY(notes_write(&a->notes, dataset, v.id));
    for (;;) {
        TRY(attach_step(a, &w, &v, &done));
        if (done)
            return wait_device(a, &v);
        if (!wait_more(&w))
            return stuck(a, &v);
        TRY(look(a, &w, &v));
    }
}

/* ---- using ---- */

struct err *aws_device(void *cookie, const struct uuid *dataset, char **ret_path)
{
    struct aws *a = cookie;
    struct aws_volume v;
    bool found;

    TRY(aws_find(a, dataset, &v, &found));
    if (!found || !aws_mine(a, &v))
        return err_new(ERR_NOT_FOUND, "the volume is not attached to this node");
    TRY(find_device(a, &v, ret_path));
    return *ret_path ? NULL : no_device(a, &v);
}

/* ---- detaching ---- */

struct detaching {
    const char *instance;
    struct wait wait;
    uint64_t busy_until; /* 0: EC2 has not said "busy" */
    uint64_t ordered_us; /* the last order that EC2 took; 0: none yet */
    bool done;
};

static const struct aws_attachment *attachment_to(const struct aws_volume *v, const char *instance)
{
    for (size_t i = 0; i < v->n_attachments; i++) {
        if (streq(v->attachments[i].instance, instance))
            return &v->attachments[i];
    }
    return NULL;
}

static struct err *order_detachment(struct aws *a, const char *id, struct detaching *d)
{
    struct ec2_try t = aws_try(&d->wait);
    struct err *e = ec2_detach_sync(a->ec2, &t, id, d->instance);

    if (e && !means_look_again(t.kind))
        return e;
    if (!e)
        d->ordered_us = now_os().mono_us;
    err_free(e);
    return NULL;
}

static struct err *check_busy(const struct aws_volume *v, struct detaching *d)
{
    uint64_t now = now_os().mono_us;

    if (!d->busy_until)
        d->busy_until = now + BUSY_S * (uint64_t)USEC_PER_SEC;
    if (now < d->busy_until)
        return NULL;
    return err_new(
        ERR_BUSY,
        "EC2 cannot detach volume %s: %s still uses it (unmount it there, nothing is forced)",
        v->id, d->instance);
}

/* EC2's looks may be behind an order for a moment. But an order to attach that a killed agent gave may come after all, later
 * than that to detach: so what stays attached is detached again. */
static bool wants_order(const struct detaching *d)
{
    return !d->ordered_us || now_os().mono_us >= d->ordered_us + ORDER_AGAIN_S * (uint64_t)USEC_PER_SEC;
}

static struct err *detach_step(struct aws *a, struct aws_volume *v, struct detaching *d)
{
    struct ec2_try t = aws_try(&d->wait);
    bool found;

    TRY(aws_look_again(a, &t, v->id, v, &found));
    const struct aws_attachment *its = found ? attachment_to(v, d->instance) : NULL;

    d->done = !its;
    if (!its)
        return NULL;
    if (its->status == AWS_ATTACHMENT_BUSY)
        return check_busy(v, d);
    return its->status == AWS_ATTACHED && wants_order(d) ? order_detachment(a, v->id, d) : NULL;
}

/* `v` is overwritten. */
static struct err *detach(struct aws *a, struct aws_volume *v, const char *instance)
{
    struct detaching d = {.instance = instance, .wait = wait_for(DETACH_S)};

    for (;;) {
        TRY(detach_step(a, v, &d));
        if (d.done)
            return NULL;
        if (!wait_more(&d.wait))
            return err_new(ERR_TIMEOUT, "volume %s is still attached to %s after %d seconds", v->id,
                           instance, DETACH_S);
    }
}

struct err *aws_detach(void *cookie, const struct uuid *dataset)
{
    struct aws *a = cookie;
    CLEANUP_FREE char *path = NULL;
    struct aws_volume v;
    bool found;

    TRY(aws_find(a, dataset, &v, &found));
    if (!found || !aws_mine(a, &v))
        return NULL;
    TRY(find_device(a, &v, &path));
    if (path)
        TRY(blockdev_settle(path));
    return detach(a, &v, a->instance);
}

/* ---- taking away ---- */

/* Only what EC2 itself calls stopped or terminated cannot write any more: not one that is stopping, nor one that EC2 does not know. */
static struct err *prove_off(struct aws *a, const struct aws_volume *v, const char *instance)
{
    CLEANUP_AWS_INSTANCES struct aws_instances found = {0};
    struct wait w = wait_for(LOOK_S);
    struct ec2_try t = aws_try(&w);
    const char *state = "unknown";

    TRY(ec2_instance_sync(a->ec2, &t, instance, &found));
    for (size_t i = 0; i < found.n; i++) {
        if (!streq(found.all[i].id, instance))
            continue;
        if (found.all[i].off)
            return NULL;
        state = found.all[i].state;
    }
    return err_new(
        ERR_BUSY,
        "volume %s is attached to instance %s, which is said to be off, but EC2 says that it is "
        "%s: stop it (aws ec2 stop-instances --force)",
        v->id, instance, state);
}

/* Which instance is that node's nothing tells here; it is the one that has the volume, as nodes get it one after the other. Should it be another
 * (attached by hand, or by an order that came through late), it is off as well, as EC2 itself says: nobody there writes, and nothing is cut off. */
struct err *aws_detach_from(void *cookie, const struct uuid *dataset, const struct uuid *node)
{
    struct aws *a = cookie;
    char instance[AWS_ID_SIZE];
    struct aws_volume v;
    bool found;

    TRY(aws_find(a, dataset, &v, &found));
    const struct aws_attachment *other = found ? aws_others(a, &v) : NULL;

    if (!other)
        return NULL;
    memcpy(instance, other->instance, sizeof(instance));
    TRY(prove_off(a, &v, instance));
    return detach(a, &v, instance);
}
