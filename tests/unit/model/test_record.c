#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "extended.h"
#include "base/str.h"
#include "model/record.h"
#include "model/record_quick.h"

#define A "3f0c9c1e-7b1d-4c7a-9d0e-0a1b2c3d4e5f"
#define B "8d2f6a70-1c54-4e0b-8a3d-6b7c8d9e0f11"
#define D2 "71a0f3c2-9e4d-4b26-8f15-2468ace13579"
#define D1 "c2b7e0d4-5a61-4f3b-9c88-13579bdf2468"

/* A field that is new in the model must be added to its record, and here; then bring these numbers
 * up to date. */
#if defined(__x86_64__) || defined(__aarch64__)
_Static_assert(sizeof(struct dataset) == 216, "struct dataset has changed: see record.c");
_Static_assert(sizeof(struct container) == 272, "struct container has changed: see record.c");
_Static_assert(sizeof(struct lease) == 80, "struct lease has changed: see record.c");
#endif

static struct uuid id(const char *text)
{
    struct uuid u;

    assert_true(uuid_parse(text, &u));
    return u;
}

static struct dataset *full_dataset(void)
{
    struct dataset *d = dataset_new(id(D1));
    struct metadata_entry entries[] = {{(char *)"zoo", (char *)"b\xc3\xa9ta"},
                                       {(char *)"name", (char *)"a \"quoted\"\n\x01"}};
    struct uuid a = id(A), b = id(B);

    d->revision = UINT64_MAX;
    d->primary = b;
    d->deleted = true;
    d->maximum_size = (UINT64_C(1) << 53) + 1;
    metadata_copy(&d->metadata, &(struct metadata){entries, 2});
    d->owner = a;
    d->epoch = (uint64_t)INT64_MAX;
    d->born = true;
    d->recalled = true;
    d->purge = true;
    d->deleted_us = 1479811200000000;
    d->dropped = true;
    d->base = xstrdup("final-7");
    d->tombstone = (uint64_t)INT64_MAX + 1;
    d->number = 9007199254740993;
    dataset_add_holder(d, &b);
    dataset_add_holder(d, &a);
    d->transfer = (struct transfer){77, UINT64_MAX - 1, a, b, TRANSFER_RELEASE};
    return d;
}

static void assert_dataset_equal(const struct dataset *a, const struct dataset *b)
{
    assert_true(uuid_eq(&a->id, &b->id));
    assert_true(a->revision == b->revision);
    assert_true(uuid_eq(&a->primary, &b->primary));
    assert_int_equal(a->deleted, b->deleted);
    assert_true(a->maximum_size == b->maximum_size);
    assert_int_equal(a->metadata.n, b->metadata.n);
    for (size_t i = 0; i < a->metadata.n; i++) {
        assert_string_equal(a->metadata.entries[i].key, b->metadata.entries[i].key);
        assert_string_equal(a->metadata.entries[i].value, b->metadata.entries[i].value);
    }
    assert_true(uuid_eq(&a->owner, &b->owner));
    assert_true(a->epoch == b->epoch);
    assert_int_equal(a->born, b->born);
    assert_int_equal(a->recalled, b->recalled);
    assert_int_equal(a->purge, b->purge);
    assert_true(a->deleted_us == b->deleted_us);
    assert_int_equal(a->dropped, b->dropped);
    assert_true(str_equal_null(a->base, b->base));
    assert_true(a->tombstone == b->tombstone);
    assert_true(a->number == b->number);
    assert_int_equal(a->n_holders, b->n_holders);
    for (size_t i = 0; i < a->n_holders; i++)
        assert_true(uuid_eq(&a->holders[i], &b->holders[i]));
    assert_true(a->transfer.id == b->transfer.id);
    assert_true(a->transfer.epoch == b->transfer.epoch);
    assert_true(uuid_eq(&a->transfer.source, &b->transfer.source));
    assert_true(uuid_eq(&a->transfer.destination, &b->transfer.destination));
    assert_int_equal(a->transfer.phase, b->transfer.phase);
    assert_int_equal(a->fenced != NULL, b->fenced != NULL);
    if (a->fenced) {
        assert_int_equal(a->fenced->n_nodes, b->fenced->n_nodes);
        assert_memory_equal(a->fenced->nodes, b->fenced->nodes, a->fenced->n_nodes * sizeof(struct uuid));
        assert_true(a->fenced->freed == b->fenced->freed && a->fenced->freed_us == b->fenced->freed_us);
        assert_true(a->fenced->transfer == b->fenced->transfer);
        assert_true(uuid_eq(&a->fenced->destination, &b->fenced->destination));
    }
    assert_int_equal(a->replica != NULL, b->replica != NULL);
    if (!a->replica)
        return;
    assert_true(a->replica->made_us == b->replica->made_us);
    assert_true(uuid_eq(&a->replica->node, &b->replica->node));
    assert_true(a->replica->until_us == b->replica->until_us);
    assert_string_equal(a->replica->base, b->replica->base);
}

