#include "drivers/xtremio/xms.h"

#include "base/log.h"
#include "base/now.h"
#include "base/str.h"
#include "drivers/json_http.h"
#include "drivers/wait.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>

#define BASE "/api/json/v2/types/"
#define MIB (1024u * 1024u)
#define LIST_MAX (32u << 20) /* thousands of volumes with their maps */
#define BUSY_PAUSE_S 5u      /* as the array's makers have it */

struct xms {
    struct http_client *http;
    struct budget *budget;
    char *base; /* https://HOST/api/json/v2/types/ */
    char *authorization;
    char *cluster; /* NULL: not yet known */
};

struct err *xms_new(struct http_client *http, struct budget *budget, const char *address,
                    const char *user, const char *password, struct xms **ret_xms)
{
    if (!*address || address[strspn(address, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                             "0123456789.-:[]")])
        return err_new(ERR_INVALID,
                       "Configuration error: xms_ip must be a host or an address, with a port or "
                       "without, not '%s'",
                       address);
    if (strchr(user, ':'))
        return err_new(ERR_INVALID, "Configuration error: xms_user must be without ':'");
    struct xms *x = xcalloc(1, sizeof(*x));

    x->http = http;
    x->budget = budget;
    x->base = xasprintf("https://%s" BASE, address);
    x->authorization = json_http_basic(user, password);
    *ret_xms = x;
    return NULL;
}

struct xms *xms_free(struct xms *x)
{
    if (!x)
        return NULL;
    explicit_bzero(x->authorization, strlen(x->authorization));
    free(x->authorization);
    free(x->base);
    free(x->cluster);
    free(x);
    return NULL;
}

void xms_set_cluster(struct xms *x, const char *name)
{
    free(x->cluster);
    x->cluster = xstrdup(name);
}

struct xms_try xms_try_for(unsigned seconds)
{
    return (struct xms_try){.deadline_us = now_os().mono_us + seconds * (uint64_t)USEC_PER_SEC};
}

/* ---- one call ---- */

static void query_add(struct str *url, const char *name, const char *value)
{
    str_appendf(url, "%c%s=", strchr(url->data, '?') ? '&' : '?', name);
    for (const char *c = value; *c; c++) {
        if (isalnum((unsigned char)*c) || strchr("-_.~", *c))
            str_append_bytes(url, c, 1);
        else
            str_appendf(url, "%%%02X", (unsigned char)*c);
    }
}

struct request {
    const char *method, *kind; /* "GET", "volumes" */
    const char *name;          /* of the one that is meant; NULL */
    const char *const *query;  /* names and values by turns, ends with NULL; may be NULL */
    json_t *body;              /* NULL: none; goes with the call */
    const char *what;          /* begins errors */
};

/* The cluster is named in the query of what reads and deletes, in the body of what changes. */
static char *url_of(const struct xms *x, const struct request *r)
{
    struct str url = {0};

    str_appendf(&url, "%s%s", x->base, r->kind);
    if (r->name)
        query_add(&url, "name", r->name);
    for (const char *const *q = r->query; q && *q; q += 2)
        query_add(&url, q[0], q[1]);
    if (x->cluster && !r->body)
        query_add(&url, "cluster-name", x->cluster);
    return str_steal(&url);
}

static struct err *send_once(struct xms *x, struct xms_try *t, const struct request *r,
                             const char *url, struct json_http_answer *ret)
{
    const char *const headers[] = {x->authorization, NULL};
    CLEANUP_JSON_HTTP_ANSWER struct json_http_answer a = {0};

    t->kind = XTREMIO_TROUBLE;
    TRY(json_http_sync(x->http,
                       &(struct json_http_call){.what = r->what,
                                                .method = r->method,
                                                .url = url,
                                                .headers = headers,
                                                .body = r->body,
                                                .answer_max = LIST_MAX,
                                                .deadline_us = t->deadline_us,
                                                .budget = x->budget},
                       &a));
    if (a.status >= 200 && a.status < 300) {
        *ret = a;
        a = (struct json_http_answer){0};
        return NULL;
    }
    struct xtremio_failure f = xtremio_failure_parse(a.status, a.body);

    t->kind = f.kind;
    return xtremio_failure_err(&f, r->what);
}

