#include "agent/config.h"

#include "model/yaml_json.h"
#include "base/str.h"
#include "drivers/driver.h"
#include "mover/mover.h"

#include <ctype.h>
#include <errno.h>
#include <libgen.h>
#include <stdio.h>

#define BANDWIDTH_MIN 65536u /* less would keep streams silent for so long that they seem to be broken */
#define REST_PORT 4523
#define SSH_PORT 22 /* unless agent.yml says what is excepted */
#define ROUTES_EXCEPT_MAX 1000
#define MOVE_MS_MAX (24 * 3600 * 1000)
#define SOCKET_PATH_MAX 100  /* with the name under which it is made first, it must fit into a socket's address */
#define DOCKER_WAIT_MAX_S 110 /* Docker itself waits for two minutes */

static bool is_hostname(const char *s)
{
    size_t n = strlen(s);

    if (!n || n > 253)
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)s[i]) && !strchr(".-_:", s[i]))
            return false;
    }
    return true;
}

static struct err *need_known_keys(const json_t *object, const char *where, const char *const *known)
{
    const char *key;
    json_t *value;

    json_object_foreach((json_t *)object, key, value)
    {
        bool found = false;
        for (size_t i = 0; known[i] && !found; i++)
            found = streq(known[i], key);
        if (!found)
            return err_new(ERR_INVALID, "%sunknown key '%s'", where, key);
    }
    return NULL;
}

static struct err *parse_control(const json_t *root, struct agent_config *c)
{
    static const char *const known[] = {"hostname", "port", NULL};
    const json_t *control = json_object_get(root, "control-service");

    if (!json_is_object(control))
        return err_new(ERR_INVALID, "'control-service' is missing or not a mapping");
    TRY(need_known_keys(control, "control-service: ", known));
    const char *host = json_string_value(json_object_get(control, "hostname"));
    if (!host || !is_hostname(host))
        return err_new(ERR_INVALID, "control-service: 'hostname' is missing or not a host name");
    const json_t *port = json_object_get(control, "port");
    json_int_t number = port ? json_integer_value(port) : 4524;
    if ((port && !json_is_integer(port)) || number < 1 || number > UINT16_MAX)
        return err_new(ERR_INVALID, "control-service: 'port' must be an integer from 1 to 65535");
    c->control_host = xstrdup(host);
    c->control_port = (uint16_t)number;
    return NULL;
}

static struct err *parse_plugin_socket(const json_t *docker, struct agent_config *c)
{
    const json_t *v = json_object_get(docker, "plugin-socket");
    const char *path = json_string_value(v);

    if (!v)
        return NULL;
    if (!path || (path[0] != '/' && !streq(path, "none")) || strlen(path) > SOCKET_PATH_MAX)
        return err_new(ERR_INVALID, "docker: 'plugin-socket' must be an absolute path of at most %d characters, or none", SOCKET_PATH_MAX);
    free(c->plugin_socket);
    c->plugin_socket = path[0] == '/' ? xstrdup(path) : NULL;
    return NULL;
}

static struct err *parse_seconds(const json_t *docker, const char *key, uint32_t min, uint32_t max, bool or_zero, uint32_t *ret)
{
    const json_t *v = json_object_get(docker, key);
    json_int_t n = json_integer_value(v);

    if (!v)
        return NULL;
    if (!json_is_integer(v) || n > max || (n < min && !(or_zero && n == 0)))
        return err_new(ERR_INVALID, "docker: '%s' must be %u to %u seconds%s", key, min, max, or_zero ? ", or 0 for never" : "");
    *ret = (uint32_t)n;
    return NULL;
}

static struct err *parse_default_size(const json_t *docker, struct agent_config *c)
{
    const json_t *v = json_object_get(docker, "default-size");
    uint64_t n = json_is_integer(v) && json_integer_value(v) >= 0 ? (uint64_t)json_integer_value(v) : 1;

    if (!v)
        return NULL;
    if (json_is_string(v) && !driver_size_parse(json_string_value(v), &n))
        n = 1;
    if (n && (n < DATASET_MIN_SIZE || n % DATASET_SIZE_STEP))
        return err_new(ERR_INVALID,
                       "docker: 'default-size' must be a size like 10G, at least %uM and a multiple of %u bytes; or 0 for no limit",
                       DATASET_MIN_SIZE >> 20, DATASET_SIZE_STEP);
    c->default_size = n;
    c->has_default_size = true;
    return NULL;
}

static struct err *parse_remove(const json_t *docker, struct agent_config *c)
{
    const json_t *v = json_object_get(docker, "remove");
    const char *word = json_string_value(v);

    if (!v)
        return NULL;
    if (!word || (!streq(word, "delete") && !streq(word, "keep")))
        return err_new(ERR_INVALID, "docker: 'remove' must be delete or keep");
    c->docker_keep = streq(word, "keep");
    return NULL;
}

