/* Files that programs of ours read. The first byte chooses:
 *   d, c, l  the store's records: what is read is written again the same
 *   m        an ownership mark
 *   w        an agent's memory of the store it obeys
 *   p        the record of which pool it was
 *   n        the name of a loopback volume
 *   y        YAML: JSON of what was read is YAML for the same
 *   a        agent.yml; its `dataset` section is shown to every backend
 *   f        cluster.yml and agent.yml as flockerctl reads them */
#include "fuzz.h"

#include "agent/config.h"
#include "agent/memory.h"
#include "model/yaml_json.h"
#include "cli/cluster_yml.h"
#include "cli/deploy_compose.h"
#include "cli/interpolate.h"
#include "drivers/btrfs/btrfs.h"
#include "drivers/driver.h"
#include "drivers/loopback/name.h"
#include "drivers/mark.h"
#include "model/record.h"

#define TEXT_SIMPLE_KEY_MAX 1000 /* YAML allows 1024 in front of a colon */

static void check_records(const char *first, const char *second)
{
    RULE(first && second && streq(first, second));
}

static void dataset(const char *text, size_t n)
{
    struct dataset *d = NULL, *again = NULL;

    if (fuzz_refused(record_dataset_decode(text, n, &d), ERR_CORRUPT))
        return;
    CLEANUP_FREE char *first = record_dataset_encode(d);
    RULE(first && !record_dataset_decode(first, strlen(first), &again));
    CLEANUP_FREE char *second = record_dataset_encode(again);
    check_records(first, second);
    dataset_free(d);
    dataset_free(again);
}

static void container(const char *text, size_t n)
{
    struct container *c = NULL, *again = NULL;

    if (fuzz_refused(record_container_decode(text, n, &c), ERR_CORRUPT))
        return;
    CLEANUP_FREE char *first = record_container_encode(c);
    RULE(first && !record_container_decode(first, strlen(first), &again));
    CLEANUP_FREE char *second = record_container_encode(again);
    check_records(first, second);
    RULE(container_same_settings(c, again));
    container_free(c);
    container_free(again);
}

static void lease(const char *text, size_t n)
{
    struct lease l, again;

    if (fuzz_refused(record_lease_decode(text, n, &l), ERR_CORRUPT))
        return;
    CLEANUP_FREE char *first = record_lease_encode(&l);
    RULE(first && !record_lease_decode(first, strlen(first), &again));
    CLEANUP_FREE char *second = record_lease_encode(&again);
    check_records(first, second);
    lease_done(&l);
    lease_done(&again);
}

static void fence(const char *text, size_t n)
{
    struct fence *f = NULL, *again = NULL;

    if (fuzz_refused(record_fence_decode(text, n, &f), ERR_CORRUPT))
        return;
    CLEANUP_FREE char *first = record_fence_encode(f);
    RULE(first && !record_fence_decode(first, strlen(first), &again));
    CLEANUP_FREE char *second = record_fence_encode(again);
    check_records(first, second);
    fence_free(f);
    fence_free(again);
}

static void mark(const char *text)
{
    struct volume_mark m;
    char again[MARK_TEXT_MAX];

    if (!mark_parse(text, &m))
        return;
    RULE(m.state > MARK_NONE && m.state < MARK_STATE_MAX && m.epoch);
    RULE(!*m.snapshot || snapshot_name_is_valid(m.snapshot));
    mark_format(&m, again);
    RULE(streq(text, again));
}

static void memory(const char *text, size_t n)
{
    struct node_memory m, again;

    if (!memory_parse(text, n, &m))
        return;
    CLEANUP_FREE char *written = memory_format(&m);
    RULE(memory_parse(written, strlen(written), &again) && uuid_eq(&m.store, &again.store) &&
         m.seen_revision == again.seen_revision);
}

static void pool_record(const char *text)
{
    const char *path = strlen(text) > UUID_TEXT_SIZE ? text + UUID_TEXT_SIZE : "/";
    struct uuid u;

    if (!pool_record_parse(text, path, &u))
        return;
    CLEANUP_FREE char *again = xasprintf("%s %s", UUID_STR(&u), path);
    RULE(strcasecmp(text, again) == 0);
    RULE(!pool_record_parse(text, "/another", &u));
}

