#include "agent/plugin_wire.h"

#include "drivers/driver.h"
#include "model/json.h"
#include "model/validate.h"

#include <stdio.h>

#define OPTION_METADATA "metadata."
#define MIB (1u << 20)

static const struct {
    const char *path;
    bool about_a_volume;
} calls[PLUGIN_CALL_MAX] = {
    [PLUGIN_ACTIVATE] = {"/Plugin.Activate", false},
    [PLUGIN_CAPABILITIES] = {"/VolumeDriver.Capabilities", false},
    [PLUGIN_CREATE] = {"/VolumeDriver.Create", true},
    [PLUGIN_REMOVE] = {"/VolumeDriver.Remove", true},
    [PLUGIN_MOUNT] = {"/VolumeDriver.Mount", true},
    [PLUGIN_UNMOUNT] = {"/VolumeDriver.Unmount", true},
    [PLUGIN_PATH] = {"/VolumeDriver.Path", true},
    [PLUGIN_GET] = {"/VolumeDriver.Get", true},
    [PLUGIN_LIST] = {"/VolumeDriver.List", false},
};

enum plugin_call plugin_call_of_path(const char *path)
{
    for (int i = 0; i < PLUGIN_CALL_MAX; i++) {
        if (streq(path, calls[i].path))
            return (enum plugin_call)i;
    }
    return PLUGIN_CALL_INVALID;
}

const char *plugin_call_name(enum plugin_call call)
{
    return strchr(calls[call].path, '.') + 1;
}

bool plugin_name_is_anonymous(const char *name)
{
    return strlen(name) == 64 && strspn(name, "0123456789abcdef") == 64;
}

/* ---- calls ---- */

void plugin_request_done(struct plugin_request *r)
{
    free(r->name);
    free(r->id);
    metadata_done(&r->metadata);
    *r = (struct plugin_request){0};
}

static bool is_blank(const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!memchr(" \t\r\n", text[i], 4))
            return false;
    }
    return true;
}

static struct err *parse_body(const char *body, size_t n, json_t **ret)
{
    if (is_blank(body, n)) {
        *ret = json_object();
        return NULL;
    }
    TRY(err_wrap(json_parse(body, n, ret), "the body of the call is not what it should be"));
    if (json_is_object(*ret))
        return NULL;
    return err_new(ERR_INVALID, "the body of the call must be a JSON object"); /* the caller frees what there is */
}

static bool is_one_line(const char *s)
{
    for (; *s; s++) {
        if ((unsigned char)*s < ' ' || *s == 0x7f)
            return false;
    }
    return true;
}

