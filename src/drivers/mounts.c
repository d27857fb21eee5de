#include "drivers/mounts.h"

#include "base/str.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

/* glibc's <sys/mount.h> and the kernel's <linux/mount.h> cannot be included together in Debian 12's
 * versions. */
int umount2(const char *target, int flags);
#define UMOUNT_NOFOLLOW 8

#define TABLE_MAX (64u << 20) /* bytes of one mountinfo file: some 300,000 mounts */

/* ---- parser ---- */

struct cursor {
    const char *p, *end;
};

/* The next field, up to a single space; empty when there is none. */
static struct cursor next_field(struct cursor *c)
{
    struct cursor f = {c->p, c->p};

    while (f.end < c->end && *f.end != ' ')
        f.end++;
    c->p = f.end < c->end ? f.end + 1 : f.end;
    return f;
}

static bool to_uint(const char **p, const char *end, unsigned *ret)
{
    unsigned v = 0;
    const char *from = *p;

    for (; *p < end && **p >= '0' && **p <= '9'; (*p)++) {
        if (__builtin_mul_overflow(v, 10u, &v) ||
            __builtin_add_overflow(v, (unsigned)(**p - '0'), &v))
            return false;
    }
    *ret = v;
    return *p > from;
}

static bool octal(const char *p)
{
    return p[0] == '\\' && p[1] >= '0' && p[1] <= '3' && p[2] >= '0' && p[2] <= '7' &&
           p[3] >= '0' && p[3] <= '7';
}

/* The kernel writes space, tab, line end and backslash (and '#') as \ooo. */
static char *unescape(struct cursor f)
{
    char *out = xmalloc((size_t)(f.end - f.p) + 1);
    size_t n = 0;

    while (f.p < f.end) {
        if (f.end - f.p >= 4 && octal(f.p)) {
            out[n++] = (char)((f.p[1] - '0') << 6 | (f.p[2] - '0') << 3 | (f.p[3] - '0'));
            f.p += 4;
        } else {
            out[n++] = *f.p++;
        }
    }
    out[n] = '\0';
    return out;
}

static bool parse_numbers(struct cursor *c, struct mount_entry *m)
{
    struct cursor id = next_field(c), parent = next_field(c), dev = next_field(c);
    unsigned v, unused;

    if (!to_uint(&id.p, id.end, &v) || id.p != id.end || v > INT_MAX)
        return false;
    m->id = (int)v;
    if (!to_uint(&parent.p, parent.end, &unused) || parent.p != parent.end)
        return false;
    if (!to_uint(&dev.p, dev.end, &m->major) || dev.p == dev.end || *dev.p++ != ':')
        return false;
    return to_uint(&dev.p, dev.end, &m->minor) && dev.p == dev.end;
}

bool mount_line_parse(const char *line, size_t n, struct mount_entry *ret_entry)
{
    struct cursor c = {line, line + n};
    struct mount_entry m = {0};

    if (memchr(line, '\0', n) || !parse_numbers(&c, &m))
        return false;
    struct cursor root = next_field(&c), target = next_field(&c), options = next_field(&c), f;

    if (root.p == root.end || target.p == target.end || *target.p != '/' ||
        options.p == options.end)
        return false;
    do { /* any number of optional fields, then "-" */
        f = next_field(&c);
        if (f.p == f.end)
            return false;
    } while (!(f.end - f.p == 1 && *f.p == '-'));
    struct cursor type = next_field(&c), source = next_field(&c);

    if (type.p == type.end)
        return false;
    m.root = unescape(root);
    m.target = unescape(target);
    m.fstype = unescape(type);
    m.source = unescape(source);
    *ret_entry = m;
    return true;
}

struct err *mount_text_parse(const char *text, size_t n, struct mount_table *t)
{
    const char *end = text + n;

    while (text < end) {
        const char *nl = memchr(text, '\n', (size_t)(end - text));
        size_t len = (size_t)((nl ? nl : end) - text);
        struct mount_entry m;

        if (!mount_line_parse(text, len, &m))
            return err_new(ERR_CORRUPT, "cannot understand a line of the mount table: %.*s",
                           (int)(len > 200 ? 200 : len), text);
        t->entries = mem_grow(t->entries, t->n, &t->cap, sizeof(*t->entries));
        t->entries[t->n++] = m;
        text += len + 1;
    }
    return NULL;
}

void mount_table_done(struct mount_table *t)
{
    for (size_t i = 0; i < t->n; i++) {
        free(t->entries[i].root);
        free(t->entries[i].target);
        free(t->entries[i].fstype);
        free(t->entries[i].source);
    }
    free(t->entries);
    *t = (struct mount_table){0};
}

/* ---- reading ---- */

