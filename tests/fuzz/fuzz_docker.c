/* What a container engine says, and what is said to it. The first byte chooses:
 *   v, l, V, i, a, n  answers: version, list, its volumes, inspect, its addresses, creation
 *   m, s           an error's message, and what it means for a start
 *   e, p           a line of the events, of a fetch
 *   o              the end of a container's output
 *   w              a stream of lines: the same lines whatever the pieces
 *   c              a container's configuration (as for the REST API) told to the engine
 *   t, r           an image's name; root's config.json with the login state */
#include "fuzz.h"

#include "engines/docker_api.h"
#include "engines/docker_http.h"
#include "model/json.h"
#include "model/validate.h"

static const struct uuid cluster = {
    {0x3f, 0x0c, 0x9c, 0x1e, 0x7b, 0x1d, 0x4c, 0x7a, 0x9d, 0x0e, 0x0a, 0x1b, 0x2c, 0x3d, 0x4e, 0x5f}};

static bool refused(struct err *e)
{
    if (!e)
        return false;
    RULE(*e->text && (unsigned)e->code < ERR_CODE_MAX);
    err_free(e);
    return true;
}

static void check_id(const char *id)
{
    size_t n = strlen(id);

    RULE(n >= 12 && n <= DOCKER_ID_MAX && strspn(id, "0123456789abcdef") == n);
}

static void version(const char *text, size_t n)
{
    unsigned minor;

    if (!refused(docker_parse_version(text, n, &minor)))
        RULE(minor >= DOCKER_API_MINOR_MIN && minor <= DOCKER_API_MINOR_MAX);
}

static void list(const char *text, size_t n)
{
    struct docker_container *found = NULL;
    size_t count = 0;

    if (refused(docker_parse_list(text, n, &cluster, &found, &count)))
        return;
    for (size_t i = 0; i < count; i++) {
        RULE(found[i].ours && found[i].name);
        check_id(found[i].id);
        docker_container_done(&found[i]);
    }
    free(found);
}

static void volumes(const char *text, size_t n)
{
    char **names = NULL;
    size_t count = 0;

    if (refused(docker_parse_volumes(text, n, &names, &count)))
        return;
    for (size_t i = 0; i < count; i++) {
        RULE(names[i]);
        free(names[i]);
    }
    free(names);
}

static void inspect(const char *text, size_t n)
{
    struct docker_container c;

    if (refused(docker_parse_inspect(text, n, &cluster, &c)))
        return;
    check_id(c.id);
    RULE(c.ours == (c.name != NULL) && c.pid >= 0 && (!c.pid || c.run == CONTAINER_RUNNING));
    docker_container_done(&c);
}

static void addresses(const char *text, size_t n)
{
    char *found[DOCKER_ADDRESSES_MAX];
    size_t count = 0;

    if (refused(docker_parse_addresses(text, n, found, &count)))
        return;
    RULE(count <= DOCKER_ADDRESSES_MAX);
    for (size_t i = 0; i < count; i++) {
        RULE(*found[i]);
        free(found[i]);
    }
}

static void created(const char *text, size_t n)
{
    char id[DOCKER_ID_MAX + 1];

    if (!refused(docker_parse_created(text, n, id)))
        check_id(id);
}

static void message(const char *text, size_t n)
{
    CLEANUP_FREE char *m = docker_parse_message(text, n);

    RULE(*m && strlen(m) <= DOCKER_MESSAGE_MAX && str_is_utf8(m, strlen(m)));
}

static void logs(const char *text, size_t n)
{
    CLEANUP_FREE char *words = docker_parse_logs(text, n);

    RULE(!words || (*words && strlen(words) <= DOCKER_LOG_BYTES && str_is_utf8(words, strlen(words))));
    for (const char *p = words; p && *p; p++)
        RULE((unsigned char)*p >= 0x20 && *p != 0x7f);
}

static void event(const char *text, size_t n)
{
    (void)docker_parse_event_matters(text, n);
}

static void pull_line(const char *text, size_t n)
{
    CLEANUP_ERR struct err *e = docker_parse_pull_line(text, n);

    RULE(!e || (*e->text && str_is_utf8(e->text, strlen(e->text))));
    RULE(!e || strlen(e->text) <= DOCKER_MESSAGE_MAX);
    CLEANUP(docker_layers_done) struct docker_layers layers = {0};
    uint64_t bytes, total;
    docker_layers_take(&layers, text, n, &bytes, &total);
    RULE(bytes <= total && layers.n <= 1);
}

