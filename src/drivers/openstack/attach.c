#include "base/log.h"
#include "base/now.h"
#include "drivers/blockdev.h"
#include "drivers/openstack/openstack.h"

#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#define ATTACH_S 600 /* as in Flocker 1 */
#define DETACH_S 600
#define DEVICE_S 60
#define REFUSALS_MAX 5u     /* "wrong state" may be over at the next look; not for ever */
#define UNFINISHED_LOOKS 6u /* so often an unfinished attachment is left to whoever makes it */
#define MINOR_ATTACH 54u    /* attachments without a server */

/* ---- calls ---- */

static struct err *change(struct openstack *o, enum os_service service, const char *method,
                          const char *path, json_t *body, const char *what, uint64_t deadline_us,
                          enum os_kind *ret_kind, json_t **ret_body)
{
    struct err *e = os_call_sync(o->cloud,
                                 &(struct os_call){.what = what,
                                                   .service = service,
                                                   .method = method,
                                                   .path = path,
                                                   .body = body,
                                                   .minor = service == OS_VOLUME ? MINOR_ATTACH : 0,
                                                   .once = !streq(method, "DELETE"),
                                                   .deadline_us = deadline_us},
                                 ret_kind, ret_body);

    json_decref(body);
    return e;
}

static struct err *look_up(struct openstack *o, enum os_service service, const char *path,
                           const char *what, uint64_t deadline_us, enum os_kind *ret_kind,
                           json_t **ret_body)
{
    return os_call_sync(o->cloud,
                        &(struct os_call){.what = what,
                                          .service = service,
                                          .method = "GET",
                                          .path = path,
                                          .minor = service == OS_VOLUME ? MINOR_ATTACH : 0,
                                          .deadline_us = deadline_us},
                        ret_kind, ret_body);
}

struct err *os_nova_has(struct openstack *o, const char *volume, uint64_t deadline_us,
                        bool *ret_has)
{
    CLEANUP_FREE char *path =
        xasprintf("/servers/%s/os-volume_attachments/%s", o->instance, volume);
    CLEANUP_FREE char *what = xasprintf("cannot ask Nova about volume %s", volume);
    enum os_kind kind;
    struct err *e = look_up(o, OS_COMPUTE, path, what, deadline_us, &kind, NULL);

    *ret_has = !e;
    if (e && kind == OS_NOT_FOUND)
        e = err_free(e);
    return e;
}

/* Who attaches it is written down first: of several volumes one that was used counts, and a node that is off is found by it. */
static struct err *write_node(struct openstack *o, const struct os_volume *v, uint64_t deadline_us)
{
    CLEANUP_FREE char *path = xasprintf("/volumes/%s/metadata", v->id);
    CLEANUP_FREE char *what = xasprintf("cannot write the metadata of volume %s", v->id);
    json_t *body;
    enum os_kind kind;

    if (uuid_eq(&v->node, &o->node))
        return NULL;
    body = json_pack("{s:{s:s}}", "metadata", OS_KEY_NODE, UUID_STR(&o->node));
    struct err *e = os_call_sync(o->cloud,
                                 &(struct os_call){.what = what,
                                                   .service = OS_VOLUME,
                                                   .method = "POST",
                                                   .path = path,
                                                   .body = body,
                                                   .deadline_us = deadline_us},
                                 &kind, NULL);

    json_decref(body);
    if (e && kind == OS_NOT_FOUND) { /* it is gone, which is seen next; or an old API */
        log_debug("%s", e->text);
        e = err_free(e);
    }
    return e;
}

/* ---- attachments of Cinder's own, for hosts outside Nova ---- */

static struct err *get_connection(struct openstack *o, const char *id, uint64_t deadline_us,
                                  struct os_connection *ret)
{
    CLEANUP_FREE char *path = xasprintf("/attachments/%s", id);
    struct os_link link;
    enum os_kind kind;
    json_t *body = NULL;

    TRY(look_up(o, OS_VOLUME, path, "cannot look at an attachment", deadline_us, &kind, &body));
    struct err *e = os_connection_parse(body, &link, ret);

    json_decref(body);
    return e;
}

static struct err *get_links(struct openstack *o, const char *volume, uint64_t deadline_us,
                             struct os_link ret[OS_ATTACHMENTS_MAX], size_t *ret_n)
{
    CLEANUP_FREE char *path = xasprintf("/attachments?volume_id=%s", volume);
    enum os_kind kind;
    json_t *body = NULL;

    TRY(look_up(o, OS_VOLUME, path, "cannot list attachments", deadline_us, &kind, &body));
    struct err *e = os_links_parse(body, ret, ret_n);

    json_decref(body);
    return e;
}

