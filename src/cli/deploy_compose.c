#include "cli/deploy_compose.h"

#include "base/str.h"
#include "cli/ctl.h"
#include "cli/interpolate.h"
#include "cli/pair_file.h"

#include <ctype.h>
#include <libgen.h>
#include <stdio.h>
#include <unistd.h>

/* ---- merge keys ---- */

static struct err *merge_into(json_t *object, const json_t *merged)
{
    const json_t *item;
    size_t i;

    if (!json_is_object(merged) && !json_is_array(merged))
        return err_new(ERR_INVALID, "'<<' must be a dictionary, or a list of them");
    if (json_is_object(merged))
        (void)json_object_update_missing(object, (json_t *)(uintptr_t)merged);
    json_array_foreach (merged, i, item) {
        if (!json_is_object(item))
            return err_new(ERR_INVALID, "'<<' must be a dictionary, or a list of them");
        (void)json_object_update_missing(object, (json_t *)(uintptr_t)item);
    }
    return NULL;
}

struct err *deploy_merge_keys(json_t *value)
{
    const char *key;
    json_t *item;
    size_t i;

    json_object_foreach (value, key, item)
        TRY(deploy_merge_keys(item));
    json_array_foreach (value, i, item)
        TRY(deploy_merge_keys(item));
    CLEANUP_JSON json_t *merged = json_incref(json_object_get(value, "<<"));
    if (!merged)
        return NULL;
    (void)json_object_del(value, "<<");
    return merge_into(value, merged);
}

/* ---- variables ---- */

struct scope {
    char *directory; /* of the file; owned */
    json_t *dot_env; /* variables of .env; owned */
    const json_t *more; /* of the file of variables that is read; borrowed; NULL = none */
};

static void scope_done(struct scope *s)
{
    free(s->directory);
    json_decref(s->dot_env);
}

/* The environment wins. */
static const char *find_variable(void *cookie, const char *name)
{
    const struct scope *s = cookie;
    const char *value = getenv(name);

    if (!value)
        value = json_string_value(json_object_get(s->more, name));
    return value ? value : json_string_value(json_object_get(s->dot_env, name));
}

static void warn_unset(const json_t *unset)
{
    const char *name;
    json_t *value;

    json_object_foreach ((json_t *)(uintptr_t)unset, name, value)
        fprintf(stderr, "Warning: the variable %s is not set; it stands for nothing.\n", name);
}

static struct err *read_variables(struct scope *s, const char *path, json_t *to)
{
    CLEANUP_FREE char *text = NULL;
    CLEANUP_JSON json_t *unset = json_object();
    struct variables v = {.cookie = s, .find = find_variable, .unset = unset};

    TRY(text_file_read("A file of variables cannot be read.", path, &text));
    s->more = to; /* a value may use those above it */
    struct err *e = err_wrap(env_file_read(text, &v, to), "%s", path);
    s->more = NULL;
    warn_unset(unset);
    return e;
}

static char *beside(const struct scope *s, const char *path)
{
    return *path == '/' ? xstrdup(path) : xasprintf("%s/%s", s->directory, path);
}

static struct err *scope_open(struct scope *s, const char *file)
{
    CLEANUP_FREE char *copy = xstrdup(file);

    *s = (struct scope){.directory = xstrdup(dirname(copy)), .dot_env = json_object()};
    CLEANUP_FREE char *path = beside(s, ".env");
    return access(path, F_OK) == 0 ? read_variables(s, path, s->dot_env) : NULL;
}

/* ---- the environment of a service ---- */

/* One file: "path", or {"path": ..., "required": false}. */
static struct err *add_env_file(struct scope *s, const json_t *v, json_t *to)
{
    const char *name = json_string_value(json_is_object(v) ? json_object_get(v, "path") : v), *key;
    const json_t *required = json_object_get(v, "required");
    json_t *value;

    json_object_foreach ((json_t *)(uintptr_t)v, key, value) {
        if (!streq(key, "path") && !streq(key, "required"))
            return err_new(ERR_INVALID, "env_file.%s is not supported", key);
    }
    if (!name || !*name)
        return err_new(ERR_INVALID, "env_file must be a path, or a list of paths");
    CLEANUP_FREE char *path = beside(s, name);
    if (access(path, F_OK) < 0 && json_is_false(required))
        return NULL;
    return read_variables(s, path, to);
}

