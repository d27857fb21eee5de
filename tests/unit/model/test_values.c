/* The model's plain values: copies are equal and independent, "same" sees each field, edges of lists. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "extended.h"
#include "base/str.h"
#include "model/agent.h"
#include "model/container.h"
#include "model/history.h"
#include "model/json.h"
#include "model/record.h"
#include "model/validate.h"
#include "model/volume.h"

static struct uuid numbered(uint8_t n)
{
    struct uuid u = {{0}};

    u.b[6] = 0x40;
    u.b[8] = 0x80;
    u.b[15] = n;
    return u;
}

static struct container *full_container(void)
{
    struct container *c = container_new("shop");

    c->revision = 7;
    c->created = 5;
    c->node = numbered(1);
    c->image = xstrdup("postgres:15");
    c->ports = xcalloc(2, sizeof(*c->ports));
    c->ports[c->n_ports++] = (struct port){5432, 15432};
    c->ports[c->n_ports++] = (struct port){5433, 15433};
    c->links = xcalloc(1, sizeof(*c->links));
    c->links[c->n_links++] = (struct link){xstrdup("db"), 80, 8080};
    c->environment = xcalloc(1, sizeof(*c->environment));
    c->environment[c->n_environment++] = (struct env_entry){xstrdup("PGDATA"), xstrdup("/data")};
    c->command_line = xcalloc(2, sizeof(*c->command_line));
    c->command_line[c->n_command_line++] = xstrdup("postgres");
    c->command_line[c->n_command_line++] = xstrdup("-D");
    c->has_command_line = true;
    c->cpu_shares = 2;
    c->memory_limit = 1 << 30;
    c->swappiness = 10;
    c->restart_policy = RESTART_ON_FAILURE;
    c->maximum_retry_count = 3;
    container_add_volume(c, &(struct uuid){{9}}, "/data", false);
    c->volumes[0].dataset = numbered(9);
    container_extend(c);
    return c;
}

static void put(char **text, const char *to)
{
    free(*text);
    *text = xstrdup_null(to);
}

static bool change_extended(struct container *c, int which)
{
    switch (which) {
    case 0:
        put(&c->entrypoint[0], "dumb-init");
        return true;
    case 1:
        free(c->entrypoint[--c->n_entrypoint]);
        return true;
    case 2: /* an empty entrypoint is not the image's own */
        c->has_entrypoint = false;
        return true;
    case 3:
        put(&c->user, NULL);
        return true;
    case 4:
        put(&c->working_dir, "/");
        return true;
    case 5:
        put(&c->stop_signal, "SIGINT");
        return true;
    case 6:
        c->stop_grace_ms++;
        return true;
    case 7:
        put(&c->labels[0].name, "level");
        return true;
    case 8:
        put(&c->labels[0].value, "web");
        return true;
    case 9:
        free(c->labels[--c->n_labels].name);
        free(c->labels[c->n_labels].value);
        return true;
    case 10:
        put(&c->health->test[1], "true");
        return true;
    case 11:
        free(c->health->test[--c->health->n_test]);
        return true;
    case 12:
        c->health->disabled = true;
        return true;
    case 13:
        c->health->interval_ms++;
        return true;
    case 14:
        c->health->timeout_ms++;
        return true;
    case 15:
        c->health->start_period_ms++;
        return true;
    case 16:
        c->health->retries++;
        return true;
    case 17:
        c->nano_cpus++;
        return true;
    default:
        return false;
    }
}

