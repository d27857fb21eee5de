#include "drivers/xtremio/xtremio.h"

#include "base/random.h"
#include "base/str.h"
#include "drivers/backends.h"

#include <openssl/sha.h>
#include <unistd.h>

#define MIB (1ull << 20)
#define OPEN_S 10
#define GROUP_NAME_MAX 64u

static const struct driver_key keys[] = {
    {"xms_ip", DRIVER_KEY_STRING, true},
    {"xms_user", DRIVER_KEY_STRING, true},
    {"xms_password", DRIVER_KEY_STRING, true},
    {"ca_file", DRIVER_KEY_STRING, false},
    {"cluster_name", DRIVER_KEY_STRING, false},
    {"protocol", DRIVER_KEY_STRING, false},
    {"iscsi_login", DRIVER_KEY_BOOL, false},
    {"multipath", DRIVER_KEY_BOOL, false},
    {"compute_instance_id", DRIVER_KEY_STRING, false},
    {"host_root", DRIVER_KEY_STRING, false},
    {NULL},
};

static void xtremio_close(void *cookie)
{
    struct xtremio *x = cookie;

    xms_free(x->xms);
    http_client_free(x->http);
    notes_close(&x->notes);
    (void)pthread_mutex_destroy(&x->lock);
    free(x->group);
    free(x->host_root);
    free(x);
}

/* ---- what agent.yml says ---- */

static struct err *take_options(struct xtremio *x, const json_t *o)
{
    const char *protocol = driver_option_string(o, "protocol", "iscsi");
    const char *root = driver_option_string(o, "host_root", "/");

    if (!streq(protocol, "iscsi") && !streq(protocol, "fc"))
        return err_new(ERR_INVALID, "Configuration error: protocol must be iscsi or fc, not '%s'.",
                       protocol);
    if (*root != '/')
        return err_new(ERR_INVALID, "Configuration error: host_root must be an absolute path.");
    x->protocol = streq(protocol, "fc") ? XTREMIO_FC : XTREMIO_ISCSI;
    x->host_root = xstrdup(streq(root, "/") ? "" : root);
    x->login = x->protocol == XTREMIO_ISCSI && driver_option_bool(o, "iscsi_login", true);
    x->multipath_told = json_object_get(o, "multipath");
    x->multipath = driver_option_bool(o, "multipath", false);
    return NULL;
}

/* The name of this node's group, if it has none yet: as with Flocker 1, that of the host. */
static struct err *wanted_group(const json_t *o, char **ret_name)
{
    char host[GROUP_NAME_MAX + 1] = "";
    const char *told = driver_option_string(o, "compute_instance_id", NULL);

    if (!told && gethostname(host, sizeof(host) - 1) < 0)
        return err_new(ERR_INVALID,
                       "Could not find valid instance ID for this node: set compute_instance_id");
    const char *name = told ? told : host;
    size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-");

    if (!n || n > GROUP_NAME_MAX || name[n])
        return err_new(
            ERR_INVALID,
            "Could not find valid instance ID for this node: '%.80s' cannot be the name of an "
            "initiator group (letters, digits, '.', '_', '-', at most %u); set compute_instance_id",
            name, GROUP_NAME_MAX);
    if (!name[strspn(name, "0123456789")])
        return err_new(ERR_INVALID,
                       "Could not find valid instance ID for this node: the array would take the "
                       "name '%s' for a "
                       "number; set compute_instance_id",
                       name);
    *ret_name = xstrdup(name);
    return NULL;
}

/* ---- opening ---- */

/* `names` has one a line. */
static bool has_line(const char *names, const char *wanted)
{
    size_t n = strlen(wanted);

    for (const char *l = names; *l; l += strcspn(l, "\n") + 1) {
        if (strcspn(l, "\n") == n && !strncmp(l, wanted, n))
            return true;
    }
    return false;
}

static struct err *choose_cluster(struct xtremio *x, const json_t *o)
{
    const char *told = driver_option_string(o, "cluster_name", NULL);
    struct xms_try t = xms_try_for(OPEN_S);
    CLEANUP_FREE char *names = NULL;

    TRY(xms_clusters_sync(x->xms, &t, &names));
    size_t first = strcspn(names, "\n");
    bool several = names[first] && names[first + 1];
    CLEANUP_FREE char *name = told ? xstrdup(told) : xstrndup(names, first);

