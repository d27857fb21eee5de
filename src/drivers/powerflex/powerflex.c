#include "drivers/powerflex/powerflex.h"

#include "base/log.h"
#include "base/str.h"
#include "drivers/backends.h"
#include "drivers/powerflex/sdc.h"

#include <openssl/sha.h>

#define OPEN_S 10
#define PORT_TLS 443u
#define PORT_PLAIN 80u

static const struct driver_key keys[] = {
    {"username", DRIVER_KEY_STRING, true},
    {"password", DRIVER_KEY_STRING, true},
    {"mdm", DRIVER_KEY_STRING, true},
    {"ssl", DRIVER_KEY_BOOL, true},
    {"port", DRIVER_KEY_NUMBER, false},
    {"protection_domain", DRIVER_KEY_STRING, false},
    {"storage_pool", DRIVER_KEY_STRING, false},
    {"certificate", DRIVER_KEY_STRING, false},
    {"provisioning", DRIVER_KEY_STRING, false},
    {"sdc_guid", DRIVER_KEY_STRING, false},
    {"host_root", DRIVER_KEY_STRING, false},
    {"debug", DRIVER_KEY_STRING, false},
    {NULL},
};

static void powerflex_close(void *cookie)
{
    struct powerflex *p = cookie;

    pfx_gateway_free(p->gateway);
    http_client_free(p->http);
    notes_close(&p->notes);
    (void)pthread_mutex_destroy(&p->lock);
    free(p->domain);
    free(p->pool);
    free(p->host_root);
    free(p);
}

/* ---- what agent.yml says ---- */

static bool is_host(const char *s)
{
    size_t n = strlen(s);

    return n < 256 &&
           strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789.-_:") == n;
}

static struct err *check_options(const json_t *o)
{
    const char *provisioning = driver_option_string(o, "provisioning", "thin");

    if (!is_host(driver_option_string(o, "mdm", "")))
        return err_new(ERR_INVALID,
                       "Configuration error: mdm must be the host name or address of the PowerFlex "
                       "gateway, not '%s'.",
                       driver_option_string(o, "mdm", ""));
    if (strchr(driver_option_string(o, "username", ""), ':'))
        return err_new(ERR_INVALID, "Configuration error: username must not contain a colon.");
    if (!streq(provisioning, "thin") && !streq(provisioning, "thick"))
        return err_new(ERR_INVALID,
                       "Configuration error: provisioning must be thin or thick, not '%s'.",
                       provisioning);
    if (json_object_get(o, "certificate") && !driver_option_bool(o, "ssl", true))
        return err_new(ERR_INVALID, "Configuration error: certificate needs ssl: true.");
    if (driver_option_number(o, "port", 1) > UINT16_MAX)
        return err_new(ERR_INVALID, "Configuration error: port must be from 1 to 65535.");
    if (*driver_option_string(o, "host_root", "/") != '/')
        return err_new(ERR_INVALID, "Configuration error: host_root must be an absolute path.");
    return NULL;
}

static char *gateway_url(const json_t *o)
{
    const char *host = driver_option_string(o, "mdm", "");
    bool tls = driver_option_bool(o, "ssl", true), is_v6 = strchr(host, ':');

    return xasprintf("%s://%s%s%s:%u", tls ? "https" : "http", is_v6 ? "[" : "", host,
                     is_v6 ? "]" : "",
                     driver_option_number(o, "port", tls ? PORT_TLS : PORT_PLAIN));
}

/* Arrays are near: no proxy of the environment gets the password. */
static struct err *make_gateway(struct powerflex *p, const json_t *o, struct budget *budget)
{
    CLEANUP_FREE char *url = gateway_url(o);

    TRY(http_client_new(
        &(struct http_client_options){.ca_file = driver_option_string(o, "certificate", NULL),
                                      .direct = true},
        &p->http));
    if (!driver_option_bool(o, "ssl", true))
        log_warning("ssl: false: user and password go to the PowerFlex gateway in the clear");
    p->gateway = pfx_gateway_new(
        &(struct pfx_gateway_config){.url = url,
                                     .user = driver_option_string(o, "username", ""),
                                     .password = driver_option_string(o, "password", ""),
                                     .http = p->http,
                                     .budget = budget});
    return NULL;
}

