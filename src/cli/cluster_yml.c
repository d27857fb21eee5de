#include "cli/cluster_yml.h"

#include "base/str.h"

#include <yaml.h>

static struct err *load(const char *text, size_t n, yaml_document_t *ret_document)
{
    yaml_parser_t parser;

    if (!yaml_parser_initialize(&parser))
        return err_new(ERR_INTERNAL, "cannot start the YAML parser");
    yaml_parser_set_input_string(&parser, (const unsigned char *)text, n);
    struct err *e = NULL;
    if (!yaml_parser_load(&parser, ret_document))
        e = err_new(ERR_INVALID, "not YAML: line %zu: %s", parser.problem_mark.line + 1,
                    parser.problem ? parser.problem : "unknown problem");
    yaml_parser_delete(&parser);
    return e;
}

/* The value under `key` of a mapping; NULL when there is none. */
static yaml_node_t *get(yaml_document_t *d, yaml_node_t *map, const char *key)
{
    if (!map || map->type != YAML_MAPPING_NODE)
        return NULL;
    for (yaml_node_pair_t *p = map->data.mapping.pairs.start; p < map->data.mapping.pairs.top;
         p++) {
        yaml_node_t *k = yaml_document_get_node(d, p->key);
        if (k && k->type == YAML_SCALAR_NODE && streq((char *)k->data.scalar.value, key))
            return yaml_document_get_node(d, p->value);
    }
    return NULL;
}

static char *scalar(const yaml_node_t *node)
{
    if (!node || node->type != YAML_SCALAR_NODE || !node->data.scalar.length)
        return NULL;
    return xstrdup((char *)node->data.scalar.value);
}

static char *hostname_of(yaml_document_t *d, yaml_node_t *agent_config)
{
    return scalar(get(d, get(d, agent_config, "control-service"), "hostname"));
}

struct err *cluster_yml_parse(const char *text, size_t n, struct cluster_yml *ret_config)
{
    yaml_document_t d;

    TRY(load(text, n, &d));
    yaml_node_t *root = yaml_document_get_root_node(&d);
    yaml_node_t *users = get(&d, root, "users");
    *ret_config = (struct cluster_yml){0};
    if (users && users->type == YAML_SEQUENCE_NODE &&
        users->data.sequence.items.start < users->data.sequence.items.top)
        ret_config->user = scalar(yaml_document_get_node(&d, users->data.sequence.items.start[0]));
    ret_config->control_service = scalar(get(&d, root, "control_node"));
    if (!ret_config->control_service)
        ret_config->control_service = hostname_of(&d, get(&d, root, "agent_config"));
    yaml_document_delete(&d);
    return NULL;
}

struct err *agent_yml_control_service(const char *text, size_t n, char **ret_hostname)
{
    yaml_document_t d;

    TRY(load(text, n, &d));
    *ret_hostname = hostname_of(&d, yaml_document_get_root_node(&d));
    yaml_document_delete(&d);
    return NULL;
}

void cluster_yml_done(struct cluster_yml *c)
{
    free(c->user);
    free(c->control_service);
    *c = (struct cluster_yml){0};
}