/* One change of a setting each. */
static bool change_container(struct container *c, int which)
{
    switch (which) {
    case 0:
        put(&c->image, "postgres:16");
        return true;
    case 1:
        put(&c->image, NULL);
        return true;
    case 2:
        c->n_ports--;
        return true;
    case 3:
        c->ports[1].internal++;
        return true;
    case 4:
        c->ports[0].external++;
        return true;
    case 5:
        put(&c->links[0].alias, "cache");
        return true;
    case 6:
        c->links[0].local_port++;
        return true;
    case 7:
        c->links[0].remote_port++;
        return true;
    case 8:
        free(c->links[--c->n_links].alias);
        return true;
    case 9:
        put(&c->environment[0].name, "OTHER");
        return true;
    case 10:
        put(&c->environment[0].value, "other");
        return true;
    case 11:
        free(c->environment[--c->n_environment].name);
        free(c->environment[c->n_environment].value);
        return true;
    case 12:
        put(&c->command_line[1], "-F");
        return true;
    case 13:
        free(c->command_line[--c->n_command_line]);
        return true;
    case 14: /* an empty command line is not the image's own */
        c->has_command_line = false;
        return true;
    case 15:
        c->cpu_shares++;
        return true;
    case 16:
        c->memory_limit++;
        return true;
    case 17:
        c->swappiness = UINT32_MAX;
        return true;
    case 18:
        c->restart_policy = RESTART_ALWAYS;
        return true;
    case 19:
        c->maximum_retry_count++;
        return true;
    case 20:
        free(c->volumes[--c->n_volumes].mountpoint);
        return true;
    case 21:
        c->volumes[0].dataset = numbered(8);
        return true;
    case 22:
        put(&c->volumes[0].mountpoint, "/other");
        return true;
    case 23:
        c->volumes[0].read_only = true;
        return true;
    case 24:
        container_add_volume(c, &c->volumes[0].dataset, "/second", false);
        return true;
    default:
        return change_extended(c, which - 25);
    }
}

static bool same_spec(const struct container *a, const struct container *b)
{
    char first[CONTAINER_SPEC_SIZE], second[CONTAINER_SPEC_SIZE];

    container_spec(a, first);
    container_spec(b, second);
    assert_int_equal(strlen(first), CONTAINER_SPEC_SIZE - 1);
    return streq(first, second);
}

/* Kept on containers that run: it must be the same in every version. */
static void test_spec_for_ever(void **state)
{
    struct container *c = container_new("web");
    char spec[CONTAINER_SPEC_SIZE];

    c->image = xstrdup("nginx:1");
    container_spec(c, spec);
    assert_string_equal(spec, "2859e8aea09d10bde91e32261b191e8b");
    container_free(c);
}

/* What only says when it starts makes no other container of it. */
static void test_dependencies_are_no_settings(void **state)
{
    struct container *c = full_container(), *other = container_copy(c);

    assert_true(container_same_dependencies(c, other));
    put(&other->depends_on[0].name, "queue");
    assert_false(container_same_dependencies(c, other));
    assert_true(container_same_settings(c, other) && same_spec(c, other));
    put(&other->depends_on[0].name, c->depends_on[0].name);
    other->depends_on[1].condition = DEPENDENCY_STARTED;
    assert_false(container_same_dependencies(c, other));
    free(other->depends_on[--other->n_depends_on].name);
    assert_false(container_same_dependencies(c, other));
    assert_true(container_same_settings(c, other) && same_spec(c, other));
    container_free(other);
    other = container_new("other");
    assert_false(container_is_extended(other));
    other->depends_on = xcalloc(1, sizeof(*other->depends_on));
    other->depends_on[other->n_depends_on++] =
        (struct dependency){xstrdup("db"), DEPENDENCY_STARTED};
    assert_true(container_is_extended(other)); /* older agents would start it at once */
    container_free(c);
    container_free(other);
}

static void test_mountpoints(void **state)
{
    static const char *const same[][2] = {
        {"/", "/"}, {"/", "//."}, {"/a/b", "/a//b/"}, {"/a/b", "/./a/./b/."}, {"/a..", "/a.."}};
    /* each before the next */
    static const char *const order[] = {"/", "/a", "/a/b", "/a/b/c", "/a.", "/a.b", "/aa", "/b"};
    struct container *c = container_new("c");

    for (size_t i = 0; i < ARRAY_SIZE(same); i++) {
        assert_int_equal(mountpoint_compare(same[i][0], same[i][1]), 0);
        assert_int_equal(mountpoint_compare(same[i][1], same[i][0]), 0);
    }
    for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
        for (size_t k = 0; k < ARRAY_SIZE(order); k++) {
            int n = mountpoint_compare(order[i], order[k]);
            if ((n > 0) != (i > k) || (n < 0) != (i < k))
                fail_msg("%s and %s: %d", order[i], order[k], n);
        }
    }
    for (size_t i = ARRAY_SIZE(order); i-- > 0;)
        container_add_volume(c, &(struct uuid){{(uint8_t)(i + 1)}}, order[i], i % 2);
    container_settle_volumes(c);
    for (size_t i = 0; i < ARRAY_SIZE(order); i++) {
        assert_string_equal(c->volumes[i].mountpoint, order[i]);
        assert_int_equal(c->volumes[i].read_only, i % 2);
        assert_true(container_uses(c, &c->volumes[i].dataset));
    }
    assert_false(container_uses(c, &(struct uuid){{99}}));
    container_free(c);
}

