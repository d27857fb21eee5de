#include "model/yaml_json.h"

#include "base/str.h"

#include <errno.h>
#include <yaml.h>

struct loader {
    yaml_document_t *document;
    unsigned nodes, max_nodes;
};

static struct err *bad(const yaml_node_t *node, const char *what)
{
    return err_new(ERR_INVALID, "line %zu: %s", node->start_mark.line + 1, what);
}

static bool is_one_of(const char *text, const char *const *list)
{
    while (*list && !streq(text, *list))
        list++;
    return *list;
}

static json_t *plain_scalar(const char *text, size_t n)
{
    static const char *const nulls[] = {"", "~", "null", "Null", "NULL", NULL};
    static const char *const trues[] = {"true", "True", "TRUE", NULL};
    static const char *const falses[] = {"false", "False", "FALSE", NULL};
    char *end;

    if (is_one_of(text, nulls))
        return json_null();
    if (is_one_of(text, trues) || is_one_of(text, falses))
        return json_boolean(is_one_of(text, trues));
    errno = 0;
    long long number = strtoll(text, &end, 10);
    bool digits = text[0] == '-' ? text[1] >= '0' && text[1] <= '9' : text[0] >= '0' && text[0] <= '9';
    if (digits && *end == '\0' && errno == 0)
        return json_integer(number);
    return json_stringn(text, n);
}

static struct err *load_node(struct loader *l, yaml_node_t *node, unsigned depth, json_t **ret);

static struct err *load_scalar(const yaml_node_t *node, json_t **ret)
{
    const char *text = (const char *)node->data.scalar.value;
    size_t n = node->data.scalar.length;

    if (strlen(text) != n)
        return bad(node, "a NUL character in a value");
    *ret = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? plain_scalar(text, n)
                                                              : json_stringn(text, n);
    return *ret ? NULL : bad(node, "a value that is not valid UTF-8");
}

static struct err *load_mapping(struct loader *l, yaml_node_t *node, unsigned depth, json_t *object)
{
    for (yaml_node_pair_t *p = node->data.mapping.pairs.start; p < node->data.mapping.pairs.top; p++) {
        yaml_node_t *key = yaml_document_get_node(l->document, p->key);
        yaml_node_t *value = yaml_document_get_node(l->document, p->value);
        json_t *item;
        if (key->type != YAML_SCALAR_NODE)
            return bad(key, "a key that is not a simple value");
        const char *name = (const char *)key->data.scalar.value;
        if (strlen(name) != key->data.scalar.length)
            return bad(key, "a NUL character in a key");
        if (json_object_get(object, name))
            return bad(key, "the same key twice");
        TRY(load_node(l, value, depth + 1, &item));
        if (json_object_set_new(object, name, item) != 0)
            return bad(key, "a key that is not valid UTF-8");
    }
    return NULL;
}

static struct err *load_sequence(struct loader *l, yaml_node_t *node, unsigned depth, json_t *array)
{
    for (yaml_node_item_t *i = node->data.sequence.items.start; i < node->data.sequence.items.top; i++) {
        json_t *item;
        TRY(load_node(l, yaml_document_get_node(l->document, *i), depth + 1, &item));
        (void)json_array_append_new(array, item);
    }
    return NULL;
}

static struct err *load_node(struct loader *l, yaml_node_t *node, unsigned depth, json_t **ret)
{
    struct err *e;
    json_t *value;

    if (++l->nodes > l->max_nodes) /* also what aliases blow up to */
        return bad(node, "too many values");
    if (depth > YAML_MAX_DEPTH)
        return bad(node, "nested too deeply");
    if (node->type == YAML_SCALAR_NODE)
        return load_scalar(node, ret);
    if (node->type == YAML_MAPPING_NODE) {
        value = json_object();
        e = load_mapping(l, node, depth, value);
    } else {
        value = json_array();
        e = load_sequence(l, node, depth, value);
    }
    if (e) {
        json_decref(value);
        return e;
    }
    *ret = value;
    return NULL;
}

static struct err *load_document(yaml_parser_t *parser, unsigned max_nodes, json_t **ret)
{
    yaml_document_t document;
    struct loader l = {.document = &document, .max_nodes = max_nodes};
    struct err *e = NULL;

    if (!yaml_parser_load(parser, &document)) {
        if (!parser->problem) /* libyaml does not always say that memory was short */
            mem_exhausted();
        return err_new(ERR_INVALID, "line %zu: %s", parser->problem_mark.line + 1, parser->problem);
    }
    yaml_node_t *root = yaml_document_get_root_node(&document);
    if (root)
        e = load_node(&l, root, 0, ret);
    else
        *ret = json_null();
    yaml_document_delete(&document);
    return e;
}

static void parser_init(yaml_parser_t *parser, const char *text, size_t n)
{
    if (!yaml_parser_initialize(parser))
        mem_exhausted();
    yaml_parser_set_input_string(parser, (const unsigned char *)text, n);
}

/* Event by event, before anything is built: libyaml's work for each token grows with the depth, so that a megabyte of
 * brackets would keep it busy for minutes. Errors of syntax are left to load_document(). */
static struct err *check_limits(yaml_parser_t *parser, unsigned max_nodes)
{
    unsigned depth = 0, nodes = 0, documents = 0;

    for (;;) {
        yaml_event_t event;
        if (!yaml_parser_parse(parser, &event))
            return NULL;
        yaml_event_type_t type = event.type;
        size_t line = event.start_mark.line + 1;
        yaml_event_delete(&event);
        if (type == YAML_STREAM_END_EVENT || type == YAML_NO_EVENT)
            return NULL;
        if (type == YAML_SEQUENCE_END_EVENT || type == YAML_MAPPING_END_EVENT) {
            depth--;
        } else if (type == YAML_SEQUENCE_START_EVENT || type == YAML_MAPPING_START_EVENT) {
            nodes++;
            if (++depth > YAML_MAX_DEPTH + 1)
                return err_new(ERR_INVALID, "line %zu: nested too deeply", line);
        } else if (type == YAML_SCALAR_EVENT || type == YAML_ALIAS_EVENT) {
            nodes++;
        }
        if (type == YAML_DOCUMENT_START_EVENT && ++documents > 1)
            return err_new(ERR_INVALID, "line %zu: a second document begins", line);
        if (nodes > 2 * max_nodes) /* keys count here too */
            return err_new(ERR_INVALID, "line %zu: too many values", line);
    }
}

struct err *yaml_load_within(const struct yaml_limits *limits, const char *text, size_t n, json_t **ret_value)
{
    yaml_parser_t parser;
    struct err *e;

    if (n > limits->bytes)
        return err_new(ERR_INVALID, "larger than %zu bytes", limits->bytes);
    parser_init(&parser, text, n);
    e = check_limits(&parser, limits->values);
    yaml_parser_delete(&parser);
    if (e)
        return e;
    parser_init(&parser, text, n);
    e = load_document(&parser, limits->values, ret_value);
    yaml_parser_delete(&parser);
    return e;
}

struct err *yaml_load(const char *text, size_t n, json_t **ret_value)
{
    static const struct yaml_limits usual = {YAML_MAX_BYTES, YAML_MAX_NODES};

    return yaml_load_within(&usual, text, n, ret_value);
}
