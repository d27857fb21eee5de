#include "model/compose.h"

#include "model/compose_private.h"
#include "model/json.h"
#include "model/validate.h"

#include <arpa/inet.h>
#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>

void composition_done(struct composition *c)
{
    for (size_t i = 0; i < c->n_datasets; i++)
        dataset_free(c->datasets[i]);
    for (size_t i = 0; i < c->n_containers; i++)
        container_free(c->containers[i]);
    free(c->datasets);
    free(c->containers);
    *c = (struct composition){0};
}

/* ---- what both formats use ---- */

static char *with_prefix(const char *name, const char *format, va_list args) PRINTF_LIKE(2, 0);

static char *with_prefix(const char *name, const char *format, va_list args)
{
    struct str s = {0};
    char *text = NULL;

    if (vasprintf(&text, format, args) < 0)
        mem_exhausted();
    str_appendf(&s, "Application '%s' has a config error. %s", name, text);
    free(text);
    return str_steal(&s);
}

char *config_error(const struct application *a, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    char *text = with_prefix(a->name, format, args);
    va_end(args);
    return text;
}

char *type_error(const struct application *a, const json_t *got, const char *text)
{
    return config_error(a, "%s; got type '%s'.", text, python_type(got));
}

const char *python_type(const json_t *v)
{
    switch (v ? json_typeof(v) : JSON_NULL) {
    case JSON_OBJECT:
        return "dict";
    case JSON_ARRAY:
        return "list";
    case JSON_STRING:
        return "unicode";
    case JSON_INTEGER:
        return "int";
    case JSON_REAL:
        return "float";
    case JSON_TRUE:
    case JSON_FALSE:
        return "bool";
    case JSON_NULL:
        break;
    }
    return "NoneType";
}

bool is_int(const json_t *v)
{
    return json_is_integer(v) || json_is_boolean(v);
}

char *shown(const json_t *v)
{
    struct str s = {0};

    if (json_is_string(v))
        return xstrdup(json_string_value(v));
    if (v)
        json_append(&s, v);
    return str_steal(&s);
}

