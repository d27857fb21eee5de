#include "agent/plugin_copy.h"

#include "drivers/durable.h"
#include "model/json.h"

#include <fcntl.h>

#define FILE_NAME "docker-volumes.json"
#define COPY_FILE_MAX (64u << 20)

void copy_begin(struct str *s)
{
    str_append(s, "{\"volumes\": [");
}

static void append_key(struct str *s, const char *key, const char *value)
{
    if (!value)
        return;
    str_appendf(s, ", \"%s\": ", key);
    json_append_string(s, value);
}

static void append_id(struct str *s, const char *key, const struct uuid *id)
{
    if (!uuid_is_nil(id))
        str_appendf(s, ", \"%s\": \"%s\"", key, UUID_STR(id));
}

/* Who holds it and why it is not where it should be are left out: that is past when the copy is read. */
void copy_append(struct str *s, const struct volume_entry *v)
{
    str_append(s, s->data[s->len - 1] == '[' ? "\n" : ",\n");
    str_appendf(s, "{\"dataset\": \"%s\"", UUID_STR(&v->dataset));
    append_key(s, "name", v->name);
    append_id(s, "home", &v->home);
    append_key(s, "home_host", v->home_host);
    append_id(s, "owner", &v->owner);
    if (v->maximum_size)
        str_appendf(s, ", \"maximum_size\": %llu", (unsigned long long)v->maximum_size);
    append_key(s, "profile", v->profile);
    str_append(s, v->born ? ", \"born\": true}" : "}");
}

void copy_end(struct str *s)
{
    str_append(s, "]}\n");
}

static bool read_id(const json_t *j, const char *key, struct uuid *ret)
{
    const json_t *v = json_object_get(j, key);

    return !v || (json_is_string(v) && uuid_parse(json_string_value(v), ret));
}

static bool read_text(const json_t *j, const char *key, const char **ret)
{
    const json_t *v = json_object_get(j, key);

    *ret = json_string_value(v);
    return !v || (*ret && strlen(*ret) <= 4 * METADATA_MAX_CHARS);
}

static bool read_entry(const json_t *j, struct volume_entry *v)
{
    const json_t *size = json_object_get(j, "maximum_size");
    const char *name, *host, *profile;

    if (!read_id(j, "dataset", &v->dataset) || uuid_is_nil(&v->dataset) || !read_id(j, "home", &v->home) ||
        !read_id(j, "owner", &v->owner) || (size && (!json_is_integer(size) || json_integer_value(size) < 0)))
        return false;
    if (!read_text(j, "name", &name) || !name || !*name || !read_text(j, "home_host", &host) || !read_text(j, "profile", &profile))
        return false;
    v->maximum_size = (uint64_t)json_integer_value(size);
    v->name = xstrdup(name);
    v->home_host = xstrdup_null(host);
    v->profile = xstrdup_null(profile);
    v->born = json_is_true(json_object_get(j, "born"));
    return true;
}

struct err *copy_parse(const char *text, size_t n, void (*fn)(void *cookie, const struct volume_entry *), void *cookie)
{
    json_error_t at;
    json_auto_t *root = json_loadb(text, n, JSON_REJECT_DUPLICATES, &at);
    const json_t *volumes = json_object_get(root, "volumes"), *j;
    size_t i;

    if (!json_is_array(volumes))
        return err_new(ERR_CORRUPT, "it is not the copy that it must be");
    json_array_foreach (volumes, i, j) {
        struct volume_entry v = {0};
        bool ok = read_entry(j, &v);

        if (ok)
            fn(cookie, &v);
        volume_entry_done(&v);
        if (!ok)
            return err_new(ERR_CORRUPT, "volume number %zu is not what it must be", i + 1);
    }
    return NULL;
}

struct err *copy_load_sync(const char *state_dir, void (*fn)(void *cookie, const struct volume_entry *), void *cookie)
{
    CLEANUP_CLOSE int dir = -1;
    CLEANUP_FREE char *text = NULL;

    TRY(dir_open(AT_FDCWD, state_dir, /* create= */ true, 0700, &dir));
    TRY(file_read(dir, FILE_NAME, COPY_FILE_MAX, &text));
    return text ? err_wrap(copy_parse(text, strlen(text), fn, cookie), "%s/" FILE_NAME, state_dir) : NULL;
}

struct err *copy_save_sync(const char *state_dir, const char *text, size_t n)
{
    CLEANUP_CLOSE int dir = -1;

    TRY(dir_open(AT_FDCWD, state_dir, /* create= */ true, 0700, &dir));
    return err_wrap(file_replace(dir, FILE_NAME, text, n), "%s", state_dir);
}
