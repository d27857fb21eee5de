#include "proto/codec.h"
#include "proto/codec_wire.h"

#include <assert.h>

struct str_buffer {
    ProtobufCBuffer buffer;
    struct str *out;
};

static void buffer_append(ProtobufCBuffer *b, size_t n, const uint8_t *bytes)
{
    str_append_bytes(((struct str_buffer *)b)->out, bytes, n);
}

static void pack(const ProtobufCMessage *m, struct str *out)
{
    struct str_buffer b = {.buffer = {buffer_append}, .out = out};

    protobuf_c_message_pack_to_buffer(m, &b.buffer);
}

/* The wire structures are not const, but packing only reads them. */
static ProtobufCBinaryData text_out(const char *s)
{
    return (ProtobufCBinaryData){.len = s ? strlen(s) : 0, .data = (uint8_t *)s};
}

static ProtobufCBinaryData uuid_out(const struct uuid *id)
{
    if (uuid_is_nil(id))
        return (ProtobufCBinaryData){0};
    return (ProtobufCBinaryData){.len = sizeof(id->b), .data = (uint8_t *)id->b};
}

static int enum_out(const struct enum_map *map, int value)
{
    assert(value >= 0 && (size_t)value < map->n);
    return map->wire[value];
}

/* Texts for people may carry what a program or the kernel printed: any bytes, of any length. The
 * receiver takes only UTF-8 of limited length. The caller frees the result; NULL stays NULL. */
static char *text_for_people(const char *s)
{
    if (!s)
        return NULL;
    size_t n = strnlen(s, CODEC_MAX_TEXT);
    char *copy = xstrndup(s, n);
    for (size_t i = 0; i < n;) {
        size_t len = 1;
        while (len <= 4 && i + len <= n && !str_is_utf8(copy + i, len))
            len++;
        if (len > 4 || i + len > n) {
            copy[i] = '?';
            len = 1;
        }
        i += len;
    }
    return copy;
}

static Wire__Reason reason_out(const struct reason *r, char *text)
{
    Wire__Reason w = WIRE__REASON__INIT;

    w.code = (Wire__ReasonCode)enum_out(&map_reason, r->code);
    w.text = text_out(text);
    w.since_us = r->since_us;
    w.retry_us = r->retry_us;
    return w;
}

static void encode_hello(const struct hello *h, Wire__AgentMessage *m, struct str *out)
{
    Wire__Hello w = WIRE__HELLO__INIT;

    w.protocol = h->protocol;
    w.node = uuid_out(&h->node);
    w.era = uuid_out(&h->era);
    w.version = text_out(h->version);
    w.host = text_out(h->host);
    w.mover_port = h->mover_port;
    w.routes = h->routes;
    w.volumes = h->volumes;
    w.storage = (Wire__StorageKind)enum_out(&map_storage, h->storage);
    w.backend = text_out(h->backend);
    w.replicas = (Wire__ReplicaSupport)enum_out(&map_replicas, h->replicas);
    w.compares = h->compares;
    w.shared_by = uuid_out(&h->shared_by);
    w.store = uuid_out(&h->store);
    w.generation = uuid_out(&h->generation);
    w.seen_revision = h->seen_revision;
    w.extended = h->extended;
    w.more_volumes = h->more_volumes;
    w.grows = h->grows;
    w.lists = h->lists;
    w.calls = h->calls;
    m->hello = &w;
    pack(&m->base, out);
}

