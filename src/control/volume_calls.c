#include "control/volume_calls.h"

#include "base/str.h"

#include <time.h>

/* Metadata with the name; they become the dataset's. */
static void copy_metadata(struct metadata *to, const struct volume_call *call)
{
    bool named = metadata_get(&call->metadata, "name") != NULL;
    size_t n = 0;

    to->entries = xcalloc(call->metadata.n + 1, sizeof(*to->entries));
    if (!named)
        to->entries[n++] = (struct metadata_entry){xstrdup("name"), xstrdup(call->name)};
    for (size_t i = 0; i < call->metadata.n; i++) {
        const struct metadata_entry *m = &call->metadata.entries[i];
        to->entries[n++] = (struct metadata_entry){xstrdup(m->key), xstrdup(m->value)};
    }
    to->n = n;
}

void volume_call_command(const struct volume_call *call, uint64_t session, struct command *ret)
{
    static const enum command_kind kinds[VOLUME_CALL_KIND_MAX] = {
        [VOLUME_CREATE] = COMMAND_VOLUME_CREATE,
        [VOLUME_REMOVE] = COMMAND_VOLUME_REMOVE,
        [VOLUME_USE] = COMMAND_VOLUME_USE,
        [VOLUME_UNUSE] = COMMAND_VOLUME_UNUSE,
    };

    *ret = (struct command){
        .kind = kinds[call->kind], .session = session, .dataset_id = call->dataset, .name = call->name, .mount = call->mount};
    if (call->kind != VOLUME_CREATE)
        return;
    ret->dataset = dataset_new(UUID_NIL);
    ret->dataset->maximum_size = call->maximum_size;
    copy_metadata(&ret->dataset->metadata, call);
}

static char *held_text(const struct command_result *r)
{
    time_t t = (time_t)(r->lease.since_us / USEC_PER_SEC);
    char since[32];
    struct tm tm;

    if (!r->lease.since_us || !gmtime_r(&t, &tm) || !strftime(since, sizeof(since), "%Y-%m-%dT%H:%M:%SZ", &tm))
        return xasprintf("the volume is in use: %s", r->text);
    return xasprintf("the volume is in use: %s, since %s", r->text, since);
}

static void fail(struct volume_answer *a, enum volume_code code, char *text)
{
    a->code = code;
    a->text = text;
}

void volume_call_answer(enum volume_call_kind kind, const struct command_result *r, struct volume_answer *ret)
{
    *ret = (struct volume_answer){0};
    switch (r->code) {
    case RESULT_OK:
    case RESULT_CREATED:
        ret->code = r->code == RESULT_OK ? VOLUME_OK : VOLUME_CREATED;
        if (r->dataset)
            ret->dataset = r->dataset->id;
        if (kind == VOLUME_USE) {
            ret->revision = r->lease.revision;
            ret->epoch = r->dataset->epoch;
        }
        return;
    case RESULT_DATASET_NOT_FOUND:
        fail(ret, VOLUME_NOT_FOUND, xstrdup("there is no such volume"));
        return;
    case RESULT_LEASE_HELD:
        fail(ret, VOLUME_HELD, held_text(r));
        return;
    case RESULT_LEASE_RELEASING:
        fail(ret, VOLUME_RELEASING, xstrdup("the volume is just being moved away from this node"));
        return;
    case RESULT_LEASE_FULL:
        fail(ret, VOLUME_INVALID, xasprintf("this node has mounted the volume %u times, or too many volumes", LEASE_MOUNTS_MAX));
        return;
    case RESULT_NODE_FENCED:
        fail(ret, VOLUME_FAILED, xstrdup("an operator has signed that this node is off (flockerctl fence): it may use no volume until "
                                         "it was started anew, or flockerctl unfence"));
        return;
    case RESULT_NODE_REFUSES:
        fail(ret, VOLUME_FAILED, xstrdup("this node obeys another store than the control service has; flocker-agent --adopt says "
                                         "that it may change"));
        return;
    case RESULT_MOUNTS_UNKNOWN:
        fail(ret, VOLUME_FAILED, xstrdup(r->text));
        return;
    case RESULT_STORE_FAILED:
        fail(ret, VOLUME_FAILED, xasprintf("the control service cannot record it: %s", r->text ? r->text : "its store failed"));
        return;
    default:
        fail(ret, VOLUME_FAILED, xstrdup("the control service answered in a way that this version does not know"));
        return;
    }
}