static void test_container(void **state)
{
    struct container *c = full_container(), *copy = container_copy(c);

    assert_true(container_same_settings(c, copy));
    copy->node = numbered(3);
    copy->created++;
    assert_true(same_spec(c, copy));
    copy->node = numbered(2); /* where it runs is no setting */
    copy->revision++;
    assert_true(container_same_settings(c, copy));
    for (int i = 0;; i++) {
        struct container *other = container_copy(c);
        bool changed = change_container(other, i);

        if (changed && (container_same_settings(c, other) || container_same_settings(other, c)))
            fail_msg("change %d is not seen", i);
        if (changed && other->image && same_spec(c, other))
            fail_msg("change %d is not in the specification", i);
        container_free(other);
        if (!changed)
            break;
    }
    container_free(c); /* the copy keeps its own texts */
    assert_string_equal(copy->links[0].alias, "db");
    assert_string_equal(copy->environment[0].value, "/data");
    assert_string_equal(copy->command_line[1], "-D");
    container_free(copy);
    assert_null(container_free(NULL));
    assert_int_equal(restart_policy_parse("sometimes"), RESTART_POLICY_INVALID);
}

static void add_metadata(struct metadata *m, const char *key, const char *value)
{
    m->entries = xrealloc(m->entries, m->n + 1, sizeof(*m->entries));
    m->entries[m->n++] = (struct metadata_entry){xstrdup(key), xstrdup(value)};
}

static void test_metadata(void **state)
{
    struct metadata a = {0}, b = {0};

    assert_true(metadata_same(&a, &b));
    assert_null(metadata_get(&a, "name"));
    add_metadata(&a, "name", "shop");
    assert_false(metadata_same(&a, &b));
    assert_false(metadata_same(&b, &a));
    add_metadata(&b, "name", "other");
    assert_false(metadata_same(&a, &b));
    put(&b.entries[0].value, "shop");
    assert_true(metadata_same(&a, &b));
    put(&b.entries[0].key, "Name");
    assert_false(metadata_same(&a, &b));
    add_metadata(&a, "zone", "x");
    assert_string_equal(metadata_get(&a, "zone"), "x");
    assert_null(metadata_get(&a, "zon"));
    metadata_done(&a);
    metadata_done(&b);
}

static void test_holders(void **state)
{
    struct dataset *d = dataset_new(numbered(1));
    struct uuid a = numbered(2), b = numbered(3), c = numbered(4);

    dataset_remove_holder(d, &a); /* nothing there */
    dataset_add_holder(d, &a);
    dataset_add_holder(d, &b);
    dataset_add_holder(d, &b);
    assert_int_equal(d->n_holders, 2);
    dataset_remove_holder(d, &c);
    assert_int_equal(d->n_holders, 2);
    struct dataset *copy = dataset_copy(d);
    dataset_remove_holder(d, &a);
    assert_false(dataset_has_holder(d, &a));
    assert_true(dataset_has_holder(d, &b));
    assert_true(dataset_has_holder(copy, &a));
    dataset_free(d);
    dataset_free(copy);
    assert_null(dataset_free(NULL));
}

static struct order full_order(void)
{
    struct order o = {.dataset = numbered(1),
                      .role = ROLE_OWNER,
                      .epoch = 4,
                      .born = true,
                      .keep = xstrdup("t7-final"),
                      .base = xstrdup("final-4"),
                      .transfer = 6,
                      .peer = numbered(2),
                      .peer_host = xstrdup("10.0.0.2"),
                      .peer_port = 4525,
                      .number = 9,
                      .maximum_size = 1 << 30};