static void round_trip_dataset(struct dataset *d)
{
    struct dataset *back = NULL;
    char *text = record_dataset_encode(d);

    assert_non_null(text);
    assert_null(record_dataset_decode(text, strlen(text), &back));
    assert_dataset_equal(d, back);
    free(text);
    dataset_free(d);
    dataset_free(back);
}

static struct dataset *with_replica(void)
{
    struct dataset *d = full_dataset();

    d->replica = xcalloc(1, sizeof(*d->replica));
    *d->replica = (struct replica){id(B), UINT64_MAX, "t7-final"};
    return d;
}

/* Only what an older version cannot know has a newer format. */
static void test_replica(void **state)
{
    struct dataset *d = with_replica();
    CLEANUP_FREE char *text = record_dataset_encode(d);

    round_trip_dataset(dataset_copy(d));
    assert_non_null(strstr(text, "{\"format\":2,"));
    d->replica->node = UUID_NIL;
    assert_null(record_dataset_encode(d));
    dataset_free(d);
    d = full_dataset();
    CLEANUP_FREE char *old = record_dataset_encode(d);
    assert_non_null(strstr(old, "{\"format\":1,"));
    dataset_free(d);
}

/* Taken from two nodes that were fenced, the second one in the middle of a move. */
static struct dataset *with_fenced(void)
{
    struct dataset *d = full_dataset();

    d->owner = UUID_NIL;
    dataset_add_fenced(d, &d->holders[1]);
    dataset_add_fenced(d, &d->holders[0]);
    d->fenced->freed = UINT64_MAX;
    d->fenced->freed_us = 1;
    d->fenced->transfer = 77;
    d->fenced->destination = d->holders[1];
    return d;
}

static void test_fenced(void **state)
{
    struct dataset *d = with_fenced();
    CLEANUP_FREE char *text = record_dataset_encode(d);

    assert_non_null(strstr(text, "{\"format\":3,"));
    assert_non_null(strstr(text, "\"replica\":null"));
    round_trip_dataset(dataset_copy(d));
    dataset_end_freed(d);
    assert_null(dataset_freed_from(d));
    round_trip_dataset(dataset_copy(d));
    dataset_remove_holder(d, &d->fenced->nodes[0]);
    assert_int_equal(d->fenced->n_nodes, 1);
    round_trip_dataset(dataset_copy(d));
    dataset_remove_fenced(d, &d->fenced->nodes[0]);
    assert_null(d->fenced);
    dataset_free(d);
    d = with_replica();
    d->replica->made_us = 5;
    round_trip_dataset(dataset_copy(d));
    CLEANUP_FREE char *dated = record_dataset_encode(d);
    assert_non_null(strstr(dated, "{\"format\":3,"));
    assert_non_null(strstr(dated, "\"fenced\":null"));
    dataset_free(d);
}

