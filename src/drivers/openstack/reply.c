#include "drivers/openstack/reply.h"

#include "base/str.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#define GIB (1ull << 30)
#define SIZE_GIB_MAX (1 << 20) /* 1 PiB */
#define VOLUMES_MAX 100000u
#define DEADLINE_YEARS_MAX 9999

/* ---- fields ---- */

static bool is_printable(const char *s)
{
    for (; *s; s++) {
        if (*s < 0x21 || *s > 0x7e)
            return false;
    }
    return true;
}

static struct err *odd(const char *name)
{
    return err_new(ERR_CORRUPT, "OpenStack sent a %s that cannot be one", name);
}

/* A text without blanks; an absent or null one is "". */
static struct err *field(const json_t *of, const char *name, char *ret, size_t size)
{
    const json_t *v = json_object_get(of, name);
    const char *text = json_is_string(v) ? json_string_value(v) : "";

    if ((v && !json_is_string(v) && !json_is_null(v)) || strlen(text) >= size ||
        !is_printable(text))
        return odd(name);
    memcpy(ret, text, strlen(text) + 1);
    return NULL;
}

/* The same for what only people read, or what others write: an odd one is "". */
static void soft_field(const json_t *of, const char *name, char *ret, size_t size)
{
    struct err *e = field(of, name, ret, size);

    if (e)
        *ret = '\0';
    err_free(e);
}

bool os_id_is_sane(const char *id)
{
    return *id && strlen(id) < OS_ID_SIZE &&
           !id[strspn(id, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_")];
}

static struct err *id_field(const json_t *of, const char *name, char ret[OS_ID_SIZE])
{
    TRY(field(of, name, ret, OS_ID_SIZE));
    return os_id_is_sane(ret) ? NULL : odd(name);
}

static struct err *optional_id(const json_t *of, const char *name, char ret[OS_ID_SIZE])
{
    TRY(field(of, name, ret, OS_ID_SIZE));
    return !*ret || os_id_is_sane(ret) ? NULL : odd(name);
}

/* Metadata are written by people, too: what is no id is none. */
static struct uuid metadata_id(const json_t *volume, const char *key)
{
    const char *text = json_string_value(json_object_get(json_object_get(volume, "metadata"), key));
    struct uuid id;

    return text && uuid_parse(text, &id) ? id : UUID_NIL;
}

/* ---- volumes ---- */

static const struct {
    const char *name;
    enum os_status status;
} statuses[] = {
    {"creating", OS_CREATING},
    {"available", OS_AVAILABLE},
    {"reserved", OS_RESERVED},
    {"attaching", OS_ATTACHING},
    {"in-use", OS_IN_USE},
    {"detaching", OS_DETACHING},
    {"extending", OS_EXTENDING},
    {"deleting", OS_DELETING},
    {"deleted", OS_DELETING},
    {"error", OS_ERROR},
    {"error_deleting", OS_ERROR_DELETING},
    {"error_extending", OS_ERROR_EXTENDING},
};

static enum os_status status_of(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
        if (streq(statuses[i].name, name))
            return statuses[i].status;
    }
    return OS_STATUS_OTHER;
}

static struct err *read_attachments(const json_t *volume, struct os_volume *ret)
{
    const json_t *list = json_object_get(volume, "attachments");

    if (json_array_size(list) > OS_ATTACHMENTS_MAX)
        return err_new(ERR_CORRUPT, "volume %s has over %u attachments", ret->id,
                       OS_ATTACHMENTS_MAX);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *from = json_array_get(list, i);
        struct os_attachment *a = &ret->attachments[ret->n_attachments];

        if (!json_object_size(from)) /* old services send [{}] for none */
            continue;
        TRY(optional_id(from, "attachment_id", a->id));
        TRY(optional_id(from, "server_id", a->server));
        soft_field(from, "device", a->device, sizeof(a->device));
        ret->n_attachments++;
    }
    return NULL;
}

static struct err *read_volume(const json_t *from, struct os_volume *ret)
{
    const json_t *size = json_object_get(from, "size");

