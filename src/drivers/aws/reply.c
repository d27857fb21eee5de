#include "drivers/aws/reply.h"

#include "base/str.h"
#include "drivers/aws/xml.h"

#include <inttypes.h>
#include <stdio.h>

#define GIB (1ull << 30)
#define SIZE_GIB_MAX (1u << 20) /* 1 PiB; EBS stops at 64 TiB today */

/* ---- names of states ---- */

static const char *const volume_names[] = {
    [AWS_VOLUME_CREATING] = "creating", [AWS_VOLUME_AVAILABLE] = "available",
    [AWS_VOLUME_IN_USE] = "in-use",     [AWS_VOLUME_DELETING] = "deleting",
    [AWS_VOLUME_DELETED] = "deleted",   [AWS_VOLUME_ERROR] = "error",
    [AWS_VOLUME_UNKNOWN] = "unknown",
};
static const char *const attachment_names[] = {
    [AWS_ATTACHING] = "attaching",  [AWS_ATTACHED] = "attached",
    [AWS_DETACHING] = "detaching",  [AWS_DETACHED] = "detached",
    [AWS_ATTACHMENT_BUSY] = "busy", [AWS_ATTACHMENT_UNKNOWN] = "unknown",
};

const char *aws_volume_status_name(enum aws_volume_status s)
{
    return volume_names[s];
}

const char *aws_attachment_status_name(enum aws_attachment_status s)
{
    return attachment_names[s];
}

/* The index of the name; the last one when there is no such name. */
static size_t index_of(const char *const *names, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++) {
        if (streq(names[i], name))
            return i;
    }
    return n - 1;
}

/* ---- fields ---- */

static bool is_text(const char *s)
{
    for (; *s; s++) {
        if (*s < 0x21 || *s > 0x7e)
            return false;
    }
    return true;
}

/* A short field without blanks; an absent one is "". */
static struct err *field(const struct xml *of, const char *name, char *ret, size_t size)
{
    const char *text = xml_text(of, name);

    if (strlen(text) >= size || !is_text(text))
        return err_new(ERR_CORRUPT, "EC2 sent a %s that cannot be one", name);
    memcpy(ret, text, strlen(text) + 1);
    return NULL;
}