    add_metadata(&o.metadata, "name", "shop");
    return o;
}

static bool change_order(struct order *o, int which)
{
    switch (which) {
    case 0:
        o->dataset = numbered(7);
        return true;
    case 1:
        o->role = ROLE_NONE;
        return true;
    case 2:
        o->epoch++;
        return true;
    case 3:
        o->born = false;
        return true;
    case 4:
        put(&o->base, NULL);
        return true;
    case 5:
        put(&o->base, "");
        return true;
    case 6:
        o->transfer++;
        return true;
    case 7:
        o->peer = UUID_NIL;
        return true;
    case 8:
        put(&o->peer_host, "10.0.0.3");
        return true;
    case 9:
        o->peer_port++;
        return true;
    case 10:
        o->number++;
        return true;
    case 11:
        o->maximum_size++;
        return true;
    case 12:
        add_metadata(&o->metadata, "a", "b");
        return true;
    case 13:
        put(&o->metadata.entries[0].value, "shop2");
        return true;
    case 14:
        put(&o->keep, NULL);
        return true;
    default:
        return false;
    }
}

/* An order that differs in any field is another, and has another digest. */
static void test_orders(void **state)
{
    struct order o = full_order();
    struct digest d = order_digest(&o);

    for (int i = -1;; i++) {
        struct order other = {0};

        order_copy(&other, &o);
        bool changed = change_order(&other, i);
        struct digest e = order_digest(&other);
        bool same = memcmp(&d, &e, sizeof(d)) == 0;
        if (order_same(&o, &other) == changed || same == changed)
            fail_msg("change %d: same %d, digest %d", i, order_same(&o, &other), same);
        order_done(&other);
        if (!changed && i >= 0)
            break;
    }
    order_done(&o);
}

static void test_volume(void **state)
{
    struct volume_state v = {0}, copy;

    assert_true(volume_state_is_empty(&v));
    v.mark.state = MARK_RELEASED; /* a mark alone does not count */
    assert_true(volume_state_is_empty(&v));
    v.present = true;
    assert_false(volume_state_is_empty(&v));
    v = (struct volume_state){.mounted = true};
    assert_false(volume_state_is_empty(&v));
    v = (struct volume_state){.partial = true};
    assert_false(volume_state_is_empty(&v));
    volume_state_copy(&copy, &v);
    assert_null(copy.snapshots);
    assert_null(copy.device);
    v = (struct volume_state){.n_snapshots = 2, .snapshots = xcalloc(2, SNAPSHOT_NAME_SIZE), .device = xstrdup("/dev/loop3")};
    (void)snprintf(v.snapshots[0], SNAPSHOT_NAME_SIZE, "one");
    (void)snprintf(v.snapshots[1], SNAPSHOT_NAME_SIZE, "two");
    assert_false(volume_state_is_empty(&v));
    volume_state_copy(&copy, &v);
    volume_state_done(&v);
    assert_string_equal(copy.device, "/dev/loop3");
    assert_true(volume_state_has_snapshot(&copy, "two"));
    assert_false(volume_state_has_snapshot(&copy, "three"));
    volume_state_done(&copy);
    assert_string_equal(storage_kind_name(STORAGE_LOCAL), "local");
    assert_string_equal(storage_kind_name(STORAGE_ATTACHABLE), "attachable");
}

static void test_history(void **state)
{
    struct history none = {0}, copy;
    struct uuid any = numbered(3), nil = history_generation(&none);

    assert_true(uuid_is_nil(&nil));
    assert_true(history_end(&none, &any, 8) == 0);
    history_copy(&copy, &none);
    assert_null(copy.generations);
    history_done(&copy);
}

static void test_reasons(void **state)
{
    assert_non_null(reason_advice((enum reason_code) - 1));
    assert_non_null(reason_advice(REASON_CODE_MAX));
    assert_non_null(reason_code_name((enum reason_code) - 1));
    assert_non_null(reason_code_name(REASON_CODE_MAX));
}

