/* Bodies about datasets. */
#include "model/validate_private.h"

static void check_dataset_id(struct check *c, const char *where, const json_t *v, void *to)
{
    check_uuid_v4(c, where, v, &((struct dataset *)to)->id);
}

static void check_primary(struct check *c, const char *where, const json_t *v, void *to)
{
    check_uuid_v4(c, where, v, &((struct dataset *)to)->primary);
}

static void check_deleted(struct check *c, const char *where, const json_t *v, void *to)
{
    complain(c, "\"%s\" cannot be given when a dataset is created; delete it with DELETE", where);
}

static void check_maximum_size(struct check *c, const char *where, const json_t *v, void *to)
{
    struct dataset *d = to;
    json_int_t size;

    if (json_is_null(v) || !check_integer(c, where, v, DATASET_MIN_SIZE, INT64_MAX, &size))
        return;
    if (size % DATASET_SIZE_STEP)
        complain(c, "\"%s\" must be a multiple of %u", where, DATASET_SIZE_STEP);
    d->maximum_size = (uint64_t)size;
}

static bool check_metadata_entry(struct check *c, const char *key, const json_t *v)
{
    size_t n = characters(key);

    if (n < 1 || n > METADATA_MAX_CHARS || strchr(key, '\n')) {
        complain(
            c, "a key of \"metadata\" must have 1 to %d characters on one line; \"%.100s\" has %zu",
            METADATA_MAX_CHARS, key, n);
        return false;
    }
    if (!json_is_string(v) || characters(json_string_value(v)) > METADATA_MAX_CHARS) {
        complain(c, "\"metadata.%.100s\" must be a text of at most %d characters", key,
                 METADATA_MAX_CHARS);
        return false;
    }
    return true;
}

static void check_metadata(struct check *c, const char *where, const json_t *v, void *to)
{
    struct metadata *m = &((struct dataset *)to)->metadata;
    const char *key;
    json_t *item;

    if (!json_is_object(v)) {
        complain(c, "\"%s\" must be an object of texts", where);
        return;
    }
    if (json_object_size(v) > METADATA_MAX_ENTRIES) {
        complain(c, "\"%s\" must have at most %d keys", where, METADATA_MAX_ENTRIES);
        return;
    }
    m->entries = xcalloc(json_object_size(v), sizeof(*m->entries));
    json_object_foreach ((json_t *)v, key, item) {
        if (check_metadata_entry(c, key, item))
            m->entries[m->n++] = (struct metadata_entry){.key = xstrdup(key),
                                                         .value = xstrdup(json_string_value(item))};
    }
}

json_t *validate_dataset_create(const json_t *body, struct dataset **ret)
{
    static const struct field fields[] = {
        {"primary", true, check_primary},
        {"dataset_id", false, check_dataset_id},
        {"deleted", false, check_deleted},
        {"metadata", false, check_metadata},
        {"maximum_size", false, check_maximum_size},
    };
    struct dataset *d = dataset_new(UUID_NIL);
    struct check c = {0};

    check_object(&c, "", body, fields, ARRAY_SIZE(fields), d);
    if (c.errors)
        dataset_free(d);
    else
        *ret = d;
    return c.errors;
}

json_t *validate_dataset_update(const json_t *body, struct dataset **ret, bool *ret_has_metadata)
{
    static const struct field fields[] = {
        {"primary", false, check_primary},
        {"metadata", false, check_metadata},
        {"maximum_size", false, check_maximum_size},
    };
    struct dataset *d = dataset_new(UUID_NIL);
    struct check c = {0};

    check_object(&c, "", body, fields, ARRAY_SIZE(fields), d);
    if (c.errors) {
        dataset_free(d);
        return c.errors;
    }
    *ret = d;
    *ret_has_metadata = json_object_get(body, "metadata") != NULL;
    return NULL;
}