static size_t characters(const char *s)
{
    size_t n = 0;

    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static struct err *take_name(const json_t *body, struct plugin_request *r)
{
    const char *name = json_string_value(json_object_get(body, "Name"));

    if (!json_object_size(body))
        return err_new(ERR_INVALID, "the call has no body, so it names no volume; it may have been repeated without it: try again");
    if (!name || !*name)
        return err_new(ERR_INVALID, "the call names no volume: \"Name\" must be a text that is not empty");
    if (characters(name) > METADATA_MAX_CHARS || !is_one_line(name))
        return err_new(ERR_INVALID, "the name of a volume must have at most %d characters, on one line", METADATA_MAX_CHARS);
    r->name = xstrdup(name);
    return NULL;
}

static struct err *take_id(const json_t *body, struct plugin_request *r)
{
    const json_t *id = json_object_get(body, "ID");
    const char *text = json_string_value(id);

    if (!id || json_is_null(id) || (text && !*text))
        text = PLUGIN_NO_ID;
    if (!text || strlen(text) > MOUNT_ID_MAX || !is_one_line(text))
        return err_new(ERR_INVALID, "\"ID\" must be a text of at most %u bytes, on one line", MOUNT_ID_MAX);
    r->id = xstrdup(text);
    return NULL;
}

static struct err *parse_size(const char *text, uint64_t *ret)
{
    uint64_t size;

    if (!driver_size_parse(text, &size))
        return err_new(ERR_INVALID,
                       "size=%.100s: a size is a whole number with a unit, such as 512M, 10G or 1TiB (K, M, G and T are powers of 1024; "
                       "without a unit it is in bytes)",
                       text);
    if (size < DATASET_MIN_SIZE || size % DATASET_SIZE_STEP)
        return err_new(ERR_INVALID, "size=%.100s: a size is at least %uM, and a multiple of %u bytes", text, DATASET_MIN_SIZE / MIB,
                       DATASET_SIZE_STEP);
    *ret = size;
    return NULL;
}

static void put(json_t *metadata, const char *key, const char *value)
{
    (void)json_object_set_new(metadata, key, json_string(value));
}

static struct err *take_option(const char *key, const json_t *v, json_t *metadata, struct plugin_request *r)
{
    const char *text = json_string_value(v);

    if (!text)
        return err_new(ERR_INVALID, "the value of option '%.100s' must be a text", key);
    if (streq(key, "size")) {
        TRY(parse_size(text, &r->maximum_size));
        CLEANUP_FREE char *bytes = xasprintf("%llu", (unsigned long long)r->maximum_size);
        put(metadata, "maximum_size", bytes);
        return NULL;
    }
    if (streq(key, "profile")) {
        if (!*text)
            return err_new(ERR_INVALID, "option 'profile' is empty: name a storage profile, or leave it out");
        put(metadata, METADATA_PROFILE, text);
        return NULL;
    }
    if (!str_has_prefix(key, OPTION_METADATA))
        return err_new(ERR_INVALID, "there is no option '%.100s'; there are size, profile, and metadata.KEY", key);
    key += strlen(OPTION_METADATA);
    if (json_object_get(metadata, key))
        return err_new(ERR_INVALID, "option 'metadata.%.100s': this key is taken already; choose another", key);
    put(metadata, key, text);
    return NULL;
}

/* By the rules of the REST API, so that whatever passes here can be stored. */
static struct err *check_create(json_t *metadata, struct plugin_request *r)
{
    json_auto_t *body = json_pack("{s:s, s:O}", "primary", "00000000-0000-4000-8000-000000000000", "metadata", metadata);
    struct dataset *d = NULL;
    json_auto_t *mistakes = validate_dataset_create(body, &d);

    if (mistakes)
        return err_new(ERR_INVALID, "%s", json_string_value(json_array_get(mistakes, 0)));
    metadata_done(&r->metadata);
    r->metadata = d->metadata;
    d->metadata = (struct metadata){0};
    dataset_free(d);
    return NULL;
}

static struct err *take_options(const json_t *body, uint64_t default_size, struct plugin_request *r)
{
    const json_t *options = json_object_get(body, "Opts");
    json_auto_t *metadata = json_object();
    const char *key;
    json_t *v;

    if (options && !json_is_null(options) && !json_is_object(options))
        return err_new(ERR_INVALID, "\"Opts\" must be an object, or null");
    r->maximum_size = default_size;
    put(metadata, "name", r->name);
    if (plugin_name_is_anonymous(r->name))
        put(metadata, PLUGIN_ANONYMOUS_KEY, "true");
    json_object_foreach((json_t *)options, key, v)
        TRY(take_option(key, v, metadata, r));
    return check_create(metadata, r);
}

static struct err *parse_into(enum plugin_call call, const char *text, size_t n, uint64_t default_size, struct plugin_request *r)
{
    json_auto_t *body = NULL;

    if (!calls[call].about_a_volume)
        return NULL;
    TRY(parse_body(text, n, &body));
    TRY(take_name(body, r));
    if (call == PLUGIN_MOUNT || call == PLUGIN_UNMOUNT)
        return take_id(body, r);
    return call == PLUGIN_CREATE ? take_options(body, default_size, r) : NULL;
}

struct err *plugin_request_parse(enum plugin_call call, const char *body, size_t n, uint64_t default_size, struct plugin_request *ret)
{
    struct plugin_request r = {0};
    struct err *e = parse_into(call, body, n, default_size, &r);

    if (e) {
        plugin_request_done(&r);
        return e;
    }
    *ret = r;
    return NULL;
}

/* ---- answers ---- */

/* What others said may be in a text of ours. */
static void append_text(struct str *out, const char *s)
{
    if (str_is_utf8(s, strlen(s))) {
        json_append_string(out, s);
        return;
    }
    json_auto_t *harmless = json_text(s);
    json_append_string(out, json_string_value(harmless));
}

static void append_pair(struct str *out, const char *key, const char *value)
{
    str_append_bytes(out, "\"", 1);
    str_append(out, key);
    str_append_bytes(out, "\":", 2);
    append_text(out, value);
}

void plugin_render_error(struct str *out, enum plugin_call call, const char *error)
{
    str_append(out, "{");
    append_pair(out, "Err", error ? error : "");
    if (call == PLUGIN_MOUNT || call == PLUGIN_PATH)
        str_append(out, ",\"Mountpoint\":\"\"");
    str_append(out, "}\n");
}

void plugin_render_activate(struct str *out)
{
    str_append(out, "{\"Implements\":[\"VolumeDriver\"]}\n");
}

void plugin_render_capabilities(struct str *out)
{
    str_append(out, "{\"Capabilities\":{\"Scope\":\"global\"}}\n");
}

void plugin_render_mountpoint(struct str *out, const char *mountpoint)
{
    str_append(out, "{\"Err\":\"\",");
    append_pair(out, "Mountpoint", mountpoint);
    str_append(out, "}\n");
}

static void append_status(struct str *out, const struct volume_entry *v)
{
    const struct uuid *node = uuid_is_nil(&v->owner) ? &v->home : &v->owner;
    char id[UUID_TEXT_SIZE];

    str_append(out, "\"Status\":{");
    append_pair(out, "dataset_id", uuid_format(&v->dataset, id));
    if (!uuid_is_nil(node)) {
        str_append(out, ",");
        append_pair(out, "node", uuid_format(node, id));
    }
    if (!uuid_is_nil(&v->home) && !uuid_eq(&v->home, node)) {
        str_append(out, ",");
        append_pair(out, "wanted_on", uuid_format(&v->home, id));
    }
    if (v->home_host) {
        str_append(out, ",");
        append_pair(out, uuid_eq(&v->home, node) ? "host" : "wanted_host", v->home_host);
    }
    if (v->maximum_size)
        str_appendf(out, ",\"maximum_size\":%llu", (unsigned long long)v->maximum_size);
    if (v->profile) {
        str_append(out, ",");
        append_pair(out, "profile", v->profile);
    }
    if (v->holder_text) {
        str_append(out, ",");
        append_pair(out, "in_use_by", v->holder_text);
    }
    if (v->reason.code != REASON_NONE) {
        str_append(out, ",");
        append_pair(out, "reason_code", reason_code_name(v->reason.code));
        str_append(out, ",");
        append_pair(out, "reason", v->reason.text ? v->reason.text : reason_code_name(v->reason.code));
    }
    str_append(out, "}");
}

static void append_volume(struct str *out, const struct volume_entry *v, const char *mountpoint)
{
    str_append(out, "{");
    append_pair(out, "Name", v->name);
    str_append(out, ",");
    append_pair(out, "Mountpoint", mountpoint ? mountpoint : "");
    str_append(out, ",");
    append_status(out, v);
    str_append(out, "}");
}

void plugin_render_get(struct str *out, const struct volume_entry *v, const char *mountpoint)
{
    str_append(out, "{\"Err\":\"\",\"Volume\":");
    append_volume(out, v, mountpoint);
    str_append(out, "}\n");
}

void plugin_render_list_begin(struct str *out)
{
    str_append(out, "{\"Err\":\"\",\"Volumes\":[");
}

void plugin_render_list_volume(struct str *out, const struct volume_entry *v, const char *mountpoint)
{
    if (out->data[out->len - 1] != '[')
        str_append(out, ",\n");
    append_volume(out, v, mountpoint);
}

void plugin_render_list_end(struct str *out)
{
    str_append(out, "]}\n");
}