static void encode_report(const struct report *r, Wire__AgentMessage *m, struct str *out)
{
    const struct volume_state *v = &r->volume;
    size_t n = v->n_snapshots < CODEC_MAX_SNAPSHOTS ? v->n_snapshots : CODEC_MAX_SNAPSHOTS;
    CLEANUP_FREE ProtobufCBinaryData *snapshots = xcalloc(n, sizeof(*snapshots));
    CLEANUP_FREE char *text = text_for_people(r->reason.text), *said = NULL;
    Wire__Compared compared = WIRE__COMPARED__INIT;
    Wire__Mark mark = WIRE__MARK__INIT;
    Wire__Volume volume = WIRE__VOLUME__INIT;
    Wire__Report w = WIRE__REPORT__INIT;
    Wire__Reason reason = reason_out(&r->reason, text);

    mark.state = (Wire__MarkState)enum_out(&map_mark, v->mark.state);
    mark.epoch = v->mark.epoch;
    mark.transfer = v->mark.transfer;
    mark.snapshot = text_out(v->mark.snapshot);

    volume.present = v->present;
    volume.attached = v->attached;
    volume.attached_elsewhere = v->attached_elsewhere;
    volume.mounted = v->mounted;
    volume.partial = v->partial;
    volume.size = v->size;
    volume.device = text_out(v->device);
    volume.mark = &mark;
    for (size_t i = 0; i < n; i++)
        snapshots[i] = text_out(v->snapshots[v->n_snapshots - n + i]);
    volume.snapshots = snapshots;
    volume.n_snapshots = n;

    w.dataset = uuid_out(&v->dataset);
    w.volume = &volume;
    w.gone = r->gone;
    w.copied = r->copied;
    w.received = r->received;
    w.received_snapshot = text_out(r->received_snapshot);
    w.bytes_sent = r->bytes_sent;
    w.bytes_total = r->bytes_total;
    w.space_wanted = r->space_wanted;
    if (r->compared) {
        said = text_for_people(r->compared->text);
        compared.number = r->compared->number;
        compared.end = (Wire__ComparisonEnd)enum_out(&map_end, r->compared->end);
        compared.text = text_out(said);
        w.compared = &compared;
    }
    w.reason = &reason;
    m->report = &w;
    pack(&m->base, out);
}

static void encode_container_report(const struct container_report *c, Wire__AgentMessage *m,
                                    struct str *out)
{
    CLEANUP_FREE char *text = text_for_people(c->reason.text);
    Wire__ContainerReport w = WIRE__CONTAINER_REPORT__INIT;
    Wire__Reason reason = reason_out(&c->reason, text);

    w.name = text_out(c->name);
    w.run = (Wire__ContainerRun)enum_out(&map_run, c->run);
    w.image_ready = c->image_ready;
    w.created = c->created;
    w.health = (Wire__ContainerHealth)enum_out(&map_health, c->health);
    w.has_exit_code = c->has_exit_code;
    w.exit_code = c->exit_code;
    w.ended = c->ended;
    w.reason = &reason;
    m->container_report = &w;
    pack(&m->base, out);
}

static void encode_routes_report(const struct routes_report *r, Wire__AgentMessage *m, struct str *out)
{
    CLEANUP_FREE char *text = text_for_people(r->reason.text);
    Wire__RoutesReport w = WIRE__ROUTES_REPORT__INIT;
    Wire__Reason reason = reason_out(&r->reason, text);

    w.ports = r->ports;
    w.reason = &reason;
    m->routes_report = &w;
    pack(&m->base, out);
}

/* Metadata on the wire; they point into the model's. */
struct metadata_out {
    Wire__MetadataEntry *entries, **pointers;
};

static void metadata_out_done(struct metadata_out *o)
{
    free(o->entries);
    free(o->pointers);
}

static void metadata_out_fill(struct metadata_out *o, const struct metadata *m)
{
    o->entries = xcalloc(m->n, sizeof(*o->entries));
    o->pointers = xcalloc(m->n, sizeof(*o->pointers));
    for (size_t i = 0; i < m->n; i++) {
        wire__metadata_entry__init(&o->entries[i]);
        o->entries[i].key = text_out(m->entries[i].key);
        o->entries[i].value = text_out(m->entries[i].value);
        o->pointers[i] = &o->entries[i];
    }
}

