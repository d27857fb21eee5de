/* A small XML document as a tree; pure: bytes in, tree out. What the sender can make us keep is limited.
 * Attributes, comments and processing instructions are dropped; a document type (and with it any entity of
 * the sender's) is refused. */
#pragma once

#include "base/err.h"

#define XML_BYTES_MAX (16u << 20)
#define XML_DEPTH_MAX 32
#define XML_NODES_MAX 500000u

struct xml {
    char *name; /* without the prefix of a name space */
    char *text; /* all text directly in it, without white space at both ends; never NULL */
    struct xml *first, *last, *next;
};

/* ERR_CORRUPT: not well-formed, or over a limit. */
struct err *xml_parse(const char *bytes, size_t n, struct xml **ret_root) MUST_USE;
void xml_free(struct xml **root);
#define CLEANUP_XML CLEANUP(xml_free)

/* The first child of that name, or NULL. `of` may be NULL. */
const struct xml *xml_child(const struct xml *of, const char *name);
/* The text of that child; "" when there is none. */
const char *xml_text(const struct xml *of, const char *name);