static void take_options(struct powerflex *p, const json_t *o)
{
    const char *root = driver_option_string(o, "host_root", "");

    p->domain = xstrdup(driver_option_string(o, "protection_domain", "default"));
    p->pool = xstrdup(driver_option_string(o, "storage_pool", "default"));
    p->host_root = xstrdup(streq(root, "/") ? "" : root);
    p->thick = streq(driver_option_string(o, "provisioning", "thin"), "thick");
}

/* ---- opening ---- */

static struct err *find_guid(struct powerflex *p, const json_t *o)
{
    const char *told = driver_option_string(o, "sdc_guid", NULL);

    if (!told)
        return err_wrap(
            pfx_sdc_local_guid(p->host_root, p->guid),
            "Could not find valid instance ID for this node (sdc_guid in agent.yml may say it)");
    if (!pfx_guid_parse(told, p->guid))
        return err_new(ERR_INVALID,
                       "Configuration error: sdc_guid must be the GUID of an SDC, not '%.60s'.",
                       told);
    return NULL;
}

/* Nodes of one cluster at one system see the same volumes. */
static struct uuid id_of_storage(const struct powerflex *p)
{
    CLEANUP_FREE char *text =
        xasprintf("flocker powerflex %s %s", UUID_STR(&p->cluster), p->system);
    unsigned char sum[SHA256_DIGEST_LENGTH];
    struct uuid id;

    (void)SHA256((const unsigned char *)text, strlen(text), sum);
    memcpy(id.b, sum, sizeof(id.b));
    return id;
}

static struct err *set_up(struct powerflex *p, const struct driver_config *config)
{
    struct wait w = wait_for(OPEN_S);
    struct pfx_try t = pfx_try_until(&w);
    struct pfx_pool pool;

    TRY(check_options(config->options));
    take_options(p, config->options);
    p->cluster = config->cluster;
    TRY(notes_open(&p->notes, config->state_dir, "powerflex"));
    TRY(find_guid(p, config->options));
    TRY(make_gateway(p, config->options, config->budget));
    TRY(pfx_system_sync(p->gateway, &t, p->system));
    p->shared = id_of_storage(p);
    TRY(pfx_pool_sync(p->gateway, &t, p->domain, p->pool, &pool));
    return pfx_self_check(p, &t);
}

static struct err *powerflex_open(const struct driver_config *config, void **ret_cookie)
{
    struct powerflex *p = xcalloc(1, sizeof(*p));

    p->notes = NOTES_CLOSED;
    (void)pthread_mutex_init(&p->lock, NULL);
    struct err *e = set_up(p, config);

    if (e) {
        powerflex_close(p);
        return e;
    }
    *ret_cookie = p;
    return NULL;
}

/* ---- the rest ---- */

static struct err *powerflex_mark_dir(void *cookie, const struct uuid *dataset, bool create,
                                      int *ret_fd)
{
    return notes_mark_dir(&((struct powerflex *)cookie)->notes, dataset, create, ret_fd);
}

static struct err *powerflex_forget(void *cookie, const struct uuid *dataset)
{
    return notes_forget(&((struct powerflex *)cookie)->notes, dataset);
}

static struct uuid powerflex_shared_id(void *cookie)
{
    return ((struct powerflex *)cookie)->shared;
}

static const char *powerflex_instance_id(void *cookie)
{
    return ((struct powerflex *)cookie)->guid;
}

static uint64_t powerflex_allocation_unit(void *cookie)
{
    return PFX_UNIT;
}

const struct driver driver_powerflex = {
    .abi = DRIVER_ABI,
    .size = sizeof(struct driver),
    .name = "powerflex",
    .kind = STORAGE_ATTACHABLE,
    .keys = keys,
    .open = powerflex_open,
    .close = powerflex_close,
    .list = pfx_list,
    .inspect = pfx_inspect,
    .mark_dir = powerflex_mark_dir,
    .forget = powerflex_forget,
    .create = pfx_create,
    .destroy = pfx_destroy,
    .tells_hosts = true,
    .shared_id = powerflex_shared_id,
    .instance_id = powerflex_instance_id,
    .allocation_unit = powerflex_allocation_unit,
    .attach = pfx_attach,
    .detach = pfx_detach,
    .detach_from = pfx_detach_from,
    .grow = pfx_grow,
    .device = pfx_device,
};