static void encode_volume_call(const struct volume_call *c, Wire__AgentMessage *m, struct str *out)
{
    CLEANUP(metadata_out_done) struct metadata_out metadata = {0};
    Wire__VolumeCall w = WIRE__VOLUME_CALL__INIT;

    metadata_out_fill(&metadata, &c->metadata);
    w.number = c->number;
    w.kind = (Wire__VolumeCallKind)enum_out(&map_call, c->kind);
    w.name = text_out(c->name);
    w.dataset = uuid_out(&c->dataset);
    w.mount = text_out(c->mount);
    w.maximum_size = c->maximum_size;
    w.metadata = metadata.pointers;
    w.n_metadata = c->metadata.n;
    m->volume_call = &w;
    pack(&m->base, out);
}

static Wire__Sighting sighting_out(const struct sighting *s, char *clean_hosts)
{
    Wire__Sighting w = WIRE__SIGHTING__INIT;

    w.dataset = uuid_out(&s->dataset);
    w.present = s->present;
    w.size = s->size;
    w.hosts = text_out(clean_hosts);
    return w;
}

static void encode_agent_sighting(const struct sighting *s, Wire__AgentMessage *m, struct str *out)
{
    CLEANUP_FREE char *hosts = text_for_people(s->hosts);
    Wire__Sighting w = sighting_out(s, hosts);

    m->sighting = &w;
    pack(&m->base, out);
}

void codec_agent_encode(const struct agent_message *m, struct str *out)
{
    Wire__AgentMessage w = WIRE__AGENT_MESSAGE__INIT;
    Wire__DatasetGone dataset = WIRE__DATASET_GONE__INIT;
    Wire__ContainerGone container = WIRE__CONTAINER_GONE__INIT;
    Wire__ReportsComplete complete = WIRE__REPORTS_COMPLETE__INIT;
    Wire__SpaceReport space = WIRE__SPACE_REPORT__INIT;
    Wire__Ping ping = WIRE__PING__INIT;
    Wire__VolumeUse use = WIRE__VOLUME_USE__INIT;
    Wire__Marker marker = WIRE__MARKER__INIT;
    Wire__CallsReport calls = WIRE__CALLS_REPORT__INIT;

    switch (m->kind) {
    case AGENT_MESSAGE_SIGHTING:
        w.body_case = WIRE__AGENT_MESSAGE__BODY_SIGHTING;
        encode_agent_sighting(&m->sighting, &w, out);
        return;
    case AGENT_MESSAGE_SIGHTINGS_COMPLETE:
        w.body_case = WIRE__AGENT_MESSAGE__BODY_SIGHTINGS_COMPLETE;
        w.sightings_complete = &marker;
        break;
    case AGENT_MESSAGE_CALLS_REPORT:
        w.body_case = WIRE__AGENT_MESSAGE__BODY_CALLS_REPORT;
        calls.waiting = m->calls.waiting;
        calls.returned = m->calls.returned;
        calls.throttled = m->calls.throttled;
        w.calls_report = &calls;
        break;
    case AGENT_MESSAGE_HELLO:
        w.body_case = WIRE__AGENT_MESSAGE__BODY_HELLO;
        encode_hello(&m->hello, &w, out);
        return;
    case AGENT_MESSAGE_REPORT:
        w.body_case = WIRE__AGENT_MESSAGE__BODY_REPORT;
        encode_report(&m->report, &w, out);
        return;
    case AGENT_MESSAGE_CONTAINER_REPORT:
        w.body_case = WIRE__AGENT_MESSAGE__BODY_CONTAINER_REPORT;
        encode_container_report(&m->container, &w, out);
        return;
    case AGENT_MESSAGE_ROUTES_REPORT:
        w.body_case = WIRE__AGENT_MESSAGE__BODY_ROUTES_REPORT;
        encode_routes_report(&m->routes, &w, out);
        return;
    case AGENT_MESSAGE_VOLUME_CALL:
        w.body_case = WIRE__AGENT_MESSAGE__BODY_VOLUME_CALL;
        encode_volume_call(&m->call, &w, out);
        return;
    case AGENT_MESSAGE_VOLUME_USE:
        w.body_case = WIRE__AGENT_MESSAGE__BODY_VOLUME_USE;
        use.dataset = uuid_out(&m->use.dataset);
        use.name = text_out(m->use.name);
        use.mount = text_out(m->use.mount);
        w.volume_use = &use;
        break;
    case AGENT_MESSAGE_VOLUME_USES_COMPLETE:
        w.body_case = WIRE__AGENT_MESSAGE__BODY_VOLUME_USES_COMPLETE;
        w.volume_uses_complete = &marker;
        break;
    case AGENT_MESSAGE_SPACE_REPORT:
        w.body_case = WIRE__AGENT_MESSAGE__BODY_SPACE_REPORT;
        space.total = m->space.total;
        space.free = m->space.free;
        w.space_report = &space;
        break;
    case AGENT_MESSAGE_REPORT_GONE:
        w.body_case = WIRE__AGENT_MESSAGE__BODY_REPORT_GONE;
        dataset.dataset = uuid_out(&m->dataset);
        w.report_gone = &dataset;
        break;
    case AGENT_MESSAGE_CONTAINER_GONE:
        w.body_case = WIRE__AGENT_MESSAGE__BODY_CONTAINER_GONE;
        container.name = text_out(m->name);
        w.container_gone = &container;
        break;
    case AGENT_MESSAGE_REPORTS_COMPLETE:
        w.body_case = WIRE__AGENT_MESSAGE__BODY_REPORTS_COMPLETE;
        complete.storage_unknown = m->storage_unknown;
        w.reports_complete = &complete;
        break;
    case AGENT_MESSAGE_PING:
        w.body_case = WIRE__AGENT_MESSAGE__BODY_PING;
        ping.counter = m->counter;
        w.ping = &ping;
        break;
    case AGENT_MESSAGE_PONG:
        w.body_case = WIRE__AGENT_MESSAGE__BODY_PONG;
        ping.counter = m->counter;
        w.pong = &ping;
        break;
    case AGENT_MESSAGE_KIND_MAX:
        break;
    }
    assert(w.body_case != WIRE__AGENT_MESSAGE__BODY__NOT_SET);
    pack(&w.base, out);
}