static bool is_among(const char *key, const char *const *list)
{
    for (; *list; list++) {
        if (streq(key, *list))
            return true;
    }
    return false;
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static char *join_keys(const json_t *object, const char *const *known, bool wanted)
{
    const char **keys = xcalloc(json_object_size(object) + 1, sizeof(*keys));
    struct str s = {0};
    const char *key;
    json_t *value;
    size_t n = 0;

    json_object_foreach ((json_t *)(uintptr_t)object, key, value) {
        if (is_among(key, known) == wanted)
            keys[n++] = key;
    }
    qsort(keys, n, sizeof(*keys), by_text);
    for (size_t i = 0; i < n; i++)
        str_appendf(&s, "%s%s", i ? ", " : "", keys[i]);
    free(keys);
    return n ? str_steal(&s) : NULL;
}

char *other_keys(const json_t *object, const char *const *known)
{
    return join_keys(object, known, false);
}

char *keys_among(const json_t *object, const char *const *known)
{
    return join_keys(object, known, true);
}

char *take_image(struct application *a, const char *name)
{
    CLEANUP_FREE char *canonical = image_canonical(name);

    if (!canonical)
        return config_error(a,
                            "Invalid Docker image name. Docker image names must have format "
                            "'repository[:tag]'. Found '%s'.",
                            name);
    (void)json_object_set_new(a->body, "image", json_string(canonical));
    return NULL;
}

struct uuid compose_dataset_id(const char *application)
{
    unsigned char digest[EVP_MAX_MD_SIZE] = {0};
    struct uuid id;

    if (EVP_Digest(application, strlen(application), digest, NULL, EVP_md5(), NULL) != 1)
        mem_exhausted();
    memcpy(id.b, digest, sizeof(id.b));
    id.b[6] = (uint8_t)((id.b[6] & 0x0f) | 0x40);
    id.b[8] = (uint8_t)((id.b[8] & 0x3f) | 0x80);
    return id;
}

void take_volume(struct application *a, const struct uuid *dataset, const char *mountpoint,
                 uint64_t maximum_size)
{
    a->volume = dataset_new(*dataset);
    a->volume->maximum_size = maximum_size;
    a->volume->metadata.entries = xcalloc(1, sizeof(struct metadata_entry));
    a->volume->metadata.entries[0] = (struct metadata_entry){xstrdup("name"), xstrdup(a->name)};
    a->volume->metadata.n = 1;
    (void)json_object_set_new(
        a->body, "volumes",
        json_pack("[{s:s, s:s}]", "dataset_id", UUID_STR(dataset), "mountpoint", mountpoint));
}

/* ---- applications ---- */

static void applications_done(struct applications *all)
{
    for (size_t i = 0; i < all->n; i++) {
        json_decref(all->all[i].body);
        dataset_free(all->all[i].volume);
    }
    json_decref(all->index);
    free(all->all);
}

static void add_all(struct applications *all, const json_t *value)
{
    const char *name;
    json_t *config;

    all->all = xcalloc(json_object_size(value) + 1, sizeof(*all->all));
    all->index = json_object();
    json_object_foreach ((json_t *)(uintptr_t)value, name, config) {
        json_t *body = json_pack("{s:s}", "name", name);
        (void)json_object_set_new(all->index, name, json_integer((json_int_t)all->n));
        all->all[all->n++] = (struct application){.name = name, .config = config, .body = body};
    }
}

static char *for_all(struct applications *all, application_fn *fn)
{
    for (size_t i = 0; i < all->n; i++) {
        char *text = fn(all, &all->all[i]);
        if (text)
            return text;
    }
    return NULL;
}

static char *check_version(const json_t *value, const char *key, const char *what)
{
    const json_t *version = json_object_get(value, "version");

    if (!json_object_get(value, key))
        return xasprintf("%s configuration has an error. Missing '%s' key.", what, key);
    if (!version)
        return xasprintf("%s configuration has an error. Missing 'version' key.", what);
    if (!json_is_integer(version) || json_integer_value(version) != 1)
        return xasprintf("%s configuration has an error. Incorrect version specified.", what);
    return NULL;
}

static char *parse_fig(const json_t *value, struct applications *all)
{
    add_all(all, value);
    char *text = for_all(all, fig_parse);
    return text ? text : for_all(all, fig_link);
}

static char *parse_flocker(const json_t *value, struct applications *all)
{
    char *text = check_version(value, "applications", "Application");
    const json_t *entries = json_object_get(value, "applications");

    if (text)
        return text;
    if (!json_is_object(entries))
        return xasprintf(
            "Application configuration has an error. 'applications' must be a dictionary, got %s.",
            python_type(entries));
    add_all(all, entries);
    return for_all(all, flocker_parse);
}

static char *parse_applications(const json_t *value, struct applications *all)
{
    bool is_fig = false;

    if (!json_is_object(value))
        return xasprintf("Application configuration must be a dictionary, got %s.",
                         python_type(value));
    char *text = fig_detect(value, &is_fig);
    if (text)
        return text;
    return is_fig ? parse_fig(value, all) : parse_flocker(value, all);
}

/* ---- deployment ---- */

struct deploying {
    struct applications *all; /* an application's number in its index is -1 once it is deployed */
    compose_find_node_fn *find;
    void *cookie;
    struct composition result;
    size_t cap_datasets, cap_containers;
};

static char *deploy_application(struct deploying *d, struct application *a, const struct uuid *node)
{
    struct composition *c = &d->result;
    struct container *k = NULL;

    (void)json_object_set_new(a->body, "node_uuid", json_uuid(node));
    json_t *errors = validate_container_create(a->body, &k);
    if (errors) {
        char *text = config_error(a, "%s.", json_string_value(json_array_get(errors, 0)));
        json_decref(errors);
        return text;
    }
    c->containers =
        mem_grow(c->containers, c->n_containers, &d->cap_containers, sizeof(*c->containers));
    c->containers[c->n_containers++] = k;
    if (a->volume) {
        a->volume->primary = *node;
        c->datasets = mem_grow(c->datasets, c->n_datasets, &d->cap_datasets, sizeof(*c->datasets));
        c->datasets[c->n_datasets++] = steal(&a->volume);
    }
    return NULL;
}

/* Each can be deployed once. */
static char *find_application(struct deploying *d, const char *address, const json_t *name,
                              size_t *ret_number)
{
    const json_t *number =
        json_object_get(d->all->index, json_is_string(name) ? json_string_value(name) : "");

    if (!json_is_string(name) || !number) {
        CLEANUP_FREE char *text = shown(name);
        return xasprintf("Node %s has a config error. Unrecognised application name: %s.", address,
                         text);
    }
    if (json_integer_value(number) < 0)
        return xasprintf("Application '%s' appears more than once.", json_string_value(name));
    *ret_number = (size_t)json_integer_value(number);
    (void)json_object_set_new(d->all->index, json_string_value(name), json_integer(-1));
    return NULL;
}

static char *deploy_node(struct deploying *d, const char *address, const json_t *names)
{
    unsigned char bytes[4];
    struct uuid node;
    json_t *name;
    size_t i, number = 0;
    char *text;

    if (inet_pton(AF_INET, address, bytes) != 1)
        return xasprintf(
            "Node \"%s\" specified, but deployment configuration expects an IPv4 address.",
            address);
    if (!json_is_array(names))
        return xasprintf("Node %s has a config error. Wrong value type: %s. Should be list.",
                         address, python_type(names));
    bool known = d->find(d->cookie, address, &node);
    json_array_foreach (names, i, name) {
        text = find_application(d, address, name, &number);
        if (!text && known)
            text = deploy_application(d, &d->all->all[number], &node);
        if (text)
            return text;
    }
    return known ? NULL : xasprintf("No known node with address %s.", address);
}

static char *deploy(struct deploying *d, const json_t *deployment)
{
    const char *address;
    json_t *names;

    if (!json_is_object(deployment))
        return xasprintf("Deployment configuration must be a dictionary, got %s.",
                         python_type(deployment));
    char *text = check_version(deployment, "nodes", "Deployment");
    json_t *nodes = json_object_get(deployment, "nodes");
    if (text)
        return text;
    if (!json_is_object(nodes))
        return xasprintf(
            "Deployment configuration has an error. 'nodes' must be a dictionary, got %s.",
            python_type(nodes));
    json_object_foreach (nodes, address, names) {
        text = deploy_node(d, address, names);
        if (text)
            return text;
    }
    return NULL;
}

char *compose_parse(const json_t *applications, const json_t *deployment,
                    compose_find_node_fn *find, void *cookie, struct composition *ret)
{
    struct applications all = {0};
    char *text = parse_applications(applications, &all);

    if (!text) {
        struct deploying d = {.all = &all, .find = find, .cookie = cookie};
        text = deploy(&d, deployment);
        if (text)
            composition_done(&d.result);
        else
            *ret = d.result;
    }
    applications_done(&all);
    return text;
}
