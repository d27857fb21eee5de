#include "drivers/xtremio/host.h"

#include "base/log.h"
#include "base/str.h"
#include "drivers/durable.h"
#include "drivers/iscsi.h"
#include "drivers/sysfs.h"
#include "drivers/xtremio/disk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define INITIATOR_FILE "etc/iscsi/initiatorname.iscsi"
#define INITIATOR_MAX 4096u
#define REMOTE_PORTS "class/fc_remote_ports"

static void text_in(const char *root, const char *folder, const char *name, const char *attribute,
                    char ret[SYSFS_TEXT_SIZE])
{
    CLEANUP_FREE char *path = xasprintf("%s/%s/%s", folder, name, attribute);

    (void)sysfs_text(root, path, ret);
}

/* ---- ports ---- */

void xtremio_ports_done(struct xtremio_ports *p)
{
    free(p->all);
    *p = (struct xtremio_ports){0};
}

bool xtremio_ports_has(const struct xtremio_ports *p, const char *port)
{
    for (size_t i = 0; i < p->n; i++) {
        if (streq(p->all[i], port))
            return true;
    }
    return false;
}

static void ports_add(struct xtremio_ports *p, const char *port)
{
    p->all = mem_grow(p->all, p->n, &p->cap, sizeof(*p->all));
    memcpy(p->all[p->n++], port, strlen(port) + 1);
}

struct port_search {
    const char *root;
    struct xtremio_ports ports;
};

static struct err *add_fc_port(void *cookie, const char *name)
{
    struct port_search *s = cookie;
    char text[SYSFS_TEXT_SIZE], port[XTREMIO_PORT_SIZE];

    text_in(s->root, "class/fc_host", name, "port_name", text);
    if (xtremio_port_normalize(text, port))
        ports_add(&s->ports, port);
    return NULL;
}

static struct err *add_iqn(struct port_search *s)
{
    CLEANUP_FREE char *folder = xasprintf("%s/", s->root);
    CLEANUP_CLOSE int fd = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    CLEANUP_FREE char *text = NULL;
    char port[XTREMIO_PORT_SIZE];

    if (fd < 0)
        return err_errno(errno, "cannot open %s", folder);
    TRY(file_read(fd, INITIATOR_FILE, INITIATOR_MAX, &text));
    if (text && xtremio_initiatorname_parse(text, port))
        ports_add(&s->ports, port);
    return NULL;
}

struct err *xtremio_host_ports(const char *root, enum xtremio_protocol protocol,
                               struct xtremio_ports *ret_ports)
{
    struct port_search s = {.root = root};
    struct err *e =
        protocol == XTREMIO_FC ? sysfs_each(root, "class/fc_host", add_fc_port, &s) : add_iqn(&s);

    if (e)
        xtremio_ports_done(&s.ports);
    else
        *ret_ports = s.ports;
    return e;
}

/* ---- the array ---- */

static bool has_target(const struct xtremio_targets *t, const char *port)
{
    char normal[XTREMIO_PORT_SIZE];

    if (!xtremio_port_normalize(port, normal))
        return false;
    for (size_t i = 0; i < t->n; i++) {
        if (streq(t->all[i].port, normal))
            return true;
    }
    return false;
}

struct err *xtremio_host_login(const char *root, const struct xtremio_targets *targets)
{
    CLEANUP_ERR struct err *last = NULL;
    bool any = false;

    for (size_t i = 0; i < targets->n; i++) {
        bool there;

        const struct xtremio_target *t = &targets->all[i];

        TRY(iscsi_has_session(root, t->port, &there));
        if (!there) {
            /* CHAP is that of iscsid.conf. */
            struct err *e = iscsi_login(root, &(struct iscsi_target){.iqn = t->port, .portal = t->portal});

            if (e)
                log_warning("%s", e->text);
            there = !e;
            err_free(last);
            last = e;
        }
        any = any || there;
    }
    if (any)
        return NULL;
    if (last)
        return steal(&last);
    return err_new(ERR_UNAVAILABLE,
                   "the array has no iSCSI portal (set protocol: fc, or give it portals)");
}

/* ---- scans ---- */

struct scan {
    const char *root;
    const struct xtremio_targets *targets;
    unsigned lun, n;
    struct err *last;
};

static void scan_host(struct scan *s, unsigned host, const char *channel, const char *target)
{
    CLEANUP_FREE char *path = xasprintf("class/scsi_host/host%u/scan", host);
    CLEANUP_FREE char *what = xasprintf("%s %s %u", channel, target, s->lun);
    struct err *e = sysfs_write(s->root, path, what);

    s->n += !e;
    if (e) {
        err_free(s->last);
        s->last = e;
    }
}

static void scan_sessions(struct scan *s)
{
    for (size_t i = 0; i < s->targets->n; i++) {
        unsigned n = 0;
        struct err *e = iscsi_scan(s->root, s->targets->all[i].port, s->lun, &n);

        s->n += n;
        if (e) {
            err_free(s->last);
            s->last = e;
        }
    }
}

/* rport-8:0-3: host 8, channel 0. */
static struct err *scan_remote_port(void *cookie, const char *name)
{
    struct scan *s = cookie;
    char text[SYSFS_TEXT_SIZE], target[SYSFS_TEXT_SIZE], channel[12];
    unsigned host, bus;

    text_in(s->root, REMOTE_PORTS, name, "port_name", text);
    text_in(s->root, REMOTE_PORTS, name, "scsi_target_id", target);
    if (!has_target(s->targets, text) || sscanf(name, "rport-%u:%u-", &host, &bus) != 2 ||
        !*target || target[strspn(target, "0123456789")])
        return NULL; /* -1: a port that is gone */
    (void)snprintf(channel, sizeof(channel), "%u", bus);
    scan_host(s, host, channel, target);
    return NULL;
}

struct err *xtremio_host_scan(const char *root, enum xtremio_protocol protocol,
                              const struct xtremio_targets *targets, unsigned lun)
{
    struct scan s = {.root = root, .targets = targets, .lun = lun};
    struct err *e = NULL;

    if (protocol == XTREMIO_FC)
        e = sysfs_each(root, REMOTE_PORTS, scan_remote_port, &s);
    else
        scan_sessions(&s);
    if (!e && !s.n)
        e = s.last
                ? steal(&s.last)
                : err_new(
                      ERR_UNAVAILABLE,
                      protocol == XTREMIO_FC
                          ? "no Fibre Channel port of this node sees a port of the array: check "
                            "cables and zones"
                          : "this node has no iSCSI session with the array: log in with iscsiadm, "
                            "or set iscsi_login: true");
    err_free(s.last);
    return e;
}
