/* Memory that runs out at the n-th allocation, for every n, in what reads and writes other people's bytes. Each time the
 * process ends with its sentence (base/mem.h), or the function returns an error, or it does what it does with enough
 * memory: no crash, no hang, no wrong result, no leak, and nobody's bytes are called damaged for it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "model/yaml_json.h"
#include "base/str.h"
#include "engines/docker_api.h"
#include "model/json.h"
#include "model/record.h"
#include "model/validate.h"
#include "mover/mover_wire.h"
#include "proto/codec.h"
#include "exhaust.h"
#include "sample.h"
#include "store/store.h"

#include <ftw.h>
#include <stdio.h>
#include <unistd.h>

static struct err *codec(struct str *out)
{
    for (int k = 0; k < AGENT_MESSAGE_KIND_MAX; k++) {
        CLEANUP_AGENT_MESSAGE struct agent_message m =
            sample_agent_message((enum agent_message_kind)k);
        CLEANUP_STR struct str bytes = {0};
        struct agent_message back;

        codec_agent_encode(&m, &bytes);
        TRY(codec_agent_decode(bytes.data, bytes.len, &back));
        codec_agent_encode(&back, out);
        agent_message_done(&back);
    }
    for (int k = 0; k < CONTROL_MESSAGE_KIND_MAX; k++) {
        CLEANUP_CONTROL_MESSAGE struct control_message m =
            sample_control_message((enum control_message_kind)k);
        CLEANUP_STR struct str bytes = {0};
        struct control_message back;

        codec_control_encode(&m, &bytes);
        TRY(codec_control_decode(bytes.data, bytes.len, &back));
        codec_control_encode(&back, out);
        control_message_done(&back);
    }
    return NULL;
}

#define NODE "00000000-0000-4000-8000-000000000001"
#define DATASET "00000000-0000-4000-8000-000000000002"

static const char *const bodies[] = {
    "{\"primary\": \"" NODE "\", \"dataset_id\": \"" DATASET "\", \"maximum_size\": 67108864,"
    " \"metadata\": {\"name\": \"shop\"}}",
    "{\"node_uuid\": \"" NODE "\", \"name\": \"shop\", \"image\": \"postgres\","
    " \"ports\": [{\"internal\": 5432, \"external\": 1}],"
    " \"links\": [{\"alias\": \"db\", \"local_port\": 1, \"remote_port\": 2}],"
    " \"environment\": {\"A\": \"b\"}, \"command_line\": [\"a\", \"b\"],"
    " \"volumes\": [{\"dataset_id\": \"" DATASET "\", \"mountpoint\": \"/data\"}]}",
};

static struct err *dataset_body(struct str *out)
{
    json_t *body;
    struct dataset *d = NULL;

    TRY(json_parse(bodies[0], strlen(bodies[0]), &body));
    json_t *errors = validate_dataset_create(body, &d);
    json_decref(body);
    if (errors) {
        json_append(out, errors);
        json_decref(errors);
        return NULL;
    }
    json_append_dataset(out, d);
    CLEANUP_FREE char *text = record_dataset_encode(d);
    dataset_free(d);
    str_append(out, text ? text : "none");
    TRY(record_dataset_decode(text, strlen(text), &d));
    json_append_dataset(out, d);
    dataset_free(d);
    return NULL;
}

static struct err *container_body(struct str *out)
{
    json_t *body;
    struct container *c = NULL;

    TRY(json_parse(bodies[1], strlen(bodies[1]), &body));
    json_t *errors = validate_container_create(body, &c);
    json_decref(body);
    if (errors) {
        json_append(out, errors);
        json_decref(errors);
        return NULL;
    }
    json_t *answer = json_container_configuration(c);
    json_append(out, answer);
    json_decref(answer);
    CLEANUP_FREE char *text = record_container_encode(c);
    container_free(c);
    str_append(out, text ? text : "none");
    TRY(record_container_decode(text, strlen(text), &c));
    container_free(c);
    return NULL;
}

static struct err *refused_body(struct str *out)
{
    static const char text[] =
        "{\"primary\": 5, \"odd\": [1, 2.5, null], \"metadata\": {\"a\": {}}}";
    json_t *body;
    struct dataset *d = NULL;

    TRY(json_parse(text, strlen(text), &body));
    json_t *errors = validate_dataset_create(body, &d);
    json_decref(body);
    json_append(out, errors);
    json_decref(errors);
    return NULL;
}

static struct err *yaml(struct str *out)
{
    static const char text[] = "version: 1\n"
                               "control-service:\n  hostname: \"control.example\"\n  port: 4524\n"
                               "dataset:\n  backend: btrfs\n  pool: \"/flocker-pool\"\n"
                               "  list: [1, {a: b}, \"c\"]\n";
    json_t *v;

    TRY(yaml_load(text, strlen(text), &v));
    json_append(out, v);
    json_decref(v);
    return NULL;
}

static struct err *frames(struct str *out)
{
    struct mover_snapshot snapshots[] = {{"one", "id-1"}, {"two", "id-2"}};
    struct mover_offer offer = {.version = 1, .snapshots = snapshots, .n_snapshots = 2}, back;
    CLEANUP_STR struct str bytes = {0};

    mover_offer_encode(&offer, &bytes);
    TRY(mover_offer_decode(bytes.data, bytes.len, &back));
    mover_offer_encode(&back, out);
    mover_offer_done(&back);
    CLEANUP_ERR struct err *e = err_new(ERR_BUSY, "the volume is in use");
    bytes.len = 0;
    mover_error_encode(e, &bytes);
    CLEANUP_ERR struct err *told = mover_error_decode(bytes.data, bytes.len);
    str_append(out, told->text);
    return NULL;
}

#define CLUSTER "11111111-2222-4333-8444-555555555555"
#define ID "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define LABELS                                                                                     \
    "{\"io.flocker.cluster\":\"" CLUSTER "\",\"io.flocker.container\":\"web-1\","                  \
    "\"io.flocker.created\":\"7\",\"io.flocker.era\":\"" NODE "\"}"

static struct err *docker(struct str *out)
{
    static const char version[] = "{\"ApiVersion\":\"1.41\",\"MinAPIVersion\":\"1.12\"}";
    static const char list[] =
        "[{\"Id\":\"" ID "\",\"Names\":[\"/flocker--web-1\"],\"Labels\":" LABELS
        ",\"State\":\"running\"}]";
    static const char created[] = "{\"Id\":\"" ID "\",\"Warnings\":[]}";
    static const char message[] = "{\"message\":\"no such image\"}";
    static const char pull[] = "{\"status\":\"Pulling\"}";
    struct docker_container *found = NULL;
    char id[DOCKER_ID_MAX + 1];
    struct uuid cluster;
    unsigned minor;
    size_t n;

    (void)uuid_parse(CLUSTER, &cluster);
    TRY(docker_parse_version(version, strlen(version), &minor));
    TRY(docker_parse_list(list, strlen(list), &cluster, &found, &n));
    str_appendf(out, "%u %zu ", minor, n);
    for (size_t i = 0; i < n; i++)
        docker_container_done(&found[i]);
    free(found);
    TRY(docker_parse_created(created, strlen(created), id));
    TRY(docker_parse_pull_line(pull, strlen(pull)));
    CLEANUP_FREE char *said = docker_parse_message(message, strlen(message));
    str_append(out, said);
    str_append(out, docker_parse_event_matters("{}", 2) ? "y" : "n");
    return NULL;
}

/* The store: what was answered is there when it is opened with enough memory; nothing is called damaged. */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *f)
{
    return remove(path);
}

