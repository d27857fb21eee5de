/* What zfs and zpool print. Bytes in, structures out. */
#include "drivers/zfs/zfs.h"

#include "base/str.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <strings.h>

#define FIELDS 3

static const char *const role_names[ZFS_ROLE_MAX] = {
    [ZFS_ROLE_NONE] = "-",          [ZFS_ROLE_MAKING] = "making",     [ZFS_ROLE_VOLUME] = "volume",
    [ZFS_ROLE_REPLICA] = "replica", [ZFS_ROLE_ADOPTING] = "adopting",
    [ZFS_ROLE_MOVING] = "moving",
};

const char *zfs_role_name(enum zfs_role r)
{
    return role_names[r];
}

static enum zfs_role role_parse(const char *text)
{
    for (int i = 0; i < ZFS_ROLE_MAX; i++) {
        if (streq(text, role_names[i]))
            return (enum zfs_role)i;
    }
    return ZFS_ROLE_NONE;
}

bool zfs_number_parse(const char *text, uint64_t *ret)
{
    uint64_t n = 0;
    const char *p = text;

    for (; *p >= '0' && *p <= '9'; p++) {
        if (__builtin_mul_overflow(n, 10u, &n) || __builtin_add_overflow(n, (uint64_t)(*p - '0'), &n))
            return false;
    }
    if (p == text || *p)
        return false;
    *ret = n;
    return true;
}

/* ---- listings ---- */

struct zfs_fs *zfs_listing_find(const struct zfs_listing *l, const char *name)
{
    for (size_t i = l->n; i > 0; i--) { /* while it is being read the one that is wanted is the last */
        if (streq(l->all[i - 1].name, name))
            return &l->all[i - 1];
    }
    return NULL;
}

struct zfs_snapshot *zfs_fs_snapshot(const struct zfs_fs *f, const char *name)
{
    for (size_t i = f ? f->n_snapshots : 0; i > 0; i--) {
        if (streq(f->snapshots[i - 1].name, name))
            return &f->snapshots[i - 1];
    }
    return NULL;
}

void zfs_listing_done(struct zfs_listing *l)
{
    for (size_t i = 0; i < l->n; i++) {
        for (size_t k = 0; k < l->all[i].n_snapshots; k++)
            free(l->all[i].snapshots[k].name);
        free(l->all[i].snapshots);
        free(l->all[i].name);
        free(l->all[i].token);
    }
    free(l->all);
    *l = (struct zfs_listing){0};
}

static struct zfs_fs *get_fs(struct zfs_listing *l, const char *name)
{
    struct zfs_fs *f = zfs_listing_find(l, name);

    if (f)
        return f;
    l->all = mem_grow(l->all, l->n, &l->cap, sizeof(*l->all));
    l->all[l->n] = (struct zfs_fs){.name = xstrdup(name)};
    return &l->all[l->n++];
}

static struct zfs_snapshot *get_snapshot(struct zfs_fs *f, const char *name)
{
    struct zfs_snapshot *s = zfs_fs_snapshot(f, name);

    if (s)
        return s;
    f->snapshots = mem_grow(f->snapshots, f->n_snapshots, &f->cap_snapshots, sizeof(*f->snapshots));
    f->snapshots[f->n_snapshots] = (struct zfs_snapshot){.name = xstrdup(name)};
    return &f->snapshots[f->n_snapshots++];
}

static void set_of_snapshot(struct zfs_snapshot *s, const char *property, const char *value)
{
    uint64_t n;

    if (streq(property, "guid") && zfs_number_parse(value, &n))
        s->guid = n;
    else if (streq(property, "userrefs") && zfs_number_parse(value, &n))
        s->held = n > 0;
    else if (streq(property, ZFS_OURS))
        s->ours = streq(value, "1");
}

static void set_of_fs(struct zfs_fs *f, const char *property, const char *value)
{
    uint64_t n;

    if (streq(property, "refquota") && zfs_number_parse(value, &n)) {
        f->limit = n;
    } else if (streq(property, ZFS_ROLE)) {
        f->role = role_parse(value);
    } else if (streq(property, "receive_resume_token") && zfs_token_is_valid(value)) {
        free(f->token);
        f->token = xstrdup(value);
    }
}

/* Cuts the line at its tabs; false when it has another number of fields, or an empty one. */
static bool split(char *line, char *fields[FIELDS])
{
    size_t n = 0;

    for (char *at = line; at; n++) {
        char *tab = strchr(at, '\t');

        if (n == FIELDS || at == tab || !*at)
            return false;
        if (tab)
            *tab++ = '\0';
        fields[n] = at;
        at = tab;
    }
    return n == FIELDS;
}

static void take_line(struct zfs_listing *l, char *line)
{
    char *f[FIELDS];

    if (!split(line, f))
        return;
    char *at = strchr(f[0], '@');

    if (!at) {
        set_of_fs(get_fs(l, f[0]), f[1], f[2]);
        return;
    }
    *at++ = '\0';
    if (*at && *f[0])
        set_of_snapshot(get_snapshot(get_fs(l, f[0]), at), f[1], f[2]);
}

