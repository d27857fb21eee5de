#include "drivers/xtremio/reply.h"

#include "base/str.h"
#include "drivers/json_http.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>

#define KIB 1024u
#define SIZE_MAX_KIB (1ull << 43) /* 8 EiB */
#define INDEX_MAX 0x7fffffffu

/* ---- values ---- */

static const char hex_digits[] = "0123456789abcdef";

static struct err *odd(const char *what)
{
    return err_new(ERR_CORRUPT, "the array's answer is not understood: %s", what);
}

/* A text that fits, of printable characters, is copied; false when it is not there or is none. */
static bool text_of(const json_t *v, char *ret, size_t size)
{
    const char *s = json_string_value(v);

    if (!s || strlen(s) >= size)
        return false;
    for (const char *c = s; *c; c++) {
        if ((unsigned char)*c < ' ' || *c == 127)
            return false;
    }
    memcpy(ret, s, strlen(s) + 1);
    return true;
}

static void lower(char *s)
{
    for (; *s; s++)
        *s = (char)tolower((unsigned char)*s);
}

/* A number, or a text of digits. */
static bool number_of(const json_t *v, uint64_t max, uint64_t *ret)
{
    const char *s = json_string_value(v);
    uint64_t n = 0;

    if (json_is_integer(v)) {
        *ret = (uint64_t)json_integer_value(v);
        return json_integer_value(v) >= 0 && *ret <= max;
    }
    if (!s || !*s || s[strspn(s, "0123456789")] || strlen(s) > 19)
        return false;
    for (; *s; s++)
        n = n * 10 + (uint64_t)(*s - '0');
    *ret = n;
    return n <= max;
}

static bool unsigned_of(const json_t *v, unsigned max, unsigned *ret)
{
    uint64_t n;

    if (!number_of(v, max, &n))
        return false;
    *ret = (unsigned)n;
    return true;
}

/* An id is [guid, name, index]. */
static bool id_of(const json_t *v, char name[XTREMIO_NAME_SIZE], unsigned *ret_index)
{
    return json_array_size(v) == 3 && text_of(json_array_get(v, 1), name, XTREMIO_NAME_SIZE) &&
           *name && unsigned_of(json_array_get(v, 2), INDEX_MAX, ret_index);
}

/* Either both forms: {"content": object}, or {"KEY": [objects]}. */
static struct err *list_of(const json_t *root, const char *key, const json_t **ret_list)
{
    const json_t *l = json_object_get(root, key);

    if (!json_is_array(l))
        return err_new(ERR_CORRUPT, "the array's answer is not understood: it has no list of %s",
                       key);
    *ret_list = l;
    return NULL;
}

/* ---- volumes ---- */

void xtremio_volume_done(struct xtremio_volume *v)
{
    free(v->maps);
    *v = (struct xtremio_volume){0};
}

void xtremio_volumes_done(struct xtremio_volumes *v)
{
    for (size_t i = 0; i < v->n; i++)
        xtremio_volume_done(&v->all[i]);
    free(v->all);
    *v = (struct xtremio_volumes){0};
}

/* [[guid, group, index], [guid, target group, index], lun] */
static bool map_of(const json_t *v, struct xtremio_map *m)
{
    char target[XTREMIO_NAME_SIZE];

    return json_array_size(v) == 3 && id_of(json_array_get(v, 0), m->group, &m->group_index) &&
           id_of(json_array_get(v, 1), target, &m->target_index) &&
           unsigned_of(json_array_get(v, 2), XTREMIO_LUN_MAX, &m->lun);
}

static bool maps_of(const json_t *list, struct xtremio_volume *v)
{
    size_t n = json_array_size(list);

    if (!json_is_array(list) || n > XTREMIO_MAPS_MAX)
        return false;
    if (!n)
        return true;
    v->maps = xcalloc(n, sizeof(*v->maps));
    for (; v->n_maps < n; v->n_maps++) {
        if (!map_of(json_array_get(list, v->n_maps), &v->maps[v->n_maps]))
            return false;
    }
    return true;
}

