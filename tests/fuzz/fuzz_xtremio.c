/* What an XtremIO array answers. The first byte chooses: l a list of volumes, v one volume, i initiators, t targets, p portals of iSCSI, m
 * lun-maps, c clusters, e an error, n an initiatorname.iscsi, a the address of a port. */
#include "fuzz.h"

#include "drivers/json_http.h"
#include "drivers/xtremio/xtremio.h"

/* What the client makes of the bytes; NULL when it is no JSON. The caller frees it. */
static json_t *json_of(const char *bytes, size_t n)
{
    json_t *root = NULL;

    if (n)
        fuzz_refused(json_http_parse(bytes, n, &root), ERR_CORRUPT);
    return root;
}

static void check_port(const char *port)
{
    char again[XTREMIO_PORT_SIZE];

    RULE(xtremio_port_normalize(port, again) && streq(port, again));
    RULE(!strpbrk(port, " /\r\n\"'%"));
}

static void check_volume(const struct xtremio_volume *v)
{
    size_t naa = strlen(v->naa);

    RULE(*v->name && strlen(v->name) < XTREMIO_NAME_SIZE && !strpbrk(v->name, "\r\n"));
    RULE(v->size && v->size % 1024 == 0 && v->size < 1ull << 53);
    RULE((naa == 0 || naa == 16 || naa == 32) && !v->naa[strspn(v->naa, "0123456789abcdef")]);
    RULE(v->n_maps <= XTREMIO_MAPS_MAX);
    for (size_t i = 0; i < v->n_maps; i++)
        RULE(*v->maps[i].group && v->maps[i].lun <= XTREMIO_LUN_MAX);
}

static void check_dataset(const struct xtremio_volume *v)
{
    const struct uuid cluster = {
        .b = {0x5c, 1, 2, 3, 4, 5, 0x46, 7, 0x88, 9, 10, 11, 12, 13, 14, 15}};
    char name[XTREMIO_VOLUME_NAME_SIZE];
    struct uuid dataset;

    if (!xtremio_volume_dataset(v, &cluster, &dataset))
        return;
    xtremio_volume_name(&dataset, &cluster, name);
    RULE(str_has_prefix(name, v->name) && (streq(name, v->name) || uuid_eq(&v->folder, &cluster)));
}

static void volumes(const char *bytes, size_t n)
{
    CLEANUP_XTREMIO_VOLUMES struct xtremio_volumes v = {0};
    json_t *root = json_of(bytes, n);

    fuzz_refused(xtremio_volumes_parse(root, &v), ERR_CORRUPT);
    json_decref(root);
    for (size_t i = 0; i < v.n; i++) {
        check_volume(&v.all[i]);
        check_dataset(&v.all[i]);
    }
}

static void volume(const char *bytes, size_t n)
{
    CLEANUP_XTREMIO_VOLUME struct xtremio_volume v = {0};
    json_t *root = json_of(bytes, n);

    if (!fuzz_refused(xtremio_volume_parse(root, &v), ERR_CORRUPT))
        check_volume(&v);
    json_decref(root);
}

static void initiators(const char *bytes, size_t n)
{
    CLEANUP_XTREMIO_INITIATORS struct xtremio_initiators all = {0};
    json_t *root = json_of(bytes, n);

    fuzz_refused(xtremio_initiators_parse(root, &all), ERR_CORRUPT);
    json_decref(root);
    for (size_t i = 0; i < all.n; i++) {
        check_port(all.all[i].port);
        RULE(*all.all[i].group);
    }
}

static void check_targets(struct err *(*parse)(const json_t *, struct xtremio_targets *),
                          const char *bytes, size_t n, bool iscsi)
{
    CLEANUP_XTREMIO_TARGETS struct xtremio_targets all = {0};
    json_t *root = json_of(bytes, n);

    fuzz_refused(parse(root, &all), ERR_CORRUPT);
    json_decref(root);
    for (size_t i = 0; i < all.n; i++) {
        check_port(all.all[i].port);
        RULE(!*all.all[i].portal == !iscsi && !strpbrk(all.all[i].portal, " -/\r\n"));
    }
}

static void targets(const char *bytes, size_t n)
{
    check_targets(xtremio_targets_parse, bytes, n, false);
}

static void portals(const char *bytes, size_t n)
{
    check_targets(xtremio_portals_parse, bytes, n, true);
}

static void maps(const char *bytes, size_t n)
{
    static bool used[XTREMIO_LUN_MAX + 1];
    json_t *root = json_of(bytes, n);

    fuzz_refused(xtremio_luns_parse(root, used), ERR_CORRUPT);
    json_decref(root);
}

static void clusters(const char *bytes, size_t n)
{
    CLEANUP_FREE char *names = NULL;
    json_t *root = json_of(bytes, n);

    if (!fuzz_refused(xtremio_clusters_parse(root, &names), ERR_CORRUPT))
        RULE(!*names || names[strlen(names) - 1] == '\n');
    json_decref(root);
}

static void failure(const char *bytes, size_t n)
{
    json_t *root = json_of(bytes, n);
    struct xtremio_failure f = xtremio_failure_parse(400, root),
                           g = xtremio_failure_parse(503, root);
    CLEANUP_ERR struct err *e = xtremio_failure_err(&f, "x");

    json_decref(root);
    RULE(f.kind < XTREMIO_FAILURE_KIND_MAX && *f.message && !strpbrk(e->text, "\r\n"));
    RULE(g.kind == XTREMIO_TROUBLE);
}

static void initiatorname(const char *text)
{
    char port[XTREMIO_PORT_SIZE];

    if (xtremio_initiatorname_parse(text, port))
        check_port(port);
}

static void address(const char *text)
{
    char port[XTREMIO_PORT_SIZE];

    if (xtremio_port_normalize(text, port))
        check_port(port);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_choice choices[] = {
        {'l', .bytes = volumes},  {'v', .bytes = volume},  {'i', .bytes = initiators},
        {'t', .bytes = targets},  {'p', .bytes = portals}, {'m', .bytes = maps},
        {'c', .bytes = clusters}, {'e', .bytes = failure}, {'n', .text = initiatorname},
        {'a', .text = address},
    };

    return fuzz_choose(choices, ARRAY_SIZE(choices), data, size);
}
