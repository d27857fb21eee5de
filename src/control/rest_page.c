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

    *p = (struct page){.by_name = flags & PAGE_BY_NAME};
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

struct list_query page_query(const struct page *p)
{
    return (struct list_query){.after = p->after && !p->by_name ? &p->after_id : NULL,
                               .after_name = p->by_name ? p->after : NULL,
                               .name = p->name,
                               .node = p->has_node ? &p->node : NULL,
                               .about = p->limit};
}

static bool same_key(const struct page_item *a, const struct page_item *b)
{
    return a->name ? streq(a->name, b->name) : uuid_eq(&a->id, &b->id);
}

bool page_add(struct page *p, struct page_item item)
{
    if (p->n == 0 || !same_key(&p->items[p->n - 1], &item)) {
        p->more = p->limit && p->keys == p->limit;
        if (p->more)
            return false;
        p->keys++;
    }
    p->items = mem_grow(p->items, p->n, &p->cap, sizeof(*p->items));
    p->items[p->n++] = item;
    return true;
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

/* The value of the header Link, when more follow; else NULL. The caller frees it. */
static char *link_to_next(const struct page *p, const struct http_request *r)
{
    struct str s = {0};

    if (!p->more)
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

void page_append(const struct page *p, struct str *s, page_append_fn *append, void *cookie)
{
    str_append(s, "[");
    for (size_t i = 0; i < p->n; i++) {
        if (i > 0)
            str_append(s, ",");
        append(cookie, s, &p->items[i]);
    }
    str_append(s, "]");
}

void respond_page(struct http_request *r, const struct page *p, page_append_fn *append, void *cookie,
                  const struct http_header *header)
{
    CLEANUP_FREE char *link = link_to_next(p, r);
    struct http_header headers[2];
    size_t n = 0;
    struct str s = {0};

    page_append(p, &s, append, cookie);
    if (header)
        headers[n++] = *header;
    if (link)
        headers[n++] = (struct http_header){"Link", link};
    respond_document(r, document_new(&s), headers, n);
}