    *ret = (struct os_volume){0};
    TRY(id_field(from, "id", ret->id));
    TRY(field(from, "status", ret->status_name, sizeof(ret->status_name)));
    ret->status = status_of(ret->status_name);
    if (!json_is_integer(size) || json_integer_value(size) < 1 ||
        json_integer_value(size) > SIZE_GIB_MAX)
        return odd("size");
    ret->size = (uint64_t)json_integer_value(size) * GIB;
    soft_field(from, "created_at", ret->created, sizeof(ret->created));
    ret->cluster = metadata_id(from, OS_KEY_CLUSTER);
    ret->dataset = metadata_id(from, OS_KEY_DATASET);
    ret->node = metadata_id(from, OS_KEY_NODE);
    return read_attachments(from, ret);
}

struct err *os_volume_parse(const json_t *body, struct os_volume *ret_volume)
{
    struct os_volume v;

    TRY(read_volume(json_object_get(body, "volume"), &v));
    *ret_volume = v;
    return NULL;
}

static bool has_next(const json_t *body)
{
    const json_t *links = json_object_get(body, "volumes_links");

    for (size_t i = 0; i < json_array_size(links); i++) {
        const char *rel = json_string_value(json_object_get(json_array_get(links, i), "rel"));

        if (rel && streq(rel, "next"))
            return true;
    }
    return false;
}

static struct err *add_volumes(const json_t *list, struct os_volumes *v)
{
    for (size_t i = 0; i < json_array_size(list); i++) {
        if (v->n >= VOLUMES_MAX)
            return err_new(ERR_CORRUPT, "OpenStack lists over %u volumes", VOLUMES_MAX);
        v->all = mem_grow(v->all, v->n, &v->cap, sizeof(*v->all));
        TRY(read_volume(json_array_get(list, i), &v->all[v->n]));
        v->n++;
    }
    return NULL;
}

struct err *os_volumes_parse(const json_t *body, struct os_volumes *v)
{
    const json_t *list = json_object_get(body, "volumes");
    size_t had = v->n;

    if (!json_is_array(list))
        return err_new(ERR_CORRUPT, "OpenStack sent no list of volumes");
    struct err *e = add_volumes(list, v);

    if (e) {
        v->n = had;
        return e;
    }
    v->more = json_array_size(list) && has_next(body);
    return NULL;
}

void os_volumes_done(struct os_volumes *v)
{
    free(v->all);
    *v = (struct os_volumes){0};
}

/* ---- attachments ---- */

static struct err *read_link(const json_t *from, struct os_link *ret)
{
    char status[OS_NAME_SIZE];

    TRY(id_field(from, "id", ret->id));
    TRY(optional_id(from, "instance", ret->server));
    soft_field(from, "status", status, sizeof(status));
    ret->complete = !streq(status, "reserved") && !streq(status, "attaching");
    return NULL;
}

struct err *os_link_parse(const json_t *body, struct os_link *ret_link)
{
    struct os_link l;

    TRY(read_link(json_object_get(body, "attachment"), &l));
    *ret_link = l;
    return NULL;
}

struct err *os_links_parse(const json_t *body, struct os_link ret_links[OS_ATTACHMENTS_MAX],
                           size_t *ret_n)
{
    const json_t *list = json_object_get(body, "attachments");
    size_t n = json_array_size(list);

    if (!json_is_array(list))
        return err_new(ERR_CORRUPT, "OpenStack sent no list of attachments");
    n = n < OS_ATTACHMENTS_MAX ? n : OS_ATTACHMENTS_MAX;
    for (size_t i = 0; i < n; i++)
        TRY(read_link(json_array_get(list, i), &ret_links[i]));
    *ret_n = n;
    return NULL;
}

/* Options for mount: only such characters as they are made of; "-o" at the beginning is for mount(8) and goes. */
static struct err *read_options(const json_t *from, struct os_connection *c)
{
    const char *text = json_string_value(json_object_get(from, "options"));

