/* What OpenStack answers, and clouds.yaml. The first byte chooses: v a page of volumes, o one volume, a an attachment, l a list of
 * attachments, s servers, m what a server is told of itself, 3 a token of Keystone v3, 2 one of v2, n versions, t a time, c clouds.yaml. */
#include "fuzz.h"

#include "drivers/json_http.h"
#include "drivers/openstack/identity.h"
#include "drivers/openstack/reply.h"
#include "model/yaml_json.h"

static json_t *parse(const char *bytes, size_t n)
{
    json_t *o = NULL;

    return fuzz_refused(json_http_parse(bytes, n, &o), ERR_CORRUPT) ? NULL : o;
}

static void check_volume(const struct os_volume *v)
{
    RULE(os_id_is_sane(v->id) && v->size && v->size % (1u << 30) == 0 && v->size <= 1ull << 50);
    RULE(v->n_attachments <= OS_ATTACHMENTS_MAX);
    for (size_t i = 0; i < v->n_attachments; i++)
        RULE((!*v->attachments[i].id || os_id_is_sane(v->attachments[i].id)) &&
             (!*v->attachments[i].server || os_id_is_sane(v->attachments[i].server)));
}

/* A second page only adds; one that is refused adds nothing. */
static void volumes(const char *bytes, size_t n)
{
    CLEANUP_OS_VOLUMES struct os_volumes v = {0};
    json_t *o = parse(bytes, n);

    if (!fuzz_refused(os_volumes_parse(o, &v), ERR_CORRUPT)) {
        size_t first = v.n;

        for (size_t i = 0; i < v.n; i++)
            check_volume(&v.all[i]);
        RULE(!v.more || v.n);
        RULE(!os_volumes_parse(o, &v) && v.n == 2 * first);
    } else {
        RULE(!v.n && !v.more);
    }
    json_decref(o);
}

static void volume(const char *bytes, size_t n)
{
    struct os_volume v;
    json_t *o = parse(bytes, n);

    if (!fuzz_refused(os_volume_parse(o, &v), ERR_CORRUPT))
        check_volume(&v);
    json_decref(o);
}

/* Nothing in a connection may be taken for an option, or leave its place. */
static void check_connection(const struct os_connection *c)
{
    RULE(*c->file != '-' && *c->file != '.' && !strchr(c->file, '/') && *c->export != '-');
    RULE(*c->options != '-' && !strpbrk(c->options, " ;/\\\n"));
    RULE(c->n_portals <= OS_PORTALS_MAX);
    RULE(c->kind != OS_CONNECT_NFS || (*c->file && strstr(c->export, ":/")));
    RULE(c->kind != OS_CONNECT_LOCAL || *c->path == '/');
    RULE(c->kind != OS_CONNECT_ISCSI || c->n_portals);
    RULE(!strpbrk(c->chap_user, " \n") && !strpbrk(c->chap_password, " \n")); /* they go into a file of settings */
    for (size_t i = 0; i < c->n_portals; i++)
        RULE(*c->portals[i].address != '-' && !strpbrk(c->portals[i].iqn, "/ ") &&
             c->portals[i].lun <= 65535);
}

static void attachment(const char *bytes, size_t n)
{
    struct os_connection c;
    struct os_link link, same;
    json_t *o = parse(bytes, n);
    struct err *e = os_connection_parse(o, &link, &c);

    RULE(!e || e->code == ERR_CORRUPT || e->code == ERR_UNSUPPORTED);
    if (!e) {
        check_connection(&c);
        RULE(os_id_is_sane(link.id) && !os_link_parse(o, &same) && streq(same.id, link.id));
    }
    err_free(e);
    json_decref(o);
}

static void links(const char *bytes, size_t n)
{
    struct os_link all[OS_ATTACHMENTS_MAX];
    size_t found = 0;
    json_t *o = parse(bytes, n);

    if (!fuzz_refused(os_links_parse(o, all, &found), ERR_CORRUPT))
        for (size_t i = 0; i < found; i++)
            RULE(os_id_is_sane(all[i].id));
    RULE(found <= OS_ATTACHMENTS_MAX);
    json_decref(o);
}