static struct err *delete_link(struct openstack *o, const char *id, uint64_t deadline_us)
{
    CLEANUP_FREE char *path = xasprintf("/attachments/%s", id);
    CLEANUP_FREE char *what = xasprintf("cannot end attachment %s", id);
    enum os_kind kind;
    struct err *e = change(o, OS_VOLUME, "DELETE", path, NULL, what, deadline_us, &kind, NULL);

    if (e && kind == OS_NOT_FOUND)
        e = err_free(e);
    return e;
}

struct err *os_clear_unfinished(struct openstack *o, const char *volume, uint64_t deadline_us)
{
    struct os_link links[OS_ATTACHMENTS_MAX];
    size_t n = 0;

    TRY(get_links(o, volume, deadline_us, links, &n));
    for (size_t i = 0; i < n; i++) {
        if (*links[i].server)
            return err_new(ERR_BUSY, "the volume %s is attached to server %s", volume,
                           links[i].server);
        if (links[i].complete)
            continue;
        log_info("volume %s: ends an attachment that was never finished (%s)", volume, links[i].id);
        TRY(delete_link(o, links[i].id, deadline_us));
    }
    return NULL;
}

static struct err *make_connector(struct openstack *o, json_t **ret)
{
    CLEANUP_FREE char *initiator = NULL;
    char host[HOST_NAME_MAX + 1] = "";

    TRY(os_host_initiator(o, &initiator));
    if (gethostname(host, sizeof(host) - 1) < 0 || !*host)
        (void)snprintf(host, sizeof(host), "%s", o->instance);
    /* The mountpoint is what Cinder shows of an attachment to everybody who may see the volume. */
    *ret = json_pack("{s:s, s:s, s:s, s:s, s:b, s:s, s:s*}", "host", host, "mountpoint",
                     o->instance, "os_type", "linux2", "platform", "x86_64", "multipath", 0, "ip",
                     driver_option_string(o->options, "storage_ip", "127.0.0.1"), "initiator",
                     initiator);
    return *ret ? NULL : err_new(ERR_INVALID, "the host's name is not UTF-8");
}

/* Unfinished until it is said to be complete: nothing uses it before. */
static struct err *order_link(struct openstack *o, const char *volume, uint64_t deadline_us,
                              enum os_kind *ret_kind)
{
    CLEANUP_FREE char *what = xasprintf("cannot attach volume %s", volume);
    CLEANUP_FREE char *path = NULL;
    struct os_link link;
    json_t *connector, *body = NULL;

    *ret_kind = OS_FAILED;
    TRY(make_connector(o, &connector));
    TRY(change(o, OS_VOLUME, "POST", "/attachments",
               json_pack("{s:{s:s, s:o, s:s}}", "attachment", "volume_uuid", volume, "connector",
                         connector, "mode", "rw"),
               what, deadline_us, ret_kind, &body));
    struct err *e = os_link_parse(body, &link);

    json_decref(body);
    TRY(e);
    path = xasprintf("/attachments/%s/action", link.id);
    return change(o, OS_VOLUME, "POST", path, json_pack("{s:{}}", "os-complete"), what, deadline_us,
                  ret_kind, NULL);
}

/* ---- attaching ---- */

static struct err *order_by_nova(struct openstack *o, const char *volume, uint64_t deadline_us,
                                 enum os_kind *ret_kind)
{
    CLEANUP_FREE char *path = xasprintf("/servers/%s/os-volume_attachments", o->instance);
    CLEANUP_FREE char *what =
        xasprintf("cannot attach volume %s to server %s", volume, o->instance);

    return change(o, OS_COMPUTE, "POST", path,
                  json_pack("{s:{s:s}}", "volumeAttachment", "volumeId", volume), what, deadline_us,
                  ret_kind, NULL);
}

static bool means_look_again(enum os_kind k)
{
    return k == OS_WRONG_STATE || k == OS_NOT_FOUND || k == OS_TROUBLE;
}

struct attaching {
    struct wait wait;
    unsigned refused, unfinished;
    bool done;
};

static struct err *order_attachment(struct openstack *o, const struct os_volume *v,
                                    struct attaching *a)
{
    enum os_kind kind;

    TRY(write_node(o, v, a->wait.deadline_us));
    struct err *e = o->by_cinder ? order_link(o, v->id, a->wait.deadline_us, &kind)
                                 : order_by_nova(o, v->id, a->wait.deadline_us, &kind);

    if (!e)
        wait_soon(&a->wait);
    if (!e || !means_look_again(kind) || (kind != OS_TROUBLE && ++a->refused > REFUSALS_MAX))
        return e;
    log_debug("%s", e->text);
    err_free(e);
    return NULL;
}

static struct err *attach_step(struct openstack *o, struct os_volume *v, struct attaching *a)
{
    bool found;