static void encode_order(const struct order *o, Wire__ControlMessage *m, struct str *out)
{
    Wire__Order w = WIRE__ORDER__INIT;
    CLEANUP(metadata_out_done) struct metadata_out metadata = {0};
    CLEANUP_FREE ProtobufCBinaryData *fenced = xcalloc(o->n_fenced, sizeof(*fenced));

    w.dataset = uuid_out(&o->dataset);
    w.revision = o->revision;
    w.role = (Wire__Role)enum_out(&map_role, o->role);
    w.epoch = o->epoch;
    w.born = o->born;
    w.base_snapshot = text_out(o->base);
    w.keep_snapshot = text_out(o->keep);
    w.compare = o->compare;
    w.transfer = o->transfer;
    w.peer = uuid_out(&o->peer);
    w.peer_host = text_out(o->peer_host);
    w.peer_port = o->peer_port;
    w.number = o->number;
    w.maximum_size = o->maximum_size;
    metadata_out_fill(&metadata, &o->metadata);
    w.metadata = metadata.pointers;
    w.n_metadata = o->metadata.n;
    for (size_t i = 0; i < o->n_fenced; i++)
        fenced[i] = uuid_out(&o->fenced[i]);
    w.fenced = fenced;
    w.n_fenced = o->n_fenced;
    m->order = &w;
    pack(&m->base, out);
}

/* The lists of a container on the wire; they point into the container. */
struct container_lists {
    Wire__Port *ports;
    Wire__Port **port_pointers;
    Wire__Link *links;
    Wire__Link **link_pointers;
    Wire__Variable *variables;
    Wire__Variable **variable_pointers;
    ProtobufCBinaryData *arguments;
    ProtobufCBinaryData *entrypoint;
    ProtobufCBinaryData *test;
    Wire__Variable *labels;
    Wire__Variable **label_pointers;
    Wire__Dependency *dependencies;
    Wire__Dependency **dependency_pointers;
    Wire__AttachedVolume *volumes;
    Wire__AttachedVolume **volume_pointers;
};

