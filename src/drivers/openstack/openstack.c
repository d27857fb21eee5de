#include "drivers/openstack/openstack.h"

#include "base/now.h"
#include "drivers/backends.h"
#include "drivers/durable.h"
#include "model/yaml_json.h"

#include <fcntl.h>
#include <openssl/sha.h>
#include <stdio.h>

#define OPEN_S 60
#define CLOUDS_FILE "/etc/openstack/clouds.yaml"
#define MINOR_NEEDED 54u /* attachments of hosts that are no servers */
#define RACKSPACE_MIN (75 * OS_GIB)
#define RACKSPACE_MAX (1024 * OS_GIB)

static const struct driver_key keys[] = {
    {"region", DRIVER_KEY_STRING, false},
    {"auth_plugin", DRIVER_KEY_STRING, false},
    {"auth_url", DRIVER_KEY_STRING, false},
    {"username", DRIVER_KEY_STRING, false},
    {"user_id", DRIVER_KEY_STRING, false},
    {"password", DRIVER_KEY_STRING, false},
    {"api_key", DRIVER_KEY_STRING, false},
    {"token", DRIVER_KEY_STRING, false},
    {"tenant_name", DRIVER_KEY_STRING, false},
    {"tenant_id", DRIVER_KEY_STRING, false},
    {"project_name", DRIVER_KEY_STRING, false},
    {"project_id", DRIVER_KEY_STRING, false},
    {"user_domain_name", DRIVER_KEY_STRING, false},
    {"user_domain_id", DRIVER_KEY_STRING, false},
    {"project_domain_name", DRIVER_KEY_STRING, false},
    {"project_domain_id", DRIVER_KEY_STRING, false},
    {"default_domain_name", DRIVER_KEY_STRING, false},
    {"default_domain_id", DRIVER_KEY_STRING, false},
    {"application_credential_id", DRIVER_KEY_STRING, false},
    {"application_credential_name", DRIVER_KEY_STRING, false},
    {"application_credential_secret", DRIVER_KEY_STRING, false},
    {"cloud", DRIVER_KEY_STRING, false},
    {"clouds_file", DRIVER_KEY_STRING, false},
    {"interface", DRIVER_KEY_STRING, false},
    {"volume_endpoint", DRIVER_KEY_STRING, false},
    {"compute_endpoint", DRIVER_KEY_STRING, false},
    {"metadata_endpoint", DRIVER_KEY_STRING, false},
    {"verify_peer", DRIVER_KEY_BOOL, false},
    {"verify_ca_path", DRIVER_KEY_STRING, false},
    {"compute_instance_id", DRIVER_KEY_STRING, false},
    {"attach", DRIVER_KEY_STRING, false},
    {"storage_ip", DRIVER_KEY_STRING, false},
    {"availability_zone", DRIVER_KEY_STRING, false},
    {"volume_type", DRIVER_KEY_STRING, false},
    {"profile_gold", DRIVER_KEY_STRING, false},
    {"profile_silver", DRIVER_KEY_STRING, false},
    {"profile_bronze", DRIVER_KEY_STRING, false},
    {"minimum_size", DRIVER_KEY_SIZE, false},
    {"maximum_size", DRIVER_KEY_SIZE, false},
    {"host_root", DRIVER_KEY_STRING, false},
    {NULL},
};

static void openstack_close(void *cookie)
{
    struct openstack *o = cookie;

    os_cloud_free(o->cloud);
    os_identity_done(&o->identity);
    http_client_free(o->http);
    http_client_free(o->near);
    notes_close(&o->notes);
    json_decref(o->options);
    free(o->instance);
    free(o->host_root);
    free(o->nfs_root);
    free(o);
}

/* ---- what agent.yml and clouds.yaml say ---- */

static struct err *apply_clouds_file(struct openstack *o)
{
    const char *cloud = driver_option_string(o->options, "cloud", NULL);
    const char *path = driver_option_string(o->options, "clouds_file", CLOUDS_FILE);
    CLEANUP_FREE char *text = NULL;
    json_t *clouds = NULL;

