#include "drivers/aws/aws.h"

#include "base/now.h"
#include "base/str.h"
#include "drivers/backends.h"

#include <openssl/sha.h>

#define GIB (1ull << 30)
#define OPEN_S 20
#define DEFAULT_TYPE "gp3"

static const struct driver_key keys[] = {
    {"region", DRIVER_KEY_STRING, true},         {"zone", DRIVER_KEY_STRING, true},
    {"access_key_id", DRIVER_KEY_STRING, false}, {"secret_access_key", DRIVER_KEY_STRING, false},
    {"session_token", DRIVER_KEY_STRING, false}, {"validate_region", DRIVER_KEY_BOOL, false},
    {"profile", DRIVER_KEY_STRING, false},       {"volume_type", DRIVER_KEY_STRING, false},
    {"iops", DRIVER_KEY_NUMBER, false},          {"throughput", DRIVER_KEY_NUMBER, false},
    {"encrypted", DRIVER_KEY_BOOL, false},       {"kms_key_id", DRIVER_KEY_STRING, false},
    {"endpoint", DRIVER_KEY_STRING, false},      {"metadata_endpoint", DRIVER_KEY_STRING, false},
    {"ca_file", DRIVER_KEY_STRING, false},       {"compute_instance_id", DRIVER_KEY_STRING, false},
    {"host_root", DRIVER_KEY_STRING, false},     {NULL},
};

static void aws_close(void *cookie)
{
    struct aws *a = cookie;

    ec2_free(a->ec2);
    aws_credentials_free(a->credentials);
    aws_metadata_free(a->metadata);
    http_client_free(a->http);
    http_client_free(a->near);
    notes_close(&a->notes);
    aws_patience_done(&a->patience);
    (void)pthread_mutex_destroy(&a->lock);
    free(a->shape.type);
    free(a->shape.kms_key_id);
    free(a->region);
    free(a->zone);
    free(a->instance);
    free(a->host_root);
    free(a);
}

/* ---- what agent.yml says ---- */

static char *option(const json_t *o, const char *key, const char *fallback)
{
    return xstrdup_null(driver_option_string(o, key, fallback));
}

static struct err *check_options(const json_t *o)
{
    bool id = json_object_get(o, "access_key_id"), secret = json_object_get(o, "secret_access_key");

    if (id != secret)
        return err_new(ERR_INVALID, "Configuration error: Required key %s is missing.",
                       id ? "secret_access_key" : "access_key_id");
    if (id && json_object_get(o, "profile"))
        return err_new(ERR_INVALID,
                       "Configuration error: either profile or access_key_id, not both.");
    if (json_object_get(o, "kms_key_id") && !driver_option_bool(o, "encrypted", false))
        return err_new(ERR_INVALID, "Configuration error: kms_key_id needs encrypted: true.");
    if (*driver_option_string(o, "host_root", "/") != '/')
        return err_new(ERR_INVALID, "Configuration error: host_root must be an absolute path.");
    return NULL;
}

static void take_options(struct aws *a, const json_t *o)
{
    const char *root = driver_option_string(o, "host_root", "");

    a->region = option(o, "region", NULL);
    a->zone = option(o, "zone", NULL);
    a->host_root = xstrdup(streq(root, "/") ? "" : root);
    a->shape.type = option(o, "volume_type", DEFAULT_TYPE);
    a->shape.kms_key_id = option(o, "kms_key_id", NULL);
    a->shape.iops = driver_option_number(o, "iops", 0);
    a->shape.throughput = driver_option_number(o, "throughput", 0);
    a->shape.encrypted = driver_option_bool(o, "encrypted", false);
}

static struct err *make_client(struct aws *a, const json_t *o, struct budget *budget)
{
    struct aws_credentials_config cc = {.profile = driver_option_string(o, "profile", NULL)};

    TRY(http_client_new(
        &(struct http_client_options){.ca_file = driver_option_string(o, "ca_file", NULL)},
        &a->http));
    TRY(http_client_new(&(struct http_client_options){.direct = true}, &a->near));
    a->metadata =
        aws_metadata_new(a->near, driver_option_string(o, "metadata_endpoint", AWS_METADATA_URL));
    cc.http = a->near;
    cc.metadata = a->metadata;
    cc.keys =
        (struct aws_keys){.id = (char *)driver_option_string(o, "access_key_id", NULL),
                          .secret = (char *)driver_option_string(o, "secret_access_key", NULL),
                          .token = (char *)driver_option_string(o, "session_token", NULL)};
    if (cc.keys.id && !aws_keys_are_sane(&cc.keys))
        return err_new(ERR_INVALID,
                       "Configuration error: access_key_id, secret_access_key or session_token "
                       "cannot be one.");
    a->credentials = aws_credentials_new(&cc);
    return ec2_new(&(struct ec2_config){.endpoint = driver_option_string(o, "endpoint", NULL),
                                        .region = a->region,
                                        .http = a->http,
                                        .credentials = a->credentials,
                                        .budget = budget},
                   &a->ec2);
}