    TRY(os_look_again(o, v->id, a->wait.deadline_us, v, &found));
    if (!found)
        return err_new(ERR_NOT_FOUND, "volume %s is gone", v->id);
    const struct os_attachment *mine = os_mine(o, v), *other = os_others(o, v);

    if (other)
        return err_new(ERR_BUSY, "the volume %s is attached to %s", v->id, os_holder(other));
    if (v->status == OS_ERROR)
        return err_new(ERR_IO,
                       "Cinder says that volume %s is in state error: ask the operator of the "
                       "cloud why, and to reset the state",
                       v->id);
    /* When a growth failed, all else is as it was. */
    a->done = mine && (v->status == OS_IN_USE || v->status == OS_ERROR_EXTENDING);
    if (v->status == OS_AVAILABLE)
        return order_attachment(o, v, a);
    if (!mine && o->by_cinder && os_is_moving(v) && ++a->unfinished >= UNFINISHED_LOOKS) {
        a->unfinished = 0;
        return os_clear_unfinished(o, v->id, a->wait.deadline_us);
    }
    return NULL;
}

/* *ret_path NULL: it is not there. */
static struct err *find_device(struct openstack *o, const struct os_volume *v, char **ret_path)
{
    const struct os_attachment *mine = os_mine(o, v);
    struct os_connection c;
    struct wait w = wait_for(DEVICE_S);

    *ret_path = NULL;
    if (!mine)
        return NULL;
    if (!o->by_cinder)
        return os_disk_find(o->host_root, v->id, v->size, mine->device, ret_path);
    TRY(get_connection(o, mine->id, w.deadline_us, &c));
    struct err *e = os_host_connect(o, v, &c, ret_path);

    explicit_bzero(&c, sizeof(c));
    return e;
}

static struct err *no_device(const struct openstack *o, const struct os_volume *v)
{
    if (o->by_cinder)
        return err_new(
            ERR_UNAVAILABLE,
            "Cinder says that volume %s is attached to this host, but its device did not "
            "appear",
            v->id);
    return err_new(ERR_UNAVAILABLE,
                   "Nova says that volume %s is attached to %s, but no block device here has its "
                   "serial number: is this that server (compute_instance_id), and is host_root "
                   "right?",
                   v->id, o->instance);
}

static struct err *wait_device(struct openstack *o, const struct os_volume *v)
{
    struct wait w = wait_for(DEVICE_S);

    do {
        CLEANUP_FREE char *path = NULL;

        TRY(find_device(o, v, &path));
        if (path)
            return NULL;
    } while (wait_more(&w));
    return no_device(o, v);
}

struct err *os_attach(void *cookie, const struct uuid *dataset)
{
    struct openstack *o = cookie;
    struct attaching a = {.wait = wait_for(ATTACH_S)};
    struct os_volume v;
    bool found;

    TRY(os_find(o, dataset, &v, &found));
    if (!found)
        return err_new(ERR_NOT_FOUND, "Cinder has no volume of it");
    TRY(notes_write(&o->notes, dataset, v.id));
    do {
        TRY(attach_step(o, &v, &a));
        if (a.done)
            return wait_device(o, &v);
    } while (wait_more(&a.wait));
    return err_new(ERR_TIMEOUT, "volume %s is still %s after %d seconds", v.id, v.status_name,
                   ATTACH_S);
}

/* ---- using ---- */

struct err *os_device(void *cookie, const struct uuid *dataset, char **ret_path)
{
    struct openstack *o = cookie;
    struct os_volume v;
    bool found;

    TRY(os_find(o, dataset, &v, &found));
    if (!found || !os_mine(o, &v))
        return err_new(ERR_NOT_FOUND, "the volume is not attached to this node");
    TRY(find_device(o, &v, ret_path));
    return *ret_path ? NULL : no_device(o, &v);
}

/* ---- detaching ---- */

struct detaching {
    struct wait wait;
    unsigned refused;
    bool ordered, done;
};

static struct err *order_detachment(struct openstack *o, const struct os_volume *v,
                                    const struct os_attachment *from, struct detaching *d)
{
    CLEANUP_FREE char *path =
        xasprintf("/servers/%s/os-volume_attachments/%s", from->server, v->id);
    CLEANUP_FREE char *what = xasprintf("cannot detach volume %s from %s", v->id, os_holder(from));
    enum os_kind kind;

    if (!*from->server) {
        d->ordered = true;
        return delete_link(o, from->id, d->wait.deadline_us);
    }
    struct err *e =
        change(o, OS_COMPUTE, "DELETE", path, NULL, what, d->wait.deadline_us, &kind, NULL);

    if (e && (!means_look_again(kind) || (kind != OS_TROUBLE && ++d->refused > REFUSALS_MAX)))
        return e;
    d->ordered = !e;
    if (!e)
        wait_soon(&d->wait);
    err_free(e);
    return NULL;
}