    if (!text)
        return NULL;
    text += strspn(text, " ");
    if (str_has_prefix(text, "-o"))
        text += 2 + strspn(text + 2, " ");
    if (strlen(text) >= sizeof(c->options) || *text == '-' ||
        text[strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789=,.:_-")])
        return odd("list of mount options");
    memcpy(c->options, text, strlen(text) + 1);
    return NULL;
}

static bool is_file_name(const char *s)
{
    return *s && *s != '.' && *s != '-' && !strchr(s, '/');
}

static struct err *read_nfs(const json_t *from, struct os_connection *c)
{
    char format[OS_NAME_SIZE];

    TRY(field(from, "export", c->export, sizeof(c->export)));
    TRY(field(from, "name", c->file, sizeof(c->file)));
    TRY(field(from, "format", format, sizeof(format)));
    if (!strstr(c->export, ":/") || *c->export == '-' || strstr(c->export, "/../"))
        return odd("NFS export");
    if (!is_file_name(c->file))
        return odd("name of a file");
    if (*format && !streq(format, "raw"))
        return err_new(ERR_UNSUPPORTED,
                       "the volume is a file in the format %s; only raw ones can be attached to a "
                       "host that is no server of Nova's",
                       format);
    return read_options(from, c);
}

static struct err *read_local(const json_t *from, struct os_connection *c)
{
    TRY(field(from, "device_path", c->path, sizeof(c->path)));
    return *c->path == '/' && !strstr(c->path, "/../") ? NULL : odd("path of a device");
}

static struct err *add_portal(const char *address, const char *iqn, const json_t *lun,
                              struct os_connection *c)
{
    struct os_portal *p = &c->portals[c->n_portals];

    if (!address || !iqn || !*address || *address == '-' || strlen(address) >= sizeof(p->address) ||
        !is_printable(address) || strlen(iqn) >= sizeof(p->iqn) || !is_printable(iqn) ||
        (!str_has_prefix(iqn, "iqn.") && !str_has_prefix(iqn, "eui.") &&
         !str_has_prefix(iqn, "naa.")) ||
        strchr(iqn, '/') || strchr(address, '/') || !json_is_integer(lun) ||
        json_integer_value(lun) < 0 || json_integer_value(lun) > 65535)
        return odd("target of iSCSI");
    memcpy(p->address, address, strlen(address) + 1);
    memcpy(p->iqn, iqn, strlen(iqn) + 1);
    p->lun = (unsigned)json_integer_value(lun);
    c->n_portals++;
    return NULL;
}

static struct err *read_iscsi(const json_t *from, struct os_connection *c)
{
    const json_t *portals = json_object_get(from, "target_portals"),
                 *iqns = json_object_get(from, "target_iqns"),
                 *luns = json_object_get(from, "target_luns");
    size_t n = json_array_size(portals);
    char method[OS_NAME_SIZE];

    soft_field(from, "auth_username", c->chap_user, sizeof(c->chap_user));
    soft_field(from, "auth_password", c->chap_password, sizeof(c->chap_password));
    soft_field(from, "auth_method", method, sizeof(method));
    if (streq(method, "CHAP") && (!*c->chap_user || !*c->chap_password))
        return odd("name and password for CHAP");
    if (!n || n > OS_PORTALS_MAX || json_array_size(iqns) != n || json_array_size(luns) != n)
        return add_portal(json_string_value(json_object_get(from, "target_portal")),
                          json_string_value(json_object_get(from, "target_iqn")),
                          json_object_get(from, "target_lun"), c);
    for (size_t i = 0; i < n; i++)
        TRY(add_portal(json_string_value(json_array_get(portals, i)),
                       json_string_value(json_array_get(iqns, i)), json_array_get(luns, i), c));
    return NULL;
}

struct err *os_connection_parse(const json_t *body, struct os_link *ret_link,
                                struct os_connection *ret_connection)
{
    const json_t *info = json_object_get(json_object_get(body, "attachment"), "connection_info");
    /* Some versions put what the driver says into "data", some beside it. */
    const json_t *data = json_object_get(info, "data") ? json_object_get(info, "data") : info;
    struct os_connection c = {0};
    struct os_link link;
    char kind[OS_NAME_SIZE];

    TRY(read_link(json_object_get(body, "attachment"), &link));
    TRY(field(info, "driver_volume_type", kind, sizeof(kind)));
    if (json_is_true(json_object_get(data, "encrypted")))
        return err_new(ERR_UNSUPPORTED, "the volume is of an encrypted type, which only servers of Nova's can read: use another type");
    if (streq(kind, "nfs")) {
        TRY(read_nfs(data, &c));
        c.kind = OS_CONNECT_NFS;
    } else if (streq(kind, "iscsi")) {
        TRY(read_iscsi(data, &c));
        c.kind = OS_CONNECT_ISCSI;
    } else if (streq(kind, "local")) {
        TRY(read_local(data, &c));
        c.kind = OS_CONNECT_LOCAL;
    } else {
        return err_new(ERR_UNSUPPORTED,
                       "the volume is reached by '%s'; a host that is no server of Nova's can "
                       "attach iscsi, nfs and local ones",
                       kind);
    }
    *ret_link = link;
    *ret_connection = c;
    return NULL;
}

/* ---- servers ---- */

static bool has_address(const json_t *server, const char *address)
{
    const char *network;
    json_t *list;

    json_object_foreach (json_object_get(server, "addresses"), network, list) {
        for (size_t i = 0; i < json_array_size(list); i++) {
            const char *a = json_string_value(json_object_get(json_array_get(list, i), "addr"));

            if (a && streq(a, address))
                return true;
        }
    }
    return false;
}

struct err *os_servers_match(const json_t *body, const char *address, char ret_id[OS_ID_SIZE],
                             size_t *ret_n)
{
    const json_t *list = json_object_get(body, "servers");
    char id[OS_ID_SIZE] = "";
    size_t n = 0;

    if (!json_is_array(list))
        return err_new(ERR_CORRUPT, "OpenStack sent no list of servers");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *server = json_array_get(list, i);

        if (!has_address(server, address))
            continue;
        if (!n++)
            TRY(id_field(server, "id", id));
    }
    memcpy(ret_id, id, sizeof(id));
    *ret_n = n;
    return NULL;
}

struct err *os_server_status(const json_t *body, char ret_status[OS_NAME_SIZE])
{
    char status[OS_NAME_SIZE];