/* ---- opening ---- */

static struct err *find_instance(struct aws *a, const json_t *o)
{
    const char *told = driver_option_string(o, "compute_instance_id", NULL);

    if (!told)
        TRY(err_wrap(
            aws_metadata_get_sync(a->metadata, "meta-data/instance-id", &a->instance),
            "Could not find valid instance ID for this node (on no instance of EC2, or where its "
            "metadata service is out of reach, set compute_instance_id)"));
    else
        a->instance = xstrdup(told);
    a->instance[strcspn(a->instance, "\r\n")] = '\0';
    if (!str_has_prefix(a->instance, "i-") || strlen(a->instance) >= AWS_ID_SIZE ||
        a->instance[strspn(a->instance, "abcdefghijklmnopqrstuvwxyz0123456789-")])
        return err_new(ERR_INVALID, "'%.60s' cannot be the id of an instance", a->instance);
    return NULL;
}

/* One call tells whether keys, region and zone are right. */
static struct err *validate(struct aws *a)
{
    struct wait w = wait_for(OPEN_S);
    struct ec2_try t = aws_try(&w);
    CLEANUP_FREE char *zones = NULL;
    CLEANUP_FREE char *wanted = xasprintf("%s ", a->zone);

    TRY(err_wrap(ec2_zones_sync(a->ec2, &t, &zones), "region %s", a->region));
    for (const char *z = strstr(zones, wanted); z; z = strstr(z + 1, wanted)) {
        if (z == zones || z[-1] == ' ')
            return NULL;
    }
    return err_new(
        ERR_INVALID,
        "The specified AWS zone is not valid. Zone %s is none of region %s, which has: %s", a->zone,
        a->region, zones);
}

/* Nodes of one cluster in one zone see the same volumes. */
static struct uuid id_of_storage(const struct aws *a, const char *endpoint)
{
    CLEANUP_FREE char *text =
        xasprintf("flocker aws %s %s %s %s", UUID_STR(&a->cluster), a->region, a->zone, endpoint);
    unsigned char sum[SHA256_DIGEST_LENGTH];
    struct uuid id;

    (void)SHA256((const unsigned char *)text, strlen(text), sum);
    memcpy(id.b, sum, sizeof(id.b));
    return id;
}

static struct err *set_up(struct aws *a, const struct driver_config *config)
{
    struct random r = random_os();

    TRY(check_options(config->options));
    take_options(a, config->options);
    a->cluster = config->cluster;
    a->shared = id_of_storage(a, driver_option_string(config->options, "endpoint", ""));
    a->next_device = (unsigned)random_below(&r, AWS_DEVICE_NAMES);
    TRY(notes_open(&a->notes, config->state_dir, "aws"));
    TRY(make_client(a, config->options, config->budget));
    TRY(find_instance(a, config->options));
    return driver_option_bool(config->options, "validate_region", true) ? validate(a) : NULL;
}

static struct err *aws_open(const struct driver_config *config, void **ret_cookie)
{
    struct aws *a = xcalloc(1, sizeof(*a));

    a->notes = NOTES_CLOSED;
    (void)pthread_mutex_init(&a->lock, NULL);
    struct err *e = set_up(a, config);

    if (e) {
        aws_close(a);
        return e;
    }
    *ret_cookie = a;
    return NULL;
}

/* ---- the rest ---- */

static struct err *aws_mark_dir(void *cookie, const struct uuid *dataset, bool create, int *ret_fd)
{
    return notes_mark_dir(&((struct aws *)cookie)->notes, dataset, create, ret_fd);
}

static struct err *aws_forget(void *cookie, const struct uuid *dataset)
{
    return notes_forget(&((struct aws *)cookie)->notes, dataset);
}

static struct uuid aws_shared_id(void *cookie)
{
    return ((struct aws *)cookie)->shared;
}

static const char *aws_instance_id(void *cookie)
{
    return ((struct aws *)cookie)->instance;
}

static uint64_t aws_allocation_unit(void *cookie)
{
    return GIB;
}

const struct driver driver_aws = {
    .abi = DRIVER_ABI,
    .size = sizeof(struct driver),
    .name = "aws",
    .kind = STORAGE_ATTACHABLE,
    .keys = keys,
    .open = aws_open,
    .close = aws_close,
    .list = aws_list,
    .inspect = aws_inspect,
    .mark_dir = aws_mark_dir,
    .forget = aws_forget,
    .create = aws_create,
    .create_profiled = aws_create_profiled,
    .destroy = aws_destroy,
    .shared_id = aws_shared_id,
    .instance_id = aws_instance_id,
    .tells_hosts = true,
    .allocation_unit = aws_allocation_unit,
    .attach = aws_attach,
    .detach = aws_detach,
    .detach_from = aws_detach_from,
    .grow = aws_grow,
    .device = aws_device,
};