/* Which attachment is it about: ours, or (holder not NULL) that one. */
static const struct os_attachment *find_attachment(const struct openstack *o,
                                                   const struct os_volume *v, const char *holder)
{
    if (!holder)
        return os_mine(o, v);
    for (size_t i = 0; i < v->n_attachments; i++) {
        if (streq(os_holder(&v->attachments[i]), holder))
            return &v->attachments[i];
    }
    return NULL;
}

static struct err *detach_step(struct openstack *o, struct os_volume *v, const char *holder,
                               struct detaching *d)
{
    bool found, moving = false;

    TRY(os_look_again(o, v->id, d->wait.deadline_us, v, &found));
    const struct os_attachment *a = found ? find_attachment(o, v, holder) : NULL;

    if (found && !a && !o->by_cinder && os_is_moving(v) && !holder)
        TRY(os_nova_has(o, v->id, d->wait.deadline_us, &moving));
    d->done = !a && !moving;
    if (!a || d->ordered || v->status == OS_DETACHING)
        return NULL;
    return order_detachment(o, v, a, d);
}

static struct err *detach(struct openstack *o, struct os_volume *v, const char *holder)
{
    struct detaching d = {.wait = wait_for(DETACH_S)};

    for (;;) {
        TRY(detach_step(o, v, holder, &d));
        if (d.done)
            return NULL;
        if (!wait_more(&d.wait))
            return err_new(ERR_TIMEOUT, "volume %s is still attached (%s) after %d seconds", v->id,
                           v->status_name, DETACH_S);
    }
}

/* What is on its way is detached, too: then it is not known yet whether there is a device. */
static struct err *settle(struct openstack *o, const struct os_volume *v)
{
    const struct os_attachment *mine = os_mine(o, v);
    CLEANUP_FREE char *path = NULL;
    struct wait w = wait_for(DEVICE_S);
    struct os_connection c;

    if (!mine)
        return NULL;
    if (!o->by_cinder) {
        TRY(os_disk_find(o->host_root, v->id, v->size, mine->device, &path));
        return path ? blockdev_settle(path) : NULL;
    }
    TRY(get_connection(o, mine->id, w.deadline_us, &c));
    struct err *e = os_host_disconnect(o, v, &c);

    explicit_bzero(&c, sizeof(c));
    return e;
}

struct err *os_detach(void *cookie, const struct uuid *dataset)
{
    struct openstack *o = cookie;
    struct os_volume v;
    bool found;

    TRY(os_find(o, dataset, &v, &found));
    if (!found || v.status == OS_AVAILABLE)
        return NULL;
    TRY(settle(o, &v));
    return detach(o, &v, NULL);
}

/* ---- of a node that is off ---- */

/* Nova's states of servers whose processor does not run. */
static bool is_off(const char *status)
{
    static const char *const off[] = {
        "SHUTOFF", "ERROR", "DELETED", "SOFT_DELETED", "SHELVED", "SHELVED_OFFLOADED", "UNKNOWN"};

    for (size_t i = 0; i < ARRAY_SIZE(off); i++) {
        if (streq(off[i], status))
            return true;
    }
    return false;
}

static struct err *check_off(struct openstack *o, const char *server)
{
    CLEANUP_FREE char *path = xasprintf("/servers/%s", server);
    struct wait w = wait_for(DEVICE_S);
    char status[OS_NAME_SIZE];
    enum os_kind kind;
    json_t *body = NULL;
    struct err *e =
        look_up(o, OS_COMPUTE, path, "cannot look at the server", w.deadline_us, &kind, &body);

    if (e && kind == OS_NOT_FOUND)
        return err_free(e), NULL;
    if (!e)
        e = os_server_status(body, status);
    json_decref(body);
    if (e || is_off(status))
        return e;
    return err_new(ERR_BUSY, "Nova says that server %s is %s, though it is said to be off: stop it",
                   server, status);
}

struct err *os_detach_from(void *cookie, const struct uuid *dataset, const struct uuid *node)
{
    struct openstack *o = cookie;
    char holder[OS_NAME_SIZE];
    struct os_volume v;
    bool found;

    TRY(os_find(o, dataset, &v, &found));
    const struct os_attachment *other = found ? os_others(o, &v) : NULL;

    if (!other ||
        (*other->server ? !uuid_eq(&v.node, node) : !streq(other->device, UUID_STR(node))))
        return NULL;
    if (*other->server)
        TRY(check_off(o, other->server));
    (void)snprintf(holder, sizeof(holder), "%s", os_holder(other));
    return detach(o, &v, holder);
}