static void test_fence(void **state)
{
    struct fence f = {.node = id(A), .revision = 9, .era = id(B), .at_us = UINT64_MAX, .who = (char *)"alice", .why = (char *)"b\xc3\xa9ta"};
    CLEANUP_FREE char *text = record_fence_encode(&f);
    struct fence *back = NULL;

    assert_null(record_fence_decode(text, strlen(text), &back));
    assert_true(uuid_eq(&back->node, &f.node) && uuid_eq(&back->era, &f.era));
    assert_true(back->revision == 9 && back->at_us == UINT64_MAX);
    assert_string_equal(back->who, "alice");
    assert_string_equal(back->why, f.why);
    fence_free(back);
    f.why = (char *)"\xff";
    assert_null(record_fence_encode(&f));
    struct err *e = record_fence_decode("{\"format\":1}", 12, &back);
    assert_non_null(e);
    err_free(e);
}

static void test_dataset(void **state)
{
    round_trip_dataset(full_dataset());
    round_trip_dataset(dataset_new(id(D1)));
    struct dataset *d = full_dataset();
    d->transfer.phase = TRANSFER_COPY;
    round_trip_dataset(d);
}

/* As most datasets are. */
static struct dataset *plain_dataset(void)
{
    struct dataset *d = dataset_new(id(D1));
    struct metadata_entry entries[] = {{(char *)"name", (char *)"db ~1"}, {(char *)"", (char *)""}};
    struct uuid a = id(A), b = id(B);

    d->revision = 900719925474099312;
    d->primary = d->owner = a;
    d->maximum_size = 1u << 30;
    metadata_copy(&d->metadata, &(struct metadata){entries, 2});
    d->epoch = d->number = 12;
    d->born = d->purge = true;
    d->base = xstrdup("final-7");
    dataset_add_holder(d, &a);
    dataset_add_holder(d, &b);
    return d;
}

static bool is_quick(struct dataset *d)
{
    CLEANUP_FREE char *text = record_dataset_encode(d);
    struct dataset *back = record_dataset_quick(text, strlen(text));
    bool quick = back != NULL;

    if (quick)
        assert_dataset_equal(d, back);
    dataset_free(back);
    dataset_free(d);
    return quick;
}

static void test_quick(void **state)
{
    assert_true(is_quick(plain_dataset()));
    assert_true(is_quick(dataset_new(id(D1))));
    assert_false(is_quick(full_dataset()));
}

/* Whatever the quick reader accepts, the full one reads the same. */
static void compare_readers(const char *text, size_t n, unsigned *accepted)
{
    struct dataset *quick = record_dataset_quick(text, n), *full = NULL;

    if (!quick)
        return;
    ++*accepted;
    struct err *e = record_dataset_full(text, n, &full);
    if (e)
        fail_msg("only the quick reader accepts %.*s: %s", (int)n, text, e->text);
    assert_dataset_equal(quick, full);
    dataset_free(quick);
    dataset_free(full);
}

static void test_quick_reads_what_the_full_reads(void **state)
{
    static const char others[] = "0189af\"\\{}[],:-. ntE\t\x7f\xc3";
    struct dataset *d = plain_dataset();
    CLEANUP_FREE char *text = record_dataset_encode(d);
    size_t n = strlen(text);
    CLEANUP_FREE char *copy = xmalloc(n + 2);
    unsigned accepted = 0;

    dataset_free(d);
    for (size_t i = 0; i <= n; i++) {
        compare_readers(text, i, &accepted);
        for (size_t k = 0; k < sizeof(others); k++) { /* with the NUL */
            memcpy(copy, text, n + 1);
            if (i < n)
                copy[i] = others[k];
            compare_readers(copy, n, &accepted);
            memmove(copy + i + 1, text + i, n - i + 1);
            memcpy(copy, text, i);
            copy[i] = others[k];
            compare_readers(copy, n + 1, &accepted);
        }
        memmove(copy, text, i);
        if (i < n) {
            memcpy(copy + i, text + i + 1, n - i);
            compare_readers(copy, n - 1, &accepted);
        }
    }
    assert_true(accepted > 1000);
}

