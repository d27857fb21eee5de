/* Volumes of a Compose file, each a dataset, and where services mount them. */
#include "model/compose_services.h"

#include <string.h>

#define ID_PREFIX "compose-volume:" /* not the ids of applications of the other formats */

static char *volume_size(const char *name, const json_t *v, json_int_t *ret)
{
    const json_t *own = json_object_get(v, "x-flocker-size"),
                 *option = json_object_get(json_object_get(v, "driver_opts"), "size");

    if (own && option)
        return xasprintf(
            "volumes.%s: the size is given twice, as x-flocker-size and under driver_opts", name);
    if (!own && !option)
        return NULL;
    if (!take_bytes(own ? own : option, ret))
        return xasprintf("volumes.%s: the size must be a number of bytes, such as 10G", name);
    if (*ret < (json_int_t)DATASET_MIN_SIZE)
        return xasprintf("volumes.%s: the size must be at least %u bytes", name, DATASET_MIN_SIZE);
    if (*ret > INT64_MAX - (json_int_t)DATASET_SIZE_STEP)
        return xasprintf("volumes.%s: the size is too large", name);
    *ret = (*ret + (json_int_t)DATASET_SIZE_STEP - 1) / (json_int_t)DATASET_SIZE_STEP *
           (json_int_t)DATASET_SIZE_STEP;
    return NULL;
}

static char *volume_id(const char *name, const json_t *v, const char *full, struct uuid *ret)
{
    const json_t *given = json_object_get(v, "x-flocker-dataset-id");
    CLEANUP_FREE char *seed = xasprintf(ID_PREFIX "%s", full);

    *ret = compose_dataset_id(seed);
    if (given && (!json_is_string(given) || !uuid_parse_v4(json_string_value(given), ret)))
        return xasprintf("volumes.%s.x-flocker-dataset-id: must be a version 4 UUID", name);
    return NULL;
}

static char *check_driver(const char *name, const json_t *v)
{
    CLEANUP_FREE char *driver = scalar_text(json_object_get(v, "driver"));

    if (!driver || streq(driver, "flocker") || streq(driver, "local"))
        return NULL;
    return xasprintf("volumes.%s.driver: '%s' is not supported; leave it out, or say flocker", name,
                     driver);
}

/* Its dataset, with "id", "size" and "name", goes to all->volumes. */
static char *declare_volume(struct applications *all, const char *project, const char *name,
                            const json_t *v)
{
    static const char *const known[] = {"name", "driver", "driver_opts", NULL}, *const options[] = {
                                                                                    "size", NULL};
    CLEANUP_FREE char *where = xasprintf("volumes.%s", name);
    CLEANUP_FREE char *deeper = xasprintf("volumes.%s.driver_opts", name);
    CLEANUP_FREE char *own = scalar_text(json_object_get(v, "name"));
    CLEANUP_FREE char *full =
        own ? xstrdup(own) : xasprintf("%s%s%s", project, *project ? "_" : "", name);
    json_int_t size = 0;
    struct uuid id;

    if (v && !json_is_object(v) && !json_is_null(v))
        return xasprintf("%s: must be a dictionary", where);
    const json_t *opts = json_object_get(v, "driver_opts");
    if (opts && !json_is_object(opts) && !json_is_null(opts))
        return xasprintf("%s: must be a dictionary", deeper);
    note_others(all, where, v, known);
    note_others(all, deeper, opts, options);
    if (!*full || strlen(full) > 256)
        return xasprintf("%s: the name of a volume, with the project's, has from 1 to 256 bytes",
                         where);
    char *text = check_driver(name, v);
    if (!text)
        text = volume_size(name, v, &size);
    if (!text)
        text = volume_id(name, v, full, &id);
    if (text)
        return text;
    (void)json_object_set_new(
        all->volumes, name,
        json_pack("{s:s, s:I, s:s}", "id", UUID_STR(&id), "size", size, "name", full));
    return NULL;
}