static bool naa_of(const json_t *v, char ret[XTREMIO_NAA_SIZE])
{
    *ret = '\0';
    if (!v || json_is_null(v))
        return true;
    if (!text_of(v, ret, XTREMIO_NAA_SIZE))
        return false;
    lower(ret);
    size_t n = strlen(ret);

    return (n == 0 || n == 16 || n == 32) && !ret[strspn(ret, hex_digits)];
}

static void folder_of(const json_t *tags, struct uuid *ret)
{
    for (size_t i = 0; i < json_array_size(tags); i++) {
        char name[XTREMIO_NAME_SIZE];
        unsigned index;

        if (id_of(json_array_get(tags, i), name, &index) && str_has_prefix(name, XTREMIO_FOLDER) &&
            uuid_parse(name + strlen(XTREMIO_FOLDER), ret))
            return;
    }
}

static bool volume_of(const json_t *o, struct xtremio_volume *v)
{
    uint64_t kib;

    if (!text_of(json_object_get(o, "name"), v->name, sizeof(v->name)) || !*v->name ||
        !unsigned_of(json_object_get(o, "index"), INDEX_MAX, &v->index) ||
        !number_of(json_object_get(o, "vol-size"), SIZE_MAX_KIB - 1, &kib) || !kib ||
        !naa_of(json_object_get(o, "naa-name"), v->naa) ||
        !maps_of(json_object_get(o, "lun-mapping-list"), v))
        return false;
    v->size = kib * KIB;
    folder_of(json_object_get(o, "tag-list"), &v->folder);
    return true;
}

struct err *xtremio_volumes_parse(const json_t *root, struct xtremio_volumes *ret_volumes)
{
    const json_t *list;

    TRY(list_of(root, "volumes", &list));
    struct xtremio_volumes v = {.all = xcalloc(json_array_size(list) + 1, sizeof(*v.all))};

    for (size_t i = 0; i < json_array_size(list); i++) {
        if (volume_of(json_array_get(list, i), &v.all[v.n]))
            v.n++;
        else
            xtremio_volume_done(&v.all[v.n]);
    }
    *ret_volumes = v;
    return NULL;
}

struct err *xtremio_volume_parse(const json_t *root, struct xtremio_volume *ret_volume)
{
    struct xtremio_volume v = {0};

    if (!volume_of(json_object_get(root, "content"), &v)) {
        xtremio_volume_done(&v);
        return odd("it is no volume");
    }
    *ret_volume = v;
    return NULL;
}

/* ---- ports ---- */