static struct container *full_container(void)
{
    struct container *c = container_new("shop-db");

    c->revision = UINT64_MAX - 3;
    c->created = UINT64_MAX - 4;
    c->node = id(A);
    c->image = xstrdup("postgres:9.4");
    c->ports = xmemdup((struct port[]){{80, 0}, {65535, 8080}}, 2 * sizeof(struct port));
    c->n_ports = 2;
    c->links = xmemdup((struct link[]){{xstrdup("cache"), 6379, 16379}}, sizeof(struct link));
    c->n_links = 1;
    c->environment = xmemdup(
        (struct env_entry[]){{xstrdup("Z"), xstrdup("")}, {xstrdup("A"), xstrdup("\xe2\x82\xac=")}},
        2 * sizeof(struct env_entry));
    c->n_environment = 2;
    c->command_line =
        xmemdup((char *[]){xstrdup("sh"), xstrdup("-c"), xstrdup("")}, 3 * sizeof(char *));
    c->n_command_line = 3;
    c->has_command_line = true;
    c->cpu_shares = UINT32_MAX;
    c->memory_limit = UINT64_MAX;
    c->swappiness = 0;
    c->restart_policy = RESTART_ON_FAILURE;
    c->maximum_retry_count = 5;
    container_add_volume(c, &(struct uuid){{0}}, "/var/lib/postgresql/data", false);
    c->volumes[0].dataset = id(D1);
    return c;
}

static struct container *extended_container(void)
{
    struct container *c = full_container();

    container_extend(c);
    return c;
}

static void round_trip_container(struct container *c)
{
    struct container *back = NULL;
    char *text = record_container_encode(c);

    assert_non_null(text);
    assert_null(record_container_decode(text, strlen(text), &back));
    assert_string_equal(c->name, back->name);
    assert_true(c->revision == back->revision);
    assert_true(c->created == back->created);
    assert_true(uuid_eq(&c->node, &back->node));
    assert_true(container_same_settings(c, back));
    free(text);
    container_free(c);
    container_free(back);
}

static void test_container(void **state)
{
    round_trip_container(full_container());
    round_trip_container(container_new("xx"));
    round_trip_container(extended_container());
    struct container *off = extended_container();
    for (size_t i = 0; i < off->health->n_test; i++)
        free(off->health->test[i]);
    free(off->health->test);
    *off->health = (struct health_check){.disabled = true};
    for (size_t i = 0; i < off->n_entrypoint; i++)
        free(off->entrypoint[i]);
    off->n_entrypoint = 0; /* taken away is not the image's own */
    round_trip_container(off);
    struct container *c = full_container();
    c->restart_policy = RESTART_ALWAYS;
    c->swappiness = UINT32_MAX;
    for (size_t i = 0; i < c->n_command_line; i++)
        free(c->command_line[i]);
    c->n_command_line = 0; /* an empty command line is not the same as none */
    round_trip_container(c);
}

static void test_lease(void **state)
{
    struct lease leases[] = {
        {.dataset = id(D1),
         .revision = 9,
         .node = id(A),
         .acquired = true,
         .expires = true,
         .expires_wall_us = UINT64_MAX},
        {.dataset = id(D1), .revision = UINT64_MAX, .node = id(B), .acquired = true},
    };

    for (size_t i = 0; i < ARRAY_SIZE(leases); i++) {
        struct lease back;
        char *text = record_lease_encode(&leases[i]);

        assert_null(record_lease_decode(text, strlen(text), &back));
        assert_true(uuid_eq(&leases[i].dataset, &back.dataset));
        assert_true(uuid_eq(&leases[i].node, &back.node));
        assert_true(leases[i].revision == back.revision);
        assert_int_equal(leases[i].expires, back.expires);
        assert_true(leases[i].expires_wall_us == back.expires_wall_us);
        assert_true(back.acquired);
        assert_non_null(strstr(text, "\"format\":1")); /* an older version can read it */
        free(text);
    }
}

