/* What an engine's answer means. The API tells many things only in the words of its messages; all
 * matching of words is in this file. */
#include "engines/docker_api.h"

#include "base/str.h"

#include <ctype.h>
#include <jansson.h>

static bool has_any(const char *text, const char *const *words, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (strcasestr(text, words[i]))
            return true;
    }
    return false;
}
#define HAS_ANY(text, ...)                                                                         \
    has_any((text), (const char *const[]){__VA_ARGS__},                                            \
            ARRAY_SIZE(((const char *const[]){__VA_ARGS__})))

static enum err_code code_of_status(long status, const char *message)
{
    if (HAS_ANY(message, "no space left on device", "disk quota exceeded"))
        return ERR_NO_SPACE;
    switch (status) {
    case 400:
        return ERR_INVALID;
    case 401:
    case 403:
        return ERR_DENIED;
    case 404:
        return ERR_NOT_FOUND;
    case 409:
        return ERR_CONFLICT;
    case 501:
        return ERR_UNSUPPORTED;
    case 503:
        return ERR_UNAVAILABLE;
    default:
        return ERR_IO;
    }
}

bool docker_is_absent(long status, const char *message)
{
    return status == 404 || (status == 500 && HAS_ANY(message, "no such container"));
}

struct err *docker_error(long status, const char *message, const char *what)
{
    return err_new(code_of_status(status, message), "%s: %s (HTTP %ld)", what, message, status);
}

/* Does the text contain ":<port>" not followed by another digit? */
static bool names_port(const char *text, uint16_t port)
{
    CLEANUP_FREE char *word = xasprintf(":%u", (unsigned)port);
    size_t n = strlen(word);

    for (const char *p = text; (p = strstr(p, word)); p += n) {
        if (!isdigit((unsigned char)p[n]))
            return true;
    }
    return false;
}

struct err *docker_start_error(long status, const char *message, const struct container *config,
                               bool creating)
{
    CLEANUP_FREE char *what = xasprintf("cannot start container %s", config->name);

    if (HAS_ANY(message, "address already in use", "port is already allocated")) {
        for (size_t i = 0; i < config->n_ports; i++) {
            uint16_t port = config->ports[i].external;

            if (port && names_port(message, port))
                return err_new(ERR_BUSY, "%s: port %u of this node is taken: %s", what,
                               (unsigned)port, message);
        }
        return err_new(ERR_BUSY, "%s: a port of this node is taken: %s", what, message);
    }
    if (status == 404 && creating)
        return err_new(ERR_NOT_FOUND, "%s: image %s is not on this node: %s", what, config->image,
                       message);
    if (status == 404)
        return err_new(ERR_CONFLICT, "%s: it was removed by somebody else meanwhile: %s", what,
                       message);
    return docker_error(status, message, what);
}

static enum err_code code_of_pull(long status, const char *message)
{
    if (HAS_ANY(message, "no space left on device", "disk quota exceeded"))
        return ERR_NO_SPACE;
    if (HAS_ANY(message, "invalid reference format", "invalid tag format"))
        return ERR_INVALID;
    if (HAS_ANY(message, "manifest unknown", "name unknown", "does not exist", "not found",
                "no matching manifest"))
        return ERR_NOT_FOUND;
    if (status == 401 || status == 403 ||
        HAS_ANY(message, "unauthorized", "authentication required", "no basic auth credentials",
                "access denied", "access to the resource is denied"))
        return ERR_DENIED;
    if (status == 400)
        return ERR_INVALID;
    return status == 404 ? ERR_NOT_FOUND : ERR_UNAVAILABLE;
}

struct err *docker_pull_error(long status, const char *message, const char *image)
{
    enum err_code code = code_of_pull(status, message);

    return err_new(code, "cannot fetch image %s: %s%s", image, message,
                   code == ERR_DENIED ? "; log in to the registry as root on this node" : "");
}

struct err *docker_parse_pull_line(const char *line, size_t n)
{
    json_t *j = json_loadb(line, n, 0, NULL);

    if (!json_is_object(j)) {
        json_decref(j);
        return err_new(ERR_CORRUPT, "the container engine's report of the fetch is no JSON");
    }
    const json_t *detail = json_object_get(j, "errorDetail");
    const char *text = json_string_value(json_object_get(j, "error"));
    struct err *e = NULL;
    if (!text)
        text = json_string_value(json_object_get(detail, "message"));
    if (text || detail) {
        json_int_t code = json_integer_value(json_object_get(detail, "code"));
        CLEANUP_FREE char *message = docker_message_shorten(text ? text : "");

        e = err_new(code_of_pull(code > 0 && code < 600 ? (long)code : 0, message), "%s", message);
    }
    json_decref(j);
    return e;
}
