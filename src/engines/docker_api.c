#include "engines/docker_api.h"

#include "base/str.h"

#include <ctype.h>
#include <jansson.h>
#include <limits.h>

#define LIST_MAX 100000u
#define STOP_TIMEOUT_MAX 86400

void docker_container_done(struct docker_container *c)
{
    free(c->name);
    *c = (struct docker_container){0};
}

static struct err *parse(const char *body, size_t n, json_type type, const char *what,
                         json_t **ret_json)
{
    json_error_t error;
    json_t *j = n ? json_loadb(body, n, JSON_REJECT_DUPLICATES, &error) : NULL;

    if (!j || json_typeof(j) != type) {
        json_decref(j);
        return err_new(ERR_CORRUPT, "the container engine's %s is not the JSON it must be", what);
    }
    *ret_json = j;
    return NULL;
}

/* "1.41" -> 41 */
static bool parse_minor(const json_t *j, unsigned *ret_minor)
{
    const char *s = json_string_value(j);

    if (!s || !str_has_prefix(s, "1."))
        return false;
    unsigned v = 0;
    const char *p = s + 2;
    for (; isdigit((unsigned char)*p) && v < 10000; p++)
        v = v * 10 + (unsigned)(*p - '0');
    if (*p || p == s + 2 || v >= 10000)
        return false;
    *ret_minor = v;
    return true;
}

struct err *docker_parse_version(const char *body, size_t n, unsigned *ret_minor)
{
    json_auto_t *j = NULL;
    unsigned high, low = 0;

    TRY(parse(body, n, JSON_OBJECT, "version", &j));
    if (!parse_minor(json_object_get(j, "ApiVersion"), &high))
        return err_new(ERR_CORRUPT, "the container engine tells no API version");
    (void)parse_minor(json_object_get(j, "MinAPIVersion"), &low); /* old engines have none */
    if (high < DOCKER_API_MINOR_MIN || low > DOCKER_API_MINOR_MAX)
        return err_new(ERR_UNSUPPORTED,
                       "the container engine speaks the API versions 1.%u to 1.%u, needed is one "
                       "of 1.%u to 1.%u",
                       low, high, DOCKER_API_MINOR_MIN, DOCKER_API_MINOR_MAX);
    *ret_minor = high < DOCKER_API_MINOR_MAX ? high : DOCKER_API_MINOR_MAX;
    return NULL;
}

static bool take_id(const json_t *j, char ret_id[DOCKER_ID_MAX + 1])
{
    const char *s = json_string_value(j);
    size_t n = s ? strlen(s) : 0;

    if (n < 12 || n > DOCKER_ID_MAX || strspn(s, "0123456789abcdef") != n)
        return false;
    memcpy(ret_id, s, n + 1);
    return true;
}

static bool parse_u64(const char *s, uint64_t *ret_value)
{
    uint64_t v = 0;

    if (!s || !*s || strlen(s) > 20)
        return false;
    for (; *s; s++) {
        if (!isdigit((unsigned char)*s) || __builtin_mul_overflow(v, 10, &v) ||
            __builtin_add_overflow(v, (uint64_t)(*s - '0'), &v))
            return false;
    }
    *ret_value = v;
    return true;
}

static bool is_our_name(const char *engine_name, const char *name)
{
    return engine_name && engine_name[0] == '/' &&
           str_has_prefix(engine_name + 1, CONTAINER_PREFIX) &&
           streq(engine_name + 1 + strlen(CONTAINER_PREFIX), name);
}

/* Fills in name, created, era and `ours`. The engine's name(s) must agree with the label: an image
 * committed from one of our containers carries our labels too. */
static void take_labels(struct docker_container *c, const json_t *labels, const json_t *names,
                        const struct uuid *cluster)
{
    const char *of = json_string_value(json_object_get(labels, CONTAINER_LABEL_CLUSTER));
    const char *name = json_string_value(json_object_get(labels, CONTAINER_LABEL_NAME));
    struct uuid id;
    bool match = false;
    size_t i;
    json_t *v;

    if (!of || !uuid_parse(of, &id) || !uuid_eq(&id, cluster) || !name)
        return;
    if (json_is_string(names))
        match = is_our_name(json_string_value(names), name);
    json_array_foreach (names, i, v)
        match |= is_our_name(json_string_value(v), name);
    if (!match)
        return;
    c->ours = true;
    c->name = xstrdup(name);
    /* A damaged label is 0, which no configuration has: the container is replaced. */
    if (!parse_u64(json_string_value(json_object_get(labels, CONTAINER_LABEL_CREATED)),
                   &c->created))
        c->created = 0;
    const char *era = json_string_value(json_object_get(labels, CONTAINER_LABEL_ERA));
    if (!era || !uuid_parse(era, &c->era))
        c->era = UUID_NIL;
    uint64_t grace;
    /* Not Config.StopTimeout: podman has its own default there. */
    if (parse_u64(json_string_value(json_object_get(labels, CONTAINER_LABEL_STOP)), &grace) && grace <= STOP_TIMEOUT_MAX)
        c->stop_timeout_s = (unsigned)grace;
    const char *spec = json_string_value(json_object_get(labels, CONTAINER_LABEL_SPEC));
    if (spec) /* a damaged one is another one */
        (void)snprintf(c->spec, sizeof(c->spec), "%s", *spec ? spec : "?");
}

