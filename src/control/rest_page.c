/* Filters and pages of lists: ?name=, ?node=, ?limit=, ?after=. A page is in the order of the keys
 * (ids, or names of containers), which does not change while others come and go: whoever follows the
 * links sees everything that was there all the time, once. What passes no filter costs time too: a page for which many keys must
 * be looked at is made in several turns of the loop. */
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

static bool parse(struct page *p, unsigned flags)
{
    struct http_request *r = p->request;
    CLEANUP_FREE char *limit = http_request_query_value(r, "limit");
    CLEANUP_FREE char *after = http_request_query_value(r, "after");
    CLEANUP_FREE char *node = flags & PAGE_NODE ? http_request_query_value(r, "node") : NULL;
    struct uuid id;

    p->by_name = flags & PAGE_BY_NAME;
    p->name = flags & PAGE_NAME ? http_request_query_value(r, "name") : NULL;
    p->wanted = limit || node || after || p->name;
    if (limit && !parse_limit(limit, &p->limit))
        return complain(r, "limit", "a whole number from 1 to 100000");
    if (p->by_name)
        p->after_name = steal(&after);
    else if (after && !uuid_parse(after, &id))
        return complain(r, "after", "an id of the list, a UUID");
    else if (after)
        p->after = xmemdup(&id, sizeof(id));
    if (node && !uuid_parse(node, &id))
        return complain(r, "node", "the UUID of a node");
    p->node = node ? xmemdup(&id, sizeof(id)) : NULL;
    return true;
}

struct page *page_new(struct rest *rest, struct http_request *r, unsigned flags)
{
    struct page *p = xcalloc(1, sizeof(*p));

    *p = (struct page){.rest = rest, .request = r};
    return parse(p, flags) ? p : page_free(p);
}

static void page_done(struct page *p)
{
    free(p->after);
    free(p->after_name);
    free(p->name);
    free(p->node);
    free(p->tag);
    free(p->last);
    str_done(&p->text);
}

struct page *page_free(struct page *p)
{
    page_done(p);
    free(p);
    return NULL;
}

bool page_has(const struct page *p, const char *name, const struct uuid *node)
{
    if (p->name && !(name && streq(p->name, name)))
        return false;
    return !p->node || uuid_eq(p->node, node);
}

struct str *page_item(struct page *p, const char *key)
{
    if (!p->last || !streq(p->last, key)) {
        p->more = p->limit && p->keys == p->limit;
        if (p->more)
            return NULL;
        free(p->last);
        p->last = xstrdup(key);
        p->keys++;
    }
    str_append(&p->text, p->text.len > 0 ? "," : "[");
    return &p->text;
}

static bool may_look_on(struct page *p)
{
    p->paused = p->request && !p->more && ++p->turn == TURN_KEYS;
    return !p->more && !p->paused;
}

bool page_looked_at(struct page *p, const struct uuid *id)
{
    bool on = may_look_on(p);

    if (p->paused) {
        free(p->after);
        p->after = xmemdup(id, sizeof(*id));
    }
    return on;
}

bool page_looked_at_name(struct page *p, const char *name)
{
    bool on = may_look_on(p);

    if (p->paused) {
        free(p->after_name);
        p->after_name = xstrdup(name);
    }
    return on;
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
static char *link_to_next(const struct page *p)
{
    struct str s = {0};

    if (!p->more)
        return NULL;
    str_appendf(&s, "<%s?limit=%zu", http_request_path(p->request), p->limit);
    if (p->name)
        append_parameter(&s, "name", p->name);
    if (p->node)
        append_parameter(&s, "node", UUID_STR(p->node));
    append_parameter(&s, "after", p->last);
    str_append(&s, ">; rel=\"next\"");
    return str_steal(&s);
}

static void look(struct page *p)
{
    struct list_query q = {.after = p->after,
                           .after_name = p->after_name,
                           .name = p->name,
                           .node = p->node,
                           .about = p->limit};

    p->turn = 0;
    p->paused = false;
    p->walk(p, &q);
}

static struct document *finish(struct page *p)
{
    str_append(&p->text, p->text.len > 0 ? "]" : "[]");
    return document_new(&p->text);
}

static void respond(struct page *p)
{
    CLEANUP_FREE char *link = link_to_next(p);
    struct http_header headers[2];
    size_t n = 0;

    if (p->tag)
        headers[n++] = (struct http_header){"X-Configuration-Tag", p->tag};
    if (link)
        headers[n++] = (struct http_header){"Link", link};
    respond_document(p->request, finish(p), headers, n);
}

static void go_on(void *cookie);

static void client_gone(void *cookie)
{
    struct page *p = cookie;

    loop_unpost(p->rest->config.loop, go_on, p);
    http_drop(p->request);
    page_free(p);
}

/* Others are served before the next turn; what they change belongs to the list if its key comes later. */
static void go_on(void *cookie)
{
    struct page *p = cookie;

    look(p);
    if (p->paused) {
        loop_post(p->rest->config.loop, go_on, p);
        return;
    }
    http_request_on_close(p->request, NULL, NULL);
    respond(p);
    page_free(p);
}

void page_answer(struct page *p, void (*walk)(struct page *p, const struct list_query *q))
{
    p->walk = walk;
    http_request_on_close(p->request, client_gone, p);
    go_on(p);
}

struct document *page_whole(struct rest *rest,
                            void (*walk)(struct page *p, const struct list_query *q))
{
    CLEANUP(page_done) struct page p = {.rest = rest, .walk = walk};

    look(&p);
    return finish(&p);
}
