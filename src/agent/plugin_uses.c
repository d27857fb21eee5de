#include "agent/plugin_uses.h"

#include "drivers/durable.h"
#include "model/dataset.h"
#include "model/json.h"

#include <fcntl.h>

#define FILE_NAME "docker-mounts.json"
#define USES_FILE_MAX (32u << 20)

struct plugin_volume *uses_volume(const struct plugin_uses *u, const char *name)
{
    struct plugin_volume *v;

    HASH_FIND_STR(u->by_name, name, v);
    return v;
}

static struct plugin_use *find_in(const struct plugin_volume *v, const char *mount)
{
    struct plugin_use *use;

    LIST_FOREACH (use, &v->uses, link) {
        if (streq(use->mount, mount))
            return use;
    }
    return NULL;
}

struct plugin_use *uses_find(const struct plugin_uses *u, const char *name, const char *mount)
{
    const struct plugin_volume *v = uses_volume(u, name);

    return v ? find_in(v, mount) : NULL;
}

struct plugin_use *uses_held(const struct plugin_volume *v)
{
    struct plugin_use *use;

    LIST_FOREACH (use, &v->uses, link) {
        if (use->held)
            return use;
    }
    return NULL;
}

static struct plugin_use *add(struct plugin_uses *u, const char *name, const char *mount)
{
    struct plugin_volume *v = uses_volume(u, name);
    struct plugin_use *use = xcalloc(1, sizeof(*use));

    if (!v) {
        v = xcalloc(1, sizeof(*v));
        v->name = xstrdup(name);
        LIST_INIT(&v->uses);
        HASH_ADD_KEYPTR(hh, u->by_name, v->name, strlen(v->name), v);
    }
    use->volume = v;
    use->mount = xstrdup(mount);
    LIST_INSERT_HEAD(&v->uses, use, link);
    v->n++;
    u->n++;
    return use;
}

struct err *uses_get(struct plugin_uses *u, const char *name, const char *mount, struct plugin_use **ret_use)
{
    struct plugin_volume *v = uses_volume(u, name);
    struct plugin_use *use = v ? find_in(v, mount) : NULL;

    if (!use && v && v->n >= LEASE_MOUNTS_MAX)
        return err_new(ERR_LIMIT, "the volume %s is mounted %u times on this node; it cannot be once more", name, LEASE_MOUNTS_MAX);
    if (!use && u->n >= USES_MAX)
        return err_new(ERR_LIMIT, "volumes are mounted %u times on this node; there can be no more", USES_MAX);
    *ret_use = use ? use : add(u, name, mount);
    return NULL;
}

void uses_remove(struct plugin_uses *u, struct plugin_use *use)
{
    struct plugin_volume *v = use->volume;

    LIST_REMOVE(use, link);
    free(use->mount);
    free(use);
    u->n--;
    if (--v->n)
        return;
    HASH_DEL(u->by_name, v);
    free(v->name);
    free(v);
}

void uses_done(struct plugin_uses *u)
{
    while (u->by_name)
        uses_remove(u, LIST_FIRST(&u->by_name->uses));
}

/* ---- the file ---- */

static void append_use(struct str *s, const struct plugin_use *use)
{
    str_append(s, s->data[s->len - 1] == '[' ? "\n{\"name\": " : ",\n{\"name\": ");
    json_append_string(s, use->volume->name);
    if (!uuid_is_nil(&use->volume->dataset))
        str_appendf(s, ", \"dataset\": \"%s\"", UUID_STR(&use->volume->dataset));
    str_append(s, ", \"mount\": ");
    json_append_string(s, use->mount);
    str_append(s, "}");
}

char *uses_format(const struct plugin_uses *u, const struct uuid *boot, size_t *ret_n)
{
    const struct plugin_use *use;
    struct str s = {0};

    str_appendf(&s, "{\"boot\": \"%s\", \"mounts\": [", UUID_STR(boot));
    for (const struct plugin_volume *v = u->by_name; v; v = v->hh.next) {
        LIST_FOREACH (use, &v->uses, link) {
            if (!use->parked)
                append_use(&s, use);
        }
    }
    str_append(&s, "]}\n");
    *ret_n = s.len;
    return str_steal(&s);
}

static bool read_use(const json_t *j, struct plugin_uses *u)
{
    const char *name = json_string_value(json_object_get(j, "name"));
    const char *mount = json_string_value(json_object_get(j, "mount"));
    const char *dataset = json_string_value(json_object_get(j, "dataset"));
    struct uuid id = {0};
    struct plugin_use *use = NULL;

    if (!name || !*name || strlen(name) > 4 * METADATA_MAX_CHARS || !mount || !*mount || strlen(mount) > MOUNT_ID_MAX)
        return false;
    if (json_object_get(j, "dataset") && (!dataset || !uuid_parse(dataset, &id) || uuid_is_nil(&id)))
        return false;
    if (!dataset)
        return true; /* never answered */
    struct err *e = uses_get(u, name, mount, &use);
    if (err_free(e) || !use || (!uuid_is_nil(&use->volume->dataset) && !uuid_eq(&use->volume->dataset, &id)))
        return false;
    use->volume->dataset = id;
    use->held = true;
    return true;
}

static struct err *read_all(const json_t *root, const struct uuid *boot, struct plugin_uses *u)
{
    const char *text = json_string_value(json_object_get(root, "boot"));
    const json_t *mounts = json_object_get(root, "mounts"), *j;
    struct uuid id;
    size_t i;

    if (!text || !uuid_parse(text, &id) || !json_is_array(mounts) || json_array_size(mounts) > USES_MAX)
        return err_new(ERR_CORRUPT, "it is not the record that it must be");
    if (!uuid_eq(&id, boot))
        return NULL;
    json_array_foreach (mounts, i, j) {
        if (!read_use(j, u))
            return err_new(ERR_CORRUPT, "mount number %zu is not what it must be", i + 1);
    }
    return NULL;
}

struct err *uses_parse(const char *text, size_t n, const struct uuid *boot, struct plugin_uses *ret)
{
    json_t *root = NULL;
    struct err *e = json_parse(text, n, &root);

    if (e) {
        struct err *corrupt = err_new(ERR_CORRUPT, "%s", e->text);
        err_free(e);
        return corrupt;
    }
    e = read_all(root, boot, ret);
    json_decref(root);
    if (e)
        uses_done(ret);
    return e;
}

struct err *uses_load_sync(const char *state_dir, const struct uuid *boot, struct plugin_uses *ret)
{
    CLEANUP_CLOSE int dir = -1;
    CLEANUP_FREE char *text = NULL;

    TRY(dir_open(AT_FDCWD, state_dir, /* create= */ true, 0700, &dir));
    TRY(file_read(dir, FILE_NAME, USES_FILE_MAX, &text));
    if (!text)
        return NULL;
    return err_wrap(uses_parse(text, strlen(text), boot, ret), "%s/" FILE_NAME " is damaged", state_dir);
}

struct err *uses_save_sync(const char *state_dir, const char *text, size_t n)
{
    CLEANUP_CLOSE int dir = -1;

    TRY(dir_open(AT_FDCWD, state_dir, /* create= */ true, 0700, &dir));
    return err_wrap(file_replace(dir, FILE_NAME, text, n), "%s", state_dir);
}
