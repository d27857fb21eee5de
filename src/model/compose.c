#include "model/compose.h"

#include "model/compose_private.h"
#include "model/json.h"
#include "model/validate.h"

#include <arpa/inet.h>
#include <openssl/evp.h>
#include <stdarg.h>

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
    CLEANUP_FREE char *text = xvasprintf(format, args);

    return xasprintf("Application '%s' has a config error. %s", name, text);
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

void take_volume(struct application *a, const struct volume_wish *wish)
{
    struct dataset *d = dataset_new(wish->dataset);
    json_t *volumes = json_object_get(a->body, "volumes");

    d->maximum_size = wish->maximum_size;
    d->metadata.entries = xcalloc(1, sizeof(struct metadata_entry));
    d->metadata.entries[0] = (struct metadata_entry){xstrdup("name"), xstrdup(wish->name ? wish->name : a->name)};
    d->metadata.n = 1;
    a->volumes = xrealloc(a->volumes, a->n_volumes + 1, sizeof(*a->volumes));
    a->volumes[a->n_volumes++] = d;
    json_t *entry = json_pack("{s:s, s:s}", "dataset_id", UUID_STR(&wish->dataset), "mountpoint", wish->mountpoint);
    if (wish->read_only)
        (void)json_object_set_new(entry, "read_only", json_true());
    if (volumes)
        (void)json_array_append_new(volumes, entry);
    else
        (void)json_object_set_new(a->body, "volumes", json_pack("[o]", entry));
}

char *compose_link(struct applications *all, const struct application *a, const char *alias, const json_t *ports,
                   json_t *links)
{
    const json_t *port;
    size_t i;

    json_array_foreach (ports, i, port) {
        if (++all->n_links > COMPOSE_MAX_LINKS)
            return config_error(a, "There are more than %u links.", COMPOSE_MAX_LINKS);
        json_t *link = json_pack("{s:s, s:O, s:O}", "alias", alias, "local_port", json_object_get(port, "internal"),
                                 "remote_port", json_object_get(port, "external"));
        (void)json_array_append_new(links, link);
    }
    return NULL;
}

