#include "drivers/powerflex/reply.h"

#include "base/str.h"

#include <ctype.h>
#include <stdio.h>

void pfx_volumes_done(struct pfx_volumes *v)
{
    free(v->all);
    *v = (struct pfx_volumes){0};
}

/* ---- JSON ---- */

static struct err *wrong(const char *what)
{
    return err_new(ERR_CORRUPT,
                   "the PowerFlex gateway answered something that is not %s: is the address right?",
                   what);
}

static const char *text_of(const json_t *o, const char *key)
{
    const char *s = json_string_value(json_object_get(o, key));

    return s ? s : "";
}

/* A whole number, which may be written as a text, too. */
static bool number_of(const json_t *o, const char *key, uint64_t *ret)
{
    const json_t *v = json_object_get(o, key);
    const char *s = json_string_value(v);
    uint64_t sum = 0;

    if (json_is_integer(v) && json_integer_value(v) >= 0) {
        *ret = (uint64_t)json_integer_value(v);
        return true;
    }
    if (!s || !*s || strlen(s) > 18)
        return false;
    for (; *s; s++) {
        if (!isdigit((unsigned char)*s))
            return false;
        sum = sum * 10 + (uint64_t)(*s - '0');
    }
    *ret = sum;
    return true;
}

bool pfx_id_is_sane(const char *id)
{
    size_t n = strlen(id);

    return n && n < PFX_ID_SIZE && strspn(id, "0123456789abcdefABCDEF") == n;
}

static bool take_id(const char *from, char ret[PFX_ID_SIZE])
{
    if (!pfx_id_is_sane(from))
        return false;
    memcpy(ret, from, strlen(from) + 1);
    return true;
}

/* ---- volumes ---- */

static bool add_mapping(const json_t *mapping, const char *sdc, struct pfx_volume *v)
{
    const char *id = text_of(mapping, "sdcId");

    if (!pfx_id_is_sane(id))
        return false;
    if (streq(id, sdc)) {
        v->here = true;
        return true;
    }
    v->elsewhere = true;
    return v->n_others == PFX_OTHERS_MAX || take_id(id, v->others[v->n_others++]);
}

static bool read_volume(const json_t *o, const char *sdc, struct pfx_volume *ret)
{
    const json_t *mappings = json_object_get(o, "mappedSdcInfo"), *mapping;
    const char *name = text_of(o, "name");
    struct pfx_volume v = {0};
    uint64_t kb;
    size_t i;

    if (!take_id(text_of(o, "id"), v.id) || !number_of(o, "sizeInKb", &kb) || kb > UINT64_MAX >> 11)
        return false;
    v.size = kb << 10;
    if (strlen(name) < sizeof(v.name))
        memcpy(v.name, name, strlen(name) + 1);
    if (mappings && !json_is_null(mappings) && !json_is_array(mappings))
        return false;
    json_array_foreach (mappings, i, mapping) {
        if (!add_mapping(mapping, sdc, &v))
            return false;
    }
    if (json_is_true(json_object_get(o, "mappingToAllSdcsEnabled")))
        v.elsewhere = true;
    *ret = v;
    return true;
}

struct err *pfx_volume_parse(const json_t *o, const char *sdc, struct pfx_volume *ret)
{
    return read_volume(o, sdc, ret) ? NULL : wrong("a volume");
}

struct err *pfx_volumes_parse(const json_t *o, const char *sdc, struct pfx_volumes *ret)
{
    CLEANUP_PFX_VOLUMES struct pfx_volumes l = {0};
    struct pfx_volume v;
    const json_t *one;
    size_t i;

    if (!json_is_array(o))
        return wrong("a list of volumes");
    json_array_foreach (o, i, one) {
        if (strlen(text_of(one, "name")) != PFX_NAME_SIZE - 1)
            continue; /* what others have does not disturb */
        if (!read_volume(one, sdc, &v))
            return wrong("a list of volumes");
        l.all = mem_grow(l.all, l.n, &l.cap, sizeof(*l.all));
        l.all[l.n++] = v;
    }
    *ret = l;
    l = (struct pfx_volumes){0};
    return NULL;
}