struct err *docker_parse_list(const char *body, size_t n, const struct uuid *cluster,
                              struct docker_container **ret_list, size_t *ret_n)
{
    json_auto_t *j = NULL;

    TRY(parse(body, n, JSON_ARRAY, "list of containers", &j));
    if (json_array_size(j) > LIST_MAX)
        return err_new(ERR_CORRUPT, "the container engine lists more than %u containers", LIST_MAX);
    struct docker_container *list = xcalloc(json_array_size(j), sizeof(*list));
    size_t used = 0, i;
    json_t *v;
    json_array_foreach (j, i, v) {
        struct docker_container *c = &list[used];

        take_labels(c, json_object_get(v, "Labels"), json_object_get(v, "Names"), cluster);
        if (!c->ours)
            continue;
        used++;
        if (!take_id(json_object_get(v, "Id"), c->id)) {
            for (size_t k = 0; k < used; k++)
                docker_container_done(&list[k]);
            free(list);
            return err_new(ERR_CORRUPT, "the container engine lists a container without an id");
        }
    }
    *ret_list = list;
    *ret_n = used;
    return NULL;
}

struct err *docker_parse_volumes(const char *body, size_t n, char ***ret_names, size_t *ret_n)
{
    json_auto_t *j = NULL;
    char **names = NULL;
    size_t used = 0, cap = 0, i, k;
    json_t *container, *mount;

    TRY(parse(body, n, JSON_ARRAY, "list of containers", &j));
    json_array_foreach (j, i, container) {
        json_array_foreach (json_object_get(container, "Mounts"), k, mount) {
            const char *type = json_string_value(json_object_get(mount, "Type"));
            const char *name = json_string_value(json_object_get(mount, "Name"));

            if (!type || !streq(type, "volume") || !name)
                continue;
            names = mem_grow(names, used, &cap, sizeof(*names));
            names[used++] = xstrdup(name);
        }
    }
    *ret_names = names;
    *ret_n = used;
    return NULL;
}

static bool take_int(const json_t *j, int *ret_value)
{
    json_int_t v = json_integer_value(j);

    if (!json_is_integer(j) || v < INT_MIN || v > INT_MAX)
        return false;
    *ret_value = (int)v;
    return true;
}

static enum container_health health_of(const json_t *state)
{
    const char *status = json_string_value(json_object_get(json_object_get(state, "Health"), "Status"));

    if (!status) /* podman calls it so */
        status = json_string_value(json_object_get(json_object_get(state, "Healthcheck"), "Status"));
    for (int i = HEALTH_STARTING; status && i < CONTAINER_HEALTH_MAX; i++) {
        if (streq(status, container_health_name((enum container_health)i)))
            return (enum container_health)i;
    }
    return HEALTH_NONE;
}

/* Whatever is not surely over counts as running: somebody may still write. */
static enum container_run run_of_state(const json_t *state, pid_t pid)
{
    static const char *const flags[] = {"Running", "Paused", "Restarting"};
    const char *status = json_string_value(json_object_get(state, "Status"));

    for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
        if (json_is_true(json_object_get(state, flags[i])))
            return CONTAINER_RUNNING;
    }
    if (pid > 0)
        return CONTAINER_RUNNING;
    if (status && (streq(status, "created") || streq(status, "configured") ||
                   streq(status, "initialized"))) /* the last two are podman's */
        return CONTAINER_CREATED;
    return CONTAINER_EXITED;
}

struct err *docker_parse_inspect(const char *body, size_t n, const struct uuid *cluster,
                                 struct docker_container *ret_container)
{
    json_auto_t *j = NULL;
    struct docker_container c = {0};

    TRY(parse(body, n, JSON_OBJECT, "description of a container", &j));
    const json_t *state = json_object_get(j, "State");
    int pid = 0, code = 0;
    if (!take_id(json_object_get(j, "Id"), c.id) || !json_is_object(state) ||
        !json_is_boolean(json_object_get(state, "Running")) ||
        !take_int(json_object_get(state, "ExitCode"), &code) ||
        !take_int(json_object_get(state, "Pid"), &pid))
        return err_new(ERR_CORRUPT,
                       "the container engine describes a container without id or state");
    c.pid = pid > 0 ? pid : 0;
    c.exit_code = code;
    c.run = run_of_state(state, c.pid);
    c.health = health_of(state);
    take_labels(&c, json_object_get(json_object_get(j, "Config"), "Labels"),
                json_object_get(j, "Name"), cluster);
    *ret_container = c;
    return NULL;
}

