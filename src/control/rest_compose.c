/* /v1/configuration/_compose: the whole configuration at once, from the files of flocker-deploy */
#include "control/rest_internal.h"
#include "model/compose.h"
#include "model/validate.h"

/* The nodes that are there now, by address. */
struct place {
    char *address;
    struct uuid node;
    UT_hash_handle hh;
};

static bool note_node(void *cookie, const struct node_view *v)
{
    struct place **places = cookie, *p;

    if (!v->listed || !v->host)
        return true;
    HASH_FIND_STR(*places, v->host, p);
    if (p)
        return true;
    p = xcalloc(1, sizeof(*p));
    p->address = xstrdup(v->host);
    p->node = v->node;
    HASH_ADD_KEYPTR(hh, *places, p->address, strlen(p->address), p);
    return true;
}

static bool find_node(void *cookie, const char *address, struct uuid *ret_node)
{
    struct place **places = cookie, *p;

    HASH_FIND_STR(*places, address, p);
    if (p)
        *ret_node = p->node;
    return p != NULL;
}

static void forget_nodes(struct place **places)
{
    struct place *p, *next;

    HASH_ITER (hh, *places, p, next) {
        HASH_DEL(*places, p);
        free(p->address);
        free(p);
    }
}

void configuration_compose(struct rest *rest, struct http_request *r, const char *param)
{
    CLEANUP(json_decrefp) json_t *body = parse_body(r);
    CLEANUP(forget_nodes) struct place *places = NULL;
    struct composition composition = {0};

    if (!body)
        return;
    json_t *errors = validate_compose(body);
    if (errors) {
        respond_violations(r, errors);
        return;
    }
    engine_list_nodes(rest->config.engine, now_os(), &(struct list_query){0}, note_node, &places);
    CLEANUP_FREE char *text =
        compose_parse(json_object_get(body, "applications"), json_object_get(body, "deployment"),
                      find_node, &places, &composition);
    if (text)
        respond_error_about(r, REST_ERROR_COMPOSITION, "%s", text);
    else
        submit(rest, r, &(struct command){.kind = COMMAND_COMPOSE, .composition = &composition});
}