static void lists_done(struct container_lists *l)
{
    free(l->ports);
    free(l->port_pointers);
    free(l->links);
    free(l->link_pointers);
    free(l->variables);
    free(l->variable_pointers);
    free(l->arguments);
    free(l->entrypoint);
    free(l->test);
    free(l->labels);
    free(l->label_pointers);
    free(l->dependencies);
    free(l->dependency_pointers);
    free(l->volumes);
    free(l->volume_pointers);
}

static ProtobufCBinaryData *strings_out(char *const *strings, size_t n)
{
    ProtobufCBinaryData *out = xcalloc(n, sizeof(*out));

    for (size_t i = 0; i < n; i++)
        out[i] = text_out(strings[i]);
    return out;
}

static void entries_out(const struct env_entry *entries, size_t n, Wire__Variable **ret,
                        Wire__Variable ***ret_pointers)
{
    Wire__Variable *out = xcalloc(n, sizeof(*out));
    Wire__Variable **pointers = xcalloc(n, sizeof(Wire__Variable *));

    for (size_t i = 0; i < n; i++) {
        wire__variable__init(&out[i]);
        out[i].name = text_out(entries[i].name);
        out[i].value = text_out(entries[i].value);
        pointers[i] = &out[i];
    }
    *ret = out;
    *ret_pointers = pointers;
}

static void lists_fill_extended(struct container_lists *l, const struct container *c)
{
    l->entrypoint = strings_out(c->entrypoint, c->n_entrypoint);
    entries_out(c->labels, c->n_labels, &l->labels, &l->label_pointers);
    if (c->health)
        l->test = strings_out(c->health->test, c->health->n_test);
    l->dependencies = xcalloc(c->n_depends_on, sizeof(*l->dependencies));
    l->dependency_pointers = xcalloc(c->n_depends_on, sizeof(*l->dependency_pointers));
    for (size_t i = 0; i < c->n_depends_on; i++) {
        wire__dependency__init(&l->dependencies[i]);
        l->dependencies[i].name = text_out(c->depends_on[i].name);
        l->dependencies[i].condition =
            (Wire__DependencyCondition)enum_out(&map_condition, c->depends_on[i].condition);
        l->dependency_pointers[i] = &l->dependencies[i];
    }
}

static void lists_fill_volumes(struct container_lists *l, const struct container *c)
{
    l->volumes = xcalloc(c->n_volumes, sizeof(*l->volumes));
    l->volume_pointers = xcalloc(c->n_volumes, sizeof(*l->volume_pointers));
    for (size_t i = 0; i < c->n_volumes; i++) {
        wire__attached_volume__init(&l->volumes[i]);
        l->volumes[i].dataset = uuid_out(&c->volumes[i].dataset);
        l->volumes[i].mountpoint = text_out(c->volumes[i].mountpoint);
        l->volumes[i].read_only = c->volumes[i].read_only;
        l->volume_pointers[i] = &l->volumes[i];
    }
}

static void lists_fill(struct container_lists *l, const struct container *c)
{
    l->ports = xcalloc(c->n_ports, sizeof(*l->ports));
    l->port_pointers = xcalloc(c->n_ports, sizeof(*l->port_pointers));
    for (size_t i = 0; i < c->n_ports; i++) {
        wire__port__init(&l->ports[i]);
        l->ports[i].internal = c->ports[i].internal;
        l->ports[i].external = c->ports[i].external;
        l->port_pointers[i] = &l->ports[i];
    }
    l->links = xcalloc(c->n_links, sizeof(*l->links));
    l->link_pointers = xcalloc(c->n_links, sizeof(*l->link_pointers));
    for (size_t i = 0; i < c->n_links; i++) {
        wire__link__init(&l->links[i]);
        l->links[i].alias = text_out(c->links[i].alias);
        l->links[i].local_port = c->links[i].local_port;
        l->links[i].remote_port = c->links[i].remote_port;
        l->link_pointers[i] = &l->links[i];
    }
    entries_out(c->environment, c->n_environment, &l->variables, &l->variable_pointers);
    l->arguments = strings_out(c->command_line, c->n_command_line);
    lists_fill_volumes(l, c);
    lists_fill_extended(l, c);
}