static struct err *call(struct xms *x, struct xms_try *t, const struct request *r,
                        struct json_http_answer *ret)
{
    CLEANUP_FREE char *url = url_of(x, r);
    struct retry again = {.deadline_us = t->deadline_us};
    struct err *e;

    if (r->body && x->cluster)
        (void)json_object_set_new(r->body, "cluster-id", json_string(x->cluster));
    while ((e = send_once(x, t, r, url, ret)) && t->kind == XTREMIO_ARRAY_BUSY &&
           retry_pause(&again, BUSY_PAUSE_S)) {
        log_debug("%s: again", e->text);
        err_free(e);
    }
    json_decref(r->body);
    return e;
}

/* ---- what is ---- */

struct err *xms_clusters_sync(struct xms *x, struct xms_try *t, char **ret_names)
{
    static const char what[] = "cannot list the clusters of the array (it needs XMS 4.0 or newer)";
    CLEANUP_JSON_HTTP_ANSWER struct json_http_answer a = {0};

    TRY(call(x, t, &(struct request){.method = "GET", .kind = "clusters", .what = what}, &a));
    return err_wrap(xtremio_clusters_parse(a.body, ret_names), what);
}

struct err *xms_volumes_sync(struct xms *x, struct xms_try *t, struct xtremio_volumes *ret_volumes)
{
    static const char what[] = "cannot list the volumes";
    static const char *const query[] = {"full", "1",        "prop", "name",
                                        "prop", "index",    "prop", "vol-size",
                                        "prop", "naa-name", "prop", "lun-mapping-list",
                                        "prop", "tag-list", NULL};
    CLEANUP_JSON_HTTP_ANSWER struct json_http_answer a = {0};

    TRY(call(x, t,
             &(struct request){.method = "GET", .kind = "volumes", .query = query, .what = what},
             &a));
    return err_wrap(xtremio_volumes_parse(a.body, ret_volumes), what);
}

struct err *xms_volume_sync(struct xms *x, struct xms_try *t, const char *name,
                            struct xtremio_volume *ret_volume, bool *ret_found)
{
    CLEANUP_JSON_HTTP_ANSWER struct json_http_answer a = {0};
    CLEANUP_FREE char *what = xasprintf("cannot look at volume %s", name);
    struct err *e =
        call(x, t,
             &(struct request){.method = "GET", .kind = "volumes", .name = name, .what = what}, &a);

    if (e && t->kind == XTREMIO_NOT_FOUND) {
        *ret_found = false;
        return err_free(e);
    }
    TRY(e);
    TRY(err_wrap(xtremio_volume_parse(a.body, ret_volume), "%s", what));
    *ret_found = true;
    return NULL;
}

struct err *xms_luns_sync(struct xms *x, struct xms_try *t, const char *group, bool *used)
{
    CLEANUP_FREE char *filter = xasprintf("ig-name:eq:%s", group);
    CLEANUP_FREE char *what = xasprintf("cannot list the LUNs of initiator group %s", group);
    const char *const query[] = {"full", "1", "prop", "lun", "filter", filter, NULL};
    CLEANUP_JSON_HTTP_ANSWER struct json_http_answer a = {0};

    TRY(call(x, t,
             &(struct request){.method = "GET", .kind = "lun-maps", .query = query, .what = what},
             &a));
    return err_wrap(xtremio_luns_parse(a.body, used), "%s", what);
}

struct err *xms_initiators_sync(struct xms *x, struct xms_try *t,
                                struct xtremio_initiators *ret_initiators)
{
    static const char what[] = "cannot list the initiators";
    static const char *const query[] = {"full",         "1",    "prop",  "name", "prop",
                                        "port-address", "prop", "ig-id", NULL};
    CLEANUP_JSON_HTTP_ANSWER struct json_http_answer a = {0};

    TRY(call(x, t,
             &(struct request){.method = "GET", .kind = "initiators", .query = query, .what = what},
             &a));
    return err_wrap(xtremio_initiators_parse(a.body, ret_initiators), what);
}

