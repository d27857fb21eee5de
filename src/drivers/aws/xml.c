#include "drivers/aws/xml.h"

#include "base/str.h"

#include <expat.h>

struct parsing {
    XML_Parser parser;
    struct xml *root, *open[XML_DEPTH_MAX];
    struct str texts[XML_DEPTH_MAX];
    size_t depth, n;
    const char *wrong; /* why it was stopped */
};

static void stop(struct parsing *p, const char *why)
{
    p->wrong = why;
    (void)XML_StopParser(p->parser, XML_FALSE);
}

static const char *local_name(const char *name)
{
    const char *colon = strrchr(name, ':');

    return colon ? colon + 1 : name;
}

static void on_start(void *cookie, const char *name, const char **attributes)
{
    struct parsing *p = cookie;

    if (p->wrong)
        return;
    if (p->depth == XML_DEPTH_MAX || p->n == XML_NODES_MAX) {
        stop(p, p->depth == XML_DEPTH_MAX ? "it is nested too deeply" : "it has too many elements");
        return;
    }
    if (!*local_name(name)) {
        stop(p, "an element has no name but a prefix");
        return;
    }
    struct xml *x = xcalloc(1, sizeof(*x));
    struct xml *in = p->depth ? p->open[p->depth - 1] : NULL;

    x->name = xstrdup(local_name(name));
    if (!in)
        p->root = x;
    else if (in->last)
        in->last->next = x;
    else
        in->first = x;
    if (in)
        in->last = x;
    p->n++;
    p->open[p->depth++] = x;
}

static char *trimmed(const struct str *s)
{
    static const char white[] = " \t\r\n";
    const char *from = s->data ? s->data + strspn(s->data, white) : "";
    size_t n = strlen(from);

    while (n && strchr(white, from[n - 1]))
        n--;
    return xstrndup(from, n);
}

static void on_end(void *cookie, const char *name)
{
    struct parsing *p = cookie;

    if (p->wrong)
        return;
    p->depth--;
    p->open[p->depth]->text = trimmed(&p->texts[p->depth]);
    str_done(&p->texts[p->depth]);
}

static void on_text(void *cookie, const char *text, int n)
{
    struct parsing *p = cookie;

    if (!p->wrong && p->depth)
        str_append_bytes(&p->texts[p->depth - 1], text, (size_t)n);
}

static void on_doctype(void *cookie, const char *name, const char *system, const char *public,
                       int internal)
{
    stop(cookie, "it has a document type");
}

void xml_free(struct xml **root)
{
    /* Without recursion: the children of a node that goes take its place in the list. */
    for (struct xml *x = steal(root); x;) {
        struct xml *next = x->next;

        if (x->last) {
            x->last->next = next;
            next = x->first;
        }
        free(x->name);
        free(x->text);
        free(x);
        x = next;
    }
}

static struct err *run(struct parsing *p, const char *bytes, size_t n)
{
    XML_SetUserData(p->parser, p);
    XML_SetElementHandler(p->parser, on_start, on_end);
    XML_SetCharacterDataHandler(p->parser, on_text);
    XML_SetStartDoctypeDeclHandler(p->parser, on_doctype);
    if (XML_Parse(p->parser, bytes, (int)n, XML_TRUE) == XML_STATUS_OK)
        return NULL;
    if (XML_GetErrorCode(p->parser) == XML_ERROR_NO_MEMORY)
        mem_exhausted();
    if (p->wrong)
        return err_new(ERR_CORRUPT, "the XML document is refused: %s", p->wrong);
    return err_new(ERR_CORRUPT, "not XML: %s in line %lu",
                   XML_ErrorString(XML_GetErrorCode(p->parser)),
                   (unsigned long)XML_GetCurrentLineNumber(p->parser));
}

struct err *xml_parse(const char *bytes, size_t n, struct xml **ret_root)
{
    if (n > XML_BYTES_MAX)
        return err_new(ERR_CORRUPT, "the XML document is longer than %u bytes", XML_BYTES_MAX);
    struct parsing p = {.parser = XML_ParserCreate(NULL)};

    if (!p.parser)
        mem_exhausted();
    struct err *e = run(&p, bytes, n);

    XML_ParserFree(p.parser);
    for (size_t i = 0; i < XML_DEPTH_MAX; i++)
        str_done(&p.texts[i]);
    if (e)
        xml_free(&p.root);
    else
        *ret_root = p.root;
    return e;
}

const struct xml *xml_child(const struct xml *of, const char *name)
{
    for (const struct xml *x = of ? of->first : NULL; x; x = x->next) {
        if (streq(x->name, name))
            return x;
    }
    return NULL;
}

const char *xml_text(const struct xml *of, const char *name)
{
    const struct xml *x = xml_child(of, name);

    return x ? x->text : "";
}
