/* Image names and the login state of root. */
#include "engines/docker_api.h"

#include "base/str.h"

#include <ctype.h>
#include <jansson.h>

#define IMAGE_MAX 1024u

static bool is_image_name(const char *s)
{
    size_t n = strnlen(s, IMAGE_MAX + 1);

    if (!n || n > IMAGE_MAX || !isalnum((unsigned char)s[0]) || strstr(s, "..") || strstr(s, "//"))
        return false;
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)s[i]) && !strchr("._-/:@+", s[i]))
            return false;
    }
    return true;
}

struct err *docker_image_split(const char *image, char **ret_repository, char **ret_tag)
{
    if (!is_image_name(image))
        return err_new(ERR_INVALID, "\"%.100s\" is no name of a container image", image);
    const char *cut = strchr(image, '@');
    if (!cut) {
        const char *slash = strrchr(image, '/');

        cut = strrchr(slash ? slash : image, ':'); /* a colon before it belongs to a port */
    }
    if (cut && (!cut[1] || cut == image))
        return err_new(ERR_INVALID, "\"%.100s\" is no name of a container image", image);
    *ret_repository = cut ? xstrndup(image, (size_t)(cut - image)) : xstrdup(image);
    *ret_tag = xstrdup(cut ? cut + 1 : "latest");
    return NULL;
}

char *docker_image_registry(const char *image)
{
    size_t n = strcspn(image, "/");
    CLEANUP_FREE char *first = xstrndup(image, n);

    /* The rule of all Docker programs: a first part with a dot or a colon, or "localhost", is a
     * host. */
    if (image[n] == '/' && (strpbrk(first, ".:") || streq(first, "localhost")) &&
        !streq(first, "docker.io"))
        return steal(&first);
    return xstrdup("index.docker.io");
}

/* Keys of `auths` are hosts, or old-style URLs: "https://index.docker.io/v1/". */
static bool key_is_registry(const char *key, const char *registry)
{
    const char *scheme = strstr(key, "://");
    size_t n;

    if (scheme)
        key = scheme + 3;
    n = strcspn(key, "/");
    return n == strlen(registry) && strncasecmp(key, registry, n) == 0;
}

static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/* NUL-terminated; NULL when it is no base64. */
static char *base64_decode(const char *s)
{
    size_t n = strlen(s), used = 0;
    char *out = xmalloc(n + 1);
    unsigned bits = 0, have = 0;

    for (size_t i = 0; i < n && s[i] != '='; i++) {
        const char *p = strchr(alphabet, s[i]);

        if (!p) {
            free(out);
            return NULL;
        }
        bits = (bits << 6 | (unsigned)(p - alphabet)) & 0xfffff;
        have += 6;
        if (have >= 8) {
            have -= 8;
            out[used++] = (char)(bits >> have);
        }
    }
    out[used] = '\0';
    return out;
}

/* The URL-safe form with padding, as the API wants it. */
static char *base64url_encode(const char *s)
{
    size_t n = strlen(s);
    struct str out = {0};

    for (size_t i = 0; i < n; i += 3) {
        size_t left = n - i;
        unsigned v = (unsigned)(unsigned char)s[i] << 16;
        char four[4] = {'=', '=', '=', '='};

        if (left > 1)
            v |= (unsigned)(unsigned char)s[i + 1] << 8;
        if (left > 2)
            v |= (unsigned)(unsigned char)s[i + 2];
        for (size_t k = 0; k < (left > 2 ? 4 : left + 1); k++) {
            char c = alphabet[v >> (18 - 6 * k) & 63];

            four[k] = (char)(c == '+' ? '-' : c == '/' ? '_' : c);
        }
        str_append_bytes(&out, four, 4);
    }
    return str_steal(&out);
}

static void wipe_free(char *s)
{
    if (s)
        explicit_bzero(s, strlen(s));
    free(s);
}

static json_t *auth_document(const json_t *entry, const char *registry)
{
    const char *auth = json_string_value(json_object_get(entry, "auth"));
    const char *identity = json_string_value(json_object_get(entry, "identitytoken"));
    json_t *doc = NULL;

    if (identity && *identity)
        return json_pack("{ss ss}", "identitytoken", identity, "serveraddress", registry);
    char *plain = auth && *auth ? base64_decode(auth) : NULL;
    char *colon = plain ? strchr(plain, ':') : NULL;
    if (colon) {
        *colon = '\0';
        doc = json_pack("{ss ss ss}", "username", plain, "password", colon + 1, "serveraddress",
                        registry);
        *colon = ':';
    }
    wipe_free(plain);
    return doc;
}

char *docker_registry_auth(const char *config, size_t n, const char *registry)
{
    json_t *j = n ? json_loadb(config, n, 0, NULL) : NULL;
    json_t *doc = NULL;
    const char *key;
    json_t *entry;
    char *value = NULL;

    json_object_foreach (json_object_get(j, "auths"), key, entry) {
        if (!doc && key_is_registry(key, registry))
            doc = auth_document(entry, registry);
    }
    if (doc) {
        char *text = json_dumps(doc, JSON_COMPACT);

        if (text)
            value = base64url_encode(text);
        wipe_free(text);
    }
    json_decref(doc);
    json_decref(j);
    return value;
}