char *declare_volumes(struct applications *all, const json_t *file)
{
    const json_t *volumes = json_object_get(file, "volumes");
    const char *project = json_string_value(json_object_get(file, "name")), *name;
    json_t *v;

    all->volumes = json_object();
    if (volumes && !json_is_object(volumes) && !json_is_null(volumes))
        return xstrdup("volumes: must be a dictionary");
    json_object_foreach ((json_t *)(uintptr_t)volumes, name, v) {
        char *text = declare_volume(all, project ? project : "", name, v);
        if (text)
            return text;
    }
    return NULL;
}

static char *mount_volume(struct applications *all, struct application *a, const char *name,
                          const char *target, bool read_only)
{
    json_t *volume = json_object_get(all->volumes, name);
    const char *user = json_string_value(json_object_get(volume, "user"));
    struct uuid id;

    if (!volume)
        return service_error(a, "volumes",
                             "'%s' is not among the volumes at the top level of the file", name);
    if (user)
        return service_error(
            a, "volumes",
            "'%s' is mounted by services.%s already; a dataset is in one container only", name,
            user);
    if (*target != '/')
        return service_error(a, "volumes", "'%s' is not an absolute path", target);
    (void)json_object_set_new(volume, "user", json_string(a->name));
    (void)uuid_parse(json_string_value(json_object_get(volume, "id")), &id);
    take_volume(a, &(struct volume_wish){.dataset = id,
                                         .name = json_string_value(json_object_get(volume, "name")),
                                         .mountpoint = target,
                                         .maximum_size = (uint64_t)json_integer_value(
                                             json_object_get(volume, "size")),
                                         .read_only = read_only});
    return NULL;
}

/* "data:/path", "data:/path:ro" */
static char *short_volume(struct applications *all, struct application *a, const char *text)
{
    const char *colon = strchr(text, ':');
    CLEANUP_FREE char *name = xstrndup(text, colon ? (size_t)(colon - text) : strlen(text));

    if (strchr("./~", *name))
        return service_error(
            a, "volumes",
            "'%s': %s is not supported; name a volume, and declare it at the top level", text,
            colon ? "a path of the host" : "a volume without a name");
    if (!colon)
        return service_error(a, "volumes", "'%s' must be NAME:/PATH, or NAME:/PATH:ro", text);
    const char *second = strchr(colon + 1, ':'), *mode = second ? second + 1 : "rw";
    CLEANUP_FREE char *target =
        xstrndup(colon + 1, second ? (size_t)(second - colon - 1) : strlen(colon + 1));
    if (!streq(mode, "ro") && !streq(mode, "rw"))
        return service_error(a, "volumes", "'%s': the mode %s is not supported, only ro and rw are",
                             text, mode);
    return mount_volume(all, a, name, target, streq(mode, "ro"));
}

static char *long_volume(struct applications *all, struct application *a, const json_t *v)
{
    static const char *const known[] = {"type", "source", "target", "read_only", NULL};
    CLEANUP_FREE char *where = xasprintf("services.%s.volumes", a->name);
    CLEANUP_FREE char *type = scalar_text(json_object_get(v, "type"));
    const char *source = json_string_value(json_object_get(v, "source")),
               *target = json_string_value(json_object_get(v, "target"));
    const json_t *read_only = json_object_get(v, "read_only");
    bool ro = false;

    note_others(all, where, v, known);
    if (!type || !streq(type, "volume"))
        return service_error(a, "volumes", "the type '%s' is not supported, only volume is",
                             type ? type : "");
    if (!source || !target)
        return service_error(a, "volumes", "a volume needs a source and a target");
    if (read_only && !take_boolean(read_only, &ro))
        return service_error(a, "volumes", "read_only must be true or false");
    return mount_volume(all, a, source, target, ro);
}

char *service_volumes(struct applications *all, struct application *a, const char *key,
                      const json_t *v)
{
    const json_t *item;
    size_t i;

    if (!json_is_array(v))
        return service_error(a, key, "must be a list");
    json_array_foreach (v, i, item) {
        char *text = json_is_object(item) ? long_volume(all, a, item)
                     : json_is_string(item)
                         ? short_volume(all, a, json_string_value(item))
                         : service_error(a, key, "must be a list of texts or dictionaries");
        if (text)
            return text;
    }
    return NULL;
}