static struct err *read_env_files(struct scope *s, const json_t *v, json_t *to)
{
    const json_t *item;
    size_t i;

    if (!json_is_array(v))
        return add_env_file(s, v, to);
    json_array_foreach (v, i, item)
        TRY(add_env_file(s, item, to));
    return NULL;
}

/* A list becomes a map. What is odd stays for the control service to complain about. */
static json_t *environment_map(const json_t *v)
{
    json_t *map, *item;
    size_t i;

    if (!json_is_array(v))
        return v && !json_is_null(v) ? json_deep_copy(v) : json_object();
    map = json_object();
    json_array_foreach (v, i, item) {
        const char *text = json_string_value(item), *equals = text ? strchr(text, '=') : NULL;
        if (!text) {
            json_decref(map);
            return json_deep_copy(v);
        }
        CLEANUP_FREE char *name = equals ? xstrndup(text, (size_t)(equals - text)) : xstrdup(text);
        (void)json_object_set_new(map, name, equals ? json_string(equals + 1) : json_null());
    }
    return map;
}

/* A name without a value has that of the environment here; when there is none it is left out. */
static void resolve_names(struct scope *s, json_t *map)
{
    const char *name;
    json_t *value;
    void *next;

    json_object_foreach_safe (map, next, name, value) {
        const char *here = json_is_null(value) ? find_variable(s, name) : NULL;
        if (here)
            (void)json_object_set_new(map, name, json_string(here));
        else if (json_is_null(value))
            (void)json_object_del(map, name);
    }
}

static struct err *settle_service(struct scope *s, json_t *service)
{
    const json_t *files = json_object_get(service, "env_file"), *given = json_object_get(service, "environment");
    CLEANUP_JSON json_t *map = json_object();

    if (!json_is_object(service) || (!files && !given))
        return NULL;
    if (files)
        TRY(read_env_files(s, files, map));
    CLEANUP_JSON json_t *own = environment_map(given);
    if (!json_is_object(own))
        return NULL;
    (void)json_object_update(map, own);
    resolve_names(s, map);
    (void)json_object_del(service, "env_file");
    (void)json_object_set(service, "environment", map);
    return NULL;
}

/* ---- the project ---- */

/* As Docker Compose makes it of a folder's name. */
static char *project_name(const char *text)
{
    CLEANUP_STR struct str name = {0};

    for (; *text; text++) {
        char c = (char)tolower((unsigned char)*text);
        if (isalnum((unsigned char)c) || (name.len && (c == '-' || c == '_')))
            str_append_bytes(&name, &c, 1);
    }
    return str_steal(&name);
}

static struct err *set_project(json_t *file, const struct scope *s, const char *project)
{
    const char *own = json_string_value(json_object_get(file, "name"));
    CLEANUP_FREE char *folder = NULL;
    CLEANUP_FREE char *name = NULL;

    if (project || own) {
        (void)json_object_set_new(file, "name", json_string(project ? project : own));
        return NULL;
    }
    folder = realpath(s->directory, NULL);
    name = project_name(folder ? basename(folder) : "");
    if (!*name)
        return err_new(ERR_INVALID, "the project has no name; give it one with --project, or with name in the file");
    (void)json_object_set_new(file, "name", json_string(name));
    return NULL;
}

static struct err *settle(json_t *file, struct scope *s, const char *project)
{
    CLEANUP_JSON json_t *unset = json_object();
    struct variables v = {.cookie = s, .find = find_variable, .unset = unset};
    const char *name;
    json_t *service;

    TRY(deploy_merge_keys(file));
    TRY(interpolate_all(file, &v));
    warn_unset(unset);
    json_object_foreach (json_object_get(file, "services"), name, service)
        TRY(err_wrap(settle_service(s, service), "services.%s", name));
    return set_project(file, s, project);
}

struct err *deploy_compose_settle(json_t *file, const char *path, const char *project)
{
    CLEANUP(scope_done) struct scope s = {0};

    TRY(scope_open(&s, path));
    return err_wrap(settle(file, &s, project), "%s", path);
}