static const char *store_dir;

static struct err *use_store(const char *dir)
{
    struct store_change c = {1, STORE_CONTAINER, "a", "{}"};
    struct store *s = NULL;
    bool uncertain;

    TRY(store_open(dir, &s));
    c.revision = store_revision(s) + 1;
    struct err *e = store_commit_sync(s, &c, 1, &uncertain);
    store_close(s);
    return e;
}

static struct err *store(struct str *out)
{
    char dir[64];

    (void)snprintf(dir, sizeof(dir), "%s/%d", store_dir, (int)getpid());
    struct err *e = use_store(dir);
    exhaust_pause();
    struct err *again = use_store(dir);
    (void)nftw(dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    if (again)
        exhaust_wrong(again->text);
    exhaust_resume();
    str_append(out, "ok");
    return e;
}

static void test_codec(void **state)
{
    exhaust_each(&(struct exhaust_trial){.name = "messages of the agent link", .run = codec});
}

static void test_bodies(void **state)
{
    exhaust_each(&(struct exhaust_trial){.name = "a dataset's body and record", .run = dataset_body});
    exhaust_each(&(struct exhaust_trial){.name = "a container's body and record", .run = container_body});
    exhaust_each(&(struct exhaust_trial){.name = "a body with mistakes", .run = refused_body});
}

static void test_yaml(void **state)
{
    exhaust_each(&(struct exhaust_trial){.name = "YAML", .run = yaml});
}

static void test_frames(void **state)
{
    exhaust_each(&(struct exhaust_trial){.name = "frames of the mover", .run = frames});
}

static void test_docker(void **state)
{
    exhaust_each(&(struct exhaust_trial){.name = "Docker's JSON", .run = docker});
}

static void test_store(void **state)
{
    char memory[] = "/dev/shm/flocker-memory-test-XXXXXX",
         disk[] = "/tmp/flocker-memory-test-XXXXXX";

    store_dir = mkdtemp(memory);
    if (!store_dir)
        store_dir = mkdtemp(disk);
    assert_non_null(store_dir);
    exhaust_each(&(struct exhaust_trial){.name = "the store", .run = store, .at_most = 150});
    (void)nftw(store_dir, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_codec),  cmocka_unit_test(test_bodies), cmocka_unit_test(test_yaml),
        cmocka_unit_test(test_frames), cmocka_unit_test(test_docker), cmocka_unit_test(test_store),
    };

    json_setup();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