    TRY(field(json_object_get(body, "server"), "status", status, sizeof(status)));
    if (!*status)
        return odd("status of a server");
    memcpy(ret_status, status, sizeof(status));
    return NULL;
}

struct err *os_server_id(const json_t *meta_data, char ret_id[OS_ID_SIZE])
{
    char id[OS_ID_SIZE];

    TRY(id_field(meta_data, "uuid", id));
    memcpy(ret_id, id, sizeof(id));
    return NULL;
}

/* ---- identity ---- */

bool os_time_parse(const char *text, uint64_t *ret_us)
{
    struct tm t = {0};
    char sign = 'Z';
    int end = 0, hours = 0, minutes = 0;

    if (strlen(text) > 40 ||
        sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d%n", &t.tm_year, &t.tm_mon, &t.tm_mday, &t.tm_hour,
               &t.tm_min, &t.tm_sec, &end) != 6 ||
        !end)
        return false;
    text += end;
    if (*text == '.')
        text += 1 + strspn(text + 1, "0123456789");
    if (*text && (sign = *text, sign != 'Z')) {
        if ((sign != '+' && sign != '-') || sscanf(text + 1, "%2d:%2d", &hours, &minutes) != 2 ||
            hours < 0 || minutes < 0)
            return false;
    }
    if (t.tm_year < 1970 || t.tm_year > DEADLINE_YEARS_MAX || t.tm_mon < 1 || t.tm_mon > 12 ||
        t.tm_mday < 1 || t.tm_mday > 31 || t.tm_hour < 0 || t.tm_hour > 24 || t.tm_min < 0 ||
        t.tm_min > 59 || t.tm_sec < 0 || t.tm_sec > 60)
        return false;
    t.tm_year -= 1900;
    t.tm_mon -= 1;
    int64_t s = timegm(&t), offset = (int64_t)hours * 3600 + (int64_t)minutes * 60;

    s += sign == '+' ? -offset : offset;
    if (s < 0)
        return false;
    *ret_us = (uint64_t)s * 1000000u;
    return true;
}

void os_catalog_done(struct os_catalog *c)
{
    for (size_t i = 0; i < c->n; i++) {
        free(c->all[i].type);
        free(c->all[i].interface);
        free(c->all[i].region);
        free(c->all[i].url);
    }
    free(c->all);
    *c = (struct os_catalog){0};
}

/* What is odd is left out: a catalogue has services that are none of our business. */
static void add_endpoint(struct os_catalog *c, const char *type, const char *interface,
                         const char *region, const char *url)
{
    size_t n = url ? strlen(url) : 0;

    if (!type || !n || n > OS_URL_MAX || !is_printable(url) || !str_is_utf8(url, n) ||
        (!str_has_prefix(url, "http://") && !str_has_prefix(url, "https://")) ||
        c->n >= OS_ENDPOINTS_MAX)
        return;
    while (n && url[n - 1] == '/')
        n--;
    c->all = mem_grow(c->all, c->n, &c->cap, sizeof(*c->all));
    c->all[c->n++] = (struct os_endpoint){.type = xstrdup(type),
                                          .interface = xstrdup(interface),
                                          .region = xstrdup(region ? region : ""),
                                          .url = xstrndup(url, n)};
}