static void volume_name(const char *text)
{
    struct uuid u, u2;
    uint64_t size, size2;

    if (!loopback_name_parse(text, &u, &size))
        return;
    CLEANUP_FREE char *name = loopback_name(&u, size);
    RULE(loopback_name_parse(name, &u2, &size2) && uuid_eq(&u, &u2) && size == size2);
}

/* libyaml takes no escaped halves of characters and no raw control characters; JSON has both. */
static bool is_yaml(const char *text)
{
    return !strstr(text, "\\ud") && !strstr(text, "\\uD") && !strchr(text, 0x7f);
}

static void yaml(const char *text, size_t n)
{
    json_t *v = NULL, *again = NULL;

    if (fuzz_refused(yaml_load(text, n, &v), ERR_INVALID))
        return;
    CLEANUP_FREE char *json = json_dumps(v, JSON_ENSURE_ASCII | JSON_ENCODE_ANY);
    if (strlen(json) <= TEXT_SIMPLE_KEY_MAX && is_yaml(json)) {
        RULE(!yaml_load(json, strlen(json), &again) && json_equal(v, again));
        json_decref(again);
    }
    json_decref(v);
}

static void agent_yml(const char *text, size_t n)
{
    static const char *const names[] = {"btrfs", "fake", "loopback"};
    struct agent_config c;

    if (fuzz_refused(agent_config_parse(text, n, &c), ERR_INVALID))
        return;
    RULE(*c.control_host && c.control_port && c.docker_socket[0] == '/');
    RULE(c.stop_timeout_s >= 1 && c.stop_timeout_s <= 3600 && json_is_object(c.dataset));
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        const struct driver *d;
        RULE(!driver_find(names[i], &d));
        if (!fuzz_refused(driver_check_options(d, c.dataset), ERR_INVALID)) {
            RULE(driver_option_size(c.dataset, "size", 1) > 0);
            RULE(driver_option_string(c.dataset, "backend", NULL));
        }
    }
    agent_config_done(&c);
}

static void ctl_yml(const char *text, size_t n)
{
    struct cluster_yml c;
    char *host = NULL;

    if (!fuzz_refused(cluster_yml_parse(text, n, &c), ERR_INVALID)) {
        RULE((!c.user || *c.user) && (!c.control_service || *c.control_service));
        cluster_yml_done(&c);
    }
    if (!fuzz_refused(agent_yml_control_service(text, n, &host), ERR_INVALID))
        RULE(!host || *host);
    free(host);
}

/* Names that begin with a capital are set, to what a variable must not be expanded in again. */
static const char *find_variable(void *cookie, const char *name)
{
    return *name >= 'A' && *name <= 'Z' ? "$x" : NULL;
}

static void variables_file(const char *text)
{
    struct variables v = {.find = find_variable};
    json_t *all = json_object(), *value;
    const char *name;

    if (!fuzz_refused(env_file_read(text, &v, all), ERR_INVALID)) {
        json_object_foreach (all, name, value)
            RULE(*name && (json_is_string(value) || json_is_null(value)));
    }
    json_decref(all);
}

/* A Compose file as JSON. */
static void variables_in(const char *text, size_t n)
{
    struct variables v = {.find = find_variable, .unset = json_object()};
    json_t *value = json_loadb(text, n, JSON_REJECT_DUPLICATES, NULL), *before = json_deep_copy(value);
    CLEANUP_FREE char *plain = xstrndup(text, n);

    if (value && !fuzz_refused(deploy_merge_keys(value), ERR_INVALID) &&
        !fuzz_refused(interpolate_all(value, &v), ERR_INVALID))
        RULE(strchr(plain, '$') || strstr(plain, "<<") || strchr(plain, '\\') || json_equal(value, before));
    RULE(!json_object_get(v.unset, "A"));
    json_decref(value);
    json_decref(before);
    json_decref(v.unset);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct fuzz_choice choices[] = {
        {'d', .bytes = dataset},
        {'c', .bytes = container},
        {'l', .bytes = lease},
        {'F', .bytes = fence},
        {'m', .text = mark},
        {'w', .bytes = memory},
        {'p', .text = pool_record},
        {'n', .text = volume_name},
        {'y', .bytes = yaml},
        {'a', .bytes = agent_yml},
        {'f', .bytes = ctl_yml},
        {'e', .text = variables_file},
        {'i', .bytes = variables_in},
    };

    return fuzz_choose(choices, ARRAY_SIZE(choices), data, size);
}
