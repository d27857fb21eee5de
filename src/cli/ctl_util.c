#include "cli/ctl.h"

#include "base/str.h"
#include "base/uuid.h"
#include "cli/match.h"
#include "cli/text.h"

#define SHORT_ID 8 /* characters of a uuid that people are shown */

void json_dropp(json_t **j)
{
    json_decref(*j);
    *j = NULL;
}

const char *ctl_text(const json_t *object, const char *key)
{
    const char *s = json_string_value(json_object_get(object, key));

    return s ? s : "";
}

void ctl_print_json(const json_t *j)
{
    (void)json_dumpf(j, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
    putchar('\n');
}

struct err *ctl_get_list(struct ctl *c, const char *path, json_t **ret_list)
{
    CLEANUP_JSON json_t *list = NULL;

    TRY(api_get(c->api, path, &list));
    if (!json_is_array(list))
        return err_new(ERR_CORRUPT, "the control service's answer to %s is not a list", path);
    *ret_list = steal(&list);
    return NULL;
}

json_t *ctl_index(const json_t *list, const char *key)
{
    json_t *index = json_object();
    size_t i;
    json_t *item;

    json_array_foreach (list, i, item)
        json_object_set(index, ctl_text(item, key), item);
    return index;
}

struct err *ctl_get_nodes(struct ctl *c, json_t **ret_nodes)
{
    CLEANUP_JSON json_t *list = NULL;

    TRY(ctl_get_list(c, "/v1/state/nodes", &list));
    *ret_nodes = ctl_index(list, "uuid");
    return NULL;
}

static int compare_items(const void *a, const void *b, void *key)
{
    return strcmp(ctl_text(*(json_t *const *)a, key), ctl_text(*(json_t *const *)b, key));
}

void ctl_sort(json_t *list, const char *key)
{
    size_t n = json_array_size(list);
    CLEANUP_FREE json_t **items = xcalloc(n, sizeof(json_t *));

    for (size_t i = 0; i < n; i++)
        items[i] = json_incref(json_array_get(list, i));
    qsort_r(items, n, sizeof(json_t *), compare_items, (void *)(uintptr_t)key);
    for (size_t i = 0; i < n; i++)
        (void)json_array_set_new(list, i, items[i]);
}

struct err *ctl_find_node(struct ctl *c, const char *text, char **ret_id)
{
    CLEANUP_JSON json_t *nodes = NULL;
    json_t *node;

    TRY(ctl_get_list(c, "/v1/state/nodes", &nodes));
    TRY(match_node(nodes, text, &node));
    *ret_id = xstrdup(ctl_text(node, "uuid"));
    return NULL;
}

struct err *ctl_find_any_node(struct ctl *c, const char *text, char **ret_id)
{
    CLEANUP_JSON json_t *off = NULL, *all = NULL;
    struct uuid id;
    json_t *node;
    size_t i;

    if (uuid_parse(text, &id)) {
        *ret_id = xstrdup(UUID_STR(&id));
        return NULL;
    }
    TRY(ctl_get_list(c, "/v1/state/nodes", &all));
    struct err *e = ctl_get_list(c, "/v1/fences", &off); /* nodes that are off are not among those that are alive */
    if (err_is(e, ERR_UNSUPPORTED)) /* an older control service knows none */
        e = err_free(e);
    TRY(e);
    CLEANUP_JSON json_t *alive = ctl_index(all, "uuid");
    json_array_foreach (off, i, node) {
        const char *uuid = ctl_text(node, "node_uuid");
        if (!json_object_get(alive, uuid))
            (void)json_array_append_new(all, json_pack("{s:s, s:s}", "uuid", uuid, "host", ctl_text(node, "host")));
    }
    TRY(match_node(all, text, &node));
    *ret_id = xstrdup(ctl_text(node, "uuid"));
    return NULL;
}

struct err *ctl_find_dataset(struct ctl *c, const char *text, char **ret_id)
{
    CLEANUP_JSON json_t *datasets = NULL;
    json_t *dataset;

    TRY(ctl_get_list(c, "/v1/configuration/datasets", &datasets));
    TRY(match_dataset(datasets, text, &dataset));
    *ret_id = xstrdup(ctl_text(dataset, "dataset_id"));
    return NULL;
}

char *ctl_harmless(const char *text)
{
    CLEANUP_STR struct str safe = {0};

    while (*text) {
        CLEANUP_FREE char *line = xstrndup(text, strcspn(text, "\n"));
        text_append_safe(&safe, line);
        text += strlen(line);
        if (*text == '\n')
            str_append_bytes(&safe, text++, 1);
    }
    return str_steal(&safe);
}

char *ctl_quota(const json_t *dataset)
{
    /* 1.9 servers may send a float; what no size can be is none */
    double size = json_number_value(json_object_get(dataset, "maximum_size"));

    return text_format_quota(size > 0 && size < 0x1p63 ? (uint64_t)size : 0);
}

char *ctl_server(const json_t *nodes, const char *id, bool full_id)
{
    const json_t *node = json_object_get(nodes, id);

    if (!node)
        return xstrdup("<missing>");
    return xasprintf("%.*s (%s)", full_id ? (int)strlen(id) : SHORT_ID, id, ctl_text(node, "host"));
}

char *ctl_node_text(const json_t *nodes, const char *id)
{
    if (!*id)
        return xstrdup("no node");
    if (!json_object_get(nodes, id))
        return xasprintf("%.*s (not connected)", SHORT_ID, id);
    return ctl_server(nodes, id, /* full_id= */ false);
}

struct text_progress ctl_transfer_progress(const json_t *transfer)
{
    const json_t *progress = json_object_get(transfer, "progress");
    const json_t *left = json_object_get(progress, "seconds_left");

    return (struct text_progress){
        .sent = (uint64_t)json_integer_value(json_object_get(transfer, "bytes_sent")),
        .total = (uint64_t)json_integer_value(json_object_get(transfer, "bytes_total")),
        .rate = (uint64_t)json_integer_value(json_object_get(progress, "bytes_per_second")),
        .left = json_is_integer(left) ? (long)json_integer_value(left) : -1};
}