static struct lease mounted_lease(void)
{
    struct lease l = {.dataset = id(D1), .revision = 9, .node = id(A), .since_us = 1479811200000000};

    lease_add_mount(&l, "m2");
    lease_add_mount(&l, "m1");
    lease_add_mount(&l, "m2");
    return l;
}

static void refuse_lease(const char *good, const char *from, const char *to, const char *says)
{
    struct lease back;
    const char *at = strstr(good, from);

    assert_non_null(at);
    char *text = xasprintf("%.*s%s%s", (int)(at - good), good, to, at + strlen(from));
    struct err *e = record_lease_decode(text, strlen(text), &back);
    assert_non_null(e);
    if (!strstr(e->text, says))
        fail_msg("\"%s\" does not say \"%s\"", e->text, says);
    err_free(e);
    free(text);
}

static void test_lease_with_mounts(void **state)
{
    struct lease l = mounted_lease(), back, nothing = {.dataset = id(D1), .node = id(A)};
    CLEANUP_FREE char *good = record_lease_encode(&l);

    assert_int_equal(l.n_mounts, 2);
    assert_null(record_lease_decode(good, strlen(good), &back));
    assert_int_equal(back.n_mounts, 2);
    assert_string_equal(back.mounts[0], "m1");
    assert_true(lease_has_mount(&back, "m2"));
    assert_true(back.since_us == l.since_us);
    assert_false(back.acquired);
    refuse_lease(good, "\"format\":2", "\"format\":1", "is unknown");
    refuse_lease(good, "\"format\":2", "\"format\":3", "format 3");
    refuse_lease(good, "[\"m1\",\"m2\"]", "[\"m2\",\"m1\"]", "\"mounts\" must be a sorted list");
    refuse_lease(good, "[\"m1\",\"m2\"]", "[\"m1\",\"m1\"]", "\"mounts\" must be a sorted list");
    refuse_lease(good, "[\"m1\",\"m2\"]", "[]", "\"mounts\" must be a sorted list");
    refuse_lease(good, "[\"m1\",\"m2\"]", "[\"\"]", "\"mounts\" must be a sorted list");
    refuse_lease(good, "[\"m1\",\"m2\"]", "7", "\"mounts\" must be a sorted list");
    refuse_lease(good, "\"expires_wall_us\":null", "\"expires_wall_us\":7", "must be null");
    assert_true(lease_remove_mount(&back, "m1"));
    assert_false(lease_remove_mount(&back, "m1"));
    assert_int_equal(back.n_mounts, 1);
    assert_null(record_lease_encode(&nothing)); /* nothing keeps it: there is no such lease */
    lease_done(&l);
    lease_done(&back);
}

static void test_not_encodable(void **state)
{
    struct dataset *d = full_dataset();
    struct container *c = full_container();

    free(d->metadata.entries[0].key);
    d->metadata.entries[0].key = xstrdup(d->metadata.entries[1].key);
    assert_null(record_dataset_encode(d));
    free(d->metadata.entries[0].key);
    d->metadata.entries[0].key = xstrdup("\xff");
    assert_null(record_dataset_encode(d));
    free(c->environment[0].value);
    c->environment[0].value = xstrdup("\xc0\xaf");
    assert_null(record_container_encode(c));
    d->metadata.n--;
    d->holders[0] = UUID_NIL;
    assert_null(record_dataset_encode(d));
    d->metadata.n++;
    dataset_free(d);
    container_free(c);
}