/* Every value in a good record, at any depth, is replaced by others, taken away or doubled. What decodes is what was
 * written: encoding it again gives the same text. All else is refused as corrupt. */

enum what {
    DATASET,
    CONTAINER,
    LEASE,
};

static struct err *decode_again(enum what what, const char *text, char **ret)
{
    struct dataset *d = NULL;
    struct container *c = NULL;
    struct lease l;

    *ret = NULL;
    if (what == DATASET) {
        TRY(record_dataset_decode(text, strlen(text), &d));
        *ret = record_dataset_encode(d);
        dataset_free(d);
    } else if (what == CONTAINER) {
        TRY(record_container_decode(text, strlen(text), &c));
        *ret = record_container_encode(c);
        container_free(c);
    } else {
        TRY(record_lease_decode(text, strlen(text), &l));
        *ret = record_lease_encode(&l);
        lease_done(&l);
    }
    return NULL;
}

struct tally {
    size_t good, refused;
};

static void try_record(enum what what, json_t *root, struct tally *t)
{
    CLEANUP_FREE char *text = json_dumps(root, JSON_COMPACT | JSON_ENCODE_ANY), *again = NULL;
    struct err *e = decode_again(what, text, &again);

    if (e) {
        if (e->code != ERR_CORRUPT && e->code != ERR_UNSUPPORTED)
            fail_msg("%s: %s", text, e->text);
        err_free(e);
        t->refused++;
        return;
    }
    if (!again)
        fail_msg("%s decodes into what cannot be written", text);
    json_t *back = json_loads(again, 0, NULL);
    if (!json_equal(root, back))
        fail_msg("%s was read as %s", text, again);
    json_decref(back);
    t->good++;
}

static const char *const others[] = {
    "null",
    "true",
    "false",
    "-1",
    "0",
    "1",
    "2",
    "65535",
    "65536",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "1.5",
    "\"\"",
    "\"x\"",
    "\"-1\"",
    "\"9223372036854775808\"",
    "\"18446744073709551615\"",
    "\"18446744073709551616\"",
    "\"09223372036854775808\"",
    "\"9223372036854775808 \"",
    "\"copy\"",
    "\"release\"",
    "\"never\"",
    "\"always\"",
    "\"on-failure\"",
    "\"00000000-0000-4000-8000-000000000001\"",
    "\"00000000-0000-4000-8000-00000000000A\"",
    "\"00000000-0000-0000-0000-000000000000\"",
    "[]",
    "[null]",
    "[[]]",
    "[1, 2]",
    "[[\"a\", \"b\"]]",
    "[[\"a\", 1]]",
    "[[1, \"b\"]]",
    "[\"a\", 1]",
    "[{}]",
    "{}",
    "{\"a\": 1}",
    "{\"a\": \"b\"}",
};

/* The keys of an object; changing it moves them. */
static char **keys_of(json_t *object, size_t *ret_n)
{
    char **keys = xcalloc(json_object_size(object) + 1, sizeof(char *));
    const char *key;
    json_t *item;

    *ret_n = 0;
    json_object_foreach (object, key, item)
        keys[(*ret_n)++] = xstrdup(key);
    return keys;
}

/* Calls itself for each value inside `v`. */
static void try_all(enum what what, json_t *root, json_t *v, struct tally *t)
{
    json_t *item;
    size_t i, n;
    char **keys = keys_of(v, &n);

    for (i = 0; i < n; i++) {
        CLEANUP_FREE char *name = keys[i];
        item = json_incref(json_object_get(v, name));
        try_all(what, root, item, t);
        for (size_t k = 0; k < ARRAY_SIZE(others); k++) {
            (void)json_object_set_new(v, name, json_loads(others[k], JSON_DECODE_ANY, NULL));
            try_record(what, root, t);
        }
        (void)json_object_del(v, name);
        try_record(what, root, t);
        (void)json_object_set_new(v, "odd", json_true());
        try_record(what, root, t);
        (void)json_object_del(v, "odd");
        (void)json_object_set_new(v, name, item);
    }
    free(keys);
    json_array_foreach (v, i, item) {
        json_incref(item);
        try_all(what, root, item, t);
        for (size_t k = 0; k < ARRAY_SIZE(others); k++) {
            (void)json_array_set_new(v, i, json_loads(others[k], JSON_DECODE_ANY, NULL));
            try_record(what, root, t);
        }
        (void)json_array_set_new(v, i, item);
    }
}

