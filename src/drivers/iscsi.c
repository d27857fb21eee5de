#include "drivers/iscsi.h"

#include "base/now.h"
#include "base/str.h"
#include "drivers/durable.h"
#include "drivers/sysfs.h"
#include "exec/exec.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <strings.h>
#include <unistd.h>

#define CALL_US (20 * (uint64_t)USEC_PER_SEC)
#define SESSIONS "class/iscsi_session"
/* Exit statuses of iscsiadm(8). */
#define IS_THERE 15     /* a session exists already */
#define IS_NOT_THERE 21 /* no session, no record */

/* ---- sessions ---- */

static bool is_of_target(const char *root, const char *session, const char *iqn)
{
    CLEANUP_FREE char *path = xasprintf(SESSIONS "/%s/targetname", session);
    char text[SYSFS_TEXT_SIZE];

    (void)sysfs_text(root, path, text);
    return strcasecmp(text, iqn) == 0;
}

struct session_search {
    const char *root, *iqn;
    unsigned lun, n;
    struct err *last;
};

static struct err *count_session(void *cookie, const char *name)
{
    struct session_search *s = cookie;

    s->n += is_of_target(s->root, name, s->iqn);
    return NULL;
}

struct err *iscsi_has_session(const char *root, const char *iqn, bool *ret)
{
    struct session_search s = {.root = root, .iqn = iqn};

    TRY(sysfs_each(root, SESSIONS, count_session, &s));
    *ret = s.n;
    return NULL;
}

/* ---- iscsiadm ---- */

/* `fine`: an exit status that is as good as 0. */
static struct err *iscsiadm(const struct iscsi_target *t, const char *const *more, int fine)
{
    const char *argv[16] = {"iscsiadm", "-m", "node", "-T", t->iqn, "-p", t->portal};
    CLEANUP_EXEC struct exec_result r = {0};

    for (size_t n = 7; *more; more++)
        argv[n++] = *more;
    TRY(exec_run(&(struct exec_request){.argv = argv, .timeout_us = CALL_US, .any_exit = true}, &r));
    if (r.status == 0 || r.status == fine)
        return NULL;
    return err_new(ERR_IO, "iscsiadm: %s (exit status %d)", *r.err_text ? r.err_text : "it says nothing", r.status);
}

static struct err *append(int folder, const char *file, const char *text)
{
    CLEANUP_CLOSE int fd = openat(folder, file, O_WRONLY | O_APPEND | O_NOFOLLOW | O_CLOEXEC);

    if (fd < 0)
        return err_errno(errno, "cannot open the record");
    return dprintf(fd, "%s", text) < 0 ? err_errno(errno, "cannot write to the record") : NULL;
}

/* A record is a file of the portal's name, or in a folder with the portal group at the end of the name. */
static struct err *append_to_record(int target, const char *name, const char *text)
{
    CLEANUP_CLOSE int folder = openat(target, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

    if (folder < 0)
        return errno == ENOTDIR ? append(target, name, text) : err_errno(errno, "cannot open the record");
    CLEANUP_DIR DIR *d = dir_stream(folder);
    const char *file;

    if (!d)
        return err_errno(errno, "cannot list the records");
    while ((file = dir_next(d)))
        TRY(append(folder, file, text));
    return NULL;
}

/* "10.0.0.5,3260" as records are called. */
static char *record_name(const char *portal)
{
    const char *colon = strrchr(portal, ':');
    size_t n = colon ? (size_t)(colon - portal) : strlen(portal);
    bool braces = n > 2 && *portal == '[' && portal[n - 1] == ']';

    return xasprintf("%.*s,%s", (int)(braces ? n - 2 : n), portal + braces, colon ? colon + 1 : "3260");
}

static bool is_record_of(const char *name, const char *record)
{
    size_t n = strlen(record);

    return strncmp(name, record, n) == 0 && (!name[n] || name[n] == ',');
}

/* Of a setting that stands there twice iscsiadm takes the last one. */
static struct err *set_chap(const char *root, const struct iscsi_target *t)
{
    static const char *const folders[] = {"etc/iscsi/nodes", "var/lib/iscsi/nodes"}; /* as it was built */
    CLEANUP_FREE char *text = xasprintf("node.session.auth.authmethod = CHAP\nnode.session.auth.username = %s\n"
                                        "node.session.auth.password = %s\n",
                                        t->chap_user, t->chap_password);
    CLEANUP_FREE char *record = record_name(t->portal);
    struct err *e = NULL;
    unsigned found = 0;

    for (size_t i = 0; !e && i < ARRAY_SIZE(folders); i++) {
        CLEANUP_FREE char *path = xasprintf("%s/%s/%s", root, folders[i], t->iqn);
        CLEANUP_CLOSE int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        CLEANUP_DIR DIR *d = fd < 0 ? NULL : dir_stream(fd);
        const char *name;

        while (!e && d && (name = dir_next(d))) {
            if (!is_record_of(name, record))
                continue;
            e = append_to_record(fd, name, text);
            found++;
        }
    }
    explicit_bzero(text, strlen(text));
    if (!e && !found)
        e = err_new(ERR_IO, "iscsiadm made no record that the password could be written to (in /etc/iscsi/nodes or /var/lib/iscsi/nodes)");
    return e;
}

static struct err *log_in(const char *root, const struct iscsi_target *t)
{
    static const char *const record[][7] = {
        {"-o", "new"},
        {"-o", "update", "-n", "node.startup", "-v", "manual"},
        {"-o", "update", "-n", "node.session.scan", "-v", "manual"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(record); i++)
        TRY(iscsiadm(t, record[i], 0));
    if (t->chap_user)
        TRY(set_chap(root, t));
    return iscsiadm(t, (const char *const[]){"--login", NULL}, IS_THERE);
}

struct err *iscsi_login(const char *root, const struct iscsi_target *t)
{
    struct err *e = log_in(root, t);