static void container_fill(Wire__Container *w, const struct container *c,
                           const struct container_lists *l)
{
    w->name = text_out(c->name);
    w->revision = c->revision;
    w->created = c->created;
    w->ended = c->ended;
    w->node = uuid_out(&c->node);
    w->image = text_out(c->image);
    w->ports = l->port_pointers;
    w->n_ports = c->n_ports;
    w->links = l->link_pointers;
    w->n_links = c->n_links;
    w->environment = l->variable_pointers;
    w->n_environment = c->n_environment;
    w->volumes = l->volume_pointers;
    w->n_volumes = c->n_volumes;
    w->cpu_shares = c->cpu_shares;
    w->memory_limit = c->memory_limit;
    w->restart_policy = (Wire__RestartPolicy)enum_out(&map_policy, c->restart_policy);
    w->maximum_retry_count = c->maximum_retry_count;
}

/* The parts of ExtendedSettings, which point at each other. */
struct extended_out {
    Wire__ExtendedSettings settings;
    Wire__CommandLine entrypoint;
    Wire__HealthCheck health;
};

static void extended_fill(struct extended_out *x, const struct container *c, const struct container_lists *l)
{
    Wire__ExtendedSettings *w = &x->settings;

    wire__extended_settings__init(w);
    if (c->has_entrypoint) {
        wire__command_line__init(&x->entrypoint);
        x->entrypoint.arguments = l->entrypoint;
        x->entrypoint.n_arguments = c->n_entrypoint;
        w->entrypoint = &x->entrypoint;
    }
    w->user = text_out(c->user);
    w->working_dir = text_out(c->working_dir);
    w->stop_signal = text_out(c->stop_signal);
    w->stop_grace_ms = c->stop_grace_ms;
    w->labels = l->label_pointers;
    w->n_labels = c->n_labels;
    w->nano_cpus = c->nano_cpus;
    w->depends_on = l->dependency_pointers;
    w->n_depends_on = c->n_depends_on;
    if (!c->health)
        return;
    wire__health_check__init(&x->health);
    x->health.test = l->test;
    x->health.n_test = c->health->n_test;
    x->health.disabled = c->health->disabled;
    x->health.interval_ms = c->health->interval_ms;
    x->health.timeout_ms = c->health->timeout_ms;
    x->health.start_period_ms = c->health->start_period_ms;
    x->health.retries = c->health->retries;
    w->health = &x->health;
}

static void encode_container_order(const struct container_order *o, Wire__ControlMessage *m,
                                   struct str *out)
{
    const struct container *c = o->config;
    CLEANUP(lists_done) struct container_lists lists = {0};
    Wire__ContainerOrder w = WIRE__CONTAINER_ORDER__INIT;
    Wire__Container container = WIRE__CONTAINER__INIT;
    Wire__CommandLine command_line = WIRE__COMMAND_LINE__INIT;
    Wire__Swappiness swappiness = WIRE__SWAPPINESS__INIT;

    lists_fill(&lists, c);
    container_fill(&container, c, &lists);
    if (c->has_command_line) {
        command_line.arguments = lists.arguments;
        command_line.n_arguments = c->n_command_line;
        container.command_line = &command_line;
    }
    if (c->swappiness != UINT32_MAX) {
        swappiness.percent = c->swappiness;
        container.swappiness = &swappiness;
    }
    struct extended_out extended;
    if (container_is_extended(c)) {
        extended_fill(&extended, c, &lists);
        container.extended = &extended.settings;
    }
    w.action = (Wire__ContainerAction)enum_out(&map_action, o->action);
    w.config = &container;
    w.hold = o->hold;
    m->container_order = &w;
    pack(&m->base, out);
}

static void encode_welcome(const struct welcome *welcome, Wire__ControlMessage *m, struct str *out)
{
    Wire__Welcome w = WIRE__WELCOME__INIT;

    w.protocol = welcome->protocol;
    w.store = uuid_out(&welcome->store);
    w.revision = welcome->revision;
    w.generation = uuid_out(&welcome->generation);
    w.known = uuid_out(&welcome->known);
    w.known_until = welcome->known_until;
    w.routes = welcome->routes;
    w.volumes = welcome->volumes;
    w.space = welcome->space;
    w.calls = welcome->calls;
    m->welcome = &w;
    pack(&m->base, out);
}