struct err *pfx_created_parse(const json_t *o, char ret_id[PFX_ID_SIZE])
{
    return take_id(text_of(o, "id"), ret_id) ? NULL : wrong("the id of a new volume");
}

/* ---- bare texts ---- */

struct err *pfx_id_parse(const json_t *o, char ret_id[PFX_ID_SIZE])
{
    const char *s = json_string_value(o);

    return s && take_id(s, ret_id) ? NULL : wrong("an id");
}

struct err *pfx_token_parse(const json_t *o, char **ret_token)
{
    const char *s = json_string_value(o);

    if (!s || !*s || strlen(s) > PFX_TOKEN_MAX)
        return wrong("a token");
    for (const char *c = s; *c; c++) {
        if (*c <= ' ' || *c > '~')
            return wrong("a token");
    }
    *ret_token = xstrdup(s);
    return NULL;
}

struct err *pfx_version_parse(const json_t *o, unsigned *ret_major, unsigned *ret_minor)
{
    const char *s = json_string_value(o);
    unsigned part[2];

    for (size_t i = 0; i < ARRAY_SIZE(part); i++) {
        size_t digits = s ? strspn(s, "0123456789") : 0;

        if (!digits || digits > 4)
            return wrong("a version");
        part[i] = (unsigned)strtoul(s, NULL, 10);
        s += digits;
        if (!i && *s++ != '.')
            return wrong("a version");
    }
    if (*s && *s != '.')
        return wrong("a version");
    *ret_major = part[0];
    *ret_minor = part[1];
    return NULL;
}

/* ---- what there is ---- */

struct err *pfx_system_parse(const json_t *o, char ret_id[PFX_ID_SIZE])
{
    if (json_array_size(o) != 1 || !take_id(text_of(json_array_get(o, 0), "id"), ret_id))
        return wrong("a list of one system");
    return NULL;
}

struct err *pfx_pool_parse(const json_t *o, bool *ret_zeros)
{
    if (!pfx_id_is_sane(text_of(o, "id")))
        return wrong("a storage pool");
    *ret_zeros = !json_is_false(json_object_get(o, "zeroPaddingEnabled"));
    return NULL;
}

