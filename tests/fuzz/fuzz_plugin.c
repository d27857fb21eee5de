/* The Docker volume plugin: what Docker says, and what the agent keeps on disk for it. The first byte chooses:
 *   c, r, m, u, g  bodies of Create, Remove, Mount, Unmount and Get: what is taken has a name; an answer with it is JSON
 *   p              the path of a call
 *   d              the record of mounts: what is read is written again the same
 *   k              the copy of the catalogue: likewise */
#include "fuzz.h"

#include "agent/plugin_copy.h"
#include "agent/plugin_uses.h"
#include "agent/plugin_wire.h"
#include "model/json.h"

#define DEFAULT_SIZE (UINT64_C(75) << 30)

static const struct uuid boot = {
    {0x3f, 0x0c, 0x9c, 0x1e, 0x7b, 0x1d, 0x4c, 0x7a, 0x9d, 0x0e, 0x0a, 0x1b, 0x2c, 0x3d, 0x4e, 0x5f}};

static void check_json(struct str *s)
{
    json_t *v = NULL;
    struct err *e = json_parse(s->data, s->len, &v);

    RULE(!e && json_is_object(v) && json_is_string(json_object_get(v, "Err")));
    json_decref(v);
    str_done(s);
}

static void check_answers(enum plugin_call call, const char *text)
{
    struct volume_entry v = {.dataset = boot, .name = (char *)text, .home = boot, .home_host = (char *)text, .profile = (char *)text};
    struct str s = {0};

    plugin_render_error(&s, call, text);
    check_json(&s);
    plugin_render_mountpoint(&s, text);
    check_json(&s);
    plugin_render_get(&s, &v, NULL);
    check_json(&s);
    plugin_render_list_begin(&s);
    plugin_render_list_volume(&s, &v, text);
    plugin_render_list_volume(&s, &v, NULL);
    plugin_render_list_end(&s);
    check_json(&s);
}

static void request(enum plugin_call call, const char *body, size_t n)
{
    struct plugin_request r = {0};

    if (n > PLUGIN_BODY_MAX)
        return;
    struct err *e = plugin_request_parse(call, body, n, DEFAULT_SIZE, &r);
    if (e) {
        check_answers(call, e->text);
        RULE(fuzz_refused(e, ERR_INVALID));
        return;
    }
    RULE(r.name && *r.name && !strpbrk(r.name, "\r\n"));
    check_answers(call, r.name);
    if (call == PLUGIN_MOUNT || call == PLUGIN_UNMOUNT)
        RULE(r.id && *r.id && strlen(r.id) <= MOUNT_ID_MAX);
    if (call == PLUGIN_CREATE) {
        RULE(r.maximum_size >= DATASET_MIN_SIZE && r.maximum_size % DATASET_SIZE_STEP == 0);
        RULE(r.metadata.n && r.metadata.n <= METADATA_MAX_ENTRIES && streq(metadata_get(&r.metadata, "name"), r.name));
        RULE(!plugin_name_is_anonymous(r.name) || metadata_get(&r.metadata, PLUGIN_ANONYMOUS_KEY));
    }
    plugin_request_done(&r);
}

static void create(const char *body, size_t n)
{
    request(PLUGIN_CREATE, body, n);
}

static void removal(const char *body, size_t n)
{
    request(PLUGIN_REMOVE, body, n);
}

static void mount(const char *body, size_t n)
{
    request(PLUGIN_MOUNT, body, n);
}

static void unmount(const char *body, size_t n)
{
    request(PLUGIN_UNMOUNT, body, n);
}

static void get(const char *body, size_t n)
{
    request(PLUGIN_GET, body, n);
}

static void path(const char *text)
{
    enum plugin_call call = plugin_call_of_path(text);

    if (call != PLUGIN_CALL_INVALID)
        RULE(strstr(text, plugin_call_name(call)));
}

static size_t count(const struct plugin_uses *u)
{
    const struct plugin_use *use;
    size_t n = 0;

    for (const struct plugin_volume *v = u->by_name; v; v = v->hh.next) {
        size_t of_volume = 0;

        LIST_FOREACH (use, &v->uses, link) {
            RULE(use->held && uses_find(u, v->name, use->mount) == use);
            of_volume++;
        }
        RULE(of_volume == v->n && v->n && v->n <= LEASE_MOUNTS_MAX && !uuid_is_nil(&v->dataset));
        n += of_volume;
    }
    return n;
}

static void uses(const char *text, size_t n)
{
    struct plugin_uses first = {0}, again = {0};
    size_t length;

    if (fuzz_refused(uses_parse(text, n, &boot, &first), ERR_CORRUPT)) {
        RULE(!first.by_name && !first.n);
        return;
    }
    RULE(count(&first) == first.n && first.n <= USES_MAX);
    CLEANUP_FREE char *written = uses_format(&first, &boot, &length);
    RULE(!uses_parse(written, length, &boot, &again) && count(&again) == first.n);
    uses_done(&first);
    uses_done(&again);
}

static void append(void *cookie, const struct volume_entry *v)
{
    RULE(*v->name && !uuid_is_nil(&v->dataset));
    copy_append(cookie, v);
}

static void copy(const char *text, size_t n)
{
    CLEANUP_STR struct str first = {0}, again = {0};

    copy_begin(&first);
    if (fuzz_refused(copy_parse(text, n, append, &first), ERR_CORRUPT))
        return;
    copy_end(&first);
    copy_begin(&again);
    RULE(!copy_parse(first.data, first.len, append, &again));
    copy_end(&again);
    RULE(streq(first.data, again.data));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_choice choices[] = {
        {'c', create, NULL}, {'r', removal, NULL}, {'m', mount, NULL}, {'u', unmount, NULL},
        {'g', get, NULL},    {'p', NULL, path},    {'d', uses, NULL},  {'k', copy, NULL},
    };

    return fuzz_choose(choices, ARRAY_SIZE(choices), data, size);
}