static void servers(const char *bytes, size_t n)
{
    char id[OS_ID_SIZE], status[OS_NAME_SIZE];
    size_t found;
    json_t *o = parse(bytes, n);

    if (!fuzz_refused(os_servers_match(o, "10.0.0.5", id, &found), ERR_CORRUPT))
        RULE(!found == !*id && (!found || os_id_is_sane(id)));
    if (!fuzz_refused(os_server_status(o, status), ERR_CORRUPT))
        RULE(*status && !strpbrk(status, " \n"));
    json_decref(o);
}

static void meta_data(const char *bytes, size_t n)
{
    char id[OS_ID_SIZE];
    json_t *o = parse(bytes, n);

    if (!fuzz_refused(os_server_id(o, id), ERR_CORRUPT))
        RULE(os_id_is_sane(id));
    json_decref(o);
}

static void check_catalog(const struct os_catalog *c)
{
    static const char *const types[] = {"volumev3", "compute", NULL};
    CLEANUP_FREE char *regions = os_catalog_regions(c);
    const char *url = os_catalog_find(c, types, NULL, "public");

    RULE(c->n <= OS_ENDPOINTS_MAX && strlen(regions) < 2000);
    for (size_t i = 0; i < c->n; i++)
        RULE(str_has_prefix(c->all[i].url, "http") && !strpbrk(c->all[i].url, " \r\n") &&
             strlen(c->all[i].url) <= OS_URL_MAX);
    RULE(!url || url[strlen(url) - 1] != '/');
}

static void token_v3(const char *bytes, size_t n)
{
    CLEANUP_OS_CATALOG struct os_catalog c = {0};
    json_t *o = parse(bytes, n);

    if (!fuzz_refused(os_catalog_parse_v3(o, &c), ERR_CORRUPT))
        check_catalog(&c);
    json_decref(o);
}

static void token_v2(const char *bytes, size_t n)
{
    CLEANUP_OS_CATALOG struct os_catalog c = {0};
    CLEANUP_FREE char *token = NULL;
    json_t *o = parse(bytes, n);

    if (!fuzz_refused(os_catalog_parse_v2(o, &c, &token), ERR_CORRUPT)) {
        check_catalog(&c);
        RULE(*token && !strpbrk(token, " \r\n"));
    }
    json_decref(o);
}

static void versions(const char *bytes, size_t n)
{
    unsigned minor = 0;
    json_t *o = parse(bytes, n);

    if (!fuzz_refused(os_minor_parse(o, &minor), ERR_CORRUPT))
        RULE(minor < 100000);
    json_decref(o);
}

static void when(const char *text)
{
    uint64_t us;

    if (os_time_parse(text, &us))
        RULE(us % 1000000 == 0 && strlen(text) >= 14);
}

/* Whatever the file says: what the options say themselves stays, and the request can be made of what is accepted. */
static void clouds(const char *text)
{
    json_t *file = NULL, *options = json_pack("{s:s, s:s}", "region", "R", "username", "u");
    struct os_identity i;

    if (!fuzz_refused(yaml_load(text, strlen(text), &file), ERR_INVALID)) {
        struct err *e = os_cloud_apply(file, "lab", options);

        RULE(!e || e->code == ERR_NOT_FOUND || e->code == ERR_INVALID);
        RULE(streq(json_string_value(json_object_get(options, "username")), "u"));
        if (!e && !fuzz_refused(os_identity_read(options, &i), ERR_INVALID)) {
            json_t *request = os_identity_request(&i);

            RULE(!request == (i.how == OS_AUTH_NONE));
            json_decref(request);
            os_identity_done(&i);
        }
        err_free(e);
    }
    json_decref(file);
    json_decref(options);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_choice choices[] = {
        {'v', .bytes = volumes},  {'o', .bytes = volume},   {'a', .bytes = attachment},
        {'l', .bytes = links},    {'s', .bytes = servers},  {'m', .bytes = meta_data},
        {'3', .bytes = token_v3}, {'2', .bytes = token_v2}, {'n', .bytes = versions},
        {'t', .text = when},      {'c', .text = clouds},
    };

    return fuzz_choose(choices, ARRAY_SIZE(choices), data, size);
}