    for (char *c = names; *c && (several || told); c++) {
        if (c[0] == '\n' && !c[1])
            *c = '\0';
    }
    if (told ? !has_line(names, told) : several || !*names) {
        for (char *c = names; *c; c++)
            *c = *c == '\n' ? ' ' : *c;
        return err_new(
            ERR_INVALID,
            "Configuration error: cluster_name must be one of the clusters of the XMS: %s",
            *names ? names : "it has none");
    }
    xms_set_cluster(x->xms, name);
    return NULL;
}

/* Nodes of one cluster with one array see the same volumes. */
static struct uuid id_of_storage(const struct xtremio *x, const json_t *o)
{
    CLEANUP_FREE char *text = xasprintf("flocker xtremio %s %s %s", UUID_STR(&x->cluster),
                                        driver_option_string(o, "xms_ip", ""),
                                        driver_option_string(o, "cluster_name", ""));
    unsigned char sum[SHA256_DIGEST_LENGTH];
    struct uuid id;

    (void)SHA256((const unsigned char *)text, strlen(text), sum);
    memcpy(id.b, sum, sizeof(id.b));
    return id;
}

static struct err *log_in(struct xtremio *x)
{
    CLEANUP_XTREMIO_TARGETS struct xtremio_targets targets = {0};
    struct xms_try t = xms_try_for(OPEN_S);

    TRY(xms_targets_sync(x->xms, &t, XTREMIO_ISCSI, &targets));
    return xtremio_host_login(x->host_root, &targets);
}

static struct err *set_up(struct xtremio *x, const struct driver_config *config)
{
    const json_t *o = config->options;
    CLEANUP_FREE char *wanted = NULL;
    struct random r = random_os();

    TRY(take_options(x, o));
    TRY(wanted_group(o, &wanted));
    x->node = config->node;
    x->cluster = config->cluster;
    x->shared = id_of_storage(x, o);
    x->next_lun = (unsigned)random_below(&r, XTREMIO_LUN_MAX);
    TRY(notes_open(&x->notes, config->state_dir, "xtremio"));
    TRY(http_client_new(
        &(struct http_client_options){.ca_file = driver_option_string(o, "ca_file", NULL)},
        &x->http));
    TRY(xms_new(x->http, config->budget, driver_option_string(o, "xms_ip", ""),
                driver_option_string(o, "xms_user", ""),
                driver_option_string(o, "xms_password", ""), &x->xms));
    TRY(choose_cluster(x, o));
    TRY(xtremio_group_ensure(x, wanted, &x->group));
    return x->login ? log_in(x) : NULL;
}

static struct err *xtremio_open(const struct driver_config *config, void **ret_cookie)
{
    struct xtremio *x = xcalloc(1, sizeof(*x));

    x->notes = NOTES_CLOSED;
    (void)pthread_mutex_init(&x->lock, NULL);
    struct err *e = set_up(x, config);

    if (e) {
        xtremio_close(x);
        return e;
    }
    *ret_cookie = x;
    return NULL;
}

/* ---- the rest ---- */

static struct err *xtremio_mark_dir(void *cookie, const struct uuid *dataset, bool create,
                                    int *ret_fd)
{
    return notes_mark_dir(&((struct xtremio *)cookie)->notes, dataset, create, ret_fd);
}

static struct err *xtremio_forget(void *cookie, const struct uuid *dataset)
{
    return notes_forget(&((struct xtremio *)cookie)->notes, dataset);
}

static struct uuid xtremio_shared_id(void *cookie)
{
    return ((struct xtremio *)cookie)->shared;
}

static const char *xtremio_instance_id(void *cookie)
{
    return ((struct xtremio *)cookie)->group;
}

static uint64_t xtremio_allocation_unit(void *cookie)
{
    return MIB;
}

const struct driver driver_xtremio = {
    .abi = DRIVER_ABI,
    .size = sizeof(struct driver),
    .name = "xtremio",
    .kind = STORAGE_ATTACHABLE,
    .keys = keys,
    .open = xtremio_open,
    .close = xtremio_close,
    .list = xtremio_list,
    .inspect = xtremio_inspect,
    .mark_dir = xtremio_mark_dir,
    .forget = xtremio_forget,
    .create = xtremio_create,
    .destroy = xtremio_destroy,
    .grow = xtremio_grow,
    .shared_id = xtremio_shared_id,
    .tells_hosts = true,
    .instance_id = xtremio_instance_id,
    .allocation_unit = xtremio_allocation_unit,
    .attach = xtremio_attach,
    .detach = xtremio_detach,
    .detach_from = xtremio_detach_from,
    .device = xtremio_device,
};
