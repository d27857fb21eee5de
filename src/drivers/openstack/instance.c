#include "base/log.h"
#include "base/now.h"
#include "drivers/durable.h"
#include "drivers/json_http.h"
#include "drivers/openstack/openstack.h"
#include "exec/exec.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#define METADATA_URL "http://169.254.169.254"
#define METADATA_S 5
#define SERVERS_S 60
#define META_DATA "openstack/latest/meta_data.json"
#define META_DATA_MAX (1u << 20)

static struct err *take_meta_data(const char *bytes, size_t n, char **ret_id)
{
    char id[OS_ID_SIZE];
    json_t *o = NULL;

    TRY(json_http_parse(bytes, n, &o));
    struct err *e = os_server_id(o, id);

    json_decref(o);
    if (!e)
        *ret_id = xstrdup(id);
    return e;
}

/* ---- config drive ---- */

/* It is mounted for a moment, read-only, where nobody else looks. */
static struct err *read_drive(const char *device, const char *folder, char **ret_id)
{
    static const char *const types[] = {"iso9660", "vfat"};
    CLEANUP_FREE char *path = xasprintf("%s/" META_DATA, folder);
    CLEANUP_FREE char *text = NULL;
    bool mounted = false;
    struct err *e;

    TRY(dir_make_path(folder, 0700));
    for (size_t i = 0; i < ARRAY_SIZE(types) && !mounted; i++)
        mounted =
            !mount(device, folder, types[i], MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL);
    if (!mounted)
        return err_errno(errno, "cannot mount the config drive %s", device);
    e = file_read(AT_FDCWD, path, META_DATA_MAX, &text);
    (void)umount2(folder, MNT_DETACH);
    if (!e && text)
        e = take_meta_data(text, strlen(text), ret_id);
    return err_wrap(e, "config drive %s", device);
}

static struct err *from_drive(const struct openstack *o, char **ret_id)
{
    static const char *const labels[] = {"config-2", "CONFIG-2"};

    for (size_t i = 0; i < ARRAY_SIZE(labels) && !*ret_id; i++) {
        CLEANUP_FREE char *device = xasprintf("%s/dev/disk/by-label/%s", o->host_root, labels[i]);
        CLEANUP_FREE char *folder = xasprintf("%s/config-drive", o->nfs_root);

        if (access(device, F_OK) == 0)
            TRY(read_drive(device, folder, ret_id));
    }
    return NULL;
}

/* ---- metadata service ---- */

static struct err *from_service(const struct openstack *o, char **ret_id)
{
    CLEANUP_FREE char *url = xasprintf(
        "%s/" META_DATA, driver_option_string(o->options, "metadata_endpoint", METADATA_URL));
    CLEANUP_HTTP_ANSWER struct http_answer a = {0};

    TRY(http_client_call_sync(o->near,
                              &(struct http_call){.method = "GET",
                                                  .url = url,
                                                  .answer_max = META_DATA_MAX,
                                                  .timeout_us = METADATA_S * USEC_PER_SEC},
                              &a));
    if (a.status != 200)
        return err_new(ERR_NOT_FOUND, "%s: status %d", url, a.status);
    return err_wrap(take_meta_data(a.body.data ? a.body.data : "", a.body.len, ret_id), "%s", url);
}

/* ---- addresses ---- */

static struct err *ask_nova(struct openstack *o, json_t **ret_servers)
{
    struct wait w = wait_for(SERVERS_S);
    enum os_kind kind;

    return os_call_sync(o->cloud,
                        &(struct os_call){.what = "cannot list the servers",
                                          .service = OS_COMPUTE,
                                          .method = "GET",
                                          .path = "/servers/detail?status=ACTIVE",
                                          .deadline_us = w.deadline_us},
                        &kind, ret_servers);
}

static bool address_text(const struct ifaddrs *i, char ret[INET6_ADDRSTRLEN])
{
    const void *a = NULL;
    int family;

    if (!i->ifa_addr || (i->ifa_flags & IFF_LOOPBACK))
        return false;
    family = i->ifa_addr->sa_family;
    if (family == AF_INET)
        a = &((const struct sockaddr_in *)(const void *)i->ifa_addr)->sin_addr;
    if (family == AF_INET6)
        a = &((const struct sockaddr_in6 *)(const void *)i->ifa_addr)->sin6_addr;
    return a && inet_ntop(family, a, ret, INET6_ADDRSTRLEN);
}

/* The one active server that has an address of ours; an address that several have (of bridges of containers, say) tells nothing. */
static struct err *match(const json_t *servers, const struct ifaddrs *all, char **ret_id)
{
    for (const struct ifaddrs *i = all; i; i = i->ifa_next) {
        char text[INET6_ADDRSTRLEN], id[OS_ID_SIZE];
        size_t n = 0;

        if (!address_text(i, text))
            continue;
        TRY(os_servers_match(servers, text, id, &n));
        if (n != 1)
            continue;
        if (*ret_id && !streq(*ret_id, id))
            return err_new(ERR_CONFLICT,
                           "this node's addresses are those of the servers %s and %s: set "
                           "compute_instance_id",
                           *ret_id, id);
        if (!*ret_id)
            *ret_id = xstrdup(id);
    }
    return NULL;
}

static struct err *from_addresses(struct openstack *o, char **ret_id)
{
    struct ifaddrs *all = NULL;
    json_t *servers = NULL;

    TRY(ask_nova(o, &servers));
    struct err *e = getifaddrs(&all) < 0 ? err_errno(errno, "cannot read this node's addresses")
                                         : match(servers, all, ret_id);

    freeifaddrs(all);
    json_decref(servers);
    if (e && *ret_id)
        mem_freep(ret_id);
    return e;
}

/* ---- all ---- */

struct err *os_instance_find(struct openstack *o, char **ret_id)
{
    const char *told = driver_option_string(o->options, "compute_instance_id", NULL);
    CLEANUP_FREE char *id = NULL;
    struct err *e;

    if (told) {
        if (!os_id_is_sane(told))
            return err_new(ERR_INVALID, "compute_instance_id '%.60s' cannot be the id of a server",
                           told);
        *ret_id = xstrdup(told);
        return NULL;
    }
    e = from_drive(o, &id);
    if (e)
        log_warning("%s", e->text);
    e = err_free(e);
    if (!id)
        e = from_service(o, &id);
    if (e)
        log_debug("%s", e->text);
    err_free(e);
    if (!id)
        TRY(err_wrap(from_addresses(o, &id), "Could not find valid instance ID for this node"));
    if (!id)
        return err_new(
            ERR_UNAVAILABLE,
            "Could not find valid instance ID for this node: there is no config drive, "
            "the metadata service is out of reach, and no active server of the project "
            "has an address of this node. Set compute_instance_id, or attach: cinder for "
            "a host that is no server of Nova's");
    *ret_id = steal(&id);
    return NULL;
}