static void start_error(const char *text)
{
    static struct port ports[] = {{80, 8080}, {5432, 0}};
    struct container c = {.name = (char[]){"web"}, .image = (char[]){"nginx:1"}, .ports = ports, .n_ports = 2};
    static const long statuses[] = {0, 400, 404, 409, 500, 503};

    for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
        RULE(refused(docker_start_error(statuses[i], text, &c, i & 1)));
        RULE(refused(docker_pull_error(statuses[i], text, c.image)));
        RULE(refused(docker_error(statuses[i], text, "cannot look")));
    }
}

/* Each line with its end. */
static struct err *keep_line(void *cookie, const char *line, size_t n)
{
    RULE(n > 0 && n <= DOCKER_LINE_MAX && !memchr(line, '\n', n) && line[n] == '\0');
    str_append_bytes(cookie, line, n);
    str_append(cookie, "\n");
    return NULL;
}

static void lines(const char *text, size_t n)
{
    uint64_t state = fuzz_hash(text, n);
    struct random r = random_seeded(&state);
    struct docker_lines whole = {0}, pieces = {0};
    CLEANUP_STR struct str a = {0};
    CLEANUP_STR struct str b = {0};

    RULE(!docker_lines_feed(&whole, text, n, keep_line, &a));
    for (size_t at = 0; at < n;) {
        size_t piece = fuzz_piece(&r, n - at);
        RULE(!docker_lines_feed(&pieces, text + at, piece, keep_line, &b));
        at += piece;
    }
    RULE(a.len == b.len && (!a.len || !memcmp(a.data, b.data, a.len)));
    RULE(whole.rest.len == pieces.rest.len);
    str_done(&whole.rest);
    str_done(&pieces.rest);
}

/* What the REST API accepts can be told to the engine, or is refused as the settings' fault. */
static void configuration(const char *text, size_t n)
{
    json_t *body = NULL, *rendered;
    struct container *c = NULL;
    char *json = NULL;

    if (refused(json_parse(text, n, &body)))
        return;
    json_t *errors = validate_container_create(body, &c);
    json_decref(body);
    json_decref(errors);
    if (!c)
        return;
    struct container_start start = {.config = c,
                                    .cluster = cluster,
                                    .era = cluster,
                                    .mount_root = "/flocker",
                                    .host = "192.0.2.1"};
    struct err *e = docker_render_create(&start, n & 1, &json);
    if (!e) {
        rendered = json_loads(json, JSON_REJECT_DUPLICATES, NULL);
        RULE(json_is_object(rendered));
        RULE(streq(json_string_value(json_object_get(rendered, "Image")), c->image));
        json_decref(rendered);
    } else {
        RULE(err_is(e, ERR_INVALID));
    }
    err_free(e);
    free(json);
    container_free(c);
}

static void image(const char *text)
{
    char *repository, *tag;

    if (refused(docker_image_split(text, &repository, &tag)))
        return;
    CLEANUP_FREE char *registry = docker_image_registry(text);
    RULE(*repository && *tag && *registry && !strpbrk(repository, " \n?&#%"));
    CLEANUP_FREE char *whole = xasprintf("%s%s%s", repository, strchr(tag, ':') ? "@" : ":", tag);
    char *repository2, *tag2;
    if (!strchr(text, '@')) {
        RULE(!docker_image_split(whole, &repository2, &tag2));
        RULE(streq(repository, repository2) && streq(tag, tag2));
        free(repository2);
        free(tag2);
    }
    free(repository);
    free(tag);
}

static void login(const char *text, size_t n)
{
    static const char *const registries[] = {"index.docker.io", "registry.example:5000"};

    for (size_t i = 0; i < ARRAY_SIZE(registries); i++) {
        CLEANUP_FREE char *auth = docker_registry_auth(text, n, registries[i]);
        RULE(!auth || strspn(auth, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_=") ==
                          strlen(auth));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_choice choices[] = {
        {'v', .bytes = version},
        {'l', .bytes = list},
        {'V', .bytes = volumes},
        {'i', .bytes = inspect},
        {'a', .bytes = addresses},
        {'n', .bytes = created},
        {'m', .bytes = message},
        {'s', .text = start_error},
        {'o', .bytes = logs},
        {'e', .bytes = event},
        {'p', .bytes = pull_line},
        {'w', .bytes = lines},
        {'c', .bytes = configuration},
        {'t', .text = image},
        {'r', .bytes = login},
    };

    return fuzz_choose(choices, ARRAY_SIZE(choices), data, size);
}