struct err *xms_targets_sync(struct xms *x, struct xms_try *t, enum xtremio_protocol protocol,
                             struct xtremio_targets *ret_targets)
{
    static const char what[] = "cannot list the array's ports";
    static const char *const query[] = {"full", "1", NULL};
    CLEANUP_JSON_HTTP_ANSWER struct json_http_answer a = {0};
    bool fc = protocol == XTREMIO_FC;

    TRY(call(x, t,
             &(struct request){.method = "GET",
                               .kind = fc ? "targets" : "iscsi-portals",
                               .query = query,
                               .what = what},
             &a));
    return err_wrap(fc ? xtremio_targets_parse(a.body, ret_targets)
                       : xtremio_portals_parse(a.body, ret_targets),
                    what);
}

/* ---- changes ---- */

/* A change of which the answer says nothing that is not looked at afterwards. */
static struct err *change(struct xms *x, struct xms_try *t, const struct request *r)
{
    CLEANUP_JSON_HTTP_ANSWER struct json_http_answer a = {0};

    return call(x, t, r, &a);
}

struct err *xms_volume_create_sync(struct xms *x, struct xms_try *t, const char *name,
                                   uint64_t size)
{
    CLEANUP_FREE char *what = xasprintf("cannot create volume %s", name);
    CLEANUP_FREE char *mib = xasprintf("%" PRIu64 "m", size / MIB);

    return change(
        x, t,
        &(struct request){.method = "POST",
                          .kind = "volumes",
                          .body = json_pack("{s:s, s:s}", "vol-name", name, "vol-size", mib),
                          .what = what});
}

struct err *xms_volume_grow_sync(struct xms *x, struct xms_try *t, const char *name, uint64_t size)
{
    CLEANUP_FREE char *what = xasprintf("cannot make volume %s larger", name);
    CLEANUP_FREE char *mib = xasprintf("%" PRIu64 "m", size / MIB);

    return change(x, t,
                  &(struct request){.method = "PUT",
                                    .kind = "volumes",
                                    .name = name,
                                    .body = json_pack("{s:s}", "vol-size", mib),
                                    .what = what});
}

struct err *xms_volume_delete_sync(struct xms *x, struct xms_try *t, const char *name)
{
    CLEANUP_FREE char *what = xasprintf("cannot delete volume %s", name);

    return change(
        x, t, &(struct request){.method = "DELETE", .kind = "volumes", .name = name, .what = what});
}

struct err *xms_map_sync(struct xms *x, struct xms_try *t, const char *volume, const char *group,
                         unsigned lun)
{
    CLEANUP_FREE char *what =
        xasprintf("cannot map volume %s to initiator group %s as LUN %u", volume, group, lun);

    return change(x, t,
                  &(struct request){.method = "POST",
                                    .kind = "lun-maps",
                                    .body = json_pack("{s:s, s:s, s:i}", "vol-id", volume, "ig-id",
                                                      group, "lun", (int)lun),
                                    .what = what});
}

struct err *xms_unmap_sync(struct xms *x, struct xms_try *t, const struct xtremio_volume *v,
                           const struct xtremio_map *m)
{
    CLEANUP_FREE char *what =
        xasprintf("cannot unmap volume %s from initiator group %s", v->name, m->group);
    CLEANUP_FREE char *name = xasprintf("%u_%u_%u", v->index, m->group_index, m->target_index);

    return change(
        x, t,
        &(struct request){.method = "DELETE", .kind = "lun-maps", .name = name, .what = what});
}

struct err *xms_group_create_sync(struct xms *x, struct xms_try *t, const char *name)
{
    CLEANUP_FREE char *what = xasprintf("cannot create initiator group %s", name);

    return change(x, t,
                  &(struct request){.method = "POST",
                                    .kind = "initiator-groups",
                                    .body = json_pack("{s:s}", "ig-name", name),
                                    .what = what});
}

struct err *xms_initiator_create_sync(struct xms *x, struct xms_try *t, const char *name,
                                      const char *port, const char *group)
{
    CLEANUP_FREE char *what = xasprintf("cannot add %s to initiator group %s", port, group);

    return change(x, t,
                  &(struct request){.method = "POST",
                                    .kind = "initiators",
                                    .body = json_pack("{s:s, s:s, s:s}", "initiator-name", name,
                                                      "ig-id", group, "port-address", port),
                                    .what = what});
}