    if (!cloud)
        return NULL;
    TRY(err_wrap(file_read(AT_FDCWD, path, YAML_MAX_BYTES, &text), "%s", path));
    if (!text)
        return err_new(ERR_INVALID,
                       "Configuration error: there is no %s (clouds_file), which should say what "
                       "cloud '%s' is.",
                       path, cloud);
    struct err *e = yaml_load(text, strlen(text), &clouds);

    explicit_bzero(text, strlen(text));
    if (!e)
        e = os_cloud_apply(clouds, cloud, o->options);
    json_decref(clouds);
    if (e && e->code == ERR_NOT_FOUND)
        e->code = ERR_INVALID;
    return err_wrap(e, "%s", path);
}

static struct err *take_attach(struct openstack *o)
{
    const char *how = driver_option_string(o->options, "attach", "nova");

    if (!streq(how, "nova") && !streq(how, "cinder"))
        return err_new(ERR_INVALID, "Configuration error: attach must be nova or cinder, not %s.",
                       how);
    o->by_cinder = streq(how, "cinder");
    return NULL;
}

static struct err *take_interface(const struct openstack *o)
{
    const char *i = driver_option_string(o->options, "interface", "public");

    if (!str_has_prefix(i, "public") && !str_has_prefix(i, "internal") &&
        !str_has_prefix(i, "admin"))
        return err_new(ERR_INVALID,
                       "Configuration error: interface must be public, internal or admin, not %s.",
                       i);
    return NULL;
}

static uint64_t whole(uint64_t size)
{
    return (size + OS_GIB - 1) / OS_GIB * OS_GIB;
}

static struct err *take_sizes(struct openstack *o)
{
    bool rackspace = o->identity.how == OS_AUTH_RACKSPACE;

    o->size_min =
        whole(driver_option_size(o->options, "minimum_size", rackspace ? RACKSPACE_MIN : OS_GIB));
    o->size_max = driver_option_size(o->options, "maximum_size", rackspace ? RACKSPACE_MAX : 0);
    o->size_default = DRIVER_DEFAULT_SIZE;
    if (o->size_max && o->size_max < o->size_min)
        return err_new(ERR_INVALID, "Configuration error: maximum_size is less than minimum_size.");
    return NULL;
}

static struct err *take_options(struct openstack *o)
{
    static const char *const profiles[OS_PROFILES] = {"profile_gold", "profile_silver",
                                                      "profile_bronze"};
    const char *root = driver_option_string(o->options, "host_root", "/");

    TRY(os_identity_read(o->options, &o->identity));
    TRY(take_attach(o));
    TRY(take_interface(o));
    TRY(take_sizes(o));
    if (*root != '/')
        return err_new(ERR_INVALID, "Configuration error: host_root must be an absolute path.");
    if (o->identity.how == OS_AUTH_NONE && !json_object_get(o->options, "volume_endpoint"))
        return err_new(ERR_INVALID,
                       "Configuration error: Required key volume_endpoint is missing (without "
                       "Keystone nobody else says where Cinder is).");
    if (o->identity.how != OS_AUTH_NONE && !json_object_get(o->options, "region"))
        return err_new(ERR_INVALID, "Configuration error: Required key region is missing.");
    o->host_root = xstrdup(streq(root, "/") ? "" : root);
    o->zone = driver_option_string(o->options, "availability_zone", NULL);
    o->volume_type = driver_option_string(o->options, "volume_type", NULL);
    for (size_t i = 0; i < OS_PROFILES; i++)
        o->profiles[i] = driver_option_string(o->options, profiles[i], NULL);
    return NULL;
}

/* ---- opening ---- */

static struct err *make_client(struct openstack *o)
{
    const char *ca = driver_option_string(o->options, "verify_ca_path", NULL);
    bool verify = driver_option_bool(o->options, "verify_peer", true);

    TRY(http_client_new(
        &(struct http_client_options){.ca_file = verify ? ca : NULL, .insecure = !verify},
        &o->http));
    TRY(http_client_new(&(struct http_client_options){.direct = true}, &o->near));
    o->cloud = os_cloud_new(&(struct os_cloud_config){
        .budget = o->budget,
        .identity = &o->identity,
        .http = o->http,
        .region = driver_option_string(o->options, "region", NULL),
        .interface = driver_option_string(o->options, "interface", "public"),
        .volume_endpoint = driver_option_string(o->options, "volume_endpoint", NULL),
        .compute_endpoint = driver_option_string(o->options, "compute_endpoint", NULL)});
    return NULL;
}