int mount_table_read_fd(int fd, struct mount_table *ret_table)
{
    CLEANUP_STR struct str s = {0};
    CLEANUP_FREE char *buf = xmalloc(65536);
    CLEANUP_MOUNTS struct mount_table t = {0};

    for (;;) {
        ssize_t n = read(fd, buf, 65536);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0)
            break;
        if (s.len + (size_t)n > TABLE_MAX)
            return -E2BIG;
        str_append_bytes(&s, buf, (size_t)n);
    }
    struct err *e = s.len ? mount_text_parse(s.data, s.len, &t) : NULL;

    if (e) {
        err_free(e);
        return -EBADMSG;
    }
    *ret_table = t;
    t = (struct mount_table){0};
    return 0;
}

struct err *mount_table_read(struct mount_table *ret_table)
{
    CLEANUP_CLOSE int fd = open("/proc/thread-self/mountinfo", O_RDONLY | O_CLOEXEC);
    int rc = fd < 0 ? -errno : mount_table_read_fd(fd, ret_table);

    return rc < 0 ? err_errno(-rc, "cannot read the mount table") : NULL;
}

const struct mount_entry *mount_table_at(const struct mount_table *t, const char *target)
{
    for (size_t i = t->n; i > 0; i--) {
        if (streq(t->entries[i - 1].target, target))
            return &t->entries[i - 1];
    }
    return NULL;
}

/* The rest of `path` below `top`: "" when equal, "/..." when below, NULL otherwise. */
static const char *path_below(const char *path, const char *top)
{
    size_t n = strlen(top);

    if (n == 1) /* "/" */
        return path[1] ? path : "";
    if (strncmp(path, top, n) != 0 || (path[n] && path[n] != '/'))
        return NULL;
    return path + n;
}

const struct mount_entry *mount_table_below(const struct mount_table *t, const char *target)
{
    for (size_t i = 0; i < t->n; i++) {
        const char *rest = path_below(t->entries[i].target, target);

        if (rest && *rest)
            return &t->entries[i];
    }
    return NULL;
}

struct err *mount_spot_of(int fd, const struct mount_table *t, struct mount_spot *ret_spot)
{
    struct statx sx;
    char link[64], path[PATH_MAX];
    const struct mount_entry *m = NULL;

    if (statx(fd, "", AT_EMPTY_PATH, STATX_BASIC_STATS | STATX_MNT_ID, &sx) < 0)
        return err_errno(errno, "cannot look at a folder");
    for (size_t i = 0; i < t->n && !m; i++) {
        if ((uint64_t)t->entries[i].id == sx.stx_mnt_id)
            m = &t->entries[i];
    }
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof(path) - 1);

    if (n < 0)
        return err_errno(errno, "cannot read %s", link);
    path[n] = '\0';
    const char *rest = m ? path_below(path, m->target) : NULL;

    if (!rest)
        return err_new(ERR_NOT_FOUND, "%s is on no mount that this process can see", path);
    ret_spot->major = m->major;
    ret_spot->minor = m->minor;
    ret_spot->root = xasprintf("%s%s", streq(m->root, "/") ? "" : m->root, rest);
    if (!*ret_spot->root) {
        free(ret_spot->root);
        ret_spot->root = xstrdup("/");
    }
    return NULL;
}

void mount_spot_done(struct mount_spot *s)
{
    free(s->root);
    *s = (struct mount_spot){0};
}

bool mount_entry_is_of(const struct mount_entry *m, const struct mount_spot *s)
{
    return m->major == s->major && m->minor == s->minor && path_below(m->root, s->root);
}

bool mount_entry_is_exactly(const struct mount_entry *m, const struct mount_spot *s)
{
    return m->major == s->major && m->minor == s->minor && streq(m->root, s->root);
}

/* ---- mounting ---- */

static int sys_open_tree(int fd, const char *path, unsigned flags)
{
    return (int)syscall(SYS_open_tree, fd, path, flags);
}

static int sys_move_mount(int from, const char *target)
{
    return (int)syscall(SYS_move_mount, from, "", AT_FDCWD, target, MOVE_MOUNT_F_EMPTY_PATH);
}

struct err *mount_bind(int fd, const char *target)
{
    CLEANUP_CLOSE int tree =
        sys_open_tree(fd, "", AT_EMPTY_PATH | OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
    struct mount_attr attr = {.propagation = 1 << 18 /* MS_PRIVATE */};

    /* Without this the bind would stay in the peer group of the mount that it was cut from. */
    if (tree < 0 || syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof(attr)) < 0)
        return err_errno(errno, "cannot prepare the mount at %s", target);
    return mount_attach(tree, target);
}