static bool is_iqn(const char *s)
{
    return (str_has_prefix(s, "iqn.") || str_has_prefix(s, "eui.") || str_has_prefix(s, "naa.")) &&
           s[4] && !s[strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-.:")];
}

/* 16 digits, with ":" between each two or nowhere. */
static bool wwpn_of(const char *s, char ret[XTREMIO_PORT_SIZE])
{
    bool colons = strlen(s) == 23;
    size_t out = 0;

    if (!colons && strlen(s) != 16)
        return false;
    for (size_t i = 0; i < 8; i++) {
        const char *two = s + i * (colons ? 3 : 2);

        if (!strchr(hex_digits, two[0]) || !strchr(hex_digits, two[1]) ||
            (colons && i < 7 && two[2] != ':'))
            return false;
        out += (size_t)snprintf(ret + out, XTREMIO_PORT_SIZE - out, "%s%.2s", i ? ":" : "", two);
    }
    return true;
}

bool xtremio_port_normalize(const char *text, char ret[XTREMIO_PORT_SIZE])
{
    char low[XTREMIO_PORT_SIZE];

    if (strlen(text) >= sizeof(low))
        return false;
    memcpy(low, text, strlen(text) + 1);
    lower(low);
    if (wwpn_of(str_has_prefix(low, "0x") ? low + 2 : low, ret))
        return true;
    if (!is_iqn(low))
        return false;
    memcpy(ret, low, strlen(low) + 1);
    return true;
}

bool xtremio_initiatorname_parse(const char *text, char ret[XTREMIO_PORT_SIZE])
{
    static const char key[] = "InitiatorName=";

    while (*text) {
        size_t n = strcspn(text, "\n");

        if (n > strlen(key) && str_has_prefix(text, key)) {
            CLEANUP_FREE char *name = xstrndup(text + strlen(key), n - strlen(key));

            name[strcspn(name, " \t\r")] = '\0';
            return xtremio_port_normalize(name, ret) && is_iqn(ret);
        }
        text += n + (text[n] == '\n');
    }
    return false;
}

/* ---- initiators, targets ---- */

void xtremio_initiators_done(struct xtremio_initiators *i)
{
    free(i->all);
    *i = (struct xtremio_initiators){0};
}

/* One whose address we could not have is none of ours. */
static bool initiator_of(const json_t *o, struct xtremio_initiator *i)
{
    char port[XTREMIO_PORT_SIZE];
    unsigned index;

    return text_of(json_object_get(o, "port-address"), port, sizeof(port)) &&
           xtremio_port_normalize(port, i->port) &&
           text_of(json_object_get(o, "name"), i->name, sizeof(i->name)) &&
           id_of(json_object_get(o, "ig-id"), i->group, &index);
}

struct err *xtremio_initiators_parse(const json_t *root, struct xtremio_initiators *ret_initiators)
{
    const json_t *list;

    TRY(list_of(root, "initiators", &list));
    struct xtremio_initiators found = {.all =
                                           xcalloc(json_array_size(list) + 1, sizeof(*found.all))};

    for (size_t i = 0; i < json_array_size(list); i++)
        found.n += initiator_of(json_array_get(list, i), &found.all[found.n]);
    *ret_initiators = found;
    return NULL;
}

void xtremio_targets_done(struct xtremio_targets *t)
{
    free(t->all);
    *t = (struct xtremio_targets){0};
}

static bool has_text(const json_t *o, const char *key, const char *value)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s && !strcasecmp(s, value);
}

static bool target_of(const json_t *o, struct xtremio_target *t)
{
    char port[XTREMIO_PORT_SIZE];

    return has_text(o, "port-type", "fc") && has_text(o, "port-state", "up") &&
           text_of(json_object_get(o, "port-address"), port, sizeof(port)) &&
           xtremio_port_normalize(port, t->port) && !is_iqn(t->port);
}

/* ip-addr is "10.0.0.1/24". */
static bool portal_of(const json_t *o, struct xtremio_target *t)
{
    char port[XTREMIO_PORT_SIZE], address[XTREMIO_PORTAL_SIZE];
    unsigned number;

    if (!text_of(json_object_get(o, "port-address"), port, sizeof(port)) ||
        !xtremio_port_normalize(port, t->port) || !is_iqn(t->port) ||
        !text_of(json_object_get(o, "ip-addr"), address, sizeof(address) - 8) ||
        !unsigned_of(json_object_get(o, "ip-port"), 65535, &number) || !number)
        return false;
    address[strcspn(address, "/")] = '\0';
    if (!*address || address[strspn(address, "0123456789abcdefABCDEF.:")])
        return false;
    (void)snprintf(t->portal, sizeof(t->portal), strchr(address, ':') ? "[%s]:%u" : "%s:%u",
                   address, number);
    return true;
}

static struct err *targets_parse(const json_t *root, const char *key,
                                 bool (*one)(const json_t *, struct xtremio_target *),
                                 struct xtremio_targets *ret_targets)
{
    const json_t *list;

    TRY(list_of(root, key, &list));
    struct xtremio_targets found = {.all = xcalloc(json_array_size(list) + 1, sizeof(*found.all))};

    for (size_t i = 0; i < json_array_size(list); i++) {
        found.all[found.n] = (struct xtremio_target){0};
        found.n += one(json_array_get(list, i), &found.all[found.n]);
    }
    *ret_targets = found;
    return NULL;
}

