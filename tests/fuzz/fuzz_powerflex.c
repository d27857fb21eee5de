/* What a PowerFlex gateway and the module on this host answer. The first byte chooses: v a volume, l a list of them, c the answer to a
 * creation, i a bare id, t a token, n a version, y the systems, p a pool, d an SDC, s a list of SDCs, e an error, g an answer of
 * /dev/scini, f the name of a volume. */
#include "fuzz.h"

#include "drivers/json_http.h"
#include "drivers/powerflex/sdc.h"

#define SDC "c000000100000000"

static const struct uuid cluster = {{0xc1, 0xc1, 0xc1, 0xc1, 1}};

/* As the driver sees bytes: NULL is an empty answer, or one that is no JSON. */
static json_t *answer(const char *bytes, size_t n)
{
    json_t *o = NULL;

    if (n && fuzz_refused(json_http_parse(bytes, n, &o), ERR_CORRUPT))
        RULE(!o);
    return o;
}

static void check_volume(const struct pfx_volume *v)
{
    RULE(pfx_id_is_sane(v->id) && !strpbrk(v->id, "/:% "));
    RULE(strlen(v->name) < PFX_NAME_SIZE && v->size % 1024 == 0);
    RULE(v->n_others <= PFX_OTHERS_MAX && (!v->n_others || v->elsewhere));
    for (size_t i = 0; i < v->n_others; i++)
        RULE(pfx_id_is_sane(v->others[i]) && !streq(v->others[i], SDC));
}

static void volume(const char *bytes, size_t n)
{
    json_auto_t *o = answer(bytes, n);
    struct pfx_volume v;

    if (!fuzz_refused(pfx_volume_parse(o, SDC, &v), ERR_CORRUPT))
        check_volume(&v);
}

/* What is in a list is the same as what is asked for by id. */
static void volumes(const char *bytes, size_t n)
{
    json_auto_t *o = answer(bytes, n);
    CLEANUP_PFX_VOLUMES struct pfx_volumes l = {0};
    const json_t *one;
    size_t i, k = 0;

    if (fuzz_refused(pfx_volumes_parse(o, SDC, &l), ERR_CORRUPT)) {
        RULE(!l.n && !l.all);
        return;
    }
    json_array_foreach (o, i, one) {
        struct pfx_volume v;
        struct err *e = pfx_volume_parse(one, SDC, &v);

        if (!e && strlen(v.name) == PFX_NAME_SIZE - 1)
            RULE(k < l.n && streq(l.all[k].id, v.id) && l.all[k].here == v.here &&
                 l.all[k++].size == v.size);
        err_free(e);
    }
    RULE(k == l.n);
}

static void created(const char *bytes, size_t n)
{
    json_auto_t *o = answer(bytes, n);
    char id[PFX_ID_SIZE];

    if (!fuzz_refused(pfx_created_parse(o, id), ERR_CORRUPT))
        RULE(pfx_id_is_sane(id));
}

static void bare_id(const char *bytes, size_t n)
{
    json_auto_t *o = answer(bytes, n);
    char id[PFX_ID_SIZE];

    if (!fuzz_refused(pfx_id_parse(o, id), ERR_CORRUPT))
        RULE(pfx_id_is_sane(id));
}

/* It becomes a header. */
static void token(const char *bytes, size_t n)
{
    json_auto_t *o = answer(bytes, n);
    CLEANUP_FREE char *text = NULL;

    if (fuzz_refused(pfx_token_parse(o, &text), ERR_CORRUPT))
        RULE(!text);
    else
        RULE(*text && strlen(text) <= PFX_TOKEN_MAX && !strpbrk(text, " \t\r\n"));
}

static void version(const char *bytes, size_t n)
{
    json_auto_t *o = answer(bytes, n);
    unsigned major, minor;

    if (!fuzz_refused(pfx_version_parse(o, &major, &minor), ERR_CORRUPT))
        RULE(major <= 9999 && minor <= 9999);
}

static void systems(const char *bytes, size_t n)
{
    json_auto_t *o = answer(bytes, n);
    char id[PFX_ID_SIZE];

    if (!fuzz_refused(pfx_system_parse(o, id), ERR_CORRUPT))
        RULE(pfx_id_is_sane(id));
}

static void pool(const char *bytes, size_t n)
{
    json_auto_t *o = answer(bytes, n);
    bool zeros;

    if (!fuzz_refused(pfx_pool_parse(o, &zeros), ERR_CORRUPT))
        RULE(zeros != json_is_false(json_object_get(o, "zeroPaddingEnabled")));
}

static void check_sdc(const struct pfx_sdc *s)
{
    char again[PFX_GUID_SIZE];

    RULE(pfx_id_is_sane(s->id) && pfx_guid_parse(s->guid, again) && streq(s->guid, again));
    RULE(!strpbrk(s->ip, " /\n"));
}

static void sdc(const char *bytes, size_t n)
{
    json_auto_t *o = answer(bytes, n);
    struct pfx_sdc s;

    if (!fuzz_refused(pfx_sdc_parse(o, &s), ERR_CORRUPT))
        check_sdc(&s);
}

static void sdcs(const char *bytes, size_t n)
{
    json_auto_t *o = answer(bytes, n);
    CLEANUP_PFX_SDCS struct pfx_sdcs all = {0};
    struct pfx_sdc s;

    if (fuzz_refused(pfx_sdcs_parse(o, &all), ERR_CORRUPT)) {
        RULE(!all.n);
        return;
    }
    for (size_t i = 0; i < all.n; i++) {
        check_sdc(&all.all[i]);
        RULE(pfx_sdcs_guid(&all, all.all[i].id));
        RULE(!pfx_sdcs_find(&all, all.all[i].guid, &s) && streq(s.guid, all.all[i].guid));
    }
}

static void failure(const char *bytes, size_t n)
{
    static const int statuses[] = {400, 401, 404, 500, 503};
    json_auto_t *o = answer(bytes, n);

    for (size_t i = 0; i < ARRAY_SIZE(statuses); i++) {
        struct pfx_failure f = pfx_failure_parse(statuses[i], o);
        CLEANUP_ERR struct err *e = pfx_failure_err(&f, "x");

        RULE(*f.message && f.kind < PFX_FAILURE_KIND_MAX && f.code >= 0 &&
             !strpbrk(e->text, "\r\n"));
        RULE(statuses[i] != 401 || f.kind == PFX_LOGIN);
    }
}

static void scini(const char *bytes, size_t n)
{
    unsigned char whole[PFX_SCINI_ANSWER] = {0};
    char guid[PFX_GUID_SIZE], again[PFX_GUID_SIZE];

    memcpy(whole, bytes, n < sizeof(whole) ? n : sizeof(whole));
    if (pfx_scini_decode(whole, guid))
        RULE(pfx_guid_parse(guid, again) && streq(guid, again));
}

static void name(const char *text)
{
    char again[PFX_NAME_SIZE];
    struct uuid dataset;

    if (pfx_name_parse(text, &cluster, &dataset))
        RULE(streq(pfx_name_make(&cluster, &dataset, again), text));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_choice choices[] = {
        {'v', .bytes = volume},  {'l', .bytes = volumes}, {'c', .bytes = created},
        {'i', .bytes = bare_id}, {'t', .bytes = token},   {'n', .bytes = version},
        {'y', .bytes = systems}, {'p', .bytes = pool},    {'d', .bytes = sdc},
        {'s', .bytes = sdcs},    {'e', .bytes = failure}, {'g', .bytes = scini},
        {'f', .text = name},
    };

    return fuzz_choose(choices, ARRAY_SIZE(choices), data, size);
}