/* Replaces the first `from` in a good record and expects a refusal that says `says`. */
static void refuse(const char *good, const char *from, const char *to, const char *says)
{
    struct str text = {0};
    struct dataset *d = NULL;
    const char *at = strstr(good, from);

    assert_non_null(at);
    str_append_bytes(&text, good, (size_t)(at - good));
    str_append(&text, to);
    str_append(&text, at + strlen(from));
    struct err *e = record_dataset_decode(text.data, text.len, &d);
    assert_true(err_is(e, ERR_CORRUPT));
    if (!strstr(e->text, says))
        fail_msg("\"%s\" does not say \"%s\"", e->text, says);
    assert_null(d);
    err_free(e);
    str_done(&text);
}

static void test_corrupt(void **state)
{
    struct dataset *d = full_dataset();
    CLEANUP_FREE char *good = record_dataset_encode(d);

    refuse(good, "{", "", "not JSON");
    refuse(good, good, "[]", "not a JSON object");
    refuse(good, "\"format\":1,", "", "\"format\" is missing");
    refuse(good, "\"format\":1", "\"format\":0", "at least 1");
    refuse(good, "\"format\":1", "\"format\":4,\"new\":3", "newer Flocker");
    refuse(good, "\"format\":1", "\"format\":2", "\"replica\" is missing");
    refuse(good, "\"format\":1", "\"format\":1,\"odd\":3", "\"odd\" is unknown");
    refuse(good, "\"born\":true,", "", "\"born\" is missing");
    refuse(good, "\"born\":true", "\"born\":1", "\"born\" must be true or false");
    refuse(good, "\"born\":true", "\"born\":true,\"born\":true", "duplicate");
    refuse(good, "\"epoch\":9223372036854775807", "\"epoch\":-1", "\"epoch\" must be a whole");
    refuse(good, "\"epoch\":9223372036854775807", "\"epoch\":1.0", "\"epoch\" must be a whole");
    refuse(good, "\"epoch\":9223372036854775807", "\"epoch\":\"5\"", "\"epoch\" must be a whole");
    refuse(good, "18446744073709551615", "18446744073709551616", "\"revision\" must be a whole");
    refuse(good, "18446744073709551615", "018446744073709551615", "\"revision\" must be a whole");
    refuse(good, "\"" A "\"", "\"3F0C9C1E-7b1d-4c7a-9d0e-0a1b2c3d4e5f\"",
           "\"owner\" must be a UUID");
    refuse(good, "[\"" B "\"", "[\"" A "\"", "without repetition");
    refuse(good, "[\"" B "\"", "[null", "\"holders\" must be a UUID");
    refuse(good, "\"phase\":\"release\"", "\"phase\":\"leap\"", "\"phase\" must be \"copy\"");
    refuse(good, "\"phase\":\"release\"", "\"phase\":\"release\",\"x\":0", "\"x\" is unknown");
    refuse(good, "\"id\":77", "\"id\":0", "\"id\" must be at least 1");
    refuse(good, "\"zoo\":\"b\xc3\xa9ta\"", "\"zoo\":7", "\"metadata\" must be an object of texts");
    refuse(good, "\"base\":\"final-7\"", "\"base\":false", "\"base\" must be a text or null");
    dataset_free(d);
}

static void test_corrupt_replica(void **state)
{
    struct dataset *d = with_replica();
    CLEANUP_FREE char *good = record_dataset_encode(d);

    refuse(good, "\"format\":2", "\"format\":1", "\"replica\" is unknown");
    refuse(good, "\"replica\":{", "\"replica\":{\"x\":0,", "\"x\" is unknown");
    refuse(good, "\"t7-final\"", "\"\"", "\"base\" must be the name of a snapshot");
    refuse(good, "t7-final", "t7777777777777777777777777777777777777777777777777777777777777777777-final",
           "\"base\" must be the name of a snapshot");
    refuse(good, "{\"node\":\"" B "\"", "{\"node\":\"" D1 "\"", "\"replica\" must be on one of the holders");
    refuse(good, "{\"node\":\"" B "\"", "{\"node\":null", "\"node\" must be a UUID");
    dataset_free(d);
}