bool pfx_guid_parse(const char *text, char ret[PFX_GUID_SIZE])
{
    static const char form[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

    if (strlen(text) != sizeof(form) - 1)
        return false;
    for (size_t i = 0; i < sizeof(form) - 1; i++) {
        if (form[i] == 'x' ? !isxdigit((unsigned char)text[i]) : text[i] != '-')
            return false;
    }
    for (size_t i = 0; i < sizeof(form); i++)
        ret[i] = (char)tolower((unsigned char)text[i]);
    return true;
}

static bool read_sdc(const json_t *o, struct pfx_sdc *ret)
{
    const char *ip = text_of(o, "sdcIp");
    struct pfx_sdc s = {0};

    if (!take_id(text_of(o, "id"), s.id) || !pfx_guid_parse(text_of(o, "sdcGuid"), s.guid))
        return false;
    if (strlen(ip) < sizeof(s.ip) && strspn(ip, "0123456789abcdefABCDEF.:") == strlen(ip))
        memcpy(s.ip, ip, strlen(ip) + 1);
    s.disconnected = streq(text_of(o, "mdmConnectionState"), "Disconnected");
    *ret = s;
    return true;
}

struct err *pfx_sdc_parse(const json_t *o, struct pfx_sdc *ret)
{
    return read_sdc(o, ret) ? NULL : wrong("an SDC");
}

void pfx_sdcs_done(struct pfx_sdcs *s)
{
    free(s->all);
    *s = (struct pfx_sdcs){0};
}

struct err *pfx_sdcs_parse(const json_t *o, struct pfx_sdcs *ret)
{
    CLEANUP_PFX_SDCS struct pfx_sdcs l = {0};
    struct pfx_sdc s;
    const json_t *one;
    size_t i;

    if (!json_is_array(o))
        return wrong("a list of SDCs");
    json_array_foreach (o, i, one) {
        if (!read_sdc(one, &s))
            continue;
        l.all = mem_grow(l.all, l.n, &l.cap, sizeof(*l.all));
        l.all[l.n++] = s;
    }
    *ret = l;
    l = (struct pfx_sdcs){0};
    return NULL;
}

struct err *pfx_sdcs_find(const struct pfx_sdcs *s, const char *guid, struct pfx_sdc *ret)
{
    for (size_t i = 0; i < s->n; i++) {
        if (streq(s->all[i].guid, guid)) {
            *ret = s->all[i];
            return NULL;
        }
    }
    return err_new(ERR_NOT_FOUND,
                   "the PowerFlex system knows no SDC with the GUID %s: is the SDC of this host "
                   "connected to this system (drv_cfg "
                   "--query_mdms), and approved in it?",
                   guid);
}

const char *pfx_sdcs_guid(const struct pfx_sdcs *s, const char *id)
{
    for (size_t i = 0; i < s->n; i++) {
        if (streq(s->all[i].id, id))
            return s->all[i].guid;
    }
    return NULL;
}

/* ---- errors ---- */

/* Numbers: Cinder and os-brick (79, 78, 81, 84), csi-powerflex (4037, 4039, of 4.x). */
static enum pfx_failure_kind kind_of_code(int code)
{
    switch (code) {
    case 78:
    case 79:
        return PFX_NOT_FOUND;
    case 81:
    case 4037:
        return PFX_MAPPED;
    case 84:
    case 4039:
        return PFX_NOT_MAPPED;
    default:
        return PFX_REFUSED;
    }
}

static enum pfx_failure_kind kind_of_status(int status)
{
    switch (status) {
    case 401:
        return PFX_LOGIN;
    case 403:
        return PFX_FORBIDDEN;
    case 408:
    case 429:
    case 502:
    case 503:
    case 504:
        return PFX_TROUBLE;
    default:
        return PFX_REFUSED;
    }
}

/* Printable ASCII only: it goes to logs and people. */
static void take_message(struct pfx_failure *f, const char *text)
{
    size_t n = 0;

    for (; *text && n + 1 < sizeof(f->message); text++)
        f->message[n++] = *text < ' ' || *text > '~' ? '?' : *text;
    f->message[n] = '\0';
}

struct pfx_failure pfx_failure_parse(int status, const json_t *o)
{
    const json_t *code = json_object_get(o, "errorCode"),
                 *detail = json_array_get(json_object_get(o, "details"), 0);
    struct pfx_failure f = {.kind = kind_of_status(status)};
    const char *message = text_of(o, "message");
    uint64_t number = 0;

    if (json_is_integer(code) && json_integer_value(code) > 0 &&
        json_integer_value(code) < INT32_MAX)
        f.code = (int)json_integer_value(code);
    if (!f.code && number_of(detail, "rc", &number) && number < INT32_MAX)
        f.code = (int)number;
    /* A gateway that has no connection to its system answers without JSON, or as a server error of its own. */
    if (f.kind == PFX_REFUSED)
        f.kind = json_is_object(o) || status < 500 ? kind_of_code(f.code) : PFX_TROUBLE;
    if (*text_of(detail, "errorMessage"))
        message = text_of(detail, "errorMessage");
    take_message(&f, message);
    if (!*f.message)
        (void)snprintf(f.message, sizeof(f.message), "HTTP status %d", status);
    return f;
}

struct err *pfx_failure_err(const struct pfx_failure *f, const char *what)
{
    static const struct {
        enum err_code code;
        const char *advice;
    } table[PFX_FAILURE_KIND_MAX] = {
        [PFX_REFUSED] = {ERR_IO, ""},
        [PFX_TROUBLE] = {ERR_UNAVAILABLE, " (it is tried again)"},
        [PFX_LOGIN] = {ERR_DENIED, ": are username and password right?"},
        [PFX_FORBIDDEN] = {ERR_DENIED,
                           ": the user needs a role that may change volumes and their mappings"},
        [PFX_NOT_FOUND] = {ERR_NOT_FOUND, ""},
        [PFX_MAPPED] = {ERR_BUSY, ""},
        [PFX_NOT_MAPPED] = {ERR_CONFLICT, ""},
    };

    if (f->code)
        return err_new(table[f->kind].code, "%s: PowerFlex says: %s (error %d)%s", what, f->message,
                       f->code, table[f->kind].advice);
    return err_new(table[f->kind].code, "%s: PowerFlex says: %s%s", what, f->message,
                   table[f->kind].advice);
}