/* What concerns the volumes that Docker asks for. */
static struct err *parse_plugin(const json_t *docker, struct agent_config *c)
{
    TRY(parse_plugin_socket(docker, c));
    TRY(parse_seconds(docker, "wait", 1, DOCKER_WAIT_MAX_S, /* or_zero= */ false, &c->docker_wait_s));
    TRY(parse_seconds(docker, "release-unused", 4, 86400, /* or_zero= */ true, &c->release_unused_s));
    TRY(parse_default_size(docker, c));
    return parse_remove(docker, c);
}

static struct err *parse_docker(const json_t *root, struct agent_config *c)
{
    static const char *const known[] = {"socket", "stop-timeout", "plugin-socket", "wait", "release-unused", "default-size", "remove", NULL};
    const json_t *docker = json_object_get(root, "docker");
    const json_t *socket, *timeout;

    c->docker_socket = xstrdup("/var/run/docker.sock");
    c->stop_timeout_s = 60;
    c->plugin_socket = xstrdup("/run/docker/plugins/flocker/flocker.sock");
    c->docker_wait_s = 90;
    c->release_unused_s = 600;
    c->default_size = DRIVER_DEFAULT_SIZE;
    if (!docker)
        return NULL;
    if (!json_is_object(docker))
        return err_new(ERR_INVALID, "'docker' must be a mapping");
    TRY(need_known_keys(docker, "docker: ", known));
    socket = json_object_get(docker, "socket");
    if (socket && (!json_is_string(socket) || json_string_value(socket)[0] != '/'))
        return err_new(ERR_INVALID, "docker: 'socket' must be an absolute path");
    timeout = json_object_get(docker, "stop-timeout");
    if (timeout && (!json_is_integer(timeout) || json_integer_value(timeout) < 1 ||
                    json_integer_value(timeout) > 3600))
        return err_new(ERR_INVALID, "docker: 'stop-timeout' must be 1 to 3600 seconds");
    if (socket) {
        free(c->docker_socket);
        c->docker_socket = xstrdup(json_string_value(socket));
    }
    if (timeout)
        c->stop_timeout_s = (uint32_t)json_integer_value(timeout);
    return parse_plugin(docker, c);
}

static struct err *parse_ms(const json_t *move, const char *key, uint64_t *ret_us)
{
    const json_t *v = json_object_get(move, key);

    if (!v)
        return NULL;
    if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > MOVE_MS_MAX)
        return err_new(ERR_INVALID, "move: '%s' must be an integer from 1 to %d milliseconds", key, MOVE_MS_MAX);
    *ret_us = (uint64_t)json_integer_value(v) * USEC_PER_MSEC;
    return NULL;
}

static struct err *parse_bandwidth(const json_t *move, uint64_t *ret)
{
    const json_t *v = json_object_get(move, "bandwidth-limit");
    uint64_t n = json_is_integer(v) && json_integer_value(v) > 0 ? (uint64_t)json_integer_value(v) : 0;

    if (!v || (json_is_integer(v) && json_integer_value(v) == 0))
        return NULL;
    if (json_is_string(v) && !driver_size_parse(json_string_value(v), &n))
        n = 0;
    if (n < BANDWIDTH_MIN)
        return err_new(ERR_INVALID,
                       "move: 'bandwidth-limit' must be bytes a second, as a number or text like 100MiB, at least %u; "
                       "or 0 for no limit",
                       BANDWIDTH_MIN);
    *ret = n;
    return NULL;
}

static struct err *parse_mover_port(const json_t *move, uint16_t *ret)
{
    const json_t *v = json_object_get(move, "port");

    if (!v)
        return NULL;
    if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > UINT16_MAX)
        return err_new(ERR_INVALID, "move: 'port' must be an integer from 1 to 65535");
    *ret = (uint16_t)json_integer_value(v);
    return NULL;
}

static struct err *parse_verify(const json_t *move, bool *ret)
{
    const json_t *v = json_object_get(move, "verify");
    const char *word = json_string_value(v);

    if (!v)
        return NULL;
    if (!word || (!streq(word, "always") && !streq(word, "never")))
        return err_new(ERR_INVALID, "move: 'verify' must be always or never");
    *ret = streq(word, "always");
    return NULL;
}

static struct err *parse_move(const json_t *root, struct agent_config *c)
{
    static const char *const known[] = {
        "rounds", "small-ms", "max-pause-ms", "bandwidth-limit", "verify", "port", NULL};
    const json_t *move = json_object_get(root, "move"), *rounds;

    c->copy = COPY_LIMITS_DEFAULT;
    c->mover_port = MOVER_PORT;
    if (!move)
        return NULL;
    if (!json_is_object(move))
        return err_new(ERR_INVALID, "'move' must be a mapping");
    TRY(need_known_keys(move, "move: ", known));
    rounds = json_object_get(move, "rounds");
    if (rounds && (!json_is_integer(rounds) || json_integer_value(rounds) < 2 || json_integer_value(rounds) > 100))
        return err_new(ERR_INVALID, "move: 'rounds' must be an integer from 2 to 100");
    if (rounds)
        c->copy.rounds = (unsigned)json_integer_value(rounds);
    TRY(parse_ms(move, "small-ms", &c->copy.small_us));
    TRY(parse_ms(move, "max-pause-ms", &c->copy.pause_us));
    TRY(parse_bandwidth(move, &c->bandwidth_limit));
    TRY(parse_mover_port(move, &c->mover_port));
    return parse_verify(move, &c->copy.verify);
}

