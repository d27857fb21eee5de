/* What the kernel writes in /proc, and what else the storage reads. The first byte chooses: i mountinfo, m a line of maps, s stat,
 * c status, f fdinfo; b the first bytes of a device; z a size and o mount options as in agent.yml; j an answer in JSON. */
#include "fuzz.h"

#include "drivers/driver.h"
#include "drivers/filesystem.h"
#include "drivers/json_http.h"
#include "drivers/mounts.h"
#include "drivers/proc_text.h"

/* As the kernel writes them. */
static void append_escaped(struct str *to, const char *text)
{
    for (; *text; text++) {
        if (strchr(" \t\n\\#", *text))
            str_appendf(to, "\\%03o", (unsigned char)*text);
        else
            str_append_bytes(to, text, 1);
    }
}

static void append_entry(struct str *to, const struct mount_entry *m)
{
    str_appendf(to, "%d 1 %u:%u ", m->id, m->major, m->minor);
    append_escaped(to, m->root);
    str_append(to, " ");
    append_escaped(to, m->target);
    str_append(to, " rw shared:1 - ");
    append_escaped(to, m->fstype);
    str_append(to, " ");
    append_escaped(to, m->source);
    str_append(to, " rw\n");
}

static void check_entry(const struct mount_table *t, const struct mount_entry *m)
{
    struct mount_spot top = {m->major, m->minor, (char[]){"/"}};
    struct mount_spot exact = {m->major, m->minor, m->root};
    const struct mount_entry *below;

    RULE(m->id >= 0 && *m->target == '/' && *m->root && *m->fstype);
    RULE(mount_table_at(t, m->target) && streq(mount_table_at(t, m->target)->target, m->target));
    below = mount_table_below(t, m->target);
    RULE(!below || strlen(below->target) > strlen(m->target));
    RULE(mount_entry_is_exactly(m, &exact) && mount_entry_is_of(m, &exact));
    RULE(mount_entry_is_of(m, &top));
}

static void mountinfo(const char *text, size_t n)
{
    CLEANUP_MOUNTS struct mount_table t = {0}, again = {0};
    CLEANUP_STR struct str written = {0};
    CLEANUP_ERR struct err *e = mount_text_parse(text, n, &t);

    if (e) {
        RULE(err_is(e, ERR_CORRUPT));
        return;
    }
    for (size_t i = 0; i < t.n && i < 50; i++)
        check_entry(&t, &t.entries[i]);
    for (size_t i = 0; i < t.n; i++)
        append_entry(&written, &t.entries[i]);
    if (!t.n)
        return;
    RULE(!mount_text_parse(written.data, written.len, &again) && t.n == again.n);
    for (size_t i = 0; i < t.n; i++) {
        const struct mount_entry *a = &t.entries[i], *b = &again.entries[i];
        RULE(a->id == b->id && a->major == b->major && a->minor == b->minor);
        RULE(streq(a->root, b->root) && streq(a->target, b->target) &&
             streq(a->fstype, b->fstype) && streq(a->source, b->source));
    }
}

static void map_line(const char *text)
{
    char range[PROC_RANGE_SIZE];
    unsigned major, minor;

    if (proc_map_parse(text, range, &major, &minor))
        RULE(*range && !strpbrk(range, " \n") && strstr(text, range));
}

/* Whatever the process is called, what follows is found. */
static void process_stat(const char *text)
{
    CLEANUP_FREE char *stat =
        xasprintf("17 (%s) S 1 17 17 0 -1 4194304 100 0 0 0 1 2 0 0 20 0 1 0 99 0 0\n", text);

    (void)proc_stat_flags(text);
    RULE(proc_stat_flags(stat) == 4194304);
}

static void process_status(const char *text)
{
    CLEANUP_FREE char *name = xstrndup(text, strcspn(text, "\n")); /* the kernel escapes them */
    CLEANUP_FREE char *status =
        xasprintf("Name:\t%s\nCapInh:\t0\nCapPrm:\t000001ffffffffff\nCapEff:\t0\n", name);

    (void)proc_status_permitted(text);
    RULE(proc_status_permitted(status) == 0x1ffffffffff);
}

static void fdinfo(const char *text)
{
    (void)proc_fdinfo_flags(text);
}

static void size_text(const char *text)
{
    uint64_t size, again;

    if (!driver_size_parse(text, &size))
        return;
    RULE(size <= INT64_MAX);
    CLEANUP_FREE char *plain = xasprintf("%llu", (unsigned long long)size);
    RULE(driver_size_parse(plain, &again) && again == size);
}

/* Of a device: whoever wrote it could write anything. */
static void superblock(const char *bytes, size_t n)
{
    struct filesystem_head h = {0};

    if (filesystem_head_parse((const unsigned char *)bytes, n, &h))
        RULE(h.block >= 512 && h.block <= 65536 && h.bytes % h.block == 0);
    else
        RULE(!h.block && !h.bytes);
}

static void mount_options(const char *text)
{
    CLEANUP_ERR struct err *e = mount_options_check(text);

    RULE(!e || err_is(e, ERR_INVALID));
    RULE(e || !strpbrk(text, " \t\n\\"));
}

/* What a service says, and what of it is for people. */
static void answer(const char *bytes, size_t n)
{
    json_t *json = NULL;

    if (fuzz_refused(json_http_parse(bytes, n, &json), ERR_CORRUPT))
        return;
    struct json_http_answer a = {.status = 400, .body = json};
    CLEANUP_ERR struct err *e = json_http_failure(&a, "x");

    RULE(err_is(e, ERR_INVALID) && strlen(e->text) < 500 && !strpbrk(e->text, "\r\n\a"));
    json_http_answer_done(&a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_choice choices[] = {
        {'i', .bytes = mountinfo},
        {'m', .text = map_line},
        {'s', .text = process_stat},
        {'c', .text = process_status},
        {'f', .text = fdinfo},
        {'z', .text = size_text},
        {'b', .bytes = superblock},
        {'o', .text = mount_options},
        {'j', .bytes = answer},
    };

    return fuzz_choose(choices, ARRAY_SIZE(choices), data, size);
}