static void encode_route(const struct port_route *r, Wire__ControlMessage *m, struct str *out)
{
    Wire__Route w = WIRE__ROUTE__INIT;

    w.port = r->port;
    w.node = uuid_out(&r->node);
    w.host = text_out(r->host);
    w.container = text_out(r->container);
    m->route = &w;
    pack(&m->base, out);
}

static void encode_volume_answer(const struct volume_answer *a, Wire__ControlMessage *m, struct str *out)
{
    CLEANUP_FREE char *text = text_for_people(a->text);
    Wire__VolumeAnswer w = WIRE__VOLUME_ANSWER__INIT;

    w.number = a->number;
    w.code = (Wire__VolumeCode)enum_out(&map_code, a->code);
    w.text = text_out(text);
    w.dataset = uuid_out(&a->dataset);
    w.revision = a->revision;
    w.epoch = a->epoch;
    m->volume_answer = &w;
    pack(&m->base, out);
}

static void encode_volume(const struct volume_entry *v, Wire__ControlMessage *m, struct str *out)
{
    CLEANUP_FREE char *why = text_for_people(v->reason.text), *holder = text_for_people(v->holder_text);
    Wire__VolumeEntry w = WIRE__VOLUME_ENTRY__INIT;
    Wire__Reason reason = reason_out(&v->reason, why);

    w.dataset = uuid_out(&v->dataset);
    w.name = text_out(v->name);
    w.home = uuid_out(&v->home);
    w.home_host = text_out(v->home_host);
    w.owner = uuid_out(&v->owner);
    w.maximum_size = v->maximum_size;
    w.profile = text_out(v->profile);
    w.born = v->born;
    w.holder = (Wire__HolderKind)enum_out(&map_holder, v->holder);
    w.holder_node = uuid_out(&v->holder_node);
    w.holder_since_us = v->holder_since_us;
    w.holder_text = text_out(holder);
    if (v->reason.code != REASON_NONE)
        w.reason = &reason;
    m->volume = &w;
    pack(&m->base, out);
}

static void encode_control_sighting(const struct sighting *s, Wire__ControlMessage *m, struct str *out)
{
    CLEANUP_FREE char *hosts = text_for_people(s->hosts);
    Wire__Sighting w = sighting_out(s, hosts);

    m->sighting = &w;
    pack(&m->base, out);
}

static void encode_refused(const char *text, Wire__ControlMessage *m, struct str *out)
{
    CLEANUP_FREE char *clean = text_for_people(text);
    Wire__Refused w = WIRE__REFUSED__INIT;

    w.text = text_out(clean);
    m->refused = &w;
    pack(&m->base, out);
}