struct err *xtremio_targets_parse(const json_t *root, struct xtremio_targets *ret_targets)
{
    return targets_parse(root, "targets", target_of, ret_targets);
}

struct err *xtremio_portals_parse(const json_t *root, struct xtremio_targets *ret_targets)
{
    return targets_parse(root, "iscsi-portals", portal_of, ret_targets);
}

/* ---- lun-maps, clusters ---- */

struct err *xtremio_luns_parse(const json_t *root, bool *used)
{
    const json_t *list;

    TRY(list_of(root, "lun-maps", &list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        unsigned lun;

        if (!unsigned_of(json_object_get(json_array_get(list, i), "lun"), XTREMIO_LUN_MAX, &lun))
            return odd("a lun-map without a LUN");
        used[lun] = true;
    }
    return NULL;
}

struct err *xtremio_clusters_parse(const json_t *root, char **ret_names)
{
    CLEANUP_STR struct str names = {0};
    char name[XTREMIO_NAME_SIZE];
    const json_t *list;

    TRY(list_of(root, "clusters", &list));
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (!text_of(json_object_get(json_array_get(list, i), "name"), name, sizeof(name)) ||
            !*name)
            return odd("a cluster without a name");
        str_appendf(&names, "%s\n", name);
    }
    *ret_names = str_steal(&names);
    return NULL;
}

/* ---- errors ---- */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);

    return n >= m && streq(s + n - m, end);
}

static enum xtremio_failure_kind kind_of(int status, const char *message)
{
    if (status == 401 || status == 403)
        return XTREMIO_DENIED;
    if (status >= 500 || status == 429)
        return XTREMIO_TROUBLE;
    if (ends_with(message, "obj_not_found"))
        return XTREMIO_NOT_FOUND;
    if (ends_with(message, "not_unique"))
        return XTREMIO_NOT_UNIQUE;
    if (strstr(message, "already_mapped"))
        return XTREMIO_ALREADY_MAPPED;
    if (ends_with(message, "system_is_busy"))
        return XTREMIO_ARRAY_BUSY;
    if (str_has_prefix(message, "too_many_"))
        return XTREMIO_LIMIT;
    return XTREMIO_FAILED;
}

struct xtremio_failure xtremio_failure_parse(int status, const json_t *root)
{
    struct xtremio_failure f = {0};

    const char *m = json_http_message(root);

    (void)snprintf(f.message, sizeof(f.message), "%s", m && *m ? m : "no message");
    for (char *c = f.message; *c; c++) {
        if ((unsigned char)*c < ' ' || (unsigned char)*c >= 127)
            *c = '?';
    }
    f.kind = kind_of(status, f.message);
    return f;
}

struct err *xtremio_failure_err(const struct xtremio_failure *f, const char *what)
{
    static const enum err_code codes[XTREMIO_FAILURE_KIND_MAX] = {
        [XTREMIO_FAILED] = ERR_INVALID,         [XTREMIO_TROUBLE] = ERR_UNAVAILABLE,
        [XTREMIO_ARRAY_BUSY] = ERR_UNAVAILABLE, [XTREMIO_NOT_FOUND] = ERR_NOT_FOUND,
        [XTREMIO_NOT_UNIQUE] = ERR_EXISTS,      [XTREMIO_ALREADY_MAPPED] = ERR_BUSY,
        [XTREMIO_LIMIT] = ERR_NO_SPACE,         [XTREMIO_DENIED] = ERR_DENIED,
    };
    static const char *const advice[XTREMIO_FAILURE_KIND_MAX] = {
        [XTREMIO_LIMIT] = " (a limit of the array: remove what is not needed)",
        [XTREMIO_DENIED] =
            " (check xms_user and xms_password, and that the user's role may change volumes)",
    };

    return err_new(codes[f->kind], "%s: the array says %s%s", what, f->message,
                   advice[f->kind] ? advice[f->kind] : "");
}