bool compose_is_alphanumeric(const char *s)
{
    const char *p = s;

    while ((*p >= '0' && *p <= '9') || (*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z'))
        p++;
    return !*p && p > s;
}

bool compose_quantity(const char *text, const char **ret_end, long double *ret_size)
{
    static const char units[] = "KMGT";
    const char *p = text;
    long double size = 0, digit = 1;

    for (; *p >= '0' && *p <= '9'; p++)
        size = size * 10 + (*p - '0');
    if (p == text)
        return false;
    for (p += *p == '.'; *p >= '0' && *p <= '9'; p++)
        size += (*p - '0') * (digit /= 10);
    const char *unit = *p ? strchr(units, *p & ~0x20) : NULL;
    if (unit) {
        size *= (long double)(UINT64_C(1024) << 10 * (unit - units));
        p++;
    }
    *ret_end = p;
    *ret_size = size;
    return true;
}

/* ---- applications ---- */

static void applications_done(struct applications *all)
{
    for (size_t i = 0; i < all->n; i++) {
        json_decref(all->all[i].body);
        for (size_t k = 0; k < all->all[i].n_volumes; k++)
            dataset_free(all->all[i].volumes[k]);
        free(all->all[i].volumes);
    }
    json_decref(all->index);
    json_decref(all->volumes);
    str_done(&all->unsupported);
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

static char *parse_services(const json_t *value, struct applications *all)
{
    char *text = services_begin(all, value);

    if (text)
        return text;
    add_all(all, json_object_get(value, "services"));
    text = for_all(all, services_parse);
    if (!text)
        text = services_unsupported(all);
    if (!text)
        text = for_all(all, services_link);
    return text ? text : services_check_order(all);
}

bool compose_is_services(const json_t *applications)
{
    const json_t *services = json_object_get(applications, "services");

    return services && !json_object_get(applications, "applications") && !json_is_string(json_object_get(services, "image")) &&
           !json_is_string(json_object_get(services, "build"));
}

static char *parse_applications(const json_t *value, struct applications *all)
{
    bool is_fig = false;

    if (!json_is_object(value))
        return xasprintf("Application configuration must be a dictionary, got %s.",
                         python_type(value));
    all->is_compose = compose_is_services(value);
    if (all->is_compose)
        return parse_services(value, all);
    char *text = fig_detect(value, &is_fig);
    if (text)
        return text;
    return is_fig ? parse_fig(value, all) : parse_flocker(value, all);
}

/* ---- deployment ---- */

static char *find_application(struct applications *all, const char *address, const json_t *name,
                              struct application **ret)
{
    const json_t *number = json_object_get(all->index, json_is_string(name) ? json_string_value(name) : "");

    if (!json_is_string(name) || !number) {
        CLEANUP_FREE char *text = shown(name);
        return xasprintf("Node %s has a config error. Unrecognised application name: %s.", address,
                         text);
    }
    *ret = &all->all[json_integer_value(number)];
    if ((*ret)->placed)
        return xasprintf("Application '%s' appears more than once.", json_string_value(name));
    return NULL;
}

static char *deploy_node(struct applications *all, const struct compose_world *world, const char *address,
                         const json_t *names)
{
    unsigned char bytes[4];
    struct application *a;
    struct uuid node = {0};
    json_t *name;
    size_t i;

    if (inet_pton(AF_INET, address, bytes) != 1)
        return xasprintf(
            "Node \"%s\" specified, but deployment configuration expects an IPv4 address.",
            address);
    if (!json_is_array(names))
        return xasprintf("Node %s has a config error. Wrong value type: %s. Should be list.",
                         address, python_type(names));
    bool known = world->find_node(world->cookie, address, &node);
    json_array_foreach (names, i, name) {
        char *text = find_application(all, address, name, &a);
        if (text)
            return text;
        a->placed = true;
        a->node = node;
    }
    return known ? NULL : xasprintf("No known node with address %s.", address);
}

static char *place_by_file(struct applications *all, const json_t *deployment, const struct compose_world *world)
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
        text = deploy_node(all, world, address, names);
        if (text)
            return text;
    }
    return NULL;
}

static int by_id(const void *a, const void *b)
{
    return uuid_cmp(a, b);
}

/* The node that the service itself names. */
static char *place_by_service(struct application *a, const struct compose_world *world)
{
    struct uuid id;

    if (a->placed || !a->place)
        return NULL;
    a->placed = uuid_parse(a->place, &id)
                    ? bsearch(&id, world->nodes, world->n_nodes, sizeof(id), by_id) != NULL
                    : world->find_node(world->cookie, a->place, &id);
    if (!a->placed)
        return xasprintf("services.%s.x-flocker-node: no known node with address or UUID %s.", a->name, a->place);
    a->node = id;
    return NULL;
}

/* The deployment file wins over what a service says, and both over the spreading. */
static char *place_all(struct applications *all, const json_t *deployment, const struct compose_world *world)
{
    char *text = deployment || !(all->is_compose || world->spread) ? place_by_file(all, deployment, world) : NULL;

    for (size_t i = 0; i < all->n && !text; i++)
        text = place_by_service(&all->all[i], world);
    if (!text && world->spread)
        text = compose_spread(all, world);
    for (size_t i = 0; i < all->n && !text && all->is_compose; i++) {
        if (!all->all[i].placed)
            text = xasprintf("services.%s: has no place; name it in the deployment file, give it x-flocker-node, or use "
                             "--spread.",
                             all->all[i].name);
    }
    return text;
}

/* ---- the composition ---- */

static char *add_application(struct composition *c, struct application *a)
{
    struct container *k = NULL;

    (void)json_object_set_new(a->body, "node_uuid", json_uuid(&a->node));
    json_t *errors = validate_container_create(a->body, &k);
    if (errors) {
        char *text = config_error(a, "%s.", json_string_value(json_array_get(errors, 0)));
        json_decref(errors);
        return text;
    }
    c->containers[c->n_containers++] = k;
    for (size_t i = 0; i < a->n_volumes; i++) {
        a->volumes[i]->primary = a->node;
        c->datasets[c->n_datasets++] = steal(&a->volumes[i]);
    }
    return NULL;
}

static char *compose_all(struct applications *all, struct composition *c)
{
    size_t volumes = 0;
    char *text = NULL;

    for (size_t i = 0; i < all->n; i++)
        volumes += all->all[i].n_volumes;
    c->containers = xcalloc(all->n + 1, sizeof(*c->containers));
    c->datasets = xcalloc(volumes + 1, sizeof(*c->datasets));
    for (size_t i = 0; i < all->n && !text; i++)
        text = all->all[i].placed ? add_application(c, &all->all[i]) : NULL;
    return text;
}

char *compose_parse(const json_t *applications, const json_t *deployment, const struct compose_world *world,
                    struct composition *ret)
{
    struct applications all = {0};
    struct composition c = {0};
    char *text = parse_applications(applications, &all);

    if (!text)
        text = place_all(&all, deployment, world);
    if (!text)
        text = compose_all(&all, &c);
    if (text)
        composition_done(&c);
    else
        *ret = c;
    applications_done(&all);
    return text;
}
