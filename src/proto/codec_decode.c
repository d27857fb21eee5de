#include "base/bucket.h"
#include "model/validate.h"
#include "proto/codec.h"
#include "proto/codec_wire.h"

#include <stdalign.h>

_Static_assert(VALIDATE_MAX_NAME <= CODEC_MAX_NAME && VALIDATE_MAX_PATH <= CODEC_MAX_PATH &&
                   VALIDATE_MAX_IMAGE + sizeof(":latest") <= CODEC_MAX_IMAGE &&
                   VALIDATE_MAX_VARIABLE <= CODEC_MAX_STRING &&
                   VALIDATE_MAX_VARIABLES <= CODEC_MAX_LIST &&
                   VALIDATE_MAX_COMMAND_LINE <= CODEC_MAX_LIST &&
                   4 * VALIDATE_MAX_COMMAND_LINE <= CODEC_MAX_STRING &&
                   VALIDATE_MAX_USER <= CODEC_MAX_NAME && VALIDATE_MAX_LABEL <= CODEC_MAX_STRING &&
                   VALIDATE_MAX_LABELS <= CODEC_MAX_LIST && VALIDATE_MAX_DEPENDENCIES <= CODEC_MAX_LIST,
               "whatever the REST API accepts, an agent must be able to read");

/* protobuf-c allocates for whatever the bytes ask; this allocator stops at CODEC_MAX_MEMORY, and
 * the unpacking then fails. Each block remembers its size in front of it. */
struct budget {
    ProtobufCAllocator allocator;
    size_t left;
};

#define BLOCK_HEADER alignof(max_align_t)

static void *budget_alloc(void *cookie, size_t size)
{
    struct budget *b = cookie;

    if (size > b->left || b->left - size < BLOCK_HEADER)
        return NULL;
    b->left -= size + BLOCK_HEADER;
    char *block = xmalloc(size + BLOCK_HEADER);
    memcpy(block, &size, sizeof(size));
    return block + BLOCK_HEADER;
}

static void budget_free(void *cookie, void *p)
{
    struct budget *b = cookie;
    size_t size;

    if (!p)
        return;
    char *block = (char *)p - BLOCK_HEADER;
    memcpy(&size, block, sizeof(size));
    b->left += size + BLOCK_HEADER;
    free(block);
}

static struct budget budget_new(void)
{
    return (struct budget){.allocator = {budget_alloc, budget_free, NULL},
                           .left = CODEC_MAX_MEMORY};
}

static struct err *corrupt(const char *field, const char *what)
{
    return err_new(ERR_CORRUPT, "agent link: %s %s", field, what);
}

enum need { OPTIONAL, REQUIRED };

/* Optional uuids are the nil uuid when absent. */
static struct err *take_uuid(ProtobufCBinaryData in, enum need need, const char *field,
                             struct uuid *ret)
{
    struct uuid id = UUID_NIL;

    if (in.len && in.len != sizeof(id.b))
        return corrupt(field, "is not 16 bytes long");
    if (in.len)
        memcpy(id.b, in.data, sizeof(id.b));
    if (need == REQUIRED && uuid_is_nil(&id))
        return corrupt(field, "is missing");
    *ret = id;
    return NULL;
}

/* Always a string, maybe an empty one. */
static struct err *take_string(ProtobufCBinaryData in, size_t max, const char *field, char **ret)
{
    if (in.len > max)
        return corrupt(field, "is too long");
    if (!str_is_utf8((const char *)in.data, in.len))
        return corrupt(field, "is not valid UTF-8");
    *ret = xstrndup(in.len ? (const char *)in.data : "", in.len);
    return NULL;
}

/* A string on one line; NULL when optional and empty. */
static struct err *take_word(ProtobufCBinaryData in, size_t max, enum need need, const char *field,
                             char **ret)
{
    if (!in.len)
        return need == REQUIRED ? corrupt(field, "is missing") : NULL;
    for (size_t i = 0; i < in.len; i++) {
        if (in.data[i] < 0x20 || in.data[i] == 0x7f)
            return corrupt(field, "has a control character");
    }
    return take_string(in, max, field, ret);
}

