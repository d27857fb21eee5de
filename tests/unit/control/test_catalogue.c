/* The catalogue that agents are told, and the answers to their calls. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/str.h"
#include "control/catalogue.h"
#include "control/volume_calls.h"
#include "proto/codec.h"

#include <stdio.h>

struct world {
    struct engine *e;
    struct catalogue *c;
    struct now now;
    uint64_t seed;
    struct generation life;
};

static struct uuid id(unsigned n)
{
    struct uuid u = {{0}};

    u.b[13] = (uint8_t)(n >> 16);
    u.b[14] = (uint8_t)(n >> 8);
    u.b[15] = (uint8_t)n;
    return u;
}

/* Everything that comes out is carried out. */
static void settle(struct world *w)
{
    engine_flush(w->e, w->now);
    for (struct effect *f; (f = engine_next(w->e)); effect_free(f)) {
        if (f->kind == EFFECT_COMMIT)
            engine_committed(w->e, w->now, f->batch->id);
        else if (f->kind == EFFECT_VOLUME)
            catalogue_note(w->c, &f->dataset);
        engine_flush(w->e, w->now);
    }
}

static int setup(void **state)
{
    struct world *w = xcalloc(1, sizeof(*w));
    struct hello h = {.protocol = AGENT_PROTOCOL_VERSION, .node = id(900001), .era = id(900002), .volumes = true};

    w->now = (struct now){USEC_PER_SEC, 1000000 * (uint64_t)USEC_PER_SEC};
    w->life.id = id(900003);
    w->e = engine_new(&(struct history){id(900004), &w->life, 1, 0, false}, 0, random_seeded(&w->seed));
    w->c = catalogue_new(w->e);
    engine_session_open(w->e, w->now, 1, &h);
    engine_reports_complete(w->e, w->now, 1, 0);
    settle(w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    struct world *w = *state;

    catalogue_free(w->c);
    engine_free(w->e);
    free(w);
    return 0;
}

static void create(struct world *w, unsigned n, const char *name)
{
    struct dataset *d = dataset_new(id(n));

    d->primary = id(900001);
    d->metadata.entries = xcalloc(1, sizeof(*d->metadata.entries));
    d->metadata.entries[0] = (struct metadata_entry){xstrdup(name ? "name" : "other"), xstrdup(name ? name : "x")};
    d->metadata.n = 1;
    engine_command(w->e, w->now, &(struct command){.kind = COMMAND_DATASET_CREATE, .dataset = d});
}

static void lease(struct world *w, unsigned n)
{
    engine_command(w->e, w->now,
                   &(struct command){.kind = COMMAND_LEASE_ACQUIRE, .dataset_id = id(n), .node = id(900001)});
    settle(w);
}

static void purge(struct world *w, unsigned n)
{
    engine_command(w->e, w->now, &(struct command){.kind = COMMAND_DATASET_DELETE, .dataset_id = id(n), .purge = true});
    settle(w);
}

/* What a session is told next: "+a" an entry, "-" one that is gone, "" nothing. */
static const char *next(struct world *w, uint64_t *cursor)
{
    static char text[64];
    const struct str *message = catalogue_next(w->c, cursor);
    CLEANUP_CONTROL_MESSAGE struct control_message m = {0};

    if (!message)
        return "";
    assert_null(codec_control_decode(message->data, message->len, &m));
    if (m.kind == CONTROL_MESSAGE_VOLUME_NONE)
        return "-";
    assert_int_equal(m.kind, CONTROL_MESSAGE_VOLUME);
    (void)snprintf(text, sizeof(text), "+%s", m.volume.name);
    return text;
}

static void test_all_then_changes(void **state)
{
    struct world *w = *state;
    uint64_t early = 0, late = 0;

    create(w, 1, "a");
    create(w, 2, NULL);
    create(w, 3, "c");
    settle(w);
    assert_string_equal(next(w, &early), ""); /* nobody has asked */
    catalogue_begin(w->c);
    assert_false(catalogue_settle(w->c, w->now));
    assert_true(catalogue_is_whole(w->c));
    assert_string_not_equal(next(w, &early), "");
    assert_string_not_equal(next(w, &early), "");
    assert_string_equal(next(w, &early), "");
    lease(w, 1);
    lease(w, 2); /* no volume */
    assert_false(catalogue_settle(w->c, w->now));
    assert_string_equal(next(w, &early), "+a");
    assert_string_equal(next(w, &early), "");
    lease(w, 1); /* again: nothing is new */
    assert_false(catalogue_settle(w->c, w->now));
    assert_string_equal(next(w, &early), "");
    /* Who comes late hears of each once, as it is now. */
    assert_string_equal(next(w, &late), "+c");
    assert_string_equal(next(w, &late), "+a");
    assert_string_equal(next(w, &late), "");
}

static void test_what_is_gone(void **state)
{
    struct world *w = *state;
    uint64_t one = 0, other = 0, late = 0;

    create(w, 1, "a");
    create(w, 2, "b");
    settle(w);
    catalogue_begin(w->c);
    catalogue_settle(w->c, w->now);
    while (*next(w, &one))
        ;
    assert_false(catalogue_has_gone(w->c));
    purge(w, 1);
    create(w, 3, "x");
    settle(w);
    catalogue_settle(w->c, w->now);
    purge(w, 3);
    catalogue_settle(w->c, w->now);
    assert_true(catalogue_has_gone(w->c));
    assert_string_equal(next(w, &one), "-");
    assert_string_equal(next(w, &one), "-"); /* of one that this session never heard of: harmless */
    assert_string_equal(next(w, &one), "");
    catalogue_told(w->c, 0); /* another session has heard of nothing */
    assert_true(catalogue_has_gone(w->c));
    while (*next(w, &other))
        ;
    catalogue_told(w->c, other < one ? other : one);
    assert_false(catalogue_has_gone(w->c));
    assert_string_equal(next(w, &late), "+b");
    assert_string_equal(next(w, &late), "");
}

/* A name that returns under the same id, and one that changes often, leave the list short and in order. */
static void test_many_changes(void **state)
{
    struct world *w = *state;
    uint64_t slow = 0, cursor = 0;

    for (unsigned i = 1; i <= 20; i++)
        create(w, i, "v");
    settle(w);
    catalogue_begin(w->c);
    catalogue_settle(w->c, w->now);
    for (unsigned i = 0; i < 1000; i++) {
        struct command release = {.kind = COMMAND_LEASE_RELEASE, .dataset_id = id(1 + i / 2 % 20)};
        if (i % 2)
            engine_command(w->e, w->now, &release);
        else
            lease(w, 1 + i / 2 % 20);
        settle(w);
        catalogue_settle(w->c, w->now);
        if (i % 10 == 0)
            assert_string_equal(next(w, &cursor), "+v");
    }
    unsigned n = 0;
    for (; *next(w, &slow); n++)
        ;
    assert_int_equal(n, 20);
    for (n = 0; *next(w, &cursor); n++)
        ;
    assert_in_range(n, 1, 20);
}

/* 10,000 named datasets are a normal case: they are looked at in parts. */
static void test_ten_thousand(void **state)
{
    struct world *w = *state;
    unsigned turns = 0, n = 0;
    uint64_t cursor = 0;
    size_t bytes = 0;

    for (unsigned i = 1; i <= 10000; i++) {
        CLEANUP_FREE char *name = xasprintf("volume-%u", i);
        create(w, i, name);
    }
    settle(w);
    catalogue_begin(w->c);
    uint64_t began = now_os().mono_us, longest = 0;
    for (bool more = true; more; turns++) {
        uint64_t turn = now_os().mono_us;
        more = catalogue_settle(w->c, w->now);
        turn = now_os().mono_us - turn;
        longest = turn > longest ? turn : longest;
    }
    assert_true(turns >= 20);
    for (const struct str *m; (m = catalogue_next(w->c, &cursor)); n++)
        bytes += m->len;
    print_message("10000 volumes: %llu us in %u turns, the longest %llu us; %zu bytes for a session\n",
                  (unsigned long long)(now_os().mono_us - began), turns, (unsigned long long)longest, bytes);
    assert_int_equal(n, 10000);
    lease(w, 77);
    uint64_t change = now_os().mono_us;
    catalogue_settle(w->c, w->now);
    print_message("one change: %llu us\n", (unsigned long long)(now_os().mono_us - change));
    assert_string_equal(next(w, &cursor), "+volume-77");
    assert_string_equal(next(w, &cursor), "");
}

/* ---- calls ---- */

static void test_checks(void **state)
{
    static const struct {
        const char *name;
        uint64_t size;
        const char *says; /* NULL = nothing is wrong */
    } cases[] = {
        {"db", 0, NULL},
        {"db", DATASET_MIN_SIZE, NULL},
        {"db", DATASET_MIN_SIZE + 1, "multiple of 1024"},
        {"db", 1024, "at least 67108864"},
        {"db", UINT64_MAX - 1023, "is not possible"},
        {"", 0, "1 to 256 characters"},
        {"a\nb", 0, "in one line"},
    };
    CLEANUP_FREE char *long_name = xcalloc(1, 258);

    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct volume_call c = {.kind = VOLUME_CREATE, .name = (char *)cases[i].name, .maximum_size = cases[i].size};
        CLEANUP_FREE char *wrong = volume_create_check(&c);
        if (!cases[i].says)
            assert_null(wrong);
        else
            assert_non_null(strstr(wrong, cases[i].says));
    }
    memset(long_name, 'x', 257);
    struct volume_call c = {.kind = VOLUME_CREATE, .name = long_name};
    CLEANUP_FREE char *wrong = volume_create_check(&c);
    assert_non_null(wrong);
    struct metadata_entry other = {(char *)"name", (char *)"db2"};
    struct volume_call twice = {.kind = VOLUME_CREATE, .name = (char *)"db", .metadata = {&other, 1}};
    CLEANUP_FREE char *says = volume_create_check(&twice);
    assert_non_null(strstr(says, "another name"));
}

