/* What zfs and zpool print. The first byte chooses: l a listing, u a usage text, p a line of the pool, r our record of it,
 * t what a resume token is for, s how long a stream will be, e an error, o a name of Flocker 1. */
#include "fuzz.h"

#include "drivers/zfs/zfs.h"

static void append_fs(struct str *to, const struct zfs_fs *f)
{
    str_appendf(to, "%s\trefquota\t%llu\n%s\t" ZFS_ROLE "\t%s\n", f->name, (unsigned long long)f->limit, f->name,
                zfs_role_name(f->role));
    if (f->token)
        str_appendf(to, "%s\treceive_resume_token\t%s\n", f->name, f->token);
    for (size_t i = 0; i < f->n_snapshots; i++) {
        const struct zfs_snapshot *s = &f->snapshots[i];

        str_appendf(to, "%s@%s\tguid\t%llu\n", f->name, s->name, (unsigned long long)s->guid);
        str_appendf(to, "%s@%s\tuserrefs\t%d\n", f->name, s->name, s->held);
        str_appendf(to, "%s@%s\t" ZFS_OURS "\t%s\n", f->name, s->name, s->ours ? "1" : "-");
    }
}

static void check_same(const struct zfs_fs *a, const struct zfs_fs *b)
{
    RULE(streq(a->name, b->name) && a->limit == b->limit && a->role == b->role);
    RULE(str_equal_null(a->token, b->token) && a->n_snapshots == b->n_snapshots);
    for (size_t i = 0; i < a->n_snapshots; i++) {
        const struct zfs_snapshot *x = &a->snapshots[i], *y = &b->snapshots[i];

        RULE(streq(x->name, y->name) && x->guid == y->guid && x->held == y->held && x->ours == y->ours);
        RULE(*x->name && !strpbrk(x->name, "\t\n") && zfs_fs_snapshot(a, x->name) == x);
    }
}

static void listing(const char *text)
{
    CLEANUP_LISTING struct zfs_listing l = {0}, again = {0};
    CLEANUP_STR struct str written = {0};

    zfs_listing_parse(text, &l);
    for (size_t i = 0; i < l.n; i++) {
        RULE(*l.all[i].name && !strpbrk(l.all[i].name, "@\t\n") && zfs_listing_find(&l, l.all[i].name) == &l.all[i]);
        append_fs(&written, &l.all[i]);
    }
    if (!l.n)
        return;
    zfs_listing_parse(written.data, &again);
    RULE(again.n == l.n);
    for (size_t i = 0; i < l.n; i++)
        check_same(&l.all[i], &again.all[i]);
}

static void usage(const char *text)
{
    struct zfs_can can, more;
    CLEANUP_FREE char *longer = xasprintf("\tset a=b c\n\tsend [-x]\n\treceive [-x]\n%s", text);

    zfs_usage_parse(text, &can);
    zfs_usage_parse(longer, &more); /* the first usage of a command counts */
    RULE(!more.resume && !more.parallel && !more.compressed && !more.set_many && !more.estimate);
}

static void pool_line(const char *text)
{
    char health[32], h2[32];
    uint64_t guid, g2;

    if (!zfs_pool_line_parse(text, &guid, health))
        return;
    CLEANUP_FREE char *again = xasprintf("%llu\t%s\n", (unsigned long long)guid, health);

    RULE(zfs_pool_line_parse(again, &g2, h2) && g2 == guid && streq(h2, health));
}

static void record(const char *text)
{
    const char *space = strchr(text, ' ');
    uint64_t guid, again;

    if (!space || !zfs_record_parse(text, space + 1, &guid))
        return;
    CLEANUP_FREE char *written = xasprintf("%llu %s", (unsigned long long)guid, space + 1);

    RULE(zfs_record_parse(written, space + 1, &again) && again == guid);
}

static void token(const char *text)
{
    RULE(!zfs_token_is_valid(text) || (*text != '-' && !strpbrk(text, " \n/@")));
    if (zfs_token_is_for(text, "tank/flocker/x@s"))
        RULE(strstr(text, "toname = tank/flocker/x@s"));
}

static void stream_size(const char *text)
{
    uint64_t bytes, again;
    CLEANUP_FREE char *twice = xasprintf("%s\nsize\t1\n", text);

    if (!zfs_stream_size_parse(text, &bytes))
        return;
    CLEANUP_FREE char *written = xasprintf("size\t%llu\n", (unsigned long long)bytes);

    RULE(zfs_stream_size_parse(written, &again) && again == bytes);
    RULE(!zfs_stream_size_parse(twice, &again));
}

static void old_name(const char *text)
{
    struct uuid owner, dataset, o2, d2;

    if (!zfs_old_name_parse(text, &owner, &dataset))
        return;
    CLEANUP_FREE char *again = xasprintf("%s.default.%s", UUID_STR(&owner), UUID_STR(&dataset));

    RULE(zfs_old_name_parse(again, &o2, &d2) && uuid_eq(&owner, &o2) && uuid_eq(&dataset, &d2));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!size)
        return -1;
    CLEANUP_FREE char *text = fuzz_text(data + 1, size - 1);

    switch (data[0]) {
    case 'l':
        listing(text);
        return 0;
    case 'u':
        usage(text);
        return 0;
    case 'p':
        pool_line(text);
        return 0;
    case 'r':
        record(text);
        return 0;
    case 't':
        token(text);
        return 0;
    case 's':
        stream_size(text);
        return 0;
    case 'e':
        RULE(zfs_error_code(text) < ERR_CODE_MAX);
        return 0;
    case 'o':
        old_name(text);
        return 0;
    default:
        return -1;
    }
}