static const char *text_of(const json_t *of, const char *name)
{
    return json_string_value(json_object_get(of, name));
}

static void read_service_v3(const json_t *service, struct os_catalog *c)
{
    const json_t *list = json_object_get(service, "endpoints");

    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *e = json_array_get(list, i);
        const char *region = text_of(e, "region_id");

        add_endpoint(c, text_of(service, "type"),
                     text_of(e, "interface") ? text_of(e, "interface") : "",
                     region ? region : text_of(e, "region"), text_of(e, "url"));
    }
}

static struct err *read_expiry(const char *text, struct os_catalog *c)
{
    if (!text || !os_time_parse(text, &c->expires_us))
        return odd("time at which a token ends");
    return NULL;
}

struct err *os_catalog_parse_v3(const json_t *body, struct os_catalog *ret_catalog)
{
    const json_t *token = json_object_get(body, "token");
    const json_t *services = json_object_get(token, "catalog");
    struct os_catalog c = {0};

    TRY(read_expiry(text_of(token, "expires_at"), &c));
    for (size_t i = 0; i < json_array_size(services); i++)
        read_service_v3(json_array_get(services, i), &c);
    *ret_catalog = c;
    return NULL;
}

static void read_service_v2(const json_t *service, struct os_catalog *c)
{
    static const struct {
        const char *key, *interface;
    } kinds[] = {{"publicURL", "public"}, {"internalURL", "internal"}, {"adminURL", "admin"}};
    const json_t *list = json_object_get(service, "endpoints");

    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *e = json_array_get(list, i);

        for (size_t k = 0; k < ARRAY_SIZE(kinds); k++)
            add_endpoint(c, text_of(service, "type"), kinds[k].interface, text_of(e, "region"),
                         text_of(e, kinds[k].key));
    }
}

struct err *os_catalog_parse_v2(const json_t *body, struct os_catalog *ret_catalog,
                                char **ret_token)
{
    const json_t *access = json_object_get(body, "access");
    const json_t *token = json_object_get(access, "token"),
                 *services = json_object_get(access, "serviceCatalog");
    const char *id = text_of(token, "id");
    struct os_catalog c = {0};

    if (!id || !*id || strlen(id) > 16384 || !is_printable(id))
        return odd("token");
    TRY(read_expiry(text_of(token, "expires"), &c));
    for (size_t i = 0; i < json_array_size(services); i++)
        read_service_v2(json_array_get(services, i), &c);
    *ret_catalog = c;
    *ret_token = xstrdup(id);
    return NULL;
}

const char *os_catalog_find(const struct os_catalog *c, const char *const *types,
                            const char *region, const char *interface)
{
    for (; *types; types++) {
        for (size_t i = 0; i < c->n; i++) {
            const struct os_endpoint *e = &c->all[i];

            if (streq(e->type, *types) && str_has_prefix(e->interface, interface) &&
                (!region || streq(e->region, region)))
                return e->url;
        }
    }
    return NULL;
}

char *os_catalog_regions(const struct os_catalog *c)
{
    struct str s = {0};

    for (size_t i = 0; i < c->n; i++) {
        size_t k = 0;

        while (k < i && !streq(c->all[k].region, c->all[i].region))
            k++;
        if (k == i && *c->all[i].region && s.len < 1000)
            str_appendf(&s, "%s%.100s", s.len ? ", " : "", c->all[i].region);
    }
    return str_steal(&s);
}

/* ---- versions ---- */

struct err *os_minor_parse(const json_t *body, unsigned *ret_minor)
{
    const json_t *list = json_object_get(body, "versions");
    unsigned best = 0;

    if (!json_is_array(list))
        return err_new(ERR_CORRUPT, "OpenStack sent no list of versions");
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *v = text_of(json_array_get(list, i), "version");
        size_t n = v && str_has_prefix(v, "3.") ? strspn(v + 2, "0123456789") : 0;
        unsigned long minor = n && n < 6 && !v[2 + n] ? strtoul(v + 2, NULL, 10) : 0;

        best = minor > best ? (unsigned)minor : best;
    }
    *ret_minor = best;
    return NULL;
}
