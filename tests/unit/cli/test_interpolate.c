/* Variables in Compose files, files of variables, merge keys. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cli/deploy_compose.h"
#include "cli/interpolate.h"

static const char *find(void *cookie, const char *name)
{
    (void)cookie;
    if (streq(name, "A"))
        return "a value";
    if (streq(name, "TAG"))
        return "1.2";
    return streq(name, "EMPTY") ? "" : NULL;
}

static json_t *unset;

static void expands(const char *text, const char *expected)
{
    struct variables v = {.find = find, .unset = unset};
    CLEANUP_FREE char *got = NULL;
    struct err *e = interpolate(text, &v, &got);

    if (e)
        fail_msg("%s: %s", text, e->text);
    assert_string_equal(got, expected);
}

static void refused(const char *text, const char *sentence)
{
    struct variables v = {.find = find};
    char *got = NULL;
    CLEANUP_ERR struct err *e = interpolate(text, &v, &got);

    assert_non_null(e);
    assert_string_equal(e->text, sentence);
    assert_null(got);
}

static void test_variables(void **state)
{
    (void)state;
    unset = json_object();
    expands("plain", "plain");
    expands("", "");
    expands("nginx:$TAG", "nginx:1.2");
    expands("${A}, ${TAG}${TAG}", "a value, 1.21.2");
    expands("$$HOME and $${A}", "$HOME and ${A}");
    expands("$A-x", "a value-x");
    expands("${NONE:-b}${NONE-c}${EMPTY:-d}${EMPTY-e}${A:-f}", "bcda value");
    expands("${NONE:-${NEITHER:-$TAG}}", "1.2");
    expands("${A:?must be}${EMPTY?must be}", "a value");
    expands("${A:+x}${EMPTY:+y}${EMPTY+z}${NONE+w}", "xz");
    expands("${A:-}${NONE-}", "a value");
    assert_int_equal(json_object_size(unset), 0);
    expands("<$NONE${NEITHER}>", "<>");
    assert_int_equal(json_object_size(unset), 2);
    assert_true(json_is_true(json_object_get(unset, "NEITHER")));
    json_decref(unset);
    unset = NULL;
}

static void test_wrong_variables(void **state)
{
    CLEANUP_STR struct str deep = {0};

    (void)state;
    refused("${NONE:?say what}", "the variable NONE is not set: say what");
    refused("${EMPTY:?}", "the variable EMPTY is not set");
    refused("${NONE?with $A}", "the variable NONE is not set: with a value");
    refused("cost: $5", "'$5' is no variable; write $$ for a $ that is meant as it is");
    refused("$", "'$' is no variable; write $$ for a $ that is meant as it is");
    refused("${}", "'${}' is no variable; write $$ for a $ that is meant as it is");
    refused("${A", "'${A' is no variable; write $$ for a $ that is meant as it is");
    refused("${A!x}", "'${A!x}' is no variable; write $$ for a $ that is meant as it is");
    refused("${A:x}", "'${A:x}' is no variable; write $$ for a $ that is meant as it is");
    refused("${NONE:-x", "a '${' has no '}'");
    for (int i = 0; i < 100; i++)
        str_append(&deep, "${N:-");
    refused(deep.data, "more than 20 defaults in each other");
}

static void test_in_values(void **state)
{
    struct variables v = {.find = find};
    json_t *value = json_pack("{s:{s:s, s:[s, i, {s:s}]}, s:s}", "web", "image", "nginx:$TAG", "list", "$$", 5, "deep", "${A}",
                              "$A", "key stays");
    json_t *wanted = json_pack("{s:{s:s, s:[s, i, {s:s}]}, s:s}", "web", "image", "nginx:1.2", "list", "$", 5, "deep",
                               "a value", "$A", "key stays");

    (void)state;
    assert_null(interpolate_all(value, &v));
    assert_true(json_equal(value, wanted));
    (void)json_object_set_new(json_object_get(value, "web"), "image", json_string("$("));
    CLEANUP_ERR struct err *e = interpolate_all(value, &v);
    assert_string_equal(e->text, "web.image: '$(' is no variable; write $$ for a $ that is meant as it is");
    json_decref(value);
    json_decref(wanted);
}

static void reads(const char *text, const char *expected)
{
    struct variables v = {.find = find};
    json_t *got = json_object();
    struct err *e = env_file_read(text, &v, got);

    if (e)
        fail_msg("%s: %s", text, e->text);
    json_t *wanted = json_loads(expected, 0, NULL);
    if (!json_equal(got, wanted))
        fail_msg("%s: %s", text, json_dumps(got, JSON_COMPACT));
    json_decref(got);
    json_decref(wanted);
}

static void bad_file(const char *text, const char *sentence)
{
    struct variables v = {.find = find};
    json_t *got = json_object();
    CLEANUP_ERR struct err *e = env_file_read(text, &v, got);

    assert_non_null(e);
    assert_string_equal(e->text, sentence);
    json_decref(got);
}

static void test_files(void **state)
{
    (void)state;
    reads("", "{}");
    reads("# nothing\n\n  # more\n", "{}");
    reads("A=1\nB = two words  \nC=\nD", "{\"A\": \"1\", \"B\": \"two words\", \"C\": \"\", \"D\": null}");
    reads("export X=y # comment\nZ=a#b\r\n", "{\"X\": \"y\", \"Z\": \"a#b\"}");
    reads("X='$A \\n' # c\nY=\"$A\\n\\$A\\\"\"\nW=$TAG", "{\"X\": \"$A \\\\n\", \"Y\": \"a value\\n$A\\\"\", \"W\": \"1.2\"}");
    reads("X=\"two\nlines\"\nY=1", "{\"X\": \"two\\nlines\", \"Y\": \"1\"}");
    reads("A=1\nA=2", "{\"A\": \"2\"}");
    reads("with.dot-and-dash=1", "{\"with.dot-and-dash\": \"1\"}");
    bad_file("A=1\n=2", "line 2: '' is no name of a variable");
    bad_file("A B=2", "line 1: 'A B' is no name of a variable");
    bad_file("\nA=\"x", "line 2: A: a quote does not end");
    bad_file("A='x'y", "line 1: A: something follows the quoted value");
    bad_file("A=$(ls)", "line 1: A: '$(ls)' is no variable; write $$ for a $ that is meant as it is");
    bad_file("A=\xff", "line 1: A: the value is not UTF-8 text");
}

static void test_merge(void **state)
{
    json_t *v = json_loads("{\"web\": {\"<<\": [{\"a\": 1, \"b\": 1}, {\"b\": 2, \"c\": 2}], \"a\": 0, \"in\": {\"<<\": {\"x\": 1}}}}", 0,
                           NULL),
           *wanted = json_loads("{\"web\": {\"a\": 0, \"in\": {\"x\": 1}, \"b\": 1, \"c\": 2}}", 0, NULL);

    (void)state;
    assert_null(deploy_merge_keys(v));
    assert_true(json_equal(v, wanted));
    json_decref(v);
    json_decref(wanted);
    v = json_loads("{\"web\": {\"<<\": 5}}", 0, NULL);
    CLEANUP_ERR struct err *e = deploy_merge_keys(v);
    assert_string_equal(e->text, "'<<' must be a dictionary, or a list of them");
    json_decref(v);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_variables), cmocka_unit_test(test_wrong_variables), cmocka_unit_test(test_in_values),
        cmocka_unit_test(test_files),     cmocka_unit_test(test_merge),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