    if (e)
        err_free(iscsiadm(t, (const char *const[]){"-o", "delete", NULL}, IS_NOT_THERE));
    return err_wrap(e, "cannot log in to %s at %s", t->iqn, t->portal);
}

struct err *iscsi_logout(const struct iscsi_target *t)
{
    TRY(err_wrap(iscsiadm(t, (const char *const[]){"--logout", NULL}, IS_NOT_THERE), "cannot log out of %s at %s",
                 t->iqn, t->portal));
    return err_wrap(iscsiadm(t, (const char *const[]){"-o", "delete", NULL}, IS_NOT_THERE),
                    "cannot remove the record of %s at %s", t->iqn, t->portal);
}

/* ---- LUNs ---- */

/* The kernel looks for nothing in a session that is not up, and says nothing of it. */
static bool is_up(struct session_search *s, const char *session)
{
    CLEANUP_FREE char *path = xasprintf(SESSIONS "/%s/state", session);
    char state[SYSFS_TEXT_SIZE];

    if (!sysfs_text(s->root, path, state) || streq(state, "LOGGED_IN"))
        return true;
    err_free(s->last);
    s->last = err_new(ERR_UNAVAILABLE,
                      "the iSCSI session with %s is down (%s): is its portal reached? iscsid connects again when it is", s->iqn,
                      state);
    return false;
}

/* class/iscsi_session/session1 leads to .../host2/session1/iscsi_session/session1. */
static struct err *scan_session(void *cookie, const char *name)
{
    struct session_search *s = cookie;
    CLEANUP_FREE char *path = xasprintf("%s/sys/" SESSIONS "/%s", s->root, name);
    char link[PATH_MAX];
    ssize_t n = readlink(path, link, sizeof(link) - 1);
    unsigned host;

    if (n < 0 || !is_of_target(s->root, name, s->iqn))
        return NULL;
    link[n] = '\0';
    const char *at = strstr(link, "/host");

    if (!is_up(s, name))
        return NULL;
    if (!at || sscanf(at, "/host%u/", &host) != 1)
        return NULL;
    CLEANUP_FREE char *scan = xasprintf("class/scsi_host/host%u/scan", host);
    CLEANUP_FREE char *what = xasprintf("0 - %u", s->lun);
    struct err *e = sysfs_write(s->root, scan, what);

    s->n += !e;
    if (e) {
        err_free(s->last);
        s->last = e;
    }
    return NULL;
}

struct err *iscsi_scan(const char *root, const char *iqn, unsigned lun, unsigned *ret_n)
{
    struct session_search s = {.root = root, .iqn = iqn, .lun = lun};
    struct err *e = sysfs_each(root, SESSIONS, scan_session, &s);

    *ret_n = s.n;
    if (!e && !s.n && s.last)
        return s.last;
    err_free(s.last);
    return e;
}

struct disk_of {
    const char *root, *iqn;
    bool any; /* LUN */
    unsigned lun;
    char *name;
};

/* block/sdb leads to .../host2/session1/target2:0:0/2:0:0:1/block/sdb. */
static struct err *look_at_disk(void *cookie, const char *name)
{
    struct disk_of *s = cookie;
    CLEANUP_FREE char *path = xasprintf("%s/sys/block/%s", s->root, name);
    char link[PATH_MAX], session[32];
    ssize_t n = readlink(path, link, sizeof(link) - 1);
    unsigned number, lun;

    if (s->name || n < 0)
        return NULL;
    link[n] = '\0';
    const char *at = strstr(link, "/session"), *device = at ? strstr(at, "/block/") : NULL;

    while (device && device > at && device[-1] != '/')
        device--;
    if (!device || sscanf(at, "/session%u/", &number) != 1 || sscanf(device, "%*u:%*u:%*u:%u/", &lun) != 1)
        return NULL;
    (void)snprintf(session, sizeof(session), "session%u", number);
    if ((s->any || lun == s->lun) && is_of_target(s->root, session, s->iqn))
        s->name = xstrdup(name);
    return NULL;
}

struct err *iscsi_disk(const char *root, const char *iqn, unsigned lun, char **ret_name)
{
    struct disk_of s = {.root = root, .iqn = iqn, .lun = lun};
    struct err *e = sysfs_each(root, "block", look_at_disk, &s);

    *ret_name = s.name;
    return e;
}

struct err *iscsi_has_disks(const char *root, const char *iqn, bool *ret)
{
    struct disk_of s = {.root = root, .iqn = iqn, .any = true};
    struct err *e = sysfs_each(root, "block", look_at_disk, &s);

    *ret = s.name;
    free(s.name);
    return e;
}