static void test_odd_records(void **state)
{
    struct dataset *d = dataset_new(numbered(1));
    struct container *c = full_container();
    struct lease l = {.dataset = numbered(1),
                      .node = numbered(2),
                      .revision = 3,
                      .acquired = true,
                      .expires = true,
                      .expires_wall_us = 77};
    struct uuid node = numbered(5);

    add_metadata(&d->metadata, "name", "shop");
    d->base = xstrdup("final-1");
    d->primary = d->owner = node;
    dataset_add_holder(d, &node);
    d->transfer = (struct transfer){3, 2, numbered(5), numbered(6), TRANSFER_RELEASE};
    char *texts[] = {record_dataset_encode(d), record_container_encode(c), record_lease_encode(&l)};
    for (int what = DATASET; what <= LEASE; what++) {
        struct tally t = {0};
        json_t *root = json_loads(texts[what], 0, NULL);

        try_record((enum what)what, root, &t);
        assert_int_equal(t.good, 1);
        try_all((enum what)what, root, root, &t);
        for (size_t k = 0; k < ARRAY_SIZE(others); k++) {
            json_t *v = json_loads(others[k], JSON_DECODE_ANY, NULL);
            try_record((enum what)what, v, &t);
            json_decref(v);
        }
        assert_true(t.good > 5 && t.refused > 100);
        json_decref(root);
        free(texts[what]);
    }
    dataset_free(d);
    container_free(c);
}

/* What cannot be written without loss is not written. */
static void test_unwritable(void **state)
{
    struct dataset *d = dataset_new(UUID_NIL);
    struct container *c = full_container();
    struct lease l = {.node = numbered(2)};

    assert_null(record_dataset_encode(d));
    d->id = numbered(1);
    d->base = xstrdup("\xff");
    assert_null(record_dataset_encode(d));
    put(&d->base, NULL);
    add_metadata(&d->metadata, "a", "\xc3");
    assert_null(record_dataset_encode(d));
    put(&d->metadata.entries[0].value, "b");
    add_metadata(&d->metadata, "a", "c");
    assert_null(record_dataset_encode(d));
    assert_null(record_lease_encode(&l));
    put(&c->command_line[0], "\xff");
    assert_null(record_container_encode(c));
    dataset_free(d);
    container_free(c);
}

/* Odd texts and reasons on their way out. */
static void test_json_out(void **state)
{
    struct reason r = {.code = REASON_COPYING, .since_us = 5000000, .retry_us = 9500000};
    json_t *v = json_text("a\xff\xc3(z");

    assert_string_equal(json_string_value(v), "a?\?(z");
    json_decref(v);
    v = json_text(NULL);
    assert_true(json_is_null(v));
    json_decref(v);
    v = json_reason(&r);
    assert_string_equal(json_string_value(json_object_get(v, "text")), reason_code_name(r.code));
    assert_true(json_number_value(json_object_get(v, "next_try")) == 9.5);
    json_decref(v);
    r = (struct reason){.code = REASON_COPYING, .text = (char *)"12 of 30 GiB"};
    v = json_reason(&r);
    assert_string_equal(json_string_value(json_object_get(v, "text")), "12 of 30 GiB");
    assert_true(json_is_null(json_object_get(v, "next_try")));
    json_decref(v);
    struct metadata m = {0};
    add_metadata(&m, "name", "shop");
    v = json_metadata(&m);
    assert_string_equal(json_string_value(json_object_get(v, "name")), "shop");
    json_decref(v);
    metadata_done(&m);
}

/* Bodies of requests: every value of a good one replaced. None is taken for something else, none crashes. */