static bool is_id(const char *s, const char *prefix)
{
    return str_has_prefix(s, prefix) && s[strlen(prefix)] &&
           s[strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789-")] == '\0';
}

static struct err *id_field(const struct xml *of, const char *name, const char *prefix,
                            char ret[AWS_ID_SIZE])
{
    TRY(field(of, name, ret, AWS_ID_SIZE));
    return is_id(ret, prefix) ? NULL
                              : err_new(ERR_CORRUPT, "EC2 sent a %s that cannot be one", name);
}

static struct err *size_field(const struct xml *of, const char *name, uint64_t *ret_bytes)
{
    const char *text = xml_text(of, name);
    size_t n = strspn(text, "0123456789");
    unsigned long gib = n && n < 9 && !text[n] ? strtoul(text, NULL, 10) : 0;

    if (!gib || gib > SIZE_GIB_MAX)
        return err_new(ERR_CORRUPT, "EC2 sent a size that cannot be one");
    *ret_bytes = gib * GIB;
    return NULL;
}

static const char *tag(const struct xml *volume, const char *key)
{
    const struct xml *set = xml_child(volume, "tagSet");

    for (const struct xml *i = set ? set->first : NULL; i; i = i->next) {
        if (streq(xml_text(i, "key"), key))
            return xml_text(i, "value");
    }
    return "";
}

/* Tags are written by people, too: what is no id of ours is none. Flocker 1 made version 4 only. */
static struct uuid tag_id(const struct xml *volume, const char *key)
{
    struct uuid id;

    return uuid_parse_v4(tag(volume, key), &id) ? id : UUID_NIL;
}

/* ---- volumes ---- */

static struct err *read_attachment(const struct xml *x, struct aws_attachment *ret)
{
    const char *status = xml_text(x, "status");

    TRY(field(x, "device", ret->device, sizeof(ret->device)));
    TRY(field(x, "instanceId", ret->instance, sizeof(ret->instance)));
    ret->status = (enum aws_attachment_status)index_of(attachment_names,
                                                       ARRAY_SIZE(attachment_names), status);
    return NULL;
}

static struct err *read_attachments(const struct xml *volume, struct aws_volume *v)
{
    const struct xml *set = xml_child(volume, "attachmentSet");

    for (const struct xml *i = set ? set->first : NULL; i; i = i->next) {
        struct aws_attachment a;

        if (v->n_attachments == AWS_ATTACHMENTS_MAX)
            return err_new(ERR_CORRUPT, "EC2 sent more attachments of %s than there can be", v->id);
        TRY(read_attachment(i, &a));
        if (a.status != AWS_DETACHED)
            v->attachments[v->n_attachments++] = a;
    }
    return NULL;
}

static struct err *read_volume(const struct xml *x, struct aws_volume *v)
{
    *v = (struct aws_volume){0};
    TRY(id_field(x, "volumeId", "vol-", v->id));
    TRY(size_field(x, "size", &v->size));
    TRY(field(x, "availabilityZone", v->zone, sizeof(v->zone)));
    TRY(field(x, "volumeType", v->type, sizeof(v->type)));
    TRY(field(x, "createTime", v->created, sizeof(v->created)));
    v->status = (enum aws_volume_status)index_of(volume_names, ARRAY_SIZE(volume_names),
                                                 xml_text(x, "status"));
    v->cluster = tag_id(x, AWS_TAG_CLUSTER);
    v->dataset = tag_id(x, AWS_TAG_DATASET);
    return read_attachments(x, v);
}

/* For people: printable, short. */
static void copy_text(const char *text, char *ret, size_t size)
{
    size_t n = 0;

    for (; *text && n + 1 < size; text++)
        ret[n++] = *text >= 0x20 && *text < 0x7f ? *text : '?';
    ret[n] = '\0';
}

/* The document, whose outermost element must have this name. */
static struct err *document(const char *bytes, size_t n, const char *name, struct xml **ret_root)
{
    CLEANUP_XML struct xml *root = NULL;

    TRY(xml_parse(bytes, n, &root));
    if (!streq(root->name, name))
        return err_new(ERR_CORRUPT, "EC2 sent a '%.60s' instead of a %s", root->name, name);
    *ret_root = steal(&root);
    return NULL;
}

/* *ret_next NULL: this was the last page. */
static struct err *next_page(const struct xml *root, char **ret_next)
{
    const char *next = xml_text(root, "nextToken");

    if (strlen(next) > AWS_PAGE_TOKEN_MAX)
        return err_new(ERR_CORRUPT, "EC2 sent a token of a page that is too long");
    free(*ret_next);
    *ret_next = *next ? xstrdup(next) : NULL;
    return NULL;
}

void aws_volumes_done(struct aws_volumes *v)
{
    free(v->all);
    free(v->next);
    *v = (struct aws_volumes){0};
}

static struct err *add_volumes(const struct xml *root, struct aws_volumes *v)
{
    const struct xml *set = xml_child(root, "volumeSet");

    if (!set)
        return err_new(ERR_CORRUPT, "EC2 sent a list of volumes without volumeSet");
    for (const struct xml *i = set->first; i; i = i->next) {
        v->all = mem_grow(v->all, v->n, &v->cap, sizeof(*v->all));
        TRY(read_volume(i, &v->all[v->n]));
        v->n++;
    }
    return next_page(root, &v->next);
}

struct err *aws_volumes_parse(const char *bytes, size_t n, struct aws_volumes *v)
{
    CLEANUP_XML struct xml *root = NULL;
    size_t before = v->n;

    TRY(document(bytes, n, "DescribeVolumesResponse", &root));
    struct err *e = add_volumes(root, v);

    if (e)
        v->n = before;
    return e;
}

struct err *aws_volume_parse(const char *bytes, size_t n, struct aws_volume *ret_volume)
{
    CLEANUP_XML struct xml *root = NULL;
    struct aws_volume v;

    TRY(document(bytes, n, "CreateVolumeResponse", &root));
    TRY(read_volume(root, &v));
    *ret_volume = v;
    return NULL;
}

/* ---- instances ---- */

void aws_instances_done(struct aws_instances *i)
{
    free(i->all);
    free(i->next);
    *i = (struct aws_instances){0};
}

static struct err *add_instances(const struct xml *reservation, struct aws_instances *to)
{
    const struct xml *set = xml_child(reservation, "instancesSet");

    for (const struct xml *x = set ? set->first : NULL; x; x = x->next) {
        to->all = mem_grow(to->all, to->n, &to->cap, sizeof(*to->all));
        struct aws_instance *i = &to->all[to->n];

        TRY(id_field(x, "instanceId", "i-", i->id));
        TRY(field(xml_child(x, "instanceState"), "name", i->state, sizeof(i->state)));
        i->off = streq(i->state, "stopped") || streq(i->state, "terminated");
        to->n++;
    }
    return NULL;
}

static struct err *add_reservations(const struct xml *root, struct aws_instances *to)
{
    const struct xml *set = xml_child(root, "reservationSet");

    /* An answer without the list must not look like "nobody is alive". */
    if (!set)
        return err_new(ERR_CORRUPT, "EC2 sent a list of instances without reservationSet");
    for (const struct xml *r = set->first; r; r = r->next)
        TRY(add_instances(r, to));
    return next_page(root, &to->next);
}

struct err *aws_instances_parse(const char *bytes, size_t n, struct aws_instances *to)
{
    CLEANUP_XML struct xml *root = NULL;
    size_t before = to->n;

    TRY(document(bytes, n, "DescribeInstancesResponse", &root));
    struct err *e = add_reservations(root, to);

    if (e)
        to->n = before;
    return e;
}

/* ---- changes of volumes ---- */

static struct err *read_modification(const struct xml *x, struct aws_modification *m)
{
    TRY(field(x, "modificationState", m->state, sizeof(m->state)));
    if (!*m->state)
        return err_new(ERR_CORRUPT, "EC2 sent a change of a volume without its state");
    copy_text(xml_text(x, "statusMessage"), m->message, sizeof(m->message));
    m->failed = streq(m->state, "failed");
    m->ended = m->failed || streq(m->state, "completed");
    return size_field(x, "targetSize", &m->target_size);
}

struct err *aws_modification_parse(const char *bytes, size_t n,
                                   struct aws_modification *ret_modification)
{
    CLEANUP_XML struct xml *root = NULL;
    struct aws_modification m = {.ended = true};

    TRY(document(bytes, n, "DescribeVolumesModificationsResponse", &root));
    const struct xml *set = xml_child(root, "volumeModificationSet");

    if (!set)
        return err_new(ERR_CORRUPT, "EC2 sent a list of changes without volumeModificationSet");
    if (set->first)
        TRY(read_modification(set->first, &m));
    *ret_modification = m;
    return NULL;
}

/* ---- zones ---- */

struct err *aws_zones_parse(const char *bytes, size_t n, char **ret_names)
{
    CLEANUP_XML struct xml *root = NULL;
    CLEANUP_STR struct str names = {0};
    char name[AWS_NAME_SIZE];

    TRY(document(bytes, n, "DescribeAvailabilityZonesResponse", &root));
    const struct xml *set = xml_child(root, "availabilityZoneInfo");

    for (const struct xml *i = set ? set->first : NULL; i; i = i->next) {
        TRY(field(i, "zoneName", name, sizeof(name)));
        str_appendf(&names, "%s ", name);
    }
    *ret_names = str_steal(&names);
    return NULL;
}

/* ---- errors ---- */

static const struct {
    const char *code;
    enum aws_failure_kind kind;
} codes[] = {
    {"RequestLimitExceeded", AWS_THROTTLED},
    {"Throttling", AWS_THROTTLED},
    {"ThrottlingException", AWS_THROTTLED},
    {"RequestThrottled", AWS_THROTTLED},
    {"RequestThrottledException", AWS_THROTTLED},
    {"EC2ThrottledException", AWS_THROTTLED},
    {"SnapshotCreationPerVolumeRateExceeded", AWS_THROTTLED},
    {"InternalError", AWS_TROUBLE},
    {"InternalFailure", AWS_TROUBLE},
    {"ServiceUnavailable", AWS_TROUBLE},
    {"Unavailable", AWS_TROUBLE},
    {"Server.InternalError", AWS_TROUBLE},
    {"InvalidVolume.NotFound", AWS_NOT_FOUND},
    {"InvalidVolumeModification.NotFound", AWS_NOT_FOUND},
    {"InvalidAttachment.NotFound", AWS_NOT_FOUND},
    {"InvalidInstanceID.NotFound", AWS_NOT_FOUND},
    {"IncorrectState", AWS_WRONG_STATE},
    {"IncorrectInstanceState", AWS_WRONG_STATE},
    {"InvalidVolume.ZoneMismatch", AWS_REFUSED},
    {"VolumeInUse", AWS_IN_USE},
    {"InvalidDevice.InUse", AWS_DEVICE_TAKEN},
    {"AttachmentLimitExceeded", AWS_LIMIT},
    {"VolumeLimitExceeded", AWS_LIMIT},
    {"MaxIOPSLimitExceeded", AWS_LIMIT},
    {"TagLimitExceeded", AWS_LIMIT},
    {"IncorrectModificationState", AWS_TOO_SOON},
    {"VolumeModificationRateExceeded", AWS_TOO_SOON},
    {"InsufficientVolumeCapacity", AWS_NO_CAPACITY},
    {"AuthFailure", AWS_CREDENTIALS},
    {"ExpiredToken", AWS_CREDENTIALS},
    {"ExpiredTokenException", AWS_CREDENTIALS},
    {"InvalidClientTokenId", AWS_CREDENTIALS},
    {"IncompleteSignature", AWS_CREDENTIALS},
    {"MissingAuthenticationToken", AWS_CREDENTIALS},
    {"RequestExpired", AWS_CREDENTIALS},
    {"SignatureDoesNotMatch", AWS_CREDENTIALS},
    {"UnrecognizedClientException", AWS_CREDENTIALS},
    {"AccessDenied", AWS_FORBIDDEN},
    {"Blocked", AWS_FORBIDDEN},
    {"OptInRequired", AWS_FORBIDDEN},
    {"PendingVerification", AWS_FORBIDDEN},
    {"UnauthorizedOperation", AWS_FORBIDDEN},
    {"IdempotentParameterMismatch", AWS_TOKEN_MISMATCH},
    {"InvalidParameter", AWS_REFUSED},
    {"InvalidParameterCombination", AWS_REFUSED},
    {"InvalidParameterDependency", AWS_REFUSED},
    {"InvalidParameterValue", AWS_REFUSED},
    {"InvalidZone.NotFound", AWS_REFUSED},
    {"MissingParameter", AWS_REFUSED},
    {"UnknownParameter", AWS_REFUSED},
    {"UnknownVolumeType", AWS_REFUSED},
    {"UnsupportedOperation", AWS_REFUSED},
};

static enum aws_failure_kind classify(int status, const struct aws_failure *f)
{
    /* EC2 has no code of its own for it; the text is all there is. */
    if (streq(f->code, "InvalidParameterValue") && strstr(f->message, "already in use"))
        return AWS_DEVICE_TAKEN;
    for (size_t i = 0; i < ARRAY_SIZE(codes); i++) {
        if (streq(codes[i].code, f->code))
            return codes[i].kind;
    }
    if (status == 429)
        return AWS_THROTTLED;
    return status >= 500 ? AWS_TROUBLE : AWS_FAILED;
}

struct aws_failure aws_failure_parse(int status, const char *bytes, size_t n)
{
    CLEANUP_XML struct xml *root = NULL;
    CLEANUP_ERR struct err *e = xml_parse(bytes ? bytes : "", n, &root);
    const struct xml *error = xml_child(xml_child(root, "Errors"), "Error");
    const char *id = xml_text(root, "RequestID");
    struct aws_failure f = {0};

    copy_text(xml_text(error, "Code"), f.code, sizeof(f.code));
    copy_text(xml_text(error, "Message"), f.message, sizeof(f.message));
    copy_text(*id ? id : xml_text(root, "RequestId"), f.request_id, sizeof(f.request_id));
    f.kind = classify(status, &f);
    if (!*f.code)
        (void)snprintf(f.code, sizeof(f.code), "HTTP status %d", status);
    return f;
}

static const struct {
    enum err_code code;
    const char *advice; /* "" or ends the sentence */
} meanings[AWS_FAILURE_KIND_MAX] = {
    [AWS_FAILED] = {ERR_IO, ""},
    [AWS_THROTTLED] = {ERR_UNAVAILABLE,
                       "; the account makes too many calls at the moment, it is tried again"},
    [AWS_TROUBLE] = {ERR_UNAVAILABLE, "; it is tried again"},
    [AWS_NOT_FOUND] = {ERR_NOT_FOUND, ""},
    [AWS_WRONG_STATE] = {ERR_CONFLICT, ""},
    [AWS_IN_USE] = {ERR_BUSY, ""},
    [AWS_DEVICE_TAKEN] = {ERR_BUSY, ""},
    [AWS_LIMIT] = {ERR_TOO_MANY, "; detach or delete volumes, or ask AWS for a higher limit"},
    [AWS_TOO_SOON] = {ERR_TOO_MANY, "; the next change can be some hours after the last one"},
    [AWS_NO_CAPACITY] = {ERR_NO_SPACE,
                         "; the zone has no room for such a volume now, another volume_type may"},
    [AWS_CREDENTIALS] = {ERR_DENIED, "; check the access key and this machine's clock"},
    [AWS_FORBIDDEN] = {ERR_DENIED, "; the access key or role needs the permission for it"},
    [AWS_TOKEN_MISMATCH] = {ERR_EXISTS, ""},
    [AWS_REFUSED] = {ERR_INVALID, ""},
};

struct err *aws_failure_err(const struct aws_failure *f, const char *what)
{
    return err_new(meanings[f->kind].code, "%s: EC2 says %s%s%s%s%s%s%s", what, f->code,
                   *f->message ? ": " : "", f->message, *f->request_id ? " (request " : "",
                   f->request_id, *f->request_id ? ")" : "", meanings[f->kind].advice);
}
