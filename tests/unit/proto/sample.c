#include "sample.h"

#include "../model/extended.h"

#include <stdio.h>

static struct uuid uuid_of(uint8_t first)
{
    struct uuid id;

    for (size_t i = 0; i < sizeof(id.b); i++)
        id.b[i] = (uint8_t)(first + i);
    return id;
}

static struct reason sample_reason(void)
{
    return (struct reason){.code = REASON_VOLUME_BUSY,
                           .text = xstrdup("/flocker/x is used by pid 17 \xe2\x82\xac"),
                           .since_us = 0x1122334455667788,
                           .retry_us = UINT64_MAX};
}

static struct hello sample_hello(void)
{
    return (struct hello){.protocol = 7,
                          .node = uuid_of(1),
                          .era = uuid_of(2),
                          .version = xstrdup("2.0.0"),
                          .host = xstrdup("192.0.2.7"),
                          .mover_port = 65535,
                          .routes = true,
                          .volumes = true,
                          .storage = STORAGE_ATTACHABLE,
                          .backend = xstrdup("loopback"),
                          .shared_by = uuid_of(3),
                          .store = uuid_of(4),
                          .generation = uuid_of(5),
                          .seen_revision = 0x8000000000000001,
                          .replicas = REPLICAS_NO_LIMIT,
                          .compares = true,
                          .extended = true,
                          .lists = true,
                          .calls = true};
}

static struct report sample_report(void)
{
    struct report r = {.volume = {.dataset = uuid_of(10),
                                  .present = true,
                                  .attached = true,
                                  .attached_elsewhere = true,
                                  .mounted = true,
                                  .partial = true,
                                  .size = 1ull << 40,
                                  .mark = {MARK_RELEASED, 41, 42, "final-42"},
                                  .n_snapshots = 3},
                       .gone = 43,
                       .copied = 44,
                       .received = 45,
                       .received_snapshot = xstrdup("t45-9"),
                       .bytes_sent = 46,
                       .bytes_total = 47,
                       .space_wanted = true,
                       .reason = sample_reason()};

    r.compared = xcalloc(1, sizeof(*r.compared));
    *r.compared = (struct compared){48, COMPARISON_DIFFERS, xstrdup("the copy is not the same")};
    r.volume.device = xstrdup("/dev/loop3");
    r.volume.snapshots = xcalloc(3, sizeof(*r.volume.snapshots));
    for (int i = 0; i < 3; i++)
        snprintf(r.volume.snapshots[i], SNAPSHOT_NAME_SIZE, "t45-%d", i);
    return r;
}

struct agent_message sample_agent_message(enum agent_message_kind kind)
{
    struct agent_message m = {.kind = kind};