struct err *docker_parse_addresses(const char *body, size_t n, char *ret_addresses[DOCKER_ADDRESSES_MAX],
                                   size_t *ret_n)
{
    static const char *const keys[] = {"IPAddress", "GlobalIPv6Address"};
    json_auto_t *j = NULL;
    const char *name;
    json_t *network;
    size_t found = 0;

    TRY(parse(body, n, JSON_OBJECT, "description of a container", &j));
    json_object_foreach(json_object_get(json_object_get(j, "NetworkSettings"), "Networks"), name, network)
    {
        for (size_t i = 0; i < ARRAY_SIZE(keys) && found < DOCKER_ADDRESSES_MAX; i++) {
            const char *address = json_string_value(json_object_get(network, keys[i]));
            if (address && address[0])
                ret_addresses[found++] = xstrdup(address);
        }
    }
    *ret_n = found;
    return NULL;
}

struct err *docker_parse_created(const char *body, size_t n, char ret_id[DOCKER_ID_MAX + 1])
{
    json_auto_t *j = NULL;

    TRY(parse(body, n, JSON_OBJECT, "answer to the making of a container", &j));
    if (!take_id(json_object_get(j, "Id"), ret_id))
        return err_new(ERR_CORRUPT, "the container engine made a container and tells no id");
    return NULL;
}

char *docker_message_shorten(const char *s)
{
    while (isspace((unsigned char)*s))
        s++;
    size_t n = strnlen(s, DOCKER_MESSAGE_MAX + 1);

    if (n > DOCKER_MESSAGE_MAX) {
        n = DOCKER_MESSAGE_MAX;
        while (n && ((unsigned char)s[n] & 0xc0) == 0x80)
            n--;
    }
    while (n && isspace((unsigned char)s[n - 1]))
        n--;
    return n ? xstrndup(s, n) : xstrdup("the engine gives no reason");
}

char *docker_parse_message(const char *body, size_t n)
{
    json_auto_t *j = n ? json_loadb(body, n, 0, NULL) : NULL;
    const char *text = json_string_value(json_object_get(j, "message"));

    return docker_message_shorten(text ? text : "");
}

static struct docker_layer *layer_of(struct docker_layers *l, const char *id)
{
    for (size_t i = 0; i < l->n; i++) {
        if (streq(l->layers[i].id, id))
            return &l->layers[i];
    }
    if (l->n == DOCKER_LAYERS_MAX || strlen(id) >= sizeof(l->layers->id))
        return NULL;
    l->layers = xrealloc(l->layers, l->n + 1, sizeof(*l->layers));
    struct docker_layer *new = &l->layers[l->n++];
    *new = (struct docker_layer){0};
    memcpy(new->id, id, strlen(id) + 1);
    return new;
}

#define LAYER_MAX ((json_int_t)1 << 50) /* bytes; so that sums cannot overflow */

void docker_layers_take(struct docker_layers *l, const char *line, size_t n, uint64_t *ret_bytes, uint64_t *ret_total)
{
    json_auto_t *j = n ? json_loadb(line, n, 0, NULL) : NULL;
    const char *id = json_string_value(json_object_get(j, "id"));
    const char *status = json_string_value(json_object_get(j, "status"));
    const json_t *detail = json_object_get(j, "progressDetail");
    json_int_t bytes = json_integer_value(json_object_get(detail, "current"));
    json_int_t total = json_integer_value(json_object_get(detail, "total"));
    bool loading = status && streq(status, "Downloading") && bytes > 0 && total >= bytes && total <= LAYER_MAX;
    bool loaded = status && (streq(status, "Download complete") || streq(status, "Pull complete"));
    struct docker_layer *layer = id && (loading || loaded) ? layer_of(l, id) : NULL;

    if (layer && loading) {
        layer->bytes = (uint64_t)bytes;
        layer->total = (uint64_t)total;
    } else if (layer) {
        layer->bytes = layer->total;
    }
    *ret_bytes = *ret_total = 0;
    for (size_t i = 0; i < l->n; i++) {
        *ret_bytes += l->layers[i].bytes;
        *ret_total += l->layers[i].total;
    }
}

void docker_layers_done(struct docker_layers *l)
{
    free(l->layers);
    *l = (struct docker_layers){0};
}

bool docker_parse_event_matters(const char *line, size_t n)
{
    /* The last two are podman's names. Health checks make exec_* events all the time: not among
     * them. */
    static const char *const actions[] = {"create", "start",   "restart", "die",  "destroy", "stop",
                                          "pause",  "unpause", "rename",  "died", "remove"};
    json_auto_t *j = json_loadb(line, n, 0, NULL);
    const char *type = json_string_value(json_object_get(j, "Type"));
    const char *action = json_string_value(json_object_get(j, "Action"));

    if (!action || (type && !streq(type, "container")))
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(actions); i++) {
        if (streq(action, actions[i]))
            return true;
    }
    return str_has_prefix(action, "health_status"); /* "health_status: healthy" */
}