static json_t *validate(enum what what, const json_t *body, bool update)
{
    struct dataset *d = NULL;
    struct container *c = NULL;
    struct lease_request l;
    struct uuid u;
    bool has_metadata;
    json_t *errors;

    if (what == LEASE)
        return validate_lease(body, &l);
    if (update && what == DATASET) {
        errors = validate_dataset_update(body, &d, &has_metadata);
        dataset_free(d);
        return errors;
    }
    if (update)
        return validate_container_update(body, &u);
    if (what == DATASET)
        errors = validate_dataset_create(body, &d);
    else
        errors = validate_container_create(body, &c);
    if (!errors && what == DATASET) {
        char *text = record_dataset_encode(d); /* what passes can be stored, once it has an id */
        if (!text && !uuid_is_nil(&d->id))
            fail_msg("what passed cannot be stored");
        free(text);
    }
    if (!errors && what == CONTAINER) {
        char *text = record_container_encode(c);
        assert_non_null(text);
        free(text);
    }
    dataset_free(d);
    container_free(c);
    return errors;
}

static void try_body(enum what what, const json_t *root, bool update, struct tally *t)
{
    json_t *errors = validate(what, root, update), *e;
    size_t i;

    if (!errors) {
        t->good++;
        return;
    }
    t->refused++;
    assert_true(json_array_size(errors) > 0);
    json_array_foreach (errors, i, e)
        assert_true(json_is_string(e) && json_string_length(e) > 5);
    json_decref(errors);
}

static const char *const odd_values[] = {
    "\"/\"",
    "\"/a\\n\"",
    "\"a b\"",
    "\"-\"",
    "\"ab\"",
    "\"//x\"",
    "\"x\\u007f\"",
    "\"UPPER\"",
    "{\"policy_name\": 1}",
    "{\"name\": \"on-failure\", \"maximum_retry_count\": 0}",
    "{\"name\": \"always\", \"maximum_retry_count\": 1}",
    "{\"name\": null}",
    "67108864",
    "67108865",
    "1e300",
    "-1e300",
    "0.5",
    "{\"a\\ud83d\\ude00\": \"b\"}",
    "{\"\": \"\"}",
    "{\"a=b\": \"c\"}",
    "[{\"internal\": 1, \"external\": 1}, {\"internal\": 1, \"external\": 2}]",
    "[{\"internal\": 1, \"external\": 2}, {\"internal\": 2, \"external\": 2}]",
};

static void try_bodies(enum what what, bool update, json_t *root, json_t *v, struct tally *t)
{
    json_t *item;
    size_t i, n;
    char **keys = keys_of(v, &n);

    for (i = 0; i < n; i++) {
        CLEANUP_FREE char *name = keys[i];
        item = json_incref(json_object_get(v, name));
        try_bodies(what, update, root, item, t);
        for (size_t k = 0; k < ARRAY_SIZE(others) + ARRAY_SIZE(odd_values); k++) {
            const char *text =
                k < ARRAY_SIZE(others) ? others[k] : odd_values[k - ARRAY_SIZE(others)];
            (void)json_object_set_new(v, name, json_loads(text, JSON_DECODE_ANY, NULL));
            try_body(what, root, update, t);
        }
        (void)json_object_del(v, name);
        try_body(what, root, update, t);
        (void)json_object_set_new(v, name, item);
    }
    free(keys);
    json_array_foreach (v, i, item) {
        json_incref(item);
        try_bodies(what, update, root, item, t);
        for (size_t k = 0; k < ARRAY_SIZE(others); k++) {
            (void)json_array_set_new(v, i, json_loads(others[k], JSON_DECODE_ANY, NULL));
            try_body(what, root, update, t);
        }
        (void)json_array_set_new(v, i, item);
    }
}

