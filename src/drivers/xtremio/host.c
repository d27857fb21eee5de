#include "drivers/xtremio/host.h"

#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "drivers/durable.h"
#include "drivers/sysfs.h"
#include "drivers/xtremio/disk.h"
#include "exec/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <unistd.h>

#define INITIATOR_FILE "etc/iscsi/initiatorname.iscsi"
#define INITIATOR_MAX 4096u
#define LOGIN_US (20 * (uint64_t)USEC_PER_SEC)
#define SESSIONS "class/iscsi_session"
#define REMOTE_PORTS "class/fc_remote_ports"

/* ---- the names in a folder of sysfs ---- */

typedef struct err *each_fn(void *cookie, const char *name);

/* A folder that is not there has no names: the kernel has no such thing. */
static struct err *each(const char *root, const char *path, each_fn *fn, void *cookie)
{
    CLEANUP_FREE char *whole = xasprintf("%s/sys/%s", root, path);
    CLEANUP_CLOSE int fd = open(whole, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT ? NULL : err_errno(errno, "cannot open %s", whole);
    CLEANUP_DIR DIR *d = dir_stream(fd);
    const char *name;

    if (!d)
        return err_errno(errno, "cannot list %s", whole);
    while ((name = dir_next(d)))
        TRY(fn(cookie, name));
    return NULL;
}

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
        protocol == XTREMIO_FC ? each(root, "class/fc_host", add_fc_port, &s) : add_iqn(&s);

    if (e)
        xtremio_ports_done(&s.ports);
    else
        *ret_ports = s.ports;
    return e;
}

/* ---- sessions of iSCSI ---- */

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

struct session_search {
    const char *root, *target;
    bool found;
};

static struct err *is_session_of(void *cookie, const char *name)
{
    struct session_search *s = cookie;
    char text[SYSFS_TEXT_SIZE], port[XTREMIO_PORT_SIZE];

    text_in(s->root, SESSIONS, name, "targetname", text);
    s->found = s->found || (xtremio_port_normalize(text, port) && streq(port, s->target));
    return NULL;
}

static struct err *has_session(const char *root, const char *target, bool *ret)
{
    struct session_search s = {.root = root, .target = target};

    TRY(each(root, SESSIONS, is_session_of, &s));
    *ret = s.found;
    return NULL;
}

static struct err *iscsiadm(const struct xtremio_target *t, const char *const *more)
{
    const char *argv[16] = {"iscsiadm", "-m", "node", "-T", t->port, "-p", t->portal};

    for (size_t n = 7; *more; more++)
        argv[n++] = *more;
    return exec_run(&(struct exec_request){.argv = argv, .timeout_us = LOGIN_US}, NULL);
}

/* The record takes all but these from iscsid.conf, CHAP included: a secret has no business in an argument. Nothing is logged in to or scanned
 * by itself, so that after a reboot no LUN comes that is not asked for. */
static struct err *login(const struct xtremio_target *t)
{
    static const char *const steps[][6] = {
        {"-o", "new"},
        {"-o", "update", "-n", "node.startup", "-v", "manual"},
        {"-o", "update", "-n", "node.session.scan", "-v", "manual"},
        {"--login"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(steps); i++) {
        const char *args[7] = {0};

        memcpy(args, steps[i], sizeof(steps[i]));
        TRY(err_wrap(iscsiadm(t, args), "cannot log in to %s at %s", t->port, t->portal));
    }
    return NULL;
}

struct err *xtremio_host_login(const char *root, const struct xtremio_targets *targets)
{
    CLEANUP_ERR struct err *last = NULL;
    bool any = false;

    for (size_t i = 0; i < targets->n; i++) {
        bool there;

        TRY(has_session(root, targets->all[i].port, &there));
        if (!there) {
            struct err *e = login(&targets->all[i]);

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

/* class/iscsi_session/session1 leads to .../host2/session1/iscsi_session/session1. */
static struct err *scan_session(void *cookie, const char *name)
{
    struct scan *s = cookie;
    char text[SYSFS_TEXT_SIZE], link[PATH_MAX];
    CLEANUP_FREE char *path = xasprintf("%s/sys/" SESSIONS "/%s", s->root, name);
    ssize_t n = readlink(path, link, sizeof(link) - 1);
    unsigned host;

    text_in(s->root, SESSIONS, name, "targetname", text);
    if (n < 0 || !has_target(s->targets, text))
        return NULL;
    link[n] = '\0';
    const char *at = strstr(link, "/host");

    if (at && sscanf(at, "/host%u/", &host) == 1)
        scan_host(s, host, "0", "-");
    return NULL;
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
    struct err *e = protocol == XTREMIO_FC ? each(root, REMOTE_PORTS, scan_remote_port, &s)
                                           : each(root, SESSIONS, scan_session, &s);

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