    switch (kind) {
    case AGENT_MESSAGE_HELLO:
        m.hello = sample_hello();
        break;
    case AGENT_MESSAGE_REPORT:
        m.report = sample_report();
        break;
    case AGENT_MESSAGE_REPORT_GONE:
        m.dataset = uuid_of(20);
        break;
    case AGENT_MESSAGE_CONTAINER_REPORT:
        m.container = (struct container_report){.name = xstrdup("web-1"),
                                                .run = CONTAINER_EXITED,
                                                .image_ready = true,
                                                .created = 99,
                                                .health = HEALTH_UNHEALTHY,
                                                .has_exit_code = true,
                                                .ended = true,
                                                .exit_code = -7,
                                                .reason = sample_reason()};
        break;
    case AGENT_MESSAGE_CONTAINER_GONE:
        m.name = xstrdup("web.2_x");
        break;
    case AGENT_MESSAGE_REPORTS_COMPLETE:
        m.storage_unknown = true;
        break;
    case AGENT_MESSAGE_KIND_MAX:
        break;
    case AGENT_MESSAGE_VOLUME_CALL:
        m.call = (struct volume_call){.number = 3,
                                      .kind = VOLUME_CREATE,
                                      .name = xstrdup("orders"),
                                      .dataset = uuid_of(21),
                                      .mount = xstrdup("m1"),
                                      .maximum_size = 1u << 30};
        m.call.metadata.entries = xcalloc(1, sizeof(*m.call.metadata.entries));
        m.call.metadata.entries[0] = (struct metadata_entry){xstrdup("owner"), xstrdup("me")};
        m.call.metadata.n = 1;
        break;
    case AGENT_MESSAGE_VOLUME_USE:
        m.use = (struct volume_use){.dataset = uuid_of(22), .name = xstrdup("orders"), .mount = xstrdup("m2")};
        break;
    case AGENT_MESSAGE_VOLUME_USES_COMPLETE:
        break;
    case AGENT_MESSAGE_ROUTES_REPORT:
        m.routes = (struct routes_report){.ports = 7, .reason = sample_reason()};
        break;
    case AGENT_MESSAGE_SPACE_REPORT:
        m.space = (struct space){INT64_MAX, INT64_MAX - 1};
        break;
    case AGENT_MESSAGE_SIGHTING:
        m.sighting = (struct sighting){uuid_of(23), true, 1ull << 40, xstrdup("i-0a1 i-0b2")};
        break;
    case AGENT_MESSAGE_SIGHTINGS_COMPLETE:
        break;
    case AGENT_MESSAGE_CALLS_REPORT:
        m.calls = (struct calls_report){3, UINT64_MAX - 3, UINT64_MAX - 4};
        break;
    case AGENT_MESSAGE_PING:
    case AGENT_MESSAGE_PONG:
        m.counter = UINT64_MAX - 1;
        break;
    }
    return m;
}

static struct order sample_order(void)
{
    struct order o = {.dataset = uuid_of(30),
                      .revision = 300,
                      .role = ROLE_SOURCE,
                      .epoch = 301,
                      .born = true,
                      .base = xstrdup("t45-9"),
                      .keep = xstrdup("t44-final"),
                      .transfer = 302,
                      .peer = uuid_of(31),
                      .peer_host = xstrdup("node2.example"),
                      .peer_port = 4525,
                      .number = 303,
                      .maximum_size = 1ull << 33};

    order_add_fenced(&o, &(struct uuid){.b = {32}});
    order_add_fenced(&o, &(struct uuid){.b = {33}});
    o.metadata.n = 2;
    o.metadata.entries = xcalloc(2, sizeof(*o.metadata.entries));
    o.metadata.entries[0] =
        (struct metadata_entry){xstrdup("name"), xstrdup("caf\xc3\xa9\nline 2")};
    o.metadata.entries[1] = (struct metadata_entry){xstrdup("empty"), xstrdup("")};
    return o;
}

static struct container *sample_container(void)
{
    struct container *c = container_new("db");

    c->revision = 400;
    c->created = 390;
    c->node = uuid_of(40);
    c->image = xstrdup("busybox:latest");
    c->n_ports = 2;
    c->ports = xcalloc(2, sizeof(*c->ports));
    c->ports[0] = (struct port){80, 8080};
    c->ports[1] = (struct port){65535, 0};
    c->n_links = 1;
    c->links = xcalloc(1, sizeof(*c->links));
    c->links[0] = (struct link){xstrdup("cache"), 6379, 16379};
    c->n_environment = 2;
    c->environment = xcalloc(2, sizeof(*c->environment));
    c->environment[0] = (struct env_entry){xstrdup("USER"), xstrdup("shop")};
    c->environment[1] = (struct env_entry){xstrdup("EMPTY"), xstrdup("")};
    c->n_command_line = 3;
    c->command_line = xcalloc(3, sizeof(*c->command_line));
    c->command_line[0] = xstrdup("sh");
    c->command_line[1] = xstrdup("-c");
    c->command_line[2] = xstrdup("echo\t1\nsleep 9");
    c->has_command_line = true;
    c->cpu_shares = 1024;
    c->memory_limit = 1ull << 35;
    c->swappiness = 0; /* differs from absent */
    c->restart_policy = RESTART_ON_FAILURE;
    c->maximum_retry_count = 5;
    c->ended = true;
    container_add_volume(c, &(struct uuid){{0}}, "/var/lib/data dir", true);
    c->volumes[0].dataset = uuid_of(41);
    container_add_volume(c, &(struct uuid){{0}}, "/var/lib/data dir/wal", false);
    c->volumes[1].dataset = uuid_of(42);
    container_extend(c);
    return c;
}