static void test_odd_bodies(void **state)
{
    static const struct {
        enum what what;
        bool update;
        const char *text;
    } good[] = {
        {DATASET, false,
         "{\"primary\": \"00000000-0000-4000-8000-000000000001\","
         " \"dataset_id\": \"00000000-0000-4000-8000-000000000002\", \"maximum_size\": 67108864,"
         " \"metadata\": {\"name\": \"shop\"}}"},
        {DATASET, true, "{\"primary\": \"00000000-0000-4000-8000-000000000001\"}"},
        {CONTAINER, false,
         "{\"node_uuid\": \"00000000-0000-4000-8000-000000000001\", \"name\": \"shop\","
         " \"image\": \"postgres\", \"ports\": [{\"internal\": 5432, \"external\": 1}],"
         " \"links\": [{\"alias\": \"db\", \"local_port\": 1, \"remote_port\": 2}],"
         " \"environment\": {\"A\": \"b\"}, \"command_line\": [\"a\", \"b\"], \"cpu_shares\": 3,"
         " \"memory_limit\": 100000000, \"restart_policy\": {\"name\": \"on-failure\","
         " \"maximum_retry_count\": 3},"
         " \"volumes\": [{\"dataset_id\": \"00000000-0000-4000-8000-000000000002\","
         " \"mountpoint\": \"/data\"}]}"},
        {CONTAINER, true, "{\"node_uuid\": \"00000000-0000-4000-8000-000000000001\"}"},
        {LEASE, false,
         "{\"dataset_id\": \"00000000-0000-4000-8000-000000000002\","
         " \"node_uuid\": \"00000000-0000-4000-8000-000000000001\", \"expires\": 60}"},
    };

    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        struct tally t = {0};
        json_t *root = json_loads(good[i].text, 0, NULL);

        assert_non_null(root);
        try_body(good[i].what, root, good[i].update, &t);
        if (!t.good)
            fail_msg("%s is refused", good[i].text);
        try_bodies(good[i].what, good[i].update, root, root, &t);
        for (size_t k = 0; k < ARRAY_SIZE(others); k++) {
            json_t *v = json_loads(others[k], JSON_DECODE_ANY, NULL);
            try_body(good[i].what, v, good[i].update, &t);
            json_decref(v);
        }
        assert_true(t.refused > 20);
        json_decref(root);
    }
}

/* A client's key that is cut inside a character is still named in the answer, in plain text. */
static void test_long_odd_key(void **state)
{
    CLEANUP_FREE char *key = xcalloc(1, 300);
    json_t *body = json_object(), *errors;

    memset(key, 'k', 99);
    for (size_t i = 99; i < 140; i += 2)
        memcpy(key + i, "\xc3\xa9", 2);
    (void)json_object_set_new(body, key, json_true());
    errors = validate(DATASET, body, true);
    assert_non_null(
        strstr(json_string_value(json_array_get(errors, 0)), "kkk?\" is not a known key"));
    json_decref(errors);
    json_decref(body);
}

static void test_too_many_variables(void **state)
{
    json_t *body =
        json_pack("{s:s, s:s, s:s, s:o}", "node_uuid", "00000000-0000-4000-8000-000000000001",
                  "name", "shop", "image", "x", "environment", json_object());

    for (int i = 0; i <= VALIDATE_MAX_VARIABLES; i++) {
        CLEANUP_FREE char *name = xasprintf("V%d", i);
        (void)json_object_set_new(json_object_get(body, "environment"), name, json_string(""));
    }
    json_t *errors = validate(CONTAINER, body, false);
    assert_string_equal(json_string_value(json_array_get(errors, 0)),
                        "\"environment\" must have at most 4096 keys");
    json_decref(errors);
    (void)json_object_del(json_object_get(body, "environment"), "V0");
    assert_null(validate(CONTAINER, body, false));
    json_decref(body);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_container),    cmocka_unit_test(test_dependencies_are_no_settings),
        cmocka_unit_test(test_mountpoints),  cmocka_unit_test(test_spec_for_ever),
        cmocka_unit_test(test_metadata),     cmocka_unit_test(test_holders),
        cmocka_unit_test(test_orders),       cmocka_unit_test(test_volume),
        cmocka_unit_test(test_history),      cmocka_unit_test(test_reasons),
        cmocka_unit_test(test_odd_records),  cmocka_unit_test(test_unwritable),
        cmocka_unit_test(test_json_out),     cmocka_unit_test(test_odd_bodies),
        cmocka_unit_test(test_long_odd_key), cmocka_unit_test(test_too_many_variables),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
