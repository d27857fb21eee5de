#include "cli/match.h"

#include "base/str.h"
#include "base/uuid.h"

#include <strings.h>

#define MAX_LISTED 5 /* of the ambiguous ones, in the error */

struct found {
    json_t *item;
    size_t n;
    struct str list;
};

static const char *text_of(const json_t *item, const char *key)
{
    const char *s = json_string_value(json_object_get(item, key));

    return s ? s : "";
}

static void found_add(struct found *f, json_t *item, const char *id)
{
    f->item = item;
    if (f->n++ < MAX_LISTED)
        str_appendf(&f->list, "%s%s", f->n > 1 ? ", " : "", id);
    else if (f->n == MAX_LISTED + 1)
        str_append(&f->list, ", ...");
}

static bool id_matches(const char *id, const char *text)
{
    return *text && strncasecmp(id, text, strlen(text)) == 0;
}

static struct err *found_result(struct found *f, const char *text, const char *kind,
                                json_t **ret_item)
{
    CLEANUP_FREE char *list = str_steal(&f->list);

    if (f->n == 0)
        return err_new(ERR_NOT_FOUND, "no %s uuids matching %s", kind, text);
    if (f->n > 1)
        return err_new(ERR_CONFLICT, "%s is ambiguous %s (it can be %s)", text, kind, list);
    *ret_item = f->item;
    return NULL;
}

static void search_datasets(const json_t *datasets, const char *text, bool deleted, struct found *f)
{
    size_t i;
    json_t *item;

    json_array_foreach (datasets, i, item) {
        const char *id = text_of(item, "dataset_id");
        const char *name = text_of(json_object_get(item, "metadata"), "name");
        if (json_is_true(json_object_get(item, "deleted")) != deleted)
            continue;
        if (id_matches(id, text) || (*text && streq(name, text)))
            found_add(f, item, id);
    }
}

struct err *match_dataset(const json_t *datasets, const char *text, json_t **ret_item)
{
    struct found f = {0};
    size_t i;
    json_t *item;

    json_array_foreach (datasets, i, item) {
        if (strlen(text) == UUID_TEXT_SIZE - 1 &&
            strcasecmp(text_of(item, "dataset_id"), text) == 0) {
            *ret_item = item;
            return NULL;
        }
    }
    search_datasets(datasets, text, false, &f);
    if (!f.n)
        search_datasets(datasets, text, true, &f);
    return found_result(&f, text, "dataset", ret_item);
}

struct err *match_node(const json_t *nodes, const char *text, json_t **ret_item)
{
    struct found f = {0};
    size_t i;
    json_t *item;

    json_array_foreach (nodes, i, item) {
        const char *id = text_of(item, "uuid");
        if (id_matches(id, text) || (*text && streq(text_of(item, "host"), text)))
            found_add(&f, item, id);
    }
    return found_result(&f, text, "node", ret_item);
}