struct control_message sample_control_message(enum control_message_kind kind)
{
    struct control_message m = {.kind = kind};

    switch (kind) {
    case CONTROL_MESSAGE_WELCOME:
        m.welcome = (struct welcome){.protocol = 9,
                                     .store = uuid_of(50),
                                     .revision = UINT64_MAX,
                                     .generation = uuid_of(51),
                                     .known = uuid_of(52),
                                     .known_until = UINT64_MAX - 1,
                                     .routes = true,
                                     .volumes = true,
                                     .calls = true};
        break;
    case CONTROL_MESSAGE_ORDER:
        m.order = sample_order();
        break;
    case CONTROL_MESSAGE_ORDER_NONE:
        m.dataset = uuid_of(51);
        break;
    case CONTROL_MESSAGE_CONTAINER_ORDER:
        m.container = (struct container_order){CONTAINER_RUN, sample_container(), true};
        break;
    case CONTROL_MESSAGE_CONTAINER_NONE:
        m.name = xstrdup("db");
        break;
    case CONTROL_MESSAGE_ORDERS_COMPLETE:
    case CONTROL_MESSAGE_KIND_MAX:
        break;
    case CONTROL_MESSAGE_REFUSED:
        m.text = xstrdup("two machines use one certificate");
        break;
    case CONTROL_MESSAGE_ROUTE:
        m.route = (struct port_route){.port = 5432, .node = uuid_of(60), .host = xstrdup("10.0.0.3"), .container = xstrdup("db")};
        break;
    case CONTROL_MESSAGE_VOLUME_ANSWER:
        m.answer = (struct volume_answer){.number = UINT64_MAX,
                                          .code = VOLUME_HELD,
                                          .text = xstrdup("node 3f0c9c1e has it"),
                                          .dataset = uuid_of(61),
                                          .revision = 7,
                                          .epoch = UINT64_MAX - 2};
        break;
    case CONTROL_MESSAGE_VOLUME:
        m.volume = (struct volume_entry){.dataset = uuid_of(62),
                                         .name = xstrdup("orders"),
                                         .home = uuid_of(63),
                                         .home_host = xstrdup("10.0.0.3"),
                                         .owner = uuid_of(64),
                                         .maximum_size = 1u << 30,
                                         .profile = xstrdup("gold"),
                                         .born = true,
                                         .holder = HOLDER_MOUNTS,
                                         .holder_node = uuid_of(65),
                                         .holder_since_us = 1479811200000000,
                                         .holder_text = xstrdup("Docker has it"),
                                         .reason = sample_reason()};
        break;
    case CONTROL_MESSAGE_VOLUMES_COMPLETE:
        break;
    case CONTROL_MESSAGE_VOLUME_NONE:
        m.dataset = uuid_of(66);
        break;
    case CONTROL_MESSAGE_ROUTE_NONE:
        m.port = 65535;
        break;
    case CONTROL_MESSAGE_LIST_ORDER:
        m.list_order = (struct list_order){LIST_FOR_ALL, 300};
        break;
    case CONTROL_MESSAGE_SIGHTING:
        m.sighting = (struct sighting){.dataset = uuid_of(67)};
        break;
    case CONTROL_MESSAGE_CALLS_SHARE:
        m.share = (struct calls_share){72000, 500, UINT64_MAX - 5};
        break;
    case CONTROL_MESSAGE_PING:
    case CONTROL_MESSAGE_PONG:
        m.counter = 1;
        break;
    }
    return m;
}