static void test_corrupt_fenced(void **state)
{
    struct dataset *d = with_fenced();
    CLEANUP_FREE char *good = record_dataset_encode(d);

    refuse(good, "\"format\":3", "\"format\":2", "\"replica\" must be an object");
    refuse(good, "\"fenced\":{", "\"fenced\":{\"x\":0,", "\"x\" is unknown");
    refuse(good, "\"nodes\":[", "\"nodes\":[\"" D1 "\",", "\"nodes\" must be holders");
    refuse(good, "\"freed_us\":1,", "", "\"freed_us\" is missing");
    refuse(good, "\"owner\":null", "\"owner\":\"" A "\"", "\"freed\" must be 0");
    dataset_free(d);
    d = full_dataset();
    d->owner = UUID_NIL;
    dataset_add_fenced(d, &d->holders[1]);
    CLEANUP_FREE char *one = record_dataset_encode(d);
    const char *nodes = strstr(one, "\"nodes\":[");
    CLEANUP_FREE char *node = xasprintf("\"nodes\":[\"%s\"]", UUID_STR(&d->holders[1]));
    assert_non_null(nodes);
    refuse(one, node, "\"nodes\":[]", "\"nodes\" must be not empty");
    dataset_free(d);
}

/* The record with the first `from` made `to` is refused, by a text with `says`. */
static void refuse_container(const char *good, const char *from, const char *to, const char *says)
{
    struct container *back = NULL;
    const char *at = strstr(good, from);

    assert_non_null(at);
    char *text = xasprintf("%.*s%s%s", (int)(at - good), good, to, at + strlen(from));
    struct err *e = record_container_decode(text, strlen(text), &back);
    assert_non_null(e);
    if (!strstr(e->text, says))
        fail_msg("\"%s\" does not say \"%s\"", e->text, says);
    err_free(e);
    free(text);
}

static void test_corrupt_container(void **state)
{
    static const char *const changes[][3] = {
        {"[80,0]", "[80]", "list of pairs"},
        {"[80,0]", "[80,65536]", "smaller number"},
        {"[\"Z\",\"\"]", "[\"Z\",1]", "pairs of texts"},
        {"\"sh\"", "7", "list of texts"},
        {"\"on-failure\"", "\"often\"", "\"never\""},
        {"\"alias\"", "\"alias2\"", "\"alias\" is missing"},
        {"\"swappiness\":0", "\"swappiness\":4294967295", "smaller"},
        {"\"mountpoint\":\"", "\"a\":1,\"mountpoint\":\"", "\"a\" is unknown"},
    };
    struct container *c = full_container();
    CLEANUP_FREE char *good = record_container_encode(c);

    for (size_t i = 0; i < ARRAY_SIZE(changes); i++)
        refuse_container(good, changes[i][0], changes[i][1], changes[i][2]);
    container_free(c);
}

/* What older versions can read is written as they read it. */
static void test_extended_format(void **state)
{
    struct container *plain = full_container(), *c = extended_container();
    CLEANUP_FREE char *old = record_container_encode(plain);
    CLEANUP_FREE char *good = record_container_encode(c);

    assert_non_null(strstr(old, "\"format\":1"));
    assert_null(strstr(old, "extended"));
    refuse_container(good, "\"format\":2", "\"format\":1", "\"extended\" is unknown");
    refuse_container(good, "\"format\":2", "\"format\":5", "format 5");
    refuse_container(old, "\"format\":1", "\"format\":2", "\"extended\" is missing");
    refuse_container(good, "\"user\":\"70:70\"", "\"user\":70", "\"user\" must be a text or null");
    refuse_container(good, "\"user\":", "\"x\":", "\"user\" is missing");
    refuse_container(good, "[\"tini\"", "[7", "\"entrypoint\" must be a list of texts or null");
    refuse_container(good, "[\"CMD\"", "[null", "\"test\" must be a list of texts");
    refuse_container(good, "\"healthy\"", "\"well\"", "\"depends_on\" must be with");
    refuse_container(good, "[\"tier\",\"db\"]", "[\"tier\"]", "\"labels\" must be a list of pairs");
    refuse_container(good, "\"retries\":3", "\"retries\":4294967296", "smaller");
    container_free(plain);
    container_free(c);
}