struct err *mount_attach(int fd, const char *target)
{
    return sys_move_mount(fd, target) < 0 ? err_errno(errno, "cannot mount at %s", target) : NULL;
}

/* The kernel's own words about a failed mount, last line. */
static struct err *fs_error(int fs, int errnum, const char *fstype, const char *device)
{
    char line[512], last[512] = "";
    ssize_t n;

    while ((n = read(fs, line, sizeof(line) - 1)) > 0) {
        line[n] = '\0';
        memcpy(last, line, sizeof(last));
        last[strcspn(last, "\n")] = '\0';
    }
    return err_errno(errnum, "cannot mount the %s file system on %s%s%s", fstype, device,
                     *last ? ": " : "", strlen(last) > 2 ? last + 2 : last);
}

static int fs_config(int fs, unsigned cmd, const char *key, const char *value)
{
    return (int)syscall(SYS_fsconfig, fs, cmd, key, value, 0);
}

/* Options of the mount, not of the file system. */
static const struct {
    const char *name;
    unsigned set, clear;
} mount_flags[] = {
    {"nosuid", MOUNT_ATTR_NOSUID, 0},
    {"nodev", MOUNT_ATTR_NODEV, 0},
    {"noexec", MOUNT_ATTR_NOEXEC, 0},
    {"noatime", MOUNT_ATTR_NOATIME, MOUNT_ATTR__ATIME},
    {"relatime", MOUNT_ATTR_RELATIME, MOUNT_ATTR__ATIME},
    {"strictatime", MOUNT_ATTR_STRICTATIME, MOUNT_ATTR__ATIME},
    {"nodiratime", MOUNT_ATTR_NODIRATIME, 0},
    {"rw", 0, 0},
    {"suid", 0, MOUNT_ATTR_NOSUID},
    {"dev", 0, MOUNT_ATTR_NODEV},
    {"exec", 0, MOUNT_ATTR_NOEXEC},
    {"defaults", 0, 0},
};

static bool take_flag(const char *option, unsigned *attributes)
{
    for (size_t i = 0; i < ARRAY_SIZE(mount_flags); i++) {
        if (!streq(mount_flags[i].name, option))
            continue;
        *attributes = (*attributes & ~mount_flags[i].clear) | mount_flags[i].set;
        return true;
    }
    return false;
}

static bool is_option(const char *s)
{
    for (const char *c = s; *c; c++) {
        if (*c <= ' ' || *c > '~' || *c == '\\')
            return false;
    }
    return *s && *s != '=';
}

struct err *mount_options_check(const char *options)
{
    static const char *const refused[] = {"ro",    "bind",   "rbind", "move",       "remount", "norecovery",
                                          "noload", "nouuid", "source", "subtype", "loop"};
    CLEANUP_FREE char *copy = xstrdup(options);
    char *save = copy, *one;

    while ((one = strsep(&save, ","))) {
        if (!is_option(one))
            return err_new(ERR_INVALID, "'%.100s' is not a list of mount options: noatime,discard", options);
        one[strcspn(one, "=")] = '\0';
        for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
            if (streq(one, refused[i]))
                return err_new(ERR_INVALID, "volumes cannot be mounted with the option %s", one);
        }
    }
    return NULL;
}

static int fs_options(int fs, const char *options, unsigned *attributes)
{
    CLEANUP_FREE char *copy = xstrdup(options ? options : "");
    char *save = copy, *one;

    while ((one = strsep(&save, ","))) {
        char *value = strchr(one, '=');

        if (!*one || take_flag(one, attributes))
            continue;
        if (value)
            *value++ = '\0';
        if (fs_config(fs, value ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, one, value) < 0)
            return -1;
    }
    return 0;
}

struct err *mount_detached(const char *fstype, const char *device, const char *options, int *ret_fd)
{
    CLEANUP_CLOSE int fs = (int)syscall(SYS_fsopen, fstype, FSOPEN_CLOEXEC);
    unsigned attributes = 0;

    if (fs < 0)
        return err_errno(errno, "this kernel cannot mount %s", fstype);
    if (fs_config(fs, FSCONFIG_SET_STRING, "source", device) < 0 || fs_options(fs, options, &attributes) < 0 ||
        fs_config(fs, FSCONFIG_CMD_CREATE, NULL, NULL) < 0)
        return fs_error(fs, errno, fstype, device);
    int mnt = (int)syscall(SYS_fsmount, fs, FSMOUNT_CLOEXEC, attributes);

    if (mnt < 0)
        return fs_error(fs, errno, fstype, device);
    *ret_fd = mnt;
    return NULL;
}

int mount_remove(const char *target)
{
    return umount2(target, UMOUNT_NOFOLLOW) < 0 ? -errno : 0;
}