/* Nodes of one cluster that ask the same cloud see the same volumes. */
static struct uuid id_of_storage(const struct openstack *o)
{
    CLEANUP_FREE char *text = xasprintf("flocker openstack %s %s %s %s", UUID_STR(&o->cluster),
                                        driver_option_string(o->options, "region", ""),
                                        driver_option_string(o->options, "volume_endpoint", ""),
                                        o->by_cinder ? "cinder" : "nova");
    unsigned char sum[SHA256_DIGEST_LENGTH];
    struct uuid id;

    (void)SHA256((const unsigned char *)text, strlen(text), sum);
    memcpy(id.b, sum, sizeof(id.b));
    return id;
}

static struct err *check_by_cinder(struct openstack *o)
{
    struct wait w = wait_for(OPEN_S);
    unsigned minor;

    TRY(os_cloud_volume_minor(o->cloud, w.deadline_us, &minor));
    if (minor < MINOR_NEEDED)
        return err_new(
            ERR_UNSUPPORTED,
            "this Cinder offers API 3.%u, but attach: cinder needs 3.%u (OpenStack Stein) "
            "or newer",
            minor, MINOR_NEEDED);
    return NULL;
}

/* Tells at once whether keys and region are right. */
static struct err *validate(struct openstack *o)
{
    struct wait w = wait_for(OPEN_S);
    unsigned api;

    return os_cloud_volume_api(o->cloud, w.deadline_us, &api);
}

static struct err *set_up(struct openstack *o, const struct driver_config *config)
{
    o->options = json_deep_copy(config->options);
    o->cluster = config->cluster;
    o->node = config->node;
    o->budget = config->budget;
    TRY(apply_clouds_file(o));
    TRY(take_options(o));
    o->shared = id_of_storage(o);
    o->nfs_root = xasprintf("%s/openstack-nfs", config->state_dir);
    TRY(notes_open(&o->notes, config->state_dir, "openstack"));
    TRY(make_client(o));
    TRY(validate(o));
    if (!o->by_cinder)
        return os_instance_find(o, &o->instance);
    o->instance = xstrdup(UUID_STR(&o->node));
    return check_by_cinder(o);
}

static struct err *openstack_open(const struct driver_config *config, void **ret_cookie)
{
    struct openstack *o = xcalloc(1, sizeof(*o));

    o->notes = NOTES_CLOSED;
    struct err *e = set_up(o, config);

    if (e) {
        openstack_close(o);
        return e;
    }
    *ret_cookie = o;
    return NULL;
}

/* ---- the rest ---- */

static struct err *openstack_mark_dir(void *cookie, const struct uuid *dataset, bool create,
                                      int *ret_fd)
{
    return notes_mark_dir(&((struct openstack *)cookie)->notes, dataset, create, ret_fd);
}

static struct err *openstack_forget(void *cookie, const struct uuid *dataset)
{
    return notes_forget(&((struct openstack *)cookie)->notes, dataset);
}

static struct uuid openstack_shared_id(void *cookie)
{
    return ((struct openstack *)cookie)->shared;
}

static const char *openstack_instance_id(void *cookie)
{
    return ((struct openstack *)cookie)->instance;
}

static uint64_t openstack_allocation_unit(void *cookie)
{
    return OS_GIB;
}

const struct driver driver_openstack = {
    .abi = DRIVER_ABI,
    .size = sizeof(struct driver),
    .name = "openstack",
    .kind = STORAGE_ATTACHABLE,
    .keys = keys,
    .open = openstack_open,
    .close = openstack_close,
    .list = os_list,
    .inspect = os_inspect,
    .mark_dir = openstack_mark_dir,
    .forget = openstack_forget,
    .create = os_create,
    .create_profiled = os_create_profiled,
    .destroy = os_destroy,
    .shared_id = openstack_shared_id,
    .tells_hosts = true,
    .instance_id = openstack_instance_id,
    .allocation_unit = openstack_allocation_unit,
    .attach = os_attach,
    .detach = os_detach,
    .detach_from = os_detach_from,
    .grow = os_grow,
    .device = os_device,
};