void zfs_listing_parse(const char *text, struct zfs_listing *ret_listing)
{
    CLEANUP_FREE char *copy = xstrdup(text);
    struct zfs_listing l = {0};
    char *rest = copy, *line;

    while ((line = strsep(&rest, "\n")))
        take_line(&l, line);
    *ret_listing = l;
}

/* ---- what the programs can do ---- */

/* The usage text of one command: `<tab>send [-Dc] ... `; NULL when there is none. */
static const char *usage_of(const char *text, const char *command)
{
    CLEANUP_FREE char *begin = xasprintf("\t%s ", command);
    const char *at = strstr(text, begin);

    return at ? at + strlen(begin) : NULL;
}

/* The letter is one of the options in the first brackets: "[-vnsF]". */
static bool has_option(const char *usage, char letter)
{
    if (!usage || strncmp(usage, "[-", 2) != 0)
        return false;
    const char *at = strchr(usage, letter), *end = usage + strcspn(usage, "]\n");

    return at && at < end;
}

void zfs_usage_parse(const char *text, struct zfs_can *ret_can)
{
    const char *set = usage_of(text, "set"), *receive = usage_of(text, "receive"), *send = usage_of(text, "send");
    const char *many = set ? strstr(set, "<property=value> ...") : NULL;

    *ret_can = (struct zfs_can){
        .resume = has_option(receive, 's'),
        .parallel = has_option(receive, 's'),
        .compressed = has_option(send, 'c'),
        .estimate = has_option(send, 'n') && has_option(send, 'P'),
        .set_many = many && many < set + strcspn(set, "\n"),
    };
}

/* ---- single lines ---- */

bool zfs_pool_line_parse(const char *line, uint64_t *ret_guid, char ret_health[32])
{
    size_t n = strcspn(line, "\t");
    CLEANUP_FREE char *guid = xstrndup(line, n);
    const char *health = line[n] ? line + n + 1 : "";
    size_t len = strcspn(health, "\t\n");
    uint64_t id;

    if (!len || len >= 32 || (health[len] && !streq(health + len, "\n")) || !zfs_number_parse(guid, &id))
        return false;
    memcpy(ret_health, health, len);
    ret_health[len] = '\0';
    *ret_guid = id;
    return true;
}

bool zfs_record_parse(const char *text, const char *pool, uint64_t *ret_guid)
{
    size_t n = strcspn(text, " ");
    CLEANUP_FREE char *guid = xstrndup(text, n);

    return text[n] && streq(text + n + 1, pool) && zfs_number_parse(guid, ret_guid);
}

bool zfs_pool_name_is_valid(const char *name)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    static const char rest[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-.:";

    return *name && strchr(letters, *name) && !name[strspn(name, rest)];
}

bool zfs_token_is_valid(const char *token)
{
    return *token >= '0' && *token <= '9' && !token[strspn(token, "0123456789abcdef-")];
}

bool zfs_token_is_for(const char *text, const char *snapshot)
{
    static const char key[] = "toname = ";
    const char *at = strstr(text, key);

    if (!at || strstr(at + 1, key))
        return false;
    at += strlen(key);
    size_t n = strcspn(at, "\n");

    return n == strlen(snapshot) && strncmp(at, snapshot, n) == 0;
}

bool zfs_stream_size_parse(const char *text, uint64_t *ret_bytes)
{
    static const char key[] = "size\t";
    CLEANUP_FREE char *copy = xstrdup(text);
    char *rest = copy, *line;
    bool found = false;
    uint64_t bytes = 0;

    while ((line = strsep(&rest, "\n"))) {
        if (!str_has_prefix(line, key))
            continue;
        if (found || !zfs_number_parse(line + strlen(key), &bytes))
            return false;
        found = true;
    }
    if (found)
        *ret_bytes = bytes;
    return found;
}

enum err_code zfs_error_code(const char *text)
{
    static const struct {
        const char *words;
        enum err_code code;
    } known[] = {
        {"out of space", ERR_NO_SPACE},
        {"No space left", ERR_NO_SPACE},
        {"quota exceeded",
         ERR_NO_SPACE}, /* of something above: what is received has no limit of its own before it is promoted */
        {"size is less than current used", ERR_LIMIT},
        {"is busy", ERR_BUSY},
        {"has dependent clones", ERR_BUSY},
        {"does not exist", ERR_NOT_FOUND},
        {"no such pool", ERR_NOT_FOUND},
        {"could not find any snapshots", ERR_NOT_FOUND},
        {"zfs-fuse daemon is running", ERR_UNAVAILABLE},
        {"modules are not loaded", ERR_UNAVAILABLE},
        {"modules cannot be auto-loaded", ERR_UNAVAILABLE},
        {"currently suspended", ERR_UNAVAILABLE},
        {"ermission denied", ERR_DENIED},
    };

    for (size_t i = 0; i < ARRAY_SIZE(known); i++) {
        if (strstr(text, known[i].words))
            return known[i].code;
    }
    return ERR_IO;
}

bool zfs_old_name_parse(const char *name, struct uuid *ret_owner, struct uuid *ret_dataset)
{
    static const char middle[] = ".default.";
    const char *at = strstr(name, middle);

    if (!at)
        return false;
    CLEANUP_FREE char *owner = xstrndup(name, (size_t)(at - name));

    return uuid_parse(owner, ret_owner) && uuid_parse(at + strlen(middle), ret_dataset);
}