/* A container's name, [a-zA-Z0-9_.-]+ as the public contract has it. */
static struct err *take_name(ProtobufCBinaryData in, const char *field, char **ret)
{
    for (size_t i = 0; i < in.len; i++) {
        uint8_t c = in.data[i];
        uint8_t lower = c | 0x20;
        if (!((lower >= 'a' && lower <= 'z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
              c == '-'))
            return corrupt(field, "has a character that names cannot have");
    }
    return take_word(in, CODEC_MAX_NAME, REQUIRED, field, ret);
}

/* Snapshot names become names of files and subvolumes: nothing but [a-z0-9-]. */
static struct err *take_snapshot(ProtobufCBinaryData in, enum need need, const char *field,
                                 char ret[SNAPSHOT_NAME_SIZE])
{
    if (in.len >= SNAPSHOT_NAME_SIZE)
        return corrupt(field, "is too long");
    for (size_t i = 0; i < in.len; i++) {
        uint8_t c = in.data[i];
        if (!((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-'))
            return corrupt(field, "has a character that snapshot names cannot have");
    }
    if (need == REQUIRED && !in.len)
        return corrupt(field, "is missing");
    memset(ret, 0, SNAPSHOT_NAME_SIZE);
    if (in.len)
        memcpy(ret, in.data, in.len);
    return NULL;
}

static struct err *take_port(uint32_t in, const char *field, uint16_t *ret)
{
    if (in > UINT16_MAX)
        return corrupt(field, "is not a port number");
    *ret = (uint16_t)in;
    return NULL;
}

static struct err *take_enum(const struct enum_map *map, int in, const char *field, int *ret)
{
    for (size_t i = 0; i < map->n; i++) {
        if (map->wire[i] == in) {
            *ret = (int)i;
            return NULL;
        }
    }
    return corrupt(field, "is missing or has a value that this version does not know");
}

/* A later version knows more reasons: its sentence says what is the matter, the code here is only a general one. */
static enum reason_code take_reason_code(int in)
{
    for (size_t i = 0; i < map_reason.n; i++) {
        if (map_reason.wire[i] == in)
            return (enum reason_code)i;
    }
    return REASON_STORAGE_ERROR;
}

static struct err *take_reason(const Wire__Reason *w, struct reason *r)
{
    char *text = NULL;

    if (!w)
        return NULL; /* all is as wanted */
    if (w->text.len)
        TRY(take_string(w->text, CODEC_MAX_TEXT, "reason text", &text));
    r->code = take_reason_code((int)w->code);
    r->text = text;
    r->since_us = w->since_us;
    r->retry_us = w->retry_us;
    return NULL;
}

/* A newer agent may be able to do what this control service does not know. */
static enum replica_support take_support(int wire)
{
    for (size_t i = 0; i < map_replicas.n; i++) {
        if (map_replicas.wire[i] == wire)
            return (enum replica_support)i;
    }
    return REPLICAS_NONE;
}

static struct err *take_hello(const Wire__Hello *w, struct hello *h)
{
    int kind;

    TRY(take_uuid(w->node, REQUIRED, "hello: node", &h->node));
    TRY(take_uuid(w->era, REQUIRED, "hello: era", &h->era));
    TRY(take_word(w->version, CODEC_MAX_VERSION, REQUIRED, "hello: version", &h->version));
    TRY(take_word(w->host, CODEC_MAX_HOST, REQUIRED, "hello: host", &h->host));
    TRY(take_port(w->mover_port, "hello: mover_port", &h->mover_port));
    TRY(take_enum(&map_storage, (int)w->storage, "hello: storage", &kind));
    TRY(take_word(w->backend, CODEC_MAX_BACKEND, REQUIRED, "hello: backend", &h->backend));
    TRY(take_uuid(w->shared_by, OPTIONAL, "hello: shared_by", &h->shared_by));
    TRY(take_uuid(w->store, OPTIONAL, "hello: store", &h->store));
    TRY(take_uuid(w->generation, OPTIONAL, "hello: generation", &h->generation));
    h->routes = w->routes;
    h->volumes = w->volumes;
    h->protocol = w->protocol;
    h->storage = (enum storage_kind)kind;
    h->replicas = take_support((int)w->replicas);
    h->compares = w->compares;
    h->seen_revision = w->seen_revision;
    h->extended = w->extended;
    h->more_volumes = w->more_volumes;
    h->grows = w->grows;
    h->lists = w->lists;
    h->calls = w->calls;
    return NULL;
}

static struct err *take_mark(const Wire__Mark *w, struct volume_mark *m)
{
    int state;

    if (!w)
        return corrupt("report: mark", "is missing");
    TRY(take_enum(&map_mark, (int)w->state, "report: mark", &state));
    TRY(take_snapshot(w->snapshot, OPTIONAL, "report: snapshot of the mark", m->snapshot));
    m->state = (enum mark_state)state;
    m->epoch = w->epoch;
    m->transfer = w->transfer;
    return NULL;
}

static struct err *take_volume(const Wire__Volume *w, struct volume_state *v)
{
    if (!w)
        return corrupt("report: volume", "is missing");
    if (w->n_snapshots > CODEC_MAX_SNAPSHOTS)
        return corrupt("report: snapshots", "are too many");
    TRY(take_mark(w->mark, &v->mark));
    v->present = w->present;
    v->attached = w->attached;
    v->attached_elsewhere = w->attached_elsewhere;
    v->mounted = w->mounted;
    v->partial = w->partial;
    v->size = w->size;
    TRY(take_word(w->device, CODEC_MAX_PATH, OPTIONAL, "report: device", &v->device));
    if (w->n_snapshots)
        v->snapshots = xcalloc(w->n_snapshots, sizeof(*v->snapshots));
    for (size_t i = 0; i < w->n_snapshots; i++) {
        TRY(take_snapshot(w->snapshots[i], REQUIRED, "report: snapshot", v->snapshots[i]));
        v->n_snapshots++;
    }
    return NULL;
}

static struct err *take_compared(const Wire__Compared *w, struct report *r)
{
    int end;

    if (!w)
        return NULL;
    TRY(take_enum(&map_end, (int)w->end, "report: end of a comparison", &end));
    if (!w->number || end == COMPARISON_RUNS)
        return corrupt("report: comparison", "has no number or no end");
    r->compared = xcalloc(1, sizeof(*r->compared));
    r->compared->number = w->number;
    r->compared->end = (enum comparison_end)end;
    return w->text.len ? take_string(w->text, CODEC_MAX_TEXT, "report: text of a comparison", &r->compared->text) : NULL;
}

static struct err *take_report(const Wire__Report *w, struct report *r)
{
    char received[SNAPSHOT_NAME_SIZE];

    TRY(take_uuid(w->dataset, REQUIRED, "report: dataset", &r->volume.dataset));
    TRY(take_volume(w->volume, &r->volume));
    TRY(take_snapshot(w->received_snapshot, OPTIONAL, "report: received_snapshot", received));
    TRY(take_reason(w->reason, &r->reason));
    TRY(take_compared(w->compared, r));
    r->received_snapshot = received[0] ? xstrdup(received) : NULL;
    r->gone = w->gone;
    r->copied = w->copied;
    r->received = w->received;
    r->bytes_sent = w->bytes_sent;
    r->bytes_total = w->bytes_total;
    r->space_wanted = w->space_wanted;
    return NULL;
}

static struct err *take_container_report(const Wire__ContainerReport *w, struct container_report *c)
{
    int run, health;

    TRY(take_name(w->name, "container report: name", &c->name));
    TRY(take_enum(&map_health, (int)w->health, "container report: health", &health));
    TRY(take_enum(&map_run, (int)w->run, "container report: run", &run));
    TRY(take_reason(w->reason, &c->reason));
    c->run = (enum container_run)run;
    c->image_ready = w->image_ready;
    c->created = w->created;
    c->health = (enum container_health)health;
    c->has_exit_code = w->has_exit_code;
    c->exit_code = w->exit_code;
    c->ended = w->ended;
    return NULL;
}

static struct err *take_metadata(Wire__MetadataEntry *const *in, size_t n, struct metadata *m)
{
    if (n > METADATA_MAX_ENTRIES)
        return corrupt("metadata", "have too many entries");
    if (!n)
        return NULL;
    m->entries = xcalloc(n, sizeof(*m->entries));
    m->n = n;
    for (size_t i = 0; i < m->n; i++) {
        size_t max = 4 * METADATA_MAX_CHARS; /* a character takes up to four bytes */
        TRY(take_string(in[i]->key, max, "metadata key", &m->entries[i].key));
        TRY(take_string(in[i]->value, max, "metadata value", &m->entries[i].value));
        for (size_t k = 0; k < i; k++) {
            if (streq(m->entries[k].key, m->entries[i].key))
                return corrupt("metadata key", "appears twice");
        }
    }
    return NULL;
}

/* Which volume: by id or by name. */
static struct err *take_which(ProtobufCBinaryData dataset, ProtobufCBinaryData name, const char *field, struct uuid *ret_dataset,
                              char **ret_name)
{
    TRY(take_uuid(dataset, OPTIONAL, field, ret_dataset));
    if (name.len)
        return take_string(name, 4 * METADATA_MAX_CHARS, field, ret_name);
    return uuid_is_nil(ret_dataset) ? corrupt(field, "has neither dataset nor name") : NULL;
}

static struct err *take_volume_call(const Wire__VolumeCall *w, struct volume_call *c)
{
    int kind;

    TRY(take_enum(&map_call, (int)w->kind, "volume call: kind", &kind));
    c->kind = (enum volume_call_kind)kind;
    c->number = w->number;
    c->maximum_size = w->maximum_size;
    TRY(take_which(w->dataset, w->name, "volume call", &c->dataset, &c->name));
    if (c->kind == VOLUME_CREATE && !c->name)
        return corrupt("volume call: name", "is missing");
    bool mounts = c->kind == VOLUME_USE || c->kind == VOLUME_UNUSE;
    TRY(take_word(w->mount, MOUNT_ID_MAX, mounts ? REQUIRED : OPTIONAL, "volume call: mount", &c->mount));
    return take_metadata(w->metadata, w->n_metadata, &c->metadata);
}

static struct err *take_volume_use(const Wire__VolumeUse *w, struct volume_use *u)
{
    TRY(take_which(w->dataset, w->name, "volume use", &u->dataset, &u->name));
    return take_word(w->mount, MOUNT_ID_MAX, REQUIRED, "volume use: mount", &u->mount);
}

static struct err *take_space(const Wire__SpaceReport *w, struct space *ret)
{
    ret->total = w->total;
    ret->free = w->free;
    if (!w->total)
        return corrupt("space_report: total", "is missing");
    if (w->total > INT64_MAX) /* JSON has no more */
        return corrupt("space_report: total", "is too large");
    return w->free <= w->total ? NULL : corrupt("space_report: free", "is more than there is");
}

static struct err *take_sighting(const Wire__Sighting *w, struct sighting *s)
{
    s->present = w->present;
    s->size = w->size;
    TRY(take_uuid(w->dataset, REQUIRED, "sighting: dataset", &s->dataset));
    return w->hosts.len ? take_string(w->hosts, SIGHTING_HOSTS_MAX, "sighting: hosts", &s->hosts) : NULL;
}

static struct err *take_agent_body(const Wire__AgentMessage *w, struct agent_message *m)
{
    switch (w->body_case) {
    case WIRE__AGENT_MESSAGE__BODY_HELLO:
        m->kind = AGENT_MESSAGE_HELLO;
        return take_hello(w->hello, &m->hello);
    case WIRE__AGENT_MESSAGE__BODY_REPORT:
        m->kind = AGENT_MESSAGE_REPORT;
        return take_report(w->report, &m->report);
    case WIRE__AGENT_MESSAGE__BODY_REPORT_GONE:
        m->kind = AGENT_MESSAGE_REPORT_GONE;
        return take_uuid(w->report_gone->dataset, REQUIRED, "report_gone: dataset", &m->dataset);
    case WIRE__AGENT_MESSAGE__BODY_CONTAINER_REPORT:
        m->kind = AGENT_MESSAGE_CONTAINER_REPORT;
        return take_container_report(w->container_report, &m->container);
    case WIRE__AGENT_MESSAGE__BODY_CONTAINER_GONE:
        m->kind = AGENT_MESSAGE_CONTAINER_GONE;
        return take_name(w->container_gone->name, "container_gone: name", &m->name);
    case WIRE__AGENT_MESSAGE__BODY_REPORTS_COMPLETE:
        m->kind = AGENT_MESSAGE_REPORTS_COMPLETE;
        m->storage_unknown = w->reports_complete->storage_unknown;
        return NULL;
    case WIRE__AGENT_MESSAGE__BODY_VOLUME_CALL:
        m->kind = AGENT_MESSAGE_VOLUME_CALL;
        return take_volume_call(w->volume_call, &m->call);
    case WIRE__AGENT_MESSAGE__BODY_VOLUME_USE:
        m->kind = AGENT_MESSAGE_VOLUME_USE;
        return take_volume_use(w->volume_use, &m->use);
    case WIRE__AGENT_MESSAGE__BODY_VOLUME_USES_COMPLETE:
        m->kind = AGENT_MESSAGE_VOLUME_USES_COMPLETE;
        return NULL;
    case WIRE__AGENT_MESSAGE__BODY_ROUTES_REPORT:
        m->kind = AGENT_MESSAGE_ROUTES_REPORT;
        m->routes.ports = w->routes_report->ports;
        return take_reason(w->routes_report->reason, &m->routes.reason);
    case WIRE__AGENT_MESSAGE__BODY_SPACE_REPORT:
        m->kind = AGENT_MESSAGE_SPACE_REPORT;
        return take_space(w->space_report, &m->space);
    case WIRE__AGENT_MESSAGE__BODY_SIGHTING:
        m->kind = AGENT_MESSAGE_SIGHTING;
        return take_sighting(w->sighting, &m->sighting);
    case WIRE__AGENT_MESSAGE__BODY_SIGHTINGS_COMPLETE:
        m->kind = AGENT_MESSAGE_SIGHTINGS_COMPLETE;
        return NULL;
    case WIRE__AGENT_MESSAGE__BODY_CALLS_REPORT:
        m->kind = AGENT_MESSAGE_CALLS_REPORT;
        m->calls = (struct calls_report){w->calls_report->waiting, w->calls_report->returned, w->calls_report->throttled};
        return NULL;
    case WIRE__AGENT_MESSAGE__BODY_PING:
        m->kind = AGENT_MESSAGE_PING;
        m->counter = w->ping->counter;
        return NULL;
    case WIRE__AGENT_MESSAGE__BODY_PONG:
        m->kind = AGENT_MESSAGE_PONG;
        m->counter = w->pong->counter;
        return NULL;
    case WIRE__AGENT_MESSAGE__BODY__NOT_SET:
    default:
        return corrupt("message", "is empty or of a kind that this version does not know");
    }
}

struct err *codec_agent_decode(const void *bytes, size_t n, struct agent_message *ret)
{
    struct budget budget = budget_new();
    struct agent_message m = {0};

    budget.allocator.allocator_data = &budget;
    if (n > CODEC_MAX_MESSAGE)
        return corrupt("message", "is too long");
    Wire__AgentMessage *w = wire__agent_message__unpack(&budget.allocator, n, bytes);
    if (!w)
        return corrupt("message", "is malformed or too complex");
    struct err *e = take_agent_body(w, &m);
    wire__agent_message__free_unpacked(w, &budget.allocator);
    if (e) {
        agent_message_done(&m);
        return e;
    }
    *ret = m;
    return NULL;
}

static struct err *take_fenced(const Wire__Order *w, struct order *o)
{
    struct uuid node;

    if (w->n_fenced > ORDER_MAX_FENCED)
        return corrupt("order: fenced", "are too many");
    for (size_t i = 0; i < w->n_fenced; i++) {
        TRY(take_uuid(w->fenced[i], REQUIRED, "order: fenced", &node));
        order_add_fenced(o, &node);
    }
    return NULL;
}

/* What each role cannot do without. An epoch of 0 was never given out. */
static struct err *check_order(const struct order *o)
{
    bool writes = o->role == ROLE_OWNER || o->role == ROLE_SOURCE || o->role == ROLE_RELEASE;
    bool moves = o->role == ROLE_SOURCE || o->role == ROLE_RELEASE || o->role == ROLE_RECEIVE;

    if (writes && !o->epoch)
        return corrupt("order: epoch", "is missing");
    if (moves && !o->transfer)
        return corrupt("order: transfer", "is missing");
    if (o->role == ROLE_REPLICA && !o->keep)
        return corrupt("order: keep_snapshot", "is missing");
    if (o->compare && (!o->keep || uuid_is_nil(&o->peer) || (o->role != ROLE_OWNER && o->role != ROLE_REPLICA)))
        return corrupt("order: compare", "has no snapshot or no peer, or another role");
    return NULL;
}

static struct err *take_order(const Wire__Order *w, struct order *o)
{
    int role;
    char base[SNAPSHOT_NAME_SIZE], keep[SNAPSHOT_NAME_SIZE];

    TRY(take_uuid(w->dataset, REQUIRED, "order: dataset", &o->dataset));
    TRY(take_enum(&map_role, (int)w->role, "order: role", &role));
    TRY(take_snapshot(w->base_snapshot, OPTIONAL, "order: base_snapshot", base));
    if (base[0])
        o->base = xstrdup(base);
    TRY(take_snapshot(w->keep_snapshot, OPTIONAL, "order: keep_snapshot", keep));
    if (keep[0])
        o->keep = xstrdup(keep);
    TRY(take_uuid(w->peer, OPTIONAL, "order: peer", &o->peer));
    TRY(take_word(w->peer_host, CODEC_MAX_HOST, OPTIONAL, "order: peer_host", &o->peer_host));
    TRY(take_port(w->peer_port, "order: peer_port", &o->peer_port));
    TRY(take_metadata(w->metadata, w->n_metadata, &o->metadata));
    TRY(take_fenced(w, o));
    o->revision = w->revision;
    o->role = (enum role)role;
    o->epoch = w->epoch;
    o->born = w->born;
    o->transfer = w->transfer;
    o->compare = w->compare;
    o->number = w->number;
    o->maximum_size = w->maximum_size;
    return check_order(o);
}

static struct err *take_ports(const Wire__Container *w, struct container *c)
{
    if (w->n_ports > CODEC_MAX_LIST)
        return corrupt("container order: ports", "are too many");
    c->ports = xcalloc(w->n_ports, sizeof(*c->ports));
    c->n_ports = w->n_ports;
    for (size_t i = 0; i < w->n_ports; i++) {
        const Wire__Port *p = w->ports[i];
        TRY(take_port(p->internal, "container order: internal port", &c->ports[i].internal));
        TRY(take_port(p->external, "container order: external port", &c->ports[i].external));
    }
    return NULL;
}

static struct err *take_links(const Wire__Container *w, struct container *c)
{
    if (w->n_links > CODEC_MAX_LIST)
        return corrupt("container order: links", "are too many");
    c->links = xcalloc(w->n_links, sizeof(*c->links));
    c->n_links = w->n_links;
    for (size_t i = 0; i < w->n_links; i++) {
        const Wire__Link *l = w->links[i];
        TRY(take_word(l->alias, CODEC_MAX_NAME, REQUIRED, "container order: alias",
                      &c->links[i].alias));
        TRY(take_port(l->local_port, "container order: local port", &c->links[i].local_port));
        TRY(take_port(l->remote_port, "container order: remote port", &c->links[i].remote_port));
    }
    return NULL;
}

static struct err *take_entries(Wire__Variable *const *w, size_t n, const char *field, struct env_entry **ret,
                                size_t *ret_n)
{
    if (n > CODEC_MAX_LIST)
        return corrupt(field, "are too many");
    *ret = xcalloc(n, sizeof(**ret));
    *ret_n = n;
    for (size_t i = 0; i < n; i++) {
        TRY(take_string(w[i]->name, CODEC_MAX_STRING, field, &(*ret)[i].name));
        TRY(take_string(w[i]->value, CODEC_MAX_STRING, field, &(*ret)[i].value));
    }
    return NULL;
}

static struct err *take_strings(const ProtobufCBinaryData *w, size_t n, const char *field, char ***ret, size_t *ret_n)
{
    if (n > CODEC_MAX_LIST)
        return corrupt(field, "are too many");
    *ret = xcalloc(n, sizeof(**ret));
    *ret_n = n;
    for (size_t i = 0; i < n; i++)
        TRY(take_string(w[i], CODEC_MAX_STRING, field, &(*ret)[i]));
    return NULL;
}

static struct err *take_command_line(const Wire__CommandLine *w, struct container *c)
{
    if (!w)
        return NULL;
    c->has_command_line = true;
    return take_strings(w->arguments, w->n_arguments, "container order: arguments", &c->command_line,
                        &c->n_command_line);
}

static struct err *take_entrypoint(const Wire__CommandLine *w, struct container *c)
{
    if (!w)
        return NULL;
    c->has_entrypoint = true;
    return take_strings(w->arguments, w->n_arguments, "container order: entrypoint's texts", &c->entrypoint,
                        &c->n_entrypoint);
}

static struct err *take_health(const Wire__HealthCheck *w, struct container *c)
{
    if (!w)
        return NULL;
    struct health_check *h = c->health = xcalloc(1, sizeof(*h));
    h->disabled = w->disabled;
    h->interval_ms = w->interval_ms;
    h->timeout_ms = w->timeout_ms;
    h->start_period_ms = w->start_period_ms;
    h->retries = w->retries;
    return take_strings(w->test, w->n_test, "container order: texts of the health check", &h->test, &h->n_test);
}

static struct err *take_dependencies(const Wire__ExtendedSettings *w, struct container *c)
{
    if (w->n_depends_on > CODEC_MAX_LIST)
        return corrupt("container order: dependencies", "are too many");
    c->depends_on = xcalloc(w->n_depends_on, sizeof(*c->depends_on));
    for (size_t i = 0; i < w->n_depends_on; i++) {
        struct dependency *d = &c->depends_on[c->n_depends_on];
        int condition;

        TRY(take_enum(&map_condition, (int)w->depends_on[i]->condition, "container order: condition", &condition));
        TRY(take_name(w->depends_on[i]->name, "container order: dependency", &d->name));
        d->condition = (enum dependency_condition)condition;
        c->n_depends_on++;
    }
    return NULL;
}

static struct err *take_extended(const Wire__ExtendedSettings *w, struct container *c)
{
    if (!w)
        return NULL;
    TRY(take_entrypoint(w->entrypoint, c));
    TRY(take_word(w->user, CODEC_MAX_NAME, OPTIONAL, "container order: user", &c->user));
    TRY(take_word(w->working_dir, CODEC_MAX_PATH, OPTIONAL, "container order: working_dir", &c->working_dir));
    TRY(take_word(w->stop_signal, CODEC_MAX_NAME, OPTIONAL, "container order: stop_signal", &c->stop_signal));
    TRY(take_entries(w->labels, w->n_labels, "container order: labels", &c->labels, &c->n_labels));
    TRY(take_health(w->health, c));
    TRY(take_dependencies(w, c));
    c->stop_grace_ms = w->stop_grace_ms;
    c->nano_cpus = w->nano_cpus;
    return NULL;
}

static struct err *take_attached(const Wire__AttachedVolume *w, struct container *c)
{
    struct uuid dataset;
    CLEANUP_FREE char *mountpoint = NULL;

    TRY(take_uuid(w->dataset, REQUIRED, "container order: dataset", &dataset));
    TRY(take_word(w->mountpoint, CODEC_MAX_PATH, REQUIRED, "container order: mountpoint",
                  &mountpoint));
    if (mountpoint[0] != '/')
        return corrupt("container order: mountpoint", "is not an absolute path");
    for (size_t i = 0; i < c->n_volumes; i++) {
        if (uuid_eq(&c->volumes[i].dataset, &dataset))
            return corrupt("container order: dataset", "is there twice");
        if (mountpoint_compare(c->volumes[i].mountpoint, mountpoint) == 0)
            return corrupt("container order: mountpoint", "is there twice");
    }
    container_add_volume(c, &dataset, mountpoint, w->read_only);
    return NULL;
}

static struct err *take_all_attached(const Wire__Container *w, struct container *c)
{
    if (w->n_volumes > CODEC_MAX_VOLUMES)
        return corrupt("container order: volumes", "are too many");
    for (size_t i = 0; i < w->n_volumes; i++)
        TRY(take_attached(w->volumes[i], c));
    container_settle_volumes(c);
    return NULL;
}

static struct err *take_container(const Wire__Container *w, struct container *c)
{
    int policy;

    TRY(take_uuid(w->node, OPTIONAL, "container order: node", &c->node));
    TRY(take_word(w->image, CODEC_MAX_IMAGE, REQUIRED, "container order: image", &c->image));
    TRY(take_ports(w, c));
    TRY(take_links(w, c));
    TRY(take_entries(w->environment, w->n_environment, "container order: variables", &c->environment,
                     &c->n_environment));
    TRY(take_command_line(w->command_line, c));
    TRY(take_enum(&map_policy, (int)w->restart_policy, "container order: restart policy", &policy));
    TRY(take_all_attached(w, c));
    TRY(take_extended(w->extended, c));
    if (w->swappiness) {
        if (w->swappiness->percent > 100)
            return corrupt("container order: swappiness", "is not a percentage");
        c->swappiness = w->swappiness->percent;
    }
    c->revision = w->revision;
    c->created = w->created;
    c->ended = w->ended;
    c->cpu_shares = w->cpu_shares;
    c->memory_limit = w->memory_limit;
    c->restart_policy = (enum restart_policy)policy;
    c->maximum_retry_count = w->maximum_retry_count;
    return NULL;
}

static struct err *take_container_order(const Wire__ContainerOrder *w, struct container_order *o)
{
    int action;
    CLEANUP_FREE char *name = NULL;

    TRY(take_enum(&map_action, (int)w->action, "container order: action", &action));
    if (!w->config)
        return corrupt("container order: config", "is missing");
    TRY(take_name(w->config->name, "container order: name", &name));
    o->action = (enum container_action)action;
    o->hold = w->hold;
    o->config = container_new(name);
    return take_container(w->config, o->config);
}

static struct err *take_routed_port(uint32_t in, const char *field, uint16_t *ret)
{
    TRY(take_port(in, field, ret));
    return *ret ? NULL : corrupt(field, "is missing");
}

static struct err *take_route(const Wire__Route *w, struct port_route *r)
{
    TRY(take_routed_port(w->port, "route: port", &r->port));
    TRY(take_uuid(w->node, REQUIRED, "route: node", &r->node));
    TRY(take_word(w->host, CODEC_MAX_HOST, OPTIONAL, "route: host", &r->host));
    return take_name(w->container, "route: container", &r->container);
}

/* A later version has more codes: its sentence says what is the matter. */
static enum volume_code take_volume_code(int in)
{
    for (size_t i = 0; i < map_code.n; i++) {
        if (map_code.wire[i] == in)
            return (enum volume_code)i;
    }
    return VOLUME_FAILED;
}

static struct err *take_volume_answer(const Wire__VolumeAnswer *w, struct volume_answer *a)
{
    a->number = w->number;
    a->code = take_volume_code((int)w->code);
    a->revision = w->revision;
    a->epoch = w->epoch;
    if (w->text.len)
        TRY(take_string(w->text, CODEC_MAX_TEXT, "volume answer: text", &a->text));
    return take_uuid(w->dataset, OPTIONAL, "volume answer: dataset", &a->dataset);
}

static struct err *take_catalogued(const Wire__VolumeEntry *w, struct volume_entry *v)
{
    size_t max = 4 * METADATA_MAX_CHARS;
    int holder;

    TRY(take_uuid(w->dataset, REQUIRED, "volume: dataset", &v->dataset));
    TRY(take_string(w->name, max, "volume: name", &v->name));
    TRY(take_uuid(w->home, OPTIONAL, "volume: home", &v->home));
    TRY(take_word(w->home_host, CODEC_MAX_HOST, OPTIONAL, "volume: home_host", &v->home_host));
    TRY(take_uuid(w->owner, OPTIONAL, "volume: owner", &v->owner));
    if (w->profile.len)
        TRY(take_string(w->profile, max, "volume: profile", &v->profile));
    TRY(take_enum(&map_holder, (int)w->holder, "volume: holder", &holder));
    TRY(take_uuid(w->holder_node, OPTIONAL, "volume: holder_node", &v->holder_node));
    if (w->holder_text.len)
        TRY(take_string(w->holder_text, CODEC_MAX_TEXT, "volume: holder_text", &v->holder_text));
    v->maximum_size = w->maximum_size;
    v->born = w->born;
    v->holder = (enum volume_holder_kind)holder;
    v->holder_since_us = w->holder_since_us;
    return take_reason(w->reason, &v->reason);
}

static struct err *take_welcome(const Wire__Welcome *w, struct welcome *ret)
{
    ret->protocol = w->protocol;
    ret->revision = w->revision;
    ret->known_until = w->known_until;
    ret->routes = w->routes;
    ret->volumes = w->volumes;
    ret->space = w->space;
    ret->calls = w->calls;
    TRY(take_uuid(w->store, REQUIRED, "welcome: store", &ret->store));
    TRY(take_uuid(w->generation, REQUIRED, "welcome: generation", &ret->generation));
    return take_uuid(w->known, OPTIONAL, "welcome: known", &ret->known);
}

/* A duty that a later version knows is none that this one can have. */
static struct err *take_list_order(const Wire__ListOrder *w, struct list_order *o)
{
    o->interval_s = w->interval_s;
    o->duty = LIST_ALONE;
    for (size_t i = 0; i < map_duty.n; i++) {
        if (map_duty.wire[i] == (int)w->duty)
            o->duty = (enum list_duty)i;
    }
    if (o->duty == LIST_FOR_ALL && (!w->interval_s || w->interval_s > CODEC_MAX_INTERVAL_S))
        return corrupt("list order: interval", "is missing or too long");
    return NULL;
}

static struct err *take_share(const Wire__CallsShare *w, struct calls_share *s)
{
    if (w->per_hour > BUCKET_PER_HOUR_MAX || w->burst > BUCKET_BURST_MAX)
        return corrupt("calls share", "is too large");
    *s = (struct calls_share){w->per_hour, w->burst, w->handed};
    return NULL;
}

static struct err *take_control_body(const Wire__ControlMessage *w, struct control_message *m)
{
    switch (w->body_case) {
    case WIRE__CONTROL_MESSAGE__BODY_WELCOME:
        m->kind = CONTROL_MESSAGE_WELCOME;
        return take_welcome(w->welcome, &m->welcome);
    case WIRE__CONTROL_MESSAGE__BODY_ORDER:
        m->kind = CONTROL_MESSAGE_ORDER;
        return take_order(w->order, &m->order);
    case WIRE__CONTROL_MESSAGE__BODY_ORDER_NONE:
        m->kind = CONTROL_MESSAGE_ORDER_NONE;
        return take_uuid(w->order_none->dataset, REQUIRED, "order_none: dataset", &m->dataset);
    case WIRE__CONTROL_MESSAGE__BODY_CONTAINER_ORDER:
        m->kind = CONTROL_MESSAGE_CONTAINER_ORDER;
        return take_container_order(w->container_order, &m->container);
    case WIRE__CONTROL_MESSAGE__BODY_ROUTE:
        m->kind = CONTROL_MESSAGE_ROUTE;
        return take_route(w->route, &m->route);
    case WIRE__CONTROL_MESSAGE__BODY_VOLUME_ANSWER:
        m->kind = CONTROL_MESSAGE_VOLUME_ANSWER;
        return take_volume_answer(w->volume_answer, &m->answer);
    case WIRE__CONTROL_MESSAGE__BODY_VOLUME:
        m->kind = CONTROL_MESSAGE_VOLUME;
        return take_catalogued(w->volume, &m->volume);
    case WIRE__CONTROL_MESSAGE__BODY_LIST_ORDER:
        m->kind = CONTROL_MESSAGE_LIST_ORDER;
        return take_list_order(w->list_order, &m->list_order);
    case WIRE__CONTROL_MESSAGE__BODY_SIGHTING:
        m->kind = CONTROL_MESSAGE_SIGHTING;
        return take_sighting(w->sighting, &m->sighting);
    case WIRE__CONTROL_MESSAGE__BODY_CALLS_SHARE:
        m->kind = CONTROL_MESSAGE_CALLS_SHARE;
        return take_share(w->calls_share, &m->share);
    case WIRE__CONTROL_MESSAGE__BODY_VOLUMES_COMPLETE:
        m->kind = CONTROL_MESSAGE_VOLUMES_COMPLETE;
        return NULL;
    case WIRE__CONTROL_MESSAGE__BODY_VOLUME_NONE:
        m->kind = CONTROL_MESSAGE_VOLUME_NONE;
        return take_uuid(w->volume_none->dataset, REQUIRED, "volume_none: dataset", &m->dataset);
    case WIRE__CONTROL_MESSAGE__BODY_ROUTE_NONE:
        m->kind = CONTROL_MESSAGE_ROUTE_NONE;
        return take_routed_port(w->route_none->port, "route_none: port", &m->port);
    case WIRE__CONTROL_MESSAGE__BODY_CONTAINER_NONE:
        m->kind = CONTROL_MESSAGE_CONTAINER_NONE;
        return take_name(w->container_none->name, "container_none: name", &m->name);
    case WIRE__CONTROL_MESSAGE__BODY_ORDERS_COMPLETE:
        m->kind = CONTROL_MESSAGE_ORDERS_COMPLETE;
        return NULL;
    case WIRE__CONTROL_MESSAGE__BODY_REFUSED:
        m->kind = CONTROL_MESSAGE_REFUSED;
        return take_string(w->refused->text, CODEC_MAX_TEXT, "refused: text", &m->text);
    case WIRE__CONTROL_MESSAGE__BODY_PING:
        m->kind = CONTROL_MESSAGE_PING;
        m->counter = w->ping->counter;
        return NULL;
    case WIRE__CONTROL_MESSAGE__BODY_PONG:
        m->kind = CONTROL_MESSAGE_PONG;
        m->counter = w->pong->counter;
        return NULL;
    case WIRE__CONTROL_MESSAGE__BODY__NOT_SET:
    default:
        return corrupt("message", "is empty or of a kind that this version does not know");
    }
}

struct err *codec_control_decode(const void *bytes, size_t n, struct control_message *ret)
{
    struct budget budget = budget_new();
    struct control_message m = {0};

    budget.allocator.allocator_data = &budget;
    if (n > CODEC_MAX_MESSAGE)
        return corrupt("message", "is too long");
    Wire__ControlMessage *w = wire__control_message__unpack(&budget.allocator, n, bytes);
    if (!w)
        return corrupt("message", "is malformed or too complex");
    struct err *e = take_control_body(w, &m);
    wire__control_message__free_unpacked(w, &budget.allocator);
    if (e) {
        control_message_done(&m);
        return e;
    }
    *ret = m;
    return NULL;
}