void codec_control_encode(const struct control_message *m, struct str *out)
{
    Wire__ControlMessage w = WIRE__CONTROL_MESSAGE__INIT;
    Wire__DatasetGone dataset = WIRE__DATASET_GONE__INIT;
    Wire__ContainerGone container = WIRE__CONTAINER_GONE__INIT;
    Wire__Marker marker = WIRE__MARKER__INIT;
    Wire__Ping ping = WIRE__PING__INIT;
    Wire__RouteNone route_none = WIRE__ROUTE_NONE__INIT;
    Wire__ListOrder list = WIRE__LIST_ORDER__INIT;
    Wire__CallsShare share = WIRE__CALLS_SHARE__INIT;

    switch (m->kind) {
    case CONTROL_MESSAGE_SIGHTING:
        w.body_case = WIRE__CONTROL_MESSAGE__BODY_SIGHTING;
        encode_control_sighting(&m->sighting, &w, out);
        return;
    case CONTROL_MESSAGE_LIST_ORDER:
        w.body_case = WIRE__CONTROL_MESSAGE__BODY_LIST_ORDER;
        list.duty = (Wire__ListDuty)enum_out(&map_duty, m->list_order.duty);
        list.interval_s = m->list_order.interval_s;
        w.list_order = &list;
        break;
    case CONTROL_MESSAGE_CALLS_SHARE:
        w.body_case = WIRE__CONTROL_MESSAGE__BODY_CALLS_SHARE;
        share.per_hour = m->share.per_hour;
        share.burst = m->share.burst;
        share.handed = m->share.handed;
        w.calls_share = &share;
        break;
    case CONTROL_MESSAGE_WELCOME:
        w.body_case = WIRE__CONTROL_MESSAGE__BODY_WELCOME;
        encode_welcome(&m->welcome, &w, out);
        return;
    case CONTROL_MESSAGE_ORDER:
        w.body_case = WIRE__CONTROL_MESSAGE__BODY_ORDER;
        encode_order(&m->order, &w, out);
        return;
    case CONTROL_MESSAGE_CONTAINER_ORDER:
        w.body_case = WIRE__CONTROL_MESSAGE__BODY_CONTAINER_ORDER;
        encode_container_order(&m->container, &w, out);
        return;
    case CONTROL_MESSAGE_REFUSED:
        w.body_case = WIRE__CONTROL_MESSAGE__BODY_REFUSED;
        encode_refused(m->text, &w, out);
        return;
    case CONTROL_MESSAGE_ROUTE:
        w.body_case = WIRE__CONTROL_MESSAGE__BODY_ROUTE;
        encode_route(&m->route, &w, out);
        return;
    case CONTROL_MESSAGE_VOLUME_ANSWER:
        w.body_case = WIRE__CONTROL_MESSAGE__BODY_VOLUME_ANSWER;
        encode_volume_answer(&m->answer, &w, out);
        return;
    case CONTROL_MESSAGE_VOLUME:
        w.body_case = WIRE__CONTROL_MESSAGE__BODY_VOLUME;
        encode_volume(&m->volume, &w, out);
        return;
    case CONTROL_MESSAGE_VOLUMES_COMPLETE:
        w.body_case = WIRE__CONTROL_MESSAGE__BODY_VOLUMES_COMPLETE;
        w.volumes_complete = &marker;
        break;
    case CONTROL_MESSAGE_VOLUME_NONE:
        w.body_case = WIRE__CONTROL_MESSAGE__BODY_VOLUME_NONE;
        dataset.dataset = uuid_out(&m->dataset);
        w.volume_none = &dataset;
        break;
    case CONTROL_MESSAGE_ROUTE_NONE:
        w.body_case = WIRE__CONTROL_MESSAGE__BODY_ROUTE_NONE;
        route_none.port = m->port;
        w.route_none = &route_none;
        break;
    case CONTROL_MESSAGE_ORDER_NONE:
        w.body_case = WIRE__CONTROL_MESSAGE__BODY_ORDER_NONE;
        dataset.dataset = uuid_out(&m->dataset);
        w.order_none = &dataset;
        break;
    case CONTROL_MESSAGE_CONTAINER_NONE:
        w.body_case = WIRE__CONTROL_MESSAGE__BODY_CONTAINER_NONE;
        container.name = text_out(m->name);
        w.container_none = &container;
        break;
    case CONTROL_MESSAGE_ORDERS_COMPLETE:
        w.body_case = WIRE__CONTROL_MESSAGE__BODY_ORDERS_COMPLETE;
        w.orders_complete = &marker;
        break;
    case CONTROL_MESSAGE_PING:
        w.body_case = WIRE__CONTROL_MESSAGE__BODY_PING;
        ping.counter = m->counter;
        w.ping = &ping;
        break;
    case CONTROL_MESSAGE_PONG:
        w.body_case = WIRE__CONTROL_MESSAGE__BODY_PONG;
        ping.counter = m->counter;
        w.pong = &ping;
        break;
    case CONTROL_MESSAGE_KIND_MAX:
        break;
    }
    assert(w.body_case != WIRE__CONTROL_MESSAGE__BODY__NOT_SET);
    pack(&w.base, out);
}