/* A single volume that may be written is kept as it always was. */
static void test_volumes_format(void **state)
{
    struct container *plain = full_container(), *c = full_container();
    const struct uuid second = id(D2);

    c->volumes[0].read_only = true;
    CLEANUP_FREE char *one = record_container_encode(c);
    container_add_volume(c, &second, "/var/lib/postgresql/wal", false);
    CLEANUP_FREE char *old = record_container_encode(plain), *good = record_container_encode(c);
    struct container *back = NULL;

    assert_non_null(strstr(old, "\"format\":1"));
    assert_non_null(strstr(old, "\"volume\":{\"dataset\":\"" D1
                                "\",\"mountpoint\":\"/var/lib/postgresql/data\"}"));
    assert_non_null(strstr(one, "\"format\":3"));
    assert_non_null(strstr(good, "\"format\":3"));
    assert_null(record_container_decode(good, strlen(good), &back));
    assert_int_equal(back->n_volumes, 2);
    assert_true(container_same_settings(back, c));
    assert_true(back->volumes[0].read_only && !back->volumes[1].read_only);
    refuse_container(good, "\"format\":3", "\"format\":2", "\"volume\" is missing");
    refuse_container(good, "\"format\":3", "\"format\":5", "format 5");
    c->ended = true;
    CLEANUP_FREE char *ended = record_container_encode(c);
    container_free(back);
    assert_null(record_container_decode(ended, strlen(ended), &back));
    assert_true(back->ended);
    container_free(back);
    plain->ended = true; /* also without more volumes */
    CLEANUP_FREE char *job = record_container_encode(plain);
    assert_null(record_container_decode(job, strlen(job), &back));
    assert_true(back->ended && back->n_volumes == 1);
    refuse_container(job, "\"ended\":true", "\"ended\":0", "\"ended\" must be");
    refuse_container(job, "\"format\":4", "\"format\":3", "\"ended\" is unknown");
    refuse_container(good, "\"read_only\":true", "\"read_only\":1", "\"read_only\" must be");
    refuse_container(good, ",\"read_only\":true", "", "\"read_only\" is missing");
    refuse_container(good, "\"volumes\":[", "\"volumes\":[7,", "\"volumes\" must be an object");
    refuse_container(old, "\"volume\":{", "\"volume\":[7],\"x\":{", "\"volume\" must be an object");
    container_free(back);
    container_free(plain);
    container_free(c);
}

/* No cut of a good record is accepted or breaks anything. */
static void test_truncated(void **state)
{
    struct dataset *d = full_dataset();
    CLEANUP_FREE char *good = record_dataset_encode(d);

    for (size_t n = 0; n < strlen(good); n++) {
        struct dataset *back = NULL;
        struct err *e = record_dataset_decode(good, n, &back);

        assert_true(err_is(e, ERR_CORRUPT));
        err_free(e);
    }
    dataset_free(d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_dataset),   cmocka_unit_test(test_container),
        cmocka_unit_test(test_quick),     cmocka_unit_test(test_quick_reads_what_the_full_reads),
        cmocka_unit_test(test_lease),     cmocka_unit_test(test_lease_with_mounts),     cmocka_unit_test(test_not_encodable),
        cmocka_unit_test(test_corrupt),
        cmocka_unit_test(test_replica),
        cmocka_unit_test(test_corrupt_replica),
        cmocka_unit_test(test_fenced),
        cmocka_unit_test(test_corrupt_fenced),
        cmocka_unit_test(test_fence),
        cmocka_unit_test(test_corrupt_container),
        cmocka_unit_test(test_extended_format),
        cmocka_unit_test(test_volumes_format),
        cmocka_unit_test(test_truncated),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