static void except(struct agent_config *c, size_t *cap, json_int_t port)
{
    c->routes_except = mem_grow(c->routes_except, c->n_routes_except, cap, sizeof(*c->routes_except));
    c->routes_except[c->n_routes_except++] = (uint16_t)port;
}

/* Whatever the file says, the cluster's own ports are never led elsewhere: the node would lose its control service. */
static struct err *parse_routes(const json_t *root, struct agent_config *c)
{
    static const char *const known[] = {"enabled", "except", NULL};
    const json_t *routes = json_object_get(root, "routes"), *enabled = json_object_get(routes, "enabled"), *port;
    const json_t *list = json_object_get(routes, "except");
    size_t cap = 0, i;

    c->routes = true;
    except(c, &cap, REST_PORT);
    except(c, &cap, c->control_port);
    except(c, &cap, c->mover_port);
    if (!list)
        except(c, &cap, SSH_PORT);
    if (!routes)
        return NULL;
    if (!json_is_object(routes))
        return err_new(ERR_INVALID, "'routes' must be a mapping");
    TRY(need_known_keys(routes, "routes: ", known));
    if (enabled && !json_is_boolean(enabled))
        return err_new(ERR_INVALID, "routes: 'enabled' must be true or false");
    c->routes = !enabled || json_is_true(enabled);
    if (list && (!json_is_array(list) || json_array_size(list) > ROUTES_EXCEPT_MAX))
        return err_new(ERR_INVALID, "routes: 'except' must be a list of at most %d ports", ROUTES_EXCEPT_MAX);
    json_array_foreach (list, i, port) {
        if (!json_is_integer(port) || json_integer_value(port) < 1 || json_integer_value(port) > UINT16_MAX)
            return err_new(ERR_INVALID, "routes: 'except' must have integers from 1 to 65535");
        except(c, &cap, json_integer_value(port));
    }
    return NULL;
}

static struct err *parse_root(const json_t *root, struct agent_config *c)
{
    static const char *const known[] = {"version", "control-service", "dataset",
                                        "logging", "docker",          "move",    "routes", NULL};
    const json_t *version, *dataset;

    if (!json_is_object(root))
        return err_new(ERR_INVALID, "must be a mapping");
    TRY(need_known_keys(root, "", known));
    version = json_object_get(root, "version");
    if (!version)
        return err_new(ERR_INVALID, "'version' is missing; write 'version: 1'");
    if (!json_is_integer(version) || json_integer_value(version) != 1)
        return err_new(ERR_INVALID, "'version' must be 1");
    TRY(parse_control(root, c));
    TRY(parse_docker(root, c));
    TRY(parse_move(root, c));
    TRY(parse_routes(root, c));
    dataset = json_object_get(root, "dataset");
    if (!json_is_object(dataset))
        return err_new(ERR_INVALID, "'dataset' is missing or not a mapping");
    if (!json_is_string(json_object_get(dataset, "backend")))
        return err_new(ERR_INVALID, "dataset: 'backend' is missing or not a string");
    c->dataset = json_deep_copy(dataset);
    return NULL;
}

struct err *agent_config_parse(const char *text, size_t n, struct agent_config *ret)
{
    struct agent_config c = {0};
    json_t *root;

    TRY(yaml_load(text, n, &root));
    struct err *e = parse_root(root, &c);
    json_decref(root);
    if (e) {
        agent_config_done(&c);
        return e;
    }
    *ret = c;
    return NULL;
}

struct err *agent_config_load(const char *path, struct agent_config *ret)
{
    CLEANUP_FREE char *text = xmalloc(YAML_MAX_BYTES + 1);
    FILE *f = fopen(path, "re");

    if (!f)
        return err_errno(errno, "cannot read %s", path);
    size_t n = fread(text, 1, YAML_MAX_BYTES + 1, f);
    int failed = ferror(f);
    (void)fclose(f);
    if (failed)
        return err_new(ERR_IO, "cannot read %s", path);
    TRY(err_wrap(agent_config_parse(text, n, ret), "Configuration error: %s", path));
    CLEANUP_FREE char *copy = xstrdup(path);
    ret->directory = xstrdup(dirname(copy));
    return NULL;
}

void agent_config_done(struct agent_config *c)
{
    free(c->directory);
    free(c->control_host);
    free(c->docker_socket);
    free(c->plugin_socket);
    free(c->routes_except);
    json_decref(c->dataset);
    *c = (struct agent_config){0};
}