static void test_answers(void **state)
{
    struct volume_answer a;
    struct dataset d = {.id = id(5), .epoch = 7};
    struct command_result ok = {.code = RESULT_OK, .dataset = &d, .lease = {.revision = 9}};
    struct command_result held = {.code = RESULT_LEASE_HELD,
                                  .text = (char *)"Docker on node 3f0c9c1e (h1) has it mounted (1 mount)",
                                  .lease = {.since_us = 1479811200000000}};

    volume_call_answer(VOLUME_USE, &ok, &a);
    assert_int_equal(a.code, VOLUME_OK);
    assert_true(a.epoch == 7 && a.revision == 9);
    volume_answer_done(&a);
    volume_call_answer(VOLUME_USE, &held, &a);
    assert_int_equal(a.code, VOLUME_HELD);
    assert_string_equal(a.text, "the volume is in use: Docker on node 3f0c9c1e (h1) has it mounted (1 mount), since 2016-11-22T10:40:00Z");
    volume_answer_done(&a);
    for (int code = 0; code < RESULT_MAX; code++) {
        struct command_result r = {.code = (enum result_code)code, .text = (char *)"text", .dataset = &d};
        volume_call_answer(VOLUME_CREATE, &r, &a);
        assert_true(a.code == VOLUME_OK || a.code == VOLUME_CREATED || a.text);
        volume_answer_done(&a);
    }
}

static void test_a_command_has_the_name(void **state)
{
    struct metadata_entry entry = {(char *)"owner", (char *)"me"};
    struct volume_call call = {.kind = VOLUME_CREATE, .name = (char *)"db", .metadata = {&entry, 1}, .maximum_size = 1024};
    struct command c;

    volume_call_command(&call, 11, &c);
    assert_int_equal(c.kind, COMMAND_VOLUME_CREATE);
    assert_true(c.session == 11);
    assert_string_equal(metadata_get(&c.dataset->metadata, "name"), "db");
    assert_string_equal(metadata_get(&c.dataset->metadata, "owner"), "me");
    assert_true(c.dataset->maximum_size == 1024);
    dataset_free(c.dataset);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_all_then_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_what_is_gone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_changes, setup, teardown),
        cmocka_unit_test_setup_teardown(test_ten_thousand, setup, teardown),
        cmocka_unit_test(test_checks),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_a_command_has_the_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
