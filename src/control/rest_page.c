/* Filters and pages of lists: ?name=, ?node=, ?limit=, ?after=. A page is in the order of the keys
 * (ids, or names of containers), which does not change while others come and go: whoever follows the
 * links sees everything that was there all the time, once. */
#include "control/rest_internal.h"

#include <ctype.h>

#define LIMIT_MAX 100000u

static bool parse_limit(const char *text, size_t *ret)
{
    size_t v = 0;

    if (!*text || strlen(text) > 6)
        return false;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        v = v * 10 + (size_t)(*text - '0');
    }
    *ret = v;
    return v >= 1 && v <= LIMIT_MAX;
}

static bool complain(struct http_request *r, const char *name, const char *must)
{
    respond_error_about(r, REST_ERROR_BAD_PARAMETER, "The parameter %s must be %s.", name, must);
    return false;
}

bool page_parse(struct http_request *r, unsigned flags, struct page *p)
{
    CLEANUP_FREE char *limit = http_request_query_value(r, "limit");
    CLEANUP_FREE char *node = flags & PAGE_NODE ? http_request_query_value(r, "node") : NULL;

    *p = (struct page){0};
    p->after = http_request_query_value(r, "after");
    p->name = flags & PAGE_NAME ? http_request_query_value(r, "name") : NULL;
    if (limit && !parse_limit(limit, &p->limit))
        return complain(r, "limit", "a whole number from 1 to 100000");
    if (p->after && !(flags & PAGE_BY_NAME) && !uuid_parse(p->after, &p->after_id))
        return complain(r, "after", "an id of the list, a UUID");
    if (node && !uuid_parse(node, &p->node))
        return complain(r, "node", "the UUID of a node");
    p->has_node = node != NULL;
    p->wanted = limit || node || p->after || p->name;
    return true;
}

void page_done(struct page *p)
{
    free(p->after);
    free(p->name);
    free(p->items);
}

bool page_has(const struct page *p, const char *name, const struct uuid *node)
{
    if (p->name && !(name && streq(p->name, name)))
        return false;
    return !p->has_node || uuid_eq(&p->node, node);
}

static int compare_keys(const struct page_item *a, const struct page_item *b)
{
    return a->name ? strcmp(a->name, b->name) : uuid_cmp(&a->id, &b->id);
}

static int compare_items(const void *a, const void *b)
{
    const struct page_item *p = a, *q = b;
    int order = compare_keys(p, q);

    if (order == 0 && p->extra != q->extra)
        return p->extra < q->extra ? -1 : 1;
    return order ? order : uuid_cmp(&p->id, &q->id);
}

/* Sorts, and forgets what is beyond `keys` of them. True when something was. */
static bool cut(struct page *p, size_t keys)
{
    if (p->n)
        qsort(p->items, p->n, sizeof(*p->items), compare_items);
    for (size_t i = 0; i < p->n; i++) {
        if (i > 0 && compare_keys(&p->items[i - 1], &p->items[i]) == 0)
            continue;
        if (keys-- > 0)
            continue;
        p->n = i;
        return true;
    }
    return false;
}

void page_add(struct page *p, struct page_item item)
{
    if (p->after &&
        (item.name ? strcmp(item.name, p->after) : uuid_cmp(&item.id, &p->after_id)) <= 0)
        return;
    /* Of a long list only as much is kept as two pages. */
    if (p->limit && p->n > 2 * p->limit + 1000)
        cut(p, p->limit + 1);
    p->items = mem_grow(p->items, p->n, &p->cap, sizeof(*p->items));
    p->items[p->n++] = item;
}

static void append_parameter(struct str *s, const char *name, const char *value)
{
    str_appendf(s, "&%s=", name);
    for (; *value; value++) {
        if (isascii(*value) && (isalnum((unsigned char)*value) || strchr("-._~", *value)))
            str_append_bytes(s, value, 1);
        else
            str_appendf(s, "%%%02X", (unsigned char)*value);
    }
}

char *page_finish(struct page *p, const struct http_request *r)
{
    struct str s = {0};

    if (!cut(p, p->limit ? p->limit : SIZE_MAX))
        return NULL;
    const struct page_item *last = &p->items[p->n - 1];
    str_appendf(&s, "<%s?limit=%zu", http_request_path(r), p->limit);
    if (p->name)
        append_parameter(&s, "name", p->name);
    if (p->has_node)
        append_parameter(&s, "node", UUID_STR(&p->node));
    append_parameter(&s, "after", last->name ? last->name : UUID_STR(&last->id));
    str_append(&s, ">; rel=\"next\"");
    return str_steal(&s);
}

void respond_page(struct http_request *r, struct page *p,
                  void (*append)(void *cookie, struct str *s, const struct page_item *item),
                  void *cookie, const struct http_header *header)
{
    CLEANUP_FREE char *link = page_finish(p, r);
    struct http_header headers[2];
    size_t n = 0;
    struct str s = {0};

    str_append(&s, "[");
    for (size_t i = 0; i < p->n; i++) {
        if (i > 0)
            str_append(&s, ",");
        append(cookie, &s, &p->items[i]);
    }
    str_append(&s, "]");
    if (header)
        headers[n++] = *header;
    if (link)
        headers[n++] = (struct http_header){"Link", link};
    respond_document(r, document_new(&s), headers, n);
}
