#include "drivers/aws/ec2.h"

#include "base/log.h"
#include "base/now.h"
#include "drivers/wait.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>

#define VERSION "2016-11-15"
#define GIB (1ull << 30)
#define PAGE "500"       /* volumes; what EC2 gives at most at once, for filters, is more */
#define PAGES_MAX 10000u /* a token that never ends must not keep us for ever */
#define TRY_US (30 * (uint64_t)USEC_PER_SEC)

struct ec2 {
    char *endpoint, *region;
    struct http_client *http;
    struct aws_credentials *credentials;
    struct budget *budget;
    atomic_uint_fast64_t calls;
};

static bool is_region(const char *s)
{
    return *s && strlen(s) <= 64 && !s[strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-")];
}

struct err *ec2_new(const struct ec2_config *config, struct ec2 **ret_ec2)
{
    if (!is_region(config->region))
        return err_new(ERR_INVALID, "The specified AWS region is not valid. '%s' cannot be one.",
                       config->region);
    if (config->endpoint && !str_has_prefix(config->endpoint, "https://") &&
        !str_has_prefix(config->endpoint, "http://"))
        return err_new(ERR_INVALID, "endpoint must begin with https:// or http://, not %s",
                       config->endpoint);
    struct ec2 *e = xcalloc(1, sizeof(*e));

    e->region = xstrdup(config->region);
    e->endpoint = config->endpoint ? xstrdup(config->endpoint)
                                   : xasprintf("https://ec2.%s.amazonaws.com%s/", config->region,
                                               str_has_prefix(config->region, "cn-") ? ".cn" : "");
    e->http = config->http;
    e->credentials = config->credentials;
    e->budget = config->budget;
    *ret_ec2 = e;
    return NULL;
}

struct ec2 *ec2_free(struct ec2 *e)
{
    if (!e)
        return NULL;
    free(e->endpoint);
    free(e->region);
    free(e);
    return NULL;
}

uint64_t ec2_calls(const struct ec2 *e)
{
    return atomic_load(&e->calls);
}

/* ---- forms ---- */

static void form_add(struct str *form, const char *name, const char *value)
{
    str_appendf(form, "%s%s=", form->len ? "&" : "", name);
    for (const char *c = value; *c; c++) {
        if (isalnum((unsigned char)*c) || strchr("-_.~", *c))
            str_append_bytes(form, c, 1);
        else
            str_appendf(form, "%%%02X", (unsigned char)*c);
    }
}

static void form_add_number(struct str *form, const char *name, uint64_t value)
{
    char text[24];

    (void)snprintf(text, sizeof(text), "%" PRIu64, value);
    form_add(form, name, text);
}

static void form_begin(struct str *form, const char *action)
{
    form_add(form, "Action", action);
    form_add(form, "Version", VERSION);
}

static void form_add_filters(struct str *form, const struct ec2_filter *filters)
{
    char name[48];

    for (unsigned i = 1; filters && filters[i - 1].name; i++) {
        (void)snprintf(name, sizeof(name), "Filter.%u.Name", i);
        form_add(form, name, filters[i - 1].name);
        (void)snprintf(name, sizeof(name), "Filter.%u.Value.1", i);
        form_add(form, name, filters[i - 1].value);
    }
}

/* ---- one call ---- */

static struct err *send_once(struct ec2 *e, const struct aws_keys *keys, const struct str *form,
                             uint64_t timeout_us, struct http_answer *ret)
{
    const struct http_sign sign = {
        .region = e->region, .service = "ec2", .key_id = keys->id, .secret = keys->secret};
    char *token = keys->token ? xasprintf("X-Amz-Security-Token: %s", keys->token) : NULL;
    const char *const headers[] = {"Content-Type: application/x-www-form-urlencoded; charset=utf-8",
                                   token, NULL};
    struct err *err = http_client_call_sync(e->http,
                                            &(struct http_call){.method = "POST",
                                                                .url = e->endpoint,
                                                                .headers = headers,
                                                                .body = form->data,
                                                                .body_size = form->len,
                                                                .sign = &sign,
                                                                .timeout_us = timeout_us},
                                            ret);

    if (token)
        explicit_bzero(token, strlen(token));
    free(token);
    atomic_fetch_add(&e->calls, 1);
    return err;
}

struct attempt {
    const struct str *form;
    const char *what;
    struct retry retry;
    unsigned refused; /* keys that were not accepted */
    unsigned pause_s; /* what EC2 asks for */
    bool again;       /* may be tried again */
};

static struct err *attempt_once(struct ec2 *e, struct ec2_try *t, struct attempt *a,
                                struct http_answer *ret)
{
    CLEANUP_HTTP_ANSWER struct http_answer answer = {0};
    CLEANUP_AWS_KEYS struct aws_keys keys = {0};

    t->kind = AWS_CREDENTIALS;
    a->again = false;
    a->pause_s = 0;
    TRY(err_wrap(aws_credentials_get_sync(e->credentials, &keys), "%s", a->what));
    t->kind = AWS_TROUBLE;
    TRY(err_wrap(budget_take_sync(e->budget, a->retry.deadline_us, /* cancel= */ NULL), "%s", a->what));
    struct err *err = send_once(e, &keys, a->form, retry_time_us(&a->retry, TRY_US), &answer);

    if (err) {
        a->again = err->code == ERR_TIMEOUT || err->code == ERR_UNAVAILABLE;
        return err_wrap(err, "%s", a->what);
    }
    if (answer.status == 200) {
        *ret = answer;
        answer = (struct http_answer){0};
        return NULL;
    }
    struct aws_failure f = aws_failure_parse(answer.status, answer.body.data, answer.body.len);

    t->kind = f.kind;
    a->pause_s = answer.retry_after_s;
    a->again = f.kind == AWS_THROTTLED || f.kind == AWS_TROUBLE;
    if (f.kind == AWS_THROTTLED)
        budget_throttled(e->budget, a->pause_s * (uint64_t)USEC_PER_SEC);
    if (f.kind == AWS_CREDENTIALS) {
        /* They may have ended early: once with new ones. */
        aws_credentials_refused(e->credentials, &keys);
        a->again = !a->refused++;
    }
    return aws_failure_err(&f, a->what);
}

static struct err *call(struct ec2 *e, struct ec2_try *t, const struct str *form, const char *what,
                        struct http_answer *ret)
{
    struct attempt a = {
        .form = form, .what = what, .retry = {.deadline_us = t->deadline_us}};

    for (;;) {
        struct err *err = attempt_once(e, t, &a, ret);

        if (!err || !a.again || !retry_pause(&a.retry, a.pause_s))
            return err;
        log_debug("again: %s", err->text);
        err_free(err);
    }
}

/* ---- what is ---- */

typedef struct err *page_fn(const char *bytes, size_t n, void *to);

/* Calls for pages until there are no more; *next is where `take` puts the token. */
static struct err *call_pages(struct ec2 *e, struct ec2_try *t, const struct str *form,
                              const char *what, page_fn *take, void *to, char **next)
{
    for (unsigned page = 0; page < PAGES_MAX; page++) {
        CLEANUP_HTTP_ANSWER struct http_answer a = {0};
        CLEANUP_STR struct str this = {0};

        str_append(&this, form->data);
        if (page)
            form_add(&this, "NextToken", *next);
        TRY(call(e, t, &this, what, &a));
        t->kind = AWS_TROUBLE;
        TRY(err_wrap(take(a.body.data ? a.body.data : "", a.body.len, to), "%s", what));
        if (!*next)
            return NULL;
    }
    return err_new(ERR_CORRUPT, "%s: EC2 sends page after page, over %u", what, PAGES_MAX);
}

static struct err *take_volumes(const char *bytes, size_t n, void *to)
{
    return aws_volumes_parse(bytes, n, to);
}

struct err *ec2_volumes_sync(struct ec2 *e, struct ec2_try *t, const char *id,
                             const struct ec2_filter *filters, struct aws_volumes *v)
{
    CLEANUP_STR struct str form = {0};

    form_begin(&form, "DescribeVolumes");
    form_add_filters(&form, filters);
    if (id)
        form_add(&form, "VolumeId.1", id);
    else
        form_add(&form, "MaxResults", PAGE);
    return call_pages(e, t, &form, "cannot look at the volumes", take_volumes, v, &v->next);
}

static struct err *take_instances(const char *bytes, size_t n, void *to)
{
    return aws_instances_parse(bytes, n, to);
}

struct err *ec2_instance_sync(struct ec2 *e, struct ec2_try *t, const char *instance,
                              struct aws_instances *i)
{
    const struct ec2_filter one[] = {{"instance-id", instance}, {NULL, NULL}};
    CLEANUP_STR struct str form = {0};

    form_begin(&form, "DescribeInstances");
    form_add_filters(&form, one);
    form_add(&form, "MaxResults", PAGE);
    return call_pages(e, t, &form, "cannot look at the instance", take_instances, i, &i->next);
}

struct err *ec2_modification_sync(struct ec2 *e, struct ec2_try *t, const char *volume,
                                  struct aws_modification *ret_modification)
{
    CLEANUP_HTTP_ANSWER struct http_answer a = {0};
    CLEANUP_STR struct str form = {0};
    struct err *err;

    form_begin(&form, "DescribeVolumesModifications");
    form_add(&form, "VolumeId.1", volume);
    err = call(e, t, &form, "cannot look at the changes of the volume", &a);
    if (err && t->kind == AWS_NOT_FOUND) {
        err_free(err);
        *ret_modification = (struct aws_modification){.ended = true};
        return NULL;
    }
    if (err)
        return err;
    t->kind = AWS_TROUBLE;
    return aws_modification_parse(a.body.data ? a.body.data : "", a.body.len, ret_modification);
}

struct err *ec2_zones_sync(struct ec2 *e, struct ec2_try *t, char **ret_names)
{
    CLEANUP_HTTP_ANSWER struct http_answer a = {0};
    CLEANUP_STR struct str form = {0};

    form_begin(&form, "DescribeAvailabilityZones");
    TRY(call(e, t, &form, "cannot list the zones", &a));
    return aws_zones_parse(a.body.data ? a.body.data : "", a.body.len, ret_names);
}

/* ---- changes ---- */

static void form_add_tags(struct str *form, const struct ec2_filter *tags)
{
    char name[64];

    form_add(form, "TagSpecification.1.ResourceType", "volume");
    for (unsigned i = 1; tags[i - 1].name; i++) {
        (void)snprintf(name, sizeof(name), "TagSpecification.1.Tag.%u.Key", i);
        form_add(form, name, tags[i - 1].name);
        (void)snprintf(name, sizeof(name), "TagSpecification.1.Tag.%u.Value", i);
        form_add(form, name, tags[i - 1].value);
    }
}

struct err *ec2_create_sync(struct ec2 *e, struct ec2_try *t, const struct ec2_new_volume *how,
                            struct aws_volume *ret_volume)
{
    CLEANUP_HTTP_ANSWER struct http_answer a = {0};
    CLEANUP_STR struct str form = {0};

    form_begin(&form, "CreateVolume");
    form_add(&form, "AvailabilityZone", how->zone);
    form_add_number(&form, "Size", how->size / GIB);
    form_add(&form, "VolumeType", how->type);
    if (how->iops)
        form_add_number(&form, "Iops", how->iops);
    if (how->throughput)
        form_add_number(&form, "Throughput", how->throughput);
    if (how->encrypted)
        form_add(&form, "Encrypted", "true");
    if (how->kms_key_id)
        form_add(&form, "KmsKeyId", how->kms_key_id);
    form_add(&form, "ClientToken", how->client_token);
    form_add_tags(&form, how->tags);
    TRY(call(e, t, &form, "cannot create a volume", &a));
    t->kind = AWS_TROUBLE;
    return aws_volume_parse(a.body.data ? a.body.data : "", a.body.len, ret_volume);
}

/* A change of which the answer says nothing that is not looked at afterwards. */
static struct err *change(struct ec2 *e, struct ec2_try *t, const struct str *form,
                          const char *verb, const char *volume)
{
    CLEANUP_HTTP_ANSWER struct http_answer a = {0};
    CLEANUP_FREE char *what = xasprintf("cannot %s volume %s", verb, volume);

    return call(e, t, form, what, &a);
}

struct err *ec2_delete_sync(struct ec2 *e, struct ec2_try *t, const char *volume)
{
    CLEANUP_STR struct str form = {0};

    form_begin(&form, "DeleteVolume");
    form_add(&form, "VolumeId", volume);
    return change(e, t, &form, "delete", volume);
}

struct err *ec2_attach_sync(struct ec2 *e, struct ec2_try *t, const char *volume,
                            const char *instance, const char *device)
{
    CLEANUP_STR struct str form = {0};

    form_begin(&form, "AttachVolume");
    form_add(&form, "VolumeId", volume);
    form_add(&form, "InstanceId", instance);
    form_add(&form, "Device", device);
    return change(e, t, &form, "attach", volume);
}

struct err *ec2_detach_sync(struct ec2 *e, struct ec2_try *t, const char *volume,
                            const char *instance)
{
    CLEANUP_STR struct str form = {0};

    form_begin(&form, "DetachVolume");
    form_add(&form, "VolumeId", volume);
    form_add(&form, "InstanceId", instance);
    return change(e, t, &form, "detach", volume);
}

struct err *ec2_grow_sync(struct ec2 *e, struct ec2_try *t, const char *volume, uint64_t size)
{
    CLEANUP_STR struct str form = {0};

    form_begin(&form, "ModifyVolume");
    form_add(&form, "VolumeId", volume);
    form_add_number(&form, "Size", size / GIB);
    return change(e, t, &form, "enlarge", volume);
}
