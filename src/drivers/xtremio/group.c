/* The initiator group of a node: who is in it sees the volumes that are mapped to it. */
#include "base/log.h"
#include "base/str.h"
#include "drivers/xtremio/xtremio.h"

#include <openssl/sha.h>
#include <stdio.h>

#define GROUP_S 60

/* Initiators that we make are named after the node, so that others find its group when it is off. */
static char *initiator_prefix(const struct uuid *node)
{
    return xasprintf("flocker-%s-", UUID_STR(node));
}

/* A node may get other ports in its life: each has a name of its own. */
static char *initiator_name(const struct uuid *node, const char *port)
{
    CLEANUP_FREE char *head = initiator_prefix(node);
    unsigned char sum[SHA256_DIGEST_LENGTH];

    (void)SHA256((const unsigned char *)port, strlen(port), sum);
    return xasprintf("%s%02x%02x%02x%02x", head, sum[0], sum[1], sum[2], sum[3]);
}

/* The ports of both protocols: what may be in our group. */
struct own_ports {
    struct xtremio_ports used, other;
};

static void own_ports_done(struct own_ports *o)
{
    xtremio_ports_done(&o->used);
    xtremio_ports_done(&o->other);
}

static struct err *own_ports_read(const struct xtremio *x, struct own_ports *o)
{
    TRY(xtremio_host_ports(x->host_root, x->protocol, &o->used));
    TRY(xtremio_host_ports(x->host_root, x->protocol == XTREMIO_FC ? XTREMIO_ISCSI : XTREMIO_FC,
                           &o->other));
    if (o->used.n)
        return NULL;
    return err_new(ERR_UNAVAILABLE, x->protocol == XTREMIO_FC
                                        ? "this node has no Fibre Channel port (none in "
                                          "/sys/class/fc_host); with iSCSI, set protocol: iscsi"
                                        : "this node has no iSCSI name (no InitiatorName in "
                                          "/etc/iscsi/initiatorname.iscsi): install open-iscsi; "
                                          "with Fibre Channel, set protocol: fc");
}

/* *ret_group stays NULL when none of our ports is known to the array. */
static struct err *group_of_ports(const struct xtremio_initiators *all,
                                  const struct xtremio_ports *ports, const char **ret_group)
{
    *ret_group = NULL;
    for (size_t i = 0; i < all->n; i++) {
        if (!xtremio_ports_has(ports, all->all[i].port))
            continue;
        if (*ret_group && !streq(*ret_group, all->all[i].group))
            return err_new(
                ERR_INVALID,
                "the ports of this node are in two initiator groups, %s and %s: put them into one",
                *ret_group, all->all[i].group);
        *ret_group = all->all[i].group;
    }
    return NULL;
}

/* What is mapped to the group would be seen by a host that is not this one. */
static struct err *check_alone(const struct xtremio_initiators *all, const struct own_ports *own,
                               const char *group)
{
    for (size_t i = 0; i < all->n; i++) {
        const struct xtremio_initiator *in = &all->all[i];

        if (streq(in->group, group) && !xtremio_ports_has(&own->used, in->port) &&
            !xtremio_ports_has(&own->other, in->port))
            return err_new(ERR_INVALID,
                           "initiator group %s also has the port %s, which is not this node's: "
                           "each node needs a group of its own "
                           "(two hosts with one name? then set compute_instance_id)",
                           group, in->port);
    }
    return NULL;
}

static bool is_known(const struct xtremio_initiators *all, const char *port)
{
    for (size_t i = 0; i < all->n; i++) {
        if (streq(all->all[i].port, port))
            return true;
    }
    return false;
}

/* "Not unique" means that it is done already, or that somebody has the name: looked at afterwards. */
static struct err *unless_there(struct err *e, const struct xms_try *t)
{
    return e && t->kind == XTREMIO_NOT_UNIQUE ? err_free(e) : e;
}

static struct err *add_ports(struct xtremio *x, struct xms_try *t,
                             const struct xtremio_initiators *all,
                             const struct xtremio_ports *ports, const char *group)
{
    for (size_t i = 0; i < ports->n; i++) {
        CLEANUP_FREE char *name = initiator_name(&x->node, ports->all[i]);

        if (is_known(all, ports->all[i]))
            continue;
        TRY(unless_there(xms_initiator_create_sync(x->xms, t, name, ports->all[i], group), t));
        log_info("added the port %s of this node to initiator group %s of the array", ports->all[i],
                 group);
    }
    return NULL;
}

static struct err *all_there(const struct xtremio_initiators *all, const struct own_ports *own,
                             const char *group)
{
    for (size_t i = 0; i < own->used.n; i++) {
        if (!is_known(all, own->used.all[i]))
            return err_new(
                ERR_UNAVAILABLE,
                "the array does not show the port %s that was added to initiator group %s",
                own->used.all[i], group);
    }
    return check_alone(all, own, group);
}

static struct err *ensure(struct xtremio *x, const struct own_ports *own, const char *wanted,
                          char **ret_group)
{
    CLEANUP_XTREMIO_INITIATORS struct xtremio_initiators before = {0}, after = {0};
    struct xms_try t = xms_try_for(GROUP_S);
    const char *group, *now;

    TRY(xms_initiators_sync(x->xms, &t, &before));
    TRY(group_of_ports(&before, &own->used, &group));
    if (!group) {
        TRY(check_alone(&before, own, wanted));
        TRY(unless_there(xms_group_create_sync(x->xms, &t, wanted), &t));
        group = wanted;
    }
    TRY(check_alone(&before, own, group));
    TRY(add_ports(x, &t, &before, &own->used, group));
    TRY(xms_initiators_sync(x->xms, &t, &after));
    TRY(group_of_ports(&after, &own->used, &now));
    TRY(all_there(&after, own, group));
    *ret_group = xstrdup(now);
    return NULL;
}

struct err *xtremio_group_ensure(struct xtremio *x, const char *wanted, char **ret_group)
{
    struct own_ports own = {0};
    struct err *e = own_ports_read(x, &own);

    if (!e)
        e = ensure(x, &own, wanted, ret_group);
    own_ports_done(&own);
    return e;
}

struct err *xtremio_group_of(struct xtremio *x, const struct uuid *node, char **ret_group)
{
    CLEANUP_XTREMIO_INITIATORS struct xtremio_initiators all = {0};
    CLEANUP_FREE char *head = initiator_prefix(node);
    struct xms_try t = xms_try_for(GROUP_S);

    *ret_group = NULL;
    TRY(xms_initiators_sync(x->xms, &t, &all));
    for (size_t i = 0; i < all.n && !*ret_group; i++) {
        if (str_has_prefix(all.all[i].name, head))
            *ret_group = xstrdup(all.all[i].group);
    }
    return NULL;
}
